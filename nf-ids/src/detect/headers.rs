//! Tests of a packet's headers and of its flow.

use crate::app::{self, Protocol};
use crate::decode::{Decoded, Net, Transport};
use crate::engine::Inspection;
use crate::flow::Direction;
use crate::rules::{Bits, Checksummed, Compare, Field, HeaderBytes, HeaderTest, ProtocolSide, StreamSide};
use onvm_lib::wire::checksum::{Pseudo, Sum};
use std::net::IpAddr;

/// Whether a test holds for a packet.
pub(crate) fn holds(test: &HeaderTest, seen: &Inspection<'_>) -> bool {
    let packet = seen.packet;
    match test {
        HeaderTest::Number(Field::VlanId(layer), compare) => vlan(packet, *layer, *compare),
        HeaderTest::Number(Field::PayloadSize, compare) => payload_size(seen, *compare),
        HeaderTest::Number(Field::FlowPackets(side), compare) => {
            seen.flow.is_some_and(|flow| of_flow(flow.packets, *side, *compare))
        }
        HeaderTest::Number(Field::FlowBytes(side), compare) => {
            seen.flow.is_some_and(|flow| of_flow(flow.bytes, *side, *compare))
        }
        HeaderTest::Number(field, compare) => number(*field, seen).is_some_and(|n| compare.holds(n)),
        HeaderTest::IpOption(kind) => match kind {
            Some(kind) => packet.ipv4_options.has(*kind),
            None => packet.ipv4_options.any(),
        },
        HeaderTest::FragmentBits(bits) => packet.fragment_bits().is_some_and(|value| bits.holds(value)),
        HeaderTest::TcpFlags(bits) => {
            packet.tcp_flags().is_some_and(|value| is_asked_of(*bits, value) && bits.holds(value))
        }
        HeaderTest::SameIp => (packet.is_ipv4() || packet.is_ipv6()) && packet.source == packet.destination,
        HeaderTest::StreamSize(side, compare) => stream_size(seen, *side, *compare),
        HeaderTest::DecodeEvent(event) => packet.has(*event),
        HeaderTest::StreamEvent(event) => seen.stream_events.has(*event),
        HeaderTest::Checksum(what, right) => checksum(packet, *what) == Some(*right),
        HeaderTest::Rpc { program, version, procedure } => {
            rpc(packet, [Some(*program), *version, *procedure])
        }
        HeaderTest::AppProtocol(names, negated, side) => protocol(seen, names, *negated, *side),
    }
}

/// Whether a test of TCP flags is asked of segments with these at all. As in Suricata, one that names SYN, FIN or RST is only
/// asked of segments with one of them, whatever its sign (`flags:!S` is not of every acknowledgement); likewise URG, ECE, CWR.
fn is_asked_of(test: Bits, flags: u8) -> bool {
    const ENDS: u8 = 0x07;
    const UNUSUAL: u8 = 0xe0;
    [ENDS, UNUSUAL].iter().all(|group| test.bits & group == 0 || flags & group != 0)
}

/// Numbers that a flow has of each direction: of one, of either, of both.
fn of_flow(counts: [u64; 2], side: StreamSide, compare: Compare) -> bool {
    let [server, client] = counts.map(|count| compare.holds(count));
    match side {
        StreamSide::Server => server,
        StreamSide::Client => client,
        StreamSide::Both => server && client,
        StreamSide::Either => server || client,
    }
}

/// The payload's size. A comparison that is not of small sizes is never one of no payload, as in Suricata.
fn payload_size(seen: &Inspection<'_>, compare: Compare) -> bool {
    let packet = seen.packet;
    if packet.pseudo {
        return false;
    }
    // A message of IGMP is all header.
    let size = if igmp(packet).is_some() { 0 } else { packet.payload.len() as u64 };
    let more = matches!(compare, Compare::NotEqual(_) | Compare::AtLeast(_));
    // A packet that brings its stream to be inspected counts as one with a payload.
    let none = compare == Compare::Equal(0) && seen.window.is_some();
    compare.holds(size) && !(more && size == 0) && !none
}

fn number(field: Field, seen: &Inspection<'_>) -> Option<u64> {
    let packet = seen.packet;
    let icmp = packet.icmp_fields.as_ref();
    Some(match field {
        Field::Ttl => packet.ttl()?.into(),
        // The class of IPv6 is another thing.
        Field::Tos => packet.tos().filter(|_| packet.is_ipv4())?.into(),
        Field::Id => packet.ip_id()?.into(),
        Field::IpProtocol => packet.protocol?.into(),
        Field::FragmentOffset => packet.fragment_offset()?.into(),
        Field::Sequence => packet.tcp_seq()?.into(),
        Field::Acknowledgement => packet.tcp_ack()?.into(),
        Field::Window => packet.tcp_window()?.into(),
        Field::Mss => packet.tcp_fields.mss?.into(),
        Field::WindowScale => packet.tcp_fields.scale?.into(),
        Field::IcmpType => icmp?.kind.into(),
        Field::IcmpCode => icmp?.code.into(),
        Field::IcmpId => icmp?.id?.into(),
        Field::IcmpSequence => icmp?.sequence?.into(),
        Field::IcmpMtu => icmp?.mtu?.into(),
        Field::IgmpType => (*igmp(packet)?.first()?).into(),
        Field::VlanLayers => packet.vlan_ids().len() as u64,
        Field::FlowAge => seen.flow?.age_seconds(),
        Field::VlanId(_) | Field::PayloadSize | Field::FlowPackets(_) | Field::FlowBytes(_) => return None,
    })
}

/// Whether a packet begins a call of ONC RPC (RFC 5531) of this program, version and procedure. TCP has a length before it.
fn rpc(packet: &Decoded<'_>, wanted: [Option<u32>; 3]) -> bool {
    const CALL: u32 = 0;
    const RPC_VERSION: u32 = 2;
    let start = match packet.protocol {
        Some(6) => 4,
        Some(17) => 0,
        _ => return false,
    };
    let word = |index: usize| {
        let four = packet.payload.get(start + 4 * index..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*four))
    };
    // After the call's number.
    let call = word(1) == Some(CALL) && word(2) == Some(RPC_VERSION);
    call && wanted.iter().enumerate().all(|(n, wanted)| wanted.is_none_or(|one| word(3 + n) == Some(one)))
}

fn igmp<'a>(packet: &Decoded<'a>) -> Option<&'a [u8]> {
    (packet.protocol == Some(2) && packet.fragment.is_none()).then_some(packet.ip_payload)
}

fn vlan(packet: &Decoded<'_>, layer: Option<u8>, compare: Compare) -> bool {
    let ids = packet.vlan_ids();
    match layer {
        Some(layer) => ids.get(usize::from(layer)).is_some_and(|id| compare.holds(u64::from(*id))),
        None => ids.iter().any(|id| compare.holds(u64::from(*id))),
    }
}

fn stream_size(seen: &Inspection<'_>, side: StreamSide, compare: Compare) -> bool {
    let Some([client, server]) = seen.flow.and_then(|flow| flow.stream_bytes) else { return false };
    let (client, server) = (compare.holds(client), compare.holds(server));
    match side {
        StreamSide::Client => client,
        StreamSide::Server => server,
        StreamSide::Both => client && server,
        StreamSide::Either => client || server,
    }
}

/// Whether the flow's protocol is one of these, or, negated, is known and none of them.
fn protocol(seen: &Inspection<'_>, names: &[Protocol], negated: bool, side: ProtocolSide) -> bool {
    if seen.flow.is_none() {
        return false;
    }
    let of = |side: ProtocolSide| {
        let spoken = match side {
            ProtocolSide::Packet => has_spoken(seen, direction(seen)),
            ProtocolSide::ToServer => has_spoken(seen, Direction::ToServer),
            ProtocolSide::ToClient => has_spoken(seen, Direction::ToClient),
            ProtocolSide::Final | ProtocolSide::Either | ProtocolSide::Original => true,
        };
        let app: Option<&app::State> = seen.app.filter(|_| spoken);
        match side {
            ProtocolSide::Original => app.map_or(Protocol::Unknown, |app| app.original_protocol()),
            _ => app.map_or(Protocol::Unknown, |app| app.protocol()),
        }
    };
    let is = of(side);
    if negated { is != Protocol::Unknown && !names.contains(&is) } else { names.contains(&is) }
}

/// Whether a direction of the flow has carried data, from which its protocol could be known. SYN and FIN take a number
/// each in the sequence.
pub(crate) fn has_spoken(seen: &Inspection<'_>, direction: Direction) -> bool {
    seen.flow.is_some_and(|flow| flow.stream_bytes.is_none_or(|bytes| bytes[direction.index()] > 2))
}

/// The bytes of a header, if the packet has it.
pub(crate) fn bytes<'a>(packet: &Decoded<'a>, header: HeaderBytes) -> Option<&'a [u8]> {
    match header {
        HeaderBytes::Ethernet => packet.ethernet,
        HeaderBytes::Ipv4 => packet.ipv4_header(),
        HeaderBytes::Ipv6 => packet.ipv6_header(),
        HeaderBytes::Tcp => packet.tcp_header(),
        HeaderBytes::Udp => packet.udp_header(),
        HeaderBytes::Icmpv4 => packet.icmpv4_header(),
        HeaderBytes::Icmpv6 => packet.icmpv6_header(),
        HeaderBytes::Igmp => igmp(packet),
        HeaderBytes::Source => match packet.net {
            Net::V4(header) => header.get(12..16),
            Net::V6(header) => header.get(8..24),
            Net::None => None,
        },
        HeaderBytes::Destination => match packet.net {
            Net::V4(header) => header.get(16..20),
            Net::V6(header) => header.get(24..40),
            Net::None => None,
        },
    }
}

/// Whether a checksum is right; `None` when the packet has none of the kind.
fn checksum(packet: &Decoded<'_>, what: Checksummed) -> Option<bool> {
    if packet.fragment.is_some() {
        return None;
    }
    let pseudo = |protocol: u8, length: usize| match (packet.source, packet.destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => Some(Pseudo::v4(s, d).sum(protocol, length)),
        (IpAddr::V6(s), IpAddr::V6(d)) => Some(Pseudo::v6(s, d).sum(protocol, length)),
        _ => None,
    };
    let right = |sum: Sum, parts: [&[u8]; 2]| sum.add_bytes(parts[0]).add_bytes(parts[1]).finish() == 0;
    let v4 = packet.is_ipv4();
    match (what, packet.transport) {
        (Checksummed::Ipv4, _) => packet.ipv4_header().map(|h| right(Sum::default(), [h, &[]])),
        (Checksummed::Tcpv4 | Checksummed::Tcpv6, Transport::Tcp(h))
            if v4 == (what == Checksummed::Tcpv4) =>
        {
            Some(right(pseudo(6, h.len() + packet.payload.len())?, [h, packet.payload]))
        }
        (Checksummed::Udpv4 | Checksummed::Udpv6, Transport::Udp(h))
            if v4 == (what == Checksummed::Udpv4) =>
        {
            // Over IPv4, none need be there.
            let none = h.get(6..8) == Some(&[0, 0]);
            Some(none && v4 || right(pseudo(17, h.len() + packet.payload.len())?, [h, packet.payload]))
        }
        (Checksummed::Icmpv4, Transport::Icmp4(_)) => Some(right(Sum::default(), [packet.ip_payload, &[]])),
        (Checksummed::Icmpv6, Transport::Icmp6(_)) => {
            Some(right(pseudo(58, packet.ip_payload.len())?, [packet.ip_payload, &[]]))
        }
        (Checksummed::Igmp, _) => igmp(packet).map(|h| right(Sum::default(), [h, &[]])),
        _ => None,
    }
}

/// The direction of a packet; without a flow, to the server.
pub(crate) fn direction(seen: &Inspection<'_>) -> Direction {
    seen.flow.map_or(Direction::ToServer, |flow| flow.direction)
}
