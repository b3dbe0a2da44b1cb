//! Instances are added and taken away: how many flows move, that those which shall stay do, and how large it all may be.

use std::collections::{BTreeMap, BTreeSet};

use onvm_lib::protocol::{Request, Target};
use onvm_tests::{LIMIT, Lab, Manager, Process, last_report, runs, signal_pid, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const FLOWS: u32 = 100_000;

/// Flows that each instance of service 1 has seen since it was last asked.
struct Shares<'a> {
    lab: &'a Lab,
    instances: BTreeMap<u64, BTreeSet<u64>>,
}

/// Which instances had which flows during one round of the generator.
fn look(lab: &Lab, manager: &Manager<'_>) -> BTreeMap<u64, BTreeSet<u64>> {
    // What they saw before does not count.
    let told = lab.ask(Request::NfTell { target: Target::Service(1), topic: "forget".into(), body: Value::Null });
    assert!(told.unwrap().1);
    let _ = manager;
    BTreeMap::new()
}
