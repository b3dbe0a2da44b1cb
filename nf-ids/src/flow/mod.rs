//! The table of flows, and what is known of each.
