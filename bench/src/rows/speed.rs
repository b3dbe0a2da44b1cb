//! nf-speedtest: round and round, as fast as it goes; and one packet alone.

use crate::bare::Floor;
use crate::measure::{Contender, Effort, Error, Line, MPPS, Mark, NANOSECONDS, Span, alternate};
use crate::platform::{Platform, received_by};

/// What openNetVM reaches to a second core and back, on a machine of this kind, in Mpps.
const LEAST_THERE_AND_BACK: f64 = 38.5;
/// Half of what openNetVM needs, in nanoseconds.
const MOST_SELF_LOOP: f64 = 167.0;
const MOST_ROUND_TRIP: f64 = 250.0;
/// Published for openNetVM's ping-pong on a shared core, in microseconds.
const MOST_SLEEPING_HOP: f64 = 36.0;

fn circle(packets: u32, partner: bool, span: Span) -> Result<f64, Error> {
    let mut platform = Platform::start(&["--stay"])?;
    let packets = packets.to_string();
    let common = ["-r", "1", "--latency-every", "0", "-c", packets.as_str()];
    if partner {
        platform.add("nf-forward", &["-r", "2", "-d", "1", "-m", "1"])?;
        platform.wait_for(1)?;
        platform.add("nf-speedtest", &[&common[..], &["-d", "2", "-m", "0"]].concat())?;
    } else {
        platform.add("nf-speedtest", &[&common[..], &["-d", "1", "-m", "1"]].concat())?;
    }
    platform.rate(span, |stats| received_by(stats, "nf-speedtest"))
}

/// Packets that are written nowhere, only their descriptors: against entries one way over a bare ring.
pub(super) fn to_itself(effort: Effort) -> Vec<Line> {
    let contenders = [
        Contender::new("bare ring 16 B one way, 64", |span| Floor::stream(64, true).measure(span)),
        Contender::new("bare ring 16 B one way, 32", |span| Floor::stream(32, true).measure(span)),
        Contender::new("bare ring 8 B one way, 64", |span| Floor::stream(64, false).measure(span)),
        Contender::new("self loop, 128 packets", |span| circle(128, false, span)),
        Contender::new("self loop, 1024 packets", |span| circle(1024, false, span)),
        Contender::new("self loop, 16000 packets", |span| circle(16_000, false, span)),
    ];
    let rounds = alternate(&contenders, effort);
    let mut lines = vec![rounds.line(2, &[0], MPPS, Mark::None)];
    lines.extend((3..6).map(|ours| rounds.line(ours, &[0, 1], MPPS, Mark::Ratio(0.8))));
    lines
}

pub(super) fn there_and_back(effort: Effort) -> Vec<Line> {
    let contenders = [
        Contender::new("bare rings there and back", |span| Floor::hop(64, true).measure(span)),
        Contender::new("there and back, 128 packets", |span| circle(128, true, span)),
        Contender::new("there and back, 1024 packets", |span| circle(1024, true, span)),
    ];
    let rounds = alternate(&contenders, effort);
    let least = Mark::AtLeast(LEAST_THERE_AND_BACK);
    vec![rounds.line(1, &[0], MPPS, Mark::None), rounds.line(2, &[0], MPPS, least)]
}

/// Five NFs and nf-speedtest on one core, asleep between two packets: from nf-speedtest through all of them and back.
pub(super) fn asleep(effort: Effort) -> Vec<Line> {
    let seconds = if effort.quick { "2" } else { "6" };
    let name = |what: &str| format!("6 sleeping hops on one core, {what}");
    match round_trips(seconds) {
        Ok((p50, p99)) => vec![
            Line::new(name("median, per hop"), "µs", p50 / 6e3, Mark::AtMost(MOST_SLEEPING_HOP)),
            Line::new(name("median"), "µs", p50 / 1e3, Mark::None),
            Line::new(name("99 %"), "µs", p99 / 1e3, Mark::None),
        ],
        Err(error) => vec![Line::failed(name("round trip"), error.to_string())],
    }
}

/// Median and 99th percentile of the round trip, in nanoseconds.
fn round_trips(seconds: &str) -> Result<(f64, f64), Error> {
    let mut platform = Platform::start(&["--stay"])?;
    for service in 2..=6u32 {
        let next = if service == 6 { 1 } else { service + 1 };
        platform
            .add("nf-forward", &["-r", &service.to_string(), "-d", &next.to_string(), "-m", "1", "-s"])?;
    }
    platform.wait_for(5)?;
    let arguments =
        ["-r", "1", "-d", "2", "-m", "1", "-s", "-c", "1", "--rate", "500", "--latency-every", "1"];
    let mut speedtest =
        platform.function("nf-speedtest", &[&arguments[..], &["-t", seconds, "--json"]].concat())?;
    let output = speedtest.stdout(std::process::Stdio::piped()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let report: serde_json::Value =
        serde_json::from_str(last).map_err(|e| Error::new(format!("no report: {e}: {last}")))?;
    let latency = &report["report"]["latency"];
    let figure = |name: &str| {
        latency[name].as_f64().ok_or_else(|| Error::new(format!("no latency in the report: {report}")))
    };
    Ok((figure("p50_ns")?, figure("p99_ns")?))
}

pub(super) fn alone(effort: Effort) -> Vec<Line> {
    let contenders = [
        Contender::new("one packet, self loop", |span| circle(1, false, span)),
        Contender::new("one packet, two cores", |span| circle(1, true, span)),
    ];
    let rounds = alternate(&contenders, effort);
    vec![
        rounds.line(0, &[], NANOSECONDS, Mark::AtMost(MOST_SELF_LOOP)),
        rounds.line(1, &[], NANOSECONDS, Mark::AtMost(MOST_ROUND_TRIP)),
    ]
}
