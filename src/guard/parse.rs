//! From text to tree: the bounds, PostgreSQL's own parser, and its errors in the client's words.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_raw_parse::{Error, ParseResult};

use super::no::position;
use crate::refusal::{Kind, Refusal};

/// Texts longer than this get no position with a syntax error: finding it costs further parses.
const POSITION_BYTES_MAX: usize = 4 << 10;
/// At most so many places are tried for the position of a syntax error.
const POSITION_TRIES_MAX: usize = 8;

/// In one run of operator characters, the most places from which PostgreSQL's scanner may read it again.
const RESCANS_MAX: usize = 64;

/// Refuses a text that is longer than `bytes_max`.
pub(super) fn check_length(sql: &str, bytes_max: usize) -> Result<(), Refusal> {
    if sql.len() <= bytes_max {
        return Ok(());
    }
    let message = format!("statement of {} bytes is longer than the {bytes_max} bytes that the guard reads", sql.len());
    Err(Refusal::new(Kind::StatementTooLarge, message).with_hint("Send the data with COPY, or in several statements."))
}

/// Parses a text, or says why not.
///
/// PostgreSQL's grammar keeps its own stack on the heap and refuses what is nested deeper than 10,000 levels.
pub(super) fn parse(sql: &str) -> Result<ParseResult, Refusal> {
    if sql.contains('\0') {
        return Err(Refusal::new(Kind::Syntax, "a statement may not contain a zero byte"));
    }
    if is_slow_to_scan(sql.as_bytes()) {
        let message = "the text holds a long run of operators or comments without a space";
        return Err(Refusal::new(Kind::StatementTooLarge, message)
            .with_hint("Put spaces between them; where they are data, send them as a parameter."));
    }
    pg_raw_parse::parse(sql).map_err(|error| refusal(sql, &error))
}

/// Runs `judge` on a tree. The binding panics where a tree is not what its headers promise; that must not end a thread
/// full of sessions, so it becomes a refusal.
pub(super) fn without_panic<T>(judge: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(judge)).map_err(|_| {
        Refusal::new(Kind::NotSupported, "the guard cannot read this statement").with_hint("Write it in another way.")
    })
}

/// Whether PostgreSQL's scanner would need time that grows with the square of the text's length, minutes for a megabyte.
///
/// An operator and the beginning of a comment match as many operator characters as there are, and give back what is too
/// much (scan.l, `operator` and `xcstart`): each `/*` and each `+` of a run reads the rest of it again. Whether the run
/// stands in a string is not asked: no data that is written as SQL holds so many of them side by side.
fn is_slow_to_scan(text: &[u8]) -> bool {
    let (mut rescans, mut before) = (0, 0);
    for &byte in text {
        if !b"~!@#^&|`?+-*/%<>=".contains(&byte) {
            rescans = 0;
        } else if byte == b'+' || (before, byte) == (b'/', b'*') {
            rescans += 1;
        }
        if rescans > RESCANS_MAX {
            return true;
        }
        before = byte;
    }
    false
}

fn refusal(sql: &str, error: &Error) -> Refusal {
    let message = match error {
        Error::Parse(error) => error.to_string(),
        Error::PgError(error) => error.to_string(),
        Error::StatementContainedNul(_) => "a statement may not contain a zero byte".to_owned(),
    };
    let exhausted = ["memory exhausted", "stack depth limit exceeded", "out of memory"];
    if exhausted.iter().any(|words| message.starts_with(words)) {
        return Refusal::new(Kind::StatementTooLarge, format!("statement is nested too deeply: {message}"));
    }
    let place = find(sql, &message);
    let refusal = Refusal::new(Kind::Syntax, message);
    match place.and_then(|bytes| position(sql, bytes)) {
        Some(position) => refusal.with_position(position),
        None => refusal,
    }
}

/// Where the parser stopped. The binding keeps the message but not the place, so look for it: the token that the
/// message names is the wrong one where the text cut off behind it fails with the same message.
fn find(sql: &str, message: &str) -> Option<usize> {
    if sql.len() > POSITION_BYTES_MAX {
        return None;
    }
    if message.ends_with("at end of input") {
        return Some(sql.len());
    }
    let (_, rest) = message.split_once(" at or near \"")?;
    let token = rest.strip_suffix('"').filter(|token| !token.is_empty())?;
    if sql.ends_with(token) && !sql[..sql.len() - token.len()].contains(token) {
        return Some(sql.len() - token.len());
    }
    let fails_there = |&place: &usize| match pg_raw_parse::parse(&sql[..place + token.len()]) {
        Err(Error::Parse(error)) => error.to_string() == message,
        Ok(_) | Err(Error::PgError(_) | Error::StatementContainedNul(_)) => false,
    };
    let places = sql.match_indices(token).map(|(place, _)| place);
    places.filter(|&place| is_whole(sql, place, token)).take(POSITION_TRIES_MAX).find(fails_there)
}

/// Whether `token` stands at `place` by itself, and not as a part of a longer word.
fn is_whole(sql: &str, place: usize, token: &str) -> bool {
    let in_word = |part: char| part.is_alphanumeric() || part == '_';
    let (before, after) = (&sql[..place], &sql[place + token.len()..]);
    !(token.starts_with(in_word) && before.ends_with(in_word) || token.ends_with(in_word) && after.starts_with(in_word))
}
