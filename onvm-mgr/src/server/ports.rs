//! Ports that come and go while the manager runs: by `port add` and `port remove`, or because another plan has others.
//!
//! The plan's list of ports is the truth: its n-th is port n, and `none:` stands for a number without a port. A number is
//! kept when its port is removed, so that no other port gets another number or another partner; it is given again only to an
//! `add` that asks for it. Ports are opened here, where it may take its time, and given to the worker. Of a plan those that
//! are otherwise than before are closed first, all of them, and opened when they are gone: the new one may want
//! the same interface or file. One change at a time.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;

use onvm_lib::document::nearest;
use onvm_lib::ring::MAX_PORT;
use serde_json::{Value, json};

use super::Server;
use super::answers::Pending;
use super::phase::Phase;
use crate::events::{Event, Kind};
use crate::plan::Plan;
use crate::plan::difference::Change;
use crate::ports::{self, NONE, Spec};
use crate::worker::{ClosedPort, Command, PortTotals};

/// What is done when ports have gone.
enum Then {
    /// A client is told.
    Tell,
    /// The rest of a plan comes into force.
    Apply { plan: Box<Plan>, changes: Vec<Change> },
    /// A plan is refused: these were opened for it.
    Refuse(String),
}

/// Ports that are on their way out.
pub(super) struct PortChange {
    client: u64,
    waiting: BTreeSet<u8>,
    then: Then,
}

/// A port of a plan that could not be opened, and why.
pub(super) type NotOpened = (u8, String);

/// What stands at a number.
fn at(ports: &[String], number: usize) -> &str {
    ports.get(number).map_or(NONE, String::as_str)
}

impl Server {
    /// Whether ports may change now.
    fn check_ports_may_change(&self) -> Result<(), String> {
        if !matches!(self.phase, Phase::Waiting | Phase::Running) {
            return Err("the manager is stopping".into());
        }
        match &self.port_change {
            Some(_) => Err("ports are on their way out: try again when they are gone".into()),
            None => Ok(()),
        }
    }

    /// Opens a port, and has the worker serve it.
    fn open_port(&mut self, number: u8, text: &str, by: &'static str) -> Result<(), String> {
        let spec: Spec = text.parse().map_err(|error: ports::SpecError| error.to_string())?;
        let port = ports::open(&spec, &self.pool).map_err(|error| error.to_string())?;
        self.worker.give(Command::AddPort { number, port });
        self.events.record(Event::new(Kind::PortAdded).port(number).by(by).why(text));
        Ok(())
    }

    /// Adds a port, at the end of the list or at an empty number.
    pub(super) fn add_port(&mut self, client: u64, text: &str, number: Option<u8>) {
        let added = self.check_ports_may_change().and_then(|()| {
            let number = self.free_number(number)?;
            if text.parse::<Spec>().is_ok_and(|spec| spec.kind() == "none") {
                return Err(format!("{NONE} is no port: it stands for a number without one"));
            }
            self.open_port(number, text, "operator")?;
            Ok(number)
        });
        match added {
            Ok(number) => {
                let ports = &mut self.plan.ports;
                ports.resize(ports.len().max(usize::from(number) + 1), NONE.into());
                ports[usize::from(number)] = text.into();
                self.tell(client, json!({ "port": number, "name": text }), true);
            }
            Err(error) => self.tell(client, json!({ "error": error }), false),
        }
    }

    /// The number that a port gets: the one that was asked for, if it is empty, else the one behind all others.
    fn free_number(&self, wanted: Option<u8>) -> Result<u8, String> {
        let ports = &self.plan.ports;
        let next = u8::try_from(ports.len()).unwrap_or(u8::MAX);
        let number = wanted.unwrap_or(next);
        if number > MAX_PORT {
            return Err(match wanted {
                Some(_) => format!("port {number} is out of range 0..={MAX_PORT}"),
                None => format!("there are {next} numbers already: ask for an empty one"),
            });
        }
        match at(ports, number.into()) {
            NONE => Ok(number),
            taken => Err(format!("port {number} is {taken}: remove it first")),
        }
    }

    /// Removes a port; the client is told when it is gone.
    pub(super) fn remove_port(&mut self, client: u64, which: &str) {
        let number = self.check_ports_may_change().and_then(|()| find(&self.plan.ports, which));
        match number {
            Ok(number) => {
                let waiting = self.close_ports([number]);
                self.port_change = Some(PortChange { client, waiting, then: Then::Tell });
            }
            Err(error) => self.tell(client, json!({ "error": error }), false),
        }
    }

    fn close_ports(&mut self, numbers: impl IntoIterator<Item = u8>) -> BTreeSet<u8> {
        let numbers: BTreeSet<u8> = numbers.into_iter().collect();
        for number in &numbers {
            self.worker.give(Command::RemovePort { number: *number });
        }
        numbers
    }

    /// A port has given back all that it had.
    pub(super) fn port_closed(&mut self, number: u8, closed: ClosedPort) {
        let ClosedPort { port, error } = closed;
        let counters = port.counters();
        let name = port.name().to_string();
        if let Some(error) = error {
            eprintln!("onvm-mgr: {error}");
            self.events.record(Event::new(Kind::PortFailed).port(number).why(error));
            self.failed = true;
        }
        // Its threads and descriptors end with it.
        drop(port);
        let (rx, tx) = (counters.rx_packets, counters.tx_packets);
        let why = format!("{name}: {rx} packets received, {tx} sent");
        let Some(change) = &mut self.port_change else { return };
        let by = if matches!(change.then, Then::Tell) { "operator" } else { "plan" };
        self.events.record(Event::new(Kind::PortRemoved).port(number).by(by).why(why));
        if let Some(place) = self.plan.ports.get_mut(usize::from(number)) {
            *place = NONE.into();
        }
        change.waiting.remove(&number);
        if !change.waiting.is_empty() {
            return;
        }
        let Some(PortChange { client, then, .. }) = self.port_change.take() else { return };
        match then {
            Then::Tell => {
                let body = json!({ "port": number, "name": name, "rx_packets": rx, "tx_packets": tx });
                self.tell(client, body, true);
            }
            Then::Refuse(error) => self.refuse_plan(client, &error),
            Then::Apply { mut plan, changes } => {
                let failed = self.open_ports_of(&mut plan);
                self.apply_with_ports(client, *plan, &changes, failed);
            }
        }
    }

    /// Has the ports become those of a plan, and then puts the plan in force.
    pub(super) fn change_ports(&mut self, client: u64, mut plan: Plan, changes: Vec<Change>) {
        if plan.ports == self.plan.ports {
            return self.apply_with_ports(client, plan, &changes, Vec::new());
        }
        if let Err(error) = self.check_ports_may_change() {
            return self.tell(client, json!({ "error": error }), false);
        }
        let (now, wanted) = (&self.plan.ports, &plan.ports);
        let gone = |number: &u8| {
            let number = usize::from(*number);
            at(now, number) != NONE && at(now, number) != at(wanted, number)
        };
        let gone: Vec<u8> = (0..=MAX_PORT).filter(gone).collect();
        if !gone.is_empty() {
            let waiting = self.close_ports(gone);
            let then = Then::Apply { plan: Box::new(plan), changes };
            self.port_change = Some(PortChange { client, waiting, then });
            return;
        }
        // Nothing has been touched yet: a port that cannot be opened leaves it at that.
        let failed = self.open_ports_of(&mut plan);
        if let Some((number, why)) = failed.first() {
            let error = format!("port {number} cannot be opened, and the plan is not in force: {why}");
            return self.take_back_ports_of(client, &plan, error);
        }
        self.apply_with_ports(client, plan, &changes, failed);
    }

    /// Opens the ports that a plan has and the manager has not. Those that cannot be opened are none in the plan.
    fn open_ports_of(&mut self, plan: &mut Plan) -> Vec<NotOpened> {
        let mut failed = Vec::new();
        for number in 0..plan.ports.len() {
            let text = plan.ports[number].clone();
            let Ok(id) = u8::try_from(number) else { break };
            if text == NONE || at(&self.plan.ports, number) == text {
                continue;
            }
            if let Err(error) = self.open_port(id, &text, "plan") {
                eprintln!("onvm-mgr: {error}");
                self.events.record(Event::new(Kind::PortFailed).port(id).by("plan").why(error.as_str()));
                plan.ports[number] = NONE.into();
                failed.push((id, error));
            }
        }
        self.worker.give(Command::ShortenPorts { count: plan.ports.len() });
        failed
    }

    /// Closes ports again of a plan that does not come into force.
    fn take_back_ports_of(&mut self, client: u64, plan: &Plan, error: String) {
        let now = &self.plan.ports;
        let opened = |number: &u8| {
            let number = usize::from(*number);
            at(now, number) == NONE && at(&plan.ports, number) != NONE
        };
        let opened: Vec<u8> = (0..=MAX_PORT).filter(opened).collect();
        if opened.is_empty() {
            return self.refuse_plan(client, &error);
        }
        let waiting = self.close_ports(opened);
        self.port_change = Some(PortChange { client, waiting, then: Then::Refuse(error) });
    }

    fn refuse_plan(&mut self, client: u64, error: &str) {
        self.worker.give(Command::ShortenPorts { count: self.plan.ports.len() });
        self.tell(client, json!({ "error": error }), false);
    }

    /// Tells a client what the ports are like, when the worker has said so.
    pub(super) fn list_ports(&mut self, client: u64) {
        let (sender, reply) = channel();
        self.worker.give(Command::Ports { reply: sender });
        self.pending.push(Pending::Ports { reply, token: client });
    }

    pub(super) fn ports_body(ports: &[PortTotals]) -> Value {
        let one = |(number, totals): (usize, &PortTotals)| {
            let mut port = Self::port_body(number, totals);
            port["state"] = json!(totals.state);
            port["kind"] = json!(totals.name.split(':').next());
            let pair = number ^ 1;
            port["pair"] = json!(if pair < ports.len() { pair } else { number });
            port["link"] = serde_json::to_value(totals.link).unwrap_or_default();
            port
        };
        json!({ "ports": ports.iter().enumerate().map(one).collect::<Vec<_>>() })
    }

    /// What a port has counted.
    pub(super) fn port_body(number: usize, totals: &PortTotals) -> Value {
        let mut port = serde_json::to_value(totals.counters).unwrap_or_default();
        port["port"] = json!(number);
        port["name"] = json!(totals.name);
        if let Some(manner) = &totals.manner {
            port["manner"] = json!(manner);
        }
        for (name, count) in &totals.extras {
            port[*name] = json!(count);
        }
        port
    }
}

/// The port with a number, or of a name: the whole of it, or its first part, with or without the kind.
fn find(ports: &[String], which: &str) -> Result<u8, String> {
    let there = || (0..=MAX_PORT).zip(ports).filter(|(_, text)| text.as_str() != NONE);
    if let Ok(number) = which.parse::<u8>() {
        return match there().find(|(other, _)| *other == number) {
            Some(_) => Ok(number),
            None => Err(format!("there is no port {number}")),
        };
    }
    let short = |text: &'_ str| text.split(',').next().unwrap_or_default().to_string();
    let bare = |text: &str| {
        let first = short(text);
        let after_kind = first.split_once(':').map_or("", |(_, rest)| rest);
        after_kind.split_once('=').map_or(after_kind, |(_, value)| value).to_string()
    };
    let named = |text: &str| text == which || short(text) == which || bare(text) == which;
    let found: Vec<u8> = there().filter(|(_, text)| named(text)).map(|(number, _)| number).collect();
    match found[..] {
        [number] => Ok(number),
        [] => {
            let known: Vec<String> = there().flat_map(|(_, text)| [short(text), bare(text)]).collect();
            let hint = match nearest(which, known.iter().map(String::as_str)) {
                Some(near) => format!("; did you mean {near:?}?"),
                None => String::new(),
            };
            Err(format!("there is no port {which:?}{hint}"))
        }
        _ => {
            let numbers: Vec<String> = found.iter().map(u8::to_string).collect();
            Err(format!("ports {} are {which:?}: say which by its number", numbers.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_number_and_by_name() {
        let ports: Vec<String> = ["afpacket:eth0,rate=5", NONE, "pcap:in=/a/b.pcap,out=/c", "null:", "null:"]
            .map(String::from)
            .into();
        for (which, number) in
            [("0", 0), ("eth0", 0), ("afpacket:eth0", 0), ("afpacket:eth0,rate=5", 0), ("/a/b.pcap", 2)]
        {
            assert_eq!(find(&ports, which), Ok(number), "{which}");
        }
        for (which, why) in [
            ("1", "there is no port 1"),
            ("9", "there is no port 9"),
            ("eht0", "there is no port \"eht0\"; did you mean \"eth0\"?"),
            ("null:", "ports 3, 4 are \"null:\": say which by its number"),
            ("none:", "there is no port \"none:\""),
        ] {
            assert!(find(&ports, which).unwrap_err().starts_with(why), "{which}: {:?}", find(&ports, which));
        }
    }
}
