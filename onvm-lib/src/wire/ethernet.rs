//! Ethernet II and IEEE 802.3 frames.
//!
//! The two are told apart by the 16 bits after the addresses: a value of at least 1536 is an EtherType, one
//! of at most 1500 the length of an 802.2 LLC packet (IEEE 802.3 §3.2.6; 1501 to 1535 are neither). An LLC
//! packet may in turn carry an EtherType in a SNAP header (RFC 1042).

use std::fmt;

use super::Error;
use super::field::{Field, be16, fields, view};

/// Length of the header: two addresses and the type.
pub const HEADER_LEN: usize = 14;

/// An EtherType (IANA "IEEE 802 Numbers").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct EtherType(pub u16);

impl EtherType {
    /// Internet Protocol version 4.
    pub const IPV4: EtherType = EtherType(0x0800);
    /// Address Resolution Protocol.
    pub const ARP: EtherType = EtherType(0x0806);
    /// Transparent Ethernet bridging: a whole frame, inside GRE or Geneve.
    pub const TEB: EtherType = EtherType(0x6558);
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: EtherType = EtherType(0x8100);
    /// Service VLAN tag (IEEE 802.1ad, "QinQ").
    pub const QINQ: EtherType = EtherType(0x88a8);
    /// VLAN tag of QinQ equipment older than 802.1ad.
    pub const QINQ_OLD: EtherType = EtherType(0x9100);
    /// Internet Protocol version 6.
    pub const IPV6: EtherType = EtherType(0x86dd);
    /// MPLS label stack.
    pub const MPLS: EtherType = EtherType(0x8847);
    /// MPLS with an upstream-assigned label (RFC 5332).
    pub const MPLS_UPSTREAM: EtherType = EtherType(0x8848);
    /// PPPoE discovery stage.
    pub const PPPOE_DISCOVERY: EtherType = EtherType(0x8863);
    /// PPPoE session stage.
    pub const PPPOE_SESSION: EtherType = EtherType(0x8864);

    /// The least value that is a type and not a length.
    pub const MIN: u16 = 1536;

    /// Whether what follows is a VLAN tag.
    #[must_use]
    #[inline]
    pub fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::QINQ | Self::QINQ_OLD)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("IPv4"),
            Self::ARP => f.write_str("ARP"),
            Self::TEB => f.write_str("TEB"),
            Self::VLAN => f.write_str("802.1Q"),
            Self::QINQ => f.write_str("802.1ad"),
            Self::QINQ_OLD => f.write_str("802.1Q-9100"),
            Self::IPV6 => f.write_str("IPv6"),
            Self::MPLS | Self::MPLS_UPSTREAM => f.write_str("MPLS"),
            Self::PPPOE_DISCOVERY => f.write_str("PPPoE D"),
            Self::PPPOE_SESSION => f.write_str("PPPoE S"),
            EtherType(other) => write!(f, "0x{other:04x}"),
        }
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtherType(0x{:04x})", self.0)
    }
}

/// A 48-bit hardware address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Everyone on the link.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Whether it names a group (the broadcast address included).
    #[must_use]
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for MacAddr {
    type Err = Error;

    /// Reads six hexadecimal bytes between colons, `02:00:00:00:00:01`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |at| Error::Field {
            header: "mac address",
            field: "byte number",
            value: at,
            expected: "six hexadecimal bytes between colons",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for (at, byte) in bytes.iter_mut().enumerate() {
            let part = parts.next().filter(|p| matches!(p.len(), 1 | 2)).ok_or(bad(at))?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad(at));
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad(at))?;
        }
        if parts.next().is_some() {
            return Err(bad(6));
        }
        Ok(MacAddr(bytes))
    }
}

impl Field for MacAddr {
    #[inline]
    fn read(bytes: &[u8], at: usize) -> Self {
        MacAddr(<[u8; 6]>::read(bytes, at))
    }
    #[inline]
    fn write(self, bytes: &mut [u8], at: usize) {
        self.0.write(bytes, at);
    }
}

view! {
    /// An Ethernet frame without preamble and frame check sequence.
    Frame, "ethernet", HEADER_LEN
}

fields!(Frame {
    /// Destination address.
    dst / set_dst: MacAddr = 0;
    /// Source address.
    src / set_src: MacAddr = 6;
    /// EtherType or length, as it stands; see [`ethertype`](Frame::ethertype).
    type_or_len / set_type_or_len: u16 = 12;
});

impl<T: AsRef<[u8]>> Frame<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The EtherType of an Ethernet II frame, or `None` for an 802.3 frame.
    #[inline]
    pub fn ethertype(&self) -> Option<EtherType> {
        Some(EtherType(self.type_or_len())).filter(|t| t.0 >= EtherType::MIN)
    }

    /// The LLC header of an 802.3 frame, if it is one and the three bytes are there.
    pub fn llc(&self) -> Option<Llc> {
        if self.ethertype().is_some() {
            return None;
        }
        Llc::read(self.payload())
    }

    /// All after the header; padding included.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.as_bytes()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Frame<T> {
    /// Sets the EtherType.
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        self.set_type_or_len(ethertype.0);
    }

    /// All after the header, writable.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }
}

/// An IEEE 802.2 LLC header, with its SNAP extension if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Llc {
    /// Destination service access point.
    pub dsap: u8,
    /// Source service access point.
    pub ssap: u8,
    /// First byte of the control field.
    pub control: u8,
    /// Organization and protocol of a SNAP header (RFC 1042); the EtherType if the first is 0.
    pub snap: Option<(u32, u16)>,
}

impl Llc {
    /// Length of LLC and SNAP together.
    pub const SNAP_LEN: usize = 8;

    /// Reads the header at the beginning of `bytes`.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Llc> {
        let [dsap, ssap, control] = *bytes.first_chunk::<3>()?;
        let mut snap = None;
        if let (0xaa, 0xaa, 3) = (dsap, ssap, control)
            && let (Some(oui), Some(pid)) = (bytes.get(3..6), be16(bytes, 6))
        {
            snap = Some((u32::from_be_bytes([0, oui[0], oui[1], oui[2]]), pid));
        }
        Some(Llc { dsap, ssap, control, snap })
    }

    /// The EtherType of what follows, if the SNAP header names one.
    #[must_use]
    pub fn ethertype(&self) -> Option<EtherType> {
        self.snap.filter(|(oui, _)| *oui == 0).map(|(_, pid)| EtherType(pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ethernet_two() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, 9];
        let frame = Frame::new_checked(&bytes[..]).unwrap();
        assert_eq!(frame.dst(), MacAddr::BROADCAST);
        assert_eq!(frame.src().to_string(), "02:00:00:00:00:01");
        assert_eq!(frame.ethertype(), Some(EtherType::ARP));
        assert_eq!(frame.payload(), [9]);
        assert!(frame.llc().is_none());
    }

    #[test]
    fn reads_snap() {
        let mut bytes = vec![0; 12];
        bytes.extend([0, 10, 0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x00, 0x45, 0]);
        let frame = Frame::new_checked(&bytes[..]).unwrap();
        assert_eq!(frame.ethertype(), None);
        assert_eq!(frame.llc().unwrap().ethertype(), Some(EtherType::IPV4));
    }

    #[test]
    fn writes_what_it_reads() {
        let mut frame = Frame::new_checked([0u8; 14]).unwrap();
        frame.set_src(MacAddr([1, 2, 3, 4, 5, 6]));
        frame.set_dst("0a:b:0c:0d:0e:0f".parse().unwrap());
        frame.set_ethertype(EtherType::IPV6);
        assert_eq!(frame.into_inner(), [0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 1, 2, 3, 4, 5, 6, 0x86, 0xdd]);
    }

    #[test]
    fn refuses_what_is_short_or_not_an_address() {
        let error = Frame::new_checked(&[0u8; 13][..]).unwrap_err();
        assert_eq!(error.to_string(), "ethernet needs 14 bytes, 13 are there");
        for text in ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:+6", "001:2:3:4:5:6"] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
