//! Packets in packets: IP in IP (RFC 2003 for IPv4 in IPv4, RFC 2473 over IPv6, RFC 4213 for IPv6 in IPv4) and generic
//! UDP encapsulation (draft-ietf-intarea-gue-09).
//!
//! ```text
//! Ethernet, tags │ IP │ …        becomes        Ethernet, tags │ outer IP │ [ UDP │ GUE ] │ IP │ …
//! ```
//! The outer header has the inner one's traffic class, ECN bits included (RFC 6040 §4.1, normal mode), and its "don't
//! fragment" (RFC 2003 §3.1). What is longer than the way allows is not sent in pieces that the backend would have to
//! put together: a sender who said "don't fragment", as all of IPv6 does, is told; other packets are cut into
//! fragments before they are packed.

use std::net::IpAddr;

use onvm_lib::wire::checksum::{Pseudo, udp_nonzero};
use onvm_lib::wire::{EtherType, Headers, IPV4_IN_IP, IPV6_IN_IP, Net, ipv4, ipv6, udp};

use crate::answers::is_plain_ethernet;
use crate::frame::Frame;

/// UDP port of GUE (draft-ietf-intarea-gue-09 §9.1, IANA).
pub const GUE_PORT: u16 = 6080;
/// Bytes of a GUE header without options: version 0, no control message, protocol, no flags.
const GUE_LEN: usize = 4;

/// How packets are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ipip,
    Gue,
}

/// A tunnel to a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tunnel {
    pub(crate) kind: Kind,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// Longest outer packet.
    pub(crate) mtu: u16,
}

/// Why a packet was not packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It would be too long; longer than this it must not be, and its sender wants to be told.
    TooBig(u16),
    /// It would be too long, and may be fragmented to this length.
    Fragment(u16),
    /// There is no room in front of it, or something else than Ethernet and tags.
    Unsupported,
}

impl Tunnel {
    /// Bytes that come in front.
    fn overhead(&self) -> usize {
        let ip = if self.from.is_ipv4() { ipv4::MIN_HEADER_LEN } else { ipv6::HEADER_LEN };
        let udp = if self.kind == Kind::Gue { udp::HEADER_LEN + GUE_LEN } else { 0 };
        ip + udp
    }

    /// Packs a packet. `hash` is that of its flow: it chooses the way among several to the backend. `id` numbers
    /// outer packets that may be fragmented.
    pub(crate) fn pack(
        &self,
        frame: &mut impl Frame,
        headers: &Headers,
        hash: u32,
        id: u16,
    ) -> Result<(), Refusal> {
        let bytes = frame.bytes();
        let l3 =
            headers.l3_offset().filter(|_| is_plain_ethernet(headers, bytes)).ok_or(Refusal::Unsupported)?;
        let (traffic_class, dont_fragment, protocol) = match headers.net() {
            Net::Ipv4 => headers.ipv4(bytes).map(|ip| (ip.tos(), ip.dont_fragment(), IPV4_IN_IP)),
            _ => headers.ipv6(bytes).map(|ip| (low8(ip.traffic_class()), true, IPV6_IN_IP)),
        }
        .ok_or(Refusal::Unsupported)?;
        let (inner, overhead) = (headers.end() - l3, self.overhead());
        let outer = u16::try_from(inner + overhead).ok().filter(|outer| *outer <= self.mtu);
        let Some(outer) = outer else {
            let room = self.mtu - u16::try_from(overhead).unwrap_or(0);
            return Err(if dont_fragment { Refusal::TooBig(room) } else { Refusal::Fragment(room) });
        };
        // What pads a short frame is no part of the packet.
        frame.truncate(headers.end());
        if !frame.push(overhead) {
            return Err(Refusal::Unsupported);
        }
        let bytes = frame.bytes_mut();
        bytes.copy_within(overhead..overhead + l3, 0);
        let ethertype = if self.from.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        bytes[l3 - 2..l3].copy_from_slice(&ethertype.0.to_be_bytes());
        let inside = if self.kind == Kind::Gue { udp::PROTOCOL } else { protocol };
        let network = &mut bytes[l3..];
        match (self.from, self.to) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                network[..ipv4::MIN_HEADER_LEN].fill(0);
                network[0] = 0x45;
                let mut ip = ipv4::Packet::new_checked(&mut *network).map_err(|_| Refusal::Unsupported)?;
                ip.set_tos(traffic_class);
                ip.set_total_len(outer);
                ip.set_id(if dont_fragment { 0 } else { id });
                ip.set_dont_fragment(dont_fragment);
                ip.set_ttl(64);
                ip.set_protocol(inside);
                ip.set_src(src);
                ip.set_dst(dst);
                ip.fill_checksum();
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                network[..ipv6::HEADER_LEN].fill(0);
                network[0] = 0x60;
                let mut ip = ipv6::Packet::new_checked(&mut *network).map_err(|_| Refusal::Unsupported)?;
                ip.set_traffic_class(traffic_class.into());
                ip.set_flow_label(hash & 0xf_ffff);
                ip.set_payload_len(outer - 40);
                ip.set_next_header(inside);
                ip.set_hop_limit(64);
                ip.set_src(src);
                ip.set_dst(dst);
            }
            _ => return Err(Refusal::Unsupported),
        }
        if self.kind == Kind::Gue {
            let header = if self.from.is_ipv4() { ipv4::MIN_HEADER_LEN } else { ipv6::HEADER_LEN };
            self.gue(&mut network[header..], hash, protocol);
        }
        Ok(())
    }

    /// Writes the UDP and GUE header at the front of what the outer IP header carries.
    fn gue(&self, bytes: &mut [u8], hash: u32, protocol: u8) {
        let length = u16::try_from(bytes.len()).unwrap_or(0);
        bytes[udp::HEADER_LEN..udp::HEADER_LEN + GUE_LEN].copy_from_slice(&[0, protocol, 0, 0]);
        // The source port tells flows apart for routers with several ways (§5.11): one of the ephemeral ports.
        let port = 0xc000 | low16(hash) & 0x3fff;
        bytes[..2].copy_from_slice(&port.to_be_bytes());
        bytes[2..4].copy_from_slice(&GUE_PORT.to_be_bytes());
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        bytes[6..8].fill(0);
        // Over IPv4 the checksum may be left out; over IPv6 it is there.
        if let (IpAddr::V6(src), IpAddr::V6(dst)) = (self.from, self.to) {
            let sum = Pseudo::v6(src, dst).sum(udp::PROTOCOL, bytes.len()).add_bytes(bytes);
            bytes[6..8].copy_from_slice(&udp_nonzero(sum.finish()).to_be_bytes());
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn low16(hash: u32) -> u16 {
    hash as u16
}

#[allow(clippy::cast_possible_truncation, reason = "a traffic class has eight bits")]
fn low8(class: u16) -> u8 {
    class as u8
}

/// Cuts an IPv4 packet into fragments of at most `most` bytes (RFC 791 §2.3). None for one with options, of which some
/// would have to be copied and some not; nobody sends these.
pub(crate) fn fragments(packet: &[u8], most: u16) -> Option<Vec<Vec<u8>>> {
    let ip = ipv4::Packet::new_checked(packet).ok()?;
    let header = ipv4::MIN_HEADER_LEN;
    let room = usize::from(most).checked_sub(header)? / 8 * 8;
    if ip.header_len() != header || ip.dont_fragment() || room == 0 {
        return None;
    }
    let (before, more) = (ip.fragment().offset as usize, ip.more_fragments());
    let payload = packet.get(header..)?;
    let mut all = Vec::new();
    for (n, piece) in payload.chunks(room).enumerate() {
        let offset = u16::try_from((before + n * room) / 8).ok()?;
        let last = (n + 1) * room >= payload.len();
        let mut bytes = [&packet[..header], piece].concat();
        let total = u16::try_from(bytes.len()).ok()?;
        let mut ip = ipv4::Packet::new_checked(&mut bytes).ok()?;
        ip.set_total_len(total);
        ip.set_fragment_offset_units(offset);
        ip.set_more_fragments(!last || more);
        ip.fill_checksum();
        all.push(bytes);
    }
    Some(all)
}
