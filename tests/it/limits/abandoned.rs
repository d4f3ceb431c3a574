//! Server processes that work on when their session is gone: their places and permits come back when they end.
//!
//! A process that computes without looking for interrupts is stood in for by one that is stopped: it takes notice of
//! nothing either, and for exactly as long as the test wants.

use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Small, metric, until_waiting, waiting};
use crate::support::{Proxy, Raw, Shard, Wire, raw::brief, until};

/// Of its own: what waits for all server processes would wait for those that are stopped.
fn shard() -> &'static Shard {
    static SHARD: OnceLock<Shard> = OnceLock::new();
    SHARD.get_or_init(Shard::start)
}

async fn proxy(small: Small, pool_size: usize) -> Proxy {
    let plan = Proxy::before(shard()).pool_size(pool_size).tiers(&small.tiers()).option("listen", "threads = 1");
    plan.sections("[organizations.acme]\ntier = \"small\"").start().await
}

/// A server process that takes notice of nothing, until it is dropped.
struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// A session at work, and its server process, stopped.
async fn stopped_at_work(proxy: &Proxy, org: &str, mark: &str) -> (Raw, Stopped) {
    let mut raw = proxy.raw(org).await;
    raw.send(Wire::new().query(&format!("SELECT '{mark}', pg_sleep(600)"))).await;
    let admin = shard().admin().await;
    let sql = "SELECT pid FROM pg_stat_activity
                WHERE state = 'active' AND wait_event = 'PgSleep' AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid()";
    let mut pid = None;
    until("it is at work", async || {
        pid = admin.query_opt(sql, &[&mark]).await.expect("looks").map(|row| row.get::<_, i32>(0));
        pid.is_some()
    })
    .await;
    let pid = Pid::from_raw(pid.expect("it was found"));
    kill(pid, Signal::SIGSTOP).expect("it is stopped");
    (raw, Stopped(pid))
}

async fn until_closing(proxy: &Proxy, count: u32) {
    let line = "partywall_pool_server_connections{shard=\"shard_1\",state=\"closing\"}";
    until("connections are being closed", async || metric(proxy, line).await == f64::from(count)).await;
}

#[tokio::test]
async fn the_permit_of_a_session_that_is_gone_comes_back_when_its_server_process_ends() {
    let proxy = proxy(Small { concurrent: 1, ..Small::default() }, 4).await;
    let (vanishing, stopped) = stopped_at_work(&proxy, "acme", "gone-8101").await;
    drop(vanishing);
    until_closing(&proxy, 1).await;
    let mut next = proxy.raw("acme").await;
    next.send(Wire::new().query("SELECT 7")).await;
    until_waiting(&proxy, 1).await;
    assert_eq!(proxy.raw("globex").await.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI", "others are served");
    assert_eq!(waiting(&proxy).await, 1.0, "it waits on");
    drop(stopped);
    assert_eq!(brief(&next.until_ready().await), "T D(7) C(SELECT 1) ZI");
    until_closing(&proxy, 0).await;
}

#[tokio::test]
async fn the_permit_of_a_statement_that_nothing_ends_comes_back_when_its_server_process_ends() {
    let proxy = proxy(Small { concurrent: 1, timeout_s: 1, ..Small::default() }, 4).await;
    let (mut overdue, stopped) = stopped_at_work(&proxy, "acme", "overdue-8102").await;
    assert_eq!(brief(&overdue.until_closed().await), "E(57014)");
    until_closing(&proxy, 1).await;
    let mut next = proxy.raw("acme").await;
    next.send(Wire::new().query("SELECT 7")).await;
    until_waiting(&proxy, 1).await;
    let mut other = proxy.raw("globex").await;
    for _ in 0..20 {
        assert_eq!(other.query("SELECT 1 FROM pg_sleep(0.05)").await, "T D(1) C(SELECT 1) ZI", "others are served");
    }
    until_closing(&proxy, 1).await;
    assert_eq!(waiting(&proxy).await, 1.0, "it waits on");
    drop(stopped);
    assert_eq!(brief(&next.until_ready().await), "T D(7) C(SELECT 1) ZI");
}

#[tokio::test]
async fn no_more_server_processes_than_the_pool_has_places_work_for_sessions_that_are_gone() {
    let proxy = proxy(Small { concurrent: 10, ..Small::default() }, 3).await;
    let mut processes = Vec::new();
    // One organization may hold two of three.
    for (org, mark) in [("acme", "place-8103"), ("acme", "place-8104"), ("globex", "place-8105")] {
        let (vanishing, stopped) = stopped_at_work(&proxy, org, mark).await;
        drop(vanishing);
        processes.push(stopped);
    }
    until_closing(&proxy, 3).await;
    let mut next = proxy.raw("globex").await;
    next.send(Wire::new().query("SELECT 7")).await;
    until_waiting(&proxy, 1).await;
    processes.pop();
    assert_eq!(brief(&next.until_ready().await), "T D(7) C(SELECT 1) ZI");
}
