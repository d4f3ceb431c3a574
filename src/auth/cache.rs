//! Tokens that were verified lately, remembered by their SHA-256, so that a reconnect costs a hash and no signature.
//!
//! Bounded by bytes. It belongs to one [`super::Verifier`]: new keys make a new verifier, and so forget everything.

use aws_lc_rs::digest;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::claims::Identity;

/// The SHA-256 of a token, and of the database that chose among its organizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &str, chosen_by: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(token.as_bytes());
        if !chosen_by.is_empty() {
            // Stands in no token.
            context.update(&[0]);
            context.update(chosen_by.as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<TokenDigest, Identity> for ByBytes {
    fn weight(&self, _: &TokenDigest, identity: &Identity) -> u64 {
        identity.weight_bytes() + size_of::<TokenDigest>() as u64
    }
}

/// Verified tokens and whom they speak for.
pub struct TokenCache {
    entries: Cache<TokenDigest, Identity, ByBytes>,
}

impl TokenCache {
    /// A cache of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let entries_about = usize::try_from(bytes_max / 512).unwrap_or(usize::MAX);
        Self { entries: Cache::with_weighter(entries_about, bytes_max, ByBytes) }
    }

    /// Whom the token speaks for, if it was verified and has not expired.
    pub(super) fn get(&self, digest: &TokenDigest, now: u64) -> Option<Identity> {
        let identity = self.entries.get(digest)?;
        if now < identity.expires_at() {
            return Some(identity);
        }
        self.entries.remove(digest);
        None
    }

    /// Remembers a token that was just verified.
    pub(super) fn insert(&self, digest: TokenDigest, identity: Identity) {
        self.entries.insert(digest, identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::fixture::identity;

    #[test]
    fn what_is_remembered_of_tokens_is_bounded_in_bytes() {
        let cache = TokenCache::new(20_000);
        let identity = identity(serde_json::json!({ "org": "org_1", "sub": "u".repeat(100) }));
        for number in 0..1000 {
            cache.insert(TokenDigest::of(&number.to_string(), ""), identity.clone());
            assert!(cache.entries.weight() <= 20_000);
        }
        assert!(cache.entries.len() > 10, "it remembers some");
    }
}
