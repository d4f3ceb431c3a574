//! Server connections come, go and are lost: only what was on them is hurt, and everything comes back by itself.

mod connections;
mod fitness;
mod outages;

use crate::support::{Proxy, Shard, Wire};

/// acme lives on shard 1, globex on shard 2.
pub(super) const PLACES: &str =
    "[organizations.acme]\nshard = \"shard_1\"\n\n[organizations.globex]\nshard = \"shard_2\"\n";

/// What `/readyz` answers: the status, and its words.
pub(super) async fn readyz(proxy: &Proxy) -> (u16, serde_json::Value) {
    let answer =
        reqwest::get(format!("http://{}/readyz", proxy.admin_address())).await.expect("the admin door is open");
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.expect("text")).expect("JSON"))
}

/// How `/readyz` says that a shard stands, and why.
pub(super) async fn standing(proxy: &Proxy, shard: &str) -> (String, String) {
    let (_, body) = readyz(proxy).await;
    let shards = body["shards"].as_array().expect("shards");
    let shard = shards.iter().find(|known| known["name"] == shard).expect("the shard");
    let text = |key: &str| shard[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason"))
}

/// The code and the words with which a login is refused; none when it is not.
pub(super) async fn refused_login(proxy: &Proxy, org: &str) -> Option<(String, String)> {
    let mut raw = crate::support::Raw::dial(proxy.address()).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)])).await;
    raw.send(Wire::new().password(&proxy.token(org, "ada", &["developer"]))).await;
    loop {
        let message = raw.message().await.expect("an answer to the login");
        match message.tag {
            b'E' => return Some((message.field(b'C'), message.field(b'M'))),
            b'Z' => return None,
            _ => {}
        }
    }
}
