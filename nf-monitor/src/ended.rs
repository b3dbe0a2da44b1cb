//! What is left of flows that are over: the largest of them, and the totals of their hosts.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use onvm_lib::wire::{FlowKey, MacAddr};
use serde::{Deserialize, Serialize};

use crate::flow::{Flow, Sort};
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
    pub(crate) fn total(&self) -> Count {
        Count {
            packets: self.sent.packets + self.received.packets,
            bytes: self.sent.bytes + self.received.bytes,
        }
    }
}

/// Totals by host.
pub(crate) type Hosts = HashMap<Host, Traffic>;

/// Adds a flow to the totals of its two ends.
pub(crate) fn add_to(hosts: &mut Hosts, flow: &Flow) {
    let key = flow.first_key();
    let (from, to) = match (key.src(), key.dst(), key.macs()) {
        (Some(src), Some(dst), _) => (Host::Ip(src), Host::Ip(dst)),
        (_, _, Some((src, dst, _))) => (Host::Mac(src), Host::Mac(dst)),
        _ => return,
    };
    let [there, back] = flow.ways.map(|way| way.count);
    let mut add = |host, sent: Count, received: Count| {
        let traffic: &mut Traffic = hosts.entry(host).or_default();
        traffic.sent.packets += sent.packets;
        traffic.sent.bytes += sent.bytes;
        traffic.received.packets += received.packets;
        traffic.received.bytes += received.bytes;
    };
    add(from, there, back);
    add(to, back, there);
}

/// Of equal flows that which began earlier comes first, so that it does not matter which of them ended first.
type Rank = (u64, Reverse<u64>, Reverse<FlowKey>);

fn rank(sort: Sort, flow: &Flow) -> Rank {
    (sort.weight(flow.total()), Reverse(flow.first_ns), Reverse(*flow.key()))
}

/// Flows that are over.
#[derive(Debug)]
pub(crate) struct Ended {
    hosts: Hosts,
    /// Hosts that are kept at most.
    most_hosts: usize,
    /// Hosts of small traffic that were dropped to make room.
    pub(crate) forgotten: u64,
    /// The largest flows, in no order.
    largest: Vec<Flow>,
    /// What a flow must have more of to be among them, once they are `top`.
    floor: Option<Rank>,
    top: usize,
    sort: Sort,
}

impl Ended {
    pub(crate) fn new(most_hosts: usize, top: usize, sort: Sort) -> Self {
        // Room for the two hosts of any flow.
        let most_hosts = most_hosts.max(2);
        Self { hosts: Hosts::new(), most_hosts, forgotten: 0, largest: Vec::new(), floor: None, top, sort }
    }

    /// Takes in a flow that is over.
    pub(crate) fn take(&mut self, flow: &Flow) {
        if self.hosts.len() + 2 > self.most_hosts {
            self.forget_half();
        }
        add_to(&mut self.hosts, flow);
        self.keep(flow);
    }

    /// Drops the smaller half of the hosts; seldom, as it takes a look at all of them.
    #[cold]
    fn forget_half(&mut self) {
        let weight = |traffic: &Traffic| self.sort.weight(traffic.total());
        let mut weights: Vec<u64> = self.hosts.values().map(weight).collect();
        let before = weights.len();
        let (_, middle, _) = weights.select_nth_unstable(before / 2);
        let middle = *middle;
        self.hosts.retain(|_, traffic| weight(traffic) > middle);
        self.forgotten += (before - self.hosts.len()) as u64;
    }

    fn keep(&mut self, flow: &Flow) {
        let rank = |flow: &Flow| rank(self.sort, flow);
        if self.largest.len() < self.top {
            self.largest.push(*flow);
        } else {
            // Most flows are small: they do not get as far as the search.
            if self.floor.is_none_or(|floor| rank(flow) <= floor) {
                return;
            }
            if let Some(smallest) = self.largest.iter_mut().min_by_key(|kept| rank(kept)) {
                *smallest = *flow;
            }
        }
        if self.largest.len() == self.top {
            self.floor = self.largest.iter().map(rank).min();
        }
    }

    /// Goes on from where another has come to, within the bounds of this one.
    pub(crate) fn restore(&mut self, hosts: Vec<(Host, Traffic)>, forgotten: u64, largest: &[Flow]) {
        self.hosts = hosts.into_iter().collect();
        self.forgotten = forgotten;
        while self.hosts.len() > self.most_hosts {
            self.forget_half();
        }
        largest.iter().for_each(|flow| self.keep(flow));
    }

    /// Totals of hosts over the flows that are over.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&Host, &Traffic)> {
        self.hosts.iter()
    }

    /// The largest flows that are over.
    pub(crate) fn largest(&self) -> &[Flow] {
        &self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Seen;
    use onvm_lib::wire::FlowKey;
    use onvm_lib::wire::tcp::Flags;
    use std::net::Ipv4Addr;

    fn flow(host: u8, bytes: u64) -> Flow {
        let key = FlowKey::v4(Ipv4Addr::new(10, 0, 0, host), Ipv4Addr::new(10, 0, 1, 0), 1, 2, 17);
        Flow::new(0, key, false, Seen { bytes, now_ns: 1, flags: Flags(0) })
    }

    #[test]
    fn keeps_the_largest_flows() {
        let mut ended = Ended::new(100, 3, Sort::Bytes);
        for n in [5, 1, 9, 3, 7] {
            ended.take(&flow(n, u64::from(n)));
        }
        let mut kept: Vec<u64> = ended.largest().iter().map(|f| f.total().bytes).collect();
        kept.sort_unstable();
        assert_eq!(kept, [5, 7, 9]);
        assert_eq!(ended.hosts().count(), 6);
    }

    #[test]
    fn a_small_flow_does_not_push_out_a_larger_one() {
        let mut ended = Ended::new(100, 2, Sort::Bytes);
        for n in [5, 6, 1] {
            ended.take(&flow(n, u64::from(n)));
        }
        assert_eq!(ended.largest().iter().map(|f| f.total().bytes).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn forgets_small_hosts_when_there_are_too_many() {
        let mut ended = Ended::new(8, 1, Sort::Bytes);
        for n in 1..=100 {
            ended.take(&flow(n, u64::from(n)));
        }
        assert!(ended.hosts().count() <= 8);
        assert_eq!(ended.forgotten + ended.hosts().count() as u64, 101);
        let common = ended.hosts().find(|(host, _)| host.to_string() == "10.0.1.0").unwrap();
        assert_eq!(common.1.received.packets, 100);
    }

    #[test]
    fn no_top_keeps_no_flow() {
        let mut ended = Ended::new(8, 0, Sort::Packets);
        ended.take(&flow(1, 1));
        assert!(ended.largest().is_empty());
    }
}
