//! Packet headers: typed, bounds-checked, in-place views.
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
pub use flow::FlowKey;
pub use flow_hash::flow_hash;
pub use headers::{Headers, Net, Problem};
pub use inner::{ETHERNET_IN_IP, IPV4_IN_IP, IPV6_IN_IP};
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
