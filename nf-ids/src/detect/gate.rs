//! What of a rule's header and `flow` keyword holds for a packet.

use crate::app::Protocol as Application;
use crate::decode::Decoded;
use crate::engine::Inspection;
use crate::flow::Direction;
use crate::rules::{Arrow, FlowTest, Protocol, Rule, Way, Ways};

use super::compile::Compiled;
use super::headers;

/// Whether a packet is one that the rule is about: protocol, direction, state of the flow, addresses, ports.
pub(crate) fn lets_by(compiled: &Compiled, seen: &Inspection<'_>) -> bool {
    let rule = &*compiled.rule;
    protocol(rule, seen.packet)
        && flow(rule, seen)
        && application(compiled, seen)
        && ends(rule, seen)
        && rule.headers.iter().all(|test| headers::holds(test, seen))
}

fn protocol(rule: &Rule, packet: &Decoded<'_>) -> bool {
    let number = packet.protocol;
    // A packet that stands for a flow has addresses, and no header.
    let v6 = packet.is_ipv6() || packet.pseudo && packet.source.is_ipv6();
    let v4 = packet.is_ipv4() || packet.pseudo && packet.source.is_ipv4();
    match rule.protocol {
        Protocol::PacketHeader => true,
        Protocol::Ip => v4 || v6,
        Protocol::Ipv4 => v4,
        Protocol::Ipv6 => v6,
        Protocol::Tcp | Protocol::TcpPacket | Protocol::TcpStream => number == Some(6),
        Protocol::Udp => number == Some(17),
        Protocol::Icmp => matches!(number, Some(1 | 58)),
        Protocol::Icmpv4 => number == Some(1),
        Protocol::Icmpv6 => number == Some(58),
        Protocol::Sctp => number == Some(132),
        Protocol::Number(wanted) => number == Some(wanted),
        Protocol::Arp => packet.ether_type == 0x0806,
        Protocol::App(_) => true,
    }
}

fn flow(rule: &Rule, seen: &Inspection<'_>) -> bool {
    let wanted = &rule.flow;
    let ways = rule.ways;
    let Some(flow) = seen.flow else { return without_flow(wanted, ways, fragment(seen)) };
    let way = match flow.direction {
        Direction::ToServer => ways.to_server,
        Direction::ToClient => ways.to_client,
    };
    way && wanted.established.is_none_or(|is| is == flow.established)
        && wanted.fragment.is_none_or(|f| f == fragment(seen))
}

/// A packet without a flow counts as one to the server. Beside a direction and `no_stream`, whatever `flow` says needs a
/// flow, as in Suricata.
fn without_flow(wanted: &FlowTest, ways: Ways, fragment: bool) -> bool {
    if wanted.no_stream {
        return wanted.way.is_none()
            && wanted.established != Some(true)
            && wanted.fragment.is_none_or(|wanted| wanted == fragment);
    }
    ways.to_server && *wanted == FlowTest { way: wanted.way, ..FlowTest::default() }
}

/// Whether a packet was put together of fragments.
fn fragment(seen: &Inspection<'_>) -> bool {
    seen.packet.defragmented
}

fn application(compiled: &Compiled, seen: &Inspection<'_>) -> bool {
    if compiled.applications.is_empty() {
        return true;
    }
    let known = seen.app.map_or(Application::Unknown, |app| app.protocol());
    compiled.applications.contains(&known)
        || compiled.is_of_transactions()
            && seen.app.is_some_and(|app| compiled.applications.contains(&app.original_protocol()))
}

/// Addresses and ports. A rule of a transaction is about its request from left to right.
pub(crate) fn ends(rule: &Rule, seen: &Inspection<'_>) -> bool {
    let packet = seen.packet;
    let straight = || {
        rule.source.contains(packet.source)
            && rule.destination.contains(packet.destination)
            && ports(rule, packet, packet.source_port, packet.destination_port)
    };
    let turned = || {
        rule.source.contains(packet.destination)
            && rule.destination.contains(packet.source)
            && ports(rule, packet, packet.destination_port, packet.source_port)
    };
    match rule.arrow {
        Arrow::Right => straight(),
        Arrow::Either => straight() || turned(),
        Arrow::Transaction => match headers::direction(seen) {
            Direction::ToServer => straight(),
            Direction::ToClient => turned(),
        },
    }
}

fn ports(rule: &Rule, packet: &Decoded<'_>, source: u16, destination: u16) -> bool {
    if rule.source_ports.is_any() && rule.destination_ports.is_any() {
        return true;
    }
    let has = matches!(packet.protocol, Some(6 | 17 | 132)) && packet.fragment.is_none();
    has && rule.source_ports.contains(source) && rule.destination_ports.contains(destination)
}

/// The direction of a section's way.
pub(crate) fn is_way(way: Way, direction: Direction) -> bool {
    (way == Way::ToServer) == (direction == Direction::ToServer)
}
