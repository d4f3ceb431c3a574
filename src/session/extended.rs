//! The extended protocol from the client's side: Parse, Bind, Describe, Execute, Close; the client's names are mapped to
//! the statements on server connections, which are put there where they are missing.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::deadlines::FLUSHED_EXECUTES;
use super::frontend::{Step, Stepped, put_named, put_parse, violation};
use super::names::{Held, NAME_BYTES_MAX, Undo};
use super::outgoing::Outgoing;
use super::unnamed_portal::Use;
use super::{Rest, Session, Stalled};
use crate::guard::Verdict;
use crate::limits::Source;
use crate::pool::{Statement, StatementKey};
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::Owed;
use crate::wire::frame::{self, backend, frontend};

/// The most bytes that the two names at the front of a Bind may have, as those of other messages.
const BIND_NAMES_BYTES_MAX: usize = frame::SMALL_FRAME_BYTES_MAX;

/// A Bind of the client's: its names, and its size in bytes with all that follows them.
pub(super) struct BindTo<'a> {
    pub(super) portal: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) size: usize,
}

impl Session {
    pub(super) fn parse(&mut self, size: usize, data: &[u8], at: usize, out: &mut Outgoing<'_>) -> Stepped {
        if size > self.thread.statement_bytes_max + frame::SMALL_FRAME_BYTES_MAX + 4 * usize::from(u16::MAX) {
            self.refuse_extended(self.too_long(), out);
            return self.drop_message(size);
        }
        let Some(message) = data.get(at..at + size) else {
            return match self.account_for(size) {
                Ok(()) => Ok(Step::Stall(Stalled::More)),
                Err(refusal) => {
                    self.refuse_extended(refusal, out);
                    self.drop_message(size)
                }
            };
        };
        let Some((name, body)) = frame::split_cstr(&message[frame::HEADER_BYTES..]) else {
            return Err(violation("invalid string in message"));
        };
        if self.undecided.has_name(name, &self.flow) {
            return Ok(Step::Stall(Stalled::Answers));
        }
        let verdict = match self.verdict_on(body) {
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
        if name.len() > NAME_BYTES_MAX {
            self.judged = None;
            self.refuse_extended(name_too_long("prepared statement"), out);
            return Ok(Step::Whole);
        }
        if let Err(refusal) = self.check_name(name, body.len()) {
            return Ok(self.refuse_name(body, verdict, refusal, out));
        }
        if !verdict.changes_nothing() && self.is_only_about_session(&verdict) {
            if verdict.statements().len() > 1 {
                let message = "cannot insert multiple commands into a prepared statement";
                self.refuse_extended(Refusal::new(Kind::Syntax, message), out);
                return Ok(Step::Whole);
            }
            self.prepare_about_session(name, body, verdict, out);
            return Ok(Step::Whole);
        }
        if !self.has_lease() {
            self.judged = Some(verdict);
            return Ok(Step::Stall(Stalled::Lease));
        }
        if let Err(refusal) = self.admit_locks(&verdict) {
            self.refuse_extended(refusal, out);
            return Ok(Step::Whole);
        }
        Ok(self.prepare(name, body, verdict, at..at + size, out))
    }

    /// Forgets the unnamed statement, as a Parse of another does; not where an error makes the server skip that Parse.
    pub(super) fn drop_unnamed(&mut self) {
        if self.names.get(b"").is_some() {
            let undo = Undo::Unnamed(self.names.renew(None));
            if self.flow.owes() {
                self.flow.sent(Owed::Local { bytes: Box::default(), undo });
            }
        }
    }

    /// Refuses the name of a Parse as late as the server would: not before it has looked whether it can prepare the text.
    fn refuse_name(&mut self, body: &[u8], verdict: Arc<Verdict>, refusal: Refusal, out: &mut Outgoing<'_>) -> Step {
        if !self.has_lease() {
            self.judged = Some(verdict);
            return Step::Stall(Stalled::Lease);
        }
        self.probe(body, out);
        self.refuse_extended(refusal.ahead(), out);
        Step::Whole
    }

    /// Refuses the name of a portal that is to be bound where it is too long; whether it did.
    fn check_portal_name(&mut self, portal: &[u8], out: &mut Outgoing<'_>) -> bool {
        let long = portal.len() > NAME_BYTES_MAX;
        if long {
            self.refuse_extended(name_too_long("portal"), out);
        }
        long
    }

    fn check_name(&mut self, name: &[u8], bytes: usize) -> Result<(), Refusal> {
        if !name.is_empty() && self.names.get(name).is_some() {
            let message = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(name));
            return Err(Refusal::new(Kind::DuplicateStatement, message));
        }
        if !name.is_empty() && !self.names.has_room(bytes) {
            let message = "this session holds too many prepared statements";
            return Err(Refusal::new(Kind::StatementTooLarge, message).with_hint("Close those not needed any more."));
        }
        self.account_for(0)
    }

    fn prepare(
        &mut self,
        name: &[u8],
        body: &[u8],
        verdict: Arc<Verdict>,
        range: Range<usize>,
        out: &mut Outgoing<'_>,
    ) -> Step {
        let key = StatementKey { scope: self.scope(), body: sent_body(body, &verdict).into() };
        if let Some(lease) = &mut self.lease {
            lease.note_text(body.len());
        }
        if name.is_empty() {
            let share = match self.share_of_unnamed(body.len()) {
                Ok(share) => share,
                Err(refusal) => return self.refuse_parse(refusal, out),
            };
            self.begin_statement(Arc::clone(&verdict));
            self.drop_unnamed();
            let statement = self.pool.statements.lone(key, share);
            self.undecided.note_statement(&statement, &self.flow);
            if let Some(lease) = &mut self.lease {
                lease.unnamed = Some(Rc::clone(&statement));
            }
            self.lend_names_in_batch(&verdict, out);
            match verdict.rewritten() {
                Some(_) => put_parse(out.writer(), b"", statement.body()),
                None => out.forward(range),
            }
            let undo = Undo::Unnamed(self.names.renew(Some(Held::Shared { statement, verdict })));
            self.flow.sent(Owed::Parse { ours: false, quiet: false, undo });
            return Step::Whole;
        }
        let limits = self.seat.limits();
        let statement = match self.pool.statements.intern(key, |bytes| limits.keep(bytes).map(Some)) {
            Ok(statement) => statement,
            Err(refusal) => return self.refuse_parse(refusal, out),
        };
        if self.undecided.has_statement(&statement, &self.flow) {
            self.judged = Some(verdict);
            return Step::Stall(Stalled::Answers);
        }
        self.begin_statement(Arc::clone(&verdict));
        self.lend_names_in_batch(&verdict, out);
        self.undecided.note_name(name, &self.flow);
        self.names.insert(name, Held::Shared { statement: Rc::clone(&statement), verdict });
        self.close_there(&statement, out);
        self.send_parse(&statement, out);
        let undo = Undo::Named { name: name.into(), parsed: true };
        self.flow.sent(Owed::Parse { ours: false, quiet: false, undo });
        Step::Whole
    }

    /// Closes what stands on the connection for a statement that the client prepares anew: definitions may be others by
    /// now, and whoever prepares a statement is to hear of them as they are (PostgreSQL manual, "PREPARE").
    fn close_there(&mut self, statement: &Rc<Statement>, out: &mut Outgoing<'_>) {
        let Some(lease) = &mut self.lease else { return };
        if let Some(there) = lease.prepared.take(statement) {
            put_named(out.writer(), frontend::CLOSE, statement.server_name().as_bytes());
            self.flow.sent(Owed::Close { ours: true, undo: Undo::Evicted(there) });
        }
    }

    /// Under which settings a statement prepared now is made: those of the session, or those of this transaction alone.
    fn scope(&self) -> u64 {
        if self.own.is_in_motion() { self.pool.statements.scope_of_its_own() } else { self.own.scope() }
    }

    pub(super) fn bind(&mut self, size: usize, data: &[u8], at: usize, out: &mut Outgoing<'_>) -> Stepped {
        let there = &data[at..data.len().min(at + size)];
        let body = &there[frame::HEADER_BYTES..];
        let names = frame::split_cstr(body).and_then(|(portal, rest)| Some((portal, frame::split_cstr(rest)?.0)));
        let Some((portal, name)) = names else {
            if body.len() > BIND_NAMES_BYTES_MAX {
                self.refuse_extended(name_too_long("portal or statement"), out);
                return self.drop_message(size);
            }
            if there.len() == size {
                return Err(violation("invalid string in message"));
            }
            return Ok(Step::Stall(Stalled::More));
        };
        let bind = BindTo { portal, name, size };
        let held = match self.held(name) {
            Ok(held) => held,
            Err(stalled) => return Ok(Step::Stall(stalled)),
        };
        let held = match held {
            None => {
                self.refuse_extended(unknown_statement(name), out);
                return self.drop_message(size);
            }
            Some(_) if self.check_portal_name(portal, out) => return self.drop_message(size),
            Some(Held::About { text, verdict }) => return self.bind_about_session(&bind, text, verdict, out),
            Some(held) => held,
        };
        if let Some(step) = self.bind_in_transaction(&bind, &held, out) {
            return step;
        }
        if let Err(refusal) = self.apply_held(&held) {
            self.refuse_extended(refusal, out);
            return self.drop_message(size);
        }
        self.transaction.sent_bind(portal, held.verdict(), size);
        self.ensure_prepared(name, &held, out);
        self.forget_about_portal(portal);
        self.sources.bound(portal, held.verdict());
        self.sent_bind(portal, false);
        match &held {
            Held::Shared { statement, .. } if !name.is_empty() => {
                Ok(self.pass_bind(&bind, statement.server_name().as_bytes(), out))
            }
            _ => Ok(self.pass_message(size)),
        }
    }

    /// Enters a Bind that is being sent.
    pub(super) fn sent_bind(&mut self, portal: &[u8], ours: bool) {
        let undo = if portal.is_empty() { self.unnamed_portal.bind(&self.flow) } else { Undo::Nothing };
        self.flow.sent_for(Owed::Bind { ours, undo }, Source::named(portal).number());
    }

    /// Passes a Bind on, with the server's name for the statement.
    pub(super) fn pass_bind(&mut self, bind: &BindTo<'_>, server_name: &[u8], out: &mut Outgoing<'_>) -> Step {
        let length = (bind.size - 1 - bind.name.len() + server_name.len()) as u32;
        let written = out.writer();
        written.push(frontend::BIND);
        written.extend_from_slice(&length.to_be_bytes());
        frame::put_cstr(written, bind.portal);
        frame::put_cstr(written, server_name);
        let done = frame::HEADER_BYTES + bind.portal.len() + 1 + bind.name.len() + 1;
        self.client_rest = Rest { bytes: bind.size - done, forward: true };
        Step::Part(done)
    }

    pub(super) fn describe(&mut self, body: &[u8], range: Range<usize>, out: &mut Outgoing<'_>) -> Stepped {
        let Some((&kind, name)) = body.split_first() else { return Err(violation("invalid message format")) };
        if kind != b'S' {
            if self.is_about_portal(name) {
                return Ok(self.describe_about_session(false));
            }
            return self.use_portal(Owed::Describe, name, range, out);
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

    /// Execute or Describe of the portal at the front of `body`; of the unnamed one only where it is sound.
    pub(super) fn use_portal(
        &mut self,
        owed: Owed<Undo>,
        body: &[u8],
        range: Range<usize>,
        out: &mut Outgoing<'_>,
    ) -> Stepped {
        if body.first() == Some(&0) {
            match self.unnamed_portal.usable(&self.flow) {
                Use::Pass => {}
                Use::Wait => return Ok(Step::Stall(Stalled::Answers)),
                Use::Refuse => {
                    let refusal = Refusal::new(Kind::UnknownPortal, "portal \"\" does not exist");
                    self.refuse_extended(refusal.ahead(), out);
                    return Ok(Step::Whole);
                }
            }
        }
        let is_execute = matches!(owed, Owed::Execute);
        let source = if is_execute { self.sources.of_execute(body) } else { Source::NONE };
        let step = self.portal_message(owed, source, range, out)?;
        if is_execute && matches!(step, Step::Whole) {
            self.transaction.sent_execute(frame::split_cstr(body).map_or(&[][..], |(portal, _)| portal));
        }
        Ok(step)
    }

    /// A message about a portal: portals live on the lease and keep the client's names.
    fn portal_message(
        &mut self,
        owed: Owed<Undo>,
        source: Source,
        range: Range<usize>,
        out: &mut Outgoing<'_>,
    ) -> Stepped {
        if !self.has_lease() {
            return Ok(Step::Stall(Stalled::Lease));
        }
        out.forward(range);
        if matches!(owed, Owed::Execute) {
            self.statement.executes += 1;
            if self.statement.executes.is_multiple_of(FLUSHED_EXECUTES) {
                frame::put(out.writer(), frontend::FLUSH, |_| {});
            }
        }
        self.flow.sent_for(owed, source.number());
        // A portal may be run again long after the Bind that made it.
        self.begin_clock();
        Ok(Step::Whole)
    }

    pub(super) fn close_message(&mut self, body: &[u8], range: Range<usize>, out: &mut Outgoing<'_>) -> Stepped {
        let Some((&kind, name)) = body.split_first() else { return Err(violation("invalid message format")) };
        if kind != b'S' {
            let portal = frame::split_cstr(name).map_or(&[][..], |(portal, _)| portal);
            if self.forget_about_portal(portal) && !self.is_working() {
                self.reply_here(backend::CLOSE_COMPLETE, Undo::Nothing);
                return Ok(Step::Whole);
            }
            if !self.has_lease() {
                return Ok(Step::Stall(Stalled::Lease));
            }
            let size = self.transaction.sent_close(portal);
            let undo = size.map_or(Undo::Nothing, |size| Undo::PortalClosed { name: portal.into(), size });
            return self.portal_message(Owed::Close { ours: false, undo }, Source::named(portal), range, out);
        }
        let Some((name, _)) = frame::split_cstr(name) else { return Err(violation("invalid string in message")) };
        // The statement stays on server connections: others may share it. It goes when it is the least recently used.
        if self.undecided.has_name(name, &self.flow) {
            return Ok(Step::Stall(Stalled::Answers));
        }
        let is_sql = matches!(self.names.get(name), Some(Held::Sql { .. }));
        if is_sql && !self.has_lease() {
            return Ok(Step::Stall(Stalled::Lease));
        }
        let undo = match self.names.remove(name) {
            _ if name.is_empty() => Undo::Unnamed(self.names.renew(None)),
            Some(held) => {
                self.close_large(&held, out);
                Undo::Closed { name: name.into(), held }
            }
            None => Undo::Nothing,
        };
        self.undecided.note_name(name, &self.flow);
        if is_sql {
            // That one stands on the connection under the client's own name, and may be all that the session is pinned for.
            out.forward(range);
            self.flow.sent(Owed::Close { ours: false, undo });
            self.ask_state = true;
            return Ok(Step::Whole);
        }
        self.reply_here(backend::CLOSE_COMPLETE, undo);
        Ok(Step::Whole)
    }

    /// Closes a large statement on the server connection, where nobody else holds it: the server keeps many times its size.
    fn close_large(&mut self, held: &Held, out: &mut Outgoing<'_>) {
        let Held::Shared { statement, .. } = held else { return };
        if !self.is_working() {
            return;
        }
        if let Some(lease) = &mut self.lease
            && let Some(closed) = lease.prepared.take_closed(statement)
        {
            put_named(out.writer(), frontend::CLOSE, closed.server_name().as_bytes());
            self.undecided.note_id(closed.id(), &self.flow);
            self.flow.sent(Owed::Close { ours: true, undo: Undo::Evicted(closed) });
        }
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
    fn send_parse(&mut self, statement: &Rc<Statement>, out: &mut Outgoing<'_>) {
        let limit = self.pool.settings().max_prepared_statements;
        let Some(lease) = &mut self.lease else { return };
        lease.note_text(statement.body().len());
        while let Some(evicted) = lease.prepared.evict(limit, statement.body().len()) {
            put_named(out.writer(), frontend::CLOSE, evicted.server_name().as_bytes());
            self.undecided.note_id(evicted.id(), &self.flow);
            self.flow.sent(Owed::Close { ours: true, undo: Undo::Evicted(evicted) });
        }
        lease.prepared.insert(statement);
        self.undecided.note_statement(statement, &self.flow);
        put_parse(out.writer(), statement.server_name().as_bytes(), statement.body());
    }
}

/// A Parse's text and types, with the text that is to be sent.
fn sent_body<'b>(body: &'b [u8], verdict: &Verdict) -> Cow<'b, [u8]> {
    match (verdict.rewritten(), frame::split_cstr(body)) {
        (Some(text), Some((_, types))) => Cow::Owned([text.as_bytes(), &[0], types].concat()),
        _ => Cow::Borrowed(body),
    }
}

fn name_too_long(what: &str) -> Refusal {
    let words = format!("{what} name is longer than {NAME_BYTES_MAX} bytes");
    Refusal::new(Kind::NameTooLong, words).with_hint("Use a shorter name.")
}

fn unknown_statement(name: &[u8]) -> Refusal {
    let words = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name))
    };
    // The server looks for it before it looks at the transaction (postgres.c).
    Refusal::new(Kind::UnknownStatement, words).ahead()
}
