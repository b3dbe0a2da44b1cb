//! How sessions end: one side after the other, both at once, or by a reset.
//!
//! Each state has its own idea of which sequence number comes next. A FIN of the server counts in `next_seq`, one of the client
//! does not; a retransmission changes no state, and its window is not taken over.

use super::segment::{ACK, FIN, RST, SYN, Segment, after, before};
use super::session::{Refused, State};
use super::{Event, Session, Settings};

impl Session {
    /// One side at least has sent FIN.
    pub(super) fn in_closing(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if segment.has(RST) {
            return self.reset_by(segment, settings);
        }
        if segment.has(SYN) && !(segment.has(FIN) && self.takes_fin()) {
            return self.refuse(Event::ShutdownSynResend);
        }
        if segment.flags & (FIN | ACK) == 0 {
            return Ok(());
        }
        if segment.has(FIN) && matches!(self.state, State::LastAck | State::TimeWait) {
            return Ok(());
        }
        if !self.timestamp_is_right(segment, settings) {
            return Err(Refused);
        }
        match (self.state, segment.has(FIN)) {
            (State::FinWait1, true) => self.fin_in_fin_wait1(segment, settings),
            (State::FinWait1, false) => self.ack_in_fin_wait1(segment, settings),
            (State::FinWait2, true) => self.fin_in_fin_wait2(segment, settings),
            (State::FinWait2, false) => self.ack_in_fin_wait2(segment, settings),
            (State::CloseWait, true) => self.fin_in_close_wait(segment, settings),
            (State::CloseWait, false) => self.ack_in_close_wait(segment, settings),
            (State::LastAck, _) => self.ack_in_last_ack(segment, settings),
            (State::TimeWait, _) => self.ack_in_time_wait(segment, settings),
            _ if segment.has(ACK) => self.ack_in_closing(segment, settings),
            _ => Ok(()),
        }
    }

    /// Whether a FIN is looked at before a SYN.
    fn takes_fin(&self) -> bool {
        !matches!(self.state, State::Closing)
    }

    fn ack_or(&mut self, segment: &Segment<'_>, event: Event) -> Result<(), Refused> {
        if self.ack_is_right(segment) { Ok(()) } else { self.refuse(event) }
    }

    /// Where a FIN or the first byte after data may stand at the latest.
    fn is_too_far(&mut self, segment: &Segment<'_>) -> bool {
        let free = self.is_free();
        let (ours, _) = self.both(segment);
        !free && after(segment.seq, ours.last_ack.wrapping_add(ours.window))
    }

    fn note_window(&mut self, segment: &Segment<'_>) {
        let (_, theirs) = self.both(segment);
        theirs.window = segment.window << theirs.scale;
    }

    /// What an accepted segment says of the other side, and what it carries.
    fn accept(&mut self, segment: &Segment<'_>, settings: &Settings, slack: u32) {
        self.note_stamp(segment);
        let (_, theirs) = self.both(segment);
        if before(theirs.next_seq.wrapping_sub(slack), segment.ack) && segment.has(ACK) {
            theirs.next_seq = segment.ack;
        }
        if segment.has(ACK) {
            theirs.raise_ack(segment.ack);
        }
        self.take_data(segment, settings);
    }

    /// The data of a side goes on where it is expected.
    fn go_on(&mut self, segment: &Segment<'_>, expected: u32) {
        let (ours, _) = self.both(segment);
        if segment.seq == expected {
            ours.next_seq = segment.end();
        }
    }

    fn fin_in_fin_wait1(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let mut again = self.is_retransmission(segment);
        let (ours, theirs) = self.both(segment);
        let before_fin = ours.next_seq.wrapping_sub(1);
        again |= !segment.to_server()
            && segment.has(ACK)
            && segment.seq == before_fin
            && segment.ack == theirs.last_ack;
        let expected = if segment.to_server() && segment.has(ACK) { ours.next_seq } else { before_fin };
        let early = before(segment.seq, before_fin) && !self.is_free();
        if !again && (early || self.is_too_far(segment)) {
            return self.refuse(Event::Fin1FinWrongSequence);
        }
        self.ack_or(segment, Event::Fin1InvalidAck)?;
        if again && !segment.to_server() {
            self.note_stamp(segment);
            self.take_data(segment, settings);
            return Ok(());
        }
        if !again {
            self.state = if segment.has(ACK) { State::TimeWait } else { State::Closing };
            self.note_window(segment);
            let (ours, _) = self.both(segment);
            ours.end_with(segment.end());
        }
        self.go_on(segment, expected);
        self.accept(segment, settings, 1);
        Ok(())
    }

    fn ack_in_fin_wait1(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let again = self.is_retransmission(segment);
        self.ack_or(segment, Event::Fin1InvalidAck)?;
        let fits = self.is_in_window(segment);
        let (ours, theirs) = self.both(segment);
        // The client acknowledges the server's FIN, or the server sends more.
        let counts = !again
            && (!segment.to_server()
                || !before(segment.ack, theirs.next_seq) && segment.ack == theirs.next_seq);
        let expected = ours.next_seq.wrapping_sub(u32::from(!segment.to_server()));
        if counts {
            if !fits {
                return self.refuse(Event::Fin1AckWrongSequence);
            }
            if segment.seq == expected {
                self.state = State::FinWait2;
            }
            self.note_window(segment);
        }
        self.go_on(segment, expected);
        let (_, theirs) = self.both(segment);
        theirs.heed_from(segment, 1);
        theirs.raise_window();
        self.accept(segment, settings, 1);
        Ok(())
    }

    fn fin_in_fin_wait2(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let (ours, theirs) = self.both(segment);
        let same = segment.seq == ours.next_seq.wrapping_sub(1) && segment.ack == theirs.last_ack;
        let expected = ours.next_seq;
        let again = same || self.is_retransmission(segment);
        let early = before(segment.seq, expected) && !self.is_free();
        if !again && (early || self.is_too_far(segment)) {
            return self.refuse(Event::Fin2FinWrongSequence);
        }
        self.ack_or(segment, Event::Fin2InvalidAck)?;
        if !again {
            self.state = State::TimeWait;
            self.note_window(segment);
            let (ours, _) = self.both(segment);
            ours.end_with(segment.end());
            if segment.to_server() {
                self.go_on(segment, expected);
            }
        }
        self.accept(segment, settings, 0);
        Ok(())
    }

    fn ack_in_fin_wait2(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let again = self.is_retransmission(segment);
        self.ack_or(segment, Event::Fin2InvalidAck)?;
        if !again {
            if !self.is_in_window(segment) {
                return self.refuse(Event::Fin2AckWrongSequence);
            }
            self.note_window(segment);
        }
        let (ours, theirs) = self.both(segment);
        let expected = ours.next_seq;
        theirs.raise_ack(segment.ack);
        theirs.raise_window();
        self.go_on(segment, expected);
        self.note_stamp(segment);
        self.take_data(segment, settings);
        Ok(())
    }

    /// Both have ended at once.
    fn ack_in_closing(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let again = self.is_retransmission(segment);
        let free = self.is_free();
        let (ours, _) = self.both(segment);
        if segment.seq != ours.next_seq && !free {
            return self.refuse(Event::ClosingAckWrongSequence);
        }
        self.ack_or(segment, Event::ClosingInvalidAck)?;
        if !again {
            self.state = State::TimeWait;
            self.note_window(segment);
        }
        self.accept(segment, settings, 0);
        Ok(())
    }

    fn fin_in_close_wait(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let again = self.is_retransmission(segment);
        let free = self.is_free();
        let (ours, _) = self.both(segment);
        let early = before(segment.seq, ours.next_seq) && !free;
        if !again && (early || self.is_too_far(segment)) {
            return self.refuse(Event::CloseWaitFinOutOfWindow);
        }
        self.ack_or(segment, Event::CloseWaitInvalidAck)?;
        if !again {
            if !segment.to_server() {
                self.state = State::LastAck;
                let (ours, _) = self.both(segment);
                ours.end_with(segment.end());
            }
            self.note_window(segment);
        }
        self.accept(segment, settings, 0);
        Ok(())
    }

    fn ack_in_close_wait(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let again = self.is_retransmission(segment);
        let (ours, _) = self.both(segment);
        let expected = ours.next_seq;
        if !segment.data.is_empty() && !after(segment.end(), ours.last_ack) && !self.is_free() {
            return self.refuse(Event::CloseWaitBeforeLastAck);
        }
        if self.is_too_far(segment) {
            return self.refuse(Event::CloseWaitAckOutOfWindow);
        }
        self.ack_or(segment, Event::CloseWaitInvalidAck)?;
        if !again {
            self.note_window(segment);
        }
        self.go_on(segment, expected);
        let (_, theirs) = self.both(segment);
        theirs.heed(segment);
        theirs.raise_window();
        self.accept(segment, settings, 0);
        Ok(())
    }

    fn ack_in_last_ack(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if !segment.to_server() {
            // The server sends again what was lost.
            self.take_data(segment, settings);
            return Ok(());
        }
        let again = self.is_retransmission(segment);
        self.ack_or(segment, Event::LastAckInvalidAck)?;
        let free = self.is_free();
        let (ours, _) = self.both(segment);
        if !again {
            let expected = [ours.next_seq, ours.next_seq.wrapping_add(1)];
            if !before(segment.seq, ours.next_seq) {
                if !free && !expected.contains(&segment.seq) {
                    return self.refuse(Event::LastAckWrongSequence);
                }
                self.close();
            }
            self.note_window(segment);
        }
        self.accept(segment, settings, 0);
        Ok(())
    }

    fn ack_in_time_wait(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let again = self.is_retransmission(segment);
        let free = self.is_free();
        let (ours, _) = self.both(segment);
        let (next, last_ack) = (ours.next_seq, ours.last_ack);
        let other = if segment.to_server() { next.wrapping_add(1) } else { next.wrapping_sub(1) };
        if !again && !free && segment.seq != next && segment.seq != other {
            if !segment.to_server() && !segment.data.is_empty() && segment.seq == last_ack {
                return Ok(());
            }
            return self.refuse(Event::TimeWaitAckWrongSequence);
        }
        self.ack_or(segment, Event::TimeWaitInvalidAck)?;
        if !again {
            self.close();
            self.note_window(segment);
        }
        self.accept(segment, settings, 0);
        Ok(())
    }

    fn close(&mut self) {
        self.state = State::Closed;
        for side in &mut self.sides {
            side.raw_due = true;
        }
    }

    /// Nothing is expected any more.
    pub(super) fn in_closed(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if segment.has(RST) {
            return Ok(());
        }
        if let Some((by, before)) = self.reset_from
            && by == segment.direction
        {
            // Who has reset goes on sending: the reset was not his own, or its receiver had reasons not to heed it.
            self.state = before;
            if self.dispatch(segment, settings).is_err() {
                self.state = State::Closed;
                return Err(Refused);
            }
            self.reset = false;
            self.reset_from = None;
            self.events.set(Event::SuspectedRstInject);
            return Ok(());
        }
        // What a peer had under way when the other reset is no more.
        let (_, theirs) = self.both(segment);
        if segment.has(ACK) && !after(segment.ack, theirs.next_seq.wrapping_add(1)) {
            theirs.raise_ack(segment.ack);
        }
        Ok(())
    }
}
