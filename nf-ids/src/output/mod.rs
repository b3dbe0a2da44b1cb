//! Alerts and events for people and machines: EVE JSON, fast.log.
//!
//! A [`Record`] is what is told, whatever made it; [`eve`] and [`fast`] write it as a line, in the forms that Suricata's
//! users' tools read; [`Writer`] brings lines to a file. Writing never stops the packet path: what finds no room, on a full
//! disk or a broken pipe, is counted and given up.

pub mod anomaly;
mod beside;
pub mod dropped;
pub mod eve;
pub mod fast;
pub mod fileinfo;
mod time;
mod writer;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use std::net::IpAddr;
pub use time::{eve_time, fast_time};
pub use writer::{Target, Writer};

/// What kinds of events there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A rule matched.
    Alert,
    /// A transaction of HTTP is complete.
    Http,
    /// A DNS message.
    Dns,
    /// A TLS handshake.
    Tls,
    /// An SSH handshake.
    Ssh,
    /// A transaction of another protocol.
    Other(&'static str),
    /// A file that a transaction carried.
    FileInfo,
    /// A packet went no further.
    Drop,
    /// A flow has ended.
    Flow,
    /// Something is wrong in a packet, stream or protocol.
    Anomaly,
    /// Counters.
    Stats,
}

/// The kinds that a user can ask for.
const KINDS: &[(Kind, &str)] = &[
    (Kind::Alert, "alert"),
    (Kind::Http, "http"),
    (Kind::Dns, "dns"),
    (Kind::Tls, "tls"),
    (Kind::Ssh, "ssh"),
    (Kind::FileInfo, "fileinfo"),
    (Kind::Drop, "drop"),
    (Kind::Flow, "flow"),
    (Kind::Anomaly, "anomaly"),
    (Kind::Stats, "stats"),
];

impl Kind {
    /// EVE's `event_type`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Other(name) => name,
            _ => KINDS.iter().find(|(kind, _)| *kind == self).map_or("other", |(_, name)| name),
        }
    }

    /// The names that `--eve-types` knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|(_, name)| *name)
    }

    /// The kind of transactions of a protocol.
    pub fn of_protocol(name: &'static str) -> Kind {
        let name = if matches!(name, "http2" | "doh2") { "http" } else { name };
        KINDS.iter().find(|(_, word)| *word == name).map_or(Kind::Other(name), |(kind, _)| *kind)
    }
}

/// Which kinds are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(Vec<Kind>);

impl Default for Kinds {
    fn default() -> Self {
        Kinds(vec![Kind::Alert])
    }
}

impl Kinds {
    /// Of a list, `alert,http,dns`; `all` is every kind.
    ///
    /// # Errors
    /// A word that is none, with what is known.
    pub fn parse(list: &str) -> Result<Kinds, String> {
        let mut kinds = Vec::new();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word == "all" {
                kinds.extend(KINDS.iter().map(|(kind, _)| *kind));
                continue;
            }
            match KINDS.iter().find(|(_, name)| *name == word) {
                Some((kind, _)) => kinds.push(*kind),
                None => {
                    let known: Vec<_> = Kind::names().collect();
                    return Err(format!("event type {word:?} is none of all, {}", known.join(", ")));
                }
            }
        }
        Ok(Kinds(kinds))
    }

    /// Whether a kind is written. Protocols without a kind of their own go with `all`.
    pub fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Other(_) => self.0.len() >= KINDS.len(),
            _ => self.0.contains(&kind),
        }
    }
}

/// What was done with a packet that a rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It goes on.
    Allowed,
    /// It was dropped, inline.
    Blocked,
    /// It would have been dropped, inline.
    WouldBlock,
}

/// The rule that matched.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// What was done.
    pub done: Done,
    /// Generator.
    pub gid: u32,
    /// Number.
    pub sid: u32,
    /// Revision.
    pub rev: u32,
    /// Message.
    pub message: &'a str,
    /// The class' description; empty when the rule has none.
    pub category: &'a str,
    /// Priority, 1 is the gravest.
    pub severity: u32,
    /// The rule's metadata: keys and values, in the rule's order.
    pub metadata: &'a [(String, String)],
}

/// The numbers of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Packets to the server and to the client.
    pub packets: [u64; 2],
    /// Bytes of frames to the server and to the client.
    pub bytes: [u64; 2],
    /// Time of the first packet, nanoseconds since 1970.
    pub start_ns: u64,
    /// Time of the last; only told when the flow has ended.
    pub end_ns: Option<u64>,
    /// `new`, `established` or `closed`; only told when the flow has ended.
    pub state: Option<&'static str>,
    /// Whether a rule matched in it.
    pub alerted: bool,
}

/// One line's content.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Time of the packet, nanoseconds since 1970.
    pub time_ns: u64,
    /// What is told.
    pub kind: Kind,
    /// The flow's number; the same in all lines of a flow.
    pub flow_id: Option<u64>,
    /// The interface or port that the packet came by.
    pub interface: Option<&'a str>,
    /// VLANs, outermost first.
    pub vlans: &'a [u16],
    /// Source of the packet; for transactions and flows, the client.
    pub source: IpAddr,
    /// Its port, with protocols that have ports.
    pub source_port: Option<u16>,
    /// Destination.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: Option<u16>,
    /// IP protocol.
    pub protocol: u8,
    /// ICMP's type and code.
    pub icmp: Option<(u8, u8)>,
    /// Where the packet is from: `wire/pcap`, `stream (flow timeout)`, `defrag`, …
    pub packet_source: &'static str,
    /// The transaction.
    pub transaction: Option<u64>,
    /// Application protocol, as EVE names it.
    pub app_protocol: Option<&'static str>,
    /// The packet travels to the server.
    pub to_server: Option<bool>,
    /// The rule, of an alert.
    pub matched: Option<Matched<'a>>,
    /// The flow.
    pub flow: Option<Flow>,
    /// Fields of the application protocol, under its name.
    pub metadata: Option<(&'static str, Map<String, Value>)>,
    /// Further fields, as counters or what an anomaly is.
    pub more: Option<(&'static str, Value)>,
}

impl<'a> Record<'a> {
    /// With what every record has.
    pub fn new(kind: Kind, time_ns: u64, source: IpAddr, destination: IpAddr, protocol: u8) -> Record<'a> {
        Record {
            time_ns,
            kind,
            flow_id: None,
            interface: None,
            vlans: &[],
            source,
            source_port: None,
            destination,
            destination_port: None,
            protocol,
            icmp: None,
            packet_source: "wire/pcap",
            transaction: None,
            app_protocol: None,
            to_server: None,
            matched: None,
            flow: None,
            metadata: None,
            more: None,
        }
    }
}

/// The name of an IP protocol (IANA's keywords); none of those that are rare.
pub(crate) fn known_protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPv4",
        6 => "TCP",
        8 => "EGP",
        17 => "UDP",
        33 => "DCCP",
        41 => "IPv6",
        43 => "IPv6-Route",
        44 => "IPv6-Frag",
        46 => "RSVP",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "IPv6-ICMP",
        59 => "IPv6-NoNxt",
        60 => "IPv6-Opts",
        88 => "EIGRP",
        89 => "OSPFIGP",
        97 => "ETHERIP",
        103 => "PIM",
        112 => "VRRP",
        115 => "L2TP",
        132 => "SCTP",
        _ => return None,
    })
}

/// The name of an IP protocol as EVE writes it.
pub(crate) fn protocol_name(number: u8) -> String {
    known_protocol(number).map_or_else(|| format!("{number:03}"), str::to_string)
}
