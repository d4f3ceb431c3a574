//! Texts made to hurt: an answer or a refusal, never a crash. All of it on a stack of 2 MB.

use super::*;

/// Judges on a thread with the stack that data threads have.
fn on_small_stack(sql: String) -> Result<Arc<Verdict>, Refusal> {
    std::thread::Builder::new().stack_size(2 << 20).spawn(move || judge(&sql)).unwrap().join().unwrap()
}

#[test]
fn long_chains_of_operators_are_answered() {
    assert!(on_small_stack(format!("SELECT {}1", "1+".repeat(20_000))).is_ok());
    assert!(on_small_stack(format!("SELECT {}1", "1+".repeat(400_000))).is_ok());
    assert!(on_small_stack(format!("SELECT 1 WHERE {}true", "a = 1 OR ".repeat(100_000))).is_ok());
    assert!(on_small_stack(format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(20_000))).is_ok());
    assert!(on_small_stack(format!("SELECT * FROM t{}", " JOIN t ON true".repeat(20_000))).is_ok());
}

#[test]
fn a_call_at_the_bottom_of_a_long_chain_is_found() {
    let sql = format!("SELECT pg_cancel_backend(1){}", "+1".repeat(20_000));
    assert_eq!(on_small_stack(sql).unwrap_err().kind(), Kind::Forbidden);
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in
        [("(", ")"), ("(SELECT ", ")"), ("f(", ")"), ("ARRAY[", "]"), ("NOT ", ""), ("CASE WHEN ", " THEN 1 END")]
    {
        let sql = format!("SELECT {}1{}", open.repeat(60_000), close.repeat(60_000));
        let refusal = on_small_stack(sql).unwrap_err();
        assert_eq!(refusal.kind(), Kind::StatementTooLarge, "{open}: {refusal}");
    }
}

/// Texts that PostgreSQL's scanner reads again from every place in them would take minutes.
#[test]
fn what_is_slow_to_scan_is_refused() {
    for sql in ["/*", "/**/", "/*+", "+/**/", "SELECT 1 /*/*/*", "SELECT 1 + +/**/"] {
        let sql = format!("{}1", sql.repeat(900_000 / sql.len()));
        let refusal = on_small_stack(sql.clone()).map_err(|refusal| refusal.kind());
        assert!(matches!(refusal, Err(Kind::StatementTooLarge | Kind::Syntax)), "{}: {refusal:?}", &sql[..16]);
    }
    assert_eq!(judge(&format!("SELECT {}1", "+".repeat(65))).unwrap_err().kind(), Kind::StatementTooLarge);
    let line = "-".repeat(100);
    let table = format!("'+{line}+{line}+\n| a | {} |'", "=".repeat(200));
    for sql in [
        format!("SELECT {}1", "+".repeat(64)),
        format!("/*{stars}*/ {line}\nSELECT 1 /* {line} */", stars = "*".repeat(200)),
        format!("SELECT {table}"),
        format!("SELECT 1 {}", "/* a */".repeat(10_000)),
        format!("SELECT 1 {}", "+ 1 ".repeat(10_000)),
    ] {
        assert!(on_small_stack(sql.clone()).is_ok(), "{}", &sql[..40]);
    }
}

#[test]
fn a_large_insert_is_answered() {
    let sql = format!("INSERT INTO t VALUES {}(1, 'x')", "(1, 'abc'),".repeat(90_000));
    assert!(sql.len() > 900_000);
    assert!(on_small_stack(sql).is_ok());
}

#[test]
fn what_is_longer_than_the_bound_is_refused() {
    let sql = format!("SELECT '{}'", "x".repeat(1 << 20));
    assert_eq!(on_small_stack(sql).unwrap_err().kind(), Kind::StatementTooLarge);
}

#[test]
fn too_many_statements_or_with_queries_are_refused() {
    assert!(on_small_stack("SELECT 1;".repeat(10_000)).is_ok());
    assert_eq!(on_small_stack("SELECT 1;".repeat(10_001)).unwrap_err().kind(), Kind::StatementTooLarge);
    let with = |count: usize| {
        let queries: Vec<_> = (0..count).map(|n| format!("a{n} AS (SELECT 1)")).collect();
        format!("WITH {} SELECT 1", queries.join(","))
    };
    assert!(on_small_stack(with(500)).is_ok());
    assert_eq!(on_small_stack(with(501)).unwrap_err().kind(), Kind::StatementTooLarge);
}

#[test]
fn a_zero_byte_is_refused() {
    assert_eq!(judge("SELECT 1\0; SET ROLE admin").unwrap_err().kind(), Kind::Syntax);
}

#[test]
fn bytes_that_are_no_utf8_in_escapes_and_cut_names_do_no_harm() {
    for sql in ["SELECT E'\\xff'", "SELECT E'\\xc3\\x28'", "SELECT U&'\\D800'", "SELECT E'\\000'"] {
        assert_eq!(judge(sql).unwrap_err().kind(), Kind::Syntax, "{sql}");
    }
    for name in ["ä".repeat(40), format!("a{}", "ä".repeat(40)), "€".repeat(30), format!("ab{}", "𝄞".repeat(30))]
    {
        assert!(judge(&format!("SELECT \"{name}\" FROM \"{name}\" AS {name}")).is_ok(), "{name}");
    }
}

#[test]
fn what_does_not_parse_is_told_in_postgres_own_words_with_the_place() {
    let place = |sql: &str| {
        let refusal = judge(sql).unwrap_err();
        assert_eq!(refusal.kind(), Kind::Syntax, "{sql}");
        (refusal.message().to_owned(), refusal.position())
    };
    assert_eq!(place("SELEC 1"), ("syntax error at or near \"SELEC\"".to_owned(), Some(1)));
    assert_eq!(place("SELECT 'ä' FROM FROM t"), ("syntax error at or near \"FROM\"".to_owned(), Some(17)));
    assert_eq!(place("SELECT 1 +"), ("syntax error at end of input".to_owned(), Some(11)));
    let unterminated = place("SELECT 'abc");
    assert_eq!(unterminated, ("unterminated quoted string at or near \"'abc\"".to_owned(), Some(8)));
}

#[test]
fn a_refusal_points_at_the_call_or_the_relation() {
    assert_eq!(judge("SELECT 'ä', pg_cancel_backend(1)").unwrap_err().position(), Some(13));
    assert_eq!(judge("SELECT * FROM pg_locks").unwrap_err().position(), Some(15));
}

#[test]
fn a_text_of_too_many_parts_is_refused() {
    let guard = Guard::new(&GuardPolicy::default(), &[], 16 << 20);
    let sql = format!("SELECT {}1", "f(),".repeat(1_000_100));
    let refusal = guard.judge(&sql, &rights(&guard, "nobody")).unwrap_err();
    assert_eq!(refusal.kind(), Kind::StatementTooLarge, "{refusal}");
}

#[test]
fn a_panic_below_becomes_a_refusal() {
    let refusal = crate::guard::parse::without_panic(|| panic!("the binding met what it does not know")).unwrap_err();
    assert_eq!(refusal.kind(), Kind::NotSupported);
}

#[test]
fn a_text_that_is_too_long_is_not_recognized_by_a_shorter_one() {
    let (short, long) = ("SELECT id FROM orders WHERE note = 'x'", "x".repeat(1000));
    let guard = guard_of(1000);
    let rights = rights(&guard, "developer");
    assert!(guard.judge(short, &rights).is_ok() && guard.recall(short, &rights).is_ok());
    assert!(guard.recall(&short.replace("'x'", "'other'"), &rights).is_ok(), "values do not matter");
    let long = short.replace("'x'", &format!("'{long}'"));
    assert!(guard.recall(&long, &rights).is_err());
    assert_eq!(guard.judge(&long, &rights).unwrap_err().kind(), Kind::StatementTooLarge);
}
