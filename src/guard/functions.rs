//! The functions of pg_catalog and its usual extensions that are not for every tenant, and what a call of them does.
//!
//! A name that stands here is meant whatever schema qualifies it. An unqualified `pg_…` that stands nowhere is refused,
//! since PostgreSQL gives such names to its own; any other unknown name is a function of the operator's.

use std::collections::HashMap;

/// What a call of a function means to the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// Nothing in particular.
    Plain,
    /// Refused, for this reason.
    Refused(Why),
    /// `set_config`.
    SetConfig,
    /// `setseed`.
    Seed,
    /// `set_limit` of pg_trgm, which sets a setting (PostgreSQL manual, "pg_trgm").
    SimilarityLimit,
    /// `nextval`.
    NextValue,
    /// `setval`.
    SetValue,
    /// `currval`, `lastval`.
    CurrentValue,
    /// How far a sequence has come, by whoever took from it.
    SequenceState,
    /// Takes an advisory lock; `session`: beyond the transaction.
    AdvisoryLock { session: bool },
    /// Gives advisory locks back.
    AdvisoryUnlock { all: bool },
    /// `pg_notify`.
    Notify,
    /// `ts_rewrite`, which runs SQL text when it has two arguments.
    Rewrite,
}

impl Function {
    /// Whether the schema of the private advisory locks has one of this name.
    const fn is_private(self) -> bool {
        matches!(self, Self::AdvisoryLock { .. } | Self::AdvisoryUnlock { all: false })
    }
}

/// Why a function is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Runs SQL text that the guard has not read.
    RunsText,
    /// Signals other sessions.
    Signals,
    /// Shows other sessions or the whole server's work.
    Watches,
    /// Reads or writes the server's files.
    Files,
    /// Large objects belong to the role that every organization shares.
    LargeObjects,
    /// Acts on the server as a whole, or is meant for its own use.
    Server,
    /// Belongs to the proxy.
    Proxy,
}

impl Why {
    /// The reason, to follow the function's name and "is refused: ".
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::RunsText => "it runs or reads by name what the guard cannot see",
            Self::Signals => "it acts on sessions by process id, and pooled connections serve many clients",
            Self::Watches => "it shows what other sessions do",
            Self::Files => "it reaches the server's files",
            Self::LargeObjects => "large objects cannot be kept apart between organizations",
            Self::Server => "it acts on the server as a whole",
            Self::Proxy => "it belongs to the proxy",
        }
    }

    /// What to do instead.
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::RunsText => "Write the inner statement as a statement of its own.",
            Self::Signals => "Cancel with the protocol's own cancel request (Ctrl-C in psql, cancel() in drivers).",
            Self::Watches | Self::Server => "Ask the operator, who sees it from outside.",
            Self::Files => "Use COPY … FROM STDIN or TO STDOUT.",
            Self::LargeObjects => "Use a column of type bytea.",
            Self::Proxy => "The proxy sets the context by itself.",
        }
    }
}

const RUNS_TEXT: &str = "query_to_xml query_to_xml_and_xmlschema query_to_xmlschema cursor_to_xml cursor_to_xmlschema \
    table_to_xml table_to_xml_and_xmlschema table_to_xmlschema schema_to_xml schema_to_xml_and_xmlschema \
    schema_to_xmlschema database_to_xml database_to_xml_and_xmlschema database_to_xmlschema ts_stat connectby \
    crosstab crosstab2 crosstab3 crosstab4 crosstabn crosstab_hash xslt_process \
    run_command_on_workers run_command_on_shards run_command_on_placements run_command_on_colocated_placements \
    run_command_on_all_nodes run_command_on_coordinator master_run_on_worker xpath_table pg_background_launch pg_background_result \
    currtid currtid2 http http_get http_post http_put http_patch http_delete http_head oracle_execute oracle_diag add_job \
    run_job alter_job delete_job";

const SIGNALS: &str = "pg_cancel_backend pg_terminate_backend pg_log_backend_memory_contexts pg_reload_conf \
    pg_rotate_logfile pg_rotate_logfile_old pg_promote pg_get_process_memory_contexts";

const WATCHES: &str = "pg_stat_get_activity pg_stat_get_backend_activity pg_stat_get_backend_activity_start \
    pg_stat_get_backend_client_addr pg_stat_get_backend_client_port pg_stat_get_backend_dbid \
    pg_stat_get_backend_idset pg_stat_get_backend_pid pg_stat_get_backend_start pg_stat_get_backend_userid \
    pg_stat_get_backend_wait_event pg_stat_get_backend_wait_event_type pg_stat_get_backend_xact_start \
    pg_stat_get_backend_subxact pg_stat_get_backend_io pg_stat_get_backend_wal pg_stat_get_progress_info \
    pg_stat_get_live_tuples pg_stat_get_dead_tuples pg_stat_get_numscans pg_stat_get_tuples_inserted \
    pg_stat_get_tuples_updated pg_stat_get_tuples_deleted pg_stat_get_tuples_returned pg_stat_get_tuples_fetched \
    pg_lock_status pg_prepared_xact pg_prepared_statement pg_blocking_pids pg_safe_snapshot_blocking_pids \
    pg_isolation_test_session_is_blocked pg_stat_statements pg_stat_statements_info pg_stat_statements_reset \
    pg_get_multixact_members pg_notification_queue_usage pg_get_shmem_allocations pg_get_shmem_allocations_numa \
    pg_get_backend_memory_contexts pg_get_wait_events pg_get_aios pgrowlocks pg_last_committed_xact \
    pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_buffercache_pages pg_buffercache_summary \
    pg_get_replication_slots pg_show_replication_origin_status pg_stat_get_wal_senders pg_stat_get_wal_receiver \
    pg_get_multixact_stats pg_get_loaded_modules";

const FILES: &str = "pg_read_file pg_read_file_old pg_read_binary_file pg_stat_file pg_ls_dir pg_ls_logdir pg_ls_waldir \
    pg_ls_tmpdir pg_ls_archive_statusdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir pg_ls_summariesdir \
    pg_current_logfile pg_hba_file_rules pg_ident_file_mappings pg_show_all_file_settings pg_config \
    pg_file_write pg_file_read pg_file_rename pg_file_unlink pg_file_sync pg_file_length pg_logdir_ls \
    file_fdw_handler load_file";

const LARGE_OBJECTS: &str = "lo_close lo_creat lo_create lo_export lo_from_bytea lo_get lo_import lo_lseek lo_lseek64 \
    lo_open lo_put lo_tell lo_tell64 lo_truncate lo_truncate64 lo_unlink lo_manage lo_oid loread lowrite";

const SERVER: &str = "pg_logical_emit_message pg_export_snapshot pg_switch_wal pg_switch_xlog pg_backup_start \
    pg_backup_stop pg_start_backup pg_stop_backup pg_create_restore_point pg_wal_replay_pause pg_wal_replay_resume \
    pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_get_wal_summarizer_state \
    pg_available_wal_summaries pg_wal_summary_contents pg_create_logical_replication_slot \
    pg_create_physical_replication_slot pg_copy_logical_replication_slot pg_copy_physical_replication_slot \
    pg_drop_replication_slot pg_replication_slot_advance pg_sync_replication_slots pg_logical_slot_get_changes \
    pg_logical_slot_get_binary_changes pg_logical_slot_peek_changes pg_logical_slot_peek_binary_changes \
    pg_replication_origin_advance pg_replication_origin_create pg_replication_origin_drop \
    pg_replication_origin_oid pg_replication_origin_progress pg_replication_origin_session_is_setup \
    pg_replication_origin_session_progress pg_replication_origin_session_reset \
    pg_replication_origin_session_setup pg_replication_origin_xact_reset pg_replication_origin_xact_setup \
    pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system pg_nextoid \
    pg_stop_making_pinned_objects pg_import_system_collations pg_extension_config_dump pg_stat_reset \
    pg_stat_reset_shared pg_stat_reset_slru pg_stat_reset_replication_slot pg_stat_reset_backend_stats \
    pg_stat_reset_single_function_counters pg_stat_reset_single_table_counters pg_stat_reset_subscription_stats \
    pg_stat_force_next_flush pg_stat_clear_snapshot pg_stat_have_stats pg_stat_get_recovery_prefetch \
    pg_stat_get_xact_blocks_fetched pg_stat_get_xact_blocks_hit pg_stat_get_xact_function_calls \
    pg_stat_get_xact_function_self_time pg_stat_get_xact_function_total_time pg_stat_get_xact_numscans \
    pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_fetched pg_stat_get_xact_tuples_hot_updated \
    pg_stat_get_xact_tuples_newpage_updated pg_stat_get_xact_tuples_inserted pg_stat_get_xact_tuples_returned \
    pg_stat_get_xact_tuples_updated pg_restore_relation_stats pg_clear_relation_stats pg_restore_attribute_stats \
    pg_clear_attribute_stats pg_set_relation_stats pg_set_attribute_stats pg_split_walfile_name \
    brin_desummarize_range brin_summarize_new_values brin_summarize_range gin_clean_pending_list \
    pg_prewarm autoprewarm_start_worker autoprewarm_dump_now pg_truncate_visibility_map \
    heap_force_kill heap_force_freeze unique_key_recheck suppress_redundant_updates_trigger \
    tsvector_update_trigger tsvector_update_trigger_column amvalidate plpgsql_call_handler plpgsql_inline_handler \
    plpgsql_validator dsnowball_init dsnowball_lexize binary_upgrade_create_empty_extension \
    binary_upgrade_set_missing_value binary_upgrade_set_record_init_privs setval_oid \
    pg_log_standby_snapshot pg_numa_available";

/// Volatile functions of pg_catalog that are for everybody, and everything for everybody whose name begins with `pg_`.
const PLAIN: &str = "array_sample array_shuffle timezone clock_timestamp current_query gen_random_uuid uuidv4 uuidv7 random random_normal timeofday \
    txid_status txid_current bernoulli system brinhandler bthandler ginhandler gisthandler hashhandler spghandler \
    heap_tableam_handler \
    pg_sleep pg_sleep_for pg_sleep_until pg_backend_pid pg_is_in_recovery pg_is_wal_replay_paused pg_jit_available \
    pg_collation_actual_version pg_database_collation_actual_version pg_database_size pg_relation_size \
    pg_total_relation_size pg_table_size pg_indexes_size pg_tablespace_size pg_partition_ancestors pg_partition_tree \
    pg_partition_root pg_get_sequence_data pg_current_wal_lsn pg_current_wal_insert_lsn \
    pg_current_wal_flush_lsn pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp \
    pg_xact_status pg_available_extension_versions pg_available_extensions pg_char_to_encoding pg_client_encoding \
    pg_collation_for pg_collation_is_visible pg_column_compression pg_column_is_updatable pg_column_size \
    pg_column_toast_chunk_id pg_conf_load_time pg_conversion_is_visible pg_current_snapshot pg_current_xact_id \
    pg_current_xact_id_if_assigned pg_cursor pg_dependencies pg_describe_object pg_encoding_max_length \
    pg_encoding_to_char pg_extension_update_paths pg_filenode_relation pg_function_is_visible \
    pg_get_catalog_foreign_keys pg_get_constraintdef pg_get_expr pg_get_function_arg_default \
    pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result pg_get_function_sqlbody \
    pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_object_address pg_get_partition_constraintdef \
    pg_get_partkeydef pg_get_publication_tables pg_get_replica_identity_index pg_get_ruledef \
    pg_get_serial_sequence pg_get_statisticsobjdef pg_get_statisticsobjdef_columns \
    pg_get_statisticsobjdef_expressions pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_get_acl \
    pg_has_role pg_identify_object pg_identify_object_as_address \
    pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_indexam_progress_phasename \
    pg_input_is_valid pg_input_error_info pg_is_other_temp_schema pg_listening_channels pg_lsn \
    pg_mcv_list_items pg_my_temp_schema pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible \
    pg_options_to_table pg_postmaster_start_time pg_relation_filenode pg_relation_filepath \
    pg_relation_is_publishable pg_relation_is_updatable pg_sequence_parameters pg_settings_get_flags \
    pg_show_all_settings pg_size_bytes pg_size_pretty pg_snapshot_xip pg_snapshot_xmax pg_snapshot_xmin \
    pg_statistics_obj_is_visible pg_table_is_visible pg_tablespace_databases pg_tablespace_location \
    pg_timezone_abbrevs pg_timezone_abbrevs_abbrevs pg_timezone_abbrevs_zone pg_timezone_names pg_trigger_depth \
    pg_ts_config_is_visible pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible \
    pg_type_is_visible pg_typeof pg_basetype pg_visible_in_snapshot pg_wal_lsn_diff pg_walfile_name \
    pg_walfile_name_offset pg_lsn_cmp pg_lsn_larger pg_lsn_smaller pg_lsn_mi pg_lsn_hash pg_is_in_backup \
    pg_backup_start_time";

/// Beginnings of names that make a refusal of every function so named.
const PREFIXES: [(&str, Why); 12] = [
    ("dblink", Why::RunsText),
    ("lo_", Why::LargeObjects),
    ("pg_stat_", Why::Watches),
    ("pg_ls_", Why::Files),
    ("pg_read_", Why::Files),
    ("pg_replication_", Why::Server),
    ("pg_logical_", Why::Server),
    ("pldbg_", Why::Watches),
    ("pg_buffercache", Why::Watches),
    ("binary_upgrade_", Why::Server),
    ("RI_FKey_", Why::Server),
    ("pg_background_", Why::RunsText),
];

/// Every function that the guard knows by name.
#[derive(Debug)]
pub(super) struct Functions(HashMap<&'static str, Function, ahash::RandomState>);

impl Functions {
    /// The lists above as one table.
    pub(super) fn new() -> Self {
        let mut table = HashMap::default();
        let refused = [
            (RUNS_TEXT, Why::RunsText),
            (SIGNALS, Why::Signals),
            (WATCHES, Why::Watches),
            (FILES, Why::Files),
            (LARGE_OBJECTS, Why::LargeObjects),
            (SERVER, Why::Server),
        ];
        table.extend(PLAIN.split_whitespace().map(|name| (name, Function::Plain)));
        for (names, why) in refused {
            table.extend(names.split_whitespace().map(|name| (name, Function::Refused(why))));
        }
        table.extend([
            ("set_config", Function::SetConfig),
            ("setseed", Function::Seed),
            ("set_limit", Function::SimilarityLimit),
            ("nextval", Function::NextValue),
            ("setval", Function::SetValue),
            ("currval", Function::CurrentValue),
            ("lastval", Function::CurrentValue),
            ("pg_sequence_last_value", Function::SequenceState),
            ("pg_notify", Function::Notify),
            ("stage_copy", Function::Refused(Why::Proxy)),
            ("unstage_copy", Function::Refused(Why::Proxy)),
            ("ts_rewrite", Function::Rewrite),
            ("pg_advisory_unlock", Function::AdvisoryUnlock { all: false }),
            ("pg_advisory_unlock_shared", Function::AdvisoryUnlock { all: false }),
            ("pg_advisory_unlock_all", Function::AdvisoryUnlock { all: true }),
        ]);
        let lock = |session| move |name| (name, Function::AdvisoryLock { session });
        table.extend(SESSION_LOCKS.into_iter().map(lock(true)));
        table.extend(TRANSACTION_LOCKS.into_iter().map(lock(false)));
        Self(table)
    }

    /// What calling `name` means, where a schema may qualify it.
    pub(super) fn call(&self, schema: Option<&str>, name: &str) -> Function {
        if schema == Some(super::relations::OWN_SCHEMA) && !OWN_READABLE.contains(&name) {
            return Function::Refused(Why::Proxy);
        }
        if schema == Some(super::relations::LOCKS_SCHEMA)
            && !matches!(self.0.get(name), Some(lock) if lock.is_private())
        {
            return Function::Refused(Why::Proxy);
        }
        if schema.is_some_and(|schema| RUNNING_SCHEMAS.contains(&schema)) {
            return Function::Refused(Why::RunsText);
        }
        let known = self.named(name);
        let own = matches!(schema, None | Some("pg_catalog"));
        match known {
            Some(function) => function,
            None if own && name.starts_with("pg_") => Function::Refused(Why::Server),
            None => Function::Plain,
        }
    }

    /// What `value.name` or `(value).name` means, should it be a call: PostgreSQL looks for a function of one argument
    /// where it finds no column. A column may be named like no function that the lists know.
    pub(super) fn column(&self, name: &str) -> Function {
        self.named(name).unwrap_or(Function::Plain)
    }

    /// Whether a list names it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    fn named(&self, name: &str) -> Option<Function> {
        if let Some(function) = self.0.get(name) {
            return Some(*function);
        }
        let by_prefix = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
        by_prefix.map(|(_, why)| Function::Refused(*why))
    }
}

/// Schemas of extensions whose functions run texts later, elsewhere, or on other servers.
pub(super) const RUNNING_SCHEMAS: [&str; 7] =
    ["cron", "net", "aws_s3", "aws_lambda", "aws_commons", "timescaledb_experimental", "partman"];

/// Functions of the proxy's schema that tell a session who it is.
const OWN_READABLE: [&str; 8] =
    ["org", "current_org", "current_org_id", "user_id", "roles", "permissions", "project", "whoami"];

const SESSION_LOCKS: [&str; 4] =
    ["pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"];

const TRANSACTION_LOCKS: [&str; 4] = [
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
];
