//! The network function: packets in bursts, rules that are exchanged between two of them, verdicts, answers.

mod report;
mod tell;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use onvm_lib::prelude::*;
use onvm_lib::reload::{Reloader, Status, TOPIC};

use crate::detect::{Detector, FlowState, Memory, Watch};
use crate::engine::{Carried, Engine, Mode, Verdict as Judged};
use crate::options::{Options, Rules, compile};
use crate::reject::{self, To};
use crate::sets::Sets;
use tell::Tell;

/// Answers to rejected packets a second: a sender that does not listen gets no more than that.
const MOST_ANSWERS: u64 = 1000;
const SECOND_NS: u64 = 1_000_000_000;

/// What was counted beside what the engine counts.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Counts {
    /// Resets and ICMP errors made.
    answers: u64,
    /// Rejections without an answer: it must not be, there were too many, or there was no buffer.
    unanswered: u64,
}

/// What a successor gets.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct State {
    flows: Vec<Carried<FlowState>>,
    memory: Memory,
}

/// Looks for attacks in packets.
#[derive(Debug)]
pub struct Ids {
    engine: Engine<Watch<Tell>>,
    reloader: Reloader<Rules>,
    /// The set in force: what it says of itself.
    rules: Rules,
    /// What rules remember in sets of values.
    sets: Sets,
    /// Hits of rules of sets that were in force before.
    before: std::collections::BTreeMap<(u32, u32), u64>,
    counts: Counts,
    mode: Mode,
    replay: bool,
    /// Second of the last answers, and how many there were in it.
    answered: (u64, u64),
    finished: bool,
}

impl Ids {
    /// Puts a new set in force if there is one. Flows keep what they remember by name.
    fn reload(&mut self) {
        let Some(fresh) = self.reloader.take() else { return };
        let detector = &mut self.engine.detection.detector;
        for (rule, hits) in detector.tables().rules().zip(detector.hits()) {
            if *hits > 0 {
                *self.before.entry((rule.gid, rule.sid)).or_default() += hits;
            }
        }
        detector.replace(Arc::clone(&fresh.tables));
        log::info!("{} rules are in force", fresh.tables.size().rules);
        let old = std::mem::replace(&mut self.rules, fresh);
        self.reloader.retire(old);
    }

    fn reloaded(&self) -> Status {
        self.reloader.status()
    }

    /// Tells those who are to be told that a packet was rejected; whether the packet itself has become what its receiver is
    /// told, and goes on.
    fn answer(
        &mut self,
        judged: Judged,
        index: usize,
        burst: &mut Burst<'_, ReadWrite>,
        now_ns: u64,
    ) -> bool {
        let to: &[To] = match judged {
            Judged::RejectSource => &[To::Sender],
            Judged::RejectDestination => &[To::Receiver],
            Judged::RejectBoth => &[To::Sender, To::Receiver],
            Judged::Pass | Judged::Drop => &[],
        };
        let mut goes_on = false;
        for to in to {
            if self.send_answer(*to, index, burst, now_ns) {
                self.counts.answers += 1;
                goes_on |= *to == To::Receiver;
            } else {
                self.counts.unanswered += 1;
            }
        }
        goes_on
    }

    fn send_answer(&mut self, to: To, index: usize, burst: &mut Burst<'_, ReadWrite>, now_ns: u64) -> bool {
        let second = now_ns / SECOND_NS;
        if self.answered.0 != second {
            self.answered = (second, 0);
        }
        if self.answered.1 >= MOST_ANSWERS {
            return false;
        }
        let mut room = [0; reject::ROOM];
        let mut packet = burst.packet(index);
        let port = packet.port();
        let Some(length) = reject::answer(packet.bytes(), to, &mut room) else { return false };
        let answer = &room[..length];
        if to == To::Receiver {
            // In the packet's place: so it goes where that would have gone.
            if packet.bytes().len() < length {
                return false;
            }
            packet.truncate(length);
            packet.bytes_mut().copy_from_slice(answer);
        } else {
            let Some(mut reply) = burst.make(length) else { return false };
            reply.bytes_mut().copy_from_slice(answer);
            reply.set_hash(wire::Headers::parse(answer).flow_hash(answer));
            if let Some(port) = port {
                reply.set_verdict(Verdict::Out(port));
            }
        }
        self.answered.1 += 1;
        true
    }

    /// Writes the sets that rules fill. A successor reads them when it begins, and writes them in its turn.
    fn save_sets(&self) {
        for error in self.sets.save() {
            log::error!("{error}");
        }
    }

    /// Nothing follows: what is left is inspected and told.
    fn finish(&mut self, now_ns: u64) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.engine.finish();
        if !self.engine.detection.sink.succeeded {
            self.save_sets();
        }
        let counters = report::counters(self);
        let tell = &mut self.engine.detection.sink;
        tell.counters(now_ns, counters);
        tell.flush();
    }
}

impl NetworkFunction for Ids {
    type Options = Options;
    type Access = ReadWrite;
    type State = State;
    const NAME: &'static str = "nf-ids";
    const ABOUT: &'static str = "Finds attacks by Suricata's rules, inline and offline";
    /// Resets and ICMP errors.
    const EMITS: bool = true;
    const STATE_VERSION: u32 = 2;
    const TICK: Duration = Duration::from_millis(100);

    fn setup(options: &Options, setup: &Setup) -> Result<Self, SetupError> {
        let (reading, sets) = (options.clone(), Sets::default());
        let kept = sets.clone();
        let read = move |_: &_| compile(&reading, &kept);
        let (rules, reloader) = Reloader::start(&options.files(), options.watch, read)?;
        let mode = options.mode(setup.replay);
        let (eve, fast) = (options.eve.as_deref(), options.fast.as_deref());
        let tell = Tell::open(eve, fast, &options.eve_types, mode == Mode::Inline, setup.replay)?;
        let watch = Watch::new(Detector::new(Arc::clone(&rules.tables)), tell);
        Ok(Self {
            engine: Engine::new(options.settings(setup.replay), watch),
            reloader,
            rules,
            sets,
            before: std::collections::BTreeMap::new(),
            counts: Counts::default(),
            mode,
            replay: setup.replay,
            answered: (0, 0),
            finished: false,
        })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.reload();
        // Packets come: no successor has taken over.
        self.engine.detection.sink.succeeded &= burst.is_empty();
        let turn_ns = burst.now_ns();
        for index in 0..burst.len() {
            let packet = burst.packet(index);
            // Files without times have 0; the replay's clock then stands still.
            let now_ns = if self.replay {
                Some(packet.timestamp_ns()).filter(|t| *t > 0).unwrap_or(turn_ns)
            } else {
                turn_ns
            };
            let judged = self.engine.packet(packet.bytes(), now_ns);
            let denied = judged >= Judged::Drop && self.mode == Mode::Inline;
            if denied && !self.answer(judged, index, burst, now_ns) {
                burst.packet(index).set_verdict(Verdict::Drop(DropReason::Denied));
            }
        }
    }

    fn tick(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.reload();
        self.engine.tick(burst.now_ns());
        self.engine.detection.sink.flush();
    }

    fn message(&mut self, message: &Message) {
        if message.topic == TOPIC {
            self.reloader.request();
        } else {
            log::warn!("a message about {:?} says nothing to an IDS; it knows {TOPIC:?}", message.topic);
        }
    }

    /// Flows, thresholds and bits of hosts. Data that waits is not handed over but inspected here, at the end.
    fn hand_over(&mut self) -> Option<State> {
        self.engine.detection.sink.succeeded = true;
        self.save_sets();
        Some(State { flows: self.engine.carried(), memory: self.engine.detection.detector.memory() })
    }

    fn take_over(&mut self, state: State) -> Result<(), String> {
        let flows = state.flows.len();
        let without_room = self.engine.adopt(state.flows);
        if without_room > 0 {
            log::warn!("{without_room} of the predecessor's {flows} flows find no room");
        }
        self.engine.detection.detector.remember(state.memory);
        Ok(())
    }

    fn report(&self) -> Report {
        let report = report::of(self);
        if self.engine.detection.sink.takes_stdout() { report.aside() } else { report }
    }

    fn teardown(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.finish(burst.now_ns());
    }
}

/// Runs the program; with `--check`, only looks at the rules.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    crate::options::check(&arguments).unwrap_or_else(onvm_lib::run::<Ids>)
}
