//! Ways out that tenants have tried: each must be refused, however it is written.

use super::*;

/// One line each: what a session with every right may still not do where tables are shared.
pub(super) const FORBIDDEN: &str = r#"
-- the tenant context
SET app.current_org_id = 'x'
SET LOCAL app.current_org_id = 'x'
SET SESSION app.current_org_id TO 'x'
SET "app"."current_org_id" = 'x'
SET "APP".Current_Org_Id = 'x'
SET "app.current_org_id" = 'x'
SET app . current_org_id = 'x'
SET U&"\0061pp".current_org_id = 'x'
SET/**/app./* */current_org_id='x'
SET app.anything_else = 'x'
SET partywall.anything = 'x'
RESET app.current_org_id
SET app.current_org_id TO DEFAULT
SELECT set_config('app.current_org_id', 'x', false)
SELECT pg_catalog.set_config('app.current_org_id', 'x', true)
SELECT "set_config"('app.current_org_id', 'x', true)
SELECT U&"set\005fconfig"('app.current_org_id', 'x', true)
SELECT set_config('APP.current_ORG_id', 'x', true)
SELECT set_config(E'app\x2ecurrent_org_id', 'x', true)
SELECT set_config($$app.current_org_id$$, 'x', true)
SELECT set_config('app.current_org_id'::text, 'x', true)
SELECT set_config('app.' || 'current_org_id', 'x', true)
SELECT set_config($1, 'x', true)
SELECT set_config($1::text, $2, $3)
SELECT set_config(lower('APP.CURRENT_ORG_ID'), 'x', true)
SELECT set_config(setting_name => 'app.current_org_id', new_value => 'x', is_local => true)
SELECT set_config(VARIADIC ARRAY['a','b'])
SELECT set_config('TimeZone', 'UTC', false) FROM datasets
SELECT set_config(name, 'x', false) FROM pg_settings
SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'app.current_org_id'
SELECT set_config(name, 'x', false) FROM pg_settings WHERE name <> 'TimeZone'
SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'TimeZone' OR true
SELECT set_config(name, 'x', false) FROM pg_settings, datasets WHERE name = 'TimeZone'
SELECT set_config(name, 'x', false) FROM public.pg_settings WHERE name = 'TimeZone'
WITH pg_settings AS (SELECT 'app.current_org_id' AS name) SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'TimeZone'
WITH x AS (SELECT set_config('TimeZone', 'UTC', false)) SELECT * FROM x
WITH x AS (SELECT 1) SELECT set_config('TimeZone', 'UTC', false)
SELECT set_config('TimeZone', 'UTC', false) WHERE false
SELECT set_config('TimeZone', 'UTC', false) LIMIT 0
SELECT set_config('TimeZone', 'UTC', false) OFFSET 1
SELECT set_config('TimeZone', 'UTC', false) ORDER BY 1
SELECT set_config('TimeZone', 'UTC', false) GROUP BY 1
SELECT set_config('TimeZone', 'UTC', false) HAVING false
SELECT set_config('TimeZone', 'UTC', false) WINDOW w AS ()
SELECT set_config('TimeZone', 'UTC', false) FOR UPDATE
SELECT set_config('TimeZone', 'UTC', false) INTO TEMP x
SELECT DISTINCT set_config('TimeZone', 'UTC', false)
SELECT set_config('TimeZone', 'UTC', false) UNION SELECT 'x'
SELECT upper(set_config('TimeZone', 'UTC', false))
SELECT set_config('TimeZone', 'UTC', false) || 'x'
SELECT set_config(setting_name => 'TimeZone', new_value => 'UTC', is_local => false)
SELECT set_config('TimeZone', 'UTC')
SELECT set_config('TimeZone', 'UTC', false), (SELECT set_config('TimeZone', 'UTC', false))
VALUES (set_config('TimeZone', 'UTC', false))
EXPLAIN SELECT set_config('TimeZone', 'UTC', false)
PREPARE p AS SELECT set_config('TimeZone', 'UTC', false)
DECLARE c CURSOR FOR SELECT set_config('TimeZone', 'UTC', false)
COPY (SELECT set_config('TimeZone', 'UTC', false)) TO STDOUT
CREATE TEMP TABLE x AS SELECT set_config('TimeZone', 'UTC', false)
SELECT set_config('TimeZone'::pg_temp.text, 'UTC', false)
SELECT set_config('TimeZone'::varchar(3), 'UTC', false)
SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'TimeZone' LIMIT 1
SELECT set_config(name, 'x', false) FROM pg_settings WHERE lower(name) = 'timezone'
SELECT set_config(name, 'x', false) FROM pg_settings WHERE setting = 'TimeZone'
SELECT set_config(name, 'x', false) FROM pg_settings WHERE name OPERATOR(x.=) 'TimeZone'
SELECT set_config(setting, 'x', false) FROM pg_settings WHERE name = 'TimeZone'
SELECT 1 WHERE set_config('app.current_org_id', 'x', true) IS NOT NULL
SELECT (SELECT set_config('app.current_org_id', 'x', true))
SELECT CASE WHEN true THEN set_config('app.current_org_id', 'x', true) END
SELECT ARRAY[set_config('app.current_org_id', 'x', true)]
SELECT ROW(set_config('app.current_org_id', 'x', true))
SELECT coalesce(set_config('app.current_org_id', 'x', true), 'y')
SELECT greatest(set_config('app.current_org_id', 'x', true), 'y')
SELECT nullif(set_config('app.current_org_id', 'x', true), 'y')
SELECT * FROM set_config('app.current_org_id', 'x', true)
SELECT * FROM ROWS FROM (set_config('app.current_org_id', 'x', true)) AS f
SELECT * FROM datasets, LATERAL set_config('app.current_org_id', name, true)
SELECT * FROM datasets ORDER BY set_config('app.current_org_id', 'x', true)
SELECT count(*) FROM datasets GROUP BY set_config('app.current_org_id', 'x', true)
SELECT count(*) FROM datasets HAVING set_config('app.current_org_id', 'x', true) = 'x'
SELECT count(*) FILTER (WHERE set_config('app.current_org_id', 'x', true) = 'x') FROM datasets
SELECT string_agg('a', 'b' ORDER BY set_config('app.current_org_id', 'x', true))
SELECT sum(1) OVER (PARTITION BY set_config('app.current_org_id', 'x', true)) FROM datasets
SELECT sum(1) OVER w FROM datasets WINDOW w AS (ORDER BY set_config('app.current_org_id', 'x', true))
SELECT DISTINCT ON (set_config('app.current_org_id', 'x', true)) * FROM datasets
SELECT 1 LIMIT length(set_config('app.current_org_id', 'x', true))
SELECT 1 OFFSET length(set_config('app.current_org_id', 'x', true))
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY length(set_config('app.current_org_id', 'x', true)))
VALUES (set_config('app.current_org_id', 'x', true))
SELECT 1 UNION ALL SELECT length(set_config('app.current_org_id', 'x', true))
SELECT * FROM datasets JOIN t ON set_config('app.current_org_id', 'x', true) = 'x'
SELECT * FROM datasets TABLESAMPLE system(length(set_config('app.current_org_id', 'x', true)))
SELECT (ARRAY[1])[length(set_config('app.current_org_id', 'x', true))]
SELECT 1 = ANY (ARRAY[length(set_config('app.current_org_id', 'x', true))])
SELECT 1 IN (SELECT length(set_config('app.current_org_id', 'x', true)))
SELECT EXISTS (SELECT set_config('app.current_org_id', 'x', true))
SELECT set_config('app.current_org_id', 'x', true) COLLATE "C"
SELECT set_config('app.current_org_id', 'x', true)::varchar
SELECT (set_config('app.current_org_id', 'x', true) IS NULL) IS TRUE
SELECT xmlelement(name a, set_config('app.current_org_id', 'x', true))
SELECT xmlforest(set_config('app.current_org_id', 'x', true) AS a)
SELECT * FROM xmltable('/a' PASSING xmlparse(content set_config('app.current_org_id', 'x', true)) COLUMNS a int)
SELECT json_object('a': set_config('app.current_org_id', 'x', true))
SELECT json_array(set_config('app.current_org_id', 'x', true))
SELECT json_array(SELECT set_config('app.current_org_id', 'x', true))
SELECT json_arrayagg(set_config('app.current_org_id', 'x', true))
SELECT json_objectagg('a': set_config('app.current_org_id', 'x', true))
SELECT json_value(set_config('app.current_org_id', 'x', true), '$')
SELECT json_query('{}', '$' PASSING set_config('app.current_org_id', 'x', true) AS x)
SELECT json_scalar(set_config('app.current_org_id', 'x', true))
SELECT json_serialize(set_config('app.current_org_id', 'x', true))
SELECT * FROM json_table(set_config('app.current_org_id', 'x', true), '$' COLUMNS (a int PATH '$'))
SELECT json_exists('{}', '$.a' PASSING set_config('app.current_org_id', 'x', true) AS x)
INSERT INTO datasets SELECT set_config('app.current_org_id', 'x', true)
INSERT INTO datasets VALUES (1, set_config('app.current_org_id', 'x', true))
INSERT INTO datasets VALUES (1) RETURNING set_config('app.current_org_id', 'x', true)
INSERT INTO datasets VALUES (1) ON CONFLICT (id) DO UPDATE SET name = set_config('app.current_org_id', 'x', true)
INSERT INTO datasets VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1 WHERE set_config('app.current_org_id', 'x', true) = 'x'
INSERT INTO datasets VALUES (1) ON CONFLICT (id) WHERE set_config('app.current_org_id', 'x', true) = 'x' DO NOTHING
UPDATE datasets SET name = set_config('app.current_org_id', 'x', true)
UPDATE datasets SET (name, b) = (SELECT set_config('app.current_org_id', 'x', true), 1)
UPDATE datasets SET a[length(set_config('app.current_org_id', 'x', true))] = 1
UPDATE datasets SET a = 1 FROM set_config('app.current_org_id', 'x', true)
UPDATE datasets SET a = 1 WHERE set_config('app.current_org_id', 'x', true) = 'x'
DELETE FROM datasets WHERE set_config('app.current_org_id', 'x', true) = 'x'
DELETE FROM datasets USING set_config('app.current_org_id', 'x', true) AS u
DELETE FROM datasets RETURNING set_config('app.current_org_id', 'x', true)
MERGE INTO datasets d USING t ON set_config('app.current_org_id', 'x', true) = 'x' WHEN MATCHED THEN DELETE
MERGE INTO datasets d USING t ON true WHEN MATCHED AND set_config('app.current_org_id', 'x', true) = 'x' THEN DELETE
MERGE INTO datasets d USING t ON true WHEN MATCHED THEN UPDATE SET a = set_config('app.current_org_id', 'x', true)
MERGE INTO datasets d USING t ON true WHEN NOT MATCHED THEN INSERT VALUES (set_config('app.current_org_id', 'x', true))
COPY (SELECT set_config('app.current_org_id', 'x', true)) TO STDOUT
COPY datasets FROM STDIN WHERE set_config('app.current_org_id', 'x', true) = 'x'
EXPLAIN SELECT set_config('app.current_org_id', 'x', true)
EXPLAIN (VERBOSE) SELECT 1 WHERE set_config('app.current_org_id', 'x', true) = 'x'
PREPARE p AS SELECT set_config('app.current_org_id', 'x', true)
PREPARE p(text) AS SELECT set_config('app.current_org_id', $1, true)
EXECUTE p(set_config('app.current_org_id', 'x', true))
EXPLAIN EXECUTE p(set_config('app.current_org_id', 'x', true))
DECLARE c CURSOR FOR SELECT set_config('app.current_org_id', 'x', true)
CREATE TEMP TABLE x AS SELECT set_config('app.current_org_id', 'x', true)
CREATE TEMP TABLE x (a text DEFAULT set_config('app.current_org_id', 'x', true))
CREATE TEMP TABLE x (a text CHECK (set_config('app.current_org_id', 'x', true) = 'x'))
CREATE TEMP TABLE x (a text GENERATED ALWAYS AS (set_config('app.current_org_id', 'x', true)) STORED)
CREATE TEMP VIEW v AS SELECT set_config('app.current_org_id', 'x', true)
CALL p(set_config('app.current_org_id', 'x', true))
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + length(set_config('app.current_org_id', 'x', true)) FROM r) SELECT * FROM r
WITH r AS (INSERT INTO datasets VALUES (1) RETURNING set_config('app.current_org_id', 'x', true)) SELECT * FROM r
UPDATE pg_settings SET setting = 'x' WHERE name = 'app.current_org_id'
UPDATE pg_catalog.pg_settings SET setting = 'x'
UPDATE ONLY "pg_settings" AS s SET setting = 'x'
WITH x AS (UPDATE pg_settings SET setting = 'x' RETURNING 1) SELECT * FROM x
MERGE INTO pg_settings s USING t ON true WHEN MATCHED THEN UPDATE SET setting = 'x'
PREPARE p AS UPDATE pg_settings SET setting = 'x'
SELECT partywall.enter('x', 'y')
SELECT * FROM partywall.keys
INSERT INTO partywall.keys VALUES (1)
SELECT 1; SET app.current_org_id = 'x'
BEGIN; SELECT 1; COMMIT; SELECT set_config('app.current_org_id', 'x', false)
SELECT /* ' */ set_config('app.current_org_id', 'x', false) /* ' */
-- who a session is
SET ROLE admin
SET ROLE NONE
SET LOCAL ROLE admin
SET role = 'admin'
SET "role" TO admin
SET SESSION AUTHORIZATION admin
SET SESSION AUTHORIZATION DEFAULT
RESET ROLE
RESET SESSION AUTHORIZATION
SELECT set_config('role', 'admin', false)
SELECT set_config('session_authorization', 'admin', false)
SELECT set_config('is_superuser', 'on', false)
-- settings
SET row_security = off
SET row_security TO DEFAULT; SET row_security = 0
SET session_replication_role = replica
SET standard_conforming_strings = off
SET standard_conforming_strings = 'f'
SET backslash_quote = on
SET client_encoding = 'SJIS'
SET NAMES 'LATIN1'
SELECT set_config('client_encoding', 'SJIS', false)
SELECT set_config('standard_conforming_strings', $1, false)
SET local_preload_libraries = 'x'
SET session_preload_libraries = 'x'
SET backtrace_functions = 'x'
SET exit_on_error = on
SET log_statement = 'none'
SET track_activities = off
SET hash_mem_multiplier = 1000
SET temp_buffers = '1GB'
SET maintenance_work_mem = '10GB'
SET max_parallel_workers = 1000
SET work_mem = 'lots'
SET statement_timeout = $$forever$$
SELECT set_config('statement_timeout', $1, false)
SELECT set_config('work_mem', '1' || '0GB', false)
SET no_such_setting = 1
SET debug_parallel_query = on
SET force_parallel_mode = regress
SET tcp_user_timeout = 1
SET debug_print_plan = on
SET search_path FROM CURRENT
SET search_path = partywall
SET search_path = public, "partywall"
SET search_path = Partywall, public
SET search_path = partywall_locks
SET search_path = cron
SET search_path = pg_toast
SET LOCAL search_path TO public, pg_temp_3
SET SCHEMA 'partywall'
SELECT set_config('search_path', 'public, partywall', false)
SELECT set_config('search_path', ' "partywall" ', false)
SELECT set_config('search_path', $1, false)
SELECT set_config('search_path', 'party' || 'wall', false)
SET seed = 0.5
SET postgis.gdal_enabled_drivers = 'ENABLE_ALL'
SELECT set_config('row_security', NULL, false), set_config('role', NULL, false)
SET TRANSACTION SNAPSHOT '00000003-0000001B-1'
-- text that runs
DO $$ BEGIN END $$
DO LANGUAGE plpgsql 'BEGIN END'
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE OR REPLACE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END
CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'
ALTER FUNCTION f() SET app.current_org_id = 'x'
CREATE AGGREGATE a(int) (sfunc = int4pl, stype = int)
CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq)
CREATE CAST (int AS text) WITH INOUT
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (true)
CREATE TYPE pg_temp.x AS (a int)
CREATE TRIGGER t BEFORE INSERT ON datasets EXECUTE FUNCTION f()
CREATE RULE r AS ON INSERT TO datasets DO INSTEAD NOTHING
CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()
CREATE LANGUAGE plpython3u
CREATE EXTENSION dblink
LOAD 'x'
SELECT query_to_xml('select 1', true, true, '')
SELECT pg_catalog.query_to_xml_and_xmlschema('select 1', true, true, '')
SELECT cursor_to_xml('c', 1, true, true, '')
SELECT table_to_xml('secrets', true, true, '')
SELECT schema_to_xml('public', true, true, '')
SELECT database_to_xml(true, true, '')
SELECT * FROM ts_stat('select 1')
SELECT ts_rewrite('a'::tsquery, 'select 1')
SELECT ts_rewrite(VARIADIC ARRAY['a', 'b', 'c'])
SELECT * FROM dblink('host=x', 'select 1') AS t(a int)
SELECT dblink_exec('x', 'y')
SELECT public.dblink_connect('x')
SELECT * FROM crosstab('select 1') AS t(a int)
SELECT * FROM connectby('a', 'b', 'c', 'd', 1) AS t(a int)
SELECT xpath_table('a', 'b', 'c', 'd', 'e')
SELECT pg_background_launch('select 1')
SELECT net.http_get('x')
SELECT http_post('a', 'b', 'c')
SELECT aws_s3.query_export_to_s3('x')
SELECT add_job('x', '1h')
SELECT cron.schedule('x', '* * * * *', 'select 1')
SELECT run_command_on_workers('select 1')
SELECT * FROM public.pg_stat_monitor
SELECT public.pg_stat_monitor()
SELECT pldbg_attach_to_port(1)
SELECT * FROM citus_stat_activity
SELECT pg_temp.f()
SELECT 'x'::pg_temp.text
-- files and programs
COPY datasets TO '/tmp/x'
COPY datasets FROM '/etc/passwd'
COPY datasets FROM PROGRAM 'id'
COPY (SELECT 1) TO PROGRAM 'id'
SELECT pg_read_file('/etc/passwd')
SELECT pg_read_binary_file('/etc/passwd')
SELECT pg_ls_dir('.')
SELECT pg_stat_file('x')
SELECT lo_import('/etc/passwd')
SELECT lo_export(1, '/tmp/x')
SELECT lo_get(1)
SELECT lo_from_bytea(0, 'x')
SELECT loread(1, 1)
SELECT * FROM pg_largeobject
-- others
SELECT pg_cancel_backend(1)
SELECT pg_terminate_backend(pid) FROM t
SELECT (1).pg_cancel_backend
SELECT (1).pg_terminate_backend
SELECT x.pg_cancel_backend FROM generate_series(1, 99999) AS x
SELECT ('/etc/passwd').pg_read_file
SELECT ('/etc/passwd'::text).pg_read_binary_file
SELECT (SELECT 'x').pg_ls_dir
SELECT ('select 1').ts_stat
SELECT t.lo_get FROM t
SELECT (ARRAY[1])[1].pg_cancel_backend
SELECT pg_reload_conf()
SELECT pg_switch_wal()
SELECT pg_logical_emit_message(false, 'a', 'b')
SELECT pg_export_snapshot()
SELECT (1::bigint).pg_advisory_lock
SELECT (1::bigint).pg_advisory_unlock
SELECT x.pg_try_advisory_xact_lock FROM generate_series(1, 9) AS x
SELECT U&"pg\005fadvisory_lock"(1)
SELECT "pg_catalog".pg_advisory_lock(1)
SELECT pg_catalog . pg_advisory_xact_lock(1)
SELECT pg_catalog/**/.pg_advisory_xact_lock(1)
SELECT public.pg_advisory_lock(1)
SELECT x.pg_catalog.pg_advisory_lock(1)
SELECT partywall_locks.held()
SELECT partywall_locks.fold('1')
SELECT partywall_locks.pg_notify('c', 'x')
SELECT * FROM partywall_locks.secret
UPDATE partywall_locks.secret SET value = ''
SELECT pg_notify('c', 'x')
NOTIFY c
NOTIFY c, 'payload'
LISTEN c
SELECT * FROM pg_stat_activity
SELECT * FROM pg_catalog.pg_stat_activity
SELECT * FROM "pg_stat_activity"
SELECT * FROM U&"pg_stat\005factivity"
TABLE pg_stat_activity
SELECT (SELECT count(*) FROM pg_stat_activity)
SELECT * FROM datasets WHERE EXISTS (SELECT FROM pg_locks)
SELECT * FROM datasets, LATERAL (SELECT * FROM pg_stat_activity) x
COPY pg_stat_activity TO STDOUT
COPY (TABLE pg_stat_activity) TO STDOUT
EXPLAIN SELECT * FROM pg_stat_activity
DECLARE c CURSOR FOR SELECT * FROM pg_stat_activity
INSERT INTO datasets SELECT * FROM pg_stat_activity
SELECT * FROM pg_locks
SELECT * FROM pg_prepared_xacts
SELECT * FROM pg_prepared_statements
SELECT * FROM pg_stat_statements
SELECT * FROM public.pg_stat_statements
SELECT * FROM pg_stat_replication
SELECT * FROM pg_stat_progress_copy
SELECT * FROM pg_stat_ssl
SELECT * FROM pg_authid
SELECT * FROM pg_shadow
SELECT * FROM pg_statistic
SELECT * FROM pg_hba_file_rules
SELECT * FROM pg_file_settings
SELECT * FROM pg_stat_user_tables
SELECT n_live_tup FROM pg_stat_user_tables
SELECT s FROM pg_stat_user_tables s
SELECT row_to_json(s) FROM pg_stat_user_tables s
SELECT a FROM pg_stat_user_tables AS t(a)
SELECT n_live_tup(s) FROM pg_stat_user_tables s
SELECT pg_catalog.pg_stat_user_tables FROM pg_catalog.pg_stat_user_tables
SELECT (s).n_live_tup FROM pg_stat_user_tables s
SELECT (s).* FROM pg_stat_user_tables s
SELECT 1 FROM pg_stat_user_tables NATURAL JOIN t
SELECT 1 FROM pg_stat_user_tables JOIN t USING (n_live_tup)
SELECT 1 FROM (pg_stat_user_tables s JOIN t ON true) AS j
SELECT relname FROM pg_stat_user_tables ORDER BY n_live_tup
SELECT relname FROM (TABLE pg_stat_user_tables) s
WITH s AS (SELECT * FROM pg_stat_user_tables) SELECT relname FROM s
INSERT INTO datasets WITH s AS (SELECT * FROM pg_stat_user_tables) SELECT relname FROM s
COPY pg_stat_user_tables TO STDOUT
COPY (TABLE pg_stat_database) TO STDOUT
PREPARE p AS SELECT xact_commit FROM pg_stat_database
DECLARE c CURSOR FOR SELECT * FROM pg_statio_all_tables
EXPLAIN SELECT * FROM pg_stat_io
CREATE TEMP TABLE x AS SELECT * FROM pg_stat_wal
SELECT * FROM pg_stats
SELECT most_common_vals FROM pg_catalog.pg_stats WHERE schemaname LIKE 'pg_temp%'
SELECT * FROM pg_stats_ext, pg_stats_ext_exprs
SELECT * FROM pg_something_new
SELECT * FROM pg_toast.pg_toast_1234
SELECT * FROM pg_temp_3.secrets
SELECT pg_stat_get_activity(NULL)
SELECT pg_stat_get_backend_activity(1)
SELECT pg_lock_status()
SELECT pg_blocking_pids(1)
SELECT pg_something_new()
SELECT pg_catalog.pg_something_new()
SELECT setval('s', 1)
-- locks, maintenance, roles, the whole server
LOCK TABLE datasets
LOCK datasets IN ACCESS EXCLUSIVE MODE
LOCK TABLE datasets IN SHARE MODE
LOCK TABLE datasets IN EXCLUSIVE MODE NOWAIT
LOCK TABLE datasets IN SHARE ROW EXCLUSIVE MODE
LOCK TABLE datasets IN SHARE UPDATE EXCLUSIVE MODE
LOCK TABLE pg_stat_activity IN ACCESS SHARE MODE
VACUUM
VACUUM FULL datasets
ANALYZE datasets
REINDEX TABLE datasets
CLUSTER datasets
CHECKPOINT
ALTER SYSTEM SET work_mem = '1GB'
ALTER ROLE app PASSWORD 'x'
ALTER ROLE CURRENT_USER SET search_path = 'x'
ALTER USER app SET statement_timeout = 0
ALTER DATABASE d SET search_path = 'x'
ALTER DATABASE d RENAME TO e
CREATE ROLE r
DROP ROLE r
GRANT SELECT ON datasets TO PUBLIC
REVOKE SELECT ON datasets FROM app
GRANT admin TO app
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC
DROP OWNED BY app
REASSIGN OWNED BY app TO b
CREATE DATABASE d
DROP DATABASE d
CREATE TABLESPACE t LOCATION '/tmp'
CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p
CREATE PUBLICATION p FOR ALL TABLES
CREATE SERVER s FOREIGN DATA WRAPPER f
CREATE USER MAPPING FOR app SERVER s
IMPORT FOREIGN SCHEMA a FROM SERVER s INTO b
SECURITY LABEL ON TABLE datasets IS 'x'
EXPLAIN ANALYZE SELECT * FROM datasets
EXPLAIN (ANALYZE) SELECT * FROM datasets
EXPLAIN (ANALYZE true, FORMAT json) DELETE FROM datasets
EXPLAIN (ANALYZE 1) SELECT 1
EXPLAIN (ANALYZE off, ANALYZE on) SELECT 1
EXPLAIN (ANALYZE) EXECUTE p
-- definitions of shared tables
CREATE TABLE x (a int)
CREATE UNLOGGED TABLE x (a int)
CREATE TABLE x AS SELECT 1
SELECT 1 INTO x
SELECT 1 INTO x UNION SELECT 2
SELECT * FROM (SELECT 1) q WHERE EXISTS (SELECT 1 INTO x)
CREATE VIEW v AS SELECT 1
CREATE MATERIALIZED VIEW v AS SELECT 1
REFRESH MATERIALIZED VIEW v
CREATE INDEX ON datasets (a)
CREATE SEQUENCE s
CREATE SCHEMA s
CREATE TEMP TABLE pg_settings (name text)
CREATE TEMP TABLE x () INHERITS (datasets)
CREATE TEMP TABLE x PARTITION OF datasets DEFAULT
CREATE POLICY p ON datasets USING (true)
ALTER POLICY p ON datasets USING (true)
ALTER TABLE datasets DISABLE ROW LEVEL SECURITY
ALTER TABLE datasets NO FORCE ROW LEVEL SECURITY
ALTER TABLE datasets OWNER TO app
ALTER TABLE datasets ADD COLUMN x int
ALTER TABLE datasets RENAME TO x
ALTER TABLE datasets SET SCHEMA x
DROP TABLE datasets
DROP SCHEMA public CASCADE
DROP OWNED BY CURRENT_USER
TRUNCATE datasets
COMMENT ON TABLE datasets IS 'x'
CREATE STATISTICS s ON a, b FROM datasets
INSERT INTO pg_class VALUES (1)
DELETE FROM pg_catalog.pg_proc
UPDATE information_schema.sql_features SET a = 1
COPY pg_class FROM STDIN
INSERT INTO pg_temp.pg_settings VALUES (1)
"#;

/// Refused as not supported by anybody.
pub(super) const UNSUPPORTED: [&str; 6] = [
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "ROLLBACK PREPARED 'x'",
    "EXPLAIN CREATE TABLE x AS SELECT 1",
    "SET TRANSACTION SNAPSHOT 'x'",
    "PREPARE p AS SELECT 1 UNION SELECT 2; ROLLBACK PREPARED 'x'",
];

/// The lines of a list: a line that begins with two dashes and a space is a heading.
pub(super) fn lines(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("-- "))
}

#[test]
fn no_way_out_is_open() {
    let mut open = Vec::new();
    for sql in lines(FORBIDDEN) {
        match judge(sql) {
            Ok(_) => open.push(sql.to_owned()),
            Err(refusal) if matches!(refusal.kind(), Kind::Forbidden | Kind::NotSupported) => {}
            // A line of a list that only looks like an attack proves nothing.
            Err(refusal) => open.push(format!("{sql}: {refusal}")),
        }
    }
    assert!(open.is_empty(), "{open:#?}");
}

#[test]
fn comments_do_not_hide_a_call() {
    let sql = "SELECT --'\nset_config('app.current_org_id', 'x', false) --'";
    assert_eq!(kind(judge(sql), sql), Kind::Forbidden);
}

#[test]
fn what_nobody_can_do_is_not_supported() {
    for sql in UNSUPPORTED {
        assert_eq!(kind(judge(sql), sql), Kind::NotSupported, "{sql}");
    }
}
