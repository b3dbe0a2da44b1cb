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
//! the other end wants that, these are too long there; but uncut all would be too long everywhere.

use onvm_lib::wire::{Headers, Net, tcp, udp};

use super::offload::Offload;

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
    let headers = Headers::parse(frame);
    let (start, at) = half(frame, &headers)?;
    let before = headers.payload_offset().checked_sub(headers.l3_offset()?)?;
    let size = u16::try_from((mtu as usize).checked_sub(before)?).ok().filter(|size| *size > 0)?;
    let start = u16::try_from(start).ok()?;
    (at == usize::from(start) + 16).then(|| Offload::segments(headers.net() == Net::Ipv4, start, size))
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
}
