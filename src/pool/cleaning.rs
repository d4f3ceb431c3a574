//! What a server connection is told before another session has it, so that nothing is left there of the one before.
//!
//! Everything is taken away, whether or not anybody knows of it: code inside the server (functions, triggers, defaults)
//! leaves what no statement shows. It costs no round trip of its own, as the next context follows in the same write. The
//! order matters: what was left may also disturb the cleaning. `docs/threat-model.md` lists what a server process can keep
//! and what removes it.

use std::fmt::Write as _;

use crate::context::seal::Form;

/// How much is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaning {
    /// Nothing: it is the same session's again, or everything on it is what its context says.
    Nothing,
    /// What is a session's own though two sessions have the same context: [`Left`].
    Left,
    /// Everything, for another organization or after code of which nobody knows what it left.
    All,
}

/// What sessions of one organization leave to each other unless it is taken away: a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left(u8);

impl Left {
    /// What `lastval` and `currval` answer (PostgreSQL manual, "Sequence Manipulation Functions").
    pub const SEQUENCES: Self = Self(1);
    /// Plans and parse trees made under settings that were not the session's context (PostgreSQL manual, "DISCARD").
    pub const PLANS: Self = Self(1 << 1);

    /// Whether nothing is left.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds `other`.
    pub fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether all of `other` is in it.
    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Writes what takes it away.
    pub(super) fn push(self, sql: &mut String) {
        if self.contains(Self::SEQUENCES) {
            sql.push_str("DISCARD SEQUENCES;");
        }
        if self.contains(Self::PLANS) {
            sql.push_str(DISCARD_PLANS);
        }
    }
}

/// Makes every cached plan, parse tree and cached expression be made anew at its next use, those inside PL/pgSQL too.
pub(super) const DISCARD_PLANS: &str = "DISCARD PLANS;";

/// What goes first of a guarded connection, but for what came with PostgreSQL 17. A macro, for `concat!`.
macro_rules! guarded_before {
    () => {
        "RESET default_transaction_deferrable;RESET default_transaction_isolation;RESET default_transaction_read_only;\
         RESET statement_timeout;RESET lock_timeout;RESET idle_in_transaction_session_timeout;\
         RESET standard_conforming_strings;RESET client_encoding"
    };
}

/// The first message. Under what was left, the second could wait (a serializable, read-only, deferrable transaction), be
/// ended (time-outs) or be read as something else (literals): a transaction takes its defaults when it begins, and a
/// text is read before any of it runs. So these go before, in a message that takes no snapshot and holds no literal.
pub(super) fn before(form: Form, server_version_num: u32) -> &'static str {
    match form {
        Form::Plain | Form::Sealed => "RESET \"default_transaction_deferrable\";RESET ALL",
        // There RESET ALL would lose what the next entry needs: `partywall.clear()` stands in for it, and takes a snapshot.
        Form::Guarded if server_version_num < 170_000 => guarded_before!(),
        Form::Guarded => concat!("RESET transaction_timeout;", guarded_before!()),
    }
}

/// Resets every setting where the context is guarded, and keeps what the next entry needs (context_guarded.sql).
pub(super) const CLEAR: &str = "SELECT partywall.clear();";

/// What takes away the rest: what DISCARD ALL does (PostgreSQL manual), which cannot stand in one text with others.
///
/// Prepared statements go too, those of ours with those that functions have prepared by SQL: to tell the ones from the others
/// costs the server more than to prepare again what is used again, and it would analyse and plan that anew in any case.
pub(super) const REST: &str = "DISCARD PLANS;CLOSE ALL;DEALLOCATE ALL;RESET SESSION AUTHORIZATION;UNLISTEN *;\
    SELECT pg_catalog.pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP;";

/// Writes a seed for `random()` that nobody can know: the stream of the one before says nothing of the next.
///
/// # Errors
/// When the system has no random numbers to give.
pub(super) fn push_seed(sql: &mut String) -> Result<(), NoSeed> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoSeed)?;
    // 52 bits are what PostgreSQL makes of a seed between -1 and 1; the top bit of 53 is the sign.
    let bits = i64::from_ne_bytes(bytes) >> 11;
    let seed = bits as f64 / (1_i64 << 52) as f64;
    // Writing to a String cannot fail.
    let _ = write!(sql, "SET seed={seed:.17};");
    Ok(())
}

/// There are no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoSeed;

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> f64 {
        let mut sql = String::new();
        push_seed(&mut sql).expect("a seed");
        let text = sql.strip_prefix("SET seed=").and_then(|rest| rest.strip_suffix(';'));
        text.expect("one statement").parse().expect("a number")
    }

    #[test]
    fn seeds_are_in_range_and_differ() {
        let seeds: Vec<f64> = (0..1000).map(|_| seed()).collect();
        assert!(seeds.iter().all(|seed| (-1.0..=1.0).contains(seed)));
        assert!(seeds.iter().any(|seed| *seed < -0.5) && seeds.iter().any(|seed| *seed > 0.5));
        let mut bits: Vec<u64> = seeds.iter().map(|seed| seed.to_bits()).collect();
        bits.sort_unstable();
        bits.dedup();
        assert_eq!(bits.len(), 1000);
    }

    #[test]
    fn what_runs_first_takes_no_snapshot_and_holds_no_literal() {
        for (form, version) in [(Form::Plain, 130_000), (Form::Guarded, 160_000), (Form::Guarded, 170_000)] {
            let sql = before(form, version);
            assert!(sql.split(';').all(|statement| statement.trim().starts_with("RESET ")), "{sql}");
            assert!(!sql.contains(['\'', '$', '\\']), "{sql}");
        }
    }

    #[test]
    fn what_is_left_is_discarded_and_nothing_else() {
        let mut left = Left::default();
        assert!(left.is_empty());
        left.add(Left::SEQUENCES);
        let mut sql = String::new();
        left.push(&mut sql);
        assert_eq!(sql, "DISCARD SEQUENCES;");
        left.add(Left::PLANS);
        sql.clear();
        left.push(&mut sql);
        assert_eq!(sql, "DISCARD SEQUENCES;DISCARD PLANS;");
    }
}
