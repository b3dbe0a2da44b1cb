//! RFB, the protocol of VNC (RFC 6143): the handshake. A flow is one transaction.

use super::store::{Pending, Reader, Store};
use super::{Buffer, Event, Number, Progress, Step, side};
use crate::flow::Direction;

/// What comes next, and from whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    ServerVersion,
    ClientVersion,
    /// A list of types, or in version 3.3 the server's choice.
    Types,
    Choice,
    Challenge,
    Response,
    Result,
    Reason,
    ClientInit,
    ServerInit,
    Done,
}

/// Longest name or reason.
const MOST_TEXT: usize = 64 << 10;

/// Reads the handshake.
#[derive(Debug, Default)]
pub(super) struct Rfb {
    pending: [Pending; 2],
    next: Next,
    /// Minor version of 3.x.
    minor: u32,
    chosen: u8,
    tx: Option<u64>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

impl Rfb {
    fn speaker(&self) -> Option<Direction> {
        Some(match self.next {
            Next::ClientVersion | Next::Choice | Next::Response | Next::ClientInit => Direction::ToServer,
            Next::Done => return None,
            _ => Direction::ToClient,
        })
    }

    fn security(&mut self, store: &mut Store, id: u64, chosen: u32) {
        store.number(id, Number::RfbSecType, Direction::ToServer, u64::from(chosen));
        store.field(id, "security_type", chosen);
        self.chosen = u8::try_from(chosen).unwrap_or(0);
        self.next = match chosen {
            0 => Next::Reason,
            1 if self.minor >= 8 => Next::Result,
            1 => Next::ClientInit,
            2 => Next::Challenge,
            _ => {
                store.event(id, Event::RfbUnimplementedSecurity);
                Next::Done
            }
        };
    }

    /// One message of whoever is to speak. Bytes used; none: more are needed.
    fn message(&mut self, store: &mut Store, id: u64, input: &[u8]) -> Option<usize> {
        match self.next {
            Next::ServerVersion | Next::ClientVersion => {
                let text = input.get(..12)?;
                let minor = std::str::from_utf8(&text[8..11]).ok().and_then(|digits| digits.parse().ok());
                match minor.filter(|_| text.starts_with(b"RFB ")) {
                    Some(minor) => self.minor = minor,
                    None => store.event(id, Event::RfbMalformedMessage),
                }
                self.next = if self.next == Next::ServerVersion { Next::ClientVersion } else { Next::Types };
                Some(12)
            }
            Next::Types if self.minor < 7 => {
                let chosen = u32_at(input, 0)?;
                self.security(store, id, chosen);
                Some(4)
            }
            Next::Types => {
                let count = usize::from(*input.first()?);
                input.get(..1 + count)?;
                self.next = if count == 0 { Next::Reason } else { Next::Choice };
                Some(1 + count)
            }
            Next::Choice => {
                self.security(store, id, u32::from(*input.first()?));
                Some(1)
            }
            Next::Challenge | Next::Response => {
                input.get(..16)?;
                self.next = if self.next == Next::Challenge { Next::Response } else { Next::Result };
                Some(16)
            }
            Next::Result => {
                let result = u32_at(input, 0)?;
                store.number(id, Number::RfbSecResult, Direction::ToClient, u64::from(result));
                store.field(id, "security_result", result);
                if result > 2 {
                    store.event(id, Event::RfbUnknownSecurityResult);
                }
                self.next = if result == 0 { Next::ClientInit } else { Next::Reason };
                Some(4)
            }
            Next::Reason => {
                let length = usize::try_from(u32_at(input, 0)?).unwrap_or(usize::MAX).min(MOST_TEXT);
                input.get(..4 + length)?;
                self.next = Next::Done;
                Some(4 + length)
            }
            Next::ClientInit => {
                input.first()?;
                self.next = Next::ServerInit;
                Some(1)
            }
            Next::ServerInit => {
                let length = usize::try_from(u32_at(input, 20)?).unwrap_or(usize::MAX).min(MOST_TEXT);
                let name = input.get(24..24 + length)?;
                store.put(id, Buffer::RfbName, Direction::ToClient, name);
                store.text(id, "name", name);
                self.next = Next::Done;
                Some(24 + length)
            }
            Next::Done => Some(input.len()),
        }
    }

    fn step(&mut self, store: &mut Store) -> bool {
        let Some(speaker) = self.speaker() else { return false };
        let at = side(speaker);
        let all = self.pending[at].with(&[]);
        let id = *self.tx.get_or_insert_with(|| store.create(None));
        let used = self.message(store, id, &all);
        let rest = all.len().saturating_sub(used.unwrap_or(0));
        self.pending[at].keep(all, rest);
        if self.next == Next::Done {
            store.complete(id);
        }
        used.is_some()
    }
}

impl Reader for Rfb {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        if self.next == Next::Done {
            return Step::Stop;
        }
        let all = self.pending[side(direction)].with(bytes);
        if all.len() > 2 * MOST_TEXT {
            if let Some(id) = self.tx {
                store.event(id, Event::RfbConfusedState);
                store.reach(id, direction, Progress::Complete);
            }
            return Step::Stop;
        }
        let rest = all.len();
        self.pending[side(direction)].keep(all, rest);
        while self.step(store) {}
        Step::Go
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Pending::memory).sum()
    }
}
