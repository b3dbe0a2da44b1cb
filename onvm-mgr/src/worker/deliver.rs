//! Into an NF's ring; while a service has no instance, into its waiting line.

use std::collections::VecDeque;
use std::time::Instant;

use onvm_lib::packet::DropReason;
use onvm_lib::pool::Packet;
use onvm_lib::protocol::ServiceId;
use onvm_lib::ring::{Descriptor, Destination, Op};

use super::command::News;
use super::{PATIENCE, Worker};

/// The worker's turns are all the same: nobody reaps the worker.
pub(super) const WORKER_TURN: u32 = 1;
/// Packets that wait for a service without an instance before their source is held up.
const WAITING_LINE: usize = 4096;

/// What the worker knows of a service.
#[derive(Default)]
pub(super) struct Service {
    /// Node of each slot; empty while there is no instance.
    slots: Vec<usize>,
    /// Packets that wait, with their position in the chain, oldest first. While it is not empty, nothing overtakes it.
    pub(super) parked: VecDeque<(Packet, u16)>,
    waiting_since: Option<Instant>,
    /// Nobody came in time: packets are dropped at once until someone does.
    pub(super) gone: bool,
}

/// All services, by id: looked up for every packet, so by index and not by hash.
#[derive(Default)]
pub(super) struct Services {
    by_id: Vec<Option<Box<Service>>>,
}

impl Services {
    #[inline(always)]
    pub(super) fn get(&self, id: ServiceId) -> Option<&Service> {
        self.by_id.get(usize::from(id))?.as_deref()
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: ServiceId) -> Option<&mut Service> {
        self.by_id.get_mut(usize::from(id))?.as_deref_mut()
    }

    /// The service, made if it is new.
    pub(super) fn entry(&mut self, id: ServiceId) -> &mut Service {
        let index = usize::from(id);
        if index >= self.by_id.len() {
            self.by_id.resize_with(index + 1, || None);
        }
        self.by_id[index].get_or_insert_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        (0..).zip(&self.by_id).filter_map(|(id, service)| service.as_deref().map(|s| (id, s)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ServiceId, &mut Service)> {
        (0..).zip(&mut self.by_id).filter_map(|(id, service)| service.as_deref_mut().map(|s| (id, s)))
    }

    /// Services for which packets wait.
    pub(super) fn with_parked(&self) -> Vec<ServiceId> {
        self.iter().filter(|(_, s)| !s.parked.is_empty()).map(|(id, _)| id).collect()
    }

    /// Packets that wait, in all.
    pub(super) fn parked(&self) -> usize {
        self.iter().map(|(_, s)| s.parked.len()).sum()
    }
}

impl Service {
    pub(super) fn set_slots(&mut self, slots: Vec<usize>) {
        // One instance owns all slots most of the time: one entry says it as well.
        let first = slots.first().copied();
        let single = slots.iter().all(|s| Some(*s) == first);
        self.slots = if single { first.into_iter().collect() } else { slots };
    }

    /// The node for a flow.
    #[inline(always)]
    pub(super) fn node_for(&self, hash: u32) -> Option<usize> {
        let n = self.slots.len();
        if n <= 1 {
            return self.slots.first().copied();
        }
        Some(self.slots[((u64::from(hash) * n as u64) >> 32) as usize])
    }

    pub(super) fn nodes(&self) -> &[usize] {
        &self.slots
    }
}

impl Worker {
    /// Gives a packet to an instance of a service.
    ///
    /// # Errors
    /// The packet, when there is no room now.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        service: ServiceId,
        position: u16,
        packet: Packet,
    ) -> Result<(), Packet> {
        let Some(state) = self.services.get(service) else { return self.park(service, position, packet) };
        if !state.parked.is_empty() {
            return self.park(service, position, packet);
        }
        match state.node_for(packet.descriptor().hash()) {
            // A marker that waits for room stands for all that came before this packet.
            Some(index) if self.nodes[index].as_ref().is_some_and(|n| n.markers.is_empty()) => {
                self.push_to(index, position, packet)
            }
            Some(_) => Err(packet),
            None => self.park(service, position, packet),
        }
    }

    /// Pushes a packet into a node's ring.
    #[inline(always)]
    pub(super) fn push_to(&mut self, index: usize, position: u16, mut packet: Packet) -> Result<(), Packet> {
        let Some(node) = &mut self.nodes[index] else { return Err(packet) };
        if node.inbound.room(1) == 0 {
            return Err(packet);
        }
        packet.set_destination(Destination::new(Op::Next, position));
        if let Some(own) = &node.own_pool {
            packet.copy_into(self.books.pool(), own);
            own.set_note(packet.descriptor().buffer(), self.books.note(&packet));
        }
        let descriptor = self.books.hand_out(packet, node.holder);
        // Room was checked just now, and this is the ring's only producer.
        let pushed = node.inbound.push(WORKER_TURN, descriptor);
        debug_assert!(pushed.is_ok());
        node.totals.given += 1;
        Ok(())
    }

    #[inline(never)]
    fn park(&mut self, service: ServiceId, position: u16, packet: Packet) -> Result<(), Packet> {
        if self.giving_up && self.services.get(service).is_none_or(|s| s.slots.is_empty()) {
            self.drop_packet(packet, DropReason::Shutdown);
            return Ok(());
        }
        let now = self.now;
        let state = self.services.entry(service);
        if state.gone {
            self.drop_packet(packet, DropReason::NoInstance);
            return Ok(());
        }
        if state.parked.len() >= WAITING_LINE {
            return Err(packet);
        }
        state.parked.push_back((packet, position));
        if state.slots.is_empty() && state.waiting_since.is_none() {
            state.waiting_since = Some(now);
            self.tell(News::Waiting { service });
        }
        Ok(())
    }

    /// Parks a packet whatever the length of the line: for packets that must not go back where they came from.
    pub(super) fn park_always(&mut self, service: ServiceId, position: u16, packet: Packet) {
        if self.giving_up {
            return self.drop_packet(packet, DropReason::Shutdown);
        }
        let now = self.now;
        let state = self.services.entry(service);
        state.parked.push_back((packet, position));
        if state.slots.is_empty() && state.waiting_since.is_none() {
            state.waiting_since = Some(now);
        }
    }

    /// Passes on what waits, as far as there is room.
    pub(super) fn flush_parked(&mut self) {
        for service in self.services.with_parked() {
            while let Some(state) = self.services.get_mut(service)
                && let Some((packet, position)) = state.parked.pop_front()
            {
                let target = state.node_for(packet.descriptor().hash());
                let back = match target {
                    None if self.giving_up => {
                        self.drop_packet(packet, DropReason::Shutdown);
                        continue;
                    }
                    Some(index) => self.push_to(index, position, packet),
                    None => Err(packet),
                };
                if let Err(packet) = back {
                    if let Some(state) = self.services.get_mut(service) {
                        state.parked.push_front((packet, position));
                    }
                    break;
                }
            }
            if let Some(state) = self.services.get_mut(service)
                && !state.slots.is_empty()
            {
                state.waiting_since = None;
            }
        }
        self.push_markers();
    }

    /// Drops what waited too long for an instance.
    pub(super) fn expire_parked(&mut self) {
        let (limit, now) = (self.wait_for_instance, self.now);
        // Also a line that formed while there was an instance, which has died since.
        for (_, state) in self.services.iter_mut() {
            if state.slots.is_empty() && !state.parked.is_empty() {
                state.waiting_since.get_or_insert(now);
            }
        }
        let late = |s: &Service| s.waiting_since.is_some_and(|since| self.now - since >= limit);
        let expired: Vec<ServiceId> =
            self.services.iter().filter(|(_, s)| late(s)).map(|(id, _)| id).collect();
        for service in expired {
            self.drop_parked(service, DropReason::NoInstance);
        }
    }

    fn drop_parked(&mut self, service: ServiceId, reason: DropReason) {
        let Some(state) = self.services.get_mut(service) else { return };
        state.gone = true;
        state.waiting_since = None;
        let parked = std::mem::take(&mut state.parked);
        let packets = parked.len();
        for (packet, _) in parked {
            self.drop_packet(packet, reason);
        }
        self.tell(News::GaveUp { service, packets });
    }

    /// Drops all that waits: the manager is stopping and nobody will come.
    pub(super) fn give_up_waiting(&mut self) {
        for service in self.services.with_parked() {
            self.drop_parked(service, DropReason::Shutdown);
        }
        self.giving_up = true;
    }

    /// Pushes markers that found no room before.
    fn push_markers(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            // What was relayed before the marker may still wait in line, and must be in the ring before it.
            if self.services.get(node.service).is_some_and(|s| !s.parked.is_empty()) {
                continue;
            }
            while let Some(edge) = node.markers.first().copied() {
                let marker = Descriptor::without_buffer(Destination::new(Op::Marker, 0), edge);
                if node.inbound.push(WORKER_TURN, marker).is_err() {
                    break;
                }
                node.markers.remove(0);
                if let Some(edge) = self.edges.get_mut(&edge) {
                    edge.opened = true;
                }
            }
        }
    }

    /// Opens a direct edge: its consumer may read it once it has read all that came by the relay before.
    pub(super) fn open_edge(&mut self, edge: u32) {
        let Some(to) = self.edges.get(&edge).map(|e| e.to) else { return };
        if let Some(node) = self.by_instance.get(&to).and_then(|i| self.nodes[*i].as_mut()) {
            node.markers.push(edge);
        }
        self.push_markers();
    }

    /// Whether a packet has been waiting for room too long.
    pub(super) fn out_of_patience(since: &mut Option<Instant>, now: Instant) -> bool {
        let since = since.get_or_insert(now);
        now.duration_since(*since) > PATIENCE
    }
}
