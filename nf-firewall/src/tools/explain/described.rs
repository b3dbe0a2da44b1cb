//! Packets and conditions in words.

use std::net::{IpAddr, SocketAddr};

use onvm_lib::wire::protocol_name;

use crate::engine::checks::{Checks, Facts};
use crate::packet::NO_PORT;
use crate::rules::flags::FlagMatch;
use crate::rules::{Rule, RuleSet, States, UNTAGGED};

/// One condition: what it is about, what the packet has, and what the rule wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) what: &'static str,
    pub(super) has: String,
    pub(super) wants: String,
}

/// Whether a rule asks for anything by a condition.
pub(super) fn asks(check: Checks, rule: &Rule) -> bool {
    let m = &rule.matches;
    match check {
        Checks::SOURCE => !m.source.is_all(),
        Checks::DESTINATION => !m.destination.is_all(),
        Checks::SOURCE_PORT => !m.source_ports.is_all(),
        Checks::DESTINATION_PORT => !m.destination_ports.is_all(),
        Checks::PROTOCOL => !m.protocols.is_all(),
        Checks::ICMP => m.icmp.is_some(),
        Checks::FLAGS => !m.flags.is_empty(),
        Checks::VLAN => !m.vlan.is_all(),
        Checks::INNER_VLAN => !m.inner_vlan.is_all(),
        Checks::IN_PORT => !m.in_ports.is_all(),
        Checks::STATE => m.states != States::ALL,
        Checks::TIME => m.time.is_some(),
        Checks::MARK => m.mark.is_some(),
        _ => false,
    }
}

/// A condition of a rule in words.
pub(super) fn of(check: Checks, rule: &Rule, facts: &Facts, set: &RuleSet) -> Described {
    let (m, header) = (&rule.matches, &facts.header);
    let tag = |id: u16| if id == UNTAGGED { "untagged".to_string() } else { id.to_string() };
    let untagged = |text: String| text.replace(&UNTAGGED.to_string(), "untagged");
    let (what, has, wants) = match check {
        Checks::SOURCE => ("from", header.source().to_string(), m.source.to_string()),
        Checks::DESTINATION => ("to", header.destination().to_string(), m.destination.to_string()),
        Checks::SOURCE_PORT => ("from-port", header.source_port().to_string(), m.source_ports.to_string()),
        Checks::DESTINATION_PORT => {
            ("to-port", header.destination_port().to_string(), m.destination_ports.to_string())
        }
        Checks::PROTOCOL => {
            let all: Vec<String> = m
                .protocols
                .iter()
                .map(|(first, last)| if first == last { protocol(first) } else { format!("{first}-{last}") })
                .collect();
            ("protocol", protocol(header.protocol()), all.join(", "))
        }
        Checks::ICMP => {
            let has = match header.protocol() {
                1 | 58 => format!("type {}/{}", facts.icmp >> 8, facts.icmp & 255),
                other => protocol(other),
            };
            ("icmp", has, m.icmp.as_ref().map_or(String::new(), ToString::to_string))
        }
        Checks::FLAGS => {
            let all: Vec<String> = m.flags.iter().map(ToString::to_string).collect();
            ("flags", flags(facts.flags), all.join(" or "))
        }
        Checks::VLAN => ("vlan", tag(facts.vlan), untagged(m.vlan.to_string())),
        Checks::INNER_VLAN => ("inner-vlan", tag(facts.inner_vlan), untagged(m.inner_vlan.to_string())),
        Checks::IN_PORT => {
            let has = if facts.in_port == NO_PORT { "none".into() } else { facts.in_port.to_string() };
            ("in-port", has, m.in_ports.to_string())
        }
        Checks::STATE => ("state", facts.state.to_string(), m.states.to_string()),
        Checks::TIME => {
            let schedule = m.time.and_then(|index| set.schedules.get(usize::from(index)));
            ("time", "asked for".into(), schedule.map_or(String::new(), ToString::to_string))
        }
        _ => {
            let wants = m.mark.map_or(String::new(), |mark| format!("{:#x}/{:#x}", mark.value, mark.mask));
            ("mark", format!("{:#x}", facts.mark), wants)
        }
    };
    Described { what, has, wants }
}

fn protocol(number: u8) -> String {
    match number {
        58 => "icmpv6".into(),
        _ => protocol_name(number).map_or_else(|| number.to_string(), str::to_string),
    }
}

/// The flags that are set.
fn flags(bits: u16) -> String {
    if bits == 0 { "none".into() } else { FlagMatch { mask: bits, value: bits }.to_string() }
}

/// The packet in the words in which it can be asked for again.
pub(super) fn packet(facts: &Facts) -> String {
    let header = &facts.header;
    let number = header.protocol();
    let side = |address: IpAddr, port: u16| {
        let ported = crate::rules::WITH_PORTS.contains(&number);
        if ported { SocketAddr::new(address, port).to_string() } else { address.to_string() }
    };
    let mut text = format!(
        "{} {} > {}",
        protocol(number),
        side(header.source(), header.source_port()),
        side(header.destination(), header.destination_port())
    );
    match number {
        6 => text.push_str(&format!(" flags {}", flags(facts.flags))),
        1 | 58 => text.push_str(&format!(" type {}/{}", facts.icmp >> 8, facts.icmp & 255)),
        _ => {}
    }
    for (name, id) in [("vlan", facts.vlan), ("inner-vlan", facts.inner_vlan)] {
        if id != UNTAGGED {
            text.push_str(&format!(" {name} {id}"));
        }
    }
    if facts.in_port != NO_PORT {
        text.push_str(&format!(" in-port {}", facts.in_port));
    }
    if facts.mark != 0 {
        text.push_str(&format!(" mark {:#x}", facts.mark));
    }
    text.push_str(&format!(" state {}", facts.state));
    text
}
