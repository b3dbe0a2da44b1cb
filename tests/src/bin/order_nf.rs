//! An NF for tests: looks whether the packets of `gen:sequence=1` come in order, flow by flow.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use onvm_lib::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Args, Debug)]
struct Options {
    /// Flows of the generator: then a gap in a flow shows how many of its packets are missing
    #[arg(long, default_value_t = 1)]
    flows: u64,
    /// Look at packets from this port only
    #[arg(long)]
    port: Option<u8>,
    /// Keep the report in a file, too, as it is now
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// What was seen since the manager was started.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Seen {
    packets: u64,
    /// Last number of each flow.
    last: HashMap<u32, u64>,
    reordered: u64,
    missing: u64,
    /// The first few that came late: flow, number, the number before it.
    examples: Vec<(u32, u64, u64)>,
    /// Longest time without a packet.
    longest_gap_ns: u64,
    last_ns: u64,
    /// Managers that were lost.
    managers_lost: u32,
}

struct Order {
    flows: u64,
    port: Option<u8>,
    file: Option<PathBuf>,
    /// A successor writes the file now.
    handed_over: bool,
    seen: Seen,
}

impl Order {
    fn facts(&self) -> serde_json::Value {
        let seen = &self.seen;
        serde_json::json!({
            "packets": seen.packets,
            "flows": seen.last.len(),
            "reordered": seen.reordered,
            "missing": seen.missing,
            "examples": seen.examples,
            "longest_gap_us": seen.longest_gap_ns / 1000,
            "managers_lost": seen.managers_lost,
        })
    }

    /// Keeps what was seen where others can read it.
    fn write(&self) {
        let Some(file) = self.file.as_ref().filter(|_| !self.handed_over) else { return };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut facts = self.facts();
        facts["written_us"] = u64::try_from(since.as_micros()).unwrap_or(0).into();
        facts["pid"] = std::process::id().into();
        let whole = file.with_extension(std::process::id().to_string());
        let _ = std::fs::write(&whole, facts.to_string()).and_then(|()| std::fs::rename(&whole, file));
    }
}

impl NetworkFunction for Order {
    type Options = Options;
    type Access = ReadOnly;
    type State = Seen;
    const NAME: &'static str = "order_nf";
    const ABOUT: &'static str = "Looks whether packets come in order; for tests";
    const STATE_VERSION: u32 = 1;
    const TICK: Duration = Duration::from_millis(50);

    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        let (flows, port, file) = (options.flows, options.port, options.keep.clone());
        Ok(Self { flows, port, file, handed_over: false, seen: Seen::default() })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        let now_ns = burst.now_ns();
        self.handed_over = false;
        let seen = &mut self.seen;
        if seen.last_ns > 0 {
            seen.longest_gap_ns = seen.longest_gap_ns.max(now_ns.saturating_sub(seen.last_ns));
        }
        seen.last_ns = now_ns;
        for packet in burst.packets() {
            if self.port.is_some() && packet.port() != self.port {
                continue;
            }
            seen.packets += 1;
            let Some(number) = packet.bytes().last_chunk::<8>() else { continue };
            let number = u64::from_be_bytes(*number);
            match seen.last.insert(packet.hash(), number) {
                Some(last) if number <= last => {
                    seen.reordered += 1;
                    if seen.examples.len() < 10 {
                        seen.examples.push((packet.hash(), number, last));
                    }
                    seen.last.insert(packet.hash(), last);
                }
                Some(last) => seen.missing += ((number - last) / self.flows).saturating_sub(1),
                None => seen.missing += number / self.flows,
            }
        }
    }

    fn tick(&mut self, _: &mut Burst<'_, ReadOnly>) {
        self.write();
    }

    fn teardown(&mut self, _: &mut Burst<'_, ReadOnly>) {
        self.write();
    }

    fn hand_over(&mut self) -> Option<Seen> {
        self.handed_over = true;
        Some(self.seen.clone())
    }

    fn take_over(&mut self, state: Seen) -> Result<(), String> {
        self.seen = state;
        Ok(())
    }

    /// The next manager numbers its packets anew.
    fn manager_lost(&mut self) {
        self.seen = Seen { managers_lost: self.seen.managers_lost + 1, ..Seen::default() };
    }

    fn report(&self) -> Report {
        let facts = self.facts();
        Report::new(facts.to_string(), &facts)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Order>()
}
