-- Recorded from node-postgres 8.23.1 (tests/clients/run --record).
SHOW statement_timeout
-- .
SHOW TimeZone
-- .
SHOW application_name
-- .
SELECT current_setting('app.current_org_id')
-- .
SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position
-- .
SELECT * FROM pipelines LIMIT 0
-- .
BEGIN
-- .
INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's')
-- .
SAVEPOINT one
-- .
SELECT 1 / $1::int
-- .
SELECT 1
-- .
ROLLBACK TO one
-- .
SELECT count(*)::int FROM pipelines WHERE name = $1
-- .
ROLLBACK
-- .
BEGIN; SELECT 1 AS a; SELECT 2 AS b; COMMIT
-- .
SELECT g FROM generate_series(1, $1::int) g
-- .
SELECT g FROM generate_series(1, 100000) g
-- .
DECLARE kept CURSOR WITH HOLD FOR SELECT generate_series(1, 10)
-- .
FETCH 3 FROM kept
-- .
FETCH ALL FROM kept
-- .
CLOSE kept
-- .
SHOW search_path
-- .
SET client_min_messages TO warning;SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE;
-- .
SET search_path = pg_catalog
-- .
SHOW client_min_messages
-- .
RESET ALL
-- .
DISCARD ALL
-- .
DEALLOCATE gone
-- .
CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a
-- .
SELECT count(*)::int FROM mine WHERE a > $1
-- .
DROP TABLE pg_temp.mine
-- .
SELECT * FROM mine
-- .
