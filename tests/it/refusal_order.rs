//! A refusal of the proxy's own never overtakes what the server says first: in a failed transaction that is 25P02, whatever
//! the statement is, but for those that leave it and for texts that do not parse.

use crate::support::{Proxy, Raw, Shard, Wire, raw::brief};

/// Statements that are refused here, each for another reason, with what is heard outside of a failed transaction.
const REFUSED: [(&str, &str); 9] = [
    ("LISTEN news", "42501"),
    ("SELECT pg_read_file('/etc/passwd')", "42501"),
    ("COPY canary TO PROGRAM 'cat'", "42501"),
    ("SET role TO postgres", "42501"),
    ("SET statement_timeout = '1 fortnight'", "42501"),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "53400"),
    ("CREATE TEMP TABLE t (v int)", "53400"),
    ("PREPARE s AS SELECT 1", "53400"),
    ("EXECUTE partywall_1", "26000"),
];

/// A proxy where one session, which is given back, keeps the only server connection that may be kept.
async fn without_pins() -> (Proxy, Raw) {
    let proxy = Proxy::before(Shard::shared()).pool_size(3).option("listen", "threads = 1").start().await;
    let mut pinned = proxy.raw("acme").await;
    assert_eq!(pinned.query("CREATE TEMP TABLE kept (v int)").await, "C(CREATE TABLE) ZI");
    (proxy, pinned)
}

fn extended(sql: &str) -> Wire {
    behind(Wire::new(), sql)
}

fn behind(wire: Wire, sql: &str) -> Wire {
    wire.parse("", sql).bind("", "", &[]).execute("", 0).sync()
}

#[tokio::test]
async fn in_a_failed_transaction_the_server_speaks_first() {
    let (proxy, _pinned) = without_pins().await;
    let mut raw = proxy.raw("acme").await;
    for (sql, state) in REFUSED {
        let heard = format!("E({state})");
        assert_eq!(
            raw.query(&format!("BEGIN;{sql};ROLLBACK")).await,
            format!("{heard} ZI"),
            "{sql}: nothing of it ran"
        );
        assert_eq!(raw.query("BEGIN; SELECT 1/0").await, "C(BEGIN) E(22012) ZE", "{sql}");
        assert_eq!(raw.query(sql).await, "E(25P02) ZE", "{sql}");
        assert_eq!(raw.query(&format!("SELECT 1; {sql}")).await, "E(25P02) ZE", "{sql}");
        assert_eq!(raw.converse(extended(sql), 1).await, "E(25P02) ZE", "{sql}");
        assert_eq!(raw.query(&format!("/* out */ ; ROLLBACK; {sql}")).await, format!("{heard} ZE"), "{sql}");
        assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI", "{sql}");
        // In a transaction that has not failed it is refused, and the transaction fails with it.
        assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT", "{sql}");
        assert_eq!(raw.query(sql).await, format!("{heard} ZE"), "{sql}");
        assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI", "{sql}");
        assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT", "{sql}");
        let answer = raw.converse(extended(sql), 1).await;
        assert!(answer.ends_with(&format!("{heard} ZE")), "{sql}: {answer}");
        assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI", "{sql}");
    }
}

#[tokio::test]
async fn where_the_transaction_fails_only_in_the_answers_the_server_speaks_first_too() {
    let (proxy, _pinned) = without_pins().await;
    let mut raw = proxy.raw("acme").await;
    for (sql, state) in REFUSED {
        // Nobody knows yet what becomes of the statement before.
        let wire = Wire::new().query("BEGIN").query("SELECT 1/0").query(sql).query("ROLLBACK").query(sql);
        raw.send(wire).await;
        let answer = brief(&raw.until_readies(5).await);
        assert_eq!(answer, format!("C(BEGIN) ZT E(22012) ZE E(25P02) ZE C(ROLLBACK) ZI E({state}) ZI"), "{sql}");
        let wire = ["BEGIN", "SELECT 1/0", sql, "ROLLBACK"].into_iter().fold(Wire::new(), behind);
        raw.send(wire).await;
        let answer = brief(&raw.until_readies(4).await);
        assert_eq!(answer, "1 2 C(BEGIN) ZT 1 E(22012) ZE E(25P02) ZE 1 2 C(ROLLBACK) ZI", "{sql}");
    }
}

#[tokio::test]
async fn what_the_server_says_before_it_looks_at_the_transaction_is_said_here_too() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.query("BEGIN; SELECT 1/0").await, "C(BEGIN) E(22012) ZE");
    assert_eq!(raw.query("SELEC 1").await, "E(42601) ZE");
    assert_eq!(raw.converse(Wire::new().parse("", "SELEC 1").sync(), 1).await, "E(42601) ZE");
    assert_eq!(raw.converse(Wire::new().bind("", "nobody", &[]).sync(), 1).await, "E(26000) ZE");
    assert_eq!(raw.converse(Wire::new().describe(b'S', "nobody").sync(), 1).await, "E(26000) ZE");
    assert_eq!(raw.query("DISCARD ALL").await, "E(25P02) ZE");
    assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI");
    assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
}
