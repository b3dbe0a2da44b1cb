//! User Datagram Protocol (RFC 768).

use super::Error;
use super::checksum::{self, Pseudo};
use super::field::{fields, view};

/// Protocol number of UDP.
pub const PROTOCOL: u8 = 17;
/// Length of the header.
pub const HEADER_LEN: usize = 8;

view! {
    /// A UDP datagram: header and payload.
    Datagram, "udp", HEADER_LEN
}

fields!(Datagram {
    /// Source port, 0 if no answer is wanted.
    src_port / set_src_port: u16 = 0;
    /// Destination port.
    dst_port / set_dst_port: u16 = 2;
    /// Bytes of header and payload, as it stands; 0 in an IPv6 jumbogram (RFC 2675 §4).
    len_field / set_len_field: u16 = 4;
    /// Checksum over pseudo header and datagram; 0 means none, which only IPv4 permits.
    checksum / set_checksum: u16 = 6;
});

impl<T: AsRef<[u8]>> Datagram<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Where the datagram ends: by its length field, less what was cut off. A length below 8 says nothing, so
    /// that the buffer's end stands for it.
    #[inline]
    fn end(&self) -> usize {
        let (len, have) = (usize::from(self.len_field()), self.as_bytes().len());
        if len < HEADER_LEN { have } else { len.min(have) }
    }

    /// The payload by the length field, less what was cut off.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.as_bytes().get(HEADER_LEN..self.end()).unwrap_or(&[])
    }

    /// Whether the checksum is right. Over IPv4 a datagram without one is right; over IPv6 it is not
    /// (RFC 8200 §8.1; tunnels of RFC 6935 are the caller's to excuse).
    pub fn verify_checksum(&self, pseudo: &Pseudo) -> bool {
        if self.checksum() == 0 {
            return !pseudo.is_v6();
        }
        let bytes = &self.as_bytes()[..self.end()];
        pseudo.sum(PROTOCOL, bytes.len()).add_bytes(bytes).finish() == 0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Datagram<T> {
    /// The payload, writable.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let end = self.end();
        self.buffer.as_mut().get_mut(HEADER_LEN..end).unwrap_or_default()
    }

    /// Computes the checksum and writes it; a computed 0 is written as 0xffff.
    pub fn fill_checksum(&mut self, pseudo: &Pseudo) {
        self.set_checksum(0);
        let bytes = &self.as_bytes()[..self.end()];
        let checksum = pseudo.sum(PROTOCOL, bytes.len()).add_bytes(bytes).finish();
        self.set_checksum(checksum::udp_nonzero(checksum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const BYTES: [u8; 13] = [0, 53, 0xc0, 0x00, 0, 12, 0, 0, b'a', b'b', b'c', b'd', 0xee];

    fn v4() -> Pseudo {
        Pseudo::v4(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2))
    }

    #[test]
    fn reads_literal_bytes() {
        let udp = Datagram::new_checked(&BYTES[..]).unwrap();
        assert_eq!((udp.src_port(), udp.dst_port(), udp.len_field()), (53, 49_152, 12));
        assert_eq!(udp.payload(), b"abcd");
    }

    #[test]
    fn length_field_is_bounded_by_the_buffer() {
        let mut udp = Datagram::new_checked(BYTES).unwrap();
        for (len, payload) in [(0, 5), (7, 5), (8, 0), (13, 5), (14, 5), (65_535, 5)] {
            udp.set_len_field(len);
            assert_eq!((len, udp.payload().len()), (len, payload));
        }
    }

    #[test]
    fn zero_checksum_rules() {
        let v6 = Pseudo::v6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let mut udp = Datagram::new_checked(BYTES).unwrap();
        assert!(udp.verify_checksum(&v4()) && !udp.verify_checksum(&v6));
        udp.fill_checksum(&v6);
        assert!(udp.verify_checksum(&v6));
        udp.fill_checksum(&v4());
        assert!(udp.verify_checksum(&v4()));
        // Make the sum come out as zero: adding the checksum to a covered word does.
        let checksum = udp.checksum();
        let word = udp.payload().first_chunk::<2>().map(|w| u16::from_be_bytes(*w)).unwrap();
        let sum = u32::from(word) + u32::from(checksum);
        let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        udp.payload_mut()[..2].copy_from_slice(&folded.to_be_bytes());
        udp.fill_checksum(&v4());
        assert_eq!(udp.checksum(), 0xffff);
        assert!(udp.verify_checksum(&v4()));
    }
}
