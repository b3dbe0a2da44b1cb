//! Characters beyond Latin-1 as single bytes, as servers on Windows take them: `ａ` as `a`, `／` as `/`.
//!
//! A server that keeps paths in an 8-bit code page takes the nearest character for one that the page does not have, so that an
//! attacker can write `..／` for `../`. This has those characters whose nearest is in ASCII; others become `?`.

/// What stands for bytes and characters that have no nearest one.
pub(super) const REPLACEMENT: u8 = b'?';

/// Base letters of U+0100 to U+017F.
const LATIN: &[u8; 128] = b"AaAaAaCcCcCcCcDdDdEeEeEeEeEeGgGgGgGgHhHhIiIiIiIiIi??JjKk?LlLlLlLlLlNnNnNn???\
    OoOoOoOoRrRrRrSsSsSsSsTtTtTtUuUuUuUuUuUuWwYyYZzZzZz?";

/// Single characters and theirs.
const OTHERS: &[(u32, u8)] = &[
    (0x02b9, b'\''),
    (0x02bc, b'\''),
    (0x02c4, b'^'),
    (0x02c6, b'^'),
    (0x02cb, b'`'),
    (0x02cd, b'_'),
    (0x02dc, b'~'),
    (0x2010, b'-'),
    (0x2011, b'-'),
    (0x2013, b'-'),
    (0x2014, b'-'),
    (0x2018, b'\''),
    (0x2019, b'\''),
    (0x201a, b','),
    (0x201c, b'"'),
    (0x201d, b'"'),
    (0x201e, b'"'),
    (0x2022, b'.'),
    (0x2026, b'.'),
    (0x2032, b'\''),
    (0x2035, b'`'),
    (0x2039, b'<'),
    (0x203a, b'>'),
    (0x2044, b'/'),
    (0x2212, b'-'),
    (0x2215, b'/'),
    (0x2216, b'\\'),
    (0x2217, b'*'),
    (0x2223, b'|'),
    (0x2236, b':'),
    (0x223c, b'~'),
    (0x3000, b' '),
];

/// The byte for a character.
pub(super) fn byte(character: u32) -> u8 {
    match character {
        0..=0xff => u8::try_from(character).unwrap_or(REPLACEMENT),
        0x100..=0x17f => LATIN[(character - 0x100) as usize],
        0x2000..=0x2006 => b' ',
        0xff01..=0xff5e => u8::try_from(character - 0xfee0).unwrap_or(REPLACEMENT),
        _ => OTHERS.iter().find(|(one, _)| *one == character).map_or(REPLACEMENT, |(_, byte)| *byte),
    }
}

/// How many bytes a UTF-8 sequence has that begins so, and the bits of its first byte; none: it begins none.
fn lead(first: u8) -> Option<(usize, u32)> {
    Some(match first {
        0..=0x7f => (1, first.into()),
        0xc0..=0xdf => (2, (first & 0x1f).into()),
        0xe0..=0xef => (3, (first & 0x0f).into()),
        0xf0..=0xf4 => (4, (first & 0x07).into()),
        _ => return None,
    })
}

/// UTF-8 as single bytes. Too long forms of a character count as it, for some servers take them; what is no UTF-8 becomes `?`.
pub(super) fn from_utf8(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let Some((length, mut character)) = lead(text[at]) else {
            out.push(REPLACEMENT);
            at += 1;
            continue;
        };
        let mut taken = 1;
        while taken < length {
            let Some(next) = text.get(at + taken).copied() else { break };
            // No surrogates, and nothing beyond U+10FFFF.
            let most = match (text[at], taken) {
                (0xed, 1) => 0x9f,
                (0xf4, 1) => 0x8f,
                _ => 0xbf,
            };
            if !(0x80..=most).contains(&next) {
                break;
            }
            character = character << 6 | u32::from(next & 0x3f);
            taken += 1;
        }
        if taken == length {
            out.push(byte(character));
        } else if at + taken < text.len() {
            out.push(REPLACEMENT);
        } else {
            // Cut short at the end.
            out.extend(std::iter::repeat_n(REPLACEMENT, taken - 1));
        }
        at += taken;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_their_nearest_byte() {
        assert_eq!(from_utf8("..／ａ/ĀŽ“x”".as_bytes()), b"../a/AZ\"x\"");
        assert_eq!(from_utf8("é€".as_bytes()), b"\xe9?");
        assert_eq!(LATIN[0x17e - 0x100], b'z');
    }

    #[test]
    fn too_long_and_broken_forms_are_read() {
        assert_eq!(from_utf8(b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf"), b"///");
        assert_eq!(from_utf8(b"\xf1.\xf1\xef\xbd\x9dabcd"), b"?.?}abcd");
        assert_eq!(from_utf8(b"\xf0\x90\x8d\xff"), b"??");
        assert_eq!(from_utf8(b"\xe2\x82"), b"?");
        assert_eq!(from_utf8(b"\x80a\xc2"), b"?a");
    }
}
