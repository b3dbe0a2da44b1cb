//! What is known of one side of a session, and the data that it sends.

use std::borrow::Cow;

use super::assembler::{Assembler, Put};
use super::segment::{ACK, Segment, after, before, distance};
use super::{Event, Events, Settings};

/// Urgent bytes of a side that are left out of its stream, at most.
const MOST_URGENT: usize = 1024;

/// One side: its sequence numbers, and its data.
#[derive(Debug, Default)]
pub struct Side {
    pub(super) isn: u32,
    /// Sequence number after what it has sent.
    pub(super) next_seq: u32,
    /// What the other side has acknowledged.
    pub(super) last_ack: u32,
    /// Up to here the other side lets it send.
    pub(super) next_window: u32,
    /// Window that this side's receiver offers: how much this side may send, scaled, in bytes.
    pub(super) window: u32,
    /// Scale that the other side announced for its windows.
    pub(super) scale: u8,
    /// Last timestamp, and when it came (seconds).
    pub(super) last_stamp: u32,
    pub(super) last_stamp_s: u64,
    pub(super) has_stamp: bool,
    pub(super) zero_stamp: bool,
    /// Data came that lies behind a gap: up to here.
    pub(super) gap_upto: Option<u32>,
    pub(super) keep_alive: bool,
    /// A byte was sent into a window of zero, and not answered yet.
    pub(super) probed: bool,
    /// The session was picked up by a segment of the other side: nothing is known of this one's window.
    pub(super) window_unknown: bool,
    /// It has sent FIN.
    pub(super) finished: bool,
    /// Stream offset at which its data ends, then.
    end: Option<u64>,
    /// Sequence numbers of its urgent bytes from the anchor on, in order: they are not in the stream.
    urgent: Vec<u32>,
    begun: bool,
    /// Stream offset of `anchor`.
    anchor_offset: u64,
    /// A sequence number whose offset is known: moves on with what is read.
    anchor: u32,
    pub(super) data: Assembler,
    /// Up to here the application layer has it.
    pub(super) app: u64,
    /// Up to here raw content was inspected.
    pub(super) raw: u64,
    /// The application layer wants no more.
    pub(super) app_done: bool,
    /// Rules want no more raw data of it.
    pub(super) raw_done: bool,
    /// What there is shall be inspected with the next packet, however little it is.
    pub(super) raw_due: bool,
    /// Nothing beyond the depth is kept.
    pub(super) deep: bool,
    gap_told: bool,
    /// Offsets of the segment that came last, for inspection as it arrives.
    pub(super) latest: (u64, u64),
}

impl Side {
    /// Begins its sequence numbers: `isn` is the one before its first byte.
    pub(super) fn begin(&mut self, isn: u32) {
        self.isn = isn;
        self.anchor = isn.wrapping_add(1);
        self.anchor_offset = 0;
        self.next_seq = isn.wrapping_add(1);
        self.data = Assembler::default();
        (self.app, self.raw) = (0, 0);
        self.begun = true;
    }

    /// Whether its sequence numbers are known.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// It has sent FIN, and this is the sequence number after its data.
    pub(super) fn end_with(&mut self, seq: u32) {
        self.finished = true;
        self.end = self.offset(seq);
    }

    /// Stream offset of the end of its data, if it has ended.
    pub(super) fn end(&self) -> Option<u64> {
        self.end
    }

    /// Stream offset of a sequence number, urgent bytes not counted; none if it lies before the beginning.
    pub(super) fn offset(&self, seq: u32) -> Option<u64> {
        let urgent = self.urgent.iter().take_while(|urgent| before(**urgent, seq)).count();
        let ahead = i64::from(distance(seq, self.anchor)) - i64::try_from(urgent).ok()?;
        u64::try_from(i64::try_from(self.anchor_offset).ok()? + ahead).ok()
    }

    /// Offset up to which the other side has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.offset(self.last_ack).unwrap_or(0)
    }

    /// Heeds what the other side's segment acknowledges, also of what was not seen.
    pub(super) fn heed(&mut self, segment: &Segment<'_>) {
        self.heed_from(segment, 0);
    }

    /// The same; `slack` is 1 where a FIN was counted.
    pub(super) fn heed_from(&mut self, segment: &Segment<'_>, slack: u32) {
        if segment.has(ACK) {
            if before(self.next_seq.wrapping_sub(slack), segment.ack) {
                self.next_seq = segment.ack;
            }
            self.raise_ack(segment.ack);
        }
    }

    /// Offset before which nobody reads any more.
    pub(super) fn left_edge(&self, settings: &Settings) -> u64 {
        let ready = self.data.ready();
        let app = if self.app_done { ready } else { self.app };
        let behind = if settings.inline { settings.chunk } else { 0 };
        let raw = if self.raw_done { ready } else { self.raw.saturating_sub(behind) };
        app.min(raw).min(self.acknowledged())
    }

    /// Bytes of memory.
    pub(super) fn held(&self) -> usize {
        self.data.held() + self.urgent.capacity() * size_of::<u32>()
    }

    pub(super) fn raise_ack(&mut self, ack: u32) {
        if after(ack, self.last_ack) {
            self.last_ack = ack;
        }
    }

    pub(super) fn raise_window(&mut self) {
        let upto = self.last_ack.wrapping_add(self.window);
        if after(upto, self.next_window) {
            self.next_window = upto;
        }
    }

    /// Takes in the data of a segment; whether rules find it in the stream from now on.
    pub(super) fn take(&mut self, segment: &Segment<'_>, settings: &Settings, events: &mut Events) -> bool {
        if segment.data.is_empty() || self.deep {
            return false;
        }
        let (mut seq, mut data) = (segment.seq, segment.data);
        if let Some(urgent) = segment.urgent {
            self.keep_urgent(urgent, events);
        }
        let start = match self.offset(seq) {
            Some(start) => start,
            None => {
                // It begins before the stream does: what lies in it counts.
                let early = u64::try_from(distance(self.anchor, seq)).unwrap_or(0);
                let early = usize::try_from(early.saturating_sub(self.anchor_offset)).unwrap_or(usize::MAX);
                let Some(rest) = data.get(early..) else { return false };
                #[allow(clippy::cast_possible_truncation, reason = "a segment has at most 64 KiB")]
                let skipped = early as u32;
                (seq, data) = (seq.wrapping_add(skipped), rest);
                0
            }
        };
        let data = &*self.without_urgent(seq, data);
        if data.is_empty() {
            return false;
        }
        let end = start + data.len() as u64;
        if settings.depth > 0 && end > settings.depth {
            self.deep = true;
            events.set(Event::DepthReached);
            return false;
        }
        self.latest = (start, end);
        let takes_new = |new, earlier| !settings.inline && settings.policy.takes_new(new, earlier);
        match self.data.put(start, data, takes_new) {
            Put::Done { differs, .. } => {
                if differs {
                    events.set(Event::OverlapDifferentData);
                }
                self.move_anchor();
                true
            }
            Put::Old => true,
            Put::Full => {
                events.set(Event::InsertLimit);
                false
            }
        }
    }

    /// Notes an urgent byte. If there were too many, or if it was read as data already, it is data like any other.
    fn keep_urgent(&mut self, seq: u32, events: &mut Events) {
        let read = self.offset(seq).is_none_or(|offset| offset < self.data.ready());
        if read || self.urgent.len() >= MOST_URGENT || self.urgent.contains(&seq) {
            return;
        }
        let at = self.urgent.partition_point(|other| before(*other, seq));
        self.urgent.insert(at, seq);
        if self.urgent.len() == MOST_URGENT {
            events.set(Event::UrgentLimit);
        }
    }

    /// Data without the urgent bytes in it, also those that other segments have told of.
    fn without_urgent<'a>(&self, seq: u32, data: &'a [u8]) -> Cow<'a, [u8]> {
        let first = self.urgent.partition_point(|urgent| before(*urgent, seq));
        let place = |urgent: &u32| usize::try_from(distance(*urgent, seq)).unwrap_or(0);
        let mut inside = self.urgent[first..].iter().map(place).take_while(|at| *at < data.len()).peekable();
        if inside.peek().is_none() {
            return Cow::Borrowed(data);
        }
        let mut rest = Vec::with_capacity(data.len());
        let mut from = 0;
        for at in inside {
            rest.extend_from_slice(data.get(from..at).unwrap_or_default());
            from = at + 1;
        }
        rest.extend_from_slice(data.get(from..).unwrap_or_default());
        Cow::Owned(rest)
    }

    /// Sequence numbers wrap after 4 GiB and are compared within 2: the anchor follows what is in order.
    fn move_anchor(&mut self) {
        let ready = self.data.ready();
        let ahead = ready - self.anchor_offset.min(ready);
        if ahead <= 1 << 20 {
            return;
        }
        #[allow(clippy::cast_possible_truncation, reason = "sequence numbers are offsets modulo 2^32")]
        let mut anchor = self.anchor.wrapping_add(ahead as u32);
        let passed = self.urgent.iter().take_while(|urgent| {
            let lies_before = !after(**urgent, anchor);
            anchor = anchor.wrapping_add(u32::from(lies_before));
            lies_before
        });
        let passed = passed.count();
        self.urgent.drain(..passed);
        self.anchor = anchor;
        self.anchor_offset = ready;
    }

    /// Tells of a gap, once for each.
    pub(super) fn tell_gap(&mut self, events: &mut Events) {
        if !std::mem::replace(&mut self.gap_told, true) {
            events.set(Event::SequenceGap);
        }
    }

    pub(super) fn gap_over(&mut self) {
        self.gap_told = false;
    }

    /// Frees what nobody wants any more; of raw data so many bytes are kept before what is new.
    pub(super) fn tidy(&mut self, behind: u64) {
        let ready = self.data.ready();
        let app = if self.app_done { ready.max(self.app) } else { self.app };
        let raw = if self.raw_done { ready.max(self.raw) } else { self.raw.saturating_sub(behind) };
        self.data.forget(app.min(raw));
    }

    /// Bytes used of its sequence numbers, for `stream_size`.
    pub(super) fn size(&self) -> u64 {
        u64::from(self.next_seq.wrapping_sub(self.isn))
    }
}
