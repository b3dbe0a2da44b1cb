//! Packets, rings, headers and the runtime that every network function is built on.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod capture;
pub mod idle;
pub mod node;
pub mod packet;
pub mod pool;
pub mod prelude;
pub mod protocol;
pub mod ring;
pub mod runtime;
pub mod shm;
pub mod wire;

pub use runtime::run;
