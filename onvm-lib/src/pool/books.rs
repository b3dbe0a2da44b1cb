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

use super::record::{Entry, Name, Record, name_when_freed};
use super::{Holder, Note, Pool};
use crate::ring::{Descriptor, Destination};

/// Buffers between the one that is allocated and the one that is fetched.
const AHEAD: usize = 8;
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

    /// Begins another packet's life in the same buffer, as if it had been freed and allocated: for ports that receive into
    /// buffers which they have just sent. What stands there, and where, is kept.
    #[inline(always)]
    pub fn begin_anew(&mut self) {
        let [_, place] = self.descriptor.words();
        self.descriptor = Descriptor::from_words([name_when_freed(self.descriptor), place]);
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

/// The free list and the entries. There is an entry for each buffer of the pool, and room for all on the free list.
#[derive(Debug)]
pub struct Books {
    pool: Pool,
    free: Vec<Name>,
    entries: Box<[Entry]>,
    empties_out: u32,
    generated: u64,
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
mod tests;
