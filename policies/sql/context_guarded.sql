-- context_guarded.sql: the tenant context in a setting that the shared role can read but not write.  After seal_keys.sql;
-- safe to repeat.  PostgreSQL 13 to 18, as a superuser once (15 and newer: or as a role with GRANT SET ON PARAMETER
-- backtrace_functions … WITH GRANT OPTION, for the owner to be made able to set it).
--
-- backtrace_functions is a setting of PostgreSQL that only superusers and whom they grant it may SET, that everybody may read,
-- and that takes any letters, digits and underscores. Here it carries the context. The only door to it are three functions:
--
--   hello()   once per server connection: a fresh random nonce, and no context. It answers no second time, so that nobody can
--             lose a context by it; after RESET ALL or DISCARD ALL, which take the context with them, it answers again.
--   enter(…)  opens for a message that the proxy has sealed: HMAC-SHA256 over organization, user, project, roles,
--             permissions, this server process, its nonce, a rising generation and an expiry. A seal works once, here, now.
--   clear()   RESET ALL that spares nonce and generation: every setting is as the connection began, and there is no context.
--             So the proxy cleans a connection and enters the next context in one round trip; no earlier seal works again.
--
-- A session that was reset, or that anybody opens beside the proxy with the shared role's password, has no context and sees no
-- row. The policies of protect.sql read only org() and its sisters, whose form stands here instead of in context_plain.sql.

SET client_min_messages = warning;

-- What another form of the context left.
DROP FUNCTION IF EXISTS partywall.seal_holds();

-- The carrier: o…_u…_p…_r…_m…_g<generation>_n<nonce>, values in hexadecimal digits.
CREATE OR REPLACE FUNCTION partywall.hello(OUT pid int, OUT nonce text, OUT now_s bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('backtrace_functions') ~ '_n[0-9a-f]{32}$' THEN
    RAISE EXCEPTION USING errcode = 'invalid_authorization_specification', message = 'partywall: context refused';
  END IF;
  pid := pg_backend_pid();
  -- 122 random bits, of the server's strong source.
  nonce := replace(gen_random_uuid()::text, '-', '');
  -- The proxy reckons the expiry of seals by this clock, not by its own.
  now_s := floor(extract(epoch FROM clock_timestamp()));
  PERFORM set_config('backtrace_functions', 'o_u_p_r_m_g0_n' || nonce, false);
END
$$;

-- Called where there has been no greeting it is RESET ALL and no more.
CREATE OR REPLACE FUNCTION partywall.clear() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_greeted text := substring(current_setting('backtrace_functions'), '_g[0-9]{1,18}_n[0-9a-f]{32}$');
BEGIN
  RESET ALL;
  IF v_greeted IS NOT NULL THEN
    PERFORM pg_catalog.set_config('backtrace_functions', 'o_u_p_r_m' || v_greeted, false);
  END IF;
END
$$;

-- p_who: organization, user, project, roles, permissions; an organization of '' is none, and then there is no context.
-- p_seal: kid.expiry.hex(HMAC), over the netstrings (length:bytes,) of "enter1", the five, pid, nonce, generation, expiry.
CREATE OR REPLACE FUNCTION partywall.enter(p_who text[], p_generation bigint, p_seal text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_carrier text := current_setting('backtrace_functions');
  v_nonce text := split_part(v_carrier, '_n', 2);
  v_last text := split_part(split_part(v_carrier, '_g', 2), '_', 1);
  v_expiry text := split_part(p_seal, '.', 2);
  v_key record;
  v_message text;
BEGIN
  SELECT k.ipad, k.opad INTO v_key FROM partywall.seal_key k
   WHERE k.kid::text = split_part(p_seal, '.', 1) AND k.not_after > clock_timestamp();
  SELECT string_agg(octet_length(f.field) || ':' || f.field || ',', '' ORDER BY f.place) INTO v_message
    FROM unnest(ARRAY['enter1', p_who[1], p_who[2], p_who[3], p_who[4], p_who[5],
                      pg_backend_pid()::text, v_nonce, p_generation::text, v_expiry]) WITH ORDINALITY AS f(field, place);
  IF v_nonce = '' OR v_key.opad IS NULL OR array_length(p_who, 1) IS DISTINCT FROM 5 OR array_position(p_who, NULL) IS NOT NULL
     OR v_expiry !~ '^[0-9]{1,15}$' OR v_last !~ '^[0-9]{1,18}$'
     OR encode(sha256(v_key.opad || sha256(v_key.ipad || convert_to(v_message, 'UTF8'))), 'hex') IS DISTINCT FROM split_part(p_seal, '.', 3)
     OR p_generation <= v_last::bigint OR v_expiry::bigint < extract(epoch FROM clock_timestamp())
  THEN
    -- No detail: nothing to probe with.
    RAISE EXCEPTION USING errcode = 'invalid_authorization_specification', message = 'partywall: context refused';
  END IF;
  PERFORM set_config('backtrace_functions', concat(
    'o', encode(convert_to(p_who[1], 'UTF8'), 'hex'), '_u', encode(convert_to(p_who[2], 'UTF8'), 'hex'),
    '_p', encode(convert_to(p_who[3], 'UTF8'), 'hex'), '_r', encode(convert_to(p_who[4], 'UTF8'), 'hex'),
    '_m', encode(convert_to(p_who[5], 'UTF8'), 'hex'), '_g', p_generation, '_n', v_nonce), false);
  RETURN true;
END
$$;

DO $context$
DECLARE
  app_role name := coalesce(nullif(current_setting('partywall.app_role', true), ''), 'partywall_app');
  part record;
  is_super boolean := (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user);
BEGIN
  REVOKE ALL ON FUNCTION partywall.hello(), partywall.clear(), partywall.enter(text[], bigint, text) FROM PUBLIC;
  GRANT USAGE ON LANGUAGE plpgsql, sql TO partywall_owner;
  IF current_setting('server_version_num')::int >= 150000 THEN
    -- The door's owner may set this one parameter and nothing else; nobody logs in as it.
    EXECUTE 'GRANT SET ON PARAMETER backtrace_functions TO partywall_owner';
    IF NOT has_parameter_privilege('partywall_owner', 'backtrace_functions', 'SET') THEN
      RAISE EXCEPTION 'the guarded context needs SET on the parameter backtrace_functions, which % may not grant', current_user
        USING errcode = 'insufficient_privilege', hint = 'Let a superuser run this file once, or use the sealed form.';
    END IF;
    ALTER FUNCTION partywall.hello() OWNER TO partywall_owner;
    ALTER FUNCTION partywall.clear() OWNER TO partywall_owner;
    ALTER FUNCTION partywall.enter(text[], bigint, text) OWNER TO partywall_owner;
    GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO partywall_owner;
  ELSIF NOT is_super THEN
    RAISE EXCEPTION 'before PostgreSQL 15 the guarded context can be installed by a superuser only'
      USING errcode = 'insufficient_privilege', hint = 'Let a superuser run this file once, or use the sealed form.';
  END IF;   -- 13 and 14 cannot grant a parameter: there the three functions belong to the superuser that runs this file

  FOR part IN
    SELECT * FROM (VALUES ('org', '^o([0-9a-f]+)_'), ('user_id', '_u([0-9a-f]+)_'), ('project_id', '_p([0-9a-f]+)_'),
                          ('roles', '_r([0-9a-f]+)_'), ('permissions', '_m([0-9a-f]+)_')) AS f(function_name, pattern)
  LOOP
    -- No match is NULL: no context, and NULL equals no row. STABLE, never IMMUTABLE: a cached plan must ask again for the next
    -- tenant. No SET clause and no SECURITY DEFINER: then it is inlined. So every name stands with its schema, and there is no
    -- operator and no type in it that a search_path could bend.
    EXECUTE format('CREATE OR REPLACE FUNCTION partywall.%I() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS %L', part.function_name, format(
      'SELECT pg_catalog.convert_from(pg_catalog.decode(pg_catalog."substring"(pg_catalog.current_setting(%L, true), %L), %L), %L)',
      'backtrace_functions', part.pattern, 'hex', 'UTF8'));
    EXECUTE format('REVOKE ALL ON FUNCTION partywall.%I() FROM PUBLIC', part.function_name);
    EXECUTE format('GRANT EXECUTE ON FUNCTION partywall.%I() TO %I', part.function_name, app_role);
  END LOOP;
  EXECUTE format('GRANT USAGE ON SCHEMA partywall TO %I', app_role);
  EXECUTE format('GRANT EXECUTE ON FUNCTION partywall.hello(), partywall.clear(), partywall.enter(text[], bigint, text) TO %I', app_role);
END
$context$;
