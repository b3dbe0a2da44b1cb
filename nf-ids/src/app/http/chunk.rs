//! Lengths: `Content-Length` and those of chunks, read as leniently as browsers read them.

/// What the first line of a chunk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// Nothing on the line: try the next.
    Empty,
    /// Not a length.
    Invalid,
    /// Bytes in the chunk; whether something follows the length after a semicolon.
    Is(u64, bool),
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | b' ' | b'\t' | 0x0b | 0x0c)
}

/// The length that begins a chunk, hexadecimal after white space; what follows the digits is not looked at.
pub(super) fn length(line: &[u8]) -> Length {
    let start = line.iter().position(|byte| !is_blank(*byte)).unwrap_or(line.len());
    let line = &line[start..];
    if line.is_empty() {
        return Length::Empty;
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 {
        return Length::Invalid;
    }
    let value = line[..digits].iter().try_fold(0u64, |value, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        value.checked_mul(16)?.checked_add(u64::from(digit))
    });
    match value {
        Some(value) if i32::try_from(value).is_ok() => Length::Is(value, line[digits..].contains(&b';')),
        _ => Length::Invalid,
    }
}

/// Whether what has come of a chunk's first line can still be one: 8 bytes or more must have a digit before anything
/// that is not white space.
pub(super) fn plausible(line: &[u8]) -> bool {
    if line.len() < 8 {
        return true;
    }
    line.iter().find(|byte| !is_blank(**byte)).is_none_or(u8::is_ascii_hexdigit)
}

/// A `Content-Length`: the first digits, whatever stands before and after them; none when there are none or too many.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    let start = value.iter().position(u8::is_ascii_digit)?;
    value[start..].iter().take_while(|byte| byte.is_ascii_digit()).try_fold(0u64, |length, byte| {
        length
            .checked_mul(10)?
            .checked_add(u64::from(byte - b'0'))
            .filter(|length| i64::try_from(*length).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_found_in_odd_lines() {
        assert_eq!(length(b"0F\r\n"), Length::Is(15, false));
        assert_eq!(length(b"f\r\r\n"), Length::Is(15, false));
        assert_eq!(length(b" \t10 ;x=y\r\n"), Length::Is(16, true));
        assert_eq!(length(b"00000000000000000000\r\n"), Length::Is(0, false));
        assert_eq!(length(b"\r\n"), Length::Empty);
        assert_eq!(length(b"xyz\r\n"), Length::Invalid);
        assert_eq!(length(b"fffffffff\r\n"), Length::Invalid);
        assert_eq!(length(b"fffffffffffffffffffffffff\r\n"), Length::Invalid);
        assert!(!plausible(b"<html>  ") && plausible(b"   \r\n  f") && plausible(b"<html>"));
    }

    #[test]
    fn content_length_ignores_what_stands_around() {
        assert_eq!(content_length(b"68"), Some(68));
        assert_eq!(content_length(b"x68, 70"), Some(68));
        assert_eq!(content_length(b"none"), None);
        assert_eq!(content_length(b"99999999999999999999999"), None);
    }
}
