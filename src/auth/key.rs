//! Keys that verify tokens, and sets of them; the key decides which algorithms it verifies, never the token.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    UnparsedPublicKey,
};
use base64::Engine as _;
use jsonwebtoken::{Algorithm as Jose, DecodingKey};
use x509_parser::asn1_rs::Oid;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::algorithm::Algorithm;
use super::token::BASE64URL;
use crate::config::KeyBounds;

/// The largest key file or JWKS document, in bytes.
pub const KEY_FILE_BYTES_MAX: usize = 64 * 1024;
/// The most keys that one file or JWKS document may hold.
pub const KEYS_MAX: usize = 100;
/// The shortest secret for HS256 and its sisters, in bytes (RFC 7518, section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;
const RSA_EXPONENT_BYTES_MAX: usize = 4;

const HMAC: [Jose; 3] = [Jose::HS256, Jose::HS384, Jose::HS512];
const RSA: [Jose; 6] = [Jose::RS256, Jose::RS384, Jose::RS512, Jose::PS256, Jose::PS384, Jose::PS512];
/// How many keys of an unusable document say why.
const REASONS_MAX: usize = 8;

/// Why a key cannot be used; nothing of a key in the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret that could be guessed.
    #[error("the secret has {0} bytes; at least {SECRET_BYTES_MIN} are needed (try: openssl rand -base64 48)")]
    SecretTooShort(usize),
    /// A PEM file where a secret was meant: with a public key as secret anybody could sign.
    #[error("the secret is a PEM file; an hs256 secret is a random text, a public key is of type pem")]
    SecretIsPem,
    /// More than [`KEY_FILE_BYTES_MAX`].
    #[error("keys may take at most {KEY_FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// More than [`KEYS_MAX`].
    #[error("there may be at most {KEYS_MAX} keys")]
    TooMany,
    /// Not PEM, or PEM without a public key or certificate in it.
    #[error("there is no PEM public key or certificate in it")]
    NotPem,
    /// A private key, which a proxy that only verifies should never hold.
    #[error("it holds a private key; only the public key belongs here (openssl pkey -in … -pubout)")]
    Private,
    /// A kind of key that we do not verify with.
    #[error("the key is neither RSA, P-256, P-384, P-521 nor Ed25519")]
    Unsupported,
    /// An RSA key outside the sizes that are safe and bearable.
    #[error("the RSA key has {0} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted")]
    RsaBits(usize),
    /// Not a point on the curve, an even modulus, a strange exponent, a broken certificate.
    #[error("the key is damaged")]
    Damaged,
    /// Not a JWKS document (RFC 7517, section 5).
    #[error("it is not a JWKS document")]
    NotJwks,
    /// A JWKS document in which every key had to be left out, with the reason for each.
    #[error("there is no usable signature key in it{}", reasons(.0))]
    NoUsableKey(Vec<String>),
}

/// The reasons for the first keys, and how many more there are.
fn reasons(left_out: &[String]) -> String {
    let mut words = if left_out.is_empty() { " (it is empty)".to_owned() } else { ": ".to_owned() };
    let shown = left_out.len().min(REASONS_MAX);
    words.push_str(&left_out.iter().take(shown).map(String::as_str).collect::<Vec<_>>().join("; "));
    if left_out.len() > shown {
        words.push_str(&format!("; and {} more", left_out.len() - shown));
    }
    words
}

/// What verifies a signature.
#[derive(Clone)]
enum Decoding {
    Known(DecodingKey),
    /// A point on P-521, which the token library does not know.
    P521(Box<[u8]>),
}

/// One key: what verifies, under which algorithms, and the name it goes by.
#[derive(Clone)]
pub struct Key {
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    decoding: Decoding,
    fingerprint: [u8; 32],
    bounds: Arc<KeyBounds>,
    source: usize,
}

impl Key {
    /// A shared secret, for HS256, HS384 and HS512.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(KeyError::SecretIsPem);
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::SecretTooShort(secret.len()));
        }
        Ok(Self::known(&HMAC, DecodingKey::from_secret(secret), &[b"secret", secret]))
    }

    /// An RSA key by modulus and exponent, big-endian.
    pub(super) fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return Err(KeyError::RsaBits(bits));
        }
        let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        let one = exponent.len() == 1 && exponent[0] == 1;
        if !odd(modulus) || !odd(exponent) || one || exponent.len() > RSA_EXPONENT_BYTES_MAX {
            return Err(KeyError::Damaged);
        }
        let decoding = DecodingKey::from_rsa_raw_components(modulus, exponent);
        Ok(Self::known(&RSA, decoding, &[b"rsa", modulus, exponent]))
    }

    /// A point on P-256, uncompressed (SEC 1, section 2.3.3).
    pub(super) fn from_p256(point: &[u8]) -> Result<Self, KeyError> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| KeyError::Damaged)?;
        Ok(Self::known(&[Jose::ES256], DecodingKey::from_ec_der(point), &[b"p256", point]))
    }

    /// A point on P-384, uncompressed.
    pub(super) fn from_p384(point: &[u8]) -> Result<Self, KeyError> {
        ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).map_err(|_| KeyError::Damaged)?;
        Ok(Self::known(&[Jose::ES384], DecodingKey::from_ec_der(point), &[b"p384", point]))
    }

    /// A point on P-521, uncompressed.
    pub(super) fn from_p521(point: &[u8]) -> Result<Self, KeyError> {
        ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).map_err(|_| KeyError::Damaged)?;
        Ok(Self::new(vec![Algorithm::Es512], Decoding::P521(point.into()), &[b"p521", point]))
    }

    /// An Ed25519 public key, 32 bytes (RFC 8032).
    pub(super) fn from_ed25519(point: &[u8]) -> Result<Self, KeyError> {
        if point.len() != 32 {
            return Err(KeyError::Damaged);
        }
        ParsedPublicKey::new(&ED25519, point).map_err(|_| KeyError::Damaged)?;
        Ok(Self::known(&[Jose::EdDSA], DecodingKey::from_ed_der(point), &[b"ed25519", point]))
    }

    fn from_spki(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let point = info.subject_public_key.data.as_ref();
        let kind = &info.algorithm.algorithm;
        if *kind == OID_PKCS1_RSAENCRYPTION {
            return Self::from_pkcs1(point);
        }
        if *kind == OID_SIG_ED25519 {
            return Self::from_ed25519(point);
        }
        if *kind != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return Err(KeyError::Unsupported);
        }
        // The curve is named beside the point: secp256k1's points look like P-256's.
        let curve = info.algorithm.parameters.as_ref().and_then(|any| Oid::try_from(any.clone()).ok());
        match curve {
            Some(curve) if curve == OID_EC_P256 => Self::from_p256(point),
            Some(curve) if curve == OID_NIST_EC_P384 => Self::from_p384(point),
            Some(curve) if curve == OID_NIST_EC_P521 => Self::from_p521(point),
            Some(_) | None => Err(KeyError::Unsupported),
        }
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let (rest, key) = RSAPublicKey::from_der(der).map_err(|_| KeyError::Damaged)?;
        if !rest.is_empty() {
            return Err(KeyError::Damaged);
        }
        Self::from_rsa(key.modulus, key.exponent)
    }

    fn known(algorithms: &[Jose], decoding: DecodingKey, material: &[&[u8]]) -> Self {
        let algorithms = algorithms.iter().copied().map(Algorithm::Known).collect();
        Self::new(algorithms, Decoding::Known(decoding), material)
    }

    fn new(algorithms: Vec<Algorithm>, decoding: Decoding, material: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in material {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        Self { id: None, algorithms, decoding, fingerprint, bounds: Arc::default(), source: 0 }
    }

    /// The same key, known by `id`.
    pub(super) fn named(mut self, id: Option<&str>) -> Self {
        self.id = id.map(Box::from);
        self
    }

    /// The same key for `algorithm` alone; none if it is not for that algorithm.
    pub(super) fn only_for(mut self, algorithm: Algorithm) -> Option<Self> {
        self.algorithms.retain(|own| *own == algorithm);
        (!self.algorithms.is_empty()).then_some(self)
    }

    /// The name it goes by (`kid`), where its source gave it one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// For whom it may speak.
    pub fn bounds(&self) -> &KeyBounds {
        &self.bounds
    }

    /// Which of the sources of a set it comes from.
    pub(super) fn source(&self) -> usize {
        self.source
    }

    /// Whether this key is one for `algorithm`.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether `signature` (base64url) over `signed` is by this key, under an algorithm that is this key's own.
    pub(super) fn has_signed(&self, signed: &str, signature: &str, algorithm: Algorithm) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        match (&self.decoding, algorithm) {
            (Decoding::Known(key), Algorithm::Known(known)) => {
                // The library takes it without its padding.
                let signature = signature.trim_end_matches('=');
                jsonwebtoken::crypto::verify(signature, signed.as_bytes(), key, known).unwrap_or(false)
            }
            (Decoding::P521(point), Algorithm::Es512) => BASE64URL.decode(signature).is_ok_and(|signature| {
                UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).verify(signed.as_bytes(), &signature).is_ok()
            }),
            (Decoding::Known(_) | Decoding::P521(_), _) => false,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.algorithms == other.algorithms && self.fingerprint == other.fingerprint
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

/// The keys that may sign tokens. Two sets are equal when they hold the same keys under the same names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// A set of one shared secret; see [`Key::from_secret`].
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        Key::from_secret(secret).map(|key| Self { keys: vec![key] })
    }

    /// The public keys and certificates of a PEM file; a certificate stands for its key, its dates are not looked at.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        if pem.len() > KEY_FILE_BYTES_MAX {
            return Err(KeyError::TooLarge);
        }
        let mut keys = Vec::new();
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|_| KeyError::NotPem)?;
            if keys.len() == KEYS_MAX {
                return Err(KeyError::TooMany);
            }
            if let Some(key) = pem_key(&block)? {
                keys.push(key);
            }
        }
        if keys.is_empty() { Err(KeyError::NotPem) } else { Ok(Self { keys }) }
    }

    pub(super) fn from_keys(keys: Vec<Key>) -> Self {
        Self { keys }
    }

    /// All keys of `sets`, in their order, each with the bounds of its set.
    ///
    /// The bounds are the operator's: nothing that a source says of its own keys can change them.
    pub fn join_bound<'a>(sets: impl IntoIterator<Item = (&'a Self, &'a KeyBounds)>) -> Self {
        let mut keys = Vec::new();
        for (source, (set, bounds)) in sets.into_iter().enumerate() {
            let bounds = Arc::new(bounds.clone());
            keys.extend(set.keys.iter().map(|key| Key { bounds: Arc::clone(&bounds), source, ..key.clone() }));
        }
        Self { keys }
    }

    /// All keys of `sets`, in their order.
    pub fn join<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        Self { keys: sets.into_iter().flat_map(|set| set.keys.iter().cloned()).collect() }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, so that no token can be good.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }
}

/// The key in one block of a PEM file; none for blocks that are not about keys (`EC PARAMETERS` and their like).
fn pem_key(block: &Pem) -> Result<Option<Key>, KeyError> {
    match block.label.as_str() {
        "PUBLIC KEY" => {
            let (_, info) = SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_| KeyError::Damaged)?;
            Key::from_spki(&info).map(Some)
        }
        "RSA PUBLIC KEY" => Key::from_pkcs1(&block.contents).map(Some),
        "CERTIFICATE" => {
            let certificate = block.parse_x509().map_err(|_| KeyError::Damaged)?;
            Key::from_spki(certificate.public_key()).map(Some)
        }
        label if label.ends_with("PRIVATE KEY") => Err(KeyError::Private),
        _ => Ok(None),
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
