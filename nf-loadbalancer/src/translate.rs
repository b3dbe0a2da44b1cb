//! Address translation: a packet's addresses and ports become others, its checksums follow (RFC 1624).

use std::net::IpAddr;

use onvm_lib::wire::checksum::{Sum, udp_update, update16, update32};
use onvm_lib::wire::{Headers, Side, icmp, ipv6, tcp, udp};

use crate::connections::Endpoint;

/// Changes both ends of a packet at once. False, and nothing is changed, if that cannot be done.
///
/// A later fragment has no ports to change. What is wrong with a checksum before stays wrong.
#[must_use]
#[inline]
pub(crate) fn translate(
    frame: &mut [u8],
    headers: &Headers,
    source: Endpoint,
    destination: Endpoint,
) -> bool {
    match (source.ip, destination.ip) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            v4(frame, headers, (src.to_bits(), source.port), (dst.to_bits(), destination.port)).is_some()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (from, to) = ((src.octets(), source.port), (dst.octets(), destination.port));
            v6(frame, headers, from, to).is_some() || slowly(frame, headers, source, destination)
        }
        _ => false,
    }
}

/// The packet of every day over IPv6: without extension headers, of which a routing header would change what the
/// checksum covers. None, and nothing is changed, for what it is not.
#[inline]
fn v6(
    frame: &mut [u8],
    headers: &Headers,
    source: ([u8; 16], u16),
    destination: ([u8; 16], u16),
) -> Option<()> {
    let (l3, l4) = (headers.l3_offset()?, headers.l4_offset()?);
    let protocol = headers.protocol()?;
    let check = match protocol {
        tcp::PROTOCOL => l4 + 16,
        udp::PROTOCOL => l4 + 6,
        _ => return None,
    };
    if l4 != l3 + ipv6::HEADER_LEN || check + 2 > headers.end().min(frame.len()) {
        return None;
    }
    // Both addresses and both ports lie in a row: one sum before, one after.
    let ends = frame.get_mut(l3 + 8..l4 + 4)?.first_chunk_mut::<36>()?;
    let before = Sum::ZERO.add_bytes(ends).fold();
    ends[..16].copy_from_slice(&source.0);
    ends[16..32].copy_from_slice(&destination.0);
    ends[32..34].copy_from_slice(&source.1.to_be_bytes());
    ends[34..].copy_from_slice(&destination.1.to_be_bytes());
    let after = Sum::ZERO.add_bytes(ends).fold();
    let place = frame.get_mut(check..)?.first_chunk_mut::<2>()?;
    let old = u16::from_be_bytes(*place);
    let new = update16(old, before, after);
    let new = if protocol == udp::PROTOCOL { udp_update(old, new) } else { new };
    *place = new.to_be_bytes();
    Some(())
}

/// The packet of every day. None, and nothing is changed, for what it is not.
#[inline]
fn v4(frame: &mut [u8], headers: &Headers, source: (u32, u16), destination: (u32, u16)) -> Option<()> {
    let at = headers.l3_offset()?;
    let protocol = headers.protocol()?;
    let transport = match headers.l4_offset() {
        Some(l4) => {
            let check = match protocol {
                tcp::PROTOCOL => l4 + 16,
                udp::PROTOCOL => l4 + 6,
                _ => return None,
            };
            // A cut packet may end before its checksum: there is nothing to keep right then.
            Some((l4, Some(check).filter(|check| check + 2 <= headers.end().min(frame.len()))))
        }
        None => None,
    };
    let ip = frame.get_mut(at..)?.first_chunk_mut::<20>()?;
    if ip[0] >> 4 != 4 {
        return None;
    }
    let word = |bytes: &[u8; 20], at: usize| {
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let (old_src, old_dst) = (word(ip, 12), word(ip, 16));
    let both = |check: u16| update32(update32(check, old_src, source.0), old_dst, destination.0);
    let check = both(u16::from_be_bytes([ip[10], ip[11]]));
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    ip[12..16].copy_from_slice(&source.0.to_be_bytes());
    ip[16..20].copy_from_slice(&destination.0.to_be_bytes());
    let Some((l4, check_at)) = transport else { return Some(()) };
    let ports = frame.get_mut(l4..)?.first_chunk_mut::<4>()?;
    let old = (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]));
    ports[..2].copy_from_slice(&source.1.to_be_bytes());
    ports[2..].copy_from_slice(&destination.1.to_be_bytes());
    if let Some(place) = check_at.and_then(|at| frame.get_mut(at..)?.first_chunk_mut::<2>()) {
        let before = u16::from_be_bytes(*place);
        let after = update16(update16(both(before), old.0, source.1), old.1, destination.1);
        let after = if protocol == udp::PROTOCOL { udp_update(before, after) } else { after };
        *place = after.to_be_bytes();
    }
    Some(())
}

/// Everything else of IPv6: extension headers, fragments.
fn slowly(frame: &mut [u8], headers: &Headers, source: Endpoint, destination: Endpoint) -> bool {
    let one = |frame: &mut [u8], side, end: Endpoint| {
        let port = Some(end.port).filter(|_| headers.ports(frame).is_some());
        headers.rewrite(frame, side, end.ip, port).is_ok()
    };
    one(frame, Side::Source, source) && one(frame, Side::Destination, destination)
}

/// Changes an ICMP error: the datagram that it quotes, whose ends become these, and the error's own ends where given.
#[must_use]
pub(crate) fn translate_error(
    frame: &mut [u8],
    headers: &Headers,
    (quoted_source, quoted_destination): (Endpoint, Endpoint),
    (source, destination): (Option<IpAddr>, Option<IpAddr>),
) -> bool {
    let quote = |frame: &mut [u8], side, end: Endpoint| {
        let has_ports = headers.original(frame).is_some_and(|original| original.ports(frame).is_some());
        let port = Some(end.port).filter(|_| has_ports);
        headers.rewrite_original(frame, side, end.ip, port).is_ok()
    };
    let own = |frame: &mut [u8], side, ip: Option<IpAddr>| {
        ip.is_none_or(|ip| headers.rewrite(frame, side, ip, None).is_ok())
    };
    quote(frame, Side::Source, quoted_source)
        && quote(frame, Side::Destination, quoted_destination)
        && own(frame, Side::Source, source)
        && own(frame, Side::Destination, destination)
}

/// Changes what a tunnel carries, whose headers are `headers`, and keeps the checksums of the tunnel right.
#[must_use]
pub(crate) fn in_tunnel(frame: &mut [u8], headers: &Headers, change: impl FnOnce(&mut [u8]) -> bool) -> bool {
    let at = headers.l3_offset().unwrap_or(0);
    let end = headers.end();
    let sum = |frame: &[u8]| Sum::ZERO.add_bytes(frame.get(at..end).unwrap_or_default()).fold();
    let before = sum(frame);
    let changed = change(frame);
    let after = sum(frame);
    if before != after {
        Headers::parse(frame).carried_changed(frame, at, before, after);
    }
    changed
}

/// Writes destination and source Ethernet address.
#[inline(always)]
pub(crate) fn set_macs(frame: &mut [u8], destination: [u8; 6], source: [u8; 6]) {
    if let Some(macs) = frame.first_chunk_mut::<12>() {
        macs[..6].copy_from_slice(&destination);
        macs[6..].copy_from_slice(&source);
    }
}

/// Whether this is an ICMP or ICMPv6 error that quotes a datagram.
pub(crate) fn is_error(headers: &Headers, frame: &[u8]) -> bool {
    match headers.protocol() {
        Some(icmp::PROTOCOL) => headers.icmp(frame).is_some_and(|message| icmp::is_error(message.kind())),
        Some(onvm_lib::wire::icmpv6::PROTOCOL) => {
            headers.icmpv6(frame).is_some_and(|message| onvm_lib::wire::icmpv6::is_error(message.kind()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::wire::build::Packet;
    use proptest::prelude::*;

    fn end(ip: &str, port: u16) -> Endpoint {
        Endpoint { ip: ip.parse().unwrap(), port }
    }

    fn packet(six: bool, udp: bool, checksum: bool, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let base =
            Packet::ethernet("02:00:00:00:00:01".parse().unwrap(), "02:00:00:00:00:02".parse().unwrap())
                .vlan(7);
        let ip = if six {
            base.ipv6("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
        } else {
            base.ipv4([10, 1, 2, 3].into(), [192, 0, 2, 1].into())
        };
        let transport = if udp { ip.udp(ports.0, ports.1) } else { ip.tcp(ports.0, ports.1) };
        let transport = if checksum || six { transport } else { transport.no_udp_checksum() };
        transport.payload(payload).to_vec().unwrap()
    }

    proptest! {
        #[test]
        fn there_and_back_gives_the_same_packet(
            six in any::<bool>(), udp in any::<bool>(), checksum in any::<bool>(), spoilt in any::<bool>(),
            ports in any::<(u16, u16)>(), new in any::<(u32, u16, u32, u16)>(),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut frame = packet(six, udp, checksum, ports, &payload);
            if spoilt && !payload.is_empty() {
                *frame.last_mut().unwrap() ^= 0x55;
            }
            let before = frame.clone();
            let headers = Headers::parse(&frame);
            let ip = |n: u32| -> IpAddr {
                if six { (0x2001_0db8_u128 << 96 | u128::from(n) << 40 | 5).to_be_bytes().into() } else { n.to_be_bytes().into() }
            };
            let (source, destination) = (Endpoint { ip: ip(new.0), port: new.1 }, Endpoint { ip: ip(new.2), port: new.3 });
            let was = headers.verify_checksums(&frame);
            prop_assert!(translate(&mut frame, &headers, source, destination));
            prop_assert_eq!(headers.verify_checksums(&frame), was);
            let key = Headers::parse(&frame).flow_key(&frame);
            prop_assert_eq!(crate::connections::ends(&key), Some((source, destination)));
            let old = crate::connections::ends(&Headers::parse(&before).flow_key(&before)).unwrap();
            prop_assert!(translate(&mut frame, &headers, old.0, old.1));
            prop_assert_eq!(frame, before);
        }
    }

    #[test]
    fn a_datagram_without_checksum_stays_without() {
        let mut frame = packet(false, true, false, (5, 53), b"abc");
        let headers = Headers::parse(&frame);
        assert!(translate(&mut frame, &headers, end("1.2.3.4", 9), end("10.0.0.9", 5353)));
        assert_eq!(headers.udp(&frame).unwrap().checksum(), 0);
        assert_eq!(headers.verify_checksums(&frame).ip, Some(true));
    }

    #[test]
    fn what_has_no_ports_is_left_alone() {
        let ip = Packet::raw().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut frame = ip.protocol(132).payload(&[0; 20]).to_vec().unwrap();
        let before = frame.clone();
        let headers = Headers::parse_as(onvm_lib::wire::LinkType::RawIp, &frame);
        assert!(!translate(&mut frame, &headers, end("1.2.3.4", 9), end("10.0.0.9", 5353)));
        assert_eq!(frame, before);
    }

    #[test]
    fn every_cut_is_survived() {
        for six in [false, true] {
            let whole = packet(six, false, true, (1, 2), b"abcdef");
            for length in 0..whole.len() {
                let mut frame = whole[..length].to_vec();
                let headers = Headers::parse(&frame);
                let to = if six { ("fd00::1", "fd00::2") } else { ("1.2.3.4", "5.6.7.8") };
                let _ = translate(&mut frame, &headers, end(to.0, 1), end(to.1, 2));
            }
        }
    }
}
