//! One cache line of the table: the hashes of up to seven flows, and where these lie.

/// Flows in a bucket.
pub(super) const WAYS: usize = 7;
/// No flow.
pub(super) const FREE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    hashes: [u32; WAYS],
    /// Flows that belong here and found no room: they lie in the other bucket of their hash.
    pub(super) spilled: u32,
    /// Slots, [`FREE`] where there is none.
    pub(super) slots: [u32; WAYS],
    /// Fills the line.
    spare: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    pub(super) const EMPTY: Self = Self { hashes: [0; WAYS], spilled: 0, slots: [FREE; WAYS], spare: 0 };

    /// The slots of the flows with this hash, among them [`FREE`]: the hash of a flow that is gone stays behind, its
    /// way has no slot. Buckets have few flows, and those in front are found first.
    #[inline(always)]
    pub(super) fn slots_of(&self, hash: u32) -> impl Iterator<Item = u32> {
        let ways = self.hashes.iter().zip(&self.slots);
        ways.filter(move |(known, _)| **known == hash).map(|(_, slot)| *slot)
    }

    /// The first slot of a flow with this hash; [`FREE`] if there is none.
    #[inline(always)]
    pub(super) fn first_slot_of(&self, hash: u32) -> u32 {
        self.slots_of(hash).find(|slot| *slot != FREE).unwrap_or(FREE)
    }

    /// The first way without a flow.
    #[inline]
    pub(super) fn free_way(&self) -> Option<usize> {
        self.slots.iter().position(|slot| *slot == FREE)
    }

    /// Puts a flow into a way.
    #[inline]
    pub(super) fn set(&mut self, way: usize, hash: u32, slot: u32) {
        self.hashes[way] = hash;
        self.slots[way] = slot;
    }

    /// Takes the flow with this slot out; whether it was there.
    #[inline]
    pub(super) fn clear(&mut self, slot: u32) -> bool {
        let way = self.slots.iter().position(|known| *known == slot);
        if let Some(way) = way {
            self.slots[way] = FREE;
        }
        way.is_some()
    }
}
