//! Every no that a client hears: one table of SQLSTATE, severity, hint, log level and metric label.
//!
//! Only this file knows SQLSTATEs (PostgreSQL manual, Appendix A). Rooms build a [`Refusal`]; `wire` turns it into bytes.

use std::borrow::Cow;
use std::fmt;

/// What kind of no it is. Closed: one row in the table each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The token is missing, malformed, expired, or signed by nobody we know. The client hears one sentence.
    InvalidToken,
    /// A token came in clear text from where that is not allowed.
    TlsRequired,
    /// The organization is suspended or unknown.
    OrganizationSuspended,
    /// The token's time ended during the session.
    TokenExpired,
    /// The organization may not use the database it asked for.
    UnknownDatabase,
    /// The organization has all the client connections its tier allows.
    OrganizationConnections,
    /// The proxy, or the client's address, has all the connections allowed.
    TooManyConnections,
    /// A statement waited longer for its turn than `query_wait_timeout_s`.
    QueueTimeout,
    /// The organization's line is full.
    QueueFull,
    /// Too many sessions of the organization, or of all, keep a server connection beyond their transactions.
    TooManyPins,
    /// A session that kept a server connection did nothing with it for too long.
    IdlePin,
    /// A client left its transaction open without a word for too long.
    IdleTransaction,
    /// A transaction lasted longer than the tier allows.
    TransactionTimeout,
    /// A command that cannot run inside a transaction block.
    ActiveTransaction,
    /// The organization's sessions keep as much in the proxy as they may.
    OrganizationMemory,
    /// A name of the protocol is longer than the proxy keeps.
    NameTooLong,
    /// The organization's storage quota is used up.
    StorageQuota,
    /// A result would be larger than the tier allows.
    ResultTooLarge,
    /// A statement is longer or nested deeper than the guard reads, or asks for more than a session may hold.
    StatementTooLarge,
    /// The tier's query time is over.
    QueryTimeout,
    /// The client asked for its statement to be cancelled.
    Cancelled,
    /// The proxy is draining.
    Draining,
    /// The session was ended by an operator.
    Killed,
    /// The shard cannot be reached, or is not fit to be served.
    ShardUnavailable,
    /// The server connection ended while a statement was running on it.
    ServerLost,
    /// The guard says no.
    Forbidden,
    /// The statement does not parse.
    Syntax,
    /// The proxy does not carry this feature of the protocol or of SQL.
    NotSupported,
    /// The client broke the protocol.
    ProtocolViolation,
    /// A write in a session without the right to write.
    ReadOnly,
    /// A prepared statement that this session does not have.
    UnknownStatement,
    /// A portal that this session does not have.
    UnknownPortal,
    /// A prepared statement name that this session already uses.
    DuplicateStatement,
    /// A statement in a failed transaction.
    FailedTransaction,
    /// Logging in took longer than `client_login_timeout_s`.
    LoginTimeout,
    /// A start-up parameter or setting has a value that Postgres refuses.
    InvalidParameter,
    /// The start-up names no user.
    UserMissing,
    /// Our own fault.
    Internal,
}

/// How bad it is for the session (PostgreSQL manual, "Error and Notice Message Fields").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement fails, the session goes on.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The five characters that programs act on.
    pub sqlstate: &'static str,
    /// Whether the session ends with it, where the caller does not say otherwise.
    pub severity: Severity,
    /// The `reason` label of `partywall_refusals_total`.
    pub label: &'static str,
    /// What the client can do, where the caller has nothing better.
    pub hint: Option<&'static str>,
    /// How loudly the operator hears it.
    pub level: tracing::Level,
}

const fn row(
    sqlstate: &'static str,
    severity: Severity,
    label: &'static str,
    level: tracing::Level,
    hint: Option<&'static str>,
) -> Row {
    Row { sqlstate, severity, label, hint, level }
}

const NEW_TOKEN: Option<&str> = Some("The password is a token (JWT). Ask whoever issued it for a new one.");
const WITH_TLS: Option<&str> =
    Some("Connect with TLS (sslmode=require or stronger); a token is never accepted in clear text from here.");
const FEWER_CONNECTIONS: Option<&str> =
    Some("Close connections that are not needed, or use a smaller pool in the application.");
const FEWER_PINS: Option<&str> =
    Some("Close sessions that hold temporary tables, cursors WITH HOLD or statements of PREPARE.");
const SHORT_SILENCE: Option<&str> = Some("Connect again, and end transactions that have no work.");
const SHORT_TRANSACTIONS: Option<&str> = Some("Connect again, and do the work in several transactions.");

impl Kind {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 38] = [
        Self::InvalidToken,
        Self::TlsRequired,
        Self::OrganizationSuspended,
        Self::TokenExpired,
        Self::UnknownDatabase,
        Self::OrganizationConnections,
        Self::TooManyConnections,
        Self::QueueTimeout,
        Self::QueueFull,
        Self::TooManyPins,
        Self::IdlePin,
        Self::IdleTransaction,
        Self::TransactionTimeout,
        Self::ActiveTransaction,
        Self::OrganizationMemory,
        Self::NameTooLong,
        Self::StorageQuota,
        Self::ResultTooLarge,
        Self::StatementTooLarge,
        Self::QueryTimeout,
        Self::Cancelled,
        Self::Draining,
        Self::Killed,
        Self::ShardUnavailable,
        Self::ServerLost,
        Self::Forbidden,
        Self::Syntax,
        Self::NotSupported,
        Self::ProtocolViolation,
        Self::ReadOnly,
        Self::UnknownStatement,
        Self::UnknownPortal,
        Self::DuplicateStatement,
        Self::FailedTransaction,
        Self::LoginTimeout,
        Self::InvalidParameter,
        Self::UserMissing,
        Self::Internal,
    ];

    /// PostgreSQL's own routine that says the same, where drivers decide by its name whether to try again.
    pub const fn routine(self) -> Option<&'static str> {
        if matches!(self, Self::UnknownStatement) { Some("FetchPreparedStatement") } else { None }
    }

    /// This kind's row of the table.
    pub const fn row(self) -> Row {
        use Severity::{Error, Fatal};
        use tracing::Level;
        const INFO: Level = Level::INFO;
        const WARN: Level = Level::WARN;
        match self {
            Self::InvalidToken => row("28P01", Fatal, "invalid_token", INFO, NEW_TOKEN),
            Self::TlsRequired => row("28000", Fatal, "tls_required", INFO, WITH_TLS),
            Self::OrganizationSuspended => row("28000", Fatal, "organization_suspended", INFO, None),
            Self::TokenExpired => row("28000", Fatal, "token_expired", INFO, Some("Connect again with a new token.")),
            Self::UnknownDatabase => row("3D000", Fatal, "unknown_database", INFO, None),
            Self::OrganizationConnections => row("53300", Fatal, "organization_connections", INFO, FEWER_CONNECTIONS),
            Self::TooManyConnections => row("53300", Fatal, "too_many_connections", WARN, Some("Try again later.")),
            Self::QueueTimeout => row("53400", Error, "queue_timeout", INFO, Some("Run fewer statements at a time.")),
            Self::QueueFull => row("53400", Error, "queue_full", INFO, Some("Run fewer statements at a time.")),
            Self::TooManyPins => row("53400", Error, "too_many_pins", INFO, FEWER_PINS),
            Self::IdlePin => row("57P05", Fatal, "idle_pin", INFO, Some("Connect again.")),
            Self::IdleTransaction => row("25P03", Fatal, "idle_transaction", INFO, SHORT_SILENCE),
            Self::TransactionTimeout => row("25P04", Fatal, "transaction_timeout", INFO, SHORT_TRANSACTIONS),
            Self::ActiveTransaction => row("25001", Error, "active_transaction", INFO, None),
            Self::OrganizationMemory => row(
                "53200",
                Error,
                "organization_memory",
                INFO,
                Some("Close prepared statements that are not needed any more, or use fewer sessions."),
            ),
            Self::NameTooLong => row("42622", Error, "name_too_long", INFO, None),
            Self::StorageQuota => {
                row("53100", Error, "storage_quota", INFO, Some("Delete data, or ask for more storage."))
            }
            Self::ResultTooLarge => {
                row("54000", Error, "result_too_large", INFO, Some("Ask for fewer rows or columns, or add a LIMIT."))
            }
            Self::StatementTooLarge => row("54000", Error, "statement_too_large", INFO, None),
            Self::QueryTimeout => row("57014", Error, "query_timeout", INFO, None),
            Self::Cancelled => row("57014", Error, "cancelled", INFO, None),
            Self::Draining => row("57P01", Fatal, "draining", INFO, Some("Connect again.")),
            Self::Killed => row("57P01", Fatal, "killed", INFO, None),
            Self::ShardUnavailable => row("57P03", Error, "shard_unavailable", WARN, Some("Try again later.")),
            Self::ServerLost => row("57P01", Error, "server_lost", WARN, Some("Try again.")),
            Self::Forbidden => row("42501", Error, "forbidden", INFO, None),
            Self::Syntax => row("42601", Error, "syntax", INFO, None),
            Self::NotSupported => row("0A000", Error, "not_supported", INFO, None),
            Self::ProtocolViolation => row("08P01", Fatal, "protocol_violation", INFO, None),
            Self::ReadOnly => row("25006", Error, "read_only", INFO, None),
            Self::UnknownStatement => row("26000", Error, "unknown_statement", INFO, None),
            Self::UnknownPortal => row("34000", Error, "unknown_portal", INFO, None),
            Self::DuplicateStatement => row("42P05", Error, "duplicate_statement", INFO, None),
            Self::FailedTransaction => row("25P02", Error, "failed_transaction", INFO, None),
            Self::LoginTimeout => row("08P01", Fatal, "login_timeout", INFO, None),
            Self::InvalidParameter => row("22023", Fatal, "invalid_parameter", INFO, None),
            Self::UserMissing => row("28000", Fatal, "user_missing", INFO, None),
            Self::Internal => row("XX000", Fatal, "internal", Level::ERROR, None),
        }
    }
}

/// A no for one client: its kind, and the words.
///
/// The words are for the client: never a token, a literal of somebody's SQL, or anything of another organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    kind: Kind,
    severity: Severity,
    message: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    hint: Option<Cow<'static, str>>,
    position: Option<u32>,
    ahead: bool,
}

impl Refusal {
    /// A refusal with the table's severity and hint.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        let row = kind.row();
        Self {
            kind,
            severity: row.severity,
            message: message.into(),
            detail: None,
            hint: row.hint.map(Cow::Borrowed),
            position: None,
            ahead: false,
        }
    }

    /// Replaces the table's hint.
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what else the client should know.
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the place in the statement, in characters from 1.
    pub fn with_position(mut self, position: u32) -> Self {
        self.position = Some(position);
        self
    }

    /// The same refusal, of something that a server looks at before it looks whether the transaction has failed.
    pub fn ahead(mut self) -> Self {
        self.ahead = true;
        self
    }

    /// Whether it is heard in a failed transaction too, where a server would say nothing else about most statements than
    /// that the transaction has failed (25P02).
    pub fn is_ahead(&self) -> bool {
        self.ahead || self.kind == Kind::Syntax
    }

    /// The same refusal, ending the session.
    pub fn fatal(mut self) -> Self {
        self.severity = Severity::Fatal;
        self
    }

    /// The kind, for counting and for deciding.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the session ends with it.
    pub fn is_fatal(&self) -> bool {
        self.severity == Severity::Fatal
    }

    /// `ERROR` or `FATAL`.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The five characters.
    pub fn sqlstate(&self) -> &'static str {
        self.kind.row().sqlstate
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What else the client should know.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What the client can do.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The place in the statement, in characters from 1.
    pub fn position(&self) -> Option<u32> {
        self.position
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity.as_str(), self.sqlstate(), self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_a_row_with_a_label_of_its_own() {
        let labels: HashSet<_> = Kind::ALL.iter().map(|kind| kind.row().label).collect();
        assert_eq!(labels.len(), Kind::ALL.len());
    }

    #[test]
    fn every_sqlstate_is_one_that_postgres_knows() {
        for kind in Kind::ALL {
            let state = kind.row().sqlstate;
            // PostgreSQL 17's, newer than the list that this is held against.
            if kind == Kind::TransactionTimeout {
                continue;
            }
            let known = tokio_postgres::error::SqlState::from_code(state);
            // An unknown code is kept as text; a known one is a constant whose debug form names no text.
            assert!(!format!("{known:?}").contains("Other"), "{state}");
        }
    }
}
