//! One transaction: a request, its response, and what rules ask of them.

use super::body::Body;
use super::decode::Also;
use super::header::Headers;
use super::multipart::parameter;
use crate::app::{Buffer, Event, Limits, Progress};
use crate::flow::Direction;
use std::cell::OnceCell;

/// Request or response.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) progress: Progress,
    /// The first line without its end.
    pub(super) line: Vec<u8>,
    /// `HTTP/1.1` as sent.
    pub(super) protocol: Vec<u8>,
    /// Minor version of HTTP/1; 0.9 is none.
    pub(super) version: Option<u8>,
    pub(super) headers: Headers,
    pub(super) body: Body,
    made: Made,
}

/// Buffers that are made when they are first asked for.
#[derive(Debug, Default)]
struct Made {
    header: OnceCell<Vec<u8>>,
    names: OnceCell<Vec<u8>>,
    each: OnceCell<Vec<Vec<u8>>>,
    start: OnceCell<Vec<u8>>,
}

/// One transaction.
#[derive(Debug, Default)]
pub(super) struct Tx {
    pub(super) request: Message,
    pub(super) response: Message,
    pub(super) method: Vec<u8>,
    /// URI as sent.
    pub(super) uri_raw: Vec<u8>,
    /// Normalised.
    pub(super) uri: Vec<u8>,
    /// Path alone, as the name of what is transferred.
    pub(super) path: Vec<u8>,
    /// Host of an absolute URI, then of the `Host` header.
    pub(super) host: Option<Vec<u8>>,
    pub(super) host_raw: Option<Vec<u8>>,
    pub(super) port: Option<u16>,
    /// Status as sent, and as a number when it is one of 100 to 999.
    pub(super) status: Vec<u8>,
    pub(super) status_number: Option<u16>,
    pub(super) reason: Vec<u8>,
    /// A request line without protocol, HTTP/0.9's.
    pub(super) short: bool,
    /// A `100 Continue` was there before the response.
    pub(super) continued: bool,
    pub(super) events: Vec<Event>,
    response_name: OnceCell<Vec<u8>>,
    /// Encodings that are decoded beside the usual ones.
    pub(super) also: Also,
}

impl Message {
    fn new(limit: usize) -> Message {
        Message { body: Body::new(limit), ..Message::default() }
    }

    /// Forgets what was made of headers, since there are more.
    pub(super) fn changed(&mut self) {
        self.made = Made::default();
    }

    fn start(&self) -> &[u8] {
        self.made.start.get_or_init(|| {
            let mut out = [&self.line[..], b"\r\n"].concat();
            for (name, value) in self.headers.all() {
                out.extend([name, b": ", value, b"\r\n"].concat());
            }
            if !self.headers.is_empty() {
                out.extend(b"\r\n");
            }
            out
        })
    }

    fn each(&self, index: usize) -> Option<&[u8]> {
        self.made.each.get_or_init(|| self.headers.each()).get(index).map(Vec::as_slice)
    }

    fn normalised(&self) -> Option<&[u8]> {
        let text = self.made.header.get_or_init(|| self.headers.normalised());
        (!self.headers.is_empty()).then_some(text.as_slice())
    }

    fn names(&self) -> Option<&[u8]> {
        let text = self.made.names.get_or_init(|| self.headers.names());
        (!self.headers.is_empty()).then_some(text.as_slice())
    }

    fn memory(&self) -> usize {
        self.line.capacity() + 3 * self.headers.memory() + self.body.memory()
    }
}

fn some(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text)
}

impl Tx {
    /// A new one.
    pub(super) fn new(limits: &Limits) -> Tx {
        Tx {
            request: Message::new(limits.request_body),
            response: Message::new(limits.response_body),
            also: Also { brotli: false, lzma: limits.lzma },
            ..Tx::default()
        }
    }

    /// Request or response.
    pub(super) fn message(&self, direction: Direction) -> &Message {
        match direction {
            Direction::ToServer => &self.request,
            Direction::ToClient => &self.response,
        }
    }

    /// Request or response.
    pub(super) fn message_mut(&mut self, direction: Direction) -> &mut Message {
        match direction {
            Direction::ToServer => &mut self.request,
            Direction::ToClient => &mut self.response,
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
        let message = self.message(direction);
        let needed = buffer.complete_at(direction)?;
        if needed < Progress::Body && message.progress < needed {
            return None;
        }
        match buffer {
            Buffer::FileData => self.file(direction, index).map(|(_, data)| data),
            Buffer::FileName => self.file(direction, index).map(|(name, _)| name),
            Buffer::HttpRequestHeader | Buffer::HttpResponseHeader => message.each(index),
            _ if index > 0 => None,
            Buffer::HttpRequestBody => Self::body(message, limits.request_least),
            Buffer::HttpResponseBody => Self::body(message, limits.response_least),
            Buffer::HttpUri => some(&self.uri),
            Buffer::HttpUriRaw => some(&self.uri_raw),
            Buffer::HttpMethod => some(&self.method),
            Buffer::HttpProtocol => some(&message.protocol),
            Buffer::HttpRequestLine | Buffer::HttpResponseLine => some(&message.line),
            Buffer::HttpStatCode => some(&self.status),
            Buffer::HttpStatMsg => some(&self.reason),
            Buffer::HttpHost => self.host.as_deref(),
            Buffer::HttpHostRaw => self.host_raw.as_deref(),
            Buffer::HttpHeader => message.normalised(),
            Buffer::HttpHeaderRaw => some(&message.headers.raw),
            Buffer::HttpHeaderNames => message.names(),
            Buffer::HttpStart => some(message.start()),
            _ => message.headers.get(header_name(buffer, direction)?).filter(|value| !value.is_empty()),
        }
    }

    /// A body that is complete, or so long that it is looked at before.
    fn body(message: &Message, least: usize) -> Option<&[u8]> {
        let body = &message.body;
        let now = message.progress >= Progress::Body || body.data.len() >= least || body.is_full();
        some(&body.data).filter(|_| now)
    }

    /// Name and content of a file that is transferred.
    fn file(&self, direction: Direction, index: usize) -> Option<(&[u8], &[u8])> {
        let message = self.message(direction);
        if let Some(form) = &message.body.form {
            return form.files.get(index).map(|file| (&file.name[..], &file.data[..]));
        }
        if index > 0 || message.body.data.is_empty() || !message.body.is_file {
            return None;
        }
        let name = match direction {
            Direction::ToServer => &self.path,
            Direction::ToClient => self.response_name.get_or_init(|| {
                let disposition = message.headers.get(b"content-disposition");
                let name = disposition.and_then(|value| parameter(value, b"filename"));
                name.map_or_else(|| self.path.clone(), <[u8]>::to_vec)
            }),
        };
        Some((name, &message.body.data))
    }

    /// Whether nothing of a file follows, and all of it was kept.
    pub(super) fn has_whole_file(&self, direction: Direction, index: usize) -> bool {
        let message = self.message(direction);
        let of_form = message.body.form.as_ref().and_then(|form| form.files.get(index));
        let done = of_form.map_or(message.progress >= Progress::Body, |file| file.done);
        done && !message.body.is_full()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        size_of::<Tx>()
            + self.request.memory()
            + self.response.memory()
            + 3 * self.uri_raw.capacity()
            + self.status.capacity()
            + self.reason.capacity()
    }
}

/// The header that a buffer is.
pub(super) fn header_name(buffer: Buffer, direction: Direction) -> Option<&'static [u8]> {
    Some(match buffer {
        Buffer::HttpUserAgent => b"user-agent",
        Buffer::HttpCookie if direction == Direction::ToClient => b"set-cookie",
        Buffer::HttpCookie => b"cookie",
        Buffer::HttpReferer => b"referer",
        Buffer::HttpAccept => b"accept",
        Buffer::HttpAcceptLang => b"accept-language",
        Buffer::HttpAcceptEnc => b"accept-encoding",
        Buffer::HttpConnection => b"connection",
        Buffer::HttpContentType => b"content-type",
        Buffer::HttpContentLen => b"content-length",
        Buffer::HttpServer => b"server",
        Buffer::HttpLocation => b"location",
        _ => return None,
    })
}
