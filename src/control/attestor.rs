//! Keeps every shard attested: before it is served, again when it comes back from a failure, and every few minutes.
//!
//! It alone opens and shuts the gates that pools ask.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::attest::{Depth, Finding, NotKnown, attest, code_leaves};
use super::snapshots::{ShardPlan, Snapshots};
use crate::config::Breach;
use crate::event::Event;
use crate::ids::ShardName;
use crate::pool::{Connection, Fitness, Gate};
use crate::server::ConnectError;

/// How often the attestor looks what is due.
const TICK: Duration = Duration::from_millis(50);
/// The first and the longest pause after a shard that could not be reached.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How soon a shard that is not served for a breach is looked at again, if not sooner by the configuration.
const AFTER_BREACH: Duration = Duration::from_secs(2);

/// What the server's operator sees of these connections.
const ATTEST_NAME: &str = "partywall-attest";

/// Why a shard could not be attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// It cannot be reached, or its login role will not do.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It was lost on the way, or could not answer.
    #[error("attesting it failed: {0}")]
    NotKnown(#[from] NotKnown),
}

/// Attests one shard over a connection of its own.
///
/// # Errors
/// When it cannot be reached, or is lost on the way.
pub async fn attest_shard(plan: &ShardPlan, depth: Depth, allow: &[String]) -> Result<Vec<Finding>, AttestError> {
    look(plan, depth, allow, None).await
}

/// The same; `gate` hears whether code in the database may leave state on a server connection.
async fn look(
    plan: &ShardPlan,
    depth: Depth,
    allow: &[String],
    gate: Option<&Gate>,
) -> Result<Vec<Finding>, AttestError> {
    let spec = plan.spec.clone().named(ATTEST_NAME);
    let mut connection = Connection::open(&spec, &plan.telling).await?;
    let depth = if connection.server.in_recovery { Depth::Reading } else { depth };
    if let Some(gate) = gate {
        gate.set_code(code_leaves(&mut connection).await.map_err(NotKnown::from)?);
    }
    let findings = attest(&mut connection, &plan.telling, depth, allow).await?;
    connection.close().await;
    Ok(findings)
}

/// What the attestor remembers of a shard.
#[derive(Debug)]
struct Watched {
    epoch: u64,
    due: Instant,
    back_off: Duration,
    running: bool,
    told: Option<String>,
    /// Whether it was looked at with writing canaries, and had no breach: what only they see must not be forgotten.
    written: bool,
    /// Whether the last look told nothing, which is said once.
    in_doubt: bool,
}

impl Watched {
    fn new(epoch: u64) -> Self {
        let now = Instant::now();
        Self { epoch, due: now, back_off: Duration::ZERO, running: false, told: None, written: false, in_doubt: false }
    }
}

type Outcome = (ShardName, Result<Vec<Finding>, AttestError>);

/// Begins to attest whatever is due, on a thread of its own; it ends when nobody holds `snapshots` any more.
///
/// # Errors
/// When there is no thread, or no runtime for it.
pub fn keep_attested(snapshots: &Arc<Snapshots>) -> io::Result<()> {
    let snapshots = Arc::downgrade(snapshots);
    // Server connections stay on the thread that opened them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || runtime.block_on(tokio::task::LocalSet::new().run_until(attest_what_is_due(snapshots)));
    thread::Builder::new().name("attestor".to_owned()).spawn(work).map(drop)
}

async fn attest_what_is_due(snapshots: Weak<Snapshots>) {
    let mut watched: HashMap<ShardName, Watched> = HashMap::new();
    let mut running: JoinSet<Outcome> = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let Some(snapshots) = snapshots.upgrade() else { return };
                begin(&snapshots, &mut watched, &mut running);
            }
            Some(Ok((shard, outcome))) = running.join_next() => {
                let Some(snapshots) = snapshots.upgrade() else { return };
                if let Some(watched) = watched.get_mut(&shard) {
                    watched.running = false;
                    conclude(&snapshots, &shard, watched, outcome);
                }
            }
        }
    }
}

/// Starts what is due.
fn begin(snapshots: &Snapshots, watched: &mut HashMap<ShardName, Watched>, running: &mut JoinSet<Outcome>) {
    let plans = Arc::clone(&snapshots.shards.borrow());
    watched.retain(|name, _| plans.iter().any(|plan| plan.shard.name == *name));
    let (now, config) = (Instant::now(), snapshots.config.load());
    for plan in plans.iter() {
        let name = &plan.shard.name;
        let state = watched.entry(name.clone()).or_insert_with(|| Watched::new(plan.epoch));
        let gate = snapshots.board.gate(name);
        if config.check.on_breach == Breach::Warn && gate.fitness() == Fitness::Unknown {
            // Whatever will be found, it is served; so nobody need wait for it.
            gate.set(Fitness::Fit);
            state.due = now;
        }
        let lost = gate.fitness() == Fitness::Unknown && state.back_off.is_zero();
        if state.running || (!lost && now < state.due && state.epoch == plan.epoch) {
            continue;
        }
        state.epoch = plan.epoch;
        state.running = true;
        let depth = if state.written { Depth::Reading } else { Depth::Writing };
        let (plan, allow) = (plan.clone(), config.check.allow.clone());
        running.spawn_local(async move {
            let outcome = look(&plan, depth, &allow, Some(&gate)).await;
            (plan.shard.name, outcome)
        });
    }
}

/// Opens or shuts the gate by what was found.
fn conclude(
    snapshots: &Snapshots,
    shard: &ShardName,
    watched: &mut Watched,
    outcome: Result<Vec<Finding>, AttestError>,
) {
    let (config, gate) = (snapshots.config.load(), snapshots.board.gate(shard));
    let findings = match outcome {
        Ok(findings) => findings,
        Err(error) => {
            // Nothing is known, so nothing changes: a gate that is open stays open, one that is shut stays shut.
            let served = gate.is_open();
            match error {
                AttestError::NotKnown(_) if !std::mem::replace(&mut watched.in_doubt, true) => {
                    tracing::warn!(%shard, %error, served, "a shard could not be attested; it is tried again soon");
                }
                // Whoever wants to be served hears of it from the pools, which cannot connect either.
                _ => tracing::debug!(%shard, %error, "a shard could not be attested"),
            }
            watched.back_off = (watched.back_off * 2).clamp(BACK_OFF.0, BACK_OFF.1);
            watched.due = Instant::now() + watched.back_off;
            return;
        }
    };
    watched.back_off = Duration::ZERO;
    let breach = findings
        .iter()
        .filter(|finding| finding.is_breach())
        .map(ToString::to_string)
        .reduce(|all, one| all + "; " + &one);
    let refused = breach.clone().filter(|_| config.check.on_breach == Breach::Refuse);
    let pause = if refused.is_some() { config.check.interval.min(AFTER_BREACH) } else { config.check.interval };
    watched.due = Instant::now() + pause;
    watched.written = breach.is_none();
    gate.set(if refused.is_some() { Fitness::Unfit } else { Fitness::Fit });
    if std::mem::take(&mut watched.in_doubt) {
        tracing::info!(%shard, "the shard could be attested again");
    }
    if breach.is_none() && watched.told.as_ref().is_some_and(|told| !told.is_empty()) {
        tracing::info!(%shard, "the database keeps organizations apart again: it is served");
    }
    let news = watched.told.as_ref() != Some(breach.as_ref().unwrap_or(&String::new()));
    if news {
        tell(shard, &findings, refused.is_some());
        snapshots.observer.event(&Event::ShardAttested {
            shard: shard.clone(),
            breach: breach.clone(),
            served: refused.is_none(),
        });
    }
    watched.told = Some(breach.unwrap_or_default());
}

/// Writes what was found to the log: each breach by itself, and how many weaknesses there are.
fn tell(shard: &ShardName, findings: &[Finding], refused: bool) {
    for finding in findings.iter().filter(|finding| finding.is_breach()) {
        let mend = &finding.mend;
        if refused {
            tracing::error!(%shard, %finding, mend, "the database does not keep organizations apart: it is not served");
        } else {
            tracing::error!(%shard, %finding, mend, "the database does not keep organizations apart, and is served all the same");
        }
    }
    let weak = findings.iter().filter(|finding| !finding.is_breach() && !finding.allowed).count();
    let allowed = findings.iter().filter(|finding| finding.allowed).count();
    if weak > 0 {
        tracing::warn!(%shard, weak, allowed, "the database has weak walls: `partywall check` names them");
    } else if allowed > 0 {
        tracing::info!(%shard, allowed, "findings are allowed by the configuration: `partywall check` names them");
    }
}
