//! What has to hold of a segment in any state: acknowledgement, timestamp, reset; and what asks for no look at the state.

use super::assembler::Policy;
use super::segment::{ACK, FIN, RST, SYN, Segment, after, before};
use super::session::State;
use super::{Event, Session, Settings};

/// Timestamps older than this say nothing (RFC 7323 §5.5), in seconds.
const STAMP_LIFE_S: u64 = 24 * 24 * 3600;
/// A window this large may shrink a little more than its acknowledgement says without being suspicious.
const LARGE_WINDOW: u32 = 1024;
const LITTLE: u32 = 32;

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
            } else if self.state == State::SynSent {
                // A reset that answers the SYN.
                segment.has(RST) && !segment.to_server() && ack == stream.isn.wrapping_add(1)
            } else {
                self.midstream || self.asynchronous
            };
        if !right {
            self.events.set(Event::InvalidAck);
        }
        right
    }

    /// Whether the timestamp is not older than the last one (RFC 7323 §5.3). It counts from [`Session::note_stamp`] on:
    /// a segment that is refused for something else must not set the clock by which others are judged.
    pub(super) fn timestamp_is_right(&mut self, segment: &Segment<'_>, settings: &Settings) -> bool {
        let Some((stamp, _)) = segment.timestamp.filter(|_| self.timestamps) else { return true };
        let side = &self.sides[segment.direction.index()];
        // These systems take a stamp of zero; to the others it says nothing once there was another.
        let zero_is_right =
            matches!(settings.policy, Policy::OldLinux | Policy::Windows | Policy::Vista | Policy::Solaris);
        let wrong = if side.zero_stamp || !side.has_stamp {
            // It sent zero in the handshake, or nothing that was seen: its first real stamp begins the count.
            false
        } else if stamp == 0 && !zero_is_right {
            true
        } else {
            let expired = side.stamp_has_expired(segment);
            (side.is_older(stamp) || (side.last_stamp != 0 && expired))
                && !(side.next_seq == segment.seq && expired)
        };
        if wrong {
            self.events.set(Event::InvalidTimestamp);
        }
        !wrong
    }

    /// Keeps the timestamp of a segment that was accepted, before its data is counted as sent. One behind a gap does not set
    /// the clock, for what fills the gap may have been sent before it (RFC 7323 §4.3).
    pub(super) fn note_stamp(&mut self, segment: &Segment<'_>) {
        let Some((stamp, _)) = segment.timestamp.filter(|_| self.timestamps) else { return };
        let side = &mut self.sides[segment.direction.index()];
        let late = side.is_older(stamp) && side.stamp_has_expired(segment);
        if after(segment.seq, side.next_seq) {
            side.gap_upto = Some(segment.end());
        } else if side.gap_upto.is_some_and(|upto| !after(upto, side.last_ack)) {
            side.gap_upto = None;
        }
        let upto = if side.gap_upto.is_some() { side.last_ack } else { side.next_seq };
        let counts = !after(segment.seq, upto) && !after(side.last_stamp, stamp);
        if counts || side.zero_stamp || !side.has_stamp || late {
            side.last_stamp = stamp;
        }
        (side.zero_stamp, side.has_stamp) = (false, true);
        side.last_stamp_s = segment.now_ns / 1_000_000_000;
    }

    /// Whether a reset is one that its receiver would heed.
    pub(super) fn reset_is_right(&mut self, segment: &Segment<'_>, settings: &Settings) -> bool {
        if self.lossy {
            return true;
        }
        if !self.timestamp_is_right(segment, settings) {
            return false;
        }
        if !segment.data.is_empty() {
            self.events.set(Event::ResetWithData);
        }
        if segment.ack != 0 && !self.ack_is_right(segment) {
            self.events.set(Event::RstInvalidAck);
            return false;
        }
        let side = &self.sides[segment.direction.index()];
        if self.asynchronous {
            return !before(segment.seq, side.next_seq);
        }
        if self.state == State::SynSent && !segment.to_server() {
            // Nothing is known of the server's numbers; what it acknowledges was looked at.
            return true;
        }
        match settings.policy {
            Policy::Hpux11 => !before(segment.seq, side.next_seq),
            Policy::Linux | Policy::OldLinux | Policy::Solaris => {
                let beyond = side.next_seq.wrapping_add(side.window);
                !before(segment.end(), side.last_ack) && before(segment.seq, beyond)
            }
            _ => {
                segment.seq == side.next_seq
                    || (self.midstream && segment.seq == side.last_ack)
                    || (side.finished && segment.seq == side.next_seq.wrapping_add(1))
            }
        }
    }

    /// A segment that only asks whether the other side is still there (RFC 9293 §3.8.4), or the answer to it.
    pub(super) fn is_keep_alive(&mut self, segment: &Segment<'_>) -> bool {
        let [client, server] = &mut self.sides;
        let (ours, theirs) = if segment.to_server() { (client, server) } else { (server, client) };
        let plain = segment.flags & (SYN | FIN | RST) == 0 && segment.ack == theirs.last_ack;
        // The byte before the next one was sent already.
        if plain && segment.len() <= 1 && segment.seq == ours.next_seq.wrapping_sub(1) {
            ours.keep_alive = true;
            return true;
        }
        let answers = plain
            && segment.data.is_empty()
            && segment.window != 0
            && segment.window << theirs.scale == theirs.window
            && theirs.keep_alive
            && segment.seq == ours.next_seq;
        ours.keep_alive = false;
        if answers {
            theirs.keep_alive = false;
        }
        answers
    }

    /// The answer to a byte that was sent into a window of zero: it is still zero.
    pub(super) fn is_probe_answer(&self, segment: &Segment<'_>) -> bool {
        let ours = &self.sides[segment.direction.index()];
        let theirs = &self.sides[segment.direction.other().index()];
        self.is_pure_ack(segment)
            && theirs.probed
            && segment.window == 0
            && theirs.window == 0
            && segment.seq == ours.next_seq
            && segment.ack == theirs.last_ack
    }

    /// An acknowledgement and nothing else, of a session that both sides have begun.
    fn is_pure_ack(&self, segment: &Segment<'_>) -> bool {
        self.state >= State::Established
            && segment.data.is_empty()
            && segment.flags & (ACK | SYN | FIN | RST) == ACK
    }

    /// An acknowledgement that would shrink the window so much that what is expected no longer fits, and acknowledges what was
    /// not seen: it is not of who it seems to be. Or one that says what later ones have said already. Neither counts.
    pub(super) fn is_no_news(&mut self, segment: &Segment<'_>) -> bool {
        if self.state < State::Established || segment.flags & (SYN | FIN | RST) != 0 {
            return false;
        }
        let ours = &self.sides[segment.direction.index()];
        let theirs = &self.sides[segment.direction.other().index()];
        let window = segment.window << theirs.scale;
        let quiet = segment.data.is_empty();
        let last = quiet
            && segment.flags & 0x3f == ACK
            && matches!(self.state, State::TimeWait | State::CloseWait | State::LastAck)
            && segment.seq == ours.next_seq.wrapping_add(1)
            && segment.ack == theirs.next_seq.wrapping_add(1);
        let updates = quiet
            && segment.window != 0
            && window != theirs.window
            && segment.ack == theirs.last_ack
            && segment.seq == ours.next_seq;
        if last || updates {
            return false;
        }
        if self.state != State::Closed && window < theirs.window {
            let shrinks = theirs.window - window;
            let told = segment.ack.wrapping_sub(theirs.last_ack);
            let allowed = told.saturating_add(if window > LARGE_WINDOW { LITTLE } else { 0 });
            if shrinks > segment.len()
                && after(segment.ack, theirs.next_seq)
                && after(segment.seq, ours.next_seq)
                && shrinks > allowed
            {
                self.events.set(Event::BadWindowUpdate);
                return true;
            }
        }
        self.is_pure_ack(segment)
            && segment.seq == ours.next_seq
            && before(segment.ack, theirs.last_ack)
            && !segment.sack
    }

    /// Tells of data that was acknowledged already; whether all of it was also read, so that it can change nothing.
    pub(super) fn is_spurious(&mut self, segment: &Segment<'_>, settings: &Settings) -> bool {
        if segment.data.is_empty() || self.state < State::SynReceived {
            return false;
        }
        let side = &self.sides[segment.direction.index()];
        let read = side.offset(segment.end()).is_some_and(|end| end <= side.left_edge(settings));
        if read || !after(segment.end(), side.last_ack) {
            self.events.set(Event::SpuriousRetransmission);
        }
        read
    }

    /// Tells of data that was sent before, once a side has ended.
    pub(super) fn is_retransmission(&mut self, segment: &Segment<'_>) -> bool {
        let side = &self.sides[segment.direction.index()];
        let (seq, end) = (segment.seq, segment.end());
        let partly = before(seq, side.last_ack) && after(end, side.last_ack);
        let again =
            !segment.data.is_empty() && (partly || !after(end, side.last_ack) || !after(end, side.next_seq));
        if again {
            self.events.set(Event::Retransmission);
        }
        again
    }

    /// Whether data up to here is in the window of its receiver, or it cannot be told.
    pub(super) fn is_in_window(&self, segment: &Segment<'_>) -> bool {
        let side = &self.sides[segment.direction.index()];
        self.is_free() || !after(segment.end(), side.next_window)
    }

    /// Whether windows say little: the handshake was not seen, or one side is not.
    pub(super) fn is_free(&self) -> bool {
        self.midstream || self.asynchronous
    }
}

impl super::Side {
    fn stamp_has_expired(&self, segment: &Segment<'_>) -> bool {
        let now_s = segment.now_ns / 1_000_000_000;
        self.last_stamp_s != 0 && now_s > self.last_stamp_s + STAMP_LIFE_S
    }

    /// Some senders' clocks go back by one.
    fn is_older(&self, stamp: u32) -> bool {
        stamp.wrapping_sub(self.last_stamp).wrapping_add(1).cast_signed() < 0
    }
}
