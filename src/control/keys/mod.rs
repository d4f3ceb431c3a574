//! Keeps the keys that verify tokens fresh: files are looked at every two seconds, URLs fetched every five minutes.
//!
//! Whatever is bad leaves the last good keys in force, loudly; keys from a URL end an hour after their last good fetch.

mod fetch;
mod source;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::error;

use crate::auth::{Jwks, KeySet, TokenRules, Verifier};
use crate::config::{Auth, KeySource, TokenKeys};
use crate::handshake::{KeyRing, KeyRingControl};

pub use fetch::FetchError;
use source::Source;
pub use source::SourceError;

/// How often, how long, how old. The defaults are for service; tests are in a hurry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Files are read so often, of our own accord.
    pub file_poll: Duration,
    /// Readings of files that logins want are at least so far apart.
    pub files_apart: Duration,
    /// URLs are fetched so often, of our own accord.
    pub fetch_every: Duration,
    /// Fetches that logins want are at least so far apart.
    pub fetch_apart: Duration,
    /// Keys from a URL hold no longer after their last good fetch.
    pub keys_age_max: Duration,
    /// The wait after a first failed fetch; it doubles with each one more.
    pub retry_min: Duration,
    /// The longest wait after a failed fetch.
    pub retry_max: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a fetch may take in all.
    pub fetch_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            file_poll: Duration::from_secs(2),
            files_apart: Duration::from_millis(100),
            fetch_every: Duration::from_secs(5 * 60),
            fetch_apart: Duration::from_secs(30),
            keys_age_max: Duration::from_secs(60 * 60),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            fetch_timeout: Duration::from_secs(10),
        }
    }
}

/// The files that cannot be used, each with its reason.
#[derive(Debug, thiserror::Error)]
pub struct KeyFaults(Vec<(String, SourceError)>);

impl fmt::Display for KeyFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (source, why)) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(f, "{separator}auth.keys: {source}: {why}")?;
        }
        Ok(())
    }
}

/// Keeps one [`KeyRing`] fresh. Dropping it leaves the ring with the keys it has.
#[derive(Debug)]
pub struct KeyKeeper {
    rules: TokenRules,
    timing: Timing,
    sources: Vec<Source>,
    control: KeyRingControl,
    /// Fetches under way, each with what it fetches; at most one for each.
    fetches: JoinSet<(KeySource, Result<Jwks, FetchError>)>,
    files_read: Instant,
    /// The latest question that was looked into.
    pursued: Option<u64>,
}

impl KeyKeeper {
    /// Reads all files and fetches all URLs once.
    ///
    /// A file that cannot be used is an error, and all of them are reported; a URL that fails is tried again later,
    /// loudly. Takes at most `timing.fetch_timeout`.
    pub async fn open(auth: &Auth, timing: Timing) -> Result<(Arc<KeyRing>, Self), KeyFaults> {
        let rules = TokenRules::from(auth);
        let sources = open_sources(&auth.keys).await?;
        let (ring, control) = KeyRing::new(Verifier::new(rules.clone(), KeySet::default()));
        let files_read = Instant::now();
        let mut keeper = Self { rules, timing, sources, control, fetches: JoinSet::new(), files_read, pursued: None };
        keeper.start_fetches(false, files_read);
        while let Some(done) = keeper.fetches.join_next().await {
            keeper.take_fetched(done);
        }
        keeper.publish();
        Ok((ring, keeper))
    }

    /// Keeps the ring fresh for as long as it is polled, and follows changes of the configuration.
    ///
    /// May be dropped at any time. When the sender of `changes` is dropped, the last configuration stays.
    pub async fn run(mut self, mut changes: watch::Receiver<Arc<Auth>>) {
        loop {
            let wake = self.next_wake(Instant::now());
            // In this order, so that logins that ask again and again cannot hold up what they ask for.
            let changed = tokio::select! {
                biased;
                Ok(()) = changes.changed() => {
                    let auth = Arc::clone(&changes.borrow_and_update());
                    self.configure(&auth).await
                }
                Some(done) = self.fetches.join_next() => self.take_fetched(done),
                () = self.control.asked() => false,
                () = tokio::time::sleep_until(wake) => false,
            };
            self.round(changed, Instant::now()).await;
        }
    }

    /// Does what is due at `now`; `changed`: the ring does not know the latest keys or rules yet.
    async fn round(&mut self, mut changed: bool, now: Instant) {
        let question = self.control.question();
        // Each question sets off one round; the answer waits for its end and for whatever else is under way.
        let wanted = question > self.pursued;
        self.pursued = self.pursued.max(question);
        changed |= self.read_files(wanted, now).await;
        self.start_fetches(wanted, now);
        for source in &mut self.sources {
            changed |= source.expire(now, &self.timing);
        }
        if changed {
            self.publish();
        }
        if let Some(question) = question.filter(|_| self.fetches.is_empty()) {
            self.control.answer(question);
        }
    }

    /// Takes new rules and sources; where one cannot be used, all stays as it was. Whether it was taken.
    async fn configure(&mut self, auth: &Auth) -> bool {
        let mut sources = match open_sources(&auth.keys).await {
            Ok(sources) => sources,
            Err(faults) => {
                error!(%faults, "the new token keys cannot be used; the old ones stay in force");
                return false;
            }
        };
        // A URL that stays keeps its keys and its clockwork: a reload must not lock anyone out until it is fetched.
        for source in &mut sources {
            let same = |old: &Source| old.remote.is_some() && old.from == source.from;
            if let Some(place) = self.sources.iter().position(same) {
                // But not its bounds: those are the new configuration's.
                let bounds = std::mem::take(&mut source.bounds);
                *source = self.sources.swap_remove(place);
                source.bounds = bounds;
            }
        }
        self.sources = sources;
        self.rules = TokenRules::from(auth);
        true
    }

    /// When there is something to do by itself.
    fn next_wake(&self, now: Instant) -> Instant {
        let remotes = self.sources.iter().filter_map(|source| source.remote.as_ref());
        let moments = remotes.flat_map(|remote| [remote.due(false, now, &self.timing), remote.expires(&self.timing)]);
        moments.flatten().fold(self.files_read + self.timing.file_poll, Instant::min)
    }

    /// Reads files again, where it is time or a login wants it; whether any gave other keys.
    ///
    /// They are small, so they are read whole: no trick with time stamps, links or inodes hides a change.
    async fn read_files(&mut self, wanted: bool, now: Instant) -> bool {
        let apart = if wanted { self.timing.files_apart } else { self.timing.file_poll };
        if now < self.files_read + apart {
            return false;
        }
        self.files_read = now;
        let mut changed = false;
        for source in self.sources.iter_mut().filter(|source| source.remote.is_none()) {
            let came = source.read().await;
            changed |= source.take(came);
        }
        changed
    }

    fn start_fetches(&mut self, wanted: bool, now: Instant) {
        for source in &mut self.sources {
            let Some(remote) = &mut source.remote else { continue };
            if remote.due(wanted, now, &self.timing).is_none_or(|due| due > now) {
                continue;
            }
            remote.start(now);
            let (from, timing) = (source.from.clone(), self.timing);
            self.fetches.spawn(async move {
                let came = match &from {
                    KeySource::Issuer { issuer, ca_file } => fetch::discover(issuer, ca_file.as_deref(), &timing).await,
                    KeySource::JwksUrl { url, ca_file } => fetch::fetch(url, ca_file.as_deref(), &timing).await,
                    KeySource::Hs256 { .. } | KeySource::Pem { .. } | KeySource::JwksFile { .. } => {
                        Err(FetchError::Url)
                    }
                };
                (from, came)
            });
        }
    }

    /// Whether the keys are others now.
    fn take_fetched(&mut self, done: Result<(KeySource, Result<Jwks, FetchError>), JoinError>) -> bool {
        let (from, came) = match done {
            Ok(done) => done,
            Err(error) => {
                error!(%error, "fetching token keys failed in an unforeseen way");
                // It does not say whose fetch it was: all may be started again.
                let remotes = self.sources.iter_mut().filter_map(|source| source.remote.as_mut());
                remotes.filter(|remote| remote.in_flight).for_each(|remote| remote.end(false));
                return false;
            }
        };
        // None when the configuration has changed meanwhile: keys from where they are no longer wanted.
        let fetched =
            |source: &&mut Source| source.from == from && source.remote.as_ref().is_some_and(|it| it.in_flight);
        let Some(source) = self.sources.iter_mut().find(fetched) else { return false };
        if let Some(remote) = &mut source.remote {
            remote.end(came.is_ok());
        }
        source.take(came.map_err(SourceError::Fetch))
    }

    /// Puts the keys of all sources in force.
    fn publish(&self) {
        let keys = KeySet::join_bound(self.sources.iter().map(|source| (source.keys(), &source.bounds)));
        if keys.is_empty() {
            error!("there are no token keys: nobody can log in");
        }
        self.control.replace(Verifier::new(self.rules.clone(), keys));
    }
}

/// The sources of a configuration, with all files read; every file that cannot be used is reported.
async fn open_sources(keys: &[TokenKeys]) -> Result<Vec<Source>, KeyFaults> {
    let mut sources: Vec<Source> = keys.iter().cloned().map(Source::new).collect();
    let mut faults = Vec::new();
    for source in &mut sources {
        match source.read().await {
            Ok(jwks) => _ = source.take(Ok(jwks)),
            Err(error) => faults.push((source.name(), error)),
        }
    }
    if faults.is_empty() { Ok(sources) } else { Err(KeyFaults(faults)) }
}
