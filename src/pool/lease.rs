//! A server connection, lent: first as a grant (a turn and a connection), then as a lease (which has confirmed a context).

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::cleaning::Cleaning;
use super::connection::{AskError, Connection, Taint};
use super::keeper::Chore;
use super::line::Line;
use super::reaper::Held;
use super::{Asker, Pool};
use crate::context::Context;
use crate::ids::SessionId;
use crate::limits::Permit;

/// A turn to run, charged to the organization's line.
struct Turn {
    /// Held until the connection is back or its server has closed it, so that a statement being cancelled still counts.
    permit: Permit,
    charge: f64,
    since: Instant,
}

/// A turn, and with it a server connection that is not yet told whose it is; or a turn alone, for who has a connection.
///
/// Dropped, it gives the turn back; the connection goes back as it is when nobody has used it, else it is closed.
pub(super) struct Grant {
    pool: Rc<Pool>,
    line: Rc<Line>,
    connection: Option<Box<Connection>>,
    turn: Option<Turn>,
    used: bool,
}

impl Grant {
    pub(super) fn new(
        pool: Rc<Pool>,
        line: Rc<Line>,
        connection: Option<Box<Connection>>,
        permit: Permit,
        now: Instant,
    ) -> Self {
        if connection.is_some() {
            line.holding.set(line.holding.get() + 1);
        }
        let charge = pool.clock.begin(&line);
        let turn = Some(Turn { permit, charge, since: now });
        Self { pool, line, connection, turn, used: false }
    }

    /// Whether the connection already carries the asker's context and nothing needs saying or taking away.
    pub(super) fn suits(&self, asker: &Asker) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.suits(&asker.wish))
    }

    /// Makes it a lease: tells the connection the asker's context unless it carries it, and waits for the confirmation.
    ///
    /// An error, or dropping the future, closes the connection.
    pub(super) async fn tell(mut self, asker: &Asker) -> Result<Lease, AskError> {
        let mut told = false;
        if let Some(connection) = &mut self.connection {
            let cleaning = connection.cleaning_for(asker);
            if cleaning != Cleaning::Nothing || !connection.carries(&asker.wish.context) {
                self.used = true;
                told = connection.tell(Some(&asker.wish.context), cleaning).await?;
                self.used = false;
            }
        }
        if told {
            self.pool.count_told();
        }
        let mut lease = self.into_lease(asker.wish.session);
        lease.fresh |= told;
        Ok(lease)
    }

    /// Makes it a lease where [`Self::suits`] holds.
    pub(super) fn into_lease(mut self, session: SessionId) -> Lease {
        let mut fresh = true;
        if let Some(connection) = &mut self.connection {
            fresh = connection.last_session.replace(session) != Some(session);
            let org = self.line.limits.org();
            if connection.last_org.as_ref() != Some(org) {
                connection.last_org = Some(org.clone());
            }
        }
        self.used = true;
        Lease { grant: self, cancel: None, cancel_sent: false, busy: false, fresh }
    }

    fn end_turn(&mut self, now: Instant) -> Option<Permit> {
        let turn = self.turn.take()?;
        self.pool.clock.end(&self.line, turn.charge, now.saturating_duration_since(turn.since));
        Some(turn.permit)
    }

    /// Whether everything has been given back.
    fn is_over(&self) -> bool {
        self.connection.is_none() && self.turn.is_none()
    }

    fn give_back(&mut self, now: Instant, after: impl FnOnce(Box<Connection>, Held) -> Chore) {
        let permit = self.end_turn(now);
        match self.connection.take() {
            Some(connection) => {
                let held = Held::new(&self.line, permit);
                self.pool.returned(after(connection, held), now);
            }
            None => drop(permit),
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.is_over() {
            return;
        }
        let used = self.used;
        self.give_back(Instant::now(), |connection, held| {
            // What we asked of it ourselves may still be at work.
            if used {
                Chore::Close { connection, cancel: true, held: Some(held) }
            } else {
                Chore::Keep { connection, held }
            }
        });
    }
}

/// A server connection in a session's hands, which has confirmed that session's context and nobody else's.
///
/// [`Lease::release`] gives it back at a safe point. Dropped anywhere else, it is closed, and what runs on it is
/// cancelled first.
pub struct Lease {
    grant: Grant,
    /// The cancel request under way for what runs on it.
    cancel: Option<JoinHandle<bool>>,
    /// Whether one was ever sent.
    cancel_sent: bool,
    busy: bool,
    fresh: bool,
}

impl Lease {
    /// Gives the connection back, clean by what [`Connection::taint`] says; only at a safe point, which is `now`.
    pub fn release(mut self, now: Instant) {
        let (cancel, sent) = (self.cancel.take(), self.cancel_sent);
        self.grant.give_back(now, |connection, held| {
            if sent { Chore::Settle { connection, cancel, held } } else { Chore::Keep { connection, held } }
        });
    }

    /// Gives the turn back and keeps the connection: a pinned session between its transactions.
    pub fn rest(&mut self) {
        if let Some(permit) = self.grant.end_turn(Instant::now()) {
            drop(permit);
            self.grant.pool.dispatch();
        }
    }

    /// Whether the turn has been given back: nothing may be sent before [`Pool::resume`].
    pub fn is_resting(&self) -> bool {
        self.grant.turn.is_none()
    }

    /// Takes a turn again, out of a grant without a connection.
    pub(super) fn take_turn(&mut self, mut grant: Grant) {
        self.grant.turn = grant.turn.take();
    }

    /// Tells the connection another context of the same session, and waits for the confirmation.
    ///
    /// After an error the lease must be discarded.
    pub async fn retell(&mut self, context: &Context) -> Result<(), AskError> {
        if !self.carries(context) {
            self.tell(Some(context), Cleaning::Nothing).await?;
        }
        Ok(())
    }

    /// Closes the connection: its state is unknown, or its server is gone.
    pub fn discard(mut self) {
        self.busy = false;
        self.grant.pool.doubt();
        self.close();
    }

    /// Says whether the server is at work for this session, so that dropping the lease cancels it.
    #[inline]
    pub fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
    }

    /// Asks the server to cancel what it runs for this session, by a connection of its own.
    ///
    /// Returns at once. The connection goes to nobody else before that request has been answered and a round trip has
    /// followed, so that a late cancel hits nobody. A second request while one is under way changes nothing.
    pub fn cancel(&mut self) {
        if !self.is_cancelling()
            && let Some(connection) = &self.grant.connection
        {
            self.cancel = Some(self.grant.pool.send_cancel(connection));
            self.cancel_sent = true;
        }
    }

    /// Whether a cancel request was ever sent for what ran on it.
    pub fn was_cancelled(&self) -> bool {
        self.cancel_sent
    }

    /// Whether a cancel request is still under way.
    pub fn is_cancelling(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| !cancel.is_finished())
    }

    /// Whether the cancel request under way, if any, has been answered.
    pub fn poll_cancelled(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let Some(cancel) = &mut self.cancel else { return Poll::Ready(()) };
        let answered = std::task::ready!(Pin::new(cancel).poll(cx)).unwrap_or_default();
        self.cancel = None;
        if !answered {
            // The request may still be on its way, and would hit whoever had the connection next.
            self.taint(Taint::Close);
        }
        Poll::Ready(())
    }

    /// Whether the connection was another session's before, or has been told something, so that its settings may not be what this one last heard.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    fn close(&mut self) {
        if self.grant.is_over() {
            return;
        }
        let cancel = self.busy;
        self.grant.give_back(Instant::now(), |connection, held| Chore::Close { connection, cancel, held: Some(held) });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.close();
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match &self.grant.connection {
            Some(connection) => connection,
            None => unreachable!("a lease holds its connection until it is consumed"),
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        match &mut self.grant.connection {
            Some(connection) => connection,
            None => unreachable!("a lease holds its connection until it is consumed"),
        }
    }
}
