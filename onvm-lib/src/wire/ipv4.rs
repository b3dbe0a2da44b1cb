//! Internet Protocol version 4 (RFC 791), with differentiated services (RFC 2474) and ECN (RFC 3168).

use std::net::Ipv4Addr;

use super::checksum::{self, Pseudo};
use super::field::{bits, fields, flags, view};
use super::ipv4_option::Options;
use super::{Error, Fragment};

/// Length of the header without options.
pub const MIN_HEADER_LEN: usize = 20;
/// Length of the header with the most options it can have.
pub const MAX_HEADER_LEN: usize = 60;

view! {
    /// An IPv4 packet: header, options, payload.
    Packet, "ipv4", MIN_HEADER_LEN
}

bits!(Packet {
    /// Version, 4.
    version / set_version: u8 = 0, >> 4 & 0xf;
    /// Internet header length in 32-bit words, 5..=15.
    ihl / set_ihl: u8 = 0, >> 0 & 0xf;
    /// Differentiated services code point, 0..=63.
    dscp / set_dscp: u8 = 1, >> 2 & 0x3f;
    /// Explicit congestion notification: 0 not capable, 1 and 2 capable, 3 congestion experienced.
    ecn / set_ecn: u8 = 1, >> 0 & 0x3;
    /// Fragment offset in units of 8 bytes.
    fragment_offset_units / set_fragment_offset_units: u16 = 6, >> 0 & 0x1fff;
});

fields!(Packet {
    /// Type of service: code point and ECN in one byte.
    tos / set_tos: u8 = 1;
    /// Bytes of header and payload, as it stands; 0 where a NIC is to segment the packet (TSO).
    total_len / set_total_len: u16 = 2;
    /// Identification, the same in all fragments of a datagram.
    id / set_id: u16 = 4;
    /// Time to live in hops.
    ttl / set_ttl: u8 = 8;
    /// Protocol of the payload (IANA "Protocol Numbers").
    protocol / set_protocol: u8 = 9;
    /// Header checksum.
    checksum / set_checksum: u16 = 10;
    /// Source address.
    src / set_src: Ipv4Addr = 12;
    /// Destination address.
    dst / set_dst: Ipv4Addr = 16;
});

flags!(Packet {
    /// The reserved flag ("evil bit", RFC 3514).
    reserved_flag / set_reserved_flag: u16 = 6, bit 15;
    /// Don't fragment.
    dont_fragment / set_dont_fragment: u16 = 6, bit 14;
    /// More fragments follow.
    more_fragments / set_more_fragments: u16 = 6, bit 13;
});

impl<T: AsRef<[u8]>> Packet<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        let field = |field, value: u8, expected| {
            Err(Error::Field { header: "ipv4", field, value: usize::from(value), expected })
        };
        if self.version() != 4 {
            return field("version", self.version(), "4");
        }
        if self.ihl() < 5 {
            return field("header length in words", self.ihl(), "5..=15");
        }
        Ok(())
    }

    /// Bytes of header and options, by the IHL field.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.ihl()) * 4
    }

    /// The options as they stand; those that were cut off are missing.
    #[inline]
    pub fn option_bytes(&self) -> &[u8] {
        let bytes = self.as_bytes();
        bytes.get(MIN_HEADER_LEN..self.header_len().min(bytes.len())).unwrap_or(&[])
    }

    /// The options one by one.
    pub fn options(&self) -> Options<'_> {
        Options::new(self.option_bytes())
    }

    /// What the header says about fragments; offset 0 and no more for a whole datagram.
    pub fn fragment(&self) -> Fragment {
        Fragment {
            id: u32::from(self.id()),
            offset: u32::from(self.fragment_offset_units()) * 8,
            more: self.more_fragments(),
        }
    }

    /// The payload: what the total length says, less what was cut off. With a total length of 0 (TSO) or one
    /// below the header's, all there is.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        let (start, end) = self.payload_range();
        self.as_bytes().get(start..end).unwrap_or(&[])
    }

    #[inline]
    fn payload_range(&self) -> (usize, usize) {
        let (start, have) = (self.header_len(), self.as_bytes().len());
        let total = usize::from(self.total_len());
        (start, if total < start { have } else { total.min(have) })
    }

    /// Whether the header checksum is right; false if part of the header was cut off.
    pub fn verify_checksum(&self) -> bool {
        self.as_bytes().get(..self.header_len()).is_some_and(|header| checksum::internet(header) == 0)
    }

    /// The addresses for the checksum of the payload.
    #[inline]
    pub fn pseudo(&self) -> Pseudo {
        Pseudo::v4(self.src(), self.dst())
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// The options, writable.
    pub fn option_bytes_mut(&mut self) -> &mut [u8] {
        let end = self.header_len().min(self.as_bytes().len());
        self.buffer.as_mut().get_mut(MIN_HEADER_LEN..end).unwrap_or_default()
    }

    /// The payload, writable.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let (start, end) = self.payload_range();
        self.buffer.as_mut().get_mut(start..end).unwrap_or_default()
    }

    /// Computes the header checksum and writes it.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let end = self.header_len().min(self.as_bytes().len());
        self.set_checksum(checksum::internet(&self.as_bytes()[..end]));
    }

    /// Decrements the TTL and brings the checksum up to date; false, and nothing done, if it was 0 already.
    pub fn decrement_ttl(&mut self) -> bool {
        let Some(ttl) = self.ttl().checked_sub(1) else { return false };
        let word = |ttl: u8, protocol: u8| u16::from_be_bytes([ttl, protocol]);
        let (old, new) = (word(self.ttl(), self.protocol()), word(ttl, self.protocol()));
        self.set_checksum(checksum::update16(self.checksum(), old, new));
        self.set_ttl(ttl);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071-style example that is on every desk: checksum b861.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
        0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn reads_literal_bytes() {
        let ip = Packet::new_checked(&HEADER[..]).unwrap();
        assert_eq!((ip.version(), ip.header_len(), ip.total_len()), (4, 20, 115));
        assert_eq!((ip.ttl(), ip.protocol(), ip.dont_fragment()), (64, 17, true));
        assert_eq!(ip.src(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(ip.dst(), Ipv4Addr::new(192, 168, 0, 199));
        assert!(ip.verify_checksum());
        assert!(ip.payload().is_empty() && ip.option_bytes().is_empty());
        assert!(!ip.fragment().is_fragment());
    }

    #[test]
    fn fill_and_decrement_keep_the_checksum_right() {
        let mut ip = Packet::new_checked(HEADER).unwrap();
        ip.set_checksum(0);
        assert!(!ip.verify_checksum());
        ip.fill_checksum();
        assert_eq!(ip.checksum(), 0xb861);
        for _ in 0..64 {
            assert!(ip.decrement_ttl() && ip.verify_checksum());
        }
        assert!(!ip.decrement_ttl());
    }

    #[test]
    fn payload_ends_where_total_length_says() {
        let mut bytes = [0u8; 46];
        bytes[0] = 0x46;
        bytes[3] = 26;
        let mut ip = Packet::new_checked(&mut bytes[..]).unwrap();
        assert_eq!((ip.option_bytes().len(), ip.payload().len()), (4, 2));
        ip.set_total_len(0);
        assert_eq!(ip.payload_mut().len(), 22);
        ip.set_ihl(15);
        assert_eq!(ip.option_bytes().len(), 26);
        assert!(ip.payload().is_empty() && !ip.verify_checksum());
    }

    #[test]
    fn refuses_wrong_versions_and_lengths() {
        let with = |first: u8| Packet::new_checked([first; 20]).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(with(0x65).unwrap_err(), "ipv4: version is 6, expected 4");
        assert_eq!(with(0x44).unwrap_err(), "ipv4: header length in words is 4, expected 5..=15");
        assert!(Packet::new_checked([0x45; 19]).is_err());
    }
}
