//! One instance takes the place of another: a new version, or the same program started afresh.
//!
//! ```text
//! successor started ──set up──▶ change of routes ──gate closed, nothing inside──▶ old one hands its state over
//!       │ does not come                                                                │
//!       ▼                                                                              ▼
//! given up: the old one goes on ◀──cannot read it, too late── successor takes the state ──▶ routes change, old one leaves
//! ```
//! While the state travels, packets of the flows that move wait at the gate. No packet is lost or reordered.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use onvm_lib::protocol::{Answer, InstanceId, ServiceId};
use serde_json::{Value, json};

use super::Server;
use super::instances::{Enclosure, Role};
use super::ports::NotOpened;
use crate::events::{Event, Kind};
use crate::life::State;

/// How long a successor may take to attach.
const ATTACH_TIME: Duration = Duration::from_secs(10);
/// How long each half of the hand-over of a state may take at most: packets of flows that move wait for it. One that takes
/// longer than the time after which an instance is taken for hung hangs.
const LONGEST_HAND_OVER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The successor has not attached yet, or sets itself up.
    Starting,
    /// It waits for the next change of routes.
    SetUp,
    /// The change of routes that is under way gives it its predecessor's flows.
    Moving,
    /// The old one was asked for its state.
    Asked,
    /// The successor was given it.
    Given,
    /// The successor has what it needs.
    Ready,
}

impl Step {
    /// Whether it is given up when it takes too long.
    fn has_deadline(self) -> bool {
        matches!(self, Self::Starting | Self::Asked | Self::Given)
    }
}

/// A replacement that is under way.
pub(super) struct Replacement {
    old: InstanceId,
    service: ServiceId,
    /// By which the successor will be known.
    start_token: String,
    new: Option<InstanceId>,
    /// Whose wish it is, if a client's.
    order: Option<Rc<Order>>,
    step: Step,
    until: Instant,
    /// The old one had not set itself up when the successor had, so it has neither flows nor a state.
    early: bool,
    /// Another command, with its directory, which is the service's own once the successor has its place.
    command: Option<(Vec<String>, String)>,
}

/// A client's wish to have instances replaced, shared by the replacements that it asks for. The last of them to end lets go of
/// it, and then the client is told what has become of all.
pub(super) struct Order {
    client: u64,
    /// States stay behind.
    fresh: bool,
    /// What the plan changes of which this is a part.
    changes: Option<Value>,
    replaced: RefCell<Vec<(InstanceId, InstanceId)>>,
    failed: RefCell<Vec<(InstanceId, String)>>,
    /// Ports of the plan that could not be opened.
    not_opened: RefCell<Vec<NotOpened>>,
}

impl Order {
    pub(super) fn new(client: u64, fresh: bool) -> Rc<Self> {
        Rc::new(Self {
            client,
            fresh,
            changes: None,
            replaced: RefCell::default(),
            failed: RefCell::default(),
            not_opened: RefCell::default(),
        })
    }

    /// For a plan that changes so much: the client is told of that, and of what could not be replaced.
    pub(super) fn of_plan(client: u64, changes: Value) -> Self {
        let (replaced, failed, not_opened) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { client, fresh: false, changes: Some(changes), replaced, failed, not_opened }
    }

    /// One of its instances is not replaced.
    pub(super) fn failed(&self, old: InstanceId, why: &str) {
        self.failed.borrow_mut().push((old, why.into()));
    }

    /// A port of the plan could not be opened.
    pub(super) fn port_failed(&self, port: NotOpened) {
        self.not_opened.borrow_mut().push(port);
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.borrow().is_empty() || !self.not_opened.borrow().is_empty()
    }

    /// What the client is told.
    fn body(&self) -> (Value, bool) {
        let (replaced, failed) = (self.replaced.borrow(), self.failed.borrow());
        if replaced.is_empty() && self.changes.is_none() {
            let all: Vec<String> =
                failed.iter().map(|(old, why)| format!("instance {old} is not replaced: {why}")).collect();
            return (json!({ "error": all.join("\n") }), false);
        }
        let pairs: Vec<Value> =
            replaced.iter().map(|(old, new)| json!({ "instance": old, "by": new })).collect();
        let mut body = match &self.changes {
            Some(changes) => json!({ "changes": changes }),
            None => json!({ "instances": pairs.len(), "replaced": pairs }),
        };
        let not_opened = self.not_opened.borrow();
        let ports = not_opened.iter().map(|(port, why)| json!({ "port": port, "why": why }));
        let instances = failed.iter().map(|(old, why)| json!({ "instance": old, "why": why }));
        let all: Vec<Value> = ports.chain(instances).collect();
        let ok = all.is_empty();
        if !ok {
            body["failed"] = all.into();
        }
        (body, ok)
    }
}

impl Server {
    /// Somebody who had a part in an order lets go of it.
    pub(super) fn let_go_of_order(&mut self, order: Option<Rc<Order>>) {
        if let Some(order) = order.and_then(Rc::into_inner) {
            let (body, ok) = order.body();
            self.tell(order.client, body, ok);
        }
    }

    /// A successor has been started.
    pub(super) fn expect_successor(
        &mut self,
        old: InstanceId,
        start_token: String,
        command: Option<(Vec<String>, String)>,
        order: Option<Rc<Order>>,
    ) {
        let service = self.instances.get(&old).map_or(0, super::instances::Instance::service);
        self.replacements.push(Replacement {
            old,
            service,
            start_token,
            new: None,
            order,
            step: Step::Starting,
            until: Instant::now() + ATTACH_TIME,
            early: false,
            command,
        });
    }

    /// Whether an instance is being replaced already.
    pub(super) fn is_being_replaced(&self, id: InstanceId) -> bool {
        self.replacements.iter().any(|r| r.old == id || r.new == Some(id))
    }

    /// Whether an instance is to take another's place, which has a time limit of its own until it is ready.
    pub(super) fn is_successor(&self, id: InstanceId) -> bool {
        self.replacements.iter().any(|r| r.new == Some(id))
    }

    /// Whether a successor has the flows already that an instance would get.
    pub(super) fn has_ready_successor(&self, id: InstanceId) -> bool {
        self.replacements.iter().any(|r| r.old == id && r.step != Step::Starting)
    }

    /// Whose successor the process with a start token is.
    pub(super) fn predecessor(&self, start_token: &str) -> Option<InstanceId> {
        self.replacements.iter().find(|r| r.start_token == start_token).map(|r| r.old)
    }

    /// A successor has attached, and sets itself up.
    pub(super) fn successor_attached(&mut self, old: InstanceId, new: InstanceId) {
        let until = Instant::now() + self.set_up_time();
        if let Some(replacement) = self.replacements.iter_mut().find(|r| r.old == old) {
            replacement.new = Some(new);
            replacement.until = until;
        }
    }

    /// A successor is ready: its predecessor's slots become its own.
    pub(super) fn successor_ready(&mut self, old: InstanceId, new: InstanceId) {
        let Some(replacement) = self.replacements.iter_mut().find(|r| r.old == old) else { return };
        let Some(instance) = self.instances.get(&old) else { return };
        replacement.step = Step::SetUp;
        replacement.early = instance.life.state() == State::Starting;
        let (early, stands_by) = (replacement.early, instance.role == Role::Standby);
        let slots = self.services.get_mut(&replacement.service);
        match slots.filter(|slots| slots.owners().contains(&old)) {
            Some(slots) => slots.replace(old, new),
            None if stands_by => {}
            // What the old one does not have, or has no more.
            None => self.services.entry(replacement.service).or_default().add(new),
        }
        if !early {
            self.works_off(old, "operator", "it is replaced");
            self.go(old, State::Draining, "operator", "it is replaced");
        }
    }

    /// A change of routes begins: those that have attached are in it. Returns whether there are any.
    pub(super) fn successors_join_change(&mut self) -> bool {
        let mut any = false;
        for replacement in self.replacements.iter_mut().filter(|r| r.step == Step::SetUp) {
            replacement.step = Step::Moving;
            any = true;
        }
        any
    }

    /// The gate is closed and nothing is inside: states travel now. True if there is nothing to wait for.
    pub(super) fn hand_over_states(&mut self) -> bool {
        let hands_over = |server: &Self, id: Option<InstanceId>| {
            id.and_then(|id| server.instances.get(&id)).is_some_and(|i| i.hello.hands_over)
        };
        let until = Instant::now() + self.hand_over_time();
        let mut asked = Vec::new();
        for index in 0..self.replacements.len() {
            let (old, new, step) =
                (self.replacements[index].old, self.replacements[index].new, self.replacements[index].step);
            // The flows of one that attached since the change began go on as before.
            if step != Step::Moving || !self.is_there(new) {
                continue;
            }
            let fresh = self.replacements[index].order.as_ref().is_some_and(|order| order.fresh);
            let fresh = fresh || self.replacements[index].early;
            let both = !fresh && hands_over(self, Some(old)) && hands_over(self, new);
            let replacement = &mut self.replacements[index];
            replacement.step = if both { Step::Asked } else { Step::Ready };
            replacement.until = until;
            if both {
                asked.push(old);
            }
        }
        for old in asked {
            self.send_to(old, Answer::HandOver, Vec::new());
        }
        self.all_handed_over()
    }

    /// Whether a successor is there, and has not died a moment ago.
    fn is_there(&self, new: Option<InstanceId>) -> bool {
        new.is_some_and(|new| self.instances.contains_key(&new))
    }

    fn hand_over_time(&self) -> Duration {
        self.options.hang_timeout.map_or(LONGEST_HAND_OVER, |hung| hung.min(LONGEST_HAND_OVER))
    }

    fn all_handed_over(&self) -> bool {
        !self.replacements.iter().any(|r| matches!(r.step, Step::Asked | Step::Given))
    }

    fn go_on_when_handed_over(&mut self) {
        if self.all_handed_over() {
            self.states_handed_over();
        }
    }

    /// An instance hands over its state; none if it has none.
    pub(super) fn state_came(&mut self, old: InstanceId, file: Option<OwnedFd>) {
        let until = Instant::now() + self.hand_over_time();
        let Some(replacement) = self.replacements.iter_mut().find(|r| r.old == old && r.step == Step::Asked)
        else {
            return;
        };
        match (file, replacement.new) {
            (Some(file), Some(new)) => {
                replacement.step = Step::Given;
                replacement.until = until;
                self.send_to(new, Answer::TakeOver, vec![Enclosure::File(file)]);
            }
            _ => replacement.step = Step::Ready,
        }
        self.go_on_when_handed_over();
    }

    /// A successor has its predecessor's state, or could not read it.
    pub(super) fn took_over(&mut self, new: InstanceId, error: Option<String>) {
        let given = |r: &Replacement| r.new == Some(new) && r.step == Step::Given;
        let Some(index) = self.replacements.iter().position(given) else { return };
        match error {
            None => self.replacements[index].step = Step::Ready,
            Some(error) => {
                let why = format!(
                    "its successor cannot use its state: {error} (nf replace --fresh does without it)"
                );
                self.give_up_replacing(index, &why);
            }
        }
        self.go_on_when_handed_over();
    }

    /// The old instance goes on; the successor is killed.
    fn give_up_replacing(&mut self, index: usize, why: &str) {
        let replacement = self.replacements.remove(index);
        let old = replacement.old;
        log::warn!("instance {old} is not replaced: {why}");
        if let Some(new) = replacement.new {
            self.give_back_slots(&replacement, new);
            if let Some(instance) = self.instances.get_mut(&new) {
                instance.role = Role::Standby;
            }
            self.kill(new, format!("it could not take the place of instance {old}: {why}"));
        }
        self.supervisor_gives_up(&replacement.start_token);
        if matches!(replacement.step, Step::Asked | Step::Given | Step::Ready) {
            // It was told to take no more packets.
            self.send_to(old, Answer::Resume, Vec::new());
        }
        if replacement.early {
            self.takes_its_place(old);
        } else if replacement.new.is_some() && replacement.step != Step::Starting {
            // Without a successor that was ready it has kept its flows, if an operator has not taken them.
            self.go(old, State::Running, "manager", why);
        }
        let (service, pid) = self.instances.get(&old).map_or((0, None), |i| (i.service(), i.pid_number()));
        self.events
            .record(Event::new(Kind::ReplaceFailed).instance(old, service, pid).by("manager").why(why));
        self.routes_changed();
        if let Some(order) = &replacement.order {
            order.failed(old, why);
        }
        self.let_go_of_order(replacement.order);
    }

    /// What a successor was to have is its predecessor's again, also in the change that is under way.
    fn give_back_slots(&mut self, replacement: &Replacement, new: InstanceId) {
        let (old, service) = (replacement.old, replacement.service);
        if replacement.early {
            return self.take_slots(service, new);
        }
        if !self.instances.contains_key(&old) {
            return;
        }
        if let Some(slots) = self.services.get_mut(&service) {
            slots.replace(new, old);
        }
        self.changes.stays(service, old, new);
    }

    /// A successor is gone before its predecessor is, which goes on: its slots are no legacy for others.
    pub(super) fn predecessor_inherits(&mut self, gone: InstanceId) {
        if let Some(index) = self.replacements.iter().position(|r| r.new == Some(gone)) {
            let replacement = self.replacements.swap_remove(index);
            self.give_back_slots(&replacement, gone);
            self.replacements.push(replacement);
        }
    }

    /// An instance is gone that may have had a part in a replacement.
    pub(super) fn replacement_lost(&mut self, id: InstanceId, how: &str) {
        if let Some(index) = self.replacements.iter().position(|r| r.new == Some(id)) {
            self.give_up_replacing(index, &format!("its successor is gone: {how}"));
        } else if let Some(index) = self.replacements.iter().position(|r| r.old == id) {
            // It has left in order, or died on the way: either way the successor has its place.
            let mut replacement = self.replacements.remove(index);
            let Some(new) = replacement.new.filter(|_| replacement.step != Step::Starting) else {
                return self.left_before_its_successor_came(replacement);
            };
            if let Some(command) = replacement.command.take() {
                self.supervisor_learns(replacement.service, command);
            }
            self.supervisor_substitutes(id, &replacement.start_token);
            let (service, pid) =
                self.instances.get(&new).map_or((0, None), |i| (i.service(), i.pid_number()));
            let why = format!("it took the place of instance {id}");
            self.events
                .record(Event::new(Kind::Replaced).instance(new, service, pid).by("operator").why(why));
            if let Some(order) = &replacement.order {
                order.replaced.borrow_mut().push((id, new));
            }
            self.let_go_of_order(replacement.order);
        } else {
            return;
        }
        self.go_on_when_handed_over();
    }

    /// A service is not wanted any more, and so are successors that have not attached.
    pub(super) fn forget_successors_of(&mut self, service: ServiceId) {
        let starting = |r: &Replacement| r.service == service && r.step == Step::Starting;
        while let Some(index) = self.replacements.iter().position(starting) {
            let replacement = self.replacements.remove(index);
            self.supervisor_gives_up(&replacement.start_token);
            if let Some(new) = replacement.new {
                self.kill(new, "its service is gone from the plan".into());
            }
            if let Some(order) = &replacement.order {
                order.failed(replacement.old, "the service is gone from the plan");
            }
            self.let_go_of_order(replacement.order);
        }
    }

    /// An instance is gone before its successor has attached, which has its place if that is still wanted.
    fn left_before_its_successor_came(&mut self, replacement: Replacement) {
        let service = replacement.service;
        let plan = self.plan.services.get(&service).filter(|s| !s.command.is_empty());
        let why = if plan.is_some() && self.supervisor.has_enough(plan, service) {
            self.supervisor_gives_up(&replacement.start_token);
            "it left before its successor had attached, and fewer are wanted now"
        } else {
            if plan.is_some() {
                self.supervisor_substitutes(replacement.old, &replacement.start_token);
            }
            "it died before its successor had attached, which goes on in its place"
        };
        if let Some(order) = &replacement.order {
            order.failed(replacement.old, why);
        }
        self.let_go_of_order(replacement.order);
    }

    /// A process that was to become a successor has ended before it attached.
    pub(super) fn successor_ended(&mut self, start_token: &str, how: &str) {
        let starting = |r: &Replacement| r.start_token == start_token && r.step == Step::Starting;
        if let Some(index) = self.replacements.iter().position(starting) {
            self.give_up_replacing(index, &format!("its successor ended at once: {how}"));
        }
    }

    /// Gives up on replacements that take too long.
    pub(super) fn check_replacements(&mut self, now: Instant) {
        let late = |r: &Replacement| now >= r.until && r.step.has_deadline();
        while let Some(index) = self.replacements.iter().position(late) {
            let why = match self.replacements[index].step {
                Step::Starting if self.replacements[index].new.is_some() => {
                    &format!("its successor {}", self.not_set_up())
                }
                Step::Starting => "its successor did not attach in time",
                Step::Asked => "it did not hand over its state in time",
                _ => "its successor did not read its state in time",
            };
            self.give_up_replacing(index, why);
            self.go_on_when_handed_over();
        }
    }

    /// When the first of them is too late.
    pub(super) fn replacement_deadline(&self) -> Option<Instant> {
        self.replacements.iter().filter(|r| r.step.has_deadline()).map(|r| r.until).min()
    }

    /// An instance leaves, or its process has ended, before all is said and done: if another replaces it, that one counts in
    /// its place from now on, or a third would be started.
    pub(super) fn predecessor_ends(&mut self, old: InstanceId) {
        if let Some(replacement) = self.replacements.iter().find(|r| r.old == old) {
            let start_token = replacement.start_token.clone();
            self.supervisor_substitutes(old, &start_token);
        }
    }

    /// From now on successors count in place of those that they replace.
    pub(super) fn successors_take_over(&mut self) {
        for index in 0..self.replacements.len() {
            if self.replacements[index].step != Step::Ready || !self.is_there(self.replacements[index].new) {
                continue;
            }
            let replacement = &mut self.replacements[index];
            let (old, service) = (replacement.old, replacement.service);
            let (start_token, early) = (replacement.start_token.clone(), replacement.early);
            if let Some(command) = replacement.command.take() {
                self.supervisor_learns(service, command);
            }
            self.supervisor_substitutes(old, &start_token);
            if early {
                self.go(old, State::Draining, "operator", "it is replaced");
            }
        }
    }

    /// Pairs of old instance and successor that change places now.
    pub(super) fn replaced_by(&self) -> Vec<(InstanceId, InstanceId)> {
        let ready = self.replacements.iter().filter(|r| r.step == Step::Ready && self.is_there(r.new));
        ready.filter_map(|r| Some((r.old, r.new?))).collect()
    }
}
