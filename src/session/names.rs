//! The client's names of prepared statements, and what stands for them on server connections.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::guard::Verdict;
use crate::pool::Statement;

/// The most prepared statements that one session may hold.
const NAMES_MAX: usize = 10_000;

/// The most bytes of statements that one session may hold prepared.
const STATEMENT_BYTES_MAX: usize = 16 << 20;

/// A statement that the client has prepared, with the guard's verdict on it.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) statement: Rc<Statement>,
    pub(super) verdict: Arc<Verdict>,
}

/// What the client has prepared.
#[derive(Debug, Default)]
pub(super) struct Names {
    named: HashMap<Box<[u8]>, Held>,
    unnamed: Option<Held>,
    /// Of the named ones together.
    bytes: usize,
}

/// What is undone when a Parse fails or is skipped.
#[derive(Debug)]
pub(super) enum Undo {
    /// Nothing.
    Nothing,
    /// The client's name, and the statement on the server connection.
    Named {
        /// The client's name.
        name: Box<[u8]>,
        /// The statement is not on the server connection after all.
        parsed: bool,
    },
    /// A statement that we prepared for the client's Bind.
    Prepared(Rc<Statement>),
    /// The client's unnamed statement.
    Unnamed,
    /// The unnamed statement that we sent again.
    UnnamedAgain,
}

impl Names {
    /// What the client calls `name`; the empty name is the unnamed statement.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Held> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    /// Enters what the client calls `name`.
    pub(super) fn insert(&mut self, name: &[u8], held: Held) {
        if name.is_empty() {
            self.unnamed = Some(held);
        } else {
            self.bytes += held.statement.body().len();
            if let Some(old) = self.named.insert(name.into(), held) {
                self.bytes -= old.statement.body().len();
            }
        }
    }

    /// Forgets `name`, and returns what it stood for.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Held> {
        if name.is_empty() {
            return self.unnamed.take();
        }
        let held = self.named.remove(name)?;
        self.bytes -= held.statement.body().len();
        Some(held)
    }

    /// Whether there is room for one more named statement of that many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.named.len() < NAMES_MAX && self.bytes + bytes <= STATEMENT_BYTES_MAX
    }
}
