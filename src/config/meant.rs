//! The configuration as meant: checked values with their units, ready to use. `Default` is the only home of defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::natural::natural_order;
use super::policy::{GuardPolicy, Tiers};
use super::secret::SecretRef;
use crate::ids::{OrgId, OrgIdType, ShardName, TierName};

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect.
    pub listen: Listen,
    /// Where operators connect.
    pub admin: Admin,
    /// Who is believed.
    pub auth: Auth,
    /// The settings a server connection is told.
    pub context: ContextNames,
    /// Server connections.
    pub pool: Pool,
    /// What each tier may use.
    pub tiers: Tiers,
    /// What each role may do.
    pub guard: GuardPolicy,
    /// The databases, at least one, names distinct, in the order of the file.
    pub shards: Vec<Shard>,
    /// Where organizations without a place of their own live.
    pub sharding: Sharding,
    /// What is done with organizations that the file does not name.
    pub directory: DirectoryConfig,
    /// What single organizations have of their own.
    pub organizations: BTreeMap<OrgId, Organization>,
    /// Attestation of shards.
    pub check: Check,
    /// The audit trail.
    pub audit: Audit,
    /// The program's own log.
    pub log: Log,
}

/// `[listen]`: where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// IP address and port.
    pub address: SocketAddr,
    /// Certificate and key; without them there is no TLS.
    pub tls: Option<TlsFiles>,
    /// From where a token may come without TLS.
    pub plaintext_passwords: PlaintextPasswords,
    /// Client connections in all.
    pub max_client_conn: usize,
    /// Client connections from one address; `max_client_conn` where the file says nothing.
    pub max_client_conn_per_address: usize,
    /// How long a login may take, from the first byte on.
    pub client_login_timeout: Duration,
    /// Data threads; `None`: one for two cores.
    pub threads: Option<usize>,
    /// Whether balancers say for whom they connect.
    pub proxy_protocol: ProxyProtocol,
    /// From where they may.
    pub trusted_proxies: Vec<IpNet>,
    /// How long clients are still accepted, while `/readyz` says no, before a drain begins.
    pub drain_delay: Duration,
    /// How long sessions may take to reach their safe points in a drain.
    pub drain_timeout: Duration,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 6432)),
            tls: None,
            plaintext_passwords: PlaintextPasswords::Loopback,
            max_client_conn: 10_000,
            max_client_conn_per_address: 10_000,
            client_login_timeout: Duration::from_secs(15),
            threads: None,
            proxy_protocol: ProxyProtocol::Off,
            trusted_proxies: Vec::new(),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Whether connections begin with a header of the PROXY protocol, in which a balancer says for whom it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// Those of trusted proxies may (version 2).
    V2,
    /// All must, and so come from trusted proxies.
    Required,
}

/// A certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The key of the first certificate.
    pub private_key: PathBuf,
}

/// From where a token may come without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaintextPasswords {
    /// From nowhere.
    Never,
    /// From this machine.
    Loopback,
    /// From everywhere: something else must encrypt.
    Always,
}

/// `[admin]`: where operators connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// IP address and port.
    pub address: SocketAddr,
    /// The bearer token's file; without it only `/healthz`, `/readyz` and `/metrics` answer.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9432)), token_file: None }
    }
}

/// `[auth]`: who is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// `iss` that a token must have, where set.
    pub issuer: Option<String>,
    /// Whether an issuer's keys are found by its own word (OpenID Connect Discovery) where no URL says where they are.
    pub discovery: bool,
    /// How the databases compare organizations.
    pub organization_type: OrgIdType,
    /// `aud`: a token must have one of these, where there are any.
    pub audience: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// What happens to a session whose token expires.
    pub on_expiry: OnExpiry,
    /// How long what is under way when a session's token expires may take to end.
    pub expiry_grace: Duration,
    /// Where keys come from, and for whom they may speak; at least one.
    pub keys: Vec<TokenKeys>,
    /// Which claim carries what.
    pub claims: ClaimNames,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            issuer: None,
            discovery: true,
            organization_type: OrgIdType::Auto,
            audience: Vec::new(),
            leeway: Duration::from_secs(30),
            on_expiry: OnExpiry::Disconnect,
            expiry_grace: Duration::from_secs(30),
            keys: Vec::new(),
            claims: ClaimNames::default(),
        }
    }
}

/// What happens to a session whose token expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExpiry {
    /// It ends at its next safe point.
    Disconnect,
    /// It goes on.
    Keep,
}

/// `[[auth.keys]]`: keys, and for whom they may speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKeys {
    /// Where they come from.
    pub from: KeySource,
    /// For whom they may speak.
    pub bounds: KeyBounds,
}

impl From<KeySource> for TokenKeys {
    /// Keys that may speak for everybody, under the rules of `[auth]`.
    fn from(from: KeySource) -> Self {
        Self { from, bounds: KeyBounds::default() }
    }
}

/// For whom the keys of one source may speak.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyBounds {
    /// `iss` that their tokens must have, in place of `auth.issuer`.
    pub issuer: Option<String>,
    /// `aud`: their tokens must have one of these, in place of `auth.audience`.
    pub audience: Vec<String>,
    /// The organizations that they may speak for; `None`: all.
    pub organizations: Option<BTreeSet<OrgId>>,
}

/// One source of verification keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A shared secret for HS256, HS384 and HS512.
    Hs256 {
        /// Where the secret is.
        secret: SecretRef,
    },
    /// A public key, or a certificate, in PEM.
    Pem {
        /// Where it is.
        file: PathBuf,
    },
    /// A JSON Web Key Set (RFC 7517) in a file.
    JwksFile {
        /// Where it is.
        file: PathBuf,
    },
    /// A JSON Web Key Set behind an `https` URL.
    JwksUrl {
        /// Where it is.
        url: String,
        /// Who signs that server's certificate, where the system does not know.
        ca_file: Option<PathBuf>,
    },
    /// The JSON Web Key Set that an issuer names in its own configuration (OpenID Connect Discovery 1.0, section 4).
    Issuer {
        /// The issuer, an `https` URL.
        issuer: String,
        /// Who signs the certificates of its servers, where the system does not know.
        ca_file: Option<PathBuf>,
    },
}

/// Which claim carries what: a name, or a JSON Pointer (RFC 6901) where it begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// The organization.
    pub organization: String,
    /// The user.
    pub user: String,
    /// The project.
    pub project: String,
    /// The roles.
    pub roles: String,
    /// The permissions.
    pub permissions: String,
    /// The tier, used only where the organization has none of its own.
    pub tier: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            organization: "org".to_owned(),
            user: "sub".to_owned(),
            project: "project".to_owned(),
            roles: "roles".to_owned(),
            permissions: "permissions".to_owned(),
            tier: "tier".to_owned(),
        }
    }
}

/// `[context]`: the settings that a server connection is told for a session. All lower-case `prefix.name`, all distinct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextNames {
    /// Holds the organization.
    pub organization: String,
    /// Holds the user.
    pub user: String,
    /// Holds the project.
    pub project: String,
    /// Holds the roles.
    pub roles: String,
    /// Holds the permissions.
    pub permissions: String,
    /// Where the databases keep the context.
    pub form: ContextForm,
    /// Where the keys are that seal it.
    pub seal_key: Option<SecretRef>,
}

/// Where the databases keep the context (policies/sql).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContextForm {
    /// As each database says.
    #[default]
    Auto,
    /// In ordinary settings.
    Plain,
    /// In a setting that the shared role cannot write.
    Guarded,
    /// In ordinary settings, under a seal.
    Sealed,
}

impl Default for ContextNames {
    fn default() -> Self {
        Self {
            organization: "app.current_org_id".to_owned(),
            user: "app.current_user_id".to_owned(),
            project: "app.current_project_id".to_owned(),
            roles: "app.current_roles".to_owned(),
            permissions: "app.current_permissions".to_owned(),
            form: ContextForm::Auto,
            seal_key: None,
        }
    }
}

/// `[pool]`: server connections, in PgBouncer's words where the meaning is PgBouncer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// When a server connection returns to the pool.
    pub mode: PoolMode,
    /// How long a statement may wait for its turn.
    pub query_wait_timeout: Duration,
    /// The age at which an unused server connection is closed.
    pub server_lifetime: Duration,
    /// How long a server connection may stay unused.
    pub server_idle_timeout: Duration,
    /// How long connecting and logging in to a server may take.
    pub server_connect_timeout: Duration,
    /// How long a client may leave a transaction open without a word; `None`: for ever.
    pub idle_transaction_timeout: Option<Duration>,
    /// How long a session may keep a server connection beyond its transaction without using it.
    pub idle_pin_timeout: Duration,
    /// Prepared statements kept on each server connection.
    pub max_prepared_statements: usize,
    /// Server connections kept open on each shard that does not say otherwise.
    pub min_pool_size: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            mode: PoolMode::Transaction,
            query_wait_timeout: Duration::from_secs(120),
            server_lifetime: Duration::from_secs(3600),
            server_idle_timeout: Duration::from_secs(600),
            server_connect_timeout: Duration::from_secs(15),
            idle_transaction_timeout: Some(Duration::from_secs(300)),
            idle_pin_timeout: Duration::from_secs(600),
            max_prepared_statements: 200,
            min_pool_size: 0,
        }
    }
}

/// When a server connection returns to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// After each transaction.
    Transaction,
    /// When the client disconnects.
    Session,
}

/// `[[shards]]`: one Postgres database that holds some organizations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name, distinct.
    pub name: ShardName,
    /// Where it is.
    pub host: Host,
    /// The port, also part of a Unix socket's name.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The shared login role.
    pub user: String,
    /// That role's password.
    pub password: Option<SecretRef>,
    /// Whether the connection is encrypted and verified.
    pub tls: TlsMode,
    /// Who signs the server's certificate; `None`: as the system knows.
    pub tls_ca_file: Option<PathBuf>,
    /// Server connections at most.
    pub pool_size: usize,
    /// Server connections kept open.
    pub min_pool_size: usize,
    /// Its share of the organizations that are placed by hash; 0: none, as on a shard that belongs to one organization.
    pub weight: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            name: ShardName::new(""),
            host: Host::Tcp(String::new()),
            port: 5432,
            database: String::new(),
            user: String::new(),
            password: None,
            tls: TlsMode::Prefer,
            tls_ca_file: None,
            pool_size: 20,
            min_pool_size: 0,
            weight: 1,
        }
    }
}

/// Where a shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A host name or an IP address.
    Tcp(String),
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

/// TLS to a shard, as libpq's `sslmode` (PostgreSQL manual, "SSL Mode Descriptions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Where the server offers it; not verified.
    Prefer,
    /// Always; not verified.
    Require,
    /// Always, with the certificate and the host name verified.
    VerifyFull,
}

/// `[sharding]`: where organizations without a place of their own live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sharding {
    /// What decides where no range does.
    pub method: ShardingMethod,
    /// Asked first. Do not overlap, all name a shard.
    pub ranges: Vec<Range>,
}

/// What decides where an organization lives that has no place of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ShardingMethod {
    /// A consistent hash of its name over the shards' names, by weight.
    #[default]
    ConsistentHash,
}

/// Organizations from one name to another, both included, that live on one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub from: OrgId,
    /// The last.
    pub to: OrgId,
    /// Their shard.
    pub shard: ShardName,
}

impl Range {
    /// Whether `org` lies in the range, in the order of [`natural_order`].
    pub fn contains(&self, org: &OrgId) -> bool {
        natural_order(self.from.as_str(), org.as_str()).is_le() && natural_order(org.as_str(), self.to.as_str()).is_le()
    }
}

/// `[directory]`: which organizations there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// What is done with an organization that the file does not name.
    pub unknown_organizations: UnknownOrganizations,
}

/// What is done with an organization that the file does not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownOrganizations {
    /// Its token is enough.
    #[default]
    Admit,
    /// It may not log in.
    Refuse,
}

/// `[organizations.*]`: what one organization has of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Organization {
    /// Its tier; wins over the token's.
    pub tier: Option<TierName>,
    /// Its shard; wins over ranges and hash.
    pub shard: Option<ShardName>,
    /// How it is kept apart in the database.
    pub isolation: Isolation,
    /// Whether it may log in.
    pub status: Status,
    /// When its server connections return to the pool; `None`: as `pool.pool_mode` says.
    pub pool_mode: Option<PoolMode>,
}

/// How an organization is kept apart in the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Tables shared with others, row level security.
    #[default]
    Row,
    /// A schema and a role of its own.
    Schema,
    /// A database of its own.
    Database,
}

/// Whether an organization may log in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// It may.
    #[default]
    Active,
    /// It may not; its live sessions end at their next safe point.
    Suspended,
}

/// `[check]`: attestation of each shard before and while it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is done about a shard that fails.
    pub on_breach: Breach,
    /// Findings that the operator has accepted, as `kind:object`.
    pub allow: Vec<String>,
    /// How often a served shard is attested again.
    pub interval: Duration,
}

impl Default for Check {
    fn default() -> Self {
        Self { on_breach: Breach::Refuse, allow: Vec::new(), interval: Duration::from_secs(300) }
    }
}

/// What is done about a shard that fails its attestation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// It is not served.
    Refuse,
    /// It is served, and the log says why it should not be.
    Warn,
}

/// `[audit]`: who did what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Where records go, as JSON lines; `None`: nowhere.
    pub file: Option<PathBuf>,
    /// Which statements are recorded.
    pub statements: StatementAudit,
}

/// Which statements are recorded; connects, denials, limits and admin actions always are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StatementAudit {
    /// Every one.
    All,
    /// Those that change data or definitions.
    #[default]
    Writes,
    /// None.
    None,
}

/// `[log]`: the program's own log, on standard error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Lines for people or for programs.
    pub format: LogFormat,
    /// The least important line that is written.
    pub level: LogLevel,
}

/// Lines for people or for programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important line that is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// What wakes a person.
    Error,
    /// And what is watched.
    Warn,
    /// And what changes.
    #[default]
    Info,
    /// And what is decided.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// The word, as the configuration and log filters write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
