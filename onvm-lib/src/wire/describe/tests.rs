//! Lines as tcpdump 4.99 writes them.

use super::*;
use crate::wire::build::Packet;
use crate::wire::ethernet::MacAddr;
use crate::wire::tcp::Flags;
use crate::wire::tcp_option::TcpOption;
use crate::wire::{EtherType, Fragment};
use proptest::prelude::*;

fn base<'a>() -> Packet<'a> {
    Packet::ethernet(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))
}

fn v4<'a>() -> Packet<'a> {
    base().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
}

fn v6<'a>() -> Packet<'a> {
    base().ipv6("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
}

fn line(packet: Packet<'_>) -> String {
    describe(&packet.to_vec().unwrap()).to_string()
}

#[test]
fn tcp() {
    let options = [
        TcpOption::Mss(1460),
        TcpOption::SackPermitted,
        TcpOption::Timestamps { value: 1, echo: 0 },
        TcpOption::Nop,
        TcpOption::WindowScale(7),
    ];
    let syn = v4().tcp(1234, 80).seq(1).flags(Flags::SYN).tcp_options(&options);
    let expected = "IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [S], seq 1, win 65535, \
        options [mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7], length 0";
    assert_eq!(line(syn), expected);
    let data =
        v6().vlan(5).tcp(80, 1234).seq(7).ack(2).flags(Flags::PSH | Flags::ACK).window(9).payload(b"hello");
    let expected =
        "vlan 5, p 0, IP6 2001:db8::1.80 > 2001:db8::2.1234: Flags [P.], seq 7:12, ack 2, win 9, length 5";
    assert_eq!(line(data), expected);
    assert_eq!(line(v4().tcp(1, 2)), "IP 10.0.0.1.1 > 10.0.0.2.2: Flags [.], ack 0, win 65535, length 0");
}

#[test]
fn udp_and_others() {
    assert_eq!(line(v4().udp(53, 999).payload(b"abc")), "IP 10.0.0.1.53 > 10.0.0.2.999: UDP, length 3");
    assert_eq!(line(v4().protocol(89).payload(&[0; 44])), "IP 10.0.0.1 > 10.0.0.2: ospf 44");
    let lldp = base().ethertype(EtherType(0x88cc)).payload(&[0; 21]);
    assert_eq!(describe_as(LinkType::Other(9), &[1, 2]).to_string(), "link type 9, length 2");
    assert_eq!(line(lldp), "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype 0x88cc, length 35");
}

#[test]
fn arp() {
    let addresses = crate::wire::arp::Addresses {
        sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        sender_ip: [10, 0, 0, 1].into(),
        target_mac: MacAddr::default(),
        target_ip: [10, 0, 0, 2].into(),
    };
    let expected = "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28";
    assert_eq!(line(base().arp(1, addresses)), expected);
    let expected = "ARP, Reply 10.0.0.1 is-at 02:00:00:00:00:01, length 28";
    assert_eq!(line(base().arp(2, addresses)), expected);
}

#[test]
fn icmp() {
    let echo = v4().echo_request(7, 1).payload(&[0; 56]);
    assert_eq!(line(echo), "IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 7, seq 1, length 64");
    let echo = v6().echo_reply(7, 1);
    assert_eq!(line(echo), "IP6 2001:db8::1 > 2001:db8::2: ICMP6, echo reply, id 7, seq 1, length 8");
    let quoted = Packet::raw().ipv4([10, 0, 0, 2].into(), [9, 9, 9, 9].into()).udp(5, 53).to_vec().unwrap();
    for (code, rest, text) in [
        (0, 0, "net 9.9.9.9 unreachable"),
        (1, 0, "host 9.9.9.9 unreachable"),
        (2, 0, "9.9.9.9 protocol 17 unreachable"),
        (3, 0, "9.9.9.9 udp port 53 unreachable"),
        (4, 1400, "9.9.9.9 unreachable - need to frag (mtu 1400)"),
    ] {
        let expected = format!("IP 10.0.0.1 > 10.0.0.2: ICMP {text}, length 36");
        assert_eq!(line(v4().icmp(3, code, rest).payload(&quoted)), expected);
    }
    let redirect = v4().icmp(5, 1, 0x0a00_00fe).payload(&quoted);
    let expected = "IP 10.0.0.1 > 10.0.0.2: ICMP redirect 9.9.9.9 to host 10.0.0.254, length 36";
    assert_eq!(line(redirect), expected);
    let target: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
    let expected = "IP6 2001:db8::1 > 2001:db8::2: ICMP6, neighbor solicitation, who has fe80::1, length 24";
    assert_eq!(line(v6().icmp(135, 0, 0).payload(&target.octets())), expected);
}

#[test]
fn fragments() {
    let later = Fragment { id: 1, offset: 1432, more: true };
    let expected = "IP6 2001:db8::1 > 2001:db8::2: frag (1432|16+)";
    assert_eq!(line(v6().fragment(later).udp(1, 2).payload(&[0; 16])), expected);
    let first = Fragment { id: 1, offset: 0, more: true };
    let expected = "IP 10.0.0.1.1 > 10.0.0.2.2: frag (0|24+) UDP, length 16";
    assert_eq!(line(v4().fragment(first).udp(1, 2).payload(&[0; 16])), expected);
}

#[test]
fn tunnels() {
    let inner =
        Packet::raw().ipv4([1, 1, 1, 1].into(), [2, 2, 2, 2].into()).echo_request(0, 0).to_vec().unwrap();
    let text = "IP 1.1.1.1 > 2.2.2.2: ICMP echo request, id 0, seq 0, length 8";
    let gre = [&[0, 0, 8, 0][..], &inner].concat();
    let expected = format!("IP 10.0.0.1 > 10.0.0.2: GREv0, length 32: {text}");
    assert_eq!(line(v4().protocol(47).payload(&gre)), expected);
    assert_eq!(line(v4().protocol(4).payload(&inner)), format!("IP 10.0.0.1 > 10.0.0.2: {text}"));
    let mpls = [&[0, 6, 0x40, 0, 0, 6, 0x51, 64][..], &inner].concat();
    let expected = format!("MPLS (label 100, tc 0, ttl 0) (label 101, tc 0, [S], ttl 64) {text}");
    assert_eq!(line(base().ethertype(EtherType::MPLS).payload(&mpls)), expected);
    let frame = base().ipv4([1, 1, 1, 1].into(), [2, 2, 2, 2].into()).echo_request(0, 0).to_vec().unwrap();
    let vxlan = [&[8, 0, 0, 0, 0, 0, 7, 0][..], &frame].concat();
    let expected = format!("IP 10.0.0.1.5 > 10.0.0.2.4789: VXLAN, flags [I] (0x08), vni 7: {text}");
    assert_eq!(line(v4().udp(5, 4789).payload(&vxlan)), expected);
}

#[test]
fn what_is_missing() {
    let frame = v4().tcp(1, 2).payload(b"abc").to_vec().unwrap();
    for (len, expected) in [
        (13, "[|ether]"),
        (20, "IP [|ip] (cut)"),
        (34, "IP 10.0.0.1 > 10.0.0.2: [|tcp]"),
        (40, "IP 10.0.0.1.1 > 10.0.0.2.2: [|tcp]"),
        (55, "IP 10.0.0.1.1 > 10.0.0.2.2: Flags [.], seq 0:3, ack 0, win 65535, length 3"),
    ] {
        assert_eq!(describe(&frame[..len]).to_string(), expected, "{len}");
    }
}

proptest! {
    #[test]
    fn any_bytes_can_be_described(bytes in proptest::collection::vec(any::<u8>(), 0..200), ethertype in 0usize..8) {
        let mut bytes = bytes;
        let types = [0x0800u16, 0x86dd, 0x0806, 0x8100, 0x8847, 0x8864, 0x0020, 0x88a8];
        if let Some(place) = bytes.get_mut(12..14) {
            place.copy_from_slice(&types[ethertype].to_be_bytes());
        }
        prop_assert!(!describe(&bytes).to_string().contains('\n'));
        for link in [LinkType::RawIp, LinkType::LinuxSll, LinkType::LinuxSll2, LinkType::Other(9)] {
            describe_as(link, &bytes).to_string();
        }
    }
}
