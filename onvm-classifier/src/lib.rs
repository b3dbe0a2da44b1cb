//! onvm-classifier: finds the first of many rules that a header matches.
//!
//! Rules have five fields (source and destination prefix, source and destination ports, protocol), IPv4 or
//! IPv6, and stand in order: the one with the lowest index wins. A [`Classifier`] is built of a slice of
//! [`Rule5`], looked up in with single [`Header`]s or bursts of them, and changed rule by rule. [`classbench`]
//! reads ClassBench's files.
//!
//! # Theory of operation
//! ```text
//! header ─▶ views ─▶ tree of rules with long destinations ─▶ leaf ─┐
//!        (words of   tree of those with long sources      ─▶ leaf ─┤ 8 rules at once, all fields ─▶ lowest index
//!         its bits)  tree of the rest                     ─▶ leaf ─┤
//!                    tail: inserted, and wide                      ┘
//! ```
//! - **A node gathers bits.** Which ones, it may choose from anywhere in one of some overlapping 64-bit *views* of the
//!   header (`bits.rs`): one instruction (`pext`) makes the number of the child of them. `cut.rs` chooses them one by
//!   one by what they bring, ports and protocol beside addresses, up to 14 in a node. So trees are flat (two to three
//!   steps for 100,000 rules), and a step is one access to memory: a child's description stands in its parent's
//!   table (`tree.rs`).
//! - **A rule that leaves bits open stands in several leaves.** That is what makes trees large, so rules are parted by
//!   which of their prefixes are long, as in EffiCuts and CutSplit; where the line is, is found by trial (`plan.rs`).
//!   Copies are bounded (`grow.rs`): where rules overlap too much, leaves become longer instead, so that memory is
//!   linear in the number of rules whatever they are.
//! - **A leaf is compared eight rules at once** (`group.rs`, `quick.rs`), in all fields. So a leaf may hold rules that do
//!   not belong there, equal leaves are stored once, and a change need not cut anything anew.
//! - **A tree whose leaf has nothing better is skipped**: each leaf knows its first rule.
//! - **A burst takes each step together**, so that waits for memory overlap.
//!
//! Processors without AVX2 and BMI2 take the same trees in plain steps, with the same answers.
//!
//! # Changes
//! [`insert`](Classifier::insert), [`remove`](Classifier::remove) and [`replace`](Classifier::replace) leave
//! nodes as they are (`change.rs`). A removed rule is marked dead and stays in its leaves; an inserted one is
//! put into its leaves, up to 256, or else into the tail, which every header is compared with. So lookups
//! become slower with changes: by about a tenth, at most three tenths, after an eighth of the rules was taken out
//! and put in again. From then on ([`changes`](Classifier::changes) counts) the caller should build anew
//! beside, and swap. A change of 100,000 rules takes some 15 µs, most of it for moving indices.
//!
//! # What was measured
//! Over the ClassBench sets acl1, fw1, ipc1 of 1,000 to 100,000 rules, turn by turn on one core with DPDK
//! 22.11's `librte_acl` (AVX2, huge pages) by `scripts/bench.sh classifier`: 1.2 to 1.8 times its lookups for
//! 1,000 rules, 1.3 to 6.5 for 10,000, 6 to 14 for 100,000, with a fiftieth to an eightieth of its memory there
//! and built 15 to 80 times as fast. By published figures for TupleMerge, at least 1.2 times the better of both
//! on every set.
//!
//! Tried, as times the speed of what is here, over eight sets (lowest and highest; by the processor's time, on
//! a machine with other work, so a tenth says little):
//!
//! | Instead | Speed |
//! |---|---|
//! | one tree for all rules, nothing parted | 0.06 (fw1 100k) to 1.0 |
//! | trees not skipped by their leaves' first rules | 0.3 (fw1 100k) to 1.0 |
//! | the line between long and short prefixes fixed at 9 bits | 0.7 to 1.0 |
//! | only bits that bring a fifth in place of a twentieth | 0.8 to 1.0 on most, less memory |
//! | memory fetched ahead by hints | 0.75 to 1.0; the processor looks far enough ahead |
//! | at most 8 bits in a node | 0.85 to 1.0 |
//! | leaves of 8 rules in place of 16 | 0.9 to 1.0, and more nodes |
//! | bursts of 8, 16 or 64 in place of 32 | 0.9 to 1.1, none better on all |
//! | places in tables not checked | 1.0 to 1.1; not worth the risk |
//! | transparent huge pages for the tables | 1.0: they are 15 MB at most |
//!
//! # Limits
//! Rules that no bits tell apart (ranges that all overlap, the same rule many times) are searched one after the
//! other, eight at a time. On AMD processors before Zen 3 `pext` is slow.
//!
//! Sources: P. Gupta and N. McKeown, "Packet Classification using Hierarchical Intelligent Cuttings", Hot
//! Interconnects 1999; B. Vamanan et al., "EffiCuts", SIGCOMM 2010; Z. Liu et al., "BitCuts", Computer
//! Communications 2017; W. Li et al., "CutSplit", INFOCOM 2018.
#![warn(missing_docs)]
#![deny(unsafe_code)]

mod bits;
mod change;
pub mod classbench;
mod cut;
mod group;
mod grow;
mod header;
mod plan;
#[cfg(target_arch = "x86_64")]
mod quick;
mod rule;
mod tree;

use change::Order;
use group::{Group, GroupV4, GroupV6};
pub use header::Header;
pub use rule::{Ports, Rule5};
use tree::Forest;

/// In the answers of [`Classifier::classify_burst`]: no rule matches.
pub const NONE: u32 = u32::MAX;

/// A compiled set of rules.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// By slot: all rules that ever were.
    rules: Vec<Rule5>,
    order: Order,
    v4: Forest<GroupV4>,
    v6: Forest<GroupV6>,
    /// How many rules there were when the trees were built.
    built: usize,
    /// Whether the processor can go the quick way.
    quick: bool,
}

impl Classifier {
    /// Compiles a set of rules; the first is the most important.
    ///
    /// # Panics
    /// With 2³¹ rules or more.
    #[must_use]
    pub fn build(rules: &[Rule5]) -> Classifier {
        let count = u32::try_from(rules.len()).ok().filter(|count| *count < 1 << 31);
        let count = count.unwrap_or_else(|| panic!("{} rules are more than 2³¹ - 1", rules.len()));
        let mut by_slot = Vec::with_capacity(change::with_spare(rules.len()));
        by_slot.extend_from_slice(rules);
        Classifier {
            rules: by_slot,
            order: Order::new(count),
            v4: grown(rules),
            v6: grown(rules),
            built: rules.len(),
            quick: has_quick_way(),
        }
    }

    /// The same, but without instructions that not every processor has; for comparisons. Gives the same answers.
    #[must_use]
    pub fn without_simd(mut self) -> Classifier {
        self.quick = false;
        self
    }

    /// The rules, in order, with all changes made since.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule5> {
        self.order.slots().iter().map(|slot| &self.rules[*slot as usize])
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.slots().len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rules that were inserted, removed or replaced since the trees were built. From about an eighth of all
    /// on, it is worth building anew.
    #[must_use]
    pub fn changes(&self) -> usize {
        let inserted = self.rules.len() - self.built;
        inserted + (self.rules.len() - self.len())
    }

    /// Memory that the trees, the order and the rules take, in bytes; without what is kept free for changes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes() + self.order.bytes() + size_of_val(&self.rules[..])
    }

    /// The lowest index of a rule that `header` matches.
    #[must_use]
    pub fn classify(&self, header: &Header) -> Option<u32> {
        self.classify_if(header, |_| true)
    }

    /// The lowest index of a rule that `header` matches and `accept` takes: for rules with further conditions.
    /// `accept` may be asked about matching rules in any order, and not about all.
    #[must_use]
    pub fn classify_if(&self, header: &Header, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut best = NONE;
        let mut found = |slot: u32| match self.order.index(slot) {
            Some(index) if index >= best => true,
            Some(index) if accept(index) => {
                best = index;
                true
            }
            _ => false,
        };
        self.search(header, &mut found);
        (best != NONE).then_some(best)
    }

    /// Writes for each header the lowest index of a rule that it matches, or [`NONE`].
    ///
    /// # Panics
    /// If there is less room in `out` than there are headers.
    pub fn classify_burst(&self, headers: &[Header], out: &mut [u32]) {
        let out = &mut out[..headers.len()];
        #[cfg(target_arch = "x86_64")]
        if self.quick {
            for (headers, out) in headers.chunks(quick::BURST).zip(out.chunks_mut(quick::BURST)) {
                self.burst(headers, out);
            }
            return;
        }
        for (header, out) in headers.iter().zip(out) {
            *out = self.classify(header).unwrap_or(NONE);
        }
    }

    /// Puts a rule at `index`; that of the rules from there on grows by one.
    ///
    /// # Panics
    /// If `index` is above the number of rules.
    pub fn insert(&mut self, index: usize, rule: Rule5) {
        let at = self.checked(index, self.len() + 1);
        let slot = self.order.insert(at);
        self.rules.push(rule);
        self.plant(slot);
    }

    /// Takes a rule out; the index of those after it becomes less by one.
    ///
    /// # Panics
    /// If there is no rule with this index.
    pub fn remove(&mut self, index: usize) -> Rule5 {
        let at = self.checked(index, self.len());
        self.rules[self.order.remove(at) as usize]
    }

    /// Puts another rule in the place of one, which is returned.
    ///
    /// # Panics
    /// If there is no rule with this index.
    pub fn replace(&mut self, index: usize, rule: Rule5) -> Rule5 {
        let at = self.checked(index, self.len());
        let (old, slot) = self.order.replace(at);
        self.rules.push(rule);
        self.plant(slot);
        self.rules[old as usize]
    }

    fn checked(&self, index: usize, below: usize) -> u32 {
        assert!(index < below, "there is no place {index} among {} rules", self.len());
        u32::try_from(index).expect("there are fewer than 2³¹ rules")
    }

    fn plant(&mut self, slot: u32) {
        self.v4.insert(slot, &self.rules, &self.order);
        self.v6.insert(slot, &self.rules, &self.order);
    }

    fn search(&self, header: &Header, found: &mut impl FnMut(u32) -> bool) {
        #[cfg(target_arch = "x86_64")]
        if self.quick {
            return self.search_quickly(header, found);
        }
        if header.is_v6() { self.v6.search(header, found) } else { self.v4.search(header, found) }
    }
}

/// The trees of one family.
fn grown<G: Group>(rules: &[Rule5]) -> Forest<G> {
    let of_family = grow::Rules::of_family::<G>((0..).zip(rules));
    plan::forest(&of_family)
}

#[cfg(target_arch = "x86_64")]
fn has_quick_way() -> bool {
    quick::available()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_quick_way() -> bool {
    false
}
