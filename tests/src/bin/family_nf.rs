//! An NF for tests: starts children of its own service, and all of them talk to each other.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use onvm_lib::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Args, Debug)]
struct Options {
    /// Children to start
    #[arg(long, default_value_t = 0)]
    children: usize,
    /// Leave when all have answered
    #[arg(long)]
    brief: bool,
}

/// What a child says to its parent, and everyone to whoever calls the roll.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Here {
    instance: Option<InstanceId>,
    parent: Option<InstanceId>,
    pid: u32,
}

struct Family {
    control: Control,
    service: ServiceId,
    me: Here,
    children: usize,
    brief: bool,
    greeted: bool,
    started: BTreeSet<u32>,
    born: BTreeMap<InstanceId, u32>,
    here: BTreeSet<Here>,
    failures: Vec<String>,
}

impl Family {
    fn try_to<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result.inspect_err(|error| self.failures.push(error.to_string())).ok()
    }

    fn tell(&mut self, target: Target, topic: &str, body: &impl Serialize) {
        let told = self.control.tell(target, topic, body);
        self.try_to(told);
    }
}

impl NetworkFunction for Family {
    type Options = Options;
    type Access = ReadOnly;
    type State = ();
    const NAME: &'static str = "family_nf";
    const ABOUT: &'static str = "Starts children and talks to them; for tests";
    const TICK: Duration = Duration::from_millis(10);

    fn setup(options: &Options, setup: &Setup) -> Result<Self, SetupError> {
        Ok(Self {
            control: setup.control.clone(),
            service: setup.service.unwrap_or(0),
            me: Here { instance: setup.instance, parent: setup.parent, pid: std::process::id() },
            children: options.children,
            brief: options.brief,
            greeted: false,
            started: BTreeSet::new(),
            born: BTreeMap::new(),
            here: BTreeSet::new(),
            failures: Vec::new(),
        })
    }

    fn burst(&mut self, _: &mut Burst<'_, ReadOnly>) {}

    fn tick(&mut self, _: &mut Burst<'_, ReadOnly>) {
        if std::mem::replace(&mut self.greeted, true) {
            return;
        }
        for _ in 0..self.children {
            let child = self.control.spawn_child(&["--children", "0", "--name", "child"]);
            let pid = self.try_to(child);
            self.started.extend(pid);
        }
        if let Some(parent) = self.me.parent {
            let me = self.me.clone();
            self.tell(Target::Instance(parent), "born", &me);
        }
    }

    fn message(&mut self, message: &Message) {
        match (message.topic.as_str(), message.from) {
            ("born", Some(from)) => {
                let Some(child) = self.try_to(message.read::<Here>()) else { return };
                self.born.insert(from, child.pid);
                if self.born.len() == self.children {
                    let (siblings, all) = (Target::Service(self.service), self.children);
                    self.tell(siblings, "roll-call", &all);
                }
            }
            ("roll-call", Some(from)) => {
                let me = self.me.clone();
                self.tell(Target::Instance(from), "here", &me);
            }
            ("here", Some(_)) => {
                let here = self.try_to(message.read::<Here>());
                self.here.extend(here);
            }
            // An operator says what is no number.
            _ => {
                self.try_to(message.read::<u32>());
            }
        }
    }

    fn done(&self) -> bool {
        self.brief && self.here.len() > self.children && self.children > 0
    }

    fn report(&self) -> Report {
        let facts = serde_json::json!({
            "parent": self.me.parent,
            "born": self.born,
            "started": self.started,
            "here": self.here,
            "failures": self.failures,
        });
        Report::new(format!("{} children", self.born.len()), &facts)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Family>()
}
