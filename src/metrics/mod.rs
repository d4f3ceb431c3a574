//! Counts what happens, per organization and in all, and writes it for Prometheus at each scrape.
//!
//! Data threads count through a handle resolved at login ([`Counters`]), never through a map. Organizations as label
//! values are bounded: a scrape names the most active ones and sums the rest as `other`. Each count is told to exactly
//! one series, so that every series only rises and their sum is exact, whichever organizations are named when.

mod exposition;
mod ledger;
mod process;
mod tally;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::event::{CloseReason, Event, Observer, OrgObserver};
use crate::ids::{OrgId, ShardName};
use crate::pool::stats::PoolStats;
use crate::refusal::Kind;

pub use exposition::CONTENT_TYPE;
pub use tally::Counters;

use exposition::{OrganizationSeries, ShardSeries, Snapshot};
use ledger::Ledger;
use process::Process;

/// How many organizations a scrape names, where nobody says otherwise.
pub const NAMED_DEFAULT: usize = 50;
/// Organizations that are counted apart at one time; beyond it newcomers are counted as `other`.
const ORGANIZATIONS_MAX: usize = 16_384;
/// The label value of everybody who is not named.
const OTHER: &str = "other";
const KINDS: usize = Kind::ALL.len();
/// Ways for a session to end: a kind of refusal, or one of three others.
const CLOSINGS: usize = KINDS + 3;

/// Counters of the audit trail; the audit room counts, a scrape reads.
#[derive(Debug, Default)]
pub struct AuditCounters {
    /// Records written to the file.
    pub written_total: AtomicU64,
    /// Records about statements that found the queue full, or the file unwritable.
    pub statements_dropped_total: AtomicU64,
    /// Records about connects, disconnects and refusals that found the queue full, or the file unwritable.
    pub security_dropped_total: AtomicU64,
    /// Records that were beyond their organization's share of the trail, and stand in a summary.
    pub summarized_total: AtomicU64,
    /// Attempts to write to the file that failed.
    pub write_failures_total: AtomicU64,
}

/// All that is counted. Shared by data threads and the admin door; nothing in it blocks a data thread but a look-up at
/// login.
#[derive(Debug)]
pub struct Metrics {
    organizations: DashMap<OrgId, Arc<Counters>>,
    /// Whoever came when [`ORGANIZATIONS_MAX`] were there already, and whoever was refused before having a session.
    overflow: Arc<Counters>,
    ledger: Mutex<Ledger>,
    closed: [AtomicU64; CLOSINGS],
    logins_refused: [AtomicU64; KINDS],
    pools: Mutex<Vec<Arc<PoolStats>>>,
    audit: Arc<AuditCounters>,
    /// Whether each shard's walls held when they were last looked at.
    attested: Mutex<BTreeMap<ShardName, bool>>,
    named_max: usize,
}

impl Metrics {
    /// Nothing counted yet; a scrape will name at most `named_max` organizations.
    pub fn new(named_max: usize) -> Self {
        Self {
            organizations: DashMap::new(),
            overflow: Arc::default(),
            ledger: Mutex::default(),
            closed: [const { AtomicU64::new(0) }; CLOSINGS],
            logins_refused: [const { AtomicU64::new(0) }; KINDS],
            pools: Mutex::default(),
            audit: Arc::default(),
            attested: Mutex::default(),
            named_max,
        }
    }

    /// Adds a pool to what a scrape shows. It is forgotten when its owner has dropped it.
    pub fn watch_pool(&self, stats: Arc<PoolStats>) {
        self.pools.lock().push(stats);
    }

    /// The counters that the audit trail is to use.
    pub fn audit(&self) -> Arc<AuditCounters> {
        Arc::clone(&self.audit)
    }

    /// Notes an organization's storage as metered, in bytes; of no effect for one that has no sessions.
    pub fn set_storage(&self, org: &OrgId, bytes: u64) {
        if let Some(counters) = self.organizations.get(org) {
            counters.set_storage(bytes);
        }
    }

    /// Everything, as OpenMetrics text ([`CONTENT_TYPE`]). Reads `/proc`: not for a data thread.
    pub fn render(&self, now: Instant) -> Result<String, fmt::Error> {
        let organizations = self.sweep(now);
        let snapshot = Snapshot {
            organizations,
            organizations_known: self.organizations.len(),
            closed: Some(self.closed.each_ref().map(|count| count.load(Relaxed))),
            logins_refused: Some(self.logins_refused.each_ref().map(|count| count.load(Relaxed))),
            shards: self.shards(),
            audit: Some(Arc::clone(&self.audit)),
            attested: self.attested.lock().iter().map(|(shard, holds)| (shard.to_string(), *holds)).collect(),
        };
        snapshot.render(Some(Process::now()))
    }

    /// One organization's own counts since it came, as OpenMetrics text; none when it is not known here.
    pub fn render_org(&self, org: &OrgId) -> Option<Result<String, fmt::Error>> {
        let counters = Arc::clone(&*self.organizations.get(org)?);
        let series = OrganizationSeries {
            label: org.to_string(),
            tally: counters.read(),
            sessions: counters.sessions(),
            storage_bytes: counters.storage(),
        };
        let snapshot = Snapshot { organizations: vec![series], ..Snapshot::default() };
        Some(snapshot.render(None))
    }

    /// Shares what was counted since the last time out to the series, and forgets organizations that have had no
    /// session for an hour. A scrape does it; whoever has no scraper calls it now and then.
    pub fn sweep(&self, now: Instant) -> Vec<OrganizationSeries> {
        self.ledger.lock().share_out(&self.organizations, &self.overflow, self.named_max, now)
    }

    /// This organization's counters: its own, or those of everybody else when too many are known.
    fn counters(&self, org: &OrgId) -> Arc<Counters> {
        if let Some(counters) = self.organizations.get(org) {
            return Arc::clone(&counters);
        }
        if self.organizations.len() >= ORGANIZATIONS_MAX {
            return Arc::clone(&self.overflow);
        }
        Arc::clone(&self.organizations.entry(org.clone()).or_default())
    }

    fn session_closed(&self, org: &OrgId, reason: CloseReason) {
        self.closed[closing(reason)].fetch_add(1, Relaxed);
        let counted = self.organizations.get(org).is_some_and(|counters| counters.session_closed());
        if !counted {
            self.overflow.session_closed();
        }
    }

    fn login_refused(&self, org: Option<&OrgId>, kind: Kind) {
        self.logins_refused[kind as usize].fetch_add(1, Relaxed);
        let Some(org) = org else { return };
        // A no alone does not make an organization known: a suspended one would stay for ever.
        match self.organizations.get(org) {
            Some(counters) => counters.refused(kind),
            None => self.overflow.refused(kind),
        }
    }

    fn shards(&self) -> Vec<ShardSeries> {
        let mut pools = self.pools.lock();
        pools.retain(|stats| Arc::strong_count(stats) > 1);
        ShardSeries::sum(&pools)
    }
}

impl Observer for Metrics {
    fn event(&self, event: &Event) {
        match event {
            Event::SessionOpened(facts) => self.counters(&facts.org).session_opened(),
            Event::SessionClosed { facts, reason, .. } => self.session_closed(&facts.org, *reason),
            Event::LoginRefused { org, kind, .. } => self.login_refused(org.as_ref(), *kind),
            Event::Refused { facts, kind, .. } => self.counters(&facts.org).refused(*kind),
            Event::ShardAttested { shard, breach, .. } => {
                self.attested.lock().insert(shard.clone(), breach.is_none());
            }
            Event::Statement { .. } | Event::ShardUp(_) | Event::ShardDown(..) => {}
        }
    }

    fn organization(&self, org: &OrgId) -> Option<Arc<dyn OrgObserver>> {
        Some(self.counters(org))
    }
}

fn closing(reason: CloseReason) -> usize {
    match reason {
        CloseReason::Refused(kind) => kind as usize,
        CloseReason::ClientTerminate => KINDS,
        CloseReason::ClientGone => KINDS + 1,
        CloseReason::Shutdown => KINDS + 2,
    }
}

/// The `reason` of each place in [`Metrics::closed`].
fn closing_labels() -> impl Iterator<Item = &'static str> {
    let others = [CloseReason::ClientTerminate, CloseReason::ClientGone, CloseReason::Shutdown];
    Kind::ALL.into_iter().map(CloseReason::Refused).chain(others).map(CloseReason::as_str)
}

#[cfg(test)]
mod tests;
