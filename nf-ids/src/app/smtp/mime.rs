//! Mail (RFC 5322) and its parts (RFC 2045): headers, and attachments decoded.

use crate::app::Event;

/// Longest header that is kept, unfolded.
const MOST_HEADER: usize = 8192;
/// Headers that are kept of one mail.
const MOST_HEADERS: usize = 256;
/// Boundaries of parts within parts.
const MOST_DEPTH: usize = 16;

/// How a part is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Plain,
    Base64,
    Quoted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Headers,
    /// The mail's text or an attachment.
    Body,
    /// Between the headers of a mail with parts and its first part, or after the last.
    Outside,
}

/// What a line of a mail was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A header of the mail itself: name in lower case, and value.
    Header(Vec<u8>, Vec<u8>),
    /// The mail's own headers are complete.
    HeadersEnd,
    /// An attachment begins.
    File(Vec<u8>),
    /// More of the attachment.
    Content(Vec<u8>),
    /// Text that is no attachment.
    Text(Vec<u8>),
    /// Something wrong.
    Wrong(Event),
}

/// Reads a mail line by line.
#[derive(Debug, Default)]
pub(super) struct Mail {
    place: Place,
    boundaries: Vec<Vec<u8>>,
    header: Vec<u8>,
    headers: usize,
    inner: bool,
    coding: Coding,
    file: Option<Vec<u8>>,
    in_file: bool,
    /// Base64 digits that do not make a whole group yet.
    digits: Vec<u8>,
    /// A line's end that belongs to the content only if no boundary follows.
    line_end: Vec<u8>,
}

/// The value of a parameter of a header.
fn parameter(value: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    for part in value.split(|byte| *byte == b';').skip(1) {
        let part = part.trim_ascii();
        let Some(equals) = memchr::memchr(b'=', part) else { continue };
        let key = part[..equals].trim_ascii();
        let key = key.strip_suffix(b"*").or_else(|| key.strip_suffix(b"*0")).unwrap_or(key);
        if key.eq_ignore_ascii_case(name) {
            let value = part[equals + 1..].trim_ascii();
            let inner = value.strip_prefix(b"\"").unwrap_or(value);
            return Some(inner.strip_suffix(b"\"").unwrap_or(inner).to_vec());
        }
    }
    None
}

impl Mail {
    /// A line, without and with its end.
    pub(super) fn line(&mut self, line: &[u8], end: &[u8], found: &mut Vec<Found>) {
        if self.place == Place::Headers {
            self.header_line(line, found);
            return;
        }
        if let Some(after) = line.strip_prefix(b"--")
            && let Some(depth) = self.boundaries.iter().rposition(|boundary| after.starts_with(boundary))
        {
            let last = after[self.boundaries[depth].len()..].starts_with(b"--");
            self.end_part();
            self.boundaries.truncate(if last { depth } else { depth + 1 });
            self.place = if last { Place::Outside } else { Place::Headers };
            self.inner = true;
            return;
        }
        if self.place == Place::Body {
            self.body_line(line, end, found);
        }
    }

    fn header_line(&mut self, line: &[u8], found: &mut Vec<Found>) {
        if matches!(line.first(), Some(b' ' | b'\t')) && !self.header.is_empty() {
            if self.header.len() + line.len() <= MOST_HEADER {
                self.header.extend_from_slice(line);
            } else {
                found.push(Found::Wrong(Event::SmtpMimeLongHeaderValue));
            }
            return;
        }
        let header = std::mem::take(&mut self.header);
        if !header.is_empty() {
            self.header(&header, found);
        }
        if !line.is_empty() {
            self.header = line[..line.len().min(MOST_HEADER)].to_vec();
            return;
        }
        if !self.inner {
            found.push(Found::HeadersEnd);
        }
        self.in_file = self.file.is_some();
        if let Some(name) = self.file.take() {
            found.push(Found::File(name));
        }
        self.place = Place::Body;
    }

    fn header(&mut self, header: &[u8], found: &mut Vec<Found>) {
        let Some(colon) = memchr::memchr(b':', header) else {
            found.push(Found::Wrong(Event::SmtpMimeMalformed));
            return;
        };
        let name = header[..colon].trim_ascii().to_ascii_lowercase();
        let value = header[colon + 1..].trim_ascii();
        match &name[..] {
            b"content-type" => {
                if let Some(boundary) = parameter(value, b"boundary") {
                    if boundary.len() > 254 {
                        found.push(Found::Wrong(Event::SmtpMimeLongBoundary));
                    } else if self.boundaries.len() < MOST_DEPTH && !boundary.is_empty() {
                        self.boundaries.push(boundary);
                    }
                }
                if let Some(name) = parameter(value, b"name") {
                    self.file.get_or_insert(name);
                }
            }
            b"content-disposition" => {
                if let Some(name) = parameter(value, b"filename") {
                    self.file = Some(name);
                }
            }
            b"content-transfer-encoding" => {
                let word = value.to_ascii_lowercase();
                self.coding = match &word[..] {
                    b"base64" => Coding::Base64,
                    b"quoted-printable" => Coding::Quoted,
                    _ => Coding::Plain,
                };
            }
            _ => {}
        }
        self.headers += 1;
        if !self.inner && self.headers <= MOST_HEADERS {
            found.push(Found::Header(name, value.to_vec()));
        }
    }

    fn body_line(&mut self, line: &[u8], end: &[u8], found: &mut Vec<Found>) {
        let mut out = std::mem::take(&mut self.line_end);
        match self.coding {
            Coding::Plain => {
                out.extend_from_slice(line);
                self.line_end = end.to_vec();
            }
            Coding::Quoted => {
                let (text, soft) = match line.trim_ascii_end() {
                    [text @ .., b'='] => (text, true),
                    text => (text, false),
                };
                unquote(text, &mut out);
                if !soft {
                    self.line_end = end.to_vec();
                }
            }
            Coding::Base64 => {
                out.clear();
                if !self.base64(line, &mut out) {
                    found.push(Found::Wrong(Event::SmtpMimeInvalidBase64));
                }
            }
        }
        if !out.is_empty() {
            found.push(if self.in_file { Found::Content(out) } else { Found::Text(out) });
        }
    }

    /// Decodes digits, over lines. Whether all of them are digits.
    fn base64(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let mut good = true;
        for byte in line {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    self.last_digits(out);
                    continue;
                }
                b' ' | b'\t' => continue,
                _ => {
                    good = false;
                    continue;
                }
            };
            self.digits.push(digit);
            if let [a, b, c, d] = self.digits[..] {
                out.extend([a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
                self.digits.clear();
            }
        }
        good
    }

    /// The bytes of a group that is not whole.
    fn last_digits(&mut self, out: &mut Vec<u8>) {
        match self.digits[..] {
            [a, b] => out.push(a << 2 | b >> 4),
            [a, b, c] => out.extend([a << 2 | b >> 4, b << 4 | c >> 2]),
            _ => {}
        }
        self.digits.clear();
    }

    fn end_part(&mut self) {
        self.coding = Coding::Plain;
        self.file = None;
        self.in_file = false;
        self.digits.clear();
        self.line_end.clear();
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.header.capacity() + self.boundaries.iter().map(Vec::capacity).sum::<usize>()
    }
}

/// Decodes `=XX`.
fn unquote(text: &[u8], out: &mut Vec<u8>) {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut at = 0;
    while at < text.len() {
        let escaped = match &text[at..] {
            [b'=', high, low, ..] => digit(high).zip(digit(low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_decoded() {
        let mail = "From: a\nSubject: folded\n line\nContent-Type: multipart/mixed; boundary=\"xx\"\n\npreamble\n\
            --xx\nContent-Type: text/plain\n\nsee http://example.com/x now\n--xx\n\
            Content-Disposition: attachment; filename=\"a.txt\"\nContent-Transfer-Encoding: base64\n\n\
            aGVs\nbG8g\nd29ybGQ=\n--xx\nContent-Type: text/html; name=b.txt\n\
            Content-Transfer-Encoding: quoted-printable\n\none=20=\ntwo\nthree\n--xx--\nafter\n";
        let (mut read, mut found) = (Mail::default(), Vec::new());
        for line in mail.lines() {
            read.line(line.as_bytes(), b"\n", &mut found);
        }
        let mut files: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for one in &found {
            match one {
                Found::File(name) => files.push((name.clone(), Vec::new())),
                Found::Content(bytes) => files.last_mut().unwrap().1.extend(bytes),
                _ => {}
            }
        }
        assert_eq!(files[0], (b"a.txt".to_vec(), b"hello world".to_vec()));
        assert_eq!(files[1], (b"b.txt".to_vec(), b"one two\nthree".to_vec()));
        assert!(found.contains(&Found::Header(b"subject".to_vec(), b"folded line".to_vec())));
        assert!(found.contains(&Found::Text(b"see http://example.com/x now".to_vec())));
    }
}
