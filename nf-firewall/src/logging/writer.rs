//! The thread that writes log lines: a reader that does not read, or a slow disk, holds up no packet.
//!
//! Live, lines that find no room in the queue are lost and counted; a replay waits for room.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines on their way at most.
const LINES: usize = 4096;
/// How long the end waits for the last of them.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What writes lines beside the packets.
#[derive(Debug)]
pub(super) struct Writer {
    /// None once it is closed.
    lines: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
    patient: bool,
    /// Lines that found no room.
    pub(super) lost: u64,
    /// Lines that could not be written.
    failed: Arc<AtomicU64>,
}

impl Writer {
    /// To this file, at its end; without one to standard error.
    ///
    /// # Errors
    /// Why the file cannot be opened, or the thread not be started.
    pub(super) fn open(path: Option<&Path>, patient: bool) -> Result<Self, String> {
        let (name, file) = match path {
            Some(path) => (path.display().to_string(), File::options().create(true).append(true).open(path)),
            // A descriptor of its own: who waits for the reader must not hold the lock of those that warn.
            None => ("standard error".into(), std::io::stderr().as_fd().try_clone_to_owned().map(File::from)),
        };
        let file = file.map_err(|error| format!("{name}: {error}"))?;
        Self::to(file, patient).map_err(|error| format!("cannot start a thread that writes {name}: {error}"))
    }

    fn to(file: File, patient: bool) -> std::io::Result<Self> {
        let (lines, from) = sync_channel(LINES);
        let failed = Arc::new(AtomicU64::new(0));
        let its = Arc::clone(&failed);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
            onvm_lib::cpu::leave_pinned();
            write_all(file, &from, &its);
        })?;
        Ok(Self { lines: Some(lines), thread: Some(thread), patient, lost: 0, failed })
    }

    /// Takes a line, with its end, to be written.
    pub(super) fn write(&mut self, line: String) {
        let Some(lines) = &self.lines else { return };
        let taken = if self.patient { lines.send(line).is_ok() } else { lines.try_send(line).is_ok() };
        self.lost += u64::from(!taken);
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits until all is written; live, not for long.
    pub(super) fn close(&mut self) {
        self.lines = None;
        let Some(thread) = self.thread.take() else { return };
        let end = Instant::now() + LAST_WAIT;
        while !self.patient && !thread.is_finished() {
            if Instant::now() >= end {
                log::warn!("the reader of log lines is too slow: the last ones are lost");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.join().is_err() {
            log::warn!("the thread that writes log lines has ended with a panic");
        }
    }
}

/// Writes lines until there will be no more; what is there becomes visible before it waits for others.
fn write_all(file: File, lines: &Receiver<String>, failed: &AtomicU64) {
    let mut to = BufWriter::new(file);
    while let Ok(first) = lines.recv() {
        let mut line = Some(first);
        let mut unsure = 0;
        while let Some(text) = line {
            if to.write_all(text.as_bytes()).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            } else {
                unsure += 1;
            }
            line = lines.try_recv().ok();
        }
        if to.flush().is_err() {
            failed.fetch_add(unsure, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_does_not_read_costs_lines_only() {
        let (mut reader, into) = std::io::pipe().unwrap();
        let mut writer = Writer::to(File::from(std::os::fd::OwnedFd::from(into)), false).unwrap();
        // A pipe holds 64 KiB, the queue 4096 lines: this is more than both.
        let line = format!("{}\n", "x".repeat(99));
        for _ in 0..20_000 {
            writer.write(line.clone());
        }
        assert!(writer.lost > 10_000, "{}", writer.lost);
        let kept = 20_000 - writer.lost;
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text.lines().count() as u64
        });
        writer.patient = true;
        writer.close();
        assert_eq!((reading.join().unwrap(), writer.failed()), (kept, 0), "what was taken is written");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut writer = Writer::to(full, true).unwrap();
        (0..3).for_each(|_| writer.write("a line\n".into()));
        writer.close();
        assert_eq!((writer.failed(), writer.lost), (3, 0));
    }
}
