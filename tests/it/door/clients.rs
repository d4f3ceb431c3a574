//! psql and pgbench, as people use them.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use partywall::provision::Binaries;
use tokio::io::AsyncBufReadExt as _;
use tokio::process::Command;

use crate::support::raw::{Raw, Wire};
use crate::support::{Proxy, Shard, scaled, soon, until};

fn client(proxy: &Proxy, program: &str, org: &str) -> Command {
    let mut command = Command::new(Binaries::find().expect("the PostgreSQL programs").program(program));
    command.env("PGHOST", "127.0.0.1").env("PGPORT", proxy.address().port().to_string()).env("PGUSER", "ada");
    command.env("PGDATABASE", Shard::DATABASE).env("PGSSLMODE", "disable").env("LC_ALL", "C");
    command.env("PGPASSWORD", proxy.token(org, "ada", &["developer"])).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn psql_does_what_it_does_before_a_database_of_ones_own() {
    let shard = Shard::shared();
    let admin = shard.admin().await;
    let plain = "CREATE TABLE IF NOT EXISTS unprotected (line text); GRANT ALL ON unprotected TO partywall_app";
    admin.batch_execute(plain).await.expect("a table without organizations");
    let proxy = Proxy::before(shard).start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows");
    let file = file.display();
    for (asked, answer) in [
        ("\\d".to_owned(), "canary"),
        ("\\d canary".to_owned(), "POLICY \"partywall_read\""),
        ("\\l".to_owned(), "template1"),
        ("\\dt+".to_owned(), "permanent"),
        ("\\du".to_owned(), "partywall_app"),
        (format!("\\copy (select body from canary) to '{file}'"), "COPY 100"),
        (format!("\\copy unprotected from '{file}'"), "COPY 100"),
        ("select id, body from canary limit 1 \\gdesc".to_owned(), "integer"),
        ("\\set FETCH_COUNT 7\nselect count(*) over () as all_of_them, id from canary".to_owned(), "100 | 100"),
        ("begin;\nupdate canary set body = body;\nrollback;".to_owned(), "UPDATE 100"),
        ("\\conninfo".to_owned(), "You are connected"),
    ] {
        let mut psql = client(&proxy, "psql", "acme").args(["-X", "-v", "ON_ERROR_STOP=1"]).spawn().expect("psql");
        let mut stdin = psql.stdin.take().expect("stdin");
        tokio::io::AsyncWriteExt::write_all(&mut stdin, format!("{asked}\n").as_bytes()).await.expect("psql reads");
        drop(stdin);
        let output = soon("psql ends", psql.wait_with_output()).await.expect("it ran");
        let (out, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && complaint.is_empty(), "{asked}: {complaint}");
        assert!(out.contains(answer), "{asked}: {out}{complaint}");
    }
    let mut watching = client(&proxy, "psql", "acme").args(["-X"]).spawn().expect("psql");
    let mut stdin = watching.stdin.take().expect("stdin");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"select 6 * 7\n\\watch 0.05\n").await.expect("psql reads");
    let mut lines = tokio::io::BufReader::new(watching.stdout.take().expect("stdout")).lines();
    let mut seen = 0;
    while seen < 3 {
        let line = soon("psql goes on watching", lines.next_line()).await.expect("text").expect("more");
        seen += usize::from(line.trim() == "42");
    }
    let copied = std::fs::read_to_string(folder.path().join("rows")).expect("the rows");
    assert!(copied.lines().count() == 100 && copied.lines().all(|line| line == "canary of acme"));
}

#[tokio::test]
async fn psql_cancels_with_an_interrupt_while_it_waits_for_its_turn_and_while_it_runs() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let mut holder = proxy.raw("globex").await;
    assert!(holder.query("begin").await.ends_with("ZT"));
    for waits in [true, false] {
        let psql = client(&proxy, "psql", "acme")
            .args(["-X", "-v", "VERBOSITY=verbose", "-c", "select pg_sleep(600)"])
            .spawn()
            .expect("psql");
        let pid = i32::try_from(psql.id().expect("it runs")).expect("a process id");
        let reached = if waits { "partywall_pool_waiting{shard=\"shard_1\"} 1" } else { "state=\"active\"} 1" };
        until("its statement waits, or runs", async || {
            let running = async {
                let asked =
                    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)'";
                Shard::shared().admin().await.query_one(asked, &[]).await.expect("looks").get::<_, i64>(0) > 0
            };
            if waits { proxy.metrics().await.contains(reached) } else { running.await }
        })
        .await;
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("psql runs");
        let output = soon("psql ends", psql.wait_with_output()).await.expect("it ran");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains("57014") && complaint.contains("due to user request"), "{waits}: {complaint}");
        if waits {
            assert_eq!(holder.query("select count(*) from canary").await, "T D(100) C(SELECT 1) ZT", "unharmed");
            assert!(holder.query("commit").await.ends_with("ZI"));
        }
    }
    assert_eq!(holder.query("select 1").await, "T D(1) C(SELECT 1) ZI");
}

#[tokio::test]
async fn pgbench_of_two_organizations_shares_four_connections_without_an_error() {
    let shard = Shard::start();
    let tables = "
        CREATE TABLE accounts (org_id text NOT NULL, id int NOT NULL, balance bigint NOT NULL DEFAULT 0, PRIMARY KEY (org_id, id));
        CREATE TABLE history (org_id text NOT NULL, id int NOT NULL, delta bigint NOT NULL);
        INSERT INTO accounts SELECT org, id FROM unnest(array['acme', 'globex']) org, generate_series(1, 1000) id;
        GRANT SELECT, INSERT, UPDATE, DELETE ON accounts, history TO partywall_app;
        SELECT partywall.protect('public.accounts'), partywall.protect('public.history');
        ANALYZE accounts";
    shard.admin().await.batch_execute(tables).await.expect("tables");
    let proxy = Proxy::before(&shard).pool_size(4).start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let script = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a script");
        folder.path().join(name)
    };
    let read = script("read.sql", "\\set id random(1, 1000)\nSELECT balance FROM accounts WHERE id = :id;\n");
    let write = script(
        "write.sql",
        "\\set id random(1, 1000)\n\\set delta random(-5000, 5000)\nBEGIN;\n\
         UPDATE accounts SET balance = balance + :delta WHERE id = :id;\nSELECT balance FROM accounts WHERE id = :id;\n\
         INSERT INTO history (id, delta) VALUES (:id, :delta);\nEND;\n",
    );
    // All of PARTYWALL_TEST_SCALE=10 is what the project promises: 10 s each.
    let seconds = scaled(1).to_string();
    for mode in ["simple", "extended", "prepared"] {
        for script in [&read, &write] {
            // A thread for each client: pgbench prepares blocking its thread, and with it transactions of its others.
            let bench = |org| {
                let mut command = client(&proxy, "pgbench", org);
                command.args(["-n", "-c", "8", "-j", "8", "-M", mode, "-T", &seconds, "-f"]).arg(script).output()
            };
            let (acme, globex) = tokio::join!(bench("acme"), bench("globex"));
            for output in [acme.expect("pgbench runs"), globex.expect("pgbench runs")] {
                let complaint = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && !complaint.contains("rror"), "{mode}: {complaint}");
                let out = String::from_utf8_lossy(&output.stdout);
                assert!(out.contains("number of failed transactions: 0 "), "{mode}: {out}");
            }
        }
    }
    let admin = shard.admin().await;
    let sum = "SELECT count(*) FROM accounts a FULL JOIN (SELECT org_id, id, sum(delta) delta FROM history GROUP BY 1, 2) h \
               USING (org_id, id) WHERE coalesce(a.balance, -1) <> coalesce(h.delta, 0)";
    let wrong: i64 = admin.query_one(sum, &[]).await.expect("sums").get(0);
    assert_eq!(wrong, 0, "every transaction is whole and of one organization");
    let servers = shard.server_pids("%").await.len();
    assert!(servers <= 4, "{servers} server connections");
}

#[tokio::test]
async fn sixty_four_pgbench_clients_prepare_over_four_connections_that_keep_five_statements() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("twenty.sql");
    let statements: String =
        (1..=20).map(|at| format!("SELECT {at} + count(*) FROM canary WHERE id = :id + {at};\n")).collect();
    std::fs::write(&path, format!("\\set id random(1, 80)\n{statements}")).expect("a script");
    for kept in ["max_prepared_statements = 200", "max_prepared_statements = 5"] {
        let proxy = Proxy::before(Shard::shared()).pool_size(4).option("pool", kept).start().await;
        let mut command = client(&proxy, "pgbench", "acme");
        command.args(["-n", "-c", "64", "-j", "64", "-M", "prepared", "-T", &scaled(10).to_string(), "-f"]).arg(&path);
        let output = soon("pgbench ends", command.output()).await.expect("pgbench runs");
        let [out, complaint] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        assert!(output.status.success() && !complaint.contains("rror"), "{kept}: {complaint}");
        assert!(out.contains("number of failed transactions: 0 "), "{kept}: {out}");
        assert!(!out.contains("actually processed: 0"), "{kept}: {out}");
    }
}

#[tokio::test]
async fn a_cancel_by_the_wrong_key_does_nothing_and_one_for_an_idle_session_hits_nobody() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let (mut one, mut other) = (proxy.raw("acme").await, proxy.raw("globex").await);
    assert_eq!(one.query("select 1").await, "T D(1) C(SELECT 1) ZI");
    other.send(Wire::new().query("select pg_sleep(0.3), 2")).await;
    one.cancel(proxy.address()).await;
    crate::support::raw::cancel(proxy.address(), other.cancel_key.0, &[0, 0, 0, 0]).await;
    crate::support::raw::cancel(proxy.address(), other.cancel_key.0, &one.cancel_key.1).await;
    assert!(crate::support::raw::brief(&other.until_ready().await).starts_with("T D(,2)"));
    let _: Raw = one;
}
