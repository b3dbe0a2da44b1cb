//! Google's QUIC to version 46: the client's first message is not encrypted, and made of tags.
//!
//! CYU is a fingerprint of it: the version's number and the tags in their order.

use super::Store;
use crate::app::{Buffer, Event, tls};
use crate::flow::Direction;

/// Tags of one message.
const MOST_TAGS: usize = 128;
/// Bytes of the hash that stands before a packet's frames.
const HASH: usize = 12;

/// Where a packet's frames begin, behind its header, number and hash.
fn frames(bytes: &[u8]) -> Option<&[u8]> {
    let first = *bytes.first()?;
    let header = if first & 0x80 != 0 {
        // Version 44 and later: lengths of both numbers of the connection in one byte, 0 or less by 3 than they are.
        let lengths = *bytes.get(5)?;
        let length = |nibble: u8| if nibble == 0 { 0 } else { usize::from(nibble) + 3 };
        6 + length(lengths >> 4) + length(lengths & 15) + usize::from(first & 3) + 1
    } else {
        let number = [1, 2, 4, 6][usize::from(first >> 4 & 3)];
        1 + 8 + 4 + number
    };
    bytes.get(header + HASH..)
}

/// The message in the first frame of a stream: its tags with their values.
fn message(mut frames: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    while frames.first() == Some(&0) {
        frames = &frames[1..];
    }
    // A stream's frame: 1FDOOOSS.
    let kind = *frames.first()?;
    if kind & 0x80 == 0 {
        return None;
    }
    let offset = match kind >> 2 & 7 {
        0 => 0,
        more => usize::from(more) + 1,
    };
    let start = 1 + usize::from(kind & 3) + 1 + offset + if kind & 0x20 != 0 { 2 } else { 0 };
    let message = frames.get(start..)?;
    if !message.starts_with(b"CHLO") {
        return None;
    }
    let count = usize::from(u16::from_le_bytes([*message.get(4)?, *message.get(5)?]));
    let values = message.get(8 + 8 * count..)?;
    let (mut all, mut from) = (Vec::new(), 0);
    for entry in message[8..8 + 8 * count].chunks_exact(8).take(MOST_TAGS) {
        let to = usize::try_from(u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]])).ok()?;
        // Padding may go beyond the packet.
        let value = values.get(from..to.min(values.len())).unwrap_or_default();
        let end = entry[..4].iter().position(|byte| *byte == 0).unwrap_or(4);
        all.push((&entry[..end], value));
        from = to;
    }
    Some(all)
}

/// Reads a packet of the client's.
pub(super) fn read(store: &mut Store, direction: Direction, id: u64, version: u32, bytes: &[u8]) {
    let [kind, a, b, c] = version.to_be_bytes();
    if direction != Direction::ToServer || kind != b'Q' || (a, b, c) >= (b'0', b'5', b'0') {
        return;
    }
    let Some(frames) = frames(bytes) else { return store.event(id, Event::QuicErrorOnData) };
    let Some(tags) = message(frames) else { return };
    let names: Vec<&[u8]> = tags.iter().map(|(name, _)| *name).collect();
    let number = [b, c];
    let cyu = [&number[..], b",", &names.join(&b'-')].concat();
    let hash = tls::md5_hex(&cyu);
    store.put(id, Buffer::QuicCyuHash, direction, hash.as_bytes());
    store.put(id, Buffer::QuicCyuString, direction, &cyu);
    store.field(id, "cyu", serde_json::json!([{"hash": hash, "string": crate::app::text::readable(&cyu)}]));
    for (name, value) in tags {
        match name {
            b"SNI" => {
                store.put(id, Buffer::QuicSni, direction, value);
                store.text(id, "sni", value);
            }
            b"UAID" => {
                store.put(id, Buffer::QuicUa, direction, value);
                store.text(id, "ua", value);
            }
            _ => {}
        }
    }
}
