//! What drivers leave undone on frames that came in.
//!
//! VLAN tags that a device took out are put back: NFs see frames as they were on the wire. Drivers on sockets of the kernel's
//! hand over frames of local TCP with half a checksum, and say nothing of it; but the half is known: it is the sum of the
//! pseudo header, which stands where the checksum belongs. A frame of which that is true and the whole checksum is not
//! gets the whole one. Super-frames those drivers cut off at the length of their slots; such a frame says itself that it
//! was longer.

use onvm_lib::wire::checksum::Sum;

use super::super::offload::complete;

const ETHERNET: usize = 14;
const VLAN: [u16; 2] = [0x8100, 0x88a8];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A frame was longer than what is there of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut;

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Where a transport header starts, which it is, and the sum of its pseudo header.
struct Transport {
    start: usize,
    checksum: usize,
    pseudo: Sum,
    end: usize,
}

/// Completes half a checksum of a frame from a socket of the kernel's.
///
/// # Errors
/// [`Cut`].
pub(super) fn complete_half(frame: &mut [u8]) -> Result<(), Cut> {
    let Some(transport) = transport(frame)? else { return Ok(()) };
    let Transport { start, checksum, pseudo, end } = transport;
    if word(frame, checksum) != !pseudo.finish() {
        return Ok(());
    }
    let whole = pseudo.add_bytes(&frame[start..end]).finish();
    if whole != 0 {
        complete(&mut frame[..end], start, checksum);
    }
    Ok(())
}

/// Finds TCP or UDP behind Ethernet, tags, and an IP header without fragments or extension headers.
fn transport(frame: &[u8]) -> Result<Option<Transport>, Cut> {
    let mut at = ETHERNET;
    if frame.len() < at {
        return Ok(None);
    }
    let mut kind = word(frame, at - 2);
    while VLAN.contains(&kind) && frame.len() >= at + 4 {
        kind = word(frame, at + 2);
        at += 4;
    }
    let rest = &frame[at..];
    let (header, length, protocol, addresses) = match kind {
        IPV4 if rest.len() >= 20 && rest[0] >> 4 == 4 => {
            let header = usize::from(rest[0] & 0x0f) * 4;
            let fragment = word(rest, 6) & 0x3fff != 0;
            (header, usize::from(word(rest, 2)), if fragment { 0 } else { rest[9] }, 12..20)
        }
        IPV6 if rest.len() >= 40 && rest[0] >> 4 == 6 => {
            (40, 40 + usize::from(word(rest, 4)), rest[6], 8..40)
        }
        _ => return Ok(None),
    };
    if length > rest.len() {
        return Err(Cut);
    }
    let offset = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return Ok(None),
    };
    let Some(payload) = length.checked_sub(header).filter(|n| *n >= offset + 2 && header >= 20) else {
        return Ok(None);
    };
    let pseudo = Sum::ZERO
        .add_bytes(&rest[addresses])
        .add_u16(protocol.into())
        .add_u16(u16::try_from(payload).unwrap_or(u16::MAX));
    let start = at + header;
    Ok(Some(Transport { start, checksum: start + offset, pseudo, end: at + length }))
}

/// Bytes of the tags that a frame has; at most two are counted.
pub(super) fn tag_bytes(frame: &[u8]) -> u32 {
    let tagged = |at: usize| frame.len() >= at + 2 && VLAN.contains(&word(frame, at));
    if !tagged(12) {
        0
    } else if !tagged(16) {
        4
    } else {
        8
    }
}

/// Puts a tag behind the addresses of a frame, in front of which four bytes are free: `room` are those and the frame.
pub(super) fn insert_tag(room: &mut [u8], protocol: u16, tag: u16) {
    room.copy_within(4..16, 0);
    room[12..14].copy_from_slice(&protocol.to_be_bytes());
    room[14..16].copy_from_slice(&tag.to_be_bytes());
}
