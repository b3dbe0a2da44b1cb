//! `null:`: receives nothing, sends everything nowhere.

use onvm_lib::pool::{Books, Packet};

use super::{Port, PortCounters, PortError, Reception, Spec};

/// A sink.
#[derive(Debug)]
pub(super) struct NullPort {
    name: String,
    counters: PortCounters,
}

impl NullPort {
    #[allow(clippy::unnecessary_wraps)] // as the other kinds
    pub(super) fn open(spec: &Spec) -> Result<Self, PortError> {
        Ok(Self { name: spec.text().to_string(), counters: PortCounters::default() })
    }
}

impl Port for NullPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_finite(&self) -> bool {
        true
    }

    fn waits(&self) -> bool {
        true
    }

    fn receive(&mut self, _: &mut Books, _: &mut Vec<Packet>, _: usize) -> Reception {
        Reception::Finished
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        self.counters.tx_packets += burst.len() as u64;
        self.counters.tx_bytes += books.free_all(burst);
    }

    fn discards(&self) -> bool {
        true
    }

    fn discarded(&mut self, packets: u64, bytes: u64) {
        self.counters.tx_packets += packets;
        self.counters.tx_bytes += bytes;
    }

    fn close(&mut self, _: &mut Books) -> Result<(), PortError> {
        Ok(())
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
