//! What a successor takes over: connections, clients, what was said by command, who is well, and all counts.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use onvm_lib::wire::FlowKey;
use serde::{Deserialize, Serialize};

use crate::balancer::{Balancer, Counts};
use crate::clients::Place;
use crate::commands::Said;
use crate::connections::{Carry, Flow, ends};
use crate::servers::{Checked, Server, Servers};
use crate::services::ServiceCounts;
use crate::source_ports::Scope;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ServerState {
    service: String,
    name: String,
    address: IpAddr,
    port: Option<u16>,
    slot: u32,
    checked: Checked,
    up_since_ns: u64,
    mac: Option<[u8; 6]>,
    counts: crate::servers::Counts,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FlowState {
    place: u32,
    hash: u32,
    key: FlowKey,
    flow: Flow,
}

/// The state of a balancer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    said: Vec<Said>,
    servers: Vec<ServerState>,
    services: Vec<(String, ServiceCounts)>,
    counts: Counts,
    flows: Vec<FlowState>,
    clients: Vec<(String, IpAddr, u32, u64)>,
}

impl State {
    /// The state of this one.
    #[must_use]
    pub fn of(balancer: &Balancer) -> Self {
        let server = |(slot, server): (u32, &Server)| ServerState {
            service: server.service.clone(),
            name: server.backend.name.clone(),
            address: server.backend.address,
            port: server.backend.port,
            slot,
            checked: server.checked,
            up_since_ns: server.up_since_ns,
            mac: server.mac.map(|mac| mac.0),
            counts: server.counts,
        };
        let names: HashMap<u32, &str> =
            balancer.services.iter().map(|service| (service.id, service.config.name.as_str())).collect();
        // Of a backend that is gone nobody is a client.
        let lives =
            |place: &Place| balancer.servers.get(place.slot).is_some_and(|server| server.id == place.id);
        Self {
            said: balancer.all_said(),
            servers: balancer.servers.iter().map(server).collect(),
            services: balancer.services.iter().map(|s| (s.config.name.clone(), s.counts)).collect(),
            counts: balancer.counts,
            flows: balancer
                .connections
                .table
                .placed()
                .map(|flow| FlowState {
                    place: flow.place,
                    hash: flow.hash,
                    key: *flow.key,
                    flow: *flow.value,
                })
                .collect(),
            clients: balancer
                .clients
                .iter()
                .filter(|(_, _, place, _)| lives(place))
                .filter_map(|(service, ip, place, at_ns)| {
                    Some(((*names.get(&service)?).to_string(), ip, place.slot, at_ns))
                })
                .collect(),
        }
    }

    /// Gives the state to a balancer that has not worked yet. What the file of the successor no longer has leaves, as
    /// after a reload.
    ///
    /// # Errors
    /// The balancer has worked, or the state contradicts itself; nothing was changed then.
    pub fn restore(self, balancer: &mut Balancer, now_ns: u64) -> Result<(), String> {
        if balancer.counts.packets > 0 || !balancer.connections.table.is_empty() {
            return Err(format!("{} packets have come here already", balancer.counts.packets));
        }
        let known: HashSet<u32> = self.servers.iter().map(|server| server.slot).collect();
        if let Some(flow) =
            self.flows.iter().find(|flow| !known.contains(&flow.flow.server) || ends(&flow.key).is_none())
        {
            return Err(format!("its connection {} is one of no backend", flow.key));
        }
        for said in &self.said {
            if let Err(reason) = balancer.obey(&said.topic, &said.body) {
                log::warn!(
                    "what was said by command is not taken over: {} {}: {reason}",
                    said.topic,
                    said.body
                );
            }
        }
        balancer.reconcile(now_ns);
        let slots = self.take_servers(balancer, now_ns);
        let slot_of = |old: u32| slots.get(&old).copied();
        let services: HashMap<String, usize> =
            (0..).zip(&balancer.services).map(|(n, service)| (service.config.name.clone(), n)).collect();
        for (name, counts) in &self.services {
            if let Some(index) = services.get(name) {
                balancer.services[*index].counts = *counts;
            }
        }
        balancer.counts = self.counts;
        for (name, ip, slot, at_ns) in &self.clients {
            let service = services.get(name).map(|index| balancer.services[*index].id);
            let place =
                slot_of(*slot).and_then(|slot| Some(Place { slot, id: balancer.servers.get(slot)?.id }));
            if let (Some(service), Some(place)) = (service, place) {
                balancer.clients.note(service, *ip, place, *at_ns);
            }
        }
        for FlowState { place, hash, key, flow } in self.flows {
            let Some(server) = slot_of(flow.server) else { continue };
            let flow = Flow { server, ..flow };
            // In a smaller table some find no place: their other half is then not found, and goes with time.
            if balancer.connections.table.put_back(place, hash, key, flow).is_ok()
                && flow.carry != Carry::Back
            {
                balancer.count_in(&key, &flow);
            }
        }
        balancer.reconcile(now_ns);
        Ok(())
    }

    /// Finds or makes the servers of the state; their old and new slots.
    fn take_servers(&self, balancer: &mut Balancer, now_ns: u64) -> HashMap<u32, u32> {
        let mut slots = HashMap::new();
        let by_name = balancer.servers.by_name();
        for state in &self.servers {
            let same = |server: &Server| {
                let backend = &server.backend;
                (&server.service, &backend.name, backend.address, backend.port)
                    == (&state.service, &state.name, state.address, state.port)
            };
            let named = by_name.get(&Servers::name_hash(&state.service, &state.name)).into_iter().flatten();
            let found = named.copied().find(|slot| balancer.servers.get(*slot).is_some_and(same));
            let slot = found.unwrap_or_else(|| {
                let backend = crate::config::Backend {
                    name: state.name.clone(),
                    address: state.address,
                    port: state.port,
                    weight: 0,
                    mac: state.mac.map(onvm_lib::wire::MacAddr),
                    next_hop: None,
                    max_connections: None,
                    drain: true,
                };
                balancer.servers.add(Server::new(&state.service, &backend, balancer.gear.mac.is_some()))
            });
            if let Some(server) = balancer.servers.get_mut(slot) {
                server.counts = state.counts;
                server.up_since_ns = state.up_since_ns;
                let checks =
                    server.index.and_then(|index| balancer.services[index].config.health.as_ref()).is_some();
                server.checked = if checks { state.checked } else { Checked::NotYet };
            }
            if let (Some(server), Some(mac)) = (balancer.servers.get(slot), state.mac) {
                let hop = server.backend.neighbour();
                balancer.neighbours.learn(hop, onvm_lib::wire::MacAddr(mac), now_ns);
            }
            slots.insert(state.slot, slot);
        }
        slots
    }
}

impl Balancer {
    /// Counts a connection that is there already.
    fn count_in(&mut self, key: &FlowKey, flow: &Flow) {
        if let Some(server) = self.servers.get_mut(flow.server) {
            server.open += 1;
        }
        let source = ends(key).map(|(source, _)| source);
        if flow.carry == Carry::Nat && source != Some(flow.source) {
            let protocol = key.protocol().unwrap_or(0);
            let scope = Scope { source: flow.source.ip, backend: flow.destination, protocol };
            self.source_ports.occupy(scope, flow.source.port);
        }
    }
}
