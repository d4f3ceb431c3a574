//! Failed logins, counted per address and per organization in tables of fixed size; no clock, `now` is handed in.
//!
//! Neither is ever refused for them: behind one address stand strangers (NAT, a balancer), and whoever has one of an
//! organization's old tokens could lock it out. A login that fails gets its answer later and later; one that does not is
//! not kept waiting. What verifying tokens costs is bounded for each address.

use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use crate::ids::OrgId;
use crate::rate::Rate;

/// How patient we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleRules {
    /// Failures that cost nothing.
    pub free_failures: u32,
    /// One failure is forgiven every so many seconds.
    pub forgive_s: u64,
    /// The answer to a login that fails, from this address or of this organization, waits 1, 2, 4, … seconds, at most so
    /// many.
    pub hold_s_max: u64,
    /// How many tokens of one address are verified: each counts for a [`VERIFICATION`].
    pub verifications: Rate,
    /// The most addresses, and the most organizations, that are remembered; the least used are forgotten first.
    pub entries_max: usize,
}

/// What verifying one token counts for: a thousand at once and a thousand in a second, which is a tenth of a core at most.
pub const VERIFICATION: Duration = Duration::from_millis(1);

impl Default for ThrottleRules {
    fn default() -> Self {
        let verifications = Rate { burst: Duration::from_secs(1), wait_max: Duration::from_secs(5) };
        Self { free_failures: 10, forgive_s: 30, hold_s_max: 4, verifications, entries_max: 16 * 1024 }
    }
}

/// Failed logins so far. Shared by all threads; every call is a short look into a table.
#[derive(Debug)]
pub struct Throttle {
    rules: ThrottleRules,
    addresses: Mutex<Cache<Source, Failures>>,
    organizations: Mutex<Cache<OrgId, Failures>>,
    /// Until when each address owes for tokens that were verified, since the Unix epoch.
    verified: Mutex<Cache<Source, Duration>>,
}

/// What counts as one address: an IPv4 address, or the /64 that an IPv6 client may roam in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6Network([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6Network([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: u64,
}

impl Failures {
    /// How many are left at `now`, after what was forgiven. A clock that stepped back forgives nothing.
    fn left(self, now: u64, rules: &ThrottleRules) -> u32 {
        let forgiven = now.saturating_sub(self.last) / rules.forgive_s.max(1);
        self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    /// 0 while free, then 1, 2, 4, … seconds.
    fn penalty_s(self, rules: &ThrottleRules) -> u64 {
        let max = rules.hold_s_max;
        match self.count.checked_sub(rules.free_failures) {
            None | Some(0) => 0,
            Some(over) => 1_u64.checked_shl(over - 1).unwrap_or(max).min(max),
        }
    }
}

impl Throttle {
    /// A throttle that has seen no failure.
    pub fn new(rules: ThrottleRules) -> Self {
        let entries = rules.entries_max.max(1);
        Self {
            rules,
            addresses: Mutex::new(Cache::new(entries)),
            organizations: Mutex::new(Cache::new(entries)),
            verified: Mutex::new(Cache::new(entries)),
        }
    }

    /// Whether a token from `address`, one not verified before, is verified at `now` (since the Unix epoch): after so
    /// long; never, where it would have to wait longer than anybody does.
    pub fn may_verify(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        let (rate, source) = (self.rules.verifications, Source::from(address));
        let mut verified = self.verified.lock();
        let owed_until = verified.get(&source).copied().unwrap_or_default();
        if rate.wait(owed_until, now) >= rate.wait_max {
            return None;
        }
        let (owed_until, wait) = rate.spend(owed_until, VERIFICATION, now);
        verified.insert(source, owed_until);
        Some(wait)
    }

    /// A login failed at `now` (Unix time, seconds). The answer is how long to hold back the refusal; `org` only where a
    /// good signature named it.
    pub fn failed(&self, address: IpAddr, org: Option<&OrgId>, now: u64) -> Duration {
        let address = count(&mut self.addresses.lock(), Source::from(address), now, &self.rules);
        let org = org.map(|org| count(&mut self.organizations.lock(), org.clone(), now, &self.rules));
        let penalty_s = |failures: Failures| failures.penalty_s(&self.rules);
        Duration::from_secs(penalty_s(address).max(org.map_or(0, penalty_s)))
    }

    /// A login succeeded: the address starts anew.
    pub fn succeeded(&self, address: IpAddr) {
        self.addresses.lock().remove(&Source::from(address));
    }
}

/// Books one failure more under `key`.
fn count<K: Eq + std::hash::Hash>(table: &mut Cache<K, Failures>, key: K, now: u64, rules: &ThrottleRules) -> Failures {
    let before = table.get(&key).map_or(0, |failures| failures.left(now, rules));
    // Far enough above the free ones to reach the longest penalty, and no further: forgiveness must be able to follow.
    let count = before.saturating_add(1).min(rules.free_failures.saturating_add(8));
    let failures = Failures { count, last: now };
    table.insert(key, failures);
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How long each of so many failures is held back, in seconds.
    fn fail(throttle: &Throttle, from: &str, times: u32) -> Vec<u64> {
        (0..times).map(|_| throttle.failed(address(from), None, NOW).as_secs()).collect()
    }

    #[test]
    fn ten_failures_cost_nothing_and_the_answer_to_later_ones_comes_later_each_time() {
        let throttle = Throttle::new(ThrottleRules::default());
        assert_eq!(fail(&throttle, "192.0.2.1", 10), [0; 10]);
        assert_eq!(fail(&throttle, "192.0.2.1", 6), [1, 2, 4, 4, 4, 4]);
        assert_eq!(fail(&throttle, "192.0.2.2", 1), [0], "another address is not held back");
    }

    #[test]
    fn a_success_lets_the_address_start_anew() {
        let throttle = Throttle::new(ThrottleRules::default());
        fail(&throttle, "192.0.2.1", 20);
        throttle.succeeded(address("192.0.2.1"));
        assert_eq!(fail(&throttle, "192.0.2.1", 10), [0; 10]);
    }

    #[test]
    fn failures_are_forgiven_with_time() {
        let throttle = Throttle::new(ThrottleRules::default());
        fail(&throttle, "192.0.2.1", 10);
        throttle.failed(address("192.0.2.1"), None, NOW + 300);
        let held: Vec<_> = (0..10).map(|_| throttle.failed(address("192.0.2.1"), None, NOW + 300).as_secs()).collect();
        assert_eq!(held, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn an_ipv6_client_cannot_roam_its_network_and_an_ipv4_one_cannot_hide_in_ipv6() {
        let throttle = Throttle::new(ThrottleRules::default());
        for host in 0..20 {
            fail(&throttle, &format!("2001:db8:1:2::{host:x}"), 1);
        }
        assert_eq!(fail(&throttle, "2001:db8:1:2:ffff::1", 1), [4]);
        assert_eq!(fail(&throttle, "2001:db8:1:3::1", 1), [0]);
        fail(&throttle, "::ffff:192.0.2.1", 20);
        assert_eq!(fail(&throttle, "192.0.2.1", 1), [4]);
    }

    #[test]
    fn an_organization_is_held_back_from_whatever_address_it_fails() {
        let throttle = Throttle::new(ThrottleRules::default());
        let org = OrgId::new("org_1").unwrap();
        let mut held = Vec::new();
        for host in 0..14_u8 {
            held.push(throttle.failed(IpAddr::from([192, 0, 2, host]), Some(&org), NOW).as_secs());
        }
        assert_eq!(held, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 4]);
        assert_eq!(throttle.failed(address("192.0.2.1"), None, NOW), Duration::ZERO);
    }

    #[test]
    fn a_thousand_tokens_of_an_address_are_verified_at_once_and_the_next_after_a_while() {
        let throttle = Throttle::new(ThrottleRules::default());
        let verify = |from: &str, now_ms: u64| throttle.may_verify(address(from), Duration::from_millis(now_ms));
        for _ in 0..1000 {
            assert_eq!(verify("192.0.2.1", 0), Some(Duration::ZERO));
        }
        assert_eq!(verify("192.0.2.1", 0), Some(Duration::from_millis(1)));
        assert_eq!(verify("192.0.2.2", 0), Some(Duration::ZERO), "another address does not wait");
        let waiting = (0..10_000).take_while(|_| verify("192.0.2.1", 0).is_some()).count();
        assert_eq!(waiting, 4999, "who would wait for five seconds is not verified at all");
        assert!(verify("192.0.2.1", 1).is_some());
        // A clock that steps back keeps nobody out for longer.
        assert_eq!(verify("192.0.2.1", 10_000), Some(Duration::ZERO));
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_the_tables() {
        let throttle = Throttle::new(ThrottleRules { entries_max: 100, ..ThrottleRules::default() });
        for number in 0..100_000_u32 {
            throttle.failed(IpAddr::from(number.to_be_bytes()), None, NOW);
            throttle.may_verify(IpAddr::from(number.to_be_bytes()), Duration::ZERO);
        }
        assert!(throttle.addresses.lock().len() <= 100);
        assert!(throttle.verified.lock().len() <= 100);
    }
}
