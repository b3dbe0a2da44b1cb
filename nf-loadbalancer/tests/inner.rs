//! With `--inner` what tunnels carry is balanced, in its tunnel.

mod site;

use onvm_lib::prelude::{DropReason, Verdict};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{Checksums, Headers, gre, vxlan};
use proptest::prelude::*;
use site::{CLIENT, OWN, Site, answer, backend_of, key, to_service};

/// A tunnel around a frame: its outer IP version, its kind, and whether its header has a checksum of its own.
fn pack(kind: u8, six: bool, checksum: bool, frame: &[u8]) -> Vec<u8> {
    let base = Packet::ethernet(CLIENT, OWN).vlan(9);
    let ip = if six {
        base.ipv6("2001:db8:9::1".parse().unwrap(), "2001:db8:9::2".parse().unwrap())
    } else {
        base.ipv4([198, 51, 100, 1].into(), [198, 51, 100, 2].into())
    };
    let inner_type = &frame[12..14];
    match kind {
        0 => {
            let protocol = if inner_type == [8, 0] { 4 } else { 41 };
            ip.protocol(protocol).payload(&frame[14..]).to_vec().unwrap()
        }
        1 => {
            let flags = if checksum { [0x80, 0] } else { [0, 0] };
            let mut packet = [&flags[..], inner_type].concat();
            if checksum {
                packet.extend([0; 4]);
            }
            packet.extend_from_slice(&frame[14..]);
            if checksum {
                gre::Packet::new_checked(&mut packet[..]).unwrap().fill_checksum();
            }
            ip.protocol(gre::PROTOCOL).payload(&packet).to_vec().unwrap()
        }
        _ => {
            let packet = [&[8, 0, 0, 0, 0, 0, 7, 0][..], frame].concat();
            let udp = ip.udp(50_000, vxlan::PORT);
            let udp = if checksum || six { udp } else { udp.no_udp_checksum() };
            udp.payload(&packet).to_vec().unwrap()
        }
    }
}

/// The headers of what a tunnel carries, all of whose checksums are right.
fn carried(frame: &[u8]) -> Headers {
    let outer = Headers::parse(frame);
    let inner = outer.innermost(frame).unwrap_or_else(|| panic!("{}", onvm_lib::wire::describe(frame)));
    for headers in [outer, inner] {
        let Checksums { ip, transport } = headers.verify_checksums(frame);
        assert!(ip != Some(false) && transport != Some(false), "{}", onvm_lib::wire::describe(frame));
    }
    if outer.protocol() == Some(gre::PROTOCOL) {
        let at = outer.l4_offset().unwrap();
        assert!(gre::Packet::new_checked(&frame[at..]).unwrap().verify_checksum());
    }
    inner
}

fn site() -> Site {
    let mut site = Site::v4(3, "");
    site.balancer.enter_tunnels();
    site
}

proptest! {
    #[test]
    fn a_connection_is_translated_in_its_tunnel_there_and_back(
        kind in 0u8..3, six in any::<bool>(), checksum in any::<bool>(), client in 1u32..500,
    ) {
        let mut site = site();
        let request = to_service(client, Flags::SYN);
        let tunnel = pack(kind, six, checksum, &request);
        let there = site.send(&tunnel).remove(0);
        let within = carried(&there.1);
        let to = within.flow_key(&there.1);
        prop_assert_eq!(there.0, Verdict::Out(1));
        prop_assert_eq!(to.src(), key(&request).src());
        prop_assert!(to.dst().unwrap().to_string().starts_with("10.1.0."), "{to}");
        // The tunnel itself is as it was.
        let outer = Headers::parse(&there.1).l4_offset().unwrap();
        prop_assert_eq!(&there.1[..outer], &tunnel[..outer]);
        let plain = [&request[..14], &there.1[within.l3_offset().unwrap()..within.end()]].concat();
        let reply = answer(&plain, Flags::SYN | Flags::ACK);
        let back = site.send(&pack(kind, six, checksum, &reply)).remove(0);
        prop_assert_eq!(back.0, Verdict::Out(0));
        prop_assert_eq!(carried(&back.1).flow_key(&back.1), key(&request).reversed());
    }
}

#[test]
fn without_the_option_tunnels_go_on_as_they_came() {
    let mut site = Site::v4(3, "");
    let frame = pack(2, false, true, &to_service(1, Flags::SYN));
    assert_eq!(site.pass(&frame), frame);
    assert!((1..=3).contains(&backend_of(&site.pass(&to_service(1, Flags::SYN)))));
}

#[test]
fn what_cannot_stay_in_its_tunnel_is_dropped() {
    let mut site = Site::v4(3, "mode: dsr");
    site.balancer.enter_tunnels();
    let frame = pack(0, false, false, &to_service(1, Flags::SYN));
    assert_eq!(site.refuse(&frame), DropReason::Unsupported);
}
