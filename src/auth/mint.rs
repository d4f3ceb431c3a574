//! Tokens for development, the demo and tests. Nothing that serves clients uses this.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as Jose, EncodingKey};
use serde_json::{Map, Value, json};
use x509_parser::pem::Pem;

use super::algorithm::Algorithm;
use super::key::{Key, KeyError};
use super::path;
use super::verifier::TokenRules;

/// Why no token could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The secret is not fit for use.
    #[error(transparent)]
    Secret(#[from] KeyError),
    /// Not a private key that we can sign with.
    #[error(
        "there is no RSA, P-256, P-384, P-521 or Ed25519 private key in it (PKCS#8 PEM; openssl pkcs8 -topk8 -nocrypt)"
    )]
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
    encoding: Encoding,
}

/// What makes a signature.
#[derive(Clone)]
enum Encoding {
    Known(Jose, EncodingKey),
    P521(Arc<EcdsaKeyPair>),
}

impl Encoding {
    fn sign(&self, signed: &str) -> Option<String> {
        match self {
            Self::Known(algorithm, key) => jsonwebtoken::crypto::sign(signed.as_bytes(), key, *algorithm).ok(),
            Self::P521(key) => {
                let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
                Some(URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }
}

impl SigningKey {
    /// A shared secret; signs with HS256.
    pub fn from_secret(secret: &[u8]) -> Result<Self, MintError> {
        Key::from_secret(secret)?;
        Ok(Self::known(Jose::HS256, EncodingKey::from_secret(secret)))
    }

    /// A private key in PEM: RSA signs with RS256, P-256 with ES256, P-384 with ES384, P-521 with ES512, Ed25519 with
    /// EdDSA.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MintError> {
        let rsa = EncodingKey::from_rsa_pem(pem).ok().map(|key| (Jose::RS256, key));
        let ed = EncodingKey::from_ed_pem(pem).ok().map(|key| (Jose::EdDSA, key));
        let ec = EncodingKey::from_ec_pem(pem).ok();
        let candidates = [rsa, ed, ec.clone().map(|key| (Jose::ES256, key)), ec.map(|key| (Jose::ES384, key))];
        candidates
            .into_iter()
            .flatten()
            // Only a trial signature tells a P-256 key from a P-384 one, and a private key from a public one.
            .find(|(algorithm, key)| jsonwebtoken::crypto::sign(b"trial", key, *algorithm).is_ok())
            .map(|(algorithm, encoding)| Self::known(algorithm, encoding))
            .or_else(|| Self::from_p521(pem))
            .ok_or(MintError::PrivateKey)
    }

    fn from_p521(pem: &[u8]) -> Option<Self> {
        let block = Pem::iter_from_buffer(pem).next()?.ok()?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &block.contents).ok()?;
        Some(Self { algorithm: Algorithm::Es512, id: None, encoding: Encoding::P521(Arc::new(pair)) })
    }

    fn known(algorithm: Jose, encoding: EncodingKey) -> Self {
        Self { algorithm: Algorithm::Known(algorithm), id: None, encoding: Encoding::Known(algorithm, encoding) }
    }

    /// The same key, naming itself `id` (`kid`) in its tokens.
    pub fn named(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Signs `claims` as they are.
    pub fn sign(&self, claims: &Value) -> Result<String, MintError> {
        let mut header = json!({ "alg": self.algorithm.name(), "typ": "JWT" });
        if let (Some(id), Some(members)) = (&self.id, header.as_object_mut()) {
            members.insert("kid".to_owned(), id.as_str().into());
        }
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.encoding.sign(&signed).ok_or(MintError::Signing)?;
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
        let put = |claims: &mut Map<String, Value>, name: &str, value: Value| {
            path::put(claims, name, &self.org, value).ok_or_else(|| MintError::Claim(name.to_owned()))
        };
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
