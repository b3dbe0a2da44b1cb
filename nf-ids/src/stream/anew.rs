//! In line: what may go on although its receiver refuses it, and sessions that begin anew while the former seems to live.
//!
//! A host that was restarted, or that has given a session up, opens another between the same ports. Its peer answers the SYN
//! by what it still knows (RFC 9293 §3.5.1, RFC 5961 §4): with an acknowledgement that the host answers with a reset, or with a
//! SYN of its own. Both need all of this to recover, so that none of it is dropped; but only the answer to the SYN tells
//! that the former session is over. Until then it counts.

use super::segment::{ACK, FIN, RST, SYN, Segment, after, before};
use super::session::{Session, State};
use super::{Settings, Side};
use crate::decode::Decoded;
use crate::flow::Direction;

/// A session that would begin with the answer to a SYN.
#[derive(Debug)]
pub(super) struct Anew {
    /// Who has sent the SYN, in the session that still counts.
    by: Direction,
    session: Box<Session>,
}

impl Session {
    /// Whether a segment that is refused carries nothing that its receiver might take unseen: no data, or only
    /// such as it has acknowledged. Data in a SYN may be taken whatever its number is (RFC 7413).
    pub(super) fn is_harmless(&self, segment: &Segment<'_>) -> bool {
        let side = &self.sides[segment.direction.index()];
        let known = self.state >= State::SynReceived && side.has_begun();
        segment.data.is_empty() || (known && !segment.has(SYN) && !after(segment.end(), side.last_ack))
    }

    /// In line: data that was sent before, because its acknowledgement was lost. Its receiver takes none of it, but may heed
    /// what comes with it; what differs from what went by is reported.
    pub(super) fn heed_again(&mut self, segment: &Segment<'_>, settings: &Settings) {
        let (_, theirs) = self.both(segment);
        let right = !before(segment.ack, theirs.last_ack) && !after(segment.ack, theirs.next_window);
        if segment.has(ACK) && right {
            theirs.raise_ack(segment.ack);
            let upto = theirs.last_ack.wrapping_add(segment.window << theirs.scale);
            if after(upto, theirs.next_window) {
                theirs.next_window = upto;
            }
        }
        let added = self.added;
        self.take_data(segment, settings);
        self.added = added;
    }

    /// Keeps what a refused SYN would begin; whether it is one.
    pub(super) fn keep_knock(&mut self, segment: &Segment<'_>, settings: &Settings) -> bool {
        if segment.flags & (SYN | ACK | RST | FIN) != SYN || !segment.data.is_empty() {
            return false;
        }
        let by = segment.direction;
        let mut first = *segment;
        first.direction = Direction::ToServer;
        match &mut self.anew {
            Some(anew) if anew.by == by => anew.session.syn_again(&first),
            anew => *anew = Some(Anew { by, session: Self::from_syn(&first, settings) }),
        }
        true
    }

    /// Keeps what a packet would begin, of a session that is dropped: a SYN without data, with another number than that of
    /// this session. Whether it is one.
    pub fn knocks(
        &mut self,
        packet: &Decoded<'_>,
        direction: Direction,
        now_ns: u64,
        settings: &Settings,
    ) -> bool {
        let other = packet.tcp_seq() != Some(self.sides[direction.index()].isn);
        let segment = Segment::of(packet, direction, now_ns).filter(|_| other);
        segment.is_some_and(|segment| self.keep_knock(&segment, settings))
    }

    /// Whether a packet of a session that is dropped may lead to another, for which a SYN has asked: an acknowledgement
    /// or a reset, without data.
    #[must_use]
    pub fn helps_anew(&self, packet: &Decoded<'_>) -> bool {
        let plain = packet.tcp_flags().is_some_and(|flags| {
            let kind = flags & (SYN | ACK | RST | FIN);
            kind == ACK || kind & !ACK == RST
        });
        self.anew.is_some() && plain && packet.payload.is_empty()
    }

    /// Whether a segment is the answer to a SYN that was let by.
    #[must_use]
    pub fn is_answered_anew(&self, packet: &Decoded<'_>, direction: Direction) -> bool {
        let (Some(flags), Some(seq), Some(ack)) = (packet.tcp_flags(), packet.tcp_seq(), packet.tcp_ack())
        else {
            return false;
        };
        let Some(anew) = self.anew.as_ref().filter(|anew| anew.by != direction) else { return false };
        if flags & (SYN | ACK | RST | FIN) != SYN | ACK {
            return false;
        }
        let syn = ack.wrapping_sub(1);
        let isn = |side: &Side| side.isn;
        let former = syn == isn(&self.sides[anew.by.index()]) && seq == isn(&self.sides[direction.index()]);
        let session = &anew.session;
        !former && (syn == isn(&session.sides[0]) || session.syns.iter().any(|other| other.seq == syn))
    }

    /// The session that begins with an answer, when the former has ended.
    pub fn take_anew(&mut self) -> Option<Box<Session>> {
        self.anew.take().map(|anew| anew.session)
    }
}
