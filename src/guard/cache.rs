//! Verdicts remembered by text and by the rights they were made for; only yes, never no.
//!
//! Texts that differ in nothing but the values of literals share a verdict, where it does not depend on these.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::fold::{Fold, fold};
use super::rights::Rights;
use super::verdict::Verdict;

/// Longer texts are judged each time: to hash them costs as much as it saves, and few come twice.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// What all remembered texts and verdicts may weigh.
const CACHE_BYTES_MAX: u64 = 32 << 20;
/// For how many entries the cache is laid out at first.
const ENTRIES_EXPECTED: usize = 10_000;

/// A text, or its fold, and what its reader may do. Equal only if the whole text is.
#[derive(Clone)]
struct Key {
    text: Box<[u8]>,
    /// The text is a fold.
    folded: bool,
    rights: u64,
}

/// The same, borrowed: a look-up allocates nothing.
struct Borrowed<'s> {
    text: &'s [u8],
    folded: bool,
    rights: u64,
}

impl Key {
    fn borrowed(&self) -> Borrowed<'_> {
        Borrowed { text: &self.text, folded: self.folded, rights: self.rights }
    }
}

impl Borrowed<'_> {
    fn owned(&self) -> Key {
        Key { text: self.text.into(), folded: self.folded, rights: self.rights }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrowed().hash(state);
    }
}

impl Hash for Borrowed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.rights ^ u64::from(self.folded));
        state.write(self.text);
    }
}

impl Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.rights == key.rights && self.folded == key.folded && *self.text == *key.text
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.borrowed().equivalent(other)
    }
}

impl Eq for Key {}

/// What is known of a key.
#[derive(Clone)]
enum Known {
    /// The verdict on every text of it.
    Verdict(Arc<Verdict>),
    /// Literals decide: each text has a verdict of its own.
    Apart,
}

/// Weighs an entry in bytes, roughly.
#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Known> for Bytes {
    fn weight(&self, key: &Key, known: &Known) -> u64 {
        let verdict = match known {
            Known::Apart => 0,
            Known::Verdict(verdict) => verdict.bytes(),
        };
        (key.text.len() + 256 + verdict) as u64
    }
}

/// The memory of a guard.
pub(super) struct VerdictCache {
    known: Cache<Key, Known, Bytes, ahash::RandomState>,
    text_bytes_max: usize,
}

/// Under what a verdict that is not remembered is to be remembered.
pub(super) struct Place<'s> {
    sql: &'s str,
    fold: Option<Fold>,
    rights: u64,
}

impl Place<'_> {
    /// By the fold, if there is one.
    fn shared(&self) -> Option<Borrowed<'_>> {
        self.fold.as_ref().map(|fold| Borrowed { text: &fold.bytes, folded: true, rights: self.rights })
    }

    /// By this very text.
    fn own(&self) -> Borrowed<'_> {
        Borrowed { text: self.sql.as_bytes(), folded: false, rights: self.rights }
    }
}

impl VerdictCache {
    /// A memory of texts that have at most `statement_bytes_max` bytes: of a longer one nothing is said, though it may
    /// differ from a shorter one in the values of its literals only.
    pub(super) fn new(statement_bytes_max: usize) -> Self {
        let hash = ahash::RandomState::new();
        let known = Cache::with(ENTRIES_EXPECTED, CACHE_BYTES_MAX, Bytes, hash, Default::default());
        Self { known, text_bytes_max: statement_bytes_max.min(TEXT_BYTES_MAX) }
    }

    /// The verdict on this text for these rights, if it is remembered; else where to remember it.
    pub(super) fn get<'s>(&self, sql: &'s str, rights: &Rights) -> Result<Arc<Verdict>, Place<'s>> {
        let mut place = Place { sql, fold: None, rights: rights.fingerprint() };
        if sql.len() > self.text_bytes_max {
            return Err(place);
        }
        place.fold = fold(sql);
        if let Some(key) = place.shared() {
            match self.known.get(&key) {
                Some(Known::Verdict(verdict)) => return Ok(verdict),
                Some(Known::Apart) => {}
                None => return Err(place),
            }
        }
        match self.known.get(&place.own()) {
            Some(Known::Verdict(verdict)) => Ok(verdict),
            Some(Known::Apart) | None => Err(place),
        }
    }

    /// Remembers a verdict, if its text is not too long; for all texts with its fold where `shareable` says that it does
    /// not depend on the values of literals.
    pub(super) fn insert(&self, place: &Place<'_>, verdict: &Arc<Verdict>, shareable: bool) {
        if place.sql.len() > self.text_bytes_max {
            return;
        }
        if let (Some(key), Some(fold)) = (place.shared(), &place.fold) {
            if shareable || !fold.values {
                self.known.insert(key.owned(), Known::Verdict(Arc::clone(verdict)));
                return;
            }
            self.known.insert(key.owned(), Known::Apart);
        }
        self.known.insert(place.own().owned(), Known::Verdict(Arc::clone(verdict)));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

impl std::fmt::Debug for VerdictCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerdictCache").field("entries", &self.known.len()).finish()
    }
}
