//! From a verdict to an outgoing edge: the compiled form of a route snapshot.

use std::collections::BTreeMap;

use crate::protocol::{EdgeId, Next, Route, ServiceId, Slots};
use crate::ring::{Descriptor, Destination, Op};

/// The relay is always the first output.
pub(super) const RELAY: usize = 0;

/// Where packets for one service, arriving at one position of a chain, go.
#[derive(Clone, Debug)]
struct Way {
    /// Output for each slot of the hash; one entry if all go the same way.
    outputs: Box<[u16]>,
    /// What stands in the descriptor on a direct edge: the position at the other end.
    direct: Destination,
    /// What stands in it on the relay: what the manager shall resolve; as it was, if none.
    relay: Option<Destination>,
}

impl Way {
    #[inline(always)]
    fn choose(&self, descriptor: Descriptor) -> (usize, Destination) {
        let n = self.outputs.len();
        // The table is a power of two long: the upper bits of the hash choose the slot.
        let slot = (u64::from(descriptor.hash()) * n as u64) >> 32;
        let output = usize::from(self.outputs[slot as usize % n]);
        if output == RELAY {
            (RELAY, self.relay.unwrap_or(descriptor.destination()))
        } else {
            (output, self.direct)
        }
    }
}

/// All ways out of an NF.
#[derive(Debug)]
pub(super) struct Routing {
    /// The first for packets in no chain, and for positions that the snapshot does not know.
    next: Vec<Way>,
    /// Index into `next` by position; what lies beyond its end is 0.
    at: Box<[u16]>,
    /// By service id: direct ways only.
    services: BTreeMap<ServiceId, Way>,
}

impl Routing {
    /// Everything by the relay, until the first snapshot comes.
    pub(super) fn relay_only(fixed: Option<ServiceId>) -> Self {
        let relay = fixed.map(|service| Destination::new(Op::Service, service));
        let way = Way { outputs: [0].into(), direct: Destination::new(Op::Next, 0), relay };
        Self { next: vec![way], at: Box::default(), services: BTreeMap::new() }
    }

    /// Compiles a snapshot. `output_of` finds the output of a direct edge; edges that are not known are relayed.
    pub(super) fn compile(
        route: &Route,
        fixed: Option<ServiceId>,
        output_of: impl Fn(EdgeId) -> Option<u16>,
    ) -> Self {
        let way = |service: ServiceId, position: u16, relay: Option<Destination>| Way {
            outputs: route
                .services
                .iter()
                .find(|slots| slots.service == service)
                .map_or([0].into(), |slots| outputs(slots, &output_of)),
            direct: Destination::new(Op::Next, position),
            relay,
        };
        let (next, at) = if let Some(service) = fixed {
            // One way, whatever the position.
            (vec![way(service, 0, Some(Destination::new(Op::Service, service)))], Box::default())
        } else {
            let mut next = vec![way(route.after.service, route.after.position, None)];
            let mut at = vec![0; route.next.iter().map(|n| usize::from(n.at) + 1).max().unwrap_or(0)];
            for Next { at: position, hop } in &route.next {
                at[usize::from(*position)] = u16::try_from(next.len()).unwrap_or(0);
                next.push(way(hop.service, hop.position, None));
            }
            (next, at.into())
        };
        let services = route.services.iter().map(|s| (s.service, way(s.service, 0, None))).collect();
        Self { next, at, services }
    }

    /// What follows a position.
    #[inline(always)]
    fn after(&self, position: u16) -> &Way {
        let index = self.at.get(usize::from(position)).copied().unwrap_or(0);
        &self.next[usize::from(index)]
    }

    /// The output for a packet and what to write into its descriptor.
    #[inline(always)]
    pub(super) fn choose(&self, descriptor: Descriptor) -> (usize, Destination) {
        let destination = descriptor.destination();
        match destination.op() {
            Op::Next => self.after(destination.argument()).choose(descriptor),
            Op::Service => match self.services.get(&destination.argument()) {
                Some(way) => way.choose(descriptor),
                None => (RELAY, destination),
            },
            _ => (RELAY, destination),
        }
    }

    /// The output and destination for all packets with this verdict, if the flow makes no difference.
    #[inline(always)]
    pub(super) fn choose_for_all(&self, descriptor: Descriptor) -> Option<(usize, Destination)> {
        let way = match descriptor.destination().op() {
            Op::Next => self.after(descriptor.destination().argument()),
            Op::Service => match self.services.get(&descriptor.destination().argument()) {
                Some(way) => way,
                None => return Some((RELAY, descriptor.destination())),
            },
            _ => return Some((RELAY, descriptor.destination())),
        };
        (way.outputs.len() == 1).then(|| way.choose(descriptor))
    }

    /// What to write into a packet's descriptor if it goes by the relay, whatever way there is.
    pub(super) fn choose_relay(&self, descriptor: Descriptor) -> Destination {
        match descriptor.destination().op() {
            Op::Next => self.next[0].relay.unwrap_or(descriptor.destination()),
            _ => descriptor.destination(),
        }
    }
}

fn outputs(slots: &Slots, output_of: &impl Fn(EdgeId) -> Option<u16>) -> Box<[u16]> {
    let relay = u16::try_from(RELAY).unwrap_or(0);
    let ways: Vec<u16> = slots.ways.iter().map(|way| way.and_then(output_of).unwrap_or(relay)).collect();
    let table: Box<[u16]> =
        slots.table.iter().map(|i| ways.get(usize::from(*i)).copied().unwrap_or(relay)).collect();
    if table.is_empty() { [relay].into() } else { table }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ChainHop;

    fn packet(destination: Destination, hash: u32) -> Descriptor {
        Descriptor::new(1, 1, 0, 64).with_destination(destination).with_hash(hash)
    }

    fn route() -> Route {
        let slots = Slots { service: 5, ways: vec![Some(70), Some(71), None], table: vec![0, 1, 2, 0] };
        Route {
            after: ChainHop { service: 5, position: 2 },
            next: vec![
                Next { at: 1, hop: ChainHop::default() },
                Next { at: 7, hop: ChainHop { service: 5, position: 9 } },
            ],
            services: vec![slots],
            ..Route::default()
        }
    }

    fn output_of(edge: EdgeId) -> Option<u16> {
        (edge == 70).then_some(3).or((edge == 71).then_some(4))
    }

    #[test]
    fn the_hash_chooses_among_instances() {
        let r = Routing::compile(&route(), None, output_of);
        let here = Destination::new(Op::Next, 0);
        let there = Destination::new(Op::Next, 2);
        assert_eq!(r.choose(packet(here, 0)), (3, there));
        assert_eq!(r.choose(packet(here, 0x4000_0000)), (4, there));
        assert_eq!(r.choose(packet(here, 0x8000_0000)), (RELAY, here), "an instance without a direct edge");
        assert_eq!(r.choose(packet(here, 0xffff_ffff)), (3, there));
    }

    #[test]
    fn the_end_of_a_chain_and_other_verdicts_go_to_the_manager() {
        let r = Routing::compile(&route(), None, output_of);
        for d in
            [Destination::new(Op::Next, 1), Destination::new(Op::Drop, 0), Destination::new(Op::Service, 9)]
        {
            assert_eq!(r.choose(packet(d, 0)), (RELAY, d));
        }
        assert_eq!(r.choose(packet(Destination::new(Op::Service, 5), 0)), (3, Destination::new(Op::Next, 0)));
    }

    #[test]
    fn each_position_has_its_own_way() {
        let r = Routing::compile(&route(), None, output_of);
        assert_eq!(r.choose(packet(Destination::new(Op::Next, 7), 0)), (3, Destination::new(Op::Next, 9)));
        for unknown in [2, 900] {
            let d = Destination::new(Op::Next, unknown);
            assert_eq!(r.choose(packet(d, 0)), (3, Destination::new(Op::Next, 2)));
        }
    }

    #[test]
    fn a_fixed_destination_wins_over_the_chain() {
        let r = Routing::compile(&route(), Some(5), output_of);
        for position in [0, 1, 900] {
            let d = Destination::new(Op::Next, position);
            assert_eq!(r.choose(packet(d, 0)), (3, Destination::new(Op::Next, 0)));
            assert_eq!(r.choose(packet(d, 0x8000_0000)), (RELAY, Destination::new(Op::Service, 5)));
        }
        let before = Routing::relay_only(Some(5));
        assert_eq!(
            before.choose(packet(Destination::new(Op::Next, 0), 0)).1,
            Destination::new(Op::Service, 5)
        );
    }

    #[test]
    fn edges_that_never_came_are_relayed() {
        let r = Routing::compile(&route(), None, |_| None);
        assert_eq!(r.choose(packet(Destination::new(Op::Next, 0), 0)).0, RELAY);
    }
}
