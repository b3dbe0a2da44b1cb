//! Changes of single rules, without building anew.
//!
//! A rule's *slot* is its number for ever; its *index* is its place in the order and moves when rules before it
//! come or go. Trees know slots only. A rule that is taken out stays where it is and is dead: its slot keeps a
//! place in the order, so that the first slot of a leaf never stands behind a living rule of that leaf, and is
//! never given again. A new rule is put into the leaves where it belongs, or, if these are too many, into the
//! tail.

use std::collections::HashMap;

use crate::Rule5;
use crate::bits::{Pattern, PortBits};
use crate::group::{Group, LANES};
use crate::tree::{Entry, Forest, TREES};

/// Marks dead slots in [`Order::places`].
const DEAD: u32 = 1 << 31;
/// Leaves that a rule is put into, at most; one costs about 100 ns.
const LEAVES: usize = 256;

/// Room for so many rules and what may be inserted before it is time to build anew: a list that grows is
/// copied, which takes longer than the rest of a change.
pub(crate) fn with_spare(rules: usize) -> usize {
    rules + rules / 4 + 64
}

/// Where each slot stands.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// By slot: the index of the rule, or of the one that came after it, marked [`DEAD`].
    places: Vec<u32>,
    /// By index: the slot.
    slots: Vec<u32>,
    /// Whether any slot differs from its index, or is dead.
    changed: bool,
}

impl Order {
    /// Of rules as they were built.
    pub(crate) fn new(rules: u32) -> Order {
        let identity = || {
            let mut list = Vec::with_capacity(with_spare(rules as usize));
            list.extend(0..rules);
            list
        };
        Order { places: identity(), slots: identity(), changed: false }
    }

    /// Whether slots have to be translated into indices.
    #[inline(always)]
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// The index of a slot; none if it is dead.
    #[inline(always)]
    pub(crate) fn index(&self, slot: u32) -> Option<u32> {
        let place = self.places[slot as usize];
        (place & DEAD == 0).then_some(place)
    }

    /// The place of a slot, dead or not. No slot that stands after it in a leaf has a lower one.
    #[inline(always)]
    pub(crate) fn place(&self, slot: u32) -> u32 {
        self.places[slot as usize] & !DEAD
    }

    /// Memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.places[..]) + size_of_val(&self.slots[..])
    }

    /// The slots in order.
    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// A new slot at `index`.
    pub(crate) fn insert(&mut self, index: u32) -> u32 {
        let slot = self.new_slot(index);
        for place in &mut self.places {
            *place += u32::from(*place & !DEAD >= index);
        }
        self.places.push(index);
        self.slots.insert(index as usize, slot);
        slot
    }

    /// Kills the slot at `index`, and says which it was.
    pub(crate) fn remove(&mut self, index: u32) -> u32 {
        let slot = self.slots.remove(index as usize);
        self.changed = true;
        for place in &mut self.places {
            *place -= u32::from(*place & !DEAD > index);
        }
        self.places[slot as usize] |= DEAD;
        slot
    }

    /// A new slot in the place of the one at `index`, which dies; the old one and the new one.
    pub(crate) fn replace(&mut self, index: u32) -> (u32, u32) {
        let slot = self.new_slot(index);
        self.changed = true;
        let old = std::mem::replace(&mut self.slots[index as usize], slot);
        self.places[old as usize] |= DEAD;
        self.places.push(index);
        (old, slot)
    }

    fn new_slot(&mut self, index: u32) -> u32 {
        let slot = u32::try_from(self.places.len()).ok().filter(|slot| slot & DEAD == 0);
        let slot = slot.expect("rules were changed more than 2³¹ times without building anew");
        self.changed |= slot != index;
        slot
    }
}

impl<G: Group> Forest<G> {
    /// Puts a rule into its leaves. `rules` are all, by slot.
    pub(crate) fn insert(&mut self, slot: u32, rules: &[Rule5], order: &Order) {
        let Some(pattern) = Pattern::new(G::LAYOUT, &rules[slot as usize]) else { return };
        let tree = self.tree_for(pattern.lengths);
        let root = self.roots()[tree];
        let mut places = Vec::new();
        let mut few = true;
        if !root.is_leaf() {
            few = self.leaves_of(root, &pattern, PortBits::default(), &mut |place| {
                places.push(place);
                places.len() <= LEAVES
            });
        }
        let mut moved = HashMap::new();
        if root.is_leaf() || !few {
            let tree = if few { tree } else { TREES };
            let leaf = self.leaf_with(self.roots()[tree], slot, rules, order, &mut moved);
            self.set_root(tree, leaf);
            return;
        }
        for place in places {
            let leaf = self.leaf_with(self.entries()[place as usize], slot, rules, order, &mut moved);
            self.set_child(place, leaf);
        }
    }

    /// The leaf with `slot` in it: itself, or a longer one that takes its place here. A leaf that stands in
    /// several places is `moved` once; where the rule does not belong, the old one stays.
    fn leaf_with(
        &mut self,
        leaf: Entry,
        slot: u32,
        rules: &[Rule5],
        order: &Order,
        moved: &mut HashMap<u32, Entry>,
    ) -> Entry {
        // Leaves without rules have no groups of their own.
        let name = |leaf: Entry| if leaf.groups() == 0 { u32::MAX } else { leaf.base() };
        if let Some(moved) = moved.get(&name(leaf)) {
            return *moved;
        }
        let mut slots: Vec<u32> = self.groups_of(leaf).iter().flat_map(slots_of).collect();
        let place = order.place(slot);
        slots.insert(slots.partition_point(|other| order.place(*other) < place), slot);
        let room = leaf.groups() as usize * LANES;
        let full = slots.len() > room;
        let target = if full { self.add_leaf(slots[0], slots.len()) } else { leaf };
        for (group, eight) in self.groups_of_mut(target).iter_mut().zip(slots.chunks(LANES)) {
            for (lane, slot) in eight.iter().enumerate() {
                group.set(lane, &rules[*slot as usize], *slot);
            }
        }
        let target = Entry::leaf(slots[0], target.base(), target.groups());
        moved.insert(name(leaf), target);
        moved.insert(name(target), target);
        target
    }
}

/// The slots in a group, without empty lanes.
fn slots_of<G: Group>(group: &G) -> impl Iterator<Item = u32> {
    (0..LANES).map(|lane| group.slot(lane)).filter(|slot| *slot != crate::NONE)
}
