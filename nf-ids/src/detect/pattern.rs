//! The prefilter: which of thousands of patterns are in some bytes, in one pass.
//!
//! Of every pattern, four bytes in a row are chosen: those that are least usual, and that few other patterns share. A
//! window of four bytes, folded to one case, slides over the text; a multiplication and one bit of a table that fits the
//! first-level cache say of nearly every place that no pattern has its window there. Where the bit is set, a
//! hash table gives the patterns that do, and they are compared as wholes. Patterns of fewer than four bytes have
//! a table of their own, over two bytes or one, and are only looked for when there are any.
//!
//! Why not an automaton (`aho-corasick`): it reads one transition a byte from tables that, with the patterns of a rule set,
//! are megabytes large, so that it waits for memory; and every set of ports would need tables of its own. Here a
//! set is a few bytes a pattern and compiles in microseconds. Over real captures, with 1,000 and with 6,200 patterns of a public rule
//! set, its DFA took 2.4 times as long and its contiguous NFA 2.7 to 3.2 times; the bench `patterns` compares them side by
//! side. Its packed searcher (Teddy) takes 64 patterns, not thousands. Hyperscan 5.4 took 0.75 of the time for the 900 different
//! patterns in one table, and as long for 4,500; it is a library in C++ that would have to be installed where this is
//! built, and as the prefilter is past the rates that it was to be measured against, it was left out.

use std::collections::HashMap;

/// Multiplier of the hash (the golden ratio in 32 bits).
const MULTIPLIER: u32 = 0x9e37_79b1;
/// Folds letters to one case; what else it makes equal is told apart by the comparison of the whole.
const FOLD: u32 = 0x2020_2020;
const FOLD_TWO: u16 = 0x2020;
/// Words of the table for two bytes: a bit for each value.
const TWO_WORDS: usize = 1 << 10;

/// One pattern.
#[derive(Clone, Debug)]
struct Pattern {
    start: u32,
    length: u16,
    nocase: bool,
}

/// Where a window leads: the pattern, and how far into it the window is.
#[derive(Clone, Copy, Debug)]
struct Lead {
    pattern: u32,
    back: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    window: u32,
    first: u32,
    count: u32,
}

/// Collects patterns.
#[derive(Debug, Default)]
pub struct MatcherBuilder {
    numbers: HashMap<(Vec<u8>, bool), u32>,
    all: Vec<(Vec<u8>, bool)>,
}

impl MatcherBuilder {
    /// The number of a pattern, the same for the same one. With `nocase` it is folded to lower case.
    pub fn add(&mut self, pattern: &[u8], nocase: bool) -> u32 {
        let key = (if nocase { pattern.to_ascii_lowercase() } else { pattern.to_vec() }, nocase);
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(key.clone());
        self.numbers.insert(key, number);
        number
    }

    /// Compiles them.
    #[must_use]
    pub fn build(self) -> Matcher {
        let mut matcher = Matcher::default();
        let mut used: HashMap<u32, u32> = HashMap::new();
        let mut fours: Vec<(u32, Lead)> = Vec::new();
        for (number, (bytes, nocase)) in self.all.iter().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            matcher.patterns.push(Pattern {
                start: u32::try_from(matcher.text.len()).unwrap_or(u32::MAX),
                length: u16::try_from(bytes.len()).unwrap_or(u16::MAX),
                nocase: *nocase,
            });
            matcher.text.extend_from_slice(bytes);
            let lead = |back: usize| Lead { pattern: number, back: u16::try_from(back).unwrap_or(0) };
            match bytes.len() {
                0 => {}
                1 => matcher.add_one(bytes[0], *nocase, number),
                2 | 3 => {
                    let back = usize::from(bytes.len() == 3 && usual(bytes[0]) > usual(bytes[2]));
                    let window = u16::from_le_bytes([bytes[back], bytes[back + 1]]) | FOLD_TWO;
                    matcher.add_two(window, lead(back));
                }
                _ => {
                    let back = best_window(bytes, &used);
                    let window = fold([bytes[back], bytes[back + 1], bytes[back + 2], bytes[back + 3]]);
                    *used.entry(window).or_insert(0) += 1;
                    fours.push((window, lead(back)));
                }
            }
        }
        matcher.place_fours(fours);
        matcher
    }
}

/// How usual a byte is in traffic, roughly.
fn usual(byte: u8) -> u32 {
    match byte {
        0 => 12,
        b' ' | b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 6,
        b'/' | b'.' | b':' | b'=' | b'-' | b'\r' | b'\n' | b'0'..=b'9' => 5,
        b'a'..=b'z' | b'A'..=b'Z' | 0xff => 4,
        b'!'..=b'~' | 1..=4 => 3,
        _ => 1,
    }
}

/// The offset of the best four bytes.
fn best_window(bytes: &[u8], used: &HashMap<u32, u32>) -> usize {
    let cost = |at: usize| {
        let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let same = if four.iter().all(|b| *b == four[0]) { 40 } else { 0 };
        let web = if matches!(
            &four.map(|b| b.to_ascii_lowercase()),
            b"http" | b"ttp:" | b"www." | b".com" | b"html"
        ) {
            12
        } else {
            0
        };
        let shared = used.get(&fold(four)).copied().unwrap_or(0);
        four.iter().map(|b| usual(b.to_ascii_lowercase())).sum::<u32>() + same + web + 2 * shared.min(30)
    };
    (0..=bytes.len() - 4).min_by_key(|at| cost(*at)).unwrap_or(0)
}

fn fold(four: [u8; 4]) -> u32 {
    u32::from_le_bytes(four) | FOLD
}

/// Finds patterns. It is never changed once built; what a search needs to note is in a [`Found`].
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// A bit for each hash that a window of a pattern has.
    bitmap: Vec<u64>,
    slots: Vec<Slot>,
    slot_shift: u32,
    leads: Vec<Lead>,
    /// The same for two bytes, without hashing; there when there are patterns of two or three.
    two_bitmap: Option<Box<[u64; TWO_WORDS]>>,
    /// Sorted by window; there are few.
    twos: Vec<(u16, Vec<Lead>)>,
    /// Of each byte that is a pattern, in either case, the patterns.
    ones: Vec<(u8, Vec<u32>)>,
    patterns: Vec<Pattern>,
    text: Vec<u8>,
}

/// Which patterns were found in one search; reused from one to the next.
#[derive(Debug, Default)]
pub struct Found {
    seen: Vec<u32>,
    round: u32,
    /// The numbers of the patterns, each once.
    pub patterns: Vec<u32>,
}

impl Found {
    fn begin(&mut self, patterns: usize) {
        self.patterns.clear();
        if self.seen.len() < patterns {
            self.seen.resize(patterns, 0);
        }
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.seen.fill(0);
            self.round = 1;
        }
    }

    fn has(&self, pattern: u32) -> bool {
        self.seen[pattern as usize] == self.round
    }

    fn add(&mut self, pattern: u32) {
        self.seen[pattern as usize] = self.round;
        self.patterns.push(pattern);
    }
}

impl Matcher {
    /// Whether there is nothing to find.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bitmap.len() * 8
            + self.slots.len() * size_of::<Slot>()
            + self.leads.len() * size_of::<Lead>()
            + self.patterns.len() * size_of::<Pattern>()
            + self.text.len()
            + self.two_bitmap.as_ref().map_or(0, |_| TWO_WORDS * 8)
    }

    fn add_one(&mut self, byte: u8, nocase: bool, pattern: u32) {
        let both = [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()];
        let bytes: &[u8] = if nocase && both[0] != both[1] { &both } else { &[byte] };
        for byte in bytes {
            match self.ones.iter_mut().find(|(known, _)| known == byte) {
                Some((_, patterns)) => patterns.push(pattern),
                None => self.ones.push((*byte, vec![pattern])),
            }
        }
    }

    fn add_two(&mut self, window: u16, lead: Lead) {
        let bitmap = self.two_bitmap.get_or_insert_with(|| Box::new([0; TWO_WORDS]));
        bitmap[usize::from(window >> 6)] |= 1 << (window & 63);
        let at = match self.twos.binary_search_by_key(&window, |(w, _)| *w) {
            Ok(at) => at,
            Err(at) => {
                self.twos.insert(at, (window, Vec::new()));
                at
            }
        };
        self.twos[at].1.push(lead);
    }

    fn place_fours(&mut self, mut fours: Vec<(u32, Lead)>) {
        if fours.is_empty() {
            return;
        }
        fours.sort_by_key(|(window, lead)| (*window, lead.pattern));
        let different = 1 + fours.windows(2).filter(|w| w[0].0 != w[1].0).count();
        // 32 to 128 bits a window keep false steps rare; 2^17 bits are 16 KiB and fit beside the packet in the first cache.
        // Few sizes, each known where it is searched, so that no index need be checked.
        let bits = (usize::BITS - (different * 64).leading_zeros()).next_multiple_of(2).clamp(12, 18);
        let shift = 32 - bits;
        self.bitmap = vec![0; 1 << (bits - 6)];
        let slot_bits = (usize::BITS - (different * 2).leading_zeros()).clamp(4, 24);
        self.slot_shift = 32 - slot_bits;
        self.slots = vec![Slot::default(); 1 << slot_bits];
        let mut at = 0;
        while at < fours.len() {
            let window = fours[at].0;
            let end = at + fours[at..].iter().take_while(|(w, _)| *w == window).count();
            let first = u32::try_from(self.leads.len()).unwrap_or(u32::MAX);
            self.leads.extend(fours[at..end].iter().map(|(_, lead)| *lead));
            let hash = window.wrapping_mul(MULTIPLIER);
            let bit = hash >> shift;
            self.bitmap[(bit >> 6) as usize] |= 1 << (bit & 63);
            let mut slot = (hash >> self.slot_shift) as usize;
            while self.slots[slot].count != 0 {
                slot = (slot + 1) & (self.slots.len() - 1);
            }
            self.slots[slot] = Slot { window, first, count: u32::try_from(end - at).unwrap_or(u32::MAX) };
            at = end;
        }
    }

    /// Finds every pattern that is in `text`.
    pub fn search(&self, text: &[u8], found: &mut Found) {
        found.begin(self.patterns.len());
        match self.bitmap.len() {
            0 => {}
            0x40 => self.search_fours::<0x40, 20>(text, found),
            0x100 => self.search_fours::<0x100, 18>(text, found),
            0x400 => self.search_fours::<0x400, 16>(text, found),
            _ => self.search_fours::<0x1000, 14>(text, found),
        }
        if let Some(bitmap) = &self.two_bitmap {
            self.search_twos(bitmap, text, found);
        }
        // Patterns of one byte are few: whether each is there is known fastest by itself.
        for (byte, patterns) in &self.ones {
            if memchr::memchr(*byte, text).is_some() {
                for pattern in patterns {
                    if !found.has(*pattern) {
                        found.add(*pattern);
                    }
                }
            }
        }
    }

    #[inline]
    fn search_fours<const WORDS: usize, const SHIFT: u32>(&self, text: &[u8], found: &mut Found) {
        let Ok(bitmap) = <&[u64; WORDS]>::try_from(self.bitmap.as_slice()) else { return };
        let mut at = 0;
        // Eight windows from three loads: places are tested together, and told apart only when one of them hits.
        for chunk in text.windows(11).step_by(8) {
            let low = u64::from_le_bytes([
                chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
            ]);
            let high = u64::from_le_bytes([
                chunk[3], chunk[4], chunk[5], chunk[6], chunk[7], chunk[8], chunk[9], chunk[10],
            ]);
            let mut hits = 0u32;
            for (place, word) in [(0, low), (1, low >> 8), (2, low >> 16), (3, low >> 24), (4, low >> 32)] {
                hits |= bit::<WORDS, SHIFT>(bitmap, word) << place;
            }
            for (place, word) in [(5, high >> 16), (6, high >> 24), (7, high >> 32)] {
                hits |= bit::<WORDS, SHIFT>(bitmap, word) << place;
            }
            while hits != 0 {
                let place = hits.trailing_zeros() as usize;
                hits &= hits - 1;
                self.look(text, at + place, found);
            }
            at += 8;
        }
        while at + 4 <= text.len() {
            let word = fold([text[at], text[at + 1], text[at + 2], text[at + 3]]);
            if bit::<WORDS, SHIFT>(bitmap, u64::from(word)) != 0 {
                self.look(text, at, found);
            }
            at += 1;
        }
    }

    /// The patterns whose window is at `at`.
    #[cold]
    fn look(&self, text: &[u8], at: usize, found: &mut Found) {
        let window = fold([text[at], text[at + 1], text[at + 2], text[at + 3]]);
        let mut slot = (window.wrapping_mul(MULTIPLIER) >> self.slot_shift) as usize;
        loop {
            let here = self.slots[slot];
            if here.count == 0 {
                return;
            }
            if here.window == window {
                for lead in &self.leads[here.first as usize..(here.first + here.count) as usize] {
                    self.compare(text, at, *lead, found);
                }
                return;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn search_twos(&self, bitmap: &[u64; TWO_WORDS], text: &[u8], found: &mut Found) {
        let (mut at, mut done) = (0, None);
        // Eight places at once here, too. In a run of the same bytes, one look is enough when it has found all.
        for chunk in text.windows(9).step_by(8) {
            let low = u64::from_le_bytes([
                chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
            ]);
            let last = u64::from(u16::from_le_bytes([chunk[7], chunk[8]]));
            let mut hits = two(bitmap, last) << 7;
            for place in 0..7 {
                hits |= two(bitmap, low >> (8 * place)) << place;
            }
            while hits != 0 {
                self.look_two(text, at + hits.trailing_zeros() as usize, found, &mut done);
                hits &= hits - 1;
            }
            at += 8;
        }
        while at + 2 <= text.len() {
            if two(bitmap, u64::from(u16::from_le_bytes([text[at], text[at + 1]]))) != 0 {
                self.look_two(text, at, found, &mut done);
            }
            at += 1;
        }
    }

    /// The short patterns whose window is at `at`. The window is noted in `done` when all of its patterns are found.
    #[cold]
    fn look_two(&self, text: &[u8], at: usize, found: &mut Found, done: &mut Option<u16>) {
        let window = u16::from_le_bytes([text[at], text[at + 1]]) | FOLD_TWO;
        if *done == Some(window) {
            return;
        }
        if let Ok(place) = self.twos.binary_search_by_key(&window, |(w, _)| *w) {
            let leads = &self.twos[place].1;
            for lead in leads {
                self.compare(text, at, *lead, found);
            }
            if leads.iter().all(|lead| found.has(lead.pattern)) {
                *done = Some(window);
            }
        }
    }

    #[inline]
    fn compare(&self, text: &[u8], at: usize, lead: Lead, found: &mut Found) {
        if found.has(lead.pattern) {
            return;
        }
        let pattern = &self.patterns[lead.pattern as usize];
        let Some(start) = at.checked_sub(usize::from(lead.back)) else { return };
        let Some(here) = text.get(start..start + usize::from(pattern.length)) else { return };
        let own = &self.text[pattern.start as usize..pattern.start as usize + usize::from(pattern.length)];
        let same = if pattern.nocase { here.eq_ignore_ascii_case(own) } else { here == own };
        if same {
            found.add(lead.pattern);
        }
    }
}

#[inline(always)]
fn bit<const WORDS: usize, const SHIFT: u32>(bitmap: &[u64; WORDS], word: u64) -> u32 {
    let window = (word & 0xffff_ffff) as u32 | FOLD;
    let hash = window.wrapping_mul(MULTIPLIER) >> SHIFT;
    u32::from(bitmap[(hash >> 6) as usize & (WORDS - 1)] >> (hash & 63) & 1 == 1)
}

#[inline(always)]
fn two(bitmap: &[u64; TWO_WORDS], word: u64) -> u32 {
    let window = (word & 0xffff) as u16 | FOLD_TWO;
    u32::from(bitmap[usize::from(window >> 6)] >> (window & 63) & 1 == 1)
}

/// The part of a pattern, of at most so many bytes, whose four bytes in a row are the least usual. What is searched for a
/// part of finds whatever has the whole.
#[must_use]
pub(crate) fn best_part(bytes: &[u8], most: usize) -> &[u8] {
    if bytes.len() <= most || most < 4 {
        return bytes;
    }
    let window = best_window(bytes, &HashMap::new());
    let start = window.saturating_sub((most - 4) / 2).min(bytes.len() - most);
    &bytes[start..start + most]
}
