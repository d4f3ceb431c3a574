-- roles.sql: who owns, and who logs in.  Once per database, as a superuser or as a role with CREATEROLE; safe to repeat.
-- PostgreSQL 13 to 18.
--
-- The name of the shared login role is partywall_app, unless the session says otherwise before:
--   SET partywall.app_role = 'another_name';
-- Its password is not set here: ALTER ROLE partywall_app PASSWORD '…' (or \password in psql, which hides it).
--
-- Every tenant of a database can read the names of roles, schemas and databases: put no customer's name into one.

SET client_min_messages = warning;

DO $roles$
DECLARE
  app_role name := coalesce(nullif(current_setting('partywall.app_role', true), ''), 'partywall_app');
  member_of text;
BEGIN
  -- Owns the schema partywall, and your tables if you like (ALTER TABLE … OWNER TO). Nobody logs in as it.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'partywall_owner') THEN
    CREATE ROLE partywall_owner NOLOGIN;
  END IF;

  -- The one role that all server connections log in as. It owns nothing: an owner can drop policies.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = app_role) THEN
    EXECUTE format('CREATE ROLE %I LOGIN', app_role);
  END IF;
  -- A superuser and a role with BYPASSRLS see every row, whatever the policies say. (These two attributes, and
  -- REPLICATION, may be named by a superuser only, so they are named only where they have to be taken away.)
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = app_role AND (rolsuper OR rolbypassrls OR rolreplication)) THEN
    EXECUTE format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS NOREPLICATION', app_role);
  END IF;
  EXECUTE format('ALTER ROLE %I LOGIN NOCREATEDB NOCREATEROLE NOINHERIT', app_role);

  -- A member of another role can become it, even where it does not inherit from it.
  FOR member_of IN
    SELECT g.rolname FROM pg_catalog.pg_auth_members m
      JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
      JOIN pg_catalog.pg_roles r ON r.oid = m.member
     WHERE r.rolname = app_role
  LOOP
    EXECUTE format('REVOKE %I FROM %I', member_of, app_role);
  END LOOP;

  -- Before PostgreSQL 15 everybody may create objects in public, and a table that a tenant makes is seen by the next.
  -- (Only a superuser or the database's owner may revoke it; anyone else gets a warning from the server.)
  REVOKE CREATE ON SCHEMA public FROM PUBLIC;
END
$roles$;
