//! A file, pipe or standard output that is written to beside the packets: a full disk or a reader that does not
//! read holds up no packet.
//!
//! ```text
//! flows ─▶ chunks ─▶ [ 64 chunks ] ─▶ thread ─▶ file
//! ```
//! A live monitor drops chunks that find no room; a replay waits. After the first error nothing more is written:
//! it is said once, and what is lost is counted.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SendError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Tally;

/// Chunks on their way at most.
const CHUNKS: usize = 64;
/// How long a live monitor that ends waits for the last of them.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What is written at once.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    /// Flow records in it.
    pub(crate) records: u32,
    /// Packets and octets that these stand for.
    pub(crate) totals: (u64, u64),
}

/// What the thread has to say.
#[derive(Debug, Default)]
struct Outcome {
    error: OnceLock<String>,
    tally: Mutex<Tally>,
    /// Chunks that it has dealt with, written or not.
    handled: AtomicU64,
}

impl Outcome {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Its holders only add.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something to write to.
#[derive(Debug)]
pub(crate) struct Sink {
    name: String,
    /// None once it is closed.
    chunks: Option<SyncSender<Chunk>>,
    /// Chunks that were passed to the thread.
    passed: u64,
    thread: Option<JoinHandle<()>>,
    outcome: Arc<Outcome>,
    patient: bool,
    /// What an earlier run left in the file, to be removed before the first chunk.
    old: Option<File>,
    /// What stands at the beginning of the file.
    head: Option<Vec<u8>>,
}

impl Sink {
    /// Opens a file, or takes standard output for `-`; reports then go to standard error. What is in the file is
    /// removed with the first chunk: a successor leaves what its predecessor has written ([`resume`](Self::resume)).
    ///
    /// # Errors
    /// The file cannot be created.
    pub(crate) fn open(path: &Path, head: Option<Vec<u8>>, patient: bool) -> Result<Self, String> {
        let name = path.display().to_string();
        let append = || File::options().create(true).append(true).open(path);
        let file = if name == "-" { take_stdout() } else { append() };
        let cannot = |error: std::io::Error| format!("cannot write {name}: {error}");
        let to = file.map_err(cannot)?;
        // Pipes and devices have no length.
        let old = to
            .metadata()
            .is_ok_and(|file| file.is_file())
            .then(|| to.try_clone())
            .transpose()
            .map_err(cannot)?;
        let (chunks, from) = sync_channel(CHUNKS);
        let outcome = Arc::new(Outcome::default());
        let (its, its_name) = (Arc::clone(&outcome), name.clone());
        let thread = std::thread::Builder::new()
            .name("records".into())
            .spawn(move || write_all(to, &from, &its_name, &its))
            .map_err(|error| format!("cannot start a thread that writes {name}: {error}"))?;
        Ok(Self { name, chunks: Some(chunks), passed: 0, thread: Some(thread), outcome, patient, old, head })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a chunk to be written; what finds no room is lost.
    pub(crate) fn write(&mut self, chunk: Chunk) {
        self.begin();
        self.pass(chunk);
    }

    /// Begins the file, if that has not been done.
    fn begin(&mut self) {
        if let Some(Err(error)) = self.old.take().map(|old| old.set_len(0)) {
            log::warn!("{} cannot be emptied: {error}", self.name);
        }
        if let Some(bytes) = self.head.take() {
            self.pass(Chunk { bytes, records: 0, totals: (0, 0) });
        }
    }

    fn pass(&mut self, chunk: Chunk) {
        let Some(chunks) = &self.chunks else { return };
        self.passed += 1;
        let left = match chunks.try_send(chunk) {
            Ok(()) => return,
            Err(TrySendError::Full(chunk)) if self.patient => match chunks.send(chunk) {
                Ok(()) => return,
                Err(SendError(chunk)) => chunk,
            },
            Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => chunk,
        };
        self.passed -= 1;
        self.outcome.tally().lost += u64::from(left.records);
    }

    /// Waits for what has been passed to be written, for its tally to be whole; not for long.
    pub(crate) fn settle(&self) {
        let end = Instant::now() + LAST_WAIT / 4;
        while self.outcome.handled.load(Ordering::Relaxed) < self.passed && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits until all is written; a live monitor not for long.
    pub(crate) fn close(&mut self) {
        self.begin();
        self.chunks = None;
        let Some(thread) = self.thread.take() else { return };
        let end = Instant::now() + LAST_WAIT;
        while !self.patient && !thread.is_finished() {
            if Instant::now() >= end {
                let late = format!("its reader is too slow: the end is lost after {} s", LAST_WAIT.as_secs());
                let _ = self.outcome.error.set(late);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.join().is_err() {
            let _ = self.outcome.error.set("the thread that writes it ended".into());
        }
    }

    /// What went wrong, if something did.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.outcome.error.get().cloned()
    }

    /// What was written.
    pub(crate) fn tally(&self) -> Tally {
        *self.outcome.tally()
    }

    /// Goes on with what another has written.
    pub(crate) fn resume(&mut self, tally: Tally) {
        (self.old, self.head) = (None, None);
        *self.outcome.tally() = tally;
    }
}

/// Standard output for records alone: whatever else is printed there goes to standard error from here on.
fn take_stdout() -> std::io::Result<File> {
    let own = std::io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(File::from(own))
}

fn write_all(mut to: File, chunks: &Receiver<Chunk>, name: &str, outcome: &Outcome) {
    while let Ok(chunk) = chunks.recv() {
        if outcome.error.get().is_none() {
            match to.write_all(&chunk.bytes) {
                Ok(()) => outcome.tally().add(chunk.totals, chunk.records),
                Err(reason) => {
                    log::error!("{name} cannot be written any more: {reason}");
                    let _ = outcome.error.set(reason.to_string());
                }
            }
        }
        if outcome.error.get().is_some() {
            outcome.tally().lost += u64::from(chunk.records);
        }
        outcome.handled.fetch_add(1, Ordering::Relaxed);
    }
}
