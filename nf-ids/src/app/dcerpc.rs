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
}

impl Dcerpc {
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
        self.calls.push(Call { number, tx: store.create(None), stub: Default::default() });
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
