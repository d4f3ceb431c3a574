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

/// A statement that the client has prepared.
#[derive(Debug, Clone)]
pub(super) enum Held {
    /// By protocol: it is put on whichever server connection the session gets.
    Shared {
        /// What stands for it on server connections.
        statement: Rc<Statement>,
        /// What the guard says of it.
        verdict: Arc<Verdict>,
    },
    /// By PREPARE: it stands on the session's own server connection, under the client's own name.
    Sql {
        /// The settings that it may change when it is executed.
        touches: Rc<[Box<str>]>,
    },
    /// By protocol, and about the session itself: it is never on a server connection.
    About {
        /// The statement.
        text: Rc<str>,
        /// What the guard says of it.
        verdict: Arc<Verdict>,
    },
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Self::Shared { statement, .. } => statement.body().len(),
            Self::Sql { .. } => 0,
            Self::About { text, .. } => text.len(),
        }
    }
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
    /// A statement that we closed on the server connection to make room.
    Evicted(Rc<Statement>),
    /// The client's Close of a name that stood for something.
    Closed {
        /// The name.
        name: Box<[u8]>,
        /// What it stood for.
        held: Held,
    },
    /// The client's Bind of the unnamed portal, in the batch of that number.
    UnnamedPortal(u64),
    /// The client's unnamed statement.
    Unnamed(Rc<Statement>),
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
            self.bytes += held.bytes();
            if let Some(old) = self.named.insert(name.into(), held) {
                self.bytes -= old.bytes();
            }
        }
    }

    /// Forgets `name`, and returns what it stood for.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Held> {
        if name.is_empty() {
            return self.unnamed.take();
        }
        let held = self.named.remove(name)?;
        self.bytes -= held.bytes();
        Some(held)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What stands on server connections for the names that the client gave.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Statement> {
        self.named.values().filter_map(|held| match held {
            Held::Shared { statement, .. } => Some(&**statement),
            Held::Sql { .. } | Held::About { .. } => None,
        })
    }

    /// Whether there is room for one more named statement of that many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.named.len() < NAMES_MAX && self.bytes + bytes <= STATEMENT_BYTES_MAX
    }
}
