//! Shards, and which organizations live on which: the part of the main file whose keys must agree with one another.

use std::collections::{BTreeMap, BTreeSet};

use super::housing::Housing;
use super::meant::{
    DirectoryConfig, Host, Isolation, Organization, Pool, Range, Shard, Sharding, ShardingMethod, Status, TlsMode,
    UnknownOrganizations,
};
use super::natural::natural_order;
use super::page::Need;
use super::policies::names;
use super::policy::Tiers;
use super::sections::NAME_BYTES_MAX;
use super::sections::POOL_MODES;
use super::table::Table;
use crate::ids::{OrgId, OrgIdType, ShardName, TierName};

/// More databases than one proxy process can hold connections to.
const SHARDS_MAX: usize = 1024;

/// Shards, ranges and organizations, with the tables that they were read from.
pub(super) struct Places {
    pub(super) shards: Vec<Shard>,
    pub(super) sharding: Sharding,
    pub(super) directory: DirectoryConfig,
    pub(super) organizations: BTreeMap<OrgId, Organization>,
}

/// What the places are judged against.
pub(super) struct Around<'a> {
    /// How the databases compare organizations.
    pub(super) organization_type: OrgIdType,
    pub(super) pool: &'a Pool,
    pub(super) threads: Option<usize>,
    /// `None` where the tiers file could not be read, so that nobody knows which there are.
    pub(super) tiers: Option<&'a Tiers>,
}

/// What was read, with the table it was read from.
pub(super) struct Placed<'t, T> {
    pub(super) table: Table<'t>,
    pub(super) is: T,
}

/// Reads `[[shards]]`, `[sharding]`, `[directory]` and `[organizations.*]`, and holds them against each other.
pub(super) fn places(root: &Table<'_>, around: &Around<'_>, torn: bool) -> Places {
    root.require("shards", "at least one [[shards]] with name, host, database and user");
    let mut shards: Vec<_> = root.tables("shards").into_iter().map(|table| shard(table, around)).collect();
    if root.has("shards") && root.sound(&["shards"]) && shards.is_empty() {
        root.fault("shards", "empty (at least one [[shards]])");
    }
    if shards.len() > SHARDS_MAX {
        root.fault("shards", format!("too many (at most {SHARDS_MAX})"));
    }
    let known = distinct(&shards).filter(|_| !torn);
    let (sharding, ranges) = sharding(root, known.as_ref(), around.organization_type);
    let directory = directory(root);
    let organizations = organizations(root, known.as_ref(), around);
    if known.is_some() {
        let unknown = directory.unknown_organizations;
        Housing { ranges: &ranges, organizations: &organizations, unknown, tiers: around.tiers }.settle(&mut shards);
    }
    for shard in &shards {
        shard.table.close();
    }
    Places {
        shards: shards.into_iter().map(|shard| shard.is).collect(),
        sharding: Sharding { method: sharding, ranges: ranges.into_iter().map(|range| range.is).collect() },
        directory,
        organizations: organizations.into_iter().map(|(id, organization)| (id, organization.is)).collect(),
    }
}

fn shard<'t>(table: Table<'t>, around: &Around<'_>) -> Placed<'t, Shard> {
    let default = Shard::default();
    let modes = [
        ("disable", TlsMode::Disable),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
        ("verify-full", TlsMode::VerifyFull),
    ];
    table.require("name", "a name of its own");
    table.require("host", "a host name, an IP address, or the directory of a Unix socket");
    table.require("database", "the name of the database");
    table.require("user", "the shared login role");
    table.refuse_inline("password", "password_file or password_env");
    let is = Shard {
        name: table.checked("name", plain_name).map_or(default.name, ShardName::new),
        host: table.checked("host", |text| host(&table, text)).unwrap_or(default.host),
        port: table.number("port", 1..=65_535).and_then(|port| u16::try_from(port).ok()).unwrap_or(default.port),
        database: table.checked("database", identifier).unwrap_or(default.database),
        user: table.checked("user", identifier).unwrap_or(default.user),
        password: table.secret("password_file", "password_env", Need::Secret),
        tls: table.word("tls", &modes).unwrap_or(default.tls),
        tls_ca_file: table.file("tls_ca_file"),
        pool_size: table.count("pool_size", 1..=10_000).unwrap_or(default.pool_size),
        min_pool_size: table.count("min_pool_size", 0..=10_000).unwrap_or(around.pool.min_pool_size),
        weight: table.number("weight", 0..=100).map_or(default.weight, |weight| weight as u32),
    };
    agree(&table, &is, around);
    Placed { table, is }
}

fn agree(table: &Table<'_>, shard: &Shard, around: &Around<'_>) {
    let pool_size = shard.pool_size;
    if table.sound(&["pool_size", "min_pool_size"]) && shard.min_pool_size > pool_size {
        let key = if table.has("min_pool_size") { "min_pool_size" } else { "pool_size" };
        table.fault(key, format!("min_pool_size {} is more than pool_size {pool_size}", shard.min_pool_size));
    }
    if let Some(threads) = around.threads.filter(|threads| *threads > pool_size && table.sound(&["pool_size"])) {
        table.fault("pool_size", format!("{pool_size} cannot be shared out to {threads} threads (at least {threads})"));
    }
    let verified = matches!(shard.tls, TlsMode::Require | TlsMode::VerifyFull);
    if verified && matches!(shard.host, Host::Unix(_)) {
        table.fault("tls", "PostgreSQL has no TLS on a Unix socket (prefer | disable)");
    }
}

/// A name that may stand in labels, logs and paths.
pub(super) fn plain_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(allowed) {
        return Err("not a name (ASCII letters, digits, _ and -, at most 63)".to_owned());
    }
    Ok(text.to_owned())
}

fn identifier(text: &str) -> Result<String, String> {
    if text.len() > NAME_BYTES_MAX {
        return Err("too long for a name in PostgreSQL (at most 63 bytes)".to_owned());
    }
    Ok(text.to_owned())
}

fn host(table: &Table<'_>, text: &str) -> Result<Host, String> {
    if text.contains('/') {
        return Ok(Host::Unix(table.resolve(text)));
    }
    let address = text.parse::<std::net::IpAddr>().is_ok();
    let name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) && text.len() < 254;
    if address || name {
        Ok(Host::Tcp(text.to_owned()))
    } else {
        Err("not a host name, an IP address or a directory (the port has a key of its own)".to_owned())
    }
}

/// The shards' names, faults noted; `None` where a shard has no readable name, so that nobody knows all of them.
fn distinct(shards: &[Placed<'_, Shard>]) -> Option<BTreeSet<ShardName>> {
    let mut names = BTreeSet::new();
    for Placed { table, is } in shards {
        if table.sound(&["name"]) && !names.insert(is.name.clone()) {
            table.fault("name", format!("there is another shard `{}` (names are distinct)", is.name));
        }
    }
    let all = !shards.is_empty() && shards.iter().all(|shard| shard.is.name.as_str() != "");
    all.then_some(names)
}

fn a_shard(known: Option<&BTreeSet<ShardName>>, text: &str) -> Result<ShardName, String> {
    let name = ShardName::new(text);
    match known {
        Some(known) if !known.contains(&name) => Err(format!("there is no such shard ({})", names(known.iter()))),
        Some(_) | None => Ok(name),
    }
}

fn organization_id(text: &str, kind: OrgIdType) -> Result<OrgId, String> {
    OrgId::of_type(text, kind).map_err(|wrong| wrong.to_string())
}

fn sharding<'t>(
    root: &Table<'t>,
    known: Option<&BTreeSet<ShardName>>,
    kind: OrgIdType,
) -> (ShardingMethod, Vec<Placed<'t, Range>>) {
    let table = root.table("sharding");
    let method = table.word("method", &[("consistent_hash", ShardingMethod::ConsistentHash)]).unwrap_or_default();
    let mut ranges: Vec<_> = table.tables("ranges").into_iter().filter_map(|table| range(table, known, kind)).collect();
    table.close();
    ranges.sort_by(|left, right| natural_order(left.is.from.as_str(), right.is.from.as_str()));
    overlaps(&ranges);
    (method, ranges)
}

fn range<'t>(table: Table<'t>, known: Option<&BTreeSet<ShardName>>, kind: OrgIdType) -> Option<Placed<'t, Range>> {
    table.require("from", "the first organization");
    table.require("to", "the last organization");
    table.require("shard", "the name of a shard");
    let from = table.checked("from", |text| organization_id(text, kind));
    let to = table.checked("to", |text| organization_id(text, kind));
    let shard = table.checked("shard", |text| a_shard(known, text));
    table.close();
    let (from, to) = (from?, to?);
    if natural_order(from.as_str(), to.as_str()).is_gt() {
        table.fault("to", format!("`{to}` comes before `{from}` (from the first to the last; org_2 is before org_10)"));
        return None;
    }
    // A range without a shard still takes part in the search for overlaps.
    let shard = shard.unwrap_or_else(|| ShardName::new(""));
    Some(Placed { is: Range { from, to, shard }, table })
}

/// Notes ranges that overlap; they are in the order of their beginnings.
fn overlaps(ranges: &[Placed<'_, Range>]) {
    let mut farthest: Option<&Range> = None;
    for Placed { table, is } in ranges {
        match farthest {
            Some(before) if before.contains(&is.from) => {
                let message = format!("overlaps the range from `{}` to `{}`", before.from, before.to);
                table.fault("from", message);
            }
            Some(_) | None => (),
        }
        if farthest.is_none_or(|before| natural_order(before.to.as_str(), is.to.as_str()).is_lt()) {
            farthest = Some(is);
        }
    }
}

fn directory(root: &Table<'_>) -> DirectoryConfig {
    let table = root.table("directory");
    let words = [("admit", UnknownOrganizations::Admit), ("refuse", UnknownOrganizations::Refuse)];
    let unknown_organizations = table.word("unknown_organizations", &words).unwrap_or_default();
    table.close();
    DirectoryConfig { unknown_organizations }
}

fn organizations<'t>(
    root: &Table<'t>,
    known: Option<&BTreeSet<ShardName>>,
    around: &Around<'_>,
) -> BTreeMap<OrgId, Placed<'t, Organization>> {
    let mut organizations: BTreeMap<OrgId, Placed<'t, Organization>> = BTreeMap::new();
    let mut spellings: BTreeMap<String, OrgId> = BTreeMap::new();
    for (name, table) in root.table("organizations").named_tables() {
        let is = organization(&table, known, around.tiers);
        table.close();
        match OrgId::of_type(&name, around.organization_type) {
            Ok(id) => {
                // What one column cannot tell apart may not have two tiers, or two states.
                if let Some(other) = spellings.insert(id.spelling_key(around.organization_type), id.clone()) {
                    let words =
                        format!("may be the organization `{other}` in another spelling (see auth.organization_type)");
                    table.fault_here(words);
                }
                organizations.insert(id, Placed { table, is });
            }
            Err(wrong) => table.fault_here(wrong.to_string()),
        }
    }
    organizations
}

fn organization(table: &Table<'_>, known: Option<&BTreeSet<ShardName>>, tiers: Option<&Tiers>) -> Organization {
    let statuses = [("active", Status::Active), ("suspended", Status::Suspended)];
    let isolations = [("row", Isolation::Row), ("schema", Isolation::Schema), ("database", Isolation::Database)];
    let isolation = table.word("isolation", &isolations).unwrap_or_default();
    if isolation != Isolation::Row {
        table.fault("isolation", "not served yet in this version (row)");
    }
    Organization {
        tier: table.checked("tier", |text| a_tier(tiers, text)),
        shard: table.checked("shard", |text| a_shard(known, text)),
        isolation,
        status: table.word("status", &statuses).unwrap_or_default(),
        pool_mode: table.word("pool_mode", &POOL_MODES),
    }
}

fn a_tier(tiers: Option<&Tiers>, text: &str) -> Result<TierName, String> {
    let name = TierName::new(text);
    match tiers {
        Some(tiers) if !tiers.tiers.contains_key(&name) => {
            Err(format!("there is no such tier ({})", names(tiers.tiers.keys())))
        }
        Some(_) | None => Ok(name),
    }
}
