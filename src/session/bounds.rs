//! How much of what a client asks for is kept for it before it is not read any further.

use super::extended::BindTo;
use super::frontend::{Step, Stepped};
use super::names::Held;
use super::outgoing::Outgoing;
use super::transaction::{self, PORTALS_MAX, Room};
use super::{BUFFER_BYTES, Session, Stalled};
use crate::guard::Verdict;
use crate::limits::{OrgLimits, SAVEPOINTS_MAX, Share};
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::Status;
use crate::wire::frame::{self, frontend};

/// So many bytes of answers made here are kept for a client that does not take them; one answer may cross it.
pub(super) const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// So many bytes are made for the server of what the client sent before they are written: a Bind of a few bytes can stand
/// for the Parse of a long text.
const MADE_BYTES_MAX: usize = 256 * 1024;

/// So many bytes a session keeps without its organization's count; beyond them it is counted in lots of that size.
const LOT_BYTES: usize = 64 * 1024;

impl Session {
    /// Why the client's next message must wait, if it must.
    ///
    /// Both directions are polled by one task: the answers that are waited for go on coming, and being sent, meanwhile.
    #[inline]
    pub(super) fn is_out_of_room(&mut self, out: &mut Outgoing<'_>) -> Option<Stalled> {
        if self.flow.is_full() {
            if self.flow.batch_open() {
                // The server would keep the answers that are waited for until a Sync that stands behind this.
                frame::put(out.writer(), frontend::FLUSH, |_| {});
            }
            return Some(Stalled::Owed);
        }
        if self.to_client.len() >= UNREAD_BYTES_MAX {
            self.watch_unread();
            return Some(Stalled::Unread);
        }
        (out.copied_bytes() >= MADE_BYTES_MAX).then_some(Stalled::No)
    }

    /// A client that holds a server connection has its tier's time to take what it has been sent, also where nothing runs.
    pub(super) fn watch_unread(&mut self) {
        if self.deadlines.statement.is_none() && self.deadlines.unread.is_none() && self.is_working() {
            self.begin_unread();
        }
    }

    /// Counts what the session keeps beside the texts of its statements, which are counted where they are shared, and `more`
    /// that it is about to keep; an error (53200) where its organization has no room for it.
    pub(super) fn account_for(&mut self, more: usize) -> Result<(), Refusal> {
        let lots = (self.names.more_bytes() + more) / LOT_BYTES;
        if self.kept_bytes.set(lots * LOT_BYTES) { Ok(()) } else { Err(OrgLimits::no_room()) }
    }

    /// Counts what the session keeps, with `left` bytes of the client's that wait; less than before always finds room.
    #[inline]
    pub(super) fn settle_account(&mut self, left: usize) {
        // What is on its way in is counted whole when its first bytes are there.
        if self.stalled != Stalled::More {
            let lots = (self.names.more_bytes() + left) / LOT_BYTES;
            self.kept_bytes.set(lots * LOT_BYTES);
        }
    }

    /// The share of an unnamed statement; of a short one none.
    pub(super) fn share_of_unnamed(&self, bytes: usize) -> Result<Option<Share>, Refusal> {
        if bytes < LOT_BYTES { Ok(None) } else { self.seat.limits().keep(bytes).map(Some) }
    }

    /// Refuses a Parse for which there is no room.
    pub(super) fn refuse_parse(&mut self, refusal: Refusal, out: &mut Outgoing<'_>) -> Step {
        self.refuse_extended(refusal, out);
        Step::Whole
    }

    /// Whether the text may be sent now, as to the savepoints and cursors that it makes; `false`: when all that is owed has
    /// been answered, which the server has been asked for.
    pub(super) fn room_in_transaction(
        &mut self,
        verdict: Option<&Verdict>,
        named: Option<usize>,
        out: &mut Outgoing<'_>,
    ) -> Result<bool, Refusal> {
        if named.is_none() && verdict.is_none_or(Verdict::changes_nothing) {
            return Ok(true);
        }
        // In a failed transaction a statement that makes one more fails by itself, and in the server's words.
        let failed = self.flow.status() == Status::Failed && !self.flow.owes();
        if failed && named.is_none() && verdict.is_some_and(|verdict| verdict.statements().len() == 1) {
            return Ok(true);
        }
        let room = self.transaction.room(verdict, named);
        match room {
            Room::Yes => verdict.map_or(Ok(()), |verdict| self.share_savepoints(verdict)).map(|()| true),
            Room::Wait if self.flow.owes() => {
                if self.flow.batch_open() {
                    frame::put(out.writer(), frontend::FLUSH, |_| {});
                }
                Ok(false)
            }
            Room::Wait | Room::Savepoints => Err(too_many_savepoints(transaction::SAVEPOINTS_MAX, "transaction")),
            Room::Portals => {
                let message = format!("too many portals and cursors are open: at most {PORTALS_MAX}");
                let hint = "Close those that are not needed any more.";
                Err(Refusal::new(Kind::StatementTooLarge, message).with_hint(hint))
            }
        }
    }

    fn share_savepoints(&mut self, verdict: &Verdict) -> Result<(), Refusal> {
        if self.transaction.most(verdict).is_none_or(|most| self.kept_savepoints.set(most)) {
            return Ok(());
        }
        Err(too_many_savepoints(SAVEPOINTS_MAX, "organization"))
    }

    /// Nothing is owed any more.
    pub(super) fn settle_transaction(&mut self) {
        self.transaction.settled(self.flow.status() == Status::Idle);
        // No more than before: there is room.
        self.kept_savepoints.set(self.transaction.savepoints());
    }

    /// What becomes of a Bind for which there is no room among savepoints and portals; none where there is.
    pub(super) fn bind_in_transaction(
        &mut self,
        bind: &BindTo<'_>,
        held: &Held,
        out: &mut Outgoing<'_>,
    ) -> Option<Stepped> {
        let named = (!bind.portal.is_empty()).then_some(bind.size);
        match self.room_in_transaction(held.verdict(), named, out) {
            Ok(true) => None,
            Ok(false) => Some(Ok(Step::Stall(Stalled::Quiet))),
            Err(refusal) => {
                self.refuse_extended(refusal, out);
                Some(self.drop_message(bind.size))
            }
        }
    }
}

/// Gives the room of a long message back when the message is gone.
pub(super) fn give_back_room(bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        *bytes = Vec::new();
    } else if bytes.capacity() > 2 * BUFFER_BYTES && bytes.len() < bytes.capacity() / 4 {
        bytes.shrink_to_fit();
    }
}

fn too_many_savepoints(most: usize, of: &str) -> Refusal {
    let message = format!("too many savepoints are open: at most {most} in one {of}");
    Refusal::new(Kind::StatementTooLarge, message)
        .with_hint("Release them when they are no longer needed; in JDBC set cleanupSavepoints=true.")
}
