//! The claims of a verified token, read into an [`Identity`]; whatever is out of bounds refuses the token.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::TokenFault;
use crate::config::ClaimNames;
use crate::ids::{OrgId, TierName, UserId};

/// The longest user, project, tier or `jti`, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// The most roles, and the most permissions.
const LIST_ENTRIES_MAX: usize = 64;
/// The longest role or permission, in bytes.
const LIST_ENTRY_BYTES_MAX: usize = 128;

/// Who a verified token speaks for. Only a [`super::Verifier`] makes one; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Facts>);

#[derive(PartialEq, Eq)]
struct Facts {
    org: OrgId,
    user: Option<UserId>,
    project: Option<Box<str>>,
    roles: Box<[Box<str>]>,
    permissions: Box<[Box<str>]>,
    tier: Option<TierName>,
    jti: Option<Box<str>>,
    expires_at: u64,
}

impl Identity {
    /// Reads the claims of a token whose signature and times are good until `expires_at`.
    pub(super) fn read(claims: &Map<String, Value>, names: &ClaimNames, expires_at: u64) -> Result<Self, TokenFault> {
        Ok(Self(Arc::new(Facts {
            org: organization(claims, names)?,
            user: text(claims, &names.user, "user")?.map(|user| UserId::new(user.as_str())),
            project: text(claims, &names.project, "project")?.map(String::into_boxed_str),
            roles: list(claims, &names.roles, "roles")?,
            permissions: list(claims, &names.permissions, "permissions")?,
            tier: text(claims, &names.tier, "tier")?.map(|tier| TierName::new(tier.as_str())),
            jti: text(claims, "jti", "jti")?.map(String::into_boxed_str),
            expires_at,
        })))
    }

    /// The organization.
    pub fn org(&self) -> &OrgId {
        &self.0.org
    }

    /// The user, if the token names one; at most 256 bytes without control characters.
    pub fn user(&self) -> Option<&UserId> {
        self.0.user.as_ref()
    }

    /// The project, if the token names one; bounded like the user.
    pub fn project(&self) -> Option<&str> {
        self.0.project.as_deref()
    }

    /// The roles, in the token's order, none twice; at most 64 of 128 bytes, without commas or control characters.
    pub fn roles(&self) -> &[Box<str>] {
        &self.0.roles
    }

    /// The permissions; bounded like the roles.
    pub fn permissions(&self) -> &[Box<str>] {
        &self.0.permissions
    }

    /// The tier that the token asks for, if any; whether it exists and holds is `tenant`'s question.
    pub fn tier(&self) -> Option<&TierName> {
        self.0.tier.as_ref()
    }

    /// The token's own id (`jti`), by which it can be revoked.
    pub fn jti(&self) -> Option<&str> {
        self.0.jti.as_deref()
    }

    /// From which second (Unix time) on this identity holds no longer: the token's `exp` and the leeway.
    pub fn expires_at(&self) -> u64 {
        self.0.expires_at
    }

    /// About how many bytes it takes in memory.
    pub(super) fn weight_bytes(&self) -> u64 {
        let facts = &*self.0;
        let one = |text: Option<&str>| text.map_or(0, str::len);
        let many = |list: &[Box<str>]| list.iter().map(|entry| entry.len() + size_of::<Box<str>>()).sum::<usize>();
        let texts = facts.org.as_str().len()
            + one(self.user().map(UserId::as_str))
            + one(self.tier().map(TierName::as_str))
            + one(self.project())
            + one(self.jti());
        (size_of::<Facts>() + texts + many(&facts.roles) + many(&facts.permissions)) as u64
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("org", self.org()).field("user", &self.user()).finish_non_exhaustive()
    }
}

/// The organization, alone: what a refused token with a good signature is booked under.
pub(super) fn organization(claims: &Map<String, Value>, names: &ClaimNames) -> Result<OrgId, TokenFault> {
    let name = match find(claims, &names.organization) {
        None | Some(Value::Null) => return Err(TokenFault::NoOrganization),
        Some(value) => scalar(value).ok_or(TokenFault::BadClaim("organization"))?,
    };
    OrgId::new(&name).map_err(TokenFault::BadOrganization)
}

/// The claim of that name; a name that starts with `/` is a JSON Pointer (RFC 6901).
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
    // RFC 6901, section 4: ~1 first, so that ~01 becomes ~1 and not a slash.
    let member = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    match rest {
        None => Some(member),
        Some(rest) => member.pointer(&format!("/{rest}")),
    }
}

/// A text, or a whole number that is not negative (issuers that number their organizations and users).
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// An optional text. Null and the empty text count as absent.
fn text(claims: &Map<String, Value>, name: &str, what: &'static str) -> Result<Option<String>, TokenFault> {
    let text = match find(claims, name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => scalar(value).ok_or(TokenFault::BadClaim(what))?,
    };
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(TokenFault::BadClaim(what));
    }
    Ok((!text.is_empty()).then_some(text))
}

/// A list: an array of texts, or one text with its entries apart by spaces or commas (OAuth's `scope` is such a one).
fn list(claims: &Map<String, Value>, name: &str, what: &'static str) -> Result<Box<[Box<str>]>, TokenFault> {
    let bad = TokenFault::BadClaim(what);
    let entries: Vec<&str> = match find(claims, name) {
        None | Some(Value::Null) => return Ok(Box::default()),
        Some(Value::String(text)) => text.split([' ', ',']).collect(),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_str().ok_or(bad)).collect::<Result<_, _>>()?,
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(bad),
    };
    let mut list: Vec<Box<str>> = Vec::new();
    for entry in entries.into_iter().filter(|entry| !entry.is_empty()) {
        // A comma inside one entry would be read as two by whoever gets the list joined.
        let clean = entry.len() <= LIST_ENTRY_BYTES_MAX && !entry.contains(|c: char| c.is_control() || c == ',');
        if !clean || list.len() == LIST_ENTRIES_MAX {
            return Err(bad);
        }
        if !list.iter().any(|known| **known == *entry) {
            list.push(entry.into());
        }
    }
    Ok(list.into_boxed_slice())
}
