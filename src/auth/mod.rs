//! Who is it? Tokens (JWT, RFC 7519) verified into an [`Identity`], which only this room can make.
//!
//! Pure: keys come as bytes, the time as `now`. Fetching and re-reading keys is `control`'s work.
//! What this room does not do: ask whether the organization is known or suspended (`tenant`), or what it may do (`guard`).

mod algorithm;
mod cache;
mod claims;
mod error;
mod jwks;
mod key;
mod lists;
pub mod mint;
mod path;
mod throttle;
mod token;
mod verifier;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use cache::TokenCache;
pub use claims::{Identity, joined};
pub use error::{TokenError, TokenFault};
pub use jwks::Jwks;
pub use key::{KEY_FILE_BYTES_MAX, KEYS_MAX, Key, KeyError, KeySet, SECRET_BYTES_MIN};
pub use lists::{LeftOut, Odd};
pub use throttle::{Throttle, ThrottleRules, VERIFICATION};
pub use token::Outline;
pub use verifier::{TokenRules, Verifier};

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
