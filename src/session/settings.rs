//! The settings that a session has made its own, which every server connection it gets is told.
//!
//! What a statement did to a setting is not guessed: after the transaction the server is asked for the value.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use postgres_protocol::escape::escape_literal;

use crate::context::Setting;

/// The most settings that a session may make its own.
pub(super) const OWN_SETTINGS_MAX: usize = 100;

/// The most bytes that the names and values of a session's own settings may have together.
pub(super) const OWN_SETTINGS_BYTES_MAX: usize = 64 * 1024;

/// A session's own settings, and those that its running transaction has touched.
#[derive(Debug, Default)]
pub(super) struct OwnSettings {
    /// As asked for at start-up: what RESET goes back to.
    first: BTreeMap<Arc<str>, Arc<str>>,
    values: BTreeMap<Arc<str>, Arc<str>>,
    touched: Vec<Arc<str>>,
    /// See [`Self::scope`].
    scope: u64,
    /// Set by the running transaction for itself alone.
    local: Vec<Arc<str>>,
}

impl OwnSettings {
    /// The settings that the client asked for at start-up.
    pub(super) fn at_start(settings: &[(String, String)]) -> Self {
        let pair = |(name, value): &(String, String)| (Arc::from(name.as_str()), Arc::from(value.as_str()));
        let first: BTreeMap<_, _> = settings.iter().map(pair).collect();
        let mut own = Self { values: first.clone(), first, ..Self::default() };
        own.take_scope();
        own
    }

    /// What RESET of `name` goes back to, where the session's start-up said so.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.first.get(name).map(|value| &**value)
    }

    /// Goes back to the settings of the start-up.
    pub(super) fn reset(&mut self) {
        self.values.clone_from(&self.first);
        self.take_scope();
    }

    /// Forgets what the session has made of these, at its start-up too.
    pub(super) fn forget(&mut self, names: &[&str]) {
        self.first.retain(|name, _| !names.contains(&&**name));
        self.values.retain(|name, _| !names.contains(&&**name));
        self.take_scope();
    }

    /// How many bytes the names and values have together.
    pub(super) fn bytes(&self) -> usize {
        self.values.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Every setting that the session has made its own, or has touched.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.values.keys().chain(&self.touched).chain(&self.local).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Sets a value that the server has accepted, or will be told.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.values.insert(Arc::from(name), Arc::from(value));
        self.take_scope();
    }

    /// Remembers that a statement may have changed `name`; `false`: too many already.
    pub(super) fn touch(&mut self, name: &str) -> bool {
        if self.touched.iter().any(|known| **known == *name) {
            return true;
        }
        let new = self.touched.iter().filter(|touched| !self.values.contains_key(*touched)).count();
        if !self.values.contains_key(name) && self.values.len() + new >= OWN_SETTINGS_MAX {
            return false;
        }
        self.touched.push(Arc::from(name));
        true
    }

    /// Remembers up to the transaction's end that it has set `name` for itself.
    pub(super) fn touch_locally(&mut self, name: &str) {
        if self.local.len() < OWN_SETTINGS_MAX && !self.local.iter().any(|known| **known == *name) {
            self.local.push(Arc::from(name));
        }
    }

    /// Whether the running transaction has named `name`, so that the server may report a change of it.
    pub(super) fn expects(&self, name: &str) -> bool {
        self.touched.iter().chain(&self.local).any(|known| **known == *name)
    }

    /// The transaction has ended, and with it what it had set for itself.
    pub(super) fn end_transaction(&mut self) {
        self.local.clear();
    }

    /// Whether any setting may have changed since the server was last asked.
    pub(super) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Takes the names that may have changed.
    pub(super) fn take_touched(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.touched)
    }

    /// All, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = Setting> + '_ {
        self.values.iter().map(|(name, value)| Setting { name: Arc::clone(name), value: Arc::clone(value) })
    }

    /// Whether the running transaction may have changed a setting that bears on what a text means or how it is planned.
    pub(super) fn is_in_motion(&self) -> bool {
        self.touched.iter().chain(&self.local).any(|name| bears_on_plans(name))
    }

    /// Sessions with equal settings share prepared statements; this tells them apart. 0 where there are none.
    pub(super) fn scope(&self) -> u64 {
        self.scope
    }

    fn take_scope(&mut self) {
        let mut bearing = self.values.iter().filter(|(name, _)| bears_on_plans(name)).peekable();
        self.scope = match bearing.peek() {
            None => 0,
            Some(_) => {
                let mut hasher = DefaultHasher::new();
                bearing.for_each(|setting| setting.hash(&mut hasher));
                hasher.finish()
            }
        };
    }
}

/// Settings that bear neither on what a text means nor on how it is planned. Any other may: literals, names and planning
/// hang on dozens of settings, and each release brings more.
const BEARING_ON_NOTHING: [&str; 17] = [
    "application_name",
    "client_min_messages",
    "commit_delay",
    "deadlock_timeout",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "log_min_duration_statement",
    "statement_timeout",
    "synchronous_commit",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_timeout",
];

/// Prefixes of settings that extensions read when they parse or plan; other settings with a dot are the application's own.
const BEARING_PREFIXES: [&str; 12] = [
    "plpgsql",
    "pg_hint_plan",
    "pg_trgm",
    "hnsw",
    "ivfflat",
    "postgis",
    "timescaledb",
    "citus",
    "rum",
    "vectors",
    "vchordrq",
    "orafce",
];

/// Whether a setting may bear on what a text means or on how it is planned.
pub(super) fn bears_on_plans(name: &str) -> bool {
    match name.split_once('.') {
        Some((prefix, _)) => BEARING_PREFIXES.iter().any(|known| known.eq_ignore_ascii_case(prefix)),
        None => !BEARING_ON_NOTHING.contains(&name),
    }
}

/// The question for the values of `names`, and for `more`: one row, one column each.
pub(super) fn question(names: &[Arc<str>], more: &[&str]) -> String {
    let setting = |name: &Arc<str>| format!("pg_catalog.current_setting({},true)", escape_literal(name));
    let columns: Vec<String> = names.iter().map(setting).chain(more.iter().map(|&column| column.to_owned())).collect();
    format!("SELECT {}", columns.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_touched_once_and_bounded() {
        let mut own = OwnSettings::default();
        assert!(own.touch("work_mem") && own.touch("work_mem"));
        assert_eq!(own.take_touched().len(), 1);
        let taken = (0..200).filter(|at| own.touch(&format!("a.b{at}"))).count();
        assert_eq!(taken, OWN_SETTINGS_MAX);
    }

    #[test]
    fn what_bears_on_no_plan_does_not_part_sessions() {
        let mut own = OwnSettings::default();
        own.set("application_name", "psql");
        assert_eq!(own.scope(), 0);
        own.set("statement_timeout", "1s");
        own.set("app.locale", "de");
        assert_eq!(own.scope(), 0);
        own.set("timezone", "UTC");
        assert_ne!(own.scope(), 0);
    }

    #[test]
    fn a_transaction_that_touches_what_texts_mean_is_in_motion_to_its_end() {
        let mut own = OwnSettings::default();
        own.touch_locally("application_name");
        own.touch_locally("request.claim");
        assert!(!own.is_in_motion());
        own.touch_locally("plpgsql.variable_conflict");
        assert!(own.is_in_motion());
        own.end_transaction();
        assert!(!own.is_in_motion());
        assert!(own.touch("datestyle") && own.is_in_motion());
        own.take_touched();
        assert!(!own.is_in_motion());
    }

    #[test]
    fn the_question_quotes() {
        let asked = question(&[Arc::from("a.b'c")], &["1"]);
        assert_eq!(asked, "SELECT pg_catalog.current_setting('a.b''c',true),1");
    }
}
