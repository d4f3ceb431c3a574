-- hardening.sql: takes from the shared role what it does not need.  After roles.sql; safe to repeat.  PostgreSQL 13 to 18.
--
-- In every database that the role can reach, as a superuser. As anybody else it does what that login may, and says of each
-- step what was not done and what stands in for it. Before pg_upgrade: unharden.sql; after it: this file again.
--
--   SET partywall.app_role = '…';      the shared login role; partywall_app when not set
--   SET partywall.owner_role = '…';    who makes functions in this database; partywall_owner when not set
--   SET partywall.profile = '…';       default: breaks none of the client tools that were tried, but advisory locks, for
--                                      which advisory.sql has private ones.  strict: also sizes, WAL positions,
--                                      transaction ids, pg_sleep, set_config, other roles' settings; psql's \dt+,
--                                      pg_dump and Django's inspectdb then fail.
--   SET partywall.keep_temporary = on; leaves temporary tables to the role.

SET client_min_messages = notice;

DO $harden$
DECLARE
  v_role    name := coalesce(nullif(current_setting('partywall.app_role', true), ''), 'partywall_app');
  v_owner   name := coalesce(nullif(current_setting('partywall.owner_role', true), ''), 'partywall_owner');
  v_profile text := coalesce(nullif(current_setting('partywall.profile', true), ''), 'default');
  v_keep    boolean := coalesce(nullif(current_setting('partywall.keep_temporary', true), ''), 'off')::boolean;
  v_step record;
  v_done int;
  v_not_done int;
  v_total int := 0;
  v_open text;
BEGIN
  IF v_profile NOT IN ('default', 'strict') THEN
    RAISE EXCEPTION 'partywall.profile is %: default or strict', v_profile USING errcode = 'invalid_parameter_value';
  END IF;
  -- Each step: what it stops, what stands in for it where it cannot be done, and its statements.
  FOR v_step IN
    WITH functions AS (
      SELECT p.oid, p.oid::regprocedure::text AS signature, p.proname AS name, p.pronamespace = 'pg_catalog'::regnamespace AS system, x.extname AS extension
        FROM pg_proc p LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
                       LEFT JOIN pg_extension x ON x.oid = d.refobjid
       WHERE p.prokind = 'f'),
    closed (place, step, stops, instead, pattern, strict) AS (VALUES
      (10, 'signals', 'ending or cancelling other sessions of the same role', 'the guard refuses these functions',
           '^(pg_cancel_backend|pg_terminate_backend)$', false),
      (11, 'other sessions', 'reading what other sessions run, and counters over all tenants', 'the guard refuses these functions and views',
           '^(pg_stat_get_(?!snapshot_timestamp$).*|pg_get_backend_memory_contexts|pg_get_shmem_allocations.*|pg_lock_status|pg_prepared_xact|pg_blocking_pids|pg_safe_snapshot_blocking_pids|pg_isolation_test_session_is_blocked|pg_get_replication_slots|pg_get_multixact_members|pg_get_loaded_modules)$', false),
      (12, 'advisory locks', 'taking locks that other tenants wait for; they share one space of numbers', 'the guard refuses those of the session',
           '^pg_(try_)?advisory_(xact_)?lock(_shared)?$', false),
      (19, 'states of sequences', 'reading how many rows all tenants made', 'the guard refuses these functions',
           '^pg_sequence_last_value$', false),
      (13, 'large objects', 'reading large objects of other tenants: with one role everybody owns all of them', 'the guard refuses these functions',
           '^(lo_(creat|create|from_bytea|get|put|open|close|unlink|lseek|lseek64|tell|tell64|truncate|truncate64)|loread|lowrite)$', false),
      (14, 'messages', 'notifying other tenants, and writing into the WAL', 'the guard refuses these functions',
           '^(pg_notify|pg_notification_queue_usage|pg_logical_emit_message|pg_export_snapshot)$', false),
      (15, 'SQL in texts', 'running SQL that stands in a text, past the guard', 'the guard refuses these functions',
           '^((query|table|schema|database|cursor)_to_xml.*|ts_stat|ts_rewrite)$', false),
      (16, 'tablespaces', 'the sizes of tablespaces', 'nothing; a small leak', '^pg_tablespace_(size|databases)$', false),
      (17, 'set_config', 'setting settings inside a query', 'the guard judges each call', '^set_config$', true),
      (18, 'sizes', 'the sizes of tables that hold every tenant''s rows, WAL positions, transaction ids, sleeping', 'nothing; side channels',
           '^(pg_(total_)?relation_size|pg_(table|indexes|database)_size|pg_sleep.*|pg_current_wal.*|txid_.*|pg_current_(xact|snapshot).*|pg_xact_commit_timestamp.*)$', true))
    SELECT 1 AS place, 'database' AS step, 'temporary objects that shadow names, and logins of other roles' AS stops, 'the guard refuses temporary objects' AS instead,
           ARRAY[format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()), format('REVOKE TEMPORARY, CREATE ON DATABASE %I FROM %I', current_database(), v_role),
                 format('GRANT CONNECT%s ON DATABASE %I TO %I', CASE WHEN v_keep THEN ', TEMPORARY' ELSE '' END, current_database(), v_role)] AS commands
    UNION ALL SELECT 2, 'schema public', 'objects that the next tenant would trip over', 'the guard refuses CREATE',
           ARRAY['REVOKE CREATE ON SCHEMA public FROM PUBLIC', format('REVOKE CREATE ON SCHEMA public FROM %I', v_role)]
    UNION ALL SELECT 3, 'languages', 'DO blocks and functions of one''s own: SQL that the guard does not see', 'the guard refuses DO and CREATE FUNCTION',
           array_agg(command) FROM (
             SELECT format('GRANT USAGE ON LANGUAGE %I TO %I', lanname, v_owner) AS command FROM pg_language WHERE lanpltrusted
             UNION ALL SELECT format('REVOKE USAGE ON LANGUAGE %I FROM PUBLIC', lanname) FROM pg_language WHERE lanpltrusted) AS languages
    UNION ALL SELECT c.place, c.step, c.stops, c.instead, array_agg(format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f.signature) ORDER BY f.signature)
      FROM closed c JOIN functions f ON f.system AND f.name ~ c.pattern AND (c.step <> 'SQL in texts' OR f.name <> 'ts_rewrite' OR f.oid = 'pg_catalog.ts_rewrite(tsquery,text)'::regprocedure)
     WHERE NOT c.strict OR v_profile = 'strict' GROUP BY c.place, c.step, c.stops, c.instead
    UNION ALL SELECT 22, 'sequences', 'reading how many rows all tenants made; USAGE, which stays, is enough for nextval, currval and defaults', 'nothing; a small leak',
           array_agg(format('REVOKE SELECT ON SEQUENCE %s FROM PUBLIC, %I', c.oid::regclass, v_role)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(v_role, c.oid, 'SELECT') END
    UNION ALL SELECT 20, 'extensions', 'SQL in texts, other sessions, other servers and state that stays, by what extensions brought', 'the guard refuses those it knows; the rest is yours to revoke',
           array_agg(format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f.signature)) FROM functions f
     WHERE f.extension IN ('dblink', 'postgres_fdw', 'tablefunc', 'xml2', 'pg_stat_statements', 'pg_cron', 'pg_net', 'http', 'pg_background', 'pgrowlocks', 'pg_buffercache', 'pg_prewarm', 'file_fdw', 'adminpack', 'pageinspect',
                           'pgstattuple', 'pg_visibility', 'pg_walinspect', 'pg_freespacemap', 'amcheck')
       AND (f.extension <> 'tablefunc' OR f.name ~ '^(crosstab|connectby)') OR f.extension = 'isn' AND f.name = 'isn_weak'
    UNION ALL SELECT 21, 'monitoring', 'nothing; pg_monitor keeps what the steps above took from everybody', 'nothing',
           array_agg(format('GRANT EXECUTE ON FUNCTION %s TO pg_monitor', f.signature)) FROM functions f
     WHERE f.system AND f.name ~ '^(pg_stat_get_.*|pg_lock_status|pg_prepared_xact|pg_blocking_pids|pg_get_replication_slots|pg_(total_)?relation_size|pg_(table|indexes|database)_size|pg_current_wal.*|pg_notification_queue_usage|pg_sequence_last_value)$'
    UNION ALL SELECT 30, 'pg_settings', 'UPDATE pg_settings, which is SET by another name', 'the guard refuses it', ARRAY['REVOKE UPDATE ON pg_catalog.pg_settings FROM PUBLIC']
    UNION ALL SELECT 31, 'views', 'the views of sessions, locks and statements', 'the guard refuses these views',
           array_agg(format('REVOKE SELECT ON %s FROM PUBLIC', c.oid::regclass)) || array_agg(format('GRANT SELECT ON %s TO pg_monitor', c.oid::regclass))
      FROM pg_class c LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
     WHERE (d.objid IS NOT NULL AND c.relkind = 'v' AND c.relname ~ '^(pg_stat_statements|pg_buffercache)')
        OR (c.relnamespace = 'pg_catalog'::regnamespace AND c.relname IN ('pg_stat_activity', 'pg_locks', 'pg_prepared_xacts'))
        OR (v_profile = 'strict' AND c.oid IN ('pg_catalog.pg_db_role_setting'::regclass, 'pg_catalog.pg_sequences'::regclass))
    -- The role's own settings: these parameters only a superuser may set, so that no tenant can take them back.
    UNION ALL SELECT 40, 'what it runs', 'other tenants seeing statements in pg_stat_activity', 'the guard refuses pg_stat_activity',
           ARRAY[format('ALTER ROLE %I SET track_activities = off', v_role)]
    UNION ALL SELECT 41, 'statement statistics', 'statements with literals in pg_stat_statements', 'the guard refuses that view',
           ARRAY[format('ALTER ROLE %I SET pg_stat_statements.track = ''none''', v_role)] WHERE current_setting('pg_stat_statements.track', true) IS NOT NULL
    UNION ALL SELECT 42, 'parameters in the log', 'values of tenants in the server''s log', 'log_parameter_max_length = 0 in the server''s configuration',
           ARRAY[format('ALTER ROLE %I SET log_parameter_max_length = 0', v_role), format('ALTER ROLE %I SET log_parameter_max_length_on_error = 0', v_role)]
    -- An error quotes what a tenant wrote, at any length: 100 MB of log for each statement. The client hears it all the same, and
    -- the proxy's audit has its SQLSTATE. What ends a session, and what the server says of itself, is still written.
    UNION ALL SELECT 44, 'errors and statements in the log', 'texts of tenants filling the disk of the server''s log', 'log_min_messages = log, log_min_error_statement = panic and log_statement = none in the server''s configuration',
           ARRAY[format('ALTER ROLE %I SET log_min_messages = log', v_role), format('ALTER ROLE %I SET log_min_error_statement = panic', v_role),
                 format('ALTER ROLE %I SET log_statement = none', v_role)]
    UNION ALL SELECT 43, 'temporary files', 'one statement filling the disk', 'temp_file_limit in the server''s configuration',
           ARRAY[format('ALTER ROLE %I SET temp_file_limit = ''1GB''', v_role)]
    ORDER BY 1
  LOOP
    CONTINUE WHEN v_step.commands IS NULL;
    v_done := 0; v_not_done := 0;
    FOR i IN 1 .. array_length(v_step.commands, 1) LOOP
      BEGIN
        EXECUTE v_step.commands[i];
        v_done := v_done + 1;
      EXCEPTION WHEN insufficient_privilege OR undefined_function OR undefined_object OR undefined_table THEN
        v_not_done := v_not_done + 1;
      END;
    END LOOP;
    -- Revoking what somebody else has granted changes nothing and is no error: so look at what the role may still do.
    SELECT string_agg(signature, ', ') INTO v_open FROM (
      SELECT p.oid::regprocedure::text AS signature FROM unnest(v_step.commands) AS c(command)
        JOIN pg_proc p ON p.oid = to_regprocedure(substring(c.command FROM '^REVOKE EXECUTE ON FUNCTION (.*) FROM PUBLIC$'))
       WHERE has_function_privilege(v_role, p.oid, 'EXECUTE') ORDER BY 1) AS still;
    IF v_step.step = 'languages' AND EXISTS (SELECT FROM pg_language WHERE lanpltrusted AND has_language_privilege(v_role, oid, 'USAGE')) THEN
      v_open := 'languages';
    ELSIF v_step.step = 'database' AND NOT v_keep AND has_database_privilege(v_role, current_database(), 'TEMPORARY') THEN
      v_open := 'temporary tables';
    ELSIF v_step.step = 'pg_settings' AND has_table_privilege(v_role, 'pg_catalog.pg_settings', 'UPDATE') THEN
      v_open := 'UPDATE pg_settings';
    ELSIF v_step.step = 'views' AND has_table_privilege(v_role, 'pg_catalog.pg_locks', 'SELECT') THEN
      v_open := 'pg_locks';
    END IF;
    IF v_open IS NOT NULL OR v_not_done > 0 THEN
      v_total := v_total + 1;
      RAISE WARNING 'not done: % (stops %): this login may not do it%. In its place: %', v_step.step, v_step.stops,
        CASE WHEN v_open IS NULL THEN '' ELSE '; still open: ' || CASE WHEN length(v_open) > 120 THEN left(v_open, 120) || ' …' ELSE v_open END END, v_step.instead;
    ELSE
      RAISE NOTICE 'done: % (stops %)', v_step.step, v_step.stops;
    END IF;
  END LOOP;
  IF v_total > 0 THEN
    RAISE NOTICE 'hardening, profile %: % steps could not be done wholly', v_profile, v_total;
  END IF;

  -- What no REVOKE in this database can do.
  FOR v_step IN
    SELECT format('%s may still connect to database %I', v_role, datname) AS what, format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', datname) AS mend
      FROM pg_database WHERE datname <> current_database() AND datallowconn AND has_database_privilege(v_role, oid, 'CONNECT')
    UNION ALL SELECT 'PREPARE TRANSACTION can leave locks behind', 'max_prepared_transactions = 0' WHERE current_setting('max_prepared_transactions')::int > 0
    UNION ALL SELECT format('%s may use the foreign server %I', v_role, srvname), format('REVOKE USAGE ON FOREIGN SERVER %I FROM PUBLIC, %I', srvname, v_role)
      FROM pg_foreign_server WHERE has_server_privilege(v_role, oid, 'USAGE')
    UNION ALL SELECT format('%s may create objects in schema %I', v_role, nspname), format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I', nspname, v_role)
      FROM pg_namespace WHERE has_schema_privilege(v_role, oid, 'CREATE') AND nspname !~ '^pg_' AND nspname <> 'public'
  LOOP
    RAISE WARNING '%: %', v_step.what, v_step.mend;
  END LOOP;
END
$harden$;
