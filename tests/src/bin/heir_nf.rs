//! An NF for tests: hands its count to its successor, and fails or takes its time wherever it is told to.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use onvm_lib::prelude::*;

#[derive(Args, Debug)]
struct Options {
    /// Where it dies
    #[arg(long)]
    die: Option<At>,
    /// Where it takes its time
    #[arg(long)]
    slow: Option<At>,
    /// How long that is
    #[arg(long, default_value_t = 300)]
    slow_ms: u64,
    /// Say no to any state
    #[arg(long)]
    refuse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum At {
    Setup,
    HandOver,
    TakeOver,
}

struct Heir {
    options: Options,
    packets: u64,
    inherited: u64,
}

impl Options {
    fn reach(&self, at: At) {
        if self.slow == Some(at) {
            std::thread::sleep(Duration::from_millis(self.slow_ms));
        }
        if self.die == Some(at) {
            std::process::abort();
        }
    }
}

impl NetworkFunction for Heir {
    type Options = Options;
    type Access = ReadOnly;
    type State = u64;
    const NAME: &'static str = "heir_nf";
    const ABOUT: &'static str = "Hands its count over, or fails to; for tests";
    const STATE_VERSION: u32 = 1;

    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        let Options { die, slow, slow_ms, refuse } = *options;
        options.reach(At::Setup);
        Ok(Self { options: Options { die, slow, slow_ms, refuse }, packets: 0, inherited: 0 })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        self.packets += burst.len() as u64;
    }

    fn hand_over(&mut self) -> Option<u64> {
        self.options.reach(At::HandOver);
        Some(self.packets)
    }

    fn take_over(&mut self, packets: u64) -> Result<(), String> {
        self.options.reach(At::TakeOver);
        if self.options.refuse {
            return Err("it was told to refuse".into());
        }
        self.packets += packets;
        self.inherited = packets;
        Ok(())
    }

    fn report(&self) -> Report {
        let facts = serde_json::json!({ "packets": self.packets, "inherited": self.inherited });
        Report::new(format!("{} packets", self.packets), &facts)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Heir>()
}
