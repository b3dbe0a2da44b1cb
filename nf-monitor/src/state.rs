//! What a monitor hands to its successor: everything that it has counted.

use serde::{Deserialize, Serialize};

use onvm_lib::wire::FlowKey;

use crate::application::{Share, Shares};
use crate::ended::{Host, Traffic};
use crate::flow::{Flow, Keyed};
use crate::heavy::{SavedCounters, SavedSpreaders};
use crate::monitor::Monitor;
use crate::protocols::{Count, Protocols};
use crate::rates::Rates;
use crate::records::Sent;
use crate::table::FlowCounts;

/// Packets and bytes that no monitor gets to count; below it no sum overflows.
const TOO_MANY: u64 = 1 << 60;

/// All of a monitor but its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    protocols: Protocols,
    rates: Rates,
    /// With place and hash.
    flows: Vec<(u32, u32, Keyed)>,
    counts: FlowCounts,
    /// Totals over the flows that are over: of hosts, of keys, of applications.
    hosts: SavedCounters<Host, Traffic>,
    talks: SavedCounters<FlowKey, Count>,
    applications: Shares,
    largest: Vec<Keyed>,
    spreaders: SavedSpreaders,
    /// Where the exports of records have come to.
    pub(crate) sent: Sent,
}

impl State {
    pub(crate) fn of(monitor: &Monitor, sent: Sent) -> Self {
        let (table, ended) = (&monitor.table, &monitor.table.ended);
        Self {
            protocols: monitor.protocols.clone(),
            rates: monitor.rates,
            flows: table.placed(),
            counts: table.counts,
            hosts: ended.hosts.save(),
            talks: ended.talks.save(),
            applications: ended.applications.clone(),
            largest: ended.largest().to_vec(),
            spreaders: table.spreaders.save(),
            sent,
        }
    }

    /// Lets a monitor that has seen nothing go on from here.
    ///
    /// # Errors
    /// Why it cannot.
    pub(crate) fn restore(&self, monitor: &mut Monitor) -> Result<(), String> {
        let seen = monitor.protocols.all.packets;
        if seen > 0 {
            return Err(format!("{seen} packets are counted here already"));
        }
        self.check()?;
        monitor.protocols = self.protocols.clone();
        monitor.rates = self.rates;
        // First what is over: flows that find no place in a smaller table come on top of it.
        let ended = monitor.table.ended.all();
        ended.hosts.restore(&self.hosts);
        ended.talks.restore(&self.talks);
        ended.applications = self.applications.clone();
        ended.restore_largest(&self.largest);
        monitor.table.spreaders.restore(&self.spreaders);
        monitor.table.restore(&self.flows, self.counts);
        Ok(())
    }

    /// Whether the sums fit each other, so that none of them overflows later on.
    fn check(&self) -> Result<(), String> {
        let all = self.protocols.all;
        let ways = |flows: &mut dyn Iterator<Item = &Flow>| {
            add_up(flows.flat_map(|f| f.ways.map(|way| way.count)), all)
        };
        let known = || self.flows.iter().map(|(_, _, known)| known);
        let in_order = |known: &Keyed| {
            known.flow.first_ns <= known.flow.last_ns
                && known.key == known.key.symmetric()
                && known.flow.application.is_sound()
                && known.flow.ways.iter().all(|way| way.octets < TOO_MANY)
        };
        let c = self.counts;
        let sound = all.packets < TOO_MANY
            && all.bytes < TOO_MANY
            && self.protocols.is_sound()
            && self.rates.is_sound(all)
            && [c.seen, c.ip, c.expired, c.cut, c.evicted, c.refused].iter().all(|n| *n < TOO_MANY)
            && ways(&mut known().map(|known| &known.flow))
            && ways(&mut self.largest.iter().map(|known| &known.flow))
            && add_up(self.hosts.iter().map(|host| host.facts.sent), all)
            && add_up(self.hosts.iter().map(|host| host.facts.received), all)
            && add_up(self.talks.iter().map(|talk| talk.facts), all)
            && self.hosts.iter().all(|host| host.inherited <= host.weight && host.weight < TOO_MANY)
            && self.talks.iter().all(|talk| talk.inherited <= talk.weight && talk.weight < TOO_MANY)
            && self.applications.is_sound()
            && add_up(self.applications.iter().map(|(_, _, Share { traffic, .. })| traffic), all)
            && self.spreaders.is_sound()
            && known().chain(&self.largest).all(in_order);
        if sound { Ok(()) } else { Err("its sums contradict each other".into()) }
    }
}

/// Whether counts add up to no more than `all`.
fn add_up(counts: impl IntoIterator<Item = Count>, all: Count) -> bool {
    let sum = counts.into_iter().try_fold(Count::default(), |sum, count| {
        let packets = sum.packets.checked_add(count.packets)?;
        let bytes = sum.bytes.checked_add(count.bytes)?;
        Some(Count { packets, bytes })
    });
    sum.is_some_and(|sum| sum.packets <= all.packets && sum.bytes <= all.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heavy::SpaceSaving;
    use crate::records::Outputs;
    use crate::report::Picked;
    use crate::settings::Settings;
    use crate::timeouts::Timeouts;
    use onvm_lib::wire::flow_hash;
    use proptest::prelude::*;
    use std::time::Duration;

    fn monitor(max_flows: usize) -> Monitor {
        let timeouts = Timeouts::new(Duration::from_secs(5));
        // As many counters as there are items: which of them go would depend on the order of a sweep, which is not
        // handed over.
        let bounds = Settings { hosts: 64, talks: 1024, spreaders: 64, top: 5, ..Settings::default() };
        Monitor::new(Settings { max_flows, timeouts, ..bounds })
    }

    /// A packet between two of eight hosts: UDP or TCP, or something that is not IP.
    fn frame(what: u8, src: u8, dst: u8, port: u8, flags: u8) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if what == 0 {
            frame.extend([0x99, port]);
            frame.resize(60, 0);
            return frame;
        }
        let protocol = if what.is_multiple_of(2) { 17 } else { 6 };
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
        frame.extend([0, port, 0, 80, 0, 26, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        frame.resize(60 + usize::from(port), 0);
        frame
    }

    fn count(monitor: &mut Monitor, frames: &[(Vec<u8>, u64)], from: usize) {
        for (n, (frame, at_ns)) in (from..).zip(frames) {
            monitor.packet(frame, frame.len(), flow_hash(frame), *at_ns);
            if n % 10 == 0 {
                monitor.tick(*at_ns);
            }
        }
    }

    fn report(monitor: &Monitor) -> serde_json::Value {
        crate::report::of(monitor, &Picked::of(monitor), &Outputs::none()).json
    }

    fn through_a_file(state: &State) -> State {
        postcard::from_bytes(&postcard::to_allocvec(state).unwrap()).unwrap()
    }

    fn frames(n: usize) -> impl Strategy<Value = Vec<(Vec<u8>, u64)>> {
        let one = (0u8..8, 0u8..8, 0u8..8, 0u8..16, any::<u8>(), 1u64..300_000_000);
        prop::collection::vec(one, 1..n).prop_map(|all| {
            let mut now_ns = 1_700_000_000_000_000_000;
            all.into_iter()
                .map(|(what, src, dst, port, flags, pause)| {
                    now_ns += pause;
                    (frame(what, src, dst, port, flags), now_ns)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_monitor_that_was_replaced_reports_what_one_that_was_not_does(
            frames in frames(400),
            at in any::<prop::sample::Index>(),
            max_flows in prop::sample::select(vec![4usize, 32, 1024]),
        ) {
            let at = at.index(frames.len());
            let mut whole = monitor(max_flows);
            count(&mut whole, &frames, 0);
            let (mut first, mut second) = (monitor(max_flows), monitor(max_flows));
            count(&mut first, &frames[..at], 0);
            through_a_file(&State::of(&first, Sent::default())).restore(&mut second).unwrap();
            prop_assert_eq!(report(&second), report(&first));
            count(&mut second, &frames[at..], at);
            prop_assert_eq!(report(&second), report(&whole));
        }

        #[test]
        fn a_smaller_table_loses_no_packet(frames in frames(200)) {
            let (mut large, mut small) = (monitor(1024), monitor(4));
            count(&mut large, &frames, 0);
            State::of(&large, Sent::default()).restore(&mut small).unwrap();
            let (large, small) = (report(&large), report(&small));
            prop_assert_eq!(&large["protocols"], &small["protocols"]);
            prop_assert!(small["flows"]["active"].as_u64() <= Some(4));
            prop_assert_eq!(&large["flows"]["seen"], &small["flows"]["seen"]);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_changes_nothing() {
        let mut first = monitor(32);
        count(&mut first, &[(frame(1, 1, 2, 3, 2), 5_000_000_000), (frame(2, 1, 2, 3, 0), 6_000_000_000)], 0);
        let good = State::of(&first, Sent::default());
        let refused = |change: &dyn Fn(&mut State)| {
            let (mut state, mut monitor) = (good.clone(), monitor(32));
            change(&mut state);
            let reason = state.restore(&mut monitor).unwrap_err();
            assert_eq!(monitor.protocols.all.packets + monitor.table.len() as u64, 0);
            reason
        };
        let contradiction = "its sums contradict each other";
        assert_eq!(refused(&|s| s.protocols.all.packets = u64::MAX), contradiction);
        assert_eq!(refused(&|s| s.protocols.ip[6].bytes = u64::MAX), contradiction);
        assert_eq!(refused(&|s| s.flows[0].2.flow.ways[1].count.bytes = u64::MAX), contradiction);
        assert_eq!(refused(&|s| s.flows[0].2.flow.first_ns = u64::MAX), contradiction);
        assert_eq!(refused(&|s| s.counts.seen = u64::MAX), contradiction);
        let mut ended = SpaceSaving::new(4);
        let traffic = Traffic { sent: Count { packets: 9, bytes: 9 }, ..Traffic::default() };
        ended.add(Host::Ip([10, 0, 0, 9].into()), 9, |all: &mut Traffic| all.add(&traffic));
        assert_eq!(refused(&|s| s.hosts = ended.save()), contradiction);
        assert_eq!(good.restore(&mut first).unwrap_err(), "2 packets are counted here already");
    }
}
