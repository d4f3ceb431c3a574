//! Clients that take more than their part: huge values, huge results, no reading, too many connections.

use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;

use super::{Program, metric};
use crate::support::proxy::token;
use crate::support::raw::{Message, Raw, Wire};
use crate::support::{Proxy, Shard, scaled, soon, until};
use partywall::auth::mint::Grant;

pub(super) fn developer(org: &str) -> String {
    token(&Grant {
        org: org.to_owned(),
        user: Some("ada".to_owned()),
        roles: vec!["developer".to_owned()],
        ttl_s: 3600,
        ..Grant::default()
    })
}

/// What the program may use at the most, whatever passes through it.
const MEMORY_KB_MAX: u64 = 64 * 1024;

#[tokio::test]
async fn a_result_of_two_gigabytes_and_values_of_200_megabytes_pass_through_64_megabytes() {
    let program = Program::serve(&Proxy::before(Shard::shared())).await;
    let address = ([127, 0, 0, 1], program.files.port).into();
    let mut raw = Raw::log_in(address, &developer("acme")).await;
    // A hundred times 100 by 100 rows of 2 KB.
    let times = scaled(100);
    let sql = "select repeat('x', 2000) from canary a, canary b, generate_series(1, $1::int)";
    let wire = Wire::new().parse("", sql).bind("", "", &[&times.to_string()]).execute("", 0).sync();
    raw.send(wire).await;
    let bytes = drained(&mut raw).await;
    assert!(bytes > 10_000 * 2000 * times as u64, "{bytes} bytes");

    // In as a parameter, out as a value.
    let size = scaled(200 << 20);
    let value = "v".repeat(size);
    let wire = Wire::new().parse("", "select length($1::text)").bind("", "", &[&value]).execute("", 0).sync();
    drop(value);
    let answer = raw.converse(wire, 1).await;
    assert!(answer.contains(&format!("D({size})")), "{answer}");
    raw.send(Wire::new().query(&format!("select repeat('w', {size})"))).await;
    assert!(drained(&mut raw).await > size as u64);
    let peak = program.memory_kb("VmHWM:");
    assert!(peak < MEMORY_KB_MAX, "the program used {peak} kB");
    assert_eq!(raw.query("select 1").await, "T D(1) C(SELECT 1) ZI");
}

/// Reads to ReadyForQuery without keeping anything; how many bytes came.
async fn drained(raw: &mut Raw) -> u64 {
    let (mut buffer, mut total, mut last) = (vec![0; 1 << 20], 0, Vec::new());
    while !last.ends_with(b"Z\0\0\0\x05I") {
        let count = soon("more of the result", raw.stream.read(&mut buffer)).await.expect("it goes on");
        assert!(count > 0, "the connection ended after {total} bytes");
        total += count as u64;
        last.extend_from_slice(&buffer[count.saturating_sub(6)..count]);
        last.drain(..last.len().saturating_sub(6));
    }
    total
}

const SHORT: &str = "default = \"short\"\n[tiers.short]\nquery_timeout_seconds = 1\nmax_result_size_mb = \"unlimited\"\n\
                     max_client_connections = 3\nmax_concurrent_queries = \"unlimited\"\n";

/// Rows without end, sent as they are made.
const ENDLESS: &str = "select repeat('x', 1000) from canary a, canary b, canary c, canary d";

#[tokio::test]
async fn a_client_that_stops_reading_holds_nothing_but_its_own_connection() {
    let plan = Proxy::before(Shard::shared()).pool_size(2).tiers(SHORT);
    let program = Program::serve(&plan).await;
    let address = ([127, 0, 0, 1], program.files.port).into();
    let begun = [
        Wire::new().query(ENDLESS),
        // The clock of the second statement of a pipeline runs as well.
        Wire::new().query("select 1").query(ENDLESS),
    ];
    for wire in begun {
        let mut deaf = Raw::log_in(address, &developer("acme")).await;
        deaf.send(wire).await;
        soon("its result has begun", deaf.stream.readable()).await.expect("readable");
        let mut other = Raw::log_in(address, &developer("globex")).await;
        assert_eq!(other.query("select count(*) from canary").await, "T D(100) C(SELECT 1) ZI");
        // Without having read anything, it finds its connection at its end after the rest of what was under way.
        let url = format!("http://127.0.0.1:{}/metrics", program.files.admin_port);
        until("its statement is over, and its connection is back or closed", async || {
            let text = reqwest::get(&url).await.expect("metrics").text().await.expect("text");
            metric(&text, "partywall_pool_server_connections{shard=\"shard_1\",state=\"active\"}") < 1.0
                && text.contains("partywall_pool_leases_total")
        })
        .await;
        drop(deaf);
    }
    assert!(program.memory_kb("VmHWM:") < MEMORY_KB_MAX);
    program.signal(Signal::SIGTERM);
}

async fn refused(proxy: &Proxy, org: &str) -> String {
    let mut raw = Raw::dial(proxy.address()).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]).password(&developer(org))).await;
    let answer = raw.until_closed().await;
    let error = answer.iter().find(|message| message.tag == b'E');
    error.map(Message::brief).unwrap_or_default()
}

#[tokio::test]
async fn connections_are_bounded_and_seats_come_back() {
    let proxy = Proxy::before(Shard::shared())
        .tiers(SHORT)
        .option("listen", "max_client_conn = 5\nmax_client_conn_per_address = 4")
        .start()
        .await;
    for round in 0..2 {
        let seated = [proxy.raw("acme").await, proxy.raw("acme").await, proxy.raw("acme").await];
        assert_eq!(refused(&proxy, "acme").await, "E(53300)", "round {round}: a fourth of one organization");
        let other = {
            // The place of who was refused comes back a moment after its answer.
            until("there is a place", async || refusal_or_none(&proxy, "globex").await.is_none()).await;
            proxy.raw("globex").await
        };
        assert_eq!(refused(&proxy, "globex").await, "E(53300)", "round {round}: a fifth from one address");
        drop((seated, other));
        until("all seats have come back", async || {
            let text = proxy.metrics().await;
            metric(&text, "partywall_client_connections{org_id=\"acme\"}") < 1.0
                && refusal_or_none(&proxy, "acme").await.is_none()
        })
        .await;
    }
}

async fn refusal_or_none(proxy: &Proxy, org: &str) -> Option<String> {
    let mut raw = Raw::dial(proxy.address()).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]).password(&developer(org))).await;
    let answer = raw.until_ready().await;
    raw.send(Wire::new().terminate()).await;
    raw.until_closed().await;
    answer.iter().find(|message| message.tag == b'E').map(Message::brief)
}
