//! Pipelines, portals and COPY as libpq and others speak them: what a client hears through the proxy is what it hears on
//! a connection of its own, message by message.

use crate::model::shard;
use crate::support::{Message, Proxy, Raw, Shard, Wire, soon};

/// Two connections that are sent the same: one through the proxy, one past it.
struct Pair {
    _proxy: Proxy,
    through: Raw,
    direct: Raw,
}

impl Pair {
    async fn new() -> Self {
        let proxy = Proxy::before(shard()).pool_size(1).start().await;
        let mut through = proxy.raw("acme").await;
        let mut direct = Raw::dial(([127, 0, 0, 1], shard().cluster.port()).into()).await;
        let own = [("user", Shard::USER), ("database", crate::model::DIRECT)];
        direct.send(Wire::startup(&[&own[..], &[("options", "-c app.current_org_id=acme")]].concat())).await;
        direct.message().await;
        direct.send(Wire::new().password(&shard().password)).await;
        direct.until_ready().await;
        let table = "CREATE TEMP TABLE pipe (k int PRIMARY KEY, note text)";
        for raw in [&mut through, &mut direct] {
            assert_eq!(raw.query(table).await, "C(CREATE TABLE) ZI");
        }
        Self { _proxy: proxy, through, direct }
    }

    /// Sends the same to both, and returns what both have said up to that many ReadyForQuery, in short.
    async fn says(&mut self, wire: Wire, readies: usize) -> String {
        let is_ready = |message: &&Message| message.tag == b'Z';
        self.says_until(wire, |messages| messages.iter().filter(is_ready).count() == readies).await
    }

    /// As [`Self::says`], up to a message of that type.
    async fn says_up_to(&mut self, wire: Wire, tag: u8) -> String {
        self.says_until(wire, move |messages| messages.last().is_some_and(|message| message.tag == tag)).await
    }

    async fn says_until(&mut self, wire: Wire, end: impl Fn(&[Message]) -> bool) -> String {
        let mut both = Vec::new();
        for raw in [&mut self.through, &mut self.direct] {
            raw.send(wire.clone()).await;
            let mut messages = Vec::new();
            while !end(&messages) {
                match soon("an answer", raw.message()).await {
                    Some(message) => messages.push(message),
                    None => break,
                }
            }
            messages.retain(|message| message.tag != b'S');
            both.push(messages);
        }
        let shown: Vec<_> = both.iter().map(|messages| crate::support::raw::brief(messages)).collect();
        assert_eq!(shown[0], shown[1], "proxy, then direct");
        for (one, other) in both[0].iter().zip(&both[1]) {
            match one.tag {
                // Tables and schemas have numbers of their own in each database.
                b'T' => {}
                // Where in PostgreSQL's sources an error comes from is left out.
                b'E' => b"SVCMDHPctdn".iter().for_each(|&field| assert_eq!(one.field(field), other.field(field))),
                _ => assert_eq!(one, other, "byte for byte"),
            }
        }
        shown[0].clone()
    }
}

fn insert(wire: Wire, k: &str) -> Wire {
    wire.bind("", "ins", &[k, "x"]).execute("", 0)
}

const INSERT: &str = "INSERT INTO pipe VALUES ($1, $2)";

#[tokio::test]
async fn pipelined_inserts_are_all_answered() {
    let mut pair = Pair::new().await;
    let mut wire = Wire::new().query("BEGIN").parse("ins", INSERT).sync();
    for k in 0..500 {
        wire = insert(wire, &k.to_string());
        if k % 7 == 0 {
            wire = wire.sync();
        }
    }
    let wire = wire.sync().query("COMMIT").query("SELECT count(*), sum(k) FROM pipe");
    let said = pair.says(wire, 2 + 72 + 1 + 2).await;
    assert!(said.ends_with("T D(500,124750) C(SELECT 1) ZI"), "{said}");
}

#[tokio::test]
async fn an_aborted_pipeline_skips_to_its_sync_and_the_next_one_runs() {
    let mut pair = Pair::new().await;
    let mut wire = Wire::new().parse("ins", INSERT).sync();
    wire = insert(insert(insert(wire, "1"), "1"), "2").sync();
    wire = insert(wire, "3").sync();
    wire = wire.parse("", "SELECT 1/0").bind("", "", &[]).execute("", 0).parse("later", "SELECT 1").sync();
    let said = pair.says(wire.query("SELECT array_agg(k) FROM pipe"), 5).await;
    assert_eq!(said, "1 ZI 2 C(INSERT 0 1) 2 E(23505) ZI 2 C(INSERT 0 1) ZI 1 E(22012) ZI T D({3}) C(SELECT 1) ZI");
    assert_eq!(pair.says(Wire::new().describe(b'S', "later").sync(), 1).await, "E(26000) ZI");
}

#[tokio::test]
async fn answers_come_at_a_flush_without_any_sync() {
    let mut pair = Pair::new().await;
    let wire = Wire::new().parse("one", "SELECT 1").describe(b'S', "one").flush();
    assert_eq!(pair.says_up_to(wire, b'T').await, "1 t T");
    let wire = Wire::new().bind("", "one", &[]).execute("", 0).flush();
    assert_eq!(pair.says_up_to(wire, b'C').await, "2 D(1) C(SELECT 1)");
    let wire = Wire::new().close(b'S', "one").flush();
    assert_eq!(pair.says_up_to(wire, b'3').await, "3");
    assert_eq!(pair.says(Wire::new().sync(), 1).await, "ZI");
}

#[tokio::test]
async fn a_statement_about_the_session_in_the_middle_of_a_pipeline_is_answered_in_its_turn() {
    let mut pair = Pair::new().await;
    let run = |wire: Wire, sql: &str| wire.parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0);
    let mut wire = Wire::new().parse("kept", "SELECT 7");
    for sql in ["SELECT 1", "RESET ALL", "SET work_mem = '1MB'", "RESET work_mem", "SHOW work_mem", "DEALLOCATE kept"] {
        wire = run(wire, sql);
    }
    let said = pair.says(wire.bind("", "kept", &[]).sync(), 1).await;
    assert!(said.ends_with("D(4MB) C(SHOW) 1 2 n C(DEALLOCATE) E(26000) ZI"), "{said}");
}

#[tokio::test]
async fn a_transaction_in_a_pipeline_ends_where_its_commit_stands() {
    let mut pair = Pair::new().await;
    let run = |wire: Wire, sql: &str| wire.parse("", sql).bind("", "", &[]).execute("", 0);
    let mut wire = Wire::new();
    for sql in ["BEGIN", "INSERT INTO pipe VALUES (1)", "COMMIT", "BEGIN", "INSERT INTO pipe VALUES (2)"] {
        wire = run(wire, sql);
    }
    let said = pair.says(run(wire.sync(), "ROLLBACK").sync().query("SELECT count(*) FROM pipe"), 3).await;
    assert!(said.ends_with("C(INSERT 0 1) ZT 1 2 C(ROLLBACK) ZI T D(1) C(SELECT 1) ZI"), "{said}");
}

#[tokio::test]
async fn portals_are_fetched_in_parts_within_and_without_a_transaction() {
    let mut pair = Pair::new().await;
    let sql = "SELECT generate_series(1, 5)";
    for (begin, end) in [("SELECT 0", "SELECT 0"), ("BEGIN", "COMMIT")] {
        pair.says(Wire::new().query(begin), 1).await;
        let first = Wire::new().parse("", sql).bind("part", "", &[]).execute("part", 2).flush();
        assert_eq!(pair.says_up_to(first, b's').await, "1 2 D(1) D(2) s");
        assert_eq!(pair.says_up_to(Wire::new().execute("part", 2).flush(), b's').await, "D(3) D(4) s");
        assert_eq!(
            pair.says(Wire::new().execute("part", 2).sync(), 1).await.split(" Z").next(),
            Some("D(5) C(SELECT 1)")
        );
        // Behind the Sync a portal lives on only within a transaction.
        pair.says(Wire::new().execute("part", 2).sync(), 1).await;
        pair.says(Wire::new().query(end), 1).await;
    }
}

#[tokio::test]
async fn queries_sent_while_another_runs_are_answered_in_turn() {
    let mut pair = Pair::new().await;
    let wire = Wire::new().query("SELECT pg_sleep(0.2)").query("SELECT 2").query("").query(";").query("SELECT 1/0");
    let wire = wire.query("-- nothing").parse("", "").bind("", "", &[]).describe(b'P', "").execute("", 0).sync();
    let said = pair.says(wire.query("SELECT 3"), 8).await;
    assert_eq!(
        said,
        "T D() C(SELECT 1) ZI T D(2) C(SELECT 1) ZI I ZI I ZI E(22012) ZI I ZI 1 2 n I ZI T D(3) C(SELECT 1) ZI"
    );
}

#[tokio::test]
async fn a_statement_may_have_as_many_parameters_as_the_protocol_can_count() {
    let mut pair = Pair::new().await;
    for (count, fits) in [(65_535, true), (65_536, false)] {
        let list: Vec<_> = (1..=count).map(|n| format!("${n}")).collect();
        let sql = format!("SELECT cardinality(ARRAY[{}]::int[])", list.join(","));
        let values = vec!["7"; usize::min(count, 65_535)];
        let said = pair.says(Wire::new().parse("", &sql).bind("", "", &values).execute("", 0).sync(), 1).await;
        assert_eq!(said, if fits { "1 2 D(65535) C(SELECT 1) ZI" } else { "1 E(08P01) ZI" });
    }
}

#[tokio::test]
async fn copy_in_with_every_ending_leaves_the_session_in_step() {
    let mut pair = Pair::new().await;
    let copy = || Wire::new().query("COPY pipe FROM STDIN");
    let after = |wire: Wire| wire.query("SELECT count(*) FROM pipe");
    assert_eq!(
        pair.says(after(copy().copy_data(b"1\ta\n2\tb\n").copy_done()), 2).await,
        "G C(COPY 2) ZI T D(2) C(SELECT 1) ZI"
    );
    for wire in [
        copy().copy_data(b"3\ta\n").copy_fail("no more"),
        copy().copy_data(b"x\ta\n").copy_data(b"4\ta\n").copy_done(),
        copy().copy_data(b"1\tagain\n").copy_done(),
        Wire::new().query("COPY nowhere FROM STDIN").copy_data(b"1\n").copy_done(),
    ] {
        assert!(pair.says(after(wire), 2).await.ends_with("ZI T D(2) C(SELECT 1) ZI"));
    }
    // A stray end of COPY is nothing.
    assert_eq!(pair.says(Wire::new().copy_fail("stray").copy_done().copy_data(b"5\n").query(""), 1).await, "I ZI");
}

#[tokio::test]
async fn a_sync_inside_copy_data_is_ignored_as_the_server_ignores_it() {
    let mut pair = Pair::new().await;
    let begin = || Wire::new().parse("", "COPY pipe FROM STDIN").bind("", "", &[]).execute("", 0).sync();
    assert_eq!(pair.says_up_to(begin(), b'G').await, "1 2 G");
    let wire = Wire::new().copy_data(b"1\ta\n").sync().flush().copy_data(b"2\tb\n").copy_done().sync();
    assert_eq!(pair.says(wire.query("SELECT count(*) FROM pipe"), 2).await, "C(COPY 2) ZI T D(2) C(SELECT 1) ZI");
    assert_eq!(pair.says_up_to(begin(), b'G').await, "1 2 G");
    let wire = Wire::new().copy_data(b"3\tc\n").sync().copy_fail("no").sync();
    assert_eq!(pair.says(wire, 1).await, "E(57014) ZI");
    // All at once, before the server has said that it takes data.
    let wire = begin().copy_data(b"4\td\n").copy_done().sync().query("SELECT count(*) FROM pipe");
    assert_eq!(pair.says(wire, 2).await, "1 2 G C(COPY 1) ZI T D(3) C(SELECT 1) ZI");
}

#[tokio::test]
async fn a_failing_batch_takes_back_what_it_did_to_the_session() {
    let mut pair = Pair::new().await;
    let run = |wire: Wire, sql: &str| wire.parse("", sql).bind("", "", &[]).execute("", 0);
    pair.says(Wire::new().query("SET TimeZone = 'Asia/Tokyo'"), 1).await;
    let mut wire = Wire::new();
    for sql in ["INSERT INTO pipe VALUES (1)", "RESET ALL", "RESET TimeZone", "SELECT 1/0"] {
        wire = run(wire, sql);
    }
    let wire = wire.sync().query("SHOW TimeZone").query("SELECT count(*) FROM pipe");
    let said = pair.says(wire, 3).await;
    assert!(said.ends_with("E(22012) ZI T D(Asia/Tokyo) C(SHOW) ZI T D(0) C(SELECT 1) ZI"), "{said}");
}

#[tokio::test]
async fn a_verdict_on_a_message_that_is_skipped_is_not_taken_for_the_next() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let stealing = "SELECT set_config('app.current_org_id', 'globex', false)";
    let long = format!("SELECT 1 /* {} */", "x".repeat(20_000));
    for innocent in [Wire::new().query("RESET ALL"), Wire::new().parse("", &long), Wire::new().query(&long)] {
        let mut raw = proxy.raw("acme").await;
        // The server refuses the first; the second has been judged by then, and is skipped.
        let wire = Wire::new().parse("", "SELECT * FROM no_such_table").bytes(&innocent.0).sync();
        assert_eq!(raw.converse(wire, 1).await, "E(42P01) ZI");
        assert_eq!(raw.query(stealing).await, "E(42501) ZI");
    }
}

#[tokio::test]
async fn names_that_a_failed_batch_took_or_gave_up_are_as_before() {
    let mut pair = Pair::new().await;
    pair.says(Wire::new().parse("kept", "SELECT 7").sync(), 1).await;
    let wire = Wire::new().parse("new", "SELECT * FROM no_such_table").sync().parse("new", "SELECT 1").sync();
    let wire = wire.execute("none", 0).close(b'S', "kept").sync().bind("", "kept", &[]).execute("", 0).sync();
    let said = pair.says(wire.parse("new", "SELECT 2").sync(), 5).await;
    assert_eq!(said, "E(42P01) ZI 1 ZI E(34000) ZI 2 D(7) C(SELECT 1) ZI E(42P05) ZI");
}

#[tokio::test]
async fn what_a_failed_batch_has_skipped_is_there_for_the_next_that_was_sent_with_it() {
    let mut pair = Pair::new().await;
    pair.says(Wire::new().parse("kept", "SELECT 7").sync(), 1).await;
    let failing = |wire: Wire| wire.execute("none", 0).bind("", "kept", &[]).execute("", 0).sync();
    let good = |wire: Wire| wire.bind("", "kept", &[]).execute("", 0).sync();
    let said = pair.says(good(failing(good(failing(Wire::new())))), 4).await;
    assert_eq!(said, "E(34000) ZI 2 D(7) C(SELECT 1) ZI E(34000) ZI 2 D(7) C(SELECT 1) ZI");
}

#[tokio::test]
async fn what_follows_a_failed_message_up_to_sync_has_not_been() {
    let mut pair = Pair::new().await;
    let wire = Wire::new().parse("kept", "SELECT 1").sync();
    pair.says(wire, 1).await;
    // The Close is skipped, and so is the Parse.
    let wire = Wire::new().bind("", "none", &[]).close(b'S', "kept").parse("new", "SELECT 2").sync();
    assert_eq!(
        pair.says(wire.describe(b'S', "kept").sync().describe(b'S', "new").sync(), 3).await,
        "E(26000) ZI t T ZI E(26000) ZI"
    );
    // A Parse that fails is not there for the next one of that text, closed or not.
    let failing = || Wire::new().parse("f", "SELECT * FROM not_yet").close(b'S', "f").sync();
    assert_eq!(pair.says(failing(), 1).await, "E(42P01) ZI");
    pair.says(Wire::new().query("CREATE TEMP TABLE not_yet (v int)"), 1).await;
    let wire = Wire::new().parse("f", "SELECT * FROM not_yet").bind("", "f", &[]).execute("", 0).sync();
    assert_eq!(pair.says(wire, 1).await, "1 2 C(SELECT 0) ZI");
}

#[tokio::test]
async fn a_failed_transaction_is_rolled_back_by_protocol() {
    let mut pair = Pair::new().await;
    let run = |sql: &str| Wire::new().parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0).sync();
    for failing in ["SELECT 1/0", "SELECT * FROM nowhere"] {
        pair.says(run("BEGIN"), 1).await;
        assert!(pair.says(run(failing), 1).await.ends_with("ZE"));
        assert_eq!(pair.says(run("SELECT 1"), 1).await, "E(25P02) ZE");
        assert_eq!(pair.says(run("RESET ALL"), 1).await, "E(25P02) ZE");
        assert_eq!(pair.says(run("ROLLBACK"), 1).await, "1 2 n C(ROLLBACK) ZI");
    }
}

#[tokio::test]
async fn a_statement_of_prepare_is_closed_by_protocol() {
    let mut pair = Pair::new().await;
    assert_eq!(pair.says(Wire::new().query("PREPARE mine AS SELECT 1"), 1).await, "C(PREPARE) ZI");
    assert_eq!(pair.says(Wire::new().close(b'S', "mine").execute("none", 0).sync(), 1).await, "3 E(34000) ZI");
    assert_eq!(pair.says(Wire::new().query("EXECUTE mine"), 1).await, "E(26000) ZI");
    assert_eq!(
        pair.says(Wire::new().query("PREPARE mine AS SELECT 2; EXECUTE mine"), 1).await,
        "C(PREPARE) T D(2) C(SELECT 1) ZI"
    );
}

#[tokio::test]
async fn an_error_points_into_the_text_that_the_client_sent() {
    let mut pair = Pair::new().await;
    pair.says(Wire::new().query("SET TimeZone = 'UTC'; SET search_path = public"), 1).await;
    for sql in ["RESET ALL; SELECT 'ä', nothing", "/* ä */ RESET ALL; RESET search_path; SELECT nothing; RESET ALL"] {
        assert!(pair.says(Wire::new().query(sql), 1).await.ends_with("E(42703) ZI"));
    }
}

/// PostgreSQL 15 may crash where this is not held back, so it is never sent past the proxy.
#[tokio::test]
async fn portals_that_a_failure_left_behind_are_not_run_even_where_nobody_knows_of_the_failure_yet() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    let failing = || Wire::new().query("BEGIN").parse("n", "SELECT $1::int").sync();
    let bound =
        failing().bind("p", "n", &["x"]).sync().execute("p", 0).sync().query("ROLLBACK").close(b'S', "n").sync();
    let said = raw.converse(bound, 6).await;
    assert_eq!(said, "C(BEGIN) ZT 1 ZT E(22P02) ZE I ZE C(ROLLBACK) ZI 3 ZI");
    let queried = Wire::new().query("BEGIN").query("SELECT 1/0").execute("", 0).sync().query("ROLLBACK");
    assert_eq!(raw.converse(queried, 4).await, "C(BEGIN) ZT E(22012) ZE E(34000) ZE C(ROLLBACK) ZI");
    // One that was bound anew is the new one.
    let again = failing().bind("p", "n", &["x"]).sync().query("ROLLBACK").bind("p", "n", &["7"]).execute("p", 0).sync();
    let said = raw.converse(again, 5).await;
    assert_eq!(said, "C(BEGIN) ZT 1 ZT E(22P02) ZE C(ROLLBACK) ZI 2 D(7) C(SELECT 1) ZI");
}

#[tokio::test]
async fn a_zero_byte_is_refused_where_text_must_not_have_one() {
    let mut pair = Pair::new().await;
    let query = Wire::new().bytes(b"Q\0\0\0\x0eSELECT 1\0\0");
    assert_eq!(pair.says(query, 1).await, "E(08P01) ZI");
    let bind = Wire::new().parse("", "SELECT $1::text").bind("", "", &["a\0b"]).execute("", 0).sync();
    assert_eq!(pair.says(bind, 1).await, "1 E(22021) ZI");
    let copy = Wire::new().query("COPY pipe FROM STDIN").copy_data(b"1\ta\0b\n").copy_done();
    assert_eq!(pair.says(copy, 1).await, "G E(22021) ZI");
    assert_eq!(pair.says(Wire::new().query("SELECT count(*) FROM pipe"), 1).await, "T D(0) C(SELECT 1) ZI");
}

#[tokio::test]
async fn terminate_behind_what_is_not_answered_yet_leaves_nothing_open() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let mark = format!("terminated {}", std::process::id());
    let insert = format!("INSERT INTO ledger (org_id, body) VALUES ('acme', '{mark}')");
    for begin in ["BEGIN", "BEGIN; SELECT pg_sleep(0.05)"] {
        let mut raw = proxy.raw("acme").await;
        let wire =
            Wire::new().query(begin).query(&insert).parse("", &insert).bind("", "", &[]).execute("", 0).terminate();
        raw.send(wire).await;
        raw.until_closed().await;
    }
    let mut next = proxy.raw("acme").await;
    let count = format!("SELECT count(*) FROM ledger WHERE body = '{mark}'");
    assert_eq!(next.query(&count).await, "T D(0) C(SELECT 1) ZI");
}

#[tokio::test]
async fn an_error_names_a_statement_as_its_client_does() {
    let mut pair = Pair::new().await;
    let wire = Wire::new().parse("my \"own\"", "SELECT $1::int").bind("", "my \"own\"", &["1", "2"]).sync();
    assert_eq!(pair.says(wire, 1).await, "1 E(08P01) ZI");
    // Closed before the answer has come.
    let wire = Wire::new().bind("", "my \"own\"", &["1", "2"]).sync().close(b'S', "my \"own\"").sync();
    assert_eq!(pair.says(wire, 2).await, "E(08P01) ZI 3 ZI");
}
