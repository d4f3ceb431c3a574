//! The crown: between two organizations on one server connection nothing passes, whatever happens to either.

mod context;

mod cut;
mod handover;
mod leftovers;
mod poison;
mod prepared;
mod turns;

use crate::support::{Proxy, Shard};

#[tokio::test]
async fn each_organization_reads_its_own_rows_over_one_server_connection() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let (acme, globex) = (proxy.connect("acme").await, proxy.connect("globex").await);
    for (client, org) in [(&acme, "acme"), (&globex, "globex"), (&acme, "acme")] {
        let sql = "SELECT DISTINCT org_id, current_setting('app.current_org_id') FROM canary";
        let rows = client.query(sql, &[]).await.expect("reads");
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].get(0), rows[0].get(1)), (org, org));
    }
    let (content, out, complaints) = proxy.psql("hooli", &["-Atc", "SELECT min(body) FROM canary"]).await;
    assert!(content && out == "canary of hooli\n", "{out} {complaints}");
    let mut raw = proxy.raw("initech").await;
    assert_eq!(raw.query("SELECT count(*) FROM canary").await, "T D(100) C(SELECT 1) ZI");
    assert!(proxy.metrics().await.contains("partywall_"));
}
