//! nfcapd as a child, and what nfdump reads from its files.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Whether a program can be run; says aloud if not. In CI it must be there.
pub(crate) fn has(program: &str, package: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|folder| folder.join(program).is_file())
    });
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing: apt-get install {package}");
        eprintln!("SKIPPED: {program} is missing: apt-get install {package}");
    }
    found
}

/// Sums over flow records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) flows: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// What a collector read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) totals: Totals,
    /// Sequence errors and bad packets.
    pub(crate) trouble: u64,
}

/// nfcapd, started anew for every export.
pub(crate) struct Collector {
    folder: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
}

impl Collector {
    /// None if nfcapd is not installed.
    pub(crate) fn start() -> Option<Self> {
        (has("nfcapd", "nfdump") && has("nfdump", "nfdump")).then(|| Self {
            folder: tempfile::tempdir().unwrap(),
            child: None,
            port: 0,
        })
    }

    /// Starts nfcapd; where to export to.
    pub(crate) fn address(&mut self, scheme: &str) -> String {
        assert!(self.child.is_none(), "its totals were not asked for");
        // Somebody else may be given the port before it has it.
        for _ in 0..10 {
            if self.listen() {
                return format!("{scheme}://127.0.0.1:{}", self.port);
            }
        }
        panic!("nfcapd ended: {}", self.text());
    }

    /// Starts nfcapd at a port that is free now; whether it stays.
    fn listen(&mut self) -> bool {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        self.port = free.local_addr().unwrap().port();
        drop(free);
        self.folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(self.log()).unwrap();
        let mut child = Command::new("nfcapd")
            .args(["-b", "127.0.0.1", "-p", &self.port.to_string(), "-t", "3600", "-B", "8000000", "-w"])
            .arg(self.files())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(120);
        while !self.said("Startup nfcapd") {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < until, "nfcapd does not start: {}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        true
    }

    fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    fn files(&self) -> std::path::PathBuf {
        let files = self.folder.path().join("files");
        std::fs::create_dir_all(&files).unwrap();
        files
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn said(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    /// Lets nfcapd finish what it has got, and reads its files with nfdump.
    pub(crate) fn totals(&mut self) -> Read {
        let mut child = self.child.take().unwrap();
        wait_until_read(self.port);
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM).unwrap();
        child.wait().unwrap();
        let text = self.text();
        let line = text.lines().find(|line| line.contains("Sequence Errors: ")).expect(&text);
        let after = |word: &str| {
            let rest = line.split(word).nth(1).unwrap();
            let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap()
        };
        let trouble = after("Sequence Errors:") + after("Bad Packets:");
        let read = Read { totals: summary(&self.files()), trouble };
        // The daemon's own sums do not have what was sent back; nfdump's statistics do.
        assert_eq!(after("Flows:"), read.totals.flows, "nfcapd and nfdump disagree");
        read
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until nothing is left in a socket's buffer (the kernel's table of UDP sockets).
fn wait_until_read(port: u16) {
    let waiting = || {
        let table = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
        let local = format!(":{port:04X}");
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 4 && fields[1].ends_with(&local) && !fields[4].ends_with(":00000000")
        })
    };
    let until = Instant::now() + Duration::from_secs(120);
    while waiting() {
        assert!(Instant::now() < until, "nfcapd does not read");
        std::thread::sleep(Duration::from_millis(10));
    }
    // What it has taken from there it works on.
    std::thread::sleep(Duration::from_millis(100));
}

/// Sums of `nfdump -I`.
fn summary(files: &Path) -> Totals {
    let done = Command::new("nfdump").arg("-R").arg(files).arg("-I").output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let n = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("nfdump says nothing of {name}: {text}"))
    };
    Totals { flows: n("Flows:"), packets: n("Packets:"), bytes: n("Bytes:") }
}
