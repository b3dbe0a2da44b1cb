//! EVE JSON: one object a line, for machines.

use super::{Done, Flow, Kind, Record, eve_time, protocol_name};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The line of a record, without its end.
pub fn line(record: &Record<'_>) -> String {
    Value::Object(object(record)).to_string()
}

fn object(record: &Record<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| {
        fields.insert(name.into(), value);
    };
    set("timestamp", eve_time(record.time_ns).into());
    set("event_type", record.kind.name().into());
    if record.kind == Kind::Stats {
        if let Some((name, value)) = &record.more {
            set(name, value.clone());
        }
        return fields;
    }
    if let Some(id) = record.flow_id {
        set("flow_id", id.into());
    }
    if let Some(interface) = record.interface {
        set("in_iface", interface.into());
    }
    if !record.vlans.is_empty() {
        set("vlan", record.vlans.into());
    }
    set("src_ip", record.source.to_string().into());
    set("dest_ip", record.destination.to_string().into());
    if let Some(port) = record.source_port {
        set("src_port", port.into());
    }
    if let Some(port) = record.destination_port {
        set("dest_port", port.into());
    }
    set("proto", protocol_name(record.protocol).into());
    set("ip_v", if matches!(record.source, IpAddr::V4(_)) { 4 } else { 6 }.into());
    if let Some((kind, code)) = record.icmp {
        set("icmp_type", kind.into());
        set("icmp_code", code.into());
    }
    set("pkt_src", record.packet_source.into());
    if let Some(id) = record.transaction {
        set("tx_id", id.into());
    }
    if record.matched.is_some() {
        set("alert", alert(record));
    }
    if let Some(name) = record.app_protocol {
        set("app_proto", name.into());
    }
    if let Some(to_server) = record.to_server {
        set("direction", if to_server { "to_server" } else { "to_client" }.into());
    }
    if let Some(numbers) = &record.flow {
        set("flow", flow(numbers, record));
    }
    if let Some((name, metadata)) = record.metadata.as_ref().filter(|(_, fields)| !fields.is_empty()) {
        let mut metadata = metadata.clone();
        // Tools look for HTTP/2 where HTTP is, and for DNS over it where DNS is.
        let name = if matches!(*name, "http2" | "doh2") {
            if let Some(dns) = metadata.remove("dns") {
                set("dns", dns);
            }
            "http"
        } else {
            name
        };
        set(name, metadata.into());
    }
    if let Some((name, value)) = &record.more {
        set(name, value.clone());
    }
    fields
}

fn alert(record: &Record<'_>) -> Value {
    let Some(matched) = &record.matched else { return Value::Null };
    let action = if matched.done == Done::Blocked { "blocked" } else { "allowed" };
    let mut fields = json!({
        "action": action,
        "gid": matched.gid,
        "signature_id": matched.sid,
        "rev": matched.rev,
        "signature": matched.message,
        "category": matched.category,
        "severity": matched.severity,
    });
    let mut metadata: Map<String, Value> = Map::new();
    for (key, value) in matched.metadata {
        if let Some(list) = metadata.entry(key.as_str()).or_insert_with(|| json!([])).as_array_mut() {
            list.push(value.as_str().into());
        }
    }
    if !metadata.is_empty() {
        fields["metadata"] = metadata.into();
    }
    fields
}

/// A flow's numbers. In an alert, its ends stand with them, the client first, whoever sent the packet.
fn flow(flow: &Flow, record: &Record<'_>) -> Value {
    let mut fields = json!({
        "pkts_toserver": flow.packets[0],
        "pkts_toclient": flow.packets[1],
        "bytes_toserver": flow.bytes[0],
        "bytes_toclient": flow.bytes[1],
        "start": eve_time(flow.start_ns),
    });
    match flow.end_ns {
        Some(end) => {
            fields["end"] = eve_time(end).into();
            fields["age"] = (end.saturating_sub(flow.start_ns) / 1_000_000_000).into();
            fields["alerted"] = flow.alerted.into();
            if let Some(state) = flow.state {
                fields["state"] = state.into();
            }
        }
        None => {
            let ends = [
                (record.source.to_string(), record.source_port),
                (record.destination.to_string(), record.destination_port),
            ];
            let (client, server) = if record.to_server == Some(false) { (1, 0) } else { (0, 1) };
            fields["src_ip"] = ends[client].0.clone().into();
            fields["dest_ip"] = ends[server].0.clone().into();
            if let (Some(from), Some(to)) = (ends[client].1, ends[server].1) {
                fields["src_port"] = from.into();
                fields["dest_port"] = to.into();
            }
        }
    }
    fields
}
