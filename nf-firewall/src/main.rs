//! nf-firewall: decides on packets by ordered rules.
//!
//! # Theory of operation
//! ```text
//! frame ─▶ packet: headers, once; in tunnels by option ─▶ facts
//!            │ later fragment ─▶ fragments: as its first
//!            ▼
//!          connections, if a rule asks for states: new, established, related, invalid
//!            ▼
//!          engine: cache ─▶ classifier ─▶ further conditions ─▶ the first rule that matches
//!            │                                                   │ continue: log, mark, count; go on
//!            ▼                                                   ▼
//!          limit: token bucket ─▶ action: allow, deny, reject (answer made and sent back), service
//!
//! rule file ─▶ rules: yaml │ classbench │ iptables ─▶ RuleSet ─▶ Compiled ══ swapped between two bursts
//! ```
//! Rules stand in order, and the first that matches decides; rules that `continue` only log, mark and count on the
//! way. Addresses, ports and protocols are looked up in all rules at once by `onvm-classifier`; what rules ask for
//! beside (TCP flags, ICMP types, VLANs, ports, times, marks, states) is asked of the rules that it finds, in order.
//! Decisions are remembered per direction of a flow as far as they hold for all its packets (`engine::cache`).
//!
//! A packet's connection is looked up before the rules, and a new one is kept after them, if they allow it: what is denied
//! leaves nothing behind.
//!
//! A new rule file is compiled beside the packets and put in force between two bursts. A broken one leaves what is in
//! force, is told whole in the log and the report, and is counted.
//!
//! All tables are bounded, and what finds no room is counted. What cannot be decided is denied: headers that contradict
//! themselves, fragments whose first nobody saw. `README.md` is the reference of the rule language.
#![forbid(unsafe_code)]

mod carried;
mod connections;
mod counts;
mod engine;
mod firewall;
mod fragments;
mod logging;
mod options;
mod packet;
mod reject;
mod report;
mod rules;
mod tools;

use std::process::ExitCode;

/// The wall clock, in nanoseconds since 1970-01-01 UTC.
fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn main() -> ExitCode {
    onvm_lib::run::<firewall::Firewall>()
}
