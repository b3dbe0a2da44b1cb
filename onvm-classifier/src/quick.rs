//! The quick way through the trees, with AVX2 and BMI2.
//!
//! A burst goes down a tree together, one step of all headers after the other, so that the processor waits for
//! their memory at the same time: the steps do not depend on each other, and it looks far enough ahead to see
//! that. Telling it what to fetch made lookups slower by a fifth. A header that has come to a leaf leaves the
//! round. Then the leaves that can still bring a better rule than is known are compared, eight rules at once.
//!
//! `unsafe` stands here because the instructions must not be used without asking the processor first, and because the
//! loads of eight lanes take pointers. Places in tables are checked at each step, which costs about 4 %.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::change::Order;
use crate::group::{Group, GroupV4, GroupV6, LANES, Rest};
use crate::tree::{Entry, Forest};
use crate::{Classifier, Header, NONE, bits};

/// Headers that go through the trees together.
pub(crate) const BURST: usize = 32;

/// Whether this processor can go the quick way.
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2")
}

/// What the quick way needs to know of a family.
pub(crate) trait Quick: Group {
    /// The views of a header.
    type Key: Copy;
    const NO_KEY: Self::Key;
    fn key(header: &Header) -> Self::Key;
    /// One of the views; `which` is below 8.
    fn view(key: &Self::Key, which: usize) -> u64;

    /// The same as [`Group::matching`].
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn matching_avx2(&self, header: &Header) -> u32;
}

impl Classifier {
    /// At most [`BURST`] headers, of both families.
    #[inline]
    pub(crate) fn burst(&self, headers: &[Header], out: &mut [u32]) {
        assert!(self.quick && headers.len() <= BURST && headers.len() == out.len());
        let (mut v4, mut v6) = ([0; BURST], [0; BURST]);
        let (mut fours, mut sixes) = (0, 0);
        for (place, header) in (0..).zip(headers) {
            (v4[fours], v6[sixes]) = (place, place);
            fours += usize::from(!header.is_v6());
            sixes += usize::from(header.is_v6());
        }
        // SAFETY: `quick` is what `available` said.
        unsafe {
            if fours > 0 {
                burst(&self.v4, &self.order, headers, &v4[..fours], out);
            }
            if sixes > 0 {
                burst(&self.v6, &self.order, headers, &v6[..sixes], out);
            }
        }
    }

    /// As [`Forest::search`], in the forest of the header's family.
    #[inline]
    pub(crate) fn search_quickly(&self, header: &Header, found: &mut impl FnMut(u32) -> bool) {
        assert!(self.quick);
        // SAFETY: `quick` is what `available` said.
        unsafe {
            if header.is_v6() { search(&self.v6, header, found) } else { search(&self.v4, header, found) }
        }
    }
}

/// Looks up the headers at the places `which`, all of the family, and writes their answers to the same places
/// of `out`.
///
/// # Panics
/// With more than [`BURST`] places, or a place outside `headers` or `out`.
///
/// # Safety
/// [`available`].
#[target_feature(enable = "avx2,bmi2")]
pub(crate) unsafe fn burst<G: Quick>(
    forest: &Forest<G>,
    order: &Order,
    headers: &[Header],
    which: &[u8],
    out: &mut [u32],
) {
    // SAFETY: as the caller's.
    unsafe {
        if order.changed() {
            burst_of::<G, true>(forest, order, headers, which, out);
        } else {
            burst_of::<G, false>(forest, order, headers, which, out);
        }
    }
}

/// [`burst`], with or without translation of slots.
///
/// # Safety
/// As for [`burst`].
#[target_feature(enable = "avx2,bmi2")]
unsafe fn burst_of<G: Quick, const CHANGED: bool>(
    forest: &Forest<G>,
    order: &Order,
    headers: &[Header],
    which: &[u8],
    out: &mut [u32],
) {
    let mut keys = [G::NO_KEY; BURST];
    for (key, place) in keys.iter_mut().zip(which) {
        *key = G::key(&headers[usize::from(*place)]);
    }
    let mut best = [NONE; BURST];
    for root in forest.roots() {
        if root.is_leaf() && root.groups() == 0 {
            continue;
        }
        let mut leaves = [*root; BURST];
        if !root.is_leaf() {
            descend(forest, &keys, which.len(), &mut leaves);
        }
        let mut worth = [0u8; BURST];
        let mut count = 0;
        for (i, leaf) in (0u8..).zip(&leaves[..which.len()]) {
            let least = match leaf.least() {
                NONE => NONE,
                slot if CHANGED => order.place(slot),
                slot => slot,
            };
            worth[count] = i;
            count += usize::from(least < best[usize::from(i)]);
        }
        for i in worth[..count].iter().map(|i| usize::from(*i) & (BURST - 1)) {
            let header = &headers[usize::from(which[i])];
            // SAFETY: as the caller's.
            let slot = unsafe { first::<G, CHANGED>(forest, order, leaves[i], header) };
            best[i] = best[i].min(slot);
        }
    }
    for (place, best) in which.iter().zip(best) {
        out[usize::from(*place)] = best;
    }
}

/// Brings the first `count` keys, [`BURST`] at most, to their leaves. `leaves` holds the root, a node, in all places.
#[inline]
#[target_feature(enable = "bmi2")]
fn descend<G: Quick>(forest: &Forest<G>, keys: &[G::Key; BURST], count: usize, leaves: &mut [Entry; BURST]) {
    let entries = forest.entries();
    let root = leaves[0];
    let mut next = [0u32; BURST];
    let mut under_way = [0u8; BURST];
    for (i, place) in (0u8..).zip(&mut under_way[..count]) {
        *place = i;
        next[usize::from(i)] = child_of::<G>(root, &keys[usize::from(i)]);
    }
    let mut left = count;
    while left > 0 {
        let mut still = 0;
        for j in 0..left {
            let i = usize::from(under_way[j]) & (BURST - 1);
            let entry = entries[next[i] as usize];
            leaves[i] = entry;
            next[i] = child_of::<G>(entry, &keys[i]);
            // Without a branch: whether this is a leaf is not to be foreseen.
            #[allow(clippy::cast_possible_truncation, reason = "less than BURST")]
            let name = i as u8;
            under_way[still] = name;
            still += usize::from(!entry.is_leaf());
        }
        left = still;
    }
}

/// Where the child of a node stands that a key comes to; anywhere if the entry is a leaf.
#[inline]
#[target_feature(enable = "bmi2")]
#[allow(clippy::cast_possible_truncation, reason = "nodes look at few bits")]
fn child_of<G: Quick>(entry: Entry, key: &G::Key) -> u32 {
    entry.base().wrapping_add(_pext_u64(G::view(key, entry.view()), entry.mask()) as u32)
}

/// The first rule of a leaf that matches, as an index; [`NONE`] if none does.
///
/// # Safety
/// [`available`].
#[inline]
#[target_feature(enable = "avx2,bmi2")]
unsafe fn first<G: Quick, const CHANGED: bool>(
    forest: &Forest<G>,
    order: &Order,
    leaf: Entry,
    header: &Header,
) -> u32 {
    for group in forest.groups_of(leaf) {
        // SAFETY: as the caller's.
        let mut matching = unsafe { group.matching_avx2(header) };
        while matching != 0 {
            let slot = group.slot(matching.trailing_zeros() as usize & (LANES - 1));
            match CHANGED {
                false => return slot,
                true => match order.index(slot) {
                    Some(index) => return index,
                    None => matching &= matching - 1,
                },
            }
        }
    }
    NONE
}

/// The same as [`Forest::search`], for one header of the forest's family.
///
/// # Safety
/// [`available`].
#[target_feature(enable = "avx2,bmi2")]
pub(crate) unsafe fn search<G: Quick>(
    forest: &Forest<G>,
    header: &Header,
    found: &mut impl FnMut(u32) -> bool,
) {
    let key = G::key(header);
    for root in forest.roots() {
        let mut at = *root;
        while !at.is_leaf() {
            at = forest.entries()[child_of::<G>(at, &key) as usize];
        }
        'leaf: for group in forest.groups_of(at) {
            // SAFETY: as the caller's.
            let mut matching = unsafe { group.matching_avx2(header) };
            while matching != 0 {
                if found(group.slot(matching.trailing_zeros() as usize)) {
                    break 'leaf;
                }
                matching &= matching - 1;
            }
        }
    }
}

/// Where ports and protocol match: a bit a lane.
#[inline]
#[target_feature(enable = "avx2")]
fn matching_rest(rest: &Rest, header: &Header) -> u32 {
    let (sport, dport) = (header.source_port().cast_signed(), header.destination_port().cast_signed());
    let port = _mm256_set_m128i(_mm_set1_epi16(dport), _mm_set1_epi16(sport));
    // SAFETY: the arrays have 32, 32, 8 and 8 bytes.
    let (first, last, protocol, mask) = unsafe {
        (
            _mm256_loadu_si256(rest.first.as_ptr().cast()),
            _mm256_loadu_si256(rest.last.as_ptr().cast()),
            _mm_loadl_epi64(rest.protocol.as_ptr().cast()),
            _mm_loadl_epi64(rest.protocol_mask.as_ptr().cast()),
        )
    };
    // A port that lies in the range is what remains when it is brought into it. Also right where the range is
    // empty: then `first` remains, which is above `last`, and so is not what `min` gave unless the port is
    // `first`.
    let within = _mm256_cmpeq_epi16(_mm256_max_epu16(first, _mm256_min_epu16(last, port)), port);
    let within = _mm_and_si128(_mm256_castsi256_si128(within), _mm256_extracti128_si256::<1>(within));
    let differing = _mm_xor_si128(protocol, _mm_set1_epi8(header.protocol().cast_signed()));
    let same = _mm_cmpeq_epi8(_mm_and_si128(differing, mask), _mm_setzero_si128());
    let both = _mm_and_si128(_mm_packs_epi16(within, within), same);
    _mm_movemask_epi8(both).cast_unsigned() & 0xFF
}

impl Quick for GroupV4 {
    type Key = [u64; 4];
    const NO_KEY: [u64; 4] = [0; 4];

    #[inline(always)]
    fn key(header: &Header) -> [u64; 4] {
        let [addresses, rest] = header.words_v4();
        bits::key_v4(addresses, rest)
    }

    #[inline(always)]
    fn view(key: &[u64; 4], which: usize) -> u64 {
        key[which & 3]
    }

    /// # Safety
    /// The processor has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn matching_avx2(&self, header: &Header) -> u32 {
        let [addresses, _] = header.words_v4();
        let mut differing = _mm256_setzero_si256();
        for (which, address) in [addresses >> 32, addresses].into_iter().enumerate() {
            #[allow(clippy::cast_possible_truncation, reason = "half of the word is meant")]
            let address = _mm256_set1_epi32(address as i32);
            // SAFETY: the arrays have 32 and 8 bytes.
            let (values, shifts) = unsafe {
                (
                    _mm256_loadu_si256(self.values[which].as_ptr().cast()),
                    _mm_loadl_epi64(self.shifts[which].as_ptr().cast()),
                )
            };
            let left = _mm256_srlv_epi32(_mm256_xor_si256(values, address), _mm256_cvtepu8_epi32(shifts));
            differing = _mm256_or_si256(differing, left);
        }
        let same = _mm256_cmpeq_epi32(differing, _mm256_setzero_si256());
        let same = _mm256_movemask_ps(_mm256_castsi256_ps(same)).cast_unsigned();
        same & matching_rest(&self.rest, header)
    }
}

impl Quick for GroupV6 {
    type Key = bits::Key;
    const NO_KEY: bits::Key = [0; bits::VIEWS];

    #[inline(always)]
    fn key(header: &Header) -> bits::Key {
        bits::key_v6(header.words_v6(), header.rest())
    }

    #[inline(always)]
    fn view(key: &bits::Key, which: usize) -> u64 {
        key[which & (bits::VIEWS - 1)]
    }

    /// # Safety
    /// The processor has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn matching_avx2(&self, header: &Header) -> u32 {
        let mut differing = [_mm256_setzero_si256(); 2];
        for (which, word) in header.words_v6().into_iter().enumerate() {
            let word = _mm256_set1_epi64x(word.cast_signed());
            for (half, differing) in differing.iter_mut().enumerate() {
                let shifts = u32::from_le_bytes(
                    self.shifts[which][4 * half..4 * half + 4].try_into().expect("four of eight"),
                );
                // SAFETY: four of the eight values, 32 bytes.
                let values = unsafe { _mm256_loadu_si256(self.values[which][4 * half..].as_ptr().cast()) };
                let shifts = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(shifts.cast_signed()));
                let left = _mm256_srlv_epi64(_mm256_xor_si256(values, word), shifts);
                *differing = _mm256_or_si256(*differing, left);
            }
        }
        let same = differing.map(|differing| {
            let same = _mm256_cmpeq_epi64(differing, _mm256_setzero_si256());
            _mm256_movemask_pd(_mm256_castsi256_pd(same)).cast_unsigned()
        });
        (same[0] | same[1] << 4) & matching_rest(&self.rest, header)
    }
}
