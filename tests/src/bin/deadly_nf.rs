//! An NF for tests: dies of one packet of `gen:sequence=1`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Args;
use onvm_lib::prelude::*;

#[derive(Args, Debug)]
struct Options {
    /// Number of the packet that it dies of
    #[arg(long)]
    number: u64,
}

struct Deadly(u64);

impl NetworkFunction for Deadly {
    type Options = Options;
    type Access = ReadOnly;
    type State = ();
    const NAME: &'static str = "deadly_nf";
    const ABOUT: &'static str = "Dies of one packet; for tests";

    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        Ok(Self(options.number))
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadOnly>) {
        for packet in burst.packets() {
            if packet.bytes().last_chunk() == Some(&self.0.to_be_bytes()) {
                std::process::abort();
            }
        }
    }

    fn report(&self) -> Report {
        Report::new(String::new(), &serde_json::Value::Null)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Deadly>()
}
