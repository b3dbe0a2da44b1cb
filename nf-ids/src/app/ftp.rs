//! FTP's control connection (RFC 959): a command and its replies are a transaction.

use super::store::{Pending, Reader, Store};
use super::{Buffer, Event, Progress, Protocol, Step, Transfer, side};
use crate::flow::Direction;

/// Longest line that is kept; the rest of a longer one is passed over.
const MOST_LINE: usize = 4096;
/// Commands without a final reply that may wait.
const MOST_OPEN: usize = 1024;

/// Reads commands and replies.
#[derive(Debug, Default)]
pub(super) struct Ftp {
    pending: [Pending; 2],
    /// The rest of a line that was too long is passed over.
    long: [bool; 2],
    /// Code of a reply of several lines that is not finished.
    several: Option<[u8; 3]>,
    open: usize,
    /// `AUTH TLS` was sent.
    wants_tls: bool,
    /// Port that the next file goes to, said by either side.
    port: Option<u16>,
    /// A file that was asked for, until the engine knows of it.
    announced: Option<Transfer>,
}

/// A host and port as PORT and PASV write them: the host.
pub(crate) fn named_host(text: &[u8]) -> Option<[u8; 4]> {
    let parts = six_numbers(text)?;
    let mut host = [0; 4];
    for (place, number) in host.iter_mut().zip(parts) {
        *place = u8::try_from(number).ok()?;
    }
    Some(host)
}

/// The same: the port.
fn dynamic_port(text: &[u8]) -> Option<u16> {
    six_numbers(text).map(|parts| parts[4] << 8 | parts[5])
}

fn six_numbers(text: &[u8]) -> Option<[u16; 6]> {
    let start = text.iter().position(u8::is_ascii_digit)?;
    let text = &text[start..];
    let end = text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b',').unwrap_or(text.len());
    let parts: Vec<u16> = std::str::from_utf8(&text[..end])
        .ok()?
        .split(',')
        .map(|part| part.parse().ok().filter(|number| *number < 256))
        .collect::<Option<_>>()?;
    parts.try_into().ok()
}

impl Ftp {
    fn command(&mut self, store: &mut Store, line: &[u8], long: bool) {
        let id = store.create(None);
        self.open += 1;
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (command, data) = (&line[..end], line[end..].trim_ascii());
        let way = Direction::ToServer;
        store.put(id, Buffer::FtpCommand, way, command);
        store.text(id, "command", command);
        if !data.is_empty() {
            store.put(id, Buffer::FtpCommandData, way, data);
            store.text(id, "command_data", data);
        }
        let is = |word: &[u8]| command.eq_ignore_ascii_case(word);
        let port = match () {
            () if is(b"PORT") => dynamic_port(data),
            () if is(b"EPRT") => delimited_port(data),
            () => None,
        };
        if let Some(port) = port {
            self.said_port(store, id, way, port);
        }
        let stores = is(b"STOR");
        if (stores || is(b"RETR"))
            && let Some(port) = self.port
        {
            self.announced = Some(Transfer { port, stores, name: data.to_vec() });
        }
        if long {
            store.event(id, Event::FtpRequestTooLong);
        }
        if self.open > MOST_OPEN {
            store.event(id, Event::FtpTooManyTransactions);
        }
        self.wants_tls = is(b"AUTH");
        store.reach(id, way, Progress::Complete);
    }

    fn said_port(&mut self, store: &mut Store, id: u64, way: Direction, port: u16) {
        self.port = Some(port);
        store.number(id, super::Number::FtpDynamicPort, way, u64::from(port));
        store.field(id, "dynamic_port", port);
    }

    /// A line of a reply. Whether what follows is TLS.
    fn reply(&mut self, store: &mut Store, line: &[u8], long: bool) -> bool {
        let way = Direction::ToClient;
        let id = match store.oldest_open(way) {
            Some(id) => id,
            // The greeting, which no command asked for.
            None => store.create(Some(way)),
        };
        if long {
            store.event(id, Event::FtpResponseTooLong);
        }
        let code = line.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit));
        let code = code.map(|code| [code[0], code[1], code[2]]);
        let goes_on = line.get(3) == Some(&b'-');
        let text = if code.is_some() { line.get(4..).unwrap_or_default() } else { line };
        store.put(id, Buffer::FtpReply, way, text);
        if let Some(code) = code {
            store.put(id, Buffer::FtpCompletionCode, way, &code);
            store.text(id, "completion_code", &code);
            if matches!(&code, b"227" | b"229") {
                let port = if &code == b"227" { dynamic_port(text) } else { extended_port(text) };
                if let Some(port) = port {
                    self.said_port(store, id, way, port);
                }
            }
        }
        match (self.several, code) {
            (None, Some(code)) if goes_on => self.several = Some(code),
            (Some(first), Some(code)) if first == code && !goes_on => self.several = None,
            _ => {}
        }
        let last = self.several.is_none() && code.is_some_and(|code| code[0] != b'1');
        if last {
            store.reach(id, way, Progress::Complete);
            self.open = self.open.saturating_sub(1);
        }
        last && self.wants_tls && code == Some(*b"234")
    }
}

/// The port of a reply to EPSV, `(|||6446|)` (RFC 2428).
fn extended_port(text: &[u8]) -> Option<u16> {
    let start = memchr::memchr(b'(', text)? + 1;
    delimited_port(&text[start..])
}

/// The port of `|1|132.235.1.2|6275|`, whatever character the first is.
fn delimited_port(text: &[u8]) -> Option<u16> {
    let delimiter = *text.first()?;
    let mut parts = text.splitn(5, |byte| *byte == delimiter);
    std::str::from_utf8(parts.nth(3)?).ok()?.parse().ok()
}

impl Reader for Ftp {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        let all = self.pending[at].with(bytes);
        let mut rest = &all[..];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            let passed = std::mem::take(&mut self.long[at]);
            rest = &rest[end + 1..];
            if passed {
                continue;
            }
            let long = line.len() > MOST_LINE;
            let line = &line[..line.len().min(MOST_LINE)];
            match direction {
                Direction::ToServer => self.command(store, line, long),
                Direction::ToClient => {
                    if self.reply(store, line, long) {
                        return Step::Change(Some(Protocol::Tls), rest.len());
                    }
                }
            }
        }
        if rest.len() > MOST_LINE {
            if !std::mem::replace(&mut self.long[at], true) {
                let line = &rest[..MOST_LINE];
                match direction {
                    Direction::ToServer => self.command(store, line, true),
                    Direction::ToClient => {
                        self.reply(store, line, true);
                    }
                }
            }
            rest = &[];
        }
        let rest = rest.len();
        self.pending[at].keep(all, rest);
        Step::Go
    }

    fn gap(&mut self, _: &mut Store, direction: Direction, _: usize) -> bool {
        self.pending[side(direction)] = Pending::default();
        true
    }

    fn announced(&mut self) -> Option<Transfer> {
        self.announced.take()
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Pending::memory).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!(dynamic_port(b"Entering Passive Mode (172,23,0,2,82,9)."), Some(21001));
        assert_eq!(dynamic_port(b"10,0,0,1,0,300"), None);
        assert_eq!(extended_port(b"Entering Extended Passive Mode (|||6446|)"), Some(6446));
        assert_eq!(delimited_port(b"|2|::1|5282|"), Some(5282));
        assert_eq!(delimited_port(b"|1|10.0.0.1|"), None);
    }
}
