//! What a session sees of itself and of its server connection, and what it must never see of others.

use crate::support::raw::brief;
use crate::support::{Message, Raw};

/// Rows that the other organization has more than the one that attacks: a count over both tells itself.
pub const MORE_ROWS: usize = 7000;

/// Own context, settings, cursors, temporary objects, channels, transaction: one row each.
const SIGHT: &str = "
    SELECT min(org_id), max(org_id), min(body), max(body), count(*) FROM canary;
    SELECT partywall.org(), current_user, session_user, current_setting('role');
    SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
     WHERE source NOT IN ('default', 'configuration file', 'override', 'environment variable', 'command line')
       AND name NOT IN ('backtrace_functions', 'seed') AND name NOT LIKE 'transaction%';
    SELECT count(*) FROM pg_cursors WHERE name <> '';
    SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema();
    SELECT count(*) FROM pg_listening_channels();
    SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'),
           current_setting('transaction_deferrable'), now() = statement_timestamp();
    SELECT coalesce(current_setting('my.own', true), ''), coalesce(current_setting('my.other', true), '')";

/// Whether the values of sequences that somebody took are remembered.
const REMEMBERED: &str = "SELECT lastval()";

/// What a session sees, in short.
pub async fn of(raw: &mut Raw) -> String {
    let seen = raw.query(SIGHT).await;
    let remembered = raw.query(REMEMBERED).await;
    format!("{seen} {remembered}")
}

/// Own rows may change, but not whose they are.
pub fn without_count(sight: &str) -> String {
    let (rows, rest) = sight.split_once(')').unwrap_or((sight, ""));
    format!("{}){rest}", rows.rsplit_once(',').map_or(rows, |(rows, _)| rows))
}

/// Compares what `who` saw with what they see now: all of it where there is a `guard`; else only whose rows there are,
/// where none at all is well too.
pub fn compare(who: &str, guard: bool, before: &str, now: &str) -> Result<(), String> {
    let rows = |sight: &str| sight.split_once(')').map(|(rows, _)| rows.to_owned());
    let blind = now.starts_with("E(") || now.starts_with("T D(∅,∅,∅,∅");
    if before == now || !guard && (blind || rows(before) == rows(now)) {
        return Ok(());
    }
    let words = |sight: &str| sight.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (before, now) = (words(before), words(now));
    let news: Vec<_> = now.iter().filter(|word| !before.contains(word)).collect();
    let olds: Vec<_> = before.iter().filter(|word| !now.contains(word)).collect();
    Err(format!("{who} saw {olds:?} and sees now {news:?}"))
}

/// Says what in these bytes only the other organization may see: values of its rows; with a `guard` also texts of its
/// statements.
pub fn foreign(messages: &[Message], guard: bool) -> Result<(), String> {
    for message in messages {
        if guard && message.body.windows(9).any(|window| window == b"trace of ") {
            return Err(format!("a foreign statement: {}", brief(messages)));
        }
        if let Some(words) = leak(&message.body) {
            return Err(format!("a foreign canary ({words}): {}", brief(messages)));
        }
        let all = [400, 300, 100].map(|rows| (rows + MORE_ROWS).to_string());
        if message.tag == b'D'
            && let Some(count) = message.columns().into_iter().find(|column| all.contains(column))
        {
            return Err(format!("a count over foreign rows: {count}"));
        }
    }
    Ok(())
}

/// A canary that is not acme's: as text, in hexadecimal digits, or in base 64.
fn leak(bytes: &[u8]) -> Option<&'static str> {
    let holds = |start: &[u8], own: &[u8]| {
        let places = bytes.windows(start.len()).enumerate().filter(|(_, window)| window.eq_ignore_ascii_case(start));
        places.map(|(at, _)| &bytes[at + start.len()..]).any(|rest| !rest.starts_with(own))
    };
    [
        ("text", &b"canary of "[..], &b"acme"[..]),
        ("hexadecimal", b"63616e617279206f6620", b"61636d65"),
        ("base 64", b"Y2FuYXJ5IG9mI", b"GFjbW"),
    ]
    .into_iter()
    .find(|(_, start, own)| holds(start, own))
    .map(|(words, _, _)| words)
}
