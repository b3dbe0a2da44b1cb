//! From the ports to the first service, and out of the ports again.

use onvm_lib::packet::DropReason;
use onvm_lib::pool::{Books, Note, Packet};
use onvm_lib::protocol::ChainHop;
use onvm_lib::ring::{Descriptor, Destination, Op};

use super::deliver::WORKER_TURN;
use super::node::Node;
use super::table::paired;
use super::{BURST, ENTRIES, WATERMARK, Worker};
use crate::ports::Reception;

/// Hands a burst out to a node that has room for all of it. Apart from the rest, so that the loop has the registers to
/// itself.
#[inline(never)]
fn push_all(
    books: &mut Books,
    burst: &mut Vec<Packet>,
    node: &mut Node,
    change: impl Fn(Descriptor) -> Descriptor,
) {
    let n = burst.len();
    let pushed = node.inbound.push_all(WORKER_TURN, books.hand_out_all(burst, node.holder, change));
    debug_assert_eq!(pushed, n);
}

impl Worker {
    /// Receives a burst from every port that may; returns the number of packets.
    pub(super) fn receive(&mut self) -> usize {
        let mut worked = 0;
        for index in 0..self.ports.len() {
            let state = &self.ports[index];
            if state.finished || state.not_before.is_some_and(|when| when > std::time::Instant::now()) {
                continue;
            }
            let left = usize::try_from(self.packet_limit - self.tally.received.min(self.packet_limit));
            let mut max = BURST.min(left.unwrap_or(BURST));
            if state.port.waits() {
                max = max.min(self.room_ahead(index)).min(self.room_at_gate());
            }
            if max == 0 {
                continue;
            }
            worked += self.receive_from(index, max);
        }
        worked
    }

    fn receive_from(&mut self, index: usize, max: usize) -> usize {
        let mut burst = std::mem::take(&mut self.incoming);
        let state = &mut self.ports[index];
        let before = state.port.counters();
        state.not_before = None;
        match state.port.receive(&mut self.books, &mut burst, max) {
            Reception::Ready => {}
            Reception::NotBefore(when) => state.not_before = Some(when),
            Reception::Finished => state.finished = true,
        }
        let after = state.port.counters();
        let (refused, late) =
            (after.rx_refused - before.rx_refused, after.rx_no_buffer - before.rx_no_buffer);
        self.tally.received += burst.len() as u64 + refused + late;
        self.tally.drops[DropReason::TooLong as usize] += refused;
        self.tally.drops[DropReason::NoBuffer as usize] += late;
        let n = burst.len();
        let port = u8::try_from(index).unwrap_or(Descriptor::NO_PORT);
        let waits = self.ports[index].port.waits();
        if self.throttle.any() && !waits {
            self.turn_away_the_closed(&mut burst, port);
        }
        if self.gate.is_some() {
            for packet in &mut burst {
                packet.describe(packet.descriptor().with_port(port));
            }
            self.queue_at_gate(&mut burst, waits);
        }
        let only = self.entry.only();
        if only.is_none_or(|entry| !self.enter_together(&mut burst, port, entry)) {
            for mut packet in burst.drain(..) {
                packet.describe(packet.descriptor().with_port(port));
                let entry = match only {
                    Some(entry) => entry,
                    None => self.entry.for_frame(packet.bytes(self.books.pool()), port),
                };
                self.throttle.count(entry);
                match self.enter(packet, entry) {
                    Ok(()) => {}
                    // A source that waits has brought no more than there was room for, or nearly so.
                    Err(packet) if waits => self.park_always(entry.service, entry.position, packet, false),
                    Err(packet) => self.drop_at_entry(packet),
                }
            }
        }
        self.incoming = burst;
        n
    }

    /// Takes packets for closed chains out of a burst.
    #[cold]
    fn turn_away_the_closed(&mut self, burst: &mut Vec<Packet>, port: u8) {
        for packet in std::mem::take(burst) {
            let entry = match self.entry.only() {
                Some(entry) => entry,
                None => self.entry.for_frame(packet.bytes(self.books.pool()), port),
            };
            match self.throttle.closed_by(entry) {
                Some(service) => {
                    self.throttle.count(entry);
                    self.turn_away(packet, service);
                }
                None => burst.push(packet),
            }
        }
    }

    /// Gives a burst to the only instance of the first service, if there is one and it has room for all.
    #[inline(always)]
    fn enter_together(&mut self, burst: &mut Vec<Packet>, port: u8, entry: ChainHop) -> bool {
        let Some(service) = self.services.get(entry.service) else { return false };
        let Some(index) = service.only_node() else { return false };
        let Some(node) = &mut self.nodes[index] else { return false };
        let wanted = u32::try_from(burst.len()).unwrap_or(u32::MAX);
        if burst.len() > BURST
            || node.own_pool.is_some()
            || !node.markers.is_empty()
            || node.inbound.room(wanted) < wanted
        {
            return false;
        }
        let destination = Destination::new(Op::Next, entry.position);
        let n = burst.len();
        push_all(&mut self.books, burst, node, move |d| d.with_port(port).with_destination(destination));
        node.totals.given += n as u64;
        true
    }

    /// The first step of a packet that came in.
    ///
    /// # Errors
    /// The packet, when there is no room for it now.
    #[inline(always)]
    pub(super) fn enter(&mut self, packet: Packet, entry: ChainHop) -> Result<(), Packet> {
        if entry.service == 0 {
            let out = paired(packet.descriptor().port(), self.ports.len());
            self.send_out(out, packet);
            return Ok(());
        }
        self.deliver(entry.service, entry.position, packet)
    }

    /// Packets from a port that can enter now without being dropped, wherever they enter.
    fn room_ahead(&mut self, port: usize) -> usize {
        if let Some(entry) = self.entry.only() {
            return self.room_at(entry);
        }
        let mut room = usize::MAX;
        for index in 0..self.entry.of_port(port).len() {
            let entry = self.entry.of_port(port)[index];
            room = room.min(self.room_at(entry));
        }
        room
    }

    fn room_at(&mut self, entry: ChainHop) -> usize {
        if self.throttle.any() && self.throttle.closed_by(entry).is_some() {
            return 0;
        }
        let free = self.books.free_count() as usize;
        if entry.service == 0 {
            return free;
        }
        // Nobody has come yet: a first burst waits for it in line, and says so.
        let Some(service) = self.services.get(entry.service) else { return free };
        if service.gone {
            return free;
        }
        if service.line.is_there() {
            return 0;
        }
        let mut room = free;
        let mut last = usize::MAX;
        for index in service.nodes() {
            if *index == last {
                continue;
            }
            last = *index;
            let Some(node) = &mut self.nodes[last] else { return 0 };
            // Half a ring is enough ahead even where rings are small.
            let capacity = node.inbound.ring_capacity();
            let limit = WATERMARK.min(capacity / 2).max(1);
            let burst = ENTRIES.min(limit);
            let ahead = capacity - node.inbound.room(capacity - limit + burst);
            room = room.min(limit.saturating_sub(ahead) as usize);
        }
        // Small bursts cost as much as large ones: wait for a full one, unless the ring is small.
        if room < BURST && service.nodes().len() == 1 && free >= BURST {
            room & !(BURST / 4 - 1)
        } else {
            room
        }
    }

    /// Puts a packet on its way out of a port.
    #[inline(always)]
    pub(super) fn send_out(&mut self, port: u8, packet: Packet) {
        match self.ports.get_mut(usize::from(port)) {
            Some(state) => state.outgoing.push(packet),
            None => self.drop_packet(packet, DropReason::NoSuchPort),
        }
    }

    /// Sends what this round has collected.
    #[inline(always)]
    pub(super) fn send(&mut self) {
        for state in &mut self.ports {
            let n = state.outgoing.len();
            if n == 0 {
                continue;
            }
            state.port.send(&mut self.books, &mut state.outgoing);
            self.tally.sent += (n - state.outgoing.len()) as u64;
            self.tally.drops[DropReason::SendFailed as usize] += state.outgoing.len() as u64;
            for packet in state.outgoing.drain(..) {
                self.books.free(packet);
            }
        }
    }

    /// Keeps the NFs that make packets supplied with empty buffers, as long as the ports have enough.
    pub(super) fn supply_empties(&mut self) {
        let reserve = self.books.pool().geometry().buffers() / 4;
        for node in self.nodes.iter_mut().flatten() {
            let Some(ring) = &mut node.empties else { continue };
            let wanted = ring.room(1);
            for _ in 0..wanted.min(self.books.free_count().saturating_sub(reserve)) {
                let Some(mut packet) = self.books.allocate(0) else { break };
                packet.set_destination(Destination::new(Op::Empty, 0));
                self.books.set_note(&packet, Note::default());
                let descriptor = self.books.hand_out(packet, node.holder.of_empty());
                let pushed = ring.push(WORKER_TURN, descriptor);
                debug_assert!(pushed.is_ok());
            }
            if ring.publish() && ring.rings(self.barriers) {
                ring.wake_sleeper();
            }
        }
    }
}
