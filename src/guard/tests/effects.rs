//! What a verdict says: classes, relations, changes of the session, what is left behind.

use super::*;
use crate::event::StatementClass as Class;
use crate::guard::{Change, ResetBy, Set, Taints, Value};

fn changes(sql: &str) -> Vec<Change> {
    allowed(sql).changes().cloned().collect()
}

fn changes_alone(sql: &str) -> Vec<Change> {
    judge_alone(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}")).changes().cloned().collect()
}

fn reset(name: &str, local: bool, by: ResetBy) -> Change {
    Change::Reset { name: name.into(), local, by }
}

fn set(name: &str, value: &str, local: bool) -> Change {
    let magnitude = None;
    Change::Set(Set { name: name.into(), value: Value::Literal(value.into()), local: Some(local), magnitude })
}

fn limit(name: &str, value: &str, magnitude: u64) -> Change {
    let value = Value::Literal(value.into());
    Change::Set(Set { name: name.into(), value, local: Some(false), magnitude: Some(magnitude) })
}

#[test]
fn a_verdict_is_remembered_for_its_rights_alone() {
    let guard = guard();
    let (owner, analyst) = (rights(&guard, "owner"), rights(&guard, "analyst"));
    let first = guard.judge("INSERT INTO t VALUES (1)", &owner).unwrap();
    assert!(Arc::ptr_eq(&first, &guard.judge("INSERT INTO t VALUES (1)", &owner).unwrap()));
    assert_eq!(guard.judge("INSERT INTO t VALUES (1)", &analyst).unwrap_err().kind(), Kind::ReadOnly);
    assert!(guard.judge("SELECT pg_reload_conf()", &owner).is_err());
    assert!(guard.judge(&format!("SELECT '{}'", "x".repeat(17 << 10)), &owner).is_ok());
    assert_eq!(guard.cache.len(), 1);
}

#[test]
fn the_memory_of_verdicts_is_bounded() {
    let guard = guard();
    let owner = rights(&guard, "owner");
    for number in 0..4_000 {
        guard.judge(&format!("SELECT {number}, '{}'", "x".repeat(15 << 10)), &owner).unwrap();
    }
    assert!(guard.cache.len() < 2_300, "{} texts of 15 KB", guard.cache.len());
}

#[test]
fn every_statement_has_its_class() {
    for (sql, class) in [
        ("SELECT 1", Class::Read),
        ("VALUES (1)", Class::Read),
        ("TABLE t", Class::Read),
        ("EXPLAIN DELETE FROM t", Class::Read),
        ("FETCH c", Class::Read),
        ("DECLARE c CURSOR FOR SELECT 1", Class::Read),
        ("INSERT INTO t VALUES (1)", Class::Write),
        ("UPDATE t SET a = 1", Class::Write),
        ("DELETE FROM t", Class::Write),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", Class::Write),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", Class::Write),
        ("CALL p()", Class::Write),
        ("SELECT nextval('s')", Class::Write),
        ("SELECT * FROM t FOR KEY SHARE", Class::Write),
        ("CREATE TEMP TABLE t (a int)", Class::Ddl),
        ("SELECT 1 AS a INTO TEMP t", Class::Ddl),
        ("BEGIN", Class::Transaction),
        ("SAVEPOINT a", Class::Transaction),
        ("SET jit = off", Class::Session),
        ("SHOW jit", Class::Session),
        ("PREPARE p AS DELETE FROM t", Class::Session),
        ("DEALLOCATE p", Class::Session),
        ("COPY t TO STDOUT", Class::Copy),
        ("COPY t FROM STDIN", Class::Copy),
        ("EXECUTE p", Class::Utility),
        ("CLOSE c", Class::Utility),
        ("BEGIN; SELECT 1; COMMIT", Class::Read),
        ("SET jit = off; SELECT 1; INSERT INTO t VALUES (1)", Class::Write),
    ] {
        assert_eq!(allowed(sql).class(), class, "{sql}");
    }
    for sql in ["EXPLAIN ANALYZE DELETE FROM t", "EXPLAIN (ANALYZE, COSTS off) UPDATE t SET a = 1"] {
        assert_eq!(judge_alone(sql).unwrap().class(), Class::Write, "{sql}");
    }
}

#[test]
fn each_statement_of_a_text_has_its_place_class_and_changes() {
    let sql = "SET jit = off; SELECT 'ä' ;RESET ALL";
    let verdict = allowed(sql);
    let texts: Vec<_> = verdict.statements().iter().map(|statement| sql[statement.range()].trim()).collect();
    assert_eq!(texts, ["SET jit = off", "SELECT 'ä'", "RESET ALL"]);
    let classes: Vec<_> = verdict.statements().iter().map(|statement| statement.class()).collect();
    assert_eq!(classes, [Class::Session, Class::Read, Class::Session]);
    assert_eq!(verdict.statements()[2].changes(), [Change::ResetAll]);
    assert!(!verdict.changes_nothing());
    assert!(allowed("SELECT 1").changes_nothing());
}

#[test]
fn relations_are_named_as_written_and_once() {
    let verdict = allowed(
        "WITH moved AS (DELETE FROM app.old RETURNING *) INSERT INTO new SELECT m.* FROM moved m JOIN t ON true JOIN t t2 ON true",
    );
    let names = |list: &[Box<str>]| {
        let mut names: Vec<_> = list.iter().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(verdict.reads()), ["app.old", "t"]);
    assert_eq!(names(verdict.writes()), ["app.old", "new"]);
    let many: Vec<_> = (0..200).map(|number| format!("t{number}")).collect();
    assert_eq!(allowed(&format!("SELECT 1 FROM {}", many.join(","))).reads().len(), crate::guard::RELATIONS_MAX);
}

#[test]
fn settings_are_told_in_the_form_that_set_config_takes() {
    assert_eq!(changes("SET jit = off"), [set("jit", "off", false)]);
    assert_eq!(changes("SET LOCAL jit TO on"), [set("jit", "on", true)]);
    assert_eq!(changes("SET TimeZone = 'UTC'"), [set("timezone", "UTC", false)]);
    assert_eq!(changes("SET TIME ZONE 'UTC'"), [set("timezone", "UTC", false)]);
    assert_eq!(changes("SET TIME ZONE -7"), [set("timezone", "-7", false)]);
    assert_eq!(
        changes("SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE"),
        [set("timezone", "INTERVAL '+00:00'", false)]
    );
    assert_eq!(changes("SET DateStyle = ISO, MDY"), [set("datestyle", "iso, mdy", false)]);
    assert_eq!(
        changes("SET search_path TO \"$user\", public, 'a\"b'"),
        [set("search_path", "\"$user\", public, \"a\"\"b\"", false)]
    );
    assert_eq!(changes("SET SCHEMA 'app'"), [set("search_path", "app", false)]);
    assert_eq!(changes("SET NAMES 'utf-8'"), [set("client_encoding", "utf-8", false)]);
    assert_eq!(changes("SET geqo_seed = 0.5"), [set("geqo_seed", "0.5", false)]);
    assert_eq!(
        changes("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"),
        [
            set("default_transaction_isolation", "serializable", false),
            set("default_transaction_read_only", "on", false),
            set("default_transaction_deferrable", "on", false),
        ]
    );
    assert_eq!(changes("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), []);
    assert_eq!(changes("SET transaction_read_only = on"), [set("transaction_read_only", "on", true)]);
    assert_eq!(changes("RESET jit"), [reset("jit", false, ResetBy::Reset)]);
    assert_eq!(changes("SET LOCAL jit TO DEFAULT"), [reset("jit", true, ResetBy::Set)]);
    assert_eq!(changes("RESET TIME ZONE"), [reset("timezone", false, ResetBy::Reset)]);
    assert_eq!(changes("RESET ALL"), [Change::ResetAll]);
}

#[test]
fn set_config_at_the_top_is_a_set() {
    assert_eq!(changes("SELECT set_config('TimeZone', 'UTC', false)"), [set("timezone", "UTC", false)]);
    assert_eq!(changes("SELECT 1, set_config('jit', 'off', true) AS x"), [set("jit", "off", true)]);
    assert_eq!(changes("SELECT set_config('jit', NULL, false)"), [reset("jit", false, ResetBy::Call)]);
    let told = |sql: &str| match changes(sql).as_slice() {
        [Change::Set(set)] => (set.value.clone(), set.local),
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(told("SELECT set_config('jit', $2, false)"), (Value::Parameter(2), Some(false)));
    assert_eq!(told("SELECT set_config('jit'::text, $1::text, $2)"), (Value::Parameter(1), None));
    assert_eq!(told("SELECT set_config('jit', lower('OFF'), 't'::bool)"), (Value::Unknown, Some(true)));
    let from_settings = "SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'jit'";
    assert_eq!(changes(from_settings), [set("jit", "view", false)]);
}

#[test]
fn pg_trgms_set_limit_is_a_set() {
    let name = "pg_trgm.similarity_threshold".into();
    let set = Change::Set(Set { name, value: Value::Unknown, local: Some(false), magnitude: None });
    for sql in ["SELECT set_limit(0.5)", "SELECT (0.5).set_limit FROM t"] {
        assert_eq!(changes(sql), std::slice::from_ref(&set), "{sql}");
    }
}

#[test]
fn limits_are_told_as_numbers() {
    assert_eq!(changes("SET statement_timeout = '5s'"), [limit("statement_timeout", "5s", 5_000)]);
    assert_eq!(changes("SET statement_timeout = 0"), [limit("statement_timeout", "0", u64::MAX)]);
    assert_eq!(changes("SET sort_mem = '64MB'"), [limit("work_mem", "64MB", 64 << 10)]);
    let settings = crate::guard::TIER_LIMITS;
    for name in settings {
        match changes(&format!("SET {name} = 3")).as_slice() {
            [Change::Set(set)] => assert_eq!(set.magnitude, Some(3), "{name}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(changes("SET lock_timeout = '1h'"), [set("lock_timeout", "1h", false)]);
    assert_eq!(changes("SET temp_buffers = '8MB'"), [set("temp_buffers", "8MB", false)]);
}

#[test]
fn start_up_parameters_are_judged_like_set() {
    let guard = guard();
    let owner = rights(&guard, "owner");
    let set = guard.may_set("Statement_Timeout", "2min", &owner).unwrap();
    assert_eq!((&*set.name, set.magnitude), ("statement_timeout", Some(120_000)));
    for (name, value) in [
        ("client_encoding", "'utf-8'"),
        ("DateStyle", "ISO, MDY"),
        ("search_path", "app"),
        ("TimeZone", "UTC"),
        ("options.flag", "x"),
    ] {
        assert!(guard.may_set(name, value, &owner).is_ok(), "{name}");
    }
    for (name, value) in [
        ("app.current_org_id", "x"),
        ("APP.x", "x"),
        ("role", "admin"),
        ("session_authorization", "admin"),
        ("row_security", "off"),
        ("client_encoding", "SJIS"),
        ("standard_conforming_strings", "off"),
        ("local_preload_libraries", "x"),
        ("ignore_system_indexes", "on"),
    ] {
        assert_eq!(guard.may_set(name, value, &owner).unwrap_err().kind(), Kind::Forbidden, "{name}");
    }
}

#[test]
fn transactions_cursors_and_prepared_statements_are_followed() {
    let name = |text: &str| text.into();
    for (sql, change) in [
        ("BEGIN", Change::Begin),
        ("START TRANSACTION READ ONLY", Change::Begin),
        ("COMMIT", Change::Commit { chain: false }),
        ("END AND CHAIN", Change::Commit { chain: true }),
        ("ROLLBACK", Change::Rollback { chain: false }),
        ("ABORT AND CHAIN", Change::Rollback { chain: true }),
        ("SAVEPOINT \"A\"", Change::Savepoint(name("A"))),
        ("RELEASE A", Change::Release(name("a"))),
        ("ROLLBACK TO SAVEPOINT a", Change::RollbackTo(name("a"))),
        ("EXECUTE p(1)", Change::Execute(name("p"))),
        ("EXPLAIN EXECUTE p(1)", Change::Execute(name("p"))),
        ("DEALLOCATE PREPARE p", Change::Deallocate(Some(name("p")))),
        ("DEALLOCATE ALL", Change::Deallocate(None)),
        ("DECLARE c CURSOR FOR SELECT 1", Change::DeclareCursor { name: name("c"), hold: false }),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Change::DeclareCursor { name: name("c"), hold: true }),
        ("CLOSE c", Change::CloseCursor(Some(name("c")))),
        ("CLOSE ALL", Change::CloseCursor(None)),
        ("COPY t FROM STDIN", Change::CopyIn),
        ("COPY t TO STDOUT", Change::CopyOut),
        ("CREATE TEMP TABLE x (a int)", Change::CreateTemp),
        ("CREATE TEMP VIEW x AS SELECT 1", Change::CreateTemp),
        ("CREATE TEMP SEQUENCE x", Change::CreateTemp),
        ("SELECT 1 AS a INTO TEMP x", Change::CreateTemp),
        ("UNLISTEN *", Change::Unlisten(None)),
        ("SELECT pg_advisory_unlock(1)", Change::AdvisoryUnlock { all: false }),
        ("SELECT pg_advisory_unlock_all()", Change::AdvisoryUnlock { all: true }),
        ("DISCARD ALL", Change::DiscardAll),
        ("DISCARD PLANS", Change::DiscardPlans),
        ("DISCARD TEMP", Change::DiscardTemp),
        ("DISCARD SEQUENCES", Change::DiscardSequences),
    ] {
        assert_eq!(changes(sql), [change], "{sql}");
    }
    let prepare = |class, grows_data| Change::Prepare { name: "p".into(), class, grows_data };
    assert_eq!(changes("PREPARE p AS INSERT INTO t VALUES ($1)"), [prepare(Class::Write, true)]);
    assert_eq!(changes("PREPARE p AS SELECT 1"), [prepare(Class::Read, false)]);
    assert_eq!(changes("CREATE TEMP TABLE x AS EXECUTE p(1)"), [Change::CreateTemp, Change::Execute("p".into())]);
}

#[test]
fn advisory_locks_of_a_shared_database_are_rewritten_to_the_organizations_own() {
    let lock = |session| Change::AdvisoryLock { session };
    for (sql, sent, change) in [
        ("SELECT pg_advisory_lock(1)", "SELECT partywall_locks.pg_advisory_lock(1)", lock(true)),
        ("select PG_CATALOG.PG_Try_Advisory_Lock($1)", "select partywall_locks.PG_Try_Advisory_Lock($1)", lock(true)),
        (
            "SELECT \"pg_advisory_xact_lock\"(1, 2)",
            "SELECT partywall_locks.\"pg_advisory_xact_lock\"(1, 2)",
            lock(false),
        ),
        (
            "/* ü */ SELECT pg_advisory_unlock(1)",
            "/* ü */ SELECT partywall_locks.pg_advisory_unlock(1)",
            Change::AdvisoryUnlock { all: false },
        ),
    ] {
        let verdict = judge(sql).unwrap_or_else(|no| panic!("{sql}: {no:?}"));
        assert_eq!(verdict.rewritten(), Some(sent), "{sql}");
        assert_eq!(changes(sql), [change], "{sql}");
    }
    // Places are those of the text that is sent, and no other part of the text is touched.
    let verdict = judge("SELECT 'pg_advisory_lock(1)' FROM pg_advisory_lock(1); RESET ALL").unwrap();
    let sent = verdict.rewritten().unwrap();
    assert_eq!(&sent[verdict.statements()[1].range()], "RESET ALL");
    assert_eq!(
        &sent[verdict.statements()[0].range()],
        "SELECT 'pg_advisory_lock(1)' FROM partywall_locks.pg_advisory_lock(1)"
    );
    for untouched in [
        "SELECT 'pg_advisory_lock(1)'",
        "SELECT pg_advisory_unlock_all()",
        "SELECT partywall_locks.pg_advisory_lock(1)",
    ] {
        assert_eq!(judge(untouched).unwrap().rewritten(), None, "{untouched}");
    }
    assert_eq!(judge_alone("SELECT pg_advisory_lock(1)").unwrap().rewritten(), None);
}

#[test]
fn a_value_above_the_tiers_limit_is_written_anew_as_the_limit() {
    let guard = guard();
    let rights = rights(&guard, "owner").with_limits([Some(10_000), Some(500), None, Some(4096), Some(2)]);
    let sent = |sql: &str| guard.judge(sql, &rights).map(|verdict| verdict.rewritten().map(str::to_owned));
    for (sql, expected) in [
        ("SET statement_timeout = 0", "SET statement_timeout = '10000'"),
        ("SET LOCAL statement_timeout TO '1h'", "SET LOCAL statement_timeout TO '10000'"),
        (
            "set session \"Statement_Timeout\" = 10001 ; SELECT 0",
            "set session \"Statement_Timeout\" = '10000' ; SELECT 0",
        ),
        ("SET statement_timeout = '10001ms'", "SET statement_timeout = '10000'"),
        ("SET statement_timeout = '0.4ms'", "SET statement_timeout = '10000'"),
        ("SET idle_in_transaction_session_timeout = 0", "SET idle_in_transaction_session_timeout = '500'"),
        ("SET work_mem = '1GB'", "SET work_mem = '4096'"),
        ("SET sort_mem = 1000000", "SET sort_mem = '4096'"),
        ("SELECT set_config('statement_timeout', '0', $1)", "SELECT set_config('statement_timeout', '10000', $1)"),
        (
            "SELECT 0, pg_catalog.set_config('statement_timeout', '0'::text, false), set_config('work_mem', '9GB', true)",
            "SELECT 0, pg_catalog.set_config('statement_timeout', '10000'::text, false), set_config('work_mem', '4096', true)",
        ),
    ] {
        assert_eq!(sent(sql).unwrap_or_else(|no| panic!("{sql}: {no:?}")).as_deref(), Some(expected), "{sql}");
        let verdict = guard.judge(sql, &rights).unwrap();
        for change in verdict.changes() {
            let Change::Set(set) = change else { panic!("{sql}: {change:?}") };
            assert!(set.magnitude.unwrap() <= 10_000, "{sql}: {set:?}");
        }
    }
    for within in ["SET statement_timeout = '10s'", "SET statement_timeout = 1", "SET transaction_timeout = 0"] {
        assert_eq!(sent(within).unwrap(), None, "{within}");
    }
    // What cannot be found plainly in the text, or would be pieced together anew, is refused.
    for odd in [
        "SELECT set_config('statement_timeout', $$0$$, false)",
        "SELECT set_config('statement_timeout', E'0', false)",
        "SET statement_timeout = U&'\\0030'",
        "SET statement_timeout = '30'\n'0000'",
        "SET statement_timeout = -1",
        "SET statement_timeout = 0x0",
        "SET statement_timeout = 1e9",
        "SELECT set_config('statement_timeout', $1, false)",
    ] {
        assert!(sent(odd).is_err(), "{odd}");
    }
    let set = guard.may_set("Statement_Timeout", "0", &rights).unwrap();
    assert_eq!((set.value, set.magnitude), (Value::Literal("10000".into()), Some(10_000)));
}

#[test]
fn an_organization_with_its_own_database_has_its_channels_locks_and_definitions() {
    assert_eq!(changes_alone("LISTEN c"), [Change::Listen("c".into())]);
    assert_eq!(changes_alone("UNLISTEN c"), [Change::Unlisten(Some("c".into()))]);
    assert_eq!(changes_alone("NOTIFY c, 'x'"), [Change::Notify]);
    assert_eq!(changes_alone("SELECT pg_notify('c', 'x')"), [Change::Notify]);
    assert_eq!(changes_alone("SELECT pg_try_advisory_lock(1)"), [Change::AdvisoryLock { session: true }]);
    assert_eq!(changes_alone("SELECT pg_advisory_xact_lock(1)"), [Change::AdvisoryLock { session: false }]);
    for sql in [
        "CREATE TABLE x (id serial PRIMARY KEY, a text REFERENCES t (a) DEFAULT 'x')",
        "CREATE TABLE x PARTITION OF t FOR VALUES IN (1)",
        "CREATE TABLE x AS SELECT * FROM t",
        "CREATE VIEW v WITH (security_invoker) AS SELECT * FROM t",
        "CREATE UNIQUE INDEX CONCURRENTLY i ON t (lower(a)) WHERE a IS NOT NULL",
        "ALTER TABLE t ADD COLUMN b int DEFAULT 1, ADD CONSTRAINT c CHECK (b > 0)",
        "ALTER TABLE t RENAME COLUMN a TO b",
        "ALTER TABLE t ALTER CONSTRAINT c DEFERRABLE",
        "DROP TABLE IF EXISTS t, public.x CASCADE",
        "DROP TYPE mood",
        "DROP SCHEMA s",
        "CREATE SCHEMA IF NOT EXISTS s",
        "CREATE TYPE mood AS ENUM ('a')",
        "ALTER TYPE mood ADD VALUE 'b'",
        "CREATE SEQUENCE s",
        "ALTER SEQUENCE s RESTART",
        "COMMENT ON TABLE t IS 'x'",
    ] {
        let verdict = judge_alone(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        assert_eq!(verdict.class(), Class::Ddl, "{sql}");
    }
    for sql in ["TRUNCATE t", "SELECT setval('s', 1)"] {
        assert_eq!(judge_alone(sql).unwrap().class(), Class::Write, "{sql}");
    }
}

#[test]
fn even_alone_the_server_and_its_roles_stay_out_of_reach() {
    for sql in [
        "SET app.current_org_id = 'x'",
        "CREATE TABLE x (a text DEFAULT set_config('app.current_org_id', 'x', false))",
        "CREATE VIEW v AS SELECT set_config('app.current_org_id', 'x', false)",
        "CREATE INDEX ON t (set_config('app.current_org_id', 'x', false))",
        "ALTER TABLE t ADD CHECK (set_config('app.current_org_id', 'x', false) = 'x')",
        "ALTER TABLE t ALTER COLUMN a TYPE text USING set_config('app.current_org_id', 'x', false)",
        "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE t OWNER TO x",
        "ALTER TABLE t DISABLE TRIGGER ALL",
        "DROP FUNCTION f",
        "DROP POLICY p ON t",
        "DROP EXTENSION x",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
        "CREATE SCHEMA partywall CREATE TABLE t (a int)",
        "CREATE SCHEMA s AUTHORIZATION x",
        "CREATE TABLE pg_catalog.x (a int)",
        "CREATE TABLE partywall.x (a int)",
        "DROP TABLE partywall.keys",
        "DROP SCHEMA partywall",
        "DROP SCHEMA pg_catalog",
        "COPY t TO '/tmp/x'",
        "SELECT pg_cancel_backend(1)",
        "ALTER SYSTEM SET work_mem = 1",
        "VACUUM",
        "DO 'x'",
    ] {
        assert_eq!(kind(judge_alone(sql), sql), Kind::Forbidden, "{sql}");
    }
}

#[test]
fn what_may_be_left_behind_is_told() {
    for (sql, taint) in [
        ("SELECT setseed(0.5)", Taints::SEED),
        ("SELECT (0.5).setseed", Taints::SEED),
        ("SELECT nextval('s')", Taints::SEQUENCES),
        ("SELECT ('s'::regclass).nextval", Taints::SEQUENCES),
        ("CREATE TEMP TABLE x (a int)", Taints::TEMPORARY),
        ("CREATE TABLE pg_temp.x (a int)", Taints::TEMPORARY),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Taints::CURSOR),
        ("PREPARE p AS SELECT 1", Taints::PREPARED),
        ("SET my.flag = 1", Taints::CUSTOM_SETTING),
        ("SELECT set_config('my.flag', 'x', false)", Taints::CUSTOM_SETTING),
        ("SELECT 1; SELECT setseed(1)", Taints::SEED),
    ] {
        assert_eq!(allowed(sql).taints(), taint, "{sql}");
    }
    assert_eq!(judge_alone("LISTEN c").unwrap().taints(), Taints::LISTEN);
    assert_eq!(judge_alone("SELECT pg_advisory_lock(1)").unwrap().taints(), Taints::ADVISORY_LOCK);
    assert!(judge_alone("SELECT pg_advisory_xact_lock(1)").unwrap().taints().is_empty());
    assert!(allowed("SELECT * FROM t").taints().is_empty());
    let both = allowed("SELECT setseed(1), nextval('s')").taints();
    assert!(both.contains(Taints::SEED) && both.contains(Taints::SEQUENCES) && !both.contains(Taints::CURSOR));
    for sql in ["SELECT lastval()", "SELECT currval('s')", "INSERT INTO t VALUES (currval('s'))"] {
        assert!(allowed(sql).reads_sequence_state(), "{sql}");
    }
    assert!(!allowed("SELECT nextval('s')").reads_sequence_state());
}

#[test]
fn statements_that_grow_data_are_told() {
    for sql in [
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT VALUES (1)",
        "COPY t FROM STDIN",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM x",
        "SELECT 1; INSERT INTO t VALUES (1)",
    ] {
        assert!(allowed(sql).grows_data(), "{sql}");
    }
    for sql in ["SELECT 1", "DELETE FROM t", "COPY t TO STDOUT", "PREPARE p AS INSERT INTO t VALUES (1)", "BEGIN"] {
        assert!(!allowed(sql).grows_data(), "{sql}");
    }
    assert!(judge_alone("CREATE TABLE x AS SELECT 1").unwrap().grows_data());
    assert!(!judge_alone("TRUNCATE t").unwrap().grows_data());
}

#[test]
fn what_lives_on_one_connection_pins_the_session() {
    let pins = |changes: Vec<Change>| changes.iter().filter_map(Change::pins).collect::<Vec<_>>();
    assert_eq!(pins(changes("CREATE TEMP TABLE x (a int)")), ["temporary_object"]);
    assert_eq!(pins(changes("DECLARE c CURSOR WITH HOLD FOR SELECT 1")), ["holdable_cursor"]);
    assert_eq!(pins(changes("PREPARE p AS SELECT 1")), ["sql_prepare"]);
    assert_eq!(pins(changes_alone("LISTEN c")), ["listen"]);
    assert_eq!(pins(changes_alone("SELECT pg_advisory_lock(1)")), ["advisory_lock"]);
    assert!(pins(changes_alone("SELECT pg_advisory_xact_lock(1)")).is_empty());
    assert!(pins(changes("BEGIN; DECLARE c CURSOR FOR SELECT 1; SET jit = off; COMMIT")).is_empty());
}
