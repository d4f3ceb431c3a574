//! Two organizations that do not exist look at every table, and try to write into each other, and into one whose name is like
//! their own: nothing may come of it.

use std::collections::BTreeSet;

use super::{Depth, Finding, PATIENCE, PLAIN_MARK, PLAIN_TEXT, Severity, ask};
use crate::context::{Context, Setting};
use crate::pool::{AskError, Cleaning, Connection, Telling};

/// Names that nobody has; also good where the column is a UUID.
const CANARIES: [&str; 2] = ["5ca1ab1e-ca9a-4a1e-b00b-00000000000a", "5ca1ab1e-ca9a-4a1e-b00b-00000000000b"];

/// The most relations that are tried.
const RELATIONS_MAX: usize = 500;
/// The most lengths of columns that are tried, and the longest.
const LENGTHS_MAX: usize = 16;
const LENGTH_MAX: usize = 255;

/// Protected tables, and what reads them; the column that holds the organization where it may be written; and how many
/// characters that takes, 0 where it takes any number of them, none where it is no text.
const RELATIONS: &str = "WITH RECURSIVE edges AS (
  SELECT w.ev_class AS view, d.refobjid AS target FROM pg_rewrite w
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
   WHERE d.refobjid <> w.ev_class),
reach AS (SELECT view, target FROM edges UNION SELECT r.view, e.target FROM reach r JOIN edges e ON e.view = r.target),
bases AS (      -- what a type is made of, through domains, and the length that these say
  SELECT oid AS type, oid AS base, -1 AS length FROM pg_type
  UNION ALL SELECT b.type, t.typbasetype, greatest(b.length, t.typtypmod) FROM bases b JOIN pg_type t ON t.oid = b.base WHERE t.typtype = 'd'),
policies AS (SELECT polrelid, pg_get_expr(polwithcheck, polrelid) AS text FROM pg_policy),
columns AS (
  SELECT DISTINCT ON (a.attrelid) a.attrelid, quote_ident(a.attname) AS name,
         CASE WHEN t.oid = 'name'::regtype THEN 63 WHEN t.typcategory <> 'S' THEN NULL
              ELSE greatest(a.atttypmod, b.length, 4) - 4 END AS length
    FROM pg_attribute a JOIN bases b ON b.type = a.atttypid JOIN pg_type t ON t.oid = b.base AND t.typtype <> 'd' JOIN policies p ON p.polrelid = a.attrelid
   WHERE a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(a.attrelid, a.attnum, 'INSERT')
     AND position(' ' || quote_ident(a.attname) || ' =' IN translate($plain$, '(.', '  ')) > 0
   ORDER BY a.attrelid, a.attname)
SELECT format('%I.%I', n.nspname, c.relname), c.relkind = 'r' AND NOT c.relispartition,
       has_any_column_privilege(c.oid, 'SELECT'), o.name, o.length
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN columns o ON o.attrelid = c.oid
 WHERE n.nspname !~ '^pg_' AND has_schema_privilege(n.oid, 'USAGE')
   AND ((c.relkind IN ('r', 'p') AND c.relrowsecurity)
     OR (c.relkind IN ('v', 'm') AND EXISTS (SELECT FROM reach r JOIN pg_class t ON t.oid = r.target AND t.relrowsecurity WHERE r.view = c.oid)))
   AND has_any_column_privilege(c.oid, 'SELECT, INSERT')
 ORDER BY 1";

/// A relation to try.
struct Relation {
    name: String,
    /// An ordinary table, in which a row that breaks a constraint has passed the policies before.
    is_plain: bool,
    readable: bool,
    organization: Option<Column>,
}

/// The column that holds the organization.
struct Column {
    name: String,
    /// The most characters, 0 for any number; none where it is no text.
    length: Option<usize>,
}

/// What the canaries found.
pub(super) async fn try_them(
    connection: &mut Connection,
    telling: &Telling,
    depth: Depth,
) -> Result<Vec<Finding>, AskError> {
    let question = RELATIONS.replace(PLAIN_MARK, PLAIN_TEXT);
    let mut relations: Vec<Relation> =
        ask(connection, &question).await?.rows.into_iter().filter_map(relation).collect();
    let mut findings = Vec::new();
    if relations.len() > RELATIONS_MAX {
        let many = format!("only the first {RELATIONS_MAX} of {} relations were tried", relations.len());
        findings.push(Finding::new(Severity::Note, "canaries_cut", "relations", many, "nothing"));
        relations.truncate(RELATIONS_MAX);
    }
    for context in [None, Some(CANARIES[0]), Some(CANARIES[1])] {
        tell(connection, telling, context).await?;
        for relation in &relations {
            if relation.readable && sees_rows(connection, &relation.name).await? {
                findings.push(seen(relation, context.is_some()));
            }
            if let (Depth::Writing, Some(CANARY), Some(column)) = (depth, context, &relation.organization)
                && writes(connection, relation, column, CANARIES[1]).await?
            {
                findings.push(written(relation, column));
            }
        }
    }
    if depth == Depth::Writing {
        findings.extend(write_for_the_alike(connection, telling, &relations).await?);
    }
    tell(connection, telling, None).await?;
    findings.dedup_by(|a, b| a.key() == b.key());
    Ok(findings)
}

/// The one that writes for the other.
const CANARY: &str = CANARIES[0];

async fn tell(connection: &mut Connection, telling: &Telling, organization: Option<&str>) -> Result<(), AskError> {
    let told = organization.map(|org| Context::new([Setting::new(telling.names.organization.as_str(), org)]));
    connection.tell(told.as_ref(), Cleaning::Nothing).await.map(drop)
}

/// What a column of `length` characters would make of the canary's name, which goes on by one character, where the name is cut.
fn cut(length: usize) -> String {
    CANARY.chars().cycle().take(length).collect()
}

/// Tries whether organizations with names that are alike are one: one longer than the column, by its last character; and two
/// that differ in case, or in a blank at the end.
async fn write_for_the_alike(
    connection: &mut Connection,
    telling: &Telling,
    relations: &[Relation],
) -> Result<Vec<Finding>, AskError> {
    let lengths = |relation: &Relation| relation.organization.as_ref().and_then(|column| column.length);
    let longest = |length: &usize| (1..=LENGTH_MAX).contains(length);
    let all: BTreeSet<usize> = relations.iter().filter_map(lengths).filter(longest).collect();
    let longer = all.into_iter().take(LENGTHS_MAX).map(|length| (Some(length), cut(length) + "x", cut(length)));
    let others = [(None, CANARY.to_owned(), CANARY.to_uppercase()), (None, CANARY.to_owned() + " ", CANARY.to_owned())];
    let mut findings = Vec::new();
    for (length, context, value) in others.into_iter().chain(longer) {
        tell(connection, telling, Some(&context)).await?;
        for relation in relations {
            let Some(column) = &relation.organization else { continue };
            let concerned = column.length.is_some() && (length.is_none() || length == column.length);
            if concerned && writes(connection, relation, column, &value).await? {
                findings.push(alike(relation, column));
            }
        }
    }
    findings.sort_by_key(Finding::key);
    Ok(findings)
}

fn relation(row: Vec<Option<String>>) -> Option<Relation> {
    let [name, is_plain, readable, organization, length] = <[Option<String>; 5]>::try_from(row).ok()?;
    let truth = |value: Option<String>| value.as_deref() == Some("t");
    let length = length.and_then(|length| length.parse().ok());
    let organization = organization.map(|name| Column { name, length });
    Some(Relation { name: name?, is_plain: truth(is_plain), readable: truth(readable), organization })
}

/// Whether there is a row to see. An error (a context that is no UUID, a time-out) shows none.
async fn sees_rows(connection: &mut Connection, name: &str) -> Result<bool, AskError> {
    let answer = ask(connection, &format!("SELECT EXISTS (SELECT FROM {name})")).await?;
    Ok(answer.no.is_none() && answer.rows.first().and_then(|row| row.first()) == Some(&Some("t".to_owned())))
}

/// Whether a row of another organization is taken: policies are asked before constraints (PostgreSQL's `ExecInsert`), so one
/// that only breaks a constraint has passed them.
async fn writes(
    connection: &mut Connection,
    relation: &Relation,
    column: &Column,
    other: &str,
) -> Result<bool, AskError> {
    let (name, column) = (&relation.name, &column.name);
    connection.inquire("BEGIN; SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '1s'", PATIENCE).await?;
    let answer = connection.inquire(&format!("INSERT INTO {name} ({column}) VALUES ('{other}')"), PATIENCE).await?;
    connection.inquire("ROLLBACK", PATIENCE).await?;
    Ok(match answer.no {
        None => true,
        // Class 23: integrity constraint violation.
        Some(no) => relation.is_plain && no.sqlstate.starts_with("23"),
    })
}

fn seen(relation: &Relation, as_somebody: bool) -> Finding {
    let (name, consequence) = match as_somebody {
        true => ("canary_sees", "an organization that does not exist sees rows: they are somebody else's"),
        false => ("nobody_sees", "a session without an organization sees rows"),
    };
    let mend = format!("SELECT partywall.protect('{}')", relation.name);
    Finding::new(Severity::Breach, name, &relation.name, consequence, &mend)
}

fn written(relation: &Relation, column: &Column) -> Finding {
    let consequence = "an organization writes rows for another";
    Finding::new(Severity::Breach, "canary_writes", &relation.name, consequence, &protect(relation, column))
}

fn alike(relation: &Relation, column: &Column) -> Finding {
    let consequence =
        "an organization writes rows for another whose name is like its own: cut, in another case, or with a blank";
    Finding::new(Severity::Breach, "canary_alike", &relation.name, consequence, &protect(relation, column))
}

fn protect(relation: &Relation, column: &Column) -> String {
    format!("SELECT partywall.protect('{}', '{}')", relation.name, column.name.trim_matches('"'))
}
