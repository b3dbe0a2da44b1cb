//! What the worker says for captures of ports (`capture=`): where packets go that came in, and why others are dropped.
//!
//! Nothing here is called when no port has a capture.

use std::sync::Arc;

use onvm_lib::packet::DropReason;
use onvm_lib::pool::Packet;
use onvm_lib::protocol::ServiceId;
use onvm_lib::ring::{Destination, Op};

use super::{Table, Worker};
use crate::ports::HopNames;

impl Worker {
    /// Tells captures what positions mean.
    #[cold]
    pub(super) fn name_hops(&mut self) {
        let names = Arc::new(names(&self.table));
        for state in &mut self.ports {
            if let Some(capture) = state.port.capture() {
                capture.set_names(Arc::clone(&names));
            }
        }
    }

    /// Packets have come in by a port.
    #[cold]
    pub(super) fn capture_arrivals(&mut self, index: usize, burst: &[Packet]) {
        let port = u8::try_from(index).unwrap_or(u8::MAX);
        for packet in burst {
            let to = self.entry.for_frame(packet.bytes(self.books.pool()), port);
            if let Some(capture) = self.ports.get_mut(index).and_then(|state| state.port.capture()) {
                capture.arrived(&self.books, packet, to);
            }
        }
    }

    /// A packet is dropped, by a service if that is not 0. It stands in the capture of the port that it came in by.
    #[cold]
    pub(super) fn capture_drop(&mut self, packet: &Packet, reason: DropReason, by: ServiceId) {
        let port = usize::from(packet.descriptor().port());
        if let Some(capture) = self.ports.get_mut(port).and_then(|state| state.port.capture()) {
            capture.dropped(&self.books, packet, reason, by);
        }
    }

    /// A packet that goes out says from now on which service it comes from, if its position does not.
    #[cold]
    pub(super) fn sign(packet: &mut Packet, service: ServiceId) {
        let verdict = packet.descriptor().destination();
        if verdict.op() != Op::Next || verdict.argument() == 0 {
            packet.set_destination(Destination::new(Op::Service, service));
        }
    }
}

/// The chain and service of each position of a table; those of chains that are gone have no name.
fn names(table: &Table) -> HopNames {
    let nobody: Arc<str> = Arc::from("");
    let mut names = vec![(Arc::clone(&nobody), 0); table.services.len()];
    for (chain, first) in &table.chains {
        let chain: Arc<str> = Arc::from(chain.as_str());
        let mut at = *first;
        // A chain has no more hops than there are positions.
        for _ in 0..table.services.len() {
            if at.service == 0 {
                break;
            }
            if let Some(place) = names.get_mut(usize::from(at.position)) {
                *place = (Arc::clone(&chain), at.service);
            }
            at = table.hops.get(usize::from(at.position)).copied().unwrap_or_default();
        }
    }
    HopNames(names)
}
