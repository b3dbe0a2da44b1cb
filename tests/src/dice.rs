//! Chance that can be repeated.

/// A small generator of random numbers (xorshift64*).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice with the seed in `ONVM_SEED`, else a new one. The seed is printed, so that a failure can be repeated.
    #[must_use]
    pub fn new(what: &str) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let fresh = since.map_or(1, |d| u64::from(d.subsec_nanos()) << 20 ^ d.as_secs());
        let seed = std::env::var("ONVM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(fresh);
        println!("{what}: ONVM_SEED={seed} repeats the choices of this run");
        Self::from_seed(seed)
    }

    /// Dice that always fall the same way.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in 0..`n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.any() % n
    }

    /// An index into something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}
