//! Packets made from scratch: for generators, replies and tests.
//!
//! A [`Packet`] is a plain description; [`write_to`](Packet::write_to) lays it out in a buffer of the
//! caller's, without allocation, and [`to_vec`](Packet::to_vec) in a new one. Lengths, header lengths, next
//! headers and checksums follow from the description and are right; what contradicts itself is an error,
//! never a broken packet.
//!
//! ```
//! use onvm_lib::wire::{Headers, build::Packet, tcp::Flags, tcp_option::TcpOption};
//!
//! let (client, server) = ("02:00:00:00:00:01".parse()?, "02:00:00:00:00:02".parse()?);
//! let frame = Packet::ethernet(client, server)
//!     .ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
//!     .tcp(1234, 80)
//!     .seq(1)
//!     .flags(Flags::SYN)
//!     .tcp_options(&[TcpOption::Mss(1460), TcpOption::SackPermitted])
//!     .to_vec()?;
//! assert_eq!(Headers::parse(&frame).ports(&frame), Some((1234, 80)));
//! # Ok::<(), onvm_lib::wire::Error>(())
//! ```

mod write;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ethernet::{EtherType, MacAddr};
use super::tcp::Flags;
use super::tcp_option::TcpOption;
use super::{Fragment, arp, icmp, icmpv6};

/// VLAN tags that a built packet can have.
pub const MAX_TAGS: usize = 4;

/// An IPv6 extension header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// What it is: [`ipv6_ext::HOP_BY_HOP`](super::ipv6_ext::HOP_BY_HOP) and so on, but for the fragment
    /// header, which [`Packet::fragment`] adds.
    pub kind: u8,
    /// What follows its next-header and length bytes. Together with these it must have a multiple of 8 bytes,
    /// for an authentication header of 4.
    pub data: &'a [u8],
}

/// The network layer of a packet to be built.
#[derive(Clone, Copy, Debug)]
enum Net<'a> {
    /// Nothing of ours: the payload is of this EtherType.
    Raw(EtherType),
    Arp {
        operation: u16,
        addresses: arp::Addresses,
    },
    V4 {
        src: Ipv4Addr,
        dst: Ipv4Addr,
        id: u16,
        dont_fragment: bool,
        options: &'a [u8],
    },
    V6 {
        src: Ipv6Addr,
        dst: Ipv6Addr,
        flow_label: u32,
        extensions: &'a [Extension<'a>],
    },
}

/// The transport layer of a packet to be built.
#[derive(Clone, Copy, Debug)]
enum Transport<'a> {
    /// Nothing of ours: the payload is of this IP protocol.
    Raw(u8),
    Tcp {
        ports: (u16, u16),
        seq: u32,
        ack: u32,
        flags: Flags,
        window: u16,
        urgent: u16,
        options: &'a [TcpOption<'a>],
    },
    Udp {
        ports: (u16, u16),
        checksum: bool,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
    },
}

/// A packet in the making. Methods that set a field of a header that the packet does not have do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    link: Option<(MacAddr, MacAddr)>,
    tags: [(EtherType, u16); MAX_TAGS],
    tag_count: usize,
    net: Net<'a>,
    /// Type of service or traffic class.
    tos: u8,
    /// Time to live or hop limit.
    ttl: u8,
    fragment: Option<Fragment>,
    transport: Transport<'a>,
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// An Ethernet frame.
    #[must_use]
    pub fn ethernet(src: MacAddr, dst: MacAddr) -> Self {
        Packet { link: Some((src, dst)), ..Packet::raw() }
    }

    /// A packet without link-layer header, as a TUN device and link type 101 have it.
    #[must_use]
    pub fn raw() -> Self {
        Packet {
            link: None,
            tags: [(EtherType::VLAN, 0); MAX_TAGS],
            tag_count: 0,
            net: Net::Raw(EtherType(0xffff)),
            tos: 0,
            ttl: 64,
            fragment: None,
            // "Any host internal protocol": no protocol was said.
            transport: Transport::Raw(61),
            payload: &[],
        }
    }

    /// Adds a VLAN tag with this identifier inside those there are. More than [`MAX_TAGS`] is an error when
    /// the packet is written.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.tag(EtherType::VLAN, id & 0xfff)
    }

    /// Adds a tag of this type with this tag control information inside those there are.
    #[must_use]
    pub fn tag(mut self, ethertype: EtherType, tci: u16) -> Self {
        if let Some(tag) = self.tags.get_mut(self.tag_count) {
            *tag = (ethertype, tci);
        }
        self.tag_count += 1;
        self
    }

    /// Makes the payload one of this EtherType.
    #[must_use]
    pub fn ethertype(mut self, ethertype: EtherType) -> Self {
        self.net = Net::Raw(ethertype);
        self
    }

    /// Makes it an ARP packet.
    #[must_use]
    pub fn arp(mut self, operation: u16, addresses: arp::Addresses) -> Self {
        self.net = Net::Arp { operation, addresses };
        self
    }

    /// Makes it an IPv4 packet that may be fragmented on its way.
    #[must_use]
    pub fn ipv4(mut self, src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        self.net = Net::V4 { src, dst, id: 0, dont_fragment: false, options: &[] };
        self
    }

    /// Makes it an IPv6 packet.
    #[must_use]
    pub fn ipv6(mut self, src: Ipv6Addr, dst: Ipv6Addr) -> Self {
        self.net = Net::V6 { src, dst, flow_label: 0, extensions: &[] };
        self
    }

    /// Time to live or hop limit; 64 if not said.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Type of service or traffic class; 0 if not said.
    #[must_use]
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// IPv4 identification; 0 if not said. [`fragment`](Packet::fragment) takes precedence.
    #[must_use]
    pub fn id(mut self, value: u16) -> Self {
        if let Net::V4 { id, .. } = &mut self.net {
            *id = value;
        }
        self
    }

    /// Sets IPv4's "don't fragment".
    #[must_use]
    pub fn dont_fragment(mut self) -> Self {
        if let Net::V4 { dont_fragment, .. } = &mut self.net {
            *dont_fragment = true;
        }
        self
    }

    /// IPv4 options, a multiple of 4 and at most 40 bytes.
    #[must_use]
    pub fn ipv4_options(mut self, bytes: &'a [u8]) -> Self {
        if let Net::V4 { options, .. } = &mut self.net {
            *options = bytes;
        }
        self
    }

    /// IPv6 flow label, 20 bits.
    #[must_use]
    pub fn flow_label(mut self, label: u32) -> Self {
        if let Net::V6 { flow_label, .. } = &mut self.net {
            *flow_label = label;
        }
        self
    }

    /// IPv6 extension headers in their order. A fragment header comes after them.
    #[must_use]
    pub fn extensions(mut self, list: &'a [Extension<'a>]) -> Self {
        if let Net::V6 { extensions, .. } = &mut self.net {
            *extensions = list;
        }
        self
    }

    /// Makes it a fragment; the offset must be a multiple of 8. If it is not 0, the payload follows the IP
    /// header and the transport only names the protocol. A first fragment's transport checksum is over its
    /// own bytes: that of the datagram is not known here.
    #[must_use]
    pub fn fragment(mut self, fragment: Fragment) -> Self {
        self.fragment = Some(fragment);
        self
    }

    /// Makes the payload one of this IP protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.transport = Transport::Raw(protocol);
        self
    }

    /// Makes it a TCP segment with the ACK flag, sequence numbers 0 and window 65535.
    #[must_use]
    pub fn tcp(mut self, src_port: u16, dst_port: u16) -> Self {
        let ports = (src_port, dst_port);
        let (flags, window) = (Flags::ACK, u16::MAX);
        self.transport = Transport::Tcp { ports, seq: 0, ack: 0, flags, window, urgent: 0, options: &[] };
        self
    }

    /// TCP sequence number.
    #[must_use]
    pub fn seq(mut self, value: u32) -> Self {
        if let Transport::Tcp { seq, .. } = &mut self.transport {
            *seq = value;
        }
        self
    }

    /// TCP acknowledgment number.
    #[must_use]
    pub fn ack(mut self, value: u32) -> Self {
        if let Transport::Tcp { ack, .. } = &mut self.transport {
            *ack = value;
        }
        self
    }

    /// TCP control bits.
    #[must_use]
    pub fn flags(mut self, value: Flags) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags = value;
        }
        self
    }

    /// TCP window, before scaling.
    #[must_use]
    pub fn window(mut self, value: u16) -> Self {
        if let Transport::Tcp { window, .. } = &mut self.transport {
            *window = value;
        }
        self
    }

    /// TCP urgent pointer.
    #[must_use]
    pub fn urgent(mut self, value: u16) -> Self {
        if let Transport::Tcp { urgent, .. } = &mut self.transport {
            *urgent = value;
        }
        self
    }

    /// TCP options, at most 40 bytes; filled up with "end of list" to a multiple of 4.
    #[must_use]
    pub fn tcp_options(mut self, list: &'a [TcpOption<'a>]) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = list;
        }
        self
    }

    /// Makes it a UDP datagram.
    #[must_use]
    pub fn udp(mut self, src_port: u16, dst_port: u16) -> Self {
        self.transport = Transport::Udp { ports: (src_port, dst_port), checksum: true };
        self
    }

    /// Leaves out the UDP checksum, which tunnels do.
    #[must_use]
    pub fn no_udp_checksum(mut self) -> Self {
        if let Transport::Udp { checksum, .. } = &mut self.transport {
            *checksum = false;
        }
        self
    }

    /// Makes it an ICMP message, over IPv6 an ICMPv6 one; `rest` is the four bytes after the checksum.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, rest: u32) -> Self {
        self.transport = Transport::Icmp { kind, code, rest };
        self
    }

    /// Makes it an echo request. The network layer must have been said before.
    #[must_use]
    pub fn echo_request(self, id: u16, seq: u16) -> Self {
        let kind = if self.is_v6() { icmpv6::ECHO_REQUEST } else { icmp::ECHO_REQUEST };
        self.icmp(kind, 0, u32::from(id) << 16 | u32::from(seq))
    }

    /// Makes it an echo reply. The network layer must have been said before.
    #[must_use]
    pub fn echo_reply(self, id: u16, seq: u16) -> Self {
        let kind = if self.is_v6() { icmpv6::ECHO_REPLY } else { icmp::ECHO_REPLY };
        self.icmp(kind, 0, u32::from(id) << 16 | u32::from(seq))
    }

    /// The payload.
    #[must_use]
    pub fn payload(mut self, payload: &'a [u8]) -> Self {
        self.payload = payload;
        self
    }

    fn is_v6(&self) -> bool {
        matches!(self.net, Net::V6 { .. })
    }
}
