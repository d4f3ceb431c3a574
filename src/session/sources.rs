//! Which portal or cursor gives the rows of a statement: those that are read in slices are one result.

use super::Session;
use crate::guard::{Cursors, Verdict};
use crate::limits::Source;
use crate::wire::frame;

/// Of the named portals that fetch from a cursor so many are known at a time.
const FETCHING_MAX: usize = 64;

/// The portals as the client has bound them.
#[derive(Debug)]
pub(super) struct Sources {
    unnamed: Source,
    /// Named portals of statements that fetch from a cursor, and the cursor.
    fetching: Vec<(Source, Source)>,
    /// There have been too many of them to know one from a portal of its own rows.
    crowded: bool,
}

impl Default for Sources {
    fn default() -> Self {
        Self { unnamed: Source::UNNAMED, fetching: Vec::new(), crowded: false }
    }
}

impl Sources {
    /// A statement was bound to the portal `name`.
    pub(super) fn bound(&mut self, name: &[u8], verdict: Option<&Verdict>) {
        let portal = Source::named(name);
        let rows = verdict.map_or(Source::NONE, of_text);
        if name.is_empty() {
            self.unnamed = if rows == Source::NONE { portal } else { rows };
            return;
        }
        self.fetching.retain(|(known, _)| *known != portal);
        if rows == Source::NONE {
            return;
        }
        if self.fetching.len() < FETCHING_MAX {
            self.fetching.push((portal, rows));
        } else {
            self.crowded = true;
        }
    }

    /// Whose rows an Execute gives, given its body.
    pub(super) fn of_execute(&self, body: &[u8]) -> Source {
        let portal = frame::split_cstr(body).map_or(Source::UNNAMED, |(name, _)| Source::named(name));
        if portal == Source::UNNAMED {
            return self.unnamed;
        }
        match self.fetching.iter().find(|(known, _)| *known == portal) {
            Some((_, cursor)) => *cursor,
            None if self.crowded => Source::SHARED,
            None => portal,
        }
    }
}

/// Whose rows the text of a simple Query gives.
pub(super) fn of_text(verdict: &Verdict) -> Source {
    match verdict.cursors() {
        Cursors::None => Source::NONE,
        Cursors::One(name) => Source::cursor(name.as_bytes()),
        Cursors::Several => Source::SHARED,
    }
}

impl Session {
    /// An answer has ended, and with it perhaps a transaction: its portals and cursors go, but for those WITH HOLD.
    pub(super) fn end_answer(&mut self, idle: bool) {
        self.meter.end_answer();
        if !idle {
            return;
        }
        if !self.flow.owes() {
            self.sources = Sources::default();
        }
        if self.pin.is_none() && !self.ask_state {
            self.meter.forget_sources();
        } else if self.meter.is_crowded() {
            // Whether any of them is still there only the server knows.
            self.ask_state = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GuardPolicy;
    use crate::guard::{Guard, Rights};

    fn verdict(sql: &str) -> std::sync::Arc<Verdict> {
        let policy = GuardPolicy::default();
        let rights = Rights::new::<&str, &str>(&policy, &[], &[]);
        Guard::new(&policy, &[], 1 << 20).judge(sql, &rights).expect("allowed")
    }

    #[test]
    fn a_portal_that_fetches_gives_the_cursors_rows() {
        let mut sources = Sources::default();
        let (plain, fetch) = (verdict("SELECT 1"), verdict("FETCH 5 FROM c"));
        for portal in ["", "p"] {
            let body = [portal.as_bytes(), &[0, 0, 0, 0, 0]].concat();
            sources.bound(portal.as_bytes(), Some(&plain));
            assert_eq!(sources.of_execute(&body), Source::named(portal.as_bytes()));
            sources.bound(portal.as_bytes(), Some(&fetch));
            assert_eq!(sources.of_execute(&body), Source::cursor(b"c"));
            sources.bound(portal.as_bytes(), None);
            assert_eq!(sources.of_execute(&body), Source::named(portal.as_bytes()));
        }
        for number in 0..=FETCHING_MAX {
            sources.bound(format!("p{number}").as_bytes(), Some(&fetch));
        }
        assert_eq!(sources.of_execute(b"p0\0"), Source::cursor(b"c"));
        assert_eq!(sources.of_execute(b"other\0"), Source::SHARED);
        assert_eq!(of_text(&verdict("FETCH 1 FROM c; FETCH 1 FROM d")), Source::SHARED);
    }
}
