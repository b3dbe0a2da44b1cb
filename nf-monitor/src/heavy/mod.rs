//! What stands out of a stream that is too long to be kept: who sends most, and who speaks to most.

mod space_saving;
mod spreaders;

pub(crate) use space_saving::{SavedCounters, SpaceSaving};
pub(crate) use spreaders::{STANDARD_ERROR, SavedSpreaders, Spreader, Spreaders};
