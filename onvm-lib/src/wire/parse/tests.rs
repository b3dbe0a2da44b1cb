//! The pass on literal bytes: one frame for each way through it, and for each way to stop.

use super::*;
use crate::wire::Net;

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

/// A frame of these parts after the addresses.
fn frame(parts: &[&[u8]]) -> Vec<u8> {
    [&MACS[..], &parts.concat()].concat()
}

/// An IPv4 header of `len` bytes in all, of `protocol`.
fn v4(len: u8, protocol: u8) -> [u8; 20] {
    [0x45, 0, 0, len, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
}

/// An IPv6 header with `len` bytes after it, `next` first.
fn v6(len: u8, next: u8) -> [u8; 40] {
    let mut header = [0; 40];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, len, next, 64]);
    header
}

const UDP: [u8; 10] = [0, 1, 0, 2, 0, 10, 0, 0, b'a', b'b'];

/// Network layer, places of network and transport header, payload and problem.
type Found<'a> = (Net, Option<usize>, Option<usize>, &'a [u8], Option<Problem>);

fn found(frame: &[u8]) -> Found<'_> {
    let headers = Headers::parse(frame);
    (headers.net(), headers.l3_offset(), headers.l4_offset(), headers.payload(frame), headers.problem())
}

#[test]
fn goes_through_tags_labels_and_sessions() {
    let ip = [&v4(30, 17)[..], &UDP].concat();
    for (head, l3) in [
        (&[8, 0][..], 14),
        (&[0x81, 0, 0, 5, 8, 0], 18),
        (&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0], 22),
        (&[0x91, 0, 0, 5, 0x91, 0, 0, 6, 0x81, 0, 0, 7, 8, 0], 26),
        (&[0x88, 0x47, 0, 0, 0, 9, 0, 0, 1, 9], 22),
        (&[0x88, 0x64, 0x11, 0, 0, 1, 0, 32, 0, 0x21], 22),
        (&[0, 38, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0], 22),
        (&[0, 33, 6, 6, 3], 17),
    ] {
        // Padding is no payload.
        let frame = frame(&[head, &ip, &[0xee; 9]]);
        assert_eq!(found(&frame), (Net::Ipv4, Some(l3), Some(l3 + 20), &b"ab"[..], None), "{head:02x?}");
    }
    let frame = frame(&[&[0x91, 0, 0, 5, 0x91, 0, 0, 6, 0x81, 0, 0, 7, 8, 0], &ip]);
    let headers = Headers::parse(&frame);
    assert_eq!((headers.vlan_count(), headers.vlan_ids().collect::<Vec<_>>()), (3, vec![5, 6]));
}

#[test]
fn knows_other_link_types() {
    let ip = [&v4(30, 17)[..], &UDP].concat();
    let sll = [&[0; 14][..], &[8, 0], &ip].concat();
    let sll2 = [&[8, 0][..], &[0; 18], &ip].concat();
    for (link, bytes, l3) in
        [(LinkType::RawIp, &ip, 0), (LinkType::LinuxSll, &sll, 16), (LinkType::LinuxSll2, &sll2, 20)]
    {
        let headers = Headers::parse_as(link, bytes);
        assert_eq!((headers.l3_offset(), headers.payload(bytes)), (Some(l3), &b"ab"[..]));
        assert!(headers.ethernet(bytes).is_none());
    }
    let other = Headers::parse_as(LinkType::Other(9), &ip);
    assert_eq!((other.net(), other.payload(&ip)), (Net::Other, &ip[..]));
    assert_eq!(LinkType::from_number(0xf000_0001), LinkType::Ethernet);
}

#[test]
fn reads_what_is_no_ip() {
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    let padded = frame(&[&[8, 6], &arp, &[0; 18]]);
    assert_eq!(found(&padded), (Net::Arp, Some(14), None, &[][..], None));
    assert_eq!(Headers::parse(&padded).end(), 42);
    let lldp = frame(&[&[0x88, 0xcc, 1, 2]]);
    assert_eq!(found(&lldp), (Net::Other, Some(14), None, &[1, 2][..], None));
    let stp = frame(&[&[0, 3, 0x42, 0x42, 3, 0, 0]]);
    assert_eq!(found(&stp), (Net::Other, Some(14), None, &[0x42, 0x42, 3][..], None));
    assert_eq!(Headers::parse(&stp).ethertype(), None);
    let pseudo_wire = frame(&[&[0x88, 0x47, 0, 0, 1, 9, 0, 0, 0, 0]]);
    assert_eq!(found(&pseudo_wire).0, Net::Other);
}

#[test]
fn follows_extension_headers() {
    let chain = [60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0];
    let bytes = frame(&[&[0x86, 0xdd], &v6(26, 0), &chain, &UDP, &[0; 3]]);
    assert_eq!(found(&bytes), (Net::Ipv6, Some(14), Some(70), &b"ab"[..], None));
    let later = frame(&[&[0x86, 0xdd], &v6(18, 44), &[17, 0, 0, 8, 0, 0, 0, 7], &UDP]);
    assert_eq!(found(&later), (Net::Ipv6, Some(14), None, &UDP[..], None));
    let headers = Headers::parse(&later);
    assert!(headers.is_later_fragment() && headers.protocol() == Some(17));
    let atomic = frame(&[&[0x86, 0xdd], &v6(18, 44), &[17, 0, 0, 0, 0, 0, 0, 7], &UDP]);
    assert!(!Headers::parse(&atomic).is_fragment() && Headers::parse(&atomic).udp(&atomic).is_some());
    let authenticated = frame(&[&[8, 0], &v4(42, 51), &[17, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3], &UDP]);
    assert_eq!(found(&authenticated), (Net::Ipv4, Some(14), Some(46), &b"ab"[..], None));
}

#[test]
fn lengths_of_zero_mean_the_rest() {
    let offloaded = frame(&[&[8, 0], &v4(0, 17), &[0, 1, 0, 2, 0, 0, 0, 0, 7, 7]]);
    assert_eq!(found(&offloaded), (Net::Ipv4, Some(14), Some(34), &[7, 7][..], None));
    let nothing = frame(&[&[0x86, 0xdd], &v6(0, 59), &[7, 7]]);
    assert_eq!(found(&nothing), (Net::Ipv6, Some(14), Some(54), &[][..], None));
}

#[test]
fn says_why_it_stops() {
    use Problem::*;
    let tcp = |offset: u8| [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, offset, 0, 0, 0, 0, 0, 0, 0];
    let mut options = v4(30, 17);
    options[0] = 0x4f;
    let mut version = v4(30, 17);
    version[0] = 0x55;
    let mut ihl = v4(30, 17);
    ihl[0] = 0x44;
    let cases: &[(&[&[u8]], Problem)] = &[
        (&[&[8]], CutLink),
        (&[&[0x81, 0, 0]], CutLink),
        (&[&[0x88, 0x47, 0, 0, 0]], CutLink),
        (&[&[0x88, 0x64, 0x11]], CutLink),
        (&[&[0x81, 0, 0, 1].repeat(10)], Chain),
        (&[&[0x88, 0x47], &[0; 64]], Chain),
        (&[&[8, 0], &v4(30, 17)[..19]], CutNetwork),
        (&[&[8, 6], &[0; 7]], CutNetwork),
        (&[&[8, 0], &version], Version),
        (&[&[8, 0], &ihl], NetworkHeaderLength),
        (&[&[8, 0], &options, &[0; 10]], NetworkLength),
        (&[&[8, 0], &v4(19, 17)], NetworkLength),
        (&[&[8, 0], &v4(30, 17), &UDP[..9]], CutPayload),
        (&[&[8, 0], &v4(30, 17), &UDP[..7]], CutTransport),
        (&[&[8, 0], &v4(27, 17), &UDP], TransportShort),
        (&[&[8, 0], &v4(29, 17), &UDP], TransportLength),
        (&[&[8, 0], &v4(40, 6), &tcp(0x40)], TransportLength),
        (&[&[8, 0], &v4(40, 6), &tcp(0x60)], TransportShort),
        (&[&[8, 0], &v4(60, 6), &tcp(0x60)], CutTransport),
        (&[&[8, 0], &v4(24, 1), &[8, 0, 0, 0]], TransportShort),
        (&[&[0x86, 0xdd], &v6(8, 0), &[6, 1, 0, 0, 0, 0, 0, 0]], Chain),
        (&[&[0x86, 0xdd], &v6(16, 0), &[6, 1, 0, 0, 0, 0, 0, 0]], CutNetwork),
        (&[&[0x86, 0xdd], &v6(136, 60), &[60, 0, 0, 0, 0, 0, 0, 0].repeat(17)], Chain),
    ];
    for (parts, problem) in cases {
        let bytes = frame(parts);
        let headers = Headers::parse(&bytes);
        assert_eq!(headers.problem(), Some(*problem), "{bytes:02x?}");
        assert!(headers.is_cut() != headers.is_malformed());
        assert!(headers.tcp(&bytes).is_none_or(|_| *problem != TransportLength));
    }
}
