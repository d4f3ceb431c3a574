//! Tests of the door, by HTTP over real sockets.

use std::fs;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::event::Observer;

const TOKEN: &str = "a-token-of-more-than-16-bytes";

struct Shards(Vec<(Health, Option<&'static str>)>, bool);

impl Readiness for Shards {
    fn shards(&self) -> Vec<ShardState> {
        let state = |(number, (health, reason)): (usize, &(Health, Option<&str>))| ShardState {
            name: ShardName::new(format!("s{number}")),
            health: *health,
            reason: reason.map(str::to_owned),
        };
        self.0.iter().enumerate().map(state).collect()
    }

    fn is_draining(&self) -> bool {
        self.1
    }
}

fn token(text: &str) -> Result<Token, TokenError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), text).expect("it can be written");
    Token::load(file.path())
}

struct Served {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    _stop: oneshot::Sender<()>,
}

async fn served(shards: Shards, token: Option<Token>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let metrics = Arc::new(Metrics::new(10));
    let state = State { metrics: Arc::clone(&metrics), readiness: Arc::new(shards), token };
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(serve(listener, Arc::new(state), async {
        let _ = stopped.await;
    }));
    Served { address, metrics, _stop: stop }
}

impl Served {
    /// Status line, head and body of the answer; the connection ends by itself.
    async fn get(&self, path: &str, header: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers and closes");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer)
    }
}

fn up() -> Shards {
    Shards(vec![(Health::Up, None)], false)
}

#[tokio::test]
async fn it_is_ready_when_a_shard_is_up_and_none_is_unfit() {
    use Health::{Down, Unattested, Up};
    let why = Some("the login role is a superuser");
    for (shards, draining, expected) in [
        (vec![(Up, None)], false, 200),
        (vec![(Up, None), (Down, Some("refused"))], false, 200),
        (vec![(Down, Some("refused"))], false, 503),
        (vec![(Up, None), (Unattested, why)], false, 503),
        (vec![], false, 503),
        (vec![(Up, None)], true, 503),
    ] {
        let words = format!("{shards:?} {draining}");
        let served = served(Shards(shards, draining), None).await;
        assert_eq!(served.get("/readyz", "").await.0, expected, "{words}");
        assert_eq!(served.get("/healthz", "").await.0, 200);
    }
    let served = served(Shards(vec![(Up, None), (Unattested, why)], false), None).await;
    let (_, answer) = served.get("/readyz", "").await;
    assert!(answer.contains(r#"{"name":"s1","state":"unattested","reason":"the login role is a superuser"}"#));
    assert!(answer.contains(r#""ready":false"#) && answer.contains(r#"{"name":"s0","state":"up","reason":null}"#));
}

#[tokio::test]
async fn metrics_are_served_with_their_type_and_end_mark() {
    let (status, answer) = served(up(), None).await.get("/metrics", "").await;
    assert_eq!(status, 200);
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(answer.ends_with("# EOF\n") && answer.contains("partywall_build_info{"));
}

#[tokio::test]
async fn one_organization_is_shown_to_the_bearer_of_the_token_alone() {
    let served = served(up(), Some(token(TOKEN).expect("a token"))).await;
    served.metrics.organization(&OrgId::new("org_1").expect("a good name"));
    let path = "/api/v1/organizations/org_1/metrics";
    let (status, answer) = served.get(path, &format!("authorization: bearer {TOKEN}\r\n")).await;
    assert!(status == 200 && answer.contains("partywall_client_connections{org_id=\"org_1\"} 0"), "{answer}");
    for header in [
        "",
        "authorization: Bearer\r\n",
        "authorization: Bearer \r\n",
        // As long as "Bearer ".
        &format!("authorization: Digest {TOKEN}\r\n"),
        &format!("authorization: Bearer {TOKEN}x\r\n"),
        &format!("authorization: Bearer {}\r\n", &TOKEN[1..]),
    ] {
        let (status, answer) = served.get(path, header).await;
        assert!(status == 401 && !answer.contains("org_1") && answer.contains("www-authenticate: Bearer"), "{header}");
    }
    let header = format!("authorization: Bearer {TOKEN}\r\n");
    assert_eq!(served.get("/api/v1/organizations/nobody/metrics", &header).await.0, 404);
    assert_eq!(served.get("/api/v1/organizations/a%27b/metrics", &header).await.0, 400);
    assert_eq!(served.get("/api/v1/elsewhere", &header).await.0, 404);
}

#[tokio::test]
async fn without_a_token_in_force_there_is_no_api() {
    let served = served(up(), None).await;
    served.metrics.organization(&OrgId::new("org_1").expect("a good name"));
    let path = "/api/v1/organizations/org_1/metrics";
    assert_eq!(served.get(path, "").await.0, 404);
    assert_eq!(served.get(path, "authorization: Bearer \r\n").await.0, 404);
}

#[test]
fn a_token_is_neither_short_nor_endless() {
    assert!(matches!(token("short"), Err(TokenError::Short)));
    assert!(matches!(token("   \n"), Err(TokenError::Short)));
    assert!(matches!(token(&"x".repeat(5000)), Err(TokenError::Long)));
    assert!(token(&format!("{TOKEN}\n")).is_ok_and(|token| {
        let header = format!("Bearer {TOKEN}");
        token.is_carried_by(HeaderValue::from_str(&header).ok().as_ref())
    }));
}
