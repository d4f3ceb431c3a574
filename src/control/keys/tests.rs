//! Tests: keys that rotate, files that go bad, and an issuer that dies, hangs, floods or talks nonsense.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::auth::TokenFault;
use crate::auth::mint::SigningKey;
use crate::config::{KeyBounds, SecretRef};

const NOW: u64 = 1_800_000_000;

/// What the issuer does with a request.
#[derive(Clone)]
enum Script {
    Answer(String),
    /// The first is what the issuer says of itself; everything else is answered by the second.
    Discovery(String, String),
    Status(u16, String),
    /// So many bytes of body, announced or not.
    Flood {
        announced: bool,
    },
    Hang,
    Die,
}

/// A scripted issuer behind TLS, on this machine.
struct Issuer {
    script: Arc<Mutex<Script>>,
    requests: Arc<AtomicUsize>,
    port: u16,
    directory: tempfile::TempDir,
}

impl Issuer {
    async fn start(script: Script) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("localhost", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (script, requests) = (Arc::new(Mutex::new(script)), Arc::new(AtomicUsize::new(0)));
        let issuer = Self { script: Arc::clone(&script), requests: Arc::clone(&requests), port, directory };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.lock().clone();
                tokio::spawn(serve(acceptor.clone(), stream, script, Arc::clone(&requests)));
            }
        });
        issuer
    }

    fn now(&self, script: Script) {
        *self.script.lock() = script;
    }

    fn source(&self) -> KeySource {
        let ca_file = Some(self.directory.path().join("ca.crt"));
        KeySource::JwksUrl { url: format!("https://localhost:{}/jwks", self.port), ca_file }
    }

    /// The issuer by its own name, with a way to what it says of itself.
    fn issuer(&self) -> (String, KeySource) {
        let issuer = format!("https://localhost:{}/realms/a", self.port);
        let ca_file = Some(self.directory.path().join("ca.crt"));
        (issuer.clone(), KeySource::Issuer { issuer, ca_file })
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// One connection. Errors end it: the client may hang up at any time.
async fn serve(acceptor: TlsAcceptor, stream: TcpStream, script: Script, requests: Arc<AtomicUsize>) -> Option<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await.ok()?);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let asked = line.split(' ').nth(1).unwrap_or_default().to_owned();
    line.clear();
    while stream.read_line(&mut line).await.ok()? > 2 {
        line.clear();
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let (status, headers, body) = match script {
        Script::Discovery(own, _) if asked == "/realms/a/.well-known/openid-configuration" => {
            (200, format!("content-length: {}\r\n", own.len()), own)
        }
        Script::Discovery(_, body) if asked == "/keys" => (200, format!("content-length: {}\r\n", body.len()), body),
        Script::Discovery(..) => (404, String::new(), String::new()),
        Script::Answer(body) => (200, format!("content-length: {}\r\n", body.len()), body),
        Script::Status(status, headers) => (status, headers, String::new()),
        Script::Flood { announced: true } => (200, "content-length: 10485760\r\n".to_owned(), " ".repeat(10_485_760)),
        Script::Flood { announced: false } => (200, String::new(), " ".repeat(10_485_760)),
        Script::Hang => std::future::pending().await,
        Script::Die => return None,
    };
    let answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}\r\n{body}");
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

fn jwks(keys: &[(&KeyPair, &str)]) -> String {
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let one = |(pair, id): &(&KeyPair, &str)| {
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y), "kid": id, "use": "sig" })
    };
    json!({ "keys": keys.iter().map(one).collect::<Vec<Value>>() }).to_string()
}

fn token(pair: &KeyPair, id: &str) -> String {
    let key = SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap().named(id);
    key.sign(&json!({ "exp": NOW + 60, "org": "org_1" })).unwrap()
}

fn auth(keys: Vec<KeySource>) -> Auth {
    Auth { keys: keys.into_iter().map(TokenKeys::from).collect(), ..Auth::default() }
}

/// Nothing happens by itself, everything when a login asks.
fn on_demand() -> Timing {
    let never = Duration::from_secs(3600);
    Timing {
        file_poll: never,
        files_apart: Duration::ZERO,
        fetch_every: never,
        fetch_apart: Duration::ZERO,
        retry_min: never,
        retry_max: never,
        fetch_timeout: Duration::from_secs(2),
        ..Timing::default()
    }
}

async fn keep(keys: Vec<KeySource>, timing: Timing) -> Arc<KeyRing> {
    let (ring, keeper) = KeyKeeper::open(&auth(keys), timing).await.unwrap();
    // Nobody holds the sender: without a configuration that changes all else goes on.
    tokio::spawn(keeper.run(watch::channel(Arc::new(Auth::default())).1));
    ring
}

fn fault(ring: &KeyRing, token: &str) -> Option<TokenFault> {
    ring.current().verify(token, NOW).err().map(|error| error.fault())
}

/// Waits, for ten seconds at most, until it is so.
async fn until(mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it to become so");
}

#[tokio::test]
async fn keys_of_a_url_rotate_when_a_login_asks() {
    let [old, new] = [0, 1].map(|_| KeyPair::generate().unwrap());
    let issuer = Issuer::start(Script::Answer(jwks(&[(&old, "old")]))).await;
    let ring = keep(vec![issuer.source()], on_demand()).await;
    let (old_token, new_token) = (token(&old, "old"), token(&new, "new"));
    assert_eq!((fault(&ring, &old_token), fault(&ring, &new_token)), (None, Some(TokenFault::UnknownKey)));
    issuer.now(Script::Answer(jwks(&[(&old, "old"), (&new, "new")])));
    ring.refreshed().await;
    assert_eq!((fault(&ring, &old_token), fault(&ring, &new_token)), (None, None));
    issuer.now(Script::Answer(jwks(&[(&new, "new")])));
    ring.refreshed().await;
    // Gone from the set, gone from the cache: a withdrawn key signs nobody in.
    assert_eq!((fault(&ring, &old_token), fault(&ring, &new_token)), (Some(TokenFault::UnknownKey), None));
}

#[tokio::test]
async fn an_issuer_gone_mad_leaves_the_last_good_keys_in_force() {
    let pair = KeyPair::generate().unwrap();
    let good = jwks(&[(&pair, "k")]);
    let issuer = Issuer::start(Script::Answer(good.clone())).await;
    let timing = Timing { fetch_timeout: Duration::from_millis(300), ..on_demand() };
    let ring = keep(vec![issuer.source()], timing).await;
    let location = "location: /elsewhere\r\ncontent-length: 0\r\n";
    let madness = [
        Script::Answer("garbage".to_owned()),
        Script::Answer(String::new()),
        Script::Answer("{\"keys\":[]}".to_owned()),
        Script::Answer(good[..good.len() - 3].to_owned()),
        Script::Status(500, String::new()),
        Script::Status(404, String::new()),
        Script::Status(302, location.to_owned()),
        Script::Flood { announced: true },
        Script::Flood { announced: false },
        Script::Hang,
        Script::Die,
    ];
    for (place, script) in madness.into_iter().enumerate() {
        issuer.now(script);
        ring.refreshed().await;
        assert_eq!(issuer.requests(), place + 2, "each is asked once: no retry of its own, no redirect followed");
        assert_eq!(fault(&ring, &token(&pair, "k")), None, "script {place}");
    }
    issuer.now(Script::Answer(good));
    ring.refreshed().await;
    assert_eq!(fault(&ring, &token(&pair, "k")), None);
}

#[tokio::test]
async fn each_madness_has_its_own_words() {
    let issuer = Issuer::start(Script::Hang).await;
    let timing = Timing { fetch_timeout: Duration::from_millis(300), ..on_demand() };
    let KeySource::JwksUrl { url, ca_file } = issuer.source() else { panic!("a URL") };
    let table = [
        (Script::Hang, "there was no answer in time"),
        (Script::Flood { announced: true }, "the answer is larger than 65536 bytes"),
        (Script::Flood { announced: false }, "the answer is larger than 65536 bytes"),
        (Script::Status(302, "location: /x\r\n".to_owned()), "the answer was 302"),
        (Script::Answer("[]".to_owned()), "the answer is not usable: it is not a JWKS document"),
    ];
    for (script, words) in table {
        // Only where there is no answer is one not waited for: a busy machine may be slow.
        let patience = if matches!(script, Script::Hang) { timing.fetch_timeout } else { Duration::from_secs(60) };
        let timing = Timing { fetch_timeout: patience, ..timing };
        issuer.now(script);
        assert_eq!(fetch::fetch(&url, ca_file.as_deref(), &timing).await.unwrap_err().to_string(), words);
    }
    let plain = url.replace("https", "http");
    assert!(matches!(fetch::fetch(&plain, None, &timing).await, Err(FetchError::Url)));
    let missing = PathBuf::from("/nowhere/ca.crt");
    assert!(matches!(fetch::fetch(&url, Some(&missing), &timing).await, Err(FetchError::CaFile(..))));
}

#[tokio::test]
async fn an_issuer_whose_certificate_is_not_trusted_gives_no_keys() {
    let pair = KeyPair::generate().unwrap();
    let good = Script::Answer(jwks(&[(&pair, "k")]));
    let [issuer, other] = [Issuer::start(good.clone()).await, Issuer::start(good).await];
    let (KeySource::JwksUrl { url, ca_file }, KeySource::JwksUrl { ca_file: other_ca, .. }) =
        (issuer.source(), other.source())
    else {
        panic!("URLs")
    };
    assert!(fetch::fetch(&url, ca_file.as_deref(), &on_demand()).await.is_ok());
    // Signed by somebody else; by nobody that the system knows; for another name.
    let other_name = url.replace("localhost", "127.0.0.1");
    let table = [(&url, other_ca.as_deref()), (&url, None), (&other_name, ca_file.as_deref())];
    for (url, ca_file) in table {
        let error = fetch::fetch(url, ca_file, &on_demand()).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn a_url_that_fails_at_start_is_tried_again_by_itself() {
    let pair = KeyPair::generate().unwrap();
    let issuer = Issuer::start(Script::Die).await;
    let timing = Timing { retry_min: Duration::from_millis(1), retry_max: Duration::from_millis(5), ..on_demand() };
    let ring = keep(vec![issuer.source()], timing).await;
    assert_eq!(fault(&ring, &token(&pair, "k")), Some(TokenFault::UnknownKey));
    until(|| issuer.requests() > 3).await;
    issuer.now(Script::Answer(jwks(&[(&pair, "k")])));
    until(|| fault(&ring, &token(&pair, "k")).is_none()).await;
}

#[tokio::test]
async fn a_url_is_fetched_eagerly() {
    let [old, new] = [0, 1].map(|_| KeyPair::generate().unwrap());
    let issuer = Issuer::start(Script::Answer(jwks(&[(&old, "old")]))).await;
    let ring = keep(vec![issuer.source()], Timing { fetch_every: Duration::from_millis(5), ..on_demand() }).await;
    let before = ring.current();
    until(|| issuer.requests() > 3).await;
    assert!(Arc::ptr_eq(&before, &ring.current()), "the same keys forget no verified token");
    issuer.now(Script::Answer(jwks(&[(&new, "new")])));
    until(|| fault(&ring, &token(&new, "new")).is_none()).await;
}

#[tokio::test]
async fn logins_with_unknown_keys_do_not_storm_the_issuer() {
    let pair = KeyPair::generate().unwrap();
    let issuer = Issuer::start(Script::Answer(jwks(&[(&pair, "k")]))).await;
    let ring = keep(vec![issuer.source()], Timing { fetch_apart: Duration::from_secs(3600), ..on_demand() }).await;
    for _ in 0..100 {
        ring.refreshed().await;
    }
    assert_eq!(issuer.requests(), 1);
    assert_eq!(fault(&ring, &token(&pair, "k")), None);
}

#[tokio::test]
async fn keys_that_cannot_be_renewed_hold_no_longer_than_their_age() {
    let pair = KeyPair::generate().unwrap();
    let issuer = Issuer::start(Script::Answer(jwks(&[(&pair, "k")]))).await;
    let timing = Timing {
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(5),
        fetch_every: Duration::from_millis(5),
        keys_age_max: Duration::from_secs(1),
        ..on_demand()
    };
    let ring = keep(vec![issuer.source()], timing).await;
    assert_eq!(fault(&ring, &token(&pair, "k")), None);
    issuer.now(Script::Die);
    until(|| fault(&ring, &token(&pair, "k")) == Some(TokenFault::UnknownKey)).await;
    issuer.now(Script::Answer(jwks(&[(&pair, "k")])));
    until(|| fault(&ring, &token(&pair, "k")).is_none()).await;
}

#[tokio::test]
async fn files_are_read_again_by_themselves_and_a_bad_one_keeps_the_last_good_keys() {
    let [old, new] = [0, 1].map(|_| KeyPair::generate().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let (pem, set) = (directory.path().join("key.pem"), directory.path().join("jwks.json"));
    std::fs::write(&pem, old.public_key_pem()).unwrap();
    std::fs::write(&set, jwks(&[(&old, "a")])).unwrap();
    let sources = vec![KeySource::Pem { file: pem.clone() }, KeySource::JwksFile { file: set.clone() }];
    let ring = keep(sources, Timing { file_poll: Duration::from_millis(5), ..on_demand() }).await;
    let by_pem = |pair| token(pair, "whatever");
    assert_eq!((fault(&ring, &by_pem(&old)), fault(&ring, &token(&old, "a"))), (None, None));

    std::fs::write(&pem, "garbage").unwrap();
    std::fs::remove_file(&set).unwrap();
    ring.refreshed().await;
    assert_eq!((fault(&ring, &by_pem(&old)), fault(&ring, &token(&old, "a"))), (None, None));

    std::fs::write(&pem, new.public_key_pem()).unwrap();
    std::fs::write(&set, jwks(&[(&new, "b")])).unwrap();
    until(|| fault(&ring, &by_pem(&new)).is_none() && fault(&ring, &token(&new, "b")).is_none()).await;
    assert_eq!(fault(&ring, &by_pem(&old)), Some(TokenFault::UnknownKey));

    std::fs::write(&pem, vec![b'x'; 100 * 1024]).unwrap();
    ring.refreshed().await;
    assert_eq!(fault(&ring, &by_pem(&new)), None);
}

#[tokio::test]
async fn a_secret_comes_from_a_file_and_a_change_of_it_withdraws_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwt.key");
    let [old, new] = ["o", "n"].map(|letter| letter.repeat(32));
    let token = |secret: &str| {
        let key = SigningKey::from_secret(secret.as_bytes()).unwrap();
        key.sign(&json!({ "exp": NOW + 60, "org": "org_1" })).unwrap()
    };
    std::fs::write(&file, format!("{old}\n")).unwrap();
    let ring = keep(vec![KeySource::Hs256 { secret: SecretRef::File(file.clone()) }], on_demand()).await;
    assert_eq!(fault(&ring, &token(&old)), None);
    std::fs::write(&file, format!("{new}\n")).unwrap();
    ring.refreshed().await;
    assert_eq!((fault(&ring, &token(&old)), fault(&ring, &token(&new))), (Some(TokenFault::Signature), None));
}

#[tokio::test]
async fn files_that_cannot_be_used_at_start_are_all_reported() {
    let directory = tempfile::tempdir().unwrap();
    let short = directory.path().join("short.key");
    std::fs::write(&short, "hunter2-hunter2\n").unwrap();
    let sources = vec![
        KeySource::Hs256 { secret: SecretRef::File(short.clone()) },
        KeySource::Hs256 { secret: SecretRef::Env("PARTYWALL_TEST_NOT_SET".to_owned()) },
        KeySource::Pem { file: directory.path().join("missing.pem") },
        KeySource::JwksFile { file: short },
    ];
    let faults = KeyKeeper::open(&auth(sources), on_demand()).await.unwrap_err().to_string();
    let lines: Vec<&str> = faults.lines().collect();
    assert_eq!(lines.len(), 4, "{faults}");
    assert!(lines[0].contains("short.key: the secret has 15 bytes; at least 32 are needed"), "{faults}");
    assert!(lines[1].ends_with("the environment variable PARTYWALL_TEST_NOT_SET is not set"), "{faults}");
    assert!(lines[2].contains("missing.pem: it cannot be read"), "{faults}");
    assert!(lines[3].ends_with("it is not a JWKS document"), "{faults}");
    assert!(!faults.contains("hunter2"), "{faults}");
}

#[tokio::test]
async fn a_changed_configuration_is_followed_and_a_bad_one_is_not() {
    let [first, second] = [0, 1].map(|_| KeyPair::generate().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let pem = directory.path().join("key.pem");
    std::fs::write(&pem, second.public_key_pem()).unwrap();
    let file = KeySource::Pem { file: pem };
    let issuer = Issuer::start(Script::Answer(jwks(&[(&first, "k")]))).await;
    let (ring, keeper) = KeyKeeper::open(&auth(vec![issuer.source()]), on_demand()).await.unwrap();
    let (changes, changed) = watch::channel(Arc::new(Auth::default()));
    tokio::spawn(keeper.run(changed));
    let (by_url, by_file) = (token(&first, "k"), token(&second, "whatever"));

    // The URL stays, and is not fetched again for it; the issuer may even be down.
    issuer.now(Script::Die);
    changes.send_replace(Arc::new(auth(vec![file.clone(), issuer.source()])));
    until(|| fault(&ring, &by_file).is_none()).await;
    assert_eq!((fault(&ring, &by_url), issuer.requests()), (None, 1));

    let missing = KeySource::Pem { file: directory.path().join("missing.pem") };
    changes.send_replace(Arc::new(auth(vec![missing])));
    ring.refreshed().await;
    assert_eq!((fault(&ring, &by_url), fault(&ring, &by_file)), (None, None));

    let strict = Auth { issuer: Some("https://issuer.example/".to_owned()), ..auth(vec![file]) };
    changes.send_replace(Arc::new(strict));
    until(|| fault(&ring, &by_file) == Some(TokenFault::Issuer)).await;
    assert_eq!(fault(&ring, &by_url), Some(TokenFault::UnknownKey));
}

#[tokio::test]
async fn logins_with_unknown_keys_do_not_wear_out_the_disk() {
    let [old, new] = [0, 1].map(|_| KeyPair::generate().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let pem = directory.path().join("key.pem");
    std::fs::write(&pem, old.public_key_pem()).unwrap();
    let timing = Timing { files_apart: Duration::from_secs(3600), ..on_demand() };
    let ring = keep(vec![KeySource::Pem { file: pem.clone() }], timing).await;
    std::fs::write(&pem, new.public_key_pem()).unwrap();
    ring.refreshed().await;
    assert_eq!(fault(&ring, &token(&old, "k")), None);
}

#[tokio::test]
async fn an_issuers_keys_are_found_by_its_own_word_and_rotate() {
    let [old, new] = [0, 1].map(|_| KeyPair::generate().unwrap());
    let issuer = Issuer::start(Script::Die).await;
    let (name, source) = issuer.issuer();
    let says = json!({ "issuer": name, "jwks_uri": format!("https://localhost:{}/keys", issuer.port) }).to_string();
    issuer.now(Script::Discovery(says.clone(), jwks(&[(&old, "old")])));
    let ring = keep(vec![source], on_demand()).await;
    assert_eq!(fault(&ring, &token(&old, "old")), None);
    issuer.now(Script::Discovery(says, jwks(&[(&new, "new")])));
    ring.refreshed().await;
    assert_eq!(
        (fault(&ring, &token(&old, "old")), fault(&ring, &token(&new, "new"))),
        (Some(TokenFault::UnknownKey), None)
    );
}

#[tokio::test]
async fn an_issuer_that_says_something_else_of_itself_gives_no_keys() {
    let pair = KeyPair::generate().unwrap();
    let issuer = Issuer::start(Script::Die).await;
    let (name, KeySource::Issuer { ca_file, .. }) = issuer.issuer() else { panic!("an issuer") };
    let keys_at = format!("https://localhost:{}/keys", issuer.port);
    let says = |name: Value, at: Value| json!({ "issuer": name, "jwks_uri": at }).to_string();
    let good = says(json!(name), json!(keys_at));
    let timing = Timing { fetch_timeout: Duration::from_secs(2), ..on_demand() };
    let table = [
        (good.clone(), "Ok"),
        (says(json!(format!("{name}/")), json!(keys_at)), "it is of another issuer"),
        (says(json!("https://evil.example"), json!(keys_at)), "it is of another issuer"),
        (says(json!(null), json!(keys_at)), "it is of another issuer"),
        (says(json!(name), json!(keys_at.replace("https", "http"))), "its jwks_uri is not an https URL"),
        (says(json!(name), json!("file:///etc/passwd")), "its jwks_uri is not an https URL"),
        (says(json!(name), json!(7)), "it names no jwks_uri"),
        (json!({ "issuer": name }).to_string(), "it names no jwks_uri"),
        ("[]".to_owned(), "it is not a JSON object"),
        (format!("{good}x"), "it is not a JSON object"),
        (says(json!(name), json!(format!("{keys_at}/elsewhere"))), "the answer was 404"),
        (format!("{{\"pad\":\"{}\"}}", "x".repeat(70_000)), "the answer is larger than 65536 bytes"),
    ];
    for (says, words) in table {
        issuer.now(Script::Discovery(says.clone(), jwks(&[(&pair, "k")])));
        let came = fetch::discover(&name, ca_file.as_deref(), &timing).await;
        let heard = came.map_or_else(|error| error.to_string(), |_| "Ok".to_owned());
        assert!(heard.contains(words), "{}: {heard}", &says[..says.len().min(100)]);
    }
    // Neither document is believed from somebody whom the CA file does not name.
    issuer.now(Script::Discovery(good, jwks(&[(&pair, "k")])));
    let error = fetch::discover(&name, None, &timing).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    issuer.now(Script::Hang);
    let hasty = Timing { fetch_timeout: Duration::from_millis(300), ..timing };
    assert!(matches!(fetch::discover(&name, ca_file.as_deref(), &hasty).await, Err(FetchError::Timeout)));
}

#[tokio::test]
async fn a_reload_that_changes_the_bounds_of_a_url_holds_at_once() {
    let pair = KeyPair::generate().unwrap();
    let issuer = Issuer::start(Script::Answer(jwks(&[(&pair, "k")]))).await;
    let bound = |org: &str| {
        let organizations = Some([crate::ids::OrgId::new(org).unwrap()].into());
        let bounds = KeyBounds { organizations, ..KeyBounds::default() };
        Auth { keys: vec![TokenKeys { from: issuer.source(), bounds }], ..Auth::default() }
    };
    let (ring, keeper) = KeyKeeper::open(&bound("org_1"), on_demand()).await.unwrap();
    let (changes, changed) = watch::channel(Arc::new(Auth::default()));
    tokio::spawn(keeper.run(changed));
    assert_eq!(fault(&ring, &token(&pair, "k")), None);
    // The keys stay, and the issuer is not asked again; whom they may speak for does not.
    issuer.now(Script::Die);
    changes.send_replace(Arc::new(bound("org_2")));
    until(|| fault(&ring, &token(&pair, "k")) == Some(TokenFault::ForeignOrganization)).await;
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn a_key_set_without_a_usable_key_says_the_reason_for_each() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, r#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","use":"enc"}]}"#).unwrap();
    let faults = KeyKeeper::open(&auth(vec![KeySource::JwksFile { file }]), on_demand()).await.unwrap_err().to_string();
    let words =
        "key 1 of 2: the key is neither RSA, P-256, P-384, P-521 nor Ed25519; key 2 of 2: it is not for signatures";
    assert!(faults.ends_with(words), "{faults}");
}
