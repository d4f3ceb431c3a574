//! What a pool tells the outside: gauges and counters in atomics, written by its data thread, read by anybody.

use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::ids::ShardName;

/// One data thread's pool of one shard, as numbers.
#[derive(Debug)]
pub struct PoolStats {
    /// The shard.
    pub shard: ShardName,
    /// The data thread, from 0.
    pub thread: usize,
    /// Server connections lent to a session.
    pub server_active: AtomicU32,
    /// Server connections waiting to be lent.
    pub server_idle: AtomicU32,
    /// Server connections being opened.
    pub server_connecting: AtomicU32,
    /// Server connections given up, whose server has not closed its end yet.
    pub server_closing: AtomicU32,
    /// Statements waiting for a server connection or for their organization's turn.
    pub waiting: AtomicU32,
    /// How long the longest-waiting statement has waited, in microseconds; refreshed every second.
    pub waiting_us_max: AtomicU64,
    /// Server connections opened since start.
    pub connects_total: AtomicU64,
    /// Attempts to open one that failed.
    pub connect_failures_total: AtomicU64,
    /// Server connections closed because their state was not known to be clean.
    pub discarded_total: AtomicU64,
    /// Leases given.
    pub leases_total: AtomicU64,
    /// Leases whose server connection had to be told the session's context first.
    pub contexts_told_total: AtomicU64,
    /// Microseconds that statements spent waiting.
    pub waited_us_total: AtomicU64,
    /// 1 when the shard is served, 0 when it is not.
    pub up: AtomicU32,
}

impl PoolStats {
    /// All zero, shard down.
    pub fn new(shard: ShardName, thread: usize) -> Self {
        Self {
            shard,
            thread,
            server_active: AtomicU32::new(0),
            server_idle: AtomicU32::new(0),
            server_connecting: AtomicU32::new(0),
            server_closing: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            waiting_us_max: AtomicU64::new(0),
            connects_total: AtomicU64::new(0),
            connect_failures_total: AtomicU64::new(0),
            discarded_total: AtomicU64::new(0),
            leases_total: AtomicU64::new(0),
            contexts_told_total: AtomicU64::new(0),
            waited_us_total: AtomicU64::new(0),
            up: AtomicU32::new(0),
        }
    }
}
