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

/// For so many the room is kept when they have been forgotten.
const ROOM_KEPT: usize = 14;

/// In which batch each was last named, prepared or closed.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    names: HashMap<Box<[u8]>, u64, RandomState>,
    statements: HashMap<u64, u64, RandomState>,
}

impl Undecided {
    /// Remembers that the batch being sent names or closes what the client calls `name`.
    pub(super) fn note_name(&mut self, name: &[u8], flow: &Flow<Undo>) {
        note(&mut self.names, name.into(), flow);
    }

    /// Remembers that the batch being sent prepares or closes `statement` on the server connection.
    pub(super) fn note_statement(&mut self, statement: &Statement, flow: &Flow<Undo>) {
        note(&mut self.statements, statement.id(), flow);
    }

    /// Whether an earlier batch may still make or unmake `name`.
    pub(super) fn has_name(&self, name: &[u8], flow: &Flow<Undo>) -> bool {
        flow.is_behind() && self.names.get(name).is_some_and(|&batch| flow.is_undecided(batch))
    }

    /// Whether an earlier batch may still make or unmake `statement`.
    pub(super) fn has_statement(&self, statement: &Statement, flow: &Flow<Undo>) -> bool {
        flow.is_behind() && self.statements.get(&statement.id()).is_some_and(|&batch| flow.is_undecided(batch))
    }

    /// Forgets all: nothing is owed.
    pub(super) fn clear(&mut self) {
        empty(&mut self.names);
        empty(&mut self.statements);
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
