//! Tests: good tokens of every kind, and a table of bad ones, each refused for its own reason.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use serde_json::{Value, json};

use super::mint::{Grant, SigningKey};
use super::*;
use crate::config::ClaimNames;
use crate::refusal::Kind;

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
        claims: ClaimNames::default(),
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
    if key.algorithm() == &PKCS_ECDSA_P256_SHA256 || key.algorithm() == &PKCS_ECDSA_P384_SHA384 {
        let (x, y) = raw[1..].split_at(raw.len() / 2);
        let curve = if x.len() == 32 { "P-256" } else { "P-384" };
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

#[test]
fn a_good_token_becomes_an_identity() {
    let identity = secret_verifier().verify(&signed(&claims()), NOW).unwrap();
    assert_eq!(identity.org().as_str(), "org_1");
    assert_eq!(identity.user().unwrap().as_str(), "alice");
    assert_eq!(identity.project(), Some("p1"));
    assert_eq!(identity.tier().unwrap().as_str(), "pro");
    assert_eq!(identity.jti(), Some("t-1"));
    assert_eq!(identity.roles(), ["admin".into(), "reader".into()]);
    assert_eq!(identity.permissions(), ["orders:read".into(), "orders:write".into()]);
    assert_eq!(identity.expires_at(), NOW + 60 + 30);
}

#[test]
fn every_kind_of_private_key_signs_and_its_public_key_verifies_by_pem_certificate_and_jwks() {
    let others = [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519].map(|kind| KeyPair::generate_for(kind).unwrap());
    for pair in [&*RSA, &*P256, &others[0], &others[1]] {
        let token = SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap().sign(&claims()).unwrap();
        let certificate = CertificateParams::new(vec!["issuer".to_owned()]).unwrap().self_signed(pair).unwrap();
        let sets = [
            KeySet::from_pem(pair.public_key_pem().as_bytes()).unwrap(),
            KeySet::from_pem(format!("subject=x\n{}\n\ntrailing words\n", certificate.pem()).as_bytes()).unwrap(),
            jwks(&[jwk(pair, "k1")]).keys,
        ];
        for keys in sets {
            assert!(verifier(keys).verify(&token, NOW).is_ok(), "{:?}", pair.algorithm());
        }
        assert_eq!(fault(&secret_verifier(), &token), TokenFault::NoKeyForAlgorithm);
    }
}

#[test]
fn all_algorithms_of_a_key_are_accepted_and_no_others() {
    use jsonwebtoken::Algorithm::*;
    let rsa = jsonwebtoken::EncodingKey::from_rsa_pem(RSA.serialize_pem().as_bytes()).unwrap();
    let secret = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let public = verifier(KeySet::from_pem(RSA.public_key_pem().as_bytes()).unwrap());
    let only_rs256 = verifier(jwks(&[jwk(&RSA, "k1")]).keys);
    let token = |key, algorithm| {
        let header = jsonwebtoken::Header { kid: None, ..jsonwebtoken::Header::new(algorithm) };
        jsonwebtoken::encode(&header, &claims(), key).unwrap()
    };
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        assert!(public.verify(&token(&rsa, algorithm), NOW).is_ok(), "{algorithm:?}");
        assert_eq!(only_rs256.verify(&token(&rsa, algorithm), NOW).is_ok(), algorithm == RS256, "{algorithm:?}");
    }
    for algorithm in [HS256, HS384, HS512] {
        assert!(secret_verifier().verify(&token(&secret, algorithm), NOW).is_ok(), "{algorithm:?}");
        assert_eq!(fault(&public, &token(&secret, algorithm)), TokenFault::NoKeyForAlgorithm);
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    let public = verifier(KeySet::from_pem(RSA.public_key_pem().as_bytes()).unwrap());
    for forged_with in [
        RSA.public_key_pem().into_bytes(),
        rcgen::PublicKeyData::subject_public_key_info(&*RSA),
        RSA.public_key_raw().to_vec(),
    ] {
        let key = jsonwebtoken::EncodingKey::from_secret(&forged_with);
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims(), &key).unwrap();
        assert_eq!(fault(&public, &token), TokenFault::NoKeyForAlgorithm);
    }
    assert_eq!(KeySet::from_secret(RSA.public_key_pem().as_bytes()), Err(KeyError::SecretIsPem));
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let payload = claims().to_string();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS1", "RSA1_5", "ES512"] {
        let token = signed_raw(&json!({ "alg": alg }).to_string(), payload.as_bytes());
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        for token in [token, unsigned] {
            assert_eq!(fault(&secret_verifier(), &token), TokenFault::Algorithm, "{alg}");
        }
    }
    let unsigned = format!("{}.", signed(&claims()).rsplit_once('.').unwrap().0);
    assert_eq!(fault(&secret_verifier(), &unsigned), TokenFault::Signature);
}

#[test]
fn a_token_signed_with_the_wrong_key_is_refused() {
    let token = SigningKey::from_secret(&[7; 32]).unwrap().sign(&claims()).unwrap();
    let error = secret_verifier().verify(&token, NOW).unwrap_err();
    assert_eq!((error.fault(), error.org()), (TokenFault::Signature, None));
}

#[test]
fn a_changed_payload_is_refused() {
    let token = signed(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    let forged = URL_SAFE_NO_PAD.encode(with(json!({ "org": "org_2" })).to_string());
    assert_eq!(fault(&secret_verifier(), &format!("{}.{forged}.{}", parts[0], parts[2])), TokenFault::Signature);
}

#[test]
fn times_are_judged_by_the_given_now_and_the_leeway() {
    let verifier = secret_verifier();
    let exp = |exp: u64| signed(&with(json!({ "exp": exp })));
    assert!(verifier.verify(&exp(NOW - 29), NOW).is_ok());
    assert_eq!(fault(&verifier, &exp(NOW - 30)), TokenFault::Expired);
    for name in ["nbf", "iat"] {
        assert!(verifier.verify(&signed(&with(json!({ name: NOW + 30 }))), NOW).is_ok());
        assert_eq!(
            fault_of(json!({ name: NOW + 31 })),
            TokenFault::NotYetValid(if name == "nbf" { "nbf" } else { "iat" })
        );
    }
}

#[test]
fn hostile_times_neither_overflow_nor_pass() {
    use TokenFault::{BadTime, Expired, NoExpiry, NotYetValid};
    let table = [
        (json!({ "exp": "absent" }), NoExpiry),
        (json!({ "exp": null }), BadTime("exp")),
        (json!({ "exp": "1900000000" }), BadTime("exp")),
        (json!({ "exp": [NOW + 60] }), BadTime("exp")),
        (json!({ "exp": true }), BadTime("exp")),
        (json!({ "exp": 0 }), Expired),
        (json!({ "exp": -1 }), Expired),
        (json!({ "exp": i64::MIN }), Expired),
        (json!({ "exp": -1e300 }), Expired),
        (json!({ "exp": 0.5 }), Expired),
        (json!({ "exp": u64::MAX }), BadTime("exp")),
        (json!({ "exp": 1e300 }), BadTime("exp")),
        (json!({ "exp": (NOW + 60) * 1000 }), BadTime("exp")),
        (json!({ "nbf": u64::MAX }), NotYetValid("nbf")),
        (json!({ "nbf": 1e300 }), NotYetValid("nbf")),
        (json!({ "nbf": "soon" }), BadTime("nbf")),
        (json!({ "iat": u64::MAX }), NotYetValid("iat")),
        (json!({ "iat": {} }), BadTime("iat")),
    ];
    for (changes, expected) in table {
        assert_eq!(fault_of(changes.clone()), expected, "{changes}");
    }
    let fraction = signed(&with(json!({ "exp": NOW as f64 + 60.9, "nbf": -5.5, "iat": 0 })));
    assert_eq!(secret_verifier().verify(&fraction, NOW).unwrap().expires_at(), NOW + 90);
    assert_eq!(secret_verifier().verify(&signed(&claims()), u64::MAX).unwrap_err().fault(), Expired);
    let huge = signed_raw(r#"{"alg":"HS256"}"#, br#"{"exp":1e999,"org":"o"}"#);
    assert_eq!(fault(&secret_verifier(), &huge), TokenFault::Malformed);
}

#[test]
fn issuer_and_audience_must_be_ours() {
    for issuer in [json!("absent"), json!(null), json!("https://issuer.example"), json!(["https://issuer.example/"])] {
        assert_eq!(fault_of(json!({ "iss": issuer })), TokenFault::Issuer, "{issuer}");
    }
    for audience in
        [json!("absent"), json!(null), json!("Partywall"), json!([]), json!(["a", 1]), json!({ "partywall": 1 })]
    {
        assert_eq!(fault_of(json!({ "aud": audience })), TokenFault::Audience, "{audience}");
    }
    for audience in [json!("other"), json!(["x", "partywall"])] {
        assert!(secret_verifier().verify(&signed(&with(json!({ "aud": audience }))), NOW).is_ok(), "{audience}");
    }
    let lax = TokenRules { issuer: None, audience: Vec::new(), leeway_s: 0, claims: names() };
    let lax = Verifier::new(lax, KeySet::from_secret(SECRET).unwrap());
    assert!(lax.verify(&signed(&with(json!({ "iss": 5, "aud": "whoever" }))), NOW).is_ok());
}

#[test]
fn hostile_organizations_are_refused() {
    assert_eq!(fault_of(json!({ "org": "absent" })), TokenFault::NoOrganization);
    assert_eq!(fault_of(json!({ "org": null })), TokenFault::NoOrganization);
    for wrong in [json!(["org_1"]), json!({ "id": "org_1" }), json!(true), json!(1.5), json!(-1)] {
        assert_eq!(fault_of(json!({ "org": wrong })), TokenFault::BadClaim("organization"), "{wrong}");
    }
    let hostile = ["", "a b", "a'--", "a\0", "a\n", "ä", "org_1;", "a\"", "../x", "a%", "\u{202e}a", &"x".repeat(65)];
    for org in hostile {
        assert!(matches!(fault_of(json!({ "org": org })), TokenFault::BadOrganization(_)), "{org:?}");
    }
}

#[test]
fn claims_out_of_bounds_refuse_the_token() {
    let many: Vec<String> = (0..65).map(|number| format!("r{number}")).collect();
    for (name, wrong) in [
        ("sub", json!("a\nb")),
        ("sub", json!("a\0")),
        ("sub", json!("\u{85}")),
        ("sub", json!("x".repeat(257))),
        ("sub", json!(["alice"])),
        ("project", json!({})),
        ("tier", json!(true)),
        ("jti", json!("\u{7f}")),
        ("roles", json!(many)),
        ("roles", json!(many.join(" "))),
        ("roles", json!(["a,admin"])),
        ("roles", json!(["a\n"])),
        ("roles", json!(["x".repeat(129)])),
        ("roles", json!([1])),
        ("roles", json!([["admin"]])),
        ("roles", json!({ "admin": true })),
        ("permissions", json!(7)),
    ] {
        let what = if name == "sub" { "user" } else { name };
        assert!(
            matches!(fault_of(json!({ name: wrong })), TokenFault::BadClaim(said) if said == what),
            "{name} {wrong}"
        );
    }
}

#[test]
fn absent_claims_are_absent_and_lists_have_no_repeats() {
    let bare =
        signed(&json!({ "iss": "https://issuer.example/", "aud": "partywall", "exp": NOW + 1, "org": 42, "sub": "" }));
    let identity = secret_verifier().verify(&bare, NOW).unwrap();
    assert_eq!(identity.org().as_str(), "42");
    assert!(identity.user().is_none() && identity.project().is_none() && identity.tier().is_none());
    assert!(identity.roles().is_empty() && identity.permissions().is_empty() && identity.jti().is_none());
    let lists = signed(&with(json!({ "roles": "a, b  a,,c", "permissions": ["Project Manager", "x", "x", ""] })));
    let identity = secret_verifier().verify(&lists, NOW).unwrap();
    assert_eq!(identity.roles(), ["a".into(), "b".into(), "c".into()]);
    assert_eq!(identity.permissions(), ["Project Manager".into(), "x".into()]);
}

#[test]
fn claims_are_found_by_json_pointer() {
    let claims = ClaimNames {
        organization: "/o/id".to_owned(),
        user: "https://x.example/user".to_owned(),
        roles: "/realm~1access/ro~0les".to_owned(),
        permissions: "/list/1".to_owned(),
        ..names()
    };
    let rules = TokenRules { issuer: None, audience: Vec::new(), leeway_s: 0, claims };
    let verifier = Verifier::new(rules, KeySet::from_secret(SECRET).unwrap());
    let token = signed(&json!({
        "exp": NOW + 1, "o": { "id": "org_9" }, "https://x.example/user": "bob",
        "realm/access": { "ro~les": ["r"] }, "list": ["no", "yes"],
    }));
    let identity = verifier.verify(&token, NOW).unwrap();
    assert_eq!((identity.org().as_str(), identity.user().unwrap().as_str()), ("org_9", "bob"));
    assert_eq!((identity.roles(), identity.permissions()), (&["r".into()][..], &["yes".into()][..]));
    assert_eq!(fault(&verifier, &signed(&json!({ "exp": NOW + 1, "o": "org_9" }))), TokenFault::NoOrganization);
}

#[test]
fn what_is_not_a_token_is_refused() {
    let good = signed(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let header = r#"{"alg":"HS256"}"#;
    let mut table: Vec<String> =
        ["", ".", "..", "...", "a.b.c", "hunter2", "é.ü.ä", "\0.\0.\0", " "].map(String::from).into();
    table.extend([
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{}", parts[2]),
        format!("{} .{}.{}", parts[0], parts[1], parts[2]),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}\0.{}.{}", parts[0], parts[1], parts[2]),
        signed_raw("[]", b"{}"),
        signed_raw(header, b"[]"),
        signed_raw(header, b"\"org_1\""),
        signed_raw(header, b""),
        signed_raw(header, b"{\"exp\":1"),
        signed_raw(header, b"{} {}"),
        signed_raw(header, b"{\"org\":\"\xff\xfe\"}"),
        signed_raw(header, br#"{"org":"a","org":"b"}"#),
        signed_raw(header, br#"{"exp":1,"deep":{"x":1,"x":2}}"#),
        signed_raw(header, br#"{"org":"a","\u006frg":"b"}"#),
        signed_raw(r#"{"alg":"HS256","alg":"none"}"#, b"{}"),
        signed_raw(r#"{"alg":"HS256","kid":1}"#, b"{}"),
        signed_raw(header, format!("{{\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200)).as_bytes()),
    ]);
    for token in table {
        assert_eq!(fault(&secret_verifier(), &token), TokenFault::Malformed, "{token:?}");
    }
    let crit = signed_raw(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, claims().to_string().as_bytes());
    assert_eq!(fault(&secret_verifier(), &crit), TokenFault::CriticalExtension);
}

#[test]
fn a_long_token_is_refused_before_it_is_read() {
    let long = signed(&with(json!({ "padding": "x".repeat(17 * 1024) })));
    assert_eq!(fault(&secret_verifier(), &long), TokenFault::TooLong);
    let short = signed(&with(json!({ "padding": "x".repeat(11 * 1024) })));
    assert!(short.len() <= TOKEN_BYTES_MAX && secret_verifier().verify(&short, NOW).is_ok());
}

#[test]
fn keys_carried_by_the_token_are_not_looked_at() {
    let key = SigningKey::from_pem(P256.serialize_pem().as_bytes()).unwrap();
    let token = key.sign(&claims()).unwrap();
    let (_, payload_and_signature) = token.split_once('.').unwrap();
    let header = json!({ "alg": "ES256", "jwk": jwk(&P256, "k1"), "jku": "https://evil.example/" }).to_string();
    let token = format!("{}.{payload_and_signature}", URL_SAFE_NO_PAD.encode(header));
    let verifier = verifier(jwks(&[jwk(&KeyPair::generate().unwrap(), "k1")]).keys);
    assert_eq!(fault(&verifier, &token), TokenFault::Signature);
}

#[test]
fn the_kid_chooses_the_key_and_an_unknown_one_asks_for_a_refresh() {
    let [old, new] = [0, 1].map(|_| KeyPair::generate().unwrap());
    let token = |pair: &KeyPair, id: &str| {
        SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap().named(id).sign(&claims()).unwrap()
    };
    let before = verifier(jwks(&[jwk(&old, "old")]).keys);
    let both = verifier(jwks(&[jwk(&old, "old"), jwk(&new, "new")]).keys);
    let after = verifier(jwks(&[jwk(&new, "new")]).keys);
    assert!(before.verify(&token(&old, "old"), NOW).is_ok());
    let unknown = before.verify(&token(&new, "new"), NOW).unwrap_err();
    assert!(unknown.fault() == TokenFault::UnknownKey && unknown.wants_refresh());
    assert!(both.verify(&token(&old, "old"), NOW).is_ok() && both.verify(&token(&new, "new"), NOW).is_ok());
    // The name binds: the right signature under another key's name is no signature.
    assert_eq!(fault(&both, &token(&new, "old")), TokenFault::Signature);
    assert_eq!(fault(&after, &token(&old, "old")), TokenFault::UnknownKey);
    // A key without a name of its own answers to any.
    let nameless = verifier(KeySet::from_pem(new.public_key_pem().as_bytes()).unwrap());
    assert!(nameless.verify(&token(&new, "whatever"), NOW).is_ok());
}

#[test]
fn a_hostile_token_costs_at_most_sixteen_signatures() {
    let pairs: Vec<KeyPair> = (0..17).map(|_| KeyPair::generate().unwrap()).collect();
    let keys: Vec<Value> = pairs.iter().enumerate().map(|(place, pair)| jwk(pair, &format!("k{place}"))).collect();
    let verifier = verifier(jwks(&keys).keys);
    let nameless =
        |pair: &KeyPair| SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap().sign(&claims()).unwrap();
    assert!(verifier.verify(&nameless(&pairs[15]), NOW).is_ok());
    assert_eq!(fault(&verifier, &nameless(&pairs[16])), TokenFault::Signature);
}

#[test]
fn a_remembered_token_is_forgotten_when_it_expires_and_when_keys_change() {
    let verifier = secret_verifier();
    let token = signed(&claims());
    assert_eq!(verifier.remembered(&token, NOW), None);
    let identity = verifier.verify(&token, NOW).unwrap();
    assert_eq!(verifier.remembered(&token, NOW), Some(identity));
    assert!(verifier.verify(&token, NOW + 89).is_ok());
    assert_eq!(verifier.verify(&token, NOW + 90).unwrap_err().fault(), TokenFault::Expired);
    assert_eq!(verifier.remembered(&token, NOW), None);
    let replaced = Verifier::new(verifier.rules().clone(), KeySet::from_secret(&[7; 32]).unwrap());
    assert_eq!(fault(&replaced, &token), TokenFault::Signature);
}

#[test]
fn a_refused_token_with_a_good_signature_names_its_organization_and_the_client_hears_one_sentence() {
    let verifier = secret_verifier();
    let expired = verifier.verify(&signed(&with(json!({ "exp": 5 }))), NOW).unwrap_err();
    assert_eq!(expired.org().unwrap().as_str(), "org_1");
    let garbage = verifier.verify("garbage", NOW).unwrap_err();
    assert_eq!(garbage.org(), None);
    assert_eq!(expired.refusal(), garbage.refusal());
    assert_eq!(
        (garbage.refusal().kind(), garbage.refusal().message()),
        (Kind::InvalidToken, "invalid or expired token")
    );
    assert_ne!(expired.why(), garbage.why());
}

#[test]
fn weak_and_misplaced_keys_are_refused() {
    assert_eq!(KeySet::from_secret(&[7; 31]), Err(KeyError::SecretTooShort(31)));
    assert_eq!(KeySet::from_secret(b""), Err(KeyError::SecretTooShort(0)));
    assert_eq!(KeySet::from_pem(b""), Err(KeyError::NotPem));
    assert_eq!(KeySet::from_pem(b"0123456789abcdef"), Err(KeyError::NotPem));
    assert_eq!(KeySet::from_pem(&vec![b'x'; KEY_FILE_BYTES_MAX + 1]), Err(KeyError::TooLarge));
    assert_eq!(KeySet::from_pem(RSA.serialize_pem().as_bytes()), Err(KeyError::Private));
    let damaged = RSA.public_key_pem().replacen("MII", "MIA", 1);
    assert_eq!(KeySet::from_pem(damaged.as_bytes()), Err(KeyError::Damaged));
    let public = P256.public_key_pem();
    let many: String = (0..=KEYS_MAX).map(|_| public.as_str()).collect();
    assert_eq!(KeySet::from_pem(many.as_bytes()), Err(KeyError::TooMany));
    assert_eq!(KeySet::from_pem(&many.as_bytes()[..public.len() * 3]).unwrap().len(), 3);
}

#[test]
fn small_and_strange_rsa_keys_are_refused() {
    let modulus = |bits: usize| {
        let mut bytes = vec![0xff; bits / 8];
        bytes.insert(0, 0);
        bytes
    };
    let e = [1, 0, 1];
    assert_eq!(Key::from_rsa(&modulus(1024), &e), Err(KeyError::RsaBits(1024)));
    assert_eq!(Key::from_rsa(&modulus(2040), &e), Err(KeyError::RsaBits(2040)));
    assert!(Key::from_rsa(&modulus(2048), &e).is_ok());
    assert_eq!(Key::from_rsa(&modulus(8200), &e), Err(KeyError::RsaBits(8200)));
    assert_eq!(Key::from_rsa(&[], &e), Err(KeyError::RsaBits(0)));
    let mut even = modulus(2048);
    even[256] = 0xfe;
    assert_eq!(Key::from_rsa(&even, &e), Err(KeyError::Damaged));
    for exponent in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
        assert_eq!(Key::from_rsa(&modulus(2048), exponent), Err(KeyError::Damaged), "{exponent:?}");
    }
}

#[test]
fn a_jwks_document_gives_its_signature_keys_and_says_what_it_left_out() {
    let with = |name: &str, value: Value| {
        let mut key = jwk(&P256, "k");
        key[name] = value;
        key
    };
    let bad = [
        json!("text"),
        json!({}),
        json!({ "kty": "unheard-of" }),
        json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET) }),
        json!({ "kty": "OKP", "crv": "X25519", "x": URL_SAFE_NO_PAD.encode([9; 32]) }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }),
        json!({ "kty": "RSA", "n": "____", "e": "AQAB" }),
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("HS256")),
        with("alg", json!("ES384")),
        with("alg", json!(5)),
        with("crv", json!("P-384")),
        with("crv", json!("secp256k1")),
        with("x", json!("not base64!")),
        with("x", json!(URL_SAFE_NO_PAD.encode([1; 32]))),
        with("y", json!(URL_SAFE_NO_PAD.encode([1; 31]))),
        with("kid", json!(5)),
        with("kid", json!("x".repeat(257))),
    ];
    for one in &bad {
        let document = json!({ "keys": [one] }).to_string();
        assert_eq!(KeySet::from_jwks(document.as_bytes()).unwrap_err(), KeyError::NoUsableKey, "{one}");
    }
    let mut members = bad.to_vec();
    members.extend([jwk(&P256, "a"), with("key_ops", json!(["verify"])), with("alg", json!("ES256"))]);
    let read = jwks(&members);
    assert_eq!((read.keys.len(), read.left_out.len()), (3, bad.len()));
    assert_eq!(read.left_out[2], "key 3 of 22: the key is neither RSA, P-256, P-384 nor Ed25519");
}

#[test]
fn what_is_not_a_jwks_document_is_refused() {
    for garbage in ["", "{}", "[]", "<html>", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "{\"keys\":[]} x"] {
        assert_eq!(KeySet::from_jwks(garbage.as_bytes()).unwrap_err(), KeyError::NotJwks, "{garbage}");
    }
    assert_eq!(KeySet::from_jwks(br#"{"keys":[]}"#).unwrap_err(), KeyError::NoUsableKey);
    assert_eq!(KeySet::from_jwks(&vec![b' '; KEY_FILE_BYTES_MAX + 1]).unwrap_err(), KeyError::TooLarge);
    let many = json!({ "keys": vec![jwk(&P256, "k"); KEYS_MAX + 1] }).to_string();
    assert_eq!(KeySet::from_jwks(many.as_bytes()).unwrap_err(), KeyError::TooMany);
}

#[test]
fn key_sets_are_equal_when_their_keys_are() {
    let set = |id| jwks(&[jwk(&P256, id)]).keys;
    assert_eq!(set("a"), set("a"));
    assert_ne!(set("a"), set("b"));
    assert_ne!(set("a"), jwks(&[jwk(&KeyPair::generate().unwrap(), "a")]).keys);
    assert_ne!(KeySet::from_secret(SECRET), KeySet::from_secret(&[7; 32]));
    assert_eq!(KeySet::join([&set("a"), &set("b")]).len(), 2);
}

#[test]
fn a_minted_token_passes_the_rules_it_was_minted_for() {
    let grant = Grant {
        org: "org_1".to_owned(),
        user: Some("alice".to_owned()),
        roles: vec!["admin".to_owned()],
        ttl_s: 60,
        ..Grant::default()
    };
    let mut rules = TokenRules { claims: names(), ..rules() };
    rules.claims.organization = "/o~1/id".to_owned();
    rules.claims.roles = "/o~1/roles".to_owned();
    let key = SigningKey::from_secret(SECRET).unwrap();
    let token = key.mint(&grant, &rules, NOW).unwrap();
    let identity = Verifier::new(rules.clone(), KeySet::from_secret(SECRET).unwrap()).verify(&token, NOW).unwrap();
    assert_eq!((identity.org().as_str(), identity.roles()), ("org_1", &["admin".into()][..]));
    rules.claims.roles = "/o~1/id/roles".to_owned();
    assert_eq!(key.mint(&grant, &rules, NOW), Err(mint::MintError::Claim("/o~1/id/roles".to_owned())));
}

#[test]
fn what_cannot_sign_is_refused() {
    for pem in [RSA.public_key_pem(), P256.public_key_pem(), "garbage".to_owned(), String::new()] {
        assert_eq!(SigningKey::from_pem(pem.as_bytes()).unwrap_err(), mint::MintError::PrivateKey);
    }
    assert!(matches!(SigningKey::from_secret(b"short"), Err(mint::MintError::Secret(_))));
}

#[test]
fn neither_secrets_nor_tokens_print_themselves() {
    let verifier = secret_verifier();
    let token = signed(&claims());
    let printed = format!(
        "{verifier:?} {:?} {:?} {:?}",
        SigningKey::from_secret(SECRET).unwrap(),
        verifier.verify(&token, NOW).unwrap(),
        verifier.verify(&format!("{token}x"), NOW).unwrap_err(),
    );
    for secret in ["0123456789abcdef", "48, 49, 50", token.split('.').nth(1).unwrap()] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

proptest::proptest! {
    #[test]
    fn no_token_makes_the_verifier_panic(token in "\\PC{0,80}", header in ".{0,40}", payload: Vec<u8>) {
        let verifier = secret_verifier();
        let signed = [signed_raw(&header, &payload), signed_raw(r#"{"alg":"HS256"}"#, &payload)];
        for token in signed.iter().chain([&token]) {
            proptest::prop_assert!(verifier.verify(token, NOW).is_err());
        }
    }

    #[test]
    fn no_number_as_time_makes_the_verifier_panic(exp: f64, nbf: i64, iat: u64, now: u64, leeway_s: u64) {
        let rules = TokenRules { leeway_s, ..rules() };
        let verifier = Verifier::new(rules, KeySet::from_secret(SECRET).unwrap());
        let _ = verifier.verify(&signed(&with(json!({ "exp": exp, "nbf": nbf, "iat": iat }))), now);
        let _ = verifier.verify(&signed(&with(json!({ "exp": iat, "nbf": exp, "iat": nbf }))), now);
    }

    #[test]
    fn no_key_file_makes_the_reader_panic(bytes: Vec<u8>, text in "-----BEGIN (PUBLIC KEY|CERTIFICATE)-----\n[A-Za-z0-9+/]{0,80}\n-----END (PUBLIC KEY|CERTIFICATE)-----\n") {
        proptest::prop_assert!(KeySet::from_pem(&bytes).is_err());
        proptest::prop_assert!(KeySet::from_pem(text.as_bytes()).is_err());
        proptest::prop_assert!(KeySet::from_jwks(&bytes).is_err());
    }
}
