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
//! SCTP's checksum is another, and is left whole.

mod cut;
#[cfg(test)]
mod tests;

use onvm_lib::wire::Headers;
use onvm_lib::wire::checksum::Sum;

use super::sctp;
use cut::Cut;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_*`; the highest bit says that the sender heeds ECN.
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

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
    /// The header speaks of places outside of the frame, or of more parts than any sender makes.
    Nonsense,
    /// A kind of cutting up that is not known, or headers that are not.
    Unsupported,
}

/// The frames that one becomes on the wire.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    frame: &'a [u8],
    offload: Offload,
    cut: Option<Cut>,
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
            GSO_TCP_V4 | GSO_TCP_V6 | GSO_UDP => Some(Cut::of(frame, offload)?),
            _ => return Err(Unusable::Unsupported),
        };
        Ok(Self { frame, offload, cut })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.cut.map_or(1, |cut| cut.count(self.frame))
    }

    /// Bytes of one.
    pub(super) fn length(&self, index: usize) -> usize {
        self.cut.map_or(self.frame.len(), |cut| cut.length(self.frame, index))
    }

    /// Writes one to where it belongs, which has just as many bytes as [`Frames::length`] says.
    pub(super) fn write(&self, index: usize, to: &mut [u8]) {
        if let Some(cut) = self.cut {
            return cut.write(self.frame, index, to);
        }
        to.copy_from_slice(self.frame);
        if self.offload.flags & NEEDS_CHECKSUM == 0 {
            return;
        }
        let (start, offset) =
            (usize::from(self.offload.checksum_start), usize::from(self.offload.checksum_offset));
        match sctp_end(to, start).filter(|_| offset == sctp::CHECKSUM) {
            Some(end) => sctp::complete(&mut to[start..end]),
            None => complete(to, start, start + offset),
        }
    }
}

/// Where the SCTP packet ends that begins at `start`, if one does, in a tunnel or not.
fn sctp_end(frame: &[u8], start: usize) -> Option<usize> {
    let mut headers = Headers::parse(frame);
    while headers.l4_offset()? < start {
        headers = headers.inner(frame)?;
    }
    let is_one = headers.l4_offset() == Some(start) && headers.protocol() == Some(sctp::PROTOCOL);
    (is_one && headers.end() > start).then_some(headers.end())
}

/// Completes the checksum at `at` over all from `start` on.
fn complete(frame: &mut [u8], start: usize, at: usize) {
    let sum = Sum::default().add_bytes(&frame[start..]).finish();
    // A UDP checksum of 0 says that there is none; for TCP both mean the same.
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
