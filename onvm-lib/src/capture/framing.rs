//! Link headers other than Ethernet's: how long each is, and which EtherType says the same of what follows.
//!
//! Only whole headers of the plain forms are stepped over. Of anything else (control frames, encrypted or fragmented
//! frames, protocols without an EtherType) nothing is said: whoever counts counts such a frame as it is. Sources:
//! <https://www.tcpdump.org/linktypes.html>; RFC 1662 and 1661 (PPP), RFC 1547 §4.3.1 (Cisco HDLC), RFC 2427 (frame
//! relay), FRF.16.1 (multilink frame relay), IEEE 802.11-2020 §9.2 and §9.3, <https://www.radiotap.org>.

use super::LinkType;
use crate::wire::EtherType;
use crate::wire::pppoe::ethertype_of_ppp;

/// A link header that is understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    /// Its length in bytes.
    pub(super) skip: usize,
    /// What follows it.
    pub(super) ethertype: u16,
    /// Addresses of receiver and sender, where it has such.
    pub(super) receiver: [u8; 6],
    pub(super) sender: [u8; 6],
}

impl Framing {
    fn of_type(skip: usize, ethertype: u16) -> Option<Self> {
        // Lower ones are lengths.
        (ethertype >= EtherType::MIN).then(|| Self { skip, ethertype, ..Self::default() })
    }

    fn after(self, more: usize) -> Self {
        Self { skip: self.skip + more, ..self }
    }
}

/// The header of a frame; none when it is not understood, or cut.
pub(super) fn of(link_type: LinkType, data: &[u8]) -> Option<Framing> {
    match link_type {
        LinkType::Null => loopback(u32::from_le_bytes(*data.first_chunk()?)),
        LinkType::Loop => loopback(u32::from_be_bytes(*data.first_chunk()?)),
        LinkType::Ppp | LinkType::PppHdlc => ppp(data),
        LinkType::PppWithDirection => ppp(data.get(1..)?).map(|it| it.after(1)),
        LinkType::CiscoHdlc => Framing::of_type(4, be16(data, 2)?),
        LinkType::FrameRelay => frame_relay(data),
        LinkType::FrameRelayWithDirection => frame_relay(data.get(1..)?).map(|it| it.after(1)),
        LinkType::MultilinkFrameRelay => multilink(data),
        LinkType::AtmRfc1483 => snap(data),
        LinkType::Wifi => wifi(data),
        LinkType::WifiRadiotap => {
            behind(data, usize::from(u16::from_le_bytes([*data.get(2)?, *data.get(3)?])))
        }
        LinkType::WifiPrism => prism(data),
        LinkType::Ethernet
        | LinkType::RawIp
        | LinkType::RawIpv4
        | LinkType::RawIpv6
        | LinkType::LinuxSll
        | LinkType::LinuxSll2
        | LinkType::Other(_) => None,
    }
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// BSD loopback: the address family, in the byte order of the machine that wrote it.
fn loopback(family: u32) -> Option<Framing> {
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    match family {
        2 => Framing::of_type(4, EtherType::IPV4.0),
        // IPv6 on Linux, NetBSD and OpenBSD, FreeBSD, Darwin.
        10 | 24 | 28 | 30 => Framing::of_type(4, EtherType::IPV6.0),
        _ => None,
    }
}

/// PPP, with or without address and control, with a protocol number of one byte or two; Cisco's framing on the same kind
/// of line has other addresses.
fn ppp(data: &[u8]) -> Option<Framing> {
    let skip = match data {
        [0x0f | 0x8f, ..] => return Framing::of_type(4, be16(data, 2)?),
        [0xff, 0x03, ..] => 2,
        _ => 0,
    };
    let first = *data.get(skip)?;
    let (protocol, length) = if first & 1 == 1 { (first.into(), 1) } else { (be16(data, skip)?, 2) };
    Framing::of_type(skip + length, ethertype_of_ppp(protocol)?.0)
}

/// Frame relay: an address of two to four bytes, then the header of RFC 2427, or an EtherType as Cisco has it.
fn frame_relay(data: &[u8]) -> Option<Framing> {
    /// The bit that ends an address.
    const LAST: u8 = 1;
    let address = 1 + data.iter().take(4).position(|byte| byte & LAST == LAST).filter(|at| *at > 0)?;
    match data.get(address..)? {
        [0x03, 0x00, rest @ ..] => network_layer(rest, address + 2),
        [0x03, rest @ ..] => network_layer(rest, address + 1),
        rest => Framing::of_type(address + 2, be16(rest, 0)?),
    }
}

/// A network layer protocol identifier (ISO/IEC TR 9577), and what follows `before` bytes.
fn network_layer(rest: &[u8], before: usize) -> Option<Framing> {
    match rest {
        [0xcc, ..] => Framing::of_type(before + 1, EtherType::IPV4.0),
        [0x8e, ..] => Framing::of_type(before + 1, EtherType::IPV6.0),
        [0x80, 0, 0, 0, kind @ ..] => Framing::of_type(before + 6, be16(kind, 0)?),
        _ => None,
    }
}

/// Multilink frame relay: two bytes before the first piece of a frame; control messages carry none.
fn multilink(data: &[u8]) -> Option<Framing> {
    const BEGIN: u8 = 0x80;
    const CONTROL: u8 = 0x20;
    let first = *data.first()?;
    if first & (BEGIN | CONTROL) != BEGIN {
        return None;
    }
    frame_relay(data.get(2..)?).map(|it| it.after(2))
}

/// LLC and SNAP with an EtherType (RFC 1042, and 802.1H's other organization).
fn snap(data: &[u8]) -> Option<Framing> {
    match data {
        [0xaa, 0xaa, 0x03, 0, 0, 0 | 0xf8, kind @ ..] => Framing::of_type(8, be16(kind, 0)?),
        _ => None,
    }
}

/// 802.11 after `length` bytes of radio information.
fn behind(data: &[u8], length: usize) -> Option<Framing> {
    wifi(data.get(length..)?).map(|it| it.after(length))
}

/// Radio information of Prism drivers: their own, or AVS's, which begins with its version.
fn prism(data: &[u8]) -> Option<Framing> {
    const AVS: u32 = 0x8021_1001;
    let word = |at: usize| data.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied();
    let length = if u32::from_be_bytes(word(0)?) == AVS {
        u32::from_be_bytes(word(4)?)
    } else {
        u32::from_le_bytes(word(4)?)
    };
    behind(data, usize::try_from(length).ok()?)
}

/// An 802.11 data frame.
fn wifi(data: &[u8]) -> Option<Framing> {
    const DATA: u8 = 0x08;
    const TYPE: u8 = 0x0c;
    const NO_DATA: u8 = 0x40;
    const QOS: u8 = 0x80;
    const TO_NETWORK: u8 = 0x01;
    const FROM_NETWORK: u8 = 0x02;
    const ENCRYPTED: u8 = 0x40;
    const CONTROL_FIELD: u8 = 0x80;
    let header = data.first_chunk::<24>()?;
    let (kind, flags) = (header[0], header[1]);
    let later_fragment = header[22] & 0x0f != 0;
    if kind & TYPE != DATA || kind & NO_DATA != 0 || flags & ENCRYPTED != 0 || later_fragment {
        return None;
    }
    let address = |at: usize| data.get(at..).and_then(|rest| rest.first_chunk::<6>()).copied();
    let (receiver, sender, addresses) = match (flags & TO_NETWORK != 0, flags & FROM_NETWORK != 0) {
        (false, false) => (address(4)?, address(10)?, 24),
        (false, true) => (address(4)?, address(16)?, 24),
        (true, false) => (address(16)?, address(10)?, 24),
        (true, true) => (address(16)?, address(24)?, 30),
    };
    let mut length = addresses;
    if kind & QOS != 0 {
        // Several packets in one frame are left alone.
        const AGGREGATE: u8 = 0x80;
        if data.get(length)? & AGGREGATE != 0 {
            return None;
        }
        length += if flags & CONTROL_FIELD != 0 { 6 } else { 2 };
    }
    let inner = snap(data.get(length..)?)?.after(length);
    Some(Framing { receiver, sender, ..inner })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_header(link_type: LinkType, header: &[u8], ethertype: u16) {
        let frame = [header, &[0x45, 0]].concat();
        let found = of(link_type, &frame).map(|it| (it.skip, it.ethertype));
        assert_eq!(found, Some((header.len(), ethertype)), "{link_type}");
        for length in 0..header.len() {
            assert_eq!(of(link_type, &frame[..length]), None, "{link_type}, cut to {length}");
        }
    }

    #[test]
    fn headers_are_stepped_over() {
        assert_header(LinkType::Null, &[2, 0, 0, 0], 0x0800);
        assert_header(LinkType::Null, &[0, 0, 0, 30], 0x86dd);
        assert_header(LinkType::Loop, &[0, 0, 0, 24], 0x86dd);
        assert_header(LinkType::Ppp, &[0xff, 3, 0, 0x21], 0x0800);
        assert_header(LinkType::Ppp, &[0x57], 0x86dd);
        assert_header(LinkType::PppHdlc, &[0x0f, 0, 8, 0], 0x0800);
        assert_header(LinkType::PppWithDirection, &[1, 0xff, 3, 0x02, 0x81], 0x8847);
        assert_header(LinkType::CiscoHdlc, &[0x0f, 0, 0x86, 0xdd], 0x86dd);
        assert_header(LinkType::FrameRelay, &[0x18, 0x41, 3, 0xcc], 0x0800);
        assert_header(LinkType::FrameRelay, &[0x18, 0x40, 0x41, 3, 0, 0x80, 0, 0, 0, 8, 6], 0x0806);
        assert_header(LinkType::FrameRelay, &[0x18, 0x41, 8, 0], 0x0800);
        assert_header(LinkType::FrameRelayWithDirection, &[0, 0x18, 0x41, 3, 0x8e], 0x86dd);
        assert_header(LinkType::MultilinkFrameRelay, &[0xc0, 1, 0x18, 0x41, 3, 0xcc], 0x0800);
        assert_header(LinkType::AtmRfc1483, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], 0x0800);
    }

    #[test]
    fn of_802_11_data_frames_carry_packets() {
        let mut frame =
            vec![0x88, 0x02, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 0x10, 0, 0, 0];
        frame.extend([0xaa, 0xaa, 3, 0, 0, 0, 8, 0]);
        assert_header(LinkType::Wifi, &frame, 0x0800);
        let found = of(LinkType::Wifi, &frame).unwrap();
        assert_eq!((found.receiver, found.sender), ([1; 6], [3; 6]));
        assert_header(LinkType::WifiRadiotap, &[&[0, 0, 9, 0, 0, 0, 0, 0, 0], &frame[..]].concat(), 0x0800);
        for (at, bits) in [(0, 0x40), (0, 0x04), (1, 0x40), (22, 1), (24, 0x80)] {
            let mut other = frame.clone();
            other[at] ^= bits;
            assert_eq!(of(LinkType::Wifi, &other), None, "byte {at}, bits {bits:#x}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        assert_eq!(of(LinkType::Ppp, &[0xff, 3, 0xc0, 0x21, 1, 1, 0, 4]), None);
        assert_eq!(of(LinkType::MultilinkFrameRelay, &[0xe0, 0, 0x18, 0x41, 3, 0xcc]), None);
        assert_eq!(of(LinkType::CiscoHdlc, &[0x0f, 0, 0, 0x23, 0x45]), None);
        assert_eq!(of(LinkType::Other(147), &[0x45; 60]), None);
    }
}
