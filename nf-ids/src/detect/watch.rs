//! Detection as the engine calls it, with a place where alerts go.

use std::fmt::Debug;

use super::alert::{Alert, Decision};
use super::detector::Detector;
use super::state::FlowState;
use crate::engine::{Detection, Inspection, Judgement, Verdict};
use crate::flow::Flow;
use crate::rules::RejectTo;

/// Where alerts and the ends of flows go.
pub trait Sink: Debug {
    /// An alert was raised.
    fn alert(&mut self, alert: &Alert, seen: &Inspection<'_>);

    /// A packet was inspected, after its alerts: what is logged of transactions is logged here.
    fn inspected(&mut self, _seen: &Inspection<'_>, _alerts: &[Alert]) {}

    /// A packet goes no further, in line: by the rules of which one or none has alerted, or because its receiver would not
    /// take it (`refused`).
    fn dropped(&mut self, _seen: &Inspection<'_>, _alerts: &[Alert], _refused: bool) {}

    /// A transaction is complete and was inspected, or its flow ends.
    fn transaction_ended(&mut self, _seen: &Inspection<'_>, _id: u64) {}

    /// A flow has ended.
    fn flow_ended(&mut self, _flow: &Flow<crate::engine::Kept<FlowState>>) {}
}

/// A detector and where its alerts go.
#[derive(Debug)]
pub struct Watch<S> {
    /// What asks the rules.
    pub detector: Detector,
    /// Where alerts go.
    pub sink: S,
    alerts: Vec<Alert>,
}

impl<S: Sink> Watch<S> {
    /// A detector whose alerts go there.
    pub fn new(detector: Detector, sink: S) -> Self {
        Watch { detector, sink, alerts: Vec::new() }
    }
}

impl<S: Sink> Detection for Watch<S> {
    type FlowState = FlowState;

    fn wants_raw(&self) -> bool {
        self.detector.wants_raw()
    }

    fn inspect(&mut self, seen: &Inspection<'_>, flow: Option<&mut FlowState>) -> Judgement {
        self.alerts.clear();
        let outcome = self.detector.inspect(seen, flow, &mut self.alerts);
        for alert in &self.alerts {
            self.sink.alert(alert, seen);
        }
        self.sink.inspected(seen, &self.alerts);
        if outcome.decision != Decision::Accept {
            self.sink.dropped(seen, &self.alerts, false);
        }
        let verdict = match outcome.decision {
            Decision::Accept => Verdict::Pass,
            Decision::Drop => Verdict::Drop,
            Decision::Reject(RejectTo::Source) => Verdict::RejectSource,
            Decision::Reject(RejectTo::Destination) => Verdict::RejectDestination,
            Decision::Reject(RejectTo::Both) => Verdict::RejectBoth,
        };
        let alerted = !self.alerts.is_empty();
        Judgement { verdict, passed: outcome.passed, for_flow: outcome.for_flow, alerted }
    }

    fn refused(&mut self, seen: &Inspection<'_>) {
        self.sink.dropped(seen, &[], true);
    }

    fn transaction_ended(&mut self, seen: &Inspection<'_>, id: u64) {
        self.sink.transaction_ended(seen, id);
    }

    fn flow_ended(&mut self, flow: &Flow<crate::engine::Kept<FlowState>>) {
        self.sink.flow_ended(flow);
    }
}
