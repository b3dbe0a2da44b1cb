//! Packets as a network function sees them: a burst in its hands, a verdict on each.
//!
//! The verdict stands in the descriptor itself, so a packet that the NF leaves alone costs nothing here.

mod burst;
mod verdict;

pub use burst::{Access, Burst, Clock, Emitter, MAX_BURST, Packet, ReadOnly, ReadWrite};
pub(crate) use burst::{HELD, Held, MAX_ENTRIES};
pub use verdict::{DropReason, Verdict};
