//! A rate with a burst: how long somebody who asks for more has to wait. No clock, `now` is handed in.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): of each one only the time is kept at which it owes nothing any
//! more, so that threads can share it as one number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much may be spent in a second, in time: a second of it comes back each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How much may be spent at once by who has spent nothing lately.
    pub burst: Duration,
    /// The longest that anybody waits for what he has spent; what is owed beyond it is forgiven.
    pub wait_max: Duration,
}

impl Rate {
    /// Spends `cost` at `now`, a time since some fixed moment: the new state, and how long to wait.
    ///
    /// `owed_until` is the state that the call before returned, at first zero.
    pub fn spend(self, owed_until: Duration, cost: Duration, now: Duration) -> (Duration, Duration) {
        let most = now + self.burst + self.wait_max;
        let owed_until = (owed_until.max(now) + cost).min(most);
        (owed_until, owed_until.saturating_sub(now + self.burst))
    }

    /// Whether who owes until then waits at `now`, and how long.
    pub fn wait(self, owed_until: Duration, now: Duration) -> Duration {
        owed_until.saturating_sub(now + self.burst).min(self.wait_max)
    }
}

/// What somebody has spent of a [`Rate`], shared by threads.
#[derive(Debug, Default)]
pub struct Spent(AtomicU64);

impl Spent {
    /// Spends `cost` at `now`, a time since some fixed moment; how long to wait.
    pub fn spend(&self, rate: Rate, cost: Duration, now: Duration) -> Duration {
        let mut wait = Duration::ZERO;
        let spend = |owed_us| {
            let (owed_until, waits) = rate.spend(Duration::from_micros(owed_us), cost, now);
            wait = waits;
            Some(owed_until.as_micros() as u64)
        };
        // Cannot fail: the closure always has an answer.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const RATE: Rate = Rate { burst: Duration::from_millis(10), wait_max: Duration::from_millis(100) };

    #[test]
    fn a_burst_is_free_and_what_is_beyond_it_waits() {
        let spent = Spent::default();
        let waits: Vec<_> = (0..13).map(|_| spent.spend(RATE, MS, 5 * MS)).collect();
        assert_eq!(waits[..10], [Duration::ZERO; 10]);
        assert_eq!(waits[10..], [MS, 2 * MS, 3 * MS]);
    }

    #[test]
    fn what_was_spent_comes_back_with_time_and_does_not_save_up() {
        let spent = Spent::default();
        assert_eq!(spent.spend(RATE, 20 * MS, Duration::ZERO), 10 * MS);
        assert_eq!(spent.spend(RATE, MS, 11 * MS), Duration::ZERO);
        assert_eq!(spent.spend(RATE, 10 * MS, 1000 * MS), Duration::ZERO);
        assert_eq!(spent.spend(RATE, MS, 1000 * MS), MS);
    }

    #[test]
    fn nobody_waits_longer_than_the_longest_wait_whatever_was_spent() {
        let spent = Spent::default();
        for _ in 0..3 {
            assert_eq!(spent.spend(RATE, Duration::from_secs(3600), Duration::ZERO), RATE.wait_max);
        }
        let (owed, _) = RATE.spend(Duration::ZERO, Duration::from_secs(3600), Duration::ZERO);
        assert_eq!(RATE.wait(owed, Duration::ZERO), RATE.wait_max);
        assert_eq!(RATE.wait(owed, 110 * MS), Duration::ZERO);
    }

    #[test]
    fn threads_share_one_rate() {
        let spent = Spent::default();
        let free = || (0..100).filter(|_| spent.spend(RATE, MS, Duration::ZERO).is_zero()).count();
        let free: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(free)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(free, 10);
    }
}
