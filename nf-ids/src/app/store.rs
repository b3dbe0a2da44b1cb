//! Transactions of protocols whose messages are read whole: what was found is put into a store, which answers for them.

use super::event::note;
use super::{Buffer, Event, Number, Parser, Progress, Step, side};
use crate::flow::Direction;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes, numbers and text of one transaction.
#[derive(Debug, Default)]
struct Entry {
    only: Option<Direction>,
    progress: [Progress; 2],
    buffers: Vec<(Buffer, Direction, Vec<u8>)>,
    numbers: Vec<(Number, Direction, u64)>,
    events: Vec<Event>,
    fields: Map<String, Value>,
    /// Bytes of its buffers.
    bytes: usize,
    /// Not all of its file was kept.
    cut: bool,
}

/// Things kept of one transaction; more are not.
const MOST: usize = 1024;
/// Bytes kept of one transaction's buffers; more are not.
const MOST_BYTES: usize = 2 << 20;
/// Bytes that a buffer costs beside its own.
const COST: usize = size_of::<(Buffer, Direction, Vec<u8>)>();

/// The transactions of a flow.
#[derive(Debug, Default)]
pub(super) struct Store {
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Store {
    fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    /// A new transaction; one that has one direction only is complete in the other.
    pub(super) fn create(&mut self, only: Option<Direction>) -> u64 {
        let mut entry = Entry { only, ..Entry::default() };
        if let Some(direction) = only {
            entry.progress[side(super::opposite(direction))] = Progress::Complete;
        }
        self.entries.push_back(entry);
        if self.entries.len() as u64 > super::MOST_TRANSACTIONS {
            self.release(self.first + 1);
        }
        self.first + self.entries.len() as u64 - 1
    }

    /// Adds bytes to a buffer's list.
    pub(super) fn put(&mut self, id: u64, buffer: Buffer, direction: Direction, bytes: &[u8]) {
        let fits = |entry: &&mut Entry| {
            entry.buffers.len() < MOST && entry.bytes.saturating_add(bytes.len()) <= MOST_BYTES
        };
        if let Some(entry) = self.entry(id).filter(fits) {
            entry.buffers.push((buffer, direction, bytes.to_vec()));
            entry.bytes += bytes.len() + COST;
            self.bytes += bytes.len() + COST;
        }
    }

    /// Adds to the last of a buffer's list, which holds at most so many bytes.
    pub(super) fn extend(&mut self, id: u64, buffer: Buffer, direction: Direction, more: &[u8], most: usize) {
        let Some(entry) = self.entry(id) else { return };
        let last = entry.buffers.iter_mut().rev().find(|(one, way, _)| *one == buffer && *way == direction);
        if let Some((_, _, bytes)) = last {
            let room = most.saturating_sub(bytes.len()).min(MOST_BYTES.saturating_sub(entry.bytes));
            let room = room.min(more.len());
            entry.cut |= room < more.len();
            bytes.extend_from_slice(&more[..room]);
            entry.bytes += room;
            self.bytes += room;
        }
    }

    /// Adds a number.
    pub(super) fn number(&mut self, id: u64, number: Number, direction: Direction, value: u64) {
        if let Some(entry) = self.entry(id).filter(|entry| entry.numbers.len() < MOST) {
            entry.numbers.push((number, direction, value));
        }
    }

    /// Notes what is wrong.
    pub(super) fn event(&mut self, id: u64, event: Event) {
        if let Some(entry) = self.entry(id) {
            note(&mut entry.events, event);
        }
    }

    /// A field for EVE.
    pub(super) fn field(&mut self, id: u64, name: &str, value: impl Into<Value>) {
        if let Some(entry) = self.entry(id) {
            entry.fields.insert(name.into(), value.into());
        }
    }

    /// A field for EVE of bytes.
    pub(super) fn text(&mut self, id: u64, name: &str, bytes: &[u8]) {
        self.field(id, name, super::text::readable(bytes));
    }

    /// A direction has come so far.
    pub(super) fn reach(&mut self, id: u64, direction: Direction, progress: Progress) {
        if let Some(entry) = self.entry(id) {
            let reached = &mut entry.progress[side(direction)];
            *reached = progress.max(*reached);
        }
    }

    /// The transaction is complete.
    pub(super) fn complete(&mut self, id: u64) {
        self.reach(id, Direction::ToServer, Progress::Complete);
        self.reach(id, Direction::ToClient, Progress::Complete);
    }

    /// The oldest transaction that this direction has not completed.
    pub(super) fn oldest_open(&self, direction: Direction) -> Option<u64> {
        let open = |entry: &Entry| entry.progress[side(direction)] != Progress::Complete;
        self.entries.iter().position(open).map(|at| self.first + at as u64)
    }

    fn release(&mut self, below: u64) {
        while self.first < below {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes;
            self.first += 1;
        }
    }
}

/// Reads one protocol into a store.
pub(super) trait Reader: std::fmt::Debug + Send {
    /// Bytes of one direction, in order; of UDP, a datagram.
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step;
    /// Bytes are lost. Whether the reader finds the next message, as in protocols of lines; else the direction is not
    /// read any more.
    fn gap(&mut self, _store: &mut Store, _direction: Direction, _length: usize) -> bool {
        false
    }
    /// A connection that was announced; each is given once.
    fn announced(&mut self) -> Option<super::Transfer> {
        None
    }
    /// Bytes held beside the store's.
    fn memory(&self) -> usize;
}

/// A parser made of a reader and its store.
#[derive(Debug)]
pub(super) struct Stored<R> {
    reader: R,
    store: Store,
    /// Directions that cannot be read any more.
    lost: [bool; 2],
}

impl<R: Reader> Stored<R> {
    /// With ids from `first`.
    pub(super) fn new(first: u64, reader: R) -> Stored<R> {
        Stored { reader, store: Store { first, ..Store::default() }, lost: [false; 2] }
    }

    fn entry(&self, id: u64) -> Option<&Entry> {
        self.store.entries.get(usize::try_from(id.checked_sub(self.store.first)?).ok()?)
    }
}

impl<R: Reader> Parser for Stored<R> {
    fn data(&mut self, direction: Direction, bytes: &[u8]) -> Step {
        if self.lost[side(direction)] {
            return Step::Go;
        }
        self.reader.data(&mut self.store, direction, bytes)
    }

    fn gap(&mut self, direction: Direction, length: usize) -> Step {
        if !self.reader.gap(&mut self.store, direction, length) {
            self.lost[side(direction)] = true;
            let open = |entry: &&mut Entry| entry.progress[side(direction)] != Progress::Complete;
            self.store.entries.iter_mut().filter(open).for_each(|entry| entry.cut = true);
        }
        if self.lost == [true, true] { Step::Stop } else { Step::Go }
    }

    fn end(&mut self, direction: Direction) {
        for entry in &mut self.store.entries {
            entry.progress[side(direction)] = Progress::Complete;
        }
    }

    fn ids(&self) -> Range<u64> {
        self.store.first..self.store.first + self.store.entries.len() as u64
    }

    fn progress(&self, id: u64, direction: Direction) -> Progress {
        self.entry(id).map_or(Progress::Complete, |entry| entry.progress[side(direction)])
    }

    fn buffer(&self, id: u64, buffer: Buffer, direction: Direction, index: usize) -> Option<&[u8]> {
        let all = self.entry(id)?.buffers.iter().filter(|(one, way, _)| *one == buffer && *way == direction);
        all.map(|(_, _, bytes)| &bytes[..]).nth(index)
    }

    fn number(&self, id: u64, number: Number, direction: Direction, index: usize) -> Option<u64> {
        let all = self.entry(id)?.numbers.iter().filter(|(one, way, _)| *one == number && *way == direction);
        all.map(|(_, _, value)| *value).nth(index)
    }

    fn has_whole_file(&self, id: u64, direction: Direction, _: usize) -> bool {
        let done = |entry: &Entry| entry.progress[side(direction)] >= Progress::Body && !entry.cut;
        self.entry(id).is_some_and(done)
    }

    fn events(&self, id: u64) -> &[Event] {
        self.entry(id).map_or(&[], |entry| &entry.events)
    }

    fn describe(&self, id: u64) -> Map<String, Value> {
        self.entry(id).map(|entry| entry.fields.clone()).unwrap_or_default()
    }

    fn only(&self, id: u64) -> Option<Direction> {
        self.entry(id)?.only
    }

    fn announced(&mut self) -> Option<super::Transfer> {
        self.reader.announced()
    }

    fn release(&mut self, below: u64) {
        self.store.release(below);
    }

    fn memory(&self) -> usize {
        self.store.bytes + self.store.entries.len() * size_of::<Entry>() + self.reader.memory()
    }
}

/// Bytes of one direction that are not yet a whole message.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<u8>);

impl Pending {
    /// What waits, with more after it.
    pub(super) fn with(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(bytes);
        all
    }

    /// Keeps the last `rest` bytes, which were not used. What was not used at all is not copied: a long message in
    /// many segments costs no more than its length.
    pub(super) fn keep(&mut self, mut all: Vec<u8>, rest: usize) {
        if rest > 0 {
            all.drain(..all.len().saturating_sub(rest));
            self.0 = all;
        }
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.0.capacity()
    }
}
