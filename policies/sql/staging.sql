-- staging.sql: a place into which COPY FROM may load rows for a protected table.  After a context file; safe to repeat.
-- PostgreSQL 13 to 18.
--
-- PostgreSQL refuses COPY FROM into a table whose policies apply to the role. With guard.copy_from = "staged" the proxy
-- loads into a temporary table first, and inserts from there, under the policies. The shared role needs no right to make
-- temporary tables for that: these functions make the one that is needed, under a name that nobody chooses, and drop it.
-- partywall_owner has that right instead. New schemas: run this file again.

SET client_min_messages = warning;

-- stage_copy(table, columns, others, defaults): makes a table with these columns of `table` (all that can be copied, when
-- NULL), readable and writable for the session's role until the transaction ends; and with the columns `others`, which only WHERE
-- or an option of COPY names. Defaults are for those, and with `defaults` for all, as COPY's option DEFAULT wants them. No column
-- has a constraint but what its type says: the INSERT judges. A column that does not exist is left out, and one that is
-- generated is generated here too: COPY then says of it what it always says.
-- Returns the new table's name, the schema and name of `table`, and the columns to insert, in their order.
CREATE OR REPLACE FUNCTION partywall.stage_copy(p_table regclass, p_columns text[], p_others text[], p_defaults boolean)
RETURNS TABLE (name text) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_staging text := 'partywall_copy_' || replace(gen_random_uuid()::text, '-', '');
  v_columns text;
  v_inserted text[];
BEGIN
  IF current_setting('transaction_read_only')::boolean THEN
    RAISE EXCEPTION 'cannot execute COPY FROM in a read-only transaction' USING errcode = 'read_only_sql_transaction';
  END IF;
  IF NOT has_database_privilege(current_user, current_database(), 'TEMPORARY') THEN
    RAISE EXCEPTION 'permission denied to create temporary tables in database "%"', current_database()
      USING errcode = 'insufficient_privilege', hint = format('The operator can allow it: GRANT TEMPORARY ON DATABASE %I TO %I.', current_database(), current_user);
  END IF;
  SELECT string_agg(format('%I %s%s%s', c.attname, format_type(c.atttypid, c.atttypmod),
                           CASE WHEN c.attcollation <> 0 THEN ' COLLATE ' || c.attcollation::regcollation END,
                           CASE WHEN c.attgenerated <> '' THEN format(' GENERATED ALWAYS AS (NULL::%s) STORED', format_type(c.atttypid, c.atttypmod))
                                WHEN c.wanted IS NOT NULL AND NOT p_defaults THEN ''
                                WHEN c.attidentity <> '' THEN format(' DEFAULT nextval(%L)', pg_get_serial_sequence(p_table::text, c.attname))
                                WHEN d.oid IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
                                ELSE '' END), ', ' ORDER BY coalesce(c.wanted, 32767), c.attnum),
         array_agg(c.attname::text ORDER BY c.wanted, c.attnum) FILTER (WHERE c.wanted IS NOT NULL AND c.attgenerated = '')
    INTO v_columns, v_inserted
    FROM (SELECT a.*, CASE WHEN p_columns IS NULL THEN CASE WHEN a.attgenerated = '' THEN a.attnum::int END
                           ELSE array_position(p_columns, a.attname::text) END AS wanted
            FROM pg_attribute a WHERE a.attrelid = p_table AND a.attnum > 0 AND NOT a.attisdropped) AS c
    LEFT JOIN pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
   WHERE c.wanted IS NOT NULL OR c.attname = ANY (p_others);
  -- As COPY itself: before any data.
  IF NOT has_table_privilege(session_user, p_table, 'INSERT')
     AND EXISTS (SELECT FROM unnest(v_inserted) AS i(attname) WHERE NOT has_column_privilege(session_user, p_table, i.attname, 'INSERT')) THEN
    RAISE EXCEPTION 'permission denied for table %', (SELECT relname FROM pg_class WHERE oid = p_table) USING errcode = 'insufficient_privilege';
  END IF;
  EXECUTE format('CREATE TEMPORARY TABLE %I (%s) ON COMMIT DROP', v_staging, v_columns);
  EXECUTE format('GRANT SELECT, INSERT ON pg_temp.%I TO %I', v_staging, session_user);
  RETURN QUERY SELECT v_staging
    UNION ALL SELECT n.nspname::text FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = p_table
    UNION ALL SELECT r.relname::text FROM pg_class r WHERE r.oid = p_table
    UNION ALL SELECT i.attname FROM unnest(v_inserted) AS i(attname);
END
$$;

-- unstage_copy(name): drops it before the transaction's end, where more may follow in the same transaction.
CREATE OR REPLACE FUNCTION partywall.unstage_copy(p_name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF p_name !~ '^partywall_copy_[0-9a-f]{32}$' THEN
    RAISE EXCEPTION 'not a table of stage_copy' USING errcode = 'invalid_parameter_value';
  END IF;
  EXECUTE format('DROP TABLE pg_temp.%I', p_name);
END
$$;

DO $staging$
DECLARE
  app_role name := coalesce(nullif(current_setting('partywall.app_role', true), ''), 'partywall_app');
  v_function text;
  v_schema name;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA partywall TO %I', app_role);
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO partywall_owner', current_database());
  FOREACH v_function IN ARRAY ARRAY['partywall.stage_copy(regclass, text[], text[], boolean)', 'partywall.unstage_copy(text)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO partywall_owner', v_function);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, app_role);
  END LOOP;
  -- The types of columns, and what their defaults call, must be within the owner's reach.
  FOR v_schema IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND has_schema_privilege(app_role, oid, 'USAGE')
                     AND NOT has_schema_privilege('partywall_owner', oid, 'USAGE') LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO partywall_owner', v_schema);
  END LOOP;
END
$staging$;
