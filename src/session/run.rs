//! A session's life: relay, wait for a lease, end a lease, and the one goodbye.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::frontend::End;
use super::judges::LongStatement;
use super::outgoing::Outgoing;
use super::relay::{Pause, poll_read};
use super::signals::Signal;
use super::{BUFFER_BYTES, Reported, Running, Session, Stalled};
use crate::event::{CloseReason, Event, StatementDone};
use crate::guard::Verdict;
use crate::pool::{AskError, Lease, Taint};
use crate::refusal::{Kind, Refusal};
use crate::wire::frame::{self, backend, frontend};
use crate::wire::welcome;

/// How long a goodbye may take to be written.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves the session to its end, and tells the observers of that end, once.
///
/// Dropping the future closes the client's connection; a lease it held is closed too, after a cancel of what runs on it.
pub async fn run(mut session: Box<Session>) -> CloseReason {
    let opened = Instant::now();
    session.thread.observer.event(&Event::SessionOpened(Arc::clone(&session.facts)));
    let end = loop {
        let step = match poll_fn(|cx| session.poll_relay(cx)).await {
            Pause::NeedLease => Box::pin(session.wait_for_lease()).await,
            Pause::NeedVerdict => Box::pin(session.judge_elsewhere()).await,
            Pause::TurnOver => {
                // Behind all who are ready now, and behind the sockets that have become so.
                tokio::task::yield_now().await;
                session.turn.renew();
                Ok(())
            }
            Pause::EndLease => Box::pin(session.end_lease()).await,
            Pause::ServerLost(broken) => session.server_lost(broken),
            Pause::End(end) => Err(end),
        };
        if let Err(end) = step {
            break end;
        }
    };
    let reason = Box::pin(session.close(end)).await;
    session.thread.observer.event(&Event::SessionClosed {
        facts: Arc::clone(&session.facts),
        reason,
        lasted: opened.elapsed(),
    });
    reason
}

/// How the wait for a lease ended.
enum Waited<T> {
    Lease(Result<T, Refusal>),
    Cancelled,
    End(End),
}

impl Session {
    /// Whether there is a lease and the turn to use it, taking them if they are free at once.
    pub(super) fn has_lease(&mut self) -> bool {
        if self.is_working() {
            return true;
        }
        self.refresh_tier();
        if let Some(lease) = &mut self.lease {
            let same = lease.carries(&self.asker.wish.context);
            return same && self.pool.resume_at_once(lease, &self.asker);
        }
        let Some(lease) = self.pool.try_lease(&self.asker, self.thread.now.get()) else { return false };
        self.begin_lease(lease);
        true
    }

    fn begin_lease(&mut self, mut lease: Lease) {
        let same = |heard: &Reported| Rc::ptr_eq(heard, &self.heard);
        if lease.is_fresh() && !lease.reported.as_ref().is_some_and(same) {
            self.hear_parameters(&mut lease);
        }
        self.lease = Some(lease);
    }

    /// Tells the client of the settings that are other than it last heard.
    fn hear_parameters(&mut self, lease: &mut Lease) {
        if *lease.server.parameters != *self.heard {
            for (name, value) in &lease.server.parameters {
                let known = self.heard.iter().any(|(other, heard)| other == name && heard == value);
                if !known {
                    welcome::parameter_status(name, value, self.to_client.writer());
                }
            }
            self.heard = self.thread.shared(&lease.server.parameters);
        }
        lease.reported = Some(Rc::clone(&self.heard));
    }

    /// Waits in the pool's queue for the message at the front; refuses the message if that fails.
    async fn wait_for_lease(&mut self) -> Result<(), End> {
        let since = Instant::now();
        let waited = match self.lease.take() {
            Some(kept) => self.wait_for_turn(kept).await?,
            None => {
                let (pool, asker) = (Rc::clone(&self.pool), self.asker.clone());
                let mut lease = Box::pin(pool.lease(&asker));
                let room = self.thread.statement_bytes_max + BUFFER_BYTES;
                poll_fn(|cx| self.poll_waiting(lease.as_mut(), room, cx)).await
            }
        };
        self.statement.waited += self.thread.look_at_clock().saturating_duration_since(since);
        self.statement.since.get_or_insert(since);
        match waited {
            Waited::Lease(Ok(lease)) => {
                self.begin_lease(lease);
                self.stalled = Stalled::No;
            }
            Waited::Lease(Err(refusal)) => self.refuse_front(refusal),
            Waited::Cancelled => self.refuse_front(cancelled()),
            Waited::End(end) => return Err(end),
        }
        Ok(())
    }

    /// Waits for the turn of a pinned session, which has its connection.
    async fn wait_for_turn(&mut self, mut kept: Lease) -> Result<Waited<Lease>, End> {
        let (pool, asker) = (Rc::clone(&self.pool), self.asker.clone());
        let waited = {
            let mut turn = Box::pin(pool.resume(&mut kept, &asker));
            let room = self.thread.statement_bytes_max + BUFFER_BYTES;
            poll_fn(|cx| self.poll_waiting(turn.as_mut(), room, cx)).await
        };
        Ok(match waited {
            Waited::Lease(Ok(())) => {
                if let Err(error) = kept.retell(&asker.wish.context).await {
                    tracing::warn!(%error, "a pinned server connection did not take a context");
                    kept.discard();
                    let refusal = Refusal::new(Kind::ServerLost, "the connection to the database was lost");
                    return Err(End::Refused(refusal.fatal()));
                }
                Waited::Lease(Ok(kept))
            }
            other => {
                self.lease = Some(kept);
                match other {
                    Waited::Lease(Ok(())) | Waited::Cancelled => Waited::Cancelled,
                    Waited::Lease(Err(refusal)) => Waited::Lease(Err(refusal)),
                    Waited::End(end) => Waited::End(end),
                }
            }
        })
    }

    /// Waits for `wanted`, for a signal that ends the wait, and for the end of the client, of which `room` bytes are read.
    fn poll_waiting<T>(
        &mut self,
        wanted: Pin<&mut impl Future<Output = Result<T, Refusal>>>,
        room: usize,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Waited<T>> {
        if let Poll::Ready(result) = wanted.poll(cx) {
            return Poll::Ready(Waited::Lease(result));
        }
        if self.signals.poll_any(&mut self.ear, cx) {
            if let Some(refusal) = self.ends_at_once() {
                return Poll::Ready(Waited::End(End::Refused(refusal)));
            }
            if self.signals.take(Signal::Cancel) {
                return Poll::Ready(Waited::Cancelled);
            }
            if let Some(refusal) = self.ending() {
                return Poll::Ready(Waited::End(End::Refused(refusal)));
            }
        }
        if let Poll::Ready(Err(_)) = self.to_client.poll_drain(&mut self.client, cx) {
            return Poll::Ready(Waited::End(End::Gone));
        }
        self.poll_waiting_client(room, cx).map(Waited::End)
    }

    /// Reads on while waiting, so as to notice a client that leaves; ready only then.
    fn poll_waiting_client(&mut self, room: usize, cx: &mut TaskContext<'_>) -> Poll<End> {
        let thread = Rc::clone(&self.thread);
        let mut buffer = thread.buffer.borrow_mut();
        // The message at the front is whole, where it need be.
        let front = frame::header(&self.from_client).ok().flatten().map_or(0, |header| header.size);
        let most = front.min(self.thread.statement_bytes_max) + BUFFER_BYTES;
        let most = most.min(room);
        while self.from_client.len() < most {
            match std::task::ready!(poll_read(&mut self.client, &mut buffer, cx)) {
                Ok(count @ 1..) => self.from_client.extend_from_slice(&buffer[..count]),
                Ok(0) | Err(_) => return Poll::Ready(End::Gone),
            }
        }
        Poll::Pending
    }

    /// Refuses the message at the front, which never got a server connection.
    fn refuse_front(&mut self, refusal: Refusal) {
        self.judged = None;
        self.reset_done = false;
        self.stalled = Stalled::No;
        let front = self.from_client.first().copied();
        let mut out = Outgoing::new(&[], Vec::new());
        if front == Some(frontend::QUERY) {
            self.refuse_query(refusal, &mut out);
            let size = frame::header(&self.from_client).ok().flatten().map_or(0, |header| header.size);
            self.from_client.drain(..size.min(self.from_client.len()));
        } else {
            // The message itself is the first of those dropped up to Sync.
            self.refuse_extended(refusal, &mut out);
        }
        self.end_statement();
    }

    /// Judges a long statement on another thread, so that this one goes on with other sessions.
    async fn judge_elsewhere(&mut self) -> Result<(), End> {
        let parse = self.from_client.first() == Some(&frontend::PARSE);
        let size = frame::header(&self.from_client).ok().flatten().map_or(0, |header| header.size);
        let message = Arc::new(std::mem::take(&mut self.from_client));
        let (guard, rights) = (self.thread.guard.load_full(), self.rights.clone());
        let long = LongStatement { message: Arc::clone(&message), size, parse, guard, rights };
        let patience = self.tier.query_wait_timeout.unwrap_or(self.pool.settings().wait_timeout);
        let verdict = self.thread.judges.judge(&self.facts.org, long);
        let mut judged = Box::pin(async move {
            let failed = || Refusal::new(Kind::StatementTooLarge, "the statement could not be judged");
            match tokio::time::timeout(patience, verdict).await {
                Ok(judged) => judged.map_err(|_| failed()),
                Err(_) => Err(judged_too_late(patience)),
            }
        });
        let waited = poll_fn(|cx| self.poll_waiting(judged.as_mut(), BUFFER_BYTES, cx)).await;
        drop(judged);
        let later = std::mem::replace(&mut self.from_client, Arc::unwrap_or_clone(message));
        self.from_client.extend_from_slice(&later);
        self.thread.look_at_clock();
        self.stalled = Stalled::No;
        let verdict = match waited {
            Waited::Lease(judged) => judged.and_then(|judged| {
                self.charge_judging(judged.took, judged.verdict.is_err());
                judged.verdict
            }),
            Waited::Cancelled => Err(cancelled()),
            Waited::End(end) => return Err(end),
        };
        let admitted = verdict.and_then(|verdict| self.admit_judged(verdict));
        match admitted {
            Ok(verdict) => self.judged = Some(verdict),
            Err(refusal) if !self.is_working() => self.refuse_front(refusal),
            Err(refusal) => self.refuse_front_leased(refusal, parse),
        }
        Ok(())
    }

    fn refuse_front_leased(&mut self, refusal: Refusal, parse: bool) {
        let size = frame::header(&self.from_client).ok().flatten().map_or(0, |header| header.size);
        self.from_client.drain(..size.min(self.from_client.len()));
        let mut out = Outgoing::new(&[], Vec::new());
        if parse {
            self.refuse_extended(refusal, &mut out);
        } else {
            self.refuse_query(refusal, &mut out);
        }
        self.to_server.push(out.writer());
    }

    /// Ends the lease at a safe point, after asking the server for the settings that may have changed.
    async fn end_lease(&mut self) -> Result<(), End> {
        let names = self.own.take_touched();
        let Some(mut lease) = self.lease.take() else { return Ok(()) };
        let answer = ask_state(&mut lease, &names, self.state_columns()).await;
        match answer {
            Ok(mut values) => {
                let counts = values.split_off(names.len());
                for (name, value) in names.iter().zip(values) {
                    if let Some(value) = value {
                        self.own.set(name, &value);
                    }
                }
                if self.ask_state {
                    self.settle_pin(&counts);
                }
                if let Err(refusal) = self.settings_fit() {
                    lease.discard();
                    return Err(End::Refused(refusal.fatal()));
                }
                self.remake_context();
                self.undecided.clear();
                lease.told = Some(self.asker.wish.context.clone());
                self.clear_deadlines();
                if self.pin.is_some() {
                    self.lease = Some(lease);
                    self.rest();
                } else {
                    lease.release(Instant::now());
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "a server connection was lost with a session's settings on it");
                lease.discard();
                let refusal = Refusal::new(Kind::ServerLost, "the connection to the database was lost");
                Err(End::Refused(refusal.fatal()))
            }
        }
    }

    /// Begins the clock of a statement, unless one is running already.
    pub(super) fn begin_statement(&mut self, verdict: Arc<Verdict>) {
        self.begin_clock();
        self.statement.class = verdict.class();
        if self.told.contains(verdict.class()) {
            self.statement.verdict = Some(verdict);
        }
    }

    /// Begins the clock of whatever the server is given to do, unless it runs.
    pub(super) fn begin_clock(&mut self) {
        self.statement.since.get_or_insert(self.thread.now.get());
        if self.deadlines.statement.is_none() {
            self.begin_deadline();
        }
    }

    /// Ends the clock of a statement at its ReadyForQuery, and tells the observers.
    pub(super) fn end_statement(&mut self) {
        let ended = std::mem::take(&mut self.statement);
        self.end_deadline();
        let Some(since) = ended.since else { return };
        if let Some(org) = &self.org {
            org.statement(&StatementDone {
                class: ended.class,
                latency: self.thread.now.get().saturating_duration_since(since),
                waited: ended.waited,
                result_bytes: ended.result_bytes,
                failed: ended.failed,
            });
        }
        if let Some(verdict) = &ended.verdict {
            let relations = verdict.reads().iter().chain(verdict.writes()).cloned().collect();
            self.thread.observer.event(&Event::Statement {
                facts: Arc::clone(&self.facts),
                class: ended.class,
                relations,
                failed: ended.failed,
            });
        }
        if self.flow.owes() {
            // The next one of a pipeline begins now, and its clock with it.
            let (since, executes) = (Some(self.thread.now.get()), ended.executes);
            self.statement = Running { since, executes, class: ended.class, ..Running::default() };
            self.begin_deadline();
        }
    }

    /// Says goodbye to the client, and gives the lease back or up.
    async fn close(&mut self, end: End) -> CloseReason {
        if let Some(mut lease) = self.lease.take() {
            lease.set_busy(self.flow.owes());
            if self.pin.take().is_some() {
                lease.taint(Taint::Clean);
            }
            let clean = self.flow.is_safe() && self.to_server.is_empty() && self.client_rest.bytes == 0;
            if clean && self.shortening.is_none() && self.from_server.is_empty() && !self.own.is_touched() {
                lease.release(Instant::now());
            }
        }
        let reason = match &end {
            End::Terminate => CloseReason::ClientTerminate,
            End::Gone => CloseReason::ClientGone,
            End::Refused(refusal) => CloseReason::Refused(refusal.kind()),
        };
        if let End::Refused(refusal) = end {
            let refusal = refusal.fatal();
            let bytes = self.tell_refusal(&refusal);
            // Words in the middle of a message would be read as its rest.
            if self.server_rest.bytes == 0 {
                self.to_client.push(&bytes);
            }
            let goodbye = poll_fn(|cx| self.to_client.poll_drain(&mut self.client, cx));
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        }
        let _ = tokio::time::timeout(GOODBYE, self.client.shutdown()).await;
        reason
    }
}

fn cancelled() -> Refusal {
    Refusal::new(Kind::Cancelled, "canceling statement due to user request")
}

/// The refusal (53400) of a long statement whose turn to be judged has not come in time.
fn judged_too_late(patience: Duration) -> Refusal {
    let waited_s = patience.as_secs();
    let why = "of each organization one long statement is judged at a time";
    Refusal::new(Kind::QueueTimeout, format!("this statement waited {waited_s} s to be judged: {why}"))
}

/// Asks the server for the values of settings (`None` where it knows no such setting), and for `more`.
async fn ask_state(lease: &mut Lease, names: &[Arc<str>], more: &[&str]) -> Result<Vec<Option<String>>, AskError> {
    if lease.was_cancelled() {
        // A cancel on its way would hit the question.
        poll_fn(|cx| lease.poll_cancelled(cx)).await;
        lease.settle().await?;
    }
    let mut bytes = Vec::new();
    frame::put_query(&mut bytes, &super::settings::question(names, more));
    let mut values = Vec::new();
    lease
        .ask(&bytes, 1, |tag, body| {
            if tag == backend::DATA_ROW {
                values = frame::row_values(body).ok_or(AskError::Protocol)?;
            }
            Ok(())
        })
        .await?;
    // The question was a simple Query: it destroyed the unnamed statement.
    lease.unnamed = None;
    if values.len() == names.len() + more.len() { Ok(values) } else { Err(AskError::Protocol) }
}
