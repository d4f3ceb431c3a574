//! Names that must not be confused with one another: organizations, users, shards, tiers, sessions.
//!
//! Each is a newtype over a shared string (or a number), cheap to clone, and checked where it is made.

mod spelling;

use std::fmt;
use std::sync::Arc;

/// The longest organization name, in bytes, that a token or a file may carry.
pub const ORG_ID_BYTES_MAX: usize = 64;

/// Why a text cannot be an [`OrgId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadOrgId {
    /// Nothing at all.
    #[error("an organization name may not be empty")]
    Empty,
    /// More than [`ORG_ID_BYTES_MAX`] bytes.
    #[error("an organization name may have at most {ORG_ID_BYTES_MAX} bytes")]
    TooLong,
    /// Not a UUID, where organizations are.
    #[error("an organization is a UUID here (auth.organization_type)")]
    NotUuid,
    /// Not a whole number, where organizations are.
    #[error("an organization is a whole number of 64 bits here (auth.organization_type)")]
    NotBigint,
    /// A byte outside the alphabet.
    #[error("an organization name is made of ASCII letters, digits, '-', '_', '.' and ':'")]
    Alphabet,
}

/// An organization: the tenant, the party kept apart.
///
/// Made of 1 to [`ORG_ID_BYTES_MAX`] ASCII letters, digits, `-`, `_`, `.` and `:` (so names like `org_12345` and
/// UUIDs), and of nothing that could mean something to SQL, a log or a label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrgId(Arc<str>);

impl OrgId {
    /// Checks `text` and makes it an organization's name.
    pub fn new(text: &str) -> Result<Self, BadOrgId> {
        if text.is_empty() {
            return Err(BadOrgId::Empty);
        }
        if text.len() > ORG_ID_BYTES_MAX {
            return Err(BadOrgId::TooLong);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if !text.bytes().all(allowed) {
            return Err(BadOrgId::Alphabet);
        }
        Ok(Self(Arc::from(text)))
    }

    /// Checks `text` and makes it an organization's name as a column of type `kind` writes it, so that all spellings that
    /// the database takes for one are one here.
    pub fn of_type(text: &str, kind: OrgIdType) -> Result<Self, BadOrgId> {
        let org = Self::new(text)?;
        Ok(match kind {
            OrgIdType::Text => org,
            OrgIdType::Citext => Self(text.to_ascii_lowercase().into()),
            OrgIdType::Uuid => Self(spelling::uuid(text).ok_or(BadOrgId::NotUuid)?.into()),
            OrgIdType::Bigint => {
                let number = spelling::plain_integer(text).and_then(|number| number.parse::<i64>().ok());
                Self(number.ok_or(BadOrgId::NotBigint)?.to_string().into())
            }
            // 36 characters in that form are hardly ever anything else.
            OrgIdType::Auto if spelling::is_hyphenated_uuid(text) => Self(text.to_ascii_lowercase().into()),
            OrgIdType::Auto => org,
        })
    }

    /// What all spellings have in common that a column may take for one: the same key, perhaps the same organization.
    ///
    /// Where the type of the columns is known, a name is the only spelling of its organization. Where it is not
    /// (`Auto`), this is as wide as PostgreSQL's `uuid`, number types and `citext` together.
    pub fn spelling_key(&self, kind: OrgIdType) -> String {
        match kind {
            OrgIdType::Auto => spelling::widest(&self.0),
            OrgIdType::Text | OrgIdType::Citext | OrgIdType::Uuid | OrgIdType::Bigint => self.0.to_string(),
        }
    }

    /// Whether a column of a number type or of `uuid` would write this name in another way, so that it may be one of
    /// several spellings. False where the type of the columns is known.
    pub fn is_odd_spelling(&self, kind: OrgIdType) -> bool {
        kind == OrgIdType::Auto && spelling::canonical(&self.0).is_some_and(|canonical| canonical != *self.0)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The type of the columns that hold organizations: what decides which spellings are one organization.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OrgIdType {
    /// Not said. A hyphenated UUID is one in upper and lower case; of what could be several spellings of one number or
    /// UUID only the usual one is admitted.
    #[default]
    Auto,
    /// `text`, `varchar`: every byte counts.
    Text,
    /// `citext`, or a collation that does not tell cases apart.
    Citext,
    /// `uuid`.
    Uuid,
    /// `smallint`, `integer`, `bigint`, or `numeric` with whole numbers.
    Bigint,
}

impl fmt::Display for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OrgId({})", self.0)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Takes a name that its source (the configuration, a verified token) has already bounded.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A person or service inside an organization, as the token names it.
    UserId
);
name!(
    /// A shard: one Postgres database that holds some organizations.
    ShardName
);
name!(
    /// A tier: what an organization may use.
    TierName
);

/// A session's number, unique in this process; shown to operators and used as the process id that clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organization_names_have_a_bounded_alphabet() {
        for good in ["org_1", "a", "3f0c9a52-0000-4000-8000-000000000000", "acme.eu:1", &"x".repeat(64)] {
            assert_eq!(OrgId::new(good).map(|org| org.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(OrgId::new(""), Err(BadOrgId::Empty));
        assert_eq!(OrgId::new(&"x".repeat(65)), Err(BadOrgId::TooLong));
        for hostile in ["a b", "a'", "a\"", "a;", "a\0", "a\n", "ä", "a\\", "$a", "a/b", "a%"] {
            assert_eq!(OrgId::new(hostile), Err(BadOrgId::Alphabet), "{hostile:?}");
        }
    }
}
