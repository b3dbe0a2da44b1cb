//! Another plan for a running manager: only what is different is touched, and routes change as one snapshot.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use onvm_lib::protocol::{InstanceId, ServiceId};
use serde_json::{Value, json};

use super::Server;
use super::instances::{Instance, Role};
use super::ports::NotOpened;
use super::replace::Order;
use crate::events::{Event, Kind};
use crate::life::State;
use crate::plan::difference::{Change, difference};
use crate::plan::{Plan, Service};

impl Server {
    /// Puts another plan in force: first its ports, then the rest.
    pub(super) fn apply(&mut self, client: u64, body: Value, files: Vec<OwnedFd>) {
        match Plan::received(body, files) {
            Ok(plan) => {
                let changes = difference(&self.plan, &plan);
                self.change_ports(client, plan, changes);
            }
            Err(error) => self.tell(client, json!({ "error": error }), false),
        }
    }

    /// The ports are those of the plan, except for those that could not be opened; the rest follows.
    pub(super) fn apply_with_ports(
        &mut self,
        client: u64,
        mut plan: Plan,
        changes: &[Change],
        failed: Vec<NotOpened>,
    ) {
        // Where the manager chooses the number of instances, it goes on from those that there are.
        for (id, service) in &mut plan.services {
            if let (Some(scale), Some(now)) = (service.scale, self.plan.services.get(id)) {
                service.instances = now.instances.max(scale.min).min(scale.max);
            }
        }
        let old = std::mem::replace(&mut self.plan, plan);
        self.events
            .record(Event::new(Kind::PlanApplied).by("operator").why(format!("{} changes", changes.len())));
        let order = Rc::new(Order::of_plan(client, json!(changes)));
        failed.into_iter().for_each(|port| order.port_failed(port));
        let services: Vec<ServiceId> = old.services.keys().copied().collect();
        for service in services {
            self.follow_plan_of(service, &old.services[&service], &order);
        }
        self.routes_changed();
        let _ = self.start_missing(std::time::Instant::now());
        if Rc::strong_count(&order) > 1 || order.has_failed() {
            // Told when its last instance has been replaced, or has not.
            return self.let_go_of_order(Some(order));
        }
        self.tell_when_in_force(client, json!({ "changes": changes }));
    }

    /// Touches the instances of a service that the plan has changed.
    fn follow_plan_of(&mut self, service: ServiceId, before: &Service, order: &Rc<Order>) {
        let Some(now) = self.plan.services.get(&service).cloned() else {
            // It is gone: its instances that we started leave.
            self.forget_successors_of(service);
            for id in self.supervised(service) {
                self.supervisor.let_go(id);
                self.let_go_of_share(id, "plan", "the service is gone from the plan");
            }
            return;
        };
        // More are started by and by; those that are too many leave, and are not replaced before.
        let _ = self.supervisor_scales(service, now.instances, "plan");
        self.follow_standby(service, now.standby);
        if now.starts_like(before) || now.command.is_empty() {
            return;
        }
        for id in self.supervised(service) {
            let leaves = self.instances.get(&id).is_none_or(|i| i.life.state() == State::Draining);
            if leaves || self.is_being_replaced(id) {
                continue;
            }
            match self.supervisor_starts_successor(id, None) {
                Ok(start_token) => self.expect_successor(id, start_token, None, Some(Rc::clone(order))),
                Err(error) => order.failed(id, &error),
            }
        }
    }

    /// Those who stand by and are too many get a share if shares are wanting, or else leave.
    fn follow_standby(&mut self, service: ServiceId, wanted: u32) {
        let stands_by = |i: &Instance| {
            i.service() == service && i.role == Role::Standby && i.life.state() == State::Ready
        };
        let standby: Vec<InstanceId> = self.supervised(service);
        let standby = standby
            .into_iter()
            .filter(|id| self.instances.get(id).is_some_and(stands_by) && !self.is_being_replaced(*id));
        let too_many: Vec<InstanceId> = standby.skip(wanted as usize).collect();
        for id in too_many {
            if self.shares(service).len() < self.shares_wanted(service) as usize {
                self.services.entry(service).or_default().add(id);
                self.takes_share(id, "plan", "it stood by");
            } else {
                self.supervisor.let_go(id);
                self.let_go_of_share(id, "plan", "fewer are to stand by");
            }
        }
    }

    /// Instances of a service that the manager started.
    fn supervised(&self, service: ServiceId) -> Vec<InstanceId> {
        self.supervisor.instances().filter(|(of, _)| *of == service).map(|(_, instance)| instance).collect()
    }
}
