//! Who a token speaks for, as the database sees it: organizations in every spelling, roles with commas, several at once.

mod inspect;
mod page;

use std::time::{SystemTime, UNIX_EPOCH};

use partywall::auth::mint::SigningKey;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::{Proxy, Shard};

const SECRET: &str = "a secret of the tests, at least thirty-two bytes long";
const UUID: &str = "3f0c9a52-0000-4000-8000-0000000000ab";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn signed(mut claims: Value) -> String {
    claims["exp"] = (now() + 600).into();
    SigningKey::from_secret(SECRET.as_bytes()).expect("a key").sign(&claims).expect("a token")
}

/// A session with these claims, or the SQLSTATE of the no.
async fn session(proxy: &Proxy, claims: Value, database: &str) -> Result<Client, String> {
    let mut config = proxy.client_config("acme");
    config.password(signed(claims)).dbname(database);
    proxy
        .connect_with(&config)
        .await
        .map_err(|error| error.code().map_or(error.to_string(), |code| code.code().to_owned()))
}

/// What a session of `org` reads, or the SQLSTATE of its no.
async fn reads(proxy: &Proxy, org: &str, sql: &str) -> Result<String, String> {
    let client = session(proxy, json!({ "org": org, "roles": ["developer"] }), Shard::DATABASE).await?;
    let row = client.query_one(sql, &[]).await.map_err(|error| error.to_string())?;
    Ok(row.get(0))
}

#[tokio::test]
async fn organizations_are_compared_as_the_database_compares_them() {
    let shard = Shard::start();
    let admin = shard.admin().await;
    admin
        .batch_execute(&format!(
            "CREATE TABLE by_number (org_id bigint NOT NULL, body text NOT NULL);
             CREATE TABLE by_uuid (org_id uuid NOT NULL, body text NOT NULL);
             INSERT INTO by_number VALUES (7, 'seven'), (8, 'eight');
             INSERT INTO by_uuid VALUES ('{UUID}', 'the uuid');
             GRANT SELECT ON by_number, by_uuid TO partywall_app;
             SELECT partywall.protect('public.by_number'), partywall.protect('public.by_uuid')"
        ))
        .await
        .expect("tables");
    let number = "SELECT string_agg(body || ' of ' || current_setting('app.current_org_id'), ',') FROM by_number";
    let by_type = |kind: &str, suspended: &str| {
        Proxy::before(&shard)
            .option("auth", &format!("organization_type = \"{kind}\""))
            .sections(&format!("[organizations.\"{suspended}\"]\nstatus = \"suspended\""))
    };
    let numbers = by_type("bigint", "08").start().await;
    for spelling in ["7", "07", "0007"] {
        assert_eq!(reads(&numbers, spelling, number).await.as_deref(), Ok("seven of 7"), "{spelling}");
    }
    for spelling in ["8", "08", "0008"] {
        assert_eq!(reads(&numbers, spelling, number).await, Err("28000".to_owned()), "{spelling}");
    }
    assert_eq!(reads(&numbers, "acme", number).await, Err("28P01".to_owned()));
    // Where nobody has said what the column is, only the usual spelling is served.
    let unsaid = by_type("auto", "8").start().await;
    assert_eq!(reads(&unsaid, "7", number).await.as_deref(), Ok("seven of 7"));
    for spelling in ["07", "8", "08", "0x8", "8.0"] {
        assert_eq!(reads(&unsaid, spelling, number).await, Err("28000".to_owned()), "{spelling}");
    }
    let uuid = "SELECT string_agg(body, ',') FROM by_uuid";
    let upper = UUID.to_ascii_uppercase();
    assert_eq!(reads(&unsaid, &upper, uuid).await.as_deref(), Ok("the uuid"));
    let uuids = by_type("uuid", &UUID.replace('-', "")).start().await;
    for spelling in [UUID, &upper, &UUID.replace('-', "")] {
        assert_eq!(reads(&uuids, spelling, uuid).await, Err("28000".to_owned()), "{spelling}");
    }
}

#[tokio::test]
async fn a_role_with_a_comma_reaches_the_database_as_one() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let roles = json!(["developer", "CN=DB Admins,OU=Groups", "x,admin", "100%", "odd\nrole"]);
    let client = session(&proxy, json!({ "org": "acme", "roles": roles }), "acme").await.expect("logs in");
    let row = client.query_one("SELECT current_setting('app.current_roles')", &[]).await.expect("reads");
    assert_eq!(row.get::<_, &str>(0), "developer,CN=DB Admins%2COU=Groups,x%2Cadmin,100%25");
}

#[tokio::test]
async fn a_token_whose_only_role_cannot_be_read_has_no_default_rights() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let may_read = async |claims: Value| {
        let client = session(&proxy, claims, "acme").await.expect("logs in");
        client.query_one("SELECT count(*) FROM canary", &[]).await.is_ok()
    };
    assert!(may_read(json!({ "org": "acme" })).await);
    assert!(!may_read(json!({ "org": "acme", "roles": ["odd\nrole"] })).await);
    assert!(!may_read(json!({ "org": "acme", "roles": { "developer": false } })).await);
}

#[tokio::test]
async fn the_database_chooses_among_the_organizations_of_a_token() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let claims = || json!({ "org": { "acme": { "id": "1" }, "globex": { "id": "2" } }, "roles": ["developer"] });
    for org in ["acme", "globex"] {
        let client = session(&proxy, claims(), org).await.expect("logs in");
        let rows = client.query("SELECT DISTINCT body FROM canary", &[]).await.expect("reads");
        let bodies: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(bodies, [format!("canary of {org}")]);
    }
    for database in ["initech", Shard::DATABASE, "id"] {
        assert_eq!(session(&proxy, claims(), database).await.err().as_deref(), Some("3D000"), "{database}");
    }
}
