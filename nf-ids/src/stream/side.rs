//! What is known of one side of a session, and the data that it sends.

use super::assembler::{Assembler, Put};
use super::segment::{Segment, after, before, distance};
use super::{Event, Events, Settings};

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
    /// Timestamp of its first SYN.
    pub(super) first_stamp: u32,
    pub(super) has_stamp: bool,
    pub(super) zero_stamp: bool,
    pub(super) keep_alive: bool,
    /// It has sent FIN.
    pub(super) finished: bool,
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
    }

    /// Stream offset of a sequence number; none if it lies before the beginning.
    pub(super) fn offset(&self, seq: u32) -> Option<u64> {
        let offset = i64::try_from(self.anchor_offset).ok()? + i64::from(distance(seq, self.anchor));
        u64::try_from(offset).ok()
    }

    /// Offset up to which the other side has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.offset(self.last_ack).unwrap_or(0)
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
        let mut data = segment.data;
        let start = match self.offset(segment.seq) {
            Some(start) => start,
            None => {
                // It begins before the stream does: what lies in it counts.
                let early = u64::try_from(distance(self.anchor, segment.seq)).unwrap_or(0);
                let early = usize::try_from(early.saturating_sub(self.anchor_offset)).unwrap_or(usize::MAX);
                events.set(Event::SegmentBeforeBase);
                let Some(rest) = data.get(early..).filter(|rest| !rest.is_empty()) else { return false };
                data = rest;
                0
            }
        };
        let depth = settings.depth;
        if depth > 0 {
            if start >= depth {
                self.deep = true;
                events.set(Event::DepthReached);
                return false;
            }
            let room = usize::try_from(depth - start).unwrap_or(usize::MAX);
            data = &data[..data.len().min(room)];
        }
        self.latest = (start, start + data.len() as u64);
        match self.data.put(start, data, settings.policy) {
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

    /// Sequence numbers wrap after 4 GiB and are compared within 2: the anchor follows what is in order.
    fn move_anchor(&mut self) {
        let ready = self.data.ready();
        let ahead = ready - self.anchor_offset.min(ready);
        if ahead > 1 << 20 {
            #[allow(clippy::cast_possible_truncation, reason = "sequence numbers are offsets modulo 2^32")]
            {
                self.anchor = self.anchor.wrapping_add(ahead as u32);
            }
            self.anchor_offset = ready;
        }
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

    /// Whether a sequence number lies before what is expected.
    pub(super) fn is_old(&self, seq: u32) -> bool {
        before(seq, self.next_seq)
    }
}
