//! How trees are built.

use std::collections::HashMap;

use crate::Rule5;
use crate::bits::{Pattern, PortBits};
use crate::cut::{self, Eagerness};
use crate::group::{Group, LANES};
use crate::tree::{Entry, Forest, TREES};

/// A leaf has no more rules than this where that can be had. Two groups: one more comparison costs about what a
/// node costs, and takes less memory.
const LEAF: usize = 2 * LANES;
/// Rules in all leaves of a tree together, for each rule that it has. Where rules overlap so much that this is
/// not enough, leaves become longer instead.
const COPIES: usize = 12;
/// Nodes on a path, at most.
const DEPTH: usize = 16;

/// Rules that are of the forest's family, with their slots.
pub(crate) struct Rules<'a> {
    slots: Vec<(u32, &'a Rule5)>,
    patterns: Vec<Pattern>,
}

impl<'a> Rules<'a> {
    /// Those of `rules` that a header of the family can match.
    pub(crate) fn of_family<G: Group>(rules: impl Iterator<Item = (u32, &'a Rule5)>) -> Rules<'a> {
        let mut of_family = Rules { slots: Vec::new(), patterns: Vec::new() };
        for (slot, rule) in rules {
            if let Some(pattern) = Pattern::new(G::LAYOUT, rule) {
                of_family.slots.push((slot, rule));
                of_family.patterns.push(pattern);
            }
        }
        of_family
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The rules themselves.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a Rule5> {
        self.slots.iter().map(|(_, rule)| *rule)
    }

    /// About `count` of the rules, evenly spread.
    pub(crate) fn some(&self, count: usize) -> Rules<'a> {
        let step = self.len().div_ceil(count).max(1);
        Rules {
            slots: self.slots.iter().step_by(step).copied().collect(),
            patterns: self.patterns.iter().step_by(step).copied().collect(),
        }
    }
}

struct Builder<'a, G> {
    forest: Forest<G>,
    rules: &'a Rules<'a>,
    /// Leaves that are there already, by their rules.
    leaves: HashMap<Vec<u32>, Entry>,
}

/// Builds trees over `rules`; prefixes of `lengths` and more are long.
pub(crate) fn forest<G: Group>(rules: &Rules<'_>, lengths: [u8; 2]) -> Forest<G> {
    let mut builder = Builder { forest: Forest::new(lengths), rules, leaves: HashMap::new() };
    let mut trees: [Vec<u32>; TREES] = Default::default();
    for (id, pattern) in (0..).zip(&rules.patterns) {
        trees[builder.forest.tree_for(pattern.lengths)].push(id);
    }
    for (tree, ids) in trees.into_iter().enumerate() {
        let room = COPIES * ids.len() + 1024;
        let root = builder.entry(&ids, PortBits::default(), room, 0);
        builder.forest.set_root(tree, root);
    }
    builder.forest.settle();
    builder.forest
}

impl<G: Group> Builder<'_, G> {
    /// Builds what is below a place to which the rules `ids` come; leaves may have `room` rules together.
    fn entry(&mut self, ids: &[u32], path: PortBits, room: usize, depth: usize) -> Entry {
        if ids.len() <= LEAF || depth == DEPTH {
            return self.leaf(ids);
        }
        let patterns = &self.rules.patterns;
        let Some(cut) = cut::choose(G::LAYOUT, patterns, ids, Eagerness::usual(room)) else {
            return self.leaf(ids);
        };
        let mut cells: Vec<(Vec<u32>, PortBits)> = vec![Default::default(); 1 << cut.mask.count_ones()];
        for id in ids {
            cut::children(G::LAYOUT, cut, &patterns[*id as usize], path, &mut |child, known| {
                let cell = &mut cells[child as usize];
                cell.0.push(*id);
                cell.1 = known;
                true
            });
        }
        let copies: usize = cells.iter().map(|(cell, _)| cell.len()).sum();
        let base = self.forest.add_children(cells.len());
        let mut siblings: HashMap<(Vec<u32>, PortBits), Entry> = HashMap::new();
        for (place, cell) in (base..).zip(cells).filter(|(_, cell)| !cell.0.is_empty()) {
            let entry = match siblings.get(&cell) {
                Some(entry) => *entry,
                None => {
                    let entry = self.entry(&cell.0, cell.1, room * cell.0.len() / copies, depth + 1);
                    siblings.insert(cell, entry);
                    entry
                }
            };
            self.forest.set_child(place, entry);
        }
        Entry::node(cut, base)
    }

    /// A leaf with these rules. Equal leaves are one: a leaf may have more rules than its place asks for, since
    /// all fields are compared in it.
    fn leaf(&mut self, ids: &[u32]) -> Entry {
        let Some(first) = ids.first() else { return Entry::EMPTY };
        if let Some(leaf) = self.leaves.get(ids) {
            return *leaf;
        }
        let slots = &self.rules.slots;
        let leaf = self.forest.add_leaf(slots[*first as usize].0, ids.len());
        for (group, eight) in self.forest.groups_of_mut(leaf).iter_mut().zip(ids.chunks(LANES)) {
            for (lane, id) in eight.iter().enumerate() {
                let (slot, rule) = slots[*id as usize];
                group.set(lane, rule, slot);
            }
        }
        self.leaves.insert(ids.to_vec(), leaf);
        leaf
    }
}
