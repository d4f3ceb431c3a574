//! A pool's connections are shared by weight and by time, however many sessions ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Gate, Small, until_waiting};
use crate::support::{Message, Proxy, Wire, soon, until};

#[tokio::test]
async fn who_holds_nothing_goes_next_however_many_of_another_wait() {
    let proxy = Small::default().proxy(3).await;
    let gates = [Gate::close().await, Gate::close().await, Gate::close().await];
    let mut flood = Vec::new();
    for at in 0..12 {
        // One organization alone does not get all three.
        let mut raw = proxy.raw(if at == 0 { "acme" } else { "globex" }).await;
        raw.send(Wire::new().query(&gates[at.min(2)].sql())).await;
        flood.push(raw);
        if at < 3 {
            gates[at].until_standing(1).await;
        }
    }
    until_waiting(&proxy, 9).await;
    let mut other = proxy.raw("initech").await;
    other.send(Wire::new().query("SELECT 7")).await;
    until_waiting(&proxy, 10).await;
    // One statement of the flood ends; all others of it stand before gates that stay closed.
    gates[1].open().await;
    assert_eq!(crate::support::raw::brief(&other.until_ready().await), "T D(7) C(SELECT 1) ZI");
    gates[0].open().await;
    gates[2].open().await;
}

#[tokio::test]
async fn a_pool_of_any_size_keeps_a_connection_for_those_who_hold_none() {
    for (size, held) in [(2, 1), (4, 3), (8, 7)] {
        a_pool_keeps_a_connection(size, held).await;
    }
}

async fn a_pool_keeps_a_connection(size: usize, held: i64) {
    let proxy = Small::default().proxy(size).await;
    let gate = Gate::close().await;
    let mut flood = Vec::new();
    for _ in 0..20 {
        let mut raw = proxy.raw("globex").await;
        raw.send(Wire::new().query(&gate.sql())).await;
        flood.push(raw);
    }
    gate.until_standing(held).await;
    until_waiting(&proxy, 20 - held as usize).await;
    let mut other = proxy.raw("initech").await;
    for _ in 0..5 {
        assert_eq!(other.query("SELECT 7").await, "T D(7) C(SELECT 1) ZI");
    }
    assert_eq!(gate.standing().await, held);
    gate.open().await;
    for mut raw in flood {
        assert_eq!(raw.until_ready().await.last().map(Message::brief).as_deref(), Some("ZI"));
    }
}

/// Sessions that run `sql` again and again; counts how often.
async fn flood(proxy: &Arc<Proxy>, org: &'static str, sessions: usize, sql: &'static str) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    for _ in 0..sessions {
        let mut raw = proxy.raw(org).await;
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            while raw.query(sql).await.ends_with("ZI") {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    count
}

async fn statements_of_the_other(counted: &AtomicUsize, enough: usize, other: &AtomicUsize) -> usize {
    // Both have begun.
    until("both have begun", async || counted.load(Ordering::Relaxed) > 5 && other.load(Ordering::Relaxed) > 0).await;
    let (from, others) = (counted.load(Ordering::Relaxed), other.load(Ordering::Relaxed));
    soon("enough statements", async {
        while counted.load(Ordering::Relaxed) < from + enough {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    other.load(Ordering::Relaxed) - others
}

#[tokio::test]
async fn a_greater_weight_is_a_greater_share_however_many_sessions_ask() {
    let small = Small { more: "priority = 4", ..Small::default() };
    let proxy = Arc::new(small.proxy(1).await);
    let light = flood(&proxy, "globex", 24, "SELECT pg_sleep(0.01)").await;
    let heavy = flood(&proxy, "acme", 6, "SELECT pg_sleep(0.01)").await;
    let others = statements_of_the_other(&heavy, 200, &light).await;
    assert!((25..=100).contains(&others), "a quarter of 200, not {others}");
}

#[tokio::test]
async fn time_is_shared_and_not_statements() {
    let proxy = Arc::new(Small::default().proxy(1).await);
    let long = flood(&proxy, "globex", 8, "SELECT pg_sleep(0.1)").await;
    let short = flood(&proxy, "initech", 8, "SELECT pg_sleep(0.01)").await;
    let longs = statements_of_the_other(&short, 150, &long).await;
    assert!((7..=40).contains(&longs), "about as much time, so a ninth of 150, not {longs}");
}

#[tokio::test]
async fn one_session_of_an_organization_is_not_crowded_out_by_sixty_of_another() {
    let proxy = Arc::new(Small::default().proxy(2).await);
    let crowd = flood(&proxy, "globex", 60, "SELECT pg_sleep(0.02)").await;
    until("the crowd is there", async || crowd.load(Ordering::Relaxed) > 60).await;
    let before = crowd.load(Ordering::Relaxed);
    let mut alone = proxy.raw("initech").await;
    for _ in 0..20 {
        assert!(alone.query("SELECT pg_sleep(0.02)").await.ends_with("ZI"));
    }
    let meanwhile = crowd.load(Ordering::Relaxed) - before;
    // Each of the twenty waits for one of two to end, then runs: not more than a few of the crowd's go by each time.
    assert!(meanwhile <= 20 * 6, "{meanwhile}");
}
