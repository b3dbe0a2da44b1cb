//! What is different between two plans, in words and for programs.

use std::collections::BTreeMap;
use std::fmt;

use onvm_lib::protocol::ServiceId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Plan, Rule, Service};

/// One difference. In JSON it has its kind in `change`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub(crate) enum Change {
    /// Other ports, in order of their numbers.
    Ports { from: Vec<String>, to: Vec<String> },
    /// A service that was not there.
    ServiceAdded { service: ServiceId, name: String },
    /// A service that is there no more.
    ServiceRemoved { service: ServiceId, name: String },
    /// A service that is otherwise than before.
    ServiceChanged { service: ServiceId, name: String, fields: Vec<FieldChange> },
    /// A chain that was not there.
    ChainAdded { chain: String, to: Vec<ServiceId> },
    /// A chain that is there no more.
    ChainRemoved { chain: String },
    /// A chain with other services, or in another order.
    ChainChanged { chain: String, from: Vec<ServiceId>, to: Vec<ServiceId> },
    /// A rule that was not there.
    RuleAdded { rule: Rule },
    /// A rule that is there no more.
    RuleRemoved { rule: Rule },
    /// The same rules in another order, so that another one may decide.
    RulesReordered,
    /// Another default chain.
    DefaultChain { from: Option<String>, to: Option<String> },
}

/// A field of a service that is otherwise than before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FieldChange {
    /// Its key in a chain file.
    pub(crate) field: String,
    pub(crate) from: Value,
    pub(crate) to: Value,
}

/// What must change to come from one plan to another: ports, services by id, chains by name, rules, the default chain.
pub(crate) fn difference(from: &Plan, to: &Plan) -> Vec<Change> {
    let mut changes = Vec::new();
    if from.ports != to.ports {
        changes.push(Change::Ports { from: from.ports.clone(), to: to.ports.clone() });
    }
    services(from, to, &mut changes);
    chains(&from.chains, &to.chains, &mut changes);
    rules(&from.rules, &to.rules, &mut changes);
    if from.default_chain != to.default_chain {
        let (from, to) = (from.default_chain.clone(), to.default_chain.clone());
        changes.push(Change::DefaultChain { from, to });
    }
    changes
}

fn services(from: &Plan, to: &Plan, changes: &mut Vec<Change>) {
    for (id, service) in from.services.iter().filter(|(id, _)| !to.services.contains_key(id)) {
        changes.push(Change::ServiceRemoved { service: *id, name: service.name.clone() });
    }
    for (id, service) in &to.services {
        let name = service.name.clone();
        match from.services.get(id).map(|before| chosen_alike(before, service)) {
            None => changes.push(Change::ServiceAdded { service: *id, name }),
            Some(before) if before != *service => {
                let fields = fields(&before, service);
                changes.push(Change::ServiceChanged { service: *id, name, fields });
            }
            Some(_) => {}
        }
    }
}

/// A service with the other's number of instances, if the manager chooses that: it is no difference.
fn chosen_alike(before: &Service, other: &Service) -> Service {
    let instances = if other.scale.is_some() { other.instances } else { before.instances };
    Service { instances, ..before.clone() }
}

/// Fields are compared as JSON has them, so that none can be forgotten here.
fn fields(from: &Service, to: &Service) -> Vec<FieldChange> {
    let as_object = |service: &Service| match serde_json::to_value(service) {
        Ok(Value::Object(all)) => all,
        _ => serde_json::Map::new(),
    };
    let before = as_object(from);
    let one = |(field, to): (String, Value)| {
        let from = before.get(&field).cloned().unwrap_or_default();
        (from != to).then(|| FieldChange { field: field.replace('_', "-"), from, to })
    };
    as_object(to).into_iter().filter_map(one).collect()
}

type Chains = BTreeMap<String, Vec<ServiceId>>;

fn chains(from: &Chains, to: &Chains, changes: &mut Vec<Change>) {
    for chain in from.keys().filter(|chain| !to.contains_key(*chain)) {
        changes.push(Change::ChainRemoved { chain: chain.clone() });
    }
    for (chain, to) in to {
        let (chain, to) = (chain.clone(), to.clone());
        match from.get(&chain) {
            None => changes.push(Change::ChainAdded { chain, to }),
            Some(from) if *from != to => changes.push(Change::ChainChanged { chain, from: from.clone(), to }),
            Some(_) => {}
        }
    }
}

fn rules(from: &[Rule], to: &[Rule], changes: &mut Vec<Change>) {
    /// Rules that are not matched by an equal one on the other side.
    fn without<'a>(all: &'a [Rule], others: &[Rule]) -> Vec<&'a Rule> {
        let mut left: Vec<&Rule> = others.iter().collect();
        let unmatched = |rule: &&Rule| match left.iter().position(|other| other == rule) {
            Some(at) => {
                left.swap_remove(at);
                false
            }
            None => true,
        };
        all.iter().filter(unmatched).collect()
    }
    let (removed, added) = (without(from, to), without(to, from));
    if removed.is_empty() && added.is_empty() && from != to {
        changes.push(Change::RulesReordered);
    }
    changes.extend(removed.into_iter().map(|rule| Change::RuleRemoved { rule: rule.clone() }));
    changes.extend(added.into_iter().map(|rule| Change::RuleAdded { rule: rule.clone() }));
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports { from, to } => write!(f, "ports: {} -> {}", listed(from), listed(to)),
            Self::ServiceAdded { service, name } => write!(f, "service {service} ({name}): added"),
            Self::ServiceRemoved { service, name } => write!(f, "service {service} ({name}): removed"),
            Self::ServiceChanged { service, name, fields } => {
                let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
                write!(f, "service {service} ({name}): {}", fields.join("; "))
            }
            Self::ChainAdded { chain, to } => write!(f, "chain {chain}: added: {}", hops(to)),
            Self::ChainRemoved { chain } => write!(f, "chain {chain}: removed"),
            Self::ChainChanged { chain, from, to } => {
                write!(f, "chain {chain}: {} => {}", hops(from), hops(to))
            }
            Self::RuleAdded { rule } => write!(f, "rule added: {rule}"),
            Self::RuleRemoved { rule } => write!(f, "rule removed: {rule}"),
            Self::RulesReordered => f.write_str("rules: the same in another order"),
            Self::DefaultChain { from, to } => {
                let named = |chain: &Option<String>| chain.clone().unwrap_or_else(|| "none".into());
                write!(f, "default chain: {} -> {}", named(from), named(to))
            }
        }
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.field, self.from, self.to)
    }
}

impl fmt::Display for Rule {
    /// As a chain file has it: `priority 10: protocol tcp, source 10.0.0.0/8: chain web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(protocol) = self.protocol {
            let name = onvm_lib::wire::protocol_name(protocol);
            parts.push(format!("protocol {}", name.map_or_else(|| protocol.to_string(), str::to_string)));
        }
        for (what, nets) in [("source", &self.source), ("destination", &self.destination)] {
            if !nets.is_empty() {
                parts.push(format!("{what} {}", listed(nets)));
            }
        }
        let ranges = [("source-port", &self.source_port), ("destination-port", &self.destination_port)];
        for (what, ranges) in ranges.into_iter().filter(|(_, ranges)| !ranges.is_empty()) {
            let range =
                |(from, to): &(u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
            parts.push(format!("{what} {}", listed(&ranges.iter().map(range).collect::<Vec<_>>())));
        }
        parts.extend(self.input_port.map(|port| format!("input-port {port}")));
        if self.both_directions {
            parts.push("both directions".into());
        }
        let what = if parts.is_empty() { "everything".into() } else { parts.join(", ") };
        write!(f, "priority {}: {what}: chain {}", self.priority, self.chain)
    }
}

fn listed(all: &[impl ToString]) -> String {
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    if words.is_empty() { "none".into() } else { words.join(" ") }
}

fn hops(chain: &[ServiceId]) -> String {
    let ids: Vec<String> = chain.iter().map(ToString::to_string).collect();
    if ids.is_empty() { "straight from port to port".into() } else { ids.join(" -> ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan() -> Plan {
        let service = |name: &str| Service { name: name.into(), ..Service::default() };
        let rule =
            |port| Rule { destination_port: vec![(port, port)], chain: "web".into(), ..Rule::default() };
        Plan {
            ports: vec!["null:".into()],
            services: [(1, service("forward")), (2, service("monitor"))].into(),
            chains: [("web".into(), vec![1, 2])].into(),
            rules: vec![rule(80), rule(443), rule(80)],
            default_chain: Some("web".into()),
        }
    }

    fn words(change: impl Fn(&mut Plan)) -> Vec<String> {
        let (from, mut to) = (plan(), plan());
        change(&mut to);
        difference(&from, &to).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_plans_have_no_difference() {
        assert!(words(|_| ()).is_empty());
    }

    #[test]
    fn services_are_compared_by_field() {
        assert_eq!(
            words(|p| {
                p.services.remove(&1);
                p.services.insert(3, Service { name: "nat".into(), ..Service::default() });
                let monitor = p.services.get_mut(&2).unwrap();
                (monitor.instances, monitor.shared_core) = (3, true);
                monitor.wait = Some(std::time::Duration::from_secs(2));
            }),
            [
                "service 1 (forward): removed",
                "service 2 (monitor): instances 1 -> 3; shared-core false -> true; wait null -> 2.0",
                "service 3 (nat): added"
            ]
        );
    }

    #[test]
    fn chains_rules_ports_and_the_default_are_compared() {
        assert_eq!(
            words(|p| {
                p.ports.push("gen:".into());
                p.chains.insert("web".into(), vec![2]);
                p.chains.insert("straight".into(), vec![]);
                p.default_chain = None;
                p.rules.pop();
                p.rules[1].source.push("10.0.0.0/8".parse().unwrap());
                (p.rules[1].protocol, p.rules[1].both_directions) = (Some(6), true);
            }),
            [
                "ports: null: -> null: gen:",
                "chain straight: added: straight from port to port",
                "chain web: 1 -> 2 => 2",
                "rule removed: priority 0: destination-port 443: chain web",
                "rule removed: priority 0: destination-port 80: chain web",
                "rule added: priority 0: protocol tcp, source 10.0.0.0/8, destination-port 443, both directions: chain web",
                "default chain: web -> none"
            ]
        );
        assert_eq!(words(|p| p.rules.swap(0, 1)), ["rules: the same in another order"]);
        assert_eq!(words(|p| p.chains.clear()), ["chain web: removed"]);
    }

    #[test]
    fn programs_read_it_too() {
        let change = Change::ChainChanged { chain: "web".into(), from: vec![1], to: vec![2] };
        let json = json!({ "change": "chain-changed", "chain": "web", "from": [1], "to": [2] });
        assert_eq!(serde_json::to_value(&change).unwrap(), json);
        assert_eq!(serde_json::from_value::<Change>(json).unwrap(), change);
    }
}
