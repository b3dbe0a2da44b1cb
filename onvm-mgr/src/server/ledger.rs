//! Statistics as one JSON value, from which the tables are made too, and the ledger at the end.

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use onvm_lib::node::Counter;
use onvm_lib::packet::DropReason;
use serde_json::{Map, Value, json};

use super::Server;
use super::instances::Instance;
use crate::ports::Rest;
use crate::tables;
use crate::worker::{AuditReport, Command, Totals};

/// How long the worker may take for the last answers.
const LAST_ANSWER: Duration = Duration::from_secs(5);

impl Server {
    /// Everything that is counted, as JSON.
    pub(super) fn stats_body(&self, totals: &Totals) -> Value {
        let ports: Vec<Value> =
            totals.ports.iter().enumerate().map(|(number, totals)| Self::port_body(number, totals)).collect();
        let drops: Map<String, Value> =
            totals.drops.iter().map(|(reason, n)| (reason.name().to_string(), json!(n))).collect();
        let pushed_back =
            totals.drops.iter().filter(|(r, _)| *r == DropReason::Backpressure).map(|(_, n)| n).sum::<u64>();
        let instances: Vec<Value> =
            self.instances.iter().map(|(id, i)| self.instance_body(*id, i, totals)).collect();
        json!({
            "phase": self.phase.name(),
            "uptime_s": self.started.elapsed().as_secs_f64(),
            "ports": ports,
            "chain": self.default_chain(),
            "chains": self.plan.chains,
            "default_chain": self.plan.default_chain,
            "rules": self.plan.rules.len(),
            "services": self.services_body(totals),
            "instances": instances,
            "departed": self.departed,
            "fair": self.measures.fair.means(),
            "direct_edges": self.edges.count(),
            "packets": {
                "received": totals.received,
                "generated": totals.generated,
                "copied": totals.copied,
                "sent": totals.sent,
                "dropped": totals.drops.iter().map(|(_, n)| n).sum::<u64>(),
            },
            "drops": drops,
            "backpressure": {
                "at_entry": totals.at_entry,
                "wasted": pushed_back.saturating_sub(totals.at_entry),
            },
            "bad_descriptors": totals.bad_descriptors,
            "receiving": totals.receiving,
            "pool": {
                "buffers": totals.buffers,
                "free": totals.free,
                "buffer_bytes": self.geometry.packet_room(),
                "pages": self.pool.region().pages(),
            },
        })
    }

    pub(super) fn instance_body(&self, id: u32, instance: &Instance, totals: &Totals) -> Value {
        let counters = instance.page.counters();
        let count = |counter| counters.get(counter);
        let drops: Map<String, Value> = DropReason::ALL
            .iter()
            .filter(|r| counters.drops(**r) > 0)
            .map(|r| (r.name().to_string(), json!(counters.drops(*r))))
            .collect();
        let load = self.measures.load(id);
        let worker = totals.nodes.iter().find(|(node, _)| *node == id).map(|(_, t)| *t).unwrap_or_default();
        json!({
            "instance": id,
            "service": instance.service(),
            "name": instance.hello.name,
            "pid": instance.pid.map(|p| p.as_raw_nonzero().get()),
            "state": instance.life.state().name(),
            "role": instance.role.name(),
            "core": instance.core,
            "isolated": instance.isolated,
            "reads_only": instance.hello.reads_only,
            "destination": instance.hello.destination,
            "uptime_s": instance.joined.elapsed().as_secs_f64(),
            "received": count(Counter::Received),
            "next": count(Counter::Next),
            "to_service": count(Counter::ToService),
            "out": count(Counter::Out),
            "dropped": count(Counter::Dropped),
            "made": count(Counter::Made),
            "mirrored": count(Counter::Mirrored),
            "drops": drops,
            "bad_descriptors_seen": count(Counter::BadDescriptors),
            "waits": count(Counter::Waits),
            "sleeps": count(Counter::Sleeps),
            "rate_pps": load.rate_pps.round(),
            "cost_ns": load.cost_ns.round(),
            "busy": load.busy,
            "queue": load.queue,
            "cpu_share": self.measures.fair.set_for(id),
            "by_relay": worker,
            "report": instance.report,
        })
    }

    fn services_body(&self, totals: &Totals) -> Vec<Value> {
        let parked = |service| totals.parked.iter().find(|(s, _)| *s == service).map_or(0, |(_, n)| *n);
        let mut ids: Vec<u16> = self.services.keys().copied().collect();
        ids.extend(self.plan.chains.values().flatten().copied());
        ids.extend(totals.parked.iter().map(|(s, _)| *s));
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
            .map(|id| {
                let members = self.instances.values().filter(|i| i.service() == id);
                let sum = |counter| {
                    members.clone().fold(0u64, |sum, i| sum.wrapping_add(i.page.counters().get(counter)))
                };
                let mut by_state: Map<String, Value> = Map::new();
                for member in members.clone() {
                    let n = by_state.entry(member.life.state().name()).or_insert(json!(0));
                    *n = json!(n.as_u64().unwrap_or(0) + 1);
                }
                let plan = self.plan.services.get(&id);
                json!({
                    "service": id,
                    "name": plan.map(|s| s.name.as_str()).filter(|name| !name.is_empty()),
                    "policy": plan.map(|s| s.policy),
                    "instances": members.clone().count(),
                    "by_state": by_state,
                    "received": sum(Counter::Received),
                    "dropped": sum(Counter::Dropped),
                    "waiting": parked(id),
                    "turned_away": self.worker.turned_away.of(id),
                })
            })
            .collect()
    }

    /// Prints statistics, as a table or as a line of JSON.
    pub(super) fn print(&self, body: &Value) {
        let text = if self.options.json { body.to_string() } else { tables::stats(body) };
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
            log::debug!("cannot print statistics: {error}");
        }
    }

    /// Prints the ledger at the end; true if both sums balance.
    pub(super) fn print_ledger(&mut self) -> bool {
        let (sender, reply) = channel();
        self.worker.give(Command::Audit { reply: sender });
        let audit: Option<AuditReport> = reply.recv_timeout(LAST_ANSWER).ok();
        // Captures count what their threads have written: these end first.
        let (sender, reply) = channel();
        self.worker.give(Command::FinishCaptures { reply: sender });
        reply.recv_timeout(LAST_ANSWER).unwrap_or_default().into_iter().for_each(Rest::write);
        let (sender, reply) = channel();
        self.worker.give(Command::Totals { reply: sender });
        let totals = reply.recv_timeout(LAST_ANSWER).ok();
        let (Some(audit), Some(totals)) = (audit, totals) else {
            log::error!("the worker does not answer: there is no ledger");
            return false;
        };
        let mut body = self.stats_body(&totals);
        body["audit"] = serde_json::to_value(&audit).unwrap_or_default();
        self.print(&body);
        audit.packets.balances && audit.pool.balances
    }
}
