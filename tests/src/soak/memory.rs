//! What processes take, as the kernel sees it.

use std::collections::BTreeMap;
use std::path::Path;

/// Growth of a process, from when it was warm to a later look at home, that is no leak: connections come and go, and the
/// allocator keeps what the longest backlog took.
const MORE_FDS: u64 = 6;
const MORE_MAPS: u64 = 20;
const MORE_PRIVATE_KB: u64 = 48 << 10;
/// Direct edges of one process at home. Those of the last few chains before stay until packets cannot be on them any more.
const MOST_DIRECT: u64 = 80;
/// Looks after which a process is warm.
const WARM: usize = 4;
/// How direct edges show in the lists of files and of mappings.
const DIRECT: &str = "onvm-direct";

/// What one process takes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Sample {
    /// Open files, but for direct edges.
    pub fds: u64,
    /// Mappings, but for direct edges.
    pub maps: u64,
    /// Direct edges.
    pub direct: u64,
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
        let (mut fds, mut direct) = (0, 0);
        for (kind, n) in files(pid) {
            *(if kind.contains(DIRECT) { &mut direct } else { &mut fds }) += u64::from(n);
        }
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let maps = maps.lines().filter(|line| !line.contains(DIRECT)).count();
        Some(Self {
            fds,
            maps: maps as u64,
            direct,
            private_kb: field("RssAnon:")?,
            rss_kb: field("VmRSS:")?,
        })
    }
}

/// What a process was seen to take.
#[derive(Debug)]
struct Looks {
    count: usize,
    first: Sample,
    /// The most of each until it was warm.
    warm: Sample,
    last: Sample,
    /// What the files of the first look are, and how many of each kind.
    files: BTreeMap<String, u32>,
}

/// What processes took when they were looked at.
#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<u32, Looks>);

impl Memory {
    /// A look at a process; what has grown too much, in words.
    pub(super) fn look(&mut self, who: &str, pid: u32) -> Result<(), String> {
        let Some(now) = Sample::of(pid) else { return Ok(()) };
        let looks = self.0.entry(pid).or_insert_with(|| Looks {
            count: 0,
            first: now,
            warm: now,
            last: now,
            files: files(pid),
        });
        looks.last = now;
        looks.count += 1;
        let warm = &mut looks.warm;
        if looks.count <= WARM {
            warm.private_kb = warm.private_kb.max(now.private_kb);
        }
        let grown = now.fds > warm.fds + MORE_FDS
            || now.maps > warm.maps + MORE_MAPS
            || now.direct > MOST_DIRECT
            || looks.count > WARM && now.private_kb > warm.private_kb + MORE_PRIVATE_KB;
        if !grown {
            return Ok(());
        }
        let before = |name: &String| looks.files.get(name).copied().unwrap_or(0);
        let more: Vec<String> = files(pid)
            .iter()
            .filter(|(name, n)| **n != before(name))
            .map(|(name, n)| format!("{name}: {}, now {n}", before(name)))
            .collect();
        Err(format!("{who} (pid {pid}) grows: {warm:?}, now {now:?}; {}", more.join("; ")))
    }

    /// First and last look at a process.
    pub(super) fn of(&self, pid: u32) -> Option<(Sample, Sample)> {
        self.0.get(&pid).map(|looks| (looks.first, looks.last))
    }

    /// The largest growth of one process: open files, mappings, KiB.
    pub(super) fn growth(&self) -> (u64, u64, u64) {
        self.0.values().fold((0, 0, 0), |most, looks| {
            let (first, last) = (looks.first, looks.last);
            (
                most.0.max(last.fds.saturating_sub(first.fds)),
                most.1.max(last.maps.saturating_sub(first.maps)),
                most.2.max(last.private_kb.saturating_sub(first.private_kb)),
            )
        })
    }

    /// A process is gone.
    pub(super) fn forget(&mut self, pid: u32) {
        self.0.remove(&pid);
    }
}

/// Open files of a process by kind.
fn files(pid: u32) -> BTreeMap<String, u32> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok) {
        let Ok(link) = std::fs::read_link(entry.path()) else { continue };
        let kind: String = link.display().to_string().chars().filter(|c| !c.is_ascii_digit()).collect();
        *kinds.entry(kind).or_insert(0) += 1;
    }
    kinds
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
