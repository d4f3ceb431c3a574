//! Scripted clients against the greeting, over real sockets on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::{ContextNames, PlaintextPasswords};
use crate::net::tls::ServerTls;
use crate::net::{Caps, Proxies};
use crate::refusal::{Kind, Refusal};
use crate::wire::startup::{Protocol, TOKEN_BYTES_MAX};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
const ASKS_FOR_PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const FAR_AWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 5555);

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = 8 + body.len() as u32;
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

fn startup(minor: u32) -> Vec<u8> {
    packet((3 << 16) | minor, b"user\0ada\0database\0shop\0\0")
}

fn cancel_request(key: &[u8]) -> Vec<u8> {
    packet((1234 << 16) | 5678, &[&7_u32.to_be_bytes(), key].concat())
}

fn password(token: &str) -> Vec<u8> {
    let length = 5 + token.len() as u32;
    [b"p", &length.to_be_bytes()[..], token.as_bytes(), b"\0"].concat()
}

/// A proxy's door and a way to trust its certificate.
struct House {
    door: Door,
    roots: RootCertStore,
}

impl House {
    fn with_tls(plaintext_passwords: PlaintextPasswords) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let tls = ServerTls::load(certificate.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let reserved = Reserved::new(&ContextNames::default());
        let login_timeout = Duration::from_secs(30);
        Self {
            door: Door {
                tls: Some(Arc::new(tls)),
                plaintext_passwords,
                login_timeout,
                reserved,
                proxies: Proxies::default(),
            },
            roots,
        }
    }

    fn without_tls() -> Self {
        let mut house = Self::with_tls(PlaintextPasswords::Loopback);
        house.door.tls = None;
        house
    }

    fn in_a_hurry(mut self) -> Self {
        self.door.login_timeout = Duration::from_millis(30);
        self
    }

    fn connector(&self, protocols: &[&str]) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// A client's socket, and the greeting that is going on at the other end.
    async fn visit(self) -> (TcpStream, JoinHandle<Greeted>) {
        self.visit_from(None).await
    }

    async fn visit_from(self, pretended: Option<SocketAddr>) -> (TcpStream, JoinHandle<Greeted>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let peer = pretended.unwrap_or(peer);
        let ticket = Caps::new(10, 10).try_enter(Some(peer.ip())).unwrap();
        (client, tokio::spawn(async move { greet(stream, peer, &self.door, &ticket).await }))
    }

    /// A client inside TLS, after SSLRequest.
    async fn visit_by_tls(self, protocols: &[&str]) -> (impl AsyncRead + AsyncWrite + Unpin, JoinHandle<Greeted>) {
        let connector = self.connector(protocols);
        let (mut client, greeting) = self.visit_from(Some(FAR_AWAY)).await;
        client.write_all(&SSL_REQUEST).await.unwrap();
        hears(&mut client, b"S").await;
        (connector.connect(localhost(), client).await.unwrap(), greeting)
    }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

async fn hears(client: &mut (impl AsyncRead + Unpin), wanted: &[u8]) {
    let mut heard = vec![0; wanted.len()];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, wanted);
}

/// Reads up to the end, leaves, and returns the refusal's SQLSTATE and sentence; empty where nothing was said.
async fn hears_no(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> (String, String) {
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    // The proxy may have closed altogether.
    let _ = client.shutdown().await;
    if heard.is_empty() {
        return Default::default();
    }
    assert_eq!(heard[0], b'E', "{:?}", String::from_utf8_lossy(&heard));
    let field = |kind: u8| {
        let found = heard[5..].split(|byte| *byte == 0).find(|field| field.first() == Some(&kind)).unwrap();
        String::from_utf8(found[1..].to_vec()).unwrap()
    };
    assert_eq!(field(b'S'), "FATAL");
    (field(b'C'), field(b'M'))
}

async fn login(greeting: JoinHandle<Greeted>) -> Box<Login> {
    match greeting.await.unwrap() {
        Greeted::Login(login) => login,
        other => panic!("no login: {other:?}"),
    }
}

async fn refused(greeting: JoinHandle<Greeted>) -> (Kind, String) {
    match greeting.await.unwrap() {
        Greeted::Refused { kind, why, .. } => (kind, why),
        other => panic!("not refused: {other:?}"),
    }
}

/// Sends a byte at a time, letting the other side read each.
async fn dribble(client: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    for byte in bytes {
        client.write_all(&[*byte]).await.unwrap();
        client.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_on_this_machine_may_log_in_in_clear_text() {
    for (minor, protocol) in [(0, Protocol::V3_0), (2, Protocol::V3_2)] {
        let (mut client, greeting) = House::without_tls().visit().await;
        client.write_all(&startup(minor)).await.unwrap();
        hears(&mut client, ASKS_FOR_PASSWORD).await;
        client.write_all(&password("a.b.c")).await.unwrap();
        let login = login(greeting).await;
        assert_eq!((login.token.expose(), login.protocol), ("a.b.c", protocol));
        assert_eq!(login.parameters.user, "ada");
        assert_eq!(login.parameters.database.as_deref(), Some("shop"));
        assert_eq!(login.peer, client.local_addr().unwrap());
        assert!(!login.stream.is_tls());
        assert!(!format!("{login:?}").contains("a.b.c"), "a token is never shown");
    }
}

#[tokio::test]
async fn bytes_may_come_one_at_a_time() {
    let (mut client, greeting) = House::without_tls().visit().await;
    dribble(&mut client, &GSSENC_REQUEST).await;
    hears(&mut client, b"N").await;
    dribble(&mut client, &SSL_REQUEST).await;
    hears(&mut client, b"N").await;
    dribble(&mut client, &startup(0)).await;
    hears(&mut client, ASKS_FOR_PASSWORD).await;
    dribble(&mut client, &password("a.b.c")).await;
    assert_eq!(login(greeting).await.token.expose(), "a.b.c");
}

#[tokio::test]
async fn bytes_may_come_one_at_a_time_over_tls() {
    let (mut client, greeting) = House::with_tls(PlaintextPasswords::Never).visit_by_tls(&[]).await;
    dribble(&mut client, &startup(2)).await;
    hears(&mut client, ASKS_FOR_PASSWORD).await;
    dribble(&mut client, &password("a.b.c")).await;
    assert_eq!(login(greeting).await.token.expose(), "a.b.c");
}

#[tokio::test]
async fn the_longest_token_comes_through_and_what_follows_it_is_left_for_the_session() {
    let token = "t".repeat(TOKEN_BYTES_MAX);
    let (mut client, greeting) = House::with_tls(PlaintextPasswords::Never).visit_by_tls(&["postgresql"]).await;
    client.write_all(&startup(0)).await.unwrap();
    hears(&mut client, ASKS_FOR_PASSWORD).await;
    client.write_all(&[&password(&token)[..], b"Q\0\0\0\x05\0"].concat()).await.unwrap();
    client.flush().await.unwrap();
    let mut login = login(greeting).await;
    assert_eq!(login.token.expose(), token);
    hears(&mut login.stream, b"Q\0\0\0\x05\0").await;
}

#[tokio::test]
async fn tls_after_a_request_needs_no_alpn_but_refuses_a_wrong_one() {
    for protocols in [&[][..], &["postgresql"], &["h2", "postgresql"]] {
        let (mut client, greeting) = House::with_tls(PlaintextPasswords::Never).visit_by_tls(protocols).await;
        client.write_all(&startup(0)).await.unwrap();
        hears(&mut client, ASKS_FOR_PASSWORD).await;
        client.write_all(&password("t")).await.unwrap();
        assert!(login(greeting).await.stream.is_tls());
    }
    let house = House::with_tls(PlaintextPasswords::Never);
    let connector = house.connector(&["h2"]);
    let (mut client, greeting) = house.visit().await;
    client.write_all(&SSL_REQUEST).await.unwrap();
    hears(&mut client, b"S").await;
    connector.connect(localhost(), client).await.unwrap_err();
    assert_eq!(refused(greeting).await.0, Kind::ProtocolViolation);
}

#[tokio::test]
async fn direct_tls_needs_the_right_alpn() {
    let visit = async |protocols: &[&str]| {
        let house = House::with_tls(PlaintextPasswords::Never);
        let connector = house.connector(protocols);
        let (client, greeting) = house.visit_from(Some(FAR_AWAY)).await;
        (connector.connect(localhost(), client).await, greeting)
    };
    let (client, greeting) = visit(&["postgresql"]).await;
    let mut client = client.unwrap();
    client.write_all(&startup(2)).await.unwrap();
    hears(&mut client, ASKS_FOR_PASSWORD).await;
    client.write_all(&password("t")).await.unwrap();
    assert!(login(greeting).await.stream.is_tls());

    let (client, greeting) = visit(&[]).await;
    let (_, words) = hears_no(&mut client.unwrap()).await;
    assert!(words.contains("without ALPN"), "{words}");
    assert_eq!(refused(greeting).await.0, Kind::ProtocolViolation);

    let (client, greeting) = visit(&["h2"]).await;
    client.unwrap_err();
    assert_eq!(refused(greeting).await.0, Kind::ProtocolViolation);
}

#[tokio::test]
async fn direct_tls_without_a_certificate_is_closed() {
    let house = House::without_tls();
    let connector = house.connector(&["postgresql"]);
    let (client, greeting) = house.visit().await;
    connector.connect(localhost(), client).await.unwrap_err();
    assert_eq!(refused(greeting).await.0, Kind::ProtocolViolation);
}

#[tokio::test]
async fn a_returning_client_resumes_its_tls_session() {
    let House { door, roots } = House::with_tls(PlaintextPasswords::Never);
    let connector = House { door: House::without_tls().door, roots: roots.clone() }.connector(&[]);
    let tls = door.tls.unwrap();
    for wanted in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let house =
            House { door: Door { tls: Some(Arc::clone(&tls)), ..House::without_tls().door }, roots: roots.clone() };
        let (mut client, greeting) = house.visit().await;
        client.write_all(&SSL_REQUEST).await.unwrap();
        hears(&mut client, b"S").await;
        let mut client = connector.connect(localhost(), client).await.unwrap();
        client.write_all(&startup(0)).await.unwrap();
        hears(&mut client, ASKS_FOR_PASSWORD).await;
        client.write_all(&password("t")).await.unwrap();
        login(greeting).await;
        assert_eq!(client.get_ref().1.handshake_kind(), Some(wanted));
    }
}

#[tokio::test]
async fn bytes_stuffed_behind_the_request_for_tls_are_an_attack() {
    for stuffed in [&startup(0)[..], b"\x16", b"Q"] {
        let (mut client, greeting) = House::with_tls(PlaintextPasswords::Loopback).visit().await;
        client.write_all(&[&SSL_REQUEST, stuffed].concat()).await.unwrap();
        let (_, words) = hears_no(&mut client).await;
        let (kind, why) = refused(greeting).await;
        assert_eq!(kind, Kind::ProtocolViolation);
        assert!(why.contains("unencrypted data"), "{why}");
        assert_eq!(words, why);
    }
}

#[tokio::test]
async fn encryption_may_be_asked_for_once_in_each_way() {
    for (first, second) in [(SSL_REQUEST, SSL_REQUEST), (GSSENC_REQUEST, GSSENC_REQUEST)] {
        let (mut client, greeting) = House::without_tls().visit().await;
        client.write_all(&first).await.unwrap();
        hears(&mut client, b"N").await;
        client.write_all(&second).await.unwrap();
        assert!(hears_no(&mut client).await.1.contains("again"));
        assert_eq!(refused(greeting).await.0, Kind::ProtocolViolation);
    }
    for inside in [SSL_REQUEST, GSSENC_REQUEST] {
        let (mut client, greeting) = House::with_tls(PlaintextPasswords::Never).visit_by_tls(&[]).await;
        client.write_all(&inside).await.unwrap();
        assert!(hears_no(&mut client).await.1.contains("again"));
        assert_eq!(refused(greeting).await.0, Kind::ProtocolViolation);
    }
}

#[tokio::test]
async fn a_token_is_not_even_asked_for_in_clear_text_from_afar() {
    use PlaintextPasswords::{Always, Loopback, Never};
    let mapped = "[::ffff:127.0.0.1]:5".parse().unwrap();
    let near = "[::1]:5".parse().unwrap();
    for (policy, from, allowed) in [
        (Never, near, false),
        (Never, FAR_AWAY, false),
        (Loopback, near, true),
        (Loopback, mapped, true),
        (Loopback, FAR_AWAY, false),
        (Loopback, "[::ffff:10.0.0.1]:5".parse().unwrap(), false),
        (Always, FAR_AWAY, true),
    ] {
        let (mut client, greeting) = House::with_tls(policy).visit_from(Some(from)).await;
        client.write_all(&startup(0)).await.unwrap();
        if allowed {
            hears(&mut client, ASKS_FOR_PASSWORD).await;
        } else {
            let wanted = Refusal::new(Kind::TlsRequired, "");
            assert_eq!(hears_no(&mut client).await.0, wanted.sqlstate(), "{policy:?} {from}");
            assert_eq!(refused(greeting).await.0, Kind::TlsRequired);
        }
    }
}

#[tokio::test]
async fn a_cancel_comes_in_clear_text_or_over_tls_with_short_or_long_keys() {
    for key in [&[1; 4][..], &[2; 32], &[3; 256]] {
        let (mut plain, first) = House::with_tls(PlaintextPasswords::Never).visit_from(Some(FAR_AWAY)).await;
        plain.write_all(&cancel_request(key)).await.unwrap();
        let (mut secret, second) = House::with_tls(PlaintextPasswords::Never).visit_by_tls(&[]).await;
        secret.write_all(&cancel_request(key)).await.unwrap();
        for (greeting, tls) in [(first, false), (second, true)] {
            let Greeted::Cancel(cancel) = greeting.await.unwrap() else { panic!("a cancel") };
            assert_eq!((cancel.request.pid, &cancel.request.key[..]), (7, key));
            assert_eq!(cancel.stream.is_tls(), tls);
        }
    }
}

#[tokio::test]
async fn a_client_that_wants_more_of_the_protocol_is_told_what_there_is() {
    let (mut client, greeting) = House::without_tls().visit().await;
    client.write_all(&packet((3 << 16) | 9999, b"user\0ada\0_pq_.magic\0on\0\0")).await.unwrap();
    hears(&mut client, b"v\0\0\0\x17\0\x03\0\x02\0\0\0\x01_pq_.magic\0").await;
    hears(&mut client, ASKS_FOR_PASSWORD).await;
    client.write_all(&password("t")).await.unwrap();
    assert_eq!(login(greeting).await.protocol, Protocol::V3_2);
}

#[tokio::test]
async fn garbage_is_refused_at_once() {
    let version_2 = packet(2 << 16, b"user\0ada\0\0");
    let no_end = packet(3 << 16, b"user\0ada\0");
    let no_user = packet(3 << 16, b"database\0shop\0\0");
    let replication = packet(3 << 16, b"user\0ada\0replication\0database\0\0");
    let context = packet(3 << 16, b"user\0ada\0app.current_org_id\0other\0\0");
    for (bytes, kind, words) in [
        (&version_2[..], Kind::NotSupported, "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"),
        (&no_end, Kind::ProtocolViolation, "invalid startup packet layout: expected terminator as last byte"),
        (&no_user, Kind::UserMissing, "no PostgreSQL user name specified in startup packet"),
        (&replication, Kind::NotSupported, "replication connections are not supported through the proxy"),
        (&context, Kind::Forbidden, "permission denied to set parameter \"app.current_org_id\""),
    ] {
        let (mut client, greeting) = House::without_tls().visit().await;
        client.write_all(bytes).await.unwrap();
        let heard = hears_no(&mut client).await;
        assert_eq!(heard, (Refusal::new(kind, "").sqlstate().to_owned(), words.to_owned()), "{bytes:?}");
        assert_eq!(refused(greeting).await.0, kind, "{bytes:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_packet_are_answered_with_nothing() {
    let cancel = [&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    for (bytes, words) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "invalid length of startup packet"),
        (b"\xff\xff\xff\xff", "invalid length of startup packet"),
        (b"\0\0\0\0", "invalid length of startup packet"),
        (b"\0\0\x27\x11", "invalid length of startup packet"),
        (&[&15_u32.to_be_bytes()[..], &cancel[4..15]].concat(), "invalid length of cancel request packet"),
    ] {
        let (mut client, greeting) = House::without_tls().visit().await;
        client.write_all(bytes).await.unwrap();
        assert_eq!(hears_no(&mut client).await, Default::default(), "{bytes:?}");
        assert_eq!(refused(greeting).await, (Kind::ProtocolViolation, words.to_owned()), "{bytes:?}");
    }
}

#[tokio::test]
async fn only_a_password_is_taken_for_a_password() {
    for (bytes, words) in [
        (&b"Q\0\0\0\x05\0"[..5], "expected password response, got message type 81"),
        (b"p\xff\xff\xff\xff", "invalid password packet size"),
        (b"p\0\0\0\0", "invalid password packet size"),
        (b"p\0\0\0\x07a\0b", "invalid password packet size"),
        (b"p\0\0\0\x07a\0\0", "invalid password packet size"),
        (b"p\0\0\0\x06\xff\0", "invalid password packet"),
    ] {
        let (mut client, greeting) = House::without_tls().visit().await;
        client.write_all(&startup(0)).await.unwrap();
        hears(&mut client, ASKS_FOR_PASSWORD).await;
        client.write_all(bytes).await.unwrap();
        assert_eq!(hears_no(&mut client).await.1, words);
        assert_eq!(refused(greeting).await, (Kind::ProtocolViolation, words.to_owned()));
    }
}

#[tokio::test]
async fn a_token_that_is_too_long_is_refused_with_the_bound_however_much_of_it_is_sent() {
    for sent in [5, 20 * 1024, 900 * 1024] {
        let message = password(&"t".repeat(900 * 1024));
        let (mut client, greeting) = House::without_tls().visit().await;
        client.write_all(&startup(0)).await.unwrap();
        hears(&mut client, ASKS_FOR_PASSWORD).await;
        client.write_all(&message[..sent]).await.unwrap();
        let words = "the token is longer than 16384 bytes, the most that is accepted".to_owned();
        assert_eq!(hears_no(&mut client).await, ("08P01".to_owned(), words), "{sent}");
        let why = "the token is longer than 16384 bytes".to_owned();
        assert_eq!(refused(greeting).await, (Kind::ProtocolViolation, why));
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_not_an_event() {
    let whole = [&SSL_REQUEST[..], &startup(0), &password("a.b.c")].concat();
    for sent in 0..whole.len() {
        let (mut client, greeting) = House::without_tls().visit().await;
        client.write_all(&whole[..sent]).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(matches!(greeting.await.unwrap(), Greeted::Gone), "after {sent} bytes");
    }
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_is_refused_when_the_login_takes_too_long() {
    let whole = [&SSL_REQUEST[..], &startup(0), &password("a.b.c")].concat();
    for sent in [0, 1, 4, 7, 8, 12, 30, whole.len() - 1] {
        let (mut client, greeting) = House::without_tls().in_a_hurry().visit().await;
        client.write_all(&whole[..sent]).await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        drop(client);
        assert_eq!(refused(greeting).await.0, Kind::LoginTimeout, "after {sent} bytes");
    }
}

#[tokio::test]
async fn a_client_that_stops_within_tls_is_closed_when_the_login_takes_too_long() {
    for begun in [&b"\x16\x03\x01"[..], &SSL_REQUEST] {
        let (mut client, greeting) = House::with_tls(PlaintextPasswords::Never).in_a_hurry().visit().await;
        client.write_all(begun).await.unwrap();
        assert_eq!(refused(greeting).await.0, Kind::LoginTimeout);
    }
}

#[tokio::test]
async fn a_client_for_whom_there_is_no_place_is_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let refusal = Refusal::from(crate::net::TooMany::InAll);
    // It speaks first, as clients do; that must not cost it the answer.
    client.write_all(&SSL_REQUEST).await.unwrap();
    let (_, heard) = tokio::join!(turn_away(stream, &refusal), hears_no(&mut client));
    assert_eq!(heard, (refusal.sqlstate().to_owned(), refusal.message().to_owned()));
}

/// What clients really send, cut, doubled and mixed with anything.
fn strange_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(SSL_REQUEST.to_vec()),
        Just(GSSENC_REQUEST.to_vec()),
        Just(startup(0)),
        Just(startup(9999)),
        Just(cancel_request(&[1; 32])),
        Just(password("a.b.c")),
        Just(vec![0x16, 3, 1, 0, 5]),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    (proptest::collection::vec(piece, 0..5), 0_usize..200).prop_map(|(pieces, keep)| {
        let mut bytes = pieces.concat();
        bytes.truncate(bytes.len().min(keep));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_bytes_come_the_greeting_ends(bytes in strange_bytes(), tls in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let house = if tls { House::with_tls(PlaintextPasswords::Loopback) } else { House::without_tls() };
            let (mut client, greeting) = house.visit().await;
            // The other side may have closed already.
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let ended = tokio::time::timeout(Duration::from_secs(20), greeting).await;
            prop_assert!(matches!(ended, Ok(Ok(_))), "{ended:?}");
            Ok(())
        })?;
    }
}
