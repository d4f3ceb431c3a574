//! What the guard answers: a statement's class, what it touches, and what it changes in the session.

use std::ops::{BitOr, Range};

use crate::event::StatementClass;

/// The answer for one text, which may hold several statements. Only the guard makes one, and only for allowed texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub(super) text: Option<Box<str>>,
    pub(super) class: StatementClass,
    pub(super) statements: Box<[Statement]>,
    pub(super) reads: Box<[Box<str>]>,
    pub(super) writes: Box<[Box<str>]>,
    pub(super) taints: Taints,
    pub(super) grows_data: bool,
    pub(super) reads_sequence_state: bool,
    pub(super) cursors: Cursors,
}

/// The cursors that a text declares or fetches from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cursors {
    /// None: the common case.
    #[default]
    None,
    /// One, of that name.
    One(Box<str>),
    /// Several.
    Several,
}

impl Cursors {
    /// Adds the cursor of that name.
    pub(super) fn note(&mut self, name: &str) {
        match self {
            Self::None => *self = Self::One(name.into()),
            Self::One(known) if **known == *name => {}
            Self::One(_) | Self::Several => *self = Self::Several,
        }
    }
}

impl Verdict {
    /// What is to be sent in place of the text that was judged, where that is not the text itself: calls of advisory
    /// locks in it are those of the organization's own, and values above a tier's limit are that limit. Every place that
    /// the verdict names is a place in this one.
    pub fn rewritten(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// What the whole text does: the weightiest class of its statements; `Utility` for an empty text.
    pub fn class(&self) -> StatementClass {
        self.class
    }

    /// How many bytes are kept of it, roughly.
    pub fn bytes(&self) -> usize {
        let relations = self.reads.len() + self.writes.len();
        let text = self.rewritten().map_or(0, str::len);
        text + 48 * relations + 96 * self.changes().count() + 24 * self.statements.len()
    }

    /// The statements in their order; none for an empty text, which the server answers with EmptyQueryResponse.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// Every change to the session, in the order of the statements.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.statements.iter().flat_map(|statement| statement.changes.iter())
    }

    /// Whether nothing in the text changes the session: the common case.
    pub fn changes_nothing(&self) -> bool {
        self.statements.iter().all(|statement| statement.changes.is_empty())
    }

    /// Relations read, as written (`name` or `schema.name`), each once, at most [`super::RELATIONS_MAX`].
    pub fn reads(&self) -> &[Box<str>] {
        &self.reads
    }

    /// Relations written, as written, each once, at most [`super::RELATIONS_MAX`].
    pub fn writes(&self) -> &[Box<str>] {
        &self.writes
    }

    /// What it may leave behind on the server connection, beyond the settings that its changes name.
    pub fn taints(&self) -> Taints {
        self.taints
    }

    /// Whether it can make stored data larger (INSERT, UPDATE, MERGE, COPY FROM, CREATE TABLE): what a full quota stops.
    pub fn grows_data(&self) -> bool {
        self.grows_data
    }

    /// Whether it asks for `currval` or `lastval`, which mean something only on the connection that took the value.
    pub fn reads_sequence_state(&self) -> bool {
        self.reads_sequence_state
    }

    /// The cursors that it declares or fetches from.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub(super) class: StatementClass,
    pub(super) range: Range<usize>,
    pub(super) changes: Box<[Change]>,
}

impl Statement {
    /// What it does.
    pub fn class(&self) -> StatementClass {
        self.class
    }

    /// Where it stands in the text, in bytes, without its semicolon; comments before it may be in it. Only of a text that
    /// changes something in the session, or holds several statements: texts of other lengths may share the verdict on
    /// another.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// What it changes in the session if the server accepts it.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// A setting's new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// This one, in the form that `set_config` takes (lists quoted and joined as PostgreSQL does).
    Literal(Box<str>),
    /// The value of the parameter `$n`, known when it is bound.
    Parameter(i32),
    /// Known to the server only.
    Unknown,
}

/// A change of one setting. Names are in lower case, in PostgreSQL's current spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Which setting.
    pub name: Box<str>,
    /// To what.
    pub value: Value,
    /// Until the transaction's end only; none where only the server knows (`set_config` with a bound third argument).
    pub local: Option<bool>,
    /// For settings that a tier bounds ([`super::TIER_LIMITS`]): the value as a number of its base unit
    /// (milliseconds, kilobytes, workers), `u64::MAX` for "no limit"; never above the limit that the rights know.
    pub magnitude: Option<u64>,
}

/// The words that reset a setting; each answers in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetBy {
    /// RESET.
    Reset,
    /// SET … TO DEFAULT.
    Set,
    /// `set_config` with NULL.
    Call,
}

/// One thing that a statement changes in its session, once the server has accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// SET, SET LOCAL, SET SESSION CHARACTERISTICS, or a top-level `set_config`.
    Set(Set),
    /// RESET of one setting, or SET … TO DEFAULT. The server gives it the value that its connection began with, which
    /// is neither the session's own start-up parameter nor the tier's limit: the session must follow up.
    Reset {
        /// Which setting, in lower case.
        name: Box<str>,
        /// SET LOCAL … TO DEFAULT.
        local: bool,
        /// In which words.
        by: ResetBy,
    },
    /// RESET ALL: must not reach the server as it is, since the tenant context would go with it.
    ResetAll,
    /// DISCARD ALL: must not reach the server as it is.
    DiscardAll,
    /// DISCARD PLANS.
    DiscardPlans,
    /// DISCARD SEQUENCES.
    DiscardSequences,
    /// DISCARD TEMP.
    DiscardTemp,
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT or END.
    Commit {
        /// AND CHAIN: a new transaction begins at once.
        chain: bool,
    },
    /// ROLLBACK or ABORT.
    Rollback {
        /// AND CHAIN: a new transaction begins at once.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint(Box<str>),
    /// RELEASE.
    Release(Box<str>),
    /// ROLLBACK TO.
    RollbackTo(Box<str>),
    /// PREPARE.
    Prepare {
        /// The name, in the client's own space of names.
        name: Box<str>,
        /// What the statement inside does.
        class: StatementClass,
        /// Whether the statement inside can make stored data larger.
        grows_data: bool,
    },
    /// EXECUTE, alone or inside EXPLAIN or CREATE TABLE AS.
    Execute(Box<str>),
    /// DEALLOCATE of one statement, or (none) of all.
    Deallocate(Option<Box<str>>),
    /// DECLARE.
    DeclareCursor {
        /// The cursor's name.
        name: Box<str>,
        /// WITH HOLD: it outlives the transaction and pins the connection.
        hold: bool,
    },
    /// CLOSE of one cursor, or (none) of all.
    CloseCursor(Option<Box<str>>),
    /// A temporary table, view or sequence.
    CreateTemp,
    /// LISTEN.
    Listen(Box<str>),
    /// UNLISTEN of one channel, or (none) of all.
    Unlisten(Option<Box<str>>),
    /// NOTIFY or `pg_notify`.
    Notify,
    /// A function that takes an advisory lock; in a shared database one of the schema `partywall_locks`.
    AdvisoryLock {
        /// Held beyond the transaction.
        session: bool,
    },
    /// A function that gives advisory locks of the session back; in a shared database, unless it is all of them, one of
    /// the schema `partywall_locks`.
    AdvisoryUnlock {
        /// All of them.
        all: bool,
    },
    /// COPY … FROM STDIN.
    CopyIn,
    /// COPY … TO STDOUT.
    CopyOut,
}

impl Change {
    /// Whether it ties the session to its server connection, and the word for the reason: what it makes lives there and
    /// cannot be moved.
    pub fn pins(&self) -> Option<&'static str> {
        match self {
            Self::CreateTemp => Some("temporary_object"),
            Self::DeclareCursor { hold: true, .. } => Some("holdable_cursor"),
            Self::AdvisoryLock { session: true } => Some("advisory_lock"),
            Self::Listen(_) => Some("listen"),
            Self::Prepare { .. } => Some("sql_prepare"),
            Self::Set(_)
            | Self::Reset { .. }
            | Self::ResetAll
            | Self::DiscardAll
            | Self::DiscardPlans
            | Self::DiscardSequences
            | Self::DiscardTemp
            | Self::Begin
            | Self::Commit { .. }
            | Self::Rollback { .. }
            | Self::Savepoint(_)
            | Self::Release(_)
            | Self::RollbackTo(_)
            | Self::Execute(_)
            | Self::Deallocate(_)
            | Self::DeclareCursor { hold: false, .. }
            | Self::CloseCursor(_)
            | Self::Unlisten(_)
            | Self::Notify
            | Self::AdvisoryLock { session: false }
            | Self::AdvisoryUnlock { .. }
            | Self::CopyIn
            | Self::CopyOut => None,
        }
    }
}

/// What a statement can leave behind on a server connection: a set, from which the session decides how to clean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Taints(u8);

impl Taints {
    /// The seed of `random()`; even DISCARD ALL does not undo it.
    pub const SEED: Self = Self(1);
    /// Temporary objects.
    pub const TEMPORARY: Self = Self(1 << 1);
    /// What `currval` and `lastval` remember (any INSERT may do that by a default).
    pub const SEQUENCES: Self = Self(1 << 2);
    /// A cursor that outlives its transaction.
    pub const CURSOR: Self = Self(1 << 3);
    /// Statements prepared by SQL.
    pub const PREPARED: Self = Self(1 << 4);
    /// Session advisory locks.
    pub const ADVISORY_LOCK: Self = Self(1 << 5);
    /// Channels listened to.
    pub const LISTEN: Self = Self(1 << 6);
    /// Settings with a dot in their name, which the server forgets only when told.
    pub const CUSTOM_SETTING: Self = Self(1 << 7);

    /// Whether there is nothing to clean.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Taints {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
