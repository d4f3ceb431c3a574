//! Servers that are not what they seem: scripted peers that stop, stuff, flood and lie.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use partywall::config::{Host, TlsMode};
use partywall::server::{self, ConnectError, ConnectFault, ConnectSpec, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{one, role, shard, spec, start};

/// Listens on a port of its own, serves one connection with the script, and connects to it.
async fn against<S>(tls: TlsMode, script: S) -> Result<ServerConnection, ConnectError>
where
    S: AsyncFnOnce(&mut TcpStream),
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    let spec = scripted(port, tls);
    let (over, is_over) = tokio::sync::oneshot::channel::<()>();
    let connect = async {
        let result = server::connect(&spec).await;
        drop(over);
        result
    };
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        script(&mut stream).await;
        stream.shutdown().await.ok();
        tokio::select! {
            () = drain(&mut stream) => {}
            _ = is_over => {}
        }
    };
    tokio::join!(connect, serve).0
}

fn scripted(port: u16, tls: TlsMode) -> ConnectSpec {
    let mut shard = shard(Host::Tcp("127.0.0.1".to_owned()), port, "app");
    shard.tls = tls;
    spec(&shard, None)
}

/// Reads until the other side closes, so that closing does not reset the connection under it.
async fn drain(stream: &mut TcpStream) {
    let mut bytes = [0; 4096];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
}

/// Says this to whatever comes first, and closes.
async fn told(bytes: &[u8]) -> Result<ServerConnection, ConnectError> {
    against(TlsMode::Disable, async |stream| {
        hear(stream).await;
        stream.write_all(bytes).await.ok();
    })
    .await
}

/// What the client has sent; nothing if it has closed.
async fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    let read = stream.read(&mut bytes).await.unwrap_or(0);
    bytes.truncate(read);
    bytes
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).expect("a short message").to_be_bytes();
    [&[kind], length.as_slice(), body].concat()
}

fn authentication(code: i32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[code.to_be_bytes().as_slice(), rest].concat())
}

/// All that a fit server without a password says, the answer to the question about the role included.
fn good_words() -> Vec<u8> {
    let texts: [Option<&str>; 18] = [
        Some("150013"),
        Some("f"),
        Some("t"),
        Some("f"),
        Some("f"),
        Some("f"),
        Some("f"),
        Some("f"),
        None,
        None,
        Some("on"),
        Some("on"),
        Some("UTF8"),
        Some("UTF8"),
        Some("\"$user\", public"),
        Some("origin"),
        Some("off"),
        Some("f"),
    ];
    let mut row = 18_u16.to_be_bytes().to_vec();
    for text in texts {
        let length = text.map_or(-1, |text| i32::try_from(text.len()).expect("short"));
        row.extend(length.to_be_bytes());
        row.extend(text.unwrap_or_default().as_bytes());
    }
    [
        authentication(0, b""),
        message(b'S', b"server_version\x0015.13\0"),
        message(b'N', b"SNOTICE\0Mhello\0\0"),
        message(b'K', b"\0\0\0\x07abcd"),
        message(b'Z', b"I"),
        message(b'T', b"\0\0"),
        message(b'D', &row),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

fn protocol(result: Result<ServerConnection, ConnectError>) -> String {
    let error = result.expect_err("is refused");
    assert!(matches!(error.fault(), ConnectFault::Protocol(_)) && !error.is_transient(), "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_server_that_dribbles_single_bytes_is_understood() {
    let cluster = start();
    role(&cluster, "app", "").await;
    let port = cluster.port();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let spec = scripted(listener.local_addr().expect("an address").port(), TlsMode::Disable);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("accepts");
        let server = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        client.set_nodelay(true).expect("is set");
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut byte = [0];
        while let Ok(1) = from_server.read(&mut byte).await {
            to_client.write_all(&byte).await.expect("is sent");
        }
    });
    let mut connection = server::connect(&spec).await.expect("logs in");
    assert_eq!(one(&mut connection, "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_server_that_stops_after_any_byte_is_an_error() {
    let words = good_words();
    for end in 0..words.len() {
        let error = told(&words[..end]).await.expect_err("is not whole");
        assert!(matches!(error.fault(), ConnectFault::Closed | ConnectFault::Io(_)), "{end}: {error}");
        assert!(error.is_transient());
    }
    let connection = told(&words).await.expect("is whole");
    assert_eq!((connection.pid, connection.secret_key.as_slice()), (7, b"abcd".as_slice()));
}

#[tokio::test]
async fn a_server_with_any_one_byte_changed_ends_in_a_result() {
    let words = good_words();
    for at in 0..words.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut words = words.clone();
            words[at] ^= change;
            // Whatever comes of it: no panic, no hanging, and no superuser for a fit role.
            if let Ok(connection) = told(&words).await {
                assert!(connection.server_version_num >= 130_000);
            }
        }
    }
}

#[tokio::test]
async fn messages_out_of_turn_and_beyond_the_bounds_are_refused() {
    let notice = message(b'N', b"");
    let big = message(b'N', &[0; 60_000]);
    let many: Vec<Vec<u8>> = vec![
        b"R\x7f\xff\xff\xff".to_vec(),
        b"R\xff\xff\xff\xff".to_vec(),
        b"R\0\0\0\x03".to_vec(),
        b"S\0\x01\0\x01".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
        notice.repeat(300),
        big.repeat(20),
        message(b'S', b"no end"),
        message(b'Z', b"I"),
        authentication(11, b"r=x"),
        authentication(12, b"v=x"),
        [authentication(0, b""), message(b'Z', b"I")].concat(),
        [authentication(0, b""), message(b'K', b"\0\0\0\x07abcd"), message(b'Z', b"T")].concat(),
        [authentication(0, b""), message(b'K', b"\0\0\0\x07abcd").repeat(2)].concat(),
        [authentication(0, b""), authentication(0, b"")].concat(),
        [good_words(), message(b'Z', b"I")].concat(),
        [good_words(), message(b'E', b"\0")].concat(),
    ];
    for words in many {
        protocol(told(&words).await);
    }
}

#[tokio::test]
async fn what_comes_unasked_after_the_login_is_kept() {
    let status = message(b'S', b"TimeZone\0UTC\0");
    let connection = told(&[good_words(), status.clone()].concat()).await.expect("logs in");
    // It may have come with the last bytes of the login, or may still be on its way.
    assert!(connection.leftover.is_empty() || connection.leftover[..] == status[..]);
}

#[tokio::test]
async fn an_error_without_fields_is_still_an_error() {
    for body in [&b""[..], b"\0", b"\0\0\0", b"M", b"C\0M\xff\xfe\0\0"] {
        let error = told(&message(b'E', body)).await.expect_err("is refused");
        assert!(matches!(error.fault(), ConnectFault::Refused { .. }) && !error.is_transient(), "{error}");
    }
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    for tls in [TlsMode::Disable, TlsMode::Prefer] {
        let mut spec = scripted(port, tls);
        spec.connect_timeout = Duration::from_millis(20);
        let error = server::connect(&spec).await.expect_err("is silent");
        assert!(matches!(error.fault(), ConnectFault::Timeout) && error.is_transient(), "{error}");
    }
}

#[tokio::test]
async fn nothing_may_stand_between_the_yes_to_tls_and_its_handshake() {
    for tls in [TlsMode::Prefer, TlsMode::Require] {
        let stuffed = against(tls, async |stream| {
            hear(stream).await;
            stream.write_all(b"SE\0\0\0\x05\0").await.ok();
        });
        let error = stuffed.await.expect_err("is refused");
        assert!(matches!(error.fault(), ConnectFault::StuffedBytes), "{error}");
    }
}

#[tokio::test]
async fn an_answer_to_the_request_for_tls_other_than_yes_or_no_is_not_read() {
    for answer in [&b"E"[..], b"X", b"\0"] {
        let result = against(TlsMode::Prefer, async |stream| {
            hear(stream).await;
            stream.write_all(answer).await.ok();
        });
        protocol(result.await);
    }
    let nothing = against(TlsMode::Require, async |stream| drop(hear(stream).await));
    let error = nothing.await.expect_err("closes");
    assert!(matches!(error.fault(), ConnectFault::Closed), "{error}");
    let not_tls = against(TlsMode::Require, async |stream| {
        hear(stream).await;
        stream.write_all(b"S").await.ok();
        hear(stream).await;
        stream.write_all(b"not a handshake").await.ok();
    });
    let error = not_tls.await.expect_err("is no TLS");
    assert!(matches!(error.fault(), ConnectFault::Tls(_)), "{error}");
}

#[tokio::test]
async fn the_password_is_never_sent_in_clear_text() {
    for code in [3, 2, 6, 7, 9, 99] {
        let mut heard = Vec::new();
        let result = against(TlsMode::Disable, async |stream| {
            hear(stream).await;
            stream.write_all(&authentication(code, b"")).await.ok();
            heard = hear(stream).await;
        });
        let error = result.await.expect_err("is refused");
        assert!(matches!(error.fault(), ConnectFault::Authentication(_)), "{error}");
        assert!(heard.is_empty(), "something was sent: {heard:?}");
    }
}

/// What a server says to a client's SCRAM start, given its nonce, and then to its proof.
async fn scram(challenge: impl Fn(&str) -> String, last: &[u8]) -> Result<ServerConnection, ConnectError> {
    against(TlsMode::Disable, async |stream| {
        hear(stream).await;
        stream.write_all(&authentication(10, b"SCRAM-SHA-256\0\0")).await.ok();
        let initial = String::from_utf8_lossy(&hear(stream).await).into_owned();
        let nonce = initial.rsplit("r=").next().unwrap_or_default();
        stream.write_all(&authentication(11, challenge(nonce).as_bytes())).await.ok();
        hear(stream).await;
        stream.write_all(last).await.ok();
    })
    .await
}

fn scram_failure(result: Result<ServerConnection, ConnectError>) {
    let error = result.expect_err("is refused");
    assert!(matches!(error.fault(), ConnectFault::Scram(_)) && !error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_server_has_to_prove_that_it_knows_the_password() {
    let salt = STANDARD.encode("salt");
    let good = |nonce: &str| format!("r={nonce}more,s={salt},i=4096");
    let proof = format!("v={}", STANDARD.encode([7; 32]));
    scram_failure(scram(good, &authentication(12, proof.as_bytes())).await);
    scram_failure(scram(good, &authentication(12, b"e=other-error")).await);
    scram_failure(scram(good, &authentication(12, b"\xff")).await);
    scram_failure(scram(good, &authentication(12, b"")).await);
    protocol(scram(good, &authentication(0, b"")).await);
    protocol(scram(good, &authentication(11, proof.as_bytes())).await);
}

#[tokio::test]
async fn a_challenge_that_is_not_ours_or_too_dear_is_refused() {
    let salt = STANDARD.encode("salt");
    scram_failure(scram(|_| format!("r=another,s={salt},i=4096"), b"").await);
    scram_failure(scram(|nonce| format!("r={nonce}x,s={salt},i=1000001"), b"").await);
    scram_failure(scram(|nonce| format!("r={nonce}x,s={salt},i=4294967296"), b"").await);
    scram_failure(scram(|nonce| format!("r={nonce}x,s={salt},i=-1"), b"").await);
    scram_failure(scram(|nonce| format!("r={nonce}x,s=???,i=4096"), b"").await);
    scram_failure(scram(|_| String::new(), b"").await);
}

#[tokio::test]
async fn an_unknown_sasl_mechanism_is_refused() {
    for mechanisms in [&b"SCRAM-SHA-512\0\0"[..], b"SCRAM-SHA-256-PLUS\0\0", b"OAUTHBEARER\0\0"] {
        let error = told(&authentication(10, mechanisms)).await.expect_err("is refused");
        assert!(matches!(error.fault(), ConnectFault::Authentication(_)), "{error}");
    }
}
