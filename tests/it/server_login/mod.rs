//! Logging in to real servers: who is let in, who is not fit, what a poisoned role default can do, and cancelling.

use std::time::Duration;

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
