//! Turns: what one organization's sessions send at once, or have judged, does not keep another's waiting until it is all done.

use super::{Shard, metric};
use crate::support::{Message, Proxy, Raw, Wire, raw, until};

/// Sixteen bytes that are refused.
const REFUSED: &str = "SET ROLE x";

async fn proxy() -> Proxy {
    // All sessions are of one data thread.
    Proxy::before(Shard::shared()).option("listen", "threads = 1").start().await
}

fn refused(count: usize) -> Wire {
    (0..count).fold(Wire::new(), |wire, _| wire.query(REFUSED))
}

/// How many answers have come that nobody has read.
fn answered(raw: &Raw) -> usize {
    let mut bytes = vec![0; 1 << 20];
    match raw.stream.try_read(&mut bytes) {
        Ok(count) => bytes[..count].windows(6).filter(|window| window.starts_with(b"Z\0\0\0\x05")).count(),
        Err(_) => 0,
    }
}

#[tokio::test]
async fn a_pipeline_of_refused_statements_lets_others_go_on_before_it_is_done() {
    let proxy = proxy().await;
    let mut other = proxy.raw("globex").await;
    // Each time of another organization, so that no rate makes it wait. Where a turn has no end, its first answer comes
    // when all are done.
    let mut between = 0;
    for round in 0..10 {
        let mut greedy = proxy.raw(&format!("greedy_{round}")).await;
        greedy.send(refused(200)).await;
        greedy.until_ready().await;
        other.send(Wire::new().query(REFUSED)).await;
        other.until_ready().await;
        let come = answered(&greedy);
        between += usize::from(come < 199);
    }
    assert!(between > 0, "the other one was answered after all of the pipeline, each time");
}

#[tokio::test]
async fn an_organization_whose_statements_are_refused_too_often_waits_and_others_do_not() {
    let proxy = proxy().await;
    let (mut greedy, mut other) = (proxy.raw("acme").await, proxy.raw("globex").await);
    let count = 1500;
    greedy.send(refused(count)).await;
    greedy.until_readies(500).await;
    for _ in 0..20 {
        assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    }
    let refusals = metric(&proxy, "partywall_refusals_total{org_id=\"acme\",reason=\"forbidden\"}").await;
    assert!((500.0..count as f64).contains(&refusals), "{refusals}");
    // It goes on, and a session that waits hears that it is to end.
    assert_eq!(raw::brief(&greedy.until_readies(1).await), "E(42501) ZI");
}

/// A text of that many bytes, refused for its end.
fn long_refused(bytes: usize, number: usize) -> String {
    format!("SELECT {number}{}; {REFUSED}", ",1".repeat(bytes / 2))
}

#[tokio::test]
async fn long_texts_of_one_organization_do_not_keep_anothers_from_being_judged() {
    let proxy = proxy().await;
    let mut greedy = Vec::new();
    for number in 0..40 {
        let mut raw = proxy.raw("acme").await;
        raw.send(Wire::new().query(&long_refused(100_000, number))).await;
        greedy.push(raw);
    }
    let mut last = greedy.pop().expect("one of them");
    // One of them is done: all have been sent, and the others wait.
    assert_eq!(raw::brief(&greedy[0].until_ready().await), "E(42501) ZI");
    let mut other = proxy.raw("globex").await;
    let long = format!("SELECT length('{}')", "x".repeat(20_000));
    assert_eq!(other.query(&long).await, "T D(20000) C(SELECT 1) ZI");
    // Whoever waits can give up, and its session goes on.
    last.cancel(proxy.address()).await;
    let no = last.until_ready().await;
    assert_eq!(no.first().map(|no| no.field(b'C')).as_deref(), Some("57014"), "{}", raw::brief(&no));
    let done = greedy[1..].iter().filter(|raw| answered(raw) > 0).count();
    assert!(done < 38, "the other one was judged after all of them");
    drop(greedy);
    // Who has left is not judged: what comes behind does not wait for them.
    assert_eq!(last.query(&long).await, "T D(20000) C(SELECT 1) ZI");
}

#[tokio::test]
async fn what_follows_a_long_text_is_answered_behind_it() {
    let proxy = proxy().await;
    let mut raw = proxy.raw("acme").await;
    let long = format!("SELECT length('{}')", "x".repeat(20_000));
    let wire = Wire::new().query(&long).query("SELECT 1").parse("", &long).bind("", "", &[]).execute("", 0).sync();
    let wire = wire.query(&long_refused(20_000, 1)).query("SELECT 2");
    let answers = raw.converse(wire, 5).await;
    let expected =
        "T D(20000) C(SELECT 1) ZI T D(1) C(SELECT 1) ZI 1 2 D(20000) C(SELECT 1) ZI E(42501) ZI T D(2) C(SELECT 1) ZI";
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn a_long_text_that_waits_too_long_to_be_judged_is_refused_and_its_session_goes_on() {
    let tiers = super::Small { more: "query_wait_timeout_s = 1", ..super::Small::default() };
    let proxy = tiers.proxy(4).await;
    let mut sessions = Vec::new();
    for number in 0..60 {
        let mut raw = proxy.raw("acme").await;
        raw.send(Wire::new().query(&long_refused(400_000, number))).await;
        sessions.push(raw);
    }
    let mut late = sessions.pop().expect("the last");
    let no = late.until_ready().await;
    let said = |code| no.first().map(|no: &Message| no.field(code)).unwrap_or_default();
    assert_eq!(said(b'C'), "53400", "{}", raw::brief(&no));
    assert!(said(b'M').contains("to be judged"), "{}", said(b'M'));
    drop(sessions);
    assert_eq!(late.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    until("nobody is left", async || metric(&proxy, "partywall_sessions{org_id=\"acme\"}").await <= 1.0).await;
}
