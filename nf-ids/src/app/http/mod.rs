//! HTTP/0.9 to 1.1, read as leniently as servers and browsers read it.
//!
//! Where the standards (RFC 9110, 9112) leave no choice but implementations do otherwise, this reads what would reach
//! the victim: odd line ends, folded and repeated headers, lengths among junk, chunks after `Content-Length`, wrong or
//! missing encodings, bodies without status line. [`line`], [`chunk`] and [`decode`] hold those rules.
//!
//! # States
//! ```text
//! request:  Line ─▶ Headers ─▶ Length │ ChunkLength ⇄ ChunkData ─▶ Trailer ─▶ Rest ─▶ Line …
//! response: Line ─▶ Headers ─▶ Length │ Close │ ChunkLength ⇄ ChunkData ─▶ Trailer ─▶ Rest ─▶ Line …
//! ```
//! `Rest`: what follows a complete message in the same piece of data; it begins the next message, or belongs to the body
//! although it should not. A lost piece of a body is passed over; elsewhere it ends that direction.

mod bestfit;
mod body;
mod chunk;
mod decode;
mod describe;
mod h2;
mod header;
mod line;
mod multipart;
mod packed;
mod request;
mod response;
mod tx;
mod uri;

#[cfg(test)]
mod tests;

use super::event::note;
use super::{Buffer, Event, Limits, Number, Parser, Progress, Protocol, Step, side};
use crate::flow::Direction;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::ops::Range;
use tx::Tx;

pub(super) use h2::Http2;

/// Longest line.
const MOST_LINE: usize = 18_000;

/// Where in a message one direction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Line,
    Headers,
    /// A body with so many bytes left.
    Length(u64),
    /// A body until the end of the stream.
    Close,
    ChunkLength,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    Rest,
    /// `CONNECT` was sent; the answer decides.
    Connect,
    /// Nothing more is read.
    Dead,
}

/// One direction.
#[derive(Debug, Default)]
struct Side {
    place: Place,
    /// Bytes that are not yet a whole line.
    pending: Vec<u8>,
    /// A header that the next line may continue.
    header: Option<Vec<u8>>,
    /// The line before ended with LF CR.
    after_reversed: bool,
    /// The transaction that is being read.
    tx: Option<u64>,
}

/// What a step did with its input.
enum Take {
    /// Used so many bytes, and perhaps went to another place.
    Bytes(usize),
    /// Needs more than there is.
    More,
    /// Changes the protocol; so many bytes were used.
    Change(Option<Protocol>, usize),
}

/// The parser of one flow.
#[derive(Debug)]
pub(super) struct Http {
    limits: Limits,
    /// The server's TCP port.
    port: u16,
    txs: VecDeque<Tx>,
    first: u64,
    sides: [Side; 2],
    /// The next transaction to be answered.
    next_response: u64,
}

impl Http {
    /// With ids from `first`, of a server at `port`.
    pub(super) fn new(first: u64, limits: &Limits, port: u16) -> Http {
        Http {
            limits: limits.clone(),
            port,
            txs: VecDeque::new(),
            first,
            sides: Default::default(),
            next_response: first,
        }
    }

    fn tx(&self, id: u64) -> Option<&Tx> {
        self.txs.get(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    fn tx_mut(&mut self, id: u64) -> Option<&mut Tx> {
        self.txs.get_mut(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    /// The transaction that a direction is reading.
    fn current(&mut self, direction: Direction) -> Option<&mut Tx> {
        self.tx_mut(self.sides[side(direction)].tx?)
    }

    fn note(&mut self, direction: Direction, event: Event) {
        if let Some(tx) = self.current(direction) {
            note(&mut tx.events, event);
        }
    }

    fn create(&mut self) -> u64 {
        if self.txs.len() as u64 >= super::MOST_TRANSACTIONS {
            self.release(self.first + 1);
        }
        let id = self.first + self.txs.len() as u64;
        self.txs.push_back(Tx::new(&self.limits));
        id
    }

    /// Reads as much as there is.
    fn run(&mut self, direction: Direction, bytes: &[u8], closed: bool) -> Step {
        let mut kept = std::mem::take(&mut self.sides[side(direction)].pending);
        let input = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept[..]
        };
        let mut at = 0;
        while at < input.len() {
            let place = self.sides[side(direction)].place;
            let take = match direction {
                Direction::ToServer => self.request(place, &input[at..], closed),
                Direction::ToClient => self.response(place, &input[at..], closed),
            };
            match take {
                Take::Bytes(taken) => at += taken.min(input.len() - at),
                Take::More => break,
                Take::Change(to, taken) => return Step::Change(to, input.len() - at - taken),
            }
        }
        let side = &mut self.sides[side(direction)];
        if side.place != Place::Dead && at < input.len() {
            if input.len() - at > header::MOST_BYTES {
                side.place = Place::Dead;
            } else {
                side.pending = input[at..].to_vec();
            }
        }
        if side.place == Place::Rest {
            self.complete(direction);
        }
        Step::Go
    }

    /// The message that a direction is reading is complete.
    fn complete(&mut self, direction: Direction) {
        if let Some(tx) = self.current(direction) {
            let message = tx.message_mut(direction);
            let failed = message.body.push(b"", true);
            message.progress = Progress::Complete;
            if failed {
                note(&mut tx.events, Event::HttpGzipFailed);
            }
        }
        let side = &mut self.sides[side(direction)];
        side.tx = None;
        side.place = Place::Line;
        side.header = None;
        side.after_reversed = false;
    }

    /// Bytes of a body, still encoded.
    fn body(&mut self, direction: Direction, bytes: &[u8]) {
        if let Some(tx) = self.current(direction) {
            let message = tx.message_mut(direction);
            if message.body.push(bytes, false) {
                note(&mut tx.events, Event::HttpGzipFailed);
            }
        }
    }

    /// The places of a body, the same in both directions.
    fn body_step(&mut self, direction: Direction, place: Place, input: &[u8]) -> Take {
        match place {
            Place::Length(left) | Place::ChunkData(left) => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                self.body(direction, &input[..here]);
                let left = left - here as u64;
                let chunked = matches!(place, Place::ChunkData(_));
                self.sides[side(direction)].place = match (chunked, left) {
                    (false, 0) => Place::Rest,
                    (true, 0) => Place::ChunkEnd,
                    (false, _) => Place::Length(left),
                    (true, _) => Place::ChunkData(left),
                };
                if left == 0
                    && !chunked
                    && let Some(tx) = self.current(direction)
                {
                    tx.message_mut(direction).progress = Progress::Body;
                }
                Take::Bytes(here)
            }
            Place::Close => {
                self.body(direction, input);
                Take::Bytes(input.len())
            }
            Place::ChunkEnd => match memchr::memchr(b'\n', input) {
                Some(end) => {
                    self.sides[side(direction)].place = Place::ChunkLength;
                    Take::Bytes(end + 1)
                }
                None => Take::Bytes(input.len()),
            },
            _ => Take::Bytes(input.len()),
        }
    }

    /// One header, whole.
    fn header(&mut self, direction: Direction, text: &[u8]) {
        let Some(tx) = self.current(direction) else { return };
        let noticed = tx.message_mut(direction).headers.add(text);
        let request = direction == Direction::ToServer;
        let mut say = |said: bool, to_server, to_client| {
            if said {
                note(&mut tx.events, if request { to_server } else { to_client });
            }
        };
        say(noticed.no_colon, Event::HttpRequestFieldMissingColon, Event::HttpResponseFieldMissingColon);
        say(noticed.invalid, Event::HttpRequestHeaderInvalid, Event::HttpResponseHeaderInvalid);
        say(noticed.repeated, Event::HttpRequestHeaderRepetition, Event::HttpResponseHeaderRepetition);
        say(
            noticed.length_again,
            Event::HttpDuplicateRequestContentLength,
            Event::HttpDuplicateResponseContentLength,
        );
    }

    /// The header that waited for its continuation is whole.
    fn flush_header(&mut self, direction: Direction) {
        if let Some(text) = self.sides[side(direction)].header.take() {
            self.header(direction, &text);
        }
    }

    /// Keeps a line of the headers as it was sent. Whether there is still room.
    fn raw_header(&mut self, direction: Direction, bytes: &[u8]) -> bool {
        let Some(tx) = self.current(direction) else { return false };
        let message = tx.message_mut(direction);
        if message.headers.raw.len() + bytes.len() > header::MOST_BYTES {
            return false;
        }
        message.headers.raw.extend_from_slice(bytes);
        message.changed();
        true
    }

    /// Nothing more of a direction can be read.
    fn die(&mut self, direction: Direction) -> Take {
        self.sides[side(direction)].place = Place::Dead;
        Take::Bytes(usize::MAX)
    }
}

impl Parser for Http {
    fn data(&mut self, direction: Direction, bytes: &[u8]) -> Step {
        self.run(direction, bytes, false)
    }

    fn gap(&mut self, direction: Direction, length: usize) -> Step {
        let at = side(direction);
        match self.sides[at].place {
            Place::Length(left) => {
                if let Some(left) = left.checked_sub(length as u64).filter(|left| *left > 0) {
                    self.sides[at].place = Place::Length(left);
                } else {
                    self.complete(direction);
                    if length as u64 > left {
                        self.sides[at].place = Place::Dead;
                    }
                }
            }
            Place::Close => {}
            _ => self.sides[at].place = Place::Dead,
        }
        self.sides[at].pending.clear();
        Step::Go
    }

    fn end(&mut self, direction: Direction) {
        if self.sides[side(direction)].place != Place::Dead {
            self.run(direction, b"", true);
            let place = self.sides[side(direction)].place;
            if matches!(place, Place::Headers | Place::Trailer) {
                self.flush_header(direction);
            }
        }
        if self.sides[side(direction)].tx.is_some() {
            self.complete(direction);
        }
        for tx in &mut self.txs {
            tx.message_mut(direction).progress = Progress::Complete;
        }
        self.sides[side(direction)].place = Place::Dead;
    }

    fn ids(&self) -> Range<u64> {
        self.first..self.first + self.txs.len() as u64
    }

    fn progress(&self, id: u64, direction: Direction) -> Progress {
        self.tx(id).map_or(Progress::Complete, |tx| tx.message(direction).progress)
    }

    fn buffer(&self, id: u64, buffer: Buffer, direction: Direction, index: usize) -> Option<&[u8]> {
        self.tx(id)?.buffer(buffer, direction, index, &self.limits)
    }

    fn number(&self, _: u64, _: Number, _: Direction, _: usize) -> Option<u64> {
        None
    }

    fn has_whole_file(&self, id: u64, direction: Direction, index: usize) -> bool {
        self.tx(id).is_some_and(|tx| tx.has_whole_file(direction, index))
    }

    fn events(&self, id: u64) -> &[Event] {
        self.tx(id).map_or(&[], |tx| &tx.events)
    }

    fn describe(&self, id: u64) -> Map<String, Value> {
        self.tx(id).map(describe::describe).unwrap_or_default()
    }

    fn release(&mut self, below: u64) {
        while self.first < below && self.txs.pop_front().is_some() {
            self.first += 1;
        }
        self.next_response = self.next_response.max(self.first);
    }

    fn memory(&self) -> usize {
        let pending: usize = self.sides.iter().map(|side| side.pending.capacity()).sum();
        pending + self.txs.iter().map(Tx::memory).sum::<usize>()
    }
}
