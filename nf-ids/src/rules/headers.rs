//! Keywords that ask for fields of headers and for events.

use super::builder::Builder;
use super::compare::Compare;
use super::option::unquote;
use super::refusal::Fault;
use super::rule::{Bits, BitsMode, Checksummed, Field, HeaderTest, Protocol, ProtocolSide, StreamSide};
use super::test::{HeaderBytes, Place};
use crate::app::Protocol as Application;
use crate::decode::OptionKind;

/// Fields whose value is a comparison with a number, and the largest.
const NUMBERS: &[(&str, Field, u64)] = &[
    ("ttl", Field::Ttl, 255),
    ("tos", Field::Tos, 255),
    ("id", Field::Id, 65535),
    ("fragoffset", Field::FragmentOffset, 65535),
    ("seq", Field::Sequence, 0xffff_ffff),
    ("tcp.seq", Field::Sequence, 0xffff_ffff),
    ("ack", Field::Acknowledgement, 0xffff_ffff),
    ("tcp.ack", Field::Acknowledgement, 0xffff_ffff),
    ("window", Field::Window, 65535),
    ("tcp.window", Field::Window, 65535),
    ("tcp.mss", Field::Mss, 65535),
    ("tcp.wscale", Field::WindowScale, 255),
    ("itype", Field::IcmpType, 255),
    ("icode", Field::IcmpCode, 255),
    ("icmp_id", Field::IcmpId, 65535),
    ("icmp_seq", Field::IcmpSequence, 65535),
    ("icmpv6.mtu", Field::IcmpMtu, 0xffff_ffff),
    ("igmp.type", Field::IgmpType, 255),
    ("dsize", Field::PayloadSize, 65535),
    ("vlan.layers", Field::VlanLayers, 3),
    ("flow.age", Field::FlowAge, 0xffff_ffff),
    ("flow.pkts_toserver", Field::FlowPackets(StreamSide::Server), 0xffff_ffff),
    ("flow.pkts_toclient", Field::FlowPackets(StreamSide::Client), 0xffff_ffff),
    ("flow.bytes_toserver", Field::FlowBytes(StreamSide::Server), u64::MAX),
    ("flow.bytes_toclient", Field::FlowBytes(StreamSide::Client), u64::MAX),
];

/// Checksums and their keywords.
const CHECKSUMS: &[(&str, Checksummed)] = &[
    ("ipv4-csum", Checksummed::Ipv4),
    ("tcpv4-csum", Checksummed::Tcpv4),
    ("tcpv6-csum", Checksummed::Tcpv6),
    ("udpv4-csum", Checksummed::Udpv4),
    ("udpv6-csum", Checksummed::Udpv6),
    ("icmpv4-csum", Checksummed::Icmpv4),
    ("icmpv6-csum", Checksummed::Icmpv6),
    ("igmp-csum", Checksummed::Igmp),
];

/// Headers as buffers.
const BUFFERS: &[(&str, HeaderBytes)] = &[
    ("ether.hdr", HeaderBytes::Ethernet),
    ("ipv4.hdr", HeaderBytes::Ipv4),
    ("ipv6.hdr", HeaderBytes::Ipv6),
    ("tcp.hdr", HeaderBytes::Tcp),
    ("udp.hdr", HeaderBytes::Udp),
    ("icmpv4.hdr", HeaderBytes::Icmpv4),
    ("icmpv6.hdr", HeaderBytes::Icmpv6),
    ("igmp.hdr", HeaderBytes::Igmp),
    ("ip.src", HeaderBytes::Source),
    ("ip.dst", HeaderBytes::Destination),
];

const OTHERS: &[&str] = &[
    "ip_proto",
    "ipopts",
    "fragbits",
    "flags",
    "tcp.flags",
    "sameip",
    "stream_size",
    "decode-event",
    "stream-event",
    "engine-event",
    "app-layer-protocol",
    "vlan.id",
    "flow.pkts",
    "flow.bytes",
];

/// Every keyword of this room.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    let numbers = NUMBERS.iter().map(|(w, ..)| *w);
    let checksums = CHECKSUMS.iter().map(|(w, _)| *w);
    let buffers = BUFFERS.iter().map(|(w, _)| *w);
    numbers.chain(checksums).chain(buffers).chain(OTHERS.iter().copied())
}

/// Takes a keyword of this room; `None` if it is not of it.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>) -> Option<Result<(), Fault>> {
    if let Some((_, bytes)) = BUFFERS.iter().find(|(w, _)| *w == word) {
        return Some(b.stick(Place::Header(*bytes)));
    }
    let known = words().any(|w| w == word);
    known.then(|| {
        let test = test(word, value)?;
        if matches!(test, HeaderTest::AppProtocol(..)) {
            if let Protocol::App(name) = b.rule.protocol {
                return Err(Fault::new(word, format!("the rule is about {name} already")));
            }
            if b.rule.headers.iter().any(|before| protocols_conflict(before, &test)) {
                return Err(Fault::new(word, "contradicts or repeats another for the same direction"));
            }
        }
        b.header(test);
        Ok(())
    })
}

fn test(word: &str, value: Option<&str>) -> Result<HeaderTest, Fault> {
    if word == "sameip" {
        return Ok(HeaderTest::SameIp);
    }
    let value = value.ok_or_else(|| Fault::new(word, "has no value"))?;
    let (value, negated) = if value.contains('"') { unquote(word, value)? } else { (value, false) };
    if negated {
        return Err(Fault::new(word, "`!` stands before a quoted value"));
    }
    let written = if word == "tos" { with_zero(value) } else { value.to_string() };
    let value = written.as_str();
    if let Some((_, field, most)) = NUMBERS.iter().find(|(w, ..)| *w == word) {
        return Ok(HeaderTest::Number(*field, Compare::parse(word, value, *most)?));
    }
    if let Some((_, what)) = CHECKSUMS.iter().find(|(w, _)| *w == word) {
        return match value {
            "valid" => Ok(HeaderTest::Checksum(*what, true)),
            "invalid" => Ok(HeaderTest::Checksum(*what, false)),
            other => Err(Fault::new(word, format!("`{other}` is neither `valid` nor `invalid`"))
                .or_nearest(other, ["valid", "invalid"])),
        };
    }
    match word {
        "ip_proto" => ip_protocol(value),
        "ipopts" if value == "any" => Ok(HeaderTest::IpOption(None)),
        "ipopts" => {
            let known = OptionKind::NAMES.iter().find(|(name, _)| *name == value);
            let names = OptionKind::NAMES.iter().map(|(name, _)| *name);
            let wrong =
                || Fault::new(word, format!("`{value}` is no option of IPv4")).or_nearest(value, names);
            known.map(|(_, kind)| HeaderTest::IpOption(Some(*kind))).ok_or_else(wrong)
        }
        "fragbits" => bits(word, value, &[('M', 1), ('D', 2), ('R', 4)], 7).map(HeaderTest::FragmentBits),
        "flags" | "tcp.flags" => tcp_flags(word, value),
        "stream_size" => stream_size(value),
        "stream-event" => stream_event(word, value),
        "decode-event" | "engine-event" => match value.strip_prefix("stream.") {
            Some(name) => stream_event(word, name),
            None => decode_event(word, value),
        },
        "app-layer-protocol" => app_protocol(value),
        "vlan.id" => {
            let (compare, layer) = value.split_once(',').map_or((value, None), |(c, l)| (c, Some(l.trim())));
            let wrong = || Fault::new(word, format!("layer `{}` is not in 0..=2", layer.unwrap_or_default()));
            let layer =
                layer.map(|l| l.parse::<u8>().ok().filter(|l| *l <= 2).ok_or_else(wrong)).transpose()?;
            Ok(HeaderTest::Number(Field::VlanId(layer), Compare::parse(word, compare, 4094)?))
        }
        "flow.pkts" | "flow.bytes" => both_ways(word, value),
        _ => Err(Fault::new(word, "is not supported")),
    }
}

/// `tos` may write hexadecimal as `x10`.
fn with_zero(value: &str) -> String {
    match value.split_once(['x', 'X']) {
        Some((sign, digits)) if !sign.ends_with('0') => format!("{sign}0x{digits}"),
        _ => value.to_string(),
    }
}

fn stream_event(word: &str, name: &str) -> Result<HeaderTest, Fault> {
    use crate::stream::Event;
    let known = Event::ALL.iter().map(|(_, known)| *known);
    let unknown =
        || Fault::new(word, format!("`{name}` is no event of the reassembly")).or_nearest(name, known);
    Event::from_name(name).map(HeaderTest::StreamEvent).ok_or_else(unknown)
}

fn decode_event(word: &str, name: &str) -> Result<HeaderTest, Fault> {
    use crate::decode::Event;
    let known = Event::ALL.iter().map(|(_, known)| *known);
    let unknown = || Fault::new(word, format!("`{name}` is no event of the decoder")).or_nearest(name, known);
    Event::from_name(name).map(HeaderTest::DecodeEvent).ok_or_else(unknown)
}

/// Protocols by name, as `/etc/protocols` has those that rules name.
const IP_PROTOCOLS: &[(&str, u64)] = &[
    ("ip", 0),
    ("hopopt", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ggp", 3),
    ("ipip", 4),
    ("ipencap", 4),
    ("ip-encap", 4),
    ("st", 5),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("pup", 12),
    ("udp", 17),
    ("hmp", 20),
    ("xns-idp", 22),
    ("rdp", 27),
    ("iso-tp4", 29),
    ("dccp", 33),
    ("xtp", 36),
    ("ddp", 37),
    ("idpr-cmtp", 38),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("idrp", 45),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("skip", 57),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("rspf", 73),
    ("vmtp", 81),
    ("eigrp", 88),
    ("ospf", 89),
    ("ospfigp", 89),
    ("ax.25", 93),
    ("etherip", 97),
    ("encap", 98),
    ("pim", 103),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("isis", 124),
    ("sctp", 132),
    ("fc", 133),
    ("mobility-header", 135),
    ("udplite", 136),
    ("mpls-in-ip", 137),
    ("hip", 139),
    ("shim6", 140),
    ("wesp", 141),
    ("rohc", 142),
];

fn ip_protocol(value: &str) -> Result<HeaderTest, Fault> {
    let at = value.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
    let (sign, name) = value.split_at(at);
    let number = IP_PROTOCOLS.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, n)| *n);
    let text = number.map_or_else(|| value.to_string(), |n| format!("{sign}{n}"));
    Ok(HeaderTest::Number(Field::IpProtocol, Compare::parse("ip_proto", &text, 255)?))
}

fn bits(word: &str, text: &str, letters: &[(char, u8)], of: u8) -> Result<Bits, Fault> {
    let text = text.trim();
    // The sign may stand before or after the letters.
    let sign = |c: char| matches!(c, '+' | '*' | '!' | '=' | '-');
    let (mode, rest) =
        match (text.chars().next().filter(|c| sign(*c)), text.chars().last().filter(|c| sign(*c))) {
            (Some(c), _) => (Some(c), &text[1..]),
            (None, Some(c)) => (Some(c), &text[..text.len() - 1]),
            (None, None) => (None, text),
        };
    let mut bits = 0;
    for letter in rest.trim().chars() {
        let known = letters.iter().find(|(l, _)| *l == letter.to_ascii_uppercase());
        match known {
            Some((_, bit)) => bits |= bit,
            None if matches!(letter, ',' | ' ') => {}
            None => return Err(Fault::new(word, format!("`{letter}` of `{text}` stands for no bit"))),
        }
    }
    if bits == 0 && !rest.trim().eq_ignore_ascii_case("0") {
        return Err(Fault::new(word, format!("`{text}` names no bit")));
    }
    let mode = match mode {
        Some('+') => BitsMode::All,
        Some('*') => BitsMode::Any,
        Some('!') => BitsMode::Not,
        _ => BitsMode::Exactly,
    };
    Ok(Bits { bits, of, mode })
}

const FLAGS: &[(char, u8)] = &[
    ('F', 1),
    ('S', 2),
    ('R', 4),
    ('P', 8),
    ('A', 16),
    ('U', 32),
    ('2', 64),
    ('E', 64),
    ('1', 128),
    ('C', 128),
    ('0', 0),
];

fn tcp_flags(word: &str, value: &str) -> Result<HeaderTest, Fault> {
    // A letter of the part after the comma is one that does not count. `R,A` is therefore RST, whatever ACK is.
    let (set, ignored) = value.split_once(',').unwrap_or((value, ""));
    let ignored = if ignored.trim().is_empty() { 0 } else { bits(word, ignored, FLAGS, 255)?.bits };
    bits(word, set, FLAGS, !ignored).map(HeaderTest::TcpFlags)
}

fn stream_size(value: &str) -> Result<HeaderTest, Fault> {
    const WORD: &str = "stream_size";
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let [side, operator, number] = parts[..] else {
        return Err(Fault::new(WORD, format!("`{value}` is not SIDE,OPERATOR,NUMBER")));
    };
    let side = match side {
        "client" => StreamSide::Client,
        "server" => StreamSide::Server,
        "both" => StreamSide::Both,
        "either" => StreamSide::Either,
        other => {
            let fault = Fault::new(WORD, format!("`{other}` is not `client`, `server`, `both` or `either`"));
            return Err(fault.or_nearest(other, ["client", "server", "both", "either"]));
        }
    };
    let compare = Compare::parse(WORD, &format!("{operator}{number}"), 0xffff_ffff)?;
    Ok(HeaderTest::StreamSize(side, compare))
}

/// `app-layer-protocol:[!]NAME[|NAME…][,SIDE][,exact]`.
fn app_protocol(value: &str) -> Result<HeaderTest, Fault> {
    const WORD: &str = "app-layer-protocol";
    const KNOWN: [&str; 7] = ["final", "either", "to_server", "to_client", "original", "direction", "exact"];
    let (value, negated) = value.strip_prefix('!').map_or((value, false), |rest| (rest.trim(), true));
    let mut parts = value.split(',').map(str::trim);
    let names = parts.next().unwrap_or_default();
    let (mut side, mut exact) = (None, false);
    for part in parts {
        let named = match part {
            "exact" => {
                exact = true;
                continue;
            }
            "final" => ProtocolSide::Final,
            "either" => ProtocolSide::Either,
            "toserver" | "to_server" => ProtocolSide::ToServer,
            "toclient" | "to_client" => ProtocolSide::ToClient,
            "original" => ProtocolSide::Original,
            "direction" => ProtocolSide::Packet,
            other => {
                return Err(Fault::new(WORD, format!("`{other}` is no direction, nor `exact`"))
                    .or_nearest(other, KNOWN));
            }
        };
        if side.replace(named).is_some() {
            return Err(Fault::new(WORD, format!("`{part}` is a second direction")));
        }
    }
    let mut all = Vec::new();
    for name in names.split('|').map(str::trim) {
        all.extend(app_protocols(WORD, name, negated, exact)?);
    }
    Ok(HeaderTest::AppProtocol(all, negated, side.unwrap_or(ProtocolSide::Packet)))
}

/// What a name stands for; with `exact`, nothing that is carried by it or like it.
fn app_protocols(word: &str, name: &str, negated: bool, exact: bool) -> Result<Vec<Application>, Fault> {
    let all = Application::by_rule_name(name);
    let unknown = || Fault::new(word, format!("`{name}` is no protocol that is known"));
    let first = *all.first().ok_or_else(|| unknown().or_nearest(name, Application::names()))?;
    if first == Application::Unknown && negated {
        return Err(Fault::new(word, "`!unknown` is not possible: a negation is of what is known"));
    }
    if exact {
        let why = "`http` is never it exactly; say `http1` or `http2`";
        return if name == "http" { Err(Fault::new(word, why)) } else { Ok(vec![first]) };
    }
    let mut all = all.to_vec();
    if first == Application::Dcerpc {
        all.push(Application::Smb);
    }
    Ok(all)
}

/// Two tests of the protocol of one side that cannot both be meant.
fn protocols_conflict(one: &HeaderTest, other: &HeaderTest) -> bool {
    match (one, other) {
        (HeaderTest::AppProtocol(a, no_a, side), HeaderTest::AppProtocol(b, no_b, other)) => {
            side == other && (!no_a || !no_b || a.iter().any(|p| b.contains(p)))
        }
        _ => false,
    }
}

fn both_ways(word: &str, value: &str) -> Result<HeaderTest, Fault> {
    let (way, compare) = value.split_once(',').unwrap_or(("either", value));
    let way = match way.trim() {
        "toserver" | "to_server" => StreamSide::Server,
        "toclient" | "to_client" => StreamSide::Client,
        "either" => StreamSide::Either,
        "both" => StreamSide::Both,
        other => {
            const KNOWN: [&str; 4] = ["toserver", "toclient", "either", "both"];
            let fault = Fault::new(word, format!("`{other}` is not one of {}", KNOWN.join(", ")));
            return Err(fault.or_nearest(other, KNOWN));
        }
    };
    let field = if word == "flow.pkts" { Field::FlowPackets(way) } else { Field::FlowBytes(way) };
    Ok(HeaderTest::Number(field, Compare::parse(word, compare, u64::MAX)?))
}
