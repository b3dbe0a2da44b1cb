//! Services at work: which one a packet is for, and which backend a new connection gets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{Protocol, Scheduler, Service};
use crate::maglev::{Maglev, Member};
use crate::servers::{Server, Servers};

/// Why packets for a service went nowhere, and other things that happened at the start of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceCounts {
    /// Connections begun.
    pub(crate) connections: u64,
    /// Those that were under way when their first packet came: known to nobody here, and given to the backend that
    /// the Maglev table names.
    pub(crate) adopted: u64,
    /// Those that followed an earlier one of the same client.
    pub(crate) sticky: u64,
    /// Packets dropped because no backend is available.
    pub(crate) no_backend: u64,
    /// Packets dropped because every backend, or the service, has as many connections as it may.
    pub(crate) full: u64,
    /// Packets dropped because all source ports are in use.
    pub(crate) ports_exhausted: u64,
    /// Packets dropped because the table of connections has no room.
    pub(crate) table_full: u64,
}

/// A service at work.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) config: Service,
    /// A number that no other service of this program has, or had: by its name it stays the same over reloads.
    pub(crate) id: u32,
    /// Slots of its backends, in the order of the file.
    pub(crate) members: Vec<u32>,
    /// What they bring into the table of all backends.
    pub(crate) shares: Vec<Member>,
    /// The table of all backends.
    pub(crate) base: Maglev,
    /// What the table that was asked for last is made of.
    pub(crate) wanted: (Vec<Member>, Vec<bool>),
    /// The table in force, of those that are available.
    pub(crate) table: Maglev,
    /// Number of the table that was asked for last: an answer for an older one is of no use.
    pub(crate) asked: u64,
    /// Connections at the moment.
    pub(crate) open: u32,
    pub(crate) counts: ServiceCounts,
}

impl Running {
    /// What its backends bring into a table, by weights as they are now.
    pub(crate) fn shares_of(
        config: &Service,
        members: &[u32],
        servers: &Servers,
        now_ns: u64,
    ) -> Vec<Member> {
        let share = |slot: &u32| {
            let Some(server) = servers.get(*slot) else { return Member { seed: 0, weight: 0 } };
            Member { seed: server.seed, weight: server.weight(config.slow_start, now_ns) }
        };
        members.iter().map(share).collect()
    }

    /// Chooses a backend for a new connection; its slot. `adopted`: the connection is under way, so that only
    /// consistent hashing has a chance to find who has it.
    pub(crate) fn choose(
        &self,
        servers: &mut Servers,
        hash: u32,
        adopted: bool,
        dice: &mut Dice,
        now_ns: u64,
    ) -> Option<u32> {
        if adopted || self.config.scheduler == Scheduler::Maglev {
            return self.by_table(servers, hash);
        }
        let slow_start = self.config.slow_start;
        let takers = self.members.iter().copied();
        let weighed = |servers: &Servers, slot: u32| {
            let server = servers.get(slot).filter(|server| server.takes_new())?;
            Some((slot, server.weight(slow_start, now_ns), server.open))
        };
        match self.config.scheduler {
            Scheduler::RoundRobin => {
                // Smooth weighted round robin: each gets its weight, who has most pays the sum.
                let (mut sum, mut best) = (0i64, None::<(i64, u32)>);
                for slot in takers {
                    let Some((_, weight, _)) = weighed(servers, slot) else { continue };
                    sum += i64::from(weight);
                    let Some(server) = servers.get_mut(slot) else { continue };
                    server.credit += i64::from(weight);
                    if best.is_none_or(|(credit, _)| server.credit > credit) {
                        best = Some((server.credit, slot));
                    }
                }
                let (_, slot) = best?;
                servers.get_mut(slot)?.credit -= sum;
                Some(slot)
            }
            Scheduler::LeastConnections => {
                // (open + 1) / weight, compared without division.
                let all = takers.filter_map(|slot| weighed(servers, slot));
                let load = |(_, _, open): &(u32, u32, u32)| u64::from(*open) + 1;
                all.min_by(|a, b| (load(a) * u64::from(b.1)).cmp(&(load(b) * u64::from(a.1))))
                    .map(|(slot, ..)| slot)
            }
            // The table has everyone's part: a place of it by lot is a backend by lot.
            Scheduler::Random | Scheduler::Maglev => {
                let lot = u32::try_from(dice.below(1 << 32)?).ok()?;
                self.by_table(servers, lot)
            }
        }
    }

    /// The backend that the table names. While a new table is being made, and where a backend is full, the hash is
    /// turned until one is found that takes the connection.
    fn by_table(&self, servers: &Servers, hash: u32) -> Option<u32> {
        self.turn(&self.table, hash, |slot| servers.get(slot).is_some_and(Server::takes_new))
    }

    /// The backend that the table of all names, when nobody is left but those that passive checks took out: to trust
    /// nobody would be to do to the service what is feared of them.
    pub(crate) fn last_resort(&self, servers: &Servers, hash: u32) -> Option<u32> {
        let takes = |slot| servers.get(slot).is_some_and(|server| server.is_willing() && !server.is_full());
        self.turn(&self.base, hash, takes)
    }

    /// Turns a hash until the table names someone who takes the connection.
    fn turn(&self, table: &Maglev, hash: u32, takes: impl Fn(u32) -> bool) -> Option<u32> {
        /// Turns before all are asked in their order.
        const TURNS: u32 = 32;
        let mut turned = spread(hash);
        for turn in 0..TURNS {
            let slot = table.pick(turned).and_then(|member| self.members.get(member).copied());
            if let Some(slot) = slot.filter(|slot| takes(*slot)) {
                return Some(slot);
            }
            turned = spread(turned ^ turn.wrapping_mul(0x9e37_79b1));
        }
        let start = turned as usize % self.members.len().max(1);
        let (before, after) = self.members.split_at(start.min(self.members.len()));
        after.iter().chain(before).copied().find(|slot| takes(*slot))
    }

    /// Whether it has as many connections as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.config.max_connections.is_some_and(|most| self.open >= most)
    }
}

/// Mixes a flow's hash (the finalizer of murmur3): the manager has chosen this instance by some of its bits, which are
/// therefore the same for all flows that come here.
#[inline]
pub(crate) fn spread(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// Lots: xorshift64* (Marsaglia; Vigna, "An experimental exploration of Marsaglia's xorshift generators").
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The same seed gives the same lots, as replays want it.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `n`; none for 0.
    pub(crate) fn below(&mut self, n: u64) -> Option<u64> {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let wide = u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(n);
        (n > 0).then_some(u64::try_from(wide >> 64).unwrap_or(0))
    }
}

/// Finds services by what packets are addressed to.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// Those of one address.
    by_address: HashMap<IpAddr, Vec<Entry>>,
    /// Those of prefixes by their length, the longest first.
    by_prefix: BTreeMap<Reverse<u8>, HashMap<IpNet, Vec<Entry>>>,
    /// Backends and routers to them: within a prefix they stay what they are.
    hosts: HashSet<IpAddr>,
    /// Addresses that take the place of clients'.
    translated_to: HashSet<IpAddr>,
    /// Where backends that translate are, so that what they send without a connection is known.
    origins: HashMap<IpAddr, Vec<RangeInclusive<u16>>>,
}

#[derive(Clone, Debug)]
struct Entry {
    service: usize,
    protocol: Protocol,
    ports: Vec<RangeInclusive<u16>>,
}

impl Entry {
    fn matches(&self, protocol: u8, port: u16) -> bool {
        self.protocol.covers(protocol) && self.ports.iter().any(|range| range.contains(&port))
    }
}

impl Directory {
    /// A directory of services by their index.
    pub(crate) fn new<'a>(services: impl Iterator<Item = &'a Service>) -> Self {
        let mut directory = Self::default();
        for (index, service) in services.enumerate() {
            let entry = Entry { service: index, protocol: service.protocol, ports: service.ports.clone() };
            if service.address.prefix_len() == service.address.max_prefix_len() {
                directory.by_address.entry(service.address.addr()).or_default().push(entry);
            } else {
                let length = Reverse(service.address.prefix_len());
                let nets = directory.by_prefix.entry(length).or_default();
                nets.entry(service.address).or_default().push(entry);
            }
            directory.translated_to.extend(service.translated_to());
        }
        directory
    }

    /// There is a host that is not the balancer: it is no virtual address, even if it lies in the prefix of a service.
    pub(crate) fn add_host(&mut self, ip: IpAddr) {
        self.hosts.insert(ip);
    }

    /// Services of prefixes that an address lies in, the longest first.
    fn around(&self, ip: IpAddr) -> impl Iterator<Item = &Vec<Entry>> {
        let is_host = !self.by_prefix.is_empty() && self.hosts.contains(&ip);
        let nets = self.by_prefix.iter().filter(move |_| !is_host);
        nets.filter_map(move |(length, nets)| nets.get(&IpNet::new(ip, length.0).ok()?.trunc()))
    }

    /// Traffic from these ports of an address belongs to connections that are translated.
    pub(crate) fn add_origin(&mut self, ip: IpAddr, ports: &[RangeInclusive<u16>]) {
        self.origins.entry(ip).or_default().extend(ports.iter().cloned());
    }

    /// The service for packets to this address and port.
    pub(crate) fn find(&self, ip: IpAddr, protocol: u8, port: u16) -> Option<usize> {
        if let Some(entries) = self.by_address.get(&ip)
            && let Some(entry) = entries.iter().find(|entry| entry.matches(protocol, port))
        {
            return Some(entry.service);
        }
        let mut prefixes = self.around(ip).flatten();
        prefixes.find(|entry| entry.matches(protocol, port)).map(|entry| entry.service)
    }

    /// Whether an address is that of a service, whatever its port.
    pub(crate) fn is_virtual(&self, ip: IpAddr) -> bool {
        self.by_address.contains_key(&ip) || self.around(ip).next().is_some()
    }

    /// Whether the balancer answers for an address because of a service.
    pub(crate) fn is_answered_for(&self, ip: IpAddr) -> bool {
        self.is_virtual(ip) || self.translated_to.contains(&ip)
    }

    /// Whether a backend that is translated for sends from there.
    pub(crate) fn is_origin(&self, ip: IpAddr, port: u16) -> bool {
        self.origins.get(&ip).is_some_and(|ranges| ranges.iter().any(|range| range.contains(&port)))
    }

    /// Whether a backend has this address.
    pub(crate) fn is_backend(&self, ip: IpAddr) -> bool {
        self.origins.contains_key(&ip)
    }
}
