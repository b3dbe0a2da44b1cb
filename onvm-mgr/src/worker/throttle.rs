//! Backpressure at the entry: what a chain cannot work off is turned away before any work is spent on it.
//!
//! The worker looks at the queues now and then. A service with more than the high watermark waiting for it is congested until no
//! more than the low one waits; a chain that such a service is on is closed, and only such a chain, whatever else
//! shares its processors. Of chains that meet at a congested service, those that bring it little are spared as long as there
//! is room for them: they are not the reason. What comes for a closed chain from a port that does not wait is dropped (`backpressure`); ports that wait and could
//! bring something for it are not asked.
//!
//! The high watermark is half a ring; in front of a first service, as long as nothing else is congested on its chains, seven
//! eighths; the same everywhere on a chain that is the only one, which can be in nobody's way. The watermarks leave room in the rings for what is under way when a chain is closed, so NFs neither drop what others have
//! worked on, nor wait long for room on the way to one chain while they have packets for another. Nor may the queues of
//! all congested services use up the pool: the high watermark is never more than the buffers that are free, so each
//! of them has about as much as is left for everyone else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use onvm_lib::packet::DropReason;
use onvm_lib::pool::Packet;
use onvm_lib::protocol::{ChainHop, ServiceId};

use super::{Table, Worker};

/// Rounds between two looks at the queues, at least.
const ROUNDS: u32 = 16;
/// Least high watermark: a few bursts.
const LEAST: u32 = 256;
/// Packets after which what came before counts half.
const MEMORY: u64 = 1 << 16;
/// Services that a chain is followed through.
const LONGEST_CHAIN: usize = 128;

/// Packets turned away at the entry, by the service for which there was too much: written by the worker, read by the
/// control thread.
#[derive(Clone, Debug)]
pub(crate) struct TurnedAway(Arc<[AtomicU64]>);

impl Default for TurnedAway {
    fn default() -> Self {
        Self((0..=4095).map(|_| AtomicU64::new(0)).collect())
    }
}

impl TurnedAway {
    /// Packets that a service was not given.
    pub(crate) fn of(&self, service: ServiceId) -> u64 {
        self.0.get(usize::from(service)).map_or(0, |n| n.load(Ordering::Relaxed))
    }

    fn count(&self, service: ServiceId) {
        if let Some(n) = self.0.get(usize::from(service)) {
            n.store(n.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}

/// How much a service has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    /// No more than it can take.
    #[default]
    Calm,
    /// More than it works off: who brings it much must stop.
    Congested,
    /// There is hardly room left: everybody must stop.
    Flooded,
}

impl Level {
    /// What it is when so many packets wait and the high watermark is `high`.
    fn next(self, waiting: u32, high: u32) -> Self {
        let flood = high + high / 2;
        if waiting > flood || self == Self::Flooded && waiting > high {
            Self::Flooded
        } else if waiting > high || self != Self::Calm && waiting > high / 2 {
            Self::Congested
        } else {
            Self::Calm
        }
    }
}

/// A way through services, from a place where packets enter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    entry: ChainHop,
    services: Vec<ServiceId>,
}

/// A service on a chain.
#[derive(Debug)]
struct Watched {
    id: ServiceId,
    level: Level,
    /// It is the first of all chains that it is on.
    first: bool,
    /// The other services of these chains, by their place among the watched.
    ahead: Vec<usize>,
}

/// What the worker knows of chains that have too much to do.
#[derive(Default)]
pub(super) struct Throttle {
    chains: Vec<Chain>,
    /// Services of these chains.
    services: Vec<Watched>,
    /// Packets that came for each chain lately, by the position at which they enter.
    came: Vec<u64>,
    came_in_all: u64,
    /// Places where nothing goes in, and the service that is the reason.
    closed: Vec<(ChainHop, ServiceId)>,
    /// Without looks no chain is ever closed.
    looks: bool,
    rounds: u32,
    /// What was seen at the last look, by node.
    queues: Vec<Queue>,
    turned_away: TurnedAway,
    /// Packets that were dropped before any NF had them.
    at_entry: u64,
}

impl Throttle {
    pub(super) fn new(turned_away: TurnedAway, looks: bool) -> Self {
        Self { turned_away, looks, ..Self::default() }
    }

    /// Follows a routing snapshot.
    pub(super) fn follow(&mut self, table: &Table) {
        let mut entries: Vec<ChainHop> = vec![table.entry];
        if !table.rules.is_empty() {
            entries.extend(table.chains.values());
        }
        self.chains.clear();
        for entry in entries {
            if entry.service != 0 && self.chains.iter().all(|chain| chain.entry != entry) {
                self.chains.push(Chain { entry, services: services_from(table, entry) });
            }
        }
        let mut all: Vec<ServiceId> = self.chains.iter().flat_map(|c| c.services.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        let was = std::mem::take(&mut self.services);
        let level = |id| was.iter().find(|w| w.id == id).map_or(Level::Calm, |w| w.level);
        let one = |id: &ServiceId| {
            let through = || self.chains.iter().filter(|chain| chain.services.contains(id));
            let ahead = all.iter().enumerate().filter(|(_, other)| *other != id);
            let ahead = ahead.filter(|(_, other)| through().any(|chain| chain.services.contains(other)));
            Watched {
                id: *id,
                level: level(*id),
                first: through().all(|chain| chain.services.first() == Some(id)),
                ahead: ahead.map(|(index, _)| index).collect(),
            }
        };
        self.services = all.iter().map(one).collect();
        let positions = self.chains.iter().map(|chain| usize::from(chain.entry.position) + 1).max();
        self.came.clear();
        self.came.resize(positions.unwrap_or(0), 0);
        self.came_in_all = 0;
        self.close();
    }

    /// Notes how many packets wait for the busiest instance of each service; `high` tells its high watermark.
    fn see(&mut self, queue: impl Fn(ServiceId) -> Queue, free: u32) {
        let mut any = self.any();
        let alone = self.chains.len() < 2;
        for index in 0..self.services.len() {
            let watched = &self.services[index];
            let Queue { waiting, room } = queue(watched.id);
            let most = room - room / 8;
            let calm = |index: &usize| self.services[*index].level == Level::Calm;
            let high = if alone {
                most
            } else if waiting > room / 4 && watched.first && watched.ahead.iter().all(calm) {
                // In front of the first service nothing is wasted, and a peak may wait there.
                most.min(free.max(LEAST))
            } else {
                (room / 2).min(free.max(LEAST))
            };
            let level = watched.level.next(waiting, high.max(1));
            any |= level != Level::Calm;
            self.services[index].level = level;
        }
        if any {
            self.close();
        }
        if self.came_in_all > MEMORY {
            self.came.iter_mut().for_each(|n| *n /= 2);
            self.came_in_all /= 2;
        }
    }

    /// A packet came for a chain.
    #[inline(always)]
    pub(super) fn count(&mut self, entry: ChainHop) {
        if let Some(came) = self.came.get_mut(usize::from(entry.position)) {
            *came += 1;
            self.came_in_all += 1;
        }
    }

    fn came_for(&self, chain: &Chain) -> u64 {
        self.came.get(usize::from(chain.entry.position)).copied().unwrap_or(0)
    }

    /// Whether a service has too much to do for a chain to send it more.
    fn closes(&self, service: ServiceId, level: Level, chain: &Chain) -> bool {
        if level != Level::Congested {
            return level == Level::Flooded;
        }
        // Less than half of an equal part of what comes is not the reason.
        let meeting = self.chains.iter().filter(|c| c.services.contains(&service));
        let (n, sum) = meeting.fold((0, 0), |(n, sum), c| (n + 1, sum + self.came_for(c)));
        n == 1 || self.came_for(chain) * 2 * n >= sum
    }

    fn close(&mut self) {
        let mut closed = std::mem::take(&mut self.closed);
        closed.clear();
        for chain in &self.chains {
            let mut there = self.services.iter().filter(|w| chain.services.contains(&w.id));
            if let Some(watched) = there.find(|w| self.closes(w.id, w.level, chain)) {
                closed.push((chain.entry, watched.id));
            }
        }
        self.closed = closed;
    }

    /// Whether any chain is closed.
    #[inline(always)]
    pub(super) fn any(&self) -> bool {
        !self.closed.is_empty()
    }

    /// The service that keeps packets from going in at a place.
    #[inline]
    pub(super) fn closed_by(&self, entry: ChainHop) -> Option<ServiceId> {
        self.closed.iter().find(|(closed, _)| *closed == entry).map(|(_, service)| *service)
    }

    /// Packets that were dropped before any NF had them.
    pub(super) fn at_entry(&self) -> u64 {
        self.at_entry
    }
}

/// What waits for one instance, and how many entries each of its rings has.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    waiting: u32,
    room: u32,
}

/// The services that packets pass which enter at a place, each once.
fn services_from(table: &Table, entry: ChainHop) -> Vec<ServiceId> {
    let mut services = Vec::new();
    let mut hop = entry;
    for _ in 0..LONGEST_CHAIN {
        if hop.service == 0 {
            break;
        }
        if !services.contains(&hop.service) {
            services.push(hop.service);
        }
        hop = table.next(hop.position, hop.service);
    }
    services
}

impl Worker {
    /// Looks at the queues, when it is time.
    #[inline(always)]
    pub(super) fn watch_queues(&mut self) {
        self.throttle.rounds = self.throttle.rounds.wrapping_add(1);
        // Looks become rarer with the number of rings.
        if self.throttle.looks && self.throttle.rounds as usize >= ROUNDS as usize + self.edges.len() / 2 {
            self.look_at_queues();
        }
    }

    #[inline(never)]
    fn look_at_queues(&mut self) {
        self.throttle.rounds = 0;
        let mut queues = std::mem::take(&mut self.throttle.queues);
        queues.clear();
        for node in &mut self.nodes {
            let queue = node.as_mut().map(|node| {
                let room = node.inbound.ring_capacity();
                Queue { waiting: room - node.inbound.room(room), room }
            });
            queues.push(queue.unwrap_or_default());
        }
        for edge in self.edges.values() {
            if let Some(queue) = self.by_instance.get(&edge.to).and_then(|place| queues.get_mut(*place)) {
                queue.waiting += edge.ring.occupancy();
            }
        }
        let (services, longest) = (&self.services, u32::try_from(self.longest_line()).unwrap_or(u32::MAX));
        let several = self.throttle.chains.len() > 1;
        let busiest = |service| {
            let Some(state) = services.get(service) else { return Queue::default() };
            let nodes = state.nodes();
            if nodes.is_empty() && several {
                // What waits for an instance that does not come must not fill up services that other chains use.
                let waiting = u32::try_from(state.line.len()).unwrap_or(u32::MAX);
                return Queue { waiting, room: longest };
            }
            let mut last = usize::MAX;
            let mut most = Queue::default();
            // Neighbouring slots mostly have the same owner.
            for node in nodes {
                if *node != last && queues[*node].waiting >= most.waiting {
                    most = queues[*node];
                }
                last = *node;
            }
            most
        };
        self.throttle.see(busiest, self.books.free_count());
        self.throttle.queues = queues;
    }

    /// Turns a packet away that came for a closed chain.
    #[cold]
    pub(super) fn turn_away(&mut self, packet: Packet, because_of: ServiceId) {
        self.throttle.turned_away.count(because_of);
        self.drop_at_entry(packet);
    }

    /// Drops a packet that no NF has had.
    #[cold]
    pub(super) fn drop_at_entry(&mut self, packet: Packet) {
        self.throttle.at_entry += 1;
        self.drop_packet(packet, DropReason::Backpressure);
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::OUT;
    use super::*;

    /// Chains 1 → 2 → 3 and 4 → 2, and the default one, 5.
    fn table() -> Table {
        let hop = |service, position| ChainHop { service, position };
        let chains = [("a".to_string(), hop(1, 1)), ("b".to_string(), hop(4, 4))].into();
        Table {
            entry: hop(5, 6),
            chains,
            rules: Arc::new(vec![crate::plan::Rule::default()]),
            hops: vec![OUT, hop(2, 2), hop(3, 3), OUT, hop(2, 5), OUT, OUT],
            services: vec![0, 1, 2, 3, 4, 2, 5],
            ..Table::default()
        }
    }

    fn queues(of: &'static [(ServiceId, u32)]) -> impl Fn(ServiceId) -> Queue {
        let waiting = |id| of.iter().find(|(service, _)| *service == id).map_or(0, |(_, n)| *n);
        move |id| Queue { waiting: waiting(id), room: 16_384 }
    }

    fn closed(throttle: &Throttle) -> Vec<ServiceId> {
        throttle.closed.iter().map(|(entry, _)| entry.service).collect()
    }

    #[test]
    fn only_chains_through_the_bottleneck_are_closed() {
        let mut throttle = Throttle::default();
        throttle.follow(&table());
        throttle.see(queues(&[(3, 9000), (5, 8000)]), 20_000);
        assert_eq!((closed(&throttle), throttle.any()), (vec![1], true));
        assert_eq!(throttle.closed_by(ChainHop { service: 1, position: 1 }), Some(3));
        throttle.see(queues(&[(2, 9000)]), 20_000);
        assert_eq!(closed(&throttle), [1, 4]);
        throttle.see(queues(&[(2, 5000)]), 20_000);
        assert_eq!(closed(&throttle), [1, 4], "not below the low watermark yet");
        throttle.see(queues(&[(2, 4000)]), 20_000);
        assert!(!throttle.any());
    }

    #[test]
    fn chains_that_bring_little_are_spared_while_there_is_room() {
        let mut throttle = Throttle::default();
        throttle.follow(&table());
        let (a, b) = (ChainHop { service: 1, position: 1 }, ChainHop { service: 4, position: 4 });
        for n in 0..100_000u32 {
            throttle.count(if n.is_multiple_of(10) { b } else { a });
        }
        throttle.see(queues(&[(2, 9000)]), 20_000);
        assert_eq!(closed(&throttle), [1]);
        throttle.see(queues(&[(2, 13_000)]), 20_000);
        assert_eq!(closed(&throttle), [1, 4], "no more room");
        throttle.see(queues(&[(2, 8000)]), 20_000);
        assert_eq!(closed(&throttle), [1]);
        for _ in 0..100_000 {
            throttle.count(b);
        }
        throttle.see(queues(&[(2, 8000)]), 20_000);
        assert_eq!(closed(&throttle), [1, 4]);
        throttle.see(queues(&[(2, 4000)]), 20_000);
        assert!(!throttle.any());
    }

    #[test]
    fn where_buffers_are_scarce_queues_are_shorter() {
        let mut throttle = Throttle::default();
        throttle.follow(&table());
        throttle.see(queues(&[(5, 1100)]), 1000);
        assert_eq!(closed(&throttle), [5]);
        throttle.see(queues(&[(5, 400)]), 0);
        throttle.see(queues(&[(5, 200)]), 0);
        assert_eq!(closed(&throttle), [5], "half of the least");
        throttle.see(queues(&[(5, 100)]), 0);
        assert!(!throttle.any());
    }

    #[test]
    fn a_peak_may_wait_in_front_of_the_first_service() {
        let mut throttle = Throttle::default();
        throttle.follow(&table());
        throttle.see(queues(&[(1, 12_000)]), 20_000);
        assert!(!throttle.any());
        throttle.see(queues(&[(1, 15_000)]), 20_000);
        assert_eq!(closed(&throttle), [1]);
        throttle.see(queues(&[(1, 1000), (3, 9000)]), 20_000);
        throttle.see(queues(&[(1, 9000), (3, 9000)]), 20_000);
        throttle.see(queues(&[(1, 9000), (3, 0)]), 20_000);
        assert_eq!(closed(&throttle), [1], "while something else was congested there");
    }

    #[test]
    fn a_service_that_is_on_no_chain_any_more_closes_none() {
        let mut throttle = Throttle::default();
        throttle.follow(&table());
        throttle.see(queues(&[(3, 9000)]), 20_000);
        let straight = Table { hops: vec![OUT; 7], ..table() };
        throttle.follow(&straight);
        assert!(!throttle.any());
        throttle.follow(&Table::default());
        throttle.see(queues(&[]), 0);
        assert!(!throttle.any());
    }

    #[test]
    fn chains_that_go_in_circles_are_followed_to_an_end() {
        let hop = ChainHop { service: 1, position: 0 };
        let table = Table { entry: hop, after: vec![OUT, hop], ..Table::default() };
        assert_eq!(services_from(&table, hop), [1]);
    }
}
