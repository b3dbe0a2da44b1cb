//! HTTP/2 (RFC 9113): frames, streams, and the requests and responses in them.
//!
//! A stream is a transaction; so is each frame of the connection itself (stream 0), in its one direction. What belongs to
//! HTTP in both versions has the same buffers. A request or response that carries a DNS message (RFC 8484) has those of DNS
//! as well, and makes the flow one of DNS over HTTP/2.
//!
//! # States of a direction
//! ```text
//! client: Preface ─▶ Frame ⇄ Frame        server: Frame ⇄ Frame        unreadable or lost: Dead
//! ```

mod dns;
mod hpack;
mod huffman;
mod tx;

#[cfg(test)]
mod tests;

use crate::app::event::note;
use crate::app::http::decode::{Also, Decoder};
use crate::app::{Buffer, Event, Limits, Number, Parser, Progress, Protocol, Step, side};
use crate::flow::Direction;
use serde_json::{Map, Value};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use tx::Tx;

/// What a client begins with (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
const HEADER: usize = 9;
/// Longest frame that is read; longer ones are passed over. Peers allow 16 KiB unless they say more.
const MOST_FRAME: usize = 64 << 10;
/// Bytes of one block of fields, over frames.
const MOST_BLOCK: usize = 64 << 10;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// The setting that bounds the other side's table (section 6.5.2).
const TABLE_SIZE: u8 = 1;

/// A block of fields that is not whole: its stream, whether it ends the stream, and its bytes.
type Block = (u32, bool, Vec<u8>);

/// One direction.
#[derive(Debug, Default)]
struct Way {
    begun: bool,
    dead: bool,
    pending: Vec<u8>,
    skip: usize,
    table: hpack::Table,
    block: Option<Block>,
}

impl Way {
    fn memory(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |(_, _, all)| all.capacity());
        self.pending.capacity() + self.table.memory() + block
    }
}

/// A frame.
#[derive(Clone, Copy, Debug)]
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    body: &'a [u8],
}

/// The parser of one flow.
#[derive(Debug)]
pub(in crate::app) struct Http2 {
    limits: Limits,
    first: u64,
    txs: VecDeque<Tx>,
    /// The transaction of each stream that has one.
    streams: HashMap<u32, u64>,
    ways: [Way; 2],
    /// Whether a DNS message was carried.
    dns: bool,
}

/// The body of a frame without its padding (section 6.1).
fn without_padding(frame: Frame<'_>) -> Option<&[u8]> {
    if frame.flags & PADDED == 0 {
        return Some(frame.body);
    }
    let (length, body) = frame.body.split_first()?;
    body.get(..body.len().checked_sub(usize::from(*length))?)
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|four| u32::from_be_bytes(*four))
}

impl Http2 {
    /// With ids from `first`; `upgraded`: the request was one of HTTP/1, and its answer is stream 1 (RFC 7540, section 3.2).
    pub(in crate::app) fn new(first: u64, limits: &Limits, upgraded: bool) -> Http2 {
        let mut h2 = Http2 {
            limits: limits.clone(),
            first,
            txs: VecDeque::new(),
            streams: HashMap::new(),
            ways: Default::default(),
            dns: false,
        };
        if upgraded {
            // What size the client allows stood in the request (RFC 7540, section 3.2.1).
            h2.ways[side(Direction::ToClient)].table.allow(u64::MAX);
            let id = h2.create(1, None);
            if let Some(tx) = h2.tx_mut(id) {
                tx.sides[0].progress = Progress::Complete;
            }
        }
        h2
    }

    fn tx(&self, id: u64) -> Option<&Tx> {
        self.txs.get(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    fn tx_mut(&mut self, id: u64) -> Option<&mut Tx> {
        self.txs.get_mut(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    fn create(&mut self, stream: u32, only: Option<Direction>) -> u64 {
        if self.txs.len() as u64 >= crate::app::MOST_TRANSACTIONS {
            self.release(self.first + 1);
        }
        self.txs.push_back(Tx::new(stream, only, &self.limits));
        let id = self.first + self.txs.len() as u64 - 1;
        if stream != 0 {
            self.streams.insert(stream, id);
        }
        id
    }

    /// The transaction of a stream; a new one when there is none.
    fn of_stream(&mut self, stream: u32, direction: Direction) -> u64 {
        if stream == 0 {
            return self.create(0, Some(direction));
        }
        match self.streams.get(&stream) {
            Some(id) => *id,
            None => self.create(stream, None),
        }
    }

    fn note(&mut self, id: u64, event: Event) {
        if let Some(tx) = self.tx_mut(id) {
            note(&mut tx.events, event);
        }
    }

    /// Notes what is wrong where there is no transaction for it.
    fn wrong(&mut self, direction: Direction, event: Event) {
        let id = self.create(0, Some(direction));
        self.note(id, event);
    }

    /// Reads frames; bytes used.
    fn frames(&mut self, direction: Direction, input: &[u8]) -> usize {
        let at = side(direction);
        let mut used = 0;
        while !self.ways[at].dead {
            let skipped = self.ways[at].skip.min(input.len() - used);
            self.ways[at].skip -= skipped;
            used += skipped;
            let [a, b, c, kind, flags, s1, s2, s3, s4, rest @ ..] = &input[used..] else { break };
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let stream = u32::from_be_bytes([*s1, *s2, *s3, *s4]);
            if stream >> 31 != 0 {
                self.wrong(direction, Event::Http2InvalidFrameHeader);
            }
            let stream = stream & 0x7fff_ffff;
            if length > MOST_FRAME {
                let id = self.of_stream(stream, direction);
                self.note(id, Event::Http2LongFrameData);
                self.ways[at].skip = HEADER + length;
                continue;
            }
            let Some(body) = rest.get(..length) else { break };
            self.frame(direction, Frame { kind: *kind, flags: *flags, stream, body });
            used += HEADER + length;
        }
        used
    }

    fn frame(&mut self, direction: Direction, frame: Frame<'_>) {
        let id = self.of_stream(frame.stream, direction);
        let ended = self
            .tx(id)
            .is_some_and(|tx| frame.stream != 0 && tx.sides[side(direction)].progress == Progress::Complete);
        if ended && matches!(frame.kind, 0 | 1) {
            self.note(id, Event::Http2StreamIdReuse);
        }
        if let Some(tx) = self.tx_mut(id) {
            tx.sides[side(direction)].number(Number::Http2FrameType, frame.kind.into());
        }
        let read = match frame.kind {
            0 => self.data_frame(direction, id, frame),
            1 => self.headers(direction, id, frame),
            2 => self.priority(direction, id, frame.body),
            3 | 7 => self.errors(direction, id, frame),
            4 => self.settings(direction, frame.body),
            5 => self.promise(direction, frame),
            8 => u32_of(frame.body).map(|size| {
                self.number(id, direction, Number::Http2Window, (size & 0x7fff_ffff).into());
            }),
            9 => self.block(direction, frame.stream, frame.body, frame.flags & END_HEADERS != 0),
            _ => Some(()),
        };
        if read.is_none() {
            self.note(id, Event::Http2InvalidFrameData);
        }
    }

    /// SETTINGS: how large the other side may make its table of fields.
    fn settings(&mut self, direction: Direction, body: &[u8]) -> Option<()> {
        let (settings, rest) = body.as_chunks::<6>();
        for setting in settings {
            if let [0, TABLE_SIZE, size @ ..] = setting {
                let table = &mut self.ways[side(crate::app::opposite(direction))].table;
                table.allow(u32::from_be_bytes(*size).into());
            }
        }
        rest.is_empty().then_some(())
    }

    fn number(&mut self, id: u64, direction: Direction, number: Number, value: u64) {
        if let Some(tx) = self.tx_mut(id) {
            tx.sides[side(direction)].number(number, value);
        }
    }

    fn priority(&mut self, direction: Direction, id: u64, body: &[u8]) -> Option<()> {
        self.number(id, direction, Number::Http2Priority, (*body.get(4)?).into());
        Some(())
    }

    /// RST_STREAM and GOAWAY.
    fn errors(&mut self, direction: Direction, id: u64, frame: Frame<'_>) -> Option<()> {
        let code = u32_of(frame.body.get(if frame.kind == 3 { 0 } else { 4 }..)?)?;
        self.number(id, direction, Number::Http2ErrorCode, code.into());
        if frame.kind == 3
            && let Some(tx) = self.tx_mut(id)
        {
            // The other side may not know it yet, and its answer be under way.
            tx.sides[side(direction)].progress = Progress::Complete;
        }
        Some(())
    }

    fn data_frame(&mut self, direction: Direction, id: u64, frame: Frame<'_>) -> Option<()> {
        if frame.stream == 0 {
            self.note(id, Event::Http2DataStreamZero);
            return Some(());
        }
        let body = without_padding(frame)?;
        let last = frame.flags & END_STREAM != 0;
        let tx = self.tx_mut(id)?;
        let one = &mut tx.sides[side(direction)];
        if one.body.push(body, last) {
            note(&mut tx.events, Event::Http2FailedDecompression);
        }
        if last {
            self.end_stream(direction, id);
        }
        Some(())
    }

    fn headers(&mut self, direction: Direction, id: u64, frame: Frame<'_>) -> Option<()> {
        let mut body = without_padding(frame)?;
        if frame.flags & PRIORITY != 0 {
            self.priority(direction, id, body)?;
            body = &body[5..];
        }
        self.ways[side(direction)].block = Some((frame.stream, frame.flags & END_STREAM != 0, Vec::new()));
        self.block(direction, frame.stream, body, frame.flags & END_HEADERS != 0)
    }

    /// A promise of a stream: what the server would have been asked for, and answers.
    fn promise(&mut self, direction: Direction, frame: Frame<'_>) -> Option<()> {
        let body = without_padding(frame)?;
        let stream = u32_of(body)? & 0x7fff_ffff;
        let id = self.of_stream(stream, direction);
        if let Some(tx) = self.tx_mut(id) {
            tx.sides[0].progress = Progress::Complete;
        }
        self.ways[side(direction)].block = Some((stream, false, Vec::new()));
        self.block(direction, stream, &body[4..], frame.flags & END_HEADERS != 0)
    }

    /// A part of a block of fields; the last: the fields are read.
    fn block(&mut self, direction: Direction, stream: u32, part: &[u8], last: bool) -> Option<()> {
        let way = &mut self.ways[side(direction)];
        let (_, _, all) = way.block.as_mut().filter(|(one, _, _)| *one == stream)?;
        if all.len() + part.len() > MOST_BLOCK {
            // What the tables would be after it is not known.
            way.dead = true;
            return None;
        }
        all.extend_from_slice(part);
        if !last {
            return Some(());
        }
        let (_, ends, all) = way.block.take()?;
        let mut fields = Vec::new();
        let noticed = way.table.read(&all, &mut fields);
        way.dead |= noticed.invalid;
        let id = self.of_stream(stream, direction);
        for size in noticed.sizes {
            self.number(id, direction, Number::Http2SizeUpdate, size);
        }
        if noticed.overflow {
            self.note(id, Event::Http2HeaderOverflow);
        }
        if noticed.invalid {
            self.note(id, Event::Http2InvalidHeader);
        }
        self.take_fields(direction, id, fields);
        if ends {
            self.end_stream(direction, id);
        }
        Some(())
    }

    fn take_fields(&mut self, direction: Direction, id: u64, fields: Vec<hpack::Field>) {
        let Some(tx) = self.tx_mut(id) else { return };
        let one = &mut tx.sides[side(direction)];
        let trailers = one.progress >= Progress::Headers;
        one.add(fields);
        one.progress = one.progress.max(Progress::Headers);
        one.body.is_file = true;
        if trailers {
            return;
        }
        if let Some(encoding) = one.first(b"content-encoding") {
            let (decoder, _) = Decoder::new(encoding, Also { brotli: true, lzma: false });
            one.body.set_decoder(decoder);
        }
        let (authority, host) = (one.first(b":authority"), one.first(b"host"));
        let mismatch = authority.zip(host).is_some_and(|(a, b)| !a.eq_ignore_ascii_case(b));
        let user = authority.is_some_and(|text| text.contains(&b'@'));
        for (said, event) in [(mismatch, Event::Http2AuthorityMismatch), (user, Event::Http2UserinfoInUri)] {
            if said {
                note(&mut tx.events, event);
            }
        }
    }

    /// A direction of a stream is complete.
    fn end_stream(&mut self, direction: Direction, id: u64) {
        let Some(tx) = self.tx_mut(id) else { return };
        let one = &mut tx.sides[side(direction)];
        one.body.push(b"", true);
        one.progress = Progress::Complete;
        one.dns = dns::carried(one);
        let carried = one.dns.is_some();
        self.dns |= carried;
    }
}

impl Parser for Http2 {
    fn data(&mut self, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        if self.ways[at].dead {
            return Step::Go;
        }
        let mut all = std::mem::take(&mut self.ways[at].pending);
        all.extend_from_slice(bytes);
        let mut used = 0;
        if !self.ways[at].begun && direction == Direction::ToServer {
            if all.len() < PREFACE.len() && PREFACE.starts_with(&all) {
                self.ways[at].pending = all;
                return Step::Go;
            }
            if all.starts_with(PREFACE) {
                used = PREFACE.len();
            } else {
                self.wrong(direction, Event::Http2InvalidClientMagic);
            }
        }
        self.ways[at].begun = true;
        used += self.frames(direction, &all[used..]);
        if !self.ways[at].dead {
            all.drain(..used);
            self.ways[at].pending = all;
        }
        Step::Go
    }

    fn gap(&mut self, direction: Direction, length: usize) -> Step {
        let way = &mut self.ways[side(direction)];
        match way.skip.checked_sub(length).filter(|_| way.pending.is_empty()) {
            Some(left) => way.skip = left,
            None => (way.dead, way.pending) = (true, Vec::new()),
        }
        Step::Go
    }

    fn end(&mut self, direction: Direction) {
        for tx in &mut self.txs {
            tx.sides[side(direction)].progress = Progress::Complete;
        }
    }

    fn ids(&self) -> Range<u64> {
        self.first..self.first + self.txs.len() as u64
    }

    fn progress(&self, id: u64, direction: Direction) -> Progress {
        self.tx(id).map_or(Progress::Complete, |tx| tx.sides[side(direction)].progress)
    }

    fn buffer(&self, id: u64, buffer: Buffer, direction: Direction, index: usize) -> Option<&[u8]> {
        self.tx(id)?.buffer(buffer, direction, index, &self.limits)
    }

    fn number(&self, id: u64, number: Number, direction: Direction, index: usize) -> Option<u64> {
        self.tx(id)?.number(number, direction, index)
    }

    fn has_whole_file(&self, id: u64, direction: Direction, _: usize) -> bool {
        let known = self.tx(id).map(|tx| &tx.sides[side(direction)]);
        known.is_some_and(|side| side.progress >= Progress::Body && !side.body.is_full())
    }

    fn events(&self, id: u64) -> &[Event] {
        self.tx(id).map_or(&[], |tx| &tx.events)
    }

    fn describe(&self, id: u64) -> Map<String, Value> {
        self.tx(id).map(Tx::describe).unwrap_or_default()
    }

    fn only(&self, id: u64) -> Option<Direction> {
        self.tx(id)?.only
    }

    fn renamed(&self) -> Option<Protocol> {
        self.dns.then_some(Protocol::Doh2)
    }

    fn release(&mut self, below: u64) {
        while self.first < below
            && let Some(tx) = self.txs.pop_front()
        {
            self.streams.remove(&tx.stream);
            self.first += 1;
        }
    }

    fn memory(&self) -> usize {
        let ways = self.ways.iter().map(Way::memory).sum::<usize>();
        ways + self.streams.capacity() * 16 + self.txs.iter().map(Tx::memory).sum::<usize>()
    }
}
