//! onvm-classifier: finds the first of many rules that a header matches.
//!
//! Rules have five fields and stand in order: the one with the lowest index wins.
#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod classbench;
mod header;
mod rule;

pub use header::Header;
pub use rule::{Ports, Rule5};

/// In the answers of [`Classifier::classify_burst`]: no rule matches.
pub const NONE: u32 = u32::MAX;

/// A compiled set of rules.
#[derive(Clone, Debug)]
pub struct Classifier {
    rules: Vec<Rule5>,
}

impl Classifier {
    /// Compiles a set of rules; the first is the most important.
    ///
    /// # Panics
    /// With 2³¹ rules or more.
    #[must_use]
    pub fn build(rules: &[Rule5]) -> Classifier {
        assert!(rules.len() < 1 << 31, "{} rules are too many", rules.len());
        Classifier { rules: rules.to_vec() }
    }

    /// The rules, in order, with all changes made since.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule5> {
        self.rules.iter()
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The lowest index of a rule that `header` matches.
    #[must_use]
    pub fn classify(&self, header: &Header) -> Option<u32> {
        self.classify_if(header, |_| true)
    }

    /// The lowest index of a rule that `header` matches and `accept` takes: for rules with further conditions.
    /// `accept` may be asked about matching rules in any order, and not about all.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "there are fewer than 2³¹ rules")]
    pub fn classify_if(&self, header: &Header, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let matching = |(index, rule): (usize, &Rule5)| rule.matches(header).then_some(index as u32);
        self.rules.iter().enumerate().filter_map(matching).find(|index| accept(*index))
    }

    /// Writes for each header the lowest index of a rule that it matches, or [`NONE`].
    ///
    /// # Panics
    /// If there is less room in `out` than there are headers.
    pub fn classify_burst(&self, headers: &[Header], out: &mut [u32]) {
        for (header, out) in headers.iter().zip(&mut out[..headers.len()]) {
            *out = self.classify(header).unwrap_or(NONE);
        }
    }

    /// Puts a rule at `index`; that of the rules from there on grows by one.
    ///
    /// # Panics
    /// If `index` is above the number of rules.
    pub fn insert(&mut self, index: usize, rule: Rule5) {
        self.rules.insert(index, rule);
    }

    /// Takes a rule out; the index of those after it becomes less by one.
    ///
    /// # Panics
    /// If there is no rule with this index.
    pub fn remove(&mut self, index: usize) -> Rule5 {
        self.rules.remove(index)
    }

    /// Puts another rule in the place of one, which is returned.
    ///
    /// # Panics
    /// If there is no rule with this index.
    pub fn replace(&mut self, index: usize, rule: Rule5) -> Rule5 {
        std::mem::replace(&mut self.rules[index], rule)
    }
}
