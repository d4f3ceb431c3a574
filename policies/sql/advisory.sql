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

  -- The number in PostgreSQL's space of an organization's own; NULL where there is no organization. Its first 16 bits are the
  -- organization's, so that its locks can be counted.
  CREATE OR REPLACE FUNCTION partywall_locks.fold(p_number text) RETURNS bigint LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS
    $$SELECT ('x' || encode(substr(sha256(s.value || o.own), 1, 2), 'hex') || encode(substr(sha256(s.value || o.own || convert_to(p_number, 'UTF8')), 1, 6), 'hex'))::bit(64)::bigint
        FROM partywall_locks.secret s, (SELECT convert_to(octet_length(org) || ':' || org, 'UTF8') AS own FROM (SELECT partywall.org() AS org) AS c) AS o$$;
  -- The number of a lock that is to be taken. All locks of a server stand in one table of fixed size, max_locks_per_transaction *
  -- (max_connections + max_prepared_transactions); when it is full, nobody can log in or write. So a session holds at most 256
  -- advisory locks, the sessions of an organization together an eighth of that table, and all together half of it.
  -- To count them takes some 0.1 ms and makes others wait, so one call in sixteen does: which one, nobody can foresee. Nothing
  -- that a session or a rollback could set back is remembered.
  CREATE OR REPLACE FUNCTION partywall_locks.number(p_number text) RETURNS bigint LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_number bigint := partywall_locks.fold(p_number);
  v_table bigint := current_setting('max_locks_per_transaction')::bigint
                    * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint);
  v_own bigint;
  v_organization bigint;
  v_all bigint;
BEGIN
  IF v_number IS NULL OR get_byte(uuid_send(gen_random_uuid()), 0) >= 16 THEN
    RETURN v_number;
  END IF;
  SELECT count(*) FILTER (WHERE pid = pg_backend_pid()), count(*) FILTER (WHERE objsubid = 1 AND classid::bigint >> 16 = (v_number >> 48) & 65535), count(*)
    INTO v_own, v_organization, v_all FROM pg_lock_status() WHERE locktype = 'advisory';
  IF v_own >= 256 OR v_organization >= greatest(v_table / 8, 256) OR v_all >= v_table / 2 THEN
    RAISE EXCEPTION 'too many advisory locks' USING errcode = 'program_limit_exceeded',
      detail = format('This session holds %s of at most 256, its organization %s of at most %s.', v_own, v_organization, greatest(v_table / 8, 256)),
      hint = 'Take one lock for a group of things, and give locks back when the work is done.';
  END IF;
  RETURN v_number;
END
$$;
  -- How many locks of the session this server process holds: the proxy asks before it lets another session have it.
  CREATE OR REPLACE FUNCTION partywall_locks.held() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    $$SELECT count(*) FROM pg_lock_status() WHERE locktype = 'advisory' AND pid = pg_backend_pid()$$;
  ALTER FUNCTION partywall_locks.fold(text) OWNER TO partywall_owner;
  ALTER FUNCTION partywall_locks.number(text) OWNER TO partywall_owner;
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
      format('SELECT pg_catalog.%I(partywall_locks.%s(%s))', v_function.name, CASE WHEN v_function.name ~ 'unlock' THEN 'fold' ELSE 'number' END,
             CASE v_function.arguments WHEN 1 THEN ''':'' || $1' ELSE '''/'' || $1 || '','' || $2' END));
    EXECUTE format('ALTER FUNCTION %s OWNER TO partywall_owner', v_own);
  END LOOP;
  REVOKE ALL ON ALL FUNCTIONS IN SCHEMA partywall_locks FROM PUBLIC;
  EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA partywall_locks TO %I', app_role);
  EXECUTE format('REVOKE ALL ON FUNCTION partywall_locks.fold(text), partywall_locks.number(text) FROM %I', app_role);
END
$advisory$;
