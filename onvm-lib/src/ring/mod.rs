//! A bounded single-producer single-consumer ring of descriptors between two processes.
//!
//! # Two sides
//! ```text
//! Producer  room  push…  publish            Consumer  take  (work)  release
//! ```
//! The producer writes slots privately and makes a whole burst visible with one store ([`Producer::publish`]).
//! The consumer takes a burst, works on it, publishes what came of it elsewhere, and only then gives the
//! slots back ([`Consumer::release`]). So at every instant the entries between tail and head are the ones
//! that the consumer still answers for: this is *release after forward*.
//!
//! # Turns
//! A node does its work in numbered turns: it takes from its incoming rings, pushes to its outgoing rings,
//! publishes, releases. [`Consumer::take`] writes the turn beside the position after what it took, before
//! the first packet byte is touched; the first [`Producer::push`] of a turn writes the turn beside the head
//! as it was. When the node dies, at any instruction, these say exactly what it had in its hands and what of
//! that it had already passed on:
//!
//! ```text
//!   incoming ring   tail ──in its hands──▶ taken ──untouched──▶ head
//!   outgoing ring   mark ──passed on in this turn──▶ head        (only if both turns are the same)
//! ```
//! [`Ring::remains`] and [`Ring::passed_on`] read them; the reaper in the manager decides by them. (The design
//! first told a successor by its hop count; a packet that circles has the same count again after 256 hops,
//! and a scan of the whole ring is slower than two stores a burst. A turn has neither fault.)
//!
//! A turn that pushes more to a ring than it holds overwrites its own entries; it says so, and the reaper then gets
//! [`Overrun`] and leaves the packets of that turn to the audit. A node may also die between its publish and its
//! wake-up call, so the reaper calls in its place ([`Ring::wake_consumer`]).
//!
//! # Who may do what
//! | Position | Written by | May move |
//! |---|---|---|
//! | head, mark, producer's turn | the producer | head forward by what was pushed, never past tail + capacity |
//! | tail, taken, consumer's turn | the consumer; after its death whoever inherits the ring | tail forward up to taken, taken up to head |
//! | sleeping | raised by the consumer, lowered by both; by the reaper for a dead producer | |
//!
//! Prohibited, because a peer would lose or see twice: head moving back; tail moving before the burst is
//! published elsewhere; two live producers or consumers of one ring.
//!
//! # A peer that lies
//! Positions from the other side are checked in release builds: more entries than slots is a
//! [`Violation`], counted by the caller, and the ring is then treated as empty (or full). The consumer copies
//! each descriptor out before it looks at it.
//!
//! # Synchronisation points
//! - `SYNC POINT: publish`: the Release store of head in [`Producer::publish`] pairs with the Acquire loads
//!   of head in [`Consumer::available`]: slots, and the packet bytes behind them, are seen by who sees the head.
//! - `SYNC POINT: release`: the Release store of tail in [`Consumer::release`] pairs with the Acquire load of tail in
//!   [`Producer::room`]: a slot is written again only after its entry was copied out.
//! - `SYNC POINT: bell`: see [`bell`].

pub mod bell;
mod descriptor;
mod layout;
mod remains;
mod spsc;
mod sync;

pub use descriptor::{
    Descriptor, Destination, MAX_ARGUMENT, MAX_BUFFERS, MAX_LENGTH, MAX_OFFSET, MAX_PORT, Op,
};
pub use layout::{Error, MAX_CAPACITY};
pub use remains::{Overrun, Remains};
pub use spsc::{Consumer, Producer, Ring, Violation};

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
