-- status.sql: what holds and what does not, as rows.  After protect.sql; safe to repeat.  PostgreSQL 13 to 18.
--
--   SELECT * FROM partywall.status();
--
-- BREACH: rows of one organization are in reach of another.  warn: a weakness, or a road around.  ok: as it should be.

SET client_min_messages = warning;

CREATE OR REPLACE FUNCTION partywall.status(p_role name DEFAULT NULL)
RETURNS TABLE (severity text, object text, finding text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH app AS (
    SELECT oid, rolname, rolsuper, rolbypassrls FROM pg_roles
     WHERE rolname = coalesce(p_role, nullif(current_setting('partywall.app_role', true), ''), 'partywall_app')),
  schemas AS (
    SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'partywall')),
  relations AS (   -- whatever the role can reach in some way, less what extensions brought
    SELECT c.oid, c.relowner AS owner, c.relkind AS kind, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
           c.relacl AS acl, c.reloptions AS options
      FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace, app
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND (has_any_column_privilege(app.oid, c.oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(app.oid, c.oid, 'DELETE, TRUNCATE'))
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')),
  tables AS (SELECT * FROM relations WHERE kind IN ('r', 'p')),
  policies AS (
    SELECT p.polrelid AS relation, p.polname AS name, p.polpermissive AS permissive,
           pg_get_expr(p.polqual, p.polrelid) AS reads, pg_get_expr(p.polwithcheck, p.polrelid) AS writes,
           concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) AS text,
           -- without casts of columns, and with a blank before each, so that "id =" is not found in "org_id ="
           translate(regexp_replace(regexp_replace(concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)),
             '\(((?:\w|"[^"]*")+)\)::[\w."]+( varying| precision)?(\([\d,]+\))?', '\1', 'g'), 'OPERATOR\([^()]*\.=\)', '=', 'g'), '(.', '  ') AS words
      FROM pg_policy p, app WHERE app.oid = ANY (p.polroles) OR 0 = ANY (p.polroles)),
  reads_of AS (    -- which protected tables a view or materialized view reads, directly or through other views
    WITH RECURSIVE edges AS (
      SELECT w.ev_class AS view, d.refobjid AS target FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
       WHERE d.refobjid <> w.ev_class),
    reach AS (SELECT view, target FROM edges UNION SELECT r.view, e.target FROM reach r JOIN edges e ON e.view = r.target)
    SELECT r.view, c.oid AS relation, c.relowner AS owner, c.relforcerowsecurity AS forced
      FROM reach r JOIN pg_class c ON c.oid = r.target WHERE c.relrowsecurity),
  findings (severity, object, finding) AS (
    SELECT 'BREACH', coalesce(p_role, 'partywall_app')::text, 'there is no such role' WHERE NOT EXISTS (SELECT FROM app)
    -- tables
    UNION ALL SELECT 'ok', t.oid::regclass::text, 'row-level security is on and forced, and its policies read the context' FROM tables t
      WHERE enabled AND forced AND EXISTS (SELECT FROM policies p WHERE p.relation = t.oid)
        AND NOT EXISTS (SELECT FROM policies p WHERE p.relation = t.oid AND permissive AND p.text !~ 'partywall\.|current_setting')
    UNION ALL SELECT 'BREACH', oid::regclass::text, 'no row-level security, and the role can reach it' FROM tables WHERE NOT enabled
    UNION ALL SELECT 'warn', oid::regclass::text, 'row-level security is not forced: its owner sees every organization' FROM tables WHERE enabled AND NOT forced
    UNION ALL SELECT 'warn', oid::regclass::text, 'row-level security without a policy for the role: it sees no row' FROM tables t
      WHERE enabled AND NOT EXISTS (SELECT FROM policies p WHERE p.relation = t.oid)
    UNION ALL SELECT 'BREACH', t.oid::regclass::text, 'the role owns it, and can drop its policies' FROM tables t, app WHERE pg_has_role(app.oid, t.owner, 'MEMBER')
    UNION ALL SELECT 'BREACH', p.relation::regclass::text, 'permissive policy ' || p.name || ' does not read the context: ' || p.text
      FROM policies p JOIN tables t ON t.oid = p.relation WHERE p.permissive AND p.text !~ 'partywall\.|current_setting'
    UNION ALL SELECT 'BREACH', p.relation::regclass::text, 'policy ' || p.name || ' lets every row pass one way: ' || p.text
      FROM policies p JOIN tables t ON t.oid = p.relation WHERE p.permissive AND 'true' IN (p.reads, p.writes) AND p.text ~ 'partywall\.|current_setting'
    UNION ALL SELECT 'BREACH', p.relation::regclass::text, 'policy ' || p.name || ' casts the organization to a type that cuts it: run protect again: ' || p.text
      FROM policies p JOIN tables t ON t.oid = p.relation
     WHERE p.permissive AND p.text !~ 'COLLATE "C"'
       AND regexp_replace(p.words, 'org_as *NULL::', '', 'g') ~* '(partywall |current_setting )[^=<>]*::(character varying *\d|character +\d|bpchar|name\M|"char"|bit\M|numeric +\d|real\M|double precision|(\w+ )?citext\M)'
    UNION ALL SELECT 'warn', p.relation::regclass::text, 'policy ' || p.name || ' calls the context for each row: write (SELECT …)'
      FROM policies p JOIN tables t ON t.oid = p.relation WHERE p.text ~ 'partywall\.\w+\(\)|current_setting\(' AND p.text !~* 'select'
    UNION ALL SELECT 'warn', t.oid::regclass::text, 'no index leads with a column that the policies compare' FROM tables t
      WHERE enabled AND EXISTS (SELECT FROM policies p WHERE p.relation = t.oid)
        AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                          JOIN policies p ON p.relation = t.oid AND position(' ' || quote_ident(a.attname) || ' =' IN p.words) > 0 WHERE i.indrelid = t.oid)
    UNION ALL SELECT 'warn', c.conrelid::regclass::text, 'key ' || c.conname || ' reaches across organizations: it tells that a row exists' FROM pg_constraint c JOIN tables t ON t.oid = c.conrelid AND t.enabled
      WHERE c.contype IN ('p', 'u', 'x', 'f') AND EXISTS (SELECT FROM policies p WHERE p.relation = t.oid)
        AND NOT EXISTS (SELECT FROM policies p JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
                         AND position(' ' || quote_ident(a.attname) || ' =' IN p.words) > 0 WHERE p.relation = c.conrelid)
    -- what lies beside the tables
    UNION ALL SELECT DISTINCT 'BREACH', v.oid::regclass::text, 'view reads ' || r.relation::regclass || ' with the rights of ' || v.owner::regrole || ': SET (security_invoker = true), PostgreSQL 15'
      FROM relations v JOIN reads_of r ON r.view = v.oid JOIN pg_roles o ON o.oid = v.owner
      WHERE v.kind = 'v' AND NOT coalesce(v.options::text ~* 'security_invoker=(true|on|1|yes)', false)
        AND (o.rolsuper OR o.rolbypassrls OR (r.owner = v.owner AND NOT r.forced))
    UNION ALL SELECT DISTINCT 'BREACH', m.oid::regclass::text, 'materialized view holds rows of every organization, from ' || r.relation::regclass
      FROM relations m JOIN reads_of r ON r.view = m.oid WHERE m.kind = 'm'
    UNION ALL SELECT 'BREACH', oid::regclass::text, 'foreign table: it cannot have row-level security' FROM relations WHERE kind = 'f'
    UNION ALL SELECT 'warn', p.oid::regprocedure::text, 'SECURITY DEFINER function of ' || p.proowner::regrole || CASE WHEN p.proconfig::text ~ 'search_path' THEN '' ELSE ', search_path not pinned' END
      FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace, app WHERE p.prosecdef AND has_function_privilege(app.oid, p.oid, 'EXECUTE')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    UNION ALL SELECT 'warn', r.oid::regclass::text, 'granted to PUBLIC: ' || string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FROM relations r, aclexplode(r.acl) a WHERE a.grantee = 0 GROUP BY r.oid
    UNION ALL SELECT 'warn', 'schema ' || n.nspname, 'the role may create objects in it' FROM pg_namespace n, app WHERE has_schema_privilege(app.oid, n.oid, 'CREATE') AND n.nspname !~ '^pg_'
    -- the role
    UNION ALL SELECT 'BREACH', rolname::text, 'the shared role is a superuser or has BYPASSRLS' FROM app WHERE rolsuper OR rolbypassrls
    UNION ALL SELECT 'BREACH', r.rolname::text, 'the shared role is a member of it' FROM pg_roles r, app WHERE r.oid <> app.oid AND NOT app.rolsuper AND pg_has_role(app.oid, r.oid, 'MEMBER')
    UNION ALL SELECT 'warn', 'role ' || app.rolname, 'settings that could poison every session: ' || array_to_string(s.setconfig, ', ')
      FROM pg_db_role_setting s JOIN app ON app.oid = s.setrole WHERE s.setconfig::text ~ '(local_preload_libraries|search_path|row_security|[{",]role=|default_transaction)')
  SELECT f.severity, f.object, f.finding FROM findings f
   ORDER BY CASE f.severity WHEN 'BREACH' THEN 0 WHEN 'warn' THEN 1 ELSE 2 END, 2, 3
$$;

REVOKE ALL ON FUNCTION partywall.status(name) FROM PUBLIC;
