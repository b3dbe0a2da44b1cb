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
        if segment.has(FIN) {
            if !self.timestamp_is_right(segment, settings) {
                return Err(Refused);
            }
            return self.fin(segment, settings);
        }
        match segment.flags & (SYN | ACK) {
            both if both == SYN | ACK => self.late_answer(segment),
            SYN if !segment.to_server() => self.refuse(Event::EstablishedSynToClient),
            // The rules for these events were written by what Suricata compares, which is the acknowledgement.
            SYN if segment.ack != self.sides[0].isn => self.refuse(Event::EstablishedSynOtherSequence),
            SYN => self.refuse(Event::EstablishedSynResend),
            ACK => {
                if !self.timestamp_is_right(segment, settings) {
                    return Err(Refused);
                }
                self.confirmed |= !segment.to_server();
                // Its receiver would not take it; what it carries is inspected as the packet that it is.
                self.mild = self.data(segment, settings).is_err();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn late_answer(&mut self, segment: &Segment<'_>) -> Result<(), Refused> {
        let [client, server] = &self.sides;
        if segment.to_server() {
            self.refuse(Event::EstablishedSynAckToServer)
        } else if segment.ack != client.last_ack {
            self.refuse(Event::EstablishedSynAckOtherAck)
        } else if segment.seq != server.isn {
            self.refuse(Event::EstablishedSynAckOtherSequence)
        } else if self.confirmed {
            self.refuse(Event::EstablishedSynAckResend)
        } else {
            // The client's acknowledgement was lost on its way.
            Ok(())
        }
    }

    /// A reset. What comes with it is in no stream, but it says what its sender had received, and that he had sent all.
    pub(super) fn reset_by(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if !self.reset_is_right(segment, settings) {
            return Err(Refused);
        }
        let acknowledges = segment.has(ACK) && self.ack_is_right(segment);
        self.close_by_reset(segment);
        let (ours, theirs) = self.both(segment);
        if acknowledges {
            theirs.raise_ack(segment.ack);
        }
        ours.raise_ack(segment.seq);
        ours.next_seq = segment.end();
        self.note_stamp(segment);
        Ok(())
    }

    /// A segment with or without data.
    fn data(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let (_, theirs) = self.both(segment);
        if theirs.probed && segment.ack == theirs.next_seq.wrapping_add(1) {
            // The byte that was sent into a closed window was taken.
            self.events.set(Event::EstablishedAckOfProbe);
        } else if !self.ack_is_right(segment) {
            return self.refuse(Event::EstablishedInvalidAck);
        }
        let (ours, _) = self.both(segment);
        if std::mem::take(&mut ours.window_unknown) {
            ours.window = segment.window << ours.scale;
            ours.next_window = ours.last_ack.wrapping_add(ours.window);
        }
        let free = self.is_free();
        let (ours, _) = self.both(segment);
        let end = segment.end();
        if before(end, ours.last_ack) {
            // What was acknowledged before it came by here is news all the same.
            let unseen = after(ours.last_ack, ours.next_seq) && after(end, ours.next_seq);
            if !free && !unseen {
                if settings.inline && !segment.data.is_empty() {
                    self.heed_again(segment, settings);
                }
                return self.refuse(Event::EstablishedBeforeLastAck);
            }
        }
        if ours.window == 0 && segment.len() == 1 && segment.seq == ours.next_seq && !free {
            ours.probed = true;
            self.take_data(segment, settings);
            return Ok(());
        }
        if !free && after(end, ours.next_window) {
            return self.refuse(Event::EstablishedOutOfWindow);
        }
        self.note_stamp(segment);
        let (ours, theirs) = self.both(segment);
        if !before(end, ours.next_seq) {
            ours.next_seq = end;
        }
        theirs.window = segment.window << theirs.scale;
        theirs.raise_ack(segment.ack);
        theirs.raise_window();
        self.take_data(segment, settings);
        Ok(())
    }

    /// A FIN while its sender had not ended yet.
    pub(super) fn fin(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if !self.ack_is_right(segment) {
            return self.refuse(Event::FinInvalidAck);
        }
        let (ours, _) = self.both(segment);
        let early = before(segment.seq, ours.last_ack);
        if (early && !self.is_free()) || !self.is_in_window(segment) {
            return self.refuse(Event::FinOutOfWindow);
        }
        if segment.has(SYN) {
            return self.refuse(Event::FinSyn);
        }
        self.state = if segment.to_server() { State::CloseWait } else { State::FinWait1 };
        let fin = u32::from(!segment.to_server());
        self.note_stamp(segment);
        let (ours, theirs) = self.both(segment);
        ours.next_seq = segment.end().wrapping_add(fin);
        ours.end_with(segment.end());
        theirs.window = segment.window << theirs.scale;
        theirs.heed(segment);
        self.take_data(segment, settings);
        Ok(())
    }
}
