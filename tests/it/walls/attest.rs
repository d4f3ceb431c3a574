//! Attestation finds each planted fault, says nothing of a sound database, and takes a shard out that has a breach.

use std::io::Write as _;
use std::process::Command;

use partywall::context::seal::Form;
use partywall::control::attest::{Depth, Finding, Severity};
use partywall::control::{self, ShardPlan};
use partywall::provision::{ClusterOptions, policies};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::KEYS;
use super::proxied::{before, key_file, shard};
use crate::support::{PATIENCE, Plan, Proxy, Shard};

/// What makes the tests' shard sound: hardened, and no other database open.
const SOUND: &str = "REVOKE CONNECT ON DATABASE template1 FROM PUBLIC";

pub(super) fn plan_of(plan: &Plan) -> ShardPlan {
    let files = plan.write();
    let config = control::load(&files.path()).expect("a configuration");
    control::plan_shards(&config, &[]).expect("plans").remove(0)
}

pub(super) async fn attest(plan: &ShardPlan, allow: &[String]) -> Vec<Finding> {
    let (plan, allow) = (plan.clone(), allow.to_vec());
    control::attest_shard(&plan, Depth::Writing, &allow).await.expect("is attested")
}

/// Plants, undoes, and what is to be found: how bad, its name and its object.
const FAULTS: &[(&str, &str, Severity, &str)] = &[
    (
        "CREATE TABLE open (org_id text); GRANT SELECT ON open TO partywall_app",
        "DROP TABLE open",
        Severity::Breach,
        "table_without_rls:public.open",
    ),
    (
        "CREATE TABLE scratch (a int); GRANT INSERT ON scratch TO partywall_app",
        "DROP TABLE scratch",
        Severity::Breach,
        "table_without_rls:public.scratch",
    ),
    (
        "CREATE TABLE countries (a int); GRANT SELECT ON countries TO partywall_app",
        "DROP TABLE countries",
        Severity::Warn,
        "table_without_rls:public.countries",
    ),
    (
        "CREATE TABLE p (org_id text NOT NULL, a int) PARTITION BY LIST (a); SELECT partywall.protect('p'); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); GRANT SELECT ON p1 TO partywall_app",
        "DROP TABLE p",
        Severity::Breach,
        "partition_without_rls:public.p1",
    ),
    (
        "ALTER TABLE canary NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE canary FORCE ROW LEVEL SECURITY",
        Severity::Warn,
        "rls_not_forced:public.canary",
    ),
    (
        "ALTER TABLE canary DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE canary ENABLE ROW LEVEL SECURITY",
        Severity::Breach,
        "table_without_rls:public.canary",
    ),
    (
        "ALTER TABLE ledger OWNER TO partywall_app",
        "ALTER TABLE ledger OWNER TO postgres; GRANT SELECT, INSERT, UPDATE, DELETE ON ledger TO partywall_app; GRANT USAGE ON SEQUENCE ledger_id_seq TO partywall_app",
        Severity::Breach,
        "owned:public.ledger",
    ),
    (
        "CREATE POLICY x ON canary FOR SELECT USING (true)",
        "DROP POLICY x ON canary",
        Severity::Breach,
        "policy_ignores_context:public.canary",
    ),
    (
        "CREATE POLICY x ON canary FOR SELECT USING (true)",
        "DROP POLICY x ON canary",
        Severity::Breach,
        "canary_sees:public.canary",
    ),
    (
        "CREATE POLICY x ON canary FOR SELECT USING (partywall.org() IS NULL)",
        "DROP POLICY x ON canary",
        Severity::Breach,
        "nobody_sees:public.canary",
    ),
    (
        "CREATE POLICY x ON ledger FOR INSERT WITH CHECK (true)",
        "DROP POLICY x ON ledger",
        Severity::Breach,
        "canary_writes:public.ledger",
    ),
    (
        "CREATE POLICY x ON canary USING (org_id = (SELECT partywall.org())) WITH CHECK (true)",
        "DROP POLICY x ON canary",
        Severity::Breach,
        "policy_one_way:public.canary",
    ),
    (
        "CREATE POLICY x ON canary FOR SELECT USING (org_id = partywall.org())",
        "DROP POLICY x ON canary",
        Severity::Warn,
        "policy_per_row:public.canary",
    ),
    (
        "CREATE TABLE hid (org_id text NOT NULL); ALTER TABLE hid ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; GRANT SELECT ON hid TO partywall_app",
        "DROP TABLE hid",
        Severity::Warn,
        "policy_missing:public.hid",
    ),
    (
        "CREATE TABLE slow (org_id text NOT NULL); GRANT SELECT ON slow TO partywall_app; SELECT partywall.protect('slow'); DROP INDEX slow_org_id_idx",
        "DROP TABLE slow",
        Severity::Warn,
        "no_index:public.slow",
    ),
    (
        "CREATE TABLE loose (id int PRIMARY KEY, org_id text NOT NULL); GRANT SELECT ON loose TO partywall_app; SELECT partywall.protect('loose')",
        "DROP TABLE loose",
        Severity::Warn,
        "key_across:public.loose.loose_pkey",
    ),
    (
        "GRANT TRUNCATE ON canary TO partywall_app",
        "REVOKE TRUNCATE ON canary FROM partywall_app",
        Severity::Breach,
        "grant_beyond_policies:public.canary",
    ),
    (
        "CREATE VIEW v AS SELECT * FROM canary; GRANT SELECT ON v TO partywall_app",
        "DROP VIEW v",
        Severity::Breach,
        "view_with_owners_rights:public.v",
    ),
    (
        "CREATE VIEW v AS SELECT * FROM canary; GRANT SELECT ON v TO partywall_app",
        "DROP VIEW v",
        Severity::Breach,
        "canary_sees:public.v",
    ),
    (
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM canary; GRANT SELECT ON m TO partywall_app",
        "DROP MATERIALIZED VIEW m",
        Severity::Breach,
        "materialized_view:public.m",
    ),
    (
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM canary'",
        "DROP FUNCTION f()",
        Severity::Breach,
        "security_definer:public.f()",
    ),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "DROP FUNCTION f()",
        Severity::Warn,
        "security_definer:public.f()",
    ),
    (
        "GRANT SELECT ON canary TO PUBLIC",
        "REVOKE SELECT ON canary FROM PUBLIC",
        Severity::Warn,
        "granted_to_public:public.canary",
    ),
    (
        "GRANT CREATE ON SCHEMA public TO partywall_app",
        "REVOKE CREATE ON SCHEMA public FROM partywall_app",
        Severity::Warn,
        "may_create:public",
    ),
    (
        "GRANT CREATE ON SCHEMA partywall TO partywall_app",
        "REVOKE CREATE ON SCHEMA partywall FROM partywall_app",
        Severity::Breach,
        "schema_owned:partywall",
    ),
    (
        "GRANT SELECT ON partywall.seal_key TO partywall_app",
        "REVOKE SELECT ON partywall.seal_key FROM partywall_app",
        Severity::Breach,
        "seal_key_readable:partywall.seal_key",
    ),
    (
        "ALTER ROLE partywall_app SET search_path = evil",
        "ALTER ROLE partywall_app RESET search_path",
        Severity::Warn,
        "role_setting:search_path",
    ),
    (
        "GRANT EXECUTE ON FUNCTION pg_notify(text, text), pg_cancel_backend(int), pg_stat_get_activity(int), pg_lock_status(), pg_advisory_lock(bigint), lo_create(oid), ts_stat(text), query_to_xml(text, boolean, boolean, text) TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION pg_notify(text, text), pg_cancel_backend(int), pg_stat_get_activity(int), pg_lock_status(), pg_advisory_lock(bigint), lo_create(oid), ts_stat(text), query_to_xml(text, boolean, boolean, text) FROM PUBLIC",
        Severity::Warn,
        "open_messages:pg_notify(text,text) | open_signals:pg_cancel_backend(integer) | open_sessions:pg_stat_get_activity(integer) | open_locks:pg_lock_status() | open_advisory_locks:pg_advisory_lock(bigint) | open_large_objects:lo_create(oid) | open_texts_as_sql:ts_stat(text) | open_texts_as_sql:query_to_xml(text,boolean,boolean,text)",
    ),
    (
        "REVOKE SELECT ON pg_trigger FROM PUBLIC",
        "GRANT SELECT ON pg_trigger TO PUBLIC",
        Severity::Breach,
        "not_attested:catalog",
    ),
    (
        "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC",
        "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
        Severity::Warn,
        "open_languages:plpgsql",
    ),
    (
        "GRANT TEMPORARY ON DATABASE postgres TO partywall_app",
        "REVOKE TEMPORARY ON DATABASE postgres FROM partywall_app",
        Severity::Warn,
        "open_temporary:postgres",
    ),
    (
        "GRANT UPDATE ON pg_settings TO PUBLIC",
        "REVOKE UPDATE ON pg_settings FROM PUBLIC",
        Severity::Warn,
        "open_settings:pg_settings",
    ),
    (
        "GRANT CONNECT ON DATABASE template1 TO PUBLIC",
        "REVOKE CONNECT ON DATABASE template1 FROM PUBLIC",
        Severity::Warn,
        "open_database:template1",
    ),
    (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN SERVER s TO partywall_app",
        "DROP FOREIGN DATA WRAPPER w CASCADE",
        Severity::Warn,
        "open_foreign_server:s",
    ),
    (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far (a int) SERVER s; GRANT SELECT ON far TO partywall_app",
        "DROP FOREIGN DATA WRAPPER w CASCADE",
        Severity::Breach,
        "foreign_table:public.far",
    ),
    (
        "CREATE POLICY x ON canary FOR UPDATE USING (org_id = (SELECT partywall.org())) WITH CHECK (org_id IS NOT NULL)",
        "DROP POLICY x ON canary",
        Severity::Breach,
        "policy_one_way:public.canary",
    ),
    (
        "CREATE TABLE bare (org_id text NOT NULL); GRANT SELECT ON bare TO partywall_app; SELECT partywall.protect('bare'); CREATE POLICY x ON bare USING (org_id = (SELECT partywall.org()) OR true)",
        "DROP TABLE bare",
        Severity::Breach,
        "policy_one_way:public.bare",
    ),
    (
        "CREATE POLICY x ON canary FOR SELECT USING (org_id = (SELECT current_setting('my.org', true)))",
        "DROP POLICY x ON canary",
        Severity::Breach,
        "policy_ignores_context:public.canary",
    ),
    (
        "CREATE POLICY x ON canary FOR SELECT USING (org_id = (SELECT current_setting('app.current_org_id', true)))",
        "DROP POLICY x ON canary",
        Severity::Warn,
        "policy_plain_context:public.canary",
    ),
    (
        "CREATE VIEW v AS SELECT 1 AS a; ALTER VIEW v OWNER TO partywall_app",
        "DROP VIEW v",
        Severity::Breach,
        "owned:public.v",
    ),
    (
        "CREATE ROLE clerk; GRANT SELECT ON canary TO clerk; CREATE POLICY x ON canary TO clerk USING (true); CREATE VIEW v AS SELECT * FROM canary; ALTER VIEW v OWNER TO clerk; GRANT SELECT ON v TO partywall_app",
        "DROP VIEW v; DROP POLICY x ON canary; REVOKE ALL ON canary FROM clerk; DROP ROLE clerk",
        Severity::Breach,
        "view_with_owners_rights:public.v",
    ),
    (
        "CREATE FUNCTION g() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT 1'; RETURN 1; END $$; CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT g()'",
        "DROP FUNCTION f(); DROP FUNCTION g()",
        Severity::Breach,
        "security_definer:public.f()",
    ),
    (
        "CREATE VIEW inner_view AS SELECT * FROM canary; CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM inner_view'",
        "DROP FUNCTION f(); DROP VIEW inner_view",
        Severity::Breach,
        "security_definer:public.f()",
    ),
    (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM count(*) FROM canary; RETURN NEW; END $$; REVOKE ALL ON FUNCTION f() FROM PUBLIC; CREATE TRIGGER x BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION f()",
        "DROP FUNCTION f() CASCADE",
        Severity::Breach,
        "security_definer:public.f()",
    ),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO partywall_app",
        "DROP FUNCTION f()",
        Severity::Breach,
        "function_owned:public.f()",
    ),
    (
        "ALTER FUNCTION partywall.org() OWNER TO partywall_app",
        "ALTER FUNCTION partywall.org() OWNER TO postgres",
        Severity::Breach,
        "function_owned:partywall.org()",
    ),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
        "DROP FUNCTION f()",
        Severity::Warn,
        "untrusted_function:public.f()",
    ),
    (
        "CREATE RULE x AS ON UPDATE TO ledger DO ALSO DELETE FROM canary WHERE id = OLD.id",
        "DROP RULE x ON ledger",
        Severity::Warn,
        "rule:public.ledger.x",
    ),
    (
        "GRANT SELECT ON canary TO partywall_app WITH GRANT OPTION",
        "REVOKE GRANT OPTION FOR SELECT ON canary FROM partywall_app",
        Severity::Warn,
        "grant_option:public.canary",
    ),
    (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO partywall_app",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM partywall_app",
        Severity::Warn,
        "default_privileges:public",
    ),
    (
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM PUBLIC",
        Severity::Warn,
        "default_privileges:every schema",
    ),
    (
        "GRANT UPDATE ON SEQUENCE ticket TO partywall_app",
        "REVOKE UPDATE ON SEQUENCE ticket FROM partywall_app",
        Severity::Warn,
        "open_sequence:public.ticket",
    ),
    (
        "GRANT SELECT ON pg_statistic TO partywall_app",
        "REVOKE SELECT ON pg_statistic FROM partywall_app",
        Severity::Breach,
        "catalog_readable:pg_statistic",
    ),
    (
        "CREATE STATISTICS of_canary ON org_id, body FROM canary; ANALYZE canary; SET allow_system_table_mods = on; CREATE TABLE saved AS SELECT pg_get_viewdef('pg_stats_ext') AS text; DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_catalog.pg_stats_ext WITH (security_barrier) AS ' || (SELECT regexp_replace(text, E'\\n  WHERE .*$', '') FROM saved); END $$",
        "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_catalog.pg_stats_ext WITH (security_barrier) AS ' || (SELECT text FROM saved); END $$; DROP TABLE saved; DROP STATISTICS of_canary; RESET allow_system_table_mods",
        Severity::Breach,
        "statistics_readable:pg_stats_ext:public.canary",
    ),
    (
        "GRANT SELECT ON partywall_locks.secret TO partywall_app",
        "REVOKE SELECT ON partywall_locks.secret FROM partywall_app",
        Severity::Warn,
        "lock_secret_readable:partywall_locks.secret",
    ),
    (
        "GRANT CREATE ON SCHEMA partywall_locks TO partywall_app",
        "REVOKE CREATE ON SCHEMA partywall_locks FROM partywall_app",
        Severity::Breach,
        "schema_owned:partywall_locks",
    ),
    ("CREATE SCHEMA theirs AUTHORIZATION partywall_app", "DROP SCHEMA theirs", Severity::Warn, "may_create:theirs"),
];

pub(super) async fn sound_shard() -> Shard {
    let shard = shard(Form::Guarded).await;
    let admin = shard.admin().await;
    admin.batch_execute(policies::HARDENING.sql).await.expect("hardens");
    admin.batch_execute(SOUND).await.expect("closes");
    shard
}

#[tokio::test]
async fn each_planted_fault_is_found_and_a_sound_database_has_none() {
    let (shard, keys) = (sound_shard().await, key_file(KEYS));
    let admin = shard.admin().await;
    let plan = plan_of(&before(&shard, "guarded", Some(&keys)));
    assert_eq!(attest(&plan, &[]).await, [], "a sound database");
    for (plant, undo, severity, key) in FAULTS {
        admin.batch_execute(plant).await.expect(plant);
        let found = attest(&plan, &[]).await;
        admin.batch_execute(undo).await.expect(undo);
        for key in key.split(" | ") {
            let one = found.iter().find(|finding| finding.key() == key);
            let one = one.unwrap_or_else(|| panic!("{plant}: {key} is not among {found:#?}"));
            assert_eq!(one.severity, *severity, "{plant}");
            assert!(!one.consequence.is_empty() && !one.mend.is_empty());
        }
    }
    if super::count(&admin, "SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'").await > 0 {
        admin.batch_execute("CREATE EXTENSION dblink").await.expect("extends");
        let found = attest(&plan, &[]).await;
        assert!(found.iter().any(|finding| finding.key() == "open_extension:dblink"), "{found:?}");
        admin.batch_execute(policies::HARDENING.sql).await.expect("hardens");
        assert_eq!(attest(&plan, &[]).await, [], "hardening closes it");
    }
    if super::version(&admin).await >= 150_000 {
        admin.batch_execute("GRANT SET ON PARAMETER backtrace_functions TO partywall_app").await.expect("grants");
        let found = attest(&plan, &[]).await;
        assert!(found.iter().any(|finding| finding.key() == "context_writable:backtrace_functions"), "{found:?}");
        admin.batch_execute("REVOKE SET ON PARAMETER backtrace_functions FROM partywall_app").await.expect("revokes");
    }
    // What an operator has accepted stays visible, and counts for nothing.
    admin.batch_execute("GRANT TRUNCATE ON canary TO partywall_app").await.expect("grants");
    let allow = ["grant_beyond_policies:public.canary".to_owned()];
    let found = attest(&plan, &allow).await;
    assert!(found.len() == 1 && found[0].allowed && !found[0].is_breach(), "{found:?}");
    admin.batch_execute("REVOKE TRUNCATE ON canary FROM partywall_app").await.expect("revokes");
    // The canaries have left nothing.
    let left = super::count(&admin, "SELECT count(*) FROM ledger").await;
    assert_eq!((attest(&plan, &[]).await, left), (Vec::new(), 0));
}

#[tokio::test]
async fn transactions_that_can_be_prepared_are_found_and_a_role_that_will_not_do_is_not_even_asked() {
    let shard = Shard::start_with(&ClusterOptions::default().setting("max_prepared_transactions", "5"));
    let plan = plan_of(&before(&shard, "auto", None));
    let found = attest(&plan, &[]).await;
    let key = "open_prepared_transactions:max_prepared_transactions";
    assert!(found.iter().any(|finding| finding.key() == key && finding.severity == Severity::Warn), "{found:?}");
    let admin = shard.admin().await;
    for (plant, undo, word) in [
        ("ALTER ROLE partywall_app SUPERUSER", "ALTER ROLE partywall_app NOSUPERUSER", "superuser"),
        ("ALTER ROLE partywall_app BYPASSRLS", "ALTER ROLE partywall_app NOBYPASSRLS", "BYPASSRLS"),
        ("ALTER ROLE partywall_app CREATEROLE", "ALTER ROLE partywall_app NOCREATEROLE", "CREATEROLE"),
        ("ALTER ROLE partywall_app CREATEDB", "ALTER ROLE partywall_app NOCREATEDB", "CREATEDB"),
        ("ALTER ROLE partywall_app REPLICATION", "ALTER ROLE partywall_app NOREPLICATION", "REPLICATION"),
        ("GRANT pg_read_all_data TO partywall_app", "REVOKE pg_read_all_data FROM partywall_app", "pg_read_all_data"),
        ("GRANT pg_monitor TO partywall_app", "REVOKE pg_monitor FROM partywall_app", "pg_monitor"),
    ] {
        if word == "pg_read_all_data" && super::version(&admin).await < 140_000 {
            continue;
        }
        admin.batch_execute(plant).await.expect(plant);
        let error = control::attest_shard(&plan, Depth::Writing, &[]).await.expect_err(plant).to_string();
        admin.batch_execute(undo).await.expect(undo);
        assert!(error.contains(word), "{plant}: {error}");
    }
}

#[tokio::test]
async fn a_plain_context_is_told_of_and_served() {
    let shard = shard(Form::Plain).await;
    let plan = plan_of(&before(&shard, "auto", None));
    let found = attest(&plan, &[]).await;
    assert!(
        found.iter().any(|finding| finding.name == "context_plain" && finding.severity == Severity::Note),
        "{found:?}"
    );
    assert!(!found.iter().any(Finding::is_breach), "{found:?}");
}

/// What `/readyz` says, and whether it is yes.
async fn readiness(proxy: &Proxy) -> (bool, String) {
    let mut stream = tokio::net::TcpStream::connect(proxy.admin_address()).await.expect("connects");
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await.expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answers");
    (answer.starts_with("HTTP/1.1 200"), answer)
}

/// Whether a client of acme gets an answer; the SQLSTATE of its refusal otherwise.
pub(super) async fn served(proxy: &Proxy) -> Result<(), String> {
    let work = async {
        let client = proxy.connect_with(&proxy.client_config("acme")).await?;
        client.query("SELECT body FROM canary LIMIT 1", &[]).await.map(drop)
    };
    work.await
        .map_err(|error: tokio_postgres::Error| error.code().map(|code| code.code().to_owned()).unwrap_or_default())
}

pub(super) async fn until(proxy: &Proxy, wanted: Result<(), &str>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = served(proxy).await;
        if now.as_ref().copied().map_err(String::as_str) == wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{now:?}, not {wanted:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_shard_with_a_breach_is_taken_out_and_comes_back_when_it_is_mended() {
    let (mut shard, keys) = (sound_shard().await, key_file(KEYS));
    let proxy = before(&shard, "auto", Some(&keys)).option("check", "interval_s = 1").start().await;
    assert_eq!(served(&proxy).await, Ok(()));
    let admin = shard.admin().await;
    admin.batch_execute("ALTER TABLE ledger DISABLE ROW LEVEL SECURITY").await.expect("breaches");
    until(&proxy, Err("57P03")).await;
    assert!(proxy.metrics().await.contains("partywall_shard_attested{shard=\"shard_1\"} 0"));
    let (ready, state) = readiness(&proxy).await;
    assert!(!ready && state.contains("\"unattested\"") && state.contains("table_without_rls:public.ledger"), "{state}");
    admin.batch_execute("ALTER TABLE ledger ENABLE ROW LEVEL SECURITY").await.expect("mends");
    until(&proxy, Ok(())).await;
    assert!(proxy.metrics().await.contains("partywall_shard_attested{shard=\"shard_1\"} 1"));
    let (ready, state) = readiness(&proxy).await;
    assert!(ready && !state.contains("unattested"), "{state}");
    // What comes back from a failure is looked at before it is served.
    drop(admin);
    shard.cluster.restart().expect("restarts");
    until(&proxy, Ok(())).await;
}

#[tokio::test]
async fn a_shard_with_a_breach_is_not_served_from_the_start_but_where_the_operator_says_so() {
    let shard = shard(Form::Plain).await;
    shard.admin().await.batch_execute("GRANT TRUNCATE ON canary TO partywall_app").await.expect("breaches");
    let refusing = before(&shard, "auto", None).start().await;
    assert_eq!(served(&refusing).await, Err("57P03".to_owned()));
    let warning = Proxy::before(&shard).option("check", "on_breach = \"warn\"").start().await;
    assert_eq!(served(&warning).await, Ok(()));
    let allowing =
        before(&shard, "auto", None).option("check", "allow = [\"grant_beyond_policies:public.canary\"]").start().await;
    assert_eq!(served(&allowing).await, Ok(()));
}

#[tokio::test]
async fn the_commands_install_everything_and_check_says_so() {
    let shard = Shard::start();
    let keys = key_file(KEYS);
    let files = before(&shard, "auto", Some(&keys)).write();
    let mut password = NamedTempFile::new().expect("a file");
    password.write_all(shard.cluster.superuser_password().as_bytes()).expect("writes");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_partywall"));
        command.args(arguments).arg("--config").arg(files.path()).env_remove("PARTYWALL_ADMIN_URL");
        if matches!(arguments, ["policies", "apply" | "status"]) {
            command.args(["--admin-user", "postgres", "--admin-password-file"]).arg(password.path());
        }
        let output = command.output().expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    for _ in 0..2 {
        let (good, text) = run(&["policies", "apply"]);
        // The test's cluster leaves template1 open to everybody, which is a warning.
        assert!(good && text.contains("WARNING: "), "{text}");
        for step in ["done roles.sql", "done context_guarded.sql", "done keys", "done hardening.sql", "done: signals"] {
            assert!(text.contains(step), "{step}: {text}");
        }
        assert!(!text.contains("NOT DONE"), "{text}");
        assert!(!text.contains(&"1".repeat(32)), "no key is printed");
    }
    let (good, text) = run(&["policies", "status"]);
    assert!(good && text.contains("public.canary") || text.contains("canary"), "{text}");
    let (good, text) = run(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(good && report["ok"] == true && report["shards"][0]["context"] == "guarded", "{text}");
    shard.admin().await.batch_execute("ALTER TABLE canary DISABLE ROW LEVEL SECURITY").await.expect("breaches");
    let (good, text) = run(&["check", "--json"]);
    assert!(!good && text.contains("table_without_rls"), "{text}");
    let (good, text) = run(&["check"]);
    assert!(
        !good && text.contains("NOT FIT TO BE SERVED") && text.contains("mend: SELECT partywall.protect("),
        "{text}"
    );
    let in_the_way =
        "DROP FUNCTION partywall.user_id(); CREATE FUNCTION partywall.user_id() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    shard.admin().await.batch_execute(in_the_way).await.expect("stands in the way");
    let (good, text) = run(&["policies", "apply"]);
    assert!(!good && text.contains("NOT DONE context_guarded.sql"), "{text}");
    let (good, text) = run(&["policies", "print"]);
    assert!(good && text.contains("CREATE OR REPLACE FUNCTION partywall.enter"), "{text}");
}
