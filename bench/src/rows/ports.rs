//! Forwarding between two veths: the manager and one NF over each kind of port, against the kernel doing the same.
//!
//! What a bridge does, it does in the time of who sends; so processor time is that of the sender, of whoever forwards and
//! of the kernel's own threads together, for each packet that comes out at the other end. The flood is the same for all. The
//! firewall and nftables have the same rules, none of which is of the flood's packets.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::forwarding::{Contender, Sample, alternate, compared, sample};
use super::wires::{Flood, Wires};
use crate::machine::cpu_time;
use crate::measure::{Effort, Error, Line, Mark, Span};
use crate::platform::Platform;

/// How long interfaces may take to come up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rules of the firewall and of nftables.
const RULES: u32 = 100;

/// Who forwards.
const BRIDGE: &str = "Linux bridge";
const NFTABLES: &str = "bridge, nftables";
/// Port, its options, and whether the firewall has rules.
const PORTS: [(&str, &str, &str, bool); 5] = [
    ("afpacket, 1 NF", "afpacket:", "", false),
    ("xdp, native, 1 NF", "xdp:", "", false),
    ("xdp, generic, 1 NF", "xdp:", ",mode=generic", false),
    ("afpacket, nf-firewall", "afpacket:", "", true),
    ("xdp, native, nf-firewall", "xdp:", "", true),
];

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
    let flood = Flood::start(wires, "c0")?;
    let pids: Vec<u32> = pids.iter().copied().chain([flood.pid()]).chain(kernel_threads()).collect();
    let before = wires.arrived()?;
    let started = Instant::now();
    while wires.arrived()? < before + 1000 {
        if started.elapsed() > PATIENCE {
            return Err(Error::new("no packet came out"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    sample(span, || {
        let used = pids.iter().map(|pid| cpu_time(*pid)).sum::<Result<Duration, Error>>()?;
        Ok((Instant::now(), used, wires.arrived()?))
    })
}

/// The source address and destination port that a rule denies.
fn denied(rule: u32) -> (String, u32) {
    (format!("192.0.2.{}", rule % 256), 20_000 + rule)
}

/// Gives the bridge its rules.
fn add_rules(wires: &Wires) -> Result<(), Error> {
    let mut text = String::from(
        "table bridge bench {\n chain forward {\n  type filter hook forward priority 0; policy accept;\n",
    );
    for rule in 0..RULES {
        let (from, port) = denied(rule);
        text += &format!("  ether type ip ip saddr {from} udp dport {port} drop\n");
    }
    text += " }\n}\n";
    let enter = wires.enter();
    let mut nft = Command::new(enter[0])
        .args(&enter[1..])
        .args(["nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    if nft.wait()?.success() { Ok(()) } else { Err(Error::new("nft does not take the rules")) }
}

fn kernel(ruled: bool, span: Span) -> Result<Sample, Error> {
    let wires = Wires::new()?;
    wires.bridge()?;
    if ruled {
        add_rules(&wires)?;
    }
    measure(&wires, &[], span)
}

fn ours((_, kind, options, ruled): (&str, &str, &str, bool), span: Span) -> Result<Sample, Error> {
    let wires = Wires::new()?;
    let ports = ["m0", "m1"].map(|interface| format!("{kind}{interface}{options}"));
    let arguments = ["--no-huge", "--port", &ports[0], "--port", &ports[1], "--chain", "1"];
    let mut platform = Platform::start_under(&wires.enter(), &arguments)?;
    let rules = tempfile::NamedTempFile::new()?;
    let mut text = String::from("default: allow\nrules:\n");
    for rule in 0..RULES {
        let (from, port) = denied(rule);
        text += &format!(
            "  - {{name: r{rule}, protocol: udp, from: {from}/32, to-port: {port}, action: deny}}\n"
        );
    }
    std::fs::write(rules.path(), text)?;
    let place = rules.path().display().to_string();
    let nf = if ruled {
        platform.add("nf-firewall", &["-r", "1", "-s", "-m", "0", "--rules", &place])?
    } else {
        platform.add("nf-forward", &["-r", "1", "-s", "-m", "0"])?
    };
    platform.wait_for(1)?;
    measure(&wires, &[platform.manager_pid(), nf], span)
}

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let mut contenders: Vec<Contender<'_>> =
        vec![Box::new(|span| kernel(false, span)), Box::new(|span| kernel(true, span))];
    for port in PORTS {
        contenders.push(Box::new(move |span| ours(port, span)));
    }
    let samples = alternate(&contenders, effort);
    let mut lines = Vec::new();
    for ((name, _, _, ruled), ours) in PORTS.iter().zip(&samples[2..]) {
        let peer = if *ruled { (NFTABLES, &samples[1]) } else { (BRIDGE, &samples[0]) };
        lines.extend(compared(name, ours, peer, Mark::None));
    }
    lines
}
