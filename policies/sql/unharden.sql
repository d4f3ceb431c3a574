-- unharden.sql: gives back what hardening.sql took from everybody on functions, views and languages of the system.
-- Before pg_upgrade, which fails on a revoked function whose signature the new version has changed, and before a dump that is to be
-- restored into another major version; `partywall policies apply` puts it all back afterwards.  As a superuser; safe to repeat.  PostgreSQL 13 to 18.
--
-- What roles.sql and hardening.sql did to the database, to schemas and to the shared role stays.

SET client_min_messages = notice;

DO $unharden$
DECLARE
  v_command text;
  v_done int := 0;
BEGIN
  FOR v_command IN
    -- Functions that everybody may run as initdb made them: those without an entry of their own in pg_init_privs.
    SELECT unnest(ARRAY[format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', p.oid::regprocedure), format('REVOKE EXECUTE ON FUNCTION %s FROM pg_monitor', p.oid::regprocedure)])
      FROM pg_proc p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proacl IS NOT NULL
       AND NOT EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0)
       AND NOT EXISTS (SELECT FROM pg_init_privs i WHERE i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid AND i.objsubid = 0)
    -- What advisory.sql and the context's files gave the owner of the walls; run them again afterwards too.
    UNION ALL SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM partywall_owner', p.oid::regprocedure)
      FROM pg_proc p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace AND EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = to_regrole('partywall_owner')::oid)
    UNION ALL SELECT 'GRANT UPDATE ON pg_catalog.pg_settings TO PUBLIC'
    UNION ALL SELECT unnest(ARRAY[format('GRANT SELECT ON pg_catalog.%I TO PUBLIC', name), format('REVOKE SELECT ON pg_catalog.%I FROM pg_monitor', name)])
      FROM unnest(ARRAY['pg_stat_activity', 'pg_locks', 'pg_prepared_xacts', 'pg_db_role_setting', 'pg_sequences']) AS name
    UNION ALL SELECT format('GRANT USAGE ON LANGUAGE %I TO PUBLIC', lanname) FROM pg_language WHERE lanpltrusted
  LOOP
    EXECUTE v_command;
    v_done := v_done + 1;
  END LOOP;
  RAISE NOTICE 'done: % grants given back', v_done;
END
$unharden$;
