//! One place that keys come from: what it last gave, how old that is, and when to look again.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Timing;
use super::fetch::FetchError;
use crate::auth::{Jwks, KEY_FILE_BYTES_MAX, KeyError, KeySet};
use crate::config::{KeyBounds, KeySource, TokenKeys};
use crate::control::load::{SecretError, read_secret};

/// Why a place gave no keys.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What is there is not usable.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// It could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// A place with its last good keys.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) from: KeySource,
    pub(super) bounds: KeyBounds,
    keys: KeySet,
    trouble: Option<String>,
    /// Only for places behind a URL.
    pub(super) remote: Option<Remote>,
}

/// The clockwork of a place behind a URL.
#[derive(Debug, Default)]
pub(super) struct Remote {
    /// A fetch is under way.
    pub(super) in_flight: bool,
    started: Option<Instant>,
    good: Option<Instant>,
    failures: u32,
}

impl Source {
    pub(super) fn new(TokenKeys { from, bounds }: TokenKeys) -> Self {
        let remote = matches!(from, KeySource::JwksUrl { .. } | KeySource::Issuer { .. }).then(Remote::default);
        Self { from, bounds, keys: KeySet::default(), trouble: None, remote }
    }

    /// The last good keys; empty before the first ones and after they grew too old.
    pub(super) fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// What it is called in the log.
    pub(super) fn name(&self) -> String {
        match &self.from {
            KeySource::Hs256 { secret } => secret.to_string(),
            KeySource::Pem { file } | KeySource::JwksFile { file } => format!("file {}", file.display()),
            KeySource::JwksUrl { url, .. } | KeySource::Issuer { issuer: url, .. } => match reqwest::Url::parse(url) {
                Ok(url) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
                Err(_) => "a URL".to_owned(),
            },
        }
    }

    /// Reads it, where it is a file or an environment variable.
    pub(super) async fn read(&self) -> Result<Jwks, SourceError> {
        let plain = |keys| Jwks { keys, left_out: Vec::new() };
        match &self.from {
            KeySource::Hs256 { secret } => {
                let from = secret.clone();
                let secret =
                    tokio::task::spawn_blocking(move || read_secret(&from)).await.map_err(io::Error::other)??;
                Ok(plain(KeySet::from_secret(secret.expose())?))
            }
            KeySource::Pem { file } => Ok(plain(KeySet::from_pem(&content(file).await?)?)),
            KeySource::JwksFile { file } => Ok(KeySet::from_jwks(&content(file).await?)?),
            KeySource::JwksUrl { .. } | KeySource::Issuer { .. } => Ok(plain(self.keys.clone())),
        }
    }

    /// Takes what came: new keys, or trouble, which leaves the old keys in force. Whether the keys are others now.
    pub(super) fn take(&mut self, came: Result<Jwks, SourceError>) -> bool {
        match came {
            Ok(jwks) => self.take_keys(jwks),
            Err(error) => {
                self.take_trouble(error.to_string());
                false
            }
        }
    }

    fn take_keys(&mut self, jwks: Jwks) -> bool {
        if self.trouble.take().is_some() {
            info!(source = self.name(), "token keys can be read again");
        }
        if self.keys == jwks.keys {
            return false;
        }
        info!(source = self.name(), keys = jwks.keys.len(), left_out = ?jwks.left_out, "token keys read");
        self.keys = jwks.keys;
        true
    }

    /// A file that stays bad is worth one line, a fetch that fails again one each.
    fn take_trouble(&mut self, why: String) {
        let source = self.name();
        if self.remote.is_some() || self.trouble.as_ref() != Some(&why) {
            match self.keys.len() {
                0 => warn!(source, why, "token keys cannot be read, and there are none from before"),
                kept => warn!(source, why, kept, "token keys cannot be read; the last good ones stay in force"),
            }
        }
        self.trouble = Some(why);
    }

    /// Drops keys that are too old. Whether there were any.
    pub(super) fn expire(&mut self, now: Instant, timing: &Timing) -> bool {
        let too_old = self.remote.as_ref().and_then(|remote| remote.expires(timing)).is_some_and(|end| end <= now);
        if !too_old {
            return false;
        }
        error!(source = self.name(), "token keys could not be renewed in time and hold no longer");
        self.keys = KeySet::default();
        if let Some(remote) = &mut self.remote {
            remote.good = None;
        }
        true
    }
}

impl Remote {
    /// When to fetch next; `wanted`: a login has seen a key that nobody knows.
    pub(super) fn due(&self, wanted: bool, now: Instant, timing: &Timing) -> Option<Instant> {
        if self.in_flight {
            return None;
        }
        let Some(started) = self.started else { return Some(now) };
        let usual = match self.failures {
            0 => timing.fetch_every,
            failures => backoff(failures, timing),
        };
        Some(started + if wanted { usual.min(timing.fetch_apart) } else { usual })
    }

    /// When the keys are too old.
    pub(super) fn expires(&self, timing: &Timing) -> Option<Instant> {
        self.good.map(|good| good + timing.keys_age_max)
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.in_flight = true;
        self.started = Some(now);
    }

    /// The fetch has ended. Its keys are as old as its beginning.
    pub(super) fn end(&mut self, good: bool) {
        self.in_flight = false;
        self.failures = if good { 0 } else { self.failures.saturating_add(1) };
        if good {
            self.good = self.started;
        }
    }
}

/// Twice as long after each failure.
fn backoff(failures: u32, timing: &Timing) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    timing.retry_min.saturating_mul(factor).min(timing.retry_max)
}

/// A key file's content, at most one byte more than it may have, so that the room that reads it says that it is too long.
async fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(KEY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut content).await?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_fetched_eagerly_sooner_when_wanted_and_with_patience_after_failures() {
        let timing = Timing::default();
        let start = Instant::now();
        let after = |remote: &Remote, wanted| remote.due(wanted, start, &timing).map(|due| (due - start).as_secs());
        let mut remote = Remote::default();
        assert_eq!(after(&remote, false), Some(0));
        remote.start(start);
        assert_eq!((after(&remote, false), after(&remote, true)), (None, None));
        remote.end(true);
        assert_eq!((after(&remote, false), after(&remote, true)), (Some(300), Some(30)));
        for (seconds, wanted) in [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 30), (60, 30), (60, 30)] {
            remote.end(false);
            assert_eq!((after(&remote, false), after(&remote, true)), (Some(seconds), Some(wanted)));
        }
        for _ in 0..100 {
            remote.end(false);
        }
        assert_eq!(after(&remote, false), Some(60));
    }

    #[test]
    fn keys_are_as_old_as_the_beginning_of_the_fetch_that_brought_them() {
        let timing = Timing::default();
        let mut remote = Remote::default();
        let start = Instant::now();
        remote.start(start);
        assert_eq!(remote.expires(&timing), None);
        remote.end(true);
        remote.start(start + Duration::from_secs(300));
        remote.end(false);
        assert_eq!(remote.expires(&timing), Some(start + Duration::from_secs(3600)));
    }
}
