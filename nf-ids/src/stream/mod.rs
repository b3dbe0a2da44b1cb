//! Putting TCP segments in order, with an event for everything that is wrong in them.
