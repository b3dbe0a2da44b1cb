//! Headers of one message: kept once, with names and values as ranges of one store.

use super::chunk::content_length;
use super::line;
use std::ops::Range;

/// Headers that are kept of one message; more are only in the raw form.
const MOST: usize = 1024;
/// Repeated headers whose values are added to those before.
const MOST_REPEATED: usize = 65;
/// Bytes of one message's headers that are kept, and of a folded one.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// One header. One that was sent several times is kept once, with all its values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    name: Range<usize>,
    value: Range<usize>,
}

/// The headers of a message.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers {
    /// As they were sent, lines with their ends, with the empty line.
    pub(super) raw: Vec<u8>,
    store: Vec<u8>,
    list: Vec<Header>,
    /// Headers that were there before.
    repeated: usize,
    /// There were more than are kept.
    pub(super) too_many: bool,
}

/// What was noticed in a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// There is no colon.
    pub(super) no_colon: bool,
    /// The name has bytes that names cannot have.
    pub(super) invalid: bool,
    /// The same name was there before.
    pub(super) repeated: bool,
    /// It is a further `Content-Length`.
    pub(super) length_again: bool,
}

/// Bytes that a header's name is made of (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte)
}

impl Headers {
    /// Reads one header, unfolded and without its end.
    pub(super) fn add(&mut self, text: &[u8]) -> Noticed {
        let mut noticed = Noticed::default();
        let (name, value) = match memchr::memchr(b':', text) {
            Some(colon) => {
                let name = &text[..colon];
                let end = name.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |at| at + 1);
                noticed.invalid = !name[..end].iter().all(|byte| is_token(*byte));
                (&name[..end], line::trim(&text[colon + 1..]))
            }
            None => {
                noticed.no_colon = true;
                (&text[..0], text)
            }
        };
        self.too_many |= self.list.len() >= MOST;
        if self.list.len() >= MOST || self.store.len() + text.len() > MOST_BYTES {
            return noticed;
        }
        match self.list.iter().position(|header| self.store[header.name.clone()].eq_ignore_ascii_case(name)) {
            Some(at) if !name.is_empty() => {
                noticed.repeated = true;
                self.repeated += 1;
                if name.eq_ignore_ascii_case(b"content-length") {
                    let old = content_length(&self.store[self.list[at].value.clone()]);
                    noticed.length_again = old.is_none() || old != content_length(value);
                } else if self.repeated <= MOST_REPEATED {
                    self.append(at, value);
                }
            }
            _ => {
                let name = self.put(name);
                let value = self.put(value);
                self.list.push(Header { name, value });
            }
        }
        noticed
    }

    fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.store.len();
        self.store.extend_from_slice(bytes);
        start..self.store.len()
    }

    /// Joins a further value to a header's, with a comma.
    fn append(&mut self, at: usize, value: &[u8]) {
        let old = self.list[at].value.clone();
        if self.store.len() + old.len() + value.len() + 2 > MOST_BYTES {
            return;
        }
        let start = self.store.len();
        self.store.extend_from_within(old);
        self.store.extend_from_slice(b", ");
        self.store.extend_from_slice(value);
        self.list[at].value = start..self.store.len();
    }

    /// The value of a header, whatever the case of its name.
    pub(super) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let header =
            self.list.iter().find(|header| self.store[header.name.clone()].eq_ignore_ascii_case(name))?;
        Some(&self.store[header.value.clone()])
    }

    /// All, as name and value, in the order in which they were first seen.
    pub(super) fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|header| (&self.store[header.name.clone()], &self.store[header.value.clone()]))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `name: value\r\n` of each that is not a cookie.
    pub(super) fn normalised(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.store.len() + 4 * self.list.len());
        for (name, value) in self.all() {
            if !name.eq_ignore_ascii_case(b"cookie") && !name.eq_ignore_ascii_case(b"set-cookie") {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
        out
    }

    /// `\r\nname\r\nname\r\n\r\n`.
    pub(super) fn names(&self) -> Vec<u8> {
        let mut out = b"\r\n".to_vec();
        for (name, _) in self.all() {
            out.extend_from_slice(name);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// `name: value` of each.
    pub(super) fn each(&self) -> Vec<Vec<u8>> {
        self.all().map(|(name, value)| [name, b": ", value].concat()).collect()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.raw.capacity() + self.store.capacity() + self.list.capacity() * size_of::<Header>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_joined_and_written() {
        let mut headers = Headers::default();
        for text in ["Host: a", "X-A : 1 ", "Cookie: c", "x-a:2", "Content-Length: 5", "content-length: 6"] {
            headers.add(text.as_bytes());
        }
        assert_eq!(headers.get(b"X-a"), Some(&b"1, 2"[..]));
        assert_eq!(headers.get(b"content-length"), Some(&b"5"[..]));
        assert_eq!(headers.normalised(), b"Host: a\r\nX-A: 1, 2\r\nContent-Length: 5\r\n");
        assert_eq!(headers.names(), b"\r\nHost\r\nX-A\r\nCookie\r\nContent-Length\r\n\r\n");
        assert_eq!(headers.each()[0], b"Host: a");
    }

    #[test]
    fn odd_headers_are_noticed() {
        let mut headers = Headers::default();
        assert!(headers.add(b"no colon here").no_colon);
        assert!(headers.add(b"a b: x").invalid && headers.add(b"a(: x").invalid);
        // White space before the colon, or nothing: odd, but as Suricata has it no event.
        assert!(!headers.add(b": x").invalid && !headers.add(b"a : x").invalid);
        assert_eq!(headers.add(b"Fine: x"), Noticed::default());
        headers.add(b"Content-Length: 1");
        assert!(
            !headers.add(b"Content-Length: 1").length_again && headers.add(b"Content-Length: 2").length_again
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut headers = Headers::default();
        for n in 0..100_000 {
            headers.add(format!("name-{n}: {n}").as_bytes());
            headers.add(b"same: again and again");
        }
        assert!(headers.memory() < 4 * MOST_BYTES, "{}", headers.memory());
    }
}
