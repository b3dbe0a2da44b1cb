//! Both conservation sums, and the search for buffers that an NF took and never passed on.
//!
//! The books say which buffers are out. Every one of them must stand somewhere that the worker can see: in a
//! ring, or in an NF's table of held packets. A packet on its way may slip past one look (seen neither in the
//! ring that it left nor in the one that it entered), so what was not seen is looked for again, until it has been
//! seen, has come home, or [`SEARCH`] has passed: then it is lost. No NF has to stop for that.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use onvm_lib::packet::DropReason;
use onvm_lib::ring::{Descriptor, Ring};

use super::Worker;
use super::command::News;

/// How long a buffer must not be seen before it counts as lost.
const SEARCH: Duration = Duration::from_millis(300);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(2);
/// How long after a death the search begins: first others go on with its packets.
const SWEEP_LATER: Duration = Duration::from_millis(20);
/// Looks that must have missed it, however long they took: a packet that circles slips past a few.
const LOOKS: u32 = 50;

/// The sum over packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct PacketSum {
    pub(crate) received: u64,
    pub(crate) generated: u64,
    pub(crate) copied: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    /// Packets in rings, in NFs' hands, and waiting for an instance.
    pub(crate) inside: u64,
    pub(crate) balances: bool,
}

/// The sum over buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct PoolSum {
    pub(crate) buffers: u64,
    pub(crate) free: u64,
    /// In rings, with packets or empty.
    pub(crate) in_rings: u64,
    /// Held back by NFs.
    pub(crate) held: u64,
    /// With the worker: waiting for an instance or for a port.
    pub(crate) with_worker: u64,
    /// Nowhere to be seen.
    pub(crate) lost: u64,
    pub(crate) balances: bool,
}

/// What an audit found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct AuditReport {
    pub(crate) packets: PacketSum,
    pub(crate) pool: PoolSum,
}

enum Purpose {
    /// Somebody asked.
    Report(Vec<Sender<AuditReport>>),
    /// An NF died: what it took and hid is to be found and freed.
    Sweep,
}

/// A search that is under way.
pub(super) struct Audit {
    purpose: Purpose,
    started: Option<Instant>,
    next_look: Instant,
    looks: u32,
    /// Buffers that are out and were not seen yet, with their generation.
    missing: HashMap<u32, u16>,
}

/// Which of the buffers that are out were seen where, by buffer.
struct Seen {
    in_rings: Vec<bool>,
    held: Vec<bool>,
}

impl Seen {
    fn anywhere(&self, buffer: u32) -> bool {
        self.in_rings[buffer as usize] || self.held[buffer as usize]
    }
}

impl Audit {
    pub(super) fn for_client(reply: Sender<AuditReport>) -> Self {
        Self::new(Purpose::Report(vec![reply]))
    }

    /// Takes one more who asks, if it is an audit for clients that has not begun.
    pub(super) fn join(&mut self, reply: &Sender<AuditReport>) -> bool {
        match (&mut self.purpose, self.started) {
            (Purpose::Report(replies), None) => {
                replies.push(reply.clone());
                true
            }
            _ => false,
        }
    }

    pub(super) fn sweep() -> Self {
        let sweep = Self::new(Purpose::Sweep);
        Self { next_look: sweep.next_look + SWEEP_LATER, ..sweep }
    }

    fn new(purpose: Purpose) -> Self {
        Self { purpose, started: None, next_look: Instant::now(), looks: 0, missing: HashMap::new() }
    }
}

impl Worker {
    /// Takes the searches that are under way a step further.
    pub(super) fn check_audits(&mut self) {
        if self.audits.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut open = Vec::new();
        // A sweep that has not begun serves all that were ordered with it.
        let mut fresh_sweep = false;
        // One look serves them all, however many were asked for.
        let mut seen = None;
        for mut audit in std::mem::take(&mut self.audits) {
            if matches!(audit.purpose, Purpose::Sweep) && audit.started.is_none() {
                if fresh_sweep {
                    continue;
                }
                fresh_sweep = true;
            }
            if now < audit.next_look {
                open.push(audit);
                continue;
            }
            audit.next_look = now + LOOK;
            audit.looks += 1;
            let seen = seen.get_or_insert_with(|| self.look());
            match audit.started {
                None => {
                    audit.started = Some(now);
                    audit.missing =
                        self.books.out().map(|(buffer, generation, _)| (buffer, generation)).collect();
                }
                Some(_) => {
                    let books = &self.books;
                    audit.missing.retain(|b, g| books.generation_out(*b) == Some(*g));
                }
            }
            audit.missing.retain(|buffer, _| !seen.anywhere(*buffer));
            let late = audit.started.is_some_and(|s| now - s >= SEARCH) && audit.looks >= LOOKS;
            if audit.missing.is_empty() || late {
                self.finish_audit(audit, seen);
            } else {
                open.push(audit);
            }
        }
        open.append(&mut self.audits);
        self.audits = open;
    }

    fn finish_audit(&mut self, audit: Audit, seen: &Seen) {
        match audit.purpose {
            Purpose::Report(replies) => {
                let report = self.report(seen, audit.missing.len() as u64);
                for reply in replies {
                    let _ = reply.send(report.clone());
                }
                (self.news_bell)();
            }
            Purpose::Sweep => {
                let buffers = audit.missing.len() as u64;
                for buffer in audit.missing.into_keys() {
                    self.recover(buffer);
                }
                if buffers > 0 {
                    self.tell(News::Recovered { buffers });
                }
            }
        }
    }

    /// Frees a buffer that is nowhere to be seen.
    fn recover(&mut self, buffer: u32) {
        let Some((packet, full)) = self.books.recover(buffer) else { return };
        if full {
            self.drop_packet(packet, DropReason::Lost);
        } else {
            self.books.free(packet);
        }
    }

    /// Looks into everything that can be looked into.
    fn look(&self) -> Seen {
        let buffers = self.books.pool().geometry().buffers() as usize;
        let mut seen = Seen { in_rings: vec![false; buffers], held: vec![false; buffers] };
        let is_out = |d: &Descriptor| self.books.generation_out(d.buffer()) == Some(d.generation());
        let mark = |of: &mut [bool], descriptors: &[Descriptor]| {
            for descriptor in descriptors.iter().filter(|d| is_out(d)) {
                of[descriptor.buffer() as usize] = true;
            }
        };
        let mut ring = |ring: &Ring| mark(&mut seen.in_rings, &ring.entries());
        for node in self.nodes.iter().flatten() {
            ring(&node.inbound.ring());
            ring(&node.outbound.ring());
            if let Some(empties) = &node.empties {
                ring(&empties.ring());
            }
        }
        self.edges.values().for_each(|e| ring(&e.ring));
        for node in self.nodes.iter().flatten() {
            mark(&mut seen.held, &node.page.held());
        }
        seen
    }

    fn report(&self, seen: &Seen, lost: u64) -> AuditReport {
        let parked = self.services.parked();
        let outgoing: usize = self.ports.iter().map(|p| p.outgoing.len()).sum();
        let at_ports: usize = self.ports.iter().map(|p| p.port.holds()).sum();
        let at_ports_inside = self.ports.iter().map(|p| p.port.holds_out() as u64).sum::<u64>();
        let unburied = self.unburied.iter().filter(|u| u.holds_packet()).count();
        let empty = (self.unburied.len() - unburied) as u64;
        let with_worker = (parked + outgoing + self.at_gate() + unburied) as u64;
        let (mut out, mut with_packet, mut held) = (0, 0, 0);
        for (buffer, _, packet) in self.books.out() {
            out += 1;
            with_packet += u64::from(packet);
            held += u64::from(seen.held[buffer as usize]);
        }
        let sum = |reasons: &[u64]| reasons.iter().sum::<u64>();
        let mut packets = PacketSum {
            received: self.tally.received,
            generated: self.books.generated(),
            copied: self.tally.copied,
            sent: self.tally.sent,
            dropped: sum(&self.tally.drops),
            inside: with_packet + with_worker + at_ports_inside,
            balances: false,
        };
        packets.balances = packets.received + packets.generated + packets.copied
            == packets.sent + packets.dropped + packets.inside;
        let mut pool = PoolSum {
            buffers: u64::from(self.books.pool().geometry().buffers()),
            free: u64::from(self.books.free_count()),
            in_rings: out - held - lost,
            held,
            with_worker: with_worker + empty + at_ports as u64,
            lost,
            balances: false,
        };
        pool.balances = lost == 0 && pool.free + pool.in_rings + pool.held + pool.with_worker == pool.buffers;
        AuditReport { packets, pool }
    }
}
