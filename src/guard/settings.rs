//! Which settings a session may change, to what, and what a value amounts to: one list.
//!
//! It judges SET, RESET, `set_config` and start-up parameters alike. A setting that stands nowhere is refused, so that
//! a new one of PostgreSQL's is looked at before tenants have it (PostgreSQL manual, chapter 20).

use std::collections::HashMap;

use super::magnitudes::{Magnitude, Unit, magnitude};
use super::no::{Answer, No};
use super::rights::Rights;
use super::verdict::Value;

/// Settings that a tier bounds: a value above its limit is written anew as the limit.
pub const TIER_LIMITS: [&str; 5] = [
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "work_mem",
    "max_parallel_workers_per_gather",
];

/// The most that each of [`TIER_LIMITS`] may be, in its base unit (milliseconds, kilobytes, workers); none: anything.
pub type TierLimits = [Option<u64>; TIER_LIMITS.len()];

/// What may be done with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Any value.
    Free,
    /// A number that the tier bounds.
    Tier(Unit),
    /// A number up to this one, in base units.
    AtMost(Unit, u64),
    /// Only a value that means "on".
    On,
    /// Only a value that means "on", unless the session may write.
    OnUnlessWriter,
    /// Only UTF8, in any of its spellings.
    Utf8,
    /// Only this text.
    Exactly(&'static str),
    /// Schemas of the operator's, while the session's rights reach relations by the name of their schema or all of them.
    SearchPath,
    /// No value.
    Never(&'static str),
}

const FREE: &str = "application_name array_nulls backend_flush_after bytea_output check_function_bodies \
    client_connection_check_interval client_min_messages constraint_exclusion cpu_index_tuple_cost \
    cpu_operator_cost cpu_tuple_cost cursor_tuple_fraction datestyle debug_pretty_print default_statistics_target \
    default_table_access_method default_tablespace default_text_search_config default_toast_compression \
    default_transaction_deferrable default_transaction_isolation effective_cache_size effective_io_concurrency \
    enable_async_append enable_bitmapscan enable_distinct_reordering enable_gathermerge enable_group_by_reordering \
    enable_hashagg enable_hashjoin enable_incremental_sort enable_indexonlyscan enable_indexscan enable_material \
    enable_memoize enable_mergejoin enable_nestloop enable_parallel_append enable_parallel_hash \
    enable_partition_pruning enable_partitionwise_aggregate enable_partitionwise_join enable_presorted_aggregate \
    enable_self_join_elimination enable_seqscan enable_sort enable_tidscan escape_string_warning extra_float_digits \
    from_collapse_limit geqo geqo_effort geqo_generations geqo_pool_size geqo_seed geqo_selection_bias \
    geqo_threshold gin_fuzzy_search_limit icu_validation_level idle_session_timeout intervalstyle jit jit_above_cost \
    jit_expressions jit_inline_above_cost jit_optimize_above_cost jit_tuple_deforming join_collapse_limit \
    lc_monetary lc_numeric lc_time lock_timeout maintenance_io_concurrency min_parallel_index_scan_size \
    min_parallel_table_scan_size parallel_leader_participation parallel_setup_cost parallel_tuple_cost \
    plan_cache_mode quote_all_identifiers random_page_cost recursive_worktable_factor \
    restrict_nonsystem_relation_kind scram_iterations password_encryption createrole_self_grant seq_page_cost \
    stats_fetch_consistency synchronize_seqscans synchronous_commit temp_tablespaces timezone \
    timezone_abbreviations transaction_deferrable transaction_isolation transform_null_equals xmlbinary xmloption \
    vacuum_cost_delay vacuum_cost_limit vacuum_cost_page_dirty vacuum_cost_page_hit vacuum_cost_page_miss \
    vacuum_buffer_usage_limit vacuum_failsafe_age vacuum_freeze_min_age vacuum_freeze_table_age \
    vacuum_multixact_failsafe_age vacuum_multixact_freeze_min_age vacuum_multixact_freeze_table_age vacuum_truncate \
    commit_siblings wal_skip_threshold gin_pending_list_limit file_copy_method io_combine_limit \
    default_with_oids vacuum_cleanup_index_scale_factor vacuum_max_eager_freeze_failure_rate operator_precedence_warning";

const IDENTITY: &str = "the proxy's login role and the token decide who a session is";
const CONTEXT: &str = "the proxy sets it from the token";
const SERVER: &str = "it is not for sessions behind the proxy";

const NEVER: [(&str, &str); 24] = [
    ("role", IDENTITY),
    ("session_authorization", IDENTITY),
    ("is_superuser", IDENTITY),
    ("session_replication_role", "it would switch triggers and constraints off"),
    ("local_preload_libraries", SERVER),
    ("session_preload_libraries", SERVER),
    ("dynamic_library_path", SERVER),
    ("backtrace_functions", SERVER),
    ("exit_on_error", "it would end a server connection that others use after you"),
    ("debug_print_parse", SERVER),
    ("debug_print_plan", SERVER),
    ("debug_print_rewritten", SERVER),
    ("debug_logical_replication_streaming", SERVER),
    ("md5_password_warnings", SERVER),
    ("log_parameter_max_length_on_error", SERVER),
    ("tcp_keepalives_count", SERVER),
    ("tcp_keepalives_idle", SERVER),
    ("tcp_keepalives_interval", SERVER),
    ("tcp_user_timeout", SERVER),
    ("wal_sender_timeout", SERVER),
    ("trace_notify", SERVER),
    ("trace_sort", SERVER),
    ("seed", "it would outlive the session on its server connection: call setseed()"),
    ("postgis.gdal_enabled_drivers", SERVER),
];

/// The rules by name.
#[derive(Debug)]
pub(super) struct Settings {
    rules: HashMap<&'static str, Rule, ahash::RandomState>,
    /// Names of the context in lower case, and the prefixes (with their dot) that they stand under.
    context: Vec<Box<str>>,
}

impl Settings {
    /// The list, and the names that carry the tenant context.
    pub(super) fn new(context_names: &[String]) -> Self {
        let mut rules: HashMap<&'static str, Rule, ahash::RandomState> = HashMap::default();
        rules.extend(FREE.split_whitespace().map(|name| (name, Rule::Free)));
        rules.extend(NEVER.map(|(name, why)| (name, Rule::Never(why))));
        rules.extend([
            ("statement_timeout", Rule::Tier(Unit::Milliseconds)),
            ("idle_in_transaction_session_timeout", Rule::Tier(Unit::Milliseconds)),
            ("transaction_timeout", Rule::Tier(Unit::Milliseconds)),
            ("work_mem", Rule::Tier(Unit::Kilobytes)),
            ("max_parallel_workers_per_gather", Rule::Tier(Unit::Count)),
            ("maintenance_work_mem", Rule::AtMost(Unit::Kilobytes, 64 << 10)),
            ("logical_decoding_work_mem", Rule::AtMost(Unit::Kilobytes, 64 << 10)),
            ("temp_buffers", Rule::AtMost(Unit::Blocks, 1024)),
            ("hash_mem_multiplier", Rule::AtMost(Unit::Count, 2)),
            ("max_parallel_workers", Rule::AtMost(Unit::Count, 8)),
            ("max_parallel_maintenance_workers", Rule::AtMost(Unit::Count, 2)),
            ("debug_parallel_query", Rule::Exactly("off")),
            ("force_parallel_mode", Rule::Exactly("off")),
            ("standard_conforming_strings", Rule::On),
            ("row_security", Rule::On),
            ("backslash_quote", Rule::Exactly("safe_encoding")),
            ("client_encoding", Rule::Utf8),
            ("default_transaction_read_only", Rule::OnUnlessWriter),
            ("transaction_read_only", Rule::OnUnlessWriter),
            ("search_path", Rule::SearchPath),
        ]);
        let mut context = vec![format!("{}.", super::relations::OWN_SCHEMA).into_boxed_str()];
        for name in context_names {
            let name = name.to_ascii_lowercase();
            if let Some((prefix, _)) = name.split_once('.') {
                context.push(format!("{prefix}.").into());
            }
            context.push(name.into());
        }
        Self { rules, context }
    }

    /// Whether a session may give this setting this value; the magnitude where a tier bounds it.
    pub(super) fn may_set(&self, name: &str, value: &Value, rights: &Rights) -> Answer<Option<Magnitude>> {
        let no = |why: &str| refused(name, why);
        match self.rule(name)? {
            Rule::Free => Ok(None),
            Rule::Never(why) => Err(no(why)),
            Rule::Tier(unit) => match number(value, unit, is_timeout(name)) {
                Some(number) => Ok(Some(number)),
                None => Err(no("a tier bounds it, so its value must be a plain number with a unit")),
            },
            Rule::AtMost(unit, most) => match number(value, unit, false) {
                // A fraction that some server does not round would be above.
                Some(read) if read.number < most || read.number == most && read.plain => Ok(None),
                _ => Err(no("it may be lowered, never raised")),
            },
            Rule::On if means_on(value) => Ok(None),
            Rule::On => Err(no("it must stay on")),
            Rule::OnUnlessWriter if means_on(value) || !rights.is_read_only() => Ok(None),
            Rule::OnUnlessWriter => Err(no("this session may only read")),
            Rule::Utf8 if is_utf8(value) => Ok(None),
            Rule::Utf8 => Err(no("the proxy speaks UTF8 only")),
            Rule::Exactly(text) if literal(value).is_some_and(|value| value.eq_ignore_ascii_case(text)) => Ok(None),
            Rule::Exactly(_) => Err(no("it must keep its default")),
            Rule::SearchPath if rights.is_restricted() => {
                Err(no("this session's rights name relations, so names must keep their meaning"))
            }
            Rule::SearchPath => match literal(value).map(name_list) {
                None => Err(no("its schemas must be written as a constant")),
                Some(schemas) if schemas.iter().any(|schema| is_nobodys(schema)) => {
                    Err(no("it names a schema of the system's or of the proxy's, whose functions are not for sessions"))
                }
                Some(_) => Ok(None),
            },
        }
    }

    /// Whether a session may RESET this setting, which gives it the value that the server connection began with.
    pub(super) fn may_reset(&self, name: &str, rights: &Rights) -> Answer {
        match self.rule(name)? {
            Rule::Never(why) => Err(refused(name, why)),
            Rule::OnUnlessWriter if rights.is_read_only() => Err(refused(name, "this session may only read")),
            _ => Ok(()),
        }
    }

    /// The rule for a name in lower case.
    fn rule(&self, name: &str) -> Answer<Rule> {
        let is_context = |own: &str| name == own || (own.ends_with('.') && name.starts_with(own));
        if self.context.iter().any(|own| is_context(own)) {
            return Ok(Rule::Never(CONTEXT));
        }
        if let Some(rule) = self.rules.get(name) {
            return Ok(*rule);
        }
        if name.contains('.') || name.starts_with("enable_") {
            return Ok(Rule::Free);
        }
        Err(refused(name, SERVER))
    }

    /// Whether a list names it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.rules.contains_key(name) || name.starts_with("enable_")
    }
}

/// PostgreSQL's current spelling of a setting's name, in lower case: names are compared without regard to case, and
/// some have an older one (guc.c, `map_old_guc_names`).
pub(super) fn canonical(name: &str) -> Box<str> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "sort_mem" => "work_mem".into(),
        "vacuum_mem" => "maintenance_work_mem".into(),
        _ => lower.into(),
    }
}

/// Whether a setting's value is a list of names, each quoted where it must be (guc.h, `GUC_LIST_QUOTE`).
pub(super) fn is_name_list(name: &str) -> bool {
    matches!(name, "search_path" | "temp_tablespaces" | "local_preload_libraries" | "session_preload_libraries")
}

/// Whether a setting is the running transaction's alone: it ends with it, and no session has it.
pub(super) fn is_of_the_transaction(name: &str) -> bool {
    matches!(name, "transaction_isolation" | "transaction_read_only" | "transaction_deferrable")
}

/// Schemas whose functions and tables are refused by the schema's name, so that nobody may leave that name out.
fn is_nobodys(schema: &str) -> bool {
    let system = schema.starts_with("pg_") && !matches!(schema, "pg_catalog" | "pg_temp");
    system
        || super::functions::RUNNING_SCHEMAS.contains(&schema)
        || matches!(schema, super::relations::OWN_SCHEMA | super::relations::LOCKS_SCHEMA)
}

/// The names of a list as PostgreSQL reads it (varlena.c, `SplitIdentifierString`).
fn name_list(text: &str) -> Vec<String> {
    let (mut names, mut name, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            space if !quoted && space.is_whitespace() => {}
            letter if quoted => name.push(letter),
            letter => name.push(letter.to_ascii_lowercase()),
        }
    }
    names.push(name);
    names
}

fn refused(name: &str, why: &str) -> No {
    // Names come from the client and may be long; the client's own words go back to the client alone.
    let name: String = name.chars().take(64).collect();
    No::forbidden(format!("setting \"{name}\" may not be changed so: {why}"))
        .hint("Leave it out; the proxy gives every session its settings.")
}

fn is_timeout(name: &str) -> bool {
    name.ends_with("_timeout")
}

fn literal(value: &Value) -> Option<&str> {
    match value {
        Value::Literal(text) => Some(text),
        Value::Parameter(_) | Value::Unknown => None,
    }
}

/// Whether PostgreSQL reads a value as true (bool.c, `parse_bool_with_len`: prefixes count).
fn means_on(value: &Value) -> bool {
    let Some(text) = literal(value) else { return false };
    let text = text.to_ascii_lowercase();
    let prefix_of = |word: &str| !text.is_empty() && word.starts_with(&text);
    text == "on" || text == "1" || prefix_of("true") || prefix_of("yes")
}

/// Whether a value names UTF8 as PostgreSQL cleans names: letters and digits alone count (encnames.c). Some drivers
/// send the quotes with it. SQL_ASCII (psql in the C locale) means "as it is": a UTF8 server reads the same bytes, and
/// verifies them, so guard and server agree.
fn is_utf8(value: &Value) -> bool {
    let Some(text) = literal(value) else { return false };
    let clean: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    matches!(clean.as_str(), "utf8" | "unicode" | "sqlascii")
}

/// A value as a number of base units, where it is a constant.
fn number(value: &Value, unit: Unit, zero_is_none: bool) -> Option<Magnitude> {
    magnitude(literal(value)?, unit, zero_is_none)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Value::Literal(text.into())
    }

    #[test]
    fn utf8_has_many_spellings() {
        for good in ["UTF8", "utf-8", "'utf-8'", "Unicode", "utf_8", "SQL_ASCII"] {
            assert!(is_utf8(&value(good)), "{good}");
        }
        for bad in ["SJIS", "LATIN1", "", "utf16", "EUC_JP"] {
            assert!(!is_utf8(&value(bad)), "{bad}");
        }
    }
}
