//! What one organization can make the proxy keep: clients that do not read, and sessions that hold all they can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use super::Program;
use super::greedy::developer;
use crate::support::raw::{Message, Raw, Wire};
use crate::support::{Proxy, Shard, scaled, soon, stride, until};

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
    // Each statement is short; what they answer fills the sockets soon.
    let wire = Wire::new().query("select repeat('x', 60000)");
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

/// How many hostile sessions there are.
const SESSIONS: usize = 50;

/// What the answer to one thing that a session tries to keep says of it, at the end.
async fn last_error(raw: &mut Raw, wire: Wire, readies: usize) -> String {
    raw.send(wire).await;
    let answers = raw.until_readies(readies).await;
    answers.iter().rev().find(|message| message.tag == b'E').map(Message::brief).unwrap_or_default()
}

/// A Parse of a text of so many bytes, unlike any other, that costs nobody much to read.
fn long_parse(name: &str, who: usize, at: usize, bytes: usize) -> Wire {
    Wire::new().parse(name, &format!("select '{who} {at}{}'", "x".repeat(bytes)))
}

#[tokio::test]
async fn what_the_sessions_of_one_organization_keep_is_bounded_in_bytes() {
    let program = Program::serve(&Proxy::before(Shard::shared()).pool_size(4)).await;
    let address = ([127, 0, 0, 1], program.files.port).into();
    let mut clients = Vec::new();
    let mut refused = 0;
    // Each tries to keep 15 MB, which one session alone may.
    for who in 0..scaled(SESSIONS).max(5) {
        let mut raw = Raw::log_in(address, &developer("acme")).await;
        for at in 0..15 {
            let wire = long_parse(&format!("s{at}"), who, at, 1_000_000).sync();
            let error = last_error(&mut raw, wire, 1).await;
            assert!(error.is_empty() || error == "E(53200)", "{error}");
            refused += usize::from(!error.is_empty());
        }
        clients.push(raw);
    }
    assert!(refused > 0, "all was kept");
    let mut other = Raw::log_in(address, &developer("globex")).await;
    assert_eq!(last_error(&mut other, long_parse("s", 0, 0, 1_000_000).sync(), 1).await, "", "another has its own");
    let peak = program.memory_kb("VmHWM:");
    assert!(peak < MEMORY_KB_MAX, "the program used {peak} kB");
    // What is closed, or goes with its session, makes room.
    let gone = clients.pop().expect("a client");
    drop(gone);
    let mut raw = clients.pop().expect("a client");
    let mut closes = Wire::new();
    for at in 0..15 {
        closes = closes.close(b'S', &format!("s{at}"));
    }
    assert_eq!(last_error(&mut raw, closes.sync(), 1).await, "");
    assert_eq!(last_error(&mut raw, long_parse("t", 9, 9, 1_000_000).sync(), 1).await, "");
}

#[tokio::test]
async fn texts_that_nobody_keeps_any_more_are_not_kept_by_the_proxy() {
    let program = Program::serve(&Proxy::before(Shard::shared()).pool_size(2)).await;
    let address = ([127, 0, 0, 1], program.files.port).into();
    let mut raw = Raw::log_in(address, &developer("acme")).await;
    // Room for many in the table of statements.
    let small = |at: usize| long_parse(&format!("n{at}"), 1, at, 10);
    let many = (0..1000).fold(Wire::new(), |wire, at| wire.bytes(&small(at).0));
    assert_eq!(last_error(&mut raw, many.sync(), 1).await, "");
    for at in 0..scaled(1500).max(150) {
        let name = format!("s{at}");
        let wire = long_parse(&name, 0, at, 1_000_000).sync().close(b'S', &name).sync();
        assert_eq!(last_error(&mut raw, wire, 2).await, "");
    }
    let peak = program.memory_kb("VmHWM:");
    assert!(peak < MEMORY_KB_MAX / 2, "the program used {peak} kB");
}

#[tokio::test]
async fn one_batch_that_names_without_end_keeps_little() {
    let program = Program::serve(&Proxy::before(Shard::shared()).pool_size(2)).await;
    let address = ([127, 0, 0, 1], program.files.port).into();
    let mut raw = Raw::log_in(address, &developer("acme")).await;
    // No Sync: each name may yet be undone. A direct server forgets each at its Close.
    let long = "n".repeat(8000);
    for round in 0..scaled(1000).max(100) {
        let mut wire = Wire::new();
        for at in 0..250 {
            wire = wire.close(b'S', &format!("{round} {at}{long}"));
        }
        raw.send(wire.flush()).await;
        for _ in 0..250 {
            assert_eq!(raw.message().await.map(|message| message.tag), Some(b'3'));
        }
    }
    let peak = program.memory_kb("VmHWM:");
    assert!(peak < 100 * 1024, "the program used {peak} kB");
}

#[tokio::test]
async fn names_settings_and_portals_are_bounded() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut raw = proxy.raw("acme").await;
    let (fits, long) = ("n".repeat(255), "n".repeat(1_300_000));
    let over = format!("{fits}n");
    assert_eq!(last_error(&mut raw, Wire::new().parse(&fits, "select 1").sync(), 1).await, "");
    for name in [&over, &long] {
        assert_eq!(last_error(&mut raw, Wire::new().parse(name, "select 1").sync(), 1).await, "E(42622)");
        assert_eq!(last_error(&mut raw, Wire::new().bind(name, &fits, &[]).sync(), 1).await, "E(42622)");
    }
    let wire = Wire::new().bind(&fits, &fits, &[]).execute(&fits, 0).sync();
    assert_eq!(raw.converse(wire, 1).await, "2 D(1) C(SELECT 1) ZI");
    // As on a direct connection: a name that nothing was ever called.
    assert_eq!(last_error(&mut raw, Wire::new().bind("", &over, &[]).sync(), 1).await, "E(26000)");

    let large = "v".repeat(40_000);
    assert_eq!(raw.query(&format!("set shop.one = '{large}'")).await, "C(SET) ZI");
    assert_eq!(raw.query(&format!("set shop.two = '{large}'")).await, "E(54000) ZI");
    assert_eq!(raw.query("select length(current_setting('shop.one'))").await, "T D(40000) C(SELECT 1) ZI");
    // What only the server knows is found when it is read back, and the session ends with a word.
    let answer = raw.query("select set_config('shop.two', repeat('v', 40000), false)").await;
    assert!(answer.ends_with("C(SELECT 1) ZI"), "{}", &answer[answer.len().saturating_sub(100)..]);
    assert!(raw.query("select 1").await.contains("E(54000)"));
}

#[tokio::test]
async fn open_portals_and_cursors_are_bounded() {
    const MOST: usize = 256;
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut raw = proxy.raw("acme").await;
    raw.query("begin").await;
    let mut wire = Wire::new().parse("s", "select 1");
    for at in 0..MOST - 1 {
        wire = wire.bind(&format!("p{at}"), "s", &[]);
    }
    assert_eq!(last_error(&mut raw, wire.sync(), 1).await, "");
    assert_eq!(raw.query("declare c cursor for select 1").await, "C(DECLARE CURSOR) ZT");
    raw.query("savepoint a").await;
    assert_eq!(raw.query("declare d cursor for select 1").await, "E(54000) ZE");
    raw.query("rollback to a").await;
    assert_eq!(last_error(&mut raw, Wire::new().bind("more", "s", &[]).sync(), 1).await, "E(54000)");
    raw.query("rollback to a").await;
    // The unnamed portal takes the place of another; one that is closed makes room, as a cursor does.
    assert_eq!(raw.converse(Wire::new().bind("", "s", &[]).execute("", 0).sync(), 1).await, "2 D(1) C(SELECT 1) ZT");
    assert_eq!(last_error(&mut raw, Wire::new().close(b'P', "p0").bind("more", "s", &[]).sync(), 1).await, "");
    assert_eq!(raw.query("close c").await, "C(CLOSE CURSOR) ZT");
    assert_eq!(raw.query("declare d cursor for select 1").await, "C(DECLARE CURSOR) ZT");
    assert_eq!(raw.query("declare e cursor for select 1").await, "E(54000) ZE");
    // A Close that the server skips takes nothing away.
    raw.query("rollback to a").await;
    let mut wire = Wire::new().bind("", "none", &[]);
    for at in 1..100 {
        wire = wire.close(b'P', &format!("p{at}"));
    }
    raw.converse(wire.sync(), 1).await;
    raw.query("rollback to a").await;
    for name in ["x", "y"] {
        raw.converse(Wire::new().bind(name, "s", &[]).sync(), 1).await;
    }
    assert_eq!(last_error(&mut raw, Wire::new().bind("z", "s", &[]).sync(), 1).await, "E(54000)");
    // All go with their transaction.
    raw.query("rollback").await;
    raw.query("begin").await;
    assert_eq!(last_error(&mut raw, Wire::new().bind("p0", "s", &[]).sync(), 1).await, "");
}

#[tokio::test]
async fn open_savepoints_are_bounded_in_a_transaction_and_over_an_organization() {
    const MOST: usize = 500;
    let proxy = Proxy::before(Shard::shared()).pool_size(8).start().await;
    // As JDBC does with autosave=always: under one name, and with a write after each.
    let again = |times: usize| "savepoint a; insert into ledger (body) values ('x');".repeat(times);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut raw = proxy.raw("acme").await;
        raw.query("begin").await;
        assert!(raw.query(&again(MOST)).await.ends_with("C(INSERT 0 1) ZT"));
        clients.push(raw);
    }
    let raw = &mut clients[0];
    assert_eq!(raw.query("savepoint a").await, "E(54000) ZE");
    assert_eq!(raw.query("rollback to a").await, "C(ROLLBACK) ZT");
    assert_eq!(
        last_error(raw, Wire::new().parse("", "savepoint a").bind("", "", &[]).execute("", 0).sync(), 1).await,
        "E(54000)"
    );
    // In a failed transaction the server's own word.
    assert_eq!(raw.query("savepoint a").await, "E(25P02) ZE");
    assert_eq!(raw.query("rollback to a").await, "C(ROLLBACK) ZT");
    // As many as one likes, where each is released.
    assert_eq!(raw.query("release a").await, "C(RELEASE) ZT");
    for _ in 0..3 {
        assert!(raw.query(&"savepoint b; release b;".repeat(MOST)).await.ends_with("C(RELEASE) ZT"));
    }
    assert_eq!(raw.query("savepoint a").await, "C(SAVEPOINT) ZT");
    // The organization has had its part; another has its own.
    let mut third = proxy.raw("acme").await;
    third.query("begin").await;
    assert_eq!(third.query("savepoint a").await, "E(54000) ZE");
    let mut other = proxy.raw("globex").await;
    other.query("begin").await;
    assert!(other.query(&again(MOST)).await.ends_with("C(INSERT 0 1) ZT"));
    // What ends with a transaction, or with its session, comes back.
    third.query("rollback").await;
    assert_eq!(clients[0].query("rollback").await, "C(ROLLBACK) ZI");
    third.query("begin").await;
    assert_eq!(third.query("savepoint a").await, "C(SAVEPOINT) ZT");
    clients.into_iter().for_each(drop);
    until("they have come back", async || {
        third.query("rollback").await;
        third.query("begin").await;
        third.query(&again(MOST)).await.ends_with("C(INSERT 0 1) ZT")
    })
    .await;
    for raw in [&mut third, &mut other] {
        raw.query("rollback").await;
    }
}

/// The private memory of a process, in kB; 0 where it is gone.
fn private_kb(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
}

/// What a server process may use while large texts stand prepared in it.
const SERVER_KB_MAX: u64 = 160 * 1024;

#[tokio::test]
async fn large_texts_prepared_and_closed_do_not_stay_in_the_server_process() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let text = |at: usize| format!("values {}", vec![format!("({at})"); 60_000].join(","));
    let mut raw = proxy.raw("acme").await;
    let before = shard.server_pids("%").await;
    // Held at once: they take each other's places.
    for at in 0..8 {
        assert_eq!(last_error(&mut raw, Wire::new().parse(&format!("s{at}"), &text(at)).sync(), 1).await, "");
        let most = shard.server_pids("%").await.into_iter().map(private_kb).max().unwrap_or_default();
        assert!(most < SERVER_KB_MAX, "a server process uses {most} kB with {at} prepared");
    }
    assert!(raw.converse(Wire::new().bind("", "s0", &[]).execute("", 1).sync(), 1).await.starts_with("2 D(0)"));
    // Closed and left: the process that read them is replaced.
    let mut closes = Wire::new();
    for at in 0..8 {
        closes = closes.close(b'S', &format!("s{at}"));
    }
    raw.converse(closes.sync().terminate(), 1).await;
    until("the process is another", async || {
        proxy.raw("acme").await.query("select 1").await;
        let now = shard.server_pids("%").await;
        !now.is_empty() && now.iter().all(|pid| !before.contains(pid) && private_kb(*pid) < 30 * 1024)
    })
    .await;
}

#[tokio::test]
async fn prepared_statements_of_a_session_are_bounded() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut raw = proxy.raw("acme").await;
    let mut wire = Wire::new();
    for at in 0..10_000 {
        wire = wire.parse(&format!("n{at}"), "select 1");
    }
    assert_eq!(last_error(&mut raw, wire.sync(), 1).await, "");
    assert_eq!(last_error(&mut raw, Wire::new().parse("more", "select 1").sync(), 1).await, "E(54000)");
    assert_eq!(last_error(&mut raw, Wire::new().close(b'S', "n1").parse("more", "select 1").sync(), 1).await, "");
    let mut raw = proxy.raw("acme").await;
    for at in 0..16 {
        assert_eq!(last_error(&mut raw, long_parse(&format!("s{at}"), 0, at, 1 << 19).sync(), 1).await, "");
        assert_eq!(last_error(&mut raw, long_parse(&format!("t{at}"), 1, at, 500_000).sync(), 1).await, "");
    }
    assert_eq!(last_error(&mut raw, long_parse("more", 0, 99, 1 << 19).sync(), 1).await, "E(54000)");
}

#[tokio::test]
async fn a_text_of_many_resets_does_not_grow_without_end() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut raw = Raw::log_in_with(
        proxy.address(),
        &developer("acme"),
        &[("options", &format!("-c shop.one={}", "v".repeat(5000)))],
    )
    .await;
    assert_eq!(raw.query("reset all; reset all").await, "C(RESET) C(RESET) ZI");
    assert_eq!(raw.query(&"reset all;".repeat(1000)).await, "E(54000) ZI");
    assert_eq!(raw.query("select length(current_setting('shop.one'))").await, "T D(5000) C(SELECT 1) ZI");
}
