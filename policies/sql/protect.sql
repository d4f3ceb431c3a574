-- protect.sql: one call that puts a table behind the wall, and one that takes it out.  After a context file; safe to repeat.
-- PostgreSQL 13 to 18.
--
--   SELECT partywall.protect('public.runs');                 -- the organization stands in org_id
--   SELECT partywall.protect('public.runs', 'tenant_id');    -- … or elsewhere

SET client_min_messages = warning;

-- org_as(NULL::type, length): the session's organization as a value of that type; NULL where there is none. An error where the
-- type does not hold the name exactly as it is: a cast to varchar(20), char(8) or name cuts what is longer, char(n) takes blanks
-- away, bigint makes 7 of 07, and then two organizations would be one.
--   length  how many characters the column takes; none where it takes any number
-- In the sealed form org() may not run in a parallel worker, so neither may this.
CREATE OR REPLACE FUNCTION partywall.org_as(p_type anyelement, p_length int DEFAULT NULL) RETURNS anyelement
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_org text := partywall.org();
  v_own p_type%TYPE;
  v_back text;
BEGIN
  v_own := v_org;
  v_back := v_own::text;
  IF pg_typeof(p_type) = 'numeric'::regtype THEN
    v_back := trim_scale(v_own)::text;   -- 7 and 7.0 are equal
  END IF;
  IF v_back COLLATE "C" IS DISTINCT FROM v_org COLLATE "C" OR char_length(v_org) > p_length THEN
    RAISE EXCEPTION 'the organization of this session does not fit into type %', format_type(pg_typeof(p_type), NULL) || coalesce('(' || p_length || ')', '')
      USING errcode = 'string_data_right_truncation',
            detail = 'A shorter or another spelling of it would be another organization.',
            hint = 'The column that holds the organization must hold its whole name: ask the operator.';
  END IF;
  RETURN v_own;
END
$$;

-- comparison(table, column): the expression that is true for rows of the session's organization alone, and the column's
-- default. NULLs where no comparison is known that is free of loss.
CREATE OR REPLACE FUNCTION partywall.comparison(p_table regclass, p_column name, OUT own text, OUT filled text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_type oid;
  v_mod int;
  v_column oid;      -- its collation
  v_exact boolean := false;
  v record;
BEGIN
  SELECT atttypid, atttypmod, attcollation INTO v_type, v_mod, v_column
    FROM pg_attribute WHERE attrelid = p_table AND attname = p_column AND attnum > 0 AND NOT attisdropped;
  -- A domain is compared as what it is made of; so its constraints never see the context.
  LOOP
    SELECT t.typname, t.typtype, t.typbasetype, t.typtypmod, n.nspname, x.extname INTO v
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
      LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      LEFT JOIN pg_extension x ON x.oid = d.refobjid WHERE t.oid = v_type;
    EXIT WHEN v.typtype IS DISTINCT FROM 'd';
    IF v.typtypmod >= 0 THEN v_mod := v.typtypmod; END IF;
    v_type := v.typbasetype;
  END LOOP;

  -- The sub-select makes the context one InitPlan instead of a call per row: 68 ms against 516 ms for a million rows.
  -- The column itself is compared, never a cast of it: the index stays usable.
  filled := 'partywall.org()';
  IF v_type = 'text'::regtype OR (v_type = 'varchar'::regtype AND v_mod < 0) THEN
    own := format('%I = (SELECT partywall.org())', p_column);
  ELSIF v_type IN ('varchar'::regtype, 'bpchar'::regtype) THEN
    own := format('%I = (SELECT partywall.org_as(NULL::%s%s))', p_column, v.typname, CASE WHEN v_mod >= 0 THEN ', ' || v_mod - 4 ELSE '' END);
  ELSIF v_type = 'name'::regtype THEN
    own := format('%I = (SELECT partywall.org_as(NULL::name))', p_column);
  ELSIF v_type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype, 'numeric'::regtype) THEN
    own := format('%I = (SELECT partywall.org_as(NULL::%s))', p_column, v.typname);
    filled := format('partywall.org()::%s', v.typname);
  ELSIF v_type = 'uuid'::regtype OR v.typtype = 'e' THEN
    -- Each spelling of a UUID is the same UUID; a label of an enum has one spelling.
    filled := format('partywall.org()::%s', format_type(v_type, NULL));
    own := format('%I = (SELECT %s)', p_column, filled);
  ELSIF v.extname = 'citext' THEN
    filled := format('partywall.org()::%s', format_type(v_type, NULL));
    own := format('%I OPERATOR(%I.=) (SELECT %s)', p_column, v.nspname, filled);
    v_exact := true;
  ELSE
    filled := NULL;
    RETURN;
  END IF;
  -- Where the column's own equality takes different texts for the same one, it finds the rows and this chooses among them.
  IF v_exact OR EXISTS (SELECT FROM pg_collation WHERE oid = v_column AND NOT collisdeterministic) THEN
    own := own || format(' AND %I::text COLLATE "C" = (SELECT partywall.org())', p_column);
  END IF;
END
$$;

-- protect(table, column, role, restrictive): run by the table's owner or a superuser.
--   column       holds the organization: text, varchar, char, name, citext, uuid, an integer type, numeric, an enum, or a domain over
--                one of them. Organizations are told apart by each byte of their names, but UUIDs, which have many spellings.
--   role         the shared login role; partywall_app (or the setting partywall.app_role) when NULL
--   restrictive  true: ANDed to every other policy of the table, which then needs a permissive one of its own
-- Returns a sentence that says what was done. CREATE INDEX inside it blocks writes for a while: on a large live table,
-- create an index that leads with the column CONCURRENTLY before.
CREATE OR REPLACE FUNCTION partywall.protect(
  p_table regclass, p_column name DEFAULT 'org_id', p_role name DEFAULT NULL, p_restrictive boolean DEFAULT false
) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_role name := coalesce(p_role, nullif(current_setting('partywall.app_role', true), ''), 'partywall_app');
  v_kind text := CASE WHEN p_restrictive THEN 'RESTRICTIVE' ELSE 'PERMISSIVE' END;
  v_type text;
  v_own text;
  v_filled text;
  v_table regclass;
  v_policy name;
  v_constraint record;
  v_added text[] := '{}';
BEGIN
  SELECT format_type(atttypid, atttypmod) INTO v_type
    FROM pg_attribute WHERE attrelid = p_table AND attname = p_column AND NOT attisdropped AND attnum > 0;
  IF v_type IS NULL THEN
    RAISE EXCEPTION 'table % has no column %', p_table, p_column USING errcode = 'undefined_column';
  END IF;
  IF (SELECT relkind FROM pg_class WHERE oid = p_table) NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% is not a table', p_table USING errcode = 'wrong_object_type';
  END IF;
  IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = p_table) THEN
    RAISE WARNING '% is a partition or child: protect its parent too', p_table;
  END IF;

  SELECT own, filled INTO v_own, v_filled FROM partywall.comparison(p_table, p_column);
  IF v_own IS NULL THEN
    RAISE EXCEPTION 'table % cannot be protected by %: organizations cannot be compared with type % without loss', p_table, p_column, v_type
      USING errcode = 'feature_not_supported', hint = 'Use a column of type text, varchar, uuid, bigint or an enum.';
  END IF;

  -- Partitions, at every depth: a policy of the parent says nothing to whoever names the partition itself.
  FOR v_table IN
    WITH RECURSIVE tree AS (
      SELECT p_table::oid AS relid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.relid)
    SELECT relid FROM tree
  LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_table);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', v_table);          -- the owner obeys as well
    FOR v_policy IN SELECT polname FROM pg_policy WHERE polrelid = v_table AND polname LIKE 'partywall\_%' LOOP
      EXECUTE format('DROP POLICY %I ON %s', v_policy, v_table);
    END LOOP;
    EXECUTE format('CREATE POLICY partywall_read ON %s AS %s FOR SELECT TO %I USING (%s)', v_table, v_kind, v_role, v_own);
    EXECUTE format('CREATE POLICY partywall_insert ON %s AS %s FOR INSERT TO %I WITH CHECK (%s)', v_table, v_kind, v_role, v_own);
    EXECUTE format('CREATE POLICY partywall_update ON %s AS %s FOR UPDATE TO %I USING (%s) WITH CHECK (%s)', v_table, v_kind, v_role, v_own, v_own);
    EXECUTE format('CREATE POLICY partywall_delete ON %s AS %s FOR DELETE TO %I USING (%s)', v_table, v_kind, v_role, v_own);
    -- TRUNCATE and REFERENCES do not ask policies; a trigger runs in other tenants' statements.
    EXECUTE format('REVOKE TRUNCATE, REFERENCES, TRIGGER ON %s FROM %I, PUBLIC', v_table, v_role);
  END LOOP;

  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = p_table AND attname = p_column AND attnotnull) THEN
    BEGIN
      EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', p_table, p_column);
      v_added := v_added || 'not null'::text;
    EXCEPTION WHEN not_null_violation THEN
      RAISE WARNING '%.% holds NULLs: those rows are invisible to every tenant', p_table, p_column;
    END;
  END IF;

  -- Applications may leave the column out.
  EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', p_table, p_column, v_filled);

  -- Operators that are not leakproof use no index below a policy: the tenant's own index is what remains.
  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                  WHERE i.indrelid = p_table AND a.attname = p_column AND i.indisvalid AND i.indpred IS NULL) THEN
    EXECUTE format('CREATE INDEX ON %s (%I)', p_table, p_column);
    v_added := v_added || 'index'::text;
  END IF;

  -- A key that reaches across tenants answers "is there such a row?" about other tenants' rows.
  FOR v_constraint IN
    SELECT conname, CASE contype WHEN 'f' THEN 'foreign key' WHEN 'p' THEN 'primary key' ELSE 'unique or exclusion constraint' END AS what
      FROM pg_constraint c
     WHERE conrelid = p_table AND contype IN ('p', 'u', 'x', 'f')
       AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = p_table AND a.attname = p_column AND a.attnum = ANY (c.conkey))
  LOOP
    RAISE WARNING '% % on % does not include %: it tells one tenant about another', v_constraint.what, v_constraint.conname, p_table, p_column;
  END LOOP;

  RETURN format('%s protected by %s%s', p_table, p_column,
                CASE WHEN v_added <> '{}' THEN ' (' || array_to_string(v_added, ', ') || ' added)' ELSE '' END);
END
$$;

-- unprotect(table): takes the policies and the default away. Row-level security stays on, and without a policy hides every
-- row: opening the table to everybody is a step of its own, taken on purpose.
CREATE OR REPLACE FUNCTION partywall.unprotect(p_table regclass) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_found record;
BEGIN
  FOR v_found IN
    WITH RECURSIVE tree AS (
      SELECT p_table::oid AS relid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.relid)
    SELECT polname, polrelid::regclass AS relation FROM pg_policy JOIN tree ON relid = polrelid WHERE polname LIKE 'partywall\_%'
  LOOP
    EXECUTE format('DROP POLICY %I ON %s', v_found.polname, v_found.relation);
  END LOOP;
  FOR v_found IN
    SELECT a.attname FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
     WHERE d.adrelid = p_table AND pg_get_expr(d.adbin, d.adrelid) ~ 'partywall\.'
  LOOP
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', p_table, v_found.attname);
  END LOOP;
  RETURN format('%s: policies removed; row-level security is still on and now hides every row. '
                'ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY opens it.', p_table, p_table);
END
$$;

REVOKE ALL ON FUNCTION partywall.protect(regclass, name, name, boolean), partywall.unprotect(regclass), partywall.comparison(regclass, name),
                       partywall.org_as(anyelement, int) FROM PUBLIC;
DO $grants$
BEGIN
  -- The policies call it, as whoever asks; staging.sql makes tables with the same defaults.
  EXECUTE format('GRANT EXECUTE ON FUNCTION partywall.org_as(anyelement, int) TO %I',
                 coalesce(nullif(current_setting('partywall.app_role', true), ''), 'partywall_app'));
END
$grants$;
