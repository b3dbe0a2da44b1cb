//! Sticky clients: which backend each had, for services that keep them together.

use std::net::IpAddr;
use std::time::Duration;

use onvm_lib::flow_table::FlowTable;
use onvm_lib::wire::FlowKey;

#[derive(Clone, Copy, Debug)]
struct Client {
    server: u32,
    last_ns: u64,
}

/// Clients by service and address. Full, it forgets who was away for longest.
#[derive(Debug)]
pub(crate) struct Clients(FlowTable<Client>);

/// The key of a client of a service: two addresses of its own family, and the service's number for ports.
fn key(service: usize, ip: IpAddr) -> FlowKey {
    let number = u32::try_from(service).unwrap_or(u32::MAX).to_be_bytes();
    let ports = (u16::from_be_bytes([number[0], number[1]]), u16::from_be_bytes([number[2], number[3]]));
    match ip {
        IpAddr::V4(ip) => FlowKey::v4(ip, ip, ports.0, ports.1, 0),
        IpAddr::V6(ip) => FlowKey::v6(ip, ip, ports.0, ports.1, 0),
    }
}

impl Clients {
    pub(crate) fn new(most: u32) -> Self {
        Self(FlowTable::new(most as usize))
    }

    /// The hash of a client, whatever his port.
    pub(crate) fn hash(ip: IpAddr) -> u32 {
        key(0, ip).hash32()
    }

    /// The backend that a client had less than `time` ago.
    pub(crate) fn find(&self, service: usize, ip: IpAddr, time: Duration, now_ns: u64) -> Option<u32> {
        let key = key(service, ip);
        let client = self.0.get(key.hash32(), &key)?;
        (u128::from(now_ns.saturating_sub(client.last_ns)) < time.as_nanos()).then_some(client.server)
    }

    /// A client has this backend.
    pub(crate) fn note(&mut self, service: usize, ip: IpAddr, server: u32, now_ns: u64) {
        let key = key(service, ip);
        let client = Client { server, last_ns: now_ns };
        let _ = self.0.insert(key.hash32(), key, client, |_, client| Some(client.last_ns));
    }

    /// Forgets clients of backends that are gone, and whose time is over; services have new numbers, if `renumber` says
    /// so (none: gone).
    pub(crate) fn renumber(
        &mut self,
        renumber: impl Fn(usize) -> Option<usize>,
        lives: impl Fn(u32) -> bool,
    ) {
        let all: Vec<(FlowKey, Client)> = self.0.iter().map(|(key, client)| (*key, *client)).collect();
        self.0.sweep(usize::MAX, |_, _| false);
        for (old, client) in all {
            let service = usize::from(old.src_port()) << 16 | usize::from(old.dst_port());
            if let (Some(service), Some(ip), true) = (renumber(service), old.src(), lives(client.server)) {
                self.note(service, ip, client.server, client.last_ns);
            }
        }
    }

    /// All clients: service, address, backend's slot, time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, IpAddr, u32, u64)> {
        self.0.iter().filter_map(|(key, client)| {
            let service = usize::from(key.src_port()) << 16 | usize::from(key.dst_port());
            Some((service, key.src()?, client.server, client.last_ns))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
