//! From frames to headers and payload, with an event for everything that is wrong in them.
