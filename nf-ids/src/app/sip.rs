//! SIP (RFC 3261), each message a transaction.

use super::store::{Pending, Reader, Store};
use super::{Buffer, Event, Progress, Step, side};
use crate::flow::Direction;

/// Longest header part.
const MOST_HEADER: usize = 64 << 10;

/// Reads messages.
#[derive(Debug)]
pub(super) struct Sip {
    udp: bool,
    pending: [Pending; 2],
    /// Bytes of the current body still to come, over TCP.
    body: [usize; 2],
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// The buffer of a header, by its name or its short form (RFC 3261, section 7.3.3).
fn buffer_of(name: &[u8]) -> Option<Buffer> {
    Some(match &name.to_ascii_lowercase()[..] {
        b"from" | b"f" => Buffer::SipFrom,
        b"to" | b"t" => Buffer::SipTo,
        b"via" | b"v" => Buffer::SipVia,
        b"user-agent" => Buffer::SipUserAgent,
        b"content-type" | b"c" => Buffer::SipContentType,
        b"content-length" | b"l" => Buffer::SipContentLength,
        _ => return None,
    })
}

impl Sip {
    /// Over UDP or TCP.
    pub(super) fn new(udp: bool) -> Sip {
        Sip { udp, pending: Default::default(), body: [0; 2] }
    }

    /// One message's first line and headers. The length of its body.
    fn message(store: &mut Store, direction: Direction, head: &[u8]) -> usize {
        let id = store.create(Some(direction));
        let mut lines =
            head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = lines.next().unwrap_or_default();
        let mut words = first.splitn(3, |byte| *byte == b' ');
        let (one, two) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let three = words.next().unwrap_or_default();
        let response = one.starts_with(b"SIP/");
        if response != (direction == Direction::ToClient) || two.is_empty() {
            store.event(id, Event::SipInvalidData);
            store.complete(id);
            return 0;
        }
        if response {
            store.put(id, Buffer::SipProtocol, direction, one);
            store.put(id, Buffer::SipStatCode, direction, two);
            store.put(id, Buffer::SipStatMsg, direction, three);
            store.put(id, Buffer::SipResponseLine, direction, first);
            store.text(id, "code", two);
            store.text(id, "reason", three);
            store.text(id, "version", one);
            store.text(id, "response_line", first);
        } else {
            store.put(id, Buffer::SipMethod, direction, one);
            store.put(id, Buffer::SipUri, direction, two);
            store.put(id, Buffer::SipProtocol, direction, three);
            store.put(id, Buffer::SipRequestLine, direction, first);
            store.text(id, "method", one);
            store.text(id, "uri", two);
            store.text(id, "version", three);
            store.text(id, "request_line", first);
        }
        let mut length = 0;
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = memchr::memchr(b':', line) else {
                store.event(id, Event::SipInvalidData);
                continue;
            };
            let (name, value) = (trim(&line[..colon]), trim(&line[colon + 1..]));
            if let Some(buffer) = buffer_of(name) {
                store.put(id, buffer, direction, value);
                if buffer == Buffer::SipContentLength {
                    length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                }
            }
        }
        store.reach(id, direction, Progress::Complete);
        length
    }
}

/// Length of the headers with the empty line after them.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let long = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4);
    let short = memchr::memmem::find(bytes, b"\n\n").map(|at| at + 2);
    long.into_iter().chain(short).min()
}

impl Reader for Sip {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        if self.udp {
            // Blank datagrams keep mappings of address translators alive.
            if !trim(bytes).is_empty() {
                Sip::message(store, direction, &bytes[..head_length(bytes).unwrap_or(bytes.len())]);
            }
            return Step::Go;
        }
        let at = side(direction);
        let all = self.pending[at].with(bytes);
        let mut rest = &all[..];
        loop {
            let body = self.body[at].min(rest.len());
            self.body[at] -= body;
            rest = &rest[body..];
            let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            rest = &rest[blank..];
            if rest.is_empty() {
                break;
            }
            let Some(head) = head_length(rest) else {
                if rest.len() > MOST_HEADER {
                    return Step::Stop;
                }
                break;
            };
            self.body[at] = Sip::message(store, direction, &rest[..head]);
            rest = &rest[head..];
        }
        let rest = rest.len();
        self.pending[at].keep(all, rest);
        Step::Go
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Pending::memory).sum()
    }
}
