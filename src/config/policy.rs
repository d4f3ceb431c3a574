//! The policies as meant: what a tier may use, and what roles and permissions give.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::TierName;

/// Every tier, and the one of an organization that has none of its own and whose token names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers {
    /// The tier of everybody else; always in `tiers`.
    pub default: TierName,
    /// By name.
    pub tiers: BTreeMap<TierName, Arc<Tier>>,
}

/// What each organization of a tier may use, across all its users. `None` is "unlimited".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: TierName,
    /// Statements running at a time.
    pub max_concurrent_queries: Option<u32>,
    /// How long one statement may run.
    pub query_timeout: Duration,
    /// How long one transaction may last.
    pub max_transaction: Duration,
    /// How long a client may leave a transaction open without a word; `None`: as `pool.idle_transaction_timeout_s` says.
    pub idle_transaction: Option<Duration>,
    /// Bytes of rows that one statement may return.
    pub max_result_bytes: Option<u64>,
    /// Client connections at a time.
    pub max_client_connections: Option<u32>,
    /// Statements waiting at a time.
    pub max_queued_queries: u32,
    /// How long a statement may wait for its turn; `None`: as `pool.query_wait_timeout_s` says.
    pub query_wait_timeout: Option<Duration>,
    /// Sessions at a time that keep a server connection beyond its transaction.
    pub max_pins: Option<u32>,
    /// Its share of a pool where organizations compete, against the others' weights.
    pub weight: u32,
    /// Bytes stored.
    pub storage_quota_bytes: Option<u64>,
    /// Cores that one statement may use; `None`: unlimited, or dedicated.
    pub cpu_cores: Option<u32>,
    /// Memory, of which a session's `work_mem` is derived; `None`: unlimited, or dedicated.
    pub memory_bytes: Option<u64>,
    /// Whether its organizations live alone on a shard.
    pub dedicated: bool,
}

impl Default for Tier {
    fn default() -> Self {
        Self {
            name: TierName::new(""),
            max_concurrent_queries: Some(5),
            query_timeout: Duration::from_secs(300),
            max_transaction: Duration::from_secs(3600),
            idle_transaction: None,
            max_result_bytes: Some(100 << 20),
            max_client_connections: Some(100),
            max_queued_queries: 200,
            query_wait_timeout: None,
            max_pins: Some(10),
            weight: 1,
            storage_quota_bytes: Some(10 << 30),
            cpu_cores: Some(2),
            memory_bytes: Some(8 << 30),
            dedicated: false,
        }
    }
}

/// What a session may do with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Read rows.
    Read,
    /// Change rows.
    Write,
    /// Change definitions.
    Ddl,
}

/// Which rights roles and permissions give. A session has the union; nothing given is nothing allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardPolicy {
    /// By the name of a role in the token.
    pub roles: BTreeMap<String, Vec<Right>>,
    /// By a permission in the token, written `verb:relation`; `*` for the relation is every relation.
    pub permissions: BTreeMap<String, Vec<Right>>,
    /// What a token without roles and permissions gives.
    pub default_rights: Vec<Right>,
    /// The longest statement text that the guard reads, in bytes (`[guard]` of the main file).
    pub statement_bytes_max: usize,
    /// What becomes of COPY FROM (`[guard]` of the main file).
    pub copy_from: CopyFrom,
}

/// What becomes of COPY FROM into tables whose policies apply to the session, which PostgreSQL refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CopyFrom {
    /// It goes to the server as it is.
    #[default]
    Direct,
    /// It loads into a temporary table, and an INSERT moves the rows on.
    Staged,
}

impl Default for GuardPolicy {
    /// Nobody may do anything, in statements of up to 1 MB.
    fn default() -> Self {
        Self {
            roles: BTreeMap::new(),
            permissions: BTreeMap::new(),
            default_rights: Vec::new(),
            statement_bytes_max: 1 << 20,
            copy_from: CopyFrom::default(),
        }
    }
}
