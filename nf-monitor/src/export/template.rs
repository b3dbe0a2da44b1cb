//! What records look like: information elements (IANA's IPFIX registry) and their order.
//!
//! There is a template for every kind of addresses (IPv4, IPv6, MAC), with ports or with ICMP's type and code, for
//! one direction or both. NetFlow version 9 has the same numbers for what it knows, but other times: milliseconds
//! since the exporter began.

use std::net::IpAddr;

use onvm_lib::wire::{FlowKey, MacAddr, tcp, udp};

use super::Shape;
use super::destination::Protocol;
use crate::application;
use crate::flow::Direction;
use crate::keys::{Keys, icmp_kind};
use crate::table::{Finished, Reason};

/// The first template's number.
const FIRST: u16 = 256;
/// Private enterprise number of the elements for the way back (RFC 5103, 6.1).
const REVERSE: u32 = 29_305;

/// What stands in octetDeltaCount, NetFlow's IN_BYTES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Octets {
    /// Bytes of IP packets with their headers, as RFC 7011 has it
    Ip,
    /// Bytes of frames from the Ethernet header on, as in the report and in capinfos
    Frame,
}

/// One field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    SourceIpv4,
    DestinationIpv4,
    SourceIpv6,
    DestinationIpv6,
    SourceMac,
    DestinationMac,
    EtherType,
    SourcePort,
    DestinationPort,
    IcmpV4,
    IcmpV6,
    Protocol,
    Tos,
    Version,
    Flags,
    Packets,
    Octets,
    FrameOctets,
    Start,
    End,
    EndReason,
    Vlan,
    Application,
    BiflowDirection,
    BackFlags,
    BackPackets,
    BackOctets,
    BackFrameOctets,
}

impl Element {
    /// Number, and bytes, for IPFIX; the private enterprise number stands apart.
    fn ipfix(self) -> (u16, u16) {
        match self {
            Self::Octets | Self::BackOctets => (1, 8),
            Self::Packets | Self::BackPackets => (2, 8),
            Self::Protocol => (4, 1),
            Self::Tos => (5, 1),
            Self::Flags | Self::BackFlags => (6, 1),
            Self::SourcePort => (7, 2),
            Self::SourceIpv4 => (8, 4),
            Self::DestinationPort => (11, 2),
            Self::DestinationIpv4 => (12, 4),
            Self::SourceIpv6 => (27, 16),
            Self::DestinationIpv6 => (28, 16),
            Self::IcmpV4 => (32, 2),
            Self::SourceMac => (56, 6),
            Self::Vlan => (58, 2),
            Self::Version => (60, 1),
            Self::DestinationMac => (80, 6),
            Self::Application => (95, 4),
            Self::EndReason => (136, 1),
            Self::IcmpV6 => (139, 2),
            Self::Start => (152, 8),
            Self::End => (153, 8),
            Self::BiflowDirection => (239, 1),
            Self::EtherType => (256, 2),
            Self::FrameOctets | Self::BackFrameOctets => (352, 8),
        }
    }

    fn is_of_way_back(self) -> bool {
        matches!(self, Self::BackFlags | Self::BackPackets | Self::BackOctets | Self::BackFrameOctets)
    }

    /// Number and bytes in a protocol.
    fn of(self, protocol: Protocol) -> (u16, u16) {
        match (protocol, self) {
            // FIRST_SWITCHED and LAST_SWITCHED.
            (Protocol::Netflow9, Self::Start) => (22, 4),
            (Protocol::Netflow9, Self::End) => (21, 4),
            // NetFlow has no number of its own for ICMPv6.
            (Protocol::Netflow9, Self::IcmpV6) => (32, 2),
            _ => self.ipfix(),
        }
    }
}

/// The kind of a record, and so its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Ipv4,
    Ipv6,
    Icmp,
    IcmpV6,
    Link,
}

impl Layout {
    pub(super) const ALL: [Self; 5] = [Self::Ipv4, Self::Ipv6, Self::Icmp, Self::IcmpV6, Self::Link];

    /// Of a record. Type and code are known where keys are made of them.
    pub(super) fn of(row: &Row, shape: Shape) -> Self {
        let icmp = shape.keys == Keys::Netflow && icmp_kind(&row.key).is_some();
        match (row.key.src(), icmp) {
            (Some(IpAddr::V4(_)), false) => Self::Ipv4,
            (Some(IpAddr::V4(_)), true) => Self::Icmp,
            (Some(IpAddr::V6(_)), false) => Self::Ipv6,
            (Some(IpAddr::V6(_)), true) => Self::IcmpV6,
            (None, _) => Self::Link,
        }
    }

    /// The number of its template.
    pub(super) fn number(self) -> u16 {
        FIRST + self as u16
    }

    fn elements(self, shape: Shape, protocol: Protocol) -> Vec<Element> {
        use Element as E;
        let mut all = match self {
            Self::Ipv4 => vec![E::SourceIpv4, E::DestinationIpv4, E::SourcePort, E::DestinationPort],
            Self::Ipv6 => vec![E::SourceIpv6, E::DestinationIpv6, E::SourcePort, E::DestinationPort],
            Self::Icmp => vec![E::SourceIpv4, E::DestinationIpv4, E::IcmpV4],
            Self::IcmpV6 => vec![E::SourceIpv6, E::DestinationIpv6, E::IcmpV6],
            Self::Link => vec![E::SourceMac, E::DestinationMac, E::EtherType],
        };
        if self != Self::Link {
            all.extend([E::Protocol, E::Version, E::Tos, E::Flags]);
        }
        all.extend([E::Packets, E::Octets, E::Start, E::End, E::EndReason, E::Vlan]);
        if protocol == Protocol::Ipfix {
            all.push(E::FrameOctets);
        }
        if shape.applications && self != Self::Link {
            all.push(E::Application);
        }
        if shape.biflow {
            all.extend([E::BiflowDirection, E::BackFlags, E::BackPackets, E::BackOctets, E::BackFrameOctets]);
        }
        all
    }

    /// Its template record.
    pub(super) fn template(self, shape: Shape, protocol: Protocol) -> Vec<u8> {
        let elements = self.elements(shape, protocol);
        let mut bytes = self.number().to_be_bytes().to_vec();
        bytes.extend(u16::try_from(elements.len()).unwrap_or(0).to_be_bytes());
        for element in elements {
            let (number, length) = element.of(protocol);
            let back = element.is_of_way_back();
            bytes.extend((number | if back { 0x8000 } else { 0 }).to_be_bytes());
            bytes.extend(length.to_be_bytes());
            if back {
                bytes.extend(REVERSE.to_be_bytes());
            }
        }
        bytes
    }

    /// Appends a record. `boot_ms`: when the exporter began, for NetFlow's times.
    pub(super) fn write(self, row: &Row, shape: Shape, protocol: Protocol, boot_ms: u64, out: &mut Vec<u8>) {
        for element in self.elements(shape, protocol) {
            let (_, length) = element.of(protocol);
            let before = out.len();
            row.write(element, shape, length, boot_ms, out);
            debug_assert_eq!(out.len() - before, usize::from(length), "{element:?}");
        }
    }
}

/// A record: one direction of a flow, or both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    key: FlowKey,
    way: Direction,
    back: Direction,
    start_ms: u64,
    end_ms: u64,
    reason: Reason,
    tos: u8,
    vlan: u16,
    application: Option<u8>,
}

impl Row {
    /// The records of a flow: for each direction with packets, or one for both.
    pub(super) fn of(finished: &Finished, shape: Shape) -> [Option<Self>; 2] {
        let flow = &finished.flow;
        let key = flow.first_key(&finished.key);
        let [there, back] = flow.ways;
        let found = application::of(flow.application, &key).map(|(known, _)| known.number);
        let there = Self {
            key,
            way: there,
            back,
            start_ms: flow.first_ns / 1_000_000,
            end_ms: flow.last_ns / 1_000_000,
            reason: finished.reason,
            tos: flow.origin.tos,
            vlan: flow.origin.vlan,
            application: found,
        };
        if shape.biflow {
            return [Some(there), None];
        }
        let other = Self { key: key.reversed(), way: there.back, back: there.way, tos: 0, ..there };
        [Some(there), Some(other)].map(|row| row.filter(|row| row.way.count.packets > 0))
    }

    /// Packets and octets that it stands for.
    pub(super) fn totals(&self, shape: Shape) -> (u64, u64) {
        let back = if shape.biflow { self.back } else { Direction::default() };
        let octets = |way: &Direction| octets_of(way, shape);
        (self.way.count.packets + back.count.packets, octets(&self.way) + octets(&back))
    }

    fn write(&self, element: Element, shape: Shape, length: u16, boot_ms: u64, out: &mut Vec<u8>) {
        let (src, dst) = (self.key.src(), self.key.dst());
        let macs = self.key.macs().unwrap_or((MacAddr::default(), MacAddr::default(), 0));
        let ports = match self.key.protocol() {
            Some(tcp::PROTOCOL | udp::PROTOCOL | 33 | 132 | 136) => {
                (self.key.src_port(), self.key.dst_port())
            }
            // The identifier of an ICMP query is no port.
            _ => (0, 0),
        };
        match element {
            Element::SourceIpv4 | Element::SourceIpv6 => put_address(src, out),
            Element::DestinationIpv4 | Element::DestinationIpv6 => put_address(dst, out),
            Element::SourceMac => out.extend(macs.0.0),
            Element::DestinationMac => out.extend(macs.1.0),
            Element::EtherType => out.extend(macs.2.to_be_bytes()),
            Element::SourcePort => out.extend(ports.0.to_be_bytes()),
            Element::DestinationPort => out.extend(ports.1.to_be_bytes()),
            Element::IcmpV4 | Element::IcmpV6 => out.extend(self.key.dst_port().to_be_bytes()),
            Element::Protocol => out.push(self.key.protocol().unwrap_or(0)),
            Element::Tos => out.push(self.tos),
            Element::Version => out.push(if src.is_some_and(|ip| ip.is_ipv6()) { 6 } else { 4 }),
            Element::Flags => out.push(self.way.flags().0.to_be_bytes()[1]),
            Element::BackFlags => out.push(self.back.flags().0.to_be_bytes()[1]),
            Element::Packets => out.extend(self.way.count.packets.to_be_bytes()),
            Element::BackPackets => out.extend(self.back.count.packets.to_be_bytes()),
            Element::Octets => out.extend(octets_of(&self.way, shape).to_be_bytes()),
            Element::BackOctets => out.extend(octets_of(&self.back, shape).to_be_bytes()),
            Element::FrameOctets => out.extend(self.way.count.bytes.to_be_bytes()),
            Element::BackFrameOctets => out.extend(self.back.count.bytes.to_be_bytes()),
            Element::Start => put_time(self.start_ms, length, boot_ms, out),
            Element::End => put_time(self.end_ms, length, boot_ms, out),
            Element::EndReason => out.push(self.reason as u8),
            Element::Vlan => out.extend(self.vlan.to_be_bytes()),
            Element::Application => out.extend(application_id(self.application)),
            // The sender of the first packet stands as the source: "initiator" (RFC 5103, 6.3).
            Element::BiflowDirection => out.push(1),
        }
    }
}

fn octets_of(way: &Direction, shape: Shape) -> u64 {
    match shape.octets {
        Octets::Ip => way.octets,
        Octets::Frame => way.count.bytes,
    }
}

fn put_address(address: Option<IpAddr>, out: &mut Vec<u8>) {
    match address {
        Some(IpAddr::V4(four)) => out.extend(four.octets()),
        Some(IpAddr::V6(six)) => out.extend(six.octets()),
        None => {}
    }
}

/// A time in milliseconds: absolute, or of four bytes and since the exporter began.
fn put_time(ms: u64, length: u16, boot_ms: u64, out: &mut Vec<u8>) {
    if length == 8 {
        out.extend(ms.to_be_bytes());
    } else {
        out.extend(since(ms, boot_ms).to_be_bytes());
    }
}

/// Milliseconds of uptime, which overflow after 50 days as NetFlow's do.
#[allow(clippy::cast_possible_truncation, reason = "uptime is counted modulo 2^32")]
pub(super) fn since(ms: u64, boot_ms: u64) -> u32 {
    ms.saturating_sub(boot_ms) as u32
}

/// An application id: of the user-defined engine (RFC 6759, 4.1: 6, with three bytes), 0 for none.
pub(super) fn application_id(number: Option<u8>) -> [u8; 4] {
    [6, 0, 0, number.unwrap_or(0)]
}
