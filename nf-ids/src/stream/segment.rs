//! A TCP segment, as the states look at it, and arithmetic of sequence numbers.

use crate::decode::{Decoded, be16};
use crate::flow::Direction;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// What a segment says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) direction: Direction,
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u32,
    pub(super) data: &'a [u8],
    pub(super) scale: Option<u8>,
    pub(super) timestamp: Option<(u32, u32)>,
    pub(super) sack: bool,
    pub(super) fast_open: bool,
    pub(super) signed: bool,
    /// Sequence number of a byte that is urgent: its receiver is given it by itself.
    pub(super) urgent: Option<u32>,
    pub(super) now_ns: u64,
    /// It stands for the end of a flow.
    pub(super) pseudo: bool,
}

impl<'a> Segment<'a> {
    pub(super) fn of(packet: &Decoded<'a>, direction: Direction, now_ns: u64) -> Option<Self> {
        Some(Self {
            direction,
            flags: packet.tcp_flags()?,
            seq: packet.tcp_seq()?,
            ack: packet.tcp_ack()?,
            window: u32::from(packet.tcp_window()?),
            data: packet.payload,
            scale: packet.tcp_fields.scale,
            timestamp: packet.tcp_fields.timestamp,
            sack: packet.tcp_fields.sack.is_some(),
            fast_open: packet.tcp_fields.fast_open,
            signed: packet.tcp_fields.signed,
            urgent: urgent(packet),
            now_ns,
            pseudo: packet.pseudo,
        })
    }

    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Length of the data; a packet has at most 64 KiB.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.data.len()).unwrap_or(0)
    }

    /// Sequence number after the data.
    #[inline]
    pub(super) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len())
    }

    pub(super) fn to_server(self) -> bool {
        self.direction == Direction::ToServer
    }
}

/// The byte before the one that the urgent pointer names, if it is in the data: the last of what is urgent (RFC 9293 §3.8.5),
/// and the only one that hosts give to their receivers by itself (RFC 6093 §3.1).
fn urgent(packet: &Decoded<'_>) -> Option<u32> {
    let pointer = packet.tcp_header().and_then(|header| be16(header, 18)).map_or(0, usize::from);
    let named = packet.tcp_flags().is_some_and(|flags| flags & URG != 0)
        && (1..=packet.payload.len()).contains(&pointer);
    let ahead = u32::try_from(pointer).ok().filter(|_| named)?.wrapping_sub(1);
    packet.tcp_seq().map(|seq| seq.wrapping_add(ahead))
}

/// How far `a` is behind `b` on the circle of sequence numbers; negative if it is before it.
#[inline]
pub(super) fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

#[inline]
pub(super) fn before(a: u32, b: u32) -> bool {
    distance(a, b) < 0
}

#[inline]
pub(super) fn after(a: u32, b: u32) -> bool {
    distance(a, b) > 0
}
