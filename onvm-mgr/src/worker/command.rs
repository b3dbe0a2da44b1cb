//! What the control thread tells the worker, and the other way round.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::SystemTime;

use onvm_lib::packet::DropReason;
use onvm_lib::pool::Note;
use onvm_lib::protocol::{EdgeId, InstanceId, ServiceId};
use onvm_lib::ring::Ring;

use super::audit::Audit;
use super::node::{DirectEdge, Node, Remains};
use super::ports::ClosedPort;
use super::table::Absent;
use super::{AuditReport, MovedSlots, NodeInit, NodeTotals, PortState, Successor, Table, Worker};
use crate::ports::{Capture, Link, Port, PortCounters, Rest};

/// What the control thread tells the worker.
pub(crate) enum Command {
    /// An instance is taken in.
    Attach(Box<NodeInit>),
    /// A direct edge begins.
    Connect { edge: EdgeId, from: InstanceId, to: InstanceId, ring: Ring },
    /// The producer of an edge has confirmed that it writes to it no more.
    ProducerDone { edge: EdgeId },
    /// A new routing snapshot.
    Route(Table),
    /// The same snapshot, with instances for a service that had none.
    Slots(Table),
    /// Some flows move: hold them back at the entry; say [`News::GateQuiet`] when none of their packets is inside.
    CloseGate { next: Table, slots: MovedSlots },
    /// All NFs follow the new routes: route by them, let in what waits, and say [`News::GateOpen`].
    /// Flows that are pinned to the first of each pair of instances go to the second.
    OpenGate { table: Table, heirs: Vec<(InstanceId, InstanceId)> },
    /// An instance is gone; route by the new snapshot and clear up after it. Flows that are pinned to it go to the heir.
    /// With `lingers` the end of its process follows.
    Reap { instance: InstanceId, table: Table, crashed: bool, lingers: bool, heir: Option<InstanceId> },
    /// Who takes over from whom when it dies: all that there are now.
    Successors(Vec<Successor>),
    /// An instance's process is gone: nobody writes to what it had in its hands any more.
    Bury { instance: InstanceId },
    /// Open the ports.
    StartReceiving,
    /// Receive nothing more; say [`News::Drained`] when all has come out.
    StopReceiving,
    /// Nobody will come: what still waits for an instance is dropped.
    GiveUpWaiting,
    /// Open a number, which is empty, for a port.
    AddPort { number: u8, port: Box<dyn Port> },
    /// Close a port when all that is inside now has had its time to go out of it; say [`News::PortClosed`].
    RemovePort { number: u8 },
    /// There are so many numbers now: those behind are empty, and forgotten.
    ShortenPorts { count: usize },
    /// Say what the ports are like.
    Ports { reply: Sender<Vec<PortTotals>> },
    /// Capture nothing more, and give away what captures have not written.
    FinishCaptures { reply: Sender<Vec<Rest>> },
    /// Count.
    Totals { reply: Sender<Totals> },
    /// Draw up both sums.
    Audit { reply: Sender<AuditReport> },
    /// How the worker shall wait.
    Manner(onvm_lib::idle::Manner),
    /// Close the ports and end.
    End,
}

/// What the control thread is told: by the worker, and of deaths by who watches over the NFs.
#[derive(Debug)]
pub(crate) enum News {
    /// The thread of an instance that has packets in its hands is dead: from who watches over them.
    Died { instance: InstanceId },
    /// The same, and another that stood by goes on in its place already.
    Succeeded { instance: InstanceId, successor: InstanceId, at: SystemTime },
    /// Every finite source has ended, or receiving was stopped, and every packet has come out.
    Drained,
    /// A port had an error that the user must know of.
    PortFailed { error: String },
    /// An instance writes nonsense where its ring's positions stand.
    Violation { instance: InstanceId },
    /// An instance has been cleared up after.
    Reaped { instance: InstanceId, in_hand: u64, passed_to_others: u64 },
    /// What is left of it, to be dropped.
    Remains(Remains),
    /// Packets wait for a service that has no instance.
    Waiting { service: ServiceId },
    /// They waited long enough and were dropped.
    GaveUp { service: ServiceId, packets: usize },
    /// No packet that was inside when the gate was closed is inside now, except for `left`.
    GateQuiet { left: usize },
    /// Everything that waited at the gate is in; so many packets did.
    GateOpen { waited: u64 },
    /// A packet was in the hands of two instances in a row when they died, the second time of this one; it was dropped.
    Quarantined { instance: InstanceId, frame: Vec<u8>, note: Note },
    /// A port that was removed has given back every buffer, and its number is empty.
    PortClosed { number: u8, closed: ClosedPort },
    /// Buffers that an NF took and never passed on were found and freed.
    Recovered { buffers: u64 },
}

/// What a port has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortTotals {
    pub(crate) name: String,
    /// How it works, where that depends on what it found.
    pub(crate) manner: Option<String>,
    pub(crate) counters: PortCounters,
    /// Counters that not every port has.
    pub(crate) extras: Vec<(&'static str, u64)>,
    /// In a word what it is doing.
    pub(crate) state: &'static str,
    /// What is known of its link, if that was asked for.
    pub(crate) link: Link,
}

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) ports: Vec<PortTotals>,
    pub(crate) nodes: Vec<(InstanceId, NodeTotals)>,
    pub(crate) received: u64,
    pub(crate) generated: u64,
    pub(crate) copied: u64,
    pub(crate) sent: u64,
    /// Dropped for backpressure before any NF had them.
    pub(crate) at_entry: u64,
    pub(crate) drops: Vec<(DropReason, u64)>,
    pub(crate) bad_descriptors: u64,
    pub(crate) parked: Vec<(ServiceId, usize)>,
    pub(crate) buffers: u32,
    pub(crate) free: u32,
    pub(crate) receiving: bool,
}

impl Worker {
    /// Obeys all commands that are waiting; false when the worker shall end.
    #[cold]
    pub(super) fn obey(&mut self) -> bool {
        self.called.store(false, Ordering::Release);
        std::sync::atomic::fence(Ordering::SeqCst);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach(init) => self.attach(*init),
                Command::Connect { edge, from, to, ring } => self.connect(edge, from, to, ring),
                Command::ProducerDone { edge } => {
                    if let Some(edge) = self.edges.get_mut(&edge) {
                        edge.producer_done = true;
                    }
                }
                Command::Route(table) => {
                    self.entry.follow(&table);
                    self.follow(table);
                }
                Command::Slots(table) => self.follow(table),
                Command::CloseGate { next, slots } => self.close_gate(&next, slots),
                Command::OpenGate { table, heirs } => self.open_gate(table, &heirs),
                Command::Successors(all) => self.name_successors(all),
                Command::Reap { instance, table, crashed, lingers, heir } => {
                    self.successions.settle(instance);
                    self.pass_pins(heir.map(|heir| (instance, heir)).as_slice());
                    self.follow(table);
                    self.reap(instance, crashed, lingers);
                }
                Command::Bury { instance } => self.bury(instance),
                Command::StartReceiving => {
                    self.receiving = true;
                    self.ports.iter_mut().for_each(|p| p.port.start());
                }
                Command::StopReceiving => {
                    self.stopping = true;
                    self.receiving = false;
                }
                Command::GiveUpWaiting => self.give_up_waiting(),
                Command::AddPort { number, port } => self.add_port(number, port),
                Command::RemovePort { number } => self.remove_port(number),
                Command::ShortenPorts { count } => self.shorten_ports(count),
                Command::Ports { reply } => {
                    let _ = reply.send(self.ports.iter().map(|p| p.totals(true)).collect());
                    (self.news_bell)();
                }
                Command::FinishCaptures { reply } => {
                    let captures = self.ports.iter_mut().filter_map(|state| state.port.capture());
                    let _ = reply.send(captures.filter_map(Capture::finish).collect());
                }
                Command::Totals { reply } => {
                    let _ = reply.send(self.totals());
                    (self.news_bell)();
                }
                Command::Audit { reply } => {
                    if !self.audits.iter_mut().any(|audit| audit.join(&reply)) {
                        self.audits.push(Audit::for_client(reply));
                    }
                }
                Command::Manner(manner) => self.idle.set_manner(manner),
                Command::End => {
                    self.close_ports();
                    return false;
                }
            }
        }
        self.look_around();
        true
    }

    fn attach(&mut self, init: NodeInit) {
        let free = self.nodes.iter().position(Option::is_none).unwrap_or(self.nodes.len());
        if free == self.nodes.len() {
            self.nodes.push(None);
        }
        let node = Node::new(init, free);
        self.sleeper.add(node.doorbell.as_fd());
        self.services.entry(node.service).gone = false;
        self.by_instance.insert(node.instance, free);
        self.nodes[free] = Some(node);
    }

    fn connect(&mut self, edge: EdgeId, from: InstanceId, to: InstanceId, ring: Ring) {
        // The control thread may not know yet that a successor is in its place.
        let reader = self.successions.in_place_of(to);
        let service =
            self.by_instance.get(&reader).and_then(|i| self.nodes[*i].as_ref()).map_or(0, |n| n.service);
        let dead = |id| !self.by_instance.contains_key(&id);
        let (producer_done, heir) = (dead(from), dead(to).then(|| ring.remains().ok()).flatten());
        let heir = heir.map(|remains| ring.inherit(&remains));
        let inherited = heir.is_some();
        let new = DirectEdge { from, to, ring, opened: false, heir, service, producer_done };
        self.edges.insert(edge, new);
        self.last_edge = self.last_edge.max(edge);
        if producer_done {
            return self.open_edge(edge);
        }
        let producer = self.by_instance.get(&from).and_then(|i| self.nodes[*i].as_mut());
        if let Some(place) = producer.as_ref().and_then(|n| n.early_markers.iter().position(|e| *e == edge)) {
            producer.map(|n| n.early_markers.swap_remove(place));
            self.open_edge(edge);
        } else if let Some(producer) = producer.filter(|_| inherited) {
            producer.heirs.push(edge);
        }
    }

    /// Follows a snapshot, but for where packets enter: while flows move, the gate must know where they entered before.
    pub(super) fn follow(&mut self, table: Table) {
        self.throttle.follow(&table);
        self.table = table;
        if self.captures {
            self.name_hops();
        }
        for id in self.table.absent.keys().chain(&self.table.pinned) {
            let _ = self.services.entry(*id);
        }
        for (service, owners) in &self.table.slots {
            // All owners are attached: the control thread sends Attach before the snapshot that names it. But some may have
            // died since, and their successors, too.
            let place = |owner| self.by_instance.get(&self.successions.in_place_of(owner)).copied();
            // Neighbours mostly have the same: none is looked up for each of thousands of slots.
            let mut last = (0, None);
            let slots = owners.iter().map(|owner| {
                if last.0 != *owner {
                    last = (*owner, place(*owner));
                }
                last.1
            });
            let slots: Vec<Option<usize>> = slots.collect();
            // Flows of one whom nobody follows go to somebody until the next snapshot, so that all others stay where they are.
            let anyone = slots.iter().flatten().next().copied();
            let slots: Vec<usize> = slots.into_iter().filter_map(|slot| slot.or(anyone)).collect();
            let state = self.services.entry(*service);
            // Who was waited for too long has come.
            state.gone &= slots.is_empty();
            state.set_slots(slots);
        }
        for (id, service) in self.services.iter_mut() {
            if !self.table.slots.contains_key(&id) {
                service.set_slots(Vec::new());
            }
            service.set_absent(self.table.absent.get(&id).copied().unwrap_or(Absent::Wait(None)));
            service.pin(self.table.pinned.contains(&id));
        }
    }

    /// Flows that are pinned to the first of each pair of instances go to the second.
    pub(super) fn pass_pins(&mut self, heirs: &[(InstanceId, InstanceId)]) {
        for (from, to) in heirs {
            let place = |id| self.by_instance.get(id).copied();
            let (Some(from), Some(to)) = (place(from), place(to)) else { continue };
            for (_, service) in self.services.iter_mut() {
                if let Some(flows) = &mut service.pinned {
                    flows.pass(from, to);
                }
            }
        }
    }

    /// All flows of an instance go to another, as the snapshot will say that is on its way.
    pub(super) fn pass_flows(&mut self, from: InstanceId, to: InstanceId) {
        self.pass_pins(&[(from, to)]);
        let place = |id| self.by_instance.get(id).copied();
        if let (Some(from), Some(to)) = (place(&from), place(&to)) {
            for (_, service) in self.services.iter_mut() {
                let slots =
                    service.nodes().iter().map(|node| if *node == from { to } else { *node }).collect();
                service.set_slots(slots);
            }
        }
    }

    fn close_ports(&mut self) {
        for state in &mut self.ports {
            for packet in state.outgoing.drain(..) {
                self.tally.drops[DropReason::Shutdown as usize] += 1;
                self.books.free(packet);
            }
            let expected = self.books.free_count() as usize + state.port.holds();
            if let Err(error) = state.port.close(&mut self.books) {
                let _ = self.news.send(News::PortFailed { error: error.to_string() });
            }
            let lost = expected.saturating_sub(self.books.free_count() as usize);
            if lost > 0 {
                let error = format!("port {:?}: {lost} buffers did not come back", state.port.name());
                let _ = self.news.send(News::PortFailed { error });
            }
            if state.settles {
                self.tally.settle(&state.port.settle());
            }
        }
        (self.news_bell)();
    }

    pub(super) fn totals(&self) -> Totals {
        let drops = DropReason::ALL.iter().map(|r| (*r, self.tally.drops[*r as usize]));
        Totals {
            ports: self.ports.iter().map(|p| p.totals(false)).collect(),
            nodes: self.nodes.iter().flatten().map(|n| (n.instance, n.totals)).collect(),
            received: self.tally.received,
            generated: self.books.generated(),
            copied: self.tally.copied,
            sent: self.tally.sent,
            at_entry: self.throttle.at_entry(),
            drops: drops.filter(|(_, n)| *n > 0).collect(),
            bad_descriptors: self.tally.bad_descriptors,
            parked: self
                .services
                .with_line()
                .into_iter()
                .filter_map(|id| Some((id, self.services.get(id)?.line.len())))
                .collect(),
            buffers: self.books.pool().geometry().buffers(),
            free: self.books.free_count(),
            receiving: self.receiving,
        }
    }
}

impl PortState {
    /// What it has counted, and, for who wants to know, how its link is: that is asked of the kernel.
    fn totals(&self, with_link: bool) -> PortTotals {
        PortTotals {
            name: self.port.name().to_string(),
            manner: self.port.manner().map(str::to_string),
            counters: self.port.counters(),
            extras: self.port.extras(),
            state: match self {
                Self { leaving: Some(_), .. } => "leaving",
                _ if self.port.is_absent() => "empty",
                Self { finished: true, .. } => "finished",
                _ => "open",
            },
            link: if with_link { self.port.link() } else { Link::default() },
        }
    }
}
