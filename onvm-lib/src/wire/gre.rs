//! Generic Routing Encapsulation: version 0 (RFC 2784, key and sequence of RFC 2890) and the "enhanced"
//! version 1 of PPTP (RFC 2637 §4.1).

use super::Error;
use super::checksum;
use super::ethernet::EtherType;
use super::field::{be16, be32, bits, fields, flags, view};

/// Protocol number of GRE.
pub const PROTOCOL: u8 = 47;
/// Length of the header without its optional fields.
pub const MIN_HEADER_LEN: usize = 4;
/// Protocol type of PPP, which is what version 1 carries.
pub const PPP: EtherType = EtherType(0x880b);

view! {
    /// A GRE packet: header, optional fields, payload.
    Packet, "gre", MIN_HEADER_LEN
}

fields!(Packet {
    /// Flags and version in one.
    flags_version / set_flags_version: u16 = 0;
    /// Protocol type of the payload, an EtherType.
    protocol_type / set_protocol_type: u16 = 2;
});

flags!(Packet {
    /// A checksum is present.
    has_checksum / set_has_checksum: u16 = 0, bit 15;
    /// Source routes are present (RFC 1701; no longer defined by RFC 2784).
    has_routing / set_has_routing: u16 = 0, bit 14;
    /// A key is present.
    has_key / set_has_key: u16 = 0, bit 13;
    /// A sequence number is present.
    has_sequence / set_has_sequence: u16 = 0, bit 12;
    /// An acknowledgment number is present (version 1 only).
    has_ack / set_has_ack: u16 = 0, bit 7;
});

bits!(Packet {
    /// Version, 0 or 1.
    version / set_version: u16 = 0, >> 0 & 0x7;
});

impl<T: AsRef<[u8]>> Packet<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        if self.version() > 1 {
            let value = usize::from(self.version());
            return Err(Error::Field { header: "gre", field: "version", value, expected: "0 or 1" });
        }
        Ok(())
    }

    /// Offset of the key: after the checksum and what goes with it.
    fn key_offset(&self) -> usize {
        MIN_HEADER_LEN + 4 * usize::from(self.has_checksum() || self.has_routing())
    }

    fn sequence_offset(&self) -> usize {
        self.key_offset() + 4 * usize::from(self.has_key())
    }

    fn ack_offset(&self) -> usize {
        self.sequence_offset() + 4 * usize::from(self.has_sequence())
    }

    /// Bytes of the header with its optional fields, source routes not counted.
    pub fn header_len(&self) -> usize {
        self.ack_offset() + 4 * usize::from(self.version() == 1 && self.has_ack())
    }

    /// The checksum over header and payload, if there is one.
    pub fn checksum(&self) -> Option<u16> {
        self.has_checksum().then(|| be16(self.as_bytes(), MIN_HEADER_LEN))?
    }

    /// The key, if there is one. In version 1 the upper half is the length of the payload and the lower half
    /// the call id.
    pub fn key(&self) -> Option<u32> {
        self.has_key().then(|| be32(self.as_bytes(), self.key_offset()))?
    }

    /// The sequence number, if there is one.
    pub fn sequence(&self) -> Option<u32> {
        self.has_sequence().then(|| be32(self.as_bytes(), self.sequence_offset()))?
    }

    /// The acknowledgment number of version 1, if there is one.
    pub fn ack(&self) -> Option<u32> {
        (self.version() == 1 && self.has_ack()).then(|| be32(self.as_bytes(), self.ack_offset()))?
    }

    /// The payload; `None` if the header was cut off or has source routes, which nobody sends.
    pub fn payload(&self) -> Option<&[u8]> {
        if self.has_routing() {
            return None;
        }
        self.as_bytes().get(self.header_len()..)
    }

    /// Whether the checksum is right, or there is none.
    pub fn verify_checksum(&self) -> bool {
        !self.has_checksum() || checksum::internet(self.as_bytes()) == 0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Writes an optional field that its flag says is there and the buffer has room for.
    fn set_optional(&mut self, present: bool, at: usize, value: &[u8]) -> bool {
        let place = self.buffer.as_mut().get_mut(at..at + value.len()).filter(|_| present);
        place.map(|bytes| bytes.copy_from_slice(value)).is_some()
    }

    /// Sets the key; false, and nothing done, if the header has none.
    pub fn set_key(&mut self, key: u32) -> bool {
        self.set_optional(self.has_key(), self.key_offset(), &key.to_be_bytes())
    }

    /// Sets the sequence number; false, and nothing done, if the header has none.
    pub fn set_sequence(&mut self, sequence: u32) -> bool {
        self.set_optional(self.has_sequence(), self.sequence_offset(), &sequence.to_be_bytes())
    }

    /// Sets the acknowledgment number; false, and nothing done, if the header has none.
    pub fn set_ack(&mut self, ack: u32) -> bool {
        self.set_optional(self.version() == 1 && self.has_ack(), self.ack_offset(), &ack.to_be_bytes())
    }

    /// Computes the checksum, if the header has one, and writes it.
    pub fn fill_checksum(&mut self) {
        if self.set_optional(self.has_checksum(), MIN_HEADER_LEN, &[0; 4]) {
            let checksum = checksum::internet(self.as_bytes());
            self.set_optional(true, MIN_HEADER_LEN, &checksum.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_optional_fields() {
        let bytes = [0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0x45];
        let mut gre = Packet::new_checked(bytes).unwrap();
        assert_eq!((gre.version(), gre.protocol_type(), gre.header_len()), (0, 0x0800, 16));
        assert_eq!((gre.key(), gre.sequence(), gre.ack()), (Some(7), Some(9), None));
        assert_eq!(gre.payload(), Some(&[0x45][..]));
        assert!(!gre.verify_checksum());
        assert!(gre.set_key(8) && gre.set_sequence(1) && !gre.set_ack(1));
        gre.fill_checksum();
        assert!(gre.verify_checksum() && gre.checksum().is_some());
        assert_eq!((gre.key(), gre.sequence()), (Some(8), Some(1)));
    }

    #[test]
    fn reads_pptp() {
        let bytes = [0x30, 0x81, 0x88, 0x0b, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0xff];
        let gre = Packet::new_checked(&bytes[..]).unwrap();
        assert_eq!((gre.version(), EtherType(gre.protocol_type())), (1, PPP));
        assert_eq!((gre.key(), gre.sequence(), gre.ack()), (Some(0x1_0002), Some(3), Some(4)));
        assert_eq!(gre.payload(), Some(&[0xff][..]));
    }

    #[test]
    fn cut_and_unknown_are_not_followed() {
        let gre = Packet::new_checked(&[0xb0, 0, 8, 0, 0, 0][..]).unwrap();
        assert_eq!((gre.key(), gre.payload()), (None, None));
        assert_eq!(Packet::new_checked([0x40, 0, 8, 0, 0, 0, 0, 0, 1]).unwrap().payload(), None);
        let error = Packet::new_checked([0, 2, 8, 0]).unwrap_err();
        assert_eq!(error.to_string(), "gre: version is 2, expected 0 or 1");
    }
}
