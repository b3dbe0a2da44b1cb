//! The part of a rule before its options: action, protocol, addresses, ports, arrow.

use super::builder::Builder;
use super::list::{Addresses, Ports};
use super::option::Parts;
use super::refusal::Fault;
use super::rule::{Action, Arrow, Protocol, RejectTo};
use super::variables::Variables;
use crate::app::Protocol as Application;

const ACTIONS: &[(&str, Action)] = &[
    ("alert", Action::Alert),
    ("pass", Action::Pass),
    ("drop", Action::Drop),
    ("reject", Action::Reject(RejectTo::Source)),
    ("rejectsrc", Action::Reject(RejectTo::Source)),
    ("rejectdst", Action::Reject(RejectTo::Destination)),
    ("rejectboth", Action::Reject(RejectTo::Both)),
];

const PROTOCOLS: &[(&str, Protocol)] = &[
    ("ip", Protocol::Ip),
    ("any", Protocol::Ip),
    ("ip4", Protocol::Ipv4),
    ("ipv4", Protocol::Ipv4),
    ("ip6", Protocol::Ipv6),
    ("ipv6", Protocol::Ipv6),
    ("tcp", Protocol::Tcp),
    ("tcp-pkt", Protocol::TcpPacket),
    ("tcp-stream", Protocol::TcpStream),
    ("udp", Protocol::Udp),
    ("icmp", Protocol::Icmp),
    ("icmpv4", Protocol::Icmpv4),
    ("icmpv6", Protocol::Icmpv6),
    ("sctp", Protocol::Sctp),
    ("igmp", Protocol::Number(2)),
    ("gre", Protocol::Number(47)),
    ("esp", Protocol::Number(50)),
    ("ah", Protocol::Number(51)),
    ("arp", Protocol::Arp),
    ("pkthdr", Protocol::PacketHeader),
];

/// A builder with the header read, or what is wrong and where.
pub(crate) fn parse(parts: &Parts<'_>, variables: &Variables) -> Result<Builder, (usize, Fault)> {
    let (words, _, body) = parts;
    let word = |index: usize| words.get(index).copied();
    let names = ["action", "protocol", "source address", "source port", "direction", "address", "port"];
    let (
        Some(action),
        Some(protocol),
        Some(source),
        Some(source_ports),
        Some(arrow),
        Some(to),
        Some(to_ports),
    ) = (word(0), word(1), word(2), word(3), word(4), word(5), word(6))
    else {
        let missing = names.get(words.len()).copied().unwrap_or("header");
        let why = format!("is missing: a rule begins with {}", names.join(", "));
        return Err((*body, Fault::new(missing, why)));
    };
    if let Some((extra, at)) = word(7) {
        return Err((at, Fault::new("header", format!("`{extra}` is one word too many"))));
    }
    let at = |place: usize| move |fault| (place, fault);
    let action_found = find("action", action.0, ACTIONS).map_err(at(action.1))?;
    let protocol_found = find_protocol(protocol.0).map_err(at(protocol.1))?;
    let arrow_found = match arrow.0 {
        "->" => Arrow::Right,
        "<>" => Arrow::Either,
        "=>" => Arrow::Transaction,
        other => {
            return Err((arrow.1, Fault::new("direction", format!("`{other}` is not `->`, `<>` or `=>`"))));
        }
    };
    let ends = (
        Addresses::parse(source.0, variables).map_err(at(source.1))?,
        Ports::parse(source_ports.0, variables).map_err(at(source_ports.1))?,
        Addresses::parse(to.0, variables).map_err(at(to.1))?,
        Ports::parse(to_ports.0, variables).map_err(at(to_ports.1))?,
    );
    Ok(Builder::new(action_found, protocol_found, arrow_found, ends))
}

fn find<T: Copy>(field: &str, word: &str, known: &[(&str, T)]) -> Result<T, Fault> {
    let wrong = || {
        Fault::new(field, format!("`{word}` is not known"))
            .or_nearest(word, known.iter().map(|(name, _)| *name))
    };
    known.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, value)| *value).ok_or_else(wrong)
}

fn find_protocol(word: &str) -> Result<Protocol, Fault> {
    let lower = word.to_ascii_lowercase();
    if let Some(name) =
        Application::names().find(|name| *name == lower && !matches!(*name, "unknown" | "failed"))
    {
        return Ok(Protocol::App(name));
    }
    find("protocol", word, PROTOCOLS).map_err(|fault| {
        let known = PROTOCOLS.iter().map(|(name, _)| *name).chain(Application::names());
        Fault::new("protocol", fault.reason).or_nearest(word, known)
    })
}
