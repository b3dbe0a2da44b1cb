//! Heavy hitters: Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k
//! Elements in Data Streams", ICDT 2005), for weighted items.
//!
//! There are `m` counters. An item without one takes that of the smallest weight `w`, and its own weight is added
//! to `w`: the item may have had that much before, without being noticed. So for every counter
//!
//! ```text
//! weight - inherited  <=  what the item really had  <=  weight
//! inherited  <=  smallest weight  <=  W / m          (W: weight of all items together)
//! ```
//! and every item that had more than `W / m` has a counter. Until all counters are taken all is exact.
//!
//! A counter also carries facts of its item (packets and bytes), which are of the time since it took the counter.
//! Weights that came from elsewhere are not in them.
//!
//! Counters lie in a heap by weight once all are taken; before that nobody asks for the smallest. From the half on the heap
//! grows by two with each counter that is taken, so that none has to wait until all have found their order.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

/// Items for which there is room from the start.
const ROOM: usize = 65_536;

/// One item and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counter<K, F> {
    pub(crate) item: K,
    /// What it had at most.
    pub(crate) weight: u64,
    /// How much of that another may have had.
    pub(crate) inherited: u64,
    /// Since it took the counter.
    pub(crate) facts: F,
}

/// Counters in their order, for a successor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedCounters<K, F> {
    counters: Vec<Counter<K, F>>,
    replaced: u64,
    total: u64,
}

impl<K, F> SavedCounters<K, F> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Counter<K, F>> {
        self.counters.iter()
    }
}

/// The heaviest of many items.
#[derive(Clone, Debug)]
pub(crate) struct SpaceSaving<K, F> {
    /// The first `heaped` of them are a heap, the smallest first: all, once all are taken.
    counters: Vec<Counter<K, F>>,
    heaped: usize,
    places: HashMap<K, u32>,
    most: usize,
    /// Counters that were taken from an item.
    replaced: u64,
    /// Weight of all items.
    total: u64,
}

impl<K: Copy + Eq + Hash, F: Copy + Default> SpaceSaving<K, F> {
    /// With so many counters.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(2);
        // With room for all, if they are not very many: to make room later takes as long as there are items.
        let places = HashMap::with_capacity(most.min(ROOM));
        Self { counters: Vec::new(), heaped: 0, places, most, replaced: 0, total: 0 }
    }

    /// Adds weight to an item; `note` adds to its facts.
    pub(crate) fn add(&mut self, item: K, weight: u64, note: impl FnOnce(&mut F)) {
        self.total = self.total.saturating_add(weight);
        let known = self.places.get(&item).map(|at| *at as usize);
        let at = known.unwrap_or_else(|| self.take(item));
        let counter = &mut self.counters[at];
        counter.weight = counter.weight.saturating_add(weight);
        note(&mut counter.facts);
        self.sink(at);
    }

    /// Gives an item a counter: a new one, or the smallest.
    fn take(&mut self, item: K) -> usize {
        if self.counters.len() < self.most {
            let at = self.counters.len();
            self.counters.push(Counter { item, weight: 0, inherited: 0, facts: F::default() });
            self.places.insert(item, u32::try_from(at).unwrap_or(u32::MAX));
            if self.counters.len() > self.most / 2 {
                (0..2).for_each(|_| self.grow_heap());
                return self.places[&item] as usize;
            }
            return at;
        }
        let smallest = self.counters[0];
        self.places.remove(&smallest.item);
        self.places.insert(item, 0);
        self.counters[0] =
            Counter { item, weight: smallest.weight, inherited: smallest.weight, facts: F::default() };
        self.replaced += 1;
        0
    }

    /// Takes the next counter into the heap, where it rises to where it belongs.
    fn grow_heap(&mut self) {
        if self.heaped == self.counters.len() {
            return;
        }
        let mut at = self.heaped;
        self.heaped += 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.counters[parent].weight <= self.counters[at].weight {
                return;
            }
            self.exchange(parent, at);
            at = parent;
        }
    }

    /// Lets a counter that has grown sink to where it belongs, if it is in the heap.
    fn sink(&mut self, mut at: usize) {
        loop {
            let children = [2 * at + 1, 2 * at + 2].into_iter().filter(|child| *child < self.heaped);
            let Some(least) = children.min_by_key(|child| self.counters[*child].weight) else { return };
            if self.counters[least].weight >= self.counters[at].weight {
                return;
            }
            self.exchange(least, at);
            at = least;
        }
    }

    fn exchange(&mut self, one: usize, other: usize) {
        self.counters.swap(one, other);
        for place in [one, other] {
            self.places.insert(self.counters[place].item, u32::try_from(place).unwrap_or(u32::MAX));
        }
    }

    /// All counters, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Counter<K, F>> {
        self.counters.iter()
    }

    /// Counters that are taken.
    pub(crate) fn len(&self) -> usize {
        self.counters.len()
    }

    /// The counter of an item.
    pub(crate) fn get(&self, item: &K) -> Option<&Counter<K, F>> {
        self.counters.get(*self.places.get(item)? as usize)
    }

    /// What an item without a counter had at most, and no counter says too much by more.
    pub(crate) fn error(&self) -> u64 {
        if self.counters.len() < self.most { 0 } else { self.counters[0].weight }
    }

    /// Counters that changed their item.
    pub(crate) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Counters that there are.
    pub(crate) fn capacity(&self) -> usize {
        self.most
    }

    /// All of it.
    pub(crate) fn save(&self) -> SavedCounters<K, F> {
        SavedCounters { counters: self.counters.clone(), replaced: self.replaced, total: self.total }
    }

    /// Goes on from where another has come to. With fewer counters the heaviest stay, and the others' greatest
    /// weight is inherited by those that come: the bounds hold.
    pub(crate) fn restore(&mut self, saved: &SavedCounters<K, F>) {
        let mut counters = saved.counters.clone();
        if counters.len() > self.most {
            counters.sort_by_key(|counter| std::cmp::Reverse(counter.weight));
            self.replaced += (counters.len() - self.most) as u64;
            counters.truncate(self.most);
        }
        self.counters = counters;
        let items = self.counters.iter().map(|counter| counter.item);
        self.places.clear();
        self.places.extend(items.zip(0..));
        self.replaced += saved.replaced;
        self.total = saved.total;
        self.heaped = 0;
        if self.counters.len() > self.most / 2 {
            (0..self.counters.len()).for_each(|_| self.grow_heap());
        }
    }

    /// Weight of all items.
    #[cfg(test)]
    fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Facts: how often it was added to.
    type Times = SpaceSaving<u32, u64>;

    fn add(counters: &mut Times, item: u32, weight: u64) {
        counters.add(item, weight, |times| *times += 1);
    }

    proptest! {
        #[test]
        fn the_bounds_of_the_paper_hold(
            stream in prop::collection::vec((0u32..60, 1u64..100), 0..600),
            most in 2usize..40,
            restored in any::<prop::sample::Index>(),
        ) {
            let mut counters = Times::new(most);
            let mut truth: HashMap<u32, u64> = HashMap::new();
            let half = restored.index(stream.len() + 1);
            for (n, (item, weight)) in stream.iter().enumerate() {
                if n == half {
                    let saved = counters.save();
                    counters = Times::new(most);
                    counters.restore(&saved);
                }
                add(&mut counters, *item, *weight);
                *truth.entry(*item).or_default() += weight;
            }
            let all: u64 = truth.values().sum();
            prop_assert_eq!(counters.total(), all);
            prop_assert!(counters.error() <= all / most as u64);
            for counter in counters.iter() {
                let really = truth[&counter.item];
                prop_assert!(counter.weight - counter.inherited <= really && really <= counter.weight);
                prop_assert!(counter.inherited <= counters.error());
            }
            for (item, weight) in &truth {
                let known = counters.iter().any(|counter| counter.item == *item);
                prop_assert!(known || *weight <= counters.error(), "{item} of {weight} is missing");
            }
            prop_assert_eq!(counters.iter().map(|counter| counter.weight).sum::<u64>(), all);
            if truth.len() < most {
                prop_assert!(counters.iter().all(|counter| counter.inherited == 0));
            }
        }
    }

    #[test]
    fn heavy_ones_are_found_among_many() {
        let mut counters = Times::new(100);
        for n in 0..100_000u32 {
            add(&mut counters, 1000 + n, 1);
            if n % 20 == 0 {
                add(&mut counters, n % 3, 10);
            }
        }
        let mut best: Vec<_> = counters.iter().copied().collect();
        best.sort_by_key(|counter| std::cmp::Reverse(counter.weight));
        let mut items: Vec<u32> = best[..3].iter().map(|counter| counter.item).collect();
        items.sort_unstable();
        assert_eq!(items, [0, 1, 2]);
        assert!(counters.error() <= 150_000 / 100 && counters.replaced() > 90_000);
    }

    #[test]
    fn fewer_counters_keep_the_heaviest() {
        let mut many = Times::new(50);
        (0..50).for_each(|n| add(&mut many, n, u64::from(n) + 1));
        let mut few = Times::new(5);
        few.restore(&many.save());
        let mut kept: Vec<u32> = few.iter().map(|counter| counter.item).collect();
        kept.sort_unstable();
        assert_eq!(kept, [45, 46, 47, 48, 49]);
        assert_eq!((few.error(), few.replaced()), (46, 45));
    }
}
