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
    pub(super) fn all(&self) -> impl Iterator<Item = ChainHop> + '_ {
        let by_rule = self.chains.iter().copied().filter(|_| !self.rules.is_empty());
        by_rule.chain(std::iter::once(self.default))
    }
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
    fn a_packet_in_no_chain_goes_on_after_its_service() {
        let hop = ChainHop { service: 3, position: 2 };
        let table = Table { hops: vec![OUT, hop, OUT], after: vec![OUT, hop], ..Table::default() };
        assert_eq!(table.next(0, 1), hop);
        assert_eq!(table.next(0, 7), OUT);
        assert_eq!((table.next(1, 7), table.next(2, 7), table.next(900, 7)), (hop, OUT, OUT));
    }
}
