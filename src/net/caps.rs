//! How many clients may be connected: in all, and from one address; whoever has not logged in yet counts as well, and
//! gives way.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::refusal::{Kind, Refusal};

/// Which of the caps is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// `max_client_conn`.
    #[error("the proxy has all the client connections it may have")]
    InAll,
    /// `max_client_conn_per_address`.
    #[error("this address has all the client connections it may have")]
    FromAddress,
}

impl From<TooMany> for Refusal {
    fn from(too_many: TooMany) -> Self {
        Self::new(
            Kind::TooManyConnections,
            match too_many {
                TooMany::InAll => "sorry, too many clients already",
                TooMany::FromAddress => "too many connections from this address",
            },
        )
    }
}

/// How long a client that has begun to log in may say nothing before somebody new may have its place.
pub const SILENT_AFTER: Duration = Duration::from_secs(2);

/// Counts client connections across all data threads, and knows those that have not logged in yet.
///
/// Whoever has logged in keeps its place. Of the others one gives way where a cap is full and somebody new comes: first
/// whoever is refused already and waits for its answer, then the oldest that has not sent a byte, then the oldest that has
/// been silent for [`SILENT_AFTER`]. So nobody keeps others out by connecting and saying nothing.
///
/// IPv6 addresses are counted by their /64, since one customer has a whole one; IPv4 inside IPv6 counts as IPv4.
#[derive(Debug)]
pub struct Caps {
    counts: Mutex<Counts>,
    in_all_max: AtomicUsize,
    per_address_max: AtomicUsize,
}

#[derive(Debug, Default)]
struct Counts {
    in_all: usize,
    per_address: HashMap<IpAddr, usize, ahash::RandomState>,
    /// Who has not logged in, the oldest first.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

/// One that has not logged in.
#[derive(Debug)]
struct Waiting {
    address: Option<IpAddr>,
    step: Step,
    since: Instant,
    given_up: Arc<Notify>,
}

/// How far a login has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Not a byte has been sent.
    Silent,
    /// Something has been sent.
    Begun,
    /// It is refused, and waits for the answer.
    Refused,
}

impl Counts {
    fn count_in(&mut self, address: IpAddr) {
        *self.per_address.entry(address).or_insert(0) += 1;
    }

    fn count_out(&mut self, address: Option<IpAddr>) {
        self.in_all -= 1;
        let Some(address) = address else { return };
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }

    fn of(&self, address: IpAddr) -> usize {
        self.per_address.get(&address).copied().unwrap_or(0)
    }

    /// Takes the place of one that has not logged in, of this address if one is given; whether there was one to take.
    fn take_place(&mut self, of: Option<IpAddr>, now: Instant) -> bool {
        let mut best: Option<(u8, u64)> = None;
        for (&number, waiting) in &self.waiting {
            let order = match waiting.step {
                Step::Refused => 0,
                Step::Silent => 1,
                Step::Begun if now.saturating_duration_since(waiting.since) >= SILENT_AFTER => 2,
                Step::Begun => continue,
            };
            if (of.is_none() || of == waiting.address) && best.is_none_or(|(least, _)| order < least) {
                best = Some((order, number));
            }
        }
        let Some(waiting) = best.and_then(|(_, number)| self.waiting.remove(&number)) else { return false };
        self.count_out(waiting.address);
        waiting.given_up.notify_one();
        true
    }
}

impl Caps {
    /// Counters at zero.
    pub fn new(in_all_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::default(),
            in_all_max: AtomicUsize::new(in_all_max),
            per_address_max: AtomicUsize::new(per_address_max),
        })
    }

    /// Changes the caps; who is inside stays.
    pub fn set_max(&self, in_all_max: usize, per_address_max: usize) {
        self.in_all_max.store(in_all_max, Ordering::Relaxed);
        self.per_address_max.store(per_address_max, Ordering::Relaxed);
    }

    /// How many are inside.
    pub fn in_all(&self) -> usize {
        self.counts.lock().in_all
    }

    /// Counts one connection in, or says which cap is full and has nobody to give way. The connection counts until the
    /// ticket drops. Without an address it is one of a trusted proxy's: [`Ticket::come_from`] says later whose.
    pub fn try_enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Ticket, TooMany> {
        let (address, now) = (address.map(counted_as), Instant::now());
        let mut counts = self.counts.lock();
        if let Some(address) = address {
            self.make_room(&mut counts, address, now)?;
        }
        if counts.in_all >= self.in_all_max.load(Ordering::Relaxed) && !counts.take_place(None, now) {
            return Err(TooMany::InAll);
        }
        counts.in_all += 1;
        if let Some(address) = address {
            counts.count_in(address);
        }
        let (number, given_up) = (counts.next, Arc::new(Notify::new()));
        counts.next += 1;
        let waiting = Waiting { address, step: Step::Silent, since: now, given_up: Arc::clone(&given_up) };
        counts.waiting.insert(number, waiting);
        drop(counts);
        let address = address.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Ticket { caps: Arc::clone(self), number, address, logged_in: AtomicBool::new(false), given_up })
    }

    fn make_room(&self, counts: &mut Counts, address: IpAddr, now: Instant) -> Result<(), TooMany> {
        let full = counts.of(address) >= self.per_address_max.load(Ordering::Relaxed);
        if full && !counts.take_place(Some(address), now) { Err(TooMany::FromAddress) } else { Ok(()) }
    }
}

/// One connection that counts. Dropping it counts the connection out.
#[derive(Debug)]
pub struct Ticket {
    caps: Arc<Caps>,
    number: u64,
    address: OnceLock<IpAddr>,
    logged_in: AtomicBool,
    given_up: Arc<Notify>,
}

impl Ticket {
    /// Counts a connection that a proxy has handed on as one from `address`; refused where that has all it may have.
    pub fn come_from(&self, address: IpAddr) -> Result<(), TooMany> {
        let address = counted_as(address);
        let mut counts = self.caps.counts.lock();
        self.caps.make_room(&mut counts, address, Instant::now())?;
        // Else somebody new has this place: there is nothing to count.
        if counts.waiting.contains_key(&self.number) && self.address.set(address).is_ok() {
            counts.count_in(address);
            if let Some(waiting) = counts.waiting.get_mut(&self.number) {
                waiting.address = Some(address);
            }
        }
        Ok(())
    }

    /// Says that the login has come so far: from now on the client is silent anew.
    pub fn step(&self, step: Step) {
        if let Some(waiting) = self.caps.counts.lock().waiting.get_mut(&self.number) {
            waiting.step = step;
            waiting.since = Instant::now();
        }
    }

    /// Says that the client has logged in: nobody gets its place. `false`: somebody has it already.
    pub fn logged_in(&self) -> bool {
        let kept = self.caps.counts.lock().waiting.remove(&self.number).is_some();
        self.logged_in.store(kept, Ordering::Relaxed);
        kept
    }

    /// Waits until somebody new has this place. May be dropped at any time.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
        // Whoever asks again is to hear it too.
        self.given_up.notify_one();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.caps.counts.lock();
        if counts.waiting.remove(&self.number).is_some() || *self.logged_in.get_mut() {
            counts.count_out(self.address.get().copied());
        }
    }
}

fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// One that has logged in.
    fn enter(caps: &Arc<Caps>, from: &str) -> Result<Ticket, TooMany> {
        let ticket = caps.try_enter(address(from))?;
        assert!(ticket.logged_in());
        Ok(ticket)
    }

    fn is_given_up(ticket: &Ticket) -> bool {
        !ticket.caps.counts.lock().waiting.contains_key(&ticket.number)
    }

    #[test]
    fn no_more_connections_than_the_cap_in_all() {
        let caps = Caps::new(2, 10);
        let first = enter(&caps, "10.0.0.1").unwrap();
        let _second = enter(&caps, "10.0.0.2").unwrap();
        assert_eq!(enter(&caps, "10.0.0.3").unwrap_err(), TooMany::InAll);
        drop(first);
        assert!(enter(&caps, "10.0.0.3").is_ok());
    }

    #[test]
    fn one_address_cannot_take_everybodys_place() {
        let caps = Caps::new(10, 1);
        let first = enter(&caps, "10.0.0.1").unwrap();
        assert_eq!(enter(&caps, "10.0.0.1").unwrap_err(), TooMany::FromAddress);
        assert_eq!(caps.in_all(), 1, "a refused connection does not count");
        assert!(enter(&caps, "10.0.0.2").is_ok());
        drop(first);
        assert!(enter(&caps, "10.0.0.1").is_ok());
    }

    #[test]
    fn addresses_that_belong_together_are_counted_together() {
        let caps = Caps::new(10, 1);
        let _four = enter(&caps, "10.0.0.1").unwrap();
        let _six = enter(&caps, "2001:db8::1").unwrap();
        for same in ["::ffff:10.0.0.1", "2001:db8::ffff"] {
            assert_eq!(enter(&caps, same).unwrap_err(), TooMany::FromAddress, "{same}");
        }
        assert!(enter(&caps, "2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let caps = Caps::new(10, 10);
        drop(enter(&caps, "10.0.0.1"));
        caps.set_max(10, 0);
        assert_eq!(enter(&caps, "10.0.0.2").unwrap_err(), TooMany::FromAddress);
        assert!(caps.counts.lock().per_address.is_empty());
        assert_eq!(caps.in_all(), 0);
    }

    #[test]
    fn new_caps_hold_for_the_next_connection() {
        let caps = Caps::new(10, 10);
        let _first = enter(&caps, "10.0.0.1").unwrap();
        caps.set_max(1, 10);
        assert_eq!(enter(&caps, "10.0.0.2").unwrap_err(), TooMany::InAll);
    }

    #[test]
    fn the_oldest_that_says_nothing_gives_way_and_whoever_has_logged_in_does_not() {
        let caps = Caps::new(3, 10);
        let seated = enter(&caps, "10.0.0.1").unwrap();
        let [older, newer, third] =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|from| caps.try_enter(address(from)).unwrap());
        assert!(is_given_up(&older) && !is_given_up(&newer));
        assert!(!older.logged_in(), "its place is somebody else's");
        assert_eq!(caps.in_all(), 3);
        drop(older);
        assert_eq!(caps.in_all(), 3, "whoever gave way is not counted out twice");
        newer.step(Step::Begun);
        let fourth = caps.try_enter(address("10.0.0.4")).unwrap();
        assert!(is_given_up(&third) && !is_given_up(&newer), "one that has begun is not the first to go");
        fourth.step(Step::Begun);
        assert_eq!(caps.try_enter(address("10.0.0.5")).unwrap_err(), TooMany::InAll);
        assert!(newer.logged_in() && fourth.logged_in());
        drop((seated, newer, fourth, third));
        assert_eq!(caps.in_all(), 0);
        assert!(caps.counts.lock().per_address.is_empty());
    }

    #[test]
    fn one_that_has_begun_and_then_says_nothing_gives_way_after_a_while() {
        let caps = Caps::new(1, 10);
        let slow = caps.try_enter(address("10.0.0.1")).unwrap();
        slow.step(Step::Begun);
        let begun = Instant::now();
        assert!(!caps.counts.lock().take_place(None, begun));
        assert!(caps.counts.lock().take_place(None, begun + SILENT_AFTER));
        assert!(is_given_up(&slow));
    }

    #[test]
    fn whoever_is_refused_and_waits_for_the_answer_gives_way_first() {
        let caps = Caps::new(2, 10);
        let [silent, refused] = [(); 2].map(|()| caps.try_enter(address("10.0.0.1")).unwrap());
        refused.step(Step::Refused);
        let _new = caps.try_enter(address("10.0.0.2")).unwrap();
        assert!(is_given_up(&refused) && !is_given_up(&silent));
    }

    #[test]
    fn where_an_address_is_full_one_of_its_own_gives_way() {
        let caps = Caps::new(10, 1);
        let [other, first, second] =
            ["10.0.0.9", "10.0.0.1", "10.0.0.1"].map(|from| caps.try_enter(address(from)).unwrap());
        assert!(is_given_up(&first) && !is_given_up(&other));
        assert_eq!(caps.in_all(), 2);
        drop((first, second, other));
        assert_eq!(caps.in_all(), 0);
    }

    #[test]
    fn a_connection_that_a_proxy_hands_on_counts_for_its_clients_address() {
        let caps = Caps::new(10, 1);
        let [one, other] = [(); 2].map(|()| caps.try_enter(None).unwrap());
        let [first, second] = ["10.0.0.1", "10.0.0.2"].map(|from| from.parse().unwrap());
        one.step(Step::Begun);
        one.come_from(first).unwrap();
        assert_eq!(other.come_from(first), Err(TooMany::FromAddress));
        other.come_from(second).unwrap();
        drop((one, other));
        assert_eq!(caps.in_all(), 0);
        assert!(caps.counts.lock().per_address.is_empty());
    }

    #[tokio::test]
    async fn whoever_gives_way_hears_of_it_even_later() {
        let caps = Caps::new(1, 10);
        let silent = caps.try_enter(address("10.0.0.1")).unwrap();
        let _new = caps.try_enter(address("10.0.0.2")).unwrap();
        silent.given_up().await;
        silent.given_up().await;
    }

    #[test]
    fn many_threads_count_right() {
        let caps = Caps::new(50, 20);
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let caps = &caps;
                scope.spawn(move || {
                    for round in 0..500_u16 {
                        let held: Vec<_> = (0..30)
                            .map(|_| caps.try_enter(Some(IpAddr::from([10, 0, thread % 2, round as u8 % 3]))))
                            .collect();
                        assert!(caps.in_all() <= 50);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(caps.in_all(), 0);
        assert!(caps.counts.lock().per_address.is_empty());
    }
}
