//! A service's waiting line: packets for which there is no instance, or which may not be delivered yet.
//!
//! A line forms while a service has no instance, and after the death of one. It moves on only when
//! - all *fences* are down: rings with packets that the dead instance had passed on, which are older than what waits;
//! - every *suspect* before has been worked off. A suspect was in the hands of an instance that died. It is presented to
//!   the next one alone, so that if that one dies too, it is known for certain which packet kills.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use onvm_lib::packet::DropReason;
use onvm_lib::pool::Packet;
use onvm_lib::protocol::{InstanceId, ServiceId};
use onvm_lib::ring::Ring;

use super::Worker;
use super::command::News;

/// Share of the pool that may wait for one service, as a divisor; then its sources are held up.
const LONGEST_LINE: usize = 4;
/// How long a fence stands at most: who reads the ring may be paused.
const FENCE_TIME: Duration = Duration::from_secs(2);
/// How long a suspect is alone at most, for the same reason.
const TRIAL_TIME: Duration = Duration::from_secs(1);

/// A packet in line.
pub(super) struct Waiting {
    pub(super) packet: Packet,
    /// Its position in the chain.
    pub(super) position: u16,
    /// It was in the hands of an instance that died.
    suspect: bool,
}

/// A ring that must have been read to a position before anything goes on.
struct Fence {
    ring: Ring,
    position: u32,
    /// Who reads it.
    reader: InstanceId,
    since: Instant,
}

/// A service's line.
#[derive(Default)]
pub(super) struct Line {
    /// Oldest first.
    packets: VecDeque<Waiting>,
    /// Since when packets wait for an instance.
    since: Option<Instant>,
    fences: Vec<Fence>,
    /// The node that has a suspect now, and since when.
    tried_by: Option<(usize, Instant)>,
}

impl Line {
    /// Whether anything must not be overtaken.
    #[inline(always)]
    pub(super) fn is_there(&self) -> bool {
        !self.packets.is_empty() || !self.fences.is_empty() || self.tried_by.is_some()
    }

    /// Whether what holds it up ends by itself: an instance comes or is given up, a fence comes down, a suspect is worked
    /// off or kills, or has had its time.
    pub(super) fn is_held(&self, absent: bool) -> bool {
        absent && !self.packets.is_empty() || !self.fences.is_empty() || self.tried_by.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.packets.iter().map(|waiting| &waiting.packet)
    }

    /// Nothing is delivered before what is in these rings now has been read, by the instances that stand with them.
    pub(super) fn fence(&mut self, rings: impl IntoIterator<Item = (Ring, InstanceId)>, now: Instant) {
        self.fences.extend(rings.into_iter().map(|(ring, reader)| Fence {
            position: ring.published(),
            ring,
            reader,
            since: now,
        }));
    }

    /// A reader has died, and what it had not read stands in line for its successors.
    pub(super) fn unfence(&mut self, reader: InstanceId) {
        self.fences.retain(|fence| fence.reader != reader);
    }

    /// Whether a fence stands.
    fn is_fenced(&mut self, now: Instant) -> bool {
        let stands = |fence: &Fence| {
            now.duration_since(fence.since) <= FENCE_TIME && !fence.ring.is_released_to(fence.position)
        };
        self.fences.retain(stands);
        !self.fences.is_empty()
    }
}

impl Worker {
    /// Puts a packet into its service's line.
    ///
    /// # Errors
    /// The packet, when the line is too long already.
    #[inline(never)]
    pub(super) fn park(&mut self, service: ServiceId, position: u16, packet: Packet) -> Result<(), Packet> {
        let now = self.now;
        let giving_up = self.giving_up;
        let longest = self.longest_line();
        let state = self.services.entry(service);
        let absent = state.nodes().is_empty();
        if giving_up && absent {
            self.drop_packet(packet, DropReason::Shutdown);
            return Ok(());
        }
        if state.gone {
            self.drop_packet(packet, DropReason::NoInstance);
            return Ok(());
        }
        if state.line.len() >= longest {
            return Err(packet);
        }
        state.line.packets.push_back(Waiting { packet, position, suspect: false });
        if absent && state.line.since.is_none() {
            state.line.since = Some(now);
            self.tell(News::Waiting { service });
        }
        Ok(())
    }

    /// Packets that may wait for one service.
    pub(super) fn longest_line(&self) -> usize {
        self.books.pool().geometry().buffers() as usize / LONGEST_LINE
    }

    /// Parks a packet whatever the length of the line: for packets that must not go back where they came from.
    pub(super) fn park_always(&mut self, service: ServiceId, position: u16, packet: Packet, suspect: bool) {
        if self.giving_up {
            return self.drop_packet(packet, DropReason::Shutdown);
        }
        let now = self.now;
        let state = self.services.entry(service);
        state.line.packets.push_back(Waiting { packet, position, suspect });
        if state.nodes().is_empty() && state.line.since.is_none() {
            state.line.since = Some(now);
        }
    }

    /// Passes on what waits, as far as there is room.
    pub(super) fn flush_parked(&mut self) {
        for service in self.services.with_line() {
            self.flush_line(service);
        }
        self.push_markers();
    }

    fn flush_line(&mut self, service: ServiceId) {
        let now = self.now;
        let Some(state) = self.services.get_mut(service) else { return };
        if state.line.is_fenced(now) {
            return;
        }
        loop {
            if !self.is_tried(service) {
                return;
            }
            let Some(waiting) =
                self.services.get_mut(service).and_then(|state| state.line.packets.pop_front())
            else {
                break;
            };
            if let Err(waiting) = self.leave_line(service, waiting) {
                if let Some(state) = self.services.get_mut(service) {
                    state.line.packets.push_front(waiting);
                }
                break;
            }
        }
    }

    /// Whether the suspect that an instance was given alone has been worked off.
    fn is_tried(&mut self, service: ServiceId) -> bool {
        let now = self.now;
        let Some(state) = self.services.get_mut(service) else { return true };
        let Some((index, since)) = state.line.tried_by else { return true };
        let has_it = |n: &super::node::Node| n.inbound.ring().occupancy() > 0;
        // Who has it may be paused; others have work meanwhile.
        if now.duration_since(since) <= TRIAL_TIME
            && self.nodes.get(index).and_then(Option::as_ref).is_some_and(has_it)
        {
            return false;
        }
        state.line.tried_by = None;
        true
    }

    /// Takes a packet from the line to where it belongs.
    fn leave_line(&mut self, service: ServiceId, waiting: Waiting) -> Result<(), Waiting> {
        let Waiting { packet, position, suspect } = waiting;
        let back = |packet| Waiting { packet, position, suspect };
        let Some(state) = self.services.get_mut(service) else { return Err(back(packet)) };
        let hash = packet.descriptor().hash();
        let chosen = state.node_for(hash);
        let target = match &mut state.pinned {
            Some(flows) => flows.node_for(hash, chosen),
            None => chosen,
        };
        match target {
            None if self.giving_up => {
                self.drop_packet(packet, DropReason::Shutdown);
                Ok(())
            }
            None if state.waits() => Err(back(packet)),
            None => self.without_instance(service, position, packet).map_err(back),
            Some(index) if suspect => {
                let busy = |n: &super::node::Node| n.inbound.ring().occupancy() > 0;
                if self.nodes[index].as_ref().is_none_or(busy) {
                    return Err(back(packet));
                }
                self.push_to(index, position, packet).map_err(back)?;
                let now = self.now;
                if let Some(state) = self.services.get_mut(service) {
                    state.line.tried_by = Some((index, now));
                }
                self.publish();
                Ok(())
            }
            Some(index) => self.push_to(index, position, packet).map_err(back),
        }
    }

    /// Drops what waited too long for an instance.
    pub(super) fn expire_parked(&mut self) {
        let (usual, now) = (self.wait_for_instance, self.now);
        let mut expired = Vec::new();
        for (id, state) in self.services.iter_mut() {
            if !state.nodes().is_empty() {
                state.line.since = None;
            } else if state.line.len() > 0 {
                // Also a line that formed while there was an instance, which has died since.
                state.line.since.get_or_insert(now);
            }
            let wait = state.wait(usual);
            if state.line.since.is_some_and(|since| now.duration_since(since) >= wait) {
                expired.push(id);
            }
            if let Some(flows) = &mut state.pinned {
                flows.sweep(now);
            }
        }
        for service in expired {
            self.drop_parked(service, DropReason::NoInstance);
        }
    }

    fn drop_parked(&mut self, service: ServiceId, reason: DropReason) {
        let Some(state) = self.services.get_mut(service) else { return };
        state.gone = true;
        state.line.since = None;
        let waiting = std::mem::take(&mut state.line.packets);
        let packets = waiting.len();
        for Waiting { packet, .. } in waiting {
            self.drop_packet(packet, reason);
        }
        self.tell(News::GaveUp { service, packets });
    }

    /// Drops all that waits: the manager is stopping and nobody will come.
    pub(super) fn give_up_waiting(&mut self) {
        for service in self.services.with_line() {
            self.drop_parked(service, DropReason::Shutdown);
        }
        self.giving_up = true;
    }
}
