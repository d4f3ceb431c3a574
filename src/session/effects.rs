//! What a statement asks of its session: what transaction pooling cannot hold is refused, the rest is remembered.

use super::Session;
use crate::config::Tier;
use crate::guard::{Change, Guard, Rights, Set, Taints, Verdict};
use crate::handshake::StartupParameters;
use crate::pool::Taint;
use crate::refusal::{Kind, Refusal};

impl Session {
    /// Whether this session can carry what `verdict` says the statement does.
    pub(super) fn admit(&self, verdict: &Verdict) -> Result<(), Refusal> {
        if verdict.changes_nothing() {
            return Ok(());
        }
        verdict.changes().try_for_each(|change| self.admit_change(change))
    }

    fn admit_change(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Set(set) => within_tier(set, &self.tier),
            Change::Reset { name, .. } => self.admit_reset(name),
            Change::ResetAll => Err(unpooled("RESET ALL", "RESET each setting by its name.")),
            Change::DiscardAll => Err(unpooled("DISCARD ALL", "RESET each setting by its name.")),
            Change::Prepare { .. } | Change::Execute(_) => Err(unpooled(
                "PREPARE and EXECUTE",
                "Prepare statements with the extended query protocol, as drivers do.",
            )),
            Change::Deallocate(_) | Change::DiscardPlans => {
                Err(unpooled("DEALLOCATE", "Close statements with the extended query protocol, as drivers do."))
            }
            Change::DeclareCursor { hold: true, .. } => {
                Err(unpooled("a cursor WITH HOLD", "Use a cursor inside a transaction."))
            }
            Change::CreateTemp => Err(unpooled("a temporary object", "Use a common table expression (WITH).")),
            Change::Listen(_) => Err(unpooled("LISTEN", "Poll a table instead.")),
            Change::AdvisoryLock { session: true } => Err(unpooled(
                "a session-level advisory lock",
                "Take the lock of the transaction: pg_advisory_xact_lock.",
            )),
            Change::DiscardSequences
            | Change::DiscardTemp
            | Change::Begin
            | Change::Commit { .. }
            | Change::Rollback { .. }
            | Change::Savepoint(_)
            | Change::Release(_)
            | Change::RollbackTo(_)
            | Change::DeclareCursor { hold: false, .. }
            | Change::CloseCursor(_)
            | Change::Unlisten(_)
            | Change::Notify
            | Change::AdvisoryLock { session: false }
            | Change::AdvisoryUnlock { .. }
            | Change::CopyIn
            | Change::CopyOut => Ok(()),
        }
    }

    /// A RESET goes to the value of the connection's start-up, which for what the tier holds would be none.
    fn admit_reset(&self, name: &str) -> Result<(), Refusal> {
        if self.base_context().iter().any(|held| *held.name == *name) {
            let message = format!("\"{name}\" is held by the tier and cannot be reset");
            return Err(Refusal::new(Kind::Forbidden, message).with_hint("SET it to a lower value instead."));
        }
        Ok(())
    }

    /// Remembers what the statement may leave behind; called when it has its server connection.
    pub(super) fn apply(&mut self, verdict: &Verdict) -> Result<(), Refusal> {
        let taints = verdict.taints();
        if !taints.is_empty()
            && let Some(lease) = &mut self.lease
        {
            lease.sequences |= taints.contains(Taints::SEQUENCES);
            if taints.contains(Taints::SEED) {
                lease.taint(Taint::Close);
            }
            let lasting = [Taints::TEMPORARY, Taints::CURSOR, Taints::PREPARED, Taints::ADVISORY_LOCK, Taints::LISTEN];
            if lasting.iter().any(|&taint| taints.contains(taint)) {
                lease.taint(Taint::Discard);
            }
        }
        if verdict.changes_nothing() {
            return Ok(());
        }
        for change in verdict.changes() {
            let name = match change {
                Change::Set(set) if set.local != Some(true) => &set.name,
                Change::Reset { name, local: false } => name,
                _ => continue,
            };
            if !self.own.touch(name) {
                return Err(Refusal::new(Kind::StatementTooLarge, "this session has set too many settings"));
            }
        }
        Ok(())
    }
}

fn unpooled(what: &str, instead: &'static str) -> Refusal {
    Refusal::new(Kind::NotSupported, format!("{what} is not supported in transaction pooling")).with_hint(instead)
}

/// What the tier bounds may be lowered, never raised, and never to what only the server knows.
fn within_tier(set: &Set, tier: &Tier) -> Result<(), Refusal> {
    let limit_ms = match &*set.name {
        "statement_timeout" => tier.query_timeout.as_millis(),
        _ => return Ok(()),
    };
    if set.magnitude.is_some_and(|ms| ms > 0 && u128::from(ms) <= limit_ms) {
        return Ok(());
    }
    Err(Refusal::new(
        Kind::Forbidden,
        format!("\"{}\" can be lowered but not raised: tier \"{}\" allows {limit_ms} ms", set.name, tier.name),
    )
    .with_hint("Ask for a number of milliseconds that is not above the tier's."))
}

/// The settings that a session begins with, as the client asked for them at start-up, if it may have them all.
pub fn startup_settings(
    guard: &Guard,
    rights: &Rights,
    tier: &Tier,
    parameters: &StartupParameters,
) -> Result<Vec<(String, String)>, Refusal> {
    let mut settings = Vec::new();
    if let Some(name) = &parameters.application_name {
        settings.push(("application_name".to_owned(), name.clone()));
    }
    for (name, value) in &parameters.settings {
        let set = guard.may_set(name, value, rights)?;
        within_tier(&set, tier)?;
        settings.push((set.name.to_string(), value.clone()));
    }
    Ok(settings)
}
