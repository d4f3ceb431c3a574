//! Tests: what a token that is rightly signed may say.

use super::*;

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
