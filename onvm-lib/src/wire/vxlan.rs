//! Virtual eXtensible Local Area Network (RFC 7348): an Ethernet frame in a UDP datagram. Geneve (RFC 8926),
//! its successor, is here too.

use super::Error;
use super::field::{bits, fields, flags, view};

/// UDP destination port of VXLAN (IANA).
pub const PORT: u16 = 4789;
/// UDP destination port that Linux used before IANA gave one, and still defaults to.
pub const PORT_LINUX: u16 = 8472;
/// UDP destination port of VXLAN with a next protocol ("GPE", draft-ietf-nvo3-vxlan-gpe).
pub const PORT_GPE: u16 = 4790;
/// UDP destination port of Geneve (IANA).
pub const GENEVE_PORT: u16 = 6081;
/// Length of either header, Geneve's options not counted.
pub const HEADER_LEN: usize = 8;

view! {
    /// A VXLAN packet: header and inner frame.
    Packet, "vxlan", HEADER_LEN
}

fields!(Packet {
    /// All flags.
    flags / set_flags: u8 = 0;
    /// Next protocol, of GPE only: 1 is IPv4, 2 IPv6, 3 Ethernet.
    next_protocol / set_next_protocol: u8 = 3;
});

flags!(Packet {
    /// The network identifier is valid; the RFC wants it set.
    has_vni / set_has_vni: u8 = 0, bit 3;
    /// The next protocol is valid, of GPE only.
    has_next_protocol / set_has_next_protocol: u8 = 0, bit 2;
});

bits!(Packet {
    /// VXLAN network identifier, 24 bits.
    vni / set_vni: u32 = 4, >> 8 & 0xff_ffff;
});

impl<T: AsRef<[u8]>> Packet<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The inner Ethernet frame, or with GPE packet.
    pub fn payload(&self) -> &[u8] {
        &self.as_bytes()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// The inner Ethernet frame, writable.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }
}

view! {
    /// A Geneve packet: header, options, inner packet.
    Geneve, "geneve", HEADER_LEN
}

bits!(Geneve {
    /// Version, 0.
    version / set_version: u8 = 0, >> 6 & 0x3;
    /// Length of the options in 32-bit words.
    option_words / set_option_words: u8 = 0, >> 0 & 0x3f;
    /// Virtual network identifier, 24 bits.
    vni / set_vni: u32 = 4, >> 8 & 0xff_ffff;
});

flags!(Geneve {
    /// Control packet, not for a tenant.
    is_control / set_is_control: u8 = 1, bit 7;
    /// At least one option must be understood.
    has_critical / set_has_critical: u8 = 1, bit 6;
});

fields!(Geneve {
    /// EtherType of the payload, 0x6558 for an Ethernet frame.
    protocol_type / set_protocol_type: u16 = 2;
});

impl<T: AsRef<[u8]>> Geneve<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        if self.version() != 0 {
            let value = usize::from(self.version());
            return Err(Error::Field { header: "geneve", field: "version", value, expected: "0" });
        }
        Ok(())
    }

    /// Bytes of header and options.
    pub fn header_len(&self) -> usize {
        HEADER_LEN + 4 * usize::from(self.option_words())
    }

    /// The inner packet; `None` if the options were cut off.
    pub fn payload(&self) -> Option<&[u8]> {
        self.as_bytes().get(self.header_len()..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_vxlan() {
        let mut vxlan = Packet::new_checked([8, 0, 0, 0, 0x12, 0x34, 0x56, 0xff, 1, 2]).unwrap();
        assert!(vxlan.has_vni());
        assert_eq!((vxlan.vni(), vxlan.payload()), (0x12_3456, &[1, 2][..]));
        vxlan.set_vni(0xff00_0001);
        vxlan.payload_mut()[0] = 9;
        assert_eq!(vxlan.into_inner(), [8, 0, 0, 0, 0, 0, 1, 0xff, 9, 2]);
    }

    #[test]
    fn reads_geneve() {
        let bytes = [0x01, 0x40, 0x65, 0x58, 0, 0, 7, 0, 0, 1, 2, 3, 0xaa];
        let geneve = Geneve::new_checked(&bytes[..]).unwrap();
        assert_eq!((geneve.header_len(), geneve.vni(), geneve.protocol_type()), (12, 7, 0x6558));
        assert!(geneve.has_critical() && !geneve.is_control());
        assert_eq!(geneve.payload(), Some(&[0xaa][..]));
        assert_eq!(Geneve::new_checked(&bytes[..11]).unwrap().payload(), None);
        assert!(Geneve::new_checked([0x40; 8]).is_err());
    }
}
