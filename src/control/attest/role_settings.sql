-- Defaults of the role or the database that could bend every session; refused where the strict profile has closed the catalog.
SELECT 'warn', 'role_setting', split_part(s.setting, '=', 1), 'it is the default of every connection that does not say otherwise, and a tenant may have set it',
       CASE WHEN setrole = 0 THEN format('ALTER DATABASE %I RESET %s', current_database(), split_part(s.setting, '=', 1))
            ELSE format('ALTER ROLE %I RESET %s', session_user, split_part(s.setting, '=', 1)) END
  FROM pg_db_role_setting, unnest(setconfig) AS s(setting)
 WHERE setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
   AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
   AND s.setting ~* '^(local_preload_libraries|session_preload_libraries|search_path|row_security|role|session_authorization|default_transaction_.*|statement_timeout|lock_timeout|idle_.*timeout|transaction_timeout|standard_conforming_strings|backslash_quote|client_encoding|app\..*|partywall\..*|backtrace_functions)='
 ORDER BY 3
