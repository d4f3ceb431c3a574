//! What real clients send, recorded from them in `tests/data/corpus`: all of it passes the guard, and the proxy.
//!
//! A file is one client's. Its first line says how it was recorded; each statement is followed by a line `-- .`.

use std::fs;
use std::path::Path;

use partywall::config::{GuardPolicy, Right};
use partywall::event::StatementClass;
use partywall::guard::Guard;

use crate::support::raw::brief;
use crate::support::{Message, Proxy, Raw, Shard, Wire};

/// Statements that clients send and the proxy refuses: how they begin, and where the reason is told.
const REFUSED: [(&str, &str); 3] = [
    ("LISTEN ", "docs/compatibility.md#LISTEN and NOTIFY"),
    ("PREPARE TRANSACTION ", "docs/compatibility.md#Prepared transactions and snapshots"),
    ("SET row_security = off", "docs/compatibility.md#Settings that carry the context cannot be set"),
];

/// The client's name and its statements.
fn corpus() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).expect("a file of the corpus");
        let (head, statements) = text.split_once('\n').expect("a head and statements");
        assert!(head.starts_with("-- Recorded from "), "{} says how it was recorded", path.display());
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let statements = statements.split("\n-- .\n").filter(|text| !text.is_empty()).map(str::to_owned).collect();
        (name, statements)
    };
    files.iter().map(read).collect()
}

/// Whether it is one of those that the proxy refuses for a reason that a page tells.
fn is_excepted(sql: &str) -> bool {
    REFUSED.iter().any(|(beginning, _)| sql.starts_with(beginning))
}

#[test]
fn what_real_clients_send_passes_the_guard() {
    let roles = [("reader", vec![Right::Read]), ("writer", vec![Right::Read, Right::Write])];
    let roles = roles.map(|(name, rights)| (name.to_owned(), rights)).into();
    let guard =
        Guard::new(&GuardPolicy { roles, ..GuardPolicy::default() }, &["app.current_org_id".to_owned()], 1 << 20);
    let [reader, writer] = ["reader", "writer"].map(|role| guard.rights(&[role], &[] as &[&str]));
    let (mut refused, mut count) = (Vec::new(), 0);
    for (client, statements) in corpus() {
        assert!(statements.len() > 5, "{client} has said something");
        for sql in statements.iter().filter(|sql| !is_excepted(sql)) {
            count += 1;
            match (guard.judge(sql, &reader), guard.judge(sql, &writer)) {
                (Ok(_), _) => {}
                (Err(_), Ok(verdict)) if verdict.class() != StatementClass::Read => {}
                (Err(refusal), Ok(_)) if refusal.sqlstate() == "25006" => {}
                (Err(refusal), _) => refused.push(format!("{client}: {sql}\n    {refusal}")),
            }
        }
    }
    assert!(count > 1000, "{count} statements");
    assert!(refused.is_empty(), "{} of {count} statements are refused:\n{}", refused.len(), refused.join("\n"));
}

#[test]
fn every_exception_is_in_the_corpus_and_its_reason_on_its_page() {
    let statements: Vec<_> = corpus().into_iter().flat_map(|(_, statements)| statements).collect();
    for (beginning, page) in REFUSED {
        assert!(statements.iter().any(|sql| sql.starts_with(beginning)), "nobody sends {beginning}");
        let (file, title) = page.split_once('#').expect("a page and a title of it");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file);
        assert!(text.contains(&format!("## {title}\n")), "{file} has no section \"{title}\"");
    }
}

#[tokio::test]
async fn what_real_clients_send_passes_the_proxy() {
    let shard = Shard::start_sample();
    let proxy = Proxy::before(&shard).start().await;
    let mut refused = Vec::new();
    for (client, statements) in corpus() {
        let mut raw = proxy.raw("globex").await;
        for sql in &statements {
            let messages = say(&mut raw, sql).await;
            match messages.iter().find(|message| is_refusal(message)) {
                Some(no) if !is_excepted(sql) => {
                    refused.push(format!("{client}: {sql}\n    {}: {}", no.field(b'C'), no.field(b'M')));
                }
                None if is_excepted(sql) => refused.push(format!("{client}: {sql}\n    is refused no more")),
                _ => {}
            }
            let last = messages.last().unwrap_or_else(|| panic!("{client} lost its session: {sql}"));
            if last.brief() != "ZI" {
                raw.query("ROLLBACK").await;
            }
        }
    }
    assert!(refused.is_empty(), "{} statements differ:\n{}", refused.len(), refused.join("\n"));
}

/// Says a statement, with NULL for each parameter, and nothing where it copies in.
async fn say(raw: &mut Raw, sql: &str) -> Vec<Message> {
    let parameters = (1..100).take_while(|at| sql.contains(&format!("${at}"))).count() as u16;
    if parameters == 0 {
        raw.send(Wire::new().query(sql)).await;
    } else {
        let mut bind = vec![0, 0, 0, 0];
        bind.extend(parameters.to_be_bytes());
        bind.extend((0..parameters).flat_map(|_| (-1_i32).to_be_bytes()));
        bind.extend([0, 0]);
        raw.send(Wire::new().parse("", sql).message(b'B', &bind).describe(b'P', "").execute("", 0).sync()).await;
    }
    let mut messages = Vec::new();
    loop {
        let Some(message) = raw.message().await else { return Vec::new() };
        let (copies_in, is_last) = (message.tag == b'G', message.tag == b'Z');
        messages.push(message);
        if copies_in {
            raw.send(Wire::new().copy_done()).await;
        }
        if is_last {
            return messages;
        }
    }
}

/// Whether the proxy has said no where a server would not have: a server's errors name a file of its sources.
fn is_refusal(message: &Message) -> bool {
    let as_a_server = ["26000", "34000", "42P05", "25001"];
    message.tag == b'E' && message.field(b'F').is_empty() && !as_a_server.contains(&&*message.field(b'C'))
}

#[tokio::test]
async fn a_refusal_is_told_from_an_error_of_the_server() {
    let proxy = Proxy::before(Shard::shared()).start().await;
    let mut raw = proxy.raw("acme").await;
    for (sql, refusal) in [("LISTEN channel", true), ("SELECT 1 / 0", false), ("SELECT * FROM pg_locks", true)] {
        let messages = say(&mut raw, sql).await;
        assert_eq!(messages.iter().any(is_refusal), refusal, "{sql}: {}", brief(&messages));
    }
}
