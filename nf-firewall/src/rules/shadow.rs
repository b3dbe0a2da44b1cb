//! Rules that can decide nothing, because earlier ones take all that they match.
//!
//! A rule is *shadowed* when one earlier rule matches all that it matches: told with its name. It is *unreachable* when
//! several earlier rules together do; that is found where they agree with it in all but one field, whose parts add up.
//! What is found is always so; what needs several fields at once to be seen is not found.
//!
//! Who hides a rule alone also matches its lowest packet, and the classifier knows all that do; so this takes a set of
//! any size. Those that hide one together are looked for among pairs of rules, in the first thousands.

use std::sync::Arc;

use onvm_classifier::Header;

use super::ranges::{Number, Ranges};
use super::rate::Over;
use super::{Action, Match, Rule, RuleSet};
use crate::engine::Compiled;

/// Pairs of rules that are compared at most.
const MOST_PAIRS: usize = 60_000_000;

/// A rule that decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hidden {
    /// Its index.
    pub(crate) rule: usize,
    /// Indices of those that hide it, the first most important.
    pub(crate) by: Vec<usize>,
    /// It would have done the same: it is only superfluous.
    pub(crate) same_action: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    pub(crate) hidden: Vec<Hidden>,
    /// So many of the first rules may be hidden by several together; of those after them that was not looked for.
    pub(crate) looked_at: usize,
}

/// Looks for rules that decide nothing.
pub(crate) fn find(compiled: &Compiled) -> Findings {
    let set = &compiled.set;
    let hiding = hiding(set);
    let marked = marked(set);
    // A mark that a rule between the two may set is another one for the later.
    let hides = |one: usize, other: usize| {
        hiding[one] && (set.rules[one].matches.mark.is_none() || marked[one] == marked[other])
    };
    let mut findings = Findings { hidden: Vec::new(), looked_at: set.rules.len() };
    let mut pairs = 0usize;
    for (index, rule) in set.rules.iter().enumerate() {
        pairs = pairs.saturating_add(index);
        if pairs > MOST_PAIRS {
            findings.looked_at = findings.looked_at.min(index);
        }
        if is_marker(rule) {
            continue;
        }
        let mut by = None;
        if let Some(lowest) = lowest(&rule.matches) {
            compiled.matching(&lowest, |other| {
                let other = other as usize;
                let earlier = other < index && hides(other, index) && by.is_none_or(|known| other < known);
                if earlier && holds(&set.rules[other].matches, &rule.matches, None) {
                    by = Some(other);
                }
            });
        }
        let mut by = by.map(|one| vec![one]);
        if by.is_none() && pairs <= MOST_PAIRS {
            by = together(&set.rules[..index], &rule.matches, |n| hides(n, index));
        }
        if let Some(by) = by {
            let same_action = by.iter().all(|n| set.rules[*n].action == rule.action);
            findings.hidden.push(Hidden { rule: index, by, same_action });
        }
    }
    findings
}

/// The lowest packet that matches the five fields of a rule.
fn lowest(rule: &Match) -> Option<Header> {
    let sport = rule.source_ports.hull()?.0;
    let dport = rule.destination_ports.hull()?.0;
    let protocol = rule.protocols.hull()?.0;
    if let (Some((a, _)), Some((b, _))) = (rule.source.v4.hull(), rule.destination.v4.hull()) {
        return Some(Header::v4(a.into(), b.into(), sport, dport, protocol));
    }
    let (a, b) = (rule.source.v6.hull()?.0, rule.destination.v6.hull()?.0);
    Some(Header::v6(a.into(), b.into(), sport, dport, protocol))
}

/// Which rules can hide others: not those that let packets go on to the next ones, nor those that an earlier rule may
/// skip.
fn hiding(set: &RuleSet) -> Vec<bool> {
    let mut skipped_to = 0;
    let mut hiding = Vec::with_capacity(set.rules.len());
    for (index, rule) in set.rules.iter().enumerate() {
        let decides = rule.action.is_final() && rule.limit.is_none_or(|limit| limit.over == Over::Deny);
        hiding.push(decides && index >= skipped_to);
        if let Action::Skip(to) = rule.action {
            skipped_to = skipped_to.max(to as usize);
        }
    }
    hiding
}

/// For each rule, how many of those before it may set a mark.
fn marked(set: &RuleSet) -> Vec<usize> {
    let count = |before: &mut usize, rule: &Arc<Rule>| {
        let here = *before;
        *before += usize::from(rule.set_mark.is_some());
        Some(here)
    };
    set.rules.iter().scan(0, count).collect()
}

/// Whether a rule only leads past others: it stands for the end of a chain, or for a jump, and for no rule that
/// somebody wrote to decide something.
fn is_marker(rule: &Rule) -> bool {
    let counts_only = rule.log.is_none() && rule.set_mark.is_none();
    matches!(rule.action, Action::Skip(_)) || rule.action == Action::Continue && counts_only
}

/// A field in which rules may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Source,
    Destination,
    SourcePorts,
    DestinationPorts,
    Protocols,
    Vlan,
    InPorts,
    States,
}

const FIELDS: [Field; 8] = [
    Field::Source,
    Field::Destination,
    Field::SourcePorts,
    Field::DestinationPorts,
    Field::Protocols,
    Field::Vlan,
    Field::InPorts,
    Field::States,
];

/// Whether `one` matches all that `other` matches, one field left out of the comparison.
fn holds(one: &Match, other: &Match, but: Option<Field>) -> bool {
    let asked = |field: Field| but != Some(field);
    // An address family that the other side does not have is no difference.
    let addresses = |a: &Match, b: &Match| {
        let v4 = b.source.v4.is_empty() || b.destination.v4.is_empty();
        let v6 = b.source.v6.is_empty() || b.destination.v6.is_empty();
        (!asked(Field::Source)
            || (v4 || b.source.v4.is_subset_of(&a.source.v4))
                && (v6 || b.source.v6.is_subset_of(&a.source.v6)))
            && (!asked(Field::Destination)
                || (v4 || b.destination.v4.is_subset_of(&a.destination.v4))
                    && (v6 || b.destination.v6.is_subset_of(&a.destination.v6)))
    };
    addresses(one, other)
        && (!asked(Field::SourcePorts) || other.source_ports.is_subset_of(&one.source_ports))
        && (!asked(Field::DestinationPorts) || other.destination_ports.is_subset_of(&one.destination_ports))
        && (!asked(Field::Protocols) || other.protocols.is_subset_of(&one.protocols))
        && (!asked(Field::Vlan) || other.vlan.is_subset_of(&one.vlan))
        && other.inner_vlan.is_subset_of(&one.inner_vlan)
        && (!asked(Field::InPorts) || other.in_ports.is_subset_of(&one.in_ports))
        && (!asked(Field::States) || other.states.0 & !one.states.0 == 0)
        && (one.time.is_none() || one.time == other.time)
        && (one.mark.is_none() || one.mark == other.mark)
        && (one.flags.is_empty() || one.flags == other.flags)
        && one.icmp.as_ref().is_none_or(|a| {
            other.icmp.as_ref().is_some_and(|b| b.v4.is_subset_of(&a.v4) && b.v6.is_subset_of(&a.v6))
        })
}

/// Earlier rules that hide a rule together: they agree in all fields but one, and there they add up.
fn together(earlier: &[Arc<Rule>], rule: &Match, hides: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
    FIELDS
        .into_iter()
        .find_map(|field| {
            let agreeing = earlier
                .iter()
                .enumerate()
                .filter(|(n, one)| hides(*n) && holds(&one.matches, rule, Some(field)));
            let all: Vec<(usize, &Match)> = agreeing.map(|(n, one)| (n, &one.matches)).collect();
            // One alone would have been found as a whole.
            if all.len() < 2 {
                return None;
            }
            match field {
                Field::Source => parts(&all, |m| &m.source.v4, &rule.source.v4).and_then(|mut by| {
                    by.extend(parts(&all, |m| &m.source.v6, &rule.source.v6)?);
                    Some(by)
                }),
                Field::Destination => {
                    parts(&all, |m| &m.destination.v4, &rule.destination.v4).and_then(|mut by| {
                        by.extend(parts(&all, |m| &m.destination.v6, &rule.destination.v6)?);
                        Some(by)
                    })
                }
                Field::SourcePorts => parts(&all, |m| &m.source_ports, &rule.source_ports),
                Field::DestinationPorts => parts(&all, |m| &m.destination_ports, &rule.destination_ports),
                Field::Protocols => parts(&all, |m| &m.protocols, &rule.protocols),
                Field::Vlan => parts(&all, |m| &m.vlan, &rule.vlan),
                Field::InPorts => parts(&all, |m| &m.in_ports, &rule.in_ports),
                Field::States => {
                    let mut left = rule.states.0;
                    let mut by = Vec::new();
                    for (n, one) in &all {
                        if left & one.states.0 != 0 {
                            left &= !one.states.0;
                            by.push(*n);
                        }
                    }
                    (left == 0).then_some(by)
                }
            }
        })
        .map(|mut by| {
            by.sort_unstable();
            by.dedup();
            by
        })
}

/// Those whose parts add up to `wanted`; none if they do not.
fn parts<'a, T: Number + 'a>(
    all: &[(usize, &'a Match)],
    field: impl Fn(&'a Match) -> &'a Ranges<T>,
    wanted: &Ranges<T>,
) -> Option<Vec<usize>> {
    let mut left = wanted.clone();
    let mut by = Vec::new();
    for (n, one) in all {
        if left.is_empty() {
            break;
        }
        let fewer = left.without(field(one));
        if fewer != left {
            by.push(*n);
            left = fewer;
        }
    }
    left.is_empty().then_some(by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::load::{Reading, read};

    fn found(rules: &str) -> Vec<(usize, Vec<usize>, bool)> {
        let set = read("f", &format!("rules:\n{rules}"), &Reading::default()).unwrap().set;
        find(&Compiled::new(set)).hidden.into_iter().map(|h| (h.rule, h.by, h.same_action)).collect()
    }

    #[test]
    fn one_rule_hides_another() {
        let rules = "  - {protocol: tcp, to: 10.0.0.0/8, action: deny}\n\
                     \x20 - {protocol: tcp, to: 10.1.0.0/16, to-port: 80, action: allow}\n\
                     \x20 - {protocol: udp, to: 10.1.0.0/16, action: allow}\n\
                     \x20 - {protocol: tcp, to: 10.2.0.0/16, flags: syn, action: deny}\n";
        assert_eq!(found(rules), [(1, vec![0], false), (3, vec![0], true)]);
    }

    #[test]
    fn several_hide_one_together() {
        let rules = "  - {protocol: tcp, to-port: 1-100, action: deny}\n\
                     \x20 - {protocol: tcp, to-port: 50-200, action: allow}\n\
                     \x20 - {protocol: tcp, to-port: 20-150, action: allow}\n\
                     \x20 - {from: ipv4, action: deny}\n\
                     \x20 - {from: ipv6, action: deny}\n\
                     \x20 - {action: allow}\n";
        assert_eq!(found(rules), [(2, vec![0, 1], false), (5, vec![3, 4], false)]);
        let states = "  - {state: [new, established], action: allow}\n\
                      \x20 - {state: [related, invalid, untracked], action: deny}\n\
                      \x20 - {protocol: tcp, action: deny}\n";
        assert_eq!(found(states), [(2, vec![0, 1], false)]);
    }

    #[test]
    fn a_mark_set_between_makes_a_difference() {
        let rules = "  - {mark: 1, action: deny}\n\
                     \x20 - {set-mark: 1, action: continue}\n\
                     \x20 - {mark: 1, action: allow}\n\
                     \x20 - {mark: 1, protocol: tcp, action: deny}\n";
        assert_eq!(found(rules), [(3, vec![2], false)]);
    }

    #[test]
    fn ways_out_of_chains_are_no_rules() {
        let text = "*filter\n:FORWARD DROP [0:0]\n:a - [0:0]\n-A FORWARD -p tcp -g a\n-A FORWARD -p udp -j a\n\
                    -A a -j DROP\nCOMMIT\n";
        let iptables = crate::rules::iptables::Choices { chain: "FORWARD".into(), ..Default::default() };
        let set = read("f", text, &Reading { iptables, ..Reading::default() }).unwrap().set;
        assert_eq!(set.rules.len(), 3);
        assert_eq!(find(&Compiled::new(set)).hidden, []);
    }

    #[test]
    fn what_goes_on_or_asks_for_more_hides_nothing() {
        let rules = "  - {protocol: tcp, set-mark: 1, action: continue}\n\
                     \x20 - {protocol: tcp, limit: {rate: 1/s, over: next}, action: allow}\n\
                     \x20 - {protocol: tcp, flags: syn, action: allow}\n\
                     \x20 - {protocol: tcp, time: {days: mon, zone: utc}, action: allow}\n\
                     \x20 - {protocol: tcp, in-port: 1, action: allow}\n\
                     \x20 - {protocol: tcp, action: deny}\n";
        assert_eq!(found(rules), []);
    }
}
