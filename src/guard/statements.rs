//! Which kinds of statement may pass at all, and what each needs: an allow-list. What is not here is refused.

use pg_raw_parse::nodes::{
    CopyStmt, DeclareCursorStmt, DefElem, ExplainStmt, LockStmt, PrepareStmt, RawStmt, SelectStmt,
};
use pg_raw_parse::raw::CURSOR_OPT_HOLD;
use pg_raw_parse::{ConstValue, Node};

use super::no::{Answer, No};
use super::verdict::{Change, Taints};
use super::walk::{Constant, Walk, names};
use crate::event::StatementClass as Class;
use crate::refusal::Kind;

/// The strongest mode of LOCK TABLE for those who may write: ROW EXCLUSIVE, as DML takes it (lockdefs.h).
const LOCK_WRITER_MAX: i32 = 3;
/// The strongest for those who may read: ACCESS SHARE, as SELECT takes it.
const LOCK_READER_MAX: i32 = 1;

impl<'a> Walk<'_, 'a> {
    /// Judges one statement of a text and closes it.
    pub fn statement(&mut self, statement: &'a RawStmt, text_bytes: usize) -> Answer {
        let class = self.judge(statement.stmt())?;
        let start = usize::try_from(statement.stmt_location).unwrap_or(0).min(text_bytes);
        // A length of zero means: to the text's end.
        let end = match usize::try_from(statement.stmt_len) {
            Ok(bytes) if bytes > 0 => start.saturating_add(bytes).min(text_bytes),
            _ => text_bytes,
        };
        self.facts.statement(class, start..end);
        Ok(())
    }

    fn judge(&mut self, node: Node<'a>) -> Answer<Class> {
        match node {
            Node::SelectStmt(select) => {
                self.accept_set_config(select)?;
                self.rows(node)
            }
            Node::InsertStmt(_) | Node::UpdateStmt(_) | Node::DeleteStmt(_) | Node::MergeStmt(_) => self.rows(node),
            other => {
                // Of these the guard reads values in many places.
                self.facts.weighed_values = true;
                self.other_statement(other)
            }
        }
    }

    fn other_statement(&mut self, node: Node<'a>) -> Answer<Class> {
        match node {
            Node::ExplainStmt(explain) => self.explain(explain),
            Node::CopyStmt(copy) => self.copy(copy),
            Node::PrepareStmt(prepare) => self.prepare(prepare),
            Node::ExecuteStmt(execute) => {
                self.run_all(execute.params())?;
                self.change(Change::Execute(execute.name().unwrap_or_default().into()));
                Ok(Class::Utility)
            }
            Node::DeallocateStmt(deallocate) => {
                self.change(Change::Deallocate(deallocate.name().map(Into::into)));
                Ok(Class::Session)
            }
            Node::DeclareCursorStmt(declare) => self.declare(declare),
            Node::FetchStmt(fetch) => {
                self.facts.cursors.note(fetch.portalname().unwrap_or_default());
                Ok(Class::Read)
            }
            Node::ClosePortalStmt(close) => {
                self.change(Change::CloseCursor(close.portalname().map(Into::into)));
                Ok(Class::Utility)
            }
            Node::LockStmt(lock) => self.lock(lock),
            Node::CallStmt(call) => match call.funccall() {
                Some(function) => {
                    if self.rights.is_read_only() {
                        return Err(No::new(Kind::ReadOnly, "this session may only read, so it may not CALL"));
                    }
                    self.run(Node::FuncCall(function))?;
                    Ok(Class::Write)
                }
                None => Err(No::unsupported("CALL without a procedure")),
            },
            other => match self.session_statement(other) {
                Some(answer) => answer,
                None => self.definition(other),
            },
        }
    }

    /// Walks a statement that reads or writes rows.
    fn rows(&mut self, node: Node<'a>) -> Answer<Class> {
        self.run(node)?;
        Ok(self.facts.class())
    }

    pub(super) fn change(&mut self, change: Change) {
        self.facts.changes.push(change);
    }

    /// `SELECT set_config('name', value, local)` is SET by another name: accepted where nothing decides whether, how
    /// often or in which order it runs.
    fn accept_set_config(&mut self, select: &'a SelectStmt) -> Answer {
        if !is_bare(select) {
            return Ok(());
        }
        let from_settings = match select.from_clause().iter().next() {
            None if matches!(select.where_clause(), Node::None) => None,
            None => return Ok(()),
            Some(relation) => match self.settings_name(relation, select) {
                Some(name) => Some(name),
                None => return Ok(()),
            },
        };
        for target in select.target_list() {
            if let Node::FuncCall(call) = target.val()
                && call.funcname().iter().next_back().and_then(Node::as_str) == Some("set_config")
            {
                self.set_config(call, from_settings)?;
            }
        }
        Ok(())
    }

    /// The form that pg_dump sends: `FROM pg_settings WHERE name = 'constant'`; answers the constant.
    fn settings_name(&mut self, relation: Node<'a>, select: &'a SelectStmt) -> Option<&'a str> {
        let Node::RangeVar(relation) = relation else { return None };
        let is_settings = matches!(names(relation), (None | Some("pg_catalog"), "pg_settings"));
        if !is_settings || select.from_clause().len() != 1 {
            return None;
        }
        let Node::A_Expr(compare) = select.where_clause() else { return None };
        let is_equal = compare.kind == pg_raw_parse::raw::A_Expr_Kind::AEXPR_OP
            && compare.name().len() == 1
            && compare.name().iter().next().and_then(Node::as_str) == Some("=");
        let Node::ColumnRef(column) = compare.lexpr() else { return None };
        let is_name =
            column.fields().len() == 1 && column.fields().iter().next().and_then(Node::as_str) == Some("name");
        match (is_equal && is_name, self.constant(compare.rexpr())) {
            (true, Constant::Text(name)) => Some(name),
            _ => None,
        }
    }

    fn explain(&mut self, explain: &'a ExplainStmt) -> Answer<Class> {
        let analyzes = explain.options().iter().any(|option| option.defname() == Some("analyze") && !is_off(option));
        if analyzes && self.rights.shares_tables() {
            return Err(No::forbidden("EXPLAIN ANALYZE is refused where tables are shared: it counts rows of others")
                .hint("Use EXPLAIN without ANALYZE."));
        }
        match explain.query() {
            query @ (Node::SelectStmt(_)
            | Node::InsertStmt(_)
            | Node::UpdateStmt(_)
            | Node::DeleteStmt(_)
            | Node::MergeStmt(_)) => {
                let class = self.rows(query)?;
                Ok(if analyzes { class } else { Class::Read })
            }
            query @ Node::ExecuteStmt(_) => {
                self.judge(query)?;
                Ok(Class::Read)
            }
            Node::DeclareCursorStmt(declare) => self.rows(declare.query()),
            _ => Err(No::unsupported("EXPLAIN is for SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES and EXECUTE")),
        }
    }

    fn copy(&mut self, copy: &'a CopyStmt) -> Answer<Class> {
        if copy.is_program || copy.filename().is_some() {
            return Err(No::forbidden("COPY to and from the server's files and programs is refused")
                .hint("Use COPY … TO STDOUT or FROM STDIN; in psql, \\copy."));
        }
        self.run_all(copy.options().iter().map(Node::DefElem))?;
        self.run(copy.where_clause())?;
        if copy.is_from {
            self.write(copy.relation(), false)?;
            self.facts.grows_data = true;
            self.change(Change::CopyIn);
            return Ok(Class::Copy);
        }
        match (copy.relation(), copy.query()) {
            (Some(relation), _) => {
                let (schema, name) = names(relation);
                self.read(schema, name).map_err(|no| no.at(relation.location))?;
                if self.facts.reads_counters {
                    return Err(super::counters::refused().at(relation.location));
                }
            }
            (None, query) => self.query(query)?,
        }
        self.change(Change::CopyOut);
        Ok(Class::Copy)
    }

    /// Walks a query inside another statement.
    fn query(&mut self, query: Node<'a>) -> Answer {
        match query {
            Node::SelectStmt(_)
            | Node::InsertStmt(_)
            | Node::UpdateStmt(_)
            | Node::DeleteStmt(_)
            | Node::MergeStmt(_) => self.run(query),
            _ => Err(No::unsupported("only SELECT, INSERT, UPDATE, DELETE, MERGE and VALUES may stand there")),
        }
    }

    fn prepare(&mut self, prepare: &'a PrepareStmt) -> Answer<Class> {
        let grew = std::mem::take(&mut self.facts.grows_data);
        self.run_all(prepare.argtypes().iter().map(Node::TypeName))?;
        self.query(prepare.query())?;
        let (name, class) = (prepare.name().unwrap_or_default().into(), self.facts.class());
        self.facts.taint(Taints::PREPARED);
        self.change(Change::Prepare { name, class, grows_data: self.facts.grows_data });
        self.facts.grows_data = grew;
        Ok(Class::Session)
    }

    fn declare(&mut self, declare: &'a DeclareCursorStmt) -> Answer<Class> {
        self.query(declare.query())?;
        let hold = u32::try_from(declare.options).is_ok_and(|options| options & CURSOR_OPT_HOLD != 0);
        if hold {
            self.facts.taint(Taints::CURSOR);
        }
        let name = declare.portalname().unwrap_or_default();
        self.facts.cursors.note(name);
        self.change(Change::DeclareCursor { name: name.into(), hold });
        Ok(self.facts.class())
    }

    fn lock(&mut self, lock: &'a LockStmt) -> Answer<Class> {
        let most = if self.rights.is_read_only() { LOCK_READER_MAX } else { LOCK_WRITER_MAX };
        if lock.mode > most {
            return Err(No::forbidden("LOCK TABLE in this mode is refused: it would stop other sessions")
                .hint("Lock rows of your own with SELECT … FOR UPDATE; ACCESS SHARE mode is allowed."));
        }
        self.run_all(lock.relations())?;
        Ok(Class::Utility)
    }

    /// Walks a query for a definition, which may be an EXECUTE.
    pub(super) fn defining_query(&mut self, query: Node<'a>) -> Answer {
        match query {
            Node::ExecuteStmt(_) => self.judge(query).map(|_| ()),
            other => self.query(other),
        }
    }
}

/// Whether a SELECT is nothing but a list of targets, and perhaps FROM and WHERE.
fn is_bare(select: &SelectStmt) -> bool {
    select.op == pg_raw_parse::raw::SetOperation::SETOP_NONE
        && select.with_clause().is_none()
        && select.into_clause().is_none()
        && select.distinct_clause().is_empty()
        && select.group_clause().is_empty()
        && matches!(select.having_clause(), Node::None)
        && select.window_clause().is_empty()
        && select.values_lists().is_empty()
        && select.sort_clause().is_empty()
        && matches!(select.limit_offset(), Node::None)
        && matches!(select.limit_count(), Node::None)
        && select.locking_clause().is_empty()
}

/// Whether an option of EXPLAIN says "off" (define.c, `defGetBoolean`); without a value it says "on".
pub(super) fn is_off(option: &DefElem) -> bool {
    match option.arg() {
        Node::Integer(value) => value.ival == 0,
        Node::Boolean(value) => !value.boolval,
        Node::String(value) => value.sval().is_some_and(|text| ["off", "false"].contains(&&*text.to_ascii_lowercase())),
        Node::A_Const(value) => matches!(value.val(), Some(ConstValue::Integer(0))),
        _ => false,
    }
}
