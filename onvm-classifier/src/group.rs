//! Eight rules side by side: what leaves are made of.
//!
//! Field by field, so that a comparison is made with all eight rules at once (`simd.rs`). Prefixes are held as
//! value and number of bits that do not count: half of what value and mask would take, and leaves are most of
//! the memory.

use ipnet::IpNet;

use crate::bits::{self, Layout};
use crate::{Header, Rule5};

/// Rules in a group.
pub(crate) const LANES: usize = 8;

/// Eight rules of one family.
pub(crate) trait Group: Copy + Default + std::fmt::Debug + 'static {
    /// How headers of the family are laid out.
    const LAYOUT: &'static Layout;
    /// From which lengths on prefixes of source and destination may be called long: what is tried.
    const LENGTHS: &'static [[u8; 2]];
    /// Puts a rule into a lane.
    fn set(&mut self, lane: usize, rule: &Rule5, slot: u32);
    /// The number of the rule in a lane; [`crate::NONE`] if it is empty.
    fn slot(&self, lane: usize) -> u32;
    /// One bit for each lane whose rule `header` matches, the lowest for the first.
    fn matching(&self, header: &Header) -> u8;
}

/// Ports, protocols and numbers of eight rules. In an empty lane the source ports end before they begin.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Rest {
    pub(crate) first: [[u16; LANES]; 2],
    pub(crate) last: [[u16; LANES]; 2],
    pub(crate) protocol: [u8; LANES],
    pub(crate) protocol_mask: [u8; LANES],
    pub(crate) slots: [u32; LANES],
}

impl Default for Rest {
    fn default() -> Rest {
        Rest {
            first: [[1; LANES]; 2],
            last: [[0; LANES]; 2],
            protocol: [0; LANES],
            protocol_mask: [0; LANES],
            slots: [crate::NONE; LANES],
        }
    }
}

impl Rest {
    fn set(&mut self, lane: usize, rule: &Rule5, slot: u32) {
        for (which, ports) in [rule.source_ports, rule.destination_ports].into_iter().enumerate() {
            self.first[which][lane] = ports.first;
            self.last[which][lane] = ports.last;
        }
        self.protocol[lane] = rule.protocol;
        self.protocol_mask[lane] = rule.protocol_mask;
        self.slots[lane] = slot;
    }

    fn matches(&self, lane: usize, header: &Header) -> bool {
        let within =
            |which: usize, port: u16| self.first[which][lane] <= port && port <= self.last[which][lane];
        within(0, header.source_port())
            && within(1, header.destination_port())
            && (self.protocol[lane] ^ header.protocol()) & self.protocol_mask[lane] == 0
    }
}

/// Eight rules of IPv4, in three cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct GroupV4 {
    /// Sources and destinations.
    pub(crate) values: [[u32; LANES]; 2],
    pub(crate) rest: Rest,
    /// How many of the lowest bits do not count: 0 to 32.
    pub(crate) shifts: [[u8; LANES]; 2],
}

const _: () = assert!(size_of::<GroupV4>() == 192);

impl Group for GroupV4 {
    const LAYOUT: &'static Layout = &bits::V4;
    const LENGTHS: &'static [[u8; 2]] = &[[9, 9], [17, 17], [5, 5], [0, 0]];

    fn set(&mut self, lane: usize, rule: &Rule5, slot: u32) {
        for (which, net) in [rule.source, rule.destination].into_iter().enumerate() {
            let (value, length) = match net {
                Some(IpNet::V4(net)) => (net.network().to_bits(), net.prefix_len()),
                _ => (0, 0),
            };
            self.values[which][lane] = value;
            self.shifts[which][lane] = 32 - length;
        }
        self.rest.set(lane, rule, slot);
    }

    fn slot(&self, lane: usize) -> u32 {
        self.rest.slots[lane]
    }

    #[allow(clippy::cast_possible_truncation, reason = "halves of a word are cut out")]
    fn matching(&self, header: &Header) -> u8 {
        let [addresses, _] = header.words_v4();
        let addresses = [(addresses >> 32) as u32, addresses as u32];
        let within = |which: usize, lane: usize| {
            let differing = self.values[which][lane] ^ addresses[which];
            differing.checked_shr(self.shifts[which][lane].into()).unwrap_or(0) == 0
        };
        let one = |lane| within(0, lane) && within(1, lane) && self.rest.matches(lane, header);
        (0..LANES).fold(0, |found, lane| found | u8::from(one(lane)) << lane)
    }
}

/// Eight rules of IPv6.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct GroupV6 {
    /// Upper and lower half of sources, then of destinations.
    pub(crate) values: [[u64; LANES]; 4],
    pub(crate) rest: Rest,
    /// How many of the lowest bits of each half do not count: 0 to 64.
    pub(crate) shifts: [[u8; LANES]; 4],
}

impl Group for GroupV6 {
    const LAYOUT: &'static Layout = &bits::V6;
    const LENGTHS: &'static [[u8; 2]] = &[[25, 25], [33, 33], [49, 49], [0, 0]];

    #[allow(clippy::cast_possible_truncation, reason = "halves of the address are cut out")]
    fn set(&mut self, lane: usize, rule: &Rule5, slot: u32) {
        for (which, net) in [rule.source, rule.destination].into_iter().enumerate() {
            let (value, length) = match net {
                Some(IpNet::V6(net)) => (net.network().to_bits(), net.prefix_len()),
                _ => (0, 0),
            };
            for (half, value) in [(value >> 64) as u64, value as u64].into_iter().enumerate() {
                self.values[2 * which + half][lane] = value;
                self.shifts[2 * which + half][lane] = 64 - length.saturating_sub(64 * half as u8).min(64);
            }
        }
        self.rest.set(lane, rule, slot);
    }

    fn slot(&self, lane: usize) -> u32 {
        self.rest.slots[lane]
    }

    fn matching(&self, header: &Header) -> u8 {
        let words = header.words_v6();
        let within = |word: usize, lane: usize| {
            let differing = self.values[word][lane] ^ words[word];
            differing.checked_shr(self.shifts[word][lane].into()).unwrap_or(0) == 0
        };
        let one = |lane| (0..4).all(|word| within(word, lane)) && self.rest.matches(lane, header);
        (0..LANES).fold(0, |found, lane| found | u8::from(one(lane)) << lane)
    }
}
