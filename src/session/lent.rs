//! Names lent to a server connection: what the client prepared by protocol stands there under the client's own name for as
//! long as SQL speaks of it.

use std::rc::Rc;

use super::Session;
use super::about::EMPTY;
use super::frontend::{put_named, put_parse};
use super::names::{Held, Undo};
use super::outgoing::Outgoing;
use crate::guard::{Change, Verdict};
use crate::wire::flow::{Owed, Status};
use crate::wire::frame::{self, frontend};

impl Session {
    /// Puts statements that the client prepared by protocol on the connection under the client's own names, in a batch
    /// of ours before the text that uses those names.
    pub(super) fn lend_names(&mut self, verdict: &Verdict, out: &mut Outgoing<'_>) {
        // In a failed transaction nothing can be prepared, and the text will fail whatever it names.
        if self.flow.status() == Status::Failed {
            return;
        }
        self.put_lent(verdict, true, out);
        if !self.borrowed.is_empty() {
            sync(out);
            self.flow.sent(Owed::Sync { ours: true });
        }
    }

    /// As [`Self::lend_names`], inside a batch of the client's: taken back after its Sync, since a failing batch skips
    /// what stands before it.
    pub(super) fn lend_names_in_batch(&mut self, verdict: &Verdict, out: &mut Outgoing<'_>) {
        if !verdict.changes_nothing() {
            self.put_lent(verdict, false, out);
        }
    }

    pub(super) fn put_lent(&mut self, text: &Verdict, quiet: bool, out: &mut Outgoing<'_>) {
        let executes = |name: &[u8]| {
            text.changes().any(|change| matches!(change, Change::Execute(known) if known.as_bytes() == name))
        };
        for change in text.changes() {
            let (Change::Execute(name) | Change::Deallocate(Some(name)) | Change::Prepare { name, .. }) = change else {
                continue;
            };
            let name = name.as_bytes();
            let Some(held) = self.names.get(name) else { continue };
            // EXECUTE of another kind can end a PostgreSQL server, and everybody's sessions with it.
            if executes(name) && !held.is_plain() {
                continue;
            }
            // What only stands for the name need not be what the client prepared: that could fail by now, say because
            // its tables are out of the search_path.
            let statement = match held {
                Held::Shared { statement, .. } if executes(name) => Some(Rc::clone(statement)),
                Held::Shared { .. } | Held::About { .. } => None,
                Held::Sql { .. } => continue,
            };
            if self.borrowed.iter().any(|lent| **lent == *name) {
                continue;
            }
            put_parse(out.writer(), name, statement.as_ref().map_or(EMPTY, |statement| statement.body()));
            self.flow.sent(Owed::Parse { ours: true, quiet, undo: Undo::Nothing });
            self.borrowed.push(name.into());
        }
    }

    /// Closes on the connection what was lent to it, in a batch of ours.
    pub(super) fn take_names_back(&mut self, out: &mut Outgoing<'_>) {
        if self.borrowed.is_empty() {
            return;
        }
        for name in std::mem::take(&mut self.borrowed) {
            put_named(out.writer(), frontend::CLOSE, &name);
            self.flow.sent(Owed::Close { ours: true, undo: Undo::Nothing });
        }
        sync(out);
        self.flow.sent(Owed::Sync { ours: true });
    }

    /// Takes back the names that a PREPARE was to meet, but for those that are the server's own by now.
    pub(super) fn take_met_back(&mut self, met: &[Box<[u8]>], by_protocol: bool) {
        let lent =
            met.iter().filter(|name| matches!(self.names.get(name), Some(Held::Shared { .. } | Held::About { .. })));
        self.borrowed.extend(lent.cloned());
        if by_protocol {
            // With the others, behind the batch.
            return;
        }
        let mut out = Outgoing::new(&[], Vec::new());
        self.take_names_back(&mut out);
        self.to_server.push(out.writer());
    }

    /// The lent names that a PREPARE of the text is to meet.
    pub(super) fn take_meeting(&mut self, verdict: &Verdict) -> Vec<Box<[u8]>> {
        let meets = |name: &[u8]| {
            let is_it = |change: &Change| matches!(change, Change::Prepare { name: new, .. } if new.as_bytes() == name);
            verdict.changes().any(is_it)
        };
        let (met, borrowed) = std::mem::take(&mut self.borrowed).into_iter().partition(|name| meets(name));
        self.borrowed = borrowed;
        met
    }
}

fn sync(out: &mut Outgoing<'_>) {
    frame::put(out.writer(), frontend::SYNC, |_| {});
}
