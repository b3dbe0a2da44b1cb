//! What segments do while both sides send.

use super::segment::{ACK, FIN, RST, SYN, Segment, after, before};
use super::session::{Refused, State};
use super::{Event, Session, Settings};

impl Session {
    pub(super) fn in_established(
        &mut self,
        segment: &Segment<'_>,
        settings: &Settings,
    ) -> Result<(), Refused> {
        if segment.has(RST) {
            return self.reset_by(segment, settings);
        }
        if !self.timestamp_is_right(segment) {
            return Err(Refused);
        }
        if segment.has(FIN) {
            return self.fin(segment, settings);
        }
        match segment.flags & (SYN | ACK) {
            both if both == SYN | ACK => self.late_answer(segment),
            SYN if !segment.to_server() => self.refuse(Event::EstablishedSynToClient),
            SYN if segment.seq != self.sides[0].isn => self.refuse(Event::EstablishedSynOtherSequence),
            SYN => self.refuse(Event::EstablishedSynResend),
            ACK => self.data(segment, settings),
            _ => Ok(()),
        }
    }

    fn late_answer(&mut self, segment: &Segment<'_>) -> Result<(), Refused> {
        let [client, server] = &self.sides;
        let (other_ack, other_seq) = (
            segment.ack != client.isn.wrapping_add(1) && segment.ack != client.last_ack,
            segment.seq != server.isn,
        );
        if segment.to_server() {
            self.refuse(Event::EstablishedSynAckToServer)
        } else if other_ack {
            self.refuse(Event::EstablishedSynAckOtherAck)
        } else if other_seq {
            self.refuse(Event::EstablishedSynAckOtherSequence)
        } else if self.confirmed {
            self.refuse(Event::EstablishedSynAckResend)
        } else {
            Ok(())
        }
    }

    /// A reset: what comes with it was not accepted by anyone, but says what its sender had received.
    pub(super) fn reset_by(&mut self, segment: &Segment<'_>, _settings: &Settings) -> Result<(), Refused> {
        if !self.reset_is_right(segment) {
            return Err(Refused);
        }
        self.close_by_reset(segment.direction);
        let (ours, theirs) = self.both(segment);
        ours.next_seq = segment.end();
        if segment.has(ACK) {
            theirs.raise_ack(segment.ack);
        }
        Ok(())
    }

    /// A segment with or without data.
    fn data(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if !self.ack_is_right(segment) {
            return self.refuse(Event::EstablishedInvalidAck);
        }
        let free = self.midstream || self.asynchronous;
        let (ours, theirs) = self.both(segment);
        let (end, scale) = (segment.end(), theirs.scale);
        if before(end, ours.last_ack) && !free {
            // All of it was acknowledged long ago.
            return self.refuse(Event::EstablishedBeforeLastAck);
        }
        let probe = ours.window == 0 && segment.data.len() == 1 && segment.seq == ours.next_seq;
        if !free && !probe && after(end, ours.next_window) {
            return self.refuse(Event::EstablishedOutOfWindow);
        }
        if !segment.data.is_empty() && !after(end, ours.next_seq) && !before(ours.last_ack, end) {
            self.events.set(Event::SpuriousRetransmission);
        }
        let (ours, theirs) = self.both(segment);
        if after(end, ours.next_seq) {
            ours.next_seq = end;
        }
        theirs.window = segment.window << scale;
        theirs.raise_ack(segment.ack);
        if after(segment.ack, theirs.next_seq) {
            theirs.next_seq = segment.ack;
        }
        theirs.raise_window();
        if free && ours.window == 0 {
            ours.window = u32::from(u16::MAX);
        }
        self.confirmed = true;
        self.take_data(segment, settings);
        Ok(())
    }

    /// A FIN while its sender had not ended yet.
    pub(super) fn fin(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let free = self.midstream || self.asynchronous;
        let (ours, _) = self.both(segment);
        let too_far = after(segment.seq, ours.last_ack.wrapping_add(ours.window));
        if !free && (ours.is_old(segment.seq) || too_far) {
            return self.refuse(Event::FinOutOfWindow);
        }
        if !self.ack_is_right(segment) {
            return self.refuse(Event::FinInvalidAck);
        }
        self.state = if segment.to_server() { State::CloseWait } else { State::FinWait1 };
        self.end_side(segment, settings);
        Ok(())
    }

    /// Takes in a FIN and what comes with it.
    pub(super) fn end_side(&mut self, segment: &Segment<'_>, settings: &Settings) {
        let (ours, theirs) = self.both(segment);
        if !before(segment.end(), ours.next_seq) {
            ours.next_seq = segment.end();
        }
        ours.finished = true;
        ours.raw_due = true;
        theirs.window = segment.window << theirs.scale;
        if segment.has(ACK) {
            theirs.raise_ack(segment.ack);
            if after(segment.ack, theirs.next_seq) && !theirs.finished {
                theirs.next_seq = segment.ack;
            }
        }
        theirs.raise_window();
        self.take_data(segment, settings);
    }
}
