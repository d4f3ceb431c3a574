//! What the operator wrote, and what it means: the configuration, checked whole, every fault at once.
//!
//! Files are read elsewhere (`control`); this room has text in and a [`Config`] or [`Faults`] out. As written, the
//! configuration is a TOML tree with places (`reader`); as meant, it is the types of `meant` and `policy`, whose
//! `Default` impls are the only home of defaults.

mod fault;
mod housing;
mod meant;
mod natural;
mod page;
mod places;
mod policies;
mod policy;
mod read;
mod secret;
mod sections;
mod table;
mod trust;
#[cfg(test)]
mod documentation;
#[cfg(test)]
mod tests;

pub use fault::{Fault, Faults};
pub use meant::{
    Admin, Audit, Auth, Breach, Check, ClaimNames, Config, ContextForm, ContextNames, DirectoryConfig, Host, Isolation,
    KeyBounds, KeySource, Listen, Log, LogFormat, LogLevel, OnExpiry, Organization, PlaintextPasswords, Pool, PoolMode,
    ProxyProtocol, Range, Shard, Sharding, ShardingMethod, StatementAudit, Status, TlsFiles, TlsMode, TokenKeys,
    UnknownOrganizations,
};
pub use natural::natural_order;
pub use page::{Named, Need};
pub use policy::{CopyFrom, GuardPolicy, Right, Tier, Tiers};
pub use read::{Survey, policy_files, survey};
pub use secret::{Secret, SecretRef};
pub use sections::PolicyFiles;
pub use trust::https_url;

use std::path::PathBuf;

/// The texts that make a configuration, each with the path it was read from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The main file; relative paths in it are relative to its directory.
    pub main: (PathBuf, String),
    /// The tiers file, where the main file names one. Absent: the tiers compiled in.
    pub tiers: Option<(PathBuf, String)>,
    /// The guard's file, where the main file names one. Absent: the rights compiled in.
    pub guard: Option<(PathBuf, String)>,
}

impl Config {
    /// Checks `sources` whole. What they name (certificates, keys, secrets) is not looked at: that is for whoever reads
    /// files.
    ///
    /// # Errors
    /// Every fault there is, one a line.
    pub fn check(sources: &Sources) -> Result<Self, Faults> {
        survey(sources).into_config()
    }
}
