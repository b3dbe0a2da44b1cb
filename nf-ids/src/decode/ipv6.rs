//! IPv6 (RFC 8200) with its extension headers.

use std::net::{IpAddr, Ipv6Addr};

use super::ipv4::{ESP, GRE, ICMP, ICMPV6, IPIP, IPV6, SCTP, TCP, UDP};
use super::{Begin, Event, Fragment, Net, Pass, Tunnel, be16, be32};

const HEADER: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NONE: u8 = 59;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Which extension headers were there.
#[derive(Default)]
struct Seen {
    hop_by_hop: bool,
    routing: bool,
    fragment: bool,
    authentication: bool,
    destinations: u8,
}

/// Where the reading stands.
struct At<'a> {
    /// From the fixed header on.
    packet: &'a [u8],
    /// Where the next header begins.
    offset: usize,
    /// What it is.
    next: u8,
    /// Where that is written.
    next_at: usize,
}

impl<'a> At<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.packet[self.offset..]
    }

    /// Goes past a header of `length` bytes, which are there.
    fn skip(&mut self, length: usize) {
        self.next = self.packet[self.offset];
        self.next_at = self.offset;
        self.offset += length;
    }
}

impl<'a> Pass<'a, '_> {
    pub(super) fn ipv6(&mut self, bytes: &'a [u8]) {
        if !self.deeper() {
            return;
        }
        if let Err(event) = self.ipv6_header(bytes) {
            self.event(event);
            self.packet.invalid = true;
        }
    }

    fn ipv6_header(&mut self, bytes: &'a [u8]) -> Result<(), Event> {
        let fixed = bytes.first_chunk::<HEADER>().ok_or(Event::Ipv6TooSmall)?;
        if fixed[0] >> 4 != 6 {
            return Err(Event::Ipv6WrongVersion);
        }
        let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let packet = bytes.get(..HEADER + length).ok_or(Event::Ipv6Truncated)?;
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&fixed[at..at + 16]);
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        self.packet.net = Net::V6(&packet[..HEADER]);
        self.packet.source = address(8);
        self.packet.destination = address(24);
        self.packet.protocol = Some(fixed[6]);
        self.packet.ip_payload = &packet[HEADER..];
        self.extensions(At { packet, offset: HEADER, next: fixed[6], next_at: 6 });
        Ok(())
    }

    /// Reads extension headers up to the transport layer, or to what ends the reading.
    fn extensions(&mut self, mut at: At<'a>) {
        let mut seen = Seen::default();
        loop {
            let rest = at.rest();
            // After an extension header nothing is as short as this, whatever it is.
            if at.offset > HEADER && rest.len() < 2 && at.next != NONE {
                return self.event(Event::Ipv6ExtensionTruncated);
            }
            match at.next {
                HOP_BY_HOP | DESTINATION | ROUTING | FRAGMENT | AUTHENTICATION | MOBILITY | HIP | SHIM6 => {
                    self.packet.protocol = Some(at.next);
                    if rest.len() < 8 {
                        return self.event(Event::Ipv6ExtensionTruncated);
                    }
                    let Some(length) = self.extension(&at, &mut seen) else { return };
                    at.skip(length);
                    self.packet.net = Net::V6(&at.packet[..at.offset]);
                }
                NONE => {
                    if !rest.is_empty() {
                        self.event(Event::Ipv6DataAfterNone);
                    }
                    return;
                }
                protocol => {
                    self.packet.protocol = Some(protocol);
                    // Behind an extension header these are not expected, and read nevertheless.
                    if at.offset > HEADER && matches!(protocol, GRE | IPV6) {
                        self.event(Event::Ipv6UnknownNext);
                    }
                    return self.over_ipv6(protocol, rest);
                }
            }
        }
    }

    /// Reads an extension header of at least 8 bytes: its length, none if the reading ends with it.
    fn extension(&mut self, at: &At<'a>, seen: &mut Seen) -> Option<usize> {
        let rest = at.rest();
        let length = match at.next {
            FRAGMENT => 8,
            // Its own fields are 12 bytes (RFC 4302 §2).
            AUTHENTICATION => ((usize::from(rest[1]) + 2) * 4).max(12),
            _ => (usize::from(rest[1]) + 1) * 8,
        };
        if length > rest.len() {
            self.event(Event::Ipv6ExtensionTruncated);
            return None;
        }
        let header = &rest[..length];
        match at.next {
            HOP_BY_HOP if std::mem::replace(&mut seen.hop_by_hop, true) => {
                self.event(Event::Ipv6DuplicateHopByHop);
            }
            HOP_BY_HOP => self.options(header, true),
            DESTINATION => {
                seen.destinations += 1;
                if seen.destinations > 2 {
                    self.event(Event::Ipv6DuplicateDestination);
                    seen.destinations = 2;
                } else {
                    self.options(header, false);
                }
            }
            ROUTING if std::mem::replace(&mut seen.routing, true) => self.event(Event::Ipv6DuplicateRouting),
            ROUTING if header[2] == 0 => self.event(Event::Ipv6RoutingType0),
            ROUTING => {}
            AUTHENTICATION => {
                if be16(header, 2) != Some(0) {
                    self.event(Event::Ipv6AuthenticationReserved);
                }
                if std::mem::replace(&mut seen.authentication, true) {
                    self.event(Event::Ipv6DuplicateAuthentication);
                }
            }
            FRAGMENT => {
                if header[1] != 0 {
                    self.event(Event::Ipv6FragmentReserved);
                }
                if !std::mem::replace(&mut seen.fragment, true) {
                    return self.fragment(at, header).then_some(length);
                }
                self.event(Event::Ipv6DuplicateFragment);
            }
            // Mobility, HIP, Shim6: nothing of them is asked for.
            _ => {}
        }
        Some(length)
    }

    /// Reads a fragment header; whether the packet is all of its datagram, so that it can be read on.
    fn fragment(&mut self, at: &At<'a>, header: &[u8]) -> bool {
        let place = be16(header, 2).unwrap_or(0);
        let (offset, more) = (u32::from(place & 0xfff8), place & 1 != 0);
        let data = &at.packet[at.offset + 8..];
        if offset == 0 && !more {
            self.event(Event::Ipv6UselessFragment);
            return true;
        }
        if more && !data.len().is_multiple_of(8) {
            self.event(Event::Ipv6FragmentLength);
        }
        self.packet.protocol = Some(FRAGMENT);
        self.packet.fragment = Some(Fragment {
            id: be32(header, 4).unwrap_or(0),
            offset,
            more,
            protocol: header[0],
            data,
            head: &at.packet[..at.offset],
            next_at: at.next_at,
        });
        false
    }

    /// Options of a hop-by-hop or destination header (RFC 8200 §4.2). What is wrong with one ends their reading, not that
    /// of the headers behind them.
    fn options(&mut self, header: &[u8], hop_by_hop: bool) {
        let (mut paddings, mut others, mut rest) = (0, 0, &header[2..]);
        while let Some((&kind, after)) = rest.split_first() {
            if kind == 0 {
                paddings += 1;
                rest = after;
                continue;
            }
            // A last option that claims one byte more than there is, is let by.
            let length = after.first().map_or(usize::MAX, |length| usize::from(*length));
            if length > after.len() {
                self.event(Event::Ipv6OptionLength);
                break;
            }
            let least = match kind {
                1 => {
                    paddings += 1;
                    if length == 0 {
                        self.event(Event::Ipv6EmptyPadding);
                    }
                    0
                }
                5 => 2,
                194 => 4,
                201 => 16,
                _ => {
                    self.event(if hop_by_hop {
                        Event::Ipv6HopOptionUnknown
                    } else {
                        Event::Ipv6DestinationOptionUnknown
                    });
                    0
                }
            };
            if length < least {
                self.event(Event::Ipv6OptionLength);
                break;
            }
            others += u32::from(!matches!(kind, 1 | 194));
            rest = after.get(1 + length..).unwrap_or_default();
        }
        if paddings > 0 && others == 0 {
            let event =
                if hop_by_hop { Event::Ipv6HopOnlyPadding } else { Event::Ipv6DestinationOnlyPadding };
            self.event(event);
        }
    }

    fn over_ipv6(&mut self, protocol: u8, payload: &'a [u8]) {
        match protocol {
            TCP => self.tcp(payload),
            UDP => self.udp(payload),
            ICMPV6 => self.icmpv6(payload),
            SCTP => self.sctp(payload),
            GRE => self.gre(payload),
            ESP => self.esp(payload),
            IPIP => match payload.first() {
                _ if payload.len() < 20 => self.event(Event::Ipv6Ipv4TooSmall),
                Some(byte) if byte >> 4 == 4 => self.carries(payload, Begin::Ipv4, Tunnel::Ipv4),
                _ => self.event(Event::Ipv6Ipv4WrongVersion),
            },
            IPV6 => match payload.first() {
                _ if payload.len() < HEADER => self.event(Event::Ipv6Ipv6TooSmall),
                Some(byte) if byte >> 4 == 6 => self.carries(payload, Begin::Ipv6, Tunnel::Ipv6),
                _ => self.event(Event::Ipv6Ipv6WrongVersion),
            },
            ICMP => self.event(Event::Ipv6Icmpv4),
            _ => self.event(Event::Ipv6UnknownNext),
        }
        if self.packet.payload.is_empty() && matches!(self.packet.transport, super::Transport::None) {
            self.packet.payload = payload;
        }
    }
}
