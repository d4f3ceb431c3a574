//! Logging in to real servers: who is let in, who is not fit, what a poisoned role default can do, and cancelling.

mod hostile;
mod tls;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use partywall::config::{Host, Secret, Shard, TlsMode};
use partywall::ids::ShardName;
use partywall::provision::Cluster;
use partywall::server::{self, ConnectError, ConnectFault, ConnectSpec, ServerConnection, Unfit};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PASSWORD: &str = "s3cret of the shard";

/// A shard's configuration for a role of the cluster, over TCP.
fn shard(host: Host, port: u16, user: &str) -> Shard {
    Shard {
        name: ShardName::new("eu1"),
        host,
        port,
        database: "postgres".to_owned(),
        user: user.to_owned(),
        tls: TlsMode::Disable,
        ..Shard::default()
    }
}

fn spec(shard: &Shard, ca_pem: Option<&str>) -> ConnectSpec {
    let password = Secret::new(PASSWORD.as_bytes().to_vec());
    let ca_pem = ca_pem.map(str::as_bytes);
    ConnectSpec::new(shard, Some(password), ca_pem, Duration::from_secs(30)).expect("a spec")
}

fn tcp(cluster: &Cluster, user: &str) -> ConnectSpec {
    spec(&shard(Host::Tcp(cluster.host().to_owned()), cluster.port(), user), None)
}

fn unix(cluster: &Cluster, user: &str) -> ConnectSpec {
    spec(&shard(Host::Unix(cluster.socket_folder().to_owned()), cluster.port(), user), None)
}

fn start() -> Cluster {
    Cluster::start().expect("a cluster")
}

async fn role(cluster: &Cluster, name: &str, attributes: &str) {
    let sql = format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {attributes}");
    cluster.run("postgres", &sql).await.expect("a role");
}

/// Runs a simple query on a raw server connection: its rows as text, or the error's message.
async fn query(connection: &mut ServerConnection, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let mut bytes = bytes::BytesMut::new();
    frontend::query(sql, &mut bytes).expect("a query");
    connection.stream.write_all(&bytes).await.expect("is sent");
    read_answer(connection).await
}

async fn read_answer(connection: &mut ServerConnection) -> Result<Vec<Vec<String>>, String> {
    let (mut buffer, mut rows, mut error) = (bytes::BytesMut::new(), Vec::new(), None);
    loop {
        match Message::parse(&mut buffer).expect("a message") {
            Some(Message::DataRow(row)) => rows.push(texts(&row)),
            Some(Message::ErrorResponse(_)) => error = Some("an error".to_owned()),
            Some(Message::ReadyForQuery(_)) => break,
            Some(_) => {}
            None => {
                let read = connection.stream.read_buf(&mut buffer).await.map_err(|error| error.to_string())?;
                if read == 0 {
                    return Err("closed".to_owned());
                }
            }
        }
    }
    error.map_or(Ok(rows), Err)
}

fn texts(row: &postgres_protocol::message::backend::DataRowBody) -> Vec<String> {
    use tokio_postgres::fallible_iterator::FallibleIterator as _;
    let texts = row.ranges().map(|range| {
        Ok(range.map_or_else(String::new, |range| String::from_utf8_lossy(&row.buffer()[range]).into_owned()))
    });
    texts.collect().expect("a row")
}

async fn one(connection: &mut ServerConnection, sql: &str) -> String {
    let mut rows = query(connection, sql).await.expect("answers");
    rows.pop().and_then(|mut row| row.pop()).expect("one value")
}

fn unfit(result: Result<ServerConnection, ConnectError>) -> Unfit {
    let error = result.expect_err("is refused");
    assert!(!error.is_transient(), "{error}");
    error.unfit().cloned().unwrap_or_else(|| unreachable!("{error}"))
}

#[tokio::test]
async fn a_login_with_scram_over_tcp_and_over_a_unix_socket_is_ready_to_serve() {
    let cluster = start();
    role(&cluster, "app", "").await;
    for spec in [tcp(&cluster, "app"), unix(&cluster, "app")] {
        let mut connection = server::connect(&spec).await.expect("logs in");
        assert!(connection.server_version_num >= 130_000 && !connection.in_recovery);
        assert!(connection.pid > 0 && connection.secret_key.len() == 4 && connection.leftover.is_empty());
        let told = |name: &str| connection.parameters.iter().find(|(known, _)| known == name).map(|(_, v)| v.as_str());
        assert_eq!(told("application_name"), Some("partywall"));
        assert_eq!(told("client_encoding"), Some("UTF8"));
        assert_eq!(
            one(&mut connection, "SELECT session_user || pg_backend_pid()").await,
            format!("app{}", connection.pid)
        );
        assert!(!connection.stream.is_tls());
    }
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_refused_and_never_printed() {
    let cluster = start();
    role(&cluster, "app", "").await;
    let mut wrong = tcp(&cluster, "app");
    wrong.password = Some(Secret::new(b"not the password".to_vec()));
    let error = server::connect(&wrong).await.expect_err("is refused");
    assert!(matches!(error.fault(), ConnectFault::Refused { .. }), "{error}");
    assert!(!error.is_transient());
    let words = format!("{error} {error:?} {wrong:?}");
    assert!(words.contains("eu1") && words.contains(&format!("127.0.0.1:{}", cluster.port())), "{words}");
    assert!(!words.contains("not the password"), "{words}");

    wrong.password = None;
    let error = server::connect(&wrong).await.expect_err("is refused");
    assert!(matches!(error.fault(), ConnectFault::NoPassword), "{error}");
}

#[tokio::test]
async fn a_login_role_that_the_walls_would_not_hold_is_not_fit() {
    let cluster = start();
    let faults = [
        ("SUPERUSER", Unfit::Superuser),
        ("BYPASSRLS", Unfit::BypassRls),
        ("CREATEROLE", Unfit::CreateRole),
        ("CREATEDB", Unfit::CreateDb),
        ("REPLICATION", Unfit::Replication),
        ("IN ROLE pg_read_all_data", Unfit::Member("pg_read_all_data".to_owned())),
    ];
    for (number, (attributes, fault)) in faults.into_iter().enumerate() {
        let name = format!("r{number}");
        role(&cluster, &name, attributes).await;
        assert_eq!(unfit(server::connect(&tcp(&cluster, &name)).await), fault);
    }
}

/// What a role that may `ALTER ROLE` itself, or a careless owner, could leave behind.
const POISON: [(&str, &str); 21] = [
    ("application_name", "'psql'"),
    ("client_encoding", "'SQL_ASCII'"),
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "on"),
    ("row_security", "off"),
    ("role", "'other'"),
    ("search_path", "'evil'"),
    ("local_preload_libraries", "'no such library'"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "'serializable'"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "1"),
    ("lock_timeout", "1"),
    ("idle_in_transaction_session_timeout", "1"),
    ("exit_on_error", "on"),
    ("client_min_messages", "'debug5'"),
    ("transform_null_equals", "on"),
    ("array_nulls", "off"),
    ("gin_fuzzy_search_limit", "1"),
    ("check_function_bodies", "off"),
    ("app.org", "'victim'"),
];

/// Every listed setting that came with the start-up, and its value.
const SENT: &str = "SELECT name, setting FROM pg_settings WHERE source = 'client' ORDER BY 1";

async fn shop(cluster: &Cluster) -> ConnectSpec {
    cluster.run("postgres", "CREATE DATABASE shop").await.expect("a database");
    role(cluster, "app", "").await;
    let mut spec = tcp(cluster, "app");
    "shop".clone_into(&mut spec.database);
    spec
}

#[tokio::test]
async fn poisoned_defaults_of_the_role_and_the_database_have_no_effect() {
    let cluster = start();
    role(&cluster, "other", "").await;
    let spec = shop(&cluster).await.with_empty_settings(["app.org".to_owned()]);
    let mut clean = server::connect(&spec).await.expect("logs in");
    let sent = query(&mut clean, SENT).await.expect("answers");
    let names: BTreeSet<_> = sent.iter().map(|row| row[0].as_str()).collect();
    // The view lists neither `role` nor names that no extension has defined.
    let listed = POISON.map(|(name, _)| name).into_iter().filter(|name| !["role", "app.org"].contains(name));
    assert_eq!(names, listed.collect::<BTreeSet<_>>(), "all that is sent is poisoned below, and the other way round");

    for target in ["ROLE app", "DATABASE shop", "ROLE app IN DATABASE shop"] {
        for (name, value) in POISON {
            let sql = format!("ALTER {target} SET {name} = {value}");
            cluster.run("postgres", &sql).await.expect("is poisoned");
        }
        let ordinary = cluster.connect_as("app", PASSWORD, "shop").await;
        assert!(ordinary.is_err(), "the poison works: the library that is not there keeps others out");

        let mut poisoned = server::connect(&spec).await.expect("logs in despite the poison");
        for forget in ["SELECT 1", "RESET ALL", "DISCARD ALL"] {
            query(&mut poisoned, forget).await.expect("runs");
            assert_eq!(query(&mut poisoned, SENT).await.expect("answers"), sent, "{target}, {forget}");
            assert_eq!(one(&mut poisoned, "SELECT current_user").await, "app");
            assert_eq!(one(&mut poisoned, "SHOW role").await, "none");
            assert_eq!(one(&mut poisoned, "SELECT current_setting('app.org')").await, "");
            assert_eq!(one(&mut poisoned, "SHOW transaction_read_only").await, "off");
        }
    }
}

#[tokio::test]
async fn a_default_role_does_not_hide_a_membership() {
    let cluster = start();
    role(&cluster, "boss", "").await;
    role(&cluster, "app", "IN ROLE boss").await;
    cluster.run("postgres", "ALTER ROLE app SET role = 'boss'").await.expect("is set");
    let fault = unfit(server::connect(&tcp(&cluster, "app")).await);
    assert_eq!(fault, Unfit::Member("boss".to_owned()), "who is the session's user still, and so is told the truth");
}

#[tokio::test]
async fn a_setting_that_cannot_be_overridden_makes_a_shard_unfit() {
    let cluster = start();
    let spec = shop(&cluster).await;
    let wanted = |name, value: &str, wanted| Unfit::Setting { name, value: value.to_owned(), wanted };
    let cases = [
        ("idle_session_timeout = 1000", Unfit::RoleSetting("idle_session_timeout".to_owned())),
        ("session_replication_role = replica", wanted("session_replication_role", "replica", "origin")),
        ("lo_compat_privileges = on", wanted("lo_compat_privileges", "on", "off")),
    ];
    for (setting, fault) in cases {
        for target in ["ROLE app", "DATABASE shop"] {
            cluster.run("postgres", &format!("ALTER {target} SET {setting}")).await.expect("is set");
            assert_eq!(unfit(server::connect(&spec).await), fault, "{target}");
            cluster.run("postgres", &format!("ALTER {target} RESET ALL")).await.expect("is reset");
        }
    }
    server::connect(&spec).await.expect("is fit again");
}

#[tokio::test]
async fn a_database_in_another_encoding_is_not_fit() {
    let cluster = start();
    let sql = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    cluster.run("postgres", sql).await.expect("a database");
    role(&cluster, "app", "").await;
    let mut spec = tcp(&cluster, "app");
    "latin".clone_into(&mut spec.database);
    let value = "LATIN1".to_owned();
    assert_eq!(unfit(server::connect(&spec).await), Unfit::Setting { name: "server_encoding", value, wanted: "UTF8" });
    "missing".clone_into(&mut spec.database);
    let error = server::connect(&spec).await.expect_err("is refused");
    assert!(matches!(error.fault(), ConnectFault::Refused { .. }) && !error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_server_that_is_full_or_not_there_is_worth_another_try() {
    let mut cluster = start();
    role(&cluster, "app", "CONNECTION LIMIT 1").await;
    let spec = tcp(&cluster, "app");
    let held = server::connect(&spec).await.expect("logs in");
    let error = server::connect(&spec).await.expect_err("is refused");
    assert!(matches!(error.fault(), ConnectFault::Refused { .. }) && error.is_transient(), "{error}");
    drop(held);
    cluster.stop(partywall::provision::Stop::Immediate).expect("stops");
    for spec in [spec, unix(&cluster, "app")] {
        let error = server::connect(&spec).await.expect_err("is not there");
        assert!(matches!(error.fault(), ConnectFault::Dial(_)) && error.is_transient(), "{error}");
    }
}

/// Whether that server process runs a statement now.
async fn is_active(cluster: &Cluster, pid: i32) -> bool {
    let client = cluster.connect("postgres").await.expect("connects");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND query ~ 'pg_sleep'";
    client.query_one(sql, &[&pid]).await.expect("answers").get::<_, i64>(0) == 1
}

async fn start_sleeping(cluster: &Cluster, connection: &mut ServerConnection) {
    let mut bytes = bytes::BytesMut::new();
    frontend::query("SELECT pg_sleep(600)", &mut bytes).expect("a query");
    connection.stream.write_all(&bytes).await.expect("is sent");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_active(cluster, connection.pid).await {
        assert!(Instant::now() < deadline, "the statement did not start");
    }
}

#[tokio::test]
async fn a_cancel_ends_the_statement_and_only_with_the_right_key() {
    let cluster = start();
    role(&cluster, "app", "").await;
    for spec in [tcp(&cluster, "app"), unix(&cluster, "app")] {
        let mut connection = server::connect(&spec).await.expect("logs in");
        start_sleeping(&cluster, &mut connection).await;
        let wrong: Vec<u8> = connection.secret_key.iter().map(|byte| !byte).collect();
        server::cancel(&spec, connection.pid, &wrong).await.expect("is heard");
        assert!(is_active(&cluster, connection.pid).await);
        assert!(server::cancel(&spec, connection.pid, b"odd").await.is_err());
        server::cancel(&spec, connection.pid, &connection.secret_key).await.expect("is heard");
        assert_eq!(read_answer(&mut connection).await, Err("an error".to_owned()));
        assert_eq!(one(&mut connection, "SELECT 1").await, "1");
    }
}
