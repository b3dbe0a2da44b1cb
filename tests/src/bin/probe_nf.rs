//! An NF for tests: gives every packet one verdict, and writes down which flows it has seen.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use onvm_lib::prelude::*;

#[derive(Args, Debug)]
struct Options {
    /// next, drop, hold, service=ID or out=PORT
    #[arg(long, default_value = "next", value_parser = say)]
    say: Say,
    /// Where a copy goes: service=ID or out=PORT
    #[arg(long, value_parser = say)]
    mirror: Option<Say>,
    /// Time that each packet takes
    #[arg(long, default_value_t = 0)]
    delay_us: u64,
    /// Time that held packets are held; a message `release` ends it
    #[arg(long, default_value_t = 50)]
    hold_ms: u64,
    /// Drop what cannot be held, so that no packet overtakes one that is held
    #[arg(long)]
    or_drop: bool,
    /// Say that it was set up, and fail
    #[arg(long)]
    fail: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Say {
    Verdict(Verdict),
    Hold,
}

fn say(text: &str) -> Result<Say, String> {
    let number = |n: &str| n.parse::<u16>().map_err(|e| e.to_string());
    Ok(Say::Verdict(match text.split_once('=') {
        None if text == "next" => Verdict::Next,
        None if text == "drop" => Verdict::Drop(DropReason::Denied),
        None if text == "hold" => return Ok(Say::Hold),
        Some(("service", id)) => Verdict::ToService(number(id)?),
        Some(("out", port)) => Verdict::Out(u8::try_from(number(port)?).map_err(|e| e.to_string())?),
        _ => return Err(format!("{text:?} is no verdict")),
    }))
}

struct Probe {
    say: Say,
    mirror: Option<Verdict>,
    delay: Duration,
    hold_ns: u64,
    or_drop: bool,
    /// Tickets and since when, the oldest first.
    held: VecDeque<(u32, u64)>,
    packets: u64,
    messages: Vec<String>,
    /// Managers that it has lost and found.
    lost: u32,
    found: u32,
    flows: BTreeSet<u32>,
    /// Flows that it saw between a message `look` and a message `keep`, which names them.
    kept: BTreeMap<String, BTreeSet<u32>>,
}

impl NetworkFunction for Probe {
    type Options = Options;
    type Access = ReadWrite;
    type State = ();
    const NAME: &'static str = "probe_nf";
    const ABOUT: &'static str = "Gives every packet one verdict; for tests";
    const TICK: Duration = Duration::from_millis(10);

    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        if options.fail {
            return Err("it was told to fail".to_string().into());
        }
        let mirror = options.mirror.and_then(|say| match say {
            Say::Verdict(verdict) => Some(verdict),
            Say::Hold => None,
        });
        Ok(Self {
            say: options.say,
            mirror,
            delay: Duration::from_micros(options.delay_us),
            hold_ns: options.hold_ms * 1_000_000,
            or_drop: options.or_drop,
            held: VecDeque::new(),
            packets: 0,
            messages: Vec::new(),
            lost: 0,
            found: 0,
            flows: BTreeSet::new(),
            kept: BTreeMap::new(),
        })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.packets += burst.len() as u64;
        let now_ns = burst.now_ns();
        for index in 0..burst.len() {
            let mut packet = burst.packet(index);
            self.flows.insert(packet.hash());
            if let Say::Verdict(verdict) = self.say {
                packet.set_verdict(verdict);
            } else if let Some(ticket) = burst.hold(index) {
                self.held.push_back((ticket, now_ns));
            } else if self.or_drop {
                burst.packet(index).set_verdict(Verdict::Drop(DropReason::TableFull));
            }
            if let Some(to) = self.mirror {
                burst.mirror(index, to);
            }
            if !self.delay.is_zero() {
                std::thread::sleep(self.delay);
            }
        }
    }

    fn tick(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        let now_ns = burst.now_ns();
        while let Some((ticket, since)) = self.held.front() {
            if now_ns.saturating_sub(*since) < self.hold_ns {
                break;
            }
            let _ = burst.release(*ticket);
            self.held.pop_front();
        }
    }

    fn teardown(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        for (ticket, _) in self.held.drain(..) {
            let _ = burst.release(ticket);
        }
    }

    fn manager_lost(&mut self) {
        self.held.clear();
        self.lost += 1;
    }

    fn reattached(&mut self, _: &Setup) {
        self.found += 1;
    }

    fn message(&mut self, message: &Message) {
        match message.topic.as_str() {
            "look" => self.flows.clear(),
            "release" => self.hold_ns = 0,
            "keep" => drop(self.kept.insert(message.body.to_string(), std::mem::take(&mut self.flows))),
            _ => self.messages.push(format!("{}: {}", message.topic, message.body)),
        }
    }

    fn report(&self) -> Report {
        let facts = serde_json::json!({
            "packets": self.packets,
            "holds": self.held.len(),
            "messages": self.messages,
            "lost": self.lost,
            "found": self.found,
            "flows": self.flows,
            "kept": self.kept,
        });
        Report::new(format!("{} packets", self.packets), &facts)
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Probe({} packets)", self.packets)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Probe>()
}
