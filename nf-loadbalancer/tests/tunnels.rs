//! Direct return and tunnels: what the packet is packed in, and what happens when it is too long for that.

mod site;

use std::net::IpAddr;

use onvm_lib::prelude::{DropReason, Verdict};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{Headers, MacAddr, icmp, icmpv6};
use site::{CLIENT, OWN, Site, assert_sound, file, key, mac, to_service};

const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 77]);

fn udp(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    Packet::ethernet(CLIENT, OWN)
        .ipv4(source.into(), [192, 0, 2, 1].into())
        .udp(7000, 80)
        .payload(payload)
        .to_vec()
        .unwrap()
}

#[test]
fn direct_return_changes_ethernet_addresses_only() {
    let mut site = Site::v4(3, "mode: dsr");
    let request = to_service(1, Flags::SYN);
    let there = site.pass(&request);
    assert_eq!(there[12..], request[12..]);
    assert_eq!(there[6..12], OWN.0);
    let n = there[5];
    for _ in 0..3 {
        assert_eq!(site.pass(&to_service(1, Flags::ACK))[..6], mac(n).0);
    }
    assert_eq!(site.open().iter().sum::<u64>(), 1);
}

/// The inner packet of a tunnel's, and the outer header's size.
fn unpacked(frame: &[u8], gue: bool) -> Vec<u8> {
    let headers = Headers::parse(frame);
    assert_sound(frame);
    if !gue {
        let inner = headers.inner(frame).unwrap();
        return frame[inner.l3_offset().unwrap()..inner.end()].to_vec();
    }
    assert_eq!(headers.ports(frame).unwrap().1, nf_loadbalancer::GUE_PORT);
    assert!(headers.ports(frame).unwrap().0 >= 0xc000);
    let payload = headers.payload(frame);
    let inner = &payload[4..];
    let version = if inner[0] >> 4 == 4 { 4 } else { 41 };
    assert_eq!(payload[..4], [0, version, 0, 0]);
    inner.to_vec()
}

#[test]
fn tunnels_carry_the_packet_as_it_is() {
    for mode in ["ipip", "gue"] {
        for (six_outside, six_inside) in [(false, false), (true, false), (false, true), (true, true)] {
            let vip = if six_inside { "2001:db8::1" } else { "192.0.2.1" };
            let backend = if six_outside { "fd00::1" } else { "10.1.0.1" };
            let mut site = Site::new(&format!(
                "mac: {OWN}\naddresses: [10.1.0.254, 'fd00::ff']\nservices:\n  web:\n    address: '{vip}'\n    port: 80\n    mode: {mode}\n    \
                 backends: {{b1: {{address: '{backend}', mac: '{}'}}}}\n",
                mac(1)
            ));
            let base = Packet::ethernet(CLIENT, OWN).vlan(9).tos(0xb9);
            let ip = match vip.parse().unwrap() {
                IpAddr::V4(vip) => base.ipv4([198, 51, 100, 1].into(), vip).tos(0xb9),
                IpAddr::V6(vip) => base.ipv6("2001:db8:9::9".parse().unwrap(), vip).tos(0xb9),
            };
            // Short, so that it is padded on Ethernet.
            let mut request = ip.tcp(5000, 80).flags(Flags::SYN).to_vec().unwrap();
            let whole = request[18..].to_vec();
            request.resize(request.len().max(64), 0);
            let there = site.pass(&request);
            assert_eq!(unpacked(&there, mode == "gue"), whole, "{mode} {six_outside} {six_inside}");
            let headers = Headers::parse(&there);
            assert_eq!(key(&there).dst().unwrap().to_string(), backend);
            assert_eq!((headers.vlan_ids().next(), &there[..6]), (Some(9), &mac(1).0[..]));
            let class = if six_outside {
                u8::try_from(headers.ipv6(&there).unwrap().traffic_class()).unwrap()
            } else {
                assert_eq!(headers.ipv4(&there).unwrap().dont_fragment(), six_inside);
                headers.ipv4(&there).unwrap().tos()
            };
            assert_eq!(class, 0xb9);
        }
    }
}

#[test]
fn who_sends_too_much_for_a_tunnel_is_told() {
    let mut site = Site::v4(1, "mode: ipip");
    let big = vec![7; 1460];
    let packet =
        Packet::ethernet(CLIENT, OWN).ipv4([172, 16, 0, 1].into(), [192, 0, 2, 1].into()).dont_fragment();
    let out = site.send(&packet.tcp(9, 80).flags(Flags::SYN).payload(&big).to_vec().unwrap());
    let (verdict, error) = &out[0];
    assert_eq!(*verdict, Verdict::Out(0));
    assert_sound(error);
    let headers = Headers::parse(error);
    let message = headers.icmp(error).unwrap();
    assert_eq!(
        (message.kind(), message.code(), message.mtu()),
        (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1480)
    );
    assert_eq!(headers.original(error).unwrap().ports(error), Some((9, 80)));
    assert_eq!((key(error).dst().unwrap(), &error[..6]), ([172, 16, 0, 1].into(), &CLIENT.0[..]));
    assert_eq!(site.report()["packets"]["too_big"], 1);

    let mut site = Site::new(&file(true, 1, "mode: gue"));
    let packet =
        Packet::ethernet(CLIENT, OWN).ipv6("2001:db8:9::9".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let error = site.pass(&packet.tcp(9, 80).flags(Flags::SYN).payload(&big).to_vec().unwrap());
    assert_sound(&error);
    let message = Headers::parse(&error);
    let message = message.icmpv6(&error).unwrap();
    assert_eq!((message.kind(), message.mtu()), (icmpv6::PACKET_TOO_BIG, 1500 - 52));
}

#[test]
fn what_may_be_fragmented_is_cut_before_it_is_packed() {
    let mut site = Site::v4(1, "mode: ipip\nprotocol: udp");
    let payload: Vec<u8> = (0..1472u32).map(|n| n.to_le_bytes()[0]).collect();
    let out = site.send(&udp([172, 16, 0, 1], &payload));
    assert_eq!(out.len(), 2);
    let mut whole = Vec::new();
    for (verdict, frame) in &out {
        assert_eq!(*verdict, Verdict::Out(1));
        assert_sound(frame);
        assert!(frame.len() <= 1514);
        let inner = unpacked(frame, false);
        let ip = onvm_lib::wire::ipv4::Packet::new_checked(&inner[..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(ip.fragment().offset as usize, whole.len());
        whole.extend_from_slice(ip.payload());
    }
    assert_eq!(whole[8..], payload);
    // A router on the way allows less: told so, the balancer heeds it.
    let quoted = out[0].1[14..].to_vec();
    let error = Packet::ethernet(ROUTER, OWN)
        .ipv4([10, 9, 9, 9].into(), [10, 1, 0, 254].into())
        .icmp(icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1000)
        .payload(&quoted[..60])
        .to_vec()
        .unwrap();
    assert_eq!(site.refuse(&error), DropReason::Consumed);
    let out = site.send(&udp([172, 16, 0, 1], &payload));
    assert!(out.len() == 2 && out.iter().all(|(_, frame)| frame.len() <= 1014), "{}", out[0].1.len());
}

#[test]
fn errors_about_answers_go_to_the_backend_that_gave_them() {
    for mode in ["dsr", "ipip", "gue"] {
        let mut site = Site::v4(5, &format!("mode: {mode}"));
        let request = to_service(1, Flags::SYN);
        let there = site.pass(&request);
        // What the backend answered by itself was too long for someone.
        let answer = Packet::raw()
            .ipv4([192, 0, 2, 1].into(), [172, 16, 0, 0].into())
            .tcp(80, 20_001)
            .to_vec()
            .unwrap();
        let error = Packet::ethernet(ROUTER, OWN)
            .ipv4([9, 9, 9, 9].into(), [192, 0, 2, 1].into())
            .icmp(icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1300)
            .payload(&answer)
            .to_vec()
            .unwrap();
        let out = site.pass(&error);
        assert_eq!((&out[..6], key(&out).dst()), (&there[..6], key(&there).dst()), "{mode}");
        let inner = if mode == "dsr" { out[14..].to_vec() } else { unpacked(&out, mode == "gue") };
        assert_eq!(inner, error[14..], "{mode}");
    }
}

#[test]
fn errors_are_sent_at_a_limited_rate() {
    let mut site = Site::v4(1, "mode: ipip");
    let base =
        Packet::ethernet(CLIENT, OWN).ipv4([172, 16, 0, 1].into(), [192, 0, 2, 1].into()).dont_fragment();
    let big = base.tcp(9, 80).flags(Flags::SYN).payload(&[7; 1460]).to_vec().unwrap();
    let told = (0..1000).filter(|_| !site.send(&big).is_empty()).count();
    assert_eq!(told, 100);
    site.pass_time(1);
    assert_eq!(site.send(&big).len(), 1);
    assert_eq!(site.report()["packets"]["too_big"], 1001);
}
