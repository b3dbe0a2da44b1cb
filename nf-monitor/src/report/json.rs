//! The report for machines.

use onvm_lib::wire::FlowKey;
use serde_json::{Value, json};

use super::{Picked, TopHost, TopSpreader, networks, sizes, transports};
use crate::application;
use crate::flow::{Keyed, State};
use crate::heavy::STANDARD_ERROR;
use crate::keys::Keys;
use crate::monitor::Monitor;
use crate::protocols::{Count, Protocols};
use crate::records::Outputs;

pub(super) fn of(monitor: &Monitor, picked: &Picked, outputs: &Outputs) -> Value {
    let (table, keys) = (&monitor.table, monitor.settings.keys);
    let (hosts, talks) = (&table.ended.hosts, &table.ended.talks);
    let mut facts = json!({
        "packets": monitor.protocols.all.packets,
        "bytes": monitor.protocols.all.bytes,
        "rate": monitor.rates.current(),
        "rate_overall": monitor.rates.overall(),
        "protocols": protocols_json(&monitor.protocols),
        "flows": {
            "active": table.len(),
            "seen": table.counts.seen,
            "seen_ip": table.counts.ip,
            "expired": table.counts.expired,
            "cut": table.counts.cut,
            "evicted": table.counts.evicted,
            "refused": table.counts.refused,
            "hosts_forgotten": hosts.replaced(),
            "keys": keys.name(),
        },
        "applications": picked.applications.iter().map(|(name, by, share)| json!({
            "application": name,
            "by": by,
            "flows": share.flows,
            "packets": share.traffic.packets,
            "bytes": share.traffic.bytes,
        })).collect::<Vec<_>>(),
        "top_flows": picked.flows.iter().map(|(known, over)| flow_json(known, *over, keys)).collect::<Vec<_>>(),
        "top_hosts": picked.hosts.iter().map(host_json).collect::<Vec<_>>(),
        "heavy_flows": picked.talks.iter().map(|talk| talk_json(talk, keys)).collect::<Vec<_>>(),
        "spreaders": picked.spreaders.iter().map(spreader_json).collect::<Vec<_>>(),
        "bounds": {
            "hosts": { "counters": hosts.capacity(), "error": hosts.error(), "replaced": hosts.replaced() },
            "heavy_flows": { "counters": talks.capacity(), "error": talks.error(), "replaced": talks.replaced() },
            "spreaders": {
                "sketches": table.spreaders.capacity(),
                "standard_error": STANDARD_ERROR,
                "error": table.spreaders.error(),
            },
        },
    });
    if let Some(exports) = exports_json(outputs) {
        facts["records"] = exports;
    }
    facts
}

/// What became of records; none if nobody wants any.
fn exports_json(outputs: &Outputs) -> Option<Value> {
    let all: Vec<Value> = outputs
        .iter()
        .map(|(to, tally, trouble)| {
            json!({
                "to": to,
                "messages": tally.messages,
                "records": tally.records,
                "packets": tally.packets,
                "octets": tally.octets,
                "lost": tally.lost,
                "unheard": tally.unheard,
                "error": trouble,
            })
        })
        .collect();
    let [flows, packets, bytes] = outputs.not_ip;
    let not_ip = json!({ "flows": flows, "packets": packets, "bytes": bytes });
    (!all.is_empty()).then(|| json!({ "flows": outputs.flows(), "not_exported": not_ip, "outputs": all }))
}

fn protocols_json(p: &Protocols) -> Value {
    let map = |counts: Vec<(String, Count)>| -> serde_json::Map<String, Value> {
        counts.into_iter().map(|(name, count)| (name, json!(count))).collect()
    };
    json!({
        "network": map(networks(p)),
        "transport": map(transports(p)),
        "sizes": sizes(p).map(|(class, n)| (class, n.into())).collect::<serde_json::Map<_, Value>>(),
        "vlan": p.vlan,
        "stacked_vlan": p.stacked_vlan,
        "fragments": p.fragments,
        "cut": p.cut,
        "malformed": p.malformed,
    })
}

fn flow_json(known: &Keyed, over: bool, keys: Keys) -> Value {
    let (key, flow) = (known.first_key(), &known.flow);
    let macs = key.macs();
    let address = |ip: Option<std::net::IpAddr>, mac: Option<String>| ip.map(|ip| ip.to_string()).or(mac);
    let found = application::of(flow.application, &key);
    json!({
        "flow": keys.text(&key),
        "src": address(key.src(), macs.map(|m| m.0.to_string())),
        "dst": address(key.dst(), macs.map(|m| m.1.to_string())),
        "src_port": key.src_port(),
        "dst_port": key.dst_port(),
        "protocol": key.protocol(),
        "there": flow.ways[0].count,
        "back": flow.ways[1].count,
        "first_ns": flow.first_ns,
        "last_ns": flow.last_ns,
        "tcp_state": flow.state().map(State::name),
        "tcp_flags": flow.state().map(|_| flow.flag_letters()),
        "application": found.map(|(known, _)| known.name),
        "application_by": found.map(|(_, by)| by.name()),
        "over": over,
    })
}

fn host_json((host, traffic, more): &TopHost) -> Value {
    json!({ "host": host.to_string(), "sent": traffic.sent, "received": traffic.received, "may_have_more": more })
}

fn talk_json((key, count, more): &(FlowKey, Count, u64), keys: Keys) -> Value {
    json!({
        "flow": keys.text(key),
        "packets": count.packets,
        "bytes": count.bytes,
        "may_have_more": more,
    })
}

fn spreader_json(spreader: &TopSpreader) -> Value {
    json!({
        "source": spreader.source.to_string(),
        "destinations": spreader.estimate,
        "may_be_others": spreader.inherited,
    })
}
