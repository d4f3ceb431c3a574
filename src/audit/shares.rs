//! What each organization may add to the trail: equal records of a second are one with a count, and what is beyond an
//! organization's share of a second is summed up in one record.
//!
//! So no loop of one organization fills the disk, or takes the place of another's records.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::Importance;
use crate::ids::OrgId;

/// Organizations that have a share of their own at one time; those beyond have one together.
const ORGANIZATIONS_MAX: usize = 16_384;
/// Networks of those who have no name yet that have a share of their own at one time.
const NETWORKS_MAX: usize = 1024;
/// A share that has not been used for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// What one organization may have written in one second, in bytes, by [`Importance`].
const BYTES_MAX: [usize; 3] = [128 * 1024, 64 * 1024, 512 * 1024];

/// All shares.
#[derive(Debug, Default)]
pub(super) struct Shares {
    organizations: DashMap<OrgId, Arc<Share>>,
    /// Of those who have no name yet, by where they come from.
    networks: DashMap<IpAddr, Arc<Share>>,
    /// Of everybody beyond the bounds.
    others: Arc<Share>,
}

impl Shares {
    /// The share of an organization, or of somebody at `address` who has no name.
    pub(super) fn of(&self, org: Option<&OrgId>, address: Option<IpAddr>) -> Arc<Share> {
        match (org, address) {
            (Some(org), _) => self.known(&self.organizations, org.clone(), ORGANIZATIONS_MAX),
            (None, Some(address)) => self.known(&self.networks, network(address), NETWORKS_MAX),
            (None, None) => Arc::clone(&self.others),
        }
    }

    fn known<K: Eq + Hash>(&self, shares: &DashMap<K, Arc<Share>>, key: K, most: usize) -> Arc<Share> {
        if let Some(share) = shares.get(&key) {
            return Arc::clone(&share);
        }
        if shares.len() >= most {
            return Arc::clone(&self.others);
        }
        Arc::clone(&shares.entry(key).or_default())
    }

    /// Forgets shares that nobody has used lately.
    pub(super) fn reap(&self, now: Instant) {
        let is_used = |share: &Arc<Share>| Arc::strong_count(share) > 1 || !share.is_idle(now);
        self.organizations.retain(|_, share| is_used(share));
        self.networks.retain(|_, share| is_used(share));
    }
}

/// Where somebody comes from: an address of IPv4, or the 64 bits of IPv6 that a single customer has at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        four => four,
    }
}

/// One organization's share.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// Its records that wait to be written.
    pub(super) queued: AtomicUsize,
    window: Mutex<Window>,
}

/// The second that is being counted.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    used: [usize; 3],
    recent: HashMap<u64, Arc<Repeats>>,
    left_out: Option<Arc<LeftOut>>,
}

/// What becomes of a record.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is written, and with it the count of those that are equal to it.
    New(Arc<Repeats>),
    /// It is counted in one that waits to be written.
    Repeated,
    /// It is counted in the organization's summary, which is to be queued where it is given.
    LeftOut(Option<Arc<LeftOut>>),
}

impl Share {
    /// Judges a record of about `bytes`; `key` is the same for equal ones, and none for one that has no equal.
    pub(super) fn take(&self, now: Instant, importance: Importance, key: Option<u64>, bytes: usize) -> Taken {
        let mut window = self.window.lock();
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            *window = Window { began: Some(now), ..Window::default() };
        }
        if let Some(known) = key.and_then(|key| window.recent.get(&key))
            && known.add()
        {
            return Taken::Repeated;
        }
        let used = &mut window.used[importance as usize];
        if *used + bytes > BYTES_MAX[importance as usize] {
            return Taken::LeftOut(window.leave_out(importance));
        }
        *used += bytes;
        let repeats = Arc::new(Repeats::default());
        if let Some(key) = key {
            window.recent.insert(key, Arc::clone(&repeats));
        }
        Taken::New(repeats)
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.window.lock().began.is_none_or(|began| now.saturating_duration_since(began) >= IDLE)
    }
}

impl Window {
    fn leave_out(&mut self, importance: Importance) -> Option<Arc<LeftOut>> {
        if self.left_out.as_ref().is_some_and(|left_out| left_out.add(importance)) {
            return None;
        }
        let left_out = Arc::new(LeftOut::default());
        left_out.add(importance);
        self.left_out = Some(Arc::clone(&left_out));
        Some(left_out)
    }
}

/// How often a record has been met while it waits to be written.
#[derive(Debug)]
pub(super) struct Repeats(Mutex<Option<u64>>);

impl Default for Repeats {
    fn default() -> Self {
        Self(Mutex::new(Some(1)))
    }
}

impl Repeats {
    /// Counts one more; `false`: the record has been written.
    fn add(&self) -> bool {
        let mut count = self.0.lock();
        *count = count.map(|count| count.saturating_add(1));
        count.is_some()
    }

    /// Takes the count for good.
    pub(super) fn take(&self) -> u64 {
        self.0.lock().take().unwrap_or(0)
    }
}

/// How many records of each importance were beyond an organization's share.
#[derive(Debug)]
pub(super) struct LeftOut(Mutex<Option<[u64; 3]>>);

impl Default for LeftOut {
    fn default() -> Self {
        Self(Mutex::new(Some([0; 3])))
    }
}

impl LeftOut {
    fn add(&self, importance: Importance) -> bool {
        match &mut *self.0.lock() {
            Some(counts) => {
                counts[importance as usize] += 1;
                true
            }
            None => false,
        }
    }

    /// Takes the counts for good.
    pub(super) fn take(&self) -> [u64; 3] {
        self.0.lock().take().unwrap_or_default()
    }
}

/// Counts one record of an organization that waits; given back on drop.
#[derive(Debug)]
pub(super) struct Place(Arc<Share>);

impl Place {
    pub(super) fn take(share: Arc<Share>) -> Self {
        share.queued.fetch_add(1, Relaxed);
        Self(share)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_records_of_a_second_are_one_with_a_count() {
        let (share, now) = (Share::default(), Instant::now());
        let Taken::New(first) = share.take(now, Importance::Refusal, Some(1), 300) else { panic!("it is new") };
        for _ in 0..1_000_000 {
            assert!(matches!(share.take(now, Importance::Refusal, Some(1), 300), Taken::Repeated));
        }
        assert!(matches!(share.take(now, Importance::Refusal, Some(2), 300), Taken::New(_)));
        assert_eq!((first.take(), first.take()), (1_000_001, 0));
        let Taken::New(next) = share.take(now, Importance::Refusal, Some(1), 300) else { panic!("it was written") };
        assert!(matches!(share.take(now + SECOND, Importance::Refusal, Some(1), 300), Taken::New(_)));
        assert_eq!(next.take(), 1);
    }

    #[test]
    fn beyond_its_share_an_organization_has_one_record_of_how_many() {
        let (share, now) = (Share::default(), Instant::now());
        let (mut written, mut summaries) = (0, Vec::new());
        for key in 0..10_000 {
            match share.take(now, Importance::Refusal, Some(key), 300) {
                Taken::New(_) => written += 1,
                Taken::Repeated => panic!("none is equal to another"),
                Taken::LeftOut(summary) => summaries.extend(summary),
            }
        }
        assert_eq!((written, summaries.len()), (64 * 1024 / 300, 1));
        assert_eq!(summaries[0].take(), [0, 10_000 - written, 0]);
        // Its logins, and the next second, are not touched by it.
        assert!(matches!(share.take(now, Importance::Session, None, 300), Taken::New(_)));
        assert!(matches!(share.take(now, Importance::Refusal, None, 300), Taken::LeftOut(Some(_))));
        assert!(matches!(share.take(now + SECOND, Importance::Refusal, None, 300), Taken::New(_)));
    }

    #[test]
    fn shares_are_bounded_and_forgotten() {
        let (shares, now) = (Shares::default(), Instant::now());
        let org = |number: usize| OrgId::new(&format!("org_{number}")).expect("a good name");
        for number in 0..ORGANIZATIONS_MAX {
            shares.of(Some(&org(number)), None).take(now, Importance::Session, None, 1);
        }
        assert!(Arc::ptr_eq(&shares.of(Some(&org(ORGANIZATIONS_MAX)), None), &shares.of(None, None)));
        assert!(!Arc::ptr_eq(&shares.of(Some(&org(1)), None), &shares.of(None, None)));
        let kept = shares.of(Some(&org(2)), None);
        shares.reap(now + IDLE);
        assert_eq!(shares.organizations.len(), 1);
        drop(kept);
    }

    #[test]
    fn strangers_have_a_share_by_where_they_come_from() {
        let shares = Shares::default();
        let of = |address: &str| shares.of(None, Some(address.parse().expect("an address")));
        assert!(Arc::ptr_eq(&of("192.0.2.1"), &of("::ffff:192.0.2.1")));
        assert!(!Arc::ptr_eq(&of("192.0.2.1"), &of("192.0.2.2")));
        assert!(Arc::ptr_eq(&of("2001:db8::1"), &of("2001:db8::ffff:1")));
        assert!(!Arc::ptr_eq(&of("2001:db8::1"), &of("2001:db8:0:1::1")));
        (0..2 * NETWORKS_MAX).for_each(|number| _ = shares.of(None, Some(IpAddr::V4((number as u32).into()))));
        assert_eq!(shares.networks.len(), NETWORKS_MAX);
        assert!(Arc::ptr_eq(&of("198.51.100.1"), &shares.others));
    }
}
