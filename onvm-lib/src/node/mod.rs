//! The page that an NF shows the manager: its turn, its counters, the packets that it holds back.
//!
//! ```text
//! byte    0  turn                       the NF's current turn, for the reaper
//!       128  counters                   64 of 8 bytes, for statistics only: the ledger never believes them
//!       640  held                       1,024 descriptors; both words zero where none is held
//!     17024  life                       whether the thread with the packets lives (see `lifeline`)
//! ```
//! Written by the NF, read by the manager, one page per NF, so an NF can spoil only its own figures.
#![allow(unsafe_code)]

mod lifeline;

use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::packet::{DropReason, HELD, Held};
use crate::ring::Descriptor;
use crate::shm::{Access, Error, Pages, Region};

pub(crate) use lifeline::Lifeline;
pub use lifeline::{Vital, vital};

/// What is counted per NF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Packets taken in.
    Received = 0,
    /// Packets passed on to the next service, or out at the end of the chain.
    Next,
    /// Packets sent to a service that the NF named.
    ToService,
    /// Packets sent out of a port that the NF named.
    Out,
    /// Packets dropped by the NF; by reason in [`Counters::drops`].
    Dropped,
    /// Packets that the NF made.
    Made,
    /// Packets held back, so far.
    Held,
    /// Copies asked for.
    Mirrored,
    /// Descriptors from peers that named no place in the pool.
    BadDescriptors,
    /// Rings whose positions were nonsense when looked at.
    Violations,
    /// Turns that had to wait for room on the way ahead.
    Waits,
    /// Times that the NF went to sleep.
    Sleeps,
    /// Turns with at least one packet.
    Turns,
    /// Bytes taken in.
    Bytes,
    /// Nanoseconds that the turns took of which the time was taken.
    SampledNs,
    /// Packets in the turns of which the time was taken: with [`Counter::SampledNs`] the cost of a packet.
    SampledPackets,
}

const COUNTERS: usize = 64;
const FIRST_DROP: usize = 32;
const _: () = assert!(FIRST_DROP + DropReason::COUNT <= COUNTERS);

#[repr(C, align(128))]
struct TurnLine {
    turn: AtomicU32,
}

#[repr(C)]
struct Layout {
    turn: TurnLine,
    counters: [AtomicU64; COUNTERS],
    held: [[AtomicU64; 2]; HELD],
    life: LifeCell,
}

#[repr(C, align(128))]
struct LifeCell {
    word: AtomicU32,
}

const _: () = {
    assert!(std::mem::offset_of!(Layout, counters) == 128);
    assert!(std::mem::offset_of!(Layout, held) == 640);
    assert!(std::mem::offset_of!(Layout, life) == 17_024);
};

/// One NF's page.
#[derive(Clone)]
pub struct NodePage {
    layout: NonNull<Layout>,
    region: Arc<Region>,
}

// SAFETY: everything behind the address is atomic and kept alive by the Arc.
unsafe impl Send for NodePage {}
// SAFETY: as above.
unsafe impl Sync for NodePage {}

impl std::fmt::Debug for NodePage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodePage(turn {})", self.turn())
    }
}

/// A reading of the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(Vec<u64>);

impl Counters {
    /// One counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Drops for a reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.0.get(FIRST_DROP + reason as usize).copied().unwrap_or(0)
    }

    /// Packets sent on, in whatever way.
    #[must_use]
    pub fn sent(&self) -> u64 {
        [Counter::Next, Counter::ToService, Counter::Out]
            .iter()
            .fold(0, |sum, c| sum.wrapping_add(self.get(*c)))
    }
}

impl NodePage {
    /// Makes a page.
    ///
    /// # Errors
    /// As [`Region::create`].
    pub fn create() -> Result<Self, Error> {
        Ok(Self::over(Region::create("onvm-node", size_of::<Layout>(), Pages::Plain)?))
    }

    /// Maps the page that a manager sent.
    ///
    /// # Errors
    /// As [`Region::from_fd`].
    pub fn open(fd: OwnedFd) -> Result<Self, Error> {
        Ok(Self::over(Region::from_fd("onvm-node", fd, size_of::<Layout>(), Access::ReadWrite)?))
    }

    fn over(region: Region) -> Self {
        Self { layout: region.base().cast(), region: Arc::new(region) }
    }

    /// The region it lies in.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    #[inline(always)]
    fn layout(&self) -> &Layout {
        // SAFETY: page-aligned, size_of::<Layout>() bytes at least, alive while self is; atomics only.
        unsafe { self.layout.as_ref() }
    }

    /// The futex of the thread with the packets; [`vital`] reads it.
    #[must_use]
    pub fn life(&self) -> &AtomicU32 {
        &self.layout().life.word
    }

    /// The NF's current turn.
    #[must_use]
    pub fn turn(&self) -> u32 {
        self.layout().turn.turn.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn set_turn(&self, turn: u32) {
        self.layout().turn.turn.store(turn, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn add(&self, counter: Counter, n: u64) {
        self.add_at(counter as usize, n);
    }

    /// One counter, for the NF itself.
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.layout().counters[counter as usize].load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn add_drop(&self, reason: DropReason) {
        self.add_at(FIRST_DROP + reason as usize, 1);
    }

    #[inline(always)]
    fn add_at(&self, index: usize, n: u64) {
        // One writer: a load and a store, no read-modify-write.
        let cell = &self.layout().counters[index];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Reads all counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters(self.layout().counters.iter().map(|c| c.load(Ordering::Relaxed)).collect())
    }

    /// Descriptors of packets held back, as the NF wrote them.
    #[must_use]
    pub fn held(&self) -> Vec<Descriptor> {
        let read = |cell: &[AtomicU64; 2]| [cell[0].load(Ordering::Acquire), cell[1].load(Ordering::Acquire)];
        self.layout().held.iter().map(read).filter(|w| *w != [0, 0]).map(Descriptor::from_words).collect()
    }
}

/// The NF's side of the table of held packets.
#[derive(Debug)]
pub(crate) struct HeldTable {
    page: NodePage,
    slots: Vec<Option<Descriptor>>,
    free: Vec<u32>,
    leaving: Vec<u32>,
}

impl HeldTable {
    pub(crate) fn new(page: NodePage) -> Self {
        let free = (0..u32::try_from(HELD).unwrap_or(0)).rev().collect();
        Self { page, slots: vec![None; HELD], free, leaving: Vec::new() }
    }

    /// The turn is published: what was let go in it is held no more.
    #[inline(always)]
    pub(crate) fn end_turn(&mut self) {
        if !self.leaving.is_empty() {
            self.clear_leaving();
        }
    }

    #[inline(never)]
    fn clear_leaving(&mut self) {
        for ticket in self.leaving.drain(..) {
            write(&self.page, ticket, [0, 0]);
            self.free.push(ticket);
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.free.len() == HELD
    }
}

fn write(page: &NodePage, ticket: u32, words: [u64; 2]) {
    let cell = &page.layout().held[ticket as usize];
    cell[1].store(words[1], Ordering::Release);
    cell[0].store(words[0], Ordering::Release);
}

impl Held for HeldTable {
    fn hold(&mut self, descriptor: Descriptor) -> Option<u32> {
        let ticket = self.free.pop()?;
        self.slots[ticket as usize] = Some(descriptor);
        // A hold is a word written, so that two zero words can mean none: the hop count of a held packet is at least 1.
        let kept = descriptor.with_hop(descriptor.hop().max(1));
        write(&self.page, ticket, kept.words());
        self.page.add(Counter::Held, 1);
        Some(ticket)
    }

    fn release(&mut self, ticket: u32) -> Option<Descriptor> {
        let descriptor = self.slots.get_mut(ticket as usize)?.take()?;
        self.leaving.push(ticket);
        Some(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_packets_are_seen_by_the_other_side_until_the_turn_ends() {
        let page = NodePage::create().unwrap();
        let other =
            NodePage::open(std::os::fd::AsFd::as_fd(page.region()).try_clone_to_owned().unwrap()).unwrap();
        let mut table = HeldTable::new(page);
        let d = Descriptor::new(0, 0, 0, 0);
        let ticket = table.hold(d).unwrap();
        assert!(other.held()[0].same_holding(d));
        assert_eq!(table.release(ticket), Some(d));
        assert_eq!(table.release(ticket), None, "let go once");
        assert_eq!(other.held().len(), 1, "until the turn is over");
        table.end_turn();
        assert!(other.held().is_empty() && table.is_empty());
        assert_eq!(table.release(4_000_000), None);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = HeldTable::new(NodePage::create().unwrap());
        for _ in 0..HELD {
            assert!(table.hold(Descriptor::default()).is_some());
        }
        assert_eq!(table.hold(Descriptor::default()), None);
    }

    #[test]
    fn counters_are_read_by_name() {
        let page = NodePage::create().unwrap();
        page.add(Counter::Received, 3);
        page.add_drop(DropReason::Denied);
        let counters = page.counters();
        assert_eq!((counters.get(Counter::Received), counters.drops(DropReason::Denied)), (3, 1));
        assert_eq!(counters.sent(), 0);
    }
}
