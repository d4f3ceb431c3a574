//! The walk over a statement's tree, on a stack of its own: names relations, judges calls, refuses what it does not know.

use std::collections::HashSet;
use std::ptr;

use pg_raw_parse::nodes::{ColumnRef, FuncCall, RangeVar, TypeName, WithClause};
use pg_raw_parse::{ConstValue, Node};

use super::Rules;
use super::definitions::TEMPORARY;
use super::facts::Facts;
use super::no::{Answer, No};
use super::relations::Relation;
use super::rights::{Relations, Rights};
use super::tree;
use super::verdict::{Change, Taints};
use crate::refusal::Kind;

/// The most nodes in one text; PostgreSQL needs far more work for each than the guard does.
const NODES_MAX: usize = 2_000_000;
/// The most WITH queries in one text: each name read is looked up among those in scope.
const WITH_QUERIES_MAX: usize = 500;

/// The names of WITH queries in scope: a chain towards the outer ones. PostgreSQL resolves an unqualified name to one
/// of them before it looks for a table, so a name in scope is no relation.
#[derive(Clone, Copy)]
struct Scope<'a> {
    name: &'a str,
    outer: Option<usize>,
}

/// One walk over one text.
pub(super) struct Walk<'r, 'a> {
    pub rules: &'r Rules,
    pub rights: &'r Rights,
    pub facts: &'r mut Facts,
    stack: Vec<(Node<'a>, Option<usize>)>,
    fresh: Vec<Node<'a>>,
    scopes: Vec<Scope<'a>>,
    nodes: usize,
    /// Calls of `set_config` that the statement's judge has already accepted.
    pub accepted: HashSet<*const FuncCall, ahash::RandomState>,
}

impl<'r, 'a> Walk<'r, 'a> {
    pub fn new(rules: &'r Rules, rights: &'r Rights, facts: &'r mut Facts) -> Self {
        let (stack, fresh) = (Vec::with_capacity(32), Vec::with_capacity(16));
        Self { rules, rights, facts, stack, fresh, scopes: Vec::new(), nodes: 0, accepted: HashSet::default() }
    }

    /// Judges a tree and everything below it.
    pub fn run(&mut self, root: Node<'a>) -> Answer {
        tree::Push::put(&mut self.fresh, root);
        self.take_fresh(None)?;
        self.facts.reads_counters = false;
        while let Some((node, outer)) = self.stack.pop() {
            let scope = self.visit(node, outer)?;
            tree::children(node, &mut self.fresh).map_err(|tree::Unknown| {
                No::unsupported("the statement holds a construct that the guard does not know")
            })?;
            self.take_fresh(scope)?;
        }
        if self.facts.reads_counters {
            self.names_alone(root)?;
        }
        Ok(())
    }

    /// Judges each of a list.
    pub fn run_all(&mut self, roots: impl IntoIterator<Item = Node<'a>>) -> Answer {
        roots.into_iter().try_for_each(|root| self.run(root))
    }

    fn take_fresh(&mut self, scope: Option<usize>) -> Answer {
        self.nodes += self.fresh.len();
        if self.nodes > NODES_MAX {
            let message = format!("the statement has more than the {NODES_MAX} parts that the guard reads");
            return Err(No::new(Kind::StatementTooLarge, message).hint("Send it in several statements."));
        }
        self.stack.extend(self.fresh.drain(..).map(|node| (node, scope)));
        Ok(())
    }

    /// Judges one node; answers the scope of its children.
    fn visit(&mut self, node: Node<'a>, scope: Option<usize>) -> Answer<Option<usize>> {
        match node {
            Node::RangeVar(relation) => self.relation(relation, scope)?,
            Node::FuncCall(call) => self.call(call)?,
            Node::ColumnRef(column) => self.column(column)?,
            Node::A_Indirection(inner) => {
                for field in inner.indirection().iter().filter_map(Node::as_str) {
                    self.field(field, -1)?;
                }
            }
            Node::TypeName(name) => self.type_name(name)?,
            Node::LockingClause(_) if self.rights.is_read_only() => {
                return Err(No::new(Kind::ReadOnly, "this session may only read, so it may not lock rows")
                    .hint("Leave FOR UPDATE or FOR SHARE out."));
            }
            // A row lock is written into its row.
            Node::LockingClause(_) => self.facts.wrote = true,
            Node::SelectStmt(select) => {
                if let Some(into) = select.into_clause() {
                    self.create_table(into.rel())?;
                }
                return self.with(select.with_clause(), scope);
            }
            Node::InsertStmt(insert) => {
                let reads = insert.returning_clause().is_some() || insert.on_conflict_clause().is_some();
                self.write(insert.relation(), reads)?;
                self.facts.grows_data = true;
                return self.with(insert.with_clause(), scope);
            }
            Node::UpdateStmt(update) => {
                self.write(update.relation(), true)?;
                self.facts.grows_data = true;
                return self.with(update.with_clause(), scope);
            }
            Node::DeleteStmt(delete) => {
                self.write(delete.relation(), true)?;
                return self.with(delete.with_clause(), scope);
            }
            Node::MergeStmt(merge) => {
                self.write(merge.relation(), true)?;
                self.facts.grows_data = true;
                return self.with(merge.with_clause(), scope);
            }
            _ => {}
        }
        Ok(scope)
    }

    /// Puts the queries of a WITH clause on the stack; answers the scope that sees all of them. Without RECURSIVE, each
    /// sees only those before it, and its own name still means a table there.
    fn with(&mut self, with: Option<&'a WithClause>, outer: Option<usize>) -> Answer<Option<usize>> {
        let Some(with) = with else { return Ok(outer) };
        if self.scopes.len() + with.ctes().len() > WITH_QUERIES_MAX {
            let message = format!("the statement has more than {WITH_QUERIES_MAX} WITH queries");
            return Err(No::new(Kind::StatementTooLarge, message).hint("Use subqueries or views."));
        }
        let mut scope = outer;
        for query in with.ctes() {
            if !with.recursive {
                self.stack.push((Node::CommonTableExpr(query), scope));
            }
            self.scopes.push(Scope { name: query.ctename().unwrap_or_default(), outer: scope });
            scope = Some(self.scopes.len() - 1);
        }
        if with.recursive {
            let queries = with.ctes().iter().map(|query| (Node::CommonTableExpr(query), scope));
            self.stack.extend(queries);
        }
        Ok(scope)
    }

    fn is_with_query(&self, name: &str, mut scope: Option<usize>) -> bool {
        while let Some(known) = scope.and_then(|index| self.scopes.get(index)) {
            if known.name == name {
                return true;
            }
            scope = known.outer;
        }
        false
    }

    fn relation(&mut self, relation: &RangeVar, scope: Option<usize>) -> Answer {
        let (schema, name) = names(relation);
        if schema.is_none() && self.is_with_query(name, scope) {
            return Ok(());
        }
        self.read(schema, name).map_err(|no| no.at(relation.location))
    }

    /// Judges the reading of a relation.
    pub fn read(&mut self, schema: Option<&str>, name: &str) -> Answer {
        let may = match self.rules.relations.read(schema, name) {
            Relation::Ordinary => self.rights.read().contains(schema, name),
            Relation::Catalog => true,
            Relation::Counters => {
                self.facts.reads_counters |= self.rights.shares_tables();
                true
            }
            Relation::Statistics if self.rights.shares_database() => {
                // Row security does not hide them: every organization's temporary tables belong to the one role of all.
                let message = format!("relation \"{name}\" is refused: it shows values of others' temporary tables");
                return Err(No::forbidden(message).hint("Ask the operator, who sees it from outside."));
            }
            Relation::Statistics => *self.rights.read() == Relations::All,
            Relation::Refused => {
                let message =
                    format!("relation \"{name}\" is refused: it shows other sessions, or belongs to the system");
                return Err(No::forbidden(message).hint("Ask the operator, who sees it from outside."));
            }
        };
        if !may {
            return Err(No::forbidden(format!("this session may not read \"{name}\""))
                .hint("The token's roles and permissions decide; ask for the right to read it."));
        }
        self.facts.read(schema, name);
        Ok(())
    }

    /// Judges the writing of a statement's target, which is read too where `reads` says so.
    pub fn write(&mut self, relation: Option<&RangeVar>, reads: bool) -> Answer {
        let Some(relation) = relation else { return Err(No::unsupported("a statement without a target")) };
        let (schema, name) = names(relation);
        self.may_write(schema, name).map_err(|no| no.at(relation.location))?;
        if reads {
            self.read(schema, name).map_err(|no| no.at(relation.location))?;
        }
        self.facts.write(schema, name);
        Ok(())
    }

    fn may_write(&self, schema: Option<&str>, name: &str) -> Answer {
        if self.rules.relations.is_system(schema, name) {
            return Err(No::forbidden(format!("relation \"{name}\" belongs to the system and may not be changed"))
                .hint("Settings are changed with SET."));
        }
        if self.rights.is_read_only() {
            return Err(No::new(Kind::ReadOnly, "this session may only read")
                .hint("The token's roles and permissions decide; ask for the right to write."));
        }
        if !self.rights.write().contains(schema, name) {
            return Err(No::forbidden(format!("this session may not write \"{name}\""))
                .hint("The token's roles and permissions decide; ask for the right to write it."));
        }
        Ok(())
    }

    /// Judges the making of a table, view or sequence: temporary for writers, lasting for those with `ddl`.
    pub fn create_table(&mut self, relation: Option<&RangeVar>) -> Answer {
        let Some(relation) = relation else { return Err(No::unsupported("a definition without a name")) };
        let (schema, name) = names(relation);
        let temporary = relation.relpersistence as u8 == b't' || schema == Some("pg_temp");
        self.facts.defined = true;
        if self.rules.relations.is_system(schema, name) {
            return Err(No::forbidden(format!("\"{name}\" is a name of the system's")).at(relation.location));
        }
        if !temporary {
            self.facts.grows_data = true;
            return self.define(schema, name).map_err(|no| no.at(relation.location));
        }
        if self.rights.is_read_only() {
            return Err(No::new(Kind::ReadOnly, "this session may only read, so it may not make temporary tables"));
        }
        self.facts.taint(Taints::TEMPORARY);
        self.facts.changes.push(Change::CreateTemp);
        Ok(())
    }

    /// Judges a change of definitions.
    pub fn define(&self, schema: Option<&str>, name: &str) -> Answer {
        if self.rights.shares_tables() {
            return Err(No::forbidden("definitions may not be changed where tables are shared with others")
                .hint(format!("Ask the operator to run the migration. {TEMPORARY}")));
        }
        if self.rules.relations.is_system(schema, name) {
            return Err(No::forbidden(format!("\"{name}\" belongs to the system and may not be changed")));
        }
        if !self.rights.ddl().contains(schema, name) {
            return Err(No::forbidden(format!("this session may not change the definition of \"{name}\""))
                .hint("The token's roles and permissions decide; ask for the right \"ddl\"."));
        }
        Ok(())
    }

    fn column(&mut self, column: &ColumnRef) -> Answer {
        let fields = column.fields();
        if fields.len() < 2 {
            return Ok(());
        }
        for field in fields.iter().skip(1).filter_map(Node::as_str) {
            self.field(field, column.location)?;
        }
        Ok(())
    }

    fn type_name(&self, name: &TypeName) -> Answer {
        let mut parts = name.names().iter().rev().filter_map(|part| part.sval());
        let (Some(_), Some(schema)) = (parts.next(), parts.next()) else { return Ok(()) };
        if schema.starts_with("pg_") && schema != "pg_catalog" {
            return Err(No::forbidden(format!("types of schema \"{schema}\" are refused")).at(name.location));
        }
        Ok(())
    }

    /// What a node is, taken as a constant: from here on the verdict may depend on it.
    pub fn constant<'n>(&mut self, node: Node<'n>) -> Constant<'n> {
        self.facts.weighed_values = true;
        constant(node)
    }

    /// Whether the statement's judge has accepted this very call.
    pub fn is_accepted(&self, call: &FuncCall) -> bool {
        !self.accepted.is_empty() && self.accepted.contains(&ptr::from_ref(call))
    }
}

/// A relation's schema, if the text names it, and its name.
pub(super) fn names(relation: &RangeVar) -> (Option<&str>, &str) {
    (relation.schemaname(), relation.relname().unwrap_or_default())
}

/// A constant's value as text, if it is one that the text shows; a cast to `text` changes nothing.
pub(super) enum Constant<'a> {
    Text(&'a str),
    Integer(i32),
    Boolean(bool),
    Null,
    Parameter(i32),
    Other,
}

/// What a node is, taken as a constant.
fn constant(node: Node<'_>) -> Constant<'_> {
    match node {
        Node::ParamRef(parameter) => Constant::Parameter(parameter.number),
        Node::A_Const(constant) => match constant.val() {
            None => Constant::Null,
            Some(ConstValue::String(text) | ConstValue::Float(text)) => Constant::Text(text),
            Some(ConstValue::Integer(number)) => Constant::Integer(number),
            Some(ConstValue::Boolean(value)) => Constant::Boolean(value),
            Some(_) => Constant::Other,
        },
        Node::TypeCast(cast) => cast_constant(cast.arg(), cast.type_name()),
        _ => Constant::Other,
    }
}

fn cast_constant<'a>(inner: Node<'a>, to: Option<&'a TypeName>) -> Constant<'a> {
    let Some(to) = to.filter(|to| to.typmods().is_empty() && to.array_bounds().is_empty()) else {
        return Constant::Other;
    };
    let mut parts = to.names().iter().filter_map(|part| part.sval());
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) | (Some("pg_catalog"), Some(name), None) => name,
        _ => return Constant::Other,
    };
    match (name, inner) {
        ("text" | "varchar", Node::ParamRef(parameter)) => Constant::Parameter(parameter.number),
        ("text" | "varchar" | "bool", Node::A_Const(value)) => match (name, value.val()) {
            ("bool", Some(ConstValue::String("t" | "true" | "on" | "1"))) => Constant::Boolean(true),
            ("bool", Some(ConstValue::String("f" | "false" | "off" | "0"))) => Constant::Boolean(false),
            ("text" | "varchar", Some(ConstValue::String(text))) => Constant::Text(text),
            (_, None) => Constant::Null,
            _ => Constant::Other,
        },
        _ => Constant::Other,
    }
}
