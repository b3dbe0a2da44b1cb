//! What every protocol's parser is asked, and what it answers.

use super::{Buffer, Event, Number, Progress, Protocol, Transfer};
use crate::flow::Direction;
use serde_json::{Map, Value};
use std::ops::Range;

/// What a parser says after it was given something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Go on.
    Go,
    /// Nothing more of this flow can be read.
    Stop,
    /// What follows is another protocol, or one to be found out; this many of the bytes just given belong to it.
    Change(Option<Protocol>, usize),
}

/// A protocol's parser. Ids of transactions rise by one; they start where [`Parser::ids`] says.
pub(crate) trait Parser: std::fmt::Debug + Send {
    /// Bytes of one direction, in order.
    fn data(&mut self, direction: Direction, bytes: &[u8]) -> Step;
    /// This many bytes are lost.
    fn gap(&mut self, direction: Direction, length: usize) -> Step;
    /// No more bytes of this direction.
    fn end(&mut self, direction: Direction);
    /// The live transactions.
    fn ids(&self) -> Range<u64>;
    /// How far a live transaction has come.
    fn progress(&self, id: u64, direction: Direction) -> Progress;
    /// A buffer's bytes.
    fn buffer(&self, id: u64, buffer: Buffer, direction: Direction, index: usize) -> Option<&[u8]>;
    /// A number.
    fn number(&self, id: u64, number: Number, direction: Direction, index: usize) -> Option<u64>;
    /// Whether nothing of a file follows, and all of it was kept.
    fn has_whole_file(&self, id: u64, direction: Direction, _index: usize) -> bool {
        self.progress(id, direction) >= Progress::Body
    }
    /// What went wrong in a transaction.
    fn events(&self, id: u64) -> &[Event];
    /// What went wrong in one direction of a transaction, where the parser keeps them apart.
    fn events_in(&self, id: u64, _direction: Direction) -> &[Event] {
        self.events(id)
    }
    /// The fields that EVE has under the protocol's name.
    fn describe(&self, id: u64) -> Map<String, Value>;
    /// The direction that a transaction belongs to, where it does not have two.
    fn only(&self, _id: u64) -> Option<Direction> {
        None
    }
    /// The protocol's name, if what was read makes it another than the one that was recognised.
    fn renamed(&self) -> Option<Protocol> {
        None
    }
    /// A connection that was announced, and the file that it will carry; each is given once.
    fn announced(&mut self) -> Option<Transfer> {
        None
    }
    /// Forgets transactions below `id`.
    fn release(&mut self, below: u64);
    /// Bytes held.
    fn memory(&self) -> usize;
}
