//! Seals: how the proxy proves to a database that a context comes from it (policies/sql/context_guarded.sql and _sealed.sql).
//!
//! HMAC-SHA256 (RFC 2104) over netstrings, so that no field can run into the next. Each shard has a key of its own, derived
//! from the key file: whoever reads one database's key can seal for no other.

use std::fmt::{self, Write as _};

use aws_lc_rs::hmac;

/// The least a key may have, in bytes.
const KEY_BYTES_MIN: usize = 32;
/// Keys in a file: the one in use, and one to come or to go.
const KEYS_MAX: usize = 2;

/// Where the context lies, and so what it takes to change it (policies/sql).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// In ordinary settings, believed as they are.
    Plain,
    /// In a setting that the shared role cannot write; entered once per hand-over.
    Guarded,
    /// In ordinary settings, believed under a seal that every statement checks.
    Sealed,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Guarded, Self::Sealed];

    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Guarded => "guarded",
            Self::Sealed => "sealed",
        }
    }

    /// The form of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.as_str() == word)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a key file will not do. Never says anything of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Not `number hexadecimal-digits`.
    #[error("line {0}: not a key (a number from 1 to 32767, a blank, and at least 64 hexadecimal digits)")]
    Line(usize),
    /// The same number twice.
    #[error("line {0}: the number of an earlier key")]
    Twice(usize),
    /// None, or too many.
    #[error("{0} keys (one, or two while one replaces the other)")]
    Count(usize),
}

/// The keys of a key file: the first seals; both are valid in the databases, so that one can replace the other.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile(Vec<(u16, Vec<u8>)>);

impl KeyFile {
    /// Reads lines of `number hexadecimal-digits`; empty ones and those with `#` in front mean nothing.
    ///
    /// # Errors
    /// The first line that is no key; more than two keys, or none.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let mut keys: Vec<(u16, Vec<u8>)> = Vec::new();
        for (nth, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) = key_of(line).ok_or(KeyFault::Line(nth + 1))?;
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(KeyFault::Twice(nth + 1));
            }
            keys.push((id, key));
        }
        if !(1..=KEYS_MAX).contains(&keys.len()) {
            return Err(KeyFault::Count(keys.len()));
        }
        Ok(Self(keys))
    }

    /// The keys of one shard, the one that seals first: what its database is to hold, and what the proxy seals with.
    pub fn of_shard(&self, shard: &str) -> Vec<ShardKey> {
        let mut label = String::new();
        push_netstring(&mut label, "key1");
        push_netstring(&mut label, shard);
        let derive = |(id, master): &(u16, Vec<u8>)| {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, master), label.as_bytes());
            ShardKey { id: *id, bytes: tag.as_ref().to_vec() }
        };
        self.0.iter().map(derive).collect()
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn key_of(line: &str) -> Option<(u16, Vec<u8>)> {
    let (id, digits) = line.split_once(char::is_whitespace)?;
    let id = id.parse::<u16>().ok().filter(|id| (1..=32_767).contains(id))?;
    let digits = digits.trim().as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    let key: Vec<u8> = digits.chunks(2).map(pair).collect::<Option<_>>()?;
    (is_hex && key.len() >= KEY_BYTES_MIN).then_some((id, key))
}

/// One key of one shard.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardKey {
    id: u16,
    bytes: Vec<u8>,
}

impl fmt::Debug for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardKey({}, ***)", self.id)
    }
}

/// Who a context says that a session is; the parts that a seal covers. Empty texts where there is nothing to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// The organization; empty: none, and no row is seen.
    pub organization: &'a str,
    /// The user.
    pub user: &'a str,
    /// The project.
    pub project: &'a str,
    /// The roles, joined by commas.
    pub roles: &'a str,
    /// The permissions, joined by commas.
    pub permissions: &'a str,
}

impl<'a> Who<'a> {
    fn fields(self) -> [&'a str; 5] {
        [self.organization, self.user, self.project, self.roles, self.permissions]
    }
}

/// What binds an entry to one server connection and one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bond<'a> {
    /// The server process.
    pub pid: i32,
    /// What `partywall.hello()` gave.
    pub nonce: &'a str,
    /// Higher than that of any entry before it on this connection.
    pub generation: u64,
    /// Until when it may be used: seconds since 1970 by the server's clock.
    pub expiry_s: i64,
}

impl ShardKey {
    /// Its number, which a seal names.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The key itself as hexadecimal digits, for the database that is to hold it. Must not be logged.
    pub fn expose_hex(&self) -> String {
        hex(&self.bytes)
    }

    /// The statement that puts `who` in force on the connection of `bond`, for the guarded form.
    pub fn entry(&self, who: Who<'_>, bond: Bond<'_>) -> String {
        let Bond { pid, nonce, generation, expiry_s } = bond;
        let (pid, rising, expiry) = (pid.to_string(), generation.to_string(), expiry_s.to_string());
        let seal = self.seal("enter1", who, &[&pid, nonce, &rising, &expiry], expiry_s);
        let mut sql = "SELECT partywall.enter(ARRAY[".to_owned();
        for (nth, field) in who.fields().into_iter().enumerate() {
            if nth > 0 {
                sql.push(',');
            }
            super::push_literal(&mut sql, field);
        }
        // Writing to a String cannot fail.
        let _ = write!(sql, "]::pg_catalog.text[],{generation},'{seal}')");
        sql
    }

    /// The value of `partywall.seal` under which the server process `pid` believes `who`, for the sealed form.
    pub fn standing_seal(&self, who: Who<'_>, pid: i32, expiry_s: i64) -> String {
        self.seal("seal1", who, &[&pid.to_string(), &expiry_s.to_string()], expiry_s)
    }

    fn seal(&self, purpose: &str, who: Who<'_>, rest: &[&str], expiry_s: i64) -> String {
        let mut message = String::new();
        push_netstring(&mut message, purpose);
        for field in who.fields().iter().chain(rest) {
            // As `push_literal` sends it: a NUL cannot stand in a text of PostgreSQL's.
            push_netstring(&mut message, &field.replace('\0', ""));
        }
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.bytes), message.as_bytes());
        format!("{}.{expiry_s}.{}", self.id, hex(tag.as_ref()))
    }
}

/// `length:bytes,` (netstrings): the length is counted in bytes.
fn push_netstring(out: &mut String, field: &str) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{}:{field},", field.len());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";

    fn file(text: &str) -> Result<KeyFile, KeyFault> {
        KeyFile::parse(text)
    }

    fn key() -> ShardKey {
        file(&format!("7 {KEY}")).expect("a key").of_shard("shard_1").remove(0)
    }

    #[test]
    fn a_key_file_holds_one_key_or_two() {
        let two = file(&format!("# the new one\n2 {KEY}\n\n1 {KEY}00\n")).expect("two keys");
        let ids: Vec<u16> = two.of_shard("a").iter().map(ShardKey::id).collect();
        assert_eq!(ids, [2, 1]);
        assert_eq!(file(""), Err(KeyFault::Count(0)));
        assert_eq!(file(&format!("1 {KEY}\n2 {KEY}\n3 {KEY}")), Err(KeyFault::Count(3)));
        assert_eq!(file(&format!("1 {KEY}\n1 {KEY}")), Err(KeyFault::Twice(2)));
        for bad in ["1", "x 00", &format!("0 {KEY}"), &format!("40000 {KEY}"), &format!("1 {}", &KEY[2..])] {
            assert_eq!(file(bad), Err(KeyFault::Line(1)), "{bad}");
        }
        assert_eq!(file(&format!("1 {KEY}+1")), Err(KeyFault::Line(1)));
    }

    #[test]
    fn each_shard_has_a_key_of_its_own() {
        let keys = file(&format!("7 {KEY}")).expect("a key");
        assert_ne!(keys.of_shard("shard_1"), keys.of_shard("shard_2"));
        assert_ne!(keys.of_shard("shard_1")[0].expose_hex(), KEY);
        assert_eq!(keys.of_shard("shard_1"), keys.of_shard("shard_1"));
    }

    #[test]
    fn keys_do_not_print_themselves() {
        let keys = file(&format!("7 {KEY}")).expect("a key");
        assert_eq!(format!("{keys:?} {:?}", key()), "*** ShardKey(7, ***)");
    }

    #[test]
    fn every_part_of_an_entry_is_under_its_seal() {
        let who = Who { organization: "acme", user: "ann", project: "p", roles: "r", permissions: "m" };
        let bond = Bond { pid: 1, nonce: "n", generation: 1, expiry_s: 10 };
        let mac = |who, bond| key().entry(who, bond).rsplit('.').next().map(str::to_owned);
        let whos = [
            Who { organization: "globex", ..who },
            Who { user: "bob", ..who },
            Who { project: "", ..who },
            Who { roles: "admin", ..who },
            Who { permissions: "m,", ..who },
            // A field cannot run into the next.
            Who { organization: "acme3:ann", user: "", ..who },
        ];
        for other in whos {
            assert_ne!(mac(other, bond), mac(who, bond), "{other:?}");
        }
        let bonds = [
            Bond { pid: 2, ..bond },
            Bond { nonce: "m", ..bond },
            Bond { generation: 2, ..bond },
            Bond { expiry_s: 11, ..bond },
        ];
        for other in bonds {
            assert_ne!(mac(who, other), mac(who, bond), "{other:?}");
        }
        assert_eq!(mac(who, bond), mac(who, bond));
        assert_ne!(key().standing_seal(who, 1, 10), key().standing_seal(who, 2, 10));
    }

    #[test]
    fn an_entry_quotes_who_it_is_for() {
        let who = Who { organization: "acme", user: "o'hara\0", ..Who::default() };
        let sql = key().entry(who, Bond { pid: 1, nonce: "n", generation: 3, expiry_s: 10 });
        let start = "SELECT partywall.enter(ARRAY['acme','o''hara','','','']::pg_catalog.text[],3,'7.10.";
        assert!(sql.starts_with(start) && sql.len() == start.len() + 64 + 2, "{sql}");
    }

    #[test]
    fn the_forms_have_words() {
        for form in Form::ALL {
            assert_eq!(Form::from_word(form.as_str()), Some(form));
        }
        assert_eq!(Form::from_word("auto"), None);
    }
}
