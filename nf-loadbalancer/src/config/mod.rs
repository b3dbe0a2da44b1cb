//! What a services file says, checked as far as it can be without a packet.
//!
//! Every mistake is told with its place ([`onvm_lib::document`]); a file with one is not used at all. The reference
//! of all keys is the crate's README.

mod backend;
mod health;
mod service;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use onvm_lib::document::{Cursor, Report, Table, read};
use onvm_lib::wire::MacAddr;

pub(crate) use backend::read_backend;
pub use backend::{Backend, MAX_WEIGHT};
pub use health::{Health, Passive, Probe};
pub use service::{Mode, Protocol, Scheduler, Service, SourceNat, When};

/// Default number of entries of a Maglev table, as in the paper (NSDI'16 §5.3).
pub const TABLE_SIZE: u32 = 65_537;
/// Most services in a file.
pub const MAX_SERVICES: usize = 4096;
/// Most backends of one service.
pub const MAX_BACKENDS: usize = 4096;

/// How long what is silent is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TCP connection of which only one side was heard.
    pub half_open: Duration,
    /// A TCP connection.
    pub established: Duration,
    /// A TCP connection that was closed or reset.
    pub closed: Duration,
    /// Anything else.
    pub other: Duration,
    /// A datagram of which the first fragment was seen.
    pub fragment: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            half_open: Duration::from_secs(30),
            established: Duration::from_secs(900),
            closed: Duration::from_secs(10),
            other: Duration::from_secs(120),
            fragment: Duration::from_secs(30),
        }
    }
}

/// How much is remembered at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: u32,
    /// Datagrams of which the first fragment was seen.
    pub fragments: u32,
    /// Clients of services that are sticky.
    pub clients: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 262_144, fragments: 4096, clients: 65_536 }
    }
}

/// A services file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The balancer's own Ethernet address; without one, MAC addresses stay as they are and nothing is answered.
    pub mac: Option<MacAddr>,
    /// Addresses of its own: source of tunnels, of address resolution and of translated clients; answered for.
    pub addresses: Vec<IpAddr>,
    /// Port to the clients; none: along the chain.
    pub client_port: Option<u8>,
    /// Port to the backends; none: along the chain.
    pub backend_port: Option<u8>,
    /// Longest IP packet that may go to a backend, in bytes.
    pub mtu: u16,
    /// How long what is silent is remembered.
    pub timeouts: Timeouts,
    /// How much is remembered.
    pub limits: Limits,
    /// The services, in the order of the file.
    pub services: Vec<Service>,
}

impl Config {
    /// An own address of the family of `like`.
    #[must_use]
    pub fn own_address(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|own| own.is_ipv4() == like.is_ipv4())
    }
}

/// Reads a services file.
///
/// # Errors
/// All that is wrong with it, a line each: `FILE:LINE:COLUMN: PATH: MESSAGE`.
pub fn load(path: &Path) -> Result<Config, String> {
    let (config, report) = examine(path);
    config.ok_or_else(|| report.trim_end().to_string())
}

/// Whether all services translate addresses, as they must inside of tunnels.
///
/// # Errors
/// The first one that does not.
pub fn only_translates(config: &Config) -> Result<(), String> {
    match config.services.iter().find(|service| service.mode != Mode::Nat) {
        None => Ok(()),
        Some(service) => Err(format!(
            "services.{}.mode: with --inner packets stay in their tunnels, which only mode nat can do",
            service.name
        )),
    }
}

/// Reads a services file; what can be used of it, and all that is to be said of it, warnings too.
#[must_use]
pub fn examine(path: &Path) -> (Option<Config>, String) {
    let file = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => from_text(&text, &file),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
                (None, format!("{file}:{line}:1: this is no UTF-8\n"))
            }
        },
        Err(error) => (None, format!("{file}: {error}\n")),
    }
}

/// Reads the text of a services file that is called `file`.
#[must_use]
pub fn from_text(text: &str, file: &str) -> (Option<Config>, String) {
    let report = Report::new(file);
    let config = read(text, &report).and_then(|root| top(&Cursor::new(&root, &report)));
    let wrong = report.has_errors();
    (config.filter(|_| !wrong), report.to_string())
}

fn top(root: &Cursor<'_>) -> Option<Config> {
    let known = ["mac", "addresses", "ports", "mtu", "timeouts", "limits", "services"];
    let table = root.table(&known)?;
    let mac = table.get("mac").and_then(|c| station(&c));
    let mut addresses: Vec<IpAddr> = Vec::new();
    for cursor in table.get("addresses").map(|c| c.one_or_many()).unwrap_or_default() {
        let Some(address) = host(&cursor) else { continue };
        if addresses.contains(&address) {
            cursor.error(format!("{address} stands here twice"));
        }
        addresses.push(address);
    }
    let ports = table.get("ports").and_then(|c| c.table(&["clients", "backends"]));
    let port = |key| ports.as_ref().and_then(|t| t.get(key)).and_then(|c| c.number(0..=126u8));
    let mut config = Config {
        mac,
        addresses,
        client_port: port("clients"),
        backend_port: port("backends"),
        mtu: table.get("mtu").and_then(|c| c.number(1280..=65_535u16)).unwrap_or(1500),
        timeouts: timeouts(&table),
        limits: limits(&table),
        services: Vec::new(),
    };
    let Some(services) = table.need("services") else { return Some(config) };
    let entries = services.entries()?;
    if entries.is_empty() {
        services.error("at least one service is needed");
    }
    if entries.len() > MAX_SERVICES {
        services
            .error(format!("{} services are more than the {MAX_SERVICES} that there may be", entries.len()));
        return None;
    }
    for (key, cursor) in &entries {
        name(&key.text, cursor);
        let Some(service) = service::read(&key.text, cursor, &config) else { continue };
        if let Some(other) = config.services.iter().find(|other| other.overlaps(&service)) {
            cursor.error(format!("it has packets in common with {:?}", other.name));
        }
        config.services.push(service);
    }
    let mut hosts = HashMap::new();
    for service in &config.services {
        for backend in &service.backends {
            for host in [backend.address, backend.neighbour()] {
                hosts.entry(host).or_insert_with(|| format!("{}/{}", service.name, backend.name));
            }
        }
    }
    for (service, cursor) in config.services.iter().filter_map(|service| {
        let (_, cursor) = entries.iter().find(|(key, _)| key.text == service.name)?;
        Some((service, cursor))
    }) {
        for own in service.answered_for() {
            if let Some(backend) = hosts.get(&own) {
                cursor.error(format!(
                    "{own} is also an address of backend {backend} or of the router to it, for which the balancer would answer"
                ));
            }
        }
    }
    Some(config)
}

fn timeouts(table: &Table<'_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let keys = ["half-open", "established", "closed", "other", "fragment"];
    let Some(table) = table.get("timeouts").and_then(|c| c.table(&keys)) else { return timeouts };
    let places = [
        &mut timeouts.half_open,
        &mut timeouts.established,
        &mut timeouts.closed,
        &mut timeouts.other,
        &mut timeouts.fragment,
    ];
    for (key, place) in keys.iter().zip(places) {
        if let Some(read) = table.get(key).and_then(|c| positive(&c)) {
            *place = read;
        }
    }
    timeouts
}

fn limits(table: &Table<'_>) -> Limits {
    let mut limits = Limits::default();
    let keys = ["connections", "fragments", "clients"];
    let Some(table) = table.get("limits").and_then(|c| c.table(&keys)) else { return limits };
    let places = [&mut limits.connections, &mut limits.fragments, &mut limits.clients];
    for (key, place) in keys.iter().zip(places) {
        if let Some(read) = table.get(key).and_then(|c| c.number(1..=16_777_216u32)) {
            *place = read;
        }
    }
    limits
}

/// A duration of more than nothing.
fn positive(cursor: &Cursor<'_>) -> Option<Duration> {
    let read = cursor.duration()?;
    if read.is_zero() {
        cursor.error("more than 0 is needed");
        return None;
    }
    Some(read)
}

/// The MAC address of one station.
fn station(cursor: &Cursor<'_>) -> Option<MacAddr> {
    let mac: MacAddr = cursor.parsed()?;
    if mac.is_multicast() || mac == MacAddr::default() {
        cursor.error(format!("{mac} is not the address of one station"));
        return None;
    }
    Some(mac)
}

/// The address of one host.
fn host(cursor: &Cursor<'_>) -> Option<IpAddr> {
    let text = cursor.text()?;
    let Ok(address) = text.parse::<IpAddr>() else {
        cursor.error(format!("{text:?} is no IPv4 or IPv6 address"));
        return None;
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        cursor.error(format!("{address} is not the address of one host"));
        return None;
    }
    Some(address)
}

/// Complains of a name that could not be given on a command line.
fn name(name: &str, cursor: &Cursor<'_>) {
    const LONGEST: usize = 64;
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(known) {
        cursor.error(format!("a name has 1 to {LONGEST} letters, digits, - _ and ."));
    }
}

/// `80`, `8000-8100`.
fn port_range(cursor: &Cursor<'_>) -> Option<std::ops::RangeInclusive<u16>> {
    let text = cursor.text()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        cursor.error(format!("{text:?} is no port or range of ports like 80 or 8000-8100, 1 to 65535"));
        return None;
    };
    if first > last {
        cursor.error(format!("the range {text} ends before it begins"));
        return None;
    }
    Some(first..=last)
}

#[cfg(test)]
mod tests;
