//! How fast an NF is there, and what it costs while nothing happens.

use std::time::{Duration, Instant};

use crate::machine::cpu_time;
use crate::measure::{Effort, Error, Line, Mark, median};
use crate::platform::Platform;

const STARTS: usize = 50;
/// Milliseconds.
const MOST_START: f64 = 10.0;
/// Percent of one core, for a manager with ten NFs.
const MOST_IDLE: f64 = 2.0;

/// From exec of an NF that leaves after its first packet to its end: an upper bound of the time to that packet.
pub(super) fn start(effort: Effort) -> Vec<Line> {
    let name = "exec to first packet, and exit";
    let starts = if effort.quick { STARTS / 5 } else { STARTS };
    match times(starts) {
        Ok(times) => vec![Line::new(name, "ms", median(&times), Mark::AtMost(MOST_START))],
        Err(error) => vec![Line::failed(name, error.to_string())],
    }
}

fn times(starts: usize) -> Result<Vec<f64>, Error> {
    let platform =
        Platform::start(&["--port", "gen:rate=1M", "--port", "null:", "--wait-for-instance", "0.001"])?;
    let mut command = platform.function("nf-forward", &["-r", "1", "-l", "1"])?;
    let once = || -> Result<f64, Error> {
        let started = Instant::now();
        let status = command.status()?;
        let time = started.elapsed().as_secs_f64() * 1e3;
        if status.success() { Ok(time) } else { Err(Error::new(format!("nf-forward ended with {status}"))) }
    };
    std::iter::repeat_with(once).take(starts).collect()
}

/// Processor time of a manager and sleeping NFs.
pub(super) fn idle(effort: Effort) -> Vec<Line> {
    let time = Duration::from_secs(if effort.quick { 2 } else { 5 });
    [(10, Mark::AtMost(MOST_IDLE)), (100, Mark::None)]
        .into_iter()
        .map(|(functions, mark)| {
            let name = format!("idle manager and {functions} NFs");
            match idle_percent(functions, time) {
                Ok(percent) => Line::new(name, "% core", percent, mark),
                Err(error) => Line::failed(name, error.to_string()),
            }
        })
        .collect()
}

fn idle_percent(functions: usize, time: Duration) -> Result<f64, Error> {
    let mut platform = Platform::start(&["--port", "null:", "--port", "null:", "--stay", "--wait", "1"])?;
    let mut pids = vec![platform.manager_pid()];
    for _ in 0..functions {
        pids.push(platform.add("nf-forward", &["-r", "1"])?);
    }
    platform.wait_for(functions)?;
    std::thread::sleep(Duration::from_secs(1));
    let used = || pids.iter().map(|pid| cpu_time(*pid)).sum::<Result<Duration, Error>>();
    let (before, started) = (used()?, Instant::now());
    std::thread::sleep(time);
    let (after, took) = (used()?, started.elapsed());
    Ok((after - before).as_secs_f64() / took.as_secs_f64() * 100.0)
}
