//! The control thread: takes NFs in, tells them their routes, notices their death, answers clients, and decides
//! when the manager ends.
//!
//! ```text
//! Waiting ──all waited-for services there──▶ Running ──sources ended, limit, signal, `stop`──▶ Draining
//!                                                                                                 │ drained, or too long
//!          Ended ◀──ledger printed── Stopping (NFs are told to leave) ◀───────────────────────────┘
//! ```
//! | Phase | Entered from | What it may not do |
//! |---|---|---|
//! | Waiting | start | receive packets |
//! | Running | Waiting | |
//! | Draining | Waiting, Running | receive packets |
//! | Stopping | Draining; any, at a second signal | take NFs in |
//!
//! Everything is an event: connections, messages, deaths (a futex, then pidfd), signals, news from the worker. Only deadlines are looked at by the clock.

mod answers;
mod apply;
mod attach;
mod change;
mod chronicle;
mod edges;
mod events;
mod instances;
mod ledger;
mod measure;
mod phase;
mod ports;
mod positions;
mod pulse;
mod quarantine;
mod replace;
mod steer;
mod successors;
mod supervise;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use onvm_lib::idle::{Idle, Manner};
use onvm_lib::pool::{Geometry, Pool};
use onvm_lib::protocol::{InstanceId, Listener, ServiceId, socket_from};
use onvm_lib::ring::bell::Barriers;
use onvm_lib::shm::Pages;
use rustix::event::epoll;

use crate::cli::Start;
use crate::cores::Cores;
use crate::events::{Event, EventLog, Kind};
use crate::plan::{Plan, Policy};
use crate::slots::SlotTable;
use crate::supervisor::Supervisor;
use crate::watchman::Watchman;
use crate::worker::{self, Handle, News, Successor};

use answers::Pending;
use change::Changes;
use edges::Edges;
use events::Peer;
use instances::Instance;
use measure::Measures;
use phase::Phase;
use ports::PortChange;
use quarantine::Quarantine;
use replace::Replacement;

/// How long the event loop sleeps at most, for deadlines.
const TICK: Duration = Duration::from_millis(100);

/// The control thread's state.
pub(super) struct Server {
    options: ServerOptions,
    geometry: Geometry,
    pool: Pool,
    listener: Option<Listener>,
    epoll: OwnedFd,
    peers: HashMap<u64, Peer>,
    next_token: u64,
    instances: BTreeMap<InstanceId, Instance>,
    /// Their threads with the packets have died, and the ends of their processes will follow.
    dying: BTreeMap<InstanceId, Instance>,
    watchman: Watchman,
    /// Who takes over from whom, as the worker was told.
    successors: Vec<Successor>,
    next_instance: InstanceId,
    /// Ids that were given out; none is given twice.
    used_ids: BTreeSet<InstanceId>,
    /// Statistics of instances that have gone, the last ones.
    departed: std::collections::VecDeque<serde_json::Value>,
    services: BTreeMap<ServiceId, SlotTable>,
    plan: Plan,
    changes: Changes,
    /// Ports that are on their way out.
    port_change: Option<PortChange>,
    replacements: Vec<Replacement>,
    supervisor: Supervisor,
    /// How processes of instances ended, for those whose death is not handled yet.
    ends: BTreeMap<InstanceId, String>,
    quarantine: Quarantine,
    /// Clients that follow the events, and the last one that each was told.
    followers: BTreeMap<u64, u64>,
    events: EventLog,
    edges: Edges,
    cores: Cores,
    worker: Handle,
    news: Receiver<News>,
    signals: UnixStream,
    children: UnixStream,
    pending: Vec<Pending>,
    phase: Phase,
    started: Instant,
    next_print: Option<Instant>,
    next_pulse: Instant,
    measures: Measures,
    failed: bool,
}

/// What of the command line is needed later.
#[derive(Debug)]
struct ServerOptions {
    json: bool,
    default_service: ServiceId,
    wait: Vec<ServiceId>,
    interval: Option<Duration>,
    time_limit: Option<Duration>,
    ring_size: u32,
    any_user: bool,
    poll: bool,
    hang_timeout: Option<Duration>,
}

impl ServerOptions {
    fn new(start: &Start, plan: &Plan) -> Self {
        Self {
            json: start.common.json,
            default_service: start.default_service,
            wait: wait_for(start, plan),
            interval: start.interval,
            time_limit: start.time_limit,
            ring_size: start.ring_size,
            any_user: start.socket_mode & 0o066 != 0,
            poll: start.poll,
            hang_timeout: Some(start.hang_timeout).filter(|t| !t.is_zero()),
        }
    }
}

/// Opens the ports and starts the worker. Late, because outputs are emptied: not when a manager is running here already, or
/// another option is wrong.
fn start_worker(
    start: &Start,
    pool: &Pool,
    cores: &Cores,
    news: std::sync::mpsc::Sender<News>,
    bell: Arc<dyn Fn() + Send + Sync>,
) -> Result<Handle, Box<dyn std::error::Error>> {
    let ports =
        start.ports.iter().map(|port| crate::ports::open(port, pool)).collect::<Result<Vec<_>, _>>()?;
    let setup = worker::Setup {
        pool: pool.clone(),
        ports,
        idle: Idle::new(Manner::Spin),
        barriers: Barriers::register(),
        core: cores.worker(),
        seed: seed(),
        wait_for_instance: start.wait_for_instance,
        stay: start.stay,
        packet_limit: start.packet_limit,
        throttles: start.fair == crate::fair::Choice::Auto,
    };
    Ok(worker::start(setup, news, bell)?)
}

/// Runs a manager until it ends.
///
/// # Errors
/// What keeps it from starting, in words for the user.
pub(crate) fn run(start: &Start, plan: Plan) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut server = Server::new(start, plan)?;
    server.announce();
    server.serve();
    Ok(server.end())
}

impl Server {
    fn new(start: &Start, plan: Plan) -> Result<Self, Box<dyn std::error::Error>> {
        if start.ports.len() > usize::from(onvm_lib::ring::MAX_PORT) + 1 {
            return Err(format!(
                "{} ports are more than {}",
                start.ports.len(),
                onvm_lib::ring::MAX_PORT + 1
            )
            .into());
        }
        // Ethernet header, two VLAN tags, and the packet.
        let geometry =
            Geometry::new(start.buffers, (start.mtu + 22).max(onvm_lib::pool::DEFAULT_PACKET_ROOM))?;
        let wanted = if start.no_huge { Pages::Plain } else { Pages::Huge };
        let pool = Pool::create(geometry, wanted)?;
        // From here on a signal ends the manager in order: it must not leave the socket behind.
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let signals = events::signals(&epoll)?;
        let children = events::children(&epoll)?;
        let path = socket_from(start.common.socket.as_deref());
        let after_a_death = path.exists();
        let listener =
            Listener::bind(&path).map_err(|e| format!("control socket {}: {e}", path.display()))?;
        if start.socket_mode != 0o600 {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(start.socket_mode))?;
        }
        let supervisor = Supervisor::new(&path, start.log_dir.as_deref(), after_a_death);
        let cores = Cores::new(start.core, !start.no_pin)?;
        let (news_sender, news) = channel();
        let bell = events::news_bell(&epoll)?;
        events::watch(&epoll, listener.as_fd(), events::LISTENER)?;
        let bell: Arc<dyn Fn() + Send + Sync> = Arc::new(bell);
        let watchman = Watchman::new(news_sender.clone(), Arc::clone(&bell));
        let worker = start_worker(start, &pool, &cores, news_sender, bell)?;
        cores.leave_to_worker();
        let options = ServerOptions::new(start, &plan);
        let now = Instant::now();
        Ok(Self {
            next_print: options.interval.map(|i| now + i),
            next_pulse: now,
            measures: Measures::new(now, start.fair),
            options,
            geometry,
            pool,
            listener: Some(listener),
            epoll,
            peers: HashMap::new(),
            next_token: events::FIRST_PEER,
            instances: BTreeMap::new(),
            dying: BTreeMap::new(),
            watchman,
            successors: Vec::new(),
            next_instance: 1,
            used_ids: BTreeSet::new(),
            departed: std::collections::VecDeque::new(),
            services: BTreeMap::new(),
            plan,
            changes: Changes::default(),
            port_change: None,
            replacements: Vec::new(),
            supervisor,
            ends: BTreeMap::new(),
            quarantine: Quarantine::default(),
            followers: BTreeMap::new(),
            events: EventLog::default(),
            edges: Edges::default(),
            cores,
            worker,
            news,
            signals,
            children,
            pending: Vec::new(),
            phase: Phase::Waiting,
            started: now,
            failed: false,
        })
    }

    fn announce(&mut self) {
        let socket = self.listener.as_ref().map(|l| l.path().display().to_string()).unwrap_or_default();
        let huge = self.pool.region().pages();
        let mib = self.geometry.bytes() >> 20;
        if !self.options.json {
            eprintln!(
                "onvm-mgr: {} buffers of {} bytes, {mib} MiB on {huge}; control socket {socket}",
                self.geometry.buffers(),
                self.geometry.packet_room(),
            );
        }
        self.events.record(Event::new(Kind::ManagerStarted).pid(std::process::id()));
        self.routes_changed();
        self.start_missing(Instant::now());
        self.start_when_ready();
    }

    fn serve(&mut self) {
        let mut ready = Vec::with_capacity(64);
        while self.phase != Phase::Ended {
            ready.clear();
            let tick = self.next_deadline();
            let waited = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&tick));
            if let Err(error) = waited
                && error != rustix::io::Errno::INTR
            {
                log::error!("epoll_wait: {error}");
                self.failed = true;
                self.phase = Phase::Ended;
            }
            for event in &ready {
                self.handle(event.data.u64());
            }
            self.on_time();
            self.name_successors();
        }
    }
}

/// Services that must be there before the ports open.
fn wait_for(start: &Start, plan: &Plan) -> Vec<ServiceId> {
    if !start.wait.is_empty() {
        return start.wait.clone();
    }
    let mut used: BTreeSet<ServiceId> = plan.chains.values().flatten().copied().collect();
    if plan.default_chain.is_none() && !start.ports.is_empty() {
        used.insert(start.default_service);
    }
    // Without its instance a service's packets skip it or are dropped: that is what was asked for.
    let waits = |id: &ServiceId| plan.services.get(id).is_none_or(|s| s.policy == Policy::Restart);
    used.into_iter().filter(waits).collect()
}

/// A number that no NF can guess.
fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if got != Ok(8) {
        log::warn!("no random numbers from the kernel: buffer generations are predictable");
    }
    u64::from_ne_bytes(bytes)
}
