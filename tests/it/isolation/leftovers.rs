//! What a session leaves behind on its server connection, the next one does not find.

use crate::support::{Proxy, Raw, Shard, Wire, until};

/// What a session can leave; each ends with the client gone, some in the middle of it.
const LEGACIES: [&[&str]; 9] = [
    &["SET work_mem = '77MB'", "SET timezone = 'Asia/Tokyo'", "SET my.own = 'acme'", "SET search_path = pg_catalog"],
    &["SELECT set_config('my.own', 'acme', false)", "SET statement_timeout = 1234"],
    &["BEGIN", "SET my.own = 'acme'", "SET LOCAL work_mem = '77MB'", "INSERT INTO ledger (body) VALUES ('left')"],
    &["SELECT nextval('ticket')", "SELECT currval('ticket')"],
    &["INSERT INTO ledger (body) VALUES ('kept')"],
    &["BEGIN", "DECLARE left_cursor CURSOR FOR SELECT * FROM canary", "FETCH 2 FROM left_cursor"],
    &["BEGIN", "SELECT 1/0"],
    &["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "SELECT count(*) FROM canary"],
    &["SELECT setseed(0.5)"],
];

/// What another organization sees of the session it has.
const SIGHT: [&str; 7] = [
    "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name",
    "SELECT lastval()",
    "SELECT currval('ticket')",
    "FETCH 1 FROM left_cursor",
    "SELECT count(*) FROM pg_cursors",
    "SELECT current_setting('my.own', true), current_setting('transaction_isolation'), now() = statement_timestamp()",
    "SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('timezone')",
];

async fn sight(raw: &mut Raw) -> Vec<String> {
    let mut seen = Vec::new();
    for sql in SIGHT {
        seen.push(raw.query(sql).await);
    }
    // The unnamed statement, a named one and a portal of somebody else.
    for wire in [Wire::new().bind("", "", &[]), Wire::new().bind("", "left", &[]), Wire::new().execute("left", 0)] {
        seen.push(raw.converse(wire.sync(), 1).await);
    }
    // `my.own` is '' and not NULL where the connection has known it: no value of anybody's.
    seen.iter().map(|line| line.replace("D(∅,", "D(,")).collect()
}

#[tokio::test]
async fn nothing_that_a_session_left_is_seen_by_another_organization_on_its_server_connection() {
    let shard = Shard::shared();
    let expected = {
        let untouched = Proxy::before(shard).pool_size(1).start().await;
        sight(&mut untouched.raw("globex").await).await
    };
    assert!(expected[1].ends_with("E(55000) ZI"), "lastval is not defined: {expected:?}");
    for legacy in LEGACIES {
        let proxy = Proxy::before(shard).pool_size(1).start().await;
        let mut acme = proxy.raw("acme").await;
        for sql in legacy {
            let heard = acme.query(sql).await;
            assert!(!heard.contains("E(") || sql.contains("1/0"), "{sql}: {heard}");
        }
        let prepare = Wire::new().parse("left", "SELECT 'acme'").parse("", "SELECT 'acme'").bind("left", "left", &[]);
        acme.send(prepare.flush()).await;
        acme.message().await;
        drop(acme);
        let mut globex = proxy.raw("globex").await;
        assert_eq!(sight(&mut globex).await, expected, "after {legacy:?}");
        // And within the organization: nothing of the session, for another user.
        let mut colleague = Raw::log_in(proxy.address(), &proxy.token("acme", "bob", &["developer"])).await;
        let seen = sight(&mut colleague).await;
        assert_eq!(seen[1..], expected[1..], "a colleague after {legacy:?}");
    }
    let left =
        shard.admin().await.query_one("SELECT count(*) FROM ledger WHERE body = 'left'", &[]).await.expect("counts");
    assert_eq!(left.get::<_, i64>(0), 0, "what was not committed is gone");
}

#[tokio::test]
async fn a_seed_does_not_outlive_its_session() {
    let shard = Shard::shared();
    let proxy = Proxy::before(shard).pool_size(1).start().await;
    let dice = "SELECT random()::text, random()::text";
    let mut acme = proxy.raw("acme").await;
    let known = shard.admin().await;
    known.batch_execute("SELECT setseed(0.5)").await.expect("seeds");
    let rows = known.query_one(dice, &[]).await.expect("throws");
    let foreseen = format!("D({},{})", rows.get::<_, String>(0), rows.get::<_, String>(1));
    acme.query("SELECT setseed(0.5)").await;
    let mut globex = proxy.raw("globex").await;
    let thrown = globex.query(dice).await;
    assert!(thrown.contains("D(") && !thrown.contains(&foreseen), "{thrown}");
}

#[tokio::test]
async fn an_open_transaction_ends_with_its_client() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let mut acme = proxy.raw("acme").await;
    for sql in ["BEGIN", "INSERT INTO ledger (body) VALUES ('open')", "LOCK TABLE canary IN ACCESS SHARE MODE"] {
        acme.query(sql).await;
    }
    drop(acme);
    let admin = shard.admin().await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'partywall_app' AND xact_start IS NOT NULL";
    until("the transaction is gone", async || admin.query_one(sql, &[]).await.expect("looks").get::<_, i64>(0) == 0)
        .await;
    assert_eq!(proxy.raw("globex").await.query("SELECT count(*) FROM canary").await, "T D(100) C(SELECT 1) ZI");
}
