-- Recorded from tokio-postgres 0.7.18 (tests/clients/run --record).
SHOW application_name; SHOW TimeZone; SHOW statement_timeout
-- .
SELECT p, name, created_at FROM pipelines p WHERE id = $1
-- .
SELECT t.typname, t.typtype, t.typelem, r.rngsubtype, t.typbasetype, n.nspname, t.typrelid
FROM pg_catalog.pg_type t
LEFT OUTER JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
INNER JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid
WHERE t.oid = $1
-- .
SELECT attname, atttypid
FROM pg_catalog.pg_attribute
WHERE attrelid = $1
AND NOT attisdropped
AND attnum > 0
ORDER BY attnum
-- .
START TRANSACTION ISOLATION LEVEL SERIALIZABLE
-- .
INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's')
-- .
SAVEPOINT one
-- .
SELECT 1 / $1::int4
-- .
SELECT 1
-- .
ROLLBACK TO one
-- .
SELECT count(*) FROM pipelines WHERE name = $1
-- .
ROLLBACK
-- .
START TRANSACTION
-- .
SELECT g FROM generate_series(1, 300) g
-- .
COMMIT
-- .
SELECT $1::int4 + 1
-- .
CREATE TEMPORARY TABLE loaded (a int, b text)
-- .
COPY loaded FROM STDIN
-- .
COPY loaded TO STDOUT
-- .
SHOW search_path
-- .
SET search_path = pg_catalog; SET work_mem = '3MB'
-- .
SET TimeZone = 'Europe/Paris'
-- .
SHOW search_path; SHOW work_mem; SHOW TimeZone
-- .
DISCARD ALL
-- .
SELECT current_setting('app.current_org_id')
-- .
DEALLOCATE ALL
-- .
CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a
-- .
SELECT count(*) FROM mine
-- .
DISCARD TEMP
-- .
SELECT * FROM mine
-- .
