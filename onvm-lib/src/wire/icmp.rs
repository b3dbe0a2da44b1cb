//! Internet Control Message Protocol (RFC 792).

use std::net::Ipv4Addr;

use super::Error;
use super::checksum;
use super::field::{fields, view};

/// Protocol number of ICMP.
pub const PROTOCOL: u8 = 1;
/// Length of the header: all messages have four bytes of their own after type, code and checksum.
pub const HEADER_LEN: usize = 8;

/// Message type: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Message type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Message type: source quench (deprecated by RFC 6633).
pub const SOURCE_QUENCH: u8 = 4;
/// Message type: redirect.
pub const REDIRECT: u8 = 5;
/// Message type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Message type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Message type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Code of [`UNREACHABLE`]: fragmentation needed and "don't fragment" set (RFC 1191).
pub const FRAGMENTATION_NEEDED: u8 = 4;

view! {
    /// An ICMP message.
    Message, "icmp", HEADER_LEN
}

fields!(Message {
    /// Type (IANA "ICMP Type Numbers").
    kind / set_kind: u8 = 0;
    /// Code, which tells cases of a type apart.
    code / set_code: u8 = 1;
    /// Checksum over the whole message.
    checksum / set_checksum: u16 = 2;
    /// The four bytes whose meaning the type decides, as a number.
    rest / set_rest: u32 = 4;
    /// Identifier of a query; see [`is_query`].
    id / set_id: u16 = 4;
    /// Sequence number of a query; see [`is_query`].
    seq / set_seq: u16 = 6;
    /// Gateway of a [`REDIRECT`].
    gateway / set_gateway: Ipv4Addr = 4;
    /// Byte that a [`PARAMETER_PROBLEM`] points at, counted from the start of the original header.
    pointer / set_pointer: u8 = 4;
    /// MTU of the next hop in bytes, in [`FRAGMENTATION_NEEDED`] (RFC 1191 §4); 0 from old routers.
    mtu / set_mtu: u16 = 6;
});

/// Whether messages of this type carry identifier and sequence number: echo, timestamp, information and
/// address mask, requests and replies.
#[must_use]
#[inline]
pub fn is_query(kind: u8) -> bool {
    matches!(kind, ECHO_REPLY | ECHO_REQUEST | 13..=18)
}

/// Whether messages of this type carry the head of the datagram that caused them.
#[must_use]
#[inline]
pub fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

impl<T: AsRef<[u8]>> Message<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Identifier and sequence number, if the type has them.
    pub fn echo(&self) -> Option<(u16, u16)> {
        is_query(self.kind()).then(|| (self.id(), self.seq()))
    }

    /// All after the header.
    pub fn payload(&self) -> &[u8] {
        &self.as_bytes()[HEADER_LEN..]
    }

    /// The head of the datagram that an error is about, its IPv4 header first; `None` for other types. RFC
    /// 4884 extensions may follow it.
    pub fn original(&self) -> Option<&[u8]> {
        is_error(self.kind()).then(|| self.payload())
    }

    /// Whether the checksum is right for a message that fills the buffer.
    pub fn verify_checksum(&self) -> bool {
        checksum::internet(self.as_bytes()) == 0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Message<T> {
    /// All after the header, writable.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }

    /// Computes the checksum of a message that fills the buffer and writes it.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        self.set_checksum(checksum::internet(self.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: [u8; 12] = [8, 0, 0, 0, 0x12, 0x34, 0, 5, 1, 2, 3, 4];

    #[test]
    fn reads_an_echo() {
        let icmp = Message::new_checked(&ECHO[..]).unwrap();
        assert_eq!((icmp.kind(), icmp.code()), (ECHO_REQUEST, 0));
        assert_eq!(icmp.echo(), Some((0x1234, 5)));
        assert_eq!(icmp.payload(), [1, 2, 3, 4]);
        assert_eq!(icmp.original(), None);
        assert!(!icmp.verify_checksum());
    }

    #[test]
    fn fills_the_checksum() {
        let mut icmp = Message::new_checked(ECHO).unwrap();
        icmp.fill_checksum();
        assert_eq!(icmp.checksum(), !(0x0800 + 0x1234 + 5 + 0x0102 + 0x0304));
        assert!(icmp.verify_checksum());
        icmp.payload_mut()[0] ^= 1;
        assert!(!icmp.verify_checksum());
    }

    #[test]
    fn reads_errors() {
        let mut icmp = Message::new_checked([0u8; 36]).unwrap();
        icmp.set_kind(UNREACHABLE);
        icmp.set_code(FRAGMENTATION_NEEDED);
        icmp.set_mtu(1400);
        assert_eq!((icmp.mtu(), icmp.rest(), icmp.echo()), (1400, 1400, None));
        assert_eq!(icmp.original().map(<[u8]>::len), Some(28));
        icmp.set_kind(REDIRECT);
        icmp.set_gateway(Ipv4Addr::new(10, 0, 0, 254));
        assert_eq!((icmp.gateway(), icmp.pointer()), (Ipv4Addr::new(10, 0, 0, 254), 10));
        assert!(Message::new_checked([0u8; 7]).is_err());
    }
}
