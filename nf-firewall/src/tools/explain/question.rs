//! The packet that is asked about: `tcp 10.0.0.1:1234 > 1.2.3.4:443 flags syn vlan 7`.

use std::net::{IpAddr, SocketAddr};

use onvm_classifier::Header;
use onvm_lib::document::nearest;
use onvm_lib::wire::tcp::Flags;

use crate::engine::checks::Facts;
use crate::packet::NO_PORT;
use crate::rules::flags::FlagMatch;
use crate::rules::yaml::protocol_number;
use crate::rules::{State, UNTAGGED, WITH_PORTS, icmp, parse_masked};

const WORDS: [&str; 8] = ["state", "flags", "type", "vlan", "inner-vlan", "in-port", "mark", "time"];

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) facts: Facts,
    /// None: now.
    pub(super) now_ns: Option<u64>,
}

/// Reads a packet.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(text: &str) -> Result<Question, String> {
    const FORM: &str = "a packet is written like tcp 10.0.0.1:1234 > 1.2.3.4:443";
    let mut words = text.split_whitespace();
    let name = words.next().ok_or(FORM)?;
    let number = name.parse().ok().or_else(|| protocol_number(&name.to_ascii_lowercase()));
    let protocol: u8 = number.ok_or_else(|| no_protocol(name, FORM))?;
    let from = words.next().ok_or(FORM)?;
    if words.next() != Some(">") {
        return Err(format!("between the addresses stands a > by itself; {FORM}"));
    }
    let to = words.next().ok_or(FORM)?;
    let has_ports = WITH_PORTS.contains(&protocol);
    let ((source, sport), (destination, dport)) = (side(from, has_ports)?, side(to, has_ports)?);
    let header = Header::new(source, destination, sport, dport, protocol)
        .ok_or_else(|| format!("{source} and {destination} are of different families"))?;
    let mut facts = Facts {
        header,
        flags: 0,
        icmp: 0,
        vlan: UNTAGGED,
        inner_vlan: UNTAGGED,
        in_port: NO_PORT,
        state: State::New,
        mark: 0,
    };
    let (mut flags, mut now_ns) = (None, None);
    if header.is_v6() && protocol == 58 {
        facts.icmp = 128 << 8;
    } else if protocol == 1 {
        facts.icmp = 8 << 8;
    }
    while let Some(word) = words.next() {
        if !WORDS.contains(&word) {
            return Err(match nearest(word, WORDS) {
                Some(near) => format!("{word:?} says nothing of a packet; did you mean {near:?}?"),
                None => format!("{word:?} says nothing of a packet; these do: {}", WORDS.join(", ")),
            });
        }
        let value = words.next().ok_or_else(|| format!("the value of {word} is missing"))?;
        match word {
            "state" => facts.state = state(value)?,
            "flags" => flags = Some(if value == "none" { 0 } else { value.parse::<FlagMatch>()?.value }),
            "type" => {
                let types = icmp::parse(value, header.is_v6())?;
                facts.icmp = types.hull().map_or(0, |(first, _)| first);
            }
            "vlan" => facts.vlan = number_in(word, value, 4095)?,
            "inner-vlan" => facts.inner_vlan = number_in(word, value, 4095)?,
            "in-port" => facts.in_port = u8::try_from(number_in(word, value, 126)?).unwrap_or(NO_PORT),
            "mark" => {
                facts.mark = parse_masked(value).ok_or_else(|| format!("{value:?} is not a mark"))?.value;
            }
            _ => now_ns = Some(time(value)?),
        }
    }
    if protocol == 6 {
        let usual = if facts.state == State::New { Flags::SYN } else { Flags::ACK };
        facts.flags = flags.unwrap_or(usual.0);
    }
    Ok(Question { facts, now_ns })
}

fn no_protocol(name: &str, form: &str) -> String {
    let known = (0..=u8::MAX).filter_map(onvm_lib::wire::protocol_name).chain(["icmpv6"]);
    match nearest(name, known) {
        Some(near) => format!("{name:?} is not a protocol; did you mean {near:?}?"),
        None => format!("{name:?} is not a protocol; {form}"),
    }
}

fn side(text: &str, has_ports: bool) -> Result<(IpAddr, u16), String> {
    if has_ports {
        let read: Result<SocketAddr, _> = text.parse();
        let wrong = || match text.rsplit_once(':').map(|(_, port)| port.parse::<u64>()) {
            Some(Ok(port)) if port > u64::from(u16::MAX) => {
                format!("the port of {text:?} is out of range 0..=65535")
            }
            _ => format!("{text:?} is not an address with a port, like 10.0.0.1:80 or [::1]:80"),
        };
        return read.map(|address| (address.ip(), address.port())).map_err(|_| wrong());
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse()
        .map(|address| (address, 0))
        .map_err(|_| format!("{text:?} is not an address (the protocol has no ports)"))
}

fn state(name: &str) -> Result<State, String> {
    if let Some((_, state)) = State::NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*state);
    }
    let names = State::NAMES.map(|(name, _)| name);
    Err(match nearest(name, names) {
        Some(near) => format!("{name:?} is not a connection state; did you mean {near:?}?"),
        None => format!("{name:?} is not a connection state; these are {}", names.join(", ")),
    })
}

fn number_in(what: &str, text: &str, most: u16) -> Result<u16, String> {
    let read = text.parse().ok().filter(|number| *number <= most);
    read.ok_or_else(|| format!("{what} {text:?} is not a number of 0..={most}"))
}

/// `2026-11-20T08:30:00Z`
fn time(text: &str) -> Result<u64, String> {
    let at: jiff::Timestamp =
        text.parse().map_err(|_| format!("{text:?} is not a time like 2026-11-20T08:30:00Z"))?;
    u64::try_from(at.as_nanosecond()).map_err(|_| format!("{text:?} is before 1970"))
}
