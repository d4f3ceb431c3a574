-- Recorded from psycopg 3.3.9 (tests/clients/run --record).
BEGIN
-- .
SHOW statement_timeout
-- .
SELECT current_setting('app.current_org_id')
-- .
SELECT 1
-- .
COMMIT
-- .
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind = 'r'
-- .
SELECT column_name FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position
-- .
SAVEPOINT "_pg3_1"
-- .
SELECT
    typname AS name, oid, typarray AS array_oid,
    oid::regtype::text AS regtype, typdelim AS delimiter
FROM pg_type t
WHERE t.oid = to_regtype($1)
ORDER BY t.oid
-- .
RELEASE "_pg3_1"
-- .
SELECT * FROM runs LIMIT 0
-- .
INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's')
-- .
ROLLBACK
-- .
SELECT count(*) FROM pipelines WHERE name = $1
-- .
UPDATE pipelines SET owner = 'p' WHERE name = $1
-- .
ROLLBACK TO "_pg3_2"
-- .
SELECT owner FROM pipelines WHERE name = $1
-- .
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY
-- .
SHOW transaction_isolation
-- .
DELETE FROM pipelines WHERE name = $1
-- .
DELETE FROM pipelines WHERE name = $1 RETURNING owner
-- .
DECLARE "named" CURSOR FOR SELECT g FROM generate_series(1, 300) g
-- .
FETCH FORWARD 100 FROM "named"
-- .
CLOSE "named"
-- .
DECLARE "scrolled" SCROLL CURSOR FOR SELECT g FROM generate_series(1, 100) g
-- .
MOVE 50 FROM "scrolled"
-- .
FETCH FORWARD 1 FROM "scrolled"
-- .
MOVE ABSOLUTE 0 FROM "scrolled"
-- .
CLOSE "scrolled"
-- .
SELECT g FROM generate_series(1, 300) g
-- .
DECLARE "early" CURSOR FOR SELECT g FROM generate_series(1, 100000) g
-- .
FETCH FORWARD 1 FROM "early"
-- .
CLOSE "early"
-- .
DECLARE "kept" CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 1000) g
-- .
FETCH FORWARD 3 FROM "kept"
-- .
FETCH FORWARD ALL FROM "kept"
-- .
CLOSE "kept"
-- .
FETCH 1 FROM kept
-- .
SELECT $1::int
-- .
SELECT 1 / $1
-- .
SET LOCAL work_mem = '2MB'
-- .
SHOW work_mem
-- .
INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's') RETURNING name
-- .
DELETE FROM pipelines WHERE name LIKE $1 RETURNING 1
-- .
COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT
-- .
COPY (SELECT g FROM generate_series(1, 10) g) TO STDOUT (FORMAT BINARY)
-- .
CREATE TEMPORARY TABLE loaded (a int, b text)
-- .
COPY loaded FROM STDIN
-- .
COPY loaded FROM STDIN (FORMAT BINARY)
-- .
SELECT count(*), max(a) FROM loaded
-- .
COPY (SELECT 1) TO STDOUT
-- .
SHOW search_path
-- .
SET work_mem = '3MB'
-- .
SELECT set_config('search_path', 'pg_catalog, public', false)
-- .
SET TIME ZONE 'Europe/Paris'
-- .
RESET work_mem
-- .
RESET ALL
-- .
SET client_min_messages = error
-- .
DISCARD ALL
-- .
SHOW client_min_messages
-- .
DEALLOCATE _pg3_0
-- .
EXECUTE nobody
-- .
PREPARE mine (int) AS SELECT $1 + 1
-- .
EXECUTE mine (41)
-- .
PREPARE mine AS SELECT 1
-- .
DEALLOCATE ALL
-- .
CREATE TEMPORARY TABLE mine (a int)
-- .
INSERT INTO mine SELECT generate_series(1, 10)
-- .
SELECT * FROM mine
-- .
SELECT count(*) FROM mine
-- .
DROP TABLE pg_temp.mine
-- .
CREATE TEMPORARY TABLE mine AS SELECT 1 AS a
-- .
