//! The kinds of state that code can leave in a server process.

/// One kind: a new one is one line.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// What a client would send itself; empty where there is no such statement. The guard may refuse it.
    pub statement: &'static str,
    /// The same in the body of a PL/pgSQL function.
    pub code: &'static str,
    /// Whether that function runs with the rights of its owner, a superuser.
    pub definer: bool,
}

const fn state(statement: &'static str, code: &'static str) -> State {
    State { statement, code, definer: false }
}

const fn definer(code: &'static str) -> State {
    State { statement: "", code, definer: true }
}

/// All of them. `shop.customer` and `my.own` are settings that no extension defines.
pub const STATES: &[State] = &[
    // Settings, built in.
    state("SET work_mem = '2MB'", "PERFORM set_config('work_mem', '2MB', false);"),
    state("SET TimeZone = 'Asia/Tokyo'", "SET TimeZone = 'Asia/Tokyo';"),
    state("SET datestyle = 'SQL, DMY'", "PERFORM set_config('datestyle', 'SQL, DMY', false);"),
    state("SET application_name = 'left'", "PERFORM set_config('application_name', 'left', false);"),
    state("SET search_path = probe, public", "PERFORM set_config('search_path', 'probe, public', false);"),
    state("SET enable_hashjoin = off", "SET enable_hashjoin = off; SET plan_cache_mode = force_generic_plan;"),
    state("SET transform_null_equals = on", "SET transform_null_equals = on; SET extra_float_digits = -3;"),
    state("SET client_min_messages = error", "SET client_min_messages = error; SET xmloption = document;"),
    state("", "SET row_security = off;"),
    state("", "SET standard_conforming_strings = off;"),
    state("SET default_toast_compression = pglz", "SET bytea_output = escape; SET intervalstyle = iso_8601;"),
    definer("SET session_replication_role = replica; SET log_statement = 'all';"),
    // Time-outs, which the cleaning itself must outlive.
    state("SET statement_timeout = '150ms'", "SET statement_timeout = '150ms';"),
    state("", "PERFORM set_config('statement_timeout', '1', false);"),
    state("", "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;"),
    state("SET lock_timeout = '5ms'", "SET lock_timeout = '5ms'; SET idle_in_transaction_session_timeout = '50ms';"),
    // Transaction defaults.
    state(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE;",
    ),
    state("SET default_transaction_read_only = on", "SET default_transaction_read_only = on;"),
    // Settings of nobody's, and of extensions.
    state("SET shop.customer = 'left'", "PERFORM set_config('shop.customer', 'left', false);"),
    state("SET LOCAL my.own = 'left'", "PERFORM set_config('my.own', 'left', true);"),
    state("SET my.own = 'left'", "SET my.own = 'left'; SET LOCAL my.own = 'local';"),
    state("SELECT set_limit(0.95)", "PERFORM set_limit(0.95);"),
    state("SET pg_trgm.word_similarity_threshold = 0.9", "SET pg_trgm.word_similarity_threshold = 0.9;"),
    // The context itself, and none.
    state("", "PERFORM set_config('app.current_org_id', 'hooli', false);"),
    state("", "SET app.current_user_id = 'root'; SET app.current_roles = 'admin';"),
    state("RESET ALL", "RESET ALL;"),
    // Statements that SQL prepared, and those of others gone.
    state("PREPARE stolen AS SELECT 'left'", "EXECUTE 'PREPARE stolen AS SELECT 1';"),
    state("DEALLOCATE ALL", "EXECUTE 'DEALLOCATE ALL';"),
    // Plans, and what a setting made of a literal.
    state("SET datestyle = 'ISO, DMY'; SELECT probe.dated()", "SET datestyle = 'ISO, DMY'; PERFORM probe.dated();"),
    state("", "PERFORM set_config('datestyle', 'ISO, DMY', true); PERFORM probe.dated();"),
    // Cursors.
    state(
        "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT body FROM canary; COMMIT",
        "EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT body FROM canary';",
    ),
    state("BEGIN; DECLARE held CURSOR FOR SELECT 1", "EXECUTE 'DECLARE held CURSOR FOR SELECT 1';"),
    // Temporary objects.
    state("CREATE TEMP TABLE canary AS SELECT 1 AS id", ""),
    definer("CREATE TEMP TABLE IF NOT EXISTS canary (org_id text, id int, body text);"),
    definer(
        "CREATE TEMP TABLE IF NOT EXISTS spoil (a int) ON COMMIT DELETE ROWS; CREATE OR REPLACE TEMP VIEW seen AS SELECT 1;",
    ),
    definer("CREATE TEMP SEQUENCE IF NOT EXISTS ticket; PERFORM nextval('pg_temp.ticket');"),
    definer("EXECUTE 'CREATE OR REPLACE FUNCTION pg_temp.org() RETURNS text LANGUAGE sql AS ''SELECT ''''left''''''';"),
    definer("DROP TYPE IF EXISTS pg_temp.mood; CREATE TYPE pg_temp.mood AS ENUM ('left');"),
    // Channels.
    state("LISTEN gossip", "EXECUTE 'LISTEN gossip';"),
    // Advisory locks.
    state("SELECT pg_advisory_lock(4711)", ""),
    definer("PERFORM pg_catalog.pg_advisory_lock(4711), pg_catalog.pg_advisory_lock_shared(47, 11);"),
    definer("PERFORM pg_catalog.pg_advisory_xact_lock(4712);"),
    // Sequences and the random stream.
    state("SELECT nextval('ticket')", "PERFORM nextval('ticket');"),
    state("INSERT INTO ledger (body) VALUES ('left')", "INSERT INTO ledger (body) VALUES ('left');"),
    state("SELECT setseed(0.5)", "PERFORM setseed(0.5);"),
    state("", "SET seed = 0.5;"),
];
