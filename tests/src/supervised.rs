//! What tests ask of a manager that supervises its NFs: their processes, their last words, whether they run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onvm_lib::protocol::{Request, Target};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{LIMIT, Lab, Ledger, Manager, Process};

/// Sends a signal to a process that is not a child of the test.
///
/// # Panics
/// When there is no such process.
pub fn signal_pid(pid: u64, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).unwrap_or_else(|e| panic!("{signal:?} to {pid:?}: {e}"));
}

/// Whether a process runs; one that is dead and not waited for does not.
#[must_use]
pub fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until something is so.
///
/// # Panics
/// When it is not within [`LIMIT`].
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The last report that an NF wrote with `--json` to its log.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn last_report(log: &Path) -> Value {
    let text = std::fs::read_to_string(log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
    let line = text.lines().rfind(|line| line.starts_with('{'));
    let line = line.unwrap_or_else(|| panic!("{}: no report: {text}", log.display()));
    let all: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    all["report"].clone()
}

impl Lab {
    /// Writes a file in the lab; its path.
    ///
    /// # Panics
    /// When there is no room.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("room for a file");
        self.file(name)
    }

    /// Process ids of a service's instances, in the order of their instance ids.
    #[must_use]
    pub fn pids(&self, service: u16) -> Vec<u64> {
        self.instances(service).iter().filter_map(|i| i["pid"].as_u64()).collect()
    }

    /// Waits until a service has exactly so many instances, and all of them run.
    ///
    /// # Panics
    /// When that does not come within [`LIMIT`].
    pub fn wait_for_running(&self, service: u16, count: usize) {
        let until = Instant::now() + LIMIT;
        loop {
            let all = self.instances(service);
            if all.len() == count && all.iter().all(|i| i["state"] == "running") {
                return;
            }
            let events = || self.events(0);
            assert!(Instant::now() < until, "never {count} of service {service}: {all:?} {:?}", events());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Number of the last event.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        self.events(0).last().and_then(|e| e["number"].as_u64()).unwrap_or(0)
    }

    /// Starts `nf replace SERVICE -- COMMAND`.
    #[must_use]
    pub fn replace(&self, service: &str, command: &[&str]) -> Process {
        let socket = self.socket().display().to_string();
        let words = ["nf", "replace", "--socket", &socket, service, "--"];
        self.bare("onvm-mgr", &[&words, command].concat())
    }

    /// Log of the only process of a service that runs.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn log(&self, service: u16) -> PathBuf {
        let (logs, _) = self.ask(Request::Logs { target: Target::Service(service) }).expect("logs");
        logs["logs"][0]["path"]
            .as_str()
            .unwrap_or_else(|| panic!("no log of service {service}: {logs}"))
            .into()
    }

    /// Ends a manager whose traffic a judge of the order sees last: the sums balance, and nothing came late. The judge's
    /// report, and the ledger.
    ///
    /// # Panics
    /// When that is not so.
    #[must_use]
    pub fn judged(&self, manager: Manager<'_>, judge: u16) -> (Value, Ledger) {
        let (audit, balanced) = manager.audit();
        assert!(balanced, "{audit}");
        let (log, events) = (self.log(judge), self.events(0));
        println!("{}", manager.process.errors());
        let ledger = manager.stop(LIMIT);
        let report = last_report(&log);
        if report["reordered"] != 0 || report["missing"] != 0 {
            events.iter().for_each(|event| println!("{event}"));
        }
        assert_eq!(report["reordered"], 0, "{report} {}", ledger.0["drops"]);
        (report, ledger)
    }

    /// The same, when nothing may be missing either.
    ///
    /// # Panics
    /// When something is.
    pub fn judged_whole(&self, manager: Manager<'_>, judge: u16) -> Value {
        let (report, ledger) = self.judged(manager, judge);
        assert_eq!(report["missing"], 0, "{report} {}", ledger.0["drops"]);
        assert!(ledger.0["drops"].as_object().is_none_or(serde_json::Map::is_empty), "{}", ledger.0["drops"]);
        report
    }
}
