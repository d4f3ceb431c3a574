//! Tests: the token as such: its form, its signature, what is remembered and what is told of it.

use super::*;
use crate::refusal::Kind;

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
fn a_token_without_a_signature_is_refused() {
    let payload = claims().to_string();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS1", "RSA1_5", "ES256K"] {
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
        format!("{}===.{}.{}", parts[0], parts[1], parts[2]),
        format!("=.{}.{}", parts[1], parts[2]),
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
fn a_remembered_token_is_forgotten_when_it_expires_and_when_keys_change() {
    let verifier = secret_verifier();
    let token = signed(&claims());
    assert_eq!(verifier.remembered(&token, "", NOW), None);
    let identity = verifier.verify(&token, NOW).unwrap();
    assert_eq!(verifier.remembered(&token, "", NOW), Some(identity));
    assert!(verifier.verify(&token, NOW + 89).is_ok());
    assert_eq!(verifier.verify(&token, NOW + 90).unwrap_err().fault(), TokenFault::Expired);
    assert_eq!(verifier.remembered(&token, "", NOW), None);
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

#[test]
fn parts_in_base64url_with_padding_are_read_where_the_signature_is_over_them() {
    use base64::engine::general_purpose::URL_SAFE;
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let mut padded = 0;
    for filler in ["", "x", "xx"] {
        let payload = URL_SAFE.encode(with(json!({ "filler": filler })).to_string());
        let signed = format!("{}.{payload}", URL_SAFE.encode(r#"{"alg":"HS256","typ":"JWT"}"#));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
        padded += usize::from(payload.ends_with('='));
        assert!(secret_verifier().verify(&format!("{signed}.{signature}="), NOW).is_ok(), "{filler}");
        let stripped = format!("{}.{signature}", signed.replace('=', ""));
        let changed = stripped != format!("{signed}.{signature}");
        assert_eq!(secret_verifier().verify(&stripped, NOW).is_err(), changed, "the signature is over what was sent");
    }
    assert!(padded > 0);
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let token = SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap().sign(&claims()).unwrap();
    assert!(verifier(jwks(&[jwk(&pair, "k")]).keys).verify(&token, NOW).is_ok());
}

#[test]
fn a_null_kid_is_no_kid() {
    let token = signed_raw(r#"{"alg":"HS256","kid":null}"#, claims().to_string().as_bytes());
    assert!(secret_verifier().verify(&token, NOW).is_ok());
}

#[test]
fn a_client_whose_token_is_too_long_hears_the_bound() {
    let refusal = secret_verifier().verify(&"x".repeat(TOKEN_BYTES_MAX + 1), NOW).unwrap_err().refusal();
    assert_eq!((refusal.kind(), refusal.sqlstate()), (Kind::ProtocolViolation, "08P01"));
    assert_eq!(refusal.message(), "the token is longer than 16384 bytes, the most that is accepted");
}
