//! Prepared statements as server connections hold them: one for each text and types, whoever prepared it.
//!
//! A client's own names never reach a server; `session` maps them to these.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak};

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
    key: StatementKey,
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
    known: RefCell<HashMap<StatementKey, Weak<Statement>>>,
    next_id: Cell<u64>,
}

impl Statements {
    /// The statement of that key, new or shared.
    pub fn intern(&self, key: StatementKey) -> Rc<Statement> {
        let mut known = self.known.borrow_mut();
        if let Some(statement) = known.get(&key).and_then(Weak::upgrade) {
            return statement;
        }
        // What nobody holds any more goes when the table would have to grow.
        if known.len() == known.capacity() {
            known.retain(|_, statement| statement.strong_count() > 0);
        }
        let name = StatementKey { scope: key.scope, body: key.body.clone() };
        let id = self.take_id();
        let statement = Rc::new(Statement { id, server_name: format!("partywall_{id:x}").into(), key });
        known.insert(name, Rc::downgrade(&statement));
        statement
    }
}

impl Statements {
    /// Shares a statement no longer: whoever prepares the same text from now on gets a new one.
    pub fn forget(&self, statement: &Statement) {
        let mut known = self.known.borrow_mut();
        let is_it = known.get(&statement.key).is_some_and(|held| std::ptr::eq(held.as_ptr(), statement));
        if is_it {
            known.remove(&statement.key);
        }
    }

    /// A statement that is not shared: one that goes under no name.
    pub fn lone(&self, key: StatementKey) -> Rc<Statement> {
        Rc::new(Statement { id: self.take_id(), server_name: Box::default(), key })
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

/// The statements prepared on one server connection, the least recently used first to go.
#[derive(Debug, Default)]
pub struct Prepared {
    /// By statement id: when it was last used.
    by_id: HashMap<u64, (u64, Rc<Statement>)>,
    /// By last use: the statement id.
    by_use: BTreeMap<u64, u64>,
    clock: u64,
}

impl Prepared {
    /// Whether `statement` is prepared here; counts as a use.
    pub fn touch(&mut self, statement: &Statement) -> bool {
        let Some((used, _)) = self.by_id.get_mut(&statement.id) else {
            return false;
        };
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, statement.id);
        true
    }

    /// Enters a statement that is being prepared.
    pub fn insert(&mut self, statement: &Rc<Statement>) {
        self.remove(statement);
        self.clock += 1;
        self.by_use.insert(self.clock, statement.id);
        self.by_id.insert(statement.id, (self.clock, Rc::clone(statement)));
    }

    /// Forgets a statement whose Parse failed or was skipped, or that is being closed.
    pub fn remove(&mut self, statement: &Statement) {
        if let Some((used, _)) = self.by_id.remove(&statement.id) {
            self.by_use.remove(&used);
        }
    }

    /// Takes out the least recently used statement if there are `limit` or more.
    pub fn evict(&mut self, limit: usize) -> Option<Rc<Statement>> {
        if self.by_id.len() < limit.max(1) {
            return None;
        }
        let (_, id) = self.by_use.pop_first()?;
        self.by_id.remove(&id).map(|(_, statement)| statement)
    }

    /// Forgets all, after DISCARD ALL.
    pub fn clear(&mut self) {
        self.by_id.clear();
        self.by_use.clear();
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

    #[test]
    fn equal_statements_are_one_and_others_are_not() {
        let all = Statements::default();
        let one = all.intern(key("select 1", 0));
        assert!(Rc::ptr_eq(&all.intern(key("select 1", 0)), &one));
        assert_ne!(all.intern(key("select 1", 7)).server_name(), one.server_name());
        assert_ne!(all.intern(key("select 2", 0)).server_name(), one.server_name());
    }

    #[test]
    fn what_is_no_longer_shared_is_made_anew_once() {
        let all = Statements::default();
        let old = all.intern(key("select 1", 0));
        all.forget(&old);
        let new = all.intern(key("select 1", 0));
        assert_ne!(new.server_name(), old.server_name());
        all.forget(&old);
        assert!(Rc::ptr_eq(&all.intern(key("select 1", 0)), &new));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let all = Statements::default();
        for at in 0..10_000 {
            all.intern(key(&at.to_string(), 0));
        }
        assert!(all.known.borrow().len() < 100);
    }

    #[test]
    fn the_least_recently_used_statement_goes_first() {
        let (all, mut prepared) = (Statements::default(), Prepared::default());
        let [a, b, c] = ["a", "b", "c"].map(|text| all.intern(key(text, 0)));
        prepared.insert(&a);
        prepared.insert(&b);
        assert!(prepared.evict(3).is_none());
        prepared.insert(&c);
        assert!(prepared.touch(&a));
        assert!(prepared.evict(3).is_some_and(|gone| Rc::ptr_eq(&gone, &b)));
        assert!(!prepared.touch(&b) && prepared.touch(&a) && prepared.touch(&c));
        prepared.remove(&a);
        assert_eq!(prepared.len(), 1);
        prepared.clear();
        assert!(prepared.is_empty());
    }
}
