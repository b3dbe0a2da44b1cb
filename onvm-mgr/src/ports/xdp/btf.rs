//! Numbers of the kernel's own functions, from the types that it publishes (`Documentation/bpf/btf.rst`).
//!
//! A program may call some of them, by number; the numbers differ from kernel to kernel, the names do not.

/// Where the kernel publishes its types.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_type`.
const TYPE: usize = 12;
/// Kinds of types (`BTF_KIND_*`), where it matters how long they are.
const INTEGER: u32 = 1;
const ARRAY: u32 = 3;
const STRUCTURE: u32 = 4;
const UNION: u32 = 5;
const ENUMERATION: u32 = 6;
const FUNCTION: u32 = 12;
const PROTOTYPE: u32 = 13;
const VARIABLE: u32 = 14;
const SECTION: u32 = 15;
const TAG: u32 = 17;
const ENUMERATION_64: u32 = 19;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

fn size(bytes: &[u8], at: usize) -> Option<usize> {
    word(bytes, at).map(|word| word as usize)
}

/// The number of a function of the running kernel; none if it has no such function, or publishes no types.
pub(super) fn function(name: &str) -> Option<i32> {
    find(&std::fs::read(KERNEL).ok()?, name)
}

/// The number of a function among these types.
fn find(all: &[u8], name: &str) -> Option<i32> {
    if u16::from_ne_bytes(*all.first_chunk()?) != MAGIC {
        return None;
    }
    let header = size(all, 4)?;
    let part = |at: usize| all.get(header + size(all, at)?..)?.get(..size(all, at + 4)?);
    let (types, names) = (part(8)?, part(16)?);
    let (mut at, mut number) = (0, 0);
    while at + TYPE <= types.len() {
        number += 1;
        let info = word(types, at + 4)?;
        let (kind, members) = (info >> 24 & 0x1f, info as usize & 0xffff);
        if kind == FUNCTION {
            let here = names.get(size(types, at)?..)?;
            if here.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
                return Some(number);
            }
        }
        at += TYPE
            + match kind {
                INTEGER | VARIABLE | TAG => 4,
                ARRAY => 12,
                STRUCTURE | UNION | SECTION | ENUMERATION_64 => 12 * members,
                ENUMERATION | PROTOTYPE => 8 * members,
                _ => 0,
            };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types as the kernel publishes them: an integer, a structure of one member, and a function of each name.
    fn made(functions: &[&str]) -> Vec<u8> {
        let mut names = vec![0];
        let mut types: Vec<u32> = vec![0, INTEGER << 24, 4, 32, 0, STRUCTURE << 24 | 1, 4, 0, 1, 0];
        for function in functions {
            types.extend([u32::try_from(names.len()).unwrap(), FUNCTION << 24, 0]);
            names.extend(function.as_bytes());
            names.push(0);
        }
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let lengths = [24, 0, types.len(), types.len(), names.len()];
        let mut all = MAGIC.to_ne_bytes().to_vec();
        all.extend([1, 0]);
        all.extend(lengths.iter().flat_map(|n| u32::try_from(*n).unwrap().to_ne_bytes()));
        [all, types, names].concat()
    }

    #[test]
    fn functions_are_found_by_their_whole_name() {
        let all = made(&["alpha", "alphabet", "beta"]);
        assert_eq!(
            ["alpha", "alphabet", "beta", "bet"].map(|n| find(&all, n)),
            [Some(3), Some(4), Some(5), None]
        );
        for end in 0..all.len() {
            let _ = find(&all[..end], "beta");
        }
        assert_eq!(find(b"no types at all", "alpha"), None);
    }
}
