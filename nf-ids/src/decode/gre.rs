//! GRE (RFC 2784, RFC 2890, with the routes of RFC 1701; version 1: RFC 2637), and ERSPAN of types I and II in it.

use super::{Begin, Event, Pass, Tunnel, be16};

const CHECKSUM: u8 = 0x80;
const ROUTE: u8 = 0x40;
const KEY: u8 = 0x20;
const SEQUENCE: u8 = 0x10;
const STRICT: u8 = 0x08;
const RECURSION: u8 = 0x07;
/// Bits of the second byte that are reserved in both versions.
const FLAGS: u8 = 0x78;
/// Version 1: an acknowledgement number is there.
const ACK: u8 = 0x80;

const ETHER_ERSPAN: u16 = 0x88be;
const ETHER_BRIDGED: u16 = 0x6558;
const ETHER_PPP: u16 = 0x880b;

impl<'a> Pass<'a, '_> {
    pub(super) fn gre(&mut self, bytes: &'a [u8]) {
        let Some(&[first, second, a, b]) = bytes.first_chunk::<4>() else {
            self.packet.invalid = true;
            return self.event(Event::GreTooSmall);
        };
        let protocol = u16::from_be_bytes([a, b]);
        let length = match second & 7 {
            0 => gre0_length(bytes, first, second),
            1 => gre1_length(bytes, first, second, protocol),
            _ => Err(Event::GreWrongVersion),
        };
        let inner = match length {
            Ok(length) => &bytes[length..],
            Err(event) => return self.event(event),
        };
        match protocol {
            0x0800 => self.carries(inner, Begin::Ipv4, Tunnel::Gre),
            0x86dd => self.carries(inner, Begin::Ipv6, Tunnel::Gre),
            // A packet that only acknowledges has no payload (RFC 2637 §4.1).
            ETHER_PPP if second & 7 == 1 && be16(bytes, 4) == Some(0) => {}
            ETHER_PPP => self.carries(inner, Begin::Ppp, Tunnel::Gre),
            ETHER_BRIDGED => {
                self.carries(inner, Begin::Link(onvm_lib::wire::LinkType::Ethernet), Tunnel::Gre);
            }
            // Type I has neither a header of its own nor a sequence number.
            ETHER_ERSPAN if first & SEQUENCE == 0 => {
                self.carries(inner, Begin::Link(onvm_lib::wire::LinkType::Ethernet), Tunnel::Erspan);
            }
            ETHER_ERSPAN => self.erspan(inner),
            0x8100 | 0x88a8 | 0x0806 => self.carries(inner, Begin::Ether(protocol), Tunnel::Gre),
            _ => {}
        }
    }

    /// ERSPAN of type II: 8 bytes, then a frame.
    fn erspan(&mut self, bytes: &'a [u8]) {
        let Some((header, frame)) = bytes.split_at_checked(8) else {
            return self.event(Event::ErspanTooSmall);
        };
        if header[0] >> 4 != 1 {
            return self.event(Event::ErspanVersion);
        }
        let id = be16(header, 0).unwrap_or(0) & 0x0fff;
        if id != 0 && !self.packet.push_vlan(id) {
            return self.event(Event::ErspanTooManyVlans);
        }
        self.carries(frame, Begin::Link(onvm_lib::wire::LinkType::Ethernet), Tunnel::Erspan);
    }
}

/// Length of a header of version 0; it is there.
fn gre0_length(bytes: &[u8], first: u8, second: u8) -> Result<usize, Event> {
    if first & RECURSION != 0 {
        return Err(Event::GreRecursion);
    }
    if second & FLAGS != 0 {
        return Err(Event::GreFlags);
    }
    let words = usize::from(first & KEY != 0)
        + usize::from(first & SEQUENCE != 0)
        + usize::from(first & (CHECKSUM | ROUTE) != 0);
    let mut length = 4 + words * 4;
    if length > bytes.len() {
        return Err(Event::GreHeaderTooBig);
    }
    let mut routed = first & ROUTE != 0;
    while routed {
        let entry = bytes.get(length..).and_then(|rest| rest.first_chunk::<4>());
        let Some(&[family, low, _, size]) = entry else { return Err(Event::GreMalformedRoute) };
        length += 4 + usize::from(size);
        if length > bytes.len() {
            return Err(Event::GreMalformedRoute);
        }
        routed = family != 0 || low != 0 || size != 0;
    }
    Ok(length)
}

/// Length of a header of version 1, as PPTP has it.
fn gre1_length(bytes: &[u8], first: u8, second: u8, protocol: u16) -> Result<usize, Event> {
    let wrong = [
        (first & CHECKSUM != 0, Event::Gre1Checksum),
        (first & ROUTE != 0, Event::Gre1Route),
        (first & STRICT != 0, Event::Gre1StrictRoute),
        (first & RECURSION != 0, Event::Gre1Recursion),
        (second & FLAGS != 0, Event::Gre1Flags),
        (protocol != ETHER_PPP, Event::Gre1WrongProtocol),
        (first & KEY == 0, Event::Gre1NoKey),
    ];
    if let Some((_, event)) = wrong.iter().find(|(holds, _)| *holds) {
        return Err(*event);
    }
    let length = 8 + 4 * (usize::from(first & SEQUENCE != 0) + usize::from(second & ACK != 0));
    if length > bytes.len() { Err(Event::Gre1HeaderTooBig) } else { Ok(length) }
}
