//! Rule sets made here, of the kinds that ClassBench has, so that lookups can be measured without its files.
//!
//! Addresses come from a few sites with networks inside networks, so that prefixes nest and repeat; ports and
//! protocols from weighted classes. The weights are those that ClassBench's own sets show: access lists name
//! hosts and ports of destinations, firewalls leave one side open, IP chains mix everything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use onvm_classifier::{Header, Ports, Rule5};

use super::RuleSet;

/// Kinds of sets.
pub(crate) const KINDS: [&str; 3] = ["acl", "fw", "ipc"];

/// Headers looked up for each set.
const HEADERS: usize = 50_000;

/// Weights: out of their sum, so many rules are of each class.
struct Kind {
    /// Lengths of source and destination: shortest and longest of each.
    lengths: &'static [(u32, [u8; 4])],
    /// Classes of source and destination port.
    ports: &'static [(u32, [Class; 2])],
    protocols: &'static [(u32, (u8, u8))],
}

#[derive(Clone, Copy)]
enum Class {
    Any,
    One,
    Low,
    High,
    Range,
}

use Class::{Any, High, Low, One, Range};

const ACL: Kind = Kind {
    lengths: &[
        (45, [32, 32, 32, 32]),
        (18, [32, 32, 24, 31]),
        (17, [24, 31, 32, 32]),
        (9, [24, 31, 24, 31]),
        (9, [22, 32, 16, 23]),
        (5, [16, 23, 22, 32]),
        (2, [16, 31, 1, 15]),
        (1, [0, 7, 0, 15]),
    ],
    ports: &[(60, [Any, One]), (28, [Any, Any]), (12, [Any, Range])],
    protocols: &[(87, (6, 0xFF)), (9, (0, 0)), (3, (1, 0xFF)), (1, (17, 0xFF))],
};

const FW: Kind = Kind {
    lengths: &[
        (26, [0, 0, 24, 31]),
        (15, [0, 0, 32, 32]),
        (14, [1, 2, 32, 32]),
        (7, [1, 2, 24, 31]),
        (12, [24, 32, 0, 0]),
        (8, [24, 32, 1, 2]),
        (3, [8, 23, 0, 2]),
        (10, [24, 32, 24, 32]),
        (4, [24, 32, 16, 23]),
        (1, [0, 2, 0, 2]),
    ],
    ports: &[
        (57, [Any, One]),
        (20, [Any, Any]),
        (10, [One, Any]),
        (6, [High, High]),
        (3, [One, One]),
        (2, [High, One]),
        (2, [One, High]),
    ],
    protocols: &[(57, (6, 0xFF)), (33, (17, 0xFF)), (5, (47, 0xFF)), (4, (1, 0xFF)), (1, (0, 0))],
};

const IPC: Kind = Kind {
    lengths: &[
        (20, [24, 31, 24, 31]),
        (13, [16, 23, 24, 31]),
        (10, [24, 31, 32, 32]),
        (7, [32, 32, 24, 31]),
        (7, [24, 31, 16, 23]),
        (7, [32, 32, 32, 32]),
        (6, [16, 23, 16, 23]),
        (5, [16, 23, 32, 32]),
        (12, [0, 7, 16, 32]),
        (8, [16, 32, 0, 15]),
        (1, [0, 7, 0, 7]),
    ],
    ports: &[
        (37, [Any, Any]),
        (36, [Any, One]),
        (16, [One, Any]),
        (6, [Any, High]),
        (2, [Any, Range]),
        (2, [Range, Low]),
        (1, [One, One]),
    ],
    protocols: &[(38, (17, 0xFF)), (33, (0, 0)), (28, (6, 0xFF)), (1, (1, 0xFF))],
};

const PORTS: [u16; 16] = [80, 443, 53, 25, 22, 21, 161, 123, 110, 143, 1521, 1433, 3306, 5060, 8080, 27_400];

/// Numbers that look random, and are the same in each run (xorshift).
struct Chance(u64);

impl Chance {
    /// Below `limit`, which is above 0.
    #[allow(clippy::cast_possible_truncation, reason = "the remainder fits")]
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(limit)) as u32
    }

    fn word(&mut self) -> u32 {
        self.below(1 << 16) << 16 | self.below(1 << 16)
    }

    fn port(&mut self, first: u16, last: u16) -> u16 {
        first + u16::try_from(self.below(u32::from(last - first) + 1)).unwrap_or(0)
    }

    /// One of a weighted list.
    fn of<T: Copy>(&mut self, list: &[(u32, T)]) -> T {
        let mut at = self.below(list.iter().map(|(weight, _)| weight).sum());
        for (weight, value) in list {
            if at < *weight {
                return *value;
            }
            at -= weight;
        }
        list[0].1
    }

    fn ports(&mut self, class: Class) -> Ports {
        match class {
            Any => Ports::ANY,
            Low => Ports::range(0, 1023),
            High => Ports::range(1024, u16::MAX),
            One if self.below(3) > 0 => Ports::one(PORTS[self.below(16) as usize]),
            One => Ports::one(self.port(1, 33_000)),
            Range => {
                let first = self.port(1, 60_000);
                Ports::range(first, self.port(first, first + 500))
            }
        }
    }

    /// A network of a site: nested, since sites share their upper bits and most hosts lie in few of their
    /// networks.
    fn net(&mut self, sites: &[u32], shortest: u8, longest: u8) -> IpNet {
        let length = shortest + u8::try_from(self.below(u32::from(longest - shortest) + 1)).unwrap_or(0);
        let site = sites[self.below(u32::try_from(sites.len()).unwrap_or(1)) as usize];
        // Few values in the third byte, most in the last.
        let network = site & 0xFFFF_0000 | (self.word() & self.word() & 0x1F) << 8 | self.word() & 0xFF;
        let net = if length < 8 {
            Ipv4Net::new(self.word().into(), length)
        } else {
            Ipv4Net::new(network.into(), length)
        };
        net.map_or(IpNet::default(), |net| net.trunc().into())
    }
}

/// A set of a kind, of about `count` rules; no rule stands twice.
pub(crate) fn made(kind: &str, count: usize) -> RuleSet {
    let weights = match kind {
        "acl" => &ACL,
        "fw" => &FW,
        _ => &IPC,
    };
    let mut chance = Chance(0x2545_F491_4F6C_DD1D ^ count as u64);
    let mut sites = || (0..24 + count / 100).map(|_| chance.word()).collect::<Vec<u32>>();
    let (sources, destinations) = (sites(), sites());
    let (mut rules, mut seen) = (Vec::new(), std::collections::HashSet::new());
    for _ in 0..count {
        let [a, b, c, d] = chance.of(weights.lengths);
        let classes = chance.of(weights.ports);
        let (protocol, protocol_mask) = chance.of(weights.protocols);
        let rule = Rule5 {
            source: Some(chance.net(&sources, a, b)),
            destination: Some(chance.net(&destinations, c, d)),
            source_ports: chance.ports(classes[0]),
            destination_ports: chance.ports(classes[1]),
            protocol,
            protocol_mask,
        };
        if seen.insert(rule) {
            rules.push(rule);
        }
    }
    // As people write them: what is narrow first.
    let width = |rule: &Rule5| {
        let open = |net: Option<IpNet>| 32 - u32::from(net.map_or(0, |net| net.prefix_len()));
        open(rule.source) + open(rule.destination)
    };
    rules.sort_by_key(width);
    let headers = (0..HEADERS).filter_map(|_| header(&rules, &mut chance)).collect();
    RuleSet { name: format!("made {kind} {}k", count / 1000), rules, headers, golden: None }
}

/// The same set for IPv6: each IPv4 network becomes one of a provider's, each address one interface in it.
pub(crate) fn as_v6(set: &RuleSet) -> RuleSet {
    let net = |net: Option<IpNet>| match net {
        Some(IpNet::V4(net)) if net.prefix_len() > 0 => {
            Ipv6Net::new(wide(net.addr()), 32 + net.prefix_len()).ok().map(|net| net.trunc().into())
        }
        _ => Some(Ipv6Net::default().into()),
    };
    let rule = |rule: &Rule5| Rule5 { source: net(rule.source), destination: net(rule.destination), ..*rule };
    let header = |header: &Header| {
        let address = |address| match address {
            IpAddr::V4(address) => IpAddr::V6(wide(address)),
            v6 => v6,
        };
        let (sport, dport) = (header.source_port(), header.destination_port());
        Header::new(address(header.source()), address(header.destination()), sport, dport, header.protocol())
    };
    RuleSet {
        name: format!("{}, IPv6", set.name),
        rules: set.rules.iter().map(rule).collect(),
        headers: set.headers.iter().filter_map(header).collect(),
        golden: None,
    }
}

/// An address in 2001:db8::/32 of which the IPv4 one is the network; the lower half follows from it.
fn wide(address: Ipv4Addr) -> Ipv6Addr {
    let bits = u128::from(address.to_bits());
    let interface = bits.wrapping_mul(0x9E37_79B9_7F4A_7C15) & u128::from(u64::MAX);
    (0x2001_0DB8 << 96 | bits << 64 | interface).into()
}

/// A header that matches a rule; some rules are met more often than others.
fn header(rules: &[Rule5], chance: &mut Chance) -> Option<Header> {
    let count = u32::try_from(rules.len()).ok()?;
    let any = chance.below(count);
    let often = if chance.below(4) == 0 { any % (count / 64).max(1) * 61 % count } else { any };
    let rule = rules.get(often as usize)?;
    let mut address = |net: Option<IpNet>| match net {
        Some(IpNet::V4(net)) => {
            Ipv4Addr::from(net.network().to_bits() | chance.word() & net.hostmask().to_bits())
        }
        _ => Ipv4Addr::from(chance.word()),
    };
    let (source, destination) = (address(rule.source), address(rule.destination));
    let [sport, dport] =
        [rule.source_ports, rule.destination_ports].map(|ports| chance.port(ports.first, ports.last));
    let protocol = if rule.protocol_mask == 0 { 6 } else { rule.protocol };
    Some(Header::v4(source, destination, sport, dport, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_sets_have_their_size_and_their_headers_match() {
        for kind in KINDS {
            let set = made(kind, 1000);
            assert!((900..=1000).contains(&set.rules.len()), "{kind}: {} rules", set.rules.len());
            assert_eq!(set.headers.len(), HEADERS);
            let hit = |header: &Header| set.rules.iter().any(|rule| rule.matches(header));
            assert!(set.headers[..200].iter().all(hit), "{kind}");
        }
    }
}
