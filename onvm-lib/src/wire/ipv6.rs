//! Internet Protocol version 6 (RFC 8200): the fixed header. Extension headers are in
//! [`ipv6_ext`](super::ipv6_ext).

use std::net::Ipv6Addr;

use super::Error;
use super::checksum::Pseudo;
use super::field::{bits, fields, view};
use super::ipv6_ext::{Extensions, NO_NEXT_HEADER, is_extension};

/// Length of the header.
pub const HEADER_LEN: usize = 40;

view! {
    /// An IPv6 packet: header, extension headers, payload.
    Packet, "ipv6", HEADER_LEN
}

bits!(Packet {
    /// Version, 6.
    version / set_version: u8 = 0, >> 4 & 0xf;
    /// Traffic class: differentiated services code point and ECN.
    traffic_class / set_traffic_class: u16 = 0, >> 4 & 0xff;
    /// Differentiated services code point, 0..=63.
    dscp / set_dscp: u16 = 0, >> 6 & 0x3f;
    /// Explicit congestion notification, 0..=3.
    ecn / set_ecn: u16 = 0, >> 4 & 0x3;
    /// Flow label, 20 bits (RFC 6437).
    flow_label / set_flow_label: u32 = 0, >> 0 & 0xf_ffff;
});

fields!(Packet {
    /// Bytes after this header, as it stands; 0 in a jumbogram (RFC 2675) and where a NIC is to segment.
    payload_len / set_payload_len: u16 = 4;
    /// Kind of the next header (IANA "Protocol Numbers").
    next_header / set_next_header: u8 = 6;
    /// Hops left.
    hop_limit / set_hop_limit: u8 = 7;
    /// Source address.
    src / set_src: Ipv6Addr = 8;
    /// Destination address.
    dst / set_dst: Ipv6Addr = 24;
});

impl<T: AsRef<[u8]>> Packet<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        if self.version() != 6 {
            let value = usize::from(self.version());
            return Err(Error::Field { header: "ipv6", field: "version", value, expected: "6" });
        }
        Ok(())
    }

    /// Where the packet ends. A payload length of 0 with a next header means that it is said elsewhere (jumbo
    /// option) or not yet known (segmentation offload): the buffer's end stands for it.
    #[inline]
    fn end(&self) -> usize {
        let (len, have) = (usize::from(self.payload_len()), self.as_bytes().len());
        if len == 0 && self.next_header() != NO_NEXT_HEADER { have } else { (HEADER_LEN + len).min(have) }
    }

    /// Extension headers and what they carry, less what was cut off.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.as_bytes().get(HEADER_LEN..self.end()).unwrap_or(&[])
    }

    /// The extension headers one by one.
    pub fn extensions(&self) -> Extensions<'_> {
        Extensions::new(self.payload(), self.next_header())
    }

    /// The addresses for the checksum of the payload, the destination being the one in this header.
    #[inline]
    pub fn pseudo(&self) -> Pseudo {
        Pseudo::v6(self.src(), self.dst())
    }

    /// The same with the *final* destination, which a routing header names that has segments left (RFC 8200
    /// §8.1).
    pub fn final_pseudo(&self) -> Pseudo {
        if !is_extension(self.next_header()) {
            return self.pseudo();
        }
        let last = self.extensions().find_map(|extension| extension.final_destination());
        Pseudo::v6(self.src(), last.unwrap_or(self.dst()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Extension headers and what they carry, writable.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let end = self.end();
        self.buffer.as_mut().get_mut(HEADER_LEN..end).unwrap_or_default()
    }

    /// Decrements the hop limit; false, and nothing done, if it was 0 already.
    pub fn decrement_hop_limit(&mut self) -> bool {
        let Some(hops) = self.hop_limit().checked_sub(1) else { return false };
        self.set_hop_limit(hops);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&[0x6a, 0xbc, 0xde, 0xf1, 0, 4, 59, 64]);
        bytes[23] = 1;
        bytes[39] = 2;
        bytes
    }

    #[test]
    fn reads_literal_bytes() {
        let bytes = bytes();
        let ip = Packet::new_checked(&bytes[..]).unwrap();
        assert_eq!((ip.version(), ip.traffic_class(), ip.flow_label()), (6, 0xab, 0xc_def1));
        assert_eq!((ip.dscp(), ip.ecn()), (0x2a, 3));
        assert_eq!((ip.payload_len(), ip.next_header(), ip.hop_limit()), (4, 59, 64));
        assert_eq!(ip.src(), Ipv6Addr::LOCALHOST);
        assert_eq!(ip.dst(), "::2".parse::<Ipv6Addr>().unwrap());
        assert_eq!(ip.payload().len(), 4);
    }

    #[test]
    fn setters_leave_their_neighbours_alone() {
        let mut ip = Packet::new_checked(bytes()).unwrap();
        ip.set_flow_label(0xfff0_0001);
        assert_eq!((ip.version(), ip.traffic_class(), ip.flow_label()), (6, 0xab, 1));
        ip.set_traffic_class(0x1cd);
        assert_eq!((ip.version(), ip.traffic_class(), ip.flow_label()), (6, 0xcd, 1));
        ip.set_ecn(0);
        ip.set_dscp(1);
        assert_eq!(ip.traffic_class(), 4);
        ip.set_hop_limit(1);
        assert!(ip.decrement_hop_limit() && !ip.decrement_hop_limit());
    }

    #[test]
    fn zero_length_means_the_rest_unless_nothing_follows() {
        let mut ip = Packet::new_checked(bytes()).unwrap();
        ip.set_payload_len(0);
        assert!(ip.payload().is_empty());
        ip.set_next_header(6);
        assert_eq!(ip.payload_mut().len(), 8);
        ip.set_payload_len(9);
        assert_eq!(ip.payload().len(), 8);
    }

    #[test]
    fn refuses_other_versions() {
        let error = Packet::new_checked([0x45; 40]).unwrap_err();
        assert_eq!(error.to_string(), "ipv6: version is 4, expected 6");
        assert!(Packet::new_checked([0x60; 39]).is_err());
    }
}
