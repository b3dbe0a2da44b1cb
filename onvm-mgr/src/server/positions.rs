//! Positions: the numbers by which packets know where in which chain they are.
//!
//! Every hop of every chain has one. A chain that changes gets new ones, and the old ones go on to mean what they meant for
//! some changes more: a packet that is on its way is routed to its end by the chain that it entered.

use std::collections::{BTreeMap, VecDeque};

use onvm_lib::protocol::{ChainHop, ServiceId};
use onvm_lib::ring::MAX_ARGUMENT;

use crate::plan::MAX_HOPS;

/// Chains of the past that packets may still be on.
const MOST_RETIRED: usize = 8;
const _: () = assert!(2 * MAX_HOPS < MAX_ARGUMENT as usize);

/// A chain and its first position.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    first: u16,
    hops: Vec<ServiceId>,
}

impl Placed {
    fn end(&self) -> u16 {
        self.first.saturating_add(u16::try_from(self.hops.len()).unwrap_or(u16::MAX))
    }

    fn overlaps(&self, first: u16, end: u16) -> bool {
        self.first < end && first < self.end()
    }

    /// The hop with an index; the end of the chain if there is none.
    fn hop(&self, index: usize) -> ChainHop {
        self.hops.get(index).map_or_else(ChainHop::default, |service| ChainHop {
            service: *service,
            position: self.first.saturating_add(u16::try_from(index).unwrap_or(0)),
        })
    }
}

/// All chains and their positions.
#[derive(Debug, Default)]
pub(super) struct Positions {
    chains: BTreeMap<String, Placed>,
    retired: VecDeque<Placed>,
    next: u16,
}

impl Positions {
    /// Gives positions to chains that are new or have changed, and retires those that are gone.
    pub(super) fn follow(&mut self, chains: &BTreeMap<String, Vec<ServiceId>>) {
        let changed = |name: &String, placed: &Placed| chains.get(name) != Some(&placed.hops);
        let gone: Vec<String> =
            self.chains.iter().filter(|(name, p)| changed(name, p)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.retired.extend(self.chains.remove(&name));
        }
        while self.retired.len() > MOST_RETIRED {
            self.retired.pop_front();
        }
        for (name, hops) in chains {
            if !self.chains.contains_key(name) {
                let first = self.place(hops.len());
                self.chains.insert(name.clone(), Placed { first, hops: hops.clone() });
            }
        }
    }

    /// Finds positions, round robin, so that a number is used again as late as possible.
    fn place(&mut self, length: usize) -> u16 {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        let mut first = self.next.max(1);
        // Each round skips one chain; there are fewer than MAX_HOPS of them.
        for _ in 0..=2 * MAX_HOPS {
            let end = first.saturating_add(length);
            if end > MAX_ARGUMENT {
                first = 1;
                continue;
            }
            match self.chains.values().find(|p| p.overlaps(first, end)) {
                Some(taken) => first = taken.end().max(first + 1),
                None => break,
            }
        }
        let end = first.saturating_add(length);
        self.retired.retain(|p| !p.overlaps(first, end));
        self.next = end;
        first
    }

    /// Where a chain begins; its end if it is empty or unknown.
    pub(super) fn entry(&self, chain: &str) -> ChainHop {
        self.chains.get(chain).map_or_else(ChainHop::default, |placed| placed.hop(0))
    }

    /// What follows each position, and the service at it.
    pub(super) fn hops(&self) -> (Vec<ChainHop>, Vec<ServiceId>) {
        let all = || self.retired.iter().chain(self.chains.values());
        let length = all().map(|p| usize::from(p.end())).max().unwrap_or(1).max(1);
        let (mut hops, mut services) = (vec![ChainHop::default(); length], vec![0; length]);
        for placed in all() {
            for (index, service) in placed.hops.iter().enumerate() {
                let at = usize::from(placed.first) + index;
                hops[at] = placed.hop(index + 1);
                services[at] = *service;
            }
        }
        (hops, services)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chains(all: &[(&str, &[ServiceId])]) -> BTreeMap<String, Vec<ServiceId>> {
        all.iter().map(|(name, hops)| ((*name).to_string(), hops.to_vec())).collect()
    }

    #[test]
    fn a_chain_that_changes_leaves_packets_on_the_old_one_alone() {
        let mut p = Positions::default();
        p.follow(&chains(&[("a", &[1, 2, 3]), ("b", &[2])]));
        let (a, b) = (p.entry("a"), p.entry("b"));
        p.follow(&chains(&[("a", &[1, 3]), ("b", &[2])]));
        assert_eq!(p.entry("b"), b, "a chain that stays keeps its positions");
        assert_ne!(p.entry("a"), a);
        let (hops, services) = p.hops();
        let second = hops[usize::from(a.position)];
        assert_eq!((services[usize::from(a.position)], second.service), (1, 2));
        assert_eq!(hops[usize::from(second.position)].service, 3);
        assert_eq!(hops[usize::from(p.entry("a").position)].service, 3);
        assert_eq!(p.entry("none"), ChainHop::default());
    }

    proptest! {
        #[test]
        fn chains_in_force_never_share_a_position(edits in prop::collection::vec((0u8..6, 0usize..64), 1..40)) {
            let mut wanted = BTreeMap::new();
            let mut p = Positions::default();
            for (name, length) in edits {
                wanted.insert(name.to_string(), vec![u16::from(name) + 1; length]);
                p.follow(&wanted);
                let (hops, services) = p.hops();
                prop_assert!(hops.len() <= usize::from(MAX_ARGUMENT) + 1);
                for (name, chain) in &wanted {
                    let mut hop = p.entry(name);
                    for service in chain {
                        prop_assert_eq!(hop.service, *service);
                        prop_assert_eq!(services[usize::from(hop.position)], *service);
                        hop = hops[usize::from(hop.position)];
                    }
                    prop_assert_eq!(hop, ChainHop::default());
                }
            }
        }
    }
}
