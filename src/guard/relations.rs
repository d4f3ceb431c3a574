//! Which relations of the system a tenant may read, and which show other organizations.

use std::collections::HashSet;

/// The schema that holds the proxy's own objects in a database.
pub(super) const OWN_SCHEMA: &str = "partywall";
/// The schema of the advisory locks that are each organization's own (policies/sql/advisory.sql).
pub(super) const LOCKS_SCHEMA: &str = "partywall_locks";

/// What a relation's name means to the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// The operator's: judged by the session's rights.
    Ordinary,
    /// The system's, and for every session to read.
    Catalog,
    /// The system's; what it names is for every session, what it counts for nobody where tables are shared.
    Counters,
    /// The system's, and for sessions of a database of their own whose rights reach every relation: values of rows.
    Statistics,
    /// The system's, and for nobody.
    Refused,
}

const REFUSED: &str = "pg_stat_activity pg_stat_replication pg_stat_wal_receiver pg_stat_subscription \
    pg_stat_subscription_stats pg_stat_ssl pg_stat_gssapi pg_stat_recovery_prefetch pg_stat_replication_slots \
    pg_stat_progress_analyze pg_stat_progress_basebackup pg_stat_progress_cluster pg_stat_progress_copy \
    pg_stat_progress_create_index pg_stat_progress_vacuum pg_stat_statements pg_stat_statements_info pg_locks \
    pg_prepared_xacts pg_prepared_statements pg_largeobject pg_authid pg_shadow \
    pg_hba_file_rules pg_ident_file_mappings pg_file_settings pg_statistic pg_statistic_ext_data \
    pg_shmem_allocations pg_shmem_allocations_numa pg_backend_memory_contexts pg_replication_origin \
    pg_replication_origin_status pg_replication_slots pg_wait_events pg_aios pg_config pg_user_mapping \
    pg_buffercache pg_buffercache_numa pg_dist_node pg_dist_authinfo pg_dist_poolinfo \
    citus_stat_activity citus_dist_stat_activity citus_lock_waits citus_locks citus_stat_statements \
    citus_stat_tenants";

const CATALOG: &str = "pg_aggregate pg_am pg_amop pg_amproc pg_attrdef pg_attribute pg_auth_members \
    pg_available_extension_versions pg_available_extensions pg_cast pg_class pg_collation pg_constraint \
    pg_conversion pg_cursors pg_database pg_db_role_setting pg_default_acl pg_depend pg_description pg_enum \
    pg_event_trigger pg_extension pg_foreign_data_wrapper pg_foreign_server pg_foreign_table pg_group pg_index \
    pg_indexes pg_inherits pg_init_privs pg_language pg_largeobject_metadata pg_matviews pg_namespace \
    pg_opclass pg_operator pg_opfamily pg_parameter_acl pg_partitioned_table pg_policies pg_policy pg_proc \
    pg_publication pg_publication_namespace pg_publication_rel pg_publication_tables pg_range pg_rewrite \
    pg_roles pg_rules pg_seclabel pg_seclabels pg_sequence pg_settings pg_shdepend \
    pg_shdescription pg_shseclabel pg_statistic_ext pg_subscription pg_subscription_rel pg_tables pg_tablespace \
    pg_timezone_abbrevs pg_timezone_names pg_transform pg_trigger pg_ts_config pg_ts_config_map pg_ts_dict \
    pg_ts_parser pg_ts_template pg_type pg_user pg_user_mappings pg_views";

/// Their rows name objects; beside the names they hold counters of everybody's work. Those of a transaction
/// (`pg_stat_xact_…`) are no better: what a server process has not reported yet is of whoever had it before.
const COUNTERS: &str = "pg_sequences pg_stat_xact_all_tables pg_stat_xact_sys_tables pg_stat_xact_user_functions \
    pg_stat_xact_user_tables pg_stat_all_indexes pg_stat_all_tables pg_stat_archiver pg_stat_bgwriter pg_stat_checkpointer \
    pg_stat_database pg_stat_database_conflicts pg_stat_io pg_stat_slru pg_stat_sys_indexes pg_stat_sys_tables \
    pg_stat_user_functions pg_stat_user_indexes pg_stat_user_tables pg_stat_wal pg_statio_all_indexes \
    pg_statio_all_sequences pg_statio_all_tables pg_statio_sys_indexes pg_statio_sys_sequences \
    pg_statio_sys_tables pg_statio_user_indexes pg_statio_user_sequences pg_statio_user_tables";

const STATISTICS: &str = "pg_stats pg_stats_ext pg_stats_ext_exprs";

/// Every relation of the system that the guard knows by name.
#[derive(Debug)]
pub(super) struct SystemRelations {
    refused: HashSet<&'static str, ahash::RandomState>,
    catalog: HashSet<&'static str, ahash::RandomState>,
    counters: HashSet<&'static str, ahash::RandomState>,
    statistics: HashSet<&'static str, ahash::RandomState>,
}

impl SystemRelations {
    /// The lists above as tables.
    pub(super) fn new() -> Self {
        let set = |names: &'static str| names.split_whitespace().collect();
        Self { refused: set(REFUSED), catalog: set(CATALOG), counters: set(COUNTERS), statistics: set(STATISTICS) }
    }

    /// What reading a relation means. A refused name is refused in every schema; other names with `pg_` belong to the
    /// system unless a schema of the operator's qualifies them.
    pub(super) fn read(&self, schema: Option<&str>, name: &str) -> Relation {
        // Extensions that watch sessions name their views so, in a schema of the operator's choice.
        let known = self.catalog.contains(name) || self.counters.contains(name);
        let watches = name.starts_with("pg_stat_") && !known;
        if self.refused.contains(name) || watches || matches!(schema, Some(OWN_SCHEMA | LOCKS_SCHEMA)) {
            return Relation::Refused;
        }
        match schema {
            Some("information_schema") => Relation::Catalog,
            Some("pg_temp") => Relation::Ordinary,
            None if !name.starts_with("pg_") => Relation::Ordinary,
            None | Some("pg_catalog") => self.system(name),
            Some(schema) if schema.starts_with("pg_") => Relation::Refused,
            Some(_) => Relation::Ordinary,
        }
    }

    /// Whether a relation may be written or made at all: nothing of the system may.
    pub(super) fn is_system(&self, schema: Option<&str>, name: &str) -> bool {
        match schema {
            None => name.starts_with("pg_"),
            Some("pg_temp") => name.starts_with("pg_"),
            Some("information_schema" | OWN_SCHEMA | LOCKS_SCHEMA) => true,
            Some(schema) => schema.starts_with("pg_") || self.refused.contains(name),
        }
    }

    /// Whether a list names it.
    pub(super) fn knows(&self, name: &str) -> bool {
        [&self.refused, &self.catalog, &self.counters, &self.statistics].iter().any(|list| list.contains(name))
    }

    fn system(&self, name: &str) -> Relation {
        if self.catalog.contains(name) {
            Relation::Catalog
        } else if self.counters.contains(name) {
            Relation::Counters
        } else if self.statistics.contains(name) {
            Relation::Statistics
        } else {
            Relation::Refused
        }
    }
}
