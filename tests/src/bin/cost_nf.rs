//! An NF for tests and benchmarks: every packet costs so many cycles, and nothing else becomes of it.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use onvm_lib::prelude::*;

/// What a cycle takes: processors differ, and change their minds.
const NS_PER_CYCLE: f64 = 1.0 / 3.0;
/// Steps of one measurement of what a step takes, and how many measurements there are.
const STEPS: u64 = 20_000;
const MEASUREMENTS: usize = 30;

#[derive(Args, Debug)]
struct Options {
    /// Cycles that each packet takes, of a processor with 3 GHz
    #[arg(long, default_value_t = 100)]
    cycles: u32,
}

#[derive(Debug)]
struct Cost {
    steps: u64,
    packets: u64,
}

/// Steps that depend on each other, so that none is left out or done beside another.
fn spin(steps: u64) {
    let mut x = black_box(1u64);
    for _ in 0..steps {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    black_box(x);
}

/// What a step takes when nobody takes the processor away meanwhile.
#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn step_ns() -> f64 {
    let once = |_| {
        let start = Instant::now();
        spin(STEPS);
        start.elapsed().as_nanos() as f64 / STEPS as f64
    };
    (0..MEASUREMENTS).map(once).fold(f64::INFINITY, f64::min)
}

impl NetworkFunction for Cost {
    type Options = Options;
    type Access = ReadOnly;
    type State = ();
    const NAME: &'static str = "cost_nf";
    const ABOUT: &'static str = "Spends time on every packet; for tests";

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        let steps = f64::from(options.cycles) * NS_PER_CYCLE / step_ns();
        Ok(Self { steps: steps.round() as u64, packets: 0 })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        for _ in 0..burst.len() {
            spin(self.steps);
        }
        self.packets += burst.len() as u64;
    }

    fn report(&self) -> Report {
        let facts = serde_json::json!({ "packets": self.packets, "steps": self.steps });
        Report::new(format!("{} packets", self.packets), &facts)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Cost>()
}
