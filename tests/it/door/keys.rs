//! Keys and tokens whose time is over, seen by those who are logged in and by those who come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use partywall::auth::mint::SigningKey;
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::raw::{Message, Raw, Wire};
use crate::support::{PATIENCE, Proxy, Shard, until};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn token(pair: &KeyPair, id: &str, ttl_s: u64) -> String {
    let key = SigningKey::from_pem(pair.serialize_pem().as_bytes()).expect("a key").named(id);
    key.sign(&json!({"org": "acme", "sub": "ada", "roles": ["developer"], "exp": now() + ttl_s})).expect("a token")
}

fn jwks(keys: &[(&KeyPair, &str)]) -> String {
    let key = |&(pair, id): &(&KeyPair, &str)| {
        let point = &pair.der_bytes()[1..];
        let (x, y) = point.split_at(32);
        let text = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": id, "x": text(x), "y": text(y)})
    };
    json!({"keys": keys.iter().map(key).collect::<Vec<_>>()}).to_string()
}

/// What a client hears who logs in with `token`: nothing bad, or the code of the error.
async fn hears(proxy: &Proxy, token: &str) -> String {
    let mut raw = Raw::dial(proxy.address()).await;
    raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]).password(token)).await;
    let answer = raw.until_ready().await;
    answer.iter().find(|message| message.tag == b'E').map_or_else(|| "welcome".to_owned(), Message::brief)
}

#[tokio::test]
async fn keys_rotate_without_a_word_to_those_who_are_logged_in() {
    let pairs = [KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key")];
    let [old, new] = [(&pairs[0], "k1"), (&pairs[1], "k2")];
    let proxy = Proxy::before(Shard::shared())
        .file("jwks.json", &jwks(&[old]))
        .sections("[[auth.keys]]\ntype = \"jwks_file\"\nfile = \"jwks.json\"")
        .start()
        .await;
    let mut session = Raw::log_in(proxy.address(), &token(old.0, old.1, 600)).await;
    proxy.files().put("jwks.json", &jwks(&[old, new]));
    until("the new key is known", async || hears(&proxy, &token(new.0, new.1, 600)).await == "welcome").await;
    assert_eq!(hears(&proxy, &token(old.0, old.1, 601)).await, "welcome");
    proxy.files().put("jwks.json", &jwks(&[new]));
    until("the old key is withdrawn", async || hears(&proxy, &token(old.0, old.1, 602)).await == "E(28P01)").await;
    proxy.files().put("jwks.json", "{ nonsense");
    assert_eq!(hears(&proxy, &token(new.0, new.1, 603)).await, "welcome", "a bad file keeps the last good keys");
    assert_eq!(session.query("select count(*) from canary").await, "T D(100) C(SELECT 1) ZI");
}

/// An issuer behind TLS that is sound until told otherwise: its certificate, its port, and its mood.
async fn issuer(body: String) -> (String, u16, Arc<AtomicU8>) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("localhost", 0)).await.expect("a port");
    let (port, mood) = (listener.local_addr().expect("an address").port(), Arc::new(AtomicU8::new(0)));
    let shown = Arc::clone(&mood);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, body, mood) = (acceptor.clone(), body.clone(), shown.load(Ordering::SeqCst));
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                let asked = stream.read(&mut [0; 4096]).await.ok()?;
                assert!(asked > 0, "a request");
                let body = match mood {
                    0 => body,
                    1 => "x".repeat(10 << 20),
                    2 => "garbage".to_owned(),
                    3 => return None,
                    _ => {
                        tokio::time::sleep(PATIENCE * 10).await;
                        return None;
                    }
                };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await.ok()?;
                stream.write_all(body.as_bytes()).await.ok()?;
                stream.shutdown().await.ok()
            });
        }
    });
    (cert.pem(), port, mood)
}

#[tokio::test]
async fn an_issuer_gone_mad_harms_neither_those_inside_nor_those_whose_keys_are_good() {
    let (pair, unknown) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let (certificate, port, mood) = issuer(jwks(&[(&pair, "k1")])).await;
    let proxy = Proxy::before(Shard::shared())
        .file("issuer.crt", &certificate)
        .option("listen", "client_login_timeout_s = 3")
        .sections(&format!(
            "[[auth.keys]]\ntype = \"jwks_url\"\nurl = \"https://localhost:{port}/jwks\"\nca_file = \"issuer.crt\""
        ))
        .start()
        .await;
    let mut session = Raw::log_in(proxy.address(), &token(&pair, "k1", 600)).await;
    for new_mood in 1..=4 {
        mood.store(new_mood, Ordering::SeqCst);
        let stranger = token(&unknown, &format!("strange-{new_mood}"), 600);
        let (no, yes) = tokio::join!(hears(&proxy, &stranger), async {
            let welcome = hears(&proxy, &token(&pair, "k1", 600 + u64::from(new_mood))).await;
            (welcome, session.query("select count(*) from canary").await)
        });
        assert!(matches!(no.as_str(), "E(28P01)" | "E(08P01)"), "{no}");
        assert_eq!(yes, ("welcome".to_owned(), "T D(100) C(SELECT 1) ZI".to_owned()), "mood {new_mood}");
    }
}

#[tokio::test]
async fn a_session_ends_with_its_token_at_a_safe_point_unless_it_may_stay() {
    let pair = KeyPair::generate().expect("a key");
    let with = |on_expiry: &str| {
        Proxy::before(Shard::shared())
            .file("public.pem", &pair.public_key_pem())
            .option("auth", &format!("leeway_s = 0\non_expiry = \"{on_expiry}\""))
            .sections("[[auth.keys]]\ntype = \"pem\"\nfile = \"public.pem\"")
    };
    let (strict, lenient) = (with("disconnect").start().await, with("keep").start().await);
    let short = token(&pair, "", 5);
    let mut idle = Raw::log_in(strict.address(), &short).await;
    let mut busy = Raw::log_in(strict.address(), &short).await;
    let mut kept = Raw::log_in(lenient.address(), &short).await;
    assert!(busy.query("begin").await.ends_with("ZT"));
    let code = |messages: &[Message]| messages.iter().map(Message::brief).collect::<Vec<_>>().join(" ");
    assert_eq!(code(&idle.until_closed().await), "E(28000)");
    assert_eq!(hears(&strict, &short).await, "E(28P01)");
    assert_eq!(busy.query("select count(*) from canary").await, "T D(100) C(SELECT 1) ZT", "not in a transaction");
    busy.send(Wire::new().query("commit")).await;
    assert_eq!(code(&busy.until_closed().await), "C(COMMIT) ZI E(28000)");
    assert_eq!(kept.query("select count(*) from canary").await, "T D(100) C(SELECT 1) ZI");
}
