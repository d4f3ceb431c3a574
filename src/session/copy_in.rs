//! COPY FROM into a table whose policies apply, which PostgreSQL refuses: loaded into a staging table, then moved by an
//! INSERT under the policies, in one transaction; the client sees a COPY.
//!
//! The steps are simple Queries of our own, one after the other. While one is answered the client's messages wait, but for
//! its data, which goes through as it comes. Only tables whose policies apply are staged; others get the COPY as it is.

use std::borrow::Cow;
use std::sync::Arc;

use super::backend::Broken;
use super::frontend::{End, JUDGED_AT_ONCE_BYTES, violation};
use super::outgoing::Outgoing;
use super::{Rest, Session, Stalled};
use crate::config::CopyFrom;
use crate::guard::{Change, CopyIn, Staging, Verdict};
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::{Owed, Status};
use crate::wire::frame::{self, Header, backend, frontend};
use crate::wire::welcome;

/// How often a transaction of ours is rolled back, should a cancel that was meant for a step before hit the ROLLBACK.
const ROLLBACKS_MAX: u8 = 3;

/// The most rows of a step's answer: a table has at most 1,600 columns.
const ROWS_MAX: usize = 1700;

/// Messages up to this size are looked into; only the words of errors and notices can be longer.
const WHOLE_BYTES_MAX: usize = 32 * 1024;

/// A COPY FROM on its way through the staging table.
#[derive(Debug)]
pub(super) struct Copying {
    /// What it loads into; none where nothing is asked.
    copy: Option<CopyIn>,
    /// The client's text.
    text: Box<str>,
    /// The client sent an Execute, and hears no ReadyForQuery before its Sync.
    as_execute: bool,
    /// The client has no transaction open: the steps have one of their own.
    own_transaction: bool,
    step: Step,
    /// What the current step has answered.
    rows: Vec<String>,
    failed: bool,
    staging: Option<Staging>,
    /// The COPY's tag, once the rows have been moved.
    tag: Option<Vec<u8>>,
    /// The next step, which waits for the end of the client's current message.
    due: Option<String>,
    rollbacks: u8,
}

/// Which of the Queries is being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Whether policies apply. On to `Opening`, or `Direct`.
    Asking,
    /// The client's text, as it is. The last.
    Direct,
    /// The staging table is made. On to `Loading`.
    Opening,
    /// The client's COPY, into the staging table. On to `Moving`.
    Loading,
    /// The INSERT. The last.
    Moving,
    /// A transaction of ours that failed. The last.
    Undoing,
}

impl Session {
    /// Whether the text is one COPY FROM that may have to be staged.
    pub(super) fn may_stage(&self, verdict: &Verdict) -> bool {
        self.thread.copy_from == CopyFrom::Staged
            && verdict.statements().len() == 1
            && verdict.changes().any(|change| matches!(change, Change::CopyIn))
    }

    /// Begins a COPY FROM by simple Query, or by the Execute that stands for one; it has its lease, and nothing is owed.
    pub(super) fn begin_copy(&mut self, text: &str, verdict: Arc<Verdict>, as_execute: bool, out: &mut Outgoing<'_>) {
        let (batch_open, status) = (self.flow.batch_open(), self.flow.status());
        let begun = self.apply(&verdict).and_then(|()| {
            if as_execute && batch_open && status == Status::Idle {
                let message = "COPY FROM cannot stand behind other statements of a pipeline";
                return Err(Refusal::new(Kind::NotSupported, message).with_hint("Send a Sync before it."));
            }
            Ok(verdict.rewritten().unwrap_or(text))
        });
        let text = match begun {
            Ok(text) => text,
            Err(refusal) if as_execute => return self.refuse_extended(refusal, out),
            Err(refusal) => return self.refuse_query(refusal, out),
        };
        if as_execute {
            self.lose_unnamed();
        } else {
            self.forget_unnamed();
        }
        // In a failed transaction nothing can be asked, and the COPY fails whatever it says.
        let may_ask = status != Status::Failed && text.len() <= JUDGED_AT_ONCE_BYTES;
        let copy = may_ask.then(|| CopyIn::read(text)).flatten();
        match &copy {
            Some(copy) => frame::put_query(out.writer(), &copy.question()),
            None => frame::put_query(out.writer(), text),
        }
        self.copying = Some(Box::new(Copying {
            step: if copy.is_some() { Step::Asking } else { Step::Direct },
            copy,
            text: text.into(),
            as_execute,
            own_transaction: status == Status::Idle,
            rows: Vec::new(),
            failed: false,
            staging: None,
            tag: None,
            due: None,
            rollbacks: 0,
        }));
        self.flow.sent(Owed::Query { as_execute });
        self.begin_statement(verdict);
    }

    /// Sends the step that waited for the end of the client's current message.
    pub(super) fn send_due_step(&mut self, out: &mut Outgoing<'_>) {
        let Some(copying) = &mut self.copying else { return };
        if let Some(sql) = copying.due.take() {
            frame::put_query(out.writer(), &sql);
            self.flow.sent(Owed::Query { as_execute: copying.as_execute });
        }
    }

    /// An ErrorResponse that says that policies stand against COPY FROM, with the advice that helps here.
    pub(super) fn advised(&self, body: &[u8]) -> Box<[u8]> {
        let advice: &[u8] = match self.thread.copy_from {
            CopyFrom::Direct => {
                b"Use INSERT statements, or COPY into a temporary table and INSERT from there. \
                  The operator can let COPY FROM through by the setting guard.copy_from."
            }
            CopyFrom::Staged => b"Send the COPY as a statement of its own, with the table's plain name.",
        };
        let mut out = Vec::new();
        frame::put_edited(&mut out, backend::ERROR_RESPONSE, body, |kind, value| {
            Some(Cow::Borrowed(if kind == b'H' { advice } else { value }))
        });
        out.into()
    }

    /// Whether the client's next message, of that type, waits for a step of a staged COPY.
    pub(super) fn waits_for_copy(&self, tag: u8) -> Result<bool, End> {
        if self.copying.is_none() {
            return Ok(false);
        }
        if !self.flow.copy_in() {
            return Ok(true);
        }
        match tag {
            frontend::COPY_DATA
            | frontend::COPY_DONE
            | frontend::COPY_FAIL
            | frontend::SYNC
            | frontend::FLUSH
            | frontend::TERMINATE => Ok(false),
            _ => Err(violation(format!("unexpected message type {tag:#04x} during COPY from stdin"))),
        }
    }

    /// Deals with a server's message while a COPY is being staged; `false`: it is not whole yet and must be.
    pub(super) fn copying_message(
        &mut self,
        header: Header,
        data: &[u8],
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> Result<bool, Broken> {
        let Header { tag, size } = header;
        let Some(message) = data.get(at..at + size) else {
            if size <= WHOLE_BYTES_MAX {
                return Ok(false);
            }
            self.flow.received(tag, 0)?;
            let is_error = tag == backend::ERROR_RESPONSE;
            let forward = is_error || tag == backend::NOTICE_RESPONSE;
            if is_error {
                self.copying_failed();
            }
            if forward {
                out.forward(at..data.len());
            }
            self.server_rest = Rest { bytes: size - (data.len() - at), forward };
            return Ok(true);
        };
        let body = &message[frame::HEADER_BYTES..];
        self.flow.received(tag, body.first().copied().unwrap_or_default())?;
        let Some(copying) = &mut self.copying else { return Ok(true) };
        match tag {
            backend::PARAMETER_STATUS => out.inject(message),
            backend::ERROR_RESPONSE if copying.step == Step::Direct && frame::error_is_copy_from_protected(body) => {
                self.copying_failed();
                out.inject(&self.advised(body));
            }
            backend::ERROR_RESPONSE => {
                match copying.step {
                    Step::Direct => out.inject(message),
                    Step::Undoing => {}
                    Step::Asking | Step::Opening | Step::Loading | Step::Moving => {
                        copying.put_renamed(tag, body, out.writer());
                    }
                }
                self.copying_failed();
            }
            backend::NOTICE_RESPONSE | backend::COMMAND_COMPLETE if copying.step == Step::Direct => out.inject(message),
            backend::NOTICE_RESPONSE if matches!(copying.step, Step::Loading | Step::Moving) => {
                copying.put_renamed(tag, body, out.writer());
            }
            backend::COPY_IN_RESPONSE => {
                // From here on the client's data is looked at.
                self.stalled = Stalled::No;
                out.inject(message);
            }
            backend::DATA_ROW => copying.note_row(body)?,
            backend::COMMAND_COMPLETE if copying.step == Step::Moving => copying.note_tag(body),
            backend::READY_FOR_QUERY => self.end_copy_step(out)?,
            _ => {}
        }
        Ok(true)
    }

    fn copying_failed(&mut self) {
        if let Some(copying) = &mut self.copying {
            copying.failed = true;
            self.statement.failed = true;
            self.skip_to_sync |= copying.as_execute;
        }
    }

    /// A step has been answered whole: on to the next.
    fn end_copy_step(&mut self, out: &mut Outgoing<'_>) -> Result<(), Broken> {
        let Some(copying) = self.copying.take() else { return Ok(()) };
        let as_execute = copying.as_execute;
        let next = self.next_copy_step(copying, out);
        if next.is_err() {
            // The client still waits for the end of its COPY.
            self.flow.sent(Owed::Query { as_execute });
        }
        next
    }

    fn next_copy_step(&mut self, mut copying: Box<Copying>, out: &mut Outgoing<'_>) -> Result<(), Broken> {
        let status = self.flow.status();
        let rows = std::mem::take(&mut copying.rows);
        if copying.failed || copying.step == Step::Undoing {
            return self.undo_copy(copying, out);
        }
        let own = copying.own_transaction;
        match (copying.step, copying.copy.as_ref(), copying.staging.as_ref()) {
            (Step::Asking, Some(copy), _) => {
                let answer = rows.first().zip(rows.get(1)).ok_or(Broken::Nonsense)?;
                if answer.0 != "t" {
                    let text = String::from(&*copying.text);
                    self.send_copy_step(copying, Step::Direct, text);
                } else if let Some(refusal) = refusal(copy, answer.1 == "t") {
                    self.refuse_copy(copying.as_execute, refusal);
                } else {
                    let sql = copy.opening(own);
                    self.send_copy_step(copying, Step::Opening, sql);
                }
            }
            (Step::Opening, Some(copy), _) => {
                let staging = Staging::new(rows).ok_or(Broken::Nonsense)?;
                let sql = copy.staged(&copying.text, &staging.name);
                copying.staging = Some(staging);
                self.send_copy_step(copying, Step::Loading, sql);
            }
            (Step::Loading, _, Some(staging)) => {
                let sql = staging.moving(own);
                self.send_copy_step(copying, Step::Moving, sql);
            }
            (Step::Moving, ..) => {
                let expected = if own { Status::Idle } else { Status::InTransaction };
                let tag = copying.tag.take().filter(|_| status == expected).ok_or(Broken::Nonsense)?;
                frame::put(out.writer(), backend::COMMAND_COMPLETE, |body| frame::put_cstr(body, &tag));
                self.end_copy(copying.as_execute, out);
            }
            (Step::Direct, ..) => self.end_copy(copying.as_execute, out),
            (Step::Asking | Step::Opening | Step::Loading | Step::Undoing, ..) => return Err(Broken::Nonsense),
        }
        Ok(())
    }

    /// After an error, which the client has heard: a transaction of our own is rolled back, the client's is left failed.
    fn undo_copy(&mut self, mut copying: Box<Copying>, out: &mut Outgoing<'_>) -> Result<(), Broken> {
        if !copying.own_transaction || copying.step == Step::Direct || self.flow.status() == Status::Idle {
            self.end_copy(copying.as_execute, out);
            return Ok(());
        }
        copying.rollbacks += 1;
        if copying.rollbacks > ROLLBACKS_MAX {
            return Err(Broken::Nonsense);
        }
        self.send_copy_step(copying, Step::Undoing, "ROLLBACK".to_owned());
        Ok(())
    }

    /// Sends the next step, as soon as the client's current message is through: it would be read as its rest.
    fn send_copy_step(&mut self, mut copying: Box<Copying>, step: Step, sql: String) {
        copying.step = step;
        copying.failed = false;
        if self.client_rest.bytes > 0 && self.client_rest.forward {
            copying.due = Some(sql);
        } else {
            frame::put_query(self.to_server.writer(), &sql);
            self.flow.sent(Owed::Query { as_execute: copying.as_execute });
        }
        self.copying = Some(copying);
    }

    /// Nothing has been staged yet, and nothing will be.
    fn refuse_copy(&mut self, as_execute: bool, refusal: Refusal) {
        let mut poison = Outgoing::new(&[], Vec::new());
        if as_execute {
            self.refuse_extended(refusal, &mut poison);
        } else {
            self.refuse_query(refusal, &mut poison);
        }
        self.to_server.push(poison.writer());
        self.stalled = Stalled::No;
    }

    fn end_copy(&mut self, as_execute: bool, out: &mut Outgoing<'_>) {
        if !as_execute {
            welcome::ready_for_query(self.flow.status(), out.writer());
            self.end_answer(self.flow.status() == Status::Idle);
        }
        self.stalled = Stalled::No;
        self.end_statement();
    }
}

/// Why a COPY cannot be staged, if it cannot.
fn refusal(copy: &CopyIn, has_way: bool) -> Option<Refusal> {
    let (message, hint) = match copy.unstageable() {
        Some(words) => words,
        None if has_way => return None,
        None => (
            "COPY FROM not supported with row-level security",
            "The operator can make it so: partywall policies apply installs what the setting guard.copy_from needs.",
        ),
    };
    Some(Refusal::new(Kind::NotSupported, message).with_hint(hint))
}

impl Copying {
    /// Remembers a row of one or two values; NULL is no value.
    fn note_row(&mut self, body: &[u8]) -> Result<(), Broken> {
        if !matches!(self.step, Step::Asking | Step::Opening) {
            return Ok(());
        }
        let values = frame::row_values(body).ok_or(Broken::Nonsense)?;
        if self.rows.len() + values.len() > ROWS_MAX {
            return Err(Broken::Nonsense);
        }
        self.rows.extend(values.into_iter().map(Option::unwrap_or_default));
        Ok(())
    }

    /// Remembers how many rows were inserted: the first tag of the step.
    fn note_tag(&mut self, body: &[u8]) {
        let count = body.strip_prefix(b"INSERT 0 ").and_then(frame::split_cstr);
        if let (None, Some((count, _))) = (&self.tag, count) {
            self.tag = Some([b"COPY ", count].concat());
        }
    }

    /// Appends an error or notice as it would be, had the COPY gone to the client's table.
    fn put_renamed(&self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        let (copy, staging) = (self.copy.as_ref(), self.staging.as_ref());
        let is_staged = staging.is_some_and(|staging| frame::error_field(body, b't') == Some(staging.name.as_bytes()));
        frame::put_edited(out, tag, body, |kind, value| match (kind, staging) {
            (b'P', Some(staging)) if self.step == Step::Loading => {
                let place = std::str::from_utf8(value).ok()?.parse().ok()?;
                Some(copy?.position(&self.text, &staging.name, place).to_string().into_bytes().into())
            }
            // Of the functions that make the table a client hears nothing.
            (b'W', None) => None,
            (b's', Some(staging)) if is_staged => Some(Cow::Borrowed(staging.schema.as_bytes())),
            (b't', Some(staging)) if is_staged => Some(Cow::Borrowed(staging.relation.as_bytes())),
            (b'M' | b'D' | b'H' | b'W', Some(staging)) => Some(renamed(value, staging)),
            _ => Some(Cow::Borrowed(value)),
        });
    }
}

fn renamed<'a>(value: &'a [u8], staging: &Staging) -> Cow<'a, [u8]> {
    match std::str::from_utf8(value) {
        Ok(text) if text.contains(&staging.name) => {
            Cow::Owned(text.replace(&staging.name, &staging.relation).into_bytes())
        }
        _ => Cow::Borrowed(value),
    }
}
