//! What one pass over a frame found: where its headers are, and how far they could be read.
//!
//! [`Headers`] is small and [`Copy`]; it holds offsets, not bytes, so that it can be kept beside a packet
//! while the packet is changed. Its accessors take the frame again and check every bound anew: with a frame
//! other than the one parsed they give `None`, never a panic.

use super::ethernet::{EtherType, Frame};
use super::{Fragment, LinkType, arp, icmp, icmpv6, ipv4, ipv6, tcp, udp};

/// The network layer of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Net {
    /// The frame ends, or is unreadable, before it begins.
    None,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
    /// Something else; [`Headers::ethertype`] says what, if anything does.
    Other,
}

/// Why a frame could not be read to its end. The `Cut…` reasons mean that bytes are missing, as a capture's
/// snap length does; the others that what is there contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The frame ends within the link-layer header, a VLAN tag, MPLS entry or PPPoE header.
    CutLink,
    /// The frame ends within the network-layer header, its options or extension headers.
    CutNetwork,
    /// The frame ends within the transport header, although the IP length says there is more.
    CutTransport,
    /// All headers are there; the payload is shorter than the IP length says.
    CutPayload,
    /// An IP header with the wrong version.
    Version,
    /// An IPv4 header length below 20 bytes or beyond the packet.
    NetworkHeaderLength,
    /// An IPv4 total length below the header's length.
    NetworkLength,
    /// An IPv6 extension header beyond the end, or too many of them, VLAN tags or MPLS entries.
    Chain,
    /// A transport header that its datagram, by the IP length, does not hold.
    TransportShort,
    /// A TCP data offset below 20 bytes, or a UDP length below 8 or beyond the datagram.
    TransportLength,
}

impl Problem {
    /// Whether bytes are missing, rather than wrong.
    #[must_use]
    pub fn is_cut(self) -> bool {
        matches!(self, Self::CutLink | Self::CutNetwork | Self::CutTransport | Self::CutPayload)
    }
}

/// Fragment word: the offset in units of 8 bytes, as in IPv4.
pub(super) const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Fragment word: more fragments follow, as in IPv4.
pub(super) const FRAGMENT_MORE: u16 = 0x2000;

/// Where the headers of a frame are. Made by [`Headers::parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub(super) link: LinkType,
    /// EtherType of the network layer; 0 if nothing named one.
    pub(super) ethertype: u16,
    /// Tag control information of the two outermost VLAN tags.
    pub(super) vlans: [u16; 2],
    pub(super) vlan_count: u8,
    pub(super) net: Net,
    pub(super) protocol: u8,
    pub(super) problem: Option<Problem>,
    /// Offset of the link-layer header; not 0 in what a tunnel carries.
    pub(super) l2: u16,
    pub(super) l3: u16,
    /// 0 if there is none: before a transport header there is always an IP header.
    pub(super) l4: u16,
    pub(super) payload: u16,
    /// Offset and "more" in IPv4's form, whatever the version.
    pub(super) fragment: u16,
    /// Where the innermost length field that was read ends the packet.
    pub(super) end: u32,
}

const _: () = assert!(size_of::<Headers>() <= 32, "kept beside every packet of a burst");

impl Headers {
    /// The kind of link-layer header that the frame begins with.
    #[must_use]
    pub fn link(&self) -> LinkType {
        self.link
    }

    /// The network layer.
    #[must_use]
    #[inline]
    pub fn net(&self) -> Net {
        self.net
    }

    /// The EtherType of the network layer, after all tags; `None` where nothing names one (LLC, raw IP).
    #[must_use]
    pub fn ethertype(&self) -> Option<EtherType> {
        (self.ethertype != 0).then_some(EtherType(self.ethertype))
    }

    /// Number of VLAN tags.
    #[must_use]
    pub fn vlan_count(&self) -> usize {
        usize::from(self.vlan_count)
    }

    /// Identifiers of the VLAN tags, the outermost first; of more than two tags, the first two.
    pub fn vlan_ids(&self) -> impl Iterator<Item = u16> + use<> {
        self.vlans.into_iter().take(self.vlan_count()).map(|tci| tci & 0xfff)
    }

    /// The transport protocol, or that of the fragment: what the last header before it says. `None` without
    /// an IP header.
    #[must_use]
    #[inline]
    pub fn protocol(&self) -> Option<u8> {
        matches!(self.net, Net::Ipv4 | Net::Ipv6).then_some(self.protocol)
    }

    /// Byte at which the link-layer header begins: 0, but for what a tunnel carries.
    #[must_use]
    pub fn l2_offset(&self) -> usize {
        usize::from(self.l2)
    }

    /// Byte at which the network layer begins.
    #[must_use]
    #[inline]
    pub fn l3_offset(&self) -> Option<usize> {
        (self.net != Net::None).then_some(usize::from(self.l3))
    }

    /// Byte at which the transport header begins. `None` if there is none, as in a later fragment.
    #[must_use]
    #[inline]
    pub fn l4_offset(&self) -> Option<usize> {
        (self.l4 != 0).then_some(usize::from(self.l4))
    }

    /// Byte at which the payload begins: what is after the innermost header that was read.
    #[must_use]
    #[inline]
    pub fn payload_offset(&self) -> usize {
        usize::from(self.payload)
    }

    /// Bytes of payload that are there; padding of the frame does not count.
    #[must_use]
    #[inline]
    pub fn payload_len(&self) -> usize {
        self.end().saturating_sub(self.payload_offset())
    }

    /// Where the packet ends within the frame, by its own length fields and the bytes there are.
    #[must_use]
    #[inline]
    pub fn end(&self) -> usize {
        self.end as usize
    }

    /// What kept the frame from being read to its end, if anything did.
    #[must_use]
    #[inline]
    pub fn problem(&self) -> Option<Problem> {
        self.problem
    }

    /// Whether bytes are missing at the end.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.problem.is_some_and(Problem::is_cut)
    }

    /// Whether what is there contradicts itself.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.problem.is_some_and(|problem| !problem.is_cut())
    }

    /// Whether it is part of a fragmented datagram. An IPv6 packet with a fragment header that is all of its
    /// datagram ("atomic fragment", RFC 6946) is not.
    #[must_use]
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment & (FRAGMENT_OFFSET | FRAGMENT_MORE) != 0
    }

    /// Whether it is the first fragment of several: the one with the transport header.
    #[must_use]
    pub fn is_first_fragment(&self) -> bool {
        self.is_fragment() && !self.is_later_fragment()
    }

    /// Whether it is a fragment without the transport header.
    #[must_use]
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment & FRAGMENT_OFFSET != 0
    }

    /// The fragment fields of the IPv4 header or the IPv6 fragment header, if there are any.
    #[must_use]
    pub fn fragment(&self, frame: &[u8]) -> Option<Fragment> {
        match self.net {
            Net::Ipv4 => self.ipv4(frame).map(|ip| ip.fragment()),
            Net::Ipv6 => self.ipv6(frame)?.extensions().find_map(|extension| extension.fragment()),
            _ => None,
        }
    }

    /// The Ethernet header, if the frame begins with one.
    #[must_use]
    pub fn ethernet<'a>(&self, frame: &'a [u8]) -> Option<Frame<&'a [u8]>> {
        if self.link != LinkType::Ethernet {
            return None;
        }
        Frame::new_checked(frame.get(self.l2_offset()..)?).ok()
    }

    /// The IPv4 packet, without the frame's padding.
    #[must_use]
    #[inline]
    pub fn ipv4<'a>(&self, frame: &'a [u8]) -> Option<ipv4::Packet<&'a [u8]>> {
        ipv4::Packet::new_checked(self.l3_bytes(frame, Net::Ipv4)?).ok()
    }

    /// The IPv6 packet, without the frame's padding.
    #[must_use]
    #[inline]
    pub fn ipv6<'a>(&self, frame: &'a [u8]) -> Option<ipv6::Packet<&'a [u8]>> {
        ipv6::Packet::new_checked(self.l3_bytes(frame, Net::Ipv6)?).ok()
    }

    /// The ARP packet.
    #[must_use]
    pub fn arp<'a>(&self, frame: &'a [u8]) -> Option<arp::Packet<&'a [u8]>> {
        arp::Packet::new_checked(self.l3_bytes(frame, Net::Arp)?).ok()
    }

    /// The TCP segment. Options and payload may have been cut off; [`Headers::problem`] says so.
    #[must_use]
    #[inline]
    pub fn tcp<'a>(&self, frame: &'a [u8]) -> Option<tcp::Segment<&'a [u8]>> {
        tcp::Segment::new_checked(self.l4_bytes(frame, tcp::PROTOCOL)?).ok()
    }

    /// The UDP datagram.
    #[must_use]
    #[inline]
    pub fn udp<'a>(&self, frame: &'a [u8]) -> Option<udp::Datagram<&'a [u8]>> {
        udp::Datagram::new_checked(self.l4_bytes(frame, udp::PROTOCOL)?).ok()
    }

    /// The ICMP message (of IPv4).
    #[must_use]
    pub fn icmp<'a>(&self, frame: &'a [u8]) -> Option<icmp::Message<&'a [u8]>> {
        icmp::Message::new_checked(self.l4_bytes(frame, icmp::PROTOCOL)?).ok()
    }

    /// The ICMPv6 message.
    #[must_use]
    pub fn icmpv6<'a>(&self, frame: &'a [u8]) -> Option<icmpv6::Message<&'a [u8]>> {
        icmpv6::Message::new_checked(self.l4_bytes(frame, icmpv6::PROTOCOL)?).ok()
    }

    /// Source and destination port of a protocol that has them (TCP, UDP, UDP-Lite, SCTP, DCCP), even if the
    /// rest of its header was cut off.
    #[must_use]
    #[inline]
    pub fn ports(&self, frame: &[u8]) -> Option<(u16, u16)> {
        if !has_ports(self.protocol) {
            return None;
        }
        let [a, b, c, d] = *self.l4_bytes(frame, self.protocol)?.first_chunk::<4>()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// The payload: what is after the innermost header that was read, as far as lengths say and bytes go.
    #[must_use]
    #[inline]
    pub fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(self.payload_offset()..self.end()).unwrap_or(&[])
    }

    #[inline]
    pub(super) fn l3_bytes<'a>(&self, frame: &'a [u8], net: Net) -> Option<&'a [u8]> {
        if self.net != net {
            return None;
        }
        frame.get(usize::from(self.l3)..self.end())
    }

    #[inline]
    pub(super) fn l4_bytes<'a>(&self, frame: &'a [u8], protocol: u8) -> Option<&'a [u8]> {
        if self.protocol != protocol || self.l4 == 0 {
            return None;
        }
        frame.get(usize::from(self.l4)..self.end())
    }
}

/// Whether the protocol's header begins with source and destination port.
#[inline]
pub(super) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, tcp::PROTOCOL | udp::PROTOCOL | SCTP | DCCP | UDP_LITE)
}

/// Protocol number of DCCP (RFC 4340).
pub(super) const DCCP: u8 = 33;
/// Protocol number of SCTP (RFC 9260).
pub(super) const SCTP: u8 = 132;
/// Protocol number of UDP-Lite (RFC 3828).
pub(super) const UDP_LITE: u8 = 136;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_frame_gives_nothing_and_no_panic() {
        let mut frame = [0u8; 60];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[17] = 40;
        frame[23] = 6;
        frame[46] = 0x50;
        let headers = Headers::parse(&frame);
        assert!(headers.tcp(&frame).is_some() && headers.ipv4(&frame).is_some());
        for len in 0..54 {
            let other = &frame[..len];
            assert!(headers.tcp(other).is_none() && headers.ipv4(other).is_none());
            assert!(headers.ports(other).is_none() && headers.payload(other).is_empty());
        }
        assert!(headers.udp(&frame).is_none() && headers.ipv6(&frame).is_none());
        assert!(headers.arp(&frame).is_none() && headers.icmp(&frame).is_none());
    }
}
