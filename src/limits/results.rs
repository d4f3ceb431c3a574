//! The result limit: what a client may be sent for one text or batch, and for one portal or cursor, however it is read.
//!
//! Rows, COPY data and notices are counted before they are passed on. What is between two ReadyForQuery is one answer; what
//! a portal or a cursor gives in slices is one result too, for as long as it lives.

use crate::config::Tier;
use crate::refusal::{Kind, Refusal};

/// Of the portals and cursors of one session so many are counted apart; those beyond share one count.
const SOURCES_MAX: usize = 64;

/// Descriptions (RowDescription, ParameterDescription) in one answer, in bytes, where the tier's limit is not greater: they
/// are no rows, and 7 bytes of the client's can ask for 130 KB of them.
const DESCRIPTIONS_BYTES_MIN: u64 = 16 << 20;

/// A portal or cursor whose rows a statement gives: a number that stands for its name.
///
/// Two names that have the same number share one count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Source(u64);

impl Source {
    /// A statement that is read whole.
    pub const NONE: Self = Self(0);
    /// The unnamed portal.
    pub const UNNAMED: Self = Self(1);
    /// Several cursors at once, or one too many to be told apart.
    pub const SHARED: Self = Self(2);
    /// Set in the number of a name.
    const NAME: u64 = 1 << 63;
    /// Set where SQL speaks of it.
    const BY_SQL: u64 = 1 << 62;

    /// The portal or cursor that has `name`: they share one space of names (portalmem.c).
    pub fn named(name: &[u8]) -> Self {
        if name.is_empty() {
            return Self::UNNAMED;
        }
        // FNV-1a: who makes two names meet shortens nobody's budget but the own.
        let hash = name
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self((hash | Self::NAME) & !Self::BY_SQL)
    }

    /// The same, of which SQL speaks by its name: it may be a cursor, which can be rewound, so that its count goes on when
    /// it is exhausted.
    pub fn cursor(name: &[u8]) -> Self {
        match Self::named(name) {
            Self(number) if number & Self::NAME != 0 => Self(number | Self::BY_SQL),
            unnamed => unnamed,
        }
    }

    /// Whether SQL speaks of it by its name.
    pub fn is_cursor(self) -> bool {
        self.0 & Self::BY_SQL != 0
    }

    fn is(self, other: Self) -> bool {
        self.0 & !Self::BY_SQL == other.0 & !Self::BY_SQL
    }

    /// As a bare number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The source of that number, as [`Self::number`] gave it.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }
}

/// What one portal or cursor has given.
#[derive(Debug)]
struct Given {
    source: Source,
    bytes: u64,
}

/// Counts what a client is sent, before it is passed on.
#[derive(Debug, Default)]
pub struct ResultMeter {
    /// Bytes of the statement at work.
    statement: u64,
    /// What counts beside them: the answer before that statement, or what its source gave before, whichever is more.
    before: u64,
    /// The two above are of the statement at work.
    begun: bool,
    source: Source,
    /// Bytes of the statements of this answer that have ended.
    answer: u64,
    descriptions: u64,
    unnamed: u64,
    given: Vec<Given>,
    shared: u64,
}

impl ResultMeter {
    /// Whether the statement at work has begun to be counted.
    #[inline]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Begins to count a statement whose rows are those of `source`.
    pub fn begin(&mut self, source: Source) {
        self.begun = true;
        self.source = source;
        self.before = self.answer.max(self.given_by(source));
    }

    /// Counts `bytes` more unless that would cross `limit`; `false`: it would, and nothing was counted.
    #[inline]
    pub fn admit(&mut self, bytes: u64, limit: u64) -> bool {
        let statement = self.statement.saturating_add(bytes);
        if statement > limit.saturating_sub(self.before) {
            return false;
        }
        self.statement = statement;
        true
    }

    /// Counts a description, of which more are allowed than `limit` where that is low; `false`: it is one too many.
    pub fn describe(&mut self, bytes: u64, limit: u64) -> bool {
        self.descriptions = self.descriptions.saturating_add(bytes);
        self.descriptions <= limit.max(DESCRIPTIONS_BYTES_MIN)
    }

    /// Ends the statement at work and says how many bytes it gave; `exhausted`: its portal has no more to give, unless it
    /// is a cursor.
    pub fn end_statement(&mut self, exhausted: bool) -> u64 {
        self.begun = false;
        self.before = 0;
        let bytes = std::mem::take(&mut self.statement);
        self.answer = self.answer.saturating_add(bytes);
        match std::mem::take(&mut self.source) {
            Source::NONE => {}
            Source::UNNAMED => self.unnamed = self.unnamed.saturating_add(bytes),
            Source::SHARED => self.shared = self.shared.saturating_add(bytes),
            named => self.give(named, bytes, exhausted),
        }
        bytes
    }

    fn give(&mut self, source: Source, bytes: u64, exhausted: bool) {
        let known = self.given.iter().position(|given| given.source.is(source));
        let is_cursor = source.is_cursor() || known.is_some_and(|at| self.given[at].source.is_cursor());
        match known {
            Some(at) if exhausted && !is_cursor => drop(self.given.swap_remove(at)),
            Some(at) => {
                let given = &mut self.given[at];
                given.bytes = given.bytes.saturating_add(bytes);
                given.source = Source(given.source.0 | source.0 & Source::BY_SQL);
            }
            None if exhausted && !is_cursor => {}
            None if self.given.len() < SOURCES_MAX => self.given.push(Given { source, bytes }),
            None => self.shared = self.shared.saturating_add(bytes),
        }
    }

    /// Ends the answer, at its ReadyForQuery.
    pub fn end_answer(&mut self) {
        self.answer = 0;
        self.descriptions = 0;
    }

    /// A portal or cursor of that name has been made, or is gone: what one before it gave is forgotten.
    pub fn renew(&mut self, source: Source) {
        match source {
            Source::UNNAMED => self.unnamed = 0,
            // Others are counted there too.
            Source::NONE | Source::SHARED => {}
            cursor if cursor.is_cursor() => {
                self.given.iter_mut().filter(|given| given.source.is(cursor)).for_each(|given| given.bytes = 0);
            }
            portal => self.given.retain(|given| !given.source.is(portal)),
        }
    }

    /// There is no portal and no cursor any more.
    pub fn forget_sources(&mut self) {
        self.unnamed = 0;
        self.shared = 0;
        if !self.given.is_empty() {
            self.given = Vec::new();
        }
    }

    /// Whether so many portals and cursors are known that some share a count.
    pub fn is_crowded(&self) -> bool {
        self.given.len() >= SOURCES_MAX || self.shared > 0
    }

    fn given_by(&self, source: Source) -> u64 {
        match source {
            Source::NONE => 0,
            Source::UNNAMED => self.unnamed,
            Source::SHARED => self.shared,
            named => match self.given.iter().find(|given| given.source.is(named)) {
                Some(given) => given.bytes,
                None if self.given.len() < SOURCES_MAX => 0,
                None => self.shared,
            },
        }
    }

    /// The refusal (54000) of a result that would cross the tier's limit.
    pub fn too_large(tier: &Tier) -> Refusal {
        let limit_mb = tier.max_result_bytes.unwrap_or(u64::MAX) >> 20;
        Refusal::new(
            Kind::ResultTooLarge,
            format!(
                "the result is larger than {limit_mb} MB, which is what tier \"{}\" allows for one statement",
                tier.name
            ),
        )
        .with_detail(
            "Rows, COPY data and notices count together, for all statements of one text or batch, and for all that one \
             cursor or portal gives.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(meter: &mut ResultMeter, source: Source, bytes: u64, exhausted: bool) -> bool {
        meter.begin(source);
        let fits = meter.admit(bytes, 100);
        meter.end_statement(exhausted);
        fits
    }

    #[test]
    fn the_row_that_would_cross_the_limit_is_not_admitted() {
        let mut meter = ResultMeter::default();
        meter.begin(Source::NONE);
        assert!(meter.admit(60, 100) && meter.admit(40, 100));
        assert!(!meter.admit(1, 100));
        assert_eq!(meter.end_statement(true), 100);
        meter.begin(Source::NONE);
        assert!(!meter.admit(1, 100), "it is the same answer");
        meter.end_statement(true);
        meter.end_answer();
        meter.begin(Source::NONE);
        assert!(!meter.admit(101, 100) && !meter.admit(u64::MAX, 100) && meter.admit(100, 100));
        assert!(!meter.admit(1, 99), "the limit was lowered meanwhile");
    }

    #[test]
    fn what_a_source_gave_counts_until_another_has_its_name() {
        let mut meter = ResultMeter::default();
        for source in [Source::UNNAMED, Source::named(b"c"), Source::SHARED] {
            assert!(run(&mut meter, source, 60, false));
            meter.end_answer();
            assert!(!run(&mut meter, source, 60, false) && run(&mut meter, Source::named(b"other"), 1, true));
            meter.end_answer();
            meter.renew(source);
            assert_eq!(run(&mut meter, source, 60, false), source != Source::SHARED, "{source:?}");
            meter.end_answer();
        }
        meter.forget_sources();
        assert!(run(&mut meter, Source::SHARED, 60, false));
    }

    #[test]
    fn an_exhausted_portal_is_forgotten_and_a_cursor_is_not() {
        let mut meter = ResultMeter::default();
        let source = Source::named(b"c");
        for by_sql in [false, true] {
            if by_sql {
                run(&mut meter, Source::cursor(b"c"), 0, true);
            }
            assert!(run(&mut meter, source, 60, false));
            meter.end_answer();
            assert!(run(&mut meter, source, 10, true));
            meter.end_answer();
            assert_eq!(run(&mut meter, source, 60, true), !by_sql);
            meter.end_answer();
        }
    }

    #[test]
    fn sources_beyond_those_that_are_counted_apart_share_a_count() {
        let mut meter = ResultMeter::default();
        let name = |number: usize| Source::named(format!("p{number}").as_bytes());
        for number in 0..SOURCES_MAX {
            assert!(run(&mut meter, name(number), 60, false));
            meter.end_answer();
        }
        assert!(meter.is_crowded() && run(&mut meter, name(100), 60, false));
        meter.end_answer();
        assert!(!run(&mut meter, name(200), 60, false));
        meter.end_answer();
        assert!(!run(&mut meter, name(0), 60, false) && run(&mut meter, name(0), 40, false));
        meter.forget_sources();
        assert!(!meter.is_crowded());
    }

    #[test]
    fn descriptions_have_a_bound_of_their_own() {
        let mut meter = ResultMeter::default();
        assert!(meter.describe(DESCRIPTIONS_BYTES_MIN, 1) && !meter.describe(1, 1));
        meter.end_answer();
        assert!(meter.describe(DESCRIPTIONS_BYTES_MIN + 1, u64::MAX));
    }
}
