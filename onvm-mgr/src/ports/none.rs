//! `none:`: a number without a port.
//!
//! It keeps the numbers of the ports behind it, and with them the pairs: 0 and 1, 2 and 3, and so on, whether there is a port
//! or not. What would go out of it is dropped as `no-such-port`.

use onvm_lib::pool::{Books, Packet};

use super::{Port, PortCounters, PortError, Reception};

/// The kind, as it is written.
pub(crate) const NONE: &str = "none:";

/// Nothing.
#[derive(Debug)]
pub(super) struct NoPort;

impl Port for NoPort {
    fn name(&self) -> &str {
        NONE
    }

    fn is_absent(&self) -> bool {
        true
    }

    fn waits(&self) -> bool {
        true
    }

    fn receive(&mut self, _: &mut Books, _: &mut Vec<Packet>, _: usize) -> Reception {
        Reception::Finished
    }

    fn send(&mut self, _: &mut Books, _: &mut Vec<Packet>) {}

    fn close(&mut self, _: &mut Books) -> Result<(), PortError> {
        Ok(())
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}
