//! Frames of any link type as Ethernet frames, which is what NFs work on.
//!
//! Raw IP packets get a header with zero addresses; a Linux "cooked" header, and one that [`framing`] understands, is
//! replaced by an Ethernet header with the addresses that it holds. Sources: LINKTYPE_RAW, LINKTYPE_LINUX_SLL and
//! LINKTYPE_LINUX_SLL2 at <https://www.tcpdump.org/linktypes.html>.

use super::{Frame, LinkType, framing};

const HEADER: usize = 14;

/// An Ethernet frame in two parts: a header put in front, and the bytes that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsEthernet<'a> {
    header: [u8; HEADER],
    added: usize,
    body: &'a [u8],
    wire_length: u32,
}

impl<'a> AsEthernet<'a> {
    /// The frame as Ethernet; none when it is too short for its own link header, is no IP packet where only such can
    /// be, or has a header that is not understood.
    #[must_use]
    pub fn of(frame: &Frame<'a>) -> Option<Self> {
        let data = frame.data;
        let mut receiver = [0; 6];
        let (sender, ethertype, skip) = match frame.link_type {
            LinkType::Ethernet => {
                let header = [0; HEADER];
                return Some(Self { header, added: 0, body: data, wire_length: frame.original_len });
            }
            LinkType::RawIpv4 => ([0; 6], 0x0800, 0),
            LinkType::RawIpv6 => ([0; 6], 0x86dd, 0),
            LinkType::RawIp => match data.first()? >> 4 {
                4 => ([0; 6], 0x0800, 0),
                6 => ([0; 6], 0x86dd, 0),
                _ => return None,
            },
            LinkType::LinuxSll => (sender(data.get(4..14)?, true), be16(data.get(14..16)?), 16),
            LinkType::LinuxSll2 => (sender(data.get(11..20)?, false), be16(data.get(0..2)?), 20),
            _ => {
                let found = framing::of(frame.link_type, data)?;
                receiver = found.receiver;
                (found.sender, found.ethertype, found.skip)
            }
        };
        let mut header = [0; HEADER];
        header[..6].copy_from_slice(&receiver);
        header[6..12].copy_from_slice(&sender);
        header[12..].copy_from_slice(&u16::to_be_bytes(ethertype));
        let link = u32::try_from(skip).unwrap_or(u32::MAX);
        let wire_length = frame.original_len.saturating_sub(link).saturating_add(14);
        Some(Self { header, added: HEADER, body: data.get(skip..)?, wire_length })
    }

    /// The whole frame behind an Ethernet header that says nothing of it: type 0, zero addresses. For those who only
    /// count.
    #[must_use]
    pub fn opaque(frame: &Frame<'a>) -> Self {
        // Nothing stays nothing.
        let added = if frame.data.is_empty() { 0 } else { HEADER };
        let wire_length = frame.original_len.saturating_add(14);
        Self { header: [0; HEADER], added, body: frame.data, wire_length }
    }

    /// The frame cut to so many bytes, if it is longer; what it had on the wire stays.
    #[must_use]
    pub fn cut_to(self, most: usize) -> Self {
        let body = self.body.get(..most.saturating_sub(self.added)).unwrap_or(self.body);
        Self { body, ..self }
    }

    /// Bytes of the Ethernet frame.
    #[must_use]
    #[inline]
    pub fn length(&self) -> usize {
        self.added + self.body.len()
    }

    /// Bytes that the Ethernet frame would have had on the wire.
    #[must_use]
    #[inline]
    pub fn wire_length(&self) -> u32 {
        self.wire_length
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// When `into` is not [`AsEthernet::length`] bytes long.
    #[inline]
    pub fn write(&self, into: &mut [u8]) {
        let (head, tail) = into.split_at_mut(self.added);
        head.copy_from_slice(&self.header[..self.added]);
        tail.copy_from_slice(self.body);
    }
}

/// The sender's address, of which a cooked header gives length (in 2 bytes or 1) and 8 bytes.
fn sender(field: &[u8], wide: bool) -> [u8; 6] {
    let (length, address) =
        if wide { (be16(&field[..2]), &field[2..]) } else { (field[0].into(), &field[1..]) };
    let mut mac = [0; 6];
    if length == 6 {
        mac.copy_from_slice(&address[..6]);
    }
    mac
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(link_type: LinkType, data: &[u8]) -> Frame<'_> {
        let original_len = u32::try_from(data.len()).unwrap() + 10;
        Frame { timestamp_ns: 1, original_len, link_type, interface: 0, data }
    }

    fn written(link_type: LinkType, data: &[u8]) -> Option<(Vec<u8>, u32)> {
        let ethernet = AsEthernet::of(&frame(link_type, data))?;
        let mut out = vec![0; ethernet.length()];
        ethernet.write(&mut out);
        Some((out, ethernet.wire_length()))
    }

    #[test]
    fn every_link_type_becomes_ethernet() {
        assert_eq!(written(LinkType::Ethernet, b"abc").unwrap(), (b"abc".to_vec(), 13));
        let (raw, wire) = written(LinkType::RawIp, &[0x45, 1]).unwrap();
        assert_eq!((&raw[12..], wire), (&[8, 0, 0x45, 1][..], 26));
        assert_eq!(written(LinkType::RawIp, &[0x60]).unwrap().0[12..], [0x86, 0xdd, 0x60]);
        let cooked = [0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0, 0x45];
        let (sll, _) = written(LinkType::LinuxSll, &cooked).unwrap();
        assert_eq!(sll[6..], [1, 2, 3, 4, 5, 6, 8, 0, 0x45]);
        let cooked = [0x86, 0xdd, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0x60];
        let (sll2, _) = written(LinkType::LinuxSll2, &cooked).unwrap();
        assert_eq!(sll2[6..], [1, 2, 3, 4, 5, 6, 0x86, 0xdd, 0x60]);
        let (ppp, wire) = written(LinkType::Ppp, &[0xff, 3, 0, 0x21, 0x45]).unwrap();
        assert_eq!((&ppp[12..], wire), (&[8, 0, 0x45][..], 25));
    }

    #[test]
    fn what_only_counts_may_be_opaque_or_cut() {
        let usb = frame(LinkType::Other(189), &[1, 2, 3]);
        assert_eq!(AsEthernet::of(&usb), None);
        let opaque = AsEthernet::opaque(&usb);
        assert_eq!((opaque.length(), opaque.wire_length()), (17, 27));
        let long = frame(LinkType::Ethernet, &[7; 100]);
        let cut = AsEthernet::of(&long).unwrap().cut_to(60);
        assert_eq!((cut.length(), cut.wire_length()), (60, 110));
        assert_eq!(cut.cut_to(60), cut);
    }

    #[test]
    fn what_is_too_short_or_no_ip_is_refused() {
        for link in [LinkType::RawIp, LinkType::LinuxSll, LinkType::Null, LinkType::CiscoHdlc, LinkType::Ppp]
        {
            assert_eq!(written(link, b""), None);
        }
        assert_eq!(written(LinkType::RawIp, &[0x10]), None);
        assert_eq!(written(LinkType::LinuxSll, &[0; 15]), None);
    }
}
