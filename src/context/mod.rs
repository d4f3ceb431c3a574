//! What a server connection is told for a session: settings, as SQL, with equality as label.
//!
//! A connection that carries a session's very context is told nothing; any other is told the difference, which is known
//! because every context told was confirmed. Nothing here is ever sent unconfirmed (`pool` holds that).

pub mod seal;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::guard;

/// Settings whose value is a list of names: a single string literal in SET would be taken as one name.
const NAME_LISTS: [&str; 2] = ["search_path", "temp_tablespaces"];

/// A time-out that is shorter could end what the proxy itself asks of the server, in milliseconds.
const HASTY_MS: u64 = 1000;

/// The settings of one session on its server connection: who it is, its limits, and what it has set itself.
///
/// Cheap to clone and to compare: sessions that share a value share it.
#[derive(Debug, Clone)]
pub struct Context(Arc<Told>);

#[derive(Debug)]
struct Told {
    /// Tells most contexts apart without comparing their texts.
    digest: u64,
    scope: u64,
    hasty: bool,
    settings: Box<[Setting]>,
}

/// One setting and its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Setting {
    /// The name, as Postgres writes it.
    pub name: Arc<str>,
    /// The value, as `SHOW` writes it.
    pub value: Arc<str>,
}

impl Setting {
    /// A setting of that name and value.
    pub fn new(name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// Whether it is a time-out that is, or may be, shorter than [`HASTY_MS`]; 0 is none.
    fn is_hasty(&self) -> bool {
        let ends = matches!(&*self.name, "statement_timeout" | "transaction_timeout" | "idle_session_timeout");
        ends && !guard::milliseconds(&self.value).is_some_and(|ms| ms == 0 || ms >= HASTY_MS)
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.digest == other.0.digest && self.0.scope == other.0.scope && self.0.settings == other.0.settings
    }
}

impl Eq for Context {}

impl Context {
    /// A context of these settings; where a name comes twice the later one holds.
    pub fn new(settings: impl IntoIterator<Item = Setting>) -> Self {
        Self::planned_apart(settings, 0)
    }

    /// The same, where these settings bear on what a text means or how it is planned: what was parsed and planned under
    /// a context of another `scope` must be made anew.
    pub fn planned_apart(settings: impl IntoIterator<Item = Setting>, scope: u64) -> Self {
        let mut all: Vec<Setting> = Vec::new();
        for setting in settings {
            match all.binary_search_by(|known| known.name.cmp(&setting.name)) {
                Ok(at) => all[at] = setting,
                Err(at) => all.insert(at, setting),
            }
        }
        let mut hasher = DefaultHasher::new();
        (&all, scope).hash(&mut hasher);
        let hasty = all.iter().any(Setting::is_hasty);
        Self(Arc::new(Told { digest: hasher.finish(), scope, hasty, settings: all.into() }))
    }

    /// Whether it ends statements so soon that telling the connection another one could be ended too.
    ///
    /// Known from the beginning: it is asked each time that a connection comes back.
    pub fn is_hasty(&self) -> bool {
        self.0.hasty
    }

    /// What is parsed and planned under contexts of one scope is the same; 0 where no setting bears on it.
    pub fn scope(&self) -> u64 {
        self.0.scope
    }

    /// The settings, by name.
    pub fn settings(&self) -> &[Setting] {
        &self.0.settings
    }

    /// The value of one setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        let settings = self.settings();
        let at = settings.binary_search_by(|known| (*known.name).cmp(name)).ok()?;
        Some(&settings[at].value)
    }

    /// Appends the statements that turn a connection told `from` (nothing, when it is fresh) into one told this.
    ///
    /// Nothing where it was told the same. RESET gives a setting the value of the connection's own start-up.
    pub fn tell(&self, from: Option<&Self>, sql: &mut String) {
        let told = from.map_or(&[][..], |context| context.settings());
        for old in told {
            if self.get(&old.name).is_none() {
                sql.push_str(&reset(&old.name));
                sql.push(';');
            }
        }
        for setting in self.settings() {
            let known = from.and_then(|context| context.get(&setting.name));
            if known != Some(&*setting.value) {
                sql.push_str(&set(&setting.name, &setting.value, false));
                sql.push(';');
            }
        }
    }
}

/// A number of milliseconds as Postgres takes a time-out: never 0, which would mean none.
pub fn timeout_ms(timeout: Duration) -> String {
    timeout.as_millis().clamp(1, i32::MAX as u128).to_string()
}

/// The statement that sets one setting of the session, or of its transaction only.
pub fn set(name: &str, value: &str, local: bool) -> String {
    let mut sql = String::new();
    let values = if NAME_LISTS.contains(&name) { names(value) } else { Some(vec![value.to_owned()]) };
    let Some(values) = values else {
        // The one form that takes any text; it needs a snapshot, which SET does not.
        sql.push_str("SELECT pg_catalog.set_config(");
        push_literal(&mut sql, name);
        sql.push(',');
        push_literal(&mut sql, value);
        sql.push_str(if local { ",true)" } else { ",false)" });
        return sql;
    };
    sql.push_str(if local { "SET LOCAL " } else { "SET " });
    push_name(&mut sql, name);
    for (at, value) in values.iter().enumerate() {
        sql.push(if at == 0 { '=' } else { ',' });
        push_literal(&mut sql, value);
    }
    sql
}

/// The names in a list as PostgreSQL writes it: as they are where they need no quotes, else in double quotes.
///
/// `None` where it is written in another way, and a SET of the names would not give the same text.
fn names(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = list;
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_name(quoted)?,
            None => {
                let end = rest.find(|part| !is_plain(part)).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        let is_quoted = rest.starts_with('"');
        let starts_plain = name.starts_with(|first: char| is_plain(first) && !first.is_ascii_digit());
        if is_quoted == (starts_plain && name.chars().all(is_plain)) {
            return None;
        }
        names.push(name);
        match after.strip_prefix(", ") {
            Some(more) => rest = more,
            None => return after.is_empty().then_some(names),
        }
    }
}

fn quoted_name(quoted: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

fn is_plain(part: char) -> bool {
    part.is_ascii_lowercase() || part.is_ascii_digit() || part == '_'
}

/// The statement that gives one setting the value that its server connection began with.
pub fn reset(name: &str) -> String {
    let mut sql = "RESET ".to_owned();
    push_name(&mut sql, name);
    sql
}

/// Each part of a dotted name as a quoted identifier (PostgreSQL manual, "Identifiers and Key Words").
fn push_name(sql: &mut String, name: &str) {
    for (at, part) in name.split('.').enumerate() {
        if at > 0 {
            sql.push('.');
        }
        sql.push('"');
        sql.push_str(&part.replace('"', "\"\""));
        sql.push('"');
    }
}

/// A string constant under `standard_conforming_strings = on`, which every server connection is opened with.
///
/// A NUL cannot stand in one (nor in a setting) and is left out.
fn push_literal(sql: &mut String, value: &str) {
    sql.push('\'');
    for part in value.chars().filter(|&part| part != '\0') {
        if part == '\'' {
            sql.push('\'');
        }
        sql.push(part);
    }
    sql.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(settings: &[(&str, &str)]) -> Context {
        Context::new(settings.iter().map(|&(name, value)| Setting::new(name, value)))
    }

    fn told(to: &Context, from: Option<&Context>) -> String {
        let mut sql = String::new();
        to.tell(from, &mut sql);
        sql
    }

    #[test]
    fn a_fresh_connection_is_told_everything() {
        let context = context(&[("statement_timeout", "300"), ("app.current_org_id", "acme")]);
        assert_eq!(told(&context, None), r#"SET "app"."current_org_id"='acme';SET "statement_timeout"='300';"#);
    }

    #[test]
    fn only_the_difference_is_told_and_what_is_gone_is_reset() {
        let acme = context(&[("app.current_org_id", "acme"), ("statement_timeout", "300"), ("work_mem", "64kB")]);
        let globex = context(&[("app.current_org_id", "globex"), ("statement_timeout", "300")]);
        assert_eq!(told(&globex, Some(&acme)), r#"RESET "work_mem";SET "app"."current_org_id"='globex';"#);
        assert_eq!(told(&globex, Some(&globex.clone())), "");
    }

    #[test]
    fn values_cannot_leave_their_literal() {
        let hostile = context(&[("a\".b", "x'; SET app.current_org_id='globex'; --\\"), ("search_path", "a, \"b'c\"")]);
        let expected = concat!(
            r#"SET "a"""."b"='x''; SET app.current_org_id=''globex''; --\';"#,
            r#"SET "search_path"='a','b''c';"#
        );
        assert_eq!(told(&hostile, None), expected);
    }

    #[test]
    fn lists_of_names_are_set_name_by_name_where_that_gives_the_same_text() {
        assert_eq!(set("search_path", r#""$user", public"#, true), r#"SET LOCAL "search_path"='$user','public'"#);
        assert_eq!(set("search_path", r#""a""b'", x_1"#, false), r#"SET "search_path"='a"b''','x_1'"#);
        assert_eq!(set("search_path", r#"a, """#, false), r#"SET "search_path"='a',''"#);
        for odd in ["", "a,b", "a, ", ", a", "A", "\"a\"", "\"a", "1a", "a b", "a\"b\"", "'; DROP"] {
            let literal = odd.replace('\'', "''");
            let expected = format!("SELECT pg_catalog.set_config('search_path','{literal}',false)");
            assert_eq!(set("search_path", odd, false), expected);
        }
    }

    #[test]
    fn contexts_are_equal_by_what_they_say() {
        let one = context(&[("a", "1"), ("b", "2")]);
        let other = context(&[("b", "0"), ("a", "1"), ("b", "2")]);
        assert_eq!(one, other);
        assert_ne!(one, context(&[("a", "1")]));
    }

    #[test]
    fn a_time_out_that_could_end_the_cleaning_is_known_in_every_spelling() {
        let is_hasty = |value| context(&[("statement_timeout", value)]).is_hasty();
        for value in ["1", "999", "999ms", "150ms", "0.15s", " 0.15 s", "1e2", "0.9s", "150000us", "0x10", ""] {
            assert!(is_hasty(value), "{value}");
        }
        for value in ["0", "0ms", "0.005min", "0.01min", "1000", "1s", "5min", "1h", "1d", "300000"] {
            assert!(!is_hasty(value), "{value}");
        }
        assert!(!context(&[("lock_timeout", "1")]).is_hasty());
    }

    #[test]
    fn a_timeout_is_never_told_as_none() {
        assert_eq!(timeout_ms(Duration::ZERO), "1");
        assert_eq!(timeout_ms(Duration::from_secs(300)), "300000");
        assert_eq!(timeout_ms(Duration::MAX), i32::MAX.to_string());
    }
}
