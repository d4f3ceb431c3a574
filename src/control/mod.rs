//! Everything periodic, and everything read from files: the configuration and keys; directory, metering and reaping.

pub mod attest;
mod attestor;
pub mod keys;
mod load;
pub mod logging;
pub mod observe;
mod reload;
mod snapshots;
mod sweep;

pub use attestor::{AttestError, attest_shard, keep_attested};
pub use load::{SecretError, load, read_secret};
pub use reload::keep_current;
pub use snapshots::{Board, MakeGuard, ShardPlan, Snapshots, Unusable, guard, plan_shards};
pub use sweep::sweep;
