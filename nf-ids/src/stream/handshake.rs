//! How sessions begin: three-way and four-way handshakes, and sessions that are picked up in their midst.

use super::segment::{ACK, FIN, RST, SYN, Segment, after};
use super::session::{Refused, State, Syn, Taken};
use super::{Event, Events, Session, Settings, Side};
use crate::flow::Direction;

/// Largest scale of windows (RFC 7323 §2.3); assumed of sessions whose handshake was not seen.
const MOST_SCALE: u8 = 14;
/// SYNs with other sequence numbers that wait for an answer, at most.
const MOST_SYNS: usize = 10;

impl Session {
    fn fresh(state: State) -> Box<Self> {
        Box::new(Self {
            state,
            sides: [Side::default(), Side::default()],
            events: Events::default(),
            midstream: false,
            asynchronous: false,
            four_way: false,
            timestamps: false,
            confirmed: false,
            reset: false,
            reset_from: None,
            syns: Vec::new(),
            ending: false,
            added: false,
        })
    }

    pub(super) fn from_first(
        segment: &Segment<'_>,
        settings: &Settings,
        events: &mut Events,
        taken: &mut Taken,
    ) -> Option<Box<Self>> {
        if segment.has(RST) {
            events.set(Event::RstNoSession);
            taken.refused = true;
            return None;
        }
        if segment.has(FIN) && !settings.midstream && !settings.asynchronous {
            events.set(Event::FinNoSession);
            taken.refused = true;
            return None;
        }
        let session = match segment.flags & (SYN | ACK) {
            SYN => Some(Self::from_syn(segment, settings)),
            ACK if settings.midstream => Some(Self::from_midst(segment)),
            _ if segment.flags & (SYN | ACK) == SYN | ACK
                && (settings.midstream || settings.asynchronous) =>
            {
                taken.turned = true;
                Some(Self::from_answer(segment))
            }
            _ => None,
        };
        session.map(|mut session| {
            if session.state == State::Established && !segment.data.is_empty() {
                session.take_data(segment, settings);
            }
            taken.added = session.added;
            events.add(std::mem::take(&mut session.events));
            session
        })
    }

    fn from_syn(segment: &Segment<'_>, settings: &Settings) -> Box<Self> {
        let mut session = Self::fresh(State::SynSent);
        let [client, server] = &mut session.sides;
        client.begin(segment.seq);
        client.note_stamp(segment);
        server.window = segment.window;
        server.scale = segment.scale.unwrap_or(0);
        // Data in a SYN counts where fast open is asked for (RFC 7413); else the server waits for it to be sent again.
        if segment.fast_open && !segment.data.is_empty() {
            let mut first = *segment;
            first.seq = segment.seq.wrapping_add(1);
            client.next_seq = first.end();
            let mut unheard = Events::default();
            session.added = client.take(&first, settings, &mut unheard);
        }
        session
    }

    /// Picks a session up at the answer to its handshake: the sender is the server.
    fn from_answer(segment: &Segment<'_>) -> Box<Self> {
        let mut session = Self::fresh(State::SynReceived);
        session.midstream = true;
        let [client, server] = &mut session.sides;
        server.begin(segment.seq);
        client.begin(segment.ack.wrapping_sub(1));
        client.window = segment.window;
        client.scale = segment.scale.unwrap_or(0);
        client.last_ack = segment.ack;
        server.last_ack = server.isn.wrapping_add(1);
        server.scale = MOST_SCALE;
        client.next_window = client.last_ack.wrapping_add(client.window);
        server.next_window = server.last_ack.wrapping_add(server.window);
        server.note_stamp(segment);
        session
    }

    /// Picks a session up in its midst: who sends first is taken for the client.
    fn from_midst(segment: &Segment<'_>) -> Box<Self> {
        let mut session = Self::fresh(State::Established);
        session.midstream = true;
        session.confirmed = true;
        let [client, server] = &mut session.sides;
        client.begin(segment.seq.wrapping_sub(1));
        client.next_seq = segment.end();
        client.scale = MOST_SCALE;
        server.scale = MOST_SCALE;
        client.last_ack = segment.seq;
        client.window = segment.window << MOST_SCALE;
        client.next_window = client.last_ack.wrapping_add(client.window);
        server.begin(segment.ack.wrapping_sub(1));
        server.last_ack = segment.ack;
        server.window = segment.window << MOST_SCALE;
        server.next_window = server.last_ack.wrapping_add(server.window);
        client.note_stamp(segment);
        session.timestamps = segment.timestamp.is_some();
        session
    }

    pub(super) fn in_syn_sent(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if segment.flags & (SYN | ACK) == SYN | ACK && !segment.to_server() {
            self.choose_syn(segment.ack, segment.now_ns);
        }
        if !self.echo_is_right(segment) {
            return self.refuse(Event::InvalidTimestamp);
        }
        if segment.has(RST) {
            if !self.reset_is_right(segment) {
                return Err(Refused);
            }
            // The client itself goes on waiting unless its reset is of the SYN.
            let client = &self.sides[0];
            let of_syn = segment.seq == client.isn && segment.ack == client.next_seq && segment.window == 0;
            if !segment.to_server() || of_syn {
                self.close_by_reset(segment.direction);
            }
            return Ok(());
        }
        if segment.has(FIN) {
            return Ok(());
        }
        match segment.flags & (SYN | ACK) {
            both if both == SYN | ACK => self.answered(segment),
            SYN => {
                self.syn_again(segment);
                Ok(())
            }
            ACK if settings.asynchronous => self.one_sided(segment, settings),
            _ => Ok(()),
        }
    }

    /// Whether an answer to a SYN echoes the timestamp of one that was sent, or none.
    fn echo_is_right(&self, segment: &Segment<'_>) -> bool {
        let client = &self.sides[0];
        match segment.timestamp {
            Some((_, echo)) if echo != 0 && client.has_stamp && !segment.to_server() => {
                !after(echo, client.last_stamp) && !after(client.first_stamp, echo)
            }
            _ => true,
        }
    }

    /// The answer of the server, or of the client where both have begun.
    fn answered(&mut self, segment: &Segment<'_>) -> Result<(), Refused> {
        if self.four_way && segment.to_server() {
            let [client, server] = &self.sides;
            if segment.ack != server.isn.wrapping_add(1) {
                return self.refuse(Event::FourWaySynAckWrongAck);
            }
            if segment.seq != client.isn {
                return self.refuse(Event::FourWaySynAckWrongSyn);
            }
        } else if segment.to_server() {
            return self.refuse(Event::HandshakeSynAckDirection);
        } else {
            let client = &self.sides[0];
            let whole = segment.ack == client.isn.wrapping_add(1) || segment.ack == client.next_seq;
            if !whole {
                return self.refuse(Event::HandshakeSynAckWrongAck);
            }
        }
        self.set_answer(segment);
        Ok(())
    }

    fn set_answer(&mut self, segment: &Segment<'_>) {
        let (ours, theirs) = self.both(segment);
        ours.begin(segment.seq);
        ours.note_stamp(segment);
        // Both must have said that they scale (RFC 7323 §2.2).
        match segment.scale {
            Some(scale) => theirs.scale = scale,
            None => {
                theirs.scale = 0;
                ours.scale = 0;
            }
        }
        theirs.window = segment.window;
        theirs.last_ack = segment.ack;
        theirs.next_window = theirs.last_ack.wrapping_add(theirs.window);
        ours.last_ack = ours.isn.wrapping_add(1);
        ours.next_window = ours.last_ack.wrapping_add(ours.window);
        self.timestamps = self.sides.iter().all(|side| side.has_stamp);
        self.state = State::SynReceived;
    }

    fn syn_again(&mut self, segment: &Segment<'_>) {
        let [client, server] = &mut self.sides;
        if !segment.to_server() {
            self.four_way = true;
            server.begin(segment.seq);
            server.note_stamp(segment);
            client.window = segment.window;
            client.scale = segment.scale.unwrap_or(0);
            return;
        }
        if segment.seq == client.isn {
            client.note_stamp(segment);
            return;
        }
        // The answer will tell which of them the server has taken.
        let same = |syn: &Syn| syn.seq == segment.seq && syn.timestamp == segment.timestamp;
        let waits = self.syns.iter().any(same);
        if self.four_way || waits {
            return;
        }
        if self.syns.len() >= MOST_SYNS {
            // The oldest has waited longest in vain.
            self.events.set(Event::HandshakeSynFlood);
            self.syns.remove(0);
        }
        let Segment { seq, window, scale, timestamp, .. } = *segment;
        self.syns.push(Syn { seq, window, scale, timestamp });
    }

    /// Takes the SYN that an answer is to for the beginning.
    fn choose_syn(&mut self, ack: u32, now_ns: u64) {
        let answered = |syn: &&Syn| syn.seq.wrapping_add(1) == ack;
        let Some(syn) = self.syns.iter().rev().find(answered).copied() else { return };
        let first = self.syns.iter().find(answered).copied().unwrap_or(syn);
        let [client, server] = &mut self.sides;
        client.begin(syn.seq);
        client.has_stamp = syn.timestamp.is_some();
        client.last_stamp = syn.timestamp.map_or(0, |(stamp, _)| stamp);
        client.first_stamp = first.timestamp.map_or(client.last_stamp, |(stamp, _)| stamp);
        client.last_stamp_s = now_ns / 1_000_000_000;
        server.window = syn.window;
        server.scale = syn.scale.unwrap_or(0);
        self.syns.clear();
    }

    /// The server's segments are not seen: the client's acknowledgement says that there was an answer.
    fn one_sided(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if segment.seq != self.sides[0].next_seq {
            return self.refuse(Event::HandshakeAsyncSequence);
        }
        self.asynchronous = true;
        let [client, server] = &mut self.sides;
        client.last_ack = segment.seq;
        client.next_seq = segment.end();
        client.window = u32::from(u16::MAX);
        client.next_window = client.last_ack.wrapping_add(client.window);
        server.begin(segment.ack.wrapping_sub(1));
        server.last_ack = segment.ack;
        server.next_window = server.last_ack.wrapping_add(server.window);
        self.state = State::Established;
        self.take_data(segment, settings);
        Ok(())
    }

    pub(super) fn in_syn_received(
        &mut self,
        segment: &Segment<'_>,
        settings: &Settings,
    ) -> Result<(), Refused> {
        if !self.timestamp_is_right(segment) {
            return Err(Refused);
        }
        if segment.has(RST) {
            if !self.reset_is_right(segment) {
                return Err(Refused);
            }
            self.close_by_reset(segment.direction);
            return Ok(());
        }
        if segment.has(FIN) {
            return self.fin(segment, settings);
        }
        match segment.flags & (SYN | ACK) {
            both if both == SYN | ACK => self.answered_again(segment),
            SYN if !segment.to_server() => self.refuse(Event::HandshakeSynToClient),
            SYN if segment.seq != self.sides[0].isn => self.refuse(Event::HandshakeSynOtherSequence),
            ACK => self.third_step(segment, settings),
            _ => Ok(()),
        }
    }

    fn answered_again(&mut self, segment: &Segment<'_>) -> Result<(), Refused> {
        let [client, server] = &self.sides;
        let (other_ack, other_seq) = (segment.ack != client.last_ack, segment.seq != server.isn);
        if segment.to_server() {
            if self.four_way {
                return Ok(());
            }
            return self.refuse(Event::HandshakeSynAckToServer);
        }
        if other_ack {
            return self.refuse(Event::HandshakeSynAckOtherAck);
        }
        if other_seq {
            // A server that lost its memory, or someone who guesses: the handshake's last step will tell. Until
            // then the later answer counts.
            self.events.set(Event::HandshakeSynAckOtherSequence);
            self.set_answer(segment);
        }
        Ok(())
    }

    fn third_step(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let by_client = segment.to_server();
        if self.four_way && !by_client {
            if segment.seq != self.sides[1].next_seq {
                return self.refuse(Event::FourWayWrongSequence);
            }
            if !self.ack_is_right(segment) {
                return self.refuse(Event::FourWayInvalidAck);
            }
            self.complete(segment, settings);
            return Ok(());
        }
        if !by_client {
            // Data of the server shows that it has the acknowledgement that was not seen here.
            let [client, server] = &self.sides;
            let in_place = segment.seq == server.next_seq && segment.ack == client.last_ack;
            if (in_place && !segment.data.is_empty()) || self.midstream {
                self.complete(segment, settings);
                return Ok(());
            }
            return self.refuse(Event::HandshakeAckDirection);
        }
        let [client, server] = &self.sides;
        let (right_seq, right_ack) = (segment.seq == client.next_seq, segment.ack == server.next_seq);
        let ahead = after(segment.seq, client.next_seq) && !after(segment.seq, client.next_window);
        if right_ack && (right_seq || ahead) {
            self.complete(segment, settings);
            return Ok(());
        }
        if right_seq {
            // The window of the server may have moved on, if its data was lost here.
            if after(segment.ack, server.next_seq) && !after(segment.ack, server.next_window) {
                self.complete(segment, settings);
                return Ok(());
            }
            return self.refuse(Event::HandshakeWrongAckEvasion);
        }
        self.refuse(Event::HandshakeWrongSequenceAck)
    }

    /// The handshake is complete.
    fn complete(&mut self, segment: &Segment<'_>, settings: &Settings) {
        self.state = State::Established;
        let (ours, theirs) = self.both(segment);
        theirs.raise_ack(segment.ack);
        if after(segment.ack, theirs.next_seq) {
            theirs.next_seq = segment.ack;
        }
        theirs.window = segment.window << theirs.scale;
        theirs.raise_window();
        ours.next_seq = segment.end();
        ours.raise_window();
        self.confirmed = segment.to_server();
        self.take_data(segment, settings);
    }

    pub(super) fn close_by_reset(&mut self, by: Direction) {
        self.reset_from = Some((by, self.state));
        self.state = State::Closed;
        self.reset = true;
        for side in &mut self.sides {
            side.raw_due = true;
        }
    }
}

impl Side {
    /// Notes the timestamp of a segment of the handshake.
    pub(super) fn note_stamp(&mut self, segment: &Segment<'_>) {
        self.has_stamp = segment.timestamp.is_some();
        if let Some((stamp, _)) = segment.timestamp {
            if self.last_stamp_s == 0 {
                self.first_stamp = stamp;
            }
            self.zero_stamp = stamp == 0;
            self.last_stamp = stamp;
            self.last_stamp_s = segment.now_ns / 1_000_000_000;
        }
    }
}
