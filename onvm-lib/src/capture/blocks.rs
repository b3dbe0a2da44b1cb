//! pcapng blocks, put one after the other into memory: for [`Writer`](super::Writer), and for whoever brings them to a file
//! by other means.
//!
//! A file is a [`section`], an [`interface`] block for each interface, and [`packet`] blocks; it can be cut off after any
//! block. Everything is little-endian. Layouts: `draft-ietf-opsawg-pcapng`, sections 3 and 4.

use super::{Frame, LinkType, MAX_CAPTURED};

/// Which way a packet went, as its interface saw it (`epb_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came in.
    Inbound,
    /// It was sent.
    Outbound,
}

impl Direction {
    const fn bits(self) -> u32 {
        match self {
            Self::Inbound => 1,
            Self::Outbound => 2,
        }
    }
}

const OPTION_COMMENT: u16 = 1;
const OPTION_FLAGS: u16 = 2;
/// Code, length, and bits.
const FLAGS: u32 = 8;
/// The end of options.
const END: [u8; 4] = [0; 4];

/// Begins a file.
pub fn section(out: &mut Vec<u8>) {
    const APPLICATION: &[u8; 8] = b"onvm-lib";
    let total: u32 = 24 + 4 + 8 + 4 + 4;
    let mut header = [0; 24];
    // Version 1.0, and an unknown section length (-1): it is written as a stream.
    put_u32s(&mut header, [0x0a0d_0d0a, total, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX]);
    out.extend_from_slice(&header);
    option(out, 4, APPLICATION);
    out.extend_from_slice(&END);
    out.extend_from_slice(&total.to_le_bytes());
}

/// Describes the next interface: the first is number 0. Its packets have times in nanoseconds. Of the name no more than the
/// first 65,535 bytes are written.
pub fn interface(out: &mut Vec<u8>, link_type: LinkType, name: &str) {
    let name = clip(name);
    let named = if name.is_empty() { 0 } else { option_length(name) };
    // Header, name, if_tsresol, end of options, trailer.
    let total = 16 + named + 8 + 4 + 4;
    let mut header = [0; 16];
    put_u32s(&mut header, [1, total, u32::from(link_type.number()), MAX_CAPTURED]);
    out.extend_from_slice(&header);
    if !name.is_empty() {
        option(out, 2, name);
    }
    option(out, 9, &[9]);
    out.extend_from_slice(&END);
    out.extend_from_slice(&total.to_le_bytes());
}

/// A packet, of which no more than the first [`MAX_CAPTURED`] bytes are written, with its direction and a comment (`opt_comment`,
/// no more than the first 65,535 bytes) where there are any.
#[inline]
pub fn packet(out: &mut Vec<u8>, frame: &Frame<'_>, direction: Option<Direction>, comment: &str) {
    let comment = clip(comment);
    let data = &frame.data[..frame.data.len().min(MAX_CAPTURED as usize)];
    // At most MAX_CAPTURED.
    let length = u32::try_from(data.len()).unwrap_or(MAX_CAPTURED);
    let flags = if direction.is_some() { FLAGS } else { 0 };
    let text = if comment.is_empty() { 0 } else { option_length(comment) };
    let end = if flags + text > 0 { 4 } else { 0 };
    let total = 28 + length.next_multiple_of(4) + flags + text + end + 4;
    #[expect(clippy::cast_possible_truncation, reason = "each half of a 64-bit number is 32 bits")]
    let (high, low) = ((frame.timestamp_ns >> 32) as u32, frame.timestamp_ns as u32);
    let mut head = [0; 28];
    put_u32s(&mut head, [6, total, frame.interface, high, low, length, frame.original_len]);
    out.extend_from_slice(&head);
    out.extend_from_slice(data);
    pad(out, data.len());
    if let Some(direction) = direction {
        option(out, OPTION_FLAGS, &direction.bits().to_le_bytes());
    }
    if !comment.is_empty() {
        option(out, OPTION_COMMENT, comment);
    }
    if end > 0 {
        out.extend_from_slice(&END);
    }
    out.extend_from_slice(&total.to_le_bytes());
}

/// As much of a text as an option has room for.
fn clip(text: &str) -> &[u8] {
    let most = usize::from(u16::MAX);
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

/// Bytes of an option with a value that was clipped.
fn option_length(value: &[u8]) -> u32 {
    4 + u32::try_from(value.len()).unwrap_or(0).next_multiple_of(4)
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

/// Puts numbers into `out`, which has room for exactly these.
#[inline]
pub(super) fn put_u32s<const N: usize>(out: &mut [u8], numbers: [u32; N]) {
    for (place, number) in out.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// Fills up to a multiple of 4 what is `length` bytes long.
#[inline]
fn pad(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&[0; 3][..length.next_multiple_of(4) - length]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Reader;

    #[test]
    fn blocks_are_read_back_whatever_they_carry() {
        let mut out = Vec::new();
        section(&mut out);
        interface(&mut out, LinkType::Ethernet, "port 0");
        interface(&mut out, LinkType::Ethernet, "");
        let data: Vec<u8> = (0..100).collect();
        let long = "é".repeat(40_000);
        let directions = [None, Some(Direction::Inbound), Some(Direction::Outbound)];
        let mut wanted = Vec::new();
        for (number, direction) in (0u32..).zip(directions.iter().cycle().take(24)) {
            let length = number as usize;
            let frame = Frame {
                timestamp_ns: u64::from(number) << 33,
                original_len: number + 7,
                link_type: LinkType::Ethernet,
                interface: number % 2,
                data: &data[..length],
            };
            let comment = ["", "x", "four", long.as_str()][length / 6];
            packet(&mut out, &frame, *direction, comment);
            wanted.push((frame.timestamp_ns, frame.original_len, frame.interface, length));
        }
        let mut reader = Reader::new(std::io::Cursor::new(out), "memory").unwrap();
        let mut read = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            assert_eq!(frame.data, &data[..frame.data.len()]);
            read.push((frame.timestamp_ns, frame.original_len, frame.interface, frame.data.len()));
        }
        assert_eq!(read, wanted);
    }

    #[test]
    fn directions_stand_where_other_readers_look() {
        let mut out = Vec::new();
        let frame = Frame {
            timestamp_ns: 0,
            original_len: 1,
            link_type: LinkType::Ethernet,
            interface: 0,
            data: &[0xab],
        };
        packet(&mut out, &frame, Some(Direction::Outbound), "hi");
        // Type 6, 56 bytes in all; behind the padded frame the flags, the comment, the end, and the length again.
        assert_eq!((out.len(), &out[..8]), (56, &[6, 0, 0, 0, 56, 0, 0, 0][..]));
        assert_eq!(out[28..32], [0xab, 0, 0, 0]);
        assert_eq!(out[32..40], [2, 0, 4, 0, 2, 0, 0, 0]);
        assert_eq!(out[40..48], [1, 0, 2, 0, b'h', b'i', 0, 0]);
        assert_eq!(out[48..], [0, 0, 0, 0, 56, 0, 0, 0]);
    }
}
