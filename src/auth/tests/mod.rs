//! Tests: good tokens of every kind, and a table of bad ones, each refused for its own reason. Here is what they share.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
};
use serde_json::{Value, json};

use super::mint::SigningKey;
use super::*;
use crate::config::ClaimNames;

mod bounds;
mod claims;
mod keys;
mod tokens;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// RSA keys are slow to make, so all tests share one.
static RSA: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
static P256: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());

fn rules() -> TokenRules {
    TokenRules {
        issuer: Some("https://issuer.example/".to_owned()),
        audience: vec!["partywall".to_owned(), "other".to_owned()],
        leeway_s: 30,
        ..TokenRules::default()
    }
}

fn names() -> ClaimNames {
    ClaimNames {
        organization: "org".to_owned(),
        user: "sub".to_owned(),
        project: "project".to_owned(),
        roles: "roles".to_owned(),
        permissions: "permissions".to_owned(),
        tier: "tier".to_owned(),
    }
}

fn verifier(keys: KeySet) -> Verifier {
    Verifier::new(TokenRules { claims: names(), ..rules() }, keys)
}

fn secret_verifier() -> Verifier {
    verifier(KeySet::from_secret(SECRET).unwrap())
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example/", "aud": "partywall", "exp": NOW + 60, "iat": NOW, "nbf": NOW,
        "org": "org_1", "sub": "alice", "jti": "t-1", "tier": "pro", "project": "p1",
        "roles": ["admin", "reader"], "permissions": "orders:read orders:write",
    })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value == "absent" {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn signed(claims: &Value) -> String {
    SigningKey::from_secret(SECRET).unwrap().sign(claims).unwrap()
}

/// A token with this header and payload byte for byte, signed with `SECRET`.
fn signed_raw(header: &str, payload: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

fn fault(verifier: &Verifier, token: &str) -> TokenFault {
    verifier.verify(token, NOW).expect_err(token).fault()
}

fn fault_of(changes: Value) -> TokenFault {
    fault(&secret_verifier(), &signed(&with(changes)))
}

fn jwk(key: &KeyPair, id: &str) -> Value {
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let raw = key.public_key_raw();
    let curves =
        [(&PKCS_ECDSA_P256_SHA256, "P-256"), (&PKCS_ECDSA_P384_SHA384, "P-384"), (&PKCS_ECDSA_P521_SHA512, "P-521")];
    if let Some((_, curve)) = curves.iter().find(|(kind, _)| key.algorithm() == *kind) {
        let (x, y) = raw[1..].split_at(raw.len() / 2);
        return json!({ "kty": "EC", "crv": curve, "x": b64(x), "y": b64(y), "kid": id, "use": "sig" });
    }
    if key.algorithm() == &PKCS_ED25519 {
        return json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": id });
    }
    use x509_parser::prelude::FromDer as _;
    let (_, rsa) = x509_parser::public_key::RSAPublicKey::from_der(raw).unwrap();
    json!({ "kty": "RSA", "n": b64(rsa.modulus), "e": b64(rsa.exponent), "kid": id, "alg": "RS256" })
}

fn jwks(keys: &[Value]) -> Jwks {
    KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}
