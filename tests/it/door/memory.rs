//! What one organization can make the proxy keep: clients that do not read, and sessions that hold all they can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use super::Program;
use super::greedy::developer;
use crate::support::raw::{Raw, Wire};
use crate::support::{Proxy, Shard, soon, stride, until};

/// What the program may use beside fifty hostile clients.
const MEMORY_KB_MAX: u64 = 200 * 1024;

/// More than sockets hold in both directions: who takes so much of a client that does not read keeps it somewhere.
const FLOOD_BYTES: usize = 48 << 20;

/// A client whose socket holds little, so that little is on its way in it.
async fn narrow(address: SocketAddr, org: &str) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket option");
    socket.set_send_buffer_size(16 * 1024).expect("a socket option");
    let stream = soon("the proxy accepts", socket.connect(address)).await.expect("connects");
    Raw::log_in_on(stream, &developer(org)).await
}

/// One thing that a client says first, and one that it says for ever.
struct Flood {
    name: &'static str,
    first: Wire,
    /// How many ReadyForQuery `first` asks for.
    readies: usize,
    again: Wire,
}

fn flood(name: &'static str, first: Wire, readies: usize, again: Wire) -> Flood {
    Flood { name, first, readies, again }
}

/// Every kind of message that the proxy answers by itself, outside of a transaction and in one.
fn floods() -> Vec<Flood> {
    let new = Wire::new;
    let long = "n".repeat(8000);
    let about = || new().parse("r", "reset all").parse("d", "discard all").sync();
    let begun = || new().query("begin").parse("s", "select 1").parse("r", "reset all").sync();
    let again = vec![
        ("Sync", new().sync()),
        ("a syntax error", new().query("selec")),
        ("a refused statement", new().query("listen a")),
        ("a function call", new().message(b'F', &[0; 14])),
        ("a refused Parse", new().parse("", "listen a").sync()),
        ("Parse of a name that is taken", new().parse("r", "select 2").sync()),
        ("Bind of an unknown statement", new().bind("", "none", &[]).sync()),
        ("Describe of an unknown statement", new().describe(b'S', "none").sync()),
        ("Describe of a long name", new().describe(b'S', &long).sync()),
        ("Describe of a statement about the session", new().describe(b'S', "r")),
        ("Close of an unknown statement", new().close(b'S', "none")),
        ("Parse and Close of a statement about the session", new().parse("x", "reset all").close(b'S', "x")),
        ("Bind and Close of a portal of the session", new().bind("p", "r", &[]).describe(b'P', "p").close(b'P', "p")),
        ("an unknown portal", new().query("select 1").execute("none", 0).sync()),
        ("an empty statement", new().query("")),
    ];
    let outside = again.clone().into_iter().map(|(name, wire)| flood(name, about(), 1, wire));
    let inside = again.into_iter().map(|(name, wire)| flood(name, begun(), 2, wire));
    let alone = [
        flood("DISCARD ALL", about(), 1, new().query("discard all")),
        flood(
            "DISCARD ALL by protocol",
            about(),
            1,
            new().parse("", "discard all").bind("", "", &[]).execute("", 0).sync(),
        ),
        flood("settings", about(), 1, new().query("set work_mem = '1MB'").query("reset work_mem")),
        flood("names of SQL", begun(), 2, new().query("prepare q as select 1").query("deallocate q")),
    ];
    // In small every other kind is tried in a transaction, and the rest outside of one.
    let in_small = |at: usize, inside: usize| stride() == 1 || at % 2 == inside;
    let outside = outside.enumerate().filter(|(at, _)| in_small(*at, 0)).map(|(_, flood)| flood);
    let inside = inside.enumerate().filter(|(at, _)| in_small(*at, 1)).map(|(_, flood)| flood);
    outside.chain(inside).chain(alone).collect()
}

/// Sends the same again and again, and counts what was taken; nothing is read.
async fn pour(raw: &mut Raw, wire: &Wire, sent: &AtomicUsize) {
    let piece = wire.0.repeat((16 * 1024 / wire.0.len()).max(1));
    while sent.load(Ordering::Relaxed) < FLOOD_BYTES {
        match raw.stream.write(&piece).await {
            // A piece that is taken in part is taken up where it ended.
            Ok(count) if count < piece.len() => {
                sent.fetch_add(count, Ordering::Relaxed);
                if raw.stream.write_all(&piece[count..]).await.is_err() {
                    return;
                }
                sent.fetch_add(piece.len() - count, Ordering::Relaxed);
            }
            Ok(count) => _ = sent.fetch_add(count, Ordering::Relaxed),
            Err(_) => return,
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_whatever_it_asks_for() {
    let program = Program::serve(&Proxy::before(Shard::shared()).pool_size(30)).await;
    let address = ([127, 0, 0, 1], program.files.port).into();
    let mut clients = Vec::new();
    for flood in floods() {
        let mut raw = narrow(address, "acme").await;
        raw.send(flood.first.clone()).await;
        raw.until_readies(flood.readies).await;
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&sent);
        let task = tokio::spawn(async move { pour(&mut raw, &flood.again, &counted).await });
        clients.push((flood.name, sent, task));
    }
    let total = || clients.iter().map(|(_, sent, _)| sent.load(Ordering::Relaxed)).sum::<usize>();
    let mut looks = (0, 0);
    until("nothing more is taken of them", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = total();
        looks = (now, if now == looks.0 { looks.1 + 1 } else { 0 });
        looks.1 == 10
    })
    .await;
    for (name, sent, _) in &clients {
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < FLOOD_BYTES, "{name}: the proxy took {sent} bytes of a client that does not read");
    }
    let peak = program.memory_kb("VmHWM:");
    assert!(peak < MEMORY_KB_MAX, "the program used {peak} kB");
    let mut other = Raw::log_in(address, &developer("globex")).await;
    assert_eq!(other.query("select 1").await, "T D(1) C(SELECT 1) ZI");
    clients.iter().for_each(|(_, _, task)| task.abort());
}

/// A tier whose statements have a second.
const SHORT: &str =
    "default = \"short\"\n[tiers.short]\nquery_timeout_seconds = 1\nmax_result_size_mb = \"unlimited\"\n";

#[tokio::test]
async fn a_client_that_keeps_a_connection_and_does_not_read_loses_it() {
    let proxy = Proxy::before(Shard::shared()).pool_size(2).tiers(SHORT).start().await;
    let mut deaf = narrow(proxy.address(), "acme").await;
    deaf.query("begin").await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    // Nothing runs in its transaction: the proxy itself answers.
    let wire = Wire::new().describe(b'S', "none").sync();
    soon("its connection ends", pour(&mut deaf, &wire, &counted)).await;
    assert!(sent.load(Ordering::Relaxed) < FLOOD_BYTES);
    until("the server connection is back or closed", async || {
        let text = proxy.metrics().await;
        super::metric(&text, "partywall_pool_server_connections{shard=\"shard_1\",state=\"active\"}") < 1.0
    })
    .await;
}

#[tokio::test]
async fn answers_behind_one_that_the_server_keeps_do_not_wait_for_ever() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut raw = proxy.raw("acme").await;
    // The server keeps its answer to the Parse until it is told to send it; the others are the proxy's own.
    let mut wire = Wire::new().parse("s", "select 1");
    const CLOSES: usize = 20_000;
    for _ in 0..CLOSES {
        wire = wire.close(b'S', "none");
    }
    raw.send(wire.sync()).await;
    let answers = raw.until_ready().await;
    assert_eq!(answers.iter().filter(|message| message.tag == b'3').count(), CLOSES);
    assert_eq!(answers.first().map(|message| message.tag), Some(b'1'));
}
