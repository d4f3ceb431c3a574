-- Recorded from psycopg2 2.9.13 (tests/clients/run --record).
BEGIN
-- .
SHOW application_name
-- .
SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'
-- .
SELECT t.oid, typarray
FROM pg_type t JOIN pg_namespace ns
    ON typnamespace = ns.oid
WHERE typname = 'hstore';
-- .
INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ('globex', 'psycopg2-96984797569c', 'o', 's')
-- .
ROLLBACK
-- .
SELECT count(*) FROM pipelines WHERE name = 'psycopg2-96984797569c'
-- .
SAVEPOINT one
-- .
SELECT 1
-- .
ROLLBACK TO SAVEPOINT one
-- .
COMMIT
-- .
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY DEFERRABLE
-- .
SHOW transaction_isolation
-- .
DELETE FROM pipelines WHERE name = 'psycopg2-96984797569c'
-- .
SET default_transaction_read_only TO 'on'
-- .
DISCARD ALL
-- .
DECLARE "named" CURSOR WITHOUT HOLD FOR SELECT g FROM generate_series(1, 300) g
-- .
FETCH FORWARD 100 FROM "named"
-- .
CLOSE "named"
-- .
DECLARE "scrolled" SCROLL CURSOR WITHOUT HOLD FOR SELECT g FROM generate_series(1, 100) g
-- .
MOVE 50 FROM "scrolled"
-- .
FETCH FORWARD 1 FROM "scrolled"
-- .
CLOSE "scrolled"
-- .
DECLARE "kept" CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 1000) g
-- .
FETCH FORWARD 10 FROM "kept"
-- .
FETCH FORWARD ALL FROM "kept"
-- .
CLOSE "kept"
-- .
CREATE TEMPORARY TABLE loaded (a int, b text)
-- .
COPY "loaded" FROM stdin WITH DELIMITER AS '	' NULL AS '\N'
-- .
COPY "loaded" TO stdout WITH DELIMITER AS '	' NULL AS '\N'
-- .
COPY (SELECT name FROM pipelines ORDER BY name) TO STDOUT WITH CSV HEADER
-- .
SELECT count(*) FROM loaded
-- .
SET work_mem = '3MB'; SET TimeZone = 'Europe/Paris'; SET search_path = pg_catalog
-- .
SHOW work_mem
-- .
SHOW search_path
-- .
SELECT current_setting('app.current_org_id')
-- .
CREATE TEMPORARY TABLE mine (a int); INSERT INTO mine VALUES (1), (2)
-- .
SELECT sum(a) FROM mine
-- .
SELECT * FROM mine
-- .
PREPARE TRANSACTION '1_Z3RyaWQtZWQ1ODlmNDVmYzdj_YnF1YWw='
-- .
