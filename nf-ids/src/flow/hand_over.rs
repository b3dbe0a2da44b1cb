//! Flows on their way to a successor.

use serde::{Deserialize, Serialize};

use super::key::{End, Key};
use super::table::{Flow, State, Table};
use crate::stream::{self, Session};

/// A flow without what only its owner can go on with: data that waits, and what applications said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried<X> {
    key: Key,
    client_low: bool,
    id: u64,
    client: End,
    server: End,
    protocol: u8,
    vlans: [u16; 3],
    vlan_count: u8,
    start_ns: u64,
    last_ns: u64,
    packets: [u64; 2],
    bytes: [u64; 2],
    state: State,
    session: Option<stream::Carried>,
    kept: X,
}

impl<X: Default> Table<X> {
    /// All flows; `kept` says what is handed over of what is kept with each.
    pub fn carried<Y>(&self, kept: impl Fn(&X) -> Y) -> Vec<Carried<Y>> {
        let carry = |flow: &Flow<X>| Carried {
            key: flow.key,
            client_low: flow.client_low,
            id: flow.id,
            client: flow.client,
            server: flow.server,
            protocol: flow.protocol,
            vlans: flow.vlans,
            vlan_count: flow.vlan_count,
            start_ns: flow.start_ns,
            last_ns: flow.last_ns,
            packets: flow.packets,
            bytes: flow.bytes,
            state: flow.state,
            session: flow.session.as_ref().map(|session| session.carried()),
            kept: kept(&flow.kept),
        };
        self.all().map(carry).collect()
    }

    /// Takes a predecessor's flow, if there is room and none of its key; whether it did.
    pub fn adopt<Y>(&mut self, carried: Carried<Y>, kept: impl Fn(Y) -> X) -> bool {
        self.put(Flow {
            key: carried.key,
            client_low: carried.client_low,
            id: carried.id,
            client: carried.client,
            server: carried.server,
            protocol: carried.protocol,
            vlans: carried.vlans,
            vlan_count: carried.vlan_count.min(3),
            start_ns: carried.start_ns,
            last_ns: carried.last_ns,
            packets: carried.packets,
            bytes: carried.bytes,
            state: carried.state,
            session: carried.session.as_ref().map(Session::resumed),
            kept: kept(carried.kept),
        })
    }
}
