//! The tier's time: held by the server and, where that is not enough, by the proxy; nothing that a client says lengthens it.

use super::{Gate, Small};
use crate::support::{Message, Proxy, Raw, Shard, Wire, raw::brief, until};

/// A tier of one second.
async fn one_second(pool_size: usize, concurrent: u32) -> Proxy {
    Small { timeout_s: 1, concurrent, ..Small::default() }.proxy(pool_size).await
}

/// A function that catches so many cancels and goes on, as a server whose own time-out does not work.
pub(super) async fn deaf_function(name: &str, cancels: u32) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION {name}() RETURNS int LANGUAGE plpgsql AS $$
         BEGIN
           FOR i IN 1..{cancels} LOOP
             BEGIN PERFORM pg_sleep(15); EXCEPTION WHEN query_canceled THEN NULL; END;
           END LOOP;
           PERFORM pg_sleep(15);
           RETURN 1;
         END $$"
    );
    Shard::shared().admin().await.batch_execute(&sql).await.expect("makes a function");
}

#[tokio::test]
async fn a_statement_beyond_the_tiers_time_ends_with_57014_and_the_session_goes_on() {
    let proxy = one_second(2, 10).await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.query("SELECT pg_sleep(30)").await, "T E(57014) ZI");
    let extended = Wire::new().parse("", "SELECT pg_sleep(30)").bind("", "", &[]).execute("", 0).sync();
    assert_eq!(raw.converse(extended, 1).await, "1 2 E(57014) ZI");
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
    assert_eq!(raw.query("SET LOCAL statement_timeout = 200").await, "C(SET) ZT");
    assert_eq!(raw.query("SELECT pg_sleep(0.8)").await, "T E(57014) ZE", "its own time is shorter");
    assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI");
    assert_eq!(raw.query("SELECT length(pg_sleep(0.4)::text)").await, "T D(0) C(SELECT 1) ZI");
    assert_eq!(raw.query("SET statement_timeout = 200").await, "C(SET) ZI");
    assert_eq!(raw.query("SELECT pg_sleep(0.8)").await, "T E(57014) ZI", "its own time is shorter");
    assert_eq!(raw.query("SET statement_timeout = '1s'").await, "C(SET) ZI");
    assert_eq!(raw.query("SELECT pg_sleep(30)").await, "T E(57014) ZI");
}

#[tokio::test]
async fn nothing_that_a_client_says_lengthens_its_time() {
    let proxy = one_second(2, 10).await;
    let mut raw = proxy.raw("acme").await;
    for sql in [
        "SET statement_timeout = 0",
        "SET statement_timeout = '1h'",
        "SET SESSION statement_timeout = 1001",
        "SET LOCAL statement_timeout = 0",
        "SET \"Statement_Timeout\" TO 0",
        "SET statement_timeout TO DEFAULT",
        "RESET statement_timeout",
        "RESET ALL",
        "DISCARD ALL",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT set_config('statement_' || 'timeout', '0', true)",
        "SELECT pg_catalog.set_config('statement_timeout', (SELECT '0'), false)",
        "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'statement_timeout'",
        "UPDATE pg_settings SET setting = '0' WHERE name = 'statement_timeout'",
        "ALTER ROLE CURRENT_USER SET statement_timeout = 0",
        "DO $$ BEGIN SET statement_timeout = 0; END $$",
    ] {
        // To ask for the default, for a clean session, or plainly for more, is to ask for the tier's own time.
        let is_taken = !["||", "(SELECT", "UPDATE", "ALTER", "DO "].iter().any(|word| sql.contains(word));
        let held = |answer: &str| is_taken != answer.contains("E(");
        let answer = raw.query(sql).await;
        assert!(held(&answer), "{sql}: {answer}");
        assert_eq!(raw.query("SHOW statement_timeout").await, "T D(1s) C(SHOW) ZI", "{sql}");
        let named = Wire::new().parse("s", sql).sync().bind("", "s", &[]).execute("", 0).sync().close(b'S', "s").sync();
        let answer = raw.converse(named, 3).await;
        assert!(held(&answer), "{sql}: {answer}");
        let extended = Wire::new().parse("", sql).bind("", "", &[]).execute("", 0).parse("", "SHOW statement_timeout");
        let answer = raw.converse(extended.bind("", "", &[]).execute("", 0).sync(), 1).await;
        assert!(held(&answer) && (!is_taken || answer.contains("D(1s)")), "{sql}: {answer}");
        if is_taken && !sql.contains("DISCARD") {
            let answer = raw.query(&format!("BEGIN; {sql}; SHOW statement_timeout; ROLLBACK")).await;
            assert!(answer.contains("D(1s) C(SHOW) C(ROLLBACK)"), "{sql}: {answer}");
            assert_eq!(raw.query("SHOW statement_timeout").await, "T D(1s) C(SHOW) ZI", "{sql}");
        }
    }
    assert_eq!(raw.query("SELECT pg_sleep(30)").await, "T E(57014) ZI");
    assert_eq!(raw.query("SET statement_timeout = 0; SELECT pg_sleep(30)").await, "C(SET) T E(57014) ZI");
    let token = proxy.token("acme", "ada", &["developer"]);
    for parameter in [("statement_timeout", "0"), ("statement_timeout", "1h"), ("options", "-c statement_timeout=0")] {
        let mut raw = Raw::log_in_with(proxy.address(), &token, &[parameter]).await;
        for sql in ["SHOW statement_timeout", "RESET statement_timeout; SHOW statement_timeout"] {
            assert!(raw.query(sql).await.contains("T D(1s) C(SHOW) ZI"), "{parameter:?}");
        }
    }
    let mut raw = Raw::log_in_with(proxy.address(), &token, &[("options", "-c statement_timeout=300")]).await;
    assert_eq!(raw.query("SHOW statement_timeout").await, "T D(300ms) C(SHOW) ZI", "lower may be asked for");
}

#[tokio::test]
async fn where_the_servers_own_timeout_does_not_end_a_statement_the_proxy_does() {
    deaf_function("deaf_once", 1).await;
    let proxy = one_second(3, 10).await;
    let (mut simple, mut piped) = (proxy.raw("acme").await, proxy.raw("acme").await);
    let mut batch = proxy.raw("acme").await;
    // Behind another statement it has its deadline too.
    piped.send(Wire::new().query("SELECT 1").query("SELECT deaf_once()")).await;
    let bind = Wire::new().parse("", "SELECT 1").bind("", "", &[]).execute("", 0);
    batch.send(bind.parse("", "SELECT deaf_once()").bind("", "", &[]).execute("", 0).sync()).await;
    assert_eq!(simple.query("SELECT deaf_once()").await, "T E(57014) ZI");
    assert_eq!(brief(&piped.until_readies(2).await), "T D(1) C(SELECT 1) ZI T E(57014) ZI");
    assert_eq!(brief(&batch.until_ready().await), "1 2 D(1) C(SELECT 1) 1 2 E(57014) ZI");
    for raw in [&mut simple, &mut piped, &mut batch] {
        assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    }
}

#[tokio::test]
async fn a_statement_that_no_cancel_ends_ends_with_its_session() {
    deaf_function("deaf", 2).await;
    let proxy = one_second(3, 1).await;
    let mut raw = proxy.raw("acme").await;
    raw.send(Wire::new().query("SELECT deaf()")).await;
    let messages = raw.until_closed().await;
    assert_eq!(brief(&messages), "E(57014)");
    let error = messages.last().expect("an error");
    assert_eq!(error.field(b'S'), "FATAL");
    assert!(error.field(b'M').contains("tier \"small\""), "{}", error.field(b'M'));
    assert_eq!(proxy.raw("acme").await.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI", "its permit is back");
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_statement_when_its_time_is_over() {
    let small = Small { timeout_s: 1, concurrent: 1, ..Small::default() };
    let tiers = small.tiers().replace("max_result_size_mb = 1\n", "max_result_size_mb = \"unlimited\"\n");
    let plan = Proxy::before(Shard::shared()).tiers(&tiers).pool_size(2);
    let proxy = plan.sections("[organizations.acme]\ntier = \"small\"").start().await;
    let mut stalled = proxy.raw("acme").await;
    stalled.send(Wire::new().query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")).await;
    let mut other = proxy.raw("acme").await;
    assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI", "the stalled one's permit is back");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1000000)' AND pid <> pg_backend_pid()";
    let admin = Shard::shared().admin().await;
    until("the server has ended it", async || {
        admin.query_one(running, &[]).await.expect("looks").get::<_, i64>(0) == 0
    })
    .await;
    let last = stalled.until_closed().await;
    assert!(last.iter().all(|message| message.tag != b'C'), "it never ended well");
}

#[tokio::test]
async fn a_batch_may_take_longer_in_all_than_each_of_its_statements() {
    let proxy = one_second(1, 10).await;
    let mut raw = proxy.raw("acme").await;
    let mut wire = Wire::new();
    for _ in 0..5 {
        wire = wire.parse("", "SELECT 1 FROM pg_sleep(0.6)").bind("", "", &[]).execute("", 0);
    }
    let answer = raw.converse(wire.sync(), 1).await;
    assert_eq!(answer, format!("{}ZI", "1 2 D(1) C(SELECT 1) ".repeat(5)));
}

#[tokio::test]
async fn an_open_batch_in_which_nothing_runs_is_not_overdue() {
    let proxy = one_second(3, 10).await;
    let mut raw = proxy.raw("acme").await;
    raw.send(Wire::new().parse("", "SELECT 1").bind("", "", &[]).execute("", 0).flush()).await;
    let begun = raw.until_tag(b'C').await;
    assert_eq!(begun.last().map(|message| message.tag), Some(b'C'));
    // Long enough for the deadline of the batch to pass several times: another session's statements measure it.
    let mut other = proxy.raw("acme").await;
    for _ in 0..4 {
        assert_eq!(other.query("SELECT 1 FROM pg_sleep(0.9)").await, "T D(1) C(SELECT 1) ZI");
    }
    for _ in 0..6 {
        assert_eq!(other.query("SELECT 1 FROM pg_sleep(0.9)").await, "T D(1) C(SELECT 1) ZI");
    }
    raw.send(Wire::new().sync()).await;
    assert_eq!(raw.until_ready().await.last().map(Message::brief).as_deref(), Some("ZI"));
}

#[tokio::test]
async fn waiting_in_line_does_not_count_as_running() {
    let proxy = Small { timeout_s: 2, concurrent: 1, ..Small::default() }.proxy(2).await;
    let gate = Gate::close().await;
    let mut running = proxy.raw("acme").await;
    running.send(Wire::new().query(&gate.sql())).await;
    gate.until_standing(1).await;
    let mut waiting = proxy.raw("acme").await;
    waiting.send(Wire::new().query("SELECT 1 FROM pg_sleep(1.8)")).await;
    // The one before it is ended by its time; then this one has all of its own.
    assert_eq!(brief(&running.until_ready().await), "E(57014) ZI");
    assert_eq!(brief(&waiting.until_ready().await), "T D(1) C(SELECT 1) ZI");
    gate.open().await;
}
