//! ICMP and ICMPv6.

use std::fmt;

use super::Here;
use crate::wire::{Headers, icmp, icmpv6, ndp, udp};

impl Here<'_> {
    pub(super) fn write_icmp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(message) = self.headers.icmp(self.frame) else { return f.write_str("[|icmp]") };
        f.write_str("ICMP ")?;
        let original = self.headers.original(self.frame);
        match (message.kind(), message.code()) {
            (icmp::ECHO_REQUEST, _) => {
                write!(f, "echo request, id {}, seq {}", message.id(), message.seq())
            }
            (icmp::ECHO_REPLY, _) => write!(f, "echo reply, id {}, seq {}", message.id(), message.seq()),
            (icmp::UNREACHABLE, code) => {
                self.write_unreachable(f, code, original.as_ref())?;
                if code == icmp::FRAGMENTATION_NEEDED {
                    write!(f, " - need to frag (mtu {})", message.mtu())?;
                }
                Ok(())
            }
            (icmp::SOURCE_QUENCH, _) => f.write_str("source quench"),
            (icmp::REDIRECT, code) => {
                f.write_str("redirect ")?;
                self.write_original_destination(f, original.as_ref())?;
                let whom = if matches!(code, 0 | 2) { "net" } else { "host" };
                write!(f, " to {whom} {}", message.gateway())
            }
            (icmp::TIME_EXCEEDED, 0) => f.write_str("time exceeded in-transit"),
            (icmp::TIME_EXCEEDED, 1) => f.write_str("ip reassembly time exceeded"),
            (icmp::PARAMETER_PROBLEM, _) => write!(f, "parameter problem - octet {}", message.pointer()),
            (13, _) => write!(f, "time stamp query id {} seq {}", message.id(), message.seq()),
            (14, _) => write!(f, "time stamp reply id {} seq {}", message.id(), message.seq()),
            (kind, code) => write!(f, "type-#{kind} code {code}"),
        }?;
        write!(f, ", length {}", self.declared_len())
    }

    fn write_original_destination(
        &self,
        f: &mut fmt::Formatter<'_>,
        original: Option<&Headers>,
    ) -> fmt::Result {
        match original.and_then(|headers| headers.ipv4(self.frame)) {
            Some(ip) => write!(f, "{}", ip.dst()),
            None => f.write_str("?"),
        }
    }

    fn write_unreachable(
        &self,
        f: &mut fmt::Formatter<'_>,
        code: u8,
        original: Option<&Headers>,
    ) -> fmt::Result {
        let ports = original.and_then(|headers| headers.ports(self.frame));
        let protocol = original.and_then(Headers::protocol).unwrap_or(0);
        match code {
            0 => f.write_str("net ")?,
            1 => f.write_str("host ")?,
            _ => {}
        }
        self.write_original_destination(f, original)?;
        match (code, ports) {
            (2, _) => write!(f, " protocol {protocol}")?,
            (3, Some((_, port))) => {
                let name = if protocol == udp::PROTOCOL { "udp" } else { "tcp" };
                write!(f, " {name} port {port}")?;
            }
            (0 | 1 | 3 | icmp::FRAGMENTATION_NEEDED, _) => {}
            (code, _) => write!(f, " code {code}")?,
        }
        f.write_str(" unreachable")
    }

    pub(super) fn write_icmpv6(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(message) = self.headers.icmpv6(self.frame) else { return f.write_str("[|icmp6]") };
        f.write_str("ICMP6, ")?;
        let target = |f: &mut fmt::Formatter<'_>, what: &str| match ndp::target(&message) {
            Some(address) => write!(f, "{what} {address}"),
            None => write!(f, "{what} [|icmp6]"),
        };
        match (message.kind(), message.code()) {
            (icmpv6::ECHO_REQUEST, _) => {
                write!(f, "echo request, id {}, seq {}", message.id(), message.seq())
            }
            (icmpv6::ECHO_REPLY, _) => write!(f, "echo reply, id {}, seq {}", message.id(), message.seq()),
            (icmpv6::UNREACHABLE, code) => {
                let what = match code {
                    0 => "unreachable route",
                    1 => "unreachable prohibited",
                    2 => "beyond scope",
                    3 => "unreachable address",
                    4 => "unreachable port",
                    _ => "unreachable",
                };
                write!(f, "destination unreachable, {what}")?;
                let original = self.headers.original(self.frame);
                match original.and_then(|headers| headers.ipv6(self.frame)) {
                    Some(ip) => write!(f, " {}", ip.dst()),
                    None => Ok(()),
                }
            }
            (icmpv6::PACKET_TOO_BIG, _) => write!(f, "packet too big, mtu {}", message.mtu()),
            (icmpv6::TIME_EXCEEDED, 0) => f.write_str("time exceeded in-transit"),
            (icmpv6::TIME_EXCEEDED, _) => f.write_str("ip reassembly time exceeded"),
            (icmpv6::PARAMETER_PROBLEM, _) => {
                write!(f, "parameter problem - octet {}", message.pointer())
            }
            (icmpv6::ROUTER_SOLICITATION, _) => f.write_str("router solicitation"),
            (icmpv6::ROUTER_ADVERTISEMENT, _) => f.write_str("router advertisement"),
            (icmpv6::NEIGHBOR_SOLICITATION, _) => target(f, "neighbor solicitation, who has"),
            (icmpv6::NEIGHBOR_ADVERTISEMENT, _) => target(f, "neighbor advertisement, tgt is"),
            (icmpv6::REDIRECT, _) => target(f, "redirect, to"),
            (143, _) => f.write_str("multicast listener report v2"),
            (130, _) => f.write_str("multicast listener query"),
            (131, _) => f.write_str("multicast listener report"),
            (132, _) => f.write_str("multicast listener done"),
            (kind, code) => write!(f, "type-#{kind}, code {code}"),
        }?;
        write!(f, ", length {}", self.declared_len())
    }
}
