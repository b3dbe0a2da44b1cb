//! Which bits a node looks at.
//!
//! A node that looks at `k` bits has `2^k` children; a rule that leaves a looked-at bit open stands in both
//! halves. Bits are chosen one after the other, each time the one with which the expected length of a search
//! becomes the shortest, over all cells that the bits chosen so far make: headers are taken to come to rules
//! with equal chance, so a cell of `n` rules is searched with a chance that is proportional to `n`, and costs
//! `n`, or as much as one group if it is less.

use crate::bits::{BYTES, Layout, Pattern, PortBits, pdep, pext};
use crate::group::LANES;

/// What a node looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) view: usize,
    pub(crate) mask: u64,
}

/// How eager the search for bits is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eagerness {
    /// A bit must bring the cost under this part of what it was, in per mille.
    gain: u64,
    /// Children, for each rule, at most.
    children: usize,
    /// Bits that one node looks at, at most.
    bits: usize,
    /// Rules in all children together, at most.
    room: usize,
    /// Rules that are looked at for it, at most.
    rules: usize,
}

impl Eagerness {
    /// As measured; flat around these figures.
    pub(crate) fn usual(room: usize) -> Eagerness {
        Eagerness { gain: 950, children: 4, bits: 14, room, rules: 8192 }
    }
}

/// Lane `i` of entry `b` is bit `7 - i` of `b`: adds the bits of a byte to eight counters at once.
static SPREAD: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            if byte >> (7 - bit) & 1 == 1 {
                table[byte] |= 1 << (8 * bit);
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

/// How many rules ask for a one in each bit, and how many for a zero. Bits are numbered as in the row of bytes,
/// the highest of each byte first.
struct Counts {
    ones: [u32; BYTES * 8],
    zeros: [u32; BYTES * 8],
}

impl Counts {
    fn of(patterns: &[Pattern], ids: &[u32], bytes: usize) -> Counts {
        let mut counts = Counts { ones: [0; BYTES * 8], zeros: [0; BYTES * 8] };
        for chunk in ids.chunks(255) {
            let (mut ones, mut zeros) = ([0u64; BYTES], [0u64; BYTES]);
            for id in chunk {
                let pattern = &patterns[*id as usize];
                for byte in 0..bytes {
                    ones[byte] += SPREAD[usize::from(pattern.ones[byte])];
                    zeros[byte] += SPREAD[usize::from(pattern.zeros[byte])];
                }
            }
            for byte in 0..bytes {
                for bit in 0..8 {
                    counts.ones[byte * 8 + bit] += u32::from(ones[byte].to_le_bytes()[bit]);
                    counts.zeros[byte * 8 + bit] += u32::from(zeros[byte].to_le_bytes()[bit]);
                }
            }
        }
        counts
    }
}

/// What it costs that headers come to a cell of so many rules, `group` of which are in a group.
fn cost(rules: usize, group: usize) -> u64 {
    (rules * rules.max(group)) as u64
}

/// Chooses the bits of a node for the rules `ids`; none if no bit is worth it.
pub(crate) fn choose(layout: &Layout, patterns: &[Pattern], ids: &[u32], eager: Eagerness) -> Option<Cut> {
    // Of very many rules a part says enough: each stands for `step` rules.
    let step = ids.len().div_ceil(eager.rules).max(1);
    let group = LANES.div_ceil(step);
    let mut cells: Vec<Vec<u32>> = vec![ids.iter().step_by(step).copied().collect()];
    let mut chosen: Vec<usize> = Vec::new();
    let mut before = cost(cells[0].len(), group);
    let most = (ids.len() * eager.children).max(2);
    while chosen.len() < eager.bits && cells.len() * 2 <= most {
        let costs = costs(layout, patterns, &cells, group);
        let allowed = |bit: &usize| {
            let both = |view| holds(view, &chosen) && holds(view, &[*bit]);
            !chosen.contains(bit) && layout.views.iter().any(both)
        };
        let best = (0..costs.len()).filter(allowed).min_by_key(|bit| costs[*bit])?;
        if costs[best] * 1000 > before * eager.gain {
            break;
        }
        let halved: Vec<_> = cells.iter().flat_map(|cell| halves(patterns, cell, best)).collect();
        if halved.iter().map(Vec::len).sum::<usize>() * step > eager.room {
            break;
        }
        before = costs[best];
        chosen.push(best);
        cells = halved;
    }
    let view = layout.views.iter().position(|view| holds(view, &chosen)).filter(|_| !chosen.is_empty())?;
    let place = |bit: &usize| {
        let at = layout.views[view].iter().position(|byte| usize::from(*byte) == bit / 8);
        at.map_or(0, |at| 1u64 << (63 - (at * 8 + bit % 8)))
    };
    Some(Cut { view, mask: chosen.iter().map(place).sum() })
}

/// What the cost would be with each bit as the next one.
fn costs(layout: &Layout, patterns: &[Pattern], cells: &[Vec<u32>], group: usize) -> Vec<u64> {
    let mut costs = vec![0; layout.bytes * 8];
    for cell in cells {
        let counts = Counts::of(patterns, cell, layout.bytes);
        for (bit, sum) in costs.iter_mut().enumerate() {
            let [zeros, ones] = [counts.zeros[bit], counts.ones[bit]].map(|n| n as usize);
            *sum += cost(cell.len() - ones, group) + cost(cell.len() - zeros, group);
        }
    }
    costs
}

fn holds(view: &[u8; 8], bits: &[usize]) -> bool {
    bits.iter().all(|bit| view.iter().any(|byte| usize::from(*byte) == bit / 8))
}

/// The rules that may have a zero in `bit`, and those that may have a one.
fn halves(patterns: &[Pattern], cell: &[u32], bit: usize) -> [Vec<u32>; 2] {
    let asks = |row: &[u8; BYTES]| row[bit / 8] >> (7 - bit % 8) & 1 == 1;
    let low = cell.iter().filter(|id| !asks(&patterns[**id as usize].ones));
    let high = cell.iter().filter(|id| !asks(&patterns[**id as usize].zeros));
    [low.copied().collect(), high.copied().collect()]
}

/// Calls `each` with the number of every child of `cut` in whose part of the space the rule lies, and with what
/// is known of the ports there; stops when `each` says so. Says whether it went through.
pub(crate) fn children(
    layout: &Layout,
    cut: Cut,
    pattern: &Pattern,
    path: PortBits,
    each: &mut impl FnMut(u32, PortBits) -> bool,
) -> bool {
    let view = &layout.views[cut.view];
    let (ones, zeros) = pattern.view(view);
    let fixed = pext(ones, cut.mask);
    let open = pext(!(ones | zeros), cut.mask);
    let of_ports = layout.looks_at_ports(view, cut.mask);
    let mut part = 0;
    loop {
        let child = fixed | part;
        let known = if of_ports { path.and(layout, view, cut.mask, pdep(child, cut.mask)) } else { path };
        let meets = !of_ports || known.meet(&pattern.ports);
        let child = u32::try_from(child).expect("few bits are looked at");
        if meets && !each(child, known) {
            return false;
        }
        if part == open {
            return true;
        }
        part = part.wrapping_sub(open) & open;
    }
}
