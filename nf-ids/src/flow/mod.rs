//! The table of flows, and what is known of each.
//!
//! ```text
//! packet ─▶ key: addresses, ports, protocol, VLANs, depth of tunnels ─▶ table ─▶ flow: direction, state, session
//!                                                                         └─▶ ended by time or for room ─▶ engine
//! ```
//! A flow is found by a key that is the same in both directions. `onvm_lib::flow_table` keeps flows by the key that packets
//! are spread by, in which VLANs and tunnels do not count; here they do, as the same addresses may mean other hosts in
//! another VLAN or tunnel, and the pieces of two sessions must not be put together.

mod view;

pub use view::{Direction, FlowView, Presence};
