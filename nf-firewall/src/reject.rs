//! Answers to packets that are rejected: a TCP reset, or an ICMP "unreachable".
//!
//! They go back out of the port by which the packet came, with addresses swapped and the same VLAN tags, as if the
//! packet's destination had answered: the firewall has no address of its own. Rules that keep answers from doing harm
//! are those of RFC 1122 §3.2.2 and RFC 4443 §2.4: none to an error, to a reset, to a later fragment, to a group, or to
//! an address that is no one's.

use std::net::IpAddr;

use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{EtherType, Net, ethernet, icmp, icmpv6, tcp, vlan};

use crate::packet::{Kind, Seen};
use crate::rules::{RejectWith, Unreachable};

/// Longest answer, as RFC 1812 §4.3.2.3 has it for IPv4.
const MOST_V4: usize = 576;
/// The least MTU of IPv6, which RFC 4443 §2.4 says an error may not exceed.
const MOST_V6: usize = 1280;
/// Bytes of IP and ICMP header in front of what an error quotes.
const BEFORE_QUOTE_V4: usize = 28;
const BEFORE_QUOTE_V6: usize = 48;
/// Ethernet header and as many tags as can be built.
const LINK: usize = 14 + 4 * 4;
/// Room for any answer.
pub(crate) const ROOM: usize = LINK + MOST_V6;

/// Writes the answer to a packet into `room`: its length, or none if there must be no answer.
pub(crate) fn answer(with: RejectWith, frame: &[u8], seen: &Seen, room: &mut [u8; ROOM]) -> Option<usize> {
    let headers = &seen.headers;
    if seen.tunnelled || matches!(seen.kind, Kind::LaterFragment(_)) {
        return None;
    }
    let ethernet = headers.ethernet(frame)?;
    let (source, destination) = (seen.facts.header.source(), seen.facts.header.destination());
    if ethernet.dst().is_multicast() || ethernet.src().is_multicast() {
        return None;
    }
    if !is_host(source) || !is_host(destination) {
        return None;
    }
    let mut reply = tags(frame, seen, Packet::ethernet(ethernet.dst(), ethernet.src()))?;
    reply = match (destination, source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => reply.ipv4(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => reply.ipv6(from, to),
        _ => return None,
    };
    let is_tcp = headers.protocol() == Some(tcp::PROTOCOL);
    match with {
        RejectWith::Fitting if is_tcp => reset(reply, frame, seen, room),
        RejectWith::TcpReset => reset(reply, frame, seen, room),
        RejectWith::Fitting => unreachable(Unreachable::Port, reply, frame, seen, room),
        RejectWith::Unreachable(kind) => unreachable(kind, reply, frame, seen, room),
    }
}

/// Whether an address is that of one host.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified(),
    }
}

/// The packet with the tags that the frame has; none if it has more than can be built, or other headers (MPLS, PPPoE)
/// before the network layer.
fn tags<'a>(frame: &[u8], seen: &Seen, mut reply: Packet<'a>) -> Option<Packet<'a>> {
    let count = seen.headers.vlan_count();
    if seen.headers.l3_offset()? != ethernet::HEADER_LEN + count * vlan::HEADER_LEN {
        return None;
    }
    for n in 0..count {
        let at = 12 + n * vlan::HEADER_LEN;
        let [a, b, c, d] = *frame.get(at..)?.first_chunk::<4>()?;
        reply = reply.tag(EtherType(u16::from_be_bytes([a, b])), u16::from_be_bytes([c, d]));
    }
    (count <= onvm_lib::wire::build::MAX_TAGS).then_some(reply)
}

/// A reset as RFC 9293 §3.10.7.1 has it for a connection that does not exist.
fn reset(reply: Packet<'_>, frame: &[u8], seen: &Seen, room: &mut [u8; ROOM]) -> Option<usize> {
    let segment = seen.headers.tcp(frame)?;
    let flags = segment.flags();
    if flags.contains(Flags::RST) {
        return None;
    }
    let reply = reply.tcp(segment.dst_port(), segment.src_port()).window(0);
    let reply = if flags.contains(Flags::ACK) {
        reply.seq(segment.ack()).flags(Flags::RST)
    } else {
        let payload = u32::try_from(seen.headers.payload_len()).unwrap_or(0);
        let length = payload + u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
        reply.seq(0).ack(segment.seq().wrapping_add(length)).flags(Flags::RST | Flags::ACK)
    };
    reply.write_to(room).ok()
}

fn unreachable(
    kind: Unreachable,
    reply: Packet<'_>,
    frame: &[u8],
    seen: &Seen,
    room: &mut [u8; ROOM],
) -> Option<usize> {
    let headers = &seen.headers;
    let packet = frame.get(headers.l3_offset()?..headers.end())?;
    if headers.net() == Net::Ipv4 {
        let is_error = headers.icmp(frame).is_some_and(|message| icmp::is_error(message.kind()));
        if is_error {
            return None;
        }
        let quote = &packet[..packet.len().min(MOST_V4 - BEFORE_QUOTE_V4)];
        let code = match kind {
            Unreachable::Net => 0,
            Unreachable::Host => 1,
            Unreachable::Protocol => 2,
            Unreachable::Port => 3,
            Unreachable::AdminProhibited => 13,
        };
        return reply.icmp(icmp::UNREACHABLE, code, 0).payload(quote).write_to(room).ok();
    }
    let is_error = headers.icmpv6(frame).is_some_and(|message| icmpv6::is_error(message.kind()));
    if is_error {
        return None;
    }
    let quote = &packet[..packet.len().min(MOST_V6 - BEFORE_QUOTE_V6)];
    // What ICMPv6 has no code for is said by the nearest; an unknown protocol is a parameter problem there
    // (RFC 4443 §3.4), and names the next-header field of the fixed header.
    let (message, code, rest) = match kind {
        Unreachable::Net => (icmpv6::UNREACHABLE, 0, 0),
        Unreachable::AdminProhibited => (icmpv6::UNREACHABLE, 1, 0),
        Unreachable::Host => (icmpv6::UNREACHABLE, 3, 0),
        Unreachable::Port => (icmpv6::UNREACHABLE, 4, 0),
        Unreachable::Protocol => (icmpv6::PARAMETER_PROBLEM, 1, 6),
    };
    reply.icmp(message, code, rest).payload(quote).write_to(room).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::wire::{Fragment, Headers, MacAddr, describe};
    use proptest::prelude::*;

    const MACS: (MacAddr, MacAddr) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));

    fn four<'a>() -> Packet<'a> {
        Packet::ethernet(MACS.0, MACS.1).ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
    }

    fn six<'a>() -> Packet<'a> {
        Packet::ethernet(MACS.0, MACS.1).ipv6(1.into(), 2.into())
    }

    fn answered(with: RejectWith, packet: Packet<'_>) -> Option<Vec<u8>> {
        let frame = packet.to_vec().unwrap();
        let mut room = [0; ROOM];
        let length = answer(with, &frame, &Seen::of(&frame, 0, false), &mut room)?;
        Some(room[..length].to_vec())
    }

    fn told(with: RejectWith, packet: Packet<'_>) -> String {
        answered(with, packet).map_or("nothing".into(), |frame| describe(&frame).to_string())
    }

    #[test]
    fn resets_are_those_of_a_closed_port() {
        let syn = four().tcp(1000, 80).seq(99).flags(Flags::SYN);
        let text = told(RejectWith::Fitting, syn);
        assert!(text.contains("10.0.0.2.80 > 10.0.0.1.1000: Flags [R.], seq 0, ack 100, win 0"), "{text}");
        let data = four().tcp(1000, 80).seq(5).ack(77).payload(b"hello");
        let text = told(RejectWith::TcpReset, data);
        assert!(text.contains("Flags [R], seq 77, win 0"), "{text}");
        let fin = six().tcp(1000, 80).seq(5).flags(Flags::FIN).payload(b"hello");
        assert!(told(RejectWith::Fitting, fin).contains("ack 11"));
        let tagged = answered(RejectWith::Fitting, four().vlan(7).tcp(1, 2)).unwrap();
        let headers = Headers::parse(&tagged);
        assert_eq!(headers.vlan_ids().collect::<Vec<_>>(), [7]);
        let link = headers.ethernet(&tagged).unwrap();
        assert_eq!((link.src(), link.dst()), (MACS.1, MACS.0));
        let pseudo = headers.ipv4(&tagged).unwrap().pseudo();
        assert!(headers.tcp(&tagged).unwrap().verify_checksum(&pseudo));
    }

    #[test]
    fn errors_quote_the_packet() {
        let frame = answered(RejectWith::Fitting, four().udp(1, 2).payload(&[7; 1400])).unwrap();
        let headers = Headers::parse(&frame);
        assert_eq!(frame.len(), 14 + MOST_V4);
        let message = headers.icmp(&frame).unwrap();
        assert!((message.kind(), message.code()) == (3, 3) && message.verify_checksum());
        assert_eq!(headers.original(&frame).unwrap().ports(&frame), Some((1, 2)));
        let all = [Unreachable::Net, Unreachable::Host, Unreachable::Protocol, Unreachable::AdminProhibited];
        let codes = all.map(|kind| {
            let frame = answered(RejectWith::Unreachable(kind), six().udp(1, 2).payload(&[7; 1400])).unwrap();
            let headers = Headers::parse(&frame);
            assert_eq!(frame.len(), 14 + MOST_V6);
            let message = headers.icmpv6(&frame).unwrap();
            assert!(message.verify_checksum(&headers.ipv6(&frame).unwrap().pseudo()));
            (message.kind(), message.code())
        });
        assert_eq!(codes, [(1, 0), (1, 3), (4, 1), (1, 1)]);
    }

    proptest! {
        /// Whatever a frame holds, looking at it ends, and an answer is a whole packet.
        #[test]
        fn any_frame_can_be_looked_at_and_answered(
            kind in 0usize..6, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(), inner in any::<bool>(),
        ) {
            let quoted = four().udp(1, 2).to_vec().unwrap();
            let packet = match kind {
                0 => four().tcp(1, 2).flags(Flags::SYN),
                1 => six().udp(1, 2).payload(&[1; 30]),
                2 => four().icmp(3, 3, 0).payload(&quoted[14..]),
                3 => six().vlan(5).echo_request(1, 2),
                4 => four().protocol(4).payload(&quoted[14..]),
                _ => four().fragment(Fragment { id: 1, offset: 0, more: true }).udp(1, 2).payload(&[1; 32]),
            };
            let mut frame = packet.to_vec().unwrap();
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            frame.truncate(cut.index(frame.len() + 1));
            let seen = Seen::of(&frame, 0, inner);
            let key = crate::connections::Key::of(&seen.facts.header, &seen.headers, &frame);
            let mut table = crate::connections::Connections::new(4, true, crate::connections::Timeouts::new(60));
            table.fetch(&[key]);
            let looked = table.look(0, key, &seen.facts.header, &seen.headers, &frame, 1);
            table.allowed(looked.ticket, Some(1), 1);
            let mut room = [0; ROOM];
            for (_, with) in RejectWith::NAMES {
                if let Some(length) = answer(with, &frame, &seen, &mut room) {
                    let headers = Headers::parse(&room[..length]);
                    prop_assert_eq!(headers.problem(), None);
                    prop_assert_eq!(headers.end(), length);
                }
            }
        }
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let nothing = |with, packet| assert_eq!(told(with, packet), "nothing");
        let group = Packet::ethernet(MACS.0, MacAddr::BROADCAST).ipv4([1; 4].into(), [2; 4].into());
        nothing(RejectWith::Fitting, four().tcp(1, 2).flags(Flags::RST));
        nothing(RejectWith::TcpReset, four().udp(1, 2));
        nothing(RejectWith::Fitting, four().icmp(3, 1, 0).payload(&[0; 28]));
        nothing(RejectWith::Fitting, six().icmp(1, 1, 0).payload(&[0; 48]));
        nothing(RejectWith::Fitting, group.udp(1, 2));
        let base = Packet::ethernet(MACS.0, MACS.1);
        nothing(RejectWith::Fitting, base.ipv4([10; 4].into(), [224, 0, 0, 1].into()).udp(1, 2));
        nothing(RejectWith::Fitting, base.ipv4([0; 4].into(), [10; 4].into()).udp(1, 2));
        let later = Fragment { id: 1, offset: 64, more: false };
        nothing(RejectWith::Fitting, four().fragment(later).udp(1, 2).payload(&[0; 64]));
    }
}
