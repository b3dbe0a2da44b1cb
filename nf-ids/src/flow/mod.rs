//! The table of flows, and what is known of each.
//!
//! ```text
//! packet ─▶ key: addresses, ports, protocol, VLANs, depth of tunnels ─▶ table ─▶ flow: direction, state, session
//!                                                                         └─▶ ended by time or for room ─▶ engine
//! ```
//! A flow is found by a key that is the same in both directions. `onvm_lib::flow_table` keeps flows by the key that packets
//! are spread by, in which VLANs and tunnels do not count; here they do, as the same addresses may mean other hosts in
//! another VLAN or tunnel, and the pieces of two sessions must not be put together.
//!
//! The table is bounded: when it is full, a new flow takes the place of one that is closed, or only half open, or longest
//! silent. Time is that of the packets, so that a replayed capture ends its flows as the live traffic did.

mod hand_over;
mod key;
mod table;
mod view;

pub use hand_over::Carried;
pub use key::{End, Found, Key};
pub use table::{Flow, Lookup, Place, State, Table, Timeouts};
pub use view::{Direction, FlowView, Presence};
