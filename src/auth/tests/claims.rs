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
        (json!({ "exp": null }), NoExpiry),
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
    let lax = TokenRules { claims: names(), ..TokenRules::default() };
    let lax = Verifier::new(lax, KeySet::from_secret(SECRET).unwrap());
    assert!(lax.verify(&signed(&with(json!({ "iss": 5, "aud": "whoever" }))), NOW).is_ok());
}

#[test]
fn hostile_organizations_are_refused() {
    assert_eq!(fault_of(json!({ "org": "absent" })), TokenFault::NoOrganization);
    assert_eq!(fault_of(json!({ "org": null })), TokenFault::NoOrganization);
    for wrong in [json!([true]), json!({ "id": "org_1" }), json!(true), json!(1.5), json!(-1)] {
        assert_eq!(fault_of(json!({ "org": wrong })), TokenFault::BadClaim("organization"), "{wrong}");
    }
    let hostile = ["", "a b", "a'--", "a\0", "a\n", "ä", "org_1;", "a\"", "../x", "a%", "\u{202e}a", &"x".repeat(65)];
    for org in hostile {
        assert!(matches!(fault_of(json!({ "org": org })), TokenFault::BadOrganization(_)), "{org:?}");
    }
}

#[test]
fn claims_that_say_who_it_is_and_are_out_of_bounds_refuse_the_token() {
    for (name, wrong) in [
        ("sub", json!("a\nb")),
        ("sub", json!("a\0")),
        ("sub", json!("\u{85}")),
        ("sub", json!("x".repeat(257))),
        ("sub", json!(["alice"])),
        ("sub", json!({ "alice": {} })),
        ("jti", json!("\u{7f}")),
    ] {
        let what = if name == "sub" { "user" } else { name };
        assert!(
            matches!(fault_of(json!({ name: wrong })), TokenFault::BadClaim(said) if said == what),
            "{name} {wrong}"
        );
    }
}

/// The identity of a token with these changes.
fn identity(changes: Value) -> Identity {
    secret_verifier().verify(&signed(&with(changes.clone())), NOW).unwrap_or_else(|error| panic!("{changes}: {error}"))
}

fn roles(claim: Value) -> (Vec<String>, Vec<String>) {
    let identity = identity(json!({ "roles": claim }));
    let left = identity.left_out().iter().map(LeftOut::to_string).collect();
    (identity.roles().iter().map(|role| role.to_string()).collect(), left)
}

#[test]
fn roles_are_read_in_every_shape_in_which_providers_send_them() {
    let table = [
        (json!("a b,c"), vec!["a", "b", "c"]),
        (json!(["CN=DB Admins,OU=Groups", "admin"]), vec!["CN=DB Admins,OU=Groups", "admin"]),
        (json!("CN=DB Admins,OU=Groups"), vec!["CN=DB Admins,OU=Groups"]),
        (json!("CN=x,admin"), vec!["CN=x,admin"]),
        (json!(["/org/team a/sub"]), vec!["/org/team a/sub"]),
        (json!({ "admin": { "2345": "example.org" }, "viewer": { "2345": "example.org" } }), vec!["admin", "viewer"]),
        (json!({ "admin": true, "viewer": {} }), vec!["admin", "viewer"]),
        (json!([{ "name": "admin", "owner": "built-in" }, { "name": "viewer" }]), vec!["admin", "viewer"]),
        (json!([7, "x"]), vec!["7", "x"]),
        (json!(r#"["admin", "the viewer"]"#), vec!["admin", "the viewer"]),
        (json!(r#" {"admin": {"2345": "example.org"}} "#), vec!["admin"]),
        (json!("[admin]"), vec!["[admin]"]),
        (json!(null), vec![]),
        (json!([]), vec![]),
        (json!({}), vec![]),
        (json!(["x", "x", "", "y"]), vec!["x", "y"]),
    ];
    for (claim, expected) in table {
        assert_eq!(roles(claim.clone()), (expected.iter().map(|role| role.to_string()).collect(), vec![]), "{claim}");
    }
}

#[test]
fn an_odd_role_or_permission_is_left_out_and_told_and_refuses_nobody() {
    let table = [
        (json!(["admin", "a\nb"]), "1 of roles: with a control character"),
        (json!(["a\0", "admin"]), "1 of roles: with a control character"),
        (json!(["admin", "\u{85}", "\u{7f}"]), "2 of roles: with a control character"),
        (json!(["x".repeat(257), "admin"]), "1 of roles: longer than 256 bytes"),
        (json!(["admin", ["viewer"], null, true]), "3 of roles: not a text"),
        (json!(["admin", { "id": "viewer" }, { "name": 5 }]), "2 of roles: not a text"),
        (json!([1.5, "admin", -1]), "2 of roles: not a text"),
        (json!({ "admin": {}, "viewer": false, "owner": null }), "2 of roles: false or null"),
        (json!(["admin", r#"["viewer", "\u0000"]"#, "\t"]), "1 of roles: with a control character"),
    ];
    for (claim, told) in table {
        let (read, left) = roles(claim.clone());
        assert!(read.contains(&"admin".to_owned()) && !read.contains(&"viewer".to_owned()), "{claim}: {read:?}");
        assert_eq!(left, [told], "{claim}");
    }
    let identity = identity(json!({ "permissions": ["read:*", "a\nb"] }));
    assert_eq!(identity.permissions(), ["read:*".into()]);
    assert_eq!(
        identity.left_out().iter().map(LeftOut::to_string).collect::<Vec<_>>(),
        ["1 of permissions: with a control character"]
    );
}

#[test]
fn as_many_groups_as_providers_send_are_read_and_no_more_than_the_bound() {
    let groups = |count: usize| (0..count).map(|n| format!("{n:08}-0000")).collect::<Vec<_>>();
    assert_eq!(roles(json!(groups(200))).0.len(), 200);
    for claim in [json!(groups(300)), json!(groups(300).join(" "))] {
        let (read, left) = roles(claim);
        assert_eq!((read, left), (groups(256), vec!["44 of roles: too many: 256 are read".to_owned()]));
    }
}

#[test]
fn what_was_left_out_is_not_taken_for_nothing_said() {
    // A token that says nothing of roles has the default rights; one whose only role could not be read has not.
    let bare = |claim: Value| identity(json!({ "permissions": "absent", "roles": claim })).is_bare();
    assert!(bare(json!("absent")) && bare(json!([])) && bare(json!(null)));
    for claim in [json!(["a\n"]), json!({ "admin": false }), json!(true), json!([["x"]]), json!(["x"])] {
        assert!(!bare(claim.clone()), "{claim}");
    }
}

#[test]
fn a_claim_that_nobody_mapped_refuses_nobody() {
    let odd = json!({ "name": "gold" });
    let identity = identity(json!({ "tier": odd, "project": odd }));
    assert!(identity.tier().is_none() && identity.project().is_none());
    assert_eq!(
        identity.left_out().iter().map(LeftOut::to_string).collect::<Vec<_>>(),
        ["1 of tier: not a text", "1 of project: not a text"]
    );
    // One that the operator has mapped narrows what the session sees: then it must be good.
    let claims = ClaimNames { project: "workspace".to_owned(), ..names() };
    let verifier = Verifier::new(TokenRules { claims, ..TokenRules::default() }, KeySet::from_secret(SECRET).unwrap());
    assert_eq!(fault(&verifier, &signed(&with(json!({ "workspace": odd })))), TokenFault::BadClaim("project"));
}

#[test]
fn null_times_are_absent_ones() {
    assert!(secret_verifier().verify(&signed(&with(json!({ "nbf": null, "iat": null }))), NOW).is_ok());
}

#[test]
fn each_reason_is_told_once() {
    let verifier = secret_verifier();
    let tell = |claim: Value| {
        let identity = verifier.verify(&signed(&with(json!({ "roles": claim }))), NOW).unwrap();
        verifier.untold(&identity).len()
    };
    assert_eq!(
        (tell(json!(["a\n"])), tell(json!(["b\n", "c\n"])), tell(json!([true, "d\n"])), tell(json!(["ok"]))),
        (1, 0, 1, 0)
    );
}

#[test]
fn a_role_with_commas_never_reads_as_two() {
    let list = |names: &[&str]| names.iter().map(|&name| name.into()).collect::<Vec<Box<str>>>();
    let dn = "CN=DB Admins,OU=Groups";
    assert_eq!(joined(&list(&["viewer", dn, "50%"])), "viewer,CN=DB Admins%2COU=Groups,50%25");
    assert_eq!(joined(&list(&["x,admin"])), "x%2Cadmin");
    assert_ne!(joined(&list(&["x%2Cy"])), joined(&list(&["x,y"])));
    assert_eq!(joined(&list(&[])), "");
}

#[test]
fn an_organization_is_one_text_or_the_only_one_of_a_list_or_map() {
    for (claim, expected) in [
        (json!({ "acme": { "id": "42c3e46f" } }), "acme"),
        (json!({ "acme": {} }), "acme"),
        (json!(["acme"]), "acme"),
        (json!(["acme", "acme"]), "acme"),
        (json!(r#"{"acme": {"id": "42c3e46f"}}"#), "acme"),
        (json!(7), "7"),
    ] {
        assert_eq!(identity(json!({ "org": claim })).org().as_str(), expected, "{claim}");
    }
    // A record of one organization is no map of them: its keys would be the same organization for everybody.
    for claim in [json!({ "id": "acme" }), json!({ "id": "acme", "groups": {} }), json!({ "acme": true }), json!({})] {
        assert_eq!(fault_of(json!({ "org": claim })), TokenFault::BadClaim("organization"), "{claim}");
    }
    assert_eq!(fault_of(json!({ "org": [] })), TokenFault::NoOrganization);
    assert_eq!(fault_of(json!({ "org": [["acme"]] })), TokenFault::BadClaim("organization"));
}

#[test]
fn of_several_organizations_the_database_chooses_one_that_the_token_holds() {
    let verifier = secret_verifier();
    for claim in [json!({ "acme": { "id": "1" }, "globex": { "id": "2" } }), json!(["acme", "globex"])] {
        let token = signed(&with(json!({ "org": claim })));
        // Twice, so that what is remembered of one database is not taken for another.
        for _ in 0..2 {
            for database in ["acme", "globex"] {
                assert_eq!(verifier.verify_for(&token, database, NOW).unwrap().org().as_str(), database);
                assert_eq!(verifier.remembered(&token, database, NOW).unwrap().org().as_str(), database);
            }
            for database in ["", "initech", "id", "app", "acme\0", "Acme"] {
                let error = verifier.verify_for(&token, database, NOW).unwrap_err();
                assert_eq!(error.fault(), TokenFault::SeveralOrganizations, "{database}");
                assert_eq!(error.refusal().sqlstate(), "3D000");
                assert!(verifier.remembered(&token, database, NOW).is_none());
            }
        }
    }
    // A name that cannot be an organization leaves it open which is meant; it does not make the other the only one.
    assert_eq!(fault_of(json!({ "org": ["acme", "we ird"] })), TokenFault::SeveralOrganizations);
    // A database chooses nothing where there is nothing to choose.
    let one = signed(&with(json!({ "org": "acme" })));
    assert_eq!(verifier.verify_for(&one, "globex", NOW).unwrap().org().as_str(), "acme");
}

#[test]
fn paths_branch_and_know_the_organization() {
    let claims = ClaimNames {
        organization: "/organization/{key}".to_owned(),
        roles: "/roles/{key}/{organization}".to_owned(),
        permissions: "/organization/{organization}/groups".to_owned(),
        project: "/organization/{organization}/project/id".to_owned(),
        tier: "/plans/*/name".to_owned(),
        ..names()
    };
    let verifier = Verifier::new(TokenRules { claims, ..TokenRules::default() }, KeySet::from_secret(SECRET).unwrap());
    let token = signed(&json!({
        "exp": NOW + 1,
        "organization": { "acme": { "groups": ["a"], "project": "{\"id\": \"p\"}" }, "globex": { "groups": ["g"] } },
        "roles": { "admin": { "globex": "globex.example" }, "viewer": { "acme": "acme.example" }, "both": { "acme": 1, "globex": 1 } },
        "plans": [{ "name": "gold" }],
    }));
    let acme = verifier.verify_for(&token, "acme", NOW).unwrap();
    // The administrator of another organization is none here.
    assert_eq!((acme.roles(), acme.permissions()), (&["both".into(), "viewer".into()][..], &["a".into()][..]));
    assert_eq!((acme.project(), acme.tier().unwrap().as_str()), (Some("p"), "gold"));
    let globex = verifier.verify_for(&token, "globex", NOW).unwrap();
    assert_eq!((globex.roles(), globex.permissions()), (&["admin".into(), "both".into()][..], &["g".into()][..]));
    assert_eq!(fault(&verifier, &token), TokenFault::SeveralOrganizations);
}

#[test]
fn json_in_texts_is_neither_a_bomb_nor_a_second_reading() {
    let wrap = |value: Value, times: usize| (0..times).fold(value, |value, _| json!(json!({ "x": value }).to_string()));
    let claims = ClaimNames { roles: "/roles/x/x/x/x/x".to_owned(), ..names() };
    let verifier = Verifier::new(TokenRules { claims, ..TokenRules::default() }, KeySet::from_secret(SECRET).unwrap());
    let read = |roles: Value| verifier.verify(&signed(&with(json!({ "roles": roles }))), NOW).unwrap().roles().len();
    assert_eq!(read(json!({ "x": { "x": { "x": wrap(json!(["a"]), 2) } } })), 1);
    assert_eq!(read(json!({ "x": { "x": wrap(json!(["a"]), 3) } })), 0, "three texts within one another are not read");
    let deep = format!("{}1{}", "[".repeat(4000), "]".repeat(4000));
    for bomb in [json!(deep), json!([deep]), json!(format!("{{\"a\":{deep}}}"))] {
        assert!(secret_verifier().verify(&signed(&with(json!({ "roles": bomb }))), NOW).is_ok());
        let no = secret_verifier().verify(&signed(&with(json!({ "org": bomb }))), NOW).unwrap_err();
        assert!(matches!(no.fault(), TokenFault::BadOrganization(_)), "{no}");
    }
    // Two readers could understand two things: such a text is no JSON.
    let twice = json!(r#"{"acme": {}, "acme": {}}"#);
    assert!(matches!(fault_of(json!({ "org": twice })), TokenFault::BadOrganization(_)));
    // The user is what the issuer wrote, even where that looks like something else.
    assert_eq!(identity(json!({ "sub": "[\"a\"]" })).user().unwrap().as_str(), "[\"a\"]");
}

#[test]
fn a_token_without_an_audience_is_for_the_client_that_it_was_issued_to() {
    let fault =
        |changes: Value| secret_verifier().verify(&signed(&with(changes)), NOW).err().map(|error| error.fault());
    for ours in [json!({ "aud": "absent", "client_id": "partywall" }), json!({ "aud": null, "azp": "partywall" })] {
        assert_eq!(fault(ours.clone()), None, "{ours}");
    }
    for other in [
        json!({ "aud": "absent", "client_id": "else" }),
        json!({ "aud": "absent", "client_id": "else", "azp": "partywall" }),
        json!({ "aud": "absent", "azp": ["partywall"] }),
        // An audience decides, whoever the token was issued to.
        json!({ "aud": "else", "client_id": "partywall", "azp": "partywall" }),
        json!({ "aud": [], "client_id": "partywall" }),
    ] {
        assert_eq!(fault(other.clone()), Some(TokenFault::Audience), "{other}");
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
    let rules = TokenRules { claims, ..TokenRules::default() };
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
