//! What a tenant can make or use up is no evidence against a database: attestation looks past it, and what it could not see
//! changes nothing.

use partywall::control::attest::{Depth, Finding};
use partywall::control::{self, AttestError, ShardPlan};
use partywall::provision::ClusterOptions;
use tokio_postgres::Client;

use super::attest::{plan_of, served, sound_shard, until};
use super::proxied::{before, key_file};
use super::{KEYS, count};
use crate::support::{Shard, until as eventually};

async fn attest(plan: &ShardPlan) -> Result<Vec<Finding>, AttestError> {
    control::attest_shard(plan, Depth::Writing, &[]).await
}

async fn tenant(shard: &Shard) -> Client {
    shard.cluster.connect_as(Shard::USER, &shard.password, Shard::DATABASE).await.expect("logs in")
}

#[tokio::test]
async fn temporary_objects_of_a_tenant_are_neither_judged_nor_followed() {
    let (shard, keys) = (sound_shard().await, key_file(KEYS));
    let admin = shard.admin().await;
    let plan = plan_of(&before(&shard, "guarded", Some(&keys)));
    // A look that follows the views of the chain below needs more than this.
    let make =
        "GRANT TEMPORARY ON DATABASE postgres TO partywall_app; ALTER ROLE partywall_app SET temp_file_limit = '2MB';
                CREATE TABLE countries (secret int); GRANT SELECT ON countries TO partywall_app";
    admin.batch_execute(make).await.expect("grants");
    let tenant = tenant(&shard).await;
    let mut chain = String::from(
        "CREATE TEMPORARY TABLE mine (org_id text, secret text); CREATE TEMPORARY VIEW v0 AS SELECT * FROM mine;",
    );
    for number in 1..1_000 {
        chain += &format!("CREATE TEMPORARY VIEW v{number} AS SELECT * FROM v{};", number - 1);
    }
    tenant.batch_execute(&chain).await.expect("makes views");
    let policy = "ALTER TABLE mine ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON mine USING (secret = partywall.org());
                  CREATE POLICY q ON mine USING (true); COMMENT ON TABLE mine IS 'breach'; CREATE TEMPORARY SEQUENCE s";
    tenant.batch_execute(policy).await.expect("makes policies");
    let mut found: Vec<String> = attest(&plan).await.expect("is attested").iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].starts_with("warn open_temporary:")
            && found[1].starts_with("warn table_without_rls:public.countries:"),
        "{found:#?}"
    );
}

#[tokio::test]
async fn a_server_that_has_no_room_for_an_answer_is_not_known_rather_than_in_breach() {
    let options = ClusterOptions::default().setting("max_locks_per_transaction", "10").setting("max_connections", "30");
    let shard = Shard::start_with(&options);
    let plan = plan_of(&before(&shard, "plain", None));
    assert!(attest(&plan).await.is_ok());
    let greedy = shard.admin().await;
    // It takes what there is, and keeps it.
    let full = greedy.batch_execute("SELECT count(pg_advisory_lock(g)) FROM generate_series(1, 1000000) AS g").await;
    assert_eq!(full.expect_err("is full").code().map(|code| code.code()), Some("53200"));
    assert!(attest(&plan).await.is_err(), "nothing is known");
    greedy.batch_execute("SELECT pg_advisory_unlock_all()").await.expect("gives back");
    assert!(attest(&plan).await.is_ok());
}

/// Lets the proxy's next two looks run into a lock; returns when both have ended, so that what came of the first is in force.
async fn blind(admin: &mut Client, watcher: &Client) {
    let looks = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'partywall-attest'";
    let waits = format!("{looks} AND wait_event_type = 'Lock'");
    let lock = admin.transaction().await.expect("begins");
    lock.batch_execute("LOCK TABLE pg_catalog.pg_trigger IN ACCESS EXCLUSIVE MODE").await.expect("locks");
    for _ in 0..2 {
        eventually("a look waits", async || count(watcher, &waits).await > 0).await;
        // Its connection is gone: none of its questions is still to come.
        eventually("that look ends", async || count(watcher, looks).await == 0).await;
    }
    lock.rollback().await.expect("rolls back");
}

#[tokio::test]
async fn a_look_that_tells_nothing_leaves_the_gate_as_it_was_and_a_mended_shard_comes_back_soon() {
    let (shard, keys) = (sound_shard().await, key_file(KEYS));
    let (mut admin, watcher) = (shard.admin().await, shard.admin().await);
    let proxy = before(&shard, "auto", Some(&keys)).option("check", "interval_s = 1").start().await;
    assert_eq!(served(&proxy).await, Ok(()));
    blind(&mut admin, &watcher).await;
    assert!(proxy.metrics().await.contains("partywall_shard_attested{shard=\"shard_1\"} 1"));
    assert_eq!(served(&proxy).await, Ok(()), "open stays open");
    admin.batch_execute("GRANT TRUNCATE ON canary TO partywall_app").await.expect("breaches");
    until(&proxy, Err("57P03")).await;
    blind(&mut admin, &watcher).await;
    assert_eq!(served(&proxy).await, Err("57P03".to_owned()), "shut stays shut");
    admin.batch_execute("REVOKE TRUNCATE ON canary FROM partywall_app").await.expect("mends");
    until(&proxy, Ok(())).await;
}

#[tokio::test]
async fn what_only_writing_canaries_see_stays_a_breach_and_a_long_interval_keeps_no_mended_shard_shut() {
    let (shard, keys) = (sound_shard().await, key_file(KEYS));
    let admin = shard.admin().await;
    // No text shows that this lets every row in.
    let plant = "CREATE FUNCTION always() RETURNS boolean LANGUAGE sql AS 'SELECT 1 = 1';
                 CREATE POLICY loose ON ledger FOR INSERT WITH CHECK (org_id = (SELECT partywall.org()) OR always())";
    admin.batch_execute(plant).await.expect("breaches");
    let proxy = before(&shard, "auto", Some(&keys)).option("check", "interval_s = 3000").start().await;
    assert_eq!(served(&proxy).await, Err("57P03".to_owned()));
    // Each writing look takes a number for the row that it tries.
    let tries = "SELECT last_value FROM ledger_id_seq";
    let first = count(&admin, tries).await;
    eventually("it was looked at again", async || count(&admin, tries).await >= first + 4).await;
    assert_eq!(served(&proxy).await, Err("57P03".to_owned()));
    admin.batch_execute("DROP POLICY loose ON ledger").await.expect("mends");
    until(&proxy, Ok(())).await;
}

/// Weaknesses, and what undoes the plant beside the mend that is printed.
const WEAKNESSES: &[(&str, &str, &str)] = &[
    ("GRANT SELECT ON SEQUENCE ticket TO partywall_app", "sequence_readable:public.ticket", ""),
    ("ALTER ROLE partywall_app RESET log_min_messages", "server_logs_statements:log_min_messages", ""),
    ("ALTER ROLE partywall_app RESET log_min_error_statement", "server_logs_statements:log_min_error_statement", ""),
    ("ALTER ROLE partywall_app SET log_statement = 'all'", "server_logs_statements:log_statement", ""),
    (
        "ALTER ROLE partywall_app SET log_min_duration_statement = 0",
        "server_logs_statements:log_min_duration_statement",
        "",
    ),
    (
        "GRANT EXECUTE ON FUNCTION pg_stat_get_xact_tuples_inserted(oid) TO PUBLIC",
        "open_counters:pg_stat_get_xact_tuples_inserted(oid)",
        "hardening",
    ),
    (
        "GRANT EXECUTE ON FUNCTION pg_sequence_last_value(regclass) TO PUBLIC",
        "open_sequence_state:pg_sequence_last_value(regclass)",
        "hardening",
    ),
    ("DROP FUNCTION partywall_locks.number(text)", "lock_table:partywall_locks", "advisory"),
];

#[tokio::test]
async fn what_lets_a_tenant_fill_the_log_or_the_table_of_locks_is_found_and_each_mend_mends() {
    use partywall::provision::policies;
    let (shard, keys) = (sound_shard().await, key_file(KEYS));
    let admin = shard.admin().await;
    let plan = plan_of(&before(&shard, "guarded", Some(&keys)));
    for (plant, key, file) in WEAKNESSES {
        admin.batch_execute(plant).await.expect(plant);
        let found = attest(&plan).await.expect("is attested");
        assert_eq!(found.iter().map(Finding::key).collect::<Vec<_>>(), [*key], "{plant}");
        let mend = match *file {
            "hardening" => policies::HARDENING.sql,
            "advisory" => policies::ADVISORY.sql,
            _ => &found[0].mend,
        };
        assert!(file.is_empty() || found[0].mend.contains(file), "{:?}", found[0]);
        admin.batch_execute(mend).await.unwrap_or_else(|error| panic!("{mend}: {error:?}"));
        assert_eq!(attest(&plan).await.expect("is attested"), [], "{plant}: {mend}");
    }
    let options = ClusterOptions::default().setting("max_locks_per_transaction", "10").setting("max_connections", "60");
    let small = Shard::start_with(&options);
    let found = attest(&plan_of(&before(&small, "plain", None))).await.expect("is attested");
    let one = found.iter().find(|finding| finding.key() == "lock_table:max_locks_per_transaction").expect("is found");
    assert!(one.mend.starts_with("max_locks_per_transaction = 69 in"), "{one:?}");
}

#[tokio::test]
async fn a_tenants_errors_do_not_fill_the_servers_log() {
    let shard = sound_shard().await;
    let tenant = tenant(&shard).await;
    let log = || std::fs::metadata(shard.cluster.log_file()).expect("a log").len();
    let before = log();
    for sql in [
        "SELECT repeat('x', 1000000)::int",
        &format!("SELECT '{}'::int", "y".repeat(1_000_000)),
        &format!("SELEKT '{}'", "z".repeat(1_000_000)),
    ] {
        tenant.batch_execute(sql).await.expect_err("is an error");
    }
    assert!(log() - before < 100_000, "{} bytes", log() - before);
    for setting in ["log_min_messages", "log_min_error_statement", "log_statement"] {
        tenant.batch_execute(&format!("RESET {setting}")).await.expect_err("is not for tenants");
    }
}
