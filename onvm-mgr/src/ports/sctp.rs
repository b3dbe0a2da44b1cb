//! The checksum of SCTP (RFC 9260 §6.8 and appendix A): a CRC32c over header and chunks, which local senders leave to a card.
//!
//! What stands in the field of a packet that was left is 0; what is told beside a frame gives its place, as for other checksums.

/// Protocol number.
pub(super) const PROTOCOL: u8 = 132;
/// Where the checksum stands in the header.
pub(super) const CHECKSUM: usize = 8;

/// The polynomial 0x1edc6f41, bits in the other order.
const POLYNOMIAL: u32 = 0x82f6_3b78;
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut number = 0u32;
    while number < 256 {
        let (mut left, mut bit) = (number, 0);
        while bit < 8 {
            left = if left & 1 == 1 { left >> 1 ^ POLYNOMIAL } else { left >> 1 };
            bit += 1;
        }
        table[number as usize] = left;
        number += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)];
    !bytes.iter().fold(u32::MAX, step)
}

/// Whether a packet's checksum was left to a card.
pub(super) fn is_left(packet: &[u8]) -> bool {
    packet.get(CHECKSUM..CHECKSUM + 4) == Some(&[0; 4])
}

/// Computes the checksum of a packet, header and chunks, and writes it.
pub(super) fn complete(packet: &mut [u8]) {
    if let Some(place) = packet.get_mut(CHECKSUM..CHECKSUM + 4) {
        place.fill(0);
        let crc = crc32c(packet).to_le_bytes();
        packet[CHECKSUM..CHECKSUM + 4].copy_from_slice(&crc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_crc32c() {
        // RFC 3720, appendix B.4: 32 zeros, 32 ones, and 0 to 31; the check value of the CRC catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let counted: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&counted), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_is_too_short_is_left_alone() {
        let mut short = [0; 11];
        assert!(!is_left(&short));
        complete(&mut short);
        assert_eq!(short, [0; 11]);
        let mut packet = [0; 16];
        assert!(is_left(&packet));
        complete(&mut packet);
        assert!(!is_left(&packet));
    }
}
