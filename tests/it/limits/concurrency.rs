//! How many statements of an organization run and wait at a time, and that every permit and place comes back.

use super::{Gate, Small, metric, until_waiting, waiting};
use crate::support::{Message, Proxy, Raw, Wire, until};

/// A session whose statement has been sent and stands at the gate, or in the line.
async fn asking(proxy: &Proxy, sql: &str) -> Raw {
    let mut raw = proxy.raw("acme").await;
    raw.send(Wire::new().query(sql)).await;
    raw
}

/// The one error that a statement ends with.
async fn error(raw: &mut Raw) -> Message {
    let messages = raw.until_ready().await;
    assert_eq!(messages.last().map(Message::brief).as_deref(), Some("ZI"), "{messages:?}");
    messages.into_iter().find(|message| message.tag == b'E').expect("an error")
}

#[tokio::test]
async fn twenty_sessions_run_five_statements_at_a_time_and_another_organization_goes_past_them() {
    let proxy = Small { concurrent: 5, ..Small::default() }.proxy(12).await;
    let gate = Gate::close().await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(asking(&proxy, &gate.sql()).await);
    }
    until_waiting(&proxy, 15).await;
    gate.until_standing(5).await;
    let mut other = proxy.raw("globex").await;
    for _ in 0..20 {
        assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    }
    assert_eq!((gate.standing().await, waiting(&proxy).await), (5, 15.0), "nobody has moved");
    gate.open().await;
    let mut answers = tokio::task::JoinSet::new();
    for mut raw in sessions {
        answers.spawn(async move { raw.until_ready().await.last().map(Message::brief) });
    }
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.expect("answered").as_deref(), Some("ZI"));
        assert!(gate.standing().await <= 5);
    }
}

#[tokio::test]
async fn the_permit_of_a_statement_that_is_cancelled_or_whose_client_vanishes_comes_back() {
    let proxy = Small { concurrent: 1, queued: 10, ..Small::default() }.proxy(4).await;
    let gate = Gate::close().await;
    for round in 0..3 {
        let mut running = asking(&proxy, &gate.sql()).await;
        gate.until_standing(1).await;
        let mut next = asking(&proxy, "SELECT 7").await;
        until_waiting(&proxy, 1).await;
        match round {
            0 => {
                running.cancel(proxy.address()).await;
                assert_eq!(error(&mut running).await.field(b'C'), "57014");
            }
            1 => drop(running),
            _ => {
                // Gone in the middle of a transaction, and of a message.
                running.send(Wire::new().bytes(b"Q\0\0\0\xffSELECT")).await;
                drop(running);
            }
        }
        assert_eq!(super::super::support::raw::brief(&next.until_ready().await), "T D(7) C(SELECT 1) ZI", "{round}");
    }
    gate.open().await;
}

#[tokio::test]
async fn a_full_line_refuses_at_once_and_whoever_leaves_it_makes_room_wherever_it_stood() {
    let proxy = Small { concurrent: 1, queued: 3, ..Small::default() }.proxy(4).await;
    let gate = Gate::close().await;
    let running = asking(&proxy, &gate.sql()).await;
    gate.until_standing(1).await;
    let mut line = Vec::new();
    for place in 1..=3 {
        line.push(asking(&proxy, "SELECT 7").await);
        until_waiting(&proxy, place).await;
    }
    let refused = error(&mut asking(&proxy, "SELECT 8").await).await;
    assert_eq!(refused.field(b'C'), "53400");
    assert!(refused.field(b'M').contains("tier \"small\" lets 1 run and 3 wait"), "{}", refused.field(b'M'));
    assert_eq!(refused.field(b'H'), "Run fewer statements at a time.");
    // Neither the first nor the last: a client that vanishes, and one that cancels.
    drop(line.remove(1));
    until("the place of who has left", async || {
        let mut raw = proxy.raw("acme").await;
        raw.send(Wire::new().query("SELECT 9")).await;
        let answer = tokio::time::timeout(std::time::Duration::from_millis(300), raw.until_ready()).await;
        // No answer: it waits.
        answer.is_err()
    })
    .await;
    let mut last = line.pop().expect("one more");
    last.cancel(proxy.address()).await;
    assert_eq!(error(&mut last).await.field(b'C'), "57014");
    drop(running);
    gate.open().await;
    assert_eq!(line[0].until_ready().await.last().map(Message::brief).as_deref(), Some("ZI"));
    assert!(metric(&proxy, "partywall_refusals_total{org_id=\"acme\",reason=\"queue_full\"}").await >= 1.0);
}

#[tokio::test]
async fn a_statement_that_waits_too_long_is_refused_and_its_session_goes_on() {
    let small = Small { concurrent: 1, more: "query_wait_timeout_s = 1", ..Small::default() };
    let proxy = small.proxy(4).await;
    let gate = Gate::close().await;
    let running = asking(&proxy, &gate.sql()).await;
    gate.until_standing(1).await;
    let mut simple = asking(&proxy, "SELECT 7").await;
    let mut extended = proxy.raw("acme").await;
    extended.send(Wire::new().parse("", "SELECT 7").bind("", "", &[]).execute("", 0).sync()).await;
    for raw in [&mut simple, &mut extended] {
        let refused = error(raw).await;
        assert_eq!(refused.field(b'C'), "53400");
        assert!(refused.field(b'M').contains("tier \"small\" lets 1 statements"), "{}", refused.field(b'M'));
    }
    assert_eq!(metric(&proxy, "partywall_refusals_total{org_id=\"acme\",reason=\"queue_timeout\"}").await, 2.0);
    drop(running);
    gate.open().await;
    assert_eq!(simple.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    assert_eq!(extended.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
}

#[tokio::test]
async fn an_organization_has_as_many_sessions_as_its_tier_allows() {
    let tiers =
        Small::default().tiers().replacen("max_client_connections = \"unlimited\"", "max_client_connections = 2", 2);
    let plan = Proxy::before(super::Shard::shared()).tiers(&tiers);
    let proxy = plan.sections("[organizations.acme]\ntier = \"small\"").start().await;
    let (first, _second) = (proxy.raw("acme").await, proxy.raw("acme").await);
    let no = proxy.connect_with(&proxy.client_config("acme")).await.expect_err("no third");
    assert_eq!(no.code().map(tokio_postgres::error::SqlState::code), Some("53300"));
    drop(first);
    until("the seat comes back", async || proxy.connect_with(&proxy.client_config("acme")).await.is_ok()).await;
}

#[tokio::test]
async fn an_organization_keeps_at_most_half_of_a_pools_connections() {
    let proxy = Small::default().proxy(4).await;
    let pinning = "CREATE TEMPORARY TABLE mine (a int)";
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = proxy.connect("acme").await;
        session.batch_execute(pinning).await.expect("a pin");
        sessions.push(session);
    }
    let third = proxy.connect("acme").await;
    let no = third.batch_execute(pinning).await.expect_err("no third");
    assert_eq!(no.code().map(tokio_postgres::error::SqlState::code), Some("53400"));
    let other = proxy.connect("globex").await;
    other.batch_execute(pinning).await.expect("another organization's pin");
    drop(sessions.pop());
    until("the pin comes back", async || third.batch_execute(pinning).await.is_ok()).await;
}

#[tokio::test]
async fn an_organization_pins_as_many_sessions_as_its_tier_allows() {
    let small = Small { more: "max_pins = 1", ..Small::default() };
    let proxy = small.proxy(8).await;
    let (first, second) = (proxy.connect("acme").await, proxy.connect("acme").await);
    let pinning = "CREATE TEMPORARY TABLE mine (a int)";
    first.batch_execute(pinning).await.expect("the first pin");
    let no = second.batch_execute(pinning).await.expect_err("no second");
    assert_eq!(no.code().map(tokio_postgres::error::SqlState::code), Some("53400"));
    proxy.connect("globex").await.batch_execute(pinning).await.expect("another organization's pin");
    drop(first);
    until("the pin comes back", async || second.batch_execute(pinning).await.is_ok()).await;
}
