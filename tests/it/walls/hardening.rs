//! Hardening: what the shared role does not need is gone, what clients need is not, and all of it can be given back.

use partywall::context::seal::{Bond, Form, Who};
use partywall::provision::policies;
use tokio_postgres::error::SqlState;

use super::{Walled, count, keys, refused, turn, version};

/// What a hardened database refuses the shared role, by SQLSTATE 42501.
const CLOSED: &[&str] = &[
    "SELECT pg_terminate_backend(1)",
    "SELECT pg_cancel_backend(1)",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_stat_get_activity(NULL)",
    "SELECT * FROM pg_locks",
    "SELECT pg_lock_status()",
    "SELECT pg_stat_get_live_tuples(1)",
    "SELECT n_tup_ins FROM pg_stat_xact_user_tables",
    "SELECT pg_stat_get_xact_tuples_returned(1)",
    "SELECT heap_blks_hit FROM pg_statio_user_tables",
    "SELECT * FROM pg_stat_wal",
    "SELECT * FROM pg_stat_bgwriter",
    "SELECT * FROM pg_stat_slru",
    "SELECT * FROM pg_backend_memory_contexts",
    "SELECT last_value FROM pg_sequences",
    "SELECT last_value FROM counted",
    "SELECT pg_sequence_last_value('counted')",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
    "SELECT lo_create(0)",
    "SELECT pg_notify('a', 'b')",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT * FROM ts_stat('SELECT 1')",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT 1')",
    "UPDATE pg_settings SET setting = 'x' WHERE name = 'app.x'",
    "DO $$ BEGIN END $$",
    "CREATE TEMPORARY TABLE t (a int)",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TABLE public.t (a int)",
    "SET track_activities = on",
];

/// What it must not take: what client tools ask for.
const OPEN: &[&str] = &[
    "SELECT set_config('app.x', 'y', false)",
    "SELECT * FROM pg_catalog.pg_class LIMIT 1",
    "SELECT pg_relation_size('notes')",
    "SELECT pg_catalog.pg_get_expr(adbin, adrelid) FROM pg_attrdef LIMIT 1",
    "SELECT relname FROM pg_statio_all_tables LIMIT 1",
    "SELECT pg_tablespace_location(1663)",
    "SELECT pg_advisory_unlock_all()",
    "SELECT * FROM information_schema.tables LIMIT 1",
    "SELECT ts_rewrite('a'::tsquery, 'a'::tsquery, 'b'::tsquery)",
    "SELECT name FROM pg_settings LIMIT 1",
    "SELECT sequence_schema, sequence_name, maximum_value FROM information_schema.sequences",
    "SELECT nextval('counted'), currval('counted'), lastval()",
    "SELECT gen_random_uuid(), now(), version()",
];

#[tokio::test]
async fn the_default_profile_closes_what_tenants_do_not_need_and_can_be_taken_back() {
    let walled = Walled::new(Form::Guarded).await;
    let turn = turn().await;
    let sequence = "CREATE SEQUENCE counted; GRANT USAGE, SELECT ON SEQUENCE counted TO partywall_app";
    walled.admin.batch_execute(sequence).await.expect("makes a sequence");
    // Twice: it is safe to repeat.
    for _ in 0..2 {
        walled.admin.batch_execute(policies::HARDENING.sql).await.expect("hardens");
    }
    let client = walled.app().await;
    for sql in CLOSED {
        assert_eq!(refused(&client, sql).await, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
    }
    for sql in OPEN {
        client.batch_execute(sql).await.expect(sql);
    }
    walled.admin.batch_execute(policies::UNHARDEN.sql).await.expect("unhardens");
    for sql in ["SELECT * FROM pg_stat_activity", "SELECT pg_notify('a', 'b')", "DO $$ BEGIN END $$"] {
        client.batch_execute(sql).await.expect(sql);
    }
    walled.admin.batch_execute("ALTER ROLE partywall_app RESET ALL").await.expect("resets");
    drop(turn);
}

#[tokio::test]
async fn the_strict_profile_closes_more() {
    let walled = Walled::new(Form::Guarded).await;
    let turn = turn().await;
    let sequence = "CREATE SEQUENCE counted; GRANT USAGE, SELECT ON SEQUENCE counted TO partywall_app";
    walled.admin.batch_execute(sequence).await.expect("makes a sequence");
    walled.admin.batch_execute("SET partywall.profile = 'strict'").await.expect("sets");
    walled.admin.batch_execute(policies::HARDENING.sql).await.expect("hardens");
    let client = walled.app().await;
    for sql in CLOSED.iter().chain(&[
        "SELECT set_config('a.b', 'c', false)",
        "SELECT pg_sleep(0)",
        "SELECT pg_relation_size('notes')",
        "SELECT txid_current()",
    ]) {
        assert_eq!(refused(&client, sql).await, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
    }
    walled.admin.batch_execute("ALTER ROLE partywall_app RESET ALL").await.expect("resets");
    drop(turn);
}

#[tokio::test]
async fn an_administrator_who_is_no_superuser_hears_what_was_not_done() {
    let walled = Walled::new(Form::Plain).await;
    let turn = turn().await;
    let sql = format!(
        "DROP ROLE IF EXISTS renter; CREATE ROLE renter LOGIN CREATEROLE PASSWORD 'renter'; ALTER DATABASE {} OWNER TO renter",
        walled.name
    );
    walled.admin.batch_execute(&sql).await.expect("makes an administrator");
    let mut config = super::cluster().login("renter", "renter", &walled.name);
    config.options("-c client_min_messages=notice");
    let (client, mut connection) = config.connect(tokio_postgres::NoTls).await.expect("connects");
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                let _ = said.send(notice.message().to_owned());
            }
        }
    });
    client.batch_execute(policies::HARDENING.sql).await.expect("runs to its end");
    drop(client);
    let mut words = Vec::new();
    while let Some(line) = heard.recv().await {
        words.push(line);
    }
    let said = |start: &str, part: &str| words.iter().any(|line| line.starts_with(start) && line.contains(part));
    assert!(said("not done: signals", "In its place: the guard refuses"), "{words:#?}");
    assert!(said("not done: other sessions", "still open: "), "{words:#?}");
    assert!(said("done: database", "temporary"), "{words:#?}");
    walled.admin.batch_execute(&format!("ALTER DATABASE {} OWNER TO postgres", walled.name)).await.expect("takes back");
    walled
        .admin
        .batch_execute("REASSIGN OWNED BY renter TO postgres; DROP OWNED BY renter; DROP ROLE renter")
        .await
        .expect("drops");
    drop(turn);
}

#[tokio::test]
async fn an_organizations_advisory_locks_are_its_own() {
    let walled = Walled::new(Form::Guarded).await;
    walled.admin.batch_execute(policies::ADVISORY.sql).await.expect("installs");
    let mut clients = Vec::new();
    for organization in ["acme", "acme", "globex", ""] {
        let client = walled.app().await;
        let row = client.query_one("SELECT pid, nonce, now_s FROM partywall.hello()", &[]).await.expect("greets");
        let (pid, nonce, now_s): (i32, String, i64) = (row.get(0), row.get(1), row.get(2));
        let bond = Bond { pid, nonce: &nonce, generation: 1, expiry_s: now_s + 60 };
        client.batch_execute(&keys()[0].entry(Who { organization, ..Who::default() }, bond)).await.expect("enters");
        clients.push(client);
    }
    let lock = "SELECT partywall_locks.pg_try_advisory_lock(42)";
    let mut taken = Vec::new();
    for client in &clients {
        taken.push(client.query_one(lock, &[]).await.expect("asks").get::<_, Option<bool>>(0));
    }
    assert_eq!(taken, [Some(true), Some(false), Some(true), None]);
    clients[0].batch_execute("SELECT partywall_locks.pg_advisory_unlock(42)").await.expect("unlocks");
    assert!(clients[1].query_one(lock, &[]).await.expect("asks").get::<_, bool>(0));
    clients[1].batch_execute("BEGIN; SELECT partywall_locks.pg_advisory_xact_lock(1, 2); COMMIT").await.expect("locks");
}

/// Each function that takes a lock, with either kind of key.
const TAKING: &[&str] = &[
    "pg_advisory_lock(g)",
    "pg_advisory_lock(1, g)",
    "pg_advisory_lock_shared(g)",
    "pg_advisory_lock_shared(g, 1)",
    "pg_try_advisory_lock(g)",
    "pg_try_advisory_lock(2, g)",
    "pg_try_advisory_lock_shared(g)",
    "pg_try_advisory_lock_shared(3, g)",
    "pg_advisory_xact_lock(g)",
    "pg_advisory_xact_lock(1, g)",
    "pg_advisory_xact_lock_shared(g)",
    "pg_advisory_xact_lock_shared(g, 1)",
    "pg_try_advisory_xact_lock(g)",
    "pg_try_advisory_xact_lock(2, g)",
    "pg_try_advisory_xact_lock_shared(g)",
    "pg_try_advisory_xact_lock_shared(3, g)",
];

#[tokio::test]
async fn a_session_and_an_organization_take_a_bounded_number_of_advisory_locks() {
    let walled = Walled::new(Form::Plain).await;
    walled.admin.batch_execute(policies::ADVISORY.sql).await.expect("installs");
    let within = |organization: &'static str| {
        let client = walled.app();
        async move {
            let client = client.await;
            client.batch_execute(&format!("SET app.current_org_id = '{organization}'")).await.expect("sets");
            client
        }
    };
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    for taking in TAKING {
        let client = within("acme").await;
        let sql =
            format!("SELECT count(*) FROM generate_series(1, 1000000) AS g WHERE partywall_locks.{taking} IS NOT NULL");
        client.batch_execute("BEGIN").await.expect("begins");
        assert_eq!(refused(&client, &sql).await, Some(SqlState::PROGRAM_LIMIT_EXCEEDED), "{taking}");
        // Locks of the session outlive the error; more than a few beyond the bound there never are.
        let now = count(&walled.admin, held).await;
        assert!(now < 256 + 400, "{taking}: {now}");
        client.batch_execute("ROLLBACK; SELECT pg_advisory_unlock_all()").await.expect("gives back");
    }
    // What an organization holds in many sessions counts together; another's is not touched by it.
    let mut sessions = Vec::new();
    let table =
        "SELECT current_setting('max_locks_per_transaction')::bigint * current_setting('max_connections')::bigint";
    let share = count(&walled.admin, table).await / 8;
    for _ in 0..12 {
        let client = within("acme").await;
        let _ = client
            .batch_execute(
                "SELECT partywall_locks.pg_advisory_lock_shared(g, pg_backend_pid()) FROM generate_series(1, 250) AS g",
            )
            .await;
        sessions.push(client);
    }
    let now = count(&walled.admin, held).await;
    assert!(now > share - 256 && now < share + 800, "{now} of {share}");
    let globex = within("globex").await;
    globex
        .batch_execute("SELECT partywall_locks.pg_advisory_lock(g) FROM generate_series(1, 200) AS g")
        .await
        .expect("has a share of its own");
}

#[tokio::test]
async fn people_see_all_organizations_only_by_their_own_login_and_a_step_that_is_logged() {
    let walled = Walled::new(Form::Guarded).await;
    let turn = turn().await;
    walled.admin.batch_execute(policies::ADMIN.sql).await.expect("installs");
    walled
        .admin
        .batch_execute(
            "GRANT USAGE ON SCHEMA public TO partywall_admin; GRANT SELECT ON ALL TABLES IN SCHEMA public TO partywall_admin;
             SELECT partywall.grant_admin('support_anna', now() + interval '1 day'); ALTER ROLE support_anna PASSWORD 'anna'",
        )
        .await
        .expect("grants");
    let anna = super::cluster().connect_as("support_anna", "anna", &walled.name).await.expect("logs in");
    assert_eq!(refused(&anna, "SELECT * FROM notes").await, Some(SqlState::INSUFFICIENT_PRIVILEGE));
    anna.batch_execute("SET ROLE partywall_admin").await.expect("steps up");
    assert_eq!(count(&anna, "SELECT count(*) FROM notes /* anna was here */").await, 3);
    assert_eq!(refused(&anna, "SET log_statement = 'none'").await, Some(SqlState::INSUFFICIENT_PRIVILEGE));
    let log = std::fs::read_to_string(super::cluster().log_file()).expect("reads");
    assert!(log.contains("SET ROLE partywall_admin") && log.contains("anna was here"));
    walled.admin.batch_execute("SELECT partywall.revoke_admin('support_anna')").await.expect("revokes");
    assert!(super::cluster().connect_as("support_anna", "anna", &walled.name).await.is_err());
    // The shared role cannot make itself one.
    let app = walled.app().await;
    assert!(refused(&app, "SELECT partywall.grant_admin('partywall_app', 'infinity')").await.is_some());
    assert!(refused(&app, "SET ROLE partywall_admin").await.is_some());
    walled.admin.batch_execute("DROP OWNED BY support_anna; DROP ROLE support_anna").await.expect("drops");
    assert!(version(&walled.admin).await >= 130_000);
    drop(turn);
}
