//! How a session ends where its client does not decide it: an expired token, a drain, a suspended organization, an operator.
//!
//! From the moment that the end is called for nothing new is taken from the client; what is under way may be finished, an
//! open transaction included, until the grace is over. A suspension and an operator leave none.

use super::Session;
use super::signals::Signal;
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::Status;

impl Session {
    /// Why the session is to end now, in the middle of whatever it does, if it is.
    pub(super) fn ends_at_once(&self) -> Option<Refusal> {
        if self.signals.is_raised(Signal::Kill) {
            return Some(Refusal::new(Kind::Killed, "terminating connection due to administrator command"));
        }
        let at_once = self.signals.is_raised(Signal::Suspended) || self.signals.is_raised(Signal::GraceOver);
        if at_once { self.ending() } else { None }
    }

    /// Why the session is to end at its next safe point, if it is.
    pub(super) fn ending(&self) -> Option<Refusal> {
        if self.signals.is_raised(Signal::Suspended) {
            return Some(Refusal::new(Kind::OrganizationSuspended, "this organization is suspended"));
        }
        if self.signals.is_raised(Signal::Expired) {
            return Some(Refusal::new(Kind::TokenExpired, "the token of this session has expired"));
        }
        if self.signals.is_raised(Signal::Drain) {
            return Some(Refusal::new(Kind::Draining, "terminating connection: the proxy is shutting down"));
        }
        None
    }

    /// Whether a message of the client's may be taken: once the session is to end, only what finishes what is under way.
    ///
    /// A client that always has the next statement on its way would else never come to a safe point. So a statement is
    /// taken only where the answers say that a transaction is open, and one at a time.
    #[inline]
    pub(super) fn takes_more(&self) -> bool {
        !self.signals.any() || self.ending().is_none() || self.is_unfinished()
    }

    fn is_unfinished(&self) -> bool {
        let in_transaction = self.is_working() && !self.flow.owes() && self.flow.status() != Status::Idle;
        let copies = self.copying.is_some() || self.flow.copy_in();
        self.client_rest.bytes > 0 || self.flow.batch_open() || copies || in_transaction
    }
}
