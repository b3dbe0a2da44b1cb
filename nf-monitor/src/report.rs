//! What the monitor has seen, as a table for people and as JSON for machines.

use std::fmt::Write;

use onvm_lib::prelude::{Report, wire};
use serde_json::{Value, json};

use crate::ended::{Host, Hosts, Traffic, add_to};
use crate::flow::Flow;
use crate::monitor::Monitor;
use crate::protocols::{Count, Protocols, SIZES};
use crate::rates::Rate;

/// Puts a report together.
pub(crate) fn of(monitor: &Monitor) -> Report {
    let (flows, hosts) = (top_flows(monitor), top_hosts(monitor));
    let facts = json!({
        "packets": monitor.protocols.all.packets,
        "bytes": monitor.protocols.all.bytes,
        "rate": monitor.rates.current(),
        "rate_overall": monitor.rates.overall(),
        "protocols": protocols_json(&monitor.protocols),
        "flows": {
            "active": monitor.table.len(),
            "seen": monitor.table.counts.seen,
            "expired": monitor.table.counts.expired,
            "evicted": monitor.table.counts.evicted,
            "refused": monitor.table.counts.refused,
            "hosts_forgotten": monitor.table.ended.forgotten,
        },
        "top_flows": flows.iter().map(|(flow, over)| flow_json(flow, *over)).collect::<Vec<_>>(),
        "top_hosts": hosts.iter().map(|(host, traffic)| host_json(host, traffic)).collect::<Vec<_>>(),
    });
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_summary(&mut text, monitor);
    let _ = write_protocols(&mut text, &monitor.protocols);
    let _ = write_flows(&mut text, monitor, &flows);
    let _ = write_hosts(&mut text, &hosts);
    text.truncate(text.trim_end().len());
    Report::new(text, &facts).in_place()
}

/// The largest flows, and whether each is over.
fn top_flows(monitor: &Monitor) -> Vec<(Flow, bool)> {
    let over = monitor.table.ended.largest().iter().map(|flow| (flow, true));
    let mut all: Vec<(&Flow, bool)> = monitor.table.flows().map(|flow| (flow, false)).chain(over).collect();
    // Equal ones in the order in which they began, so that reports can be compared.
    let order = |(flow, _): &(&Flow, bool)| {
        (std::cmp::Reverse(monitor.sort.weight(flow.total())), flow.first_ns, *flow.key())
    };
    cut_to(&mut all, monitor.top, order);
    all.into_iter().map(|(flow, over)| (*flow, over)).collect()
}

/// The hosts with most traffic.
fn top_hosts(monitor: &Monitor) -> Vec<(Host, Traffic)> {
    let mut hosts: Hosts = monitor.table.ended.hosts().map(|(host, traffic)| (*host, *traffic)).collect();
    monitor.table.flows().for_each(|flow| add_to(&mut hosts, flow));
    let mut all: Vec<(Host, Traffic)> = hosts.into_iter().collect();
    let order =
        |(host, traffic): &(Host, Traffic)| (std::cmp::Reverse(monitor.sort.weight(traffic.total())), *host);
    cut_to(&mut all, monitor.top, order);
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

fn protocols_json(p: &Protocols) -> Value {
    let map = |counts: Vec<(String, Count)>| -> serde_json::Map<String, Value> {
        counts.into_iter().map(|(name, count)| (name, json!(count))).collect()
    };
    json!({
        "network": map(networks(p)),
        "transport": map(transports(p)),
        "sizes": sizes(p).map(|(class, n)| (class, n.into())).collect::<serde_json::Map<_, Value>>(),
        "vlan": p.vlan,
        "stacked_vlan": p.stacked_vlan,
        "fragments": p.fragments,
        "cut": p.cut,
        "malformed": p.malformed,
    })
}

fn flow_json(flow: &Flow, over: bool) -> Value {
    let key = flow.first_key();
    let macs = key.macs();
    let address = |ip: Option<std::net::IpAddr>, mac: Option<String>| ip.map(|ip| ip.to_string()).or(mac);
    json!({
        "flow": key.to_string(),
        "src": address(key.src(), macs.map(|m| m.0.to_string())),
        "dst": address(key.dst(), macs.map(|m| m.1.to_string())),
        "src_port": key.src_port(),
        "dst_port": key.dst_port(),
        "protocol": key.protocol(),
        "there": flow.ways[0].count,
        "back": flow.ways[1].count,
        "first_ns": flow.first_ns,
        "last_ns": flow.last_ns,
        "tcp_state": flow.state().map(crate::flow::State::name),
        "tcp_flags": flow.state().map(|_| flow.flag_letters()),
        "over": over,
    })
}

fn host_json(host: &Host, traffic: &Traffic) -> Value {
    json!({ "host": host.to_string(), "sent": traffic.sent, "received": traffic.received })
}

fn write_summary(out: &mut String, monitor: &Monitor) -> std::fmt::Result {
    let all = monitor.protocols.all;
    writeln!(out, "{} packets, {} bytes", all.packets, all.bytes)?;
    let (now, overall) = (monitor.rates.current(), monitor.rates.overall());
    for (when, rate) in [("now", now), ("overall", overall)] {
        if rate.seconds > 0.0 {
            writeln!(out, "{when:<8} {}", rate_text(rate))?;
        }
    }
    Ok(())
}

fn rate_text(rate: Rate) -> String {
    let (packets, bits) = (scaled(rate.packets_per_second), scaled(rate.bits_per_second));
    format!("{packets}packets/s, {bits}bit/s in {:.1} s", rate.seconds)
}

/// A number with its unit's prefix: `12.3 M`.
fn scaled(number: f64) -> String {
    let (divisor, prefix) = match number {
        n if n >= 1e9 => (1e9, "G"),
        n if n >= 1e6 => (1e6, "M"),
        n if n >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    format!("{:.2} {prefix}", number / divisor)
}

fn write_protocols(out: &mut String, p: &Protocols) -> std::fmt::Result {
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    let share = |packets: u64| 100.0 * packets as f64 / p.all.packets.max(1) as f64;
    if p.all.packets > 0 {
        writeln!(out, "\n{:<16} {:>14} {:>18} {:>7}", "protocol", "packets", "bytes", "share")?;
    }
    let indented = transports(p).into_iter().map(|(name, count)| (format!("  {name}"), count));
    for (name, count) in networks(p).into_iter().chain(indented) {
        let Count { packets, bytes } = count;
        writeln!(out, "{name:<16} {packets:>14} {bytes:>18} {:>6.1}%", share(packets))?;
    }
    let odd = [
        ("with a VLAN tag", p.vlan),
        ("with several", p.stacked_vlan),
        ("fragments", p.fragments),
        ("cut", p.cut),
        ("malformed", p.malformed),
    ];
    let odd: Vec<String> =
        odd.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if !odd.is_empty() {
        writeln!(out, "{}", odd.join(", "))?;
    }
    let sizes: Vec<String> =
        sizes(p).filter(|(_, n)| *n > 0).map(|(class, n)| format!("{class}: {n}")).collect();
    if !sizes.is_empty() {
        writeln!(out, "\npackets by bytes   {}", sizes.join("   "))?;
    }
    Ok(())
}

fn write_flows(out: &mut String, monitor: &Monitor, flows: &[(Flow, bool)]) -> std::fmt::Result {
    let c = monitor.table.counts;
    writeln!(
        out,
        "\n{} flows active, {} seen, {} expired, {} evicted; {} packets refused",
        monitor.table.len(),
        c.seen,
        c.expired,
        c.evicted,
        c.refused
    )?;
    if flows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{:>11} {:>14} {:>11} {:>14} {:>9}  {:<8} flow",
        "packets >", "bytes >", "< packets", "< bytes", "seconds", "state"
    )?;
    for (flow, over) in flows {
        let [there, back] = flow.ways.map(|way| way.count);
        #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let seconds = (flow.last_ns - flow.first_ns) as f64 / 1e9;
        let state = match flow.state() {
            Some(state) => state.name(),
            None if *over => "over",
            None => "",
        };
        writeln!(
            out,
            "{:>11} {:>14} {:>11} {:>14} {seconds:>9.1}  {state:<8} {}",
            there.packets,
            there.bytes,
            back.packets,
            back.bytes,
            flow.first_key()
        )?;
    }
    Ok(())
}

fn write_hosts(out: &mut String, hosts: &[(Host, Traffic)]) -> std::fmt::Result {
    if hosts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:>11} {:>14} {:>11} {:>14}  host", "sent", "bytes", "received", "bytes")?;
    for (host, Traffic { sent, received }) in hosts {
        writeln!(
            out,
            "{:>11} {:>14} {:>11} {:>14}  {host}",
            sent.packets, sent.bytes, received.packets, received.bytes
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Sort;
    use std::time::Duration;

    #[test]
    fn an_empty_report_is_short() {
        let monitor = Monitor::new(16, Duration::from_secs(60), 10, Sort::Bytes);
        let report = of(&monitor);
        assert_eq!(
            report.text,
            "0 packets, 0 bytes\n\n0 flows active, 0 seen, 0 expired, 0 evicted; 0 packets refused"
        );
        assert_eq!(report.json["flows"]["active"], 0);
    }

    #[test]
    fn numbers_have_prefixes() {
        assert_eq!([0.0, 999.0, 1e3, 12_345_678.0, 1e10].map(scaled).join("|"), {
            "0.00 |999.00 |1.00 k|12.35 M|10.00 G"
        });
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
