//! Two organizations that do not exist look at every table, and try to write into each other, and into one whose name is like
//! their own: nothing may come of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Depth, Finding, NotKnown, PATIENCE, PLAIN_MARK, PLAIN_TEXT, Severity, ask};
use crate::context::{Context, Setting};
use crate::pool::{AskError, Cleaning, Connection, ServerNo, Telling};

/// The most relations that are tried, and the longest that all of it may take.
const RELATIONS_MAX: usize = 500;
const TIME_MAX: Duration = Duration::from_secs(60);
/// The most lengths of columns that are tried, and the longest.
const LENGTHS_MAX: usize = 16;
const LENGTH_MAX: usize = 255;

/// Protected tables, and what reads them; the column that holds the organization where it may be written; and how many
/// characters that takes, 0 where it takes any number of them, none where it is no text.
const RELATIONS: &str = "WITH RECURSIVE edges AS (
  SELECT w.ev_class AS view, d.refobjid AS target FROM pg_rewrite w JOIN pg_class v ON v.oid = w.ev_class AND v.relpersistence <> 't'
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
   WHERE d.refobjid <> w.ev_class),
reach AS (SELECT view, target FROM edges UNION SELECT r.view, e.target FROM reach r JOIN edges e ON e.view = r.target),
bases AS (      -- what a type is made of, through domains, and the length that these say
  SELECT oid AS type, oid AS base, -1 AS length FROM pg_type
  UNION ALL SELECT b.type, t.typbasetype, greatest(b.length, t.typtypmod) FROM bases b JOIN pg_type t ON t.oid = b.base WHERE t.typtype = 'd'),
policies AS (SELECT polrelid, pg_get_expr(polwithcheck, polrelid) AS text FROM pg_policy JOIN pg_class c ON c.oid = polrelid AND c.relpersistence <> 't'),
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

/// Two names that nobody has: fresh ones each time, so that nobody can take one. Also good where the column is a UUID.
struct Canaries([String; 2]);

impl Canaries {
    fn new() -> Result<Self, NotKnown> {
        let mut random = [0; 15];
        let no_random = |_| AskError::Io(std::io::Error::other("no random bytes from the system"));
        aws_lc_rs::rand::fill(&mut random).map_err(no_random)?;
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = |last| {
            let [a, b, c, d, e] = [&digits[..8], &digits[8..12], &digits[12..15], &digits[15..18], &digits[18..29]];
            format!("{a}-{b}-4{c}-a{d}-{e}{last}")
        };
        Ok(Self([name('a'), name('b')]))
    }

    /// The one that writes for the other.
    fn first(&self) -> &str {
        &self.0[0]
    }

    /// What a column of `length` characters would make of the first one's name, which goes on by one character, where the
    /// name is cut.
    fn cut(&self, length: usize) -> String {
        self.first().chars().cycle().take(length).collect()
    }
}

/// What the canaries try, and what they have found.
struct Trial<'a> {
    connection: &'a mut Connection,
    telling: &'a Telling,
    canaries: Canaries,
    relations: Vec<Relation>,
    begun: Instant,
    findings: Vec<Finding>,
}

/// What the canaries found.
pub(super) async fn try_them(
    connection: &mut Connection,
    telling: &Telling,
    depth: Depth,
) -> Result<Vec<Finding>, NotKnown> {
    let question = RELATIONS.replace(PLAIN_MARK, PLAIN_TEXT);
    let answer = ask(connection, &question).await?;
    if let Some(no) = answer.no {
        return Err(NotKnown::no_answer("relations", no));
    }
    let relations: Vec<Relation> = answer.rows.into_iter().filter_map(relation).collect();
    let (canaries, findings, begun) = (Canaries::new()?, Vec::new(), Instant::now());
    let mut trial = Trial { connection, telling, canaries, relations, begun, findings };
    if trial.relations.len() > RELATIONS_MAX {
        trial.stop(&format!("only the first {RELATIONS_MAX} of {} relations were tried", trial.relations.len()));
        trial.relations.truncate(RELATIONS_MAX);
    }
    trial.look(depth).await?;
    if depth == Depth::Writing {
        trial.write_for_the_alike().await?;
    }
    trial.tell(None).await?;
    let mut findings = trial.findings;
    findings.sort_by_key(Finding::key);
    findings.dedup_by(|a, b| a.key() == b.key());
    Ok(findings)
}

impl Trial<'_> {
    async fn tell(&mut self, organization: Option<&str>) -> Result<(), AskError> {
        let name = self.telling.names.organization.as_str();
        let told = organization.map(|organization| Context::new([Setting::new(name, organization)]));
        self.connection.tell(told.as_ref(), Cleaning::Nothing).await.map(drop)
    }

    fn stop(&mut self, why: &str) {
        self.findings.push(Finding::new(Severity::Note, "canaries_cut", "relations", why, "nothing"));
    }

    /// Whether the time is up; then it says so.
    fn is_over(&mut self) -> bool {
        let over = self.begun.elapsed() > TIME_MAX;
        if over {
            self.stop("not all relations were tried: they took too long");
        }
        over
    }

    /// Looks as nobody and as each canary; and the first writes for the second.
    async fn look(&mut self, depth: Depth) -> Result<(), NotKnown> {
        let [first, second] = self.canaries.0.clone();
        for context in [None, Some(&first), Some(&second)] {
            self.tell(context.map(String::as_str)).await?;
            for at in 0..self.relations.len() {
                if self.is_over() {
                    return Ok(());
                }
                let relation = &self.relations[at];
                if relation.readable {
                    match sees_rows(self.connection, &relation.name).await? {
                        Ok(false) => {}
                        Ok(true) => self.findings.push(seen(relation, context.is_some())),
                        Err(no) => self.findings.push(unknown(relation, &no)),
                    }
                }
                if let (Depth::Writing, true, Some(column)) = (depth, context == Some(&first), &relation.organization)
                    && writes(self.connection, relation, column, &second).await?
                {
                    self.findings.push(written(relation, column));
                }
            }
        }
        Ok(())
    }

    /// Tries whether organizations with names that are alike are one: one longer than the column, by its last character; and
    /// two that differ in case, or in a blank at the end.
    async fn write_for_the_alike(&mut self) -> Result<(), NotKnown> {
        let lengths = |relation: &Relation| relation.organization.as_ref().and_then(|column| column.length);
        let longest = |length: &usize| (1..=LENGTH_MAX).contains(length);
        let all: BTreeSet<usize> = self.relations.iter().filter_map(lengths).filter(longest).collect();
        let cut = |length| (Some(length), self.canaries.cut(length) + "x", self.canaries.cut(length));
        let name = self.canaries.first().to_owned();
        let mut tried = vec![(None, name.clone(), name.to_uppercase()), (None, name.clone() + " ", name)];
        tried.extend(all.into_iter().take(LENGTHS_MAX).map(cut));
        for (length, context, value) in tried {
            self.tell(Some(&context)).await?;
            for at in 0..self.relations.len() {
                if self.is_over() {
                    return Ok(());
                }
                let relation = &self.relations[at];
                let Some(column) = &relation.organization else { continue };
                let concerned = column.length.is_some() && (length.is_none() || length == column.length);
                if concerned && writes(self.connection, relation, column, &value).await? {
                    self.findings.push(alike(relation, column));
                }
            }
        }
        Ok(())
    }
}

fn relation(row: Vec<Option<String>>) -> Option<Relation> {
    let [name, is_plain, readable, organization, length] = <[Option<String>; 5]>::try_from(row).ok()?;
    let truth = |value: Option<String>| value.as_deref() == Some("t");
    let length = length.and_then(|length| length.parse().ok());
    let organization = organization.map(|name| Column { name, length });
    Some(Relation { name: name?, is_plain: truth(is_plain), readable: truth(readable), organization })
}

/// Whether there is a row to see; the error where the time did not suffice to tell. Another error (a context that is no UUID)
/// shows none.
async fn sees_rows(connection: &mut Connection, name: &str) -> Result<Result<bool, ServerNo>, NotKnown> {
    let sql = format!("SET LOCAL statement_timeout = '10s'; SELECT EXISTS (SELECT FROM {name})");
    let answer = ask(connection, &sql).await?;
    match answer.no {
        None => Ok(Ok(answer.rows.first().and_then(|row| row.first()) == Some(&Some("t".to_owned())))),
        Some(no) if may_pass(&no) => Err(NotKnown::no_answer(name, no)),
        // Cancelled by its time.
        Some(no) if no.sqlstate.starts_with("57") => Ok(Err(no)),
        Some(_) => Ok(Ok(false)),
    }
}

/// Whether an error is of want of resources (class 53), or of a server that goes (57P).
fn may_pass(no: &ServerNo) -> bool {
    no.sqlstate.starts_with("53") || no.sqlstate.starts_with("57P")
}

/// Whether a row of another organization is taken: policies are asked before constraints (PostgreSQL's `ExecInsert`), so one
/// that only breaks a constraint has passed them.
async fn writes(
    connection: &mut Connection,
    relation: &Relation,
    column: &Column,
    other: &str,
) -> Result<bool, NotKnown> {
    let (name, column) = (&relation.name, &column.name);
    connection.inquire("BEGIN; SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '1s'", PATIENCE).await?;
    let answer = connection.inquire(&format!("INSERT INTO {name} ({column}) VALUES ('{other}')"), PATIENCE).await?;
    connection.inquire("ROLLBACK", PATIENCE).await?;
    match answer.no {
        None => Ok(true),
        Some(no) if may_pass(&no) => Err(NotKnown::no_answer(name, no)),
        // Class 23: integrity constraint violation.
        Some(no) => Ok(relation.is_plain && no.sqlstate.starts_with("23")),
    }
}

fn unknown(relation: &Relation, no: &ServerNo) -> Finding {
    let consequence = format!("a canary could not look whether it sees rows: {no}");
    let mend = "an index that leads with the organization: `no_index` names the tables without one";
    Finding::new(Severity::Warn, "canary_unknown", &relation.name, consequence, mend)
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
