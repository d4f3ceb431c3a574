//! Views of statistics name objects, which tools ask for, and count everybody's work, which is not for tenants of shared
//! tables: a query of one may use its names and nothing else of it.

use pg_raw_parse::Node;
use pg_raw_parse::nodes::ColumnRef;

use super::no::{Answer, No};
use super::relations::Relation;
use super::tree;
use super::walk::{Walk, names};

/// The columns of those views that name objects. Every other one of PostgreSQL 13 to 18 stands in [`COUNTED`]; a test
/// compares both with live servers.
const NAMED: [&str; 22] = [
    "relid",
    "schemaname",
    "relname",
    "indexrelid",
    "indexrelname",
    "datid",
    "datname",
    "funcid",
    "funcname",
    "name",
    "backend_type",
    "object",
    "context",
    // What a sequence was made with; pg_sequences has its state beside it.
    "sequencename",
    "sequenceowner",
    "data_type",
    "start_value",
    "min_value",
    "max_value",
    "increment_by",
    "cycle",
    "cache_size",
];

const COUNTED: &str = "active_time analyze_count archived_count autoanalyze_count autovacuum_count blk_read_time \
    blk_write_time blks_exists blks_hit blks_read blks_written blks_zeroed buffers_alloc buffers_backend \
    buffers_backend_fsync buffers_checkpoint buffers_clean buffers_written calls checkpoint_sync_time \
    checkpoint_write_time checkpoints_req checkpoints_timed checksum_failures checksum_last_failure conflicts \
    confl_active_logicalslot confl_bufferpin confl_deadlock confl_lock confl_snapshot confl_tablespace deadlocks \
    evictions extend_bytes extend_time extends failed_count flushes fsync_time fsyncs heap_blks_hit heap_blks_read hits \
    idle_in_transaction_time idx_blks_hit idx_blks_read idx_scan idx_tup_fetch idx_tup_read last_analyze \
    last_archived_time last_archived_wal last_autoanalyze last_autovacuum last_failed_time last_failed_wal \
    last_idx_scan last_seq_scan last_vacuum last_value maxwritten_clean n_dead_tup n_ins_since_vacuum n_live_tup \
    n_mod_since_analyze n_tup_del n_tup_hot_upd n_tup_ins n_tup_newpage_upd n_tup_upd num_done num_requested num_timed \
    numbackends op_bytes parallel_workers_launched parallel_workers_to_launch read_bytes read_time reads \
    restartpoints_done restartpoints_req restartpoints_timed reuses self_time seq_scan seq_tup_read session_time \
    sessions sessions_abandoned sessions_fatal sessions_killed slru_written stats_reset sync_time temp_bytes temp_files \
    tidx_blks_hit tidx_blks_read toast_blks_hit toast_blks_read total_analyze_time total_autoanalyze_time \
    total_autovacuum_time total_time total_vacuum_time truncates tup_deleted tup_fetched tup_inserted tup_returned \
    tup_updated vacuum_count wal_buffers_full wal_bytes wal_fpi wal_records wal_sync wal_sync_time wal_write \
    wal_write_time write_bytes write_time writeback_time writebacks writes xact_commit xact_rollback";

fn counts(name: &str) -> bool {
    COUNTED.split_whitespace().any(|column| column == name)
}

/// Whether this module knows a column of such a view.
pub(super) fn knows(column: &str) -> bool {
    NAMED.contains(&column) || counts(column)
}

pub(super) fn refused() -> No {
    No::forbidden("statistics of tables shared with others are refused: they count the work of everybody")
        .hint("Name the columns that hold names (schemaname, relname, …), without *; ask the operator for counts.")
}

impl<'a> Walk<'_, 'a> {
    /// Judges a tree that reads such a view: a second walk, since what a name means is known only after the first.
    pub(super) fn names_alone(&self, root: Node<'a>) -> Answer {
        let (mut stack, mut columns, mut views) = (vec![root], Vec::new(), Vec::new());
        while let Some(node) = stack.pop() {
            match node {
                Node::RangeVar(relation) => {
                    let (schema, name) = names(relation);
                    if self.rules.relations.read(schema, name) == Relation::Counters {
                        views.push(name);
                        if let Some(alias) = relation.alias() {
                            views.push(alias.aliasname().unwrap_or_default());
                            if !alias.colnames().is_empty() {
                                return Err(refused().at(relation.location));
                            }
                        }
                    }
                }
                Node::ColumnRef(column) => columns.push(column),
                Node::FuncCall(call) => {
                    let name = call.funcname().iter().next_back().and_then(Node::as_str);
                    if name.is_some_and(counts) {
                        return Err(refused().at(call.location));
                    }
                }
                Node::A_Indirection(inner) => {
                    let mut fields = inner.indirection().iter();
                    if fields.any(|field| matches!(field, Node::A_Star(_)) || field.as_str().is_some_and(counts)) {
                        return Err(refused());
                    }
                }
                Node::JoinExpr(join) => {
                    let mut shared = join.using_clause().iter().filter_map(|column| column.sval());
                    if join.is_natural || join.alias().is_some() || shared.any(counts) {
                        return Err(refused());
                    }
                }
                _ => {}
            }
            push_with(node, &mut stack);
            tree::children(node, &mut stack).map_err(|tree::Unknown| {
                No::unsupported("the statement holds a construct that the guard does not know")
            })?;
        }
        if columns.iter().any(|column| is_counted(column, &views)) { Err(refused()) } else { Ok(()) }
    }
}

/// Whether a column is a counter by its name, or a whole row that may hold some.
fn is_counted(column: &ColumnRef, views: &[&str]) -> bool {
    let fields = column.fields();
    let whole = fields.len() == 1;
    fields.iter().any(|field| match field.as_str() {
        Some(name) => counts(name) || whole && views.contains(&name),
        None => true,
    }) || fields.iter().next_back().and_then(Node::as_str).is_some_and(|last| views.contains(&last))
}

fn push_with<'a>(node: Node<'a>, stack: &mut Vec<Node<'a>>) {
    let with = match node {
        Node::SelectStmt(select) => select.with_clause(),
        Node::InsertStmt(insert) => insert.with_clause(),
        Node::UpdateStmt(update) => update.with_clause(),
        Node::DeleteStmt(delete) => delete.with_clause(),
        Node::MergeStmt(merge) => merge.with_clause(),
        _ => None,
    };
    if let Some(with) = with {
        tree::Push::put(stack, Some(with));
    }
}
