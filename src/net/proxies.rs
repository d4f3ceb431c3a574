//! Who may say for whom it connects: the PROXY protocol is believed from trusted addresses only.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::ProxyProtocol;

/// From where the PROXY protocol is spoken, and whether it must be.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    mode: ProxyProtocol,
    trusted: Vec<IpNet>,
}

impl Proxies {
    /// As the configuration has it.
    pub fn new(mode: ProxyProtocol, trusted: &[IpNet]) -> Self {
        Self { mode, trusted: trusted.to_vec() }
    }

    /// Whether a connection from `address` may begin with a header that says whose it is.
    pub fn may_say(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.mode != ProxyProtocol::Off && self.trusted.iter().any(|net| net.contains(&address))
    }

    /// Whether every connection must begin with such a header.
    pub fn must_say(&self) -> bool {
        self.mode == ProxyProtocol::Required
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_addresses_may_say_for_whom_they_connect() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let may = |mode, address: &str| Proxies::new(mode, &trusted).may_say(address.parse().unwrap());
        for trusted in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
            assert!(may(ProxyProtocol::V2, trusted) && may(ProxyProtocol::Required, trusted), "{trusted}");
            assert!(!may(ProxyProtocol::Off, trusted));
        }
        for other in ["11.0.0.1", "127.0.0.1", "2001:db9::1", "::1"] {
            assert!(!may(ProxyProtocol::V2, other) && !may(ProxyProtocol::Required, other), "{other}");
        }
    }
}
