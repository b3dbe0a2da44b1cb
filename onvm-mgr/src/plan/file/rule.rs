//! One entry of `rules`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use onvm_lib::document::{Cursor, Table};
use onvm_lib::protocol::ServiceId;
use onvm_lib::wire::protocol_name;

use crate::plan::{Rule, has_ports};

const KEYS: &[&str] = &[
    "priority",
    "protocol",
    "source",
    "destination",
    "source-port",
    "destination-port",
    "input-port",
    "chain",
    "both-directions",
];

/// Chains by name.
pub(super) type Chains = BTreeMap<String, Vec<ServiceId>>;

/// The chain that a name in the file means.
pub(super) fn chain_named(name: &Cursor<'_>, chains: &Chains) -> Option<String> {
    let text = name.text()?;
    if chains.contains_key(text) {
        return Some(text.to_string());
    }
    let known: Vec<&str> = chains.keys().map(String::as_str).collect();
    name.unknown(text, &known, "a chain", "chains are named under `chains`");
    None
}

/// Reads a rule; what is wrong is reported. `ports` is the number of ports in the file, 0 if it has none.
pub(super) fn read(cursor: &Cursor<'_>, chains: &Chains, ports: usize) -> Option<Rule> {
    let table = cursor.table(KEYS)?;
    let rule = Rule {
        priority: table.get("priority").and_then(|c| c.number(i32::MIN..=i32::MAX)).unwrap_or(0),
        chain: table.need("chain").and_then(|c| chain_named(&c, chains)).unwrap_or_default(),
        source: prefixes(&table, "source"),
        destination: prefixes(&table, "destination"),
        source_port: port_ranges(&table, "source-port"),
        destination_port: port_ranges(&table, "destination-port"),
        protocol: table.get("protocol").and_then(|c| protocol(&c)),
        input_port: table.get("input-port").and_then(|c| input_port(&c, ports)),
        both_directions: table.get("both-directions").and_then(|c| c.boolean()).unwrap_or(false),
    };
    if let Some(protocol) = rule.protocol.filter(|p| !has_ports(*p)) {
        for port in ["source-port", "destination-port"].into_iter().filter_map(|key| table.get(key)) {
            let name = protocol_name(protocol).map_or_else(|| protocol.to_string(), str::to_string);
            port.error(format!("protocol {name} has no ports"));
        }
    }
    let families = |all: &[IpNet]| all.iter().map(|n| n.addr().is_ipv4()).collect::<Vec<bool>>();
    let (from, to) = (families(&rule.source), families(&rule.destination));
    if !from.is_empty() && !to.is_empty() && !from.iter().any(|family| to.contains(family)) {
        cursor.error("source and destination are of different IP versions: no packet matches");
    }
    Some(rule)
}

fn prefixes(table: &Table<'_>, key: &str) -> Vec<IpNet> {
    let all = table.get(key).map(|c| c.one_or_many()).unwrap_or_default();
    all.iter().filter_map(prefix).collect()
}

fn prefix(cursor: &Cursor<'_>) -> Option<IpNet> {
    let text = cursor.text()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.into());
    }
    let Ok(net) = text.parse::<IpNet>() else {
        cursor.error(format!("{text:?} is no prefix: it is like 10.0.0.0/8, 192.168.1.1 or fd00::/8"));
        return None;
    };
    if net != net.trunc() {
        cursor.warn(format!("{net} is the same as {}", net.trunc()));
    }
    Some(net.trunc())
}

fn port_ranges(table: &Table<'_>, key: &str) -> Vec<(u16, u16)> {
    let all = table.get(key).map(|c| c.one_or_many()).unwrap_or_default();
    all.iter().filter_map(port_range).collect()
}

fn port_range(cursor: &Cursor<'_>) -> Option<(u16, u16)> {
    let text = cursor.text()?;
    let Some((from, to)) = text.split_once('-').filter(|(from, _)| !from.is_empty()) else {
        return cursor.number(0..=u16::MAX).map(|port| (port, port));
    };
    match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
        (Ok(from), Ok(to)) if from <= to => Some((from, to)),
        (Ok(from), Ok(to)) => {
            cursor.error(format!("{from} is more than {to}: a range goes up"));
            None
        }
        _ => {
            cursor.error(format!("{text:?} is no range of ports: it is like 80 or 8000-8999, at most 65535"));
            None
        }
    }
}

fn protocol(cursor: &Cursor<'_>) -> Option<u8> {
    let text = cursor.text()?;
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return cursor.number(0..=u8::MAX);
    }
    if text == "icmpv6" {
        return Some(58);
    }
    let found = (0..=u8::MAX).find(|p| protocol_name(*p) == Some(text));
    if found.is_none() {
        let known: Vec<&str> = (0..=u8::MAX).filter_map(protocol_name).chain(["icmpv6"]).collect();
        cursor.unknown(
            text,
            &known,
            "a protocol",
            "it is a name like tcp, udp, icmp, icmpv6 or sctp, or 0..=255",
        );
    }
    found
}

fn input_port(cursor: &Cursor<'_>, ports: usize) -> Option<u8> {
    let port = cursor.number(0..=onvm_lib::ring::MAX_PORT)?;
    if ports > 0 && usize::from(port) >= ports {
        cursor.error(format!("there is no port {port}: ports are numbered from 0 to {}", ports - 1));
    }
    Some(port)
}
