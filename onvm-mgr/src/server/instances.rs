//! What the control thread knows of an instance, and its end.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use onvm_lib::node::NodePage;
use onvm_lib::protocol::{Answer, Error, Hello, InstanceId, Message, Route, ServiceId, Target};
use onvm_lib::ring::Ring;
use rustix::event::epoll;
use rustix::process::{Pid, Signal};

use super::Server;
use super::pulse::Pulse;
use crate::events::{Event, Kind};
use crate::life::{Change, Life, State};
use crate::worker::Command;

/// How long a process may live on after its connection has ended.
const GRACE: Duration = Duration::from_secs(2);
/// How long what follows a death waits when others go on with the packets already: they, and the worker, need the processors
/// just then.
const FUNERAL: Duration = Duration::from_millis(10);
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
    /// What it did wrong, if the manager wants nothing more to do with it.
    pub(super) fault: Option<Fault>,
    /// The last snapshot sent, and the last one confirmed.
    pub(super) route: Route,
    pub(super) confirmed: u64,
    /// Messages that it was too slow to read.
    pub(super) unread: VecDeque<(Answer, Vec<Enclosure>)>,
    pub(super) report: Option<serde_json::Value>,
    pub(super) life: Life,
    pub(super) role: Role,
    /// The ring from the worker, to see whether it works off what is there.
    pub(super) inbound: Ring,
    pub(super) pulse: Pulse,
    /// Its process has ended, and this is when that is dealt with.
    pub(super) bury_at: Option<Instant>,
    /// Its last change of state.
    pub(super) last_change: Option<Change>,
    /// By whom and why it is killed, when it is.
    pub(super) killed_for: Option<(&'static str, String)>,
}

/// What an instance did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was hung up on for what it said: in words for the event of its end.
    Expelled(String),
    /// It was not ready in time.
    Overdue,
}

/// What an instance is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has a share of its service's flows.
    Share,
    /// It waits to take over from one that dies.
    Standby,
    /// It takes the place of another.
    Successor(InstanceId),
}

impl Role {
    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Standby => "standby",
            Self::Successor(_) => "successor",
        }
    }
}

/// What rides with a message.
pub(super) enum Enclosure {
    Ring(Ring),
    File(OwnedFd),
}

impl Enclosure {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Ring(ring) => ring.region().map(AsFd::as_fd),
            Self::File(file) => Some(file.as_fd()),
        }
    }
}

impl Instance {
    pub(super) fn service(&self) -> ServiceId {
        self.hello.service
    }

    pub(super) fn pid_number(&self) -> Option<i32> {
        self.pid.map(|pid| pid.as_raw_nonzero().get())
    }

    pub(super) fn is_killed_by_operator(&self) -> bool {
        self.killed_for.as_ref().is_some_and(|(by, _)| *by == "operator")
    }

    /// For the log: `instance 3 (nf-monitor, service 2, pid 4711)`.
    pub(super) fn title(&self, id: InstanceId) -> String {
        let pid = self.pid.map_or_else(String::new, |pid| format!(", pid {}", pid.as_raw_nonzero()));
        format!("instance {id} ({}, service {}{pid})", self.hello.name, self.hello.service)
    }
}

impl Server {
    /// Sends to an instance; what it does not read yet waits in line.
    pub(super) fn send_to(&mut self, id: InstanceId, answer: Answer, with: Vec<Enclosure>) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.unread.push_back((answer, with));
        }
        self.flush_unread(id);
    }

    pub(super) fn flush_unread(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let Some(peer) = self.peers.get(&instance.token) else {
            instance.unread.clear();
            return;
        };
        while let Some((answer, with)) = instance.unread.front() {
            let fds: Vec<BorrowedFd<'_>> = with.iter().filter_map(Enclosure::fd).collect();
            match peer.line.send(answer, &fds, false) {
                Err(Error::WouldBlock) => break,
                Ok(()) => {}
                Err(Error::Closed) => {}
                Err(error) => {
                    // Without a route that its neighbours were told of it would hold up their packets.
                    instance.unread.clear();
                    return self.kill(id, format!("it cannot be told what it must know: {error}"));
                }
            }
            instance.unread.pop_front();
        }
        if instance.unread.len() > MAX_UNREAD {
            instance.unread.clear();
            self.kill(id, "it does not read its connection".into());
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
    pub(super) fn kill(&mut self, id: InstanceId, why: String) {
        self.kill_by("manager", id, why);
    }

    pub(super) fn kill_by(&mut self, by: &'static str, id: InstanceId, why: String) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.killed_for.is_none() {
            log::warn!("{} is killed: {why}", instance.title(id));
            instance.killed_for = Some((by, why));
        }
        self.name_successors();
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
            let Some(instance) = self.instances.get_mut(&id) else { continue };
            instance.kill_at = Some(now + GRACE);
            let why = match &instance.fault {
                Some(Fault::Expelled(expelled)) => format!("{expelled}; its process went on"),
                _ if !self.peers.contains_key(&instance.token) => {
                    "it ended its connection, and its process went on".into()
                }
                _ => "it was told to leave and did not".into(),
            };
            self.kill(id, why);
        }
    }

    /// The thread of an instance that had packets in its hands is dead: others go on with its work at once. The end of its
    /// process follows. The worker may have let a successor step in already.
    pub(super) fn stopped_working(&mut self, id: InstanceId, successor: Option<InstanceId>, at: SystemTime) {
        let Some(pidfd) = self.instances.get(&id).and_then(|i| i.pidfd.as_ref()) else { return };
        // Most likely that is why it died. If it was that thread alone, the rest is of no use.
        match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            // Its other threads may still write to what it had in its hands, which therefore stays with it.
            Err(error) => log::error!(
                "the packet thread of instance {id} has ended, but not its process, which cannot be killed: {error}"
            ),
        }
        let seen = Event::seen(Kind::State, at);
        self.take_out(id, true, successor);
        let Some(instance) = self.dying.get_mut(&id) else { return };
        if let Ok(change) = instance.life.go(State::Gone) {
            instance.last_change = Some(change);
            let event = seen.change(change).by("kernel").why("its packet thread has ended");
            self.events.record(event.instance(id, instance.service(), instance.pid_number()));
        }
    }

    /// The kernel says that an instance's process is gone.
    pub(super) fn process_ended(&mut self, id: InstanceId) {
        // The worker may have let a successor step in and not said so aloud yet.
        self.hear_worker();
        let Some(instance) = self.dying.get_mut(&id) else { return self.died(id) };
        if let Some(pidfd) = &instance.pidfd {
            let _ = epoll::delete(&self.epoll, pidfd);
        }
        let others = self.services.contains_key(&instance.service());
        instance.bury_at = Some(Instant::now() + if others { FUNERAL } else { Duration::ZERO });
    }

    /// Deals with the ends of processes whose packets others have.
    pub(super) fn bury_the_dead(&mut self, now: Instant) {
        let due = |i: &Instance| i.bury_at.is_some_and(|at| at <= now);
        let due: Vec<InstanceId> = self.dying.iter().filter(|(_, i)| due(i)).map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.died(id));
    }

    /// When the next of them is due.
    pub(super) fn next_burial(&self) -> Option<Instant> {
        self.dying.values().filter_map(|i| i.bury_at).min()
    }

    /// An instance's process is gone.
    pub(super) fn died(&mut self, id: InstanceId) {
        self.watchman.forget(id);
        if self.instances.contains_key(&id) {
            self.take_out(id, false, None);
        }
        let Some(instance) = self.dying.remove(&id) else { return };
        if let Some(pidfd) = &instance.pidfd {
            let _ = epoll::delete(&self.epoll, pidfd);
        }
        self.worker.give(Command::Bury { instance: id });
        let how = self.record_end(id, instance);
        self.replacement_lost(id, &how);
        self.routes_changed();
    }

    /// Gives an instance's packets and slots to others, if need be to a certain one. With `lingers` its process is not gone
    /// yet.
    fn take_out(&mut self, id: InstanceId, lingers: bool, successor: Option<InstanceId>) {
        // What it said last may still be unread, its good-bye among it.
        if let Some(token) = self.instances.get(&id).map(|i| i.token) {
            self.hear_out(token);
        }
        let Some(instance) = self.instances.remove(&id) else { return };
        self.predecessor_inherits(id);
        let successor = successor.filter(|heir| self.instances.contains_key(heir));
        let heir = self.pass_on_slots(id, &instance, successor);
        self.edges.instance_died(id);
        // No packet is to blame for what the operator does.
        let (table, crashed) = (self.worker_table(), !instance.leaving && !instance.is_killed_by_operator());
        self.worker.give(Command::Reap { instance: id, table, crashed, lingers, heir });
        // Packets wait for what comes before; the rest has time.
        if let Some(peer) = self.peers.remove(&instance.token) {
            let _ = epoll::delete(&self.epoll, &peer.line);
        }
        self.cores.release(instance.core);
        self.remember(id, &instance);
        let service = instance.service();
        self.dying.insert(id, instance);
        self.standby_steps_in(service);
    }

    /// The slots of an instance that is gone go to one that stands by, else to its siblings. Returns who stood by.
    fn pass_on_slots(
        &mut self,
        id: InstanceId,
        gone: &Instance,
        successor: Option<InstanceId>,
    ) -> Option<InstanceId> {
        let service = gone.service();
        let heir = successor.or_else(|| self.stands_by(service, self.shares(service).len()));
        let slots = self.services.get_mut(&service)?;
        if !slots.owners().contains(&id) {
            return None;
        }
        if let Some(heir) = heir {
            slots.replace(id, heir);
            let by = if successor.is_some() { "worker" } else { "manager" };
            self.takes_share(heir, by, "it stood by");
            return Some(heir);
        }
        slots.remove(id);
        if slots.owners().is_empty() {
            self.services.remove(&service);
        }
        None
    }

    /// An instance that waited gets flows.
    pub(super) fn takes_share(&mut self, id: InstanceId, by: &'static str, why: &str) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.role = Role::Share;
        }
        self.go(id, State::Running, by, why);
    }

    /// Changes an instance's state and writes it down.
    pub(super) fn go(&mut self, id: InstanceId, to: State, by: &'static str, why: &str) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        match instance.life.go(to) {
            Ok(change) => {
                instance.last_change = Some(change);
                let event = Event::new(Kind::State).change(change).by(by).why(why);
                self.events.record(event.instance(id, instance.service(), instance.pid_number()));
            }
            Err(prohibited) => log::debug!("{}: {prohibited}", instance.title(id)),
        }
    }

    /// Writes down how an instance ended, and returns it.
    fn record_end(&mut self, id: InstanceId, mut instance: Instance) -> String {
        let title = instance.title(id);
        let kind = if instance.leaving {
            Kind::Left
        } else if instance.is_killed_by_operator() {
            Kind::Killed
        } else if instance.pulse.is_hung() {
            Kind::Hung
        } else if instance.fault == Some(Fault::Overdue) {
            Kind::StartFailed
        } else {
            Kind::Crashed
        };
        let how = self.how_it_ended(id, &instance);
        let (by, why) = match (instance.killed_for.take(), instance.fault.take()) {
            (Some(killed), _) => killed,
            (None, Some(Fault::Expelled(expelled))) => ("manager", format!("{expelled}; {how}")),
            (None, _) => ("kernel", how),
        };
        if instance.leaving {
            log::info!("{title} has left");
        } else {
            log::warn!("{title} died: {why}");
        }
        let event =
            Event::new(kind).instance(id, instance.service(), instance.pid_number()).by(by).why(why.as_str());
        let event = match instance.life.go(State::Gone).ok().or(instance.last_change) {
            Some(change) => event.change(change),
            None => event,
        };
        self.events.record(event);
        why
    }

    /// Keeps an instance's figures for the ledger.
    fn remember(&mut self, id: InstanceId, instance: &Instance) {
        let end = match (instance.leaving, instance.is_killed_by_operator()) {
            (true, _) => "left",
            (false, true) => "killed",
            (false, false) => "died",
        };
        let mut body = self.instance_body(id, instance, &crate::worker::Totals::default());
        body["state"] = end.into();
        self.departed.push_back(body);
        if self.departed.len() > MAX_DEPARTED {
            self.departed.pop_front();
        }
    }

    /// Reads what a peer said before it died; not for ever, since its children may go on talking.
    fn hear_out(&mut self, token: u64) {
        for _ in 0..MAX_UNREAD {
            let Some(peer) = self.peers.get_mut(&token) else { return };
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
