//! What is left of flows that are over: the largest of them, and the totals of their hosts.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;

use onvm_lib::wire::{FlowKey, MacAddr};
use serde::{Deserialize, Serialize};

use crate::application::Shares;
use crate::flow::{Flow, Keyed, Sort};
use crate::heavy::SpaceSaving;
use crate::protocols::Count;

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// Of what is not IP.
    Mac(MacAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Mac(address) => address.fmt(f),
        }
    }
}

/// What a host sent and was sent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) sent: Count,
    pub(crate) received: Count,
}

impl Traffic {
    /// Adds what another has.
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent.add_all(other.sent);
        self.received.add_all(other.received);
    }

    pub(crate) fn total(&self) -> Count {
        Count {
            packets: self.sent.packets + self.received.packets,
            bytes: self.sent.bytes + self.received.bytes,
        }
    }
}

/// The two ends of a flow, each with what it sent and received.
pub(crate) fn ends(key: &FlowKey, flow: &Flow) -> Option<[(Host, Traffic); 2]> {
    let key = flow.first_key(key);
    let (from, to) = match (key.src(), key.dst(), key.macs()) {
        (Some(src), Some(dst), _) => (Host::Ip(src), Host::Ip(dst)),
        (_, _, Some((src, dst, _))) => (Host::Mac(src), Host::Mac(dst)),
        _ => return None,
    };
    let [there, back] = flow.ways.map(|way| way.count);
    Some([(from, Traffic { sent: there, received: back }), (to, Traffic { sent: back, received: there })])
}

/// Of equal flows that which began earlier comes first, so that it does not matter which of them ended first.
type Rank = (u64, Reverse<u64>, Reverse<FlowKey>);

fn rank(sort: Sort, known: &Keyed) -> Rank {
    (sort.weight(known.flow.total()), Reverse(known.flow.first_ns), Reverse(known.key))
}

/// Traffic by host, the heaviest of them.
pub(crate) type Hosts = SpaceSaving<Host, Traffic>;
/// Traffic by flow key, the heaviest of them, whatever records a flow was cut into.
pub(crate) type Talks = SpaceSaving<FlowKey, Count>;

/// Flows that are over.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// Totals of hosts; more than there is room for push out the lightest.
    pub(crate) hosts: Hosts,
    /// Totals by flow key.
    pub(crate) talks: Talks,
    /// Totals by application.
    pub(crate) applications: Shares,
    /// The largest flows, in no order.
    largest: Vec<Keyed>,
    /// What a flow must have more of to be among them, once they are `top`.
    floor: Option<Rank>,
    top: usize,
    sort: Sort,
}

impl Ended {
    pub(crate) fn new(hosts: usize, talks: usize, top: usize, sort: Sort) -> Self {
        Self {
            hosts: Hosts::new(hosts),
            talks: Talks::new(talks),
            applications: Shares::default(),
            largest: Vec::new(),
            floor: None,
            top,
            sort,
        }
    }

    /// Takes in a flow that is over.
    pub(crate) fn take(&mut self, key: &FlowKey, flow: &Flow) {
        let total = flow.total();
        for (host, traffic) in ends(key, flow).into_iter().flatten() {
            self.hosts.add(host, self.sort.weight(traffic.total()), |all| all.add(&traffic));
        }
        self.talks.add(*key, self.sort.weight(total), |all| all.add_all(total));
        self.applications.add(key, flow);
        self.keep(Keyed { key: *key, flow: *flow });
    }

    fn keep(&mut self, known: Keyed) {
        let rank = |known: &Keyed| rank(self.sort, known);
        if self.largest.len() < self.top {
            self.largest.push(known);
        } else {
            // Most flows are small: they do not get as far as the search.
            if self.floor.is_none_or(|floor| rank(&known) <= floor) {
                return;
            }
            if let Some(smallest) = self.largest.iter_mut().min_by_key(|kept| rank(kept)) {
                *smallest = known;
            }
        }
        if self.largest.len() == self.top {
            self.floor = self.largest.iter().map(rank).min();
        }
    }

    /// Goes on with the largest flows of another, within the bounds of this one.
    pub(crate) fn restore_largest(&mut self, largest: &[Keyed]) {
        largest.iter().for_each(|known| self.keep(*known));
    }

    /// The largest flows that are over.
    pub(crate) fn largest(&self) -> &[Keyed] {
        &self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Seen;
    use onvm_lib::wire::tcp::Flags;
    use std::net::Ipv4Addr;

    fn take(ended: &mut Ended, host: u8, bytes: u64) {
        let key = FlowKey::v4(Ipv4Addr::new(10, 0, 0, host), Ipv4Addr::new(10, 0, 1, 0), 1, 2, 17);
        let seen = Seen { bytes, octets: bytes, now_ns: 1, flags: Flags(0) };
        ended.take(&key, &Flow::new(false, seen));
    }

    #[test]
    fn keeps_the_largest_flows() {
        let mut ended = Ended::new(100, 100, 3, Sort::Bytes);
        for n in [5, 1, 9, 3, 7] {
            take(&mut ended, n, u64::from(n));
        }
        let mut kept: Vec<u64> = ended.largest().iter().map(|known| known.flow.total().bytes).collect();
        kept.sort_unstable();
        assert_eq!(kept, [5, 7, 9]);
        assert_eq!((ended.hosts.iter().count(), ended.talks.iter().count()), (6, 5));
    }

    #[test]
    fn a_small_flow_does_not_push_out_a_larger_one() {
        let mut ended = Ended::new(100, 100, 2, Sort::Bytes);
        for n in [5, 6, 1] {
            take(&mut ended, n, u64::from(n));
        }
        assert_eq!(ended.largest().iter().map(|known| known.flow.total().bytes).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn small_hosts_make_room_when_there_are_too_many() {
        let mut ended = Ended::new(8, 8, 1, Sort::Bytes);
        for n in 1..=100 {
            take(&mut ended, n, u64::from(n));
        }
        assert_eq!(ended.hosts.iter().count(), 8);
        assert_eq!(ended.hosts.replaced(), 101 - 8);
        // The one that all speak to is never among the smallest.
        let server = ended.hosts.iter().find(|counter| counter.item.to_string() == "10.0.1.0").unwrap();
        assert_eq!((server.facts.received.packets, server.inherited), (100, 0));
        assert!(ended.hosts.error() <= 2 * 5050 / 8);
    }

    #[test]
    fn no_top_keeps_no_flow() {
        let mut ended = Ended::new(8, 8, 0, Sort::Packets);
        take(&mut ended, 1, 1);
        assert!(ended.largest().is_empty());
    }
}
