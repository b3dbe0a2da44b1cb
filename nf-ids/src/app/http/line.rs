//! Lines of HTTP/1: where one ends, and which are empty, folded or to be ignored.
//!
//! Servers and browsers accept more line ends than RFC 9112 (section 2.2) allows, and attackers know which; an IDS must
//! read what the victim reads. Requests end lines with LF, with or without CR before it. Responses also end them with
//! a CR alone and with LF CR.

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Bytes up to and with the end.
    pub(super) whole: usize,
    /// Bytes without the end.
    pub(super) text: usize,
    /// Ended by LF CR.
    pub(super) reversed_end: bool,
}

/// The next line that ends with LF; what is left when nothing follows.
pub(super) fn by_lf(input: &[u8], closed: bool) -> Option<Line> {
    match memchr::memchr(b'\n', input) {
        Some(at) => Some(Line { whole: at + 1, text: chomp(&input[..=at]), reversed_end: false }),
        None if closed && !input.is_empty() => {
            Some(Line { whole: input.len(), text: chomp(input), reversed_end: false })
        }
        None => None,
    }
}

/// The next line that ends as responses' lines may: CR LF, LF, CR, LF CR. `after_reversed`: the line before ended
/// with LF CR, so that a CR LF CR LF that follows is one end only.
pub(super) fn by_any(input: &[u8], closed: bool, after_reversed: bool) -> Option<Line> {
    let mut from = 0;
    loop {
        let Some(found) = memchr::memchr2(b'\r', b'\n', &input[from..]) else {
            let rest = closed && !input.is_empty();
            return rest.then(|| Line { whole: input.len(), text: chomp(input), reversed_end: false });
        };
        let at = from + found;
        let next = input.get(at + 1).copied();
        if next.is_none() && !closed {
            return None;
        }
        let line = |whole| Line { whole, text: chomp(&input[..whole]), reversed_end: false };
        if input[at] == b'\n' {
            if next == Some(b'\r') {
                // LF CR LF is a line's end and an empty line, LF CR else one end.
                match input.get(at + 2) {
                    Some(b'\n') => return Some(line(at + 1)),
                    None if !closed => return None,
                    _ => return Some(Line { whole: at + 2, text: chomp(&input[..=at]), reversed_end: true }),
                }
            }
            return Some(line(at + 1));
        }
        match next {
            Some(b'\n') => {
                if after_reversed && at == 0 && input.get(2) == Some(&b'\r') && input.get(3) == Some(&b'\n') {
                    return Some(line(4));
                }
                return Some(line(at + 2));
            }
            // A CR before another, or at the beginning, ends nothing.
            Some(b'\r') => from = at + 1,
            _ if at == 0 => from = 1,
            _ => return Some(Line { whole: at + 1, text: at, reversed_end: false }),
        }
    }
}

/// Length without the bytes that end a line.
fn chomp(line: &[u8]) -> usize {
    let ends = line.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    line.len() - ends
}

/// Whether the line, with its end, ends the headers. `next_is_lf`: what follows it is an LF.
pub(super) fn ends_headers(line: &[u8], next_is_lf: bool) -> bool {
    match line {
        [b'\n'] | [b'\r'] | [b'\r', b'\n'] | [b'\n', b'\r'] | [b'\r', b'\n', b'\r', b'\n'] => true,
        [b' ' | b'\t', b'\n'] => !next_is_lf,
        _ => false,
    }
}

/// White space as C's `isspace`.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c)
}

/// Whether a header line continues the one before.
pub(super) fn is_folded(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t' | 0))
}

/// Without white space at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text {
        if !is_space(*first) {
            break;
        }
        text = rest;
    }
    while let [rest @ .., last] = text {
        if !is_space(*last) {
            break;
        }
        text = rest;
    }
    text
}

/// Whether this is no status line: browsers then take it for the body.
pub(super) fn is_body(line: &[u8]) -> bool {
    let start = line.iter().position(|byte| !is_space(*byte) && *byte != 0).unwrap_or(line.len());
    !line[start..].get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"http"))
}

/// Whether these few bytes are the beginning of `HTTP`.
pub(super) fn may_be_status(bytes: &[u8]) -> bool {
    let word = trim(bytes);
    !word.is_empty() && word.len() < 4 && b"http"[..word.len()].eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(input: &[u8]) -> Option<(usize, usize)> {
        by_any(input, false, false).map(|line| (line.whole, line.text))
    }

    #[test]
    fn responses_lines_end_in_four_ways() {
        assert_eq!(any(b"a: b\r\nc"), Some((6, 4)));
        assert_eq!(any(b"a: b\nc"), Some((5, 4)));
        assert_eq!(any(b"a: b\rc"), Some((5, 4)));
        assert_eq!(any(b"a: b\n\rc"), Some((6, 4)));
        assert_eq!(any(b"a: b\n\r\nc"), Some((5, 4)), "an empty line follows");
        assert_eq!(any(b"a: b\r"), None, "what follows the CR decides");
        assert_eq!(any(b"a: b"), None);
        assert_eq!(by_any(b"a: b", true, false).map(|l| l.text), Some(4));
    }

    #[test]
    fn requests_lines_end_with_lf() {
        assert_eq!(by_lf(b"a\rb\r\nc", false).map(|l| (l.whole, l.text)), Some((5, 3)));
        assert_eq!(by_lf(b"abc", false), None);
    }

    #[test]
    fn a_blank_before_an_lf_ends_headers_unless_another_follows() {
        assert!(ends_headers(b" \n", false) && !ends_headers(b" \n", true));
        assert!(ends_headers(b"\r\n", false) && !ends_headers(b" \r\n", false));
    }

    #[test]
    fn what_does_not_begin_with_http_is_body() {
        assert!(is_body(b"xyz") && is_body(b"") && is_body(b" "));
        assert!(!is_body(b"HTTP/1.1 200 ok") && !is_body(b" http"));
    }
}
