//! The PROXY protocol, version 2: a header before everything else, in which a balancer says for whom it connects.
//!
//! HAProxy, "The PROXY protocol", section 2.2 (binary header format). A library reads it; the bounds are ours.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};

/// The first byte of a header; no message of a client begins with it.
pub const FIRST_BYTE: u8 = b'\r';
/// The part of a header that says how long the rest is.
pub const FIXED_BYTES: usize = 16;
/// The longest header, in bytes: addresses of every family, and room for what balancers add.
pub const HEADER_BYTES_MAX: usize = 536;

/// A header that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// Longer than [`HEADER_BYTES_MAX`].
    #[error("the PROXY header is longer than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// Not version 2, or damaged.
    #[error("the PROXY header is not one of version 2")]
    Malformed,
}

/// How many bytes follow the fixed part.
pub fn rest_bytes(fixed: [u8; FIXED_BYTES]) -> Result<usize, BadHeader> {
    let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + rest > HEADER_BYTES_MAX { Err(BadHeader::TooLong) } else { Ok(rest) }
}

/// For whom the connection is; nobody where it is the balancer's own (a health check), or where it does not say.
pub fn source(header: &[u8]) -> Result<Option<SocketAddr>, BadHeader> {
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, size)) if size == header.len() => Ok(parsed.proxied_address().map(|address| address.source)),
        Ok(_) | Err(_) => Err(BadHeader::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

    fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[command, family][..], &(addresses.len() as u16).to_be_bytes(), addresses].concat()
    }

    fn from_10_1_2_3() -> Vec<u8> {
        vec![10, 1, 2, 3, 10, 0, 0, 1, 0x30, 0x39, 0x19, 0x20]
    }

    #[test]
    fn a_header_says_for_whom_the_connection_is() {
        let v4 = header(0x21, 0x11, &from_10_1_2_3());
        assert_eq!(source(&v4), Ok(Some("10.1.2.3:12345".parse().unwrap())));
        let mut v6 = [[0x20; 16], [0x30; 16]].concat();
        v6.extend([0x30, 0x39, 0x19, 0x20]);
        let expected = "[2020:2020:2020:2020:2020:2020:2020:2020]:12345".parse().unwrap();
        assert_eq!(source(&header(0x21, 0x21, &v6)), Ok(Some(expected)));
        // With more behind the addresses.
        let more = [from_10_1_2_3(), vec![0xee, 0, 1, 7]].concat();
        assert_eq!(source(&header(0x21, 0x11, &more)), Ok(Some("10.1.2.3:12345".parse().unwrap())));
    }

    #[test]
    fn a_balancers_own_connection_is_for_nobody_else() {
        assert_eq!(source(&header(0x20, 0x00, &[])), Ok(None));
        assert_eq!(source(&header(0x20, 0x11, &from_10_1_2_3())), Ok(None));
        assert_eq!(source(&header(0x21, 0x00, &[])), Ok(None));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let good = header(0x21, 0x11, &from_10_1_2_3());
        for cut in 0..good.len() {
            assert_eq!(source(&good[..cut]), Err(BadHeader::Malformed), "{cut}");
        }
        assert_eq!(source(&[good, vec![0]].concat()), Err(BadHeader::Malformed));
        for (command, family) in [(0x11, 0x11), (0x22, 0x11), (0x21, 0x41), (0x21, 0x13)] {
            assert_eq!(source(&header(command, family, &from_10_1_2_3())), Err(BadHeader::Malformed));
        }
        assert_eq!(source(&header(0x21, 0x21, &from_10_1_2_3())), Err(BadHeader::Malformed), "too short for IPv6");
        assert_eq!(source(b"PROXY TCP4 10.1.2.3 10.0.0.1 1 2\r\n"), Err(BadHeader::Malformed));
    }

    #[test]
    fn a_header_has_at_most_536_bytes() {
        let fixed = |rest: u16| {
            let mut fixed = [0; FIXED_BYTES];
            fixed[14..].copy_from_slice(&rest.to_be_bytes());
            fixed
        };
        assert_eq!(rest_bytes(fixed(520)), Ok(520));
        assert_eq!(rest_bytes(fixed(521)), Err(BadHeader::TooLong));
        assert_eq!(rest_bytes(fixed(u16::MAX)), Err(BadHeader::TooLong));
    }
}
