//! Messages: header, sets, records.
//!
//! | | IPFIX | NetFlow 9 |
//! |---|---|---|
//! | header | 16 bytes; sequence = data records before this message | 20 bytes; sequence = messages before; counts all records |
//! | template set | 2 | 0 |
//! | options template set | 3: fields, of which scopes | 1: bytes of scopes, bytes of others |
//! | set length | padded to 4 | padded to 4 |

use serde::{Deserialize, Serialize};

use super::Shape;
use super::destination::Protocol;
use super::template::{Layout, Row, application_id, since};
use crate::application::APPLICATIONS;
use crate::records::Chunk;

/// Bytes of a message at most: fits an Ethernet frame with IPv6 and UDP, and tunnels on the way.
const LONGEST: usize = 1400;
/// The options template of application names.
const NAMES: u16 = 300;
/// Bytes of an application's name.
const NAME_BYTES: usize = 24;
const _: () = assert!(NAME_BYTES < 256);
/// Before the first time that is known, the exporter is said to have run for this long: packets of a capture are
/// not always in order.
const HEAD_START_MS: u64 = 3_600_000;

/// Where an exporter's numbers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sequence {
    /// Observation domain, NetFlow's source id.
    pub(crate) domain: u32,
    pub(crate) records: u32,
    pub(crate) messages: u32,
    /// When the exporter began, in milliseconds; 0 before it knows.
    pub(crate) boot_ms: u64,
}

/// Makes messages. At most one is open: it has data of one template after the other.
#[derive(Debug)]
pub(super) struct Encoder {
    protocol: Protocol,
    sequence: Sequence,
    bytes: Vec<u8>,
    /// The open set: template and where it begins.
    set: Option<(u16, usize)>,
    records: u32,
    /// Records of any kind, for NetFlow's header.
    all: u16,
    tally: (u64, u64),
}

impl Encoder {
    pub(super) fn new(protocol: Protocol, sequence: Sequence) -> Self {
        Self { protocol, sequence, bytes: Vec::new(), set: None, records: 0, all: 0, tally: (0, 0) }
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    pub(super) fn resume(&mut self, sequence: Sequence) {
        self.sequence = sequence;
    }

    fn header(&self) -> usize {
        match self.protocol {
            Protocol::Ipfix => 16,
            Protocol::Netflow9 => 20,
        }
    }

    fn boot(&mut self, now_ns: u64) -> u64 {
        if self.sequence.boot_ms == 0 {
            self.sequence.boot_ms = (now_ns / 1_000_000).saturating_sub(HEAD_START_MS).max(1);
        }
        self.sequence.boot_ms
    }

    /// Adds a record; a message that has become full by it.
    pub(super) fn add(&mut self, layout: Layout, row: &Row, shape: Shape, now_ns: u64) -> Option<Chunk> {
        let boot_ms = self.boot(now_ns);
        let mut record = Vec::with_capacity(128);
        layout.write(row, shape, self.protocol, boot_ms, &mut record);
        // A new set needs a header of 4 bytes, and its end up to 3 bytes of padding.
        let full = !self.bytes.is_empty() && self.bytes.len() + record.len() + 8 > LONGEST;
        let message = if full { self.finish(now_ns) } else { None };
        self.put(layout.number(), &record);
        self.records += 1;
        let (packets, octets) = row.totals(shape);
        self.tally = (self.tally.0 + packets, self.tally.1 + octets);
        message
    }

    /// Appends a record to the set of this number.
    fn put(&mut self, set: u16, record: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.resize(self.header(), 0);
        }
        if self.set.is_none_or(|(open, _)| open != set) {
            self.end_set();
            self.set = Some((set, self.bytes.len()));
            self.bytes.extend(set.to_be_bytes());
            self.bytes.extend([0; 2]);
        }
        self.bytes.extend_from_slice(record);
        self.all += 1;
    }

    fn end_set(&mut self) {
        let Some((_, from)) = self.set.take() else { return };
        let padded = (self.bytes.len() - from).next_multiple_of(4);
        self.bytes.resize(from + padded, 0);
        self.bytes[from + 2..from + 4].copy_from_slice(&short(padded));
    }

    /// Ends the open message, if there is one.
    pub(super) fn finish(&mut self, now_ns: u64) -> Option<Chunk> {
        if self.bytes.is_empty() {
            return None;
        }
        let boot_ms = self.boot(now_ns);
        self.end_set();
        let mut bytes = std::mem::take(&mut self.bytes);
        let seconds = u32::try_from((now_ns / 1_000_000_000) & 0xffff_ffff).unwrap_or(0).to_be_bytes();
        let Sequence { domain, records, messages, .. } = self.sequence;
        match self.protocol {
            Protocol::Ipfix => {
                let length = short(bytes.len());
                bytes[..2].copy_from_slice(&[0, 10]);
                bytes[2..4].copy_from_slice(&length);
                bytes[4..8].copy_from_slice(&seconds);
                bytes[8..12].copy_from_slice(&records.to_be_bytes());
                bytes[12..16].copy_from_slice(&domain.to_be_bytes());
            }
            Protocol::Netflow9 => {
                bytes[..2].copy_from_slice(&[0, 9]);
                bytes[2..4].copy_from_slice(&self.all.to_be_bytes());
                bytes[4..8].copy_from_slice(&since(now_ns / 1_000_000, boot_ms).to_be_bytes());
                bytes[8..12].copy_from_slice(&seconds);
                bytes[12..16].copy_from_slice(&messages.to_be_bytes());
                bytes[16..20].copy_from_slice(&domain.to_be_bytes());
            }
        }
        self.sequence.messages = messages.wrapping_add(1);
        // Records of options are data records, too (RFC 7011, 3.1); they were counted when they were put in.
        self.sequence.records = records.wrapping_add(self.records);
        let message = Chunk { bytes, records: self.records, totals: self.tally };
        (self.records, self.all, self.tally) = (0, 0, (0, 0));
        Some(message)
    }

    /// All templates, and the names of applications if records have some.
    pub(super) fn templates(&mut self, shape: Shape, now_ns: u64) -> Vec<Chunk> {
        let (templates, options) = match self.protocol {
            Protocol::Ipfix => (2, 3),
            Protocol::Netflow9 => (0, 1),
        };
        for layout in Layout::ALL {
            let template = layout.template(shape, self.protocol);
            self.put(templates, &template);
        }
        if shape.applications {
            let template = self.names_template();
            self.put(options, &template);
        }
        let mut messages: Vec<Chunk> = self.finish(now_ns).into_iter().collect();
        if shape.applications {
            for part in APPLICATIONS.chunks(LONGEST / (NAME_BYTES + 8) - 1) {
                for known in part {
                    let scope: &[u8] = match self.protocol {
                        Protocol::Ipfix => &[],
                        Protocol::Netflow9 => &self.sequence.domain.to_be_bytes(),
                    };
                    let mut record = [scope, &application_id(Some(known.number))].concat();
                    let name = record.len();
                    record.extend(known.name.bytes().take(NAME_BYTES));
                    record.resize(name + NAME_BYTES, 0);
                    self.put(NAMES, &record);
                }
                let data = u32::try_from(part.len()).unwrap_or(0);
                messages.extend(self.finish(now_ns));
                self.sequence.records = self.sequence.records.wrapping_add(data);
            }
        }
        messages
    }

    /// Application id and name (RFC 6759, 6.6). The id is the scope; NetFlow knows no such scope, so there it is the
    /// system.
    #[allow(clippy::cast_possible_truncation, reason = "a small constant")]
    fn names_template(&self) -> Vec<u8> {
        let words: &[u16] = match self.protocol {
            // Number, fields, of which scopes; then number and bytes of each.
            Protocol::Ipfix => &[NAMES, 2, 1, 95, 4, 96, NAME_BYTES as u16],
            // Number, bytes that tell the scopes, bytes that tell the others; scope 1 is the system.
            Protocol::Netflow9 => &[NAMES, 4, 8, 1, 4, 95, 4, 96, NAME_BYTES as u16],
        };
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
