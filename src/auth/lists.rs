//! Roles and permissions, in every shape in which identity providers send lists; what cannot be read is left out.

use std::fmt;

use serde_json::{Map, Value};

use super::path::{self, walk};

/// The most roles, and the most permissions. Entra ID writes up to 200 groups into a token.
const ENTRIES_MAX: usize = 256;
/// The longest role or permission, in bytes.
const ENTRY_BYTES_MAX: usize = 256;

/// Why an entry was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Odd {
    /// There were `ENTRIES_MAX` before it.
    TooMany,
    /// It is longer than `ENTRY_BYTES_MAX`.
    TooLong,
    /// It holds a control character.
    Control,
    /// It is neither a text, nor a number, nor an object with a name.
    NotText,
    /// A map says that it does not hold (`false` or `null`).
    NotHeld,
}

/// How many entries of a claim were left out for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// What the claim carries: `roles`, `permissions`, `tier`, `project`.
    pub claim: &'static str,
    /// Why.
    pub why: Odd,
    /// How many.
    pub count: u32,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Odd::TooMany => "too many: 256 are read",
            Odd::TooLong => "longer than 256 bytes",
            Odd::Control => "with a control character",
            Odd::NotText => "not a text",
            Odd::NotHeld => "false or null",
        };
        write!(f, "{} of {}: {why}", self.count, self.claim)
    }
}

/// Notes one entry that is left out.
pub(super) fn note(left_out: &mut Vec<LeftOut>, claim: &'static str, why: Odd) {
    match left_out.iter_mut().find(|known| known.claim == claim && known.why == why) {
        Some(known) => known.count += 1,
        None => left_out.push(LeftOut { claim, why, count: 1 }),
    }
}

/// Whether a member of a map says that its name holds.
pub(super) fn holds(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// The entries of a claim, in the token's order, none twice.
///
/// A text is taken apart at spaces and commas (OAuth's `scope` is such a one), unless it begins as a distinguished name
/// does (`CN=…`, RFC 4514); an array has texts, numbers or objects with a `name`; the keys of an object are the entries.
pub(super) fn read(
    claims: &Map<String, Value>,
    claim_path: &str,
    same_org: &dyn Fn(&str) -> bool,
    claim: &'static str,
    left_out: &mut Vec<LeftOut>,
) -> Box<[Box<str>]> {
    let mut list = List { entries: Vec::new(), claim, left_out };
    walk(claims, claim_path, same_org, &mut |found| match found.key {
        Some(key) => list.member(key, found.value),
        None => list.value(found.value, true),
    });
    list.entries.into_boxed_slice()
}

struct List<'l> {
    entries: Vec<Box<str>>,
    claim: &'static str,
    left_out: &'l mut Vec<LeftOut>,
}

impl List<'_> {
    fn value(&mut self, value: &Value, may_be_json: bool) {
        match value {
            Value::Null => (),
            Value::Bool(_) => self.leave_out(Odd::NotText),
            Value::Number(_) => self.number(value),
            Value::String(text) => match path::json_in(text).filter(|_| may_be_json) {
                Some(inner) => self.value(&inner, false),
                None if is_distinguished(text) => self.entry(text),
                None => text.split([' ', ',']).for_each(|entry| self.entry(entry)),
            },
            Value::Array(items) => items.iter().for_each(|item| self.item(item)),
            Value::Object(members) => members.iter().for_each(|(name, value)| self.member(name, value)),
        }
    }

    fn item(&mut self, item: &Value) {
        match item {
            Value::String(text) => self.entry(text),
            Value::Number(_) => self.number(item),
            Value::Object(members) => match members.get("name") {
                Some(Value::String(name)) => self.entry(name),
                Some(_) | None => self.leave_out(Odd::NotText),
            },
            Value::Null | Value::Bool(_) | Value::Array(_) => self.leave_out(Odd::NotText),
        }
    }

    fn member(&mut self, name: &str, value: &Value) {
        if holds(value) { self.entry(name) } else { self.leave_out(Odd::NotHeld) }
    }

    fn number(&mut self, value: &Value) {
        match super::claims::scalar(value) {
            Some(text) => self.entry(&text),
            None => self.leave_out(Odd::NotText),
        }
    }

    fn entry(&mut self, entry: &str) {
        if entry.is_empty() || self.entries.iter().any(|known| **known == *entry) {
            return;
        }
        if self.entries.len() == ENTRIES_MAX {
            self.leave_out(Odd::TooMany);
        } else if entry.len() > ENTRY_BYTES_MAX {
            self.leave_out(Odd::TooLong);
        } else if entry.chars().any(char::is_control) {
            self.leave_out(Odd::Control);
        } else {
            self.entries.push(entry.into());
        }
    }

    fn leave_out(&mut self, why: Odd) {
        note(self.left_out, self.claim, why);
    }
}

/// Whether a text begins with an attribute type and `=` (RFC 4514, section 3).
fn is_distinguished(text: &str) -> bool {
    let kind = text.split_once('=').map(|(kind, _)| kind);
    kind.is_some_and(|kind| {
        kind.starts_with(|first: char| first.is_ascii_alphanumeric())
            && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
    })
}
