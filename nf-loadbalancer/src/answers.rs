//! What the balancer answers itself: who has its addresses, whether it is there, and that a packet is too long.
//!
//! A question is turned into its answer in its own buffer, VLAN tags and all.

use std::net::IpAddr;

use onvm_lib::wire::build::Packet;
use onvm_lib::wire::{EtherType, Headers, LinkType, MacAddr, Net, arp, icmp, icmpv6, ndp};

use crate::frame::Frame;
use crate::neighbours;
use crate::translate::set_macs;

/// Longest ICMPv6 error (RFC 4443 §2.4 c).
const MAX_ERROR_V6: usize = 1280;
/// Longest ICMP error of IPv4 (RFC 1812 §4.3.2.3).
const MAX_ERROR_V4: usize = 576;

/// Whether Ethernet and VLAN tags alone stand before the IP header, so that it can be replaced by another.
pub(crate) fn is_plain_ethernet(headers: &Headers, frame: &[u8]) -> bool {
    let Some(l3) = headers.l3_offset() else { return false };
    let ethertype = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let named = l3.checked_sub(2).and_then(ethertype);
    let tags = headers.vlan_count() * 4;
    headers.link() == LinkType::Ethernet
        && l3 == 14 + tags
        && matches!(named.map(EtherType), Some(EtherType::IPV4 | EtherType::IPV6 | EtherType::ARP))
}

/// Puts another network layer into a frame. False if there is no room.
pub(crate) fn replace_network(frame: &mut impl Frame, l3: usize, packet: &[u8]) -> bool {
    let (have, need) = (frame.bytes().len(), l3 + packet.len());
    if need > have && !frame.extend(need - have) {
        return false;
    }
    frame.truncate(need);
    if let Some(place) = frame.bytes_mut().get_mut(l3..) {
        place.copy_from_slice(packet);
    }
    true
}

fn source_mac(frame: &[u8]) -> Option<MacAddr> {
    frame.get(6..)?.first_chunk::<6>().map(|octets| MacAddr(*octets))
}

/// Turns an ARP request for an address that is the balancer's into the reply. False, and nothing is changed, if it is
/// none.
pub(crate) fn arp_reply(
    frame: &mut impl Frame,
    headers: &Headers,
    mac: MacAddr,
    mine: impl Fn(IpAddr) -> bool,
) -> bool {
    let Some(packet) = headers.arp(frame.bytes()) else { return false };
    let Some(asked) = packet.addresses().filter(|_| packet.operation() == arp::REQUEST) else { return false };
    // A gratuitous one, about the sender's own address, asks nothing.
    if !mine(asked.target_ip.into()) || asked.sender_ip == asked.target_ip || asked.sender_mac.is_multicast()
    {
        return false;
    }
    let Some(l3) = headers.l3_offset() else { return false };
    let answer = arp::Addresses {
        sender_mac: mac,
        sender_ip: asked.target_ip,
        target_mac: asked.sender_mac,
        target_ip: asked.sender_ip,
    };
    let Some(Ok(mut packet)) = frame.bytes_mut().get_mut(l3..).map(arp::Packet::new_checked) else {
        return false;
    };
    packet.set_operation(arp::REPLY);
    let done = packet.set_addresses(&answer).is_ok();
    set_macs(frame.bytes_mut(), asked.sender_mac.0, mac.0);
    done
}

/// The target of a neighbor solicitation that may be believed (RFC 4861 §7.1.1).
pub(crate) fn solicited(headers: &Headers, frame: &[u8]) -> Option<std::net::Ipv6Addr> {
    let message = headers.icmpv6(frame)?;
    let ip = headers.ipv6(frame)?;
    let right =
        message.kind() == icmpv6::NEIGHBOR_SOLICITATION && message.code() == 0 && ip.hop_limit() == 255;
    ndp::target(&message).filter(|_| right && headers.verify_checksums(frame).transport == Some(true))
}

/// Turns a neighbor solicitation for `target` into the advertisement.
pub(crate) fn neighbour_advertisement(
    frame: &mut impl Frame,
    headers: &Headers,
    mac: MacAddr,
    target: std::net::Ipv6Addr,
) -> bool {
    let asker = headers.ipv6(frame.bytes()).map(|ip| ip.src());
    let (Some(asker), Some(asker_mac), Some(l3)) = (asker, source_mac(frame.bytes()), headers.l3_offset())
    else {
        return false;
    };
    let Some((packet, to)) = neighbours::advertisement(target, mac, asker, asker_mac) else { return false };
    let done = is_plain_ethernet(headers, frame.bytes()) && replace_network(frame, l3, &packet);
    if done {
        set_macs(frame.bytes_mut(), to.0, mac.0);
    }
    done
}

/// What a neighbor advertisement says of where someone is.
pub(crate) fn advertised(headers: &Headers, frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    let message = headers.icmpv6(frame)?;
    let right = message.kind() == icmpv6::NEIGHBOR_ADVERTISEMENT && headers.ipv6(frame)?.hop_limit() == 255;
    let target = ndp::target(&message).filter(|_| right)?;
    let mac = ndp::options(&message).find_map(|option| match option {
        ndp::NdpOption::TargetLinkLayer(mac) => Some(mac),
        _ => None,
    })?;
    (headers.verify_checksums(frame).transport == Some(true)).then_some((target.into(), mac))
}

/// Turns an echo request into the reply. False, and nothing is changed, if it is none.
pub(crate) fn echo_reply(frame: &mut impl Frame, headers: &Headers) -> bool {
    if headers.is_fragment() || headers.is_malformed() {
        return false;
    }
    let bytes = frame.bytes_mut();
    let (asks, reply) = match headers.net() {
        Net::Ipv4 => (headers.icmp(bytes).is_some_and(|m| m.kind() == icmp::ECHO_REQUEST), icmp::ECHO_REPLY),
        _ => (headers.icmpv6(bytes).is_some_and(|m| m.kind() == icmpv6::ECHO_REQUEST), icmpv6::ECHO_REPLY),
    };
    if !asks {
        return false;
    }
    // Swapping addresses changes no sum; the type does, by a word that is known.
    let update = |check: u16, old: u8| {
        onvm_lib::wire::checksum::update16(check, u16::from(old) << 8, u16::from(reply) << 8)
    };
    if let Some(mut ip) = headers.ipv4_mut(bytes) {
        let (src, dst) = (ip.src(), ip.dst());
        ip.set_src(dst);
        ip.set_dst(src);
    } else if let Some(mut ip) = headers.ipv6_mut(bytes) {
        let (src, dst) = (ip.src(), ip.dst());
        ip.set_src(dst);
        ip.set_dst(src);
    }
    if let Some(mut message) = headers.icmp_mut(bytes) {
        message.set_checksum(update(message.checksum(), icmp::ECHO_REQUEST));
        message.set_kind(reply);
    } else if let Some(mut message) = headers.icmpv6_mut(bytes) {
        message.set_checksum(update(message.checksum(), icmpv6::ECHO_REQUEST));
        message.set_kind(reply);
    }
    swap_macs(bytes);
    true
}

fn swap_macs(bytes: &mut [u8]) {
    if let Some(macs) = bytes.first_chunk_mut::<12>() {
        let (a, b) = macs.split_at_mut(6);
        a.swap_with_slice(b);
    }
}

/// Turns a packet that is too long into the error that tells its sender so: "fragmentation needed" (RFC 1191) or
/// "packet too big" (RFC 4443 §3.2), from the address that it was sent to.
pub(crate) fn too_big(frame: &mut impl Frame, headers: &Headers, mtu: u16) -> bool {
    let bytes = frame.bytes();
    let Some(l3) = headers.l3_offset().filter(|_| is_plain_ethernet(headers, bytes)) else { return false };
    let Some(packet) = bytes.get(l3..headers.end()) else { return false };
    let built = match headers.net() {
        Net::Ipv4 => headers.ipv4(bytes).and_then(|ip| {
            let quote = packet.get(..packet.len().min(MAX_ERROR_V4 - 28))?;
            let error = Packet::raw().ipv4(ip.dst(), ip.src());
            let error = error.icmp(icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, u32::from(mtu));
            error.payload(quote).to_vec().ok()
        }),
        _ => headers.ipv6(bytes).and_then(|ip| {
            let quote = packet.get(..packet.len().min(MAX_ERROR_V6 - 48))?;
            let error =
                Packet::raw().ipv6(ip.dst(), ip.src()).icmp(icmpv6::PACKET_TOO_BIG, 0, u32::from(mtu));
            error.payload(quote).to_vec().ok()
        }),
    };
    let done = built.is_some_and(|error| replace_network(frame, l3, &error));
    if done {
        swap_macs(frame.bytes_mut());
    }
    done
}
