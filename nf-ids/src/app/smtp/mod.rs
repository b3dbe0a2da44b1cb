//! SMTP (RFC 5321): a mail with its envelope is a transaction.
//!
//! # States of the client's side
//! `Command` ─DATA─▶ `Data` ─"."─▶ `Command`; `Command` ─BDAT n─▶ `Chunk(n)` ─▶ `Command`. A refusal of DATA before any of it
//! came leads back to `Command`. After STARTTLS was granted all is TLS.

mod mime;

use super::store::{Pending, Reader, Store};
use super::{Buffer, Event, Progress, Protocol, Step, side};
use crate::flow::Direction;
use mime::{Found, Mail};

const CLIENT: Direction = Direction::ToServer;
/// Longest command line, and longest line of mail that is looked at whole.
const MOST_LINE: usize = 4096;
/// Bytes of an attachment that are kept.
const MOST_FILE: usize = 100 << 10;
/// Addresses of web pages that are kept of a mail.
const MOST_URLS: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Command,
    Data,
    Chunk(usize, bool),
}

/// Reads commands, replies and mails.
#[derive(Debug, Default)]
pub(super) struct Smtp {
    pending: [Pending; 2],
    place: Place,
    /// The transaction of the mail that is being sent.
    tx: Option<u64>,
    helo: Vec<u8>,
    mail: Mail,
    files: usize,
    urls: usize,
    fresh: bool,
    wants_tls: bool,
    long: bool,
}

/// Which buffer a header of a mail is.
fn header_buffer(name: &[u8]) -> Option<Buffer> {
    Some(match name {
        b"from" => Buffer::EmailFrom,
        b"to" => Buffer::EmailTo,
        b"cc" => Buffer::EmailCc,
        b"subject" => Buffer::EmailSubject,
        b"date" => Buffer::EmailDate,
        b"message-id" => Buffer::EmailMessageId,
        b"x-mailer" => Buffer::EmailXMailer,
        b"received" => Buffer::EmailReceived,
        _ => return None,
    })
}

impl Smtp {
    /// The current transaction.
    fn current(&mut self, store: &mut Store) -> u64 {
        if let Some(id) = self.tx {
            return id;
        }
        let id = store.create(None);
        self.tx = Some(id);
        if !self.helo.is_empty() {
            store.put(id, Buffer::SmtpHelo, CLIENT, &self.helo);
            store.text(id, "helo", &self.helo);
        }
        id
    }

    fn finish(&mut self, store: &mut Store) {
        if let Some(id) = self.tx.take() {
            store.complete(id);
        }
        self.mail = Mail::default();
        (self.files, self.urls) = (0, 0);
        self.place = Place::Command;
    }

    fn command(&mut self, store: &mut Store, line: &[u8]) {
        let word = line.split(|byte| *byte == b' ').next().unwrap_or_default().to_ascii_uppercase();
        let rest = line.get(word.len()..).unwrap_or_default().trim_ascii();
        match &word[..] {
            b"HELO" | b"EHLO" => {
                let first = self.helo.is_empty();
                self.helo = rest.to_vec();
                let known = self.tx.is_some();
                let id = self.current(store);
                if first && known {
                    store.put(id, Buffer::SmtpHelo, CLIENT, rest);
                }
                store.reach(id, CLIENT, Progress::Line);
            }
            b"DATA" => {
                self.current(store);
                (self.place, self.fresh) = (Place::Data, true);
            }
            b"BDAT" => {
                let mut words = rest.split(|byte| *byte == b' ');
                let length = words.next().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
                let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"LAST"));
                self.current(store);
                self.place = Place::Chunk(length.unwrap_or(0), last);
                if length == Some(0) {
                    self.end_chunk(store, last);
                }
            }
            b"RSET" => self.finish(store),
            b"STARTTLS" => self.wants_tls = true,
            b"QUIT" => {}
            _ => {
                let id = self.current(store);
                let after = |prefix: &[u8]| {
                    let start = line.get(..prefix.len())?;
                    start.eq_ignore_ascii_case(prefix).then(|| line[prefix.len()..].trim_ascii())
                };
                if let Some(address) = after(b"MAIL FROM:") {
                    store.put(id, Buffer::SmtpMailFrom, CLIENT, address);
                    store.text(id, "mail_from", address);
                } else if let Some(address) = after(b"RCPT TO:") {
                    store.put(id, Buffer::SmtpRcptTo, CLIENT, address);
                }
                store.reach(id, CLIENT, Progress::Line);
            }
        }
    }

    fn end_chunk(&mut self, store: &mut Store, last: bool) {
        if last {
            self.finish(store);
        } else {
            self.place = Place::Command;
        }
    }

    /// A line of a mail.
    fn mail_line(&mut self, store: &mut Store, line: &[u8], end: &[u8]) {
        let id = self.current(store);
        let mut found = Vec::new();
        self.mail.line(line, end, &mut found);
        for one in found {
            match one {
                Found::Header(name, value) => {
                    if let Some(buffer) = header_buffer(&name) {
                        store.put(id, buffer, CLIENT, &value);
                    }
                }
                Found::HeadersEnd => store.reach(id, CLIENT, Progress::Headers),
                Found::File(name) => {
                    self.files += 1;
                    store.put(id, Buffer::FileName, CLIENT, &name);
                    store.put(id, Buffer::FileData, CLIENT, b"");
                }
                Found::Content(bytes) => store.extend(id, Buffer::FileData, CLIENT, &bytes, MOST_FILE),
                Found::Text(bytes) => self.urls(store, id, &bytes),
                Found::Wrong(event) => store.event(id, event),
            }
        }
    }

    /// Keeps the addresses of web pages in a line of text, without their scheme.
    fn urls(&mut self, store: &mut Store, id: u64, text: &[u8]) {
        let mut rest = text;
        while let Some(at) = memchr::memmem::find(rest, b"://") {
            let scheme = &rest[..at];
            let known = [&b"http"[..], b"https", b"ftp"].iter().any(|word| scheme.ends_with(word));
            rest = &rest[at + 3..];
            let stop = |byte: &u8| byte.is_ascii_whitespace() || b"\"'<>()[]".contains(byte);
            let end = rest.iter().position(stop).unwrap_or(rest.len());
            if known && end > 0 && self.urls < MOST_URLS {
                self.urls += 1;
                store.put(id, Buffer::EmailUrl, CLIENT, &rest[..end]);
            }
        }
    }

    /// One line of the client's. Bytes used; none: more are needed.
    fn client(&mut self, store: &mut Store, input: &[u8]) -> Option<usize> {
        let found = memchr::memchr(b'\n', input);
        if let Place::Chunk(left, last) = self.place {
            let here = found.map_or(input.len(), |at| at + 1).min(left);
            if found.is_none() && here < left && here < MOST_LINE {
                return None;
            }
            let (line, end) = split_end(&input[..here]);
            self.mail_line(store, line, end);
            self.place = Place::Chunk(left - here, last);
            if left == here {
                self.end_chunk(store, last);
            }
            return Some(here);
        }
        let used = match found {
            Some(at) => at + 1,
            None if input.len() > MOST_LINE => input.len(),
            None => return None,
        };
        let (line, end) = split_end(&input[..used]);
        let continued = std::mem::replace(&mut self.long, found.is_none());
        match self.place {
            Place::Data => {
                self.fresh = false;
                if line == b"." && !continued {
                    self.finish(store);
                } else {
                    self.mail_line(store, line.strip_prefix(b".").unwrap_or(line), end);
                }
            }
            _ if continued => {}
            _ => {
                if line.len() > MOST_LINE {
                    let id = self.current(store);
                    store.event(id, Event::SmtpMaxCommandLine);
                }
                self.command(store, &line[..line.len().min(MOST_LINE)]);
            }
        }
        Some(used)
    }

    /// A line of the server's. Whether TLS follows.
    fn reply(&mut self, line: &[u8]) -> bool {
        if line.get(3) == Some(&b'-') {
            return false;
        }
        let refused = matches!(line.first(), Some(b'4' | b'5'));
        if self.place == Place::Data && self.fresh && refused {
            self.place = Place::Command;
        }
        std::mem::take(&mut self.wants_tls) && line.starts_with(b"220")
    }
}

/// A line and the bytes that end it.
fn split_end(line: &[u8]) -> (&[u8], &[u8]) {
    let length =
        line.strip_suffix(b"\n").map_or(line.len(), |text| text.strip_suffix(b"\r").unwrap_or(text).len());
    line.split_at(length)
}

impl Reader for Smtp {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        let all = self.pending[at].with(bytes);
        let mut rest = &all[..];
        while !rest.is_empty() {
            if direction == CLIENT {
                match self.client(store, rest) {
                    Some(used) => rest = &rest[used..],
                    None => break,
                }
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', rest) else {
                if rest.len() > MOST_LINE {
                    rest = &[];
                }
                break;
            };
            let tls = self.reply(&rest[..end]);
            rest = &rest[end + 1..];
            if tls {
                self.finish(store);
                return Step::Change(Some(Protocol::Tls), rest.len());
            }
        }
        let rest = rest.len();
        self.pending[at].keep(all, rest);
        Step::Go
    }

    fn gap(&mut self, _: &mut Store, direction: Direction, _: usize) -> bool {
        self.pending[side(direction)] = Pending::default();
        true
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Pending::memory).sum::<usize>() + self.mail.memory()
    }
}
