//! Statements made to hurt by their size or depth: an answer or a refusal, the session goes on, and others with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::assert_no_process_died;
use crate::support::{Proxy, Shard, Wire, scaled};

/// The longest text that the guard reads, unless it is told otherwise.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// What is nested or repeated, `count` times.
fn texts(count: usize) -> Vec<String> {
    let nested = [
        ("(", "1", ")"),
        ("(SELECT ", "1", ")"),
        ("ARRAY[", "1", "]"),
        ("CASE WHEN true THEN ", "1", " END"),
        ("abs(", "1", ")"),
        ("EXISTS (SELECT ", "1", ")"),
        ("NOT ", "true", ""),
        ("- ", "1", ""),
        ("+", "1", ""),
        ("", "1", "::int"),
        ("", "'{1}'::int[]", "[1]"),
        ("", "1", " IS NULL"),
        ("1+", "1", ""),
        ("/*", "*/ 1", ""),
        ("/*", "1", "*/"),
        ("/**/", "1", ""),
        ("$a$ $a$ || ", "'a'", ""),
        ("1, ", "1", ""),
        ("1; SELECT ", "1", ""),
        ("", "1", " UNION ALL SELECT 1"),
        ("", "1 FROM pg_class", " JOIN pg_class c ON true"),
        ("1 FROM (SELECT ", "1", ") x"),
        ("", "1 WHERE true", " OR 1 = 2"),
    ];
    let text = |(open, middle, close): &(&str, &str, &str)| {
        format!("SELECT {}{middle}{}", open.repeat(count), close.repeat(count))
    };
    nested.iter().map(text).collect()
}

#[tokio::test]
async fn a_statement_of_any_depth_or_length_is_answered_or_refused_and_others_go_on() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(2).start().await;
    let mut acme = proxy.raw("acme").await;
    let mut globex = proxy.raw("globex").await;
    let done = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&done);
    let neighbour = tokio::spawn(async move {
        while !over.load(Ordering::Relaxed) {
            assert_eq!(globex.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
        }
    });
    let long = |bytes: usize| format!("SELECT length('{}')", "x".repeat(bytes - "SELECT length('')".len()));
    let mut all = texts(scaled(100_000));
    all.push(format!("VALUES {}(1, 'x')", "(1, 'abc'),".repeat(scaled(100_000))));
    all.push(long(STATEMENT_BYTES_MAX - 1));
    for text in &all {
        for wire in [Wire::new().query(text), Wire::new().parse("", text).bind("", "", &[]).execute("", 0).sync()] {
            let heard = acme.converse(wire, 1).await;
            assert!(heard.ends_with("ZI"), "{}: {}", &text[..40], &heard[..heard.len().min(200)]);
        }
        assert_eq!(acme.query("SELECT 2").await, "T D(2) C(SELECT 1) ZI", "{}", &text[..40]);
    }
    for bytes in [STATEMENT_BYTES_MAX + 1, 64 << 20] {
        assert_eq!(acme.query(&long(bytes)).await, "E(54000) ZI", "{bytes} bytes");
        let wire = Wire::new().parse("", &long(bytes)).sync();
        assert_eq!(acme.converse(wire, 1).await, "E(54000) ZI", "{bytes} bytes");
    }
    done.store(true, Ordering::Relaxed);
    neighbour.await.expect("the other organization was answered all the time");
    assert_no_process_died(&shard, "at the end");
}
