//! What the balancer says of itself: services, backends, what was dropped and why, and what happened last.

use onvm_lib::prelude::Report;
use onvm_lib::reload::Status;
use serde_json::{Value, json};

use crate::balancer::Balancer;
use crate::servers::Server;
use crate::services::Running;

/// The report; `reload` is how reading the file went.
pub(crate) fn of(balancer: &Balancer, reload: Option<&Status>) -> Report {
    let mut text = String::new();
    let mut services = Vec::new();
    // Packets wait for a report: each server is looked at once.
    let mut leaving: Vec<Vec<u32>> = vec![Vec::new(); balancer.services.len()];
    let mut open: u64 = 0;
    for (slot, server) in balancer.servers.iter() {
        open += u64::from(server.open);
        if server.leaving
            && let Some(of) = server.index.and_then(|index| leaving.get_mut(index))
        {
            of.push(slot);
        }
    }
    for (service, leaving) in balancer.services.iter().zip(leaving) {
        text.push_str(&heading(service));
        let members = service.members.iter().copied();
        let mut backends = Vec::new();
        for server in members.chain(leaving).filter_map(|slot| balancer.servers.get(slot)) {
            text.push_str(&line(server));
            backends.push(value(server));
        }
        let config = &service.config;
        services.push(json!({
            "name": config.name,
            "address": config.address.to_string(),
            "open": service.open,
            "counts": service.counts,
            "backends": backends,
        }));
    }
    let counts = &balancer.counts;
    text.push_str(&format!(
        "{} packets, {} of no service, {} answered; dropped: {} strays, {} to no service, {} malformed, {} lost \
         fragments, {} unsupported",
        counts.packets,
        counts.other,
        counts.answered,
        counts.strays,
        counts.no_service,
        counts.malformed,
        counts.lost_fragments,
        counts.unsupported
    ));
    let overlay = &balancer.overlay;
    let said: Vec<Value> =
        balancer.all_said().iter().map(|said| json!({ "topic": said.topic, "body": said.body })).collect();
    if !said.is_empty() {
        text.push_str(&format!("\nby command: {} changes beside the file", said.len()));
    }
    if let Some(error) = overlay.last_error.as_ref() {
        text.push_str(&format!("\ncommands refused: {}, the last one: {error}", overlay.refused));
    }
    if let Some(error) = reload.and_then(|status| status.last_error.as_ref()) {
        text.push_str(&format!("\nthe file as it is now was not taken:\n{error}"));
    }
    let history: Vec<Value> =
        balancer.history.iter().map(|(at_ns, what)| json!({ "at_ns": at_ns, "what": what })).collect();
    let json = json!({
        "services": services,
        "packets": counts,
        "connections": {
            "open": open,
            "flows": balancer.connections.table.len(),
            "room": balancer.connections.table.capacity(),
        },
        "source_ports_in_use": balancer.source_ports.in_use(),
        "sticky_clients": balancer.clients.len(),
        "datagrams_in_fragments": balancer.fragments.len(),
        "commands": {
            "in_force": said,
            "accepted": overlay.accepted,
            "refused": overlay.refused,
            "last_error": overlay.last_error,
        },
        "reload": reload,
        "history": history,
    });
    Report::new(text, &json)
}

fn heading(service: &Running) -> String {
    let counts = &service.counts;
    let mut line = format!(
        "{} {}: {} connections, {} open",
        service.config.name, service.config.address, counts.connections, service.open
    );
    for (count, what) in [
        (counts.adopted, "adopted"),
        (counts.sticky, "sticky"),
        (counts.no_backend, "packets dropped without a backend"),
        (counts.full, "dropped because all are full"),
        (counts.ports_exhausted, "dropped without a source port"),
        (counts.table_full, "dropped without room in the table"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    line.push('\n');
    line
}

fn line(server: &Server) -> String {
    let counts = &server.counts;
    let port = server.backend.port.map_or(String::new(), |port| format!(" port {port}"));
    format!(
        "  {:<12} {:<10} {}{port} weight {}: {} connections, {} open, to it {} packets {} bytes, from it {} packets {} bytes\n",
        server.backend.name,
        server.word(),
        server.backend.address,
        server.backend.weight,
        counts.connections,
        server.open,
        counts.packets_to,
        counts.bytes_to,
        counts.packets_from,
        counts.bytes_from,
    )
}

fn value(server: &Server) -> Value {
    json!({
        "name": server.backend.name,
        "address": server.backend.address,
        "port": server.backend.port,
        "weight": server.backend.weight,
        "state": server.word(),
        "mac": server.mac.map(|mac| mac.to_string()),
        "open": server.open,
        "counts": server.counts,
    })
}
