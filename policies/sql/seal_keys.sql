-- seal_keys.sql: the keys under whose seal a context is believed; for the guarded and the sealed form.  After roles.sql; safe to
-- repeat.  PostgreSQL 13 to 18.  The keys themselves come from the proxy's key file: `partywall policies apply`.

SET client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS partywall AUTHORIZATION partywall_owner;
REVOKE ALL ON SCHEMA partywall FROM PUBLIC;

-- The keys that may seal, as the two padded blocks of HMAC (RFC 2104): a check costs two sha256() and no loop. Each database
-- has keys of its own. A dump holds them: pg_dump --exclude-table-data=partywall.seal_key, and new keys after a restore.
CREATE TABLE IF NOT EXISTS partywall.seal_key (
  kid       smallint PRIMARY KEY,
  ipad      bytea NOT NULL,
  opad      bytea NOT NULL,
  not_after timestamptz NOT NULL DEFAULT 'infinity'
);
REVOKE ALL ON partywall.seal_key FROM PUBLIC;

-- set_key(kid, key): adds or replaces a key of at least 32 bytes. retire_keys(kids): ends all others.
CREATE OR REPLACE FUNCTION partywall.set_key(p_kid smallint, p_key bytea) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_key bytea := CASE WHEN length(p_key) > 64 THEN sha256(p_key) ELSE p_key END;
  v_ipad bytea := '';
  v_opad bytea := '';
BEGIN
  IF length(p_key) < 32 THEN
    RAISE EXCEPTION 'a seal key has at least 32 bytes' USING errcode = 'invalid_parameter_value';
  END IF;
  v_key := v_key || decode(repeat('00', 64 - length(v_key)), 'hex');
  FOR n IN 0..63 LOOP
    v_ipad := v_ipad || set_byte('\x00', 0, get_byte(v_key, n) # 54);     -- 0x36
    v_opad := v_opad || set_byte('\x00', 0, get_byte(v_key, n) # 92);     -- 0x5c
  END LOOP;
  INSERT INTO partywall.seal_key (kid, ipad, opad) VALUES (p_kid, v_ipad, v_opad)
      ON CONFLICT (kid) DO UPDATE SET ipad = excluded.ipad, opad = excluded.opad, not_after = 'infinity';
END
$$;
CREATE OR REPLACE FUNCTION partywall.retire_keys(p_kept smallint[]) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH gone AS (DELETE FROM partywall.seal_key WHERE kid <> ALL (p_kept) RETURNING 1) SELECT count(*) FROM gone
$$;
REVOKE ALL ON FUNCTION partywall.set_key(smallint, bytea), partywall.retire_keys(smallint[]) FROM PUBLIC;

-- It belongs to the schema's owner where this session may hand it over, else to whoever runs this file.
DO $owner$ BEGIN
  ALTER TABLE partywall.seal_key OWNER TO partywall_owner;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE WARNING 'partywall.seal_key stays with %: this session is not a member of partywall_owner', current_user;
END $owner$;
