//! Where a capture's bytes come from: a buffer that is filled in large reads.
//!
//! The readers ask for the next `n` bytes in one piece ([`Source::need`]), look at them
//! ([`Source::ahead`]), and step over them ([`Source::step`]). What was stepped over stays in place until
//! the next `need`, which is what lets a frame be lent out of the buffer. No request may be larger than
//! [`CAPACITY`], so the buffer never grows.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;

use super::Error;

/// Size of the buffer, in bytes: room for the longest record (256 KiB and its headers) and as much again,
/// so that reads stay large. Between 128 KiB and 4 MiB a read the measured speed is the same.
pub(super) const CAPACITY: usize = 512 * 1024;

enum Input {
    /// A regular file, which can be read again.
    File(File),
    /// A pipe, a device, or a reader of the caller's.
    Stream(Box<dyn Read + Send>),
}

pub(super) struct Source {
    name: String,
    input: Input,
    /// Always [`CAPACITY`] long; `pos..end` is read and not yet stepped over.
    buffer: Box<[u8]>,
    pos: usize,
    end: usize,
    /// Offset in the file of `buffer[0]`.
    base: u64,
    /// The input said that there is no more. Kept, so that a short capture that is played in a loop out
    /// of the buffer costs no system call.
    ended: bool,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Self::stdin();
        }
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| file.metadata().map(|kind| (file, kind)));
        match opened {
            Err(source) => Err(Error::Open { file: name, source }),
            Ok((_, kind)) if kind.is_dir() => Err(Error::Directory { file: name }),
            Ok((file, kind)) if kind.is_file() => Ok(Self::new(name, Input::File(file))),
            Ok((file, _)) => Ok(Self::new(name, Input::Stream(Box::new(file)))),
        }
    }

    fn stdin() -> Result<Self, Error> {
        let name = String::from("standard input");
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Error::Terminal { file: name });
        }
        // The descriptor itself: `Stdin` would copy everything through a small buffer of its own.
        match stdin.as_fd().try_clone_to_owned() {
            Ok(fd) => Ok(Self::new(name, Input::Stream(Box::new(File::from(fd))))),
            Err(source) => Err(Error::Open { file: name, source }),
        }
    }

    /// Reads from `stream`, which messages call `name`.
    pub(super) fn from_stream(stream: Box<dyn Read + Send>, name: &str) -> Self {
        Self::new(name.to_owned(), Input::Stream(stream))
    }

    fn new(name: String, input: Input) -> Self {
        let buffer = vec![0; CAPACITY].into_boxed_slice();
        Self { name, input, buffer, pos: 0, end: 0, base: 0, ended: false }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Offset in the file, in bytes, of what comes next.
    #[inline]
    pub(super) fn offset(&self) -> u64 {
        self.base + self.pos as u64
    }

    /// Brings the next `count` bytes into the buffer. Says how many there are, which is less than `count`
    /// only at the end of the input.
    #[inline]
    pub(super) fn need(&mut self, count: usize) -> Result<usize, Error> {
        let ahead = self.end - self.pos;
        if ahead >= count { Ok(ahead) } else { self.fill(count) }
    }

    /// All bytes that are in the buffer and not yet stepped over.
    #[inline]
    pub(super) fn ahead(&self) -> &[u8] {
        &self.buffer[self.pos..self.end]
    }

    /// Steps over `count` bytes that a `need` has brought in, and says where in the buffer they start, for
    /// [`Source::taken`].
    #[inline]
    pub(super) fn step(&mut self, count: usize) -> usize {
        let start = self.pos;
        debug_assert!(count <= self.end - self.pos, "stepping over bytes that were never needed");
        self.pos = (self.pos + count).min(self.end);
        start
    }

    /// The `length` bytes at `start` in the buffer, valid until the next `need`.
    #[inline]
    pub(super) fn taken(&self, start: usize, length: usize) -> &[u8] {
        &self.buffer[start..start + length]
    }

    /// Steps over any number of bytes, in the buffer or not. Says how many were there to step over.
    pub(super) fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let mut left = count;
        while left > 0 {
            let ahead = self.need(1)?;
            if ahead == 0 {
                break;
            }
            let now = usize::try_from(left).map_or(ahead, |left| left.min(ahead));
            self.step(now);
            left -= now as u64;
        }
        Ok(count - left)
    }

    #[cold]
    fn fill(&mut self, count: usize) -> Result<usize, Error> {
        assert!(count <= CAPACITY, "a request for {count} bytes is larger than the buffer");
        if self.ended {
            return Ok(self.end - self.pos);
        }
        if self.pos > 0 {
            self.buffer.copy_within(self.pos..self.end, 0);
            self.base += self.pos as u64;
            self.end -= self.pos;
            self.pos = 0;
        }
        // Only until the request is met: a live pipe must not hold back a frame for a full buffer.
        while self.end < count {
            let room = &mut self.buffer[self.end..];
            let read = match &mut self.input {
                Input::File(file) => file.read(room),
                Input::Stream(stream) => stream.read(room),
            };
            match read {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                // `Read` is a safe trait: a wrong count from a caller's reader must not become an index.
                Ok(bytes) => self.end = (self.end + bytes).min(CAPACITY),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.base + self.end as u64;
                    return Err(Error::Read { file: self.name.clone(), offset, source });
                }
            }
        }
        Ok(self.end - self.pos)
    }

    /// Goes back to the first byte.
    pub(super) fn rewind(&mut self) -> Result<(), Error> {
        let Input::File(file) = &mut self.input else {
            return Err(Error::NotRewindable { file: self.name.clone() });
        };
        if self.base > 0 {
            file.rewind().map_err(|source| Error::Read { file: self.name.clone(), offset: 0, source })?;
            self.base = 0;
            self.end = 0;
            self.ended = false;
        }
        self.pos = 0;
        Ok(())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("offset", &self.offset()).finish()
    }
}
