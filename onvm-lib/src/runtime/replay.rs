//! An NF alone over a capture: no manager, no rings, the same NF.
//!
//! Time is the capture's time, so that rates and timeouts come out as they would have. Packets that are not
//! dropped are written in the order in which they leave, with the timestamps that they came with.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::hands::Hands;
use super::tell::Control;
use super::{Common, NetworkFunction, Setup, SetupError};
use crate::capture::{AsEthernet, Error as CaptureError, Frame, LinkType, Reader, Writer};
use crate::packet::{Access as _, Clock, DropReason, HELD, Held, MAX_BURST};
use crate::pool::{Books, Geometry, HEADROOM, Holder, Note, Packet, Pool};
use crate::ring::{Descriptor, Destination, MAX_LENGTH, Op};
use crate::shm::{Error as ShmError, Pages};
use crate::wire;

/// Buffers of the private pool: a burst, what it makes, and all that can be held.
const BUFFERS: u32 = 2048;
/// Frames between two looks at the clock for the progress line.
const FRAMES_PER_LOOK: u64 = 65_536;

/// Why a replay failed.
#[derive(Debug)]
pub(super) enum ReplayError {
    Capture(CaptureError),
    Memory(ShmError),
    Setup(SetupError),
    Signals(std::io::Error),
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Capture(error) => write!(f, "{error}"),
            Self::Memory(error) => write!(f, "{error}"),
            Self::Setup(error) => write!(f, "{error}"),
            Self::Signals(error) => write!(f, "cannot listen for signals: {error}"),
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<CaptureError> for ReplayError {
    fn from(error: CaptureError) -> Self {
        Self::Capture(error)
    }
}

/// Packets held back: nobody dies here, so a plain table does.
#[derive(Debug, Default)]
struct PlainHeld(Vec<Option<Descriptor>>);

impl Held for PlainHeld {
    fn hold(&mut self, descriptor: Descriptor) -> Option<u32> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if free == HELD {
            return None;
        }
        if free == self.0.len() {
            self.0.push(None);
        }
        self.0[free] = Some(descriptor);
        u32::try_from(free).ok()
    }

    fn release(&mut self, ticket: u32) -> Option<Descriptor> {
        self.0.get_mut(ticket as usize)?.take()
    }
}

/// What a replay counts.
#[derive(Debug, Default)]
struct Tally {
    read: u64,
    written: u64,
    made: u64,
    drops: BTreeMap<&'static str, u64>,
    cut: Option<String>,
}

struct Replay<N: NetworkFunction> {
    nf: N,
    books: Books,
    hands: Hands<PlainHeld>,
    output: Option<Writer>,
    tally: Tally,
    next_tick_ns: u64,
    /// Packets are neither changed nor written: frames of every kind and length can be shown.
    counts_only: bool,
}

/// Runs an NF over the capture that the command line names.
pub(super) fn run<N: NetworkFunction>(
    common: &Common,
    own: &N::Options,
) -> Result<(), Box<dyn std::error::Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(ReplayError::Signals)?;
    }
    let input = common.replay.as_deref().unwrap_or(Path::new("-"));
    if let Some(output) = common.write.as_deref().filter(|output| same_file(input, output)) {
        let reason = format!("{} is the file that is read: write to another", output.display());
        return Err(ReplayError::Setup(SetupError(reason)).into());
    }
    let mut reader = Reader::open(input).map_err(ReplayError::Capture)?;
    let mut replay = Replay::<N>::new(common, own)?;
    if replay.counts_only {
        reader.any_link_type();
    }
    let end = replay.all(&mut reader, common, &stop);
    let finished = replay.finish(common);
    end?;
    finished?;
    Ok(())
}

impl<N: NetworkFunction> Replay<N> {
    fn new(common: &Common, own: &N::Options) -> Result<Self, ReplayError> {
        let geometry = Geometry::new(BUFFERS, MAX_LENGTH - HEADROOM)
            .map_err(|e| ReplayError::Setup(SetupError(e.to_string())))?;
        let pool = Pool::create(geometry, Pages::Plain).map_err(ReplayError::Memory)?;
        let setup = Setup {
            service: common.service_id,
            instance: None,
            packet_room: geometry.packet_room() as usize,
            replay: true,
            json: common.json,
            print_interval: common.print_interval,
            parent: None,
            control: Control::of_replay(),
        };
        let nf = N::setup(own, &setup).map_err(ReplayError::Setup)?;
        let mut output = common.write.as_deref().map(Writer::create).transpose()?;
        if let Some(writer) = &mut output {
            writer.add_interface(LinkType::Ethernet, N::NAME)?;
        }
        let books = Books::new(pool.clone(), 1);
        let hands = Hands::new(pool, PlainHeld::default(), Clock::fixed(0));
        let counts_only = !N::Access::WRITES && output.is_none();
        Ok(Self { nf, books, hands, output, tally: Tally::default(), next_tick_ns: 0, counts_only })
    }

    fn all(&mut self, reader: &mut Reader, common: &Common, stop: &AtomicBool) -> Result<(), ReplayError> {
        let mut progress = Progress::new(common);
        let limit = common.packet_limit.unwrap_or(u64::MAX);
        let started = Instant::now();
        let mut next_print = common.print_interval.map(|interval| started + interval);
        let mut burst = Vec::with_capacity(MAX_BURST);
        loop {
            let more = self.fill(reader, &mut burst, limit)?;
            self.turn(&mut burst)?;
            let late = common.time_limit.is_some_and(|t| started.elapsed() >= t);
            if !more || self.nf.done() || late || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            progress.show(self.tally.read);
            if let (Some(at), Some(interval)) = (next_print, common.print_interval)
                && Instant::now() >= at
            {
                next_print = Some(Instant::now() + interval);
                self.print(common);
            }
        }
    }

    /// Reads up to a burst of frames; false when there are no more.
    fn fill(
        &mut self,
        reader: &mut Reader,
        burst: &mut Vec<Descriptor>,
        limit: u64,
    ) -> Result<bool, ReplayError> {
        while burst.len() < MAX_BURST {
            if self.tally.read >= limit {
                return Ok(false);
            }
            let frame = match reader.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(false),
                Err(error) if error.is_cut() => {
                    self.tally.cut = Some(error.to_string());
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
            self.tally.read += 1;
            match admit(&mut self.books, &frame, self.counts_only) {
                Ok(descriptor) => {
                    burst.push(descriptor);
                    // A tick stands between the packets before and after it.
                    if frame.timestamp_ns >= self.next_tick_ns {
                        self.hands.clock.set(frame.timestamp_ns);
                        return Ok(true);
                    }
                }
                Err(reason) => *self.tally.drops.entry(reason.name()).or_default() += 1,
            }
        }
        Ok(true)
    }

    fn turn(&mut self, burst: &mut Vec<Descriptor>) -> Result<(), ReplayError> {
        self.supply_empties();
        let last = burst.last().map(|d| self.books.pool().note(d.buffer()).timestamp_ns);
        if let Some(now) = last.filter(|now| *now > 0) {
            self.hands.clock.set(now);
        }
        self.nf.burst(&mut self.hands.burst::<N::Access>(burst));
        self.pass_on(burst)?;
        burst.clear();
        if self.hands.clock.now_ns() >= self.next_tick_ns {
            let tick = u64::try_from(N::TICK.as_nanos()).unwrap_or(u64::MAX);
            self.next_tick_ns = self.hands.clock.now_ns().saturating_add(tick);
            self.supply_empties();
            self.nf.tick(&mut self.hands.burst::<N::Access>(&mut []));
            self.pass_on(&[])?;
        }
        Ok(())
    }

    fn supply_empties(&mut self) {
        if !N::EMITS {
            return;
        }
        let emitter = &mut self.hands.emitter;
        emitter.empties.drain(..emitter.used);
        emitter.used = 0;
        while emitter.empties.len() < MAX_BURST
            && let Some(packet) = self.books.allocate(0)
        {
            emitter.empties.push(self.books.hand_out(packet, Holder::SHARED.of_empty()));
        }
    }

    fn pass_on(&mut self, burst: &[Descriptor]) -> Result<(), ReplayError> {
        let mut mirrors = std::mem::take(&mut self.hands.mirrors);
        for (index, d) in burst.iter().enumerate() {
            for _ in mirrors.iter().filter(|(i, _)| *i == index) {
                self.write_copy(*d)?;
            }
            self.leave(*d)?;
        }
        mirrors.clear();
        self.hands.mirrors = mirrors;
        let made = std::mem::take(&mut self.hands.emitter.made);
        for d in made {
            self.leave(d)?;
        }
        self.tally.made = self.books.generated();
        Ok(())
    }

    /// A packet leaves the NF: written or dropped, and its buffer free again.
    fn leave(&mut self, descriptor: Descriptor) -> Result<(), ReplayError> {
        if descriptor.destination() == Destination::HELD {
            return Ok(());
        }
        let Ok(packet) = self.books.receive(descriptor, Holder::SHARED) else {
            unreachable!("the replay's own books know every packet of its bursts")
        };
        let written = match descriptor.destination().op() {
            Op::Drop => {
                let number = descriptor.destination().argument();
                let reason = DropReason::from_number(number).unwrap_or(DropReason::BadVerdict);
                *self.tally.drops.entry(reason.name()).or_default() += 1;
                Ok(())
            }
            _ => self.write(&packet),
        };
        self.books.free(packet);
        written
    }

    fn write_copy(&mut self, descriptor: Descriptor) -> Result<(), ReplayError> {
        let Ok(packet) = self.books.receive(descriptor, Holder::SHARED) else { return Ok(()) };
        let written = self.write(&packet);
        self.books.hand_out(packet, Holder::SHARED);
        written
    }

    fn write(&mut self, packet: &Packet) -> Result<(), ReplayError> {
        self.tally.written += 1;
        let Some(output) = &mut self.output else { return Ok(()) };
        let data = packet.bytes(self.books.pool());
        let note = self.books.note(packet);
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let frame = Frame {
            timestamp_ns: if note.timestamp_ns == 0 { self.hands.clock.now_ns() } else { note.timestamp_ns },
            original_len: length.max(note.wire_length),
            link_type: LinkType::Ethernet,
            interface: 0,
            data,
        };
        output.write_frame(&frame).map_err(Into::into)
    }

    fn finish(mut self, common: &Common) -> Result<(), ReplayError> {
        self.supply_empties();
        let mut hands = self.hands.burst::<N::Access>(&mut []);
        self.nf.teardown(&mut hands);
        for ticket in 0..u32::try_from(HELD).unwrap_or(0) {
            let _ = hands.release(ticket);
        }
        let passed = self.pass_on(&[]);
        let closed = self.output.take().map_or(Ok(()), Writer::finish);
        self.print(common);
        passed?;
        closed.map_err(Into::into)
    }

    fn print(&self, common: &Common) {
        let dropped: u64 = self.tally.drops.values().sum();
        let facts = serde_json::json!({
            "replay": common.replay,
            "packets": self.tally.read,
            "sent": self.tally.written,
            "made": self.tally.made,
            "dropped": dropped,
            "drops": self.tally.drops,
            "cut": self.tally.cut,
        });
        let mut heading =
            format!("{} packets read, {} passed, {dropped} dropped", self.tally.read, self.tally.written);
        for (reason, n) in &self.tally.drops {
            heading.push_str(&format!(", {n} {reason}"));
        }
        if let Some(cut) = &self.tally.cut {
            eprintln!("{}: warning: {cut}", N::NAME);
        }
        super::print_report(common, N::NAME, &facts, &heading, &self.nf.report());
    }
}

/// Whether two names stand for one file that exists.
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity =
        |path: &Path| std::fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| (m.dev(), m.ino()));
    identity(a).is_some_and(|first| identity(b) == Some(first))
}

/// Copies a frame into a buffer of the private pool; for an NF that only counts as much of it as there is room for,
/// whatever it is.
fn admit(books: &mut Books, frame: &Frame<'_>, counts_only: bool) -> Result<Descriptor, DropReason> {
    let room = books.pool().geometry().packet_room();
    let ethernet = match AsEthernet::of(frame) {
        None if counts_only => AsEthernet::opaque(frame).cut_to(room as usize),
        Some(ethernet) if counts_only => ethernet.cut_to(room as usize),
        ethernet => ethernet.ok_or(DropReason::Malformed)?,
    };
    let length = u32::try_from(ethernet.length()).ok().filter(|l| *l <= room).ok_or(DropReason::TooLong)?;
    let mut packet = books.allocate(length).ok_or(DropReason::NoBuffer)?;
    let bytes = packet.bytes_mut(books.pool());
    ethernet.write(bytes);
    let hash = wire::flow_hash(bytes);
    // Who counts wants what was there; what is written is Ethernet.
    let wire_length = if counts_only { frame.original_len } else { ethernet.wire_length() };
    books.set_note(&packet, Note { timestamp_ns: frame.timestamp_ns, wire_length });
    // The interfaces of a capture stand for the ports of a host; a file with more has no port for the rest.
    let port = u8::try_from(frame.interface).map_or(Descriptor::NO_PORT, |i| i.min(Descriptor::NO_PORT));
    let here =
        packet.descriptor().with_hash(hash).with_port(port).with_destination(Destination::new(Op::Next, 0));
    packet.describe(here);
    Ok(books.hand_out(packet, Holder::SHARED))
}

/// A line on the terminal during long replays.
struct Progress {
    shown: bool,
    next_look: u64,
    last: Instant,
}

impl Progress {
    fn new(common: &Common) -> Self {
        let wanted = std::io::stderr().is_terminal() && !common.json;
        Self {
            shown: false,
            next_look: if wanted { FRAMES_PER_LOOK } else { u64::MAX },
            last: Instant::now(),
        }
    }

    fn show(&mut self, read: u64) {
        if read < self.next_look {
            return;
        }
        self.next_look = read + FRAMES_PER_LOOK;
        if self.last.elapsed() >= Duration::from_secs(1) {
            self.last = Instant::now();
            self.shown = true;
            eprint!("\r{read} packets");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprintln!();
        }
    }
}
