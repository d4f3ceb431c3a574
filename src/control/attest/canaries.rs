//! Two organizations that do not exist look at every table, and try to write into each other: nothing may come of it.

use super::{Depth, Finding, PATIENCE, Severity, ask};
use crate::context::{Context, Setting};
use crate::pool::{AskError, Cleaning, Connection, Telling};

/// Names that nobody has; also good where the column is a UUID.
const CANARIES: [&str; 2] = ["5ca1ab1e-ca9a-4a1e-b00b-00000000000a", "5ca1ab1e-ca9a-4a1e-b00b-00000000000b"];

/// The most relations that are tried.
const RELATIONS_MAX: usize = 500;

/// Protected tables, and what reads them, with the column that holds the organization where it may be written.
const RELATIONS: &str = "WITH RECURSIVE edges AS (
  SELECT w.ev_class AS view, d.refobjid AS target FROM pg_rewrite w
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
   WHERE d.refobjid <> w.ev_class),
reach AS (SELECT view, target FROM edges UNION SELECT r.view, e.target FROM reach r JOIN edges e ON e.view = r.target)
SELECT format('%I.%I', n.nspname, c.relname), c.relkind = 'r' AND NOT c.relispartition,
       has_any_column_privilege(c.oid, 'SELECT'),
       (SELECT quote_ident(min(a.attname)) FROM pg_attribute a JOIN pg_policy p ON p.polrelid = c.oid
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(c.oid, a.attnum, 'INSERT')
           AND position(' ' || quote_ident(a.attname) || ' =' IN translate(pg_get_expr(p.polwithcheck, p.polrelid), '(.', '  ')) > 0)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
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
    organization: Option<String>,
}

/// What the canaries found.
pub(super) async fn try_them(
    connection: &mut Connection,
    telling: &Telling,
    depth: Depth,
) -> Result<Vec<Finding>, AskError> {
    let relations: Vec<Relation> = ask(connection, RELATIONS).await?.rows.into_iter().filter_map(relation).collect();
    let mut findings = Vec::new();
    if relations.len() > RELATIONS_MAX {
        let many = format!("only the first {RELATIONS_MAX} of {} relations were tried", relations.len());
        findings.push(Finding::new(Severity::Note, "canaries_cut", "relations", many, "nothing"));
    }
    for context in [None, Some(CANARIES[0]), Some(CANARIES[1])] {
        let told = context.map(|org| Context::new([Setting::new(telling.names.organization.as_str(), org)]));
        connection.tell(told.as_ref(), Cleaning::Nothing).await?;
        for relation in relations.iter().take(RELATIONS_MAX) {
            if relation.readable && sees_rows(connection, &relation.name).await? {
                findings.push(seen(relation, context.is_some()));
            }
            if let (Depth::Writing, Some(CANARY), Some(column)) = (depth, context, &relation.organization)
                && writes_for_another(connection, relation, column).await?
            {
                findings.push(written(relation));
            }
        }
    }
    connection.tell(None, Cleaning::Nothing).await?;
    findings.dedup_by(|a, b| a.key() == b.key());
    Ok(findings)
}

/// The one that writes for the other.
const CANARY: &str = CANARIES[0];

fn relation(row: Vec<Option<String>>) -> Option<Relation> {
    let [name, is_plain, readable, organization] = <[Option<String>; 4]>::try_from(row).ok()?;
    let truth = |value: Option<String>| value.as_deref() == Some("t");
    Some(Relation { name: name?, is_plain: truth(is_plain), readable: truth(readable), organization })
}

/// Whether there is a row to see. An error (a context that is no UUID, a time-out) shows none.
async fn sees_rows(connection: &mut Connection, name: &str) -> Result<bool, AskError> {
    let answer = ask(connection, &format!("SELECT EXISTS (SELECT FROM {name})")).await?;
    Ok(answer.no.is_none() && answer.rows.first().and_then(|row| row.first()) == Some(&Some("t".to_owned())))
}

/// Whether a row of the other canary is taken: policies are asked before constraints (PostgreSQL's `ExecInsert`), so one that
/// only breaks a constraint has passed them.
async fn writes_for_another(connection: &mut Connection, relation: &Relation, column: &str) -> Result<bool, AskError> {
    let (name, other) = (&relation.name, CANARIES[1]);
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

fn written(relation: &Relation) -> Finding {
    let mend = format!("SELECT partywall.protect('{}')", relation.name);
    Finding::new(Severity::Breach, "canary_writes", &relation.name, "an organization writes rows for another", &mend)
}
