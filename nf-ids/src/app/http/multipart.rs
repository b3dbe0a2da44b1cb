//! Forms with files (`multipart/form-data`, RFC 7578).

use super::body::File;
use super::line::trim;

/// Files of one form that are kept.
const MOST_FILES: usize = 64;
/// Bytes of a part's headers.
const MOST_HEADER: usize = 8192;

/// Reads the parts of a form as they come.
#[derive(Debug)]
pub(super) struct Multipart {
    /// `--boundary`.
    boundary: Vec<u8>,
    state: State,
    pending: Vec<u8>,
    pub(super) files: Vec<File>,
    /// The current part is a file.
    in_file: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Boundary,
    Headers,
    Content,
    Done,
}

/// The value of a parameter, as `boundary=x` or `filename="x"`.
pub(super) fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    for part in value.split(|byte| *byte == b';').skip(1) {
        let part = trim(part);
        let Some(equals) = memchr::memchr(b'=', part) else { continue };
        if trim(&part[..equals]).eq_ignore_ascii_case(name) {
            let value = trim(&part[equals + 1..]);
            let inner = value.strip_prefix(b"\"").unwrap_or(value);
            return Some(inner.strip_suffix(b"\"").unwrap_or(inner));
        }
    }
    None
}

impl Multipart {
    /// Of a `Content-Type`, when that is a form with a boundary.
    pub(super) fn new(content_type: &[u8]) -> Option<Multipart> {
        let kind = content_type.get(..19)?;
        if !kind.eq_ignore_ascii_case(b"multipart/form-data") {
            return None;
        }
        let boundary = parameter(content_type, b"boundary").filter(|b| !b.is_empty() && b.len() <= 250)?;
        Some(Multipart {
            boundary: [b"--", boundary].concat(),
            state: State::Boundary,
            pending: Vec::new(),
            files: Vec::new(),
            in_file: false,
        })
    }

    /// More of the body.
    pub(super) fn push(&mut self, bytes: &[u8], last: bool) {
        let mut input = std::mem::take(&mut self.pending);
        input.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let (taken, go) = match self.state {
                State::Boundary => self.boundary(&input[at..]),
                State::Headers => self.headers(&input[at..]),
                State::Content => self.content(&input[at..]),
                State::Done => (input.len() - at, false),
            };
            at += taken;
            if !go {
                break;
            }
        }
        self.pending = input.split_off(at.min(input.len()));
        if last {
            let rest = std::mem::take(&mut self.pending);
            if self.state == State::Content {
                self.keep(&rest);
            }
            self.finish();
            self.state = State::Done;
        }
    }

    fn boundary(&mut self, input: &[u8]) -> (usize, bool) {
        match memchr::memmem::find(input, &self.boundary) {
            Some(at) => {
                let after = at + self.boundary.len();
                let Some(next) = input.get(after..after + 2) else { return (at, false) };
                if next == b"--" {
                    self.state = State::Done;
                    return (after, true);
                }
                let Some(end) = memchr::memchr(b'\n', &input[after..]) else { return (at, false) };
                self.state = State::Headers;
                (after + end + 1, true)
            }
            None => (input.len().saturating_sub(self.boundary.len()), false),
        }
    }

    fn headers(&mut self, input: &[u8]) -> (usize, bool) {
        // The end is not looked for in all that follows: parts may be many, and short.
        let near = &input[..input.len().min(MOST_HEADER)];
        let two = memchr::memmem::find(near, b"\r\n\r\n").map(|at| (at, at + 4));
        let one = memchr::memmem::find(near, b"\n\n").map(|at| (at, at + 2));
        let empty = input.starts_with(b"\r\n").then_some((0, 2));
        let Some((end, after)) = empty.into_iter().chain(two).chain(one).min() else {
            // Headers without end are not kept.
            let long = input.len() > MOST_HEADER;
            return (if long { MOST_HEADER - 4 } else { 0 }, long);
        };
        self.in_file = false;
        for header in input[..end].split(|byte| *byte == b'\n') {
            let named =
                header.get(..20).is_some_and(|name| name.eq_ignore_ascii_case(b"content-disposition:"));
            if named && let Some(name) = parameter(header, b"filename") {
                self.in_file = self.files.len() < MOST_FILES;
                if self.in_file {
                    self.files.push(File { name: name.to_vec(), ..File::default() });
                }
            }
        }
        self.state = State::Content;
        (after, true)
    }

    fn content(&mut self, input: &[u8]) -> (usize, bool) {
        match memchr::memmem::find(input, &self.boundary) {
            Some(at) => {
                let text = &input[..at];
                let text = text.strip_suffix(b"\n").unwrap_or(text);
                self.keep(text.strip_suffix(b"\r").unwrap_or(text));
                self.finish();
                self.state = State::Boundary;
                (at, true)
            }
            None => {
                // The end may be the beginning of a boundary and the line end before it.
                let sure = input.len().saturating_sub(self.boundary.len() + 2);
                self.keep(&input[..sure]);
                (sure, false)
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.in_file
            && let Some(file) = self.files.last_mut()
        {
            file.data.extend_from_slice(bytes);
        }
    }

    fn finish(&mut self) {
        if self.in_file
            && let Some(file) = self.files.last_mut()
        {
            file.done = true;
        }
        self.in_file = false;
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.pending.capacity()
            + self.files.iter().map(|f| f.data.capacity() + f.name.capacity()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_however_the_form_is_cut() {
        let body = b"preamble\r\n--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nvalue\r\n--xyz\r\n\
            Content-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\nContent-Type: text/plain\r\n\r\n\
            line one\r\n--xy not yet\r\n--xyz--\r\n";
        for piece in 1..body.len() {
            let mut form = Multipart::new(b"multipart/form-data; boundary=\"xyz\"").unwrap();
            for part in body.chunks(piece) {
                form.push(part, false);
            }
            form.push(b"", true);
            assert_eq!(form.files.len(), 1, "pieces of {piece}");
            assert_eq!(form.files[0].name, b"x.txt");
            assert_eq!(form.files[0].data, b"line one\r\n--xy not yet", "pieces of {piece}");
            assert!(form.files[0].done);
        }
    }

    #[test]
    fn long_headers_are_passed_over_and_many_parts_read() {
        let long = "X: ".to_string() + &"y".repeat(30_000);
        let last = "Content-Disposition: form-data; filename=\"z\"\r\n\r\nfile\r\n--xyz--";
        let body = format!("--xyz\r\n{long}\r\n\r\nvalue\r\n--xyz\r\n{last}");
        for piece in [100, 5000, 100_000] {
            let mut form = Multipart::new(b"multipart/form-data; boundary=xyz").unwrap();
            for part in body.as_bytes().chunks(piece) {
                form.push(part, false);
            }
            form.push(b"", true);
            assert_eq!(form.files.len(), 1, "pieces of {piece}");
            assert_eq!(form.files[0].data, b"file", "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_form_is_none() {
        assert!(Multipart::new(b"text/plain").is_none());
        assert!(Multipart::new(b"multipart/form-data").is_none());
    }
}
