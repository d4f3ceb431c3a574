//! The guard's own no: a refusal with a place in the tree, turned into the client's words at the end.

use std::borrow::Cow;

use crate::refusal::{Kind, Refusal};

/// A no, on its way out of the tree.
#[derive(Debug)]
pub(super) struct No {
    kind: Kind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    /// Bytes from the start of the text.
    location: Option<usize>,
}

/// What rooms of the guard answer.
pub(super) type Answer<T = ()> = Result<T, No>;

impl No {
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), hint: None, location: None }
    }

    /// 42501: the session may not do that.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Forbidden, message)
    }

    /// 0A000: nobody can do that through the proxy.
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::NotSupported, message)
    }

    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place, as the parser counts it (bytes; negative where it does not know).
    pub fn at(mut self, location: i32) -> Self {
        self.location = self.location.or(usize::try_from(location).ok());
        self
    }

    /// The client's words; the place counted in characters of `sql` from 1, as PostgreSQL does.
    pub fn into_refusal(self, sql: &str) -> Refusal {
        let mut refusal = Refusal::new(self.kind, self.message);
        if let Some(hint) = self.hint {
            refusal = refusal.with_hint(hint);
        }
        match self.location.and_then(|bytes| position(sql, bytes)) {
            Some(position) => refusal.with_position(position),
            None => refusal,
        }
    }
}

/// Turns an offset in bytes into a position in characters, from 1.
pub(super) fn position(sql: &str, bytes: usize) -> Option<u32> {
    let before = sql.get(..bytes)?;
    u32::try_from(before.chars().count()).ok()?.checked_add(1)
}
