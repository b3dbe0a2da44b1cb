//! SSH: banners and key exchange, until everything is encrypted (RFC 4253), and HASSH fingerprints.
//!
//! Each side sends a banner line, then a KEXINIT with what it can do; after NEWKEYS nothing can be read. A flow is one
//! transaction.

use super::event::note;
use super::tls::md5_hex;
use super::{Buffer, Event, Number, Parser, Progress, Step, side};
use crate::flow::Direction;
use serde_json::{Map, Value, json};
use std::ops::Range;

/// Longest banner (RFC 4253, section 4.2).
const MOST_BANNER: usize = 255;
/// Longest packet before encryption (RFC 4253, section 6.1).
const MOST_PACKET: usize = 35_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Banner,
    Packets,
    /// Encrypted, or not to be read.
    Done,
}

#[derive(Debug, Default)]
struct Side {
    place: Place,
    pending: Vec<u8>,
    skip: usize,
    progress: Progress,
    proto: Vec<u8>,
    software: Vec<u8>,
    hassh: Vec<u8>,
    hassh_text: Vec<u8>,
}

/// The parser of one flow.
#[derive(Debug)]
pub(super) struct Ssh {
    first: u64,
    begun: bool,
    released: bool,
    sides: [Side; 2],
    events: Vec<Event>,
}

impl Ssh {
    /// With the one transaction's id.
    pub(super) fn new(first: u64) -> Ssh {
        Ssh { first, begun: false, released: false, sides: Default::default(), events: Vec::new() }
    }

    /// The banner line. Bytes used; none: more are needed.
    fn banner(&mut self, direction: Direction, input: &[u8]) -> Option<usize> {
        let side = &mut self.sides[side(direction)];
        let end = memchr::memchr(b'\n', input);
        let line = match end {
            Some(end) => &input[..end],
            None if input.len() <= MOST_BANNER => return None,
            None => {
                note(&mut self.events, Event::SshLongBanner);
                side.place = Place::Done;
                side.progress = Progress::Complete;
                return Some(input.len());
            }
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let used = end.map_or(input.len(), |end| end + 1);
        let Some(rest) = line.strip_prefix(b"SSH-") else {
            // A server may send other lines before its banner.
            return Some(used);
        };
        if line.len() > MOST_BANNER {
            note(&mut self.events, Event::SshLongBanner);
        }
        match memchr::memchr(b'-', rest) {
            Some(at) if at > 0 => {
                side.proto = rest[..at].to_vec();
                let software = &rest[at + 1..];
                let end = software.iter().position(|byte| *byte == b' ').unwrap_or(software.len());
                side.software = software[..end].to_vec();
                side.place = Place::Packets;
                side.progress = Progress::Line;
            }
            _ => {
                note(&mut self.events, Event::SshInvalidBanner);
                side.place = Place::Done;
                side.progress = Progress::Complete;
            }
        }
        Some(used)
    }

    /// One packet, or what there is of it.
    fn packet(&mut self, direction: Direction, input: &[u8]) -> Option<usize> {
        let at = side(direction);
        let [a, b, c, d, padding, kind, ..] = input else { return None };
        let length = u32::from_be_bytes([*a, *b, *c, *d]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(2..=MOST_PACKET).contains(&length) || usize::from(*padding) >= length {
            note(&mut self.events, Event::SshInvalidRecord);
            self.sides[at].place = Place::Done;
            self.sides[at].progress = Progress::Complete;
            return Some(input.len());
        }
        match kind {
            20 => {
                let body = input.get(6..4 + length)?;
                let body = &body[..body.len().saturating_sub(usize::from(*padding))];
                self.key_exchange(direction, body);
            }
            21 => {
                self.sides[at].place = Place::Done;
                self.sides[at].progress = Progress::Complete;
            }
            _ => {
                let here = input.len().min(4 + length);
                self.sides[at].skip = 4 + length - here;
                return Some(here);
            }
        }
        Some(4 + length)
    }

    /// A KEXINIT's lists (RFC 4253, section 7.1).
    fn key_exchange(&mut self, direction: Direction, body: &[u8]) {
        let mut lists: Vec<&[u8]> = Vec::new();
        let mut rest = body.get(16..).unwrap_or_default();
        while lists.len() < 10 {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            let Some((list, after)) = after.split_at_checked(length) else { break };
            lists.push(list);
            rest = after;
        }
        let side = &mut self.sides[side(direction)];
        if lists.len() < 10 {
            note(&mut self.events, Event::SshInvalidRecord);
        } else if side.hassh.is_empty() {
            // Key exchange, ciphers, MACs and compression in the direction that the sender sends in.
            let own: &[usize] = match direction {
                Direction::ToServer => &[0, 2, 4, 6],
                Direction::ToClient => &[0, 3, 5, 7],
            };
            let parts: Vec<&[u8]> = own.iter().map(|index| lists[*index]).collect();
            side.hassh_text = parts.join(&b';');
            side.hassh = md5_hex(&side.hassh_text).into_bytes();
        }
        side.progress = side.progress.max(Progress::Headers);
    }
}

impl Parser for Ssh {
    fn data(&mut self, direction: Direction, bytes: &[u8]) -> Step {
        self.begun = true;
        let at = side(direction);
        if self.sides[at].place == Place::Done {
            return if self.sides.iter().all(|side| side.place == Place::Done) {
                Step::Stop
            } else {
                Step::Go
            };
        }
        let mut all = std::mem::take(&mut self.sides[at].pending);
        all.extend_from_slice(bytes);
        let mut rest = &all[..];
        while !rest.is_empty() {
            let skipped = self.sides[at].skip.min(rest.len());
            self.sides[at].skip -= skipped;
            rest = &rest[skipped..];
            let used = match self.sides[at].place {
                Place::Banner => self.banner(direction, rest),
                Place::Packets => self.packet(direction, rest),
                Place::Done => Some(rest.len()),
            };
            match used {
                Some(used) => rest = &rest[used.min(rest.len())..],
                None => break,
            }
        }
        self.sides[at].pending = rest.to_vec();
        Step::Go
    }

    fn gap(&mut self, direction: Direction, length: usize) -> Step {
        let side = &mut self.sides[side(direction)];
        match side.skip.checked_sub(length) {
            Some(left) => side.skip = left,
            None => {
                side.place = Place::Done;
                side.progress = Progress::Complete;
                side.pending = Vec::new();
            }
        }
        Step::Go
    }

    fn end(&mut self, direction: Direction) {
        self.sides[side(direction)].place = Place::Done;
        self.sides[side(direction)].progress = Progress::Complete;
    }

    fn ids(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.begun && !self.released)
    }

    fn progress(&self, _: u64, direction: Direction) -> Progress {
        self.sides[side(direction)].progress
    }

    fn buffer(&self, _: u64, buffer: Buffer, direction: Direction, index: usize) -> Option<&[u8]> {
        if index > 0 || !buffer.is_in(direction) {
            return None;
        }
        let side = &self.sides[side(direction)];
        let bytes = match buffer {
            Buffer::SshProto => &side.proto,
            Buffer::SshSoftware => &side.software,
            Buffer::SshHassh | Buffer::SshHasshServer => &side.hassh,
            Buffer::SshHasshString | Buffer::SshHasshServerString => &side.hassh_text,
            _ => return None,
        };
        (!bytes.is_empty()).then_some(bytes)
    }

    fn number(&self, _: u64, _: Number, _: Direction, _: usize) -> Option<u64> {
        None
    }

    fn events(&self, _: u64) -> &[Event] {
        &self.events
    }

    fn describe(&self, _: u64) -> Map<String, Value> {
        let text = super::text::readable;
        let mut fields = Map::new();
        for (name, side) in ["client", "server"].iter().zip(&self.sides) {
            if !side.proto.is_empty() {
                let mut one =
                    json!({"proto_version": text(&side.proto), "software_version": text(&side.software)});
                if !side.hassh.is_empty() {
                    one["hassh"] = json!({"hash": text(&side.hassh), "string": text(&side.hassh_text)});
                }
                fields.insert((*name).into(), one);
            }
        }
        fields
    }

    fn release(&mut self, below: u64) {
        if below > self.first && self.sides.iter().all(|side| side.progress == Progress::Complete) {
            self.released = true;
        }
    }

    fn memory(&self) -> usize {
        let side = |side: &Side| side.pending.capacity() + 2 * side.hassh_text.capacity() + 2 * MOST_BANNER;
        size_of::<Ssh>() + self.sides.iter().map(side).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{ToClient, ToServer};

    /// A banner and a KEXINIT whose lists are `a0` to `a9`.
    fn stream() -> Vec<u8> {
        let mut body = vec![20];
        body.extend([9; 16]);
        for n in 0..10 {
            body.extend([0, 0, 0, 2, b'a', b'0' + n]);
        }
        body.extend([0; 5]);
        let mut stream = b"SSH-2.0-OpenSSH_9.0 comment\r\n".to_vec();
        let length = u32::try_from(body.len() + 1 + 4).unwrap();
        stream.extend(length.to_be_bytes());
        stream.push(4);
        stream.extend(&body);
        stream.extend([0; 4]);
        stream
    }

    #[test]
    fn banner_and_lists_are_read_however_they_are_cut() {
        let stream = stream();
        for piece in 1..stream.len() + 1 {
            let mut ssh = Ssh::new(0);
            for part in stream.chunks(piece) {
                ssh.data(ToServer, part);
                ssh.data(ToClient, part);
            }
            let get = |buffer, direction| ssh.buffer(0, buffer, direction, 0).map(<[u8]>::to_vec);
            assert_eq!(get(Buffer::SshProto, ToServer), Some(b"2.0".to_vec()));
            assert_eq!(get(Buffer::SshSoftware, ToClient), Some(b"OpenSSH_9.0".to_vec()));
            assert_eq!(get(Buffer::SshHasshString, ToServer), Some(b"a0;a2;a4;a6".to_vec()), "{piece}");
            assert_eq!(get(Buffer::SshHasshServerString, ToClient), Some(b"a0;a3;a5;a7".to_vec()));
            assert_eq!(get(Buffer::SshHassh, ToServer), Some(md5_hex(b"a0;a2;a4;a6").into_bytes()));
            assert_eq!(get(Buffer::SshHassh, ToClient), None);
            assert!(ssh.events(0).is_empty());
        }
    }

    #[test]
    fn endless_banners_and_packets_end() {
        let mut ssh = Ssh::new(0);
        ssh.data(ToServer, &[b'x'; 300]);
        assert_eq!(ssh.events(0), [Event::SshLongBanner]);
        let mut ssh = Ssh::new(0);
        ssh.data(ToServer, b"SSH-2.0-x\n\xff\xff\xff\xff\0\x14");
        assert_eq!(ssh.events(0), [Event::SshInvalidRecord]);
    }
}
