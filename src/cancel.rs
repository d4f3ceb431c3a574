//! Cancel keys, and how a CancelRequest finds the session it means.
//!
//! PostgreSQL manual, "Canceling Requests in Progress". The keys are ours: a client never learns a server's. This room
//! only signals; the session forwards the cancel, since it alone knows which server connection is its own at that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use dashmap::{DashMap, Entry};

use crate::ids::SessionId;
use crate::session::Signals;
use crate::wire::startup::Protocol;

const KEY_BYTES_MAX: usize = 32;
/// Clients read a process id as a signed number.
const SESSION_ID_MAX: u32 = i32::MAX as u32;
const ATTEMPTS_MAX: u32 = 1 << 20;

/// Why a session cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotRegister {
    /// The system gives no random bytes.
    #[error("there are no random bytes for a cancel key")]
    NoRandom,
    /// No session number is free.
    #[error("no session number is free")]
    NoNumber,
}

/// A cancel key: 4 random bytes for protocol 3.0, 32 for 3.2. Not shown, compared in constant time.
#[derive(Clone)]
struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: usize,
}

impl Key {
    fn random(protocol: Protocol) -> Result<Self, CannotRegister> {
        let mut bytes = [0; KEY_BYTES_MAX];
        rand::fill(&mut bytes).map_err(|_| CannotRegister::NoRandom)?;
        Ok(Self { bytes, length: protocol.cancel_key_bytes().min(KEY_BYTES_MAX) })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The live sessions of all data threads, by number.
pub struct Registry {
    sessions: DashMap<SessionId, (Key, Arc<Signals>), ahash::RandomState>,
    last: AtomicU32,
}

impl Registry {
    /// A registry without sessions.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { sessions: DashMap::default(), last: AtomicU32::new(0) })
    }

    /// Gives a session its number and its key, until the registration drops.
    pub fn register(
        self: &Arc<Self>,
        protocol: Protocol,
        signals: Arc<Signals>,
    ) -> Result<Registration, CannotRegister> {
        let key = Key::random(protocol)?;
        for _ in 0..ATTEMPTS_MAX {
            let session = SessionId(self.last.fetch_add(1, Ordering::Relaxed) % SESSION_ID_MAX + 1);
            if let Entry::Vacant(vacant) = self.sessions.entry(session) {
                vacant.insert((key.clone(), signals));
                return Ok(Registration { registry: Arc::clone(self), session, key });
            }
        }
        Err(CannotRegister::NoNumber)
    }

    /// The letter box of the session that a CancelRequest means, if its key is right.
    ///
    /// How long it takes tells nothing of the key, and the client hears nothing in either case.
    pub fn find(&self, pid: u32, key: &[u8]) -> Option<Arc<Signals>> {
        let found = self.sessions.get(&SessionId(pid))?;
        let (right, signals) = found.value();
        verify_slices_are_equal(right.as_bytes(), key).ok().map(|()| Arc::clone(signals))
    }

    /// Calls `visit` with every live session's letter box.
    pub fn each(&self, mut visit: impl FnMut(&Signals)) {
        for session in &self.sessions {
            visit(&session.value().1);
        }
    }

    /// How many sessions are registered.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is registered.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

/// A session's place in the registry. Dropping it makes number and key worthless.
pub struct Registration {
    registry: Arc<Registry>,
    session: SessionId,
    key: Key,
}

impl Registration {
    /// The session's number: the process id in BackendKeyData.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The key for BackendKeyData: 4 or 32 bytes.
    pub fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.sessions.remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals() -> Arc<Signals> {
        Arc::new(Signals::new(crate::ids::OrgId::new("acme").unwrap(), u64::MAX))
    }

    #[test]
    fn a_session_is_found_by_its_number_and_whole_key_only() {
        let registry = Registry::new();
        for (protocol, bytes) in [(Protocol::V3_0, 4), (Protocol::V3_2, 32)] {
            let letter_box = signals();
            let mine = registry.register(protocol, Arc::clone(&letter_box)).unwrap();
            let other = registry.register(protocol, signals()).unwrap();
            let (pid, key) = (mine.session().0, mine.key().to_vec());
            assert_eq!(key.len(), bytes);
            assert!(registry.find(pid, &key).is_some_and(|found| Arc::ptr_eq(&found, &letter_box)));
            for bit in 0..8 * bytes {
                let mut wrong = key.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(registry.find(pid, &wrong).is_none());
            }
            assert!(registry.find(other.session().0, &key).is_none(), "a key is for one session");
            assert!(registry.find(pid, &key[..bytes - 1]).is_none());
            assert!(registry.find(pid, &[&key[..], &[0]].concat()).is_none());
            assert!(registry.find(pid, &[]).is_none());
        }
    }

    #[test]
    fn a_session_that_has_ended_cannot_be_cancelled() {
        let registry = Registry::new();
        let mine = registry.register(Protocol::V3_2, signals()).unwrap();
        let (pid, key) = (mine.session().0, mine.key().to_vec());
        drop(mine);
        assert!(registry.find(pid, &key).is_none());
        assert!(registry.is_empty());
    }

    #[test]
    fn numbers_are_positive_and_never_shared_when_they_come_round_again() {
        let registry = Registry::new();
        let first = registry.register(Protocol::V3_0, signals()).unwrap();
        assert_eq!(first.session(), SessionId(1));
        registry.last.store(SESSION_ID_MAX - 1, Ordering::Relaxed);
        let last = registry.register(Protocol::V3_0, signals()).unwrap();
        assert_eq!(last.session(), SessionId(SESSION_ID_MAX));
        let next = registry.register(Protocol::V3_0, signals()).unwrap();
        assert_eq!(next.session(), SessionId(2), "1 is still in use");
        assert_eq!(registry.len(), 3);
    }

    #[test]
    fn keys_are_never_the_same() {
        let registry = Registry::new();
        let all: Vec<_> = (0..100).map(|_| registry.register(Protocol::V3_2, signals()).unwrap()).collect();
        let keys: std::collections::HashSet<_> = all.iter().map(|one| one.key().to_vec()).collect();
        assert_eq!(keys.len(), all.len());
    }
}
