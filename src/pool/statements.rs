//! Prepared statements as server connections hold them: one for each text and types, whoever prepared it.
//!
//! A client's own names never reach a server; `session` maps them to these.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak};

use crate::limits::Share;
use crate::refusal::Refusal;

/// So many bytes of texts may stand prepared on one server connection; one statement may cross it alone. PostgreSQL keeps
/// up to some 80 times a text's size for it.
pub const PREPARED_BYTES_MAX: usize = 1 << 20;

/// Longer statements are not kept for sessions to come when the last one that holds them is gone.
const KEPT_FOR_OTHERS_BYTES: usize = 2048;

/// A server process that has read a text of this size is not kept for long: it gives no memory back.
pub const LARGE_TEXT_BYTES: usize = 128 * 1024;

/// What a Parse says besides the name: the text and the parameter types, and where it was judged the same.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct StatementKey {
    /// Sessions share a statement only where their own settings are equal: literals such as dates are read once, at
    /// Parse, under the settings of that moment.
    pub scope: u64,
    /// The body of the Parse behind the name: text, number of types, types.
    pub body: Box<[u8]>,
}

/// A statement that some session on this data thread has prepared.
#[derive(Debug)]
pub struct Statement {
    id: u64,
    server_name: Box<str>,
    key: Rc<StatementKey>,
    /// Of what the organization keeps that prepared it first.
    _share: Option<Share>,
}

impl Statement {
    /// Its number, which no other statement of this data thread ever has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name on server connections; nobody outside can guess what it stands for, nor does anybody need to. Empty for
    /// one that is not shared.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// Where it may be shared.
    pub fn scope(&self) -> u64 {
        self.key.scope
    }

    /// The body of the Parse behind the name.
    pub fn body(&self) -> &[u8] {
        &self.key.body
    }
}

/// All statements that sessions of this data thread hold, so that equal ones are one.
#[derive(Debug, Default)]
pub struct Statements {
    known: RefCell<HashMap<Rc<StatementKey>, Weak<Statement>>>,
    /// Bytes of those known when those that nobody holds were last taken out, and of those that have come since.
    bytes: Cell<(usize, usize)>,
    next_id: Cell<u64>,
}

impl Statements {
    /// The statement of that key, new or shared; `share` answers for the bytes of a new one.
    ///
    /// Fails as `share` does.
    pub fn intern(
        &self,
        key: StatementKey,
        share: impl FnOnce(usize) -> Result<Option<Share>, Refusal>,
    ) -> Result<Rc<Statement>, Refusal> {
        let mut known = self.known.borrow_mut();
        if let Some(statement) = known.get(&key).and_then(Weak::upgrade) {
            return Ok(statement);
        }
        // What nobody holds any more goes when the table would have to grow, or holds as much again as it did.
        let (before, since) = self.bytes.get();
        let since = since + key.body.len();
        if known.len() == known.capacity() || since > before.max(PREPARED_BYTES_MAX) {
            known.retain(|_, statement| statement.strong_count() > 0);
            self.bytes.set((known.keys().map(|key| key.body.len()).sum(), 0));
        } else {
            self.bytes.set((before, since));
        }
        let share = share(key.body.len())?;
        let (id, key) = (self.take_id(), Rc::new(key));
        let statement = Rc::new(Statement { id, server_name: server_name(id), key: Rc::clone(&key), _share: share });
        known.insert(key, Rc::downgrade(&statement));
        Ok(statement)
    }

    /// Shares a statement no longer: whoever prepares the same text from now on gets a new one.
    pub fn forget(&self, statement: &Statement) {
        let mut known = self.known.borrow_mut();
        let is_it = known.get(&statement.key).is_some_and(|held| std::ptr::eq(held.as_ptr(), statement));
        if is_it {
            known.remove(&statement.key);
        }
    }

    /// A statement that is not shared: one that goes under no name.
    pub fn lone(&self, key: StatementKey, share: Option<Share>) -> Rc<Statement> {
        Rc::new(Statement { id: self.take_id(), server_name: Box::default(), key: Rc::new(key), _share: share })
    }

    /// A scope that no session's settings have, and no other statement: see [`StatementKey::scope`].
    pub fn scope_of_its_own(&self) -> u64 {
        !self.take_id()
    }

    fn take_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }
}

fn server_name(id: u64) -> Box<str> {
    format!("partywall_{id:x}").into()
}

/// A statement as it stands prepared on a server connection.
#[derive(Debug)]
pub struct Entry {
    id: u64,
    used: u64,
    bytes: usize,
    statement: Weak<Statement>,
    /// So that who prepares it next finds it here.
    _kept: Option<Rc<Statement>>,
}

impl Entry {
    /// The statement's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name on server connections.
    pub fn server_name(&self) -> Box<str> {
        server_name(self.id)
    }
}

/// The statements prepared on one server connection, the least recently used first to go.
#[derive(Debug, Default)]
pub struct Prepared {
    by_id: HashMap<u64, Entry>,
    /// By last use: the statement id.
    by_use: BTreeMap<u64, u64>,
    clock: u64,
    bytes: usize,
}

impl Prepared {
    /// Whether `statement` is prepared here; counts as a use.
    pub fn touch(&mut self, statement: &Statement) -> bool {
        let Some(entry) = self.by_id.get_mut(&statement.id) else {
            return false;
        };
        self.by_use.remove(&entry.used);
        self.clock += 1;
        entry.used = self.clock;
        self.by_use.insert(self.clock, statement.id);
        true
    }

    /// Enters a statement that is being prepared.
    pub fn insert(&mut self, statement: &Rc<Statement>) {
        let bytes = statement.body().len();
        let kept = (bytes <= KEPT_FOR_OTHERS_BYTES).then(|| Rc::clone(statement));
        self.put_back(Entry { id: statement.id, used: 0, bytes, statement: Rc::downgrade(statement), _kept: kept });
    }

    /// Enters one again whose Close came to nothing.
    pub fn put_back(&mut self, mut entry: Entry) {
        self.take_id(entry.id);
        self.clock += 1;
        entry.used = self.clock;
        self.bytes += entry.bytes;
        self.by_use.insert(self.clock, entry.id);
        self.by_id.insert(entry.id, entry);
    }

    /// Forgets a statement whose Parse failed or was skipped.
    pub fn remove(&mut self, statement: &Statement) {
        self.take_id(statement.id);
    }

    /// Takes out a statement that is to be closed.
    pub fn take(&mut self, statement: &Statement) -> Option<Entry> {
        self.take_id(statement.id)
    }

    /// Takes out a statement that is to be closed because the client has closed it: only one that is not kept for others,
    /// and that nobody else holds.
    pub fn take_closed(&mut self, statement: &Rc<Statement>) -> Option<Entry> {
        let goes = statement.body().len() > KEPT_FOR_OTHERS_BYTES && Rc::strong_count(statement) == 1;
        if goes { self.take_id(statement.id) } else { None }
    }

    fn take_id(&mut self, id: u64) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// Takes out the least recently used statement if there are `limit` or more, or no room for so many `bytes` more.
    pub fn evict(&mut self, limit: usize, bytes: usize) -> Option<Entry> {
        if self.by_id.len() < limit.max(1) && self.bytes + bytes <= PREPARED_BYTES_MAX {
            return None;
        }
        let (_, &id) = self.by_use.first_key_value()?;
        self.take_id(id)
    }

    /// Whether a session holds one of those that are large.
    pub fn has_large_in_use(&self) -> bool {
        let in_use = |entry: &Entry| entry.bytes >= LARGE_TEXT_BYTES && entry.statement.strong_count() > 0;
        self.bytes >= LARGE_TEXT_BYTES && self.by_id.values().any(in_use)
    }

    /// Forgets all, after DISCARD ALL.
    pub fn clear(&mut self) {
        self.by_id.clear();
        self.by_use.clear();
        self.bytes = 0;
    }

    /// How many are prepared.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str, scope: u64) -> StatementKey {
        StatementKey { scope, body: text.as_bytes().into() }
    }

    fn intern(all: &Statements, key: StatementKey) -> Rc<Statement> {
        all.intern(key, |_| Ok(None)).expect("nothing is counted")
    }

    #[test]
    fn equal_statements_are_one_and_others_are_not() {
        let all = Statements::default();
        let one = intern(&all, key("select 1", 0));
        assert!(Rc::ptr_eq(&intern(&all, key("select 1", 0)), &one));
        assert_ne!(intern(&all, key("select 1", 7)).server_name(), one.server_name());
        assert_ne!(intern(&all, key("select 2", 0)).server_name(), one.server_name());
    }

    #[test]
    fn what_is_no_longer_shared_is_made_anew_once() {
        let all = Statements::default();
        let old = intern(&all, key("select 1", 0));
        all.forget(&old);
        let new = intern(&all, key("select 1", 0));
        assert_ne!(new.server_name(), old.server_name());
        all.forget(&old);
        assert!(Rc::ptr_eq(&intern(&all, key("select 1", 0)), &new));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let all = Statements::default();
        for at in 0..10_000 {
            intern(&all, key(&at.to_string(), 0));
        }
        assert!(all.known.borrow().len() < 100);
    }

    #[test]
    fn the_least_recently_used_statement_goes_first() {
        let (all, mut prepared) = (Statements::default(), Prepared::default());
        let [a, b, c] = ["a", "b", "c"].map(|text| intern(&all, key(text, 0)));
        prepared.insert(&a);
        prepared.insert(&b);
        assert!(prepared.evict(3, 1).is_none());
        prepared.insert(&c);
        assert!(prepared.touch(&a));
        assert!(
            prepared.evict(3, 1).is_some_and(|gone| gone.id() == b.id() && *gone.server_name() == *b.server_name())
        );
        assert!(!prepared.touch(&b) && prepared.touch(&a) && prepared.touch(&c));
        prepared.remove(&a);
        assert_eq!(prepared.len(), 1);
        prepared.clear();
        assert!(prepared.is_empty());
    }

    #[test]
    fn texts_that_nobody_holds_are_not_kept() {
        let all = Statements::default();
        // The table has had room for many.
        let many: Vec<_> = (0..2000).map(|at| intern(&all, key(&at.to_string(), 0))).collect();
        drop(many);
        for at in 0..50 {
            intern(&all, key(&format!("{at}{}", "x".repeat(PREPARED_BYTES_MAX / 2)), 0));
        }
        let bytes: usize = all.known.borrow().keys().map(|key| key.body.len()).sum();
        assert!(bytes < 4 * PREPARED_BYTES_MAX, "{bytes} bytes are kept for nobody");
    }

    #[test]
    fn the_bytes_prepared_on_a_connection_are_bounded() {
        let (all, mut prepared) = (Statements::default(), Prepared::default());
        let text = |at: usize, bytes: usize| key(&format!("{at:08}{}", "x".repeat(bytes - 8)), 0);
        let quarter = PREPARED_BYTES_MAX / 4;
        let held: Vec<_> = (0..4).map(|at| intern(&all, text(at, quarter))).collect();
        for statement in &held {
            assert!(prepared.evict(100, quarter).is_none());
            prepared.insert(statement);
        }
        assert!(prepared.has_large_in_use());
        let gone = prepared.evict(100, 1).expect("the first goes");
        assert_eq!(gone.id(), held[0].id());
        prepared.put_back(gone);
        assert_eq!(prepared.bytes, PREPARED_BYTES_MAX);
        // One that is larger than all takes the place of all.
        let mut evicted = 0;
        while prepared.evict(100, 2 * PREPARED_BYTES_MAX).is_some() {
            evicted += 1;
        }
        assert_eq!((evicted, prepared.bytes), (4, 0));
    }

    #[test]
    fn large_statements_stay_only_for_those_who_hold_them() {
        let (all, mut prepared) = (Statements::default(), Prepared::default());
        let small = intern(&all, key("select 1", 0));
        let large = intern(&all, key(&"x".repeat(LARGE_TEXT_BYTES), 0));
        prepared.insert(&small);
        prepared.insert(&large);
        let other = Rc::clone(&large);
        assert!(prepared.take_closed(&large).is_none(), "another session holds it");
        drop(other);
        assert!(prepared.take_closed(&small).is_none(), "the next session may prepare the same");
        assert!(prepared.take_closed(&large).is_some() && prepared.len() == 1);
        prepared.insert(&large);
        assert!(prepared.has_large_in_use());
        drop(large);
        assert!(!prepared.has_large_in_use());
    }
}
