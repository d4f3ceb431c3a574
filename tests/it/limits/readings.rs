//! Numbers with units: the guard reads them as the server does, and what could be read in two ways lifts no limit.

use partywall::guard::milliseconds;

use super::Small;
use crate::support::{Raw, Shard, Wire, raw::brief};

/// Spellings that PostgreSQL rounds to zero, which is no limit at all.
const NOTHING: [&str; 8] = ["0.005min", "0.0083min", "0.00013h", "0.008h", "0.02d", "0.4ms", "499us", ".49"];

#[tokio::test]
async fn the_guard_reads_times_as_the_server_does() {
    let admin = Shard::shared().admin().await;
    let numbers = [
        "0", "1", "2", "7", "0.001", "0.005", "0.0083", "0.15", "0.5", "0.9", "1.5", "2.5", "1.0005", "12.34", ".7",
        "3.",
    ];
    let spaces = ["", " "];
    let units = ["", "us", "ms", "s", "min", "h", "d"];
    for number in numbers {
        for (space, unit) in spaces.iter().flat_map(|space| units.iter().map(move |unit| (space, unit))) {
            let text = format!("{number}{space}{unit}");
            let sql =
                format!("SET lock_timeout = '{text}'; SELECT setting FROM pg_settings WHERE name = 'lock_timeout'");
            let asked = admin.simple_query(&sql).await.expect("is taken");
            let read = asked.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).and_then(|text| text.parse::<u64>().ok()),
                _ => None,
            });
            assert_eq!(milliseconds(&text), read, "{text:?}");
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_number_lifts_a_limit() {
    let proxy = Small { timeout_s: 1, ..Small::default() }.proxy(2).await;
    let token = proxy.token("acme", "ada", &["developer"]);
    let limits = [("statement_timeout", "1s"), ("idle_in_transaction_session_timeout", "5min")];
    let mut raw = proxy.raw("acme").await;
    for (name, held) in limits {
        let shown = format!("D({held}) C(SHOW)");
        for text in NOTHING {
            for sql in [
                format!("SET {name} = '{text}'"),
                format!("SET SESSION {name} TO '{text}'"),
                format!("SELECT set_config('{name}', '{text}', false)"),
            ] {
                let answer = raw.query(&format!("{sql}; SHOW {name}")).await;
                assert!(answer.contains(&shown), "{sql}: {answer}");
                let answer =
                    raw.query(&format!("BEGIN; {}; SHOW {name}; ROLLBACK", sql.replace("SESSION", "LOCAL"))).await;
                assert!(answer.contains(&shown), "{sql}: {answer}");
                let wire =
                    Wire::new().parse("", &sql).bind("", "", &[]).execute("", 0).sync().query(&format!("SHOW {name}"));
                raw.send(wire).await;
                let answer = brief(&raw.until_readies(2).await);
                assert!(answer.contains(&shown), "{sql}: {answer}");
            }
            for parameter in [(name, text.to_owned()), ("options", format!("-c {name}={text}"))] {
                let more = [(parameter.0, parameter.1.as_str())];
                let mut raw = Raw::log_in_with(proxy.address(), &token, &more).await;
                assert!(raw.query(&format!("SHOW {name}")).await.contains(&shown), "{parameter:?}");
            }
        }
    }
    assert_eq!(
        raw.query("SET statement_timeout = '0.15s'; SHOW statement_timeout").await,
        "C(SET) T D(150ms) C(SHOW) ZI"
    );
}

#[tokio::test]
async fn a_batch_of_many_executes_ends_where_the_servers_own_timeout_does_not_end_it() {
    super::timeouts::deaf_function("deaf_in_batch", 1).await;
    let proxy = Small { timeout_s: 1, ..Small::default() }.proxy(2).await;
    let mut raw = proxy.raw("acme").await;
    let mut wire =
        Wire::new().parse("", "SELECT deaf_in_batch()").bind("", "", &[]).execute("", 0).parse("", "SELECT 1");
    for _ in 0..100 {
        wire = wire.bind("", "", &[]).execute("", 0);
    }
    raw.send(wire.sync()).await;
    assert_eq!(brief(&raw.until_ready().await), "1 2 E(57014) ZI");
    assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
}
