//! The glue: a frame with its time goes in, a verdict comes out.
//!
//! ```text
//! packet() ─▶ layer ─▶ decode ─┬─ inner packet ─▶ layer      (the innermost is inspected first)
//!                              ├─ fragment ─▶ defrag ─ whole ─▶ layer
//!                              └─▶ flow ─▶ stream ─▶ app ─▶ Detection ─▶ verdict: the strictest of all
//! finish(), tick(), time ─▶ flows that end ─▶ pseudo packets, one each way ─▶ Detection
//! ```
//! The engine knows no rules: what is found in packets it shows to a [`Detection`], which keeps what it needs for each flow
//! in the flow. A pseudo packet is made when a TCP flow ends with something unread, so that what a capture or a timeout cut off
//! is inspected, too.

mod hand_over;
mod inspection;
mod layers;
mod sessions;
#[cfg(test)]
mod tests;
mod transfers;

pub use hand_over::{Carried, CarriedKept};
pub use inspection::Inspection;

use std::fmt::Debug;

use onvm_lib::wire::LinkType;

use crate::decode::{self, Begin};
use crate::defrag::{self, Defragmenter};
use crate::flow::{Flow, Table, Timeouts};
use crate::{app, stream};

/// Steps of the search for silent flows in a tick: packets wait meanwhile.
const SWEEPS_A_TICK: usize = 2048;

/// When TCP data is put in order and inspected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// When the receiver has acknowledged it: for looking on.
    #[default]
    Ids,
    /// As it arrives: for deciding about packets.
    Inline,
}

/// What is to be done with a packet. The later is the stricter.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Verdict {
    /// It goes on.
    #[default]
    Pass,
    /// It goes no further.
    Drop,
    /// It goes no further, and its sender is told.
    RejectSource,
    /// It goes no further, and its receiver is told.
    RejectDestination,
    /// It goes no further, and both ends are told.
    RejectBoth,
}

/// What detection says of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What is to be done with it.
    pub verdict: Verdict,
    /// A rule lets it pass and asks no further.
    pub passed: bool,
    /// The same holds for the packets of its flow that follow.
    pub for_flow: bool,
    /// Alerts were raised.
    pub alerted: bool,
}

/// What looks at packets.
pub trait Detection {
    /// What it keeps with each flow.
    type FlowState: Default + Debug;

    /// Whether any rule asks for raw content of streams; else nobody reads it.
    fn wants_raw(&self) -> bool;

    /// Looks at a packet.
    fn inspect(&mut self, seen: &Inspection<'_>, flow: Option<&mut Self::FlowState>) -> Judgement;

    /// In line: a packet goes no further, as its receiver would not take it. It was looked at before.
    fn refused(&mut self, _seen: &Inspection<'_>) {}

    /// A transaction of the packet's flow is complete, or its flow ends, and it was inspected: it is about to be forgotten.
    fn transaction_ended(&mut self, _seen: &Inspection<'_>, _id: u64) {}

    /// A flow has ended; it was inspected to its end.
    fn flow_ended(&mut self, _flow: &Flow<Kept<Self::FlowState>>) {}
}

/// What the engine keeps with each flow.
#[derive(Debug, Default)]
pub struct Kept<F> {
    /// Its application layer, from the first data on.
    pub app: Option<Box<app::State>>,
    /// What detection keeps.
    pub detection: F,
    /// Its session and its transactions were given up for want of memory.
    pub blind: bool,
    /// A rule lets the whole flow pass: it is not inspected any more.
    pub passed: bool,
    /// An alert was raised for it.
    pub alerted: bool,
    /// In line: what a rule says of all packets that follow.
    pub fate: Verdict,
    /// Transactions below these were complete when a packet of the direction was inspected.
    inspected: [u64; 2],
    /// Client and server were exchanged.
    turned: bool,
    /// Which directions the application layer was told to have ended.
    ended: [bool; 2],
}

/// How everything is set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Tunnels.
    pub decode: decode::Settings,
    /// Fragments.
    pub defrag: defrag::Settings,
    /// TCP.
    pub stream: stream::Settings,
    /// Application protocols.
    pub app: app::Limits,
    /// Seconds of silence after which flows end.
    pub timeouts: Timeouts,
    /// Bounds of all flows together.
    pub bounds: Bounds,
    /// Checksums are not verified.
    pub ignore_checksums: bool,
}

/// Bounds of all flows together.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Flows.
    pub flows: usize,
    /// Bytes of streams that wait, and of transactions.
    pub stream_memory: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { flows: 262_144, stream_memory: 256 << 20 }
    }
}

impl Settings {
    /// Settings of a mode.
    #[must_use]
    pub fn of(mode: Mode) -> Self {
        let mut settings = Self::default();
        settings.stream.inline = mode == Mode::Inline;
        settings
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Frames that came.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets inspected: inner ones and those put together count by themselves.
    pub packets: u64,
    /// Packets with something wrong in their headers.
    pub malformed: u64,
    /// TCP segments with a wrong checksum.
    pub bad_checksums: u64,
    /// TCP segments that their receivers would not take.
    pub refused: u64,
    /// Flows given up for want of memory.
    pub blinded: u64,
    /// Pseudo packets at the end of flows.
    pub pseudo: u64,
    /// Frames dropped, rejected ones included.
    pub dropped: u64,
    /// Frames rejected.
    pub rejected: u64,
}

/// Inspects frames.
#[derive(Debug)]
pub struct Engine<D: Detection> {
    settings: Settings,
    defrag: Defragmenter,
    flows: Table<Kept<D::FlowState>>,
    /// What looks at packets.
    pub detection: D,
    /// What was counted.
    pub counts: Counts,
    stream_memory: usize,
    transfers: transfers::Transfers,
    /// Room for datagrams that are put together, one for each depth.
    buffers: Vec<Vec<u8>>,
    now_ns: u64,
}

impl<D: Detection> Engine<D> {
    /// An engine that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings, detection: D) -> Self {
        Self {
            defrag: Defragmenter::new(settings.defrag),
            flows: Table::new(settings.bounds.flows, settings.timeouts),
            settings,
            detection,
            counts: Counts::default(),
            stream_memory: 0,
            transfers: transfers::Transfers::default(),
            buffers: Vec::new(),
            now_ns: 0,
        }
    }

    /// Inspects an Ethernet frame that came at this time (nanoseconds since 1970).
    pub fn packet(&mut self, frame: &[u8], now_ns: u64) -> Verdict {
        self.frame(frame, LinkType::Ethernet, now_ns)
    }

    /// Inspects a frame with any link layer.
    pub fn frame(&mut self, frame: &[u8], link: LinkType, now_ns: u64) -> Verdict {
        // Time does not run backwards for tables, whatever the frames say.
        self.now_ns = self.now_ns.max(now_ns);
        self.counts.frames += 1;
        self.counts.bytes += frame.len() as u64;
        let outside = layers::Outside::default();
        let verdict = self.layer(frame, Begin::Link(link), &outside, now_ns);
        if let Some(flow) = self.flows.sweep(self.now_ns) {
            self.end_flow(flow);
        }
        self.counts.dropped += u64::from(verdict >= Verdict::Drop);
        self.counts.rejected += u64::from(verdict >= Verdict::RejectSource);
        verdict
    }

    /// Time has passed without packets: ends flows that were silent for too long. A call looks at a bounded number of
    /// flows, and the next goes on from there.
    pub fn tick(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        for _ in 0..SWEEPS_A_TICK {
            if let Some(flow) = self.flows.sweep(self.now_ns) {
                self.end_flow(flow);
            }
        }
    }

    /// Nothing follows: ends all flows.
    pub fn finish(&mut self) {
        let mut from = 0;
        while let Some(flow) = self.flows.take_next(&mut from) {
            self.end_flow(flow);
        }
    }

    /// Flows that are followed now.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Flows so far, and those of them that had to make room.
    #[must_use]
    pub fn flows_made(&self) -> (u64, u64) {
        (self.flows.made, self.flows.evicted)
    }

    /// Bytes of streams that wait, and of transactions.
    #[must_use]
    pub fn stream_memory(&self) -> usize {
        self.stream_memory
    }

    /// What was counted of fragments.
    #[must_use]
    pub fn fragments(&self) -> defrag::Counts {
        self.defrag.counts
    }

    /// How it is set.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
