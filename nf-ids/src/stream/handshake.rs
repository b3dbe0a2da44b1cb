//! How sessions begin: three-way and four-way handshakes.

use super::assembler::Policy;
use super::segment::{ACK, FIN, RST, SYN, Segment, after, before};
use super::session::{Refused, State, Syn, Taken};
use super::{Event, Events, Session, Settings, Side};
use crate::flow::Direction;

/// SYNs that wait for an answer beside the latest, at most; and other answers to it.
const MOST_SYNS: usize = 10;
const MOST_ANSWERS: usize = 5;

impl Session {
    pub(super) fn fresh(state: State) -> Box<Self> {
        Box::new(Self {
            state,
            sides: [Side::default(), Side::default()],
            events: Events::default(),
            midstream: false,
            asynchronous: false,
            four_way: false,
            timestamps: false,
            confirmed: false,
            scales: false,
            fast_open: false,
            ignored_data: false,
            evades: false,
            lossy: false,
            reset: false,
            reset_from: None,
            syns: Vec::new(),
            seen: [false; 2],
            ending: false,
            anew: None,
            added: false,
            mild: false,
            differs: false,
            established_now: false,
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
        if segment.has(FIN) && (!settings.midstream || segment.data.is_empty()) {
            events.set(Event::FinNoSession);
            taken.refused = true;
            return None;
        }
        let session = match segment.flags & (SYN | ACK) {
            _ if segment.has(FIN) => Some(Self::from_midst(segment)),
            both if both == SYN | ACK && (settings.midstream || settings.asynchronous) => {
                taken.turned = true;
                Some(Self::from_answer(segment))
            }
            SYN => Some(Self::from_syn(segment, settings)),
            ACK if settings.midstream => Some(Self::from_midst(segment)),
            _ => None,
        };
        session.map(|mut session| {
            if session.state >= State::Established && !segment.data.is_empty() {
                session.take_data(segment, settings);
            }
            taken.added = session.added;
            events.add(std::mem::take(&mut session.events));
            session
        })
    }

    pub(super) fn from_syn(segment: &Segment<'_>, settings: &Settings) -> Box<Self> {
        let mut session = Self::fresh(State::SynSent);
        let [client, server] = &mut session.sides;
        client.begin(segment.seq);
        client.note_first_stamp(segment);
        server.window = segment.window;
        server.scale = segment.scale.unwrap_or(0);
        session.scales = segment.scale.is_some();
        session.fast_open = segment.fast_open;
        // Data in a SYN counts where fast open is asked for (RFC 7413); else the server waits for it to be sent again.
        if segment.fast_open && !segment.data.is_empty() {
            let mut first = *segment;
            first.seq = segment.seq.wrapping_add(1);
            client.next_seq = first.end();
            session.take_data(&first, settings);
        }
        session
    }

    pub(super) fn in_syn_sent(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if segment.flags & (SYN | ACK) == SYN | ACK {
            return self.answered(segment);
        }
        if !self.echo_is_right(segment) {
            return self.refuse(Event::InvalidTimestamp);
        }
        if segment.has(RST) {
            if !self.reset_is_right(segment, settings) {
                return Err(Refused);
            }
            // The client itself goes on waiting unless its reset is of the SYN.
            let client = &self.sides[0];
            let of_syn = segment.seq == client.isn && segment.ack == client.next_seq && segment.window == 0;
            if !segment.to_server() || of_syn {
                self.close_by_reset(segment);
            }
            return Ok(());
        }
        if segment.has(FIN) {
            return Ok(());
        }
        match segment.flags & (SYN | ACK) {
            SYN => {
                self.syn_again(segment);
                Ok(())
            }
            ACK if settings.asynchronous => self.one_sided(segment, settings),
            _ => Ok(()),
        }
    }

    /// Whether what the server sends instead of an answer echoes the timestamp of the SYN, or none.
    fn echo_is_right(&self, segment: &Segment<'_>) -> bool {
        let client = &self.sides[0];
        match segment.timestamp.filter(|_| !segment.to_server()) {
            Some((_, echo)) if client.has_stamp => {
                client.last_stamp == 0 || echo == 0 || echo == client.last_stamp
            }
            Some((_, echo)) => echo == 0,
            None => true,
        }
    }

    /// The answer of the server, or of the client where both have begun.
    fn answered(&mut self, segment: &Segment<'_>) -> Result<(), Refused> {
        if segment.to_server() {
            let [client, server] = &self.sides;
            if !self.four_way {
                return self.refuse(Event::HandshakeSynAckDirection);
            }
            if segment.ack != server.isn.wrapping_add(1) {
                return self.refuse(Event::FourWaySynAckWrongAck);
            }
            if segment.seq != client.isn {
                return self.refuse(Event::FourWaySynAckWrongSyn);
            }
        } else {
            self.fast_open |= segment.fast_open;
            let client = &mut self.sides[0];
            let whole = self.fast_open && segment.ack == client.next_seq;
            if !whole && segment.ack == client.isn.wrapping_add(1) {
                if self.fast_open {
                    // The server has not taken what came with the SYN: the client sends it again.
                    client.next_seq = client.isn.wrapping_add(1);
                    self.ignored_data = true;
                    self.events.set(Event::HandshakeFastOpenIgnored);
                }
            } else if !whole && !self.choose_syn(segment) {
                return self.refuse(Event::HandshakeSynAckWrongAck);
            }
            self.four_way = false;
        }
        self.syns = Vec::new();
        let answer = Syn::of(segment);
        self.set_answer(segment.direction, &answer, segment.ack);
        Ok(())
    }

    /// The answer that counts: of whom, and what it acknowledges.
    fn set_answer(&mut self, by: Direction, answer: &Syn, ack: u32) {
        let scales = self.scales;
        let [client, server] = &mut self.sides;
        let (ours, theirs) = if by == Direction::ToServer { (client, server) } else { (server, client) };
        let begun = ours.isn == answer.seq && ours.has_begun();
        if !begun {
            ours.begin(answer.seq);
        }
        ours.has_stamp = answer.timestamp.is_some();
        ours.zero_stamp = answer.timestamp == Some(0);
        ours.last_stamp = answer.timestamp.unwrap_or(0);
        ours.last_stamp_s = answer.time_s;
        // Both must have said that they scale (RFC 7323 §2.2).
        theirs.scale = answer.scale.filter(|_| scales).unwrap_or(0);
        theirs.window = answer.window;
        theirs.last_ack = ack;
        theirs.next_window = theirs.last_ack.wrapping_add(theirs.window);
        ours.last_ack = ours.isn.wrapping_add(1);
        ours.next_window = ours.last_ack.wrapping_add(ours.window);
        self.timestamps = self.sides.iter().all(|side| side.has_stamp);
        self.state = State::SynReceived;
    }

    pub(super) fn syn_again(&mut self, segment: &Segment<'_>) {
        let again = Syn::of(segment);
        let [client, server] = &mut self.sides;
        if !segment.to_server() {
            self.four_way = true;
            server.begin(segment.seq);
            server.note_first_stamp(segment);
            client.window = segment.window;
            client.scale = segment.scale.unwrap_or(0);
            self.scales = segment.scale.is_some();
            return;
        }
        // The answer will tell which of them the server has taken; most likely it is the latest.
        let stamp = client.has_stamp.then_some(client.last_stamp);
        let latest = Syn {
            seq: client.isn,
            window: server.window,
            scale: self.scales.then_some(server.scale),
            timestamp: stamp,
            time_s: client.last_stamp_s,
        };
        if latest != again {
            self.keep_syn(latest);
        }
        self.take_syn(&again);
    }

    /// Keeps a SYN that might yet be answered.
    fn keep_syn(&mut self, syn: Syn) {
        let known = |other: &Syn| syn.timestamp.is_some() && other.is_answered_with(&syn);
        if self.syns.iter().any(known) {
            return;
        }
        if self.syns.len() >= MOST_SYNS {
            // The oldest has waited longest in vain.
            self.events.set(Event::HandshakeSynFlood);
            self.syns.remove(0);
        }
        self.syns.push(syn);
    }

    /// A SYN is the beginning of the session from now on.
    fn take_syn(&mut self, syn: &Syn) {
        let [client, server] = &mut self.sides;
        if client.isn != syn.seq {
            client.begin(syn.seq);
        }
        if let Some(stamp) = syn.timestamp {
            client.has_stamp = true;
            client.last_stamp = stamp;
            client.zero_stamp = stamp == 0;
        }
        client.last_stamp_s = syn.time_s;
        server.window = syn.window;
        server.scale = syn.scale.unwrap_or(0);
        self.scales = syn.scale.is_some();
    }

    /// Takes the SYN that an answer is to for the beginning; whether there is one.
    fn choose_syn(&mut self, answer: &Segment<'_>) -> bool {
        let seq = answer.ack.wrapping_sub(1);
        let found = match answer.timestamp {
            Some((_, echo)) => self.syns.iter().find(|syn| syn.seq == seq && syn.timestamp == Some(echo)),
            None => self.syns.iter().find(|syn| syn.seq == seq),
        };
        let Some(syn) = found.copied() else { return false };
        self.take_syn(&syn);
        true
    }

    /// The server's segments are not seen: the client's acknowledgement says that there was an answer.
    fn one_sided(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        if segment.seq != self.sides[0].next_seq {
            return self.refuse(Event::HandshakeAsyncSequence);
        }
        self.asynchronous = true;
        self.syns = Vec::new();
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
        if segment.has(RST) {
            if !self.reset_is_right(segment, settings) {
                return Err(Refused);
            }
            // These systems do not heed a reset after an acknowledgement that they did not heed.
            if self.evades && matches!(settings.policy, Policy::Linux | Policy::OldLinux | Policy::Solaris) {
                return Ok(());
            }
            self.close_by_reset(segment);
            self.note_stamp(segment);
            return Ok(());
        }
        if segment.has(FIN) {
            if !self.timestamp_is_right(segment, settings) {
                return Err(Refused);
            }
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
        if segment.to_server() {
            return self.refuse(Event::HandshakeSynAckToServer);
        }
        if segment.ack != client.last_ack {
            return self.refuse(Event::HandshakeSynAckOtherAck);
        }
        if segment.seq == server.isn {
            return Ok(());
        }
        // A server that lost its memory, or someone who guesses: the handshake's last step will tell.
        let answer = Syn::of(segment);
        if self.syns.contains(&answer) {
            return Ok(());
        }
        if self.syns.len() >= MOST_ANSWERS {
            return self.refuse(Event::HandshakeSynAckFlood);
        }
        self.syns.push(answer);
        Ok(())
    }

    fn third_step(&mut self, segment: &Segment<'_>, settings: &Settings) -> Result<(), Refused> {
        let by_client = segment.to_server();
        let seq = segment.ack.wrapping_sub(1);
        if let Some(answer) = self.syns.iter().rev().find(|answer| answer.seq == seq).copied()
            && by_client
            && segment.seq == self.sides[0].last_ack
        {
            self.set_answer(Direction::ToClient, &answer, segment.seq);
        }
        if !self.timestamp_is_right(segment, settings) {
            return Err(Refused);
        }
        let [client, server] = &self.sides;
        let in_place = segment.seq == server.next_seq && segment.ack == client.last_ack;
        if self.four_way && !by_client {
            if segment.seq != server.next_seq {
                return self.refuse(Event::FourWayWrongSequence);
            }
            if !self.ack_is_right(segment) {
                return self.refuse(Event::FourWayInvalidAck);
            }
            self.complete(segment, settings);
            return Ok(());
        }
        if !by_client {
            let expected = self.midstream || self.fast_open;
            // In line nothing can have been missed: the server must not send before it has the acknowledgement.
            if settings.inline && !expected {
                let data = in_place && !segment.data.is_empty();
                return self.refuse(if data {
                    Event::HandshakeAckDataInject
                } else {
                    Event::HandshakeAckDirection
                });
            }
            let later = !before(segment.seq, server.next_seq) && after(segment.ack, client.last_ack);
            if in_place || later || self.midstream {
                self.complete(segment, settings);
                return Ok(());
            }
            return self.refuse(Event::HandshakeWrongSequenceAck);
        }
        let (right_seq, right_ack) = (segment.seq == client.next_seq, segment.ack == server.next_seq);
        let ahead = after(segment.seq, client.next_seq) && !after(segment.seq, client.next_window);
        if right_ack && (right_seq || ahead) {
            self.complete(segment, settings);
            // What the client sends with it is sent in an established session.
            self.established_now = right_seq && !segment.data.is_empty();
            return Ok(());
        }
        if right_seq {
            self.evades = true;
            return self.refuse(Event::HandshakeWrongAckEvasion);
        }
        self.refuse(Event::HandshakeWrongSequenceAck)
    }

    /// The handshake is complete.
    fn complete(&mut self, segment: &Segment<'_>, settings: &Settings) {
        self.state = State::Established;
        self.syns = Vec::new();
        self.note_stamp(segment);
        let (ours, theirs) = self.both(segment);
        theirs.raise_ack(segment.ack);
        theirs.window = segment.window << theirs.scale;
        theirs.raise_window();
        ours.next_seq = segment.end();
        ours.raise_window();
        self.take_data(segment, settings);
    }

    pub(super) fn close_by_reset(&mut self, segment: &Segment<'_>) {
        // What cannot be verified here, and what answers a SYN, may be another's: then its sender will go on.
        if segment.signed || self.state == State::SynSent {
            self.reset_from = Some((segment.direction, self.state));
        }
        self.state = State::Closed;
        self.reset = true;
        for side in &mut self.sides {
            side.raw_due = true;
        }
    }
}

impl Syn {
    fn of(segment: &Segment<'_>) -> Self {
        let Segment { seq, window, scale, timestamp, .. } = *segment;
        let timestamp = timestamp.map(|(stamp, _)| stamp);
        Self { seq, window, scale, timestamp, time_s: segment.now_ns / 1_000_000_000 }
    }

    /// Whether an answer to the one is an answer to the other.
    fn is_answered_with(&self, other: &Self) -> bool {
        self.seq == other.seq && self.timestamp == other.timestamp
    }
}

impl Side {
    /// Notes the timestamp of the first segment of a side.
    pub(super) fn note_first_stamp(&mut self, segment: &Segment<'_>) {
        self.has_stamp = segment.timestamp.is_some();
        self.last_stamp_s = segment.now_ns / 1_000_000_000;
        if let Some((stamp, _)) = segment.timestamp {
            self.zero_stamp = stamp == 0;
            self.last_stamp = stamp;
        }
    }
}
