//! The claims of a verified token, read into an [`Identity`].
//!
//! What decides who the session is (organization, user, a project that the operator has mapped) refuses the token where
//! it is out of bounds. Roles and permissions only ever add rights, so one that cannot be read is left out, and noted.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::TokenFault;
use super::lists::{self, LeftOut};
use super::path::{self, Found, is_org, walk};
use super::verifier::TokenRules;
use crate::config::ClaimNames;
use crate::ids::{OrgId, TierName, UserId};

/// The longest user, project, tier or `jti`, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// Who a verified token speaks for. Only a [`super::Verifier`] makes one; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Facts>);

#[derive(PartialEq, Eq)]
struct Facts {
    org: OrgId,
    chosen: bool,
    user: Option<UserId>,
    project: Option<Box<str>>,
    roles: Box<[Box<str>]>,
    permissions: Box<[Box<str>]>,
    tier: Option<TierName>,
    jti: Option<Box<str>>,
    left_out: Box<[LeftOut]>,
    expires_at: u64,
}

impl Identity {
    /// Reads the claims of a token whose signature and times are good until `expires_at`.
    ///
    /// Where it names several organizations, `database` chooses among them.
    pub(super) fn read(
        claims: &Map<String, Value>,
        rules: &TokenRules,
        database: &str,
        expires_at: u64,
    ) -> Result<Self, TokenFault> {
        let (names, kind) = (&rules.claims, rules.organization_type);
        let Organization { org, chosen } = organization(claims, rules, database)?;
        let same_org = |name: &str| is_org(name, &org, kind);
        let text = |path: &str, what| text(claims, path, &same_org, what);
        let mut left_out = Vec::new();
        let mut list = |path: &str, what| lists::read(claims, path, &same_org, what, &mut left_out);
        let (roles, permissions) = (list(&names.roles, "roles"), list(&names.permissions, "permissions"));
        let default = ClaimNames::default();
        // A claim of that name that nobody has mapped may be anything: it is not the operator's project or tier.
        let tier = text(&names.tier, "tier").or_else(|_| leave_out("tier", &mut left_out))?;
        let project = text(&names.project, "project");
        let project = match project {
            Err(_) if names.project == default.project => leave_out("project", &mut left_out)?,
            project => project?,
        };
        Ok(Self(Arc::new(Facts {
            user: text(&names.user, "user")?.map(|user| UserId::new(user.as_str())),
            project: project.map(String::into_boxed_str),
            roles,
            permissions,
            tier: tier.map(|tier| TierName::new(tier.as_str())),
            jti: text("jti", "jti")?.map(String::into_boxed_str),
            left_out: left_out.into_boxed_slice(),
            expires_at,
            org,
            chosen,
        })))
    }

    /// The organization, as its column writes it (`auth.organization_type`).
    pub fn org(&self) -> &OrgId {
        &self.0.org
    }

    /// Whether the token names several organizations, of which the database's name has chosen this one.
    pub(super) fn is_chosen(&self) -> bool {
        self.0.chosen
    }

    /// The user, if the token names one; at most 256 bytes without control characters.
    pub fn user(&self) -> Option<&UserId> {
        self.0.user.as_ref()
    }

    /// The project, if the token names one; bounded like the user.
    pub fn project(&self) -> Option<&str> {
        self.0.project.as_deref()
    }

    /// The roles, in the token's order (keys of a map by name), none twice; at most 256 of 256 bytes, without control characters.
    ///
    /// They may hold commas: whoever joins them must see to it that one role cannot read as two ([`joined`]).
    pub fn roles(&self) -> &[Box<str>] {
        &self.0.roles
    }

    /// The permissions; bounded like the roles.
    pub fn permissions(&self) -> &[Box<str>] {
        &self.0.permissions
    }

    /// Whether the token says nothing of roles and permissions, not even something that had to be left out.
    pub fn is_bare(&self) -> bool {
        let of_rights = |left: &LeftOut| matches!(left.claim, "roles" | "permissions");
        self.roles().is_empty() && self.permissions().is_empty() && !self.0.left_out.iter().any(of_rights)
    }

    /// What of the token's claims was left out.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.0.left_out
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
            + one(self.jti())
            + size_of_val(&*facts.left_out);
        (size_of::<Facts>() + texts + many(&facts.roles) + many(&facts.permissions)) as u64
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("org", self.org()).field("user", &self.user()).finish_non_exhaustive()
    }
}

/// Roles or permissions as one setting: joined by commas, with `%` and `,` inside a name written as `%25` and `%2C`
/// (RFC 3986, section 2.1), so that one name never reads as two.
pub fn joined(list: &[Box<str>]) -> String {
    let mut text = String::with_capacity(list.iter().map(|entry| entry.len() + 1).sum());
    for (place, entry) in list.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        for part in entry.chars() {
            match part {
                '%' => text.push_str("%25"),
                ',' => text.push_str("%2C"),
                plain => text.push(plain),
            }
        }
    }
    text
}

/// The organization of a token.
#[derive(Debug)]
pub(super) struct Organization {
    pub(super) org: OrgId,
    /// The token names others too.
    pub(super) chosen: bool,
}

/// The organization, alone: also what a refused token with a good signature is booked under.
///
/// It must be exact: one text or number, a list with one, or a map of objects with one key. Where there are several,
/// `database` must be the name of one of them.
pub(super) fn organization(
    claims: &Map<String, Value>,
    rules: &TokenRules,
    database: &str,
) -> Result<Organization, TokenFault> {
    let kind = rules.organization_type;
    let mut candidates = Vec::new();
    let mut fault = None;
    walk(claims, &rules.claims.organization, &|_| false, &mut |found| {
        if let Err(wrong) = take_candidates(&found, &mut candidates) {
            fault = Some(wrong);
        }
    });
    if let Some(fault) = fault {
        return Err(fault);
    }
    // Each is kept, good or bad: what cannot be an organization beside one that can leaves it open which is meant.
    let mut read: Vec<_> = candidates.iter().map(|name| OrgId::of_type(name, kind).map_err(|_| name)).collect();
    read.sort_unstable();
    read.dedup();
    match &*read {
        [] => Err(TokenFault::NoOrganization),
        [Ok(org)] => Ok(Organization { org: org.clone(), chosen: false }),
        [Err(name)] => {
            let wrong = OrgId::of_type(name, kind).err();
            Err(wrong.map_or(TokenFault::NoOrganization, TokenFault::BadOrganization))
        }
        several => {
            let wanted = OrgId::of_type(database, kind).map_err(|_| TokenFault::SeveralOrganizations)?;
            let held = several.contains(&Ok(wanted.clone()));
            if held { Ok(Organization { org: wanted, chosen: true }) } else { Err(TokenFault::SeveralOrganizations) }
        }
    }
}

fn take_candidates(found: &Found<'_>, candidates: &mut Vec<String>) -> Result<(), TokenFault> {
    let bad = TokenFault::BadClaim("organization");
    if let Some(key) = found.key {
        if lists::holds(found.value) {
            candidates.push(key.to_owned());
        }
        return Ok(());
    }
    let unwrapped = found.value.as_str().and_then(path::json_in);
    match unwrapped.as_ref().unwrap_or(found.value) {
        Value::Null => (),
        Value::Array(items) => {
            for item in items {
                candidates.push(scalar(item).ok_or(bad)?);
            }
        }
        // Only a map of objects is one of organizations: `{"id": "acme", "name": "…"}` is a record of one, whose keys
        // mean the same for everybody.
        Value::Object(members) if !members.is_empty() && members.values().all(Value::is_object) => {
            candidates.extend(members.keys().cloned());
        }
        one => candidates.push(scalar(one).ok_or(bad)?),
    }
    Ok(())
}

/// A text, or a whole number that is not negative (issuers that number their organizations and users).
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// An optional text. Null and the empty text count as absent; two of them are none.
fn text(
    claims: &Map<String, Value>,
    path: &str,
    same_org: &dyn Fn(&str) -> bool,
    what: &'static str,
) -> Result<Option<String>, TokenFault> {
    let mut texts: Vec<Option<String>> = Vec::new();
    walk(claims, path, same_org, &mut |found| match (found.key, found.value) {
        (Some(key), value) if lists::holds(value) => texts.push(Some(key.to_owned())),
        (Some(_), _) | (None, Value::Null) => (),
        (None, value) => texts.push(scalar(value)),
    });
    let bad = TokenFault::BadClaim(what);
    match &mut *texts {
        [] => Ok(None),
        [text] => {
            let text = text.take().ok_or(bad)?;
            if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
                return Err(bad);
            }
            Ok((!text.is_empty()).then_some(text))
        }
        _ => Err(bad),
    }
}

fn leave_out(claim: &'static str, left_out: &mut Vec<LeftOut>) -> Result<Option<String>, TokenFault> {
    lists::note(left_out, claim, lists::Odd::NotText);
    Ok(None)
}
