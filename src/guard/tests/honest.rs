//! What real clients send must pass.

use super::*;

/// Reading and writing as drivers, tools and ORMs do it; one line each.
pub(super) const HONEST: &str = r#"
SELECT 1
select version();
SELECT * FROM datasets WHERE id = $1
SET application_name = 'PostgreSQL JDBC Driver'
SET extra_float_digits = 3
SET DateStyle = 'ISO';SET extra_float_digits = 2;show transaction_isolation
SET client_min_messages TO warning;SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE;
SET standard_conforming_strings = on
SET intervalstyle = iso_8601
SET SESSION timezone TO 'UTC'
SET client_encoding = 'UTF8'
SET NAMES 'utf-8'
SET search_path TO app, public
SET LOCAL statement_timeout = '5s'
SET statement_timeout = 0
SET work_mem = '64MB'
SET jit = off
SET row_security = on
SET default_transaction_read_only = off
SET my_extension.flag = 'x'
SET XML OPTION DOCUMENT
RESET ALL
DISCARD ALL
RESET search_path
SHOW ALL
SHOW app.current_org_id
SHOW search_path
SHOW TIME ZONE
SELECT set_config('TimeZone', 'UTC', false)
SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new
SELECT set_config('jit', $1, false)
SELECT pg_catalog.set_config('search_path', '', false)
SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'
SELECT current_setting('app.current_org_id', true)
SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;
BEGIN
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE
START TRANSACTION READ WRITE
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE
SET CONSTRAINTS ALL DEFERRED
SAVEPOINT "_pg3_1"; RELEASE "_pg3_1"; ROLLBACK TO SAVEPOINT a
COMMIT AND CHAIN
SAVEPOINT _per_query_svp_;DEALLOCATE "_PLAN0x55";RELEASE _per_query_svp_
DEALLOCATE ALL
DEALLOCATE PREPARE a1
PREPARE dumpFunc(pg_catalog.oid) AS SELECT proname FROM pg_catalog.pg_proc WHERE oid = $1
EXECUTE dumpFunc('1234')
EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE sqlx_s_4(NULL)
EXPLAIN SELECT * FROM datasets
EXPLAIN (ANALYZE false, VERBOSE) SELECT * FROM datasets
DECLARE _psql_cursor NO SCROLL CURSOR FOR SELECT * FROM datasets; FETCH FORWARD 100 FROM _psql_cursor
BEGIN;declare "SQL_CUR1" cursor with hold for select 1;fetch 100 in "SQL_CUR1"
MOVE ABSOLUTE 5 IN c; CLOSE c
LOCK TABLE datasets IN ACCESS SHARE MODE
LOCK TABLE datasets IN ROW EXCLUSIVE MODE
COPY datasets TO STDOUT
COPY public.datasets (id, name) TO stdout WITH (FORMAT csv, HEADER)
COPY (SELECT * FROM datasets) TO STDOUT (FORMAT binary)
COPY datasets FROM STDIN
COPY datasets FROM STDIN WITH (FORMAT csv) WHERE id > 3
INSERT INTO datasets (id, name) VALUES (1, 'a'), (2, DEFAULT) ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name RETURNING *
UPDATE datasets SET name = 'x', tags[1] = 'y' WHERE id = 1 RETURNING id
DELETE FROM datasets USING old WHERE datasets.id = old.id
MERGE INTO datasets d USING s ON d.id = s.id WHEN MATCHED THEN UPDATE SET a = s.a WHEN NOT MATCHED THEN INSERT VALUES (s.id)
MERGE INTO datasets d USING s ON d.id = s.id WHEN NOT MATCHED BY SOURCE THEN DELETE RETURNING merge_action(), d.*
WITH moved AS (DELETE FROM datasets RETURNING *) INSERT INTO archive SELECT * FROM moved
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t
WITH RECURSIVE t AS (SELECT 1 AS id) SEARCH DEPTH FIRST BY id SET o CYCLE id SET c USING p SELECT * FROM t
SELECT * FROM datasets FOR UPDATE SKIP LOCKED
SELECT count(*) FILTER (WHERE a > 1), percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM datasets
SELECT rank() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM datasets
SELECT * FROM datasets GROUP BY GROUPING SETS ((a), (b), ()), CUBE (c)
SELECT GROUPING(a) FROM datasets GROUP BY ROLLUP (a)
SELECT * FROM a NATURAL JOIN b LEFT JOIN c USING (id) CROSS JOIN LATERAL (SELECT a.x) AS l
SELECT * FROM ROWS FROM (generate_series(1, 3), unnest(ARRAY[1])) WITH ORDINALITY AS t(a, b, c)
SELECT * FROM json_to_recordset('[]') AS x(a int, b text)
SELECT * FROM json_table('{}', '$' COLUMNS (a int PATH '$.a' DEFAULT 0 ON EMPTY, NESTED PATH '$.b[*]' COLUMNS (b text)))
SELECT * FROM xmltable(XMLNAMESPACES('x' AS x), '/a' PASSING ('<a/>'::xml) COLUMNS a int PATH '.', n FOR ORDINALITY)
SELECT json_object('a': 1), json_array(1, 2), json_value('{}', '$.a' RETURNING int ERROR ON ERROR), '{}' IS JSON OBJECT
SELECT xmlserialize(content xmlelement(name a, xmlattributes(1 AS b)) AS text)
SELECT * FROM datasets TABLESAMPLE bernoulli (10) REPEATABLE (1)
SELECT (a).b, (f(1)).*, a[1:2], ARRAY[[1,2],[3,4]], ROW(1, 2), CASE a WHEN 1 THEN 2 ELSE 3 END, a::text COLLATE "C"
SELECT 1 = ANY (ARRAY[1]), a IS NULL, b IS NOT TRUE, a BETWEEN 1 AND 2, a LIKE 'b', a IS DISTINCT FROM b
SELECT EXTRACT(year FROM now()), CURRENT_TIMESTAMP, position('a' IN 'b'), substring('a' FROM 1), trim(both 'x' FROM 'y'), now() AT TIME ZONE 'UTC'
SELECT B'101', X'1F', 1.5, true, NULL, INTERVAL '1 day', DATE '2024-01-01', U&'\0061', E'\n', $$x$$
SELECT greatest(1, 2), coalesce(1, 2), nullif(1, 2), least(1, 2)
SELECT * FROM datasets WHERE (a, b) IN (SELECT 1, 2) ORDER BY a USING <, b DESC NULLS LAST OFFSET 1 FETCH FIRST 3 ROWS WITH TIES
SELECT DISTINCT ON (a) a FROM datasets
SELECT 1 UNION SELECT 2 EXCEPT ALL SELECT 3 INTERSECT SELECT 4
TABLE datasets
VALUES (1), (2)
DELETE FROM datasets WHERE CURRENT OF c
SELECT nextval('s'), currval('s'), lastval()
SELECT setseed(0.5), random(), gen_random_uuid(), clock_timestamp(), pg_sleep(0.1)
SELECT my_function(1), app.other_function(a => 1), VARIADIC_f(VARIADIC ARRAY[1])
SELECT pg_backend_pid(), pg_is_in_recovery(), pg_size_pretty(pg_total_relation_size('datasets'))
SELECT 'datasets'::regclass, 'int'::regtype::oid
SELECT ts_rewrite('a'::tsquery, 'b'::tsquery, 'c'::tsquery)
SELECT c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a JOIN pg_class c ON a.attrelid = c.oid WHERE c.oid = '16384'::regclass
SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.~) '^(app)$' COLLATE pg_catalog.default
SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class
SELECT * FROM information_schema.columns
SELECT * FROM pg_settings; SELECT * FROM pg_roles; SELECT datname FROM pg_database; SELECT * FROM pg_policies
SELECT relname FROM pg_statio_all_tables; SELECT s.schemaname, s.relname FROM pg_catalog.pg_stat_user_tables AS s ORDER BY s.relname
SELECT st.relname, pgd.description FROM pg_catalog.pg_statio_all_tables AS st INNER JOIN pg_catalog.pg_description pgd ON pgd.objoid = st.relid
SELECT n_live_tup, reads FROM counts
select oid, typbasetype from pg_type where typname = 'lo'
SELECT t.pg_rating FROM t
CREATE TEMP TABLE t (id int PRIMARY KEY, a text DEFAULT 'x' CHECK (a <> ''), b int GENERATED ALWAYS AS IDENTITY) ON COMMIT DROP
CREATE TEMPORARY TABLE t AS SELECT * FROM datasets WITH NO DATA
CREATE TEMP TABLE t (LIKE datasets INCLUDING ALL)
SELECT 1 AS a INTO TEMP t
CREATE TEMP VIEW v AS SELECT * FROM datasets
DROP TABLE pg_temp.t
CALL my_procedure(1)
UNLISTEN *
"#;

#[test]
fn honest_statements_pass() {
    let refused: Vec<_> = HONEST
        .lines()
        .filter(|line| !line.is_empty())
        .filter_map(|sql| judge(sql).err().map(|refusal| format!("{sql}\n    {refusal}")))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn pings_are_empty_texts() {
    for sql in ["", ";", " ", ";;", "/* DBD::Pg ping test */", "-- ping"] {
        let verdict = allowed(sql);
        assert!(verdict.statements().is_empty(), "{sql}");
        assert_eq!(verdict.class(), crate::event::StatementClass::Utility, "{sql}");
    }
}

#[test]
fn the_grammar_is_of_the_version_that_is_named() {
    assert_eq!(crate::guard::GRAMMAR, "18");
    // Names for the old and the new row came with 18 (PostgreSQL 18 manual, UPDATE).
    allowed("UPDATE orders SET total = 1 RETURNING WITH (OLD AS o, NEW AS n) o.total, n.total");
}
