//! Standard output, written beside the packets: a terminal that is stopped, or a pipe that nobody reads, holds up none
//! of them.
//!
//! ```text
//! report ─▶ [ 4 texts ] ─▶ thread ─▶ standard output
//! ```
//! A text that finds no room is lost and counted. It is better not to make it at all then: [`Printer::has_room`] tells.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Texts on their way at most: who reads that late is better served with the next one.
const WAITING: usize = 4;
/// Between two looks whether the thread has got on.
const PAUSE: Duration = Duration::from_millis(1);

/// A thread that prints.
#[derive(Debug)]
pub struct Printer {
    /// None once it is closed.
    texts: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
    /// Texts that were passed to the thread and are not written yet.
    under_way: Arc<AtomicUsize>,
    lost: u64,
}

impl Printer {
    /// Prints to standard output.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn stdout() -> std::io::Result<Self> {
        Self::start(std::io::stdout())
    }

    /// Prints to something else.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(to: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (texts, from) = sync_channel(WAITING);
        let under_way = Arc::new(AtomicUsize::new(0));
        let its = Arc::clone(&under_way);
        let thread = std::thread::Builder::new().name("printer".into()).spawn(move || {
            crate::cpu::leave_pinned();
            print_all(to, &from, &its);
        })?;
        Ok(Self { texts: Some(texts), thread: Some(thread), under_way, lost: 0 })
    }

    /// Whether a text would be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) < WAITING
    }

    /// Takes a text to be printed; one that finds no room is lost.
    pub fn print(&mut self, text: String) {
        if !self.pass(text) {
            self.note_lost();
        }
    }

    /// A text was not made, since there was no room for it.
    pub fn note_lost(&mut self) {
        self.lost += 1;
    }

    /// Texts that found no room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes a last text, and waits until all is printed, but no longer than `patience`; whether it was. Nothing more is
    /// printed after it.
    pub fn finish(&mut self, last: Option<String>, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while !self.has_room() && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
        let passed = last.is_none_or(|text| self.pass(text));
        self.texts = None;
        let Some(thread) = self.thread.take() else { return passed };
        while !thread.is_finished() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        // It has ended: this waits for nothing.
        let _ = thread.join();
        passed
    }

    fn pass(&mut self, text: String) -> bool {
        let Some(texts) = &self.texts else { return false };
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let passed = texts.try_send(text).is_ok();
        if !passed {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
        passed
    }
}

fn print_all(mut to: impl Write, texts: &Receiver<String>, under_way: &AtomicUsize) {
    let mut broken = false;
    while let Ok(text) = texts.recv() {
        if !broken && let Err(error) = to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
            log::warn!("standard output cannot be written any more: {error}");
            broken = true;
        }
        under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    /// Nobody reads it until somebody says so.
    struct Stopped {
        go: Receiver<()>,
        all: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // Goes on for good once the other end is gone.
            let _ = self.go.recv();
            self.all.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn stopped() -> (Printer, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (go, its) = channel();
        let all = Arc::new(Mutex::new(Vec::new()));
        let printer = Printer::start(Stopped { go: its, all: Arc::clone(&all) }).unwrap();
        (printer, go, all)
    }

    #[test]
    fn who_does_not_read_holds_up_nobody_and_misses_something() {
        let (mut printer, go, all) = stopped();
        for number in 0..100 {
            printer.print(format!("{number}\n"));
        }
        // One text may be with the thread.
        assert!((95..=96).contains(&printer.lost()), "{} lost", printer.lost());
        assert!(!printer.has_room());
        assert!(!printer.finish(Some("last\n".into()), Duration::from_millis(20)));
        drop(go);
        while all.lock().unwrap().len() < 8 {
            std::thread::sleep(PAUSE);
        }
        assert!(all.lock().unwrap().starts_with(b"0\n1\n2\n3\n"));
    }

    #[test]
    fn all_is_printed_in_order_to_who_reads() {
        let (mut printer, go, all) = stopped();
        drop(go);
        printer.print("a".into());
        printer.print("b".into());
        assert!(printer.finish(Some("c".into()), Duration::from_secs(60)));
        assert_eq!(*all.lock().unwrap(), b"abc");
        assert_eq!(printer.lost(), 0);
        printer.print("late".into());
        assert_eq!(printer.lost(), 1);
    }

    #[test]
    fn a_broken_pipe_is_said_once_and_stops_nothing() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut printer = Printer::start(writer).unwrap();
        printer.print("a".into());
        assert!(printer.finish(Some("b".into()), Duration::from_secs(60)));
    }
}
