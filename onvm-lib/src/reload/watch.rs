//! What the reloading thread waits for: calls, and changes of files.
//!
//! Changes come by inotify on the *directories* of the files, since an editor that writes a new file and renames it
//! over the old one changes no file that could be watched. Where inotify says nothing (network file systems) a look
//! once a second finds what is different; there nobody says when the writer is done, so a change counts when it looked
//! the same twice.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Result, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// What signal-hook writes, too.
const ASK: u8 = b'X';
const NUDGE: u8 = b'.';
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The end that wakes the thread.
#[derive(Debug)]
pub(super) struct Caller(UnixStream);

impl Caller {
    pub(super) fn try_clone(&self) -> Result<UnixStream> {
        self.0.try_clone()
    }

    /// Asks for the files to be read.
    pub(super) fn ask(&self) {
        self.write(ASK);
    }

    /// Wakes the thread, for something that stands elsewhere.
    pub(super) fn nudge(&self) {
        self.write(NUDGE);
    }

    fn write(&self, call: u8) {
        // A full pipe means that it is being woken; a request among hundreds of unread calls is one of many.
        let _ = (&self.0).write(&[call]);
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None for a file that is not there: between its removal and its return nothing is to be read.
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (meta.dev(), meta.ino()),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// As it was when it was last read.
    read: Option<Stamp>,
    /// As it was at the last look.
    seen: Option<Stamp>,
}

/// The end that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    calls: UnixStream,
    notices: Option<OwnedFd>,
    files: Vec<File>,
}

impl Waiting {
    /// Both ends; without files only calls are waited for.
    pub(super) fn new(files: &[PathBuf]) -> Result<(Caller, Self)> {
        let (write, calls) = UnixStream::pair()?;
        write.set_nonblocking(true)?;
        calls.set_nonblocking(true)?;
        let files = files.iter().map(|path| File { path: path.clone(), read: None, seen: None }).collect();
        let mut waiting = Self { calls, notices: None, files };
        if !waiting.files.is_empty() {
            // Without inotify (its instances are limited) there is still the look once a second.
            waiting.notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
            waiting.remember();
        }
        Ok((Caller(write), waiting))
    }

    /// Waits until it is called; whether the files are to be read.
    pub(super) fn wait(&mut self) -> bool {
        loop {
            let mut fds = vec![PollFd::new(&self.calls, PollFlags::IN)];
            fds.extend(self.notices.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let limit = (!self.files.is_empty()).then_some(&LOOK);
            let timed_out = matches!(poll(&mut fds, limit), Ok(0));
            let (called, asked) = self.calls();
            let named = self.read_notices();
            let changed = self.look(timed_out);
            if called || named || changed {
                let reading = asked || named || changed;
                if reading {
                    self.remember();
                }
                return reading;
            }
        }
    }

    /// Whether somebody called, and whether it was to ask for the files.
    fn calls(&mut self) -> (bool, bool) {
        let (mut called, mut asked) = (false, false);
        let mut bytes = [0; 256];
        loop {
            match self.calls.read(&mut bytes) {
                Ok(0) => return (true, asked),
                Ok(n) => {
                    called = true;
                    asked |= bytes[..n].contains(&ASK);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return (called, asked),
            }
        }
    }

    /// Whether a notice says that one of the files was written or has come.
    fn read_notices(&self) -> bool {
        let Some(notices) = &self.notices else { return false };
        let names: Vec<PathBuf> = self.files.iter().flat_map(|file| places(&file.path)).collect();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(notices.as_fd(), &mut buffer);
        let mut named = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    named |= name.is_some_and(|name| names.iter().any(|path| path.file_name() == Some(name)));
                }
                Err(Errno::INTR) => {}
                Err(_) => return named && self.files.iter().all(|file| Stamp::of(&file.path).is_some()),
            }
        }
    }

    /// Whether a file is another than the one that was read; on the clock's word alone only if it is no longer being
    /// written.
    fn look(&mut self, settled_only: bool) -> bool {
        let mut changed = false;
        for file in &mut self.files {
            let now = Stamp::of(&file.path);
            let settled = now == file.seen;
            changed |= now.is_some() && now != file.read && (settled || !settled_only);
            file.seen = now;
        }
        changed
    }

    /// The files are about to be read as they are now. Their directories are watched, also those that symbolic links
    /// lead to by now.
    fn remember(&mut self) {
        for file in &mut self.files {
            if let Some(notices) = &self.notices {
                for place in places(&file.path) {
                    let directory = match place.parent() {
                        Some(parent) if !parent.as_os_str().is_empty() => parent,
                        _ => Path::new("."),
                    };
                    // A file that was made anew is whole when it is closed.
                    let events = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
                    if let Err(error) = inotify::add_watch(notices, directory, events) {
                        log::debug!("{}: changes are looked for once a second: {error}", directory.display());
                    }
                }
            }
            file.read = Stamp::of(&file.path);
            file.seen = file.read;
        }
    }
}

/// Where a file's name stands, and where the file itself does.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    std::iter::once(path.to_path_buf()).chain(path.canonicalize().ok().filter(|real| real != path))
}
