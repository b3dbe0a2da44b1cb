//! WebSocket (RFC 6455), after the `Upgrade` of HTTP: each message is a transaction of the side that sent it, its frames put
//! together, unmasked, and inflated where it was deflated (RFC 7692).

use super::store::{Pending, Reader, Store};
use super::{Buffer, Event, Number, Progress, Step, side};
use crate::flow::Direction;
use flate2::{Decompress, FlushDecompress};

/// Bytes of a message that are kept, sent and inflated.
const MOST: usize = 64 << 10;

/// A message that is not whole.
#[derive(Debug, Default)]
struct Message {
    opcode: u8,
    deflated: bool,
    payload: Vec<u8>,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    pending: Pending,
    /// Bytes of a long frame that are passed over.
    skip: usize,
    message: Option<Message>,
    inflate: Option<Decompress>,
}

/// Reads frames.
#[derive(Debug, Default)]
pub(super) struct Websocket {
    ways: [Way; 2],
}

/// A frame's first bytes.
struct Head {
    /// How many they are.
    length: usize,
    fin: bool,
    deflated: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    payload: u64,
}

/// Reads a frame's first bytes (section 5.2); none when there are not enough.
fn head(bytes: &[u8]) -> Option<Head> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (payload, wide) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
        short => (u64::from(short), 0),
    };
    let mask = if second & 0x80 != 0 { Some(*rest.get(wide..)?.first_chunk()?) } else { None };
    Some(Head {
        length: 2 + wide + if mask.is_some() { 4 } else { 0 },
        fin: first & 0x80 != 0,
        deflated: first & 0x40 != 0,
        opcode: first & 15,
        mask,
        payload,
    })
}

impl Way {
    /// Takes a frame's payload, or as much as is kept of it. The message, if this was its last.
    fn take(&mut self, head: &Head, payload: &[u8]) -> Option<Message> {
        let unmasked = payload.iter().zip((0..4).cycle());
        let bytes: Vec<u8> = unmasked.map(|(byte, at)| byte ^ head.mask.map_or(0, |mask| mask[at])).collect();
        // Control frames stand between those of a message (section 5.4).
        if head.opcode >= 8 {
            return Some(Message { opcode: head.opcode, deflated: false, payload: bytes });
        }
        if head.opcode != 0 || self.message.is_none() {
            self.message =
                Some(Message { opcode: head.opcode, deflated: head.deflated, payload: Vec::new() });
        }
        let message = self.message.as_mut()?;
        let room = MOST.saturating_sub(message.payload.len()).min(bytes.len());
        message.payload.extend_from_slice(&bytes[..room]);
        if head.fin { self.message.take() } else { None }
    }

    /// Inflates a message; the window stays for the next.
    fn inflate(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let engine = self.inflate.get_or_insert_with(|| Decompress::new(false));
        let mut out = Vec::new();
        // The end of a block is not sent (RFC 7692, section 7.2.2).
        for mut input in [payload, &[0, 0, 0xff, 0xff]] {
            while !input.is_empty() && out.len() < MOST {
                let before = (engine.total_in(), engine.total_out());
                out.reserve(4096);
                engine.decompress_vec(input, &mut out, FlushDecompress::Sync).ok()?;
                let taken = usize::try_from(engine.total_in() - before.0).ok()?.min(input.len());
                input = &input[taken..];
                if taken == 0 && engine.total_out() == before.1 {
                    return None;
                }
            }
        }
        out.truncate(MOST);
        Some(out)
    }
}

impl Websocket {
    fn told(&mut self, store: &mut Store, direction: Direction, head: &Head, cut: bool, payload: &[u8]) {
        let way = &mut self.ways[side(direction)];
        let Some(message) = way.take(head, payload) else { return };
        let id = store.create(Some(direction));
        let inflated = if message.deflated { way.inflate(&message.payload) } else { None };
        if message.deflated && inflated.is_none() {
            // The window is not known any more.
            way.inflate = None;
        }
        let payload = inflated.unwrap_or(message.payload);
        store.put(id, Buffer::WebsocketPayload, direction, &payload);
        store.number(id, Number::WebsocketOpcode, direction, message.opcode.into());
        let flags = u64::from(head.fin) << 7 | u64::from(message.deflated) << 6;
        store.number(id, Number::WebsocketFlags, direction, flags);
        store.field(id, "fin", head.fin);
        store.field(id, "opcode", message.opcode);
        if let Some(mask) = head.mask {
            let mask = u32::from_be_bytes(mask);
            store.number(id, Number::WebsocketMask, direction, mask.into());
            store.field(id, "mask", mask);
        }
        if cut {
            store.event(id, Event::WebsocketSkipEnd);
        }
        if payload.len() >= MOST {
            store.event(id, Event::WebsocketReassemblyLimit);
        }
        store.reach(id, direction, Progress::Complete);
    }
}

impl Reader for Websocket {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        let all = self.ways[at].pending.with(bytes);
        let mut rest = &all[..];
        loop {
            let skipped = self.ways[at].skip.min(rest.len());
            self.ways[at].skip -= skipped;
            rest = &rest[skipped..];
            let Some(head) = head(rest) else { break };
            let whole = usize::try_from(head.payload).unwrap_or(usize::MAX);
            let kept = whole.min(MOST);
            let Some(payload) = rest[head.length..].get(..kept) else { break };
            self.told(store, direction, &head, kept < whole, payload);
            self.ways[at].skip = whole - kept;
            rest = &rest[head.length + kept..];
        }
        let rest = rest.len();
        self.ways[at].pending.keep(all, rest);
        Step::Go
    }

    fn memory(&self) -> usize {
        // An engine has its window, and about as much beside it.
        let one = |way: &Way| {
            let engine = if way.inflate.is_some() { 64 << 10 } else { 0 };
            way.pending.memory() + engine + way.message.as_ref().map_or(0, |m| m.payload.capacity())
        };
        self.ways.iter().map(one).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Parser;
    use crate::app::store::Stored;
    use Direction::{ToClient, ToServer};

    fn read(frames: &[u8], piece: usize) -> Stored<Websocket> {
        let mut parser = Stored::new(0, Websocket::default());
        for part in frames.chunks(piece) {
            parser.data(ToClient, part);
        }
        parser
    }

    #[test]
    fn messages_of_the_standard_are_read_however_they_are_cut() {
        // RFC 6455, section 5.7: two fragments with a masked ping between them; RFC 7692, section 7.2.3.2: `Hello` twice.
        let frames = b"\x01\x03Hel\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x80\x02lo\
            \xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00";
        for piece in [1, 3, 100] {
            let parser = read(frames, piece);
            assert_eq!(parser.ids(), 0..4, "pieces of {piece}");
            for id in 0..4 {
                assert_eq!(
                    parser.buffer(id, Buffer::WebsocketPayload, ToClient, 0),
                    Some(&b"Hello"[..]),
                    "{id}"
                );
            }
            assert_eq!(parser.number(0, Number::WebsocketOpcode, ToClient, 0), Some(9));
            assert_eq!(parser.number(0, Number::WebsocketMask, ToClient, 0), Some(0x37fa_213d));
            assert_eq!(parser.number(1, Number::WebsocketFlags, ToClient, 0), Some(0x80));
            assert_eq!(parser.number(2, Number::WebsocketFlags, ToClient, 0), Some(0xc0));
            assert_eq!(parser.only(3), Some(ToClient));
        }
    }

    #[test]
    fn long_and_broken_messages_are_bounded() {
        let mut parser = Stored::new(0, Websocket::default());
        parser.data(ToServer, b"\x82\x7f\0\0\0\0\0\x10\0\0");
        for _ in 0..1024 {
            parser.data(ToServer, &[7; 1024]);
        }
        parser.data(ToServer, b"\x81\x02ok");
        assert_eq!(parser.ids(), 0..2);
        assert_eq!(parser.events(0), [Event::WebsocketSkipEnd, Event::WebsocketReassemblyLimit]);
        assert_eq!(parser.buffer(1, Buffer::WebsocketPayload, ToServer, 0), Some(&b"ok"[..]));
        // A message that does not inflate is told as it is.
        parser.data(ToServer, b"\xc1\x03\xff\xff\xff");
        assert_eq!(parser.buffer(2, Buffer::WebsocketPayload, ToServer, 0), Some(&b"\xff\xff\xff"[..]));
        assert!(parser.memory() < 400 << 10);
    }
}
