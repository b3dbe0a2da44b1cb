//! Forwarding between two veths: the manager and one NF over each kind of port, against the kernel's own bridge.
//!
//! ```text
//! flood ─▶ c0 ──veth── m0 ─▶ bridge, or port ─▶ NF ─▶ port ─▶ m1 ──veth── s0      counts what comes
//! ```
//! What a bridge does, it does in the time of who sends; so processor time is that of the sender, of whoever forwards and
//! of the kernel's own threads together, for each packet that comes out at the other end. The flood is the same for all.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::cpu_time;
use crate::measure::{Effort, Error, Line, Mark, Span, median};
use crate::platform::{Platform, program};

/// How long interfaces may take to come up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who forwards.
const CONTENDERS: [(&str, Option<&str>); 4] = [
    ("Linux bridge", None),
    ("afpacket", Some("afpacket:")),
    ("xdp, native", Some("xdp:")),
    ("xdp, generic", Some("xdp:")),
];

/// What one run gave.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Packets a second that came out.
    rate: f64,
    /// Nanoseconds of processor time for each.
    cpu_ns: f64,
}

fn ip(arguments: &[&str]) -> Result<String, Error> {
    let end = Command::new("ip").args(arguments).output()?;
    if end.status.success() {
        return Ok(String::from_utf8_lossy(&end.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&end.stderr).trim().to_string();
    Err(Error::new(format!("ip {}: {why}", arguments.join(" "))))
}

/// A network namespace with two wires in it; it goes with this.
struct Wires(String);

impl Wires {
    fn new() -> Result<Self, Error> {
        let name = format!("onvm-bench-ports-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        let wires = Self(name);
        let n = wires.0.as_str();
        let quiet = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
        ip(&["netns", "exec", n, "sh", "-c", quiet])?;
        for (far, near) in [("c0", "m0"), ("s0", "m1")] {
            ip(&["-n", n, "link", "add", far, "type", "veth", "peer", "name", near])?;
            ip(&["-n", n, "link", "set", far, "up"])?;
            ip(&["-n", n, "link", "set", near, "up"])?;
        }
        Ok(wires)
    }

    /// Joins the two wires by the kernel's bridge, or takes it away.
    fn bridge(&self, there: bool) -> Result<(), Error> {
        let n = self.0.as_str();
        if !there {
            return ip(&["-n", n, "link", "del", "br0"]).map(|_| ());
        }
        ip(&["-n", n, "link", "add", "br0", "type", "bridge"])?;
        for port in ["m0", "m1"] {
            ip(&["-n", n, "link", "set", port, "master", "br0"])?;
        }
        ip(&["-n", n, "link", "set", "br0", "up"]).map(|_| ())
    }

    fn enter(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.0]
    }

    /// Packets that have come out.
    fn arrived(&self) -> Result<u64, Error> {
        let text = ip(&["netns", "exec", &self.0, "cat", "/proc/net/dev"])?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("s0:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok());
        packets.ok_or_else(|| Error::new("s0 counts nothing"))
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.0]) {
            eprintln!("onvm-bench: a network namespace is left behind: {error}");
        }
    }
}

/// A generator on processor 1, into c0.
struct Flood {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Flood {
    fn start(wires: &Wires) -> Result<Self, Error> {
        let directory = tempfile::tempdir()?;
        let enter = wires.enter();
        let child = Command::new(enter[0])
            .args(&enter[1..])
            .arg(program("onvm-mgr")?)
            .args(["-m", "1", "--no-huge", "--poll", "--chain", "none", "--port", "gen:size=64,flows=16"])
            .args(["--port", "afpacket:c0,promiscuous=no"])
            .env("ONVM_SOCKET", directory.path().join("s"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, _directory: directory })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel's threads that do what interrupts have left.
fn kernel_threads() -> Vec<u32> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let is_one = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    };
    pids.filter(is_one).collect()
}

fn measure(wires: &Wires, pids: &[u32], span: Span) -> Result<Sample, Error> {
    let flood = Flood::start(wires)?;
    let pids: Vec<u32> = pids.iter().copied().chain([flood.child.id()]).chain(kernel_threads()).collect();
    let before = wires.arrived()?;
    let started = Instant::now();
    while wires.arrived()? < before + 1000 {
        if started.elapsed() > PATIENCE {
            return Err(Error::new("no packet came out"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(span.warm);
    let used = || pids.iter().map(|pid| cpu_time(*pid)).sum::<Result<Duration, Error>>();
    let (cpu, packets, started) = (used()?, wires.arrived()?, Instant::now());
    std::thread::sleep(span.run);
    let (more_cpu, more_packets, took) = (used()?, wires.arrived()?, started.elapsed());
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    let count = (more_packets - packets) as f64;
    if count == 0.0 {
        return Err(Error::new("no packet came out"));
    }
    let cpu_ns = (more_cpu - cpu).as_secs_f64() * 1e9 / count;
    Ok(Sample { rate: count / took.as_secs_f64(), cpu_ns })
}

fn run_one(name: &str, kind: Option<&str>, span: Span) -> Result<Sample, Error> {
    let wires = Wires::new()?;
    let Some(kind) = kind else {
        wires.bridge(true)?;
        let sample = measure(&wires, &[], span);
        wires.bridge(false)?;
        return sample;
    };
    let mode = if name.ends_with("generic") { ",mode=generic" } else { "" };
    let ports = ["m0", "m1"].map(|interface| format!("{kind}{interface}{mode}"));
    let arguments = ["--no-huge", "--port", &ports[0], "--port", &ports[1], "--chain", "1"];
    let mut platform = Platform::start_under(&wires.enter(), &arguments)?;
    let nf = platform.add("nf-forward", &["-r", "1", "-s", "-m", "0"])?;
    platform.wait_for(1)?;
    measure(&wires, &[platform.manager_pid(), nf], span)
}

/// All in turn, round after round, each on wires of its own.
fn samples(effort: Effort) -> Vec<Result<Vec<Sample>, String>> {
    let mut all: Vec<Result<Vec<Sample>, String>> = vec![Ok(Vec::new()); CONTENDERS.len()];
    for _ in 0..effort.rounds {
        for ((name, kind), samples) in CONTENDERS.iter().zip(&mut all) {
            let Ok(so_far) = samples else { continue };
            match run_one(name, *kind, effort.span) {
                Ok(sample) => so_far.push(sample),
                Err(error) => *samples = Err(error.to_string()),
            }
        }
    }
    all
}

/// The medians of a figure and of its ratios to the bridge's of the same round.
fn line(
    name: &str,
    unit: &'static str,
    ours: &[Sample],
    bridge: &[Sample],
    figure: fn(&Sample) -> f64,
) -> Line {
    let of = |samples: &[Sample]| median(&samples.iter().map(figure).collect::<Vec<_>>());
    let ratios: Vec<f64> = ours.iter().zip(bridge).map(|(ours, peer)| figure(ours) / figure(peer)).collect();
    Line {
        floor: Some(("Linux bridge".into(), of(bridge))),
        ratio: Some(median(&ratios)),
        ..Line::new(name, unit, of(ours), Mark::None)
    }
}

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let samples = samples(effort);
    let bridge = match &samples[0] {
        Ok(bridge) => bridge,
        Err(why) => return vec![Line::failed("ports over veth", why.clone())],
    };
    let mut lines = Vec::new();
    for ((name, _), samples) in CONTENDERS.iter().zip(&samples).skip(1) {
        match samples {
            Ok(ours) => {
                lines.push(line(&format!("{name}, 1 NF"), "Mpps", ours, bridge, |s| s.rate / 1e6));
                lines.push(line(&format!("{name}, 1 NF, CPU"), "ns", ours, bridge, |s| s.cpu_ns));
            }
            Err(why) => lines.push(Line::failed(*name, why.clone())),
        }
    }
    lines
}
