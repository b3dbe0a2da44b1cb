//! Internet Control Message Protocol for IPv6 (RFC 4443). Neighbor discovery is read further in
//! [`ndp`](super::ndp).

use super::Error;
use super::checksum::Pseudo;
use super::field::{fields, view};

/// Protocol number of ICMPv6.
pub const PROTOCOL: u8 = 58;
/// Length of the header; as in ICMP, every standard message has four bytes of its own.
pub const HEADER_LEN: usize = 8;

/// Message type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Message type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Message type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Message type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Message type: echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Message type: echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Message type: router solicitation (RFC 4861 §4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// Message type: router advertisement (RFC 4861 §4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Message type: neighbor solicitation (RFC 4861 §4.3).
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// Message type: neighbor advertisement (RFC 4861 §4.4).
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Message type: redirect (RFC 4861 §4.5).
pub const REDIRECT: u8 = 137;

view! {
    /// An ICMPv6 message.
    Message, "icmpv6", HEADER_LEN
}

fields!(Message {
    /// Type (IANA "ICMPv6 type Numbers").
    kind / set_kind: u8 = 0;
    /// Code, which tells cases of a type apart.
    code / set_code: u8 = 1;
    /// Checksum over pseudo header and message.
    checksum / set_checksum: u16 = 2;
    /// The four bytes whose meaning the type decides, as a number.
    rest / set_rest: u32 = 4;
    /// Identifier of an echo.
    id / set_id: u16 = 4;
    /// Sequence number of an echo.
    seq / set_seq: u16 = 6;
    /// MTU of the next hop in bytes, in [`PACKET_TOO_BIG`].
    mtu / set_mtu: u32 = 4;
    /// Byte that a [`PARAMETER_PROBLEM`] points at, counted from the start of the original header.
    pointer / set_pointer: u32 = 4;
});

/// Whether messages of this type carry identifier and sequence number.
#[must_use]
#[inline]
pub fn is_query(kind: u8) -> bool {
    matches!(kind, ECHO_REQUEST | ECHO_REPLY)
}

/// Whether messages of this type carry the head of the datagram that caused them: all types below 128 are
/// errors (RFC 4443 §2.1), these are those there are.
#[must_use]
#[inline]
pub fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE..=PARAMETER_PROBLEM)
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

    /// The head of the datagram that an error is about, its IPv6 header first; `None` for other types.
    pub fn original(&self) -> Option<&[u8]> {
        is_error(self.kind()).then(|| self.payload())
    }

    /// Whether the checksum is right for a message that fills the buffer.
    pub fn verify_checksum(&self, pseudo: &Pseudo) -> bool {
        let bytes = self.as_bytes();
        pseudo.sum(PROTOCOL, bytes.len()).add_bytes(bytes).finish() == 0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Message<T> {
    /// All after the header, writable.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }

    /// Computes the checksum of a message that fills the buffer and writes it.
    pub fn fill_checksum(&mut self, pseudo: &Pseudo) {
        self.set_checksum(0);
        let bytes = self.as_bytes();
        let checksum = pseudo.sum(PROTOCOL, bytes.len()).add_bytes(bytes).finish();
        self.set_checksum(checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn reads_an_echo_and_an_error() {
        let echo = Message::new_checked(&[128, 0, 0, 0, 0, 7, 0, 9, 1][..]).unwrap();
        assert_eq!((echo.echo(), echo.payload()), (Some((7, 9)), &[1][..]));
        assert_eq!(echo.original(), None);
        let mut big = Message::new_checked([0u8; 48]).unwrap();
        big.set_kind(PACKET_TOO_BIG);
        big.set_mtu(1280);
        assert_eq!((big.mtu(), big.pointer(), big.rest(), big.echo()), (1280, 1280, 1280, None));
        assert_eq!(big.original().map(<[u8]>::len), Some(40));
    }

    #[test]
    fn checksum_covers_the_pseudo_header() {
        let pseudo = Pseudo::v6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let mut echo = Message::new_checked([128u8, 0, 0, 0, 0, 7, 0, 9, 1]).unwrap();
        echo.fill_checksum(&pseudo);
        assert!(echo.verify_checksum(&pseudo));
        let other = Pseudo::v6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        assert!(!echo.verify_checksum(&other));
    }
}
