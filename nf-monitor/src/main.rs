//! nf-monitor: watches traffic go by and says what it is.
//!
//! # Theory of operation
//! ```text
//! packet ─▶ headers, once ─┬▶ protocols   counts by EtherType and IP protocol, sizes, what is broken
//!                          ├▶ rates       packets and bytes over time
//!                          └▶ table       flows, both directions in one entry
//!                                │ idle, evicted
//!                                ▼
//!                              ended      totals of hosts, and the largest flows that are over
//! ```
//! Every packet goes on unchanged; the program has its pool mapped for reading only. Hosts are not counted
//! packet by packet: a host's total is the sum of its flows, those in the table and those that ended, and is
//! put together when a report is asked for.
//!
//! All tables are bounded. What did not fit is counted and shown (`evicted`, `refused`, `forgotten`); the
//! counts by protocol are always complete.
//!
//! Lengths are of frames from the Ethernet header on, without preamble and check sequence. Over a capture
//! (`--replay`) they are what was on the wire, even if the capture is cut.
#![forbid(unsafe_code)]

mod ended;
mod flow;
mod monitor;
mod protocols;
mod rates;
mod report;
mod state;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use onvm_lib::prelude::*;

use flow::Sort;
use monitor::Monitor;
use state::State;

/// Options of its own.
#[derive(Args, Clone, Debug)]
struct Options {
    /// Flows and hosts to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    top: u16,

    /// What makes a flow or host large
    #[arg(long, value_enum, default_value_t = Sort::Bytes)]
    sort: Sort,

    /// A flow that is silent for this many seconds is over
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flow_timeout: u32,

    /// Flows kept at most; a new one then takes the place of one that was silent for longer
    #[arg(long, value_name = "N", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_flows: u32,
}

#[derive(Debug)]
struct Watch {
    monitor: Monitor,
    replay: bool,
}

impl NetworkFunction for Watch {
    type Options = Options;
    type Access = ReadOnly;
    type State = State;
    const NAME: &'static str = "nf-monitor";
    const ABOUT: &'static str = "Counts protocols, flows and top talkers; every packet goes on unchanged";
    const STATE_VERSION: u32 = 1;
    /// Short, so that each search for silent flows is, too.
    const TICK: Duration = Duration::from_millis(100);

    fn setup(options: &Options, setup: &Setup) -> Result<Self, SetupError> {
        let timeout = Duration::from_secs(u64::from(options.flow_timeout));
        let top = usize::from(options.top);
        let monitor = Monitor::new(options.max_flows as usize, timeout, top, options.sort);
        Ok(Self { monitor, replay: setup.replay })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        let now_ns = burst.now_ns();
        if self.replay {
            for packet in burst.packets() {
                // Files without times have 0; the replay's clock then stands still.
                let at_ns = Some(packet.timestamp_ns()).filter(|t| *t > 0).unwrap_or(now_ns);
                self.monitor.packet(packet.bytes(), packet.wire_length(), packet.hash(), at_ns);
            }
        } else {
            for packet in burst.packets() {
                let frame = packet.bytes();
                self.monitor.packet(frame, frame.len(), packet.hash(), now_ns);
            }
        }
    }

    fn tick(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        self.monitor.tick(burst.now_ns());
    }

    fn hand_over(&mut self) -> Option<State> {
        Some(State::of(&self.monitor))
    }

    fn take_over(&mut self, state: State) -> Result<(), String> {
        state.restore(&mut self.monitor)
    }

    fn report(&self) -> Report {
        report::of(&self.monitor)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Watch>()
}
