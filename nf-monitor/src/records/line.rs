//! A line for each finished flow: JSON or CSV, with the same fields in the same order.
//!
//! The fields are listed in the README; that list is stable: new ones come at the end.

use serde_json::{Value, json};

use crate::application;
use crate::flow::letters;
use crate::keys::Keys;
use crate::table::Finished;

/// How a flow is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Csv,
}

/// Names of the fields.
pub(crate) const FIELDS: [&str; 20] = [
    "start_ns",
    "end_ns",
    "src",
    "src_port",
    "dst",
    "dst_port",
    "protocol",
    "packets",
    "bytes",
    "octets",
    "back_packets",
    "back_bytes",
    "back_octets",
    "tcp_flags",
    "back_tcp_flags",
    "application",
    "application_by",
    "vlan",
    "tos",
    "end_reason",
];

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json-lines",
            Self::Csv => "csv",
        }
    }

    /// What stands in front of the first line.
    pub(crate) fn head(self) -> Option<Vec<u8>> {
        (self == Self::Csv).then(|| (FIELDS.join(",") + "\n").into_bytes())
    }

    /// Appends the line of a flow.
    pub(crate) fn write(self, over: &Finished, keys: Keys, out: &mut Vec<u8>) {
        let values = values(over, keys);
        match self {
            Self::Json => {
                for (n, (name, value)) in FIELDS.iter().zip(&values).enumerate() {
                    let before = if n == 0 { '{' } else { ',' };
                    out.extend(format!("{before}\"{name}\":{value}").bytes());
                }
                out.push(b'}');
            }
            Self::Csv => {
                for (n, value) in values.iter().enumerate() {
                    if n > 0 {
                        out.push(b',');
                    }
                    match value {
                        Value::Null => {}
                        // None of the words has a comma or a quotation mark.
                        Value::String(word) => out.extend(word.bytes()),
                        other => out.extend(other.to_string().bytes()),
                    }
                }
            }
        }
        out.push(b'\n');
    }
}

/// The values of the fields; null where a flow has none.
fn values(over: &Finished, keys: Keys) -> [Value; FIELDS.len()] {
    let flow = &over.flow;
    let key = flow.first_key(&over.key);
    let macs = key.macs();
    let address = |ip: Option<std::net::IpAddr>, mac: Option<String>| ip.map(|ip| ip.to_string()).or(mac);
    let [there, back] = flow.ways;
    // Of ICMP the identifier is no port; type and code stand where NetFlow has them.
    let portless = matches!(key.protocol(), Some(1 | 58)) && keys == Keys::Connection;
    let ports = (!portless && key.src().is_some()).then(|| (key.src_port(), key.dst_port()));
    let found = application::of(flow.application, &key);
    let flags = |way: &crate::flow::Direction| (key.protocol() == Some(6)).then(|| letters(way.flags()));
    [
        json!(flow.first_ns),
        json!(flow.last_ns),
        json!(address(key.src(), macs.map(|m| m.0.to_string()))),
        json!(ports.map(|p| p.0)),
        json!(address(key.dst(), macs.map(|m| m.1.to_string()))),
        json!(ports.map(|p| p.1)),
        json!(key.protocol()),
        json!(there.count.packets),
        json!(there.count.bytes),
        json!(there.octets),
        json!(back.count.packets),
        json!(back.count.bytes),
        json!(back.octets),
        json!(flags(&there)),
        json!(flags(&back)),
        json!(found.map(|(known, _)| known.name)),
        json!(found.map(|(_, by)| by.name())),
        json!((flow.origin.vlan > 0).then_some(flow.origin.vlan)),
        json!(key.src().map(|_| flow.origin.tos)),
        json!(over.reason.name()),
    ]
}
