//! Every login that must not succeed, and the logins of others that must.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use partywall::auth::mint::SigningKey;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::raw::{Raw, Wire, cancel};
use crate::support::{Proxy, Shard, soon, until};

const SECRET: &str = "a secret of the tests, at least thirty-two bytes long";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn signed(secret: &str, claims: &Value) -> String {
    SigningKey::from_secret(secret.as_bytes()).expect("a key").sign(claims).expect("a token")
}

fn good() -> Value {
    json!({"iss": "us", "aud": "here", "org": "acme", "sub": "ada", "roles": ["developer"], "exp": now() + 600})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

/// A token whose header and claims are as given; the signature is nonsense.
fn unsigned(header: &Value, signature: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(&good()))
}

/// What a client from `from` hears who shows `token`: the code of the error, or of what it got instead.
async fn shows(proxy: &Proxy, token: &str) -> String {
    let mut raw = Raw::dial(proxy.address()).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)])).await;
    assert_eq!(raw.message().await.map(|message| message.tag), Some(b'R'), "a password is asked for");
    raw.send(Wire::new().password(token)).await;
    let answer = raw.message().await;
    let heard = answer.map_or_else(|| "nothing".to_owned(), |message| message.brief());
    if heard.starts_with('E') {
        assert!(raw.until_closed().await.is_empty(), "the connection ends after {heard}");
    }
    heard
}

/// Waits until no connection of a client is open any more.
async fn nobody_left(proxy: &Proxy) {
    let port = proxy.address().port();
    until("every connection has been closed", async || established(port) == 0).await;
}

/// Connections to `port` that this process has accepted and not closed (Linux: `/proc/net/tcp`).
fn established(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
    let here = format!(":{port:04X}");
    let open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 9 && fields[1].ends_with(&here) && matches!(fields[3], "01" | "08") && fields[9] != "0"
    };
    table.lines().skip(1).filter(open).count()
}

#[tokio::test]
async fn a_bad_token_is_refused_whatever_is_wrong_with_it() {
    let shard = Shard::shared();
    let (public, private) = key_pair();
    let proxy = Proxy::before(shard)
        .option("auth", "issuer = \"us\"\naudience = [\"here\"]\nleeway_s = 0")
        .sections("[[auth.keys]]\ntype = \"pem\"\nfile = \"public.pem\"")
        .file("public.pem", &public)
        .start()
        .await;
    assert_eq!(shows(&proxy, &signed(SECRET, &good())).await, "R", "the good one is accepted");
    let by_private = SigningKey::from_pem(private.as_bytes()).expect("a key").sign(&good()).expect("a token");
    assert_eq!(shows(&proxy, &by_private).await, "R", "so is one of the private key");
    let bad = [
        ("wrong key", signed("another secret, which is long enough for HS256", &good())),
        ("HMAC with the public key", hmac_with(&public)),
        ("HMAC with the public key, trimmed", hmac_with(public.trim())),
        ("none", unsigned(&json!({"alg": "none"}), "")),
        ("None, signed", unsigned(&json!({"alg": "None", "typ": "JWT"}), "c2ln")),
        ("wrong algorithm", unsigned(&json!({"alg": "RS256"}), "c2ln")),
        ("no algorithm", unsigned(&json!({"typ": "JWT"}), "c2ln")),
        ("expired", signed(SECRET, &with("exp", json!(now() - 5)))),
        ("no expiry", signed(SECRET, &without("exp"))),
        ("not yet valid", signed(SECRET, &with("nbf", json!(now() + 300)))),
        ("wrong issuer", signed(SECRET, &with("iss", json!("them")))),
        ("no issuer", signed(SECRET, &without("iss"))),
        ("wrong audience", signed(SECRET, &with("aud", json!(["there"])))),
        ("no audience", signed(SECRET, &without("aud"))),
        ("no organization", signed(SECRET, &without("org"))),
        ("no token", String::new()),
        ("no token at all", "password".to_owned()),
    ];
    let hostile = ["", " ", "a'b", "a;b", "a\\b", "a\nb", "ä", "a b", "../x", "%s", "\u{202e}x", &"x".repeat(300)];
    let hostile = hostile.map(|org| ("hostile organization", signed(SECRET, &with("org", json!(org)))));
    let odd = [json!(null), json!(1.5), json!([]), json!([["acme"]]), json!({"acme": 1}), json!(true)];
    let odd = odd.map(|org| ("odd organization", signed(SECRET, &with("org", org))));
    for (what, token) in bad.into_iter().chain(hostile).chain(odd) {
        assert_eq!(shows(&proxy, &token).await, "E(28P01)", "{what}: {token}");
        // Which also keeps the throttle from refusing the next one for the number of failures alone.
        assert_eq!(shows(&proxy, &signed(SECRET, &good())).await, "R", "others log in");
    }
    nobody_left(&proxy).await;
}

/// Signed by the whole text of a public key, which our own mint refuses to do.
fn hmac_with(public: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(public.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &good(), &key).expect("a token")
}

fn key_pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    (key.public_key_pem(), key.serialize_pem())
}

#[tokio::test]
async fn what_is_no_login_gets_its_refusal_within_the_deadline_while_others_log_in() {
    let shard = Shard::shared();
    let proxy = Proxy::before(shard).tls().option("listen", "client_login_timeout_s = 2").start().await;
    let token = proxy.token("acme", "ada", &["developer"]);
    let startup = Wire::startup(&[("user", "ada")]).0;
    let half = startup[..startup.len() / 2].to_vec();
    let long = Wire::startup(&[("user", "ada")]).password(&"t".repeat(17 * 1024)).0;
    let tls_request = [0, 0, 0, 8, 4, 210, 22, 47].to_vec();
    let stuffed = [tls_request.clone(), startup.clone()].concat();
    let hello = [&[22, 3, 1, 0, 200][..], &[7; 50]].concat();
    let random: Vec<u8> = (0..400_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
    let silent = |bytes: Vec<u8>| (bytes, "");
    for (what, (bytes, code)) in [
        ("nothing", silent(vec![])),
        ("random bytes", silent(random)),
        ("half a start-up packet", (half, "LOGIN_TIMEOUT")),
        ("an empty packet", silent(vec![0, 0, 0, 4])),
        ("a packet of 2 GB", silent(vec![127, 255, 255, 255, 0, 3, 0, 0])),
        ("a token of 17 KB", (long, "08P01")),
        ("a start-up packet and silence", (startup.clone(), "LOGIN_TIMEOUT")),
        ("half a TLS handshake", silent(hello)),
        ("bytes before TLS", (stuffed, "08P01")),
        ("HTTP", silent(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec())),
    ] {
        let mut raw = Raw::dial(proxy.address()).await;
        raw.send(Wire(bytes)).await;
        let other = Raw::log_in(proxy.address(), &token).await;
        let answer = raw.until_closed().await;
        let errors: Vec<String> =
            answer.iter().filter(|message| message.tag == b'E').map(|message| message.field(b'C')).collect();
        match code {
            "" => assert!(errors.is_empty(), "{what}: {errors:?}"),
            "LOGIN_TIMEOUT" => assert_eq!(errors.len(), 1, "{what}: {answer:?}"),
            code => assert_eq!(errors, [code], "{what}"),
        }
        drop(other);
    }
    nobody_left(&proxy).await;
}

#[tokio::test]
async fn a_login_that_dribbles_ends_with_its_deadline() {
    let proxy = Proxy::before(Shard::shared()).option("listen", "client_login_timeout_s = 1").start().await;
    let mut raw = Raw::dial(proxy.address()).await;
    let bytes = Wire::startup(&[("user", "ada"), ("options", &" ".repeat(4000))]).0;
    let dribble = async {
        for byte in bytes {
            if raw.stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it was listened to for 80 s");
    };
    soon("the proxy hangs up", dribble).await;
    nobody_left(&proxy).await;
}

#[tokio::test]
async fn a_token_is_not_taken_without_tls_where_tls_is_asked_for() {
    let proxy = Proxy::before(Shard::shared()).tls().option("listen", "plaintext_passwords = \"never\"").start().await;
    let mut raw = Raw::dial(proxy.address()).await;
    raw.send(Wire::startup(&[("user", "ada")])).await;
    let answer = raw.until_closed().await;
    assert_eq!(answer.iter().map(|message| message.field(b'C')).collect::<Vec<_>>(), ["28000"]);
    let (content, out, complaint) = crate::support::proxy::psql(
        &format!("host=127.0.0.1 port={} user=ada dbname=postgres sslmode=require", proxy.address().port()),
        &proxy.token("acme", "ada", &["developer"]),
        &["-Atc", "select count(*) from canary"],
    )
    .await;
    assert!(content && out.trim() == "100", "{complaint}");
}

#[tokio::test]
async fn protocol_3_2_gives_a_cancel_key_of_32_bytes_which_alone_cancels() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut raw = Raw::dial(proxy.address()).await;
    let mut startup = Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE), ("_pq_.new", "1")]);
    startup.0[4..8].copy_from_slice(&196_610_u32.to_be_bytes());
    raw.send(startup).await;
    let asked = raw.until_tag(b'R').await;
    assert_eq!(asked.iter().map(|message| message.tag).collect::<Vec<_>>(), [b'v', b'R']);
    raw.send(Wire::new().password(&proxy.token("acme", "ada", &["developer"]))).await;
    let welcome = raw.until_ready().await;
    let key = &welcome.iter().find(|message| message.tag == b'K').expect("a key").body;
    assert_eq!(key.len(), 4 + 32);
    let pid = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    raw.send(Wire::new().query("select pg_sleep(600)")).await;
    let mut wrong = key[4..].to_vec();
    wrong[31] ^= 1;
    for nonsense in [&wrong[..], &key[4..8], &[0; 32], &[]] {
        cancel(proxy.address(), pid, nonsense).await;
    }
    let early = tokio::time::timeout(Duration::from_millis(300), raw.message()).await;
    assert!(early.is_err(), "a wrong key has cancelled: {early:?}");
    // The statement may not have begun when the first request comes.
    let (address, key) = (proxy.address(), key[4..].to_vec());
    let cancelling = tokio::spawn(async move {
        loop {
            cancel(address, pid, &key).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let ended = raw.until_ready().await;
    cancelling.abort();
    assert_eq!(
        ended.iter().find(|message| message.tag == b'E').map(|error| error.field(b'C')).as_deref(),
        Some("57014")
    );
}

#[tokio::test]
async fn a_client_that_gives_no_name_has_none() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let token = proxy.token("acme", "ada", &["developer"]);
    let mut named = Raw::log_in_with(proxy.address(), &token, &[("application_name", "theirs")]).await;
    let mut raw = Raw::log_in(proxy.address(), &token).await;
    for _ in 0..2 {
        assert_eq!(named.query("SHOW application_name").await, "T D(theirs) C(SHOW) ZI");
        assert_eq!(raw.query("SHOW application_name").await, "T D() C(SHOW) ZI");
        assert_eq!(raw.query("SET application_name = 'mine'").await, "C(SET) ZI");
        assert_eq!(raw.query("SHOW application_name").await, "T D(mine) C(SHOW) ZI");
        assert_eq!(raw.query("RESET application_name").await, "C(RESET) ZI");
        assert_eq!(raw.query("SHOW application_name").await, "T D() C(SHOW) ZI");
        assert_eq!(raw.query("DISCARD ALL").await, "C(DISCARD ALL) ZI");
    }
    let mut config = proxy.client_config("acme");
    config.application_name("");
    assert!(proxy.connect_with(&config).await.is_ok());
}
