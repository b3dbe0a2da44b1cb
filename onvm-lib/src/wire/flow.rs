//! The flow key: who talks to whom.
//!
//! A key is made of addresses, protocol and ports. Where there are none of these, what is there takes their
//! place, so that *every* frame has a key and no two packets that must stay in order have different ones:
//!
//! - ICMP and ICMPv6 queries have their identifier as both ports; a request and its reply are one flow.
//! - Fragments, the first one included, are keyed by addresses alone: the others do not have the ports, and
//!   IPv6's later ones not even the protocol.
//! - What is not IP, or cannot be read as such, is keyed by MAC addresses and EtherType.
//!
//! VLAN tags are no part of it, and of tunnels the outer packet counts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ethernet::{EtherType, MacAddr};
use super::flow_hash;
use super::headers::{Headers, Net, has_ports};
use super::{LinkType, icmp, icmpv6};

/// What kind of addresses a key has, and so how many of its bytes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub(super) enum Kind {
    Link,
    V4,
    V6,
    V4Fragment,
    V6Fragment,
}

/// The key of a flow. Two packets of one direction of a flow have equal keys; see
/// [`symmetric`](FlowKey::symmetric) for both directions. Its serialised form is for another process of the same
/// release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct FlowKey {
    kind: Kind,
    protocol: u8,
    /// EtherType for [`Kind::Link`].
    src_port: u16,
    dst_port: u16,
    /// The address at the front, zeros after it.
    src: [u8; 16],
    dst: [u8; 16],
}

const _: () = assert!(size_of::<FlowKey>() <= 40, "flow tables are made of these");

/// `bytes` with zeros after them.
#[inline]
fn widen<const N: usize>(bytes: [u8; N]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..N].copy_from_slice(&bytes);
    wide
}

#[inline]
fn front<const N: usize>(wide: &[u8; 16]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&wide[..N]);
    bytes
}

impl FlowKey {
    /// The key of an IPv4 flow; ports are 0 for protocols without.
    #[must_use]
    pub fn v4(src: Ipv4Addr, dst: Ipv4Addr, src_port: u16, dst_port: u16, protocol: u8) -> FlowKey {
        let (src, dst) = (widen(src.octets()), widen(dst.octets()));
        FlowKey { kind: Kind::V4, protocol, src_port, dst_port, src, dst }
    }

    /// The key of an IPv6 flow; ports are 0 for protocols without.
    #[must_use]
    pub fn v6(src: Ipv6Addr, dst: Ipv6Addr, src_port: u16, dst_port: u16, protocol: u8) -> FlowKey {
        FlowKey { kind: Kind::V6, protocol, src_port, dst_port, src: src.octets(), dst: dst.octets() }
    }

    /// The key of what is not IP.
    #[must_use]
    pub fn link(src: MacAddr, dst: MacAddr, ethertype: u16) -> FlowKey {
        let (src, dst) = (widen(src.0), widen(dst.0));
        FlowKey { kind: Kind::Link, protocol: 0, src_port: ethertype, dst_port: 0, src, dst }
    }

    /// Source address, if it is an IP flow.
    #[must_use]
    pub fn src(&self) -> Option<IpAddr> {
        self.ip(&self.src)
    }

    /// Destination address, if it is an IP flow.
    #[must_use]
    pub fn dst(&self) -> Option<IpAddr> {
        self.ip(&self.dst)
    }

    fn ip(&self, wide: &[u8; 16]) -> Option<IpAddr> {
        match self.kind {
            Kind::Link => None,
            Kind::V4 | Kind::V4Fragment => Some(IpAddr::from(front::<4>(wide))),
            Kind::V6 | Kind::V6Fragment => Some(IpAddr::from(*wide)),
        }
    }

    /// Source and destination MAC address and EtherType (0 if there is none), if it is not an IP flow.
    #[must_use]
    pub fn macs(&self) -> Option<(MacAddr, MacAddr, u16)> {
        let macs = || (MacAddr(front(&self.src)), MacAddr(front(&self.dst)), self.src_port);
        (self.kind == Kind::Link).then(macs)
    }

    /// Source port, or identifier of an ICMP query; 0 if there is none.
    #[must_use]
    pub fn src_port(&self) -> u16 {
        if self.kind == Kind::Link { 0 } else { self.src_port }
    }

    /// Destination port, or identifier of an ICMP query; 0 if there is none.
    #[must_use]
    pub fn dst_port(&self) -> u16 {
        self.dst_port
    }

    /// IP protocol; `None` for fragments and what is not IP.
    #[must_use]
    pub fn protocol(&self) -> Option<u8> {
        matches!(self.kind, Kind::V4 | Kind::V6).then_some(self.protocol)
    }

    /// Whether it stands for fragments, and so for addresses only.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        matches!(self.kind, Kind::V4Fragment | Kind::V6Fragment)
    }

    /// The key of the other direction.
    #[must_use]
    #[inline]
    pub fn reversed(self) -> FlowKey {
        // The EtherType is of both directions alike, and so stays where it is.
        let ports = if self.kind == Kind::Link {
            (self.src_port, self.dst_port)
        } else {
            (self.dst_port, self.src_port)
        };
        FlowKey { src_port: ports.0, dst_port: ports.1, src: self.dst, dst: self.src, ..self }
    }

    /// The key that both directions share: that of the two which orders first.
    #[must_use]
    #[inline]
    pub fn symmetric(self) -> FlowKey {
        if (self.src, self.src_port) <= (self.dst, self.dst_port) || self.is_symmetric_link() {
            self
        } else {
            self.reversed()
        }
    }

    /// Links order by addresses alone, their "port" being no side's.
    fn is_symmetric_link(&self) -> bool {
        self.kind == Kind::Link && self.src <= self.dst
    }

    /// The hash of the flow, the same for both directions and the same as
    /// [`flow_hash`](fn@flow_hash::flow_hash) of its frames.
    #[must_use]
    #[inline]
    pub fn hash32(&self) -> u32 {
        let (src, dst) = (&self.src, &self.dst);
        match self.kind {
            Kind::Link => flow_hash::of_link(front(src), front(dst), self.src_port),
            Kind::V4 | Kind::V4Fragment => {
                let ports = (self.src_port, self.dst_port);
                flow_hash::of_v4(front(src), front(dst), ports, self.protocol, self.is_fragment())
            }
            Kind::V6 | Kind::V6Fragment => {
                let ports = (self.src_port, self.dst_port);
                flow_hash::of_v6(src, dst, ports, self.protocol, self.is_fragment())
            }
        }
    }
}

impl Headers {
    /// The key of the packet's flow. `frame` must be the one that was parsed.
    #[must_use]
    #[inline]
    pub fn flow_key(&self, frame: &[u8]) -> FlowKey {
        self.ip_flow_key(frame).unwrap_or_else(|| self.link_flow_key(frame))
    }

    /// The hash of the packet's flow; see [`FlowKey::hash32`].
    #[must_use]
    #[inline]
    pub fn flow_hash(&self, frame: &[u8]) -> u32 {
        self.flow_key(frame).hash32()
    }

    #[inline]
    fn ip_flow_key(&self, frame: &[u8]) -> Option<FlowKey> {
        let fragment = self.is_fragment();
        let (kind, src, dst) = match self.net {
            Net::Ipv4 => {
                let ip = self.ipv4(frame)?;
                let kind = if fragment { Kind::V4Fragment } else { Kind::V4 };
                (kind, widen(ip.src().octets()), widen(ip.dst().octets()))
            }
            Net::Ipv6 => {
                let ip = self.ipv6(frame)?;
                let kind = if fragment { Kind::V6Fragment } else { Kind::V6 };
                (kind, ip.src().octets(), ip.dst().octets())
            }
            _ => return None,
        };
        if fragment {
            return Some(FlowKey { kind, protocol: 0, src_port: 0, dst_port: 0, src, dst });
        }
        let (src_port, dst_port) = self.ports(frame).or_else(|| self.query_ports(frame)).unwrap_or((0, 0));
        Some(FlowKey { kind, protocol: self.protocol, src_port, dst_port, src, dst })
    }

    /// The identifier of an ICMP query as both ports.
    fn query_ports(&self, frame: &[u8]) -> Option<(u16, u16)> {
        if has_ports(self.protocol) {
            return None;
        }
        let id = match self.net {
            Net::Ipv4 => self.icmp(frame)?.echo()?.0,
            _ => self.icmpv6(frame)?.echo()?.0,
        };
        Some((id, id))
    }

    #[cold]
    fn link_flow_key(&self, frame: &[u8]) -> FlowKey {
        match self.ethernet(frame) {
            Some(link) => FlowKey::link(link.src(), link.dst(), self.ethertype),
            None => FlowKey::link(MacAddr::default(), MacAddr::default(), self.ethertype),
        }
    }
}

impl LinkType {
    /// The key of the flow of a frame with this link-layer header.
    #[must_use]
    pub fn flow_key(self, frame: &[u8]) -> FlowKey {
        Headers::parse_as(self, frame).flow_key(frame)
    }
}

impl fmt::Display for FlowKey {
    /// `10.0.0.1:1234 > 10.0.0.2:80 tcp`, `[::1]:53 > [::2]:5353 udp`, `10.0.0.1 > 10.0.0.2 fragment`,
    /// `10.0.0.1 > 10.0.0.2 icmp id 7`, `02:00:00:00:00:01 > 02:00:00:00:00:02 ARP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(src), Some(dst)) = (self.src(), self.dst()) else {
            let (src, dst) = (MacAddr(front(&self.src)), MacAddr(front(&self.dst)));
            return match self.src_port {
                0 => write!(f, "{src} > {dst}"),
                ethertype => write!(f, "{src} > {dst} {}", EtherType(ethertype)),
            };
        };
        if self.is_fragment() {
            return write!(f, "{src} > {dst} fragment");
        }
        if has_ports(self.protocol) {
            let (src, dst) = (SocketAddr::new(src, self.src_port), SocketAddr::new(dst, self.dst_port));
            write!(f, "{src} > {dst} ")?;
        } else {
            write!(f, "{src} > {dst} ")?;
        }
        match self.protocol {
            icmp::PROTOCOL => f.write_str("icmp"),
            icmpv6::PROTOCOL => f.write_str("icmp6"),
            protocol => write_protocol(f, protocol),
        }?;
        if self.src_port != 0 && !has_ports(self.protocol) {
            write!(f, " id {}", self.src_port)?;
        }
        Ok(())
    }
}

/// The usual name of an IP protocol (IANA "Assigned Internet Protocol Numbers"), none for the rare ones.
#[must_use]
pub const fn protocol_name(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        0 => "hopopt",
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmp6",
        59 => "no-next-header",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

/// The protocol's name, or its number.
pub(super) fn write_protocol(f: &mut fmt::Formatter<'_>, protocol: u8) -> fmt::Result {
    match protocol_name(protocol) {
        Some(name) => f.write_str(name),
        None => write!(f, "ip-proto-{protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fragment;
    use crate::wire::build::Packet;

    const MACS: (MacAddr, MacAddr) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));

    fn base<'a>() -> Packet<'a> {
        Packet::ethernet(MACS.0, MACS.1).ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
    }

    fn key(packet: Packet<'_>) -> FlowKey {
        LinkType::Ethernet.flow_key(&packet.to_vec().unwrap())
    }

    #[test]
    fn displays() {
        let six = Packet::ethernet(MACS.0, MACS.1).ipv6(1.into(), 2.into());
        let fragment = Fragment { id: 1, offset: 0, more: true };
        for (packet, text) in [
            (base().tcp(1234, 80), "10.0.0.1:1234 > 10.0.0.2:80 tcp"),
            (six.udp(53, 5353), "[::1]:53 > [::2]:5353 udp"),
            (base().fragment(fragment).udp(1, 2), "10.0.0.1 > 10.0.0.2 fragment"),
            (base().echo_request(7, 1), "10.0.0.1 > 10.0.0.2 icmp id 7"),
            (six.echo_reply(7, 1), "::1 > ::2 icmp6 id 7"),
            (base().icmp(3, 1, 0), "10.0.0.1 > 10.0.0.2 icmp"),
            (base().protocol(99), "10.0.0.1 > 10.0.0.2 ip-proto-99"),
            (base().ethertype(EtherType::ARP), "02:00:00:00:00:01 > 02:00:00:00:00:02 ARP"),
        ] {
            assert_eq!(key(packet).to_string(), text);
        }
    }

    #[test]
    fn both_directions_of_an_echo_are_one_flow() {
        let back = Packet::ethernet(MACS.1, MACS.0).ipv4([10, 0, 0, 2].into(), [10, 0, 0, 1].into());
        let (there, back) = (key(base().echo_request(7, 1)), key(back.echo_reply(7, 1)));
        assert_eq!(there.symmetric(), back.symmetric());
        assert_eq!((there.hash32(), there.protocol()), (back.hash32(), Some(1)));
        assert_ne!(there.hash32(), key(base().echo_request(8, 1)).hash32());
    }

    #[test]
    fn what_is_unreadable_goes_by_its_macs() {
        let frame = base().tcp(1, 2).to_vec().unwrap();
        let whole = LinkType::Ethernet.flow_key(&frame);
        assert_eq!(LinkType::Ethernet.flow_key(&frame[..38]), whole);
        let cut = LinkType::Ethernet.flow_key(&frame[..30]);
        assert_eq!(cut.macs(), Some((MACS.0, MACS.1, 0x0800)));
        assert_eq!((cut.src(), cut.protocol(), cut.src_port()), (None, None, 0));
        assert_eq!(LinkType::Ethernet.flow_key(&[]), LinkType::RawIp.flow_key(&[]));
        // The length field of an 802.3 frame is no EtherType, and no part of the key.
        let mut llc = vec![0; 60];
        llc[13] = 40;
        let one = LinkType::Ethernet.flow_key(&llc);
        llc[13] = 41;
        assert_eq!(LinkType::Ethernet.flow_key(&llc), one);
    }
}
