//! Connections: which packets belong together, and what state that gives a packet.
//!
//! ```text
//! packet ─▶ key of both directions ─▶ table ─┬ found ─▶ TCP: tcp, window │ others: seen both ways or not
//!                                            └ not ──▶ new, if it can begin one; kept once a rule allows it
//! ICMP error ─▶ the packet that it quotes ─▶ table: related
//! ```
//! | State | When |
//! |---|---|
//! | new | it begins a connection, or comes from the side that began before there was an answer |
//! | established | there were packets both ways |
//! | related | an ICMP error about a connection |
//! | invalid | TCP that fits no connection and begins none, an ICMP answer to no question, an error about nothing |
//! | untracked | neighbour discovery, listeners to groups, and what a router tells its link: they have no connections |
//!
//! What is sent to a group or to all begins a connection as any other packet does, to which no answer ever belongs:
//! answers come from a host's own address. It is new, as for netfilter.
//!
//! *Floods.* The table is bounded and its memory taken at the start. A packet that is denied leaves nothing behind.
//! When there is no room, connections that were never answered go first, then those not yet in both directions, then
//! those that are closing; established ones stay, and if there are only those, a new one is refused.
//!
//! *Time* is kept in tenths of a second from the first packet on, which 32 bits hold for 13 years.

mod census;
mod segment;
mod state;
mod tcp;
mod timeouts;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use onvm_classifier::Header;
use onvm_lib::flow_table::{FlowTable, Guess, Inserted};
use onvm_lib::wire::tcp::PROTOCOL as TCP;
use onvm_lib::wire::{FlowKey, Headers, Net, icmp, icmpv6};
use serde::{Deserialize, Serialize};

use crate::rules::State;
use census::{Census, Tally};
use segment::Segment;
use tcp::{Meaning, Phase, Tcp};

pub(crate) use state::Saved;
pub(crate) use timeouts::Timeouts;

/// Nanoseconds of a tick.
const TICK_NS: u64 = 100_000_000;
/// Places of the table that are looked at from one tick to the next, and after one burst of those between them.
const SWEEP: usize = 16_384;
const PART: usize = 256;

/// New connections that are refused at once after one for which no other would make room: the search for one that does
/// costs as much as a hundred packets, and in a table full of established connections it is in vain.
const REFUSED_AT_ONCE: u32 = 63;

/// What is known of a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// None for what is not TCP.
    tcp: Option<Tcp>,
    /// The tick at which it is over, if nothing comes.
    ends: u32,
    began: u32,
    pub(crate) mark: u32,
    /// Who began it is the second side of the key.
    reversed: bool,
    /// The other side has sent something.
    answered: bool,
    /// Packets both ways for longer than a question and its answer take.
    stream: bool,
}

impl Connection {
    /// Who goes first when there is no room; none for those that stay.
    fn rank(&self, now: u32) -> Option<(u8, u32)> {
        let class = match &self.tcp {
            _ if self.ends <= now => 0,
            _ if !self.answered => 1,
            Some(tcp) if tcp.phase >= Phase::TimeWait => 1,
            Some(tcp) if !tcp.assured => 2,
            Some(tcp) if tcp.phase >= Phase::LastAck => 3,
            Some(_) => return None,
            None if !self.stream => 2,
            None => return None,
        };
        Some((class, self.ends))
    }
}

/// The key of a connection, and which way a packet of it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    flow: FlowKey,
    hash: u32,
    reversed: bool,
}

impl Key {
    fn new(source: IpAddr, destination: IpAddr, ports: (u16, u16), protocol: u8) -> Option<Self> {
        let key = match (source, destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => FlowKey::v4(a, b, ports.0, ports.1, protocol),
            (IpAddr::V6(a), IpAddr::V6(b)) => FlowKey::v6(a, b, ports.0, ports.1, protocol),
            _ => return None,
        };
        let flow = key.symmetric();
        Some(Self { flow, hash: flow.hash32(), reversed: flow != key })
    }

    /// Of a packet with these headers.
    #[inline]
    pub(crate) fn of(header: &Header, headers: &Headers, frame: &[u8]) -> Option<Self> {
        let protocol = header.protocol();
        let ports = if protocol == icmp::PROTOCOL || protocol == icmpv6::PROTOCOL {
            query_ports(headers, frame).unwrap_or((0, 0))
        } else {
            (header.source_port(), header.destination_port())
        };
        Self::new(header.source(), header.destination(), ports, protocol)
    }

    /// Of the packet that an ICMP error quotes.
    fn of_quoted(headers: &Headers, frame: &[u8]) -> Option<Self> {
        let quoted = headers.original(frame)?;
        let addresses: (IpAddr, IpAddr) = match quoted.net() {
            Net::Ipv4 => quoted.ipv4(frame).map(|ip| (ip.src().into(), ip.dst().into()))?,
            _ => quoted.ipv6(frame).map(|ip| (ip.src().into(), ip.dst().into()))?,
        };
        let ports = quoted.ports(frame).or_else(|| query_ports(&quoted, frame)).unwrap_or((0, 0));
        Self::new(addresses.0, addresses.1, ports, quoted.protocol()?)
    }
}

/// Identifier and type of a question as if they were ports; of its answer the other way round, so that both are one
/// connection, and the questions that the other side asks are another.
fn query_ports(headers: &Headers, frame: &[u8]) -> Option<(u16, u16)> {
    let (kind, id) = match headers.net() {
        Net::Ipv4 => headers.icmp(frame).and_then(|m| Some((m.kind(), m.echo()?.0)))?,
        _ => headers.icmpv6(frame).and_then(|m| Some((m.kind(), m.echo()?.0)))?,
    };
    match kind {
        icmp::ECHO_REPLY if headers.net() == Net::Ipv4 => Some((u16::from(icmp::ECHO_REQUEST), id)),
        14 | 16 | 18 if headers.net() == Net::Ipv4 => Some((u16::from(kind) - 1, id)),
        icmpv6::ECHO_REPLY if headers.net() == Net::Ipv6 => Some((u16::from(icmpv6::ECHO_REQUEST), id)),
        _ => Some((id, u16::from(kind))),
    }
}

/// What is to be done when a packet is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ticket {
    Nothing,
    /// Its connection is there.
    Known(Key),
    /// It begins one.
    Begins(Key, Connection),
}

/// What a packet is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looked {
    pub(crate) state: State,
    /// The connection's mark.
    pub(crate) mark: u32,
    pub(crate) ticket: Ticket,
}

impl Looked {
    fn only(state: State) -> Self {
        Self { state, mark: 0, ticket: Ticket::Nothing }
    }
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) begun: u64,
    pub(crate) expired: u64,
    /// Made room for others.
    pub(crate) evicted: u64,
    /// Found no room.
    pub(crate) refused: u64,
    /// Packets that fitted no connection.
    pub(crate) invalid: u64,
    pub(crate) related: u64,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    table: FlowTable<Connection>,
    timeouts: Timeouts,
    pick_up: bool,
    /// Time of tick 0; none before the first packet.
    base_ns: Option<u64>,
    pub(crate) counts: Counts,
    census: Census,
    /// Places that are to be looked at before the next tick.
    to_look_at: usize,
    /// Bursts have come since the last tick.
    bursts: bool,
    /// So many more are refused at once while the table is full.
    refusing: u32,
    /// Where the connections of a burst's packets probably lie.
    guesses: Vec<Guess>,
    hashes: Vec<u32>,
}

impl Connections {
    /// Room for `most` connections. With `pick_up` TCP connections that were there before count as new.
    pub(crate) fn new(most: usize, pick_up: bool, timeouts: Timeouts) -> Self {
        Self {
            table: FlowTable::new(most),
            timeouts,
            pick_up,
            base_ns: None,
            counts: Counts::default(),
            census: Census::default(),
            to_look_at: 0,
            bursts: false,
            refusing: 0,
            guesses: Vec::new(),
            hashes: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.table.capacity()
    }

    #[inline]
    fn tick(&mut self, now_ns: u64) -> u32 {
        // Captures may go back a little; a margin keeps that from becoming tick 0.
        const MARGIN_NS: u64 = 10 * TICK_NS;
        let base = *self.base_ns.get_or_insert_with(|| now_ns.saturating_sub(MARGIN_NS));
        u32::try_from(now_ns.saturating_sub(base) / TICK_NS).unwrap_or(u32::MAX - 1)
    }

    /// Brings the connections of a burst's packets near, all at a time.
    pub(crate) fn fetch(&mut self, keys: &[Option<Key>]) {
        self.hashes.clear();
        self.hashes.extend(keys.iter().map(|key| key.map_or(0, |key| key.hash)));
        self.guesses.clear();
        self.guesses.resize(keys.len(), Guess::NONE);
        self.table.locate(&self.hashes, &mut self.guesses);
        self.table.touch(&self.guesses);
    }

    /// What the packet at this place of the burst is.
    pub(crate) fn look(
        &mut self,
        place: usize,
        key: Option<Key>,
        header: &Header,
        headers: &Headers,
        frame: &[u8],
        now_ns: u64,
    ) -> Looked {
        let now = self.tick(now_ns);
        let Some(key) = key else { return Looked::only(State::Untracked) };
        let looked = match header.protocol() {
            TCP => self.tcp(place, key, headers, frame, now),
            icmp::PROTOCOL if !header.is_v6() => {
                let kind = headers.icmp(frame).map_or(u8::MAX, |message| message.kind());
                match kind {
                    _ if icmp::is_error(kind) => self.error(headers, frame, now),
                    icmp::ECHO_REQUEST | 13 | 15 | 17 => self.plain(place, key, true, now),
                    icmp::ECHO_REPLY | 14 | 16 | 18 => self.plain(place, key, false, now),
                    _ => Looked::only(State::Invalid),
                }
            }
            icmpv6::PROTOCOL if header.is_v6() => {
                let kind = headers.icmpv6(frame).map_or(u8::MAX, |message| message.kind());
                match kind {
                    _ if icmpv6::is_error(kind) => self.error(headers, frame, now),
                    icmpv6::ECHO_REQUEST => self.plain(place, key, true, now),
                    icmpv6::ECHO_REPLY => self.plain(place, key, false, now),
                    // Multicast listeners and neighbours (RFC 2710, 3810, 4861).
                    130..=137 | 143 => Looked::only(State::Untracked),
                    _ => Looked::only(State::Invalid),
                }
            }
            _ => self.plain(place, key, true, now),
        };
        self.counts.invalid += u64::from(looked.state == State::Invalid);
        self.counts.related += u64::from(looked.state == State::Related);
        looked
    }

    /// The connection, if it is not over.
    #[inline]
    fn find(&mut self, place: usize, key: &Key, now: u32) -> Option<&mut Connection> {
        let guess = self.guesses.get(place).copied().unwrap_or(Guess::NONE);
        self.table.find_at(guess, key.hash, &key.flow).filter(|connection| connection.ends > now)
    }

    fn begins(&self, key: Key, tcp: Option<Tcp>, now: u32) -> Looked {
        let mut connection = Connection {
            tcp,
            ends: now,
            began: now,
            mark: 0,
            reversed: key.reversed,
            answered: false,
            stream: false,
        };
        connection.ends = now.saturating_add(self.timeouts.of(&connection, key.flow.protocol()));
        Looked { state: State::New, mark: 0, ticket: Ticket::Begins(key, connection) }
    }

    fn tcp(&mut self, place: usize, key: Key, headers: &Headers, frame: &[u8], now: u32) -> Looked {
        let Some(segment) = Segment::of(headers, frame) else { return Looked::only(State::Invalid) };
        let timeouts = self.timeouts;
        let pick_up = self.pick_up;
        let mut over = false;
        if let Some(connection) = self.find(place, &key, now)
            && let Some(tcp) = &mut connection.tcp
        {
            let reply = key.reversed != connection.reversed;
            let (before, answered) = (connection.answered, connection.answered || reply);
            match tcp.take(&segment, reply, before) {
                Meaning::Invalid => return Looked::only(State::Invalid),
                Meaning::Reopens => {}
                meaning => {
                    connection.answered = answered;
                    let state = if answered { State::Established } else { State::New };
                    let mark = connection.mark;
                    if meaning == Meaning::Valid {
                        // A connection that a reset ended before there was another answer was none.
                        over = segment.kind == segment::Kind::Rst && !before;
                        connection.ends = now.saturating_add(timeouts.of(connection, Some(TCP)));
                    }
                    if over {
                        self.table.remove(key.hash, &key.flow);
                    }
                    return Looked {
                        state,
                        mark,
                        ticket: if over { Ticket::Nothing } else { Ticket::Known(key) },
                    };
                }
            }
        }
        match Tcp::begin(&segment, pick_up) {
            Some(tcp) => self.begins(key, Some(tcp), now),
            None => Looked::only(State::Invalid),
        }
    }

    /// What is not TCP: packets one way or both. `asks`: it may begin a connection.
    fn plain(&mut self, place: usize, key: Key, asks: bool, now: u32) -> Looked {
        /// A question and its answer are over within this time; what goes on is a stream.
        const STREAM_AFTER: u32 = 20;
        let timeouts = self.timeouts;
        if let Some(connection) = self.find(place, &key, now) {
            let reply = key.reversed != connection.reversed;
            if !asks && !reply {
                return Looked::only(State::Invalid);
            }
            connection.answered |= reply;
            connection.stream |= connection.answered && now.saturating_sub(connection.began) > STREAM_AFTER;
            connection.ends = now.saturating_add(timeouts.of(connection, key.flow.protocol()));
            let state = if connection.answered { State::Established } else { State::New };
            return Looked { state, mark: connection.mark, ticket: Ticket::Known(key) };
        }
        if asks { self.begins(key, None, now) } else { Looked::only(State::Invalid) }
    }

    /// An ICMP error: related if it is about a connection.
    fn error(&mut self, headers: &Headers, frame: &[u8], now: u32) -> Looked {
        let quoted = Key::of_quoted(headers, frame);
        let found = quoted.and_then(|key| {
            let connection = self.table.find(key.hash, &key.flow)?;
            (connection.ends > now).then_some(connection.mark)
        });
        match found {
            Some(mark) => Looked { state: State::Related, mark, ticket: Ticket::Nothing },
            None => Looked::only(State::Invalid),
        }
    }

    /// The packet is allowed: what it begins is kept, with this mark; none if rules have set none. False if there is
    /// no room for it.
    pub(crate) fn allowed(&mut self, ticket: Ticket, mark: Option<u32>, now_ns: u64) -> bool {
        match ticket {
            Ticket::Nothing => true,
            Ticket::Known(key) => {
                if let Some(mark) = mark
                    && let Some(connection) = self.table.find(key.hash, &key.flow)
                {
                    connection.mark = mark;
                }
                true
            }
            Ticket::Begins(key, connection) => {
                let now = self.tick(now_ns);
                if self.refusing > 0 && self.table.len() == self.table.capacity() {
                    self.refusing -= 1;
                    self.counts.refused += 1;
                    return false;
                }
                let connection = Connection { mark: mark.unwrap_or(0), ..connection };
                match self.table.insert(key.hash, key.flow, connection, |_, c| c.rank(now)) {
                    Inserted::New => {}
                    Inserted::Replaced(_) => self.counts.expired += 1,
                    Inserted::Evicted(_, out) if out.ends <= now => self.counts.expired += 1,
                    Inserted::Evicted(..) => self.counts.evicted += 1,
                    Inserted::Refused(_) => {
                        self.refusing = REFUSED_AT_ONCE;
                        self.counts.refused += 1;
                        return false;
                    }
                }
                self.counts.begun += 1;
                true
            }
        }
    }

    /// Time passes: looks at a part of the table for what is over.
    pub(crate) fn sweep(&mut self, now_ns: u64) {
        self.look_at(SWEEP, now_ns);
    }

    /// The same where bursts come, which have looked at most of that part by then, so that packets wait for little.
    pub(crate) fn tick_live(&mut self, now_ns: u64) {
        let left = std::mem::replace(&mut self.to_look_at, SWEEP);
        let slots = if std::mem::take(&mut self.bursts) { left.min(PART) } else { SWEEP };
        self.look_at(slots, now_ns);
    }

    /// A burst was decided on: looks at a small part.
    #[inline]
    pub(crate) fn step(&mut self, now_ns: u64) {
        self.bursts = true;
        if self.to_look_at > 0 {
            self.to_look_at = self.to_look_at.saturating_sub(PART);
            self.look_at(PART, now_ns);
        }
    }

    fn look_at(&mut self, slots: usize, now_ns: u64) {
        let now = self.tick(now_ns);
        let all = self.table.slots();
        // A round ends where it began.
        let slots = slots.min(self.census.left(all));
        let census = &mut self.census;
        let over = self.table.sweep(slots, |key, connection| {
            let stays = connection.ends > now;
            if stays {
                census.count(key, connection);
            }
            stays
        });
        self.counts.expired += over as u64;
        census.looked(slots, all);
    }

    /// Connections by what they are, for a report: as the last round of the search found them, or `exact`, for which all are
    /// looked at.
    pub(crate) fn by_state(&self, exact: bool) -> BTreeMap<String, u64> {
        match self.census.last().filter(|_| !exact) {
            Some(tally) => tally.by_name(),
            None => {
                let mut all = Tally::default();
                self.table.iter().for_each(|(key, connection)| all.count(key, connection));
                all.by_name()
            }
        }
    }
}
