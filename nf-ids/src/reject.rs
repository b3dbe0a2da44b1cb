//! Answers to packets that are rejected: TCP resets to either end, or ICMP "unreachable" to the sender.
//!
//! An answer to the sender goes back out of the port by which the packet came, with addresses swapped and the same VLAN
//! tags, as if the destination had answered; one to the receiver goes on, as if the sender had sent it: the IDS has no
//! address of its own. None is made for what must not be answered (RFC 1122 §3.2.2, RFC 4443 §2.4): an error, a reset, a
//! fragment, a group, an address that is no one's; nor for what a tunnel carries.

use std::net::IpAddr;

use onvm_lib::wire::build::{MAX_TAGS, Packet};
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{EtherType, Headers, MacAddr, Net, ethernet, icmp, icmpv6, tcp, vlan};

/// Longest answer, as RFC 1812 §4.3.2.3 has it for IPv4.
const MOST_V4: usize = 576;
/// The least MTU of IPv6, which RFC 4443 §2.4 says an error may not exceed.
const MOST_V6: usize = 1280;
const BEFORE_QUOTE_V4: usize = 28;
const BEFORE_QUOTE_V6: usize = 48;
/// Codes of "port unreachable".
const PORT_V4: u8 = 3;
const PORT_V6: u8 = 4;
/// Room for any answer.
pub const ROOM: usize = 14 + 4 * 4 + MOST_V6;

/// Which end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Who sent the packet.
    Sender,
    /// Whom it was for; by a reset only.
    Receiver,
}

/// Writes the answer to a packet into `room`: its length, or none if there must be no answer.
#[must_use]
pub fn answer(frame: &[u8], to: To, room: &mut [u8; ROOM]) -> Option<usize> {
    let headers = Headers::parse(frame);
    if headers.fragment(frame).is_some_and(|fragment| fragment.offset != 0) {
        return None;
    }
    let link = headers.ethernet(frame)?;
    if link.dst().is_multicast() || link.src().is_multicast() {
        return None;
    }
    let (source, destination) = addresses(&headers, frame)?;
    if !is_host(source) || !is_host(destination) {
        return None;
    }
    let back = to == To::Sender;
    let ends = if back { (link.dst(), link.src()) } else { (link.src(), link.dst()) };
    let reply = tags(frame, &headers, ends)?;
    let (from, until) = if back { (destination, source) } else { (source, destination) };
    let reply = match (from, until) {
        (IpAddr::V4(from), IpAddr::V4(until)) => reply.ipv4(from, until),
        (IpAddr::V6(from), IpAddr::V6(until)) => reply.ipv6(from, until),
        _ => return None,
    };
    match (headers.protocol(), to) {
        (Some(tcp::PROTOCOL), _) => reset(reply, frame, &headers, to, room),
        (_, To::Sender) => unreachable(reply, frame, &headers, room),
        (_, To::Receiver) => None,
    }
}

fn addresses(headers: &Headers, frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match headers.net() {
        Net::Ipv4 => headers.ipv4(frame).map(|ip| (IpAddr::V4(ip.src()), IpAddr::V4(ip.dst()))),
        Net::Ipv6 => headers.ipv6(frame).map(|ip| (IpAddr::V6(ip.src()), IpAddr::V6(ip.dst()))),
        _ => None,
    }
}

/// Whether an address is that of one host.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified(),
    }
}

/// A packet between these stations with the tags that the frame has; none if it has more than can be built, or other
/// headers (MPLS, PPPoE) before the network layer.
fn tags<'a>(frame: &[u8], headers: &Headers, (from, to): (MacAddr, MacAddr)) -> Option<Packet<'a>> {
    let count = headers.vlan_count();
    if headers.l3_offset()? != ethernet::HEADER_LEN + count * vlan::HEADER_LEN || count > MAX_TAGS {
        return None;
    }
    let mut reply = Packet::ethernet(from, to);
    for n in 0..count {
        let at = 12 + n * vlan::HEADER_LEN;
        let [a, b, c, d] = *frame.get(at..)?.first_chunk::<4>()?;
        reply = reply.tag(EtherType(u16::from_be_bytes([a, b])), u16::from_be_bytes([c, d]));
    }
    Some(reply)
}

/// To the sender, a reset as RFC 9293 §3.10.7.1 has it for a connection that does not exist; to the receiver, one in the
/// place of the segment.
fn reset(reply: Packet<'_>, frame: &[u8], headers: &Headers, to: To, room: &mut [u8; ROOM]) -> Option<usize> {
    let segment = headers.tcp(frame)?;
    let flags = segment.flags();
    if flags.contains(Flags::RST) {
        return None;
    }
    let reply = match to {
        To::Receiver => {
            let reply = reply.tcp(segment.src_port(), segment.dst_port()).window(0).seq(segment.seq());
            if flags.contains(Flags::ACK) {
                reply.ack(segment.ack()).flags(Flags::RST | Flags::ACK)
            } else {
                reply.flags(Flags::RST)
            }
        }
        To::Sender => {
            let reply = reply.tcp(segment.dst_port(), segment.src_port()).window(0);
            let payload = u32::try_from(headers.payload_len()).unwrap_or(0);
            let length =
                payload + u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
            let ack = segment.seq().wrapping_add(length);
            let seq = if flags.contains(Flags::ACK) { segment.ack() } else { 0 };
            reply.seq(seq).ack(ack).flags(Flags::RST | Flags::ACK)
        }
    };
    reply.write_to(room).ok()
}

fn unreachable(reply: Packet<'_>, frame: &[u8], headers: &Headers, room: &mut [u8; ROOM]) -> Option<usize> {
    let packet = frame.get(headers.l3_offset()?..headers.end())?;
    if headers.net() == Net::Ipv4 {
        if headers.icmp(frame).is_some_and(|message| icmp::is_error(message.kind())) {
            return None;
        }
        let quote = &packet[..packet.len().min(MOST_V4 - BEFORE_QUOTE_V4)];
        return reply.icmp(icmp::UNREACHABLE, PORT_V4, 0).payload(quote).write_to(room).ok();
    }
    if headers.icmpv6(frame).is_some_and(|message| icmpv6::is_error(message.kind())) {
        return None;
    }
    let quote = &packet[..packet.len().min(MOST_V6 - BEFORE_QUOTE_V6)];
    reply.icmp(icmpv6::UNREACHABLE, PORT_V6, 0).payload(quote).write_to(room).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::wire::describe;

    const MACS: (MacAddr, MacAddr) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));

    fn four<'a>() -> Packet<'a> {
        Packet::ethernet(MACS.0, MACS.1).ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
    }

    fn told(to: To, packet: Packet<'_>) -> String {
        let frame = packet.to_vec().unwrap();
        let mut room = [0; ROOM];
        answer(&frame, to, &mut room).map_or("nothing".into(), |length| describe(&room[..length]).to_string())
    }

    #[test]
    fn both_ends_of_a_session_can_be_reset() {
        let data = || four().vlan(7).tcp(1000, 80).seq(5).ack(77).flags(Flags::ACK).payload(b"hello");
        let back = told(To::Sender, data());
        assert!(back.contains("10.0.0.2.80 > 10.0.0.1.1000: Flags [R.], seq 77, ack 10"), "{back}");
        let on = told(To::Receiver, data());
        assert!(on.contains("10.0.0.1.1000 > 10.0.0.2.80: Flags [R.], seq 5, ack 77"), "{on}");
        assert_eq!(told(To::Sender, four().tcp(1, 2).flags(Flags::RST)), "nothing");
    }

    #[test]
    fn datagrams_are_unreachable_for_their_sender() {
        assert!(told(To::Sender, four().udp(1, 2).payload(&[7; 1400])).contains("unreachable"));
        let six = Packet::ethernet(MACS.0, MACS.1).ipv6(1.into(), 2.into());
        assert!(told(To::Sender, six.udp(1, 2)).contains("unreachable"));
        assert_eq!(told(To::Receiver, four().udp(1, 2)), "nothing");
        assert_eq!(told(To::Sender, four().icmp(3, 1, 0).payload(&[0; 28])), "nothing");
        let group = Packet::ethernet(MACS.0, MACS.1).ipv4([10; 4].into(), [224, 0, 0, 1].into());
        assert_eq!(told(To::Sender, group.udp(1, 2)), "nothing");
    }
}
