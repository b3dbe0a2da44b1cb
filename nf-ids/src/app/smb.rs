//! SMB 1 to 3 (MS-CIFS, MS-SMB, MS-SMB2): shares, pipes, users and files, as long as nothing is encrypted.
//!
//! A tree connection and a session set-up are a transaction each; so is a file, from its first piece to its closing.

use super::store::{Pending, Reader, Store};
use super::{Buffer, Event, Progress, Step, side};
use crate::flow::Direction;

/// Longest message that is put together; longer ones are passed over.
const MOST_MESSAGE: usize = 1 << 20;
/// Bytes of a file that are kept.
const MOST_FILE: usize = 100 << 10;
/// Files and reads that are followed at once.
const MOST_OPEN: usize = 64;

/// A file's number: 2 bytes in SMB 1, 16 in SMB 2.
type FileId = [u8; 16];

/// Reads messages.
#[derive(Debug, Default)]
pub(super) struct Smb {
    pending: [Pending; 2],
    skip: [usize; 2],
    /// Files that are transferred, their direction and transaction.
    files: Vec<(FileId, Direction, u64)>,
    /// Reads that wait for their answer: number of the message, file.
    reads: Vec<(u64, FileId)>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 2).map(|two| usize::from(u16::from_le_bytes([two[0], two[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at + 4)?;
    usize::try_from(u32::from_le_bytes([four[0], four[1], four[2], four[3]])).ok()
}

/// UTF-16 in UTF-8.
fn from_utf16(bytes: &[u8]) -> Vec<u8> {
    let units = bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
    char::decode_utf16(units)
        .map(|one| one.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect::<String>()
        .into_bytes()
}

fn short_id(bytes: &[u8]) -> FileId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&bytes[..2]);
    id
}

impl Smb {
    /// A message without its NetBIOS header.
    fn message(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) {
        match bytes.get(..4) {
            Some(b"\xffSMB") => {
                self.one(store, direction, bytes);
            }
            Some(b"\xfeSMB") => {
                let mut rest = bytes;
                // Messages that are compounded say where the next begins.
                while rest.len() >= 64 {
                    let next = u32_at(rest, 20).unwrap_or(0);
                    let end = if next >= 64 && next < rest.len() { next } else { rest.len() };
                    self.two(store, direction, &rest[..end]);
                    rest = &rest[end..];
                }
            }
            Some([0xfd | 0xfc, b'S', b'M', b'B']) => {}
            _ => {
                let id = store.create(Some(direction));
                store.event(id, Event::SmbMalformedData);
                store.reach(id, direction, Progress::Complete);
            }
        }
    }

    /// A message of SMB 1 (MS-CIFS, section 2.2.3).
    fn one(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Option<()> {
        let command = *bytes.get(4)?;
        let response = *bytes.get(9)? & 0x80 != 0;
        let unicode = u16_at(bytes, 10)? & 0x8000 != 0;
        let number = u16_at(bytes, 30)? as u64;
        let words = bytes.get(33..33 + 2 * usize::from(*bytes.get(32)?))?;
        let start = 33 + words.len() + 2;
        match (command, response) {
            (0x75, false) => {
                let mut at = start + u16_at(words, 6)?;
                if unicode {
                    at += at % 2;
                }
                let text = bytes.get(at..)?;
                let path = if unicode {
                    let end = text.chunks_exact(2).position(|two| two == [0, 0])?;
                    from_utf16(&text[..2 * end])
                } else {
                    text[..memchr::memchr(0, text)?].to_vec()
                };
                tree(store, &path);
            }
            (0x73, false) => session(store, bytes),
            (0x2f, false) => {
                let length = u16_at(words, 20)? | u16_at(words, 18)? << 16;
                let offset = u16_at(words, 22)?;
                let data = bytes.get(offset..)?;
                let id = short_id(words.get(4..6)?);
                self.content(store, id, direction, &data[..length.min(data.len())]);
            }
            (0x0b, false) => {
                let data = bytes.get(start + 3..)?;
                let length = u16_at(words, 2)?.min(data.len());
                self.content(store, short_id(words.get(..2)?), direction, &data[..length]);
            }
            (0x2e, false) => self.wait(number, short_id(words.get(4..6)?)),
            (0x2e, true) => {
                let (length, offset) = (u16_at(words, 10)?, u16_at(words, 12)?);
                let data = bytes.get(offset..)?;
                let data = &data[..length.min(data.len())];
                self.answer(store, number, direction, data);
            }
            (0x04, false) => self.close(store, short_id(words.get(..2)?)),
            _ => {}
        }
        Some(())
    }

    /// A message of SMB 2 or 3 (MS-SMB2, section 2.2.1).
    fn two(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Option<()> {
        let command = u16_at(bytes, 12)?;
        let response = *bytes.get(16)? & 1 != 0;
        let number = (u32_at(bytes, 24)? as u64) | (u32_at(bytes, 28)? as u64) << 32;
        let body = bytes.get(64..)?;
        let file = |at: usize| FileId::try_from(body.get(at..at + 16)?).ok();
        match (command, response) {
            (1, false) => session(store, bytes),
            (3, false) => {
                let (offset, length) = (u16_at(body, 4)?, u16_at(body, 6)?);
                tree(store, &from_utf16(bytes.get(offset..offset + length)?));
            }
            (6, false) => self.close(store, file(8)?),
            (8, false) => self.wait(number, file(16)?),
            (8, true) => {
                let (offset, length) = (usize::from(*body.get(2)?), u32_at(body, 4)?);
                let data = bytes.get(offset..)?;
                self.answer(store, number, direction, &data[..length.min(data.len())]);
            }
            (9, false) => {
                let (offset, length) = (u16_at(body, 2)?, u32_at(body, 4)?);
                let data = bytes.get(offset..)?;
                self.content(store, file(16)?, direction, &data[..length.min(data.len())]);
            }
            _ => {}
        }
        Some(())
    }

    fn wait(&mut self, number: u64, file: FileId) {
        if self.reads.len() >= MOST_OPEN {
            self.reads.remove(0);
        }
        self.reads.push((number, file));
    }

    fn answer(&mut self, store: &mut Store, number: u64, direction: Direction, data: &[u8]) {
        if let Some(at) = self.reads.iter().position(|(one, _)| *one == number) {
            let (_, file) = self.reads.remove(at);
            self.content(store, file, direction, data);
        }
    }

    /// A piece of a file, whose pieces follow each other.
    fn content(&mut self, store: &mut Store, file: FileId, direction: Direction, data: &[u8]) {
        let known = self.files.iter().find(|(id, way, _)| *id == file && *way == direction);
        let tx = match known {
            Some((_, _, tx)) => *tx,
            None => {
                if self.files.len() >= MOST_OPEN {
                    let (_, _, tx) = self.files.remove(0);
                    store.complete(tx);
                }
                let tx = store.create(Some(direction));
                store.put(tx, Buffer::FileData, direction, b"");
                self.files.push((file, direction, tx));
                tx
            }
        };
        store.extend(tx, Buffer::FileData, direction, data, MOST_FILE);
    }

    fn close(&mut self, store: &mut Store, file: FileId) {
        self.files.retain(|(id, _, tx)| {
            if *id == file {
                store.complete(*tx);
            }
            *id != file
        });
    }
}

/// A connection to a share or to the tree of pipes.
fn tree(store: &mut Store, path: &[u8]) {
    let id = store.create(Some(Direction::ToServer));
    let pipes = path.len() >= 4 && path[path.len() - 4..].eq_ignore_ascii_case(b"IPC$");
    let (buffer, field) =
        if pipes { (Buffer::SmbNamedPipe, "named_pipe") } else { (Buffer::SmbShare, "share") };
    store.put(id, buffer, Direction::ToServer, path);
    store.text(id, field, path);
    store.complete(id);
}

/// A session set-up: who wants in, of NTLMSSP's last message (MS-NLMP, section 2.2.1.3).
fn session(store: &mut Store, bytes: &[u8]) {
    let Some(start) = memchr::memmem::find(bytes, b"NTLMSSP\0") else { return };
    let message = &bytes[start..];
    if u32_at(message, 8) != Some(3) {
        return;
    }
    let id = store.create(Some(Direction::ToServer));
    let unicode = u32_at(message, 60).is_none_or(|flags| flags & 1 != 0);
    let text = |at: usize| {
        let (length, offset) = (u16_at(message, at)?, u32_at(message, at + 4)?);
        let raw = message.get(offset..offset.checked_add(length)?)?;
        Some(if unicode { from_utf16(raw) } else { raw.to_vec() })
    };
    match (text(28), text(36)) {
        (Some(domain), Some(user)) => {
            store.put(id, Buffer::SmbNtlmDomain, Direction::ToServer, &domain);
            store.put(id, Buffer::SmbNtlmUser, Direction::ToServer, &user);
            store.text(id, "domain", &domain);
            store.text(id, "user", &user);
        }
        _ => store.event(id, Event::SmbMalformedNtlmRequest),
    }
    store.complete(id);
}

impl Reader for Smb {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        let all = self.pending[at].with(bytes);
        let mut rest = &all[..];
        loop {
            let skipped = self.skip[at].min(rest.len());
            self.skip[at] -= skipped;
            rest = &rest[skipped..];
            let [kind, high, middle, low, after @ ..] = rest else { break };
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length > MOST_MESSAGE {
                self.skip[at] = 4 + length;
                continue;
            }
            let Some((message, after)) = after.split_at_checked(length) else { break };
            // Other kinds are NetBIOS' own: requests of sessions, keep-alives (RFC 1002, section 4.3).
            if *kind == 0 && !message.is_empty() {
                self.message(store, direction, message);
            }
            rest = after;
        }
        let rest = rest.len();
        self.pending[at].keep(all, rest);
        Step::Go
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Pending::memory).sum::<usize>() + (self.files.len() + self.reads.len()) * 48
    }
}
