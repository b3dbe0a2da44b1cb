//! Requests.

use super::chunk::{self, Length};
use super::decode::Decoder;
use super::multipart::Multipart;
use super::{Http, MOST_LINE, Place, Take, line, note, side, uri};
use crate::app::{Event, Progress};
use crate::flow::Direction;

const REQUEST: Direction = Direction::ToServer;
/// Methods that, after a complete request, begin the next one.
const METHODS: &[&[u8]] = &[
    b"HEAD",
    b"GET",
    b"PUT",
    b"POST",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"VERSION-CONTROL",
    b"CHECKOUT",
    b"UNCHECKOUT",
    b"CHECKIN",
    b"UPDATE",
    b"LABEL",
    b"REPORT",
    b"MKWORKSPACE",
    b"MKACTIVITY",
    b"BASELINE-CONTROL",
    b"MERGE",
    b"INVALID",
];

/// Whether what follows a request line looks like a line of headers, so that only the protocol was forgotten.
fn looks_like_header(text: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b'\n', text) else { return false };
    let line = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
    line.first().is_some_and(u8::is_ascii_alphanumeric)
        && line.iter().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'))
        && !METHODS.iter().any(|method| line.strip_prefix(*method).is_some_and(|rest| rest.starts_with(b" ")))
}

/// Minor version of a protocol, `HTTP/1.x`; `None` of any other word.
pub(super) fn version(protocol: &[u8]) -> Option<u8> {
    let rest =
        protocol.get(..5).filter(|word| word.eq_ignore_ascii_case(b"http/")).map(|_| &protocol[5..])?;
    match rest {
        b"1.1" => Some(1),
        b"1.0" => Some(0),
        _ => None,
    }
}

impl Http {
    /// One step of reading requests.
    pub(super) fn request(&mut self, place: Place, input: &[u8], closed: bool) -> Take {
        match place {
            Place::Line => self.request_line(input, closed),
            Place::Headers | Place::Trailer => self.request_headers(input, closed),
            Place::ChunkLength => self.request_chunk(input, closed),
            Place::Rest => self.request_rest(input),
            Place::Connect => Take::More,
            _ => self.body_step(REQUEST, place, input),
        }
    }

    fn request_line(&mut self, input: &[u8], closed: bool) -> Take {
        let Some(found) = line::by_lf(input, closed) else {
            return if input.len() > MOST_LINE { self.request_too_long() } else { Take::More };
        };
        if line::ends_headers(&input[..found.whole], true) {
            return Take::Bytes(found.whole);
        }
        if found.whole > MOST_LINE {
            return self.request_too_long();
        }
        let id = self.create();
        self.sides[side(REQUEST)].tx = Some(id);
        let text = &input[..found.text];
        let Some(tx) = self.tx_mut(id) else { return self.die(REQUEST) };
        tx.request.line = text.to_vec();
        if found.whole == found.text {
            note(&mut tx.events, Event::HttpRequestLineIncomplete);
        }
        read_line(tx, text);
        tx.request.progress = Progress::Line;
        if tx.short {
            let rest = &input[found.whole..];
            if looks_like_header(rest) {
                tx.short = false;
                note(&mut tx.events, Event::HttpRequestLineMissingProtocol);
            } else {
                self.sides[side(REQUEST)].place = Place::Rest;
                return Take::Bytes(found.whole);
            }
        }
        self.sides[side(REQUEST)].place = Place::Headers;
        Take::Bytes(found.whole)
    }

    fn request_too_long(&mut self) -> Take {
        if self.sides[side(REQUEST)].tx.is_none() {
            let id = self.create();
            self.sides[side(REQUEST)].tx = Some(id);
        }
        self.note(REQUEST, Event::HttpRequestFieldTooLong);
        self.die(REQUEST)
    }

    fn request_headers(&mut self, input: &[u8], closed: bool) -> Take {
        let Some(found) = line::by_lf(input, closed) else {
            return if input.len() > MOST_LINE { self.request_too_long() } else { Take::More };
        };
        let whole = &input[..found.whole];
        if matches!(whole, [b' ' | b'\t', b'\n']) && input.len() == found.whole && !closed {
            return Take::More;
        }
        if found.whole > MOST_LINE || !self.raw_header(REQUEST, whole) {
            return self.request_too_long();
        }
        if line::ends_headers(whole, input.get(found.whole) == Some(&b'\n')) {
            self.flush_header(REQUEST);
            if self.sides[side(REQUEST)].place == Place::Trailer {
                self.sides[side(REQUEST)].place = Place::Rest;
            } else {
                self.request_body();
            }
            return Take::Bytes(found.whole);
        }
        let text = &input[..found.text];
        if line::is_folded(text) && self.sides[side(REQUEST)].header.is_some() {
            if let Some(header) = &mut self.sides[side(REQUEST)].header {
                header.extend_from_slice(text);
            }
        } else {
            if line::is_folded(text) {
                self.note(REQUEST, Event::HttpInvalidRequestFolding);
            }
            self.flush_header(REQUEST);
            if !text.is_empty() {
                self.sides[side(REQUEST)].header = Some(line::trim(text).to_vec());
            }
        }
        Take::Bytes(found.whole)
    }

    /// The headers are there: is there a body, and where does it end?
    fn request_body(&mut self) {
        let port = self.port;
        let Some(tx) = self.current(REQUEST) else { return };
        tx.request.progress = Progress::Headers;
        let headers = &tx.request.headers;
        let mut events = Vec::new();
        if headers.too_many {
            events.push(Event::HttpRequestTooManyHeaders);
        }
        let place = if let Some(coding) = headers.get(b"transfer-encoding") {
            if coding.eq_ignore_ascii_case(b"chunked") {
                Place::ChunkLength
            } else {
                events.push(Event::HttpInvalidRequestTransferEncoding);
                Place::Rest
            }
        } else if let Some(value) = headers.get(b"content-length") {
            match chunk::content_length(value) {
                Some(0) => Place::Rest,
                Some(length) => Place::Length(length),
                None => {
                    events.push(Event::HttpInvalidRequestContentLength);
                    Place::Rest
                }
            }
        } else {
            Place::Rest
        };
        if let Some(word) = headers.get(b"authorization") {
            let known: &[&[u8]] = &[b"basic ", b"digest ", b"bearer "];
            let is = |kind: &&[u8]| word.get(..kind.len()).is_some_and(|w| w.eq_ignore_ascii_case(kind));
            if !known.iter().any(is) {
                events.push(Event::HttpRequestAuthUnrecognized);
            }
        }
        let encoding = headers.get(b"content-encoding").map(|value| Decoder::new(value, tx.also));
        let kind = headers.get(b"content-type").unwrap_or_default().to_vec();
        if let Some((decoder, noticed)) = encoding {
            if noticed.too_many {
                events.push(Event::HttpTooManyEncodingLayers);
            }
            tx.request.body.set_decoder(decoder);
        }
        let uploads = matches!(&tx.method[..], b"POST" | b"PUT");
        if tx.method == b"POST" {
            tx.request.body.form = Multipart::new(&kind);
        }
        tx.request.body.is_file = uploads;
        read_host(tx, &mut events);
        if tx.port.is_some_and(|named| named != port) {
            events.push(Event::HttpPortMismatch);
        }
        for event in events {
            note(&mut tx.events, event);
        }
        let connect = tx.method == b"CONNECT";
        if connect {
            tx.request.progress = Progress::Complete;
        }
        self.sides[side(REQUEST)].place = if connect { Place::Connect } else { place };
    }

    fn request_chunk(&mut self, input: &[u8], closed: bool) -> Take {
        let Some(found) = line::by_lf(input, closed) else {
            let good = chunk::plausible(input) && input.len() <= MOST_LINE;
            return if good { Take::More } else { self.request_bad_chunk() };
        };
        match chunk::length(&input[..found.whole]) {
            Length::Empty => Take::Bytes(found.whole),
            Length::Invalid => self.request_bad_chunk(),
            Length::Is(length, extension) => {
                if extension {
                    self.note(REQUEST, Event::HttpRequestChunkExtension);
                }
                if length == 0
                    && let Some(tx) = self.current(REQUEST)
                {
                    tx.request.progress = Progress::Body;
                }
                self.sides[side(REQUEST)].place =
                    if length > 0 { Place::ChunkData(length) } else { Place::Trailer };
                Take::Bytes(found.whole)
            }
        }
    }

    fn request_bad_chunk(&mut self) -> Take {
        self.note(REQUEST, Event::HttpInvalidRequestChunkLen);
        self.die(REQUEST)
    }

    /// What follows a complete request: the next one when it begins with a method, else still its body.
    fn request_rest(&mut self, input: &[u8]) -> Take {
        let end = memchr::memchr(b'\n', input).map_or(input.len(), |at| at + 1);
        let text = line::trim(&input[..end]);
        let word = text.split(|byte| line::is_space(*byte)).next().unwrap_or_default();
        let method =
            METHODS.contains(&word) || (!word.is_empty() && METHODS.iter().any(|m| m.starts_with(word)));
        if method || text.is_empty() {
            self.complete(REQUEST);
            return Take::Bytes(if text.is_empty() { end } else { 0 });
        }
        self.note(REQUEST, Event::HttpRequestBodyUnexpected);
        self.body(REQUEST, &input[..end]);
        Take::Bytes(end)
    }
}

/// Reads a request line.
fn read_line(tx: &mut super::tx::Tx, text: &[u8]) {
    let start = text.iter().position(|byte| !line::is_space(*byte)).unwrap_or(text.len());
    if start > 0 {
        note(&mut tx.events, Event::HttpRequestLineLeadingWhitespace);
    }
    let text = &text[start..];
    let end = text.iter().position(|byte| line::is_space(*byte)).unwrap_or(text.len());
    tx.method = text[..end].to_vec();
    let rest = &text[end..];
    let gap = rest.iter().take_while(|byte| line::is_space(**byte)).count();
    if rest[..gap].iter().any(|byte| *byte != b' ') {
        note(&mut tx.events, Event::HttpMethodDelimNonCompliant);
    }
    let rest = &rest[gap..];
    // The URI may hold blanks; the protocol is the last word then, when it looks like one.
    let trimmed = &rest[..rest.iter().rposition(|byte| !line::is_space(*byte)).map_or(0, |at| at + 1)];
    let last = trimmed.iter().rposition(|byte| line::is_space(*byte));
    let (raw, protocol) = match last {
        Some(at) if trimmed.get(at + 1..at + 6).is_some_and(|word| word.eq_ignore_ascii_case(b"http/")) => {
            let raw =
                &trimmed[..trimmed[..at].iter().rposition(|b| !line::is_space(*b)).map_or(0, |at| at + 1)];
            (raw, &trimmed[at + 1..])
        }
        _ => {
            let end = trimmed.iter().position(|byte| *byte == b' ').unwrap_or(trimmed.len());
            (&trimmed[..end], line::trim(&trimmed[end..]))
        }
    };
    if raw.iter().any(|byte| line::is_space(*byte)) {
        note(&mut tx.events, Event::HttpUriDelimNonCompliant);
    }
    tx.request.protocol = protocol.to_vec();
    tx.request.version = version(protocol);
    tx.short = protocol.is_empty();
    tx.uri_raw = raw.to_vec();
    if tx.method == b"CONNECT" {
        let (host, port) = uri::host_and_port(raw);
        tx.uri = raw.to_vec();
        set_host(tx, host, port);
        return;
    }
    let parts = uri::parse(raw);
    tx.uri = uri::normalise(&parts);
    uri::decode(parts.path, &mut tx.path);
    if let Some(host) = parts.host {
        set_host(tx, host, parts.port);
        if !is_host(host) || (parts.port.is_some() && tx.port.is_none()) {
            note(&mut tx.events, Event::HttpUriHostInvalid);
        }
    }
}

fn set_host(tx: &mut super::tx::Tx, host: &[u8], port: Option<&[u8]>) {
    let dots = host.iter().rev().take_while(|byte| **byte == b'.').count();
    let name = &host[..host.len() - dots];
    tx.host = Some(name.to_ascii_lowercase());
    tx.host_raw = Some(host.to_vec());
    if let Some(port) = port {
        tx.port = std::str::from_utf8(port).ok().and_then(|text| text.trim().parse().ok());
        if tx.port.is_none() {
            note(&mut tx.events, Event::HttpInvalidServerPort);
        }
    }
}

/// Whether this can be a host's name: an address in brackets, or labels of letters, digits, `-` and `_`.
fn is_host(name: &[u8]) -> bool {
    if let Some(address) = name.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
        return std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let good = |label: &[u8]| {
        label.len() <= 63 && label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
    };
    let empty = name.is_empty() || name.len() > 255 || name.starts_with(b".");
    !empty && memchr::memmem::find(name, b"..").is_none() && name.split(|byte| *byte == b'.').all(good)
}

/// The host: of the URI, else of the header.
fn read_host(tx: &mut super::tx::Tx, events: &mut Vec<Event>) {
    let header = tx.request.headers.get(b"host").map(<[u8]>::to_vec);
    match (header, tx.host.clone()) {
        (Some(text), known) => {
            let (host, port) = uri::host_and_port(&text);
            match known {
                None => {
                    set_host(tx, host, port);
                    if !is_host(host) || (port.is_some() && tx.port.is_none()) {
                        events.push(Event::HttpHeaderHostInvalid);
                    }
                    tx.host_raw = Some(text);
                }
                Some(known) if !known.eq_ignore_ascii_case(host) => events.push(Event::HttpHostAmbiguous),
                Some(_) => {}
            }
        }
        (None, _) if tx.request.version == Some(1) => events.push(Event::HttpMissingHost),
        _ => {}
    }
}
