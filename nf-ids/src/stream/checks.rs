//! What has to hold of a segment in any state: acknowledgement, timestamp, reset.

use super::segment::{ACK, RST, SYN, Segment, after, before};
use super::session::State;
use super::{Event, Session};

/// Timestamps older than this say nothing (RFC 7323 §5.5), in seconds.
const STAMP_LIFE_S: u64 = 24 * 24 * 3600;

impl Session {
    /// Whether an acknowledgement is of something that was sent, and not too old. Right if there is none.
    pub(super) fn ack_is_right(&mut self, segment: &Segment<'_>) -> bool {
        if !segment.has(ACK) {
            return true;
        }
        let stream = &self.sides[segment.direction.other().index()];
        let ack = segment.ack;
        let right =
            if ack == stream.last_ack || (after(ack, stream.last_ack) && !after(ack, stream.next_window)) {
                true
            } else if before(ack, stream.last_ack) {
                stream.window == 0 || !before(ack, stream.last_ack.wrapping_sub(stream.window))
            } else {
                self.midstream || self.state <= State::SynSent
            };
        if !right {
            self.events.set(Event::InvalidAck);
        }
        right
    }

    /// Whether the timestamp is not older than the last one (RFC 7323 §5.3); keeps the new one.
    pub(super) fn timestamp_is_right(&mut self, segment: &Segment<'_>) -> bool {
        let Some((stamp, _)) = segment.timestamp else { return true };
        if !self.timestamps {
            return true;
        }
        let now_s = segment.now_ns / 1_000_000_000;
        let side = &mut self.sides[segment.direction.index()];
        let in_order = side.next_seq == segment.seq;
        if side.zero_stamp {
            // It sent zero in the handshake: its first real stamp begins the count.
            side.zero_stamp = false;
            side.last_stamp = stamp;
        }
        if side.last_stamp_s == 0 {
            side.last_stamp_s = now_s;
        }
        let expired = now_s > side.last_stamp_s + STAMP_LIFE_S;
        let older = stamp.wrapping_sub(side.last_stamp).cast_signed() < 0;
        let wrong = (older || (side.last_stamp != 0 && expired)) && !(in_order && expired);
        if wrong {
            self.events.set(Event::InvalidTimestamp);
            return false;
        }
        if in_order || (older && expired) {
            side.last_stamp = stamp;
        }
        side.last_stamp_s = now_s;
        true
    }

    /// Whether a reset is one that its receiver would heed.
    pub(super) fn reset_is_right(&mut self, segment: &Segment<'_>) -> bool {
        if self.asynchronous {
            return true;
        }
        if segment.has(ACK) && !self.ack_is_right(segment) {
            self.events.set(Event::RstInvalidAck);
            return false;
        }
        if self.state == State::SynSent {
            return segment.to_server()
                || !segment.has(ACK)
                || segment.ack == self.sides[0].next_seq
                || segment.ack == self.sides[0].isn.wrapping_add(1);
        }
        let side = &self.sides[segment.direction.index()];
        segment.seq == side.next_seq
            || (self.midstream && segment.seq == side.last_ack)
            || (side.finished && segment.seq == side.next_seq.wrapping_add(1))
    }

    /// A segment that only asks whether the other side is still there (RFC 9293 §3.8.4), or the answer to it.
    pub(super) fn is_keep_alive(&mut self, segment: &Segment<'_>) -> bool {
        if segment.flags & (SYN | RST | super::segment::FIN) != 0 || self.state < State::Established {
            return false;
        }
        let [ours, theirs] = [segment.direction.index(), segment.direction.other().index()];
        let side = &self.sides[ours];
        // The byte before the next one was sent and acknowledged already.
        let asks = segment.len() <= 1
            && segment.seq == side.next_seq.wrapping_sub(1)
            && segment.seq.wrapping_add(1) == side.last_ack
            && segment.ack == self.sides[theirs].last_ack
            && segment.has(ACK);
        if asks {
            self.sides[ours].keep_alive = true;
            return true;
        }
        let answers = segment.data.is_empty()
            && segment.has(ACK)
            && self.sides[theirs].keep_alive
            && segment.seq == self.sides[ours].next_seq
            && segment.ack == self.sides[theirs].last_ack;
        self.sides[theirs].keep_alive = false;
        answers
    }
}
