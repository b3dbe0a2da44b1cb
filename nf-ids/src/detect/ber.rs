//! `asn1`: lengths in BER (X.690) that programs did not expect.

use crate::rules::Asn1;

/// Elements that are looked at, and how deep.
const MOST: usize = 30;
/// Tags of the universal class.
const BIT_STRING: u32 = 3;
const REAL: u32 = 9;

/// One element: its tag, whether it is of the universal class and primitive, the length that it says, and its content as
/// far as it is there.
struct Element<'a> {
    tag: u32,
    universal: bool,
    primitive: bool,
    length: Option<u64>,
    content: &'a [u8],
}

/// The element at the start of some bytes, and what follows its header.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let mut tag = u32::from(first & 0x1f);
    if tag == 0x1f {
        tag = 0;
        loop {
            let (byte, more) = rest.split_first()?;
            rest = more;
            tag = tag.checked_mul(128)? | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    let (byte, mut rest) = rest.split_first()?;
    let length = match byte {
        0x80 => None,
        0..=0x7f => Some(u64::from(*byte)),
        _ => {
            let count = usize::from(byte & 0x7f);
            let digits = rest.get(..count)?;
            rest = &rest[count..];
            // More than fits is more than anyone asks for.
            Some(digits.iter().fold(0u64, |all, digit| {
                all.checked_mul(256).map_or(u64::MAX, |all| all.saturating_add(u64::from(*digit)))
            }))
        }
    };
    let there = length.and_then(|n| usize::try_from(n).ok()).map_or(rest.len(), |n| n.min(rest.len()));
    let content = &rest[..there];
    let element =
        Element { tag, universal: first & 0xc0 == 0, primitive: first & 0x20 == 0, length, content };
    Some((element, rest))
}

/// Whether the elements from the test's offset on have what it asks for.
pub(crate) fn holds(test: &Asn1, bytes: &[u8], last: usize) -> bool {
    let (offset, relative) = test.offset.unwrap_or((0, false));
    let base = if relative { i64::try_from(last).unwrap_or(i64::MAX) } else { 0 };
    let Some(mut rest) =
        usize::try_from(base.saturating_add(i64::from(offset))).ok().and_then(|at| bytes.get(at..))
    else {
        return false;
    };
    for _ in 0..MOST {
        let Some((one, after)) = element(rest) else { return false };
        let plain = one.universal && one.primitive;
        let long = test.longest.is_some_and(|longest| one.length.is_some_and(|n| n > u64::from(longest)));
        // The first byte of a bit string says how many bits of the last are not used.
        let bits = test.bit_string && plain && one.tag == BIT_STRING;
        let bits = bits
            && one.content.first().is_some_and(|unused| {
                one.length.unwrap_or(0).saturating_sub(1).saturating_mul(8) < u64::from(*unused)
            });
        // A decimal number is made of a text, which some copied to a place of 256 bytes.
        let double = test.double && plain && one.tag == REAL && one.length.is_some_and(|n| n > 256);
        let double = double && one.content.first().is_some_and(|form| form & 0xc0 == 0);
        if long || bits || double {
            return true;
        }
        // What is constructed is entered, anything else passed over.
        rest = if one.primitive { &after[one.content.len()..] } else { after };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_are_not_expected_are_found() {
        let long = Asn1 { longest: Some(1000), ..Asn1::default() };
        assert!(holds(&long, b"\x30\x05\x04\x82\x10\x00x", 0));
        assert!(!holds(&long, b"\x30\x05\x04\x82\x03\x00x", 0));
        assert!(holds(&long, b"\x04\x89\x01\0\0\0\0\0\0\0\0x", 0), "more than 64 bits");
        let relative = Asn1 { offset: Some((2, true)), ..long };
        assert!(holds(&relative, b"abcd\x04\x82\x10\x00", 2));
        assert!(!holds(&relative, b"abcd", 9));
        let bits = Asn1 { bit_string: true, ..Asn1::default() };
        assert!(holds(&bits, b"\x03\x01\x09", 0));
        assert!(!holds(&bits, b"\x03\x02\x03\xf8", 0));
        let double = Asn1 { double: true, ..Asn1::default() };
        assert!(holds(&double, b"\x09\x82\x02\x00\x03", 0));
        assert!(!holds(&double, b"\x09\x03\x80\x00\x03", 0));
    }

    #[test]
    fn what_is_no_ber_ends() {
        let long = Asn1 { longest: Some(1), ..Asn1::default() };
        for bytes in
            [&b""[..], b"\x1f", b"\x1f\xff\xff\xff\xff\xff\xff", b"\x04", b"\x04\x84\x01", b"\x30\x80"]
        {
            assert!(!holds(&long, bytes, 0), "{bytes:02x?}");
        }
        assert!(!holds(&long, &[0x30, 0x80].repeat(100_000), 0));
    }
}
