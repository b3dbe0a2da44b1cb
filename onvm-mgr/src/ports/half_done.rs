//! Frames that local senders leave half done, where nobody says so.
//!
//! A veth or a TAP hands over what local TCP and UDP made for a card that would have completed the checksum: in its field
//! stands the sum of the pseudo header (`Documentation/networking/checksum-offloads.rst`). Packet sockets are told of that;
//! XDP is not. But it shows: the sum of the pseudo header can be computed, and where it stands in the field the checksum
//! is completed. A frame whose checksum is right, and has that value by chance, is completed to the same value;
//! one that is wrong and has it by chance, 1 of 65,536 that are damaged, would pass. So it is done only for frames that the
//! kernel copies, whose senders are mostly local, and not for those that a card has written into the buffer.
//!
//! Super-frames of TCP come without the size of their segments as well. They show by a half checksum in a frame that
//! is longer than the MTU, and are cut up to frames of the MTU. Where a sender has smaller segments because something behind
//! the other end wants that, these are too long there; but uncut all would be too long everywhere. Both are looked for in tunnels
//! as well, if they go to the ports that are theirs. SCTP's checksum is left whole, as 0.

use onvm_lib::wire::{Headers, Net, tcp, udp};

use super::offload::Offload;
use super::sctp;

/// Tunnels in tunnels that are looked into: an inner checksum may be the half one.
const MOST_TUNNELS: usize = 3;

/// Completes the checksum of a frame if it is half done.
pub(super) fn complete(frame: &mut [u8]) {
    let mut headers = Headers::parse(frame);
    for _ in 0..=MOST_TUNNELS {
        if complete_at(frame, &headers).is_some() {
            return;
        }
        let Some(inner) = headers.inner(frame) else { return };
        headers = inner;
    }
}

/// What is left to be done on a frame that is longer than the MTU, if it is a super-frame of TCP: to cut it up.
pub(super) fn cut_up(frame: &[u8], mtu: u32) -> Option<Offload> {
    let mut headers = Headers::parse(frame);
    let l3 = headers.l3_offset()?;
    for _ in 0..=MOST_TUNNELS {
        let place = half(frame, &headers).filter(|(start, at)| *at == start + 16);
        if let Some((start, _)) = place {
            let before = headers.payload_offset().checked_sub(l3)?;
            let size = u16::try_from((mtu as usize).checked_sub(before)?).ok().filter(|size| *size > 0)?;
            return Some(Offload::segments(headers.net() == Net::Ipv4, u16::try_from(start).ok()?, size));
        }
        headers = headers.inner(frame)?;
    }
    None
}

/// Where the transport header and its checksum stand, if that is half done.
fn half(frame: &[u8], headers: &Headers) -> Option<(usize, usize)> {
    if headers.is_fragment() || headers.problem().is_some() {
        return None;
    }
    let protocol = headers.protocol()?;
    let (start, end) = (headers.l4_offset()?, headers.end());
    let at = start
        + match protocol {
            tcp::PROTOCOL => 16,
            udp::PROTOCOL => 6,
            _ => return None,
        };
    let length = end.checked_sub(start)?;
    let half = headers.pseudo(frame)?.sum(protocol, length).fold();
    (frame.get(at..at + 2)? == half.to_be_bytes()).then_some((start, at))
}

fn complete_at(frame: &mut [u8], headers: &Headers) -> Option<()> {
    if headers.protocol() == Some(sctp::PROTOCOL) {
        let sound = !headers.is_fragment() && headers.problem().is_none();
        let packet = frame.get_mut(headers.l4_offset()?..headers.end()).filter(|_| sound)?;
        return sctp::is_left(packet).then(|| sctp::complete(packet));
    }
    let (start, at) = half(frame, headers)?;
    let segment = frame.get(start..headers.end())?;
    // The half that stands there is part of the sum. For UDP 0 says that there is none; for TCP both mean the same.
    let sum = onvm_lib::wire::checksum::udp_nonzero(onvm_lib::wire::checksum::internet(segment));
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::wire::build::Packet;
    use proptest::prelude::*;

    /// A whole frame, and the same as a local sender hands it over.
    fn made(v6: bool, udp: bool, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mac = |last: u8| onvm_lib::wire::MacAddr([2, 0, 0, 0, 0, last]);
        let packet = Packet::ethernet(mac(1), mac(2));
        let packet = if v6 {
            packet.ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
        } else {
            packet.ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
        };
        let packet = if udp { packet.udp(1000, 2000) } else { packet.tcp(1000, 2000) };
        let whole = packet.payload(payload).to_vec().unwrap();
        let headers = Headers::parse(&whole);
        let (start, end) = (headers.l4_offset().unwrap(), headers.end());
        let protocol = headers.protocol().unwrap();
        let half = headers.pseudo(&whole).unwrap().sum(protocol, end - start).fold();
        let mut cut = whole.clone();
        let at = start + if udp { 6 } else { 16 };
        cut[at..at + 2].copy_from_slice(&half.to_be_bytes());
        (whole, cut)
    }

    proptest! {
        #[test]
        fn half_becomes_whole_and_whole_stays(v6: bool, udp: bool, payload in prop::collection::vec(any::<u8>(), 0..1400)) {
            let (whole, mut half) = made(v6, udp, &payload);
            complete(&mut half);
            prop_assert_eq!(&half, &whole);
            complete(&mut half);
            prop_assert_eq!(&half, &whole);
            let sums = Headers::parse(&whole).verify_checksums(&whole);
            prop_assert_eq!(sums.transport, Some(true));
        }

        #[test]
        fn nothing_makes_it_panic(mut frame in prop::collection::vec(any::<u8>(), 0..200)) {
            complete(&mut frame);
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let (mut frame, _) = made(false, false, b"payload");
        let at = frame.len() - 3;
        frame[at] ^= 0x40;
        let before = frame.clone();
        complete(&mut frame);
        assert_eq!(frame, before);
    }

    #[test]
    fn what_a_tunnel_carries_is_completed() {
        let (whole, half) = made(false, false, b"inner");
        let outer = |inner: &[u8]| {
            let mac = onvm_lib::wire::MacAddr([2, 0, 0, 0, 0, 9]);
            let payload = [&[0x08, 0, 0, 0, 0, 0, 7, 0][..], inner].concat();
            Packet::ethernet(mac, mac)
                .ipv4([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
                .udp(5555, 4789)
                .payload(&payload)
                .to_vec()
                .unwrap()
        };
        // The outer checksum is that of the whole, as the sender computes it.
        let (whole, mut frame) = (outer(&whole), outer(&half));
        frame[40..42].copy_from_slice(&whole[40..42]);
        complete(&mut frame);
        assert_eq!(frame, whole);
    }

    #[test]
    fn what_sctp_left_is_completed() {
        let mac = onvm_lib::wire::MacAddr([2, 0, 0, 0, 0, 9]);
        let made = |packet: &[u8]| {
            let frame = Packet::ethernet(mac, mac).ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
            frame.protocol(sctp::PROTOCOL).payload(packet).to_vec().unwrap()
        };
        let left = [0, 7, 0, 8, 1, 2, 3, 4, 0, 0, 0, 0, 11, 0, 0, 4];
        let mut whole = left;
        sctp::complete(&mut whole);
        let mut frame = made(&left);
        complete(&mut frame);
        assert_eq!(frame, made(&whole));
        complete(&mut frame);
        assert_eq!(frame, made(&whole));
    }

    #[test]
    fn super_frames_show_in_tunnels_as_well() {
        let (_, half) = made(false, false, &[7; 1400]);
        let mac = onvm_lib::wire::MacAddr([2, 0, 0, 0, 0, 9]);
        let payload = [&[0x08, 0, 0, 0, 0, 0, 7, 0][..], &half].concat();
        let outer = Packet::ethernet(mac, mac).ipv4([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let frame = outer.udp(5555, 4789).payload(&payload).to_vec().unwrap();
        // 20 + 8 + 8 + 14 bytes around the inner packet, and its own 40.
        let offload = cut_up(&frame, 600).unwrap();
        assert_eq!(offload, Offload::segments(true, 14 + 50 + 20, 600 - 90));
        let frames = super::super::offload::Frames::of(&frame, offload).unwrap();
        assert_eq!((frames.count(), frames.length(0)), (3, 614));
        assert_eq!(cut_up(&frame, 80), None, "there is no room for the headers");
    }
}
