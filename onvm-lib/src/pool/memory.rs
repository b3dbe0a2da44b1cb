//! The pool's memory, and the only code that turns a descriptor into packet bytes.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Geometry, NOTE};
use crate::ring::{Descriptor, MAX_OFFSET};
use crate::shm::{Access, Error, Pages, Region};

/// What the input port knew of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// When the packet was received, in nanoseconds since 1970-01-01 UTC; 0 where nobody said.
    pub timestamp_ns: u64,
    /// Bytes of the packet on the wire; more than its length here when the capture cut it.
    pub wire_length: u32,
}

/// How a note lies in shared memory: a peer may write it, so it is read as atomics and believed by nobody
/// who depends on it (the manager keeps its own copy).
#[repr(C)]
struct SharedNote {
    timestamp_ns: AtomicU64,
    wire_length: AtomicU32,
}

const _: () = assert!(size_of::<SharedNote>() <= NOTE as usize);

/// A mapped pool.
#[derive(Clone, Debug)]
pub struct Pool {
    base: NonNull<u8>,
    geometry: Geometry,
    region: Arc<Region>,
}

// SAFETY: a Pool is an address range kept alive by the Arc; access through it is governed by ownership of
// descriptors (module documentation), which does not depend on the thread.
unsafe impl Send for Pool {}
// SAFETY: as above: shared methods touch only atomics, or need proof of ownership.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes a pool; huge pages where wanted and there are some.
    ///
    /// # Errors
    /// As [`Region::create`].
    pub fn create(geometry: Geometry, wanted: Pages) -> Result<Self, Error> {
        Ok(Self::over(Region::create("onvm-pool", geometry.bytes(), wanted)?, geometry))
    }

    /// Maps the pool that a manager sent.
    ///
    /// # Errors
    /// As [`Region::from_fd`].
    pub fn open(fd: OwnedFd, geometry: Geometry, access: Access) -> Result<Self, Error> {
        Ok(Self::over(Region::from_fd("onvm-pool", fd, geometry.bytes(), access)?, geometry))
    }

    fn over(region: Region, geometry: Geometry) -> Self {
        Self { base: region.base(), geometry, region: Arc::new(region) }
    }

    /// Sizes of the pool.
    #[must_use]
    #[inline(always)]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The region it lies in.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Whether a descriptor names a place inside this pool.
    #[must_use]
    #[inline(always)]
    pub fn contains(&self, descriptor: Descriptor) -> bool {
        descriptor.fits(self.geometry.buffers, self.geometry.room)
    }

    /// The same as a number whose highest bit is set if it does not: for bursts, see [`Descriptor::misfit`].
    #[must_use]
    #[inline(always)]
    pub(crate) fn misfit(&self, descriptor: Descriptor) -> u64 {
        descriptor.misfit(self.geometry.buffers, self.geometry.room)
    }

    /// The byte of the region at which the packet that a descriptor names begins: for drivers that speak of places in
    /// the region by numbers.
    #[must_use]
    #[inline(always)]
    pub fn byte_of(&self, descriptor: Descriptor) -> u64 {
        u64::from(descriptor.buffer()) * u64::from(self.geometry.stride)
            + u64::from(NOTE + descriptor.offset())
    }

    /// The buffer that a byte of the region is in, and the offset of a packet that begins there; none if no packet can.
    #[must_use]
    #[inline(always)]
    pub fn place_of(&self, byte: u64) -> Option<(u32, u32)> {
        let stride = u64::from(self.geometry.stride);
        let buffer = u32::try_from(byte / stride).ok().filter(|buffer| *buffer < self.geometry.buffers)?;
        let offset = u32::try_from(byte % stride).ok()?.checked_sub(NOTE)?;
        (offset < self.geometry.room() && offset <= MAX_OFFSET).then_some((buffer, offset))
    }

    #[inline(always)]
    fn buffer(&self, index: u32) -> NonNull<u8> {
        assert!(index < self.geometry.buffers, "buffer {index} is not in the pool");
        // SAFETY: the index was just checked, and region and geometry were checked against each other when mapped.
        unsafe { self.base.add(index as usize * self.geometry.stride as usize) }
    }

    /// Address and length of the packet that a descriptor names.
    ///
    /// # Panics
    /// When the descriptor is not [`Pool::contains`]ed: callers have counted and dropped those.
    #[inline(always)]
    pub(crate) fn place(&self, descriptor: Descriptor) -> (NonNull<u8>, usize) {
        assert!(self.contains(descriptor), "descriptor is not in the pool");
        // SAFETY: just checked.
        unsafe { self.place_checked_before(descriptor) }
    }

    /// The same for a descriptor that was checked before.
    ///
    /// # Safety
    /// The descriptor is [`Pool::contains`]ed.
    #[inline(always)]
    pub(crate) unsafe fn place_checked_before(&self, descriptor: Descriptor) -> (NonNull<u8>, usize) {
        debug_assert!(self.contains(descriptor), "descriptor is not in the pool");
        // SAFETY: the caller vouches for buffer, offset and length.
        let start =
            unsafe { self.buffer_unchecked(descriptor.buffer()).add((NOTE + descriptor.offset()) as usize) };
        (start, descriptor.length() as usize)
    }

    /// Where the room of a buffer begins, from which offsets in descriptors count: for drivers that fill buffers
    /// themselves.
    ///
    /// # Panics
    /// When there is no such buffer.
    #[must_use]
    pub fn room_address(&self, index: u32) -> NonNull<u8> {
        // SAFETY: a buffer is longer than its note.
        unsafe { self.buffer(index).add(NOTE as usize) }
    }

    /// # Safety
    /// `index` is below the number of buffers.
    #[inline(always)]
    unsafe fn buffer_unchecked(&self, index: u32) -> NonNull<u8> {
        // SAFETY: the caller vouches for the index; the product is inside the region.
        unsafe { self.base.add(index as usize * self.geometry.stride as usize) }
    }

    /// Asks the processor to fetch the first line of a packet; of any descriptor, sound or not.
    #[inline(always)]
    pub fn prefetch(&self, descriptor: Descriptor) {
        let offset = descriptor.buffer() as usize * self.geometry.stride as usize
            + (NOTE + descriptor.offset()) as usize;
        let address = self.base.as_ptr().wrapping_add(offset);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint; it faults on no address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast::<i8>());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }

    /// The same for a packet that will be written: the line comes in one go, and not first to be read.
    #[inline(always)]
    pub fn prefetch_to_write(&self, descriptor: Descriptor) {
        let offset = descriptor.buffer() as usize * self.geometry.stride as usize
            + (NOTE + descriptor.offset()) as usize;
        let address = self.base.as_ptr().wrapping_add(offset);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint; it faults on no address, changes nothing, and processors that do not know
        // this one take it for a no-operation.
        unsafe {
            std::arch::asm!("prefetchw [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }

    fn shared_note(&self, index: u32) -> &SharedNote {
        // SAFETY: a buffer starts with its note, aligned to a cache line; atomics stand whatever a peer writes.
        unsafe { self.buffer(index).cast::<SharedNote>().as_ref() }
    }

    /// The note of a buffer, as it stands: a peer may have written it.
    #[must_use]
    pub fn note(&self, index: u32) -> Note {
        let note = self.shared_note(index);
        Note {
            timestamp_ns: note.timestamp_ns.load(Ordering::Relaxed),
            wire_length: note.wire_length.load(Ordering::Relaxed),
        }
    }

    /// Writes the note of a buffer.
    #[inline(never)]
    pub fn set_note(&self, index: u32, note: Note) {
        let shared = self.shared_note(index);
        shared.timestamp_ns.store(note.timestamp_ns, Ordering::Relaxed);
        shared.wire_length.store(note.wire_length, Ordering::Relaxed);
    }

    /// The bytes of a packet.
    ///
    /// # Safety
    /// The caller is the one holder of the descriptor's buffer for all of `'a`.
    ///
    /// # Panics
    /// When the descriptor is not [`Pool::contains`]ed.
    #[inline(always)]
    pub(crate) unsafe fn bytes<'a>(&self, descriptor: Descriptor) -> &'a [u8] {
        let (start, length) = self.place(descriptor);
        // SAFETY: inside the pool (place), and nobody else touches the buffer (the caller's promise).
        unsafe { std::slice::from_raw_parts(start.as_ptr(), length) }
    }

    /// The bytes of a packet, to write.
    ///
    /// # Safety
    /// As [`Pool::bytes`], no other reference to them exists, and the pool is mapped for writing.
    ///
    /// # Panics
    /// When the descriptor is not [`Pool::contains`]ed.
    #[inline(always)]
    pub(crate) unsafe fn bytes_mut<'a>(&self, descriptor: Descriptor) -> &'a mut [u8] {
        let (start, length) = self.place(descriptor);
        // SAFETY: inside the pool (place), and nobody else touches the buffer (the caller's promise).
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::HEADROOM;
    use super::*;

    #[test]
    fn bytes_of_the_region_are_places_of_packets_or_none() {
        let pool = Pool::create(Geometry::new(4, 2048).unwrap(), Pages::Plain).unwrap();
        for buffer in 0..4 {
            for offset in [0, HEADROOM, MAX_OFFSET] {
                let byte = pool.byte_of(Descriptor::new(buffer, 7, offset, 60));
                assert_eq!(pool.place_of(byte), Some((buffer, offset)));
            }
        }
        // In a note, behind the last buffer, nowhere.
        let end = u64::from(pool.geometry().stride()) * 4;
        let far = pool.byte_of(Descriptor::new(3, 7, MAX_OFFSET, 60)) + 1;
        assert_eq!(pool.place_of(far), None);
        assert_eq!([0, 63, end, end + 300, u64::MAX].map(|byte| pool.place_of(byte)), [None; 5]);
    }
}
