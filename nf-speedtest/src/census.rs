//! Who is still going round.
//!
//! A census marks the numbers of all packets that come back, until sixteen times as many came as there should
//! be: whoever did not come by in all that time is lost, or on a way sixteen times as long as the others'.

/// Rounds that a census takes.
const ROUNDS: u64 = 16;

/// A census, or the result of the last one.
#[derive(Debug)]
pub(crate) struct Census {
    seen: Vec<u64>,
    people: u32,
    /// Packets still to come in the census under way; 0 between two.
    left: u64,
    /// How many the last one found.
    result: Option<u64>,
}

impl Census {
    /// For packets with the numbers below `people`.
    pub(crate) fn new(people: u32) -> Self {
        Self { seen: vec![0; people.div_ceil(64) as usize], people, left: 0, result: None }
    }

    /// Begins one, unless one is under way.
    pub(crate) fn begin(&mut self) {
        if self.left == 0 {
            self.seen.fill(0);
            self.left = ROUNDS * u64::from(self.people);
        }
    }

    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        self.left > 0
    }

    /// A packet of ours came by.
    #[inline]
    pub(crate) fn mark(&mut self, number: u32) {
        if self.left > 0 && number < self.people {
            self.seen[number as usize / 64] |= 1 << (number % 64);
            self.left -= 1;
            if self.left == 0 {
                self.result = Some(self.seen.iter().map(|word| u64::from(word.count_ones())).sum());
            }
        }
    }

    /// Nobody came by for so long that nobody can be left.
    pub(crate) fn nobody(&mut self) {
        self.result = Some(0);
        self.left = 0;
    }

    /// Packets that the last census found.
    pub(crate) fn result(&self) -> Option<u64> {
        self.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_who_is_missing() {
        let mut census = Census::new(100);
        assert_eq!(census.result(), None);
        census.begin();
        for round in 0.. {
            // Nine of a hundred are gone, so that it takes a little longer.
            (0..100).filter(|n| n % 11 != 5).for_each(|n| census.mark(n));
            census.mark(100);
            if !census.is_under_way() {
                assert_eq!(round, 17);
                break;
            }
        }
        assert_eq!(census.result(), Some(91));
        census.begin();
        assert_eq!(census.result(), Some(91), "until the next is over");
        census.nobody();
        assert_eq!((census.result(), census.is_under_way()), (Some(0), false));
    }
}
