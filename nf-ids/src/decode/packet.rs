//! A packet as rules see it: what its headers say, and its payload.

use std::net::{IpAddr, Ipv4Addr};

use super::{Event, Events, Ipv4Options, be16, be32};

/// The network layer that was found.
#[derive(Clone, Copy, Debug, Default)]
pub enum Net<'a> {
    /// None: ARP, or what could not be read.
    #[default]
    None,
    /// The header of IPv4, with its options.
    V4(&'a [u8]),
    /// The header of IPv6 with its extension headers; the first 40 bytes are the fixed part.
    V6(&'a [u8]),
}

/// The transport layer that was found, with its header.
#[derive(Clone, Copy, Debug, Default)]
pub enum Transport<'a> {
    /// None: another protocol, a later fragment, or a header that cannot be read.
    #[default]
    None,
    /// TCP, header and options.
    Tcp(&'a [u8]),
    /// UDP, 8 bytes.
    Udp(&'a [u8]),
    /// ICMP, header and, of errors, the packet they quote.
    Icmp4(&'a [u8]),
    /// ICMPv6, likewise.
    Icmp6(&'a [u8]),
    /// SCTP, 12 bytes.
    Sctp(&'a [u8]),
}

/// A fragment's place in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Offset in bytes.
    pub offset: u32,
    /// Whether others follow.
    pub more: bool,
    /// Protocol of the datagram (IPv6: next header of the fragment header).
    pub protocol: u8,
    /// The part of the datagram that it carries.
    pub data: &'a [u8],
    /// What goes before the datagram when it is whole: IPv4's header with options, IPv6's with the extensions before
    /// the fragment header.
    pub head: &'a [u8],
    /// Where in `head` the number of the next header stands (IPv6).
    pub next_at: usize,
}

/// What carries an inner packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is told by its name")]
pub enum Tunnel {
    #[default]
    None,
    Ipv4,
    Ipv6,
    Gre,
    Erspan,
    Teredo,
    Vxlan,
    Geneve,
}

/// The options of a TCP header, as far as rules and reassembly ask for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFields {
    /// Maximum segment size, in bytes.
    pub mss: Option<u16>,
    /// Window scale, a power of two; at most 14 counts.
    pub scale: Option<u8>,
    /// Whether selective acknowledgements are permitted (in SYN).
    pub sack_permitted: bool,
    /// Timestamp and the one echoed.
    pub timestamp: Option<(u32, u32)>,
    /// Whether the option of fast open is there (RFC 7413).
    pub fast_open: bool,
    /// Whether the segment is signed (RFC 2385, RFC 5925): only its receiver can tell whether it is right.
    pub signed: bool,
    /// Where in the header the ranges of a selective acknowledgement stand: offset and their number.
    pub sack: Option<(u8, u8)>,
}

/// What ICMP and ICMPv6 messages say in their fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpFields {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Identifier, of messages that have one.
    pub id: Option<u16>,
    /// Sequence number, likewise.
    pub sequence: Option<u16>,
    /// Maximum transfer unit (ICMPv6's packet too big).
    pub mtu: Option<u32>,
}

/// The headers of a packet. It borrows the packet's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    /// All bytes of this packet, from what it begins with.
    pub frame: &'a [u8],
    /// Headers read so far, those around it included.
    pub layers: u8,
    /// Ethernet header, 14 bytes, if there is one.
    pub ethernet: Option<&'a [u8]>,
    /// The EtherType after all tags; 0 if there is none.
    pub ether_type: u16,
    vlan: [u16; 3],
    vlans: u8,
    /// Network layer.
    pub net: Net<'a>,
    /// Source and destination; unspecified addresses without a network layer.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Protocol that the network layer carries; in IPv6 after extension headers, and 44 for a fragment.
    pub protocol: Option<u8>,
    /// Options of the IPv4 header.
    pub ipv4_options: Ipv4Options,
    /// Set if it is a fragment.
    pub fragment: Option<Fragment<'a>>,
    /// Transport layer.
    pub transport: Transport<'a>,
    /// Ports; 0 where there are none.
    pub source_port: u16,
    /// Port of the destination.
    pub destination_port: u16,
    /// Options of TCP.
    pub tcp_fields: TcpFields,
    /// Fields of ICMP.
    pub icmp_fields: Option<IcmpFields>,
    /// What the transport layer carries; what ICMP carries after its 8 bytes.
    pub payload: &'a [u8],
    /// Everything that the network layer carries.
    pub ip_payload: &'a [u8],
    /// What was wrong.
    pub events: Events,
    /// What carried this packet.
    pub tunnel: Tunnel,
    /// How many packets it is inside of.
    pub depth: u8,
    /// It carries a packet that is inspected by itself; its own payload is not.
    pub carrier: bool,
    /// It was put together of fragments.
    pub defragmented: bool,
    /// It stands for a flow that ends, and was not on the wire.
    pub pseudo: bool,
    /// Its network or transport layer cannot be used: it belongs to no flow.
    pub invalid: bool,
    /// A checksum was verified and is wrong; set by the engine.
    pub bad_checksum: bool,
}

impl<'a> Decoded<'a> {
    pub(crate) fn new(frame: &'a [u8], layers: u8) -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            frame,
            layers,
            ethernet: None,
            ether_type: 0,
            vlan: [0; 3],
            vlans: 0,
            net: Net::None,
            source: nowhere,
            destination: nowhere,
            protocol: None,
            ipv4_options: Ipv4Options::default(),
            fragment: None,
            transport: Transport::None,
            source_port: 0,
            destination_port: 0,
            tcp_fields: TcpFields::default(),
            icmp_fields: None,
            payload: &[],
            ip_payload: &[],
            events: Events::default(),
            tunnel: Tunnel::None,
            depth: 0,
            carrier: false,
            defragmented: false,
            pseudo: false,
            invalid: false,
            bad_checksum: false,
        }
    }

    /// VLAN ids, outermost first; at most three.
    #[must_use]
    pub fn vlan_ids(&self) -> &[u16] {
        &self.vlan[..usize::from(self.vlans)]
    }

    /// Notes a tag; false if there are three already.
    pub(crate) fn push_vlan(&mut self, id: u16) -> bool {
        let Some(place) = self.vlan.get_mut(usize::from(self.vlans)) else { return false };
        *place = id;
        self.vlans += 1;
        true
    }

    /// Whether it is IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        matches!(self.net, Net::V4(_))
    }

    /// Whether it is IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        matches!(self.net, Net::V6(_))
    }

    /// Header of IPv4 with options.
    #[must_use]
    pub fn ipv4_header(&self) -> Option<&'a [u8]> {
        if let Net::V4(header) = self.net { Some(header) } else { None }
    }

    /// Header of IPv6 with extension headers.
    #[must_use]
    pub fn ipv6_header(&self) -> Option<&'a [u8]> {
        if let Net::V6(header) = self.net { Some(header) } else { None }
    }

    /// Header of TCP with options.
    #[must_use]
    pub fn tcp_header(&self) -> Option<&'a [u8]> {
        if let Transport::Tcp(header) = self.transport { Some(header) } else { None }
    }

    /// Header of UDP.
    #[must_use]
    pub fn udp_header(&self) -> Option<&'a [u8]> {
        if let Transport::Udp(header) = self.transport { Some(header) } else { None }
    }

    /// Header of ICMP.
    #[must_use]
    pub fn icmpv4_header(&self) -> Option<&'a [u8]> {
        if let Transport::Icmp4(header) = self.transport { Some(header) } else { None }
    }

    /// Header of ICMPv6.
    #[must_use]
    pub fn icmpv6_header(&self) -> Option<&'a [u8]> {
        if let Transport::Icmp6(header) = self.transport { Some(header) } else { None }
    }

    /// Time to live, or hop limit.
    #[must_use]
    pub fn ttl(&self) -> Option<u8> {
        match self.net {
            Net::V4(header) => header.get(8).copied(),
            Net::V6(header) => header.get(7).copied(),
            Net::None => None,
        }
    }

    /// Type of service, or traffic class.
    #[must_use]
    pub fn tos(&self) -> Option<u8> {
        match self.net {
            Net::V4(header) => header.get(1).copied(),
            Net::V6(header) => be16(header, 0).map(|word| (word >> 4 & 0xff).to_be_bytes()[1]),
            Net::None => None,
        }
    }

    /// Identification of IPv4.
    #[must_use]
    pub fn ip_id(&self) -> Option<u16> {
        be16(self.ipv4_header()?, 4)
    }

    /// Fragment bits of IPv4: 4 reserved, 2 do not fragment, 1 more fragments.
    #[must_use]
    pub fn fragment_bits(&self) -> Option<u8> {
        self.ipv4_header()?.get(6).map(|byte| byte >> 5)
    }

    /// Fragment offset of IPv4, in units of 8 bytes; of IPv6 if it is a fragment.
    #[must_use]
    pub fn fragment_offset(&self) -> Option<u16> {
        match self.net {
            Net::V4(header) => be16(header, 6).map(|word| word & 0x1fff),
            _ => self.fragment.and_then(|fragment| u16::try_from(fragment.offset / 8).ok()),
        }
    }

    /// Flags of TCP: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    #[must_use]
    pub fn tcp_flags(&self) -> Option<u8> {
        self.tcp_header()?.get(13).copied()
    }

    /// Sequence number of TCP.
    #[must_use]
    pub fn tcp_seq(&self) -> Option<u32> {
        be32(self.tcp_header()?, 4)
    }

    /// Acknowledgement number of TCP.
    #[must_use]
    pub fn tcp_ack(&self) -> Option<u32> {
        be32(self.tcp_header()?, 8)
    }

    /// Window of TCP, not scaled.
    #[must_use]
    pub fn tcp_window(&self) -> Option<u16> {
        be16(self.tcp_header()?, 14)
    }

    /// Whether an event is there.
    #[must_use]
    pub fn has(&self, event: Event) -> bool {
        self.events.has(event)
    }
}
