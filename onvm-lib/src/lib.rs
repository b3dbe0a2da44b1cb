//! Packets, rings, headers and the runtime that every network function is built on.
#![deny(unsafe_code)]
#![warn(missing_docs)]
// The model checker's build has the ring but not the runtime, which alone uses some of the rest.
#![cfg_attr(loom, allow(dead_code))]

pub mod arguments;
pub mod capture;
pub mod cpu;
pub mod document;
pub mod flow_table;
pub mod idle;
pub mod node;
pub mod packet;
pub mod pool;
#[cfg(not(loom))]
pub mod prelude;
pub mod protocol;
#[cfg(not(loom))]
pub mod reload;
pub mod ring;
#[cfg(not(loom))]
pub mod runtime;
pub mod shm;
pub mod wire;

#[cfg(not(loom))]
pub use runtime::run;
