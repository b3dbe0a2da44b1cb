//! IPv4 (RFC 791).

use std::net::{IpAddr, Ipv4Addr};

use super::{Begin, Event, Fragment, Net, Pass, Tunnel, be16};

use super::ipv4_options::Options;

const HEADER: usize = 20;
/// Protocol numbers that are handled here (IANA).
pub(super) const ICMP: u8 = 1;
pub(super) const IPIP: u8 = 4;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const IPV6: u8 = 41;
pub(super) const GRE: u8 = 47;
pub(super) const ESP: u8 = 50;
pub(super) const ICMPV6: u8 = 58;
pub(super) const SCTP: u8 = 132;

impl<'a> Pass<'a, '_> {
    /// An IP header of either version.
    pub(super) fn raw_ip(&mut self, bytes: &'a [u8]) {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) => self.ipv4(bytes),
            Some(6) => self.ipv6(bytes),
            _ => self.event(Event::RawWrongVersion),
        }
    }

    pub(super) fn ipv4(&mut self, bytes: &'a [u8]) {
        if !self.deeper() {
            return;
        }
        if let Err(event) = self.ipv4_header(bytes) {
            self.event(event);
            self.packet.invalid = true;
        }
    }

    /// Reads the header, and on to the transport layer; or says what forbids it.
    fn ipv4_header(&mut self, bytes: &'a [u8]) -> Result<(), Event> {
        let fixed = bytes.first_chunk::<HEADER>().ok_or(Event::Ipv4TooSmall)?;
        if fixed[0] >> 4 != 4 {
            return Err(Event::Ipv4WrongVersion);
        }
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        if header_len < HEADER {
            return Err(Event::Ipv4HeaderTooSmall);
        }
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if total < header_len {
            return Err(Event::Ipv4LengthBelowHeader);
        }
        let packet = bytes.get(..total).ok_or(Event::Ipv4Truncated)?;
        let (header, payload) = packet.split_at(header_len);
        if header_len > HEADER {
            self.packet.ipv4_options = Options::read(&header[HEADER..], &mut self.packet.events)?;
        }
        let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        self.packet.net = Net::V4(header);
        self.packet.source = IpAddr::V4(address(12));
        self.packet.destination = IpAddr::V4(address(16));
        let protocol = header[9];
        self.packet.protocol = Some(protocol);
        self.packet.ip_payload = payload;
        let place = be16(header, 6).unwrap_or(0);
        let (offset, more) = (u32::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        if offset != 0 || more {
            let id = u32::from(be16(header, 4).unwrap_or(0));
            let fragment = Fragment { id, offset, more, protocol, data: payload, head: header, next_at: 9 };
            self.packet.fragment = Some(fragment);
            return Ok(());
        }
        self.over_ipv4(protocol, payload);
        Ok(())
    }

    fn over_ipv4(&mut self, protocol: u8, payload: &'a [u8]) {
        match protocol {
            TCP => self.tcp(payload),
            UDP => self.udp(payload),
            ICMP => self.icmpv4(payload),
            SCTP => self.sctp(payload),
            GRE => self.gre(payload),
            ESP => self.esp(payload),
            IPIP => self.carries(payload, Begin::Ipv4, Tunnel::Ipv4),
            IPV6 => self.carries(payload, Begin::Ipv6, Tunnel::Ipv6),
            ICMPV6 => self.event(Event::Ipv4Icmpv6),
            _ => {}
        }
        if self.packet.payload.is_empty() && matches!(self.packet.transport, super::Transport::None) {
            self.packet.payload = payload;
        }
    }
}
