//! Taking an NF in: checks, rings, welcome.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use onvm_lib::node::NodePage;
use onvm_lib::pool::Pool;
use onvm_lib::protocol::{Answer, Hello, InstanceId, PROTOCOL_VERSION, RingGrant, Route, ServiceId, Welcome};
use onvm_lib::ring::Ring;
use onvm_lib::shm::Pages;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::Pid;

use super::Server;
use super::events::{DEATH, watch};
use super::instances::{Instance, Role};
use super::phase::Phase;
use super::pulse::Pulse;
use crate::life::{Life, State};
use crate::plan::MAX_INSTANCES as MAX_PER_SERVICE;
use crate::worker::{Command, NodeInit};

/// Most instances in all.
const MAX_INSTANCES: usize = 1000;

/// Highest instance id: ids are never used again, so those who choose one leave room for those who do not.
const MAX_INSTANCE_ID: InstanceId = 1_000_000_000;

/// What a new instance gets.
struct Outfit {
    inbound: Ring,
    outbound: Ring,
    empties: Option<Ring>,
    doorbell: OwnedFd,
    page: NodePage,
    own_pool: Option<Pool>,
}

/// A descriptor by which the death of a process shows.
fn open_pidfd(pid: Pid, name: &str) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .inspect_err(|error| {
            log::warn!("no pidfd for {name}: {error}; its death shows by its connection only");
        })
        .ok()
}

impl Server {
    pub(super) fn welcome(&mut self, token: u64, hello: Hello) {
        if let Err(reason) = self.check(&hello).and_then(|()| self.take_in(token, hello)) {
            log::warn!("NF refused: {reason}");
            self.refuse(token, &reason);
        }
    }

    /// Whether an NF can be taken in as it asks.
    fn check(&self, hello: &Hello) -> Result<(), String> {
        if hello.version != PROTOCOL_VERSION {
            return Err(format!(
                "this manager speaks protocol version {PROTOCOL_VERSION}, {} speaks {}: use programs of one release",
                hello.name, hello.version
            ));
        }
        if !matches!(self.phase, Phase::Waiting | Phase::Running) {
            return Err("the manager is stopping".into());
        }
        for id in [Some(hello.service), hello.destination].into_iter().flatten() {
            if !(1..=4095).contains(&id) {
                return Err(format!("service id {id} is out of range 1..=4095"));
            }
        }
        if let Some(id) = hello.instance
            && let Some(other) = self.instances.get(&id)
        {
            return Err(format!("instance id {id} is taken by {}: choose another with -n", other.title(id)));
        }
        if hello.instance.is_some_and(|id| id > MAX_INSTANCE_ID) || self.next_instance > MAX_INSTANCE_ID {
            return Err(format!("instance ids end at {MAX_INSTANCE_ID}"));
        }
        if let Some(id) = hello.instance.filter(|id| self.used_ids.contains(id)) {
            return Err(format!(
                "instance id {id} was used before and is not used again: choose {} or more",
                self.next_instance
            ));
        }
        if self.instances.len() >= MAX_INSTANCES {
            return Err(format!("there are {MAX_INSTANCES} instances, and no more are possible"));
        }
        let of_service = self.instances.values().filter(|i| i.service() == hello.service).count();
        if of_service >= MAX_PER_SERVICE as usize {
            return Err(format!(
                "service {} has {MAX_PER_SERVICE} instances, and no more are possible",
                hello.service
            ));
        }
        // Names are shown on terminals.
        if hello.name.is_empty() || hello.name.len() > 64 || hello.name.chars().any(char::is_control) {
            return Err("a name is 1 to 64 bytes long, without control characters".into());
        }
        Ok(())
    }

    fn take_in(&mut self, token: u64, hello: Hello) -> Result<(), String> {
        // One that comes back from a manager that is gone keeps its id, if that is free.
        let kept = hello.reattached.filter(|id| !self.used_ids.contains(id) && *id <= MAX_INSTANCE_ID);
        let id = hello.instance.or(kept).unwrap_or(self.next_instance);
        let isolated = self.plan.services.get(&hello.service).is_some_and(|s| s.isolated);
        let outfit = self.outfit(&hello, isolated).map_err(|e| format!("no memory for another NF: {e}"))?;
        let core = self.cores.assign(hello.core, hello.shared_core)?;
        let pid = self.peers.get(&token).and_then(|p| p.line.peer().ok()).and_then(|p| p.pid);
        let mut pidfd = pid.and_then(|pid| open_pidfd(pid, &hello.name));
        if let Err(reason) = self.send_welcome(token, id, &hello, &outfit, core) {
            self.cores.release(core);
            return Err(reason);
        }
        if let Some(watched) = &pidfd
            && let Err(error) = watch(&self.epoll, watched.as_fd(), DEATH | u64::from(id))
        {
            log::warn!(
                "cannot watch {}, whose death will show by the end of its connection: {error}",
                hello.name
            );
            pidfd = None;
        }
        if pidfd.is_some() {
            self.watchman.watch(id, outfit.page.clone());
        }
        self.next_instance = self.next_instance.max(id + 1);
        self.used_ids.insert(id);
        let role = self.role_for(&hello);
        let instance = Instance {
            token,
            pid,
            pidfd,
            page: outfit.page.clone(),
            core,
            isolated,
            joined: Instant::now(),
            leaving: false,
            kill_at: None,
            fault: None,
            route: Route::default(),
            confirmed: 0,
            unread: VecDeque::new(),
            report: None,
            life: Life::new(),
            role,
            inbound: outfit.inbound.clone(),
            pulse: Pulse::default(),
            bury_at: None,
            last_change: None,
            killed_for: None,
            hello,
        };
        log::info!("{} is here", instance.title(id));
        if let Some(peer) = self.peers.get_mut(&token) {
            peer.instance = Some(id);
        }
        self.worker.give(Command::Attach(Box::new(NodeInit {
            instance: id,
            service: instance.service(),
            reads_only: instance.hello.reads_only,
            inbound: outfit.inbound,
            outbound: outfit.outbound,
            empties: outfit.empties,
            doorbell: outfit.doorbell,
            page: outfit.page,
            own_pool: outfit.own_pool,
        })));
        let started_by = instance.hello.token.clone();
        if let (Some(start_token), Some(pid)) = (started_by, instance.pid) {
            let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or(0);
            self.supervisor.attached(&start_token, instance.service(), pid, id);
        }
        self.instances.insert(id, instance);
        if let Role::Successor(old) = role {
            self.successor_attached(old, id);
        }
        // When it has set itself up it says that it follows this one.
        let _ = self.tell_routes();
        Ok(())
    }

    /// An instance has set itself up and follows its first snapshot.
    pub(super) fn is_ready(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(&id) else { return };
        if instance.life.state() != State::Starting || instance.leaving {
            return;
        }
        self.go(id, State::Ready, "manager", "it has set itself up");
        self.supervisor.is_ready(id);
        // A successor may have been quicker, and have its place.
        if !self.has_ready_successor(id) {
            self.takes_its_place(id);
        }
        self.routes_changed();
        self.start_when_ready();
    }

    /// An instance that has set itself up gets what it is there for; one that has not does when it has.
    pub(super) fn takes_its_place(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(&id).filter(|i| i.life.state() == State::Ready) else {
            return;
        };
        let (service, role) = (instance.service(), instance.role);
        let start_token = instance.hello.token.clone().unwrap_or_default();
        if self.supervisor.is_surplus(&self.plan.services, &start_token, service) {
            self.dismiss(id);
        } else {
            self.take_place(id, service, role);
            self.absent_service_returns(service);
        }
    }

    /// What a new instance is there for.
    fn role_for(&self, hello: &Hello) -> Role {
        if let Some(old) = hello.token.as_ref().and_then(|token| self.predecessor(token)) {
            return Role::Successor(old);
        }
        let Some(service) = self.plan.services.get(&hello.service) else { return Role::Share };
        let has = |role| {
            let of_service = self.instances.values().filter(|i| i.service() == hello.service && !i.leaving);
            u32::try_from(of_service.filter(|i| i.role == role).count()).unwrap_or(u32::MAX)
        };
        let enough = has(Role::Share) >= self.shares_wanted(hello.service);
        // Of those that come back, one that stood by before has no state.
        let stood_by = hello.reattached.is_some() && hello.received == 0;
        if (enough || stood_by) && has(Role::Standby) < service.standby { Role::Standby } else { Role::Share }
    }

    /// Gives a new instance its place.
    fn take_place(&mut self, id: InstanceId, service: ServiceId, role: Role) {
        match role {
            Role::Standby => self.standby_steps_in(service),
            Role::Successor(old) if self.instances.contains_key(&old) => {
                let stands_by = self.instances[&old].role == Role::Standby;
                self.successor_ready(old, id);
                if !stands_by {
                    self.takes_share(id, "operator", "it takes another's place");
                } else if let Some(instance) = self.instances.get_mut(&id) {
                    instance.role = Role::Standby;
                }
            }
            Role::Share | Role::Successor(_) => {
                self.services.entry(service).or_default().add(id);
                self.takes_share(id, "manager", "it has a share of the flows");
            }
        }
    }

    /// A service that nobody has a share of, or will have, is taken over by one that stands by.
    pub(super) fn standby_steps_in(&mut self, service: ServiceId) {
        let ours = |i: &&Instance| i.service() == service && !i.leaving && i.killed_for.is_none();
        let shares = self.instances.values().filter(ours).any(|i| i.role != Role::Standby);
        let may_come = self.phase != Phase::Running || self.supervisor.waits_for_old_ones(Instant::now());
        if shares || may_come || self.services.contains_key(&service) || self.shares_wanted(service) == 0 {
            return;
        }
        let stands_by = |i: &&Instance| i.role == Role::Standby && i.life.state() == State::Ready;
        let mut all = self.instances.iter();
        let heir = all.find(|(_, i)| ours(i) && stands_by(i)).map(|(id, _)| *id);
        if let Some(id) = heir {
            self.services.entry(service).or_default().add(id);
            self.takes_share(id, "manager", "nobody else has a share of the flows");
            self.absent_service_returns(service);
            self.routes_changed();
        }
    }

    /// Lets one leave that is not wanted.
    fn dismiss(&mut self, id: InstanceId) {
        self.supervisor.let_go(id);
        self.let_go_of_share(id, "manager", "there are enough without it");
    }

    fn outfit(&self, hello: &Hello, isolated: bool) -> Result<Outfit, Box<dyn std::error::Error>> {
        let size = self.options.ring_size;
        Ok(Outfit {
            inbound: Ring::create("onvm-inbound", size)?,
            outbound: Ring::create("onvm-outbound", size)?,
            empties: hello.emits.then(|| Ring::create("onvm-empties", size)).transpose()?,
            doorbell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            page: NodePage::create()?,
            own_pool: isolated.then(|| Pool::create(self.geometry, Pages::Plain)).transpose()?,
        })
    }

    fn send_welcome(
        &mut self,
        token: u64,
        id: InstanceId,
        hello: &Hello,
        outfit: &Outfit,
        core: Option<u32>,
    ) -> Result<(), String> {
        let mut grant = || RingGrant { edge: self.edges.next_id(), capacity: self.options.ring_size };
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            instance: id,
            pool: self.geometry,
            inbound: grant(),
            outbound: grant(),
            empties: hello.emits.then(&mut grant),
            core,
            shared_core: self.cores.is_shared(core, self.instances.len() + 1),
        };
        let pool = outfit.own_pool.as_ref().unwrap_or(&self.pool);
        let read_only = if hello.reads_only {
            Some(pool.region().read_only_fd().map_err(|e| e.to_string())?)
        } else {
            None
        };
        let pool = read_only.as_ref().map_or_else(|| pool.region().as_fd(), AsFd::as_fd);
        let ring = |ring: &'_ Ring| ring.region().map(|r| r.as_fd().try_clone_to_owned());
        let rings = [Some(&outfit.inbound), Some(&outfit.outbound), outfit.empties.as_ref()];
        let rings: Vec<OwnedFd> = rings
            .into_iter()
            .flatten()
            .filter_map(ring)
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())?;
        let mut fds = vec![
            pool,
            outfit.page.region().as_fd(),
            rings[0].as_fd(),
            rings[1].as_fd(),
            outfit.doorbell.as_fd(),
        ];
        fds.extend(rings.get(2).map(AsFd::as_fd));
        let Some(peer) = self.peers.get(&token) else { return Err("it hung up".into()) };
        peer.line.send(&Answer::Welcome(welcome), &fds, false).map_err(|e| e.to_string())
    }
}
