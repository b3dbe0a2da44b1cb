//! A ring and its two ends.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::compiler_fence;

use super::descriptor::Descriptor;
use super::layout::{Error, Handle, Memory, Slot};
use super::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::shm::Region;

/// The peer wrote positions that cannot be: more entries than the ring has slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation;

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ring positions written by the peer are out of range")
    }
}

impl std::error::Error for Violation {}

/// A ring as a thing: what the manager makes, sends to its two ends, and reads when one of them died.
#[derive(Clone)]
pub struct Ring {
    pub(super) memory: Handle,
}

impl Ring {
    /// Makes a ring of `capacity` entries (a power of two in 2..=[`super::MAX_CAPACITY`]) in shared memory.
    ///
    /// # Errors
    /// [`Error::Capacity`] or [`Error::Memory`].
    pub fn create(name: &str, capacity: u32) -> Result<Self, Error> {
        Ok(Self { memory: Arc::new(Memory::create(name, capacity)?) })
    }

    /// Opens a ring that the manager sent.
    ///
    /// # Errors
    /// [`Error::NotARing`] when the region is of another kind or version, else as [`Ring::create`].
    pub fn open(name: &str, fd: OwnedFd, capacity: u32) -> Result<Self, Error> {
        Ok(Self { memory: Arc::new(Memory::open(name, fd, capacity)?) })
    }

    /// A ring in this process's own memory.
    ///
    /// # Errors
    /// [`Error::Capacity`].
    pub fn on_heap(capacity: u32) -> Result<Self, Error> {
        Ok(Self { memory: Arc::new(Memory::on_heap(capacity)?) })
    }

    /// The shared region it lies in; none for a ring on the heap.
    #[must_use]
    pub fn region(&self) -> Option<&Region> {
        self.memory.region()
    }

    /// Entries it has room for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.memory.capacity()
    }

    /// The producing end, continuing where the ring stands. There must be no other live one, and what a dead
    /// one passed on must have been read.
    #[must_use]
    pub fn producer(&self) -> Producer {
        let header = self.memory.header();
        let line = &header.passed.0;
        let head = header.producer.0.head.load(Relaxed);
        // A successor counts its turns anew: in the one that its predecessor died in, it has passed on nothing.
        line.mark.store(head, Release);
        // A tail of head - capacity reads as full until the first look at the real one.
        let tail = head.wrapping_sub(self.capacity());
        let turn = line.turn.load(Relaxed);
        Producer {
            memory: Arc::clone(&self.memory),
            head,
            published: head,
            mark: head,
            tail,
            turn,
            violated: false,
        }
    }

    /// The consuming end, continuing where the ring stands. There must be no other live one.
    #[must_use]
    pub fn consumer(&self) -> Consumer {
        let tail = self.memory.header().consumer.0.tail.load(Relaxed);
        Consumer { memory: Arc::clone(&self.memory), tail, taken: tail, head: tail }
    }

    /// The position up to which entries have been published.
    #[must_use]
    pub fn published(&self) -> u32 {
        self.memory.header().producer.0.head.load(Acquire)
    }

    /// Whether the consumer has released all entries before a position that [`Ring::published`] told.
    #[must_use]
    pub fn is_released_to(&self, position: u32) -> bool {
        let tail = self.memory.header().consumer.0.tail.load(Acquire);
        position.wrapping_sub(tail) > self.capacity() || position == tail
    }

    /// Entries that are not released, as the peers' positions say (at most the capacity).
    #[must_use]
    pub fn occupancy(&self) -> u32 {
        let header = self.memory.header();
        let tail = header.consumer.0.tail.load(Acquire);
        header.producer.0.head.load(Acquire).wrapping_sub(tail).min(self.capacity())
    }

    /// All entries between tail and head, without taking them. Exact only while both ends rest.
    #[must_use]
    pub fn entries(&self) -> Vec<Descriptor> {
        let header = self.memory.header();
        let tail = header.consumer.0.tail.load(Acquire);
        let head = header.producer.0.head.load(Acquire);
        self.between(tail, head)
    }

    pub(super) fn between(&self, from: u32, to: u32) -> Vec<Descriptor> {
        let n = to.wrapping_sub(from);
        if n > self.capacity() {
            return Vec::new();
        }
        let (straight, rest) = self.memory.span(from, n);
        straight.iter().chain(rest).map(read).collect()
    }
}

#[inline(always)]
fn read(slot: &Slot) -> Descriptor {
    Descriptor::from_words([slot.0[0].load(Relaxed), slot.0[1].load(Relaxed)])
}

#[inline(always)]
fn write(slot: &Slot, descriptor: Descriptor) {
    let [first, second] = descriptor.words();
    slot.0[0].store(first, Relaxed);
    slot.0[1].store(second, Relaxed);
}

/// The end that writes.
pub struct Producer {
    memory: Handle,
    /// Position after the last pushed entry.
    head: u32,
    /// Position after the last published entry.
    published: u32,
    /// What `published` was when the turn began; in a turn that overran, what `head` was then.
    mark: u32,
    /// The consumer's tail when last looked at.
    tail: u32,
    /// The last turn written to the producer's line.
    turn: u32,
    /// The consumer's tail was nonsense.
    violated: bool,
}

impl Producer {
    /// Entries that can be pushed now, 0..=capacity. Looks at the consumer's line only when fewer than
    /// `enough` are known to be free; a tail that cannot be counts as full.
    #[inline(always)]
    pub fn room(&mut self, enough: u32) -> u32 {
        let capacity = self.memory.capacity();
        let used = self.head.wrapping_sub(self.tail);
        if used + enough <= capacity {
            return capacity - used;
        }
        self.look()
    }

    #[inline(never)]
    fn look(&mut self) -> u32 {
        // SYNC POINT: release
        let tail = self.memory.header().consumer.0.tail.load(Acquire);
        let used = self.head.wrapping_sub(tail);
        let capacity = self.memory.capacity();
        if used > capacity {
            self.violated = true;
            return 0;
        }
        self.tail = tail;
        capacity - used
    }

    /// Whether the consumer ever wrote a tail that cannot be; the ring then counts as full.
    #[must_use]
    pub fn is_violated(&self) -> bool {
        self.violated
    }

    /// Puts an entry after the last one; it is not visible before [`Producer::publish`].
    ///
    /// # Errors
    /// The descriptor itself when the ring is full.
    #[inline(always)]
    pub fn push(&mut self, turn: u32, descriptor: Descriptor) -> Result<(), Descriptor> {
        if self.room(1) == 0 {
            return Err(descriptor);
        }
        if self.turn != turn {
            self.begin(turn);
        }
        if self.head.wrapping_sub(self.mark) >= self.memory.capacity() {
            self.overrun();
        }
        write(self.memory.slot(self.head), descriptor);
        self.head = self.head.wrapping_add(1);
        Ok(())
    }

    /// Puts as many entries after the last one as there is room for; returns how many. It asks the iterator for
    /// no more than those.
    #[inline(always)]
    pub fn push_all(&mut self, turn: u32, descriptors: impl ExactSizeIterator<Item = Descriptor>) -> usize {
        let wanted = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
        let n = self.room(wanted).min(wanted);
        if n == 0 {
            return 0;
        }
        if self.turn != turn {
            self.begin(turn);
        }
        if self.head.wrapping_sub(self.mark) + n > self.memory.capacity() {
            self.overrun();
        }
        let (straight, rest) = self.memory.span(self.head, n);
        let mut descriptors = descriptors;
        // Slots first: a zip asks its second part for nothing when the first has ended.
        for (slot, descriptor) in straight.iter().zip(descriptors.by_ref()) {
            write(slot, descriptor);
        }
        for (slot, descriptor) in rest.iter().zip(descriptors) {
            write(slot, descriptor);
        }
        self.head = self.head.wrapping_add(n);
        n as usize
    }

    #[inline(always)]
    fn begin(&mut self, turn: u32) {
        let line = &self.memory.header().passed.0;
        // The mark before the turn: between the two the old turn still stands, and says nothing was passed on.
        line.mark.store(self.published, Release);
        line.turn.store(turn, Release);
        self.turn = turn;
        self.mark = self.published;
    }

    /// Says that the slots no longer tell what this turn passed on: its next entry overwrites its first.
    #[cold]
    #[inline(never)]
    fn overrun(&mut self) {
        let never = self.head.wrapping_add(1 << 31);
        self.memory.header().passed.0.mark.store(never, Release);
        // Before the slot is written, in program order, which is the order that a death keeps.
        compiler_fence(SeqCst);
        self.mark = self.head;
    }

    /// Makes everything pushed visible; true if there was anything.
    #[inline(always)]
    pub fn publish(&mut self) -> bool {
        if self.head == self.published {
            return false;
        }
        // SYNC POINT: publish
        self.memory.header().producer.0.head.store(self.head, Release);
        self.published = self.head;
        true
    }

    /// Entries pushed or published that the consumer had not released when last looked at.
    #[must_use]
    #[inline(always)]
    pub fn in_flight(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// Entries that the ring has room for when it is empty.
    #[must_use]
    #[inline(always)]
    pub fn ring_capacity(&self) -> u32 {
        self.memory.capacity()
    }

    /// The ring this is an end of.
    #[must_use]
    pub fn ring(&self) -> Ring {
        Ring { memory: Arc::clone(&self.memory) }
    }

    #[inline(always)]
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// The end that reads.
pub struct Consumer {
    memory: Handle,
    /// Position of the oldest entry that is not released.
    pub(super) tail: u32,
    /// Position after the last entry taken.
    pub(super) taken: u32,
    /// The producer's head when last looked at.
    pub(super) head: u32,
}

impl Consumer {
    /// Entries ready to be taken. Looks at the producer's line only when fewer than `enough` are known.
    ///
    /// # Errors
    /// [`Violation`] when the producer's head cannot be.
    #[inline(always)]
    pub fn available(&mut self, enough: u32) -> Result<u32, Violation> {
        let known = self.head.wrapping_sub(self.taken);
        if known >= enough {
            return Ok(known);
        }
        // SYNC POINT: publish
        let head = self.memory.header().producer.0.head.load(Acquire);
        if head.wrapping_sub(self.tail) > self.memory.capacity() || head.wrapping_sub(self.taken) < known {
            return Err(Violation);
        }
        self.head = head;
        Ok(head.wrapping_sub(self.taken))
    }

    /// Takes up to `max` entries into `burst` in the given turn; returns how many. They stay the consumer's
    /// to answer for until [`Consumer::release`].
    ///
    /// # Errors
    /// [`Violation`] as for [`Consumer::available`].
    #[inline(always)]
    pub fn take(&mut self, turn: u32, burst: &mut [Descriptor]) -> Result<usize, Violation> {
        self.take_each(turn, burst, |descriptor| descriptor)
    }

    /// The same, with a look at each entry on its way: what `see` makes of it stands in `burst`.
    ///
    /// # Errors
    /// [`Violation`] as for [`Consumer::available`].
    #[inline(always)]
    pub fn take_each(
        &mut self,
        turn: u32,
        burst: &mut [Descriptor],
        mut see: impl FnMut(Descriptor) -> Descriptor,
    ) -> Result<usize, Violation> {
        let max = u32::try_from(burst.len()).unwrap_or(u32::MAX);
        let n = self.available(max)?.min(max);
        if n == 0 {
            return Ok(0);
        }
        let line = &self.memory.header().hand.0;
        let first = self.taken;
        self.taken = first.wrapping_add(n);
        // Turn before taken, and both before the first byte of a packet is touched. A death keeps program order
        // on any processor; the compiler keeps what is before a Release store before it, but may bring what is
        // after it forward, and the fence forbids that.
        line.turn.store(turn, Release);
        line.taken.store(self.taken, Release);
        compiler_fence(SeqCst);
        let (straight, rest) = self.memory.span(first, n);
        let (before, after) = burst.split_at_mut(straight.len());
        for (entry, slot) in before.iter_mut().zip(straight) {
            *entry = see(read(slot));
        }
        for (entry, slot) in after.iter_mut().zip(rest) {
            *entry = see(read(slot));
        }
        Ok(n as usize)
    }

    /// Gives back all slots taken. Call it only after what came of the entries is published elsewhere.
    #[inline(always)]
    pub fn release(&mut self) {
        if self.tail != self.taken {
            self.tail = self.taken;
            // SYNC POINT: release
            self.memory.header().consumer.0.tail.store(self.tail, Release);
        }
    }

    /// Gives back the oldest `n` of the entries taken (at most all of them), and keeps the rest.
    pub fn release_oldest(&mut self, n: u32) {
        let n = n.min(self.taken.wrapping_sub(self.tail));
        self.tail = self.tail.wrapping_add(n);
        // SYNC POINT: release
        self.memory.header().consumer.0.tail.store(self.tail, Release);
    }

    /// Gives back the first `n` of the entries taken, and forgets having taken the rest: they will be taken again.
    #[inline(always)]
    pub fn release_first(&mut self, n: u32) {
        self.taken = self.tail.wrapping_add(n);
        self.release();
    }

    /// The ring this is an end of.
    #[must_use]
    pub fn ring(&self) -> Ring {
        Ring { memory: Arc::clone(&self.memory) }
    }

    #[inline(always)]
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} of {})", self.occupancy(), self.capacity())
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Producer(head {}, published {}, turn {})", self.head, self.published, self.turn)
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Consumer(tail {}, taken {}, head {})", self.tail, self.taken, self.head)
    }
}

#[cfg(test)]
impl Ring {
    /// Writes any positions, as a hostile peer could.
    pub(super) fn scribble(&self, head: u32, mark: u32, tail: u32, taken: u32, turn: u32) {
        let header = self.memory.header();
        header.producer.0.head.store(head, Relaxed);
        header.passed.0.mark.store(mark, Relaxed);
        header.passed.0.turn.store(turn, Relaxed);
        header.consumer.0.tail.store(tail, Relaxed);
        header.hand.0.taken.store(taken, Relaxed);
    }
}
