//! The crown test: form of isolation × protocol path × trick. Whatever one organization tries, the other's rows, context,
//! limits and sessions stay its own, and the server connection that both share is clean for who comes next.
//!
//! With the guard in force nothing at all may pass. With a broken guard the guarded context alone must still show no
//! foreign row and no foreign context; what a tenant can then do to its own limits, to locks and to what it leaves
//! behind is the guard's and the lease's to prevent, and is not asked there.

mod arena;
mod paths;
mod protocol;
mod sight;
mod tricks;

use std::fmt::Write as _;

use arena::{Arena, Form};
use paths::Path;

use partywall::config::{GuardPolicy, Right};
use partywall::guard::Guard;

use crate::support::{random, scaled, stride};

/// Tricks after which the lasting state of the server is looked at together.
const BATCH: usize = 16;

async fn every_trick(form: Form) {
    let mut arena = Arena::open(form).await;
    let turn = random::seed() as usize;
    let whole = scaled(100) >= 100;
    // Below full scale runs share the tricks; what the guard alone refuses is tried in each.
    let step = match form {
        _ if whole => 1,
        Form::PlainWithGuard => 2,
        Form::GuardedWithGuard | Form::GuardedAlone => 5,
    };
    let tricks = tricks::all().filter(|trick| form.dares(trick));
    let tricks: Vec<&str> = tricks.skip(turn % step).step_by(step).collect();
    let (mut tried, mut faults) = (0, String::new());
    for (batch, tricks) in tricks.chunks(BATCH).enumerate() {
        for (at, trick) in tricks.iter().enumerate() {
            // All of the paths at full scale; else another one for each trick.
            let all = Path::ALL.into_iter().enumerate();
            for (_, path) in all.filter(|(nth, _)| whole || *nth == (turn + batch * BATCH + at) % Path::ALL.len()) {
                tried += 1;
                if let Err(fault) = arena.attempt(trick, path).await {
                    let _ = writeln!(faults, "{form:?} {path:?}: {trick}\n    {fault}");
                    arena.renew().await;
                }
            }
        }
        if let Err(fault) = arena.lasting().await {
            let _ = writeln!(faults, "{form:?}, one of {tricks:#?}\n    {fault}");
            arena.renew().await;
        }
    }
    println!("{form:?}: {tried} attempts");
    assert!(faults.is_empty(), "seed {turn}\n{faults}");
}

#[tokio::test]
async fn no_trick_passes_the_guard_before_a_plain_context() {
    every_trick(Form::PlainWithGuard).await;
}

#[tokio::test]
async fn no_trick_passes_the_guard_before_a_guarded_context() {
    every_trick(Form::GuardedWithGuard).await;
}

#[tokio::test]
async fn a_guarded_context_alone_shows_no_foreign_row() {
    every_trick(Form::GuardedAlone).await;
}

/// Conversations and logins after which the lasting state is looked at together.
async fn every_conversation(form: Form) {
    let mut arena = Arena::open(form).await;
    let (mut tried, mut faults) = (0, String::new());
    let turn = random::seed() as usize;
    for (at, (words, wire, readies)) in
        protocol::talks().into_iter().enumerate().skip(turn % stride()).step_by(stride())
    {
        tried += 1;
        if let Err(fault) = arena.converse(wire, readies).await {
            let _ = writeln!(faults, "{form:?} {words} ({at}): {fault}");
            arena.renew().await;
        }
    }
    for (name, value) in protocol::STARTS {
        tried += 1;
        if let Err(fault) = arena.begin_with(name, value).await {
            let _ = writeln!(faults, "{form:?} {name}={value}: {fault}");
            arena.renew().await;
        }
    }
    if let Err(fault) = arena.lasting().await {
        let _ = writeln!(faults, "{form:?}: {fault}");
    }
    println!("{form:?}: {tried} conversations");
    assert!(faults.is_empty(), "seed {turn}\n{faults}");
}

#[tokio::test]
async fn no_trick_of_the_protocol_passes_before_a_plain_context() {
    every_conversation(Form::PlainWithGuard).await;
}

#[tokio::test]
async fn no_trick_of_the_protocol_passes_before_a_guarded_context() {
    every_conversation(Form::GuardedWithGuard).await;
}

/// What must be refused is refused by the guard itself, and not by a database that happens to lack it.
#[test]
fn the_guard_itself_refuses_what_must_be_refused() {
    let policy = GuardPolicy { default_rights: vec![Right::Read, Right::Write], ..GuardPolicy::default() };
    let guard = Guard::new(&policy, &["app.current_org_id".to_owned()], 1 << 20);
    let rights = guard.rights(&[] as &[&str], &[] as &[&str]);
    let must = tricks::all().filter_map(|trick| trick.strip_prefix('!'));
    // The session judges names of statements: it knows them.
    let by_session = |sql: &str| ["EXECUTE", "DEALLOCATE", "PREPARE partywall"].iter().any(|words| sql.contains(words));
    let open: Vec<_> = must.filter(|sql| !by_session(sql) && guard.judge(sql, &rights).is_ok()).collect();
    assert!(open.is_empty(), "{open:#?}");
}

#[test]
fn there_are_more_than_three_hundred_tricks_and_none_twice() {
    let mut all: Vec<&str> = tricks::all().collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert!(count > 300 && all.len() == count, "{count} tricks, {} different", all.len());
}
