//! Both directions at once: two state machines polled by one task, so that two full sockets cannot wait for each other.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::backend::Broken;
use super::bounds::give_back_room;
use super::frontend::End;
use super::outgoing::Outgoing;
use super::signals::Signal;
use super::{Cut, Session, Stalled};

/// What the poll loop cannot do by itself.
#[derive(Debug)]
pub(super) enum Pause {
    /// The message at the front needs a server connection, and none is free at once.
    NeedLease,
    /// The statement at the front is long and is judged elsewhere.
    NeedVerdict,
    /// Others are to go on before there is more.
    TurnOver,
    /// The lease ends, and there is something to do first.
    EndLease,
    /// The server is gone.
    ServerLost(Broken),
    /// The session is over.
    End(End),
}

impl Session {
    /// Moves what can be moved, until something must be waited for.
    pub(super) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        self.thread.look_at_clock();
        loop {
            if let Some(pause) = self.poll_signals(cx) {
                return Poll::Ready(pause);
            }
            let mut moved = false;
            if let Poll::Ready(Err(_)) = self.to_client.poll_drain(&mut self.client, cx) {
                return Poll::Ready(Pause::End(End::Gone));
            }
            if self.to_client.is_empty() {
                self.note_taken();
            }
            if self.lease.is_some() {
                match self.poll_backend(cx) {
                    Poll::Ready(Ok(())) => {
                        moved = true;
                        if let Some(pause) = self.end_lease_if_safe() {
                            return Poll::Ready(pause);
                        }
                    }
                    Poll::Ready(Err(broken)) => return Poll::Ready(Pause::ServerLost(broken)),
                    Poll::Pending => {}
                }
            }
            match self.poll_frontend(cx) {
                Poll::Ready(Ok(())) => {
                    moved = true;
                    // Not earlier: a new lease is at a safe point until the message that it was taken for is sent.
                    if let Some(pause) = self.end_lease_if_safe() {
                        return Poll::Ready(pause);
                    }
                }
                Poll::Ready(Err(pause)) => return Poll::Ready(pause),
                // The server's answer was the last of what there was.
                Poll::Pending if moved && self.is_at_rest() => moved = false,
                Poll::Pending => {}
            }
            if !moved {
                self.note_silence();
                self.turn.renew();
                return Poll::Pending;
            }
            if self.turn.is_over() {
                return Poll::Ready(Pause::TurnOver);
            }
        }
    }

    /// Whether nothing can move before the client sends something: nobody but it is listened to, and it has been sent all.
    fn is_at_rest(&self) -> bool {
        self.lease.is_none() && self.to_client.is_empty() && !self.signals.any()
    }

    fn poll_backend(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        // A server that does not take our bytes any more still says why, if it is read.
        let _ = self.to_server.poll_drain(&mut lease.server.stream, cx);
        if !self.to_client.is_empty() {
            return Poll::Pending;
        }
        if matches!(self.cut, Some(Cut::Cancelling(_))) {
            ready!(lease.poll_cancelled(cx));
            self.cut = match self.cut.take() {
                Some(Cut::Cancelling(refusal)) => Some(Cut::Draining(refusal)),
                other => other,
            };
        }
        let thread = Rc::clone(&self.thread);
        let mut buffer = thread.buffer.borrow_mut();
        let kept = self.from_server.len();
        buffer[..kept].copy_from_slice(&self.from_server);
        let count = ready!(poll_read(&mut lease.server.stream, &mut buffer[kept..], cx));
        let Ok(count @ 1..) = count else { return Poll::Ready(Err(Broken::Closed)) };
        self.turn.bytes(count);
        self.from_server = Vec::new();
        let data = &buffer[..kept + count];
        let mut out = Outgoing::new(data, thread.scratch.take());
        let result = self.server_messages(data, &mut out);
        let (scratch, written) = out.write(&mut self.client, &mut self.to_client, cx);
        thread.scratch.replace(scratch);
        let done = result?;
        self.from_server.extend_from_slice(&data[done..]);
        // A client that takes nothing any more is found out by reading it.
        drop(written);
        if !self.to_client.is_empty() {
            self.watch_unread();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_frontend(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Pause>> {
        if !self.to_server.is_empty() {
            return Poll::Pending;
        }
        if !self.takes_more() {
            return Poll::Pending;
        }
        match self.stalled {
            Stalled::Lease | Stalled::Judge => return Poll::Pending,
            Stalled::Owed if self.flow.is_full() => return Poll::Pending,
            Stalled::Unread if !self.to_client.is_empty() => return Poll::Pending,
            Stalled::Quiet if self.flow.owes() => return Poll::Pending,
            Stalled::Answers if self.flow.is_behind() => return Poll::Pending,
            Stalled::Delayed => {
                if let Some(delay) = &mut self.delay {
                    ready!(delay.as_mut().poll(cx));
                    self.delay = None;
                }
            }
            Stalled::Owed | Stalled::Unread | Stalled::Quiet | Stalled::Answers | Stalled::Turn => {}
            Stalled::No if !self.from_client.is_empty() => {}
            Stalled::No | Stalled::More => {
                if let Err(end) = ready!(self.poll_read_client(cx)) {
                    return Poll::Ready(Err(Pause::End(end)));
                }
                return Poll::Ready(self.after_frontend());
            }
        }
        let data = std::mem::take(&mut self.from_client);
        let result = self.pass_client_data(&data, cx);
        Poll::Ready(match result {
            Ok(done) => {
                if done < data.len() {
                    self.from_client = data;
                    self.from_client.drain(..done);
                    give_back_room(&mut self.from_client);
                }
                self.after_frontend()
            }
            Err(end) => Err(Pause::End(end)),
        })
    }

    /// Reads the client and deals with what has come.
    fn poll_read_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let thread = Rc::clone(&self.thread);
        let mut buffer = thread.buffer.borrow_mut();
        let count = ready!(poll_read(&mut self.client, &mut buffer, cx));
        let Ok(count @ 1..) = count else { return Poll::Ready(Err(End::Gone)) };
        self.turn.bytes(count);
        let data = &buffer[..count];
        if self.from_client.is_empty() {
            let done = self.pass_client_data(data, cx)?;
            self.from_client.extend_from_slice(&data[done..]);
        } else {
            let mut kept = std::mem::take(&mut self.from_client);
            kept.extend_from_slice(data);
            let done = self.pass_client_data(&kept, cx)?;
            kept.drain(..done);
            give_back_room(&mut kept);
            self.from_client = kept;
        }
        Poll::Ready(Ok(()))
    }

    fn pass_client_data(&mut self, data: &[u8], cx: &mut Context<'_>) -> Result<usize, End> {
        let mut out = Outgoing::new(data, self.thread.scratch.take());
        let result = self.client_messages(data, &mut out);
        let scratch = match &mut self.lease {
            // What the server does not take any more is found out by reading it.
            Some(lease) => out.write(&mut lease.server.stream, &mut self.to_server, cx).0,
            None => {
                debug_assert!(out.is_empty(), "nothing is sent to a server without a lease");
                Vec::new()
            }
        };
        self.thread.scratch.replace(scratch);
        if let Some(lease) = &mut self.lease {
            let owes = self.flow.owes();
            lease.set_busy(owes);
            if owes {
                self.note_owed();
            }
        }
        self.settle_account(data.len() - result.as_ref().map_or(data.len(), |done| *done));
        result
    }

    fn after_frontend(&mut self) -> Result<(), Pause> {
        match self.stalled {
            Stalled::Lease => Err(Pause::NeedLease),
            Stalled::Judge => Err(Pause::NeedVerdict),
            Stalled::No
            | Stalled::More
            | Stalled::Owed
            | Stalled::Unread
            | Stalled::Quiet
            | Stalled::Answers
            | Stalled::Turn
            | Stalled::Delayed => Ok(()),
        }
    }

    /// At a safe point the lease ends, here and now unless something is to be done first.
    fn end_lease_if_safe(&mut self) -> Option<Pause> {
        if !self.is_safe() || !self.is_working() {
            return None;
        }
        self.own.end_transaction();
        self.pin_for_session_mode();
        if self.own.is_touched() || self.ask_state {
            return Some(Pause::EndLease);
        }
        if self.pin.is_some() {
            self.rest();
            return None;
        }
        if let Some(lease) = self.lease.take() {
            lease.release(self.thread.now.get());
        }
        self.undecided.clear();
        self.clear_deadlines();
        None
    }

    fn poll_signals(&mut self, cx: &mut Context<'_>) -> Option<Pause> {
        if !self.signals.poll_any(&mut self.ear, cx) {
            return None;
        }
        if let Some(refusal) = self.ends_at_once() {
            return Some(Pause::End(End::Refused(refusal)));
        }
        if self.signals.take(Signal::Cancel)
            && self.flow.owes()
            && let Some(lease) = &mut self.lease
        {
            lease.cancel();
        }
        if self.signals.take(Signal::Overdue)
            && let Some(pause) = self.overdue()
        {
            return Some(pause);
        }
        if self.is_working() {
            return None;
        }
        self.ending().map(|refusal| Pause::End(End::Refused(refusal)))
    }

    /// Whether it has a server connection and the turn to use it.
    pub(super) fn is_working(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| !lease.is_resting())
    }
}

/// One read; `Ok(0)` is the end.
pub(super) fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
