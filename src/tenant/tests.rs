//! Tests of the directory through its face.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::auth::fixture::{identity, identity_of_type};
use crate::config::Sources;

const KEY: &str = "[[auth.keys]]\ntype = \"hs256\"\nenv = \"JWT_KEY\"\n";

fn shard(name: &str, weight: u32) -> String {
    format!("[[shards]]\nname = \"{name}\"\nhost = \"h\"\ndatabase = \"app_{name}\"\nuser = \"u\"\nweight = {weight}\n")
}

fn directory(text: &str) -> Directory {
    // A table of `[auth]` comes before its lists.
    let (shards, auth) = text.split_once("[auth]\n").unwrap_or((text, ""));
    let (auth, rest) = auth.split_once('\n').unwrap_or((auth, ""));
    let auth = if auth.is_empty() { String::new() } else { format!("[auth]\n{auth}\n") };
    let main = (PathBuf::from("partywall.toml"), format!("{auth}{KEY}{shards}{rest}"));
    let config = Config::check(&Sources { main, tiers: None, guard: None });
    Directory::new(&config.unwrap_or_else(|faults| panic!("{faults}")))
}

fn org(name: &str) -> OrgId {
    OrgId::new(name).unwrap()
}

fn admit(directory: &Directory, name: &str, database: &str) -> Result<Tenant, Refusal> {
    directory.admit(&identity(json!({ "org": name })), database)
}

#[test]
fn a_suspended_organization_is_refused() {
    let directory = directory(&(shard("a", 1) + "[organizations.org_1]\nstatus = \"suspended\"\n"));
    let refusal = admit(&directory, "org_1", "").unwrap_err();
    assert_eq!(refusal.kind(), Kind::OrganizationSuspended);
    assert!(admit(&directory, "org_2", "").is_ok());
}

#[test]
fn an_unknown_organization_is_admitted_unless_the_file_says_otherwise() {
    let open = directory(&shard("a", 1));
    let tenant = admit(&open, "org_1", "").unwrap();
    assert_eq!((tenant.org().as_str(), tenant.tier().name.as_str()), ("org_1", "starter"));
    assert_eq!((tenant.shard().as_str(), tenant.isolation()), ("a", Isolation::Row));
    let text = shard("a", 1) + "[directory]\nunknown_organizations = \"refuse\"\n[organizations.org_1]\n";
    let closed = directory(&text);
    assert!(admit(&closed, "org_1", "").is_ok());
    assert_eq!(admit(&closed, "org_2", "").unwrap_err().kind(), Kind::OrganizationSuspended);
}

#[test]
fn an_own_tier_wins_over_the_tokens_and_that_over_the_default() {
    let directory = directory(&(shard("a", 1) + "[organizations.org_1]\ntier = \"professional\"\n"));
    let tier = |name: &str, claims: serde_json::Value| {
        let mut claims = claims;
        claims["org"] = name.into();
        directory.admit(&identity(claims), "").unwrap().tier().name.to_string()
    };
    assert_eq!(tier("org_1", json!({ "tier": "enterprise" })), "professional");
    assert_eq!(tier("org_2", json!({ "tier": "enterprise" })), "enterprise");
    assert_eq!(tier("org_2", json!({ "tier": "golden" })), "starter");
    assert_eq!(tier("org_2", json!({})), "starter");
}

#[test]
fn an_own_shard_wins_over_a_range_and_that_over_the_hash() {
    let ranges = "[[sharding.ranges]]\nfrom = \"org_1\"\nto = \"org_10\"\nshard = \"b\"\n";
    let own = "[organizations.org_2]\nshard = \"c\"\n";
    let text = shard("a", 1) + &shard("b", 0) + &shard("c", 0) + ranges + own;
    let directory = directory(&text);
    for (name, expected) in [("org_1", "b"), ("org_2", "c"), ("org_9", "b"), ("org_10", "b"), ("org_11", "a")] {
        assert_eq!(directory.shard_of(&org(name)).map(ShardName::as_str), Some(expected), "{name}");
        assert_eq!(admit(&directory, name, "").unwrap().shard().as_str(), expected, "{name}");
    }
}

#[test]
fn a_database_is_the_organizations_own_or_none() {
    let text = shard("a", 1) + &shard("b", 0) + "[organizations.org_2]\nshard = \"b\"\n";
    let directory = directory(&text);
    for good in ["", "org_1", "app_a"] {
        assert!(admit(&directory, "org_1", good).is_ok(), "{good}");
    }
    // Of somebody else, of another shard, of nobody: the very same words.
    let refusals = ["org_2", "app_b", "nothing", "postgres"].map(|bad| admit(&directory, "org_1", bad).unwrap_err());
    for refusal in &refusals {
        assert_eq!(refusal.kind(), Kind::UnknownDatabase);
        assert_eq!(Some(refusal), refusals.first());
        assert!(!format!("{refusal:?}").contains("app_"), "{refusal:?}");
        // An honest user learns a name that works: libpq has no way to leave the database out.
        assert!(refusal.hint().is_some_and(|hint| hint.contains("\"org_1\"")), "{refusal:?}");
    }
}

#[test]
fn placement_by_hash_is_the_same_for_ever() {
    // Data lies where these say: a change here moves organizations away from their rows.
    let directory = directory(&["shard_1", "shard_2", "shard_3"].map(|name| shard(name, 1)).concat());
    let places = ["org_1", "org_2", "org_3", "org_4", "acme", "3f0c9a52-0000-4000-8000-000000000000"]
        .map(|name| directory.shard_of(&org(name)).map(|shard| shard.to_string()).unwrap_or_default());
    assert_eq!(places, ["shard_1", "shard_3", "shard_3", "shard_1", "shard_3", "shard_1"]);
    let other_order = self::directory(&["shard_3", "shard_1", "shard_2"].map(|name| shard(name, 1)).concat());
    for nth in 0..1000 {
        let org = org(&format!("org_{nth}"));
        assert_eq!(directory.shard_of(&org), other_order.shard_of(&org), "{org}");
    }
}

#[test]
fn weights_share_organizations_out() {
    let directory = directory(&(shard("light", 1) + &shard("heavy", 3) + &shard("none", 0)));
    let heavy = (0..10_000).filter(|nth| {
        let shard = directory.shard_of(&org(&format!("org_{nth}"))).map(|shard| shard.to_string());
        assert_ne!(shard.as_deref(), Some("none"));
        shard.as_deref() == Some("heavy")
    });
    let heavy = heavy.count();
    assert!((6700..8300).contains(&heavy), "{heavy} of 10000");
}

/// What a login of each organization hears: its canonical name, or the SQLSTATE and the words.
fn heard(directory: &Directory, kind: &str, names: &[&str]) -> Vec<String> {
    let kind = if kind == "bigint" { OrgIdType::Bigint } else { OrgIdType::Auto };
    let one = |name: &&str| {
        let identity = identity_of_type(json!({ "org": name }), kind);
        match directory.admit(&identity, "") {
            Ok(tenant) => tenant.org().to_string(),
            Err(refusal) => format!("{} {}", refusal.sqlstate(), refusal.message()),
        }
    };
    names.iter().map(one).collect()
}

const UUID: &str = "3f0c9a52-0000-4000-8000-0000000000ab";

#[test]
fn a_suspended_organization_is_suspended_in_every_spelling() {
    let suspended = "28000 this organization is suspended";
    let upper = UUID.to_ascii_uppercase();
    let plain = UUID.replace('-', "");
    let table: [(&str, &str, Vec<&str>); 5] = [
        ("auto", "7", vec!["7", "07", "-0x7", "0x7", "0b111", "7.0", "0_7", "70e-1"]),
        ("auto", UUID, vec![UUID, &upper, &plain]),
        ("auto", &upper, vec![UUID, &upper, &plain]),
        ("auto", "acme", vec!["acme", "ACME"]),
        ("bigint", "07", vec!["7", "07", "007"]),
    ];
    for (kind, named, spellings) in table {
        let own =
            format!("[auth]\norganization_type = \"{kind}\"\n[organizations.\"{named}\"]\nstatus = \"suspended\"\n");
        let directory = directory(&(shard("a", 1) + &own));
        for (spelling, heard) in spellings.iter().zip(heard(&directory, kind, &spellings)) {
            if *spelling == "-0x7" {
                assert_eq!(heard, "28000 this organization is not known here by this spelling of its name");
            } else {
                assert_eq!(heard, suspended, "{named} as {spelling}");
            }
        }
    }
}

#[test]
fn two_spellings_are_never_two_organizations() {
    let odd = "28000 this organization is not known here by this spelling of its name";
    let numbers = directory(&(shard("a", 1) + "[auth]\norganization_type = \"bigint\"\n"));
    assert_eq!(heard(&numbers, "bigint", &["7", "07", "-07"]), ["7", "7", "-7"]);
    // Whoever has not said what the column is has one spelling served, and the others refused.
    let unsaid = directory(&shard("a", 1));
    let names = ["7", "07", "0x7", "acme", "org_07", &UUID.to_ascii_uppercase(), &UUID.replace('-', "")];
    assert_eq!(heard(&unsaid, "auto", &names), ["7", odd, odd, "acme", "org_07", UUID, odd]);
    // One that the file names is known by that name, and no longer by the others.
    let named = directory(&(shard("a", 1) + "[organizations.\"07\"]\n[organizations.Acme]\n"));
    assert_eq!(heard(&named, "auto", &["07", "7", "Acme", "acme", "globex"]), ["07", odd, "Acme", odd, "globex"]);
    let text = directory(&(shard("a", 1) + "[auth]\norganization_type = \"text\"\n[organizations.\"7\"]\n"));
    assert_eq!(heard(&text, "auto", &["7", "07", "Acme"]), ["7", "07", "Acme"]);
}

#[test]
fn spellings_of_one_organization_live_in_one_place_and_ask_for_one_database() {
    let text = shard("a", 1) + &shard("b", 1) + "[auth]\norganization_type = \"bigint\"\n";
    let directory = directory(&text);
    for number in 0..50 {
        let admitted = |name: &str| {
            let identity = identity_of_type(json!({ "org": name }), OrgIdType::Bigint);
            directory.admit(&identity, &format!("0{number}")).unwrap()
        };
        assert_eq!(admitted(&format!("{number}")), admitted(&format!("000{number}")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_new_shard_takes_its_share_and_moves_nobody_else(count in 1_usize..8, salt in "[a-z]{1,8}") {
        let names: Vec<_> = (0..=count).map(|nth| shard(&format!("{salt}_{nth}"), 1)).collect();
        let before = directory(&names[..count].concat());
        let after = directory(&names.concat());
        let newcomer = format!("{salt}_{count}");
        let total = 4000_usize;
        let mut moved = 0_usize;
        for nth in 0..total {
            let org = org(&format!("org_{nth}"));
            if before.shard_of(&org) != after.shard_of(&org) {
                prop_assert_eq!(after.shard_of(&org).map(ShardName::as_str), Some(newcomer.as_str()));
                moved += 1;
            }
        }
        let share = total / (count + 1);
        prop_assert!((share / 2..share * 3 / 2).contains(&moved), "{} of {} moved to one of {}", moved, total, count + 1);
    }
}
