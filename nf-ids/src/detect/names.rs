//! Names of bits and counters as numbers that stay the same over reloads.

/// FNV-1a with 64 bits. Names come from rules, not from packets, so that nobody can aim at a collision.
pub(crate) fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
