//! Super-spreaders: sources that speak to many destinations, as scanners and worms do.
//!
//! Each source that is followed has a HyperLogLog sketch (Flajolet, Fusy, Gandouet, Meunier, 2007) of the
//! destinations of the flows that it began. Its standard error is 1.04 / sqrt([`REGISTERS`]) = 6.5 %; below some 600
//! destinations linear counting over the same registers is nearer, and the first [`EXACT`] are kept one by one and
//! counted exactly. Repeated destinations do not count.
//!
//! Sources compete for a bounded number of sketches in the manner of Space-Saving: a new source takes the sketch of
//! the source with the smallest estimate, with what is in it. So an estimate is, but for the sketch's own error, at
//! least what the source really has, and at most `inherited` more; a source without a sketch has no more than the
//! smallest estimate. Until all sketches are taken nothing is inherited.
//!
//! Addresses are hashed with a seed that only this process and its successor know: nobody can choose addresses
//! that fall into the same register.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Destinations that are counted exactly.
const EXACT: usize = 64;
/// Registers of a sketch; a power of two.
const REGISTERS: usize = 256;
/// log2 of that.
const BITS: u32 = REGISTERS.trailing_zeros();
/// The bias of the raw estimate for this many registers.
const ALPHA: f64 = 0.7213 / (1.0 + 1.079 / REGISTERS as f64);
/// Standard error of an estimate, as a share of it: 1.04 / sqrt(REGISTERS).
pub(crate) const STANDARD_ERROR: f64 = 1.04 / 16.0;

const _: () = assert!(REGISTERS == 16 * 16, "the square root is written out");

/// A source and its sketch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spreader {
    pub(crate) source: IpAddr,
    /// Destinations: never less than it was.
    pub(crate) estimate: u64,
    /// How many of them may be another's.
    pub(crate) inherited: u64,
    /// Hashes of the first destinations; none once there are registers.
    first: Vec<u64>,
    /// None as long as there are few.
    registers: Vec<u8>,
}

impl Spreader {
    fn new(source: IpAddr) -> Self {
        Self { source, estimate: 0, inherited: 0, first: Vec::new(), registers: Vec::new() }
    }

    /// A destination with this hash; whether the estimate has grown.
    fn add(&mut self, hash: u64) -> bool {
        if self.registers.is_empty() {
            if self.first.contains(&hash) {
                return false;
            }
            self.first.push(hash);
            if self.first.len() <= EXACT {
                self.estimate += 1;
                return true;
            }
            self.registers = vec![0; REGISTERS];
            for hash in std::mem::take(&mut self.first) {
                self.note(hash);
            }
        } else if !self.note(hash) {
            return false;
        }
        let before = self.estimate;
        self.estimate = before.max(estimate(&self.registers));
        self.estimate > before
    }

    /// Puts a hash into its register; whether that changed.
    fn note(&mut self, hash: u64) -> bool {
        let register = &mut self.registers[(hash >> (u64::BITS - BITS)) as usize];
        // The place of the first bit set in the rest, from 1.
        let rank = ((hash << BITS) | 1 << (BITS - 1)).leading_zeros() + 1;
        let rank = u8::try_from(rank).unwrap_or(u8::MAX);
        let more = rank > *register;
        *register = rank.max(*register);
        more
    }
}

/// All sketches, for a successor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedSpreaders {
    seed: u64,
    spreaders: Vec<Spreader>,
    replaced: u64,
}

impl SavedSpreaders {
    /// Whether these are sketches of this release.
    pub(crate) fn is_sound(&self) -> bool {
        let sound = |spreader: &Spreader| {
            let few = spreader.registers.is_empty() && spreader.first.len() <= EXACT;
            let many = spreader.registers.len() == REGISTERS && spreader.first.is_empty();
            (few || many)
                && spreader.registers.iter().all(|register| u32::from(*register) <= u64::BITS - BITS + 1)
                && spreader.inherited <= spreader.estimate
                && spreader.estimate < 1 << 60
        };
        self.spreaders.iter().all(sound)
    }
}

/// The sources that speak to most.
#[derive(Clone, Debug)]
pub(crate) struct Spreaders {
    seed: u64,
    /// A heap by estimate, the smallest first, once all are taken.
    spreaders: Vec<Spreader>,
    places: HashMap<IpAddr, u32>,
    most: usize,
    replaced: u64,
}

impl Spreaders {
    /// With so many sketches; 0: none is followed.
    pub(crate) fn new(most: usize, seed: u64) -> Self {
        Self { seed, spreaders: Vec::new(), places: HashMap::new(), most, replaced: 0 }
    }

    /// A source began a flow to a destination.
    pub(crate) fn add(&mut self, source: IpAddr, destination: IpAddr) {
        if self.most == 0 {
            return;
        }
        let hash = self.hash(destination);
        let known = self.places.get(&source).map(|at| *at as usize);
        let at = known.unwrap_or_else(|| self.take(source));
        if self.spreaders[at].add(hash) && self.spreaders.len() == self.most {
            self.sink(at);
        }
    }

    fn hash(&self, address: IpAddr) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        match address {
            IpAddr::V4(four) => hasher.write_u32(four.to_bits()),
            IpAddr::V6(six) => hasher.write_u128(six.to_bits()),
        }
        hasher.finish()
    }

    /// Gives a source a sketch: a new one, or that of the smallest.
    fn take(&mut self, source: IpAddr) -> usize {
        if self.spreaders.len() < self.most {
            let at = self.spreaders.len();
            self.spreaders.push(Spreader::new(source));
            self.places.insert(source, u32::try_from(at).unwrap_or(u32::MAX));
            if self.spreaders.len() == self.most {
                (0..self.most / 2).rev().for_each(|at| self.sink(at));
                return self.places[&source] as usize;
            }
            return at;
        }
        let smallest = &mut self.spreaders[0];
        self.places.remove(&smallest.source);
        self.places.insert(source, 0);
        smallest.source = source;
        smallest.inherited = smallest.estimate;
        self.replaced += 1;
        0
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let children = [2 * at + 1, 2 * at + 2].into_iter().filter(|child| *child < self.spreaders.len());
            let Some(least) = children.min_by_key(|child| self.spreaders[*child].estimate) else { return };
            if self.spreaders[least].estimate >= self.spreaders[at].estimate {
                return;
            }
            self.spreaders.swap(least, at);
            for place in [at, least] {
                self.places.insert(self.spreaders[place].source, u32::try_from(place).unwrap_or(u32::MAX));
            }
            at = least;
        }
    }

    /// All that are followed, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Spreader> {
        self.spreaders.iter()
    }

    /// What a source that is not followed has at most, but for the sketch's error.
    pub(crate) fn error(&self) -> u64 {
        if self.spreaders.len() < self.most { 0 } else { self.spreaders.first().map_or(0, |s| s.estimate) }
    }

    /// Sketches that there are.
    pub(crate) fn capacity(&self) -> usize {
        self.most
    }

    pub(crate) fn save(&self) -> SavedSpreaders {
        SavedSpreaders { seed: self.seed, spreaders: self.spreaders.clone(), replaced: self.replaced }
    }

    /// Goes on from where another has come to; with fewer sketches those of the largest stay.
    pub(crate) fn restore(&mut self, saved: &SavedSpreaders) {
        let mut spreaders = saved.spreaders.clone();
        if spreaders.len() > self.most {
            spreaders.sort_by_key(|spreader| std::cmp::Reverse(spreader.estimate));
            self.replaced += (spreaders.len() - self.most) as u64;
            spreaders.truncate(self.most);
        }
        self.seed = saved.seed;
        self.replaced += saved.replaced;
        self.places = spreaders.iter().map(|spreader| spreader.source).zip(0..).collect();
        self.spreaders = spreaders;
        if self.spreaders.len() == self.most {
            (0..self.most / 2).rev().for_each(|at| self.sink(at));
        }
    }
}

/// Distinct items that a sketch has seen.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and far below 2^60")]
fn estimate(registers: &[u8]) -> u64 {
    let m = REGISTERS as f64;
    let (mut sum, mut zeros) = (0.0, 0u32);
    for register in registers {
        sum += 0.5f64.powi(i32::from(*register));
        zeros += u32::from(*register == 0);
    }
    let raw = ALPHA * m * m / sum;
    let value = if raw <= 2.5 * m && zeros > 0 { m * (m / f64::from(zeros)).ln() } else { raw };
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    fn alone(destinations: u32, seed: u64) -> u64 {
        let mut spreaders = Spreaders::new(4, seed);
        // Each three times: repetition does not count.
        for _ in 0..3 {
            (0..destinations).for_each(|n| spreaders.add(address(0), address(n)));
        }
        spreaders.iter().next().map_or(0, |spreader| spreader.estimate)
    }

    #[test]
    fn estimates_are_within_the_stated_error() {
        for destinations in [1u32, 10, 100, 500, 1000, 10_000, 100_000] {
            let truth = f64::from(destinations);
            let mut squares = 0.0;
            for seed in 0..40 {
                #[allow(clippy::cast_precision_loss, reason = "a small number")]
                let error = (alone(destinations, seed) as f64 - truth) / truth;
                assert!(destinations > 64 || error == 0.0);
                assert!(error.abs() < 4.0 * STANDARD_ERROR, "{destinations}: off by {error:.3}");
                squares += error * error;
            }
            // The mean of 40 squares is within 1.6 times the variance with more than 99.9 %.
            let deviation = (squares / 40.0f64).sqrt();
            assert!(deviation < 1.27 * STANDARD_ERROR, "{destinations}: {deviation:.3}");
        }
    }

    #[test]
    fn scanners_are_found_among_many_and_bounds_hold() {
        let mut spreaders = Spreaders::new(64, 7);
        let mut truth: HashMap<IpAddr, HashSet<IpAddr>> = HashMap::new();
        for n in 0..30_000u32 {
            let mut flow = |source: IpAddr, destination: IpAddr| {
                spreaders.add(source, destination);
                truth.entry(source).or_default().insert(destination);
            };
            flow(address(n % 5000), address(1_000_000 + n % 7));
            if n % 3 == 0 {
                flow(address(9001 + n % 2), address(2_000_000 + n));
            }
        }
        let scanners = [address(9001), address(9002)];
        let mut best: Vec<&Spreader> = spreaders.iter().collect();
        best.sort_by_key(|spreader| std::cmp::Reverse(spreader.estimate));
        assert!(scanners.iter().all(|scanner| best[..2].iter().any(|found| found.source == *scanner)));
        for spreader in spreaders.iter() {
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let (really, estimate, inherited) =
                (truth[&spreader.source].len() as f64, spreader.estimate as f64, spreader.inherited as f64);
            let slack = 1.0 + 4.0 * STANDARD_ERROR * estimate;
            assert!(really <= estimate + slack && estimate - inherited <= really + slack, "{spreader:?}");
        }
        let unknown = truth.iter().filter(|(source, _)| !spreaders.iter().any(|s| s.source == **source));
        for (source, destinations) in unknown {
            assert!(destinations.len() as u64 <= spreaders.error() + 3, "{source}");
        }
    }

    #[test]
    fn a_successor_goes_on() {
        let mut first = Spreaders::new(8, 7);
        (0..5000).for_each(|n| first.add(address(n % 20), address(n)));
        let mut second = Spreaders::new(8, 1234);
        assert!(first.save().is_sound());
        second.restore(&first.save());
        for n in 5000..9000 {
            first.add(address(n % 20), address(n));
            second.add(address(n % 20), address(n));
        }
        let all = |spreaders: &Spreaders| {
            let mut all: Vec<_> = spreaders.iter().map(|s| (s.source, s.estimate, s.inherited)).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(all(&first), all(&second));
        let mut small = Spreaders::new(2, 0);
        small.restore(&first.save());
        assert_eq!(small.iter().count(), 2);
        let mut none = Spreaders::new(0, 0);
        none.restore(&first.save());
        none.add(address(1), address(2));
        assert_eq!((none.iter().count(), none.error()), (0, 0));
    }
}
