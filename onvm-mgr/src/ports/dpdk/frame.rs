//! What drivers leave undone on frames that came in, and what has to be known of those that go out.
//!
//! VLAN tags that a device took out are put back: NFs see frames as they were on the wire. Drivers on sockets of the kernel's
//! cut super-frames, and IPv4 fragments that the kernel has joined for them, at the length of their slots; such a frame says
//! itself that it was longer. (That they hand over half checksums is `half_done`'s business.)

const ETHERNET: usize = 14;
const VLAN: [u16; 2] = [0x8100, 0x88a8];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Whether a frame says that it was longer than what is there of it.
pub(super) fn is_cut(frame: &[u8]) -> bool {
    let mut at = ETHERNET;
    while frame.len() >= at + 4 && VLAN.contains(&word(frame, at - 2)) {
        at += 4;
    }
    let Some(rest) = frame.get(at..) else { return false };
    match word(frame, at - 2) {
        IPV4 if rest.len() >= 20 => usize::from(word(rest, 2)) > rest.len(),
        IPV6 if rest.len() >= 40 => usize::from(word(rest, 4)) + 40 > rest.len(),
        _ => false,
    }
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
