//! Verdicts that texts share: the fold against PostgreSQL's own lexer, and every shared verdict against one's own.

use super::*;
use crate::guard::fold::{self, fold};

/// A little generator of pseudo-random numbers (splitmix64): the same seed tells the same story.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const INTEGERS: [&str; 6] = ["0", "1", "10", "65536", "1000000001", "2147483647"];
const NUMERICS: [&str; 5] = ["0.5", "1.0", "2147483648", "99999999999999999999", "3.14159"];
const STRINGS: [&str; 16] = [
    "''",
    "'x'",
    "'it''s'",
    "'--'",
    "'/*'",
    "'*/'",
    "'$$'",
    "'\"'",
    "';SET ROLE admin'",
    "'set_config'",
    "'on'",
    "'app.current_org_id'",
    "'pg_authid'",
    "'ä\u{1}\u{3}'",
    "'a\nb'",
    "''''''",
];

/// Another text with the same fold.
fn another(fold: &[u8], random: &mut Random) -> String {
    let mut text = Vec::new();
    for &byte in fold {
        match byte {
            fold::INTEGER => text.extend_from_slice(random.pick(&INTEGERS).as_bytes()),
            fold::NUMERIC => text.extend_from_slice(random.pick(&NUMERICS).as_bytes()),
            fold::STRING => text.extend_from_slice(random.pick(&STRINGS).as_bytes()),
            other => text.push(other),
        }
    }
    String::from_utf8(text).unwrap()
}

/// What texts are made of that try the fold.
const PARTS: [&str; 60] = [
    "SELECT ",
    "SELECT ",
    "SELECT ",
    " FROM t ",
    " WHERE ",
    "a",
    "b1",
    "e",
    "E",
    "n",
    "x",
    "u",
    "U&",
    "_",
    "\"q\"",
    "\"\"",
    "'",
    "''",
    "'s'",
    "'s''t'",
    "'a\\'",
    "$",
    "$1",
    "$$",
    "$a$",
    "1",
    "17",
    "2147483648",
    "0",
    "00",
    "0x",
    "1.5",
    ".",
    ".5",
    "..",
    "-",
    "--",
    "/",
    "/*",
    "*/",
    "*",
    "+",
    "=",
    "<>",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ":",
    "::",
    " ",
    "\n",
    "\t",
    "&",
    "|",
    "ä",
    " UNION SELECT ",
    " AS ",
];

#[test]
fn texts_with_the_same_fold_have_the_same_tokens_but_for_values() {
    let seed = 20_260_731;
    let mut random = Random(seed);
    let mut compared = 0;
    for round in 0..60_000 {
        let mut text = String::from("SELECT ");
        for _ in 0..=random.below(9) {
            text.push_str(random.pick(&PARTS));
        }
        let Some(folded) = fold(&text).filter(|fold| fold.values) else { continue };
        let other = another(&folded.bytes, &mut random);
        assert_eq!(fold(&other).as_ref(), Some(&folded), "seed {seed}, round {round}: {text:?} and {other:?}");
        let normal = |sql: &str| pg_raw_parse::parse(sql).and_then(|_| pg_raw_parse::normalize::normalize(sql)).ok();
        let (one, two) = (normal(&text), normal(&other));
        assert_eq!(one.is_some(), two.is_some(), "seed {seed}, round {round}: {text:?} and {other:?}");
        if let (Some(one), Some(two)) = (one, two) {
            compared += 1;
            // PostgreSQL leaves some values where they are.
            assert_eq!(fold(&one), fold(&two), "seed {seed}, round {round}: {text:?} and {other:?}");
            assert!(fold(&one).is_some() || one == two, "seed {seed}, round {round}: {one:?}");
        }
    }
    assert!(compared > 500, "only {compared} pairs that parse");
}

#[test]
fn a_shared_verdict_is_the_one_that_each_text_would_get() {
    let guard = guard();
    let owner = rights(&guard, "owner");
    let seed = 20_260_801;
    let mut random = Random(seed);
    let mut shared = 0;
    for (isolation, readers) in [(Isolation::Row, "owner"), (Isolation::Row, "analyst"), (Isolation::Database, "owner")]
    {
        let rights = rights(&guard, readers).with_isolation(isolation);
        let lists =
            attacks::lines(attacks::FORBIDDEN).chain(attacks::UNSUPPORTED).chain(attacks::lines(honest::HONEST));
        for sql in lists {
            let Some(folded) = fold(sql).filter(|fold| fold.values) else { continue };
            let _ = guard.judge(sql, &rights);
            for _ in 0..4 {
                let other = another(&folded.bytes, &mut random);
                let own = guard.parse_and_walk(&other, &rights).map(|judged| judged.verdict);
                let judged = guard.judge(&other, &rights);
                match (judged, own) {
                    (Ok(judged), Ok(own)) => assert_same(&judged, &own, &other),
                    (Err(judged), Err(own)) => assert_eq!(judged.kind(), own.kind(), "{other}"),
                    (judged, own) => panic!("seed {seed}: {other}\n{judged:?}\n{own:?}"),
                }
                shared += usize::from(guard.cache.get(&other, &rights).is_ok());
            }
        }
    }
    assert!(shared > 100, "only {shared} verdicts were remembered");
    let (one, two) =
        (guard.judge("SELECT * FROM t WHERE a = 1", &owner), guard.judge("SELECT * FROM t WHERE a = 2", &owner));
    assert!(Arc::ptr_eq(&one.unwrap(), &two.unwrap()));
}

#[track_caller]
fn assert_same(judged: &Verdict, own: &Verdict, sql: &str) {
    // Places differ with the lengths of values; nobody asks for them where nothing changes.
    let without_places = |verdict: &Verdict| {
        let mut verdict = verdict.clone();
        verdict.statements.iter_mut().for_each(|statement| statement.range = 0..0);
        verdict
    };
    if own.changes_nothing() && own.rewritten().is_none() {
        assert_eq!(without_places(judged), without_places(own), "{sql}");
    } else {
        assert_eq!(judged, own, "{sql}");
    }
}

#[test]
fn where_values_have_a_say_each_text_is_judged() {
    let guard = guard();
    for (yes, no, isolation) in [
        (
            "SELECT set_config('search_path', 'a', false)",
            "SELECT set_config('app.current_org_id', 'a', false)",
            Isolation::Row,
        ),
        (
            "SELECT set_config(name, 'on', false) FROM pg_settings WHERE name = 'enable_seqscan'",
            "SELECT set_config(name, 'on', false) FROM pg_settings WHERE name = 'app.current_org_id'",
            Isolation::Row,
        ),
        ("EXPLAIN (ANALYZE 0) SELECT 1", "EXPLAIN (ANALYZE 1) SELECT 1", Isolation::Row),
        ("EXPLAIN (ANALYZE 'off') SELECT 1", "EXPLAIN (ANALYZE 'on') SELECT 1", Isolation::Row),
        ("SET client_encoding = 'utf8'", "SET client_encoding = 'sjis'", Isolation::Database),
    ] {
        let rights = rights(&guard, "owner").with_isolation(isolation);
        assert_eq!(fold(yes), fold(no), "{yes}");
        assert!(guard.judge(yes, &rights).is_ok(), "{yes}");
        assert!(guard.judge(no, &rights).is_err(), "{no}");
    }
}

#[test]
fn what_changes_in_the_session_is_told_in_the_values_of_each_text() {
    let guard = guard();
    let owner = rights(&guard, "owner");
    for [one, two] in [
        ["SET work_mem = 64", "SET work_mem = 128"],
        ["SELECT set_config('work_mem', '64', false)", "SELECT set_config('work_mem', '128', false)"],
        ["SELECT 1; SELECT 2", "SELECT 100; SELECT 2"],
        ["SELECT pg_advisory_xact_lock(1)", "SELECT pg_advisory_xact_lock(2)"],
    ] {
        assert_eq!(fold(one), fold(two), "{one}");
        assert_ne!(guard.judge(one, &owner).unwrap(), guard.judge(two, &owner).unwrap(), "{one}");
    }
}

#[test]
fn no_text_passes_for_a_fold() {
    let guard = guard();
    let owner = rights(&guard, "owner");
    assert!(guard.judge("SELECT a FROM t WHERE b = 1", &owner).is_ok());
    let raw = "SELECT a FROM t WHERE b = \u{1}";
    assert_eq!(fold("SELECT a FROM t WHERE b = 1").unwrap().bytes, raw.as_bytes());
    assert_eq!(guard.judge(raw, &owner).unwrap_err().kind(), Kind::Syntax);
}

#[test]
fn a_text_that_is_too_long_is_refused_though_a_shorter_one_has_its_fold() {
    let guard = Guard::new(&GuardPolicy::default(), &[], 30);
    let rights = rights(&guard, "nobody");
    assert!(guard.judge("SELECT 'a'", &rights).is_ok());
    let refusal = guard.judge(&format!("SELECT '{}'", "a".repeat(30)), &rights).unwrap_err();
    assert_eq!(refusal.kind(), Kind::StatementTooLarge);
}
