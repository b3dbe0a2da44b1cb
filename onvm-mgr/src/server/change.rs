//! How routes change under traffic: one snapshot after the other, no flow reordered.
//!
//! ```text
//!            something moves                 quiet, states handed over              all confirmed
//! at rest ────────────────────▶ closing ────────────────────────────────▶ telling ─────────────▶ opening
//!    ▲  └─nothing moves: NFs are told at once, nobody waits                                          │
//!    └───────────────────────────── what waited at the gate is in ◀──────────────────────────────────┘
//! ```
//! What the operator, the supervisor or a death wants different is only written down (plan, slots); [`Server::routes_changed`]
//! then starts a change, or leaves it to the end of the one that is under way. The gate is the worker's
//! (`worker/gate.rs`): it holds back flows that move, at the entry, until the NFs follow the new routes.
//!
//! A death needs no gate to go on: the worker gives the dead instance's packets to its siblings in order, reading in its
//! place what its upstream neighbours still send. Only when those are told of the new routes do flows move, and then
//! by a change like any other.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onvm_lib::protocol::{ChainHop, InstanceId, ServiceId};
use serde_json::Value;

use super::Server;
use super::phase::Phase;
use super::positions::Positions;
use crate::events::{Event, Kind};
use crate::plan::{Affinity, Policy};
use crate::slots::SLOTS;
use crate::worker::{Absent, Command, MovedSlots, Table};

/// How long NFs may take to confirm a snapshot; one that does not is stopped or hangs, and its packets wait with it.
const CONFIRM_TIME: Duration = Duration::from_millis(400);

/// Where a change is.
enum State {
    AtRest,
    Closing,
    HandingOver,
    Telling { waiting_for: BTreeSet<InstanceId>, version: u64, until: Instant },
    Opening,
}

/// The change that is under way, and what NFs follow.
pub(super) struct Changes {
    state: State,
    /// The snapshot that NFs follow; while they are told of another one, that one.
    pub(super) told: Table,
    next: Table,
    /// Owners of slots as the worker knows them: those that NFs follow, or their heirs.
    pub(super) in_force: HashMap<ServiceId, Vec<InstanceId>>,
    /// Something was wanted since the change began.
    dirty: bool,
    began: Instant,
    /// Packets that did not come home in time.
    left: usize,
    pub(super) positions: Positions,
    /// Changes that have begun.
    begun: u64,
    /// Clients that hear when the change with a number is complete, and what.
    clients: Vec<(u64, u64, Value)>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            state: State::AtRest,
            told: Table::default(),
            next: Table::default(),
            in_force: HashMap::new(),
            dirty: false,
            began: Instant::now(),
            left: 0,
            positions: Positions::default(),
            begun: 0,
            clients: Vec::new(),
        }
    }
}

impl Changes {
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.state, State::AtRest)
    }

    /// Of what is under way, an instance keeps what another was to take over from it. What else is wanted since the change
    /// began is not for this one: its flows are not held back.
    pub(super) fn stays(&mut self, service: ServiceId, old: InstanceId, new: InstanceId) {
        if let Some(owners) = self.next.slots.get_mut(&service) {
            owners.iter_mut().filter(|owner| **owner == new).for_each(|owner| *owner = old);
        }
    }

    /// When the next step is due by the clock.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Telling { until, .. } => Some(*until),
            _ => None,
        }
    }
}

impl Server {
    /// Tells a client when all that is wanted now is in force.
    pub(super) fn tell_when_in_force(&mut self, client: u64, body: Value) {
        if self.changes.is_at_rest() {
            return self.tell(client, body, true);
        }
        let number = self.changes.begun + u64::from(self.changes.dirty);
        self.changes.clients.push((number, client, body));
    }

    /// Something is wanted that routes depend on.
    pub(super) fn routes_changed(&mut self) {
        self.changes.dirty = true;
        if self.changes.is_at_rest() {
            self.begin_change();
        }
    }

    fn begin_change(&mut self) {
        self.changes.dirty = false;
        self.changes.begun += 1;
        self.changes.positions.follow(&self.plan.chains);
        let next = self.wanted_table();
        self.changes.began = Instant::now();
        let (slots, entries) = self.moved(&next);
        let replaced = self.successors_join_change();
        if !replaced && (self.phase == Phase::Waiting || slots.is_empty() && !entries) {
            self.changes.told = next;
            let table = self.worker_table();
            self.worker.give(Command::Route(table));
            let _ = self.tell_routes();
            return self.settle();
        }
        log::debug!("{:.1} % of the slots move", slots.share() * 100.0);
        self.changes.next = next.clone();
        self.changes.state = State::Closing;
        self.worker.give(Command::CloseGate { next, slots });
    }

    /// The snapshot as plan, services and slots are now.
    pub(super) fn wanted_table(&self) -> Table {
        let positions = &self.changes.positions;
        let (hops, services) = positions.hops();
        let entry = match &self.plan.default_chain {
            Some(name) => positions.entry(name),
            None => ChainHop { service: self.options.default_service, position: 0 },
        };
        let mut after: Vec<ChainHop> = Vec::new();
        let mut set_after = |service: ServiceId, hop: ChainHop| {
            let index = usize::from(service);
            if index >= after.len() {
                after.resize(index + 1, ChainHop::default());
            }
            after[index] = hop;
        };
        let default = self.plan.default_chain.as_ref().and_then(|name| self.plan.chains.get(name));
        let mut seen = BTreeSet::new();
        let mut at = entry;
        for service in default.into_iter().flatten() {
            at = hops.get(usize::from(at.position)).copied().unwrap_or_default();
            // A service that stands twice goes on after its first place.
            if seen.insert(*service) {
                set_after(*service, at);
            }
        }
        for (service, destination) in self.fixed_destinations() {
            set_after(service, ChainHop { service: destination, position: 0 });
        }
        Table {
            entry,
            rules: Arc::new(self.plan.rules.clone()),
            chains: self.plan.chains.keys().map(|name| (name.clone(), positions.entry(name))).collect(),
            hops,
            services,
            after,
            slots: self.services.iter().map(|(id, table)| (*id, table.owners().to_vec())).collect(),
            absent: self.plan.services.iter().map(|(id, s)| (*id, absent(s))).collect(),
            pinned: self.pinned_services(),
        }
    }

    pub(super) fn pinned_services(&self) -> BTreeSet<ServiceId> {
        let pinned = self.plan.services.iter().filter(|(_, s)| s.affinity == Affinity::Flow);
        pinned.map(|(id, _)| *id).collect()
    }

    /// Destinations that instances were started with.
    fn fixed_destinations(&self) -> Vec<(ServiceId, ServiceId)> {
        let plan = self.plan.services.iter().filter_map(|(id, s)| Some((*id, s.destination?)));
        let live = self.instances.values().filter_map(|i| Some((i.service(), i.hello.destination?)));
        plan.chain(live).collect()
    }

    /// What the worker routes by from now on: the snapshot that NFs follow, without the dead.
    ///
    /// What a dead instance had goes to whoever has it by then, even when others have come since: only a change moves
    /// flows. Flows of a service that nobody is left of are nowhere, and go to whoever comes.
    pub(super) fn worker_table(&mut self) -> Table {
        let mut table = self.changes.told.clone();
        let bypassed = |id: &ServiceId| self.changes.told.absent.get(id) == Some(&Absent::Bypass);
        for (id, wanted) in &self.services {
            if table.slots.contains_key(id) || bypassed(id) {
                continue;
            }
            // NFs do not know it yet, and send what is for it by the relay.
            let wanted = wanted.owners();
            let current = self.changes.in_force.get(id).map_or(&[][..], Vec::as_slice);
            let owner = |(slot, heir): (usize, &InstanceId)| {
                current.get(slot).copied().filter(|id| wanted.contains(id)).unwrap_or(*heir)
            };
            table.slots.insert(*id, wanted.iter().enumerate().map(owner).collect());
        }
        let lives = self.lives();
        for (id, owners) in &mut table.slots {
            let current = self.changes.in_force.get(id).map_or(&[][..], Vec::as_slice);
            let wanted = self.services.get(id).map_or(&[][..], |s| s.owners());
            for (slot, owner) in owners.iter_mut().enumerate() {
                let heirs = [Some(*owner), current.get(slot).copied(), wanted.get(slot).copied()];
                *owner = heirs.into_iter().flatten().find(&lives).unwrap_or(0);
            }
        }
        // Services of which nobody is left.
        table.slots.retain(|_, owners| !owners.is_empty() && !owners.contains(&0));
        drop(lives);
        self.changes.in_force.clone_from(&table.slots);
        table
    }

    /// Whether an instance is there; quick for the owners of slots, of which neighbours mostly have the same.
    fn lives(&self) -> impl Fn(&InstanceId) -> bool {
        let last = Cell::new((0, false));
        move |id| {
            if last.get().0 != *id {
                last.set((*id, self.instances.contains_key(id)));
            }
            last.get().1
        }
    }

    /// Lets the first instance of a service that nobody was left of have its packets at once, whatever change is under way:
    /// that may itself wait for these packets.
    pub(super) fn absent_service_returns(&mut self, id: ServiceId) {
        let lives = |owner: &InstanceId| self.instances.contains_key(owner);
        let served = self.changes.in_force.get(&id).is_some_and(|owners| owners.iter().any(lives));
        if !served && !self.changes.is_at_rest() && self.services.contains_key(&id) {
            let table = self.worker_table();
            self.worker.give(Command::Slots(table));
        }
    }

    /// Which slots' flows move with a snapshot, and whether packets enter elsewhere.
    fn moved(&self, next: &Table) -> (MovedSlots, bool) {
        let (told, in_force) = (&self.changes.told, &self.changes.in_force);
        let mut slots = MovedSlots::none();
        let services: BTreeSet<ServiceId> =
            told.slots.keys().chain(in_force.keys()).chain(next.slots.keys()).copied().collect();
        let lives = self.lives();
        let lives = |owner: &&InstanceId| lives(owner);
        for service in services {
            if next.pinned.contains(&service) {
                if self.pins_move(service) {
                    slots = MovedSlots::all();
                }
                continue;
            }
            let (known, after) = (told.slots.get(&service), next.slots.get(&service));
            let current = in_force.get(&service);
            if known.is_none() && current.is_none() {
                // Packets that skipped the service may still be ahead.
                if next.absent.get(&service) == Some(&Absent::Bypass) {
                    slots = MovedSlots::all();
                }
                continue;
            }
            let direct = self.has_direct_edges_to(service);
            for slot in 0..SLOTS {
                let heir = after.and_then(|a| a.get(slot));
                let owner = current.and_then(|c| c.get(slot)).filter(lives);
                let known = known.and_then(|k| k.get(slot));
                // What NFs still send to a dead instance comes by the relay, and would be overtaken by what they send
                // to its heir.
                let by_relay = direct && heir.is_some() && known.is_some() && known.filter(lives).is_none();
                if owner.is_some() && heir != owner || by_relay {
                    slots.add(slot);
                }
            }
        }
        (slots, !told.enters_like(next))
    }

    /// Of a service whose known flows stay where they are, flows move only when an instance leaves, whatever their slots.
    fn pins_move(&self, service: ServiceId) -> bool {
        let Some(told) = self.changes.told.slots.get(&service) else { return false };
        let wanted = self.services.get(&service).map_or(&[][..], |s| s.owners());
        told.iter().any(|id| self.instances.contains_key(id) && !wanted.contains(id))
    }

    /// Nothing is inside that the change could reorder, but for `left` packets that did not come home in time.
    pub(super) fn gate_quiet(&mut self, left: usize) {
        if !matches!(self.changes.state, State::Closing) {
            return;
        }
        self.changes.left = left;
        if left > 0 {
            log::warn!("{left} packets are still inside: flows of theirs may be reordered");
        }
        self.changes.state = State::HandingOver;
        if self.hand_over_states() {
            self.states_handed_over();
        }
    }

    /// Successors have what they need: everybody is told of the new routes.
    pub(super) fn states_handed_over(&mut self) {
        if !matches!(self.changes.state, State::HandingOver) {
            return;
        }
        self.changes.told = std::mem::take(&mut self.changes.next);
        let told = self.tell_routes();
        let (waiting_for, version) = told;
        self.changes.state = State::Telling { waiting_for, version, until: Instant::now() + CONFIRM_TIME };
        self.open_when_confirmed();
    }

    /// An instance follows a snapshot.
    pub(super) fn confirmed(&mut self, id: InstanceId, version: u64) {
        if let State::Telling { waiting_for, version: wanted, .. } = &mut self.changes.state
            && version >= *wanted
        {
            waiting_for.remove(&id);
        }
        self.open_when_confirmed();
    }

    /// Opens the gate when all have confirmed, or their time is up.
    pub(super) fn open_when_confirmed(&mut self) {
        let State::Telling { waiting_for, until, .. } = &mut self.changes.state else { return };
        let instances = &self.instances;
        waiting_for.retain(|id| instances.contains_key(id));
        if !waiting_for.is_empty() && Instant::now() < *until {
            return;
        }
        for id in waiting_for.iter() {
            log::warn!("instance {id} has not confirmed its route in time");
        }
        self.changes.state = State::Opening;
        let heirs = self.replaced_by();
        self.successors_take_over();
        let table = self.worker_table();
        self.worker.give(Command::OpenGate { table, heirs });
    }

    /// What waited at the gate is in.
    pub(super) fn gate_open(&mut self, waited: u64) {
        if !matches!(self.changes.state, State::Opening) {
            return;
        }
        let took = self.changes.began.elapsed();
        self.events.record(Event::new(Kind::RouteChange).by("manager").why(format!(
            "in {} µs, {waited} packets waited, {} were left",
            took.as_micros(),
            self.changes.left
        )));
        self.settle();
    }

    /// A change is complete.
    fn settle(&mut self) {
        self.changes.state = State::AtRest;
        self.let_drained_leave();
        let complete = self.changes.begun;
        let waiting = std::mem::take(&mut self.changes.clients);
        let (done, waiting) = waiting.into_iter().partition(|(number, ..)| *number <= complete);
        self.changes.clients = waiting;
        let done: Vec<(u64, u64, Value)> = done;
        for (_, client, body) in done {
            self.tell(client, body, true);
        }
        if self.changes.dirty {
            self.begin_change();
        }
    }
}

fn absent(service: &crate::plan::Service) -> Absent {
    match service.policy {
        Policy::Restart => Absent::Wait(service.wait),
        Policy::Bypass => Absent::Bypass,
        Policy::Drop => Absent::Drop,
    }
}
