//! A burst of packets in an NF's hands.
//!
//! A [`Burst`] exists only while the runtime runs the NF over it. Everything in it is the NF's alone for that
//! time, which is why packet bytes may be plain slices here. NFs that only read say so in their type
//! ([`ReadOnly`]); they get a pool they cannot write, and their packets survive even their crash.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;

use super::Verdict;
use crate::pool::{HEADROOM, Pool};
use crate::ring::{Descriptor, Destination, MAX_OFFSET, Op};

/// Most packets that an NF gets at once.
pub const MAX_BURST: usize = 64;
/// The same, as rings count.
pub(crate) const MAX_ENTRIES: u32 = 64;
const _: () = assert!(MAX_ENTRIES as usize == MAX_BURST);
/// Packets that an NF can hold back at a time.
pub(crate) const HELD: usize = 1024;

/// What an NF may do with packet bytes: [`ReadOnly`] or [`ReadWrite`].
pub trait Access: sealed::Sealed + 'static {
    /// Whether bytes may be changed.
    const WRITES: bool;
}

/// The NF only looks; its pool is mapped for reading, and what it held when it crashed goes on untouched.
#[derive(Debug)]
pub enum ReadOnly {}

/// The NF changes packets.
#[derive(Debug)]
pub enum ReadWrite {}

impl Access for ReadOnly {
    const WRITES: bool = false;
}

impl Access for ReadWrite {
    const WRITES: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ReadOnly {}
    impl Sealed for super::ReadWrite {}
}

/// Time as an NF sees it: live the wall clock, read at most once a turn; in a replay the capture's time.
#[derive(Debug, Default)]
pub struct Clock {
    now_ns: Cell<u64>,
    fixed: bool,
}

impl Clock {
    /// A clock that shows what it is set to: for replays.
    #[must_use]
    pub fn fixed(now_ns: u64) -> Self {
        Self { now_ns: Cell::new(now_ns), fixed: true }
    }

    /// A new turn has begun.
    #[inline(always)]
    pub(crate) fn turn(&self) {
        if !self.fixed {
            self.now_ns.set(0);
        }
    }

    pub(crate) fn set(&self, now_ns: u64) {
        self.now_ns.set(now_ns);
    }

    /// Nanoseconds since 1970-01-01 UTC.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        if self.now_ns.get() == 0 && !self.fixed {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            self.now_ns.set(since.map_or(1, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)));
        }
        self.now_ns.get()
    }
}

/// Packets held back: where the reaper can see them, and where the NF finds them again.
pub(crate) trait Held {
    /// Writes a descriptor down; its number, or none when the table is full.
    fn hold(&mut self, descriptor: Descriptor) -> Option<u32>;
    /// The descriptor with a number; it stays written down until the turn is over.
    fn release(&mut self, ticket: u32) -> Option<Descriptor>;
}

/// Packets that an NF makes itself, in buffers that came empty.
#[derive(Debug, Default)]
pub struct Emitter {
    /// Empty buffers of this turn, oldest first; the first `used` have been turned into packets.
    pub(crate) empties: Vec<Descriptor>,
    pub(crate) used: usize,
    /// What came of them, and held packets that were let go; dispatched when the turn ends.
    pub(crate) made: Vec<Descriptor>,
}

impl Emitter {
    /// Empty buffers left in this turn.
    #[must_use]
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.empties.len() - self.used
    }

    #[inline(always)]
    fn next(&mut self, length: usize, pool: &Pool) -> Option<&mut Descriptor> {
        let length = u32::try_from(length).ok().filter(|l| *l <= pool.geometry().packet_room())?;
        let empty = *self.empties.get(self.used)?;
        self.used += 1;
        let fresh = Descriptor::new(empty.buffer(), empty.generation(), HEADROOM, length)
            .with_port(Descriptor::NO_PORT)
            .with_destination(Destination::new(Op::Next, 0));
        self.made.push(fresh);
        self.made.last_mut()
    }
}

/// Packets in an NF's hands, and the means to make new ones.
pub struct Burst<'a, A: Access> {
    pool: &'a Pool,
    descriptors: &'a mut [Descriptor],
    emitter: &'a mut Emitter,
    mirrors: &'a mut Vec<(usize, Destination)>,
    held: &'a mut dyn Held,
    clock: &'a Clock,
    access: PhantomData<A>,
}

impl<'a, A: Access> Burst<'a, A> {
    /// # Safety
    /// Until the burst is dropped the caller, and through it the NF, is the one holder of every buffer that
    /// `descriptors` and `emitter.empties` name, all of those are in the pool, none is named twice, and the pool is
    /// mapped as `A` says.
    pub(crate) unsafe fn new(
        pool: &'a Pool,
        descriptors: &'a mut [Descriptor],
        emitter: &'a mut Emitter,
        mirrors: &'a mut Vec<(usize, Destination)>,
        held: &'a mut dyn Held,
        clock: &'a Clock,
    ) -> Self {
        Self { pool, descriptors, emitter, mirrors, held, clock, access: PhantomData }
    }

    /// Number of packets that came in.
    #[must_use]
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether no packet came in, as in a tick.
    #[must_use]
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// Bytes of all packets that came in, without a look at any of them.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.descriptors.iter().map(|d| u64::from(d.length())).sum()
    }

    /// The packets that came in, in order.
    #[inline(always)]
    pub fn packets(&mut self) -> impl ExactSizeIterator<Item = Packet<'_, A>> {
        let pool = self.pool;
        self.descriptors.iter_mut().map(move |d| Packet { pool, descriptor: d, access: PhantomData })
    }

    /// One of the packets that came in.
    ///
    /// # Panics
    /// When `index` is not below [`Burst::len`].
    #[inline(always)]
    pub fn packet(&mut self, index: usize) -> Packet<'_, A> {
        Packet { pool: self.pool, descriptor: &mut self.descriptors[index], access: PhantomData }
    }

    /// Gives all packets the same verdict.
    #[inline(always)]
    pub fn set_all(&mut self, verdict: Verdict) {
        for d in self.descriptors.iter_mut().filter(|d| d.destination() != Destination::HELD) {
            *d = d.with_destination(verdict.encode(d.destination()));
        }
    }

    /// Time of this turn, in nanoseconds since 1970-01-01 UTC: the wall clock, in a replay the capture's.
    #[must_use]
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Sends a copy of a packet to a further service or port; the manager makes the copy. The packet itself
    /// takes the way through the manager too, so a flow of which only some packets are mirrored may be reordered.
    ///
    /// # Panics
    /// When `index` is not below [`Burst::len`].
    pub fn mirror(&mut self, index: usize, to: Verdict) {
        assert!(index < self.descriptors.len(), "packet {index} is not in the burst");
        self.mirrors.push((index, to.encode(Destination::new(Op::Next, 0))));
    }

    /// Keeps a packet back. It is no part of the burst any more; [`Burst::release`] brings it back.
    /// None, and the packet goes on with its verdict, when 1,024 are held already.
    ///
    /// # Panics
    /// When `index` is not below [`Burst::len`].
    pub fn hold(&mut self, index: usize) -> Option<u32> {
        let d = self.descriptors[index];
        if d.destination() == Destination::HELD {
            return None;
        }
        let ticket = self.held.hold(d)?;
        self.descriptors[index] = d.with_destination(Destination::HELD);
        Some(ticket)
    }

    /// Lets a held packet go at the end of this turn, with the verdict that it had or is given now.
    pub fn release(&mut self, ticket: u32) -> Option<Packet<'_, A>> {
        let descriptor = self.held.release(ticket)?;
        self.emitter.made.push(descriptor);
        let descriptor = self.emitter.made.last_mut()?;
        Some(Packet { pool: self.pool, descriptor, access: PhantomData })
    }

    /// Packets that can be made in this turn; always 0 for NFs that do not set `EMITS`.
    #[must_use]
    #[inline(always)]
    pub fn can_make(&self) -> usize {
        self.emitter.room()
    }
}

impl Burst<'_, ReadWrite> {
    /// Makes a packet of `length` bytes, whose contents are whatever the buffer held before.
    /// None when there is no empty buffer in this turn or the packet does not fit one.
    #[inline(always)]
    pub fn make(&mut self, length: usize) -> Option<Packet<'_, ReadWrite>> {
        let pool = self.pool;
        let descriptor = self.emitter.next(length, pool)?;
        Some(Packet { pool, descriptor, access: PhantomData })
    }
}

impl<A: Access> std::fmt::Debug for Burst<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.descriptors.iter()).finish()
    }
}

/// One packet in an NF's hands.
#[derive(Debug)]
pub struct Packet<'a, A: Access> {
    pool: &'a Pool,
    descriptor: &'a mut Descriptor,
    access: PhantomData<A>,
}

impl<A: Access> Packet<'_, A> {
    /// The frame, from its Ethernet header on.
    #[must_use]
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: Burst::new's caller promised that the descriptor is in the pool and that nobody else holds the
        // buffer; all that moves its place (pull, push, extend, truncate) keeps it inside. The borrow is self's.
        unsafe {
            let (start, length) = self.pool.place_checked_before(*self.descriptor);
            std::slice::from_raw_parts(start.as_ptr(), length)
        }
    }

    /// Symmetric hash of its flow (equal in both directions).
    #[must_use]
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        self.descriptor.hash()
    }

    /// Port that it came in by; none when an NF made it.
    #[must_use]
    #[inline(always)]
    pub fn port(&self) -> Option<u8> {
        Some(self.descriptor.port()).filter(|p| *p != Descriptor::NO_PORT)
    }

    /// When the port received it, in nanoseconds since 1970-01-01 UTC; 0 where nobody said.
    #[must_use]
    pub fn timestamp_ns(&self) -> u64 {
        self.pool.note(self.descriptor.buffer()).timestamp_ns
    }

    /// Bytes that it had on the wire: more than are here when a capture cut it, fewer when its link header there was
    /// shorter than Ethernet's.
    #[must_use]
    pub fn wire_length(&self) -> usize {
        let noted = self.pool.note(self.descriptor.buffer()).wire_length as usize;
        if noted > 0 { noted } else { self.descriptor.length() as usize }
    }

    /// Says where it goes; [`Verdict::Next`] if never called.
    #[inline(always)]
    pub fn set_verdict(&mut self, verdict: Verdict) {
        // A packet that is held back is no longer in the burst: its verdict comes with its release.
        if self.descriptor.destination() == Destination::HELD {
            return;
        }
        *self.descriptor = self.descriptor.with_destination(verdict.encode(self.descriptor.destination()));
    }

    /// Cuts bytes off the end, to `length`; does nothing when it is that short already.
    pub fn truncate(&mut self, length: usize) {
        if let Ok(length) = u32::try_from(length)
            && length < self.descriptor.length()
        {
            *self.descriptor = self.descriptor.with_place(self.descriptor.offset(), length);
        }
    }

    /// Cuts `n` bytes off the front, as after removing an outer header. False, and nothing happens, when the
    /// packet is shorter or would start beyond byte 2,047 of its buffer.
    #[must_use]
    pub fn pull(&mut self, n: usize) -> bool {
        let d = *self.descriptor;
        let Some(n) = u32::try_from(n).ok().filter(|n| *n <= d.length() && d.offset() + n <= MAX_OFFSET)
        else {
            return false;
        };
        *self.descriptor = d.with_place(d.offset() + n, d.length() - n);
        true
    }
}

impl Packet<'_, ReadWrite> {
    /// The frame, to change.
    #[must_use]
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in bytes; the borrow of self is exclusive, and ReadWrite says the mapping is writable.
        unsafe {
            let (start, length) = self.pool.place_checked_before(*self.descriptor);
            std::slice::from_raw_parts_mut(start.as_ptr(), length)
        }
    }

    /// Makes room for `n` bytes at the front. False, and nothing happens, when the headroom (192 bytes as
    /// received) is used up.
    #[must_use]
    pub fn push(&mut self, n: usize) -> bool {
        let d = *self.descriptor;
        let Some(n) = u32::try_from(n).ok().filter(|n| *n <= d.offset()) else { return false };
        *self.descriptor = d.with_place(d.offset() - n, d.length() + n);
        true
    }

    /// Adds `n` bytes at the end, whatever they hold. False, and nothing happens, when the buffer is full.
    #[must_use]
    pub fn extend(&mut self, n: usize) -> bool {
        let d = *self.descriptor;
        let room = self.pool.geometry().room() - d.offset() - d.length();
        let Some(n) = u32::try_from(n).ok().filter(|n| *n <= room) else { return false };
        *self.descriptor = d.with_place(d.offset(), d.length() + n);
        true
    }

    /// Gives a packet that the NF made the hash by which instances and slots are chosen.
    pub fn set_hash(&mut self, hash: u32) {
        *self.descriptor = self.descriptor.with_hash(hash);
    }

    /// Counts its hops from here: for an NF that takes its own packet back and sends it as a new one.
    pub fn restart_hops(&mut self) {
        *self.descriptor = self.descriptor.with_hop(0);
    }
}
