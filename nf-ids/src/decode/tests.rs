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
    let read = |bytes: &[u8]| {
        let mut events = Events::default();
        let read = Ipv4Options::read(bytes, &mut events);
        (read, events.iter().map(Event::name).collect::<Vec<_>>())
    };
    let (options, events) = read(&[7, 7, 4, 0, 0, 0, 0, 0]);
    assert!(options.is_ok_and(|o| o.has(OptionKind::RecordRoute) && o.has(OptionKind::End)));
    assert!(events.is_empty());
    // What is odd, and what makes the header useless.
    let odd: [(&[u8], &[&str]); 4] = [
        (&[136, 4, 0, 0, 136, 4, 0, 0], &["ipv4.opt_duplicate"]),
        (&[1, 1, 1, 0], &["ipv4.opt_pad_required"]),
        (&[1, 1, 1, 1, 1, 1, 1, 7], &["ipv4.opt_eol_required"]),
        (&[99, 8, 0, 0, 0, 0, 0, 0], &["ipv4.opt_invalid"]),
    ];
    for (bytes, names) in odd {
        let (options, events) = read(bytes);
        assert_eq!((options.is_ok(), events), (true, names.to_vec()));
    }
    for (bytes, event) in [
        (&[7, 7, 5, 0, 0, 0, 0, 0][..], Event::Ipv4OptionMalformed),
        (&[7, 9, 4, 0, 0, 0, 0, 0], Event::Ipv4OptionLength),
        (&[25, 7, 0, 0, 0, 0, 0, 0], Event::Ipv4OptionLength),
        (&[134, 5, 0, 0, 0, 0, 0, 0], Event::Ipv4OptionLength),
        (&[134, 8, 0, 0, 0, 1, 1, 0], Event::Ipv4OptionMalformed),
    ] {
        assert_eq!(read(bytes).0, Err(event), "{bytes:?}");
    }
    assert!(read(&[134, 12, 0, 0, 0, 1, 1, 6, 0, 1, 2, 3, 0, 0, 0, 0]).0.is_ok());
    // The packet has no network layer then: rules for addresses have nothing to compare.
    let mut frame = four().payload(&[7; 8]).to_vec().unwrap();
    frame[14] = 0x47;
    let (packet, _) = decode(&Settings::default(), &frame, Begin::Link(LinkType::Ethernet), 0);
    assert!(packet.protocol.is_none() && matches!(packet.net, Net::None));
    assert_eq!(names(&packet), ["ipv4.opt_malformed"]);
}

#[test]
fn options_of_ipv6_fault_themselves_and_nothing_behind_them() {
    let udp = [0, 1, 0, 2, 0, 8, 0, 0];
    let with = |options: [u8; 6]| {
        let mut rest = vec![17, 0];
        rest.extend(options);
        rest.extend(udp);
        six(0, &rest)
    };
    let cases: [([u8; 6], &[&str]); 6] = [
        ([1, 4, 0, 0, 0, 0], &["ipv6.hopopts_only_padding"]),
        ([5, 2, 0, 0, 1, 0], &["ipv6.zero_len_padn"]),
        ([5, 3, 0, 0, 0, 0], &[]),
        ([5, 1, 0, 1, 1, 0], &["ipv6.exthdr_invalid_optlen"]),
        ([0, 1, 9, 0, 0, 0], &["ipv6.exthdr_invalid_optlen", "ipv6.hopopts_only_padding"]),
        ([77, 4, 0, 0, 0, 0], &["ipv6.hopopts_unknown_opt"]),
    ];
    for (options, expected) in cases {
        let frame = with(options);
        let (packet, _) = read(&frame);
        assert_eq!(names(&packet), expected, "{options:?}");
        assert_eq!(packet.destination_port, 2, "{options:?}");
    }
    // Mobility headers are passed by; the reserved bits of a fragment's offset say nothing.
    let mut rest = vec![44, 0, 0, 0, 0, 0, 0, 0];
    rest.extend([17, 0, 0, 6, 0, 0, 0, 1]);
    rest.extend(udp);
    let frame = six(135, &rest);
    assert_eq!(names(&read(&frame).0), ["ipv6.exthdr_useless_fh"]);
    assert_eq!(read(&frame).0.destination_port, 2);
    // Two destination headers and a cut one: the protocol is that of the last that was begun.
    let frame = six(60, &[43, 0, 1, 4, 0, 0, 0, 0, 59, 9]);
    let (packet, _) = read(&frame);
    assert_eq!((packet.protocol, names(&packet)[0]), (Some(43), "ipv6.trunc_exthdr"));
}

#[test]
fn messages_of_icmpv6_have_bodies_of_their_own() {
    let solicit = six(58, &[135, 0, 0, 0, 0, 0, 0, 0, 9, 9]);
    assert_eq!(read(&solicit).0.payload, [0, 0, 0, 0, 9, 9]);
    let echo = six(58, &[128, 0, 0, 0, 0, 1, 0, 2, 9, 9]);
    assert_eq!(read(&echo).0.payload, [9, 9]);
    let cases: [(&[u8], &str); 6] = [
        (&[1, 0, 0, 0, 0, 0, 0, 0], "icmpv6.ipv6_trunc_pkt"),
        (&[4, 3, 0, 0, 0, 0, 0, 0], "icmpv6.unknown_code"),
        (&[155, 4, 0, 0, 0, 0, 0, 0], "icmpv6.unknown_code"),
        (&[131, 0, 0, 0, 0, 0, 0, 0], "icmpv6.mld_message_with_invalid_hl"),
        (&[255, 0, 0, 0, 0, 0, 0, 0], "icmpv6.unassigned_type"),
        (&[127, 0, 0, 0, 0, 0, 0, 0], "icmpv6.unknown_type"),
    ];
    for (message, name) in cases {
        assert_eq!(names(&read(&six(58, message)).0), [name]);
    }
    for silent in [[143, 0, 0, 0, 0, 0, 0, 0], [155, 130, 0, 0, 0, 0, 0, 0], [150, 7, 0, 0, 0, 0, 0, 0]] {
        assert!(read(&six(58, &silent)).0.events.is_empty(), "{silent:?}");
    }
}

#[test]
fn options_of_tcp_have_their_lengths() {
    let with = |options: &[u8]| {
        let mut frame = four().tcp(1, 2).payload(options).to_vec().unwrap();
        frame[14 + 20 + 12] = 0x50 + u8::try_from(options.len() / 4 * 16).unwrap();
        frame
    };
    let mut md5 = vec![19, 18];
    md5.extend([7; 16]);
    md5.extend([1, 1]);
    let frame = with(&md5);
    assert!(read(&frame).0.tcp_fields.signed && read(&frame).0.events.is_empty());
    let cases: [(&[u8], &[&str]); 6] = [
        (&[19, 4, 0, 0], &["tcp.opt_invalid_len"]),
        (&[34, 2, 1, 1], &[]),
        (&[34, 4, 0, 0], &["tcp.opt_invalid_len"]),
        (&[254, 4, 0xf9, 0x89, 34, 2, 0, 0], &["tcp.opt_duplicate"]),
        (&[254, 3, 0, 0], &["tcp.opt_invalid_len"]),
        (&[5, 2, 1, 1], &["tcp.opt_invalid_len"]),
    ];
    for (options, expected) in cases {
        assert_eq!(names(&read(&with(options)).0), expected, "{options:?}");
    }
}

#[test]
fn tags_and_labels_lead_on() {
    let inside = four().udp(1, 2).to_vec().unwrap();
    let under = |kind: u16, before: &[u8]| {
        let mut frame = inside[..12].to_vec();
        frame.extend(kind.to_be_bytes());
        frame.extend(before);
        frame
    };
    let mut frames = [
        under(0x8903, &[0, 0]),
        under(0x8926, &[0, 0, 0, 0, 8, 0]),
        under(0x893f, &[0, 0, 0, 0, 0, 0, 8, 0]),
        under(0x8847, &[0, 1, 0x51, 0xff]),
        under(0x8847, &[0, 1, 0x51, 0xff, 0, 0, 0, 0]),
        under(0x894f, &[0, 2, 2, 1, 0, 0, 0, 0]),
    ];
    for (n, frame) in frames.iter_mut().enumerate() {
        frame.extend(if n == 0 || n == 4 { &inside[..] } else { &inside[14..] });
        let (packet, _) = read(frame);
        assert_eq!((names(&packet), packet.destination_port), (vec![], 2), "{n}");
    }
    let cases: [(u16, &[u8], &str); 8] = [
        (0x8903, &[0, 0, 1], "dce.pkt_too_small"),
        (0x893f, &[0; 5], "etag.header_too_small"),
        (0x8847, &[0, 1, 0x51, 0xff, 0x45, 0, 0], "mpls.pkt_too_small"),
        (0x8847, &[0, 0, 0x51, 0xff, 0x45, 0, 0, 0], "mpls.bad_label_reserved"),
        (0x894f, &[0, 2, 0, 1, 0, 0, 0, 0, 9], "nsh.reserved_type"),
        (0x894f, &[0, 2, 2, 1, 0, 0, 0, 0], "nsh.bad_header_length"),
        (0x1234, &[0; 9], "ethernet.unknown_ethertype"),
        (0x0806, &[0, 1, 8, 0, 6, 4, 0, 1, 0], "arp.unsupported_pkt"),
    ];
    for (kind, rest, name) in cases {
        assert_eq!(names(&read(&under(kind, rest)).0), [name], "{kind:04x}");
    }
    // What is no ARP that can be read is ARP for no rule.
    assert_eq!(read(&under(0x0806, &[0; 28])).0.ether_type, 0);
}

#[test]
fn what_is_not_quite_a_tunnel_is_none() {
    let inside = four().udp(1, 2).to_vec().unwrap();
    let gre = |head: &[u8], rest: &[u8]| {
        let all = [head, rest].concat();
        four().protocol(47).payload(&all).to_vec().unwrap()
    };
    // ERSPAN without a sequence number is a bare frame; with one there is a header.
    for (head, expected) in [(&[0, 0, 0x88, 0xbe][..], true), (&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1], false)] {
        let frame = gre(head, &inside);
        assert_eq!(read(&frame).1.is_some(), expected);
    }
    // An acknowledgement of PPTP carries nothing.
    for (length, carries) in [(0, false), (4, true)] {
        let frame = gre(&[0x20, 1, 0x88, 0x0b, 0, length, 0, 0], &[0, 0x21, 0, 0]);
        assert_eq!(read(&frame).1.is_some(), carries);
    }
    assert_eq!(names(&read(&gre(&[0, 0x80, 8, 0], &inside[14..])).0), [""; 0]);
    let geneve = |head: [u8; 8], rest: &[u8]| {
        let all = [&head[..], rest].concat();
        four().udp(9, 6081).payload(&all).to_vec().unwrap()
    };
    for (head, options, carries) in [
        ([0, 0, 8, 0, 0, 0, 1, 0], &[][..], true),
        ([0, 1, 8, 0, 0, 0, 1, 0], &[], false),
        ([0, 0, 8, 0, 0, 0, 1, 9], &[], false),
        ([1, 0, 8, 0, 0, 0, 1, 0], &[0, 0, 0, 0], true),
        ([1, 0, 8, 0, 0, 0, 1, 0], &[0, 0, 0, 1], false),
    ] {
        let frame = geneve(head, &[options, &inside[14..]].concat());
        assert_eq!(read(&frame).1.is_some(), carries, "{head:?}");
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
