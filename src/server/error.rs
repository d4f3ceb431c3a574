//! Why a server connection could not be had, in an operator's words.

use std::io;

use crate::ids::ShardName;
use crate::wire::server_login::LoginFault;

use super::spec::{Address, ConnectSpec};

/// A server connection could not be opened: which shard, where, and why.
#[derive(Debug, thiserror::Error)]
#[error("shard {shard} at {address}: {fault}")]
pub struct ConnectError {
    shard: ShardName,
    address: Address,
    #[source]
    fault: ConnectFault,
}

impl ConnectError {
    /// The server can be reached, but may not be served.
    pub fn unfit_for(spec: &ConnectSpec, unfit: Unfit) -> Self {
        Self::new(spec, ConnectFault::Unfit(unfit))
    }

    pub(super) fn new(spec: &ConnectSpec, fault: ConnectFault) -> Self {
        Self { shard: spec.shard.clone(), address: spec.address.clone(), fault }
    }

    /// Why.
    pub fn fault(&self) -> &ConnectFault {
        &self.fault
    }

    /// The shard that was asked for.
    pub fn shard(&self) -> &ShardName {
        &self.shard
    }

    /// Whether it may well work in a moment without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        self.fault.is_transient()
    }

    /// The reason, if the server can be reached but its login role or database may not be served.
    pub fn unfit(&self) -> Option<&Unfit> {
        match &self.fault {
            ConnectFault::Unfit(unfit) => Some(unfit),
            _ => None,
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    /// No socket.
    #[error("cannot connect: {0}")]
    Dial(#[source] io::Error),
    /// The socket failed during the login.
    #[error("the connection failed during login: {0}")]
    Io(#[source] io::Error),
    /// The server hung up during the login.
    #[error("the server closed the connection during login")]
    Closed,
    /// `server_connect_timeout_s` is over.
    #[error("no login within server_connect_timeout_s")]
    Timeout,
    /// The shard asks for TLS and the server has none.
    #[error("the server does not offer TLS, which this shard's configuration requires")]
    TlsRefused,
    /// Bytes came between the answer to SSLRequest and the TLS handshake: somebody in between may have put them there.
    #[error("unencrypted bytes came before the TLS handshake; a man in the middle may be at work")]
    StuffedBytes,
    /// The TLS handshake failed; a certificate that does not verify is one of these.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The server said no.
    #[error("the server refused the login: {message} ({sqlstate})")]
    Refused {
        /// The server's five characters, or nothing.
        sqlstate: String,
        /// The server's sentence.
        message: String,
    },
    /// The server wants a password and the configuration has none.
    #[error("the server asks for a password, and the configuration has none for this shard")]
    NoPassword,
    /// The server wants the password in a way that we do not use.
    #[error("{0}")]
    Authentication(&'static str),
    /// The server could not prove that it knows the password, or its SCRAM messages are wrong.
    #[error("SCRAM failed: {0}")]
    Scram(String),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// Something on our side: a NUL in a name or a task that did not end.
    #[error("{0}")]
    Internal(String),
    /// The server is there, and may not be served.
    #[error("not fit to be served: {0}")]
    Unfit(Unfit),
}

impl ConnectFault {
    /// Whether it may well work in a moment without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Io(_) | Self::Closed | Self::Timeout => true,
            Self::Refused { sqlstate, .. } => is_transient_state(sqlstate),
            Self::TlsRefused
            | Self::StuffedBytes
            | Self::Tls(_)
            | Self::NoPassword
            | Self::Authentication(_)
            | Self::Scram(_)
            | Self::Protocol(_)
            | Self::Internal(_)
            | Self::Unfit(_) => false,
        }
    }

    /// The same as an IO error, for those who only pass it on.
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Dial(error) | Self::Io(error) | Self::Tls(error) => error,
            other => io::Error::other(other.to_string()),
        }
    }
}

impl From<LoginFault> for ConnectFault {
    fn from(fault: LoginFault) -> Self {
        Self::Protocol(fault.to_string())
    }
}

/// Connection exceptions, too few resources, an operator's intervention (starting up, shutting down), system errors:
/// the classes that pass by themselves (PostgreSQL manual, Appendix A).
fn is_transient_state(sqlstate: &str) -> bool {
    sqlstate.get(..2).is_some_and(|class| ["08", "53", "57", "58"].contains(&class))
}

/// Why a server that lets us in may still not be served: with any of these, no wall would hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Row level security does not hold for it.
    #[error("the login role is a superuser; give the shard a role of its own")]
    Superuser,
    /// Row level security does not hold for it.
    #[error("the login role has BYPASSRLS; ALTER ROLE … NOBYPASSRLS")]
    BypassRls,
    /// It could make itself roles.
    #[error("the login role has CREATEROLE; ALTER ROLE … NOCREATEROLE")]
    CreateRole,
    /// It could make itself databases.
    #[error("the login role has CREATEDB; ALTER ROLE … NOCREATEDB")]
    CreateDb,
    /// It could read everything there is.
    #[error("the login role has REPLICATION; ALTER ROLE … NOREPLICATION")]
    Replication,
    /// SET ROLE would lead out of the walls.
    #[error("the login role is a member of {0}; REVOKE it")]
    Member(String),
    /// Something between us and the server changed who we are.
    #[error("the session does not run as the login role")]
    OtherUser,
    /// A setting does not have the one value that the walls need.
    #[error("{name} is {value}, and has to be {wanted}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it has to be.
        wanted: &'static str,
    },
    /// A timeout that would close idle connections under us, set where it cannot be overridden.
    #[error("{0} is set by ALTER ROLE or ALTER DATABASE; RESET it")]
    RoleSetting(String),
    /// The database keeps the context in another form than the configuration says, or does not take ours.
    #[error("{0}")]
    Context(String),
    /// Older than what we know.
    #[error("PostgreSQL {0} is too old; 13 is the oldest that is served")]
    Version(u32),
    /// The answer to our questions cannot be understood.
    #[error("the server's answer about the login role cannot be understood")]
    Unreadable,
}
