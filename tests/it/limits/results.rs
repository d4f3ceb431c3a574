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

/// All rows of it are more than the limit; nine tenths of the limit are one slice.
const SLICE: u32 = 900;

/// Sends `wire` until the answer to it is cut, and asserts that less than the limit and one slice came before; says how
/// many were answered whole.
async fn until_cut(raw: &mut Raw, wire: &Wire, ready: &str, what: &str) -> usize {
    let mut bytes = 0;
    for whole in 0..10 {
        raw.send(wire.clone()).await;
        let messages = raw.until_ready().await;
        bytes += result_bytes(&messages);
        assert!(bytes <= LIMIT_BYTES, "{what}: {bytes}");
        if messages.iter().any(|message| message.tag == b'E') {
            assert_cut(&messages, ready, what);
            return whole;
        }
    }
    panic!("{what}: slices pass without end");
}

async fn passes(raw: &mut Raw, wire: Wire, what: &str) {
    raw.send(wire).await;
    let messages = raw.until_ready().await;
    assert!(messages.iter().all(|message| message.tag != b'E'), "{what}: {}", crate::support::raw::brief(&messages));
    assert!(result_bytes(&messages) > LIMIT_BYTES / 2, "{what}");
}

#[tokio::test]
async fn the_slices_of_a_cursor_or_a_portal_are_one_result() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    let declare = format!("DECLARE c CURSOR FOR {TEN_TIMES}");
    let fetch = format!("FETCH {SLICE} FROM c");
    let bound = Wire::new().parse("p", TEN_TIMES).bind("c", "p", &[]).close(b'S', "p").sync();
    let bound_unnamed = Wire::new().parse("", TEN_TIMES).bind("", "", &[]).sync();
    let paths = [
        ("cursor", Wire::new().query(&declare), Wire::new().query(&fetch)),
        ("cursor, fetched by protocol", Wire::new().query(&declare), extended(&fetch)),
        (
            "cursor, fetched in a portal with a name",
            Wire::new().query(&declare),
            Wire::new().parse("", &fetch).bind("q", "", &[]).execute("q", 0).close(b'P', "q").sync(),
        ),
        ("cursor, executed", Wire::new().query(&declare), Wire::new().execute("c", SLICE).sync()),
        ("cursor among others", Wire::new().query(&declare), Wire::new().query(&format!("{fetch}; FETCH 1 FROM d"))),
        ("portal", bound.clone(), Wire::new().execute("c", SLICE).sync()),
        ("unnamed portal", bound_unnamed, Wire::new().execute("", SLICE).sync()),
        ("portal, fetched", bound, Wire::new().query(&fetch)),
    ];
    for (what, open, slice) in paths {
        for _ in 0..2 {
            raw.query("BEGIN; DECLARE d CURSOR FOR SELECT 1 FROM generate_series(1, 10)").await;
            raw.send(open.clone()).await;
            let opened = raw.until_ready().await;
            assert_eq!(opened.last().map(Message::brief).as_deref(), Some("ZT"), "{what}");
            assert_eq!(until_cut(&mut raw, &slice, "ZE", what).await, 1, "{what}");
            assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI");
        }
        works(&mut raw).await;
    }
}

#[tokio::test]
async fn a_cursor_with_hold_is_one_result_for_as_long_as_it_lives() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    for _ in 0..2 {
        let declare = format!("DECLARE c CURSOR WITH HOLD FOR {TEN_TIMES}");
        assert_eq!(raw.query(&declare).await, "C(DECLARE CURSOR) ZI");
        let fetch = Wire::new().query(&format!("FETCH {SLICE} FROM c"));
        assert_eq!(until_cut(&mut raw, &fetch, "ZI", "held").await, 1);
        works(&mut raw).await;
        assert_eq!(until_cut(&mut raw, &fetch, "ZI", "held, again").await, 0);
        let failed = Wire::new().parse("", "SELECT 1").bind("c", "", &[]).sync();
        raw.send(failed).await;
        assert_eq!(crate::support::raw::brief(&raw.until_ready().await), "1 E(42P03) ZI");
        assert_eq!(until_cut(&mut raw, &fetch, "ZI", "held, after a Bind that failed").await, 0);
        assert_eq!(raw.query("CLOSE c").await, "C(CLOSE CURSOR) ZI");
    }
    works(&mut raw).await;
}

#[tokio::test]
async fn another_cursor_portal_or_transaction_is_another_result() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    let fetch = |name: &str| Wire::new().query(&format!("FETCH {SLICE} FROM {name}"));
    raw.query("BEGIN").await;
    for round in 0..3 {
        for name in ["a", "b"] {
            raw.query(&format!("DECLARE {name} CURSOR FOR {TEN_TIMES}")).await;
        }
        passes(&mut raw, fetch("a"), "one cursor").await;
        passes(&mut raw, fetch("b"), "another").await;
        assert_eq!(raw.query("CLOSE a; CLOSE b").await, "C(CLOSE CURSOR) C(CLOSE CURSOR) ZT", "{round}");
        for portal in ["", "p"] {
            let bind = Wire::new().parse("", TEN_TIMES).bind(portal, "", &[]);
            passes(&mut raw, bind.execute(portal, SLICE).close(b'P', portal).sync(), "a portal").await;
        }
    }
    // More portals than are counted apart.
    for number in 0..70 {
        let name = format!("p{number}");
        let bind = Wire::new().parse("", "SELECT repeat('x', 1000) FROM generate_series(1, 100)").bind(&name, "", &[]);
        raw.send(bind.execute(&name, 50).execute(&name, 0).sync()).await;
        assert_eq!(raw.until_ready().await.last().map(Message::brief).as_deref(), Some("ZT"), "{number}");
    }
    assert_eq!(raw.query("COMMIT").await, "C(COMMIT) ZI");
}

#[tokio::test]
async fn the_statements_of_one_text_or_batch_are_one_result() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    let half = format!("{ROW} FROM generate_series(1, 600)");
    let mut batch = Wire::new().parse("h", &half);
    for _ in 0..4 {
        batch = batch.bind("", "h", &[]).execute("", 0);
    }
    let text = Wire::new().query(&format!("{half}; {half}; {half}; {half}"));
    for (what, wire) in [("text", text), ("batch", batch.sync())] {
        raw.send(wire).await;
        let messages = raw.until_ready().await;
        assert_cut(&messages, "ZI", what);
        assert!(result_bytes(&messages) > LIMIT_BYTES - 1100, "{what}: what fits comes");
        works(&mut raw).await;
    }
    // Each on its own is a result of its own, pipelined or not.
    raw.send(Wire::new().query(&half).query(&half).bytes(&extended(&half).0).bytes(&extended(&half).0)).await;
    for _ in 0..4 {
        let messages = raw.until_ready().await;
        assert!(messages.iter().all(|message| message.tag != b'E') && messages.len() >= 600);
    }
}

/// An error that was shortened is at most this long, whatever the server says.
const WORDS_BYTES: usize = 64 * 1024;

#[tokio::test]
async fn an_error_of_any_length_arrives_as_a_short_one() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    let sql = "SELECT repeat('\u{e4}', 15000000)::int";
    for (what, wire) in [("simple", Wire::new().query(sql)), ("extended", extended(sql))] {
        for (begin, ready) in [("SELECT 1", "ZI"), ("BEGIN", "ZE")] {
            raw.query(begin).await;
            raw.send(wire.clone()).await;
            let messages = raw.until_ready().await;
            let errors: Vec<&Message> = messages.iter().filter(|message| message.tag == b'E').collect();
            assert_eq!((errors.len(), errors[0].field(b'C').as_str()), (1, "22P02"), "{what}");
            assert!(errors[0].body.len() < WORDS_BYTES, "{what}: {}", errors[0].body.len());
            let words = errors[0].field(b'M');
            assert!(words.starts_with("invalid input syntax for type integer: \"\u{e4}\u{e4}"), "{what}");
            assert!(words.ends_with("... (shortened)") && !words.contains('\u{fffd}'), "{what}");
            assert_eq!(errors[0].field(b'S'), "ERROR", "{what}");
            assert!(!errors[0].field(b'R').is_empty(), "{what}: what stands behind the long field comes");
            assert_eq!(messages.last().map(Message::brief).as_deref(), Some(ready), "{what}");
            raw.query("ROLLBACK").await;
            works(&mut raw).await;
        }
    }
}

#[tokio::test]
async fn notices_count_with_the_rows() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    // Each one says that the query holds stop words only.
    let chatty = "SELECT to_tsquery('english', left('the', g + 3))::text FROM generate_series(1, 60000) g";
    let mixed = "SELECT repeat('x', 400), to_tsquery('english', left('the', g + 3)) FROM generate_series(1, 2500) g";
    let planned = format!("SELECT {}", vec!["to_tsquery('english', 'the')"; 1600].join(", "));
    let mut bound = Wire::new();
    for _ in 0..10 {
        bound = bound.parse("", &planned).bind("", "", &[]);
    }
    let planned = [planned.as_str(); 10].join("; ");
    let paths = [
        ("simple", Wire::new().query(chatty)),
        ("extended", extended(chatty)),
        ("with rows", Wire::new().query(mixed)),
        ("while it is planned", Wire::new().query(&planned)),
        ("while it is bound", bound.sync()),
    ];
    for (what, wire) in paths {
        for (begin, ready) in [("SELECT 1", "ZI"), ("BEGIN", "ZE")] {
            raw.query(begin).await;
            raw.send(wire.clone()).await;
            let messages = raw.until_ready().await;
            let counted = messages.iter().filter(|message| matches!(message.tag, b'D' | b'N'));
            let bytes: usize = counted.map(|message| message.body.len() + 5).sum();
            assert!(bytes <= LIMIT_BYTES, "{what}: {bytes}");
            assert_cut(&messages, ready, what);
            raw.query("ROLLBACK").await;
            works(&mut raw).await;
        }
    }
    raw.send(Wire::new().query(&chatty.replace("60000", "100"))).await;
    let messages = raw.until_ready().await;
    assert_eq!(messages.iter().filter(|message| message.tag == b'N').count(), 100, "what fits comes");
}

#[tokio::test]
async fn descriptions_of_one_batch_are_bounded() {
    let proxy = Small::default().proxy(1).await;
    let mut raw = proxy.raw("acme").await;
    let columns: Vec<String> =
        (0..1600).map(|number| format!("1 AS a_column_with_a_name_as_long_as_names_can_be_{number}")).collect();
    let mut wire = Wire::new().parse("wide", &format!("SELECT {}", columns.join(", ")));
    for _ in 0..300 {
        wire = wire.describe(b'S', "wide");
    }
    for (begin, ready) in [("SELECT 1", "ZI"), ("BEGIN", "ZE")] {
        raw.query(begin).await;
        raw.send(wire.clone().sync()).await;
        let messages = raw.until_ready().await;
        let bytes: usize = messages.iter().map(|message| message.body.len() + 5).sum();
        assert!(bytes < 17 << 20, "{bytes}");
        assert_cut(&messages, ready, "descriptions");
        raw.query("ROLLBACK").await;
        wire = wire.close(b'S', "wide");
        raw.send(Wire::new().close(b'S', "wide").sync()).await;
        raw.until_ready().await;
        works(&mut raw).await;
    }
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
