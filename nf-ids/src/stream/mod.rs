//! Putting TCP segments in order, with an event for everything that is wrong in them.

mod event;
mod window;

pub use event::{Event, Events};
pub use window::Window;
