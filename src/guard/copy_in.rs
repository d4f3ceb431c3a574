//! COPY FROM STDIN, taken apart: what it loads into, and the statements that load there by way of a staging table.
//!
//! The staging table is made by `partywall.stage_copy` (policies/sql/staging.sql). The client's own text goes to it with the
//! relation's name replaced, so that every option and condition is read as the client wrote it.

use std::ops::Range;

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::CopyStmt;
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::parse;
use super::statements::is_off;
use super::tree;
use super::walk::names;

/// Stands for the staging table where its name is not known yet.
const NAMELESS: &str = "partywall_copy_";

/// A COPY … FROM STDIN that the guard has allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyIn {
    /// Where the relation's name stands in the text, in bytes.
    relation: Range<usize>,
    /// The relation, quoted.
    target: String,
    columns: Option<Vec<Box<str>>>,
    /// Columns that WHERE or an option names, whether they are loaded or not.
    mentioned: Vec<Box<str>>,
    /// WHERE names columns together with their table.
    is_qualified: bool,
    freezes: bool,
    defaults: bool,
}

/// Where rows are staged, and where they go, as `partywall.stage_copy` has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// The staging table.
    pub name: String,
    /// The schema of the relation that is meant.
    pub schema: String,
    /// The relation that is meant.
    pub relation: String,
    columns: Vec<String>,
}

impl Staging {
    /// Reads the rows of the answer; none where they are not an answer.
    pub fn new(rows: Vec<String>) -> Option<Self> {
        let mut rows = rows.into_iter();
        let (name, schema, relation) = (rows.next()?, rows.next()?, rows.next()?);
        Some(Self { name, schema, relation, columns: rows.collect() })
    }

    /// The INSERT that moves the staged rows under the policies, and what ends the staging: with the transaction, where
    /// that is our own, else by itself.
    pub fn moving(&self, own_transaction: bool) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| escape_identifier(column)).collect();
        let (columns, staging) = (columns.join(","), escape_identifier(&self.name));
        // COPY gives identity columns what the data says (PostgreSQL manual, "COPY"): so does this.
        let insert = format!(
            "INSERT INTO {}.{} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM pg_temp.{staging}",
            escape_identifier(&self.schema),
            escape_identifier(&self.relation)
        );
        match own_transaction {
            true => format!("{insert};COMMIT"),
            false => format!("{insert};SELECT partywall.unstage_copy({})", escape_literal(&self.name)),
        }
    }
}

impl CopyIn {
    /// Takes a text apart that is one COPY … FROM STDIN; none where it is not, or spells the relation in an unusual way.
    ///
    /// It parses: not for texts longer than may be parsed on a data thread.
    pub fn read(sql: &str) -> Option<Self> {
        parse::without_panic(|| Self::read_tree(sql)).ok()?
    }

    fn read_tree(sql: &str) -> Option<Self> {
        let tree = parse::parse(sql).ok()?;
        let mut statements = tree.iter();
        let (Some(only), None) = (statements.next(), statements.next()) else { return None };
        let Node::CopyStmt(copy) = only.stmt() else { return None };
        let relation = copy.relation()?;
        if !copy.is_from || copy.is_program || copy.filename().is_some() || relation.catalogname().is_some() {
            return None;
        }
        let (schema, name) = names(relation);
        let start = usize::try_from(relation.location).ok()?;
        let end = end_of_name(sql, start, usize::from(schema.is_some()) + 1)?;
        let (mentioned, is_qualified) = mentioned(copy)?;
        let option = |wanted| copy.options().iter().any(|option| option.defname() == Some(wanted) && !is_off(option));
        let read = Self {
            relation: start..end,
            target: schema.map_or_else(
                || escape_identifier(name),
                |schema| format!("{}.{}", escape_identifier(schema), escape_identifier(name)),
            ),
            columns: columns(copy),
            mentioned,
            is_qualified,
            freezes: option("freeze"),
            defaults: option("default"),
        };
        read.is_read_rightly(sql, copy).then_some(read)
    }

    /// The name's place was found by other means than PostgreSQL's scanner: the text with another name there must say
    /// the same of everything else.
    fn is_read_rightly(&self, sql: &str, copy: &CopyStmt) -> bool {
        let text = self.staged(sql, NAMELESS);
        let Ok(tree) = parse::parse(&text) else { return false };
        let mut statements = tree.iter();
        let (Some(only), None) = (statements.next(), statements.next()) else { return false };
        let Node::CopyStmt(other) = only.stmt() else { return false };
        let is_renamed = other.relation().is_some_and(|relation| names(relation) == (Some("pg_temp"), NAMELESS));
        is_renamed
            && other.is_from
            && other.filename().is_none()
            && columns(other) == columns(copy)
            && other.options().len() == copy.options().len()
    }

    /// Why it cannot be staged, if it cannot: a sentence, and what to do.
    pub fn unstageable(&self) -> Option<(&'static str, &'static str)> {
        if self.freezes {
            return Some(("COPY FREEZE is not supported with row-level security", "Leave FREEZE out."));
        }
        if self.is_qualified {
            let message = "COPY FROM into a table with row-level security cannot name the table in its WHERE condition";
            return Some((message, "Name the columns alone."));
        }
        None
    }

    /// The question whether policies apply to the session in that relation, and whether there is a way to stage: two booleans.
    pub fn question(&self) -> String {
        format!(
            "SELECT pg_catalog.row_security_active(pg_catalog.to_regclass({})),EXISTS(SELECT FROM pg_catalog.pg_proc p \
             JOIN pg_catalog.pg_namespace n ON n.oid=p.pronamespace WHERE n.nspname='partywall' AND p.proname='stage_copy' \
             AND pg_catalog.has_schema_privilege(n.oid,'USAGE') AND pg_catalog.has_function_privilege(p.oid,'EXECUTE'))",
            escape_literal(&self.target)
        )
    }

    /// Makes the staging table, in a transaction of our own or in the client's; answered by the rows of a [`Staging`].
    pub fn opening(&self, own_transaction: bool) -> String {
        let array = |names: &[Box<str>]| {
            let names: Vec<String> = names.iter().map(|name| escape_literal(name)).collect();
            format!("ARRAY[{}]::pg_catalog.text[]", names.join(","))
        };
        let columns = self.columns.as_deref().map_or_else(|| "NULL".to_owned(), array);
        format!(
            "{}SELECT * FROM partywall.stage_copy(pg_catalog.to_regclass({}),{columns},{},{})",
            if own_transaction { "BEGIN;" } else { "" },
            escape_literal(&self.target),
            array(&self.mentioned),
            self.defaults
        )
    }

    /// The client's text, into the staging table.
    pub fn staged(&self, sql: &str, staging: &str) -> String {
        let (before, after) = (&sql[..self.relation.start], &sql[self.relation.end..]);
        format!("{before}{}{after}", renamed(staging))
    }

    /// The place in the client's text for a place in the staged one; both in characters from 1, as errors count them.
    pub fn position(&self, sql: &str, staging: &str, staged: usize) -> usize {
        let (before, name) = (sql[..self.relation.start].chars().count(), sql[self.relation.clone()].chars().count());
        let longer = renamed(staging).chars().count();
        if staged <= before {
            staged
        } else if staged <= before + longer {
            before + 1
        } else {
            staged - longer + name
        }
    }
}

fn renamed(staging: &str) -> String {
    format!(" pg_temp.{} ", escape_identifier(staging))
}

fn columns(copy: &CopyStmt) -> Option<Vec<Box<str>>> {
    let names: Vec<Box<str>> = copy.attlist().iter().filter_map(Node::as_str).map(Into::into).collect();
    (!names.is_empty()).then_some(names)
}

/// The columns that WHERE and options name, and whether WHERE names any with its table.
fn mentioned(copy: &CopyStmt) -> Option<(Vec<Box<str>>, bool)> {
    let of_options = copy.options().iter().filter_map(|option| option.arg().as_node_list()).flat_map(NodeList::iter);
    let mut found = (of_options.filter_map(Node::as_str).map(Into::into).collect::<Vec<_>>(), false);
    let mut nodes = Vec::new();
    tree::Push::put(&mut nodes, copy.where_clause());
    while let Some(node) = nodes.pop() {
        if let Node::ColumnRef(column) = node {
            match column.fields().first().and_then(Node::as_str) {
                Some(name) if column.fields().len() == 1 => found.0.push(name.into()),
                _ => found.1 = true,
            }
        }
        tree::children(node, &mut nodes).ok()?;
    }
    Some(found)
}

/// Where a name of so many parts ends that begins at `start`.
fn end_of_name(sql: &str, start: usize, parts: usize) -> Option<usize> {
    let mut at = start;
    for part in 0..parts {
        let rest = sql.get(at..)?;
        let rest = if part == 0 { rest } else { rest.trim_ascii_start().strip_prefix('.')?.trim_ascii_start() };
        at = sql.len() - rest.len() + end_of_part(rest)?;
    }
    Some(at)
}

fn end_of_part(text: &str) -> Option<usize> {
    let Some(quoted) = text.strip_prefix('"') else {
        let is_part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '$') || !char.is_ascii();
        let end = text.find(|char| !is_part(char)).unwrap_or(text.len());
        return (end > 0).then_some(end);
    };
    let mut at = 0;
    loop {
        at += quoted[at..].find('"')? + 1;
        if !quoted[at..].starts_with('"') {
            return Some(at + 1);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> CopyIn {
        CopyIn::read(sql).unwrap_or_else(|| panic!("{sql}"))
    }

    #[test]
    fn the_name_is_replaced_and_nothing_else() {
        for (sql, staged) in [
            ("COPY t FROM STDIN", "COPY  pg_temp.\"x\"  FROM STDIN"),
            ("copy\"T\"\"a\"(\"b c\")from stdin;", "copy pg_temp.\"x\" (\"b c\")from stdin;"),
            ("/* t */ COPY BINARY s . t FROM STDIN", "/* t */ COPY BINARY  pg_temp.\"x\"  FROM STDIN"),
            (
                "COPY café.ü$1 (t) FROM STDIN NULL 't' WHERE t > 't'",
                "COPY  pg_temp.\"x\"  (t) FROM STDIN NULL 't' WHERE t > 't'",
            ),
        ] {
            assert_eq!(read(sql).staged(sql, "x"), staged);
        }
    }

    #[test]
    fn what_is_spelled_in_an_unusual_way_or_is_no_copy_from_stdin_is_left_alone() {
        for sql in [
            "COPY t TO STDOUT",
            "COPY t FROM '/etc/passwd'",
            "COPY t FROM PROGRAM 'true'",
            "COPY d.s.t FROM STDIN",
            "COPY U&\"d\\0061ta\" FROM STDIN",
            "COPY s/* no */.t FROM STDIN",
            "COPY t FROM STDIN; COPY u FROM STDIN",
            "SELECT 1",
            "",
        ] {
            assert_eq!(CopyIn::read(sql), None, "{sql}");
        }
    }

    #[test]
    fn everything_that_comes_from_the_text_is_quoted() {
        let copy = read("COPY \"s'; DROP\".\"t\"\"\" (\"a'\") FROM STDIN (DEFAULT 'x') WHERE \"b'\" > 1 AND c = ''");
        assert!(copy.question().contains(r#"to_regclass('"s''; DROP"."t"""')"#), "{}", copy.question());
        let opening = copy.opening(true);
        assert!(opening.starts_with(
            r#"BEGIN;SELECT * FROM partywall.stage_copy(pg_catalog.to_regclass('"s''; DROP"."t"""'),ARRAY['a''']"#
        ));
        assert!(opening.contains("ARRAY['c','b''']::pg_catalog.text[],true)"), "{opening}");
        let rows = ["partywall_copy_1", "s\"", "t'", "a\"b"].map(str::to_owned).to_vec();
        let staging = Staging::new(rows).unwrap();
        let insert = "INSERT INTO \"s\"\"\".\"t'\" (\"a\"\"b\") OVERRIDING SYSTEM VALUE SELECT \"a\"\"b\" FROM pg_temp.\"partywall_copy_1\"";
        assert_eq!(staging.moving(true), format!("{insert};COMMIT"));
        assert_eq!(staging.moving(false), format!("{insert};SELECT partywall.unstage_copy('partywall_copy_1')"));
        assert_eq!(Staging::new(vec!["a".to_owned()]), None);
    }

    #[test]
    fn what_cannot_be_staged_says_why() {
        for sql in
            ["COPY t FROM STDIN FREEZE", "COPY t FROM STDIN WHERE t.a > 1", "COPY t FROM STDIN WHERE t.* IS NULL"]
        {
            assert!(read(sql).unstageable().is_some(), "{sql}");
        }
        for sql in ["COPY t FROM STDIN", "COPY t FROM STDIN (FREEZE false)", "COPY t FROM STDIN WHERE a > 1"] {
            assert!(read(sql).unstageable().is_none(), "{sql}");
        }
    }

    #[test]
    fn places_in_errors_are_places_in_the_clients_text() {
        let sql = "COPY täble (a) FROM STDIN (nonsense 1)";
        let copy = read(sql);
        let staged = copy.staged(sql, "partywall_copy_x");
        let place = |text: &str, word: &str| text[..text.find(word).unwrap()].chars().count() + 1;
        for word in ["COPY", "(a)", "nonsense"] {
            assert_eq!(copy.position(sql, "partywall_copy_x", place(&staged, word)), place(sql, word), "{word}");
        }
        assert_eq!(copy.position(sql, "partywall_copy_x", place(&staged, "partywall")), place(sql, "täble"));
    }
}
