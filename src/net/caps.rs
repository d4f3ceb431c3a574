//! How many clients may be connected: in all, and from one address; whoever has not logged in yet counts as well.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

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

/// Counts client connections across all data threads.
///
/// IPv6 addresses are counted by their /64, since one customer has a whole one; IPv4 inside IPv6 counts as IPv4.
#[derive(Debug)]
pub struct Caps {
    in_all: AtomicUsize,
    in_all_max: AtomicUsize,
    per_address: DashMap<IpAddr, usize, ahash::RandomState>,
    per_address_max: AtomicUsize,
}

impl Caps {
    /// Counters at zero.
    pub fn new(in_all_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self {
            in_all: AtomicUsize::new(0),
            in_all_max: AtomicUsize::new(in_all_max),
            per_address: DashMap::default(),
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
        self.in_all.load(Ordering::Relaxed)
    }

    /// Counts one connection from `address` in, or says which cap is full. The connection counts until the ticket drops.
    pub fn try_enter(self: &Arc<Self>, address: IpAddr) -> Result<Ticket, TooMany> {
        let in_all_max = self.in_all_max.load(Ordering::Relaxed);
        let raise = |count: usize| (count < in_all_max).then_some(count + 1);
        if self.in_all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise).is_err() {
            return Err(TooMany::InAll);
        }
        let address = counted_as(address);
        let mut count = self.per_address.entry(address).or_insert(0);
        if *count >= self.per_address_max.load(Ordering::Relaxed) {
            let empty = *count == 0;
            drop(count);
            self.in_all.fetch_sub(1, Ordering::Relaxed);
            if empty {
                self.forget(address);
            }
            return Err(TooMany::FromAddress);
        }
        *count += 1;
        Ok(Ticket { caps: Arc::clone(self), address })
    }

    fn forget(&self, address: IpAddr) {
        self.per_address.remove_if(&address, |_, count| *count == 0);
    }
}

/// One connection that counts. Dropping it counts the connection out.
#[derive(Debug)]
pub struct Ticket {
    caps: Arc<Caps>,
    address: IpAddr,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.caps.in_all.fetch_sub(1, Ordering::Relaxed);
        if let Some(mut count) = self.caps.per_address.get_mut(&self.address) {
            *count -= 1;
        }
        self.caps.forget(self.address);
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

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_more_connections_than_the_cap_in_all() {
        let caps = Caps::new(2, 10);
        let first = caps.try_enter(address("10.0.0.1")).unwrap();
        let _second = caps.try_enter(address("10.0.0.2")).unwrap();
        assert_eq!(caps.try_enter(address("10.0.0.3")).unwrap_err(), TooMany::InAll);
        drop(first);
        assert!(caps.try_enter(address("10.0.0.3")).is_ok());
    }

    #[test]
    fn one_address_cannot_take_everybodys_place() {
        let caps = Caps::new(10, 1);
        let first = caps.try_enter(address("10.0.0.1")).unwrap();
        assert_eq!(caps.try_enter(address("10.0.0.1")).unwrap_err(), TooMany::FromAddress);
        assert_eq!(caps.in_all(), 1, "a refused connection does not count");
        assert!(caps.try_enter(address("10.0.0.2")).is_ok());
        drop(first);
        assert!(caps.try_enter(address("10.0.0.1")).is_ok());
    }

    #[test]
    fn addresses_that_belong_together_are_counted_together() {
        let caps = Caps::new(10, 1);
        let _four = caps.try_enter(address("10.0.0.1")).unwrap();
        let _six = caps.try_enter(address("2001:db8::1")).unwrap();
        for same in ["::ffff:10.0.0.1", "2001:db8::ffff"] {
            assert_eq!(caps.try_enter(address(same)).unwrap_err(), TooMany::FromAddress, "{same}");
        }
        assert!(caps.try_enter(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let caps = Caps::new(10, 10);
        drop(caps.try_enter(address("10.0.0.1")));
        caps.set_max(10, 0);
        assert_eq!(caps.try_enter(address("10.0.0.2")).unwrap_err(), TooMany::FromAddress);
        assert!(caps.per_address.is_empty());
        assert_eq!(caps.in_all(), 0);
    }

    #[test]
    fn new_caps_hold_for_the_next_connection() {
        let caps = Caps::new(10, 10);
        let _first = caps.try_enter(address("10.0.0.1")).unwrap();
        caps.set_max(1, 10);
        assert_eq!(caps.try_enter(address("10.0.0.2")).unwrap_err(), TooMany::InAll);
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
                            .map(|_| caps.try_enter(IpAddr::from([10, 0, thread % 2, round as u8 % 3])))
                            .collect();
                        assert!(caps.in_all() <= 50);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(caps.in_all(), 0);
        assert!(caps.per_address.is_empty());
    }
}
