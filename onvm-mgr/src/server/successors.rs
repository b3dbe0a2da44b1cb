//! Who takes over from whom: chosen beforehand, so that the worker need not ask (`worker/succession.rs`).

use std::collections::BTreeSet;

use onvm_lib::protocol::{InstanceId, ServiceId};
use rustix::process::Pid;

use super::Server;
use super::instances::{Instance, Role};
use crate::life::State;
use crate::worker::{Command, Successor};

impl Server {
    /// Who of a service stands by for one that dies, when so many have shares without that one.
    pub(super) fn stands_by(&self, service: ServiceId, others: usize) -> Option<InstanceId> {
        // Of one that was asked to leave fewer are wanted now: its siblings may be enough.
        if others >= self.shares_wanted(service) as usize {
            return None;
        }
        let stays = |i: &Instance| !i.leaving && i.killed_for.is_none();
        let stands_by = |i: &Instance| {
            i.service() == service && i.role == Role::Standby && i.life.state() == State::Ready && stays(i)
        };
        self.instances.iter().find(|(_, i)| stands_by(i)).map(|(heir, _)| *heir)
    }

    /// Tells the worker who takes over from whom, if that is not what it knows.
    pub(super) fn name_successors(&mut self) {
        let mut named = Vec::new();
        let with_standby: BTreeSet<ServiceId> =
            self.instances.values().filter(|i| i.role == Role::Standby).map(Instance::service).collect();
        for service in with_standby {
            let owners = self.shares(service);
            let Some(successor) = self.stands_by(service, owners.len().saturating_sub(1)) else { continue };
            // Whom the operator kills is to be reaped as such; whose predecessor is still there is followed by that one; and who
            // cannot be killed may live on in part.
            let may_crash = |i: &Instance| !i.leaving && !i.is_killed_by_operator() && i.pidfd.is_some();
            let owners = owners
                .into_iter()
                .filter(|id| self.instances.get(id).is_some_and(may_crash) && !self.is_being_replaced(*id));
            let moves = self.process_to_move(successor);
            named.extend(owners.map(|of| Successor { of, instance: successor, moves }));
        }
        if self.successors != named {
            self.worker.give(Command::Successors(named.clone()));
            let before = std::mem::replace(&mut self.successors, named);
            // One who watches over an NF, and wakes up when it dies, only takes the processor from who takes over.
            let names = |all: &[Successor], id| all.iter().any(|s| s.of == id);
            for Successor { of, .. } in self.successors.iter().filter(|s| !names(&before, s.of)) {
                self.watchman.forget(*of);
            }
            for Successor { of, .. } in before.iter().filter(|s| !names(&self.successors, s.of)) {
                if let Some(instance) = self.instances.get(of) {
                    self.watchman.watch(*of, instance.page.clone());
                }
            }
        }
    }

    /// The process of a successor that was given a processor which it shares. Where none are given the kernel chooses.
    fn process_to_move(&self, successor: InstanceId) -> Option<Pid> {
        let instance = self.instances.get(&successor)?;
        let given = instance.core.is_some() && instance.hello.core.is_none();
        instance.pid.filter(|_| given && self.cores.is_shared(instance.core, self.instances.len()))
    }
}
