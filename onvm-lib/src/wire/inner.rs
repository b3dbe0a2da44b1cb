//! What tunnels carry: IP in IP, GRE, VXLAN, Geneve, and the datagram that an ICMP error is about.
//!
//! The inner [`Headers`] have offsets into the same frame, so that they are used with it as the outer ones
//! are, and can be asked for *their* inner headers in turn.

use super::checksum::{udp_update, update16};
use super::ethernet::EtherType;
use super::field::be16;
use super::headers::{Headers, Net};
use super::parse::Pass;
use super::{LinkType, gre, icmp, icmpv6, pppoe, udp, vxlan};

/// Protocol number of IPv4 in IP (RFC 2003).
pub const IPV4_IN_IP: u8 = 4;
/// Protocol number of IPv6 in IP (RFC 4213).
pub const IPV6_IN_IP: u8 = 41;

/// Protocol number of an Ethernet frame in IP (RFC 8986 §10.1).
pub const ETHERNET_IN_IP: u8 = 143;

/// Tunnels that [`Headers::innermost`] enters, one in another.
pub const DEEPEST_TUNNEL: usize = 4;

/// Tunnels are entered only if what they carry begins before this byte, which keeps all offsets below 64 KiB.
pub(super) const MAX_TUNNEL_OFFSET: usize = 16 * 1024;

/// ERSPAN types I and II (draft-foschiano-erspan): a frame after an 8-byte header, or for type I none.
const ERSPAN: EtherType = EtherType(0x88be);
/// ERSPAN type III: a frame after 12 bytes, and 8 more if the last bit of these says so.
const ERSPAN_III: EtherType = EtherType(0x22eb);

/// What a tunnel carries, and where in the frame it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    /// A packet of this EtherType.
    Type(EtherType, usize),
    /// An Ethernet frame.
    Frame(usize),
}

impl Headers {
    /// The headers of what this packet carries, if it is a tunnel that is unambiguously one: IP in IP, GRE,
    /// VXLAN or Geneve to their ports. Of a fragmented tunnel packet only the first fragment has them, and
    /// what it carries is cut.
    #[must_use]
    pub fn inner(&self, frame: &[u8]) -> Option<Headers> {
        if self.is_later_fragment() {
            return None;
        }
        let at = self.l4_offset()?;
        let carried = match self.protocol()? {
            IPV4_IN_IP => Carried::Type(EtherType::IPV4, at),
            IPV6_IN_IP => Carried::Type(EtherType::IPV6, at),
            ETHERNET_IN_IP => Carried::Frame(at),
            gre::PROTOCOL => in_gre(self.l4_bytes(frame, gre::PROTOCOL)?, at)?,
            udp::PROTOCOL => in_udp(self.udp(frame)?.dst_port(), self.payload(frame), self.payload_offset())?,
            _ => return None,
        };
        self.enter(frame, carried)
    }

    /// The headers of the IP packet that stands in the innermost of at most [`DEEPEST_TUNNEL`] tunnels; none if this is
    /// no tunnel that carries one.
    #[must_use]
    pub fn innermost(&self, frame: &[u8]) -> Option<Headers> {
        self.tunnels(frame).last()
    }

    /// The headers of what tunnels carry, from the outer ones on, as long as that is IP.
    fn tunnels(&self, frame: &[u8]) -> impl Iterator<Item = Headers> {
        let within = |headers: &Headers| {
            headers.inner(frame).filter(|inner| matches!(inner.net(), Net::Ipv4 | Net::Ipv6))
        };
        std::iter::successors(within(self), within).take(DEEPEST_TUNNEL)
    }

    /// Keeps the checksums of tunnel headers right when what the innermost tunnel carries was changed in place: `before` and
    /// `after` are sums ([`Sum::fold`](super::checksum::Sum::fold)) over the changed bytes, which begin at byte `at` of
    /// the frame. A wrong checksum stays wrong; what has none stays without.
    pub fn carried_changed(&self, frame: &mut [u8], at: usize, before: u16, after: u16) {
        let outer: Vec<Headers> = std::iter::once(*self).chain(self.tunnels(frame)).collect();
        // The last one is of the packet that was changed. The innermost checksum that covers it takes the change up: what
        // is farther out covers that one, too, and sees none.
        for headers in outer.iter().rev().skip(1) {
            let Some(l4) = headers.l4_offset().filter(|l4| *l4 <= at) else { return };
            let swap = |sum: u16| if (at - l4) % 2 == 1 { sum.swap_bytes() } else { sum };
            let updated = |old: u16| update16(old, swap(before), swap(after));
            let gre = headers.l4_bytes(frame, gre::PROTOCOL).and_then(|b| gre::Packet::new_checked(b).ok());
            if let Some(old) = gre.and_then(|packet| packet.checksum()) {
                if let Some(place) = frame.get_mut(l4 + 4..).and_then(|rest| rest.first_chunk_mut::<2>()) {
                    *place = updated(old).to_be_bytes();
                }
                return;
            }
            if let Some(mut datagram) = headers.udp_mut(frame).filter(|datagram| datagram.checksum() != 0) {
                let old = datagram.checksum();
                datagram.set_checksum(udp_update(old, updated(old)));
                return;
            }
        }
    }

    /// The headers of the datagram that an ICMP or ICMPv6 error is about, as far as the error quotes it:
    /// mostly cut, so that only [`Headers::ports`] may be had of its transport header.
    #[must_use]
    pub fn original(&self, frame: &[u8]) -> Option<Headers> {
        if self.is_later_fragment() {
            return None;
        }
        let at = self.payload_offset();
        let is_error = match self.net {
            Net::Ipv4 => icmp::is_error(self.icmp(frame)?.kind()),
            _ => icmpv6::is_error(self.icmpv6(frame)?.kind()),
        };
        let ethertype = if self.net == Net::Ipv4 { EtherType::IPV4 } else { EtherType::IPV6 };
        is_error.then(|| self.enter(frame, Carried::Type(ethertype, at)))?
    }

    fn enter(&self, frame: &[u8], carried: Carried) -> Option<Headers> {
        let bytes = frame.get(..self.end())?;
        let (Carried::Type(_, at) | Carried::Frame(at)) = carried;
        if at > MAX_TUNNEL_OFFSET || at > bytes.len() {
            return None;
        }
        let pass = match carried {
            Carried::Frame(at) => {
                let mut pass = Pass::new(bytes, LinkType::Ethernet, at);
                pass.ethernet(at);
                pass
            }
            Carried::Type(ethertype, at) => {
                let mut pass = Pass::new(bytes, LinkType::RawIp, at);
                pass.ethertype(ethertype.0, at);
                pass
            }
        };
        Some(pass.headers)
    }
}

/// What a GRE packet carries that begins at byte `at` of the frame.
fn in_gre(bytes: &[u8], at: usize) -> Option<Carried> {
    let packet = gre::Packet::new_checked(bytes).ok()?;
    let payload = packet.payload()?;
    let start = at + packet.header_len();
    match EtherType(packet.protocol_type()) {
        // PPTP's version carries PPP and nothing else.
        gre::PPP => in_ppp(payload, start),
        _ if packet.version() != 0 => None,
        EtherType::TEB => Some(Carried::Frame(start)),
        // Type II has the GRE sequence number that type I lacks.
        ERSPAN if packet.flags_version() == 0 => Some(Carried::Frame(start)),
        ERSPAN if packet.has_sequence() => (payload.first()? >> 4 == 1).then_some(Carried::Frame(start + 8)),
        ERSPAN_III if payload.first()? >> 4 == 2 => {
            let optional = payload.get(11)? & 1 == 1;
            Some(Carried::Frame(start + if optional { 20 } else { 12 }))
        }
        ethertype if ethertype.0 >= EtherType::MIN => Some(Carried::Type(ethertype, start)),
        _ => None,
    }
}

/// What a PPP packet carries; address and control bytes and the first byte of the protocol may be left out
/// (RFC 1661 §6.5, §6.6).
fn in_ppp(bytes: &[u8], at: usize) -> Option<Carried> {
    let skip = if bytes.starts_with(&[0xff, 0x03]) { 2 } else { 0 };
    let (protocol, len) = match *bytes.get(skip)? {
        odd if odd & 1 == 1 => (u16::from(odd), 1),
        _ => (be16(bytes, skip)?, 2),
    };
    pppoe::ethertype_of_ppp(protocol).map(|ethertype| Carried::Type(ethertype, at + skip + len))
}

/// What a UDP datagram to `port` carries, whose payload begins at byte `at` of the frame.
fn in_udp(port: u16, payload: &[u8], at: usize) -> Option<Carried> {
    match port {
        vxlan::PORT | vxlan::PORT_LINUX => {
            let packet = vxlan::Packet::new_checked(payload).ok()?;
            packet.has_vni().then_some(Carried::Frame(at + vxlan::HEADER_LEN))
        }
        vxlan::PORT_GPE => {
            let packet = vxlan::Packet::new_checked(payload).ok()?;
            let start = at + vxlan::HEADER_LEN;
            // The flag that says the field is valid is not asked: senders forget it, and the port is GPE's
            // own.
            match packet.next_protocol() {
                1 => Some(Carried::Type(EtherType::IPV4, start)),
                2 => Some(Carried::Type(EtherType::IPV6, start)),
                3 => Some(Carried::Frame(start)),
                _ => None,
            }
        }
        vxlan::GENEVE_PORT => {
            let packet = vxlan::Geneve::new_checked(payload).ok()?;
            packet.payload()?;
            let start = at + packet.header_len();
            match EtherType(packet.protocol_type()) {
                EtherType::TEB => Some(Carried::Frame(start)),
                ethertype if ethertype.0 >= EtherType::MIN => Some(Carried::Type(ethertype, start)),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header in raw form of `protocol` around `payload`.
    fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0];
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
        let [a, b] = port.to_be_bytes();
        [&[4, 0, a, b, len[0], len[1], 0, 0][..], payload].concat()
    }

    fn inner_of(frame: &[u8]) -> Option<Headers> {
        Headers::parse_as(LinkType::RawIp, frame).inner(frame)
    }

    #[test]
    fn ip_in_ip_to_any_depth_asked_for() {
        let frame = ip(4, &ip(4, &ip(17, &udp(53, b"x"))));
        let first = inner_of(&frame).unwrap();
        let second = first.inner(&frame).unwrap();
        assert_eq!((first.l3_offset(), second.l3_offset()), (Some(20), Some(40)));
        assert_eq!(second.udp(&frame).unwrap().dst_port(), 53);
        assert_eq!(second.payload(&frame), b"x");
        assert!(second.inner(&frame).is_none());
    }

    #[test]
    fn vxlan_and_gre_carry_frames() {
        let mut inner = vec![0; 12];
        inner.extend([8, 0]);
        inner.extend(ip(6, &[0; 19]));
        let vxlan = ip(17, &udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat()));
        let gre = ip(47, &[&[0x20, 0, 0x65, 0x58, 0, 0, 0, 1][..], &inner].concat());
        let plain = ip(47, &[&[0, 0, 8, 0][..], &inner[14..]].concat());
        let ppp =
            [&[0x30, 1, 0x88, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0x21][..], &inner[14..]].concat();
        for (frame, l2) in [(vxlan, 36), (gre, 28), (plain, 24), (ip(47, &ppp), 36)] {
            let headers = inner_of(&frame).unwrap();
            assert_eq!(headers.protocol(), Some(6));
            assert_eq!(headers.l2_offset(), l2);
            assert_eq!(headers.problem(), Some(crate::wire::Problem::TransportShort));
        }
    }

    #[test]
    fn the_innermost_checksum_takes_a_change_up() {
        use crate::wire::build::Packet;
        use crate::wire::checksum::Sum;
        let four = || Packet::raw().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let plain = four().protocol(99).payload(b"what changes").to_vec().unwrap();
        let in_gre = |checked: bool, packet: &[u8]| {
            let flags = if checked { &[0x80, 0, 8, 0, 0, 0, 0, 0][..] } else { &[0, 0, 8, 0] };
            let mut gre = [flags, packet].concat();
            if checked {
                gre::Packet::new_checked(&mut gre[..]).unwrap().fill_checksum();
            }
            four().protocol(gre::PROTOCOL).payload(&gre).to_vec().unwrap()
        };
        let in_vxlan = |packet: &[u8]| {
            // GPE, with an IPv4 packet.
            let payload = [&[0x0c, 0, 0, 1, 0, 0, 0, 0][..], packet].concat();
            four().udp(9, vxlan::PORT_GPE).payload(&payload).to_vec().unwrap()
        };
        for frame in [
            in_gre(true, &plain),
            in_vxlan(&plain),
            in_gre(true, &in_vxlan(&plain)),
            in_vxlan(&in_gre(false, &plain)),
            in_vxlan(&in_gre(true, &plain)),
        ] {
            let outer = Headers::parse_as(LinkType::RawIp, &frame);
            // From an even and from an odd place on.
            for at in [frame.len() - 6, frame.len() - 5] {
                let mut changed = frame.clone();
                let before = Sum::ZERO.add_bytes(&changed[at..]).fold();
                changed[at..].fill(0xa7);
                let after = Sum::ZERO.add_bytes(&changed[at..]).fold();
                outer.carried_changed(&mut changed, at, before, after);
                let mut headers = outer;
                while let Some(inner) = headers.inner(&changed) {
                    assert_ne!(headers.verify_checksums(&changed).transport, Some(false));
                    if let Some(bytes) = headers.l4_bytes(&changed, gre::PROTOCOL) {
                        assert!(gre::Packet::new_checked(bytes).unwrap().verify_checksum());
                    }
                    headers = inner;
                }
                assert_eq!(outer.innermost(&changed), Some(headers));
            }
        }
    }

    #[test]
    fn errors_quote_their_datagram() {
        let quoted = &ip(6, &[0x04, 0xd2, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0])[..28];
        let frame = ip(1, &[&[3, 4, 0, 0, 0, 0, 5, 0][..], quoted].concat());
        let headers = Headers::parse_as(LinkType::RawIp, &frame);
        let original = headers.original(&frame).unwrap();
        assert_eq!(original.ports(&frame), Some((1234, 80)));
        assert!(original.is_cut() && original.tcp(&frame).is_none());
        let echo = ip(1, &[8, 0, 0, 0, 0, 0, 5, 0]);
        assert!(Headers::parse_as(LinkType::RawIp, &echo).original(&echo).is_none());
    }

    #[test]
    fn what_is_no_tunnel_is_not_entered() {
        assert!(inner_of(&ip(17, &udp(4789, &[0; 40]))).is_none());
        assert!(inner_of(&ip(17, &udp(53, &[8; 40]))).is_none());
        assert!(inner_of(&ip(47, &[0x40, 0, 8, 0, 0, 0, 0, 0])).is_none());
        let mut fragment = ip(4, &ip(17, &udp(53, b"x")));
        fragment[7] = 1;
        assert!(inner_of(&fragment).is_none());
    }
}
