//! What a tier allows is what an organization gets: statements at a time, time, result, and its share of a pool.

mod abandoned;
mod concurrency;
mod endings;
mod fairness;
mod page;
mod readings;
mod records;
mod results;
mod timeouts;
mod transactions;
mod turns;

use std::sync::atomic::{AtomicI64, Ordering};

use crate::support::{Proxy, Shard, until};

/// A tier named `small` beside the default `wide`, which is so wide that it is never felt.
pub(super) struct Small {
    pub concurrent: u32,
    pub timeout_s: u32,
    pub queued: u32,
    pub more: &'static str,
}

impl Default for Small {
    fn default() -> Self {
        Self { concurrent: 100, timeout_s: 3600, queued: 100, more: "" }
    }
}

impl Small {
    /// The tiers file.
    pub fn tiers(&self) -> String {
        let wide = "cpu_cores = 2\nmemory_gb = 8\nstorage_quota_gb = \"unlimited\"\n\
                    max_client_connections = \"unlimited\"\n";
        let Self { concurrent, timeout_s, queued, more } = self;
        format!(
            "default = \"wide\"\n\n[tiers.wide]\n{wide}max_concurrent_queries = \"unlimited\"\n\
             query_timeout_seconds = 3600\nmax_result_size_mb = \"unlimited\"\nmax_queued_queries = 10000\npriority = 1\n\n\
             [tiers.small]\n{wide}max_concurrent_queries = {concurrent}\nquery_timeout_seconds = {timeout_s}\n\
             max_result_size_mb = 1\nmax_queued_queries = {queued}\n{more}\n"
        )
    }

    /// A proxy before the shared shard, on which acme has this tier and all others the wide one.
    pub async fn proxy(&self, pool_size: usize) -> Proxy {
        let plan = Proxy::before(Shard::shared()).pool_size(pool_size).tiers(&self.tiers());
        plan.option("listen", "threads = 1").sections("[organizations.acme]\ntier = \"small\"").start().await
    }
}

/// The value of one line of `/metrics`; 0 where there is none such.
pub(super) async fn metric(proxy: &Proxy, line: &str) -> f64 {
    let page = proxy.metrics().await;
    let value = page.lines().find_map(|known| known.strip_prefix(line)).map(|value| value.trim().parse());
    value.map_or(0.0, |value| value.expect("a number"))
}

/// How many statements wait at shard 1.
pub(super) async fn waiting(proxy: &Proxy) -> f64 {
    metric(proxy, "partywall_pool_waiting{shard=\"shard_1\"}").await
}

/// Waits until so many statements wait at shard 1.
pub(super) async fn until_waiting(proxy: &Proxy, count: usize) {
    until("statements wait", async || waiting(proxy).await == count as f64).await;
}

/// A table that the superuser has locked, past the proxy: whoever reads it stands still until it is let go.
pub(super) struct Gate {
    admin: tokio_postgres::Client,
    key: i64,
}

impl Gate {
    /// Closes a gate of its own.
    pub async fn close() -> Self {
        static NEXT: AtomicI64 = AtomicI64::new(1);
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        let admin = Shard::shared().admin().await;
        let sql = format!("CREATE TABLE gate_{key} (); GRANT SELECT ON gate_{key} TO PUBLIC");
        admin.batch_execute(&sql).await.expect("makes the gate");
        let lock = format!("BEGIN; LOCK TABLE gate_{key} IN ACCESS EXCLUSIVE MODE");
        admin.batch_execute(&lock).await.expect("locks");
        Self { admin, key }
    }

    /// The statement that stands still before it.
    pub fn sql(&self) -> String {
        format!("SELECT count(*) FROM gate_{}", self.key)
    }

    /// How many statements stand before it on the server.
    pub async fn standing(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                    WHERE relname = $1 AND NOT granted";
        self.admin.query_one(sql, &[&format!("gate_{}", self.key)]).await.expect("looks").get(0)
    }

    /// Waits until so many stand before it.
    pub async fn until_standing(&self, count: i64) {
        until("statements stand before the gate", async || self.standing().await == count).await;
    }

    /// Lets all through.
    pub async fn open(&self) {
        self.admin.batch_execute("COMMIT").await.expect("unlocks");
    }
}
