//! Application protocols: recognising them, and reading them into transactions with buffers.
//!
//! # Two-sided API
//! The engine gives a [`State`] the bytes of each direction in order ([`State::data`]) and says when some are lost or
//! a direction ends. Detection asks for what is known: [`State::protocol`], the live transactions
//! ([`State::transactions`]), how far each direction of one has come ([`State::progress`]), its buffers, numbers and
//! events. When detection and output are done with a transaction, [`State::release`] forgets it.
//!
//! # States
//! `Unknown` (first bytes of both directions are kept, at most 4 KiB each) → a protocol, or `Failed`. A protocol can
//! change later: `STARTTLS`, `CONNECT`, `Upgrade`. A parser that can make nothing of its input stops; its transactions
//! stay to be looked at. Nothing ever goes back.
//!
//! # Bounds
//! Every parser bounds lines, headers, bodies and tables; a flow has at most [`MOST_TRANSACTIONS`] live transactions,
//! then the oldest is forgotten. What the flows hold together ([`State::memory`]) is bounded by the engine, which makes
//! one give up ([`State::give_up`]) when it is too much. How bytes are cut into segments never changes what is read.

pub mod buffer;
mod dcerpc;
mod dhcp;
mod dns;

mod asn1;
pub mod event;
mod ftp;
mod http;
mod krb5;
mod ldap;
mod mqtt;
pub mod number;
mod parser;
pub mod probe;
pub mod protocol;
mod quic;
mod rfb;
mod sip;
mod smb;
mod smtp;
mod snmp;
mod ssh;
mod store;
mod text;
mod tls;
pub mod transfer;
mod websocket;

#[cfg(test)]
mod captures;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;

use crate::flow::Direction;
pub use buffer::{Buffer, Progress};
pub use event::Event;
pub(crate) use ftp::named_host;
pub use number::Number;
pub(crate) use parser::{Parser, Step};
pub use probe::Hints;
pub use protocol::Protocol;
use serde_json::{Map, Value};
use store::Stored;
pub use transfer::Transfer;

/// Live transactions of a flow; with one more, the oldest is forgotten.
pub const MOST_TRANSACTIONS: u64 = 512;

/// Live transactions that are kept whatever they hold.
const FEW_TRANSACTIONS: u64 = 8;
/// Bytes that more transactions than that may hold.
const MOST_BYTES: usize = 4 << 20;

/// Changes of protocol that a flow may make; with one more it is not read any further.
const MOST_CHANGES: u8 = 8;

/// Bounds that a user can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body that are kept.
    pub request_body: usize,
    /// Bytes of a response's body that are kept, decoded.
    pub response_body: usize,
    /// Bytes of a request's body that must be there before it is looked at unfinished.
    pub request_least: usize,
    /// Bytes of a response's body that must be there before it is looked at unfinished.
    pub response_least: usize,
    /// Bodies of HTTP/1 in LZMA are decoded.
    pub lzma: bool,
}

impl Default for Limits {
    /// Suricata's defaults: bodies of 100 KiB, looked at unfinished from 32 KiB (requests) and 40 KiB (responses) on.
    fn default() -> Self {
        Limits {
            request_body: 100 << 10,
            response_body: 100 << 10,
            request_least: 32 << 10,
            response_least: 40 << 10,
            lzma: false,
        }
    }
}

/// The application layer of one flow.
#[derive(Debug)]
pub struct State {
    hints: Hints,
    limits: Limits,
    probe: probe::Probe,
    protocol: Protocol,
    original: Protocol,
    parser: Option<Box<dyn Parser>>,
    /// The parser before the last change of protocol, while its transactions are looked at.
    before: Option<(Protocol, Box<dyn Parser>)>,
    stopped: bool,
    reversed: bool,
    ended: [bool; 2],
    /// Changes of protocol so far.
    changes: u8,
    /// Bytes that parsers and the probe held when they were last given something, or forgot something.
    held: usize,
}

/// Index of a direction in arrays of two.
pub(crate) fn side(direction: Direction) -> usize {
    match direction {
        Direction::ToServer => 0,
        Direction::ToClient => 1,
    }
}

impl State {
    /// Of a new flow.
    pub fn new(hints: Hints, limits: &Limits) -> State {
        State {
            hints,
            limits: limits.clone(),
            probe: probe::Probe::default(),
            protocol: Protocol::Unknown,
            original: Protocol::Unknown,
            parser: None,
            before: None,
            stopped: false,
            reversed: false,
            ended: [false; 2],
            changes: 0,
            held: 0,
        }
    }

    /// Of a flow that another has announced: its bytes are a file.
    pub fn of_transfer(hints: Hints, limits: &Limits, transfer: Transfer) -> State {
        let mut state = State::new(hints, limits);
        (state.protocol, state.original) = (Protocol::FtpData, Protocol::FtpData);
        state.parser = Some(Box::new(Stored::new(0, transfer::Data::new(transfer))));
        state
    }

    /// A connection that this flow has announced, and the file that it will carry; each is given once.
    pub fn announced(&mut self) -> Option<Transfer> {
        self.parser.as_mut().and_then(|parser| parser.announced())
    }

    /// Bytes of one direction in order: `gap` bytes before them are lost; `end`: none follow. A datagram is one call.
    pub fn data(&mut self, direction: Direction, bytes: &[u8], gap: usize, end: bool) {
        if gap > 0 {
            self.gap(direction, gap);
        }
        if !bytes.is_empty() {
            self.bytes(direction, bytes);
        }
        if end && !self.ended[side(direction)] {
            self.ended[side(direction)] = true;
            self.finish(direction);
        }
        self.bound();
    }

    fn gap(&mut self, direction: Direction, length: usize) {
        if self.stopped {
            return;
        }
        match &mut self.parser {
            Some(parser) => {
                let step = parser.gap(direction, length);
                self.follow(direction, step, &[]);
            }
            None => self.probe.gap(direction, length),
        }
    }

    fn bytes(&mut self, direction: Direction, bytes: &[u8]) {
        if self.stopped {
            return;
        }
        if let Some(parser) = &mut self.parser {
            let step = parser.data(direction, bytes);
            self.protocol = parser.renamed().unwrap_or(self.protocol);
            self.follow(direction, step, bytes);
            return;
        }
        match self.probe.data(direction, bytes, &self.hints) {
            probe::Answer::Wait => {}
            probe::Answer::Failed => self.fail(),
            probe::Answer::Found(protocol, reversed) => {
                self.reversed = reversed;
                self.start(protocol);
            }
        }
    }

    fn fail(&mut self) {
        if self.protocol == Protocol::Unknown {
            self.protocol = Protocol::Failed;
        }
        self.stopped = true;
        self.probe.forget();
    }

    /// Starts a parser and gives it what was kept while its protocol was not known.
    fn start(&mut self, protocol: Protocol) {
        if self.original == Protocol::Unknown {
            self.original = protocol;
        }
        let first = self.next_id();
        self.protocol = protocol;
        self.parser = self.parser_for(protocol, first);
        let kept = self.probe.take();
        if self.parser.is_none() {
            self.stopped = true;
            return;
        }
        for (direction, bytes, lost) in kept {
            let direction = if self.reversed { opposite(direction) } else { direction };
            if !bytes.is_empty() {
                self.bytes(direction, &bytes);
            }
            if lost > 0 {
                self.gap(direction, lost);
            }
        }
        for direction in [Direction::ToServer, Direction::ToClient] {
            if self.ended[side(direction)] {
                self.finish(direction);
            }
        }
    }

    fn parser_for(&self, protocol: Protocol, first: u64) -> Option<Box<dyn Parser>> {
        Some(match protocol {
            Protocol::Http1 => Box::new(http::Http::new(first, &self.limits, self.hints.server_port)),
            Protocol::Http2 => {
                let upgraded = self.before.as_ref().is_some_and(|(old, _)| *old == Protocol::Http1);
                Box::new(http::Http2::new(first, &self.limits, upgraded))
            }
            Protocol::Dns | Protocol::Mdns | Protocol::Llmnr => {
                Box::new(dns::Dns::new(first, protocol, self.hints.udp))
            }
            Protocol::Tls => Box::new(tls::Tls::new(first)),
            Protocol::Ssh => Box::new(ssh::Ssh::new(first)),
            Protocol::Sip => Box::new(Stored::new(first, sip::Sip::new(self.hints.udp))),
            Protocol::Ftp => Box::new(Stored::new(first, ftp::Ftp::default())),
            Protocol::Smtp => Box::new(Stored::new(first, smtp::Smtp::default())),
            Protocol::Dhcp => Box::new(Stored::new(first, dhcp::Dhcp)),
            Protocol::Ldap => Box::new(Stored::new(first, ldap::Ldap::default())),
            Protocol::Rfb => Box::new(Stored::new(first, rfb::Rfb::default())),
            Protocol::Smb => Box::new(Stored::new(first, smb::Smb::default())),
            Protocol::Dcerpc => Box::new(Stored::new(first, dcerpc::Dcerpc::default())),
            Protocol::Krb5 => Box::new(Stored::new(first, krb5::Krb5::new(self.hints.udp))),
            Protocol::Snmp => Box::new(Stored::new(first, snmp::Snmp)),
            Protocol::Quic => Box::new(Stored::new(first, quic::Quic::default())),
            Protocol::Websocket => Box::new(Stored::new(first, websocket::Websocket::default())),
            Protocol::Mqtt => Box::new(Stored::new(first, mqtt::Mqtt::default())),
            _ => return None,
        })
    }

    /// Does what a parser said.
    fn follow(&mut self, direction: Direction, step: Step, given: &[u8]) {
        match step {
            Step::Go => {}
            Step::Stop => self.stopped = true,
            Step::Change(..) if self.changes >= MOST_CHANGES => self.stopped = true,
            Step::Change(to, rest) => {
                self.changes += 1;
                if let Some(mut parser) = self.parser.take() {
                    parser.end(Direction::ToServer);
                    parser.end(Direction::ToClient);
                    self.before = Some((self.protocol, parser));
                }
                self.probe = probe::Probe::default();
                if let Some(protocol) = to {
                    self.start(protocol);
                }
                let from = given.len() - rest.min(given.len());
                if from < given.len() {
                    self.bytes(direction, &given[from..]);
                }
            }
        }
    }

    fn finish(&mut self, direction: Direction) {
        match &mut self.parser {
            Some(parser) => parser.end(direction),
            None if self.ended == [true, true] && !self.stopped => self.fail(),
            None => {}
        }
    }

    /// Forgets the oldest transactions when there are too many, or they hold too much.
    fn bound(&mut self) {
        let mut held = 0;
        if let Some(parser) = &mut self.parser {
            let ids = parser.ids();
            let live = ids.end - ids.start;
            if live > MOST_TRANSACTIONS {
                parser.release(ids.end - MOST_TRANSACTIONS);
            }
            held = parser.memory();
            if live > FEW_TRANSACTIONS && held > MOST_BYTES {
                parser.release(ids.end - FEW_TRANSACTIONS);
                held = parser.memory();
            }
        }
        self.held = held + self.memory_beside();
    }

    /// Bytes that the parser before the last change and the probe hold.
    fn memory_beside(&self) -> usize {
        self.before.as_ref().map_or(0, |(_, parser)| parser.memory()) + self.probe.memory()
    }

    fn next_id(&self) -> u64 {
        self.before.as_ref().map_or(0, |(_, parser)| parser.ids().end)
    }

    /// The protocol, as far as it is known.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The protocol before it changed, or the same.
    pub fn original_protocol(&self) -> Protocol {
        if self.original == Protocol::Unknown { self.protocol } else { self.original }
    }

    /// Whether the first bytes showed that what was taken for the client is the server.
    pub fn is_reversed(&self) -> bool {
        self.reversed
    }

    /// Whether nothing more will be read.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The live transactions' ids, rising.
    pub fn transactions(&self) -> impl Iterator<Item = u64> + use<> {
        let old = self.before.as_ref().map_or(0..0, |(_, parser)| parser.ids());
        let new = self.parser.as_ref().map_or(0..0, |parser| parser.ids());
        old.chain(new)
    }

    fn of(&self, id: u64) -> Option<(Protocol, &dyn Parser)> {
        if let Some(parser) = self.parser.as_deref().filter(|parser| parser.ids().contains(&id)) {
            return Some((self.protocol, parser));
        }
        let (protocol, parser) = self.before.as_ref()?;
        parser.ids().contains(&id).then_some((*protocol, &**parser))
    }

    /// The protocol of a live transaction.
    pub fn protocol_of(&self, id: u64) -> Protocol {
        self.of(id).map_or(Protocol::Unknown, |(protocol, _)| protocol)
    }

    /// How far a direction of a transaction has come; of one that is not live, all the way.
    pub fn progress(&self, id: u64, direction: Direction) -> Progress {
        self.of(id).map_or(Progress::Complete, |(_, parser)| parser.progress(id, direction))
    }

    /// The direction that a transaction belongs to, as a DNS query's; none when it has two.
    pub fn only(&self, id: u64) -> Option<Direction> {
        self.of(id)?.1.only(id)
    }

    /// Whether both directions of a transaction are complete.
    pub fn is_complete(&self, id: u64) -> bool {
        self.progress(id, Direction::ToServer) == Progress::Complete
            && self.progress(id, Direction::ToClient) == Progress::Complete
    }

    /// A buffer's bytes, the `index`th of several; none when there is no such (yet).
    pub fn buffer(&self, id: u64, buffer: Buffer, direction: Direction, index: usize) -> Option<&[u8]> {
        self.of(id)?.1.buffer(id, buffer, direction, index)
    }

    /// A number, the `index`th of several.
    pub fn number(&self, id: u64, number: Number, direction: Direction, index: usize) -> Option<u64> {
        self.of(id)?.1.number(id, number, direction, index)
    }

    /// Whether nothing of a transaction's file follows, and all of it was kept.
    pub fn has_whole_file(&self, id: u64, direction: Direction, index: usize) -> bool {
        self.of(id).is_some_and(|(_, parser)| parser.has_whole_file(id, direction, index))
    }

    /// What was wrong in a transaction.
    pub fn events(&self, id: u64) -> &[Event] {
        self.of(id).map_or(&[], |(_, parser)| parser.events(id))
    }

    /// What was wrong in one direction of a transaction; of protocols whose parsers do not tell, all that was wrong.
    pub fn events_in(&self, id: u64, direction: Direction) -> &[Event] {
        self.of(id).map_or(&[], |(_, parser)| parser.events_in(id, direction))
    }

    /// EVE's fields of a transaction, under the protocol's name.
    pub fn describe(&self, id: u64) -> Map<String, Value> {
        self.of(id).map(|(_, parser)| parser.describe(id)).unwrap_or_default()
    }

    /// Forgets the transactions below `id`.
    pub fn release(&mut self, below: u64) {
        if let Some((_, parser)) = &mut self.before {
            parser.release(below);
            if parser.ids().is_empty() && self.parser.is_some() {
                let next = parser.ids().end;
                if self.parser.as_ref().is_some_and(|parser| parser.ids().start >= next) {
                    self.before = None;
                }
            }
        }
        if let Some(parser) = &mut self.parser {
            parser.release(below);
        }
        self.held = self.parser.as_ref().map_or(0, |parser| parser.memory()) + self.memory_beside();
    }

    /// Bytes held beside the state itself: by transactions, and by what is not read yet.
    pub fn memory(&self) -> usize {
        self.held
    }

    /// Forgets all transactions and what is not read yet, for want of memory; nothing more is read. What the protocol
    /// was stays known.
    pub fn give_up(&mut self) {
        (self.parser, self.before) = (None, None);
        self.fail();
        self.held = 0;
    }
}

/// The other direction.
pub(crate) fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::ToServer => Direction::ToClient,
        Direction::ToClient => Direction::ToServer,
    }
}
