//! nf-ids: finds attacks by Suricata's rules, inline and offline.
//!
//! # Theory of operation
//! ```text
//! frame ─▶ decode ─▶ defrag ─▶ flow ─▶ stream ─▶ app ─▶ detect ─▶ verdict
//!            │          │        │        │        │       │
//!            └ events   └ events └ state  └ events └ events└ alerts ─▶ output (EVE, fast.log)
//! ```
//! A frame is read once ([`decode`]), fragments are put together ([`defrag`]), the flow is found ([`flow`]), what TCP carries is
//! put in order ([`stream`]), protocols are recognised and read into transactions ([`app`]), and the rules ([`rules`]) that
//! can match are found and asked ([`detect`]). [`engine`] is the glue, and all that a user of the library needs: it takes a
//! frame with its time and returns a verdict.
//!
//! *Two orders of arrival.* An IDS that only looks on waits with a segment until its receiver has acknowledged it: only
//! then is it certain what was received. An IPS must decide about each packet when it comes, so data is
//! inspected as it arrives. The engine does either ([`engine::Mode`]).
//!
//! *Everything is bounded*: flows, fragments, bytes of streams, transactions, each in one and in all; what finds no
//! room is counted.
#![forbid(unsafe_code)]

pub mod app;
pub mod decode;
pub mod defrag;
pub mod detect;
pub mod engine;
pub mod flow;
pub mod options;
pub mod output;
pub mod program;
pub mod reject;
pub mod rules;
pub mod stream;

pub use program::{Ids, main};
