//! nf-loadbalancer: spreads connections over servers.
//!
//! # Theory of operation
//! ```text
//!            ┌──────────── balancer: one pass over a burst ────────────┐
//! client ──▶ │ connections ──known──▶ path: translate, pack, address   │ ──▶ backend
//!        ◀── │     │ unknown                 ▲                         │ ◀──
//!            │ services ─▶ sticky? ─▶ maglev, round robin, least, lot  │
//!            └─────▲──────────────▲──────────────────▲─────────────────┘
//!        reload: file      commands: overlay    health: thread, passive
//! ```
//! *A connection stays where it is.* The first packet of a connection chooses a backend; the connection table then has
//! it until it ends, whatever becomes of weights, tables and files. Adding or draining a backend therefore moves no
//! connection. Only when a backend is *down* do its connections move, each with its next packet; those of others do
//! not. The Maglev table ([`maglev`]) makes the choice one that other balancers, and this one without its memory, would
//! make too.
//!
//! *Nothing is half translated.* A packet that belongs to a translated connection is translated or dropped: without a
//! free port, without room, as a fragment whose first part is unknown, or as an answer whose connection is forgotten.
//!
//! *The packets' thread only looks up.* Files are read, tables are made and backends are asked in threads beside; what
//! they find is taken in between two bursts.
//!
//! # Rooms
//! | Room | What |
//! |---|---|
//! | [`config`] | the services file, checked |
//! | `balancer`, `path`, `errors`, `fragments`, `answers` | a packet's way |
//! | `translate`, `tunnel` | what is written into packets |
//! | `connections`, `source_ports`, `clients` | what is remembered, bounded |
//! | `services`, `servers`, [`maglev`], `tables` | who gets a connection |
//! | `neighbours` | Ethernet addresses of backends |
//! | `reconcile`, `commands`, `upkeep` | changes while it runs; time |
//! | [`health`] | active checks |
//! | `program`, `report`, `state` | the network function |
//! | [`frame`] | what the packet path needs of a packet, so that it also runs without a manager |
//!
//! # Limits
//! - Several instances of one balancer share nothing. The manager gives both directions of a flow to one instance by a
//!   hash of its addresses, and translation changes these: mode nat is for one instance. The others scale.
//! - The time to live stays: the balancer is no router.
//! - IPv4 and IPv6 are not translated into each other; tunnels carry either in either.
#![forbid(unsafe_code)]

mod answers;
mod balancer;
mod clients;
mod commands;
pub mod config;
mod connections;
mod errors;
mod fragments;
pub mod frame;
pub mod health;
pub mod maglev;
mod neighbours;
mod path;
mod program;
mod reconcile;
mod report;
mod servers;
mod services;
mod source_ports;
mod state;
mod tables;
mod translate;
mod tunnel;
mod upkeep;

pub use balancer::Balancer;
pub use program::{LoadBalancer, main};
pub use state::State;
pub use tunnel::GUE_PORT;
