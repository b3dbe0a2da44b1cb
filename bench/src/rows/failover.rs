//! What a flow notices when the NF that has it is killed: the time from SIGKILL to its next packet on the wire behind the
//! platform, by the times of departure in a capture of the port.
//!
//! The row of the kernel alone says how long it takes to take a process apart that does nothing. Nobody else gets that
//! processor meanwhile.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use onvm_lib::capture::Reader;
use onvm_lib::wire::flow_hash;
use serde_json::Value;

use crate::measure::{Effort, Error, Line, Mark, median};
use crate::platform::{Platform, program};

const KILLS: usize = 60;
/// Published for REINFORCE, in microseconds: failover to a replica on the same node.
const REINFORCE: f64 = 100.0;
/// Microseconds.
const MOST_SIBLING: f64 = 1000.0;
const MOST_RESTART: f64 = 30_000.0;
const MOST_DETECTION: f64 = 1000.0;
/// Packets of each flow come every 40 µs.
const PORT: &str = "gen:flows=4,rate=100k";
/// Shorter silences are none.
const LEAST_NS: u64 = 50_000;

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let kills = if effort.quick { KILLS / 4 } else { KILLS };
    let cases = [
        ("warm standby", "instances: 1, standby: 1", Mark::AtMost(REINFORCE)),
        ("sibling", "instances: 2", Mark::AtMost(MOST_SIBLING)),
        ("restarted process", "instances: 1", Mark::AtMost(MOST_RESTART)),
    ];
    let mut lines = vec![match kernel_alone(kills) {
        Ok(time) => {
            Line::new("the kernel alone: SIGKILL of a sleeping process to its pidfd", "µs", time, Mark::None)
        }
        Err(error) => Line::failed("the kernel alone", error.to_string()),
    }];
    for (name, service, mark) in cases {
        match silences(service, kills) {
            Ok((silences, detections)) => {
                lines.extend(distribution(&format!("SIGKILL to next packet, {name}"), &silences, mark));
                let name = format!("SIGKILL to detection, {name}");
                lines.push(Line::new(name, "µs", median(&detections), Mark::AtMost(MOST_DETECTION)));
            }
            Err(error) => lines.push(Line::failed(name, error.to_string())),
        }
    }
    lines
}

/// What no detection by the kernel can be quicker than: the death of a process that does nothing. The median, in
/// microseconds.
fn kernel_alone(kills: usize) -> Result<f64, Error> {
    use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
    let failed = |step: &str| Error::new(format!("cannot {step}"));
    let once = || -> Result<f64, Error> {
        let mut child = std::process::Command::new("sleep").arg("100").spawn()?;
        std::thread::sleep(Duration::from_millis(20));
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| failed("name it"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| failed("watch it"))?;
        let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let killed = std::time::Instant::now();
        kill_process(pid, Signal::KILL).map_err(|_| failed("kill it"))?;
        rustix::event::poll(&mut polled, None).map_err(|_| failed("wait for it"))?;
        let time = killed.elapsed();
        child.wait()?;
        Ok(time.as_secs_f64() * 1e6)
    };
    let times = std::iter::repeat_with(once).take(kills).collect::<Result<Vec<f64>, Error>>()?;
    Ok(median(&times))
}

/// Median with the mark, and the rest of the distribution.
fn distribution(name: &str, samples: &[f64], mark: Mark) -> Vec<Line> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |per_cent: usize| sorted[(sorted.len() - 1) * per_cent / 100];
    let line = |what: &str, value: f64, mark| Line::new(format!("{name}, {what}"), "µs", value, mark);
    vec![
        line("best", at(0), Mark::None),
        line("median", median(samples), mark),
        line("90 %", at(90), Mark::None),
        line("99 %", at(99), Mark::None),
        line("worst", at(100), Mark::None),
    ]
}

/// Silences that kills caused, and how long it took until they were noticed; in microseconds.
fn silences(service: &str, kills: usize) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let directory = tempfile::tempdir()?;
    let wire = directory.path().join("wire.pcapng");
    let file = directory.path().join("chain.yaml");
    let never = "restart: {give-up: 1000000, delay: 0.001, longest-delay: 0.001}";
    let forward = program("nf-forward")?;
    let text = format!(
        "ports: [\"{PORT}\", \"null:,capture={}\"]\n\
         services:\n  victim: {{id: 1, command: [{}], {service}, {never}}}\n\
         chains: {{main: [victim]}}\ndefault-chain: main\n",
        wire.display(),
        forward.display(),
    );
    std::fs::write(&file, text)?;
    let platform = Platform::start(&["--config", &file.display().to_string()])?;
    let wanted = if service.contains('2') || service.contains("standby") { 2 } else { 1 };
    let mut kill_times = Vec::new();
    for _ in 0..kills {
        let victim = wait_for_victim(&platform, wanted)?;
        std::thread::sleep(Duration::from_millis(20));
        kill_times.push(now_ns());
        rustix::process::kill_process(victim, rustix::process::Signal::KILL)
            .map_err(|e| Error::new(format!("cannot kill: {e}")))?;
        std::thread::sleep(Duration::from_millis(20));
    }
    wait_for_victim(&platform, wanted)?;
    std::thread::sleep(Duration::from_millis(50));
    let detections = detections(&platform.events()?, &kill_times);
    // The capture is whole when the manager has ended.
    platform.end()?;
    Ok((caused(&silences_on(&wire)?, &kill_times)?, detections))
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// An instance that has flows, once there are as many as there shall be.
fn wait_for_victim(platform: &Platform, wanted: usize) -> Result<rustix::process::Pid, Error> {
    for _ in 0..2000 {
        let stats = platform.stats()?;
        let all = stats["instances"].as_array().cloned().unwrap_or_default();
        let ours: Vec<&Value> =
            all.iter().filter(|i| i["service"] == 1 && i["state"] != "starting").collect();
        let runs = ours.iter().find(|i| i["state"] == "running");
        if ours.len() == wanted
            && let Some(pid) = runs.and_then(|i| i["pid"].as_i64())
            && let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
        {
            return Ok(pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Error::new("the instances never were there"))
}

/// The times in which a flow was silent, in nanoseconds since 1970-01-01 UTC.
fn silences_on(wire: &Path) -> Result<Vec<(u64, u64)>, Error> {
    let failed = |e: onvm_lib::capture::Error| Error::new(e.to_string());
    let mut reader = Reader::open(wire).map_err(failed)?;
    let mut last: HashMap<u32, u64> = HashMap::new();
    let mut silences = Vec::new();
    while let Some(frame) = reader.next_frame().map_err(failed)? {
        let now = frame.timestamp_ns;
        let before = last.insert(flow_hash(frame.data), now);
        silences.extend(before.filter(|before| now.saturating_sub(*before) >= LEAST_NS).map(|b| (b, now)));
    }
    Ok(silences)
}

/// For each kill the longest silence that it fell into, counted from the kill.
fn caused(silences: &[(u64, u64)], kill_times: &[u64]) -> Result<Vec<f64>, Error> {
    // A flow's last packet may have passed shortly after the kill: it was on its way already.
    const ON_ITS_WAY: u64 = 200_000;
    let longest = |kill: &u64| {
        let around = silences.iter().filter(|(from, to)| *from <= kill + ON_ITS_WAY && *to > *kill);
        around.map(|(_, to)| to - kill).max()
    };
    let silences: Vec<f64> = kill_times.iter().filter_map(longest).map(microseconds).collect();
    if silences.is_empty() { Err(Error::new("no silence was seen")) } else { Ok(silences) }
}

#[allow(clippy::cast_precision_loss, reason = "times of some seconds")]
fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// From each kill to the event that tells of it.
fn detections(events: &[Value], kill_times: &[u64]) -> Vec<f64> {
    // The thread's end is told before that of the process, where the kernel tells of it.
    let crashed = events.iter().filter(|e| e["event"] == "crashed" || e["to"] == "gone");
    let times: Vec<u64> = crashed.filter_map(|e| e["time_ns"].as_u64()).collect();
    let first_after = |kill: &u64| times.iter().find(|t| *t > kill).map(|t| t - kill);
    kill_times.iter().filter_map(first_after).map(microseconds).collect()
}
