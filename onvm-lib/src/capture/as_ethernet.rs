//! Frames of any supported link type as Ethernet frames, which is what NFs work on.
//!
//! Raw IP packets get a header with zero addresses; a Linux "cooked" header is replaced by an Ethernet
//! header with the sender's address that it holds. Sources: LINKTYPE_RAW, LINKTYPE_LINUX_SLL and
//! LINKTYPE_LINUX_SLL2, LINKTYPE_NULL, LINKTYPE_LOOP, LINKTYPE_C_HDLC and LINKTYPE_PPP at <https://www.tcpdump.org/linktypes.html>.

use super::{Frame, LinkType};

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
    /// The frame as Ethernet; none when it is too short for its own link header or is no IP packet.
    #[must_use]
    pub fn of(frame: &Frame<'a>) -> Option<Self> {
        let data = frame.data;
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
            LinkType::Null => {
                // Families are small numbers: the other byte order makes them large.
                let family = data.first_chunk::<4>()?;
                let number = u32::from_le_bytes(*family).min(u32::from_be_bytes(*family));
                ([0; 6], of_family(number)?, 4)
            }
            LinkType::Loop => ([0; 6], of_family(u32::from_be_bytes(*data.first_chunk::<4>()?))?, 4),
            LinkType::CiscoHdlc => ([0; 6], be16(data.get(2..4)?), 4),
            LinkType::Ppp => {
                let skip = if data.starts_with(&[0xff, 0x03]) { 2 } else { 0 };
                let ethertype = match be16(data.get(skip..skip + 2)?) {
                    0x0021 => 0x0800,
                    0x0057 => 0x86dd,
                    _ => return None,
                };
                ([0; 6], ethertype, skip + 2)
            }
            LinkType::LinuxSll2 => (sender(data.get(11..20)?, false), be16(data.get(0..2)?), 20),
        };
        let mut header = [0; HEADER];
        header[6..12].copy_from_slice(&sender);
        header[12..].copy_from_slice(&u16::to_be_bytes(ethertype));
        let link = u32::try_from(skip).unwrap_or(0);
        let wire_length = frame.original_len.saturating_sub(link).saturating_add(14);
        Some(Self { header, added: HEADER, body: &data[skip..], wire_length })
    }

    /// Bytes of the Ethernet frame.
    #[must_use]
    #[inline]
    pub fn length(&self) -> usize {
        self.added + self.body.len()
    }

    /// Bytes that the Ethernet frame had on the wire.
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

/// The EtherType of what a loopback's address family names: IPv4, or IPv6 by the numbers of Linux and the BSDs.
fn of_family(number: u32) -> Option<u16> {
    match number {
        2 => Some(0x0800),
        10 | 24 | 28 | 30 => Some(0x86dd),
        _ => None,
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
        for (link, bytes) in [
            (LinkType::Null, &[2, 0, 0, 0, 0x45][..]),
            (LinkType::Null, &[0, 0, 0, 2, 0x45]),
            (LinkType::Loop, &[0, 0, 0, 2, 0x45]),
            (LinkType::CiscoHdlc, &[0x0f, 0, 8, 0, 0x45]),
            (LinkType::Ppp, &[0xff, 3, 0, 0x21, 0x45]),
            (LinkType::Ppp, &[0, 0x21, 0x45]),
        ] {
            assert_eq!(written(link, bytes).unwrap().0[12..], [8, 0, 0x45], "{link}");
        }
        assert_eq!(written(LinkType::Null, &[30, 0, 0, 0, 0x60]).unwrap().0[12..], [0x86, 0xdd, 0x60]);
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
