//! Tests of the directory through its face.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::auth::fixture::identity;
use crate::config::Sources;

const KEY: &str = "[[auth.keys]]\ntype = \"hs256\"\nenv = \"JWT_KEY\"\n";

fn shard(name: &str, weight: u32) -> String {
    format!("[[shards]]\nname = \"{name}\"\nhost = \"h\"\ndatabase = \"app_{name}\"\nuser = \"u\"\nweight = {weight}\n")
}

fn directory(text: &str) -> Directory {
    let main = (PathBuf::from("partywall.toml"), format!("{KEY}{text}"));
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
