//! TLS and SSL: hellos and certificates, until everything is encrypted.
//!
//! # States
//! Each side sends records; handshake messages may be spread over records, and records over segments. A side's
//! handshake is read until its change of cipher (up to TLS 1.2) or its first record of application data; after that
//! only the records' headers are looked at. A flow is one transaction.

mod certificate;
mod hello;
mod parser;

use super::event::note;
use super::{Event, Progress, side};
use crate::flow::Direction;
use certificate::Certificate;
pub(super) use hello::md5_hex;
use hello::{Hello, Reader};
use std::cell::OnceCell;

/// Longest handshake message that is put together.
const MOST_HANDSHAKE: usize = 128 << 10;
/// Longest record: 2^14 bytes and what encryption adds (RFC 5246, section 6.2.3).
const MOST_RECORD: usize = 16384 + 2048;
/// Padding of a heartbeat (RFC 6520, section 4).
const LEAST_PADDING: usize = 16;
/// Certificates of a chain that are kept.
const MOST_CERTIFICATES: usize = 32;

/// One side.
#[derive(Debug, Default)]
struct Side {
    pending: Vec<u8>,
    handshake: Vec<u8>,
    /// Bytes of the current record that are passed over.
    skip: usize,
    encrypted: bool,
    started: bool,
    progress: Progress,
    chain: Vec<Vec<u8>>,
    certificate: Option<Certificate>,
    fingerprint: Vec<u8>,
    lost: bool,
}

/// What is made of the hellos when it is first asked for.
#[derive(Debug, Default)]
struct Made {
    ja3: OnceCell<[Vec<u8>; 2]>,
    ja3s: OnceCell<[Vec<u8>; 2]>,
    ja4: OnceCell<Vec<u8>>,
}

/// The parser of one flow.
#[derive(Debug)]
pub(super) struct Tls {
    first: u64,
    begun: bool,
    released: bool,
    ended: [bool; 2],
    sides: [Side; 2],
    client: Option<Hello>,
    server: Option<Hello>,
    /// Version of an SSL 2 hello.
    old: Option<u16>,
    /// As `ssl_state` counts.
    state: u64,
    made: Made,
    /// A heartbeat that is not answered: who sent it, and its length.
    heartbeat: Option<(Direction, usize)>,
    events: Vec<Event>,
    /// The same, by the side that they were found in.
    side_events: [Vec<Event>; 2],
}

impl Tls {
    /// With the one transaction's id.
    pub(super) fn new(first: u64) -> Tls {
        Tls {
            first,
            begun: false,
            released: false,
            ended: [false; 2],
            sides: Default::default(),
            client: None,
            server: None,
            old: None,
            state: 0,
            made: Made::default(),
            heartbeat: None,
            events: Vec::new(),
            side_events: Default::default(),
        }
    }

    fn wrong(&mut self, direction: Direction, event: Event) {
        note(&mut self.events, event);
        note(&mut self.side_events[side(direction)], event);
    }

    fn reach(&mut self, direction: Direction, progress: Progress) {
        let side = &mut self.sides[side(direction)];
        side.progress = side.progress.max(progress);
    }

    /// Reads one record, or what there is of it. Bytes used; none: more are needed.
    fn record(&mut self, direction: Direction, input: &[u8]) -> Option<usize> {
        let at = side(direction);
        if !self.sides[at].started {
            if input.len() < 5 {
                return None;
            }
            self.sides[at].started = true;
            if input[0] & 0x80 != 0 || !matches!(input[0], 20..=24) {
                return self.old_record(direction, input);
            }
        }
        let [kind, major, minor, high, low, body @ ..] = input else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *major != 3 || *minor > 4 {
            self.wrong(direction, Event::TlsInvalidRecordVersion);
            self.wrong(direction, Event::TlsInvalidHeader);
            return Some(self.lose(direction, input));
        }
        if !matches!(kind, 20..=24) {
            self.wrong(direction, Event::TlsInvalidRecordType);
            self.wrong(direction, Event::TlsInvalidHeader);
            return Some(self.lose(direction, input));
        }
        if length > MOST_RECORD {
            self.wrong(direction, Event::TlsInvalidRecordLength);
            return Some(self.lose(direction, input));
        }
        let readable = *kind == 22 && !self.sides[at].encrypted;
        if readable || matches!(kind, 21 | 24) {
            let body = body.get(..length)?;
            match kind {
                22 => self.handshake(direction, body),
                24 => self.heartbeat(direction, body),
                _ => {}
            }
            return Some(5 + length);
        }
        if matches!(kind, 20 | 23) {
            self.sides[at].encrypted = true;
            self.sides[at].handshake = Vec::new();
            if *kind == 20 && !self.is_tls13() || *kind == 23 {
                self.reach(direction, Progress::Complete);
            }
            if self.server.is_some() || *kind == 23 {
                self.reach(direction, Progress::Headers);
            }
        }
        let here = body.len().min(length);
        self.sides[at].skip = length - here;
        Some(5 + here)
    }

    fn is_tls13(&self) -> bool {
        self.server.as_ref().is_some_and(|hello| hello.real_version() >= 0x0304)
    }

    /// Nothing more of this side can be read.
    fn lose(&mut self, direction: Direction, input: &[u8]) -> usize {
        let side = &mut self.sides[side(direction)];
        side.lost = true;
        side.handshake = Vec::new();
        self.reach(direction, Progress::Complete);
        input.len()
    }

    /// An SSL 2 record at the beginning: a hello that may offer newer versions.
    fn old_record(&mut self, direction: Direction, input: &[u8]) -> Option<usize> {
        let at = side(direction);
        let length = usize::from(u16::from_be_bytes([input[0] & 0x7f, input[1]]));
        let kind = input[2];
        if input[0] & 0x80 == 0 || length < 3 || !matches!(kind, 1 | 4) {
            self.wrong(direction, Event::TlsInvalidSslv2Header);
            return Some(self.lose(direction, input));
        }
        if input.len() < length + 2 {
            self.sides[at].started = false;
            return None;
        }
        let version = match kind {
            1 => u16::from_be_bytes([input[3], input[4]]),
            _ => input.get(5..7).map_or(2, |two| u16::from_be_bytes([two[0], two[1]])),
        };
        if !matches!(version, 2 | 0x0300..=0x0304) {
            self.wrong(direction, Event::TlsInvalidSslv2Header);
            return Some(self.lose(direction, input));
        }
        self.old = Some(version);
        self.state |= if kind == 1 { 1 } else { 2 };
        self.reach(direction, Progress::Line);
        if version == 2 && kind == 4 {
            // What follows is SSL 2's own, and encrypted.
            return Some(self.lose(direction, input));
        }
        Some(length + 2)
    }

    /// Handshake bytes of one record.
    fn handshake(&mut self, direction: Direction, body: &[u8]) {
        let at = side(direction);
        let mut all = std::mem::take(&mut self.sides[at].handshake);
        all.extend_from_slice(body);
        let mut used = 0;
        while let [kind, a, b, c, after @ ..] = &all[used..] {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if length > MOST_HANDSHAKE {
                self.wrong(direction, Event::TlsInvalidHandshake);
                used = all.len();
                break;
            }
            let Some(message) = after.get(..length) else { break };
            self.message(direction, *kind, message);
            used += 4 + length;
        }
        // What waits stays where it is: records may be tiny, and a message long.
        all.drain(..used);
        self.sides[at].handshake = all;
    }

    fn message(&mut self, direction: Direction, kind: u8, body: &[u8]) {
        match kind {
            1 => self.client_hello(direction, body),
            2 => self.server_hello(direction, body),
            11 => self.certificates(direction, body),
            12 => self.state |= 8,
            14 => self.reach(direction, Progress::Headers),
            16 => {
                self.state |= 4;
                self.reach(direction, Progress::Headers);
            }
            0 | 3..=6 | 8 | 13 | 15 | 20..=25 | 67 | 254 => {}
            _ => self.wrong(direction, Event::TlsInvalidHandshake),
        }
    }

    fn client_hello(&mut self, direction: Direction, body: &[u8]) {
        if self.client.is_some() {
            return;
        }
        match Hello::parse(body, true) {
            Some(hello) => {
                for event in &hello.events {
                    self.wrong(direction, *event);
                }
                self.state |= 1;
                self.client = Some(hello);
                self.reach(direction, Progress::Line);
            }
            None => self.wrong(direction, Event::TlsInvalidHandshake),
        }
    }

    fn server_hello(&mut self, direction: Direction, body: &[u8]) {
        match Hello::parse(body, false) {
            Some(hello) if self.server.is_none() => {
                self.state |= 2;
                let new = hello.real_version() >= 0x0304;
                self.server = Some(hello);
                self.reach(direction, if new { Progress::Headers } else { Progress::Line });
            }
            Some(_) => {}
            None => self.wrong(direction, Event::TlsInvalidHandshake),
        }
    }

    fn certificates(&mut self, direction: Direction, body: &[u8]) {
        let at = side(direction);
        let mut reader = Reader(body);
        let total = reader.u24();
        let Some(list) = total.and_then(|total| reader.bytes(total)) else {
            self.wrong(direction, Event::TlsCertificateInvalidLength);
            return self.reach(direction, Progress::Headers);
        };
        // A chain that is sent again is not read again: that would cost its sender nothing.
        if !self.sides[at].chain.is_empty() {
            return self.reach(direction, Progress::Headers);
        }
        let mut list = Reader(list);
        while !list.0.is_empty() {
            let Some(der) = list.u24().and_then(|length| list.bytes(length)) else {
                self.wrong(direction, Event::TlsCertificateInvalidLength);
                break;
            };
            if self.sides[at].chain.len() < MOST_CERTIFICATES {
                self.sides[at].chain.push(der.to_vec());
            }
        }
        if let Some(der) = self.sides[at].chain.first() {
            let parsed = Certificate::parse(der);
            self.sides[at].fingerprint = certificate::fingerprint(der);
            match parsed {
                Ok(certificate) => self.sides[at].certificate = Some(certificate),
                Err(event) => self.wrong(direction, event),
            }
        }
        self.reach(direction, Progress::Headers);
    }

    fn heartbeat(&mut self, direction: Direction, body: &[u8]) {
        self.wrong(direction, Event::TlsHeartbeat);
        match self.heartbeat {
            // The answer has what was asked for, and as much.
            Some((from, length)) if from != direction => {
                self.heartbeat = None;
                if body.len() > length {
                    self.wrong(direction, Event::TlsHeartbeatMismatch);
                }
                return;
            }
            Some(_) => {}
            None => self.heartbeat = Some((direction, body.len())),
        }
        if self.sides.iter().any(|side| side.encrypted) {
            return;
        }
        match body {
            [1 | 2, high, low, rest @ ..] => {
                let claimed = usize::from(u16::from_be_bytes([*high, *low]));
                match rest.len().checked_sub(claimed) {
                    None => self.wrong(direction, Event::TlsOverflowHeartbeat),
                    Some(padding) if padding < LEAST_PADDING => {
                        self.wrong(direction, Event::TlsInvalidHeartbeat);
                    }
                    Some(_) => {}
                }
            }
            _ => self.wrong(direction, Event::TlsInvalidHeartbeat),
        }
    }

    fn hello_of(&self, direction: Direction) -> Option<&Hello> {
        match direction {
            Direction::ToServer => self.client.as_ref(),
            Direction::ToClient => self.server.as_ref(),
        }
    }

    fn ja3(&self, part: usize) -> Option<&[u8]> {
        let hello = self.client.as_ref()?;
        let made = self.made.ja3.get_or_init(|| with_hash(hello.ja3()));
        Some(&made[part])
    }

    fn ja3s(&self, part: usize) -> Option<&[u8]> {
        let hello = self.server.as_ref()?;
        let made = self.made.ja3s.get_or_init(|| with_hash(hello.ja3s()));
        Some(&made[part])
    }

    fn version(&self) -> Option<u16> {
        let hello = self.server.as_ref().or(self.client.as_ref());
        hello.map(Hello::real_version).or(self.old)
    }
}

/// What a hello says that travels in another protocol than TLS' own records.
#[derive(Debug)]
pub(super) struct Greeting {
    /// Server name.
    pub(super) name: Option<Vec<u8>>,
    /// JA3's text.
    pub(super) ja3: String,
    /// JA4, over QUIC.
    pub(super) ja4: String,
}

impl Greeting {
    /// Of a client's hello over QUIC; none when it cannot be read.
    pub(super) fn of_client(body: &[u8]) -> Option<Greeting> {
        let hello = Hello::parse(body, true)?;
        let (ja3, ja4) = (hello.ja3(), hello.ja4('q'));
        Some(Greeting { name: hello.sni, ja3, ja4 })
    }

    /// JA3S' text of a server's hello.
    pub(super) fn of_server(body: &[u8]) -> Option<String> {
        Hello::parse(body, false).map(|hello| hello.ja3s())
    }
}

/// A fingerprint's hash and text.
fn with_hash(text: String) -> [Vec<u8>; 2] {
    [md5_hex(text.as_bytes()).into_bytes(), text.into_bytes()]
}
