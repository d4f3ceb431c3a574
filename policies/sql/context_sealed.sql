-- context_sealed.sql: the tenant context in ordinary settings, believed only under a seal.  After seal_keys.sql; safe to repeat.
-- PostgreSQL 13 to 18; needs no superuser: for managed services, where context_guarded.sql cannot be installed.
--
-- The proxy tells each server connection the settings of context_plain.sql and one more, partywall.seal: an HMAC-SHA256 over
-- them, this server process and an expiry. seal_holds() checks it once in each statement that reads a protected table, which
-- costs some 0.1 ms. A session that changes any of the settings has no context, and sees no row.
--
-- What the guarded form does and this one does not: a seal can be used again on the same server connection until it expires,
-- by whoever has read it there (SHOW partywall.seal shows a session its own), so it lives for minutes only.

SET client_min_messages = warning;

-- What another form of the context left.
DROP FUNCTION IF EXISTS partywall.hello();
DROP FUNCTION IF EXISTS partywall.clear();
DROP FUNCTION IF EXISTS partywall.enter(text[], bigint, text);

DO $context$
DECLARE
  app_role name := coalesce(nullif(current_setting('partywall.app_role', true), ''), 'partywall_app');
  part record;
  names text := '';
BEGIN
  FOR part IN
    SELECT f.function_name,
           coalesce(nullif(current_setting('partywall.' || f.word || '_setting', true), ''), f.default_setting) AS setting
      FROM (VALUES (1, 'org',         'organization', 'app.current_org_id'),
                   (2, 'user_id',     'user',         'app.current_user_id'),
                   (3, 'project_id',  'project',      'app.current_project_id'),
                   (4, 'roles',       'roles',        'app.current_roles'),
                   (5, 'permissions', 'permissions',  'app.current_permissions')) AS f(place, function_name, word, default_setting)
     ORDER BY f.place
  LOOP
    names := names || format(', coalesce(current_setting(%L, true), '''')', part.setting);
    EXECUTE format('CREATE OR REPLACE FUNCTION partywall.%I() RETURNS text LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
                    SET search_path = pg_catalog, pg_temp AS %L', part.function_name,
      format('BEGIN IF partywall.seal_holds() THEN RETURN nullif(current_setting(%L, true), ''''); END IF; RETURN NULL; END', part.setting));
    EXECUTE format('REVOKE ALL ON FUNCTION partywall.%I() FROM PUBLIC', part.function_name);
    EXECUTE format('GRANT EXECUTE ON FUNCTION partywall.%I() TO %I', part.function_name, app_role);
  END LOOP;

  -- The seal: kid.expiry.hex(HMAC), over the netstrings (length:bytes,) of "seal1", the five, pid, expiry.
  EXECUTE format('CREATE OR REPLACE FUNCTION partywall.seal_holds() RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
                  SECURITY DEFINER COST 200 SET search_path = pg_catalog, pg_temp AS %L', format($body$
DECLARE
  v_seal text := coalesce(current_setting('partywall.seal', true), '');
  v_expiry text := split_part(v_seal, '.', 2);
  v_key record;
  v_message text;
BEGIN
  IF v_seal = '' THEN RETURN false; END IF;
  SELECT k.ipad, k.opad INTO v_key FROM partywall.seal_key k
   WHERE k.kid::text = split_part(v_seal, '.', 1) AND k.not_after > statement_timestamp();
  SELECT string_agg(octet_length(f.field) || ':' || f.field || ',', '' ORDER BY f.place) INTO v_message
    FROM unnest(ARRAY['seal1'%s, pg_backend_pid()::text, v_expiry]) WITH ORDINALITY AS f(field, place);
  IF v_key.opad IS NULL OR v_expiry !~ '^[0-9]{1,15}$'
     OR encode(sha256(v_key.opad || sha256(v_key.ipad || convert_to(v_message, 'UTF8'))), 'hex') IS DISTINCT FROM split_part(v_seal, '.', 3)
  THEN RETURN false; END IF;
  -- A good seal that has grown old, in a transaction that outlived it: to say so is better than to show no rows.
  IF v_expiry::bigint < extract(epoch FROM statement_timestamp()) THEN
    RAISE EXCEPTION USING errcode = 'invalid_authorization_specification',
      message = 'partywall: the context has expired', hint = 'Begin a new transaction.';
  END IF;
  RETURN true;
END
$body$, names));
  REVOKE ALL ON FUNCTION partywall.seal_holds() FROM PUBLIC;
  GRANT USAGE ON LANGUAGE plpgsql, sql TO partywall_owner;
  -- It reads the keys, so it belongs to whoever owns them.
  EXECUTE format('ALTER FUNCTION partywall.seal_holds() OWNER TO %I',
                 (SELECT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = 'partywall.seal_key'::regclass));
  EXECUTE format('GRANT EXECUTE ON FUNCTION partywall.seal_holds() TO %I', app_role);
  EXECUTE format('GRANT USAGE ON SCHEMA partywall TO %I', app_role);
END
$context$;
