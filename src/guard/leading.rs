//! How a text begins: whether its first statement is one that a server takes in a failed transaction.

/// Whether the first statement of `sql` leaves a transaction or goes back within it: COMMIT, END, ROLLBACK (TO), ABORT,
/// PREPARE TRANSACTION. A server takes these alone in a failed transaction (postgres.c, `IsTransactionExitStmt`).
///
/// Reads no further than the second word, so that it can be asked of a text that the guard has refused; it decides only
/// which of two errors is heard.
pub fn leaves_transaction(sql: &str) -> bool {
    let (first, rest) = word(sql);
    let is = |found: &str, known: &str| found.eq_ignore_ascii_case(known);
    match first {
        _ if is(first, "prepare") => is(word(rest).0, "transaction"),
        _ => ["commit", "end", "rollback", "abort"].iter().any(|known| is(first, known)),
    }
}

/// The first word of `sql` behind white space, comments and empty statements, and what follows it.
fn word(sql: &str) -> (&str, &str) {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|space: char| space == ';' || space.is_ascii_whitespace() || space == '\x0b');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = behind_comment(rest);
        } else {
            let end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
            return rest.split_at(end);
        }
    }
}

/// What follows the comment at the front of `sql`; comments nest.
fn behind_comment(sql: &str) -> &str {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = sql.as_bytes();
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return &sql[at..];
                }
            }
            _ => at += 1,
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_begins_by_leaving_its_transaction_is_known() {
        let leaving = [
            "ROLLBACK",
            "rollback to a",
            " ;; /* a /* b */ -- */ End;x",
            "-- x\nCOMMIT and chain",
            "abort;",
            "PREPARE /* as */ TRANSACTION 'x'",
            "/*é*/commit",
        ];
        for sql in leaving {
            assert!(leaves_transaction(sql), "{sql}");
        }
        let staying = [
            "",
            "SELECT 1; ROLLBACK",
            "PREPARE s AS SELECT 1",
            "/* ROLLBACK",
            "-- ROLLBACK",
            "ends",
            "\"rollback\"",
            "/*/ROLLBACK",
            "RELEASE a",
            "BEGIN",
        ];
        for sql in staying {
            assert!(!leaves_transaction(sql), "{sql}");
        }
    }
}
