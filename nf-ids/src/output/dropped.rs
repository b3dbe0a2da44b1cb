//! EVE's `drop`: a packet that went no further, with the fields of its headers, and why.
//!
//! ```text
//! {"event_type":"drop", …, "drop":{"len":60,"tos":0,"ttl":64,"ipid":7,"tcpseq":1,…,"reason":"rules"}, "alert":{…}}
//! ```
//! As Suricata tells it by default, that is the first of its flow: of those that follow nobody learns anything new.

use super::{Kind, Record};
use crate::decode::{Decoded, Transport, be16};
use serde_json::{Value, json};

/// Why a packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A rule said so.
    Rules,
    /// Its receiver would not take it.
    Stream,
}

/// What is said of a packet's headers.
pub fn of_packet(packet: &Decoded<'_>, why: Why) -> Value {
    let word = |header: &[u8], at: usize| be16(header, at).unwrap_or(0);
    let mut fields = json!({});
    if let Some(header) = packet.ipv4_header() {
        fields["len"] = word(header, 2).into();
    } else if let Some(header) = packet.ipv6_header() {
        fields["len"] = word(header, 4).into();
    }
    let numbers = [
        ("tos", packet.tos().map(u16::from)),
        ("ttl", packet.ttl().map(u16::from)),
        ("ipid", packet.ip_id()),
    ];
    for (name, value) in numbers {
        fields[name] = value.unwrap_or(0).into();
    }
    match packet.transport {
        Transport::Tcp(header) => {
            fields["tcpseq"] = packet.tcp_seq().into();
            fields["tcpack"] = packet.tcp_ack().into();
            fields["tcpwin"] = packet.tcp_window().into();
            let flags = packet.tcp_flags().unwrap_or(0);
            for (name, bit) in [("syn", 2), ("ack", 16), ("psh", 8), ("rst", 4), ("urg", 32), ("fin", 1)] {
                fields[name] = (flags & bit != 0).into();
            }
            fields["tcpres"] = header.get(12).map_or(0, |byte| byte & 0x0f).into();
            fields["tcpurgp"] = word(header, 18).into();
        }
        Transport::Udp(header) => fields["udplen"] = word(header, 4).into(),
        Transport::Icmp4(_) | Transport::Icmp6(_) => {
            let known = packet.icmp_fields.map(|fields| (fields.id, fields.sequence));
            if let Some((Some(id), Some(sequence))) = known {
                fields["icmp_id"] = id.into();
                fields["icmp_seq"] = sequence.into();
            }
        }
        _ => {}
    }
    fields["reason"] = match why {
        Why::Rules => "rules",
        Why::Stream => "stream error",
    }
    .into();
    fields
}

impl Record<'_> {
    /// Makes a packet's record one of its drop; the rule that dropped it stays with it.
    #[must_use]
    pub fn of_drop(mut self, what: Value) -> Self {
        self.kind = Kind::Drop;
        self.flow = None;
        self.metadata = None;
        self.more = Some(("drop", what));
        self
    }
}
