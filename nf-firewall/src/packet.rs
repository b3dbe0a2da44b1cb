//! What of a frame rules ask for.

use onvm_classifier::Header;
use onvm_lib::wire::{Fragment, Headers, Net, Problem, icmp, icmpv6, tcp};

use crate::engine::checks::Facts;
use crate::rules::{State, UNTAGGED};

/// In [`Facts::in_port`]: the packet came in by no port.
pub(crate) const NO_PORT: u8 = u8::MAX;

/// What a frame is to the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An IP packet with all that rules ask for.
    Ip,
    /// The first of several fragments; it has all that rules ask for.
    FirstFragment(Fragment),
    /// One of the others, which have not.
    LaterFragment(Fragment),
    /// Another network layer.
    NonIp,
    /// It contradicts itself, or ends before what rules ask for.
    Malformed,
}

/// A frame that was looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Of the packet that is decided on: in a tunnel, with `--inner`, of what it carries.
    pub(crate) headers: Headers,
    pub(crate) facts: Facts,
    pub(crate) kind: Kind,
    /// It is what a tunnel carries.
    pub(crate) tunnelled: bool,
}

impl Seen {
    /// Looks at a frame. With `inner` tunnels are entered.
    pub(crate) fn of(frame: &[u8], in_port: u8, inner: bool) -> Self {
        let outer = Headers::parse(frame);
        let carried = if inner { outer.innermost(frame) } else { None };
        let (headers, tunnelled) = (carried.unwrap_or(outer), carried.is_some());
        let mut ids = outer.vlan_ids();
        let facts = Facts {
            header: Header::v4([0; 4].into(), [0; 4].into(), 0, 0, 0),
            flags: 0,
            icmp: 0,
            vlan: ids.next().unwrap_or(UNTAGGED),
            inner_vlan: ids.next().unwrap_or(UNTAGGED),
            in_port,
            state: State::Untracked,
            mark: 0,
        };
        let mut seen = Self { headers, facts, kind: Kind::NonIp, tunnelled };
        seen.kind = seen.look(frame);
        seen
    }

    fn look(&mut self, frame: &[u8]) -> Kind {
        let headers = &self.headers;
        if !matches!(headers.net(), Net::Ipv4 | Net::Ipv6) {
            return if headers.problem().is_some() { Kind::Malformed } else { Kind::NonIp };
        }
        let fragment = if headers.is_fragment() { headers.fragment(frame) } else { None };
        let protocol = headers.protocol().unwrap_or(0);
        let ports = headers.ports(frame);
        let Some(header) = header(headers, frame) else { return Kind::Malformed };
        self.facts.header = header;
        match headers.problem() {
            None | Some(Problem::CutPayload) => {}
            // What a capture cut off is not the packet's fault, if the rules can still be asked.
            Some(Problem::CutTransport) if ports.is_some() && protocol != tcp::PROTOCOL => {}
            Some(_) => return Kind::Malformed,
        }
        if let Some(fragment) = fragment.filter(|fragment| fragment.offset > 0) {
            // Of a TCP header that is cut in two, the later part could say other than what was decided on
            // (RFC 1858, RFC 3128).
            let overlaps = protocol == tcp::PROTOCOL && (fragment.offset as usize) < tcp::MIN_HEADER_LEN;
            return if overlaps { Kind::Malformed } else { Kind::LaterFragment(fragment) };
        }
        match protocol {
            tcp::PROTOCOL => match headers.tcp(frame) {
                Some(segment) => self.facts.flags = segment.flags().0,
                None => return Kind::Malformed,
            },
            icmp::PROTOCOL if headers.net() == Net::Ipv4 => match headers.icmp(frame) {
                Some(message) => self.facts.icmp = both(message.kind(), message.code()),
                None => return Kind::Malformed,
            },
            icmpv6::PROTOCOL if headers.net() == Net::Ipv6 => match headers.icmpv6(frame) {
                Some(message) => self.facts.icmp = both(message.kind(), message.code()),
                None => return Kind::Malformed,
            },
            _ => {}
        }
        match fragment {
            Some(fragment) if fragment.is_first() => Kind::FirstFragment(fragment),
            _ => Kind::Ip,
        }
    }
}

/// Datagrams around what the innermost tunnel carries of which this frame has the first fragment only, and their ids:
/// what is decided on it holds for the others.
pub(crate) fn carriers(frame: &[u8]) -> Vec<(Header, u32)> {
    let mut all = Vec::new();
    let mut headers = Headers::parse(frame);
    // The innermost one has no next.
    while let Some(inner) = headers.inner(frame).filter(|inner| matches!(inner.net(), Net::Ipv4 | Net::Ipv6))
    {
        if let Some(fragment) =
            headers.fragment(frame).filter(|fragment| fragment.is_first() && fragment.more)
        {
            all.extend(header(&headers, frame).map(|header| (header, fragment.id)));
        }
        headers = inner;
    }
    all
}

/// The five fields.
fn header(headers: &Headers, frame: &[u8]) -> Option<Header> {
    let protocol = headers.protocol().unwrap_or(0);
    let (sport, dport) = headers.ports(frame).unwrap_or((0, 0));
    match headers.net() {
        Net::Ipv4 => headers.ipv4(frame).map(|ip| Header::v4(ip.src(), ip.dst(), sport, dport, protocol)),
        _ => headers.ipv6(frame).map(|ip| Header::v6(ip.src(), ip.dst(), sport, dport, protocol)),
    }
}

fn both(kind: u8, code: u8) -> u16 {
    u16::from(kind) << 8 | u16::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::wire::build::Packet;
    use onvm_lib::wire::{EtherType, MacAddr};

    fn base<'a>() -> Packet<'a> {
        Packet::ethernet(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))
    }

    fn four<'a>() -> Packet<'a> {
        base().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
    }

    fn seen(packet: Packet<'_>) -> Seen {
        Seen::of(&packet.to_vec().unwrap(), 3, true)
    }

    #[test]
    fn all_that_rules_ask_for_is_found() {
        let tagged = seen(four().tcp(1, 2).vlan(7).vlan(9));
        assert_eq!((tagged.facts.vlan, tagged.facts.inner_vlan, tagged.facts.in_port), (7, 9, 3));
        assert_eq!((tagged.facts.flags, tagged.kind), (0x10, Kind::Ip));
        assert_eq!((tagged.facts.header.source_port(), tagged.facts.header.destination_port()), (1, 2));
        let ping = seen(base().ipv6(1.into(), 2.into()).echo_request(7, 1));
        assert_eq!((ping.facts.icmp, ping.kind), (128 << 8, Kind::Ip));
        assert_eq!(seen(base().ethertype(EtherType::ARP).payload(&[0; 46])).kind, Kind::NonIp);
        assert_eq!(seen(base().ethertype(EtherType(0x88cc)).payload(&[0; 46])).kind, Kind::NonIp);
    }

    #[test]
    fn what_contradicts_itself_is_malformed() {
        let whole = four().tcp(1, 2).to_vec().unwrap();
        for (at, value) in [(14, 0x44), (14, 0x65), (17, 30), (46, 0x40)] {
            let mut frame = whole.clone();
            frame[at] = value;
            assert_eq!(Seen::of(&frame, 0, false).kind, Kind::Malformed, "byte {at}");
        }
        for length in 0..whole.len() {
            assert_ne!(Seen::of(&whole[..length], 0, false).kind, Kind::Ip, "{length} bytes");
        }
    }

    #[test]
    fn fragments_are_told_apart_and_overlaps_are_refused() {
        let fragment = |offset, more| Fragment { id: 7, offset, more };
        let kind =
            |offset, more| seen(four().fragment(fragment(offset, more)).tcp(1, 2).payload(&[1; 64])).kind;
        assert_eq!(kind(0, true), Kind::FirstFragment(fragment(0, true)));
        assert_eq!(kind(24, false), Kind::LaterFragment(fragment(24, false)));
        assert_eq!(kind(8, true), Kind::Malformed);
        let udp = seen(four().fragment(fragment(8, true)).udp(1, 2).payload(&[1; 64])).kind;
        assert_eq!(udp, Kind::LaterFragment(fragment(8, true)));
        // A first fragment without all of the TCP header.
        let mut tiny = four().fragment(fragment(0, true)).tcp(1, 2).to_vec().unwrap();
        tiny.truncate(14 + 20 + 8);
        tiny[17] = 28;
        assert_eq!(Seen::of(&tiny, 0, false).kind, Kind::Malformed);
    }

    #[test]
    fn tunnels_are_entered_when_asked() {
        let inner = Packet::raw().ipv4([1; 4].into(), [2; 4].into()).udp(5, 6).to_vec().unwrap();
        let frame = four().protocol(4).payload(&inner).to_vec().unwrap();
        let within = Seen::of(&frame, 0, true);
        assert!(within.tunnelled && within.facts.header.destination_port() == 6);
        let outer = Seen::of(&frame, 0, false);
        assert!(!outer.tunnelled && outer.facts.header.protocol() == 4);
    }
}
