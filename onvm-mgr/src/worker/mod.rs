//! The worker: the thread that serves the ports, relays between NFs, frees buffers, and clears up after NFs
//! that die.
//!
//! ```text
//! one round:   commands ─▶ receive from ports ─▶ packets from NFs ─▶ send to ports ─▶ now and then the rest
//! ```
//! A packet's way through these files: `entry` (port to first service, and out of a port), `relay` (from an NF to
//! wherever its verdict says), `deliver` (into an NF's ring, or parked while there is none). `reap`
//! and `audit` run between rounds. All of it works on the books, and on descriptors that the books have confirmed.

mod audit;
mod capture;
mod command;
mod deliver;
mod entry;
mod gate;
mod line;
mod node;
mod pinned;
mod ports;
mod reap;
mod relay;
mod rest;
mod succession;
mod table;
mod throttle;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use onvm_lib::idle::Idle;
use onvm_lib::packet::DropReason;
use onvm_lib::pool::{Books, Packet, Pool};
use onvm_lib::protocol::{EdgeId, InstanceId};
use onvm_lib::ring::Descriptor;
use onvm_lib::ring::bell::Barriers;

use crate::ports::{Account, Port};

pub(crate) use audit::AuditReport;
pub(crate) use command::{Command, News, PortTotals, Totals};
pub(crate) use gate::MovedSlots;
pub(crate) use node::{NodeInit, NodeTotals};
pub(crate) use ports::ClosedPort;
pub(crate) use succession::Successor;
pub(crate) use table::{Absent, Table};
pub(crate) use throttle::TurnedAway;

use audit::Audit;
use deliver::Services;
use gate::Gate;
use node::{DirectEdge, Node};
use ports::Leaving;
use reap::Unburied;
use rest::Sleeper;
use succession::Successions;
use table::Entry;
use throttle::Throttle;

/// Packets that the worker handles together.
const BURST: usize = 64;
/// The same, as rings count.
const ENTRIES: u32 = 64;
const _: () = assert!(ENTRIES as usize == BURST);
/// Packets that ports may put in front of a service before it has worked some off, where the source waits: more
/// would only push each other out of the cache.
const WATERMARK: u32 = 1024;
/// How long a packet waits for room ahead before it is dropped: this breaks circles in which all wait for all.
const PATIENCE: Duration = Duration::from_secs(1);
/// Rounds between two looks at the clock.
const ROUNDS_PER_LOOK: u32 = 256;
/// The same while something is under way that packets wait for.
const URGENT_ROUNDS_PER_LOOK: u32 = 8;
/// The same for rounds that find nothing to do.
const IDLE_ROUNDS_PER_LOOK: u32 = 16;

/// What the worker is started with.
pub(crate) struct Setup {
    pub(crate) pool: Pool,
    pub(crate) ports: Vec<Box<dyn Port>>,
    pub(crate) idle: Idle,
    pub(crate) barriers: Barriers,
    pub(crate) core: Option<u32>,
    pub(crate) seed: u64,
    /// How long packets wait for a service that has no instance.
    pub(crate) wait_for_instance: Duration,
    pub(crate) stay: bool,
    pub(crate) packet_limit: Option<u64>,
    /// Turn packets away at the entry of chains that have too much to do.
    pub(crate) throttles: bool,
}

/// One port and what the worker knows of it.
struct PortState {
    port: Box<dyn Port>,
    /// What is sent here is freed at once.
    discards: bool,
    /// It keeps an account of its own.
    settles: bool,
    /// What passes is captured.
    captures: bool,
    /// It receives no more, and is closed when nothing more goes out of it.
    leaving: Option<Leaving>,
    finished: bool,
    not_before: Option<Instant>,
    /// Packets to be sent in this round.
    outgoing: Vec<Packet>,
}

impl PortState {
    fn new(mut port: Box<dyn Port>) -> Self {
        Self {
            captures: port.capture().is_some(),
            discards: port.discards(),
            settles: port.settles(),
            leaving: None,
            finished: port.is_absent(),
            port,
            not_before: None,
            outgoing: Vec::new(),
        }
    }

    /// Packets that are on their way out.
    fn on_the_way_out(&self) -> usize {
        self.outgoing.len() + self.port.holds_out()
    }
}

/// Counters of the whole.
#[derive(Clone, Debug, Default)]
struct Tally {
    received: u64,
    copied: u64,
    sent: u64,
    drops: [u64; DropReason::COUNT],
    bad_descriptors: u64,
    violations: u64,
}

pub(crate) struct Worker {
    books: Books,
    ports: Vec<PortState>,
    nodes: Vec<Option<Node>>,
    by_instance: HashMap<InstanceId, usize>,
    edges: HashMap<EdgeId, DirectEdge>,
    /// Ids of edges only go up.
    last_edge: EdgeId,
    services: Services,
    table: Table,
    entry: Entry,
    successions: Successions,
    throttle: Throttle,
    tally: Tally,
    idle: Idle,
    barriers: Barriers,
    sleeper: Sleeper,
    commands: Receiver<Command>,
    called: Arc<AtomicBool>,
    news: Sender<News>,
    news_bell: Arc<dyn Fn() + Send + Sync>,
    /// Until when the control thread is not woken for news: who has just taken over needs the processors.
    hushed_until: Option<Instant>,
    receiving: bool,
    stopping: bool,
    /// The manager stops and NFs leave: nothing waits for an instance any more.
    giving_up: bool,
    told_drained: bool,
    wait_for_instance: Duration,
    stay: bool,
    packet_limit: u64,
    audits: Vec<Audit>,
    /// Packets that were in the hands of an instance that died, and how many such instances there were.
    suspects: HashMap<(u32, u16), u32>,
    /// Dead instances that have been cleared up after.
    remains: Vec<Node>,
    /// What dead instances had in their hands whose processes are not gone yet.
    unburied: Vec<Unburied>,
    /// Closed while flows move.
    gate: Option<Gate>,
    incoming: Vec<Packet>,
    now: Instant,
    /// What passes some port is captured.
    captures: bool,
    /// Packets wait for something that only a look around brings on.
    urgent: bool,
}

/// The handle by which the control thread speaks to the worker.
pub(crate) struct Handle {
    pub(crate) commands: Sender<Command>,
    called: Arc<AtomicBool>,
    /// Packets that were turned away at the entry.
    pub(crate) turned_away: TurnedAway,
    bell: std::os::fd::OwnedFd,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Handle {
    /// Gives the worker a command; it sees it before its next round.
    pub(crate) fn give(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.called.store(true, Ordering::Release);
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Ends the worker and waits for it.
    pub(crate) fn end(&mut self) {
        self.give(Command::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the worker thread panicked");
        }
    }
}

/// Starts the worker's thread. `bell` is called whenever there is news.
pub(crate) fn start(
    setup: Setup,
    news: Sender<News>,
    bell: Arc<dyn Fn() + Send + Sync>,
) -> std::io::Result<Handle> {
    let (commands, receiver) = std::sync::mpsc::channel();
    let called = Arc::new(AtomicBool::new(false));
    let sleeper = Sleeper::new()?;
    let handle_bell = sleeper.command_bell()?;
    let core = setup.core;
    let turned_away = TurnedAway::default();
    let mut worker =
        Worker::new(setup, receiver, Arc::clone(&called), news, bell, sleeper, turned_away.clone());
    let thread = std::thread::Builder::new().name("worker-0".into()).spawn(move || {
        if let Some(core) = core {
            crate::cores::pin(core);
        }
        onvm_lib::cpu::be_prompt();
        worker.work();
    })?;
    Ok(Handle { commands, called, turned_away, bell: handle_bell, thread: Some(thread) })
}

impl Tally {
    /// Enters what a port has done to packets by itself.
    fn settle(&mut self, account: &Account) {
        let Account { rx_dropped, rx_copies, tx_copies, sent, .. } = *account;
        // Copies were taken for packets that came in, and those that were dropped were not seen.
        self.received = self.received + rx_dropped - rx_copies;
        self.copied += rx_copies + tx_copies + account.copies_without_buffer;
        self.sent += sent;
        for (reason, packets) in [
            (DropReason::InjectedFault, account.faulted),
            (DropReason::RateLimited, account.rate_limited),
            (DropReason::NoBuffer, account.copies_without_buffer),
            (DropReason::Shutdown, account.closed_upon),
        ] {
            self.drops[reason as usize] += packets;
        }
    }
}

impl Worker {
    fn new(
        setup: Setup,
        commands: Receiver<Command>,
        called: Arc<AtomicBool>,
        news: Sender<News>,
        news_bell: Arc<dyn Fn() + Send + Sync>,
        sleeper: Sleeper,
        turned_away: TurnedAway,
    ) -> Self {
        let ports: Vec<PortState> = setup.ports.into_iter().map(PortState::new).collect();
        Self {
            books: Books::new(setup.pool, setup.seed),
            captures: ports.iter().any(|state| state.captures),
            ports,
            nodes: Vec::new(),
            by_instance: HashMap::new(),
            edges: HashMap::new(),
            last_edge: 0,
            services: Services::default(),
            table: Table::default(),
            entry: Entry::default(),
            successions: Successions::default(),
            throttle: Throttle::new(turned_away, setup.throttles),
            tally: Tally::default(),
            idle: setup.idle,
            barriers: setup.barriers,
            sleeper,
            commands,
            called,
            news,
            news_bell,
            hushed_until: None,
            receiving: false,
            stopping: false,
            giving_up: false,
            told_drained: false,
            wait_for_instance: setup.wait_for_instance,
            stay: setup.stay,
            packet_limit: setup.packet_limit.unwrap_or(u64::MAX),
            audits: Vec::new(),
            remains: Vec::new(),
            unburied: Vec::new(),
            gate: None,
            suspects: HashMap::new(),
            incoming: Vec::with_capacity(BURST),
            now: Instant::now(),
            urgent: false,
        }
    }

    fn work(&mut self) {
        let mut rounds = 0u32;
        let mut burst = [Descriptor::default(); BURST];
        loop {
            if self.called.load(Ordering::Relaxed) && !self.obey() {
                return;
            }
            let mut worked = 0;
            if self.receiving {
                self.watch_queues();
                worked += self.receive();
            }
            for index in 0..self.nodes.len() {
                worked += self.take_from_node(index, &mut burst);
            }
            self.watch_lives();
            self.publish();
            self.send();
            rounds = rounds.wrapping_add(1);
            if self.hushed_until.is_some() {
                self.let_successor_in();
            }
            if worked > 0 {
                self.idle.worked();
                let per_look = if self.urgent { URGENT_ROUNDS_PER_LOOK } else { ROUNDS_PER_LOOK };
                if rounds.is_multiple_of(per_look) {
                    self.look_around();
                }
            } else {
                if rounds.is_multiple_of(IDLE_ROUNDS_PER_LOOK) {
                    self.look_around();
                }
                if self.idle.nothing() {
                    self.look_around();
                    self.rest();
                }
            }
        }
    }

    /// What need not be done every round.
    fn look_around(&mut self) {
        self.now = Instant::now();
        self.supply_empties();
        self.flush_parked();
        self.expire_parked();
        self.watch_gate();
        self.watch_leaving();
        self.urgent = self.gate.is_some() || self.services.is_held_up() || self.ports_leave();
        self.close_edges();
        self.speak_up();
        self.let_go_of_remains();
        self.check_audits();
        self.check_violations();
        for state in &mut self.ports {
            state.port.idle();
            if let Some(error) = state.port.take_error() {
                let _ = self.news.send(News::PortFailed { error: error.to_string() });
                (self.news_bell)();
            }
        }
        self.tell_if_drained();
        self.publish();
    }

    /// Says once that every finite source has ended and every packet has come out.
    fn tell_if_drained(&mut self) {
        if self.told_drained || !(self.stopping || self.sources_ended()) {
            return;
        }
        let total = self.books.pool().geometry().buffers();
        let parked = self.services.parked() + self.at_gate();
        let outgoing: usize = self.ports.iter().map(PortState::on_the_way_out).sum();
        let at_ports: usize = self.ports.iter().map(|p| p.port.holds()).sum();
        let home = self.books.free_count() + self.books.empties_out() + u32::try_from(at_ports).unwrap_or(0);
        if home == total && parked + outgoing == 0 {
            self.told_drained = true;
            self.tell(News::Drained);
        }
    }

    fn sources_ended(&self) -> bool {
        let mut finite = self.ports.iter().filter(|p| p.port.is_finite()).peekable();
        let limit = self.tally.received >= self.packet_limit;
        self.receiving
            && (limit || !self.stay && finite.peek().is_some() && self.ports.iter().all(|p| p.finished))
    }

    fn tell(&self, news: News) {
        if self.news.send(news).is_ok() && self.hushed_until.is_none() {
            (self.news_bell)();
        }
    }

    /// Counts a drop and frees the buffer.
    #[inline]
    fn drop_packet(&mut self, packet: Packet, reason: DropReason) {
        if self.captures {
            self.capture_drop(&packet, reason, 0);
        }
        self.count_drop(packet, reason);
    }

    /// The same without a word to captures.
    #[inline]
    fn count_drop(&mut self, packet: Packet, reason: DropReason) {
        self.tally.drops[reason as usize] += 1;
        self.books.free(packet);
    }
}
