//! What a packet costs: of one turn in many the time is taken, from the first look at its packets to their release.
//!
//! Turns that waited for room ahead are left out, as they would tell of others' cost.

use std::time::Instant;

use crate::node::{Counter, NodePage};

/// Turns with packets from one sample to the next.
const EVERY: u32 = 64;

/// When the next sample is due.
#[derive(Debug)]
pub(super) struct Cost {
    turns_left: u32,
}

/// A turn of which the time is taken.
#[derive(Debug)]
pub(super) struct Sample {
    start: Instant,
    waits: u64,
}

impl Cost {
    pub(super) fn new() -> Self {
        Self { turns_left: EVERY }
    }

    /// A turn with packets begins.
    #[inline(always)]
    pub(super) fn turn(&mut self, page: &NodePage) -> Option<Sample> {
        self.turns_left -= 1;
        if self.turns_left > 0 { None } else { Some(self.begin(page)) }
    }

    #[cold]
    fn begin(&mut self, page: &NodePage) -> Sample {
        self.turns_left = EVERY;
        Sample { waits: page.count(Counter::Waits), start: Instant::now() }
    }
}

impl Sample {
    /// The turn, with `packets`, is over.
    #[cold]
    pub(super) fn end(self, page: &NodePage, packets: usize) {
        let ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(0);
        if packets > 0 && page.count(Counter::Waits) == self.waits {
            page.add(Counter::SampledNs, ns);
            page.add(Counter::SampledPackets, packets as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_in_many_is_measured_unless_it_waited() {
        let page = NodePage::create().unwrap();
        let mut cost = Cost::new();
        for turn in 1..=4 * EVERY {
            let Some(sample) = cost.turn(&page) else { continue };
            match turn / EVERY {
                1 => page.add(Counter::Waits, 1),
                2 => std::thread::sleep(std::time::Duration::from_millis(1)),
                _ => {}
            }
            sample.end(&page, if turn == 3 * EVERY { 0 } else { 7 });
        }
        assert_eq!(page.count(Counter::SampledPackets), 14);
        assert!(page.count(Counter::SampledNs) >= 1_000_000);
    }
}
