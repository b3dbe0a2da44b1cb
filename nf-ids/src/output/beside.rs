//! Writes from a thread of its own, so that a pipe that nobody reads, or a disk that is slow, holds up no packet.
//!
//! ```text
//! write ─▶ [ 8 pieces ] ─▶ thread ─▶ file, pipe, standard output
//! ```
//! A piece that finds no room is refused (`WouldBlock`), and so is any while the thread cannot write: whoever writes keeps it
//! and tries again. What was taken is written before anything else, however long that takes; at the end it has two seconds.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pieces on their way at most.
const PIECES: usize = 8;
/// Between two tries after an error, and between two looks whether all is written at the end.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the end waits for what is on its way.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Input/output error, for errors that are not the kernel's.
const EIO: i32 = 5;

/// What the thread tells.
#[derive(Debug, Default)]
struct State {
    /// The error because of which it does not get on; 0: it does.
    error: AtomicI32,
    /// Nothing more comes: what cannot be written now never will.
    closing: AtomicBool,
}

/// The end that is written to.
pub(super) struct Beside {
    pieces: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
}

impl Beside {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(output: Box<dyn Write + Send>) -> io::Result<Self> {
        let (pieces, from) = sync_channel(PIECES);
        let state = Arc::new(State::default());
        let its = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || write_all(output, &from, &its))?;
        Ok(Self { pieces: Some(pieces), thread: Some(thread), state })
    }
}

/// Writes until nothing more comes, or nobody reads.
fn write_all(mut output: Box<dyn Write + Send>, pieces: &Receiver<Vec<u8>>, state: &State) {
    while let Ok(piece) = pieces.recv() {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let error = match output.write(rest).and_then(|count| output.flush().map(|()| count)) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(count) => {
                    rest = &rest[count..];
                    state.error.store(0, Ordering::Release);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            state.error.store(error.raw_os_error().unwrap_or(EIO), Ordering::Release);
            if error.kind() == ErrorKind::BrokenPipe || state.closing.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let error = self.state.error.load(Ordering::Acquire);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let Some(pieces) = &self.pieces else { return Err(ErrorKind::BrokenPipe.into()) };
        match pieces.try_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(TrySendError::Full(_)) => Err(io::Error::new(ErrorKind::WouldBlock, "its reader is slow")),
            Err(TrySendError::Disconnected(_)) => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::Release);
        self.pieces = None;
        let Some(thread) = self.thread.take() else { return };
        let until = Instant::now() + LAST_WAIT;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(PAUSE / 20);
        }
        if thread.is_finished() {
            let _ = thread.join();
        } else {
            log::warn!("not all that was on its way could be written");
        }
    }
}
