//! A shard that goes and comes back: its sessions hear one error for what was in flight, and other shards nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use partywall::provision::Stop;

use super::{PLACES, readyz, refused_login, standing};
use crate::support::{Proxy, Shard, Wire, raw::brief, until};

/// A session that runs statements until it is told to stop, and what came of them.
#[derive(Default)]
struct Worker {
    good: AtomicUsize,
    errors: Mutex<BTreeMap<String, usize>>,
}

impl Worker {
    fn good(&self) -> usize {
        self.good.load(Ordering::SeqCst)
    }

    fn note(&self, answer: &str, fine: &str) {
        if answer == fine {
            self.good.fetch_add(1, Ordering::SeqCst);
            return;
        }
        // One error, at the place of the answer, and the session goes on outside any transaction.
        let error = answer.strip_suffix(" ZI").and_then(|rest| rest.rsplit(' ').next());
        let error = error.unwrap_or_else(|| panic!("not an error of a statement: {answer}"));
        assert!(error.starts_with("E(") && answer.matches("E(").count() == 1, "{answer}");
        *self.errors.lock().expect("a lock").entry(error.to_owned()).or_default() += 1;
    }
}

/// Sessions of an organization, each doing another kind of work.
async fn workers(proxy: &Arc<Proxy>, org: &str, stop: &Arc<AtomicBool>) -> Vec<Arc<Worker>> {
    let mut workers = Vec::new();
    for kind in 0..6 {
        let mut raw = proxy.raw(org).await;
        let (worker, stop, proxy) = (Arc::new(Worker::default()), Arc::clone(stop), Arc::clone(proxy));
        workers.push(Arc::clone(&worker));
        let named = Wire::new().parse("kept", "SELECT 3").sync();
        assert_eq!(raw.converse(named, 1).await, "1 ZI");
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let (wire, fine) = match kind {
                    0 => (Wire::new().query("SELECT 1"), "T D(1) C(SELECT 1) ZI"),
                    1 => (Wire::new().query("SELECT 1 FROM pg_sleep(0.05)"), "T D(1) C(SELECT 1) ZI"),
                    2 => (Wire::new().bind("", "kept", &[]).execute("", 0).sync(), "2 D(3) C(SELECT 1) ZI"),
                    3 => {
                        let sql = "SELECT 1 FROM pg_sleep(0.03)";
                        (Wire::new().parse("", sql).bind("", "", &[]).execute("", 0).sync(), "1 2 D(1) C(SELECT 1) ZI")
                    }
                    4 => {
                        let sql = "BEGIN; SELECT 1 FROM pg_sleep(0.03); COMMIT";
                        (Wire::new().query(sql), "C(BEGIN) T D(1) C(SELECT 1) C(COMMIT) ZI")
                    }
                    _ => (Wire::new().query("COPY (SELECT 1) TO STDOUT"), "H d c C(COPY 1) ZI"),
                };
                raw.send(wire).await;
                let answer = tokio::time::timeout(crate::support::PATIENCE / 2, raw.until_ready()).await;
                let Ok(answer) = answer else {
                    let page = proxy.metrics().await;
                    panic!("worker {kind} has no answer: {page}");
                };
                worker.note(&brief(&answer), fine);
                if kind != 1 {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            }
        });
    }
    workers
}

async fn all_go_on(workers: &[Arc<Worker>], what: &str) {
    let before: Vec<usize> = workers.iter().map(|worker| worker.good()).collect();
    until(what, async || workers.iter().zip(&before).all(|(worker, before)| worker.good() > before + 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_stopped_and_started_under_load_hurts_only_what_is_in_flight_on_it() {
    let (mut first, second) = (Shard::start(), Shard::shared());
    let proxy = Arc::new(Proxy::before(&first).and(second).sections(PLACES).start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let hurt = workers(&proxy, "acme", &stop).await;
    let unhurt = workers(&proxy, "globex", &stop).await;
    for how in ["fast", "immediate", "kill -9"] {
        all_go_on(&hurt, "work before").await;
        let before: usize = hurt.iter().map(|worker| in_flight(worker)).sum();
        tokio::task::block_in_place(|| match how {
            "fast" => first.cluster.stop(Stop::Fast),
            "immediate" => first.cluster.stop(Stop::Immediate),
            _ => first.cluster.kill(),
        })
        .expect("stops");
        until("logins are refused", async || refused_login(&proxy, "acme").await.is_some()).await;
        let (code, words) = refused_login(&proxy, "acme").await.expect("refused");
        assert_eq!((code.as_str(), words.contains("not available")), ("57P03", true), "{words}");
        until("the board says so", async || standing(&proxy, "shard_1").await.0 == "down").await;
        assert_eq!((readyz(&proxy).await.0, standing(&proxy, "shard_2").await.0.as_str()), (200, "up"));
        let health = reqwest::get(format!("http://{}/healthz", proxy.admin_address())).await.expect("answers");
        assert_eq!(health.status().as_u16(), 200);
        all_go_on(&unhurt, "the other shard while the first is down").await;
        assert_eq!(refused_login(&proxy, "globex").await, None);
        tokio::task::block_in_place(|| first.cluster.restart()).expect("starts again");
        all_go_on(&hurt, &format!("work after {how}, in the same sessions")).await;
        until("logins work again", async || refused_login(&proxy, "acme").await.is_none()).await;
        until("the board says so again", async || standing(&proxy, "shard_1").await.0 == "up").await;
        // At most one statement of each session was in flight when it ended, and one more met a connection that had
        // just gone.
        let after: usize = hurt.iter().map(|worker| in_flight(worker)).sum();
        assert!(after - before <= 2 * hurt.len(), "{how}: {}", after - before);
    }
    stop.store(true, Ordering::SeqCst);
    for worker in &hurt {
        let errors = worker.errors.lock().expect("a lock");
        assert!(errors.keys().all(|error| ["E(57P01)", "E(57P03)"].contains(&error.as_str())), "{errors:?}");
    }
    for worker in &unhurt {
        assert!(worker.errors.lock().expect("a lock").is_empty());
    }
}

/// Errors of statements that were lost with their server, not refused because there was none.
fn in_flight(worker: &Worker) -> usize {
    let errors = worker.errors.lock().expect("a lock");
    errors.iter().filter(|(error, _)| *error != "E(57P03)").map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_down_at_the_start_is_served_when_it_comes() {
    let (mut first, second) = (Shard::start(), Shard::shared());
    tokio::task::block_in_place(|| first.cluster.stop(Stop::Fast)).expect("stops");
    let proxy = Proxy::before(&first).and(second).sections(PLACES).start().await;
    assert_eq!(refused_login(&proxy, "acme").await.map(|(code, _)| code).as_deref(), Some("57P03"));
    assert_eq!(proxy.raw("globex").await.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    let (state, reason) = standing(&proxy, "shard_1").await;
    assert!(state == "down" && reason.contains("cannot connect"), "{reason}");
    tokio::task::block_in_place(|| first.cluster.restart()).expect("starts");
    until("it is served", async || refused_login(&proxy, "acme").await.is_none()).await;
    assert_eq!(proxy.raw("acme").await.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    until("the board says so", async || standing(&proxy, "shard_1").await.0 == "up").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_dies_while_nobody_uses_it_is_noticed() {
    let mut shard = Shard::start();
    let proxy = Proxy::before(&shard).start().await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    tokio::task::block_in_place(|| shard.cluster.stop(Stop::Fast)).expect("stops");
    until("the board says so", async || readyz(&proxy).await.0 == 503).await;
    assert_eq!(refused_login(&proxy, "acme").await.map(|(code, _)| code).as_deref(), Some("57P03"));
    assert_eq!(raw.query("SELECT 1").await, "E(57P03) ZI");
    let extended = || Wire::new().parse("", "SELECT 1").bind("", "", &[]).execute("", 0).sync();
    assert_eq!(raw.converse(extended(), 1).await, "E(57P03) ZI");
    tokio::task::block_in_place(|| shard.cluster.restart()).expect("starts");
    until("it is served", async || raw.query("SELECT 1").await == "T D(1) C(SELECT 1) ZI").await;
    assert_eq!(raw.converse(extended(), 1).await, "1 2 D(1) C(SELECT 1) ZI");
}
