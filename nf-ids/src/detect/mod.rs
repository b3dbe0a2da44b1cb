//! Detection: which rules match a packet, its stream, and the transactions of its flow.
//!
//! # Theory of operation
//! ```text
//!               ┌ first packet of a direction ─▶ rules of addresses alone ───────────┐
//!               ├ protocol just known ─▶ rules of the protocol alone ────────────────┤
//! Inspection ──▶┼ group by protocol, direction, port ─┬ rules without content ──▶ ask┼─▶ matches, in order ─▶ filters,
//!               │                                     └ payload, window ─▶ prefilter ┤     thresholds ─▶ alerts,
//!               └ each live transaction ─▶ its buffers ─▶ prefilter ─▶ wait, ask ────┘     outcome
//! ```
//! *The cost does not grow with the rules that cannot match.* A packet meets the rules of its group (`groups`), of which
//! nearly all are behind the prefilter (`pattern`): one pass over the payload says which of them have their rarest content
//! in it. Only those are asked in full (`gate` for headers, `chain` for bytes).
//!
//! *Raw content and streams.* A rule for `tcp` looks for its contents in the reassembled stream; one with a place (`depth`,
//! `offset`) in single packets too; one that asks for something of packets (`flags`, `dsize`, `ttl`) only there. A payload
//! that found no place in its stream is inspected by itself. A match in the stream counts once: its end must lie in what the
//! last window did not have.
//!
//! *Transactions* are inspected as they grow (`transaction`).
//!
//! *Order.* Rules are kept in the order in which they are reported: `pass`, `drop`, `reject`, `alert`, those that set
//! a bit before those that ask for it, then by priority. A `pass` that matches ends it.
//!
//! *What is bounded*: steps of a rule over a buffer, of an expression, bits and counters of a flow, transactions and
//! rules remembered of each, alerts of a packet, hosts that are counted.

mod alert;
mod base64;
mod ber;
mod bits;
mod buffers;
mod chain;
#[cfg(test)]
mod chain_tests;
mod compile;
mod detector;
mod file;
mod find;
mod gate;
mod groups;
mod headers;
mod names;
mod numbers;
mod packet;
mod pattern;
#[cfg(test)]
mod pattern_tests;
mod rates;
mod regex;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod threshold;
mod transaction;
mod transform;
mod watch;

pub(crate) use base64::strictly as from_base64;

pub use alert::{Alert, Decision, Outcome};
pub use detector::{Detector, Memory};
pub use pattern::{Found, Matcher, MatcherBuilder};
pub use rates::{Limits, RateFilter, Suppress};
pub use state::FlowState;
pub use tables::{Size, Tables};
pub use watch::{Sink, Watch};
