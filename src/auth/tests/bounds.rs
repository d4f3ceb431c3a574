//! Tests: keys that may speak for one issuer, one audience, some organizations; and realms that try to be another.

use std::collections::BTreeSet;

use super::*;
use crate::config::KeyBounds;
use crate::ids::{OrgId, OrgIdType};

const PLATFORM: &str = "https://id.platform.example";
const CUSTOMER: &str = "https://login.customer.example/realms/main";

fn bounds(issuer: Option<&str>, audience: &[&str], organizations: Option<&[&str]>) -> KeyBounds {
    KeyBounds {
        issuer: issuer.map(str::to_owned),
        audience: audience.iter().map(|&name| name.to_owned()).collect(),
        organizations: organizations
            .map(|names| names.iter().map(|name| OrgId::new(name).unwrap()).collect::<BTreeSet<_>>()),
    }
}

fn joined(sources: &[(KeySet, KeyBounds)]) -> Verifier {
    let keys = KeySet::join_bound(sources.iter().map(|(keys, bounds)| (keys, bounds)));
    Verifier::new(TokenRules { claims: names(), leeway_s: 30, ..TokenRules::default() }, keys)
}

fn by(pair: &KeyPair, id: &str, changes: Value) -> String {
    let key = SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap().named(id);
    key.sign(&with(changes)).unwrap()
}

/// Two realms whose keys have the same name: the platform's for all, a customer's for its own organization.
fn two_realms() -> ([KeyPair; 2], Verifier) {
    let pairs = [0, 1].map(|_| KeyPair::generate().unwrap());
    let [platform, customer] = &pairs;
    let verifier = joined(&[
        (jwks(&[jwk(customer, "1")]).keys, bounds(Some(CUSTOMER), &["partywall"], Some(&["acme"]))),
        (jwks(&[jwk(platform, "1")]).keys, bounds(Some(PLATFORM), &["partywall"], None)),
    ]);
    (pairs, verifier)
}

#[test]
fn a_key_bound_to_organizations_never_speaks_for_another() {
    let ([platform, customer], verifier) = two_realms();
    let of = |pair, issuer: &str, org: &str| by(pair, "1", json!({ "iss": issuer, "org": org }));
    for org in ["acme", "globex"] {
        assert_eq!(verifier.verify(&of(&platform, PLATFORM, org), NOW).unwrap().org().as_str(), org);
    }
    assert_eq!(verifier.verify(&of(&customer, CUSTOMER, "acme"), NOW).unwrap().org().as_str(), "acme");
    for org in ["globex", "Acme", "acme2"] {
        let error = verifier.verify(&of(&customer, CUSTOMER, org), NOW).unwrap_err();
        // Nobody's logins grow slow, and nobody's audit trail long, by what another realm signs.
        assert_eq!((error.fault(), error.org()), (TokenFault::ForeignOrganization, None), "{org}");
        assert_eq!(error.refusal(), TokenError::unexplained());
    }
    let expired = by(&customer, "1", json!({ "iss": CUSTOMER, "org": "globex", "exp": 5 }));
    let error = verifier.verify(&expired, NOW).unwrap_err();
    assert_eq!((error.fault(), error.org()), (TokenFault::Expired, None));
    let several = by(&customer, "1", json!({ "iss": CUSTOMER, "org": ["acme", "globex"] }));
    assert_eq!(verifier.verify_for(&several, "acme", NOW).unwrap().org().as_str(), "acme");
    assert_eq!(verifier.verify_for(&several, "globex", NOW).unwrap_err().fault(), TokenFault::ForeignOrganization);
    assert!(verifier.remembered(&several, "globex", NOW).is_none());
}

#[test]
fn a_realm_cannot_pass_for_another_issuer() {
    let ([platform, customer], verifier) = two_realms();
    let of = |pair, issuer: Value| fault(&verifier, &by(pair, "1", json!({ "iss": issuer, "org": "acme" })));
    // The customer's key under the platform's name, and the other way round.
    assert_eq!(of(&customer, json!(PLATFORM)), TokenFault::Signature);
    assert_eq!(of(&platform, json!(CUSTOMER)), TokenFault::Signature);
    for other in
        [json!("absent"), json!(null), json!("https://evil.example"), json!([CUSTOMER]), json!(format!("{CUSTOMER}/"))]
    {
        assert_eq!(of(&customer, other.clone()), TokenFault::Issuer, "{other}");
    }
    // A member twice could be read in two ways, so it is not read at all.
    let pem = customer.serialize_pem();
    let payload =
        format!(r#"{{"iss":"{CUSTOMER}","iss":"{PLATFORM}","aud":"partywall","exp":{},"org":"globex"}}"#, NOW + 60);
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"1"}"#), URL_SAFE_NO_PAD.encode(payload));
    let key = jsonwebtoken::EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::ES256).unwrap();
    assert_eq!(fault(&verifier, &format!("{signed}.{signature}")), TokenFault::Malformed);
}

#[test]
fn each_key_has_its_own_audience_or_that_of_all() {
    let [own, common] = [0, 1].map(|_| KeyPair::generate().unwrap());
    let keys = KeySet::join_bound([
        (&jwks(&[jwk(&own, "own")]).keys, &bounds(None, &["special"], None)),
        (&jwks(&[jwk(&common, "common")]).keys, &KeyBounds::default()),
    ]);
    let rules = TokenRules { claims: names(), ..rules() };
    let verifier = Verifier::new(rules, keys);
    let of = |pair, id, aud: &str| verifier.verify(&by(pair, id, json!({ "aud": aud })), NOW).err().map(|e| e.fault());
    assert_eq!((of(&own, "own", "special"), of(&common, "common", "partywall")), (None, None));
    assert_eq!(of(&own, "own", "partywall"), Some(TokenFault::Audience));
    assert_eq!(of(&common, "common", "special"), Some(TokenFault::Audience));
    // The issuer of all holds for keys without one of their own.
    assert_eq!(fault(&verifier, &by(&own, "own", json!({ "aud": "special", "iss": PLATFORM }))), TokenFault::Issuer);
}

#[test]
fn one_key_in_two_places_speaks_for_whom_either_lets_it() {
    let set = || jwks(&[jwk(&P256, "k")]).keys;
    let verifier =
        joined(&[(set(), bounds(None, &[], Some(&["acme"]))), (set(), bounds(None, &["x"], Some(&["globex"])))]);
    let of = |org: &str, aud: &str| verifier.verify(&by(&P256, "k", json!({ "org": org, "aud": aud })), NOW).is_ok();
    assert!(of("acme", "y") && of("globex", "x") && !of("globex", "y") && !of("initech", "x"));
}

#[test]
fn a_secret_of_one_realm_is_no_secret_of_another() {
    // The customer's public key is known to all: it must not be a secret under the platform's name.
    let customer = KeyPair::generate().unwrap();
    let secret = KeySet::from_secret(SECRET).unwrap();
    let verifier = joined(&[
        (secret, bounds(Some(PLATFORM), &[], None)),
        (jwks(&[jwk(&customer, "1")]).keys, bounds(Some(CUSTOMER), &[], Some(&["acme"]))),
    ]);
    let forged = |secret: &[u8], issuer: &str| {
        let header = jsonwebtoken::Header { kid: Some("1".to_owned()), ..jsonwebtoken::Header::default() };
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&header, &with(json!({ "iss": issuer, "org": "acme" })), &key).unwrap()
    };
    for public in [customer.public_key_pem().into_bytes(), customer.public_key_raw().to_vec()] {
        // The secret has no name, so a fresher key set might have the key: refused all the same.
        assert_eq!(fault(&verifier, &forged(&public, PLATFORM)), TokenFault::UnknownKey);
        assert_eq!(fault(&verifier, &forged(&public, CUSTOMER)), TokenFault::NoKeyForAlgorithm);
    }
    assert!(verifier.verify(&forged(SECRET, PLATFORM), NOW).is_ok());
    assert_eq!(fault(&verifier, &forged(SECRET, CUSTOMER)), TokenFault::NoKeyForAlgorithm);
}

#[test]
fn no_realm_can_fill_its_key_set_so_that_anothers_keys_are_never_tried() {
    let platform = KeyPair::generate().unwrap();
    let crowd: Vec<Value> = (0..KEYS_MAX).map(|_| jwk(&P256, "1")).collect();
    let nameless: Vec<Value> = crowd
        .iter()
        .cloned()
        .map(|mut key| {
            key["kid"] = Value::Null;
            key
        })
        .collect();
    for crowd in [crowd, nameless] {
        // Without issuers, so that nothing but the order helps.
        let verifier = joined(&[
            (jwks(&crowd).keys, bounds(None, &[], Some(&["acme"]))),
            (jwks(&[jwk(&platform, "1")]).keys, KeyBounds::default()),
        ]);
        assert!(verifier.verify(&by(&platform, "1", json!({ "org": "globex" })), NOW).is_ok());
        let bare = SigningKey::from_pem(platform.serialize_pem().as_bytes()).unwrap().sign(&claims()).unwrap();
        assert!(verifier.verify(&bare, NOW).is_ok());
    }
}

#[test]
fn a_hundred_realms_with_nameless_keys_are_told_apart_by_their_issuers() {
    let pairs: Vec<KeyPair> = (0..100).map(|_| KeyPair::generate().unwrap()).collect();
    let issuer = |place: usize| format!("https://{place}.example");
    let sources: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(place, pair)| {
            let keys = KeySet::from_pem(pair.public_key_pem().as_bytes()).unwrap();
            (keys, bounds(Some(&issuer(place)), &[], Some(&[&format!("org_{place}")])))
        })
        .collect();
    let verifier = joined(&sources);
    for place in [0, 17, 99] {
        let good = by(&pairs[place], "whatever", json!({ "iss": issuer(place), "org": format!("org_{place}") }));
        assert!(verifier.verify(&good, NOW).is_ok(), "{place}");
        let other = by(&pairs[place], "whatever", json!({ "iss": issuer(place), "org": "org_1" }));
        assert_eq!(fault(&verifier, &other), TokenFault::ForeignOrganization);
    }
}

#[test]
fn bounds_hold_in_every_spelling_of_an_organization() {
    let upper = "3F0C9A52-0000-4000-8000-0000000000AB";
    let lower = upper.to_ascii_lowercase();
    let of_type = |kind: OrgIdType, bound: &str| {
        let organizations = Some([OrgId::of_type(bound, kind).unwrap()].into());
        let keys = KeySet::from_secret(SECRET).unwrap();
        let keys = KeySet::join_bound([(&keys, &KeyBounds { organizations, ..KeyBounds::default() })]);
        Verifier::new(TokenRules { organization_type: kind, ..TokenRules::default() }, keys)
    };
    let org = |verifier: &Verifier, org: Value| {
        verifier.verify(&signed(&with(json!({ "org": org }))), NOW).map(|identity| identity.org().to_string())
    };
    let uuids = of_type(OrgIdType::Uuid, upper);
    for spelling in [upper, &lower, &upper.replace('-', "")] {
        assert_eq!(org(&uuids, json!(spelling)).as_ref(), Ok(&lower), "{spelling}");
    }
    assert_eq!(org(&of_type(OrgIdType::Auto, &lower), json!(upper)).as_ref(), Ok(&lower));
    let numbers = of_type(OrgIdType::Bigint, "7");
    for spelling in [json!("7"), json!("07"), json!(7), json!(["7", "007"])] {
        assert_eq!(org(&numbers, spelling.clone()).as_deref(), Ok("7"), "{spelling}");
    }
    assert_eq!(org(&numbers, json!("8")).unwrap_err().fault(), TokenFault::ForeignOrganization);
    assert!(matches!(org(&numbers, json!("acme")).unwrap_err().fault(), TokenFault::BadOrganization(_)));
    assert_eq!(org(&of_type(OrgIdType::Auto, "7"), json!("07")).unwrap_err().fault(), TokenFault::ForeignOrganization);
}
