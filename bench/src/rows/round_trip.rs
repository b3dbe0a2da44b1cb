//! Ping between two hosts at low load, through the kernel's bridge and through the manager and one NF: awake and asleep.
//!
//! The answer comes from the other host's kernel; both directions pass through whoever is measured. Time is what `ping` says of each
//! packet, in microseconds. Awake, manager and NF have a processor each, and share them with the hosts where there are only two.

use std::process::{Command, Stdio};

use super::wires::{FAR, Wires};
use crate::measure::{Effort, Error, Line, Mark, median};
use crate::platform::Platform;

/// Whose round trips: port, and whether manager and NF stay awake; none is the bridge.
const CONTENDERS: [(&str, Option<(&str, bool)>); 5] = [
    ("Linux bridge", None),
    ("afpacket, awake", Some(("afpacket:", true))),
    ("afpacket, asleep", Some(("afpacket:", false))),
    ("xdp, awake", Some(("xdp:", true))),
    ("xdp, asleep", Some(("xdp:", false))),
];
/// What is told of them, in thousandths of all.
const SHARES: [(&str, usize); 3] = [("median", 500), ("99 %", 990), ("99.9 %", 999)];

/// Round trips in microseconds, the shortest first.
fn ping(wires: &Wires, count: usize) -> Result<Vec<f64>, Error> {
    let enter = wires.enter_host()?;
    let ping = |count: &str, interval: &str| {
        let arguments = ["ping", "-c", count, "-i", interval, "-W", "2", FAR];
        Command::new(enter[0]).args(&enter[1..]).args(arguments).stderr(Stdio::null()).output()
    };
    // Until both know each other's addresses.
    let _ = ping("10", "0.1")?;
    let said = String::from_utf8_lossy(&ping(&count.to_string(), "0.002")?.stdout).into_owned();
    let time = |line: &str| line.split_once("time=")?.1.split_whitespace().next()?.parse::<f64>().ok();
    let mut times: Vec<f64> = said.lines().filter_map(time).map(|milliseconds| milliseconds * 1e3).collect();
    if times.len() * 100 < count * 99 {
        return Err(Error::new(format!("{} of {count} pings came back", times.len())));
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The figures of [`SHARES`] of one run.
fn figures(way: Option<(&str, bool)>, count: usize) -> Result<[f64; 3], Error> {
    let wires = Wires::between_hosts()?;
    let _platform = match way {
        None => {
            wires.bridge()?;
            None
        }
        Some((kind, awake)) => {
            let ports = ["m0", "m1"].map(|interface| format!("{kind}{interface}"));
            let mut arguments = vec!["--no-huge", "--port", &ports[0], "--port", &ports[1], "--chain", "1"];
            arguments.extend(awake.then_some("--poll"));
            let mut platform = Platform::start_under(&wires.enter(), &arguments)?;
            let function = if awake { &["-r", "1", "-m", "1"][..] } else { &["-r", "1", "-m", "0", "-s"] };
            let _ = platform.add("nf-forward", function)?;
            platform.wait_for(1)?;
            Some(platform)
        }
    };
    let times = ping(&wires, count)?;
    Ok(SHARES.map(|(_, share)| times[(times.len() * share / 1000).min(times.len() - 1)]))
}

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let count = if effort.quick { 500 } else { 1500 };
    let mut all: Vec<Result<Vec<[f64; 3]>, String>> = vec![Ok(Vec::new()); CONTENDERS.len()];
    for _ in 0..effort.rounds {
        for ((_, way), figures_of) in CONTENDERS.iter().zip(&mut all) {
            let Ok(so_far) = figures_of else { continue };
            match figures(*way, count) {
                Ok(figures) => so_far.push(figures),
                Err(error) => *figures_of = Err(error.to_string()),
            }
        }
    }
    let bridge = match &all[0] {
        Ok(bridge) => bridge.clone(),
        Err(why) => return vec![Line::failed("round trip", why.clone())],
    };
    let mut lines = Vec::new();
    for ((name, _), ours) in CONTENDERS.iter().zip(&all).skip(1) {
        let ours = match ours {
            Ok(ours) => ours,
            Err(why) => {
                lines.push(Line::failed(*name, why.clone()));
                continue;
            }
        };
        for (place, (share, _)) in SHARES.iter().enumerate() {
            let of = |samples: &[[f64; 3]]| median(&samples.iter().map(|s| s[place]).collect::<Vec<_>>());
            let ratios: Vec<f64> = ours.iter().zip(&bridge).map(|(a, b)| a[place] / b[place]).collect();
            lines.push(Line {
                floor: Some(("Linux bridge".into(), of(&bridge))),
                ratio: Some(median(&ratios)),
                ..Line::new(format!("{name}, {share}"), "µs", of(ours), Mark::None)
            });
        }
    }
    lines
}
