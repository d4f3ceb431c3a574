//! Places before login: who says nothing, or fails again and again, keeps nobody else out; and for whom a balancer dials.

use std::net::{IpAddr, SocketAddr};

use tokio::task::JoinSet;

use crate::support::proxy::Plan;
use crate::support::raw::{Raw, Wire};
use crate::support::{Message, Proxy, Shard, until};

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let proxy = Proxy::before(Shard::shared()).option("listen", "max_client_conn = 20").start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Raw::dial(proxy.address()).await);
    }
    // Each time the oldest of them gives way.
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(proxy.raw("acme").await);
    }
    assert!(silent[0].until_closed().await.is_empty(), "the oldest one is closed without a word");
    for session in &mut sessions {
        assert_eq!(session.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    }
}

#[tokio::test]
async fn who_has_logged_in_gives_way_to_nobody() {
    let proxy = Proxy::before(Shard::shared()).option("listen", "max_client_conn = 3").start().await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(proxy.raw("acme").await);
    }
    let mut fourth = Raw::dial(proxy.address()).await;
    let no = fourth.until_closed().await;
    assert_eq!(no.first().map(|no| no.field(b'C')).as_deref(), Some("53300"));
    for session in &mut sessions {
        assert_eq!(session.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_not_waited_for_as_long_as_a_login_may_take() {
    let proxy = Proxy::before(Shard::shared()).option("listen", "client_login_timeout_s = 3600").start().await;
    let mut silent = Raw::dial(proxy.address()).await;
    let mut begun = Raw::dial(proxy.address()).await;
    begun.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)])).await;
    assert!(silent.until_closed().await.is_empty());
    assert_eq!(begun.message().await.map(|message| message.tag), Some(b'R'));
    begun.send(Wire::new().password(&proxy.token("acme", "ada", &["developer"]))).await;
    assert_eq!(begun.until_ready().await.last().map(Message::brief).as_deref(), Some("ZI"));
}

/// Shows a token that nobody has signed; returns when it has been sent.
async fn bad_login(address: SocketAddr) -> Raw {
    let mut raw = Raw::dial(address).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)])).await;
    raw.message().await;
    raw.send(Wire::new().password("guess")).await;
    raw
}

#[tokio::test]
async fn fresh_tokens_are_taken_at_once_while_bad_ones_of_the_same_address_wait_for_their_answer() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut bad = JoinSet::new();
    for _ in 0..40 {
        let mut raw = bad_login(proxy.address()).await;
        bad.spawn(async move { raw.until_closed().await.first().map(Message::brief) });
    }
    let refused = "partywall_logins_refused_total{reason=\"invalid_token\"} 40";
    until("all have been looked at", async || proxy.metrics().await.contains(refused)).await;
    for user in ["eve", "bob", "zoe"] {
        let token = proxy.token("acme", user, &["developer"]);
        let mut raw = Raw::log_in(proxy.address(), &token).await;
        assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    }
    assert!(!bad.is_empty());
    while let Some(heard) = bad.join_next().await {
        assert_eq!(heard.expect("ends").as_deref(), Some("E(28P01)"));
    }
}

/// What a balancer sends first of a connection from `source`.
fn header(source: SocketAddr) -> Wire {
    let SocketAddr::V4(source) = source else { panic!("an IPv4 address") };
    let addresses = [&source.ip().octets()[..], &[127, 0, 0, 1], &source.port().to_be_bytes(), &[0x19, 0x20]].concat();
    Wire::new().bytes(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c").bytes(&addresses)
}

fn balanced(mode: &str, trusted: &str) -> Plan {
    Proxy::before(Shard::shared())
        .option("listen", &format!("proxy_protocol = \"{mode}\"\ntrusted_proxies = [\"{trusted}\"]"))
        .option("listen", "plaintext_passwords = \"always\"")
}

/// What a client hears first that connects by way of a balancer, and its connection.
async fn hears(proxy: &Proxy, first: Wire) -> (Option<Message>, Raw) {
    let mut raw = Raw::dial(proxy.address()).await;
    raw.send(first).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)])).await;
    (raw.message().await, raw)
}

/// A session of a client from `source`.
async fn session_from(proxy: &Proxy, source: &str) -> Raw {
    let (asked, mut raw) = hears(proxy, header(source.parse().expect("an address"))).await;
    assert_eq!(asked.map(|asked| asked.tag), Some(b'R'));
    raw.send(Wire::new().password(&proxy.token("acme", "ada", &["developer"]))).await;
    assert_eq!(raw.until_ready().await.last().map(Message::brief).as_deref(), Some("ZI"));
    raw
}

#[tokio::test]
async fn the_address_that_a_trusted_balancer_names_counts_for_caps_and_audit() {
    let plan = balanced("v2", "127.0.0.0/8").option("listen", "max_client_conn_per_address = 1");
    let proxy = plan.option("audit", "file = \"audit.jsonl\"").start().await;
    let first = session_from(&proxy, "198.51.100.1:4711").await;
    let _second = session_from(&proxy, "198.51.100.2:4711").await;
    let (no, _) = hears(&proxy, header("198.51.100.1:4712".parse().expect("an address"))).await;
    assert_eq!(no.map(|no| no.field(b'C')).as_deref(), Some("53300"));
    drop(first);
    until("the place comes back", async || {
        hears(&proxy, header("198.51.100.1:4713".parse().expect("an address"))).await.0.is_some_and(|it| it.tag == b'R')
    })
    .await;
    // One that comes without a balancer is itself.
    let _direct = proxy.raw("acme").await;
    let trail = proxy.files().folder().join("audit.jsonl");
    until("the audit trail names them", async || {
        let text = std::fs::read_to_string(&trail).unwrap_or_default();
        ["198.51.100.1", "198.51.100.2", "127.0.0.1"].iter().all(|address| text.contains(&format!("\"{address}\"")))
    })
    .await;
}

#[tokio::test]
async fn a_header_is_believed_from_trusted_addresses_only() {
    let header = || header("198.51.100.1:4711".parse().expect("an address"));
    let proxy = balanced("v2", "10.0.0.0/8").start().await;
    let (answer, _) = hears(&proxy, header()).await;
    assert_ne!(answer.map(|answer| answer.tag), Some(b'R'), "not from this address");
    proxy.raw("acme").await;
    let proxy = Proxy::before(Shard::shared()).start().await;
    assert_ne!(hears(&proxy, header()).await.0.map(|answer| answer.tag), Some(b'R'), "not unless it is asked for");
    // From a trusted one it does not make a client local.
    let trusted = "proxy_protocol = \"v2\"\ntrusted_proxies = [\"127.0.0.1\"]";
    let proxy = Proxy::before(Shard::shared()).tls().option("listen", trusted).start().await;
    let (no, _) = hears(&proxy, header()).await;
    assert_eq!(no.map(|no| no.field(b'C')).as_deref(), Some("28000"), "a token in clear text from afar");
}

#[tokio::test]
async fn where_a_header_is_required_nobody_comes_in_without_one() {
    let proxy = balanced("required", "127.0.0.1").start().await;
    let mut raw = session_from(&proxy, "198.51.100.1:4711").await;
    assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    assert_eq!(hears(&proxy, Wire::new()).await.0, None);
    // A balancer's health check.
    let (asked, _) = hears(&proxy, Wire::new().bytes(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")).await;
    assert_eq!(asked.map(|asked| asked.tag), Some(b'R'));
    for bad in [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], b"\r\n\r\n\0\r\nQUIT!\x21\x11\0\x0c123456789012"] {
        assert_eq!(hears(&proxy, Wire::new().bytes(bad)).await.0, None);
    }
    let proxy = balanced("required", "10.0.0.0/8").start().await;
    let strange: SocketAddr = (IpAddr::from([198, 51, 100, 1]), 1).into();
    assert_eq!(hears(&proxy, header(strange)).await.0, None);
}
