-- advisory.sql: advisory locks that are each organization's own, under the names that applications call.  After a context file;
-- safe to repeat.  PostgreSQL 13 to 18.
--
-- PostgreSQL's advisory locks are numbers that a whole database shares: one tenant can take another's. The functions here take
-- the lock of the caller's organization and number instead, folded into 64 bits with a secret that no tenant can read: so nobody
-- can reckon which of his own numbers would fall on a lock of another's.
--
-- Nothing hangs on the search_path. Where this file is installed, the proxy writes partywall_locks. before each call of such a
-- function, and hardening.sql takes PostgreSQL's own ones from the shared role.
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
  GRANT EXECUTE ON FUNCTION partywall.org(), pg_catalog.pg_lock_status() TO partywall_owner;

  -- 244 random bits, of the server's strong source. They stay when this file is run again: locks that are held must be found.
  IF to_regclass('partywall_locks.secret') IS NULL THEN
    CREATE TABLE partywall_locks.secret (only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one), value bytea NOT NULL);
    INSERT INTO partywall_locks.secret (value) VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));
    REVOKE ALL ON partywall_locks.secret FROM PUBLIC;
    ALTER TABLE partywall_locks.secret OWNER TO partywall_owner;
  END IF;

  -- The number in PostgreSQL's space of an organization's own; NULL where there is no organization.
  CREATE OR REPLACE FUNCTION partywall_locks.fold(p_number text) RETURNS bigint LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS
    $$SELECT ('x' || encode(substr(sha256(s.value || convert_to(octet_length(o.org) || ':' || o.org || p_number, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
        FROM partywall_locks.secret s, (SELECT partywall.org() AS org) o$$;
  -- How many locks of the session this server process holds: the proxy asks before it lets another session have it.
  CREATE OR REPLACE FUNCTION partywall_locks.held() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    $$SELECT count(*) FROM pg_lock_status() WHERE locktype = 'advisory' AND pid = pg_backend_pid()$$;
  ALTER FUNCTION partywall_locks.fold(text) OWNER TO partywall_owner;
  ALTER FUNCTION partywall_locks.held() OWNER TO partywall_owner;

  FOR v_function IN
    SELECT p.oid::regprocedure AS original, p.proname AS name, p.pronargs AS arguments, format_type(p.prorettype, NULL) AS returns
      FROM pg_proc p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ '^pg_(try_)?advisory_(xact_)?(lock|unlock)(_shared)?$'
  LOOP
    v_own := format('partywall_locks.%I(%s)', v_function.name, CASE v_function.arguments WHEN 1 THEN 'bigint' ELSE 'int, int' END);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO partywall_owner', v_function.original);
    EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS %s LANGUAGE sql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L',
      v_own, v_function.returns,
      format('SELECT pg_catalog.%I(partywall_locks.fold(%s))', v_function.name,
             CASE v_function.arguments WHEN 1 THEN ''':'' || $1' ELSE '''/'' || $1 || '','' || $2' END));
    EXECUTE format('ALTER FUNCTION %s OWNER TO partywall_owner', v_own);
  END LOOP;
  REVOKE ALL ON ALL FUNCTIONS IN SCHEMA partywall_locks FROM PUBLIC;
  EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA partywall_locks TO %I', app_role);
  EXECUTE format('REVOKE ALL ON FUNCTION partywall_locks.fold(text) FROM %I', app_role);
END
$advisory$;
