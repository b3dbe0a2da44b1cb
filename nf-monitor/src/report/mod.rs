//! What the monitor has seen, as a table for people and as JSON for machines.

mod json;
pub(crate) mod text;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use onvm_lib::prelude::{Report, wire};
use onvm_lib::wire::FlowKey;

use crate::application::{Share, Shares};
use crate::ended::{Ended, Host, Traffic, ends};
use crate::flow::{Flow, Keyed};
use crate::heavy::Spreader;
use crate::monitor::Monitor;
use crate::protocols::{Count, Protocols, SIZES};
use crate::records::Outputs;
use crate::settings::Settings;

/// A host, its traffic, and how much more it may have had.
pub(crate) type TopHost = (Host, Traffic, u64);

/// A source that speaks to many: its destinations, and how many of them may be another's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopSpreader {
    pub(crate) source: IpAddr,
    pub(crate) estimate: u64,
    pub(crate) inherited: u64,
}

/// What is shown of all flows, picked and in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picked {
    /// The largest flows, and whether each is over.
    pub(crate) flows: Vec<(Keyed, bool)>,
    pub(crate) hosts: Vec<TopHost>,
    /// The largest by key, over all records of the same flow, and how much more each may have had.
    pub(crate) talks: Vec<(FlowKey, Count, u64)>,
    pub(crate) spreaders: Vec<TopSpreader>,
    pub(crate) applications: Vec<(&'static str, Option<&'static str>, Share)>,
}

/// What it is picked from: flows that are over, and those that go on, which are asked for again and again.
pub(crate) struct From<'a, F> {
    pub(crate) settings: &'a Settings,
    pub(crate) ended: &'a Ended,
    pub(crate) flows: F,
}

impl Picked {
    /// Of the monitor as it stands: packets wait for that, 15 ms and more when there are many flows.
    pub(crate) fn of(monitor: &Monitor) -> Self {
        let flows = || monitor.table.flows();
        let from = From { settings: &monitor.settings, ended: &monitor.table.ended, flows };
        Self::from(&from, top_spreaders(monitor))
    }

    /// Of what was taken out of a monitor.
    pub(crate) fn from<'a, I, F>(from: &From<'_, F>, spreaders: Vec<TopSpreader>) -> Self
    where
        I: Iterator<Item = (&'a FlowKey, &'a Flow)>,
        F: Fn() -> I,
    {
        Self {
            flows: top_flows(from),
            hosts: top_hosts(from),
            talks: top_talks(from),
            spreaders,
            applications: applications(from),
        }
    }
}

/// Puts a report together.
pub(crate) fn of(monitor: &Monitor, picked: &Picked, outputs: &Outputs) -> Report {
    Report::new(text::of(monitor, picked, outputs), &json::of(monitor, picked, outputs)).in_place()
}

/// The largest flows, and whether each is over.
fn top_flows<'a, I, F>(from: &From<'_, F>) -> Vec<(Keyed, bool)>
where
    I: Iterator<Item = (&'a FlowKey, &'a Flow)>,
    F: Fn() -> I,
{
    let keyed = |key: &FlowKey, flow: &Flow| Keyed { key: *key, flow: *flow };
    let over = from.ended.largest().iter().map(|known| (&known.key, &known.flow, true));
    let on = (from.flows)().map(|(key, flow)| (key, flow, false));
    // Equal ones in the order in which they began, so that reports can be compared.
    let order = |(key, flow, _): &(&FlowKey, &Flow, bool)| {
        let weight = from.settings.sort.weight(flow.total());
        (std::cmp::Reverse(weight), flow.first_ns, **key)
    };
    let largest = first(on.chain(over), from.settings.top, order);
    largest.into_iter().map(|(key, flow, over)| (keyed(key, flow), over)).collect()
}

/// The hosts with most traffic: what is kept of flows that are over, and flows that go on.
fn top_hosts<'a, I, F>(from: &From<'_, F>) -> Vec<TopHost>
where
    I: Iterator<Item = (&'a FlowKey, &'a Flow)>,
    F: Fn() -> I,
{
    let mut hosts: HashMap<Host, (Traffic, u64)> =
        from.ended.hosts.iter().map(|host| (host.item, (host.facts, host.inherited))).collect();
    for (key, flow) in (from.flows)() {
        for (host, traffic) in ends(key, flow).into_iter().flatten() {
            // Of a host without a counter nobody knows what flows of it were over before.
            let unknown = from.ended.hosts.error();
            hosts.entry(host).or_insert((Traffic::default(), unknown)).0.add(&traffic);
        }
    }
    let all = hosts.into_iter().map(|(host, (traffic, more))| (host, traffic, more));
    let order =
        |(host, traffic, _): &TopHost| (std::cmp::Reverse(from.settings.sort.weight(traffic.total())), *host);
    first(all, from.settings.top, order)
}

/// The heaviest keys: what is kept of flows that are over, and the flow that goes on. A key stands at most twice among
/// them, with all its flows first: of twice as many as are wanted at least half are different.
fn top_talks<'a, I, F>(from: &From<'_, F>) -> Vec<(FlowKey, Count, u64)>
where
    I: Iterator<Item = (&'a FlowKey, &'a Flow)>,
    F: Fn() -> I,
{
    let talks = &from.ended.talks;
    let over = talks.iter().map(|talk| (talk.item, talk.facts, talk.inherited));
    let on = (from.flows)().map(|(key, flow)| {
        let (mut sum, more) = match talks.get(key) {
            Some(talk) => (talk.facts, talk.inherited),
            None => (Count::default(), talks.error()),
        };
        sum.add_all(flow.total());
        (*key, sum, more)
    });
    let order = |(key, count, _): &(FlowKey, Count, u64)| {
        (std::cmp::Reverse(from.settings.sort.weight(*count)), *key)
    };
    let mut seen = HashSet::new();
    let mut all = first(on.chain(over), 2 * from.settings.top, order);
    all.retain(|(key, ..)| seen.insert(*key));
    all.truncate(from.settings.top);
    all
}

/// The sources with most destinations, if they have more than one.
pub(crate) fn top_spreaders(monitor: &Monitor) -> Vec<TopSpreader> {
    let all = monitor.table.spreaders.iter().filter(|s| s.estimate > 1);
    let all = first(all, monitor.settings.top, |s| (std::cmp::Reverse(s.estimate), s.source));
    let told = |s: &Spreader| TopSpreader { source: s.source, estimate: s.estimate, inherited: s.inherited };
    all.into_iter().map(told).collect()
}

/// Applications over all flows, the largest first.
fn applications<'a, I, F>(from: &From<'_, F>) -> Vec<(&'static str, Option<&'static str>, Share)>
where
    I: Iterator<Item = (&'a FlowKey, &'a Flow)>,
    F: Fn() -> I,
{
    let mut shares: Shares = from.ended.applications.clone();
    (from.flows)().for_each(|(key, flow)| shares.add(key, flow));
    let mut all: Vec<_> =
        shares.iter().map(|(name, by, share)| (name, by.map(|by| by.name()), share)).collect();
    all.sort_by_key(|(name, _, share)| (std::cmp::Reverse(from.settings.sort.weight(share.traffic)), *name));
    all
}

/// The first `n` in order. Packets may wait while it looks, so it copies and sorts few: never more than twice as many are
/// held, and what comes after the `n`th of those is passed over.
fn first<T, K: Ord>(all: impl Iterator<Item = T>, n: usize, order: impl Fn(&T) -> K) -> Vec<T> {
    /// Held at least before they are thinned out.
    const FEW: usize = 64;
    let most = 2 * n.max(FEW);
    let mut kept: Vec<T> = Vec::with_capacity(most);
    let mut bound: Option<K> = None;
    for item in all {
        if bound.as_ref().is_some_and(|bound| order(&item) >= *bound) {
            continue;
        }
        kept.push(item);
        if kept.len() == most {
            let (_, after, _) = kept.select_nth_unstable_by_key(n, &order);
            bound = Some(order(after));
            kept.truncate(n);
        }
    }
    kept.sort_by_key(order);
    kept.truncate(n);
    kept
}

/// Network protocols and their counts, without those that were not seen.
fn networks(p: &Protocols) -> Vec<(String, Count)> {
    let mut all = vec![("IPv4".into(), p.ipv4), ("IPv6".into(), p.ipv6), ("ARP".into(), p.arp)];
    all.extend(p.ethertypes.iter().map(|(kind, count)| (kind.to_string(), *count)));
    all.push(("other".into(), p.other));
    all.retain(|(_, count)| count.packets > 0);
    all
}

/// IP protocols and their counts, the most frequent first.
fn transports(p: &Protocols) -> Vec<(String, Count)> {
    let mut all: Vec<(String, Count)> = (0u8..=255)
        .zip(p.ip)
        .filter(|(_, count)| count.packets > 0)
        .map(|(number, count)| {
            (wire::protocol_name(number).map_or_else(|| format!("protocol {number}"), String::from), count)
        })
        .collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(count.packets));
    all
}

/// Size classes, as their ends are written.
fn sizes(p: &Protocols) -> impl Iterator<Item = (String, u64)> {
    let from = std::iter::once(0).chain(SIZES.map(|end| end + 1));
    let to = SIZES.into_iter().map(Some).chain([None]);
    from.zip(to)
        .map(|(from, to)| to.map_or_else(|| format!("{from}-"), |to| format!("{from}-{to}")))
        .zip(p.sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_report_is_short() {
        let monitor = Monitor::new(Settings::default());
        let report = of(&monitor, &Picked::of(&monitor), &Outputs::none());
        assert_eq!(
            report.text,
            "0 packets, 0 bytes\n\n0 flows active, 0 seen, 0 expired, 0 evicted; 0 packets refused"
        );
        assert_eq!(report.json["flows"]["active"], 0);
    }

    #[test]
    fn classes_are_named_by_their_ends() {
        let names: Vec<String> = sizes(&Protocols::default()).map(|(name, _)| name).collect();
        assert_eq!(names, ["0-63", "64-127", "128-255", "256-511", "512-1023", "1024-1518", "1519-"]);
    }

    #[test]
    fn a_key_is_told_once_with_all_its_flows() {
        let mut monitor = Monitor::new(Settings { top: 3, ..Settings::default() });
        // Three times, the first two of which are over; the last time some are missing.
        for round in 1..=3u64 {
            for port in (0..6u8).filter(|port| round < 3 || port % 2 == 0) {
                let mut frame = vec![2; 12];
                frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
                frame.extend([4, port, 0, 53, 0, 26, 0, 0]);
                frame.resize(60, 0);
                let hash = onvm_lib::wire::flow_hash(&frame);
                (0..=port).for_each(|_| monitor.packet(&frame, 60, hash, round * 100_000_000_000));
            }
            if round < 3 {
                monitor.tick(round * 100_000_000_000 + 70_000_000_000);
            }
        }
        assert_eq!((monitor.table.len(), monitor.table.ended.talks.iter().count()), (3, 6));
        let told: Vec<(u16, u64)> = Picked::of(&monitor)
            .talks
            .into_iter()
            .map(|(key, count, _)| (key.src_port().max(key.dst_port()) - 1024, count.packets))
            .collect();
        assert_eq!(told, [(4, 15), (5, 12), (2, 9)]);
    }

    #[test]
    fn the_first_come_in_order_however_many_there_are() {
        let order = |n: &u32| std::cmp::Reverse(*n);
        assert_eq!(first([3, 9, 1, 7, 5].into_iter(), 2, order), [9, 7]);
        assert_eq!(first([3, 9].into_iter(), 5, order), [9, 3]);
        assert!(first(0..1000, 0, order).is_empty());
        // All orders of coming: up, down, mixed.
        let mixed = (0..10_007u32).map(|n| n * 7919 % 10_007);
        let expected: Vec<u32> = (10_007 - 300..10_007).rev().collect();
        assert_eq!(first(mixed, 300, order), expected);
        assert_eq!(first(0..10_007, 300, order), expected);
        assert_eq!(first((0..10_007).rev(), 300, order), expected);
    }
}
