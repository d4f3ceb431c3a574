-- Recorded from pgx 4.15.0 (tests/clients/run --record).
SHOW statement_timeout
-- .
SHOW search_path
-- .
;
-- .
SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND ordinal_position = $2
-- .
SELECT p, name, created_at FROM pipelines p WHERE id = $1
-- .
deallocate "described"
-- .
begin isolation level serializable
-- .
INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's')
-- .
savepoint sp_1
-- .
SELECT 1 / $1::int
-- .
rollback to savepoint sp_1
-- .
SELECT count(*) FROM pipelines WHERE name = $1
-- .
rollback
-- .
begin
-- .
SET LOCAL work_mem = '2MB'
-- .
SHOW work_mem
-- .
commit
-- .
SELECT g FROM generate_series(1, $1::int) g
-- .
SELECT 2
-- .
SELECT $1::int + 1
-- .
CREATE TEMPORARY TABLE loaded (a int, b text)
-- .
select "a", "b" from "loaded"
-- .
copy "loaded" ( "a", "b" ) from stdin binary;
-- .
COPY (SELECT a FROM loaded ORDER BY a) TO STDOUT
-- .
SET search_path = pg_catalog; SET work_mem = '3MB'
-- .
RESET ALL
-- .
SELECT current_setting('app.current_org_id')
-- .
deallocate lrupsc_9_0
-- .
deallocate "own"
-- .
EXECUTE "own"
-- .
CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a
-- .
SELECT count(*) FROM mine WHERE a > $1
-- .
DISCARD TEMP
-- .
SELECT * FROM mine
-- .
begin isolation level serializable read only
-- .
DELETE FROM pipelines WHERE name = $1
-- .
deallocate "pgx_0"
-- .
