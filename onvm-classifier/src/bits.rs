//! What a tree sees of headers and rules: bits, in an order that is the same for both.
//!
//! A header is a row of bytes: source, destination, source port, destination port, protocol (13 bytes for IPv4,
//! 37 for IPv6). A node takes some bits out of a *view*, eight of these bytes as one word, because one
//! instruction can gather any bits of one word. Views overlap, so that bits of different fields can be cut at
//! once.

use std::net::IpAddr;

use crate::{Header, Ports, Rule5};

/// Most bytes that a header of either family has.
pub(crate) const BYTES: usize = 40;
/// Most views that a family has.
pub(crate) const VIEWS: usize = 8;

/// How headers of one family are laid out.
#[derive(Debug)]
pub(crate) struct Layout {
    /// How many bytes a header has.
    pub(crate) bytes: usize,
    /// Which bytes each view is made of, the highest first. A byte may stand in several views.
    pub(crate) views: &'static [[u8; 8]],
    /// The first byte of the destination address.
    pub(crate) destination: usize,
    /// The first byte of the source port; the destination port and the protocol follow.
    pub(crate) ports: usize,
}

impl Layout {
    /// Whether `mask` names bits of a port in the view.
    pub(crate) fn looks_at_ports(&self, view: &[u8; 8], mask: u64) -> bool {
        let of_port = |byte: u8| (self.ports..self.ports + 4).contains(&usize::from(byte));
        view.iter().zip(mask.to_be_bytes()).any(|(byte, bits)| of_port(*byte) && bits != 0)
    }
}

pub(crate) static V4: Layout = Layout {
    bytes: 13,
    views: &[
        [0, 1, 2, 3, 4, 5, 6, 7],
        [4, 5, 6, 7, 10, 11, 12, 8],
        [0, 1, 2, 3, 8, 9, 12, 10],
        [8, 9, 10, 11, 12, 4, 5, 0],
    ],
    destination: 4,
    ports: 8,
};

pub(crate) static V6: Layout = Layout {
    bytes: 37,
    views: &[
        [0, 1, 2, 3, 4, 5, 6, 7],
        [8, 9, 10, 11, 12, 13, 14, 15],
        [16, 17, 18, 19, 20, 21, 22, 23],
        [24, 25, 26, 27, 28, 29, 30, 31],
        [32, 33, 34, 35, 36, 18, 19, 2],
        [2, 3, 4, 5, 18, 19, 20, 21],
        [20, 21, 22, 23, 30, 31, 35, 36],
        [4, 5, 6, 7, 14, 15, 33, 36],
    ],
    destination: 16,
    ports: 32,
};

/// A header as nodes look at it.
pub(crate) type Key = [u64; VIEWS];

/// The views of an IPv4 header.
#[inline(always)]
pub(crate) fn key_v4(addresses: u64, rest: u64) -> [u64; 4] {
    let (source, destination) = (addresses >> 32, addresses & 0xFFFF_FFFF);
    let protocol = rest >> 24 & 0xFF;
    [
        addresses,
        destination << 32 | (rest >> 32 & 0xFFFF) << 16 | protocol << 8 | rest >> 56,
        source << 32 | (rest >> 48) << 16 | protocol << 8 | (rest >> 40 & 0xFF),
        rest & 0xFFFF_FFFF_FF00_0000 | (destination >> 16) << 8 | source >> 24,
    ]
}

/// The views of an IPv6 header, from its four words of addresses.
#[inline(always)]
pub(crate) fn key_v6(words: [u64; 4], rest: u64) -> Key {
    let [upper, lower, to_upper, to_lower] = words;
    let ports = rest >> 32;
    let protocol = rest >> 24 & 0xFF;
    [
        upper,
        lower,
        to_upper,
        to_lower,
        ports << 32 | protocol << 24 | (to_upper >> 32 & 0xFFFF) << 8 | (upper >> 40 & 0xFF),
        (upper >> 16 & 0xFFFF_FFFF) << 32 | to_upper >> 16 & 0xFFFF_FFFF,
        to_upper << 32 | (to_lower & 0xFFFF) << 16 | (ports & 0xFF) << 8 | protocol,
        upper << 32 | (lower & 0xFFFF) << 16 | (ports >> 16 & 0xFF) << 8 | protocol,
    ]
}

/// The views of any header, told by the layout: slower, and the definition of what the quick ones are.
pub(crate) fn key(layout: &Layout, header: &Header) -> Key {
    let bytes = bytes(header);
    let mut key = [0; VIEWS];
    for (word, view) in key.iter_mut().zip(layout.views) {
        *word = u64::from_be_bytes(view.map(|byte| bytes[usize::from(byte)]));
    }
    key
}

/// The header as a row of bytes.
fn bytes(header: &Header) -> [u8; BYTES] {
    let mut row = [0; BYTES];
    let length = place(&mut row, 0, header.source());
    let ports = place(&mut row, length, header.destination());
    row[ports..ports + 2].copy_from_slice(&header.source_port().to_be_bytes());
    row[ports + 2..ports + 4].copy_from_slice(&header.destination_port().to_be_bytes());
    row[ports + 4] = header.protocol();
    row
}

/// Puts an address at `at`; says where it ends.
fn place(row: &mut [u8; BYTES], at: usize, address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => row[at..at + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => row[at..at + 16].copy_from_slice(&address.octets()),
    }
    at + if address.is_ipv4() { 4 } else { 16 }
}

/// A rule as bits: those that must be one, those that must be zero, and ranges where bits do not say all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    pub(crate) ones: [u8; BYTES],
    pub(crate) zeros: [u8; BYTES],
    pub(crate) ports: [Ports; 2],
    /// Lengths of source and destination prefix.
    pub(crate) lengths: [u8; 2],
}

impl Pattern {
    /// None if no header of the family can match.
    pub(crate) fn new(layout: &Layout, rule: &Rule5) -> Option<Pattern> {
        let v6 = layout.destination == 16;
        let ports = [rule.source_ports, rule.destination_ports];
        if ports.iter().any(|p| p.first > p.last) {
            return None;
        }
        let mut pattern = Pattern { ones: [0; BYTES], zeros: [0; BYTES], ports, lengths: [0; 2] };
        for (which, net) in [rule.source, rule.destination].into_iter().enumerate() {
            let Some(net) = net else { continue };
            if net.addr().is_ipv6() != v6 {
                return None;
            }
            let (mut value, mut mask) = ([0; BYTES], [0; BYTES]);
            place(&mut value, which * layout.destination, net.addr());
            place(&mut mask, which * layout.destination, net.netmask());
            pattern.require(&value, &mask);
            pattern.lengths[which] = net.prefix_len();
        }
        for (which, ports) in ports.into_iter().enumerate() {
            let at = layout.ports + 2 * which;
            let (mut value, mut mask) = ([0; BYTES], [0; BYTES]);
            let differing = (ports.first ^ ports.last).leading_zeros();
            let same = !u16::MAX.checked_shr(differing).unwrap_or(0);
            value[at..at + 2].copy_from_slice(&ports.first.to_be_bytes());
            mask[at..at + 2].copy_from_slice(&same.to_be_bytes());
            pattern.require(&value, &mask);
        }
        let (mut value, mut mask) = ([0; BYTES], [0; BYTES]);
        value[layout.ports + 4] = rule.protocol;
        mask[layout.ports + 4] = rule.protocol_mask;
        pattern.require(&value, &mask);
        Some(pattern)
    }

    fn require(&mut self, value: &[u8; BYTES], mask: &[u8; BYTES]) {
        for i in 0..BYTES {
            self.ones[i] |= value[i] & mask[i];
            self.zeros[i] |= !value[i] & mask[i];
        }
    }

    /// The words of ones and of zeros of a view.
    pub(crate) fn view(&self, view: &[u8; 8]) -> (u64, u64) {
        let word = |bits: &[u8; BYTES]| u64::from_be_bytes(view.map(|byte| bits[usize::from(byte)]));
        (word(&self.ones), word(&self.zeros))
    }
}

/// What is known of the two ports on a path: bits, and the values that they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct PortBits {
    pub(crate) masks: [u16; 2],
    pub(crate) values: [u16; 2],
}

impl PortBits {
    /// Adds what the value of some bits of a view says.
    pub(crate) fn and(mut self, layout: &Layout, view: &[u8; 8], mask: u64, value: u64) -> PortBits {
        let (masks, values) = (mask.to_be_bytes(), value.to_be_bytes());
        for (i, byte) in view.iter().enumerate() {
            let Some(place) = usize::from(*byte).checked_sub(layout.ports).filter(|p| *p < 4) else {
                continue;
            };
            let shift = if place % 2 == 0 { 8 } else { 0 };
            self.masks[place / 2] |= u16::from(masks[i]) << shift;
            self.values[place / 2] |= u16::from(values[i] & masks[i]) << shift;
        }
        self
    }

    /// Whether ports with these bits lie in the ranges.
    pub(crate) fn meet(&self, ports: &[Ports; 2]) -> bool {
        (0..2).all(|i| {
            self.masks[i] == 0
                || least(ports[i].first, self.masks[i], self.values[i]).is_some_and(|x| x <= ports[i].last)
        })
    }
}

/// The least number from `from` on whose bits of `mask` are those of `value`.
fn least(from: u16, mask: u16, value: u16) -> Option<u16> {
    let wrong = (from ^ value) & mask;
    if wrong == 0 {
        return Some(from);
    }
    let highest = 15 - wrong.leading_zeros();
    // Which bit becomes one that is zero in `from`: the highest wrong one, or, where that has to become zero, a
    // free one above it. Bits above stay, bits below are as small as they may be.
    let raised = if value >> highest & 1 == 1 {
        highest
    } else {
        let free = !mask & !from & !(u16::MAX >> (15 - highest));
        if free == 0 {
            return None;
        }
        free.trailing_zeros()
    };
    let below = (1u16 << raised) - 1;
    Some(from & !below | 1 << raised | value & mask & below)
}

/// Gathers the bits of `word` that `mask` names, lowest first, as the instruction of this name does.
pub(crate) fn pext(word: u64, mut mask: u64) -> u64 {
    let (mut gathered, mut at) = (0, 0);
    while mask != 0 {
        gathered |= (word >> mask.trailing_zeros() & 1) << at;
        mask &= mask - 1;
        at += 1;
    }
    gathered
}

/// Spreads the lowest bits of `bits` to the places that `mask` names: the reverse of [`pext`].
pub(crate) fn pdep(bits: u64, mut mask: u64) -> u64 {
    let (mut word, mut at) = (0, 0);
    while mask != 0 {
        word |= (bits >> at & 1) << mask.trailing_zeros();
        mask &= mask - 1;
        at += 1;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_views_are_the_defined_ones() {
        let header = Header::v4([1, 2, 3, 4].into(), [250, 251, 252, 253].into(), 0x1234, 0xABCD, 0x77);
        let [addresses, rest] = header.words_v4();
        assert_eq!(key_v4(addresses, rest)[..], key(&V4, &header)[..4]);
        let (source, destination) =
            ("102:304:506:708:90a:b0c:d0e:f10", "1112:1314:1516:1718:191a:1b1c:1d1e:1f20");
        let header = Header::v6(source.parse().unwrap(), destination.parse().unwrap(), 0x1234, 0xABCD, 0x77);
        assert_eq!(key_v6(header.words_v6(), header.rest()), key(&V6, &header));
    }

    #[test]
    fn the_least_number_with_some_bits_is_found() {
        for (mask, value) in
            [(0, 0), (0xFC00, 0), (0x8001, 0x8000), (0x00F0, 0x0050), (0xFFFF, 77), (0x0101, 0x0001)]
        {
            for from in (0..=u16::MAX).step_by(97).chain([0, 1023, 1024, u16::MAX]) {
                let expected = (from..=u16::MAX).find(|x| x & mask == value);
                assert_eq!(least(from, mask, value), expected, "from {from} with {value:#x} of {mask:#x}");
            }
        }
    }

    #[test]
    fn bits_are_gathered_and_spread() {
        assert_eq!(pext(0b1011_0110, 0b1100_1010), 0b1001);
        assert_eq!(pdep(0b1001, 0b1100_1010), 0b1000_0010);
    }
}
