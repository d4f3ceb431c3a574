//! The end that a client does not decide: an expired token, a suspension, a drain; whatever the client keeps under way.

use partywall::auth::mint::Grant;

use super::{Gate, Small, until_waiting};
use crate::support::proxy::token;
use crate::support::{Plan, Proxy, Raw, Shard, Wire, raw::brief, until};

/// How long the tokens of these tests are good, in seconds: long enough to log in and begin.
const SHORT_S: u64 = 4;

fn short_lived() -> String {
    let user = Some("ada".to_owned());
    token(&Grant {
        org: "acme".to_owned(),
        user,
        roles: vec!["developer".to_owned()],
        ttl_s: SHORT_S,
        ..Grant::default()
    })
}

fn plan(grace_s: u64) -> Plan {
    Proxy::before(Shard::shared()).option("auth", &format!("leeway_s = 0\nexpiry_grace_s = {grace_s}"))
}

/// Keeps four statements under way until the connection ends; the last of what it heard.
async fn pipelines_on(mut raw: Raw) -> String {
    // Long enough that a slow machine sends the next one in time.
    let slow = "SELECT 1 FROM pg_sleep(0.3)";
    let statement = || Wire::new().query(slow);
    raw.send(statement().query(slow).query(slow).query(slow)).await;
    let mut last = Vec::new();
    while let Some(message) = raw.message().await {
        if message.tag == b'Z' {
            last.clear();
            // What is refused has nobody to hear of it.
            raw.send(statement()).await;
        }
        last.push(message);
    }
    brief(&last)
}

/// How many statements that hold `mark` run.
async fn running(mark: &str) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
                WHERE state <> 'idle' AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid()";
    Shard::shared().admin().await.query_one(sql, &[&mark]).await.expect("looks").get(0)
}

#[tokio::test]
async fn a_session_that_always_has_statements_under_way_ends_with_its_token() {
    // With a grace that does not end in this test: the safe point is what ends it.
    let proxy = plan(3600).start().await;
    let raw = Raw::log_in(proxy.address(), &short_lived()).await;
    assert_eq!(crate::support::soon("it ends", pipelines_on(raw)).await, "ZI E(28000)");
}

#[tokio::test]
async fn what_is_under_way_when_a_token_expires_has_a_grace() {
    let proxy = plan(1).start().await;
    let token = short_lived();
    let (mut idle, mut busy) = (Raw::log_in(proxy.address(), &token).await, Raw::log_in(proxy.address(), &token).await);
    let mut stalled = Raw::log_in(proxy.address(), &token).await;
    assert_eq!(idle.query("BEGIN").await, "C(BEGIN) ZT");
    busy.send(Wire::new().query("SELECT 'busy-8201', pg_sleep(600)")).await;
    stalled.send(Wire::new().query("SELECT 'stalled-8202', repeat('x', 1000) FROM generate_series(1, 3000000)")).await;
    assert_eq!(brief(&idle.until_closed().await), "E(28000)");
    assert_eq!(brief(&busy.until_closed().await), "E(28000)");
    until("nothing runs for them", async || running("busy-8201").await + running("stalled-8202").await == 0).await;
}

#[tokio::test]
async fn a_statement_that_waits_in_line_when_its_token_expires_never_runs() {
    let small = Small { concurrent: 1, ..Small::default() };
    let plan = plan(3600).tiers(&small.tiers()).option("listen", "threads = 1").pool_size(3);
    let proxy = plan.sections("[organizations.acme]\ntier = \"small\"").start().await;
    let gate = Gate::close().await;
    let mut first = proxy.raw("acme").await;
    first.send(Wire::new().query(&gate.sql())).await;
    gate.until_standing(1).await;
    let mut waits = Raw::log_in(proxy.address(), &short_lived()).await;
    waits.send(Wire::new().query("SELECT 1")).await;
    until_waiting(&proxy, 1).await;
    assert_eq!(brief(&waits.until_closed().await), "E(28000)");
    until_waiting(&proxy, 0).await;
    gate.open().await;
    assert!(brief(&first.until_ready().await).ends_with("ZI"));
}

#[tokio::test]
async fn a_suspended_organization_is_cut_off_at_once() {
    let proxy = Proxy::before(Shard::shared()).sections("[organizations.acme]\nstatus = \"active\"\n").start().await;
    let (mut open, mut busy) = (proxy.raw("acme").await, proxy.raw("acme").await);
    let pipelining = tokio::spawn(pipelines_on(proxy.raw("acme").await));
    let mut other = proxy.raw("globex").await;
    assert_eq!(open.query("BEGIN; INSERT INTO ledger (body) VALUES ('suspended')").await, "C(BEGIN) C(INSERT 0 1) ZT");
    busy.send(Wire::new().query("SELECT 'busy-8203', pg_sleep(600)")).await;
    until("it runs", async || running("busy-8203").await == 1).await;
    proxy.files().change("partywall.toml", "status = \"active\"", "status = \"suspended\"");
    assert_eq!(brief(&open.until_closed().await), "E(28000)");
    assert_eq!(brief(&busy.until_closed().await), "E(28000)");
    let last = crate::support::soon("it ends", pipelining).await.expect("it was heard");
    assert!(last.ends_with("E(28000)"), "{last}");
    until("what ran is cancelled", async || running("busy-8203").await == 0).await;
    assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
}
