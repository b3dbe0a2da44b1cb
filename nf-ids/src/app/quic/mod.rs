//! QUIC (RFC 9000, 9001, 9369) and Google's QUIC before it: versions, and the client's hello.
//!
//! The first packets are protected with keys that anyone can make ([`secret`]); the hello in them is TLS', over packets in any
//! order. Google's had one of its own, not encrypted ([`google`]). Each packet with a long header is a transaction of its
//! sender; the hello stands in the one that completed it. All that follows is encrypted.

mod google;
mod secret;

use super::store::{Reader, Store};
use super::tls;
use super::{Buffer, Event, Progress, Step, side};
use crate::flow::Direction;
use secret::{Keys, Version};

/// Bytes of a hello that are put together.
const MOST_HELLO: usize = 64 << 10;
/// Packets of one datagram, which may follow each other in it.
const MOST_PACKETS: usize = 8;

/// A side's hello, of which pieces come in any order.
#[derive(Debug, Default)]
struct Hello {
    bytes: Vec<u8>,
    /// What there is of it: from where to where.
    pieces: Vec<(usize, usize)>,
    done: bool,
}

/// Reads datagrams.
#[derive(Debug, Default)]
pub(super) struct Quic {
    keys: Option<(Version, [Keys; 2])>,
    hellos: [Hello; 2],
}

/// A number of one, two, four or eight bytes (RFC 9000, section 16).
fn number(bytes: &mut &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let (all, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let value = all[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).ok()
}

/// Bytes with their length in one byte before them.
fn short<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first()?;
    let (taken, rest) = rest.split_at_checked(usize::from(*length))?;
    *bytes = rest;
    Some(taken)
}

/// The version of a packet with a long header, or of Google's older form; none of another packet.
fn version(bytes: &[u8]) -> Option<u32> {
    let at = match bytes.first()? {
        first if first & 0x80 != 0 => 1,
        first if first & 0x09 == 0x09 => 9,
        _ => return None,
    };
    bytes.get(at..at + 4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

/// Whether a datagram begins with a packet of a version that is known.
pub(super) fn plausible(bytes: &[u8]) -> bool {
    let google = |v: u32| {
        let [a, b, c, d] = v.to_be_bytes();
        matches!(a, b'Q' | b'T') && b == b'0' && c.is_ascii_digit() && d.is_ascii_digit()
    };
    let long = bytes.first().is_some_and(|first| first & 0xc0 == 0xc0);
    version(bytes).is_some_and(|v| google(v) || (long && Version::of(v).is_some()))
}

/// A version's name: Google's are text.
fn name(version: u32) -> String {
    let text = version.to_be_bytes();
    if text.iter().all(u8::is_ascii_alphanumeric) {
        text.map(char::from).iter().collect()
    } else {
        format!("{version:x}")
    }
}

impl Hello {
    /// Takes a piece. The whole message, once, when this completed it.
    fn add(&mut self, offset: usize, piece: &[u8]) -> Option<Vec<u8>> {
        let end = offset.checked_add(piece.len()).filter(|end| *end <= MOST_HELLO && !self.done)?;
        if self.pieces.len() >= 64 || piece.is_empty() {
            return None;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(piece);
        self.pieces.push((offset, end));
        self.pieces.sort_unstable();
        let ready = self
            .pieces
            .iter()
            .fold(0, |ready, (from, to)| if *from <= ready { ready.max(*to) } else { ready });
        let [_, a, b, c, ..] = self.bytes[..ready] else { return None };
        let length = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
        if ready < length {
            return None;
        }
        self.done = true;
        self.pieces = Vec::new();
        let mut whole = std::mem::take(&mut self.bytes);
        whole.truncate(length);
        Some(whole)
    }
}

impl Quic {
    /// One packet. What follows it in the datagram; none: nothing, or nothing that can be read.
    fn packet<'a>(&mut self, store: &mut Store, direction: Direction, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let number_of = version(bytes)?;
        let id = store.create(Some(direction));
        let text = name(number_of);
        store.put(id, Buffer::QuicVersion, direction, text.as_bytes());
        store.field(id, "version", text.trim_start_matches('0'));
        let rest = match Version::of(number_of) {
            Some(version) if bytes[0] & 0x80 != 0 => self.initial(store, direction, id, &version, bytes),
            _ => {
                google::read(store, direction, id, number_of, bytes);
                None
            }
        };
        store.reach(id, direction, Progress::Complete);
        rest
    }

    /// A packet with a long header of RFC 9000 (section 17.2).
    fn initial<'a>(
        &mut self,
        store: &mut Store,
        direction: Direction,
        id: u64,
        version: &Version,
        bytes: &'a [u8],
    ) -> Option<&'a [u8]> {
        let mut rest = bytes.get(5..)?;
        let connection = short(&mut rest)?;
        short(&mut rest)?;
        let kind = bytes[0] >> 4 & 3;
        if kind == version.retry {
            // The client begins anew, with another number of its choice.
            self.keys = None;
            return None;
        }
        if kind == version.initial {
            let token = number(&mut rest)?;
            rest = rest.get(token..)?;
        }
        let length = number(&mut rest)?;
        let (protected, after) = rest.split_at_checked(length)?;
        if kind == version.initial {
            if direction == Direction::ToServer && self.keys.is_none() {
                self.keys = Some((*version, Keys::pair(version, connection)));
            }
            let keys = self.keys.as_ref().filter(|(known, _)| known == version);
            let open = keys.and_then(|(_, keys)| keys[side(direction)].open(bytes[0], protected));
            if open.is_none_or(|frames| self.frames(store, direction, id, &frames).is_none()) {
                store.event(id, Event::QuicFailedDecrypt);
            }
        }
        Some(after)
    }

    /// The frames of an opened packet (RFC 9000, section 19). None at one that cannot stand there.
    fn frames(&mut self, store: &mut Store, direction: Direction, id: u64, frames: &[u8]) -> Option<()> {
        let mut rest = frames;
        while let Some(kind) = rest.first() {
            match kind {
                0 | 1 => rest = &rest[1..],
                2 | 3 => {
                    let counts = *kind == 3;
                    rest = &rest[1..];
                    number(&mut rest)?;
                    number(&mut rest)?;
                    let ranges = number(&mut rest)?;
                    number(&mut rest)?;
                    for _ in 0..ranges.checked_mul(2)? {
                        number(&mut rest)?;
                    }
                    for _ in 0..if counts { 3 } else { 0 } {
                        number(&mut rest)?;
                    }
                }
                6 => {
                    rest = &rest[1..];
                    let (offset, length) = (number(&mut rest)?, number(&mut rest)?);
                    let (piece, after) = rest.split_at_checked(length)?;
                    rest = after;
                    if let Some(hello) = self.hellos[side(direction)].add(offset, piece) {
                        greeting(store, direction, id, &hello);
                    }
                }
                0x1c => return Some(()),
                _ => return None,
            }
        }
        Some(())
    }
}

/// A whole hello of TLS.
fn greeting(store: &mut Store, direction: Direction, id: u64, hello: &[u8]) {
    match (direction, hello) {
        (Direction::ToServer, [1, _, _, _, body @ ..]) => {
            let Some(told) = tls::Greeting::of_client(body) else { return };
            if let Some(name) = &told.name {
                store.put(id, Buffer::QuicSni, direction, name);
                store.text(id, "sni", name);
            }
            store.put(id, Buffer::Ja3Hash, direction, tls::md5_hex(told.ja3.as_bytes()).as_bytes());
            store.put(id, Buffer::Ja3String, direction, told.ja3.as_bytes());
            store.put(id, Buffer::Ja4Hash, direction, told.ja4.as_bytes());
            let ja3 = serde_json::json!({"hash": tls::md5_hex(told.ja3.as_bytes()), "string": told.ja3});
            store.field(id, "ja3", ja3);
            store.field(id, "ja4", told.ja4);
        }
        (Direction::ToClient, [2, _, _, _, body @ ..]) => {
            let Some(ja3s) = tls::Greeting::of_server(body) else { return };
            store.put(id, Buffer::Ja3sHash, direction, tls::md5_hex(ja3s.as_bytes()).as_bytes());
            store.put(id, Buffer::Ja3sString, direction, ja3s.as_bytes());
            store.field(
                id,
                "ja3s",
                serde_json::json!({"hash": tls::md5_hex(ja3s.as_bytes()), "string": ja3s}),
            );
        }
        _ => {}
    }
}

impl Reader for Quic {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let mut rest = bytes;
        for _ in 0..MOST_PACKETS {
            match self.packet(store, direction, rest) {
                Some(after) if !after.is_empty() => rest = after,
                _ => break,
            }
        }
        Step::Go
    }

    fn memory(&self) -> usize {
        let hellos = self.hellos.iter().map(|hello| hello.bytes.capacity() + hello.pieces.capacity() * 16);
        size_of::<Quic>() + hellos.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::store::Stored;
    use crate::app::{Number, Parser, Progress};
    use Direction::{ToClient, ToServer};

    const CONNECTION: &[u8] = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08";

    /// A hello that asks for `a.b.com`.
    fn hello() -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(b"\0\0\x02\x13\x01\x01\0\0\x10\0\0\0\x0c\0\x0a\0\0\x07a.b.com");
        let length = u8::try_from(body.len()).unwrap();
        [&[1, 0, 0, length][..], &body].concat()
    }

    fn crypto(offset: u8, piece: &[u8]) -> Vec<u8> {
        [&[6, offset, 0x40, u8::try_from(piece.len()).unwrap()][..], piece].concat()
    }

    /// A client's first packet of a version, with these frames.
    fn packet(number: u32, first: u8, frames: &[u8]) -> Vec<u8> {
        let version = Version::of(number).unwrap();
        let [client, _] = Keys::pair(&version, CONNECTION);
        let (first, protected) = client.seal(first, frames);
        let length = u16::try_from(protected.len()).unwrap() | 0x4000;
        let connection = [&[8][..], CONNECTION, &[0, 0]].concat();
        [&[first][..], &number.to_be_bytes(), &connection, &length.to_be_bytes(), &protected].concat()
    }

    #[test]
    fn a_hello_in_pieces_out_of_order_is_read() {
        let hello = hello();
        for (version, first, text) in
            [(1, 0xc0, "1"), (0x6b33_43cf, 0xd0, "6b3343cf"), (0xff00_001d, 0xc0, "ff00001d")]
        {
            let second = packet(version, first, &[crypto(30, &hello[30..]), vec![0; 40], vec![1]].concat());
            let frames = [vec![2, 0, 0, 1, 0, 0, 0], crypto(0, &hello[..30]), vec![0; 40]].concat();
            // Both in one datagram.
            let datagram = [second, packet(version, first, &frames)].concat();
            assert!(plausible(&datagram));
            let mut quic = Stored::new(0, Quic::default());
            quic.data(ToServer, &datagram);
            assert_eq!(quic.ids(), 0..2, "{text}");
            assert_eq!(quic.buffer(0, Buffer::QuicVersion, ToServer, 0), Some(text.as_bytes()));
            assert_eq!(quic.buffer(0, Buffer::QuicSni, ToServer, 0), None);
            assert_eq!(quic.buffer(1, Buffer::QuicSni, ToServer, 0), Some(&b"a.b.com"[..]), "{text}");
            assert_eq!(quic.buffer(1, Buffer::Ja3String, ToServer, 0), Some(&b"771,4865,0,,"[..]));
            assert!(quic.buffer(1, Buffer::Ja4Hash, ToServer, 0).unwrap().starts_with(b"q12d0101"));
            assert!(quic.events(0).is_empty() && quic.events(1).is_empty(), "{:?}", quic.events(1));
            assert_eq!(quic.progress(1, ToServer), Progress::Complete);
            assert_eq!(quic.number(1, Number::TlsVersion, ToServer, 0), None);
        }
    }

    #[test]
    fn googles_hello_is_read() {
        let tags = b"CHLO\x03\0\0\0PAD\0\x02\0\0\0SNI\0\x09\0\0\0UAID\x0c\0\0\0--a.b.com";
        let frames = [&[0xa0, 1, 0, 50][..], tags, b"me!"].concat();
        let new = [&b"\xc3Q046\x50"[..], CONNECTION, &[0, 0, 0, 1], &[9; 12], &frames].concat();
        let old = [&b"\x09"[..], CONNECTION, b"Q043", &[1], &[9; 12], &frames].concat();
        for (bytes, number) in [(new, "46"), (old, "43")] {
            assert!(plausible(&bytes));
            let mut quic = Stored::new(0, Quic::default());
            quic.data(ToServer, &bytes);
            let get =
                |buffer| quic.buffer(0, buffer, ToServer, 0).map(|b| String::from_utf8_lossy(b).into_owned());
            assert_eq!(get(Buffer::QuicVersion), Some(format!("Q0{number}")));
            assert_eq!(get(Buffer::QuicCyuString), Some(format!("{number},PAD-SNI-UAID")));
            assert_eq!(get(Buffer::QuicSni).as_deref(), Some("a.b.com"));
            assert_eq!(get(Buffer::QuicUa).as_deref(), Some("me!"));
        }
    }

    #[test]
    fn broken_and_endless_packets_do_no_harm() {
        let whole = packet(1, 0xc0, &[crypto(0, &hello()), vec![0; 40]].concat());
        let mut quic = Stored::new(0, Quic::default());
        let mut dice = 1u32;
        for round in 0..4000usize {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut bytes = whole.clone();
            let at = (dice >> 8) as usize % bytes.len();
            match round % 3 {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= dice.to_be_bytes()[0] | 1,
                _ => bytes.extend_from_slice(&whole[..at]),
            }
            quic.data(if round % 5 == 0 { ToClient } else { ToServer }, &bytes);
        }
        assert!(quic.memory() < 2 << 20, "{}", quic.memory());
        assert!(quic.ids().end - quic.ids().start <= crate::app::MOST_TRANSACTIONS);
    }
}
