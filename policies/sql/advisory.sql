-- advisory.sql: advisory locks that are each organization's own, under the names that applications call.  After a context file;
-- safe to repeat.  PostgreSQL 13 to 18.
--
-- PostgreSQL's advisory locks are numbers that a whole database shares: one tenant can take another's. The functions here take
-- the lock of the caller's organization and number instead, folded into 64 bits. They stand in a schema of their own; where
-- it comes before pg_catalog in the search_path, pg_advisory_xact_lock(42) means this one:
--
--   SET search_path = partywall_locks, pg_catalog, "$user", public;
--
-- Without an organization they take no lock and return NULL. pg_advisory_unlock_all() stays PostgreSQL's own.

SET client_min_messages = warning;

DO $advisory$
DECLARE
  app_role name := coalesce(nullif(current_setting('partywall.app_role', true), ''), 'partywall_app');
  v_function record;
  v_own text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'partywall_locks') THEN
    CREATE SCHEMA partywall_locks AUTHORIZATION partywall_owner;
  END IF;
  REVOKE ALL ON SCHEMA partywall_locks FROM PUBLIC;
  EXECUTE format('GRANT USAGE ON SCHEMA partywall_locks TO %I', app_role);
  GRANT EXECUTE ON FUNCTION partywall.org() TO partywall_owner;
  FOR v_function IN
    SELECT p.oid::regprocedure AS original, p.proname AS name, p.pronargs AS arguments, format_type(p.prorettype, NULL) AS returns
      FROM pg_proc p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ '^pg_(try_)?advisory_(xact_)?(lock|unlock)(_shared)?$'
  LOOP
    v_own := format('partywall_locks.%I(%s)', v_function.name, CASE v_function.arguments WHEN 1 THEN 'bigint' ELSE 'int, int' END);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO partywall_owner', v_function.original);
    -- STRICT, and NULL for no organization: hashtextextended(NULL) is NULL, and the original is strict as well.
    EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS %s LANGUAGE sql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L',
      v_own, v_function.returns,
      format('SELECT pg_catalog.%I(hashtextextended(partywall.org() || %s, 0))', v_function.name,
             CASE v_function.arguments WHEN 1 THEN ''':'' || $1' ELSE '''/'' || $1 || '','' || $2' END));
    EXECUTE format('ALTER FUNCTION %s OWNER TO partywall_owner', v_own);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_own);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_own, app_role);
  END LOOP;
END
$advisory$;
