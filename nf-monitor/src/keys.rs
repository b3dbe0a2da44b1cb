//! What makes packets one flow.
//!
//! | | connection | netflow |
//! |---|---|---|
//! | TCP, UDP | addresses, ports | the same |
//! | ICMP | addresses, identifier of queries | addresses, type and code |
//! | fragments | addresses | the first one like a whole packet, later ones addresses and protocol |
//! | later fragments of IPv6 | as above | addresses, the protocol being that of the fragment header (44) |
//! | other protocols | addresses, ports of SCTP and such | addresses, protocol |
//! | a SYN after the end of a connection | begins a new flow | goes on with the old one |
//!
//! The first is what a person takes for a flow; a ping and its answers are one. The second is what NetFlow
//! exporters make of it (Cisco's, and softflowd, which our tests compare it with): type and code stand where a
//! destination port would, and there is no answer to a port that is none.

use onvm_lib::wire::{FlowKey, Headers, Net, tcp, udp};

/// The first bytes of an ICMP message that make its key: type and code.
const ICMP_BYTES: usize = 2;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

/// What makes packets one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Keys {
    /// By what talks to each other: a ping and its answers are one flow, a port used again is another
    Connection,
    /// As NetFlow exporters do, softflowd among them: ICMP by type and code, fragments apart
    Netflow,
}

impl Keys {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Netflow => "netflow",
        }
    }

    /// The key in words.
    pub(crate) fn text(self, key: &FlowKey) -> String {
        match (icmp_kind(key), key.src(), key.dst()) {
            (Some((kind, code)), Some(src), Some(dst)) if self == Self::Netflow => {
                let name = if key.protocol() == Some(ICMP) { "icmp" } else { "icmp6" };
                format!("{src} > {dst} {name} type {kind} code {code}")
            }
            _ => key.to_string(),
        }
    }
}

/// Type and code of an ICMP flow with a key of the NetFlow kind.
pub(crate) fn icmp_kind(key: &FlowKey) -> Option<(u8, u8)> {
    let [kind, code] = key.dst_port().to_be_bytes();
    matches!(key.protocol(), Some(ICMP | ICMPV6)).then_some((kind, code))
}

/// The NetFlow key of a packet and its hash; `hash` and `usual` are what it has as a part of a connection.
#[inline]
pub(crate) fn netflow(headers: &Headers, frame: &[u8], hash: u32, usual: FlowKey) -> (u32, FlowKey) {
    let protocol = headers.protocol().unwrap_or(0);
    let ports = ports(headers, frame, protocol);
    let (src_port, dst_port) = ports.unwrap_or((0, 0));
    let key = match headers.net() {
        Net::Ipv4 => {
            headers.ipv4(frame).map(|ip| FlowKey::v4(ip.src(), ip.dst(), src_port, dst_port, protocol))
        }
        // What they are fragments of stands in the first one, says softflowd; so one flow has them all.
        Net::Ipv6 if headers.is_later_fragment() => {
            headers.ipv6(frame).map(|ip| FlowKey::v6(ip.src(), ip.dst(), 0, 0, FRAGMENT))
        }
        Net::Ipv6 => {
            headers.ipv6(frame).map(|ip| FlowKey::v6(ip.src(), ip.dst(), src_port, dst_port, protocol))
        }
        _ => None,
    };
    let plain =
        matches!(protocol, tcp::PROTOCOL | udp::PROTOCOL) && ports.is_some() && !headers.is_fragment();
    match key {
        Some(key) if plain => (hash, key),
        Some(key) => (key.hash32(), key),
        None => (hash, usual),
    }
}

/// What stands for ports. Only headers that are there whole have some.
#[inline]
fn ports(headers: &Headers, frame: &[u8], protocol: u8) -> Option<(u16, u16)> {
    if headers.is_later_fragment() {
        return None;
    }
    let bytes = frame.get(headers.l4_offset()?..)?;
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    match protocol {
        tcp::PROTOCOL if bytes.len() >= tcp::MIN_HEADER_LEN => Some((word(0), word(2))),
        udp::PROTOCOL if bytes.len() >= udp::HEADER_LEN => Some((word(0), word(2))),
        ICMP | ICMPV6 if bytes.len() >= ICMP_BYTES => Some((0, word(0))),
        _ => None,
    }
}

/// Bytes of the IP packet, headers included, as its header says; of one that does not say (segmentation offload,
/// jumbograms) what the frame holds. 0 for what is not IP.
#[inline]
pub(crate) fn ip_length(headers: &Headers, frame: &[u8], wire_length: u64) -> u64 {
    let said = match headers.net() {
        Net::Ipv4 => headers.ipv4(frame).map(|ip| u64::from(ip.total_len())),
        Net::Ipv6 => headers.ipv6(frame).map(|ip| match ip.payload_len() {
            0 => 0,
            length => u64::from(length) + 40,
        }),
        _ => return 0,
    };
    let Some(said) = said else { return 0 };
    if said > 0 {
        return said;
    }
    wire_length.saturating_sub(headers.l3_offset().map_or(0, |at| at as u64))
}
