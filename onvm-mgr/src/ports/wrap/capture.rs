//! `capture=FILE`: everything that passes a port, as pcapng that any reader of such files takes, at any time.
//!
//! Interface 0 of the file is the port: what came in (`inbound`) and what was sent (`outbound`), each with a comment that says
//! where it went or came from. Interface 1 has the packets that came in by this port, or were to be sent by it, and were
//! dropped, as they were then, with the reason and, where one dropped it, the service. Times are those at which a packet
//! passed here.
//!
//! ```text
//! worker: a block for each packet ─▶ chunk ─▶ chunk ─▶ … (bounded) ─▶ a thread ─▶ file, whole blocks only
//! ```
//! The worker never waits. When the thread does not keep up, packets are not captured and counted (`capture_missed`); when they
//! cannot be written, as on a full disk, the file is cut back to its last whole block, they are counted
//! (`capture_unwritten`), and the next ones are tried again.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use onvm_lib::capture::blocks::{self, Direction};
use onvm_lib::capture::{Frame, LinkType};
use onvm_lib::packet::DropReason;
use onvm_lib::pool::{Books, Packet};
use onvm_lib::protocol::{ChainHop, ServiceId};
use onvm_lib::ring::{Descriptor, Op};

use super::super::rate::now_ns;
use super::super::{FLUSH_INTERVAL, PortError, Spec};

/// Bytes that go to the thread together.
const CHUNK: usize = 64 * 1024;
/// Chunks that may wait for it.
const WAITING: usize = 64;
/// The port's interface in the file.
const PORT: u32 = 0;
/// The interface of what was dropped.
const DROPPED: u32 = 1;

/// What positions in chains are called: the chain's name, and the service; index 0 is not used.
#[derive(Clone, Debug, Default)]
pub(crate) struct HopNames(pub(crate) Vec<(Arc<str>, ServiceId)>);

impl HopNames {
    fn of(&self, position: u16) -> Option<&(Arc<str>, ServiceId)> {
        self.0.get(usize::from(position)).filter(|(_, service)| *service > 0)
    }
}

/// Blocks on their way to the file.
struct Chunk {
    bytes: Vec<u8>,
    packets: u64,
}

impl Chunk {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, packets: 0 }
    }
}

/// What the thread has done.
#[derive(Debug, Default)]
struct Done {
    written: AtomicU64,
    unwritten: AtomicU64,
}

/// The capture of a port.
pub(crate) struct Capture {
    chunk: Chunk,
    /// None when it has ended.
    full: Option<SyncSender<Chunk>>,
    /// Chunks that have been written, to be used again.
    empty: Receiver<Vec<u8>>,
    done: Arc<Done>,
    missed: u64,
    names: Arc<HopNames>,
    comment: String,
    last_flush: Instant,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("done", &self.done)
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// Makes or empties the file, and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be made, or is no plain one: whoever opens a pipe would wait for its reader.
    pub(super) fn open(spec: &Spec, path: &str) -> Result<Self, PortError> {
        let failed = |error: std::io::Error| PortError::from(spec.bad("capture", error.to_string()));
        if std::fs::metadata(path).is_ok_and(|data| !data.is_file()) {
            return Err(spec.bad("capture", "a plain file is needed").into());
        }
        let mut file = File::create(path).map_err(failed)?;
        let mut head = Vec::new();
        blocks::section(&mut head);
        blocks::interface(&mut head, LinkType::Ethernet, spec.text());
        blocks::interface(&mut head, LinkType::Ethernet, &format!("{}: dropped", spec.text()));
        file.write_all(&head).map_err(failed)?;
        let (full, chunks) = sync_channel(WAITING);
        let (recycle, empty) = channel();
        let done = Arc::new(Done::default());
        let theirs = Arc::clone(&done);
        let name = path.to_string();
        let writer = Scribe { file, name, good: head.len() as u64, done: theirs, failing: false };
        let thread =
            std::thread::Builder::new().name("capture".into()).spawn(move || writer.write(&chunks, &recycle));
        Ok(Self {
            chunk: Chunk::new(Vec::with_capacity(2 * CHUNK)),
            full: Some(full),
            empty,
            done,
            missed: 0,
            names: Arc::default(),
            comment: String::new(),
            last_flush: Instant::now(),
            thread: Some(thread.map_err(failed)?),
        })
    }

    /// What positions mean from now on.
    pub(crate) fn set_names(&mut self, names: Arc<HopNames>) {
        self.names = names;
    }

    /// A packet has come in, and goes this way.
    pub(crate) fn arrived(&mut self, books: &Books, packet: &Packet, to: ChainHop) {
        use std::fmt::Write;
        self.comment.clear();
        // Writing to a string cannot fail.
        let _ = match (self.names.of(to.position), to.service) {
            (_, 0) => write!(self.comment, "in, straight on to a port"),
            (Some((chain, _)), service) => write!(self.comment, "in, to service {service}, chain {chain}"),
            (None, service) => write!(self.comment, "in, to service {service}"),
        };
        self.record(books, packet, PORT, Some(Direction::Inbound), now_ns());
    }

    /// A packet has come in and is dropped at the door.
    pub(super) fn refused(&mut self, books: &Books, packet: &Packet, reason: DropReason) {
        use std::fmt::Write;
        self.comment.clear();
        let _ = write!(self.comment, "in, dropped: {reason}");
        self.record(books, packet, PORT, Some(Direction::Inbound), now_ns());
    }

    /// A packet is about to be sent.
    pub(super) fn sent(&mut self, books: &Books, packet: &Packet, time_ns: u64) {
        use std::fmt::Write;
        let descriptor = packet.descriptor();
        let (verdict, from) = (descriptor.destination(), descriptor.port());
        self.comment.clear();
        self.comment.push_str("out");
        let known = if verdict.op() == Op::Next { self.names.of(verdict.argument()) } else { None };
        let _ = match (known, verdict.op()) {
            (Some((chain, service)), _) => write!(self.comment, ", from service {service}, chain {chain}"),
            (None, Op::Service) => write!(self.comment, ", from service {}", verdict.argument()),
            _ => Ok(()),
        };
        if from != Descriptor::NO_PORT {
            let _ = write!(self.comment, ", came in by port {from}");
        }
        self.record(books, packet, PORT, Some(Direction::Outbound), time_ns);
    }

    /// A packet of this port is dropped, by a service if that is not 0.
    pub(crate) fn dropped(&mut self, books: &Books, packet: &Packet, reason: DropReason, by: ServiceId) {
        use std::fmt::Write;
        self.comment.clear();
        let _ = match by {
            0 => write!(self.comment, "dropped: {reason}"),
            by => write!(self.comment, "dropped: {reason}, by service {by}"),
        };
        self.record(books, packet, DROPPED, None, now_ns());
    }

    fn record(
        &mut self,
        books: &Books,
        packet: &Packet,
        interface: u32,
        direction: Option<Direction>,
        timestamp_ns: u64,
    ) {
        if self.full.is_none() || self.chunk.bytes.len() >= CHUNK && !self.pass_on() {
            self.missed += 1;
            return;
        }
        let data = packet.bytes(books.pool());
        let original_len = packet.descriptor().length();
        let frame = Frame { timestamp_ns, original_len, link_type: LinkType::Ethernet, interface, data };
        blocks::packet(&mut self.chunk.bytes, &frame, direction, &self.comment);
        self.chunk.packets += 1;
    }

    /// Gives the chunk to the thread; false when that has enough already.
    fn pass_on(&mut self) -> bool {
        let Some(full) = &self.full else { return false };
        let mut fresh = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(2 * CHUNK));
        fresh.clear();
        let chunk = std::mem::replace(&mut self.chunk, Chunk::new(fresh));
        match full.try_send(chunk) {
            Ok(()) => true,
            Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
                self.chunk = chunk;
                false
            }
        }
    }

    /// Has written what was captured, if the last time is long ago.
    pub(super) fn idle(&mut self) {
        if self.chunk.packets > 0 && self.last_flush.elapsed() >= FLUSH_INTERVAL {
            self.last_flush = Instant::now();
            self.pass_on();
        }
    }

    /// Captures nothing more. What is left is for a thread that may wait for the disk; none if it was asked for before.
    pub(crate) fn finish(&mut self) -> Option<Rest> {
        let last = std::mem::replace(&mut self.chunk, Chunk::new(Vec::new()));
        Some(Rest { last, full: self.full.take()?, thread: self.thread.take() })
    }

    /// Counters, by name.
    pub(super) fn extras(&self) -> [(&'static str, u64); 3] {
        [
            ("captured", self.done.written.load(Ordering::Relaxed)),
            ("capture_missed", self.missed),
            ("capture_unwritten", self.done.unwritten.load(Ordering::Relaxed)),
        ]
    }
}

impl Drop for Capture {
    /// Writes the rest. This waits for the disk; the worker gives ports away before they are dropped.
    fn drop(&mut self) {
        if let Some(rest) = self.finish() {
            rest.write();
        }
    }
}

/// What a capture that has ended has not written yet.
pub(crate) struct Rest {
    last: Chunk,
    full: SyncSender<Chunk>,
    thread: Option<JoinHandle<()>>,
}

impl Rest {
    /// Has it written, and waits for that. Then the counts of the capture are final.
    pub(crate) fn write(self) {
        if self.last.packets > 0 {
            let _ = self.full.send(self.last);
        }
        drop(self.full);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread of a capture panicked");
        }
    }
}

/// Writes chunks, in a thread of its own.
struct Scribe {
    file: File,
    name: String,
    /// Bytes of whole blocks that the file has.
    good: u64,
    done: Arc<Done>,
    failing: bool,
}

impl Scribe {
    fn write(mut self, chunks: &Receiver<Chunk>, recycle: &std::sync::mpsc::Sender<Vec<u8>>) {
        for chunk in chunks {
            match self.file.write_all(&chunk.bytes) {
                Ok(()) => {
                    self.good += chunk.bytes.len() as u64;
                    self.done.written.fetch_add(chunk.packets, Ordering::Relaxed);
                    if std::mem::take(&mut self.failing) {
                        log::warn!("{}: packets can be written again", self.name);
                    }
                }
                Err(error) => {
                    self.done.unwritten.fetch_add(chunk.packets, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.failing, true) {
                        log::warn!("{}: packets cannot be written: {error}", self.name);
                    }
                    self.cut_back();
                }
            }
            // Nobody takes it when the port is gone.
            let _ = recycle.send(chunk.bytes);
        }
    }

    /// Takes back a block that was written in part.
    fn cut_back(&mut self) {
        let cut = self.file.set_len(self.good).and_then(|()| self.file.seek(SeekFrom::Start(self.good)));
        if let Err(error) = cut {
            log::warn!("{}: the last packets are cut: {error}", self.name);
        }
    }
}

/// Whether two options of ports name one file.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    let place = |path: &str| {
        let path = Path::new(path);
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(path.canonicalize().unwrap_or(parent.join(path.file_name()?)))
    };
    place(a).is_some_and(|first| place(b) == Some(first))
}
