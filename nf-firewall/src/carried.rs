//! What rules have counted goes with them from one set to the next, by their names, a few rules after each burst: to find
//! the names of 100,000 rules again takes 20 ms and more, which no packet need wait for. Counts only add up, so it does not matter
//! what the new set has counted meanwhile.

use crate::counts::Hits;
use crate::engine::Compiled;

/// Rules of the set before that are looked at after a burst.
pub(crate) const PART: usize = 256;

/// Counts of the set that was in force before.
#[derive(Debug)]
pub(crate) struct Carried {
    set: Compiled,
    hits: Vec<Hits>,
    /// Those before it are carried over.
    next: usize,
}

impl Carried {
    pub(crate) fn new(set: Compiled, hits: Vec<Hits>) -> Self {
        Self { set, hits, next: 0 }
    }

    /// Adds the counts of the next `rules` rules to those of `to`, which was not changed since it was read; whether that were all.
    pub(crate) fn carry(&mut self, rules: usize, to: &Compiled, hits: &mut [Hits]) -> bool {
        let end = self.next.saturating_add(rules).min(self.hits.len());
        for index in self.next..end {
            let before = self.hits[index];
            if before.packets > 0
                && let Some(place) = to.same_rule(&self.set, index)
                && let Some(hits) = hits.get_mut(place)
            {
                hits.add_all(before);
            }
        }
        self.next = end;
        end == self.hits.len()
    }

    /// The set, to be freed elsewhere.
    pub(crate) fn into_set(self) -> Compiled {
        self.set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::load::{Reading, read};

    fn compiled(names: &[&str]) -> Compiled {
        let rules: Vec<String> =
            names.iter().map(|name| format!("- {{name: {name}, to-port: 1-9, action: allow}}\n")).collect();
        let text = format!("rules:\n{}", rules.concat());
        Compiled::new(read("f", &text, &Reading::default()).unwrap().set)
    }

    fn hits(packets: &[u64]) -> Vec<Hits> {
        packets.iter().map(|n| Hits { packets: *n, bytes: n * 60, limited: 0 }).collect()
    }

    #[test]
    fn counts_go_with_the_names_a_few_at_a_time() {
        let (old, new) = (compiled(&["a", "b", "c", "d"]), compiled(&["x", "d", "b", "a"]));
        let mut carried = Carried::new(old, hits(&[1, 2, 4, 8]));
        let mut now = hits(&[100, 0, 0, 0]);
        assert!(!carried.carry(2, &new, &mut now));
        assert_eq!(now, hits(&[100, 0, 2, 1]));
        // Packets go on.
        now[2].packets += 1000;
        assert!(!carried.carry(1, &new, &mut now) && carried.carry(1, &new, &mut now));
        assert_eq!(now.iter().map(|h| h.packets).collect::<Vec<_>>(), [100, 8, 1002, 1]);
        assert!(carried.carry(usize::MAX, &new, &mut now), "nothing is carried twice");
        assert_eq!(now[1].packets, 8);
        assert_eq!(carried.into_set().set.rules.len(), 4);
    }
}
