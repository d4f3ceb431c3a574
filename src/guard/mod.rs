//! The guard: judges SQL by PostgreSQL's own grammar before a server sees it. It alone knows SQL.
//!
//! A text is parsed (`parse`), each statement must stand on the list of allowed kinds (`statements`), and every node
//! below it is visited (`walk`): what is not known is refused. The answer says what the statement touches and what it
//! changes in the session; the session acts on that, the guard remembers nothing of sessions. No I/O, no clock.

mod cache;
mod calls;
mod copy_in;
mod counters;
mod definitions;
mod facts;
mod fold;
mod functions;
mod leading;
mod magnitudes;
mod no;
mod parse;
mod relations;
mod rewrite;
mod rights;
mod session_statements;
mod settings;
mod statements;
mod tree;
mod verdict;
mod walk;

use std::sync::Arc;

use crate::config::GuardPolicy;
use crate::refusal::{Kind, Refusal};

/// The major version of PostgreSQL whose grammar reads the statements.
pub const GRAMMAR: &str = "18";

pub use copy_in::{CopyIn, Staging};
pub use facts::RELATIONS_MAX;
pub use leading::leaves_transaction;
pub use magnitudes::milliseconds;
pub use rights::{Relations, Rights};
pub use settings::{TIER_LIMITS, TierLimits};
pub use verdict::{Change, Cursors, ResetBy, Set, Statement, Taints, Value, Verdict};

/// The most statements in one text.
const STATEMENTS_MAX: usize = 10_000;

/// The lists that judge.
#[derive(Debug)]
struct Rules {
    functions: functions::Functions,
    relations: relations::SystemRelations,
    settings: settings::Settings,
}

/// The judge of SQL. Shared by all sessions; immutable but for its memory of verdicts.
#[derive(Debug)]
pub struct Guard {
    policy: GuardPolicy,
    rules: Rules,
    statement_bytes_max: usize,
    cache: cache::VerdictCache,
    open: bool,
}

/// A text whose verdict is not remembered.
pub struct Unjudged<'s> {
    sql: &'s str,
    /// Under what it is to be remembered.
    place: cache::Place<'s>,
}

impl Guard {
    /// A guard by `policy`. `context_names` are the settings that carry the tenant context: they, everything under
    /// their prefixes, and everything under `partywall.` are nobody's to set.
    pub fn new(policy: &GuardPolicy, context_names: &[String], statement_bytes_max: usize) -> Self {
        let rules = Rules {
            functions: functions::Functions::new(),
            relations: relations::SystemRelations::new(),
            settings: settings::Settings::new(context_names),
        };
        let cache = cache::VerdictCache::new(statement_bytes_max);
        Self { policy: policy.clone(), rules, statement_bytes_max, cache, open: false }
    }

    /// The same guard broken: what it would refuse passes, and nothing is known of what that does. For tests of the
    /// walls behind it; no configuration leads here.
    #[must_use]
    pub fn broken(self) -> Self {
        Self { open: true, ..self }
    }

    /// What a token with these roles and permissions may do, with shared tables; see [`Rights::with_isolation`].
    pub fn rights<R: AsRef<str>, P: AsRef<str>>(&self, roles: &[R], permissions: &[P]) -> Rights {
        Rights::new(&self.policy, roles, permissions)
    }

    /// As [`Self::rights`], of a session whose token may have said more than could be read (`is_bare` is false): then
    /// the policy's defaults, which are for tokens that say nothing, are not given.
    pub fn session_rights<R: AsRef<str>, P: AsRef<str>>(
        &self,
        roles: &[R],
        permissions: &[P],
        is_bare: bool,
    ) -> Rights {
        if is_bare { self.rights(roles, permissions) } else { Rights::named(&self.policy, roles, permissions) }
    }

    /// The verdict on a text, if it is remembered: what [`Self::judge`] answers then, without the work of parsing. Else
    /// what [`Self::judge_anew`] needs, so that nothing is looked up twice.
    pub fn recall<'s>(&self, sql: &'s str, rights: &Rights) -> Result<Arc<Verdict>, Unjudged<'s>> {
        self.cache.get(sql, rights).map_err(|place| Unjudged { sql, place })
    }

    /// Judges a text. A verdict says that all of it, or what it says stands in for it ([`Verdict::rewritten`]), may be
    /// sent to the server, but for the changes that the session must handle itself ([`Change::ResetAll`],
    /// [`Change::DiscardAll`]).
    ///
    /// Refusals: 54000 too long or too large, 42601 does not parse (the parser's words and position), 0A000 not
    /// supported, 25006 a write without the right to write, 42501 everything else.
    pub fn judge(&self, sql: &str, rights: &Rights) -> Result<Arc<Verdict>, Refusal> {
        self.recall(sql, rights).or_else(|unjudged| self.judge_anew(&unjudged, rights))
    }

    /// As [`Self::judge`], of a text that [`Self::recall`] did not know.
    pub fn judge_anew(&self, unjudged: &Unjudged<'_>, rights: &Rights) -> Result<Arc<Verdict>, Refusal> {
        let Unjudged { sql, place } = unjudged;
        parse::check_length(sql, self.statement_bytes_max)?;
        let judged = match parse::without_panic(|| self.parse_and_walk(sql, rights)).flatten() {
            Err(_) if self.open => Judged { verdict: facts::Facts::default().into_verdict(None), shareable: false },
            judged => judged?,
        };
        let Judged { verdict, shareable } = judged;
        let verdict = Arc::new(verdict);
        self.cache.insert(place, &verdict, shareable);
        Ok(verdict)
    }

    /// Whether a session may give a setting this value, as start-up parameters do: the change to remember, with its
    /// name in PostgreSQL's spelling, and a number in the place of a value above the tier's limit or of an ambiguous one.
    pub fn may_set(&self, name: &str, value: &str, rights: &Rights) -> Result<Set, Refusal> {
        let name = settings::canonical(name);
        if settings::is_of_the_transaction(&name) {
            let message = format!("setting \"{name}\" belongs to a transaction, and there is none at start-up");
            return Err(Refusal::new(Kind::Forbidden, message).with_hint(format!("Set default_{name}.")));
        }
        let asked = Value::Literal(value.into());
        let magnitude = self.rules.settings.may_set(&name, &asked, rights).map_err(|no| no.into_refusal(""))?;
        let local = Some(false);
        let number = magnitude.map(|magnitude| magnitude.number);
        Ok(match magnitude.and_then(|magnitude| magnitude.anew(rights.limit(&name))) {
            Some(anew) => {
                let magnitude = number.map(|number| number.min(rights.limit(&name).unwrap_or(number)));
                Set { name, value: Value::Literal(anew.to_string().into()), local, magnitude }
            }
            None => Set { name, value: asked, local, magnitude: number },
        })
    }

    /// Whether a list of the guard names this function, relation or setting of PostgreSQL's: for the comparison with a
    /// live server.
    pub fn knows(&self, what: Known, name: &str) -> bool {
        match what {
            Known::Function => self.rules.functions.knows(name),
            Known::Relation => self.rules.relations.knows(name),
            Known::Column => counters::knows(name),
            Known::Setting => self.rules.settings.knows(&name.to_ascii_lowercase()),
        }
    }

    fn parse_and_walk(&self, sql: &str, rights: &Rights) -> Result<Judged, Refusal> {
        let facts = self.walk(sql, rights)?;
        if facts.edits.is_empty() {
            let shareable = facts.is_shareable();
            return Ok(Judged { verdict: facts.into_verdict(None), shareable });
        }
        let text = rewrite::rewritten(sql, facts.edits)?;
        // What is sent is what was judged: in the new text nothing is left to be written anew, or it is not sent.
        let facts = self.walk(&text, rights)?;
        if !facts.edits.is_empty() {
            return Err(rewrite::unclear());
        }
        // The text that stands in for this one has this one's values.
        Ok(Judged { verdict: facts.into_verdict(Some(text.into())), shareable: false })
    }

    fn walk(&self, sql: &str, rights: &Rights) -> Result<facts::Facts, Refusal> {
        parse::check_length(sql, self.statement_bytes_max)?;
        let tree = parse::parse(sql)?;
        if tree.len() > STATEMENTS_MAX {
            let message = format!("the text has more than the {STATEMENTS_MAX} statements that the guard reads");
            return Err(Refusal::new(Kind::StatementTooLarge, message).with_hint("Send it in several parts."));
        }
        let mut facts = facts::Facts::default();
        let mut walk = walk::Walk::new(&self.rules, rights, &mut facts);
        tree.iter()
            .try_for_each(|statement| walk.statement(statement, sql.len()))
            .map_err(|no| no.into_refusal(sql))?;
        Ok(facts)
    }
}

/// A verdict, and whether it is that on every text with the same fold.
struct Judged {
    verdict: Verdict,
    shareable: bool,
}

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A function of pg_catalog.
    Function,
    /// A table or view of pg_catalog.
    Relation,
    /// A column of a view of statistics that sessions may read.
    Column,
    /// A setting.
    Setting,
}

#[cfg(test)]
mod tests;
