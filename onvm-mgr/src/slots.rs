//! Which instance of a service gets which flows.
//!
//! The flow hash chooses one of [`SLOTS`] slots, a slot belongs to an instance. When an instance comes, it takes slots
//! from those that have most; when one goes, its slots go to those that have least. So shares stay equal to
//! within one slot, and no flow moves that need not.

use std::collections::BTreeMap;

use onvm_lib::protocol::InstanceId;

/// Slots per service. A power of two, so that the upper bits of the hash are the slot.
pub(crate) const SLOTS: usize = 1024;

/// The slots of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotTable {
    owners: Vec<InstanceId>,
}

impl SlotTable {
    /// Owner of each slot; empty while there is no instance.
    pub(crate) fn owners(&self) -> &[InstanceId] {
        &self.owners
    }

    /// Slots that each instance has.
    fn shares(&self) -> BTreeMap<InstanceId, usize> {
        let mut shares = BTreeMap::new();
        self.owners.iter().for_each(|owner| *shares.entry(*owner).or_insert(0) += 1);
        shares
    }

    /// An instance comes.
    pub(crate) fn add(&mut self, instance: InstanceId) {
        if self.owners.is_empty() {
            self.owners = vec![instance; SLOTS];
            return;
        }
        let mut others = self.shares();
        let has = others.remove(&instance).unwrap_or(0);
        let fair = SLOTS / (others.len() + 1);
        for _ in has..fair {
            // Of those that have most the youngest gives.
            let Some((richest, n)) = others.iter_mut().max_by_key(|(_, n)| **n) else { return };
            *n -= 1;
            let Some(slot) = self.owners.iter().position(|o| o == richest) else { return };
            self.owners[slot] = instance;
        }
    }

    /// An instance takes the place of another.
    pub(crate) fn replace(&mut self, old: InstanceId, new: InstanceId) {
        self.owners.iter_mut().filter(|owner| **owner == old).for_each(|owner| *owner = new);
    }

    /// An instance goes.
    pub(crate) fn remove(&mut self, instance: InstanceId) {
        let mut others = self.shares();
        others.remove(&instance);
        if others.is_empty() {
            self.owners.clear();
            return;
        }
        for owner in self.owners.iter_mut().filter(|owner| **owner == instance) {
            if let Some((poorest, n)) = others.iter_mut().min_by_key(|(_, n)| **n) {
                *owner = *poorest;
                *n += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moved(before: &SlotTable, after: &SlotTable) -> usize {
        before.owners.iter().zip(&after.owners).filter(|(a, b)| a != b).count()
    }

    proptest! {
        #[test]
        fn only_the_share_moves_and_shares_stay_equal(n in 1usize..40, gone in 0usize..40) {
            let mut table = SlotTable::default();
            for instance in 1..=n {
                let before = table.clone();
                table.add(InstanceId::try_from(instance).unwrap());
                if instance > 1 {
                    prop_assert!(moved(&before, &table) <= SLOTS / instance);
                }
            }
            let shares: Vec<usize> = table.shares().into_values().collect();
            prop_assert_eq!(shares.iter().sum::<usize>(), SLOTS);
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 2);
            let gone = InstanceId::try_from(gone % n + 1).unwrap();
            let (before, share) = (table.clone(), table.shares()[&gone]);
            table.remove(gone);
            prop_assert!(!table.owners().contains(&gone));
            if n > 1 {
                prop_assert_eq!(moved(&before, &table), share);
            } else {
                prop_assert!(table.owners().is_empty());
            }
        }
    }
}
