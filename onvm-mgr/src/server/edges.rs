//! Direct edges between NFs, and the route snapshots that tell of them.
//!
//! # Life of an edge
//! ```text
//! wanted ──ring made, both ends told──▶ open ──no longer wanted, or an end died──▶ ending ──▶ forgotten
//! ```
//! - Both ends are told in the same round of snapshots. The consumer does not read it before the producer's marker
//!   has come by the relay, so no packet overtakes one that was relayed before.
//! - Consumer died: the worker reads in its place. The producer's next snapshot has no such edge; when it has
//!   confirmed that snapshot, nothing more comes ([`Command::ProducerDone`]).
//! - Producer died: the consumer is told to empty the ring and forget it (`finish`).
//! - Both live, but the edge is not wanted any more: the producer is told first, the consumer when the producer
//!   has confirmed.

use std::collections::{BTreeMap, BTreeSet};

use onvm_lib::protocol::{
    Answer, ChainHop, Edge, EdgeId, InstanceId, Next, RingGrant, Route, ServiceId, Slots,
};
use onvm_lib::ring::Ring;

use super::Server;
use super::instances::Enclosure;
use crate::life::State;
use crate::worker::{Command, Table};

/// One direct edge.
struct DirectEdge {
    from: InstanceId,
    to: InstanceId,
    /// The service of the consumer.
    service: ServiceId,
    ring: Ring,
    told_producer: bool,
    told_consumer: bool,
    /// The snapshot by which the producer was told to stop.
    stopped_by: Option<u64>,
    producer_done: bool,
    consumer_dead: bool,
    finish_told: bool,
}

/// All direct edges.
#[derive(Default)]
pub(super) struct Edges {
    all: BTreeMap<EdgeId, DirectEdge>,
    last_id: EdgeId,
    version: u64,
}

impl Edges {
    pub(super) fn next_id(&mut self) -> EdgeId {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Packets that wait for an instance in direct edges.
    pub(super) fn waiting_for(&self, id: InstanceId) -> u32 {
        self.all.values().filter(|e| e.to == id).map(|e| e.ring.occupancy()).sum()
    }

    /// The same for all instances at once.
    pub(super) fn waiting(&self) -> BTreeMap<InstanceId, u32> {
        let mut waiting = BTreeMap::new();
        for edge in self.all.values() {
            *waiting.entry(edge.to).or_default() += edge.ring.occupancy();
        }
        waiting
    }

    fn between(&self, from: InstanceId, to: InstanceId) -> Option<EdgeId> {
        let usable =
            |e: &DirectEdge| e.from == from && e.to == to && e.stopped_by.is_none() && !e.consumer_dead;
        self.all.iter().find(|(_, e)| usable(e)).map(|(id, _)| *id)
    }

    pub(super) fn instance_died(&mut self, id: InstanceId) {
        for edge in self.all.values_mut() {
            edge.consumer_dead |= edge.to == id;
            edge.producer_done |= edge.from == id;
        }
    }
}

impl Server {
    /// Services that an instance sends to without being asked to.
    fn successors(&self, id: InstanceId) -> BTreeSet<ServiceId> {
        let Some(instance) = self.instances.get(&id) else { return BTreeSet::new() };
        if let Some(fixed) = instance.hello.destination {
            let pinned = self.changes.told.pinned.contains(&fixed);
            return (!pinned).then_some(fixed).into_iter().collect();
        }
        let table = &self.changes.told;
        let ours = table.hops.iter().zip(&table.services).filter(|(_, at)| **at == instance.service());
        // To services whose known flows stay where they are the manager sends every packet itself.
        let relayed = |service: &ServiceId| *service == 0 || table.pinned.contains(service);
        ours.map(|(hop, _)| hop.service).filter(|service| !relayed(service)).collect()
    }

    /// Whether an NF has a direct edge to an instance of a service, or just had one.
    pub(super) fn has_direct_edges_to(&self, service: ServiceId) -> bool {
        self.edges.all.values().any(|e| e.service == service)
    }

    /// Makes the edges that are wanted, and tells everybody what has changed for them. Returns those whose packets take
    /// other ways now, and the version that they will confirm.
    pub(super) fn tell_routes(&mut self) -> (BTreeSet<InstanceId>, u64) {
        self.edges.version += 1;
        let manner = if self.options.poll {
            onvm_lib::idle::Manner::Poll
        } else if self.cores.worker_shares(self.instances.len()) {
            onvm_lib::idle::Manner::Yield
        } else {
            onvm_lib::idle::Manner::Spin
        };
        self.worker.give(Command::Manner(manner));
        self.make_wanted_edges();
        let ids: Vec<InstanceId> = self.instances.keys().copied().collect();
        let told = ids.into_iter().filter(|id| self.send_route(*id)).collect();
        self.forget_ended_edges();
        (told, self.edges.version)
    }

    fn make_wanted_edges(&mut self) {
        // Only to those that have flows: an edge is used from the snapshot on that tells of it, or never.
        let takes = |to: &InstanceId| self.instances.get(to).is_some_and(|i| !i.isolated);
        let owners: BTreeMap<ServiceId, BTreeSet<InstanceId>> = self
            .changes
            .told
            .slots
            .iter()
            .map(|(id, owners)| (*id, owners.iter().copied().filter(takes).collect()))
            .collect();
        let mut wanted = BTreeSet::new();
        for (from, _) in self.instances.iter().filter(|(_, i)| !i.isolated) {
            let to = self.successors(*from);
            let to = to.iter().filter_map(|service| owners.get(service)).flatten();
            wanted.extend(to.map(|to| (*from, *to)));
        }
        for (from, to) in &wanted {
            if self.edges.between(*from, *to).is_some() {
                continue;
            }
            // Without memory for another ring the relay goes on serving the pair.
            match Ring::create("onvm-direct", self.options.ring_size) {
                Ok(ring) => self.add_edge(*from, *to, ring),
                Err(error) => log::warn!("no direct edge from {from} to {to}: {error}"),
            }
        }
        let version = self.edges.version;
        for edge in self.edges.all.values_mut() {
            if !wanted.contains(&(edge.from, edge.to)) && edge.stopped_by.is_none() {
                edge.stopped_by = Some(version);
                // A producer that never heard of it has nothing to confirm.
                edge.producer_done |= !edge.told_producer;
            }
        }
        for (id, _) in self.edges.all.iter().filter(|(_, e)| e.stopped_by == Some(version) && e.producer_done)
        {
            self.worker.give(Command::ProducerDone { edge: *id });
        }
    }

    fn add_edge(&mut self, from: InstanceId, to: InstanceId, ring: Ring) {
        let id = self.edges.next_id();
        self.worker.give(Command::Connect { edge: id, from, to, ring: ring.clone() });
        let edge = DirectEdge {
            from,
            to,
            service: self.instances.get(&to).map_or(0, super::instances::Instance::service),
            ring,
            told_producer: false,
            told_consumer: false,
            stopped_by: None,
            producer_done: false,
            consumer_dead: false,
            finish_told: false,
        };
        self.edges.all.insert(id, edge);
    }

    /// Sends an instance its snapshot, if anything in it is new; whether packets of its take another way by it.
    fn send_route(&mut self, id: InstanceId) -> bool {
        let Some(instance) = self.instances.get(&id) else { return false };
        let table = &self.changes.told;
        let mut route = Route {
            version: instance.route.version,
            after: after(table, instance.service()),
            next: next_hops(table, instance.service()),
            services: self.ways(id),
            shared_core: self.cores.is_shared(instance.core, self.instances.len()),
            ..Route::default()
        };
        let mut rings = Vec::new();
        let grant = |edge: EdgeId, ring: &Ring| RingGrant { edge, capacity: ring.capacity() };
        for (edge, e) in self.edges.all.iter_mut().filter(|(_, e)| e.to == id && !e.told_consumer) {
            e.told_consumer = true;
            route.consume.push(Edge { ring: grant(*edge, &e.ring), peer: e.from });
            rings.push(Enclosure::Ring(e.ring.clone()));
        }
        for (edge, e) in self.edges.all.iter_mut().filter(|(_, e)| e.from == id && !e.told_producer) {
            if e.stopped_by.is_some() || e.consumer_dead {
                continue;
            }
            e.told_producer = true;
            route.produce.push(Edge { ring: grant(*edge, &e.ring), peer: e.to });
            rings.push(Enclosure::Ring(e.ring.clone()));
        }
        for (edge, e) in self.edges.all.iter_mut().filter(|(_, e)| e.to == id && e.producer_done) {
            if !e.finish_told {
                e.finish_told = true;
                route.finish.push(*edge);
            }
        }
        let Some(instance) = self.instances.get_mut(&id) else { return false };
        let settled = Route { consume: vec![], produce: vec![], finish: vec![], ..route.clone() };
        // Everyone has a first one, by whose confirmation it is ready.
        if instance.route.version > 0
            && route.consume.is_empty()
            && route.produce.is_empty()
            && route.finish.is_empty()
            && settled == instance.route
        {
            return false;
        }
        let routing = |route: &Route| (route.after, route.next.clone(), route.services.clone());
        // One that is not ready has no packets that could take another way.
        let ready = instance.life.state() != State::Starting;
        let other_ways = ready && routing(&settled) != routing(&instance.route);
        route.version = self.edges.version;
        instance.route = Route { version: route.version, ..settled };
        self.send_to(id, Answer::Route(route), rings);
        other_ways
    }

    /// The direct ways of an instance.
    fn ways(&self, id: InstanceId) -> Vec<Slots> {
        let mut all = Vec::new();
        for service in self.successors(id) {
            let Some(slots) = self.changes.told.slots.get(&service) else { continue };
            let mut owners = slots.clone();
            owners.sort_unstable();
            owners.dedup();
            let ways: Vec<Option<EdgeId>> = owners.iter().map(|to| self.edges.between(id, *to)).collect();
            if ways.iter().all(Option::is_none) {
                continue;
            }
            let index_of = |owner: &InstanceId| owners.iter().position(|o| o == owner).unwrap_or(0);
            let table: Vec<u8> = if owners.len() == 1 {
                vec![0]
            } else {
                slots.iter().map(|o| u8::try_from(index_of(o)).unwrap_or(0)).collect()
            };
            all.push(Slots { service, ways, table });
        }
        all
    }

    /// An instance follows a snapshot: edges that it no longer has in it will see no more packets from it.
    pub(super) fn routed(&mut self, id: InstanceId, version: u64) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.confirmed = instance.confirmed.max(version);
        self.is_ready(id);
        let mut done = Vec::new();
        for (edge, e) in self.edges.all.iter_mut().filter(|(_, e)| e.from == id && !e.producer_done) {
            if e.stopped_by.is_some_and(|stopped| stopped <= version) {
                e.producer_done = true;
                done.push(*edge);
            }
        }
        let ended = !done.is_empty();
        for edge in done {
            self.worker.give(Command::ProducerDone { edge });
        }
        if ended {
            // Its consumers are told to empty it and forget it.
            let _ = self.tell_routes();
        }
        self.confirmed(id, version);
    }

    fn forget_ended_edges(&mut self) {
        self.edges.all.retain(|_, e| !(e.producer_done && (e.consumer_dead || e.finish_told)));
    }
}

/// What follows `service` for packets in no chain.
fn after(table: &Table, service: ServiceId) -> ChainHop {
    table.after.get(usize::from(service)).copied().unwrap_or_default()
}

/// What follows each position at which a chain comes to `service`.
fn next_hops(table: &Table, service: ServiceId) -> Vec<Next> {
    let pairs = table.hops.iter().zip(&table.services).enumerate();
    let ours = pairs.filter(|(_, (_, at))| **at == service);
    ours.map(|(at, (hop, _))| Next { at: u16::try_from(at).unwrap_or(0), hop: *hop }).collect()
}
