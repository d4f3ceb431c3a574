//! The life of single server connections: age, idleness, numbers, and what is left on them; and how sessions end.

use super::readyz;
use crate::support::{Message, Proxy, Shard, Wire, raw::brief, until};

const ONE: &str = "T D(1) C(SELECT 1) ZI";

/// The process ids of pooled connections: those of the attestor have a name.
async fn pooled(shard: &Shard) -> Vec<i32> {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND application_name <> 'partywall-attest' ORDER BY pid";
    let rows = shard.admin().await.query(sql, &[&Shard::USER]).await.expect("looks");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_opened_kept_and_closed_as_the_settings_say() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(7).option("pool", "server_idle_timeout_s = 1").start().await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let mut raw = proxy.raw("acme").await;
        assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
        sessions.push(raw);
    }
    assert_eq!(pooled(&shard).await.len(), 6);
    proxy.files().change("partywall.toml", "pool_size = 7", "pool_size = 7\nmin_pool_size = 2");
    for raw in &mut sessions {
        assert_eq!(raw.query("COMMIT").await, "C(COMMIT) ZI");
    }
    until("idle ones are closed down to the smallest number", async || pooled(&shard).await.len() == 2).await;
    // By age: everything that is there now goes, and others take its place.
    let old = pooled(&shard).await;
    let long = "server_idle_timeout_s = 600\nserver_lifetime_s = 1";
    proxy.files().change("partywall.toml", "server_idle_timeout_s = 1", long);
    until("old ones have been replaced", async || {
        assert_eq!(sessions[0].query("SELECT 1").await, ONE);
        let now = pooled(&shard).await;
        now.len() >= 2 && now.iter().all(|pid| !old.contains(pid))
    })
    .await;
    // A smaller pool is smaller at once.
    proxy.files().change("partywall.toml", "server_lifetime_s = 1", "server_lifetime_s = 600");
    let mut two = [proxy.raw("acme").await, proxy.raw("acme").await];
    for raw in &mut two {
        until("both at once", async || raw.query("BEGIN").await == "C(BEGIN) ZT").await;
    }
    for raw in &mut two {
        raw.query("COMMIT").await;
    }
    proxy.files().change("partywall.toml", "pool_size = 7\nmin_pool_size = 2", "pool_size = 1");
    until("the pool is smaller", async || pooled(&shard).await.len() == 1).await;
    for raw in sessions.iter_mut().chain(&mut two) {
        assert_eq!(raw.query("SELECT 1").await, ONE, "no session was dropped");
    }
}

#[tokio::test]
async fn the_context_is_taken_off_a_connection_that_nobody_uses() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.query("SELECT 1").await, ONE);
    let admin = shard.admin().await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'partywall_app' AND state = 'idle'
                  AND query LIKE 'DISCARD PLANS;%' AND query NOT LIKE '%current_org_id%'";
    until("it is taken off", async || admin.query_one(sql, &[]).await.expect("looks").get::<_, i64>(0) == 1).await;
    // And put on again.
    assert_eq!(raw.query("SELECT count(*) FROM canary").await, "T D(100) C(SELECT 1) ZI");
}

#[tokio::test]
async fn a_connection_killed_while_idle_is_replaced_and_no_client_notices() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(2).start().await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.converse(Wire::new().parse("s", "SELECT 1").sync(), 1).await, "1 ZI");
    for _ in 0..5 {
        let kill = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'partywall_app'";
        shard.admin().await.batch_execute(kill).await.expect("kills");
        assert_eq!(raw.query("SELECT 1").await, ONE);
        let again = Wire::new().bind("", "s", &[]).execute("", 0).sync();
        assert_eq!(raw.converse(again, 1).await, "2 D(1) C(SELECT 1) ZI", "what was prepared is there");
    }
}

#[tokio::test]
async fn a_connection_killed_under_a_statement_fails_it_and_under_an_idle_transaction_its_session() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(2).start().await;
    let admin = shard.admin().await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE usename = 'partywall_app' AND (query LIKE '%pg_sleep(60)%' OR state = 'idle in transaction')";
    let mut raw = proxy.raw("acme").await;
    let running = || Wire::new().query("SELECT pg_sleep(60)");
    let extended = || Wire::new().parse("", "SELECT pg_sleep(60)").bind("", "", &[]).execute("", 0).sync();
    for (begin, wire) in [(false, running()), (true, running()), (false, extended()), (true, extended())] {
        if begin {
            assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
        }
        raw.send(wire.query("SELECT 1")).await;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND usename = 'partywall_app'";
        until("it runs", async || admin.query_one(running, &[]).await.expect("looks").get::<_, i64>(0) == 1).await;
        admin.query_one(kill, &[]).await.expect("kills");
        let messages = raw.until_readies(2).await;
        let said: Vec<String> =
            messages.iter().filter(|message| matches!(message.tag, b'E' | b'Z')).map(Message::brief).collect();
        // What was pipelined behind it was on the same connection.
        assert_eq!(said, ["E(57P01)", "ZI", "E(57P01)", "ZI"]);
        let error = messages.iter().find(|message| message.tag == b'E').expect("an error");
        assert_eq!(error.field(b'S'), "ERROR", "the session does not end with it");
        assert_eq!(raw.query("SELECT 1").await, ONE);
    }
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
    admin.query_one(kill, &[]).await.expect("kills");
    let messages = raw.until_closed().await;
    assert_eq!(brief(&messages), "E(57P01)");
    assert_eq!(messages.last().expect("an error").field(b'S'), "FATAL");
}

#[tokio::test]
async fn every_session_ends_with_one_record_of_why() {
    let shard = Shard::start();
    let plan = Proxy::before(&shard).pool_size(3).option("audit", "file = \"audit.jsonl\"");
    let proxy = plan.start().await;
    let mut ended = proxy.raw("acme").await;
    ended.send(Wire::new().terminate()).await;
    ended.until_closed().await;
    let mut vanished = proxy.raw("acme").await;
    vanished.send(Wire::new().query("SELECT pg_sleep(60)")).await;
    let mut in_transaction = proxy.raw("acme").await;
    in_transaction.query("BEGIN").await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    shard.admin().await.batch_execute(kill).await.expect("kills");
    in_transaction.until_closed().await;
    drop(vanished);
    let mut torn = proxy.raw("acme").await;
    torn.send(Wire::new().query("SELECT repeat('x', 100000000)")).await;
    // Some of the row has come; the rest never will.
    torn.stream.readable().await.expect("comes");
    let admin = shard.admin().await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%100000000%' AND pid <> pg_backend_pid()";
    admin.query_one(kill, &[]).await.expect("kills");
    assert!(torn.until_closed().await.iter().all(|message| message.tag != b'Z'));
    let mut nonsense = proxy.raw("acme").await;
    nonsense.send(Wire::new().bytes(b"\x01\0\0\0\x04")).await;
    assert_eq!(brief(&nonsense.until_closed().await), "E(08P01)");
    let _idle = proxy.raw("acme").await;
    let mut at_work = proxy.raw("acme").await;
    at_work.send(Wire::new().query("SELECT pg_sleep(60)")).await;
    until("the ended are gone", async || {
        let page = proxy.metrics().await;
        page.contains("partywall_sessions{org_id=\"acme\"} 2\n") || !page.contains("partywall_sessions{")
    })
    .await;
    assert_eq!(readyz(&proxy).await.0, 200);
    let file = proxy.files().folder().join("audit.jsonl");
    let kept = tempfile::tempdir().expect("a folder");
    let link = kept.path().join("audit.jsonl");
    std::fs::hard_link(&file, &link).expect("the file outlives its folder");
    drop(proxy);
    let text = std::fs::read_to_string(&link).expect("reads");
    let records: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let count = |action: &str| records.iter().filter(|record| record["action"] == action).count();
    assert_eq!((count("connect"), count("disconnect")), (7, 7), "{text}");
    let mut reasons: Vec<String> = records
        .iter()
        .filter(|record| record["action"] == "disconnect")
        .map(|record| record["metadata"]["reason"].as_str().unwrap_or("none").replace("draining", "killed"))
        .collect();
    reasons.sort();
    assert_eq!(
        reasons,
        ["client_gone", "client_terminate", "killed", "killed", "protocol_violation", "server_lost", "server_lost"],
        "{text}"
    );
}
