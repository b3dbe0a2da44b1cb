//! Properties of the header library as a whole: no bytes make it panic, what is set is what is got, and what
//! is built is read back the same, by this library and by etherparse.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use onvm_lib::wire::build::{Extension, Packet};
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::tcp_option::TcpOption;
use onvm_lib::wire::{
    Fragment, Headers, LinkType, MacAddr, Net, Side, arp, describe_as, ethernet, flow_hash, gre, icmp,
    icmpv6, ipv4, ipv6, ipv6_ext, mpls, ndp, pppoe, sll, tcp, udp, vlan, vxlan,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LINKS: [LinkType; 5] =
    [LinkType::Ethernet, LinkType::RawIp, LinkType::LinuxSll, LinkType::LinuxSll2, LinkType::Other(147)];

/// Reads all there is to read of a frame, and of what it carries.
fn read_all(link: LinkType, bytes: &[u8]) {
    let mut layer = Some(Headers::parse_as(link, bytes));
    if link == LinkType::Ethernet {
        assert_eq!(flow_hash(bytes), Headers::parse(bytes).flow_hash(bytes));
    }
    while let Some(headers) = layer {
        assert!(headers.end() <= bytes.len());
        assert!(headers.payload(bytes).len() <= headers.payload_len());
        let key = headers.flow_key(bytes);
        assert_eq!(key.hash32(), headers.flow_hash(bytes));
        assert_eq!(key.symmetric(), key.reversed().symmetric());
        assert_eq!(key.hash32(), key.reversed().hash32());
        let _ =
            (key.to_string(), headers.verify_checksums(bytes), headers.fragment(bytes), headers.ports(bytes));
        if let Some(ip) = headers.ipv4(bytes) {
            ip.options().for_each(drop);
        }
        if let Some(ip) = headers.ipv6(bytes) {
            ip.extensions().for_each(|extension| extension.options().for_each(drop));
        }
        if let Some(tcp) = headers.tcp(bytes) {
            tcp.options().for_each(drop);
        }
        if let Some(icmp) = headers.icmpv6(bytes) {
            ndp::options(&icmp).for_each(drop);
        }
        layer = headers.inner(bytes).or_else(|| headers.original(bytes));
    }
    let _ = describe_as(link, bytes).to_string();
}

/// Writes all there is to write.
fn write_all(link: LinkType, bytes: &mut [u8]) {
    let headers = Headers::parse_as(link, bytes);
    for side in [Side::Source, Side::Destination] {
        for port in [None, Some(7)] {
            let _ = headers.rewrite(bytes, side, Ipv4Addr::LOCALHOST.into(), port);
            let _ = headers.rewrite(bytes, side, Ipv6Addr::LOCALHOST.into(), port);
        }
    }
    headers.fill_checksums(bytes);
    headers.payload_mut(bytes).fill(0);
    if let Some(mut ip) = headers.ipv4_mut(bytes) {
        ip.set_ihl(15);
        ip.option_bytes_mut().fill(1);
        ip.payload_mut().fill(2);
        ip.fill_checksum();
    }
    if let Some(mut tcp) = headers.tcp_mut(bytes) {
        tcp.set_data_offset(15);
        tcp.option_bytes_mut().fill(1);
        tcp.payload_mut().fill(2);
    }
    if let Some(mut udp) = headers.udp_mut(bytes) {
        udp.set_len_field(u16::MAX);
        udp.payload_mut().fill(2);
    }
}

/// Bytes that look enough like a packet to get deep into the code.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let ethertype =
        prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x8847, 0x8864, 0x0010, 0x6558]);
    let protocol = prop::sample::select(vec![0u8, 1, 4, 6, 17, 41, 43, 44, 47, 51, 58, 60, 132, 143]);
    (vec(any::<u8>(), 0..300), ethertype, protocol, any::<bool>()).prop_map(
        |(mut bytes, kind, protocol, v6)| {
            let first = if kind == 0x86dd || v6 { 0x60 } else { 0x45 };
            let mut place = |at: usize, value: u8| {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            };
            let [a, b] = kind.to_be_bytes();
            place(12, a);
            place(13, b);
            place(14, first);
            place(if first == 0x45 { 23 } else { 20 }, protocol);
            // Fragments are less of a way in.
            if protocol % 2 == 0 && first == 0x45 {
                place(20, 0);
                place(21, 0);
            }
            bytes
        },
    )
}

#[derive(Clone, Debug)]
struct Plan {
    vlans: Vec<u16>,
    v6: bool,
    addresses: ([u8; 16], [u8; 16]),
    ports: (u16, u16),
    numbers: (u32, u32),
    flags: u16,
    window: u16,
    transport: u8,
    extensions: bool,
    options: bool,
    payload: Vec<u8>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let head = (vec(0u16..4096, 0..3), any::<bool>(), any::<([u8; 16], [u8; 16])>(), any::<(u16, u16)>());
    let tail =
        (any::<(u32, u32)>(), 0u16..512, any::<u16>(), 0u8..3, any::<[bool; 2]>(), vec(any::<u8>(), 0..100));
    (head, tail).prop_map(
        |((vlans, v6, addresses, ports), (numbers, flags, window, transport, [e, o], payload))| {
            let (extensions, options) = (e, o);
            Plan {
                vlans,
                v6,
                addresses,
                ports,
                numbers,
                flags,
                window,
                transport,
                extensions,
                options,
                payload,
            }
        },
    )
}

const MACS: (MacAddr, MacAddr) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
const EXTENSIONS: [Extension<'_>; 2] = [
    Extension { kind: ipv6_ext::HOP_BY_HOP, data: &[5, 2, 0, 0, 1, 0] },
    Extension { kind: ipv6_ext::DESTINATION, data: &[1, 4, 0, 0, 0, 0] },
];
const OPTIONS: [TcpOption<'_>; 4] = [
    TcpOption::Mss(1400),
    TcpOption::WindowScale(3),
    TcpOption::SackPermitted,
    TcpOption::Timestamps { value: 1, echo: 2 },
];

impl Plan {
    fn v4(&self) -> (Ipv4Addr, Ipv4Addr) {
        let front = |wide: &[u8; 16]| Ipv4Addr::new(wide[0], wide[1], wide[2], wide[3]);
        (front(&self.addresses.0), front(&self.addresses.1))
    }

    fn build(&self) -> Vec<u8> {
        let mut packet = Packet::ethernet(MACS.0, MACS.1).payload(&self.payload);
        for id in &self.vlans {
            packet = packet.vlan(*id);
        }
        packet = match self.v6 {
            true => packet.ipv6(self.addresses.0.into(), self.addresses.1.into()),
            false => packet.ipv4(self.v4().0, self.v4().1),
        };
        if self.extensions {
            packet = packet.extensions(&EXTENSIONS).ipv4_options(&[148, 4, 0, 0]);
        }
        packet = match self.transport {
            0 => packet.udp(self.ports.0, self.ports.1),
            1 => packet.echo_request(self.ports.0, self.ports.1),
            _ => packet
                .tcp(self.ports.0, self.ports.1)
                .seq(self.numbers.0)
                .ack(self.numbers.1)
                .flags(Flags(self.flags))
                .window(self.window)
                .tcp_options(if self.options { &OPTIONS } else { &[] }),
        };
        packet.to_vec().expect("nothing in the plan is too long")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(bytes in prop_oneof![vec(any::<u8>(), 0..300), plausible()]) {
        for link in LINKS {
            read_all(link, &bytes);
            write_all(link, &mut bytes.clone());
        }
        let _ = (flow_hash(&bytes), flow_hash(&[&bytes[..], &[0; 40]].concat()));
        let _ = gre::Packet::new_checked(&bytes[..]).map(|p| (p.payload().is_some(), p.verify_checksum()));
        let _ = vxlan::Geneve::new_checked(&bytes[..]).map(|p| p.payload().is_some());
        let _ = pppoe::Packet::new_checked(&bytes[..]).map(|p| p.ppp_protocol());
        let _ = arp::Packet::new_checked(&bytes[..]).map(|p| (p.addresses(), p.target_protocol().is_some()));
    }

    #[test]
    fn what_is_built_is_read_back(plan in plan()) {
        let frame = plan.build();
        read_all(LinkType::Ethernet, &frame);
        let headers = Headers::parse(&frame);
        prop_assert_eq!(headers.problem(), None);
        prop_assert!(headers.vlan_ids().eq(plan.vlans.iter().copied()));
        prop_assert_eq!(headers.payload(&frame), &plan.payload[..]);
        prop_assert_eq!(headers.net(), if plan.v6 { Net::Ipv6 } else { Net::Ipv4 });
        let checks = headers.verify_checksums(&frame);
        prop_assert!(checks.ip == (!plan.v6).then_some(true) && checks.transport == Some(true), "{:?}", checks);
        if let Some(tcp) = headers.tcp(&frame) {
            prop_assert_eq!((tcp.seq(), tcp.ack()), plan.numbers);
            prop_assert_eq!((tcp.flags(), tcp.window()), (Flags(plan.flags), plan.window));
            let expected: &[TcpOption<'_>] = if plan.options { &OPTIONS } else { &[] };
            let found = tcp.options().filter(|option| *option != TcpOption::EndOfList);
            prop_assert!(found.eq(expected.iter().copied()));
        }
        // Padding to the least length of an Ethernet frame changes nothing.
        let mut padded = frame.clone();
        padded.resize(frame.len().max(60), 0);
        prop_assert_eq!(Headers::parse(&padded), headers);
    }

    #[test]
    fn etherparse_reads_the_same(plan in plan()) {
        let frame = plan.build();
        let sliced = SlicedPacket::from_ethernet(&frame).expect("etherparse reads what is built");
        match sliced.net.as_ref().expect("a network layer") {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                prop_assert_eq!((header.source_addr(), header.destination_addr()), plan.v4());
                prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            }
            NetSlice::Ipv6(ip) => {
                prop_assert_eq!(ip.header().source(), plan.addresses.0);
                prop_assert_eq!(ip.header().destination(), plan.addresses.1);
            }
            NetSlice::Arp(_) => prop_assert!(false, "no ARP was built"),
        }
        let (src, dst) = plan.addresses;
        let (src4, dst4) = (plan.v4().0.octets(), plan.v4().1.octets());
        match sliced.transport.as_ref().expect("a transport layer") {
            TransportSlice::Tcp(tcp) => {
                prop_assert_eq!((tcp.source_port(), tcp.destination_port()), plan.ports);
                let check = match plan.v6 {
                    true => tcp.calc_checksum_ipv6(src, dst),
                    false => tcp.calc_checksum_ipv4(src4, dst4),
                };
                prop_assert_eq!(check.expect("not too long"), tcp.checksum());
                prop_assert_eq!(tcp.payload(), &plan.payload[..]);
            }
            TransportSlice::Udp(udp) => {
                prop_assert_eq!((udp.source_port(), udp.destination_port()), plan.ports);
                let header = udp.to_header();
                let check = match plan.v6 {
                    true => header.calc_checksum_ipv6_raw(src, dst, &plan.payload),
                    false => header.calc_checksum_ipv4_raw(src4, dst4, &plan.payload),
                };
                prop_assert_eq!(check.expect("not too long"), udp.checksum());
            }
            TransportSlice::Icmpv4(icmp) => {
                let header = icmp.header();
                prop_assert_eq!(header.icmp_type.calc_checksum(&plan.payload), header.checksum);
            },
            TransportSlice::Icmpv6(icmp) => prop_assert!(plan.v6 && icmp.is_checksum_valid(src, dst)),
            TransportSlice::Igmp(_) => prop_assert!(false, "no IGMP was built"),
        }
    }

    #[test]
    fn fragments_of_a_datagram_have_one_key(plan in plan(), id in any::<u16>(), cut in 0usize..8) {
        let base = Packet::ethernet(MACS.0, MACS.1);
        let base = match plan.v6 {
            true => base.ipv6(plan.addresses.0.into(), plan.addresses.1.into()),
            false => base.ipv4(plan.v4().0, plan.v4().1),
        };
        let part = |offset: usize, more| {
            let offset = u32::try_from(offset).unwrap();
            let fragment = Fragment { id: u32::from(id), offset, more };
            let packet = base.fragment(fragment).udp(plan.ports.0, plan.ports.1).payload(&plan.payload);
            let frame = packet.to_vec().unwrap();
            let headers = Headers::parse(&frame);
            assert_eq!(headers.fragment(&frame), Some(fragment));
            assert_eq!(headers.is_first_fragment(), offset == 0);
            (headers.flow_key(&frame), flow_hash(&frame))
        };
        let first = part(0, true);
        prop_assert!(first.0.is_fragment() && first.0.protocol().is_none());
        prop_assert_eq!(part(8 * (cut + 1), true), first);
        prop_assert_eq!(part(8 * (cut + 2), false), first);
    }
}

/// Sets each field to a value and gets it back, in a buffer of zeros and in one of ones.
macro_rules! round_trips {
    ($test:ident: $view:expr, $($get:ident / $set:ident = $value:expr),* $(,)?) => {
        #[test]
        fn $test() {
            let views = [0x00u8, 0xff].map($view);
            for mut view in views.into_iter().flatten() { $(
                let before: Vec<u8> = view.as_bytes().to_vec();
                let old = view.$get();
                view.$set($value);
                assert_eq!(view.$get(), $value, stringify!($get));
                view.$set(old);
                assert_eq!(view.as_bytes(), before, stringify!($set));
            )* }
        }
    };
}

/// A buffer of `fill` whose first byte makes it valid.
fn filled(first: u8, fill: u8) -> [u8; 64] {
    let mut bytes = [fill; 64];
    bytes[0] = first;
    bytes
}

fn valid_tcp(fill: u8) -> [u8; 64] {
    let mut bytes = [fill; 64];
    bytes[12] = 0x50 | (fill & 0xf);
    bytes
}

round_trips!(ethernet_fields: |fill| ethernet::Frame::new_checked([fill; 64]),
    src / set_src = MACS.0, dst / set_dst = MACS.1, type_or_len / set_type_or_len = 0x1234);
round_trips!(vlan_fields: |fill| vlan::Tag::new_checked([fill; 64]),
    tci / set_tci = 0x1234, id / set_id = 0x123, priority / set_priority = 5,
    drop_eligible / set_drop_eligible = true, type_or_len / set_type_or_len = 0x1234);
round_trips!(arp_fields: |fill| arp::Packet::new_checked([fill; 64]),
    hardware_type / set_hardware_type = 7, protocol_type / set_protocol_type = 8,
    hardware_len / set_hardware_len = 9, protocol_len / set_protocol_len = 10, operation / set_operation = 11);
round_trips!(ipv4_fields: |fill| ipv4::Packet::new_checked(filled(0x4f, fill)),
    version / set_version = 5, ihl / set_ihl = 9, dscp / set_dscp = 0x2a, ecn / set_ecn = 1, tos / set_tos = 3,
    total_len / set_total_len = 0x1234, id / set_id = 0x1234, reserved_flag / set_reserved_flag = true,
    dont_fragment / set_dont_fragment = true, more_fragments / set_more_fragments = true,
    fragment_offset_units / set_fragment_offset_units = 0x1234, ttl / set_ttl = 9,
    protocol / set_protocol = 9, checksum / set_checksum = 0x1234,
    src / set_src = Ipv4Addr::new(1, 2, 3, 4), dst / set_dst = Ipv4Addr::new(1, 2, 3, 4));
round_trips!(ipv6_fields: |fill| ipv6::Packet::new_checked(filled(0x60 | (fill & 0xf), fill)),
    version / set_version = 5, traffic_class / set_traffic_class = 0x5a, dscp / set_dscp = 0x15,
    ecn / set_ecn = 1, flow_label / set_flow_label = 0x5_a5a5, payload_len / set_payload_len = 0x1234,
    next_header / set_next_header = 9, hop_limit / set_hop_limit = 9,
    src / set_src = Ipv6Addr::LOCALHOST, dst / set_dst = Ipv6Addr::LOCALHOST);
round_trips!(tcp_fields: |fill| tcp::Segment::new_checked(valid_tcp(fill)),
    src_port / set_src_port = 0x1234, dst_port / set_dst_port = 0x1234, seq / set_seq = 0x1234_5678,
    ack / set_ack = 0x1234_5678, data_offset / set_data_offset = 9, flag_bits / set_flag_bits = 0x5a5,
    window / set_window = 0x1234, checksum / set_checksum = 0x1234, urgent / set_urgent = 0x1234);
round_trips!(udp_fields: |fill| udp::Datagram::new_checked([fill; 64]),
    src_port / set_src_port = 0x1234, dst_port / set_dst_port = 0x1234, len_field / set_len_field = 0x1234,
    checksum / set_checksum = 0x1234);
round_trips!(icmp_fields: |fill| icmp::Message::new_checked([fill; 64]),
    kind / set_kind = 9, code / set_code = 9, checksum / set_checksum = 0x1234, id / set_id = 0x1234,
    seq / set_seq = 0x1234, rest / set_rest = 0x1234_5678, gateway / set_gateway = Ipv4Addr::LOCALHOST,
    pointer / set_pointer = 9, mtu / set_mtu = 1400);
round_trips!(icmpv6_fields: |fill| icmpv6::Message::new_checked([fill; 64]),
    kind / set_kind = 9, code / set_code = 9, checksum / set_checksum = 0x1234, id / set_id = 0x1234,
    seq / set_seq = 0x1234, rest / set_rest = 0x1234_5678, pointer / set_pointer = 9, mtu / set_mtu = 1400);
round_trips!(gre_fields: |fill| gre::Packet::new_checked({ let mut b = [fill; 64]; b[1] &= 0xf8; b }),
    flags_version / set_flags_version = 0x2001, protocol_type / set_protocol_type = 0x1234,
    has_checksum / set_has_checksum = true, has_routing / set_has_routing = true, has_key / set_has_key = true,
    has_sequence / set_has_sequence = true, has_ack / set_has_ack = true, version / set_version = 1);
round_trips!(vxlan_fields: |fill| vxlan::Packet::new_checked([fill; 64]),
    flags / set_flags = 8, has_vni / set_has_vni = true, vni / set_vni = 0x12_3456,
    next_protocol / set_next_protocol = 3, has_next_protocol / set_has_next_protocol = true);
round_trips!(geneve_fields: |fill| vxlan::Geneve::new_checked(filled(fill & 0x3f, fill)),
    version / set_version = 1, option_words / set_option_words = 9, vni / set_vni = 0x12_3456,
    is_control / set_is_control = true, has_critical / set_has_critical = true,
    protocol_type / set_protocol_type = 0x6558);
round_trips!(mpls_fields: |fill| mpls::Entry::new_checked([fill; 64]),
    label / set_label = 0x1_2345, traffic_class / set_traffic_class = 5, is_bottom / set_is_bottom = true,
    ttl / set_ttl = 9);
round_trips!(pppoe_fields: |fill| pppoe::Packet::new_checked(filled(0x11, fill)),
    version / set_version = 2, kind / set_kind = 3, code / set_code = 9, session / set_session = 0x1234,
    payload_len / set_payload_len = 0x1234);
round_trips!(cooked_fields: |fill| sll::Cooked::new_checked([fill; 64]),
    packet_type / set_packet_type = 4, hardware_type / set_hardware_type = 1, address_len / set_address_len = 6,
    address / set_address = [1, 2, 3, 4, 5, 6, 7, 8], protocol / set_protocol = 0x0800);
round_trips!(cooked2_fields: |fill| sll::Cooked2::new_checked([fill; 64]),
    protocol / set_protocol = 0x0800, interface / set_interface = 3, hardware_type / set_hardware_type = 1,
    packet_type / set_packet_type = 4, address_len / set_address_len = 6,
    address / set_address = [1, 2, 3, 4, 5, 6, 7, 8]);
