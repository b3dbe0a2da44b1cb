//! Sets of numbers as sorted ranges: addresses, ports, protocols, VLANs.
//!
//! All conditions on numbers become one of these, so that groups, ranges and negations are plain set arithmetic, and
//! whether one rule hides another is a question of subsets.

use std::fmt;

/// A number with a smallest, a greatest and neighbours.
pub(crate) trait Number: Copy + Ord + fmt::Debug {
    const MIN: Self;
    const MAX: Self;
    /// The next greater; none for the greatest.
    fn next(self) -> Option<Self>;
    /// The next smaller; none for the smallest.
    fn previous(self) -> Option<Self>;
}

macro_rules! numbers {
    ($($kind:ty),*) => { $(
        impl Number for $kind {
            const MIN: Self = <$kind>::MIN;
            const MAX: Self = <$kind>::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )* };
}

numbers!(u8, u16, u32, u128);

/// Numbers: inclusive ranges, sorted, neither overlapping nor touching.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ranges<T>(Vec<(T, T)>);

impl<T: Number> Ranges<T> {
    /// No number.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// All numbers.
    pub(crate) fn all() -> Self {
        Self(vec![(T::MIN, T::MAX)])
    }

    /// These ranges, in any order. One that ends before it begins is empty.
    pub(crate) fn of(ranges: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut sorted: Vec<(T, T)> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some((_, end)) if end.next().is_none_or(|next| first <= next) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    pub(crate) fn one(number: T) -> Self {
        Self(vec![(number, number)])
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (T, T)> {
        self.0.iter().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_all(&self) -> bool {
        self.0 == [(T::MIN, T::MAX)]
    }

    #[inline]
    pub(crate) fn contains(&self, number: T) -> bool {
        // Most sets have one range.
        if let [(first, last)] = self.0[..] {
            return first <= number && number <= last;
        }
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(at).is_some_and(|(first, _)| *first <= number)
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        Self::of(self.iter().chain(other.iter()))
    }

    pub(crate) fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut from = Some(T::MIN);
        for (first, last) in self.iter() {
            if let (Some(from), Some(before)) = (from, first.previous())
                && from <= before
            {
                gaps.push((from, before));
            }
            from = last.next();
        }
        gaps.extend(from.map(|from| (from, T::MAX)));
        Self(gaps)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let (mut a, mut b) = (0, 0);
        let mut shared = Vec::new();
        while let (Some(one), Some(two)) = (self.0.get(a), other.0.get(b)) {
            let (first, last) = (one.0.max(two.0), one.1.min(two.1));
            if first <= last {
                shared.push((first, last));
            }
            if one.1 < two.1 { a += 1 } else { b += 1 }
        }
        Self(shared)
    }

    pub(crate) fn without(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }

    pub(crate) fn is_subset_of(&self, other: &Self) -> bool {
        self.iter().all(|(first, last)| {
            let at = other.0.partition_point(|(_, end)| *end < first);
            other.0.get(at).is_some_and(|(from, to)| *from <= first && last <= *to)
        })
    }

    /// The smallest range that holds all; none for the empty set.
    pub(crate) fn hull(&self) -> Option<(T, T)> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }
}

impl<T: Number + fmt::Display> fmt::Display for Ranges<T> {
    /// `80, 443, 8000-8080`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn touching_ranges_become_one() {
        let ranges = Ranges::of([(5u8, 9), (1, 3), (4, 4), (20, 10), (200, 255)]);
        assert_eq!(ranges.to_string(), "1-9, 200-255");
        assert_eq!(ranges.complement().to_string(), "0, 10-199");
        assert_eq!(Ranges::<u8>::none().complement(), Ranges::all());
        assert_eq!(Ranges::<u128>::all().complement(), Ranges::none());
    }

    fn any_ranges() -> impl Strategy<Value = Ranges<u8>> {
        prop::collection::vec((any::<u8>(), 0u8..40), 0..6)
            .prop_map(|all| Ranges::of(all.into_iter().map(|(a, n)| (a, a.saturating_add(n)))))
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_sets(a in any_ranges(), b in any_ranges()) {
            let (both, either, not) = (a.intersection(&b), a.union(&b), a.complement());
            let mut within = true;
            for n in 0..=255u8 {
                prop_assert_eq!(both.contains(n), a.contains(n) && b.contains(n));
                prop_assert_eq!(either.contains(n), a.contains(n) || b.contains(n));
                prop_assert_eq!(not.contains(n), !a.contains(n));
                prop_assert_eq!(a.without(&b).contains(n), a.contains(n) && !b.contains(n));
                within &= !a.contains(n) || b.contains(n);
            }
            prop_assert_eq!(a.is_subset_of(&b), within);
            prop_assert_eq!(not.complement(), a);
        }
    }
}
