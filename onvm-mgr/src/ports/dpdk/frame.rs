//! What drivers leave undone on frames that came in, and what has to be known of those that go out.
//!
//! VLAN tags that a device took out are put back: NFs see frames as they were on the wire. Drivers on sockets of the kernel's
//! cut super-frames, and IPv4 fragments that the kernel has joined for them, at the length of their slots; such a frame says
//! itself that it was longer. (That they hand over half checksums is `half_done`'s business.)

use onvm_lib::wire::checksum::Sum;
use onvm_lib::wire::{tcp, udp, vxlan};

const ETHERNET: usize = 14;
/// Ports of tunnels that frames are looked into for.
const TUNNELS: [u16; 4] = [vxlan::PORT, vxlan::PORT_LINUX, vxlan::PORT_GPE, vxlan::GENEVE_PORT];
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

/// Whether a frame of the plainest kind, TCP or UDP right behind IPv4 and Ethernet, has no half checksum, so that it need not
/// be looked into. Of all others this is not known.
pub(super) fn is_plainly_whole(frame: &[u8]) -> bool {
    const IP: usize = ETHERNET;
    const TRANSPORT: usize = IP + 20;
    let Some(head) = frame.first_chunk::<{ TRANSPORT + 8 }>() else { return false };
    let fragment = word(head, IP + 6) & 0x3fff != 0;
    if word(head, 12) != IPV4 || head[IP] != 0x45 || fragment {
        return false;
    }
    let protocol = head[IP + 9];
    let checksum = match protocol {
        tcp::PROTOCOL => TRANSPORT + 16,
        // A tunnel's inner checksum may be the half one.
        udp::PROTOCOL if !TUNNELS.contains(&word(head, TRANSPORT + 2)) => TRANSPORT + 6,
        _ => return false,
    };
    let Some(segment) = word(head, IP + 2).checked_sub(20) else { return false };
    let half = Sum::ZERO.add_bytes(&head[IP + 12..IP + 20]).add_u16(protocol.into()).add_u16(segment).fold();
    frame.get(checksum..checksum + 2).is_some_and(|field| field != half.to_be_bytes())
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
