//! What a successor has to know of flows, so that none is forgotten when the program is replaced.

use serde::{Deserialize, Serialize};

use super::{Detection, Engine, Kept, Verdict};
use crate::flow;

/// Of what is kept with a flow, that which does not need the data before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CarriedKept<F> {
    detection: F,
    blind: bool,
    passed: bool,
    alerted: bool,
    fate: Verdict,
    turned: bool,
}

/// A flow on its way to a successor.
pub type Carried<F> = flow::Carried<CarriedKept<F>>;

impl<D: Detection> Engine<D>
where
    D::FlowState: Clone,
{
    /// All flows, for a successor. This engine stays as it is.
    #[must_use]
    pub fn carried(&self) -> Vec<Carried<D::FlowState>> {
        self.flows.carried(|kept| CarriedKept {
            detection: kept.detection.clone(),
            blind: kept.blind,
            passed: kept.passed,
            alerted: kept.alerted,
            fate: kept.fate,
            turned: kept.turned,
        })
    }

    /// Goes on with a predecessor's flows; how many found no room.
    pub fn adopt(&mut self, flows: Vec<Carried<D::FlowState>>) -> usize {
        let kept = |carried: CarriedKept<D::FlowState>| Kept {
            detection: carried.detection,
            blind: carried.blind,
            passed: carried.passed,
            alerted: carried.alerted,
            fate: carried.fate,
            turned: carried.turned,
            ..Kept::default()
        };
        flows.into_iter().map(|flow| self.flows.adopt(flow, kept)).filter(|taken| !taken).count()
    }
}
