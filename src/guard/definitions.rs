//! Statements that change definitions: temporary tables for writers; the rest only where nothing is shared.

use pg_raw_parse::Node;
use pg_raw_parse::nodes::{AlterTableStmt, CreateStmt, DropStmt, RangeVar, VacuumRelation, VacuumStmt};
use pg_raw_parse::raw::{AlterTableType, ObjectType};

use super::no::{Answer, No};
use super::walk::{Walk, names};
use crate::event::StatementClass as Class;
use crate::refusal::Kind;

/// What to say of temporary tables, where a name may also mean a table that is shared.
pub(super) const TEMPORARY: &str = "A temporary table of your own is named with its schema: pg_temp.name.";

impl<'a> Walk<'_, 'a> {
    /// Judges a definition; everything that is not known is refused here.
    pub(super) fn definition(&mut self, node: Node<'a>) -> Answer<Class> {
        match node {
            Node::CreateTableAsStmt(create) => {
                let into = create.into();
                self.create_table(into.and_then(|into| into.rel()))?;
                self.run_all(into.map(Node::IntoClause))?;
                self.defining_query(create.query())?;
            }
            Node::CreateStmt(create) => self.create(create)?,
            Node::ViewStmt(view) => {
                self.create_table(view.view())?;
                self.run(node)?;
            }
            Node::CreateSeqStmt(create) => {
                self.create_table(create.sequence())?;
                self.run_all(create.options())?;
            }
            Node::IndexStmt(index) => {
                self.defined(index.relation())?;
                self.free_name(index.idxname())?;
                self.run(node)?;
            }
            Node::AlterTableStmt(alter) => self.alter_table(alter, node)?,
            Node::AlterSeqStmt(alter) => {
                self.defined(alter.sequence())?;
                self.run_all(alter.options())?;
            }
            Node::RenameStmt(rename) => {
                self.defined(rename.relation())?;
                self.free_name(rename.newname())?;
            }
            Node::DropStmt(drop) => self.drop_objects(drop)?,
            Node::TruncateStmt(truncate) => return self.truncate(truncate.relations()),
            Node::VacuumStmt(analyze) if !analyze.is_vacuumcmd => return self.analyze(analyze),
            Node::CreateSchemaStmt(create) if create.schema_elts().is_empty() && create.authrole().is_none() => {
                self.define(create.schemaname(), "*")?;
            }
            Node::CreateEnumStmt(create) => self.named(create.type_name().iter().map(|part| part.sval()))?,
            Node::AlterEnumStmt(alter) => self.named(alter.type_name().iter().map(|part| part.sval()))?,
            Node::CommentStmt(_) => self.define(None, "*")?,
            other => return Err(refused(other)),
        }
        Ok(Class::Ddl)
    }

    fn create(&mut self, create: &'a CreateStmt) -> Answer {
        self.create_table(create.relation())?;
        let temporary = create.relation().is_some_and(|relation| relation.relpersistence as u8 == b't');
        if temporary && (!create.inh_relations().is_empty() || create.partbound().is_some()) {
            return Err(No::forbidden("a temporary table may not inherit from another")
                .hint("Use CREATE TEMP TABLE … (LIKE other)."));
        }
        self.run(Node::CreateStmt(create))
    }

    fn alter_table(&mut self, alter: &'a AlterTableStmt, node: Node<'a>) -> Answer {
        self.defined(alter.relation())?;
        for command in alter.cmds() {
            let Node::AlterTableCmd(command) = command else { return Err(refused(node)) };
            if !may_alter(command.subtype) {
                return Err(No::forbidden(
                    "this form of ALTER TABLE is refused: it touches owners, rules or row security",
                )
                .hint("Ask the operator."));
            }
        }
        self.run(node)
    }

    fn drop_objects(&mut self, drop: &DropStmt) -> Answer {
        let droppable = matches!(
            drop.remove_type,
            ObjectType::OBJECT_TABLE
                | ObjectType::OBJECT_VIEW
                | ObjectType::OBJECT_MATVIEW
                | ObjectType::OBJECT_INDEX
                | ObjectType::OBJECT_SEQUENCE
                | ObjectType::OBJECT_TYPE
                | ObjectType::OBJECT_SCHEMA
        );
        for object in drop.objects() {
            let names = match object {
                Node::NodeList(names) => names.iter().map(Node::as_str).collect::<Vec<_>>(),
                Node::TypeName(name) => name.names().iter().map(|part| part.sval()).collect(),
                Node::String(name) => vec![name.sval()],
                _ => Vec::new(),
            };
            let of_temporary = drop.remove_type != ObjectType::OBJECT_SCHEMA
                && matches!(names.as_slice(), [.., Some("pg_temp"), Some(_)]);
            match (droppable, of_temporary) {
                (true, true) if self.rights.is_read_only() => {
                    return Err(No::new(Kind::ReadOnly, "this session may only read"));
                }
                (true, true) => {}
                (true, false) if drop.remove_type == ObjectType::OBJECT_SCHEMA => {
                    self.define(names.first().copied().flatten(), "*")?;
                }
                (true, false) => self.named(names.into_iter())?,
                (false, _) => return Err(No::forbidden("dropping objects of this kind is refused")),
            }
        }
        Ok(())
    }

    fn truncate(&mut self, relations: impl IntoIterator<Item = Node<'a>>) -> Answer<Class> {
        for relation in relations {
            let Node::RangeVar(relation) = relation else { return Err(No::unsupported("TRUNCATE of something else")) };
            if self.rights.shares_tables() && !self.is_own_temporary(relation)? {
                let why = "TRUNCATE is refused where tables are shared: it would take the rows of others";
                return Err(No::forbidden(why).hint(format!("Use DELETE. {TEMPORARY}")).at(relation.location));
            }
            self.write(Some(relation), true)?;
        }
        Ok(Class::Write)
    }

    /// ANALYZE of temporary tables, which autovacuum never sees.
    fn analyze(&self, analyze: &VacuumStmt) -> Answer<Class> {
        let named = analyze.rels().iter().map(VacuumRelation::relation);
        let refused = || No::forbidden("ANALYZE is the operator's, but of temporary tables").hint(TEMPORARY);
        if analyze.rels().is_empty() {
            return Err(refused());
        }
        for relation in named {
            match relation {
                Some(relation) if self.is_own_temporary(relation)? => {}
                _ => return Err(refused()),
            }
        }
        Ok(Class::Utility)
    }

    /// Whether a name can mean nothing but a temporary relation of the session's own: one without `pg_temp.` may be either.
    fn is_own_temporary(&self, relation: &RangeVar) -> Answer<bool> {
        let (schema, name) = names(relation);
        if schema != Some("pg_temp") || self.rules.relations.is_system(schema, name) {
            return Ok(false);
        }
        if self.rights.is_read_only() {
            return Err(No::new(Kind::ReadOnly, "this session may only read"));
        }
        Ok(true)
    }

    /// Whether a new name is not one of the system's, which it would stand before.
    fn free_name(&self, name: Option<&str>) -> Answer {
        match name {
            Some(name) if self.rules.relations.is_system(None, name) => {
                Err(No::forbidden(format!("\"{name}\" is a name of the system's")))
            }
            _ => Ok(()),
        }
    }

    fn defined(&mut self, relation: Option<&'a RangeVar>) -> Answer {
        let Some(relation) = relation else { return Err(No::unsupported("a definition without a relation")) };
        if self.is_own_temporary(relation)? {
            return Ok(());
        }
        let (schema, name) = names(relation);
        self.define(schema, name).map_err(|no| no.at(relation.location))
    }

    /// Judges the definition of something by its name in parts.
    fn named<'n>(&self, parts: impl DoubleEndedIterator<Item = Option<&'n str>>) -> Answer {
        let mut parts = parts.rev();
        let (Some(Some(name)), schema) = (parts.next(), parts.next().flatten()) else {
            return Err(No::unsupported("a definition without a name"));
        };
        self.define(schema, name)
    }
}

/// The forms of ALTER TABLE that touch only the table's own columns, constraints and storage.
const fn may_alter(subtype: AlterTableType::Type) -> bool {
    matches!(
        subtype,
        AlterTableType::AT_AddColumn
            | AlterTableType::AT_ColumnDefault
            | AlterTableType::AT_DropNotNull
            | AlterTableType::AT_SetNotNull
            | AlterTableType::AT_SetExpression
            | AlterTableType::AT_DropExpression
            | AlterTableType::AT_SetStatistics
            | AlterTableType::AT_SetStorage
            | AlterTableType::AT_SetCompression
            | AlterTableType::AT_DropColumn
            | AlterTableType::AT_AddConstraint
            | AlterTableType::AT_AlterConstraint
            | AlterTableType::AT_ValidateConstraint
            | AlterTableType::AT_DropConstraint
            | AlterTableType::AT_AlterColumnType
            | AlterTableType::AT_SetLogged
            | AlterTableType::AT_SetUnLogged
            | AlterTableType::AT_AttachPartition
            | AlterTableType::AT_DetachPartition
            | AlterTableType::AT_AddIdentity
            | AlterTableType::AT_SetIdentity
            | AlterTableType::AT_DropIdentity
    )
}

/// What is said of a statement that is on no list.
fn refused(node: Node<'_>) -> No {
    match node {
        Node::DoStmt(_)
        | Node::CreateFunctionStmt(_)
        | Node::AlterFunctionStmt(_)
        | Node::RuleStmt(_)
        | Node::CreateTrigStmt(_)
        | Node::CreatePLangStmt(_)
        | Node::CreateExtensionStmt(_)
        | Node::LoadStmt(_) => No::forbidden(
            "code that runs out of the guard's sight is refused: DO, functions, rules, triggers, extensions",
        )
        .hint("Send the statements themselves, or ask the operator to install the function."),
        Node::AlterRoleStmt(_)
        | Node::AlterRoleSetStmt(_)
        | Node::CreateRoleStmt(_)
        | Node::DropRoleStmt(_)
        | Node::GrantStmt(_)
        | Node::GrantRoleStmt(_)
        | Node::AlterDefaultPrivilegesStmt(_)
        | Node::DropOwnedStmt(_)
        | Node::ReassignOwnedStmt(_)
        | Node::AlterOwnerStmt(_)
        | Node::CreatePolicyStmt(_)
        | Node::AlterPolicyStmt(_) => {
            No::forbidden("roles, grants and policies are the operator's").hint("Rights come with the token.")
        }
        Node::AlterSystemStmt(_)
        | Node::AlterDatabaseStmt(_)
        | Node::AlterDatabaseSetStmt(_)
        | Node::CreatedbStmt(_)
        | Node::DropdbStmt(_)
        | Node::CheckPointStmt(_)
        | Node::VacuumStmt(_)
        | Node::ReindexStmt(_)
        | Node::ClusterStmt(_) => No::forbidden(
            "maintenance of the server is the operator's: ALTER SYSTEM, ALTER DATABASE, VACUUM, REINDEX and their like",
        )
        .hint("Autovacuum does it by itself; ask the operator for more."),
        _ => No::forbidden("this kind of statement is refused: the guard's list does not have it")
            .hint("Queries, INSERT, UPDATE, DELETE, MERGE, COPY, cursors, transactions and settings are on it."),
    }
}
