//! A packet in words, on one line, the way `tcpdump -n -S` writes it: for monitors, logs and test failures.
//!
//! ```text
//! IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [S], seq 1, win 65535, options [mss 1460,sackOK], length 0
//! vlan 5, p 0, ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28
//! IP6 2001:db8::1 > 2001:db8::2: frag (1432|1432)
//! IP 10.0.0.1 > 10.0.0.2: GREv0, length 32: IP 1.1.1.1 > 2.2.2.2: ICMP echo request, id 0, seq 0, length 8
//! ```
//!
//! It stops at the transport layer: what an application says is not looked at. Where bytes are missing it
//! says so as tcpdump does, `[|tcp]`, and lengths are those that the headers give.

mod control;
mod transport;

use std::fmt;

use super::ethernet::{Frame, Llc};
use super::headers::{FRAGMENT_MORE, Headers, Net, Problem};
use super::{ETHERNET_IN_IP, IPV4_IN_IP, IPV6_IN_IP, LinkType, arp, mpls, pppoe};

/// Tunnels inside each other that are described.
const MAX_DEPTH: usize = 6;

/// A packet that describes itself when displayed, on one line and the way `tcpdump -n -S` does, up to the
/// transport layer: `IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [S], seq 1, win 65535, length 0`.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    frame: &'a [u8],
    headers: Headers,
}

/// An Ethernet frame in words.
#[must_use]
pub fn describe(frame: &[u8]) -> Description<'_> {
    describe_as(LinkType::Ethernet, frame)
}

/// A frame of this link type in words.
#[must_use]
pub fn describe_as(link: LinkType, frame: &[u8]) -> Description<'_> {
    Description { frame, headers: Headers::parse_as(link, frame) }
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut layer = Some(self.headers);
        for depth in 0..MAX_DEPTH {
            let Some(headers) = layer else { return Ok(()) };
            if depth > 0 && headers.net() == Net::None {
                return Ok(());
            }
            let here = Here { frame: self.frame, headers };
            here.write(f)?;
            layer = headers.inner(self.frame);
            // IP in IP has no header to name, and so has the separator already.
            if layer.is_some_and(|inner| inner.net() != Net::None) && !here.is_bare_tunnel() {
                f.write_str(": ")?;
            }
        }
        if layer.is_some() { f.write_str("...") } else { Ok(()) }
    }
}

/// One layer of tunnelling.
#[derive(Clone, Copy)]
struct Here<'a> {
    frame: &'a [u8],
    headers: Headers,
}

impl Here<'_> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tcis = self.headers.vlans.iter().take(self.headers.vlan_count());
        for tci in tcis {
            write!(f, "vlan {}, p {}, ", tci & 0xfff, tci >> 13)?;
        }
        if self.headers.vlan_count() > self.headers.vlans.len() {
            f.write_str("vlan ..., ")?;
        }
        self.write_labels(f)?;
        match self.headers.net() {
            Net::None => f.write_str("[|ether]"),
            Net::Arp => self.write_arp(f),
            Net::Ipv4 => self.write_ip(f, "IP"),
            Net::Ipv6 => self.write_ip(f, "IP6"),
            Net::Other => self.write_other(f),
        }
    }

    /// MPLS labels and a PPPoE session before the network layer.
    fn write_labels(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link_len = match self.headers.link() {
            LinkType::Ethernet => 14,
            LinkType::LinuxSll => 16,
            LinkType::LinuxSll2 => 20,
            _ => return Ok(()),
        };
        let at = self.headers.l2_offset() + link_len + 4 * self.headers.vlan_count();
        let bytes = self.frame.get(at..self.headers.end()).unwrap_or_default();
        match self.headers.ethertype {
            0x8847 | 0x8848 => {
                f.write_str("MPLS")?;
                let mut rest = bytes;
                while let Ok(entry) = mpls::Entry::new_checked(rest) {
                    let bottom = if entry.is_bottom() { ", [S]" } else { "" };
                    let (label, class, ttl) = (entry.label(), entry.traffic_class(), entry.ttl());
                    write!(f, " (label {label}, tc {class}{bottom}, ttl {ttl})")?;
                    if entry.is_bottom() {
                        break;
                    }
                    rest = &rest[mpls::ENTRY_LEN..];
                }
                f.write_str(" ")
            }
            0x8864 => match pppoe::Packet::new_checked(bytes) {
                Ok(packet) => write!(f, "PPPoE [ses 0x{:x}] ", packet.session()),
                Err(_) => f.write_str("PPPoE "),
            },
            _ => Ok(()),
        }
    }

    fn write_arp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(arp) = self.headers.arp(self.frame) else { return f.write_str("ARP, [|arp]") };
        let Some(addresses) = arp.addresses() else {
            let (hardware, protocol) = (arp.hardware_type(), arp.protocol_type());
            return write!(f, "ARP, hardware type {hardware}, protocol type 0x{protocol:04x}");
        };
        let arp::Addresses { sender_mac, sender_ip, target_ip, .. } = addresses;
        match arp.operation() {
            arp::REQUEST => write!(f, "ARP, Request who-has {target_ip} tell {sender_ip}"),
            arp::REPLY => write!(f, "ARP, Reply {sender_ip} is-at {sender_mac}"),
            other => write!(f, "ARP, op {other}, {sender_ip} ({sender_mac}) to {target_ip}"),
        }?;
        write!(f, ", length {}", arp.as_bytes().len())
    }

    /// Whether it is a tunnel without a header of its own.
    fn is_bare_tunnel(&self) -> bool {
        matches!(self.headers.protocol(), Some(IPV4_IN_IP | IPV6_IN_IP | ETHERNET_IN_IP))
    }

    /// What is neither IP nor ARP.
    fn write_other(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.headers.end().saturating_sub(self.headers.l2_offset());
        let bytes = self.frame.get(self.headers.l2_offset()..).unwrap_or_default();
        if let LinkType::Other(number) = self.headers.link() {
            return write!(f, "link type {number}, length {len}");
        }
        if let (LinkType::Ethernet, Ok(link)) = (self.headers.link(), Frame::new_checked(bytes)) {
            write!(f, "{} > {}, ", link.src(), link.dst())?;
        }
        match self.headers.ethertype() {
            Some(ethertype) => write!(f, "ethertype {ethertype}, length {len}"),
            None => match Llc::read(self.headers.payload(self.frame)) {
                Some(llc) => {
                    write!(f, "802.3, LLC, dsap 0x{:02x}, ssap 0x{:02x}, length {len}", llc.dsap, llc.ssap)
                }
                None => write!(f, "length {len}"),
            },
        }
    }

    fn write_ip(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let addresses = match self.headers.net() {
            Net::Ipv4 => self.headers.ipv4(self.frame).map(|ip| (ip.src().into(), ip.dst().into())),
            _ => self.headers.ipv6(self.frame).map(|ip| (ip.src().into(), ip.dst().into())),
        };
        let Some((src, dst)) = addresses else {
            let what = match self.headers.problem() {
                Some(Problem::Version) => "bad version",
                Some(Problem::NetworkHeaderLength) => "bad header length",
                _ => "cut",
            };
            return write!(f, "{name} [|ip] ({what})");
        };
        let (src, dst): (std::net::IpAddr, std::net::IpAddr) = (src, dst);
        let ports = self.headers.ports(self.frame).filter(|_| !self.headers.is_later_fragment());
        match ports {
            Some((from, to)) => write!(f, "{name} {src}.{from} > {dst}.{to}: ")?,
            None => write!(f, "{name} {src} > {dst}: ")?,
        }
        self.write_fragment(f)?;
        if self.headers.is_later_fragment() {
            return Ok(());
        }
        match self.headers.problem() {
            Some(Problem::NetworkLength) => f.write_str("[|ip] (bad total length)"),
            Some(Problem::CutNetwork) => f.write_str("[|ip]"),
            Some(Problem::NetworkHeaderLength) => f.write_str("[|ip] (options beyond the end)"),
            Some(Problem::Chain) => f.write_str("[|ip] (broken chain of headers)"),
            _ => self.write_transport(f),
        }
    }

    /// `frag (offset|length)` and a `+` if more follow.
    fn write_fragment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.headers.is_fragment() {
            return Ok(());
        }
        let offset = self.headers.fragment(self.frame).map_or(0, |fragment| fragment.offset);
        let start = self.headers.l4_offset().unwrap_or(self.headers.payload_offset());
        let len = self.declared_end().saturating_sub(start);
        let more = if self.headers.fragment & FRAGMENT_MORE != 0 { "+" } else { "" };
        write!(f, "frag ({offset}|{len}{more})")?;
        if self.headers.is_later_fragment() { Ok(()) } else { f.write_str(" ") }
    }

    /// Where the packet ends by its IP header, though its bytes may end before.
    fn declared_end(&self) -> usize {
        let start = self.headers.l3_offset().unwrap_or(0);
        let len = match self.headers.net() {
            Net::Ipv4 => self.headers.ipv4(self.frame).map_or(0, |ip| usize::from(ip.total_len())),
            _ => match self.headers.ipv6(self.frame).map_or(0, |ip| usize::from(ip.payload_len())) {
                0 => 0,
                len => len + super::ipv6::HEADER_LEN,
            },
        };
        if len == 0 { self.headers.end() } else { (start + len).max(self.headers.end()) }
    }

    /// Bytes from the transport header on, by the IP header.
    fn declared_len(&self) -> usize {
        self.declared_end().saturating_sub(self.headers.l4_offset().unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests;
