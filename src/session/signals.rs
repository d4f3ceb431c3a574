//! What others tell a session, from any thread: cancel, overdue, expired, drain, kill.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Instant;

use parking_lot::Mutex;

use crate::ids::OrgId;

/// One thing to tell a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Signal {
    /// Its client asked for the running statement to be cancelled.
    Cancel = 1,
    /// The statement has run longer than its tier allows.
    Overdue = 1 << 1,
    /// Its token's time is over: take nothing new, and end at the next safe point.
    Expired = 1 << 2,
    /// The proxy drains: take nothing new, and end at the next safe point.
    Drain = 1 << 3,
    /// An operator ends it: now.
    Kill = 1 << 4,
    /// Its organization may not be served any more: end now.
    Suspended = 1 << 5,
    /// What was under way when its token expired has had its time: end now.
    GraceOver = 1 << 6,
}

/// A session's letter box. Raising a signal wakes the session; signals of one kind are one.
#[derive(Debug)]
pub struct Signals {
    org: OrgId,
    raised: AtomicU8,
    waker: Mutex<Option<Waker>>,
    /// From when the deadline counts.
    born: Instant,
    /// When the running statement is overdue, in milliseconds since `born`; `u64::MAX` for none.
    deadline_ms: AtomicU64,
    /// When the token expires, in seconds since the epoch; `u64::MAX` for never.
    expires_at: u64,
    /// How long what is under way then may take.
    grace_s: u64,
}

impl Signals {
    /// An empty letter box of a session of `org` whose token expires at `expires_at` (seconds since the epoch).
    pub fn new(org: OrgId, expires_at: u64) -> Self {
        Self {
            org,
            raised: AtomicU8::new(0),
            waker: Mutex::new(None),
            born: Instant::now(),
            deadline_ms: AtomicU64::new(u64::MAX),
            expires_at,
            grace_s: 0,
        }
    }

    /// The same, where what is under way when the token expires may take so many seconds to end.
    pub fn with_grace(self, grace_s: u64) -> Self {
        Self { grace_s, ..self }
    }

    /// Whose session it is.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// Raises `signal` and wakes the session.
    pub fn raise(&self, signal: Signal) {
        self.raised.fetch_or(signal as u8, Ordering::SeqCst);
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes `signal` if it is raised.
    pub(super) fn take(&self, signal: Signal) -> bool {
        let bit = signal as u8;
        self.raised.load(Ordering::SeqCst) & bit != 0 && self.raised.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Whether `signal` is raised.
    pub(super) fn is_raised(&self, signal: Signal) -> bool {
        self.raised.load(Ordering::SeqCst) & signal as u8 != 0
    }

    /// Whether anything is raised.
    pub(super) fn any(&self) -> bool {
        self.raised.load(Ordering::SeqCst) != 0
    }

    /// Whether anything is raised; has the task woken when something is. `ear` is the task that listens, as far as its
    /// owner knows: it is the same at nearly every look, and then nothing is locked.
    pub(super) fn poll_any(&self, ear: &mut Option<Waker>, cx: &Context<'_>) -> bool {
        if ear.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            return self.any();
        }
        *ear = Some(cx.waker().clone());
        *self.waker.lock() = Some(cx.waker().clone());
        self.any()
    }

    /// Says when the running statement is overdue; `None` when none runs.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        let ms = deadline.map_or(u64::MAX, |at| at.saturating_duration_since(self.born).as_millis() as u64);
        self.deadline_ms.store(ms, Ordering::Relaxed);
    }

    /// Whether what runs is overdue.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.born).as_millis() as u64 >= self.deadline_ms.load(Ordering::Relaxed)
    }

    /// The periodic look from outside: raises [`Signal::Overdue`], [`Signal::Expired`] and
    /// [`Signal::GraceOver`] when it is time.
    pub fn look_at_clock(&self, now: Instant, unix_s: u64) {
        if self.is_due(now) {
            self.raise(Signal::Overdue);
        }
        if unix_s >= self.expires_at && !self.is_raised(Signal::Expired) {
            self.raise(Signal::Expired);
        }
        if unix_s >= self.expires_at.saturating_add(self.grace_s) && !self.is_raised(Signal::GraceOver) {
            self.raise(Signal::GraceOver);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn acme() -> OrgId {
        OrgId::new("acme").expect("a name")
    }

    #[test]
    fn a_signal_is_taken_once() {
        let signals = Signals::new(acme(), u64::MAX);
        signals.raise(Signal::Cancel);
        signals.raise(Signal::Cancel);
        signals.raise(Signal::Drain);
        assert!(signals.take(Signal::Cancel) && !signals.take(Signal::Cancel) && signals.is_raised(Signal::Drain));
    }

    #[test]
    fn time_raises_overdue_and_expired() {
        let signals = Signals::new(acme(), 100);
        let now = Instant::now();
        signals.set_deadline(Some(now + Duration::from_secs(5)));
        signals.look_at_clock(now, 99);
        assert!(!signals.is_raised(Signal::Overdue) && !signals.is_raised(Signal::Expired));
        signals.look_at_clock(now + Duration::from_secs(6), 100);
        assert!(signals.is_raised(Signal::Overdue) && signals.is_raised(Signal::Expired));
        assert!(signals.take(Signal::Overdue));
        signals.set_deadline(None);
        signals.look_at_clock(now + Duration::from_secs(60), 100);
        assert!(!signals.is_raised(Signal::Overdue));
    }
}
