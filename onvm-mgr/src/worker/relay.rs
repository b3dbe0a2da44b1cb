//! From an NF to wherever its verdict says.

use onvm_lib::packet::DropReason;
use onvm_lib::pool::Packet;
use onvm_lib::protocol::{EdgeId, ServiceId};
use onvm_lib::ring::{Descriptor, Destination, Op};

use super::table::paired;
use super::{BURST, ENTRIES, News, Worker};

/// Orders that wait for an instance's next packet or edge.
const MOST_ORDERS: usize = 64;

impl Worker {
    /// Works off a burst of what an instance has put out; returns the number of descriptors.
    #[inline(always)]
    pub(super) fn take_from_node(&mut self, index: usize, burst: &mut [Descriptor; BURST]) -> usize {
        let Some(node) = &mut self.nodes[index] else { return 0 };
        let available = match node.outbound.available(ENTRIES) {
            Ok(n) => n,
            Err(_) => return self.violated(index),
        };
        if !node.heirs.is_empty() && !self.empty_heirs(index) {
            return 0;
        }
        if available == 0 {
            return 0;
        }
        self.relay_burst(index, &mut burst[..available.min(ENTRIES) as usize])
    }

    #[inline(always)]
    fn relay_burst(&mut self, index: usize, burst: &mut [Descriptor]) -> usize {
        let Some(node) = &mut self.nodes[index] else { return 0 };
        let Ok(n) = node.outbound.take(super::deliver::WORKER_TURN, burst) else { return 0 };
        let service = node.service;
        let shed = self.tally.drops[DropReason::Backpressure as usize];
        let mut done = n;
        let ahead = self.send_run(index, &burst[..n]);
        for (i, descriptor) in burst[..n].iter().enumerate().skip(ahead) {
            if !self.relay(index, service, *descriptor) {
                done = i;
                break;
            }
        }
        if let Some(node) = &mut self.nodes[index] {
            node.outbound.release_first(u32::try_from(done).unwrap_or(0));
            node.totals.taken += done as u64;
            // What was shed is no progress: as long as nothing else moves, the rest is shed without waiting again.
            if done as u64 > self.tally.drops[DropReason::Backpressure as usize] - shed {
                node.blocked_since = None;
            }
        }
        done
    }

    /// Passes on the packets at the front of a burst that are at the end of their chain and leave by the same port, as
    /// most do; returns how many those are.
    #[inline(always)]
    fn send_run(&mut self, index: usize, burst: &[Descriptor]) -> usize {
        let Some(node) = &self.nodes[index] else { return 0 };
        let (Some(first), None) = (burst.first(), &node.own_pool) else { return 0 };
        let (verdict, from) = (first.destination(), first.port());
        let ends = verdict.op() == Op::Next && self.table.next(verdict.argument(), node.service).service == 0;
        if !ends || from == Descriptor::NO_PORT || !node.mirrors.is_empty() {
            return 0;
        }
        let holder = node.holder;
        let out = usize::from(paired(from, self.ports.len()));
        let Some(state) = self.ports.get_mut(out) else { return 0 };
        let same = |d: &Descriptor| d.destination() == verdict && d.port() == from;
        // Nearly always all are the same, so that none is asked by itself.
        let odd = Descriptor::difference(burst);
        let all_same = odd.destination().bits() == 0 && odd.port() == 0;
        let run = if all_same { burst } else { &burst[..burst.iter().take_while(|d| same(d)).count()] };
        if !state.discards {
            return self.books.receive_run(run, holder, &mut state.outgoing);
        }
        let (packets, bytes) = self.books.discard_run(run, holder);
        state.port.discarded(packets as u64, bytes);
        self.tally.sent += packets as u64;
        packets
    }

    /// Passes one descriptor on; false when it has to wait for room ahead.
    #[inline(always)]
    fn relay(&mut self, index: usize, service: ServiceId, descriptor: Descriptor) -> bool {
        let Some(node) = &self.nodes[index] else { return true };
        let holder = node.holder;
        let packet = match self.books.receive(descriptor, holder) {
            Ok(packet) => packet,
            Err(_) => {
                self.relay_other(index, descriptor);
                return true;
            }
        };
        let Some(node) = &self.nodes[index] else { return true };
        if let Some(own) = &node.own_pool {
            // Also from one that only reads: it says how long the packet is, and must not be shown more than it was given.
            packet.copy_from(self.books.pool(), own);
        }
        let stuck = node.stuck_for;
        if !node.mirrors.is_empty() {
            self.mirror(index, &packet);
        }
        let for_stuck = stuck.is_some_and(|to| self.is_for(to, service, &packet));
        match self.pass_on(service, packet) {
            Ok(()) if for_stuck => {
                // It takes something again.
                self.nodes[index].iter_mut().for_each(|node| node.stuck_for = None);
                true
            }
            Ok(()) => true,
            Err(packet) => self.wait_or_drop(index, service, holder, packet),
        }
    }

    /// Whether a packet from `service` is to be delivered to another.
    #[cold]
    fn is_for(&self, other: ServiceId, service: ServiceId, packet: &Packet) -> bool {
        let delivered = matches!(packet.descriptor().destination().op(), Op::Next | Op::Service);
        delivered && self.delivered_to(service, packet).0 == other
    }

    /// Follows a packet's verdict.
    ///
    /// # Errors
    /// The packet, when there is no room ahead now.
    #[inline(always)]
    pub(super) fn pass_on(&mut self, service: ServiceId, packet: Packet) -> Result<(), Packet> {
        let destination = packet.descriptor().destination();
        let argument = destination.argument();
        match destination.op() {
            Op::Next => {
                let hop = self.table.next(argument, service);
                if hop.service != 0 {
                    return self.deliver(hop.service, hop.position, packet);
                }
                let from = packet.descriptor().port();
                let out = if from == Descriptor::NO_PORT { 0 } else { paired(from, self.ports.len()) };
                self.send_out(out, packet);
            }
            Op::Service if argument > 0 => return self.deliver(argument, 0, packet),
            Op::Port => self.send_out(u8::try_from(argument).unwrap_or(u8::MAX), packet),
            Op::Drop => {
                let reason = DropReason::from_number(argument).unwrap_or(DropReason::BadVerdict);
                self.drop_packet(packet, reason);
            }
            Op::Empty => self.books.free(packet),
            Op::Service | Op::Marker | Op::Mirror | Op::Invalid => {
                self.drop_packet(packet, DropReason::BadVerdict);
            }
        }
        Ok(())
    }

    /// The service that a packet from `service` is delivered to, and its position there.
    pub(super) fn delivered_to(&self, service: ServiceId, packet: &Packet) -> (ServiceId, u16) {
        let destination = packet.descriptor().destination();
        match destination.op() {
            Op::Next => {
                let hop = self.table.next(destination.argument(), service);
                (hop.service, hop.position)
            }
            _ => (destination.argument(), 0),
        }
    }

    /// There is no room ahead for a packet: it stays in the ring that it came by, but not for ever.
    #[cold]
    fn wait_or_drop(
        &mut self,
        index: usize,
        service: ServiceId,
        holder: onvm_lib::pool::Holder,
        packet: Packet,
    ) -> bool {
        let now = std::time::Instant::now();
        let (to, _) = self.delivered_to(service, &packet);
        // What holds a line up has a limit of its own.
        let held = self.services.get(to).is_some_and(|s| s.line.is_held(s.nodes().is_empty()));
        let Some(node) = &mut self.nodes[index] else { return true };
        if held {
            node.blocked_since = None;
        } else if node.stuck_for == Some(to) || Self::out_of_patience(&mut node.blocked_since, now) {
            node.stuck_for = Some(to);
            self.drop_packet(packet, DropReason::Backpressure);
            return true;
        }
        if let Some(own) = &node.own_pool {
            packet.copy_into(self.books.pool(), own);
        }
        self.books.hand_out(packet, holder);
        false
    }

    /// A descriptor without a packet: an order, or nonsense.
    #[cold]
    #[inline(never)]
    pub(super) fn relay_other(&mut self, index: usize, descriptor: Descriptor) {
        let Some(node) = &mut self.nodes[index] else { return };
        let orders = descriptor.buffer() == Descriptor::NO_BUFFER;
        match descriptor.destination().op() {
            Op::Marker if orders => {
                let edge: EdgeId = descriptor.hash();
                match self.edges.get(&edge) {
                    Some(e) if e.from == node.instance && !e.opened => self.open_edge(edge),
                    // An edge that has ended meanwhile.
                    None if edge <= self.last_edge => {}
                    None if node.early_markers.len() < MOST_ORDERS => node.early_markers.push(edge),
                    _ => self.count_nonsense(index, descriptor),
                }
            }
            Op::Mirror if orders && node.mirrors.len() < MOST_ORDERS => {
                let bits = u16::try_from(descriptor.hash()).unwrap_or(0);
                node.mirrors.push(Destination::from_bits(bits));
            }
            _ => self.count_nonsense(index, descriptor),
        }
    }

    fn count_nonsense(&mut self, index: usize, descriptor: Descriptor) {
        self.tally.bad_descriptors += 1;
        if let Some(node) = &mut self.nodes[index] {
            node.totals.bad_descriptors += 1;
            log::debug!("instance {} sent nonsense: {descriptor:?}", node.instance);
        }
    }

    /// Makes the copies that were asked for just before this packet.
    #[cold]
    #[inline(never)]
    pub(super) fn mirror(&mut self, index: usize, packet: &Packet) {
        let Some(node) = &mut self.nodes[index] else { return };
        let service = node.service;
        for destination in std::mem::take(&mut node.mirrors) {
            let Some(mut copy) = self.books.duplicate(packet) else {
                // The copy never was; but someone wanted it, so it counts as made and dropped.
                self.tally.copied += 1;
                self.tally.drops[DropReason::NoBuffer as usize] += 1;
                continue;
            };
            self.tally.copied += 1;
            copy.set_destination(destination);
            if let Err(copy) = self.pass_on(service, copy) {
                self.drop_packet(copy, DropReason::Backpressure);
            }
        }
    }

    /// Looks for consumers that wrote nonsense where their position stands.
    pub(super) fn check_violations(&mut self) {
        for index in 0..self.nodes.len() {
            let Some(node) = &self.nodes[index] else { continue };
            if node.inbound.is_violated() || node.empties.as_ref().is_some_and(|e| e.is_violated()) {
                self.violated(index);
            }
        }
    }

    #[cold]
    fn violated(&mut self, index: usize) -> usize {
        self.tally.violations += 1;
        if let Some(node) = &mut self.nodes[index] {
            node.totals.violations += 1;
            if node.totals.violations == 1 {
                let instance = node.instance;
                self.tell(News::Violation { instance });
            }
        }
        0
    }

    /// Makes everything visible that this round has pushed.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            node.publish(self.barriers);
        }
    }
}
