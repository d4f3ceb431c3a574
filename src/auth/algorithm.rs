//! Signature algorithms by their names in tokens (RFC 7518, section 3.1; RFC 8037; RFC 9864).

use jsonwebtoken::Algorithm as Known;

/// An algorithm that we verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// One that the library knows.
    Known(Known),
    /// ECDSA on P-521 with SHA-512, which it does not.
    Es512,
}

impl Algorithm {
    /// The algorithm of that name, if it is one that we verify.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "Ed25519" => Some(Self::Known(Known::EdDSA)),
            "ES512" => Some(Self::Es512),
            other => other.parse().ok().map(Self::Known),
        }
    }

    /// Its name in a token's header.
    pub(super) fn name(self) -> String {
        match self {
            Self::Known(known) => format!("{known:?}"),
            Self::Es512 => "ES512".to_owned(),
        }
    }
}
