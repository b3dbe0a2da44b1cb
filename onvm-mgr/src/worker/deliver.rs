//! Into an NF's ring, or wherever a service's packets go while it has no instance.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use onvm_lib::packet::DropReason;
use onvm_lib::pool::Packet;
use onvm_lib::protocol::ServiceId;
use onvm_lib::ring::{Descriptor, Destination, Op};

use super::gate::identity;
use super::line::Line;
use super::pinned::PinnedFlows;
use super::table::{Absent, paired};
use super::{PATIENCE, Worker};

/// The worker's turns are all the same: nobody reaps the worker.
pub(super) const WORKER_TURN: u32 = 1;
/// Services that a packet may skip or pass before it is taken for one that goes round in circles.
const HOP_LIMIT: u8 = 128;

/// What the worker knows of a service.
pub(super) struct Service {
    /// Node of each slot; empty while there is no instance.
    slots: Vec<usize>,
    /// What waits; while there is a line, nothing overtakes it.
    pub(super) line: Line,
    /// Nobody came in time: packets are dropped at once until someone does.
    pub(super) gone: bool,
    /// What becomes of packets while there is no instance.
    absent: Absent,
    /// Where known flows are, if they are to stay there.
    pub(super) pinned: Option<PinnedFlows>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            line: Line::default(),
            gone: false,
            absent: Absent::Wait(None),
            pinned: None,
        }
    }
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

    /// Services that have a line.
    pub(super) fn with_line(&self) -> Vec<ServiceId> {
        self.iter().filter(|(_, s)| s.line.is_there()).map(|(id, _)| id).collect()
    }

    /// Packets that wait, in all.
    pub(super) fn parked(&self) -> usize {
        self.iter().map(|(_, s)| s.line.len()).sum()
    }

    /// The packets that wait.
    pub(super) fn packets_in_line(&self) -> HashSet<(u32, u16)> {
        self.iter().flat_map(|(_, s)| s.line.packets()).map(identity).collect()
    }

    /// Those that wait for services that have an instance, and will go on.
    pub(super) fn packets_about_to_go(&self) -> HashSet<(u32, u16)> {
        let alive = self.iter().filter(|(_, s)| !s.slots.is_empty());
        alive.flat_map(|(_, s)| s.line.packets()).map(identity).collect()
    }

    /// Whether packets wait that could go on.
    pub(super) fn is_held_up(&self) -> bool {
        self.iter().any(|(_, s)| s.line.is_there() && !s.slots.is_empty())
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

    /// Whether known flows stay where they are. Flows of nodes that have no slots count as new.
    pub(super) fn pin(&mut self, pinned: bool) {
        if !pinned {
            self.pinned = None;
            return;
        }
        let slots = &self.slots;
        self.pinned.get_or_insert_default().retain(|node| slots.contains(&node));
    }

    pub(super) fn set_absent(&mut self, absent: Absent) {
        self.absent = absent;
    }

    /// Whether packets wait for an instance when there is none.
    pub(super) fn waits(&self) -> bool {
        matches!(self.absent, Absent::Wait(_))
    }

    /// Whether flows go by their slots only, all of them to one node.
    #[inline(always)]
    pub(super) fn only_node(&self) -> Option<usize> {
        match (self.line.is_there(), &self.pinned, self.slots.as_slice()) {
            (false, None, [index]) => Some(*index),
            _ => None,
        }
    }

    /// How long packets wait for an instance, by default `usual`.
    pub(super) fn wait(&self, usual: Duration) -> Duration {
        match self.absent {
            Absent::Wait(Some(wait)) => wait,
            _ => usual,
        }
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
        let Some(state) = self.services.get_mut(service) else {
            return self.park(service, position, packet);
        };
        if state.line.is_there() {
            return self.park(service, position, packet);
        }
        let hash = packet.descriptor().hash();
        let chosen = state.node_for(hash);
        let target = match &mut state.pinned {
            Some(flows) => flows.node_for(hash, chosen),
            None => chosen,
        };
        match target {
            // A marker that waits for room stands for all that came before this packet.
            Some(index) if self.nodes[index].as_ref().is_some_and(|n| n.markers.is_empty()) => {
                self.push_to(index, position, packet)
            }
            Some(_) => Err(packet),
            None => self.without_instance(service, position, packet),
        }
    }

    /// Does with a packet what its service's policy says for the time when it has no instance.
    #[cold]
    pub(super) fn without_instance(
        &mut self,
        service: ServiceId,
        position: u16,
        mut packet: Packet,
    ) -> Result<(), Packet> {
        match self.services.entry(service).absent {
            Absent::Wait(_) => return self.park(service, position, packet),
            Absent::Drop => self.drop_packet(packet, DropReason::NoInstance),
            Absent::Bypass => {
                let hop = self.table.next(position, service);
                let from = packet.descriptor().port();
                let hops = packet.descriptor().hop();
                if hops >= HOP_LIMIT {
                    self.drop_packet(packet, DropReason::HopLimit);
                } else if hop.service == 0 {
                    let out = if from == Descriptor::NO_PORT { 0 } else { paired(from, self.ports.len()) };
                    self.send_out(out, packet);
                } else {
                    packet.describe(packet.descriptor().with_hop(hops + 1));
                    return self.deliver(hop.service, hop.position, packet);
                }
            }
        }
        Ok(())
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

    /// Pushes markers that found no room before.
    pub(super) fn push_markers(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            // What was relayed before the marker may still wait in line, and must be in the ring before it.
            if self.services.get(node.service).is_some_and(|s| s.line.is_there()) {
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
