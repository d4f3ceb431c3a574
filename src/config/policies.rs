//! The two policy files: tiers, and what roles and permissions give.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::places::plain_name;
use super::policy::{GuardPolicy, Right, Tier, Tiers};
use super::table::{Amount, Table};
use crate::ids::TierName;

const UNLIMITED: (&str, Amount) = ("unlimited", Amount::Unlimited);
const DEDICATED: (&str, Amount) = ("dedicated", Amount::Dedicated);
const RIGHTS: [(&str, Right); 3] = [("read", Right::Read), ("write", Right::Write), ("ddl", Right::Ddl)];
const MEGABYTE: u64 = 1 << 20;
const GIGABYTE: u64 = 1 << 30;
/// The longest time-out that PostgreSQL can hold, in whole seconds: it counts milliseconds in 31 bits.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(2_147_483);
const TIMEOUT_S: std::ops::RangeInclusive<u64> = 1..=LONGEST_TIMEOUT.as_secs();
/// A transaction may last as long as so many of the longest statements, where its tier does not say.
const STATEMENTS_OF_A_TRANSACTION: u32 = 10;

/// Reads a tiers file. The default is always one of the tiers, unless a fault was noted.
pub(super) fn tiers(root: &Table<'_>) -> Tiers {
    let table = root.table("tiers");
    let mut tiers = BTreeMap::new();
    for (name, table) in table.named_tables() {
        if let Err(wrong) = plain_name(&name) {
            table.fault_here(wrong);
        }
        let tier = tier(TierName::new(name), &table);
        tiers.insert(tier.name.clone(), Arc::new(tier));
    }
    root.require("tiers", "at least one [tiers.NAME]");
    root.require("default", "the tier of organizations that have none of their own");
    let default = TierName::new(root.text("default").unwrap_or_default());
    if root.has("default") && root.has("tiers") && root.sound(&["default", "tiers"]) && !tiers.contains_key(&default) {
        root.fault("default", format!("there is no tier `{default}` ({})", names(tiers.keys())));
    }
    root.close();
    Tiers { default, tiers }
}

fn tier(name: TierName, table: &Table<'_>) -> Tier {
    let default = Tier::default();
    let cores = table.amount("cpu_cores", 1..=4096, &[UNLIMITED, DEDICATED]);
    let memory = table.amount("memory_gb", 1..=1_000_000, &[UNLIMITED, DEDICATED]);
    let small = u64::from(u32::MAX);
    let count = |key, default| limit(table.amount(key, 1..=small, &[UNLIMITED]), default, narrow);
    let size = |key, unit, default| limit(table.amount(key, 1..=1_000_000_000, &[UNLIMITED]), default, |n| n * unit);
    let query_timeout = table.seconds("query_timeout_seconds", TIMEOUT_S).unwrap_or(default.query_timeout);
    let tier = Tier {
        name,
        max_concurrent_queries: count("max_concurrent_queries", default.max_concurrent_queries),
        query_timeout,
        max_transaction: table.seconds("max_transaction_s", TIMEOUT_S).unwrap_or_else(|| {
            default.max_transaction.max(query_timeout * STATEMENTS_OF_A_TRANSACTION).min(LONGEST_TIMEOUT)
        }),
        idle_transaction: table.seconds("idle_transaction_s", TIMEOUT_S).or(default.idle_transaction),
        max_result_bytes: size("max_result_size_mb", MEGABYTE, default.max_result_bytes),
        max_client_connections: count("max_client_connections", default.max_client_connections),
        max_queued_queries: table
            .number("max_queued_queries", 1..=1_000_000)
            .map_or(default.max_queued_queries, narrow),
        query_wait_timeout: table.seconds("query_wait_timeout_s", 1..=3600).or(default.query_wait_timeout),
        max_pins: limit(table.amount("max_pins", 0..=small, &[UNLIMITED]), default.max_pins, narrow),
        weight: table.number("priority", 1..=1000).map_or(default.weight, narrow),
        storage_quota_bytes: size("storage_quota_gb", GIGABYTE, default.storage_quota_bytes),
        cpu_cores: limit(cores, default.cpu_cores, narrow),
        memory_bytes: limit(memory, default.memory_bytes, |n| n * GIGABYTE),
        dedicated: [cores, memory].contains(&Some(Amount::Dedicated)),
    };
    table.close();
    tier
}

/// What an amount limits: a number, or nothing.
fn limit<T>(amount: Option<Amount>, default: Option<T>, make: impl FnOnce(u64) -> T) -> Option<T> {
    match amount {
        Some(Amount::Number(number)) => Some(make(number)),
        Some(Amount::Unlimited | Amount::Dedicated) => None,
        None => default,
    }
}

/// A number whose range was checked when it was read.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Reads a guard file. What it does not give, nobody has.
pub(super) fn guard(root: &Table<'_>) -> GuardPolicy {
    let default = GuardPolicy::default();
    let roles = root.table("roles").named_words(&RIGHTS);
    let table = root.table("permissions");
    let permissions = table.named_words(&RIGHTS);
    for (name, _) in &permissions {
        if !name.split_once(':').is_some_and(|(verb, relation)| !verb.is_empty() && !relation.is_empty()) {
            table.fault_at(name, "not a permission (verb:relation; `*` is every relation)");
        }
    }
    let table = root.table("defaults");
    let default_rights = table.words("rights", &RIGHTS).unwrap_or(default.default_rights);
    table.close();
    root.close();
    GuardPolicy {
        roles: roles.into_iter().collect(),
        permissions: permissions.into_iter().collect(),
        default_rights,
        statement_bytes_max: default.statement_bytes_max,
        copy_from: default.copy_from,
    }
}

/// Names for a fault's "what is allowed".
pub(super) fn names<T: std::fmt::Display>(names: impl Iterator<Item = T>) -> String {
    const SHOWN_MAX: usize = 12;
    let mut all: Vec<String> = names.take(SHOWN_MAX + 1).map(|name| name.to_string()).collect();
    if all.is_empty() {
        return "there is none".to_owned();
    }
    if all.len() > SHOWN_MAX {
        all.truncate(SHOWN_MAX);
        all.push("…".to_owned());
    }
    all.join(" | ")
}
