//! What tokens with fewer rights hear.

use super::*;

fn as_role(role: &str, sql: &str) -> Result<Arc<Verdict>, Refusal> {
    let guard = guard();
    guard.judge(sql, &rights(&guard, role))
}

#[test]
fn without_the_right_to_write_nothing_is_written() {
    for sql in [
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "COPY t FROM STDIN",
        "PREPARE p AS INSERT INTO t VALUES (1)",
        "EXPLAIN INSERT INTO t VALUES (1)",
        "DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR SHARE",
        "SELECT * FROM (SELECT * FROM t FOR KEY SHARE) x",
        "CREATE TEMP TABLE x (a int)",
        "CREATE TEMP TABLE x AS SELECT 1",
        "SELECT 1 INTO TEMP x",
        "DROP TABLE pg_temp.x",
        "CALL p()",
        "SELECT nextval('s')",
        "SELECT * FROM t WHERE id = ('s'::regclass).nextval",
    ] {
        assert_eq!(kind(as_role("analyst", sql), sql), Kind::ReadOnly, "{sql}");
        assert!(as_role("developer", sql).is_ok(), "{sql}");
    }
}

#[test]
fn a_reader_stays_read_only() {
    for sql in [
        "SET default_transaction_read_only = off",
        "SET transaction_read_only = off",
        "SET TRANSACTION READ WRITE",
        "BEGIN READ WRITE",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "RESET default_transaction_read_only",
        "SET default_transaction_read_only TO DEFAULT",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT set_config('transaction_read_only', $1, true)",
        "SELECT set_config('default_transaction_read_only', NULL, false)",
        "LOCK TABLE t IN ROW EXCLUSIVE MODE",
    ] {
        assert_eq!(kind(as_role("analyst", sql), sql), Kind::Forbidden, "{sql}");
        assert!(as_role("developer", sql).is_ok(), "{sql}");
    }
    for sql in ["BEGIN READ ONLY", "SET default_transaction_read_only = on", "LOCK TABLE t IN ACCESS SHARE MODE"] {
        assert!(as_role("analyst", sql).is_ok(), "{sql}");
    }
    assert!(rights(&guard(), "analyst").is_read_only());
    assert!(!rights(&guard(), "developer").is_read_only());
}

#[test]
fn definitions_need_their_right_even_alone() {
    let guard = guard();
    let developer = rights(&guard, "developer").with_isolation(Isolation::Schema);
    for sql in ["CREATE TABLE x (a int)", "DROP TABLE t", "ALTER TABLE t ADD COLUMN a int", "CREATE SCHEMA s"] {
        assert_eq!(kind(guard.judge(sql, &developer), sql), Kind::Forbidden, "{sql}");
    }
    assert!(guard.judge("LISTEN c", &developer).is_err(), "a schema shares its database");
}

#[test]
fn a_token_that_names_relations_reaches_them_alone() {
    let permissions = ["read:datasets", "write:events"];
    for sql in [
        "SELECT * FROM datasets",
        "SELECT * FROM public.datasets d JOIN events e ON true",
        "INSERT INTO events SELECT * FROM datasets",
        "UPDATE events SET a = 1",
        "WITH x AS (SELECT * FROM datasets) SELECT * FROM x",
        "WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a",
        "SELECT * FROM pg_class, information_schema.tables",
        "SELECT 1",
    ] {
        assert!(judge_permitted(&permissions, sql).is_ok(), "{sql}");
    }
    for sql in [
        "SELECT * FROM secrets",
        "SELECT * FROM other.datasets",
        "SELECT (SELECT count(*) FROM secrets) FROM datasets",
        "SELECT * FROM datasets UNION SELECT * FROM secrets",
        "SELECT * FROM datasets, LATERAL (TABLE secrets) x",
        "INSERT INTO events SELECT * FROM secrets",
        "INSERT INTO datasets VALUES (1)",
        "DELETE FROM datasets",
        "COPY secrets TO STDOUT",
        "COPY (SELECT * FROM secrets) TO STDOUT",
        "LOCK TABLE secrets IN ACCESS SHARE MODE",
        "PREPARE p AS SELECT * FROM secrets",
        "CREATE TEMP TABLE x (LIKE secrets)",
        "SELECT * FROM pg_stats",
        "SET search_path = other",
        "SELECT set_config('search_path', 'other', false)",
        "SET SCHEMA 'other'",
        // A WITH query hides a table only where PostgreSQL sees the query.
        "WITH secrets AS (SELECT * FROM secrets) SELECT * FROM secrets",
        "SELECT * FROM secrets WHERE EXISTS (WITH secrets AS (SELECT 1) SELECT 1)",
        "WITH a AS (SELECT * FROM secrets), secrets AS (SELECT 1) SELECT * FROM a",
        "SELECT * FROM (WITH secrets AS (SELECT 1) SELECT 1) x, secrets",
        "WITH secrets AS (SELECT 1) SELECT * FROM public.secrets",
        "WITH secrets AS (SELECT 1) SELECT 1; SELECT * FROM secrets",
        "WITH a AS (WITH secrets AS (SELECT 1) SELECT * FROM secrets) SELECT * FROM secrets",
    ] {
        let refusal = judge_permitted(&permissions, sql).expect_err(sql);
        assert_eq!(refusal.kind(), Kind::Forbidden, "{sql}");
    }
}

#[test]
fn who_may_only_insert_learns_nothing_of_what_is_there() {
    let guard = Guard::new(
        &GuardPolicy { permissions: [("load:*".to_owned(), vec![Right::Write])].into(), ..GuardPolicy::default() },
        &[],
        1 << 20,
    );
    let loader = guard.rights(&[] as &[&str], &["load:*"]);
    assert!(guard.judge("INSERT INTO t VALUES (1)", &loader).is_ok());
    assert!(guard.judge("COPY t FROM STDIN", &loader).is_ok());
    for sql in [
        "INSERT INTO t VALUES (1) RETURNING *",
        "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "MERGE INTO t USING (VALUES (1)) s ON true WHEN MATCHED THEN DELETE",
        "INSERT INTO t SELECT * FROM t",
    ] {
        assert_eq!(kind(guard.judge(sql, &loader), sql), Kind::Forbidden, "{sql}");
    }
}

#[test]
fn a_token_without_any_right_may_ask_for_the_time() {
    let guard = guard();
    let nobody = guard.rights(&["unknown"], &[] as &[&str]);
    assert!(guard.judge("SELECT now()", &nobody).is_ok());
    assert!(guard.judge("SELECT * FROM pg_type", &nobody).is_ok());
    assert!(guard.judge("SELECT * FROM t", &nobody).is_err());
}
