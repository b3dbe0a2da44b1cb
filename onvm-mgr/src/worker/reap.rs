//! Clearing up after an NF that is gone.
//!
//! Called when the kernel has said that the thread with the packets is dead, so nobody works on what it left. What stood in
//! its incoming rings is still its to answer for, except what it had passed on already:
//!
//! 1. Empty its outgoing ring to us: those packets were delivered.
//! 2. Collect what it had passed on in its last turn, from all its outgoing rings ([`Ring::passed_on`]).
//! 3. Walk its incoming rings, and its table of held packets. What it had in its hands and did not pass on may
//!    be half rewritten: dropped as `reaped`, unless the NF only reads. What it had not touched goes on untouched.
//! 4. Direct edges to it: their producers live and may still write. The worker reads in its place until the
//!    producer has confirmed that it stopped. Direct edges from it: their consumers empty them.
//! 5. Buffers that it had in its hands to write to are nobody's until its *process* is gone, whose other threads may
//!    run a moment longer ([`Worker::bury`]).
//!
//! [`Ring::passed_on`]: onvm_lib::ring::Ring::passed_on

use std::collections::HashSet;
use std::os::fd::AsFd;

use onvm_lib::packet::DropReason;
use onvm_lib::pool::{Holder, Packet};
use onvm_lib::protocol::{EdgeId, InstanceId, ServiceId};
use onvm_lib::ring::{Consumer, Descriptor, Op, Ring};

use super::audit::Audit;
use super::gate::identity;
use super::node::{Node, Remains};
use super::{BURST, News, Worker};

/// Instances that must have died with a packet in their hands before it is set aside.
const DEADLY: u32 = 2;

/// What the reaper works with.
struct Dead {
    node: Node,
    /// What it had passed on in its last turn, once it is asked for; none if its rings no longer tell.
    passed_on: Option<Option<HashSet<(u32, u16)>>>,
    in_hand: u64,
    waiting: u64,
    /// It did not leave in order: what it had in its hands may have killed it.
    crashed: bool,
    /// Its process is not gone yet.
    lingers: bool,
}

/// A buffer that a dead instance had in its hands to write to.
pub(super) struct Unburied {
    instance: InstanceId,
    packet: Packet,
    /// Why its packet is dropped; none if it is empty.
    reason: Option<DropReason>,
}

impl Unburied {
    pub(super) fn holds_packet(&self) -> bool {
        self.reason.is_some()
    }
}

impl Worker {
    /// `crashed` if it did not leave in order, `lingers` if its process is not gone yet.
    pub(super) fn reap(&mut self, instance: InstanceId, crashed: bool, lingers: bool) {
        let Some(index) = self.by_instance.get(&instance).copied() else { return };
        self.now = std::time::Instant::now();
        self.fence_line(index, instance);
        self.by_instance.remove(&instance);
        let Some(node) = self.nodes[index].take() else { return };
        self.forget_suspects();
        let mut dead = Dead { node, passed_on: None, in_hand: 0, waiting: 0, crashed, lingers };
        let inbound = dead.node.inbound.ring();
        self.walk(&mut dead, &inbound);
        if let Some(empties) = dead.node.empties.as_ref().map(onvm_lib::ring::Producer::ring) {
            self.walk(&mut dead, &empties);
        }
        let towards: Vec<EdgeId> =
            self.edges.iter().filter(|(_, e)| e.to == instance).map(|(id, _)| *id).collect();
        for edge in towards {
            self.inherit(&mut dead, edge);
        }
        for descriptor in dead.node.page.held() {
            self.settle(&mut dead, descriptor, true);
        }
        if dead.node.own_pool.is_some() {
            for (packet, full) in self.books.reclaim(dead.node.holder) {
                if full {
                    dead.in_hand += 1;
                    self.drop_packet(packet, DropReason::Reaped);
                } else {
                    self.books.free(packet);
                }
            }
        }
        self.open_edges_of_dead(instance);
        self.services.iter_mut().for_each(|(_, service)| service.line.unfence(instance));
        self.flush_parked();
        self.publish();
        self.tell(News::Reaped { instance, in_hand: dead.in_hand, passed_to_others: dead.waiting });
        self.audits.push(Audit::sweep());
        self.remains.push(dead.node);
    }

    /// Lets go of what dead instances had, but for the successors' first moments.
    pub(super) fn let_go_of_remains(&mut self) {
        if self.hushed_until.is_none() {
            for node in std::mem::take(&mut self.remains) {
                self.sleeper.remove(node.doorbell.as_fd());
                self.tell(News::Remains(Remains::of(node)));
            }
        }
    }

    /// Of packets that were in the hands of one that died only those are remembered that have not come to their end since.
    fn forget_suspects(&mut self) {
        if !self.suspects.is_empty() {
            let (books, in_line) = (&self.books, self.services.packets_in_line());
            self.suspects.retain(|packet, _| {
                books.generation_out(packet.0) == Some(packet.1) || in_line.contains(packet)
            });
        }
    }

    /// Passes on what a dead instance had put out, and keeps what it had not from overtaking that.
    fn fence_line(&mut self, index: usize, instance: InstanceId) {
        let given = |nodes: &[Option<Node>]| -> Vec<u64> {
            nodes.iter().map(|n| n.as_ref().map_or(0, |n| n.totals.given)).collect()
        };
        let before = given(&self.nodes);
        self.take_what_it_put_out(index);
        self.publish();
        let Some(service) = self.nodes[index].as_ref().map(|n| n.service) else { return };
        let after = given(&self.nodes);
        let relayed = (0..self.nodes.len()).filter(|i| *i != index && before[*i] != after[*i]);
        let mut rings: Vec<(Ring, InstanceId)> =
            relayed.filter_map(|i| self.nodes[i].as_ref()).map(|n| (n.inbound.ring(), n.instance)).collect();
        let from_it: Vec<EdgeId> =
            self.edges.iter().filter(|(_, e)| e.from == instance).map(|(id, _)| *id).collect();
        for id in from_it {
            // What its reader left is for us to pass on.
            self.empty_heir(id, true);
            let read =
                self.edges.get(&id).filter(|e| e.to != instance && self.by_instance.contains_key(&e.to));
            rings.extend(read.map(|e| (e.ring.clone(), e.to)));
        }
        let now = self.now;
        self.services.entry(service).line.fence(rings, now);
    }

    /// Works off all that a dead instance had put out, whatever room there is ahead.
    fn take_what_it_put_out(&mut self, index: usize) {
        // What stands in rings that its dead neighbours left went before what it sent by the relay.
        let heirs = self.nodes[index].as_ref().map(|n| n.heirs.clone()).unwrap_or_default();
        for id in heirs {
            self.empty_heir(id, true);
        }
        // No more than the ring holds: a forked child of the dead process could go on writing for ever.
        let mut left = self.nodes[index].as_ref().map_or(0, |n| n.outbound.ring().capacity() as usize);
        while left > 0 {
            let Some(node) = &mut self.nodes[index] else { return };
            let (holder, service) = (node.holder, node.service);
            let mut burst = [Descriptor::default(); BURST];
            let Ok(n @ 1..) = node.outbound.take(super::deliver::WORKER_TURN, &mut burst) else { return };
            for descriptor in &burst[..n] {
                self.relay_or_park(index, holder, service, *descriptor);
            }
            if let Some(node) = &mut self.nodes[index] {
                node.outbound.release();
                node.totals.taken += n as u64;
            }
            left = left.saturating_sub(n);
        }
    }

    fn relay_or_park(&mut self, index: usize, holder: Holder, service: ServiceId, descriptor: Descriptor) {
        let Ok(packet) = self.books.receive(descriptor, holder) else {
            return self.relay_other(index, descriptor);
        };
        if let Some(node) = &self.nodes[index]
            && let Some(own) = &node.own_pool
        {
            packet.copy_from(self.books.pool(), own);
        }
        if self.nodes[index].as_ref().is_some_and(|n| !n.mirrors.is_empty()) {
            self.mirror(index, &packet);
        }
        // Only deliveries can fail for want of room.
        let (to, position) = self.delivered_to(service, &packet);
        let Err(packet) = self.pass_on(service, packet) else { return };
        self.park_always(to, position, packet, false);
    }

    /// Holdings that the dead instance had passed on in its last turn; none if a ring of it overran.
    fn passed_on(&self, node: &Node) -> Option<HashSet<(u32, u16)>> {
        let turn = node.page.turn();
        let own = node.outbound.ring();
        let outgoing = self.edges.values().filter(|e| e.from == node.instance).map(|e| &e.ring);
        let mut all = HashSet::new();
        for ring in outgoing.chain(std::iter::once(&own)) {
            all.extend(ring.passed_on(turn).ok()?.iter().map(|d| (d.buffer(), d.generation())));
        }
        Some(all)
    }

    /// Settles what lies in a ring to the dead instance; nobody else writes to it.
    fn walk(&mut self, dead: &mut Dead, ring: &Ring) {
        let Ok(remains) = ring.remains() else {
            log::warn!("instance {} left a ring whose positions make no sense", dead.node.instance);
            for descriptor in ring.entries() {
                self.settle(dead, descriptor, true);
            }
            return;
        };
        for descriptor in &remains.in_hand {
            self.settle(dead, *descriptor, true);
        }
        for descriptor in &remains.waiting {
            self.settle(dead, *descriptor, false);
        }
    }

    /// Takes the dead instance's place as the reader of a direct edge.
    fn inherit(&mut self, dead: &mut Dead, id: EdgeId) {
        let Some(edge) = self.edges.get(&id) else { return };
        let (ring, from) = (edge.ring.clone(), edge.from);
        let heir = match ring.remains() {
            Ok(remains) => {
                for descriptor in &remains.in_hand {
                    self.settle(dead, *descriptor, true);
                }
                for descriptor in &remains.waiting {
                    self.settle(dead, *descriptor, false);
                }
                Some(ring.inherit(&remains))
            }
            // Nothing in it can be believed; the sweep frees what its producer put there.
            Err(_) => None,
        };
        if let Some(edge) = self.edges.get_mut(&id) {
            edge.heir = heir;
            edge.service = dead.node.service;
        }
        match self.by_instance.get(&from).and_then(|i| self.nodes[*i].as_mut()) {
            Some(producer) => producer.heirs.push(id),
            // Its producer was the same instance, or died before: nothing more will come.
            None => {
                if let Some(edge) = self.edges.get_mut(&id) {
                    edge.producer_done = true;
                }
            }
        }
    }

    /// One packet that the dead instance answered for.
    fn settle(&mut self, dead: &mut Dead, descriptor: Descriptor, in_hand: bool) {
        if descriptor.buffer() == Descriptor::NO_BUFFER {
            return;
        }
        // Only what it had in its hands can have been passed on; to itself too, where it waits now.
        let holding = (descriptor.buffer(), descriptor.generation());
        if in_hand {
            let passed_on = dead.passed_on.get_or_insert_with(|| self.passed_on(&dead.node));
            // Passing one on twice would be worse than losing it: the sweep frees those that are nowhere.
            if passed_on.as_ref().is_none_or(|all| all.contains(&holding)) {
                return;
            }
        }
        // What it was given: a packet with its position in the chain, or an empty buffer.
        let empty = descriptor.destination().op() == Op::Empty;
        let position = descriptor.destination().argument();
        let Ok(packet) = self.books.receive(descriptor, dead.node.holder) else { return };
        let reason = (!empty).then_some(DropReason::Reaped);
        if empty && !in_hand {
            self.books.free(packet);
        } else if empty || in_hand && !dead.node.reads_only {
            dead.in_hand += u64::from(!empty);
            if dead.lingers && dead.node.own_pool.is_none() {
                self.unburied.push(Unburied { instance: dead.node.instance, packet, reason });
            } else {
                self.let_go(packet, reason);
            }
        } else {
            dead.waiting += 1;
            // An isolated NF may have written another length into its ring: what lies there now must be its own bytes.
            if let Some(own) = &dead.node.own_pool {
                packet.copy_from(self.books.pool(), own);
            }
            self.present_again(dead, position, packet, in_hand);
        }
    }

    fn let_go(&mut self, packet: Packet, reason: Option<DropReason>) {
        match reason {
            Some(reason) => self.drop_packet(packet, reason),
            None => self.books.free(packet),
        }
    }

    /// Frees what a dead instance had in its hands: its process is gone.
    pub(super) fn bury(&mut self, instance: InstanceId) {
        for Unburied { packet, reason, .. } in
            self.unburied.extract_if(.., |u| u.instance == instance).collect::<Vec<_>>()
        {
            self.let_go(packet, reason);
        }
    }

    /// Puts a packet into the line for the next instance, unless it has killed two.
    fn present_again(&mut self, dead: &mut Dead, position: u16, packet: Packet, in_hand: bool) {
        let suspect = in_hand && dead.crashed;
        if suspect {
            let holding = identity(&packet);
            let deaths = self.suspects.entry(holding).or_insert(0);
            *deaths += 1;
            if *deaths >= DEADLY {
                dead.waiting -= 1;
                let frame = packet.bytes(self.books.pool()).to_vec();
                let note = self.books.note(&packet);
                self.tell(News::Quarantined { instance: dead.node.instance, frame, note });
                return self.drop_packet(packet, DropReason::Quarantined);
            }
        }
        self.park_always(dead.node.service, position, packet, suspect);
    }

    /// Edges from the dead instance will see no marker from it any more: everything it relayed is passed on now.
    fn open_edges_of_dead(&mut self, instance: InstanceId) {
        let from_it: Vec<(EdgeId, bool)> =
            self.edges.iter().filter(|(_, e)| e.from == instance).map(|(id, e)| (*id, e.opened)).collect();
        for (id, opened) in from_it {
            if let Some(edge) = self.edges.get_mut(&id) {
                edge.producer_done = true;
                // It may have died between its last publish and the wake-up call that belongs to it.
                edge.ring.wake_consumer();
            }
            if !opened {
                self.open_edge(id);
            }
        }
    }

    /// Works off the rings that dead consumers left to this producer's packets; false while one cannot be emptied.
    /// What the producer sends by the relay after it was told of the death must not overtake what stands in them.
    pub(super) fn empty_heirs(&mut self, index: usize) -> bool {
        let Some(node) = &self.nodes[index] else { return true };
        for id in node.heirs.clone() {
            if !self.empty_heir(id, false) {
                return false;
            }
        }
        true
    }

    /// Works off an inherited ring; with `force` parks what finds no room.
    fn empty_heir(&mut self, id: EdgeId, force: bool) -> bool {
        loop {
            let Some(edge) = self.edges.get_mut(&id) else { return true };
            let service = edge.service;
            let Some(heir) = &mut edge.heir else { return true };
            let mut burst = [Descriptor::default(); BURST];
            let n = match heir.take(super::deliver::WORKER_TURN, &mut burst) {
                Ok(0) | Err(_) => return true,
                Ok(n) => n,
            };
            let done = burst[..n].iter().take_while(|d| self.hand_over(service, **d, force)).count();
            let released = u32::try_from(done).unwrap_or(0);
            if let Some(heir) = self.edges.get_mut(&id).and_then(|e| e.heir.as_mut()) {
                Consumer::release_first(heir, released);
            }
            if done < n {
                return false;
            }
        }
    }

    /// Gives an inherited packet to the service that it was for; false when there is no room.
    fn hand_over(&mut self, service: ServiceId, descriptor: Descriptor, force: bool) -> bool {
        let position = descriptor.destination().argument();
        let Ok(packet) = self.books.receive(descriptor, Holder::SHARED) else {
            self.tally.bad_descriptors += 1;
            return true;
        };
        match self.deliver(service, position, packet) {
            Ok(()) => true,
            Err(packet) if force => {
                self.park_always(service, position, packet, false);
                true
            }
            Err(packet) => {
                self.books.hand_out(packet, Holder::SHARED);
                false
            }
        }
    }

    /// Forgets edges that have ended: no producer, no consumer but us, nothing in them.
    pub(super) fn close_edges(&mut self) {
        let done: Vec<EdgeId> =
            self.edges.iter().filter(|(_, e)| e.producer_done).map(|(id, _)| *id).collect();
        for id in done {
            let orphan = self.edges.get(&id).is_some_and(|e| e.heir.is_some());
            if orphan && !self.empty_heir(id, false) {
                continue;
            }
            let nobody_reads =
                |e: &super::node::DirectEdge| e.heir.is_none() && !self.by_instance.contains_key(&e.to);
            let ended = self.edges.get(&id).is_none_or(|e| e.ring.occupancy() == 0 || nobody_reads(e));
            if ended {
                self.edges.remove(&id);
                for node in self.nodes.iter_mut().flatten() {
                    node.heirs.retain(|heir| *heir != id);
                }
            }
        }
    }
}
