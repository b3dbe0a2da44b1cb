//! The gate at the entry, which keeps flows in order while they are moved from one path to another.
//!
//! ```text
//! open ──`Close`──▶ closed ──all that was inside is home──▶ quiet ──`Open`──▶ open
//! ```
//! A change of the routes moves some flows: those that take another chain, and those whose slot gets another instance.
//! While the gate is closed their packets queue here; all other flows go on as ever, for their path is the same before
//! and after. When no packet that was inside at the beginning is inside any more, the NFs are given the new routes and the
//! queue goes in by them, what finds no room into its service's line. So no packet goes one half of its way by the old routes
//! and the other half by the new ones, none overtakes an older one of its flow, and a service that takes nothing now (it may
//! be paused) holds up no change.
//!
//! Packets that an NF holds back, or that wait for an instance that does not come, would keep the gate closed for ever:
//! after [`LONGEST`] it counts as quiet all the same, and the event says how many were left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use onvm_lib::pool::Packet;
use onvm_lib::protocol::InstanceId;

use super::Worker;
use super::command::News;
use super::table::{Entry, Table};
use crate::slots::SLOTS;

/// How long the gate waits for packets that were inside.
const LONGEST: Duration = Duration::from_millis(1000);

/// Slots of the flow hash whose flows move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MovedSlots(Box<[bool]>);

impl MovedSlots {
    pub(crate) fn none() -> Self {
        Self(vec![false; SLOTS].into())
    }

    pub(crate) fn all() -> Self {
        Self(vec![true; SLOTS].into())
    }

    pub(crate) fn add(&mut self, slot: usize) {
        if let Some(moved) = self.0.get_mut(slot) {
            *moved = true;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }

    /// Share of the flows that move, 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        let moved = u32::try_from(self.0.iter().filter(|m| **m).count()).unwrap_or(0);
        f64::from(moved) / f64::from(u32::try_from(SLOTS).unwrap_or(1))
    }

    #[inline]
    fn moves(&self, hash: u32) -> bool {
        self.0[((u64::from(hash) * SLOTS as u64) >> 32) as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Quiet,
}

pub(super) struct Gate {
    state: State,
    /// Where packets will enter.
    next: Entry,
    slots: MovedSlots,
    /// What waits to go in by the new routes, oldest first.
    pub(super) queue: VecDeque<Packet>,
    /// What was inside when the gate was closed and has not come home: buffer and generation.
    inside: Vec<(u32, u16)>,
    closed_at: Instant,
    /// Packets that had to wait.
    waited: u64,
}

/// What tells a packet from all others: its buffer, and how often that had been handed out.
pub(super) fn identity(packet: &Packet) -> (u32, u16) {
    (packet.descriptor().buffer(), packet.descriptor().generation())
}

impl Worker {
    /// Closes the gate for flows that move.
    pub(super) fn close_gate(&mut self, next: &Table, slots: MovedSlots) {
        let out = self.books.out().filter(|(_, _, packet)| *packet);
        let mut inside: Vec<(u32, u16)> = out.map(|(buffer, generation, _)| (buffer, generation)).collect();
        // Packets in line for a service that has an instance go in first; those for one that has none stay where they are.
        let lines = self.services.iter().filter(|(_, s)| !s.nodes().is_empty());
        for packet in lines.flat_map(|(_, s)| s.line.packets()) {
            inside.push(identity(packet));
        }
        let queue = self.gate.take().map(|gate| gate.queue).unwrap_or_default();
        self.now = Instant::now();
        let mut entry = Entry::default();
        entry.follow(next);
        self.gate = Some(Gate {
            state: State::Closed,
            next: entry,
            slots,
            queue,
            inside,
            closed_at: self.now,
            waited: 0,
        });
        self.watch_gate();
    }

    /// Routes by a new snapshot, and lets in what waited for it.
    pub(super) fn open_gate(&mut self, table: Table, heirs: &[(InstanceId, InstanceId)]) {
        self.pass_pins(heirs);
        self.entry.follow(&table);
        self.follow(table);
        let (waited, queue) = self.gate.take().map_or((0, VecDeque::new()), |gate| (gate.waited, gate.queue));
        for packet in queue {
            self.let_in(packet);
        }
        self.tell(News::GateOpen { waited });
    }

    /// Whether a packet that comes in belongs to a flow that moves.
    fn moves(&mut self, packet: &Packet) -> bool {
        let Some(gate) = &mut self.gate else { return false };
        let descriptor = packet.descriptor();
        let (frame, port) = (packet.bytes(self.books.pool()), descriptor.port());
        gate.slots.moves(descriptor.hash())
            || self.entry.for_frame(frame, port) != gate.next.for_frame(frame, port)
    }

    /// Takes packets that just came in and that belong to flows that move; the others are left in the burst.
    #[cold]
    pub(super) fn queue_at_gate(&mut self, burst: &mut Vec<Packet>, may_wait: bool) {
        let room = self.gate_room();
        for packet in std::mem::take(burst) {
            let moves = self.moves(&packet);
            match &mut self.gate {
                Some(gate) if moves => {
                    if gate.queue.len() < room || may_wait {
                        gate.waited += 1;
                        gate.queue.push_back(packet);
                    } else {
                        self.drop_at_entry(packet);
                    }
                }
                _ => burst.push(packet),
            }
        }
    }

    /// Packets that may wait at the gate: half the pool, less what waits in line already.
    fn gate_room(&self) -> usize {
        let half = self.books.pool().geometry().buffers() as usize / 2;
        half.saturating_sub(self.services.parked())
    }

    /// Packets that a source which waits may bring now, as far as the gate is concerned.
    pub(super) fn room_at_gate(&self) -> usize {
        self.gate.as_ref().map_or(usize::MAX, |gate| self.gate_room().saturating_sub(gate.queue.len()))
    }

    /// Takes the change that is under way a step further.
    pub(super) fn watch_gate(&mut self) {
        let Some(gate) = &mut self.gate else { return };
        match gate.state {
            State::Closed => {
                let (books, services) = (&self.books, &self.services);
                // Where the last instance has died the next one waits for this change to be complete.
                let in_line = services.packets_about_to_go();
                gate.inside.retain(|packet| {
                    books.generation_out(packet.0) == Some(packet.1) || in_line.contains(packet)
                });
                let left = gate.inside.len();
                if left == 0 || self.now.duration_since(gate.closed_at) > LONGEST {
                    gate.state = State::Quiet;
                    self.tell(News::GateQuiet { left });
                }
            }
            State::Quiet => {}
        }
    }

    /// Lets in a packet that waited, or has it wait in line, where it holds up nothing for other services.
    fn let_in(&mut self, packet: Packet) {
        let frame = packet.bytes(self.books.pool());
        let hop = self.entry.for_frame(frame, packet.descriptor().port());
        let absent = |s: &super::deliver::Service| s.nodes().is_empty() && s.waits() && !s.gone;
        let refused = if self.services.get(hop.service).is_some_and(absent) {
            Err(packet)
        } else {
            self.enter(packet, hop)
        };
        let Err(packet) = refused else { return };
        let port = self.ports.get(usize::from(packet.descriptor().port()));
        let room = |s: &super::deliver::Service| s.line.len() < self.longest_line();
        if port.is_some_and(|state| !state.port.waits()) && !self.services.get(hop.service).is_none_or(room) {
            return self.drop_at_entry(packet);
        }
        self.park_always(hop.service, hop.position, packet, false);
    }

    /// Packets that wait at the gate.
    pub(super) fn at_gate(&self) -> usize {
        self.gate.as_ref().map_or(0, |gate| gate.queue.len())
    }
}
