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

    /// The ways with this hash, a bit each. The hash of a flow that is gone stays behind; its way has no slot.
    #[inline(always)]
    fn matching(&self, hash: u32) -> u32 {
        let mut ways = 0;
        for (way, known) in self.hashes.iter().enumerate() {
            ways |= u32::from(*known == hash) << way;
        }
        ways
    }

    /// The slots of the flows with this hash, among them [`FREE`].
    #[inline(always)]
    pub(super) fn slots_of(&self, hash: u32) -> impl Iterator<Item = u32> {
        let mut ways = self.matching(hash);
        std::iter::from_fn(move || {
            let way = ways.trailing_zeros() as usize;
            // Clears the lowest bit that is set.
            ways &= ways.wrapping_sub(1);
            self.slots.get(way).copied()
        })
    }

    /// The first slot of a flow with this hash; [`FREE`] if there is none.
    #[inline(always)]
    pub(super) fn first_slot_of(&self, hash: u32) -> u32 {
        let ways = self.matching(hash);
        self.slots.get(ways.trailing_zeros() as usize).copied().unwrap_or(FREE)
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
