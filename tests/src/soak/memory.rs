//! What processes take, as the kernel sees it.

use std::collections::BTreeMap;
use std::path::Path;

/// Growth of a process from one look at home to a later one that is no leak: connections and rings come and go.
const MORE_FDS: u64 = 6;
const MORE_MAPS: u64 = 20;
const MORE_PRIVATE_KB: u64 = 8 << 10;

/// What one process takes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Sample {
    /// Open files.
    pub fds: u64,
    /// Mappings.
    pub maps: u64,
    /// Memory of its own, in KiB.
    pub private_kb: u64,
    /// All memory that it has in RAM, shared memory too, in KiB.
    pub rss_kb: u64,
}

impl Sample {
    /// Of a process; none if it is gone.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?.lines().count();
        Some(Self {
            fds: fds as u64,
            maps: maps as u64,
            private_kb: field("RssAnon:")?,
            rss_kb: field("VmRSS:")?,
        })
    }
}

/// What processes took at their first look at home, and at the last.
#[derive(Debug, Default)]
pub(super) struct Memory {
    first: BTreeMap<u32, Sample>,
    last: BTreeMap<u32, Sample>,
}

impl Memory {
    /// A look at a process; what has grown too much, in words.
    pub(super) fn look(&mut self, who: &str, pid: u32) -> Result<(), String> {
        let Some(now) = Sample::of(pid) else { return Ok(()) };
        let first = *self.first.entry(pid).or_insert(now);
        self.last.insert(pid, now);
        let grown = now.fds > first.fds + MORE_FDS
            || now.maps > first.maps + MORE_MAPS
            || now.private_kb > first.private_kb + MORE_PRIVATE_KB;
        if grown { Err(format!("{who} (pid {pid}) grows: {first:?}, now {now:?}")) } else { Ok(()) }
    }

    /// First and last look at a process.
    pub(super) fn of(&self, pid: u32) -> Option<(Sample, Sample)> {
        Some((*self.first.get(&pid)?, *self.last.get(&pid)?))
    }

    /// The largest growth of one process: open files, mappings, KiB.
    pub(super) fn growth(&self) -> (u64, u64, u64) {
        let pairs = self.first.iter().filter_map(|(pid, first)| Some((first, self.last.get(pid)?)));
        pairs.fold((0, 0, 0), |most, (first, last)| {
            (
                most.0.max(last.fds.saturating_sub(first.fds)),
                most.1.max(last.maps.saturating_sub(first.maps)),
                most.2.max(last.private_kb.saturating_sub(first.private_kb)),
            )
        })
    }

    /// A process is gone.
    pub(super) fn forget(&mut self, pid: u32) {
        self.first.remove(&pid);
        self.last.remove(&pid);
    }
}

/// Processes that were started with a socket, and their programs.
pub(super) fn processes(socket: &Path) -> Vec<(u32, String)> {
    let socket = socket.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let told = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line: Vec<String> =
            line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let program = Path::new(&line[0]).file_name()?.to_string_lossy().into_owned();
        line.contains(&socket).then_some((pid, program))
    };
    pids.filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen_and_what_comes_and_goes_is_not() {
        let me = std::process::id();
        let mut memory = Memory::default();
        memory.look("me", me).unwrap();
        let few: Vec<_> = (0..3).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        memory.look("me", me).unwrap();
        let many: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(memory.look("me", me).unwrap_err().contains("grows"));
        assert!(memory.growth().0 >= 150);
        drop((few, many));
        assert!(processes(Path::new("/no/such/socket")).is_empty());
    }
}
