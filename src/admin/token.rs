//! The operators' bearer token: read from a file, kept as its digest, compared in constant time.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use axum::http::HeaderValue;

/// A shorter one could be guessed, in bytes.
const TOKEN_BYTES_MIN: usize = 16;
/// A longer file is no token, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("the admin token's file cannot be read")]
    Read(#[from] io::Error),
    /// It is too short.
    #[error("the admin token needs at least {TOKEN_BYTES_MIN} bytes")]
    Short,
    /// It is too long.
    #[error("the admin token's file may have at most {TOKEN_BYTES_MAX} bytes")]
    Long,
}

/// The token, as its SHA-256.
pub struct Token(Digest);

impl Token {
    /// Reads the file; white space around the token does not count.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let mut text = Vec::new();
        File::open(path)?.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > TOKEN_BYTES_MAX {
            return Err(TokenError::Long);
        }
        let text = text.trim_ascii();
        if text.len() < TOKEN_BYTES_MIN {
            return Err(TokenError::Short);
        }
        Ok(Self(digest(&SHA256, text)))
    }

    /// Whether an `Authorization` header carries it (RFC 6750, section 2.1).
    pub fn is_carried_by(&self, header: Option<&HeaderValue>) -> bool {
        let Some((scheme, presented)) = header.and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()))
        else {
            return false;
        };
        // Digests, so that neither bytes nor length of the token show in the time it takes.
        let presented = digest(&SHA256, presented.trim_ascii());
        scheme.eq_ignore_ascii_case(b"Bearer ") && verify_slices_are_equal(presented.as_ref(), self.0.as_ref()).is_ok()
    }
}
