//! Where packets go: the worker's routing snapshot, replaced as a whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use onvm_lib::protocol::{ChainHop, InstanceId, ServiceId};

use crate::plan::Rule;
use crate::plan::flow_rules::FlowRules;

/// The routing snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Where packets from ports go first when no flow rule says otherwise; service 0: straight out.
    pub(crate) entry: ChainHop,
    /// Flow rules, and where the chains begin that they name.
    pub(crate) rules: Arc<Vec<Rule>>,
    pub(crate) chains: BTreeMap<String, ChainHop>,
    /// What follows each position of the chain; index 0 is not used.
    pub(crate) hops: Vec<ChainHop>,
    /// The service at each position; index 0 is not used.
    pub(crate) services: Vec<ServiceId>,
    /// What follows a service for packets that are in no chain, by service id; what is not there is followed by the end.
    pub(crate) after: Vec<ChainHop>,
    /// Owner of each slot, by service.
    pub(crate) slots: HashMap<ServiceId, Vec<InstanceId>>,
    /// Services whose known flows stay where they are.
    pub(crate) pinned: BTreeSet<ServiceId>,
    /// What becomes of packets for services without an instance; for those not listed they wait.
    pub(crate) absent: HashMap<ServiceId, Absent>,
}

/// What becomes of packets for a service that has no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// They wait so long; none for as long as the manager's default says.
    Wait(Option<Duration>),
    /// They go on as if the service had passed them on.
    Bypass,
    /// They are dropped.
    Drop,
}

/// Where packets from ports go first: the compiled form of a snapshot's rules.
#[derive(Debug, Default)]
pub(super) struct Entry {
    rules: FlowRules,
    compiled: Arc<Vec<Rule>>,
    names: Vec<String>,
    /// Where the chain begins that a rule names, by the number that the rules know.
    chains: Vec<ChainHop>,
    default: ChainHop,
    /// Where packets from a port may enter; the last for all ports that no rule speaks of.
    by_port: Vec<Vec<ChainHop>>,
}

impl Entry {
    /// Follows a snapshot. Rules that are the same as before are not compiled again.
    pub(super) fn follow(&mut self, table: &Table) {
        let names: Vec<String> = table.chains.keys().cloned().collect();
        let chains: Vec<ChainHop> = table.chains.values().copied().collect();
        let index = |name: &str| {
            names.binary_search_by(|n| n.as_str().cmp(name)).ok().and_then(|i| u16::try_from(i).ok())
        };
        if self.compiled != table.rules || self.names != names {
            self.rules = FlowRules::compile(&table.rules, index);
            self.compiled = Arc::clone(&table.rules);
        }
        self.names = names;
        self.chains = chains;
        self.default = table.entry;
        self.by_port = by_port(table);
    }

    /// Whether packets enter at one place, and where.
    #[inline(always)]
    pub(super) fn only(&self) -> Option<ChainHop> {
        self.rules.is_empty().then_some(self.default)
    }

    /// Where a frame that came in by `port` goes first.
    #[inline]
    pub(super) fn for_frame(&mut self, frame: &[u8], port: u8) -> ChainHop {
        let chain = self.rules.classify(frame, port).and_then(|chain| self.chains.get(usize::from(chain)));
        chain.copied().unwrap_or(self.default)
    }

    /// All places where packets from a port may enter.
    pub(super) fn of_port(&self, port: usize) -> &[ChainHop] {
        self.by_port.get(port).or(self.by_port.last()).map_or(&[], Vec::as_slice)
    }
}

/// Where packets may enter, port by port.
fn by_port(table: &Table) -> Vec<Vec<ChainHop>> {
    let mut rules: Vec<&Rule> = table.rules.iter().collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
    let named = rules.iter().filter_map(|rule| rule.input_port).max();
    // What goes back may come in by the other port of a pair.
    let ports = named.map_or(0, |port| usize::from(port | 1) + 1);
    (0..=ports).map(|port| places(&rules, table, port)).collect()
}

/// Where packets from a port may enter, by rules in the order in which they decide.
fn places(rules: &[&Rule], table: &Table, port: usize) -> Vec<ChainHop> {
    let mut places = Vec::new();
    for rule in rules {
        let wanted = rule.input_port.map(usize::from);
        let comes_in = wanted.is_none_or(|wanted| wanted == port);
        let comes_back = rule.both_directions && wanted == Some(port ^ 1);
        let Some(hop) = table.chains.get(&rule.chain).filter(|_| comes_in || comes_back) else { continue };
        if !places.contains(hop) {
            places.push(*hop);
        }
        if comes_in && takes_all(rule) {
            return places;
        }
    }
    if !places.contains(&table.entry) {
        places.push(table.entry);
    }
    places
}

/// Whether a rule matches whatever comes in by its port.
fn takes_all(rule: &Rule) -> bool {
    rule.source.is_empty()
        && rule.destination.is_empty()
        && rule.source_port.is_empty()
        && rule.destination_port.is_empty()
        && rule.protocol.is_none()
}

/// The end of a chain.
pub(crate) const OUT: ChainHop = ChainHop { service: 0, position: 0 };

impl Table {
    /// Whether all packets from ports take the same chains as with another snapshot.
    pub(crate) fn enters_like(&self, other: &Self) -> bool {
        self.entry == other.entry && self.rules == other.rules && self.chains == other.chains
    }

    /// What follows `position`, for a packet that comes from `service`.
    #[inline(always)]
    pub(crate) fn next(&self, position: u16, service: ServiceId) -> ChainHop {
        if position == 0 {
            return self.after.get(usize::from(service)).copied().unwrap_or(OUT);
        }
        self.hops.get(usize::from(position)).copied().unwrap_or(OUT)
    }
}

/// The port that packets from `port` go out of when nobody says otherwise: 0 and 1 are a pair, 2 and 3, and so
/// on; the only port, or the last of an odd number, is its own pair.
#[inline(always)]
pub(crate) fn paired(port: u8, ports: usize) -> u8 {
    let other = port ^ 1;
    if usize::from(other) < ports { other } else { port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_paired() {
        assert_eq!((paired(0, 2), paired(1, 2)), (1, 0));
        assert_eq!(paired(0, 1), 0);
        assert_eq!((paired(2, 3), paired(3, 4)), (2, 2));
    }

    #[test]
    fn ports_enter_where_their_rules_say() {
        let hop = |service| ChainHop { service, position: service };
        let rule = |chain: &str, input_port, protocol, priority| Rule {
            chain: chain.into(),
            input_port,
            protocol,
            priority,
            ..Rule::default()
        };
        let table = Table {
            entry: hop(9),
            chains: [("a".to_string(), hop(1)), ("b".to_string(), hop(2)), ("c".to_string(), hop(3))].into(),
            rules: Arc::new(vec![
                rule("a", Some(0), None, 0),
                rule("b", Some(2), Some(17), 0),
                rule("c", None, Some(6), 5),
                Rule { both_directions: true, ..rule("a", Some(4), Some(6), 0) },
            ]),
            ..Table::default()
        };
        let mut entry = Entry::default();
        entry.follow(&table);
        assert_eq!(entry.of_port(0), [hop(3), hop(1)], "all that is left takes the chain of the port");
        assert_eq!(entry.of_port(1), [hop(3), hop(9)]);
        assert_eq!(entry.of_port(2), [hop(3), hop(2), hop(9)]);
        assert_eq!(entry.of_port(5), [hop(3), hop(1), hop(9)], "the other direction");
        assert_eq!(entry.of_port(77), [hop(3), hop(9)]);
        entry.follow(&Table { entry: hop(9), ..Table::default() });
        assert_eq!(entry.of_port(3), [hop(9)]);
    }

    #[test]
    fn a_packet_in_no_chain_goes_on_after_its_service() {
        let hop = ChainHop { service: 3, position: 2 };
        let table = Table { hops: vec![OUT, hop, OUT], after: vec![OUT, hop], ..Table::default() };
        assert_eq!(table.next(0, 1), hop);
        assert_eq!(table.next(0, 7), OUT);
        assert_eq!((table.next(1, 7), table.next(2, 7), table.next(900, 7)), (hop, OUT, OUT));
    }
}
