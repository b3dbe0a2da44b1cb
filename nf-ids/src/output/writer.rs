//! Brings lines to a file, a pipe or standard output.
//!
//! # States
//! `Open`: lines are collected and written in pieces. A failed write (disk full) keeps what is collected and tries again
//! with the next piece; when the room for collected lines is full, new lines are lost and counted. A broken pipe is
//! `Closed` for good: nobody reads. Each outage is said once, and its end with the number of lines that it cost.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use super::beside::Beside;

/// Bytes that are collected before they are written.
const PIECE: usize = 32 << 10;
/// Bytes that wait while nothing can be written.
const MOST_WAITING: usize = 1 << 20;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Standard,
    /// A file, which is appended to.
    File(PathBuf),
}

impl Target {
    /// Of an option's value; `-` is standard output.
    pub fn parse(value: &str) -> Target {
        if value == "-" { Target::Standard } else { Target::File(value.into()) }
    }

    fn name(&self) -> String {
        match self {
            Target::Standard => "standard output".into(),
            Target::File(path) => path.display().to_string(),
        }
    }

    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Target::Standard => Box::new(io::stdout()),
            Target::File(path) => {
                let file: File = OpenOptions::new().create(true).append(true).open(path)?;
                Box::new(file)
            }
        })
    }
}

/// Writes lines.
pub struct Writer {
    target: Option<Target>,
    name: String,
    output: Option<Box<dyn Write + Send>>,
    /// It is written from a thread.
    beside: bool,
    waiting: Vec<u8>,
    /// Lines that were lost.
    lost: u64,
    /// Lines lost since writing failed; none while it works.
    outage: Option<u64>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("name", &self.name).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Writer {
    /// To a target.
    ///
    /// # Errors
    /// When the file cannot be opened, with its name.
    pub fn open(target: Target) -> io::Result<Writer> {
        let name = target.name();
        let output =
            target.open().map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let mut writer = Writer::to(output, &name);
        writer.target = Some(target);
        Ok(writer)
    }

    /// The same from a thread: whoever does not read loses lines, and holds up nobody.
    ///
    /// # Errors
    /// As [`Writer::open`], and when the thread cannot be started.
    pub fn open_beside(target: Target) -> io::Result<Writer> {
        let mut writer = Self::open(target)?;
        writer.beside = true;
        if let Some(output) = writer.output.take() {
            writer.output = Some(Box::new(Beside::start(output)?));
        }
        Ok(writer)
    }

    /// To anything; `name` is what messages call it.
    pub fn to(output: Box<dyn Write + Send>, name: &str) -> Writer {
        Writer {
            target: None,
            name: name.into(),
            output: Some(output),
            beside: false,
            waiting: Vec::new(),
            lost: 0,
            outage: None,
        }
    }

    /// Writes a line, whose end is added.
    pub fn line(&mut self, line: &str) {
        if self.output.is_none() || self.waiting.len() + line.len() + 1 > MOST_WAITING {
            self.lost += 1;
            if let Some(lost) = &mut self.outage {
                *lost += 1;
            }
            if self.output.is_some() {
                self.flush();
            }
            return;
        }
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        if self.waiting.len() >= PIECE && self.outage.is_none() {
            self.flush();
        }
    }

    /// Writes what is collected, as far as it can be written.
    pub fn flush(&mut self) {
        let Some(output) = &mut self.output else { return };
        let mut written = 0;
        let result = loop {
            if written == self.waiting.len() {
                break output.flush();
            }
            match output.write(&self.waiting[written..]) {
                Ok(0) => break Err(io::Error::from(ErrorKind::WriteZero)),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.waiting.drain(..written);
        match result {
            Ok(()) => {
                if let Some(lost) = self.outage.take() {
                    log::warn!("{}: is written again; {lost} lines were lost", self.name);
                }
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                log::error!("{}: {error}; nobody reads it, further lines are lost", self.name);
                self.lost += self.waiting.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.waiting = Vec::new();
                self.output = None;
            }
            Err(error) => {
                if self.outage.is_none() {
                    log::error!("{}: {error}; lines wait, and are lost when there is no room", self.name);
                    self.outage = Some(0);
                }
            }
        }
    }

    /// Opens the file anew, after something moved it away. If that fails, the old one stays.
    ///
    /// # Errors
    /// When the file cannot be opened, with its name.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.flush();
        if let Some(target @ Target::File(_)) = &self.target {
            let mut opened =
                target.open().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.name)))?;
            if self.beside {
                opened = Box::new(Beside::start(opened)?);
            }
            self.output = Some(opened);
        }
        Ok(())
    }

    /// Bytes that wait to be written.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lines that were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}
