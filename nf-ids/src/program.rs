//! The network function.

use std::process::ExitCode;

use onvm_lib::prelude::*;

/// Looks for attacks in packets.
#[derive(Debug)]
pub struct Ids {
    packets: u64,
}

impl NetworkFunction for Ids {
    type Options = NoOptions;
    type Access = ReadWrite;
    type State = ();
    const NAME: &'static str = "nf-ids";
    const ABOUT: &'static str = "Finds attacks by Suricata's rules, inline and offline";

    fn setup(_: &NoOptions, _: &Setup) -> Result<Self, SetupError> {
        Ok(Self { packets: 0 })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.packets += burst.len() as u64;
    }

    fn report(&self) -> Report {
        Report::new(format!("{} packets", self.packets), &self.packets)
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    onvm_lib::run::<Ids>()
}
