//! A rule's addresses, ports and protocols as five-field rules of the classifier.
//!
//! A rule with sets in several fields becomes the product of their parts. What would be too many is not expanded:
//! the field with most parts is given to the classifier wider than it is, and checked exactly afterwards. So is a set
//! that would be too many as a whole: then every rule gets fewer.

use std::borrow::Borrow;

use ipnet::IpNet;
use onvm_classifier::{Ports, Rule5};

use super::checks::Checks;
use crate::rules::ranges::Ranges;
use crate::rules::{Match, Rule};

/// Most five-field rules that one rule becomes, for each family of addresses.
pub(crate) const MOST: usize = 4096;
/// Most five-field rules that a set becomes; each takes a quarter of a kilobyte.
pub(crate) const MOST_IN_ALL: usize = 2 << 20;
/// Most protocols that are told apart by the classifier; sets of more are checked afterwards.
const MOST_PROTOCOLS: usize = 4;

/// Parts of each field.
#[derive(Debug)]
struct Parts {
    sources: Vec<Option<IpNet>>,
    destinations: Vec<Option<IpNet>>,
    source_ports: Vec<Ports>,
    destination_ports: Vec<Ports>,
    protocols: Vec<(u8, u8)>,
}

impl Parts {
    fn product(&self) -> usize {
        [
            self.sources.len(),
            self.destinations.len(),
            self.source_ports.len(),
            self.destination_ports.len(),
            self.protocols.len(),
        ]
        .into_iter()
        .fold(1, usize::saturating_mul)
    }
}

/// Five-field rules of a set, in order.
#[derive(Debug, Default)]
pub(crate) struct Expanded {
    pub(crate) fives: Vec<Rule5>,
    /// For each of them the rule that it is part of.
    pub(crate) owners: Vec<u32>,
    /// For each rule what of it remains to be checked afterwards.
    pub(crate) checks: Vec<Checks>,
}

/// All rules of a set; each as exactly as there is room for `most` in all.
pub(crate) fn expand_all<R: Borrow<Rule>>(rules: &[R], most: usize) -> Expanded {
    // With one part for each family all sets have room: there are fewer rules than half of what there is room for.
    for limit in [MOST, MOST / 8, MOST / 64, MOST / 512] {
        if let Some(expanded) = expand_up_to(rules, limit, most) {
            if limit < MOST {
                log::warn!(
                    "the rules have so many parts that each becomes {limit} for the classifier at most"
                );
            }
            return expanded;
        }
    }
    expand_up_to(rules, 1, usize::MAX).unwrap_or_default()
}

/// None if it would be more than `most`.
fn expand_up_to<R: Borrow<Rule>>(rules: &[R], limit: usize, most: usize) -> Option<Expanded> {
    let mut all = Expanded { fives: Vec::with_capacity(rules.len()), ..Expanded::default() };
    all.checks.reserve_exact(rules.len());
    for (index, rule) in (0..).zip(rules) {
        all.checks.push(expand(&rule.borrow().matches, limit, &mut all.fives));
        if all.fives.len() > most {
            return None;
        }
        all.owners.resize(all.fives.len(), index);
    }
    Some(all)
}

/// Appends the five-field rules of a rule, so many for each family at most; what of it remains to be checked afterwards.
pub(crate) fn expand(rule: &Match, limit: usize, into: &mut Vec<Rule5>) -> Checks {
    let mut checks = Checks::of(rule);
    let both = rule.source.is_all() && rule.destination.is_all();
    if both {
        // Without an address it is for both families in one.
        push(parts(rule, vec![None], vec![None], &mut checks), rule, limit, &mut checks, into);
        return checks;
    }
    if !rule.source.v4.is_empty() && !rule.destination.v4.is_empty() {
        let sides = [rule.source.v4_prefixes(), rule.destination.v4_prefixes()];
        let [sources, destinations] = sides.map(|side| side.into_iter().map(Some).collect::<Vec<_>>());
        push(parts(rule, sources, destinations, &mut checks), rule, limit, &mut checks, into);
    }
    if !rule.source.v6.is_empty() && !rule.destination.v6.is_empty() {
        let sides = [rule.source.v6_prefixes(), rule.destination.v6_prefixes()];
        let [sources, destinations] = sides.map(|side| side.into_iter().map(Some).collect::<Vec<_>>());
        push(parts(rule, sources, destinations, &mut checks), rule, limit, &mut checks, into);
    }
    checks
}

fn parts(
    rule: &Match,
    sources: Vec<Option<IpNet>>,
    destinations: Vec<Option<IpNet>>,
    checks: &mut Checks,
) -> Parts {
    let ports = |set: &Ranges<u16>| set.iter().map(|(first, last)| Ports { first, last }).collect();
    let exact: usize = rule.protocols.iter().map(|(first, last)| usize::from(last - first) + 1).sum();
    let protocols = if rule.protocols.is_all() {
        vec![(0, 0)]
    } else if exact > MOST_PROTOCOLS {
        checks.add(Checks::PROTOCOL);
        vec![(0, 0)]
    } else {
        rule.protocols.iter().flat_map(|(first, last)| first..=last).map(|number| (number, 0xff)).collect()
    };
    Parts {
        sources,
        destinations,
        source_ports: ports(&rule.source_ports),
        destination_ports: ports(&rule.destination_ports),
        protocols,
    }
}

/// The smallest prefix that holds all of these, which are of one family and in order.
fn cover(nets: &[Option<IpNet>]) -> Option<IpNet> {
    let (first, last) = (nets.first().copied().flatten()?, nets.last().copied().flatten()?);
    let mut wide = first;
    while !wide.contains(&last) {
        wide = wide.supernet()?;
    }
    Some(wide)
}

/// Widens fields until there are few enough parts, and appends the product.
fn push(mut parts: Parts, rule: &Match, limit: usize, checks: &mut Checks, into: &mut Vec<Rule5>) {
    while parts.product() > limit.max(1) {
        let sizes = [
            parts.sources.len(),
            parts.destinations.len(),
            parts.source_ports.len(),
            parts.destination_ports.len(),
            parts.protocols.len(),
        ];
        let widest = (0..sizes.len()).max_by_key(|field| sizes[*field]).unwrap_or(0);
        let hull = |set: &Ranges<u16>| {
            let (first, last) = set.hull().unwrap_or((0, u16::MAX));
            vec![Ports { first, last }]
        };
        match widest {
            0 => {
                parts.sources = vec![cover(&parts.sources)];
                checks.add(Checks::SOURCE);
            }
            1 => {
                parts.destinations = vec![cover(&parts.destinations)];
                checks.add(Checks::DESTINATION);
            }
            2 => {
                parts.source_ports = hull(&rule.source_ports);
                checks.add(Checks::SOURCE_PORT);
            }
            3 => {
                parts.destination_ports = hull(&rule.destination_ports);
                checks.add(Checks::DESTINATION_PORT);
            }
            _ => {
                parts.protocols = vec![(0, 0)];
                checks.add(Checks::PROTOCOL);
            }
        }
    }
    for source in &parts.sources {
        for destination in &parts.destinations {
            for source_ports in &parts.source_ports {
                for destination_ports in &parts.destination_ports {
                    for (protocol, protocol_mask) in &parts.protocols {
                        into.push(Rule5 {
                            source: *source,
                            destination: *destination,
                            source_ports: *source_ports,
                            destination_ports: *destination_ports,
                            protocol: *protocol,
                            protocol_mask: *protocol_mask,
                        });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::addresses::Addresses;

    fn expanded(rule: &Match) -> (Vec<Rule5>, Checks) {
        let mut into = Vec::new();
        let checks = expand(rule, MOST, &mut into);
        (into, checks)
    }

    #[test]
    fn sets_become_products() {
        let net = |text: &str| Addresses::prefix(text.parse().unwrap());
        let rule = Match {
            source: net("10.0.0.0/8").union(&net("2001:db8::/32")),
            destination_ports: Ranges::of([(80, 80), (443, 443)]),
            protocols: Ranges::of([(6, 6), (17, 17)]),
            ..Match::any()
        };
        let (rules, checks) = expanded(&rule);
        assert_eq!(rules.len(), 8);
        assert!(checks.is_empty());
        assert_eq!(expanded(&Match::any()).0, [Rule5::ANY]);
    }

    #[test]
    fn a_set_of_too_many_parts_is_widened_as_a_whole() {
        let every_other = |n: u16| Ranges::of((0..n).map(|n| (2 * n, 2 * n)));
        let matches = Match {
            source_ports: every_other(32),
            destination_ports: every_other(32),
            protocols: Ranges::of([(6, 6), (17, 17)]),
            ..Match::any()
        };
        let rule = Rule { matches, ..Rule::new("r".into(), 1, crate::rules::Action::Deny) };
        let rules = vec![rule; 100];
        let parts = |most| expand_all(&rules, most).fives.len();
        assert_eq!((parts(1 << 20), parts(10_000), parts(1000), parts(10)), (204_800, 6400, 200, 100));
        let all = expand_all(&rules, 1000);
        assert!(
            all.checks
                .iter()
                .all(|checks| checks.has(Checks::SOURCE_PORT) && checks.has(Checks::DESTINATION_PORT))
        );
        assert_eq!((all.owners.len(), all.owners[199], all.checks.len()), (200, 99, 100));
        assert!(expand_all(&rules, 10).checks[0].has(Checks::PROTOCOL));
    }

    #[test]
    fn what_would_be_too_many_is_widened_and_checked() {
        let every_other = (0..2000u32).map(|n| (0x0a00_0000 + 2 * n, 0x0a00_0000 + 2 * n));
        let rule = Match {
            source: Addresses { v4: Ranges::of(every_other), v6: Ranges::none() },
            destination_ports: Ranges::of((0..500u16).map(|n| (3 * n, 3 * n))),
            protocols: Ranges::of([(0, 5), (7, 255)]),
            ..Match::any()
        };
        let (rules, checks) = expanded(&rule);
        assert_eq!(rules.len(), 500);
        assert_eq!(rules[0].source, Some("10.0.0.0/20".parse().unwrap()));
        assert!(
            checks.has(Checks::SOURCE)
                && checks.has(Checks::PROTOCOL)
                && !checks.has(Checks::DESTINATION_PORT)
        );
    }
}
