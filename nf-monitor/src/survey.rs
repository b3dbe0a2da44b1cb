//! A picture of all flows, taken a few at a time, so that packets need not wait for a report.
//!
//! What a report shows at its end is small, but to find the largest of 65,536 flows and the totals of their hosts takes
//! 15 ms and more. So on the thread with the packets flows are copied only, some after each burst, in the round in which silent
//! ones are looked for; the rest is done on a thread of its own (`reporter.rs`).
//!
//! ```text
//! begin ──▶ flows are copied, those that end too; totals of what is over stand still ──▶ all seen ──▶ reporter reads both
//!                                                                                                        │
//!   flows that ended meanwhile are added to the totals, some after each burst  ◀──────────────── it has ─┘
//! ```
//! Every flow of the beginning is in the picture once: it is marked when it is copied, whether it is met in its place or ends
//! before that, and what ends during a survey is added to the totals when nobody reads these any more. Each flow is shown as it
//! was when it was met.

use std::ops::Deref;
use std::sync::Arc;

use onvm_lib::wire::FlowKey;

use crate::ended::Ended;
use crate::flow::{Flow, Keyed};

/// Flows that may end while the totals are being read; more, and the totals are copied.
const MOST_LATE: usize = 65_536;

/// A survey that is under way.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Its mark on flows.
    number: u8,
    /// Places that have not been looked at, at most.
    left: usize,
    /// It has come to a flow that it has seen.
    round: bool,
    pub(crate) flows: Vec<Keyed>,
}

impl Survey {
    pub(crate) fn new(number: u8, flows: usize, places: usize) -> Self {
        Self { number, left: places, round: false, flows: Vec::with_capacity(flows) }
    }

    /// A flow in its place.
    #[inline]
    pub(crate) fn see(&mut self, key: &FlowKey, flow: &mut Flow) {
        if flow.surveyed == self.number {
            self.round = true;
        } else if !self.is_complete() {
            self.take(key, flow);
            flow.surveyed = self.number;
        }
    }

    /// A flow that leaves its place.
    #[inline]
    pub(crate) fn take(&mut self, key: &FlowKey, flow: &Flow) {
        if flow.surveyed != self.number {
            self.flows.push(Keyed { key: *key, flow: *flow });
        }
    }

    /// So many places were looked at.
    pub(crate) fn looked(&mut self, places: usize) {
        self.left = self.left.saturating_sub(places);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.round || self.left == 0
    }
}

/// What is known of flows that are over, which a survey can ask to stand still.
#[derive(Debug)]
pub(crate) struct Past {
    ended: Arc<Ended>,
    /// It stands still.
    lent: bool,
    /// Flows that ended since.
    late: Vec<Keyed>,
}

impl Past {
    pub(crate) fn new(ended: Ended) -> Self {
        Self { ended: Arc::new(ended), lent: false, late: Vec::new() }
    }

    /// Takes in a flow that is over.
    pub(crate) fn take(&mut self, key: &FlowKey, flow: &Flow) {
        if self.lent && self.late.len() < MOST_LATE {
            return self.late.push(Keyed { key: *key, flow: *flow });
        }
        self.lent = false;
        // Nobody else has it, but where too many flows ended while it was read: then it is copied.
        Arc::make_mut(&mut self.ended).take(key, flow);
    }

    /// Nothing is added to it from here on.
    pub(crate) fn lend(&mut self) {
        let _ = self.all();
        self.lent = true;
    }

    /// The same, for a reader.
    pub(crate) fn shared(&self) -> Arc<Ended> {
        Arc::clone(&self.ended)
    }

    /// The reader is done.
    pub(crate) fn returned(&mut self) {
        self.lent = false;
    }

    /// Adds some of the flows that ended while it stood still; whether any are left.
    pub(crate) fn catch_up(&mut self, most: usize) -> bool {
        if self.lent || self.late.is_empty() {
            return false;
        }
        let ended = Arc::make_mut(&mut self.ended);
        for known in self.late.drain(self.late.len().saturating_sub(most)..) {
            ended.take(&known.key, &known.flow);
        }
        !self.late.is_empty()
    }

    /// All of it, with everything that is over.
    pub(crate) fn all(&mut self) -> &mut Ended {
        self.lent = false;
        self.catch_up(usize::MAX);
        Arc::make_mut(&mut self.ended)
    }
}

impl Deref for Past {
    type Target = Ended;

    fn deref(&self) -> &Ended {
        &self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Monitor;
    use crate::report::{From, Picked, top_spreaders};
    use crate::settings::Settings;
    use crate::timeouts::Timeouts;
    use onvm_lib::wire::flow_hash;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn monitor(max_flows: usize) -> Monitor {
        let timeouts = Timeouts::new(Duration::from_secs(10));
        Monitor::new(Settings { max_flows, timeouts, top: 1000, ..Settings::default() })
    }

    /// A packet of flow `n` between hosts of a network of its own.
    fn packet(monitor: &mut Monitor, network: u8, n: u16, now_ns: u64) {
        let [high, low] = n.to_be_bytes();
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, network, 0, low % 50, 10, network, 1, 1, 4 + high, low, 0, 53, 0, 26, 0, 0]);
        frame.resize(60 + usize::from(n % 7), 0);
        monitor.packet(&frame, frame.len(), flow_hash(&frame), now_ns);
    }

    /// Totals of hosts and keys of network 1, in order.
    fn told(picked: &Picked) -> Vec<String> {
        let hosts = picked.hosts.iter().map(|(host, traffic, more)| format!("{host} {traffic:?} {more}"));
        let talks = picked.talks.iter().map(|(key, count, more)| format!("{key} {count:?} {more}"));
        hosts.chain(talks).filter(|line| line.starts_with("10.1.")).collect()
    }

    /// Looks at a few places at a time until a survey is complete, and has others do something in between.
    fn survey(
        monitor: &mut Monitor,
        places: usize,
        mut meanwhile: impl FnMut(&mut Monitor, usize),
    ) -> Picked {
        monitor.table.begin_survey();
        for step in 0.. {
            if let Some((flows, ended)) = monitor.table.surveyed() {
                let all = || flows.iter().map(|known| (&known.key, &known.flow));
                let from = From { settings: &monitor.settings, ended: &ended, flows: all };
                return Picked::from(&from, top_spreaders(monitor));
            }
            monitor.table.look(places, 20 * SECOND);
            meanwhile(monitor, step);
        }
        unreachable!("it comes to an end");
    }

    #[test]
    fn every_flow_of_the_beginning_is_there_once_whatever_happens_meanwhile() {
        // Flows end by silence, by the next packet, because others need their places; some before, some meanwhile.
        for (max_flows, flows, late_from) in [(4096, 900, 12), (256, 256, 12), (256, 250, 5), (4096, 900, 5)]
        {
            for places in [1, 7, 64, 5000] {
                let mut monitor = monitor(max_flows);
                for round in 1..=3 {
                    (0..flows)
                        .for_each(|n| packet(&mut monitor, 1, n * (1 + n % 3), round * late_from * SECOND));
                }
                monitor.table.look(100, 3 * late_from * SECOND);
                let expected = told(&Picked::of(&monitor));
                assert!(expected.len() > 100);
                let meanwhile = |monitor: &mut Monitor, step: usize| {
                    let n = u16::try_from(step * 3).unwrap();
                    (n..n + 3).for_each(|n| packet(monitor, 9, n, 60 * SECOND));
                };
                assert_eq!(told(&survey(&mut monitor, places, meanwhile)), expected, "{max_flows} {places}");
                // The next one has them all again, with those that came.
                let before = told(&Picked::of(&monitor)).len();
                monitor.table.end_survey();
                let now = Picked::of(&monitor);
                assert!(told(&now).len() >= before);
                assert_eq!(told(&survey(&mut monitor, places, |_, _| ())), told(&now));
            }
        }
    }

    #[test]
    fn what_ended_meanwhile_is_added_to_the_totals_afterwards() {
        let (mut watched, mut plain) = (monitor(4096), monitor(4096));
        for monitor in [&mut watched, &mut plain] {
            (0..1000).for_each(|n| packet(monitor, 1, n, SECOND));
        }
        let kept = {
            watched.table.begin_survey();
            watched.table.look(4096, 30 * SECOND);
            watched.table.surveyed().unwrap()
        };
        plain.table.look(4096, 30 * SECOND);
        assert_eq!((watched.table.len(), kept.0.len(), kept.1.hosts.len()), (0, 1000, 0));
        assert!(!watched.table.ended.catch_up(100), "somebody reads");
        drop(kept);
        watched.table.ended.returned();
        assert!(watched.table.ended.catch_up(100));
        assert_ne!(told(&Picked::of(&watched)), told(&Picked::of(&plain)));
        while watched.table.ended.catch_up(100) {}
        assert_eq!(told(&Picked::of(&watched)), told(&Picked::of(&plain)));
    }

    #[test]
    fn too_many_that_end_meanwhile_are_no_more_memory() {
        let mut past = Past::new(Ended::new(10, 10, 1, crate::flow::Sort::Packets));
        past.lend();
        let reader = past.shared();
        let seen =
            crate::flow::Seen { bytes: 60, octets: 0, now_ns: 1, flags: onvm_lib::wire::tcp::Flags(0) };
        let key = FlowKey::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1, 2, 17);
        let flow = Flow::new(false, seen);
        (0..=MOST_LATE).for_each(|_| past.take(&key, &flow));
        assert_eq!((past.late.len(), reader.hosts.len(), past.hosts.len()), (MOST_LATE, 0, 2));
        assert_eq!(past.all().hosts.iter().map(|h| h.facts.sent.packets).sum::<u64>(), MOST_LATE as u64 + 1);
    }

    #[test]
    fn a_burst_looks_at_few_flows() {
        let mut monitor = monitor(8192);
        (0..5000).for_each(|n| packet(&mut monitor, 1, n, SECOND));
        monitor.table.begin_survey();
        monitor.step(2 * SECOND);
        assert!(monitor.table.surveyed().is_none());
        let mut steps = 1;
        while monitor.table.surveyed().is_none() {
            monitor.step(2 * SECOND);
            steps += 1;
        }
        assert!((5000 / 256..=8192 / 256 + 1).contains(&steps), "{steps}");
    }
}
