//! The client's names of prepared statements, and what stands for them on server connections.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::guard::Verdict;
use crate::pool::Statement;

/// The most prepared statements that one session may hold.
pub(super) const NAMES_MAX: usize = 10_000;

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
            self.named.insert(name.into(), held);
        }
    }

    /// Forgets `name`, and returns what it stood for.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Held> {
        if name.is_empty() { self.unnamed.take() } else { self.named.remove(name) }
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.named.len()
    }
}
