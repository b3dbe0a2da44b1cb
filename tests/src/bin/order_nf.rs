//! An NF for tests: looks whether the packets of `gen:sequence=1` come in order, flow by flow.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Args;
use onvm_lib::prelude::*;

#[derive(Args, Debug)]
struct Options {
    /// Flows of the generator: then a gap in a flow shows how many of its packets are missing
    #[arg(long, default_value_t = 1)]
    flows: u64,
}

struct Order {
    flows: u64,
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
}

impl NetworkFunction for Order {
    type Options = Options;
    type Access = ReadOnly;
    type State = ();
    const NAME: &'static str = "order_nf";
    const ABOUT: &'static str = "Looks whether packets come in order; for tests";

    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        Ok(Self {
            flows: options.flows,
            packets: 0,
            last: HashMap::new(),
            reordered: 0,
            missing: 0,
            examples: Vec::new(),
            longest_gap_ns: 0,
            last_ns: 0,
        })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        let now_ns = burst.now_ns();
        if self.last_ns > 0 {
            self.longest_gap_ns = self.longest_gap_ns.max(now_ns.saturating_sub(self.last_ns));
        }
        self.last_ns = now_ns;
        for packet in burst.packets() {
            self.packets += 1;
            let Some(number) = packet.bytes().last_chunk::<8>() else { continue };
            let number = u64::from_be_bytes(*number);
            match self.last.insert(packet.hash(), number) {
                Some(last) if number <= last => {
                    self.reordered += 1;
                    if self.examples.len() < 10 {
                        self.examples.push((packet.hash(), number, last));
                    }
                    self.last.insert(packet.hash(), last);
                }
                Some(last) => self.missing += ((number - last) / self.flows).saturating_sub(1),
                None => self.missing += number / self.flows,
            }
        }
    }

    fn report(&self) -> Report {
        let facts = serde_json::json!({
            "packets": self.packets,
            "flows": self.last.len(),
            "reordered": self.reordered,
            "missing": self.missing,
            "examples": self.examples,
            "longest_gap_us": self.longest_gap_ns / 1000,
        });
        Report::new(facts.to_string(), &facts)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Order>()
}
