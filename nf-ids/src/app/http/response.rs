//! Responses.

use super::chunk::{self, Length};
use super::decode::Decoder;
use super::request::version;
use super::tx::Tx;
use super::{Http, MOST_LINE, Place, Take, line, note, side};
use crate::app::{Event, Progress, Protocol};
use crate::flow::Direction;

const RESPONSE: Direction = Direction::ToClient;
/// What stands for the URI of a request that was not seen.
const NOT_SEEN: &[u8] = b"/libhtp::request_uri_not_seen";

impl Http {
    /// One step of reading responses.
    pub(super) fn response(&mut self, place: Place, input: &[u8], closed: bool) -> Take {
        match place {
            Place::Line => self.status_line(input, closed),
            Place::Headers | Place::Trailer => self.response_headers(input, closed),
            Place::ChunkLength => self.response_chunk(input, closed),
            Place::Rest => self.response_rest(input),
            _ => self.body_step(RESPONSE, place, input),
        }
    }

    /// The transaction that this response answers; one without a request when there is none.
    fn answer(&mut self) -> u64 {
        if let Some(id) = self.sides[side(RESPONSE)].tx {
            return id;
        }
        let end = self.first + self.txs.len() as u64;
        let id = if self.next_response < end {
            self.next_response
        } else {
            let id = self.create();
            if let Some(tx) = self.tx_mut(id) {
                tx.uri = NOT_SEEN.to_vec();
                tx.uri_raw = NOT_SEEN.to_vec();
                tx.path = NOT_SEEN.to_vec();
                tx.request.progress = Progress::Complete;
                note(&mut tx.events, Event::HttpUnmatchedResponse);
            }
            id
        };
        self.next_response = id + 1;
        self.sides[side(RESPONSE)].tx = Some(id);
        id
    }

    fn status_line(&mut self, input: &[u8], closed: bool) -> Take {
        let id = self.answer();
        let short = self.tx(id).is_some_and(|tx| tx.short);
        if short {
            let word = &input[..input.len().min(5)];
            if !b"HTTP/".starts_with(word) {
                return self.body_until_close();
            }
            if word.len() < 5 && !closed {
                return Take::More;
            }
        }
        let Some(found) = line::by_any(input, closed, false) else {
            if input.len() <= MOST_LINE {
                return Take::More;
            }
            if line::is_body(input) {
                return self.body_until_close();
            }
            self.note(RESPONSE, Event::HttpResponseFieldTooLong);
            return self.die(RESPONSE);
        };
        let whole = &input[..found.whole];
        if line::ends_headers(whole, true) {
            return Take::Bytes(found.whole);
        }
        let text = &input[..found.text];
        if line::is_body(text) {
            // Junk before the status line is passed over, other lines are the body.
            let next = input.get(found.whole);
            if next == Some(&b'H') || (found.whole <= 2 && next.is_some()) {
                return Take::Bytes(found.whole);
            }
            if let Some(tx) = self.current(RESPONSE) {
                tx.response.body.is_file = true;
            }
            self.body(RESPONSE, whole);
            return Take::Bytes(found.whole);
        }
        if found.whole > MOST_LINE {
            self.note(RESPONSE, Event::HttpResponseFieldTooLong);
            return self.die(RESPONSE);
        }
        let text = text.to_vec();
        if let Some(tx) = self.tx_mut(id) {
            read_line(tx, text);
            tx.response.progress = Progress::Line;
        }
        self.sides[side(RESPONSE)].place = Place::Headers;
        Take::Bytes(found.whole)
    }

    /// What comes is a body without status line or headers.
    fn body_until_close(&mut self) -> Take {
        if let Some(tx) = self.current(RESPONSE) {
            tx.response.progress = Progress::Headers;
            tx.response.body.is_file = true;
        }
        self.sides[side(RESPONSE)].place = Place::Close;
        Take::Bytes(0)
    }

    fn response_headers(&mut self, input: &[u8], closed: bool) -> Take {
        let at = side(RESPONSE);
        let Some(found) = line::by_any(input, closed, self.sides[at].after_reversed) else {
            if input.len() > MOST_LINE {
                self.note(RESPONSE, Event::HttpResponseFieldTooLong);
                return self.die(RESPONSE);
            }
            return Take::More;
        };
        let whole = &input[..found.whole];
        if matches!(whole, [b' ' | b'\t', b'\n']) && input.len() == found.whole && !closed {
            return Take::More;
        }
        self.sides[at].after_reversed = found.reversed_end;
        if found.whole > MOST_LINE || !self.raw_header(RESPONSE, whole) {
            self.note(RESPONSE, Event::HttpResponseFieldTooLong);
            return self.die(RESPONSE);
        }
        if line::ends_headers(whole, input.get(found.whole) == Some(&b'\n')) {
            self.flush_header(RESPONSE);
            if self.sides[at].place == Place::Trailer {
                self.sides[at].place = Place::Rest;
                return Take::Bytes(found.whole);
            }
            return self.response_body(found.whole);
        }
        self.response_header_line(&input[..found.text]);
        Take::Bytes(found.whole)
    }

    /// A header line: a new header, or the continuation of the one before.
    fn response_header_line(&mut self, text: &[u8]) {
        let at = side(RESPONSE);
        let modern = self.current(RESPONSE).is_some_and(|tx| tx.response.version == Some(1));
        if line::is_folded(text) {
            let folded = match &mut self.sides[at].header {
                // In HTTP/1.1 folding is gone, so that what looks like a header is one.
                Some(header) if modern && text.contains(&b':') && header.contains(&b':') => false,
                Some(header) if header.len() + text.len() <= MOST_LINE => {
                    header.extend_from_slice(text);
                    true
                }
                _ => false,
            };
            if folded {
                return;
            }
            self.note(RESPONSE, Event::HttpInvalidResponseFolding);
        }
        self.flush_header(RESPONSE);
        if !text.is_empty() {
            let start = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | 0)).count();
            self.sides[at].header = Some(text[start..].to_vec());
        }
    }

    /// The headers are there: is there a body, and where does it end? `taken` bytes end the headers.
    fn response_body(&mut self, taken: usize) -> Take {
        let Some(tx) = self.current(RESPONSE) else { return Take::Bytes(taken) };
        let coding = tx.response.headers.get(b"transfer-encoding");
        let length = tx.response.headers.get(b"content-length");
        let chunked = coding.is_some_and(is_chunked);
        let status = tx.status_number.unwrap_or(0);
        let bodiless = coding.is_none() && length.is_none();
        let known = length.map(chunk::content_length);

        if tx.method == b"CONNECT" && (200..300).contains(&status) {
            tx.response.progress = Progress::Headers;
            self.complete(RESPONSE);
            return Take::Change(None, taken);
        }
        if status == 101 && bodiless {
            let upgrade = tx.response.headers.get(b"upgrade").unwrap_or_default().to_ascii_lowercase();
            let to = match &upgrade[..] {
                b"h2c" => Some(Protocol::Http2),
                b"websocket" => Some(Protocol::Websocket),
                _ => None,
            };
            tx.response.progress = Progress::Headers;
            self.complete(RESPONSE);
            return Take::Change(to, taken);
        }
        if status == 100 && !tx.continued && !chunked && known.flatten().unwrap_or(0) == 0 {
            let limit = self.limits.response_body;
            if let Some(tx) = self.current(RESPONSE) {
                tx.continued = true;
                tx.response = super::tx::Message::default();
                tx.response.body = super::body::Body::new(limit);
            }
            self.sides[side(RESPONSE)].place = Place::Line;
            return Take::Bytes(taken);
        }
        let mut events = Vec::new();
        if status == 100 && tx.continued {
            events.push(Event::HttpContinueAlreadySeen);
        }
        odd_headers(&tx.response, &mut events);
        let none = tx.method == b"HEAD" || (bodiless && matches!(status, 100..=199 | 204 | 304));
        let place = if none {
            Place::Rest
        } else if chunked {
            if !coding.is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
                events.push(Event::HttpResponseAbnormalTransferEncoding);
            }
            if tx.response.version != Some(1) {
                events.push(Event::HttpResponseChunkedOldProto);
            }
            Place::ChunkLength
        } else {
            match known {
                Some(Some(0)) => Place::Rest,
                Some(Some(length)) => Place::Length(length),
                // A browser reads on to the end of the stream, and so does this.
                Some(None) => {
                    events.push(Event::HttpInvalidResponseContentLength);
                    Place::Close
                }
                None => Place::Close,
            }
        };
        read_encoding(tx, &mut events);
        for event in events {
            note(&mut tx.events, event);
        }
        tx.response.progress = Progress::Headers;
        tx.response.body.is_file = true;
        let connect = tx.method == b"CONNECT";
        self.sides[side(RESPONSE)].place = place;
        let request = &mut self.sides[side(Direction::ToServer)];
        if connect && request.place == Place::Connect {
            // Refused: what the client sends next is a request again.
            request.place = Place::Line;
            request.tx = None;
        }
        Take::Bytes(taken)
    }

    fn response_chunk(&mut self, input: &[u8], closed: bool) -> Take {
        let found = line::by_lf(input, closed);
        let Some(found) = found.filter(|_| chunk::plausible(input)) else {
            if found.is_none() && chunk::plausible(input) && input.len() <= MOST_LINE {
                return Take::More;
            }
            return self.response_bad_chunk();
        };
        match chunk::length(&input[..found.whole]) {
            Length::Empty => Take::Bytes(found.whole),
            Length::Invalid => self.response_bad_chunk(),
            Length::Is(length, extension) => {
                if extension {
                    self.note(RESPONSE, Event::HttpResponseChunkExtension);
                }
                if length == 0
                    && let Some(tx) = self.current(RESPONSE)
                {
                    tx.response.progress = Progress::Body;
                }
                self.sides[side(RESPONSE)].place =
                    if length > 0 { Place::ChunkData(length) } else { Place::Trailer };
                Take::Bytes(found.whole)
            }
        }
    }

    /// No chunk begins here: what is left is the body, as it stands.
    fn response_bad_chunk(&mut self) -> Take {
        self.note(RESPONSE, Event::HttpInvalidResponseChunkLen);
        self.sides[side(RESPONSE)].place = Place::Close;
        Take::Bytes(0)
    }

    /// What follows a complete response: the next one when it looks like a status line, else still its body.
    fn response_rest(&mut self, input: &[u8]) -> Take {
        let end = memchr::memchr(b'\n', input).map_or(input.len(), |at| at + 1);
        if !line::is_body(&input[..end]) || line::may_be_status(&input[..end]) {
            self.complete(RESPONSE);
            return Take::Bytes(0);
        }
        self.note(RESPONSE, Event::HttpResponseBodyUnexpected);
        self.body(RESPONSE, &input[..end]);
        Take::Bytes(end)
    }
}

/// Whether a `Transfer-Encoding` has `chunked` in it, whatever stands around and NUL bytes inside.
fn is_chunked(value: &[u8]) -> bool {
    let text: Vec<u8> = value.iter().filter(|byte| **byte != 0).map(u8::to_ascii_lowercase).collect();
    memchr::memmem::find(&text, b"chunked").is_some()
}

/// What is odd in headers and changes nothing.
fn odd_headers(response: &super::tx::Message, events: &mut Vec<Event>) {
    let headers = &response.headers;
    if headers.get(b"transfer-encoding").is_some_and(|coding| !is_chunked(coding)) {
        events.push(Event::HttpInvalidResponseTransferEncoding);
    }
    if headers.too_many {
        events.push(Event::HttpResponseTooManyHeaders);
    }
    if headers.get(b"content-range").is_some_and(|range| !is_range(range)) {
        events.push(Event::HttpRangeInvalid);
    }
}

/// Whether this is a `Content-Range` (RFC 9110, section 14.4): `bytes 0-9/100`, `bytes */100`, `bytes 0-9/*`.
fn is_range(value: &[u8]) -> bool {
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(rest) = value.strip_prefix(b"bytes") else { return false };
    let rest = line::trim(rest);
    let Some(slash) = memchr::memchr(b'/', rest) else { return false };
    let (range, size) = (&rest[..slash], &rest[slash + 1..]);
    if range == b"*" {
        return number(size).is_some();
    }
    let Some(dash) = memchr::memchr(b'-', range) else { return false };
    let ends = number(&range[..dash]).zip(number(&range[dash + 1..]));
    ends.is_some_and(|(from, to)| from <= to) && (size == b"*" || number(size).is_some())
}

/// Reads a status line.
fn read_line(tx: &mut Tx, text: Vec<u8>) {
    let mut words = [0..0, 0..0];
    let mut at = 0;
    for word in &mut words {
        let start = at + text[at..].iter().take_while(|byte| line::is_space(**byte)).count();
        at = start + text[start..].iter().take_while(|byte| !line::is_space(**byte)).count();
        *word = start..at;
    }
    let [protocol, status] = words;
    let reason = at + text[at..].iter().take_while(|byte| line::is_space(**byte)).count();
    tx.response.protocol = text[protocol].to_vec();
    tx.response.version = version(&tx.response.protocol);
    tx.status = text[status].to_vec();
    tx.reason = text[reason..].to_vec();
    tx.status_number = std::str::from_utf8(line::trim(&tx.status))
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|number| (100..1000).contains(number));
    if tx.response.version.is_none() && !tx.response.protocol.eq_ignore_ascii_case(b"http/0.9") {
        note(&mut tx.events, Event::HttpResponseLineInvalid);
    }
    if tx.status_number.is_none() {
        note(&mut tx.events, Event::HttpResponseStatusInvalid);
    }
    tx.response.line = text;
}

/// Sets how the body is decoded.
fn read_encoding(tx: &mut Tx, events: &mut Vec<Event>) {
    let Some(value) = tx.response.headers.get(b"content-encoding") else { return };
    let (decoder, noticed) = Decoder::new(value, tx.also);
    if noticed.too_many {
        events.push(Event::HttpTooManyEncodingLayers);
    }
    if noticed.abnormal {
        events.push(Event::HttpAbnormalContentEncoding);
    }
    tx.response.body.set_decoder(decoder);
}
