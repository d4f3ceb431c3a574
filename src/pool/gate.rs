//! Whether a shard may be served: decided by attestation, asked before each lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long a statement waits for a decision that has not been made.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a shard's walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// Nothing yet, or nothing since it was lost: statements wait for a moment.
    Unknown,
    /// They hold: it is served.
    Fit,
    /// They do not: it is not.
    Unfit,
}

/// One shard's gate, shared between those who attest and its pools. It begins as [`Fitness::Unknown`].
#[derive(Debug)]
pub struct Gate {
    /// The same as a word that is cheap to read.
    open: AtomicBool,
    /// Whether code in its database may leave state on a server connection that no statement shows.
    code: AtomicBool,
    fitness: watch::Sender<Fitness>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: AtomicBool::new(false),
            code: AtomicBool::new(false),
            fitness: watch::Sender::new(Fitness::Unknown),
        }
    }
}

impl Gate {
    /// Says what is known now.
    pub fn set(&self, fitness: Fitness) {
        self.open.store(fitness == Fitness::Fit, Ordering::Release);
        self.fitness.send_replace(fitness);
    }

    /// Says whether code in its database may leave state on a server connection that no statement shows.
    pub fn set_code(&self, leaves: bool) {
        self.code.store(leaves, Ordering::Relaxed);
    }

    /// Whether code in its database may leave such state; not, until somebody has looked, which is before it is served unless
    /// `check.on_breach` says that it is served in any case.
    pub fn code_leaves(&self) -> bool {
        self.code.load(Ordering::Relaxed)
    }

    /// What is known now.
    pub fn fitness(&self) -> Fitness {
        *self.fitness.borrow()
    }

    /// Whether the shard may be served.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether the shard may be served, once that is known; not, when it does not become known in a while.
    pub(super) async fn opens(&self) -> bool {
        let mut changes = self.fitness.subscribe();
        let known = changes.wait_for(|fitness| *fitness != Fitness::Unknown);
        matches!(tokio::time::timeout(PATIENCE, known).await, Ok(Ok(fitness)) if *fitness == Fitness::Fit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gate_opens_only_for_what_is_known_to_be_fit() {
        let gate = Gate::default();
        assert!(!gate.is_open());
        gate.set(Fitness::Unfit);
        assert!(!gate.is_open() && !gate.opens().await);
        gate.set(Fitness::Fit);
        assert!(gate.is_open() && gate.opens().await);
        gate.set(Fitness::Unknown);
        assert!(!gate.is_open());
    }
}
