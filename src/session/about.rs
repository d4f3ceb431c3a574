//! Statements about the session itself that come by the extended protocol: prepared and bound here, and run within the
//! client's own batch, so that they go with it if it fails.

use std::rc::Rc;
use std::sync::Arc;

use super::Session;
use super::extended::BindTo;
use super::frontend::{Step, Stepped, put_parse, statement_text};
use super::names::{Held, Undo};
use super::outgoing::Outgoing;
use super::watched::{Instead, Watched};
use crate::guard::Verdict;
use crate::refusal::{Kind, Refusal};
use crate::wire::flow::Owed;
use crate::wire::frame::{self, backend, frontend};

/// As many portals of statements about the session itself may be open at a time.
const ABOUT_PORTALS_MAX: usize = 100;

/// So many bytes of texts may these have together.
const ABOUT_PORTAL_BYTES_MAX: usize = 2 << 20;

/// A portal of a statement about the session itself.
#[derive(Debug, Clone)]
pub(super) struct AboutPortal {
    text: Rc<str>,
    verdict: Arc<Verdict>,
    /// The batch that bound it.
    batch: u64,
}

/// The body of a Parse that a server refuses in a failed transaction, and takes at any other time; for that it needs no
/// snapshot.
pub(super) const FAILS_IN_FAILED_TRANSACTION: &[u8] = b"RELEASE nothing\0\0\0";

/// The body of a Parse of nothing.
pub(super) const EMPTY: &[u8] = b"\0\0\0";

impl Session {
    /// Parse of a text that is about the session itself.
    pub(super) fn prepare_about_session(
        &mut self,
        name: &[u8],
        body: &[u8],
        verdict: Arc<Verdict>,
        out: &mut Outgoing<'_>,
    ) {
        if name.is_empty() {
            self.drop_unnamed();
        }
        if self.is_working() && !self.may_stage(&verdict) {
            // In a failed transaction nothing is prepared; whether it has failed by then only the server knows.
            self.probe(FAILS_IN_FAILED_TRANSACTION, out);
        }
        let text = statement_text(body).unwrap_or_default();
        let held = Held::About { text: text.into(), verdict };
        let undo = if name.is_empty() {
            Undo::Unnamed(self.names.renew(Some(held)))
        } else {
            self.names.insert(name, held);
            Undo::Named { name: name.into(), parsed: false }
        };
        self.reply_here(backend::PARSE_COMPLETE, undo);
    }

    /// Has the server prepare `body` without a name, if only for the error that this may give; the client's own such
    /// statement is sent again when it is needed.
    pub(super) fn probe(&mut self, body: &[u8], out: &mut Outgoing<'_>) {
        if let Some(lease) = &mut self.lease {
            lease.unnamed = None;
        }
        put_parse(out.writer(), b"", body);
        self.flow.sent(Owed::Parse { ours: true, quiet: false, undo: Undo::Nothing });
    }

    /// Bind of such a statement: its portal is the session's. On the server one of an empty text has the name, so that
    /// what is wrong with the Bind is found.
    pub(super) fn bind_about_session(
        &mut self,
        bind: &BindTo<'_>,
        text: Rc<str>,
        verdict: Arc<Verdict>,
        out: &mut Outgoing<'_>,
    ) -> Stepped {
        let bytes: usize = self.about_portals.values().map(|portal| portal.text.len()).sum();
        if self.about_portals.len() >= ABOUT_PORTALS_MAX || bytes + text.len() > ABOUT_PORTAL_BYTES_MAX {
            let words = "this session has too many portals open";
            self.refuse_extended(Refusal::new(Kind::StatementTooLarge, words).with_hint("Close them."), out);
            return self.drop_message(bind.size);
        }
        let batch = self.flow.batch();
        let on_server = self.is_working() && !self.may_stage(&verdict);
        self.about_portals.insert(bind.portal.into(), AboutPortal { text, verdict, batch });
        if on_server {
            self.probe(EMPTY, out);
            if bind.portal.is_empty() {
                // What is undone is the other change.
                self.unnamed_portal.bind(&self.flow);
            }
            self.flow.sent(Owed::Bind { ours: false, undo: Undo::AboutPortal { name: bind.portal.into(), batch } });
            return Ok(self.pass_bind(bind, b"", out));
        }
        if bind.portal.is_empty() {
            self.unnamed_portal.query();
        }
        self.reply_here(backend::BIND_COMPLETE, Undo::Nothing);
        self.drop_message(bind.size)
    }

    fn put_bind(&mut self, portal: &[u8], out: &mut Outgoing<'_>) {
        frame::put(out.writer(), frontend::BIND, |body| {
            frame::put_cstr(body, portal);
            body.extend_from_slice(&[0; 7]);
        });
        self.sent_bind(portal, true);
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
        !self.about_portals.is_empty()
            && frame::split_cstr(body).is_some_and(|(portal, _)| self.about_portals.contains_key(portal))
    }

    /// Forgets such a portal; whether there was one.
    pub(super) fn forget_about_portal(&mut self, portal: &[u8]) -> bool {
        !self.about_portals.is_empty() && self.about_portals.remove(portal).is_some()
    }

    /// The Bind of such a portal came to nothing; one of a later batch stands.
    pub(super) fn undo_about_portal(&mut self, portal: &[u8], batch: u64) {
        if portal.is_empty() {
            self.unnamed_portal.bound_in_vain(batch);
        }
        if self.about_portals.get(portal).is_some_and(|about| about.batch <= batch) {
            self.about_portals.remove(portal);
        }
    }

    /// A transaction has ended: its portals go, but for those of batches that are not answered yet.
    pub(super) fn end_about_portals(&mut self) {
        if !self.about_portals.is_empty() {
            let flow = &self.flow;
            self.about_portals.retain(|_, portal| portal.batch == flow.batch() || flow.is_undecided(portal.batch));
        }
    }

    /// Execute of such a portal.
    pub(super) fn execute_about_session(&mut self, body: &[u8], out: &mut Outgoing<'_>) -> Stepped {
        let portal = frame::split_cstr(body).map_or(&[][..], |(portal, _)| portal);
        let Some(AboutPortal { text, verdict, .. }) = self.about_portals.get(portal).cloned() else {
            return Ok(Step::Whole);
        };
        let step = self.about_session(&text, verdict, Some(portal), out);
        self.judged = None;
        step
    }

    /// As [`Self::send_watched`], for a text of one statement that came by protocol: it stays in the client's batch, and
    /// goes with it if that fails.
    pub(super) fn execute_watched(
        &mut self,
        text: &str,
        verdict: Arc<Verdict>,
        portal: &[u8],
        out: &mut Outgoing<'_>,
    ) -> Result<(), Refusal> {
        let text = verdict.rewritten().unwrap_or(text);
        let Some(statement) = verdict.statements().first() else { return Ok(()) };
        let (parts, tag) = match self.replacement(statement)? {
            Some((parts, tag)) => (parts, Some(tag)),
            None => (vec![text.to_owned()], None),
        };
        self.put_lent(&verdict, false, out);
        let met = self.take_meeting(&verdict);
        self.forget_about_portal(portal);
        self.close_portal(portal, out);
        for (at, part) in parts.iter().enumerate() {
            // The last one stays for the client to see that its portal has been run.
            let portal = if at + 1 == parts.len() { portal } else { b"" };
            self.probe(&[part.as_bytes(), &[0, 0, 0]].concat(), out);
            self.put_bind(portal, out);
            frame::put(out.writer(), frontend::EXECUTE, |body| {
                frame::put_cstr(body, portal);
                body.extend_from_slice(&[0; 4]);
            });
            self.flow.sent(Owed::Execute);
        }
        frame::put(out.writer(), frontend::FLUSH, |_| {});
        let instead = |at: usize| tag.map(|tag| Instead { tag, last: at == parts.len() });
        let coming = (1..=parts.len()).rev().map(instead).collect();
        self.watched = Some(Watched {
            verdict: Arc::clone(&verdict),
            done: 0,
            coming,
            by_protocol: true,
            met,
            places: Vec::new(),
        });
        self.begin_statement(verdict);
        Ok(())
    }

    fn close_portal(&mut self, portal: &[u8], out: &mut Outgoing<'_>) {
        frame::put(out.writer(), frontend::CLOSE, |body| {
            body.push(b'P');
            frame::put_cstr(body, portal);
        });
        self.flow.sent(Owed::Close { ours: true, undo: Undo::Nothing });
    }
}
