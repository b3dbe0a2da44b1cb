//! What one packet costs at one hop: cycles from the rate, instructions from callgrind.

use std::process::{Command, Stdio};

use super::hop;
use crate::machine::tsc_hertz;
use crate::measure::{Contender, Effort, Error, Line, Mark, Scale, alternate};
use crate::platform::Platform;

/// Packets of the shorter and the longer run under callgrind.
const FEW: u64 = 100_000;
const MANY: u64 = 300_000;

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let mut lines = cycles(effort);
    for (name, count) in [
        ("instructions in an NF, plain", function as fn(u64, &[&str]) -> Result<u64, Error>),
        ("instructions in the manager", manager),
    ] {
        lines.push(difference(name, |n| count(n, &[])));
    }
    lines.insert(2, difference("instructions in an NF, TTL", |n| function(n, &["--decrement-ttl"])));
    lines
}

fn cycles(effort: Effort) -> Vec<Line> {
    let name = "cycles for a packet and hop";
    let Some(hertz) = tsc_hertz() else { return vec![Line::failed(name, "no time stamp counter")] };
    let contenders = [Contender::new(name, |span| {
        // As a rate, so that the unit does the rest: packets in a tick of the counter.
        hop::ours(&["--decrement-ttl"], span).map(|rate| rate / hertz)
    })];
    let unit = Scale { unit: "cycles", of: |packets| 1.0 / packets };
    vec![alternate(&contenders, effort).line(0, &[], unit, Mark::None)]
}

fn difference(name: &str, count: impl Fn(u64) -> Result<u64, Error>) -> Line {
    match count(FEW).and_then(|few| Ok((few, count(MANY)?))) {
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        Ok((few, many)) => {
            Line::new(name, "instr.", many.saturating_sub(few) as f64 / (MANY - FEW) as f64, Mark::None)
        }
        Err(error) => Line::failed(name, error.to_string()),
    }
}

const CALLGRIND: &[&str] = &["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];

/// Instructions of an NF that leaves after so many packets. The manager is the faster by far, so the NF never
/// waits for it, and the difference of two runs holds nothing but packets.
fn function(packets: u64, arguments: &[&str]) -> Result<u64, Error> {
    let platform = Platform::start(&["--port", "gen:", "--port", "null:"])?;
    let limit = packets.to_string();
    let arguments = [&["-r", "1", "-m", "1", "-l", limit.as_str()], arguments].concat();
    let mut command = platform.function_under(CALLGRIND, "nf-forward", &arguments)?;
    counted(&mut command)
}

/// Instructions of a manager with a source of so many packets.
fn manager(packets: u64, _: &[&str]) -> Result<u64, Error> {
    let log = tempfile::NamedTempFile::new()?;
    let log_option = format!("--log-file={}", log.path().display());
    let tool = [CALLGRIND, &[log_option.as_str()]].concat();
    let source = format!("gen:count={packets}");
    let mut platform = Platform::start_under(&tool, &["--port", source.as_str(), "--port", "null:"])?;
    platform.add("nf-forward", &["-r", "1", "-m", "1"])?;
    platform.wait_for_end()?;
    refs(&std::fs::read_to_string(log.path())?)
}

fn counted(command: &mut Command) -> Result<u64, Error> {
    let output = command.stderr(Stdio::piped()).output().map_err(|e| Error::new(format!("valgrind: {e}")))?;
    refs(&String::from_utf8_lossy(&output.stderr))
}

/// The number in `==123== Collected : 4567`.
fn refs(log: &str) -> Result<u64, Error> {
    let line = log.lines().find_map(|line| line.split_once("Collected : "));
    line.and_then(|(_, n)| n.trim().parse().ok())
        .ok_or_else(|| Error::new(format!("callgrind counted nothing: {}", log.lines().last().unwrap_or(""))))
}
