//! Flows that a predecessor hands over, whatever it says, and packets that come for them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nf_ids::detect::{Detector, FlowState, Tables, Watch};
use nf_ids::engine::{Carried, Engine, Mode, Settings};
use nf_ids::rules::{Context, RuleSet};
use std::sync::Arc;

/// Takes alerts.
#[derive(Debug)]
struct Nobody;

impl nf_ids::detect::Sink for Nobody {
    fn alert(&mut self, _: &nf_ids::detect::Alert, _: &nf_ids::engine::Inspection<'_>) {}
}

fuzz_target!(|input: (&[u8], Vec<&[u8]>)| {
    let Ok(flows) = postcard::from_bytes::<Vec<Carried<FlowState>>>(input.0) else { return };
    let mut set = RuleSet::new(Context::default());
    set.add_text("alert tcp any any -> any any (content:\"a\"; flowbits:set,x; threshold:type backoff,track by_flow,count 1,multiplier 2; sid:1;)");
    let detector = Detector::new(Arc::new(Tables::new(set.rules).0));
    let mut engine = Engine::new(Settings::of(Mode::Inline), Watch::new(detector, Nobody));
    let count = flows.len();
    assert!(engine.adopt(flows) <= count && engine.flows() <= count);
    for (n, frame) in input.1.iter().enumerate() {
        engine.packet(frame, n as u64 * 1_000_000_000);
    }
    let again = postcard::to_allocvec(&engine.carried()).unwrap_or_default();
    let _ = postcard::from_bytes::<Vec<Carried<FlowState>>>(&again).expect("what is handed over can be read");
    engine.finish();
});
