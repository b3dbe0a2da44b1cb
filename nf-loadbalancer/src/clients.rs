//! Sticky clients: which backend each had, for services that keep them together.
//!
//! Services and backends are named by numbers that no other ever has, so that a client of one that is gone is nobody's,
//! and a reload need not touch the table.

use std::net::IpAddr;
use std::time::Duration;

use onvm_lib::flow_table::FlowTable;
use onvm_lib::wire::FlowKey;

/// A client's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its slot, where another one may be by now.
    pub(crate) slot: u32,
    /// Its number, which no other has.
    pub(crate) id: u64,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    place: Place,
    last_ns: u64,
}

/// Clients by service and address. Full, it forgets who was away for longest.
#[derive(Debug)]
pub(crate) struct Clients(FlowTable<Client>);

/// The key of a client of a service: two addresses of its own family, and the service's number for ports.
fn key(service: u32, ip: IpAddr) -> FlowKey {
    let number = service.to_be_bytes();
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
    pub(crate) fn find(&self, service: u32, ip: IpAddr, time: Duration, now_ns: u64) -> Option<Place> {
        let key = key(service, ip);
        let client = self.0.get(key.hash32(), &key)?;
        (u128::from(now_ns.saturating_sub(client.last_ns)) < time.as_nanos()).then_some(client.place)
    }

    /// A client has this backend.
    pub(crate) fn note(&mut self, service: u32, ip: IpAddr, place: Place, now_ns: u64) {
        let key = key(service, ip);
        let client = Client { place, last_ns: now_ns };
        let _ = self.0.insert(key.hash32(), key, client, |_, client| Some(client.last_ns));
    }

    /// All clients: service, address, backend, time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, IpAddr, Place, u64)> {
        self.0.iter().filter_map(|(key, client)| {
            let service = u32::from(key.src_port()) << 16 | u32::from(key.dst_port());
            Some((service, key.src()?, client.place, client.last_ns))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
