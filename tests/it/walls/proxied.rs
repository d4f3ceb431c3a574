//! The proxy before databases with a guarded or sealed context: it enters each session's, and nothing else has rows.

use std::io::Write as _;

use partywall::context::seal::{Form, KeyFile};
use partywall::provision::policies;
use tempfile::NamedTempFile;
use tokio_postgres::Client;

use super::KEYS;
use crate::support::{Plan, Proxy, Shard};

/// A shard whose context has that form; its keys are those of `shard_1`.
pub async fn shard(form: Form) -> Shard {
    let shard = Shard::start();
    let admin = shard.admin().await;
    for file in policies::of_form(form) {
        admin.batch_execute(file.sql).await.expect(file.name);
    }
    if form != Form::Plain {
        let keys = KeyFile::parse(KEYS).expect("keys").of_shard("shard_1");
        admin.batch_execute(&policies::keys_sql(&keys)).await.expect("takes keys");
    }
    shard
}

pub fn key_file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("writes");
    file
}

pub(super) fn before(shard: &Shard, form: &str, keys: Option<&NamedTempFile>) -> Plan {
    before_with(shard, form, keys, "refuse")
}

pub fn before_with(shard: &Shard, form: &str, keys: Option<&NamedTempFile>, on_breach: &str) -> Plan {
    let keys = keys.map_or(String::new(), |file| format!("seal_key_file = \"{}\"", file.path().display()));
    Proxy::before(shard)
        .option("check", &format!("on_breach = \"{on_breach}\""))
        .sections(&format!("[context]\nform = \"{form}\"\n{keys}"))
}

async fn bodies(client: &Client) -> Vec<String> {
    let rows = client.query("SELECT DISTINCT body FROM canary ORDER BY 1", &[]).await.expect("reads");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn hand_over(form: Form) {
    let shard = shard(form).await;
    let keys = key_file(KEYS);
    // One connection, so that each statement below is a hand-over.
    let proxy = before(&shard, "auto", Some(&keys)).pool_size(1).start().await;
    let (acme, globex, nobody) =
        (proxy.connect("acme").await, proxy.connect("globex").await, proxy.connect("nobody").await);
    for _ in 0..20 {
        assert_eq!(bodies(&acme).await, ["canary of acme"]);
        assert_eq!(bodies(&globex).await, ["canary of globex"]);
        assert!(bodies(&nobody).await.is_empty());
    }
    let org: String = acme.query_one("SELECT partywall.org()", &[]).await.expect("reads").get(0);
    assert_eq!(org, "acme");
    // In a transaction that is rolled back, and after an error.
    acme.batch_execute("BEGIN; INSERT INTO ledger (body) VALUES ('x'); ROLLBACK").await.expect("rolls back");
    assert!(acme.batch_execute("SELECT 1/0").await.is_err());
    assert_eq!(bodies(&globex).await, ["canary of globex"]);
    assert_eq!(bodies(&acme).await, ["canary of acme"]);
    // Past the proxy, the shared role's password opens no row.
    let thief = shard.cluster.connect_as(Shard::USER, &shard.password, Shard::DATABASE).await.expect("logs in");
    thief.batch_execute("SET app.current_org_id = 'acme'").await.expect("sets");
    assert!(bodies(&thief).await.is_empty());
}

#[tokio::test]
async fn sessions_are_handed_over_by_guarded_entries() {
    hand_over(Form::Guarded).await;
}

#[tokio::test]
async fn sessions_are_handed_over_by_standing_seals() {
    hand_over(Form::Sealed).await;
}

#[tokio::test]
async fn a_database_of_another_form_or_under_another_key_is_not_served() {
    let shard = shard(Form::Guarded).await;
    let (keys, wrong) = (key_file(KEYS), key_file(&KEYS.replace("1111", "3333")));
    for (form, keys) in [("plain", Some(&keys)), ("sealed", Some(&keys)), ("auto", None), ("guarded", Some(&wrong))] {
        let proxy = before(&shard, form, keys).start().await;
        let refused = async {
            let client = proxy.connect_with(&proxy.client_config("acme")).await?;
            client.query("SELECT * FROM canary", &[]).await.map(|_| ())
        };
        let error = refused.await.expect_err("is refused");
        assert_eq!(error.code().map(|code| code.code()), Some("57P03"), "{form}: {error:?}");
    }
}
