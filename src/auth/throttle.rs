//! Failed logins, counted per address and per organization in a table of fixed size; no clock, `now` is handed in.
//!
//! An address that fails too often is refused for a while. An organization is never refused, since whoever has one of
//! its old tokens could lock it out: its failing logins only get their answer later and later.

use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use crate::ids::OrgId;

/// How patient we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleRules {
    /// Failures that cost nothing.
    pub free_failures: u32,
    /// One failure is forgiven every so many seconds.
    pub forgive_s: u64,
    /// An address is refused for 1, 2, 4, … seconds, at most for so many.
    pub refuse_s_max: u64,
    /// The answer to a failing login of an organization waits 1, 2, 4, … seconds, at most so many.
    pub hold_s_max: u64,
    /// The most addresses, and the most organizations, that are remembered; the least used are forgotten first.
    pub entries_max: usize,
}

impl Default for ThrottleRules {
    fn default() -> Self {
        Self { free_failures: 10, forgive_s: 30, refuse_s_max: 60, hold_s_max: 4, entries_max: 16 * 1024 }
    }
}

/// Failed logins so far. Shared by all threads; every call is a short look into a table.
#[derive(Debug)]
pub struct Throttle {
    rules: ThrottleRules,
    addresses: Mutex<Cache<Source, Failures>>,
    organizations: Mutex<Cache<OrgId, Failures>>,
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
    fn penalty_s(self, rules: &ThrottleRules, max: u64) -> u64 {
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
        Self { rules, addresses: Mutex::new(Cache::new(entries)), organizations: Mutex::new(Cache::new(entries)) }
    }

    /// Whether a login from `address` is looked at, at `now` (Unix time, seconds); else how long it must stay away.
    pub fn admit(&self, address: IpAddr, now: u64) -> Result<(), Duration> {
        let Some(failures) = self.addresses.lock().get(&Source::from(address)).copied() else { return Ok(()) };
        let penalty_s = failures.penalty_s(&self.rules, self.rules.refuse_s_max);
        // Counted from `last` in both directions, so that a clock that stepped back cannot lock anyone out for longer.
        let left_s = penalty_s.saturating_sub(now.abs_diff(failures.last));
        if left_s == 0 { Ok(()) } else { Err(Duration::from_secs(left_s)) }
    }

    /// A login failed. The answer is how long to hold back the refusal; `org` only where a good signature named it.
    pub fn failed(&self, address: IpAddr, org: Option<&OrgId>, now: u64) -> Duration {
        count(&mut self.addresses.lock(), Source::from(address), now, &self.rules);
        let Some(org) = org else { return Duration::ZERO };
        let failures = count(&mut self.organizations.lock(), org.clone(), now, &self.rules);
        Duration::from_secs(failures.penalty_s(&self.rules, self.rules.hold_s_max))
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

    fn fail(throttle: &Throttle, from: &str, times: u32) {
        for _ in 0..times {
            throttle.failed(address(from), None, NOW);
        }
    }

    #[test]
    fn ten_failures_cost_nothing_and_the_eleventh_closes_the_door_for_longer_each_time() {
        let throttle = Throttle::new(ThrottleRules::default());
        fail(&throttle, "192.0.2.1", 10);
        assert_eq!(throttle.admit(address("192.0.2.1"), NOW), Ok(()));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            fail(&throttle, "192.0.2.1", 1);
            assert_eq!(throttle.admit(address("192.0.2.1"), NOW), Err(Duration::from_secs(seconds)));
        }
        assert_eq!(throttle.admit(address("192.0.2.1"), NOW + 59), Err(Duration::from_secs(1)));
        assert_eq!(throttle.admit(address("192.0.2.1"), NOW + 60), Ok(()));
    }

    #[test]
    fn another_address_is_not_refused() {
        let throttle = Throttle::new(ThrottleRules::default());
        fail(&throttle, "192.0.2.1", 20);
        assert_eq!(throttle.admit(address("192.0.2.2"), NOW), Ok(()));
    }

    #[test]
    fn a_success_lets_the_address_start_anew() {
        let throttle = Throttle::new(ThrottleRules::default());
        fail(&throttle, "192.0.2.1", 20);
        throttle.succeeded(address("192.0.2.1"));
        fail(&throttle, "192.0.2.1", 10);
        assert_eq!(throttle.admit(address("192.0.2.1"), NOW), Ok(()));
    }

    #[test]
    fn failures_are_forgiven_with_time() {
        let throttle = Throttle::new(ThrottleRules::default());
        fail(&throttle, "192.0.2.1", 10);
        throttle.failed(address("192.0.2.1"), None, NOW + 300);
        fail(&throttle, "192.0.2.1", 9);
        assert_eq!(throttle.admit(address("192.0.2.1"), NOW), Ok(()));
    }

    #[test]
    fn an_ipv6_client_cannot_roam_its_network_and_an_ipv4_one_cannot_hide_in_ipv6() {
        let throttle = Throttle::new(ThrottleRules::default());
        for host in 0..20 {
            throttle.failed(address(&format!("2001:db8:1:2::{host:x}")), None, NOW);
        }
        assert!(throttle.admit(address("2001:db8:1:2:ffff::1"), NOW).is_err());
        assert_eq!(throttle.admit(address("2001:db8:1:3::1"), NOW), Ok(()));
        fail(&throttle, "::ffff:192.0.2.1", 20);
        assert!(throttle.admit(address("192.0.2.1"), NOW).is_err());
    }

    #[test]
    fn an_organization_is_held_back_and_never_refused() {
        let throttle = Throttle::new(ThrottleRules::default());
        let org = OrgId::new("org_1").unwrap();
        let mut held = Vec::new();
        for host in 0..14_u8 {
            held.push(throttle.failed(IpAddr::from([192, 0, 2, host]), Some(&org), NOW).as_secs());
        }
        assert_eq!(held, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 4]);
        assert_eq!(throttle.failed(address("192.0.2.1"), None, NOW), Duration::ZERO);
        assert_eq!(throttle.admit(address("192.0.2.1"), NOW), Ok(()));
    }

    #[test]
    fn a_clock_that_steps_back_locks_nobody_out() {
        let throttle = Throttle::new(ThrottleRules::default());
        fail(&throttle, "192.0.2.1", 20);
        assert_eq!(throttle.admit(address("192.0.2.1"), NOW - 3600), Ok(()));
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_the_table() {
        let throttle = Throttle::new(ThrottleRules { entries_max: 100, ..ThrottleRules::default() });
        for number in 0..100_000_u32 {
            throttle.failed(IpAddr::from(number.to_be_bytes()), None, NOW);
        }
        assert!(throttle.addresses.lock().len() <= 100);
    }
}
