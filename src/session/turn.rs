//! A turn: how much a session does before the other sessions of its data thread go on.
//!
//! Work is counted in units of about a microsecond. Without this a client that sends many small messages at once would
//! have all of them dealt with before anybody else's first.

use std::time::Duration;

/// What one turn has: a quarter of a millisecond.
const TURN: u32 = 256;
/// Bytes moved for one unit.
const BYTES_A_UNIT: usize = 4096;
/// A statement whose verdict is not remembered, beside what its length costs.
const JUDGING: u32 = 16;
/// Bytes of such a statement for one unit.
const JUDGED_BYTES_A_UNIT: usize = 64;
/// Telling a client and the observers of a refusal.
const REFUSING: u32 = 16;

/// What is left of a session's turn.
#[derive(Debug)]
pub(super) struct Turn {
    left: u32,
    /// What judging the statement at the front has taken.
    judging: Duration,
}

impl Default for Turn {
    fn default() -> Self {
        Self { left: TURN, judging: Duration::ZERO }
    }
}

impl Turn {
    /// Begins the next turn; for a session that has let others go on.
    pub(super) fn renew(&mut self) {
        self.left = TURN;
    }

    /// Whether others are to go on now.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Counts a message that is dealt with.
    pub(super) fn message(&mut self) {
        self.spend(1);
    }

    /// Counts bytes that are read.
    pub(super) fn bytes(&mut self, count: usize) {
        self.spend(u32::try_from(count / BYTES_A_UNIT).unwrap_or(u32::MAX));
    }

    /// Counts a statement of that length that is judged anew on this thread.
    pub(super) fn judged(&mut self, bytes: usize) {
        self.spend(JUDGING.saturating_add(u32::try_from(bytes / JUDGED_BYTES_A_UNIT).unwrap_or(u32::MAX)));
    }

    /// Keeps how long judging the statement at the front took.
    pub(super) fn judging_took(&mut self, took: Duration) {
        self.judging = took;
    }

    /// Counts a refusal; returns how long the statement had been judged.
    pub(super) fn refused(&mut self) -> Duration {
        self.spend(REFUSING);
        std::mem::take(&mut self.judging)
    }

    fn spend(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until_over(mut spend: impl FnMut(&mut Turn)) -> usize {
        let mut turn = Turn::default();
        let mut count = 0;
        while !turn.is_over() {
            spend(&mut turn);
            count += 1;
        }
        count
    }

    #[test]
    fn a_turn_ends_after_few_messages_refusals_and_bytes() {
        assert_eq!(until_over(Turn::message), 256);
        assert_eq!(until_over(|turn| turn.bytes(64 << 10)), 16);
        assert_eq!(until_over(|turn| assert!(turn.refused().is_zero())), 16);
        assert_eq!(until_over(|turn| turn.judged(16)), 16);
        assert_eq!(until_over(|turn| turn.judged(4096)), 4);
        assert_eq!(until_over(|turn| turn.judged(usize::MAX)), 1);
    }

    #[test]
    fn what_judging_took_is_told_once() {
        let mut turn = Turn::default();
        turn.judging_took(Duration::from_millis(3));
        assert_eq!(turn.refused(), Duration::from_millis(3));
        assert_eq!(turn.refused(), Duration::ZERO);
        turn.renew();
        assert!(!turn.is_over());
    }
}
