//! Decisions of flows: what the rules said of a packet, for the next one that is like it.
//!
//! The key is all that rules can tell apart: the five fields and, where any rule asks for them, flags, ICMP type, VLANs,
//! input port and the connection's state. What depends on more (a limit beyond which a rule does not match, a mark) is
//! never put here, nor what several rules had a part in. A change of the rules or of the hour empties the cache at
//! once, by another epoch.
//!
//! More flows than there is room for make it a burden: each packet then waits for memory twice. So it rests for a while
//! when few of those that ask it find something.
//!
//! It is an array of buckets of two; the newer takes the place of the older. Flows that share a bucket on purpose
//! cost each other the classifier's time, and no more.

use std::hash::{Hash, Hasher};

use onvm_classifier::Header;

/// Decisions in a bucket.
const WAYS: usize = 2;
/// Packets after which it is judged.
const WINDOW: u32 = 8192;
/// Packets for which it rests if fewer than a quarter of them found something.
const REST: u32 = 16 * WINDOW;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    header: Header,
    further: u128,
    /// 0: nothing has ever been here.
    epoch: u32,
    rule: u32,
}

const _: () = assert!(size_of::<Entry>() <= 64, "an entry is a cache line");

/// Multiplies and folds; quick, and good enough for an array that forgives collisions.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    #[inline]
    fn write_usize(&mut self, _length: usize) {}
}

/// Decisions by header.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: Vec<Entry>,
    epoch: u32,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Packets that did not ask because it rested.
    pub(crate) rested: u64,
    /// Packets left until it is judged, and of those before them the ones that found something.
    window: u32,
    found: u32,
    /// Packets left until it is asked again.
    rest: u32,
}

impl Cache {
    /// Room for about so many decisions, rounded up to a power of two; 0 for no cache.
    pub(crate) fn new(size: usize) -> Self {
        let header = Header::v4([0; 4].into(), [0; 4].into(), 0, 0, 0);
        let empty = Entry { header, further: 0, epoch: 0, rule: 0 };
        let entries = if size == 0 { Vec::new() } else { vec![empty; size.max(WAYS).next_power_of_two()] };
        Self { entries, epoch: 1, hits: 0, misses: 0, rested: 0, window: WINDOW, found: 0, rest: 0 }
    }

    /// Number of decisions that there is room for.
    pub(crate) fn size(&self) -> usize {
        self.entries.len()
    }

    /// Nothing of what is here holds any more.
    pub(crate) fn forget(&mut self) {
        self.epoch = self.epoch.checked_add(1).unwrap_or_else(|| {
            self.entries.iter_mut().for_each(|entry| entry.epoch = 0);
            1
        });
    }

    /// The first entry of a header's bucket.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "a place in an array is wanted, not the number")]
    fn bucket(&self, header: &Header, further: u128) -> usize {
        let mut fold = Fold::default();
        header.hash(&mut fold);
        fold.write_u64((further ^ further >> 64) as u64);
        fold.finish() as usize & (self.entries.len() - 1) & !(WAYS - 1)
    }

    /// Whether [`find`](Self::find) would find nothing now; nothing is counted.
    #[inline]
    pub(crate) fn lacks(&self, header: &Header, further: u128) -> bool {
        if self.entries.is_empty() || self.rest > 0 {
            return true;
        }
        let at = self.bucket(header, further);
        let is_it =
            |entry: &Entry| entry.epoch == self.epoch && entry.header == *header && entry.further == further;
        !self.entries[at..at + WAYS].iter().any(is_it)
    }

    #[inline]
    pub(crate) fn find(&mut self, header: &Header, further: u128) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        if self.rest > 0 {
            self.rest -= 1;
            self.rested += 1;
            return None;
        }
        let at = self.bucket(header, further);
        let is_it =
            |entry: &&Entry| entry.epoch == self.epoch && entry.header == *header && entry.further == further;
        let found = self.entries[at..at + WAYS].iter().find(is_it).map(|entry| entry.rule);
        if found.is_some() {
            self.hits += 1;
            self.found += 1;
        } else {
            self.misses += 1;
        }
        self.window -= 1;
        if self.window == 0 {
            self.judge();
        }
        found
    }

    #[cold]
    fn judge(&mut self) {
        if self.found < WINDOW / 4 {
            self.rest = REST;
        }
        (self.window, self.found) = (WINDOW, 0);
    }

    /// Remembers a decision that is not here.
    #[inline]
    pub(crate) fn insert(&mut self, header: Header, further: u128, rule: u32) {
        if self.entries.is_empty() || self.rest > 0 {
            return;
        }
        let at = self.bucket(&header, further);
        // The front is the newer; the older one moves out.
        self.entries.copy_within(at..at + WAYS - 1, at + 1);
        self.entries[at] = Entry { header, further, epoch: self.epoch, rule };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(n: u16) -> Header {
        Header::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), n, 80, 6)
    }

    #[test]
    fn what_was_put_in_is_found_until_it_is_forgotten() {
        let mut cache = Cache::new(1024);
        for n in 0..100 {
            assert_eq!(cache.find(&header(n), 0), None);
            cache.insert(header(n), 0, u32::from(n));
        }
        let found = (0..100).filter(|n| cache.find(&header(*n), 0) == Some(u32::from(*n))).count();
        assert!(found > 80, "{found} of 100 in 1,024 places");
        assert_eq!((cache.find(&header(5), 1), cache.hits + cache.misses), (None, 201));
        cache.forget();
        assert_eq!((0..100).filter(|n| cache.find(&header(*n), 0).is_some()).count(), 0);
    }

    #[test]
    fn it_rests_when_nobody_finds_anything_and_comes_back() {
        let mut cache = Cache::new(16);
        for n in 0..WINDOW {
            let far = Header::v4(std::net::Ipv4Addr::from_bits(n), [10, 0, 0, 2].into(), 1, 80, 6);
            assert_eq!(cache.find(&far, 0), None);
            cache.insert(far, 0, n);
        }
        cache.insert(header(1), 0, 1);
        for _ in 0..REST {
            assert_eq!(cache.find(&header(1), 0), None);
        }
        assert_eq!((cache.rested, cache.misses), (u64::from(REST), u64::from(WINDOW)));
        assert_eq!(cache.find(&header(1), 0), None, "nothing was put in while it rested");
        cache.insert(header(1), 0, 1);
        assert!((0..2 * WINDOW).all(|_| cache.find(&header(1), 0) == Some(1)));
    }

    #[test]
    fn no_size_is_no_cache() {
        let mut cache = Cache::new(0);
        cache.insert(header(1), 0, 1);
        assert_eq!((cache.find(&header(1), 0), cache.misses), (None, 0));
    }
}
