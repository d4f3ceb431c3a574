//! What a statement asks of its session: what transaction pooling cannot hold is refused, the rest is remembered.

use std::sync::Arc;
use std::time::Duration;

use super::Session;
use super::names::Held;
use super::settings::{OWN_SETTINGS_BYTES_MAX, bears_on_plans};
use crate::config::Tier;
use crate::event::StatementClass;
use crate::guard::{Change, Guard, Rights, Set, TIER_LIMITS, Taints, TierLimits, Value, Verdict};
use crate::handshake::StartupParameters;
use crate::pool::{Lease, Left, Taint};
use crate::refusal::{Kind, Refusal};

/// As much as PostgreSQL starts with.
const MIN_WORK_MEM_KB: u64 = 4096;

impl Session {
    /// Whether this session can carry what `verdict` says the statement does.
    pub(super) fn admit(&self, verdict: &Verdict) -> Result<(), Refusal> {
        if verdict.changes_nothing() {
            return Ok(());
        }
        verdict.changes().try_for_each(|change| self.admit_change(change))
    }

    /// The same of a verdict that was just found, before the statement has a server connection.
    pub(super) fn admit_judged(&mut self, verdict: Arc<Verdict>) -> Result<Arc<Verdict>, Refusal> {
        self.admit(&verdict)?;
        self.admit_names(&verdict)?;
        // From now on for good: a statement that was prepared asks again later.
        self.asker.wish.asks_sequences |= verdict.reads_sequence_state();
        Ok(verdict)
    }

    fn admit_change(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Set(set) => within_tier(set, &self.tier, self.thread.idle_transaction_timeout),
            Change::Listen(_) => Err(unpooled("LISTEN", "Poll a table instead.")),
            Change::Reset { .. }
            | Change::ResetAll
            | Change::DiscardAll
            | Change::Prepare { .. }
            | Change::Execute(_)
            | Change::Deallocate(_)
            | Change::DiscardPlans
            | Change::CreateTemp
            | Change::DiscardSequences
            | Change::DiscardTemp
            | Change::Begin
            | Change::Commit { .. }
            | Change::Rollback { .. }
            | Change::Savepoint(_)
            | Change::Release(_)
            | Change::RollbackTo(_)
            | Change::DeclareCursor { .. }
            | Change::CloseCursor(_)
            | Change::Unlisten(_)
            | Change::Notify
            | Change::AdvisoryLock { .. }
            | Change::AdvisoryUnlock { .. }
            | Change::CopyIn
            | Change::CopyOut => Ok(()),
        }
    }

    /// Whether the server connection has what the statement's advisory locks need: where the database is shared, functions
    /// that keep organizations apart; and a way to ask for locks that outlive their transaction.
    pub(super) fn admit_locks(&self, verdict: &Verdict) -> Result<(), Refusal> {
        let there = |lease: &Lease| lease.server.private_locks;
        let needed = verdict.changes().any(|change| match change {
            Change::AdvisoryLock { session } => *session || self.rights.shares_database(),
            Change::AdvisoryUnlock { all: false } => self.rights.shares_database(),
            _ => false,
        });
        if !needed || self.lease.as_ref().is_none_or(there) {
            return Ok(());
        }
        let message = "advisory locks are refused: this database has none that are kept apart by organization";
        Err(Refusal::new(Kind::Forbidden, message)
            .with_hint("Ask the operator to install them: partywall policies apply (advisory.sql)."))
    }

    /// Remembers what the statement may leave behind; called when it has its server connection.
    pub(super) fn apply(&mut self, verdict: &Verdict) -> Result<(), Refusal> {
        // Again, as the tier may have become another since the text was judged.
        self.admit(verdict)?;
        if !verdict.changes_nothing() {
            self.admit_locks(verdict)?;
        }
        self.apply_taints(verdict)?;
        if verdict.changes_nothing() {
            return Ok(());
        }
        self.apply_settings(verdict)?;
        verdict.changes().try_for_each(|change| match change {
            Change::Execute(name) => self.apply_executed(name),
            _ => Ok(()),
        })
    }

    fn apply_settings(&mut self, verdict: &Verdict) -> Result<(), Refusal> {
        verdict.changes().try_for_each(|change| match change {
            Change::Set(set) if set.local != Some(true) => {
                self.admit_value(&set.value)?;
                self.touch(&set.name)
            }
            Change::Reset { name, local: false, .. } => self.touch(name),
            Change::Set(Set { name, .. }) | Change::Reset { name, .. } => {
                self.own.touch_locally(name);
                self.leave_plans(name);
                Ok(())
            }
            _ => Ok(()),
        })
    }

    fn apply_taints(&mut self, verdict: &Verdict) -> Result<(), Refusal> {
        let unlocks = || verdict.changes().any(|change| matches!(change, Change::AdvisoryUnlock { .. }));
        if self.pin.is_some() && (!matches!(verdict.class(), StatementClass::Read | StatementClass::Write) || unlocks())
        {
            // It may have been the end of what the session is pinned for.
            self.ask_state = true;
        }
        let taints = verdict.taints();
        let writes = matches!(verdict.class(), StatementClass::Write | StatementClass::Copy | StatementClass::Ddl);
        if (writes || verdict.class() == StatementClass::Read)
            && self.pool.code_leaves()
            && let Some(lease) = &mut self.lease
        {
            // By a function, a trigger, a view or an operator: which of them, no text shows.
            lease.taint(Taint::Clean);
        }
        if writes && let Some(lease) = &mut self.lease {
            // A default or a trigger takes from sequences, and lastval would tell the next session of it.
            lease.left.add(Left::SEQUENCES);
            self.asker.wish.sequences_on = Some(lease.server.pid);
        }
        if taints.is_empty() {
            return Ok(());
        }
        let any = |of: &[Taints]| of.iter().any(|&taint| taints.contains(taint));
        if any(&[Taints::TEMPORARY, Taints::CURSOR, Taints::PREPARED]) {
            self.reserve_pin()?;
        }
        if taints.contains(Taints::ADVISORY_LOCK) {
            self.reserve_locks()?;
        }
        let Some(lease) = &mut self.lease else { return Ok(()) };
        if taints.contains(Taints::SEQUENCES) {
            lease.left.add(Left::SEQUENCES);
            self.asker.wish.sequences_on = Some(lease.server.pid);
        }
        if any(&[
            Taints::SEED,
            Taints::TEMPORARY,
            Taints::CURSOR,
            Taints::PREPARED,
            Taints::ADVISORY_LOCK,
            Taints::LISTEN,
        ]) {
            lease.taint(Taint::Clean);
        }
        Ok(())
    }

    pub(super) fn apply_touches(&mut self, names: &[Box<str>]) -> Result<(), Refusal> {
        names.iter().try_for_each(|name| self.touch(name))
    }

    /// A setting has changed that no statement named: code in the server did it, and nobody knows what else. It is the
    /// session's own from now on, and the connection is cleaned before another session has it.
    pub(super) fn changed_by_code(&mut self, name: &str) {
        self.leave_plans(name);
        if let Some(lease) = &mut self.lease {
            lease.taint(Taint::Clean);
        }
        // Where there is no room for one more, it is gone with this connection.
        let _ = self.own.touch(name);
    }

    /// What is parsed and planned from now on is for nobody else.
    fn leave_plans(&mut self, name: &str) {
        if let (true, Some(lease)) = (bears_on_plans(name), &mut self.lease) {
            lease.left.add(Left::PLANS);
        }
    }

    /// What a session has set is told to each server connection that it gets.
    fn admit_value(&self, value: &Value) -> Result<(), Refusal> {
        match value {
            Value::Literal(value) if value.len() + self.own.bytes() > OWN_SETTINGS_BYTES_MAX => Err(too_long()),
            Value::Literal(_) | Value::Parameter(_) | Value::Unknown => Ok(()),
        }
    }

    /// The same, when the server has told what the values are.
    pub(super) fn settings_fit(&self) -> Result<(), Refusal> {
        if self.own.bytes() > OWN_SETTINGS_BYTES_MAX { Err(too_long()) } else { Ok(()) }
    }

    fn touch(&mut self, name: &str) -> Result<(), Refusal> {
        self.leave_plans(name);
        if self.own.touch(name) {
            return Ok(());
        }
        Err(Refusal::new(Kind::StatementTooLarge, "this session has set too many settings"))
    }

    /// What an EXECUTE does is what the statement does that it names.
    fn apply_executed(&mut self, name: &str) -> Result<(), Refusal> {
        match self.names.get(name.as_bytes()).cloned() {
            // Not what that executes in its turn: PostgreSQL does not execute an EXECUTE by name.
            Some(Held::Shared { verdict, .. }) => {
                self.apply_taints(&verdict)?;
                self.apply_settings(&verdict)
            }
            Some(Held::Sql { touches }) => self.apply_touches(&touches),
            Some(Held::About { .. }) | None => Ok(()),
        }
    }
}

fn too_long() -> Refusal {
    let message = format!("the settings of this session are longer than {} kB together", OWN_SETTINGS_BYTES_MAX >> 10);
    Refusal::new(Kind::StatementTooLarge, message).with_hint("Keep long values in a table, or set them with SET LOCAL.")
}

fn unpooled(what: &str, instead: &'static str) -> Refusal {
    Refusal::new(Kind::NotSupported, format!("{what} is not supported in transaction pooling")).with_hint(instead)
}

/// What the tier bounds may be lowered, never raised, and never to what only the server knows. The guard has seen to that,
/// but under the tier of that time.
fn within_tier(set: &Set, tier: &Tier, idle_transaction_timeout: Option<Duration>) -> Result<(), Refusal> {
    let Some((limit, unit)) = bound(&set.name, tier, idle_transaction_timeout) else { return Ok(()) };
    if set.magnitude.is_some_and(|asked| asked <= limit) {
        return Ok(());
    }
    Err(Refusal::new(
        Kind::Forbidden,
        format!("\"{}\" can be lowered but not raised: tier \"{}\" allows {limit}{unit}", set.name, tier.name),
    )
    .with_hint("Ask for a number that is not above that."))
}

/// What a tier lets sessions set, for the guard: it puts the limit in the place of a value above it.
pub fn tier_limits(tier: &Tier, idle_transaction_timeout: Option<Duration>) -> TierLimits {
    TIER_LIMITS.map(|name| bound(name, tier, idle_transaction_timeout).map(|(limit, _)| limit))
}

/// The most that a session may set, in the setting's base unit; none where anything goes. 0 for a timeout is "no limit",
/// which the guard tells as the greatest number there is.
fn bound(name: &str, tier: &Tier, idle_transaction_timeout: Option<Duration>) -> Option<(u64, &'static str)> {
    let ms = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    match name {
        "statement_timeout" => Some((ms(tier.query_timeout), " ms")),
        "transaction_timeout" => Some((ms(tier.max_transaction), " ms")),
        "idle_in_transaction_session_timeout" => {
            tier.idle_transaction.or(idle_transaction_timeout).map(|timeout| (ms(timeout), " ms"))
        }
        // A statement sorts or hashes in several places at once.
        "work_mem" => tier.memory_bytes.map(|bytes| {
            let statements = u64::from(tier.max_concurrent_queries.unwrap_or(8).max(1));
            ((bytes / statements / 4 / 1024).max(MIN_WORK_MEM_KB), " kB")
        }),
        "max_parallel_workers_per_gather" => tier.cpu_cores.map(|cores| (u64::from(cores), "")),
        _ => None,
    }
}

/// The settings that a session begins with, as the client asked for them at start-up, if it may have them all; a value
/// above the tier's limit is that limit.
pub fn startup_settings(
    guard: &Guard,
    rights: &Rights,
    parameters: &StartupParameters,
) -> Result<Vec<(String, String)>, Refusal> {
    // The server connection's own name is the proxy's, not that of a client without one.
    let name = parameters.application_name.clone().unwrap_or_default();
    let mut settings = vec![("application_name".to_owned(), name)];
    for (name, value) in &parameters.settings {
        let set = guard.may_set(name, value, rights)?;
        let value = match set.value {
            Value::Literal(value) => value.into(),
            Value::Parameter(_) | Value::Unknown => value.clone(),
        };
        settings.push((set.name.into(), value));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, magnitude: Option<u64>) -> bool {
        let set = Set { name: name.into(), value: Value::Unknown, local: Some(false), magnitude };
        within_tier(&set, &Tier::default(), Some(Duration::from_secs(60))).is_err()
    }

    #[test]
    fn what_a_tier_bounds_is_lowered_and_never_raised() {
        let limits = [
            ("statement_timeout", 300_000),
            ("idle_in_transaction_session_timeout", 60_000),
            ("transaction_timeout", 3_600_000),
            ("work_mem", 8 * 1024 * 1024 / 5 / 4),
            ("max_parallel_workers_per_gather", 2),
        ];
        for (name, limit) in limits {
            assert!(!refused(name, Some(limit)) && !refused(name, Some(1)), "{name}");
            assert!(refused(name, Some(limit + 1)) && refused(name, Some(u64::MAX)) && refused(name, None), "{name}");
        }
        assert!(!refused("lock_timeout", Some(u64::MAX)));
    }
}
