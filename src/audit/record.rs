//! An event as one line of JSON: who, what, on what, from where, with what result. No literals of SQL, no secrets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use crate::event::{Event, SessionFacts, StatementClass};
use crate::ids::OrgId;
use crate::refusal::Kind;

/// Sentences are cut to this many characters.
const SENTENCE_CHARACTERS_MAX: usize = 512;
/// Relations of a statement that are named.
const RELATIONS_MAX: usize = 64;

/// The keys, in their order; absent values are null, so that every line has all of them.
#[derive(Debug, Serialize)]
struct Line<'a> {
    timestamp: String,
    org_id: Option<&'a str>,
    user_id: Option<&'a str>,
    action: &'a str,
    resource: Option<String>,
    ip_address: Option<IpAddr>,
    user_agent: Option<&'a str>,
    result: &'a str,
    metadata: Value,
}

impl<'a> Line<'a> {
    fn new(at: SystemTime, action: &'a str, result: &'a str, metadata: Value) -> Self {
        Line {
            timestamp: humantime::format_rfc3339_millis(at).to_string(),
            org_id: None,
            user_id: None,
            action,
            resource: None,
            ip_address: None,
            user_agent: None,
            result,
            metadata,
        }
    }

    fn of(self, facts: &'a SessionFacts) -> Self {
        Line {
            org_id: Some(facts.org.as_str()),
            user_id: facts.user.as_ref().map(|user| user.as_str()),
            ip_address: facts.address,
            user_agent: facts.application_name.as_deref(),
            ..self
        }
    }

    fn on(self, resource: String) -> Self {
        Line { resource: Some(resource), ..self }
    }

    fn text(&self) -> Option<String> {
        // Text, numbers and their like cannot fail to be JSON; if they did, the record counts as nothing to write.
        serde_json::to_string(self).ok()
    }
}

/// About how long a line is, in bytes, without what its event says of its own.
const LINE_BYTES: usize = 320;

/// About how long the line for an event will be, in bytes.
pub fn bytes(event: &Event) -> usize {
    let own = match event {
        Event::LoginRefused { why, .. } => cut(why).len(),
        Event::Refused { kind, message, .. } => quoted(*kind, message).map_or(0, str::len),
        Event::Statement { relations, .. } => relations.iter().take(RELATIONS_MAX).map(|name| name.len() + 3).sum(),
        _ => 0,
    };
    LINE_BYTES + own
}

/// The line for an event that was met `count` times; none for one that is not recorded.
pub fn line(at: SystemTime, event: &Event, count: u64) -> Option<String> {
    let line = of_event(at, event)?;
    let Line { mut metadata, .. } = line;
    if count > 1
        && let Some(metadata) = metadata.as_object_mut()
    {
        metadata.insert("count".to_owned(), count.into());
    }
    Line { metadata, ..line }.text()
}

/// The line that says how much of an organization was beyond its share of the trail: connects and disconnects, refusals,
/// statements.
pub fn left_out(at: SystemTime, org: Option<&OrgId>, [sessions, refusals, statements]: [u64; 3]) -> Option<String> {
    let metadata = json!({
        "reason": "organization_share",
        "session_records": sessions,
        "refusal_records": refusals,
        "statement_records": statements,
    });
    let line = Line::new(at, "audit_gap", "summarized", metadata);
    Line { org_id: org.map(OrgId::as_str), ..line }.text()
}

fn of_event(at: SystemTime, event: &Event) -> Option<Line<'_>> {
    match event {
        Event::SessionOpened(facts) => {
            let metadata = json!({"session": facts.session.0, "tier": facts.tier.as_str(), "tls": facts.tls});
            Line::new(at, "connect", "success", metadata).of(facts).on(shard(facts)).into()
        }
        Event::SessionClosed { facts, reason, lasted } => {
            let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
            let metadata = json!({"session": facts.session.0, "reason": reason.as_str(), "lasted_ms": lasted_ms});
            Line::new(at, "disconnect", "success", metadata).of(facts).on(shard(facts)).into()
        }
        Event::LoginRefused { address, org, kind, why } => {
            let metadata = json!({"reason": kind.row().label, "why": cut(why)});
            let line = Line::new(at, "connect", "denied", metadata);
            Line { org_id: org.as_ref().map(|org| org.as_str()), ip_address: *address, ..line }.into()
        }
        Event::Refused { facts, kind, message } => {
            let row = kind.row();
            let words = quoted(*kind, message);
            let metadata = json!({
                "session": facts.session.0, "reason": row.label, "sqlstate": row.sqlstate, "message": words,
            });
            Line::new(at, "refusal", "denied", metadata).of(facts).on(shard(facts)).into()
        }
        Event::Statement { facts, class, relations, failed } => {
            let result = if *failed { "failure" } else { "success" };
            statement(Line::new(at, action(*class), result, Value::Null).of(facts), facts, relations).into()
        }
        Event::ShardUp(_) | Event::ShardDown(..) | Event::ShardAttested { .. } => None,
    }
}

/// The line that says how many records were lost before it.
pub fn gap(at: SystemTime, security: u64, statements: u64) -> String {
    let metadata = json!({"security_records": security, "statement_records": statements});
    Line::new(at, "audit_gap", "lost", metadata).text().unwrap_or_default()
}

/// Whether a refusal's words may stand in a log or a record: not where they can repeat a piece of the statement or of a
/// value (`syntax error at or near "…"` may be near somebody's password).
fn may_be_quoted(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Syntax
            | Kind::InvalidParameter
            | Kind::ProtocolViolation
            | Kind::UnknownStatement
            | Kind::DuplicateStatement
            | Kind::Internal
    )
}

fn statement<'a>(line: Line<'a>, facts: &SessionFacts, relations: &[Box<str>]) -> Line<'a> {
    let named: Vec<_> = relations.iter().take(RELATIONS_MAX).map(|relation| cut(relation)).collect();
    let metadata = json!({
        "session": facts.session.0,
        "shard": facts.shard.as_str(),
        "relations": named,
        "relations_more": relations.len().saturating_sub(RELATIONS_MAX),
    });
    let resource = named.first().map_or_else(|| shard(facts), |relation| format!("relation/{relation}"));
    Line { metadata, ..line }.on(resource)
}

fn action(class: StatementClass) -> &'static str {
    class.as_str()
}

fn shard(facts: &SessionFacts) -> String {
    format!("shard/{}", facts.shard)
}

/// A refusal's words as they may be recorded.
pub fn quoted(kind: Kind, message: &str) -> Option<&str> {
    may_be_quoted(kind).then(|| cut(message))
}

/// An event with as much of its words as will be recorded.
pub fn kept(event: &Event) -> Event {
    match event {
        Event::Refused { facts, kind, message } => {
            Event::Refused { facts: Arc::clone(facts), kind: *kind, message: cut(message).to_owned() }
        }
        Event::LoginRefused { address, org, kind, why } => {
            Event::LoginRefused { address: *address, org: org.clone(), kind: *kind, why: cut(why).to_owned() }
        }
        other => other.clone(),
    }
}

/// A sentence, cut to what is recorded of it.
pub fn cut(sentence: &str) -> &str {
    let end = sentence.char_indices().nth(SENTENCE_CHARACTERS_MAX).map_or(sentence.len(), |(end, _)| end);
    &sentence[..end]
}
