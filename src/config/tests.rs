//! Tests of the configuration through its face.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::ids::{OrgId, ShardName, TierName};

/// The least that a configuration can be.
const LEAST: &str = r#"
[[auth.keys]]
type = "hs256"
env = "JWT_KEY"

[[shards]]
name = "shard_1"
host = "127.0.0.1"
database = "app"
user = "partywall_app"
"#;

/// The contract's sample, as a user writes it.
const SAMPLE: &str = include_str!("../../tests/data/partywall.toml");
const TIERS: &str = include_str!("../../policies/tiers.toml");
const GUARD: &str = include_str!("../../policies/guard.toml");

fn sources(main: &str) -> Sources {
    Sources { main: (PathBuf::from("etc/partywall.toml"), main.to_owned()), tiers: None, guard: None }
}

fn with_policies(main: &str, tiers: &str, guard: &str) -> Sources {
    Sources {
        main: (PathBuf::from("etc/partywall.toml"), main.to_owned()),
        tiers: Some((PathBuf::from("etc/tiers.toml"), tiers.to_owned())),
        guard: Some((PathBuf::from("etc/guard.toml"), guard.to_owned())),
    }
}

fn meant(main: &str) -> Config {
    Config::check(&sources(main)).unwrap_or_else(|faults| panic!("{faults}"))
}

fn lines(sources: &Sources) -> Vec<String> {
    match Config::check(sources) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.to_string().lines().map(str::to_owned).collect(),
    }
}

/// The only fault of the least configuration with `more` after it.
fn fault(more: &str) -> String {
    only_fault(&sources(&format!("{LEAST}{more}")))
}

fn only_fault(sources: &Sources) -> String {
    let lines = lines(sources);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.concat()
}

fn tier_fault(tiers: &str) -> String {
    only_fault(&with_policies(LEAST, tiers, GUARD))
}

fn guard_fault(guard: &str) -> String {
    only_fault(&with_policies(LEAST, TIERS, guard))
}

#[test]
fn only_a_shard_and_a_key_are_required() {
    let config = meant(LEAST);
    assert_eq!(config.listen, Listen::default());
    assert_eq!(config.pool, Pool::default());
    assert_eq!(config.auth.keys, [KeySource::Hs256 { secret: SecretRef::Env("JWT_KEY".to_owned()) }.into()]);
    assert_eq!(config.shards.first().map(|shard| (shard.port, shard.pool_size)), Some((5432, 20)));
    assert_eq!(config.tiers.default, TierName::new("starter"));
    assert_eq!(config.guard.default_rights, [Right::Read]);
    let all = lines(&sources("\n"));
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all.iter().any(|line| line.starts_with("etc/partywall.toml: shards: missing")), "{all:?}");
    assert!(all.iter().any(|line| line.starts_with("etc/partywall.toml: auth.keys: missing")), "{all:?}");
}

#[test]
fn the_sample_means_what_it_says() {
    let config = Config::check(&with_policies(SAMPLE, TIERS, GUARD)).unwrap_or_else(|faults| panic!("{faults}"));
    let tls = TlsFiles { certificate: "etc/tls/server.crt".into(), private_key: "etc/tls/server.key".into() };
    assert_eq!(config.listen, Listen { tls: Some(tls), ..Listen::default() });
    assert_eq!(config.admin.token_file, Some("etc/secrets/admin.token".into()));
    assert_eq!(config.auth.issuer.as_deref(), Some("https://auth.example.com/"));
    assert_eq!(config.auth.audience, ["partywall"]);
    assert_eq!(config.auth.claims, ClaimNames::default());
    assert_eq!(config.context, ContextNames::default());
    assert_eq!(config.pool, Pool::default());
    assert_eq!(config.check, Check::default());
    assert_eq!(config.audit, Audit { file: Some("etc/audit.jsonl".into()), statements: StatementAudit::Writes });
    let shard = Shard {
        name: ShardName::new("shard_1"),
        host: Host::Tcp("127.0.0.1".to_owned()),
        database: "app".to_owned(),
        user: "partywall_app".to_owned(),
        password: Some(SecretRef::File("etc/secrets/shard_1.password".into())),
        tls_ca_file: Some("etc/tls/ca.crt".into()),
        ..Shard::default()
    };
    assert_eq!(config.shards, [shard]);
}

#[test]
fn the_policies_compiled_in_are_the_policies_that_ship() {
    let built_in = meant(LEAST);
    let given = Config::check(&with_policies(LEAST, TIERS, GUARD)).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(built_in, given);
    let tier = |name: &str| built_in.tiers.tiers.get(&TierName::new(name)).map(|tier| tier.as_ref().clone());
    assert_eq!(tier("starter"), Some(Tier { name: TierName::new("starter"), ..Tier::default() }));
    let enterprise = tier("enterprise").unwrap();
    assert!(enterprise.dedicated);
    assert_eq!(enterprise.query_timeout, Duration::from_secs(3600));
    assert_eq!(enterprise.max_result_bytes, Some(10_000 << 20));
    let unlimited = (enterprise.max_concurrent_queries, enterprise.storage_quota_bytes, enterprise.memory_bytes);
    assert_eq!(unlimited, (None, None, None));
    assert_eq!(built_in.guard.permissions.get("write:*"), Some(&vec![Right::Read, Right::Write]));
    assert_eq!(built_in.guard.statement_bytes_max, 1 << 20);
}

#[test]
fn ten_faults_are_ten_lines() {
    let main = r#"
[listen]
address = "localhost"
max_client_con = 10
client_login_timeout_s = "soon"

[[auth.keys]]
type = "jwks_url"
url = "http://auth.example.com/jwks.json"

[context]
user = "Role"

[pool]
pool_mode = "statement"

[[shards]]
name = "shard_1"
host = "127.0.0.1"
port = 70000
database = "app"
user = "partywall_app"
password = "hunter2"

[organizations.org_1]
shard = "shard_9"
tier = "gold"
"#;
    let all = lines(&sources(main));
    let starts = [
        "etc/partywall.toml:3: listen.address: ",
        "etc/partywall.toml:4: listen.max_client_con: unknown key (the nearest known one is `max_client_conn`)",
        "etc/partywall.toml:5: listen.client_login_timeout_s: a text, not a number (a whole number from 1 to 3600)",
        "etc/partywall.toml:9: auth.keys[1].url: not an https URL",
        "etc/partywall.toml:12: context.user: ",
        "etc/partywall.toml:15: pool.pool_mode: not a word known here (transaction | session)",
        "etc/partywall.toml:20: shards[1].port: out of range (a whole number from 1 to 65535)",
        "etc/partywall.toml:23: shards[1].password: a secret is never written here (use password_file or password_env)",
        "etc/partywall.toml:26: organizations.org_1.shard: there is no such shard (shard_1)",
        "etc/partywall.toml:27: organizations.org_1.tier: there is no such tier (enterprise | professional | starter)",
    ];
    assert_eq!(all.len(), starts.len(), "{all:#?}");
    for (line, start) in all.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn faults_of_all_three_files_are_told_at_once() {
    let tiers = TIERS.replace("max_queued_queries = 200", "max_queued_queries = \"unlimited\"");
    let guard = GUARD.replace("developer = [\"read\", \"write\"]", "developer = [\"reed\"]");
    let all = lines(&with_policies(&format!("{LEAST}[listen]\nport = 1\n"), &tiers, &guard));
    assert_eq!(all.len(), 3, "{all:#?}");
    let starts = [
        "etc/partywall.toml:12: listen.port: unknown key",
        "etc/tiers.toml:12: tiers.starter.max_queued",
        "etc/guard.toml:6: roles.developer: holds a word not known here (a list of read, write, ddl)",
    ];
    for (line, start) in all.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn lines_that_are_not_toml_do_not_hide_other_faults() {
    let all = lines(&sources("[listen]\naddress = nowhere\nmax_client_conn = 0\n[admin\ntoken = \"x\"\n"));
    let at = |start: &str| all.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(at("etc/partywall.toml:2: not TOML: "), 1, "{all:#?}");
    assert_eq!(at("etc/partywall.toml:3: listen.max_client_conn: out of range"), 1, "{all:#?}");
    assert_eq!(at("etc/partywall.toml:4: not TOML: "), 1, "{all:#?}");
    // What is missing from a torn file may stand in the part that nobody could read.
    assert!(!all.iter().any(|line| line.contains("missing")), "{all:#?}");
}

#[test]
fn a_key_given_twice_is_one_fault() {
    assert_eq!(fault("[log]\nlevel = \"info\"\nlevel = \"warn\"\n"), "etc/partywall.toml:13: this key is given twice");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    assert!(fault("[listne]\n").contains("listne: unknown key (the nearest known one is `listen`)"));
    assert!(
        fault("[organizations.org_1]\nteir = \"starter\"\n")
            .contains("org_1.teir: unknown key (the nearest known one is `tier`)")
    );
    assert!(fault("[pool]\nquery_wait_timeout = 1\n").contains("is `query_wait_timeout_s`)"));
}

#[test]
fn a_value_of_the_wrong_type_is_said_to_be_one() {
    for (text, words) in [
        ("[log]\nlevel = 1\n", "log.level: a whole number, not a text"),
        ("[check]\nallow = [1]\n", "check.allow: holds something else than texts"),
        ("[check]\nallow = \"x:y\"\n", "check.allow: a text, not a list of texts"),
        ("[sharding]\nranges = 1\n", "sharding.ranges: a whole number, not a list of tables ([[sharding.ranges]])"),
        ("[sharding]\nranges = [1]\n", "sharding.ranges[1]: a whole number, not a table"),
        ("[organizations]\norg_1 = true\n", "organizations.org_1: true or false, not a table"),
        ("[pool]\nserver_lifetime_s = 1.5\n", "pool.server_lifetime_s: a fraction, not a number"),
        ("[audit]\nfile = \"\"\n", "audit.file: empty"),
    ] {
        assert!(fault(text).contains(words), "{}", fault(text));
    }
}

#[test]
fn numbers_are_held_to_their_ranges() {
    for (table, key, bad) in [
        ("listen", "max_client_conn", "0"),
        ("listen", "max_client_conn_per_address", "0"),
        ("listen", "client_login_timeout_s", "3601"),
        ("listen", "threads", "0"),
        ("auth.claims", "tier", "\"/a~2b\""),
        ("pool", "query_wait_timeout_s", "0"),
        ("pool", "server_lifetime_s", "-5"),
        ("pool", "server_idle_timeout_s", "99999999999999999999"),
        ("pool", "server_connect_timeout_s", "0"),
        ("pool", "max_prepared_statements", "0"),
        ("pool", "min_pool_size", "20000"),
        ("guard", "statement_bytes_max", "1000"),
        ("guard", "copy_from", "\"sideways\""),
        ("check", "interval_s", "0"),
        ("check", "allow", "[\"nonsense\"]"),
        ("listen", "plaintext_passwords", "\"sometimes\""),
        ("listen", "proxy_protocol", "\"v1\""),
        ("listen", "trusted_proxies", "[\"10.0.0.0/33\"]"),
    ] {
        let line = fault(&format!("[{table}]\n{key} = {bad}\n"));
        assert!(line.starts_with(&format!("etc/partywall.toml:12: {table}.{key}: ")), "{line}");
    }
    for bad in ["port = 0", "pool_size = 0", "weight = 101", "min_pool_size = 21", "host = \"db:5432\"", "tls = \"on\""]
    {
        let (key, _) = bad.split_once(' ').unwrap();
        let text = LEAST.replace("host = \"127.0.0.1\"\n", if key == "host" { "" } else { "host = \"h\"\n" });
        let line = only_fault(&sources(&format!("{text}{bad}\n")));
        assert!(line.contains(&format!(": shards[1].{key}: ")), "{line}");
    }
}

#[test]
fn clocks_may_differ_by_five_minutes_at_most() {
    let line = only_fault(&sources(&format!("[auth]\nleeway_s = 301\n{LEAST}")));
    assert!(line.starts_with("etc/partywall.toml:2: auth.leeway_s: out of range"), "{line}");
}

#[test]
fn secrets_are_never_written_into_the_file() {
    for (text, key) in [
        (LEAST.replace("env = \"JWT_KEY\"", "secret = \"hunter2\""), "auth.keys[1].secret"),
        (LEAST.replace("env = \"JWT_KEY\"", "key = \"hunter2\""), "auth.keys[1].key"),
        (format!("{LEAST}password = \"hunter2\"\n"), "shards[1].password"),
        (format!("{LEAST}[admin]\ntoken = \"hunter2\"\n"), "admin.token"),
    ] {
        let line = only_fault(&sources(&text));
        assert!(line.contains(&format!("{key}: a secret is never written here (use ")), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    let both = format!("{LEAST}password_file = \"a\"\npassword_env = \"B\"\n");
    assert!(only_fault(&sources(&both)).contains("shards[1].password_env: one secret from two places"));
    let neither = LEAST.replace("env = \"JWT_KEY\"", "");
    assert!(only_fault(&sources(&neither)).contains("auth.keys[1].file: missing (file or env"));
    let strange = LEAST.replace("JWT_KEY", "JWT KEY");
    assert!(only_fault(&sources(&strange)).contains("auth.keys[1].env: not the name of an environment variable"));
}

#[test]
fn a_certificate_and_its_key_come_together() {
    assert!(fault("[listen]\ntls_certificate = \"c\"\n").contains("listen.tls_certificate: a certificate without"));
    assert!(fault("[listen]\ntls_private_key = \"k\"\n").contains("listen.tls_private_key: a private key without"));
    assert!(fault("[listen]\nplaintext_passwords = \"never\"\n").contains("plaintext_passwords: nobody could log in"));
    let with_tls = "[listen]\nplaintext_passwords = \"never\"\ntls_certificate = \"c\"\ntls_private_key = \"k\"\n";
    assert_eq!(lines(&sources(&format!("{LEAST}{with_tls}"))), Vec::<String>::new());
}

#[test]
fn the_proxy_protocol_is_spoken_by_those_who_are_named() {
    assert!(fault("[listen]\nproxy_protocol = \"v2\"\n").contains("listen.proxy_protocol: nobody may speak it"));
    let named = "[listen]\nproxy_protocol = \"required\"\ntrusted_proxies = [\"10.0.0.0/8\", \"2001:db8::1\"]\n";
    assert_eq!(lines(&sources(&format!("{LEAST}{named}"))), Vec::<String>::new());
}

#[test]
fn clients_and_operators_have_addresses_of_their_own() {
    assert!(fault("[admin]\naddress = \"127.0.0.1:6432\"\n").contains("admin.address: the same as listen.address"));
}

#[test]
fn keys_come_only_over_https() {
    for bad in ["http://a/jwks", "https://", "https:///x", "https://user:pw@a/jwks", "file:///a", "https://a b/"] {
        let line = only_fault(&sources(
            &LEAST.replace("env = \"JWT_KEY\"", &format!("url = \"{bad}\"")).replace("hs256", "jwks_url"),
        ));
        assert!(line.contains("auth.keys[1].url: not an https URL"), "{line}");
    }
    let good = LEAST.replace("env = \"JWT_KEY\"", "url = \"https://a:8443/jwks\"").replace("hs256", "jwks_url");
    let expected = KeySource::JwksUrl { url: "https://a:8443/jwks".to_owned(), ca_file: None };
    assert_eq!(meant(&good).auth.keys, [expected.into()]);
}

#[test]
fn context_settings_are_lower_case_prefixed_and_distinct() {
    for bad in ["app", "App.org", "app.", ".org", "app.1", "app.a.b", "app.org id", "app.org'"] {
        assert!(fault(&format!("[context]\nroles = \"{bad}\"\n")).contains("context.roles: not the name of a setting"));
    }
    assert!(
        fault("[context]\norganization = \"app.current_user_id\"\n")
            .contains("context.organization: the same setting as user")
    );
    assert!(fault("[context]\nuser = \"a.x\"\nroles = \"a.x\"\n").contains("context.roles: the same setting as user"));
    assert_eq!(meant(&format!("{LEAST}[context]\nuser = \"tenant.user_1\"\n")).context.user, "tenant.user_1");
}

fn shard(name: &str) -> String {
    format!("[[shards]]\nname = \"{name}\"\nhost = \"h\"\ndatabase = \"app\"\nuser = \"u\"\n")
}

#[test]
fn shards_have_names_of_their_own() {
    assert!(fault(&shard("shard_1")).contains(":12: shards[2].name: there is another shard `shard_1`"));
    assert!(fault(&shard("shard 2")).contains("shards[2].name: not a name"));
}

#[test]
fn a_pool_is_as_large_as_its_least_and_as_its_threads() {
    let text = format!("{LEAST}pool_size = 3\n[pool]\nmin_pool_size = 4\n");
    assert!(only_fault(&sources(&text)).contains("shards[1].pool_size: min_pool_size 4 is more than pool_size 3"));
    let text = format!("{LEAST}pool_size = 3\n[listen]\nthreads = 4\n");
    assert!(only_fault(&sources(&text)).contains("shards[1].pool_size: 3 cannot be shared out to 4 threads"));
    let text = format!("{LEAST}min_pool_size = 1\n[pool]\nmin_pool_size = 2\n");
    assert_eq!(meant(&text).shards.first().map(|shard| shard.min_pool_size), Some(1));
}

#[test]
fn a_directory_for_a_host_is_a_unix_socket() {
    let text = LEAST.replace("127.0.0.1", "/run/postgresql");
    assert_eq!(meant(&text).shards.first().map(|shard| shard.host.clone()), Some(Host::Unix("/run/postgresql".into())));
    let text = format!("{text}tls = \"verify-full\"\n");
    assert!(only_fault(&sources(&text)).contains("shards[1].tls: PostgreSQL has no TLS on a Unix socket"));
}

fn range(from: &str, to: &str, shard: &str) -> String {
    format!("[[sharding.ranges]]\nfrom = \"{from}\"\nto = \"{to}\"\nshard = \"{shard}\"\n")
}

#[test]
fn ranges_are_in_order_apart_and_on_shards() {
    let good = range("org_1", "org_9", "shard_1") + &range("org_10", "org_1000", "shard_1");
    let config = meant(&format!("{LEAST}{good}"));
    let first = config.sharding.ranges.first().unwrap();
    let inside = |name: &str| first.contains(&OrgId::new(name).unwrap());
    assert_eq!([inside("org_1"), inside("org_5"), inside("org_9"), inside("org_10")], [true, true, true, false]);
    assert!(fault(&range("org_1", "org_9", "shard_2")).contains("ranges[1].shard: there is no such shard (shard_1)"));
    assert!(fault(&range("org_10", "org_2", "shard_1")).contains("ranges[1].to: `org_2` comes before `org_10`"));
    assert!(fault(&range("org 1", "org_2", "shard_1")).contains("ranges[1].from: an organization name is made of"));
    let overlapping = range("org_10", "org_20", "shard_1") + &range("org_9", "org_10", "shard_1");
    assert!(fault(&overlapping).contains("from: overlaps the range from `org_9` to `org_10`"));
    let nested = range("a1", "a9", "shard_1") + &range("a2", "a3", "shard_1") + &range("a9", "b", "shard_1");
    assert_eq!(lines(&sources(&format!("{LEAST}{nested}"))).len(), 2);
}

#[test]
fn organizations_have_what_there_is() {
    let own = "[organizations.\"acme.eu:1\"]\ntier = \"professional\"\nshard = \"shard_1\"\nstatus = \"suspended\"\n";
    let config = meant(&format!("{LEAST}{own}[directory]\nunknown_organizations = \"refuse\"\n"));
    let expected = Organization {
        tier: Some(TierName::new("professional")),
        shard: Some(ShardName::new("shard_1")),
        isolation: Isolation::Row,
        status: Status::Suspended,
        pool_mode: None,
    };
    assert_eq!(config.organizations.get(&OrgId::new("acme.eu:1").unwrap()), Some(&expected));
    assert_eq!(config.directory.unknown_organizations, UnknownOrganizations::Refuse);
    assert!(fault("[organizations.org_1]\nshard = \"x\"\n").contains("org_1.shard: there is no such shard (shard_1)"));
    assert!(fault("[organizations.org_1]\ntier = \"x\"\n").contains("org_1.tier: there is no such tier"));
    assert!(fault("[organizations.\"a b\"]\n").contains("organizations.\"a b\": an organization name is made of"));
    for later in ["schema", "database"] {
        let line = fault(&format!("[organizations.org_1]\nisolation = \"{later}\"\n"));
        assert!(line.contains("org_1.isolation: not served yet in this version (row)"), "{line}");
    }
}

#[test]
fn a_dedicated_organization_lives_alone() {
    let dedicated = "[organizations.org_1]\ntier = \"enterprise\"\nshard = \"shard_2\"\n";
    let two = shard("shard_2");
    let config = meant(&format!("{LEAST}{two}{dedicated}"));
    // Nobody is placed by hash on the shard that it owns.
    assert_eq!(config.shards.iter().map(|shard| shard.weight).collect::<Vec<_>>(), [1, 0]);
    assert!(
        fault("[organizations.org_1]\ntier = \"enterprise\"\n")
            .contains("org_1.tier: dedicated, but the organization shares")
    );
    let alone = "[organizations.org_1]\ntier = \"enterprise\"\nshard = \"shard_1\"\n";
    assert!(fault(alone).contains("org_1.shard: the tier is dedicated, but the shard is shared"));
    let closed = format!("{LEAST}{alone}[directory]\nunknown_organizations = \"refuse\"\n");
    assert_eq!(lines(&sources(&closed)), Vec::<String>::new());
    for sharing in [
        "[organizations.org_2]\nshard = \"shard_2\"\n".to_owned(),
        "[organizations.org_2]\ntier = \"enterprise\"\nshard = \"shard_2\"\n".to_owned(),
        range("a", "b", "shard_2"),
    ] {
        assert!(
            fault(&format!("{two}{dedicated}{sharing}"))
                .contains("org_1.shard: the tier is dedicated, but shard `shard_2` is shared with")
        );
    }
    assert!(fault(&format!("{two}weight = 2\n{dedicated}")).contains("placed by hash (its weight is 2"));
}

#[test]
fn somewhere_is_a_place_for_everybody() {
    assert!(fault("weight = 0\n").contains("shards[1].weight: every shard has weight 0"));
    let closed = "weight = 0\n[directory]\nunknown_organizations = \"refuse\"\n";
    assert_eq!(lines(&sources(&format!("{LEAST}{closed}"))), Vec::<String>::new());
    assert!(fault(&format!("{closed}[organizations.org_1]\n")).contains("every shard has weight 0"));
    let ranged = format!("{LEAST}{closed}[organizations.org_1]\n{}", range("org_1", "org_2", "shard_1"));
    assert_eq!(lines(&sources(&ranged)), Vec::<String>::new());
}

#[test]
fn one_fault_does_not_breed_others() {
    // A shard without a readable name: who names it is not told that it does not exist.
    let text = LEAST.replace("name = \"shard_1\"", "name = 1");
    assert!(
        only_fault(&sources(&format!("{text}[organizations.org_1]\nshard = \"shard_1\"\n"))).contains("shards[1].name")
    );
    // A tiers file with a fault: who names a tier of it is not told that it does not exist.
    let text = format!("{LEAST}[organizations.org_1]\ntier = \"gold\"\n");
    let tiers = "default = \"a\"\n[tiers.a]\nbogus = 1\n";
    assert!(
        only_fault(&with_policies(&text, tiers, GUARD)).starts_with("etc/tiers.toml:3: tiers.a.bogus: unknown key")
    );
}

#[test]
fn tiers_are_checked_too() {
    assert!(tier_fault("default = \"a\"\n").starts_with("etc/tiers.toml: tiers: missing"));
    assert!(tier_fault("[tiers.a]\n").starts_with("etc/tiers.toml: default: missing"));
    assert!(tier_fault("default = \"b\"\n[tiers.a]\n").contains(":1: default: there is no tier `b` (a)"));
    assert!(tier_fault("default = \"a b\"\n[tiers.\"a b\"]\n").contains("tiers.\"a b\": not a name"));
    for bad in [
        "max_concurrent_queries = 0",
        "max_concurrent_queries = \"dedicated\"",
        "query_timeout_seconds = \"unlimited\"",
        "query_timeout_seconds = 2147484",
        "max_result_size_mb = \"lots\"",
        "max_queued_queries = \"unlimited\"",
        "cpu_cores = 0",
        "memory_gb = \"all\"",
        "priority = 0",
        "max_pins = -1",
        "query_wait_timeout_s = 0",
        "storage_quota_gb = 1.5",
        "max_client_connections = []",
    ] {
        let line = tier_fault(&format!("default = \"a\"\n[tiers.a]\n{bad}\n"));
        let (key, _) = bad.split_once(' ').unwrap();
        assert!(line.starts_with(&format!("etc/tiers.toml:3: tiers.a.{key}: ")), "{line}");
    }
    let words = tier_fault("default = \"a\"\n[tiers.a]\ncpu_cores = \"x\"\n");
    assert!(words.ends_with("(a whole number from 1 to 4096, or \"unlimited\", or \"dedicated\")"), "{words}");
}

#[test]
fn rights_are_checked_too() {
    assert!(
        guard_fault("[roles]\na = \"read\"\n").contains(":2: roles.a: a text, not a list (a list of read, write, ddl)")
    );
    assert!(
        guard_fault("[permissions]\nread = [\"read\"]\n")
            .contains(":2: permissions.read: not a permission (verb:relation")
    );
    assert!(
        guard_fault("[defaults]\nrights = [\"all\"]\n").contains(":2: defaults.rights: holds a word not known here")
    );
    assert!(
        guard_fault("[defaults]\nright = []\n")
            .contains("defaults.right: unknown key (the nearest known one is `rights`)")
    );
    let nothing = Config::check(&with_policies(LEAST, TIERS, "")).unwrap();
    assert_eq!(nothing.guard, GuardPolicy::default());
}

#[test]
fn a_policy_file_that_was_not_read_is_a_fault() {
    assert!(fault("[policies]\ntiers = \"t.toml\"\n").contains(":12: policies.tiers: the file was not read"));
    let unread = "[organizations.org_1]\ntier = \"gold\"\n[policies]\ntiers = \"t.toml\"\n";
    assert!(fault(unread).contains(":14: policies.tiers: the file was not read"));
}

#[test]
fn policy_files_are_found_in_a_faulty_file() {
    let text = "[listen]\nbogus = \n[policies]\ntiers = \"t.toml\"\nguard = \"/g.toml\"\n";
    let files = policy_files(&PathBuf::from("etc/partywall.toml"), text);
    assert_eq!(files, PolicyFiles { tiers: Some("etc/t.toml".into()), guard: Some("/g.toml".into()) });
}

#[test]
fn what_the_file_names_is_known_with_its_place() {
    let survey = survey(&with_policies(SAMPLE, TIERS, GUARD));
    let named: Vec<_> = survey.named.iter().map(|named| (named.key.as_str(), &named.need)).collect();
    let expected = [
        ("listen.tls_certificate", Need::File("etc/tls/server.crt".into())),
        ("listen.tls_private_key", Need::File("etc/tls/server.key".into())),
        ("auth.keys[1].file", Need::SigningSecret(SecretRef::File("etc/secrets/jwt.key".into()))),
        ("shards[1].password_file", Need::Secret(SecretRef::File("etc/secrets/shard_1.password".into()))),
        ("shards[1].tls_ca_file", Need::File("etc/tls/ca.crt".into())),
        ("admin.token_file", Need::File("etc/secrets/admin.token".into())),
        ("audit.file", Need::DirectoryOf("etc/audit.jsonl".into())),
    ];
    assert_eq!(named, expected.iter().map(|(key, need)| (*key, need)).collect::<Vec<_>>());
    assert!(survey.named.iter().all(|named| named.line.is_some()));
}

proptest::proptest! {
    #[test]
    fn any_text_is_judged_line_by_line(
        at in 0..SAMPLE.len(),
        cut in 0_usize..40,
        put in "[a-z\\[\\]={}\"'\n.#,\\\\0-9é]{0,12}",
    ) {
        let start = (0..=at).rev().find(|at| SAMPLE.is_char_boundary(*at)).unwrap_or(0);
        let end = (start + cut..=SAMPLE.len()).find(|at| SAMPLE.is_char_boundary(*at)).unwrap_or(SAMPLE.len());
        let text = format!("{}{put}{}", &SAMPLE[..start], &SAMPLE[end..]);
        if let Err(faults) = Config::check(&with_policies(&text, TIERS, GUARD)) {
            proptest::prop_assert_eq!(faults.to_string().lines().count(), faults.0.len());
            let lines = text.lines().count().max(1);
            proptest::prop_assert!(faults.0.iter().all(|fault| fault.line.is_none_or(|line| (1..=lines + 1).contains(&line))));
        }
    }
}

#[test]
fn texts_and_lists_have_bounds() {
    let long = "x".repeat(64);
    let name = format!("app.{}", "x".repeat(60));
    let huge = "x".repeat(4097);
    for (text, words) in [
        (format!("[audit]\nfile = \"{huge}\"\n"), "audit.file: too long (at most 4096 bytes)"),
        ("[audit]\nfile = \"a\\u0000b\"\n".to_owned(), "audit.file: holds a control character"),
        ("[check]\nallow = [\"a:\\n\"]\n".to_owned(), "check.allow: holds a text that is empty, too long or not"),
        (format!("[context]\nroles = \"{name}\"\n"), "context.roles: not the name of a setting"),
        (format!("[organizations.{long}x]\n"), "an organization name may have at most 64 bytes"),
    ] {
        assert!(fault(&text).contains(words), "{}", fault(&text));
    }
    for (old, key) in [("\"shard_1\"", "name"), ("\"app\"", "database"), ("\"partywall_app\"", "user")] {
        let line = only_fault(&sources(&LEAST.replace(old, &format!("\"{long}\""))));
        assert!(line.contains(&format!("shards[1].{key}: ")), "{line}");
    }
    let (keys, _) = LEAST.split_once("[[shards]]").unwrap();
    assert!(only_fault(&sources(&format!("shards = []\n{keys}"))).contains(":1: shards: empty"));
    let (_, shards) = LEAST.split_once("[[shards]]").unwrap();
    let line = only_fault(&sources(&format!("auth.keys = []\n[[shards]]{shards}")));
    assert!(line.contains(":1: auth.keys: empty (at least one [[auth.keys]]"), "{line}");
    let many: String = (0..1024).map(|nth| shard(&format!("s{nth}"))).collect();
    assert!(fault(&many).contains("shards: too many (at most 1024)"));
}

/// A configuration whose `[auth]` is this.
fn auth_of(text: &str) -> Sources {
    let (_, shards) = LEAST.split_once("[[shards]]").unwrap();
    sources(&format!("{text}\n[[shards]]{shards}"))
}

#[test]
fn keys_are_bound_to_an_issuer_an_audience_and_organizations() {
    let text = "[auth]\norganization_type = \"bigint\"\n[[auth.keys]]\ntype = \"pem\"\nfile = \"a.pem\"\n\
                issuer = \"https://a.example\"\naudience = [\"x\"]\norganizations = [\"07\", \"8\"]\n";
    let config = Config::check(&auth_of(text)).unwrap_or_else(|faults| panic!("{faults}"));
    let bounds = &config.auth.keys[0].bounds;
    assert_eq!((bounds.issuer.as_deref(), &bounds.audience[..]), (Some("https://a.example"), &["x".to_owned()][..]));
    let organizations: Vec<_> = bounds.organizations.iter().flatten().map(|org| org.as_str()).collect();
    assert_eq!(organizations, ["7", "8"]);
    for (from, to, words) in [
        ("organizations = [\"07\", \"8\"]", "organizations = []", "auth.keys[1].organizations: empty"),
        ("audience = [\"x\"]", "audience = []", "auth.keys[1].audience: empty"),
        ("\"07\"", "\"acme\"", "auth.keys[1].organizations: an organization is a whole number"),
        ("\"07\"", "\"a b\"", "auth.keys[1].organizations: an organization name is made of"),
    ] {
        let line = only_fault(&auth_of(&text.replace(from, to)));
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn an_issuer_alone_says_where_its_keys_are() {
    let issuer = |issuer: &str| KeySource::Issuer { issuer: issuer.to_owned(), ca_file: None };
    let keys = |text: &str| {
        let config = Config::check(&auth_of(text)).unwrap_or_else(|faults| panic!("{faults}"));
        config.auth.keys.into_iter().map(|keys| (keys.from, keys.bounds.issuer)).collect::<Vec<_>>()
    };
    assert_eq!(keys("[auth]\nissuer = \"https://a.example/\"\n"), [(issuer("https://a.example/"), None)]);
    let two = "[[auth.keys]]\nissuer = \"https://a.example\"\n\
               [[auth.keys]]\ntype = \"jwks_url\"\nissuer = \"https://b.example\"\n";
    let bound = |text: &str| (issuer(text), Some(text.to_owned()));
    assert_eq!(keys(two), [bound("https://a.example"), bound("https://b.example")]);
    // Keys that are written are the only ones.
    let written = "[auth]\nissuer = \"https://a.example\"\n[[auth.keys]]\ntype = \"pem\"\nfile = \"a.pem\"\n";
    assert_eq!(keys(written), [(KeySource::Pem { file: "etc/a.pem".into() }, None)]);
    for (text, words) in [
        ("[auth]\nissuer = \"https://a.example\"\ndiscovery = false\n", "auth.keys: missing"),
        ("[auth]\nissuer = \"my-issuer\"\n", "auth.keys: missing"),
        ("[auth]\ndiscovery = false\n[[auth.keys]]\nissuer = \"https://a.example\"\n", "auth.keys[1].url: missing"),
        ("[[auth.keys]]\nissuer = \"http://a.example\"\n", "auth.keys[1].issuer: not an https URL"),
        ("[[auth.keys]]\naudience = [\"x\"]\n", "auth.keys[1].type: missing"),
    ] {
        let line = only_fault(&auth_of(text));
        assert!(line.contains(words), "{text}: {line}");
    }
    let many = "[[auth.keys]]\nissuer = \"https://a.example\"\n".repeat(1001);
    assert!(only_fault(&auth_of(&many)).contains("auth.keys: too many (at most 1000)"));
}

#[test]
fn claim_paths_that_cannot_be_followed_are_faults() {
    for (path, words) in [
        ("organization = \"/o/{organization}\"", "auth.claims.organization: leads by way of {organization}"),
        ("roles = \"/o/{key}/{key}\"", "auth.claims.roles: {key} stands twice"),
    ] {
        let line = only_fault(&sources(&format!("{LEAST}[auth.claims]\n{path}\n")));
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn two_spellings_of_one_organization_are_a_fault() {
    let two = |kind: &str, one: &str, other: &str| {
        let text = format!("{LEAST}[organizations.\"{one}\"]\n[organizations.\"{other}\"]\n");
        sources(&text.replacen("[[auth.keys]]", &format!("[auth]\norganization_type = \"{kind}\"\n[[auth.keys]]"), 1))
    };
    let upper = "3F0C9A52-0000-4000-8000-0000000000AB";
    for (kind, one, other) in [
        ("auto", "7", "07"),
        ("auto", "acme", "ACME"),
        ("auto", upper, &upper.to_ascii_lowercase()),
        ("auto", upper, &upper.replace('-', "")),
        ("bigint", "7", "07"),
        ("citext", "acme", "ACME"),
        ("uuid", upper, &upper.replace('-', "")),
    ] {
        let all = lines(&two(kind, one, other));
        assert!(all.len() == 1 && all[0].contains("in another spelling"), "{kind} {one} {other}: {all:?}");
    }
    for (kind, one, other) in [("text", "7", "07"), ("text", "acme", "ACME"), ("auto", "acme", "acme2")] {
        assert!(Config::check(&two(kind, one, other)).is_ok(), "{kind} {one} {other}");
    }
}
