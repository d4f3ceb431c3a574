//! Tokens for development, the demo and tests. Nothing that serves clients uses this.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Map, Value, json};

use super::key::{Key, KeyError};
use super::verifier::TokenRules;

/// Why no token could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The secret is not fit for use.
    #[error(transparent)]
    Secret(#[from] KeyError),
    /// Not a private key that we can sign with.
    #[error("there is no RSA, P-256, P-384 or Ed25519 private key in it (PKCS#8 PEM; openssl pkcs8 -topk8 -nocrypt)")]
    PrivateKey,
    /// The signature could not be made.
    #[error("the token could not be signed")]
    Signing,
    /// Two claims want the same place: a JSON Pointer leads through a claim that is not an object.
    #[error("the claim {0} has no place beside the others")]
    Claim(String),
}

/// A key that signs: a shared secret or a private key.
#[derive(Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    id: Option<String>,
    encoding: EncodingKey,
}

impl SigningKey {
    /// A shared secret; signs with HS256.
    pub fn from_secret(secret: &[u8]) -> Result<Self, MintError> {
        Key::from_secret(secret)?;
        Ok(Self { algorithm: Algorithm::HS256, id: None, encoding: EncodingKey::from_secret(secret) })
    }

    /// A private key in PEM: RSA signs with RS256, P-256 with ES256, P-384 with ES384, Ed25519 with EdDSA.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MintError> {
        let rsa = EncodingKey::from_rsa_pem(pem).ok().map(|key| (Algorithm::RS256, key));
        let ed = EncodingKey::from_ed_pem(pem).ok().map(|key| (Algorithm::EdDSA, key));
        let ec = EncodingKey::from_ec_pem(pem).ok();
        let candidates =
            [rsa, ed, ec.clone().map(|key| (Algorithm::ES256, key)), ec.map(|key| (Algorithm::ES384, key))];
        candidates
            .into_iter()
            .flatten()
            // Only a trial signature tells a P-256 key from a P-384 one, and a private key from a public one.
            .find(|(algorithm, key)| jsonwebtoken::crypto::sign(b"trial", key, *algorithm).is_ok())
            .map(|(algorithm, encoding)| Self { algorithm, id: None, encoding })
            .ok_or(MintError::PrivateKey)
    }

    /// The same key, naming itself `id` (`kid`) in its tokens.
    pub fn named(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Signs `claims` as they are.
    pub fn sign(&self, claims: &Value) -> Result<String, MintError> {
        let mut header = json!({ "alg": format!("{:?}", self.algorithm), "typ": "JWT" });
        if let (Some(id), Some(members)) = (&self.id, header.as_object_mut()) {
            members.insert("kid".to_owned(), id.as_str().into());
        }
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.encoding, self.algorithm)
            .map_err(|_| MintError::Signing)?;
        Ok(format!("{signed}.{signature}"))
    }

    /// Makes a token that says what `grant` says, in the places and for the issuer and audience that `rules` ask for.
    pub fn mint(&self, grant: &Grant, rules: &TokenRules, now: u64) -> Result<String, MintError> {
        self.sign(&Value::Object(grant.claims(rules, now)?))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a development token is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// The organization.
    pub org: String,
    /// The user.
    pub user: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// The roles.
    pub roles: Vec<String>,
    /// The permissions.
    pub permissions: Vec<String>,
    /// The tier.
    pub tier: Option<String>,
    /// For how many seconds it is good.
    pub ttl_s: u64,
}

impl Grant {
    fn claims(&self, rules: &TokenRules, now: u64) -> Result<Map<String, Value>, MintError> {
        let mut claims = Map::new();
        let names = &rules.claims;
        let texts = [(&names.user, &self.user), (&names.project, &self.project), (&names.tier, &self.tier)];
        let lists = [(&names.roles, &self.roles), (&names.permissions, &self.permissions)];
        put(&mut claims, &names.organization, self.org.as_str().into())?;
        for (name, text) in texts {
            if let Some(text) = text {
                put(&mut claims, name, text.as_str().into())?;
            }
        }
        for (name, list) in lists {
            if !list.is_empty() {
                put(&mut claims, name, json!(list))?;
            }
        }
        if let Some(issuer) = &rules.issuer {
            put(&mut claims, "iss", issuer.as_str().into())?;
        }
        if let Some(audience) = rules.audience.first() {
            put(&mut claims, "aud", audience.as_str().into())?;
        }
        put(&mut claims, "iat", now.into())?;
        put(&mut claims, "exp", now.saturating_add(self.ttl_s).into())?;
        Ok(claims)
    }
}

/// Puts a claim where `name` says: a name, or a JSON Pointer through objects that are made as needed.
fn put(claims: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), MintError> {
    let taken = || MintError::Claim(name.to_owned());
    let path: Vec<String> = match name.strip_prefix('/') {
        None => vec![name.to_owned()],
        Some(path) => path.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect(),
    };
    let Some((last, objects)) = path.split_last() else { return Err(taken()) };
    let mut place = claims;
    for object in objects {
        let inner = place.entry(object.as_str()).or_insert_with(|| Value::Object(Map::new()));
        place = inner.as_object_mut().ok_or_else(taken)?;
    }
    match place.insert(last.clone(), value) {
        None => Ok(()),
        Some(_) => Err(taken()),
    }
}
