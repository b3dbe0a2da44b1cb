//! One server behind a service.

use std::net::IpAddr;

use onvm_lib::document::Cursor;
use onvm_lib::wire::MacAddr;

use super::{Config, Mode, Service, host, station};

/// Largest weight: the Maglev table is filled in proportion, and with much more the small ones would have nothing.
pub const MAX_WEIGHT: u32 = 1000;

/// A server behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name within the service.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
    /// Its port; none: the one that the client asked for.
    pub port: Option<u16>,
    /// Its part of new connections, in proportion to the others'; 0: none, as if drained.
    pub weight: u32,
    /// Its Ethernet address, or that of the router to it; none: it is resolved.
    pub mac: Option<MacAddr>,
    /// The router to it; none: it is on the link.
    pub next_hop: Option<IpAddr>,
    /// Most connections at a time.
    pub max_connections: Option<u32>,
    /// It gets no new connections.
    pub drain: bool,
}

impl Backend {
    /// Whether both are the same server, so that connections to the one are connections to the other.
    #[must_use]
    pub fn is_same_server(&self, other: &Self) -> bool {
        self.name == other.name && self.address == other.address && self.port == other.port
    }

    /// Address whose Ethernet address is needed to reach it.
    #[must_use]
    pub fn neighbour(&self) -> IpAddr {
        self.next_hop.unwrap_or(self.address)
    }
}

/// Keys of a backend, and what a command says of it besides.
const KEYS: [&str; 9] =
    ["address", "port", "weight", "mac", "next-hop", "max-connections", "drain", "service", "backend"];

/// Reads a backend that a command adds to a service.
pub(crate) fn read_backend(
    name: &str,
    cursor: &Cursor<'_>,
    service: &Service,
    config: &Config,
) -> Option<Backend> {
    let backend = read_known(name, cursor, &KEYS, (service.mode, service.address.addr().is_ipv4()), config)?;
    for host in [backend.address, backend.neighbour()] {
        if let Some(service) = config.services.iter().find(|s| s.answered_for().any(|own| own == host)) {
            cursor.error(format!(
                "{host} is an address of service {:?}, for which the balancer answers",
                service.name
            ));
        }
    }
    Some(backend)
}

/// Reads one backend of a service with this mode and address.
pub(super) fn read(name: &str, cursor: &Cursor<'_>, kind: (Mode, bool), config: &Config) -> Option<Backend> {
    read_known(name, cursor, &KEYS[..7], kind, config)
}

fn read_known(
    name: &str,
    cursor: &Cursor<'_>,
    known: &[&str],
    (mode, v4): (Mode, bool),
    config: &Config,
) -> Option<Backend> {
    let table = cursor.table(known)?;
    super::name(name, cursor);
    let place = table.need("address")?;
    let address = host(&place)?;
    if matches!(mode, Mode::Nat | Mode::Dsr) && address.is_ipv4() != v4 {
        place.error(format!("{address} is of the other IP version than the service"));
    }
    if config.addresses.contains(&address) {
        place.error(format!("{address} is the balancer's own address"));
    }
    if matches!(mode, Mode::Ipip | Mode::Gue) && config.own_address(address).is_none() {
        let version = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        place.error(format!(
            "a tunnel to {address} needs an {version} address among `addresses` to come from"
        ));
    }
    let port = table.get("port").and_then(|c| {
        if mode != Mode::Nat {
            c.error("only mode nat changes ports");
        }
        c.number(1..=u16::MAX)
    });
    let mac = table.get("mac").and_then(|c| station(&c));
    let next_hop = table.get("next-hop").and_then(|c| {
        let hop = host(&c)?;
        if config.addresses.contains(&hop) {
            c.error(format!("{hop} is the balancer's own address"));
        }
        if hop.is_ipv4() != address.is_ipv4() {
            c.error(format!("{hop} is of the other IP version than {address}"));
        }
        Some(hop)
    });
    let backend = Backend {
        name: name.to_string(),
        address,
        port,
        weight: table.get("weight").map_or(Some(1), |c| c.number(0..=MAX_WEIGHT)).unwrap_or(1),
        mac,
        next_hop,
        max_connections: table.get("max-connections").and_then(|c| c.number(1..=u32::MAX)),
        drain: table.get("drain").and_then(|c| c.boolean()).unwrap_or(false),
    };
    if config.mac.is_none() && (mac.is_some() || next_hop.is_some() || mode == Mode::Dsr) {
        cursor.error("the balancer's own `mac` at the top of the file is needed to set Ethernet addresses");
    }
    if config.mac.is_some() && mac.is_none() && config.own_address(backend.neighbour()).is_none() {
        cursor.error(format!(
            "to resolve {} an address of its version is needed among `addresses`; or give the backend's mac",
            backend.neighbour()
        ));
    }
    Some(backend)
}
