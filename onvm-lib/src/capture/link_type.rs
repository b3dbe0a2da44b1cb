//! What a frame starts with, as capture files number it (<https://www.tcpdump.org/linktypes.html>).

use std::fmt;

use pcap_file::DataLink;

/// What a frame starts with. A chain of network functions can do something with those that [`LinkType::is_carried`]
/// names; who only counts ([`Reader::any_link_type`](super::Reader::any_link_type)) takes all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet, without preamble (1).
    Ethernet,
    /// An IPv4 or IPv6 packet, told apart by its version field (101; 12 in files of some systems).
    RawIp,
    /// An IPv4 packet (228).
    RawIpv4,
    /// An IPv6 packet (229).
    RawIpv6,
    /// Linux "cooked" header of 16 bytes (113), as `tcpdump -i any` wrote it.
    LinuxSll,
    /// Linux "cooked" header of 20 bytes, version 2 (276).
    LinuxSll2,
    /// BSD loopback: address family in the byte order of the machine that wrote the file (0).
    Null,
    /// OpenBSD loopback: address family in network order (108).
    Loop,
    /// PPP, with or without address and control (9).
    Ppp,
    /// PPP in HDLC-like framing, or Cisco HDLC (50).
    PppHdlc,
    /// PPP after a byte that says the direction (204).
    PppWithDirection,
    /// Cisco HDLC (104).
    CiscoHdlc,
    /// Frame relay (107).
    FrameRelay,
    /// Frame relay after a byte that says the direction (206).
    FrameRelayWithDirection,
    /// Multilink frame relay, FRF.16.1 (182).
    MultilinkFrameRelay,
    /// LLC over ATM, RFC 1483 (100).
    AtmRfc1483,
    /// IEEE 802.11 (105).
    Wifi,
    /// IEEE 802.11 after a radiotap header (127).
    WifiRadiotap,
    /// IEEE 802.11 after a header of Prism drivers, or AVS (119).
    WifiPrism,
    /// Any other, by its number.
    Other(u16),
}

impl LinkType {
    /// The number that stands for this link type in a file.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Ethernet => 1,
            Self::RawIp => 101,
            Self::RawIpv4 => 228,
            Self::RawIpv6 => 229,
            Self::LinuxSll => 113,
            Self::LinuxSll2 => 276,
            Self::Null => 0,
            Self::Loop => 108,
            Self::Ppp => 9,
            Self::PppHdlc => 50,
            Self::PppWithDirection => 204,
            Self::CiscoHdlc => 104,
            Self::FrameRelay => 107,
            Self::FrameRelayWithDirection => 206,
            Self::MultilinkFrameRelay => 182,
            Self::AtmRfc1483 => 100,
            Self::Wifi => 105,
            Self::WifiRadiotap => 127,
            Self::WifiPrism => 119,
            Self::Other(number) => number,
        }
    }

    /// Whether its frames can be carried as Ethernet frames, and come out of a chain as such.
    #[must_use]
    pub const fn is_carried(self) -> bool {
        matches!(
            self,
            Self::Ethernet
                | Self::RawIp
                | Self::RawIpv4
                | Self::RawIpv6
                | Self::LinuxSll
                | Self::LinuxSll2
                | Self::Null
                | Self::Loop
                | Self::CiscoHdlc
                | Self::Ppp
        )
    }

    /// The link type with this number, `None` when nothing is known of it.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Ethernet),
            // 12 is DLT_RAW of Linux and most BSDs, written by programs that skip the translation.
            12 | 101 => Some(Self::RawIp),
            113 => Some(Self::LinuxSll),
            228 => Some(Self::RawIpv4),
            229 => Some(Self::RawIpv6),
            276 => Some(Self::LinuxSll2),
            0 => Some(Self::Null),
            108 => Some(Self::Loop),
            9 => Some(Self::Ppp),
            50 => Some(Self::PppHdlc),
            204 => Some(Self::PppWithDirection),
            104 => Some(Self::CiscoHdlc),
            107 => Some(Self::FrameRelay),
            206 => Some(Self::FrameRelayWithDirection),
            182 => Some(Self::MultilinkFrameRelay),
            100 => Some(Self::AtmRfc1483),
            105 => Some(Self::Wifi),
            127 => Some(Self::WifiRadiotap),
            119 => Some(Self::WifiPrism),
            _ => None,
        }
    }

    /// The name of any link type, supported or not, in the spelling of tcpdump's list (`IEEE802_11_RADIOTAP`
    /// for 127); `unassigned` for a number that the list does not have.
    #[must_use]
    pub fn name_of(number: u32) -> String {
        match DataLink::from(number) {
            DataLink::Unknown(_) => String::from("unassigned"),
            named => format!("{named:?}"),
        }
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ethernet => "Ethernet",
            Self::RawIp => "raw IP",
            Self::RawIpv4 => "raw IPv4",
            Self::RawIpv6 => "raw IPv6",
            Self::LinuxSll => "Linux cooked",
            Self::LinuxSll2 => "Linux cooked v2",
            Self::Null => "BSD loopback",
            Self::Loop => "OpenBSD loopback",
            Self::Ppp => "PPP",
            Self::PppHdlc => "PPP over HDLC",
            Self::PppWithDirection => "PPP with direction",
            Self::CiscoHdlc => "Cisco HDLC",
            Self::FrameRelay => "frame relay",
            Self::FrameRelayWithDirection => "frame relay with direction",
            Self::MultilinkFrameRelay => "multilink frame relay",
            Self::AtmRfc1483 => "ATM RFC 1483",
            Self::Wifi => "802.11",
            Self::WifiRadiotap => "802.11 radiotap",
            Self::WifiPrism => "802.11 Prism",
            Self::Other(number) => return write!(f, "{}", Self::name_of((*number).into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_round_trip() {
        for number in 0..1000 {
            match LinkType::from_number(number) {
                Some(link_type) if number == 12 => assert_eq!(link_type, LinkType::RawIp),
                Some(link_type) => assert_eq!(u32::from(link_type.number()), number),
                None => {}
            }
        }
    }

    #[test]
    fn unsupported_link_types_have_the_names_of_the_list() {
        let names = [
            (0, "NULL"),
            (9, "PPP"),
            (105, "IEEE802_11"),
            (108, "LOOP"),
            (127, "IEEE802_11_RADIOTAP"),
            (189, "USB_LINUX"),
            (220, "USB_LINUX_MMAPPED"),
            (65_000, "unassigned"),
        ];
        for (number, name) in names {
            assert_eq!(LinkType::name_of(number), name);
        }
    }
}
