//! Which prefixes are long: by trial.
//!
//! A forest has one tree for rules with long destinations, one for those of the rest with long sources, one for
//! what is wide in both. Where the line is best drawn depends on the rules, so forests with several lines are built,
//! and headers that match rules are led through them. What steps cost is as measured, and the order that it gives
//! was that of the measured speed on all sets; how good a line is for a part of the rules says less: a part decides
//! only which lines are hopeless.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::bits::{self, Key};
use crate::group::Group;
use crate::grow::{self, Rules};
use crate::tree::Forest;
use crate::{Header, NONE, Ports, Rule5};

/// Rules on which lines are tried first.
const PART: usize = 8192;
/// Up to so many rules, what is not hopeless is tried on all of them: more would take too long.
const ALL: usize = 200_000;
/// Hopeless is what costs more than the best, in per cent of it.
const HOPELESS: u64 = 130;
/// Headers that are led through.
const HEADERS: usize = 1024;

/// The best forest for these rules.
pub(crate) fn forest<G: Group>(rules: &Rules<'_>) -> Forest<G> {
    let mut lines = G::LENGTHS.to_vec();
    if rules.len() > PART {
        let part = rules.some(PART);
        let keys = headers(&part, G::LAYOUT.destination == 16);
        let costs: Vec<u64> =
            lines.iter().map(|line| cost(&grow::forest::<G>(&part, *line), &keys)).collect();
        let best = costs.iter().copied().min().unwrap_or(0);
        let most = if rules.len() > ALL { best } else { best * HOPELESS / 100 };
        lines =
            lines.into_iter().zip(costs).filter(|(_, cost)| *cost <= most).map(|(line, _)| line).collect();
        lines.truncate(if rules.len() > ALL { 1 } else { usize::MAX });
    } else if rules.len() == 0 {
        lines.truncate(1);
    }
    let keys = if lines.len() > 1 { headers(rules, G::LAYOUT.destination == 16) } else { Vec::new() };
    let forests = lines.into_iter().map(|line| {
        let forest = grow::forest::<G>(rules, line);
        (cost(&forest, &keys), forest)
    });
    // One at a time, so that no more than two are in memory.
    let best = forests.reduce(|best, next| if next.0 < best.0 { next } else { best });
    best.map_or_else(|| Forest::new(G::LENGTHS[0]), |(_, forest)| forest)
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
