-- Recorded from sqlx 0.8.6 (tests/clients/run --record).
SHOW statement_timeout
-- .
SHOW TimeZone
-- .
SELECT name, created_at, (SELECT error FROM runs LIMIT 1) FROM pipelines WHERE id = $1
-- .
SELECT NOT attnotnull FROM ( ( SELECT $1::int4 AS idx, $2::int4 AS table_id, $3::int2 AS col_idx ) UNION ALL ( SELECT $4::int4, $5::int4, $6::int2 ) UNION ALL ( SELECT $7::int4, $8::int4, $9::int2 ) ) AS col LEFT JOIN pg_catalog.pg_attribute ON table_id IS NOT NULL AND attrelid = table_id AND attnum = col_idx ORDER BY idx
-- .
EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE sqlx_s_2(NULL)
-- .
BEGIN
-- .
INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's')
-- .
SAVEPOINT _sqlx_savepoint_1
-- .
SELECT 1 / $1
-- .
ROLLBACK TO SAVEPOINT _sqlx_savepoint_1
-- .
SELECT count(*) FROM pipelines WHERE name = $1
-- .
ROLLBACK
-- .
SELECT g FROM generate_series(1, $1) g
-- .
SELECT g FROM generate_series(1, 20000) g
-- .
SELECT 1
-- .
CREATE TEMPORARY TABLE loaded (a int, b text)
-- .
COPY loaded FROM STDIN
-- .
DISCARD TEMP
-- .
COPY (SELECT generate_series(1, 100)) TO STDOUT
-- .
SET work_mem = '3MB'
-- .
SHOW work_mem
-- .
RESET ALL
-- .
SELECT current_setting('app.current_org_id')
-- .
SELECT $1::int4
-- .
CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a
-- .
SELECT count(*) FROM mine WHERE a > $1
-- .
SELECT * FROM mine
-- .
