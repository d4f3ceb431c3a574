//! One organization's counts: in atomics, written by data threads, and as plain values, which a scrape can add and subtract.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::event::{OrgObserver, StatementClass, StatementDone};
use crate::refusal::Kind;

/// Upper bounds of the buckets of every histogram of times, in microseconds; one more bucket holds what is longer.
pub const BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;
const CLASSES: usize = StatementClass::ALL.len();
const KINDS: usize = Kind::ALL.len();
/// `storage_bytes` of an organization that has not been metered.
const UNMETERED: u64 = u64::MAX;

/// One organization's counts as they grow. Written without locks; every counter only rises.
#[derive(Debug)]
pub struct Counters {
    classes: [OnceLock<Box<ClassCounters>>; CLASSES],
    waits: Times,
    result_bytes: AtomicU64,
    refusals: OnceLock<Box<[AtomicU64; KINDS]>>,
    sessions: AtomicU32,
    storage_bytes: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            classes: Default::default(),
            waits: Times::default(),
            result_bytes: AtomicU64::new(0),
            refusals: OnceLock::new(),
            sessions: AtomicU32::new(0),
            storage_bytes: AtomicU64::new(UNMETERED),
        }
    }
}

impl Counters {
    /// A client of this organization has logged in.
    pub fn session_opened(&self) {
        self.sessions.fetch_add(1, Relaxed);
    }

    /// A session of this organization has ended; false when none was counted here.
    pub fn session_closed(&self) -> bool {
        self.sessions.fetch_update(Relaxed, Relaxed, |open| open.checked_sub(1)).is_ok()
    }

    /// Sessions open now.
    pub fn sessions(&self) -> u64 {
        u64::from(self.sessions.load(Relaxed))
    }

    /// A client of this organization heard a no.
    pub fn refused(&self, kind: Kind) {
        let refusals = self.refusals.get_or_init(|| Box::new([const { AtomicU64::new(0) }; KINDS]));
        refusals[kind as usize].fetch_add(1, Relaxed);
    }

    /// Notes what metering found, in bytes.
    pub fn set_storage(&self, bytes: u64) {
        self.storage_bytes.store(bytes, Relaxed);
    }

    /// What metering found last, in bytes.
    pub fn storage(&self) -> Option<u64> {
        Some(self.storage_bytes.load(Relaxed)).filter(|bytes| *bytes != UNMETERED)
    }

    /// Statements ended so far, of every class.
    pub fn statements(&self) -> u64 {
        self.classes.iter().filter_map(OnceLock::get).map(|class| class.results().iter().sum::<u64>()).sum()
    }

    /// The counts as plain values. Each is exact; together they may be a statement apart.
    pub fn read(&self) -> Tally {
        let mut tally = Tally {
            waits: self.waits.read(),
            result_bytes: self.result_bytes.load(Relaxed),
            refusals: BTreeMap::new(),
            classes: Default::default(),
        };
        for (class, counters) in tally.classes.iter_mut().zip(&self.classes) {
            *class = counters.get().map(|counters| Box::new(counters.read()));
        }
        for (index, count) in self.refusals.get().iter().flat_map(|refusals| refusals.iter()).enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                tally.refusals.insert(index, count);
            }
        }
        tally
    }
}

impl OrgObserver for Counters {
    fn statement(&self, done: &StatementDone) {
        let class = self.classes[done.class as usize].get_or_init(Box::default);
        class.latency.observe(done.latency);
        class.results[usize::from(done.failed)].fetch_add(1, Relaxed);
        self.waits.observe(done.waited);
        if done.result_bytes > 0 {
            self.result_bytes.fetch_add(done.result_bytes, Relaxed);
        }
    }
}

#[derive(Debug, Default)]
struct ClassCounters {
    latency: Times,
    /// Accepted by the server, and answered with an error.
    results: [AtomicU64; 2],
}

impl ClassCounters {
    fn results(&self) -> [u64; 2] {
        self.results.each_ref().map(|count| count.load(Relaxed))
    }

    fn read(&self) -> ClassTally {
        ClassTally { latency: self.latency.read(), results: self.results() }
    }
}

/// A histogram of times as it grows.
#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Times {
    fn observe(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        if us > 0 {
            self.sum_us.fetch_add(us, Relaxed);
        }
    }

    fn read(&self) -> Histogram {
        Histogram {
            buckets: self.buckets.each_ref().map(|count| count.load(Relaxed)),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

/// A histogram of times: how many fell into each bucket, and their sum in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum_us: u64,
}

impl Histogram {
    /// How many times were observed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum, in seconds.
    pub fn sum_s(&self) -> f64 {
        seconds(self.sum_us)
    }

    /// Upper bound in seconds, and how many fell between the bound before and this one.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS_US.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        bounds.zip(self.buckets).collect()
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = with(*mine, theirs);
        }
        self.sum_us = with(self.sum_us, other.sum_us);
    }
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years of microseconds")]
pub fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// What one class of statements came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassTally {
    /// From the client's message to the end of the answer.
    pub latency: Histogram,
    /// Accepted by the server, and answered with an error.
    pub results: [u64; 2],
}

/// One organization's counts at one moment, or the difference of two moments, or the sum of several organizations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// By class, in the order of [`StatementClass::ALL`]; none where there was no such statement.
    pub classes: [Option<Box<ClassTally>>; CLASSES],
    /// How long statements waited for a server connection.
    pub waits: Histogram,
    /// Bytes of rows and COPY data forwarded.
    pub result_bytes: u64,
    /// By the index of the kind in [`Kind::ALL`]; none are zero.
    pub refusals: BTreeMap<usize, u64>,
}

impl Tally {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// What has come since `earlier`.
    pub fn since(mut self, earlier: &Self) -> Self {
        self.combine(earlier, u64::saturating_sub);
        self.refusals.retain(|_, count| *count > 0);
        self
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.waits.count() == 0 && self.refusals.is_empty() && self.result_bytes == 0
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64 + Copy) {
        for (mine, theirs) in self.classes.iter_mut().zip(&other.classes) {
            let Some(theirs) = theirs else { continue };
            let mine = mine.get_or_insert_default();
            mine.latency.combine(&theirs.latency, with);
            for (mine, theirs) in mine.results.iter_mut().zip(theirs.results) {
                *mine = with(*mine, theirs);
            }
        }
        self.waits.combine(&other.waits, with);
        self.result_bytes = with(self.result_bytes, other.result_bytes);
        for (kind, count) in &other.refusals {
            let mine = self.refusals.entry(*kind).or_default();
            *mine = with(*mine, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(class: StatementClass, latency_us: u64) -> StatementDone {
        StatementDone {
            class,
            latency: Duration::from_micros(latency_us),
            waited: Duration::ZERO,
            result_bytes: 10,
            failed: false,
        }
    }

    #[test]
    fn a_time_on_a_bound_falls_into_that_bucket_and_one_beyond_all_into_the_last() {
        let times = Times::default();
        for us in [0, 500, 501, 30_000_000, 30_000_001] {
            times.observe(Duration::from_micros(us));
        }
        let read = times.read();
        assert_eq!((read.buckets[0], read.buckets[1], read.buckets[14], read.buckets[15]), (2, 1, 1, 1));
        assert_eq!(read.sum_us, 60_001_002);
        assert_eq!(read.count(), 5);
    }

    #[test]
    fn kinds_and_classes_are_numbered_as_their_lists_are() {
        assert!(Kind::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
        assert!(StatementClass::ALL.iter().enumerate().all(|(index, class)| *class as usize == index));
    }

    #[test]
    fn a_difference_added_to_the_earlier_moment_gives_the_later_one() {
        let counters = Counters::default();
        counters.statement(&done(StatementClass::Read, 700));
        counters.refused(Kind::Forbidden);
        let earlier = counters.read();
        counters.statement(&done(StatementClass::Read, 700));
        counters.statement(&done(StatementClass::Copy, 7_000));
        counters.refused(Kind::QueueFull);
        let later = counters.read();
        let between = later.clone().since(&earlier);
        assert_eq!(between.waits.count(), 2);
        assert_eq!(between.refusals.len(), 1);
        let mut sum = earlier;
        sum.add(&between);
        assert_eq!(sum, later);
        assert!(later.clone().since(&later).is_empty());
    }

    #[test]
    fn more_goodbyes_than_greetings_never_make_a_negative_gauge() {
        let counters = Counters::default();
        counters.session_opened();
        assert!(counters.session_closed());
        assert!(!counters.session_closed());
        assert_eq!(counters.sessions(), 0);
    }
}
