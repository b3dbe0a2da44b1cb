//! Super-frames cut up, checksums completed: as a card would have sent them, say readers of others' making.

use super::*;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::{MacAddr, gre, udp, vxlan};
use proptest::prelude::*;

/// A frame as local TCP or UDP makes it, and what stands beside it.
fn made(v6: bool, udp: bool, payload: usize, size: u16) -> (Vec<u8>, Offload) {
    let bytes: Vec<u8> = (0..payload).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let builder =
        if v6 { builder.ipv6([1; 16], [2; 16], 64) } else { builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
    let mut frame = Vec::new();
    if udp {
        builder.udp(1000, 2000).write(&mut frame, &bytes).unwrap();
    } else {
        let tcp = builder.tcp(1000, 2000, 0xffff_ff00, 5000).ack(7).psh().fin().cwr();
        tcp.write(&mut frame, &bytes).unwrap();
    }
    let start = 14 + if v6 { 40 } else { 20 };
    let offset = if udp { 6 } else { 16 };
    // Half a checksum: of the pseudo header alone.
    let length = u16::try_from(frame.len() - start).unwrap();
    let addresses = &frame[start - if v6 { 32 } else { 8 }..start];
    let half = Sum::default().add_bytes(addresses).add_u16(if udp { 17 } else { 6 }).add_u16(length).fold();
    frame[start + offset..start + offset + 2].copy_from_slice(&half.to_be_bytes());
    let gso = match (size, udp, v6) {
        (0, ..) => GSO_NONE,
        (_, true, _) => GSO_UDP,
        (_, _, true) => GSO_TCP_V6,
        _ => GSO_TCP_V4,
    };
    let offload = Offload {
        flags: NEEDS_CHECKSUM,
        gso,
        gso_size: size,
        checksum_start: u16::try_from(start).unwrap(),
        checksum_offset: u16::try_from(offset).unwrap(),
    };
    (frame, offload)
}

fn all(frame: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    let frames = Frames::of(frame, offload).unwrap();
    let one = |index| {
        let mut to = vec![0xee; frames.length(index)];
        frames.write(index, &mut to);
        to
    };
    (0..frames.count()).map(one).collect()
}

/// A reader of others' making says that lengths and checksums are right; the payload, and the TCP header if there is
/// one.
fn read(frame: &[u8]) -> (Vec<u8>, Option<etherparse::TcpHeader>, Option<u16>) {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let (id, v4, v6) = match &sliced.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (Some(header.identification), Some(header), None)
        }
        Some(etherparse::NetSlice::Ipv6(ip)) => (None, None, Some(ip.header().to_header())),
        other => panic!("{other:?}"),
    };
    match sliced.transport.unwrap() {
        etherparse::TransportSlice::Tcp(tcp) => {
            let (header, payload) = (tcp.to_header(), tcp.payload());
            let sum = match (&v4, &v6) {
                (Some(ip), _) => header.calc_checksum_ipv4(ip, payload).unwrap(),
                (_, Some(ip)) => header.calc_checksum_ipv6(ip, payload).unwrap(),
                _ => unreachable!(),
            };
            // Two values stand for zero; Linux writes the second in software, too (`skb_checksum_help`).
            assert_eq!(header.checksum, if sum == 0 { 0xffff } else { sum });
            (payload.to_vec(), Some(header), id)
        }
        etherparse::TransportSlice::Udp(udp) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            let sum = match (&v4, &v6) {
                (Some(ip), _) => header.calc_checksum_ipv4(ip, payload).unwrap(),
                (_, Some(ip)) => header.calc_checksum_ipv6(ip, payload).unwrap(),
                _ => unreachable!(),
            };
            assert_eq!((header.checksum, usize::from(header.length)), (sum, payload.len() + 8));
            (payload.to_vec(), None, id)
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn frames_are_what_a_card_would_have_sent(
        v6: bool, udp: bool, payload in 0usize..9000, size in prop_oneof![Just(0u16), 72u16..3000],
    ) {
        let (frame, offload) = made(v6, udp, payload, size);
        let frames = all(&frame, offload);
        let mut came = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            let (bytes, tcp, id) = read(frame);
            if let Some(tcp) = tcp {
                let last = index + 1 == frames.len();
                let at = u32::try_from(came.len()).unwrap();
                prop_assert_eq!(tcp.sequence_number, 0xffff_ff00_u32.wrapping_add(at));
                prop_assert_eq!((tcp.fin, tcp.psh, tcp.cwr, tcp.ack), (last, last, index == 0, true));
            }
            if let Some(id) = id {
                prop_assert_eq!(usize::from(id), index);
            }
            prop_assert!(size == 0 || bytes.len() <= usize::from(size));
            came.extend(bytes);
        }
        let whole: Vec<u8> = (0..payload).map(|i| u8::try_from(i % 251).unwrap()).collect();
        prop_assert_eq!(came, whole);
    }

    #[test]
    fn nonsense_is_refused(frame in prop::collection::vec(any::<u8>(), 0..200), header: [u8; Offload::BYTES]) {
        if let Ok(frames) = Frames::of(&frame, Offload::parse(header)) {
            for index in 0..frames.count() {
                let mut to = vec![0; frames.length(index)];
                frames.write(index, &mut to);
            }
        }
    }
}

#[test]
fn what_is_complete_stays_as_it_is() {
    let (frame, _) = made(false, false, 10, 0);
    assert_eq!(all(&frame, Offload::default()), [frame]);
}

/// Tunnels that the kernel sends super-frames through.
#[derive(Clone, Copy, Debug)]
enum Around {
    /// VXLAN to a port, with a checksum or without.
    Vxlan {
        port: u16,
        checked: bool,
    },
    Geneve,
    Gre {
        checked: bool,
    },
    IpInIp,
}

/// A frame that carries this one, as a tunnel of the kernel's makes it; the checksum of UDP is the half one.
fn carried(around: Around, v6: bool, frame: &[u8]) -> Vec<u8> {
    let mac = |last: u8| MacAddr([2, 0, 0, 0, 1, last]);
    let outer = Packet::ethernet(mac(1), mac(2)).vlan(7);
    let outer = if v6 {
        outer.ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
    } else {
        outer.ipv4([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
    };
    let payload = |header: &[u8], rest: &[u8]| [header, rest].concat();
    let inner_protocol = if frame[14] >> 4 == 4 { 4 } else { 41 };
    let (outer, payload) = match around {
        Around::Vxlan { port, .. } => (outer.udp(40_000, port), payload(&[8, 0, 0, 0, 0, 0, 7, 0], frame)),
        Around::Geneve => {
            (outer.udp(40_000, vxlan::GENEVE_PORT), payload(&[0, 0, 0x65, 0x58, 0, 0, 7, 0], frame))
        }
        Around::Gre { checked: false } => {
            (outer.protocol(gre::PROTOCOL), payload(&[0, 0, 0x65, 0x58], frame))
        }
        Around::Gre { checked: true } => {
            (outer.protocol(gre::PROTOCOL), payload(&[0x80, 0, 0x65, 0x58, 0, 0, 0, 0], frame))
        }
        Around::IpInIp => (outer.protocol(inner_protocol), frame[14..].to_vec()),
    };
    let mut made = outer.payload(&payload).to_vec().unwrap();
    let headers = Headers::parse(&made);
    if headers.protocol() == Some(udp::PROTOCOL) {
        let at = headers.l4_offset().unwrap() + 6;
        let none = matches!(around, Around::Vxlan { checked: false, .. });
        let half = headers.pseudo(&made).unwrap().sum(udp::PROTOCOL, headers.end() - at + 6).fold();
        made[at..at + 2].copy_from_slice(&if none { 0 } else { half }.to_be_bytes());
    }
    made
}

fn tunnel() -> impl Strategy<Value = Around> {
    prop_oneof![
        (prop_oneof![Just(vxlan::PORT), Just(5555u16)], any::<bool>())
            .prop_map(|(port, checked)| Around::Vxlan { port, checked }),
        Just(Around::Geneve),
        any::<bool>().prop_map(|checked| Around::Gre { checked }),
        Just(Around::IpInIp),
    ]
}

/// Every header in front of the innermost says what its frame is; the frame that is carried.
fn unwrapped(frame: &[u8], around: Around) -> Vec<u8> {
    let headers = Headers::parse(frame);
    assert!(headers.problem().is_none() && headers.end() == frame.len(), "{headers:?}");
    let sums = headers.verify_checksums(frame);
    // Over IPv6 a tunnel may do without one (RFC 6935), and nobody else.
    let none = matches!(around, Around::Vxlan { checked: false, .. });
    assert!(sums.ip != Some(false) && (none || sums.transport != Some(false)), "{sums:?}");
    let skip = match around {
        Around::Vxlan { checked, .. } => {
            assert_eq!(headers.udp(frame).unwrap().checksum() != 0, checked);
            16
        }
        Around::Geneve => 16,
        Around::Gre { checked } => {
            assert!(
                gre::Packet::new_checked(&frame[headers.l4_offset().unwrap()..]).unwrap().verify_checksum()
            );
            if checked { 8 } else { 4 }
        }
        Around::IpInIp => 0,
    };
    let inner = &frame[headers.l4_offset().unwrap() + skip..];
    if skip > 0 {
        return inner.to_vec();
    }
    let ethertype = if inner[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&[0; 12][..], &ethertype, inner].concat()
}

proptest! {
    #[test]
    fn super_frames_in_tunnels_are_cut_up_inside_and_out(
        around in tunnel(), outer_v6: bool, v6: bool, udp: bool, payload in 1usize..9000, size in 72u16..3000,
    ) {
        let (inner, offload) = made(v6, udp, payload, size);
        let frame = carried(around, outer_v6, &inner);
        // Both end with the same.
        let start = frame.len() - (inner.len() - usize::from(offload.checksum_start));
        let offload = Offload { checksum_start: u16::try_from(start).unwrap(), ..offload };
        let (mut came, mut ids) = (Vec::new(), Vec::new());
        for frame in all(&frame, offload) {
            if !outer_v6 {
                ids.push(usize::from(Headers::parse(&frame).ipv4(&frame).unwrap().id()));
            }
            came.extend(read(&unwrapped(&frame, around)).0);
        }
        let whole: Vec<u8> = (0..payload).map(|i| u8::try_from(i % 251).unwrap()).collect();
        prop_assert_eq!(came, whole);
        prop_assert!(ids.windows(2).all(|two| two[1] == two[0] + 1), "{:?}", ids);
    }
}

#[test]
fn a_checksum_of_sctp_is_no_internet_checksum() {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    // Ports, tag, checksum; a COOKIE ACK (RFC 9260 §3.3.12).
    let packet = [0, 7, 0, 8, 1, 2, 3, 4, 0, 0, 0, 0, 11, 0, 0, 4];
    let frame = Packet::ethernet(mac, mac)
        .ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
        .protocol(sctp::PROTOCOL)
        .payload(&packet)
        .to_vec()
        .unwrap();
    // With padding, which is not summed up.
    let frame = [&frame[..], &[0xee; 10]].concat();
    let offload =
        Offload { flags: NEEDS_CHECKSUM, checksum_start: 34, checksum_offset: 8, ..Offload::default() };
    let came = all(&frame, offload).concat();
    let mut whole = packet;
    sctp::complete(&mut whole);
    assert_eq!((&came[34..50], &came[50..]), (&whole[..], &[0xee; 10][..]));
    assert_ne!(whole, packet);
}

#[test]
fn no_frame_becomes_more_than_senders_make() {
    let (frame, offload) = made(false, false, 5000, 1);
    assert_eq!(Frames::of(&frame, offload).unwrap_err(), Unusable::Nonsense);
    let (frame, offload) = made(false, true, 129 * 8, 8);
    assert_eq!(Frames::of(&frame, offload).unwrap_err(), Unusable::Nonsense);
    let (frame, offload) = made(false, true, 128 * 8, 8);
    assert_eq!(all(&frame, offload).len(), 128);
}

#[test]
fn what_stands_around_and_is_not_known_is_refused_and_not_spoilt() {
    let (frame, offload) = made(false, false, 5000, 1000);
    // PPPoE has a length of its own.
    let pppoe = [&frame[..12], &[0x88, 0x64, 0x11, 0, 0, 1, 0x13, 0xb2, 0, 0x21], &frame[14..]].concat();
    let offload = Offload { checksum_start: offload.checksum_start + 8, ..offload };
    assert_eq!(Frames::of(&pppoe, offload).unwrap_err(), Unusable::Unsupported);
}
