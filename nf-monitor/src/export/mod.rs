//! Export of flow records: IPFIX (RFC 7011) and NetFlow version 9 (RFC 3954) over UDP, IPFIX into a file (RFC 5655).
//!
//! ```text
//! finished flow ─▶ records, one a direction ─▶ message of one template's records ─▶ pace ─▶ UDP
//!                  or one a flow (biflow)       full, or flushed by the tick       └▶ file
//! ```
//! *Templates* come before the first record, then every [`REFRESH_NS`] of the packets' time and every
//! [`REFRESH_MESSAGES`] messages: over UDP any of them may be lost.
//!
//! *Pace.* A collector's socket holds some hundred messages. Not more than [`BURST`] leave at once and so many a
//! second as asked for; the others wait in a bounded queue. A live monitor never waits for it: what finds no room
//! is dropped and counted. A replay waits.
//!
//! *Numbers.* IPFIX counts data records, NetFlow counts messages; both go on across a replacement of the monitor
//! ([`Sequence`] is part of its state), so that the collector sees neither a gap nor a repetition.

mod destination;
mod message;
mod pace;
mod template;

pub(crate) use destination::Destination;
use destination::{Protocol, Way};
use message::Encoder;
pub(crate) use message::Sequence;
use pace::Paced;
pub(crate) use template::Octets;
use template::{Layout, Row};

use crate::keys::Keys;
use crate::records::{Chunk, Sink, Tally};
use crate::table::Finished;

/// Time after which templates are sent again, in nanoseconds of the packets' time.
const REFRESH_NS: u64 = 60_000_000_000;
/// Messages after which they are.
const REFRESH_MESSAGES: u64 = 500;
/// Messages that leave at once; a collector's socket of the usual size holds some more.
const BURST: u32 = 32;

/// What the command line says of exports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) keys: Keys,
    /// Both directions in one record (RFC 5103).
    pub(crate) biflow: bool,
    pub(crate) octets: Octets,
    /// Records have an application, and the table of their names is sent.
    pub(crate) applications: bool,
    /// Messages a second; 0: as many as there are.
    pub(crate) rate: u32,
    /// A replay can wait, a live monitor cannot.
    pub(crate) patient: bool,
}

#[derive(Debug)]
enum Transport {
    Udp(Paced),
    File(Sink),
}

/// One collector, or file, and what is on the way to it.
#[derive(Debug)]
pub(crate) struct Exporter {
    name: String,
    encoder: Encoder,
    transport: Transport,
    shape: Shape,
    templates_ns: Option<u64>,
    since_templates: u64,
    /// Of UDP; a file's writer has its own.
    tally: Tally,
}

impl Exporter {
    /// Opens the way to a destination.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn open(destination: &Destination, shape: Shape, sequence: Sequence) -> Result<Self, String> {
        if shape.biflow && destination.protocol == Protocol::Netflow9 {
            return Err(format!("{destination}: NetFlow version 9 has no biflows, IPFIX has"));
        }
        let transport = match &destination.way {
            Way::Udp(host) => Transport::Udp(Paced::connect(host, shape.rate, shape.patient)?),
            Way::File(path) => Transport::File(Sink::open(path, None, shape.patient)?),
        };
        Ok(Self {
            name: destination.to_string(),
            encoder: Encoder::new(destination.protocol, sequence),
            transport,
            shape,
            templates_ns: None,
            since_templates: 0,
            tally: Tally::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its numbers have come to.
    pub(crate) fn sequence(&self) -> Sequence {
        self.encoder.sequence()
    }

    /// What has left.
    pub(crate) fn tally(&self) -> Tally {
        match &self.transport {
            Transport::Udp(_) => self.tally,
            Transport::File(sink) => sink.tally(),
        }
    }

    /// Goes on with the numbers of another.
    pub(crate) fn resume(&mut self, sequence: Sequence, tally: Tally) {
        self.encoder.resume(sequence);
        match &mut self.transport {
            Transport::Udp(_) => self.tally = tally,
            Transport::File(sink) => sink.resume(tally),
        }
    }

    /// Exports a flow that is over; `now_ns` is the packets' time.
    pub(crate) fn take(&mut self, finished: &Finished, now_ns: u64) {
        let rows = Row::of(finished, self.shape);
        for row in rows.into_iter().flatten() {
            self.refresh(now_ns);
            let layout = Layout::of(&row, self.shape);
            if let Some(message) = self.encoder.add(layout, &row, self.shape, now_ns) {
                self.send(message);
            }
        }
    }

    /// Sends templates, if it is time.
    fn refresh(&mut self, now_ns: u64) {
        let late = self.templates_ns.is_none_or(|at| now_ns.saturating_sub(at) >= REFRESH_NS);
        if !late && self.since_templates < REFRESH_MESSAGES {
            return;
        }
        self.flush(now_ns);
        self.templates_ns = Some(now_ns);
        self.since_templates = 0;
        for message in self.encoder.templates(self.shape, now_ns) {
            self.send(message);
        }
    }

    /// Sends what is there, full or not.
    pub(crate) fn flush(&mut self, now_ns: u64) {
        if let Some(message) = self.encoder.finish(now_ns) {
            self.send(message);
        }
    }

    fn send(&mut self, message: Chunk) {
        self.since_templates += 1;
        match &mut self.transport {
            Transport::Udp(paced) => paced.send(message, &mut self.tally),
            Transport::File(sink) => sink.write(message),
        }
    }

    /// Lets messages go whose time has come.
    pub(crate) fn poll(&mut self) {
        if let Transport::Udp(paced) = &mut self.transport {
            paced.poll(&mut self.tally);
        }
    }

    /// The last: all that waits leaves, or is counted as lost.
    pub(crate) fn close(&mut self, now_ns: u64) {
        self.flush(now_ns);
        match &mut self.transport {
            Transport::Udp(paced) => paced.drain(&mut self.tally),
            Transport::File(sink) => sink.close(),
        }
    }

    /// Waits for what is on its way to a file.
    pub(crate) fn settle(&self) {
        if let Transport::File(sink) = &self.transport {
            sink.settle();
        }
    }

    /// Why messages did not leave, if some did not.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &self.transport {
            Transport::Udp(paced) => paced.trouble(),
            Transport::File(sink) => sink.trouble(),
        }
    }
}
