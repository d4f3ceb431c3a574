//! From the client: what each message is, what it needs, and how it goes to the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::about::FAILS_IN_FAILED_TRANSACTION;
use super::names::Undo;
use super::outgoing::Outgoing;
use super::sources::of_text;
use super::{Rest, Session, Stalled};
use crate::event::Event;
use crate::guard::{self, Verdict};
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::{Owed, Status};
use crate::wire::frame::{self, Header, frontend};
use crate::wire::{refusal as wire_refusal, welcome};

/// Texts up to this size are judged at once; longer ones on another thread, unless their verdict is remembered.
pub(super) const JUDGED_AT_ONCE_BYTES: usize = 4 * 1024;

/// The server is sent these only to fail, so that its transaction fails where a statement was refused here. Neither takes a
/// snapshot, and by the second one the server tells whether the transaction had failed before, which only it knows.
pub(super) const POISON_QUERY: &str = "ROLLBACK TO SAVEPOINT \"refused by partywall\"";
const YIELDING_POISON_QUERY: &str = "RELEASE SAVEPOINT \"refused by partywall\"";
const POISON_STATEMENT: &[u8] = b"refused by partywall";

/// Why a session must end.
#[derive(Debug)]
pub(super) enum End {
    /// The client said goodbye.
    Terminate,
    /// The client is gone.
    Gone,
    /// The client hears why.
    Refused(Refusal),
}

/// What became of the message at the front.
pub(super) enum Step {
    /// It was dealt with whole.
    Whole,
    /// So many bytes of it were; `client_rest` says what happens to the others.
    Part(usize),
    /// It stays where it is.
    Stall(Stalled),
}

pub(super) type Stepped = Result<Step, End>;

pub(super) fn violation(message: impl Into<std::borrow::Cow<'static, str>>) -> End {
    End::Refused(Refusal::new(Kind::ProtocolViolation, message))
}

impl Session {
    /// Deals with the messages in `data`; returns how many bytes of it are done with.
    pub(super) fn client_messages(&mut self, data: &[u8], out: &mut Outgoing<'_>) -> Result<usize, End> {
        let mut at = 0;
        self.stalled = Stalled::No;
        while at < data.len() {
            if let Some(stalled) = self.must_let_others_go_on() {
                self.stalled = stalled;
                break;
            }
            self.turn.message();
            if self.client_rest.bytes > 0 {
                at += self.pass_client_rest(at, data.len(), out);
                continue;
            }
            if !self.takes_more() {
                self.stalled = Stalled::Owed;
                break;
            }
            if let Some(stalled) = self.is_out_of_room(out) {
                self.stalled = stalled;
                break;
            }
            if self.watched.is_some() || self.waits_for_copy(data[at])? {
                self.stalled = Stalled::Quiet;
                break;
            }
            let header = frame::header(&data[at..]).map_err(|error| violation(error.to_string()))?;
            let step = match header {
                Some(header) => self.client_message(header, data, at, out)?,
                None => Step::Stall(Stalled::More),
            };
            match (step, header) {
                (Step::Whole, Some(header)) => at += header.size,
                (Step::Part(bytes), _) => at += bytes,
                (Step::Stall(stalled), _) => {
                    self.stalled = stalled;
                    break;
                }
                (Step::Whole, None) => break,
            }
        }
        Ok(at)
    }

    fn must_let_others_go_on(&self) -> Option<Stalled> {
        match &self.delay {
            Some(_) => Some(Stalled::Delayed),
            None => self.turn.is_over().then_some(Stalled::Turn),
        }
    }

    fn pass_client_rest(&mut self, at: usize, end: usize, out: &mut Outgoing<'_>) -> usize {
        let bytes = self.client_rest.bytes.min(end - at);
        if self.client_rest.forward {
            out.forward(at..at + bytes);
        }
        self.client_rest.bytes -= bytes;
        if self.client_rest.bytes == 0 {
            self.send_due_step(out);
        }
        bytes
    }

    fn client_message(&mut self, header: Header, data: &[u8], at: usize, out: &mut Outgoing<'_>) -> Stepped {
        let Header { tag, size } = header;
        match tag {
            frontend::TERMINATE => return Err(End::Terminate),
            // Its server ignores them while it waits for data; one that came late it would not.
            frontend::SYNC | frontend::FLUSH if self.copying.is_some() => return self.drop_message(size),
            frontend::SYNC => return Ok(self.sync(size, at, data.len(), out)),
            _ if self.skip_to_sync || self.flow.skipping() => return self.drop_message(size),
            frontend::QUERY => return self.query(size, data, at, out),
            frontend::PARSE => return self.parse(size, data, at, out),
            frontend::BIND => return self.bind(size, data, at, out),
            frontend::COPY_DATA => return Ok(self.copy(size, at, data.len(), false, out)),
            frontend::FUNCTION_CALL => {
                let refusal = Refusal::new(Kind::NotSupported, "function calls by protocol are not supported")
                    .with_hint("Call the function in a SELECT; in place of large objects, use bytea.");
                self.refuse_query(refusal, out);
                return self.drop_message(size);
            }
            _ => {}
        }
        if size > frame::SMALL_FRAME_BYTES_MAX {
            return Err(violation(BadSize(tag).to_string()));
        }
        let Some(message) = data.get(at..at + size) else { return Ok(Step::Stall(Stalled::More)) };
        let body = &message[frame::HEADER_BYTES..];
        match tag {
            frontend::DESCRIBE => self.describe(body, at..at + size, out),
            frontend::EXECUTE if self.is_about_portal(body) => self.execute_about_session(body, out),
            frontend::EXECUTE => self.use_portal(Owed::Execute, body, at..at + size, out),
            frontend::CLOSE => self.close_message(body, at..at + size, out),
            frontend::FLUSH => {
                if self.is_working() {
                    out.forward(at..at + size);
                }
                Ok(Step::Whole)
            }
            frontend::COPY_DONE | frontend::COPY_FAIL => Ok(self.copy(size, at, data.len(), true, out)),
            _ => Err(violation(format!("unknown message type {tag:#04x}"))),
        }
    }

    /// Drops a message that may still be on its way.
    pub(super) fn drop_message(&mut self, size: usize) -> Stepped {
        // A verdict on this message must never be taken for one on the next.
        self.judged = None;
        self.client_rest = Rest { bytes: size, forward: false };
        Ok(Step::Part(0))
    }

    /// Passes a message on that may still be on its way.
    pub(super) fn pass_message(&mut self, size: usize) -> Step {
        self.client_rest = Rest { bytes: size, forward: true };
        Step::Part(0)
    }

    fn query(&mut self, size: usize, data: &[u8], at: usize, out: &mut Outgoing<'_>) -> Stepped {
        if size > self.thread.statement_bytes_max + frame::HEADER_BYTES + 1 {
            self.refuse_query(self.too_long(), out);
            return self.drop_message(size);
        }
        let Some(message) = data.get(at..at + size) else {
            return match self.account_for(size) {
                Ok(()) => Ok(Step::Stall(Stalled::More)),
                Err(refusal) => {
                    self.refuse_query(refusal, out);
                    self.drop_message(size)
                }
            };
        };
        let verdict = match self.verdict_on(&message[frame::HEADER_BYTES..]) {
            Ok(Some(verdict)) => verdict,
            Ok(None) => return Ok(Step::Stall(Stalled::Judge)),
            Err(refusal) => {
                self.refuse_query(refusal, out);
                return Ok(Step::Whole);
            }
        };
        if !verdict.changes_nothing() && self.is_about_session(&verdict) {
            let text = statement_text(&message[frame::HEADER_BYTES..]).unwrap_or_default();
            return self.about_session(text, verdict, None, out);
        }
        if !self.has_lease() {
            self.judged = Some(verdict);
            return Ok(Step::Stall(Stalled::Lease));
        }
        let room = self.room_in_transaction(Some(&*verdict), None, out);
        match room.and_then(|room| room.then(|| self.apply(&verdict)).transpose()) {
            Ok(Some(())) => {}
            Ok(None) => {
                self.judged = Some(verdict);
                return Ok(Step::Stall(Stalled::Quiet));
            }
            Err(refusal) => {
                let text = statement_text(&message[frame::HEADER_BYTES..]).unwrap_or_default();
                self.refuse_query(in_turn(text, refusal), out);
                return Ok(Step::Whole);
            }
        }
        self.transaction.sent(&verdict);
        if let Some(lease) = &mut self.lease {
            lease.note_text(size);
        }
        self.forget_unnamed();
        match verdict.rewritten() {
            Some(text) => frame::put_query(out.writer(), text),
            None => out.forward(at..at + size),
        }
        self.flow.sent_for(Owed::Query { as_execute: false }, of_text(&verdict).number());
        self.begin_statement(verdict);
        Ok(Step::Whole)
    }

    /// A simple Query destroys the unnamed statement and portal (PostgreSQL manual, "Extended Query").
    pub(super) fn forget_unnamed(&mut self) {
        self.drop_unnamed();
        self.lose_unnamed();
    }

    /// A simple Query of ours stands for an Execute: the server loses what the client still has.
    pub(super) fn lose_unnamed(&mut self) {
        self.unnamed_portal.query();
        if let Some(lease) = &mut self.lease {
            lease.unnamed = None;
        }
    }

    /// The verdict on a body that begins with a statement's text; `None`: it must be judged elsewhere first.
    pub(super) fn verdict_on(&mut self, body: &[u8]) -> Result<Option<Arc<Verdict>>, Refusal> {
        if let Some(verdict) = self.judged.take() {
            return Ok(Some(verdict));
        }
        let text = statement_text(body)?;
        let admitted =
            self.judge_here(text).and_then(|verdict| verdict.map(|verdict| self.admit_judged(verdict)).transpose());
        admitted.map_err(|refusal| in_turn(text, refusal))
    }

    /// The verdict on a text that is remembered, or short enough to be judged at once.
    fn judge_here(&mut self, text: &str) -> Result<Option<Arc<Verdict>>, Refusal> {
        let guard = self.thread.guard.load();
        let unjudged = match guard.recall(text, &self.rights) {
            Ok(verdict) => return Ok(Some(verdict)),
            Err(unjudged) => unjudged,
        };
        if text.len() > JUDGED_AT_ONCE_BYTES {
            return Ok(None);
        }
        let begun = Instant::now();
        self.turn.judged(text.len());
        let judged = guard.judge_anew(&unjudged, &self.rights);
        self.charge_judging(begun.elapsed(), judged.is_err());
        judged.map(Some)
    }

    /// Judging is work for the organization before any of its statements has a turn: its line is charged with it.
    pub(super) fn charge_judging(&mut self, took: Duration, refused: bool) {
        if refused {
            self.turn.judging_took(took);
        }
        self.pool.charge(&self.asker.line, took);
    }

    fn sync(&mut self, size: usize, at: usize, end: usize, out: &mut Outgoing<'_>) -> Step {
        if end < at + size {
            return Step::Stall(Stalled::More);
        }
        self.skip_to_sync = false;
        if self.is_working() {
            self.flow.sent_sync();
            out.forward(at..at + size);
            self.take_names_back(out);
        } else {
            self.about_portals.clear();
            welcome::ready_for_query(Status::Idle, self.to_client.writer());
        }
        Step::Whole
    }

    /// COPY data and its end. Where none is expected the server ignores it, and so do we.
    fn copy(&mut self, size: usize, at: usize, end: usize, last: bool, out: &mut Outgoing<'_>) -> Step {
        if last && end < at + size {
            return Step::Stall(Stalled::More);
        }
        if !self.is_working() || !self.flow.may_copy() {
            self.client_rest = Rest { bytes: size, forward: false };
            return Step::Part(0);
        }
        if last {
            self.flow.sent_copy_end();
            out.forward(at..at + size);
            return Step::Whole;
        }
        self.pass_message(size)
    }

    /// Answers here, with a message that has no body, when everything before it has been answered.
    pub(super) fn reply_here(&mut self, tag: u8, undo: Undo) {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, tag, |_| {});
        self.reply_with(bytes, undo);
    }

    /// Answers here, with whole messages, when everything before them has been answered.
    pub(super) fn reply_with(&mut self, bytes: Vec<u8>, undo: Undo) {
        if self.flow.owes() {
            self.flow.sent(Owed::Local { bytes: bytes.into(), undo });
        } else {
            self.to_client.push(&bytes);
        }
    }

    /// Refuses a simple Query; inside a transaction the server's transaction fails with it, and where that has failed
    /// before, the client hears so from the server and nothing of the refusal, unless that stands ahead.
    pub(super) fn refuse_query(&mut self, refusal: Refusal, out: &mut Outgoing<'_>) {
        let bytes = self.tell_refusal(&refusal);
        if self.is_working() {
            self.forget_unnamed();
            frame::put_query(out.writer(), if refusal.is_ahead() { POISON_QUERY } else { YIELDING_POISON_QUERY });
            self.flow.sent(Owed::Poison { query: true, bytes });
        } else {
            self.to_client.push(&bytes);
            welcome::ready_for_query(Status::Idle, self.to_client.writer());
        }
    }

    /// Refuses a message of the extended protocol: what follows is dropped up to Sync, as the server would. In a failed
    /// transaction as [`Self::refuse_query`].
    pub(super) fn refuse_extended(&mut self, refusal: Refusal, out: &mut Outgoing<'_>) {
        let bytes = self.tell_refusal(&refusal);
        self.skip_to_sync = true;
        if self.is_working() {
            if !refusal.is_ahead() {
                self.probe(FAILS_IN_FAILED_TRANSACTION, out);
            }
            put_named(out.writer(), frontend::DESCRIBE, POISON_STATEMENT);
            self.flow.sent(Owed::Poison { query: false, bytes });
        } else {
            self.to_client.push(&bytes);
        }
    }

    /// Tells the observers of a refusal, and encodes it. Many of them make the organization's sessions wait.
    pub(super) fn tell_refusal(&mut self, refusal: &Refusal) -> Box<[u8]> {
        let delay = self.seat.limits().refused(self.turn.refused(), self.thread.now.get());
        if !delay.is_zero() {
            self.delay = Some(Box::pin(tokio::time::sleep(delay)));
        }
        self.thread.observer.event(&Event::Refused {
            facts: Arc::clone(&self.facts),
            kind: refusal.kind(),
            message: refusal.message().to_owned(),
        });
        let mut bytes = Vec::new();
        wire_refusal::encode(refusal, &mut bytes);
        bytes.into()
    }

    pub(super) fn too_long(&self) -> Refusal {
        Refusal::new(
            Kind::StatementTooLarge,
            format!("the statement is longer than {} bytes", self.thread.statement_bytes_max),
        )
        .with_hint("Send data as parameters, in several statements, or with COPY.")
    }
}

/// The refusal of `text` as it is heard in a failed transaction: a text that begins by leaving it is judged past that.
pub(super) fn in_turn(text: &str, refusal: Refusal) -> Refusal {
    if guard::leaves_transaction(text) { refusal.ahead() } else { refusal }
}

/// The text of a statement at the front of `body`.
pub(super) fn statement_text(body: &[u8]) -> Result<&str, Refusal> {
    let Some((text, _)) = frame::split_cstr(body) else {
        return Err(Refusal::new(Kind::ProtocolViolation, "invalid string in message"));
    };
    std::str::from_utf8(text)
        .map_err(|_| Refusal::new(Kind::Syntax, "invalid byte sequence for encoding \"UTF8\" in the statement"))
}

pub(super) fn put_parse(out: &mut Vec<u8>, name: &[u8], rest: &[u8]) {
    frame::put(out, frontend::PARSE, |body| {
        frame::put_cstr(body, name);
        body.extend_from_slice(rest);
    });
}

/// A Describe or Close of a statement.
pub(super) fn put_named(out: &mut Vec<u8>, tag: u8, name: &[u8]) {
    frame::put(out, tag, |body| {
        body.push(b'S');
        frame::put_cstr(body, name);
    });
}

/// A message of a kind that is never long.
struct BadSize(u8);

impl std::fmt::Display for BadSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message type {:#04x} with an impossible length", self.0)
    }
}
