//! The manager's private record of every buffer: free, or out with whom, and for the how-manieth time.
//!
//! A worker's [`Packet`] is a token that cannot be copied: it is made by taking a buffer from the free list
//! ([`Books::allocate`]) or by checking a descriptor that came back ([`Books::receive`]), and it ends in
//! exactly one of [`Books::free`] and [`Books::hand_out`]. So the compiler, and not care, keeps a worker from
//! freeing a buffer twice or touching one that it gave away.
//!
//! States of a record: `home → (out with a holder → home)*`. Whether a buffer that is home is free or in a worker's hands is
//! told by where its name is: on the free list or in a token. A descriptor is believed when buffer, generation
//! and holder all match the record. The generation stands in the token, on the free list, and in the record of a buffer that
//! is out; it goes up each time the buffer is freed. It starts at a random value, so that a hostile NF cannot guess the
//! descriptors of buffers that it was never given.
//!
//! What is done for every packet is also there for bursts, with one look at each record and none of the lists
//! growing entry by entry: [`Books::fill`], [`Books::receive_run`], [`Books::discard_run`].
#![allow(unsafe_code)]

use super::{Note, Pool};
use crate::ring::{Descriptor, Destination};

/// Buffers between the one that is allocated and the one that is fetched.
const AHEAD: usize = 8;
/// The bits of a descriptor's first word that name a buffer and its generation.
const IDENTITY: u64 = 0xff_ffff_ffff;

/// Who has a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(u16);

impl Holder {
    /// Nobody outside: the buffer is free or in a worker's hands.
    const HOME: Self = Self(0);
    /// The NFs that share one pool and trust each other: which of them it is, their rings say.
    pub const SHARED: Self = Self(2);
    const EMPTY: u16 = 0x8000;

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

/// Why a descriptor that came back was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It names no place in the pool.
    OutOfPool,
    /// The buffer is not out with whoever sent the descriptor, or not any more.
    NotHeld,
}

/// A packet in a worker's hands.
#[derive(Debug)]
#[must_use = "a packet that is neither freed nor handed out is a lost buffer"]
pub struct Packet {
    descriptor: Descriptor,
}

impl Packet {
    /// The descriptor that names it.
    #[must_use]
    #[inline(always)]
    pub fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    /// Replaces everything but buffer and generation.
    #[inline(always)]
    pub fn describe(&mut self, descriptor: Descriptor) {
        debug_assert!(descriptor.same_holding(self.descriptor));
        if descriptor.same_holding(self.descriptor) {
            self.descriptor = descriptor;
        }
    }

    /// Says where it goes.
    #[inline(always)]
    pub fn set_destination(&mut self, destination: Destination) {
        self.descriptor = self.descriptor.with_destination(destination);
    }

    /// Its bytes.
    #[must_use]
    #[inline(always)]
    pub fn bytes<'a>(&'a self, pool: &Pool) -> &'a [u8] {
        // SAFETY: a Packet exists once for each buffer that the books say a worker holds.
        unsafe { pool.bytes(self.descriptor) }
    }

    /// Copies its bytes to the same place of another pool of the same sizes.
    pub fn copy_into(&self, from: &Pool, to: &Pool) {
        // SAFETY: the source is ours (bytes); nobody has been told yet that the same buffer of the other pool is in use.
        let (source, target) = unsafe { (from.bytes(self.descriptor), to.bytes_mut(self.descriptor)) };
        target.copy_from_slice(source);
    }

    /// Copies its bytes from the same place of another pool of the same sizes, whose user has given it back.
    pub fn copy_from(&self, to: &Pool, from: &Pool) {
        self.copy_into(from, to);
    }

    /// Its bytes, to write.
    #[must_use]
    #[inline(always)]
    pub fn bytes_mut<'a>(&'a mut self, pool: &Pool) -> &'a mut [u8] {
        // SAFETY: as in bytes; the worker's mapping is writable and the borrow of self is exclusive.
        unsafe { pool.bytes_mut(self.descriptor) }
    }
}

/// Generation (high half) and holder (low half) of one buffer, compared as one word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Record(u32);

impl Record {
    const HOME: Self = Self(Holder::HOME.0 as u32);

    #[inline(always)]
    fn new(generation: u16, holder: Holder) -> Self {
        Self(u32::from(generation) << 16 | u32::from(holder.0))
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // the high half is 16 bits
    fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    fn holder(self) -> Holder {
        Holder((self.0 & 0xffff) as u16)
    }
}

/// What is known of one buffer, in a quarter of a cache line: the note, taken apart, and the record.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
struct Entry {
    timestamp_ns: u64,
    wire_length: u32,
    record: Record,
}

const _: () = assert!(size_of::<Entry>() == 16);

impl Entry {
    #[inline(always)]
    fn has(&self, note: Note) -> bool {
        self.timestamp_ns == note.timestamp_ns && self.wire_length == note.wire_length
    }

    #[inline(always)]
    fn set_note(&mut self, note: Note) {
        (self.timestamp_ns, self.wire_length) = (note.timestamp_ns, note.wire_length);
    }
}

/// The name of a free buffer: its index, and the generation that it will have when it is allocated.
type Name = u64;

/// What becomes of a packet's name when its buffer is freed.
#[inline(always)]
fn name_when_freed(descriptor: Descriptor) -> Name {
    // What overflows the generation goes where the mask cuts it off.
    (descriptor.words()[0] + (1 << 24)) & IDENTITY
}

/// The free list and the entries. There is an entry for each buffer of the pool, and room for all on the free list.
#[derive(Debug)]
pub struct Books {
    pool: Pool,
    free: Vec<Name>,
    entries: Box<[Entry]>,
    empties_out: u32,
    generated: u64,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{:?}", self.generation(), self.holder())
    }
}

impl Books {
    /// Books for a pool of which every buffer is free. `seed` scatters the first generations.
    #[must_use]
    pub fn new(pool: Pool, seed: u64) -> Self {
        let buffers = pool.geometry().buffers();
        let mut state = seed | 1;
        let mut scatter = move || {
            // xorshift64: the generations need to be unpredictable to an NF, which never sees the seed.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24 & 0xffff) as u16
        };
        let free = (0..buffers).rev().map(|i| Descriptor::new(i, scatter(), 0, 0).words()[0]).collect();
        let entry = Entry { timestamp_ns: 0, wire_length: 0, record: Record::HOME };
        let entries = vec![entry; buffers as usize].into();
        Self { pool, free, entries, empties_out: 0, generated: 0 }
    }

    /// The pool that these are the books of.
    #[must_use]
    #[inline(always)]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Buffers on the free list.
    #[must_use]
    #[inline(always)]
    pub fn free_count(&self) -> u32 {
        // The list never holds more than there are buffers, a u32.
        u32::try_from(self.free.len()).unwrap_or(u32::MAX)
    }

    /// Buffers with NFs that came to them without a packet and have not come back.
    #[must_use]
    pub fn empties_out(&self) -> u32 {
        self.empties_out
    }

    /// Packets that NFs made in such buffers and that came to a worker.
    #[must_use]
    pub fn generated(&self) -> u64 {
        self.generated
    }

    /// Takes a buffer off the free list: the most recently freed, whose lines are still in the cache.
    /// The packet is `length` bytes behind the headroom, its contents as the last holder left them.
    #[inline(always)]
    pub fn allocate(&mut self, length: u32) -> Option<Packet> {
        let name = self.free.pop()?;
        let [_, place] = Descriptor::new(0, 0, super::HEADROOM, length).words();
        // The buffer that is a few allocations away: its line may be in another processor's cache.
        if let Some(soon) = self.free.len().checked_sub(AHEAD).map(|i| self.free[i]) {
            self.pool.prefetch_to_write(Descriptor::from_words([soon, place]));
        }
        Some(Packet { descriptor: Descriptor::from_words([name, place]) })
    }

    /// Makes packets of frames, as many as there are free buffers, and appends them to `burst`; returns their number and
    /// bytes. With each frame comes the hash of its flow.
    ///
    /// # Panics
    /// When a frame is longer than a buffer has room for.
    #[inline(never)]
    pub fn fill<'a>(
        &mut self,
        frames: impl ExactSizeIterator<Item = (&'a [u8], u32)>,
        timestamp_ns: u64,
        burst: &mut Vec<Packet>,
    ) -> (usize, u64) {
        let made = frames.len().min(self.free.len());
        let left = self.free.len() - made;
        let names = &self.free[left..];
        let (pool, entries, room) = (&self.pool, &mut *self.entries, self.pool.geometry().packet_room());
        // All at once: the lines come from the other processor's cache while the first are written.
        for name in names {
            pool.prefetch_to_write(Descriptor::from_words([*name, 0]).with_place(super::HEADROOM, 0));
        }
        burst.reserve(made);
        let mut bytes = 0;
        let slots = burst.spare_capacity_mut().iter_mut();
        for ((slot, name), (frame, hash)) in slots.zip(names.iter().rev()).zip(frames) {
            assert!(frame.len() <= room as usize, "a frame of {} bytes does not fit a buffer", frame.len());
            #[allow(clippy::cast_possible_truncation)] // just compared with a u32
            let length = frame.len() as u32;
            bytes += u64::from(length);
            let [_, place] = Descriptor::new(0, 0, super::HEADROOM, length).with_hash(hash).words();
            let descriptor = Descriptor::from_words([*name, place]);
            // SAFETY: names on the free list are of the pool, the place was just checked, and nobody has the buffer.
            unsafe { copy(frame, pool.place_checked_before(descriptor).0) };
            let entry = &mut entries[descriptor.buffer() as usize];
            let note = Note { timestamp_ns, wire_length: length };
            if !entry.has(note) {
                entry.set_note(note);
                pool.set_note(descriptor.buffer(), note);
            }
            slot.write(Packet { descriptor });
        }
        // SAFETY: there were `made` names and frames, so as many slots have been written.
        unsafe { burst.set_len(burst.len() + made) };
        self.free.truncate(left);
        (made, bytes)
    }

    /// Puts a buffer back on the free list.
    #[inline(always)]
    #[allow(clippy::needless_pass_by_value)] // the token ends here
    pub fn free(&mut self, packet: Packet) {
        debug_assert_eq!(self.entries[packet.descriptor.buffer() as usize].record, Record::HOME);
        self.free.push(name_when_freed(packet.descriptor));
    }

    /// Puts the buffers of a burst back on the free list; returns the bytes that the packets had.
    #[inline]
    pub fn free_all(&mut self, burst: &mut Vec<Packet>) -> u64 {
        let mut bytes = 0;
        self.free.extend(burst.drain(..).map(|packet| {
            bytes += u64::from(packet.descriptor.length());
            name_when_freed(packet.descriptor)
        }));
        bytes
    }

    /// Gives a packet to a holder; returns the descriptor to be pushed to it.
    #[inline(always)]
    #[allow(clippy::needless_pass_by_value)] // the token ends here
    pub fn hand_out(&mut self, packet: Packet, holder: Holder) -> Descriptor {
        let descriptor = packet.descriptor;
        if holder.0 & Holder::EMPTY != 0 {
            self.empties_out += 1;
        }
        self.entries[descriptor.buffer() as usize].record = Record::new(descriptor.generation(), holder);
        descriptor
    }

    /// Gives all packets of a burst to a holder; the descriptors to be pushed, each with what `change` makes of it.
    #[inline(always)]
    pub fn hand_out_all<'a>(
        &'a mut self,
        burst: &'a mut Vec<Packet>,
        holder: Holder,
        change: impl Fn(Descriptor) -> Descriptor + 'a,
    ) -> impl ExactSizeIterator<Item = Descriptor> + 'a {
        debug_assert!(holder.0 & Holder::EMPTY == 0, "empty buffers are counted one by one");
        let entries = &mut *self.entries;
        let n = burst.len();
        // SAFETY: 0 is within the capacity. The tokens end here; what they say is read once more below.
        unsafe { burst.set_len(0) };
        burst.spare_capacity_mut()[..n].iter().map(move |ended| {
            // SAFETY: these were the first `n` of the vector a moment ago, and it is borrowed since.
            let Packet { descriptor } = unsafe { ended.assume_init_ref() };
            entries[descriptor.buffer() as usize].record = Record::new(descriptor.generation(), holder);
            change(*descriptor)
        })
    }

    /// Checks a descriptor that came from `holder` and takes the packet over.
    ///
    /// # Errors
    /// [`Refusal`]: the descriptor is to be counted and forgotten.
    #[inline(always)]
    pub fn receive(&mut self, descriptor: Descriptor, holder: Holder) -> Result<Packet, Refusal> {
        if !self.pool.contains(descriptor) {
            return Err(Refusal::OutOfPool);
        }
        if !self.take_home(descriptor, holder) {
            return self.receive_made(descriptor, holder);
        }
        Ok(Packet { descriptor })
    }

    /// Takes over the packets at the front of `descriptors`, as [`Books::receive`] does each, up to the first that is not
    /// plainly to be believed; appends them to `burst` and returns how many.
    #[inline(always)]
    pub fn receive_run(
        &mut self,
        descriptors: &[Descriptor],
        holder: Holder,
        burst: &mut Vec<Packet>,
    ) -> usize {
        burst.reserve(descriptors.len());
        for (i, descriptor) in descriptors.iter().enumerate() {
            if self.pool.misfit(*descriptor) >> 63 != 0 || !self.take_home(*descriptor, holder) {
                return i;
            }
            burst.push(Packet { descriptor: *descriptor });
        }
        descriptors.len()
    }

    /// The same for packets that end here: their buffers are freed. How many, and their bytes.
    #[inline(never)]
    pub fn discard_run(&mut self, descriptors: &[Descriptor], holder: Holder) -> (usize, u64) {
        let (mut done, mut bytes) = (0, 0);
        let (entries, room) = (&mut *self.entries, self.pool.geometry().room());
        // There is room for all buffers on the list, so for all descriptors that are believed.
        for (slot, descriptor) in self.free.spare_capacity_mut().iter_mut().zip(descriptors) {
            let Some(entry) = entries.get_mut(descriptor.buffer() as usize) else { break };
            let known = entry.record == Record::new(descriptor.generation(), holder);
            if !known || descriptor.misplaced(room) >> 63 != 0 {
                break;
            }
            entry.record = Record::HOME;
            slot.write(name_when_freed(*descriptor));
            bytes += u64::from(descriptor.length());
            done += 1;
        }
        // SAFETY: so many slots behind the end have just been written.
        unsafe { self.free.set_len(self.free.len() + done) };
        (done, bytes)
    }

    /// Takes back a buffer if it is out with `holder`, with a packet, by just this name. There must be such a buffer.
    #[inline(always)]
    fn take_home(&mut self, descriptor: Descriptor, holder: Holder) -> bool {
        let record = &mut self.entries[descriptor.buffer() as usize].record;
        let is_out = *record == Record::new(descriptor.generation(), holder);
        if is_out {
            *record = Record::HOME;
        }
        is_out
    }

    /// The rare half of [`Books::receive`]: a packet that an NF made, or one that is not to be believed.
    #[inline(never)]
    fn receive_made(&mut self, descriptor: Descriptor, holder: Holder) -> Result<Packet, Refusal> {
        if !self.take_home(descriptor, holder.of_empty()) {
            return Err(Refusal::NotHeld);
        }
        self.empties_out -= 1;
        if descriptor.destination().op() != crate::ring::Op::Empty {
            self.generated += 1;
            self.entries[descriptor.buffer() as usize].set_note(Note::default());
        }
        Ok(Packet { descriptor })
    }

    /// Takes back every buffer that is out with `holder`, for holders that are known one by one.
    /// True stands beside those with a packet in them, false beside those that were handed out empty.
    pub fn reclaim(&mut self, holder: Holder) -> Vec<(Packet, bool)> {
        let held = |r: &Record| r.holder() == holder || r.holder() == holder.of_empty();
        let lost: Vec<Descriptor> = (0u32..)
            .zip(&self.entries)
            .filter(|(_, entry)| held(&entry.record))
            .map(|(buffer, entry)| Descriptor::new(buffer, entry.record.generation(), super::HEADROOM, 0))
            .collect();
        lost.into_iter()
            .map(|d| {
                let record = &mut self.entries[d.buffer() as usize].record;
                let full = record.holder() == holder;
                self.empties_out -= u32::from(!full);
                *record = Record::HOME;
                (Packet { descriptor: d }, full)
            })
            .collect()
    }

    /// Takes back a buffer by its name alone, whoever of the NFs has it: for what the audit proved lost.
    /// True stands beside it if there is a packet in it.
    pub fn recover(&mut self, buffer: u32) -> Option<(Packet, bool)> {
        let record = self.entries.get(buffer as usize)?.record;
        if record.holder() == Holder::HOME {
            return None;
        }
        let full = record.holder().0 & Holder::EMPTY == 0;
        self.empties_out -= u32::from(!full);
        self.entries[buffer as usize].record = Record::HOME;
        Some((Packet { descriptor: Descriptor::new(buffer, record.generation(), super::HEADROOM, 0) }, full))
    }

    /// What the input port knew of a packet; the manager's own copy, which no NF can change.
    #[must_use]
    #[inline(always)]
    pub fn note(&self, packet: &Packet) -> Note {
        let entry = &self.entries[packet.descriptor.buffer() as usize];
        Note { timestamp_ns: entry.timestamp_ns, wire_length: entry.wire_length }
    }

    /// Writes down what the input port knows of a packet, here and for NFs to read.
    #[inline(always)]
    pub fn set_note(&mut self, packet: &Packet, note: Note) {
        let buffer = packet.descriptor.buffer();
        let ours = &mut self.entries[buffer as usize];
        // The same as last time, as from a generator: the copy for NFs says so too, unless one of them lied to the others.
        if !ours.has(note) {
            ours.set_note(note);
            self.pool.set_note(buffer, note);
        }
    }

    /// Copies a packet into a fresh buffer; none when the pool is exhausted.
    pub fn duplicate(&mut self, packet: &Packet) -> Option<Packet> {
        let source = packet.descriptor;
        let mut copy = self.allocate(source.length())?;
        let fresh = copy.descriptor.with_place(source.offset(), source.length());
        copy.describe(fresh.with_hash(source.hash()).with_port(source.port()).with_hop(source.hop()));
        copy.bytes_mut(&self.pool).copy_from_slice(packet.bytes(&self.pool));
        let note = self.note(packet);
        self.set_note(&copy, note);
        Some(copy)
    }

    /// Buffers that are out with NFs, with the generation of each and whether a packet is in it.
    pub fn out(&self) -> impl Iterator<Item = (u32, u16, bool)> + '_ {
        (0u32..).zip(&self.entries).filter_map(|(buffer, entry)| {
            let (record, holder) = (entry.record, entry.record.holder());
            (holder != Holder::HOME).then(|| (buffer, record.generation(), holder.0 & Holder::EMPTY == 0))
        })
    }

    /// The record of a buffer when it is out with an NF: its generation.
    #[must_use]
    pub fn generation_out(&self, buffer: u32) -> Option<u16> {
        let record = self.entries.get(buffer as usize)?.record;
        (record.holder() != Holder::HOME).then(|| record.generation())
    }
}

/// Copies a frame to where a packet starts; the shortest, of which there are most, without a call.
///
/// # Safety
/// There are as many bytes at `to`, in a buffer that is in nobody else's hands.
#[inline(always)]
unsafe fn copy(frame: &[u8], to: std::ptr::NonNull<u8>) {
    // SAFETY: the caller vouches for the room; a frame is not in the pool that it is copied to.
    unsafe {
        match frame.first_chunk::<64>() {
            Some(short) if frame.len() == 64 => to.cast::<[u8; 64]>().write(*short),
            _ => std::ptr::copy_nonoverlapping(frame.as_ptr(), to.as_ptr(), frame.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Geometry;
    use super::*;
    use crate::ring::Op;
    use crate::shm::Pages;

    fn books(buffers: u32) -> Books {
        let pool = Pool::create(Geometry::new(buffers, 128).unwrap(), Pages::Plain).unwrap();
        Books::new(pool, 7)
    }

    #[test]
    fn a_buffer_comes_back_once() {
        let mut b = books(4);
        let packet = b.allocate(60).unwrap();
        let d = b.hand_out(packet, Holder::SHARED);
        let back = b.receive(d, Holder::SHARED).unwrap();
        b.free(back);
        assert_eq!(b.receive(d, Holder::SHARED).unwrap_err(), Refusal::NotHeld, "returned twice");
        let again = b.allocate(60).unwrap();
        let newer = b.hand_out(again, Holder::SHARED);
        assert_eq!(newer.buffer(), d.buffer());
        assert_eq!(b.receive(d, Holder::SHARED).unwrap_err(), Refusal::NotHeld, "an old generation");
        assert!(b.receive(newer, Holder::SHARED).map(|p| b.free(p)).is_ok());
        assert_eq!(b.free_count(), 4);
    }

    #[test]
    fn nobody_returns_what_another_holds() {
        let mut b = books(2);
        let packet = b.allocate(60).unwrap();
        let d = b.hand_out(packet, Holder::isolated(5));
        assert_eq!(b.receive(d, Holder::SHARED).unwrap_err(), Refusal::NotHeld);
        assert_eq!(b.receive(d, Holder::isolated(6)).unwrap_err(), Refusal::NotHeld);
        let never = Descriptor::new(1 - d.buffer(), 0, 0, 0);
        assert!(b.receive(never, Holder::SHARED).is_err(), "never handed out");
        assert_eq!(b.receive(Descriptor::new(2, 0, 0, 0), Holder::SHARED).unwrap_err(), Refusal::OutOfPool);
        let lost = b.reclaim(Holder::isolated(5));
        assert_eq!(lost.len(), 1);
        for (packet, full) in lost {
            assert!(full);
            b.free(packet);
        }
        assert_eq!(b.free_count(), 2);
    }

    #[test]
    fn bursts_are_filled_and_end_as_single_packets_do() {
        let mut b = books(4);
        let (frame, mut burst) = ([7; 60], Vec::new());
        assert_eq!(b.fill(std::iter::repeat_n((&frame[..], 5), 3), 9, &mut burst), (3, 180));
        assert!(burst.iter().all(|p| p.bytes(b.pool()) == frame && p.descriptor().hash() == 5));
        assert_eq!(b.note(&burst[0]), Note { timestamp_ns: 9, wire_length: 60 });
        assert_eq!(b.pool().note(burst[0].descriptor().buffer()).timestamp_ns, 9);
        let out: Vec<_> = b.hand_out_all(&mut burst, Holder::SHARED, |d| d).collect();
        // One twice in the same run, as a hostile NF might say: only the first is believed.
        let lies = [out[0], out[1], out[0], out[2]];
        assert_eq!(b.discard_run(&lies, Holder::SHARED), (2, 120));
        assert_eq!(b.receive_run(&lies[2..], Holder::SHARED, &mut burst), 0);
        assert_eq!(b.receive_run(&[Descriptor::new(4, 0, 0, 0)], Holder::SHARED, &mut burst), 0);
        assert_eq!(b.receive_run(&lies[3..], Holder::SHARED, &mut burst), 1);
        assert_eq!(
            b.fill(std::iter::repeat_n((&frame[..], 5), 9), 9, &mut burst),
            (3, 180),
            "no more than are free"
        );
        assert_eq!((b.free_count(), burst.len()), (0, 4));
        assert_eq!(b.free_all(&mut burst), 240);
        assert_eq!(b.free_count(), 4);
    }

    #[test]
    fn what_an_nf_made_is_counted_when_it_arrives() {
        let mut b = books(2);
        for (op, generated) in [(Op::Empty, 0), (Op::Next, 1)] {
            let packet = b.allocate(60).unwrap();
            let d = b.hand_out(packet, Holder::SHARED.of_empty());
            assert_eq!(b.empties_out(), 1);
            let back = b.receive(d.with_destination(Destination::new(op, 0)), Holder::SHARED).unwrap();
            assert_eq!((b.empties_out(), b.generated()), (0, generated));
            b.free(back);
        }
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_its_own_buffer() {
        let mut b = books(2);
        let mut packet = b.allocate(4).unwrap();
        packet.bytes_mut(&b.pool().clone()).copy_from_slice(b"abcd");
        b.set_note(&packet, Note { timestamp_ns: 5, wire_length: 90 });
        let copy = b.duplicate(&packet).unwrap();
        assert_ne!(copy.descriptor().buffer(), packet.descriptor().buffer());
        assert_eq!(copy.bytes(b.pool()), b"abcd");
        assert_eq!(b.note(&copy), Note { timestamp_ns: 5, wire_length: 90 });
        assert!(b.duplicate(&packet).is_none(), "the pool is exhausted");
        b.free(copy);
        b.free(packet);
        assert_eq!(b.free_count(), 2);
    }
}
