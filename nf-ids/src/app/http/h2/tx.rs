//! One stream of HTTP/2, or one frame of the connection itself, as rules see it.

use super::hpack::Field;
use crate::app::dns;
use crate::app::http::body::Body;
use crate::app::{Buffer, Event, Limits, Number, Progress};
use crate::flow::Direction;
use serde_json::{Map, Value, json};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Numbers of frames that are kept of one direction.
const MOST_NUMBERS: usize = 64;
/// Fields that are kept of one side, over all its blocks.
const MOST_FIELDS: usize = 1024;
/// Bytes of them.
pub(super) const MOST_FIELD_BYTES: usize = 64 << 10;

/// What one side has sent.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) progress: Progress,
    pub(super) fields: Vec<Field>,
    /// Bytes of the fields.
    field_bytes: usize,
    pub(super) body: Body,
    /// A DNS message that the body or the path carries.
    pub(super) dns: Option<dns::Carried>,
    numbers: Vec<(Number, u64)>,
    made: Made,
}

/// Buffers that are made when they are first asked for.
#[derive(Debug, Default)]
struct Made {
    line: OnceCell<Vec<u8>>,
    header: OnceCell<Vec<u8>>,
    raw: OnceCell<Vec<u8>>,
    names: OnceCell<Vec<u8>>,
    each: OnceCell<Vec<Vec<u8>>>,
    host: OnceCell<Vec<u8>>,
    /// Values of headers that were sent several times, joined.
    joined: OnceCell<HashMap<Vec<u8>, Vec<u8>>>,
}

/// A transaction.
#[derive(Debug)]
pub(super) struct Tx {
    /// The stream; 0 is the connection.
    pub(super) stream: u32,
    /// The one direction of a frame of the connection.
    pub(super) only: Option<Direction>,
    pub(super) sides: [Side; 2],
    pub(super) events: Vec<Event>,
}

fn is_cookie(name: &[u8]) -> bool {
    matches!(name, b"cookie" | b"set-cookie")
}

impl Side {
    fn new(limit: usize) -> Side {
        Side { body: Body::new(limit), ..Side::default() }
    }

    /// Keeps a number of a frame.
    pub(super) fn number(&mut self, number: Number, value: u64) {
        if self.numbers.len() < MOST_NUMBERS {
            self.numbers.push((number, value));
        }
    }

    /// Keeps more fields, as many as there is room for, and forgets what was made of those before.
    pub(super) fn add(&mut self, fields: Vec<Field>) {
        for (name, value) in fields {
            self.field_bytes += name.len() + value.len();
            if self.fields.len() >= MOST_FIELDS || self.field_bytes > MOST_FIELD_BYTES {
                break;
            }
            self.fields.push((name, value));
        }
        self.made = Made::default();
    }

    /// The first value of a field.
    pub(super) fn first(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields.iter().find(|(one, _)| one == name).map(|(_, value)| &value[..])
    }

    /// A field's value; of several, all with commas.
    fn value(&self, name: &[u8]) -> Option<&[u8]> {
        let joined = self.made.joined.get_or_init(|| {
            let mut joined: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
            for (name, value) in &self.fields {
                match joined.entry(name.clone()) {
                    Entry::Occupied(mut all) => {
                        all.get_mut().extend_from_slice(b", ");
                        all.get_mut().extend_from_slice(value);
                    }
                    Entry::Vacant(place) => {
                        place.insert(value.clone());
                    }
                }
            }
            joined
        });
        joined.get(name).map(Vec::as_slice)
    }

    /// `name: value\r\n` of each field.
    fn header(&self, cookies: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in self.fields.iter().filter(|(name, _)| cookies || !is_cookie(name)) {
            out.extend([&name[..], b": ", value, b"\r\n"].concat());
        }
        out
    }

    fn names(&self) -> Vec<u8> {
        let mut out = b"\r\n".to_vec();
        for (name, _) in &self.fields {
            out.extend([&name[..], b"\r\n"].concat());
        }
        out.extend(b"\r\n");
        out
    }

    /// The host without port, user and password, in lower case.
    fn host(&self) -> Option<&[u8]> {
        let raw = self.raw_host()?;
        Some(self.made.host.get_or_init(|| {
            let (host, _) = crate::app::http::uri::host_and_port(raw);
            host.to_ascii_lowercase()
        }))
    }

    fn raw_host(&self) -> Option<&[u8]> {
        self.first(b":authority").or_else(|| self.first(b"host"))
    }

    fn line(&self, direction: Direction) -> &[u8] {
        self.made.line.get_or_init(|| {
            let part = |name| self.first(name).unwrap_or_default();
            match direction {
                Direction::ToServer => [part(b":method"), b" ", part(b":path"), b" HTTP/2\r\n"].concat(),
                Direction::ToClient => [b"HTTP/2 ", part(b":status"), b"\r\n"].concat(),
            }
        })
    }

    fn body(&self, least: usize) -> Option<&[u8]> {
        let data = &self.body.data;
        let now = self.progress >= Progress::Body || data.len() >= least || self.body.is_full();
        Some(&data[..]).filter(|data| now && !data.is_empty())
    }

    fn memory(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        let dns = self.dns.as_ref().map_or(0, dns::Carried::memory);
        3 * fields + self.body.memory() + self.numbers.capacity() * 16 + dns
    }
}

/// The header that a buffer is.
fn header_name(buffer: Buffer, direction: Direction) -> Option<&'static [u8]> {
    Some(match buffer {
        Buffer::HttpMethod => b":method",
        Buffer::HttpUri | Buffer::HttpUriRaw => b":path",
        Buffer::HttpStatCode => b":status",
        _ => return crate::app::http::tx::header_name(buffer, direction),
    })
}

impl Tx {
    /// Of a stream, or of a frame of the connection in one direction.
    pub(super) fn new(stream: u32, only: Option<Direction>, limits: &Limits) -> Tx {
        let mut tx = Tx {
            stream,
            only,
            sides: [Side::new(limits.request_body), Side::new(limits.response_body)],
            events: Vec::new(),
        };
        if only.is_some() {
            tx.complete();
        }
        tx
    }

    /// Nothing more comes.
    pub(super) fn complete(&mut self) {
        for side in &mut self.sides {
            side.progress = Progress::Complete;
        }
    }

    /// A buffer.
    pub(super) fn buffer(
        &self,
        buffer: Buffer,
        direction: Direction,
        index: usize,
        limits: &Limits,
    ) -> Option<&[u8]> {
        let side = &self.sides[direction.index()];
        let needed = buffer.complete_at(direction)?;
        if let Some(name) = side.dns.as_ref().and_then(|dns| dns.name(buffer, index)) {
            return Some(name).filter(|_| side.progress >= needed);
        }
        // There is no line: what HTTP/1 has in it stands among the fields.
        if needed < Progress::Body && side.progress < needed.max(Progress::Headers) {
            return None;
        }
        let some = |text: &'_ [u8]| -> bool { !text.is_empty() };
        match buffer {
            Buffer::HttpRequestHeader | Buffer::HttpResponseHeader => {
                let each = side.made.each.get_or_init(|| {
                    side.fields.iter().map(|(name, value)| [&name[..], b": ", value].concat()).collect()
                });
                each.get(index).map(Vec::as_slice)
            }
            Buffer::Http2HeaderName => side.fields.get(index).map(|(name, _)| &name[..]),
            _ if index > 0 => None,
            _ if side.fields.is_empty() && buffer != Buffer::FileData => None,
            Buffer::FileData => Some(&side.body.data[..]).filter(|data| some(data)),
            Buffer::FileName => self.sides[0].first(b":path").filter(|_| !side.body.data.is_empty()),
            Buffer::HttpRequestBody => side.body(limits.request_least),
            Buffer::HttpResponseBody => side.body(limits.response_least),
            Buffer::HttpRequestLine | Buffer::HttpResponseLine => Some(side.line(direction)),
            Buffer::HttpProtocol => Some(b"HTTP/2"),
            Buffer::HttpHost => side.host(),
            Buffer::HttpHostRaw => side.raw_host(),
            Buffer::HttpHeader => Some(&side.made.header.get_or_init(|| side.header(false))[..]),
            Buffer::HttpHeaderRaw => Some(&side.made.raw.get_or_init(|| side.header(true))[..]),
            Buffer::HttpHeaderNames => Some(&side.made.names.get_or_init(|| side.names())[..]),
            _ => side.value(header_name(buffer, direction)?).filter(|value| some(value)),
        }
    }

    /// A number.
    pub(super) fn number(&self, number: Number, direction: Direction, index: usize) -> Option<u64> {
        let side = &self.sides[direction.index()];
        if let Some(dns) = &side.dns
            && let Some(value) = dns.number(number, index)
        {
            return Some(value);
        }
        side.numbers.iter().filter(|(one, _)| *one == number).nth(index).map(|(_, value)| *value)
    }

    /// EVE's fields.
    pub(super) fn describe(&self) -> Map<String, Value> {
        let text = |bytes: &[u8]| Value::String(crate::app::text::readable(bytes));
        let [request, response] = &self.sides;
        let mut fields = Map::new();
        let list = |side: &Side| -> Value {
            side.fields
                .iter()
                .map(|(name, value)| json!({"name": text(name), "value": text(value)}))
                .collect()
        };
        fields.insert("version".into(), "2".into());
        for (name, side) in [("request_headers", request), ("response_headers", response)] {
            if !side.fields.is_empty() {
                fields.insert(name.into(), list(side));
            }
        }
        let mut set = |name: &str, value: Option<&[u8]>| {
            if let Some(value) = value {
                fields.insert(name.into(), text(value));
            }
        };
        set("http_method", request.first(b":method"));
        set("url", request.first(b":path"));
        set("hostname", request.raw_host());
        set("http_user_agent", request.first(b"user-agent"));
        set("http_content_type", response.first(b"content-type"));
        let status = response.first(b":status").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        if let Some(status) = status {
            let status: u16 = status;
            fields.insert("status".into(), status.into());
        }
        if !response.fields.is_empty() {
            fields.insert("length".into(), response.body.received.into());
        }
        fields.insert("http2".into(), json!({"stream_id": self.stream}));
        for dns in self.sides.iter().filter_map(|side| side.dns.as_ref()) {
            fields.insert("dns".into(), dns.describe().into());
        }
        fields
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        size_of::<Tx>() + self.sides.iter().map(Side::memory).sum::<usize>()
    }
}
