//! What behaves otherwise than a direct connection: every section of `docs/compatibility.md` has its test here.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::SinkExt as _;
use tokio_postgres::{Client, NoTls};

use crate::support::{Proxy, Raw, Shard, Wire, soon};

const PAGE: &str = include_str!("../../docs/compatibility.md");

async fn proxy() -> Proxy {
    Proxy::before(Shard::shared()).start().await
}

/// The first column of the first row.
async fn one(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.unwrap_or_default().to_owned()
}

/// Every one of `statements` is refused with this SQLSTATE, both by simple and by extended query.
async fn refused(client: &Client, sqlstate: &str, statements: &[&str]) {
    for sql in statements {
        let simple = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(simple.code().map(|code| code.code()), Some(sqlstate), "{sql}: {simple:?}");
        if !sql.contains(';') {
            let extended = client.execute(*sql, &[]).await.expect_err(sql);
            assert_eq!(extended.code().map(|code| code.code()), Some(sqlstate), "{sql}: {extended:?}");
        }
    }
}

async fn accepted(client: &Client, statements: &[&str]) {
    for sql in statements {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

/// The tests that sections of the page name.
fn named() -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    for section in PAGE.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let held = section.split("Held by `").nth(1).and_then(|rest| rest.split_once("`."));
        let (name, _) = held.unwrap_or_else(|| panic!("section \"{title}\" names no test"));
        assert!(names.insert(name), "{name} holds two sections");
    }
    names
}

#[test]
fn every_section_of_the_page_names_a_test_that_exists() {
    let there: BTreeSet<_> = include_str!("compatibility.rs")
        .split("#[tokio::test]\nasync fn ")
        .skip(1)
        .filter_map(|rest| rest.split_once('(').map(|(name, _)| name))
        .collect();
    assert_eq!(named(), there, "the page's tests are those of this file");
}

#[tokio::test]
async fn the_token_and_not_the_user_name_says_who_a_session_is() {
    let proxy = proxy().await;
    let mut config = proxy.client_config("acme");
    config.user("postgres");
    let client = proxy.connect_with(&config).await.expect("the user name is a label");
    assert_eq!(one(&client, "SELECT current_user || session_user").await, "partywall_apppartywall_app");
    assert_eq!(one(&client, "SELECT current_setting('app.current_org_id')").await, "acme");
    assert_eq!(one(&client, "SELECT current_setting('app.current_user_id')").await, "ada");
    config.password("not a token");
    assert!(proxy.connect_with(&config).await.is_err());
}

#[tokio::test]
async fn the_context_is_not_the_clients_to_set() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    let statements = [
        "SET app.current_org_id = 'globex'",
        "RESET app.current_org_id",
        "SELECT set_config('app.current_org_id', 'globex', false)",
        "SET ROLE NONE",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET row_security = off",
    ];
    refused(&client, "42501", &statements).await;
    accepted(&client, &["RESET ALL", "DISCARD ALL"]).await;
    assert_eq!(one(&client, "SELECT current_setting('app.current_org_id')").await, "acme");
    let mut config = proxy.client_config("acme");
    config.options("-c app.current_org_id=globex");
    assert!(proxy.connect_with(&config).await.is_err());
}

#[tokio::test]
async fn set_config_works_where_its_name_is_a_constant() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    accepted(&client, &["SELECT set_config('TimeZone', 'Asia/Tokyo', false), set_config('jit', 'off', false), 1"])
        .await;
    assert_eq!(one(&client, "SELECT current_setting('TimeZone') || current_setting('jit')").await, "Asia/Tokyooff");
    let statements =
        ["SELECT set_config('j' || 'it', 'on', false)", "SELECT 1 WHERE set_config('jit', 'on', false) = 'on'"];
    refused(&client, "42501", &statements).await;
}

#[tokio::test]
async fn what_the_tier_bounds_can_be_lowered_only() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    let most = one(&client, "SHOW statement_timeout").await;
    accepted(&client, &["SET statement_timeout = '10s'"]).await;
    assert_eq!(one(&client, "SHOW statement_timeout").await, "10s");
    // As pg_dump and many others begin.
    accepted(&client, &["SET statement_timeout = 0", "SET lock_timeout = 0"]).await;
    assert_eq!(one(&client, "SHOW statement_timeout").await, most);
    accepted(&client, &["SET statement_timeout = '10s'", "SET statement_timeout = '20d'"]).await;
    assert_eq!(one(&client, "SHOW statement_timeout").await, most);
    let idle = one(&client, "SHOW idle_in_transaction_session_timeout").await;
    assert_eq!(one(&client, "SELECT set_config('idle_in_transaction_session_timeout', '0', false)").await, idle);
    let odd = ["SELECT set_config('statement_timeout', 1 || 'h', false)", "SET statement_timeout = E'0'"];
    refused(&client, "42501", &odd).await;
    let mut config = proxy.client_config("acme");
    config.options("-c statement_timeout=0");
    let client = proxy.connect_with(&config).await.expect("logs in");
    assert_eq!(one(&client, "SHOW statement_timeout").await, most);
}

#[tokio::test]
async fn text_is_read_in_one_way() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    accepted(&client, &["SET client_encoding = 'utf-8'", "SET standard_conforming_strings = on"]).await;
    refused(&client, "42501", &["SET client_encoding = 'LATIN1'", "SET standard_conforming_strings = off"]).await;
}

#[tokio::test]
async fn copy_reads_protected_tables_and_fills_temporary_ones() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    let copied = client.copy_in::<_, &'static [u8]>("COPY canary (id, body) FROM STDIN").await;
    let error = copied.err().expect("Postgres refuses it");
    assert_eq!(error.code().map(|code| code.code()), Some("0A000"), "{error:?}");
    assert!(error.as_db_error().and_then(|error| error.hint()).is_some_and(|hint| hint.contains("guard.copy_from")));
    // tokio-postgres is out of step after a COPY that is refused, on direct connections too.
    let client = proxy.connect("acme").await;
    accepted(&client, &["CREATE TEMPORARY TABLE loaded (body text)"]).await;
    let mut sink = Box::pin(client.copy_in("COPY loaded FROM STDIN").await.expect("a table of one's own"));
    sink.send(&b"a\nb\n"[..]).await.expect("is taken");
    assert_eq!(sink.as_mut().finish().await.expect("is loaded"), 2);
    let moved = client.execute("INSERT INTO ledger (org_id, body) SELECT 'acme', body FROM loaded", &[]).await;
    assert_eq!(moved.expect("inserts"), 2);
    client.copy_out("COPY canary TO STDOUT").await.expect("reads its own rows");
    refused(&client, "42501", &["COPY (SELECT 1) TO '/tmp/x'", "COPY (SELECT 1) TO PROGRAM 'cat'"]).await;
}

#[tokio::test]
async fn copy_fills_protected_tables_by_way_of_a_staging_table() {
    let shard = Shard::start();
    let admin = shard.admin().await;
    admin.batch_execute(partywall::provision::policies::STAGING.sql).await.expect("installs");
    let proxy = Proxy::before(&shard).sections("[guard]\ncopy_from = \"staged\"").start().await;
    let client = proxy.connect("acme").await;
    let mut sink = Box::pin(client.copy_in("COPY ledger (body) FROM STDIN CSV HEADER").await.expect("the way is open"));
    sink.send(&b"body\na\nb\n"[..]).await.expect("is taken");
    assert_eq!(sink.as_mut().finish().await.expect("is loaded"), 2);
    let arguments = ["-c", "\\copy canary (id, body) FROM PROGRAM 'echo 101,x' CSV"];
    let (content, out, complaints) = proxy.psql("acme", &arguments).await;
    assert!(content && out == "COPY 1\n", "{out} {complaints}");
    assert_eq!(one(&client, "SELECT count(*) FROM canary").await, "101");
    refused(&client, "0A000", &["SELECT 1; COPY ledger (body) FROM STDIN"]).await;
    let foreign = ["-c", "\\copy canary (org_id, id, body) FROM PROGRAM 'echo globex,102,x' CSV"];
    let (content, _, complaints) = proxy.psql("acme", &foreign).await;
    assert!(!content && complaints.contains("new row violates row-level security policy"), "{complaints}");
}

#[tokio::test]
async fn channels_are_refused() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    refused(&client, "42501", &["LISTEN a", "NOTIFY a", "SELECT pg_notify('a', 'b')"]).await;
    accepted(&client, &["UNLISTEN *"]).await;
}

#[tokio::test]
async fn advisory_locks_are_the_organizations_own() {
    let proxy = proxy().await;
    let (acme, globex) = (proxy.connect("acme").await, proxy.connect("globex").await);
    for client in [&acme, &globex] {
        assert_eq!(one(client, "SELECT pg_try_advisory_lock(1)").await, "t");
    }
    let spelt_otherwise = ["SELECT (1::bigint).pg_advisory_lock", "SELECT pg_catalog . pg_advisory_lock(1)"];
    refused(&acme, "42501", &spelt_otherwise).await;
    let reset = "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL";
    accepted(&acme, &["SELECT pg_advisory_unlock_all()", reset]).await;
}

#[tokio::test]
async fn process_ids_are_the_proxys() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    accepted(&client, &["SELECT pg_backend_pid()"]).await;
    refused(&client, "42501", &["SELECT pg_cancel_backend(1)", "SELECT pg_terminate_backend(pg_backend_pid())"]).await;
    let (token, sleeping) = (client.cancel_token(), client.batch_execute("SELECT pg_sleep(600)"));
    // A request that comes before the statement has no effect.
    let cancelling = async {
        loop {
            token.cancel_query(NoTls).await.expect("is asked");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let slept = tokio::select! {
        slept = soon("the statement is cancelled", sleeping) => slept,
        never = cancelling => never,
    };
    assert_eq!(slept.expect_err("cancelled").code().map(|code| code.code()), Some("57014"));
}

#[tokio::test]
async fn views_of_other_sessions_are_refused() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    let statements =
        ["SELECT * FROM pg_stat_activity", "SELECT * FROM pg_locks", "SELECT * FROM pg_prepared_statements"];
    refused(&client, "42501", &statements).await;
    accepted(&client, &["SELECT * FROM pg_cursors, pg_settings", "SELECT * FROM pg_class", "SHOW ALL"]).await;
}

#[tokio::test]
async fn of_statistics_the_names_can_be_read_and_not_the_counts() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    refused(
        &client,
        "42501",
        &["SELECT * FROM pg_stat_user_tables", "SELECT xact_commit FROM pg_stat_database", "SELECT * FROM pg_stats"],
    )
    .await;
    accepted(
        &client,
        &[
            "SELECT s.schemaname, s.relname FROM pg_stat_user_tables AS s",
            "SELECT n_live_tup FROM (VALUES (1)) t(n_live_tup)",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_search_path_is_written_out_and_names_no_schema_of_the_proxys() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    accepted(&client, &["SET search_path = app, public", "SELECT set_config('search_path', 'public', false)"]).await;
    refused(&client, "42501", &["SET search_path = partywall", "SELECT set_config('search_path', 'a' || 'b', false)"])
        .await;
    refused(&client, "42501", &["SET seed = 0.5"]).await;
}

#[tokio::test]
async fn explain_works_without_analyze() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    accepted(&client, &["EXPLAIN SELECT * FROM canary", "EXPLAIN (ANALYZE off) SELECT 1"]).await;
    refused(&client, "42501", &["EXPLAIN ANALYZE SELECT 1", "EXPLAIN (ANALYZE) SELECT * FROM canary"]).await;
}

#[tokio::test]
async fn code_and_definitions_are_refused_where_tables_are_shared() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    let statements = [
        "DO $$ BEGIN END $$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT query_to_xml('SELECT 1', true, true, '')",
        "CREATE TABLE more (a int)",
        "ALTER TABLE canary ADD more int",
        "COMMENT ON TABLE canary IS 'x'",
        "TRUNCATE canary",
        "LOCK TABLE canary IN ACCESS EXCLUSIVE MODE",
        "VACUUM",
        "ANALYZE",
    ];
    refused(&client, "42501", &statements).await;
}

#[tokio::test]
async fn temporary_tables_are_altered_as_pg_temp() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    accepted(&client, &["CREATE TEMPORARY TABLE mine (a int)", "CREATE TEMPORARY VIEW seen AS SELECT * FROM mine"])
        .await;
    assert_eq!(one(&client, "SELECT count(*) FROM seen").await, "0");
    let statements = [
        "DROP TABLE mine",
        "CREATE INDEX ON mine (a)",
        "ALTER TABLE mine ADD b int",
        "ALTER TABLE mine RENAME TO yours",
        "TRUNCATE mine",
        "TRUNCATE pg_temp.mine, canary",
        "ANALYZE mine",
        "ANALYZE pg_temp.mine, canary",
        "ANALYZE",
    ];
    refused(&client, "42501", &statements).await;
    for sql in ["DROP TABLE mine", "CREATE INDEX ON mine (a)", "TRUNCATE mine", "ANALYZE mine"] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        let hint = error.as_db_error().and_then(|error| error.hint()).unwrap_or_default();
        assert!(hint.contains("pg_temp.name"), "{sql}: {hint}");
    }
    let qualified = [
        "CREATE INDEX ON pg_temp.mine (a)",
        "ALTER TABLE pg_temp.mine ADD b int",
        "INSERT INTO mine VALUES (1, 2)",
        "ANALYZE pg_temp.mine",
        "ALTER TABLE pg_temp.mine RENAME COLUMN b TO c",
    ];
    accepted(&client, &qualified).await;
    assert_eq!(one(&client, "SELECT c FROM mine").await, "2");
    accepted(&client, &["TRUNCATE pg_temp.mine", "ALTER TABLE pg_temp.mine RENAME TO yours"]).await;
    assert_eq!(one(&client, "SELECT count(*) FROM yours").await, "0");
    refused(&client, "42501", &["ALTER TABLE pg_temp.yours RENAME TO pg_class", "TRUNCATE pg_temp.pg_class"]).await;
    accepted(&client, &["DROP VIEW pg_temp.seen", "DROP TABLE pg_temp.yours"]).await;
    refused(&client, "42P01", &["SELECT * FROM yours"]).await;
}

#[tokio::test]
async fn so_many_sessions_may_keep_a_server_connection() {
    let proxy = Proxy::before(Shard::shared()).pool_size(3).start().await;
    let mut sessions = Vec::new();
    let refusal = loop {
        assert!(sessions.len() < 100, "there is a limit");
        let client = proxy.connect("acme").await;
        match client.batch_execute("CREATE TEMPORARY TABLE mine (a int)").await {
            Ok(()) => sessions.push(client),
            Err(refusal) => {
                client.query_one("SELECT $1::int4", &[&1i32]).await.expect("what pins nothing goes on");
                break refusal;
            }
        }
    };
    assert_eq!(refusal.code().map(|code| code.code()), Some("53400"), "{refusal:?}");
    assert!(!sessions.is_empty(), "some may");
}

#[tokio::test]
async fn a_changed_plan_is_well_after_preparing_again() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let admin = Shard::shared().admin().await;
    admin
        .batch_execute("CREATE TABLE changing (a int); GRANT SELECT ON changing TO partywall_app")
        .await
        .expect("makes");
    let client = proxy.connect("acme").await;
    let sql = "SELECT * FROM changing";
    let statement = client.prepare(sql).await.expect("prepares");
    client.query(&statement, &[]).await.expect("runs");
    admin.batch_execute("ALTER TABLE changing ADD b int").await.expect("changes");
    let stale = client.query(&statement, &[]).await.expect_err("its columns have changed");
    assert_eq!(stale.code().map(|code| code.code()), Some("0A000"), "{stale:?}");
    let again = client.prepare(sql).await.expect("prepares again");
    assert_eq!(again.columns().len(), 2);
    client.query(&again, &[]).await.expect("is well");
    admin.batch_execute("DROP TABLE changing").await.expect("goes");
}

#[tokio::test]
async fn prepared_transactions_and_snapshots_are_refused() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    refused(&client, "0A000", &["PREPARE TRANSACTION 'x'", "SET TRANSACTION SNAPSHOT 'x'"]).await;
}

#[tokio::test]
async fn large_objects_are_refused() {
    let proxy = proxy().await;
    let client = proxy.connect("acme").await;
    refused(&client, "42501", &["SELECT lo_creat(-1)", "SELECT lo_from_bytea(0, 'x')"]).await;
    // As libpq's lo_creat sends it: the function's number, one argument in binary.
    let body = [&957_u32.to_be_bytes()[..], &[0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 255, 255, 255, 255, 0, 1]].concat();
    let mut raw = proxy.raw("acme").await;
    raw.send(Wire::new().message(b'F', &body)).await;
    let answer = raw.until_ready().await;
    assert_eq!(answer[0].field(b'C'), "0A000");
    assert!(answer[0].field(b'H').contains("use bytea"), "a way that is open");
}

#[tokio::test]
async fn discard_all_goes_back_to_the_start_up() {
    let proxy = proxy().await;
    let mut config = proxy.client_config("acme");
    config.options("-c timezone=Asia/Tokyo");
    let client = proxy.connect_with(&config).await.expect("logs in");
    accepted(&client, &["SET timezone = 'UTC'", "SET work_mem = '1MB'", "PREPARE mine AS SELECT 1"]).await;
    refused(&client, "25001", &["DISCARD ALL; SELECT 1"]).await;
    accepted(&client, &["DISCARD ALL"]).await;
    assert_eq!(one(&client, "SHOW timezone").await, "Asia/Tokyo");
    refused(&client, "26000", &["EXECUTE mine"]).await;
}

#[tokio::test]
async fn execute_finds_what_the_protocol_prepared() {
    let proxy = proxy().await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.converse(Wire::new().parse("q", "SELECT 7").parse("u", "SHOW TimeZone").sync(), 1).await, "1 1 ZI");
    assert_eq!(raw.query("EXECUTE q").await, "T D(7) C(SELECT 1) ZI");
    assert_eq!(raw.query("EXECUTE u").await, "E(0A000) ZI");
    assert_eq!(raw.query("BEGIN; SELECT 1/0").await, "C(BEGIN) E(22012) ZE");
    assert_eq!(raw.query("ROLLBACK; EXECUTE q").await, "C(ROLLBACK) E(26000) ZI");
    assert_eq!(
        raw.query("EXECUTE q; DEALLOCATE q; DEALLOCATE u").await,
        "T D(7) C(SELECT 1) C(DEALLOCATE) C(DEALLOCATE) ZI"
    );
}

#[tokio::test]
async fn a_statement_is_prepared_anew_under_the_settings_of_the_moment() {
    // The connection that a statement is not on is the one that had no more room for it.
    let proxy = Proxy::before(Shard::shared()).pool_size(1).option("pool", "max_prepared_statements = 1").start().await;
    let mut raw = proxy.raw("acme").await;
    let date = Wire::new().parse("d", "SELECT extract(month FROM date '02/03/2020')").sync();
    assert_eq!(raw.converse(date, 1).await, "1 ZI");
    let ask = || Wire::new().bind("", "d", &[]).execute("", 0).sync();
    assert_eq!(raw.converse(ask(), 1).await, "2 D(2) C(SELECT 1) ZI");
    assert_eq!(raw.query("SET DateStyle = 'ISO, DMY'").await, "C(SET) ZI");
    assert_eq!(raw.converse(Wire::new().parse("other", "SELECT 1").sync(), 1).await, "1 ZI");
    assert_eq!(raw.converse(ask(), 1).await, "2 D(3) C(SELECT 1) ZI");
}

#[tokio::test]
async fn a_reported_setting_that_a_function_sets_is_its_sessions_own() {
    let shard = Shard::start();
    let function =
        "CREATE FUNCTION poison(n text, v text, l boolean) RETURNS text LANGUAGE sql AS 'SELECT set_config(n, v, l)'";
    shard.admin().await.batch_execute(function).await.expect("takes a function");
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let (mut one, mut other) = (proxy.raw("acme").await, proxy.raw("acme").await);
    let show = "SELECT current_setting('timezone'), '01/02/2024'::date";
    let plain = other.query(show).await;
    one.query("SELECT poison('timezone', 'Asia/Tokyo', false), poison('datestyle', 'ISO, DMY', false)").await;
    for _ in 0..3 {
        other.send(Wire::new().query(show)).await;
        let heard = other.until_ready().await;
        assert!(heard.iter().all(|message| message.tag != b'S'), "it hears nothing of another's settings");
        assert_eq!(crate::support::raw::brief(&heard), plain);
        assert_eq!(one.query(show).await, "T D(Asia/Tokyo,2024-02-01) C(SELECT 1) ZI");
    }
}

#[tokio::test]
async fn set_config_with_null_is_for_settings_of_the_server() {
    let proxy = proxy().await;
    let mut config = proxy.client_config("acme");
    config.options("-c TimeZone=Asia/Tokyo");
    let client = proxy.connect_with(&config).await.expect("connects");
    accepted(&client, &["SET work_mem = '1MB'", "SELECT set_config('work_mem', NULL, false)"]).await;
    assert_eq!(one(&client, "SHOW work_mem").await, "4MB");
    refused(&client, "0A000", &["SELECT set_config('TimeZone', NULL, false)"]).await;
    accepted(&client, &["SET TimeZone = 'UTC'", "RESET TimeZone"]).await;
    assert_eq!(one(&client, "SHOW TimeZone").await, "Asia/Tokyo");
}

#[tokio::test]
async fn a_refused_text_has_not_run_and_fails_its_transaction() {
    let proxy = proxy().await;
    let mut raw = proxy.raw("acme").await;
    let text = "INSERT INTO ledger (body) VALUES ('whole'); LISTEN news";
    assert_eq!(raw.query(text).await, "E(42501) ZI");
    assert_eq!(raw.query("SELECT 1 FROM ledger WHERE body = 'whole'").await, "T C(SELECT 0) ZI");
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
    assert_eq!(raw.query("LISTEN news").await, "E(42501) ZE");
    assert_eq!(raw.query("LISTEN news").await, "E(25P02) ZE", "as a server says of any statement");
    assert_eq!(raw.query("ROLLBACK; LISTEN news").await, "E(42501) ZE");
    assert_eq!(raw.query("SELEC 1").await, "E(42601) ZE");
}

#[tokio::test]
async fn a_result_has_a_size_and_its_parts_count_together() {
    let tier = "cpu_cores = 2\nmemory_gb = 8\nstorage_quota_gb = 10\nmax_result_size_mb = 1\n";
    let tiers = format!("default = \"small\"\n[tiers.small]\n{tier}");
    let proxy = Proxy::before(Shard::shared()).tiers(&tiers).start().await;
    let client = proxy.connect("acme").await;
    let rows = |count: u32| format!("SELECT repeat('x', 1000) FROM generate_series(1, {count})");
    refused(&client, "54000", &[&rows(2000), &[rows(600), rows(600)].join(";")]).await;
    accepted(&client, &[&rows(600), &rows(600)]).await;
    accepted(&client, &["BEGIN", &format!("DECLARE c CURSOR FOR {}", rows(2000)), "FETCH 600 FROM c"]).await;
    let cut = client.batch_execute("FETCH 600 FROM c").await.expect_err("the second slice");
    assert_eq!(cut.code().map(|code| code.code()), Some("54000"));
    accepted(&client, &["ROLLBACK"]).await;
}

#[tokio::test]
async fn what_a_session_keeps_has_bounds() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let name = "n".repeat(256);
    let wire = || Wire::new().parse(&name, "select 1").sync();
    assert_eq!(proxy.raw("acme").await.converse(wire(), 1).await, "E(42622) ZI");
    assert_eq!(Raw::past_the_proxy(Shard::shared(), "acme").await.converse(wire(), 1).await, "1 ZI");
    let text = format!("begin; {}", "savepoint a;".repeat(501));
    assert_eq!(proxy.raw("acme").await.query(&text).await, "E(54000) ZI");
}
