//! The monitor itself, apart from bursts and the command line.

use onvm_lib::flow_table::Guess;
use onvm_lib::prelude::MAX_BURST;
use onvm_lib::wire::{FlowKey, Headers, tcp};

use crate::flow::Seen;
use crate::keys::{self, Keys};
use crate::protocols::Protocols;
use crate::rates::Rates;
use crate::settings::Settings;
use crate::table::{Frame, SWEEP, Table};

/// All that is counted.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) protocols: Protocols,
    pub(crate) rates: Rates,
    pub(crate) table: Table,
    pub(crate) settings: Settings,
    /// More has to be known of a packet than what is counted anyway.
    recorded: bool,
    /// Places of the table that are to be looked at before the next tick.
    to_look_at: usize,
    /// Bursts have come since the last tick.
    bursts: bool,
}

/// Places of the table that are looked at after a burst, and flows that are added to totals then: some 100 µs for a survey, and
/// 0.8 ms if all of them are over.
const PART: usize = 256;

impl Monitor {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            protocols: Protocols::default(),
            rates: Rates::default(),
            table: Table::new(&settings),
            recorded: settings.records
                || settings.keys == Keys::Netflow
                || settings.timeouts.active() < u64::MAX,
            to_look_at: 0,
            bursts: false,
            settings,
        }
    }

    /// Fetches the flows of a burst from memory, if there are many.
    #[inline]
    pub(crate) fn expect(&self, hashes: impl Iterator<Item = u32>) {
        if !self.table.is_large() {
            return;
        }
        let (mut all, mut guesses, mut n) = ([0; MAX_BURST], [Guess::NONE; MAX_BURST], 0);
        for (to, hash) in all.iter_mut().zip(hashes) {
            *to = hash;
            n += 1;
        }
        self.table.fetch(&all[..n], &mut guesses);
    }

    /// Counts a packet. `hash` is its symmetric flow hash, `length` what it had on the wire.
    #[inline]
    pub(crate) fn packet(&mut self, frame: &[u8], length: usize, hash: u32, now_ns: u64) {
        let mut headers = Headers::parse(frame);
        let (mut hash, bytes) = (hash, length as u64);
        if self.settings.inner
            && let Some(carried) = headers.innermost(frame)
        {
            headers = carried;
            hash = carried.flow_hash(frame);
        }
        self.protocols.count(&headers, bytes);
        self.rates.count(bytes, now_ns);
        let flags = if headers.protocol() == Some(tcp::PROTOCOL) {
            headers.tcp(frame).map_or(tcp::Flags(0), |segment| segment.flags())
        } else {
            tcp::Flags(0)
        };
        let key = headers.flow_key(frame);
        let whole = Frame { headers, bytes: frame };
        let seen = Seen { bytes, octets: 0, now_ns, flags };
        if self.recorded {
            return self.packet_to_record(whole, hash, key, seen);
        }
        self.table.count::<false>(hash, key, seen, whole);
    }

    /// The same for those who want records, or keys that cost more.
    #[inline(never)]
    fn packet_to_record(&mut self, frame: Frame<'_>, hash: u32, key: FlowKey, seen: Seen) {
        let octets = keys::ip_length(&frame.headers, frame.bytes, seen.bytes);
        let (hash, key) = match self.settings.keys {
            Keys::Connection => (hash, key),
            Keys::Netflow => keys::netflow(&frame.headers, frame.bytes, hash, key),
        };
        self.table.count::<true>(hash, key, Seen { octets, ..seen }, frame);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        self.rates.tick(now_ns);
        // Where bursts come they have looked at their part each, and packets wait for little; else none wait.
        let left = std::mem::replace(&mut self.to_look_at, SWEEP);
        let slots = if std::mem::take(&mut self.bursts) { left.min(PART) } else { SWEEP };
        self.table.look(slots, now_ns);
        self.table.ended.catch_up(slots);
    }

    /// A burst of a live monitor is counted: a part of what a report or the search for silent flows needs of all flows.
    #[inline]
    pub(crate) fn step(&mut self, now_ns: u64) {
        self.bursts = true;
        if self.to_look_at > 0 || self.table.is_surveyed() {
            self.to_look_at = self.to_look_at.saturating_sub(PART);
            self.table.look(PART, now_ns);
        }
        self.table.ended.catch_up(PART);
    }
}
