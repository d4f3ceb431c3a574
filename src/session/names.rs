//! The client's names of prepared statements, and what stands for them on server connections.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::event::StatementClass;
use crate::guard::Verdict;
use crate::pool::{Entry, Statement};
use crate::wire::flow::Weigh;

/// The most prepared statements that one session may hold.
const NAMES_MAX: usize = 10_000;

/// The most names that are remembered only for errors to speak of.
const GONE_MAX: usize = 100;

/// The most bytes of statements that one session may hold prepared.
const STATEMENT_BYTES_MAX: usize = 16 << 20;

/// The most bytes of texts that are held only for errors, or for what an error may bring back.
const GONE_BYTES_MAX: usize = 1 << 20;

/// The longest name of the protocol that is kept, in bytes. The server would take any; SQL has 63.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// What a name takes beside its own bytes and those of the text.
const ENTRY_BYTES: usize = 160;

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
    /// Whether it is one statement of the kinds that PREPARE takes: the server is never made to EXECUTE another kind by
    /// name, which it cannot do from SQL either.
    pub(super) fn is_plain(&self) -> bool {
        match self {
            Self::Shared { verdict, .. } => {
                verdict.statements().len() == 1
                    && matches!(verdict.class(), StatementClass::Read | StatementClass::Write)
            }
            Self::Sql { .. } => true,
            Self::About { .. } => false,
        }
    }

    /// What the guard says of it, where it was judged as a whole.
    pub(super) fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Shared { verdict, .. } | Self::About { verdict, .. } => Some(verdict),
            Self::Sql { .. } => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Shared { statement, .. } => statement.body().len(),
            Self::Sql { .. } => 0,
            Self::About { text, .. } => text.len(),
        }
    }

    /// What is kept of it beside the text of a statement that server connections have.
    fn more_bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Shared { verdict, .. } => verdict.bytes(),
                Self::Sql { touches } => touches.iter().map(|name| 16 + name.len()).sum(),
                Self::About { text, verdict } => text.len() + verdict.bytes(),
            }
    }
}

/// What the client has prepared.
#[derive(Debug, Default)]
pub(super) struct Names {
    named: HashMap<Box<[u8]>, Held>,
    unnamed: Unnamed,
    /// How many unnamed statements there have been.
    unnamed_births: u64,
    /// What was before those that have been undone while others had come after them.
    unborn: HashMap<u64, Unnamed>,
    /// Of the texts of the named ones together.
    bytes: usize,
    /// Of what else is kept of them: names, verdicts, texts that no server connection has.
    more_bytes: usize,
    /// Of the texts of those that are gone.
    gone_bytes: usize,
    /// Names that went while messages that use them were on their way: errors still speak of them.
    gone: Vec<(Box<[u8]>, Rc<Statement>)>,
}

/// The unnamed statement, or none, and its number among all that have been.
#[derive(Debug, Clone, Default)]
struct Unnamed {
    birth: u64,
    held: Option<Held>,
}

/// A change of the unnamed statement.
#[derive(Debug)]
pub(super) struct Renewed {
    birth: u64,
    before: Unnamed,
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
    Evicted(Entry),
    /// The client's Close of a portal.
    PortalClosed {
        /// Its name.
        name: Box<[u8]>,
        /// How many bytes its Bind had.
        size: usize,
    },
    /// The client's Close of a name that stood for something.
    Closed {
        /// The name.
        name: Box<[u8]>,
        /// What it stood for.
        held: Held,
    },
    /// The client's Bind of the unnamed portal, in the batch of that number.
    UnnamedPortal(u64),
    /// The client's Bind of a statement about the session itself.
    AboutPortal {
        /// The portal's name.
        name: Box<[u8]>,
        /// The number of the batch.
        batch: u64,
    },
    /// The client's unnamed statement, which is what it was before.
    Unnamed(Renewed),
    /// The unnamed statement that we sent again.
    UnnamedAgain,
}

impl Weigh for Undo {
    fn bytes(&self) -> usize {
        match self {
            Self::Nothing | Self::UnnamedPortal(_) | Self::UnnamedAgain | Self::Evicted(_) => 0,
            Self::Named { name, .. } | Self::AboutPortal { name, .. } | Self::PortalClosed { name, .. } => name.len(),
            Self::Prepared(statement) => statement.body().len(),
            Self::Closed { name, held } => name.len() + held.bytes(),
            Self::Unnamed(renewed) => renewed.before.bytes(),
        }
    }
}

impl Unnamed {
    fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, Held::bytes)
    }
}

impl Names {
    /// What the client calls `name`; the empty name is the unnamed statement.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Held> {
        if name.is_empty() { self.unnamed.held.as_ref() } else { self.named.get(name) }
    }

    /// Makes `held` the unnamed statement; none: there is none any more.
    pub(super) fn renew(&mut self, held: Option<Held>) -> Renewed {
        self.unnamed_births += 1;
        let birth = self.unnamed_births;
        Renewed { birth, before: std::mem::replace(&mut self.unnamed, Unnamed { birth, held }) }
    }

    /// Undoes such a change; a later one, of a batch that was sent before this was known, stands.
    pub(super) fn undo_renewal(&mut self, Renewed { birth, mut before }: Renewed) {
        while let Some(earlier) = self.unborn.get(&before.birth) {
            before = earlier.clone();
        }
        if self.unnamed.birth == birth {
            self.unnamed = before;
        } else if self.unborn.len() < GONE_MAX && self.gone_bytes <= GONE_BYTES_MAX {
            self.gone_bytes += before.bytes();
            self.unborn.insert(birth, before);
        }
    }

    /// Enters what the client calls `name`, which is not the empty one.
    pub(super) fn insert(&mut self, name: &[u8], held: Held) {
        self.bytes += held.bytes();
        self.more_bytes += name.len() + held.more_bytes();
        if let Some(old) = self.named.insert(name.into(), held) {
            self.bytes -= old.bytes();
            self.more_bytes -= name.len() + old.more_bytes();
        }
    }

    /// Forgets `name`, which is not the empty one, and returns what it stood for.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Held> {
        let held = self.named.remove(name)?;
        self.bytes -= held.bytes();
        self.more_bytes -= name.len() + held.more_bytes();
        if let Held::Shared { statement, .. } = &held
            && self.gone.len() < GONE_MAX
            && self.gone_bytes + held.bytes() <= GONE_BYTES_MAX
        {
            self.gone_bytes += held.bytes();
            self.gone.push((name.into(), Rc::clone(statement)));
        }
        Some(held)
    }

    /// Forgets all but the unnamed statement.
    pub(super) fn clear_named(&mut self) {
        self.named = HashMap::new();
        (self.bytes, self.more_bytes) = (0, 0);
    }

    /// What the client calls the statement that server connections hold under that name.
    pub(super) fn of_server(&self, server_name: &str) -> Option<&[u8]> {
        let is_it = |statement: &Statement| statement.server_name() == server_name;
        let stands = |held: &Held| matches!(held, Held::Shared { statement, .. } if is_it(statement));
        let known = self.named.iter().find(|(_, held)| stands(held)).map(|(name, _)| name);
        let gone = || self.gone.iter().rev().find(|(_, statement)| is_it(statement)).map(|(name, _)| name);
        known.or_else(gone).map(|name| &**name)
    }

    /// No message is on its way any more that errors could speak of.
    pub(super) fn forget_gone(&mut self) {
        if !self.gone.is_empty() || !self.unborn.is_empty() {
            self.gone = Vec::new();
            self.unborn = HashMap::new();
            self.gone_bytes = 0;
        }
    }

    /// What stands on server connections for the names that the client gave.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Statement> {
        self.named.values().filter_map(|held| match held {
            Held::Shared { statement, .. } => Some(&**statement),
            Held::Sql { .. } | Held::About { .. } => None,
        })
    }

    /// How many bytes are kept of names and verdicts.
    pub(super) fn more_bytes(&self) -> usize {
        self.more_bytes
    }

    /// Whether there is room for one more named statement of that many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.named.len() < NAMES_MAX && self.bytes + bytes <= STATEMENT_BYTES_MAX
    }
}
