-- admin.sql: the path on which people may see every organization: past the proxy, each with a login of their own, written down by
-- the server.  After roles.sql; safe to repeat.  PostgreSQL 13 to 18, as a superuser.
--
--   SELECT partywall.grant_admin('support_anna', now() + interval '30 days');
--   SELECT partywall.revoke_admin('support_anna');
--
-- partywall_admin has BYPASSRLS, logs in nowhere, and holds no right on a table until you grant it one:
--   GRANT USAGE ON SCHEMA public TO partywall_admin;  GRANT SELECT ON ALL TABLES IN SCHEMA public TO partywall_admin;
-- BYPASSRLS is not inherited: a person says SET ROLE partywall_admin, and that and every statement is in the server's log. Give
-- such logins a line of their own in pg_hba.conf. The shared login role must never be a member.

SET client_min_messages = warning;

DO $admin$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'partywall_admin') THEN
    CREATE ROLE partywall_admin NOLOGIN BYPASSRLS;
  END IF;
END $admin$;

-- grant_admin(person, until): makes the login, or lengthens it. Its password is set apart: \password in psql.
CREATE OR REPLACE FUNCTION partywall.grant_admin(p_person name, p_until timestamptz) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = p_person) THEN
    EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT CONNECTION LIMIT 2', p_person);
  END IF;
  EXECUTE format('ALTER ROLE %I LOGIN NOINHERIT VALID UNTIL %L', p_person, p_until);
  EXECUTE format('GRANT partywall_admin TO %I', p_person);
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), p_person);
  -- Only a superuser may set these two, so that the person cannot take them back.
  EXECUTE format('ALTER ROLE %I SET log_statement = ''all''', p_person);
  EXECUTE format('ALTER ROLE %I SET log_min_duration_statement = 0', p_person);
  -- A habit, not a wall: the person may change it.
  EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', p_person);
  RETURN format('%s may SET ROLE partywall_admin until %s; every statement is in the server''s log', p_person, p_until);
END
$$;
CREATE OR REPLACE FUNCTION partywall.revoke_admin(p_person name) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('REVOKE partywall_admin FROM %I', p_person);
  EXECUTE format('ALTER ROLE %I NOLOGIN', p_person);
  RETURN format('%s may not log in any more', p_person);
END
$$;
REVOKE ALL ON FUNCTION partywall.grant_admin(name, timestamptz), partywall.revoke_admin(name) FROM PUBLIC;
