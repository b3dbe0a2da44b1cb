//! PPP over Ethernet (RFC 2516): session packets, whose payload is a PPP protocol number and a packet.

use super::Error;
use super::ethernet::EtherType;
use super::field::{be16, bits, fields, view};

/// Length of the header, the PPP protocol number not counted.
pub const HEADER_LEN: usize = 6;

view! {
    /// A PPPoE packet.
    Packet, "pppoe", HEADER_LEN
}

bits!(Packet {
    /// Version, 1.
    version / set_version: u8 = 0, >> 4 & 0xf;
    /// Type, 1.
    kind / set_kind: u8 = 0, >> 0 & 0xf;
});

fields!(Packet {
    /// Code; 0 for session data.
    code / set_code: u8 = 1;
    /// Session identifier.
    session / set_session: u16 = 2;
    /// Bytes after this header.
    payload_len / set_payload_len: u16 = 4;
});

impl<T: AsRef<[u8]>> Packet<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        if self.version() != 1 {
            let value = usize::from(self.version());
            return Err(Error::Field { header: "pppoe", field: "version", value, expected: "1" });
        }
        Ok(())
    }

    /// What follows the header, as far as the length says and the bytes go.
    pub fn payload(&self) -> &[u8] {
        let bytes = &self.as_bytes()[HEADER_LEN..];
        &bytes[..bytes.len().min(usize::from(self.payload_len()))]
    }

    /// PPP protocol number of a session packet.
    pub fn ppp_protocol(&self) -> Option<u16> {
        be16(self.payload(), 0).filter(|_| self.code() == 0)
    }
}

/// The EtherType that says the same as a PPP protocol number, for the protocols that have one (IANA "Point-
/// to-Point Protocol Field Assignments").
#[must_use]
pub fn ethertype_of_ppp(protocol: u16) -> Option<EtherType> {
    match protocol {
        0x0021 => Some(EtherType::IPV4),
        0x0057 => Some(EtherType::IPV6),
        0x0281 => Some(EtherType::MPLS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_session_packet() {
        let bytes = [0x11, 0, 0x12, 0x34, 0, 4, 0x00, 0x21, 0x45, 0, 0xff];
        let pppoe = Packet::new_checked(&bytes[..]).unwrap();
        assert_eq!((pppoe.session(), pppoe.payload_len()), (0x1234, 4));
        assert_eq!(pppoe.payload().len(), 4);
        assert_eq!(pppoe.ppp_protocol().and_then(ethertype_of_ppp), Some(EtherType::IPV4));
        assert!(Packet::new_checked([0x21; 6]).is_err());
    }
}
