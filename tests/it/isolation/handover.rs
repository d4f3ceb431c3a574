//! What code inside the server left on a connection is gone before another organization has it, whoever knew of it.

use partywall::context::seal::Form;

use crate::support::{Proxy, Raw, Shard, Wire};
use crate::walls::{KEYS, proxied};

/// Functions such as an operator may have. Nothing in a statement that calls them shows what they leave.
const CODE: &str = "
    CREATE FUNCTION leave_settings() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
      PERFORM set_config('shop.customer', 'of acme', false), set_config('timezone', 'Asia/Tokyo', false),
        set_config('work_mem', '77MB', false), set_config('search_path', 'pg_catalog', false),
        set_config('client_min_messages', 'error', false); END $$;
    CREATE FUNCTION leave_defaults() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
      PERFORM set_config('default_transaction_isolation', 'serializable', false),
        set_config('default_transaction_read_only', 'on', false), set_config('default_transaction_deferrable', 'on', false),
        set_config('lock_timeout', '150ms', false), set_config('statement_timeout', '0.15s', false),
        set_config('idle_in_transaction_session_timeout', '150ms', false); END $$;
    CREATE FUNCTION leave_spelling() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
      PERFORM set_config('standard_conforming_strings', 'off', false), set_config('backslash_quote', 'on', false),
        set_config('client_encoding', 'LATIN1', false); END $$;
    CREATE FUNCTION leave_cursor() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
      EXECUTE 'DECLARE left_cursor CURSOR WITH HOLD FOR SELECT * FROM canary'; END $$;
    CREATE FUNCTION leave_statement() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
      EXECUTE 'PREPARE left_statement AS SELECT ''of acme'''; END $$;
    CREATE FUNCTION leave_channel() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'LISTEN left_channel'; END $$;
    CREATE FUNCTION leave_lock() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
      PERFORM pg_advisory_lock(4711); END $$;
    CREATE FUNCTION leave_table() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
      EXECUTE 'CREATE TEMPORARY TABLE left_table AS SELECT * FROM canary'; END $$;
    CREATE FUNCTION leave_sequence() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('ticket') $$;
    CREATE FUNCTION leave_seed() RETURNS void LANGUAGE sql AS $$ SELECT setseed(0.5) $$;
    CREATE FUNCTION leave_role() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SET ROLE partywall_app'; END $$;
    CREATE FUNCTION leave_body() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM set_config('shop.customer', NEW.body, false), set_config('datestyle', 'ISO, DMY', false); RETURN NEW; END $$;
    CREATE TRIGGER leave_body AFTER INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION leave_body();
    GRANT TEMPORARY ON DATABASE postgres TO partywall_app";

/// Each leaves something, and says nothing of it.
const LEGACIES: [&str; 12] = [
    "SELECT leave_settings()",
    "SELECT leave_defaults()",
    "SELECT leave_spelling()",
    "SELECT leave_cursor()",
    "SELECT leave_statement()",
    "SELECT leave_channel()",
    "SELECT leave_lock()",
    "SELECT leave_table()",
    "SELECT leave_sequence()",
    "SELECT leave_seed()",
    "SELECT leave_role()",
    "INSERT INTO ledger (body) VALUES ('of acme')",
];

/// What the next organization looks at; by a proxy whose guard would refuse some of it.
const SIGHT: [&str; 15] = [
    "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> 'backtrace_functions' ORDER BY name",
    "SELECT nullif(current_setting('shop.customer', true), '')",
    "SELECT name, statement FROM pg_cursors",
    "SELECT name FROM pg_prepared_statements WHERE from_sql",
    "SELECT pg_listening_channels()",
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    "SELECT lastval()",
    "SELECT currval('ticket')",
    "SELECT session_user, current_user, current_setting('role')",
    "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')",
    "SELECT 'a\\\\b', count(*) FROM canary",
    "FETCH 1 FROM left_cursor",
    "EXECUTE left_statement",
    "SELECT '01/02/2024'::date, current_setting('timezone')",
];

async fn sight(raw: &mut Raw) -> Vec<String> {
    let mut seen = Vec::new();
    for sql in SIGHT {
        seen.push(format!("{sql}: {}", raw.query(sql).await));
    }
    seen
}

async fn nothing_is_left(form: Form) {
    let shard = proxied::shard(form).await;
    shard.admin().await.batch_execute(CODE).await.expect("takes the functions");
    let keys = proxied::key_file(KEYS);
    let keys = (form != Form::Plain).then_some(&keys);
    let plan = proxied::before_with(&shard, form.as_str(), keys, "warn").pool_size(1);
    let proxy = plan.guard_broken().start().await;
    let mut globex = proxy.raw("globex").await;
    let prepare = Wire::new().parse("mine", "SELECT 'globex'::text").sync();
    assert_eq!(globex.converse(prepare, 1).await, "1 ZI");
    let pid = globex.query("SELECT pg_backend_pid()").await;
    let expected = sight(&mut globex).await;
    assert!(expected[11].contains("D(a\\\\b,100)"), "{expected:?}");
    for legacy in LEGACIES {
        // A session of its own each time: some of it is the session's own afterwards.
        let mut acme = proxy.raw("acme").await;
        let heard = acme.query(legacy).await;
        assert!(heard.contains("C(") && !heard.contains("E("), "{legacy}: {heard}");
        assert_eq!(sight(&mut globex).await, expected, "{form}: after {legacy}");
        let prepared = globex.converse(Wire::new().bind("", "mine", &[]).execute("", 0).sync(), 1).await;
        assert_eq!(prepared, "2 D(globex) C(SELECT 1) ZI", "{form}: after {legacy}");
    }
    let now = globex.query("SELECT pg_backend_pid()").await;
    assert_eq!(now, pid, "{form}: nothing had to be closed for that");
}

#[tokio::test]
async fn nothing_that_code_left_is_seen_by_another_organization_where_the_context_is_plain() {
    nothing_is_left(Form::Plain).await;
}

#[tokio::test]
async fn nothing_that_code_left_is_seen_by_another_organization_where_the_context_is_guarded() {
    nothing_is_left(Form::Guarded).await;
}

#[tokio::test]
async fn nothing_that_code_left_is_seen_by_another_organization_where_the_context_is_sealed() {
    nothing_is_left(Form::Sealed).await;
}

#[tokio::test]
async fn what_a_function_left_of_transactions_and_time_outs_does_not_hold_up_the_next_organization() {
    let shard = Shard::start();
    let admin = shard.admin().await;
    admin.batch_execute(CODE).await.expect("takes the functions");
    // A serializable transaction that stays open: a deferrable one would wait for its end.
    admin
        .batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE; DELETE FROM ledger; SELECT count(*) FROM canary")
        .await
        .expect("begins");
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let (mut acme, mut globex) = (proxy.raw("acme").await, proxy.raw("globex").await);
    acme.query("SELECT leave_defaults()").await;
    assert_eq!(globex.query("SELECT count(*) FROM canary").await, "T D(100) C(SELECT 1) ZI");
    admin.batch_execute("ROLLBACK").await.expect("ends");
}

#[tokio::test]
async fn the_random_stream_of_one_organization_tells_nothing_of_anothers() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let (mut acme, mut globex) = (proxy.raw("acme").await, proxy.raw("globex").await);
    let dice = "SELECT random()::text, random()::text, random()::text";
    // With the same seed before, one continuous stream would give the other organization what is foreseen.
    acme.query("SELECT setseed(0.25)").await;
    let foreseen = [acme.query(dice).await, acme.query(dice).await];
    acme.query("SELECT setseed(0.25)").await;
    assert_eq!(acme.query(dice).await, foreseen[0], "the stream is known");
    let thrown = globex.query(dice).await;
    assert!(thrown.contains("D(") && thrown != foreseen[1], "{thrown}");
    assert_ne!(acme.query(dice).await, foreseen[1], "nor does its own go on");
}
