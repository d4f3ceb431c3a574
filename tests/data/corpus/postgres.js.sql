-- Recorded from postgres.js 3.4.9 (tests/clients/run --record).

      select b.oid, b.typarray
      from pg_catalog.pg_type a
      left join pg_catalog.pg_type b on b.oid = a.typelem
      where a.typcategory = 'A'
      group by b.oid, b.typarray
      order by b.oid
-- .
SELECT current_setting('statement_timeout') a, current_setting('search_path') b, current_setting('TimeZone') c
-- .
SELECT column_name FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position
-- .
SELECT name, created_at FROM pipelines WHERE id = $1
-- .
begin
-- .
INSERT INTO pipelines ("org_id","name","owner","schedule")values($1,$2,$3,$4)
-- .
rollback
-- .
begin isolation level serializable
-- .
savepoint "s0"
-- .
UPDATE pipelines SET owner = 'p' WHERE name = $1
-- .
SELECT 1 / $1::int
-- .
rollback to "s0"
-- .
SELECT owner FROM pipelines WHERE name = $1
-- .
commit
-- .
SELECT 1 AS a
-- .
SELECT 2 AS b
-- .
DELETE FROM pipelines WHERE name = $1
-- .
SELECT g FROM generate_series(1, $1::int) g
-- .
SELECT g FROM generate_series(1, 100000) g
-- .
COPY (SELECT generate_series(1, 1000)) TO STDOUT
-- .
CREATE TEMPORARY TABLE loaded (a int, b text)
-- .
COPY loaded FROM STDIN
-- .
SELECT count(*)::int n FROM loaded
-- .
SET work_mem = '3MB'
-- .
SET TimeZone = 'Europe/Paris'; SET search_path = pg_catalog
-- .
SHOW work_mem
-- .
SHOW search_path
-- .
DISCARD ALL
-- .
SELECT current_setting('app.current_org_id') AS org
-- .
SELECT $1::int
-- .
DEALLOCATE ALL
-- .
EXECUTE nobody
-- .
CREATE TEMPORARY TABLE mine (a int)
-- .
INSERT INTO mine ("a")values($1),($2),($3),($4),($5),($6),($7),($8),($9),($10)
-- .
SELECT sum(a)::int AS sum FROM mine
-- .
