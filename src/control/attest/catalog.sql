-- What the catalog says of a database, as the shared login role itself reads it: severity, name, object, consequence, mend.
-- One question; nothing of it needs rights that any role lacks.  PostgreSQL 13 to 18.
-- What tenants can make (temporary objects, and what hangs on them) says nothing of the database, and must not make this slow:
-- it is left out before anything is joined or followed.
WITH RECURSIVE app AS (
  SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = session_user),
schemas AS (
  SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'partywall', 'partywall_locks')),
relations AS (   -- what the role can reach in some way, less what extensions brought
  SELECT c.oid, c.oid::regclass::text AS name, c.relowner AS owner, c.relkind AS kind, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
         c.relacl AS acl, c.reloptions AS options, c.relispartition AS is_partition,
         has_any_column_privilege(app.oid, c.oid, 'INSERT, UPDATE') OR has_table_privilege(app.oid, c.oid, 'DELETE') AS writable
    FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace, app
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
     AND (has_any_column_privilege(app.oid, c.oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(app.oid, c.oid, 'DELETE, TRUNCATE'))
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')),
tables AS (SELECT * FROM relations WHERE kind IN ('r', 'p')),
policies AS (
  SELECT p.polrelid AS relation, quote_ident(p.polname) AS name, p.polpermissive AS permissive,
         pg_get_expr(p.polqual, p.polrelid) AS reads, pg_get_expr(p.polwithcheck, p.polrelid) AS writes,
         concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) AS text
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid AND c.relpersistence <> 't', app WHERE app.oid = ANY (p.polroles) OR 0 = ANY (p.polroles)),
lossy AS (       -- types to which a cast loses something, as a pattern: what is longer, blanks, case, digits
  SELECT 'character varying\(|character\(|bpchar|name\M|"char"|bit\M|bit varying\(|numeric\(|real\M|double precision|(\w+\.)?citext\M'
         || coalesce((SELECT string_agg('|' || regexp_replace(format_type(t.oid, NULL), '(\W)', '\\\1', 'g') || '(?!\w)', '') FROM pg_type t
                       WHERE t.typtype = 'd' AND (t.typbasetype IN ('bpchar'::regtype, 'name'::regtype, '"char"'::regtype) OR t.typtypmod >= 0
                                                  OR EXISTS (SELECT FROM pg_type b WHERE b.oid = t.typbasetype AND (b.typname = 'citext' OR b.typtype = 'd')))), '') AS types),
spoken AS (      -- with a blank before each column, so that "id =" is not found in "org_id ="; the settings' names come from the configuration
  SELECT relation, name, permissive, reads, writes, text, translate($plain$, '(.', '  ') AS words, text ~ $context$ AS by_context,
         coalesce(reads, '') !~ $context$ AND reads IS NOT NULL OR coalesce(writes, '') !~ $context$ AND writes IS NOT NULL OR text ~* '\mor true\M' AS one_way,
         CASE WHEN text ~ 'COLLATE "C"' THEN NULL   -- where another comparison, by bytes, stands beside it
              WHEN regexp_replace($plain$, 'partywall\.org_as\([^()]*\)', 'partywall.org()', 'g') ~* ('(' || substr($context$, 5) || ')[^=<>]*::(' || lossy.types || ')')
                OR EXISTS (SELECT FROM pg_attribute a JOIN pg_collation l ON l.oid = a.attcollation AND NOT l.collisdeterministic
                            WHERE a.attrelid = relation AND a.attnum > 0 AND position(' ' || quote_ident(a.attname) || ' =' IN translate($plain$, '(.', '  ')) > 0) THEN 'breach'
              WHEN text ~* ('\m("?left"?|"?substring"?|substr|lower|upper)\(+(' || substr($context$, 5) || ')') THEN 'warn' END AS loses
    FROM policies, lossy),
compared AS (    -- the columns that policies compare with something: where organizations stand
  SELECT DISTINCT a.attname AS name FROM spoken p JOIN pg_attribute a ON a.attrelid = p.relation AND a.attnum > 0 AND NOT a.attisdropped
   WHERE p.by_context AND position(' ' || quote_ident(a.attname) || ' =' IN p.words) > 0
  UNION SELECT 'org_id'),
edges AS (       -- which protected tables a view or materialized view reads, directly or through other views
  SELECT w.ev_class AS view, d.refobjid AS target FROM pg_rewrite w JOIN pg_class v ON v.oid = w.ev_class AND v.relpersistence <> 't'
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
   WHERE d.refobjid <> w.ev_class),
reach AS (SELECT view, target FROM edges UNION SELECT r.view, e.target FROM reach r JOIN edges e ON e.view = r.target),
reads_of AS (
  SELECT r.view, c.oid AS relation, c.oid::regclass::text AS name, c.relowner AS owner, c.relforcerowsecurity AS forced
    FROM reach r JOIN pg_class c ON c.oid = r.target WHERE c.relrowsecurity),
routines AS (
  SELECT p.oid, lower(p.proname) AS name, '\m' || regexp_replace(lower(p.proname), '(\W)', '\\\1', 'g') || '\M' AS word, p.proowner AS owner, p.prosecdef AS definer, p.proconfig AS config, lower(whole.body) AS body,
         l.lanname NOT IN ('sql', 'plpgsql') AS dark,
         has_schema_privilege(app.oid, p.pronamespace, 'USAGE') AND has_function_privilege(app.oid, p.oid, 'EXECUTE')
           OR EXISTS (SELECT FROM pg_trigger g JOIN relations r ON r.oid = g.tgrelid WHERE g.tgfoid = p.oid AND NOT g.tgisinternal) AS reached
    FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang, app,
         LATERAL (SELECT CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END AS body) AS whole
   WHERE p.prokind IN ('f', 'p') AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')),
calls AS (       -- which routines one may run, by what its text mentions, with those that these may run
  SELECT oid AS outer_most, oid AS inner_most FROM routines WHERE definer AND reached
  UNION SELECT c.outer_most, r.oid FROM calls c JOIN routines o ON o.oid = c.inner_most JOIN routines r ON r.oid <> o.oid AND position(r.name IN o.body) > 0 AND o.body ~ r.word),
named AS (       -- protected tables, and what reads them
  SELECT lower(c.relname) AS name, '\m' || regexp_replace(lower(c.relname), '(\W)', '\\\1', 'g') || '\M' AS word
    FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace WHERE c.relrowsecurity OR c.oid IN (SELECT view FROM reads_of)),
definers AS (
  SELECT p.oid, p.oid::regprocedure::text AS name, p.config, p.owner::regrole::text AS owner,
         (o.rolsuper OR o.rolbypassrls OR EXISTS (SELECT FROM pg_class c WHERE c.relrowsecurity AND NOT c.relforcerowsecurity AND c.relowner = p.owner AND c.relpersistence <> 't')
           OR EXISTS (SELECT FROM pg_policy y WHERE p.owner = ANY (y.polroles) AND concat_ws(' ', pg_get_expr(y.polqual, y.polrelid), pg_get_expr(y.polwithcheck, y.polrelid)) !~ $context$))
         AND EXISTS (SELECT FROM calls c JOIN routines r ON r.oid = c.inner_most WHERE c.outer_most = p.oid
                       AND (r.dark OR r.body ~ '\mexecute\M' AND r.body !~ 'language sql' OR EXISTS (SELECT FROM named n WHERE position(n.name IN r.body) > 0 AND r.body ~ n.word))) AS opens
    FROM routines p JOIN pg_roles o ON o.oid = p.owner WHERE p.definer AND p.reached),
open_functions (step, signature) AS (VALUES
  ('signals', 'pg_cancel_backend(integer)'), ('sessions', 'pg_stat_get_activity(integer)'), ('locks', 'pg_lock_status()'),
  ('advisory_locks', 'pg_advisory_lock(bigint)'), ('messages', 'pg_notify(text,text)'), ('large_objects', 'lo_create(oid)'),
  ('texts_as_sql', 'query_to_xml(text,boolean,boolean,text)'), ('texts_as_sql', 'ts_stat(text)'),
  ('counters', 'pg_stat_get_xact_tuples_inserted(oid)'), ('sequence_state', 'pg_sequence_last_value(regclass)')),
findings (severity, name, object, consequence, mend) AS (
  -- tables
  SELECT 'breach', 'owned', r.name, 'the login role owns it, and can drop its policies or make it another',
         format('ALTER %s %s OWNER TO partywall_owner', CASE r.kind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, r.name)
    FROM relations r, app WHERE r.owner = app.oid
  UNION ALL SELECT CASE WHEN t.writable OR c.name IS NOT NULL THEN 'breach' ELSE 'warn' END,
         CASE WHEN t.is_partition THEN 'partition_without_rls' ELSE 'table_without_rls' END, t.name,
         CASE WHEN t.writable OR c.name IS NOT NULL THEN 'every organization reads or changes the rows of all others' ELSE 'every organization reads all of it; good for reference data only' END,
         CASE WHEN c.name IS NULL THEN format('REVOKE ALL ON %s FROM PUBLIC, %s; or give it a column org_id and SELECT partywall.protect(%L)', t.name, app.name, t.name)
              ELSE format('SELECT partywall.protect(%L, %L)', t.name, c.name) END
    FROM app, tables t LEFT JOIN LATERAL (
         SELECT min(a.attname) AS name FROM pg_attribute a JOIN compared ON compared.name = a.attname WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped) c ON true
   WHERE NOT t.enabled
  UNION ALL SELECT 'warn', 'rls_not_forced', t.name, 'its owner, and views and functions of its owner, see every organization', format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t.name)
    FROM tables t WHERE t.enabled AND NOT t.forced
  UNION ALL SELECT 'warn', 'policy_missing', t.name, 'no organization sees a row of it', format('SELECT partywall.protect(%L)', t.name)
    FROM tables t WHERE t.enabled AND NOT EXISTS (SELECT FROM spoken p WHERE p.relation = t.oid)
  UNION ALL SELECT 'breach', 'policy_ignores_context', t.name, 'policy ' || p.name || ' lets rows of every organization pass: ' || p.text, format('DROP POLICY %s ON %s', p.name, t.name)
    FROM spoken p JOIN tables t ON t.oid = p.relation WHERE p.permissive AND NOT p.by_context
  UNION ALL SELECT 'breach', 'policy_one_way', t.name, 'policy ' || p.name || ' lets rows of every organization pass in one direction: ' || p.text,
         format('ALTER POLICY %s ON %s: compare with the context in USING and in WITH CHECK', p.name, t.name)
    FROM spoken p JOIN tables t ON t.oid = p.relation WHERE p.permissive AND p.by_context AND p.one_way
  UNION ALL SELECT p.loses, 'policy_lossy', t.name, 'policy ' || p.name || ' takes organizations for the same one whose names are alike: ' || p.text,
         CASE WHEN p.name LIKE 'partywall\_%' THEN '' ELSE format('DROP POLICY %s ON %s; ', p.name, t.name) END
         || format('SELECT partywall.protect(%L, %L' || CASE WHEN p.permissive THEN ')' ELSE ', NULL, true)' END, t.name, coalesce((SELECT min(a.attname) FROM pg_attribute a
              WHERE a.attrelid = t.oid AND a.attnum > 0 AND position(' ' || quote_ident(a.attname) || ' =' IN p.words) > 0),
              (SELECT min(a.attname) FROM pg_policy y JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = y.oid AND d.refobjid = t.oid
                 JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid WHERE y.polrelid = t.oid AND quote_ident(y.polname) = p.name), 'org_id'))
    FROM spoken p JOIN tables t ON t.oid = p.relation
   WHERE p.by_context AND p.loses IS NOT NULL
     AND (p.permissive OR NOT EXISTS (SELECT FROM spoken q WHERE q.relation = p.relation AND q.permissive AND q.by_context AND q.loses IS NULL))
  UNION ALL SELECT 'warn', 'policy_plain_context', t.name, 'policy ' || p.name || ' reads an ordinary setting: the guard alone keeps tenants from writing it, though this database has a context that they cannot write',
         format('ALTER POLICY %s ON %s: partywall.org() instead of current_setting(…); or SELECT partywall.protect(%L)', p.name, t.name, t.name)
    FROM spoken p JOIN tables t ON t.oid = p.relation
   WHERE p.by_context AND p.text ~ 'current_setting' AND EXISTS (SELECT FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace WHERE n.nspname = 'partywall' AND f.proname IN ('hello', 'seal_holds'))
  UNION ALL SELECT 'warn', 'policy_per_row', t.name, 'policy ' || p.name || ' calls the context for each row: slow', format('ALTER POLICY %s ON %s: write (SELECT …) around the context', p.name, t.name)
    FROM spoken p JOIN tables t ON t.oid = p.relation WHERE p.text ~ 'partywall\.\w+\(\)|current_setting\(' AND p.text !~* 'select'
  UNION ALL SELECT 'warn', 'no_index', t.name, 'each statement reads the rows of every organization: slow, and its time tells how many there are',
         format('CREATE INDEX CONCURRENTLY ON %s (%I)', t.name, coalesce((SELECT min(a.attname) FROM pg_attribute a JOIN compared ON compared.name = a.attname WHERE a.attrelid = t.oid), 'org_id'))
    FROM tables t
   WHERE t.enabled AND EXISTS (SELECT FROM spoken p WHERE p.relation = t.oid)
     AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                       JOIN spoken p ON p.relation = t.oid AND position(' ' || quote_ident(a.attname) || ' =' IN p.words) > 0 WHERE i.indrelid = t.oid AND i.indisvalid)
  UNION ALL SELECT 'warn', 'key_across', format('%s.%I', t.name, k.conname),
         CASE k.contype WHEN 'f' THEN 'a foreign key tells whether another organization has such a row' ELSE 'a conflict tells that another organization has such a row' END,
         format('put the organization first in %s', pg_get_constraintdef(k.oid))
    FROM pg_constraint k JOIN tables t ON t.oid = k.conrelid AND t.enabled
   WHERE k.contype IN ('p', 'u', 'x', 'f') AND EXISTS (SELECT FROM spoken p WHERE p.relation = t.oid)
     AND NOT EXISTS (SELECT FROM spoken p JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
                       AND position(' ' || quote_ident(a.attname) || ' =' IN p.words) > 0 WHERE p.relation = k.conrelid)
  UNION ALL SELECT CASE a.privilege_type WHEN 'TRUNCATE' THEN 'breach' ELSE 'warn' END, 'grant_beyond_policies', t.name,
         CASE a.privilege_type WHEN 'TRUNCATE' THEN 'TRUNCATE asks no policy: one organization empties the table of all' ELSE a.privilege_type || ' asks no policy' END,
         format('REVOKE %s ON %s FROM PUBLIC, %s', a.privilege_type, t.name, app.name)
    FROM app, tables t, (VALUES ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) AS a(privilege_type) WHERE t.owner <> app.oid AND has_table_privilege(app.oid, t.oid, a.privilege_type)
  -- what lies beside the tables
  UNION ALL SELECT DISTINCT 'breach', 'view_with_owners_rights', v.name, 'it shows rows of every organization, from ' || r.name,
         CASE WHEN current_setting('server_version_num')::int >= 150000 THEN format('ALTER VIEW %s SET (security_invoker = true)', v.name)
              ELSE format('ALTER VIEW %s OWNER TO a role without SUPERUSER and BYPASSRLS, and FORCE ROW LEVEL SECURITY on %s', v.name, r.name) END
    FROM relations v JOIN reads_of r ON r.view = v.oid JOIN pg_roles o ON o.oid = v.owner
   WHERE v.kind = 'v' AND NOT coalesce(v.options::text ~* 'security_invoker=(true|on|1|yes)', false) AND (o.rolsuper OR o.rolbypassrls OR (r.owner = v.owner AND NOT r.forced)
       OR EXISTS (SELECT FROM pg_policy y WHERE y.polrelid = r.relation AND v.owner = ANY (y.polroles)
                    AND concat_ws(' ', pg_get_expr(y.polqual, y.polrelid), pg_get_expr(y.polwithcheck, y.polrelid)) !~ $context$))
  UNION ALL SELECT DISTINCT 'breach', 'materialized_view', m.name, 'it holds rows of every organization, from ' || r.name, format('REVOKE ALL ON %s FROM PUBLIC, %s', m.name, app.name)
    FROM app, relations m JOIN reads_of r ON r.view = m.oid WHERE m.kind = 'm'
  UNION ALL SELECT 'breach', 'foreign_table', r.name, 'it cannot have row-level security', format('REVOKE ALL ON %s FROM PUBLIC, %s', r.name, app.name) FROM app, relations r WHERE r.kind = 'f'
  UNION ALL SELECT CASE WHEN d.opens THEN 'breach' ELSE 'warn' END, 'security_definer', d.name,
         'it runs with the rights of ' || d.owner || CASE WHEN d.opens THEN ', past the policies of what it reads' ELSE '' END || CASE WHEN d.config::text ~ 'search_path' THEN '' ELSE '; its search_path is not pinned' END,
         format('ALTER ROUTINE %s SECURITY INVOKER; or REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC, %s', d.name, d.name, app.name) FROM app, definers d
  UNION ALL SELECT 'warn', 'untrusted_function', p.oid::regprocedure::text, 'it is written in ' || l.lanname || ', and does whatever the server process may', format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC, %s', p.oid::regprocedure, app.name)
    FROM app, routines r JOIN pg_proc p ON p.oid = r.oid JOIN pg_language l ON l.oid = p.prolang WHERE r.reached AND NOT l.lanpltrusted AND l.lanname <> 'sql'
  UNION ALL SELECT DISTINCT 'warn', 'rule', format('%s.%I', r.name, w.rulename), 'what it runs asks the rights of the table''s owner, not those of the tenant', format('DROP RULE %I ON %s', w.rulename, r.name)
    FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.ev_type <> '1'
  UNION ALL SELECT 'warn', 'grant_option', r.name, 'a tenant that gets past the guard hands its rights on to others', format('REVOKE GRANT OPTION FOR ALL ON %s FROM %s', r.name, app.name)
    FROM app, relations r, aclexplode(r.acl) a WHERE a.grantee = app.oid AND a.is_grantable AND r.owner <> app.oid GROUP BY r.name, app.name
  UNION ALL SELECT 'warn', 'default_privileges', coalesce(quote_ident(n.nspname), 'every schema'), 'a new table of ' || d.defaclrole::regrole || ' is open to every organization until it is protected',
         format('ALTER DEFAULT PRIVILEGES FOR ROLE %s%s REVOKE ALL ON TABLES FROM %s', d.defaclrole::regrole, ' IN SCHEMA ' || quote_ident(n.nspname), CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE app.name END)
    FROM app, pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a WHERE d.defaclobjtype = 'r' AND a.grantee IN (0, app.oid)
   GROUP BY d.defaclrole, n.nspname, a.grantee, app.name
  UNION ALL SELECT 'warn', 'open_sequence', c.oid::regclass::text, 'a tenant that gets past the guard sets it back, and the inserts of others collide', format('REVOKE UPDATE ON SEQUENCE %s FROM PUBLIC, %s; USAGE is enough for nextval', c.oid::regclass, app.name)
    FROM app, pg_class c JOIN schemas s ON s.oid = c.relnamespace WHERE c.relkind = 'S' AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(app.oid, c.oid, 'UPDATE') END
  UNION ALL SELECT 'warn', 'sequence_readable', c.oid::regclass::text, 'its last value tells how many rows all organizations made', format('REVOKE SELECT ON SEQUENCE %s FROM PUBLIC, %s', c.oid::regclass, app.name)
    FROM app, pg_class c JOIN schemas s ON s.oid = c.relnamespace WHERE c.relkind = 'S' AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(app.oid, c.oid, 'SELECT') END
  UNION ALL SELECT 'breach', 'catalog_readable', c.relname::text, 'it holds ' || k.holds, format('REVOKE ALL ON pg_catalog.%I FROM PUBLIC, %s', c.relname, app.name)
    FROM app, (VALUES ('pg_statistic', 'values from the rows of every organization'), ('pg_statistic_ext_data', 'values from the rows of every organization'),
                      ('pg_largeobject', 'the large objects of every organization'), ('pg_authid', 'the passwords of roles'), ('pg_user_mapping', 'the passwords for foreign servers')) AS k(name, holds)
    JOIN pg_class c ON c.relname = k.name AND c.relnamespace = 'pg_catalog'::regnamespace WHERE has_any_column_privilege(app.oid, c.oid, 'SELECT')
  UNION ALL SELECT DISTINCT 'breach', 'statistics_readable', e.seen_in || ':' || c.oid::regclass, 'it shows values from the rows of every organization', 'an older server''s view that has no regard for row-level security: see the release notes of CVE-2024-4317, or REVOKE SELECT ON pg_catalog.' || e.seen_in || ' FROM PUBLIC'
    FROM (SELECT 'pg_stats' AS seen_in, schemaname, tablename FROM pg_stats WHERE schemaname !~ '^pg_' UNION ALL SELECT 'pg_stats_ext', schemaname, tablename FROM pg_stats_ext WHERE schemaname !~ '^pg_') AS e
    JOIN pg_namespace n ON n.nspname = e.schemaname JOIN pg_class x ON x.relnamespace = n.oid AND x.relname = e.tablename
    LEFT JOIN pg_index i ON i.indexrelid = x.oid JOIN pg_class c ON c.oid = coalesce(i.indrelid, x.oid) WHERE c.relrowsecurity
  UNION ALL SELECT 'warn', 'granted_to_public', r.name, 'any role that can log in has ' || string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), format('REVOKE ALL ON %s FROM PUBLIC', r.name)
    FROM relations r, aclexplode(r.acl) a WHERE a.grantee = 0 GROUP BY r.name
  UNION ALL SELECT 'warn', 'may_create', quote_ident(n.nspname), 'objects that a tenant makes in it are seen by the next', format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %s', n.nspname, app.name)
    FROM pg_namespace n, app WHERE has_schema_privilege(app.oid, n.oid, 'CREATE') AND n.nspname !~ '^pg_'
  UNION ALL SELECT 'breach', 'seal_key_readable', 'partywall.seal_key', 'a tenant can seal itself any context', format('REVOKE ALL ON partywall.seal_key FROM PUBLIC, %s', app.name)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'partywall', app
   WHERE c.relname = 'seal_key' AND (has_any_column_privilege(app.oid, c.oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(app.oid, c.oid, 'DELETE'))
  UNION ALL SELECT 'warn', 'lock_secret_readable', 'partywall_locks.secret', 'a tenant can reckon which of its advisory locks meet those of others', format('REVOKE ALL ON partywall_locks.secret FROM PUBLIC, %s', app.name)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'partywall_locks', app
   WHERE c.relname = 'secret' AND (has_any_column_privilege(app.oid, c.oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(app.oid, c.oid, 'DELETE'))
  UNION ALL SELECT 'breach', 'schema_owned', n.nspname::text, 'a tenant can replace the functions that the policies ask', format('ALTER SCHEMA %I OWNER TO partywall_owner; REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %s', n.nspname, n.nspname, app.name)
    FROM pg_namespace n, app WHERE n.nspname IN ('partywall', 'partywall_locks') AND (n.nspowner = app.oid OR has_schema_privilege(app.oid, n.oid, 'CREATE'))
  UNION ALL SELECT 'breach', 'function_owned', p.oid::regprocedure::text, 'a tenant can replace it, and other organizations, or their policies, run what it says then', format('ALTER ROUTINE %s OWNER TO partywall_owner', p.oid::regprocedure)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, app WHERE n.nspname !~ '^pg_' AND p.proowner = app.oid
  -- what hardening leaves open
  UNION ALL SELECT 'warn', 'open_' || o.step, o.signature, 'the guard alone keeps tenants from it', 'partywall policies apply (hardening.sql)'
    FROM open_functions o, app WHERE has_function_privilege(app.oid, to_regprocedure('pg_catalog.' || o.signature), 'EXECUTE')
  UNION ALL SELECT 'warn', 'open_languages', lanname::text, 'the guard alone keeps tenants from DO and from functions of their own', format('REVOKE USAGE ON LANGUAGE %I FROM PUBLIC, %s', lanname, app.name)
    FROM pg_language, app WHERE lanpltrusted AND has_language_privilege(app.oid, pg_language.oid, 'USAGE')
  UNION ALL SELECT 'warn', 'open_temporary', current_database()::text, 'temporary objects can shadow names', format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, %s', current_database(), app.name)
    FROM app WHERE has_database_privilege(app.oid, current_database(), 'TEMPORARY')
  UNION ALL SELECT 'warn', 'open_settings', 'pg_settings', 'UPDATE pg_settings is SET by another name; the guard alone stops it', 'REVOKE UPDATE ON pg_catalog.pg_settings FROM PUBLIC'
    FROM app WHERE has_table_privilege(app.oid, 'pg_catalog.pg_settings', 'UPDATE')
  UNION ALL SELECT 'warn', 'open_prepared_transactions', 'max_prepared_transactions', 'a prepared transaction keeps its locks for ever; the guard alone stops it', 'max_prepared_transactions = 0 in postgresql.conf'
   WHERE current_setting('max_prepared_transactions')::int > 0
  UNION ALL SELECT 'warn', 'lock_table', 'partywall_locks', 'one tenant can fill the table of locks of the whole server with advisory locks: nobody can log in or write then', 'partywall policies apply (advisory.sql)'
   WHERE to_regnamespace('partywall_locks') IS NOT NULL AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = to_regnamespace('partywall_locks') AND p.proname = 'number')
  UNION ALL SELECT 'warn', 'lock_table', 'max_locks_per_transaction', format('the server has room for %s locks in all, and a session may hold 256 advisory locks alone: few tenants fill it, and nobody can log in or write then', l.room),
         format('max_locks_per_transaction = %s in postgresql.conf', 4096 / l.processes + 1)
    FROM (SELECT current_setting('max_locks_per_transaction')::int * p.processes AS room, p.processes
            FROM (SELECT current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int AS processes) AS p) AS l WHERE l.room < 4096
  UNION ALL SELECT 'warn', 'server_logs_statements', g.name, 'the server''s log has what tenants write, whole: errors that quote 100 MB fill its disk', format('ALTER ROLE %s SET %s = %L', app.name, g.name, w.value)
    FROM app, (VALUES ('log_min_messages', 'log', '{log,fatal,panic}'), ('log_min_error_statement', 'panic', '{fatal,panic}'), ('log_statement', 'none', '{none,ddl}')) AS w(name, value, good)
    JOIN pg_settings g ON g.name = w.name WHERE g.setting <> ALL (w.good::text[])
  UNION ALL SELECT 'warn', 'server_logs_statements', g.name, 'the server''s log has every statement of tenants', format('ALTER ROLE %s SET %s = 1000', app.name, g.name)
    FROM app, pg_settings g WHERE g.name = 'log_min_duration_statement' AND g.setting::int BETWEEN 0 AND 99
  UNION ALL SELECT 'warn', 'open_database', datname::text, 'with its password, the login role can sit in a database that nobody has hardened', format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', datname)
    FROM pg_database, app WHERE datname <> current_database() AND datallowconn AND has_database_privilege(app.oid, pg_database.oid, 'CONNECT')
  UNION ALL SELECT 'warn', 'open_extension', x.extname::text, 'it runs SQL that stands in texts, reaches other servers and files, or shows other sessions; the guard refuses only what it knows: ' || string_agg(DISTINCT o.name, ', '),
         format('partywall policies apply (hardening.sql), or REVOKE … FROM PUBLIC, %s', app.name)
    FROM app, pg_extension x JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid AND d.deptype = 'e'
    JOIN LATERAL (SELECT p.proname::text FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid AND p.prorettype <> 'trigger'::regtype AND has_function_privilege(session_user, p.oid, 'EXECUTE')
                    AND (x.extname <> 'tablefunc' OR p.proname ~ '^(crosstab|connectby)')
                  UNION ALL SELECT c.relname::text FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'v', 'm') AND has_any_column_privilege(session_user, c.oid, 'SELECT')) AS o(name) ON true
   WHERE x.extname IN ('dblink', 'postgres_fdw', 'file_fdw', 'adminpack', 'tablefunc', 'xml2', 'pg_stat_statements', 'pg_cron', 'pg_net', 'http', 'pg_background',
                       'pgrowlocks', 'pg_buffercache', 'pg_prewarm', 'pageinspect', 'pgstattuple', 'pg_visibility', 'pg_walinspect', 'pg_freespacemap', 'amcheck')
   GROUP BY x.extname, app.name
  UNION ALL SELECT 'warn', 'open_foreign_server', srvname::text, 'a tenant reaches another server', format('REVOKE USAGE ON FOREIGN SERVER %I FROM PUBLIC, %s', srvname, app.name)
    FROM pg_foreign_server, app WHERE has_server_privilege(app.oid, pg_foreign_server.oid, 'USAGE')
)
SELECT severity, name, object, consequence, mend FROM findings ORDER BY 1, 2, 3 LIMIT 2000
