//! How a staged COPY can end: by the client, by a cancel, by time, by a lost server; what it may load, and where.

use std::time::Duration;

use super::{copied, copy, is_clean, rows_of, shard, staged, turn};
use crate::support::raw::brief;
use crate::support::{Message, Proxy, Raw, Wire, until};

const LOAD: &str = "COPY loaded (id) FROM STDIN";

fn error(heard: &[Message]) -> &Message {
    heard.iter().find(|message| message.tag == b'E').unwrap_or_else(|| panic!("an error: {}", brief(heard)))
}

#[tokio::test]
async fn rows_of_others_are_refused_by_the_policy() {
    let _turn = turn().await;
    let proxy = staged().start().await;
    let mut raw = proxy.raw("acme").await;
    let heard = copy(&mut raw, "COPY loaded (org_id, id) FROM STDIN", &[b"acme\t1\nglobex\t2\n"]).await;
    assert_eq!(brief(&heard), "G E(42501) ZI");
    assert_eq!(error(&heard).field(b'M'), "new row violates row-level security policy for table \"loaded\"");
    assert_eq!((rows_of("acme").await, rows_of("globex").await), (0, 0));
    assert_eq!(copied(&mut raw, "COPY parted (org_id, id) FROM STDIN", b"globex\t1\n").await, "G E(42501) ZI");
    assert_eq!(copied(&mut raw, "COPY parted (id) FROM STDIN", b"1\n150\n").await, "G C(COPY 2) ZI");
    assert_eq!(raw.query("SELECT org_id, count(*) FROM parted GROUP BY 1").await, "T D(acme,2) C(SELECT 1) ZI");
    assert!(is_clean().await);
}

#[tokio::test]
async fn who_may_not_insert_may_not_copy() {
    let proxy = staged().start().await;
    let mut raw = proxy.raw("acme").await;
    let heard = copy(&mut raw, "COPY partly (id, body) FROM STDIN", &[b"1\ta\n"]).await;
    assert_eq!(brief(&heard), "E(42501) ZI", "before any data");
    assert_eq!(error(&heard).field(b'M'), "permission denied for table partly");
    assert_eq!(error(&heard).field(b'W'), "", "of our own functions a client hears nothing");
    assert_eq!(copied(&mut raw, "COPY partly FROM STDIN", b"acme\t1\ta\n").await, "E(42501) ZI");
    assert_eq!(copied(&mut raw, "COPY partly (id) FROM STDIN", b"1\n").await, "G C(COPY 1) ZI");
    let mut reader = Raw::log_in(proxy.address(), &proxy.token("acme", "ada", &["analyst"])).await;
    assert_eq!(copied(&mut reader, LOAD, b"1\n").await, "E(25006) ZI");
    raw.query("SET default_transaction_read_only = on").await;
    let heard = copy(&mut raw, LOAD, &[b"1\n"]).await;
    assert_eq!(error(&heard).field(b'M'), "cannot execute COPY FROM in a read-only transaction");
    raw.query("RESET default_transaction_read_only").await;
    for sql in [
        "SELECT * FROM partywall.stage_copy('loaded', NULL, NULL, false)",
        "SELECT partywall.unstage_copy('x')",
        "SELECT stage_copy('loaded', NULL, NULL, false)",
        "CREATE TEMPORARY TABLE mine (id int)",
    ] {
        assert_eq!(raw.query(sql).await, "E(42501) ZI", "{sql}");
    }
}

#[tokio::test]
async fn what_cannot_be_staged_is_refused_with_advice() {
    let proxy = staged().start().await;
    let mut raw = proxy.raw("acme").await;
    for (sql, words) in [
        ("COPY loaded (id) FROM STDIN FREEZE", "Leave FREEZE out."),
        ("COPY loaded (id) FROM STDIN WHERE loaded.id > 1", "Name the columns alone."),
        ("SELECT 1; COPY loaded (id) FROM STDIN", "Send the COPY as a statement of its own"),
        ("COPY U&\"lo\\0061ded\" (id) FROM STDIN", "Send the COPY as a statement of its own"),
    ] {
        let heard = copy(&mut raw, sql, &[b"1\n"]).await;
        assert_eq!(
            (error(&heard).field(b'C').as_str(), heard.last().map(Message::brief).as_deref()),
            ("0A000", Some("ZI"))
        );
        assert!(error(&heard).field(b'H').starts_with(words), "{sql}: {:?}", error(&heard).field(b'H'));
        raw.query("BEGIN").await;
        assert!(copied(&mut raw, sql, b"1\n").await.ends_with("E(0A000) ZE"), "{sql}");
        raw.query("ROLLBACK").await;
    }
    let behind = Wire::new().parse("", "SELECT 1").bind("", "", &[]).execute("", 0);
    let wire = behind.parse("c", LOAD).bind("", "c", &[]).execute("", 0).sync();
    assert_eq!(raw.converse(wire, 1).await, "1 2 D(1) C(SELECT 1) 1 2 E(0A000) ZI");
    assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
}

#[tokio::test]
async fn without_the_setting_postgres_refuses_and_the_hint_says_what_helps() {
    let proxy = Proxy::before(shard()).start().await;
    let mut raw = proxy.raw("acme").await;
    let heard = copy(&mut raw, LOAD, &[b"1\n"]).await;
    assert_eq!(brief(&heard), "E(0A000) ZI");
    assert_eq!(error(&heard).field(b'M'), "COPY FROM not supported with row-level security");
    assert!(error(&heard).field(b'H').contains("guard.copy_from"));
}

#[tokio::test]
async fn where_the_database_has_no_way_the_hint_says_so() {
    let shard = crate::support::Shard::shared();
    let proxy = Proxy::before(shard).sections("[guard]\ncopy_from = \"staged\"").start().await;
    let mut raw = proxy.raw("acme").await;
    let heard = copy(&mut raw, "COPY ledger (body) FROM STDIN", &[b"1\n"]).await;
    assert_eq!(brief(&heard), "E(0A000) ZI");
    assert!(error(&heard).field(b'H').contains("partywall policies apply"));
    let extended = Wire::new().parse("", "COPY ledger (body) FROM STDIN").bind("", "", &[]).execute("", 0).sync();
    assert_eq!(raw.converse(extended, 1).await, "1 2 E(0A000) ZI");
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
    assert_eq!(copied(&mut raw, "COPY ledger (body) FROM STDIN", b"1\n").await, "E(0A000) ZE");
}

#[tokio::test]
async fn tables_without_policies_and_temporary_ones_are_loaded_directly() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(
        copied(&mut raw, "COPY plain.loaded (id) FROM STDIN WHERE loaded.id > 1", b"1\n2\n").await,
        "G C(COPY 1) ZI"
    );
    let prepared = Wire::new().parse("c", "COPY plain.loaded (id) FROM STDIN").sync();
    assert_eq!(raw.converse(prepared, 1).await, "1 ZI");
    for id in ["3\n", "4\n"] {
        raw.send(Wire::new().bind("", "c", &[]).execute("", 0).sync()).await;
        assert_eq!(brief(&raw.until_tag(b'G').await), "2 G");
        let rest = Wire::new().copy_data(id.as_bytes()).copy_done().sync();
        assert_eq!(raw.converse(rest, 1).await, "C(COPY 1) ZI");
    }
    assert_eq!(raw.query("DELETE FROM plain.loaded").await, "C(DELETE 3) ZI");
}

#[tokio::test]
async fn a_client_may_give_up_and_go_on() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let (mut raw, mut globex) = (proxy.raw("acme").await, proxy.raw("globex").await);
    let heard = raw.converse(Wire::new().query(LOAD).copy_data(b"1\n").copy_fail("no more"), 1).await;
    assert_eq!(heard, "G E(57014) ZI");
    assert_eq!(copied(&mut globex, LOAD, b"1\n").await, "G C(COPY 1) ZI");
    // An early Sync and Flush, which a server ignores while it waits for data; and other messages, which end the session.
    raw.send(Wire::new().query(LOAD)).await;
    raw.until_tag(b'G').await;
    let wire = Wire::new().copy_data(b"1\n").sync().flush().copy_data(b"2\n").copy_done();
    assert_eq!(raw.converse(wire, 1).await, "C(COPY 2) ZI");
    raw.send(Wire::new().query(LOAD)).await;
    raw.until_tag(b'G').await;
    raw.send(Wire::new().copy_data(b"3\n").query("COMMIT")).await;
    assert_eq!(brief(&raw.until_closed().await), "E(08P01)");
    assert_eq!(globex.query("SELECT count(*) FROM loaded").await, "T D(1) C(SELECT 1) ZI");
    until("nothing is left", async || is_clean().await).await;
    assert_eq!(rows_of("acme").await, 2);
    shard().admin().await.batch_execute("DELETE FROM loaded").await.expect("empties");
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_long_message_waits_for_its_end() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    for sql in ["SELECT 1", "BEGIN"] {
        let status = raw.query(sql).await.pop().expect("a status");
        raw.send(Wire::new().query(LOAD)).await;
        raw.until_tag(b'G').await;
        // The server reads a message whole before it looks into it: the error is that of the one before.
        let mut wire = Wire::new().copy_data(b"x\n").copy_data(&b"1\n".repeat(300_000));
        let rest = wire.0.split_off(200_000);
        raw.send(wire).await;
        assert_eq!(brief(&raw.until_tag(b'E').await), "E(22P02)", "while the message is on its way");
        let (middle, end) = rest.split_at(rest.len() / 2);
        raw.send(Wire(middle.to_vec())).await;
        raw.send(Wire(end.to_vec()).copy_done()).await;
        assert_eq!(brief(&raw.until_ready().await), if status == 'T' { "ZE" } else { "ZI" });
        raw.query("ROLLBACK").await;
        assert_eq!(raw.query("SELECT count(*) FROM loaded").await, "T D(0) C(SELECT 1) ZI");
    }
}

#[tokio::test]
async fn cancels_and_timeouts_end_it_at_every_step() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    // While data is awaited: the server notices when it comes.
    raw.send(Wire::new().query(LOAD).copy_data(b"1\n")).await;
    raw.until_tag(b'G').await;
    raw.cancel(proxy.address()).await;
    let mut id = 1;
    until("the server notices when data comes", async || {
        id += 1;
        raw.send(Wire::new().copy_data(format!("{id}\n").as_bytes())).await;
        tokio::time::timeout(Duration::from_millis(5), raw.stream.readable()).await.is_ok()
    })
    .await;
    assert_eq!(brief(&raw.until_ready().await), "E(57014) ZI");
    raw.send(Wire::new().copy_done()).await;
    // While the rows are moved: the table is locked by somebody else.
    let admin = shard().admin().await;
    admin.batch_execute("BEGIN; LOCK TABLE public.loaded IN EXCLUSIVE MODE").await.expect("locks");
    raw.send(Wire::new().query(LOAD).copy_data(b"1\n").copy_done()).await;
    raw.until_tag(b'G').await;
    let watch = shard().admin().await;
    until("the INSERT waits", async || {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.loaded'::regclass";
        watch.query_one(sql, &[]).await.expect("looks").get::<_, i64>(0) > 0
    })
    .await;
    raw.cancel(proxy.address()).await;
    assert_eq!(brief(&raw.until_ready().await), "E(57014) ZI");
    raw.query("SET statement_timeout = '500ms'").await;
    // On a busy machine time is up before the server asks for data.
    assert!(copied(&mut raw, LOAD, b"1\n").await.ends_with("E(57014) ZI"));
    raw.query("BEGIN").await;
    assert!(copied(&mut raw, LOAD, b"1\n").await.ends_with("E(57014) ZE"));
    raw.query("ROLLBACK; SET statement_timeout = '60s'").await;
    admin.batch_execute("ROLLBACK").await.expect("unlocks");
    assert_eq!(copied(&mut raw, LOAD, b"1\n").await, "G C(COPY 1) ZI");
    raw.query("DELETE FROM loaded").await;
    assert!(is_clean().await);
}

#[tokio::test]
async fn a_server_lost_in_the_middle_is_one_error() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'partywall_app' AND state <> 'idle' \
                OR usename = 'partywall_app'";
    raw.send(Wire::new().query(LOAD).copy_data(b"1\n")).await;
    raw.until_tag(b'G').await;
    shard().admin().await.batch_execute(kill).await.expect("kills");
    assert_eq!(brief(&raw.until_ready().await), "E(57P01) ZI");
    raw.send(Wire::new().copy_data(b"2\n").copy_done()).await;
    assert_eq!(copied(&mut raw, LOAD, b"1\n").await, "G C(COPY 1) ZI");
    assert_eq!(raw.query("DELETE FROM loaded").await, "C(DELETE 1) ZI");
}

#[tokio::test]
async fn what_the_guard_writes_anew_is_what_is_loaded() {
    let _turn = turn().await;
    let proxy = staged().start().await;
    let mut raw = proxy.raw("acme").await;
    raw.query("BEGIN").await;
    let load = "COPY loaded (id) FROM STDIN WHERE pg_try_advisory_xact_lock(id)";
    assert_eq!(copied(&mut raw, load, b"4711\n").await, "G C(COPY 1) ZT");
    let sql = "SELECT count(*), count(*) FILTER (WHERE objid = 4711) FROM pg_locks WHERE locktype = 'advisory'";
    let row = shard().admin().await.query_one(sql, &[]).await.expect("looks");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 0), "the lock is the organization's own");
    assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI");
}

#[tokio::test]
async fn our_queries_take_the_unnamed_portal_and_statement_and_that_is_known() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    let both = Wire::new().parse("", "SELECT 1").parse("c", LOAD).parse("d", "DEALLOCATE nonesuch").sync();
    assert_eq!(raw.converse(both, 1).await, "1 1 1 ZI");
    raw.send(Wire::new().bind("p", "c", &[]).execute("p", 0).sync().copy_data(b"1\n").copy_done().sync()).await;
    assert_eq!(brief(&raw.until_ready().await), "2 G C(COPY 1) ZI");
    let again = Wire::new().bind("", "", &[]).execute("", 0).sync();
    assert_eq!(raw.converse(again, 1).await, "2 D(1) C(SELECT 1) ZI");
    for (portal, data) in [("c", Wire::new().copy_data(b"x\n").copy_done()), ("d", Wire::new())] {
        raw.query("BEGIN").await;
        let wire = Wire::new().bind("p", portal, &[]).execute("p", 0).sync();
        let wire = if data.0.is_empty() { wire } else { wire.bytes(&data.0).sync() };
        assert!(raw.converse(wire, 1).await.ends_with(" ZE"), "fails");
        // What the server has under that name now is no portal of the client's, and could end it.
        assert_eq!(raw.converse(Wire::new().execute("", 0).sync(), 1).await, "E(34000) ZE");
        assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) ZI");
    }
}

#[tokio::test]
async fn what_is_sent_behind_it_waits_its_turn() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    let simple = |wire: Wire, data: &[u8]| wire.query(LOAD).copy_data(data).copy_done();
    let wire = simple(Wire::new().query("SELECT 1"), b"1\n").query("SELECT count(*) FROM loaded");
    let wire = simple(simple(wire, b"x\n"), b"2\n").parse("", LOAD).bind("", "", &[]).execute("", 0).sync();
    let wire = wire.copy_data(b"3\n").copy_done().sync().query("DELETE FROM loaded");
    let heard = raw.converse(wire, 7).await;
    let expected = "T D(1) C(SELECT 1) ZI G C(COPY 1) ZI T D(1) C(SELECT 1) ZI G E(22P02) ZI G C(COPY 1) ZI \
                    1 2 G C(COPY 1) ZI C(DELETE 3) ZI";
    assert_eq!(heard, expected);
    // A Sync among data that the server has refused by then would be one too many.
    raw.query("BEGIN").await;
    raw.send(Wire::new().query(LOAD)).await;
    raw.until_tag(b'G').await;
    let wire = Wire::new().copy_data(b"x\n").sync().flush().copy_done().query("SELECT 2").query("ROLLBACK");
    assert_eq!(raw.converse(wire, 3).await, "E(22P02) ZE E(25P02) ZE C(ROLLBACK) ZI");
    // Behind one that fails, a batch is skipped to its end.
    let wire = Wire::new().parse("", "COPY loaded (soul) FROM STDIN").bind("", "", &[]).execute("", 0);
    let wire = wire.parse("", "SELECT 1").bind("", "", &[]).execute("", 0).sync();
    assert_eq!(raw.converse(wire, 1).await, "1 2 E(42703) ZI");
}

#[tokio::test]
async fn errors_of_any_length_are_passed_on() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    for bytes in [1_000, 40_000, 200_000] {
        let heard = copy(&mut raw, LOAD, &[&[b"x".repeat(bytes).as_slice(), b"\n"].concat()]).await;
        assert_eq!(brief(&heard), "G E(22P02) ZI", "{bytes}");
        assert!(error(&heard).field(b'M').len() > bytes);
        assert_eq!(copied(&mut raw, LOAD, b"-1\n").await, "G C(COPY 0) ZI");
    }
}

#[tokio::test]
async fn sessions_with_a_connection_of_their_own_load_too() {
    let _turn = turn().await;
    let proxy = staged().option("pool", "pool_mode = \"session\"").start().await;
    let mut raw = proxy.raw("acme").await;
    for sql in [LOAD, "COPY plain.loaded (id) FROM STDIN"] {
        assert_eq!(copied(&mut raw, sql, b"1\n").await, "G C(COPY 1) ZI");
        assert_eq!(copied(&mut raw, sql, b"x\n").await, "G E(22P02) ZI");
    }
    assert!(is_clean().await, "though the connection has been kept");
}
