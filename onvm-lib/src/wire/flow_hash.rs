//! The hash by which flows are spread over instances: 32 bits, the same for both directions of a flow.
//!
//! Each side of the flow (address and port) is one number; the two are put in order, which is what makes the
//! hash symmetric, and mixed by folded 64 by 64 bit multiplication, as wyhash does. The constants are digits
//! of pi: all processes on all hosts must agree, so there is no random seed, and hence no defence against
//! someone who picks colliding flows on purpose. That can unbalance a spreading of load; tables which it must
//! not unbalance have to hash [`FlowKey`](super::FlowKey) with a seed.

use super::headers::Headers;

/// Odd numbers with about as many ones as zeros.
const PI: [u64; 4] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1, 0x082e_fa98_ec4e_6c89];

/// The 128-bit product of two numbers, its halves laid over each other.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the two halves are what is wanted")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Mixes two sides, in either order, and what they have in common.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the upper half is shifted down")]
fn mix(a: u64, b: u64, common: u64) -> u32 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let sides = fold(low ^ PI[0], high ^ PI[1] ^ (common << 48));
    (fold(sides ^ common, PI[2]) >> 32) as u32
}

/// Protocol and whether it is a fragment, in one number.
#[inline]
fn common(protocol: u8, fragment: bool) -> u64 {
    u64::from(protocol) | u64::from(fragment) << 8
}

#[inline]
pub(super) fn of_v4(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), protocol: u8, fragment: bool) -> u32 {
    let side = |address, port| u64::from(u32::from_be_bytes(address)) << 16 | u64::from(port);
    mix(side(src, ports.0), side(dst, ports.1), common(protocol, fragment))
}

#[inline]
pub(super) fn of_v6(src: &[u8; 16], dst: &[u8; 16], ports: (u16, u16), protocol: u8, fragment: bool) -> u32 {
    let side = |address: &[u8; 16], port: u16| {
        let [a, b] = [0, 8].map(|at| {
            let mut half = [0; 8];
            half.copy_from_slice(&address[at..at + 8]);
            u64::from_be_bytes(half)
        });
        fold(a ^ PI[2], b ^ PI[3]).wrapping_add(u64::from(port).wrapping_mul(PI[0]))
    };
    mix(side(src, ports.0), side(dst, ports.1), common(protocol, fragment) | 1 << 9)
}

#[inline]
pub(super) fn of_link(src: [u8; 6], dst: [u8; 6], ethertype: u16) -> u32 {
    let side = |[a, b, c, d, e, f]: [u8; 6]| u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    mix(side(src), side(dst), u64::from(ethertype) | 1 << 17)
}

/// The hash of an Ethernet frame's flow, straight from its bytes: equal to
/// `Headers::parse(frame).flow_hash(frame)`, but quicker for the plain TCP and UDP packets that most are.
#[must_use]
#[inline]
pub fn flow_hash(frame: &[u8]) -> u32 {
    match plain_v4(frame).or_else(|| plain_v6(frame)) {
        Some(hash) => hash,
        None => Headers::parse(frame).flow_hash(frame),
    }
}

/// For TCP and UDP over IPv4 without tags, options, fragments or anything missing.
#[inline]
fn plain_v4(frame: &[u8]) -> Option<u32> {
    let head = frame.first_chunk::<38>()?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let protocol = head[23];
    let plain =
        word(12) == 0x0800 && head[14] == 0x45 && word(20) & 0x3fff == 0 && matches!(protocol, 6 | 17);
    // The ports must be within the packet, not in the frame's padding.
    if !plain || word(16) < 24 {
        return None;
    }
    let address = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
    Some(of_v4(address(26), address(30), (word(34), word(36)), protocol, false))
}

/// The same for IPv6 without tags or extension headers.
#[inline]
fn plain_v6(frame: &[u8]) -> Option<u32> {
    let head = frame.first_chunk::<58>()?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let protocol = head[20];
    let len = word(18);
    let plain = word(12) == 0x86dd && head[14] >> 4 == 6 && matches!(protocol, 6 | 17);
    if !plain || (len != 0 && len < 4) {
        return None;
    }
    let (src, rest) = head[22..].split_first_chunk::<16>()?;
    let dst = rest.first_chunk::<16>()?;
    Some(of_v6(src, dst, (word(54), word(56)), protocol, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FlowKey;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Chi-square of the hashes over the 256 values of one byte, divided by its expectation of 255; an even
    /// spread of any number of keys is 1 ± 0.27 in 99.8 % of cases (standard deviation 0.0886).
    fn chi_square(hashes: &[u32], shift: u32) -> f64 {
        let mut counts = [0u32; 256];
        hashes.iter().for_each(|hash| counts[(hash >> shift) as usize & 0xff] += 1);
        let expected = f64::from(u32::try_from(hashes.len()).unwrap()) / 256.0;
        counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum::<f64>() / 255.0
    }

    fn assert_even(name: &str, keys: impl Iterator<Item = FlowKey>) {
        let hashes: Vec<u32> = keys.map(|key| key.hash32()).collect();
        for shift in [0, 8, 16, 24] {
            let spread = chi_square(&hashes, shift);
            assert!((0.65..1.35).contains(&spread), "{name}, bits {shift}..: {spread}");
        }
        let mut unique = hashes.clone();
        unique.sort_unstable();
        unique.dedup();
        // 65,536 random 32-bit numbers have half a collision.
        assert!(hashes.len() - unique.len() <= 8, "{name}: {}", hashes.len() - unique.len());
    }

    #[test]
    fn sequential_flows_spread_evenly() {
        let server = Ipv4Addr::new(192, 168, 1, 1);
        let v4 = |n: u32, port: u16| FlowKey::v4(Ipv4Addr::from(0x0a00_0000 + n), server, port, 80, 6);
        assert_even("addresses", (0..65_536).map(|n| v4(n, 1024)));
        assert_even("every 256th address", (0..65_536).map(|n| v4(n << 8, 1024)));
        assert_even("ports", (0..=65_535).map(|port| v4(1, port)));
        assert_even("both", (0..65_536u32).map(|n| v4(n >> 8, u16::try_from(n & 0xff).unwrap())));
        assert_even(
            "pairs",
            (0..65_536u32).map(|n| {
                let (a, b) = (Ipv4Addr::from(0x0a00_0000 + n), Ipv4Addr::from(0x0a01_0000 + n));
                FlowKey::v4(a, b, 5000, 5000, 17)
            }),
        );
        let v6 = |n: u128, port| {
            let net = 0x2001_0db8_u128 << 96;
            FlowKey::v6(Ipv6Addr::from(net + n), Ipv6Addr::from(net + (1 << 64)), port, 443, 6)
        };
        assert_even("v6 addresses", (0..65_536).map(|n| v6(n, 1024)));
        assert_even("v6 networks", (0..65_536).map(|n| v6(n << 64, 1024)));
        assert_even("v6 ports", (0..=65_535).map(|port| v6(1, port)));
    }

    #[test]
    fn macs_spread_evenly() {
        use crate::wire::ethernet::MacAddr;
        let mac = |n: u32| {
            let [a, b, c, d] = n.to_be_bytes();
            MacAddr([2, 0, a, b, c, d])
        };
        assert_even("macs", (0..65_536).map(|n| FlowKey::link(mac(n), mac(1 << 24), 0x0806)));
    }

    proptest! {
        #[test]
        fn is_symmetric_and_equals_the_key_s(
            src in any::<[u8; 4]>(), dst in any::<[u8; 4]>(), ports in any::<(u16, u16)>(), tcp in any::<bool>(),
            options in 5u8..8, len in 0usize..40, fragment in any::<[bool; 4]>(), cut in 0usize..90,
        ) {
            let frame = |src: [u8; 4], dst: [u8; 4], (a, b): (u16, u16)| {
                let header = usize::from(options) * 4;
                let mut bytes = vec![0; 14 + header + len];
                bytes[12..15].copy_from_slice(&[8, 0, 0x40 | options]);
                bytes[17] = u8::try_from(header + len).unwrap();
                bytes[20] = if fragment == [true; 4] { 0x20 } else { 0 };
                bytes[23] = if tcp { 6 } else { 17 };
                bytes[26..30].copy_from_slice(&src);
                bytes[30..34].copy_from_slice(&dst);
                if let Some(place) = bytes.get_mut(14 + header..18 + header) {
                    place[..2].copy_from_slice(&a.to_be_bytes());
                    place[2..].copy_from_slice(&b.to_be_bytes());
                }
                bytes.resize(80, 0xaa);
                bytes.truncate(cut);
                bytes
            };
            let (there, back) = (frame(src, dst, ports), frame(dst, src, (ports.1, ports.0)));
            let headers = Headers::parse(&there);
            prop_assert_eq!(flow_hash(&there), headers.flow_hash(&there));
            prop_assert_eq!(flow_hash(&there), flow_hash(&back));
            let (key, other) = (headers.flow_key(&there), Headers::parse(&back).flow_key(&back));
            prop_assert_eq!(key, other.reversed());
            prop_assert_eq!(key.symmetric(), other.symmetric());
            prop_assert_eq!(key.reversed().hash32(), key.hash32());
        }
    }
}
