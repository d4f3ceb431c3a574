-- Whether any code of the operator's may leave state on a server connection: settings, statements, channels, locks, temporary
-- objects, cursors, a seed. By its text; what cannot be read so (other languages, SQL made of pieces) may.
WITH dangerous (pattern) AS (VALUES (
  'set_config|set_limit|setseed|advisory_(xact_)?lock|with\s+hold|dblink|create\s+((local|global)\s+)?temp|\mexecute\M(?!\s+(function|procedure))'
  || '|(^|;|\m(begin|then|else|loop|as)|\$)\s*(set|reset|discard|listen|unlisten|prepare|deallocate|load)\M'))
SELECT EXISTS (
    SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace, dangerous d
     WHERE p.oid >= 16384 AND p.prokind IN ('f', 'p') AND n.nspname NOT IN ('partywall', 'partywall_locks', 'information_schema')
       AND CASE WHEN EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e') THEN p.proname ~ '^set_'
                WHEN l.lanname IN ('sql', 'plpgsql') THEN (CASE p.prosrc WHEN '' THEN pg_get_functiondef(p.oid) ELSE p.prosrc END) ~* d.pattern
                ELSE true END)
  OR EXISTS (SELECT FROM pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('v', 'm') AND pg_get_viewdef(c.oid) ~* 'set_config|setseed|advisory_lock')
  OR EXISTS (SELECT FROM pg_attrdef a WHERE a.oid >= 16384 AND pg_get_expr(a.adbin, a.adrelid) ~* 'set_config|setseed|advisory_lock')
  OR EXISTS (SELECT FROM pg_constraint c WHERE c.oid >= 16384 AND c.contype = 'c' AND pg_get_constraintdef(c.oid) ~* 'set_config|setseed|advisory_lock')
