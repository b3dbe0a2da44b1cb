//! One worker's detection.

use std::sync::Arc;

use super::alert::{Alert, Decision, Outcome};
use super::bits::{HostBits, Whose};
use super::chain::Work;
use super::headers::{direction, has_spoken};
use super::pattern::Found;
use super::state::{Fate, FlowState};
use super::tables::Tables;
use super::threshold::{Counted, Said, Thresholds};
use crate::engine::Inspection;
use crate::rules::{Action, Kind};

/// Alerts of one packet; further ones are counted only. Suricata's default.
const MOST_ALERTS: usize = 15;

/// A rule that matched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match {
    pub(crate) rule: u32,
    pub(crate) transaction: Option<u64>,
    pub(crate) in_stream: bool,
}

/// What a search works with; reused from packet to packet.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) found: Found,
    pub(crate) candidates: Vec<u32>,
    pub(crate) matches: Vec<Match>,
    pub(crate) work: Work,
}

/// Detection of one worker: the shared tables, and what is counted and remembered beyond flows. Counts by host and by rule
/// are of this worker's packets.
#[derive(Debug)]
pub struct Detector {
    pub(crate) tables: Arc<Tables>,
    pub(crate) room: Room,
    thresholds: Thresholds,
    pub(crate) hosts: HostBits,
    hits: Vec<u64>,
    /// Alerts beyond those that a packet may have.
    pub discarded: u64,
}

/// What detection remembers of hosts and rules, for a successor: thresholds and bits.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    thresholds: Thresholds,
    hosts: HostBits,
}

impl Detector {
    /// What a successor has to know; what flows remember is with them.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory { thresholds: self.thresholds.clone(), hosts: self.hosts.clone() }
    }

    /// Goes on with what a predecessor remembers.
    pub fn remember(&mut self, memory: Memory) {
        self.thresholds = memory.thresholds;
        self.hosts = memory.hosts;
    }

    /// With compiled rules.
    #[must_use]
    pub fn new(tables: Arc<Tables>) -> Self {
        let hits = vec![0; tables.rules.len()];
        Detector {
            tables,
            room: Room::default(),
            thresholds: Thresholds::default(),
            hosts: HostBits::default(),
            hits,
            discarded: 0,
        }
    }

    /// Changes the rules, between two packets. Counts by host go on for rules that keep their numbers; hits begin
    /// anew, so that they are read before.
    pub fn replace(&mut self, tables: Arc<Tables>) {
        self.hits = vec![0; tables.rules.len()];
        self.tables = tables;
    }

    /// The rules in force.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// How often each rule matched, in the order of [`Tables::rules`].
    #[must_use]
    pub fn hits(&self) -> &[u64] {
        &self.hits
    }

    /// Whether any rule asks for the bytes of streams.
    #[must_use]
    pub fn wants_raw(&self) -> bool {
        self.tables.raw
    }

    /// Asks the rules about a packet. Alerts are appended.
    pub fn inspect(
        &mut self,
        seen: &Inspection<'_>,
        flow: Option<&mut FlowState>,
        alerts: &mut Vec<Alert>,
    ) -> Outcome {
        let mut flow = flow;
        if let Some(flow) = flow.as_deref_mut() {
            flow.follow(self.tables.generation);
            match flow.fate {
                Fate::Passed => return Outcome { passed: true, for_flow: true, ..Outcome::default() },
                Fate::Dropped => {
                    return Outcome { decision: Decision::Drop, for_flow: true, passed: false };
                }
                Fate::Open => {}
            }
        }
        self.room.matches.clear();
        self.hosts.of_packet.clear();
        // One count up and down for a packet; workers share the counter.
        let tables = self.tables.clone();
        self.addresses(&tables, seen, flow.as_deref_mut());
        self.protocol(&tables, seen, flow.as_deref_mut());
        self.packet(&tables, seen, flow.as_deref_mut());
        if let Some(flow) = flow.as_deref_mut() {
            self.transactions(&tables, seen, flow);
        }
        if self.room.matches.is_empty() {
            return Outcome::default();
        }
        self.conclude(&tables, seen, flow, alerts)
    }

    /// Whom the bits of a packet are of.
    pub(crate) fn whose(seen: &Inspection<'_>, transaction: Option<u64>) -> Whose {
        let packet = seen.packet;
        Whose { source: packet.source, destination: packet.destination, now_ns: seen.now_ns, transaction }
    }

    /// What the matches of a packet come to: in order, each by its threshold, until one passes.
    fn conclude(
        &mut self,
        tables: &Tables,
        seen: &Inspection<'_>,
        mut flow: Option<&mut FlowState>,
        alerts: &mut Vec<Alert>,
    ) -> Outcome {
        let mut matches = std::mem::take(&mut self.room.matches);
        matches.sort_unstable_by_key(|m| (m.rule, m.transaction));
        let packet = seen.packet;
        let counted = Counted {
            source: packet.source,
            destination: packet.destination,
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            now_ns: seen.now_ns,
        };
        let mut outcome = Outcome::default();
        let mut said = 0;
        for m in &matches {
            let compiled = &tables.rules[m.rule as usize];
            let rule = &compiled.rule;
            let (says, action) = self.limit(compiled, &counted, flow.as_deref_mut());
            if says == Said::Nothing {
                continue;
            }
            self.hits[m.rule as usize] += 1;
            let for_flow = is_for_flow(rule.kind, m.in_stream);
            apply(action, for_flow, &mut outcome, flow.as_deref_mut());
            if says == Said::Alert && !rule.noalert {
                if said < MOST_ALERTS {
                    said += 1;
                    alerts.push(Alert {
                        rule: rule.clone(),
                        action,
                        transaction: m.transaction,
                        direction: direction(seen),
                        in_stream: m.in_stream,
                    });
                } else {
                    self.discarded += 1;
                }
            }
            if rule.bypass {
                apply(Action::Pass, true, &mut outcome, flow.as_deref_mut());
            }
            if action == Action::Pass {
                break;
            }
        }
        matches.clear();
        self.room.matches = matches;
        outcome
    }

    /// What filters and thresholds say of a match, and the action that is done.
    fn limit(
        &mut self,
        compiled: &super::compile::Compiled,
        counted: &Counted,
        flow: Option<&mut FlowState>,
    ) -> (Said, Action) {
        let (id, limits) = (compiled.id, &compiled.limits);
        let mut action = compiled.rule.action;
        if limits.is_empty() {
            return (Said::Alert, action);
        }
        if limits.suppress.iter().any(|list| list.covers(counted.source, counted.destination)) {
            return (Said::Silent, action);
        }
        let mut own = flow.map(|flow| &mut flow.thresholds);
        if let Some(filter) = &limits.filter
            && self.thresholds.filter(id, filter, counted, own.as_deref_mut()) == Said::Nothing
        {
            return (Said::Nothing, action);
        }
        for rate in &limits.rates {
            action = self.thresholds.rate(id, rate, counted, own.as_deref_mut()).unwrap_or(action);
        }
        match &limits.threshold {
            Some(t) => (self.thresholds.threshold(id, t, counted, own), action),
            None => (Said::Alert, action),
        }
    }

    /// Rules of addresses alone, on the first packet of each direction.
    fn addresses(&mut self, tables: &Tables, seen: &Inspection<'_>, flow: Option<&mut FlowState>) {
        if tables.addresses.is_empty() || seen.packet.pseudo {
            return;
        }
        let way = direction(seen).index();
        let mut flow = flow;
        if let Some(flow) = flow.as_deref_mut()
            && std::mem::replace(&mut flow.addresses_asked[way], true)
        {
            return;
        }
        for index in &tables.addresses {
            self.ask_simple(*index, tables, seen, flow.as_deref_mut());
        }
    }

    /// Rules of the protocol alone, once for each direction when it is known.
    fn protocol(&mut self, tables: &Tables, seen: &Inspection<'_>, flow: Option<&mut FlowState>) {
        let (Some(flow), Some(app)) = (flow, seen.app) else { return };
        let way = direction(seen).index();
        let known = app.protocol() != crate::app::Protocol::Unknown && has_spoken(seen, direction(seen));
        if tables.protocols.is_empty() || flow.protocol_asked[way] || !known {
            return;
        }
        flow.protocol_asked[way] = true;
        for index in &tables.protocols {
            self.ask_simple(*index, tables, seen, Some(&mut *flow));
        }
    }

    /// A rule without tests of bytes.
    fn ask_simple(
        &mut self,
        index: u32,
        tables: &Tables,
        seen: &Inspection<'_>,
        flow: Option<&mut FlowState>,
    ) {
        let compiled = &tables.rules[index as usize];
        if !super::gate::lets_by(compiled, seen) {
            return;
        }
        self.matched(index, compiled, seen, flow, None, false);
    }

    /// Notes a match if the bits are as asked, and does what the rule does with them.
    pub(crate) fn matched(
        &mut self,
        index: u32,
        compiled: &super::compile::Compiled,
        seen: &Inspection<'_>,
        mut flow: Option<&mut FlowState>,
        transaction: Option<u64>,
        in_stream: bool,
    ) -> bool {
        if !compiled.conditions.is_empty() || !compiled.actions.is_empty() {
            let whose = Self::whose(seen, transaction);
            if !self.hosts.hold(&compiled.conditions, flow.as_deref(), &whose) {
                return false;
            }
            self.hosts.act(&compiled.actions, flow.as_deref_mut(), &whose);
        }
        for kept in self.room.work.kept.drain(..) {
            match flow.as_deref_mut() {
                Some(flow) if kept.of_flow => flow.set_variable(kept.name, kept.bytes),
                _ if kept.of_flow => {}
                _ => self.hosts.of_packet.push((kept.name, kept.bytes)),
            }
        }
        self.room.matches.push(Match { rule: index, transaction, in_stream });
        true
    }
}

/// Whether a rule's action is for the whole flow.
fn is_for_flow(kind: Kind, in_stream: bool) -> bool {
    match kind {
        Kind::IpOnly | Kind::LikeIpOnly | Kind::ProtocolOnly | Kind::App | Kind::Transaction => true,
        Kind::Stream | Kind::PacketAndStream => in_stream,
        Kind::Packet | Kind::Decoder => false,
    }
}

fn apply(action: Action, for_flow: bool, outcome: &mut Outcome, flow: Option<&mut FlowState>) {
    let fate = match action {
        Action::Alert => return,
        Action::Pass => {
            outcome.passed = true;
            Fate::Passed
        }
        Action::Drop => {
            if outcome.decision == Decision::Accept {
                outcome.decision = Decision::Drop;
            }
            Fate::Dropped
        }
        Action::Reject(to) => {
            outcome.decision = Decision::Reject(to);
            Fate::Dropped
        }
    };
    if for_flow {
        outcome.for_flow = true;
        if let Some(flow) = flow.filter(|flow| flow.fate == Fate::Open) {
            flow.fate = fate;
        }
    }
}
