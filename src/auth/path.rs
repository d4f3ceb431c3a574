//! Where a claim stands in a token: a name, or a JSON Pointer (RFC 6901) that may branch.
//!
//! Three segments of a pointer are our own: `*` is every member or element, `{key}` is every member whose *name* is the
//! value, and `{organization}` is the member named as the session's organization. A text that is JSON itself is read on.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::token::strict_json;
use crate::ids::{OrgId, OrgIdType};

/// The segment for every member or element.
const EVERY: &str = "*";
/// The segment for every member, whose name is the value.
const KEY: &str = "{key}";
/// The segment for the member that is named as the organization.
const ORGANIZATION: &str = "{organization}";
/// How often one claim may hold JSON as text within JSON as text.
const UNWRAPS_MAX: u32 = 2;

/// What stands at the end of a path.
pub(super) struct Found<'v> {
    /// The value there.
    pub(super) value: &'v Value,
    /// The name that `{key}` caught on the way.
    pub(super) key: Option<&'v str>,
}

/// Hands `each` everything that `path` leads to, in the token's order.
///
/// Visits no member of the token more often than once for each segment of the path.
pub(super) fn walk(
    claims: &Map<String, Value>,
    path: &str,
    same_org: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(Found<'_>),
) {
    let Some(pointer) = path.strip_prefix('/') else {
        if let Some(value) = claims.get(path) {
            each(Found { value, key: None });
        }
        return;
    };
    let segments: Vec<Cow<'_, str>> = pointer.split('/').map(unescaped).collect();
    let mut walker = Walker { same_org, each };
    walker.members(claims, &segments, None, 0);
}

struct Walker<'w> {
    same_org: &'w dyn Fn(&str) -> bool,
    each: &'w mut dyn FnMut(Found<'_>),
}

impl Walker<'_> {
    fn value(&mut self, value: &Value, rest: &[Cow<'_, str>], key: Option<&str>, unwraps: u32) {
        if rest.is_empty() {
            return (self.each)(Found { value, key });
        }
        match value {
            Value::Object(members) => self.members(members, rest, key, unwraps),
            Value::Array(items) => self.items(items, rest, key, unwraps),
            Value::String(text) if unwraps < UNWRAPS_MAX => {
                if let Some(inner) = json_in(text) {
                    self.value(&inner, rest, key, unwraps + 1);
                }
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => (),
        }
    }

    fn members(&mut self, members: &Map<String, Value>, path: &[Cow<'_, str>], key: Option<&str>, unwraps: u32) {
        let Some((segment, rest)) = path.split_first() else { return };
        match &**segment {
            EVERY => members.values().for_each(|value| self.value(value, rest, key, unwraps)),
            KEY => members.iter().for_each(|(name, value)| self.value(value, rest, Some(name), unwraps)),
            ORGANIZATION => {
                for (_, value) in members.iter().filter(|(name, _)| (self.same_org)(name)) {
                    self.value(value, rest, key, unwraps);
                }
            }
            name => {
                if let Some(value) = members.get(name) {
                    self.value(value, rest, key, unwraps);
                }
            }
        }
    }

    fn items(&mut self, items: &[Value], path: &[Cow<'_, str>], key: Option<&str>, unwraps: u32) {
        let Some((segment, rest)) = path.split_first() else { return };
        if **segment == *EVERY {
            return items.iter().for_each(|value| self.value(value, rest, key, unwraps));
        }
        // RFC 6901, section 4: digits without leading zeros.
        let plain =
            segment.bytes().all(|byte| byte.is_ascii_digit()) && (segment.len() == 1 || !segment.starts_with('0'));
        let index = if plain { segment.parse::<usize>().ok() } else { None };
        if let Some(value) = index.and_then(|index| items.get(index)) {
            self.value(value, rest, key, unwraps);
        }
    }
}

/// The JSON object or array that `text` is, where it is one; members that stand twice make it none.
pub(super) fn json_in(text: &str) -> Option<Value> {
    let trimmed = text.trim();
    let wrapped =
        (trimmed.starts_with('{') && trimmed.ends_with('}')) || (trimmed.starts_with('[') && trimmed.ends_with(']'));
    if wrapped { strict_json(trimmed.as_bytes()).ok() } else { None }
}

/// Whether `name`, a member's, is the organization `org`.
pub(super) fn is_org(name: &str, org: &OrgId, kind: OrgIdType) -> bool {
    OrgId::of_type(name, kind).is_ok_and(|other| other == *org)
}

/// RFC 6901, section 4: ~1 first, so that ~01 becomes ~1 and not a slash.
fn unescaped(segment: &str) -> Cow<'_, str> {
    if segment.contains('~') {
        Cow::Owned(segment.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(segment)
    }
}

/// Puts `value` where `path` says, making objects as needed: what [`walk`] would find there. For tokens of our own.
pub(super) fn put(claims: &mut Map<String, Value>, path: &str, org: &str, value: Value) -> Option<()> {
    let Some(pointer) = path.strip_prefix('/') else {
        return claims.insert(path.to_owned(), value).is_none().then_some(());
    };
    let segments: Vec<Cow<'_, str>> = pointer.split('/').map(unescaped).collect();
    match segments.iter().position(|segment| &**segment == KEY) {
        None => put_at(claims, &segments, org, value),
        // Each entry is a name of its own there.
        Some(at) => {
            let entries = if let Value::Array(entries) = value { entries } else { vec![value] };
            for entry in entries {
                let mut named = segments.clone();
                if let Some(segment) = named.get_mut(at) {
                    *segment = Cow::Owned(entry.as_str()?.to_owned());
                }
                put_at(claims, &named, org, Value::Object(Map::new()))?;
            }
            Some(())
        }
    }
}

fn put_at(claims: &mut Map<String, Value>, segments: &[Cow<'_, str>], org: &str, value: Value) -> Option<()> {
    let (last, objects) = segments.split_last()?;
    let name = |segment: &Cow<'_, str>| if &**segment == ORGANIZATION { org.to_owned() } else { segment.to_string() };
    let mut place = claims;
    for object in objects {
        let inner = place.entry(name(object)).or_insert_with(|| Value::Object(Map::new()));
        place = inner.as_object_mut()?;
    }
    // An object that others have filled already is what an empty one is to become.
    let empty = value.as_object().is_some_and(Map::is_empty);
    if empty && place.get(&name(last)).is_some_and(Value::is_object) {
        return Some(());
    }
    place.insert(name(last), value).is_none().then_some(())
}
