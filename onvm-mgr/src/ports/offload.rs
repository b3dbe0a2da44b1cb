//! What the kernel leaves undone on frames that never met a network card, and has to be done before they leave.
//!
//! A veth, a bridge or a TAP hands over frames as the local TCP made them: with half a checksum, because a card would
//! complete it, and up to 64 KiB long, because a card would cut them up. Beside such a frame comes a header that says so
//! (`struct virtio_net_hdr`, `linux/virtio_net.h`). [`Frames`] makes of them what a card would have put on the wire:
//!
//! ```text
//! ┌ Ethernet ┬ IP ┬ TCP ┬ 64 KiB of payload ┐ + mss     ─▶   as many whole frames, each with its own lengths, sequence
//!                        half a checksum                        number, flags, IP identification and checksums
//! ```
//! Half a checksum is the sum of the pseudo header: of addresses, protocol and length. For a shorter frame the length is
//! replaced in it (RFC 1624), so that addresses need not be known: routing headers of IPv6 are right by that, too.

use onvm_lib::wire::checksum::{Sum, internet};

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_*`; the highest bit says that the sender heeds ECN.
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// The header beside a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offload {
    flags: u8,
    gso: u8,
    /// Bytes of payload that a frame has on the wire.
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl Offload {
    /// Bytes of the header.
    pub(super) const BYTES: usize = 10;

    /// What stands beside a super-frame of TCP whose segments have so many bytes of payload.
    pub(super) fn segments(v4: bool, tcp_at: u16, size: u16) -> Self {
        let gso = if v4 { GSO_TCP_V4 } else { GSO_TCP_V6 };
        Self { flags: NEEDS_CHECKSUM, gso, gso_size: size, checksum_start: tcp_at, checksum_offset: 16 }
    }

    /// Reads the header; its numbers are in the machine's byte order.
    pub(super) fn parse(bytes: [u8; Self::BYTES]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso: bytes[1] & !GSO_ECN,
            gso_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }
}

/// What makes a frame unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The header speaks of places outside of the frame.
    Nonsense,
    /// A kind of cutting up that is not known.
    Unsupported,
}

/// How a frame is cut up.
#[derive(Clone, Copy, Debug)]
struct Cut {
    tcp: bool,
    ip: usize,
    v4: bool,
    /// Bytes of all headers.
    headers: usize,
    size: usize,
}

/// The frames that one becomes on the wire.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    frame: &'a [u8],
    offload: Offload,
    cut: Option<Cut>,
    count: usize,
}

impl<'a> Frames<'a> {
    /// Looks at a frame.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(super) fn of(frame: &'a [u8], offload: Offload) -> Result<Self, Unusable> {
        let (start, offset) = (usize::from(offload.checksum_start), usize::from(offload.checksum_offset));
        if offload.flags & NEEDS_CHECKSUM != 0 && start + offset + 2 > frame.len() {
            return Err(Unusable::Nonsense);
        }
        let cut = match offload.gso {
            GSO_NONE => None,
            GSO_TCP_V4 | GSO_TCP_V6 | GSO_UDP => Some(cut(frame, offload)?),
            _ => return Err(Unusable::Unsupported),
        };
        let count = cut.map_or(1, |cut| (frame.len() - cut.headers).div_ceil(cut.size).max(1));
        Ok(Self { frame, offload, cut, count })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of one.
    pub(super) fn length(&self, index: usize) -> usize {
        self.cut.map_or(self.frame.len(), |cut| cut.headers + self.payload(cut, index).len())
    }

    fn payload(&self, cut: Cut, index: usize) -> &'a [u8] {
        let all = &self.frame[cut.headers..];
        let from = (index * cut.size).min(all.len());
        &all[from..(from + cut.size).min(all.len())]
    }

    /// Writes one to where it belongs, which has just as many bytes as [`Frames::length`] says.
    pub(super) fn write(&self, index: usize, to: &mut [u8]) {
        match self.cut {
            None => to.copy_from_slice(self.frame),
            Some(cut) => {
                let (headers, payload) = to.split_at_mut(cut.headers);
                headers.copy_from_slice(&self.frame[..cut.headers]);
                payload.copy_from_slice(self.payload(cut, index));
                self.fit_headers(cut, index, to);
            }
        }
        if self.offload.flags & NEEDS_CHECKSUM != 0 {
            let start = usize::from(self.offload.checksum_start);
            complete(to, start, start + usize::from(self.offload.checksum_offset));
        }
    }

    /// Makes the headers of a part say what it is.
    fn fit_headers(&self, cut: Cut, index: usize, to: &mut [u8]) {
        let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let start = usize::from(self.offload.checksum_start);
        let nth = u32::try_from(index).unwrap_or(u32::MAX);
        let length = to.len();
        if cut.v4 {
            to[cut.ip + 2..cut.ip + 4].copy_from_slice(&short(length - cut.ip).to_be_bytes());
            #[allow(clippy::cast_possible_truncation)] // it counts round and round
            let id = word(to, cut.ip + 4).wrapping_add(nth as u16);
            to[cut.ip + 4..cut.ip + 6].copy_from_slice(&id.to_be_bytes());
            to[cut.ip + 10..cut.ip + 12].fill(0);
            let header = cut.ip + usize::from(to[cut.ip] & 0x0f) * 4;
            let sum = internet(&to[cut.ip..header]);
            to[cut.ip + 10..cut.ip + 12].copy_from_slice(&sum.to_be_bytes());
        } else {
            to[cut.ip + 4..cut.ip + 6].copy_from_slice(&short(length - cut.ip - 40).to_be_bytes());
        }
        if cut.tcp {
            let size = u32::try_from(cut.size).unwrap_or(0);
            let sequence = &self.frame[start + 4..start + 8];
            let sequence = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
            let sequence = sequence.wrapping_add(nth.wrapping_mul(size));
            to[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
            if index + 1 < self.count {
                to[start + 13] &= !(FIN | PSH);
            }
            if index > 0 {
                to[start + 13] &= !CWR;
            }
        } else {
            to[start + 4..start + 6].copy_from_slice(&short(length - start).to_be_bytes());
        }
        // The length in half a checksum: what it was is taken out, what it is goes in.
        let at = start + usize::from(self.offload.checksum_offset);
        let (was, is) = (short(self.frame.len() - start), short(length - start));
        let half = Sum::default().add_u16(word(to, at)).add_u16(!was).add_u16(is).fold();
        to[at..at + 2].copy_from_slice(&half.to_be_bytes());
    }
}

/// Completes the checksum at `at` over all from `start` on.
fn complete(frame: &mut [u8], start: usize, at: usize) {
    let sum = Sum::default().add_bytes(&frame[start..]).finish();
    // A UDP checksum of 0 says that there is none; for TCP both mean the same.
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Finds out how a frame is to be cut up.
fn cut(frame: &[u8], offload: Offload) -> Result<Cut, Unusable> {
    let byte = |at: usize| frame.get(at).copied().ok_or(Unusable::Nonsense);
    let mut ethertype = 12;
    while matches!((byte(ethertype)?, byte(ethertype + 1)?), (0x81, 0x00) | (0x88, 0xa8)) {
        ethertype += 4;
    }
    let ip = ethertype + 2;
    let v4 = byte(ip)? >> 4 == 4;
    let start = usize::from(offload.checksum_start);
    let tcp = offload.gso != GSO_UDP;
    let shortest = ip + if v4 { 20 } else { 40 };
    let ip_header = if v4 { usize::from(byte(ip)? & 0x0f) * 4 } else { 40 };
    if offload.flags & NEEDS_CHECKSUM == 0 || start < shortest || ip + ip_header > start {
        return Err(Unusable::Nonsense);
    }
    let header = if tcp { usize::from(byte(start + 12)? >> 4) * 4 } else { 8 };
    let headers = start + header;
    let size = usize::from(offload.gso_size);
    let checksum = if tcp { 16 } else { 6 };
    let sound = header >= if tcp { 20 } else { 8 }
        && headers <= frame.len()
        && size > 0
        && usize::from(offload.checksum_offset) == checksum;
    if sound { Ok(Cut { tcp, ip, v4, headers, size }) } else { Err(Unusable::Nonsense) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as local TCP or UDP makes it, and what stands beside it.
    fn made(v6: bool, udp: bool, payload: usize, size: u16) -> (Vec<u8>, Offload) {
        let bytes: Vec<u8> = (0..payload).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let builder = if v6 {
            builder.ipv6([1; 16], [2; 16], 64)
        } else {
            builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        };
        let mut frame = Vec::new();
        if udp {
            builder.udp(1000, 2000).write(&mut frame, &bytes).unwrap();
        } else {
            let tcp = builder.tcp(1000, 2000, 0xffff_ff00, 5000).ack(7).psh().fin().cwr();
            tcp.write(&mut frame, &bytes).unwrap();
        }
        let start = 14 + if v6 { 40 } else { 20 };
        let offset = if udp { 6 } else { 16 };
        // Half a checksum: of the pseudo header alone.
        let length = u16::try_from(frame.len() - start).unwrap();
        let addresses = &frame[start - if v6 { 32 } else { 8 }..start];
        let half =
            Sum::default().add_bytes(addresses).add_u16(if udp { 17 } else { 6 }).add_u16(length).fold();
        frame[start + offset..start + offset + 2].copy_from_slice(&half.to_be_bytes());
        let gso = match (size, udp, v6) {
            (0, ..) => GSO_NONE,
            (_, true, _) => GSO_UDP,
            (_, _, true) => GSO_TCP_V6,
            _ => GSO_TCP_V4,
        };
        let offload = Offload {
            flags: NEEDS_CHECKSUM,
            gso,
            gso_size: size,
            checksum_start: u16::try_from(start).unwrap(),
            checksum_offset: u16::try_from(offset).unwrap(),
        };
        (frame, offload)
    }

    fn all(frame: &[u8], offload: Offload) -> Vec<Vec<u8>> {
        let frames = Frames::of(frame, offload).unwrap();
        let one = |index| {
            let mut to = vec![0xee; frames.length(index)];
            frames.write(index, &mut to);
            to
        };
        (0..frames.count()).map(one).collect()
    }

    /// A reader of others' making says that lengths and checksums are right; the payload, and the TCP header if there is
    /// one.
    fn read(frame: &[u8]) -> (Vec<u8>, Option<etherparse::TcpHeader>, Option<u16>) {
        let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        let (id, v4, v6) = match &sliced.net {
            Some(etherparse::NetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                (Some(header.identification), Some(header), None)
            }
            Some(etherparse::NetSlice::Ipv6(ip)) => (None, None, Some(ip.header().to_header())),
            other => panic!("{other:?}"),
        };
        match sliced.transport.unwrap() {
            etherparse::TransportSlice::Tcp(tcp) => {
                let (header, payload) = (tcp.to_header(), tcp.payload());
                let sum = match (&v4, &v6) {
                    (Some(ip), _) => header.calc_checksum_ipv4(ip, payload).unwrap(),
                    (_, Some(ip)) => header.calc_checksum_ipv6(ip, payload).unwrap(),
                    _ => unreachable!(),
                };
                assert_eq!(header.checksum, sum);
                (payload.to_vec(), Some(header), id)
            }
            etherparse::TransportSlice::Udp(udp) => {
                let (header, payload) = (udp.to_header(), udp.payload());
                let sum = match (&v4, &v6) {
                    (Some(ip), _) => header.calc_checksum_ipv4(ip, payload).unwrap(),
                    (_, Some(ip)) => header.calc_checksum_ipv6(ip, payload).unwrap(),
                    _ => unreachable!(),
                };
                assert_eq!((header.checksum, usize::from(header.length)), (sum, payload.len() + 8));
                (payload.to_vec(), None, id)
            }
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn frames_are_what_a_card_would_have_sent(
            v6: bool, udp: bool, payload in 0usize..9000, size in prop_oneof![Just(0u16), 1u16..3000],
        ) {
            let (frame, offload) = made(v6, udp, payload, size);
            let frames = all(&frame, offload);
            let mut came = Vec::new();
            for (index, frame) in frames.iter().enumerate() {
                let (bytes, tcp, id) = read(frame);
                if let Some(tcp) = tcp {
                    let last = index + 1 == frames.len();
                    let at = u32::try_from(came.len()).unwrap();
                    prop_assert_eq!(tcp.sequence_number, 0xffff_ff00_u32.wrapping_add(at));
                    prop_assert_eq!((tcp.fin, tcp.psh, tcp.cwr, tcp.ack), (last, last, index == 0, true));
                }
                if let Some(id) = id {
                    prop_assert_eq!(usize::from(id), index);
                }
                prop_assert!(size == 0 || bytes.len() <= usize::from(size));
                came.extend(bytes);
            }
            let whole: Vec<u8> = (0..payload).map(|i| u8::try_from(i % 251).unwrap()).collect();
            prop_assert_eq!(came, whole);
        }

        #[test]
        fn nonsense_is_refused(frame in prop::collection::vec(any::<u8>(), 0..200), header: [u8; Offload::BYTES]) {
            if let Ok(frames) = Frames::of(&frame, Offload::parse(header)) {
                for index in 0..frames.count() {
                    let mut to = vec![0; frames.length(index)];
                    frames.write(index, &mut to);
                }
            }
        }
    }

    #[test]
    fn what_is_complete_stays_as_it_is() {
        let (frame, _) = made(false, false, 10, 0);
        assert_eq!(all(&frame, Offload::default()), [frame]);
    }
}
