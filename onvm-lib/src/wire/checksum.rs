//! The internet checksum (RFC 1071), its pseudo headers and its incremental update (RFC 1624).
//!
//! A sum of 16-bit words in ones' complement does not care in which order, nor in which byte order, its
//! words are added (RFC 1071 §2), so the bytes are taken eight at a time in the machine's own order and
//! turned once at the end.
//!
//! Two values stand for zero in ones' complement: 0 and 0xffff. A header that is not all zero never sums to
//! the first, so the full and the incremental computation agree on every packet there is.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A ones' complement sum in the making. Parts are added with [`add_bytes`](Sum::add_bytes) and friends;
/// every part but the last must have an even length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// Adds `bytes`; an odd last byte counts as the high half of a word (RFC 1071 §1).
    #[must_use]
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        // Each 64-bit chunk enters as two 32-bit halves, so that carries gather in the upper half of the
        // accumulator: room for 2^32 additions, and nothing for the compiler to do but vectorize.
        let mut sum = 0u64;
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            let word = u64::from_ne_bytes(*chunk);
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        // An IPv4 header ends with half a chunk; a copy of unknown length would cost more than the rest of
        // it.
        let (quads, rest) = rest.as_chunks::<4>();
        for quad in quads {
            sum += u64::from(u32::from_ne_bytes(*quad));
        }
        let (pairs, rest) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_ne_bytes(*pair));
        }
        if let [last] = rest {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        self.merge(sum)
    }

    /// Adds one 16-bit word, given in host order.
    #[must_use]
    #[inline]
    pub fn add_u16(self, word: u16) -> Sum {
        self.merge(u64::from(word.to_be()))
    }

    /// Adds a 32-bit value, given in host order.
    #[must_use]
    #[inline]
    pub fn add_u32(self, value: u32) -> Sum {
        self.merge(u64::from(value.to_be()))
    }

    /// The folded sum, not complemented, in host order.
    #[must_use]
    #[inline]
    pub fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(low16(sum))
    }

    /// The checksum: the complement of the folded sum, as it goes into a header.
    #[must_use]
    #[inline]
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    /// Adds a partial sum with its carry brought around, so that no number of parts overflows.
    #[inline]
    fn merge(self, part: u64) -> Sum {
        let (sum, carry) = self.0.overflowing_add(part);
        Sum(sum + u64::from(carry))
    }
}

/// The low half of a sum that was folded to 16 bits.
#[allow(clippy::cast_possible_truncation, reason = "the callers have folded the carries in")]
#[inline]
fn low16(sum: u64) -> u16 {
    sum as u16
}

/// The internet checksum of `bytes` (RFC 1071). Over a header whose checksum field is right it is 0.
#[must_use]
#[inline]
pub fn internet(bytes: &[u8]) -> u16 {
    Sum::ZERO.add_bytes(bytes).finish()
}

/// The addresses of a pseudo header; what uses it adds protocol and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pseudo {
    addresses: Sum,
    /// IPv6 makes the UDP checksum mandatory (RFC 8200 §8.1).
    v6: bool,
}

impl Pseudo {
    /// The IPv4 pseudo header (RFC 9293 §3.1, RFC 768).
    #[must_use]
    #[inline]
    pub fn v4(src: Ipv4Addr, dst: Ipv4Addr) -> Pseudo {
        Pseudo { addresses: Sum::ZERO.add_u32(src.to_bits()).add_u32(dst.to_bits()), v6: false }
    }

    /// The IPv6 pseudo header (RFC 8200 §8.1). `dst` is the *final* destination: with a routing header still
    /// to run, that is its last address.
    #[must_use]
    #[inline]
    pub fn v6(src: Ipv6Addr, dst: Ipv6Addr) -> Pseudo {
        Pseudo { addresses: Sum::ZERO.add_bytes(&src.octets()).add_bytes(&dst.octets()), v6: true }
    }

    /// Whether the addresses are IPv6.
    #[must_use]
    #[inline]
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// The sum of the pseudo header of a `protocol` packet of `len` bytes, itself not included.
    #[must_use]
    #[inline]
    pub fn sum(&self, protocol: u8, len: usize) -> Sum {
        // IPv4's length has 16 bits and IPv6's 32; for what fits into a packet the two add up the same.
        self.addresses.add_u16(u16::from(protocol)).add_u32(u32::try_from(len).unwrap_or(u32::MAX))
    }
}

/// The checksum `check` after a 16-bit word it covers went from `old` to `new` (RFC 1624 eqn. 3).
///
/// Not for UDP, where 0 means "none": see [`udp_update`].
#[must_use]
#[inline]
pub fn update16(check: u16, old: u16, new: u16) -> u16 {
    update(check, u64::from(!old) + u64::from(new))
}

/// The same for a 32-bit value at an even offset, such as an IPv4 address or a TCP sequence number.
#[must_use]
#[inline]
pub fn update32(check: u16, old: u32, new: u32) -> u16 {
    let (old, new) = (u64::from(!old), u64::from(new));
    update(check, (old >> 16) + (old & 0xffff) + (new >> 16) + (new & 0xffff))
}

/// The same for a 128-bit value at an even offset, such as an IPv6 address.
#[must_use]
pub fn update128(check: u16, old: u128, new: u128) -> u16 {
    let mut delta = 0u64;
    for word in (!old).to_be_bytes().as_chunks::<2>().0.iter().chain(new.to_be_bytes().as_chunks::<2>().0) {
        delta += u64::from(u16::from_be_bytes(*word));
    }
    update(check, delta)
}

/// `HC' = ~(~HC + ~m + m')`, where `delta` is the sum of all `~m + m'`.
#[inline]
fn update(check: u16, delta: u64) -> u16 {
    let sum = u64::from(!check) + delta;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !low16(sum)
}

/// What goes into a UDP header whose checksum was `old` and was brought up to date as `updated`: a datagram
/// without one (0, IPv4 only) stays without, and a computed 0 is sent as 0xffff (RFC 768).
#[must_use]
#[inline]
pub fn udp_update(old: u16, updated: u16) -> u16 {
    if old == 0 { 0 } else { udp_nonzero(updated) }
}

/// A computed UDP checksum as it is sent: 0 becomes 0xffff (RFC 768, RFC 8200 §8.1).
#[must_use]
#[inline]
pub fn udp_nonzero(computed: u16) -> u16 {
    if computed == 0 { 0xffff } else { computed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn rfc1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet(&bytes), !0xddf2);
    }

    #[test]
    fn rfc1624_example() {
        // §4: the case that equation 2 of RFC 1141 gets wrong.
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn extremes() {
        assert_eq!(internet(&[]), 0xffff);
        assert_eq!(internet(&vec![0xff; 65_535]), reference(&vec![0xff; 65_535]));
        assert_eq!(udp_update(0, 0x1234), 0);
        assert_eq!(udp_update(5, 0), 0xffff);
    }

    proptest! {
        #[test]
        fn equals_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(internet(&bytes), reference(&bytes));
        }

        #[test]
        fn parts_equal_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (a, b) = bytes.split_at(cut);
            prop_assert_eq!(Sum::ZERO.add_bytes(a).add_bytes(b).finish(), internet(&bytes));
        }

        #[test]
        fn incremental_equals_full(
            mut bytes in proptest::collection::vec(any::<u8>(), 40..80),
            word in 0usize..12, new in any::<u128>(), width in 0usize..3,
        ) {
            bytes[39] |= 1; // not all zero: the one sum that has two names
            let (at, before) = (word * 2, internet(&bytes));
            let size = [2, 4, 16][width];
            let new = &new.to_be_bytes()[..size];
            let old = bytes[at..at + size].to_vec();
            bytes[at..at + size].copy_from_slice(new);
            let updated = match size {
                2 => update16(before, u16::from_be_bytes(old.try_into().unwrap()),
                    u16::from_be_bytes(new.try_into().unwrap())),
                4 => update32(before, u32::from_be_bytes(old.try_into().unwrap()),
                    u32::from_be_bytes(new.try_into().unwrap())),
                _ => update128(before, u128::from_be_bytes(old.try_into().unwrap()),
                    u128::from_be_bytes(new.try_into().unwrap())),
            };
            prop_assert_eq!(updated, internet(&bytes));
        }
    }
}
