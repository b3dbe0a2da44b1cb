//! DCE/RPC over TCP (C706, chapter 12): calls with their stub data, over fragments. A call is a transaction.

use super::store::{Pending, Reader, Store};
use super::{Buffer, Number, Progress, Step, side};
use crate::flow::Direction;

/// Length of the header that all messages have.
const HEADER: usize = 16;
/// Calls that wait for their response.
const MOST_OPEN: usize = 64;
/// Bytes of stub data that are kept of all calls that are open.
const MOST_STUB: usize = 1 << 20;

/// Interfaces of a connection.
const MOST_INTERFACES: usize = 64;

/// An interface that the client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interface {
    /// Its number in the order of its text, and its version.
    name: [u8; 18],
    accepted: bool,
}

/// A call that is not finished: id, transaction, and in each direction what stub data came.
#[derive(Debug)]
struct Call {
    number: u32,
    tx: u64,
    stub: [Vec<u8>; 2],
}

/// Reads messages.
#[derive(Debug, Default)]
pub(super) struct Dcerpc {
    pending: [Pending; 2],
    calls: Vec<Call>,
    interfaces: Vec<Interface>,
    /// Where those of the last offer begin, which is not answered.
    offered: usize,
}

/// Whether these bytes begin a message, of which no more than 64 KiB can follow.
pub(super) fn is_message(bytes: &[u8]) -> bool {
    match bytes {
        [5, 0 | 1, 0 | 2 | 3 | 11..=19, _, order, 0, 0, 0, a, b, ..] if bytes.len() >= HEADER => {
            let length = if order & 0x10 != 0 { [*b, *a] } else { [*a, *b] };
            matches!(order, 0 | 0x10) && usize::from(u16::from_be_bytes(length)) >= HEADER
        }
        _ => false,
    }
}

/// The number of an interface in the order of its text, and its version.
fn interface(item: &[u8], little: bool) -> Option<[u8; 18]> {
    let mut name: [u8; 18] = item.get(..18)?.try_into().ok()?;
    if little {
        name[..4].reverse();
        name[4..6].reverse();
        name[6..8].reverse();
        name[16..].reverse();
    }
    Some(name)
}

impl Dcerpc {
    /// Interfaces that are asked for (C706, section 12.6.4.3): of each its context, syntaxes, number and version.
    fn offer(&mut self, bytes: &[u8], little: bool) -> Option<()> {
        let count = *bytes.get(HEADER + 8)?;
        let mut at = HEADER + 12;
        self.offered = self.interfaces.len();
        for _ in 0..count {
            let syntaxes = usize::from(*bytes.get(at + 2)?);
            let name = interface(bytes.get(at + 4..)?, little)?;
            if self.interfaces.len() < MOST_INTERFACES {
                self.interfaces.push(Interface { name, accepted: false });
            }
            at += 24 + 20 * syntaxes;
        }
        Some(())
    }

    /// What became of them (section 12.6.4.4): after an address, a result for each.
    fn answer(&mut self, bytes: &[u8], two: impl Fn(usize) -> u16) -> Option<()> {
        let address = HEADER + 8;
        let list = (address + 2 + usize::from(two(address))).next_multiple_of(4);
        let count = usize::from(*bytes.get(list)?);
        let offered = self.interfaces.len().min(self.offered);
        for (number, one) in self.interfaces[offered..].iter_mut().enumerate().take(count) {
            let at = list + 4 + 24 * number;
            one.accepted = bytes.len() >= at + 2 && two(at) == 0;
        }
        self.offered = self.interfaces.len();
        Some(())
    }

    /// One whole fragment.
    fn fragment(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) {
        let little = bytes[4] & 0x10 != 0;
        let two = |at: usize| {
            let pair = bytes.get(at..at + 2).map_or([0, 0], |pair| [pair[0], pair[1]]);
            if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
        };
        let (low, high) = if little { (two(12), two(14)) } else { (two(14), two(12)) };
        let number = u32::from(high) << 16 | u32::from(low);
        let (kind, flags) = (bytes[2], bytes[3]);
        match (kind, direction) {
            (11 | 14, Direction::ToServer) => self.offer(bytes, little).unwrap_or_default(),
            (12 | 15, Direction::ToClient) => self.answer(bytes, two).unwrap_or_default(),
            _ => {}
        }
        if !matches!((kind, direction), (0, Direction::ToServer) | (2, Direction::ToClient)) {
            return;
        }
        let at = self.call(store, number);
        let held: usize = self.calls.iter().flat_map(|call| &call.stub).map(Vec::len).sum();
        let call = &mut self.calls[at];
        // As Suricata has it: of requests all after the call's numbers, of responses all after the header; an object's
        // number and the verifier at the end belong to it.
        let stub = bytes.get(HEADER + if kind == 0 { 8 } else { 0 }..).unwrap_or_default();
        let kept = &mut call.stub[side(direction)];
        let room = stub.len().min(MOST_STUB.saturating_sub(held));
        kept.extend_from_slice(&stub[..room]);
        let tx = call.tx;
        if kind == 0 && flags & 1 != 0 {
            store.number(tx, Number::DceOpnum, direction, u64::from(two(22)));
            store.field(tx, "opnum", two(22));
        }
        if flags & 2 != 0 {
            let whole = std::mem::take(kept);
            store.put(tx, Buffer::DceStubData, direction, &whole);
            store.reach(tx, direction, Progress::Complete);
            if direction == Direction::ToClient {
                store.complete(tx);
                self.calls.remove(at);
            }
        }
    }

    /// The call of a number; a new one when there is none.
    fn call(&mut self, store: &mut Store, number: u32) -> usize {
        if let Some(at) = self.calls.iter().rposition(|call| call.number == number) {
            return at;
        }
        if self.calls.len() >= MOST_OPEN {
            let old = self.calls.remove(0);
            store.complete(old.tx);
        }
        let tx = store.create(None);
        for one in self.interfaces.iter().filter(|one| one.accepted) {
            for direction in [Direction::ToServer, Direction::ToClient] {
                store.put(tx, Buffer::DceInterface, direction, &one.name);
            }
        }
        self.calls.push(Call { number, tx, stub: Default::default() });
        self.calls.len() - 1
    }
}

impl Reader for Dcerpc {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        let all = self.pending[at].with(bytes);
        let mut rest = &all[..];
        while rest.len() >= HEADER {
            if rest[0] != 5 || rest[1] > 1 {
                return Step::Stop;
            }
            let pair = [rest[8], rest[9]];
            let length =
                if rest[4] & 0x10 != 0 { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) };
            let length = usize::from(length);
            if length < HEADER {
                return Step::Stop;
            }
            let Some((fragment, after)) = rest.split_at_checked(length) else { break };
            self.fragment(store, direction, fragment);
            rest = after;
        }
        let rest = rest.len();
        self.pending[at].keep(all, rest);
        Step::Go
    }

    fn memory(&self) -> usize {
        let stubs = |call: &Call| call.stub.iter().map(Vec::capacity).sum::<usize>() + size_of::<Call>();
        self.pending.iter().map(Pending::memory).sum::<usize>() + self.calls.iter().map(stubs).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Parser;
    use crate::app::store::Stored;
    use Direction::{ToClient, ToServer};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(HEADER + body.len()).unwrap().to_le_bytes();
        [&[5, 0, kind, 3, 0x10, 0, 0, 0], &length[..], &[0, 0, 1, 0, 0, 0], body].concat()
    }

    #[test]
    fn calls_have_the_interfaces_that_were_accepted() {
        let item = |context: u8, first: u8| {
            let mut item =
                vec![context, 0, 1, 0, first, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 3, 0, 1, 0];
            item.extend([0; 20]);
            item
        };
        let bind = message(11, &[vec![0; 8], vec![2, 0, 0, 0], item(0, 1), item(1, 77)].concat());
        let results = [&[0; 24][..], &[2, 0, 1, 0][..], &[0; 20]].concat();
        let answer = message(12, &[&[0; 8][..], b"\x04\x00135\0\0\0", &[2, 0, 0, 0], &results].concat());
        let call = message(0, &[0, 0, 0, 0, 0, 0, 9, 0, b's']);
        assert!(is_message(&bind) && is_message(&call) && !is_message(b"\x05\0\0\x03 text that is none"));
        for piece in [1, 7, 1000] {
            let mut rpc = Stored::new(0, Dcerpc::default());
            for (way, bytes) in [(ToServer, &bind), (ToClient, &answer), (ToServer, &call)] {
                for part in bytes.chunks(piece) {
                    rpc.data(way, part);
                }
            }
            let name = [4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16, 0, 3];
            assert_eq!(
                rpc.buffer(0, Buffer::DceInterface, ToServer, 0),
                Some(&name[..]),
                "pieces of {piece}"
            );
            assert_eq!(rpc.buffer(0, Buffer::DceInterface, ToServer, 1), None, "the other was refused");
            assert_eq!(rpc.number(0, Number::DceOpnum, ToServer, 0), Some(9));
        }
    }
}
