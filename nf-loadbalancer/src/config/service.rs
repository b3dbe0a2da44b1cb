//! One service: what packets it is about, and what becomes of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use onvm_lib::document::{Cursor, Table};

use super::{
    Backend, Config, Health, MAX_BACKENDS, Passive, Probe, TABLE_SIZE, backend, health, host, port_range,
    positive,
};

/// How packets come to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Addresses and ports are translated, there and back.
    Nat,
    /// The Ethernet address alone is changed; the backend has the virtual address and answers by itself.
    Dsr,
    /// IP in IP (RFC 2003, 2473, 4213); the backend unpacks, and answers by itself.
    Ipip,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue), port 6080; the backend unpacks, and answers by itself.
    Gue,
}

/// Who gets a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// Consistent hashing (Eisenbud et al., NSDI'16 §3.4).
    Maglev,
    /// One after the other, by weight.
    RoundRobin,
    /// Who has the fewest for its weight.
    LeastConnections,
    /// By lot, by weight.
    Random,
}

/// Protocols of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Both.
    Both,
}

impl Protocol {
    /// Whether the service is about this IP protocol.
    #[must_use]
    pub fn covers(self, protocol: u8) -> bool {
        match protocol {
            6 => self != Self::Udp,
            17 => self != Self::Tcp,
            _ => false,
        }
    }
}

/// Which clients get another source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// None.
    Never,
    /// Those that are backends of the service themselves, whose answers would not come back here.
    Hairpin,
    /// All.
    Always,
}

/// Translation of clients' addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceNat {
    /// For whom.
    pub when: When,
    /// Addresses that take their place.
    pub addresses: Vec<IpAddr>,
    /// Ports that take their place.
    pub ports: RangeInclusive<u16>,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its virtual address or prefix.
    pub address: IpNet,
    /// Its protocols.
    pub protocol: Protocol,
    /// Its ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// How packets come to backends.
    pub mode: Mode,
    /// Who gets new connections.
    pub scheduler: Scheduler,
    /// Entries of its Maglev table; a prime number.
    pub table_size: u32,
    /// A client comes to the same backend as long as it was away for less.
    pub sticky: Option<Duration>,
    /// Translation of clients' addresses.
    pub source_nat: SourceNat,
    /// Most connections at a time.
    pub max_connections: Option<u32>,
    /// A backend that comes up gets its full part after this long.
    pub slow_start: Option<Duration>,
    /// Active checks.
    pub health: Option<Health>,
    /// Passive checks.
    pub passive: Option<Passive>,
    /// Servers.
    pub backends: Vec<Backend>,
}

impl Service {
    /// All of it but its backends.
    #[must_use]
    pub fn without_backends(&self) -> Self {
        Self {
            name: self.name.clone(),
            address: self.address,
            protocol: self.protocol,
            ports: self.ports.clone(),
            mode: self.mode,
            scheduler: self.scheduler,
            table_size: self.table_size,
            sticky: self.sticky,
            source_nat: self.source_nat.clone(),
            max_connections: self.max_connections,
            slow_start: self.slow_start,
            health: self.health.clone(),
            passive: self.passive,
            backends: Vec::new(),
        }
    }

    /// Single addresses that the balancer answers for because of it. (In a prefix it does not answer for hosts that are
    /// there: backends, and routers to them.)
    pub fn answered_for(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let is_one = self.address.prefix_len() == self.address.max_prefix_len();
        is_one.then(|| self.address.addr()).into_iter().chain(self.translated_to())
    }

    /// Addresses that take the place of clients'.
    pub fn translated_to(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let nat = &self.source_nat;
        nat.addresses.iter().copied().filter(|_| nat.when != When::Never)
    }

    /// Whether some packet would be for both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        // A prefix and an address in it are told apart: the longer one wins.
        let same = self.address == other.address;
        let protocols = [6, 17].iter().any(|p| self.protocol.covers(*p) && other.protocol.covers(*p));
        let meet =
            |a: &RangeInclusive<u16>, b: &RangeInclusive<u16>| a.start() <= b.end() && b.start() <= a.end();
        same && protocols && self.ports.iter().any(|a| other.ports.iter().any(|b| meet(a, b)))
    }
}

const KEYS: [&str; 13] = [
    "address",
    "protocol",
    "port",
    "mode",
    "scheduler",
    "table-size",
    "sticky",
    "source-nat",
    "max-connections",
    "slow-start",
    "health",
    "passive",
    "backends",
];

/// Reads one service; `config` has all that stands above the services.
pub(super) fn read(name: &str, cursor: &Cursor<'_>, config: &Config) -> Option<Service> {
    let table = cursor.table(&KEYS)?;
    let address = virtual_address(&table, config);
    let modes = [("nat", Mode::Nat), ("dsr", Mode::Dsr), ("ipip", Mode::Ipip), ("gue", Mode::Gue)];
    let mode = table.get("mode").map_or(Some(Mode::Nat), |c| c.choice(&modes));
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("both", Protocol::Both)];
    let protocol = table.get("protocol").map_or(Some(Protocol::Tcp), |c| c.choice(&protocols));
    let schedulers = [
        ("maglev", Scheduler::Maglev),
        ("round-robin", Scheduler::RoundRobin),
        ("least-connections", Scheduler::LeastConnections),
        ("random", Scheduler::Random),
    ];
    let scheduler = table.get("scheduler").map_or(Some(Scheduler::Maglev), |c| c.choice(&schedulers));
    let ports = ports(&table);
    let passive = table.get("passive").and_then(|c| {
        if mode.is_some_and(|mode| mode != Mode::Nat) {
            c.error("answers are not seen in this mode, only in mode nat");
        }
        health::read_passive(&c)
    });
    let (address, mode) = (address?, mode?);
    let backends = backends(&table, (mode, address.addr().is_ipv4()), config)?;
    let service = Service {
        name: name.to_string(),
        address,
        protocol: protocol?,
        ports: ports?,
        mode,
        scheduler: scheduler?,
        table_size: table.get("table-size").map_or(Some(TABLE_SIZE), |c| table_size(&c, backends.len()))?,
        sticky: table.get("sticky").and_then(|c| positive(&c)),
        source_nat: source_nat(&table, (mode, address.addr()), config)?,
        max_connections: table.get("max-connections").and_then(|c| c.number(1..=u32::MAX)),
        slow_start: table.get("slow-start").and_then(|c| positive(&c)),
        health: table.get("health").and_then(|c| health::read(&c)),
        passive,
        backends,
    };
    check_health(&table, &service);
    Some(service)
}

fn virtual_address(table: &Table<'_>, config: &Config) -> Option<IpNet> {
    let place = table.need("address")?;
    let text = place.text()?;
    if !text.contains('/') {
        let address = host(&place)?;
        if config.addresses.contains(&address) {
            place.warn(format!("{address} is also an own address: all else that comes to it ends here"));
        }
        return Some(address.into());
    }
    let Ok(net) = text.parse::<IpNet>() else {
        place.error(format!("{text:?} is no IPv4 or IPv6 address or prefix"));
        return None;
    };
    if net.addr() != net.network() {
        place.error(format!("{text} has bits set after its prefix: {} is meant", net.trunc()));
    }
    Some(net.trunc())
}

fn ports(table: &Table<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let place = table.need("port")?;
    if place.plain() == Some("any") {
        return Some(vec![0..=u16::MAX]);
    }
    let written = place.one_or_many();
    if written.is_empty() {
        place.error("at least one port is needed, or `any`");
        return None;
    }
    written.iter().map(port_range).collect()
}

fn table_size(cursor: &Cursor<'_>, backends: usize) -> Option<u32> {
    let size: u32 = cursor.number(7..=4_194_301)?;
    if !is_prime(size) {
        let next = (size..).find(|n| is_prime(*n)).unwrap_or(TABLE_SIZE);
        cursor.error(format!("{size} is not prime; the next prime number is {next}"));
        return None;
    }
    if (size as usize) < backends * 100 {
        cursor
            .warn(format!("{size} entries for {backends} backends: less than 100 each, so parts are uneven"));
    }
    Some(size)
}

pub(crate) fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

fn source_nat(table: &Table<'_>, (mode, vip): (Mode, IpAddr), config: &Config) -> Option<SourceNat> {
    let own: Vec<IpAddr> = config.own_address(vip).into_iter().collect();
    let when = if own.is_empty() { When::Never } else { When::Hairpin };
    let default = SourceNat { when, addresses: own, ports: 1024..=65_535 };
    let Some(cursor) = table.get("source-nat") else { return Some(default) };
    if mode != Mode::Nat {
        cursor.error("only mode nat translates");
    }
    let choices = [("never", When::Never), ("hairpin", When::Hairpin), ("always", When::Always)];
    if cursor.plain().is_some() {
        let when = cursor.choice(&choices)?;
        return complete(&cursor, SourceNat { when, ..default });
    }
    let table = cursor.table(&["when", "addresses", "ports"])?;
    let when = table.get("when").map_or(Some(When::Always), |c| c.choice(&choices))?;
    let mut addresses = Vec::new();
    for place in table.get("addresses").map(|c| c.one_or_many()).unwrap_or_default() {
        let address = host(&place)?;
        if address.is_ipv4() != vip.is_ipv4() {
            place.error(format!("{address} is of the other IP version than the service"));
        }
        if addresses.contains(&address) {
            place.error(format!("{address} stands here twice"));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        addresses = default.addresses;
    }
    let ports = table.get("ports").map_or(Some(default.ports), |c| port_range(&c))?;
    complete(&cursor, SourceNat { when, addresses, ports })
}

fn complete(cursor: &Cursor<'_>, nat: SourceNat) -> Option<SourceNat> {
    if nat.when != When::Never && nat.addresses.is_empty() {
        cursor.error("an address is needed: give `addresses` here or at the top of the file");
        return None;
    }
    Some(nat)
}

fn backends(table: &Table<'_>, kind: (Mode, bool), config: &Config) -> Option<Vec<Backend>> {
    let place = table.need("backends")?;
    let entries = place.entries()?;
    if entries.is_empty() {
        place.error("at least one backend is needed");
    }
    if entries.len() > MAX_BACKENDS {
        place.error(format!("{} backends are more than the {MAX_BACKENDS} that there may be", entries.len()));
        return None;
    }
    let mut by_place: BTreeMap<(IpAddr, Option<u16>), &str> = BTreeMap::new();
    let mut all = Vec::with_capacity(entries.len());
    for (key, cursor) in &entries {
        let Some(backend) = backend::read(&key.text, cursor, kind, config) else { continue };
        if let Some(other) = by_place.insert((backend.address, backend.port), &key.text) {
            cursor.error(format!("it is the same server as {other:?}"));
        }
        all.push(backend);
    }
    if !all.is_empty() && all.iter().all(|backend| backend.weight == 0 || backend.drain) {
        place.warn("none of them takes new connections");
    }
    Some(all)
}

/// Complains of checks that could not be made.
fn check_health(table: &Table<'_>, service: &Service) {
    let (Some(cursor), Some(health)) = (table.get("health"), &service.health) else { return };
    let single = matches!(service.ports.as_slice(), [range] if range.start() == range.end());
    let without = service.backends.iter().any(|backend| backend.port.is_none());
    if health.probe != Probe::Icmp && health.port.is_none() && without && !single {
        cursor.error("which port to ask is not clear: the service has several; give health.port");
    }
}
