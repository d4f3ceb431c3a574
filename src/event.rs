//! What happens, told as values: every room emits them, metrics and audit listen.
//!
//! The hot path emits through handles that were resolved at login ([`OrgObserver`]); rare things are [`Event`]s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{OrgId, SessionId, ShardName, TierName, UserId};
use crate::refusal;

/// What a statement does, as the guard judged it; the `query_type` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementClass {
    /// SELECT, VALUES, TABLE, plain EXPLAIN.
    Read,
    /// INSERT, UPDATE, DELETE, MERGE.
    Write,
    /// CREATE, ALTER, DROP and their like.
    Ddl,
    /// BEGIN, COMMIT, SAVEPOINT and their like.
    Transaction,
    /// SET, SHOW, RESET, PREPARE, DEALLOCATE and their like.
    Session,
    /// COPY, in or out.
    Copy,
    /// Everything else that is allowed.
    Utility,
}

impl StatementClass {
    /// Every class.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Ddl, Self::Transaction, Self::Session, Self::Copy, Self::Utility];

    /// The word in labels and audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Ddl => "ddl",
            Self::Transaction => "transaction",
            Self::Session => "session",
            Self::Copy => "copy",
            Self::Utility => "utility",
        }
    }
}

/// Why a session ended; exactly one of these ends every session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client said goodbye (Terminate).
    ClientTerminate,
    /// The client's connection ended without a goodbye.
    ClientGone,
    /// A refusal that ends the session.
    Refused(refusal::Kind),
    /// The proxy stopped or drained.
    Shutdown,
}

impl CloseReason {
    /// The word in labels and audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientTerminate => "client_terminate",
            Self::ClientGone => "client_gone",
            Self::Refused(kind) => kind.row().label,
            Self::Shutdown => "shutdown",
        }
    }
}

/// Who a session belongs to, once it has logged in.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// The session's number.
    pub session: SessionId,
    /// The organization that the token named.
    pub org: OrgId,
    /// The user that the token named.
    pub user: Option<UserId>,
    /// The tier in force at login.
    pub tier: TierName,
    /// The shard that holds the organization.
    pub shard: ShardName,
    /// Where the client dials from; none over a Unix socket.
    pub address: Option<IpAddr>,
    /// The client's `application_name`, cut to 64 characters.
    pub application_name: Option<Arc<str>>,
    /// Whether the client's side is encrypted.
    pub tls: bool,
}

/// A statement that has ended.
#[derive(Debug, Clone, Copy)]
pub struct StatementDone {
    /// What it does.
    pub class: StatementClass,
    /// From the client's message to the end of the answer, waiting included.
    pub latency: Duration,
    /// How much of it was spent waiting for a server connection.
    pub waited: Duration,
    /// Bytes of rows and COPY data forwarded to the client.
    pub result_bytes: u64,
    /// Whether the server answered with an error.
    pub failed: bool,
}

/// A rare thing that metrics and audit hear of.
#[derive(Debug, Clone)]
pub enum Event {
    /// A client has logged in.
    SessionOpened(Arc<SessionFacts>),
    /// A session that had logged in has ended; the last event of it.
    SessionClosed {
        /// Whose it was.
        facts: Arc<SessionFacts>,
        /// Why.
        reason: CloseReason,
        /// How long it lasted from login.
        lasted: Duration,
    },
    /// A client that did not get in.
    LoginRefused {
        /// Where it dialled from.
        address: Option<IpAddr>,
        /// The organization that a verified token named, when it came that far.
        org: Option<OrgId>,
        /// What the client heard.
        kind: refusal::Kind,
        /// What the operator should know; no token, no secret.
        why: String,
    },
    /// A logged-in client heard a no.
    Refused {
        /// Whose session.
        facts: Arc<SessionFacts>,
        /// Which no.
        kind: refusal::Kind,
        /// The words the client heard.
        message: String,
    },
    /// A statement was sent on to the server; only when audit asks for it ([`Observer::wants_statements`]).
    Statement {
        /// Whose session.
        facts: Arc<SessionFacts>,
        /// What it does.
        class: StatementClass,
        /// The relations it names, as written.
        relations: Arc<[Box<str>]>,
        /// Whether the server accepted it.
        failed: bool,
    },
    /// A shard has begun to be served, or to be served again.
    ShardUp(ShardName),
    /// A shard cannot be served.
    ShardDown(ShardName, String),
    /// A shard's walls were looked at, with another result than before.
    ShardAttested {
        /// Which one.
        shard: ShardName,
        /// What is broken, if anything is.
        breach: Option<String>,
        /// Whether it is served.
        served: bool,
    },
}

/// Some classes of statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassSet(u8);

impl ClassSet {
    /// Those that are `wanted`.
    pub fn of(wanted: impl Fn(StatementClass) -> bool) -> Self {
        Self(
            StatementClass::ALL.into_iter().filter(|&class| wanted(class)).fold(0, |set, class| set | 1 << class as u8),
        )
    }

    /// Whether `class` is among them.
    pub fn contains(self, class: StatementClass) -> bool {
        self.0 & 1 << class as u8 != 0
    }
}

/// Listens to one organization's statements; resolved once at login, called once per statement.
pub trait OrgObserver: Send + Sync {
    /// A statement of this organization has ended.
    fn statement(&self, done: &StatementDone);
}

/// Listens to everything.
pub trait Observer: Send + Sync {
    /// Something rare has happened. Must not block.
    fn event(&self, event: &Event);
    /// The handle for one organization's statements; none, as here, for who does not listen to them.
    fn organization(&self, _org: &OrgId) -> Option<Arc<dyn OrgObserver>> {
        None
    }
    /// Whether [`Event::Statement`] is wanted for this class; asked once a session, at login.
    fn wants_statements(&self, _class: StatementClass) -> bool {
        false
    }
}
