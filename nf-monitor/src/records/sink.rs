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
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Chunks on their way at most.
const CHUNKS: usize = 64;
/// How long a live monitor that ends waits for the last of them.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What is written at once: bytes and the records in them.
type Chunk = (Vec<u8>, u32);

/// What the thread has to say.
#[derive(Debug, Default)]
struct Outcome {
    error: OnceLock<String>,
    /// Records that it could not write.
    lost: AtomicU64,
}

/// Something to write to.
#[derive(Debug)]
pub(crate) struct Sink {
    name: String,
    /// None once it is closed.
    chunks: Option<SyncSender<Chunk>>,
    thread: Option<JoinHandle<()>>,
    outcome: Arc<Outcome>,
    patient: bool,
}

impl Sink {
    /// Creates a file, or takes standard output for `-`; reports then go to standard error.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(crate) fn open(path: &Path, patient: bool) -> Result<Self, String> {
        let name = path.display().to_string();
        let file = if name == "-" { take_stdout() } else { File::create(path) };
        let to = file.map_err(|error| format!("cannot write {name}: {error}"))?;
        let (chunks, from) = sync_channel(CHUNKS);
        let outcome = Arc::new(Outcome::default());
        let (its, its_name) = (Arc::clone(&outcome), name.clone());
        let thread = std::thread::Builder::new()
            .name("records".into())
            .spawn(move || write_all(to, &from, &its_name, &its))
            .map_err(|error| format!("cannot start a thread that writes {name}: {error}"))?;
        Ok(Self { name, chunks: Some(chunks), thread: Some(thread), outcome, patient })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a chunk to be written; false if there is no room for it.
    pub(crate) fn write(&mut self, bytes: Vec<u8>, records: u32) -> bool {
        let Some(chunks) = &self.chunks else { return false };
        match chunks.try_send((bytes, records)) {
            Ok(()) => true,
            Err(TrySendError::Full(chunk)) => self.patient && chunks.send(chunk).is_ok(),
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Waits until all is written; a live monitor not for long.
    pub(crate) fn close(&mut self) {
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

    /// Records that were taken and could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.outcome.lost.load(Ordering::Relaxed)
    }
}

/// Standard output for records alone: whatever else is printed there goes to standard error from here on.
fn take_stdout() -> std::io::Result<File> {
    let own = std::io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(File::from(own))
}

fn write_all(mut to: File, chunks: &Receiver<Chunk>, name: &str, outcome: &Outcome) {
    while let Ok((bytes, records)) = chunks.recv() {
        if outcome.error.get().is_none()
            && let Err(reason) = to.write_all(&bytes)
        {
            log::error!("{name} cannot be written any more: {reason}");
            let _ = outcome.error.set(reason.to_string());
        }
        if outcome.error.get().is_some() {
            outcome.lost.fetch_add(records.into(), Ordering::Relaxed);
        }
    }
}
