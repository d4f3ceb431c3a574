//! Tests: which keys are taken, and what each verifies.

use rcgen::CertificateParams;

use super::super::mint::Grant;
use super::*;

#[test]
fn every_kind_of_private_key_signs_and_its_public_key_verifies_by_pem_certificate_and_jwks() {
    let others = [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_ECDSA_P521_SHA512]
        .map(|kind| KeyPair::generate_for(kind).unwrap());
    for pair in [&*RSA, &*P256, &others[0], &others[1], &others[2]] {
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
        let error = KeySet::from_jwks(document.as_bytes()).unwrap_err();
        assert!(matches!(&error, KeyError::NoUsableKey(left_out) if left_out.len() == 1), "{one}: {error}");
    }
    let mut members = bad.to_vec();
    members.extend([jwk(&P256, "a"), with("key_ops", json!(["verify"])), with("alg", json!("ES256"))]);
    let read = jwks(&members);
    assert_eq!((read.keys.len(), read.left_out.len()), (3, bad.len()));
    assert_eq!(read.left_out[2], "key 3 of 22: the key is neither RSA, P-256, P-384, P-521 nor Ed25519");
}

#[test]
fn what_is_not_a_jwks_document_is_refused() {
    for garbage in ["", "{}", "[]", "<html>", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "{\"keys\":[]} x"] {
        assert_eq!(KeySet::from_jwks(garbage.as_bytes()).unwrap_err(), KeyError::NotJwks, "{garbage}");
    }
    assert_eq!(KeySet::from_jwks(br#"{"keys":[]}"#).unwrap_err(), KeyError::NoUsableKey(Vec::new()));
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
fn a_jwks_document_without_a_usable_key_says_why_of_each() {
    let oct = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET) });
    let encryption = json!({ "kty": "RSA", "use": "enc" });
    let words = |keys: Vec<Value>| KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap_err();
    let error = words(vec![oct.clone(), encryption]).to_string();
    assert_eq!(
        error,
        "there is no usable signature key in it: key 1 of 2: the key is neither RSA, P-256, P-384, P-521 nor Ed25519; \
         key 2 of 2: it is not for signatures"
    );
    assert_eq!(words(vec![]).to_string(), "there is no usable signature key in it (it is empty)");
    let many = words(vec![oct; KEYS_MAX]).to_string();
    assert!(many.ends_with("; and 92 more") && many.len() < 1000, "{many}");
}

#[test]
fn a_p521_key_verifies_es512_alone_and_no_other_key_does() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let token = SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap().sign(&claims()).unwrap();
    assert!(URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap().starts_with(br#"{"alg":"ES512""#));
    let own = verifier(jwks(&[jwk(&pair, "k")]).keys);
    assert!(own.verify(&token, NOW).is_ok());
    let other = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    assert_eq!(fault(&verifier(jwks(&[jwk(&other, "k")]).keys), &token), TokenFault::Signature);
    let p256 = SigningKey::from_pem(P256.serialize_pem().as_bytes()).unwrap().sign(&claims()).unwrap();
    assert_eq!(fault(&own, &p256), TokenFault::NoKeyForAlgorithm);
    // The name says ES512, the key is P-256: the key decides.
    let payload = token.split('.').nth(1).unwrap();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES512"}"#);
    let renamed = format!("{header}.{payload}.{}", p256.rsplit_once('.').unwrap().1);
    assert_eq!(fault(&verifier(jwks(&[jwk(&P256, "k")]).keys), &renamed), TokenFault::NoKeyForAlgorithm);
    let mut wrong = jwk(&pair, "k");
    wrong["x"] = URL_SAFE_NO_PAD.encode([1; 65]).into();
    let error = KeySet::from_jwks(json!({ "keys": [wrong] }).to_string().as_bytes()).unwrap_err();
    assert_eq!(error, KeyError::NoUsableKey(vec!["key 1 of 1: the key is damaged".to_owned()]));
}

#[test]
fn a_minted_token_is_read_by_paths_that_branch() {
    let claims = ClaimNames {
        organization: "/organization/{key}".to_owned(),
        roles: "/roles/{key}/{organization}".to_owned(),
        permissions: "/organization/{organization}/permissions".to_owned(),
        ..names()
    };
    let rules = TokenRules { claims, ..TokenRules::default() };
    let grant = Grant {
        org: "acme".to_owned(),
        roles: vec!["admin".to_owned(), "viewer".to_owned()],
        permissions: vec!["read:*".to_owned()],
        ttl_s: 60,
        ..Grant::default()
    };
    let token = SigningKey::from_secret(SECRET).unwrap().mint(&grant, &rules, NOW).unwrap();
    let identity = Verifier::new(rules, KeySet::from_secret(SECRET).unwrap()).verify(&token, NOW).unwrap();
    assert_eq!((identity.org().as_str(), identity.roles().len(), identity.permissions().len()), ("acme", 2, 1));
}

#[test]
fn a_token_without_a_key_id_is_tried_with_so_many_keys() {
    let pairs: Vec<_> = (0..17).map(|_| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()).collect();
    let named: Vec<_> = pairs.iter().enumerate().map(|(at, pair)| jwk(pair, &format!("k{at}"))).collect();
    let all = verifier(jwks(&named).keys);
    let token =
        |pair: &KeyPair| SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap().sign(&claims()).unwrap();
    assert!(all.verify(&token(&pairs[15]), NOW).is_ok());
    assert_eq!(fault(&all, &token(&pairs[16])), TokenFault::Signature);
}
