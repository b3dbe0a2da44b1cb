//! Ports on DPDK's devices against `dpdk-testpmd`, which forwards between the same two devices in one loop of one process.
//!
//! ```text
//! testpmd:   device ─▶ loop ─▶ device                              on processor 0
//! ours:      device ─▶ manager ─▶ NFs ─▶ manager ─▶ device         all on processor 0
//! ```
//! All of ours shares one processor as well, so that time is processor time and nobody waits at another's expense. Devices over
//! interfaces of the kernel's are flooded from processor 1. Both stand on plain pages.

mod flood;
mod testpmd;

use std::time::{Duration, Instant};

use crate::machine::{cpu_time, tsc_hertz};
use crate::measure::{Effort, Error, Line, Mark, Span, median};
use crate::platform::{Platform, sent};
use flood::{Flood, Space};
use testpmd::TestPmd;

/// What forwarding through one NF has to reach of testpmd's rate on devices over the kernel's interfaces.
const LEAST: f64 = 0.95;
/// Most nanoseconds of processor time that one hop may cost.
const MOST_NS: f64 = 40.0;
/// Most NFs between the two devices.
const MOST_FUNCTIONS: usize = 3;

/// What one run gave.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Packets a second.
    rate: f64,
    /// Nanoseconds of processor time for each.
    cpu_ns: f64,
}

/// Looks at something that forwards, twice.
fn sample(
    span: Span,
    mut look: impl FnMut() -> Result<(Instant, Duration, u64), Error>,
) -> Result<Sample, Error> {
    std::thread::sleep(span.warm);
    let (started, cpu, packets) = look()?;
    std::thread::sleep(span.run);
    let (ended, more_cpu, more_packets) = look()?;
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    let count = (more_packets - packets) as f64;
    if count == 0.0 {
        return Err(Error::new("no packet moved"));
    }
    let rate = count / (ended - started).as_secs_f64();
    Ok(Sample { rate, cpu_ns: (more_cpu - cpu).as_secs_f64() * 1e9 / count })
}

/// The manager between two devices, with so many NFs on a processor.
fn ours(
    space: Option<&Space>,
    devices: &[String; 2],
    functions: usize,
    core: &str,
    flood: Option<&str>,
    span: Span,
) -> Result<Sample, Error> {
    let ports = devices.each_ref().map(|device| format!("dpdk:{device}"));
    let chain: Vec<String> = (1..=functions).map(|id| id.to_string()).collect();
    let chain = if chain.is_empty() { "none".to_string() } else { chain.join(",") };
    let arguments = ["--no-huge", "--port", &ports[0], "--port", &ports[1], "--chain", &chain];
    let tool = space.map(Space::enter).unwrap_or_default();
    let tool: Vec<&str> = tool.iter().map(String::as_str).collect();
    let mut platform = Platform::start_under(&tool, &arguments)?;
    let mut pids = vec![platform.manager_pid()];
    for id in 1..=functions {
        let (id, shared) = (id.to_string(), if core == "0" { &["-s"][..] } else { &[] });
        pids.push(platform.add("nf-forward", &[&["-r", &id, "-m", core], shared].concat())?);
    }
    platform.wait_for(functions)?;
    let _flood = flood.zip(space).map(|(interface, space)| Flood::start(space, interface)).transpose()?;
    sample(span, || {
        let stats = platform.stats()?;
        let packets = sent(&stats).ok_or_else(|| Error::new("statistics without the counter"))?;
        let mut cpu = Duration::ZERO;
        for pid in &pids {
            cpu += cpu_time(*pid)?;
        }
        Ok((Instant::now(), cpu, packets))
    })
}

fn testpmd(
    space: Option<&Space>,
    devices: &[String; 2],
    flood: Option<&str>,
    span: Span,
) -> Result<Sample, Error> {
    let mut peer = TestPmd::start(space, devices)?;
    let _flood = flood.zip(space).map(|(interface, space)| Flood::start(space, interface)).transpose()?;
    sample(span, || peer.look())
}

/// One of those that are measured in turn.
type Contender<'a> = Box<dyn Fn(Span) -> Result<Sample, Error> + 'a>;

/// All in turn, round after round.
fn alternate(contenders: &[Contender<'_>], effort: Effort) -> Result<Vec<Vec<Sample>>, Error> {
    let mut samples = vec![Vec::new(); contenders.len()];
    for _ in 0..effort.rounds {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            samples.push(contender(effort.span)?);
        }
    }
    Ok(samples)
}

/// The median of a figure, and that of its ratios to a peer's of the same round.
fn against(ours: &[Sample], peer: &[Sample], figure: fn(&Sample) -> f64) -> (f64, f64, f64) {
    let of = |samples: &[Sample]| median(&samples.iter().map(figure).collect::<Vec<_>>());
    let ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| figure(ours) / figure(peer)).collect();
    (of(ours), of(peer), median(&ratios))
}

/// A line for the rate and one for processor time.
fn compared(name: &str, ours: &[Sample], peer: &[Sample], mark: Mark) -> [Line; 2] {
    let (rate, floor, ratio) = against(ours, peer, |sample| sample.rate / 1e6);
    let rates = Line {
        floor: Some(("testpmd".into(), floor)),
        ratio: Some(ratio),
        ..Line::new(name, "Mpps", rate, mark)
    };
    let (cpu, floor, ratio) = against(ours, peer, |sample| sample.cpu_ns);
    let times = Line {
        floor: Some(("testpmd".into(), floor)),
        ratio: Some(ratio),
        ..Line::new(format!("{name}, CPU"), "ns", cpu, Mark::None)
    };
    [rates, times]
}

/// What has to be there.
fn ready() -> Result<(), Error> {
    if !testpmd::is_there() {
        return Err(Error::new("dpdk-testpmd is missing (apt-get install dpdk-dev)"));
    }
    Ok(())
}

/// net_null to net_null: the hop itself.
fn null(effort: Effort) -> Result<Vec<Line>, Error> {
    ready()?;
    let devices = ["net_null0,size=64".to_string(), "net_null1,size=64".to_string()];
    let devices = &devices;
    let mut contenders: Vec<Contender<'_>> = vec![Box::new(|span| testpmd(None, devices, None, span))];
    for functions in 0..=MOST_FUNCTIONS {
        contenders.push(Box::new(move |span| ours(None, devices, functions, "0", None, span)));
    }
    contenders.push(Box::new(|span| ours(None, devices, 1, "1", None, span)));
    let samples = alternate(&contenders, effort)?;
    let mut lines = Vec::new();
    for functions in 0..=MOST_FUNCTIONS {
        let name = format!("net_null, {functions} NFs");
        lines.extend(compared(&name, &samples[1 + functions], &samples[0], Mark::None));
    }
    lines.extend(compared(
        "net_null, 1 NF, a core each",
        &samples[MOST_FUNCTIONS + 2],
        &samples[0],
        Mark::None,
    ));
    for hop in 1..=MOST_FUNCTIONS {
        let (with, without) = (&samples[1 + hop], &samples[hop]);
        let added: Vec<f64> = with.iter().zip(without).map(|(a, b)| a.cpu_ns - b.cpu_ns).collect();
        let added = median(&added);
        lines.push(Line::new(format!("hop {hop}, CPU that it adds"), "ns", added, Mark::AtMost(MOST_NS)));
        if let Some(hertz) = tsc_hertz() {
            let cycles = added * hertz / 1e9;
            lines.push(Line::new(format!("hop {hop}, cycles that it adds"), "cycles", cycles, Mark::None));
        }
    }
    Ok(lines)
}

/// Devices over interfaces of the kernel's.
fn kind(name: &str, devices: [&str; 2], flooded: &str, effort: Effort) -> Result<[Line; 2], Error> {
    ready()?;
    let space = Space::new()?;
    let devices = devices.map(str::to_string);
    let contenders: [Contender<'_>; 2] = [
        Box::new(|span| testpmd(Some(&space), &devices, Some(flooded), span)),
        Box::new(|span| ours(Some(&space), &devices, 1, "0", Some(flooded), span)),
    ];
    let samples = alternate(&contenders, effort)?;
    Ok(compared(&format!("{name}, 1 NF"), &samples[1], &samples[0], Mark::Ratio(LEAST)))
}

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let mut lines = null(effort).unwrap_or_else(|error| vec![Line::failed("net_null", error.to_string())]);
    for (name, devices, flooded) in [
        ("net_af_packet", ["net_af_packet0,iface=m0", "net_af_packet1,iface=m1"], "c0"),
        ("net_pcap over veth", ["net_pcap0,iface=m0", "net_pcap1,iface=m1"], "c0"),
        ("net_tap", ["net_tap0,iface=dtap0", "net_tap1,iface=dtap1"], "dtap0"),
    ] {
        match kind(name, devices, flooded, effort) {
            Ok(both) => lines.extend(both),
            Err(error) => lines.push(Line::failed(name, error.to_string())),
        }
    }
    lines
}
