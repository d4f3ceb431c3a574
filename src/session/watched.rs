//! Statements about the session itself: RESET, DISCARD ALL, PREPARE, EXECUTE, DEALLOCATE; what is sent instead of them,
//! and what follows when they have run.
//!
//! RESET on a server connection would go back to the connection's own start-up and take the tenant's context along: the
//! session's own first values are put in its place, within the same text and transaction. Names of prepared statements
//! are the client's: one that was prepared by protocol is lent to the server connection under that name for a moment.

use std::rc::Rc;
use std::sync::Arc;

use super::frontend::{Step, Stepped, in_turn};
use super::names::Held;
use super::outgoing::Outgoing;
use super::sources::of_text;
use super::{Session, Stalled};
use crate::context;
use crate::guard::{Change, ResetBy, Statement, Verdict};
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::{Owed, Status};
use crate::wire::frame::{self, backend, frontend};
use crate::wire::welcome;

/// Statements of ours on server connections have names that begin so; to a client there are none.
pub(super) const OUR_NAMES: &str = "partywall_";

/// By so many bytes a text may grow for the statements that are sent in the place of the client's own.
const SENT_INSTEAD_BYTES_MAX: usize = 256 * 1024;

/// A simple Query whose statements are counted as they end.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) verdict: Arc<Verdict>,
    /// How many of its statements have ended well.
    pub(super) done: usize,
    /// Those that have been sent and not answered, the next one last: none for a statement of the client's own.
    pub(super) coming: Vec<Option<Instead>>,
    /// It came by protocol: each part of it as a message of its own, in the client's batch.
    pub(super) by_protocol: bool,
    /// Names that were lent to the connection for a PREPARE to meet, and are taken back when it has.
    pub(super) met: Vec<Box<[u8]>>,
    /// Places of the text as it was sent, behind each replacement, and as the client sent it; in characters.
    pub(super) places: Vec<(usize, usize)>,
}

/// A statement that stands, perhaps with others, in the place of one of the client's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instead {
    /// What the client is to hear.
    pub(super) tag: &'static str,
    /// The others have run.
    pub(super) last: bool,
}

impl Watched {
    /// Whether the statement that is running now stands in another's place: its rows are not the client's.
    pub(super) fn is_instead(&self) -> bool {
        matches!(self.coming.last(), Some(Some(_)))
    }

    /// Where the client's text has what stands at `sent` in the text that the server has; both count characters from 1.
    pub(super) fn place(&self, sent: usize) -> usize {
        let behind = self.places.iter().rev().find(|(place, _)| sent > *place);
        behind.map_or(sent, |(place, own)| own + (sent - place))
    }

    /// Whether the message just heard was the last one of a text that came by protocol.
    pub(super) fn is_over(&self, tag: u8) -> bool {
        self.by_protocol
            && (tag == backend::ERROR_RESPONSE || tag == backend::COMMAND_COMPLETE && self.coming.is_empty())
    }

    /// A statement has ended well: the tag that the client is to hear instead, where it is to hear any.
    pub(super) fn count(&mut self) -> Option<&'static str> {
        let instead = self.coming.pop().flatten();
        if instead.is_none_or(|instead| instead.last) {
            self.done += 1;
        }
        instead.filter(|instead| instead.last).map(|instead| instead.tag)
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
            let (Change::Prepare { name, .. } | Change::Execute(name) | Change::Deallocate(Some(name))) = change else {
                continue;
            };
            let held = self.names.get(name.as_bytes());
            if matches!(change, Change::Execute(_)) && held.is_some_and(|held| !held.is_plain()) {
                let message = format!("prepared statement \"{name}\" cannot be executed by name");
                return Err(
                    Refusal::new(Kind::NotSupported, message).with_hint("Execute it by protocol, or send its text.")
                );
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
        text: &str,
        verdict: Arc<Verdict>,
        portal: Option<&[u8]>,
        out: &mut Outgoing<'_>,
    ) -> Stepped {
        if self.flow.owes() {
            self.judged = Some(verdict);
            if self.flow.batch_open() {
                // The server would keep the answers that are waited for until a Sync that stands behind this.
                frame::put(out.writer(), frontend::FLUSH, |_| {});
            }
            return Ok(Step::Stall(Stalled::Quiet));
        }
        let discards = verdict.changes().any(|change| matches!(change, Change::DiscardAll));
        if discards && verdict.statements().len() == 1 && (self.reset_done || !self.is_working()) {
            return Ok(self.discard_all(verdict, portal));
        }
        if !self.has_lease() {
            self.judged = Some(verdict);
            return Ok(Step::Stall(Stalled::Lease));
        }
        if self.may_stage(&verdict) {
            portal.iter().for_each(|portal| _ = self.forget_about_portal(portal));
            self.begin_copy(text, verdict, portal.is_some(), out);
            return Ok(Step::Whole);
        }
        let room = match self.room_in_transaction(Some(&*verdict), None, out) {
            Ok(false) => {
                self.judged = Some(verdict);
                return Ok(Step::Stall(Stalled::Quiet));
            }
            Ok(true) => Ok(()),
            Err(refusal) => Err(refusal),
        };
        let sent = room.and_then(|()| self.apply(&verdict)).and_then(|()| match portal {
            None => self.send_watched(text, verdict, out),
            Some(portal) => self.execute_watched(text, verdict, portal, out),
        });
        match (sent, portal) {
            (Ok(()), None) => self.forget_unnamed(),
            (Ok(()), Some(_)) => {}
            (Err(refusal), None) => self.refuse_query(in_turn(text, refusal), out),
            (Err(refusal), Some(_)) => self.refuse_extended(refusal, out),
        }
        Ok(Step::Whole)
    }

    /// DISCARD ALL: what is the session's own goes, and the answer comes with the settings as they are then.
    fn discard_all(&mut self, verdict: Arc<Verdict>, portal: Option<&[u8]>) -> Step {
        if !self.reset_done {
            self.names.clear_named();
            if portal.is_none() {
                self.drop_unnamed();
            }
            self.own.reset();
            self.remake_context();
            self.pin = None;
            self.pool.disown(self.asker.wish.session);
            self.asker.wish.sequences_on = None;
            self.transaction.set_held(0);
            if let Some(mut lease) = self.lease.take() {
                lease.disown();
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
        if portal.is_none() {
            welcome::ready_for_query(Status::Idle, &mut answer);
        }
        self.to_client.push(&answer);
        Step::Whole
    }

    /// Sends a text that is about the session itself; it has its lease, and nothing else is owed.
    pub(super) fn send_watched(
        &mut self,
        text: &str,
        verdict: Arc<Verdict>,
        out: &mut Outgoing<'_>,
    ) -> Result<(), Refusal> {
        let text = verdict.rewritten().unwrap_or(text);
        let (mut coming, mut places, mut place) = (Vec::new(), Vec::new(), (0, 0));
        let mut sql = String::with_capacity(text.len());
        let mut sent_to = 0;
        for statement in verdict.statements() {
            if let Some((replacement, tag)) = self.replacement(statement)? {
                let (kept, own) = (&text[sent_to..statement.range().start], &text[statement.range()]);
                let replaced = format!(" {}", replacement.join(";"));
                let kept_chars = kept.chars().count();
                place.0 += kept_chars + replaced.chars().count();
                place.1 += kept_chars + own.chars().count();
                places.push(place);
                sql.push_str(kept);
                sql.push_str(&replaced);
                // RESET ALL stands for a statement for each setting.
                if sql.len() > self.thread.statement_bytes_max + SENT_INSTEAD_BYTES_MAX {
                    return Err(self.too_long());
                }
                sent_to = statement.range().end;
                coming.extend((1..=replacement.len()).map(|at| Some(Instead { tag, last: at == replacement.len() })));
            } else {
                coming.push(None);
            }
        }
        sql.push_str(&text[sent_to..]);
        self.lend_names(&verdict, out);
        self.unnamed_portal.query();
        frame::put_query(out.writer(), &sql);
        self.flow.sent_for(Owed::Query { as_execute: false }, of_text(&verdict).number());
        self.transaction.sent(&verdict);
        let met = self.take_meeting(&verdict);
        self.take_names_back(out);
        coming.reverse();
        self.watched =
            Some(Watched { verdict: Arc::clone(&verdict), done: 0, coming, by_protocol: false, met, places });
        self.begin_statement(verdict);
        Ok(())
    }

    /// What is sent in place of one statement, and the tag that the client is to hear.
    pub(super) fn replacement(
        &mut self,
        statement: &Statement,
    ) -> Result<Option<(Vec<String>, &'static str)>, Refusal> {
        for change in statement.changes() {
            match change {
                Change::ResetAll => return Ok(Some((self.reset_all()?, "RESET"))),
                Change::Reset { name, local, by } => {
                    let Some(value) = self.reset_value(name) else { continue };
                    let tag = match by {
                        ResetBy::Reset => "RESET",
                        ResetBy::Set => "SET",
                        // Its row would have to say what it was set to.
                        ResetBy::Call => return Err(unset(name)),
                    };
                    return Ok(Some((vec![set_or_reset(name, Some(&value), *local)], tag)));
                }
                Change::DiscardAll => {
                    let message = "DISCARD ALL cannot run inside a transaction block";
                    return Err(Refusal::new(Kind::ActiveTransaction, message));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// RESET ALL, of what the session has made its own; the tenant's context stays.
    fn reset_all(&mut self) -> Result<Vec<String>, Refusal> {
        let names = self.own.names();
        if names.is_empty() {
            // It is as it was, and takes no snapshot: the transaction's modes may still be set behind it.
            return Ok(vec!["RESET application_name".to_owned()]);
        }
        let mut sent = Vec::with_capacity(names.len());
        for name in names {
            if !self.own.touch(&name) {
                return Err(Refusal::new(Kind::StatementTooLarge, "this session has set too many settings"));
            }
            sent.push(set_or_reset(&name, self.reset_value(&name).as_deref(), false));
        }
        Ok(sent)
    }

    /// A watched text has been answered: what its statements did to the session's names is done here too.
    pub(super) fn end_watched(&mut self) {
        let Some(watched) = self.watched.take() else { return };
        for statement in watched.verdict.statements().iter().take(watched.done) {
            for change in statement.changes() {
                self.follow(change, statement);
            }
        }
        self.take_met_back(&watched.met, watched.by_protocol);
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
                self.borrowed.retain(|lent| **lent != *name.as_bytes());
            }
            Change::Deallocate(None) => {
                self.names.clear_named();
                if let Some(lease) = &mut self.lease {
                    lease.prepared.clear();
                    lease.unnamed = None;
                }
            }
            _ => {}
        }
    }
}

fn unset(name: &str) -> Refusal {
    let words = format!("set_config with NULL is not supported for \"{name}\", which this session began with");
    Refusal::new(Kind::NotSupported, words).with_hint("Say RESET.")
}

/// A statement that sets, or with no value resets to what the connection began with.
fn set_or_reset(name: &str, value: Option<&str>, local: bool) -> String {
    match value {
        Some(value) => context::set(name, value, local),
        None => context::reset(name),
    }
}
