//! The platform under measurement: a manager and network functions as processes of their own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::measure::{Error, Span};

/// How long something may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the programs lie: beside this one.
pub(crate) fn program(name: &str) -> Result<PathBuf, Error> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(Error::new(format!("{} is not built", path.display()))) }
}

/// A running manager and its network functions; all end with it.
pub(crate) struct Platform {
    directory: tempfile::TempDir,
    manager: Child,
    functions: Vec<Child>,
}

impl Platform {
    /// Starts a manager with its worker on processor 0.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Error> {
        Self::start_under(&[], arguments)
    }

    /// The same under another program, such as valgrind.
    pub(crate) fn start_under(tool: &[&str], arguments: &[&str]) -> Result<Self, Error> {
        let directory = tempfile::tempdir()?;
        let mut command = under(tool, "onvm-mgr")?;
        command.args(["-m", "0"]).args(arguments).env("ONVM_SOCKET", directory.path().join("s"));
        let log = File::create(directory.path().join("log"))?;
        let manager = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let platform = Self { directory, manager, functions: Vec::new() };
        platform.wait_until("the manager to answer", || platform.stats().is_ok())?;
        Ok(platform)
    }

    fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) -> Result<(), Error> {
        let start = Instant::now();
        while !done() {
            if start.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("nothing");
                let waited = PATIENCE.as_secs();
                return Err(Error::new(format!(
                    "waited {waited} s for {what}; the manager's last words: {last}"
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A network function that is not started yet.
    pub(crate) fn function(&self, name: &str, arguments: &[&str]) -> Result<Command, Error> {
        self.function_under(&[], name, arguments)
    }

    /// The same under another program.
    pub(crate) fn function_under(
        &self,
        tool: &[&str],
        name: &str,
        arguments: &[&str],
    ) -> Result<Command, Error> {
        let mut command = under(tool, name)?;
        command.args(arguments).env("ONVM_SOCKET", self.directory.path().join("s"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }

    /// Starts a network function.
    pub(crate) fn add(&mut self, name: &str, arguments: &[&str]) -> Result<u32, Error> {
        let child = self.function(name, arguments)?.spawn()?;
        let pid = child.id();
        self.functions.push(child);
        Ok(pid)
    }

    pub(crate) fn manager_pid(&self) -> u32 {
        self.manager.id()
    }

    /// All counters of the manager.
    pub(crate) fn stats(&self) -> Result<Value, Error> {
        let output: Output = Command::new(program("onvm-mgr")?)
            .args(["stats", "--json"])
            .env("ONVM_SOCKET", self.directory.path().join("s"))
            .stderr(Stdio::null())
            .output()?;
        serde_json::from_slice(&output.stdout).map_err(|e| Error::new(format!("no statistics: {e}")))
    }

    /// All events that the manager remembers.
    pub(crate) fn events(&self) -> Result<Vec<Value>, Error> {
        let output = Command::new(program("onvm-mgr")?)
            .args(["events", "--json"])
            .env("ONVM_SOCKET", self.directory.path().join("s"))
            .stderr(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let read = |line: &str| serde_json::from_str(line).map_err(|e| Error::new(format!("no event: {e}")));
        text.lines().map(read).collect()
    }

    /// Ends the manager in order, which ends what it has started.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        let failed = |step: &str| Error::new(format!("cannot {step} the manager"));
        let pid = rustix::process::Pid::from_child(&self.manager);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).map_err(|_| failed("end"))?;
        self.manager.wait().map_err(|_| failed("wait for"))?;
        Ok(())
    }

    /// Waits until so many instances run.
    pub(crate) fn wait_for(&self, instances: usize) -> Result<(), Error> {
        self.wait_until("the network functions", || {
            let running = |i: &Value| i["state"] == "running";
            let stats = self.stats().unwrap_or_default();
            stats["instances"]
                .as_array()
                .is_some_and(|all| all.iter().filter(|i| running(i)).count() >= instances)
        })
    }

    /// Packets a second by a counter, between two looks at it.
    pub(crate) fn rate(&self, span: Span, counter: impl Fn(&Value) -> Option<u64>) -> Result<f64, Error> {
        let look = || -> Result<(f64, u64), Error> {
            let stats = self.stats()?;
            let time = stats["uptime_s"].as_f64().ok_or_else(|| Error::new("statistics without a time"))?;
            let count = counter(&stats).ok_or_else(|| Error::new("statistics without the counter"))?;
            Ok((time, count))
        };
        std::thread::sleep(span.warm);
        let (started, before) = look()?;
        std::thread::sleep(span.run);
        let (ended, after) = look()?;
        #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let rate = (after - before) as f64 / (ended - started);
        if rate > 0.0 { Ok(rate) } else { Err(self.stalled(&counter, after)) }
    }

    /// Says how bad it is that no packet moved.
    fn stalled(&self, counter: impl Fn(&Value) -> Option<u64>, before: u64) -> Error {
        std::thread::sleep(Duration::from_secs(2));
        let stats = self.stats().unwrap_or_default();
        let moved = counter(&stats).unwrap_or(0) - before;
        let facts = [&stats["packets"], &stats["pool"], &stats["instances"]].map(Value::to_string).join(" ");
        Error::new(format!("no packet moved; {moved} in 2 s more: {facts}"))
    }

    /// Waits until a manager whose sources end has ended.
    pub(crate) fn wait_for_end(&mut self) -> Result<(), Error> {
        self.manager.wait()?;
        Ok(())
    }
}

fn under(tool: &[&str], name: &str) -> Result<Command, Error> {
    let program = program(name)?;
    let Some((first, rest)) = tool.split_first() else { return Ok(Command::new(program)) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    Ok(command)
}

/// Packets that left by the ports.
pub(crate) fn sent(stats: &Value) -> Option<u64> {
    stats["packets"]["sent"].as_u64()
}

/// Packets that the instances of a name have taken in.
pub(crate) fn received_by(stats: &Value, name: &str) -> Option<u64> {
    let all = stats["instances"].as_array()?.iter().filter(|i| i["name"] == name);
    all.map(|i| i["received"].as_u64()).sum()
}

impl Drop for Platform {
    fn drop(&mut self) {
        for child in self.functions.iter_mut().chain([&mut self.manager]) {
            // It may have ended by itself.
            let _ = child.kill();
            if let Err(error) = child.wait() {
                eprintln!("onvm-bench: a process is lost: {error}");
            }
        }
    }
}
