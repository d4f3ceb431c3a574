//! How long a transaction may last and a client keep one open without a word: the tier says it, server and proxy hold it.

use super::Small;
use crate::support::{Proxy, Raw, Shard, Wire, raw::brief, soon, until};

const TWO_SECONDS: &str = "max_transaction_s = 2\nidle_transaction_s = 600\n";
const ONE_IDLE: &str = "max_transaction_s = 600\nidle_transaction_s = 1\n";

async fn proxy(more: &'static str) -> Proxy {
    Small { more, ..Small::default() }.proxy(3).await
}

/// Runs short statements until the connection ends; the last of what it heard, and the fatal words.
async fn goes_on(mut raw: Raw, wire: impl Fn() -> Wire) -> (String, String) {
    let mut last = Vec::new();
    raw.send(wire()).await;
    while let Some(message) = raw.message().await {
        if message.tag == b'C' {
            last.clear();
            raw.send(wire()).await;
        }
        last.push(message);
    }
    let words = last.last().map(|message| message.field(b'S')).unwrap_or_default();
    (brief(&last), words)
}

#[tokio::test]
async fn a_transaction_of_short_statements_ends_with_its_tiers_time() {
    let proxy = proxy(TWO_SECONDS).await;
    let (mut by_query, by_protocol) = (proxy.raw("acme").await, proxy.raw("acme").await);
    assert_eq!(
        by_query.query("BEGIN; INSERT INTO ledger (body) VALUES ('too long')").await,
        "C(BEGIN) C(INSERT 0 1) ZT"
    );
    let sql = "SELECT 1 FROM pg_sleep(0.05)";
    // Without a Sync all of it is one transaction, which nobody has begun by name.
    let batch = || Wire::new().parse("", sql).bind("", "", &[]).execute("", 0).flush();
    let both = async { tokio::join!(goes_on(by_query, || Wire::new().query(sql)), goes_on(by_protocol, batch)) };
    for (last, severity) in <[_; 2]>::from(soon("they end", both).await) {
        assert!(last.ends_with("E(25P04)"), "{last}");
        assert_eq!(severity, "FATAL");
    }
    let mut raw = proxy.raw("acme").await;
    assert_eq!(
        raw.query("SELECT 1 FROM ledger WHERE body = 'too long'").await,
        "T C(SELECT 0) ZI",
        "it is rolled back"
    );
}

#[tokio::test]
async fn statements_of_their_own_transactions_may_go_on_for_longer_than_one_may_last() {
    let proxy = proxy(TWO_SECONDS).await;
    let mut raw = proxy.raw("acme").await;
    let statement = || Wire::new().query("SELECT 1 FROM pg_sleep(0.5)");
    raw.send(statement().query("SELECT 1")).await;
    for _ in 0..9 {
        raw.send(statement()).await;
        assert_eq!(raw.until_ready().await.last().map(|message| message.brief()).as_deref(), Some("ZI"));
    }
}

#[tokio::test]
async fn a_client_that_keeps_a_transaction_open_without_a_word_loses_it() {
    let proxy = proxy(ONE_IDLE).await;
    let (mut idle, mut in_batch) = (proxy.raw("acme").await, proxy.raw("acme").await);
    assert_eq!(idle.query("BEGIN").await, "C(BEGIN) ZT");
    // The server does not count the time in the middle of a batch: this one is the proxy's own.
    in_batch.send(Wire::new().parse("", "SELECT 1").bind("", "", &[]).execute("", 0).flush()).await;
    let messages = idle.until_closed().await;
    assert_eq!(brief(&messages), "E(25P03)");
    assert_eq!(messages[0].field(b'S'), "FATAL");
    assert_eq!(brief(&in_batch.until_closed().await), "1 2 D(1) C(SELECT 1) E(25P03)");
    let mut works = proxy.raw("acme").await;
    assert_eq!(works.query("BEGIN").await, "C(BEGIN) ZT");
    assert_eq!(
        works.query("SELECT 1 FROM pg_sleep(3)").await,
        "T D(1) C(SELECT 1) ZT",
        "a statement at work is no silence"
    );
}

#[tokio::test]
async fn a_reload_gives_sessions_that_are_there_the_new_times() {
    let proxy = proxy("max_transaction_s = 600\nidle_transaction_s = 300\n").await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.query("SHOW idle_in_transaction_session_timeout").await, "T D(5min) C(SHOW) ZI");
    proxy.files().change(
        "tiers.toml",
        "max_transaction_s = 600\nidle_transaction_s = 300",
        "max_transaction_s = 1\nidle_transaction_s = 77",
    );
    until("the session is told", async || {
        raw.query("SHOW idle_in_transaction_session_timeout").await.contains("D(77s)")
    })
    .await;
    assert_eq!(
        raw.query("SET idle_in_transaction_session_timeout = 0; SHOW idle_in_transaction_session_timeout").await,
        "C(SET) T D(77s) C(SHOW) ZI"
    );
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
    let (last, _) = soon("it ends", goes_on(raw, || Wire::new().query("SELECT 1 FROM pg_sleep(0.05)"))).await;
    assert!(last.ends_with("E(25P04)"), "{last}");
}

#[tokio::test]
async fn a_server_that_has_a_transaction_timeout_is_told_it() {
    let Some(binaries) = crate::support::newest_postgres() else { return };
    let options = partywall::provision::ClusterOptions { binaries: Some(binaries), ..Default::default() };
    let shard = Shard::start_with(&options);
    let small = Small { more: TWO_SECONDS, ..Small::default() };
    let plan = Proxy::before(&shard).tiers(&small.tiers());
    let proxy = plan.sections("[organizations.acme]\ntier = \"small\"").start().await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.query("SHOW transaction_timeout").await, "T D(2s) C(SHOW) ZI");
    assert_eq!(raw.query("SET transaction_timeout = 0; SHOW transaction_timeout").await, "C(SET) T D(2s) C(SHOW) ZI");
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
    let (last, severity) = soon("it ends", goes_on(raw, || Wire::new().query("SELECT 1 FROM pg_sleep(0.05)"))).await;
    assert!(last.ends_with("E(25P04)") && severity == "FATAL", "{last}");
}
