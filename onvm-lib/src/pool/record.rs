//! What the books say of one buffer: who has it, for the how-manieth time, and the note of its packet.

use super::Note;
use crate::ring::Descriptor;

/// The bits of a descriptor's first word that name a buffer and its generation.
const IDENTITY: u64 = 0xff_ffff_ffff;

/// Who has a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub(super) u16);

impl Holder {
    /// Nobody outside: the buffer is free or in a worker's hands.
    pub(super) const HOME: Self = Self(0);
    /// The NFs that share one pool and trust each other: which of them it is, their rings say.
    pub const SHARED: Self = Self(2);
    pub(super) const EMPTY: u16 = 0x8000;

    /// An NF that has a pool of its own; `number` (0..=32,764) tells it from the others.
    #[must_use]
    pub fn isolated(number: u16) -> Self {
        Self((number % 32_765) + 3)
    }

    /// The same holder, of a buffer that was handed out without a packet.
    #[must_use]
    pub fn of_empty(self) -> Self {
        Self(self.0 | Self::EMPTY)
    }
}

/// Generation (high half) and holder (low half) of one buffer, compared as one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Record(u32);

impl Record {
    pub(super) const HOME: Self = Self(Holder::HOME.0 as u32);

    #[inline(always)]
    pub(super) fn new(generation: u16, holder: Holder) -> Self {
        Self(u32::from(generation) << 16 | u32::from(holder.0))
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // the high half is 16 bits
    pub(super) fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    pub(super) fn holder(self) -> Holder {
        Holder((self.0 & 0xffff) as u16)
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{:?}", self.generation(), self.holder())
    }
}

/// What is known of one buffer, in a quarter of a cache line: the note, taken apart, and the record.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(super) struct Entry {
    pub(super) timestamp_ns: u64,
    pub(super) wire_length: u32,
    pub(super) record: Record,
}

const _: () = assert!(size_of::<Entry>() == 16);

impl Entry {
    #[inline(always)]
    pub(super) fn has(&self, note: Note) -> bool {
        self.timestamp_ns == note.timestamp_ns && self.wire_length == note.wire_length
    }

    #[inline(always)]
    pub(super) fn set_note(&mut self, note: Note) {
        (self.timestamp_ns, self.wire_length) = (note.timestamp_ns, note.wire_length);
    }
}

/// The name of a free buffer: its index, and the generation that it will have when it is allocated.
pub(super) type Name = u64;

/// What becomes of a packet's name when its buffer is freed.
#[inline(always)]
pub(super) fn name_when_freed(descriptor: Descriptor) -> Name {
    // What overflows the generation goes where the mask cuts it off.
    (descriptor.words()[0] + (1 << 24)) & IDENTITY
}
