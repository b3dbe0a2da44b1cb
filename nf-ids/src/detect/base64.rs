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
    let (mut bits, mut count) = (0u32, 0u32);
    let mut padding = false;
    for byte in text {
        match value(*byte) {
            Some(six) if !padding => {
                bits = bits << 6 | six;
                count += 6;
                if count >= 8 {
                    count -= 8;
                    out.push((bits >> count & 0xff) as u8);
                    bits &= (1 << count) - 1;
                }
            }
            _ if *byte == b'=' => {
                if mode != Base64Mode::Strict {
                    return;
                }
                padding = true;
            }
            _ => match mode {
                Base64Mode::Rfc2045 => {}
                Base64Mode::Rfc4648 => return,
                Base64Mode::Strict => {
                    out.clear();
                    return;
                }
            },
        }
    }
    if mode == Base64Mode::Strict && !text.len().is_multiple_of(4) {
        out.clear();
    }
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
    }
}
