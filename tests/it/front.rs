//! psql (libpq) at the front door: what it asks for before it logs in, and what its user gets to read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use partywall::cancel::Registry;
use partywall::config::{ContextNames, PlaintextPasswords};
use partywall::handshake::{self, Door, Greeted, Login, Reserved};
use partywall::net::{self, Caps, Proxies, tls::ServerTls};
use partywall::provision::Binaries;
use partywall::refusal::Kind;
use partywall::refusal::Refusal;
use partywall::wire::flow::Status;
use partywall::wire::startup::TOKEN_BYTES_MAX;
use partywall::wire::welcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

/// A certificate for `localhost`, and the door it belongs to.
fn door(plaintext_passwords: PlaintextPasswords, folder: Option<&Path>) -> Door {
    let tls = folder.map(|folder| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = parameters.self_signed(&key).expect("a certificate").pem();
        std::fs::write(folder.join("root.pem"), &certificate).expect("a file");
        Arc::new(ServerTls::load(certificate.as_bytes(), key.serialize_pem().as_bytes()).expect("a pair"))
    });
    let reserved = Reserved::new(&ContextNames::default());
    Door { tls, plaintext_passwords, login_timeout: Duration::from_secs(30), reserved, proxies: Proxies::default() }
}

/// Runs psql against `door`, answering logins by `answer`; returns whether psql was content, and what it wrote.
async fn psql<A>(door: Door, connection: &str, password: &str, answer: A) -> (bool, String)
where
    A: AsyncFnOnce(Login),
{
    let listener = net::listen(([127, 0, 0, 1], 0).into()).expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let listener = TcpListener::from_std(listener).expect("a listener");
    let program = Binaries::find().expect("the PostgreSQL programs").program("psql");
    let psql = Command::new(program)
        .args(["-X", "-A", "-t", "-c", "\\conninfo", &format!("port={port} connect_timeout=20 {connection}")])
        .env("PGPASSWORD", password)
        .env("LC_ALL", "C")
        .output();
    let serve = async {
        // With sslmode=prefer and a refusal, libpq tries again in clear text: whoever comes is greeted.
        let mut answer = Some(answer);
        loop {
            let (stream, peer) = listener.accept().await.expect("a client");
            let ticket = Caps::new(10, 10).try_enter(Some(peer.ip())).expect("a place");
            if let Greeted::Login(login) = handshake::greet(stream, peer, &door, &ticket).await
                && let Some(answer) = answer.take()
            {
                answer(*login).await;
            }
        }
    };
    let output = tokio::select! {
        output = psql => output.expect("psql ran"),
        () = serve => return (false, String::new()),
    };
    let written = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&written).into_owned())
}

/// Lets a client in, and waits until it has gone.
async fn let_in(mut login: Login) {
    let registration = Registry::new()
        .register(
            login.protocol,
            Arc::new(partywall::session::Signals::new(partywall::ids::OrgId::new("acme").expect("a name"), u64::MAX)),
        )
        .expect("a number");
    let mut bytes = Vec::new();
    welcome::authentication_ok(&mut bytes);
    for (name, value) in
        [("server_version", "15.0"), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on")]
    {
        welcome::parameter_status(name, value, &mut bytes);
    }
    welcome::backend_key_data(registration.session(), registration.key(), &mut bytes);
    welcome::ready_for_query(Status::Idle, &mut bytes);
    login.stream.write_all(&bytes).await.expect("a client that listens");
    login.stream.flush().await.expect("a client that listens");
    login.stream.read_to_end(&mut Vec::new()).await.expect("a goodbye");
}

async fn refuse(login: Login) {
    handshake::refuse(login.stream, &Refusal::new(Kind::InvalidToken, "invalid or expired token")).await;
}

#[tokio::test]
async fn psql_logs_in_in_clear_text_and_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root.pem");
    for (connection, tls) in [
        ("host=localhost hostaddr=127.0.0.1 user=ada sslmode=disable".to_owned(), false),
        ("host=localhost hostaddr=127.0.0.1 user=ada sslmode=prefer gssencmode=prefer".to_owned(), true),
        (
            format!("host=localhost hostaddr=127.0.0.1 user=ada sslmode=verify-full sslrootcert={}", root.display()),
            true,
        ),
    ] {
        let token = "t".repeat(TOKEN_BYTES_MAX);
        let (content, written) =
            psql(door(PlaintextPasswords::Loopback, Some(folder.path())), &connection, &token, async |login| {
                assert_eq!((login.stream.is_tls(), login.token.expose()), (tls, &*token));
                let_in(login).await;
            })
            .await;
        assert!(content, "{connection}: {written}");
    }
}

#[tokio::test]
async fn psql_falls_back_to_clear_text_where_there_is_no_certificate() {
    let connection = "host=127.0.0.1 user=ada sslmode=prefer";
    let (content, written) = psql(door(PlaintextPasswords::Loopback, None), connection, "t", let_in).await;
    assert!(content, "{written}");
}

#[tokio::test]
async fn a_psql_user_reads_why_there_is_no_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let to = "host=127.0.0.1 user=ada sslmode=require";
    let with_tls = || door(PlaintextPasswords::Never, Some(folder.path()));
    let (content, written) = psql(with_tls(), to, "t", refuse).await;
    assert!(
        !content && written.contains("FATAL:  invalid or expired token\nHINT:  The password is a token"),
        "{written}"
    );

    let (_, written) = psql(with_tls(), "host=127.0.0.1 user=ada sslmode=disable", "t", refuse).await;
    assert!(written.contains("FATAL:  a token is accepted over TLS only\nHINT:  Connect with TLS"), "{written}");

    let (_, written) = psql(with_tls(), &format!("{to} options='-c app.current_org_id=other'"), "t", refuse).await;
    assert!(written.contains("permission denied to set parameter \"app.current_org_id\""), "{written}");

    let (_, written) = psql(with_tls(), &format!("{to} replication=database"), "t", refuse).await;
    assert!(written.contains("replication connections are not supported"), "{written}");

    let (_, written) = psql(with_tls(), &format!("{to} client_encoding=LATIN1"), "t", refuse).await;
    assert!(written.contains("HINT:  Set client_encoding to UTF8"), "{written}");
}

#[tokio::test]
async fn a_psql_user_for_whom_there_is_no_place_reads_so() {
    let listener = net::listen(([127, 0, 0, 1], 0).into()).expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let listener = TcpListener::from_std(listener).expect("a listener");
    let caps = Caps::new(0, 10);
    let program = Binaries::find().expect("the PostgreSQL programs").program("psql");
    let psql = Command::new(program)
        .args(["-X", "-c", "\\q", &format!("host=127.0.0.1 port={port} user=ada sslmode=disable connect_timeout=20")])
        .env("LC_ALL", "C")
        .output();
    let turn_away = async {
        let (stream, peer) = listener.accept().await.expect("a client");
        let too_many = caps.try_enter(Some(peer.ip())).expect_err("no place");
        handshake::turn_away(stream, &too_many.into()).await;
    };
    let (output, ()) = tokio::join!(psql, turn_away);
    let written = String::from_utf8(output.expect("psql ran").stderr).expect("text");
    assert!(written.contains("sorry, too many clients already"), "{written}");
}
