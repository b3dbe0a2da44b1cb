//! Flows that stay at the instance where they are, for services with `affinity: flow`.
//!
//! A flow is known by its 32-bit hash: two flows with the same hash stay together, which does no harm. A flow that has sent nothing
//! for [`IDLE`] is forgotten, and when [`MOST`] are known, further ones go by their slots and are not remembered.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

/// How long a silent flow is remembered.
const IDLE: Duration = Duration::from_secs(120);
/// Most flows that are remembered per service.
const MOST: usize = 1 << 20;
/// How often silent flows are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Flow hashes are well mixed already; the multiplication spreads them over the upper bits, which the map looks at.
#[derive(Clone, Copy, Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u32(&mut self, hash: u32) {
        self.0 = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

struct Flow {
    node: usize,
    /// Sweeps that it was silent for.
    silent: u32,
}

/// The known flows of a service.
#[derive(Default)]
pub(super) struct PinnedFlows {
    flows: HashMap<u32, Flow, BuildHasherDefault<Mixed>>,
    swept: Option<Instant>,
}

impl PinnedFlows {
    /// The node for a flow: where it is, or `chosen` if it is new.
    pub(super) fn node_for(&mut self, hash: u32, chosen: Option<usize>) -> Option<usize> {
        if let Some(flow) = self.flows.get_mut(&hash) {
            flow.silent = 0;
            return Some(flow.node);
        }
        let node = chosen?;
        if self.flows.len() < MOST {
            self.flows.insert(hash, Flow { node, silent: 0 });
        }
        Some(node)
    }

    /// Flows of nodes that are not to be kept count as new.
    pub(super) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        self.flows.retain(|_, flow| keep(flow.node));
    }

    /// All flows of one node go to another.
    pub(super) fn pass(&mut self, from: usize, to: usize) {
        self.flows.values_mut().filter(|flow| flow.node == from).for_each(|flow| flow.node = to);
    }

    /// Forgets silent flows, now and then.
    pub(super) fn sweep(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.duration_since(swept) < SWEEP {
            return;
        }
        self.swept = Some(now);
        let limit = u32::try_from(IDLE.as_secs() / SWEEP.as_secs()).unwrap_or(u32::MAX);
        self.flows.retain(|_, flow| {
            flow.silent += 1;
            flow.silent <= limit
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_flows_stay_and_new_ones_go_where_they_are_sent() {
        let mut flows = PinnedFlows::default();
        for hash in 0..100_000 {
            assert_eq!(flows.node_for(hash, Some(1)), Some(1));
        }
        for hash in 0..100_000 {
            assert_eq!(flows.node_for(hash, Some(2)), Some(1), "a known flow moved");
        }
        assert_eq!(flows.node_for(100_001, Some(2)), Some(2));
        assert_eq!(flows.node_for(100_002, None), None);
        flows.retain(|node| node != 1);
        assert_eq!(flows.flows.len(), 1);
        flows.pass(2, 3);
        assert_eq!(flows.node_for(100_001, Some(4)), Some(3));
    }

    #[test]
    fn silent_flows_are_forgotten() {
        let mut flows = PinnedFlows::default();
        let start = Instant::now();
        flows.sweep(start);
        flows.node_for(1, Some(1));
        flows.node_for(2, Some(1));
        for i in 1..=13 {
            flows.node_for(1, Some(1));
            flows.sweep(start + SWEEP * i);
        }
        assert_eq!(flows.flows.len(), 1);
    }
}
