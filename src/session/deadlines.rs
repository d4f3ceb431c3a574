//! The proxy's own clock of a session: how long a statement may run, a transaction last, a client keep one open without a
//! word, and a pinned connection rest.
//!
//! A server that has a setting for it is told the same time and is first; the proxy comes [`OVERDUE_AFTER`] later, for what
//! no setting holds and for servers that do not.

use std::time::{Duration, Instant};

use super::frontend::End;
use super::relay::Pause;
use super::{OVERDUE_AFTER, Session};
use crate::refusal::{Kind, Refusal};

/// How long a statement that was cancelled for running too long may take to end.
const OVERDUE_GRACE: Duration = Duration::from_secs(5);

/// After so many Executes of one batch a server is asked to send what it has: from its answers alone it is known which of
/// them runs, so that is how many times the tier's time may pass before the first one is known to be overdue.
pub(super) const FLUSHED_EXECUTES: u32 = 4;

/// Until when each may go on; none where it does not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deadlines {
    /// The statement that runs.
    pub(super) statement: Option<Instant>,
    /// The transaction, from its first message to its safe point.
    pub(super) transaction: Option<Instant>,
    /// The client's silence while it has a server connection.
    pub(super) idle: Option<Instant>,
    /// What the client has been sent and does not take, while nothing runs.
    pub(super) unread: Option<Instant>,
    /// The rest of a pinned connection.
    pub(super) pin: Option<Instant>,
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        [self.statement, self.transaction, self.idle, self.unread, self.pin].into_iter().flatten().min()
    }
}

impl Session {
    /// Has the session looked at again when the first of its deadlines has come.
    fn arm(&self) {
        self.signals.set_deadline(self.deadlines.next());
    }

    /// Nothing runs, and nothing is kept.
    pub(super) fn clear_deadlines(&mut self) {
        self.deadlines = Deadlines::default();
        self.signals.set_deadline(None);
    }

    /// A pinned connection rests from now on.
    pub(super) fn begin_rest(&mut self) {
        self.deadlines = Deadlines { pin: Some(Instant::now() + self.thread.idle_pin_timeout), ..Deadlines::default() };
        self.arm();
    }

    /// From now on the statement at work has its tier's time; each one of a batch has its own, as it has on the server. So
    /// has the transaction, if it begins here.
    pub(super) fn begin_deadline(&mut self) {
        let now = self.thread.now.get();
        if !self.statement.overdue {
            self.deadlines.statement = Some(now + self.tier.query_timeout + OVERDUE_AFTER);
        }
        if self.deadlines.transaction.is_none() {
            self.deadlines.transaction = Some(now + self.tier.max_transaction + OVERDUE_AFTER);
        }
        self.deadlines.pin = None;
        self.arm();
    }

    /// The statement has ended.
    pub(super) fn end_deadline(&mut self) {
        self.deadlines.statement = None;
        self.arm();
    }

    /// The client has so long to take what it has been sent.
    pub(super) fn begin_unread(&mut self) {
        self.deadlines.unread = Some(self.thread.now.get() + self.tier.query_timeout + OVERDUE_AFTER);
        self.arm();
    }

    /// The client has taken everything.
    #[inline]
    pub(super) fn note_taken(&mut self) {
        if self.deadlines.unread.take().is_some() {
            self.arm();
        }
    }

    /// The server owes answers: something runs, and the client is not silent.
    #[inline]
    pub(super) fn note_owed(&mut self) {
        let was_idle = self.deadlines.idle.take().is_some();
        if was_idle || self.deadlines.statement.is_none() {
            self.begin_deadline();
        }
    }

    /// The session is about to wait: where nothing is owed and the connection is kept, for its client.
    #[inline]
    pub(super) fn note_silence(&mut self) {
        if self.deadlines.idle.is_none() && !self.flow.owes() && self.is_working() {
            let timeout = self.tier.idle_transaction.or(self.thread.idle_transaction_timeout);
            if let Some(timeout) = timeout {
                self.deadlines.idle = Some(self.thread.now.get() + timeout + OVERDUE_AFTER);
                self.arm();
            }
        }
    }

    /// One of the deadlines may have passed, and the server has not ended what it was for.
    pub(super) fn overdue(&mut self) -> Option<Pause> {
        let now = Instant::now();
        // The signal may have been meant for what was before.
        if !self.signals.is_due(now) {
            return None;
        }
        let due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if !self.is_working() {
            let rests_too_long = self.lease.is_some() && due(self.deadlines.pin);
            return rests_too_long.then(|| {
                let message =
                    "terminating connection: it kept a server connection and did nothing with it for too long";
                Pause::End(End::Refused(Refusal::new(Kind::IdlePin, message)))
            });
        }
        if due(self.deadlines.transaction) {
            return Some(Pause::End(End::Refused(self.transaction_timeout())));
        }
        if due(self.deadlines.unread) && !self.flow.owes() && !self.to_client.is_empty() {
            let message = "terminating connection: it kept a server connection and did not take what it was sent";
            return Some(Pause::End(End::Refused(Refusal::new(Kind::IdlePin, message))));
        }
        if due(self.deadlines.idle) && !self.flow.owes() {
            return Some(Pause::End(End::Refused(idle_transaction_timeout())));
        }
        if due(self.deadlines.statement) { self.statement_overdue(now) } else { None }
    }

    /// The statement has run longer than its tier allows, and the server's own timeout has not ended it.
    fn statement_overdue(&mut self, now: Instant) -> Option<Pause> {
        let lease = self.lease.as_mut()?;
        if !self.flow.owes() {
            // The client has asked for answers (Flush) and not ended its batch: nothing runs.
            self.end_deadline();
            return None;
        }
        let unsure = self.statement.executes.min(FLUSHED_EXECUTES);
        if self.statement.spared + 1 < unsure && self.to_client.is_empty() {
            // One of those whose answers the server has not sent yet is overdue, or each took its time: that is not known.
            // Not so for a client that does not take what it is sent.
            self.statement.spared += 1;
            self.begin_deadline();
            return None;
        }
        if !self.statement.overdue {
            self.statement.overdue = true;
            lease.cancel();
            self.deadlines.statement = Some(now + OVERDUE_GRACE);
            self.arm();
            return None;
        }
        let message = format!("the statement ran longer than tier \"{}\" allows", self.tier.name);
        Some(Pause::End(End::Refused(Refusal::new(Kind::QueryTimeout, message).fatal())))
    }

    fn transaction_timeout(&self) -> Refusal {
        let tier = &self.tier;
        let detail = format!("Tier \"{}\" lets a transaction last {} s.", tier.name, tier.max_transaction.as_secs());
        Refusal::new(Kind::TransactionTimeout, "terminating connection due to transaction timeout").with_detail(detail)
    }
}

fn idle_transaction_timeout() -> Refusal {
    Refusal::new(Kind::IdleTransaction, "terminating connection due to idle-in-transaction timeout")
}
