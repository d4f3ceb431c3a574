//! Why a token is not accepted: a closed list, in the operator's words.
//!
//! The client hears one sentence for all of them; none of these words carries anything of the token but a claim's name.

use std::borrow::Cow;

use crate::ids::{BadOrgId, OrgId};
use crate::refusal::{Kind, Refusal};

/// What is wrong with a token. Closed: one variant per check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// More bytes than [`super::TOKEN_BYTES_MAX`].
    #[error("the token is longer than {} bytes", super::TOKEN_BYTES_MAX)]
    TooLong,
    /// Not three parts of base64url with JSON objects in the first two (RFC 7515, section 3.1).
    #[error("the password is not a token (a JWT in compact form)")]
    Malformed,
    /// The header demands an extension; we know none (RFC 7515, section 4.1.11).
    #[error("the token's header demands an extension (crit)")]
    CriticalExtension,
    /// `alg` is missing, `none`, or not one that we verify.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// No key has the token's `kid`; a fresher key set might.
    #[error("no key has the token's key id (kid)")]
    UnknownKey,
    /// There are keys, but none for this algorithm.
    #[error("no key is for the token's algorithm")]
    NoKeyForAlgorithm,
    /// No key that could have signed it has.
    #[error("the token's signature is wrong")]
    Signature,
    /// No `exp`.
    #[error("the token has no exp")]
    NoExpiry,
    /// A time that is not a number, or not one in seconds.
    #[error("the token's {0} is not a time in seconds")]
    BadTime(&'static str),
    /// `exp` and the leeway are over.
    #[error("the token is expired")]
    Expired,
    /// `nbf` or `iat` lies in the future.
    #[error("the token is not yet valid ({0})")]
    NotYetValid(&'static str),
    /// `iss` is not the configured one.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` names none of the configured ones.
    #[error("the token is for another audience")]
    Audience,
    /// The organization's claim is missing.
    #[error("the token names no organization")]
    NoOrganization,
    /// The organization's claim cannot be an [`OrgId`].
    #[error("the token's organization is not acceptable: {0}")]
    BadOrganization(BadOrgId),
    /// The key that signed it is bound to other organizations.
    #[error("the token's key may not speak for the token's organization")]
    ForeignOrganization,
    /// The token speaks for several organizations, and the database names none of them.
    #[error("the token names several organizations, and the database's name chooses none of them")]
    SeveralOrganizations,
    /// A claim has the wrong type, is too long, or has characters that are not allowed.
    #[error("the token's {0} claim is not acceptable")]
    BadClaim(&'static str),
}

impl TokenFault {
    /// The label for counting.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::CriticalExtension => "critical_extension",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::NoKeyForAlgorithm => "no_key_for_algorithm",
            Self::Signature => "signature",
            Self::NoExpiry => "no_expiry",
            Self::BadTime(_) => "bad_time",
            Self::Expired => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoOrganization => "no_organization",
            Self::BadOrganization(_) => "bad_organization",
            Self::ForeignOrganization => "foreign_organization",
            Self::SeveralOrganizations => "several_organizations",
            Self::BadClaim(_) => "bad_claim",
        }
    }
}

/// A token that was not accepted: what is wrong with it, and whose it is when its signature was right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct TokenError {
    fault: TokenFault,
    org: Option<OrgId>,
}

impl TokenError {
    pub(super) fn new(fault: TokenFault, org: Option<OrgId>) -> Self {
        Self { fault, org }
    }

    /// What is wrong.
    pub fn fault(&self) -> TokenFault {
        self.fault
    }

    /// The organization, only when the signature was right: nobody can blame an organization without one of its tokens.
    pub fn org(&self) -> Option<&OrgId> {
        self.org.as_ref()
    }

    /// The operator's words; nothing of the token in them.
    pub fn why(&self) -> String {
        self.fault.to_string()
    }

    /// Whether fetching the keys again could make this token good.
    pub fn wants_refresh(&self) -> bool {
        self.fault == TokenFault::UnknownKey
    }

    /// What a client hears: one sentence, whatever is wrong, but for what an honest user can mend and a thief cannot
    /// learn from.
    pub fn refusal(&self) -> Refusal {
        match self.fault {
            TokenFault::TooLong => Self::too_long(),
            TokenFault::SeveralOrganizations => {
                Refusal::new(Kind::UnknownDatabase, "the token speaks for several organizations")
                    .with_hint("Connect to the database with the name of one of them.")
            }
            _ => Self::unexplained(),
        }
    }

    /// The refusal of a token that is too long to be read: PostgreSQL too takes a password that is too long for a breach
    /// of the protocol (08P01).
    pub fn too_long() -> Refusal {
        let message = format!("the token is longer than {} bytes, the most that is accepted", super::TOKEN_BYTES_MAX);
        Refusal::new(Kind::ProtocolViolation, message)
            .with_hint("Ask for a token with fewer claims: identity providers can leave groups out, or send only those of this application.")
    }

    /// The same sentence, where the token was not even looked at.
    pub fn unexplained() -> Refusal {
        Refusal::new(Kind::InvalidToken, Cow::Borrowed("invalid or expired token"))
    }
}

impl From<TokenFault> for TokenError {
    fn from(fault: TokenFault) -> Self {
        Self::new(fault, None)
    }
}
