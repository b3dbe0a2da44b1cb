//! What becomes of packets: errors, fragments, tunnels, hairpins, questions for the virtual address.

mod site;

use onvm_lib::prelude::{DropReason, Verdict};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{Fragment, Headers, MacAddr, arp, icmp, icmpv6, ndp};
use proptest::prelude::*;
use site::{CLIENT, OWN, Site, answer, assert_sound, backend_of, file, key, mac, to_service};

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
fn source_ports_run_out_and_nothing_goes_untranslated() {
    let mut site = Site::v4(1, "source-nat: {addresses: [10.1.0.200, 10.1.0.201], ports: 5000-5003}");
    let mut used = std::collections::BTreeSet::new();
    let mut packets = Vec::new();
    for n in 0..8 {
        let there = site.pass(&to_service(n, Flags::SYN));
        assert_sound(&there);
        let key = key(&there);
        assert!((5000..=5003).contains(&key.src_port()));
        assert!(used.insert((key.src().unwrap(), key.src_port())));
        // The answer finds the client.
        let back = site.pass(&answer(&there, Flags::SYN | Flags::ACK));
        assert_sound(&back);
        assert_eq!(site::key(&back), site::key(&to_service(n, Flags::SYN)).reversed());
        packets.push(there);
    }
    assert_eq!(site.refuse(&to_service(9, Flags::SYN)), DropReason::TableFull);
    assert_eq!(site.counts()["ports_exhausted"], 1);
    site.pass(&to_service(3, Flags::RST));
    site.pass_time(11);
    site.pass(&to_service(9, Flags::SYN));
}

#[test]
fn two_virtual_addresses_with_one_backend_do_not_mix() {
    let text = file(false, 1, "")
        + "  second: {address: 192.0.2.2, port: 80, backends: {b1: {address: 10.1.0.1, mac: '02:00:00:00:01:01'}}}\n";
    let mut site = Site::new(&text);
    let first = to_service(5, Flags::SYN);
    let headers = Headers::parse(&first);
    let mut second = first.clone();
    headers.rewrite(&mut second, onvm_lib::wire::Side::Destination, [192, 0, 2, 2].into(), None).unwrap();
    let (one, two) = (site.pass(&first), site.pass(&second));
    // Same client, same port, same backend: the second is told apart by another source.
    assert_ne!(key(&one), key(&two));
    for (request, there) in [(&first, &one), (&second, &two)] {
        let back = site.pass(&answer(there, Flags::SYN | Flags::ACK));
        assert_eq!(key(&back), key(request).reversed());
    }
}

#[test]
fn a_backend_reaches_the_service_that_it_is_part_of() {
    let mut site = Site::v4(2, "");
    for n in 1..=2 {
        let request = Packet::ethernet(mac(n), OWN)
            .ipv4([10, 1, 0, n].into(), [192, 0, 2, 1].into())
            .tcp(4000, 80)
            .flags(Flags::SYN)
            .to_vec()
            .unwrap();
        let there = site.pass(&request);
        // From the balancer's own address, so that the answer comes back here even from a neighbour.
        assert_eq!(key(&there).src().unwrap().to_string(), "10.1.0.254");
        let back = site.pass(&answer(&there, Flags::SYN | Flags::ACK));
        assert_eq!(key(&back), key(&request).reversed());
        assert_eq!(&back[..6], &mac(n).0);
        assert_sound(&back);
    }
}

#[test]
fn errors_go_with_their_connection() {
    for nat in ["source-nat: never", "source-nat: always"] {
        let mut site = Site::v4(3, nat);
        let request = to_service(1, Flags::SYN);
        let there = site.pass(&request);
        let back = site.pass(&answer(&there, Flags::SYN | Flags::ACK));
        // A router of the clients' side says of an answer that it is too long.
        let from_outside = Packet::ethernet(ROUTER, OWN)
            .ipv4([9, 9, 9, 9].into(), [192, 0, 2, 1].into())
            .icmp(icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1400)
            .payload(&back[14..])
            .to_vec()
            .unwrap();
        let error = site.pass(&from_outside);
        assert_sound(&error);
        assert_eq!(
            (backend_of(&error), key(&error).src().unwrap()),
            (backend_of(&there), [9, 9, 9, 9].into())
        );
        let original = Headers::parse(&error).original(&error).unwrap();
        assert_eq!(original.flow_key(&error), key(&there).reversed());
        assert_eq!(Headers::parse(&error).icmp(&error).unwrap().mtu(), 1400);
        // The backend says that there is nobody at the port.
        let unreachable = Packet::ethernet(mac(backend_of(&there)), OWN)
            .ipv4([10, 1, 0, backend_of(&there)].into(), [172, 16, 0, 0].into())
            .icmp(icmp::UNREACHABLE, 3, 0)
            .payload(&there[14..42])
            .to_vec()
            .unwrap();
        let error = site.pass(&unreachable);
        assert_sound(&error);
        assert_eq!(
            (key(&error).src().unwrap(), key(&error).dst().unwrap()),
            ([192, 0, 2, 1].into(), [172, 16, 0, 0].into())
        );
        assert_eq!(Headers::parse(&error).original(&error).unwrap().flow_key(&error), key(&request));
        assert_eq!(error[..6], CLIENT.0);
    }
}

#[test]
fn errors_go_with_their_connection_over_ipv6() {
    let mut site = Site::new(&file(true, 3, ""));
    let (client, router) = ("2001:db8:7::7".parse().unwrap(), "2001:db8:9::9".parse().unwrap());
    let vip: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let request =
        Packet::ethernet(CLIENT, OWN).ipv6(client, vip).tcp(7, 80).flags(Flags::SYN).to_vec().unwrap();
    let there = site.pass(&request);
    let back = site.pass(&answer(&there, Flags::SYN | Flags::ACK));
    let outside = Packet::ethernet(ROUTER, OWN).ipv6(router, vip);
    let outside = outside.icmp(icmpv6::PACKET_TOO_BIG, 0, 1300).payload(&back[14..]).to_vec().unwrap();
    let error = site.pass(&outside);
    assert_sound(&error);
    assert_eq!(backend_of(&error), backend_of(&there));
    let original = Headers::parse(&error).original(&error).unwrap();
    assert_eq!(original.flow_key(&error), key(&there).reversed());
    let backend = format!("fd00::{:x}", backend_of(&there)).parse().unwrap();
    let inside = Packet::ethernet(mac(1), OWN).ipv6(backend, client);
    let inside = inside.icmp(icmpv6::UNREACHABLE, 4, 0).payload(&there[14..]).to_vec().unwrap();
    let error = site.pass(&inside);
    assert_sound(&error);
    assert_eq!(key(&error).src(), Some(vip.into()));
    assert_eq!(Headers::parse(&error).original(&error).unwrap().flow_key(&error), key(&request));
}

#[test]
fn errors_about_nobody_are_dropped() {
    let mut site = Site::v4(1, "");
    let there = site.pass(&to_service(1, Flags::SYN));
    let quoted = answer(&to_service(77, Flags::ACK), Flags::ACK);
    let error = |to: [u8; 4], quoted: &[u8]| {
        let packet = Packet::ethernet(ROUTER, OWN).ipv4([9, 9, 9, 9].into(), to.into());
        packet.icmp(icmp::TIME_EXCEEDED, 0, 0).payload(quoted).to_vec().unwrap()
    };
    assert_eq!(site.refuse(&error([192, 0, 2, 1], &quoted[14..])), DropReason::NoRoute);
    assert_eq!(site.refuse(&error([192, 0, 2, 1], &quoted[14..30])), DropReason::NoRoute);
    // Of other people's packets it goes on.
    let other = error([8, 8, 8, 8], &there[14..34]);
    assert_eq!(site.pass(&other), other);
}

#[test]
fn fragments_follow_their_first() {
    let mut site = Site::v4(5, "protocol: udp");
    let base = Packet::ethernet(CLIENT, OWN).ipv4([172, 16, 0, 1].into(), [192, 0, 2, 1].into());
    let whole = {
        let packet = base.udp(7000, 80).payload(&[5; 3000]).to_vec().unwrap();
        packet[34..].to_vec()
    };
    let piece = |id: u32, from: usize, to: usize| {
        let fragment = Fragment { id, offset: u32::try_from(from).unwrap(), more: to < whole.len() };
        let raw = base.protocol(17).fragment(fragment).payload(&whole[from..to]);
        raw.to_vec().unwrap()
    };
    // Before its first, a fragment cannot be placed.
    assert_eq!(site.refuse(&piece(1, 1480, 2960)), DropReason::NoRoute);
    assert_eq!(site.report()["packets"]["lost_fragments"], 1);
    let out: Vec<Vec<u8>> = [(0, 1480), (1480, 2960), (2960, whole.len())]
        .map(|(from, to)| site.pass(&piece(2, from, to)))
        .into();
    assert!(out.iter().all(|frame| backend_of(frame) == backend_of(&out[0])));
    // Put together they are a datagram with the right checksum.
    let joined: Vec<u8> = out.iter().flat_map(|frame| frame[34..].to_vec()).collect();
    let dst = [10, 1, 0, backend_of(&out[0])];
    let datagram = onvm_lib::wire::udp::Datagram::new_checked(&joined[..]).unwrap();
    let pseudo = onvm_lib::wire::checksum::Pseudo::v4([172, 16, 0, 1].into(), dst.into());
    assert!(datagram.verify_checksum(&pseudo));
    assert!(out.iter().all(|frame| Headers::parse(frame).verify_checksums(frame).ip == Some(true)));
    // The memory is bounded by time, too.
    site.pass_time(31);
    assert_eq!(site.refuse(&piece(2, 1480, 2960)), DropReason::NoRoute);
}

#[test]
fn other_peoples_fragments_go_on() {
    let mut site = Site::v4(1, "");
    let base = Packet::ethernet(CLIENT, OWN).ipv4([10, 1, 0, 1].into(), [8, 8, 8, 8].into());
    let first = base
        .fragment(Fragment { id: 4, offset: 0, more: true })
        .udp(5000, 5000)
        .payload(&[1; 24])
        .to_vec()
        .unwrap();
    let later = base
        .protocol(17)
        .fragment(Fragment { id: 4, offset: 32, more: false })
        .payload(&[1; 24])
        .to_vec()
        .unwrap();
    assert_eq!(site.refuse(&later), DropReason::NoRoute);
    assert_eq!((site.pass(&first), site.pass(&later)), (first, later));
}

#[test]
fn the_virtual_address_answers() {
    let mut site = Site::v4(1, "");
    let ask = |target: [u8; 4]| {
        let addresses = arp::Addresses {
            sender_mac: CLIENT,
            sender_ip: [192, 0, 2, 9].into(),
            target_mac: MacAddr::default(),
            target_ip: target.into(),
        };
        Packet::ethernet(CLIENT, MacAddr::BROADCAST).vlan(3).arp(arp::REQUEST, addresses).to_vec().unwrap()
    };
    for target in [[192, 0, 2, 1], [10, 1, 0, 254]] {
        let out = site.send(&ask(target));
        let reply = Headers::parse(&out[0].1);
        let packet = reply.arp(&out[0].1).unwrap();
        let said = packet.addresses().unwrap();
        assert_eq!(packet.operation(), arp::REPLY);
        assert_eq!((said.sender_mac, said.sender_ip.octets(), said.target_mac), (OWN, target, CLIENT));
        assert_eq!(
            (out[0].0, &out[0].1[..6], &out[0].1[6..12]),
            (Verdict::Out(0), &CLIENT.0[..], &OWN.0[..])
        );
        assert_eq!(reply.vlan_ids().next(), Some(3));
    }
    let other = ask([192, 0, 2, 50]);
    assert_eq!(site.pass(&other), other);

    let ping = Packet::ethernet(CLIENT, OWN).ipv4([192, 0, 2, 9].into(), [192, 0, 2, 1].into());
    let pong = site.pass(&ping.echo_request(7, 1).payload(b"abcdefgh").to_vec().unwrap());
    assert_sound(&pong);
    assert_eq!(pong, ping_reply(&ping));
}

fn ping_reply(_: &Packet<'_>) -> Vec<u8> {
    let packet = Packet::ethernet(OWN, CLIENT).ipv4([192, 0, 2, 1].into(), [192, 0, 2, 9].into());
    packet.icmp(icmp::ECHO_REPLY, 0, 7 << 16 | 1).payload(b"abcdefgh").to_vec().unwrap()
}

#[test]
fn hosts_within_the_prefix_of_a_service_stay_what_they_are() {
    let text = file(false, 2, "").replace("'192.0.2.1'", "10.1.0.0/24");
    let mut site =
        Site::new(&text.replace("b2: {address: 10.1.0.2,", "b2: {address: 10.1.0.2, next-hop: 10.1.0.7,"));
    let ask = |last: u8| {
        let addresses = arp::Addresses {
            sender_mac: CLIENT,
            sender_ip: [10, 1, 0, 50].into(),
            target_mac: MacAddr::default(),
            target_ip: [10, 1, 0, last].into(),
        };
        Packet::ethernet(CLIENT, MacAddr::BROADCAST).arp(arp::REQUEST, addresses).to_vec().unwrap()
    };
    let ping = |last: u8| {
        let ping = Packet::ethernet(CLIENT, OWN).ipv4([172, 16, 0, 9].into(), [10, 1, 0, last].into());
        ping.echo_request(7, 1).to_vec().unwrap()
    };
    let request = |last: u8| {
        let packet = Packet::ethernet(CLIENT, OWN).ipv4([172, 16, 0, 9].into(), [10, 1, 0, last].into());
        packet.tcp(5000, 80).flags(Flags::SYN).to_vec().unwrap()
    };
    // Two backends, and the router to the second.
    for host in [1, 2, 7] {
        for frame in [ask(host), ping(host), request(host)] {
            assert_eq!(site.pass(&frame), frame, "{}", onvm_lib::wire::describe(&frame));
        }
    }
    for other in [3, 99, 254] {
        assert_ne!(site.pass(&ask(other)), ask(other));
        assert_ne!(site.pass(&ping(other)), ping(other));
    }
    assert!([1, 2].contains(&backend_of(&site.pass(&request(99)))));
}

#[test]
fn neighbours_are_answered_over_ipv6() {
    let mut site = Site::new(&file(true, 1, ""));
    let vip: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let group = "ff02::1:ff00:1".parse().unwrap();
    for (asker, options) in [("fe80::9", true), ("fe80::9", false), ("::", false)] {
        let mut body = vip.octets().to_vec();
        if options {
            body.extend([&[1, 1][..], &CLIENT.0].concat());
        }
        let packet = Packet::ethernet(CLIENT, MacAddr([0x33, 0x33, 0xff, 0, 0, 1]))
            .ipv6(asker.parse().unwrap(), group);
        let ask = packet.ttl(255).icmp(icmpv6::NEIGHBOR_SOLICITATION, 0, 0).payload(&body);
        let reply = site.pass(&ask.to_vec().unwrap());
        assert_sound(&reply);
        let headers = Headers::parse(&reply);
        let message = headers.icmpv6(&reply).unwrap();
        assert_eq!((message.kind(), ndp::target(&message)), (icmpv6::NEIGHBOR_ADVERTISEMENT, Some(vip)));
        assert_eq!(message.rest() & ndp::SOLICITED != 0, asker != "::");
        assert_eq!(ndp::options(&message).next(), Some(ndp::NdpOption::TargetLinkLayer(OWN)));
        assert_eq!(headers.ipv6(&reply).unwrap().hop_limit(), 255);
        // From beyond a router it is a forgery.
        let far = packet.ttl(64).icmp(icmpv6::NEIGHBOR_SOLICITATION, 0, 0).payload(&body).to_vec().unwrap();
        assert_eq!(site.pass(&far), far);
    }
}

#[test]
fn backends_without_a_given_ethernet_address_are_asked_for() {
    for six in [false, true] {
        let text = file(six, 1, "").replace(&format!(", mac: '{}'", mac(1)), "");
        let mut site = Site::new(&text);
        let request = if six {
            let packet = Packet::ethernet(CLIENT, OWN)
                .ipv6("fd99::1".parse().unwrap(), "2001:db8::1".parse().unwrap());
            packet.tcp(1, 80).flags(Flags::SYN).to_vec().unwrap()
        } else {
            to_service(1, Flags::SYN)
        };
        assert_eq!(site.refuse(&request), DropReason::NoRoute);
        let asked = site.pass_time(3);
        assert_eq!(asked.len(), 3, "once a second");
        let headers = Headers::parse(&asked[0]);
        let reply = if six {
            assert_sound(&asked[0]);
            let message = headers.icmpv6(&asked[0]).unwrap();
            let target = ndp::target(&message).unwrap();
            assert_eq!(target.to_string(), "fd00::1");
            let body = [&target.octets()[..], &[2, 1], &mac(1).0].concat();
            let packet = Packet::ethernet(mac(1), OWN).ipv6(target, "fd00::ffff".parse().unwrap()).ttl(255);
            packet.icmp(icmpv6::NEIGHBOR_ADVERTISEMENT, 0, ndp::SOLICITED).payload(&body).to_vec().unwrap()
        } else {
            let said = headers.arp(&asked[0]).unwrap().addresses().unwrap();
            assert_eq!((said.sender_mac, said.sender_ip.to_string()), (OWN, "10.1.0.254".into()));
            let answer = arp::Addresses {
                sender_mac: mac(1),
                sender_ip: said.target_ip,
                target_mac: OWN,
                target_ip: said.sender_ip,
            };
            Packet::ethernet(mac(1), OWN).arp(arp::REPLY, answer).to_vec().unwrap()
        };
        assert_eq!(site.refuse(&reply), DropReason::Consumed);
        assert_eq!(site.pass(&request)[..6], mac(1).0);
        assert!(site.pass_time(20).is_empty(), "what is known is not asked for");
        assert!(!site.pass_time(20).is_empty(), "but confirmed");
    }
}

#[test]
fn what_is_nobodys_business_goes_on_as_it_came() {
    let mut site = Site::v4(2, "");
    let to = |dst: [u8; 4], port| {
        Packet::ethernet(CLIENT, OWN)
            .ipv4([1, 2, 3, 4].into(), dst.into())
            .tcp(5, port)
            .flags(Flags::SYN)
            .to_vec()
            .unwrap()
    };
    let other = to([8, 8, 8, 8], 80);
    assert_eq!(site.pass(&other), other);
    // The virtual address has no other ports, and a backend's service port is no way round the balancer.
    assert_eq!(site.refuse(&to([192, 0, 2, 1], 81)), DropReason::Denied);
    let stray = Packet::ethernet(mac(1), OWN)
        .ipv4([10, 1, 0, 1].into(), [1, 2, 3, 4].into())
        .tcp(80, 5)
        .to_vec()
        .unwrap();
    assert_eq!(site.refuse(&stray), DropReason::NoRoute);
    let own_business =
        Packet::ethernet(mac(1), OWN).ipv4([10, 1, 0, 1].into(), [8, 8, 8, 8].into()).tcp(4000, 443);
    let own_business = own_business.flags(Flags::SYN).to_vec().unwrap();
    assert_eq!(site.pass(&own_business), own_business);
}

#[test]
fn prefixes_and_ranges() {
    let mut site = Site::new(&format!(
        "mac: {OWN}\naddresses: [10.1.0.254]\nservices:\n  all: {{address: 198.51.100.0/24, protocol: both, port: any, backends: {{b1: {{address: 10.1.0.1, mac: '{}'}}}}}}\n  \
         one: {{address: 198.51.100.7, port: [80, 8000-8100], backends: {{b2: {{address: 10.1.0.2, port: 8080, mac: '{}'}}}}}}\n",
        mac(1),
        mac(2)
    ));
    for (last, port, backend, backend_port) in
        [(5, 22, 1, 22), (7, 22, 1, 22), (7, 80, 2, 8080), (7, 8100, 2, 8080), (7, 8101, 1, 8101)]
    {
        let request =
            Packet::ethernet(CLIENT, OWN).ipv4([1, 2, 3, 4].into(), [198, 51, 100, last].into()).tcp(5, port);
        let request = request.flags(Flags::SYN).to_vec().unwrap();
        let there = site.pass(&request);
        assert_eq!((backend_of(&there), key(&there).dst_port()), (backend, backend_port), "{last} {port}");
        assert_eq!(key(&site.pass(&answer(&there, Flags::ACK))), key(&request).reversed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn there_and_back_gives_the_clients_packet(
        client in any::<[u8; 4]>(), port in 1u16.., payload in prop::collection::vec(any::<u8>(), 0..200),
        is_udp in any::<bool>(), checksum in any::<bool>(), nat in prop::sample::select(vec!["never", "always"]),
    ) {
        prop_assume!(client[0] != 10 && client[0] < 224 && client[0] != 0 && client != [192, 0, 2, 1]);
        let mut site = Site::v4(3, &format!("protocol: both\nsource-nat: {nat}"));
        let base = Packet::ethernet(CLIENT, OWN).ipv4(client.into(), [192, 0, 2, 1].into());
        let packet = if is_udp { base.udp(port, 80) } else { base.tcp(port, 80).flags(Flags::SYN) };
        let packet = if checksum { packet } else { packet.no_udp_checksum() };
        let request = packet.payload(&payload).to_vec().unwrap();
        let there = site.pass(&request);
        let had = Headers::parse(&request).verify_checksums(&request);
        prop_assert_eq!(Headers::parse(&there).verify_checksums(&there), had);
        // An echo server: the same packet with its ends swapped.
        let mut echo = there.clone();
        let key = key(&there);
        let headers = Headers::parse(&there);
        headers.rewrite(&mut echo, onvm_lib::wire::Side::Source, key.dst().unwrap(), Some(key.dst_port())).unwrap();
        headers.rewrite(&mut echo, onvm_lib::wire::Side::Destination, key.src().unwrap(), Some(key.src_port())).unwrap();
        let back = site.pass(&echo);
        let mut wanted = request.clone();
        let headers = Headers::parse(&request);
        headers.rewrite(&mut wanted, onvm_lib::wire::Side::Source, [192, 0, 2, 1].into(), Some(80)).unwrap();
        headers.rewrite(&mut wanted, onvm_lib::wire::Side::Destination, client.into(), Some(port)).unwrap();
        prop_assert_eq!(&back[14..], &wanted[14..]);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), mode in 0usize..4, cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let mode = ["nat", "dsr", "ipip", "gue"][mode];
        let mut site = Site::v4(2, &format!("mode: {mode}\nprotocol: both"));
        site.send(&bytes);
        // And right packets with one byte changed, or cut.
        for base in [to_service(1, Flags::SYN), udp([1, 2, 3, 4], &bytes), errors_of(&bytes)] {
            let mut spoilt = base.clone();
            let place = at.index(spoilt.len());
            spoilt[place] ^= bytes.first().copied().unwrap_or(1);
            site.send(&spoilt);
            site.send(&base[..cut.index(base.len())]);
        }
    }
}

fn errors_of(bytes: &[u8]) -> Vec<u8> {
    let packet = Packet::ethernet(ROUTER, OWN).ipv4([9, 9, 9, 9].into(), [192, 0, 2, 1].into());
    let quoted = answer(&to_service(1, Flags::ACK), Flags::ACK);
    packet.icmp(3, 4, 0).payload(&[&quoted[14..], bytes].concat()).to_vec().unwrap()
}
