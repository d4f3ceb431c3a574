//! From the client: what each message is, what it needs, and how it goes to the server.

use std::rc::Rc;
use std::sync::Arc;

use super::names::{Held, Undo};
use super::outgoing::Outgoing;
use super::{Rest, Session, Stalled};
use crate::event::Event;
use crate::guard::Verdict;
use crate::pool::StatementKey;
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::{Owed, Status};
use crate::wire::frame::{self, Header, backend, frontend};
use crate::wire::{refusal as wire_refusal, welcome};

/// Texts up to this size are judged at once; longer ones on another thread.
pub(super) const JUDGED_AT_ONCE_BYTES: usize = 16 * 1024;

/// The most bytes that the two names at the front of a Bind may have.
const BIND_NAMES_BYTES_MAX: usize = 4096;

/// The server is sent these only to fail, so that its transaction fails where a statement was refused here.
pub(super) const POISON_QUERY: &str = "ROLLBACK TO SAVEPOINT \"refused by partywall\"";
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

fn violation(message: impl Into<std::borrow::Cow<'static, str>>) -> End {
    End::Refused(Refusal::new(Kind::ProtocolViolation, message))
}

impl Session {
    /// Deals with the messages in `data`; returns how many bytes of it are done with.
    pub(super) fn client_messages(&mut self, data: &[u8], out: &mut Outgoing<'_>) -> Result<usize, End> {
        let mut at = 0;
        self.stalled = Stalled::No;
        while at < data.len() {
            if self.client_rest.bytes > 0 {
                at += self.pass_client_rest(at, data.len(), out);
                continue;
            }
            if self.flow.is_full() {
                self.stalled = Stalled::Owed;
                break;
            }
            if self.watched.is_some() {
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

    fn pass_client_rest(&mut self, at: usize, end: usize, out: &mut Outgoing<'_>) -> usize {
        let bytes = self.client_rest.bytes.min(end - at);
        if self.client_rest.forward {
            out.forward(at..at + bytes);
        }
        self.client_rest.bytes -= bytes;
        bytes
    }

    fn client_message(&mut self, header: Header, data: &[u8], at: usize, out: &mut Outgoing<'_>) -> Stepped {
        let Header { tag, size } = header;
        match tag {
            frontend::TERMINATE => return Err(End::Terminate),
            frontend::SYNC => return Ok(self.sync(size, at, data.len(), out)),
            _ if self.skip_to_sync || self.flow.skipping() => return self.drop_message(size),
            frontend::QUERY => return self.query(size, data, at, out),
            frontend::PARSE => return self.parse(size, data, at, out),
            frontend::BIND => return self.bind(size, data, at, out),
            frontend::COPY_DATA => return Ok(self.copy(size, at, data.len(), false, out)),
            frontend::FUNCTION_CALL => {
                let refusal = Refusal::new(Kind::NotSupported, "function calls by protocol are not supported")
                    .with_hint("Call the function in a SELECT.");
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
            frontend::EXECUTE if self.is_about_portal(body) => self.execute_about_session(out),
            frontend::EXECUTE if self.is_vain_portal(body) => {
                self.refuse_extended(unknown_portal(body), out);
                Ok(Step::Whole)
            }
            frontend::EXECUTE => self.portal_message(Owed::Execute, at..at + size, out),
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
        self.client_rest = Rest { bytes: size, forward: false };
        Ok(Step::Part(0))
    }

    /// Passes a message on that may still be on its way.
    fn pass_message(&mut self, size: usize) -> Step {
        self.client_rest = Rest { bytes: size, forward: true };
        Step::Part(0)
    }

    fn query(&mut self, size: usize, data: &[u8], at: usize, out: &mut Outgoing<'_>) -> Stepped {
        if size > self.thread.statement_bytes_max + frame::HEADER_BYTES + 1 {
            self.refuse_query(self.too_long(), out);
            return self.drop_message(size);
        }
        let Some(message) = data.get(at..at + size) else { return Ok(Step::Stall(Stalled::More)) };
        let verdict = match self.verdict_on(&message[frame::HEADER_BYTES..]) {
            Ok(Some(verdict)) => verdict,
            Ok(None) => return Ok(Step::Stall(Stalled::Judge)),
            Err(refusal) => {
                self.refuse_query(refusal, out);
                return Ok(Step::Whole);
            }
        };
        if !verdict.changes_nothing() && self.is_about_session(&verdict) {
            return self.about_session(&message[frame::HEADER_BYTES..], verdict, None, out);
        }
        if !self.has_lease() {
            self.judged = Some(verdict);
            return Ok(Step::Stall(Stalled::Lease));
        }
        if let Err(refusal) = self.apply(&verdict) {
            self.refuse_query(refusal, out);
            return Ok(Step::Whole);
        }
        self.forget_unnamed();
        out.forward(at..at + size);
        self.flow.sent(Owed::Query { as_execute: false });
        self.begin_statement(verdict);
        Ok(Step::Whole)
    }

    /// A simple Query destroys the unnamed statement (PostgreSQL manual, "Extended Query").
    pub(super) fn forget_unnamed(&mut self) {
        self.drop_unnamed();
        if let Some(lease) = &mut self.lease {
            lease.unnamed = None;
        }
    }

    /// The verdict on a body that begins with a statement's text; `None`: it must be judged elsewhere first.
    fn verdict_on(&mut self, body: &[u8]) -> Result<Option<Arc<Verdict>>, Refusal> {
        if let Some(verdict) = self.judged.take() {
            return Ok(Some(verdict));
        }
        let text = statement_text(body)?;
        if text.len() > JUDGED_AT_ONCE_BYTES {
            return Ok(None);
        }
        let verdict = self.thread.guard.load().judge(text, &self.rights)?;
        self.admit(&verdict)?;
        self.admit_names(&verdict)?;
        Ok(Some(verdict))
    }

    fn parse(&mut self, size: usize, data: &[u8], at: usize, out: &mut Outgoing<'_>) -> Stepped {
        if size > self.thread.statement_bytes_max + frame::SMALL_FRAME_BYTES_MAX + 4 * usize::from(u16::MAX) {
            self.refuse_extended(self.too_long(), out);
            return self.drop_message(size);
        }
        let Some(message) = data.get(at..at + size) else { return Ok(Step::Stall(Stalled::More)) };
        let Some((name, body)) = frame::split_cstr(&message[frame::HEADER_BYTES..]) else {
            return Err(violation("invalid string in message"));
        };
        if self.undecided.has_name(name, &self.flow) {
            return Ok(Step::Stall(Stalled::Answers));
        }
        let judged = self.verdict_on(body);
        let judged = judged.and_then(|verdict| self.check_name(name, body.len()).map(|()| verdict));
        let verdict = match judged {
            Ok(Some(verdict)) => verdict,
            Ok(None) => return Ok(Step::Stall(Stalled::Judge)),
            Err(refusal) => {
                if name.is_empty() {
                    self.drop_unnamed();
                }
                self.refuse_extended(refusal, out);
                return Ok(Step::Whole);
            }
        };
        if !verdict.changes_nothing() && self.is_only_about_session(&verdict) {
            self.prepare_about_session(name, body, verdict);
            return Ok(Step::Whole);
        }
        if !self.has_lease() {
            self.judged = Some(verdict);
            return Ok(Step::Stall(Stalled::Lease));
        }
        Ok(self.prepare(name, body, verdict, at..at + size, out))
    }

    /// Forgets the unnamed statement, as a Parse of another does; not where an error makes the server skip that Parse.
    fn drop_unnamed(&mut self) {
        if let Some(held) = self.names.remove(b"")
            && self.flow.owes()
        {
            let undo = Undo::Closed { name: Box::default(), held };
            self.flow.sent(Owed::Local { bytes: Box::default(), undo });
        }
    }

    fn check_name(&self, name: &[u8], bytes: usize) -> Result<(), Refusal> {
        if !name.is_empty() && self.names.get(name).is_some() {
            let message = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(name));
            return Err(Refusal::new(Kind::DuplicateStatement, message));
        }
        if !name.is_empty() && !self.names.has_room(bytes) {
            let message = "this session holds too many prepared statements";
            return Err(Refusal::new(Kind::StatementTooLarge, message).with_hint("Close those not needed any more."));
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        name: &[u8],
        body: &[u8],
        verdict: Arc<Verdict>,
        range: std::ops::Range<usize>,
        out: &mut Outgoing<'_>,
    ) -> Step {
        let key = StatementKey { scope: self.own.scope(), body: body.into() };
        if name.is_empty() {
            self.begin_statement(Arc::clone(&verdict));
            self.drop_unnamed();
            let statement = self.pool.statements.lone(key);
            self.undecided.note_statement(&statement, &self.flow);
            if let Some(lease) = &mut self.lease {
                lease.unnamed = Some(Rc::clone(&statement));
            }
            self.lend_names_in_batch(&verdict, out);
            self.names.insert(name, Held::Shared { statement: Rc::clone(&statement), verdict });
            out.forward(range);
            self.flow.sent(Owed::Parse { ours: false, quiet: false, undo: Undo::Unnamed(statement) });
            return Step::Whole;
        }
        let statement = self.pool.statements.intern(key);
        let there = self.lease.as_mut().is_some_and(|lease| lease.prepared.touch(&statement));
        // What is there already is answered here, which is right only where no earlier batch can fail the transaction.
        if self.undecided.has_statement(&statement, &self.flow) || there && self.flow.is_behind() {
            self.judged = Some(verdict);
            return Step::Stall(Stalled::Answers);
        }
        self.begin_statement(Arc::clone(&verdict));
        self.lend_names_in_batch(&verdict, out);
        self.undecided.note_name(name, &self.flow);
        self.names.insert(name, Held::Shared { statement: Rc::clone(&statement), verdict });
        if there && body[0] != 0 && self.flow.status() == Status::Failed && !self.flow.owes() {
            // In a failed transaction nothing but an empty text can be prepared: the server says so by itself.
            put_parse(out.writer(), statement.server_name().as_bytes(), statement.body());
            let undo = Undo::Named { name: name.into(), parsed: false };
            self.flow.sent(Owed::Parse { ours: false, quiet: false, undo });
        } else if there {
            let undo = Undo::Named { name: name.into(), parsed: false };
            self.reply_here(backend::PARSE_COMPLETE, undo);
        } else {
            self.send_parse(&statement, out);
            let undo = Undo::Named { name: name.into(), parsed: true };
            self.flow.sent(Owed::Parse { ours: false, quiet: false, undo });
        }
        Step::Whole
    }

    fn bind(&mut self, size: usize, data: &[u8], at: usize, out: &mut Outgoing<'_>) -> Stepped {
        let there = &data[at..data.len().min(at + size)];
        let body = &there[frame::HEADER_BYTES..];
        let names = frame::split_cstr(body).and_then(|(portal, rest)| Some((portal, frame::split_cstr(rest)?.0)));
        let Some((portal, name)) = names else {
            if there.len() == size || body.len() > BIND_NAMES_BYTES_MAX {
                return Err(violation("invalid string in message"));
            }
            return Ok(Step::Stall(Stalled::More));
        };
        let held = match self.held(name) {
            Ok(held) => held,
            Err(stalled) => return Ok(Step::Stall(stalled)),
        };
        let held = match held {
            None => {
                self.refuse_extended(unknown_statement(name), out);
                return self.drop_message(size);
            }
            Some(held @ Held::About { .. }) => return self.bind_about_session(portal, held, size),
            Some(held) => held,
        };
        if let Err(refusal) = self.apply_held(&held) {
            self.refuse_extended(refusal, out);
            return self.drop_message(size);
        }
        self.ensure_prepared(name, &held, out);
        self.vain_portals.remove(portal);
        self.flow.sent(Owed::Bind { undo: Undo::Portal(portal.into()) });
        let statement = match &held {
            Held::Shared { statement, .. } if !name.is_empty() => statement,
            _ => return Ok(self.pass_message(size)),
        };
        let server_name = statement.server_name().as_bytes();
        let length = (size - 1 - name.len() + server_name.len()) as u32;
        let written = out.writer();
        written.push(frontend::BIND);
        written.extend_from_slice(&length.to_be_bytes());
        frame::put_cstr(written, portal);
        frame::put_cstr(written, server_name);
        let done = frame::HEADER_BYTES + portal.len() + 1 + name.len() + 1;
        self.client_rest = Rest { bytes: size - done, forward: true };
        Ok(Step::Part(done))
    }

    fn describe(&mut self, body: &[u8], range: std::ops::Range<usize>, out: &mut Outgoing<'_>) -> Stepped {
        let Some((&kind, name)) = body.split_first() else { return Err(violation("invalid message format")) };
        if kind != b'S' {
            if self.is_about_portal(name) {
                return Ok(self.describe_about_session(false));
            }
            if self.is_vain_portal(name) {
                self.refuse_extended(unknown_portal(name), out);
                return Ok(Step::Whole);
            }
            return self.portal_message(Owed::Describe, range, out);
        }
        let Some((name, _)) = frame::split_cstr(name) else { return Err(violation("invalid string in message")) };
        let held = match self.held(name) {
            Ok(held) => held,
            Err(stalled) => return Ok(Step::Stall(stalled)),
        };
        let held = match held {
            None => {
                self.refuse_extended(unknown_statement(name), out);
                return Ok(Step::Whole);
            }
            Some(Held::About { .. }) => return Ok(self.describe_about_session(true)),
            Some(held) => held,
        };
        self.ensure_prepared(name, &held, out);
        match &held {
            Held::Shared { statement, .. } if !name.is_empty() => {
                put_named(out.writer(), frontend::DESCRIBE, statement.server_name().as_bytes());
            }
            _ => out.forward(range),
        }
        self.flow.sent(Owed::Describe);
        Ok(Step::Whole)
    }

    /// What the client calls `name`, with a lease to use it on; or what must be waited for first.
    fn held(&mut self, name: &[u8]) -> Result<Option<Held>, Stalled> {
        if self.undecided.has_name(name, &self.flow) {
            return Err(Stalled::Answers);
        }
        let Some(held) = self.names.get(name).cloned() else { return Ok(None) };
        if matches!(held, Held::About { .. }) {
            return Ok(Some(held));
        }
        if !self.has_lease() {
            return Err(Stalled::Lease);
        }
        if let Held::Shared { statement, .. } = &held
            && self.undecided.has_statement(statement, &self.flow)
        {
            return Err(Stalled::Answers);
        }
        Ok(Some(held))
    }

    /// Whether `body` begins with the name of a portal that is not there, though the server may not know it.
    ///
    /// PostgreSQL 15 leaves a portal behind where a Bind fails in a failed transaction; its Execute can crash the server
    /// process, and with it all others of that cluster.
    fn is_vain_portal(&self, body: &[u8]) -> bool {
        let Some((name, _)) = frame::split_cstr(body) else { return false };
        self.vain_portals.contains(name) || name.is_empty() && self.flow.status() == Status::Failed
    }

    /// A message about a portal: portals live on the lease and keep the client's names.
    fn portal_message(&mut self, owed: Owed<Undo>, range: std::ops::Range<usize>, out: &mut Outgoing<'_>) -> Stepped {
        if !self.has_lease() {
            return Ok(Step::Stall(Stalled::Lease));
        }
        out.forward(range);
        self.statement.executes += u32::from(matches!(owed, Owed::Execute));
        self.flow.sent(owed);
        // A portal may be run again long after the Bind that made it.
        self.begin_clock();
        Ok(Step::Whole)
    }

    fn close_message(&mut self, body: &[u8], range: std::ops::Range<usize>, out: &mut Outgoing<'_>) -> Stepped {
        let Some((&kind, name)) = body.split_first() else { return Err(violation("invalid message format")) };
        if kind != b'S' {
            if self.is_about_portal(name) {
                self.about_portal = None;
                self.reply_here(backend::CLOSE_COMPLETE, Undo::Nothing);
                return Ok(Step::Whole);
            }
            return self.portal_message(Owed::Close { ours: false, undo: Undo::Nothing }, range, out);
        }
        let Some((name, _)) = frame::split_cstr(name) else { return Err(violation("invalid string in message")) };
        // The statement stays on server connections: others may share it. It goes when it is the least recently used.
        if self.undecided.has_name(name, &self.flow) {
            return Ok(Step::Stall(Stalled::Answers));
        }
        let undo = match self.names.remove(name) {
            Some(held) => Undo::Closed { name: name.into(), held },
            None => Undo::Nothing,
        };
        self.undecided.note_name(name, &self.flow);
        self.reply_here(backend::CLOSE_COMPLETE, undo);
        Ok(Step::Whole)
    }

    fn sync(&mut self, size: usize, at: usize, end: usize, out: &mut Outgoing<'_>) -> Step {
        if end < at + size {
            return Step::Stall(Stalled::More);
        }
        self.skip_to_sync = false;
        self.about_portal = None;
        if self.is_working() {
            self.flow.sent_sync();
            out.forward(at..at + size);
            self.take_names_back(out);
        } else {
            welcome::ready_for_query(Status::Idle, self.to_client.writer());
        }
        Step::Whole
    }

    /// COPY data and its end. Where none is expected the server ignores it, and so do we.
    fn copy(&mut self, size: usize, at: usize, end: usize, last: bool, out: &mut Outgoing<'_>) -> Step {
        if last && end < at + size {
            return Step::Stall(Stalled::More);
        }
        if !self.is_working() || !(self.flow.copy_in() || self.flow.streams()) {
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

    /// What the statement may leave behind, and its clock.
    fn apply_held(&mut self, held: &Held) -> Result<(), Refusal> {
        if let Held::Shared { verdict, .. } = held {
            self.apply(verdict)?;
            self.begin_statement(Arc::clone(verdict));
        }
        if let Held::Sql { touches } = held {
            self.apply_touches(touches)?;
        }
        Ok(())
    }

    /// Makes sure that the leased connection has what the client calls `name`.
    fn ensure_prepared(&mut self, name: &[u8], held: &Held, out: &mut Outgoing<'_>) {
        let Held::Shared { statement, verdict } = held else { return };
        self.lend_names_in_batch(verdict, out);
        let Some(lease) = &mut self.lease else { return };
        if name.is_empty() {
            if lease.unnamed.as_ref().is_some_and(|there| Rc::ptr_eq(there, statement)) {
                return;
            }
            lease.unnamed = Some(Rc::clone(statement));
            self.undecided.note_statement(statement, &self.flow);
            put_parse(out.writer(), b"", statement.body());
            self.flow.sent(Owed::Parse { ours: true, quiet: false, undo: Undo::UnnamedAgain });
        } else if !lease.prepared.touch(statement) {
            self.send_parse(statement, out);
            let undo = Undo::Prepared(Rc::clone(statement));
            self.flow.sent(Owed::Parse { ours: true, quiet: false, undo });
        }
    }

    /// Sends the Parse of a named statement, after the Close of another where the connection is full.
    fn send_parse(&mut self, statement: &Rc<crate::pool::Statement>, out: &mut Outgoing<'_>) {
        let limit = self.pool.settings().max_prepared_statements;
        let Some(lease) = &mut self.lease else { return };
        if let Some(evicted) = lease.prepared.evict(limit) {
            put_named(out.writer(), frontend::CLOSE, evicted.server_name().as_bytes());
            self.undecided.note_statement(&evicted, &self.flow);
            self.flow.sent(Owed::Close { ours: true, undo: Undo::Evicted(evicted) });
        }
        lease.prepared.insert(statement);
        self.undecided.note_statement(statement, &self.flow);
        put_parse(out.writer(), statement.server_name().as_bytes(), statement.body());
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

    /// Refuses a simple Query; inside a transaction the server's transaction fails with it.
    pub(super) fn refuse_query(&mut self, refusal: Refusal, out: &mut Outgoing<'_>) {
        let bytes = self.tell_refusal(&refusal);
        if self.is_working() {
            self.forget_unnamed();
            frame::put_query(out.writer(), POISON_QUERY);
            self.flow.sent(Owed::Poison { query: true, bytes });
        } else {
            self.to_client.push(&bytes);
            welcome::ready_for_query(Status::Idle, self.to_client.writer());
        }
    }

    /// Refuses a message of the extended protocol: what follows is dropped up to Sync, as the server would.
    pub(super) fn refuse_extended(&mut self, refusal: Refusal, out: &mut Outgoing<'_>) {
        let bytes = self.tell_refusal(&refusal);
        self.skip_to_sync = true;
        if self.is_working() {
            put_named(out.writer(), frontend::DESCRIBE, POISON_STATEMENT);
            self.flow.sent(Owed::Poison { query: false, bytes });
        } else {
            self.to_client.push(&bytes);
        }
    }

    /// Tells the observers of a refusal, and encodes it.
    pub(super) fn tell_refusal(&mut self, refusal: &Refusal) -> Box<[u8]> {
        self.thread.observer.event(&Event::Refused {
            facts: Arc::clone(&self.facts),
            kind: refusal.kind(),
            message: refusal.message().to_owned(),
        });
        let mut bytes = Vec::new();
        wire_refusal::encode(refusal, &mut bytes);
        bytes.into()
    }

    fn too_long(&self) -> Refusal {
        Refusal::new(
            Kind::StatementTooLarge,
            format!("the statement is longer than {} bytes", self.thread.statement_bytes_max),
        )
        .with_hint("Send data as parameters, in several statements, or with COPY.")
    }
}

/// The text of a statement at the front of `body`.
pub(super) fn statement_text(body: &[u8]) -> Result<&str, Refusal> {
    let Some((text, _)) = frame::split_cstr(body) else {
        return Err(Refusal::new(Kind::ProtocolViolation, "invalid string in message"));
    };
    std::str::from_utf8(text)
        .map_err(|_| Refusal::new(Kind::Syntax, "invalid byte sequence for encoding \"UTF8\" in the statement"))
}

fn unknown_portal(body: &[u8]) -> Refusal {
    let name = frame::split_cstr(body).map_or(&[][..], |(name, _)| name);
    Refusal::new(Kind::UnknownPortal, format!("portal \"{}\" does not exist", String::from_utf8_lossy(name)))
}

fn unknown_statement(name: &[u8]) -> Refusal {
    let words = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name))
    };
    Refusal::new(Kind::UnknownStatement, words)
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
