//! The report for people.

use std::fmt::Write;

use super::{Picked, TopHost, networks, sizes, transports};
use onvm_lib::wire::FlowKey;

use crate::application::{self, By};
use crate::ended::Traffic;
use crate::flow::Keyed;
use crate::heavy::STANDARD_ERROR;
use crate::monitor::Monitor;
use crate::protocols::{Count, Protocols};
use crate::rates::Rate;
use crate::records::Outputs;

pub(super) fn of(monitor: &Monitor, picked: &Picked, outputs: &Outputs) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_summary(&mut text, monitor);
    let _ = write_protocols(&mut text, &monitor.protocols);
    let _ = write_applications(&mut text, picked);
    let _ = write_flows(&mut text, monitor, &picked.flows);
    let _ = write_talks(&mut text, monitor, picked);
    let _ = write_hosts(&mut text, &picked.hosts);
    let _ = write_spreaders(&mut text, picked);
    let _ = write_outputs(&mut text, outputs);
    text.truncate(text.trim_end().len());
    text
}

pub(crate) fn write_summary(out: &mut String, monitor: &Monitor) -> std::fmt::Result {
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

pub(crate) fn write_flows(out: &mut String, monitor: &Monitor, flows: &[(Keyed, bool)]) -> std::fmt::Result {
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
        "{:>11} {:>14} {:>11} {:>14} {:>9}  {:<8} {:<12} flow",
        "packets >", "bytes >", "< packets", "< bytes", "seconds", "state", "application"
    )?;
    for (known, over) in flows {
        let (key, flow) = (known.first_key(), &known.flow);
        let application =
            application::of(flow.application, &key).map_or(String::new(), |(known, by)| match by {
                By::Payload => known.name.to_owned(),
                // A guess.
                By::Port => format!("{}?", known.name),
            });
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
            "{:>11} {:>14} {:>11} {:>14} {seconds:>9.1}  {state:<8} {application:<12} {}",
            there.packets,
            there.bytes,
            back.packets,
            back.bytes,
            monitor.table.keys().text(&key)
        )?;
    }
    Ok(())
}

fn write_hosts(out: &mut String, hosts: &[TopHost]) -> std::fmt::Result {
    if hosts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:>11} {:>14} {:>11} {:>14}  host", "sent", "bytes", "received", "bytes")?;
    for (host, Traffic { sent, received }, more) in hosts {
        let more = if *more > 0 { format!(", perhaps {more} more") } else { String::new() };
        writeln!(
            out,
            "{:>11} {:>14} {:>11} {:>14}  {host}{more}",
            sent.packets, sent.bytes, received.packets, received.bytes
        )?;
    }
    Ok(())
}

fn write_applications(out: &mut String, picked: &Picked) -> std::fmt::Result {
    if picked.applications.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:<16} {:<8} {:>9} {:>14} {:>18}", "application", "by", "flows", "packets", "bytes")?;
    for (name, by, share) in &picked.applications {
        let Count { packets, bytes } = share.traffic;
        let by = by.unwrap_or_default();
        writeln!(out, "{name:<16} {by:<8} {:>9} {packets:>14} {bytes:>18}", share.flows)?;
    }
    Ok(())
}

/// By key, where it says more than the largest flows do: flows that were cut, ended and began again.
fn write_talks(out: &mut String, monitor: &Monitor, picked: &Picked) -> std::fmt::Result {
    let sort = monitor.settings.sort;
    let last = picked.flows.last().map(|(known, _)| sort.weight(known.flow.total()));
    // Said already by a flow of its own, or as small as the last of those.
    let is_known = |(key, count, more): &(FlowKey, Count, u64)| {
        let own = |(known, _): &(Keyed, bool)| known.key == *key && known.flow.total() == *count;
        *more == 0 && (Some(sort.weight(*count)) == last || picked.flows.iter().any(own))
    };
    if picked.talks.iter().all(is_known) {
        return Ok(());
    }
    writeln!(out, "\n{:>14} {:>18}  both directions, all flows of", "packets", "bytes")?;
    for (key, count, more) in &picked.talks {
        let more = if *more > 0 { format!(", perhaps {more} more") } else { String::new() };
        let text = monitor.table.keys().text(key);
        writeln!(out, "{:>14} {:>18}  {text}{more}", count.packets, count.bytes)?;
    }
    Ok(())
}

fn write_spreaders(out: &mut String, picked: &Picked) -> std::fmt::Result {
    if picked.spreaders.is_empty() {
        return Ok(());
    }
    let percent = STANDARD_ERROR * 100.0;
    writeln!(out, "\n{:>14}  source (standard error {percent:.1} %)", "destinations")?;
    for spreader in &picked.spreaders {
        let others = match spreader.inherited {
            0 => String::new(),
            n => format!(", {n} of them perhaps another's"),
        };
        writeln!(out, "{:>14}  {}{others}", spreader.estimate, spreader.source)?;
    }
    Ok(())
}

fn write_outputs(out: &mut String, outputs: &Outputs) -> std::fmt::Result {
    let [flows, packets, bytes] = outputs.not_ip;
    for (n, (to, tally, trouble)) in outputs.iter().enumerate() {
        if n == 0 {
            writeln!(out, "\n{} flows ended and were recorded", outputs.flows())?;
            if flows > 0 {
                writeln!(out, "{flows} are not of IP and not exported: {packets} packets, {bytes} bytes")?;
            }
        }
        let lost = match (tally.lost, tally.unheard) {
            (0, 0) => String::new(),
            (lost, 0) => format!("; {lost} records lost"),
            (lost, unheard) => format!("; {lost} records lost, {unheard} messages that nobody listened to"),
        };
        let trouble = trouble.map_or(String::new(), |trouble| format!(": {trouble}"));
        writeln!(
            out,
            "{to}  {} records, {} packets, {} octets in {} messages{lost}{trouble}",
            tally.records, tally.packets, tally.octets, tally.messages
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_prefixes() {
        assert_eq!([0.0, 999.0, 1e3, 12_345_678.0, 1e10].map(scaled).join("|"), {
            "0.00 |999.00 |1.00 k|12.35 M|10.00 G"
        });
    }
}
