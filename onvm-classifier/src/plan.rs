//! Which prefixes are long: by trial.
//!
//! A forest has one tree for rules with long destinations, one for those of the rest with long sources, one for what is
//! wide in both. Where the line is best drawn depends on the rules. Each line of the family's choice is tried on
//! a part of the rules, and headers that match rules are led through, with what steps cost as measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::bits::{self, Key};
use crate::group::Group;
use crate::grow::{self, Rules};
use crate::tree::Forest;
use crate::{Header, NONE, Ports, Rule5};

/// Rules that a line is tried on.
const RULES: usize = 8192;
/// Headers that are led through.
const HEADERS: usize = 1024;

/// The best line for these rules.
pub(crate) fn lengths<G: Group>(rules: &Rules<'_>) -> [u8; 2] {
    if rules.len() == 0 {
        return G::LENGTHS[0];
    }
    let some = rules.some(RULES);
    let keys: Vec<(Key, Header)> = headers(&some, G::LAYOUT.destination == 16);
    let cost = |lengths: &&[u8; 2]| cost(&grow::forest::<G>(&some, **lengths), &keys);
    *G::LENGTHS.iter().min_by_key(cost).unwrap_or(&G::LENGTHS[0])
}

/// What it costs to look all headers up, in about quarters of a cycle.
fn cost<G: Group>(forest: &Forest<G>, keys: &[(Key, Header)]) -> u64 {
    let mut cost = 0;
    for (key, header) in keys {
        let mut best = NONE;
        for root in forest.roots() {
            let (leaf, depth) = forest.leaf(*root, key);
            cost += 20 + 24 * u64::from(depth);
            if leaf.least() < best {
                cost += 20;
                for group in forest.groups_of(leaf) {
                    cost += 28;
                    let matching = group.matching(header);
                    if matching != 0 {
                        best = best.min(group.slot(matching.trailing_zeros() as usize));
                        break;
                    }
                }
            }
        }
    }
    // Memory beyond what the nearest caches hold costs, too.
    cost + cost * forest.bytes() as u64 / (8 << 20)
}

/// A header that matches, for each of some rules.
fn headers(rules: &Rules<'_>, v6: bool) -> Vec<(Key, Header)> {
    let some = rules.some(HEADERS);
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let header = |rule: &Rule5| {
        let [source, destination] = [rule.source, rule.destination].map(|net| chance.address(net, v6));
        let [sport, dport] = [rule.source_ports, rule.destination_ports].map(|ports| chance.port(ports));
        let protocol = rule.protocol & rule.protocol_mask | chance.byte() & !rule.protocol_mask;
        Header::new(source, destination, sport, dport, protocol)
    };
    let layout = if v6 { &bits::V6 } else { &bits::V4 };
    some.iter().filter_map(header).map(|header| (bits::key(layout, &header), header)).collect()
}

/// Numbers that look random, and are the same each time (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    #[allow(clippy::cast_possible_truncation, reason = "the remainder fits")]
    fn port(&mut self, ports: Ports) -> u16 {
        let span = u64::from(ports.last - ports.first) + 1;
        ports.first + (self.next() % span) as u16
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn address(&mut self, net: Option<IpNet>, v6: bool) -> IpAddr {
        let any = u128::from(self.next()) << 64 | u128::from(self.next());
        match net {
            Some(IpNet::V4(net)) => {
                Ipv4Addr::from_bits(net.network().to_bits() | any as u32 & net.hostmask().to_bits()).into()
            }
            Some(IpNet::V6(net)) => {
                Ipv6Addr::from_bits(net.network().to_bits() | any & net.hostmask().to_bits()).into()
            }
            None if v6 => Ipv6Addr::from_bits(any).into(),
            None => Ipv4Addr::from_bits(any as u32).into(),
        }
    }
}
