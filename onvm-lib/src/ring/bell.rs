//! The doorbell: how a consumer sleeps without missing an entry, and a producer wakes it without blocking.
//!
//! States of the word `sleeping` in each ring: `0` awake, `1` asleep or about to be.
//!
//! | Transition | By | When |
//! |---|---|---|
//! | 0 → 1 | consumer, [`Consumer::arm`] | it found nothing to do; it must look at every head again afterwards |
//! | 1 → 0 | producer, [`Producer::rings`] | it published; it must then wake the consumer |
//! | 1 → 0 | consumer, [`Consumer::disarm`] | it woke, or found work after arming |
//! | any → 0 | reaper, [`Ring::ring_for_the_dead`] | the producer is gone; it must then wake the consumer |
//!
//! `SYNC POINT: bell`. Producer: store head, *barrier*, load sleeping. Consumer: store sleeping, *barrier*,
//! load head. One of the two sees the other's store. A barrier on the producer's side would wait, every
//! burst, for all its packet stores to reach the caches; so the producers' barrier is made by the consumer:
//! `membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)` acts as one on every processor that runs a process which
//! has registered. A process that cannot register (old kernel, seccomp) uses a real fence in [`Producer::rings`],
//! and a sleeper that cannot call it sleeps at most [`SHORT_SLEEP`].
//!
//! A sleeping NF waits on the words themselves (`futex_waitv(2)`): waking it is a futex call, which no peer
//! can make block. (An eventfd could: whoever shares it may take away its `O_NONBLOCK`.) A sleeping worker
//! waits in epoll for one eventfd per NF, edge-triggered, never read and never written by the manager.
//!
//! Sources: `membarrier(2)`, `futex_waitv` in `Documentation/userspace-api/futex2.rst`, `epoll(7)`.

use std::sync::atomic::{AtomicU32 as StdAtomicU32, AtomicU64 as StdAtomicU64};
use std::time::Duration;

use super::spsc::{Consumer, Producer, Ring};
use super::sync::Ordering::{Relaxed, SeqCst};
use super::sync::fence;

/// How long a consumer sleeps at most when it cannot make the producers' barrier for them.
pub const SHORT_SLEEP: Duration = Duration::from_millis(1);
/// Most words that one call waits on (`FUTEX_WAITV_MAX`).
const MAX_WORDS: usize = 128;

/// Which barriers this process uses; found out once, at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barriers {
    /// The sleeper makes them for all registered producers.
    Membarrier,
    /// Everybody makes their own; sleeps are short.
    Fences,
}

impl Barriers {
    /// Registers this process with the kernel.
    #[must_use]
    pub fn register() -> Self {
        #[cfg(not(loom))]
        {
            use rustix::thread::{MembarrierCommand, membarrier};
            let registered = membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
                && membarrier(MembarrierCommand::GlobalExpedited).is_ok();
            if registered {
                return Self::Membarrier;
            }
        }
        Self::Fences
    }

    /// The consumer's side: call it between arming and the second look at the heads.
    /// Returns the longest time that the consumer may then sleep, if there is a limit.
    #[must_use]
    pub fn before_sleep(self) -> Option<Duration> {
        fence(SeqCst);
        #[cfg(not(loom))]
        if self == Self::Membarrier {
            use rustix::thread::{MembarrierCommand, membarrier};
            if membarrier(MembarrierCommand::GlobalExpedited).is_ok() {
                return None;
            }
        }
        Some(SHORT_SLEEP)
    }
}

impl Producer {
    /// After [`Producer::publish`]: whether the consumer sleeps and this call is the one that must wake it.
    #[inline(always)]
    pub fn rings(&mut self, barriers: Barriers) -> bool {
        if barriers == Barriers::Fences {
            fence(SeqCst);
        }
        #[cfg(not(loom))]
        std::sync::atomic::compiler_fence(SeqCst);
        let word = &self.memory().header().bell.0.sleeping;
        word.load(Relaxed) == 1 && word.swap(0, SeqCst) == 1
    }

    /// Wakes a consumer that sleeps in [`sleep`]. Never blocks.
    #[cfg(not(loom))]
    pub fn wake_sleeper(&self) {
        futex_wake(&self.memory().header().bell.0.sleeping);
    }
}

impl Ring {
    /// Rings for a producer that is gone: it may have died between its store of the head and its wake-up call,
    /// even after it had lowered the word, and then nobody else would call.
    ///
    /// The caller must wake the consumer in any case; [`Ring::wake_consumer`] does both for one that sleeps in
    /// [`sleep`], a worker's eventfd is the caller's to write.
    pub fn ring_for_the_dead(&self) {
        // A consumer that arms after this swap sees the dead producer's head.
        fence(SeqCst);
        self.memory.header().bell.0.sleeping.swap(0, SeqCst);
    }

    /// Wakes the consumer for a producer that is gone.
    #[cfg(not(loom))]
    pub fn wake_consumer(&self) {
        self.ring_for_the_dead();
        futex_wake(&self.memory.header().bell.0.sleeping);
    }
}

/// Wakes whoever sleeps on the word; nobody is fine, for the sleeper may have woken by itself.
#[cfg(not(loom))]
fn futex_wake(word: &StdAtomicU32) {
    let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
}

impl Consumer {
    /// Says that this consumer is about to sleep.
    #[inline]
    pub fn arm(&mut self) {
        self.set_sleeping(1);
    }

    /// Says that it is awake.
    #[inline]
    pub fn disarm(&mut self) {
        self.set_sleeping(0);
    }

    #[inline(always)]
    fn set_sleeping(&self, value: u32) {
        let word = &self.memory().header().bell.0.sleeping;
        #[cfg(not(loom))]
        word.store(value, Relaxed);
        // The checker orders two stores only if one thread saw the other's; it forgets that a swap comes right after
        // what it read, and lets a producer's old swap outlive a newer store. Between swaps it keeps the order.
        #[cfg(loom)]
        word.swap(value, Relaxed);
    }

    /// What the kernel asks before it lets this consumer sleep.
    #[cfg(all(test, loom))]
    pub(super) fn is_armed(&self) -> bool {
        self.memory().header().bell.0.sleeping.load(Relaxed) == 1
    }

    #[cfg(not(loom))]
    fn word(&self) -> &StdAtomicU32 {
        &self.memory().header().bell.0.sleeping
    }
}

/// A word in this process's own memory by which its other threads wake the one in [`sleep`].
#[derive(Debug, Default)]
pub struct Attention {
    word: StdAtomicU32,
    calls: StdAtomicU64,
}

impl Attention {
    /// Calls the sleeper's attention; it finds [`Attention::called`] true.
    pub fn call(&self) {
        self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.word.store(1, std::sync::atomic::Ordering::SeqCst);
        #[cfg(not(loom))]
        futex_wake(&self.word);
    }

    /// Whether someone called since the last [`Attention::heed`].
    #[must_use]
    #[inline(always)]
    pub fn called(&self) -> bool {
        self.word.load(std::sync::atomic::Ordering::Relaxed) != 0
    }

    /// Takes note of the call; do this before looking at what it was about.
    pub fn heed(&self) {
        self.word.store(0, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Sleeps until a producer rings one of the armed consumers, attention is called, or `limit` has passed.
/// Returns at once when either has already happened. With more than 127 consumers it sleeps shortly.
#[cfg(not(loom))]
pub fn sleep<'a>(consumers: impl Iterator<Item = &'a Consumer>, attention: &Attention, limit: Duration) {
    use rustix::thread::futex::{Wait, WaitFlags, WaitPtr, WaitvFlags, waitv};

    let mut waits = [Wait::new(); MAX_WORDS];
    let mut n = 0;
    let mut limit = limit;
    let words = std::iter::once((&attention.word, 0)).chain(consumers.map(|c| (c.word(), 1)));
    for (word, value) in words {
        if n == MAX_WORDS {
            limit = limit.min(SHORT_SLEEP);
            break;
        }
        waits[n].val = value;
        waits[n].uaddr = WaitPtr::new(std::ptr::from_ref(word).cast_mut().cast());
        waits[n].flags = WaitFlags::SIZE_U32;
        n += 1;
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let end = std::time::Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    ) + limit;
    let end = rustix::time::Timespec {
        tv_sec: i64::try_from(end.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(end.subsec_nanos()),
    };
    let woken = waitv(&waits[..n], WaitvFlags::empty(), Some(&end), rustix::time::ClockId::Monotonic);
    if matches!(woken, Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM)) {
        std::thread::sleep(limit.min(SHORT_SLEEP));
    }
}
