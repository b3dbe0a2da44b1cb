//! How a ring lies in shared memory, and the only code that turns its address into atomics.
//!
//! ```text
//! byte    0  magic, layout version, capacity            written once by the maker
//!       128  producer: head                             written by the producer, read by the consumer
//!       256  passed: mark, turn                         written by the producer, read by the reaper
//!       384  consumer: tail                             written by the consumer, read by the producer
//!       512  hand: taken, turn                          written by the consumer, read by the reaper
//!       640  bell: sleeping                             raised by the consumer, lowered by either
//!       768  slots: capacity times 16 bytes             written by the producer
//! ```
//! Blocks are 128 bytes apart, because processors fetch lines in pairs. What only the reaper reads lies apart from what
//! the other side polls: a line that is polled is taken away between any two stores to it. Positions are free-running `u32`s;
//! a slot's index is its position modulo the capacity, a power of two.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use super::sync::{AtomicU32, AtomicU64};
use crate::shm::{Access, Error as ShmError, Pages, Region};

/// First eight bytes of every ring: "onvmring".
const MAGIC: u64 = u64::from_le_bytes(*b"onvmring");
/// Changes whenever the layout does.
const LAYOUT_VERSION: u32 = 2;
/// Most entries a ring can have.
pub const MAX_CAPACITY: u32 = 1 << 20;

#[repr(C, align(128))]
pub(super) struct Block<T>(pub(super) T);

#[repr(C)]
pub(super) struct Maker {
    magic: AtomicU64,
    version: AtomicU32,
    capacity: AtomicU32,
}

/// Written by the producer alone.
#[repr(C)]
pub(super) struct ProducerLine {
    /// Position after the last published entry.
    pub(super) head: AtomicU32,
}

/// Written by the producer alone, for the reaper.
#[repr(C)]
pub(super) struct PassedLine {
    /// What `head` was when the turn began.
    pub(super) mark: AtomicU32,
    /// The producer's turn that last published here.
    pub(super) turn: AtomicU32,
}

/// Written by the consumer alone.
#[repr(C)]
pub(super) struct ConsumerLine {
    /// Position of the oldest entry that is not released.
    pub(super) tail: AtomicU32,
}

/// Written by the consumer alone, for the reaper.
#[repr(C)]
pub(super) struct HandLine {
    /// Position after the last entry that the consumer has in its hands.
    pub(super) taken: AtomicU32,
    /// The consumer's turn that took them.
    pub(super) turn: AtomicU32,
}

#[repr(C)]
pub(super) struct BellLine {
    /// 1 while the consumer sleeps or is about to.
    pub(super) sleeping: AtomicU32,
}

#[repr(C)]
pub(super) struct Header {
    maker: Block<Maker>,
    pub(super) producer: Block<ProducerLine>,
    pub(super) passed: Block<PassedLine>,
    pub(super) consumer: Block<ConsumerLine>,
    pub(super) hand: Block<HandLine>,
    pub(super) bell: Block<BellLine>,
}

#[repr(C, align(16))]
pub(super) struct Slot(pub(super) [AtomicU64; 2]);

#[cfg(not(loom))]
const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<Header>() == 768 && align_of::<Header>() == 128);
    assert!(offset_of!(Header, producer) == 128);
    assert!(offset_of!(Header, passed) == 256);
    assert!(offset_of!(Header, consumer) == 384);
    assert!(offset_of!(Header, hand) == 512);
    assert!(offset_of!(Header, bell) == 640);
    assert!(size_of::<Slot>() == 16 && align_of::<Slot>() == 16);
};

/// Why a ring could not be made or opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The capacity is not a power of two in 2..=[`MAX_CAPACITY`].
    Capacity(u32),
    /// The memory cannot be had.
    Memory(ShmError),
    /// What the peer sent is not a ring of this layout.
    NotARing {
        /// Which field is wrong.
        field: &'static str,
        /// Its value.
        got: u64,
        /// What it must be.
        want: u64,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Capacity(n) => write!(f, "ring capacity {n} is not a power of two in 2..={MAX_CAPACITY}"),
            Self::Memory(error) => write!(f, "{error}"),
            Self::NotARing { field, got, want } => {
                write!(f, "shared region is no ring of this version: {field} is {got:#x}, not {want:#x}")
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<ShmError> for Error {
    fn from(error: ShmError) -> Self {
        Self::Memory(error)
    }
}

/// Keeps the memory of a ring alive.
enum Owner {
    Shared(#[allow(dead_code)] Region),
    Heap { header: *mut Header, slots: *mut [Slot] },
}

/// The memory of one ring, mapped or on the heap. Ends are made from it by [`super::Ring`].
pub(super) struct Memory {
    header: NonNull<Header>,
    slots: NonNull<Slot>,
    capacity: u32,
    owner: Owner,
}

// SAFETY: everything behind the addresses is atomic, and the memory lives as long as this value.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

fn check_capacity(capacity: u32) -> Result<usize, Error> {
    if !capacity.is_power_of_two() || !(2..=MAX_CAPACITY).contains(&capacity) {
        return Err(Error::Capacity(capacity));
    }
    Ok(capacity as usize)
}

/// Bytes of shared memory that a ring takes.
fn bytes(capacity: usize) -> usize {
    size_of::<Header>() + capacity * size_of::<Slot>()
}

impl Memory {
    pub(super) fn create(name: &str, capacity: u32) -> Result<Self, Error> {
        let region = Region::create(name, bytes(check_capacity(capacity)?), Pages::Plain)?;
        let memory = Self::over(region, capacity);
        let maker = &memory.header().maker.0;
        maker.magic.store(MAGIC, super::sync::Ordering::Relaxed);
        maker.version.store(LAYOUT_VERSION, super::sync::Ordering::Relaxed);
        maker.capacity.store(capacity, super::sync::Ordering::Relaxed);
        Ok(memory)
    }

    pub(super) fn open(name: &str, fd: std::os::fd::OwnedFd, capacity: u32) -> Result<Self, Error> {
        let region = Region::from_fd(name, fd, bytes(check_capacity(capacity)?), Access::ReadWrite)?;
        let memory = Self::over(region, capacity);
        let maker = &memory.header().maker.0;
        let order = super::sync::Ordering::Relaxed;
        for (field, got, want) in [
            ("magic", maker.magic.load(order), MAGIC),
            ("layout version", u64::from(maker.version.load(order)), u64::from(LAYOUT_VERSION)),
            ("capacity", u64::from(maker.capacity.load(order)), u64::from(capacity)),
        ] {
            if got != want {
                return Err(Error::NotARing { field, got, want });
            }
        }
        Ok(memory)
    }

    fn over(region: Region, capacity: u32) -> Self {
        let header = region.base().cast::<Header>();
        // SAFETY: both callers mapped bytes(capacity), which is the header and all slots after it.
        let slots = unsafe { header.add(1) }.cast::<Slot>();
        Self { header, slots, capacity, owner: Owner::Shared(region) }
    }

    /// A ring in this process's own memory, for models and property tests.
    pub(super) fn on_heap(capacity: u32) -> Result<Self, Error> {
        let size = check_capacity(capacity)?;
        let zero = || AtomicU32::new(0);
        let header = Box::into_raw(Box::new(Header {
            maker: Block(Maker {
                magic: AtomicU64::new(MAGIC),
                version: AtomicU32::new(LAYOUT_VERSION),
                capacity: AtomicU32::new(capacity),
            }),
            producer: Block(ProducerLine { head: zero() }),
            passed: Block(PassedLine { mark: zero(), turn: zero() }),
            consumer: Block(ConsumerLine { tail: zero() }),
            hand: Block(HandLine { taken: zero(), turn: zero() }),
            bell: Block(BellLine { sleeping: zero() }),
        }));
        let slots: Box<[Slot]> = (0..size).map(|_| Slot([AtomicU64::new(0), AtomicU64::new(0)])).collect();
        let slots = Box::into_raw(slots);
        let (Some(header), Some(first)) = (NonNull::new(header), NonNull::new(slots.cast::<Slot>())) else {
            unreachable!("a box is never null")
        };
        Ok(Self { header, slots: first, capacity, owner: Owner::Heap { header: header.as_ptr(), slots } })
    }

    /// The region, when the ring lies in one.
    pub(super) fn region(&self) -> Option<&Region> {
        match &self.owner {
            Owner::Shared(region) => Some(region),
            Owner::Heap { .. } => None,
        }
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    #[inline(always)]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: the address is aligned (page or box) and valid while self is; a Header is atomics only,
        // so shared references to it stand whatever a peer writes.
        unsafe { self.header.as_ref() }
    }

    #[inline(always)]
    pub(super) fn slot(&self, position: u32) -> &Slot {
        // SAFETY: the mask keeps the index below capacity, whatever the position; slots are atomics only.
        unsafe { self.slots.add((position & (self.capacity - 1)) as usize).as_ref() }
    }

    /// The slots of `n` positions (at most the capacity) from `position` on: those up to the end of the memory, and
    /// those that go on at its start. So a burst is copied without a mask for every entry.
    #[inline(always)]
    pub(super) fn span(&self, position: u32, n: u32) -> (&[Slot], &[Slot]) {
        let n = n.min(self.capacity);
        let first = position & (self.capacity - 1);
        let straight = n.min(self.capacity - first);
        // SAFETY: first + straight and n - straight are at most the capacity; slots are atomics only.
        unsafe {
            (
                std::slice::from_raw_parts(self.slots.add(first as usize).as_ptr(), straight as usize),
                std::slice::from_raw_parts(self.slots.as_ptr(), (n - straight) as usize),
            )
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Owner::Heap { header, slots } = self.owner {
            // SAFETY: both came from Box::into_raw in on_heap and are dropped only here.
            unsafe {
                drop(Box::from_raw(header));
                drop(Box::from_raw(slots));
            }
        }
    }
}

/// A shared handle to a ring's memory.
pub(super) type Handle = Arc<Memory>;
