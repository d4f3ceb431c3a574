//! What is sent in place of a text: calls of PostgreSQL's advisory locks as calls of the organization's own, numbers above
//! the tier's limit as that limit, and numbers that could be read in two ways as the one that was reckoned.
//!
//! Nothing is guessed: the parser says where each stands, only what is written plainly there is touched, and the guard
//! judges the new text again before it is sent. What a search_path says is of no matter.

use super::relations::LOCKS_SCHEMA;
use crate::refusal::{Kind, Refusal};

/// What may stand before the name of a function.
const SYSTEM: &str = "pg_catalog.";

/// Something that cannot be sent as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edit {
    /// Where it begins, in bytes.
    pub place: usize,
    /// What is to stand there.
    pub to: To,
}

/// What takes the place of what the client wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum To {
    /// Of the name of a function: that of the schema of the private locks.
    PrivateLock,
    /// Of a constant: this number.
    Number(u64),
}

/// `sql` with all `edits` done; refused where something else stands there than what they are for.
pub(super) fn rewritten(sql: &str, mut edits: Vec<Edit>) -> Result<String, Refusal> {
    edits.sort_unstable();
    edits.dedup();
    let mut text = String::with_capacity(sql.len() + edits.len() * (LOCKS_SCHEMA.len() + 1));
    let mut done = 0;
    for Edit { place, to } in edits {
        let rest = sql.get(place..).ok_or_else(unclear)?;
        text.push_str(sql.get(done..place).ok_or_else(unclear)?);
        match to {
            To::PrivateLock => {
                text.push_str(LOCKS_SCHEMA);
                text.push('.');
                done = place + before_lock(rest).ok_or_else(unclear)?;
            }
            To::Number(number) => {
                text.push_str(&format!("'{number}'"));
                done = place + constant(rest).ok_or_else(unclear)?;
            }
        }
    }
    text.push_str(&sql[done..]);
    Ok(text)
}

/// How long the schema before the name of an advisory lock function is, where a text begins with one, or without.
fn before_lock(text: &str) -> Option<usize> {
    let schema = text.get(..SYSTEM.len()).filter(|schema| schema.eq_ignore_ascii_case(SYSTEM)).map_or(0, str::len);
    let name = &text[schema..];
    let name = name.strip_prefix('"').unwrap_or(name);
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
    let name = name[..end].to_ascii_lowercase();
    (name.starts_with("pg_") && name.contains("advisory_")).then_some(schema)
}

/// How long the constant is that a text begins with: a bare number, or letters and digits in quotes.
fn constant(text: &str) -> Option<usize> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ' ');
    match text.chars().next()? {
        quote @ ('\'' | '"') => {
            let end = text[1..].find(quote)? + 1;
            text[1..end].chars().all(plain).then_some(end + 1)
        }
        _ => {
            let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(text.len());
            let number = |c: char| c.is_ascii_digit() || c == '.';
            (end > 0 && text[..end].chars().all(number)).then_some(end)
        }
    }
}

/// Something that cannot be found in the text, or that is not gone when it has been written anew.
pub(super) fn unclear() -> Refusal {
    Refusal::new(Kind::Forbidden, "the guard cannot tell where an advisory lock or the value of a setting is written")
        .with_hint("Write it plainly: pg_advisory_lock(…), SET statement_timeout = '10s'.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(place: usize) -> Edit {
        Edit { place, to: To::PrivateLock }
    }

    #[test]
    fn the_schema_is_written_before_each_name() {
        let sql = "SELECT pg_advisory_lock(1), PG_CATALOG.Pg_Try_Advisory_Lock(2), \"pg_advisory_unlock\"(3)";
        let edits = ["\"pg_", "pg_", "PG_"].map(|word| lock(sql.find(word).unwrap())).to_vec();
        let expected = "SELECT partywall_locks.pg_advisory_lock(1), partywall_locks.Pg_Try_Advisory_Lock(2), \
                        partywall_locks.\"pg_advisory_unlock\"(3)";
        assert_eq!(rewritten(sql, edits).unwrap(), expected);
    }

    #[test]
    fn what_is_not_plainly_such_a_name_is_refused() {
        let odd =
            ["U&\"pg\\005fadvisory_lock\"(1)", "pg_catalog . pg_advisory_lock(1)", "\u{e9}pg_advisory_lock(1)", "f(1)"];
        for sql in odd {
            assert!(rewritten(sql, vec![lock(0)]).is_err(), "{sql}");
        }
        assert!(rewritten("\u{e9}", vec![lock(1)]).is_err());
        assert!(rewritten("f", vec![lock(9)]).is_err());
    }

    #[test]
    fn a_constant_is_replaced_whole_or_not_at_all() {
        let limited = |sql: &str| rewritten(sql, vec![Edit { place: 2, to: To::Number(7) }]).ok();
        assert_eq!(limited("= 0").as_deref(), Some("= '7'"));
        assert_eq!(limited("= 1.5;").as_deref(), Some("= '7';"));
        assert_eq!(limited("= '2 h' -- x").as_deref(), Some("= '7' -- x"));
        assert_eq!(limited("= \"0\"").as_deref(), Some("= '7'"));
        for odd in ["= E'0'", "= $$0$$", "= '0", "= '\\0'", "= 1e9", "= x", "= ", "= -1", "= U&'0'"] {
            assert_eq!(limited(odd), None, "{odd}");
        }
    }
}
