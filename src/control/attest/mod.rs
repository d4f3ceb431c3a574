//! Attestation: does a database keep organizations apart by itself? What the catalog says, and what two canaries see.
//!
//! It asks as the shared login role, over a connection such as tenants are served from, and changes nothing.

mod canaries;

use std::fmt;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;

use crate::config::ContextNames;
use crate::context::seal::Form;
use crate::pool::{Answer, AskError, Connection, ServerNo, Telling};
use crate::refusal::Kind;

/// Each question, its name, the oldest server that has what it asks for, and whether a database that refuses it is merely
/// well closed.
const QUESTIONS: [(&str, &str, u32, bool); 4] = [
    ("catalog", include_str!("catalog.sql"), 0, false),
    ("session", include_str!("session.sql"), 0, false),
    ("expressions", include_str!("expressions.sql"), 140_000, true),
    ("role_settings", include_str!("role_settings.sql"), 0, true),
];

/// Stands in the questions for the pattern of what reads the context.
const CONTEXT_MARK: &str = "$context$";
/// Stands in the questions for the text of a policy without the casts of columns: `(tenant)::text =` reads `tenant =`.
const PLAIN_MARK: &str = "$plain$";
const PLAIN_TEXT: &str = r#"regexp_replace(regexp_replace(text, '\(((?:\w|"[^"]*")+)\)::[\w."]+( varying| precision)?(\([\d,]+\))?', '\1', 'g'), 'OPERATOR\([^()]*\.=\)', '=', 'g')"#;

/// Stands in the questions for an array of the settings that carry the context, in lower case.
const NAMES_MARK: &str = "$names$";

/// How long one question may take; the server gives up a little earlier.
const PATIENCE: Duration = Duration::from_secs(40);
const BEGIN: &str = "BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '2s'; \
     SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off";

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Rows of one organization are in reach of another, past the guard or even through it.
    Breach,
    /// A weakness; the guard, or nothing, stands in for the wall that is missing.
    Warn,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breach => "breach",
            Self::Warn => "warn",
            Self::Note => "note",
        }
    }

    fn from_word(word: &str) -> Self {
        match word {
            "warn" => Self::Warn,
            "note" => Self::Note,
            // A word that nobody knows is not made light of.
            _ => Self::Breach,
        }
    }
}

/// Something that a database lets happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing it is; with the object, what `check.allow` names.
    pub name: String,
    /// On what.
    pub object: String,
    /// What it would let a tenant do.
    pub consequence: String,
    /// What mends it: SQL, or words.
    pub mend: String,
    /// Whether `check.allow` names it: it stays visible, and counts for nothing.
    pub allowed: bool,
}

impl Finding {
    fn new(severity: Severity, name: &str, object: &str, consequence: impl Into<String>, mend: &str) -> Self {
        let (name, object, mend) = (name.to_owned(), object.to_owned(), mend.to_owned());
        Self { severity, name, object, consequence: consequence.into(), mend, allowed: false }
    }

    fn from_row(row: Vec<Option<String>>) -> Option<Self> {
        let mut columns = row.into_iter().map(Option::unwrap_or_default);
        let severity = Severity::from_word(&columns.next()?);
        let (name, object, consequence, mend) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
        Some(Self { severity, name, object, consequence, mend, allowed: false })
    }

    /// As `check.allow` would name it.
    pub fn key(&self) -> String {
        format!("{}:{}", self.name, self.object)
    }

    /// Whether the shard must not be served for it.
    pub fn is_breach(&self) -> bool {
        self.severity == Severity::Breach && !self.allowed
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, consequence, .. } = self;
        let allowed = if self.allowed { " (allowed)" } else { "" };
        write!(f, "{}{allowed} {}: {consequence}", severity.as_str(), self.key())
    }
}

/// Why nothing is known of a database.
#[derive(Debug, thiserror::Error)]
pub enum NotKnown {
    /// The connection failed, and must be closed.
    #[error(transparent)]
    Lost(#[from] AskError),
    /// The server could not answer; it may another time.
    #[error("{question}: {no}")]
    NoAnswer {
        /// What was asked.
        question: String,
        /// What the server said instead.
        no: ServerNo,
    },
}

impl NotKnown {
    fn no_answer(question: &str, no: ServerNo) -> Self {
        Self::NoAnswer { question: question.to_owned(), no }
    }
}

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Reading only.
    Reading,
    /// Also writing, in transactions that are rolled back; sequences that give defaults move on by it.
    Writing,
}

/// Everything that is to be said about the database of `connection`, the worst first.
///
/// # Errors
/// When the connection fails, and must be closed; and when the server does not answer a question for want of memory, time or
/// anything else that may pass: many locks of a tenant are no evidence against the database. A question that it refuses for want of
/// a right is a finding.
pub async fn attest(
    connection: &mut Connection,
    telling: &Telling,
    depth: Depth,
    allow: &[String],
) -> Result<Vec<Finding>, NotKnown> {
    let mut findings = Vec::new();
    let (reads_context, names) = (reads_context(&telling.names), names_array(&telling.names));
    for (name, sql, oldest, may_be_closed) in QUESTIONS {
        if connection.server.server_version_num < oldest {
            continue;
        }
        let sql = sql.replace(CONTEXT_MARK, &reads_context).replace(PLAIN_MARK, PLAIN_TEXT).replace(NAMES_MARK, &names);
        let answer = ask(connection, &sql).await?;
        match answer.no {
            None => findings.extend(answer.rows.into_iter().filter_map(Finding::from_row)),
            Some(no) if no.sqlstate != Kind::Forbidden.row().sqlstate => return Err(NotKnown::no_answer(name, no)),
            Some(_) if may_be_closed => {}
            Some(no) => findings.push(Finding::new(
                Severity::Breach,
                "not_attested",
                name,
                format!("nobody knows whether its walls hold: {no}"),
                "let the login role read the catalog",
            )),
        }
    }
    findings.extend(context(connection, telling).await?);
    findings.extend(canaries::try_them(connection, telling, depth).await?);
    for finding in &mut findings {
        finding.allowed = allow.contains(&finding.key());
    }
    findings.sort_by(|a, b| (a.severity, &a.name, &a.object).cmp(&(b.severity, &b.name, &b.object)));
    Ok(findings)
}

/// The settings that carry the context.
fn carriers(names: &ContextNames) -> [&str; 5] {
    [&names.organization, &names.user, &names.project, &names.roles, &names.permissions].map(|name| name.as_str())
}

/// The settings that carry the context, as an array of literals.
fn names_array(names: &ContextNames) -> String {
    format!("ARRAY[{}]", carriers(names).map(|name| escape_literal(&name.to_lowercase())).join(", "))
}

/// A pattern, as a literal, of what reads the context: the functions of the walls, and the settings that carry it. Any other
/// setting is the tenant's to write.
fn reads_context(names: &ContextNames) -> String {
    let names = carriers(names).map(|name| name.replace('.', "\\."));
    escape_literal(&format!("(?i)partywall\\.|current_setting\\('({})'", names.join("|")))
}

/// Whether code in the database may leave state on a server connection that no statement shows; so it is taken to be where the
/// server does not say.
///
/// # Errors
/// When the connection fails; it must be closed then.
pub async fn code_leaves(connection: &mut Connection) -> Result<bool, AskError> {
    let answer = ask(connection, include_str!("code.sql")).await?;
    Ok(answer.rows.first().and_then(|row| row.first()).is_none_or(|leaves| leaves.as_deref() != Some("f")))
}

/// One question in a transaction of its own, that is rolled back.
async fn ask(connection: &mut Connection, sql: &str) -> Result<Answer, AskError> {
    let begun = connection.inquire(BEGIN, PATIENCE).await?;
    if let Some(no) = begun.no {
        return Err(AskError::Refused(no.to_string()));
    }
    let answer = connection.inquire(sql, PATIENCE).await?;
    connection.inquire("ROLLBACK", PATIENCE).await?;
    Ok(answer)
}

/// Whether the database's functions are those of a form that wants seals.
async fn wants_a_seal(connection: &mut Connection) -> Result<bool, NotKnown> {
    let sql = "SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
               WHERE n.nspname = 'partywall' AND p.proname IN ('hello', 'seal_holds')";
    let answer = ask(connection, sql).await?;
    answer.no.map_or(Ok(!answer.rows.is_empty()), |no| Err(NotKnown::no_answer("context", no)))
}

/// Whether the context is one that a tenant cannot write.
async fn context(connection: &mut Connection, telling: &Telling) -> Result<Option<Finding>, NotKnown> {
    match connection.form() {
        Form::Plain if wants_a_seal(connection).await? => Ok(Some(Finding::new(
            Severity::Breach,
            "context_form",
            "partywall",
            "the database believes no plain context: organizations see nothing",
            "context.form = \"auto\", or partywall policies apply --form plain",
        ))),
        Form::Plain => Ok(Some(Finding::new(
            Severity::Note,
            "context_plain",
            telling.names.organization.as_str(),
            "the context is an ordinary setting: the guard alone keeps tenants from writing it",
            "partywall policies apply --form guarded",
        ))),
        Form::Sealed => Ok(None),
        Form::Guarded => {
            let tried = ask(connection, "SET LOCAL backtrace_functions = 'o_u_p_r_m_g0_n0'").await?;
            match tried.no {
                Some(no) if no.sqlstate == Kind::Forbidden.row().sqlstate => Ok(None),
                Some(no) => Err(NotKnown::no_answer("context", no)),
                None => Ok(Some(Finding::new(
                    Severity::Breach,
                    "context_writable",
                    "backtrace_functions",
                    "a tenant that gets past the guard writes itself any context",
                    "REVOKE SET ON PARAMETER backtrace_functions FROM PUBLIC, and from the login role",
                ))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_severity_that_nobody_knows_is_a_breach() {
        for severity in [Severity::Breach, Severity::Warn, Severity::Note] {
            assert_eq!(Severity::from_word(severity.as_str()), severity);
        }
        assert_eq!(Severity::from_word("?"), Severity::Breach);
    }

    #[test]
    fn a_finding_that_is_allowed_stays_visible_and_counts_for_nothing() {
        let mut finding = Finding::new(Severity::Breach, "owned", "public.t", "why", "how");
        assert!(finding.is_breach());
        finding.allowed = true;
        assert!(!finding.is_breach());
        assert_eq!(finding.to_string(), "breach (allowed) owned:public.t: why");
    }
}
