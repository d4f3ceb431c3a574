//! Organizations whose names are alike are two, whatever the type of the column that holds them; attestation finds policies
//! that make them one.

use partywall::context::seal::Form;
use partywall::control::attest::{Depth, Finding};
use partywall::control::{self, ShardPlan};
use tokio_postgres::Client;

use super::attest::{plan_of, sound_shard};
use super::proxied::{before, key_file};
use super::{KEYS, Walled, count};

const MAKINGS: &str = "CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
    CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TYPE label AS ENUM ('acme', 'ACME');
    CREATE DOMAIN twenty AS varchar(20) CHECK (value <> 'evil');
    CREATE DOMAIN nested AS twenty;
    CREATE DOMAIN padded AS char(20);
    CREATE DOMAIN number AS bigint CHECK (value > 0)";

/// A type, an organization that it holds, and others that are none the less not that one.
const TYPES: &[(&str, &str, &[&str])] = &[
    ("text", "acme", &["ACME", "acme ", " acme", "acm", "acme\u{301}"]),
    ("varchar", "acme", &["ACME", "acme ", "acm"]),
    (
        "varchar(20)",
        "northwind-logistics-",
        &["northwind-logistics-emea", "northwind-logistics- ", "northwind-logistics"],
    ),
    ("char(20)", "northwind-logistics-", &["northwind-logistics-emea", "northwind-logistics- "]),
    ("char(20)", "acme", &["acme ", "acme                ", "acme                x", "ACME"]),
    ("bpchar", "acme", &["acme ", "ACME"]),
    (
        "name",
        "n23456789012345678901234567890123456789012345678901234567890123",
        &["n23456789012345678901234567890123456789012345678901234567890123x"],
    ),
    ("citext", "acme", &["ACME", "Acme", "acme "]),
    ("text COLLATE folding", "acme", &["ACME", "Acme"]),
    ("varchar(4) COLLATE folding", "acme", &["ACME", "acmex"]),
    ("char(6) COLLATE folding", "acme", &["ACME", "acme "]),
    (
        "uuid",
        "00000000-0000-0000-0000-00000000000a",
        &["00000000-0000-0000-0000-00000000000b", "acme", "00000000-0000-0000-0000-00000000000a0"],
    ),
    ("smallint", "7", &["07", "+7", " 7", "7 ", "7.0", "0x7", "65543"]),
    ("int", "7", &["07", "+7", " 7", "7\n", "7e0", "0b111", "4294967303"]),
    ("bigint", "10", &["010", "1e1", "1_0", "10.0", " 10"]),
    ("oid", "4294967295", &["-1"]),
    ("numeric", "10", &["10.0", "1e1", "010", "10.", "+10"]),
    ("numeric(10, 1)", "10", &["10.0", "10.04", "9.99", "1e1"]),
    ("label", "acme", &["ACME", "acme "]),
    ("twenty", "northwind-logistics-", &["northwind-logistics-emea", "evil"]),
    ("nested", "northwind-logistics-", &["northwind-logistics-emea", "northwind-logistics- "]),
    ("padded", "acme", &["acme ", "acme                x"]),
    ("number", "7", &["07", "-7"]),
];

async fn within(client: &Client, organization: &str) {
    client
        .query("SELECT set_config('app.current_org_id', $1, false)", &[&organization])
        .await
        .expect("sets the context");
}

/// How many rows a statement shows or changes; an error shows and changes none.
async fn touched(client: &Client, sql: &str) -> u64 {
    client.execute(sql, &[]).await.unwrap_or(0)
}

#[tokio::test]
async fn organizations_whose_names_are_alike_are_two_in_every_type_of_column() {
    let walled = Walled::new(Form::Plain).await;
    walled.admin.batch_execute(MAKINGS).await.expect("makes types");
    let client = walled.app().await;
    for (number, (kind, own, others)) in TYPES.iter().enumerate() {
        let table = format!("t{number}");
        let make = format!(
            "CREATE TABLE {table} (o {kind} NOT NULL, a int); GRANT ALL ON {table} TO partywall_app;
             SELECT partywall.protect('{table}', 'o'); INSERT INTO {table} VALUES ('{own}', 1)"
        );
        walled.admin.batch_execute(&make).await.unwrap_or_else(|error| panic!("{kind}: {error:?}"));
        within(&client, own).await;
        assert_eq!(count(&client, &format!("SELECT count(*) FROM {table}")).await, 1, "{kind}");
        assert_eq!(client.execute(&format!("INSERT INTO {table} (a) VALUES (2)"), &[]).await.expect("by default"), 1);
        assert_eq!(client.execute(&format!("DELETE FROM {table} WHERE a = 2"), &[]).await.expect("deletes"), 1);
        client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").await.expect("sets");
        let plan = client.query(&format!("EXPLAIN (COSTS OFF) SELECT * FROM {table}"), &[]).await.expect("explains");
        let plan: String = plan.iter().map(|row| row.get::<_, String>(0) + "\n").collect();
        assert!(plan.contains("InitPlan") && plan.contains("Index Cond: ("), "{kind}: {plan}");
        for other in *others {
            within(&client, other).await;
            for sql in [
                format!("SELECT 1 FROM {table}"),
                format!("UPDATE {table} SET a = 9"),
                format!("DELETE FROM {table}"),
                format!("INSERT INTO {table} VALUES ('{own}', 3)"),
            ] {
                assert_eq!(touched(&client, &sql).await, 0, "{kind}: {other:?} reaches rows of {own:?} by {sql}");
            }
        }
        within(&client, "").await;
        assert_eq!(touched(&client, &format!("SELECT 1 FROM {table}")).await, 0, "{kind}: nobody");
        assert_eq!(count(&walled.admin, &format!("SELECT sum(a) FROM {table}")).await, 1, "{kind}");
    }
}

#[tokio::test]
async fn an_organization_that_does_not_fit_is_told_so_and_a_type_without_a_safe_comparison_is_refused() {
    let walled = Walled::new(Form::Plain).await;
    let client = walled.app().await;
    let make = "CREATE TABLE invoices (tenant_id varchar(20) NOT NULL); GRANT ALL ON invoices TO partywall_app;
                SELECT partywall.protect('invoices', 'tenant_id')";
    walled.admin.batch_execute(make).await.expect("protects");
    within(&client, "northwind-logistics-emea").await;
    for sql in ["SELECT * FROM invoices", "INSERT INTO invoices VALUES ('northwind-logistics-')"] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        let error = error.as_db_error().expect("an answer");
        assert_eq!(error.code().code(), "22001", "{sql}");
        assert!(error.message().contains("does not fit into type character varying(20)"), "{error:?}");
        assert!(!error.message().contains("northwind"), "{error:?}");
    }
    for kind in [
        "boolean",
        "double precision",
        "bytea",
        "date",
        "jsonb",
        "text[]",
        "inet",
        "\"char\"",
        "money",
        "bit(8)",
        "xid",
    ] {
        let table = format!("CREATE TABLE odd (o {kind})");
        walled.admin.batch_execute(&table).await.expect(kind);
        let error = walled.admin.batch_execute("SELECT partywall.protect('odd', 'o')").await.expect_err(kind);
        let error = error.as_db_error().expect("an answer");
        assert!(error.code().code() == "0A000" && error.message().contains("without loss"), "{kind}: {error:?}");
        let left = "SELECT relrowsecurity::int::bigint FROM pg_class WHERE oid = 'odd'::regclass";
        assert_eq!(count(&walled.admin, left).await, 0, "nothing is half done");
        walled.admin.batch_execute("DROP TABLE odd").await.expect("drops");
    }
}

/// Policies as `protect` made them before, and as people write them.
const LOSSY: &[(&str, &str)] = &[
    ("varchar(20)", "o = (SELECT partywall.org()::varchar(20))"),
    ("char(8)", "o = (SELECT partywall.org()::char(8))"),
    ("name", "o = (SELECT partywall.org()::name)"),
    ("twenty", "o = (SELECT partywall.org()::twenty)"),
    ("nested", "o = (SELECT partywall.org()::nested)"),
    ("text", "o = (SELECT partywall.org()::varchar(20)::text)"),
    ("text", "o = (SELECT left(partywall.org(), 20))"),
    ("text", "o = (SELECT NULLIF(current_setting('app.current_org_id', true), '')::varchar(12))"),
    ("bpchar", "o = (SELECT partywall.org()::bpchar)"),
    ("citext", "o = (SELECT partywall.org()::citext)"),
    ("text", "lower(o) = (SELECT lower(partywall.org()))"),
    ("text COLLATE folding", "o = (SELECT partywall.org())"),
    ("numeric(5, 0)", "o = (SELECT partywall.org()::numeric(5, 0))"),
];

/// Those that a canary sees as well, by writing.
const SEEN_BY_CANARIES: &[&str] =
    &["varchar(20)", "char(8)", "name", "twenty", "nested", "bpchar", "citext", "text COLLATE folding"];

async fn attest(plan: &ShardPlan) -> Vec<Finding> {
    control::attest_shard(plan, Depth::Writing, &[]).await.expect("is attested")
}

#[tokio::test]
async fn a_policy_that_makes_one_of_two_organizations_is_found_and_its_mend_mends() {
    let (shard, keys) = (sound_shard().await, key_file(KEYS));
    let admin = shard.admin().await;
    admin.batch_execute(MAKINGS).await.expect("makes types");
    let plan = plan_of(&before(&shard, "guarded", Some(&keys)));
    for (number, (kind, policy)) in LOSSY.iter().enumerate() {
        let name = if number % 2 == 0 { "partywall_all" } else { "mine" };
        let make = format!(
            "CREATE TABLE alike (o {kind} NOT NULL, a int); CREATE INDEX ON alike (o); GRANT SELECT, INSERT ON alike TO partywall_app;
             ALTER TABLE alike ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             CREATE POLICY {name} ON alike TO partywall_app USING ({policy}) WITH CHECK ({policy})"
        );
        admin.batch_execute(&make).await.unwrap_or_else(|error| panic!("{kind}: {error:?}"));
        let found = attest(&plan).await;
        let one = found.iter().find(|finding| finding.key() == "policy_lossy:public.alike");
        let one = one.unwrap_or_else(|| panic!("{kind}, {policy}: {found:#?}"));
        assert_eq!(one.is_breach(), !policy.contains("left") && !policy.contains("lower"), "{policy}");
        let canary = found.iter().any(|finding| finding.key() == "canary_alike:public.alike");
        assert!(canary || !SEEN_BY_CANARIES.contains(kind), "{kind}, {policy}: {found:#?}");
        admin.batch_execute(&one.mend).await.unwrap_or_else(|error| panic!("{}: {error:?}", one.mend));
        assert_eq!(attest(&plan).await, [], "{kind}, {policy}: {}", one.mend);
        admin.batch_execute("DROP TABLE alike").await.expect("drops");
    }
}

#[tokio::test]
async fn a_protected_table_of_every_type_is_sound() {
    let (shard, keys) = (sound_shard().await, key_file(KEYS));
    let admin = shard.admin().await;
    admin.batch_execute(MAKINGS).await.expect("makes types");
    for (number, (kind, ..)) in TYPES.iter().enumerate() {
        let make = format!(
            "CREATE TABLE t{number} (o {kind} NOT NULL, a int, PRIMARY KEY (o, a)); GRANT SELECT, INSERT ON t{number} TO partywall_app;
             SELECT partywall.protect('t{number}', 'o')"
        );
        admin.batch_execute(&make).await.expect(kind);
    }
    assert_eq!(attest(&plan_of(&before(&shard, "guarded", Some(&keys)))).await, []);
}
