//! Calls of PostgreSQL's advisory locks, written anew as calls of the organization's own.
//!
//! Nothing is guessed: the parser says where each call stands, only a name that is written plainly there is touched, and
//! the guard judges the new text again before it is sent. What a search_path says is of no matter.

use super::relations::LOCKS_SCHEMA;
use crate::refusal::{Kind, Refusal};

/// What may stand before the name.
const SYSTEM: &str = "pg_catalog.";

/// `sql` with the schema of the private locks before each name that stands at one of `places`, in bytes.
///
/// Refused where something else stands there than the name of an advisory lock function, with or without `pg_catalog.`.
pub(super) fn redirected(sql: &str, mut places: Vec<usize>) -> Result<String, Refusal> {
    places.sort_unstable();
    places.dedup();
    let mut text = String::with_capacity(sql.len() + places.len() * (LOCKS_SCHEMA.len() + 1));
    let mut done = 0;
    for place in places {
        let (before, rest) = sql.split_at_checked(place).ok_or_else(unclear)?;
        let name = rest.get(..SYSTEM.len()).filter(|schema| schema.eq_ignore_ascii_case(SYSTEM));
        let start = place + name.map_or(0, str::len);
        if !is_lock(&sql[start..]) {
            return Err(unclear());
        }
        text.push_str(before.get(done..).ok_or_else(unclear)?);
        text.push_str(LOCKS_SCHEMA);
        text.push('.');
        done = start;
    }
    text.push_str(&sql[done..]);
    Ok(text)
}

/// Whether a text begins with the name of such a function; its end is where no name goes on.
fn is_lock(text: &str) -> bool {
    let text = text.strip_prefix('"').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let name = text[..end].to_ascii_lowercase();
    name.strip_prefix("pg_").is_some_and(|name| name.contains("advisory_"))
}

/// A call that cannot be found in the text.
pub(super) fn unclear() -> Refusal {
    Refusal::new(Kind::Forbidden, "the guard cannot tell this call of an advisory lock from others")
        .with_hint("Write the function's name plainly: pg_advisory_lock(…).")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_written_before_each_name() {
        let sql = "SELECT pg_advisory_lock(1), PG_CATALOG.Pg_Try_Advisory_Lock(2), \"pg_advisory_unlock\"(3)";
        let places = vec![sql.find("\"pg_").unwrap(), sql.find("pg_").unwrap(), sql.find("PG_").unwrap()];
        let expected = "SELECT partywall_locks.pg_advisory_lock(1), partywall_locks.Pg_Try_Advisory_Lock(2), \
                        partywall_locks.\"pg_advisory_unlock\"(3)";
        assert_eq!(redirected(sql, places).unwrap(), expected);
    }

    #[test]
    fn what_is_not_plainly_such_a_name_is_refused() {
        let odd =
            ["U&\"pg\\005fadvisory_lock\"(1)", "pg_catalog . pg_advisory_lock(1)", "\u{e9}pg_advisory_lock(1)", "f(1)"];
        for sql in odd {
            assert!(redirected(sql, vec![0]).is_err(), "{sql}");
        }
        assert!(redirected("\u{e9}", vec![1]).is_err());
        assert!(redirected("f", vec![9]).is_err());
    }
}
