-- Statistics of expressions that the login role can see though rows of their tables are not all its own.  PostgreSQL 14 to 18.
SELECT DISTINCT 'breach', 'statistics_readable', 'pg_stats_ext_exprs:' || c.oid::regclass, 'it shows values from the rows of every organization',
       'an older server''s view that has no regard for row-level security: see the release notes of CVE-2024-4317, or REVOKE SELECT ON pg_catalog.pg_stats_ext_exprs FROM PUBLIC'
  FROM pg_stats_ext_exprs e JOIN pg_namespace n ON n.nspname = e.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = e.tablename
 WHERE c.relrowsecurity AND c.relpersistence <> 't'
