//! Sessions of real drivers, recorded byte for byte in `tests/data/sessions`, played again: whole, one byte at a time,
//! and past the proxy.
//!
//! A file is one driver's. `session` begins a session, with its start-up settings; `after N` waits until the server has
//! said so many messages that are not unasked; every other line is a message: its type and its body, escaped.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::support::dribble::Manner;
use crate::support::{Dribble, Message, Proxy, Raw, Shard, Wire, stride};

/// What a server says unasked, and what depends on how much a table holds.
const UNCOUNTED: &[u8] = b"SNADd";

/// Values of these types are made anew in each play, and so are the ids of what is made in the database.
const TIMESTAMPTZ: u32 = 1184;
const UUID: u32 = 2950;
const OID: u32 = 26;
const FIRST_OWN_OID: u32 = 16_384;

/// Sessions of more than so many bytes, which repeat themselves, are played at full scale only.
const LONG_BYTES: usize = 15_000;

/// Where a session through the proxy goes another way than a direct one (docs/compatibility.md tells why).
const REFUSALS: [&str; 2] = ["E 42501 LISTEN is refused", "E 0A000 prepared transactions are not supported"];

/// What a driver made and then removed by an id that was another when it was recorded.
const CLEAR: &str = "DELETE FROM runs WHERE id NOT IN (SELECT id FROM kept);
    DELETE FROM pipelines WHERE id NOT IN (SELECT id FROM kept)";

/// What a driver says after so many messages of the server.
struct Turn {
    after: usize,
    wire: Wire,
    /// How many of its messages are answered by ReadyForQuery.
    readies: usize,
}

/// One connection of a driver.
struct Session {
    settings: Vec<(String, String)>,
    turns: Vec<Turn>,
}

impl Session {
    fn bytes(&self) -> usize {
        self.turns.iter().map(|turn| turn.wire.0.len()).sum()
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

fn recorded() -> Vec<(String, Vec<Session>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sessions");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("sessions").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), read(&fs::read_to_string(path).expect("a file of sessions")))).collect()
}

fn read(text: &str) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "session" {
            let setting = |word: &str| {
                let text = String::from_utf8(unescaped(word)).expect("text");
                let (name, value) = text.split_once('=').expect("name=value");
                (name.to_owned(), value.to_owned())
            };
            let settings = rest.split_whitespace().map(setting).collect();
            sessions.push(Session { settings, turns: Vec::new() });
            continue;
        }
        let turns = &mut sessions.last_mut().expect("a session").turns;
        if word == "after" {
            turns.push(Turn { after: rest.parse().expect("a number"), wire: Wire::new(), readies: 0 });
        } else if word != "X" {
            let turn = turns.last_mut().expect("a turn");
            turn.readies += usize::from(["Q", "S"].contains(&word));
            turn.wire = std::mem::take(&mut turn.wire).message(word.as_bytes()[0], &unescaped(rest));
        }
    }
    sessions
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\\' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).expect("ASCII"), 16).expect("two digits"));
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    bytes
}

/// Plays what the driver said, at its turns, and returns all that the server answered to it.
async fn play(mut raw: Raw, session: &Session) -> Vec<String> {
    let (mut heard, mut counted) = (Vec::new(), 0);
    for turn in &session.turns {
        while counted < turn.after {
            let Some(message) = raw.message().await else { return normalized(&heard) };
            counted += usize::from(!UNCOUNTED.contains(&message.tag));
            heard.push(message);
        }
        raw.send(turn.wire.clone()).await;
    }
    // Whatever the driver did, it says goodbye when it has heard everything: what is on its way then may be lost.
    heard.extend(raw.until_readies(session.turns.last().map_or(0, |turn| turn.readies)).await);
    raw.send(Wire::new().terminate()).await;
    heard.extend(raw.until_closed().await);
    normalized(&heard)
}

/// What of an answer is the same whenever it is given.
fn normalized(messages: &[Message]) -> Vec<String> {
    let (mut types, mut said) = (Vec::new(), Vec::new());
    for message in messages.iter().filter(|message| message.tag != b'S') {
        // A list of types or tables has those of temporary tables in it, which come and go.
        let lists_own = types.first() == Some(&OID) && types.len() > 1;
        said.push(match message.tag {
            b'D' if lists_own && message.columns()[0].parse().is_ok_and(|oid: u32| oid >= FIRST_OWN_OID) => continue,
            b'C' if lists_own => "C SELECT …".to_owned(),
            b'T' => {
                let (columns, own) = columns(&message.body);
                types = own;
                format!("T {columns}")
            }
            b'D' => row(message, &types),
            b'E' => format!("E {} {}", message.field(b'C'), message.field(b'M')),
            // Words may differ: whether there is a pg_temp at all hangs on what the connection did before.
            b'N' => format!("N {}", message.field(b'C')),
            tag => format!("{} {}", char::from(tag), message.body.escape_ascii()),
        });
    }
    // In which order rows come that are not sorted is the server's choice.
    said.chunk_by_mut(|one, other| one.starts_with("D ") && other.starts_with("D ")).for_each(<[String]>::sort);
    said
}

/// A RowDescription without the ids of tables that were made here; and the columns' types.
fn columns(body: &[u8]) -> (String, Vec<u32>) {
    let (mut rest, mut types, mut text) = (&body[2..], Vec::new(), String::new());
    while let Some(end) = rest.iter().position(|&byte| byte == 0) {
        let facts = &rest[end + 1..end + 19];
        let number = |at: usize| u32::from_be_bytes(facts[at..at + 4].try_into().expect("four bytes"));
        let made_here = |oid: u32| if oid < FIRST_OWN_OID { oid } else { FIRST_OWN_OID };
        types.push(number(6));
        let name = rest[..end].escape_ascii();
        text += &format!("{name}:{}:{}:{} ", made_here(number(0)), made_here(number(6)), facts[10..].escape_ascii());
        rest = &rest[end + 19..];
    }
    (text, types)
}

/// A DataRow without values that are made anew each time.
fn row(message: &Message, types: &[u32]) -> String {
    let count = usize::from(u16::from_be_bytes([message.body[0], message.body[1]]));
    let (mut rest, mut text) = (&message.body[2..], String::from("D"));
    for at in 0..count {
        let (length, after) = rest.split_at(4);
        let length = usize::try_from(i32::from_be_bytes(length.try_into().expect("four bytes"))).unwrap_or(0);
        let (value, after) = after.split_at(length);
        let is_anew = types.len() == count && [TIMESTAMPTZ, UUID].contains(&types[at]);
        text += &if is_anew { " …".to_owned() } else { format!(" {}", value.escape_ascii()) };
        rest = after;
    }
    text
}

/// Logs in as the driver did, but for its user and token.
async fn log_in(proxy: &Proxy, address: SocketAddr, session: &Session) -> Raw {
    Raw::log_in_with(address, &proxy.token("globex", "dan", &["developer"]), &session.settings()).await
}

/// Logs in to the server itself.
async fn log_in_directly(shard: &Shard, session: &Session) -> Raw {
    Raw::past_the_proxy_with(shard, "globex", &session.settings()).await
}

fn upto(said: &[String], end: usize) -> &[String] {
    &said[..said.len().min(end)]
}

fn assert_same(place: &str, once: &[String], other: &[String]) {
    if let Some(at) = (0..once.len().max(other.len())).find(|&at| once.get(at) != other.get(at)) {
        let before = &once[at.saturating_sub(3)..at.min(once.len())];
        panic!("{place}: after {before:#?}\n{:?}\nand\n{:?}", once.get(at), other.get(at));
    }
}

#[tokio::test]
async fn every_drivers_session_is_the_same_byte_by_byte_and_past_the_proxy() {
    let shard = &Shard::start_sample();
    let admin = shard.admin().await;
    admin
        .batch_execute("CREATE TABLE kept AS SELECT id FROM pipelines UNION ALL SELECT id FROM runs")
        .await
        .expect("kept");
    let server = Dribble::to(([127, 0, 0, 1], shard.cluster.port()).into(), Manner::BYTEWISE).await;
    let (whole, slow) =
        (Proxy::before(shard).start().await, Proxy::before_port(server.address.port(), &shard.password).start().await);
    let client = Dribble::to(slow.address(), Manner::BYTEWISE).await;
    let mut played = 0;
    for (driver, sessions) in recorded() {
        for (number, session) in sessions.iter().enumerate() {
            if session.bytes() > LONG_BYTES && stride() > 1 {
                continue;
            }
            let once = play(log_in(&whole, whole.address(), session).await, session).await;
            admin.batch_execute(CLEAR).await.expect("cleared");
            let alone = play(log_in(&slow, client.address, session).await, session).await;
            admin.batch_execute(CLEAR).await.expect("cleared");
            let directly = play(log_in_directly(shard, session).await, session).await;
            admin.batch_execute(CLEAR).await.expect("cleared");
            let place = format!("{driver}, session {number}");
            assert_same(&format!("{place}, one byte at a time"), &once, &alone);
            let refused = once.iter().position(|said| REFUSALS.iter().any(|refusal| said.starts_with(refusal)));
            let comparable = refused.unwrap_or(once.len().max(directly.len()));
            assert_same(&format!("{place}, directly"), upto(&once, comparable), upto(&directly, comparable));
            played += usize::from(!once.is_empty());
        }
    }
    assert!(played > 100, "{played} sessions");
}
