//! ICMP (RFC 792) and ICMPv6 (RFC 4443, RFC 4861, RFC 2710).

use super::{Event, IcmpFields, Pass, Transport, be16, be32};

const HEADER: usize = 8;

/// The highest code that a type of ICMP has; none: no such type.
fn highest_code(kind: u8) -> Option<u8> {
    match kind {
        0 | 4 | 8 | 10 | 13..=18 => Some(0),
        3 => Some(15),
        5 => Some(3),
        9 => Some(16),
        11 => Some(1),
        12 => Some(2),
        _ => None,
    }
}

impl<'a> Pass<'a, '_> {
    pub(super) fn icmpv4(&mut self, bytes: &'a [u8]) {
        let Some((header, payload)) = bytes.split_at_checked(HEADER) else {
            self.packet.invalid = true;
            return self.event(Event::Icmpv4TooSmall);
        };
        let (kind, code) = (header[0], header[1]);
        self.packet.transport = Transport::Icmp4(bytes);
        self.packet.payload = payload;
        let asks = matches!(kind, 0 | 8 | 13..=18);
        self.packet.icmp_fields = Some(IcmpFields {
            kind,
            code,
            id: be16(header, 4).filter(|_| asks),
            sequence: be16(header, 6).filter(|_| asks),
            mtu: None,
        });
        match highest_code(kind) {
            None => self.event(Event::Icmpv4UnknownType),
            Some(highest) if code > highest => self.event(Event::Icmpv4UnknownCode),
            Some(_) if matches!(kind, 3 | 4 | 5 | 11 | 12) => match payload.first() {
                None if kind != 4 => {}
                None => self.event(Event::Icmpv4InnerTruncated),
                Some(_) if payload.len() < 20 => self.event(Event::Icmpv4InnerTruncated),
                Some(byte) if byte >> 4 != 4 => self.event(Event::Icmpv4InnerVersion),
                Some(_) => {}
            },
            Some(_) => {}
        }
    }

    pub(super) fn icmpv6(&mut self, bytes: &'a [u8]) {
        let Some((header, payload)) = bytes.split_at_checked(HEADER) else {
            self.packet.invalid = true;
            return self.event(Event::Icmpv6TooSmall);
        };
        let (kind, code) = (header[0], header[1]);
        self.packet.transport = Transport::Icmp6(bytes);
        self.packet.payload = payload;
        let asks = matches!(kind, 128 | 129);
        self.packet.icmp_fields = Some(IcmpFields {
            kind,
            code,
            id: be16(header, 4).filter(|_| asks),
            sequence: be16(header, 6).filter(|_| asks),
            mtu: be32(header, 4).filter(|_| kind == 2),
        });
        // What is neither an error nor an echo has four bytes of header; the rest is its body.
        self.packet.payload = &bytes[4..];
        let known = match kind {
            1 => code <= 6,
            3 => code <= 1,
            4 => code <= 2,
            2 | 128..=137 | 141..=149 | 154 | 156..=159 => code == 0,
            138 => code <= 2 || code == u8::MAX,
            139 | 140 => code <= 2,
            150..=153 => true,
            155 => code <= 3 || (128..=132).contains(&code),
            100 | 101 | 200 | 201 => return self.event(Event::Icmpv6ExperimentationType),
            5..=99 | 102..=126 | 160..=199 | 202..=255 => return self.event(Event::Icmpv6UnassignedType),
            0 | 127 => return self.event(Event::Icmpv6UnknownType),
        };
        if matches!(kind, 130..=132) && self.packet.ttl() != Some(1) {
            self.event(Event::Icmpv6MldHopLimit);
        }
        if !known {
            return self.event(Event::Icmpv6UnknownCode);
        }
        if asks || kind <= 4 {
            self.packet.payload = payload;
        }
        if kind <= 4 {
            match payload.first() {
                Some(byte) if payload.len() >= 40 => {
                    if byte >> 4 != 6 {
                        self.event(Event::Icmpv6InnerVersion);
                    }
                }
                _ => self.event(Event::Icmpv6InnerTruncated),
            }
        }
    }
}
