//! The signals of an operator: pause and resume, end at once, and a drain that balancers can follow.

use nix::sys::signal::Signal;

use super::Program;
use crate::support::proxy::token;
use crate::support::raw::{Raw, Wire, brief};
use crate::support::{Proxy, Shard, until};
use partywall::auth::mint::Grant;

/// Counts the server connections that were opened.
const OPENED: &str = "partywall_pool_connects_total";

fn ada() -> String {
    token(&Grant { org: "acme".to_owned(), user: Some("ada".to_owned()), ttl_s: 3600, ..Grant::default() })
}

async fn log_in(program: &Program) -> Raw {
    Raw::log_in(([127, 0, 0, 1], program.files.port).into(), &ada()).await
}

/// The server processes whose last statement holds `sql`, whoever runs it.
async fn server_processes(sql: &str) -> i64 {
    let admin = Shard::shared().admin().await;
    let question =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid()";
    admin.query_one(question, &[&sql]).await.expect("looks").get(0)
}

#[tokio::test]
async fn usr1_lets_what_runs_end_and_holds_what_comes_until_usr2() {
    let mut program = Program::serve(&Proxy::before(Shard::shared())).await;
    let (mut within, mut idle) = (log_in(&program).await, log_in(&program).await);
    assert_eq!(within.query("begin").await, "C(BEGIN) ZT");
    program.signal(Signal::SIGUSR1);
    until("it is paused", async || program.log().contains("paused")).await;
    assert_eq!(within.query("select 'paused-7301'").await, "T D(paused-7301) C(SELECT 1) ZT", "a transaction goes on");
    assert_eq!(within.query("commit /* paused-7301 */").await, "C(COMMIT) ZI");
    until("its server connection is closed", async || server_processes("paused-7301").await == 0).await;

    let opened = program.metric_sum(OPENED).await;
    // Logging in needs no server connection; running a statement does.
    let mut new = log_in(&program).await;
    idle.send(Wire::new().query("select 'waits-7302'")).await;
    new.send(Wire::new().query("select 'waits-7303'")).await;
    until("both wait", async || program.metric_sum("partywall_pool_waiting").await == 2).await;
    assert_eq!(program.metric_sum(OPENED).await, opened, "no server connection is opened");
    assert_eq!(server_processes("waits-730").await, 0, "nothing reaches the server");
    program.signal(Signal::SIGUSR2);
    assert!(brief(&idle.until_ready().await).ends_with("D(waits-7302) C(SELECT 1) ZI"));
    assert!(brief(&new.until_ready().await).ends_with("D(waits-7303) C(SELECT 1) ZI"));
    program.signal(Signal::SIGTERM);
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn quit_ends_everything_at_once() {
    let mut program = Program::serve(&Proxy::before(Shard::shared())).await;
    let (mut within, mut running) = (log_in(&program).await, log_in(&program).await);
    assert_eq!(within.query("begin").await, "C(BEGIN) ZT");
    running.send(Wire::new().query("select pg_sleep(598)")).await;
    until("the statement runs", async || server_processes("pg_sleep(598)").await > 0).await;
    program.signal(Signal::SIGQUIT);
    for ended in [&mut within, &mut running] {
        let goodbye = ended.until_closed().await;
        assert_eq!(goodbye.last().map(|message| message.brief()).as_deref(), Some("E(57P01)"));
    }
    assert!(program.ended().await.success());
    until("what ran is cancelled", async || server_processes("pg_sleep(598)").await == 0).await;
}

#[tokio::test]
async fn a_drain_begins_with_a_while_in_which_clients_are_taken_and_readyz_says_no() {
    let plan = Proxy::before(Shard::shared()).option("listen", "drain_delay_s = 3600\ndrain_timeout_s = 3600");
    let mut program = Program::serve(&plan).await;
    until("it is ready", async || program.readyz().await == 200).await;
    let (log, listens) = (program.log(), format!("listen=127.0.0.1:{}", program.files.port));
    let serving = log.lines().find(|line| line.contains("serving")).expect("it says what it serves");
    for fact in ["version=", "commit=", "grammar=", "pid=", &listens, "shards=\"shard_1\"", "partywall.toml"] {
        assert!(serving.contains(fact), "{fact}: {serving}");
    }
    let mut before = log_in(&program).await;
    program.signal(Signal::SIGTERM);
    until("it says that it drains", async || program.readyz().await == 503).await;
    assert_eq!(before.query("select 1").await, "T D(1) C(SELECT 1) ZI", "a session goes on");
    let mut late = log_in(&program).await;
    assert_eq!(late.query("select 1").await, "T D(1) C(SELECT 1) ZI", "and a new one is taken");
    program.signal(Signal::SIGINT);
    assert_eq!(late.until_closed().await.first().map(|message| message.brief()).as_deref(), Some("E(57P01)"));
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn a_drain_ends_after_its_timeout_whatever_runs() {
    let plan = Proxy::before(Shard::shared()).option("listen", "drain_timeout_s = 0");
    let mut program = Program::serve(&plan).await;
    let mut within = log_in(&program).await;
    assert_eq!(within.query("begin").await, "C(BEGIN) ZT");
    program.signal(Signal::SIGTERM);
    assert_eq!(within.until_closed().await.first().map(|message| message.brief()).as_deref(), Some("E(57P01)"));
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn a_drain_takes_nothing_new_from_who_always_has_statements_under_way() {
    let plan = Proxy::before(Shard::shared()).option("listen", "drain_timeout_s = 3600");
    let mut program = Program::serve(&plan).await;
    let mut raw = log_in(&program).await;
    // Long enough that a slow machine sends the next one in time.
    let slow = "SELECT 1 FROM pg_sleep(0.3)";
    let statement = || Wire::new().query(slow);
    raw.send(statement().query(slow).query(slow).query(slow)).await;
    assert!(brief(&raw.until_readies(2).await).ends_with("ZI"));
    program.signal(Signal::SIGTERM);
    let mut last = Vec::new();
    while let Some(message) = raw.message().await {
        if message.tag == b'Z' {
            last.clear();
            raw.send(statement()).await;
        }
        last.push(message);
    }
    assert_eq!(brief(&last), "ZI E(57P01)");
    assert!(program.ended().await.success());
}
