//! Maglev's consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI'16, section 3.4), with weights.
//!
//! Each backend has a permutation of the table's places, made of an offset and a step; since the size is prime, every
//! step visits all places. Backends take turns in taking the first place of their permutation that is free, until all
//! are taken. With equal weights their parts differ by one place at most. With weights, a backend has as many turns
//! in a round as its weight is of the largest.
//!
//! The paper makes the table anew when a backend dies, and then some flows of others move as well. Here a table is
//! made of all backends that the configuration has, and [`Maglev::without`] gives the places of those that are not
//! available to the others, by the same taking of turns: no place of another backend changes, neither when one dies
//! nor when it comes back. Only a change of the configuration itself makes the table anew.
//!
//! The permutations depend on backends' names and addresses alone, so that balancers with the same file and the same
//! view of who is alive agree on every flow.

/// No backend.
const NONE: u16 = u16::MAX;

/// What a backend brings into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Hash of what names it.
    pub seed: u64,
    /// Its part; 0: none.
    pub weight: u32,
}

/// A table; its entries are indices of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maglev {
    entries: Box<[u16]>,
}

/// A member's way through its permutation, and its turns.
struct Walk {
    member: u16,
    at: u32,
    step: u32,
    weight: u32,
    /// Turns owed, in parts of the largest weight.
    credit: u32,
}

impl Walk {
    fn new(index: usize, member: Member, size: u32) -> Self {
        let (high, low) = (member.seed >> 32, member.seed & 0xffff_ffff);
        let (at, step) = (high % u64::from(size), low % u64::from(size - 1) + 1);
        Self {
            member: u16::try_from(index).unwrap_or(NONE),
            at: u32::try_from(at).unwrap_or(0),
            step: u32::try_from(step).unwrap_or(1),
            weight: member.weight,
            credit: 0,
        }
    }

    /// The next free place of the permutation. There must be one.
    fn next_free(&mut self, entries: &[u16]) -> usize {
        // The size is at most 2^22, so the sum fits.
        let size = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        loop {
            let place = self.at as usize;
            self.at += self.step;
            if self.at >= size {
                self.at -= size;
            }
            if entries[place] == NONE {
                return place;
            }
        }
    }
}

impl Maglev {
    /// A table of `size` places, a prime number up to 2^22, for up to 65,534 members.
    #[must_use]
    pub fn new(members: &[Member], size: u32) -> Self {
        let mut table = Self { entries: vec![NONE; size as usize].into_boxed_slice() };
        table.fill(members, |_| true);
        table
    }

    /// The table with the places of members that are not `available` given to others; empty if none is.
    #[must_use]
    pub fn without(&self, members: &[Member], available: impl Fn(usize) -> bool) -> Self {
        let keep = |entry: u16| entry != NONE && available(usize::from(entry));
        let entries = self.entries.iter().map(|entry| if keep(*entry) { *entry } else { NONE });
        let mut table = Self { entries: entries.collect() };
        table.fill(members, available);
        table
    }

    /// Gives all free places to available members by turns.
    fn fill(&mut self, members: &[Member], available: impl Fn(usize) -> bool) {
        let size = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let takes = |(index, member): &(usize, &Member)| member.weight > 0 && available(*index);
        let all = members.iter().enumerate().filter(takes);
        let mut walks: Vec<Walk> = all.map(|(index, member)| Walk::new(index, *member, size)).collect();
        // The order of turns is that of seeds, not of the file.
        walks.sort_by_key(|walk| members[usize::from(walk.member)].seed);
        let Some(largest) = walks.iter().map(|walk| walk.weight).max() else { return };
        let mut free = self.entries.iter().filter(|entry| **entry == NONE).count();
        while free > 0 {
            for walk in &mut walks {
                walk.credit += walk.weight;
                if walk.credit < largest {
                    continue;
                }
                walk.credit -= largest;
                let place = walk.next_free(&self.entries);
                self.entries[place] = walk.member;
                free -= 1;
                if free == 0 {
                    return;
                }
            }
        }
    }

    /// The same table for members that have other indices now, by their old ones; none: it is gone, and its places are
    /// nobody's.
    #[must_use]
    pub fn renumbered(self, numbers: &[Option<usize>]) -> Self {
        if numbers.iter().enumerate().all(|(old, new)| *new == Some(old)) {
            return self;
        }
        // An array for every value that an entry can have, so that this is one look-up an entry.
        let mut new = vec![NONE; usize::from(NONE) + 1];
        for (new, number) in new.iter_mut().zip(numbers) {
            *new = number.and_then(|number| u16::try_from(number).ok()).unwrap_or(NONE);
        }
        Self { entries: self.entries.iter().map(|entry| new[usize::from(*entry)]).collect() }
    }

    /// The member for a hash; none in an empty table.
    #[must_use]
    #[inline]
    pub fn pick(&self, hash: u32) -> Option<usize> {
        // The upper bits choose: multiplication instead of division, and all of them count.
        let place = (u64::from(hash) * self.entries.len() as u64) >> 32;
        let entry = usize::try_from(place).ok().and_then(|place| self.entries.get(place))?;
        (*entry != NONE).then_some(usize::from(*entry))
    }

    /// Entries, as indices of members; none where no member is available.
    pub fn entries(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        self.entries.iter().map(|entry| (*entry != NONE).then_some(usize::from(*entry)))
    }
}

/// Hash of bytes that names a member: FNV-1a, and a last mix (the finalizer of splitmix64), since short names differ
/// in few bits.
#[must_use]
pub fn seed(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(n: usize) -> Vec<Member> {
        (0..n)
            .map(|n| Member { seed: seed(format!("backend-{n} 10.0.0.{n}").as_bytes()), weight: 1 })
            .collect()
    }

    fn counts(table: &Maglev, members: usize) -> Vec<f64> {
        let mut counts = vec![0.0; members];
        table.entries().flatten().for_each(|member| counts[member] += 1.0);
        counts
    }

    /// Part of the entries that changed, of those whose member was not `gone`.
    fn moved(before: &Maglev, after: &Maglev, gone: usize) -> f64 {
        let pairs = before.entries().zip(after.entries()).filter(|(b, _)| *b != Some(gone));
        let (mut all, mut changed) = (0.0, 0.0);
        for (before, after) in pairs {
            all += 1.0;
            changed += f64::from(u8::from(before != after));
        }
        changed / all
    }

    #[test]
    fn a_hundred_backends_have_equal_parts() {
        let table = Maglev::new(&members(100), 65_537);
        let counts = counts(&table, 100);
        let most = counts.iter().copied().fold(0.0, f64::max);
        let imbalance = most / (65_537.0 / 100.0);
        assert!(imbalance <= 1.01, "{imbalance}");
        assert_eq!(table.entries().flatten().count(), 65_537);
    }

    #[test]
    fn when_one_of_a_hundred_dies_no_flow_of_another_moves() {
        let members = members(100);
        let table = Maglev::new(&members, 65_537);
        for dead in [0, 17, 99] {
            let after = table.without(&members, |member| member != dead);
            assert_eq!(moved(&table, &after, dead), 0.0);
            // And those of the dead one are spread evenly.
            let counts = counts(&after, 100);
            let most = counts.iter().copied().fold(0.0, f64::max);
            assert!(counts[dead] == 0.0 && most / (65_537.0 / 99.0) <= 1.01, "{most}");
            // It comes back, and all is as it was.
            assert_eq!(table.without(&members, |_| true), table);
        }
    }

    #[test]
    fn a_second_death_moves_few_flows_of_others() {
        let members = members(100);
        let table = Maglev::new(&members, 65_537);
        let first = table.without(&members, |member| member != 3);
        let both = table.without(&members, |member| member != 3 && member != 60);
        let share = moved(&first, &both, 60);
        assert!(share <= 0.01, "{share}");
    }

    #[test]
    fn a_removal_from_the_file_moves_few_flows_of_others() {
        let all = members(100);
        let before = Maglev::new(&all, 65_537);
        let gone = Member { weight: 0, ..all[42] };
        let without: Vec<_> = all.iter().enumerate().map(|(n, m)| if n == 42 { gone } else { *m }).collect();
        let share = moved(&before, &Maglev::new(&without, 65_537), 42);
        // Here the table is made anew, as in the paper.
        assert!(share > 0.0 && share <= 0.01, "{share}");
    }

    #[test]
    fn parts_follow_weights() {
        let mut members = members(4);
        (members[1].weight, members[2].weight, members[3].weight) = (3, 6, 0);
        let counts = counts(&Maglev::new(&members, 65_537), 4);
        for (count, weight) in counts.iter().zip([1.0, 3.0, 6.0, 0.0]) {
            assert!((count - 65_537.0 * weight / 10.0).abs() <= 2.0, "{counts:?}");
        }
    }

    #[test]
    fn members_may_be_numbered_anew() {
        let table = Maglev::new(&members(4), 997);
        assert_eq!(table.clone().renumbered(&[Some(0), Some(1), Some(2), Some(3)]), table);
        let turned = table.clone().renumbered(&[Some(3), None, Some(0), Some(9)]);
        for (old, new) in table.entries().zip(turned.entries()) {
            assert_eq!(new, [Some(3), None, Some(0), Some(9)][old.unwrap()]);
        }
    }

    #[test]
    fn without_a_member_there_is_no_pick() {
        assert_eq!(Maglev::new(&[], 7).pick(5), None);
        let members = members(2);
        let table = Maglev::new(&members, 7);
        assert_eq!(table.without(&members, |_| false).pick(u32::MAX), None);
        assert!(table.pick(u32::MAX).is_some() && table.pick(0).is_some());
    }

    proptest! {
        #[test]
        fn the_order_of_the_file_does_not_matter(n in 1usize..30, turn in 0usize..30) {
            let all = members(n);
            let mut turned = all.clone();
            turned.rotate_left(turn % n);
            let (a, b) = (Maglev::new(&all, 997), Maglev::new(&turned, 997));
            for (a, b) in a.entries().zip(b.entries()) {
                prop_assert_eq!(a.map(|a| all[a].seed), b.map(|b| turned[b].seed));
            }
        }

        #[test]
        fn only_places_of_the_dead_change(
            weights in prop::collection::vec(0u32..20, 2..20), dead in any::<u32>(),
        ) {
            let mut all = members(weights.len());
            all.iter_mut().zip(&weights).for_each(|(member, weight)| member.weight = *weight);
            let available = |n: usize| dead >> n & 1 == 0;
            let table = Maglev::new(&all, 997);
            let after = table.without(&all, available);
            let anyone = all.iter().enumerate().any(|(n, m)| m.weight > 0 && available(n));
            for (before, after) in table.entries().zip(after.entries()) {
                match before {
                    Some(member) if available(member) => prop_assert_eq!(after, before),
                    _ => prop_assert_eq!(after.is_some(), anyone),
                }
                prop_assert!(after.is_none_or(|n| available(n) && all[n].weight > 0));
            }
        }
    }
}
