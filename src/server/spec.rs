//! What it takes to connect to a shard: where, as whom, and how secretly.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::config::{self, Host, Secret, TlsMode};
use crate::ids::ShardName;

use super::tls::{self, Trust};

/// The name that server connections have of themselves.
const APPLICATION_NAME: &str = "partywall";

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host name or an IP address, and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A directory with a server's Unix socket `.s.PGSQL.<port>`.
    Unix {
        /// The directory.
        dir: PathBuf,
        /// The port in the socket's name.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { dir, port } => write!(f, "{}/.s.PGSQL.{port}", dir.display()),
        }
    }
}

/// How a TCP connection to a shard is encrypted (libpq's `sslmode`); a Unix socket never is.
#[derive(Clone)]
pub enum TlsPlan {
    /// Never.
    Disable,
    /// If the server can. A TLS handshake that fails is an error: unlike libpq, there is no second try in clear text.
    Prefer(Arc<ClientConfig>),
    /// Always; the chain is verified if there is a CA file.
    Require(Arc<ClientConfig>),
    /// Always, with the chain and the host name verified.
    VerifyFull(Arc<ClientConfig>),
}

impl TlsPlan {
    /// The word in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer(_) => "prefer",
            Self::Require(_) => "require",
            Self::VerifyFull(_) => "verify-full",
        }
    }
}

impl fmt::Debug for TlsPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that [`super::connect`] needs to know of a shard.
#[derive(Debug, Clone)]
pub struct ConnectSpec {
    /// The shard, for errors.
    pub shard: ShardName,
    /// Where it listens.
    pub address: Address,
    /// The database.
    pub database: String,
    /// The login role.
    pub user: String,
    /// Its password, if the server asks for one.
    pub password: Option<Secret>,
    /// How to encrypt.
    pub tls: TlsPlan,
    /// From dialling to a checked login.
    pub connect_timeout: Duration,
    /// Whether it is an administrator's, whose role need not be one that may be served from.
    pub administers: bool,
    /// What an operator sees in pg_stat_activity and the server's log until a session says its own.
    pub application_name: &'static str,
    /// Settings of our own that start empty: the names of the context, so that no role default can be a context.
    pub empty_settings: Vec<String>,
}

/// Why a shard's configuration makes no [`ConnectSpec`].
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The CA file is not PEM, or has no certificate in it.
    #[error("shard {0}: tls_ca_file has no certificate in PEM format that can be used")]
    CaFile(ShardName),
    /// `verify-full` without a CA file needs the system's.
    #[error("shard {0}: tls = \"verify-full\" needs tls_ca_file, as the system has no certificates of its own")]
    NoSystemRoots(ShardName),
    /// The TLS library does not take its own defaults.
    #[error("shard {0}: TLS cannot be set up: {1}")]
    Tls(ShardName, rustls::Error),
}

impl ConnectSpec {
    /// What the configuration of a shard means, with its secrets at hand: `password` is what `shard.password` names,
    /// `ca_pem` the content of `shard.tls_ca_file`. `verify-full` without a CA file reads the system's certificates.
    pub fn new(
        shard: &config::Shard,
        password: Option<Secret>,
        ca_pem: Option<&[u8]>,
        connect_timeout: Duration,
    ) -> Result<Self, SpecError> {
        let address = match &shard.host {
            Host::Tcp(host) => Address::Tcp { host: host.clone(), port: shard.port },
            Host::Unix(dir) => Address::Unix { dir: dir.clone(), port: shard.port },
        };
        Ok(Self {
            shard: shard.name.clone(),
            tls: tls_plan(shard, &address, ca_pem)?,
            address,
            database: shard.database.clone(),
            user: shard.user.clone(),
            password,
            connect_timeout,
            administers: false,
            application_name: APPLICATION_NAME,
            empty_settings: Vec::new(),
        })
    }

    /// The same shard, for an administrator: never to be served from.
    #[must_use]
    pub fn for_administrator(self, user: String, password: Option<Secret>) -> Self {
        Self { user, password, administers: true, ..self }
    }

    /// The same, under another name.
    #[must_use]
    pub fn named(self, application_name: &'static str) -> Self {
        Self { application_name, ..self }
    }

    /// The same, with settings that every connection starts with as empty texts: the names of the context.
    ///
    /// Sent at start-up they win over a role's defaults, so that no `ALTER ROLE … SET` can make a connection that was
    /// told nothing, or was reset, carry an organization.
    #[must_use]
    pub fn with_empty_settings(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.empty_settings = names.into_iter().collect();
        self
    }
}

fn tls_plan(shard: &config::Shard, address: &Address, ca_pem: Option<&[u8]>) -> Result<TlsPlan, SpecError> {
    if matches!(address, Address::Unix { .. }) {
        return Ok(TlsPlan::Disable);
    }
    let bad_ca = || SpecError::CaFile(shard.name.clone());
    let roots = ca_pem.map(|pem| tls::roots_of_pem(pem).ok_or_else(bad_ca)).transpose()?;
    let config = |trust| tls::client_config(trust).map_err(|error| SpecError::Tls(shard.name.clone(), error));
    Ok(match shard.tls {
        TlsMode::Disable => TlsPlan::Disable,
        TlsMode::Prefer => TlsPlan::Prefer(config(roots.map_or(Trust::Anyone, Trust::Chain))?),
        TlsMode::Require => TlsPlan::Require(config(roots.map_or(Trust::Anyone, Trust::Chain))?),
        TlsMode::VerifyFull => {
            let roots = roots.or_else(tls::roots_of_system);
            let roots = roots.ok_or_else(|| SpecError::NoSystemRoots(shard.name.clone()))?;
            TlsPlan::VerifyFull(config(Trust::ChainAndName(roots))?)
        }
    })
}
