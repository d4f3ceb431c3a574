-- Code that a tenant can make run, and that writes the context, or keeps in the server process what no command removes:
-- severity, name, object, consequence, mend.  PostgreSQL 13 to 18.
WITH RECURSIVE app AS (
  SELECT oid, $names$ AS names FROM pg_roles WHERE rolname = session_user),
walled AS (      -- whether the context is another than these settings, for every policy
  SELECT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = to_regnamespace('partywall') AND p.proname IN ('hello', 'seal_holds'))
         AND NOT EXISTS (SELECT FROM pg_policy y JOIN pg_class c ON c.oid = y.polrelid AND c.relpersistence <> 't' WHERE concat_ws(' ', pg_get_expr(y.polqual, y.polrelid), pg_get_expr(y.polwithcheck, y.polrelid)) ~ 'current_setting') AS holds),
brought AS (
  SELECT d.objid AS routine, x.extname::text AS extension FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
   WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
routines AS (    -- with the text in small letters, less comments and double quotes
  SELECT p.oid, p.oid::regprocedure::text AS signature, lower(p.proname) AS name, n.nspname::text AS schema, l.lanname::text AS language, p.prokind AS kind, p.prosecdef AS definer,
         '((?<![\w$.])|(?<![\w$])' || regexp_replace(lower(n.nspname), '(\W)', '\\\1', 'g') || '\.)' || regexp_replace(lower(p.proname), '(\W)', '\\\1', 'g') || '\s*\(' AS call, b.extension, p.proargnames AS arguments, p.proargmodes AS modes, p.proconfig AS config,
         has_function_privilege(app.oid, p.oid, 'EXECUTE') AS executable, has_schema_privilege(app.oid, n.oid, 'USAGE') AS visible,
         translate(regexp_replace(lower(CASE WHEN l.lanname IN ('c', 'internal') OR p.prokind NOT IN ('f', 'p') THEN '' WHEN p.prosrc <> '' THEN p.prosrc ELSE pg_get_functiondef(p.oid) END),
           '(''(?:[^'']|'''')*'')|--[^\n]*|/\*(?:[^*]|\*+[^*/])*\*+/', '\1 ', 'g'), '"', '') AS body
    FROM app, pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang LEFT JOIN brought b ON b.routine = p.oid
   WHERE n.nspname NOT IN ('partywall', 'partywall_locks', 'information_schema') AND (n.nspname !~ '^pg_' OR b.extension IS NOT NULL)),
edges AS (       -- from a table or view to those that are written with it: parts, wholes, cascades, what a view shows
  SELECT inhparent AS one, inhrelid AS other FROM pg_inherits UNION ALL SELECT inhrelid, inhparent FROM pg_inherits
  UNION ALL SELECT confrelid, conrelid FROM pg_constraint WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
  UNION ALL SELECT w.ev_class, d.refobjid FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass),
touched AS (     -- what a tenant can write, or have written by a function that has other rights
  SELECT c.oid FROM app, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     AND (has_any_column_privilege(app.oid, c.oid, 'INSERT, UPDATE') OR has_table_privilege(app.oid, c.oid, 'DELETE, TRUNCATE')
       OR EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal)
          AND EXISTS (SELECT FROM routines r WHERE r.definer AND position(lower(c.relname) IN r.body) > 0 AND r.body ~ ('\m' || regexp_replace(lower(c.relname), '(\W)', '\\\1', 'g') || '\M')))
  UNION SELECT e.other FROM touched t JOIN edges e ON e.one = t.oid),
fired AS (
  SELECT g.tgfoid AS routine, format('DROP TRIGGER %I ON %s', g.tgname, g.tgrelid::regclass) AS mend, lower(encode(g.tgargs, 'escape')) AS arguments
    FROM pg_trigger g JOIN touched t ON t.oid = g.tgrelid WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgparentid = 0
  UNION ALL SELECT evtfoid, format('ALTER EVENT TRIGGER %I DISABLE', evtname), '' FROM pg_event_trigger WHERE evtenabled <> 'D'),
setters AS (     -- routines that write the context, or whatever setting one names
  SELECT r.oid, r.signature, CASE
           WHEN EXISTS (SELECT FROM unnest(r.config) AS c(setting) WHERE lower(split_part(c.setting, '=', 1)) = ANY (app.names)) THEN 'it runs under a context of its own, which its SET clause names'
           WHEN r.body ~ ('(?<![\w$.])(pg_catalog\.)?set_config\s*\(\s*[en]?''+' || n.pattern || '''') OR r.body ~ ('\mset\s+(local\s+|session\s+)?' || n.pattern || '\M')
             OR EXISTS (SELECT FROM fired f WHERE f.routine = r.oid AND f.arguments ~ n.pattern) AND r.body ~ 'set_config|\mset\M' THEN 'it writes a setting that carries the context'
           WHEN EXISTS (SELECT FROM regexp_matches(r.body, '(?<![\w$.])(?:pg_catalog\.)?set_config\s*\(\s*(?:[en]?''+([\w.]+)''+\s*(?:::\w+)?\s*(,|\|\||)|(tg_argv\s*\[))?', 'g') AS m(part)
                         WHERE CASE WHEN m.part[3] IS NOT NULL OR m.part[2] = ',' THEN false
                                    WHEN m.part[2] = '||' THEN EXISTS (SELECT FROM unnest(app.names) AS w(name) WHERE starts_with(w.name, m.part[1])) ELSE true END)
             OR r.language <> 'sql' AND EXISTS (SELECT FROM regexp_matches(regexp_replace(r.body, '\mraise\M[^;]*;', '', 'g'), '(?:''|\mexecute\s*\(?\s*(?:format\s*\(\s*)?[en]?''\s*|;\s*)set\s+(?:local\s+|session\s+)?([\w.]*)(?:%|'')', 'g') AS m(part)
                         WHERE EXISTS (SELECT FROM unnest(app.names) AS w(name) WHERE starts_with(w.name, m.part[1])))
             OR r.body ~ '\mupdate\s+(only\s+)?(pg_catalog\.)?pg_settings\M' THEN 'it writes a setting whose name is only known when it runs'
           WHEN r.language = 'plpgsql' AND (r.body ~ '\mexecute\s*\(?\s*\$\d' OR EXISTS (
                SELECT FROM unnest(r.arguments) WITH ORDINALITY AS a(name, place)
                 WHERE coalesce(r.modes[a.place], 'i') IN ('i', 'b', 'v') AND a.name <> '' AND r.body ~ ('\mexecute\s*\(?\s*' || regexp_replace(lower(a.name), '(\W)', '\\\1', 'g') || '\M(?!\s*\()'))) THEN 'it runs whatever text it is given'
         END AS why
    FROM routines r, app, LATERAL (SELECT '(' || replace(array_to_string(app.names, '|'), '.', '\.') || ')' AS pattern) n),
stateful (extension, pattern, why) AS (VALUES  -- by schema and name
  ('dblink', '\.dblink_(connect|connect_u)$', 'a connection that it opens stays open'), ('isn', '\.isn_weak$', 'it switches weak input on or off'),
  ('pg_variables', '\.pgv_', 'it keeps variables'), ('orafce', '^(dbms_(output|random|pipe|alert|sql)|utl_file|plvdate|plvsubst|plvlex|plunit)\.|\.set_nls_sort$', 'packages keep variables, buffers and files'),
  ('set_user', '\.(set_user|reset_user)', 'it changes the role'), ('hypopg', '\.hypopg', 'hypothetical indexes stay'), ('temporal_tables', '\.set_system_time$', 'it sets the time of the session'),
  ('hll', '\.hll_set_', 'it sets defaults of the session'), ('http', '\.http_(set|reset)_curlopt$', 'options of requests stay'), ('pldbgapi', '\.pldbg_', 'it keeps breakpoints and sessions')),
kept AS (
  SELECT r.oid, CASE WHEN r.language IN ('internal', 'c', 'sql', 'plpgsql') THEN r.extension ELSE r.signature END AS object, CASE WHEN r.language NOT IN ('internal', 'c', 'sql', 'plpgsql') THEN 'it is written in ' || r.language || ', where variables outlive the call'
                     ELSE s.why END AS why
    FROM routines r LEFT JOIN stateful s ON s.extension = r.extension AND r.schema || '.' || r.name ~ s.pattern
   WHERE r.language NOT IN ('internal', 'c', 'sql', 'plpgsql')
      OR s.why IS NOT NULL AND NOT (s.extension = 'isn' AND current_setting('server_version_num')::int >= 180000)),  -- a setting there
named AS (       -- called by what is not a routine: defaults, checks, views, rules, casts, operators, policies, indexes
  SELECT DISTINCT refobjid AS oid FROM pg_depend WHERE refclassid = 'pg_proc'::regclass AND classid NOT IN ('pg_proc'::regclass, 'pg_trigger'::regclass, 'pg_event_trigger'::regclass, 'pg_language'::regclass)),
doors AS (       -- the routines that a tenant runs by itself, and what shuts each door
  SELECT f.routine, f.mend FROM fired f
  UNION SELECT r.oid, format('REVOKE EXECUTE ON ROUTINE %s FROM %s', r.signature, g.grantees)
    FROM routines r JOIN pg_proc p ON p.oid = r.oid, app, LATERAL (
         SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, ', ') AS grantees FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
          WHERE a.privilege_type = 'EXECUTE' AND CASE a.grantee WHEN 0 THEN true ELSE pg_has_role(app.oid, a.grantee, 'USAGE') END) g
   WHERE r.executable AND (r.visible OR r.oid IN (SELECT oid FROM named)) AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'language_handler'::regtype)),
bad AS (
  SELECT oid, 'context_setter' AS finding, signature AS object, why FROM setters WHERE why IS NOT NULL UNION ALL SELECT oid, 'session_state', object, why FROM kept),
calls AS (       -- from what is bad to what calls it; whether it may, and whether the tenant's own rights are enough to call it
  SELECT b.oid AS bad, b.oid AS caller, true AS may FROM bad b
  UNION SELECT c.bad, e.oid, e.may FROM calls c, LATERAL (
         SELECT o.oid, o.definer OR c.may AND i.executable AS may FROM routines i JOIN routines o ON o.oid <> i.oid AND position(i.name IN o.body) > 0 AND o.body ~ i.call WHERE i.oid = c.caller
         UNION ALL SELECT a.aggfnoid::oid, c.may FROM pg_aggregate a WHERE c.caller IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)) AS e),
ways AS (SELECT c.bad, d.mend FROM calls c JOIN doors d ON d.routine = c.caller WHERE c.may),
clean (extension) AS (VALUES ('plpgsql'),
  ('adminpack'), ('amcheck'), ('autoinc'), ('bloom'), ('btree_gin'), ('btree_gist'), ('citext'), ('cube'), ('dict_int'), ('dict_xsyn'), ('earthdistance'), ('file_fdw'), ('fuzzystrmatch'), ('hstore'),
  ('insert_username'), ('intagg'), ('intarray'), ('isn'), ('lo'), ('ltree'), ('moddatetime'), ('old_snapshot'), ('pageinspect'), ('pg_buffercache'), ('pg_freespacemap'), ('pg_logicalinspect'), ('pg_prewarm'),
  ('pg_stat_statements'), ('pg_surgery'), ('pg_trgm'), ('pg_visibility'), ('pg_walinspect'), ('pgcrypto'), ('pgrowlocks'), ('pgstattuple'), ('postgres_fdw'), ('refint'), ('seg'), ('sslinfo'),
  ('tablefunc'), ('tcn'), ('tsm_system_rows'), ('tsm_system_time'), ('unaccent'), ('uuid-ossp'), ('xml2'),
  ('ip4r'), ('pg_cron'), ('pg_hint_plan'), ('pg_net'), ('pg_partman'), ('pg_repack'), ('pgaudit'), ('pgrouting'), ('postgis'), ('postgis_raster'), ('postgis_sfcgal'), ('postgis_topology'),
  ('prefix'), ('semver'), ('timescaledb'), ('vector'))
SELECT CASE WHEN b.finding = 'context_setter' AND walled.holds THEN 'warn' ELSE 'breach' END AS severity, b.finding, b.object,
       b.why || CASE WHEN b.finding = 'session_state' THEN ', and no command removes it before another organization has the connection'
                     WHEN walled.holds THEN ': a tenant can mislead what asks that setting'
                     ELSE ': a tenant reads and writes as any organization' END,
       string_agg(DISTINCT w.mend, '; ' ORDER BY w.mend)
  FROM walled, bad b JOIN ways w ON w.bad = b.oid GROUP BY b.finding, b.object, b.why, walled.holds
UNION ALL
SELECT 'note', 'extension_unknown', x.extname::text, 'nobody has looked whether its functions keep something in the server process that no command removes',
       format('look at them; then check.allow = ["extension_unknown:%s"], or REVOKE EXECUTE on those that do', x.extname)
  FROM pg_extension x WHERE x.extname NOT IN (SELECT extension FROM clean UNION SELECT extension FROM stateful)
   AND EXISTS (SELECT FROM routines r WHERE r.extension = x.extname AND r.language = 'c' AND r.executable AND r.visible)
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_language'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid)
 ORDER BY 1, 2, 3 LIMIT 2000
