//! Rules: from text to [`Rule`].
//!
//! A rule file is read line by line; each rule is read by itself, so that one that is wrong or asks for what is not
//! supported is refused with its place and its reason, and the others load. What is read is checked as a whole too: a
//! rule that could never match (a content longer than its `depth`, request and response buffers in one rule) is refused
//! rather than kept as dead weight that its author believes in.
//!
//! The order of options matters: a modifier is of the `content` before it, a sticky buffer is in force until the next.
//! The builder keeps that state. Each room beside it knows the keywords of one kind.

mod absent;
mod applayer;
mod buffers;
mod builder;
mod classes;
mod compare;
mod dataset;
mod dates;
mod files;
mod header;
mod headers;
mod interface;
mod list;
mod memory;
mod meta;
mod numbers;
mod older;
mod option;
mod parse;
mod payload;
mod pcre;
mod refusal;
mod requires;
mod rule;
mod set;
mod several;
mod state;
mod test;
#[cfg(test)]
mod tests;
mod text;
mod transforms;
mod validate;
mod values;
mod variables;

pub use classes::Classes;
pub use compare::Compare;
pub use list::{Addresses, Ports, Ranges};
pub use parse::Context;
pub use refusal::{Fault, Refusal};
pub use rule::{
    Action, Arrow, Bits, BitsMode, Checksummed, Field, FlowTest, HeaderTest, Kind, Protocol, ProtocolSide,
    RejectTo, Rule, StreamSide, TransactionTest, Way, Ways,
};
pub use set::RuleSet;
pub use several::{Several, Which};
pub use state::{
    BitCommand, CounterCommand, CounterValue, Filter, Keeper, StateTest, Threshold, ThresholdKind, Track,
    UniqueOn,
};
pub use test::{
    Absence, Arithmetic, Base64Mode, Capture, Content, Endian, Fast, FloatCompare, Group, HeaderBytes, Jump,
    Notation, Number, Operator, Pcre, Place, Section, Test, Transform, Value,
};
pub(crate) use text::{logical_lines, read as read_text};
pub use values::{Asn1, FileHash, HashKind, SetCommand, SetTest};
pub use variables::Variables;
