//! What operators do to instances: pause, resume, drain, kill, and let leave.

use std::rc::Rc;

use onvm_lib::protocol::{Answer, InstanceId, ServiceId, Target};
use serde_json::json;

use super::Server;
use super::instances::Role;
use super::replace::Order;
use crate::life::State;

impl Server {
    /// Lets instances take no packets; those wait in their rings.
    pub(super) fn pause(&mut self, client: u64, target: Target) {
        let ids = self.targets(target);
        let state = |id: &InstanceId| self.instances.get(id).map(|i| i.life.state());
        let running: Vec<InstanceId> =
            ids.iter().copied().filter(|id| state(id) == Some(State::Running)).collect();
        // Who stands by or leaves has nothing that it could stop taking.
        let paused = ids.iter().filter(|id| state(id) == Some(State::Paused)).count();
        if let Some(state) = ids.first().and_then(state)
            && running.len() + paused == 0
        {
            let error = match target {
                Target::Service(service) => format!("service {service} has no instance that runs"),
                Target::Instance(id) => format!("instance {id} is {}, and not running", state.name()),
            };
            return self.tell(client, json!({ "error": error }), false);
        }
        for id in &running {
            self.send_to(*id, Answer::Pause, Vec::new());
            self.go(*id, State::Paused, "operator", "nf pause");
        }
        self.tell_count(client, target, running.len() + paused);
    }

    /// Lets paused instances go on.
    pub(super) fn resume(&mut self, client: u64, target: Target) {
        let ids = self.targets(target);
        for id in &ids {
            self.send_to(*id, Answer::Resume, Vec::new());
            let paused = self.instances.get(id).is_some_and(|i| i.life.state() == State::Paused);
            if paused {
                self.go(*id, State::Running, "operator", "nf resume");
            }
        }
        self.tell_count(client, target, ids.len());
    }

    /// Takes the flows from instances; when nothing of theirs is inside any more, they are asked to leave.
    pub(super) fn drain_instances(&mut self, client: u64, target: Target) {
        let ids = self.targets(target);
        for id in &ids {
            self.drain_instance(*id, "operator", "nf drain");
        }
        self.tell_count(client, target, ids.len());
    }

    pub(super) fn drain_instance(&mut self, id: InstanceId, by: &'static str, why: &str) {
        self.supervisor_lets_go(id);
        self.let_go_of_share(id, by, why);
    }

    /// An instance that was paused works off what waits for it.
    pub(super) fn works_off(&mut self, id: InstanceId, by: &'static str, why: &str) {
        if self.instances.get(&id).is_some_and(|i| i.life.state() == State::Paused) {
            self.send_to(id, Answer::Resume, Vec::new());
            self.go(id, State::Running, by, why);
        }
    }

    /// Takes an instance's share from it; it leaves when nothing of it is inside any more.
    pub(super) fn let_go_of_share(&mut self, id: InstanceId, by: &'static str, why: &str) {
        self.works_off(id, by, why);
        self.go(id, State::Draining, by, why);
        if let Some(service) = self.instances.get(&id).map(super::instances::Instance::service) {
            self.take_slots(service, id);
        }
        self.routes_changed();
    }

    /// Takes an instance's slots; they go to its siblings, if it has any.
    pub(super) fn take_slots(&mut self, service: ServiceId, id: InstanceId) {
        if let Some(slots) = self.services.get_mut(&service) {
            slots.remove(id);
            if slots.owners().is_empty() {
                self.services.remove(&service);
            }
        }
    }

    /// Kills instances at once.
    pub(super) fn kill_instances(&mut self, client: u64, target: Target) {
        let ids = self.targets(target);
        for id in &ids {
            self.kill_by("operator", *id, "nf kill".into());
        }
        self.tell_count(client, target, ids.len());
    }

    /// Asks instances to leave at once: what waits for them goes to their siblings, or waits for the next.
    pub(super) fn stop_instances(&mut self, client: u64, target: Target) {
        let ids = self.targets(target);
        for id in &ids {
            self.supervisor_lets_go(*id);
            self.go(*id, State::Draining, "operator", "nf stop");
            self.ask_to_leave(*id);
        }
        self.tell_count(client, target, ids.len());
    }

    /// Asks those to leave whose flows have all been taken.
    pub(super) fn let_drained_leave(&mut self) {
        let owns = |id: &InstanceId| self.changes.in_force.values().any(|owners| owners.contains(id));
        let done: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(id, i)| i.life.state() == State::Draining && i.kill_at.is_none() && !owns(id))
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            self.predecessor_ends(id);
            self.ask_to_leave(id);
        }
    }

    /// Has so many instances of a service share its flows.
    pub(super) fn scale(&mut self, client: u64, service: ServiceId, instances: u32) {
        match self.supervisor_scales(service, instances, "operator") {
            Ok(_) => self.tell(client, json!({ "instances": instances }), true),
            Err(error) => self.tell(client, json!({ "error": error }), false),
        }
    }

    /// Instances of a service that have a share, the youngest first.
    pub(super) fn shares(&self, service: ServiceId) -> Vec<InstanceId> {
        let has = |i: &super::instances::Instance| {
            i.service() == service
                && i.role == Role::Share
                && matches!(i.life.state(), State::Running | State::Paused)
        };
        self.instances.iter().rev().filter(|(_, i)| has(i)).map(|(id, _)| *id).collect()
    }

    /// Replaces instances by new ones of the same command.
    pub(super) fn restart(&mut self, client: u64, target: Target) {
        self.replace_instances(client, target, None, false);
    }

    /// Replaces instances by new ones of another command, or of the one that the plan knows.
    pub(super) fn replace_instances(
        &mut self,
        client: u64,
        target: Target,
        command: Option<(Vec<String>, String)>,
        fresh: bool,
    ) {
        let ids: Vec<InstanceId> =
            self.targets(target).into_iter().filter(|id| !self.is_being_replaced(*id)).collect();
        if ids.is_empty() {
            if let Some(id) = self.targets(target).first() {
                let error = format!("instance {id} is being replaced already");
                return self.tell(client, json!({ "error": error }), false);
            }
            return self.tell_count(client, target, 0);
        }
        let order = Order::new(client, fresh);
        for id in ids {
            match self.supervisor_starts_successor(id, command.clone()) {
                Ok(start_token) => {
                    self.expect_successor(id, start_token, command.clone(), Some(Rc::clone(&order)));
                }
                Err(error) => order.failed(id, &error),
            }
        }
        self.let_go_of_order(Some(order));
    }
}
