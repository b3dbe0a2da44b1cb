//! The monitor itself, apart from bursts and the command line.

use std::time::Duration;

use onvm_lib::wire::{Headers, tcp};

use crate::flow::{Seen, Sort};
use crate::protocols::Protocols;
use crate::rates::Rates;
use crate::table::Table;

/// All that is counted.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) protocols: Protocols,
    pub(crate) rates: Rates,
    pub(crate) table: Table,
    /// Flows and hosts to show.
    pub(crate) top: usize,
    pub(crate) sort: Sort,
}

impl Monitor {
    pub(crate) fn new(max_flows: usize, timeout: Duration, top: usize, sort: Sort) -> Self {
        Self {
            protocols: Protocols::default(),
            rates: Rates::default(),
            table: Table::new(max_flows, timeout, top, sort),
            top,
            sort,
        }
    }

    /// Counts a packet. `hash` is its symmetric flow hash, `length` what it had on the wire.
    #[inline]
    pub(crate) fn packet(&mut self, frame: &[u8], length: usize, hash: u32, now_ns: u64) {
        let headers = Headers::parse(frame);
        let bytes = length as u64;
        self.protocols.count(&headers, bytes);
        self.rates.count(bytes, now_ns);
        let flags = if headers.protocol() == Some(tcp::PROTOCOL) {
            headers.tcp(frame).map_or(tcp::Flags(0), |segment| segment.flags())
        } else {
            tcp::Flags(0)
        };
        self.table.count(hash, headers.flow_key(frame), Seen { bytes, now_ns, flags });
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        self.rates.tick(now_ns);
        self.table.sweep(now_ns);
    }
}
