//! A table of flows: bounded, quick, and not to be slowed down by someone who picks the flows.
//!
//! ```text
//! hash ─┬▶ bucket ─┬─▶ slots: key, hash and value, one a flow
//!       └▶ other  ─┘   a bucket is one cache line: 7 hashes │ how many spilled │ 7 slots
//! ```
//! *Look-up.* It reads one bucket and, where a hash is equal, one slot. A flow whose bucket was full when it came
//! lies in the other bucket of its hash; the first one counts those, so that nearly all look-ups end there.
//!
//! *Bounds.* There are four places for every flow, so that honest flows find one: full tables of a million flows
//! turn away none. The packet brings its hash along; it has no secret seed, so one can choose flows that share
//! both buckets. They cost [`CANDIDATES`] comparisons at most, and push out each other. Memory is taken once, by
//! [`FlowTable::new`]: 89 bytes a flow and the value's size (rounded up to its alignment).
//!
//! *Eviction.* A new flow that finds no place takes that of another. The caller says by a rank who has to go: the
//! lowest of those in the two buckets. In a full table flows of the next buckets stand for election, too, until
//! there are [`ELECTION`]. A rank of `None` protects a flow; if all are protected the new flow is refused.
//!
//! *Bursts.* With a million flows each look-up waits twice for memory. [`locate`](FlowTable::locate) reads the
//! buckets of all packets of a burst and [`touch`](FlowTable::touch) their slots, each in a loop whose steps do
//! not depend on each other: the processor then waits for many at a time. [`find_at`](FlowTable::find_at) goes
//! on from there. A [`Guess`] is a hint: it is checked, and may be wrong or old.
//!
//! *Expiry.* [`sweep`](FlowTable::sweep) looks at so many slots and no more, and goes on from there the next time.
//!
//! *Hand-over.* [`placed`](FlowTable::placed) tells the place of each flow, and
//! [`put_back`](FlowTable::put_back) takes it there in another table of the same size: all flows then have the
//! neighbours that they had, and what happens to them does not depend on the hand-over.

mod bucket;
#[cfg(test)]
mod tests;

use crate::wire::FlowKey;
use bucket::{Bucket, FREE, WAYS};

/// Places for every flow that there may be.
const PLACES_PER_FLOW: usize = 4;
/// Flows that are compared with a key at most, and that stand for election in a full pair of buckets.
pub const CANDIDATES: usize = 2 * WAYS;
/// Flows that stand for election in a full table at least, if there are so many nearby.
pub const ELECTION: usize = 4;
/// Buckets that are looked at for them at most.
const NEIGHBOURS: usize = 32;

/// Where the flow of a hash probably lies; good for one look-up, and checked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guess(u32);

impl Guess {
    /// No flow has this hash.
    pub const NONE: Self = Self(FREE);
}

/// What became of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inserted<V> {
    /// It has its place.
    New,
    /// It has the place of this one, which is out.
    Evicted(FlowKey, V),
    /// The key was there already; this was its value.
    Replaced(V),
    /// Everyone whose place it could take is protected; it is not in the table.
    Refused(V),
}

/// What a look-up compares lies in front of the value.
#[derive(Clone, Debug)]
#[repr(C)]
struct Entry<V> {
    hash: u32,
    key: FlowKey,
    value: V,
}

/// A flow and its place, as [`FlowTable::placed`] tells it.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a, V> {
    /// The place: a number that means something in tables of the same size only.
    pub place: u32,
    /// The hash that it was put in with.
    pub hash: u32,
    /// Its key.
    pub key: &'a FlowKey,
    /// Its value.
    pub value: &'a V,
}

/// Values by flow key. The caller decides whether keys are of one direction or [symmetric](FlowKey::symmetric), and
/// brings the hash, usually the packet's own.
#[derive(Clone, Debug)]
pub struct FlowTable<V> {
    buckets: Vec<Bucket>,
    /// An entry without a flow is on the free list.
    slots: Vec<Option<Entry<V>>>,
    free: Vec<u32>,
    most: usize,
    /// Where the next sweep begins.
    swept: usize,
}

impl<V> FlowTable<V> {
    /// A table for `most` flows, at least 1 and at most 2^30; memory for all of them is reserved at once, and
    /// used when they come.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let most = most.clamp(1, 1 << 30);
        Self {
            buckets: vec![Bucket::EMPTY; (most * PLACES_PER_FLOW).div_ceil(WAYS)],
            slots: Vec::with_capacity(most),
            free: Vec::new(),
            most,
            swept: 0,
        }
    }

    /// Flows in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flows that there may be.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.most
    }

    /// The number below `buckets` that the upper bits of `mixed` say.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "less than the number of buckets")]
    fn scaled(&self, mixed: u32) -> usize {
        ((u64::from(mixed) * self.buckets.len() as u64) >> 32) as usize
    }

    /// The bucket that a hash belongs to. All bits of the hash take part: some of them have chosen the instance.
    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        self.scaled(hash.wrapping_mul(0x9e37_79b1))
    }

    /// The bucket for what does not fit there; seldom the same.
    #[inline]
    fn other(&self, hash: u32) -> usize {
        self.scaled((hash ^ hash >> 15).wrapping_mul(0x85eb_ca77))
    }

    /// Whether a slot has this flow.
    #[inline(always)]
    fn holds(&self, slot: u32, key: &FlowKey) -> bool {
        let entry = self.slots.get(slot as usize).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.key == *key)
    }

    #[inline(always)]
    fn slot_of(&self, hash: u32, key: &FlowKey) -> Option<u32> {
        let home = &self.buckets[self.home(hash)];
        match home.slots_of(hash).find(|slot| self.holds(*slot, key)) {
            None if home.spilled > 0 => self.spilled_slot_of(hash, key),
            found => found,
        }
    }

    #[cold]
    fn spilled_slot_of(&self, hash: u32, key: &FlowKey) -> Option<u32> {
        let other = &self.buckets[self.other(hash)];
        other.slots_of(hash).find(|slot| self.holds(*slot, key))
    }

    /// The value of a flow.
    #[must_use]
    #[inline]
    pub fn get(&self, hash: u32, key: &FlowKey) -> Option<&V> {
        let slot = self.slot_of(hash, key)?;
        self.slots[slot as usize].as_ref().map(|entry| &entry.value)
    }

    /// The value of a flow, to be changed.
    #[must_use]
    #[inline(always)]
    pub fn find(&mut self, hash: u32, key: &FlowKey) -> Option<&mut V> {
        let slot = self.slot_of(hash, key)?;
        self.slots[slot as usize].as_mut().map(|entry| &mut entry.value)
    }

    /// First pass over a burst: where the flows of these hashes probably lie. Fills as many guesses as there are
    /// hashes, or as there is room for.
    #[inline]
    pub fn locate(&self, hashes: &[u32], guesses: &mut [Guess]) {
        for (hash, guess) in hashes.iter().zip(guesses) {
            let home = &self.buckets[self.home(*hash)];
            let mut slot = home.first_slot_of(*hash);
            if slot == FREE && home.spilled > 0 {
                slot = self.buckets[self.other(*hash)].first_slot_of(*hash);
            }
            *guess = Guess(slot);
        }
    }

    /// Second pass: brings the flows near.
    #[inline]
    pub fn touch(&self, guesses: &[Guess]) {
        let mut all = 0;
        for guess in guesses {
            // What is read does not matter: the line of the hash is that of the key, and often of the value.
            if let Some(Some(entry)) = self.slots.get(guess.0 as usize) {
                all |= entry.hash;
            }
        }
        std::hint::black_box(all);
    }

    /// Third pass: [`find`](Self::find) with a guess. A guess that is right is enough: the hash is not looked at then.
    #[must_use]
    #[inline]
    pub fn find_at(&mut self, guess: Guess, hash: u32, key: &FlowKey) -> Option<&mut V> {
        let slot = if self.holds(guess.0, key) { guess.0 } else { self.slot_of(hash, key)? };
        self.slots[slot as usize].as_mut().map(|entry| &mut entry.value)
    }

    /// Puts a flow in. Without room for it the flow of the lowest `rank` among those that it meets goes.
    #[inline]
    pub fn insert<R: Ord>(
        &mut self,
        hash: u32,
        key: FlowKey,
        value: V,
        rank: impl Fn(&FlowKey, &V) -> Option<R>,
    ) -> Inserted<V> {
        if let Some(slot) = self.slot_of(hash, &key)
            && let Some(known) = &mut self.slots[slot as usize]
        {
            return Inserted::Replaced(std::mem::replace(&mut known.value, value));
        }
        let mut place = self.place_for(hash);
        let mut evicted = None;
        if place.is_none() || self.len() == self.most {
            let Some(out) = self.elect(hash, place.is_some(), rank) else { return Inserted::Refused(value) };
            evicted = self.take(out);
            place = self.place_for(hash);
        }
        let Some(place) = place else { return Inserted::Refused(value) };
        self.put(place, Entry { hash, key, value });
        evicted.map_or(Inserted::New, |out| Inserted::Evicted(out.key, out.value))
    }

    /// Bucket and way that are free for a flow of this hash.
    #[inline]
    fn place_for(&self, hash: u32) -> Option<(usize, usize)> {
        let free = |bucket: usize| Some((bucket, self.buckets[bucket].free_way()?));
        free(self.home(hash)).or_else(|| free(self.other(hash)))
    }

    /// The slot of the flow that has to make room; `nearby`: it need not be of the hash's own buckets.
    #[cold]
    #[inline(never)]
    fn elect<R: Ord>(
        &self,
        hash: u32,
        nearby: bool,
        rank: impl Fn(&FlowKey, &V) -> Option<R>,
    ) -> Option<u32> {
        let (home, other, all) = (self.home(hash), self.other(hash), self.buckets.len());
        let neighbours = (1..all.min(NEIGHBOURS)).map(|step| (home + step) % all);
        let own = [home, other].into_iter().take(if home == other { 1 } else { 2 });
        let further = neighbours.filter(|bucket| nearby && *bucket != other);
        let mut buckets = own.chain(further).enumerate();
        let mut candidates = [FREE; CANDIDATES + ELECTION];
        let mut lowest = None::<(R, u32)>;
        while lowest.is_none() {
            // First all candidates, then their ranks: the processor then waits for all of them at once.
            let mut seen = 0;
            for (n, bucket) in buckets.by_ref() {
                for slot in self.buckets[bucket].slots {
                    candidates[seen] = slot;
                    seen += usize::from(slot != FREE);
                }
                // Its own two are looked at in any case.
                if seen >= ELECTION && n > 0 {
                    break;
                }
            }
            if seen == 0 {
                return None;
            }
            for slot in &candidates[..seen] {
                let Some(Some(entry)) = self.slots.get(*slot as usize) else { continue };
                let Some(rank) = rank(&entry.key, &entry.value) else { continue };
                if lowest.as_ref().is_none_or(|(least, _)| rank < *least) {
                    lowest = Some((rank, *slot));
                }
            }
        }
        lowest.map(|(_, slot)| slot)
    }

    /// Puts an entry into a free place; there must be a free slot.
    #[inline]
    fn put(&mut self, (bucket, way): (usize, usize), entry: Entry<V>) {
        let (hash, home) = (entry.hash, self.home(entry.hash));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.push(Some(entry));
                u32::try_from(self.slots.len() - 1).unwrap_or(FREE)
            }
        };
        self.buckets[bucket].set(way, hash, slot);
        if bucket != home {
            self.buckets[home].spilled += 1;
        }
    }

    /// Takes the flow of a slot out.
    #[inline]
    fn take(&mut self, slot: u32) -> Option<Entry<V>> {
        let entry = self.slots.get_mut(slot as usize)?.take()?;
        let (home, other) = (self.home(entry.hash), self.other(entry.hash));
        if !self.buckets[home].clear(slot) && self.buckets[other].clear(slot) {
            self.buckets[home].spilled -= 1;
        }
        self.free.push(slot);
        Some(entry)
    }

    /// Takes a flow out; its value.
    pub fn remove(&mut self, hash: u32, key: &FlowKey) -> Option<V> {
        let slot = self.slot_of(hash, key)?;
        self.take(slot).map(|entry| entry.value)
    }

    /// Slots that [`sweep`](Self::sweep) goes round: flows that there were at most at the same time.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Looks at the next `slots` slots, at none twice, and takes out the flows that are not to be kept; how many.
    /// A closure that needs what it lets go copies it, or replaces it by something empty.
    pub fn sweep(&mut self, slots: usize, mut keep: impl FnMut(&FlowKey, &mut V) -> bool) -> usize {
        let before = self.len();
        for _ in 0..slots.min(self.slots.len()) {
            let at = if self.swept < self.slots.len() { self.swept } else { 0 };
            self.swept = at + 1;
            if let Some(entry) = &mut self.slots[at]
                && !keep(&entry.key, &mut entry.value)
                && let Ok(slot) = u32::try_from(at)
            {
                self.take(slot);
            }
        }
        before - self.len()
    }

    /// All flows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&FlowKey, &V)> {
        self.slots.iter().flatten().map(|entry| (&entry.key, &entry.value))
    }

    /// All flows, in no order; their values can be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&FlowKey, &mut V)> {
        self.slots.iter_mut().flatten().map(|entry| (&entry.key, &mut entry.value))
    }

    /// All flows in the order of their places.
    pub fn placed(&self) -> impl Iterator<Item = Placed<'_, V>> {
        let slots = self.buckets.iter().flat_map(|bucket| bucket.slots);
        (0..).zip(slots).filter_map(|(place, slot)| {
            let Entry { hash, key, value } = self.slots.get(slot as usize)?.as_ref()?;
            Some(Placed { place, hash: *hash, key, value })
        })
    }

    /// Puts a flow where it was in a table of the same size; elsewhere if it cannot be there (the table is of
    /// another size, the place is taken).
    ///
    /// # Errors
    /// The value, if there is no room for it or the key is there already.
    pub fn put_back(&mut self, place: u32, hash: u32, key: FlowKey, value: V) -> Result<(), V> {
        if self.len() == self.most || self.slot_of(hash, &key).is_some() {
            return Err(value);
        }
        let (bucket, way) = (place as usize / WAYS, place as usize % WAYS);
        let there = bucket == self.home(hash) || bucket == self.other(hash);
        let free = there && self.buckets[bucket].slots[way] == FREE;
        match Some((bucket, way)).filter(|_| free).or_else(|| self.place_for(hash)) {
            Some(place) => {
                self.put(place, Entry { hash, key, value });
                Ok(())
            }
            None => Err(value),
        }
    }
}
