//! Ports on DPDK's devices against `dpdk-testpmd`, which forwards between the same two devices in one loop of one process.
//!
//! ```text
//! testpmd:   device ─▶ loop ─▶ device                              on processor 0
//! ours:      device ─▶ manager ─▶ NFs ─▶ manager ─▶ device         all on processor 0
//! ```
//! All of ours shares one processor as well, so that time is processor time and nobody waits at another's expense. Devices over
//! interfaces of the kernel's are flooded from processor 1. Both stand on plain pages.

mod testpmd;

use std::time::{Duration, Instant};

use super::forwarding::{Contender, Sample, Samples, alternate, best, compared, sample};
use super::wires::{Flood, Wires};
use crate::machine::{cpu_time, tsc_hertz};
use crate::measure::{Effort, Error, Line, Mark, Span, median};
use crate::platform::{Platform, sent};
use testpmd::TestPmd;

/// What forwarding through one NF has to reach of testpmd's rate on devices over the kernel's interfaces.
const LEAST: f64 = 0.95;
/// The same of native `xdp:` on veths, of the best that testpmd can do there.
const LEAST_NATIVE: f64 = 1.2;
/// Drivers by which testpmd reaches a veth, and what they want to know; `?` stands for the number of device and interface.
/// By one name for both directions net_pcap would receive what it has sent.
const ON_VETH: [(&str, &str); 3] = [
    ("net_af_packet", "net_af_packet?,iface=m?"),
    ("net_af_xdp", "net_af_xdp?,iface=m?"),
    ("net_pcap", "net_pcap?,rx_iface_in=m?,tx_iface=m?"),
];
const TESTPMD: &str = "testpmd";
/// Most nanoseconds of processor time that one hop may cost.
const MOST_NS: f64 = 40.0;
/// Most NFs between the two devices.
const MOST_FUNCTIONS: usize = 3;

/// The wires at whose far end packets are counted, where there is one: what drivers count as sent need not come out.
fn far_end<'a>(wires: Option<&'a Wires>, flood: Option<&str>) -> Option<&'a Wires> {
    wires.filter(|_| flood == Some("c0"))
}

/// The manager between two ports, with so many NFs on a processor.
fn ours(
    wires: Option<&Wires>,
    ports: &[String; 2],
    functions: usize,
    core: &str,
    flood: Option<&str>,
    span: Span,
) -> Result<Sample, Error> {
    let chain: Vec<String> = (1..=functions).map(|id| id.to_string()).collect();
    let chain = if chain.is_empty() { "none".to_string() } else { chain.join(",") };
    let arguments = ["--no-huge", "--port", &ports[0], "--port", &ports[1], "--chain", &chain];
    let tool = wires.map(Wires::enter);
    let mut platform = Platform::start_under(tool.as_ref().map_or(&[][..], |tool| &tool[..]), &arguments)?;
    let mut pids = vec![platform.manager_pid()];
    for id in 1..=functions {
        let (id, shared) = (id.to_string(), if core == "0" { &["-s"][..] } else { &[] });
        pids.push(platform.add("nf-forward", &[&["-r", &id, "-m", core], shared].concat())?);
    }
    platform.wait_for(functions)?;
    let _flood = flood.zip(wires).map(|(interface, wires)| Flood::start(wires, interface)).transpose()?;
    sample(span, || {
        let packets = match far_end(wires, flood) {
            Some(wires) => wires.arrived()?,
            None => sent(&platform.stats()?).ok_or_else(|| Error::new("statistics without the counter"))?,
        };
        let mut cpu = Duration::ZERO;
        for pid in &pids {
            cpu += cpu_time(*pid)?;
        }
        Ok((Instant::now(), cpu, packets))
    })
}

fn testpmd(
    wires: Option<&Wires>,
    devices: &[String; 2],
    flood: Option<&str>,
    span: Span,
) -> Result<Sample, Error> {
    let mut peer = TestPmd::start(wires, devices)?;
    let _flood = flood.zip(wires).map(|(interface, wires)| Flood::start(wires, interface)).transpose()?;
    sample(span, || {
        let (now, cpu, packets) = peer.look()?;
        Ok((now, cpu, far_end(wires, flood).map_or(Ok(packets), Wires::arrived)?))
    })
}

/// Ports on devices.
fn on(devices: &[String; 2]) -> [String; 2] {
    devices.each_ref().map(|device| format!("dpdk:{device}"))
}

/// What an NF more costs for each packet, in nanoseconds of processor time.
fn added(with: &Samples, without: &Samples) -> Option<f64> {
    let (with, without) = (with.as_ref().ok()?, without.as_ref().ok()?);
    Some(median(&with.iter().zip(without).map(|(a, b)| a.cpu_ns - b.cpu_ns).collect::<Vec<_>>()))
}

/// net_null to net_null: the hop itself.
fn null(effort: Effort) -> Vec<Line> {
    let devices = ["net_null0,size=64".to_string(), "net_null1,size=64".to_string()];
    let (devices, ports) = (&devices, &on(&devices));
    let mut contenders: Vec<Contender<'_>> = vec![Box::new(|span| testpmd(None, devices, None, span))];
    for functions in 0..=MOST_FUNCTIONS {
        contenders.push(Box::new(move |span| ours(None, ports, functions, "0", None, span)));
    }
    contenders.push(Box::new(|span| ours(None, ports, 1, "1", None, span)));
    let samples = alternate(&contenders, effort);
    let peer = (TESTPMD, &samples[0]);
    let mut lines = Vec::new();
    for functions in 0..=MOST_FUNCTIONS {
        lines.extend(compared(
            &format!("net_null, {functions} NFs"),
            &samples[1 + functions],
            peer,
            Mark::None,
        ));
    }
    lines.extend(compared("net_null, 1 NF, a core each", &samples[MOST_FUNCTIONS + 2], peer, Mark::None));
    for hop in 1..=MOST_FUNCTIONS {
        let Some(added) = added(&samples[1 + hop], &samples[hop]) else { continue };
        lines.push(Line::new(format!("hop {hop}, CPU that it adds"), "ns", added, Mark::AtMost(MOST_NS)));
        if let Some(hertz) = tsc_hertz() {
            let cycles = added * hertz / 1e9;
            lines.push(Line::new(format!("hop {hop}, cycles that it adds"), "cycles", cycles, Mark::None));
        }
    }
    lines
}

/// Devices over interfaces of the kernel's.
fn kind(name: &str, devices: [&str; 2], flooded: &str, effort: Effort) -> Result<Vec<Line>, Error> {
    let wires = Wires::new()?;
    let devices = devices.map(str::to_string);
    let ports = on(&devices);
    let contenders: [Contender<'_>; 2] = [
        Box::new(|span| testpmd(Some(&wires), &devices, Some(flooded), span)),
        Box::new(|span| ours(Some(&wires), &ports, 1, "0", Some(flooded), span)),
    ];
    let samples = alternate(&contenders, effort);
    let peer = (TESTPMD, &samples[0]);
    Ok(compared(&format!("{name}, 1 NF"), &samples[1], peer, Mark::Ratio(LEAST)))
}

/// `xdp:` between two veths, against the best that testpmd can do there by any of its drivers. Wires are new for each run: what
/// is killed may leave its program behind.
fn native(effort: Effort) -> Vec<Line> {
    let devices: Vec<[String; 2]> =
        ON_VETH.iter().map(|(_, device)| ["0", "1"].map(|n| device.replace('?', n))).collect();
    let ports = ["xdp:m0".to_string(), "xdp:m1".to_string()];
    let mut contenders: Vec<Contender<'_>> =
        vec![Box::new(|span| ours(Some(&Wires::new()?), &ports, 1, "0", Some("c0"), span))];
    for devices in &devices {
        contenders.push(Box::new(|span| testpmd(Some(&Wires::new()?), devices, Some("c0"), span)));
    }
    let samples = alternate(&contenders, effort);
    let names: Vec<String> = ON_VETH.iter().map(|(driver, _)| format!("{TESTPMD}, {driver}")).collect();
    let peers = names.iter().map(String::as_str).zip(&samples[1..]);
    let mut lines: Vec<Line> =
        peers.clone().flat_map(|peer| compared("xdp, native, 1 NF", &samples[0], peer, Mark::None)).collect();
    if let Some(peer) = best(peers) {
        lines.extend(compared(
            "xdp, native, best of testpmd's",
            &samples[0],
            peer,
            Mark::Ratio(LEAST_NATIVE),
        ));
    }
    lines
}

pub(super) fn run(effort: Effort) -> Vec<Line> {
    if !testpmd::is_there() {
        return vec![Line::failed("ports of DPDK", "dpdk-testpmd is missing (apt-get install dpdk-dev)")];
    }
    let mut lines = null(effort);
    for (name, devices, flooded) in [
        ("net_af_packet", ["net_af_packet0,iface=m0", "net_af_packet1,iface=m1"], "c0"),
        (
            "net_pcap over veth",
            ["net_pcap0,rx_iface_in=m0,tx_iface=m0", "net_pcap1,rx_iface_in=m1,tx_iface=m1"],
            "c0",
        ),
        ("net_tap", ["net_tap0,iface=dtap0", "net_tap1,iface=dtap1"], "dtap0"),
    ] {
        let measured = kind(name, devices, flooded, effort);
        lines.extend(measured.unwrap_or_else(|error| vec![Line::failed(name, error.to_string())]));
    }
    lines
}

/// Native `xdp:` against testpmd.
pub(super) fn run_native(effort: Effort) -> Vec<Line> {
    if !testpmd::is_there() {
        return vec![Line::failed("xdp, native", "dpdk-testpmd is missing (apt-get install dpdk-dev)")];
    }
    native(effort)
}
