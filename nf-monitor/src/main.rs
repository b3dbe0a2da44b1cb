//! nf-monitor: watches traffic go by and says what it is.
//!
//! # Theory of operation
//! ```text
//! packet ─▶ headers, once ─┬▶ protocols   counts by EtherType and IP protocol, sizes, what is broken
//!                          ├▶ rates       packets and bytes over time
//!                          └▶ table       flows, both directions in one entry; their application by the first bytes
//!                                │ begun ─▶ spreaders   distinct destinations by source (HyperLogLog)
//!                                │ idle, cut, evicted
//!                                ├─▶ ended     heaviest hosts and flow keys (Space-Saving), applications,
//!                                │             and the largest flows that are over
//!                                └─▶ records   IPFIX, NetFlow, CSV, JSON: each flow once
//! ```
//! Every packet goes on unchanged; the program has its pool mapped for reading only. Hosts, flow keys and
//! applications are not counted packet by packet: a total is the sum of flows, those in the table and those that
//! ended, and is put together when a report is asked for. So a packet costs the same whatever is shown; what is only
//! for records (IP lengths, other keys, the active timeout) is paid for by those who want records.
//!
//! All tables are bounded. What did not fit is counted and shown (`evicted`, `refused`, `replaced`), and how wrong a
//! total may be is shown beside it; the counts by protocol are always complete.
//!
//! *Records* leave beside the packets: UDP at a pace, files by threads of their own. A live monitor waits for none of
//! them; what finds no room is counted. After a hand-over the flows are the successor's, and so are their records.
//!
//! Lengths are of frames from the Ethernet header on, without preamble and check sequence. Over a capture
//! (`--replay`) they are what was on the wire, with the link header that was there, even if the capture is cut.
#![forbid(unsafe_code)]

mod application;
mod ended;
mod export;
mod flow;
mod heavy;
mod keys;
mod live;
mod monitor;
mod options;
mod protocols;
mod rates;
mod records;
mod report;
mod reporter;
mod settings;
mod state;
mod survey;
mod table;
mod timeouts;

use std::process::ExitCode;
use std::time::Duration;

use onvm_lib::prelude::*;

use live::Live;
use monitor::Monitor;
use options::Options;
use records::Outputs;
use report::Picked;
use reporter::Reporter;
use state::State;
use table::{Finished, Reason};

#[derive(Debug)]
struct Watch {
    monitor: Monitor,
    outputs: Outputs,
    live: Option<Live>,
    /// None if no reports come while packets do: nobody waits for the last one.
    reporter: Option<Reporter>,
    replay: bool,
    /// The latest time of a packet or tick.
    now_ns: u64,
}

impl Watch {
    /// Gives the flows that ended to those who want them.
    #[inline]
    fn deliver(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        if self.monitor.settings.records {
            self.outputs.take(&mut self.monitor.table.finished, now_ns);
            self.outputs.poll();
        }
    }

    /// What reports show of all flows, and how old that is: found beside the packets, or else now.
    fn picked(&self) -> (Picked, Option<Duration>) {
        match self.reporter.as_ref().and_then(Reporter::latest) {
            Some((picked, age)) => (picked.clone(), Some(age)),
            None => (Picked::of(&self.monitor), None),
        }
    }
}

impl NetworkFunction for Watch {
    type Options = Options;
    type Access = ReadOnly;
    type State = State;
    const NAME: &'static str = "nf-monitor";
    const ABOUT: &'static str = "Counts protocols, flows and top talkers; every packet goes on unchanged";
    const STATE_VERSION: u32 = 2;
    /// Short, so that each search for silent flows is, too.
    const TICK: Duration = Duration::from_millis(100);

    fn setup(options: &Options, setup: &Setup) -> Result<Self, SetupError> {
        let outputs = Outputs::open(&options.wanted(setup)?)?;
        let live = options.live.map(|seconds| Live::new(Duration::from_secs(seconds.into())));
        let live = live.transpose().map_err(|e| format!("cannot start a thread: {e}"))?;
        let settings = options.settings();
        // Over a capture packets do not mind to wait.
        let drawn = options.live.map(|seconds| Duration::from_secs(seconds.into()));
        let interval = setup.print_interval.into_iter().chain(drawn).min().filter(|_| !setup.replay);
        let reporter = interval.map(|interval| Reporter::start(settings, interval));
        let reporter = reporter.transpose().map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Self { monitor: Monitor::new(settings), outputs, live, reporter, replay: setup.replay, now_ns: 0 })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        let now_ns = burst.now_ns();
        self.outputs.go_on();
        self.monitor.expect(burst.packets().map(|packet| packet.hash()));
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
            // After a hand-over flows end at the successor, but packets end it: this monitor goes on.
            self.monitor.step(now_ns);
            if let Some(reporter) = &mut self.reporter {
                reporter.step(&mut self.monitor);
            }
        }
        self.deliver(now_ns);
    }

    fn tick(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        // After a hand-over flows end at the successor, once.
        if !self.outputs.is_handed_over() {
            self.monitor.tick(burst.now_ns());
            self.deliver(burst.now_ns());
            self.outputs.tick(burst.now_ns());
            if let Some(reporter) = &mut self.reporter {
                reporter.tick(&mut self.monitor);
            }
        }
        if let Some(mut live) = self.live.take() {
            live.draw(&self.monitor, || self.picked().0);
            self.live = Some(live);
        }
    }

    fn hand_over(&mut self) -> Option<State> {
        self.monitor.table.end_survey();
        let sent = self.outputs.hand_over(self.now_ns);
        Some(State::of(&self.monitor, sent))
    }

    fn take_over(&mut self, state: State) -> Result<(), String> {
        state.restore(&mut self.monitor)?;
        self.outputs.resume(&state.sent);
        Ok(())
    }

    fn report(&self) -> Report {
        let (picked, age) = self.picked();
        let mut report = report::of(&self.monitor, &picked, &self.outputs);
        if let Some(age) = age {
            report.json["tables_age_s"] = age.as_secs_f64().into();
        }
        if let Some(live) = &self.live {
            report.json["live_lost"] = live.lost().into();
            if live.lost() > 0 {
                report.text.push_str(&format!("\n\n{} live tables not drawn: nobody looked", live.lost()));
            }
        }
        report
    }

    fn teardown(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        let now_ns = burst.now_ns().max(self.now_ns);
        // The last report is of the very end.
        self.reporter = None;
        self.monitor.table.end_survey();
        self.deliver(now_ns);
        let flows = self.monitor.table.flows();
        let rest = flows.map(|(key, flow)| Finished { key: *key, flow: *flow, reason: Reason::Forced });
        self.outputs.close(rest, now_ns);
        if let Some(live) = &mut self.live {
            live.finish();
        }
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Watch>()
}
