//! What the running transaction keeps in the server process: savepoints, portals and cursors, bounded in number and bytes.
//!
//! A savepoint under which something was written holds an entry of the server's lock table, which all organizations share;
//! a portal holds its parameters and what its plan has gathered. What adds to them is counted when it is sent, what takes
//! away when the server has said that it did (PostgreSQL manual, "Error and Notice Message Fields": command tags).

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use crate::guard::{Change, Verdict};

/// So many savepoints may be open in one transaction.
pub(super) const SAVEPOINTS_MAX: usize = 500;

/// So many named portals and cursors may be open on one server connection.
pub(super) const PORTALS_MAX: usize = 256;

/// So many bytes the parameters of open named portals may have together; a portal alone may cross it.
pub(super) const PORTAL_BYTES_MAX: usize = 64 << 20;

/// A statement that was sent and whose end the server has not told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Begin,
    Savepoint(Box<str>),
    Release(Box<str>),
    RollbackTo(Box<str>),
    End,
    Close(Option<Box<str>>),
}

impl Step {
    fn of(change: &Change) -> Option<Self> {
        Some(match change {
            Change::Begin => Self::Begin,
            Change::Savepoint(name) => Self::Savepoint(name.clone()),
            Change::Release(name) => Self::Release(name.clone()),
            Change::RollbackTo(name) => Self::RollbackTo(name.clone()),
            Change::Commit { .. } | Change::Rollback { .. } => Self::End,
            Change::CloseCursor(name) => Self::Close(name.clone()),
            _ => return None,
        })
    }

    /// Whether it may be what the server tells the end of by that command tag.
    fn ends_with(&self, tag: &[u8]) -> bool {
        match self {
            Self::Begin => matches!(tag, b"BEGIN" | b"START TRANSACTION"),
            Self::Savepoint(_) => tag == b"SAVEPOINT",
            Self::Release(_) => tag == b"RELEASE",
            Self::RollbackTo(_) => tag == b"ROLLBACK",
            Self::End => matches!(tag, b"COMMIT" | b"ROLLBACK"),
            Self::Close(_) => tag.starts_with(b"CLOSE CURSOR"),
        }
    }
}

/// Whether there is room for what a text adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// There is.
    Yes,
    /// Not before the server has told what became of what was sent.
    Wait,
    /// Too many savepoints are open.
    Savepoints,
    /// Too many portals and cursors are open.
    Portals,
}

/// A named portal, or a cursor.
#[derive(Debug, Clone, Copy, Default)]
struct Portal {
    /// The size of its Bind; of a cursor none.
    size: usize,
    /// It goes when the transaction is rolled back to one of so many savepoints that were open when it was made, or to one
    /// that came after: no more than that are known to have been open.
    depth: usize,
}

/// The savepoints, portals and cursors of one server connection in a session's hands.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    savepoints: Vec<Box<str>>,
    /// Sent and not answered, in their order.
    steps: VecDeque<Step>,
    /// How many of these are savepoints.
    coming: usize,
    /// What the portals do that have been bound and not executed.
    bound: HashMap<Box<[u8]>, Box<[Step]>, RandomState>,
    /// Named portals and cursors.
    portals: HashMap<Box<[u8]>, Portal, RandomState>,
    portal_bytes: usize,
    /// Cursors that outlived their transactions.
    held: usize,
}

impl Transaction {
    /// Whether what `verdict` says a text does may be added; `named` where it is to be bound to a portal that has a name,
    /// by a Bind of so many bytes.
    pub(super) fn room(&self, verdict: Option<&Verdict>, named: Option<usize>) -> Room {
        let verdict = verdict.filter(|verdict| !verdict.changes_nothing());
        let cursors = verdict.map_or(0, |verdict| Self::cursors(verdict).count());
        let new = cursors + usize::from(named.is_some());
        let portals = self.portals.len() + self.held;
        let heavy = portals > 0 && named.is_some_and(|size| self.portal_bytes + size > PORTAL_BYTES_MAX);
        if new > 0 && (portals + new > PORTALS_MAX || heavy) {
            return if self.steps.is_empty() { Room::Portals } else { Room::Wait };
        }
        match verdict.and_then(|verdict| Self::deepest(verdict, self.savepoints.len())) {
            None => Room::Yes,
            Some(deepest) if deepest > SAVEPOINTS_MAX => Room::Savepoints,
            Some(deepest) if deepest + self.unsure() > SAVEPOINTS_MAX => Room::Wait,
            Some(_) => Room::Yes,
        }
    }

    /// Savepoints that may yet be made: sent, or bound to portals.
    fn unsure(&self) -> usize {
        let is_one = |step: &&Step| matches!(step, Step::Savepoint(_));
        self.coming + self.bound.values().flat_map(|steps| steps.iter()).filter(is_one).count()
    }

    fn cursors(verdict: &Verdict) -> impl Iterator<Item = &str> {
        verdict.changes().filter_map(|change| match change {
            Change::DeclareCursor { name, .. } => Some(&**name),
            _ => None,
        })
    }

    /// How many savepoints are open at the most while a text runs; none where it makes none.
    fn deepest(verdict: &Verdict, before: usize) -> Option<usize> {
        if !verdict.changes().any(|change| matches!(change, Change::Savepoint(_))) {
            return None;
        }
        let (mut base, mut own, mut deepest) = (before, Vec::new(), 0);
        for change in verdict.changes() {
            match change {
                Change::Savepoint(name) => own.push(name),
                Change::Release(name) => {
                    if let Some(at) = own.iter().rposition(|known| *known == name) {
                        own.truncate(at);
                    }
                }
                Change::RollbackTo(name) => {
                    if let Some(at) = own.iter().rposition(|known| *known == name) {
                        own.truncate(at + 1);
                    }
                }
                Change::Commit { .. } | Change::Rollback { .. } => {
                    base = 0;
                    own.clear();
                }
                _ => {}
            }
            deepest = deepest.max(base + own.len());
        }
        Some(deepest)
    }

    /// How many savepoints there may be at the most while a text runs; none where it makes none.
    pub(super) fn most(&self, verdict: &Verdict) -> Option<usize> {
        Some(Self::deepest(verdict, self.savepoints.len())? + self.unsure())
    }

    /// How many savepoints are open, or on their way to be.
    pub(super) fn savepoints(&self) -> usize {
        self.savepoints.len() + self.unsure()
    }

    /// A text that was judged so is sent.
    pub(super) fn sent(&mut self, verdict: &Verdict) {
        if verdict.changes_nothing() {
            return;
        }
        for name in Self::cursors(verdict) {
            self.open(name.as_bytes(), 0);
        }
        for step in verdict.changes().filter_map(Step::of) {
            self.send(step);
        }
    }

    fn send(&mut self, step: Step) {
        // Where nothing is counted, a transaction's begin and end change nothing.
        let idle = self.steps.is_empty() && self.savepoints.is_empty();
        if idle && matches!(step, Step::Begin | Step::End) {
            return;
        }
        self.coming += usize::from(matches!(step, Step::Savepoint(_)));
        self.steps.push_back(step);
    }

    /// A Bind of such a statement is sent, of so many bytes.
    pub(super) fn sent_bind(&mut self, portal: &[u8], verdict: Option<&Verdict>, size: usize) {
        if !portal.is_empty() {
            self.open(portal, size);
        }
        if !self.bound.is_empty() {
            self.bound.remove(portal);
        }
        let Some(verdict) = verdict.filter(|verdict| !verdict.changes_nothing()) else { return };
        for name in Self::cursors(verdict) {
            self.open(name.as_bytes(), 0);
        }
        let steps: Box<[Step]> = verdict.changes().filter_map(Step::of).collect();
        if !steps.is_empty() {
            self.bound.insert(portal.into(), steps);
        }
    }

    fn open(&mut self, name: &[u8], size: usize) {
        // While the end of a statement is waited for, it is not known under which savepoints this is made.
        let depth = if self.steps.is_empty() { self.savepoints.len() } else { 0 };
        self.put(name, Portal { size, depth });
    }

    fn put(&mut self, name: &[u8], portal: Portal) {
        let before = self.portals.insert(name.into(), portal).unwrap_or_default();
        self.portal_bytes = self.portal_bytes - before.size + portal.size;
    }

    /// An Execute of that portal is sent.
    pub(super) fn sent_execute(&mut self, portal: &[u8]) {
        if self.bound.is_empty() {
            return;
        }
        for step in self.bound.remove(portal).into_iter().flatten() {
            self.send(step);
        }
    }

    /// A Close of that portal is sent; how many bytes its Bind had.
    pub(super) fn sent_close(&mut self, portal: &[u8]) -> Option<usize> {
        let Portal { size, .. } = self.portals.remove(portal)?;
        self.portal_bytes -= size;
        Some(size)
    }

    /// Such a Close came to nothing.
    pub(super) fn closed_in_vain(&mut self, portal: &[u8], size: usize) {
        self.put(portal, Portal { size, depth: 0 });
    }

    /// Whether the command tags of the server's answers matter.
    #[inline]
    pub(super) fn listens(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The server has told the end of a statement, given the body of its CommandComplete.
    pub(super) fn ended(&mut self, body: &[u8]) {
        let tag = body.strip_suffix(&[0]).unwrap_or(body);
        let Some(at) = self.steps.iter().position(|step| step.ends_with(tag)) else { return };
        // What was sent before it and has not been told the end of came to nothing.
        let failed = self.steps.drain(..at).filter(|step| matches!(step, Step::Savepoint(_))).count();
        self.coming -= failed;
        match self.steps.pop_front() {
            Some(Step::Savepoint(name)) => {
                self.coming -= 1;
                self.savepoints.push(name);
            }
            Some(Step::Release(name)) => {
                if let Some(at) = self.find(&name) {
                    self.savepoints.truncate(at);
                    self.portals.values_mut().for_each(|portal| portal.depth = portal.depth.min(at));
                }
            }
            Some(Step::RollbackTo(name)) => {
                if let Some(at) = self.find(&name) {
                    self.savepoints.truncate(at + 1);
                    self.portals.retain(|_, portal| portal.depth <= at);
                    self.portal_bytes = self.portals.values().map(|portal| portal.size).sum();
                }
            }
            Some(Step::Begin | Step::End) => self.savepoints.clear(),
            Some(Step::Close(Some(name))) => _ = self.sent_close(name.as_bytes()),
            Some(Step::Close(None)) => self.close_all(),
            None => {}
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.savepoints.iter().rposition(|known| **known == *name)
    }

    fn close_all(&mut self) {
        self.portals.clear();
        self.portal_bytes = 0;
        self.held = 0;
    }

    /// Nothing is owed any more; `idle` where no transaction is open.
    pub(super) fn settled(&mut self, idle: bool) {
        self.steps.clear();
        self.coming = 0;
        if idle {
            self.savepoints.clear();
            self.bound.clear();
            self.portals.clear();
            self.portal_bytes = 0;
        }
    }

    /// The server says how many cursors have outlived their transactions.
    pub(super) fn set_held(&mut self, held: usize) {
        self.held = held;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{GuardPolicy, Right};
    use crate::guard::Guard;

    fn judged(sql: &str) -> Arc<Verdict> {
        let roles = [("developer".to_owned(), vec![Right::Read, Right::Write])].into();
        let guard = Guard::new(&GuardPolicy { roles, ..GuardPolicy::default() }, &[], 1 << 20);
        let rights = guard.rights(&["developer"], &[] as &[&str]);
        guard.judge(sql, &rights).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"))
    }

    /// Sends a text and has the server answer with these tags.
    fn run(transaction: &mut Transaction, sql: &str, tags: &[&str]) {
        transaction.sent(&judged(sql));
        tags.iter().for_each(|tag| transaction.ended(&[tag.as_bytes(), &[0]].concat()));
    }

    fn room(transaction: &Transaction, sql: &str) -> Room {
        transaction.room(Some(&judged(sql)), None)
    }

    #[test]
    fn savepoints_are_counted_as_the_server_has_them() {
        let mut transaction = Transaction::default();
        run(&mut transaction, "savepoint a; savepoint b; savepoint a; savepoint c", &["SAVEPOINT"; 4]);
        assert_eq!(transaction.savepoints(), 4);
        run(&mut transaction, "rollback to b", &["ROLLBACK"]);
        assert_eq!(transaction.savepoints(), 2);
        run(&mut transaction, "release b", &["RELEASE"]);
        assert_eq!(transaction.savepoints(), 1);
        run(&mut transaction, "savepoint d", &["SAVEPOINT"]);
        run(&mut transaction, "commit and chain", &["COMMIT"]);
        assert_eq!(transaction.savepoints(), 0);
        run(&mut transaction, "savepoint e", &["SAVEPOINT"]);
        transaction.settled(false);
        assert_eq!(transaction.savepoints(), 1);
        transaction.settled(true);
        assert_eq!(transaction.savepoints(), 0);
    }

    #[test]
    fn what_the_server_refused_takes_nothing_away() {
        let mut transaction = Transaction::default();
        run(&mut transaction, "savepoint a; savepoint b; savepoint c", &["SAVEPOINT"; 3]);
        // A failed transaction: the RELEASE comes to nothing, and the ROLLBACK TO brings the transaction back.
        run(&mut transaction, "release a", &[]);
        run(&mut transaction, "rollback to c", &["ROLLBACK"]);
        assert_eq!(transaction.savepoints(), 3);
        // Outside of a transaction there are none: a name from there is not taken for one of the next transaction.
        transaction.settled(true);
        run(&mut transaction, "savepoint x", &[]);
        run(&mut transaction, "begin", &["BEGIN"]);
        run(&mut transaction, "savepoint y", &["SAVEPOINT"]);
        run(&mut transaction, "savepoint x", &["SAVEPOINT"]);
        run(&mut transaction, "release x", &["RELEASE"]);
        assert_eq!(transaction.savepoints(), 1);
    }

    #[test]
    fn savepoints_on_their_way_are_waited_for_and_too_many_are_refused() {
        let mut transaction = Transaction::default();
        let texts = "savepoint s;".repeat(SAVEPOINTS_MAX - 1);
        assert_eq!(room(&transaction, &format!("{texts} savepoint s; savepoint s")), Room::Savepoints);
        assert_eq!(room(&transaction, &"savepoint s; release s;".repeat(SAVEPOINTS_MAX + 1)), Room::Yes);
        transaction.sent(&judged(&texts));
        assert_eq!(room(&transaction, "savepoint s"), Room::Yes);
        assert_eq!(room(&transaction, "savepoint s; savepoint s"), Room::Wait);
        (1..SAVEPOINTS_MAX).for_each(|_| transaction.ended(b"SAVEPOINT\0"));
        assert_eq!(room(&transaction, "savepoint s; savepoint s"), Room::Savepoints);
        // By protocol it is made by the Execute, not by the Bind.
        let verdict = judged("savepoint s");
        transaction.sent_bind(b"", Some(&verdict), 10);
        assert_eq!(room(&transaction, "savepoint s"), Room::Wait, "it may be executed yet");
        transaction.sent_execute(b"");
        transaction.ended(b"SAVEPOINT\0");
        assert_eq!(room(&transaction, "savepoint s"), Room::Savepoints);
        assert_eq!(room(&transaction, "select 1"), Room::Yes);
        run(&mut transaction, "release s", &["RELEASE"]);
        assert_eq!(room(&transaction, "savepoint s"), Room::Yes);
    }

    #[test]
    fn portals_go_with_the_savepoint_that_they_were_made_under() {
        let mut transaction = Transaction::default();
        transaction.sent_bind(b"before", None, 1);
        run(&mut transaction, "savepoint a", &["SAVEPOINT"]);
        transaction.sent_bind(b"under", None, 2);
        run(&mut transaction, "savepoint b", &["SAVEPOINT"]);
        transaction.sent_bind(b"released", None, 4);
        run(&mut transaction, "release b", &["RELEASE"]);
        run(&mut transaction, "savepoint c", &["SAVEPOINT"]);
        run(&mut transaction, "rollback to c", &["ROLLBACK"]);
        assert_eq!((transaction.portals.len(), transaction.portal_bytes), (3, 7), "they are older than c");
        // Whether it is made under a savepoint that is on its way is not known.
        run(&mut transaction, "savepoint d", &[]);
        transaction.sent_bind(b"unsure", None, 8);
        transaction.ended(b"SAVEPOINT\0");
        run(&mut transaction, "rollback to a", &["ROLLBACK"]);
        assert_eq!((transaction.portals.len(), transaction.portal_bytes), (2, 9));
    }

    #[test]
    fn portals_and_cursors_count_together_and_by_the_bytes_of_their_parameters() {
        let mut transaction = Transaction::default();
        for at in 0..PORTALS_MAX - 2 {
            assert_eq!(transaction.room(None, Some(1)), Room::Yes);
            transaction.sent_bind(at.to_string().as_bytes(), None, 1);
        }
        run(&mut transaction, "declare c cursor for select 1", &["DECLARE CURSOR"]);
        assert_eq!(room(&transaction, "declare d cursor for select 1; declare e cursor for select 1"), Room::Portals);
        transaction.set_held(1);
        assert_eq!(transaction.room(None, Some(1)), Room::Portals);
        assert_eq!(transaction.room(None, None), Room::Yes, "the unnamed portal takes the place of another");
        assert_eq!(transaction.sent_close(b"0"), Some(1));
        assert_eq!(transaction.room(None, Some(1)), Room::Yes);
        transaction.closed_in_vain(b"0", 1);
        assert_eq!(transaction.room(None, Some(1)), Room::Portals);
        // A CLOSE counts when the server has done it.
        run(&mut transaction, "close c", &[]);
        assert_eq!(transaction.room(None, Some(1)), Room::Wait);
        transaction.ended(b"CLOSE CURSOR\0");
        assert_eq!(transaction.room(None, Some(1)), Room::Yes);
        run(&mut transaction, "close all", &["CLOSE CURSOR ALL"]);
        assert_eq!(transaction.room(None, Some(2 * PORTAL_BYTES_MAX)), Room::Yes, "one alone may be large");
        transaction.sent_bind(b"large", None, 2 * PORTAL_BYTES_MAX);
        assert_eq!(transaction.room(None, Some(1)), Room::Portals);
        transaction.settled(true);
        assert_eq!(transaction.room(None, Some(1)), Room::Yes);
    }
}
