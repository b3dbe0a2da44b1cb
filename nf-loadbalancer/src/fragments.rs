//! Fragments: the first one has the ports and so the connection; the others follow it by their identification.
//!
//! A fragment that comes before its first one cannot be placed and is dropped; so is one whose datagram has been
//! forgotten, since the memory is bounded and forgets the oldest. A packet that is to be translated is never let
//! through untranslated.

use std::time::Duration;

use onvm_lib::flow_table::FlowTable;
use onvm_lib::prelude::DropReason;
use onvm_lib::wire::{FlowKey, Headers, Net};

use crate::balancer::{Balancer, Look, Step};
use crate::connections::{Endpoint, key_between};
use crate::frame::Frame;

#[derive(Clone, Copy, Debug)]
struct Datagram {
    /// The flow of its first fragment.
    flow: FlowKey,
    last_ns: u64,
}

/// Datagrams of which the first fragment was seen.
#[derive(Debug)]
pub(crate) struct Fragments {
    table: FlowTable<Datagram>,
    timeout_ns: u64,
}

/// What the fragments of a datagram share (RFC 791 §2.3, RFC 8200 §4.5): addresses, identification, and in IPv4 the
/// protocol.
fn key(headers: &Headers, frame: &[u8], addresses: &FlowKey) -> Option<FlowKey> {
    let id = headers.fragment(frame)?.id.to_be_bytes();
    let (high, low) = (u16::from_be_bytes([id[0], id[1]]), u16::from_be_bytes([id[2], id[3]]));
    let protocol = if headers.net() == Net::Ipv4 { headers.protocol()? } else { 0 };
    let source = Endpoint { ip: addresses.src()?, port: high };
    key_between(source, Endpoint { ip: addresses.dst()?, port: low }, protocol)
}

impl Fragments {
    pub(crate) fn new(most: u32, timeout: Duration) -> Self {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        Self { table: FlowTable::new(most as usize), timeout_ns }
    }

    pub(crate) fn sweep(&mut self, now_ns: u64) {
        let timeout_ns = self.timeout_ns;
        self.table.sweep(256, |_, datagram| now_ns.saturating_sub(datagram.last_ns) < timeout_ns);
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Balancer {
    /// The first fragment of a datagram: where it goes, the others go.
    #[cold]
    pub(crate) fn note_fragment(&mut self, frame: &[u8], look: &Look, now_ns: u64) {
        if let Some(key) = key(&look.headers, frame, &look.key) {
            let datagram = Datagram { flow: look.key, last_ns: now_ns };
            let _ = self.fragments.table.insert(key.hash32(), key, datagram, |_, other| Some(other.last_ns));
        }
    }

    /// A fragment without ports.
    pub(crate) fn later_fragment<F: Frame>(&mut self, frame: &mut F, look: &Look, now_ns: u64) -> Step {
        let timeout_ns = self.fragments.timeout_ns;
        let key = key(&look.headers, frame.bytes(), &look.key);
        let found = key.and_then(|key| self.fragments.table.find(key.hash32(), &key).copied());
        let found = found.filter(|datagram| now_ns.saturating_sub(datagram.last_ns) < timeout_ns);
        let flow = found.and_then(|datagram| {
            let flow = self.connections.table.find(datagram.flow.hash32(), &datagram.flow)?;
            flow.last_ns = now_ns;
            Some(*flow)
        });
        if let Some(flow) = flow {
            self.counts.fragments += 1;
            return self.carry(frame, look, &flow);
        }
        // The first one was seen, and was nobody's.
        if found.is_some_and(|datagram| !self.concerns(&datagram.flow)) {
            return self.other();
        }
        let ours = |ip| self.directory.is_virtual(ip) || self.directory.is_backend(ip);
        if look.key.dst().is_some_and(ours) || look.key.src().is_some_and(ours) {
            self.counts.lost_fragments += 1;
            return DropReason::NoRoute.into();
        }
        self.other()
    }

    /// Whether a flow is to or from a service.
    fn concerns(&self, key: &FlowKey) -> bool {
        let (Some(src), Some(dst), Some(protocol)) = (key.src(), key.dst(), key.protocol()) else {
            return false;
        };
        self.directory.is_origin(src, key.src_port())
            || self.directory.find(dst, protocol, key.dst_port()).is_some()
    }
}
