//! A server connection lost under a session: every statement that was on it fails with one error, the session lives on.

use super::backend::Broken;
use super::bounds::UNREAD_BYTES_MAX;
use super::deadlines::Deadlines;
use super::frontend::End;
use super::transaction::Transaction;
use super::unnamed_portal::UnnamedPortal;
use super::{Rest, Session, Stalled};
use crate::limits::ResultMeter;
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::{Lost, Status};
use crate::wire::{frame, welcome};

impl Session {
    /// Gives the lease up and answers everything that is still owed.
    ///
    /// The session ends too where a message to the client was cut in two, or where the client has a transaction open and
    /// waits for nothing: the only way to tell it that the transaction is gone.
    pub(super) fn server_lost(&mut self, broken: Broken) -> Result<(), End> {
        if let Some(lease) = self.lease.take() {
            lease.discard();
        }
        let torn = self.server_rest.bytes > 0 && self.server_rest.forward;
        let mut flow = std::mem::take(&mut self.flow);
        let status = flow.status();
        let lost = flow.lose();
        self.take_back(flow.take_undone());
        self.undecided.clear();
        self.unnamed_portal = UnnamedPortal::default();
        self.about_portals.clear();
        self.transaction = Transaction::default();
        self.settle_transaction();
        self.from_server = Vec::new();
        self.to_server = Default::default();
        if !torn {
            self.server_rest = Rest::default();
        }
        self.shortening = None;
        self.meter = ResultMeter::default();
        self.sources = Default::default();
        self.locals_due = false;
        self.client_rest.forward = false;
        self.cut = None;
        self.watched = None;
        self.copying = None;
        self.borrowed.clear();
        self.ask_state = false;
        self.own.take_touched();
        if torn {
            // Words would be read as the rest of the message: the client sees its connection end.
            return Err(End::Refused(refusal(&broken).fatal()));
        }
        // The server has ended the session, and not for a reason of its own.
        if timeout(&broken).is_some() {
            return Err(End::Refused(refusal(&broken).fatal()));
        }
        // What a pinned session kept on the connection is gone, and nothing can bring it back.
        let pinned = self.pin.take().is_some();
        if pinned || lost.is_empty() && status != Status::Idle {
            return Err(End::Refused(refusal(&broken).fatal()));
        }
        for answer in lost {
            match answer {
                Lost::Error => self.push_lost(&broken),
                Lost::Ready => welcome::ready_for_query(Status::Idle, self.to_client.writer()),
                Lost::Skip => self.skip_to_sync = true,
            }
        }
        self.statement.failed = true;
        self.deadlines = Deadlines::default();
        self.end_statement();
        self.stalled = Stalled::No;
        Ok(())
    }

    /// The server's own words where it had any, as an error of the statement and not of the session; in a long pipeline
    /// they stand in the first errors only.
    fn push_lost(&mut self, broken: &Broken) {
        match broken {
            Broken::Fatal(_) if self.to_client.len() >= UNREAD_BYTES_MAX => {
                self.push_refusal(&refusal(&Broken::Closed));
            }
            Broken::Fatal(body) => frame::put_error_softened(self.to_client.writer(), body),
            Broken::Closed | Broken::Nonsense => self.push_refusal(&refusal(broken)),
        }
    }
}

/// Which of its limits the client has overstepped, where the server has ended the session for one.
fn timeout(broken: &Broken) -> Option<Kind> {
    let Broken::Fatal(body) = broken else { return None };
    let state = frame::error_field(body, b'C')?;
    let is = |kind: &Kind| kind.row().sqlstate.as_bytes() == state;
    [Kind::IdleTransaction, Kind::TransactionTimeout].into_iter().find(is)
}

fn refusal(broken: &Broken) -> Refusal {
    match broken {
        Broken::Fatal(body) if timeout(broken).is_some() => {
            let words = String::from_utf8_lossy(frame::error_field(body, b'M').unwrap_or_default()).into_owned();
            Refusal::new(timeout(broken).unwrap_or(Kind::ServerLost), words)
        }
        Broken::Fatal(body) => {
            let words = String::from_utf8_lossy(frame::error_field(body, b'M').unwrap_or_default()).into_owned();
            Refusal::new(Kind::ServerLost, format!("the database ended the transaction: {words}"))
        }
        Broken::Closed => Refusal::new(Kind::ServerLost, "the connection to the database was lost"),
        Broken::Nonsense => Refusal::new(Kind::ServerLost, "the database sent something that was not understood"),
    }
}
