//! Sets of IPv4 and IPv6 addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::ranges::Ranges;

/// Addresses of both families.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Addresses {
    pub(crate) v4: Ranges<u32>,
    pub(crate) v6: Ranges<u128>,
}

impl Addresses {
    pub(crate) fn none() -> Self {
        Self { v4: Ranges::none(), v6: Ranges::none() }
    }

    pub(crate) fn all() -> Self {
        Self { v4: Ranges::all(), v6: Ranges::all() }
    }

    /// Every IPv4 address, and none of IPv6.
    pub(crate) fn all_v4() -> Self {
        Self { v4: Ranges::all(), v6: Ranges::none() }
    }

    /// Every IPv6 address, and none of IPv4.
    pub(crate) fn all_v6() -> Self {
        Self { v4: Ranges::none(), v6: Ranges::all() }
    }

    /// From one address to another of the same family, both included; none if they are of different ones.
    pub(crate) fn between(first: IpAddr, last: IpAddr) -> Option<Self> {
        match (first, last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                Some(Self { v4: Ranges::of([(a.to_bits(), b.to_bits())]), v6: Ranges::none() })
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                Some(Self { v4: Ranges::none(), v6: Ranges::of([(a.to_bits(), b.to_bits())]) })
            }
            _ => None,
        }
    }

    pub(crate) fn prefix(net: IpNet) -> Self {
        let ends = match net {
            IpNet::V4(net) => (IpAddr::V4(net.network()), IpAddr::V4(net.broadcast())),
            IpNet::V6(net) => (IpAddr::V6(net.network()), IpAddr::V6(net.broadcast())),
        };
        Self::between(ends.0, ends.1).unwrap_or_else(Self::none)
    }

    pub(crate) fn is_all(&self) -> bool {
        self.v4.is_all() && self.v6.is_all()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    #[inline]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }

    pub(crate) fn without(&self, other: &Self) -> Self {
        Self { v4: self.v4.without(&other.v4), v6: self.v6.without(&other.v6) }
    }

    /// The IPv4 addresses as prefixes, in order.
    pub(crate) fn v4_prefixes(&self) -> Vec<IpNet> {
        let mut all = Vec::new();
        for (first, last) in self.v4.iter() {
            let mut at = first;
            loop {
                let room = u32::BITS - (last - at).checked_add(1).map_or(0, |n| n.leading_zeros() + 1);
                let bits = at.trailing_zeros().min(room).min(u32::BITS);
                if let Ok(net) = Ipv4Net::new(Ipv4Addr::from_bits(at), length(u32::BITS - bits)) {
                    all.push(IpNet::V4(net));
                }
                let Some(next) = 1u32.checked_shl(bits).and_then(|size| at.checked_add(size)) else { break };
                if next > last {
                    break;
                }
                at = next;
            }
        }
        all
    }

    /// The IPv6 addresses as prefixes, in order.
    pub(crate) fn v6_prefixes(&self) -> Vec<IpNet> {
        let mut all = Vec::new();
        for (first, last) in self.v6.iter() {
            let mut at = first;
            loop {
                let room = u128::BITS - (last - at).checked_add(1).map_or(0, |n| n.leading_zeros() + 1);
                let bits = at.trailing_zeros().min(room).min(u128::BITS);
                if let Ok(net) = Ipv6Net::new(Ipv6Addr::from_bits(at), length(u128::BITS - bits)) {
                    all.push(IpNet::V6(net));
                }
                let Some(next) = 1u128.checked_shl(bits).and_then(|size| at.checked_add(size)) else { break };
                if next > last {
                    break;
                }
                at = next;
            }
        }
        all
    }
}

fn length(bits: u32) -> u8 {
    u8::try_from(bits).unwrap_or(u8::MAX)
}

impl fmt::Display for Addresses {
    /// As prefixes; of many, the first few.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 6;
        if self.is_all() {
            return f.write_str("any");
        }
        let prefixes: Vec<IpNet> = self.v4_prefixes().into_iter().chain(self.v6_prefixes()).collect();
        for (index, net) in prefixes.iter().take(MOST).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            if net.prefix_len() == net.max_prefix_len() {
                write!(f, "{comma}{}", net.addr())?;
            } else {
                write!(f, "{comma}{net}")?;
            }
        }
        match prefixes.len() {
            0 => f.write_str("none"),
            n if n > MOST => write!(f, " and {} more", n - MOST),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn between(first: &str, last: &str) -> Addresses {
        Addresses::between(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    }

    #[test]
    fn ranges_become_prefixes() {
        assert_eq!(
            between("10.0.0.1", "10.0.0.10").to_string(),
            "10.0.0.1, 10.0.0.2/31, 10.0.0.4/30, 10.0.0.8/31, 10.0.0.10"
        );
        assert_eq!(between("0.0.0.0", "255.255.255.255").to_string(), "0.0.0.0/0");
        assert_eq!(between("255.255.255.254", "255.255.255.255").to_string(), "255.255.255.254/31");
        assert_eq!(between("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").to_string(), "::/0");
        assert_eq!(between("2001:db8::", "2001:db8::1:ffff").to_string(), "2001:db8::/111");
        assert_eq!(Addresses::all().to_string(), "any");
        assert_eq!(Addresses::none().to_string(), "none");
        assert_eq!(
            Addresses::all()
                .without(&Addresses::prefix("10.0.0.0/8".parse().unwrap()))
                .v4
                .to_string()
                .split(',')
                .count(),
            2
        );
    }

    proptest! {
        #[test]
        fn prefixes_hold_the_same_addresses(
            a in any::<u32>(), b in any::<u32>(), probe in any::<u32>(), six in any::<bool>(),
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let address = |n: u32| -> IpAddr {
                if six { Ipv6Addr::from_bits(u128::from(n) << 61).into() } else { Ipv4Addr::from_bits(n).into() }
            };
            let set = Addresses::between(address(low), address(high)).unwrap();
            let prefixes = if six { set.v6_prefixes() } else { set.v4_prefixes() };
            for n in [probe, low, high, low.wrapping_sub(1), high.wrapping_add(1)] {
                let held = prefixes.iter().filter(|net| net.contains(&address(n))).count();
                prop_assert_eq!(held, usize::from(low <= n && n <= high));
                prop_assert_eq!(held == 1, set.contains(address(n)));
            }
        }
    }
}
