//! Statements about the session itself: RESET, DISCARD ALL, PREPARE, EXECUTE, DEALLOCATE; what is sent instead of them,
//! and what follows when they have run.
//!
//! RESET on a server connection would go back to the connection's own start-up and take the tenant's context along: the
//! session's own first values are put in its place, within the same text and transaction. Names of prepared statements
//! are the client's: one that was prepared by protocol is lent to the server connection under that name for a moment.

use std::rc::Rc;
use std::sync::Arc;

use super::frontend::{Step, Stepped};
use super::names::{Held, Undo};
use super::outgoing::Outgoing;
use super::{Session, Stalled};
use crate::event::StatementClass;
use crate::guard::{Change, Statement, Verdict};
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::{Owed, Status};
use crate::wire::frame::{self, backend, frontend};
use crate::wire::welcome;

/// Statements of ours on server connections have names that begin so; to a client there are none.
const OUR_NAMES: &str = "partywall_";

/// A simple Query whose statements are counted as they end.
#[derive(Debug)]
pub(super) struct Watched {
    verdict: Arc<Verdict>,
    /// How many of its statements have ended well.
    done: usize,
    /// Statements for which another was sent: their place, and the tag that the client is to hear.
    instead: Vec<(usize, &'static str)>,
}

impl Watched {
    /// The tag for the statement that is running now, if it stands in another's place; its rows are not the client's.
    pub(super) fn tag(&self) -> Option<&'static str> {
        self.instead.iter().find(|(at, _)| *at == self.done).map(|(_, tag)| *tag)
    }

    /// A statement has ended well.
    pub(super) fn count(&mut self) {
        self.done += 1;
    }
}

impl Session {
    /// Whether anything in the text is about the session itself.
    pub(super) fn is_about_session(&self, verdict: &Verdict) -> bool {
        verdict.changes().any(|change| match change {
            Change::Reset { name, .. } => self.reset_value(name).is_some(),
            Change::ResetAll
            | Change::DiscardAll
            | Change::Prepare { .. }
            | Change::Execute(_)
            | Change::Deallocate(_) => true,
            Change::CopyIn => self.may_stage(verdict),
            _ => false,
        })
    }

    /// What the session gives a setting back at RESET, where that is not what the server connection began with.
    fn reset_value(&self, name: &str) -> Option<String> {
        if let Some(value) = self.own.first(name) {
            return Some(value.to_owned());
        }
        self.base_context().iter().find(|held| *held.name == *name).map(|held| held.value.to_string())
    }

    /// Whether the names in the text are names that this session may use so.
    pub(super) fn admit_names(&self, verdict: &Verdict) -> Result<(), Refusal> {
        for change in verdict.changes() {
            let (name, new) = match change {
                Change::Prepare { name, .. } => (name, true),
                Change::Execute(name) | Change::Deallocate(Some(name)) => (name, false),
                _ => continue,
            };
            let held = self.names.get(name.as_bytes());
            let known = held.is_some();
            if let (Change::Execute(_), Some(Held::Shared { verdict, .. })) = (change, held)
                && !is_plain(verdict)
            {
                let message = format!("prepared statement \"{name}\" cannot be executed by name");
                return Err(
                    Refusal::new(Kind::NotSupported, message).with_hint("Execute it by protocol, or send its text.")
                );
            }
            if new && known {
                let message = format!("prepared statement \"{name}\" already exists");
                return Err(Refusal::new(Kind::DuplicateStatement, message));
            }
            // Lent under such a name, it would meet the statement of somebody else.
            if name.starts_with(OUR_NAMES) {
                let message = format!("prepared statement \"{name}\" does not exist");
                return Err(Refusal::new(Kind::UnknownStatement, message));
            }
        }
        Ok(())
    }

    /// Whether the text is about the session itself and gives no rows: by protocol it is prepared here, on no server.
    pub(super) fn is_only_about_session(&self, verdict: &Verdict) -> bool {
        self.is_about_session(verdict) && !verdict.changes().any(|change| matches!(change, Change::Execute(_)))
    }

    /// Deals with a simple Query that is about the session itself, or with the Execute that stands for one.
    pub(super) fn about_session(
        &mut self,
        body: &[u8],
        verdict: Arc<Verdict>,
        as_execute: bool,
        out: &mut Outgoing<'_>,
    ) -> Stepped {
        if self.flow.owes() {
            if self.flow.batch_open() {
                // The server would keep the answers that are waited for until a Sync that stands behind this.
                frame::put(out.writer(), frontend::FLUSH, |_| {});
            }
            self.judged = Some(verdict);
            return Ok(Step::Stall(Stalled::Quiet));
        }
        let discards = verdict.changes().any(|change| matches!(change, Change::DiscardAll));
        if discards && verdict.statements().len() == 1 && (self.reset_done || !self.is_working()) {
            return Ok(self.discard_all(verdict, as_execute));
        }
        if !self.has_lease() {
            self.judged = Some(verdict);
            return Ok(Step::Stall(Stalled::Lease));
        }
        if self.may_stage(&verdict) {
            self.begin_copy(body, verdict, as_execute, out);
            return Ok(Step::Whole);
        }
        let sent = self
            .apply(&verdict)
            .and_then(|()| super::frontend::statement_text(body))
            .and_then(|text| self.send_watched(text, verdict, as_execute, out));
        match (sent, as_execute) {
            (Ok(()), false) => self.forget_unnamed(),
            (Ok(()), true) => self.lose_unnamed(),
            (Err(refusal), false) => self.refuse_query(refusal, out),
            (Err(refusal), true) => self.refuse_extended(refusal, out),
        }
        Ok(Step::Whole)
    }

    /// DISCARD ALL: what is the session's own goes, and the answer comes with the settings as they are then.
    fn discard_all(&mut self, verdict: Arc<Verdict>, as_execute: bool) -> Step {
        if !self.reset_done {
            self.names.clear();
            self.own.reset();
            self.remake_context();
            self.pin = None;
            if let Some(lease) = self.lease.take() {
                lease.release(self.thread.now.get());
            }
            self.reset_done = true;
        }
        if !self.has_lease() {
            self.judged = Some(verdict);
            return Step::Stall(Stalled::Lease);
        }
        self.reset_done = false;
        let mut answer = Vec::new();
        frame::put(&mut answer, backend::COMMAND_COMPLETE, |body| frame::put_cstr(body, b"DISCARD ALL"));
        if !as_execute {
            welcome::ready_for_query(Status::Idle, &mut answer);
        }
        self.to_client.push(&answer);
        Step::Whole
    }

    /// Parse of a text that is about the session itself.
    pub(super) fn prepare_about_session(&mut self, name: &[u8], body: &[u8], verdict: Arc<Verdict>) {
        let text = super::frontend::statement_text(body).unwrap_or_default();
        self.names.insert(name, Held::About { text: text.into(), verdict });
        self.reply_here(backend::PARSE_COMPLETE, Undo::Named { name: name.into(), parsed: false });
    }

    /// Bind of such a statement: its portal is the session's.
    pub(super) fn bind_about_session(&mut self, portal: &[u8], held: Held, size: usize) -> Stepped {
        if portal.is_empty() {
            self.unnamed_portal.query();
        }
        self.about_portal = Some((portal.into(), held));
        self.reply_here(backend::BIND_COMPLETE, Undo::Nothing);
        self.drop_message(size)
    }

    /// Describe of such a statement or portal: no parameters, no rows.
    pub(super) fn describe_about_session(&mut self, statement: bool) -> Step {
        let mut answer = Vec::new();
        if statement {
            frame::put(&mut answer, backend::PARAMETER_DESCRIPTION, |body| body.extend_from_slice(&[0, 0]));
        }
        frame::put(&mut answer, backend::NO_DATA, |_| {});
        self.reply_with(answer, Undo::Nothing);
        Step::Whole
    }

    /// Whether `body` begins with the name of the portal of such a statement.
    pub(super) fn is_about_portal(&self, body: &[u8]) -> bool {
        let named = frame::split_cstr(body).map(|(name, _)| name);
        self.about_portal.as_ref().is_some_and(|(portal, _)| named == Some(portal))
    }

    /// Execute of such a portal.
    pub(super) fn execute_about_session(&mut self, out: &mut Outgoing<'_>) -> Stepped {
        let Some((_, Held::About { text, verdict })) = self.about_portal.clone() else { return Ok(Step::Whole) };
        self.judged = None;
        let mut body = text.as_bytes().to_vec();
        body.push(0);
        let step = self.about_session(&body, verdict, true, out);
        self.judged = None;
        step
    }

    /// Sends a text that is about the session itself; it has its lease, and nothing else is owed.
    pub(super) fn send_watched(
        &mut self,
        text: &str,
        verdict: Arc<Verdict>,
        as_execute: bool,
        out: &mut Outgoing<'_>,
    ) -> Result<(), Refusal> {
        let text = verdict.rewritten().unwrap_or(text);
        let multiple = verdict.statements().len() > 1;
        let mut instead = Vec::new();
        let mut sql = String::with_capacity(text.len());
        let mut sent_to = 0;
        for (at, statement) in verdict.statements().iter().enumerate() {
            if let Some((replacement, tag)) = self.replacement(text, statement, multiple)? {
                sql.push_str(&text[sent_to..statement.range().start]);
                sql.push(' ');
                sql.push_str(&replacement);
                sent_to = statement.range().end;
                instead.push((at, tag));
            }
        }
        sql.push_str(&text[sent_to..]);
        self.lend_names(&verdict, out);
        self.unnamed_portal.query();
        frame::put_query(out.writer(), &sql);
        self.flow.sent(Owed::Query { as_execute });
        self.take_names_back(out);
        self.watched = Some(Watched { verdict: Arc::clone(&verdict), done: 0, instead });
        self.begin_statement(verdict);
        Ok(())
    }

    /// What is sent in place of one statement, and the tag that the client is to hear.
    fn replacement(
        &mut self,
        text: &str,
        statement: &Statement,
        multiple: bool,
    ) -> Result<Option<(String, &'static str)>, Refusal> {
        for change in statement.changes() {
            match change {
                Change::ResetAll => return Ok(Some((self.reset_all()?, "RESET"))),
                Change::Reset { name, local } => {
                    let Some(value) = self.reset_value(name) else { continue };
                    let words = text[statement.range()].to_ascii_uppercase();
                    let tag = if words.contains("DEFAULT") { "SET" } else { "RESET" };
                    return Ok(Some((format!("SELECT {}", set_config(name, Some(&value), *local)), tag)));
                }
                Change::DiscardAll => {
                    let place = if multiple { "a text of several statements" } else { "a transaction block" };
                    let message = format!("DISCARD ALL cannot run inside {place}");
                    return Err(Refusal::new(Kind::ActiveTransaction, message));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// RESET ALL, of what the session has made its own; the tenant's context stays.
    fn reset_all(&mut self) -> Result<String, Refusal> {
        let names = self.own.names();
        if names.is_empty() {
            return Ok("SELECT".to_owned());
        }
        let mut calls = Vec::with_capacity(names.len());
        for name in names {
            if !self.own.touch(&name) {
                return Err(Refusal::new(Kind::StatementTooLarge, "this session has set too many settings"));
            }
            calls.push(set_config(&name, self.reset_value(&name).as_deref(), false));
        }
        Ok(format!("SELECT {}", calls.join(",")))
    }

    /// Puts statements that the client prepared by protocol on the connection under the client's own names, in a batch
    /// of ours before the text that uses those names.
    fn lend_names(&mut self, verdict: &Verdict, out: &mut Outgoing<'_>) {
        // In a failed transaction nothing can be prepared, and the text will fail whatever it names.
        if self.flow.status() == Status::Failed {
            return;
        }
        self.put_lent(verdict, true, out);
        if !self.borrowed.is_empty() {
            sync(out);
            self.flow.sent(Owed::Sync { ours: true });
        }
    }

    /// As [`Self::lend_names`], inside a batch of the client's: taken back after its Sync, since a failing batch skips
    /// what stands before it.
    pub(super) fn lend_names_in_batch(&mut self, verdict: &Verdict, out: &mut Outgoing<'_>) {
        if !verdict.changes_nothing() {
            self.put_lent(verdict, false, out);
        }
    }

    fn put_lent(&mut self, verdict: &Verdict, quiet: bool, out: &mut Outgoing<'_>) {
        for change in verdict.changes() {
            let (Change::Execute(name) | Change::Deallocate(Some(name))) = change else { continue };
            let name = name.as_bytes();
            let Some(Held::Shared { statement, .. }) = self.names.get(name).cloned() else { continue };
            if self.borrowed.iter().any(|lent| **lent == *name) {
                continue;
            }
            super::frontend::put_parse(out.writer(), name, statement.body());
            self.flow.sent(Owed::Parse { ours: true, quiet, undo: Undo::Nothing });
            self.borrowed.push(name.into());
        }
    }

    /// Closes on the connection what was lent to it, in a batch of ours.
    pub(super) fn take_names_back(&mut self, out: &mut Outgoing<'_>) {
        if self.borrowed.is_empty() {
            return;
        }
        for name in std::mem::take(&mut self.borrowed) {
            super::frontend::put_named(out.writer(), frontend::CLOSE, &name);
            self.flow.sent(Owed::Close { ours: true, undo: Undo::Nothing });
        }
        sync(out);
        self.flow.sent(Owed::Sync { ours: true });
    }

    /// A watched text has been answered: what its statements did to the session's names is done here too.
    pub(super) fn end_watched(&mut self) {
        let Some(watched) = self.watched.take() else { return };
        for statement in watched.verdict.statements().iter().take(watched.done) {
            for change in statement.changes() {
                self.follow(change, statement);
            }
        }
    }

    fn follow(&mut self, change: &Change, statement: &Statement) {
        match change {
            Change::Prepare { name, .. } => {
                let set = |change: &Change| match change {
                    Change::Set(set) if set.local != Some(true) => Some(set.name.clone()),
                    _ => None,
                };
                let touches: Rc<[Box<str>]> = statement.changes().iter().filter_map(set).collect();
                self.names.insert(name.as_bytes(), Held::Sql { touches });
            }
            Change::Deallocate(Some(name)) => {
                self.names.remove(name.as_bytes());
            }
            Change::Deallocate(None) => {
                self.names.clear();
                if let Some(lease) = &mut self.lease {
                    lease.prepared.clear();
                    lease.unnamed = None;
                }
            }
            _ => {}
        }
    }
}

/// Whether it is one statement of the kinds that PREPARE takes: the server is never made to EXECUTE another kind by name,
/// which it cannot do from SQL either.
fn is_plain(verdict: &Verdict) -> bool {
    verdict.statements().len() == 1 && matches!(verdict.class(), StatementClass::Read | StatementClass::Write)
}

fn sync(out: &mut Outgoing<'_>) {
    frame::put(out.writer(), frontend::SYNC, |_| {});
}

/// A call that sets, or with no value resets to what the connection began with.
fn set_config(name: &str, value: Option<&str>, local: bool) -> String {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let value = value.map_or_else(|| "NULL".to_owned(), literal);
    format!("pg_catalog.set_config({},{value},{local})", literal(name))
}
