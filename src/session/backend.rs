//! From the server: what each message means for the conversation, the result limit, and what the client sees of it.

use std::borrow::Cow;

use super::frontend::POISON_QUERY;
use super::names::{Held, Undo};
use super::outgoing::Outgoing;
use super::watched::{OUR_NAMES, Watched};
use super::{Cut, Rest, Session};
use crate::limits::{ResultMeter, Source};
use crate::refusal::Refusal;
use crate::wire::flow::{Owed, Reply, Status, Violation};
use crate::wire::frame::{self, BadLength, Header, backend};
use crate::wire::refusal as wire_refusal;
use crate::wire::shorten::Shortener;

/// Errors and notices that are longer are shortened while they come.
const WORDS_BYTES_MAX: usize = 256 * 1024;

/// Messages up to this size are looked into before they are passed on; longer errors are no FATAL of Postgres.
const LOOKED_INTO_BYTES_MAX: usize = 32 * 1024;

/// Reported settings that a session may make its own.
const REPORTED_OWN: [&str; 5] = ["application_name", "datestyle", "intervalstyle", "search_path", "timezone"];

/// Why a server connection cannot be used any further.
#[derive(Debug)]
pub(super) enum Broken {
    /// The server says that it ends the session; the body of its ErrorResponse.
    Fatal(Box<[u8]>),
    /// The server closed the connection, or it failed.
    Closed,
    /// The server sent what no server sends.
    Nonsense,
}

impl From<BadLength> for Broken {
    fn from(error: BadLength) -> Self {
        tracing::error!(%error, "a server broke the protocol");
        Self::Nonsense
    }
}

impl From<Violation> for Broken {
    fn from(error: Violation) -> Self {
        tracing::error!(%error, "a server broke the protocol");
        Self::Nonsense
    }
}

impl Session {
    /// Deals with the messages in `data`; returns how many bytes of it are done with.
    pub(super) fn server_messages(&mut self, data: &[u8], out: &mut Outgoing<'_>) -> Result<usize, Broken> {
        let mut at = 0;
        let limit = self.result_limit();
        while at < data.len() {
            if self.server_rest.bytes > 0 {
                let bytes = self.server_rest.bytes.min(data.len() - at);
                if self.server_rest.forward {
                    out.forward(at..at + bytes);
                }
                self.server_rest.bytes -= bytes;
                at += bytes;
                if self.server_rest.bytes == 0 && std::mem::take(&mut self.locals_due) {
                    self.pass_locals(out);
                }
                continue;
            }
            if self.shortening.is_some() {
                at += self.shorten(&data[at..], out)?;
                continue;
            }
            let Some(header) = frame::header(&data[at..])? else { break };
            if header.size > LOOKED_INTO_BYTES_MAX && self.is_too_long(header) {
                let body_bytes = header.size - frame::HEADER_BYTES;
                self.shortening = Some(Box::new(Shortener::new(header.tag, body_bytes)));
                at += frame::HEADER_BYTES;
                continue;
            }
            if matches!(header.tag, backend::DATA_ROW | backend::COPY_DATA) && self.copying.is_none() {
                self.row(header, limit)?;
                continue;
            }
            if !self.server_message(header, data, at, out)? {
                break;
            }
            at += header.size.min(data.len() - at);
        }
        Ok(at)
    }

    fn result_limit(&self) -> u64 {
        self.tier.max_result_bytes.unwrap_or(u64::MAX)
    }

    /// A row, or COPY data: counted before any of it is passed on.
    #[inline]
    fn row(&mut self, header: Header, limit: u64) -> Result<(), Broken> {
        if !self.flow.streams() {
            return Err(Violation { tag: header.tag }.into());
        }
        let mut forward = self.cut.is_none() && !self.is_instead();
        if forward && !self.admit_bytes(header.size, limit) {
            forward = false;
            self.begin_cut();
        }
        self.server_rest = Rest { bytes: header.size, forward };
        Ok(())
    }

    /// Whether so many bytes more of the statement at work may go to the client; they are counted then.
    #[inline]
    fn admit_bytes(&mut self, bytes: usize, limit: u64) -> bool {
        if !self.meter.has_begun() {
            self.meter.begin(Source::of_number(self.flow.source()));
        }
        self.meter.admit(bytes as u64, limit)
    }

    /// Whether this is an error or notice too long for the client to hear all of it: an error that is longer than its
    /// statement may still return is too; a notice of that length ends its statement, as a row does.
    fn is_too_long(&mut self, header: Header) -> bool {
        let Header { tag, size } = header;
        match tag {
            backend::ERROR_RESPONSE => size > WORDS_BYTES_MAX || !self.admit_bytes(size, self.result_limit()),
            backend::NOTICE_RESPONSE => size > WORDS_BYTES_MAX,
            _ => false,
        }
    }

    /// From here on the client sees nothing more of the statement at work, but the refusal at its end.
    fn begin_cut(&mut self) {
        self.cut = Some(Cut::Cancelling(Box::new(ResultMeter::too_large(&self.tier))));
        if let Some(lease) = &mut self.lease {
            lease.cancel();
        }
    }

    /// Takes what comes of a long error or notice, and deals with it when it has come whole; returns how much it took.
    fn shorten(&mut self, data: &[u8], out: &mut Outgoing<'_>) -> Result<usize, Broken> {
        let Some(shortening) = &mut self.shortening else { return Ok(0) };
        let taken = shortening.take(data);
        if let Some(whole) = self.shortening.take_if(|shortening| shortening.is_whole()) {
            let message = whole.finish();
            let Some(header) = frame::header(&message)? else { return Ok(taken) };
            let mut shortened = Outgoing::new(&message, Vec::new());
            self.server_message(header, &message, 0, &mut shortened)?;
            out.inject(&shortened.into_bytes());
        }
        Ok(taken)
    }

    /// Any other message; `false`: it is not whole yet and must be.
    fn server_message(
        &mut self,
        header: Header,
        data: &[u8],
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> Result<bool, Broken> {
        let Header { tag, size } = header;
        let whole = data.get(at..at + size).map(|message| &message[frame::HEADER_BYTES..]);
        let source = Source::of_number(self.flow.source());
        let looked_into = match tag {
            backend::READY_FOR_QUERY | backend::PARAMETER_STATUS => true,
            backend::ERROR_RESPONSE => size <= LOOKED_INTO_BYTES_MAX,
            backend::COMMAND_COMPLETE => source.is_cursor() || self.transaction.listens(),
            _ => false,
        };
        if looked_into && whole.is_none() {
            return if size > LOOKED_INTO_BYTES_MAX { Err(Violation { tag }.into()) } else { Ok(false) };
        }
        if tag == backend::NOTIFICATION_RESPONSE {
            // Nobody may LISTEN on a shared connection.
            self.server_rest = Rest { bytes: size.saturating_sub(data.len() - at), forward: false };
            return Ok(true);
        }
        if let (backend::ERROR_RESPONSE, Some(body)) = (tag, whole)
            && frame::error_is_fatal(body)
        {
            return Err(Broken::Fatal(body.into()));
        }
        if let (backend::ERROR_RESPONSE, Some(body)) = (tag, whole)
            && frame::error_is_stale_plan(body)
        {
            // As on a connection of its own, preparing it again helps; the statement that others share would not.
            self.names.shared().for_each(|statement| self.pool.statements.forget(statement));
        }
        if let (backend::COMMAND_COMPLETE, Some(body)) = (tag, whole)
            && self.transaction.listens()
        {
            self.transaction.ended(body);
        }
        if let (backend::PARAMETER_STATUS, Some(body)) = (tag, whole) {
            self.note_parameter(body);
        }
        if self.copying.is_some() {
            if tag == backend::NOTICE_RESPONSE && !self.meter.admit(size as u64, self.result_limit()) {
                self.server_rest = Rest { bytes: size.saturating_sub(data.len() - at), forward: false };
                self.flow.received(tag, 0)?;
                return Ok(true);
            }
            return self.copying_message(header, data, at, out);
        }
        if !self.may_say(tag, size) {
            self.server_rest = Rest { bytes: size.saturating_sub(data.len() - at), forward: false };
            return Ok(true);
        }
        let first = whole.and_then(|body| body.first().copied()).unwrap_or_default();
        let was_query = self.flow.answers_query();
        let streamed = self.flow.streams();
        let as_execute = self.flow.answers_as_execute();
        let reworded = whole.filter(|_| tag == backend::ERROR_RESPONSE).and_then(|body| self.reworded(body));
        let reply = match (self.flow.received(tag, first)?, reworded) {
            (Reply::Forward, Some(bytes)) => Reply::Replace(bytes),
            // What was refused here stood in a failed transaction: that is what the client hears of it from a server.
            (Reply::Replace(_), _) if whole.is_some_and(frame::error_is_failed_transaction) => Reply::Forward,
            (reply, _) => reply,
        };
        self.count_end(tag, source, was_query, whole.unwrap_or_default());
        let forwards = reply == Reply::Forward;
        if tag == backend::READY_FOR_QUERY && forwards {
            self.end_answer(first == Status::Idle.byte());
        }
        let ends = !streamed || ends_statement(tag);
        let forward = self.answer(tag, reply, (ends, was_query), at..(at + size).min(data.len()), out) && forwards;
        self.server_rest = Rest { bytes: size.saturating_sub(data.len() - at), forward };
        self.after(tag, as_execute, out);
        Ok(true)
    }

    /// What a message ends, for the result limit: a statement, or what a portal or cursor of that name gave before.
    fn count_end(&mut self, tag: u8, source: Source, was_query: bool, body: &[u8]) {
        if matches!(tag, backend::BIND_COMPLETE | backend::CLOSE_COMPLETE) {
            self.meter.renew(source);
        }
        if !ends_statement(tag) {
            return;
        }
        if source.is_cursor() && !self.meter.has_begun() {
            self.meter.begin(source);
        }
        let exhausted = tag == backend::COMMAND_COMPLETE && !was_query;
        self.statement.result_bytes += self.meter.end_statement(exhausted);
        self.statement.executes = self.statement.executes.saturating_sub(1);
        self.statement.spared = 0;
        self.begin_deadline();
        if source.is_cursor() && body.starts_with(b"DECLARE CURSOR\0") {
            self.meter.renew(source);
        }
    }

    /// Passes one message on, or what the client sees instead; whether the rest of it is passed on too.
    fn answer(
        &mut self,
        tag: u8,
        reply: Reply,
        (ends, was_query): (bool, bool),
        range: std::ops::Range<usize>,
        out: &mut Outgoing<'_>,
    ) -> bool {
        match &self.cut {
            // A change of a reported setting is true whatever became of the statement.
            Some(_) if tag == backend::PARAMETER_STATUS => out.forward(range),
            Some(Cut::Cancelling(refusal) | Cut::Draining(refusal)) if ends && tag != backend::NOTICE_RESPONSE => {
                let refusal = Refusal::clone(refusal);
                // Where the statement ended before the cancel came, the server knows of no error: what the client has
                // sent behind it must not run as if nothing had been.
                let unaware = tag != backend::ERROR_RESPONSE;
                out.inject(&self.tell_refusal(&refusal));
                self.skip_to_sync |= unaware && !was_query && self.flow.batch_open();
                self.cut = Some(Cut::Told { unaware });
            }
            Some(Cut::Told { unaware: true })
                if tag == backend::READY_FOR_QUERY
                    && self.flow.status() == Status::InTransaction
                    && !self.flow.owes() =>
            {
                // The client has heard an error: its transaction must have failed with it.
                self.cut = Some(Cut::Told { unaware: false });
                self.unnamed_portal.query();
                frame::put_query(self.to_server.writer(), POISON_QUERY);
                self.flow.sent(Owed::Poison { query: true, bytes: Box::default() });
            }
            Some(_) if tag == backend::READY_FOR_QUERY => {
                self.cut = None;
                out.forward(range);
            }
            Some(_) => {}
            None => match reply {
                Reply::Forward if self.watch(tag, out) => return false,
                Reply::Forward => out.forward(range),
                Reply::Swallow => {}
                Reply::Replace(bytes) => out.inject(&bytes),
            },
        }
        self.cut.is_none()
    }

    /// Whether the client may hear this message: what notices and descriptions say is bounded too. Beyond that a notice is
    /// dropped, and either ends its statement as a row would.
    fn may_say(&mut self, tag: u8, size: usize) -> bool {
        let limit = self.result_limit();
        if self.cut.is_some() {
            return true;
        }
        match tag {
            backend::NOTICE_RESPONSE if !self.flow.answers_a_message() => self.meter.admit(size as u64, limit),
            backend::NOTICE_RESPONSE if !self.admit_bytes(size, limit) => {
                self.begin_cut();
                false
            }
            backend::ROW_DESCRIPTION | backend::PARAMETER_DESCRIPTION if !self.meter.describe(size as u64, limit) => {
                self.begin_cut();
                true
            }
            _ => true,
        }
    }

    /// What follows from a message that has been answered.
    fn after(&mut self, tag: u8, as_execute: bool, out: &mut Outgoing<'_>) {
        if tag == backend::ERROR_RESPONSE {
            self.statement.failed = true;
            self.skip_to_sync |= as_execute;
        }
        if self.flow.has_undone() {
            self.undo();
        }
        // A reply made here in the middle of a message would be read as its rest.
        self.locals_due = self.server_rest.bytes > 0;
        if !self.locals_due {
            self.pass_locals(out);
        }
        if self.watched.as_ref().is_some_and(|watched| watched.is_over(tag)) {
            self.end_watched();
        }
        if tag == backend::READY_FOR_QUERY && !self.flow.owes() {
            self.end_watched();
            self.names.forget_gone();
            self.settle_transaction();
        }
        if tag == backend::READY_FOR_QUERY && self.flow.status() == Status::Idle {
            // Portals end with their transaction.
            self.end_about_portals();
            self.deadlines.transaction = None;
        }
        if tag == backend::READY_FOR_QUERY && self.cut.is_none() {
            self.end_statement();
        }
    }

    /// Whether what runs now stands in the place of a statement of the client's.
    fn is_instead(&self) -> bool {
        self.watched.as_ref().is_some_and(Watched::is_instead)
    }

    /// Counts the statements of a watched text; `true`: the client has heard, or must not hear, this message.
    fn watch(&mut self, tag: u8, out: &mut Outgoing<'_>) -> bool {
        let Some(watched) = &mut self.watched else { return false };
        let instead = watched.is_instead();
        match tag {
            backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE => {
                if let Some(words) = watched.count() {
                    frame::put(out.writer(), backend::COMMAND_COMPLETE, |body| frame::put_cstr(body, words.as_bytes()));
                }
                instead
            }
            backend::ROW_DESCRIPTION => instead,
            _ => false,
        }
    }

    /// An error in the client's words, where it names a statement as the server knows it, or a place in a text that is
    /// not the client's.
    fn reworded(&self, body: &[u8]) -> Option<Box<[u8]>> {
        if frame::error_is_copy_from_protected(body) {
            return Some(self.advised(body));
        }
        if let (Some(watched), Some(position)) = (&self.watched, frame::error_field(body, b'P')) {
            let place = watched.place(std::str::from_utf8(position).ok()?.parse().ok()?);
            return Some(with_field(body, b'P', place.to_string().as_bytes()));
        }
        let message = std::str::from_utf8(frame::error_field(body, b'M')?).ok()?;
        let from = message.find(&format!("\"{OUR_NAMES}"))? + 1;
        let ours = message[from..].split('"').next()?;
        let name = String::from_utf8_lossy(self.names.of_server(ours)?);
        Some(with_field(body, b'M', message.replacen(ours, &name, 1).as_bytes()))
    }

    /// Passes on the replies made here that are due.
    fn pass_locals(&mut self, out: &mut Outgoing<'_>) {
        while let Some(bytes) = self.flow.take_local() {
            // Behind an error, a client hears nothing but ReadyForQuery.
            if self.cut.is_none() {
                out.inject(&bytes);
            }
        }
    }

    /// Takes back what skipped messages had prepared.
    fn undo(&mut self) {
        let undone = self.flow.take_undone();
        self.take_back(undone);
    }

    /// Takes back what came to nothing, the newest first.
    pub(super) fn take_back(&mut self, undone: Vec<Undo>) {
        for undo in undone {
            match undo {
                Undo::Nothing => {}
                Undo::Named { name, parsed } => {
                    let held = self.names.remove(&name);
                    if let (true, Some(Held::Shared { statement, .. }), Some(lease)) = (parsed, held, &mut self.lease) {
                        lease.prepared.remove(&statement);
                    }
                }
                Undo::Prepared(statement) => {
                    if let Some(lease) = &mut self.lease {
                        lease.prepared.remove(&statement);
                    }
                }
                Undo::Evicted(statement) => {
                    if let Some(lease) = &mut self.lease {
                        lease.prepared.put_back(statement);
                    }
                }
                Undo::PortalClosed { name, size } => self.transaction.closed_in_vain(&name, size),
                Undo::UnnamedPortal(batch) => self.unnamed_portal.bound_in_vain(batch),
                Undo::AboutPortal { name, batch } => self.undo_about_portal(&name, batch),
                Undo::Closed { name, held } => self.names.insert(&name, held),
                Undo::Unnamed(renewed) => {
                    self.names.undo_renewal(renewed);
                    if let Some(lease) = &mut self.lease {
                        lease.unnamed = None;
                    }
                }
                Undo::UnnamedAgain => {
                    if let Some(lease) = &mut self.lease {
                        lease.unnamed = None;
                    }
                }
            }
        }
    }

    fn note_parameter(&mut self, body: &[u8]) {
        let Some(lease) = &mut self.lease else { return };
        lease.note_parameter(body);
        self.heard = self.thread.shared(&lease.server.parameters);
        let name = frame::split_cstr(body).map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase());
        if let Some(name) = name.filter(|name| REPORTED_OWN.contains(&name.as_str()) && !self.own.expects(name)) {
            self.changed_by_code(&name);
        }
    }

    /// Ends the session's wait for a server that is gone: see [`super::lost`].
    pub(super) fn push_refusal(&mut self, refusal: &Refusal) {
        wire_refusal::encode(refusal, self.to_client.writer());
    }

    /// Whether the lease may end here.
    pub(super) fn is_safe(&self) -> bool {
        self.flow.is_safe()
            && self.to_server.is_empty()
            && self.client_rest.bytes == 0
            && self.server_rest.bytes == 0
            && self.shortening.is_none()
            && self.from_server.is_empty()
            && self.flow.status() == Status::Idle
    }
}

/// Whether a message of that type is the last one of a statement.
fn ends_statement(tag: u8) -> bool {
    matches!(
        tag,
        backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE | backend::PORTAL_SUSPENDED | backend::ERROR_RESPONSE
    )
}

/// An ErrorResponse like `body`, but with `value` in one of its fields.
fn with_field(body: &[u8], field: u8, value: &[u8]) -> Box<[u8]> {
    let mut bytes = Vec::new();
    frame::put_edited(&mut bytes, backend::ERROR_RESPONSE, body, |kind, known| {
        Some(Cow::Borrowed(if kind == field { value } else { known }))
    });
    bytes.into()
}
