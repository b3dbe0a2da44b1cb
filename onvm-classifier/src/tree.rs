//! The trees: nodes, leaves, and the plain way through them.

use crate::Header;
use crate::NONE;
use crate::bits::{Key, PortBits, pext};
use crate::cut::{self, Cut};
use crate::group::{Group, LANES};

/// In [`Entry::info`]: a leaf.
const LEAF: u32 = 1 << 31;

/// A node or a leaf, as its parent's table holds it: one step down a tree is one access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub(crate) struct Entry {
    /// Node: the bits to look at. Leaf: the slot of its first rule, and above it how many groups there are.
    mask: u64,
    /// Node: where its children stand. Leaf: where its groups stand.
    base: u32,
    /// Node: its view. Leaf: [`LEAF`].
    info: u32,
}

const _: () = assert!(size_of::<Entry>() == 16, "four share a cache line");

impl Entry {
    /// A leaf without rules.
    pub(crate) const EMPTY: Entry = Entry::leaf(NONE, 0, 0);

    /// A leaf of `groups` groups from `base` on.
    pub(crate) const fn leaf(least: u32, base: u32, groups: u32) -> Entry {
        Entry { mask: least as u64 | (groups as u64) << 32, base, info: LEAF }
    }

    /// A node whose children stand from `base` on.
    #[allow(clippy::cast_possible_truncation, reason = "there are eight views")]
    pub(crate) fn node(cut: Cut, base: u32) -> Entry {
        Entry { mask: cut.mask, base, info: cut.view as u32 }
    }

    #[inline(always)]
    pub(crate) fn is_leaf(self) -> bool {
        self.info & LEAF != 0
    }

    /// Where its children or groups stand.
    #[inline(always)]
    pub(crate) fn base(self) -> u32 {
        self.base
    }

    /// Node: the bits to look at. Leaf: any.
    #[inline(always)]
    pub(crate) fn mask(self) -> u64 {
        self.mask
    }

    /// Node: the view. Leaf: any.
    #[inline(always)]
    pub(crate) fn view(self) -> usize {
        (self.info & 7) as usize
    }

    /// Leaf: the slot of its first rule, [`NONE`] without rules. No rule here stands before it.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub(crate) fn least(self) -> u32 {
        self.mask as u32
    }

    /// Leaf: how many groups it has.
    #[inline(always)]
    pub(crate) fn groups(self) -> u32 {
        (self.mask >> 32) as u32
    }

    /// Node: what it looks at.
    pub(crate) fn cut(self) -> Cut {
        Cut { view: self.view(), mask: self.mask }
    }
}

/// All rules of one family: some trees, and the *tail*, a leaf that every header comes to, with rules inserted
/// later that lie in too many places of a tree.
///
/// Invariants, without which lookups panic: a node's children, as many as there are values of its bits, lie
/// within `entries`; a leaf's groups lie within `groups`.
#[derive(Clone, Debug)]
pub(crate) struct Forest<G> {
    entries: Vec<Entry>,
    groups: Vec<G>,
    /// Of trees for rules with long destinations, with long sources, with neither; and the tail.
    roots: [Entry; TREES + 1],
    /// From which lengths on prefixes are long.
    pub(crate) lengths: [u8; 2],
}

/// Trees in a forest.
pub(crate) const TREES: usize = 3;

impl<G: Group> Forest<G> {
    /// A forest without rules.
    pub(crate) fn new(lengths: [u8; 2]) -> Forest<G> {
        Forest { entries: Vec::new(), groups: Vec::new(), roots: [Entry::EMPTY; TREES + 1], lengths }
    }

    /// The tree for rules with prefixes of these lengths.
    pub(crate) fn tree_for(&self, lengths: [u8; 2]) -> usize {
        match [0, 1].map(|i| lengths[i] >= self.lengths[i]) {
            [_, true] => 0,
            [true, false] => 1,
            [false, false] => 2,
        }
    }

    #[inline(always)]
    pub(crate) fn roots(&self) -> &[Entry; TREES + 1] {
        &self.roots
    }

    pub(crate) fn set_root(&mut self, tree: usize, root: Entry) {
        self.roots[tree] = root;
    }

    #[inline(always)]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Room for the children of a node, empty leaves at first. Says where.
    pub(crate) fn add_children(&mut self, count: usize) -> u32 {
        let base = index(self.entries.len());
        self.entries.resize(self.entries.len() + count, Entry::EMPTY);
        base
    }

    pub(crate) fn set_child(&mut self, at: u32, child: Entry) {
        self.entries[at as usize] = child;
    }

    /// The groups of a leaf.
    #[inline]
    pub(crate) fn groups_of(&self, leaf: Entry) -> &[G] {
        &self.groups[leaf.base as usize..][..leaf.groups() as usize]
    }

    /// The groups of a leaf, to change them.
    pub(crate) fn groups_of_mut(&mut self, leaf: Entry) -> &mut [G] {
        &mut self.groups[leaf.base as usize..][..leaf.groups() as usize]
    }

    /// Makes a leaf of empty groups, the first rule of which will be `least`.
    pub(crate) fn add_leaf(&mut self, least: u32, rules: usize) -> Entry {
        let (base, count) = (self.groups.len(), rules.div_ceil(LANES));
        self.groups.resize(base + count, G::default());
        Entry::leaf(least, index(base), index(count))
    }

    /// Makes the memory exact after building, with room for what insertions will add.
    pub(crate) fn settle(&mut self) {
        self.entries.shrink_to_fit();
        // Not touched until needed; growing later would copy all in the middle of a change.
        self.groups.reserve_exact(self.groups.len() + 4096);
    }

    /// Memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.entries[..]) + size_of_val(&self.groups[..])
    }

    /// The leaf that a header comes to below `at`; and how many nodes lie before it.
    pub(crate) fn leaf(&self, mut at: Entry, key: &Key) -> (Entry, u32) {
        let mut depth = 0;
        while !at.is_leaf() {
            let child = pext(key[at.view()], at.mask);
            at = self.entries[at.base as usize + usize::try_from(child).expect("few bits are looked at")];
            depth += 1;
        }
        (at, depth)
    }

    /// Calls `found` with the slots of matching rules, leaf by leaf, the first of each leaf first; when `found`
    /// says so, the rest of the leaf is left out.
    pub(crate) fn search(&self, header: &Header, found: &mut impl FnMut(u32) -> bool) {
        let key = crate::bits::key(G::LAYOUT, header);
        for root in self.roots {
            let (leaf, _) = self.leaf(root, &key);
            'leaf: for group in self.groups_of(leaf) {
                let mut matching = group.matching(header);
                while matching != 0 {
                    if found(group.slot(matching.trailing_zeros() as usize)) {
                        break 'leaf;
                    }
                    matching &= matching - 1;
                }
            }
        }
    }

    /// Calls `each` with the place of every leaf below the node `at` in whose part of the space a rule lies;
    /// stops when `each` says so. Says whether it went through.
    pub(crate) fn leaves_of(
        &self,
        at: Entry,
        pattern: &crate::bits::Pattern,
        path: PortBits,
        each: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        cut::children(G::LAYOUT, at.cut(), pattern, path, &mut |child, known| {
            let place = at.base + child;
            let entry = self.entries[place as usize];
            if entry.is_leaf() { each(place) } else { self.leaves_of(entry, pattern, known, each) }
        })
    }
}

/// A place in a table.
fn index(place: usize) -> u32 {
    u32::try_from(place).expect("the memory bound of building keeps tables under 2³² entries")
}
