//! Verdicts remembered by the full text and the rights they were made for; only yes, never no.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::rights::Rights;
use super::verdict::Verdict;

/// Longer texts are judged each time: to hash them costs as much as it saves, and few come twice.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// What all remembered texts and verdicts may weigh.
const CACHE_BYTES_MAX: u64 = 32 << 20;
/// For how many entries the cache is laid out at first.
const ENTRIES_EXPECTED: usize = 10_000;

/// A text and what its reader may do. Equal only if the whole text is.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    text: Box<str>,
    rights: u64,
}

/// The same, borrowed: a look-up allocates nothing.
struct Borrowed<'s> {
    text: &'s str,
    rights: u64,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrowed { text: &self.text, rights: self.rights }.hash(state);
    }
}

impl Hash for Borrowed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.rights);
        self.text.hash(state);
    }
}

impl Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.rights == key.rights && *self.text == *key.text
    }
}

/// Weighs an entry in bytes, roughly.
#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<Verdict>> for Bytes {
    fn weight(&self, key: &Key, verdict: &Arc<Verdict>) -> u64 {
        let relations = verdict.reads().len() + verdict.writes().len();
        let changes = verdict.changes().count();
        let text = key.text.len() + verdict.rewritten().map_or(0, str::len);
        (text + 256 + 48 * relations + 96 * changes + 24 * verdict.statements().len()) as u64
    }
}

/// The memory of a guard.
pub(super) struct VerdictCache(Cache<Key, Arc<Verdict>, Bytes, ahash::RandomState>);

impl VerdictCache {
    pub(super) fn new() -> Self {
        let hash = ahash::RandomState::new();
        Self(Cache::with(ENTRIES_EXPECTED, CACHE_BYTES_MAX, Bytes, hash, Default::default()))
    }

    /// The verdict for this very text and these rights, if it is remembered.
    pub(super) fn get(&self, sql: &str, rights: &Rights) -> Option<Arc<Verdict>> {
        if sql.len() > TEXT_BYTES_MAX {
            return None;
        }
        self.0.get(&Borrowed { text: sql, rights: rights.fingerprint() })
    }

    /// Remembers a verdict, if its text is not too long.
    pub(super) fn insert(&self, sql: &str, rights: &Rights, verdict: &Arc<Verdict>) {
        if sql.len() <= TEXT_BYTES_MAX {
            self.0.insert(Key { text: sql.into(), rights: rights.fingerprint() }, Arc::clone(verdict));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl std::fmt::Debug for VerdictCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerdictCache").field("entries", &self.0.len()).finish()
    }
}
