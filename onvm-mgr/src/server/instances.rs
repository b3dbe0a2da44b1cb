//! What the control thread knows of an instance, and its end.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use onvm_lib::node::NodePage;
use onvm_lib::protocol::{Answer, Error, Hello, InstanceId, Message, Route, ServiceId, Target};
use onvm_lib::ring::Ring;
use rustix::event::epoll;
use rustix::process::{Pid, Signal};

use super::Server;
use crate::worker::Command;

/// How long a process may live on after its connection has ended.
const GRACE: Duration = Duration::from_secs(2);
/// Instances that have gone and are remembered.
const MAX_DEPARTED: usize = 64;
/// Messages that wait for an NF which does not read its connection.
const MAX_UNREAD: usize = 1000;

/// Unread messages beyond which further ones from NFs and operators are not passed on.
const MAX_UNREAD_MESSAGES: usize = 100;

/// One running copy of a service.
pub(super) struct Instance {
    pub(super) hello: Hello,
    pub(super) token: u64,
    pub(super) pid: Option<Pid>,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) page: NodePage,
    pub(super) core: Option<u32>,
    pub(super) isolated: bool,
    pub(super) joined: Instant,
    /// It has said good-bye.
    pub(super) leaving: bool,
    /// It was told to leave, or its connection has ended, and this is when patience ends.
    pub(super) kill_at: Option<Instant>,
    /// The last snapshot sent, and the last one confirmed.
    pub(super) route: Route,
    pub(super) confirmed: u64,
    /// Messages that it was too slow to read.
    pub(super) unread: VecDeque<(Answer, Vec<Ring>)>,
    pub(super) report: Option<serde_json::Value>,
}

impl Instance {
    pub(super) fn service(&self) -> ServiceId {
        self.hello.service
    }

    /// For the log: `instance 3 (nf-monitor, service 2, pid 4711)`.
    pub(super) fn title(&self, id: InstanceId) -> String {
        let pid = self.pid.map_or_else(String::new, |pid| format!(", pid {}", pid.as_raw_nonzero()));
        format!("instance {id} ({}, service {}{pid})", self.hello.name, self.hello.service)
    }

    /// Its state, in a word.
    pub(super) fn state(&self) -> &'static str {
        match (self.leaving, self.kill_at.is_some()) {
            (true, _) => "leaving",
            (false, true) => "stopping",
            (false, false) => "running",
        }
    }
}

impl Server {
    /// Sends to an instance; what it does not read yet waits in line.
    pub(super) fn send_to(&mut self, id: InstanceId, answer: Answer, rings: Vec<Ring>) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.unread.push_back((answer, rings));
        }
        self.flush_unread(id);
    }

    pub(super) fn flush_unread(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let Some(peer) = self.peers.get(&instance.token) else {
            instance.unread.clear();
            return;
        };
        while let Some((answer, rings)) = instance.unread.front() {
            let fds: Vec<BorrowedFd<'_>> = rings.iter().filter_map(Ring::region).map(AsFd::as_fd).collect();
            match peer.line.send(answer, &fds, false) {
                Err(Error::WouldBlock) => break,
                Ok(()) => {}
                Err(Error::Closed) => {}
                Err(error) => {
                    // Without a route that its neighbours were told of it would hold up their packets.
                    log::error!("{} cannot be told what it must know: {error}: killed", instance.title(id));
                    instance.unread.clear();
                    return self.kill(id);
                }
            }
            instance.unread.pop_front();
        }
        if instance.unread.len() > MAX_UNREAD {
            let title = instance.title(id);
            instance.unread.clear();
            log::error!("{title} does not read its connection: killed");
            self.kill(id);
        }
    }

    /// The connection to an instance has ended; its process should follow at once.
    pub(super) fn line_ended(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.kill_at = Some(Instant::now() + GRACE);
        if instance.pidfd.is_none() {
            self.died(id);
        }
    }

    /// Asks an instance to leave.
    pub(super) fn ask_to_leave(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id)
            && instance.kill_at.is_none()
        {
            instance.kill_at = Some(Instant::now() + GRACE);
            self.send_to(id, Answer::Stop, Vec::new());
        }
    }

    /// Kills an instance that cannot be reasoned with. The reaper follows when it is dead.
    pub(super) fn kill(&mut self, id: InstanceId) {
        let Some(pidfd) = self.instances.get(&id).and_then(|i| i.pidfd.as_ref()) else { return };
        if let Err(error) = rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
            log::error!("cannot kill instance {id}: {error}");
        }
    }

    /// Kills those whose time is up.
    pub(super) fn kill_the_late(&mut self) {
        let now = Instant::now();
        let late: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(_, i)| i.kill_at.is_some_and(|t| t <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(instance) = self.instances.get_mut(&id) {
                log::warn!("{} does not leave: killed", instance.title(id));
                instance.kill_at = Some(now + GRACE);
            }
            self.kill(id);
        }
    }

    /// The kernel says that an instance's process is gone.
    pub(super) fn died(&mut self, id: InstanceId) {
        // What it said last may still be unread, its good-bye among it.
        if let Some(token) = self.instances.get(&id).map(|i| i.token) {
            self.hear_out(token);
        }
        self.remember(id);
        let Some(instance) = self.instances.remove(&id) else { return };
        let title = instance.title(id);
        if instance.leaving {
            log::info!("{title} has left");
        } else {
            log::warn!("{title} died");
        }
        if let Some(pidfd) = &instance.pidfd {
            let _ = epoll::delete(&self.epoll, pidfd);
        }
        if let Some(peer) = self.peers.remove(&instance.token) {
            let _ = epoll::delete(&self.epoll, &peer.line);
        }
        self.cores.release(instance.core);
        let service = instance.service();
        if let Some(slots) = self.services.get_mut(&service) {
            slots.remove(id);
            if slots.owners().is_empty() {
                self.services.remove(&service);
            }
        }
        self.edges.instance_died(id);
        let table = self.table();
        self.worker.give(Command::Reap { instance: id, table });
        self.update_routes();
    }

    /// Keeps an instance's figures for the ledger.
    fn remember(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(&id) else { return };
        let end = if instance.leaving { "left" } else { "died" };
        let mut body = self.instance_body(id, &crate::worker::Totals::default());
        body["state"] = end.into();
        self.departed.push_back(body);
        if self.departed.len() > MAX_DEPARTED {
            self.departed.pop_front();
        }
    }

    /// Reads what a peer said before it died.
    fn hear_out(&mut self, token: u64) {
        while let Some(peer) = self.peers.get_mut(&token) {
            match peer.line.receive(false) {
                Ok((onvm_lib::protocol::Say::Leaving, _)) => {
                    if let Some(instance) = peer.instance.and_then(|id| self.instances.get_mut(&id)) {
                        instance.leaving = true;
                    }
                }
                Ok((onvm_lib::protocol::Say::Report { report }, _)) => {
                    if let Some(instance) = peer.instance.and_then(|id| self.instances.get_mut(&id)) {
                        instance.report = Some(report);
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Instances that a target means.
    pub(super) fn targets(&self, target: Target) -> Vec<InstanceId> {
        match target {
            Target::Instance(id) => self.instances.contains_key(&id).then_some(id).into_iter().collect(),
            Target::Service(service) => {
                self.instances.iter().filter(|(_, i)| i.service() == service).map(|(id, _)| *id).collect()
            }
        }
    }

    /// Passes a message on; returns to how many.
    pub(super) fn pass_message(
        &mut self,
        from: Option<InstanceId>,
        target: Target,
        topic: String,
        body: serde_json::Value,
    ) -> usize {
        let mut to = self.targets(target);
        // Messages come from anybody: an NF that is told more than it reads loses messages, and not its life.
        to.retain(|id| self.instances.get(id).is_some_and(|i| i.unread.len() < MAX_UNREAD_MESSAGES));
        let message = Message { from, topic, body };
        for id in &to {
            self.send_to(*id, Answer::Message(message.clone()), Vec::new());
        }
        to.len()
    }
}
