//! The configuration as an operator meets it: all faults at once, and reloads that drop no session.

use std::path::Path;
use std::process::{Output, Stdio};

use crate::limits::Small;
use crate::support::proxy::Files;
use crate::support::{Proxy, Raw, Shard, soon, until};

const ONE: &str = "T D(1) C(SELECT 1) ZI";

async fn partywall(arguments: &[&str], config: &Path) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_partywall"));
    command.args(arguments).arg("--config").arg(config).stdin(Stdio::null()).kill_on_drop(true);
    soon("the program ends", command.output()).await.expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ten mistakes of ten kinds, in three files.
fn ten_faults(files: &Files) {
    files.put(
        "tiers.toml",
        "default = \"gold\"\n[tiers.small]\nmax_concurrent_queries = 0\nquery_timeout_seconds = \"soon\"\n",
    );
    files.put(
        "partywall.toml",
        "[listen]\naddress = \"nowhere\"\nmax_client_con = 5\nplaintext_passwords = \"sometimes\"\n\n\
         [pool]\npool_mode = \"statement\"\nserver_lifetime_s = -1\n\n\
         [policies]\ntiers = \"tiers.toml\"\n\n[[auth.keys]]\ntype = \"hs256\"\nfile = \"missing.key\"\n\n\
         [[shards]]\nname = \"shard_1\"\nhost = \"127.0.0.1\"\nport = 70000\ndatabase = \"app\"\nuser = \"partywall_app\"\n",
    );
}

#[tokio::test]
async fn ten_faults_are_ten_lines_at_once() {
    let files = Proxy::before_port(1, "x").write();
    ten_faults(&files);
    let checked = partywall(&["check"], &files.path()).await;
    let lines = text(&checked.stdout);
    assert_eq!((checked.status.code(), lines.lines().count()), (Some(1), 10), "{lines}");
    for words in [
        "listen.address",
        "listen.max_client_con",
        "max_client_conn",
        "listen.plaintext_passwords",
        "pool.pool_mode",
        "pool.server_lifetime_s",
        "missing.key",
        "shards[1].port",
        "default",
        "tiers.small.max_concurrent_queries",
        "tiers.small.query_timeout_seconds",
    ] {
        assert!(lines.contains(words), "{words}: {lines}");
    }
    let served = partywall(&["serve"], &files.path()).await;
    assert_eq!((served.status.code(), text(&served.stderr).trim()), (Some(1), lines.trim()), "the same from serve");
    let as_json = partywall(&["check", "--json"], &files.path()).await;
    let body: serde_json::Value = serde_json::from_slice(&as_json.stdout).expect("JSON");
    assert_eq!((as_json.status.code(), body["ok"].as_bool()), (Some(1), Some(false)));
    assert_eq!(body["faults"].as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn check_is_content_only_when_every_shard_can_be_served() {
    let good = Proxy::before(Shard::shared()).write();
    let checked = partywall(&["check", "--json"], &good.path()).await;
    let body: serde_json::Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert_eq!((checked.status.code(), body["ok"].as_bool()), (Some(0), Some(true)), "{body}");
    assert_eq!(body["shards"][0]["ok"].as_bool(), Some(true));
    let bad = Proxy::before(Shard::shared()).and_port(1, "x").write();
    let checked = partywall(&["check"], &bad.path()).await;
    let lines = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(1));
    assert!(lines.contains("shard shard_1: ok, PostgreSQL") && lines.contains("FAULT: shard shard_2"), "{lines}");
}

#[tokio::test]
async fn an_offline_check_reads_what_the_configuration_names_and_reaches_no_database() {
    let files = Proxy::before_port(1, "x").write();
    let checked = partywall(&["check", "--offline"], &files.path()).await;
    assert_eq!((checked.status.code(), text(&checked.stdout).as_str()), (Some(0), "configuration: ok\n"));
    let online = partywall(&["check"], &files.path()).await;
    assert_eq!(online.status.code(), Some(1), "there is no database: {}", text(&online.stdout));
    std::fs::remove_file(files.folder().join("shard_1.password")).expect("was there");
    let checked = partywall(&["check", "--offline"], &files.path()).await;
    assert_eq!(checked.status.code(), Some(1), "a file that is named is missing: {}", text(&checked.stdout));
}

#[tokio::test]
async fn the_version_names_release_commit_and_grammar() {
    let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_partywall")).arg("--version").output();
    let said = text(&soon("the program ends", command).await.expect("runs").stdout);
    let expected = format!("partywall {} (commit ", env!("CARGO_PKG_VERSION"));
    assert!(said.starts_with(&expected) && said.ends_with(", PostgreSQL 18 grammar)\n"), "{said}");
}

#[tokio::test]
async fn a_changed_tier_holds_for_sessions_that_are_here() {
    let proxy = Small { concurrent: 1, queued: 9, ..Small::default() }.proxy(4).await;
    let gate = crate::limits::Gate::close().await;
    let (mut live, mut standing, mut waiting) =
        (proxy.raw("acme").await, proxy.raw("acme").await, proxy.raw("acme").await);
    assert_eq!(live.query("SET statement_timeout = '30min'").await, "C(SET) ZI");
    let prepare = crate::support::Wire::new()
        .parse("set", "SET statement_timeout = '30min'")
        .parse("call", "SELECT set_config('statement_timeout', '30min', false)")
        .sync();
    assert_eq!(live.converse(prepare, 1).await, "1 1 ZI");
    let options = [("options", "-c statement_timeout=30min")];
    let token = proxy.token("acme", "ada", &["developer"]);
    let mut asked_at_start = Raw::log_in_with(proxy.address(), &token, &options).await;
    assert_eq!(asked_at_start.query("SHOW statement_timeout").await, "T D(30min) C(SHOW) ZI");
    standing.send(crate::support::Wire::new().query(&gate.sql())).await;
    gate.until_standing(1).await;
    waiting.send(crate::support::Wire::new().query("SELECT 1")).await;
    crate::limits::until_waiting(&proxy, 1).await;
    // More at a time: who waits runs, though nobody has ended.
    proxy.files().change("tiers.toml", "max_concurrent_queries = 1\n", "max_concurrent_queries = 3\n");
    assert_eq!(crate::support::raw::brief(&waiting.until_ready().await), ONE);
    gate.open().await;
    standing.until_ready().await;
    // Less time: also for a session that had asked for more than that.
    let less = Small { concurrent: 3, queued: 9, timeout_s: 1, ..Small::default() };
    proxy.files().put("tiers.toml", &less.tiers());
    until("the tier's time", async || live.query("SHOW statement_timeout").await == "T D(1s) C(SHOW) ZI").await;
    assert_eq!(live.query("SELECT pg_sleep(30)").await, "T E(57014) ZI");
    let show = "T D(1s) C(SHOW) ZI";
    assert_eq!(live.query("SET statement_timeout = '2s'").await, "C(SET) ZI");
    assert_eq!(live.query("SHOW statement_timeout").await, show);
    // What was prepared under the tier before does not bring it back, nor does what a session began with.
    for name in ["set", "call"] {
        let wire = crate::support::Wire::new().bind("", name, &[]).execute("", 0).sync();
        assert_eq!(live.converse(wire, 1).await, "E(42501) ZI", "{name}");
        assert_eq!(live.query("SHOW statement_timeout").await, show);
    }
    for sql in [
        "SHOW statement_timeout",
        "RESET statement_timeout; SHOW statement_timeout",
        "RESET ALL; SHOW statement_timeout",
    ] {
        assert!(asked_at_start.query(sql).await.ends_with(show), "{sql}");
    }
}

const SECOND_PLACE: &str = "[organizations.hooli]\nshard = \"shard_2\"\n";

#[tokio::test]
async fn a_shard_is_added_and_taken_away_under_live_sessions() {
    let second = Shard::start();
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut stays = proxy.raw("acme").await;
    let file = proxy.files().path();
    let before = std::fs::read_to_string(&file).expect("reads");
    proxy.files().put("shard_2.password", &second.password);
    let shard = format!(
        "\n[[shards]]\nname = \"shard_2\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"postgres\"\n\
         user = \"partywall_app\"\npassword_file = \"shard_2.password\"\ntls = \"disable\"\npool_size = 2\n{SECOND_PLACE}",
        second.cluster.port()
    );
    std::fs::write(&file, format!("{before}{shard}")).expect("writes");
    // The second shard is another database: its port tells.
    let port = format!("T D({}) C(SELECT 1) ZI", second.cluster.port());
    let where_am_i = "SELECT current_setting('port')";
    until("the new organization's place", async || proxy.raw("hooli").await.query(where_am_i).await == port).await;
    let mut moved = proxy.raw("hooli").await;
    assert_eq!(moved.query(where_am_i).await, port);
    assert_eq!(stays.query("SELECT 1").await, ONE);
    // Taken away: who is there may stay, who comes goes elsewhere, and nobody is asked to be ready for it.
    std::fs::write(&file, &before).expect("writes");
    until("the old place", async || proxy.raw("hooli").await.query(where_am_i).await != port).await;
    assert_eq!(moved.query(where_am_i).await, port);
    let board = reqwest::get(format!("http://{}/readyz", proxy.admin_address())).await.expect("answers");
    assert!(!board.text().await.expect("text").contains("shard_2"));
    assert_eq!(stays.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn what_is_bad_in_a_new_configuration_leaves_what_was_good_in_force() {
    let proxy = Proxy::before(Shard::shared()).tiers(&Small::default().tiers()).start().await;
    let mut live = proxy.raw("acme").await;
    let good = std::fs::read_to_string(proxy.files().path()).expect("reads");
    // Altogether broken, then gone, then with one fault: each time what was stays, and is left again for what is good.
    for (at, bad) in
        ["]not toml[".to_owned(), String::new(), good.replace("pool_size = 4", "pool_size = -4")].iter().enumerate()
    {
        proxy.files().put("partywall.toml", bad);
        // A look at the files happens each second; a later good file shows that the bad one has been looked at.
        tokio::time::timeout(std::time::Duration::from_millis(1500), live.message()).await.expect_err("says nothing");
        assert_eq!(live.query("SELECT 1").await, ONE);
        assert_eq!(proxy.raw("acme").await.query("SELECT 1").await, ONE);
        let name = format!("mark_{at}");
        proxy.files().put("partywall.toml", &format!("{good}\n[organizations.{name}]\nstatus = \"suspended\"\n"));
        until("the good one is taken", async || proxy.connect_with(&proxy.client_config(&name)).await.is_err()).await;
    }
    assert_eq!(live.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn the_guard_goes_on_protecting_the_names_that_servers_are_told() {
    // Another name than the usual one, which is always protected.
    let named = "[context]\norganization = \"tenant.org\"\n";
    let proxy = Proxy::before(Shard::shared()).sections(named).start().await;
    let mut live = proxy.raw("acme").await;
    let other = "[context]\norganization = \"elsewhere.org\"\n\n[organizations.mark]\nstatus = \"suspended\"\n";
    proxy.files().change("partywall.toml", named, other);
    until("it is taken", async || proxy.connect_with(&proxy.client_config("mark")).await.is_err()).await;
    let mut new = proxy.raw("acme").await;
    for raw in [&mut live, &mut new] {
        for sql in ["SET tenant.org = 'globex'", "SELECT set_config('tenant.org', 'globex', false)"] {
            let answer = raw.query(sql).await;
            assert!(answer.starts_with("E(42501)"), "{sql}: {answer}");
        }
        assert_eq!(raw.query("SHOW tenant.org").await, "T D(acme) C(SHOW) ZI");
    }
    let token = proxy.token("acme", "ada", &["developer"]);
    let mut raw = Raw::dial(proxy.address()).await;
    let evil = [("user", "ada"), ("database", "postgres"), ("tenant.org", "globex")];
    raw.send(crate::support::Wire::startup(&evil).password(&token)).await;
    assert!(crate::support::raw::brief(&raw.until_closed().await).ends_with("E(42501)"));
}

#[tokio::test]
async fn a_changed_password_is_used_for_new_connections_and_no_session_is_dropped() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(3).start().await;
    let (mut busy, mut idle) = (proxy.raw("acme").await, proxy.raw("acme").await);
    assert_eq!(busy.query("BEGIN").await, "C(BEGIN) ZT");
    let old = shard.server_pids("%").await;
    shard.admin().await.batch_execute("ALTER ROLE partywall_app PASSWORD 'another'").await.expect("changes");
    proxy.files().put("shard_1.password", "another");
    until("another connection", async || {
        assert_eq!(idle.query("SELECT 1").await, ONE);
        shard.server_pids("%").await.iter().any(|pid| !old.contains(pid))
    })
    .await;
    assert_eq!(busy.query("SELECT 1").await, "T D(1) C(SELECT 1) ZT", "its transaction goes on");
    assert_eq!(busy.query("COMMIT").await, "C(COMMIT) ZI");
    until("the old ones are closed", async || shard.server_pids("%").await.iter().all(|pid| !old.contains(pid))).await;
    assert_eq!(busy.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn a_reload_by_signal_changes_a_tier_and_keeps_the_old_certificate_loudly() {
    let plan = Proxy::before(Shard::shared()).tiers(&Small::default().tiers()).tls();
    let files = plan.sections("[organizations.acme]\ntier = \"small\"").write();
    let log = files.folder().join("log");
    let out = std::fs::File::create(&log).expect("a file");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_partywall"));
    command.arg("serve").arg("--config").arg(files.path()).stdin(Stdio::null()).kill_on_drop(true);
    let mut serving = command.stdout(out.try_clone().expect("a file")).stderr(out).spawn().expect("runs");
    let said = |words: &str| std::fs::read_to_string(&log).expect("reads").contains(words);
    until("it serves", async || said("serving")).await;
    let token = crate::support::proxy::token(&partywall::auth::mint::Grant {
        org: "acme".to_owned(),
        roles: vec!["developer".to_owned()],
        ttl_s: 3600,
        ..Default::default()
    });
    let address = ([127, 0, 0, 1], files.port).into();
    let mut live = Raw::log_in(address, &token).await;
    let root = files.folder().join("root.crt");
    std::fs::copy(files.folder().join("server.crt"), &root).expect("copies");
    files.put("server.crt", "not a certificate");
    files.put("tiers.toml", &Small { timeout_s: 7, ..Small::default() }.tiers());
    let pid = i32::try_from(serving.id().expect("runs")).expect("a process id");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP).expect("is told");
    until("the tier", async || live.query("SHOW statement_timeout").await == "T D(7s) C(SHOW) ZI").await;
    until("the fault is told", async || said("the old part stays in force") && said("server.crt")).await;
    let connection = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=ada dbname=postgres sslmode=verify-full sslrootcert={}",
        files.port,
        root.display()
    );
    let (content, printed, complained) = crate::support::proxy::psql(&connection, &token, &["-Atc", "SELECT 1"]).await;
    assert_eq!((content, printed.as_str()), (true, "1\n"), "{complained}");
    serving.kill().await.expect("ends");
}
