//! A chain file: the plan of a manager, and the options that its command line could say, in YAML.
//!
//! ```yaml
//! manager: {mtu: 9000, core: 0}         # long options of the command line, without the dashes
//! ports:
//!   - pcap:in=web.pcap,out=out.pcap     # in brackets it would need quotes, for its comma
//! services:
//!   forward: {command: [nf-forward, --mac-swap], instances: 2}
//!   monitor: {id: 2}                    # no command: an NF that is started elsewhere
//! chains:
//!   web: [forward, monitor]
//! rules:
//!   - {protocol: tcp, destination-port: [80, 443], chain: web, both-directions: true}
//! default-chain: web
//! ```
//! Services, chains and rules refer to each other by name. File names are relative to the file's directory. Mistakes
//! are all told, each with line and column, before anything is done.

mod options;
mod paths;
mod rule;
mod service;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use onvm_lib::document::{self, Cursor, Report, Severity, Table};
use onvm_lib::protocol::ServiceId;

use super::{MAX_CHAIN, MAX_HOPS, MAX_SERVICE, Plan};
use crate::ports::Spec;
pub(crate) use options::FileOption;

/// What a chain file says.
#[derive(Debug)]
pub(crate) struct ChainFile {
    /// What is wrong with it. With errors, the rest is only what could be read.
    pub(crate) report: Report,
    /// The plan; its ports are among the options, too.
    pub(crate) plan: Plan,
    /// Options of the command line, each already accepted by its parser.
    pub(crate) options: Vec<FileOption>,
}

/// Reads a chain file. What is wrong, also with opening it, stands in the report.
pub(crate) fn load(file: &Path) -> ChainFile {
    let report = Report::new(file.display().to_string());
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let read = std::fs::read(file).and_then(|bytes| Ok((bytes, directory.canonicalize()?)));
    match read {
        Ok((bytes, directory)) => match String::from_utf8(bytes) {
            Ok(text) => from_text(&text, &directory, report),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
                let place = document::Place { line, column: 1 };
                report.add(Severity::Error, Some(place), "", "this is no UTF-8");
                ChainFile { report, plan: Plan::default(), options: Vec::new() }
            }
        },
        Err(error) => {
            report.add(Severity::Error, None, "", error.to_string());
            ChainFile { report, plan: Plan::default(), options: Vec::new() }
        }
    }
}

/// Reads the text of a chain file that lies in `directory`.
fn from_text(text: &str, directory: &Path, report: Report) -> ChainFile {
    let mut plan = Plan::default();
    let mut options = Vec::new();
    if let Some(root) = document::read(text, &report) {
        let keys = ["manager", "ports", "services", "chains", "rules", "default-chain"];
        if let Some(top) = Cursor::new(&root, &report).table(&keys) {
            let names = Names::read(&top);
            let mut reader = Reader { directory: directory.to_path_buf(), names, plan, options };
            reader.read(&top);
            (plan, options) = (reader.plan, reader.options);
        }
    }
    ChainFile { report, plan, options }
}

/// The ids of services by name. All ids are known before the first reference to one is read.
struct Names(BTreeMap<String, ServiceId>);

impl Names {
    fn read(top: &Table<'_>) -> Self {
        let mut names = BTreeMap::new();
        let mut taken: BTreeMap<ServiceId, &str> = BTreeMap::new();
        let mut without = Vec::new();
        for (key, service) in top.get("services").and_then(|s| s.entries()).unwrap_or_default() {
            if let Some(wrong) = wrong_name(&key.text) {
                service.error(wrong);
            }
            // A service that is no mapping, or has unknown keys, is complained of when it is read as a whole.
            let Some(id) = service.value_of("id") else {
                without.push((key, service));
                continue;
            };
            let Some(id_value) = id.number(1..=MAX_SERVICE) else {
                names.insert(key.text.clone(), 0);
                continue;
            };
            if let Some(other) = taken.get(&id_value) {
                id.error(format!("{id_value} is the id of {other:?} already"));
            }
            taken.insert(id_value, &key.text);
            names.insert(key.text.clone(), id_value);
        }
        let mut free = 1..=MAX_SERVICE;
        for (key, service) in without {
            match free.find(|id| !taken.contains_key(id)) {
                Some(id) => drop(names.insert(key.text.clone(), id)),
                None => service.error(format!("there are more than {MAX_SERVICE} services")),
            }
        }
        Self(names)
    }

    /// The service that a name in the file means.
    fn find(&self, name: &Cursor<'_>) -> Option<ServiceId> {
        let text = name.text()?;
        let id = self.0.get(text).copied();
        if id.is_none() {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            name.unknown(text, &known, "a service", "services are named under `services`");
        }
        // 0 stands for an id that was wrong, and has been complained of.
        id.filter(|id| *id != 0)
    }
}

/// What is wrong with a name of a service or chain.
fn wrong_name(name: &str) -> Option<String> {
    const LONGEST: usize = 64;
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > LONGEST {
        return Some(format!("a name has 1 to {LONGEST} characters"));
    }
    if !name.chars().all(known) || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Some(format!(
            "{name:?} is no name: names begin with a letter, and have letters, digits, - _ and ."
        ));
    }
    None
}

struct Reader {
    /// Directory of the file, absolute.
    directory: PathBuf,
    names: Names,
    plan: Plan,
    options: Vec<FileOption>,
}

impl Reader {
    fn read(&mut self, top: &Table<'_>) {
        if let Some(manager) = top.get("manager") {
            self.options.extend(options::read(&manager, &self.names, &self.directory));
        }
        if let Some(ports) = top.get("ports") {
            self.read_ports(&ports);
        }
        for (key, cursor) in top.get("services").and_then(|s| s.entries()).unwrap_or_default() {
            if let Some(id) = self.names.0.get(&key.text).copied()
                && let Some(service) = service::read(&key.text, &cursor, &self.names, &self.directory)
                && id != 0
            {
                self.plan.services.insert(id, service);
            }
        }
        for (key, cursor) in top.get("chains").and_then(|c| c.entries()).unwrap_or_default() {
            self.read_chain(&key.text, &cursor);
        }
        let hops = self.plan.chains.values().map(Vec::len).sum::<usize>();
        if let Some(chains) = top.get("chains").filter(|_| hops > MAX_HOPS) {
            chains.error(format!("all chains together have {hops} hops, more than {MAX_HOPS}"));
        }
        for cursor in top.get("rules").and_then(|r| r.list()).unwrap_or_default() {
            let rule = rule::read(&cursor, &self.plan.chains, self.plan.ports.len());
            self.plan.rules.extend(rule);
        }
        for option in self.options.iter().filter(|o| o.name() == "isolate") {
            let id = option.value().and_then(|id| id.parse::<ServiceId>().ok());
            if let Some(service) = id.and_then(|id| self.plan.services.get_mut(&id)) {
                service.isolated = true;
            }
        }
        self.read_default_chain(top);
        self.look_for_the_unused(top);
    }

    fn read_ports(&mut self, ports: &Cursor<'_>) {
        let most = usize::from(onvm_lib::ring::MAX_PORT) + 1;
        let Some(all) = ports.list() else { return };
        if all.len() > most {
            ports.error(format!("{} ports are more than {most}", all.len()));
        }
        for port in all {
            let Some(text) = port.text() else { continue };
            match text.parse::<Spec>().and_then(|spec| spec.in_directory(&self.directory)) {
                Ok(text) => {
                    self.options.push(FileOption::new("port", text.clone()));
                    self.plan.ports.push(text);
                }
                Err(error) if text.contains('=') && !text.contains(':') => {
                    // `[pcap:in=a,out=b]` is a list of two.
                    port.error(format!("{error}; in brackets, a port with a comma stands in quotes"));
                }
                Err(error) => port.error(error.to_string()),
            }
        }
    }

    fn read_chain(&mut self, name: &str, chain: &Cursor<'_>) {
        if let Some(wrong) = wrong_name(name) {
            chain.error(wrong);
        }
        let Some(hops) = chain.list() else { return };
        if hops.len() > MAX_CHAIN {
            chain.error(format!("a chain of {} hops is longer than {MAX_CHAIN}", hops.len()));
        }
        let hops = hops.iter().filter_map(|hop| self.names.find(hop)).collect();
        self.plan.chains.insert(name.to_string(), hops);
    }

    fn read_default_chain(&mut self, top: &Table<'_>) {
        if let Some(default) = top.get("default-chain") {
            self.plan.default_chain = rule::chain_named(&default, &self.plan.chains);
        } else if self.plan.chains.len() == 1 && self.plan.rules.is_empty() {
            // It can only be meant for everything.
            self.plan.default_chain = self.plan.chains.keys().next().cloned();
        } else if !self.plan.services.contains_key(&self.default_service()) {
            let id = self.default_service();
            let what = if self.plan.services.is_empty() { return } else { top.cursor() };
            what.warn(format!(
                "no default-chain: packets that no rule matches go to service {id}, which is not among the services"
            ));
        }
    }

    /// The service of packets that are in no chain, as the command line's parser has it.
    fn default_service(&self) -> ServiceId {
        let given = self.options.iter().find(|o| o.name() == "default-service");
        given.and_then(|o| o.value()?.parse().ok()).unwrap_or(1)
    }

    /// Warns of services and chains that no packet comes to.
    fn look_for_the_unused(&self, top: &Table<'_>) {
        let plan = &self.plan;
        let mut used: BTreeSet<ServiceId> = plan.chains.values().flatten().copied().collect();
        used.extend(plan.services.values().filter_map(|s| s.destination));
        if plan.default_chain.is_none() {
            used.insert(self.default_service());
        }
        for (key, service) in top.get("services").and_then(|s| s.entries()).unwrap_or_default() {
            if self.names.0.get(&key.text).is_some_and(|id| !used.contains(id)) {
                service.warn("this service stands in no chain and is no destination: no packet comes to it");
            }
        }
        for (key, chain) in top.get("chains").and_then(|c| c.entries()).unwrap_or_default() {
            let is_default = plan.default_chain.as_ref() == Some(&key.text);
            if !is_default && plan.rules.iter().all(|rule| rule.chain != key.text) {
                chain.warn("no rule names this chain, and it is not the default chain: no packet takes it");
            }
        }
    }
}
