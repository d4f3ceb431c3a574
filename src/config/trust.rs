//! `[auth]` as written: whose tokens are believed, by which keys, and for whom each key may speak.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::meant::{Auth, ClaimNames, KeyBounds, KeySource, OnExpiry, TokenKeys};
use super::page::Need;
use super::sections::HOUR_S;
use super::table::Table;
use crate::ids::{OrgId, OrgIdType};

/// The most tables of keys.
const SOURCES_MAX: usize = 1000;
const TYPES: &str = "hs256 | pem | jwks_file | jwks_url";

pub(super) fn auth(root: &Table<'_>) -> Auth {
    let table = root.table("auth");
    let default = Auth::default();
    let issuer = table.text("issuer").or(default.issuer);
    let discovery = table.flag("discovery").unwrap_or(default.discovery);
    let organization_type = table.word("organization_type", &ORGANIZATION_TYPES).unwrap_or_default();
    // An issuer alone says where its keys are.
    let found = issuer.as_deref().filter(|_| discovery).and_then(|issuer| https_url(issuer).ok());
    let what = "at least one [[auth.keys]], as type = \"hs256\" and file = \"…\", or an https `issuer` that publishes its keys";
    let sources = table.tables("keys");
    if table.has("keys") && table.sound(&["keys"]) && sources.is_empty() {
        table.fault("keys", format!("empty ({what})"));
    }
    if sources.len() > SOURCES_MAX {
        table.fault("keys", format!("too many (at most {SOURCES_MAX})"));
    }
    if found.is_none() {
        table.require("keys", what);
    }
    let mut keys: Vec<TokenKeys> =
        sources.iter().filter_map(|source| token_keys(source, discovery, organization_type)).collect();
    if !table.has("keys") {
        keys.extend(found.map(|issuer| TokenKeys::from(KeySource::Issuer { issuer, ca_file: None })));
    }
    let auth = Auth {
        issuer,
        discovery,
        organization_type,
        audience: table.texts("audience").unwrap_or(default.audience),
        leeway: table.seconds("leeway_s", 0..=300).unwrap_or(default.leeway),
        on_expiry: table
            .word("on_expiry", &[("disconnect", OnExpiry::Disconnect), ("keep", OnExpiry::Keep)])
            .unwrap_or(default.on_expiry),
        expiry_grace: table.seconds("expiry_grace_s", 0..=HOUR_S).unwrap_or(default.expiry_grace),
        keys,
        claims: claims(&table),
    };
    table.close();
    auth
}

const ORGANIZATION_TYPES: [(&str, OrgIdType); 5] = [
    ("auto", OrgIdType::Auto),
    ("text", OrgIdType::Text),
    ("citext", OrgIdType::Citext),
    ("uuid", OrgIdType::Uuid),
    ("bigint", OrgIdType::Bigint),
];

/// Which kind of key source a table is.
#[derive(Clone, Copy)]
enum SourceType {
    Hs256,
    Pem,
    JwksFile,
    JwksUrl,
}

fn token_keys(table: &Table<'_>, discovery: bool, organization_type: OrgIdType) -> Option<TokenKeys> {
    let types = [
        ("hs256", SourceType::Hs256),
        ("pem", SourceType::Pem),
        ("jwks_file", SourceType::JwksFile),
        ("jwks_url", SourceType::JwksUrl),
    ];
    let bounds = bounds(table, organization_type);
    let by_issuer_alone = !["type", "file", "env", "url"].iter().any(|key| table.has(key)) && bounds.issuer.is_some();
    let source_type = if by_issuer_alone {
        let _ = table.word("type", &types);
        Some(SourceType::JwksUrl)
    } else {
        table.require("type", TYPES);
        table.word("type", &types)
    };
    // Without a type nobody knows which keys belong: saying that once is enough.
    let from = match source_type? {
        SourceType::Hs256 => hs256(table),
        SourceType::Pem => public_file(table, Need::PublicKeys).map(|file| KeySource::Pem { file }),
        SourceType::JwksFile => public_file(table, Need::KeySet).map(|file| KeySource::JwksFile { file }),
        SourceType::JwksUrl => jwks_url(table, bounds.issuer.as_deref().filter(|_| discovery)),
    };
    table.close();
    Some(TokenKeys { from: from?, bounds })
}

/// For whom these keys may speak.
fn bounds(table: &Table<'_>, organization_type: OrgIdType) -> KeyBounds {
    let listed = |key: &'static str| {
        let texts = table.texts(key)?;
        if texts.is_empty() {
            table.fault(key, "empty (leave the key out instead)");
        }
        Some(texts)
    };
    let organizations = listed("organizations").map(|names| {
        let mut organizations = BTreeSet::new();
        for name in names {
            match OrgId::of_type(&name, organization_type) {
                Ok(org) => _ = organizations.insert(org),
                Err(wrong) => table.fault("organizations", wrong.to_string()),
            }
        }
        organizations
    });
    KeyBounds { issuer: table.text("issuer"), audience: listed("audience").unwrap_or_default(), organizations }
}

fn hs256(table: &Table<'_>) -> Option<KeySource> {
    table.refuse_inline("secret", "file or env");
    table.refuse_inline("key", "file or env");
    let secret = table.secret("file", "env", Need::SigningSecret);
    if !table.has("env") && table.sound(&["secret", "key"]) {
        table.require("file", "file or env: where the secret is");
    }
    secret.map(|secret| KeySource::Hs256 { secret })
}

fn public_file(table: &Table<'_>, need: fn(PathBuf) -> Need) -> Option<PathBuf> {
    table.refuse_inline("key", "file");
    if table.sound(&["key"]) {
        table.require("file", "the path of the public key");
    }
    table.path("file", need)
}

/// A key set by its URL, or by that of the issuer that publishes it (OpenID Connect Discovery 1.0, section 4).
fn jwks_url(table: &Table<'_>, issuer: Option<&str>) -> Option<KeySource> {
    let ca_file = table.file("ca_file");
    let url = table.checked("url", https_url);
    if table.has("url") {
        return url.map(|url| KeySource::JwksUrl { url, ca_file });
    }
    let Some(issuer) = issuer else {
        table.require("url", "an https URL, or an https `issuer` that publishes its keys");
        return None;
    };
    match https_url(issuer) {
        Ok(issuer) => Some(KeySource::Issuer { issuer, ca_file }),
        Err(wrong) => {
            table.fault("issuer", format!("{wrong}, so that its keys cannot be found by it: give url"));
            None
        }
    }
}

/// An absolute `https` URL without a user part: whoever can change the keys on their way can make tokens.
pub fn https_url(text: &str) -> Result<String, String> {
    let wrong = || Err("not an https URL (https://host/path, without user or password)".to_owned());
    let Some(rest) = text.strip_prefix("https://") else { return wrong() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.split(':').next().unwrap_or_default();
    if host.is_empty() || authority.contains('@') || text.contains(char::is_whitespace) {
        return wrong();
    }
    Ok(text.to_owned())
}

fn claims(auth: &Table<'_>) -> ClaimNames {
    let table = auth.table("claims");
    let default = ClaimNames::default();
    let claim = |key, default| table.checked(key, claim_name).unwrap_or(default);
    let claims = ClaimNames {
        organization: claim("organization", default.organization),
        user: claim("user", default.user),
        project: claim("project", default.project),
        roles: claim("roles", default.roles),
        permissions: claim("permissions", default.permissions),
        tier: claim("tier", default.tier),
    };
    if claims.organization.split('/').skip(1).any(|segment| segment == "{organization}") {
        table.fault("organization", "leads by way of {organization}, which is only known from it");
    }
    table.close();
    claims
}

/// A claim's name, or a JSON Pointer, in which `~` stands only in `~0` and `~1` (RFC 6901 section 3).
fn claim_name(text: &str) -> Result<String, String> {
    let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if text.starts_with('/') && !escaped {
        return Err("not a JSON Pointer (~ only as ~0 or ~1)".to_owned());
    }
    if text.starts_with('/') && text.split('/').filter(|segment| *segment == "{key}").count() > 1 {
        return Err("{key} stands twice in it (once: its name is the value)".to_owned());
    }
    Ok(text.to_owned())
}
