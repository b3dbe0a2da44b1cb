//! Packet headers: typed, bounds-checked, in-place views.
