//! Packet headers: where they are, what they say, and how to write them, in place and without trust.
//!
//! ```text
//!                      Headers::parse(frame)             one pass, 32 bytes, no allocation, never fails
//!                               │
//!       ┌──────────────┬────────┴──────┬───────────────┬──────────────┐
//!   .ipv4(frame)   .tcp(frame)   .flow_key(frame)  .inner(frame)  .rewrite(frame, ..)
//!    typed views over the bytes    FlowKey, hash    tunnels, to    addresses and ports,
//!    (and .ipv4_mut, .tcp_mut)     for both ways    any depth      checksums kept right
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | `headers`, `parse`, `inner` | [`Headers`]: the pass over a frame, and into what it carries |
//! | `flow`, `flow_hash` | [`FlowKey`] and the symmetric hash by which flows are spread |
//! | `rewrite`, [`checksum`] | changes in place, checksums full and incremental |
//! | [`ethernet`], [`vlan`], [`mpls`], [`pppoe`], [`sll`] | what comes before the network layer |
//! | [`arp`], [`ipv4`], [`ipv4_option`], [`ipv6`], [`ipv6_ext`] | the network layer |
//! | [`tcp`], [`tcp_option`], [`udp`], [`icmp`], [`icmpv6`], [`ndp`] | the transport layer |
//! | [`gre`], [`vxlan`] | tunnels with a header of their own |
//! | [`build`], `describe` | packets made from scratch; packets in words |
//!
//! # What holds everywhere
//! - No bytes make it panic. A view is had only through `new_checked`; what a length field says is bounded by
//!   the bytes there are, each time it is used.
//! - A frame that was cut is read as far as it goes, and [`Headers::problem`] says where it ends; what
//!   contradicts itself is told apart from what is missing.
//! - A packet ends where its own length fields say, so that the padding of a frame is no payload.
//! - Options and extension headers are bounded iterators; a broken one is an item, not an end in silence.
//!
//! # Why not etherparse alone
//! It was measured (`cargo bench -p onvm-lib --bench wire`, one run, 2-core virtual machine, frames in the
//! first-level cache). `SlicedPacket::from_ethernet` takes 3.4 times as long as [`Headers::parse`] for
//! Ethernet, IPv4 and TCP (22 against 6.5 ns), 2.9 times with a VLAN tag (23 and 8) and 1.9 times for IPv6
//! (14 and 7.5); [`flow_hash`] without a pass takes 3.4 ns for IPv4 and 4.3 for IPv6. etherparse refuses
//! frames that are cut; `LaxSlicedPacket`, which reads them, takes 4.5 times as long, and the owned
//! `PacketHeaders` more than 50. Neither has setters, and a result with borrows cannot be kept beside a
//! packet that is changed. Every NF parses every packet, so the pass is our own; [`build::Packet`] needs its
//! views anyhow, writes into a buffer of the pool without allocation, and is somewhat quicker than
//! `PacketBuilder` (28 and 37 ns for 64 bytes). etherparse stays as the second reader in the tests, beside
//! tshark: all that is built here is read there.
//!
//! ```
//! use onvm_lib::wire::{Headers, build::Packet, describe};
//!
//! let frame = Packet::ethernet("02:00:00:00:00:01".parse()?, "02:00:00:00:00:02".parse()?)
//!     .ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
//!     .udp(1234, 53)
//!     .payload(b"hello")
//!     .to_vec()?;
//! let headers = Headers::parse(&frame);
//! assert_eq!(headers.payload(&frame), b"hello");
//! assert_eq!(headers.flow_key(&frame).to_string(), "10.0.0.1:1234 > 10.0.0.2:53 udp");
//! assert_eq!(describe(&frame).to_string(), "IP 10.0.0.1.1234 > 10.0.0.2.53: UDP, length 5");
//! # Ok::<(), onvm_lib::wire::Error>(())
//! ```
#![forbid(unsafe_code)]

use std::fmt;

mod describe;
mod field;
mod flow;
mod flow_hash;
mod headers;
mod inner;
mod parse;
mod rewrite;
mod tlv;

pub mod arp;
pub mod build;
pub mod checksum;
pub mod ethernet;
pub mod gre;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv4_option;
pub mod ipv6;
pub mod ipv6_ext;
pub mod mpls;
pub mod ndp;
pub mod pppoe;
pub mod sll;
pub mod tcp;
pub mod tcp_option;
pub mod udp;
pub mod vlan;
pub mod vxlan;

pub use describe::{Description, describe, describe_as};
pub use ethernet::{EtherType, MacAddr};
pub use flow::{FlowKey, protocol_name};
pub use flow_hash::flow_hash;
pub use headers::{Headers, Net, Problem};
pub use inner::{DEEPEST_TUNNEL, ETHERNET_IN_IP, IPV4_IN_IP, IPV6_IN_IP};
pub use rewrite::{Checksums, Side};

/// The link-layer header that a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet II or 802.3.
    Ethernet,
    /// None: IPv4 or IPv6, as the first nibble says.
    RawIp,
    /// Linux "cooked" capture.
    LinuxSll,
    /// Linux "cooked" capture, version 2.
    LinuxSll2,
    /// Any other, by its number; nothing of it is read.
    Other(u16),
}

impl LinkType {
    /// The link type of this number in a capture file (tcpdump.org's `LINKTYPE_` registry; the bits above
    /// 16, which say something else in a pcap header, do not count).
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the upper half does not count")]
    pub fn from_number(number: u32) -> LinkType {
        match number as u16 {
            1 => LinkType::Ethernet,
            // 12 is DLT_RAW as most systems number it; 228 and 229 are raw IP that names its version.
            12 | 101 | 228 | 229 => LinkType::RawIp,
            113 => LinkType::LinuxSll,
            276 => LinkType::LinuxSll2,
            other => LinkType::Other(other),
        }
    }
}

/// What a header says about the place of its payload in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Identification, the same in all fragments; 16 bits in IPv4.
    pub id: u32,
    /// Offset in bytes, a multiple of 8.
    pub offset: u32,
    /// Whether more fragments follow.
    pub more: bool,
}

impl Fragment {
    /// Whether it is a part, and not all, of a datagram.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.more || self.offset != 0
    }

    /// Whether it is the first of several.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.more && self.offset == 0
    }
}

/// Why bytes are not the header they were taken for, or a packet could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The buffer ends before the fixed part of the header does.
    Truncated {
        /// Name of the header.
        header: &'static str,
        /// Bytes of its fixed part.
        need: usize,
        /// Bytes that were there.
        have: usize,
    },
    /// A field has a value with which the rest cannot be read or written.
    Field {
        /// Name of the header.
        header: &'static str,
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// What it should have been.
        expected: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated { header, need, have } => {
                write!(f, "{header} needs {need} bytes, {have} are there")
            }
            Error::Field { header, field, value, expected } => {
                write!(f, "{header}: {field} is {value}, expected {expected}")
            }
        }
    }
}

impl std::error::Error for Error {}
