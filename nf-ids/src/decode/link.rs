//! What comes before the network layer: Ethernet, cooked captures, tags, MPLS, PPPoE, PPP, ARP.

use onvm_lib::wire::LinkType;

use super::{Event, Pass, be16, be32};

const ETHERNET_HEADER: usize = 14;
const ARP_PACKET: usize = 28;

impl<'a> Pass<'a, '_> {
    pub(super) fn link(&mut self, bytes: &'a [u8], link: LinkType) {
        match link {
            LinkType::Ethernet => self.ethernet(bytes),
            LinkType::RawIp => self.raw_ip(bytes),
            LinkType::LinuxSll => match bytes.get(16..) {
                Some(rest) => self.ether_type(rest, be16(bytes, 14).unwrap_or(0)),
                None => self.event(Event::SllTooSmall),
            },
            LinkType::LinuxSll2 => match bytes.get(20..) {
                Some(rest) => self.ether_type(rest, be16(bytes, 0).unwrap_or(0)),
                None => self.event(Event::Sll2TooSmall),
            },
            LinkType::Other(0 | 108) => self.null(bytes),
            LinkType::Other(9 | 50) => self.ppp(bytes),
            // Cisco's HDLC: address, control, EtherType.
            LinkType::Other(104) => match bytes.get(4..) {
                Some(rest) => self.ether_type(rest, be16(bytes, 2).unwrap_or(0)),
                None => self.event(Event::ChdlcTooSmall),
            },
            LinkType::Other(_) => {}
        }
    }

    fn ethernet(&mut self, bytes: &'a [u8]) {
        let Some((header, rest)) = bytes.split_at_checked(ETHERNET_HEADER) else {
            return self.event(Event::EthernetTooSmall);
        };
        self.packet.ethernet = Some(header);
        let kind = be16(header, 12).unwrap_or(0);
        self.ether_type(rest, kind);
    }

    /// What an EtherType says follows.
    pub(super) fn ether_type(&mut self, bytes: &'a [u8], kind: u16) {
        if !self.deeper() {
            return;
        }
        self.packet.ether_type = kind;
        match kind {
            0x0800 => self.ipv4(bytes),
            0x86dd => self.ipv6(bytes),
            0x8100 | 0x88a8 | 0x9100 => self.vlan(bytes),
            0x0806 => self.arp(bytes),
            0x8847 | 0x8848 => self.mpls(bytes),
            0x8863 => self.pppoe_discovery(bytes),
            0x8864 => self.pppoe_session(bytes),
            0x6558 => self.ethernet(bytes),
            0x88e7 => match bytes.get(4 + 12..) {
                // Provider backbone: service tag, then the customer's addresses and type.
                Some(rest) if rest.len() >= 2 => self.ether_type(&rest[2..], be16(rest, 0).unwrap_or(0)),
                _ => self.event(Event::Ieee8021ahTooSmall),
            },
            // The data of a data center: two bytes, then a frame (Cisco's metadata tag).
            0x8903 if bytes.len() < 2 + ETHERNET_HEADER => self.event(Event::DceTooSmall),
            0x8903 => self.ethernet(&bytes[2..]),
            0x8926 => self.tag(bytes, 4, [Event::VntagTooSmall, Event::VntagUnknownType]),
            0x893f => self.tag(bytes, 6, [Event::EtagTooSmall, Event::EtagUnknownType]),
            0x894f => self.nsh(bytes),
            _ => self.event(Event::EthernetUnknownType),
        }
    }

    /// A tag of `length` bytes before the EtherType of what follows; what is told if it is too short, or of no known type.
    fn tag(&mut self, bytes: &'a [u8], length: usize, [short, unknown]: [Event; 2]) {
        let (Some(kind), Some(rest)) = (be16(bytes, length), bytes.get(length + 2..)) else {
            return self.event(short);
        };
        self.ether_type(rest, kind);
        if !known(kind) {
            self.event(unknown);
        }
    }

    /// Network service header (RFC 8300).
    fn nsh(&mut self, bytes: &'a [u8]) {
        let Some(&[first, second, kind, next, ..]) = bytes.first_chunk::<8>() else {
            return self.event(Event::NshTooSmall);
        };
        if first >> 6 != 0 {
            return self.event(Event::NshVersion);
        }
        let length = usize::from(second & 0x3f) * 4;
        let Some(rest) = bytes.get(length..).filter(|rest| !rest.is_empty()) else {
            return self.event(Event::NshHeaderLength);
        };
        match kind {
            0 | 0x0f => return self.event(Event::NshReservedType),
            1 if length != 24 => return self.event(Event::NshHeaderLength),
            1 | 2 => {}
            _ => return self.event(Event::NshUnsupportedType),
        }
        match next {
            1 => self.ipv4(rest),
            2 => self.ipv6(rest),
            3 => self.ethernet(rest),
            5 => self.mpls(rest),
            _ => self.event(Event::NshUnknownPayload),
        }
    }

    fn vlan(&mut self, bytes: &'a [u8]) {
        let (Some(tag), Some(kind)) = (be16(bytes, 0), be16(bytes, 2)) else {
            return self.event(Event::VlanTooSmall);
        };
        if !self.packet.push_vlan(tag & 0x0fff) {
            return self.event(Event::VlanTooManyLayers);
        }
        if !known(kind) {
            self.event(Event::VlanUnknownType);
        }
        self.ether_type(&bytes[4..], kind);
    }

    /// MPLS (RFC 3032): what the lowest label carries, only its bytes tell.
    fn mpls(&mut self, mut bytes: &'a [u8]) {
        let label = loop {
            let Some(entry) = be32(bytes, 0) else { return self.event(Event::MplsHeaderTooSmall) };
            bytes = &bytes[4..];
            if entry & 0x100 != 0 {
                break entry >> 12;
            }
        };
        match label {
            0 => self.ipv4(bytes),
            1 => self.event(Event::MplsRouterAlert),
            2 => self.ipv6(bytes),
            3 => self.event(Event::MplsImplicitNull),
            // 15 extends the labels (RFC 7274): what follows it is as behind any other.
            4..=14 => self.event(Event::MplsReserved),
            _ if bytes.len() < 4 => self.event(Event::MplsTooSmall),
            _ => match bytes[0] >> 4 {
                4 => self.ipv4(bytes),
                6 => self.ipv6(bytes),
                // A control word (RFC 4385), then a frame.
                0 => self.ethernet(&bytes[4..]),
                _ => self.event(Event::MplsUnknownPayload),
            },
        }
    }

    /// PPPoE's first phase (RFC 2516 §5): tags, nothing to inspect.
    fn pppoe_discovery(&mut self, bytes: &'a [u8]) {
        let Some((header, rest)) = bytes.split_at_checked(6) else {
            return self.event(Event::PppoeTooSmall);
        };
        if !matches!(header[1], 0x09 | 0x07 | 0x19 | 0x65 | 0xa7) {
            return self.event(Event::PppoeWrongCode);
        }
        let Some(mut tags) = rest.get(..usize::from(be16(header, 4).unwrap_or(0))) else {
            return self.event(Event::PppoeMalformedTags);
        };
        while let Some(length) = be16(tags, 2) {
            let Some(after) = tags.get(4 + usize::from(length)..) else {
                return self.event(Event::PppoeMalformedTags);
            };
            tags = after;
        }
    }

    fn pppoe_session(&mut self, bytes: &'a [u8]) {
        if bytes.len() < 7 {
            return self.event(Event::PppoeTooSmall);
        }
        if be16(bytes, 4) != Some(0) {
            self.ppp_protocol(&bytes[6..]);
        }
    }

    /// PPP with or without address and control bytes (RFC 1661, RFC 1662).
    pub(super) fn ppp(&mut self, bytes: &'a [u8]) {
        if bytes.len() < 4 {
            return self.event(Event::PppTooSmall);
        }
        let protocol = if bytes.starts_with(&[0xff, 0x03]) { &bytes[2..] } else { bytes };
        self.ppp_protocol(protocol);
    }

    fn ppp_protocol(&mut self, bytes: &'a [u8]) {
        // A first byte that is odd is all of the number (RFC 1661 §2).
        let (protocol, rest) = match *bytes {
            [short, ref rest @ ..] if short & 1 == 1 => (u16::from(short), rest),
            [high, low, ref rest @ ..] => (u16::from_be_bytes([high, low]), rest),
            _ => return self.event(Event::PppTooSmall),
        };
        match protocol {
            0x21 if rest.len() < 20 => self.event(Event::PppIpv4TooSmall),
            0x21 => self.ipv4(rest),
            0x2f if rest.len() < 20 => self.event(Event::PppVjuTooSmall),
            0x2f if rest[0] >> 4 == 4 => self.ipv4(rest),
            0x57 if rest.len() < 40 => self.event(Event::PppIpv6TooSmall),
            0x57 => self.ipv6(rest),
            0x23 | 0x25 | 0x27 | 0x29 | 0x2b | 0x2d | 0x31 | 0x33 | 0x35 | 0x37 | 0x39 | 0x3b | 0x3d
            | 0x3f | 0x41 | 0x43 | 0x45 | 0x47 | 0x49 | 0x4b | 0x4d | 0x8021 | 0x8057 | 0xc021 | 0xc023
            | 0xc025 | 0xc223 => self.event(Event::PppUnsupported),
            _ => self.event(Event::PppWrongType),
        }
    }

    /// A loopback capture: the address family, in the byte order of who wrote it.
    fn null(&mut self, bytes: &'a [u8]) {
        let Some((family, rest)) = bytes.split_first_chunk::<4>() else {
            return self.event(Event::NullTooSmall);
        };
        match u32::from_le_bytes(*family).min(u32::from_be_bytes(*family)) {
            2 => self.ipv4(rest),
            10 | 24 | 28 | 30 => self.ipv6(rest),
            _ => self.event(Event::NullUnsupported),
        }
    }

    /// ARP (RFC 826) for IPv4 over Ethernet: what is anything else is ARP for no rule.
    fn arp(&mut self, bytes: &'a [u8]) {
        let wrong = [
            (bytes.len() < 8, Event::ArpTooSmall),
            (be16(bytes, 0) != Some(1), Event::ArpHardware),
            (be16(bytes, 2) != Some(0x0800), Event::ArpProtocol),
            (bytes.len() < ARP_PACKET, Event::ArpUnsupported),
            (bytes.get(4) != Some(&6), Event::ArpHardwareSize),
            (bytes.get(5) != Some(&4), Event::ArpProtocolSize),
            (!matches!(be16(bytes, 6), Some(1..=4)), Event::ArpOpcode),
        ];
        if let Some((_, event)) = wrong.iter().find(|(holds, _)| *holds) {
            self.event(*event);
            self.packet.ether_type = 0;
        }
    }
}

/// Whether an EtherType is one that is read here.
fn known(kind: u16) -> bool {
    matches!(
        kind,
        0x0800
            | 0x0806
            | 0x6558
            | 0x8100
            | 0x86dd
            | 0x8847
            | 0x8848
            | 0x8863
            | 0x8864
            | 0x88a8
            | 0x88e7
            | 0x8903
            | 0x8926
            | 0x893f
            | 0x894f
            | 0x9100
    )
}
