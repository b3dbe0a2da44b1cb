//! TCP, UDP, tunnels, and whatever else an IP packet carries.

use std::fmt;

use super::Here;
use crate::wire::flow::write_protocol;
use crate::wire::headers::{DCCP, Problem, SCTP, UDP_LITE};
use crate::wire::tcp::Flags;
use crate::wire::tcp_option::TcpOption;
use crate::wire::{
    ETHERNET_IN_IP, EtherType, IPV4_IN_IP, IPV6_IN_IP, Net, gre, icmp, icmpv6, ipv6_ext, tcp, udp, vxlan,
};

impl Here<'_> {
    pub(super) fn write_transport(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(protocol) = self.headers.protocol() else { return Ok(()) };
        match protocol {
            tcp::PROTOCOL => self.write_tcp(f),
            udp::PROTOCOL => self.write_udp(f),
            icmp::PROTOCOL => self.write_icmp(f),
            icmpv6::PROTOCOL => self.write_icmpv6(f),
            gre::PROTOCOL => self.write_gre(f),
            // What these carry follows by itself.
            IPV4_IN_IP | IPV6_IN_IP | ETHERNET_IN_IP
                if self.headers.inner(self.frame).is_some_and(|inner| inner.net() != Net::None) =>
            {
                Ok(())
            }
            ipv6_ext::NO_NEXT_HEADER => f.write_str("no next header"),
            SCTP | DCCP | UDP_LITE => {
                write_protocol(f, protocol)?;
                write!(f, ", length {}", self.declared_len())
            }
            _ => {
                write_protocol(f, protocol)?;
                write!(f, " {}", self.declared_len())
            }
        }
    }

    fn write_tcp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tcp) = self.headers.tcp(self.frame) else {
            return match self.headers.problem() {
                Some(Problem::TransportLength) => f.write_str("tcp [bad data offset]"),
                _ => f.write_str("[|tcp]"),
            };
        };
        let len = self.declared_len().saturating_sub(tcp.header_len());
        let flags = tcp.flags();
        write!(f, "Flags [{flags}]")?;
        if len > 0 {
            let end = tcp.seq().wrapping_add(u32::try_from(len).unwrap_or(0));
            write!(f, ", seq {}:{end}", tcp.seq())?;
        } else if flags.intersects(Flags::SYN | Flags::FIN | Flags::RST) {
            write!(f, ", seq {}", tcp.seq())?;
        }
        if flags.contains(Flags::ACK) {
            write!(f, ", ack {}", tcp.ack())?;
        }
        write!(f, ", win {}", tcp.window())?;
        if flags.contains(Flags::URG) {
            write!(f, ", urg {}", tcp.urgent())?;
        }
        if tcp.header_len() > tcp::MIN_HEADER_LEN {
            f.write_str(", options [")?;
            for (n, option) in tcp.options().enumerate() {
                f.write_str(if n > 0 { "," } else { "" })?;
                write_option(f, &option)?;
            }
            // Options that were cut off, or reach beyond the datagram.
            let there = tcp.option_bytes().len() == tcp.header_len() - tcp::MIN_HEADER_LEN;
            f.write_str(if there { "]" } else { "|tcp]" })?;
        }
        if self.headers.problem() == Some(Problem::TransportShort) {
            return f.write_str(" [header beyond the end]");
        }
        write!(f, ", length {len}")
    }

    fn write_udp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(udp) = self.headers.udp(self.frame) else { return f.write_str("[|udp]") };
        if self.headers.problem() == Some(Problem::TransportLength) && udp.len_field() < 8 {
            return write!(f, "UDP, bad length {}", udp.len_field());
        }
        let payload = self.headers.payload(self.frame);
        let inner = self.headers.inner(self.frame).is_some();
        match udp.dst_port() {
            vxlan::PORT | vxlan::PORT_LINUX | vxlan::PORT_GPE if inner => {
                let name = if udp.dst_port() == vxlan::PORT_GPE { "VXLAN-GPE" } else { "VXLAN" };
                let Ok(packet) = vxlan::Packet::new_checked(payload) else { return f.write_str("[|vxlan]") };
                let flag = if packet.has_vni() { "I" } else { "." };
                write!(f, "{name}, flags [{flag}] (0x{:02x}), vni {}", packet.flags(), packet.vni())
            }
            vxlan::GENEVE_PORT if inner => {
                let Ok(packet) = vxlan::Geneve::new_checked(payload) else { return f.write_str("[|geneve]") };
                write!(f, "Geneve, vni 0x{:x}", packet.vni())
            }
            _ => {
                let len = match usize::from(udp.len_field()) {
                    0 => self.declared_len(),
                    len => len,
                };
                write!(f, "UDP, length {}", len.saturating_sub(udp::HEADER_LEN))
            }
        }
    }

    fn write_gre(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.headers.l4_offset().and_then(|at| self.frame.get(at..self.headers.end()));
        let Some(Ok(gre)) = bytes.map(gre::Packet::new_checked) else { return f.write_str("[|gre]") };
        write!(f, "GREv{}", gre.version())?;
        if let Some(key) = gre.key() {
            match gre.version() {
                0 => write!(f, ", key=0x{key:x}")?,
                _ => write!(f, ", call {}", key & 0xffff)?,
            }
        }
        if let Some(sequence) = gre.sequence() {
            write!(f, ", seq {sequence}")?;
        }
        if let Some(ack) = gre.ack() {
            write!(f, ", ack {ack}")?;
        }
        write!(f, ", length {}", self.declared_len())?;
        if self.headers.inner(self.frame).is_none() {
            write!(f, ": proto {}", EtherType(gre.protocol_type()))?;
        }
        Ok(())
    }
}

fn write_option(f: &mut fmt::Formatter<'_>, option: &TcpOption<'_>) -> fmt::Result {
    match *option {
        TcpOption::EndOfList => f.write_str("eol"),
        TcpOption::Nop => f.write_str("nop"),
        TcpOption::Mss(mss) => write!(f, "mss {mss}"),
        TcpOption::WindowScale(shift) => write!(f, "wscale {shift}"),
        TcpOption::SackPermitted => f.write_str("sackOK"),
        TcpOption::Sack(blocks) => {
            write!(f, "sack {} ", blocks.count())?;
            blocks.iter().try_for_each(|(left, right)| write!(f, "{{{left}:{right}}}"))
        }
        TcpOption::Timestamps { value, echo } => write!(f, "TS val {value} ecr {echo}"),
        TcpOption::Other { kind, data } => {
            write!(f, "unknown-{kind} 0x")?;
            data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
        TcpOption::Malformed { kind, fatal: false, .. } => write!(f, "bad length of option {kind}"),
        TcpOption::Malformed { kind, fatal: true, .. } => write!(f, "bad opt {kind}"),
    }
}
