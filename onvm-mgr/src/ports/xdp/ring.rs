//! The four rings that a socket shares with the kernel (`Documentation/networking/af_xdp.rst`).
//!
//! ```text
//!             we ──fill──▶ kernel ──receive──▶ we           buffers to receive into; frames that came
//!             we ─transmit▶ kernel ─completion▶ we           frames to send; buffers that are ours again
//! ```
//! Each ring has one producer and one consumer, who tell each other how far they are by counters that only go up. The
//! kernel is trusted; still, what it wrote is bounded by the ring before it is used.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::xdp::{XdpRingFlags, XdpRingOffset};

/// A mapping of a ring, and where in it things stand.
struct Ring<T> {
    base: NonNull<u8>,
    bytes: usize,
    offsets: XdpRingOffset,
    entries: u32,
    kind: std::marker::PhantomData<T>,
}

// SAFETY: the mapping belongs to this alone, and lives as long as it.
unsafe impl<T> Send for Ring<T> {}

/// Kinds of entries: plain numbers of the kernel's, any of whose bits are valid.
pub(super) trait Entry: Copy {}

impl Entry for u64 {}
impl Entry for rustix::net::xdp::XdpDesc {}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl<T: Entry> Ring<T> {
    fn map(
        socket: BorrowedFd<'_>,
        page: u64,
        offsets: XdpRingOffset,
        entries: u32,
    ) -> rustix::io::Result<Self> {
        let bytes = place(offsets.desc) + entries as usize * size_of::<T>();
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping at a place of the kernel's choice, of a ring with just these offsets and entries.
        let address = unsafe { mmap(std::ptr::null_mut(), bytes, access, flags, socket, page)? };
        let base = NonNull::new(address.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { base, bytes, offsets, entries, kind: std::marker::PhantomData })
    }

    fn counter(&self, offset: u64) -> &AtomicU32 {
        debug_assert!(place(offset) + 4 <= self.bytes);
        // SAFETY: the kernel named the place, which is inside of the mapping; both sides use it atomically.
        unsafe { self.base.add(place(offset)).cast::<AtomicU32>().as_ref() }
    }

    fn produced(&self) -> &AtomicU32 {
        self.counter(self.offsets.producer)
    }

    fn consumed(&self) -> &AtomicU32 {
        self.counter(self.offsets.consumer)
    }

    /// Where the entry of this number stands.
    fn entry(&self, number: u32) -> NonNull<T> {
        let index = (number & (self.entries - 1)) as usize;
        // SAFETY: rings have a power of two of entries, so the index is inside of the mapping, which has room for all.
        unsafe { self.base.add(place(self.offsets.desc)).cast::<T>().add(index) }
    }

    /// Whether the kernel waits for a system call before it goes on.
    fn needs_wakeup(&self) -> bool {
        let flag = XdpRingFlags::XDP_RING_NEED_WAKEUP.bits();
        self.offsets.flags.is_some_and(|at| self.counter(at).load(Ordering::Relaxed) & flag != 0)
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrowed from it outlives this.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A ring that we put entries into: fill, transmit.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Our counter, published or not.
    next: u32,
    /// The kernel's as last seen.
    consumed: u32,
}

impl<T: Entry> Producer<T> {
    /// Maps a ring of a socket that has one of so many entries.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page: u64,
        offsets: XdpRingOffset,
        entries: u32,
    ) -> rustix::io::Result<Self> {
        Ok(Self { ring: Ring::map(socket, page, offsets, entries)?, next: 0, consumed: 0 })
    }

    /// Entries that there is room for; the kernel's counter is looked at if there are fewer than wanted.
    pub(super) fn room(&mut self, wanted: u32) -> u32 {
        let room = |consumed: u32| self.ring.entries.saturating_sub(self.next.wrapping_sub(consumed));
        if room(self.consumed) < wanted {
            self.consumed = self.ring.consumed().load(Ordering::Acquire);
        }
        self.ring.entries.saturating_sub(self.next.wrapping_sub(self.consumed))
    }

    /// Puts an entry in, for which there must be room; the kernel sees it when it is published.
    pub(super) fn put(&mut self, entry: T) {
        debug_assert!(self.next.wrapping_sub(self.consumed) < self.ring.entries, "there is no room");
        // SAFETY: the place is inside of the mapping, and the kernel reads it only when it is published.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the kernel what was put in.
    pub(super) fn publish(&self) {
        self.ring.produced().store(self.next, Ordering::Release);
    }

    /// Entries that the kernel has not taken.
    pub(super) fn waiting(&self) -> u32 {
        self.next.wrapping_sub(self.ring.consumed().load(Ordering::Acquire))
    }

    /// The entry that the kernel took last.
    pub(super) fn last_taken(&self) -> T {
        let last = self.ring.consumed().load(Ordering::Acquire).wrapping_sub(1);
        // SAFETY: the place is inside of the mapping, and only we write there.
        unsafe { self.ring.entry(last).read() }
    }

    /// Whether the kernel waits for a call.
    pub(super) fn needs_wakeup(&self) -> bool {
        // The flag must not be read before what was published is visible (af_xdp.rst, "XDP_USE_NEED_WAKEUP").
        fence(Ordering::SeqCst);
        self.ring.needs_wakeup()
    }
}

/// A ring that we take entries from: receive, completion.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    next: u32,
    produced: u32,
}

impl<T: Entry> Consumer<T> {
    /// As [`Producer::map`].
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page: u64,
        offsets: XdpRingOffset,
        entries: u32,
    ) -> rustix::io::Result<Self> {
        Ok(Self { ring: Ring::map(socket, page, offsets, entries)?, next: 0, produced: 0 })
    }

    /// Entries that wait.
    pub(super) fn waiting(&self) -> u32 {
        self.ring.produced().load(Ordering::Acquire).wrapping_sub(self.next).min(self.ring.entries)
    }

    /// Takes the oldest; its place is the kernel's again when it is released.
    pub(super) fn take(&mut self) -> Option<T> {
        if self.next == self.produced {
            self.produced = self.ring.produced().load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: the place is inside of the mapping, and the kernel has published what it wrote there.
        let entry = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of what was taken back to the kernel.
    pub(super) fn release(&self) {
        self.ring.consumed().store(self.next, Ordering::Release);
    }
}
