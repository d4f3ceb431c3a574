//! How much of what a client asks for is kept for it before it is not read any further.

use super::outgoing::Outgoing;
use super::{Session, Stalled};
use crate::wire::frame::{self, frontend};

/// So many bytes of answers made here are kept for a client that does not take them; one answer may cross it.
pub(super) const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// So many bytes are made for the server of what the client sent before they are written: a Bind of a few bytes can stand
/// for the Parse of a long text.
const MADE_BYTES_MAX: usize = 256 * 1024;

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
}
