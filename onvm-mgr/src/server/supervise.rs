//! The server's side of the processes that the manager starts.

use std::collections::BTreeMap;
use std::time::Instant;

use onvm_lib::pool::Note;
use onvm_lib::protocol::{InstanceId, ServiceId, Target};
use serde_json::{Value, json};

use super::Server;
use super::instances::{Instance, Role};
use super::phase::Phase;
use crate::events::{Event, Kind};
use crate::supervisor::Log;

impl Server {
    /// Starts what is missing; returns why it could not, for services of which that is so.
    pub(super) fn start_missing(&mut self, now: Instant) -> BTreeMap<ServiceId, String> {
        self.supervisor.check_logs(now);
        // What cannot be started is tried again later.
        let mut failed = BTreeMap::new();
        if !matches!(self.phase, Phase::Waiting | Phase::Running) {
            return failed;
        }
        // Each round starts one of each service that lacks some.
        loop {
            let mut due = self.supervisor.due(&self.plan.services, now);
            due.retain(|service| !failed.contains_key(service));
            if due.is_empty() {
                return failed;
            }
            for service in due {
                if let Err(error) = self.start_process(service, "manager") {
                    failed.insert(service, error);
                }
            }
        }
    }

    /// Starts a process of a service.
    ///
    /// # Errors
    /// Why it could not be started.
    fn start_process(&mut self, service: ServiceId, by: &'static str) -> Result<(), String> {
        let Some(plan) = self.plan.services.get(&service).cloned() else {
            return Err("it is in no plan".into());
        };
        match self.supervisor.start(service, &plan, false) {
            Ok(started) => {
                log::info!("service {service}: {} started, pid {}", plan.command[0], started.pid);
                let event = Event::new(Kind::Start).service(service).pid(started.pid).by(by);
                self.events.record(event.why(plan.command.join(" ")));
                Ok(())
            }
            Err(error) => {
                log::error!("service {service}: {error}");
                self.events.record(Event::new(Kind::StartFailed).service(service).by(by).why(error.as_str()));
                Err(error)
            }
        }
    }

    /// A child of ours has ended, perhaps.
    pub(super) fn reap_children(&mut self) {
        for ended in self.supervisor.reap(&self.plan.services) {
            if ended.instance.is_none() {
                log::warn!(
                    "service {}: pid {} ended before it attached: {}",
                    ended.service,
                    ended.pid,
                    ended.how
                );
                let event = Event::new(Kind::StartFailed).service(ended.service).pid(ended.pid).by("kernel");
                self.events.record(event.why(ended.how.as_str()));
                self.successor_ended(&ended.token, &ended.how);
            }
            if let Some(instance) = ended.instance {
                self.predecessor_ends(instance);
                self.ends.insert(instance, ended.how);
            }
            if ended.gave_up {
                log::error!("service {}: its command died too often and is not started again", ended.service);
                let why = "its command died too often in a row; nf start tries again";
                self.events.record(Event::new(Kind::GaveUp).service(ended.service).by("manager").why(why));
                self.standby_steps_in(ended.service);
            }
        }
        // An end that nobody asks for any more.
        while self.ends.len() > 256 {
            self.ends.pop_first();
        }
    }

    /// How an instance's process ended, in words.
    pub(super) fn how_it_ended(&mut self, id: InstanceId, instance: &Instance) -> String {
        self.supervisor.instance_gone(id);
        self.reap_children();
        self.ends.remove(&id).unwrap_or_else(|| {
            if instance.leaving {
                "it said good-bye".into()
            } else {
                "its process ended without a word".into()
            }
        })
    }

    /// Instances of a service that shall share its flows.
    pub(super) fn shares_wanted(&self, service: ServiceId) -> u32 {
        self.plan.services.get(&service).map_or(u32::MAX, |s| s.instances)
    }

    /// An instance is to leave for good.
    pub(super) fn supervisor_lets_go(&mut self, id: InstanceId) {
        self.supervisor.let_go(id);
        let Some(instance) = self.instances.get(&id) else { return };
        // Fewer are wanted from now on, or the next one would be started at once.
        let (service, role) = (instance.service(), instance.role);
        if let Some(plan) = self.plan.services.get_mut(&service).filter(|s| !s.command.is_empty()) {
            match role {
                Role::Standby => plan.standby = plan.standby.saturating_sub(1),
                _ => plan.instances = plan.instances.saturating_sub(1),
            }
        }
    }

    /// Has so many instances of a service share its flows; those that are too many are drained. Returns why those that are
    /// missing could not be started, if they could not.
    ///
    /// # Errors
    /// In words for the user.
    pub(super) fn supervisor_scales(
        &mut self,
        service: ServiceId,
        instances: u32,
        by: &'static str,
    ) -> Result<Option<String>, String> {
        let plan = self.plan.services.get_mut(&service).filter(|s| !s.command.is_empty());
        let Some(plan) = plan else {
            return Err(format!(
                "the manager has no command for service {service}: its instances are started elsewhere"
            ));
        };
        if instances > crate::plan::MAX_INSTANCES {
            return Err(format!("a service has at most {} instances", crate::plan::MAX_INSTANCES));
        }
        let before = std::mem::replace(&mut plan.instances, instances);
        if before != instances {
            let why = format!("{instances} instances instead of {before}");
            self.events.record(Event::new(Kind::Scaled).service(service).by(by).why(why));
        }
        self.supervisor.try_again(service);
        let shares = self.shares(service);
        let too_many = shares.len().saturating_sub(instances as usize);
        for id in shares.into_iter().take(too_many) {
            self.supervisor.let_go(id);
            self.let_go_of_share(id, by, "fewer instances are wanted");
        }
        Ok(self.start_missing(Instant::now()).remove(&service))
    }

    /// Starts one more instance of a service.
    pub(super) fn start_one(&mut self, client: u64, service: ServiceId) {
        match self.try_to_start_one(service) {
            Ok(started) => self.tell(client, json!({ "instances": started }), true),
            Err(error) => self.tell(client, json!({ "error": error }), false),
        }
    }

    /// Starts what a service lacks (it was given up, or waits for its next start), or else one more; how many were started.
    fn try_to_start_one(&mut self, service: ServiceId) -> Result<u32, String> {
        let plan = self.plan.services.get(&service);
        let wanted = plan.map_or(0, |s| s.instances);
        // One that sets itself up is lacking no more.
        let lacks = !self.supervisor.has_enough(plan, service);
        if plan.is_some_and(|s| !s.command.is_empty()) {
            if !matches!(self.phase, Phase::Waiting | Phase::Running) {
                return Err("the manager is stopping, and starts nothing".into());
            }
            if self.supervisor.waits_for_old_ones(Instant::now()) {
                return Err(
                    "NFs of the manager that was here before may still come back: try again in a second"
                        .into(),
                );
            }
        }
        let before = self.supervisor.running(service);
        let target = if lacks { wanted } else { wanted.saturating_add(1) };
        let failed = self.supervisor_scales(service, target, "operator")?;
        match (self.supervisor.running(service).saturating_sub(before), failed) {
            (0, Some(error)) => Err(format!("nothing was started, and it will be tried again: {error}")),
            (0, None) => Err("nothing was started".into()),
            (started, _) => Ok(started),
        }
    }

    /// Starts a successor of an instance; returns its start token.
    ///
    /// # Errors
    /// In words for the user.
    pub(super) fn supervisor_starts_successor(
        &mut self,
        old: InstanceId,
        command: Option<(Vec<String>, String)>,
    ) -> Result<String, String> {
        let Some(instance) = self.instances.get(&old) else {
            return Err(format!("there is no instance {old}"));
        };
        let service = instance.service();
        let mut plan = self.plan.services.get(&service).cloned().unwrap_or_default();
        if plan.name.is_empty() {
            plan.name.clone_from(&instance.hello.name);
        }
        plan.destination = plan.destination.or(instance.hello.destination);
        if let Some((command, directory)) = command {
            plan.command = command;
            plan.directory = directory;
        }
        if plan.command.is_empty() {
            return Err(format!(
                "the manager has no command for service {service}: use nf replace {service} -- COMMAND"
            ));
        }
        let started = self.supervisor.start(service, &plan, true)?;
        let event = Event::new(Kind::Start).service(service).pid(started.pid).by("operator");
        self.events.record(event.why(format!("to replace instance {old}: {}", plan.command.join(" "))));
        Ok(started.token)
    }

    /// A successor that was started with another command has its place: the service is started by that from now on.
    pub(super) fn supervisor_learns(
        &mut self,
        service: ServiceId,
        (command, directory): (Vec<String>, String),
    ) {
        let known = self.plan.services.get_mut(&service);
        if let Some(known) = known.filter(|s| !s.command.is_empty()) {
            (known.command, known.directory) = (command, directory);
        }
    }

    /// A successor takes its predecessor's place now.
    pub(super) fn supervisor_substitutes(&mut self, old: InstanceId, start_token: &str) {
        self.supervisor.let_go(old);
        self.supervisor.substitute(start_token);
    }

    /// A successor that has not attached is not wanted any more.
    pub(super) fn supervisor_gives_up(&mut self, start_token: &str) {
        self.supervisor.end_unattached(Some(start_token));
    }

    /// Where the output of instances goes.
    pub(super) fn tell_logs(&mut self, client: u64, target: Target) {
        let meant = |log: &Log| match target {
            Target::Service(id) => id == log.service,
            Target::Instance(id) => log.instance == Some(id),
        };
        let mut logs: Vec<Log> = self.supervisor.logs().filter(meant).collect();
        // What a service wrote last is of interest when nothing of it runs.
        let running = logs.iter().filter(|log| !log.ended).count();
        logs.truncate(running.max(1));
        if logs.is_empty() {
            if self.targets(target).is_empty() {
                return self.tell_count(client, target, 0);
            }
            let error = "what is started from a shell writes to that shell, and not to a log of the manager";
            return self.tell(client, json!({ "error": error }), false);
        }
        let logs: Vec<Value> = logs
            .into_iter()
            .map(|log| {
                json!({
                    "service": log.service,
                    "instance": log.instance,
                    "token": log.token,
                    "path": log.path,
                    "ended": log.ended,
                })
            })
            .collect();
        self.tell(client, json!({ "logs": logs }), true);
    }

    /// Keeps a packet that killed two instances.
    pub(super) fn quarantine(&mut self, instance: InstanceId, frame: &[u8], note: Note) {
        let path = self.supervisor.log_directory().join("quarantine.pcapng");
        let kept = self.quarantine.keep(&path, frame, note, instance);
        let why = match kept {
            Ok(()) => format!("{} bytes, kept in {}", frame.len(), path.display()),
            Err(error) => format!("{} bytes, not kept: {error}", frame.len()),
        };
        log::error!("a packet killed two instances, the last of them {instance}: {why}");
        self.events.record(Event::new(Kind::Quarantined).by("manager").why(why));
    }
}
