//! The guard's lists against a live server: whatever PostgreSQL has that matters must stand in one of them.

use partywall::config::{GuardPolicy, Right};
use partywall::guard::{Change, Guard, Known, Value};
use partywall::provision::{Cluster, ClusterOptions};

fn guard() -> Guard {
    let policy = GuardPolicy { default_rights: vec![Right::Read, Right::Write], ..GuardPolicy::default() };
    Guard::new(&policy, &["app.current_org_id".to_owned()], 1 << 20)
}

async fn names(client: &tokio_postgres::Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.expect("the catalogs can be read").iter().map(|row| row.get(0)).collect()
}

/// The server that all tests use, and PostgreSQL 18 where `scripts/setup postgres18` could put it.
fn clusters() -> Vec<Cluster> {
    let options = |binaries| ClusterOptions { binaries, ..ClusterOptions::default() };
    let all = [Some(None), crate::support::newest_postgres().map(Some)].into_iter().flatten();
    all.map(|binaries| Cluster::start_with(&options(binaries)).expect("a cluster")).collect()
}

/// Functions of these names belong to types, operators and event triggers: nobody calls them by name.
const CALLED_BY_NOBODY: &str =
    "'(_(in|out|recv|send)|^pg_lsn_(eq|ne|lt|le|gt|ge|pli|mii|hash_extended)|^pg_event_trigger_.*)$'";

#[tokio::test]
async fn every_function_relation_and_setting_of_postgres_that_matters_stands_in_a_list() {
    let guard = guard();
    for cluster in clusters() {
        let client = cluster.connect("postgres").await.unwrap();
        let version = names(&client, "SHOW server_version").await.remove(0);
        // What is volatile or privileged could do anything; what begins with `pg_` and stands nowhere is refused, so a
        // new one that clients call would be missed.
        let functions = format!(
            "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace \
             AND (provolatile = 'v' OR proacl IS NOT NULL OR proname LIKE '%to\\_xml%' \
             OR proname LIKE 'pg\\_%' AND proname !~ {CALLED_BY_NOBODY})"
        );
        let relations = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace = 'pg_catalog'::regnamespace";
        let settings = "SELECT name FROM pg_settings WHERE context = 'user'";
        for (what, sql) in
            [(Known::Function, functions.as_str()), (Known::Relation, relations), (Known::Setting, settings)]
        {
            let mut unknown = names(&client, sql).await;
            assert!(unknown.len() > 100);
            unknown.retain(|name| !guard.knows(what, name));
            assert!(unknown.is_empty(), "{what:?} of {version} in no list: {unknown:?}");
        }
    }
}

/// What stands in no list is refused where its name says that it is PostgreSQL's.
#[test]
fn a_function_of_a_later_postgres_is_refused_until_it_is_classified() {
    let guard = guard();
    let rights = guard.rights(&[] as &[&str], &[] as &[&str]);
    for sql in ["SELECT pg_brand_new()", "SELECT pg_catalog.pg_brand_new(1)", "SELECT * FROM pg_brand_new() AS f"] {
        assert!(guard.judge(sql, &rights).is_err(), "{sql}");
    }
}

/// The columns of the views of statistics that name objects; all others count everybody's work.
const NAMES: [&str; 22] = [
    "relid",
    "schemaname",
    "relname",
    "indexrelid",
    "indexrelname",
    "datid",
    "datname",
    "funcid",
    "funcname",
    "name",
    "backend_type",
    "object",
    "context",
    "sequencename",
    "sequenceowner",
    "data_type",
    "start_value",
    "min_value",
    "max_value",
    "increment_by",
    "cycle",
    "cache_size",
];

#[tokio::test]
async fn of_a_view_of_statistics_only_the_names_are_for_tenants() {
    let cluster = Cluster::start().unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    let guard = guard();
    let rights = guard.rights(&[] as &[&str], &[] as &[&str]);
    let columns = "SELECT relname || '.' || attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid \
        WHERE relnamespace = 'pg_catalog'::regnamespace AND attnum > 0 AND relkind = 'v' \
        AND relname ~ '^(pg_stat(io)?_|pg_sequences$)'";
    let mut tried = 0;
    for column in names(&client, columns).await {
        let (view, column) = column.split_once('.').unwrap();
        if guard.judge(&format!("SELECT 1 FROM {view}"), &rights).is_err() {
            continue;
        }
        tried += 1;
        assert!(guard.knows(Known::Column, column), "{view}.{column} is in no list");
        for sql in [format!("SELECT {column} FROM {view}"), format!("SELECT v.{column} FROM pg_catalog.{view} AS v")] {
            assert_eq!(guard.judge(&sql, &rights).is_ok(), NAMES.contains(&column), "{sql}");
        }
    }
    assert!(tried > 100);
}

/// Counters of the server process and of sequences tell what others did, by whatever name they are asked for.
#[test]
fn counters_of_the_process_and_of_sequences_are_refused_where_tables_are_shared() {
    let guard = guard();
    let rights = guard.rights(&[] as &[&str], &[] as &[&str]);
    for sql in [
        "SELECT relname, seq_tup_read, n_tup_ins FROM pg_stat_xact_user_tables",
        "SELECT * FROM pg_stat_xact_all_tables",
        "SELECT x FROM pg_stat_xact_user_tables AS x",
        "SELECT (x).n_tup_ins FROM (SELECT t AS x FROM pg_catalog.pg_stat_xact_sys_tables AS t) AS y",
        "SELECT calls FROM pg_stat_xact_user_functions",
        "SELECT pg_stat_get_xact_tuples_inserted('t'::regclass)",
        "SELECT c.oid.pg_stat_get_xact_numscans FROM pg_class AS c",
        "SELECT last_value FROM pg_sequences",
        "TABLE pg_sequences",
        "SELECT row_to_json(s) FROM pg_sequences AS s",
        "SELECT count(*) FILTER (WHERE s.last_value > 1000) FROM pg_catalog.pg_sequences AS s",
        "SELECT pg_sequence_last_value('ticket')",
        "SELECT c.oid.pg_sequence_last_value FROM pg_class AS c",
        "SELECT pg_get_loaded_modules()",
        "SELECT * FROM pg_backend_memory_contexts",
        "SELECT * FROM pg_get_backend_memory_contexts()",
        "SELECT * FROM pg_stat_get_backend_io(1)",
        "SELECT * FROM pg_stat_get_wal()",
    ] {
        assert!(guard.judge(sql, &rights).is_err(), "{sql}");
    }
    for sql in [
        "SELECT schemaname, relname FROM pg_stat_xact_user_tables",
        "SELECT schemaname, sequencename, start_value, max_value FROM pg_sequences",
        "SELECT count(*) FROM pg_sequences WHERE sequencename = 'ticket'",
        "SELECT last_value FROM readings",
        "SELECT last_value(a) OVER (ORDER BY b) FROM readings",
    ] {
        assert!(guard.judge(sql, &rights).is_ok(), "{sql}");
    }
}

/// What the grammar takes for a call of one argument although it looks like a column, the server does too: the guard
/// must read it the same way.
#[tokio::test]
async fn a_column_that_is_none_is_a_call() {
    let cluster = Cluster::start().unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    let guard = guard();
    let rights = guard.rights(&[] as &[&str], &[] as &[&str]);
    for sql in ["SELECT (0.25).setseed", "SELECT x.pg_cancel_backend FROM generate_series(1, 1) AS x"] {
        client.simple_query(sql).await.unwrap();
    }
    assert!(guard.judge("SELECT x.pg_cancel_backend FROM generate_series(1, 1) AS x", &rights).is_err());
    assert!(!guard.judge("SELECT (0.25).setseed", &rights).unwrap().taints().is_empty());
}

/// Settings are replayed with `set_config` in the form that a verdict tells: the server must end with the same value.
#[tokio::test]
async fn a_setting_told_by_a_verdict_means_the_same_to_the_server() {
    let cluster = Cluster::start().unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    let guard = guard();
    let rights = guard.rights(&[] as &[&str], &[] as &[&str]);
    for sql in [
        "SET search_path TO \"$user\", public, 'a\"b', \"A, b\"",
        "SET search_path = ''",
        "SET SCHEMA 'app'",
        "SET DateStyle = ISO, DMY",
        "SET TIME ZONE INTERVAL '+02:30' HOUR TO MINUTE",
        "SET TIME ZONE -7",
        "SET TIME ZONE 'Europe/Paris'",
        "SET work_mem = '12MB'",
        "SET statement_timeout = 1500",
        "SET geqo_seed = 0.25",
        "SET jit = off",
        "SET intervalstyle = iso_8601",
        "SET client_encoding = 'utf-8'",
        "SET XML OPTION DOCUMENT",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SET default_transaction_read_only = on",
        "SET \"My.Flag\" = 'it''s'",
    ] {
        let verdict = guard.judge(sql, &rights).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        let [Change::Set(set)] = &*verdict.changes().cloned().collect::<Vec<_>>() else { panic!("{sql}") };
        let Value::Literal(value) = &set.value else { panic!("{sql}") };
        let show = || async {
            let row = client.query_one("SELECT current_setting($1)", &[&&*set.name]).await.unwrap();
            row.get::<_, String>(0)
        };
        client.simple_query(sql).await.unwrap();
        let by_set = show().await;
        client.simple_query("RESET ALL").await.unwrap();
        client.query("SELECT set_config($1, $2, false)", &[&&*set.name, &&**value]).await.unwrap();
        assert_eq!(show().await, by_set, "{sql} told as {value:?}");
        client.simple_query("RESET ALL").await.unwrap();
    }
}
