//! Changing packets in place: writable views at the places that [`Headers`] found, checksums of a whole
//! packet, and the change that NATs and load balancers make, of an address and a port, with every checksum
//! that covers them brought up to date (RFC 1624) instead of computed anew.
//!
//! An incremental update keeps a wrong checksum wrong, which is what it should do: recomputing would launder
//! a packet that was damaged on its way.

use std::net::IpAddr;

use super::checksum::{self, Pseudo};
use super::field::{Field, be16};
use super::headers::{DCCP, Headers, Net, UDP_LITE};
use super::{Error, ethernet, icmp, icmpv6, ipv4, ipv6, tcp, udp};

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

/// Whether the checksums of a packet are right; `None` where there is none or not all that it covers is
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksums {
    /// That of the IPv4 header.
    pub ip: Option<bool>,
    /// That of TCP, UDP, ICMP or ICMPv6.
    pub transport: Option<bool>,
}

/// Writable views; like the readable ones they give `None` for a frame other than the one parsed.
impl Headers {
    /// The Ethernet header, writable.
    #[must_use]
    pub fn ethernet_mut<'a>(&self, frame: &'a mut [u8]) -> Option<ethernet::Frame<&'a mut [u8]>> {
        self.ethernet(frame)?;
        ethernet::Frame::new_checked(frame.get_mut(self.l2_offset()..)?).ok()
    }

    /// The IPv4 packet, writable.
    #[must_use]
    pub fn ipv4_mut<'a>(&self, frame: &'a mut [u8]) -> Option<ipv4::Packet<&'a mut [u8]>> {
        ipv4::Packet::new_checked(self.l3_bytes_mut(frame, Net::Ipv4)?).ok()
    }

    /// The IPv6 packet, writable.
    #[must_use]
    pub fn ipv6_mut<'a>(&self, frame: &'a mut [u8]) -> Option<ipv6::Packet<&'a mut [u8]>> {
        ipv6::Packet::new_checked(self.l3_bytes_mut(frame, Net::Ipv6)?).ok()
    }

    /// The TCP segment, writable.
    #[must_use]
    pub fn tcp_mut<'a>(&self, frame: &'a mut [u8]) -> Option<tcp::Segment<&'a mut [u8]>> {
        tcp::Segment::new_checked(self.l4_bytes_mut(frame, tcp::PROTOCOL)?).ok()
    }

    /// The UDP datagram, writable.
    #[must_use]
    pub fn udp_mut<'a>(&self, frame: &'a mut [u8]) -> Option<udp::Datagram<&'a mut [u8]>> {
        udp::Datagram::new_checked(self.l4_bytes_mut(frame, udp::PROTOCOL)?).ok()
    }

    /// The ICMP message, writable.
    #[must_use]
    pub fn icmp_mut<'a>(&self, frame: &'a mut [u8]) -> Option<icmp::Message<&'a mut [u8]>> {
        icmp::Message::new_checked(self.l4_bytes_mut(frame, icmp::PROTOCOL)?).ok()
    }

    /// The ICMPv6 message, writable.
    #[must_use]
    pub fn icmpv6_mut<'a>(&self, frame: &'a mut [u8]) -> Option<icmpv6::Message<&'a mut [u8]>> {
        icmpv6::Message::new_checked(self.l4_bytes_mut(frame, icmpv6::PROTOCOL)?).ok()
    }

    /// The payload, writable.
    #[must_use]
    pub fn payload_mut<'a>(&self, frame: &'a mut [u8]) -> &'a mut [u8] {
        frame.get_mut(self.payload_offset()..self.end()).unwrap_or_default()
    }

    fn l3_bytes_mut<'a>(&self, frame: &'a mut [u8], net: Net) -> Option<&'a mut [u8]> {
        let start = self.l3_offset().filter(|_| self.net() == net)?;
        frame.get_mut(start..self.end())
    }

    fn l4_bytes_mut<'a>(&self, frame: &'a mut [u8], protocol: u8) -> Option<&'a mut [u8]> {
        let start = self.l4_offset().filter(|_| self.protocol() == Some(protocol))?;
        frame.get_mut(start..self.end())
    }
}

/// Checksums of the whole packet.
impl Headers {
    /// The addresses for the transport checksum.
    #[must_use]
    pub fn pseudo(&self, frame: &[u8]) -> Option<Pseudo> {
        match self.net() {
            Net::Ipv4 => Some(self.ipv4(frame)?.pseudo()),
            Net::Ipv6 => Some(self.ipv6(frame)?.final_pseudo()),
            _ => None,
        }
    }

    /// Whether the packet's checksums are right. That of a fragment's transport covers the whole datagram, so
    /// that it cannot be said.
    #[must_use]
    pub fn verify_checksums(&self, frame: &[u8]) -> Checksums {
        let ip = self.ipv4(frame).filter(|ip| ip.as_bytes().len() >= ip.header_len());
        Checksums { ip: ip.map(|ip| ip.verify_checksum()), transport: self.verify_transport(frame) }
    }

    fn verify_transport(&self, frame: &[u8]) -> Option<bool> {
        if self.is_fragment() || self.problem().is_some() {
            return None;
        }
        let pseudo = self.pseudo(frame)?;
        match self.protocol()? {
            tcp::PROTOCOL => Some(self.tcp(frame)?.verify_checksum(&pseudo)),
            udp::PROTOCOL => Some(self.udp(frame)?.verify_checksum(&pseudo)),
            icmp::PROTOCOL => Some(self.icmp(frame)?.verify_checksum()),
            icmpv6::PROTOCOL => Some(self.icmpv6(frame)?.verify_checksum(&pseudo)),
            _ => None,
        }
    }

    /// Computes the packet's checksums anew and writes them: the IPv4 header's, and that of TCP, UDP, ICMP or
    /// ICMPv6 unless it is a fragment or cut.
    pub fn fill_checksums(&self, frame: &mut [u8]) {
        if let Some(mut ip) = self.ipv4_mut(frame) {
            ip.fill_checksum();
        }
        let Some(pseudo) = self.pseudo(frame).filter(|_| !self.is_fragment() && self.problem().is_none())
        else {
            return;
        };
        if let Some(mut tcp) = self.tcp_mut(frame) {
            tcp.fill_checksum(&pseudo);
        } else if let Some(mut udp) = self.udp_mut(frame) {
            udp.fill_checksum(&pseudo);
        } else if let Some(mut icmp) = self.icmp_mut(frame) {
            icmp.fill_checksum();
        } else if let Some(mut icmp) = self.icmpv6_mut(frame) {
            icmp.fill_checksum(&pseudo);
        }
    }
}

/// Changes of address and port.
impl Headers {
    /// Changes the address of one side, and the port if one is given (for an ICMP query its identifier,
    /// whichever side), and brings the checksums up to date. A fragment without transport header has no port
    /// to change; giving one is no error, so that all fragments of a datagram can be treated alike. Of
    /// [`inner`](Headers::inner) headers the tunnel's own checksum, if it has one, is the caller's to see to.
    ///
    /// # Errors
    /// [`Error::Field`] if the address is of the wrong version, the packet is not IP, or a port is given for
    /// a protocol that has none, or whose checksum is none (SCTP). The frame is then as it was.
    pub fn rewrite(
        &self,
        frame: &mut [u8],
        side: Side,
        address: IpAddr,
        port: Option<u16>,
    ) -> Result<(), Error> {
        let port = port.filter(|_| !self.is_later_fragment());
        let port_place = match port {
            Some(port) => Some((self.port_place(frame, side)?, port)),
            None => None,
        };
        match (self.net(), address) {
            (Net::Ipv4, IpAddr::V4(new)) => {
                let mut ip = self.ipv4_mut(frame).ok_or(not_ip())?;
                let old = if side == Side::Source { ip.src() } else { ip.dst() };
                ip.set_checksum(checksum::update32(ip.checksum(), old.to_bits(), new.to_bits()));
                match side {
                    Side::Source => ip.set_src(new),
                    Side::Destination => ip.set_dst(new),
                }
                self.update_transport(
                    frame,
                    |check| checksum::update32(check, old.to_bits(), new.to_bits()),
                    true,
                );
            }
            (Net::Ipv6, IpAddr::V6(new)) => {
                let before = self.pseudo(frame).ok_or(not_ip())?;
                let mut ip = self.ipv6_mut(frame).ok_or(not_ip())?;
                let old = if side == Side::Source { ip.src() } else { ip.dst() };
                match side {
                    Side::Source => ip.set_src(new),
                    Side::Destination => ip.set_dst(new),
                }
                // With a routing header under way the destination is not the one that the checksum covers.
                if self.pseudo(frame) != Some(before) {
                    let update = |check| checksum::update128(check, old.to_bits(), new.to_bits());
                    self.update_transport(frame, update, true);
                }
            }
            _ => return Err(not_ip()),
        }
        if let Some((at, new)) = port_place {
            let old = be16(frame, at).unwrap_or(new);
            new.write(frame, at);
            self.update_transport(frame, |check| checksum::update16(check, old, new), false);
        }
        Ok(())
    }

    /// The same for the datagram that this ICMP or ICMPv6 error quotes, whose sides are as they stand there;
    /// the error's checksum is brought up to date as well. A NAT needs it, or the sender will not know its
    /// own datagram again (RFC 5508 §4).
    ///
    /// # Errors
    /// [`Error::Field`] if it is no such error, and else as for [`rewrite`](Headers::rewrite).
    pub fn rewrite_original(
        &self,
        frame: &mut [u8],
        side: Side,
        address: IpAddr,
        port: Option<u16>,
    ) -> Result<(), Error> {
        let kind = self.payload_offset().checked_sub(icmp::HEADER_LEN).and_then(|at| frame.get(at));
        let original = self.original(frame).ok_or(Error::Field {
            header: "icmp",
            field: "type",
            value: kind.map_or(0, |kind| usize::from(*kind)),
            expected: "an error that quotes a datagram",
        })?;
        // The quoted headers have checksums of their own, which change too: all that changed counts, so the
        // sums of the whole before and after are the one word that is replaced.
        let before = !checksum::internet(self.payload(frame));
        original.rewrite(frame, side, address, port)?;
        let after = !checksum::internet(self.payload(frame));
        self.update_transport(frame, |check| checksum::update16(check, before, after), false);
        Ok(())
    }

    /// Where the port of one side is.
    fn port_place(&self, frame: &[u8], side: Side) -> Result<usize, Error> {
        let none = Error::Field {
            header: "ip",
            field: "protocol",
            value: usize::from(self.protocol().unwrap_or(0)),
            expected: "one with a port to change",
        };
        let at = self.l4_offset().ok_or(none)?;
        let within = match self.protocol() {
            Some(tcp::PROTOCOL | udp::PROTOCOL | UDP_LITE | DCCP) => {
                2 * usize::from(side == Side::Destination)
            }
            Some(icmp::PROTOCOL) if self.icmp(frame).and_then(|m| m.echo()).is_some() => 4,
            Some(icmpv6::PROTOCOL) if self.icmpv6(frame).and_then(|m| m.echo()).is_some() => 4,
            _ => return Err(none),
        };
        if at + within + 2 > self.end().min(frame.len()) {
            return Err(none);
        }
        Ok(at + within)
    }

    /// Applies `update` to the transport checksum, if there is one and it was not cut off. `pseudo` says that
    /// an address changed, which ICMP's checksum does not cover.
    fn update_transport(&self, frame: &mut [u8], update: impl Fn(u16) -> u16, pseudo: bool) {
        let (Some(l4), Some(protocol)) = (self.l4_offset(), self.protocol()) else { return };
        let at = l4
            + match protocol {
                tcp::PROTOCOL => 16,
                udp::PROTOCOL | UDP_LITE | DCCP => 6,
                icmpv6::PROTOCOL => 2,
                icmp::PROTOCOL if !pseudo => 2,
                _ => return,
            };
        let Some(old) = be16(&frame[..self.end().min(frame.len())], at) else { return };
        let new = match protocol {
            udp::PROTOCOL | UDP_LITE => checksum::udp_update(old, update(old)),
            _ => update(old),
        };
        new.write(frame, at);
    }
}

fn not_ip() -> Error {
    Error::Field { header: "ip", field: "version", value: 0, expected: "the version of the new address" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build::{Extension, Packet};
    use crate::wire::{Fragment, LinkType, ipv6_ext};

    const RIGHT: Checksums = Checksums { ip: Some(true), transport: Some(true) };

    fn parse(frame: &[u8]) -> Headers {
        Headers::parse_as(LinkType::RawIp, frame)
    }

    #[test]
    fn keeps_checksums_right() {
        let v4 = Packet::raw().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).payload(b"abc");
        let v6 = Packet::raw().ipv6(1.into(), 2.into()).payload(b"abc");
        let (to4, to6) = (IpAddr::from([192, 0, 2, 9]), IpAddr::from([0xfd00, 0, 0, 0, 1, 2, 3, 4]));
        for (packet, address) in [(v4, to4), (v6, to6)] {
            for packet in [packet.tcp(1, 2), packet.udp(1, 2), packet.echo_request(1, 2)] {
                for side in [Side::Source, Side::Destination] {
                    let mut frame = packet.to_vec().unwrap();
                    let headers = parse(&frame);
                    headers.rewrite(&mut frame, side, address, Some(50_000)).unwrap();
                    let checked = headers.verify_checksums(&frame);
                    assert_eq!(checked.transport, RIGHT.transport, "{packet:?}");
                    assert_ne!(checked.ip, Some(false));
                    let key = headers.flow_key(&frame);
                    let (found, port) = match side {
                        Side::Source => (key.src(), key.src_port()),
                        Side::Destination => (key.dst(), key.dst_port()),
                    };
                    assert_eq!((found, port), (Some(address), 50_000));
                    let mut again = frame.clone();
                    headers.fill_checksums(&mut again);
                    assert_eq!(again, frame);
                }
            }
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong_and_none_stays_none() {
        let udp = Packet::raw().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).udp(1, 2).payload(b"abc");
        let mut frame = udp.to_vec().unwrap();
        frame[30] ^= 1;
        let headers = parse(&frame);
        headers.rewrite(&mut frame, Side::Source, [1, 2, 3, 4].into(), Some(7)).unwrap();
        assert_eq!(headers.verify_checksums(&frame), Checksums { ip: Some(true), transport: Some(false) });
        let mut frame = udp.no_udp_checksum().to_vec().unwrap();
        headers.rewrite(&mut frame, Side::Source, [1, 2, 3, 4].into(), Some(7)).unwrap();
        assert_eq!(headers.udp(&frame).unwrap().checksum(), 0);
    }

    #[test]
    fn a_routing_header_keeps_its_final_destination() {
        let mut route = [0u8; 22];
        (route[0], route[1], route[21]) = (2, 1, 9);
        let list = [Extension { kind: ipv6_ext::ROUTING, data: &route }];
        let packet = Packet::raw().ipv6(1.into(), 2.into()).extensions(&list).tcp(1, 2);
        let mut frame = packet.to_vec().unwrap();
        let headers = parse(&frame);
        assert_eq!(headers.verify_checksums(&frame).transport, Some(true));
        let check = headers.tcp(&frame).unwrap().checksum();
        headers.rewrite(&mut frame, Side::Destination, IpAddr::V6(7.into()), None).unwrap();
        assert_eq!(headers.tcp(&frame).unwrap().checksum(), check);
        assert_eq!(headers.verify_checksums(&frame).transport, Some(true));
    }

    #[test]
    fn what_an_error_quotes_is_changed_with_it() {
        let quoted4 =
            Packet::raw().ipv4([10, 0, 0, 1].into(), [9, 9, 9, 9].into()).udp(5, 53).payload(b"abc");
        let quoted6 = Packet::raw().ipv6(1.into(), 2.into()).tcp(5, 53).payload(b"abc");
        let v4 = Packet::raw().ipv4([9, 9, 9, 1].into(), [10, 0, 0, 1].into()).icmp(3, 3, 0);
        let v6 = Packet::raw().ipv6(9.into(), 1.into()).icmp(1, 4, 0);
        let cases = [(v4, quoted4, IpAddr::from([192, 0, 2, 9])), (v6, quoted6, IpAddr::V6(7.into()))];
        for (packet, quoted, address) in cases {
            // Whole, and cut after the ports, as routers used to.
            let whole = quoted.to_vec().unwrap();
            let ports = if address.is_ipv4() { 28 } else { 48 };
            for quote in [&whole[..], &whole[..ports]] {
                let mut frame = packet.payload(quote).to_vec().unwrap();
                let headers = parse(&frame);
                headers.rewrite_original(&mut frame, Side::Source, address, Some(50_000)).unwrap();
                assert_eq!(headers.verify_checksums(&frame).transport, Some(true));
                let original = headers.original(&frame).unwrap();
                assert_eq!(original.ports(&frame), Some((50_000, 53)));
                assert_eq!(original.flow_key(&frame).src(), Some(address));
            }
            let mut echo = packet.echo_request(1, 2).to_vec().unwrap();
            assert!(parse(&echo).rewrite_original(&mut echo, Side::Source, address, None).is_err());
        }
    }

    #[test]
    fn fragments_and_refusals() {
        let base = Packet::raw().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let later = base.fragment(Fragment { id: 1, offset: 8, more: false }).udp(1, 2).payload(&[9; 20]);
        let mut frame = later.to_vec().unwrap();
        let headers = parse(&frame);
        headers.rewrite(&mut frame, Side::Source, [1, 2, 3, 4].into(), Some(7)).unwrap();
        assert_eq!(headers.payload(&frame), [9; 20]);
        assert_eq!(headers.verify_checksums(&frame), Checksums { ip: Some(true), transport: None });

        let mut sctp = base.protocol(132).payload(&[0; 12]).to_vec().unwrap();
        let before = sctp.clone();
        let headers = parse(&sctp);
        assert!(headers.rewrite(&mut sctp, Side::Source, [1, 2, 3, 4].into(), Some(7)).is_err());
        assert!(headers.rewrite(&mut sctp, Side::Source, IpAddr::V6(7.into()), None).is_err());
        assert_eq!(sctp, before);
        headers.rewrite(&mut sctp, Side::Source, [1, 2, 3, 4].into(), None).unwrap();
    }
}
