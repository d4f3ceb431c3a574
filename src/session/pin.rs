//! Pins: a lease kept beyond its transaction, because of something on the server connection that cannot be moved.
//!
//! Whether there is such a thing is not guessed: after a statement that may leave one the server is asked. A pinned
//! session gives its turn back between transactions, and gives way when it does nothing for too long.

use std::fmt;

use super::Session;
use crate::limits::Pinned;
use crate::pool::{PinPlace, Taint};
use crate::refusal::Refusal;

/// Why a lease is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinReason {
    /// A statement that may leave something has been sent; the server has not been asked yet.
    Unsure,
    /// Temporary tables, views or sequences.
    Temporary,
    /// A cursor WITH HOLD.
    Cursor,
    /// A statement of PREPARE.
    Prepared,
    /// An advisory lock of the session.
    AdvisoryLock,
    /// `pool_mode = "session"`.
    SessionMode,
}

impl fmt::Display for PinReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsure => "unsure",
            Self::Temporary => "temporary object",
            Self::Cursor => "cursor with hold",
            Self::Prepared => "prepared statement",
            Self::AdvisoryLock => "advisory lock",
            Self::SessionMode => "session mode",
        })
    }
}

/// A session's right to keep its lease; given back on drop.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) reason: PinReason,
    /// Whether it may hold advisory locks, so that the server is asked for those too.
    locks: bool,
    _org: Option<Pinned>,
    _pool: Option<PinPlace>,
}

/// Asks the server what is on this connection that cannot be moved: counts, in the order of [`PinReason`]; the last one
/// only of a session that may hold locks. No `search_path` bends them.
const STATE_COLUMNS: [&str; 4] = [
    "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_class \
      WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())",
    "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_cursors WHERE is_holdable)",
    "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql)",
    // The shared role cannot see pg_locks (hardening.sql).
    "partywall_locks.held()",
];

impl Session {
    /// Makes sure that the session may keep its lease if it turns out that it must.
    pub(super) fn reserve_pin(&mut self) -> Result<(), Refusal> {
        self.ask_state = true;
        if self.pin.is_none() {
            let org = self.seat.limits().pin()?;
            let place = self.pool.pin(&self.asker.line)?;
            self.pin = Some(Pin { reason: PinReason::Unsure, locks: false, _org: Some(org), _pool: Some(place) });
        }
        Ok(())
    }

    /// The same for a session that may hold advisory locks beyond its transaction.
    pub(super) fn reserve_locks(&mut self) -> Result<(), Refusal> {
        self.reserve_pin()?;
        if let Some(pin) = &mut self.pin {
            pin.locks = true;
        }
        Ok(())
    }

    /// What the server is to be asked at the end of the transaction about what cannot be moved.
    pub(super) fn state_columns(&self) -> &'static [&'static str] {
        match &self.pin {
            _ if !self.ask_state => &[],
            Some(Pin { locks: true, .. }) => &STATE_COLUMNS,
            Some(_) | None => &STATE_COLUMNS[..3],
        }
    }

    /// In session mode every lease is kept; how many there can be is the pool's size.
    pub(super) fn pin_for_session_mode(&mut self) {
        if self.session_mode && self.pin.is_none() {
            self.pin = Some(Pin { reason: PinReason::SessionMode, locks: false, _org: None, _pool: None });
        }
    }

    /// Judges the server's answer to [`STATE_COLUMNS`]: keeps the pin for a reason, or lets it go.
    pub(super) fn settle_pin(&mut self, counts: &[Option<String>]) {
        self.ask_state = false;
        if counts.get(1).is_some_and(|cursors| cursors.as_deref() == Some("0")) {
            self.meter.forget_sources();
        }
        let held = counts.get(1).and_then(|count| count.as_deref()?.parse().ok());
        self.transaction.set_held(held.unwrap_or_default());
        let reasons = [PinReason::Temporary, PinReason::Cursor, PinReason::Prepared, PinReason::AdvisoryLock];
        let some = |count: &&Option<String>| count.as_deref() != Some("0");
        let found = reasons.iter().zip(counts).find(|(_, count)| some(count)).map(|(&reason, _)| reason);
        match (found, &mut self.pin) {
            (Some(reason), Some(pin)) if pin.reason != PinReason::SessionMode => pin.reason = reason,
            (Some(_) | None, Some(pin)) if pin.reason == PinReason::SessionMode => {}
            (None, _) => self.pin = None,
            (Some(_), _) => {}
        }
    }

    /// Gives the turn back between transactions of a pinned session.
    pub(super) fn rest(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        if !lease.is_resting() {
            lease.set_busy(false);
            lease.taint(Taint::Clean);
            lease.rest();
            self.begin_rest();
        }
    }
}
