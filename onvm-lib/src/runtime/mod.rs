//! What runs a network function: its trait, its command line, its life.
//!
//! An NF is a type that implements [`NetworkFunction`] and one line of `main`:
//!
//! ```no_run
//! use onvm_lib::prelude::*;
//!
//! struct Count(u64);
//!
//! impl NetworkFunction for Count {
//!     type Options = NoOptions;
//!     type Access = ReadOnly;
//!     type State = ();
//!     const NAME: &'static str = "nf-count";
//!     const ABOUT: &'static str = "Counts packets";
//!
//!     fn setup(_: &NoOptions, _: &Setup) -> Result<Self, SetupError> {
//!         Ok(Self(0))
//!     }
//!     fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
//!         self.0 += burst.len() as u64;
//!     }
//!     fn report(&self) -> Report {
//!         Report::new(format!("{} packets", self.0), &self.0)
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     onvm_lib::run::<Count>()
//! }
//! ```
//!
//! # Two ways to run
//! ```text
//! live (-r 1 -d 2)      attach → [ take → NF → dispatch → publish → release ]* → leave
//! replay (--replay f)   read → NF → write, no manager, no shared memory
//! ```
//! Both run the same NF code over the same kind of [`Burst`].
//!
//! # A life under a manager
//! ```text
//!              ┌──────────────────── next manager: reattached ────────────────────┐
//!              ▼                                                                  │
//! setup ─▶ [ take_over ] ─▶ running ──manager dies: manager_lost──▶ waiting ──────┤
//!                           │   ▲                                                 │ time over, refused,
//!           Pause, HandOver │   │ Resume                                          │ signal, -t
//!                           ▼   │                                                 ▼
//!                           paused ──────Stop, signal, -t, done──────▶ teardown, report ─▶ gone
//! ```
//! | State | Packets | What is called |
//! |---|---|---|
//! | running | taken, a burst at a time | [`burst`], [`produce`], [`tick`], [`message`] |
//! | paused | wait in its rings | [`tick`], [`message`]; packets held back can be let go |
//! | waiting | gone with the dead manager, those held back too | nothing |
//!
//! *Pause.* The manager asks for it; the NF sleeps, but time passes for it and it can be told to stop. The NF
//! itself is not told.
//!
//! *Hand-over.* [`hand_over`] gives the state for a successor and pauses the NF; its successor gets it by
//! [`take_over`] before its first packet. An NF that hands over sets [`State`] and [`STATE_VERSION`]; the runtime
//! takes care that a state of another NF, of another version, or with a wrong checksum does not come to
//! `take_over`. The manager lets the old instance go on if the new one answers with an error.
//!
//! *Re-attaching.* A manager that ends without saying Stop has died. The NF object lives on, and looks for a
//! manager at the same socket, first after 1 ms, then ever more seldom down to every 50 ms, for `--reattach` seconds
//! (30; 0 leaves at once). It may get another instance id. Its own report goes on counting, as do the figures that
//! the runtime prints in front of it; those in the manager's tables start anew. When nobody comes in time, it ends
//! with exit code 1.
//!
//! # Others
//! [`Setup::control`] sends typed messages to other NFs and starts further instances of the NF's own service.
//!
//! [`burst`]: NetworkFunction::burst
//! [`produce`]: NetworkFunction::produce
//! [`tick`]: NetworkFunction::tick
//! [`message`]: NetworkFunction::message
//! [`hand_over`]: NetworkFunction::hand_over
//! [`take_over`]: NetworkFunction::take_over
//! [`State`]: NetworkFunction::State
//! [`STATE_VERSION`]: NetworkFunction::STATE_VERSION

mod attach;
mod children;
mod config;
mod control;
mod dispatch;
mod hand_over;
mod hands;
mod live;
mod options;
mod printer;
mod replay;
mod route;
mod tell;

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::packet::{Access, Burst};
use crate::protocol::{InstanceId, Message, ServiceId};

pub use options::{Common, NoOptions};
pub use printer::Printer;
pub use tell::{Control, ControlError};

/// What an NF says of its work.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// For people: lines without an end of line after the last.
    pub text: String,
    /// For machines.
    pub json: serde_json::Value,
    /// On a terminal, the reports of `-p` are drawn over each other.
    pub in_place: bool,
    /// Standard output is taken by what the NF writes: the report goes to standard error.
    pub aside: bool,
}

impl Report {
    /// A report; a value that cannot be JSON (a map with keys that are no strings) becomes null.
    #[must_use]
    pub fn new(text: String, value: &impl Serialize) -> Self {
        Self { text, json: serde_json::to_value(value).unwrap_or_default(), ..Self::default() }
    }

    /// The report, to be drawn over the one before.
    #[must_use]
    pub fn in_place(self) -> Self {
        Self { in_place: true, ..self }
    }

    /// The report, to standard error.
    #[must_use]
    pub fn aside(self) -> Self {
        Self { aside: true, ..self }
    }
}

/// Why an NF cannot start, in words for its user.
#[derive(Debug)]
pub struct SetupError(pub String);

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SetupError {}

impl From<String> for SetupError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// What an NF knows of its place when it starts.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its service; none in a replay without `-r`.
    pub service: Option<ServiceId>,
    /// Its instance id; none in a replay.
    pub instance: Option<InstanceId>,
    /// Longest packet that fits a buffer, in bytes.
    pub packet_room: usize,
    /// It runs over a capture, alone.
    pub replay: bool,
    /// Reports are for machines.
    pub json: bool,
    /// How often a report is asked for while packets come; none: at the end only.
    pub print_interval: Option<Duration>,
    /// The instance that started this one ([`Control::spawn_child`]), if one did.
    pub parent: Option<InstanceId>,
    /// To tell other NFs something, and to start children.
    pub control: Control,
}

/// A network function.
pub trait NetworkFunction: Sized {
    /// Options of its own, beside the common ones.
    type Options: clap::Args;
    /// [`crate::packet::ReadOnly`] or [`crate::packet::ReadWrite`].
    type Access: Access;
    /// What it hands to a successor; `()` for those that hand over nothing. Plain structures, enumerations, lists
    /// and maps: the format (postcard) knows no `#[serde(flatten)]`, no `untagged` and no `serde_json::Value`.
    type State: Serialize + DeserializeOwned;
    /// Name of the program.
    const NAME: &'static str;
    /// What it does, in a sentence.
    const ABOUT: &'static str;
    /// Whether it makes packets: [`Burst::make`] then finds buffers, and [`NetworkFunction::produce`] is called.
    const EMITS: bool = false;
    /// Version of [`NetworkFunction::State`], to be raised whenever that changes; 0: the NF hands over nothing.
    const STATE_VERSION: u32 = 0;
    /// Names of options of its own with which it does something by itself ([`NetworkFunction::alone`]): they need
    /// neither `-r` nor `--replay`.
    const ALONE: &'static [&'static str] = &[];
    /// How often [`NetworkFunction::tick`] is called at least.
    const TICK: Duration = Duration::from_secs(1);

    /// What it does without packets, if its options ask for that: a file is checked, a question answered. None: it is
    /// to run. With `json` it answers machines.
    fn alone(_options: &Self::Options, _json: bool) -> Option<ExitCode> {
        None
    }

    /// Makes the NF from its options; called once.
    ///
    /// # Errors
    /// [`SetupError`] says what the user must do; the program ends with exit code 1.
    fn setup(options: &Self::Options, setup: &Setup) -> Result<Self, SetupError>;

    /// Works on a burst. Packets that get no verdict go on ([`crate::packet::Verdict::Next`]).
    fn burst(&mut self, burst: &mut Burst<'_, Self::Access>);

    /// Time passes: expire, let go of held packets. No packets came in.
    fn tick(&mut self, _burst: &mut Burst<'_, Self::Access>) {}

    /// Makes packets, if it sets `EMITS`: called once a round. Returns when it wants to be called again at the
    /// latest; none if only incoming packets matter.
    fn produce(&mut self, _burst: &mut Burst<'_, Self::Access>) -> Option<Duration> {
        None
    }

    /// A successor is about to take over: what it has to know; none if there is nothing. No packets come after this,
    /// unless the manager lets the NF go on because its successor failed, so it must keep its own state. Time still
    /// passes for it, and it lets go of the packets that it holds: those are no part of the state.
    fn hand_over(&mut self) -> Option<Self::State> {
        None
    }

    /// The state of the predecessor, before the first packet that it did not see. It is of this
    /// [`NetworkFunction::STATE_VERSION`] and whole; whether it makes sense, and fits the options, is for the NF to
    /// check: the predecessor may have been started with others.
    ///
    /// # Errors
    /// Why it is not taken, for the operator; the NF is then as it was.
    fn take_over(&mut self, _state: Self::State) -> Result<(), String> {
        Err(format!("{} takes over no state", Self::NAME))
    }

    /// The manager has died. Packets under way are gone with it, and so are packets held back: their tickets mean
    /// nothing any more and must be forgotten. The NF now waits for the next manager (`--reattach`); meanwhile
    /// nothing is called.
    fn manager_lost(&mut self) {}

    /// There is a manager again, perhaps with another instance id and other buffers.
    fn reattached(&mut self, _setup: &Setup) {}

    /// A message from an operator or another NF.
    fn message(&mut self, _message: &Message) {}

    /// What it has to say of its work so far.
    fn report(&self) -> Report;

    /// Whether its work is done and it wants to leave.
    fn done(&self) -> bool {
        false
    }

    /// The last call; held packets can be let go.
    fn teardown(&mut self, _burst: &mut Burst<'_, Self::Access>) {}
}

/// Runs an NF: parses the command line, attaches or replays, works until told to stop.
///
/// Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong command line.
#[must_use]
pub fn run<N: NetworkFunction>() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let invocation = match options::parse::<N>(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(code) => return code,
    };
    if let Some(code) = N::alone(&invocation.own, invocation.common.json) {
        return code;
    }
    let outcome = if invocation.common.replay.is_some() {
        replay::run::<N>(&invocation.common, &invocation.own)
    } else {
        live::run::<N>(&invocation.common, &invocation.own, invocation.for_children)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", N::NAME);
            ExitCode::FAILURE
        }
    }
}

/// A report in the form asked for, with its end of line: one line of JSON, or text under a heading.
fn written_report(
    common: &Common,
    name: &str,
    facts: &serde_json::Value,
    heading: &str,
    report: &Report,
) -> String {
    use std::io::IsTerminal;
    let mut line = if common.json {
        let mut object = serde_json::json!({ "nf": common.name.as_deref().unwrap_or(name) });
        if let (Some(to), Some(from)) = (object.as_object_mut(), facts.as_object()) {
            to.extend(from.clone());
            to.insert("report".into(), report.json.clone());
        }
        object.to_string()
    } else {
        format!("{}: {heading}\n{}", common.name.as_deref().unwrap_or(name), report.text)
    };
    if report.in_place
        && common.print_interval.is_some()
        && !common.json
        && !reports_to_stderr(common, report)
        && std::io::stdout().is_terminal()
    {
        line = drawn_over(&line);
    }
    line + "\n"
}

/// A capture, or records, may be going to standard output: reports then go to standard error.
fn reports_to_stderr(common: &Common, report: &Report) -> bool {
    report.aside || common.write.as_deref().is_some_and(|w| w.as_os_str() == "-")
}

/// Prints a report and waits for whoever reads it: in a replay nobody else is waiting.
fn print_report(common: &Common, name: &str, facts: &serde_json::Value, heading: &str, report: &Report) {
    use std::io::Write;
    let text = written_report(common, name, facts, heading, report);
    let written = if reports_to_stderr(common, report) {
        std::io::stderr().lock().write_all(text.as_bytes())
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
    if let Err(error) = written {
        log::debug!("cannot print the report: {error}");
    }
}

/// Lines that cover what stands on a terminal: from the upper left corner, each wiped to its end, nothing below.
fn drawn_over(lines: &str) -> String {
    const HOME: &str = "\x1b[H";
    const WIPE_LINE: &str = "\x1b[K";
    const WIPE_BELOW: &str = "\x1b[J";
    format!("{HOME}{}{WIPE_LINE}{WIPE_BELOW}", lines.replace('\n', &format!("{WIPE_LINE}\n")))
}
