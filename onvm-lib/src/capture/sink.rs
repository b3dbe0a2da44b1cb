//! Where a capture's bytes go: a buffer that is written in large pieces, and remembers a failure.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::{Error, MAX_CAPTURED};

/// When this much has gathered, in bytes, it is written.
const WATERMARK: usize = 256 * 1024;
/// Room above the watermark for the longest record: frame, headers, and a comment of 64 KiB.
const CAPACITY: usize = WATERMARK + MAX_CAPTURED as usize + 80 * 1024;

pub(super) struct Sink {
    name: String,
    output: Box<dyn Write + Send>,
    /// Gathered and not yet written. Allocated once, with [`CAPACITY`].
    buffer: Vec<u8>,
    written: u64,
    /// A write failed. Some of what was to go out did, nobody knows how much: nothing may follow it.
    failed: bool,
}

impl Sink {
    /// Makes (or empties) a file, or takes standard output for `-`.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Self::stdout();
        }
        let name = path.display().to_string();
        match File::create(path) {
            Ok(file) => Ok(Self::to_stream(Box::new(file), &name)),
            Err(source) => Err(Error::Create { file: name, source }),
        }
    }

    fn stdout() -> Result<Self, Error> {
        let name = "standard output";
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(Error::Terminal { file: name.to_owned() });
        }
        // The descriptor itself: `Stdout` would search every write for the end of a line.
        match stdout.as_fd().try_clone_to_owned() {
            Ok(fd) => Ok(Self::to_stream(Box::new(File::from(fd)), name)),
            Err(source) => Err(Error::Create { file: name.to_owned(), source }),
        }
    }

    pub(super) fn to_stream(output: Box<dyn Write + Send>, name: &str) -> Self {
        let buffer = Vec::with_capacity(CAPACITY);
        Self { name: name.to_owned(), output, buffer, written: 0, failed: false }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The buffer to put one record into, after making room for it. `what` is being written, should that
    /// fail.
    #[inline]
    pub(super) fn record(&mut self, what: &'static str) -> Result<&mut Vec<u8>, Error> {
        if self.failed {
            return Err(Error::WriterFailed { file: self.name.clone() });
        }
        if self.buffer.len() >= WATERMARK {
            self.drain(what)?;
        }
        Ok(&mut self.buffer)
    }

    #[cold]
    fn drain(&mut self, what: &'static str) -> Result<(), Error> {
        match self.output.write_all(&self.buffer) {
            Ok(()) => {
                self.written += self.buffer.len() as u64;
                self.buffer.clear();
                Ok(())
            }
            Err(source) => Err(self.fail(what, source)),
        }
    }

    /// Writes all that has gathered, and asks the output to do the same.
    pub(super) fn flush(&mut self, what: &'static str) -> Result<(), Error> {
        self.record(what)?;
        self.drain(what)?;
        self.output.flush().map_err(|source| self.fail(what, source))
    }

    fn fail(&mut self, what: &'static str, source: io::Error) -> Error {
        self.failed = true;
        self.buffer.clear();
        Error::Write { file: self.name.clone(), what, written: self.written, source }
    }

    /// Whether there is something to lose.
    pub(super) fn is_dirty(&self) -> bool {
        !self.buffer.is_empty()
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("name", &self.name).field("written", &self.written).finish()
    }
}
