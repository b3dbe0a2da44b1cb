//! A packet in its flow: session, application layer, detection; and how flows end.

use super::transfers::Transfers;
use super::{Detection, Engine, Inspection, Judgement, Kept, Settings, Verdict};
use crate::app;
use crate::decode::{Decoded, Transport};
use crate::flow::{Direction, End, Flow, Place, Presence, State};
use crate::stream::{self, Session};

const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];
/// Rounds of reading that the end of a flow takes at most: one for each gap.
const MOST_ROUNDS: usize = 64;
const TCP: u8 = 6;

impl<D: Detection> Engine<D> {
    pub(super) fn in_flow(&mut self, mut packet: Decoded<'_>, place: Place, now_ns: u64) -> Verdict {
        let right = !matches!(packet.transport, Transport::Tcp(_)) || self.checksum_is_right(&packet);
        let Self { settings, flows, detection, counts, stream_memory, transfers, .. } = self;
        let flow = flows.flow(place.slot);
        let mut direction = place.direction;
        flow.packets[direction.index()] += 1;
        flow.bytes[direction.index()] += packet.frame.len() as u64;
        if flow.kept.fate >= Verdict::Drop {
            return doomed(flow, &packet, direction, now_ns, right, settings);
        }
        // Rules see the handshake complete from the packet after it on.
        let mut established = flow.state != State::New;
        let mut events = stream::Events::default();
        let mut taken = stream::Taken::default();
        let before = held(flow);
        match packet.transport {
            Transport::Tcp(_) if !right => {
                packet.bad_checksum = true;
                counts.bad_checksums += 1;
            }
            Transport::Tcp(_) if !flow.kept.blind => {
                let read = Reading { settings, transfers, now_ns };
                taken = follow(flow, &packet, &mut direction, read, &mut events);
            }
            Transport::Udp(_) if !packet.payload.is_empty() && !flow.kept.blind => {
                read_datagram(flow, &packet, &mut direction, settings);
            }
            _ => {}
        }
        // In line, what goes no further, or to nobody, does not keep a flow alive.
        if !(settings.stream.inline && taken.refused) || taken.knocks {
            flow.last_ns = flow.last_ns.max(now_ns);
        }
        if flow.protocol != TCP {
            if flow.packets.iter().all(|count| *count > 0) {
                flow.state = flow.state.max(State::Established);
            }
            established = flow.state != State::New;
        }
        // In line, what the receiver would not take goes no further; without a session nobody knows.
        let refused = taken.refused && flow.session.is_some();
        counts.refused += u64::from(taken.refused);
        if refused && taken.hidden && settings.stream.inline {
            packet.payload = &[];
        }
        established |= taken.established;
        if let Some(session) = flow.session.as_mut().filter(|_| !detection.wants_raw()) {
            session.end_raw();
        }
        let presence = if taken.added { Presence::Stream } else { Presence::Packet };
        let refused = refused && settings.stream.inline && !taken.let_by;
        let place = At { direction, presence, established, refused, now_ns };
        let mut verdict = show(detection, &packet, flow, place, &events, settings);
        if refused {
            verdict = verdict.max(Verdict::Drop);
        }
        if let Some(session) = &mut flow.session {
            session.tidy(&settings.stream);
        }
        let after = held(flow);
        *stream_memory = (*stream_memory + after).saturating_sub(before);
        if *stream_memory > settings.bounds.stream_memory && (flow.session.is_some() || after > 0) {
            *stream_memory = stream_memory.saturating_sub(after);
            counts.blinded += 1;
            give_up(flow);
        }
        verdict
    }

    /// A flow has ended: what is left of it is read and inspected.
    pub(super) fn end_flow(&mut self, mut flow: Box<Flow<Kept<D::FlowState>>>) {
        let now_ns = self.now_ns;
        let Self { settings, detection, counts, stream_memory, transfers, .. } = self;
        let waiting = held(&flow);
        let begun = flow.session.as_ref().is_some_and(|session| session.established());
        if let Some(session) = &mut flow.session {
            session.end();
        }
        if flow.protocol == TCP && begun {
            let mut round = 0;
            loop {
                let mut events = stream::Events::default();
                let mut read = Reading { settings, transfers, now_ns };
                read_app(&mut flow, &mut read, &BOTH, &mut events);
                if round == 0 {
                    end_app(&mut flow, BOTH);
                }
                for direction in BOTH {
                    counts.pseudo += 1;
                    let packet = pseudo(&flow, direction);
                    let presence = Presence::Stream;
                    let place = At { direction, presence, established: true, refused: false, now_ns };
                    show(detection, &packet, &mut flow, place, &events, settings);
                    events = stream::Events::default();
                }
                round += 1;
                let Some(session) = &mut flow.session else { break };
                session.tidy(&settings.stream);
                let unread = BOTH.iter().any(|direction| session.unread(*direction, &settings.stream));
                if !unread || round >= MOST_ROUNDS {
                    break;
                }
            }
        }
        *stream_memory = stream_memory.saturating_sub(waiting);
        detection.flow_ended(&flow);
    }
}

/// What becomes of a packet of a flow that is to be dropped. A reject is answered once; what follows is dropped, and keeps
/// the flow no longer. What belongs to another session between the same ports goes on: its SYN, and then, without data,
/// what tells the other side that this one is over.
fn doomed<F>(
    flow: &mut Flow<Kept<F>>,
    packet: &Decoded<'_>,
    direction: Direction,
    now_ns: u64,
    right: bool,
    settings: &Settings,
) -> Verdict {
    let Some(session) = flow.session.as_mut().filter(|_| right && packet.protocol == Some(TCP)) else {
        return Verdict::Drop;
    };
    if session.knocks(packet, direction, now_ns, &settings.stream) {
        flow.last_ns = flow.last_ns.max(now_ns);
        return Verdict::Pass;
    }
    if session.helps_anew(packet) { Verdict::Pass } else { Verdict::Drop }
}

/// Bytes of the flow's streams that wait, and of its transactions. What each flow has at least is bounded by the number of
/// flows, and does not count.
fn held<F>(flow: &Flow<Kept<F>>) -> usize {
    let session = flow.session.as_ref().map_or(0, |session| session.held());
    let app = flow.kept.app.as_ref().map_or(0, |app| app.memory());
    session + app
}

/// Follows the flow no further, and forgets what is held for it.
fn give_up<F>(flow: &mut Flow<Kept<F>>) {
    flow.kept.blind = true;
    flow.session = None;
    if let Some(app) = &mut flow.kept.app {
        app.give_up();
    }
}

/// What reading a session needs beside the flow.
struct Reading<'a> {
    settings: &'a Settings,
    transfers: &'a mut Transfers,
    now_ns: u64,
}

/// Gives a segment to its session, and what can be read then to the application layer.
fn follow<F>(
    flow: &mut Flow<Kept<F>>,
    packet: &Decoded<'_>,
    direction: &mut Direction,
    mut read: Reading<'_>,
    events: &mut stream::Events,
) -> stream::Taken {
    let taken = take(flow, packet, direction, read.now_ns, read.settings, events);
    if let Some(session) = &flow.session {
        flow.state = flow.state.max(session.flow_state());
    }
    // Looking on, a packet lets be read what it acknowledges.
    let readable: &[Direction] = if read.settings.stream.inline { &BOTH } else { &[direction.other()] };
    if read_app(flow, &mut read, readable, events) {
        *direction = direction.other();
    }
    taken
}

/// Gives a datagram to the application layer. The direction is changed if what came first in the flow was an answer.
fn read_datagram<F>(
    flow: &mut Flow<Kept<F>>,
    packet: &Decoded<'_>,
    direction: &mut Direction,
    settings: &Settings,
) {
    let app = app_of(flow, settings, true);
    app.data(*direction, packet.payload, 0, false);
    if app.is_reversed() && !std::mem::replace(&mut flow.kept.turned, true) {
        flow.turn_round();
        *direction = direction.other();
    }
}

/// Gives a segment to its session, or begins one. The direction is changed if the session was picked up at an answer.
fn take<F>(
    flow: &mut Flow<Kept<F>>,
    packet: &Decoded<'_>,
    direction: &mut Direction,
    now_ns: u64,
    settings: &Settings,
    events: &mut stream::Events,
) -> stream::Taken {
    if let Some(session) = &mut flow.session {
        return session.segment(packet, *direction, now_ns, &settings.stream, events);
    }
    let (session, taken) = Session::begin(packet, now_ns, &settings.stream, events);
    if session.is_some() && taken.turned != (*direction == Direction::ToClient) {
        flow.turn_round();
        *direction = direction.other();
    }
    flow.session = session;
    taken
}

/// The application layer of a flow; made when it is first needed.
fn app_of<'f, F>(flow: &'f mut Flow<Kept<F>>, settings: &Settings, udp: bool) -> &'f mut app::State {
    let hints = app::Hints {
        udp,
        client_port: flow.client.port,
        server_port: flow.server.port,
        midstream: flow.session.as_ref().is_some_and(|session| session.is_midstream()),
    };
    flow.kept.app.get_or_insert_with(|| Box::new(app::State::new(hints, &settings.app)))
}

/// Gives the application layer what it has not seen; whether client and server were exchanged for what it saw.
fn read_app<F>(
    flow: &mut Flow<Kept<F>>,
    read: &mut Reading<'_>,
    directions: &[Direction],
    events: &mut stream::Events,
) -> bool {
    let settings = read.settings;
    let Some(mut session) = flow.session.take() else { return false };
    let mut turned = false;
    if session.established() {
        let hints = app::Hints {
            udp: false,
            client_port: flow.client.port,
            server_port: flow.server.port,
            midstream: session.is_midstream(),
        };
        let directions = if session.state() == stream::State::Closed { &BOTH } else { directions };
        for direction in directions.iter().copied() {
            while let Some(chunk) = session.app_chunk(direction, &settings.stream, events) {
                let app = match &mut flow.kept.app {
                    Some(app) => app,
                    app => app.insert(begin_app([flow.client, flow.server], hints, read)),
                };
                let gap = usize::try_from(chunk.gap).unwrap_or(usize::MAX);
                let before = latest_complete(app, direction);
                app.data(direction, chunk.bytes, gap, false);
                while let Some(transfer) = app.announced() {
                    let (client, server) = (flow.client.address, flow.server.address);
                    read.transfers.announce(client, server, transfer, read.now_ns);
                }
                // A message is complete, the last or, where the other side is ahead, an earlier one; or the protocol is
                // one of which only the name is known.
                let after = latest_complete(app, direction);
                let due = match app.transactions().last() {
                    Some(id) => after == Some(id) || after > before,
                    None => app.protocol().is_known(),
                };
                if due {
                    session.raw_is_due(direction);
                }
                if app.is_reversed() && !flow.kept.turned {
                    flow.kept.turned = true;
                    turned = true;
                    break;
                }
            }
            if turned {
                break;
            }
        }
    }
    let ended = BOTH.map(|direction| session.is_read_to_its_end(direction, &settings.stream));
    if turned {
        session.turn_round();
        flow.session = Some(session);
        flow.turn_round();
        read_app(flow, read, &BOTH, events);
        return true;
    }
    for direction in BOTH {
        if ended[direction.index()] && end_app(flow, [direction]) {
            // Its last message is complete with it.
            session.raw_is_due(direction);
        }
    }
    flow.session = Some(session);
    false
}

/// The application layer of a session whose first data have come.
fn begin_app([client, server]: [End; 2], hints: app::Hints, read: &mut Reading<'_>) -> Box<app::State> {
    let announced = read.transfers.take(client.address, server.address, server.port, read.now_ns);
    let limits = &read.settings.app;
    Box::new(match announced {
        Some(transfer) => app::State::of_transfer(hints, limits, transfer),
        None => app::State::new(hints, limits),
    })
}

/// The latest message of a direction that is complete.
fn latest_complete(app: &app::State, direction: Direction) -> Option<u64> {
    let complete = |id: &u64| app.progress(*id, direction) == app::Progress::Complete;
    app.transactions().filter(complete).last()
}

/// Tells the application layer that nothing follows; whether it did not know.
fn end_app<F, const N: usize>(flow: &mut Flow<Kept<F>>, directions: [Direction; N]) -> bool {
    let mut news = false;
    for direction in directions {
        if let Some(app) = &mut flow.kept.app
            && !std::mem::replace(&mut flow.kept.ended[direction.index()], true)
        {
            app.data(direction, &[], 0, true);
            news = true;
        }
    }
    news
}

/// A packet's place in its flow.
#[derive(Clone, Copy)]
struct At {
    direction: Direction,
    presence: Presence,
    established: bool,
    /// It goes no further, as its receiver would not take it.
    refused: bool,
    now_ns: u64,
}

/// Shows a packet to detection.
fn show<D: Detection>(
    detection: &mut D,
    packet: &Decoded<'_>,
    flow: &mut Flow<Kept<D::FlowState>>,
    at: At,
    stream_events: &stream::Events,
    settings: &Settings,
) -> Verdict {
    let At { direction, presence, established, refused, now_ns } = at;
    let mut view = flow.view(direction, now_ns);
    view.presence = presence;
    view.established = established;
    view.last = packet.pseudo;
    let Kept { app, detection: state, passed, .. } = &mut flow.kept;
    let passed = *passed;
    let window = flow
        .session
        .as_ref()
        .filter(|session| session.established())
        // In line it is around what this packet has brought.
        .filter(|_| !settings.stream.inline || presence == Presence::Stream)
        .and_then(|session| session.window(direction, &settings.stream, packet.pseudo));
    let had_window = window.is_some();
    let seen = Inspection { packet, stream_events, flow: Some(&view), window, app: app.as_deref(), now_ns };
    let judgement = if passed { Judgement::default() } else { detection.inspect(&seen, Some(state)) };
    if refused && judgement.verdict < Verdict::Drop {
        detection.refused(&seen);
    }
    let below =
        complete_below(flow.kept.app.as_deref(), flow.kept.inspected[direction.index()], packet.pseudo);
    flow.kept.inspected[direction.index()] = below;
    // A datagram's transaction is its own; TCP's are inspected both ways.
    let below = match packet.protocol {
        Some(TCP) => below.min(flow.kept.inspected[direction.other().index()]),
        _ => below,
    };
    if let Some(app) = &mut flow.kept.app
        && app.transactions().next().is_some_and(|first| first < below)
    {
        let seen =
            Inspection { packet, stream_events, flow: Some(&view), window: None, app: Some(&**app), now_ns };
        for id in app.transactions().take_while(|id| *id < below) {
            detection.transaction_ended(&seen, id);
        }
        app.release(below);
    }
    if had_window && let Some(session) = &mut flow.session {
        session.raw_seen(direction, &settings.stream);
    }
    flow.kept.alerted |= judgement.alerted;
    if judgement.for_flow {
        flow.kept.passed |= judgement.passed;
        if settings.stream.inline {
            flow.kept.fate = flow.kept.fate.max(judgement.verdict);
        }
    }
    judgement.verdict
}

/// Below which id all transactions are complete; with the end of the flow, all are.
fn complete_below(app: Option<&app::State>, from: u64, last: bool) -> u64 {
    let Some(app) = app else { return from };
    let done = |id: &u64| last || *id < from || app.is_complete(*id);
    app.transactions().take_while(done).last().map_or(from, |id| from.max(id + 1))
}

/// The packet that stands for the end of a flow in a direction.
fn pseudo<F>(flow: &Flow<Kept<F>>, direction: Direction) -> Decoded<'static> {
    let (source, destination) = match direction {
        Direction::ToServer => (flow.client, flow.server),
        Direction::ToClient => (flow.server, flow.client),
    };
    let mut packet = Decoded::new(&[], 0);
    packet.source = source.address;
    packet.destination = destination.address;
    packet.source_port = source.port;
    packet.destination_port = destination.port;
    packet.protocol = Some(flow.protocol);
    packet.pseudo = true;
    for id in &flow.vlans[..usize::from(flow.vlan_count)] {
        packet.push_vlan(*id);
    }
    packet
}
