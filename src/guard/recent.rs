//! The verdicts of a moment ago, for one thread: found by a text's own bytes, with nothing locked, folded or hashed whole.
//!
//! Clients of the extended protocol send the same few texts again and again. What is not here the guard's own memory has.

use std::sync::{Arc, Weak};

use super::{Guard, Rights, Verdict};

/// Longer texts are not kept here.
const TEXT_BYTES_MAX: usize = 1 << 10;
/// How many texts are kept, each in its own place: a power of two.
const PLACES: usize = 64;

/// What one thread remembers of one guard.
#[derive(Debug, Default)]
pub struct Recent {
    /// Whose verdicts they are. As long as it is kept, no other guard can have its address.
    guard: Weak<Guard>,
    places: Vec<Place>,
}

#[derive(Debug, Default, Clone)]
struct Place {
    /// Of the text that came last: it is kept when it comes again, so that texts that come once cost nothing.
    mark: u64,
    known: Option<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    text: Box<[u8]>,
    rights: u64,
    verdict: Arc<Verdict>,
}

impl Recent {
    /// The verdict of `guard` on this very text for these rights, if it was given a moment ago.
    pub fn get(&self, guard: &Arc<Guard>, text: &[u8], rights: &Rights) -> Option<Arc<Verdict>> {
        if !self.is_of(guard) {
            return None;
        }
        let known = self.places.get(place(mark(text)))?.known.as_ref()?;
        let same = known.rights == rights.fingerprint() && *known.text == *text;
        same.then(|| Arc::clone(&known.verdict))
    }

    /// Remembers a verdict of `guard` if its text has come twice in a row, among those that share its place.
    pub fn note(&mut self, guard: &Arc<Guard>, text: &[u8], rights: &Rights, verdict: &Arc<Verdict>) {
        if text.len() > TEXT_BYTES_MAX {
            return;
        }
        if !self.is_of(guard) {
            *self = Self { guard: Arc::downgrade(guard), places: vec![Place::default(); PLACES] };
        }
        let mark = mark(text);
        let Some(place) = self.places.get_mut(place(mark)) else { return };
        if place.mark == mark {
            let (text, rights) = (text.into(), rights.fingerprint());
            place.known = Some(Known { text, rights, verdict: Arc::clone(verdict) });
        }
        place.mark = mark;
    }

    fn is_of(&self, guard: &Arc<Guard>) -> bool {
        std::ptr::eq(self.guard.as_ptr(), Arc::as_ptr(guard))
    }
}

/// Tells texts apart, mostly: their length, and how they begin and end.
fn mark(text: &[u8]) -> u64 {
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let ends = word(text.first_chunk()).rotate_left(29) ^ word(text.last_chunk());
    (ends ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn place(mark: u64) -> usize {
    (mark >> 32) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::super::tests::{guard, rights};
    use super::*;

    const TEXT: &[u8] = b"SELECT a FROM t";

    fn verdict(guard: &Guard, rights: &Rights) -> Arc<Verdict> {
        guard.judge("SELECT a FROM t", rights).expect("it is allowed")
    }

    #[test]
    fn a_text_that_comes_twice_is_remembered_for_its_guard_and_its_rights_alone() {
        let guards = [Arc::new(guard()), Arc::new(guard())];
        let (owner, analyst) = (rights(&guards[0], "owner"), rights(&guards[0], "analyst"));
        let given = verdict(&guards[0], &owner);
        let mut recent = Recent::default();
        recent.note(&guards[0], TEXT, &owner, &given);
        assert!(recent.get(&guards[0], TEXT, &owner).is_none());
        recent.note(&guards[0], TEXT, &owner, &given);
        assert!(recent.get(&guards[0], TEXT, &owner).is_some_and(|known| Arc::ptr_eq(&known, &given)));
        assert!(recent.get(&guards[0], TEXT, &analyst).is_none());
        assert!(recent.get(&guards[1], TEXT, &owner).is_none());
        recent.note(&guards[1], TEXT, &owner, &given);
        assert!(recent.get(&guards[0], TEXT, &owner).is_none() && recent.get(&guards[1], TEXT, &owner).is_none());
    }

    #[test]
    fn a_text_that_looks_like_another_is_not_it() {
        let guard = Arc::new(guard());
        let owner = rights(&guard, "owner");
        let (one, two) = (b"SELECT a FROM t WHERE x = y AND z", b"SELECT a FROM u WHERE x = y AND z");
        assert_eq!(mark(one), mark(two));
        let mut recent = Recent::default();
        for _ in 0..2 {
            recent.note(&guard, one, &owner, &verdict(&guard, &owner));
        }
        assert!(recent.get(&guard, one, &owner).is_some() && recent.get(&guard, two, &owner).is_none());
    }

    #[test]
    fn long_texts_and_texts_that_come_once_leave_nothing() {
        let guard = Arc::new(guard());
        let owner = rights(&guard, "owner");
        let mut recent = Recent::default();
        let long = vec![b' '; TEXT_BYTES_MAX + 1];
        for number in 0..1_000 {
            recent.note(&guard, &long, &owner, &verdict(&guard, &owner));
            recent.note(&guard, format!("SELECT {number}").as_bytes(), &owner, &verdict(&guard, &owner));
        }
        assert!(recent.places.iter().all(|place| place.known.is_none()));
    }
}
