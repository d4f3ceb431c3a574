//! The judge of tokens: signature first, then times, issuer and audience, then the claims.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::TOKEN_BYTES_MAX;
use super::cache::{TokenCache, TokenDigest};
use super::claims::{self, Identity};
use super::error::{TokenError, TokenFault};
use super::key::{Key, KeySet};
use super::lists::{LeftOut, Odd};
use super::token::Compact;
use crate::config::{self, ClaimNames};
use crate::ids::{OrgId, OrgIdType};

/// The most keys that are tried for one token: what a hostile token may cost.
const TRIES_MAX: usize = 16;
/// The last second of the year 9999. Later times are milliseconds, or nonsense.
const TIME_MAX: u64 = 253_402_300_799;
/// What verified tokens may take in memory, in bytes.
const CACHE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a token must say besides being signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRules {
    /// The `iss` that tokens must have; unchecked when none.
    pub issuer: Option<String>,
    /// Tokens must name one of these in `aud`; unchecked when empty.
    pub audience: Vec<String>,
    /// By how many seconds the issuer's clock and ours may differ.
    pub leeway_s: u64,
    /// Which claims carry what.
    pub claims: ClaimNames,
    /// How the databases compare organizations.
    pub organization_type: OrgIdType,
}

impl From<&config::Auth> for TokenRules {
    fn from(auth: &config::Auth) -> Self {
        Self {
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            leeway_s: auth.leeway.as_secs(),
            claims: auth.claims.clone(),
            organization_type: auth.organization_type,
        }
    }
}

/// Verifies tokens with one set of keys under one set of rules; replaced whole when either changes.
pub struct Verifier {
    rules: TokenRules,
    keys: KeySet,
    /// Some keys are of one issuer alone.
    has_issuers: bool,
    cache: TokenCache,
    told: Mutex<BTreeSet<(&'static str, Odd)>>,
}

impl Verifier {
    /// A verifier that remembers nothing yet. Without keys it refuses every token.
    pub fn new(rules: TokenRules, keys: KeySet) -> Self {
        let has_issuers = keys.keys().iter().any(|key| key.bounds().issuer.is_some());
        Self { rules, keys, has_issuers, cache: TokenCache::new(CACHE_BYTES_MAX), told: Mutex::default() }
    }

    /// The keys.
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// The rules.
    pub fn rules(&self) -> &TokenRules {
        &self.rules
    }

    /// Whom `token` speaks for at `now` (Unix time, seconds).
    ///
    /// A token seen before costs a hash; a new one a signature (25 to 70 µs), a hostile one at most 16 of them.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        self.verify_for(token, "", now)
    }

    /// As [`Self::verify`], of a client that asks for `database`: its name chooses among the organizations of a token
    /// that names several.
    pub fn verify_for(&self, token: &str, database: &str, now: u64) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong.into());
        }
        if let Some(identity) = self.remembered(token, database, now) {
            return Ok(identity);
        }
        let identity = self.judge(token, database, now)?;
        let chosen_by = if identity.is_chosen() { database } else { "" };
        self.cache.insert(TokenDigest::of(token, chosen_by), identity.clone());
        Ok(identity)
    }

    /// Whom `token` speaks for in `database`, if it was verified before and still holds; costs a hash, or two.
    ///
    /// Where many tokens of an address are verified, one that is known does not wait for them.
    pub fn remembered(&self, token: &str, database: &str, now: u64) -> Option<Identity> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let known = self.cache.get(&TokenDigest::of(token, ""), now);
        known.or_else(|| {
            let chosen = !database.is_empty();
            chosen.then(|| self.cache.get(&TokenDigest::of(token, database), now)).flatten()
        })
    }

    /// What was left out of `identity` for reasons that were not told since these keys are in force.
    ///
    /// Each claim and reason once: thousands of users of one identity provider have the same odd group.
    pub fn untold(&self, identity: &Identity) -> Vec<LeftOut> {
        let mut told = self.told.lock();
        identity.left_out().iter().copied().filter(|left| told.insert((left.claim, left.why))).collect()
    }

    fn judge(&self, token: &str, database: &str, now: u64) -> Result<Identity, TokenError> {
        let compact = Compact::parse(token)?;
        // Not believed yet: it only chooses among the keys, each of which may speak for its own issuer alone.
        let claimed = if self.has_issuers { Some(compact.claims()?) } else { None };
        let issuer = claimed.as_ref().map(|claims| claims.get("iss").and_then(Value::as_str));
        let mut claims = None;
        let mut refused = None;
        let candidates = self.candidates(&compact, issuer)?;
        for key in candidates.keys {
            if !key.has_signed(compact.signed, compact.signature, compact.algorithm) {
                continue;
            }
            let claims: &Map<String, Value> = match &mut claims {
                Some(claims) => claims,
                none => none.insert(compact.claims()?),
            };
            match self.judge_claims(claims, key, database, now) {
                Ok(identity) => return Ok(identity),
                Err(fault) => _ = refused.get_or_insert(self.booked(fault, claims, key, database)),
            }
        }
        // A fresher key set may have the key.
        let unsigned = if candidates.unknown { TokenFault::UnknownKey } else { TokenFault::Signature };
        Err(refused.unwrap_or_else(|| unsigned.into()))
    }

    fn judge_claims(
        &self,
        claims: &Map<String, Value>,
        key: &Key,
        database: &str,
        now: u64,
    ) -> Result<Identity, TokenFault> {
        let expires_at = self.check_times(claims, now)?;
        self.check_issuer(claims, key)?;
        self.check_audience(claims, key)?;
        let identity = Identity::read(claims, &self.rules, database, expires_at)?;
        if may_speak_for(key, identity.org()) { Ok(identity) } else { Err(TokenFault::ForeignOrganization) }
    }

    /// A fault, booked under the organization that the token names, where its key may speak for that one: nobody makes
    /// another organization's logins slow, or its audit trail long.
    fn booked(&self, fault: TokenFault, claims: &Map<String, Value>, key: &Key, database: &str) -> TokenError {
        let org = claims::organization(claims, &self.rules, database).ok().map(|organization| organization.org);
        TokenError::new(fault, org.filter(|org| may_speak_for(key, org)))
    }

    /// The keys that may have signed: with the token's `kid`, else those without a name, else (no `kid`) any; but only
    /// for their own algorithms, and for their own issuer.
    ///
    /// At most 16, in turn from each source: no source can fill its set so that another's keys are never tried.
    fn candidates(&self, compact: &Compact<'_>, issuer: Option<Option<&str>>) -> Result<Candidates<'_>, TokenFault> {
        let issuers_own = |key: &&Key| match (&key.bounds().issuer, issuer) {
            (Some(own), Some(claimed)) => claimed == Some(own),
            (Some(_), None) | (None, _) => true,
        };
        let keys: Vec<&Key> = self.keys.keys().iter().filter(issuers_own).collect();
        if keys.is_empty() && !self.keys.is_empty() {
            return Err(TokenFault::Issuer);
        }
        let key_id = compact.key_id.as_deref();
        let known = key_id.is_some_and(|id| keys.iter().any(|key| key.id() == Some(id)));
        let may_have_signed = |key: &&&Key| match key_id {
            None => true,
            Some(_) if known => key.id() == key_id,
            Some(_) => key.id().is_none(),
        };
        let named = keys.iter().filter(may_have_signed).filter(|key| key.is_for(compact.algorithm));
        let mut of_source: BTreeMap<usize, usize> = BTreeMap::new();
        let mut ranked: Vec<(usize, &Key)> = named
            .map(|key| {
                let rank = of_source.entry(key.source()).or_default();
                *rank += 1;
                (*rank, *key)
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.truncate(TRIES_MAX);
        let unknown = key_id.is_some() && !known;
        match (unknown, ranked.is_empty()) {
            (true, true) => Err(TokenFault::UnknownKey),
            (false, true) => Err(TokenFault::NoKeyForAlgorithm),
            (_, false) => Ok(Candidates { keys: ranked.into_iter().map(|(_, key)| key).collect(), unknown }),
        }
    }

    /// RFC 7519, sections 4.1.4 to 4.1.6. The answer is `exp` and the leeway.
    fn check_times(&self, claims: &Map<String, Value>, now: u64) -> Result<u64, TokenFault> {
        let exp = present(claims, "exp").ok_or(TokenFault::NoExpiry)?;
        let exp = seconds(exp).filter(|exp| *exp <= TIME_MAX).ok_or(TokenFault::BadTime("exp"))?;
        let expires_at = exp.saturating_add(self.rules.leeway_s);
        if now >= expires_at {
            return Err(TokenFault::Expired);
        }
        for name in ["nbf", "iat"] {
            let Some(time) = present(claims, name) else { continue };
            let time = seconds(time).ok_or(TokenFault::BadTime(name))?;
            if time > now.saturating_add(self.rules.leeway_s) {
                return Err(TokenFault::NotYetValid(name));
            }
        }
        Ok(expires_at)
    }

    /// The key's own issuer, else that of all.
    fn check_issuer(&self, claims: &Map<String, Value>, key: &Key) -> Result<(), TokenFault> {
        match key.bounds().issuer.as_ref().or(self.rules.issuer.as_ref()) {
            Some(issuer) if claims.get("iss").and_then(Value::as_str) != Some(issuer) => Err(TokenFault::Issuer),
            Some(_) | None => Ok(()),
        }
    }

    /// RFC 7519, section 4.1.3: one text, or an array of them.
    ///
    /// A token without any is for the client that it was issued to (RFC 9068, section 2.2 calls it `client_id`, OpenID
    /// Connect `azp`): Amazon Cognito's access tokens and Clerk's session tokens are such.
    fn check_audience(&self, claims: &Map<String, Value>, key: &Key) -> Result<(), TokenFault> {
        let own = &key.bounds().audience;
        let audience = if own.is_empty() { &self.rules.audience } else { own };
        let ours = |value: &Value| value.as_str().is_some_and(|name| audience.iter().any(|own| own == name));
        let issued_to = || present(claims, "client_id").or_else(|| present(claims, "azp"));
        let meant = match present(claims, "aud") {
            _ if audience.is_empty() => true,
            None => issued_to().is_some_and(ours),
            Some(Value::Array(names)) => names.iter().any(ours),
            Some(one) => ours(one),
        };
        if meant { Ok(()) } else { Err(TokenFault::Audience) }
    }
}

/// The keys that may have signed a token.
struct Candidates<'k> {
    keys: Vec<&'k Key>,
    /// The token names a key that none of them is called.
    unknown: bool,
}

/// Whether a key's bounds hold `org`.
fn may_speak_for(key: &Key, org: &OrgId) -> bool {
    key.bounds().organizations.as_ref().is_none_or(|organizations| organizations.contains(org))
}

/// A claim that is there and not null.
fn present<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    claims.get(name).filter(|value| !value.is_null())
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("rules", &self.rules).field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// A NumericDate (RFC 7519, section 2) in whole seconds; before 1970 counts as 1970, fractions are cut.
fn seconds(value: &Value) -> Option<u64> {
    let Value::Number(number) = value else { return None };
    if let Some(whole) = number.as_u64() {
        return Some(whole);
    }
    // A float beyond u64 becomes u64::MAX and a negative one 0: `as` saturates, and JSON has no NaN.
    number.as_f64().map(|fraction| fraction as u64)
}
