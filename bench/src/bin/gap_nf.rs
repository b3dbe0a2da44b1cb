//! An NF for the benchmark: writes down the times in which flows were silent.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use onvm_lib::prelude::*;

#[derive(Args, Debug)]
struct Options {
    /// Silences that are at least so long are written down
    #[arg(long, default_value_t = 50)]
    least_us: u64,
    /// Where to: lines of start and end, in nanoseconds since 1970-01-01 UTC
    #[arg(long)]
    out: PathBuf,
}

struct Gaps {
    least_ns: u64,
    out: File,
    last: HashMap<u32, u64>,
    gaps: u64,
}

impl NetworkFunction for Gaps {
    type Options = Options;
    type Access = ReadOnly;
    type State = ();
    const NAME: &'static str = "gap_nf";
    const ABOUT: &'static str = "Writes down the times in which flows were silent";

    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        let out = File::create(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;
        Ok(Self { least_ns: options.least_us * 1000, out, last: HashMap::new(), gaps: 0 })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        let now_ns = burst.now_ns();
        let mut lines = String::new();
        for packet in burst.packets() {
            let Some(last) = self.last.insert(packet.hash(), now_ns) else { continue };
            if now_ns.saturating_sub(last) >= self.least_ns {
                lines.push_str(&format!("{last} {now_ns}\n"));
                self.gaps += 1;
            }
        }
        if !lines.is_empty()
            && let Err(error) = self.out.write_all(lines.as_bytes())
        {
            log::error!("cannot write: {error}");
        }
    }

    fn report(&self) -> Report {
        Report::new(format!("{} silences", self.gaps), &self.gaps)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Gaps>()
}
