-- seed.sql: the rows of one organization, after schema.sql, as a role that policies do not bind (a superuser).
-- The session says which and how many before:
--   SET demo.org = 'acme'; SET demo.pipelines = '12'; SET demo.runs_per_pipeline = '40';
-- Each pipeline makes two datasets; every finished run that succeeded is checked. Repeating it adds nothing.
-- Identities and "random" values come from md5, so that the same organization looks the same each time.

INSERT INTO pipelines (org_id, id, name, owner, schedule, status, created_at)
SELECT org, md5(org || '/pipeline/' || n)::uuid,
       (ARRAY['orders', 'customers', 'invoices', 'shipments', 'web_events', 'payments', 'inventory', 'support_tickets', 'campaigns', 'subscriptions'])[1 + (n - 1) % 10]
         || '_' || (ARRAY['ingest', 'clean', 'enrich', 'aggregate', 'publish', 'reconcile'])[1 + (n - 1) / 10 % 6]
         || CASE WHEN n > 60 THEN '_' || n ELSE '' END,
       (ARRAY['ana', 'ben', 'chloe', 'dan'])[1 + n % 4],
       (ARRAY['*/15 * * * *', '0 * * * *', '0 */6 * * *', '30 2 * * *'])[1 + n % 4],
       CASE WHEN n % 9 = 0 THEN 'paused' ELSE 'active' END,
       date_trunc('day', now()) - make_interval(days => 400 - n)
  FROM (SELECT current_setting('demo.org') AS org) AS o, generate_series(1, current_setting('demo.pipelines')::int) AS n
ON CONFLICT DO NOTHING;

INSERT INTO datasets (org_id, id, pipeline_id, name, layer, row_count, size_bytes, updated_at)
SELECT p.org_id, md5(p.org_id || '/dataset/' || p.name || '/' || d)::uuid, p.id,
       p.name || CASE d WHEN 1 THEN '_staging' ELSE '_output' END,
       CASE WHEN d = 1 THEN 'raw' WHEN p.name LIKE '%publish%' OR p.name LIKE '%aggregate%' THEN 'served' ELSE 'cleaned' END,
       10000 + ('x' || substr(md5(p.id::text || d), 1, 6))::bit(24)::int,
       (10000 + ('x' || substr(md5(p.id::text || d), 1, 6))::bit(24)::int)::bigint * (80 + d * 40),
       now() - make_interval(mins => ('x' || substr(md5(p.id::text || d), 7, 3))::bit(12)::int)
  FROM pipelines AS p, generate_series(1, 2) AS d
 WHERE p.org_id = current_setting('demo.org')
ON CONFLICT DO NOTHING;

INSERT INTO runs (org_id, id, pipeline_id, status, started_at, finished_at, rows_read, rows_written, error)
SELECT org_id, id, pipeline_id, status, started_at,
       CASE WHEN status <> 'running' THEN started_at + make_interval(secs => 20 + dice % 900) END,
       read, CASE status WHEN 'succeeded' THEN read - read / 200 WHEN 'failed' THEN 0 ELSE read / 3 END,
       CASE WHEN status = 'failed' THEN (ARRAY['source timed out after 300 s', 'column "amount" is not numeric', 'duplicate key in target', 'out of disk on worker'])[1 + dice % 4] END
  FROM (
    SELECT p.org_id, p.id AS pipeline_id, md5(p.id::text || '/run/' || n)::uuid AS id, d.dice,
           1000 + d.dice % 250000 AS read,
           date_trunc('minute', now()) - make_interval(hours => (n - 1) * 6, mins => 20 + d.dice % 60) AS started_at,
           CASE WHEN n = 1 AND d.dice % 5 = 0 THEN 'running' WHEN d.dice % 14 = 0 THEN 'failed' WHEN d.dice % 41 = 0 THEN 'cancelled' ELSE 'succeeded' END AS status
      FROM pipelines AS p, generate_series(1, current_setting('demo.runs_per_pipeline')::int) AS n,
           LATERAL (SELECT ('x' || substr(md5(p.id::text || n), 1, 6))::bit(24)::int AS dice) AS d
     WHERE p.org_id = current_setting('demo.org')
  ) AS made
ON CONFLICT DO NOTHING;

INSERT INTO quality_results (org_id, id, dataset_id, run_id, check_name, passed, failed_rows, checked_at)
SELECT r.org_id, md5(r.id::text || d.id::text)::uuid, d.id, r.id,
       (ARRAY['not_null', 'unique_key', 'fresh_within_24h', 'row_count_in_range', 'foreign_keys_match'])[1 + c.dice % 5],
       c.dice % 11 <> 0, CASE WHEN c.dice % 11 = 0 THEN 1 + c.dice % 700 ELSE 0 END,
       r.finished_at + interval '5 seconds'
  FROM runs AS r JOIN datasets AS d ON d.org_id = r.org_id AND d.pipeline_id = r.pipeline_id AND d.layer <> 'raw',
       LATERAL (SELECT ('x' || substr(md5(r.id::text || d.name), 1, 6))::bit(24)::int AS dice) AS c
 WHERE r.org_id = current_setting('demo.org') AND r.status = 'succeeded'
ON CONFLICT DO NOTHING;

ANALYZE pipelines, datasets, runs, quality_results;
