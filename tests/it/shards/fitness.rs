//! A shard whose login role is too strong is not served, says why to the operator alone, and comes back when mended.

use super::{readyz, refused_login, standing};
use crate::support::{Proxy, Shard, until};

async fn alter(shard: &Shard, sql: &str) {
    shard.admin().await.batch_execute(sql).await.expect(sql);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_whose_role_is_too_strong_is_not_served_until_it_is_mended() {
    let shard = Shard::start();
    for (strong, mended, word) in [
        ("ALTER ROLE partywall_app SUPERUSER", "ALTER ROLE partywall_app NOSUPERUSER", "superuser"),
        ("ALTER ROLE partywall_app BYPASSRLS", "ALTER ROLE partywall_app NOBYPASSRLS", "BYPASSRLS"),
    ] {
        alter(&shard, strong).await;
        let proxy = Proxy::before(&shard).start().await;
        let (code, words) = refused_login(&proxy, "acme").await.expect("refused");
        assert_eq!(code, "57P03");
        assert!(!words.to_lowercase().contains(&word.to_lowercase()), "the client does not hear why: {words}");
        let reason = standing(&proxy, "shard_1").await.1.to_lowercase();
        assert!(reason.contains(&word.to_lowercase()) && readyz(&proxy).await.0 == 503, "{reason}");
        assert_eq!(shard.server_pids("%").await.len(), 0, "no connection is kept");
        alter(&shard, mended).await;
        until("it is served", async || refused_login(&proxy, "acme").await.is_none()).await;
        assert_eq!(proxy.raw("acme").await.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
        until("the board says so", async || readyz(&proxy).await.0 == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_whose_role_grows_too_strong_is_not_served_over_the_connections_there_are() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).start().await;
    let mut raw = proxy.raw("acme").await;
    let (mut a, mut b) = (proxy.raw("acme").await, proxy.raw("globex").await);
    // More than one connection.
    a.query("BEGIN").await;
    b.query("BEGIN").await;
    a.query("COMMIT").await;
    b.query("COMMIT").await;
    alter(&shard, "ALTER ROLE partywall_app SUPERUSER").await;
    alter(&shard, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'partywall_app' LIMIT 1")
        .await;
    until("it is not served", async || raw.query("SELECT 1").await == "E(57P03) ZI").await;
    until("no connection is kept", async || shard.server_pids("%").await.is_empty()).await;
    assert_eq!(a.query("SELECT 1").await, "E(57P03) ZI");
    alter(&shard, "ALTER ROLE partywall_app NOSUPERUSER").await;
    until("it is served", async || raw.query("SELECT 1").await == "T D(1) C(SELECT 1) ZI").await;
}
