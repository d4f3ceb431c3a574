//! Names and statements whose fate hangs on a batch that the server has not answered yet.
//!
//! A client may send its next batch before the answers to the last. Where that one named or prepared something, an error
//! in it decides whether it exists: what uses it again waits for the answer, and everything else goes on.

use std::collections::HashMap;
use std::hash::Hash;

use ahash::RandomState;

use super::names::Undo;
use crate::pool::Statement;
use crate::wire::flow::Flow;

/// How many are kept before those that have been decided are forgotten.
const MARKS_KEPT: usize = 256;

/// So many are remembered one by one; beyond them everything waits for the answers.
const MARKS_MAX: usize = 4096;

/// For so many the room is kept when they have been forgotten.
const ROOM_KEPT: usize = 14;

/// In which batch each was last named, prepared or closed.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    names: HashMap<Box<[u8]>, u64, RandomState>,
    statements: HashMap<u64, u64, RandomState>,
    /// Up to which batch more was named, prepared or closed than is remembered.
    all: Option<u64>,
}

impl Undecided {
    /// Remembers that the batch being sent names or closes what the client calls `name`.
    pub(super) fn note_name(&mut self, name: &[u8], flow: &Flow<Undo>) {
        self.bound(flow);
        note(&mut self.names, name.into(), flow);
    }

    /// Remembers that the batch being sent prepares or closes `statement` on the server connection.
    pub(super) fn note_statement(&mut self, statement: &Statement, flow: &Flow<Undo>) {
        self.note_id(statement.id(), flow);
    }

    /// The same, by the statement's number.
    pub(super) fn note_id(&mut self, id: u64, flow: &Flow<Undo>) {
        self.bound(flow);
        note(&mut self.statements, id, flow);
    }

    /// One batch may name without end: what is too much to remember is undecided as a whole.
    fn bound(&mut self, flow: &Flow<Undo>) {
        if self.names.len() >= MARKS_MAX || self.statements.len() >= MARKS_MAX {
            self.clear();
            self.all = Some(flow.batch());
        }
    }

    fn has_all(&self, flow: &Flow<Undo>) -> bool {
        // A batch up to that one has been sent and not been answered.
        self.all.is_some_and(|batch| flow.is_undecided_before(batch))
    }

    /// Whether an earlier batch may still make or unmake `name`.
    pub(super) fn has_name(&self, name: &[u8], flow: &Flow<Undo>) -> bool {
        flow.is_behind() && (self.has_all(flow) || self.names.get(name).is_some_and(|&batch| flow.is_undecided(batch)))
    }

    /// Whether an earlier batch may still make or unmake `statement`.
    pub(super) fn has_statement(&self, statement: &Statement, flow: &Flow<Undo>) -> bool {
        flow.is_behind()
            && (self.has_all(flow)
                || self.statements.get(&statement.id()).is_some_and(|&batch| flow.is_undecided(batch)))
    }

    /// Forgets all: nothing is owed.
    pub(super) fn clear(&mut self) {
        empty(&mut self.names);
        empty(&mut self.statements);
        self.all = None;
    }
}

/// Keeps the room of a few: nearly every batch needs it.
fn empty<K>(marks: &mut HashMap<K, u64, RandomState>) {
    if marks.capacity() > ROOM_KEPT {
        *marks = HashMap::default();
    } else if !marks.is_empty() {
        marks.clear();
    }
}

fn note<K: Eq + Hash>(marks: &mut HashMap<K, u64, RandomState>, key: K, flow: &Flow<Undo>) {
    if marks.len() >= MARKS_KEPT && marks.len() == marks.capacity() {
        marks.retain(|_, &mut batch| batch == flow.batch() || flow.is_undecided(batch));
    }
    marks.insert(key, flow.batch());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flow::Owed;

    #[test]
    fn one_batch_that_names_without_end_is_remembered_as_a_whole() {
        let (mut undecided, mut flow) = (Undecided::default(), Flow::default());
        for at in 0..3 * MARKS_MAX as u64 {
            undecided.note_name(&at.to_be_bytes(), &flow);
            undecided.note_id(at, &flow);
        }
        assert!(undecided.names.len() <= MARKS_MAX && undecided.statements.len() <= MARKS_MAX);
        flow.sent(Owed::Sync { ours: false });
        assert!(undecided.has_name(&0_u64.to_be_bytes(), &flow), "forgotten, and may still fail");
        assert!(flow.received(b'Z', b'I').is_ok());
        assert!(!undecided.has_name(&0_u64.to_be_bytes(), &flow));
        flow.sent(Owed::Sync { ours: false });
        assert!(!undecided.has_name(&0_u64.to_be_bytes(), &flow), "of a later batch nothing is known");
    }
}
