//! What an organization may use, counted: seats (connections), permits (running statements), the result meter.
//!
//! Counts are atomics shared by all data threads; an organization's handle is resolved once, at login. Waiting is not
//! done here: `pool` keeps the line and asks for a permit when a statement's turn has come.

mod kept;
mod results;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;

use crate::config::Tier;
use crate::ids::OrgId;
use crate::rate::{Rate, Spent};
use crate::refusal::{Kind, Refusal};

pub use kept::{KEPT_BYTES_MAX, Kept, SAVEPOINTS_MAX, Share};
pub use results::{ResultMeter, Source};

/// What an organization's refused statements may take: a burst of 500, then 500 a second; those whose judging takes long
/// count for more, so that half of one core is the most that they get.
const REFUSALS: Rate = Rate { burst: Duration::from_secs(1), wait_max: Duration::from_secs(1) };

/// What the smallest refusal counts for.
const REFUSAL: Duration = Duration::from_millis(2);

/// All organizations that have sessions, or had them lately.
#[derive(Debug, Default)]
pub struct Limits {
    orgs: DashMap<OrgId, Arc<OrgLimits>>,
}

impl Limits {
    /// The handle of one organization, with `tier` in force from now on.
    pub fn organization(&self, org: &OrgId, tier: &Arc<Tier>) -> Arc<OrgLimits> {
        if let Some(known) = self.orgs.get(org) {
            known.set_tier(tier);
            return Arc::clone(&known);
        }
        Arc::clone(&self.orgs.entry(org.clone()).or_insert_with(|| Arc::new(OrgLimits::new(org.clone(), tier))))
    }

    /// Gives every organization the tier that `tier_of` names, on live sessions too; `None` leaves it as it is.
    pub fn retier(&self, tier_of: impl Fn(&OrgId, &Tier) -> Option<Arc<Tier>>) {
        for org in &self.orgs {
            if let Some(tier) = tier_of(&org.org, &org.tier()) {
                org.set_tier(&tier);
            }
        }
    }

    /// Forgets organizations without sessions.
    pub fn reap(&self) {
        self.orgs.retain(|_, org| Arc::strong_count(org) > 1 || org.connections.load(Ordering::Relaxed) > 0);
    }

    /// How many organizations are known now.
    pub fn len(&self) -> usize {
        self.orgs.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.orgs.is_empty()
    }
}

/// One organization's counts, across all its users and all data threads.
#[derive(Debug)]
pub struct OrgLimits {
    org: OrgId,
    tier: ArcSwap<Tier>,
    /// Of the tier, what each statement asks for: as words that are cheap to read.
    running_max: AtomicU32,
    weight: AtomicU32,
    connections: AtomicU32,
    running: AtomicU32,
    queued: AtomicU32,
    pinned: AtomicU32,
    kept: kept::Counts,
    /// What its refused statements have taken, in time since `since`.
    refusals: Spent,
    since: OnceLock<Instant>,
    /// Some line waits for a permit of this organization.
    starved: AtomicBool,
    /// The dispatchers to wake when a permit comes free; one a data thread and pool.
    wakers: Mutex<Vec<Waker>>,
}

impl OrgLimits {
    fn new(org: OrgId, tier: &Arc<Tier>) -> Self {
        Self {
            org,
            tier: ArcSwap::from(Arc::clone(tier)),
            running_max: AtomicU32::new(running_max(tier)),
            weight: AtomicU32::new(tier.weight),
            connections: AtomicU32::new(0),
            running: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            pinned: AtomicU32::new(0),
            kept: kept::Counts::default(),
            refusals: Spent::default(),
            since: OnceLock::new(),
            starved: AtomicBool::new(false),
            wakers: Mutex::new(Vec::new()),
        }
    }

    /// Whose counts these are.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// The tier in force.
    pub fn tier(&self) -> Arc<Tier> {
        self.tier.load_full()
    }

    /// Whether `tier` is the one in force; cheaper than [`Self::tier`].
    pub fn has_tier(&self, tier: &Arc<Tier>) -> bool {
        Arc::ptr_eq(&self.tier.load(), tier)
    }

    /// The tier's share of a pool beside others.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Statements running now.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Sessions now.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    fn set_tier(&self, tier: &Arc<Tier>) {
        if !self.has_tier(tier) {
            self.tier.store(Arc::clone(tier));
            self.running_max.store(running_max(tier), Ordering::SeqCst);
            self.weight.store(tier.weight, Ordering::Relaxed);
            // A higher limit may let a waiting statement run.
            self.wake();
        }
    }

    /// Takes a seat for one more session; refused (53300) when the tier's connections are all in use.
    pub fn seat(self: &Arc<Self>) -> Result<Seat, Refusal> {
        let limit = self.tier.load().max_client_connections;
        if take(&self.connections, limit) {
            return Ok(Seat(Arc::clone(self)));
        }
        let tier = self.tier.load();
        Err(Refusal::new(
            Kind::OrganizationConnections,
            format!(
                "too many connections for this organization: tier \"{}\" allows {}",
                tier.name,
                limit.unwrap_or(u32::MAX)
            ),
        ))
    }

    /// Counts a statement that was refused after `judging`; how long its session is to wait before the next one.
    ///
    /// Refused statements take no permit and stand in no line: this is all that keeps them from taking the whole proxy.
    pub fn refused(&self, judging: Duration, now: Instant) -> Duration {
        let cost = REFUSAL.max(judging * 2);
        self.refusals.spend(REFUSALS, cost, now.saturating_duration_since(*self.since.get_or_init(|| now)))
    }

    /// Takes a permit for one more running statement, if the tier's limit leaves one.
    pub fn permit(self: &Arc<Self>) -> Option<Permit> {
        take(&self.running, Some(self.running_max.load(Ordering::SeqCst))).then(|| Permit(Arc::clone(self)))
    }

    /// Takes a permit, or else has `waker` woken when one comes free.
    pub fn permit_or_wake(self: &Arc<Self>, waker: &Waker) -> Option<Permit> {
        if let Some(permit) = self.permit() {
            return Some(permit);
        }
        let mut wakers = self.wakers.lock();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        self.starved.store(true, Ordering::SeqCst);
        drop(wakers);
        // One may have come free in between.
        self.permit()
    }

    /// Takes a place in the organization's line; refused (53400) when the line is full.
    pub fn queue(self: &Arc<Self>) -> Result<Queued, Refusal> {
        let tier = self.tier.load();
        if take(&self.queued, Some(tier.max_queued_queries)) {
            return Ok(Queued(Arc::clone(self)));
        }
        let (name, wait) = (&tier.name, tier.max_queued_queries);
        let allowed = match self.limit_reached(&tier) {
            Some(run) => format!("tier \"{name}\" lets {run} run and {wait} wait"),
            None => format!("all server connections are busy, and tier \"{name}\" lets {wait} wait"),
        };
        let message = format!("too many statements of this organization are waiting: {allowed}");
        Err(Refusal::new(Kind::QueueFull, message))
    }

    /// Takes a pin: the right to keep a server connection beyond its transaction; refused (53400) when all are taken.
    pub fn pin(self: &Arc<Self>) -> Result<Pinned, Refusal> {
        let tier = self.tier.load();
        if take(&self.pinned, tier.max_pins) {
            return Ok(Pinned(Arc::clone(self)));
        }
        Err(Refusal::new(
            Kind::TooManyPins,
            format!(
                "too many sessions of this organization keep a server connection: tier \"{}\" allows {}",
                tier.name,
                shown(tier.max_pins)
            ),
        ))
    }

    /// The refusal (53400) of a statement that has waited too long: for its organization, or where that may run more, for
    /// a server connection.
    pub fn waited_too_long(&self, waited_s: u64) -> Refusal {
        let tier = self.tier.load();
        let why = match self.limit_reached(&tier) {
            Some(run) => {
                format!("tier \"{}\" lets {run} statements of this organization run at a time", tier.name)
            }
            None => "all server connections were busy".to_owned(),
        };
        Refusal::new(Kind::QueueTimeout, format!("this statement waited {waited_s} s for its turn: {why}"))
    }

    /// How many statements may run at a time, where that many run.
    fn limit_reached(&self, tier: &Tier) -> Option<u32> {
        tier.max_concurrent_queries.filter(|&most| self.running.load(Ordering::Relaxed) >= most)
    }

    fn wake(&self) {
        // Nearly always nobody is: to look costs less than to write.
        if self.starved.load(Ordering::SeqCst) && self.starved.swap(false, Ordering::SeqCst) {
            for waker in std::mem::take(&mut *self.wakers.lock()) {
                waker.wake();
            }
        }
    }
}

fn running_max(tier: &Tier) -> u32 {
    tier.max_concurrent_queries.unwrap_or(u32::MAX)
}

fn shown(limit: Option<u32>) -> String {
    limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string())
}

fn take(count: &AtomicU32, limit: Option<u32>) -> bool {
    let limit = limit.unwrap_or(u32::MAX);
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| (now < limit).then_some(now + 1)).is_ok()
}

/// A session's place among its organization's connections; given back on drop.
#[derive(Debug)]
pub struct Seat(Arc<OrgLimits>);

impl Seat {
    /// The organization's counts.
    pub fn limits(&self) -> &Arc<OrgLimits> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A counted running statement; given back on drop, which lets the next one of the organization run.
#[derive(Debug)]
pub struct Permit(Arc<OrgLimits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.wake();
    }
}

/// A waiting statement's place in its organization's line; given back on drop.
#[derive(Debug)]
pub struct Queued(Arc<OrgLimits>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The right of one session to keep a server connection beyond its transaction; given back on drop.
#[derive(Debug)]
pub struct Pinned(Arc<OrgLimits>);

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.pinned.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TierName;

    fn tier() -> Tier {
        Tier {
            name: TierName::new("starter"),
            max_concurrent_queries: Some(2),
            max_client_connections: Some(1),
            max_queued_queries: 1,
            max_pins: Some(2),
            ..Tier::default()
        }
    }

    fn acme(limits: &Limits, tier: &Arc<Tier>) -> Arc<OrgLimits> {
        limits.organization(&OrgId::new("acme").expect("a name"), tier)
    }

    #[test]
    fn seats_permits_and_places_in_line_are_bounded_and_come_back() {
        let (limits, tier) = (Limits::default(), Arc::new(tier()));
        let org = acme(&limits, &tier);
        let seat = org.seat().expect("a first seat");
        assert_eq!(org.seat().expect_err("no second").kind(), Kind::OrganizationConnections);
        drop(seat);
        assert!(org.seat().is_ok());
        let permits = (org.permit(), org.permit());
        assert!(permits.0.is_some() && permits.1.is_some() && org.permit().is_none());
        drop(permits);
        assert!(org.permit().is_some());
        let pins: Vec<_> = (0..2).map(|_| org.pin().expect("a pin")).collect();
        assert_eq!(org.pin().expect_err("no third").kind(), Kind::TooManyPins);
        drop(pins);
        assert!(org.pin().is_ok());
        let place = org.queue().expect("a place");
        assert_eq!(org.queue().expect_err("no second").kind(), Kind::QueueFull);
        drop(place);
        assert!(org.queue().is_ok());
    }

    #[test]
    fn the_sessions_of_an_organization_share_its_rate_of_refusals() {
        let (limits, tier) = (Limits::default(), Arc::new(tier()));
        let org = acme(&limits, &tier);
        let now = Instant::now();
        let free = (0..1000).take_while(|_| org.refused(Duration::ZERO, now).is_zero()).count();
        assert!((500..=501).contains(&free), "{free}");
        assert!(org.refused(Duration::ZERO, now) > Duration::ZERO);
        let other = limits.organization(&OrgId::new("globex").expect("a name"), &tier);
        assert_eq!(other.refused(Duration::ZERO, now), Duration::ZERO);
        assert_eq!(org.refused(Duration::from_secs(3600), now), REFUSALS.wait_max);
        // A second for a second.
        assert_eq!(org.refused(Duration::ZERO, now + 2 * REFUSALS.wait_max), Duration::ZERO);
    }

    #[test]
    fn a_refusal_that_took_long_to_judge_counts_for_twice_that_time() {
        let (limits, tier) = (Limits::default(), Arc::new(tier()));
        let org = acme(&limits, &tier);
        let now = Instant::now();
        assert_eq!(org.refused(Duration::from_millis(500), now), Duration::ZERO);
        assert!(org.refused(Duration::from_millis(250), now) >= Duration::from_millis(499));
    }

    #[test]
    fn who_waits_hears_of_the_tier_only_where_the_tier_is_why() {
        let (limits, tier) = (Limits::default(), Arc::new(tier()));
        let org = acme(&limits, &tier);
        let one = org.permit();
        let place = org.queue();
        let busy = [org.waited_too_long(1), org.queue().expect_err("the line is full")];
        assert!(busy.iter().all(|no| no.message().contains("all server connections") && !no.message().contains("run")));
        let two = org.permit();
        let reached = [org.waited_too_long(1), org.queue().expect_err("the line is full")];
        assert!(reached.iter().all(|no| no.message().contains("tier \"starter\" lets 2")));
        drop((one, two, place));
    }

    #[test]
    fn a_changed_tier_holds_for_those_who_are_here() {
        let (limits, old) = (Limits::default(), Arc::new(tier()));
        let org = acme(&limits, &old);
        let _running = (org.permit(), org.permit());
        assert!(org.permit().is_none());
        let new = Arc::new(Tier { max_concurrent_queries: None, ..tier() });
        limits.retier(|_, _| Some(Arc::clone(&new)));
        assert!(org.permit().is_some() && org.has_tier(&new));
    }

    #[test]
    fn organizations_without_sessions_are_forgotten() {
        let (limits, tier) = (Limits::default(), Arc::new(tier()));
        let org = acme(&limits, &tier);
        limits.reap();
        assert_eq!(limits.len(), 1);
        drop(org);
        limits.reap();
        assert!(limits.is_empty());
    }
}
