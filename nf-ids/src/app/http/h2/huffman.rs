//! Huffman code of header strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: of two symbols with codes of the same length the smaller has the smaller code, so that the lengths
//! say it all. The tables for reading are made of them once.

use std::sync::OnceLock;

/// Bits of each symbol's code; the last is the end of a string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];
/// The longest code.
const LONGEST: usize = 30;
const END: u16 = 256;

/// Of each length: the first code, how many there are, and where their symbols begin.
struct Code {
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    start: [u32; LONGEST + 1],
    symbols: Vec<u16>,
}

fn code() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| {
        let mut code = Code {
            first: [0; LONGEST + 1],
            count: [0; LONGEST + 1],
            start: [0; LONGEST + 1],
            symbols: Vec::with_capacity(LENGTHS.len()),
        };
        let mut next = 0;
        for length in 1..=LONGEST {
            next <<= 1;
            code.first[length] = next;
            code.start[length] = u32::try_from(code.symbols.len()).unwrap_or(0);
            for (symbol, _) in (0u16..).zip(LENGTHS).filter(|(_, bits)| usize::from(*bits) == length) {
                code.symbols.push(symbol);
                code.count[length] += 1;
                next += 1;
            }
        }
        code
    })
}

/// Decodes a string. None when it has the end's code in it, or ends with bits that are no padding.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let code = code();
    let mut out = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut word, mut length) = (0u32, 0usize);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        word = word << 1 | u32::from(bit);
        length += 1;
        let at = word.wrapping_sub(code.first[length]);
        if word >= code.first[length] && at < code.count[length] {
            let symbol = code.symbols[(code.start[length] + at) as usize];
            if symbol == END {
                return None;
            }
            out.push(u8::try_from(symbol).ok()?);
            (word, length) = (0, 0);
        } else if length == LONGEST {
            return None;
        }
    }
    // Padding: fewer than 8 bits, all ones.
    (length < 8 && word == (1 << length) - 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_the_standard_are_decoded() {
        // RFC 7541, appendix C.4 and C.6.
        assert_eq!(decode(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff").unwrap(), b"www.example.com");
        assert_eq!(decode(b"\xa8\xeb\x10\x64\x9c\xbf").unwrap(), b"no-cache");
        assert_eq!(decode(b"\x64\x02").unwrap(), b"302");
        assert_eq!(
            decode(
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff"
            )
            .unwrap(),
            b"Mon, 21 Oct 2013 20:13:21 GMT"
        );
    }

    #[test]
    fn every_symbol_has_a_code() {
        assert_eq!(code().symbols.len(), 257);
        let whole: f64 = LENGTHS.iter().map(|bits| 0.5f64.powi(i32::from(*bits))).sum();
        assert!((whole - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn ends_and_bad_padding_are_refused() {
        assert_eq!(decode(&[0xff; 4]), None);
        assert_eq!(decode(&[0]), None);
        assert_eq!(decode(&[0xff]), None);
        assert_eq!(decode(b"").unwrap(), b"");
    }
}
