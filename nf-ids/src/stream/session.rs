//! A TCP session: both sides, its state, and what a segment does to it.

use super::anew::Anew;
use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::{Event, Events, Settings, Side};
use crate::decode::Decoded;
use crate::flow::{self, Direction};

/// Where a session is in its life (RFC 9293 §3.3.2), as someone between the two sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "named as in the RFC; the picture is at the top of the room")]
pub enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    TimeWait,
    LastAck,
    CloseWait,
    Closing,
    Closed,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Its receiver would not take it: an IPS drops it.
    pub refused: bool,
    /// What it carries is not even to be looked at in line: it belongs to nothing.
    pub hidden: bool,
    /// It is refused, and goes on in line all the same: it carries nothing that its receiver might take unseen, and its
    /// sender needs the answer.
    pub let_by: bool,
    /// It is a SYN that was let by: its answer would begin a session anew.
    pub knocks: bool,
    /// With it the handshake is complete, and it carries data of the session.
    pub established: bool,
    /// Its data is in the stream.
    pub added: bool,
    /// The session is picked up in its midst, at the answer to a handshake: the sender is the server.
    pub turned: bool,
}

/// That a segment is not one that its receiver would take; the event tells why.
pub(super) struct Refused;

/// A session.
#[derive(Debug)]
pub struct Session {
    pub(super) state: State,
    /// To the server, to the client: by who sends the data.
    pub(super) sides: [Side; 2],
    pub(super) events: Events,
    pub(super) midstream: bool,
    pub(super) asynchronous: bool,
    /// Both have sent a SYN of their own.
    pub(super) four_way: bool,
    pub(super) timestamps: bool,
    /// The server has shown that it has the last step of the handshake.
    pub(super) confirmed: bool,
    /// The SYN that counts can scale windows.
    pub(super) scales: bool,
    pub(super) fast_open: bool,
    /// Data in the SYN was not taken.
    pub(super) ignored_data: bool,
    /// The handshake's last step had a wrong acknowledgement.
    pub(super) evades: bool,
    /// Something of it was not seen: a reset cannot be judged any more.
    pub(super) lossy: bool,
    pub(super) reset: bool,
    /// Who has reset it, and in which state, where that may be another's doing.
    pub(super) reset_from: Option<(Direction, State)>,
    /// Earlier SYNs of the client that were not answered; in [`State::SynReceived`] other answers of the server.
    pub(super) syns: Vec<Syn>,
    /// Which sides have sent anything.
    pub(super) seen: [bool; 2],
    /// The flow ends.
    pub(super) ending: bool,
    /// In line: what a SYN that was let by would begin.
    pub(super) anew: Option<Anew>,
    // Of the segment that is looked at:
    pub(super) added: bool,
    pub(super) mild: bool,
    pub(super) differs: bool,
    pub(super) established_now: bool,
}

/// A SYN or its answer that waits beside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Syn {
    pub(super) seq: u32,
    pub(super) window: u32,
    pub(super) scale: Option<u8>,
    pub(super) timestamp: Option<u32>,
    pub(super) time_s: u64,
}

impl Session {
    /// Begins a session with a segment, if one can begin with it.
    ///
    /// The flow's direction is that of the segment; [`Taken::turned`] says that it must be turned round.
    pub fn begin(
        packet: &Decoded<'_>,
        now_ns: u64,
        settings: &Settings,
        events: &mut Events,
    ) -> (Option<Box<Session>>, Taken) {
        let Some(segment) = Segment::of(packet, Direction::ToServer, now_ns) else {
            return (None, Taken::default());
        };
        Self::check_flags(&segment, events);
        let mut taken = Taken::default();
        let session = Self::from_first(&segment, settings, events, &mut taken);
        (session, taken)
    }

    fn check_flags(segment: &Segment<'_>, events: &mut Events) {
        if segment.ack != 0 && !segment.has(ACK) && !segment.pseudo {
            events.set(Event::BrokenAck);
        }
    }

    /// A segment of a session that began.
    pub fn segment(
        &mut self,
        packet: &Decoded<'_>,
        direction: Direction,
        now_ns: u64,
        settings: &Settings,
        events: &mut Events,
    ) -> Taken {
        let Some(segment) = Segment::of(packet, direction, now_ns) else { return Taken::default() };
        Self::check_flags(&segment, events);
        (self.added, self.mild, self.differs, self.established_now) = (false, false, false, false);
        self.seen[direction.index()] = true;
        // Both sides are seen after all.
        self.asynchronous &= self.seen.iter().any(|seen| !seen);
        let hidden = self.look_at(&segment, settings).is_err();
        events.add(std::mem::take(&mut self.events));
        // In line the receiver has what came first: what says something else is not to reach it.
        let other = self.differs && settings.inline;
        let refused = hidden || self.mild || other;
        let let_by = settings.inline && refused && !other && self.is_harmless(&segment);
        let knocks = let_by && self.keep_knock(&segment, settings);
        Taken {
            refused,
            hidden,
            let_by,
            knocks,
            established: self.established_now,
            added: self.added,
            turned: false,
        }
    }

    /// Gives a segment to the state, unless it says nothing new.
    fn look_at(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        // Where it was not acknowledged, the receiver may take even the byte of a probe.
        let open = settings.inline && !self.is_harmless(segment);
        let no_news =
            self.is_keep_alive(segment) || self.is_probe_answer(segment) || self.is_no_news(segment);
        let no_news = no_news && !open;
        let spurious = !no_news && self.is_spurious(segment, settings);
        if spurious && settings.inline {
            self.heed_again(segment, settings);
        }
        let quiet = no_news || spurious;
        let outcome = if quiet { Ok(()) } else { self.dispatch(segment, settings) };
        // The probe is over when the other side has said anything.
        self.sides[segment.direction.other().index()].probed = false;
        outcome
    }

    pub(super) fn dispatch(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        match self.state {
            State::SynSent => self.in_syn_sent(segment, settings),
            State::SynReceived => self.in_syn_received(segment, settings),
            State::Established => self.in_established(segment, settings),
            State::Closed => self.in_closed(segment, settings),
            _ => self.in_closing(segment, settings),
        }
    }

    pub(super) fn refuse<T>(&mut self, event: Event) -> Result<T, Refused> {
        self.events.set(event);
        Err(Refused)
    }

    /// Both sides as the segment sees them: who sends it, and who receives it.
    pub(super) fn both(&mut self, segment: &Segment<'_>) -> (&mut Side, &mut Side) {
        let [client, server] = &mut self.sides;
        if segment.to_server() { (client, server) } else { (server, client) }
    }

    /// Takes in the data of a segment.
    pub(super) fn take_data(&mut self, segment: &Segment<'_>, settings: &Settings) {
        let side = &mut self.sides[segment.direction.index()];
        let differs = Event::OverlapDifferentData;
        let before = self.events.has(differs);
        if side.take(segment, settings, &mut self.events) {
            self.added = true;
        }
        self.differs |= !before && self.events.has(differs);
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// It was reset.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.reset
    }

    /// What it means for the flow.
    #[must_use]
    pub fn flow_state(&self) -> flow::State {
        match self.state {
            State::SynSent | State::SynReceived => flow::State::New,
            State::LastAck | State::TimeWait | State::Closed => flow::State::Closed,
            _ => flow::State::Established,
        }
    }

    /// Whether rules may take it for established: the handshake is complete.
    #[must_use]
    pub fn established(&self) -> bool {
        self.state >= State::Established
    }

    /// Sequence numbers that the sides have used.
    #[must_use]
    pub fn sizes(&self) -> [u64; 2] {
        [self.sides[0].size(), self.sides[1].size()]
    }

    /// Memory of both sides' data, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.sides[0].held() + self.sides[1].held()
    }

    /// Whether a SYN begins a new session in the flow of this one.
    #[must_use]
    pub fn begins_anew(&self, packet: &Decoded<'_>, direction: Direction) -> bool {
        let Some(flags) = packet.tcp_flags() else { return false };
        if flags & (SYN | ACK | RST | FIN) != SYN {
            return false;
        }
        if direction == Direction::ToServer && self.ignored_data {
            return true;
        }
        if direction == Direction::ToServer && packet.tcp_seq() == Some(self.sides[0].isn) {
            return false;
        }
        self.state >= State::TimeWait
    }

    /// Whether its beginning was not seen.
    #[must_use]
    pub fn is_midstream(&self) -> bool {
        self.midstream
    }

    /// Makes the server the client and the other way round.
    pub fn turn_round(&mut self) {
        self.sides.swap(0, 1);
        self.seen.swap(0, 1);
    }
}
