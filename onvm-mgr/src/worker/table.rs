//! Where packets go: the worker's routing snapshot, replaced as a whole.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use onvm_lib::protocol::{ChainHop, InstanceId, ServiceId};
use onvm_lib::ring::Descriptor;

/// The routing snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Where packets from ports go first when no flow rule says otherwise; service 0: straight out.
    pub(crate) entry: ChainHop,
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

/// The end of a chain.
pub(crate) const OUT: ChainHop = ChainHop { service: 0, position: 0 };

impl Table {
    /// Where a packet from a port goes first.
    #[inline]
    pub(crate) fn entry_for(&self, _packet: Descriptor, _bytes: &[u8]) -> ChainHop {
        self.entry
    }

    /// Whether all packets from ports take the same chains as with another snapshot.
    pub(crate) fn enters_like(&self, other: &Self) -> bool {
        self.entry == other.entry
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
