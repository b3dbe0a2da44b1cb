//! Base64 as rules decode it: as far as it goes, by one of three rules about what is not of the alphabet.

use crate::rules::Base64Mode;

fn value(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// Decodes into `out`, which is cleared. Nothing comes out when `Strict` meets what it does not allow.
pub(crate) fn decode(text: &[u8], mode: Base64Mode, out: &mut Vec<u8>) {
    out.clear();
    let (mut group, mut count) = ([b'='; 4], 0);
    for (at, byte) in text.iter().enumerate() {
        if value(*byte).is_none() && *byte != b'=' {
            match mode {
                Base64Mode::Rfc2045 => continue,
                Base64Mode::Rfc4648 => break,
                Base64Mode::Strict => return out.clear(),
            }
        }
        group[count] = *byte;
        count += 1;
        if count == 4 {
            let whole = give(group, out);
            let padded = group[3] == b'=';
            // Only the last group may be padded.
            if mode == Base64Mode::Strict && (!whole || padded && at + 1 < text.len()) {
                return out.clear();
            }
            if !whole {
                return;
            }
            (group, count) = ([b'='; 4], 0);
        }
    }
    match mode {
        Base64Mode::Rfc4648 if count > 1 => drop(give(group, out)),
        Base64Mode::Strict if count > 0 => out.clear(),
        _ => {}
    }
}

/// What a whole text stands for, and nothing but it; none if it is no base64.
pub(crate) fn strictly(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    decode(text, Base64Mode::Strict, &mut out);
    (text.is_empty() || !out.is_empty()).then_some(out)
}

/// Appends what a group of four stands for; `=` is for what is not there. Whether it is a group.
fn give(group: [u8; 4], out: &mut Vec<u8>) -> bool {
    let [Some(a), Some(b), c, d] = group.map(value) else { return false };
    let all = a << 18 | b << 12 | c.unwrap_or(0) << 6 | d.unwrap_or(0);
    let bytes = all.to_be_bytes();
    let count = match (c, d) {
        (None, None) => 1,
        (Some(_), None) => 2,
        (Some(_), Some(_)) => 3,
        (None, Some(_)) => return false,
    };
    out.extend_from_slice(&bytes[1..=count]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8], mode: Base64Mode) -> Vec<u8> {
        let mut out = Vec::new();
        decode(text, mode, &mut out);
        out
    }

    #[test]
    fn the_rules_differ_in_what_is_not_of_the_alphabet() {
        assert_eq!(of(b"Zm9vYmFy", Base64Mode::Strict), b"foobar");
        assert_eq!(of(b"Zm 9v Ym Fy", Base64Mode::Rfc2045), b"foobar");
        assert_eq!(of(b"Zm9v Ym Fy", Base64Mode::Rfc4648), b"foo");
        assert_eq!(of(b"Zm 9v", Base64Mode::Strict), b"");
        assert_eq!(of(b"Zm9=", Base64Mode::Strict), b"fo");
        assert_eq!(of(b"Zm9vYg==xx", Base64Mode::Rfc2045), b"foob");
        assert_eq!(of(b"Zm9vYg==YmFy", Base64Mode::Rfc4648), b"foobbar");
        assert_eq!(of(b"Zm9vYg", Base64Mode::Rfc4648), b"foob");
        assert_eq!(of(b"Zg==Zg==", Base64Mode::Strict), b"");
        assert_eq!(of(b"Zm9v=mFy", Base64Mode::Rfc4648), b"foo");
    }
}
