//! One started process: its output in files, a limit on every wait, killed when dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// A started process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    errors: PathBuf,
    reaped: Option<ExitStatus>,
}

/// How a process ended.
#[derive(Debug)]
pub struct End {
    /// What it was started as.
    pub name: String,
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl End {
    /// The same end, if it was a good one.
    ///
    /// # Panics
    /// When the exit code is not 0.
    #[must_use]
    pub fn good(self) -> Self {
        self.with_code(0)
    }

    /// The same end, if it was with this exit code.
    ///
    /// # Panics
    /// When it was not.
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// The last line of its output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("no JSON ({e}): {self}"))
    }

    /// Lines on standard error that are not of the log.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        self.err.lines().filter(|line| !line.starts_with('['))
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, code, signal, out, err } = self;
        write!(f, "{name} ended with code {code:?}, signal {signal:?}\n--- output\n{out}\n--- errors\n{err}")
    }
}

impl Process {
    /// Starts a program. Its output goes to files in `directory`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(directory: &Path, number: usize, program: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        Self::start_in(directory, number, program, arguments, &[])
    }

    /// The same with further environment variables.
    ///
    /// # Panics
    /// As [`Process::start`].
    #[must_use]
    pub fn start_in(
        directory: &Path,
        number: usize,
        program: &Path,
        arguments: &[impl AsRef<OsStr>],
        environment: &[(&str, &str)],
    ) -> Self {
        let name = program.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let output = directory.join(format!("{number}-{name}.out"));
        let errors = directory.join(format!("{number}-{name}.err"));
        let file = |path: &Path| File::create(path).expect("the test's directory can be written");
        let child = Command::new(program)
            .args(arguments)
            .env_remove("ONVM_SOCKET")
            .env("RUST_LOG", std::env::var("ONVM_TEST_LOG").unwrap_or_default())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file(&output))
            .stderr(file(&errors))
            .spawn()
            .unwrap_or_else(|e| panic!("{} cannot be started: {e}", program.display()));
        Self { name, child, output, errors, reaped: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.reaped.is_none() {
            self.reaped = self.child.try_wait().expect("a child can be waited for");
        }
        self.reaped
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        read(&self.errors)
    }

    /// Waits until standard error contains a text.
    ///
    /// # Panics
    /// When it ends, or `limit` passes, before that.
    pub fn wait_for_error(&mut self, text: &str, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.errors().contains(text) {
            assert!(
                self.is_running() && Instant::now() < end,
                "{} did not say {text:?}: {}",
                self.name,
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When `limit` passes before that.
    pub fn wait(&mut self, limit: Duration) -> End {
        let until = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.poll() {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                panic!("{} did not end within {limit:?}: {}\n{}", self.name, self.output(), self.errors());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        End {
            name: self.name.clone(),
            code: status.code(),
            signal: status.signal(),
            out: self.output(),
            err: self.errors(),
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- {} {} wrote\n{}{}",
                self.name,
                self.pid(),
                tail(&self.errors()),
                tail(&self.output())
            );
        }
    }
}

/// The end of a text that may be long.
fn tail(text: &str) -> &str {
    const MOST: usize = 4000;
    let start = text.len().saturating_sub(MOST);
    (start..text.len()).find(|i| text.is_char_boundary(*i)).map_or("", |i| &text[i..])
}
