//! A context that the server has not confirmed: no statement runs under it, and none under the one before.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::scripted::Ran;
use crate::support::{Act, Proxy, Raw, Scripted, Shard, Wire, until};

/// Every statement ran on a connection that had confirmed the context of who sent it, with none in doubt.
fn assert_nothing_foreign(ran: &[Ran]) {
    for one in ran {
        let org = one.confirmed.as_deref().unwrap_or("nobody");
        assert!(!one.in_doubt && one.sql.contains(&format!("of {org}'")), "{one:?}\n{ran:#?}");
    }
}

const OF_GLOBEX: &str = "SELECT 'statement of globex'";

async fn acme_then_globex(server: &Scripted) -> (Proxy, Raw) {
    let plan = Proxy::before_port(server.port, "unused").pool_size(1);
    let proxy = plan.sections("[context]\nform = \"plain\"").start().await;
    let mut acme = proxy.raw("acme").await;
    assert_eq!(acme.query("SELECT 'statement of acme'").await, "C(SELECT 0) ZI");
    assert_eq!(server.connections(), 1);
    let globex = proxy.raw("globex").await;
    (proxy, globex)
}

#[tokio::test]
async fn a_context_that_is_not_confirmed_never_lets_a_statement_run_under_the_one_before() {
    let acts = [
        Act::Cancelled,
        Act::CancelledHalfWay,
        Act::ErrorAndSilence,
        Act::InTransaction,
        Act::InFailedTransaction,
        Act::Twice,
        Act::Garbage,
        Act::Unasked,
        Act::ImpossibleLength,
        Act::HalfAMessage,
        Act::Close,
    ];
    let one = |act: Act| async move {
        let server = Scripted::listen().await;
        let (_proxy, mut globex) = acme_then_globex(&server).await;
        server.next(&[act]);
        // Simple and extended by turns: both must wait for the confirmation.
        let simple = (act as usize).is_multiple_of(2);
        let wire = if simple {
            Wire::new().query(OF_GLOBEX)
        } else {
            Wire::new().parse("", OF_GLOBEX).bind("", "", &[]).execute("", 0).sync()
        };
        let heard = globex.converse(wire, 1).await;
        assert!(heard.ends_with("C(SELECT 0) ZI"), "{act:?}: tried again on another connection: {heard}");
        let ran = server.ran();
        assert_nothing_foreign(&ran);
        assert_eq!((ran.len(), ran[1].connection), (2, 1), "{act:?}: {ran:?}");
        // And when none will take it, the client hears no, and its statement has gone nowhere.
        server.next(&[act; 3]);
        let mut hooli = Raw::log_in(_proxy.address(), &_proxy.token("hooli", "ada", &["developer"])).await;
        let heard = hooli.query("SELECT 'statement of hooli'").await;
        assert_eq!(heard, "E(57P03) ZI", "{act:?}");
        assert_eq!(server.ran().len(), 2, "{act:?}: {:?}", server.ran());
        assert_eq!(hooli.query("SELECT 'statement of hooli'").await, "C(SELECT 0) ZI", "{act:?}: the session lives on");
        assert_nothing_foreign(&server.ran());
    };
    for act in acts {
        one(act).await;
    }
}

#[tokio::test]
async fn a_statement_waits_for_a_late_confirmation() {
    let server = Scripted::listen().await;
    let (proxy, mut globex) = acme_then_globex(&server).await;
    server.next(&[Act::Late]);
    globex.send(Wire::new().query(OF_GLOBEX)).await;
    until("globex is told", async || server.told() == 2).await;
    // A cancel now has nothing to hit: the context statement is ours.
    globex.cancel(proxy.address()).await;
    assert_eq!(server.ran().len(), 1, "nothing has run meanwhile");
    server.let_go();
    let heard = super::super::support::raw::brief(&globex.until_ready().await);
    assert!(["C(SELECT 0) ZI", "E(57014) ZI"].contains(&heard.as_str()), "{heard}");
    assert_nothing_foreign(&server.ran());
}

#[tokio::test]
async fn a_server_that_never_answers_a_context_costs_a_bounded_time() {
    let server = Scripted::listen().await;
    let (_proxy, mut globex) = acme_then_globex(&server).await;
    server.next(&[Act::Silence]);
    assert_eq!(globex.query(OF_GLOBEX).await, "C(SELECT 0) ZI", "on another connection, after ten seconds");
    assert_nothing_foreign(&server.ran());
}

#[tokio::test]
async fn a_client_that_leaves_while_its_context_is_told_leaves_no_connection_in_doubt() {
    let server = Scripted::listen().await;
    let (proxy, mut globex) = acme_then_globex(&server).await;
    server.next(&[Act::Late]);
    globex.send(Wire::new().query(OF_GLOBEX)).await;
    until("globex is told", async || server.told() == 2).await;
    drop(globex);
    // Who comes next does not get the connection that waits for globex' confirmation, nor its place before it is closed.
    let mut hooli = proxy.raw("hooli").await;
    hooli.send(Wire::new().query("SELECT 'statement of hooli'")).await;
    let closing = "partywall_pool_server_connections{shard=\"shard_1\",state=\"closing\"} 1";
    until("it is given up", async || proxy.metrics().await.contains(closing)).await;
    server.let_go();
    assert_eq!(super::super::support::raw::brief(&hooli.until_ready().await), "C(SELECT 0) ZI");
    assert_nothing_foreign(&server.ran());
    assert!(server.ran().iter().all(|ran| !ran.sql.contains("globex")));
    assert_eq!(server.connections(), 2);
}

/// Counts what was appended to the server's log since `from` that shows a context statement hit by a cancel.
fn contexts_hit(shard: &Shard, from: u64) -> usize {
    let mut file = std::fs::File::open(shard.cluster.log_file()).expect("a log");
    file.seek(SeekFrom::Start(from)).expect("seeks");
    let mut text = Vec::new();
    file.read_to_end(&mut text).expect("reads");
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let hit = |pair: &&[&str]| pair[0].contains("canceling statement") && pair[1].contains("SET \"app\"");
    lines.windows(2).filter(hit).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancels_out_of_nowhere_hit_contexts_and_still_nobody_reads_a_foreign_row() {
    const HITS: usize = 20;
    let shard = Shard::start();
    let log_from = std::fs::metadata(shard.cluster.log_file()).expect("a log").len();
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let done = AtomicBool::new(false);
    let storm = async {
        let admin = shard.admin().await;
        // In a loop on the server: a round trip for each would be too seldom to hit anything on a busy machine. The
        // pauses between differ, so that no rhythm of the sessions' can hide from them.
        let sql = "DO $$ DECLARE pids int[]; BEGIN \
            SELECT array_agg(pid) INTO pids FROM pg_stat_activity WHERE usename = 'partywall_app'; \
            FOR turn IN 1..300 LOOP \
                PERFORM pg_cancel_backend(pid) FROM unnest(pids) pid; \
                PERFORM count(*) FROM generate_series(1, (random() * 2000)::int); \
            END LOOP; END $$";
        let enough = async {
            while contexts_hit(&shard, log_from) < HITS {
                admin.batch_execute(sql).await.expect("cancels");
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(100), enough).await;
        done.store(true, Ordering::SeqCst);
        outcome.expect("cancels hit contexts");
    };
    let read = |org: &'static str| {
        let (proxy, done) = (&proxy, &done);
        async move {
            let mut raw = proxy.raw(org).await;
            let (own, mut rows) = (format!("D({org},{org})"), 0);
            while !done.load(Ordering::SeqCst) || rows == 0 {
                let sql = "SELECT DISTINCT org_id, current_setting('app.current_org_id') FROM canary WHERE id < 3";
                raw.send(Wire::new().query(sql)).await;
                let answer = raw.until_ready().await;
                assert!(!answer.is_empty(), "the session of {org} lives on");
                for message in answer.iter().filter(|message| message.tag == b'D') {
                    assert_eq!(message.brief(), own);
                    rows += 1;
                }
            }
        }
    };
    // Longer than others wait: hits come by chance, and seldom on a busy machine.
    let all = async { tokio::join!(storm, read("acme"), read("globex"), read("hooli")) };
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("the storm ends");
}
