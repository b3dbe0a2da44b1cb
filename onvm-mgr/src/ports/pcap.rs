//! `pcap:`: replays a capture, records what is sent into another.
//!
//! As fast as the chain takes it, unless told otherwise: `speed=1` keeps the recorded pace (`speed=2` is
//! twice as fast), `pps=N` or a `rate=` (`rate`) sends at a steady rate, `loop=N` replays N times. What is sent goes into the output
//! with the time at which it was received, so an unhindered chain gives back what it was given.

use std::path::Path;
use std::time::{Duration, Instant};

use onvm_lib::capture::{AsEthernet, Error, Format, Frame, LinkType, Reader, Writer};
use onvm_lib::pool::{Books, Note, Packet};
use onvm_lib::wire;

use super::rate::{Limit, Pace, Rate, now_ns};
use super::{FLUSH_INTERVAL, Port, PortCounters, PortError, Reception, Spec};

/// When frames are due.
#[derive(Debug)]
enum Timing {
    AsFastAsPossible,
    Steady(Pace),
    /// As recorded, times a factor: start of the replay and the first frame's timestamp.
    Recorded {
        speed: f64,
        origin: Instant,
        first_ns: Option<u64>,
    },
}

/// A capture to read, a capture to write, or both.
pub(super) struct PcapPort {
    name: String,
    input: Option<Reader>,
    output: Option<Writer>,
    /// Rounds still to be replayed, this one included; none for ever.
    rounds_left: Option<u64>,
    round_is_empty: bool,
    timing: Timing,
    counters: PortCounters,
    error: Option<PortError>,
    failed: bool,
    last_flush: Instant,
    /// A frame that was read before its time: it waits in its buffer.
    early: Option<Packet>,
}

impl PcapPort {
    pub(super) fn open(spec: &Spec) -> Result<Self, PortError> {
        let (from, to) = (spec.get("in"), spec.get("out"));
        let format = match spec.get("format") {
            Some(_) if to.is_none() => {
                return Err(spec.missing("format= says how out= is written, and there is no out=").into());
            }
            None => to.map(|path| Format::from_path(Path::new(path))),
            Some("pcap") => Some(Format::PcapNano),
            Some("pcap-us") => Some(Format::PcapMicro),
            Some("pcapng") => Some(Format::PcapNg),
            Some(_) => return Err(spec.bad("format", "formats are pcap, pcap-us, pcapng").into()),
        };
        if from.is_none() && to.is_none() {
            return Err(spec.missing("in=FILE or out=FILE (or both) is needed").into());
        }
        let rate = Rate::of(spec)?.rx;
        if from.is_none() && rate.is_set() {
            return Err(spec.bad("rate", "what comes in is limited, and there is no in=FILE").into());
        }
        if from.is_none() && ["loop", "speed", "pps"].iter().any(|o| spec.get(o).is_some()) {
            return Err(spec.missing("loop=, speed= and pps= need in=FILE").into());
        }
        if from.is_some_and(|path| path == "-" || is_pipe(path)) {
            // Nobody but the packets could be served while the worker waits for a pipe.
            return Err(spec.bad("in", "a regular file is needed (an NF's --replay takes pipes)").into());
        }
        if let (Some(from), Some(to)) = (from, to)
            && same_file(from, to)
        {
            return Err(spec.bad("out", "that is the file that is read").into());
        }
        let rounds = match spec.number("loop")? {
            Some(0) => None,
            Some(n) => Some(n),
            None => Some(1),
        };
        let timing = timing(spec, rate)?;
        let input = from.map(Reader::open).transpose()?;
        // Last, when nothing else can fail: it empties the file.
        let mut output = to.zip(format).map(|(path, format)| Writer::create_as(path, format)).transpose()?;
        if let Some(writer) = &mut output {
            writer.add_interface(LinkType::Ethernet, spec.text())?;
        }
        Ok(Self {
            name: spec.text().to_string(),
            input,
            output,
            rounds_left: rounds,
            round_is_empty: true,
            timing,
            counters: PortCounters::default(),
            error: None,
            failed: false,
            last_flush: Instant::now(),
            early: None,
        })
    }

    /// Reads the next frame into a buffer. None at the end of all rounds.
    fn next_packet(&mut self, books: &mut Books) -> Next {
        // Before a frame is read: one that is read without a buffer to put it in would be gone.
        if books.free_count() == 0 {
            return Next::NoBuffer;
        }
        loop {
            let Some(reader) = &mut self.input else { return Next::End };
            let frame = match reader.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    if !self.next_round() {
                        return Next::End;
                    }
                    continue;
                }
                Err(error) => {
                    // A cut file has given all it has; anything else ends the replay too, and is told.
                    self.fail(error);
                    self.input = None;
                    return Next::End;
                }
            };
            let Some(ethernet) = AsEthernet::of(&frame) else {
                self.counters.rx_refused += 1;
                continue;
            };
            let length = u32::try_from(ethernet.length()).unwrap_or(u32::MAX);
            if length > books.pool().geometry().packet_room() {
                self.counters.rx_refused += 1;
                continue;
            }
            let Some(mut packet) = books.allocate(length) else { return Next::NoBuffer };
            let bytes = packet.bytes_mut(books.pool());
            ethernet.write(bytes);
            let hash = wire::flow_hash(bytes);
            packet.describe(packet.descriptor().with_hash(hash));
            let note = Note { timestamp_ns: frame.timestamp_ns, wire_length: ethernet.wire_length() };
            books.set_note(&packet, note);
            self.round_is_empty = false;
            return Next::Packet(packet, note.timestamp_ns);
        }
    }

    fn next_round(&mut self) -> bool {
        // A capture without a single usable frame would be read round and round for nothing.
        if std::mem::replace(&mut self.round_is_empty, true) {
            return false;
        }
        if let Some(left) = &mut self.rounds_left {
            *left -= 1;
            if *left == 0 {
                return false;
            }
        }
        if let Timing::Recorded { origin, first_ns, .. } = &mut self.timing {
            (*origin, *first_ns) = (Instant::now(), None);
        }
        match self.input.as_mut().map(Reader::rewind) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                self.fail(error);
                false
            }
            None => false,
        }
    }

    fn fail(&mut self, error: Error) {
        self.failed = true;
        self.error = Some(error.into());
    }

    /// When a frame with this timestamp is due, if it is not due now.
    fn not_before(&mut self, timestamp_ns: u64) -> Option<Instant> {
        let Timing::Recorded { speed, origin, first_ns } = &mut self.timing else { return None };
        let first = *first_ns.get_or_insert(timestamp_ns);
        #[allow(clippy::cast_precision_loss)] // to a nanosecond for 100 days
        let offset = timestamp_ns.saturating_sub(first) as f64 / 1e9 / *speed;
        let due = *origin + Duration::try_from_secs_f64(offset).unwrap_or(Duration::MAX / 4);
        (due > Instant::now()).then_some(due)
    }
}

fn is_pipe(path: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_fifo() || m.file_type().is_socket())
}

/// Whether two names stand for one file that exists.
fn same_file(a: &str, b: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path| std::fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| (m.dev(), m.ino()));
    identity(a).is_some_and(|first| identity(b) == Some(first))
}

enum Next {
    Packet(Packet, u64),
    NoBuffer,
    End,
}

fn timing(spec: &Spec, rate: Limit) -> Result<Timing, PortError> {
    let speed = spec.get("speed");
    let steady = match spec.number("pps")? {
        Some(_) if rate.is_set() => return Err(spec.missing("either pps= or rate=, not both").into()),
        Some(0) => return Err(spec.bad("pps", "more than 0 is needed").into()),
        Some(pps) => Some(Limit::of_packets(pps)),
        None => Some(rate).filter(Limit::is_set),
    };
    Ok(match (steady, speed) {
        (Some(_), Some(_)) => {
            return Err(spec.missing("either speed= or a rate (pps=, rate=), not both").into());
        }
        (Some(limit), None) => Timing::Steady(Pace::new(limit)),
        (None, None) => Timing::AsFastAsPossible,
        (None, Some(speed)) => {
            let speed: f64 =
                speed.parse().ok().filter(|s| *s > 0.0 && *s <= 1e6).ok_or_else(|| {
                    spec.bad("speed", "a factor more than 0 is needed, 1 is the recorded pace")
                })?;
            Timing::Recorded { speed, origin: Instant::now(), first_ns: None }
        }
    })
}

impl Port for PcapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_finite(&self) -> bool {
        self.rounds_left.is_some()
    }

    fn waits(&self) -> bool {
        matches!(self.timing, Timing::AsFastAsPossible)
    }

    fn holds(&self) -> usize {
        usize::from(self.early.is_some())
    }

    fn start(&mut self) {
        match &mut self.timing {
            Timing::AsFastAsPossible => {}
            Timing::Steady(pace) => pace.start(),
            Timing::Recorded { origin, .. } => *origin = Instant::now(),
        }
    }

    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception {
        let mut max = max;
        if let Timing::Steady(pace) = &mut self.timing {
            match pace.due(Instant::now()) {
                Ok(due) => max = max.min(usize::try_from(due).unwrap_or(usize::MAX)),
                Err(when) => return Reception::NotBefore(when),
            }
        }
        let before = burst.len();
        let mut outcome = Reception::Ready;
        while burst.len() - before < max {
            let next = match self.early.take() {
                Some(packet) => {
                    let timestamp = books.note(&packet).timestamp_ns;
                    Next::Packet(packet, timestamp)
                }
                None => self.next_packet(books),
            };
            match next {
                Next::Packet(packet, timestamp_ns) => {
                    if let Some(when) = self.not_before(timestamp_ns) {
                        self.early = Some(packet);
                        outcome = Reception::NotBefore(when);
                        break;
                    }
                    self.counters.rx_packets += 1;
                    self.counters.rx_bytes += u64::from(packet.descriptor().length());
                    burst.push(packet);
                }
                Next::NoBuffer => break,
                Next::End => {
                    self.input = None;
                    outcome = Reception::Finished;
                    break;
                }
            }
        }
        if let Timing::Steady(pace) = &mut self.timing {
            let bytes = burst[before..].iter().map(|p| u64::from(p.descriptor().length())).sum();
            pace.sent(burst.len() - before, bytes);
        }
        outcome
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        let Some(output) = &mut self.output else {
            // No out=: what is sent here goes nowhere, as into null:.
            self.counters.tx_packets += burst.len() as u64;
            self.counters.tx_bytes += books.free_all(burst);
            return;
        };
        let mut sent = 0;
        let mut failure = None;
        for packet in burst.iter() {
            let data = packet.bytes(books.pool());
            let note = books.note(packet);
            let length = packet.descriptor().length();
            let frame = Frame {
                timestamp_ns: if note.timestamp_ns == 0 { now_ns() } else { note.timestamp_ns },
                original_len: note.wire_length.max(length),
                link_type: LinkType::Ethernet,
                interface: 0,
                data,
            };
            if let Err(error) = output.write_frame(&frame) {
                failure = Some(error);
                break;
            }
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += u64::from(length);
            sent += 1;
        }
        for packet in burst.drain(..sent) {
            books.free(packet);
        }
        if let Some(error) = failure {
            self.counters.tx_failed += burst.len() as u64;
            if !self.failed {
                self.fail(error);
            }
        }
    }

    fn idle(&mut self) {
        if self.last_flush.elapsed() < FLUSH_INTERVAL || self.failed {
            return;
        }
        self.last_flush = Instant::now();
        if let Some(Err(error)) = self.output.as_mut().map(Writer::flush) {
            self.fail(error);
        }
    }

    fn close(&mut self, books: &mut Books) -> Result<(), PortError> {
        self.input = None;
        if let Some(packet) = self.early.take() {
            books.free(packet);
        }
        match self.output.take().map_or(Ok(()), Writer::finish) {
            // What had failed before has been told.
            Err(_) if self.failed => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }

    fn take_error(&mut self) -> Option<PortError> {
        self.error.take()
    }
}
