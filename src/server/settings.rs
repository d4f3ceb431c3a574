//! The settings that every server connection opens with, so that no role or database default can poison it.
//!
//! A setting in the StartupMessage wins over `ALTER ROLE … SET`, `ALTER DATABASE … SET` and `postgresql.conf`, and RESET
//! and DISCARD ALL go back to it (PostgreSQL manual, "Setting Parameters"). Any role may `ALTER ROLE` its own defaults.
//!
//! Not here: settings that only change speed or the look of values (planner, memory, `DateStyle`, `TimeZone`, `lc_*`,
//! `synchronous_commit`, tablespaces), which belong to the database's owner; and settings that only a superuser can set
//! (`session_replication_role`, `lo_compat_privileges`), which `fitness` looks at.

/// Each setting, its one value, and why.
#[rustfmt::skip]
pub(super) const STARTUP_SETTINGS: [(&str, &str); 19] = [
    // Another encoding would let bytes mean one thing to the guard and another to the server.
    ("client_encoding", "UTF8"),
    // Off, and a backslash in a literal means something else to the server than to the guard.
    ("standard_conforming_strings", "on"),
    // On, and \' goes on with a literal even where the client's encoding makes that unsafe.
    ("backslash_quote", "safe_encoding"),
    // Off, and a query that row security would filter fails instead; the walls stand on it being on.
    ("row_security", "on"),
    // A default role is SET ROLE without anybody asking.
    ("role", "none"),
    // A schema in front of the others puts its own tables and functions in the place of the meant ones.
    ("search_path", "\"$user\", public"),
    // A library that is not there makes every login FATAL; one that is there runs code.
    ("local_preload_libraries", ""),
    // On, and every write fails.
    ("default_transaction_read_only", "off"),
    // Serializable, and statements fail that would not; the client's own BEGIN may still ask for it.
    ("default_transaction_isolation", "read committed"),
    // On, and a serializable read-only transaction waits without a bound.
    ("default_transaction_deferrable", "off"),
    // A millisecond, and no context can ever be set; the tier's own timeouts come with the context.
    ("statement_timeout", "0"),
    // A millisecond, and every lock that is not free at once is an error.
    ("lock_timeout", "0"),
    // A millisecond, and every transaction of more than one statement loses its connection.
    ("idle_in_transaction_session_timeout", "0"),
    // On, and any error ends the connection.
    ("exit_on_error", "off"),
    // DEBUG5, and every statement is answered with pages of notices.
    ("client_min_messages", "notice"),
    // On, and `x = NULL` means `x IS NULL`.
    ("transform_null_equals", "off"),
    // Off, and NULL in an array literal is a text.
    ("array_nulls", "on"),
    // Not 0, and a GIN index gives a random part of the rows.
    ("gin_fuzzy_search_limit", "0"),
    // Off, and functions are made without a look at their bodies.
    ("check_function_bodies", "on"),
];

/// Settings as bad as those above that some supported version does not know, so that they cannot be sent to all;
/// `fitness` refuses a shard whose role or database sets them.
pub(super) const UNSENDABLE_SETTINGS: [&str; 3] =
    ["idle_session_timeout", "transaction_timeout", "client_connection_check_interval"];
