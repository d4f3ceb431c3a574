//! The residue test: state × way to make it × protocol × form of the context. Whatever code a session makes the server run, the
//! next session finds the server process as if nobody had had it before, but for what docs/threat-model.md says may stay.

mod arena;
mod sight;
mod states;
mod ways;

use std::fmt::Write as _;

use arena::{Arena, NEIGHBOURS};
use partywall::context::seal::Form;
use partywall::provision::Binaries;
use states::STATES;
use ways::{Path, WAYS};

use crate::support::{newest_postgres, stride};

/// What one attempt sends, and by which table a COPY could.
struct Attempt {
    words: String,
    path: Path,
    sql: String,
    copied: Option<String>,
}

/// Every attempt, in an order in which neighbours differ in state, way and protocol.
fn attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    for way in 0..=WAYS.len() {
        for (number, state) in STATES.iter().enumerate() {
            for path in Path::ALL {
                let (name, sql, copied) = match WAYS.get(way) {
                    None if state.statement.is_empty() => continue,
                    None => ("statement", state.statement.to_owned(), None),
                    Some(_) if state.code.is_empty() => continue,
                    Some(way) => {
                        (way.name, ways::place(way.run, number), way.copied.map(|table| ways::place(table, number)))
                    }
                };
                let what = if way == WAYS.len() { "" } else { state.code };
                all.push(Attempt { words: format!("{path:?} {name}: {sql} {what}"), path, sql, copied });
            }
        }
    }
    all
}

/// The step from one attempt to the next, when not all are made: prime to the tables' sizes.
const STEP: usize = 37;

async fn nothing_is_left(form: Form, binaries: Option<Binaries>, turn: usize) {
    let mut arena = Arena::open(form, binaries).await;
    let (step, turn) = if stride() == 1 { (1, 0) } else { (STEP, turn) };
    let (mut tried, mut faults) = (0, String::new());
    for attempt in attempts().iter().skip(turn).step_by(step) {
        // All of the neighbours at full scale; else one after the other.
        let one = NEIGHBOURS[tried % NEIGHBOURS.len()];
        for neighbour in NEIGHBOURS.into_iter().filter(|neighbour| step == 1 || *neighbour == one) {
            let Some(heard) = arena.leave(attempt.path, &attempt.sql, attempt.copied.as_deref()).await else {
                continue;
            };
            tried += 1;
            if let Err(what) = arena.look(neighbour).await {
                let _ = writeln!(faults, "{form:?} {}\n    {heard}\n    {neighbour:?}: {what}", attempt.words);
                arena.renew().await;
            }
        }
    }
    println!("{form:?}: {tried} attempts");
    assert!(faults.is_empty(), "{tried} attempts\n{faults}");
}

#[tokio::test]
async fn nothing_is_left_behind_with_a_plain_context() {
    nothing_is_left(Form::Plain, None, 0).await;
}

#[tokio::test]
async fn nothing_is_left_behind_with_a_guarded_context() {
    nothing_is_left(Form::Guarded, None, 5).await;
}

#[tokio::test]
async fn nothing_is_left_behind_with_a_sealed_context() {
    nothing_is_left(Form::Sealed, None, 10).await;
}

#[tokio::test]
async fn nothing_is_left_behind_on_postgresql_18() {
    if let Some(binaries) = newest_postgres() {
        nothing_is_left(Form::Guarded, Some(binaries), 15).await;
    }
}

/// What ends with its transaction, and so leaves nothing even where nobody cleans; it is tried for how it may end.
const PASSING: [&str; 3] = ["'left', true", "advisory_xact_lock", "DECLARE held CURSOR FOR"];

#[tokio::test]
async fn every_state_is_seen_where_nobody_cleans() {
    let arena = Arena::open(Form::Plain, None).await;
    for (number, state) in STATES.iter().enumerate().filter(|(_, state)| !state.code.is_empty()) {
        let (before, after, random) = arena.direct(number).await;
        let left = sight::difference(&before, &after).is_some() || arena.is_seeded(&random);
        assert!(left || PASSING.iter().any(|words| state.code.contains(words)), "{state:?}");
    }
}

#[tokio::test]
async fn a_similarity_limit_is_its_sessions_own() {
    let arena = Arena::open(Form::Plain, None).await;
    let (mut acme, mut globex) = (arena.proxy.raw("acme").await, arena.proxy.raw("globex").await);
    assert_eq!(acme.query("SELECT set_limit(0.95)").await, "T D(0.95) C(SELECT 1) ZI");
    for _ in 0..2 {
        assert_eq!(globex.query("SELECT show_limit()").await, "T D(0.3) C(SELECT 1) ZI");
        assert_eq!(acme.query("SELECT show_limit()").await, "T D(0.95) C(SELECT 1) ZI");
    }
}
