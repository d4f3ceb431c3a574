//! Tests of the records, the queue's policy and the file.

use std::fs;

use serde_json::Value;

use super::*;
use crate::event::{CloseReason, SessionFacts};
use crate::ids::{OrgId, SessionId, ShardName, TierName, UserId};
use crate::refusal::Kind;

fn facts() -> Arc<SessionFacts> {
    Arc::new(SessionFacts {
        session: SessionId(7),
        org: OrgId::new("org_1").expect("a good name"),
        user: Some(UserId::new("alice")),
        tier: TierName::new("pro"),
        shard: ShardName::new("s1"),
        address: Some([192, 0, 2, 1].into()),
        application_name: Some("psql \"x\"\n".into()),
        tls: true,
    })
}

fn statement(class: StatementClass) -> Event {
    let relations = [Box::from("public.orders"), Box::from("items")];
    Event::Statement { facts: facts(), class, relations: Arc::new(relations), failed: false }
}

fn refused(kind: Kind) -> Event {
    Event::Refused { facts: facts(), kind, message: "near \"hunter2\"".to_owned() }
}

fn scribe(folder: &tempfile::TempDir, observer: &AuditObserver) -> Scribe {
    let trail = Trail::open(&folder.path().join("audit.jsonl")).expect("it opens");
    Scribe::new(trail, Arc::clone(&observer.shared))
}

/// Every line of the file, as JSON; the last one ended too.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the file is there");
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} has not come");
        thread::yield_now();
    }
}

#[test]
fn every_record_has_all_keys_and_says_what_happened() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let counters = Arc::new(AuditCounters::default());
    let (observer, writer) = start(&path, StatementAudit::Writes, Arc::clone(&counters)).expect("it starts");
    observer.event(&Event::SessionOpened(facts()));
    observer.event(&statement(StatementClass::Write));
    observer.event(&statement(StatementClass::Read));
    observer.event(&refused(Kind::Forbidden));
    let why = "signature".to_owned();
    observer.event(&Event::LoginRefused { address: None, org: None, kind: Kind::InvalidToken, why });
    let reason = CloseReason::ClientTerminate;
    observer.event(&Event::SessionClosed { facts: facts(), reason, lasted: Duration::from_millis(1500) });
    writer.stop();
    let lines = lines(&path);
    let told: Vec<_> = lines.iter().map(|line| (line["action"].as_str(), line["result"].as_str())).collect();
    let expected = [
        ("connect", "success"),
        ("write", "success"),
        ("refusal", "denied"),
        ("connect", "denied"),
        ("disconnect", "success"),
    ];
    assert_eq!(told, expected.map(|(action, result)| (Some(action), Some(result))));
    let keys =
        ["timestamp", "org_id", "user_id", "action", "resource", "ip_address", "user_agent", "result", "metadata"];
    for line in &lines {
        let line = line.as_object().expect("an object");
        assert!(line.len() == keys.len() && keys.iter().all(|key| line.contains_key(*key)), "{line:?}");
    }
    let write = &lines[1];
    assert_eq!(write["org_id"], "org_1");
    assert_eq!(write["user_id"], "alice");
    assert_eq!(write["resource"], "relation/public.orders");
    assert_eq!(write["ip_address"], "192.0.2.1");
    assert_eq!(write["user_agent"], "psql \"x\"\n");
    let timestamp = write["timestamp"].as_str().expect("text");
    assert!(timestamp.len() == "2026-01-01T00:00:00.000Z".len() && timestamp.ends_with('Z'), "{timestamp}");
    assert_eq!(lines[4]["metadata"]["lasted_ms"], 1500);
    assert_eq!(counters.written_total.load(Relaxed), 5);
}

#[test]
fn words_that_may_repeat_a_statement_are_not_recorded() {
    let record = |kind| record::line(SystemTime::now(), &refused(kind), 1).expect("a line");
    for kind in [Kind::Syntax, Kind::InvalidParameter, Kind::ProtocolViolation, Kind::Internal] {
        assert!(!record(kind).contains("hunter2"), "{kind:?}");
    }
    assert!(record(Kind::Forbidden).contains("hunter2"));
}

#[test]
fn long_words_are_cut_and_many_relations_counted() {
    let why = "ü".repeat(5000);
    let event = Event::LoginRefused { address: None, org: None, kind: Kind::InvalidToken, why };
    let line = record::line(SystemTime::now(), &event, 1).expect("a line");
    assert_eq!(line.matches('ü').count(), 512);
    let relations = (0..100).map(|n| format!("t{n}").into_boxed_str()).collect();
    let event = Event::Statement { facts: facts(), class: StatementClass::Read, relations, failed: true };
    let line: Value = serde_json::from_str(&record::line(SystemTime::now(), &event, 1).expect("a line")).expect("JSON");
    assert_eq!(line["metadata"]["relations_more"], 36);
    assert_eq!(line["result"], "failure");
}

/// The same event, of another organization and session.
fn of(org: &str, session: u32, event: Event) -> Event {
    let other = Arc::new(SessionFacts {
        session: SessionId(session),
        org: OrgId::new(org).expect("a good name"),
        ..SessionFacts::clone(&facts())
    });
    match event {
        Event::SessionOpened(_) => Event::SessionOpened(other),
        Event::Refused { kind, message, .. } => Event::Refused { facts: other, kind, message },
        Event::Statement { class, relations, failed, .. } => {
            Event::Statement { facts: other, class, relations, failed }
        }
        event => event,
    }
}

/// As many records as the lines of the file stand for, by action; those that were summed up under their own keys.
fn told(lines: &[Value], org: &str) -> std::collections::BTreeMap<String, u64> {
    let mut told = std::collections::BTreeMap::new();
    for line in lines.iter().filter(|line| line["org_id"] == org) {
        let action = line["action"].as_str().expect("text");
        if action == "audit_gap" {
            for key in ["session_records", "refusal_records", "statement_records"] {
                *told.entry(key.to_owned()).or_default() += line["metadata"][key].as_u64().expect("a number");
            }
        } else {
            *told.entry(action.to_owned()).or_default() += line["metadata"]["count"].as_u64().unwrap_or(1);
        }
    }
    told
}

#[test]
fn equal_records_are_counted_and_those_beyond_a_share_summed_up() {
    const MANY: u64 = 20_000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let counters = Arc::new(AuditCounters::default());
    let (observer, writer) = start(&path, StatementAudit::All, Arc::clone(&counters)).expect("it starts");
    for number in 0..MANY {
        observer.event(&refused(Kind::Forbidden));
        // Words that are not recorded make no difference.
        let (facts, message) = (facts(), format!("near {number}"));
        observer.event(&Event::Refused { facts, kind: Kind::Syntax, message });
        observer.event(&statement(StatementClass::Read));
        let other = of("org_2", number as u32, refused(Kind::ReadOnly));
        observer.event(&other);
    }
    observer.event(&of("org_2", 1, Event::SessionOpened(facts())));
    writer.stop();
    let lines = lines(&path);
    let one = told(&lines, "org_1");
    assert_eq!((one["refusal"], one["read"]), (2 * MANY, MANY), "{one:?}");
    assert!(lines.iter().filter(|line| line["org_id"] == "org_1").count() < 1000, "equal ones are one");
    let two = told(&lines, "org_2");
    assert_eq!(two["refusal"] + two["refusal_records"], MANY, "{two:?}");
    assert_eq!(two["connect"], 1);
    assert_eq!(counters.summarized_total.load(Relaxed), two["refusal_records"]);
    assert_eq!(counters.security_dropped_total.load(Relaxed), 0);
}

#[test]
fn no_organization_takes_the_place_of_another_in_the_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let counters = Arc::new(AuditCounters::default());
    let (observer, receiver) = channel(64, StatementAudit::All, Arc::clone(&counters));
    let scribe = scribe(&folder, &observer);
    let all = |org: &str, session: u32| {
        observer.event(&of(org, session, statement(StatementClass::Read)));
        observer.event(&of(org, session, refused(Kind::Forbidden)));
        observer.event(&of(org, session, Event::SessionOpened(facts())));
    };
    (0..100).for_each(|session| all("greedy", session));
    let lost = counters.security_dropped_total.load(Relaxed) + counters.statements_dropped_total.load(Relaxed);
    assert_eq!(lost, 300 - 16, "a quarter of the queue");
    all("other", 1);
    drop(observer);
    scribe.run(&receiver);
    let lines = lines(&folder.path().join("audit.jsonl"));
    assert_eq!(lines.iter().filter(|line| line["org_id"] == "other").count(), 3);
    let gap = lines.iter().find(|line| line["org_id"].is_null()).expect("what was lost is told");
    let metadata = &gap["metadata"];
    let told = metadata["security_records"].as_u64().zip(metadata["statement_records"].as_u64());
    assert_eq!(told.map(|(security, statements)| security + statements), Some(lost));
}

#[test]
fn statements_give_way_to_refusals_and_those_to_connects() {
    let counters = Arc::new(AuditCounters::default());
    let (observer, _receiver) = channel(16, StatementAudit::All, Arc::clone(&counters));
    let many = |event: &dyn Fn() -> Event| {
        (0..20).for_each(|number| observer.event(&of(&format!("org_{number}"), number, event())));
        let lost = |total: &AtomicU64| total.swap(0, Relaxed);
        lost(&counters.statements_dropped_total) + lost(&counters.security_dropped_total)
    };
    assert_eq!(many(&|| statement(StatementClass::Read)), 20 - 8, "statements use half");
    assert_eq!(many(&|| refused(Kind::Forbidden)), 20 - 4, "refusals three quarters");
    assert_eq!(many(&|| Event::SessionOpened(facts())), 20 - 4, "connects all of it");
}

#[test]
fn statements_find_room_again_when_the_queue_has_drained() {
    let folder = tempfile::tempdir().expect("a folder");
    let counters = Arc::new(AuditCounters::default());
    let (observer, receiver) = channel(8, StatementAudit::All, Arc::clone(&counters));
    let mut scribe = scribe(&folder, &observer);
    for session in 0..50 {
        observer.event(&of("org_1", session, statement(StatementClass::Read)));
        let Ok(Message::Entry(entry)) = receiver.try_recv() else { panic!("it was not queued") };
        scribe.write(&entry);
    }
    assert_eq!(counters.statements_dropped_total.load(Relaxed), 0);
}

#[test]
fn a_file_that_was_renamed_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = (folder.path().join("audit.jsonl"), folder.path().join("audit.jsonl.1"));
    let (observer, writer) = start(&path, StatementAudit::None, Arc::default()).expect("it starts");
    observer.event(&Event::SessionOpened(facts()));
    wait_until("the first line", || lines(&path).len() == 1);
    fs::rename(&path, &old).expect("it can be renamed");
    wait_until("the new file", || path.exists());
    observer.event(&Event::SessionOpened(facts()));
    writer.stop();
    assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
}

#[test]
fn a_file_that_cannot_be_written_keeps_a_bounded_rest_and_tells_the_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let (observer, _receiver) = channel(8, StatementAudit::All, Arc::default());
    let mut scribe = scribe(&folder, &observer);
    let line = "x".repeat(1000);
    let mut taken = 0;
    while scribe.trail.append(&line) {
        taken += 1;
    }
    assert!((1000..1050).contains(&taken), "about a megabyte is kept, not {taken} lines of a thousand");
    while scribe.trail.append("y") {
        taken += 1;
    }
    scribe.shared.lost(Importance::Session, 2);
    scribe.tell_gap();
    assert_eq!(scribe.shared.gap.security.load(Relaxed), 2, "it is kept until there is space");
    scribe.flush();
    scribe.tell_gap();
    scribe.flush();
    let text = fs::read_to_string(folder.path().join("audit.jsonl")).expect("the file is there");
    assert_eq!(text.lines().count(), taken + 1);
    assert!(text.lines().last().is_some_and(|last| last.contains("audit_gap")));
}

#[test]
fn a_device_without_space_counts_failures_and_loses_nothing_silently() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let counters = Arc::new(AuditCounters::default());
    let (observer, _receiver) = channel(8, StatementAudit::All, Arc::clone(&counters));
    let trail = Trail::open(full).expect("it opens");
    let mut scribe = Scribe::new(trail, Arc::clone(&observer.shared));
    scribe.shared.queued.fetch_add(1, Relaxed);
    let what = What::Event(Event::SessionOpened(facts()), Arc::default());
    let place = Place::take(observer.shared.shares.of(None, None));
    scribe.write(&Entry { at: SystemTime::now(), importance: Importance::Session, what, _place: place });
    scribe.flush();
    scribe.flush();
    assert_eq!(counters.write_failures_total.load(Relaxed), 2);
    assert_eq!(counters.written_total.load(Relaxed), 0);
}

#[test]
fn the_file_is_for_its_owner_alone_and_a_missing_folder_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    drop(start(&path, StatementAudit::None, Arc::default()).expect("it starts"));
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let missing = folder.path().join("none/audit.jsonl");
    assert!(matches!(start(&missing, StatementAudit::None, Arc::default()), Err(AuditError::Open { .. })));
}

#[test]
fn what_comes_after_the_end_is_counted_as_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let counters = Arc::new(AuditCounters::default());
    let (observer, writer) =
        start(&folder.path().join("audit.jsonl"), StatementAudit::All, Arc::clone(&counters)).expect("it starts");
    writer.stop();
    observer.event(&Event::SessionOpened(facts()));
    assert_eq!(counters.security_dropped_total.load(Relaxed), 1);
}

#[test]
fn only_the_statements_asked_for_are_wanted() {
    use StatementClass::{Copy, Ddl, Read, Session, Transaction, Utility, Write};
    let wanted = |statements| {
        let all = StatementClass::ALL.into_iter();
        all.filter(|class| wants(statements, *class)).collect::<Vec<_>>()
    };
    assert_eq!(wanted(StatementAudit::All), [Read, Write, Ddl, Transaction, Session, Copy, Utility]);
    assert_eq!(wanted(StatementAudit::Writes), [Write, Ddl, Copy, Utility]);
    assert_eq!(wanted(StatementAudit::None), []);
}
