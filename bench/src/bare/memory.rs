//! What bare processes share: a control block, a few rings, packet buffers. The only unsafe code of the floors.
//!
//! ```text
//! 0        control: stop flag
//! 4096     rings, RING_BYTES each: head, tail, sleeping on lines of their own, then the slots
//! then     packet buffers, STRIDE apart
//! ```
//! Processes trust each other here; that is what makes it a floor.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Entries of each ring.
pub(super) const CAPACITY: u32 = 16_384;
/// Packet buffers.
pub(super) const BUFFERS: u32 = 32_768;
/// Bytes from one buffer to the next: those of the platform's pool, an odd number of cache lines.
const STRIDE: usize = 2368;
/// Where the packet starts in its buffer, as in the platform's pool.
const PACKET: usize = 256;
/// Bytes of a packet.
pub(super) const SIZE: usize = 64;
const RINGS: usize = 8;
const SLOTS: usize = 512;
const RING_BYTES: usize = SLOTS + CAPACITY as usize * 16;
const FIRST_RING: usize = 4096;
const FIRST_BUFFER: usize = FIRST_RING + RINGS * RING_BYTES;
const HUGE_PAGE: usize = 2 << 20;
const BYTES: usize = (FIRST_BUFFER + BUFFERS as usize * STRIDE).next_multiple_of(HUGE_PAGE);

/// What lies in a slot.
pub(super) trait Entry: Copy + Default {
    fn of(buffer: u32) -> Self;
    fn buffer(self) -> u32;
}

/// As a pointer would be.
impl Entry for u64 {
    #[inline(always)]
    fn of(buffer: u32) -> Self {
        u64::from(buffer)
    }

    #[inline(always)]
    fn buffer(self) -> u32 {
        (self & 0xffff_ffff) as u32
    }
}

/// As the platform's descriptor is.
impl Entry for [u64; 2] {
    #[inline(always)]
    fn of(buffer: u32) -> Self {
        [u64::from(buffer), (SIZE as u64) << 50]
    }

    #[inline(always)]
    fn buffer(self) -> u32 {
        (self[0] & 0xffff_ffff) as u32
    }
}

/// The mapped memory.
pub(super) struct Shared {
    base: NonNull<u8>,
}

impl Shared {
    /// Makes it, of huge pages if there are some, as the platform does; the path opens it in another process
    /// while this one holds the file.
    pub(super) fn create() -> std::io::Result<(File, String)> {
        let flags = MemfdFlags::CLOEXEC;
        let huge = rustix::fs::memfd_create("onvm-bench", flags | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB);
        let reserve = |fd: &OwnedFd| rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, BYTES as u64);
        let fd = match huge {
            Ok(fd) if reserve(&fd).is_ok() => fd,
            _ => {
                let fd = rustix::fs::memfd_create("onvm-bench", flags)?;
                rustix::fs::ftruncate(&fd, BYTES as u64)?;
                fd
            }
        };
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        Ok((File::from(fd), path))
    }

    /// Maps it, for the rest of the process's life.
    pub(super) fn open(path: &str) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice takes nobody's memory.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), BYTES, protection, MapFlags::SHARED, &file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("mapped at address 0"))?;
        Ok(Self { base })
    }

    fn word(&self, offset: usize) -> &'static AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= BYTES);
        // SAFETY: aligned, inside the mapping, which is never unmapped; other processes use atomics here too.
        unsafe { self.base.add(offset).cast::<AtomicU32>().as_ref() }
    }

    /// Up when all shall end.
    pub(super) fn stop(&self) -> &'static AtomicU32 {
        self.word(0)
    }

    fn ring<E: Entry>(&self, index: usize) -> Ring<E> {
        assert!(index < RINGS && size_of::<E>() <= 16);
        let at = FIRST_RING + index * RING_BYTES;
        // SAFETY: at + SLOTS is inside the mapping, and so are CAPACITY slots after it.
        let slots = unsafe { self.base.add(at + SLOTS) }.cast();
        Ring { head: self.word(at), tail: self.word(at + 128), sleeping: self.word(at + 256), slots }
    }

    pub(super) fn sender<E: Entry>(&self, ring: usize) -> Sender<E> {
        Sender { ring: self.ring(ring), head: 0, tail: 0 }
    }

    pub(super) fn receiver<E: Entry>(&self, ring: usize) -> Receiver<E> {
        Receiver { ring: self.ring(ring), tail: 0, head: 0 }
    }

    #[inline(always)]
    fn packet(&self, buffer: u32) -> NonNull<[u8; SIZE]> {
        debug_assert!(buffer < BUFFERS);
        // SAFETY: entries name buffers of this memory; nobody else writes them.
        unsafe { self.base.add(FIRST_BUFFER + buffer as usize * STRIDE + PACKET) }.cast()
    }

    /// Writes a packet: what a receiving port does.
    #[inline(always)]
    pub(super) fn write(&self, buffer: u32, packet: &[u8; SIZE]) {
        // SAFETY: inside the mapping, and the caller holds the buffer.
        unsafe { self.packet(buffer).write(*packet) }
    }

    /// Asks for the first line of a packet.
    #[inline(always)]
    pub(super) fn prefetch(&self, buffer: u32) {
        let packet = self.packet(buffer);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint; it faults on no address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(packet.as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = packet;
    }

    /// Reads the headers and takes one off the time to live, with its checksum (RFC 1624).
    #[inline(always)]
    pub(super) fn hop(&self, buffer: u32) {
        // SAFETY: inside the mapping, and the caller holds the buffer until it passes it on.
        let packet = unsafe { self.packet(buffer).as_mut() };
        if packet[12] == 8 && packet[13] == 0 && packet[14] == 0x45 && packet[22] > 1 {
            let old = u16::from_be_bytes([packet[22], packet[23]]);
            packet[22] -= 1;
            let new = u16::from_be_bytes([packet[22], packet[23]]);
            let sum = u16::from_be_bytes([packet[24], packet[25]]);
            let sum = u32::from(!sum) + u32::from(!old) + u32::from(new);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
            [packet[24], packet[25]] = sum.to_be_bytes();
        }
    }
}

struct Ring<E> {
    head: &'static AtomicU32,
    tail: &'static AtomicU32,
    sleeping: &'static AtomicU32,
    slots: NonNull<E>,
}

impl<E: Entry> Ring<E> {
    #[inline(always)]
    fn slot(&self, position: u32) -> *mut E {
        // SAFETY: the mask keeps the index below CAPACITY, and that many slots are mapped.
        unsafe { self.slots.add((position & (CAPACITY - 1)) as usize) }.as_ptr()
    }
}

/// The end that writes.
pub(super) struct Sender<E> {
    ring: Ring<E>,
    head: u32,
    tail: u32,
}

impl<E: Entry> Sender<E> {
    /// Entries that there is room for, looked up only when fewer than `enough` are known of.
    #[inline(always)]
    pub(super) fn room(&mut self, enough: u32) -> u32 {
        if CAPACITY - self.head.wrapping_sub(self.tail) < enough {
            self.tail = self.ring.tail.load(Ordering::Acquire);
        }
        CAPACITY - self.head.wrapping_sub(self.tail)
    }

    /// Puts an entry into a slot; the caller knows that there is room.
    #[inline(always)]
    pub(super) fn push(&mut self, entry: E) {
        // SAFETY: a mapped slot, and the reader stays away from it until it is published.
        unsafe { self.ring.slot(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
    }

    #[inline(always)]
    pub(super) fn publish(&self) {
        self.ring.head.store(self.head, Ordering::Release);
    }

    /// Wakes the reader if it sleeps. A wake-up that is lost costs the reader's longest sleep.
    #[inline(always)]
    pub(super) fn ring_bell(&self) {
        if self.ring.sleeping.load(Ordering::Relaxed) == 1
            && self.ring.sleeping.swap(0, Ordering::SeqCst) == 1
        {
            let _ = rustix::thread::futex::wake(self.ring.sleeping, rustix::thread::futex::Flags::empty(), 1);
        }
    }
}

/// The end that reads.
pub(super) struct Receiver<E> {
    ring: Ring<E>,
    tail: u32,
    head: u32,
}

impl<E: Entry> Receiver<E> {
    /// Copies entries out; they are the writer's again after `release`.
    #[inline(always)]
    pub(super) fn take(&mut self, burst: &mut [E]) -> usize {
        if (self.head.wrapping_sub(self.tail) as usize) < burst.len() {
            self.head = self.ring.head.load(Ordering::Acquire);
        }
        let n = (self.head.wrapping_sub(self.tail) as usize).min(burst.len());
        for entry in &mut burst[..n] {
            // SAFETY: a mapped slot that the writer has published and will not touch before the release.
            *entry = unsafe { self.ring.slot(self.tail).read() };
            self.tail = self.tail.wrapping_add(1);
        }
        n
    }

    #[inline(always)]
    pub(super) fn release(&self) {
        self.ring.tail.store(self.tail, Ordering::Release);
    }

    /// Sleeps until the writer rings, a millisecond at most.
    pub(super) fn sleep(&self) {
        self.ring.sleeping.store(1, Ordering::SeqCst);
        if self.ring.head.load(Ordering::SeqCst) == self.tail {
            let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            let flags = rustix::thread::futex::Flags::empty();
            let _ = rustix::thread::futex::wait(self.ring.sleeping, flags, 1, Some(&limit));
        }
        self.ring.sleeping.store(0, Ordering::Relaxed);
    }
}
