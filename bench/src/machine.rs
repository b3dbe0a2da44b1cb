//! What the benchmarks need of the machine: processors, priority, clocks, what processes have used.

use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

use crate::measure::Error;

/// Keeps this thread, and what it starts, on one processor; and ends it with its parent.
pub(crate) fn pin(core: u32) -> Result<(), Error> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(as_io)?;
    let mut set = CpuSet::new();
    set.set(core as usize);
    rustix::thread::sched_setaffinity(None, &set).map_err(as_io)?;
    Ok(())
}

fn as_io(errno: rustix::io::Errno) -> Error {
    std::io::Error::from(errno).into()
}

/// Processors that may be used.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Puts the benchmarks before everything else on the machine, as far as allowed, until dropped.
pub(crate) struct Priority {
    autogroup: Option<String>,
    raised: bool,
}

const AUTOGROUP: &str = "/proc/self/autogroup";

impl Priority {
    pub(crate) fn raise() -> Self {
        let raised = rustix::process::setpriority_process(None, -20).is_ok();
        // With autogroups, nice values count only inside a session; the session has one of its own.
        let before = std::fs::read_to_string(AUTOGROUP).ok();
        let before =
            before.and_then(|text| text.trim().rsplit_once("nice ").map(|(_, nice)| nice.to_string()));
        let autogroup = before.filter(|_| raised && std::fs::write(AUTOGROUP, "-20").is_ok());
        Self { autogroup, raised }
    }

    pub(crate) fn raised(&self) -> bool {
        self.raised
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(nice) = &self.autogroup
            && let Err(error) = std::fs::write(AUTOGROUP, nice)
        {
            eprintln!("onvm-bench: the session's priority stays raised: {error}");
        }
    }
}

/// Ticks of the time stamp counter in a second.
pub(crate) fn tsc_hertz() -> Option<f64> {
    let (ticks, started) = (ticks()?, Instant::now());
    std::thread::sleep(Duration::from_millis(50));
    let (later, time) = (self::ticks()?, started.elapsed());
    #[allow(clippy::cast_precision_loss, reason = "a frequency needs no 53 bits")]
    Some((later - ticks) as f64 / time.as_secs_f64())
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn ticks() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user space use it.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> Option<u64> {
    None
}

/// Processor time that all threads of a process have used.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, Error> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// The name of the processor.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor").to_string()
}

/// How many processes wanted to run in the last minute, on average.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_string()
}
