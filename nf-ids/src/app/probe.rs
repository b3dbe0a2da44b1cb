//! Recognising a flow's protocol by its first bytes and ports.
//!
//! Most protocols begin with bytes that no other begins with, on whatever port. A few (DNS, Kerberos, LDAP, …) have
//! too little of that and are only looked for on their own ports. Either direction may be recognised first; what the
//! other one sent before is kept and read afterwards.

use super::{Protocol, opposite};
use crate::flow::Direction;

/// First bytes kept of each direction while the protocol is not known.
const KEPT: usize = 4096;
/// Bytes of one direction after which it is no longer looked for while the other is silent.
const SILENT: usize = 100_000;

/// What is known of a flow before its first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// UDP; else TCP.
    pub udp: bool,
    /// Port of the side that opened the flow.
    pub client_port: u16,
    /// Port of the other side.
    pub server_port: u16,
    /// The beginning was not seen, so that it is not certain who opened it.
    pub midstream: bool,
}

impl Hints {
    fn on(&self, ports: &[u16]) -> bool {
        ports.contains(&self.server_port) || ports.contains(&self.client_port)
    }
}

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Too few.
    Wait,
    /// The protocol; whether the directions are the other way round.
    Found(Protocol, bool),
    /// None that is known.
    Failed,
}

/// What one look at the first bytes of one direction says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Is(Protocol),
    Perhaps,
    Not,
}

#[derive(Debug, Default)]
struct Seen {
    bytes: Vec<u8>,
    lost: usize,
    total: usize,
    not: bool,
}

/// Looks at the first bytes of both directions.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    seen: [Seen; 2],
    /// The direction that spoke first.
    first: Option<Direction>,
}

impl Probe {
    /// More bytes of one direction.
    pub(crate) fn data(&mut self, direction: Direction, bytes: &[u8], hints: &Hints) -> Answer {
        self.first.get_or_insert(direction);
        let seen = &mut self.seen[super::side(direction)];
        let room = if seen.lost > 0 { 0 } else { KEPT.saturating_sub(seen.bytes.len()) };
        let kept = if hints.udp && seen.bytes.is_empty() { bytes.len() } else { bytes.len().min(room) };
        let (now, beyond) = bytes.split_at(kept);
        seen.bytes.extend_from_slice(now);
        seen.lost += beyond.len();
        seen.total += bytes.len();
        let answer = self.answer(direction, bytes, hints);
        let seen = &mut self.seen[super::side(direction)];
        if matches!(answer, Answer::Found(..)) && seen.lost == beyond.len() {
            // What had no room came with what decided, and is not lost.
            seen.bytes.extend_from_slice(beyond);
            seen.lost = 0;
        }
        answer
    }

    /// What the bytes so far say, of which `bytes` came last.
    fn answer(&mut self, direction: Direction, bytes: &[u8], hints: &Hints) -> Answer {
        let seen = &mut self.seen[super::side(direction)];
        if !seen.not {
            match look(direction, &seen.bytes, hints) {
                Look::Is(protocol) => {
                    // A response that comes from the DNS port first: its request was not seen.
                    let answers = hints.udp && protocol == Protocol::Dns && super::dns::is_response(bytes);
                    let reversed = answers && direction == Direction::ToServer && hints.client_port == 53;
                    return Answer::Found(protocol, reversed);
                }
                Look::Not => seen.not = true,
                Look::Perhaps => seen.not = seen.bytes.len() >= KEPT,
            }
            if hints.midstream
                && let Look::Is(protocol) = look(opposite(direction), &seen.bytes, hints)
            {
                return Answer::Found(protocol, true);
            }
        }
        let [server, client] = &self.seen;
        let silent = |one: &Seen, other: &Seen| one.not && other.total == 0 && one.total > SILENT;
        if (server.not && client.not) || silent(server, client) || silent(client, server) {
            return Answer::Failed;
        }
        Answer::Wait
    }

    /// Bytes are lost: what follows cannot be recognised by its beginning.
    pub(crate) fn gap(&mut self, direction: Direction, length: usize) {
        let seen = &mut self.seen[super::side(direction)];
        seen.lost += length;
        seen.total += length;
        seen.not = true;
    }

    /// Gives what was kept, in the order in which the directions spoke: bytes, and how many were lost after them.
    pub(crate) fn take(&mut self) -> Vec<(Direction, Vec<u8>, usize)> {
        let first = self.first.unwrap_or(Direction::ToServer);
        let seen = std::mem::take(&mut self.seen);
        self.first = None;
        let [server, client] = seen;
        let mut both = vec![
            (Direction::ToServer, server.bytes, server.lost),
            (Direction::ToClient, client.bytes, client.lost),
        ];
        // A client's request is read before the answer, whoever was heard first; a server's greeting before the client.
        if first == Direction::ToClient && both[0].1.is_empty() {
            both.reverse();
        }
        both
    }

    /// Forgets what was kept.
    pub(crate) fn forget(&mut self) {
        *self = Probe::default();
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.seen.iter().map(|seen| seen.bytes.capacity()).sum()
    }
}

/// Methods that begin an HTTP request.
const METHODS: &[&str] = &[
    "GET",
    "PUT",
    "POST",
    "HEAD",
    "TRACE",
    "OPTIONS",
    "CONNECT",
    "DELETE",
    "PATCH",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "CHECKOUT",
    "UNCHECKOUT",
    "CHECKIN",
    "UPDATE",
    "LABEL",
    "REPORT",
    "MKWORKSPACE",
    "MKACTIVITY",
    "MERGE",
    "INVALID",
    "VERSION-CONTROL",
    "BASELINE-CONTROL",
];

/// Methods that begin a SIP request.
const SIP_METHODS: &[&str] = &[
    "REGISTER ",
    "INVITE ",
    "ACK ",
    "BYE ",
    "CANCEL ",
    "UPDATE ",
    "REFER ",
    "PRACK ",
    "SUBSCRIBE ",
    "NOTIFY ",
    "PUBLISH ",
    "MESSAGE ",
    "INFO ",
    "OPTIONS ",
];

fn look(direction: Direction, bytes: &[u8], hints: &Hints) -> Look {
    if hints.udp {
        return look_datagram(direction, bytes, hints);
    }
    any([look_text(direction, bytes, hints), look_tls(bytes), look_binary(bytes), look_by_port(bytes, hints)])
}

/// Whether `bytes` begin with `word`, or may once there are more.
fn begins(bytes: &[u8], word: &[u8], protocol: Protocol) -> Look {
    if bytes.starts_with(word) {
        Look::Is(protocol)
    } else if word.starts_with(bytes) {
        Look::Perhaps
    } else {
        Look::Not
    }
}

/// The first that is certain; else whether one is possible.
fn any(looks: impl IntoIterator<Item = Look>) -> Look {
    let mut best = Look::Not;
    for one in looks {
        match one {
            Look::Is(_) => return one,
            Look::Perhaps => best = Look::Perhaps,
            Look::Not => {}
        }
    }
    best
}

fn look_method(bytes: &[u8]) -> Look {
    any(METHODS.iter().map(|method| {
        let method = method.as_bytes();
        match bytes.strip_prefix(method) {
            Some([b' ' | b'\t', ..]) => Look::Is(Protocol::Http1),
            Some([]) => Look::Perhaps,
            Some(_) => Look::Not,
            None => begins(bytes, method, Protocol::Http1),
        }
    }))
}

fn look_sip(bytes: &[u8]) -> Look {
    let Some(line) = bytes.split(|byte| *byte == b'\n').next() else { return Look::Not };
    let methods = SIP_METHODS.iter().any(|method| bytes.starts_with(method.as_bytes()));
    let said =
        memchr::memmem::find(line, b"SIP/2.0").is_some() || memchr::memmem::find(line, b" sip:").is_some();
    if methods && said {
        return Look::Is(Protocol::Sip);
    }
    let short = SIP_METHODS.iter().any(|method| method.as_bytes().starts_with(bytes));
    if short || (methods && line.len() == bytes.len() && line.len() < 256) {
        Look::Perhaps
    } else {
        Look::Not
    }
}

fn look_text(direction: Direction, bytes: &[u8], hints: &Hints) -> Look {
    use Protocol as P;
    let both = any([begins(bytes, b"SSH-", P::Ssh), begins(bytes, b"RFB ", P::Rfb)]);
    let own = match direction {
        Direction::ToServer => {
            let words: &[(&[u8], Protocol)] = &[
                (b"PRI * HTTP/2.0\r\n", P::Http2),
                (b"EHLO", P::Smtp),
                (b"HELO", P::Smtp),
                (b"QUIT", P::Smtp),
                (b"USER ", P::Ftp),
                (b"PASS ", P::Ftp),
                (b"PORT ", P::Ftp),
                (b"FEAT", P::Ftp),
                (b"AUTH SSL", P::Ftp),
                (b"AUTH TLS", P::Ftp),
            ];
            let sip = look_sip(bytes);
            if matches!(sip, Look::Is(_)) {
                return sip;
            }
            any([look_method(bytes), sip].into_iter().chain(words.iter().map(|(w, p)| begins(bytes, w, *p))))
        }
        Direction::ToClient => any([
            begins(bytes, b"HTTP/0.9", P::Http1),
            begins(bytes, b"HTTP/1.0", P::Http1),
            begins(bytes, b"HTTP/1.1", P::Http1),
            begins(bytes, b"SIP/2.0 ", P::Sip),
            look_settings(bytes),
            begins(bytes, b"* OK ", P::Imap),
            begins(bytes, b"+OK ", P::Pop3),
            look_greeting(bytes, hints),
        ]),
    };
    any([both, own])
}

/// A server of HTTP/2 begins with SETTINGS (RFC 9113, section 3.4): at most a few, on stream 0, no acknowledgement.
fn look_settings(bytes: &[u8]) -> Look {
    match bytes {
        [0, 0, length, 4, 0, 0, 0, 0, 0, ..] if length % 6 == 0 && *length <= 120 => {
            Look::Is(Protocol::Http2)
        }
        [0, 0, length, rest @ ..]
            if rest.len() < 6 && [4, 0, 0, 0, 0, 0].starts_with(rest) && length % 6 == 0 =>
        {
            Look::Perhaps
        }
        [0] | [0, 0] => Look::Perhaps,
        _ => Look::Not,
    }
}

/// A greeting with 220 is FTP's or SMTP's, by what it says and by the port.
fn look_greeting(bytes: &[u8], hints: &Hints) -> Look {
    if !bytes.starts_with(b"220") {
        return if b"220".starts_with(bytes) { Look::Perhaps } else { Look::Not };
    }
    let line = bytes.to_ascii_uppercase();
    let says = |word: &[u8]| memchr::memmem::find(&line, word).is_some();
    if says(b"SMTP") || hints.on(&[25, 465, 587]) {
        return Look::Is(Protocol::Smtp);
    }
    if line.starts_with(b"220 (") || says(b"FTP") || hints.on(&[21]) {
        return Look::Is(Protocol::Ftp);
    }
    if line.contains(&b'\n') { Look::Not } else { Look::Perhaps }
}

fn look_tls(bytes: &[u8]) -> Look {
    match *bytes {
        [0x14..=0x17, 3, minor, ..] if minor <= 4 => Look::Is(Protocol::Tls),
        [0x14..=0x17] | [0x14..=0x17, 3] => Look::Perhaps,
        // SSL 2: a length with its high bit, client hello (1) or server hello (4), version.
        [high, _, 1, 0, 2, ..] | [high, _, 1, 3, 0..=4, ..] if high & 0x80 != 0 => Look::Is(Protocol::Tls),
        [high, ..] if high & 0x80 != 0 && bytes.len() < 5 && (bytes.len() < 3 || bytes[2] == 1) => {
            Look::Perhaps
        }
        _ => Look::Not,
    }
}

fn look_binary(bytes: &[u8]) -> Look {
    let smb = match bytes {
        [0, _, _, _, 0xfd..=0xff, b'S', b'M', b'B', ..] => Look::Is(Protocol::Smb),
        [0, rest @ ..] if rest.len() < 7 => Look::Perhaps,
        // A NetBIOS session request stands before SMB on port 139.
        [0x81..=0x82, 0, ..] if bytes.len() < 128 => Look::Perhaps,
        _ => Look::Not,
    };
    let rpc = match bytes {
        [5, 0, 0..=20, _, 0 | 0x10, ..] => Look::Is(Protocol::Dcerpc),
        [5] | [5, 0] | [5, 0, 0..=20] | [5, 0, 0..=20, _] => Look::Perhaps,
        _ => Look::Not,
    };
    let rdp = match bytes {
        [3, 0, _, _, _, 0xe0 | 0xd0, ..] => Look::Is(Protocol::Rdp),
        [3, 0, ..] | [3] if bytes.len() < 6 => Look::Perhaps,
        _ => Look::Not,
    };
    any([smb, rpc, rdp])
}

fn look_by_port(bytes: &[u8], hints: &Hints) -> Look {
    if hints.on(&[53, 5355]) {
        let protocol = if hints.on(&[53]) { Protocol::Dns } else { Protocol::Llmnr };
        return match bytes {
            [_, _, message @ ..] if message.len() >= 12 => {
                if super::dns::plausible(message) {
                    Look::Is(protocol)
                } else {
                    Look::Not
                }
            }
            _ => Look::Perhaps,
        };
    }
    if hints.on(&[88]) {
        return match bytes {
            [0, _, _, _, kind, ..] if is_kerberos(*kind) => Look::Is(Protocol::Krb5),
            [0, ..] | [] if bytes.len() < 5 => Look::Perhaps,
            _ => Look::Not,
        };
    }
    if hints.on(&[1883]) {
        // The first message is CONNECT, or its answer.
        return match bytes {
            [0x10 | 0x20 | 0x30..=0x3f, ..] | [0x40..=0xf0, ..] if bytes.len() >= 2 => {
                Look::Is(Protocol::Mqtt)
            }
            [_] => Look::Perhaps,
            _ => Look::Not,
        };
    }
    if hints.on(&[389, 3268]) {
        return match bytes {
            [0x30, _, ..] => Look::Is(Protocol::Ldap),
            [0x30] => Look::Perhaps,
            _ => Look::Not,
        };
    }
    Look::Not
}

/// Application tags of Kerberos' messages (RFC 4120, section 5.10), constructed.
fn is_kerberos(tag: u8) -> bool {
    matches!(tag & 0x1f, 10..=15 | 20..=22 | 30) && tag & 0x60 == 0x60
}

fn look_datagram(direction: Direction, bytes: &[u8], hints: &Hints) -> Look {
    use Protocol as P;
    let named = |protocol: Protocol, plausible: bool| if plausible { Look::Is(protocol) } else { Look::Not };
    if hints.on(&[53]) {
        return named(P::Dns, super::dns::plausible(bytes));
    }
    if hints.on(&[5353]) {
        return named(P::Mdns, bytes.len() >= 12);
    }
    if hints.on(&[5355]) {
        return named(P::Llmnr, bytes.len() >= 12);
    }
    let sip = match direction {
        Direction::ToServer => look_sip(bytes),
        Direction::ToClient => begins(bytes, b"SIP/2.0 ", P::Sip),
    };
    if let Look::Is(_) = sip {
        return sip;
    }
    if super::quic::plausible(bytes) {
        return Look::Is(P::Quic);
    }
    if hints.on(&[67, 68]) {
        return named(P::Dhcp, bytes.len() >= 240 && matches!(bytes[0], 1 | 2));
    }
    if hints.on(&[88]) {
        return named(P::Krb5, bytes.first().is_some_and(|tag| is_kerberos(*tag)));
    }
    if hints.on(&[161, 162]) {
        return named(P::Snmp, bytes.first() == Some(&0x30));
    }
    if hints.on(&[123]) {
        return named(P::Ntp, bytes.len() >= 48);
    }
    if hints.on(&[69]) {
        return named(P::Tftp, matches!(bytes, [0, 1..=5, ..]));
    }
    if hints.on(&[500, 4500]) {
        return named(P::Ike, bytes.len() >= 28 && matches!(bytes[17], 0x10 | 0x20));
    }
    if bytes.starts_with(b"d1:ad2:id20:") || bytes.starts_with(b"d1:rd2:id20:") {
        return Look::Is(P::BittorrentDht);
    }
    Look::Not
}
