//! Rule files that are read anew without losing a packet.
//!
//! ```text
//! SIGHUP ──────────┐                                    between two bursts
//! file changed ────┼─▶ thread: compile(file) ─▶ fresh ─▶ take() ─▶ in force ─▶ retire() ─▶ thread: drop
//! request() ───────┘              │
//!                                 └ error: logged and counted; what is in force stays
//! ```
//! The packets' thread neither reads files, nor compiles, nor frees what was replaced; all of that is done by a
//! thread beside it, on another processor where there is one. [`Reloader::take`] costs it one relaxed load a burst.
//!
//! What is asked for while a set is being compiled is done once more after it, so the last change always wins; a set
//! that was compiled and not yet taken is replaced by the next one.
//!
//! ```
//! use onvm_lib::reload::Reloader;
//!
//! let file = std::env::temp_dir().join(format!("reload-{}.txt", std::process::id()));
//! std::fs::write(&file, "7").unwrap();
//! let compile = |path: &std::path::Path| {
//!     let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
//!     text.trim().parse::<u32>().map_err(|e| format!("{}: {e}", path.display()))
//! };
//! let (mut limit, mut reloader) = Reloader::start(&[file.clone()], true, compile)?;
//! // Before each burst:
//! if let Some(fresh) = reloader.take() {
//!     reloader.retire(std::mem::replace(&mut limit, fresh));
//! }
//! assert_eq!(limit, 7);
//! # std::fs::remove_file(file).unwrap();
//! # Ok::<(), String>(())
//! ```

mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use signal_hook::SigId;
use signal_hook::consts::SIGHUP;

use crate::cpu;
use watch::{Caller, Waiting};

/// Topic of the control message that asks an NF to read its files anew.
pub const TOPIC: &str = "reload";

/// How reloading went so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Number of the set in force: 1 is the one that the program started with.
    pub generation: u64,
    /// Times that a file could not be used, and what was in force stayed.
    pub failures: u64,
    /// What was wrong with the file when it was last read; none if it was right.
    pub last_error: Option<String>,
}

/// What both threads see.
#[derive(Debug)]
struct Shared<T> {
    /// There is something in `fresh`. Only a hint: the lock below orders the memory.
    ready: AtomicBool,
    state: Mutex<State<T>>,
    stop: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    fresh: Option<T>,
    retired: Vec<T>,
    status: Status,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compiles anew what was read from files, in a thread of its own.
#[derive(Debug)]
pub struct Reloader<T> {
    shared: Arc<Shared<T>>,
    caller: Caller,
    signal: Option<SigId>,
}

impl<T: Send + 'static> Reloader<T> {
    /// Compiles the first of `paths` here and now, and then again on SIGHUP, on [`Reloader::request`], and with
    /// `watch` whenever one of `paths` changes: the others are files that the first one names. A file may be written
    /// in place, replaced by rename, or be a symbolic link that is set anew.
    ///
    /// `compile` gives the new set or the whole text of what is wrong, with the name of the file.
    ///
    /// # Errors
    /// What `compile` says of the first set, or why the thread cannot start.
    pub fn start<F>(paths: &[PathBuf], watch: bool, mut compile: F) -> Result<(T, Self), String>
    where
        F: FnMut(&Path) -> Result<T, String> + Send + 'static,
    {
        let path = paths.first().ok_or("there is no file to read")?.clone();
        // The watch begins before the file is read, so that no change is missed between.
        let watched = if watch { paths } else { &[] };
        let (caller, mut waiting) =
            Waiting::new(watched).map_err(|e| format!("{}: cannot be watched: {e}", path.display()))?;
        let first = compile(&path)?;
        let signal = signal_hook::low_level::pipe::register(
            SIGHUP,
            caller.try_clone().map_err(|e| format!("cannot listen for SIGHUP: {e}"))?,
        )
        .map_err(|e| format!("cannot listen for SIGHUP: {e}"))?;
        let status = Status { generation: 1, ..Status::default() };
        let shared = Arc::new(Shared {
            ready: AtomicBool::new(false),
            state: Mutex::new(State { fresh: None, retired: Vec::new(), status }),
            stop: AtomicBool::new(false),
        });
        let beside = Arc::clone(&shared);
        // Made first, so that the signal is given back when the thread cannot start.
        let reloader = Self { shared, caller, signal: Some(signal) };
        let thread = move || {
            cpu::leave_pinned();
            loop {
                let reading = waiting.wait();
                if beside.stop.load(Ordering::Relaxed) {
                    return;
                }
                let retired = std::mem::take(&mut beside.state().retired);
                drop(retired);
                if reading {
                    beside.compile(&path, &mut compile);
                }
            }
        };
        std::thread::Builder::new()
            .name("reload".into())
            .spawn(thread)
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok((first, reloader))
    }

    /// The new set, if there is one: call it between bursts. From then on it counts as the one in force.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        if !self.shared.ready.load(Ordering::Relaxed) {
            return None;
        }
        self.take_fresh()
    }

    #[cold]
    fn take_fresh(&mut self) -> Option<T> {
        let mut state = self.shared.state();
        self.shared.ready.store(false, Ordering::Relaxed);
        let fresh = state.fresh.take();
        state.status.generation += u64::from(fresh.is_some());
        fresh
    }

    /// Gives back what was replaced, to be freed beside the packets: that of 100,000 rules takes milliseconds.
    pub fn retire(&self, old: T) {
        self.shared.state().retired.push(old);
        self.caller.nudge();
    }

    /// Asks for the files to be read anew, as a message of [`TOPIC`] does. Does not wait.
    pub fn request(&self) {
        self.caller.ask();
    }

    /// How it went so far.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.state().status.clone()
    }
}

impl<T> Shared<T> {
    fn compile(&self, path: &Path, compile: &mut impl FnMut(&Path) -> Result<T, String>) {
        let outcome = catch_unwind(AssertUnwindSafe(|| compile(path)))
            .unwrap_or_else(|_| Err(format!("{}: reading it failed with a panic", path.display())));
        let mut state = self.state();
        match outcome {
            Ok(fresh) => {
                log::info!("{}: read anew", path.display());
                // One that nobody has taken is dropped here, outside the lock.
                let unused = state.fresh.replace(fresh);
                state.status.last_error = None;
                self.ready.store(true, Ordering::Relaxed);
                drop(state);
                drop(unused);
            }
            Err(error) => {
                log::error!("not reloaded, what was in force stays: {error}");
                state.status.failures += 1;
                state.status.last_error = Some(error);
            }
        }
    }
}

impl<T> Drop for Reloader<T> {
    fn drop(&mut self) {
        if let Some(signal) = self.signal.take() {
            signal_hook::low_level::unregister(signal);
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        self.caller.nudge();
    }
}

#[cfg(test)]
mod tests;
