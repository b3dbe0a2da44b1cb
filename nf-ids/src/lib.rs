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
//!
//! *A successor goes on.* When the program is replaced it hands over its flows (their ends, counters, flow bits, what was
//! decided for them, and the sequence numbers of sessions), thresholds, and bits of hosts. Data that waits is not
//! handed over: the predecessor inspects it at its end, and the successor reads on behind it, as in a session that is picked
//! up in its midst: a pattern of which each has seen a half is not found, and a protocol is recognised again only by what
//! follows. To hand over parsers with what they hold would bind the state's format to all of them; a newer program
//! would refuse it, and then know of no flow at all.
//!
//! *Each instance counts for itself*: all packets of a flow come to one instance, so what is kept by flow is whole. Thresholds
//! by host and bits of hosts are of one instance: of `n`, each may say what a rule limits once. One count for all
//! would cost each match a cache line that all share; who needs it runs one instance.
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
pub mod sets;
pub mod stream;

pub use program::{Ids, main};
