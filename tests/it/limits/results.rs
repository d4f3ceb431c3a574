//! The result limit: rows and COPY data are counted before they are sent; what crosses is never seen, and the session lives.

use super::Small;
use crate::support::{Message, Proxy, Raw, Wire};

const LIMIT_BYTES: usize = 1 << 20;
const ROW: &str = "SELECT repeat('x', 1000)";
/// Ten times the limit.
const TEN_TIMES: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 10500)";
/// More than sockets hold, so that the server cannot have ended when the limit is met.
const FORTY_TIMES: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 42000)";

fn result_bytes(messages: &[Message]) -> usize {
    messages.iter().filter(|message| matches!(message.tag, b'D' | b'd')).map(|message| message.body.len() + 5).sum()
}

/// The conversation ended with one 54000 after at most the limit, and `ready`.
fn assert_cut(messages: &[Message], ready: &str, what: &str) {
    let errors: Vec<&Message> = messages.iter().filter(|message| message.tag == b'E').collect();
    assert_eq!(errors.len(), 1, "{what}");
    assert_eq!(errors[0].field(b'C'), "54000", "{what}");
    assert!(errors[0].field(b'M').contains("larger than 1 MB, which is what tier \"small\""), "{what}");
    assert!(errors[0].field(b'H').contains("LIMIT"), "{what}");
    let bytes = result_bytes(messages);
    assert!(bytes <= LIMIT_BYTES, "{what}: {bytes}");
    assert_eq!(messages.last().map(Message::brief).as_deref(), Some(ready), "{what}");
    let after_error = messages.iter().skip_while(|message| message.tag != b'E').count();
    assert_eq!(after_error, 2, "{what}: between the error and ReadyForQuery comes nothing");
}

async fn works(raw: &mut Raw) {
    assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
}

fn extended(sql: &str) -> Wire {
    Wire::new().parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0).sync()
}

#[tokio::test]
async fn ten_times_the_limit_ends_with_an_error_after_at_most_the_limit_on_every_path() {
    let proxy = Small::default().proxy(2).await;
    let mut raw = proxy.raw("acme").await;
    let copy = format!("COPY ({TEN_TIMES}) TO STDOUT");
    let paths = [
        ("simple", Wire::new().query(TEN_TIMES)),
        ("extended", extended(TEN_TIMES)),
        ("named", Wire::new().parse("s", TEN_TIMES).bind("p", "s", &[]).execute("p", 0).sync()),
        ("copy", Wire::new().query(&copy)),
        ("extended copy", extended(&copy)),
    ];
    for (what, wire) in paths {
        raw.send(wire).await;
        let messages = raw.until_ready().await;
        assert_cut(&messages, "ZI", what);
        assert!(result_bytes(&messages) > LIMIT_BYTES - 1100, "{what}: what fits comes");
        works(&mut raw).await;
    }
}

#[tokio::test]
async fn inside_a_transaction_the_transaction_fails_with_it() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    for wire in [Wire::new().query(TEN_TIMES), extended(TEN_TIMES), Wire::new().query("FETCH ALL FROM c")] {
        assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
        let declared = raw.query(&format!("DECLARE c CURSOR FOR {TEN_TIMES}")).await;
        assert_eq!(declared, "C(DECLARE CURSOR) ZT");
        raw.send(wire).await;
        assert_cut(&raw.until_ready().await, "ZE", "in a transaction");
        assert_eq!(raw.query("SELECT 1").await, "E(25P02) ZE");
        assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI");
        works(&mut raw).await;
    }
}

#[tokio::test]
async fn the_limit_is_of_each_statement_and_not_of_what_a_cursor_gives_in_all() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    raw.query("BEGIN").await;
    raw.query(&format!("DECLARE c CURSOR FOR {TEN_TIMES}")).await;
    for _ in 0..10 {
        raw.send(Wire::new().query("FETCH 900 FROM c")).await;
        let messages = raw.until_ready().await;
        assert_eq!(messages.last().map(Message::brief).as_deref(), Some("ZT"));
    }
    assert_eq!(raw.query("COMMIT").await, "C(COMMIT) ZI");
    let half = format!("{ROW} FROM generate_series(1, 600)");
    raw.send(Wire::new().query(&format!("{half}; {half}; {half}"))).await;
    let messages = raw.until_ready().await;
    assert!(result_bytes(&messages) > LIMIT_BYTES && messages.iter().all(|message| message.tag != b'E'));
}

#[tokio::test]
async fn a_row_exactly_at_the_limit_passes_and_one_byte_more_does_not() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    // A DataRow of one column: type, length, count, length of the value.
    let fits = LIMIT_BYTES - 11;
    raw.send(Wire::new().query(&format!("SELECT repeat('x', {fits})"))).await;
    let messages = raw.until_ready().await;
    assert_eq!(result_bytes(&messages), LIMIT_BYTES);
    assert_eq!(messages.last().map(Message::brief).as_deref(), Some("ZI"));
    for bytes in [fits + 1, 30_000_000] {
        for wire in [
            Wire::new().query(&format!("SELECT repeat('x', {bytes})")),
            extended(&format!("SELECT repeat('x', {bytes})")),
        ] {
            raw.send(wire).await;
            let messages = raw.until_ready().await;
            assert_cut(&messages, "ZI", "one row");
            assert_eq!(result_bytes(&messages), 0, "no part of a row that does not fit");
            works(&mut raw).await;
        }
    }
}

#[tokio::test]
async fn what_is_pipelined_behind_a_cut_is_answered_as_behind_any_error() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    raw.send(Wire::new().query(FORTY_TIMES).query("SELECT 2").bytes(&extended("SELECT 3").0)).await;
    assert_cut(&raw.until_ready().await, "ZI", "the first");
    assert_eq!(crate::support::raw::brief(&raw.until_ready().await), "T D(2) C(SELECT 1) ZI");
    assert_eq!(crate::support::raw::brief(&raw.until_ready().await), "1 2 T D(3) C(SELECT 1) ZI");
    // In one batch, what follows does not run.
    let insert = "INSERT INTO ledger (body) VALUES ('behind the cut')";
    let batch = Wire::new().parse("", FORTY_TIMES).bind("", "", &[]).execute("", 0);
    let batch = batch.parse("i", insert).bind("", "i", &[]).execute("", 0).sync();
    raw.send(batch).await;
    assert_cut(&raw.until_ready().await, "ZI", "the batch");
    let count = raw.query("SELECT count(*) FROM ledger WHERE body = 'behind the cut'").await;
    assert_eq!(count, "T D(0) C(SELECT 1) ZI");
    raw.send(Wire::new().query(&format!("{FORTY_TIMES}; {insert}"))).await;
    assert_cut(&raw.until_ready().await, "ZI", "one string");
    let count = raw.query("SELECT count(*) FROM ledger WHERE body = 'behind the cut'").await;
    assert_eq!(count, "T D(0) C(SELECT 1) ZI");
}

#[tokio::test]
async fn sessions_that_are_cut_at_the_same_time_do_not_disturb_each_other() {
    let proxy = std::sync::Arc::new(Small::default().proxy(4).await);
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..8 {
        let proxy: std::sync::Arc<Proxy> = std::sync::Arc::clone(&proxy);
        sessions.spawn(async move {
            let mut raw = proxy.raw(if number % 2 == 0 { "acme" } else { "globex" }).await;
            for round in 0..5 {
                raw.send(Wire::new().query(TEN_TIMES)).await;
                let messages = raw.until_ready().await;
                if number % 2 == 0 {
                    assert_cut(&messages, "ZI", "at once");
                } else {
                    // Nobody else's cancel has come here.
                    assert!(messages.iter().all(|message| message.tag != b'E') && messages.len() > 10_500);
                }
                let mark = number * 100 + round;
                assert_eq!(raw.query(&format!("SELECT {mark}")).await, format!("T D({mark}) C(SELECT 1) ZI"));
            }
        });
    }
    while let Some(session) = sessions.join_next().await {
        session.expect("a session that went well");
    }
}
