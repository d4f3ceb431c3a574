//! The program as it is started and stopped by people: signals, and what is left afterwards.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Program;
use crate::support::proxy::{psql, token};
use crate::support::raw::{Raw, Wire};
use crate::support::{Proxy, Shard, until};
use partywall::auth::mint::Grant;

/// The demo, in a process group of its own, as a shell would start it.
struct Demo {
    child: std::process::Child,
    folder: PathBuf,
}

impl Demo {
    /// Starts it and waits for its folder.
    fn start() -> Self {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(env!("CARGO_BIN_EXE_partywall"));
        command.args(["demo", "--port", "0", "--admin-port", "0"]).process_group(0).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the demo starts");
        let told = BufReader::new(child.stderr.take().expect("stderr"));
        let mut lines = told.lines().map_while(Result::ok);
        let first = lines.next().expect("a first line");
        std::thread::spawn(move || lines.for_each(drop));
        let folder = first.split_whitespace().last().map(PathBuf::from).expect("a folder");
        assert!(folder.is_dir(), "{first}");
        Self { child, folder }
    }

    /// The line that says that clients can connect.
    fn ready(&mut self) -> String {
        let mut lines = BufReader::new(self.child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        let ready = lines.find_map(|line| line.strip_prefix("ready: ").map(str::to_owned)).expect("a ready line");
        std::thread::spawn(move || lines.for_each(drop));
        ready
    }

    /// As a terminal does it: the whole process group hears.
    fn interrupt(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(-pid), signal).expect("the demo runs");
    }

    /// Waits for its end; nothing is left then.
    async fn leaves_nothing(mut self) {
        let status = self.child.try_wait();
        assert!(status.is_ok());
        until("the demo ends", async || self.child.try_wait().expect("it ran").is_some()).await;
        assert!(!self.folder.exists(), "{} is left", self.folder.display());
        let name = self.folder.display().to_string();
        assert_eq!(processes_with(&name), Vec::<String>::new(), "processes are left");
    }
}

/// The command lines of running processes that speak of `name`.
fn processes_with(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("a list of processes").map_while(Result::ok) {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(name) {
            found.push(line);
        }
    }
    found
}

#[tokio::test]
async fn the_demo_serves_over_tls_and_an_interrupt_leaves_nothing_even_while_statements_run() {
    let mut demo = Demo::start();
    let url = demo.ready();
    let asks = std::fs::read_to_string(demo.folder.join("tokens/acme-analyst.jwt")).expect("a token");
    let ca = demo.folder.join("tls/ca.crt");
    let verified = url.replace("sslmode=require", &format!("sslmode=verify-full&sslrootcert={}", ca.display()));
    let (content, out, complaint) =
        psql(&verified, asks.trim(), &["-Atc", "select org_id from runs group by org_id"]).await;
    assert!(content && out.trim() == "acme", "{out}{complaint}");
    let (content, _, complaint) = psql(&url, asks.trim(), &["-c", "update runs set status = 'failed'"]).await;
    assert!(!content && complaint.contains("only read"), "{complaint}");
    let running = psql(&url, asks.trim(), &["-c", "select pg_sleep(600)"]);
    let (ended, ()) = tokio::join!(running, async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        demo.interrupt(Signal::SIGINT);
        demo.leaves_nothing().await;
    });
    assert!(!ended.0, "the statement did not end by itself");
}

#[tokio::test]
async fn a_stop_during_the_demos_preparation_leaves_nothing() {
    let demo = Demo::start();
    until("initdb writes", async || {
        let clusters = std::fs::read_dir(&demo.folder).into_iter().flatten().map_while(Result::ok);
        clusters.filter(|entry| entry.path().join("data/base").exists() || entry.path().is_dir()).count() > 0
    })
    .await;
    demo.interrupt(Signal::SIGTERM);
    demo.leaves_nothing().await;
}

#[tokio::test]
async fn a_stopped_program_ends_sessions_at_their_safe_points() {
    let mut program = Program::serve(&Proxy::before(Shard::shared())).await;
    let address = ([127, 0, 0, 1], program.files.port).into();
    let grant = Grant {
        org: "acme".to_owned(),
        user: Some("ada".to_owned()),
        roles: vec!["developer".to_owned()],
        ttl_s: 3600,
        ..Grant::default()
    };
    let token = token(&grant);
    let mut idle = Raw::log_in(address, &token).await;
    let mut within = Raw::log_in(address, &token).await;
    let mut running = Raw::log_in(address, &token).await;
    assert!(within.query("begin").await.ends_with("ZT"));
    running.send(Wire::new().query("select pg_sleep(1)").query("select 2")).await;
    // Its second statement is on its way too, but nothing of it has been looked at before the first has ended.
    until("it runs", async || is_running("select pg_sleep(1)").await).await;
    program.signal(Signal::SIGTERM);
    let goodbye = idle.until_closed().await;
    assert_eq!(goodbye.first().map(|message| message.brief()).as_deref(), Some("E(57P01)"));
    assert_eq!(within.query("select count(*) from canary").await, "T D(100) C(SELECT 1) ZT", "a transaction goes on");
    within.send(Wire::new().query("commit")).await;
    let goodbye = within.until_closed().await;
    assert_eq!(goodbye.iter().map(|message| message.brief()).collect::<Vec<_>>(), ["C(COMMIT)", "ZI", "E(57P01)"]);
    let goodbye = running.until_closed().await;
    let heard: Vec<String> = goodbye.iter().map(|message| message.brief()).collect();
    assert!(heard.contains(&"C(SELECT 1)".to_owned()), "the statement has ended: {heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("E(57P01)"));
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn a_second_stop_hurries_and_cancels_what_runs() {
    let mut program = Program::serve(&Proxy::before(Shard::shared())).await;
    let address = ([127, 0, 0, 1], program.files.port).into();
    let grant = Grant { org: "acme".to_owned(), user: Some("ada".to_owned()), ttl_s: 3600, ..Grant::default() };
    let mut running = Raw::log_in(address, &token(&grant)).await;
    running.send(Wire::new().query("select pg_sleep(599)")).await;
    until("it runs", async || is_running("select pg_sleep(599)").await).await;
    program.signal(Signal::SIGTERM);
    program.signal(Signal::SIGINT);
    assert_eq!(running.until_closed().await.first().map(|message| message.brief()).as_deref(), Some("E(57P01)"));
    assert!(program.ended().await.success());
    assert!(!is_running("select pg_sleep(599)").await, "it was cancelled before the program ended");
}

async fn is_running(sql: &str) -> bool {
    let admin = Shard::shared().admin().await;
    let question = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid()";
    admin.query_one(question, &[&sql]).await.expect("looks").get::<_, i64>(0) > 0
}
