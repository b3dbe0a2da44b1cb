//! What the monitor has seen, as a table for people and as JSON for machines.

mod json;
pub(crate) mod text;

use std::collections::HashMap;

use onvm_lib::prelude::{Report, wire};
use onvm_lib::wire::FlowKey;

use crate::application::{Share, Shares};
use crate::ended::{Host, Traffic, ends};
use crate::flow::{Flow, Keyed};
use crate::heavy::Spreader;
use crate::monitor::Monitor;
use crate::protocols::{Count, Protocols, SIZES};
use crate::records::Outputs;

/// A host, its traffic, and how much more it may have had.
pub(crate) type TopHost = (Host, Traffic, u64);

/// All that is shown of a monitor, picked and in order.
pub(crate) struct Picked<'a> {
    pub(crate) monitor: &'a Monitor,
    /// The largest flows, and whether each is over.
    pub(crate) flows: Vec<(Keyed, bool)>,
    pub(crate) hosts: Vec<TopHost>,
    /// The largest by key, over all records of the same flow, and how much more each may have had.
    pub(crate) talks: Vec<(FlowKey, Count, u64)>,
    pub(crate) spreaders: Vec<&'a Spreader>,
    pub(crate) applications: Vec<(&'static str, Option<&'static str>, Share)>,
}

impl<'a> Picked<'a> {
    pub(crate) fn of(monitor: &'a Monitor) -> Self {
        Self {
            monitor,
            flows: top_flows(monitor),
            hosts: top_hosts(monitor),
            talks: top_talks(monitor),
            spreaders: top_spreaders(monitor),
            applications: applications(monitor),
        }
    }
}

/// Puts a report together.
pub(crate) fn of(monitor: &Monitor, outputs: &Outputs) -> Report {
    let picked = Picked::of(monitor);
    Report::new(text::of(&picked, outputs), &json::of(&picked, outputs)).in_place()
}

fn top_flows(monitor: &Monitor) -> Vec<(Keyed, bool)> {
    let over = monitor.table.ended.largest().iter().map(|known| (*known, true));
    let on = monitor.table.flows().map(|(key, flow)| (Keyed { key: *key, flow: *flow }, false));
    let mut all: Vec<(Keyed, bool)> = on.chain(over).collect();
    // Equal ones in the order in which they began, so that reports can be compared.
    let order = |(known, _): &(Keyed, bool)| {
        let weight = monitor.settings.sort.weight(known.flow.total());
        (std::cmp::Reverse(weight), known.flow.first_ns, known.key)
    };
    cut_to(&mut all, monitor.settings.top, order);
    all
}

/// The hosts with most traffic: what is kept of flows that are over, and flows that go on.
fn top_hosts(monitor: &Monitor) -> Vec<TopHost> {
    let mut hosts: HashMap<Host, (Traffic, u64)> =
        monitor.table.ended.hosts.iter().map(|host| (host.item, (host.facts, host.inherited))).collect();
    for (key, flow) in monitor.table.flows() {
        for (host, traffic) in ends(key, flow).into_iter().flatten() {
            // Of a host without a counter nobody knows what flows of it were over before.
            let unknown = monitor.table.ended.hosts.error();
            hosts.entry(host).or_insert((Traffic::default(), unknown)).0.add(&traffic);
        }
    }
    let mut all: Vec<TopHost> =
        hosts.into_iter().map(|(host, (traffic, more))| (host, traffic, more)).collect();
    let order = |(host, traffic, _): &TopHost| {
        (std::cmp::Reverse(monitor.settings.sort.weight(traffic.total())), *host)
    };
    cut_to(&mut all, monitor.settings.top, order);
    all
}

fn top_talks(monitor: &Monitor) -> Vec<(FlowKey, Count, u64)> {
    let talks = &monitor.table.ended.talks;
    let mut sums: HashMap<FlowKey, (Count, u64)> =
        talks.iter().map(|talk| (talk.item, (talk.facts, talk.inherited))).collect();
    for (key, flow) in monitor.table.flows() {
        sums.entry(*key).or_insert((Count::default(), talks.error())).0.add_all(flow.total());
    }
    let mut all: Vec<(FlowKey, Count, u64)> =
        sums.into_iter().map(|(key, (count, more))| (key, count, more)).collect();
    let order = |(key, count, _): &(FlowKey, Count, u64)| {
        (std::cmp::Reverse(monitor.settings.sort.weight(*count)), *key)
    };
    cut_to(&mut all, monitor.settings.top, order);
    all
}

/// The sources with most destinations, if they have more than one.
fn top_spreaders(monitor: &Monitor) -> Vec<&Spreader> {
    let mut all: Vec<&Spreader> = monitor.table.spreaders.iter().filter(|s| s.estimate > 1).collect();
    cut_to(&mut all, monitor.settings.top, |s| (std::cmp::Reverse(s.estimate), s.source));
    all
}

/// Applications over all flows, the largest first.
fn applications(monitor: &Monitor) -> Vec<(&'static str, Option<&'static str>, Share)> {
    let mut shares: Shares = monitor.table.ended.applications.clone();
    monitor.table.flows().for_each(|(key, flow): (&FlowKey, &Flow)| shares.add(key, flow));
    let mut all: Vec<_> =
        shares.iter().map(|(name, by, share)| (name, by.map(|by| by.name()), share)).collect();
    all.sort_by_key(|(name, _, share)| {
        (std::cmp::Reverse(monitor.settings.sort.weight(share.traffic)), *name)
    });
    all
}

/// Leaves the first `n` in order; sorts no more than these.
fn cut_to<T, K: Ord>(all: &mut Vec<T>, n: usize, order: impl Fn(&T) -> K) {
    if n < all.len() {
        all.select_nth_unstable_by_key(n, &order);
        all.truncate(n);
    }
    all.sort_by_key(order);
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
    use crate::settings::Settings;

    #[test]
    fn an_empty_report_is_short() {
        let monitor = Monitor::new(Settings::default());
        let report = of(&monitor, &Outputs::none());
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
    fn the_largest_come_first() {
        let mut numbers = vec![3, 9, 1, 7, 5];
        cut_to(&mut numbers, 2, |n| std::cmp::Reverse(*n));
        assert_eq!(numbers, [9, 7]);
        cut_to(&mut numbers, 0, |n| *n);
        assert!(numbers.is_empty());
    }
}
