//! Throw-away clusters start, stop, survive what tests do to them, and leave nothing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use partywall::provision::{Cluster, ClusterOptions, Stop};

fn alive(pid: u32) -> bool {
    // No signal asks only whether the process is there.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    nix::sys::signal::kill(pid, None).is_ok()
}

/// Waits for a condition; a test that runs into the bound fails.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn number(cluster: &Cluster, sql: &str) -> i64 {
    let client = cluster.connect("postgres").await.expect("connects");
    client.query_one(sql, &[]).await.expect("answers").get(0)
}

#[tokio::test]
async fn a_cluster_starts_survives_a_restart_and_a_kill_and_leaves_nothing() {
    let options = ClusterOptions::default().setting("application_name", "it's set");
    let mut cluster = Cluster::start_with(&options).expect("starts");
    let port = cluster.port();
    cluster.run("postgres", "CREATE TABLE kept AS SELECT 42::int8 AS n").await.expect("runs");
    let client = cluster.connect("postgres").await.expect("connects");
    let row = client.query_one("SHOW application_name", &[]).await.expect("shows");
    assert_eq!(row.get::<_, String>(0), "it's set");

    cluster.set("work_mem", "5MB").expect("is written");
    cluster.restart().expect("restarts");
    assert_eq!(cluster.port(), port);
    assert!(client.simple_query("SELECT 1").await.is_err(), "a restart ends sessions");
    assert_eq!(number(&cluster, "SELECT n FROM kept").await, 42);
    assert_eq!(number(&cluster, "SELECT setting::int8 FROM pg_settings WHERE name = 'work_mem'").await, 5 * 1024);

    cluster.kill().expect("is killed");
    cluster.restart().expect("starts again after a kill");
    assert_eq!(cluster.port(), port);

    cluster.stop(Stop::Immediate).expect("stops");
    assert_eq!(cluster.pid(), None);
    assert!(cluster.connect("postgres").await.is_err());
    cluster.restart().expect("starts again");

    let (folder, pid) = (cluster.folder().to_owned(), cluster.pid().expect("runs"));
    assert!(alive(pid) && folder.is_dir());
    drop(cluster);
    assert!(!folder.exists(), "the folder stayed");
    assert!(!alive(pid), "the postmaster stayed");
}

#[tokio::test]
async fn a_cluster_asks_for_a_password_on_tcp_and_on_its_unix_socket() {
    let cluster = Cluster::start().expect("starts");
    assert!(cluster.connect_as(Cluster::SUPERUSER, "wrong", "postgres").await.is_err());
    let mut local = tokio_postgres::Config::new();
    local.host_path(cluster.socket_folder()).port(cluster.port()).user(Cluster::SUPERUSER).dbname("postgres");
    assert!(local.connect(tokio_postgres::NoTls).await.is_err(), "no password, no entry");
    assert!(local.password(cluster.superuser_password()).connect(tokio_postgres::NoTls).await.is_ok());
}

/// Run by the next test as a process of its own; by itself it does nothing.
#[test]
fn helper_that_holds_a_cluster_until_it_is_killed() {
    let Some(told) = std::env::var_os("PARTYWALL_TEST_TELL") else { return };
    let cluster = Cluster::start().expect("starts");
    let facts = format!("{}\n{}\n", cluster.pid().expect("runs"), cluster.folder().display());
    let draft = Path::new(&told).with_extension("draft");
    std::fs::write(&draft, facts).expect("writes");
    std::fs::rename(draft, told).expect("renames");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_cluster_goes_when_its_owner_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = folder.path().join("told");
    let mut helper = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "cluster::helper_that_holds_a_cluster_until_it_is_killed"])
        .env("PARTYWALL_TEST_TELL", &told)
        .stdout(Stdio::null())
        .spawn()
        .expect("runs");
    until("the helper's cluster", || told.exists());
    let facts = std::fs::read_to_string(&told).expect("reads");
    let (pid, cluster_folder) = facts.trim().split_once('\n').expect("two lines");
    let pid: u32 = pid.parse().expect("a number");
    assert!(alive(pid));
    helper.kill().expect("kills");
    helper.wait().expect("waits");
    until("the end of the postmaster", || !alive(pid));
    until("the end of the folder", || !Path::new(cluster_folder).exists());
}
