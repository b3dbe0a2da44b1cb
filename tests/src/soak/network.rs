//! What the soak has the manager run, as it should be at this moment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::tide::{BOUNDS, COMMAND, SCALE, TIDAL};
use crate::Dice;

/// Flows of the port that numbers its packets.
pub(super) const FLOWS: u64 = 300;
/// The service at the end of every chain.
pub(super) const JUDGE: &str = "judge";
/// The service that makes copies; only traffic from captures goes there, for its flows may be reordered.
const MIRROR: &str = "mirror";
/// Services that flows of numbered packets may pass, in any order.
const MIDDLE: [&str; 4] = ["forward", "monitor", "hold", "gate"];
/// Flows by their source address, and the chain they begin with.
const PREFIXES: [(&str, &str); 4] =
    [("10.0.0.0/26", "a"), ("10.0.0.64/26", "b"), ("10.0.0.128/26", "c"), ("10.0.0.192/27", "a")];

/// A service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) id: u16,
    pub(super) command: Vec<String>,
    /// What may stand in place of the command.
    others: Vec<Vec<String>>,
    pub(super) instances: u32,
    pub(super) standby: u32,
    /// Most instances that share its flows.
    pub(super) most: u32,
    settings: &'static str,
}

impl Service {
    /// How many instances may share its flows when all is as it should be.
    pub(super) fn shares(&self) -> std::ops::RangeInclusive<u32> {
        if self.name == TIDAL { BOUNDS } else { self.instances..=self.instances }
    }
}

/// Services, chains and rules.
#[derive(Clone, Debug)]
pub(super) struct Network {
    ports: Vec<String>,
    pub(super) services: Vec<Service>,
    chains: BTreeMap<&'static str, Vec<&'static str>>,
    rules: Vec<(&'static str, &'static str)>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

fn service(
    id: u16,
    name: &'static str,
    commands: &[&str],
    shares: [u32; 3],
    settings: &'static str,
) -> Service {
    let commands: Vec<Vec<String>> = commands.iter().map(|c| words(c)).collect();
    let [instances, standby, most] = shares;
    let (command, others) = (commands[0].clone(), commands);
    Service { name, id, command, others, instances, standby, most, settings }
}

impl Network {
    /// As it is in the beginning, and now and then again.
    pub(super) fn home(judged: &Path, captures: &[PathBuf], rate: u64) -> Self {
        let mut ports = vec![format!("gen:size=80,flows={FLOWS},rate={rate},sequence=1"), "null:".into()];
        for capture in captures {
            ports.push(format!("pcap:in={},loop=0,pps={}", capture.display(), (rate / 10).max(1)));
            ports.push("null:".into());
        }
        // The last port is that of the tides.
        let tide = judged.with_file_name("tide.pcap");
        ports.extend([format!("pcap:in={},loop=0,speed=1", tide.display()), "null:".into()]);
        let judge = format!("order_nf --flows {FLOWS} --port 0 --keep {}", judged.display());
        let services = vec![
            service(1, "forward", &["nf-forward", "nf-forward --mac-swap"], [2, 0, 3], ""),
            service(2, "monitor", &["nf-monitor --top 5", "nf-monitor --top 7"], [2, 1, 3], "affinity: flow"),
            service(
                3,
                "hold",
                &["probe_nf --say hold --hold-ms 20 --or-drop", "probe_nf --say hold --hold-ms 30 --or-drop"],
                [1, 0, 3],
                "policy: bypass",
            ),
            service(4, MIRROR, &["probe_nf --mirror service=7"], [1, 0, 2], "policy: bypass"),
            service(
                5,
                "gate",
                &["nf-forward", "nf-forward --mac-swap"],
                [1, 0, 2],
                "policy: drop, isolated: true",
            ),
            service(7, "copies", &["probe_nf --say drop"], [1, 0, 2], "policy: drop"),
            service(8, TIDAL, &[COMMAND], [1, 0, 1], SCALE),
            service(9, JUDGE, &[judge.as_str()], [1, 0, 1], ""),
        ];
        let chains = [
            ("a", vec!["forward", "monitor", JUDGE]),
            ("b", vec!["hold", "gate", JUDGE]),
            ("c", vec!["gate", "forward", JUDGE]),
            ("main", vec!["forward", JUDGE]),
            ("replay", vec!["monitor", MIRROR, JUDGE]),
            ("tide", vec![TIDAL]),
        ];
        Self { ports, services, chains: chains.into(), rules: PREFIXES.to_vec() }
    }

    pub(super) fn service(&mut self, name: &str) -> &mut Service {
        let known = self.services.iter_mut().find(|s| s.name == name);
        known.unwrap_or_else(|| panic!("no service {name}"))
    }

    /// Whether packets go to a service.
    pub(super) fn in_use(&self, name: &str) -> bool {
        let asked_for = |chain: &str| {
            ["main", "replay", "tide"].contains(&chain) || self.rules.iter().any(|(_, to)| *to == chain)
        };
        let mut chains = self.chains.iter().filter(|(chain, _)| asked_for(chain));
        name == "copies" || chains.any(|(_, hops)| hops.contains(&name))
    }

    /// The chain file.
    pub(super) fn yaml(&self) -> String {
        let mut text = String::from("manager: {wait: [judge], wait-for-instance: 10}\nports:\n");
        let mut line = |line: String| {
            let _ = writeln!(text, "{line}");
        };
        self.ports.iter().for_each(|port| line(format!("  - \"{port}\"")));
        line("services:".into());
        for s in &self.services {
            let command = s.command.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            let more = if s.settings.is_empty() { String::new() } else { format!(", {}", s.settings) };
            // The manager chooses the number of those that it scales.
            let number =
                if s.name == TIDAL { String::new() } else { format!(", instances: {}", s.instances) };
            line(format!(
                "  {}: {{id: {}, command: [{command}]{number}, standby: {}{more}, \
                 restart: {{give-up: 1000, delay: 0.01, longest-delay: 0.2}}}}",
                s.name, s.id, s.standby
            ));
        }
        line("chains:".into());
        self.chains.iter().for_each(|(name, hops)| line(format!("  {name}: [{}]", hops.join(", "))));
        line("rules:".into());
        for port in (2..self.ports.len()).step_by(2) {
            let chain = if port + 2 < self.ports.len() { "replay" } else { "tide" };
            line(format!("  - {{priority: 30, input-port: {port}, chain: {chain}}}"));
        }
        for (prefix, chain) in &self.rules {
            line(format!("  - {{priority: 20, source: {prefix}, chain: {chain}}}"));
        }
        line("default-chain: main".into());
        text
    }

    /// Changes a chain or a rule at random.
    pub(super) fn edit(&mut self, dice: &mut Dice) -> String {
        if dice.below(3) == 0 {
            let rule = dice.index(self.rules.len());
            let chain = ["a", "b", "c", "main"][dice.index(4)];
            self.rules[rule].1 = chain;
            return format!("{} takes chain {chain}", self.rules[rule].0);
        }
        let name = ["a", "b", "c", "main", "replay"][dice.index(5)];
        let hops = if name == "replay" {
            let first = ["forward", "monitor", "gate"][dice.index(3)];
            vec![first, MIRROR, JUDGE]
        } else {
            hops(dice)
        };
        let said = format!("chain {name} is {}", hops.join(","));
        self.chains.insert(name, hops);
        said
    }

    /// Changes the default chain at random; returns its services.
    pub(super) fn edit_default(&mut self, dice: &mut Dice) -> Vec<u16> {
        let hops = hops(dice);
        self.chains.insert("main", hops.clone());
        hops.iter().map(|name| self.service(name).id).collect()
    }

    /// Gives a service another of its commands, or the same again.
    pub(super) fn another_command(&mut self, name: &str, dice: &mut Dice) -> Vec<String> {
        let service = self.service(name);
        service.command = service.others[dice.index(service.others.len())].clone();
        service.command.clone()
    }
}

/// Some services in any order, and the judge.
fn hops(dice: &mut Dice) -> Vec<&'static str> {
    let mut hops = MIDDLE.to_vec();
    for i in (1..hops.len()).rev() {
        hops.swap(i, dice.index(i + 1));
    }
    hops.truncate(dice.index(MIDDLE.len() + 1));
    hops.push(JUDGE);
    hops
}
