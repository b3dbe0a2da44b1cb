use onvm_lib::wire::LinkType;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::{MacAddr, tcp};

use super::*;

fn read(frame: &[u8]) -> (Decoded<'_>, Option<Inner<'_>>) {
    decode(&Settings::default(), frame, Begin::Link(LinkType::Ethernet), 0)
}

fn names(packet: &Decoded<'_>) -> Vec<&'static str> {
    packet.events.iter().map(Event::name).collect()
}

fn base<'a>() -> Packet<'a> {
    Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
}

fn four<'a>() -> Packet<'a> {
    base().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
}

/// An IPv6 packet with these bytes behind its fixed header.
fn six(next: u8, rest: &[u8]) -> Vec<u8> {
    base().ipv6(1.into(), 2.into()).protocol(next).payload(rest).to_vec().unwrap()
}

#[test]
fn events_have_names_of_their_own_and_are_found_by_them() {
    for (event, name) in Event::ALL {
        assert_eq!(Event::from_name(name), Some(*event));
        assert_eq!(event.name(), *name);
    }
    let mut set = Events::default();
    set.set(Event::ArpOpcode);
    assert!(set.has(Event::ArpOpcode) && !set.is_empty() && !set.has(Event::ArpTooSmall));
}

#[test]
fn headers_say_what_rules_ask() {
    let frame =
        four().vlan(7).tcp(1000, 80).seq(5).ack(6).flags(tcp::Flags::SYN).payload(b"abc").to_vec().unwrap();
    let (packet, inner) = read(&frame);
    assert!(inner.is_none() && packet.events.is_empty(), "{:?}", names(&packet));
    assert_eq!(packet.vlan_ids(), [7]);
    assert_eq!((packet.source_port, packet.destination_port), (1000, 80));
    assert_eq!((packet.tcp_seq(), packet.tcp_ack(), packet.tcp_flags()), (Some(5), Some(6), Some(2)));
    assert_eq!((packet.payload, packet.protocol, packet.ttl()), (&b"abc"[..], Some(6), Some(64)));
    let frame = six(58, &[2, 0, 0, 0, 0, 0, 5, 0]);
    let (packet, _) = read(&frame);
    assert_eq!(packet.icmp_fields.and_then(|fields| fields.mtu), Some(1280));
}

#[test]
fn what_is_cut_or_contradicts_itself_is_told() {
    let whole = four().tcp(1, 2).to_vec().unwrap();
    let change = |at: usize, value: u8| {
        let mut frame = whole.clone();
        frame[at] = value;
        frame
    };
    let cases: [(Vec<u8>, &[&str]); 9] = [
        (whole[..10].to_vec(), &["ethernet.pkt_too_small"]),
        (whole[..30].to_vec(), &["ipv4.pkt_too_small"]),
        (change(14, 0x55), &["ipv4.wrong_ip_version"]),
        (change(14, 0x44), &["ipv4.hlen_too_small"]),
        (change(17, 19), &["ipv4.iplen_smaller_than_hlen"]),
        (whole[..50].to_vec(), &["ipv4.trunc_pkt"]),
        (change(17, 39), &["tcp.pkt_too_small"]),
        (change(14 + 20 + 12, 0x40), &["tcp.invalid_optlen"]),
        (change(14 + 20 + 12, 0xf0), &["tcp.hlen_too_small"]),
    ];
    for (frame, expected) in cases {
        let (packet, _) = read(&frame);
        assert_eq!(names(&packet), expected);
    }
    let mut frame = four().udp(1, 2).payload(b"abcd").to_vec().unwrap();
    frame[14 + 20 + 5] = 200;
    assert_eq!(names(&read(&frame).0), ["udp.pkt_too_small"]);
    frame[14 + 20 + 5] = 7;
    assert_eq!(names(&read(&frame).0), ["udp.len_invalid"]);
}

#[test]
fn extension_headers_are_walked_and_faulted() {
    // Two destination options headers are right, a third is not.
    let padding = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let mut rest = Vec::new();
    for next in [60, 60, 59] {
        rest.extend(padding(next));
    }
    let frame = six(60, &rest);
    assert_eq!(names(&read(&frame).0), ["ipv6.exthdr_dupl_dh", "ipv6.dstopts_only_padding"]);
    // An atomic fragment is read on; its reserved bits are told.
    let mut rest = vec![17, 9, 0, 0, 0, 0, 0, 1];
    rest.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    let frame = six(44, &rest);
    let (packet, _) = read(&frame);
    assert_eq!(names(&packet), ["ipv6.exthdr_useless_fh", "ipv6.fh_non_zero_reserved_field"]);
    assert_eq!((packet.protocol, packet.destination_port), (Some(17), 2));
    let cases: [(u8, &[u8], &str); 5] = [
        (0, &[59, 1, 0, 0, 0, 0, 0, 0], "ipv6.trunc_exthdr"),
        (0, &[59, 0, 200, 4, 0, 0, 0, 0], "ipv6.hopopts_unknown_opt"),
        (43, &[59, 0, 0, 0, 0, 0, 0, 0], "ipv6.rh_type_0"),
        (59, &[1], "ipv6.data_after_none_header"),
        (1, &[8, 0, 0, 0], "ipv6.icmpv4"),
    ];
    for (next, rest, name) in cases {
        assert_eq!(names(&read(&six(next, rest)).0), [name]);
    }
}

#[test]
fn tunnels_carry_packets() {
    let inside = four().udp(1, 2).payload(b"in").to_vec().unwrap();
    let mut gre = vec![0, 0, 8, 0];
    gre.extend(&inside[14..]);
    let mut vxlan = vec![8, 0, 0, 0, 0, 0, 7, 0];
    vxlan.extend(&inside);
    let mut geneve = vec![0, 0, 0x65, 0x58, 0, 0, 7, 0];
    geneve.extend(&inside);
    let six_inside = base().ipv6(1.into(), 2.into()).udp(1, 2).to_vec().unwrap();
    let cases = [
        (four().protocol(4).payload(&inside[14..]).to_vec().unwrap(), Tunnel::Ipv4),
        (four().protocol(47).payload(&gre).to_vec().unwrap(), Tunnel::Gre),
        (four().udp(9, 4789).payload(&vxlan).to_vec().unwrap(), Tunnel::Vxlan),
        (four().udp(9, 6081).payload(&geneve).to_vec().unwrap(), Tunnel::Geneve),
        (four().udp(9, 3544).payload(&six_inside[14..]).to_vec().unwrap(), Tunnel::Teredo),
    ];
    for (frame, tunnel) in cases {
        let (packet, inner) = read(&frame);
        assert!(packet.events.is_empty(), "{tunnel:?}: {:?}", names(&packet));
        let inner = inner.unwrap();
        assert_eq!(inner.tunnel, tunnel);
        let (packet, _) = decode(&Settings::default(), inner.bytes, inner.begin, packet.layers);
        assert_eq!((packet.source_port, packet.destination_port), (1, 2));
    }
}

#[test]
fn options_of_ipv4_are_noted_and_faulted() {
    let mut events = Events::default();
    let options = Ipv4Options::read(&[7, 7, 4, 0, 0, 0, 0, 0], &mut events);
    assert!(options.has(OptionKind::RecordRoute) && options.has(OptionKind::End) && events.is_empty());
    for (bytes, name) in [
        (&[7, 7, 5, 0, 0, 0, 0, 0][..], "ipv4.opt_malformed"),
        (&[7, 9, 4, 0, 0, 0, 0, 0], "ipv4.opt_invalid_len"),
        (&[136, 4, 0, 0, 136, 4, 0, 0], "ipv4.opt_duplicate"),
        (&[1, 1, 1, 0], "ipv4.opt_pad_required"),
        (&[1, 1, 1, 1, 1, 1, 1, 7], "ipv4.opt_eol_required"),
    ] {
        let mut events = Events::default();
        let _ = Ipv4Options::read(bytes, &mut events);
        assert_eq!(events.iter().map(Event::name).collect::<Vec<_>>(), [name]);
    }
}

proptest::proptest! {
    /// Any bytes are read to an end, from any beginning.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), kind in 0usize..8) {
        let begin = [
            Begin::Link(LinkType::Ethernet), Begin::Link(LinkType::LinuxSll), Begin::Ip, Begin::Ipv4, Begin::Ipv6,
            Begin::Ether(0x8100), Begin::Ppp, Begin::Ether(0x8847),
        ][kind];
        let mut next = Some((&bytes[..], begin));
        let mut layers = 0;
        while let Some((bytes, begin)) = next {
            let (packet, inner) = decode(&Settings::default(), bytes, begin, layers);
            layers = packet.layers;
            proptest::prop_assert!(packet.payload.len() <= bytes.len());
            next = inner.map(|inner| (inner.bytes, inner.begin));
        }
    }
}
