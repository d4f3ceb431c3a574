-- context_plain.sql: the tenant context, read from ordinary settings.  After roles.sql; safe to repeat.  PostgreSQL 13 to 18.
--
-- The proxy tells each server connection the settings below before a client's statement reaches it. Nothing inside
-- PostgreSQL can stop a session from setting an ordinary setting itself: this form is as strong as the proxy's guard,
-- which refuses such statements. The policies of protect.sql read only the functions of this file, so that another form of
-- the context can take its place without touching a table.
--
-- The settings' names are those of the [context] section of partywall.toml; a session may say others before:
--   SET partywall.organization_setting = 'app.current_org_id';   (and user_, project_, roles_, permissions_setting)

SET client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS partywall AUTHORIZATION partywall_owner;
REVOKE ALL ON SCHEMA partywall FROM PUBLIC;

-- What another form of the context left.
DROP FUNCTION IF EXISTS partywall.hello();
DROP FUNCTION IF EXISTS partywall.clear();
DROP FUNCTION IF EXISTS partywall.enter(text[], bigint, text);

DO $context$
DECLARE
  app_role name := coalesce(nullif(current_setting('partywall.app_role', true), ''), 'partywall_app');
  part record;
BEGIN
  FOR part IN
    SELECT f.function_name,
           coalesce(nullif(current_setting('partywall.' || f.word || '_setting', true), ''), f.default_setting) AS setting
      FROM (VALUES ('org',         'organization', 'app.current_org_id'),
                   ('user_id',     'user',         'app.current_user_id'),
                   ('project_id',  'project',      'app.current_project_id'),
                   ('roles',       'roles',        'app.current_roles'),
                   ('permissions', 'permissions',  'app.current_permissions')) AS f(function_name, word, default_setting)
  LOOP
    -- An unset setting reads as NULL, one that was reset as '': both are "no context", and NULL equals no row.
    -- STABLE, never IMMUTABLE: a cached plan must ask again for the next tenant. No SET clause and no SECURITY DEFINER:
    -- then it is inlined, and costs what current_setting() costs.
    EXECUTE format('CREATE OR REPLACE FUNCTION partywall.%I() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS %L',
                   part.function_name, format('SELECT nullif(pg_catalog.current_setting(%L, true), '''')', part.setting));
    EXECUTE format('REVOKE ALL ON FUNCTION partywall.%I() FROM PUBLIC', part.function_name);
    EXECUTE format('GRANT EXECUTE ON FUNCTION partywall.%I() TO %I', part.function_name, app_role);
  END LOOP;
  EXECUTE format('GRANT USAGE ON SCHEMA partywall TO %I', app_role);
END
$context$;

DROP FUNCTION IF EXISTS partywall.seal_holds();
