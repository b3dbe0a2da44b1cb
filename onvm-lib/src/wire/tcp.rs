//! Transmission Control Protocol (RFC 9293).

use std::fmt;
use std::ops::BitOr;

use super::Error;
use super::checksum::Pseudo;
use super::field::{bits, fields, view};
use super::tcp_option::Options;

/// Protocol number of TCP.
pub const PROTOCOL: u8 = 6;
/// Length of the header without options.
pub const MIN_HEADER_LEN: usize = 20;
/// Length of the header with the most options it can have.
pub const MAX_HEADER_LEN: usize = 60;

/// The control bits, 12 of them with the reserved ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x001);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x002);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x004);
    /// Push.
    pub const PSH: Flags = Flags(0x008);
    /// The acknowledgment number is significant.
    pub const ACK: Flags = Flags(0x010);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(0x020);
    /// ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x040);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x080);
    /// Accurate ECN (RFC 9768), once the nonce sum (RFC 3540).
    pub const AE: Flags = Flags(0x100);

    /// Whether all of `other` are set.
    #[must_use]
    #[inline]
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    #[must_use]
    #[inline]
    pub fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Display for Flags {
    /// As tcpdump writes them: `S.` for SYN and ACK, `none` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(Flags, char); 9] = [
            (Flags::FIN, 'F'),
            (Flags::SYN, 'S'),
            (Flags::RST, 'R'),
            (Flags::PSH, 'P'),
            (Flags::ACK, '.'),
            (Flags::URG, 'U'),
            (Flags::ECE, 'E'),
            (Flags::CWR, 'W'),
            (Flags::AE, 'e'),
        ];
        if self.0 == 0 {
            return f.write_str("none");
        }
        for (flag, letter) in LETTERS {
            if self.contains(flag) {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

view! {
    /// A TCP segment: header, options, payload.
    Segment, "tcp", MIN_HEADER_LEN
}

fields!(Segment {
    /// Source port.
    src_port / set_src_port: u16 = 0;
    /// Destination port.
    dst_port / set_dst_port: u16 = 2;
    /// Sequence number of the first payload byte, or of the SYN.
    seq / set_seq: u32 = 4;
    /// Next sequence number expected from the other side.
    ack / set_ack: u32 = 8;
    /// Receive window, before scaling.
    window / set_window: u16 = 14;
    /// Checksum over pseudo header and segment.
    checksum / set_checksum: u16 = 16;
    /// Urgent pointer.
    urgent / set_urgent: u16 = 18;
});

bits!(Segment {
    /// Header length in 32-bit words, 5..=15.
    data_offset / set_data_offset: u8 = 12, >> 4 & 0xf;
    /// The twelve control bits as a number; see [`flags`](Segment::flags).
    flag_bits / set_flag_bits: u16 = 12, >> 0 & 0xfff;
});

impl<T: AsRef<[u8]>> Segment<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        if self.data_offset() < 5 {
            let value = usize::from(self.data_offset());
            return Err(Error::Field { header: "tcp", field: "data offset", value, expected: "5..=15" });
        }
        Ok(())
    }

    /// The control bits.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(self.flag_bits())
    }

    /// Bytes of header and options, by the data offset.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset()) * 4
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

    /// All after the options. The buffer must end where the segment does: see
    /// [`Headers::tcp`](crate::wire::Headers::tcp), which sees to it.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.as_bytes().get(self.header_len()..).unwrap_or(&[])
    }

    /// Whether the checksum is right for a segment that fills the buffer.
    pub fn verify_checksum(&self, pseudo: &Pseudo) -> bool {
        let bytes = self.as_bytes();
        pseudo.sum(PROTOCOL, bytes.len()).add_bytes(bytes).finish() == 0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Segment<T> {
    /// Sets the control bits.
    pub fn set_flags(&mut self, flags: Flags) {
        self.set_flag_bits(flags.0);
    }

    /// The options, writable.
    pub fn option_bytes_mut(&mut self) -> &mut [u8] {
        let end = self.header_len().min(self.as_bytes().len());
        self.buffer.as_mut().get_mut(MIN_HEADER_LEN..end).unwrap_or_default()
    }

    /// The payload, writable.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let start = self.header_len();
        self.buffer.as_mut().get_mut(start..).unwrap_or_default()
    }

    /// Computes the checksum of a segment that fills the buffer and writes it.
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
    use std::net::Ipv4Addr;

    const SYN: [u8; 24] =
        [0x04, 0xd2, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];

    #[test]
    fn reads_literal_bytes() {
        let tcp = Segment::new_checked(&SYN[..]).unwrap();
        assert_eq!((tcp.src_port(), tcp.dst_port(), tcp.seq(), tcp.ack()), (1234, 80, 1, 0));
        assert_eq!((tcp.header_len(), tcp.window(), tcp.urgent()), (24, 65_535, 0));
        assert_eq!(tcp.flags(), Flags::SYN);
        assert!(tcp.payload().is_empty());
        assert_eq!(tcp.option_bytes(), [2, 4, 5, 0xb4]);
    }

    #[test]
    fn flags_and_offset_share_bytes_without_harm() {
        let mut tcp = Segment::new_checked(SYN).unwrap();
        tcp.set_flags(Flags::AE | Flags::CWR | Flags::ECE | Flags::SYN);
        assert_eq!((tcp.data_offset(), tcp.flags().to_string().as_str()), (6, "SEWe"));
        tcp.set_data_offset(5);
        assert!(tcp.flags().contains(Flags::AE) && !tcp.flags().intersects(Flags::ACK | Flags::RST));
        assert_eq!(tcp.payload_mut().len(), 4);
        assert_eq!((Flags::SYN | Flags::ACK).to_string(), "S.");
        assert_eq!(Flags(0).to_string(), "none");
    }

    #[test]
    fn checksum_fills_and_verifies() {
        let pseudo = Pseudo::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut tcp = Segment::new_checked(SYN).unwrap();
        tcp.fill_checksum(&pseudo);
        assert!(tcp.verify_checksum(&pseudo));
        tcp.set_seq(2);
        assert!(!tcp.verify_checksum(&pseudo));
    }

    #[test]
    fn short_offsets_are_refused_and_long_ones_are_harmless() {
        let mut bytes = SYN;
        bytes[12] = 0x40;
        let error = Segment::new_checked(&bytes[..]).unwrap_err();
        assert_eq!(error.to_string(), "tcp: data offset is 4, expected 5..=15");
        bytes[12] = 0xf0;
        let tcp = Segment::new_checked(&bytes[..]).unwrap();
        assert_eq!((tcp.option_bytes().len(), tcp.payload().len()), (4, 0));
    }
}
