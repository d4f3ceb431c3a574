//! What the sessions of one organization keep together, counted: bytes in the proxy, savepoints in the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::OrgLimits;
use crate::refusal::{Kind, Refusal};

/// So many bytes of statements may the sessions of one organization keep in this proxy.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// So many savepoints may the sessions of one organization have open. One under which something was written holds an entry
/// of the server's lock table, which has room for some 64 a connection (`max_locks_per_transaction`).
pub const SAVEPOINTS_MAX: usize = 1000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Bytes of statements, their names, and long texts on their way.
    Bytes,
    /// Open savepoints.
    Savepoints,
}

/// One organization's counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    bytes: AtomicUsize,
    savepoints: AtomicUsize,
}

impl Counts {
    fn of(&self, kept: Kept) -> (&AtomicUsize, usize) {
        match kept {
            Kept::Bytes => (&self.bytes, KEPT_BYTES_MAX),
            Kept::Savepoints => (&self.savepoints, SAVEPOINTS_MAX),
        }
    }
}

/// What one holder has of it; given back on drop.
#[derive(Debug)]
pub struct Share {
    org: Arc<OrgLimits>,
    kept: Kept,
    taken: usize,
}

impl Share {
    /// Nothing yet.
    pub fn new(org: &Arc<OrgLimits>, kept: Kept) -> Self {
        Self { org: Arc::clone(org), kept, taken: 0 }
    }

    /// Makes it `wanted` in all; `false`: the organization has no room for so much more, and nothing was changed.
    pub fn set(&mut self, wanted: usize) -> bool {
        if wanted == self.taken {
            return true;
        }
        let (count, limit) = self.org.kept.of(self.kept);
        if let Some(more) = wanted.checked_sub(self.taken) {
            let room = |now: usize| now.checked_add(more).filter(|&sum| sum <= limit);
            if count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).is_err() {
                return false;
            }
        } else {
            count.fetch_sub(self.taken - wanted, Ordering::SeqCst);
        }
        self.taken = wanted;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl OrgLimits {
    /// Room for that many bytes, or the refusal (53200) of what would keep them.
    pub fn keep(self: &Arc<Self>, bytes: usize) -> Result<Share, Refusal> {
        let mut share = Share::new(self, Kept::Bytes);
        if share.set(bytes) { Ok(share) } else { Err(Self::no_room()) }
    }

    /// The refusal (53200) of what would keep more bytes than the organization may.
    pub fn no_room() -> Refusal {
        let message = format!("the sessions of this organization keep too much: at most {} MB", KEPT_BYTES_MAX >> 20);
        Refusal::new(Kind::OrganizationMemory, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OrgId;
    use crate::limits::Limits;

    #[test]
    fn what_an_organization_keeps_is_bounded_over_all_its_sessions_and_comes_back() {
        let limits = Limits::default();
        let [acme, globex] =
            ["acme", "globex"].map(|name| limits.organization(&OrgId::new(name).expect("a name"), &Arc::default()));
        for (kept, most) in [(Kept::Bytes, KEPT_BYTES_MAX), (Kept::Savepoints, SAVEPOINTS_MAX)] {
            let (mut one, mut two) = (Share::new(&acme, kept), Share::new(&acme, kept));
            assert!(one.set(most - 1) && two.set(1));
            assert!(!two.set(2) && !one.set(most));
            assert!(Share::new(&globex, kept).set(most), "another organization has its own");
            assert!(one.set(10) && two.set(most - 10));
            drop(two);
            assert!(one.set(most));
        }
        assert_eq!(acme.keep(1).map(|_| ()), Ok(()), "all has come back");
        let all = acme.keep(KEPT_BYTES_MAX).expect("room");
        assert_eq!(acme.keep(1).expect_err("no room").kind(), Kind::OrganizationMemory);
        drop(all);
    }
}
