//! A directory and a control socket of a test's own, and the processes in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onvm_lib::protocol::{Answer, Line, PROTOCOL_VERSION, Request, Say};
use serde_json::Value;
use tempfile::TempDir;

use crate::{End, Ledger, Process, program};

/// How long anything in a test may take before it counts as hung. Only what is wrong takes so long, so there is room for
/// machines that are slow or have other work.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Seconds after which a manager ends by itself: longer than any test takes.
const LONGEST: &str = "900";

/// A place for one test.
#[derive(Debug)]
pub struct Lab {
    directory: TempDir,
    socket: PathBuf,
    started: AtomicUsize,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// A new one.
    ///
    /// # Panics
    /// When there is no room for temporary files.
    #[must_use]
    pub fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("onvm-lab-").tempdir().expect("a temporary directory");
        let socket = directory.path().join("onvm.sock");
        Self { directory, socket, started: AtomicUsize::new(0) }
    }

    /// A path in the test's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Starts any program of the workspace with these arguments and nothing else.
    #[must_use]
    pub fn bare(&self, name: &str, arguments: &[&str]) -> Process {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        Process::start(self.directory.path(), number, &program(name), arguments)
    }

    /// Leaves the directory where it is when the test ends.
    pub fn keep(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().to_path_buf()
    }

    /// Starts a program with `--socket`.
    #[must_use]
    pub fn start(&self, name: &str, arguments: &[&str]) -> Process {
        self.start_in(name, arguments, &[])
    }

    /// The same with further environment variables.
    #[must_use]
    pub fn start_in(&self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let mut all: Vec<OsString> = arguments.iter().map(Into::into).collect();
        all.extend(["--socket".into(), self.socket.clone().into()]);
        Process::start_in(self.directory.path(), number, &program(name), &all, environment)
    }

    /// Starts a manager that prints JSON, is not pinned to a processor (tests run side by side), and ends by itself
    /// should everything else fail.
    #[must_use]
    pub fn manager(&self, arguments: &[&str]) -> Manager<'_> {
        self.manager_in(arguments, &[])
    }

    /// The same with further environment variables.
    #[must_use]
    pub fn manager_in(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Manager<'_> {
        let mut all = vec!["--json", "--no-pin", "--no-huge"];
        if !arguments.contains(&"-t") {
            all.extend(["-t", LONGEST]);
        }
        all.extend(arguments);
        let process = self.start_in("onvm-mgr", &all, environment);
        let mut manager = Manager { lab: self, process };
        manager.wait_for_socket();
        manager
    }

    /// Writes a chain file and starts a manager with it, pinned only if `-m` is among the arguments. The file's NFs are those
    /// of the workspace.
    #[must_use]
    pub fn up(&self, chain_file: &str, arguments: &[&str]) -> Manager<'_> {
        let path = self.path("chain.yaml");
        std::fs::write(&path, chain_file).expect("room for a chain file");
        let _ = program("order_nf");
        let path = path.display().to_string();
        let mut all = vec!["up", &path, "--json", "--no-huge", "-t", LONGEST];
        if !arguments.contains(&"-m") {
            all.push("--no-pin");
        }
        all.extend(arguments);
        let process = self.start("onvm-mgr", &all);
        let mut manager = Manager { lab: self, process };
        manager.wait_for_socket();
        manager
    }

    /// Events after a number.
    ///
    /// # Panics
    /// When the manager does not answer.
    #[must_use]
    pub fn events(&self, after: u64) -> Vec<Value> {
        let (body, _) = self.ask(Request::Events { after, follow: false }).expect("events");
        body["events"].as_array().cloned().unwrap_or_default()
    }

    /// Waits for an event of a kind after a number.
    ///
    /// # Panics
    /// When it does not come within [`LIMIT`].
    #[must_use]
    pub fn wait_for_event(&self, kind: &str, after: u64) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let events = self.events(after);
            if let Some(event) = events.iter().find(|e| e["event"] == kind) {
                return event.clone();
            }
            assert!(Instant::now() < until, "no event {kind}: {events:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Instances of a service now, as `nf list` shows them.
    ///
    /// # Panics
    /// When the manager does not answer.
    #[must_use]
    pub fn instances(&self, service: u16) -> Vec<Value> {
        let (body, _) = self.ask(Request::NfList).expect("instances");
        let all = body["instances"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|i| i["service"] == service).collect()
    }

    /// Starts an NF that prints JSON.
    #[must_use]
    pub fn nf(&self, name: &str, arguments: &[&str]) -> Process {
        let mut all = vec!["--json"];
        all.extend(arguments);
        self.start(name, &all)
    }

    /// Runs a client command to its end.
    #[must_use]
    pub fn client(&self, arguments: &[&str]) -> End {
        self.start("onvm-mgr", arguments).wait(LIMIT)
    }

    /// The same, with `--socket` before the last arguments.
    #[must_use]
    pub fn client_at_socket(&self, arguments: &[&str], last: &[&str]) -> End {
        let socket = self.socket.display().to_string();
        let all = [arguments, &["--socket", &socket], last].concat();
        self.bare("onvm-mgr", &all).wait(LIMIT)
    }

    /// Asks the manager, without a process for it.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn ask(&self, request: Request) -> Result<(Value, bool), String> {
        let mut line = Line::connect(&self.socket).map_err(|e| e.to_string())?;
        rustix::net::sockopt::set_socket_timeout(&line, rustix::net::sockopt::Timeout::Recv, Some(LIMIT))
            .map_err(|e| e.to_string())?;
        line.send(&Say::Ask { version: PROTOCOL_VERSION, request }, &[], true).map_err(|e| e.to_string())?;
        match line.receive::<Answer>(true) {
            Ok((Answer::Told { body, ok }, files)) => match files.into_iter().next() {
                None => Ok((body, ok)),
                Some(file) => {
                    let file = std::io::BufReader::new(std::fs::File::from(file));
                    Ok((serde_json::from_reader(file).map_err(|e| e.to_string())?, ok))
                }
            },
            Ok((other, _)) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A running manager.
#[derive(Debug)]
pub struct Manager<'a> {
    lab: &'a Lab,
    /// Its process.
    pub process: Process,
}

impl Manager<'_> {
    fn wait_for_socket(&mut self) {
        let until = Instant::now() + LIMIT;
        while Line::connect(&self.lab.socket).is_err() && self.process.is_running() {
            assert!(Instant::now() < until, "the manager makes no socket: {}", self.process.errors());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its statistics now.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn stats(&self) -> Ledger {
        Ledger(
            self.lab
                .ask(Request::Stats)
                .unwrap_or_else(|e| panic!("stats: {e}: {}", self.process.errors()))
                .0,
        )
    }

    /// Waits until its statistics are as wanted.
    ///
    /// # Panics
    /// When that takes longer than [`LIMIT`].
    pub fn wait_until(&self, what: &str, as_wanted: impl Fn(&Ledger) -> bool) -> Ledger {
        let until = Instant::now() + LIMIT;
        loop {
            let stats = self.stats();
            if as_wanted(&stats) {
                return stats;
            }
            assert!(Instant::now() < until, "never came: {what}: {}", stats.0);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until this many instances are there.
    pub fn wait_for_instances(&self, n: usize) {
        self.wait_until(&format!("{n} instances"), |l| l.present().len() == n);
    }

    /// Asks for both sums.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn audit(&self) -> (Value, bool) {
        self.lab.ask(Request::Audit).unwrap_or_else(|e| panic!("audit: {e}: {}", self.process.errors()))
    }

    /// Asks it to stop, and waits for its end.
    #[must_use]
    pub fn stop(mut self, limit: Duration) -> Ledger {
        // It may have ended by itself meanwhile.
        let _ = self.lab.ask(Request::Shutdown);
        self.ended(limit)
    }

    /// Waits for its end, which must be a good one: exit code 0, balanced, no socket left behind.
    ///
    /// # Panics
    /// When it is not.
    pub fn ended(&mut self, limit: Duration) -> Ledger {
        self.ended_with(0, limit)
    }

    /// Waits for its end with an exit code; the sums must balance whatever the code.
    ///
    /// # Panics
    /// When that is not so.
    pub fn ended_with(&mut self, code: i32, limit: Duration) -> Ledger {
        let end = self.process.wait(limit).with_code(code);
        let ledger = Ledger(end.json());
        ledger.assert_balanced();
        assert!(!self.lab.socket.exists(), "the socket was left behind");
        ledger
    }
}
