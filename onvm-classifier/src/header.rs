//! The fields of a packet that rules ask for, laid out for lookups.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// In [`Header::rest`]: the header is of IPv6.
const V6: u64 = 1;

/// Addresses, ports and protocol of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// Source port, destination port, protocol, and the family, from the highest bits down.
    rest: u64,
    /// IPv4: source and destination in the first word. IPv6: two words of source, two of destination.
    addresses: [u64; 4],
}

impl Header {
    /// Of an IPv4 packet. Ports are 0 where there are none.
    #[inline]
    #[must_use]
    pub fn v4(source: Ipv4Addr, destination: Ipv4Addr, sport: u16, dport: u16, protocol: u8) -> Header {
        let both = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
        Header { rest: rest(sport, dport, protocol), addresses: [both, 0, 0, 0] }
    }

    /// Of an IPv6 packet. Ports are 0 where there are none.
    #[inline]
    #[must_use]
    pub fn v6(source: Ipv6Addr, destination: Ipv6Addr, sport: u16, dport: u16, protocol: u8) -> Header {
        let (source, destination) = (halves(source), halves(destination));
        Header {
            rest: rest(sport, dport, protocol) | V6,
            addresses: [source[0], source[1], destination[0], destination[1]],
        }
    }

    /// Of either family; none if the addresses are of different ones.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, sport: u16, dport: u16, protocol: u8) -> Option<Header> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Some(Header::v4(source, destination, sport, dport, protocol))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Some(Header::v6(source, destination, sport, dport, protocol))
            }
            _ => None,
        }
    }

    /// Whether the packet is of IPv6.
    #[inline]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.rest & V6 != 0
    }

    /// Of an IPv4 header: both addresses, the source in the upper half; and ports and protocol from the highest
    /// bits down.
    #[inline(always)]
    pub(crate) fn words_v4(&self) -> [u64; 2] {
        [self.addresses[0], self.rest]
    }

    /// Ports and protocol, from the highest bits down; the lower three bytes are something else.
    #[inline(always)]
    pub(crate) fn rest(&self) -> u64 {
        self.rest
    }

    /// Of an IPv6 header: two words of source, two of destination.
    #[inline(always)]
    pub(crate) fn words_v6(&self) -> [u64; 4] {
        self.addresses
    }

    /// The source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.address(0)
    }

    /// The destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.address(1)
    }

    #[allow(clippy::cast_possible_truncation, reason = "halves of words are cut out")]
    fn address(&self, which: usize) -> IpAddr {
        if self.is_v6() {
            let [high, low] = [self.addresses[2 * which], self.addresses[2 * which + 1]];
            Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
        } else {
            Ipv4Addr::from_bits((self.addresses[0] >> (32 - 32 * which)) as u32).into()
        }
    }

    /// The source port.
    #[inline]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        (self.rest >> 48) as u16
    }

    /// The destination port.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "a part of the word is cut out")]
    pub fn destination_port(&self) -> u16 {
        (self.rest >> 32) as u16
    }

    /// The protocol number.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "a part of the word is cut out")]
    pub fn protocol(&self) -> u8 {
        (self.rest >> 24) as u8
    }
}

fn rest(sport: u16, dport: u16, protocol: u8) -> u64 {
    u64::from(sport) << 48 | u64::from(dport) << 32 | u64::from(protocol) << 24
}

#[allow(clippy::cast_possible_truncation, reason = "halves of the address are cut out")]
fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source(), self.destination());
        let (sport, dport) = (self.source_port(), self.destination_port());
        write!(f, "{} [{source}]:{sport} > [{destination}]:{dport}", self.protocol())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        for (source, destination) in [("1.2.3.4", "250.6.7.8"), ("2001:db8::1", "fe80::2:3")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let header = Header::new(source, destination, 65535, 258, 200).unwrap();
            assert_eq!((header.source(), header.destination()), (source, destination));
            assert_eq!(
                (header.source_port(), header.destination_port(), header.protocol()),
                (65535, 258, 200)
            );
            assert_eq!(header.is_v6(), source.is_ipv6());
        }
        assert_eq!(Header::new("1.2.3.4".parse().unwrap(), "::1".parse().unwrap(), 0, 0, 0), None);
    }
}
