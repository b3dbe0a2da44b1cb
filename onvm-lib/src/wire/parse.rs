//! The pass over a frame that finds its headers.
//!
//! It is on the packet path of every NF, so it goes forward only, allocates nothing, and for the packet of
//! every day (Ethernet, IPv4 without options, TCP or UDP) is straight code. It never fails: what cannot be
//! read ends the pass, and [`Problem`] says why.

use super::LinkType;
use super::ethernet::EtherType;
use super::field::{be16, be32};
use super::headers::{DCCP, FRAGMENT_MORE, FRAGMENT_OFFSET, Headers, Net, Problem, SCTP, UDP_LITE};
use super::ipv6_ext::{self, ChainProblem, Extensions};
use super::{ethernet, icmp, icmpv6, ipv4, ipv6, mpls, pppoe, sll, tcp, udp, vlan};

/// VLAN tags that are followed in one frame.
const MAX_VLANS: u8 = 8;
/// MPLS entries that are followed in one frame.
const MAX_LABELS: usize = 16;

impl Headers {
    /// Reads an Ethernet frame.
    #[must_use]
    #[inline]
    pub fn parse(frame: &[u8]) -> Headers {
        let mut pass = Pass::new(frame, LinkType::Ethernet, 0);
        pass.ethernet(0);
        pass.headers
    }

    /// Reads a frame with the given link-layer header.
    #[must_use]
    pub fn parse_as(link: LinkType, frame: &[u8]) -> Headers {
        let mut pass = Pass::new(frame, link, 0);
        match link {
            LinkType::Ethernet => pass.ethernet(0),
            LinkType::RawIp => pass.raw_ip(0),
            LinkType::LinuxSll => pass.cooked(sll::HEADER_LEN, 2, 14),
            LinkType::LinuxSll2 => pass.cooked(sll::HEADER2_LEN, 8, 0),
            LinkType::Other(_) => pass.other(0),
        }
        pass.headers
    }
}

/// A pass under way: the bytes that are still believed to belong to the packet, and what was found.
pub(super) struct Pass<'a> {
    bytes: &'a [u8],
    pub(super) headers: Headers,
}

impl<'a> Pass<'a> {
    /// A pass whose link-layer header begins at byte `l2` of `bytes`.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], link: LinkType, l2: usize) -> Self {
        let headers = Headers {
            link,
            ethertype: 0,
            vlans: [0; 2],
            vlan_count: 0,
            net: Net::None,
            protocol: 0,
            problem: None,
            l2: offset(l2),
            l3: 0,
            l4: 0,
            payload: offset(l2),
            fragment: 0,
            end: length(bytes.len()),
        };
        Pass { bytes, headers }
    }

    /// An Ethernet header at `at`.
    #[inline]
    pub(super) fn ethernet(&mut self, at: usize) {
        let type_at = at + ethernet::HEADER_LEN - 2;
        match be16(self.bytes, type_at) {
            Some(0x0800) => {
                self.headers.ethertype = 0x0800;
                self.ipv4(at + ethernet::HEADER_LEN);
            }
            Some(ethertype) => self.ethertype(ethertype, at + ethernet::HEADER_LEN),
            None => self.stop(Problem::CutLink),
        }
    }

    /// What an EtherType or 802.3 length says is at `at`; through tags, labels and sessions to the network
    /// layer.
    pub(super) fn ethertype(&mut self, mut ethertype: u16, mut at: usize) {
        while EtherType(ethertype).is_vlan() {
            let (Some(tci), Some(next)) = (be16(self.bytes, at), be16(self.bytes, at + 2)) else {
                return self.stop(Problem::CutLink);
            };
            if self.headers.vlan_count == MAX_VLANS {
                return self.stop(Problem::Chain);
            }
            if let Some(place) = self.headers.vlans.get_mut(usize::from(self.headers.vlan_count)) {
                *place = tci;
            }
            self.headers.vlan_count += 1;
            ethertype = next;
            at += vlan::HEADER_LEN;
        }
        if ethertype < EtherType::MIN {
            return self.llc(usize::from(ethertype), at);
        }
        self.headers.ethertype = ethertype;
        match EtherType(ethertype) {
            EtherType::IPV4 => self.ipv4(at),
            EtherType::IPV6 => self.ipv6(at),
            EtherType::ARP => self.arp(at),
            EtherType::MPLS | EtherType::MPLS_UPSTREAM => self.mpls(at),
            EtherType::PPPOE_SESSION => self.pppoe(at),
            _ => self.other(at),
        }
    }

    /// A packet that nothing but its version nibble describes.
    pub(super) fn raw_ip(&mut self, at: usize) {
        match self.bytes.get(at).map(|first| first >> 4) {
            Some(4) => self.ipv4(at),
            Some(6) => self.ipv6(at),
            Some(_) => self.stop(Problem::Version),
            None => self.stop(Problem::CutNetwork),
        }
    }

    /// A Linux cooked header of `len` bytes with its hardware type and protocol at these offsets.
    fn cooked(&mut self, len: usize, hardware_at: usize, protocol_at: usize) {
        /// ARPHRD types whose protocol field is no EtherType: GRE tunnel, 802.11 in two forms, netlink.
        const NOT_ETHERTYPE: [u16; 4] = [778, 802, 803, 824];
        let (Some(hardware), Some(protocol), Some(_)) =
            (be16(self.bytes, hardware_at), be16(self.bytes, protocol_at), self.bytes.get(len - 1))
        else {
            return self.stop(Problem::CutLink);
        };
        match protocol {
            _ if NOT_ETHERTYPE.contains(&hardware) => self.other(len),
            // ETH_P_802_2 and ETH_P_802_3 (linux/if_ether.h): LLC without a length, and raw Novell frames.
            4 => self.llc(self.bytes.len(), len),
            protocol if protocol < EtherType::MIN => self.other(len),
            protocol => self.ethertype(protocol, len),
        }
    }

    /// An LLC packet of `len` bytes.
    #[cold]
    fn llc(&mut self, len: usize, at: usize) {
        // Zero is no length, but what some senders have for a type they do not know.
        if len == 0 {
            return self.other(at);
        }
        self.trim(at + len);
        let llc = self.bytes.get(at..).and_then(ethernet::Llc::read);
        match llc {
            None => self.stop(Problem::CutLink),
            Some(ethernet::Llc { dsap: 6, ssap: 6, control: 3, .. }) => self.ipv4(at + 3),
            Some(llc) => match llc.ethertype() {
                Some(ethertype) if ethertype.0 >= EtherType::MIN => {
                    self.ethertype(ethertype.0, at + ethernet::Llc::SNAP_LEN);
                }
                _ => self.other(at),
            },
        }
    }

    /// A label stack, and an IP packet if the payload's first nibble says so. Pseudo wires begin with 0 or 1
    /// (RFC 4385), but an Ethernet frame without control word can begin with anything: that 4 and 6 are
    /// IP is what routers assume too (RFC 8469).
    #[cold]
    fn mpls(&mut self, mut at: usize) {
        for _ in 0..MAX_LABELS {
            let Some(entry) = be32(self.bytes, at) else { return self.stop(Problem::CutLink) };
            at += mpls::ENTRY_LEN;
            if entry & 0x100 != 0 {
                return match self.bytes.get(at).map(|first| first >> 4) {
                    Some(4) => self.ipv4(at),
                    Some(6) => self.ipv6(at),
                    _ => self.other(at),
                };
            }
        }
        self.stop(Problem::Chain);
    }

    /// A PPPoE session packet.
    #[cold]
    fn pppoe(&mut self, at: usize) {
        let header = self.bytes.get(at..).map(pppoe::Packet::new_checked);
        let Some(Ok(packet)) = header else {
            if self.bytes.len() < at + pppoe::HEADER_LEN {
                return self.stop(Problem::CutLink);
            }
            return self.other(at);
        };
        self.trim(at + pppoe::HEADER_LEN + usize::from(packet.payload_len()));
        let inner = at + pppoe::HEADER_LEN + 2;
        match packet.ppp_protocol().and_then(pppoe::ethertype_of_ppp) {
            Some(EtherType::IPV4) => self.ipv4(inner),
            Some(EtherType::IPV6) => self.ipv6(inner),
            Some(_) => self.mpls(inner),
            None => self.other(at),
        }
    }

    #[cold]
    fn arp(&mut self, at: usize) {
        self.network(Net::Arp, at);
        let Some(lens) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return self.stop(Problem::CutNetwork);
        };
        let end = at + 8 + 2 * (usize::from(lens[4]) + usize::from(lens[5]));
        if end > self.bytes.len() {
            return self.stop(Problem::CutNetwork);
        }
        self.trim(end);
        self.headers.payload = offset(end);
    }

    /// An IPv4 header at `at`.
    #[inline]
    pub(super) fn ipv4(&mut self, at: usize) {
        self.network(Net::Ipv4, at);
        let Some(header) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<20>()) else {
            let version = self.bytes.get(at).map(|first| first >> 4);
            return self.stop(match version {
                Some(4) | None => Problem::CutNetwork,
                Some(_) => Problem::Version,
            });
        };
        if header[0] >> 4 != 4 {
            return self.stop(Problem::Version);
        }
        let header_len = usize::from(header[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        self.headers.protocol = header[9];
        if header_len < ipv4::MIN_HEADER_LEN {
            return self.stop(Problem::NetworkHeaderLength);
        }
        // A total length of 0 is what a capture of a segment for the NIC to cut up (TSO) has.
        if total != 0 {
            if total < header_len {
                return self.stop(Problem::NetworkLength);
            }
            self.trim(at + total);
        }
        let start = at + header_len;
        if start > self.bytes.len() {
            let cut = self.headers.problem.is_some();
            return self.stop(if cut { Problem::CutNetwork } else { Problem::NetworkHeaderLength });
        }
        let word = u16::from_be_bytes([header[6], header[7]]);
        self.headers.fragment = word & (FRAGMENT_OFFSET | FRAGMENT_MORE);
        self.headers.payload = offset(start);
        if word & FRAGMENT_OFFSET == 0 {
            self.transport(header[9], start);
        }
    }

    /// An IPv6 header at `at`.
    #[inline]
    pub(super) fn ipv6(&mut self, at: usize) {
        self.network(Net::Ipv6, at);
        let Some(header) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<40>()) else {
            let version = self.bytes.get(at).map(|first| first >> 4);
            return self.stop(match version {
                Some(6) | None => Problem::CutNetwork,
                Some(_) => Problem::Version,
            });
        };
        if header[0] >> 4 != 6 {
            return self.stop(Problem::Version);
        }
        let (len, next) = (usize::from(u16::from_be_bytes([header[4], header[5]])), header[6]);
        let start = at + ipv6::HEADER_LEN;
        // A length of 0 with something following is a jumbogram or a segment for the NIC to cut up.
        if len != 0 || next == ipv6_ext::NO_NEXT_HEADER {
            self.trim(start + len);
        }
        self.headers.protocol = next;
        self.headers.payload = offset(start);
        if ipv6_ext::is_extension(next) {
            self.extensions(next, start);
        } else {
            self.transport(next, start);
        }
    }

    /// A chain of extension headers that begins at `start`.
    fn extensions(&mut self, next: u8, start: usize) {
        let mut chain = Extensions::new(self.bytes.get(start..).unwrap_or(&[]), next);
        chain.by_ref().for_each(drop);
        let at = start + chain.offset();
        self.headers.protocol = chain.next_header();
        self.headers.payload = offset(at);
        if let Some(fragment) = chain.fragment() {
            let units = u16::try_from(fragment.offset / 8).unwrap_or(FRAGMENT_OFFSET);
            self.headers.fragment = units | if fragment.more { FRAGMENT_MORE } else { 0 };
        }
        match chain.problem() {
            Some(ChainProblem::Cut) if self.headers.problem.is_some() => self.stop(Problem::CutNetwork),
            Some(_) => self.stop(Problem::Chain),
            None if self.headers.fragment & FRAGMENT_OFFSET != 0 => {}
            None => self.transport(chain.next_header(), at),
        }
    }

    /// A header of an IP protocol at `at`.
    #[inline]
    fn transport(&mut self, protocol: u8, at: usize) {
        self.headers.protocol = protocol;
        self.headers.l4 = offset(at);
        let rest = self.bytes.get(at..).unwrap_or(&[]);
        let len = match protocol {
            tcp::PROTOCOL => match rest.first_chunk::<{ tcp::MIN_HEADER_LEN }>() {
                Some(header) => {
                    let len = usize::from(header[12] >> 4) * 4;
                    if len < tcp::MIN_HEADER_LEN {
                        return self.transport_problem(Problem::TransportLength);
                    }
                    len
                }
                None => tcp::MIN_HEADER_LEN,
            },
            udp::PROTOCOL => {
                self.udp_length(at);
                udp::HEADER_LEN
            }
            _ => return self.rare_transport(protocol, at),
        };
        self.payload_after(at, len);
    }

    /// The payload after a transport header of `len` bytes at `at`.
    #[inline]
    fn payload_after(&mut self, at: usize, len: usize) {
        if at + len > self.bytes.len() {
            let cut = self.headers.problem == Some(Problem::CutPayload);
            return self.transport_problem(if cut { Problem::CutTransport } else { Problem::TransportShort });
        }
        self.headers.payload = offset(at + len);
    }

    /// A transport header that could not be read has no payload.
    #[cold]
    fn transport_problem(&mut self, problem: Problem) {
        self.headers.payload = offset(self.bytes.len());
        self.stop(problem);
    }

    /// Ends the packet where the UDP length does. In a fragment it is that of the whole datagram.
    #[inline]
    fn udp_length(&mut self, at: usize) {
        let Some(len) = be16(self.bytes, at + 4).map(usize::from) else { return };
        let have = self.bytes.len() - at;
        if len == have || (len > have && self.headers.fragment & FRAGMENT_MORE != 0) {
            return;
        }
        match len {
            // A jumbogram (RFC 2675), or a segment for the NIC to cut up.
            0 => {}
            1..udp::HEADER_LEN => self.headers.problem = Some(Problem::TransportLength),
            _ if len < have => self.end_at(at + len),
            _ if self.headers.problem.is_none() => self.headers.problem = Some(Problem::TransportLength),
            _ => {}
        }
    }

    /// Transport headers other than TCP and UDP.
    fn rare_transport(&mut self, protocol: u8, at: usize) {
        let len = match protocol {
            icmp::PROTOCOL => icmp::HEADER_LEN,
            icmpv6::PROTOCOL => icmpv6::HEADER_LEN,
            SCTP => 12,
            UDP_LITE => udp::HEADER_LEN,
            DCCP => self.bytes.get(at + 4).map_or(12, |words| usize::from(*words) * 4).max(12),
            // IPv4 has the authentication header too. It may not repeat (RFC 4302 §3.1), so that one is all
            // there is to skip; in IPv6 it was skipped with the extension headers.
            ipv6_ext::AUTHENTICATION if self.headers.net == Net::Ipv4 => {
                let header = self.bytes.get(at..).and_then(|rest| ipv6_ext::one(protocol, rest));
                return match header {
                    Some((next, _)) if next == ipv6_ext::AUTHENTICATION => self.stop(Problem::Chain),
                    Some((next, bytes)) => self.transport(next, at + bytes.len()),
                    None => self.payload_after(at, usize::MAX - at),
                };
            }
            _ => 0,
        };
        self.payload_after(at, len);
    }

    /// A payload that is not followed.
    #[cold]
    fn other(&mut self, at: usize) {
        self.network(Net::Other, at);
    }

    #[inline]
    fn network(&mut self, net: Net, at: usize) {
        self.headers.net = net;
        self.headers.l3 = offset(at);
        self.headers.payload = offset(at);
    }

    /// A length field says that the packet ends at `end`. What is after it is padding; if the bytes end
    /// before it, they were cut.
    #[inline]
    fn trim(&mut self, end: usize) {
        if end > self.bytes.len() {
            self.headers.problem = Some(Problem::CutPayload);
        } else {
            self.end_at(end);
        }
    }

    #[inline]
    fn end_at(&mut self, end: usize) {
        self.bytes = &self.bytes[..end];
        self.headers.end = length(end);
    }

    #[cold]
    fn stop(&mut self, problem: Problem) {
        self.headers.problem = Some(problem);
    }
}

/// An offset as it is stored. Headers are found within the first 64 KiB only: the chains are bounded, and
/// tunnels are not entered beyond [`MAX_TUNNEL_OFFSET`](super::inner::MAX_TUNNEL_OFFSET).
#[inline]
fn offset(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// A length as it is stored; no frame has 4 GiB.
#[inline]
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
