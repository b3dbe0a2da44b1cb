//! How sessions end: one side after the other, both at once, or by a reset.

use super::segment::{ACK, FIN, RST, SYN, Segment, after, before};
use super::session::{Refused, State};
use super::{Event, Session, Settings};

/// What is told of a segment that does not fit, by state.
struct Faults {
    fin: Event,
    seq: Event,
    ack: Event,
}

impl State {
    fn faults(self) -> Faults {
        let (fin, seq, ack) = match self {
            State::FinWait1 => {
                (Event::Fin1FinWrongSequence, Event::Fin1AckWrongSequence, Event::Fin1InvalidAck)
            }
            State::FinWait2 => {
                (Event::Fin2FinWrongSequence, Event::Fin2AckWrongSequence, Event::Fin2InvalidAck)
            }
            State::CloseWait => {
                (Event::CloseWaitFinOutOfWindow, Event::CloseWaitAckOutOfWindow, Event::CloseWaitInvalidAck)
            }
            State::LastAck => {
                (Event::LastAckWrongSequence, Event::LastAckWrongSequence, Event::LastAckInvalidAck)
            }
            State::Closing => {
                (Event::ClosingAckWrongSequence, Event::ClosingAckWrongSequence, Event::ClosingInvalidAck)
            }
            _ => {
                (Event::TimeWaitAckWrongSequence, Event::TimeWaitAckWrongSequence, Event::TimeWaitInvalidAck)
            }
        };
        Faults { fin, seq, ack }
    }
}

impl Session {
    /// One side at least has sent FIN.
    pub(super) fn in_closing(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if segment.has(RST) {
            return self.reset_by(segment, settings);
        }
        if !self.timestamp_is_right(segment) {
            return Err(Refused);
        }
        if segment.has(SYN) {
            return self.refuse(Event::ShutdownSynResend);
        }
        if segment.has(FIN) {
            return self.fin_again(segment, settings);
        }
        if segment.has(ACK) {
            return self.closing_ack(segment, settings);
        }
        Ok(())
    }

    /// The FIN of the other side, or the same once more.
    fn fin_again(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let faults = self.state.faults();
        let free = self.midstream || self.asynchronous;
        let (ours, _) = self.both(segment);
        let again = ours.finished && !after(segment.end(), ours.next_seq.wrapping_add(1));
        if again {
            return if self.ack_is_right_of_closed(segment) {
                self.heed_ack(segment)
            } else {
                self.refuse(faults.ack)
            };
        }
        let too_far = after(segment.seq, ours.last_ack.wrapping_add(ours.window).wrapping_add(1));
        if !free && (ours.is_old(segment.seq) || too_far) {
            return self.refuse(faults.fin);
        }
        if !self.ack_is_right_of_closed(segment) {
            return self.refuse(faults.ack);
        }
        self.end_side(segment, settings);
        self.state = match self.state {
            State::FinWait1 if self.fin_acknowledged(segment) => State::TimeWait,
            State::FinWait1 => State::Closing,
            State::CloseWait => State::LastAck,
            _ => State::TimeWait,
        };
        Ok(())
    }

    /// An acknowledgement counts the FIN, which takes a sequence number of its own.
    fn ack_is_right_of_closed(&mut self, segment: &Segment<'_>) -> bool {
        let theirs = &self.sides[segment.direction.other().index()];
        (theirs.finished && segment.has(ACK) && segment.ack == theirs.next_seq.wrapping_add(1))
            || self.ack_is_right(segment)
    }

    /// Whether a segment acknowledges the FIN of the other side.
    fn fin_acknowledged(&self, segment: &Segment<'_>) -> bool {
        let theirs = &self.sides[segment.direction.other().index()];
        theirs.finished && segment.has(ACK) && segment.ack == theirs.next_seq.wrapping_add(1)
    }

    fn heed_ack(&mut self, segment: &Segment<'_>) -> Result<(), Refused> {
        let (_, theirs) = self.both(segment);
        theirs.raise_ack(segment.ack);
        Ok(())
    }

    fn closing_ack(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let faults = self.state.faults();
        if !self.ack_is_right_of_closed(segment) {
            return self.refuse(faults.ack);
        }
        let free = self.midstream || self.asynchronous;
        let fin_acknowledged = self.fin_acknowledged(segment);
        let (ours, _) = self.both(segment);
        let end = segment.end();
        // After its FIN a side has used one number more.
        let limit = ours.next_window.wrapping_add(u32::from(ours.finished));
        if !free && after(end, limit) {
            return self.refuse(faults.seq);
        }
        if self.state == State::CloseWait && !segment.data.is_empty() && !free {
            let (ours, _) = self.both(segment);
            if before(end, ours.last_ack) {
                return self.refuse(Event::CloseWaitBeforeLastAck);
            }
        }
        let (ours, theirs) = self.both(segment);
        if after(end, ours.next_seq) && !ours.finished {
            ours.next_seq = end;
        }
        theirs.window = segment.window << theirs.scale;
        theirs.raise_ack(segment.ack);
        theirs.raise_window();
        if !segment.data.is_empty() {
            self.take_data(segment, settings);
        }
        self.state = match self.state {
            State::FinWait1 if fin_acknowledged && segment.to_server() => State::FinWait2,
            State::Closing if fin_acknowledged => State::TimeWait,
            State::LastAck if fin_acknowledged => State::Closed,
            State::TimeWait if fin_acknowledged => State::Closed,
            other => other,
        };
        if self.state == State::Closed {
            for side in &mut self.sides {
                side.raw_due = true;
            }
        }
        Ok(())
    }

    /// Nothing is expected any more.
    pub(super) fn in_closed(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if segment.has(RST) || segment.pseudo {
            return Ok(());
        }
        if let Some((by, before)) = self.reset_from
            && by == segment.direction
            && before >= State::Established
        {
            // Who has reset goes on sending: the reset was not his own.
            self.state = before;
            let outcome = self.dispatch(segment, settings);
            if outcome.is_ok() {
                self.reset = false;
                self.reset_from = None;
                self.events.set(Event::SuspectedRstInject);
            } else {
                self.state = State::Closed;
            }
            return outcome;
        }
        // What a peer had under way when the other reset is no more.
        let (_, theirs) = self.both(segment);
        if segment.has(ACK) && !after(segment.ack, theirs.next_seq.wrapping_add(1)) {
            theirs.raise_ack(segment.ack);
        }
        Ok(())
    }
}
