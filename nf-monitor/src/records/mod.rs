//! Records of finished flows, and where they go: collectors, files of lines.
//!
//! Every flow that ends is given to all outputs once: when it times out, is cut, makes room, or when the monitor
//! ends. A monitor that has handed its state over does not end its flows: its successor does.

mod line;
mod sink;

use serde::{Deserialize, Serialize};

use crate::export::{Destination, Exporter, Sequence, Shape};
use crate::keys::Keys;
use crate::table::Finished;
pub(crate) use line::Format;
pub(crate) use sink::{Chunk, Sink};

/// What an output has let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) records: u64,
    pub(crate) packets: u64,
    pub(crate) octets: u64,
    /// Records that could not be written or sent, or found no room on the way.
    pub(crate) lost: u64,
    /// Messages of which the collector's host said that nobody listens.
    pub(crate) unheard: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, (packets, octets): (u64, u64), records: u32) {
        self.messages += 1;
        self.records += u64::from(records);
        self.packets += packets;
        self.octets += octets;
    }
}

/// Where outputs have come to, for a successor: numbers and tallies, in the order of the command line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    exports: Vec<(Sequence, Tally)>,
    lines: Vec<Tally>,
    flows: u64,
    not_ip: [u64; 3],
}

/// A file of lines.
#[derive(Debug)]
struct Lines {
    format: Format,
    sink: Sink,
    /// Lines that are not written yet, and their tally.
    open: Vec<u8>,
    waiting: (u32, (u64, u64)),
}

/// Bytes of lines that are written at once.
const CHUNK: usize = 32 * 1024;

/// All outputs.
#[derive(Debug)]
pub(crate) struct Outputs {
    exports: Vec<Exporter>,
    lines: Vec<Lines>,
    keys: Keys,
    /// Flows that were given to them.
    flows: u64,
    fixed_domain: bool,
    /// Flows of what is not IP are exported, too.
    other: bool,
    /// Flows that were not exported because they are not of IP, their packets and bytes.
    pub(crate) not_ip: [u64; 3],
    /// A successor goes on with the flows.
    handed_over: bool,
}

/// What is wanted of outputs.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) exports: Vec<Destination>,
    pub(crate) lines: Vec<(Format, std::path::PathBuf)>,
    pub(crate) shape: Shape,
    pub(crate) domain: u32,
    /// It was asked for, and does not go on from a predecessor's.
    pub(crate) fixed_domain: bool,
    /// Flows of what is not IP are exported, too.
    pub(crate) other: bool,
}

impl Outputs {
    /// Opens all outputs.
    ///
    /// # Errors
    /// Which of them cannot be opened, and why.
    pub(crate) fn open(wanted: &Wanted) -> Result<Self, String> {
        let sequence = Sequence { domain: wanted.domain, ..Sequence::default() };
        let exports = wanted.exports.iter().map(|to| Exporter::open(to, wanted.shape, sequence));
        let lines = wanted.lines.iter().map(|(format, path)| {
            let sink = Sink::open(path, format.head(), wanted.shape.patient)?;
            Ok(Lines { format: *format, sink, open: Vec::new(), waiting: (0, (0, 0)) })
        });
        Ok(Self {
            exports: exports.collect::<Result<_, String>>()?,
            lines: lines.collect::<Result<_, String>>()?,
            keys: wanted.shape.keys,
            flows: 0,
            fixed_domain: wanted.fixed_domain,
            other: wanted.other,
            not_ip: [0; 3],
            handed_over: false,
        })
    }

    /// No output at all.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        let (exports, lines) = (Vec::new(), Vec::new());
        let (keys, flows, not_ip) = (Keys::Connection, 0, [0; 3]);
        Self { exports, lines, keys, flows, fixed_domain: false, other: false, not_ip, handed_over: false }
    }

    /// Packets come: whatever was handed over, this monitor goes on.
    #[inline]
    pub(crate) fn go_on(&mut self) {
        self.handed_over = false;
    }

    /// Whether a successor goes on with the flows.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Takes the flows that ended.
    pub(crate) fn take(&mut self, finished: &mut Vec<Finished>, now_ns: u64) {
        for over in finished.iter() {
            self.record(over, now_ns);
        }
        finished.clear();
    }

    fn record(&mut self, over: &Finished, now_ns: u64) {
        self.flows += 1;
        if self.other || over.key.src().is_some() {
            self.exports.iter_mut().for_each(|export| export.take(over, now_ns));
        } else {
            let total = over.flow.total();
            for (sum, part) in self.not_ip.iter_mut().zip([1, total.packets, total.bytes]) {
                *sum += part;
            }
        }
        for lines in &mut self.lines {
            lines.format.write(over, self.keys, &mut lines.open);
            let total = over.flow.total();
            let (records, (packets, octets)) = lines.waiting;
            lines.waiting = (records + 1, (packets + total.packets, octets + total.bytes));
            if lines.open.len() >= CHUNK {
                lines.flush();
            }
        }
    }

    /// Time has passed: nothing waits longer than until here.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        for export in &mut self.exports {
            export.flush(now_ns);
            export.poll();
        }
        self.lines.iter_mut().for_each(Lines::flush);
    }

    /// Lets go what has waited for its time.
    #[inline]
    pub(crate) fn poll(&mut self) {
        self.exports.iter_mut().for_each(Exporter::poll);
    }

    /// Where all outputs have come to. From here on a successor speaks for this monitor.
    pub(crate) fn hand_over(&mut self, now_ns: u64) -> Sent {
        self.tick(now_ns);
        self.handed_over = true;
        self.exports.iter().for_each(Exporter::settle);
        self.lines.iter().for_each(|lines| lines.sink.settle());
        Sent {
            exports: self.exports.iter().map(|export| (export.sequence(), export.tally())).collect(),
            lines: self.lines.iter().map(|lines| lines.sink.tally()).collect(),
            flows: self.flows,
            not_ip: self.not_ip,
        }
    }

    /// Goes on from there. Outputs that were not there before begin anew.
    pub(crate) fn resume(&mut self, sent: &Sent) {
        for (export, (sequence, tally)) in self.exports.iter_mut().zip(&sent.exports) {
            let domain = if self.fixed_domain { export.sequence().domain } else { sequence.domain };
            export.resume(Sequence { domain, ..*sequence }, *tally);
        }
        for (lines, tally) in self.lines.iter_mut().zip(&sent.lines) {
            lines.sink.resume(*tally);
        }
        self.flows = sent.flows;
        self.not_ip = sent.not_ip;
    }

    /// The last: flows that go on are over, and all that waits leaves.
    pub(crate) fn close(&mut self, rest: impl Iterator<Item = Finished>, now_ns: u64) {
        if !self.handed_over {
            rest.for_each(|over| self.record(&over, now_ns));
        }
        for export in &mut self.exports {
            export.close(now_ns);
        }
        for lines in &mut self.lines {
            lines.flush();
            lines.sink.close();
        }
    }

    /// Flows that were given to the outputs.
    pub(crate) fn flows(&self) -> u64 {
        self.flows
    }

    /// Name, tally and trouble of every output.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, Tally, Option<String>)> {
        let exports = self.exports.iter().map(|to| (to.name().to_owned(), to.tally(), to.trouble()));
        let lines = self.lines.iter().map(|lines| {
            let name = format!("{}:{}", lines.format.name(), lines.sink.name());
            (name, lines.sink.tally(), lines.sink.trouble())
        });
        exports.chain(lines)
    }
}

impl Lines {
    fn flush(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (records, totals) = std::mem::take(&mut self.waiting);
        self.sink.write(Chunk { bytes: std::mem::take(&mut self.open), records, totals });
    }
}
