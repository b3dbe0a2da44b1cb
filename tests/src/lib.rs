//! What the tests share: starting managers and network functions, waiting for them with a limit, and reading
//! what they leave.
//!
//! Everything here is about real processes. A [`Lab`] is a directory of its own with a control socket of its
//! own; whatever was started in it is killed when the test ends, also when it panics.

mod built;
mod captures;
mod dice;
mod lab;
mod ledger;
mod mock;
mod process;
pub mod soak;
mod supervised;
pub mod traffic;
pub mod wire;

pub use built::{program, with_dpdk};
pub use captures::{Packet, made_capture, read_capture, read_so_far, same_by_flow, sample, write_capture};
pub use dice::Dice;
pub use lab::{LIMIT, Lab, Manager};
pub use ledger::{Instance, Ledger};
pub use mock::{Mock, MockNf};
pub use process::{End, Process};
pub use supervised::{last_report, runs, signal_pid, wait_until};
