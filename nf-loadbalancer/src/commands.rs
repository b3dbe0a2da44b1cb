//! Live commands: what operators say beside the file.
//!
//! | topic | body |
//! |---|---|
//! | `drain`, `undrain`, `remove` | `{"service": "web", "backend": "a"}` |
//! | `weight` | `{"service": "web", "backend": "a", "weight": 3}` |
//! | `add` | `{"service": "web", "backend": "d", "address": "10.0.0.9", "port": 80, …}`: keys as in the file |
//! | `reset` | `{"service": "web", "backend": "a"}`, or nothing: what was said is forgotten |
//!
//! What was said stays apart from the file: it is laid over it, also over the next one, until `reset` or until the
//! program ends; a successor takes it over. The report tells it.

use std::collections::BTreeMap;

use onvm_lib::document::{Cursor, Report, nearest, read};
use onvm_lib::prelude::Message;
use serde::Serialize;

use crate::balancer::Balancer;
use crate::config::{Backend, Config, MAX_BACKENDS, read_backend};

/// What was said of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) drain: Option<bool>,
    pub(crate) weight: Option<u32>,
    pub(crate) removed: bool,
    /// It is not in the file: what it is, and the words that said so.
    pub(crate) added: Option<(Backend, String)>,
}

/// All that was said, by service and backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) changes: BTreeMap<(String, String), Change>,
    /// Commands that were carried out.
    pub(crate) accepted: u64,
    /// Commands that were refused, and why the last one was.
    pub(crate) refused: u64,
    pub(crate) last_error: Option<String>,
}

impl Overlay {
    /// The file with all that was said laid over it.
    pub(crate) fn applied_to(&self, file: &Config) -> Config {
        let mut config = file.clone();
        for ((service, name), change) in &self.changes {
            let Some(service) = config.services.iter_mut().find(|s| s.name == *service) else { continue };
            if change.removed {
                service.backends.retain(|backend| backend.name != *name);
            }
            if let Some((backend, _)) = &change.added
                && !service.backends.iter().any(|known| known.name == *name)
            {
                service.backends.push(backend.clone());
            }
            if let Some(backend) = service.backends.iter_mut().find(|backend| backend.name == *name) {
                backend.drain = change.drain.unwrap_or(backend.drain);
                backend.weight = change.weight.unwrap_or(backend.weight);
            }
        }
        config
    }
}

/// What was said, in the words that say it again.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub(crate) struct Said {
    pub(crate) topic: String,
    /// JSON.
    pub(crate) body: String,
}

impl Balancer {
    /// A message from an operator or another NF; whether it was a command that is known. What is wrong with one is
    /// logged and counted, and nothing changes.
    pub fn command(&mut self, message: &Message, now_ns: u64) -> bool {
        let known = ["drain", "undrain", "weight", "add", "remove", "reset"];
        if !known.contains(&message.topic.as_str()) {
            return false;
        }
        match self.obey(&message.topic, &message.body.to_string()) {
            Ok(()) => {
                self.overlay.accepted += 1;
                self.history.note(now_ns, format!("command {} {}", message.topic, message.body));
                self.reconcile(now_ns);
            }
            Err(reason) => {
                log::error!("command {} {} is refused: {reason}", message.topic, message.body);
                self.overlay.refused += 1;
                self.overlay.last_error = Some(format!("{}: {reason}", message.topic));
            }
        }
        true
    }

    /// Takes a command down.
    pub(crate) fn obey(&mut self, topic: &str, body: &str) -> Result<(), String> {
        let report = Report::new("message");
        // JSON is YAML, and so has the same accessors and the same words for what is wrong.
        let root = read(body, &report).ok_or_else(|| said(&report))?;
        let cursor = Cursor::new(&root, &report);
        if topic == "reset" && matches!(root.value, onvm_lib::document::Value::Null) {
            self.overlay.changes.clear();
            return Ok(());
        }
        let key = |key| cursor.value_of(key).and_then(|c| c.text()).map(str::to_string);
        let (service_name, name) = match (key("service"), key("backend")) {
            (Some(service), Some(backend)) => (service, backend),
            _ => return Err("\"service\" and \"backend\" are needed".into()),
        };
        let Some(service) = self.config.services.iter().find(|service| service.name == service_name) else {
            let names = self.config.services.iter().map(|service| service.name.as_str());
            return Err(unknown("service", &service_name, names));
        };
        let there = service.backends.iter().any(|backend| backend.name == name);
        let place = (service_name.clone(), name.clone());
        if topic == "add" {
            if there {
                return Err(format!("{service_name} has a backend {name:?} already"));
            }
            let backend = read_backend(&name, &cursor, service, &self.config);
            let backend = backend.filter(|_| !report.has_errors()).ok_or_else(|| said(&report))?;
            if service.backends.len() >= MAX_BACKENDS {
                return Err(format!(
                    "{service_name} has {MAX_BACKENDS} backends, the most that there may be"
                ));
            }
            if let Some(other) =
                service.backends.iter().find(|b| (b.address, b.port) == (backend.address, backend.port))
            {
                return Err(format!("it is the same server as {:?}", other.name));
            }
            // One of the file may have been removed by command, and stays so.
            let removed = self.overlay.changes.get(&place).is_some_and(|change| change.removed);
            let change = Change { added: Some((backend, body.to_string())), removed, ..Change::default() };
            self.overlay.changes.insert(place, change);
            return Ok(());
        }
        if topic == "reset" {
            return match self.overlay.changes.remove(&place) {
                Some(_) => Ok(()),
                None => Err(format!("nothing was said of {service_name}/{name}")),
            };
        }
        if !there {
            return Err(unknown(
                "backend",
                &name,
                service.backends.iter().map(|backend| backend.name.as_str()),
            ));
        }
        let known: &[&str] =
            if topic == "weight" { &["service", "backend", "weight"] } else { &["service", "backend"] };
        let table = cursor.table(known).filter(|_| !report.has_errors()).ok_or_else(|| said(&report))?;
        let mut change = self.overlay.changes.get(&place).cloned().unwrap_or_default();
        match topic {
            "drain" => change.drain = Some(true),
            "undrain" => change.drain = Some(false),
            "remove" if change.added.is_some() => {
                self.overlay.changes.remove(&place);
                if change.removed {
                    let change = Change { removed: true, ..Change::default() };
                    self.overlay.changes.insert(place, change);
                }
                return Ok(());
            }
            "remove" => change = Change { removed: true, ..Change::default() },
            _ => {
                let weight = table.need("weight").and_then(|c| c.number(0..=crate::config::MAX_WEIGHT));
                change.weight = Some(weight.ok_or_else(|| said(&report))?);
            }
        }
        self.overlay.changes.insert(place, change);
        Ok(())
    }

    /// All that was said, for a successor.
    pub(crate) fn all_said(&self) -> Vec<Said> {
        self.overlay
            .changes
            .iter()
            .flat_map(|((service, backend), change)| change.words(service, backend))
            .collect()
    }
}

impl Change {
    /// The commands that say it again.
    fn words(&self, service: &str, backend: &str) -> Vec<Said> {
        let who = serde_json::json!({ "service": service, "backend": backend });
        let say =
            |topic: &str, body: &serde_json::Value| Said { topic: topic.into(), body: body.to_string() };
        let mut words = Vec::new();
        if self.removed {
            words.push(say("remove", &who));
        }
        if let Some((_, body)) = &self.added {
            words.push(Said { topic: "add".into(), body: body.clone() });
        }
        if let Some(drain) = self.drain {
            words.push(say(if drain { "drain" } else { "undrain" }, &who));
        }
        if let Some(weight) = self.weight {
            let mut body = who;
            body["weight"] = weight.into();
            words.push(say("weight", &body));
        }
        words
    }
}

fn said(report: &Report) -> String {
    report.to_string().trim_end().replace('\n', "; ")
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("there is no {what} {name:?}; did you mean {near:?}?"),
        None => format!("there is no {what} {name:?}; there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}
