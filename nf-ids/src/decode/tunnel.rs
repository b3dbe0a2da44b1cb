//! Tunnels over UDP: Teredo (RFC 4380), VXLAN (RFC 7348), Geneve (RFC 8926).

use onvm_lib::wire::LinkType;

use super::{Begin, Event, Pass, Tunnel, be16};

const IPV6_HEADER: usize = 40;

impl<'a> Pass<'a, '_> {
    /// Looks for a tunnel in a datagram.
    pub(super) fn udp_tunnels(&mut self, payload: &'a [u8]) {
        let (source, destination) = (self.packet.source_port, self.packet.destination_port);
        let either = |port: u16| source == port || destination == port;
        if self.settings.teredo_port.is_some_and(either) {
            self.teredo(payload);
        } else if either(self.settings.vxlan_port) {
            self.vxlan(payload);
        } else if either(self.settings.geneve_port) {
            self.geneve(payload);
        }
    }

    fn teredo(&mut self, payload: &'a [u8]) {
        let mut rest = payload;
        // An authentication, then an origin indication, may stand in front (RFC 4380 §5.1.1).
        if let [0, 1, id, authentication, ..] = *rest {
            let Some(after) = rest.get(13 + usize::from(id) + usize::from(authentication)..) else { return };
            rest = after;
        }
        while let [0, 0, ..] = *rest {
            let Some(after) = rest.get(8..) else { return };
            rest = after;
        }
        let whole = rest.len() >= IPV6_HEADER
            && rest[0] >> 4 == 6
            && be16(rest, 4).is_some_and(|length| usize::from(length) + IPV6_HEADER == rest.len());
        if whole {
            self.carries(rest, Begin::Ipv6, Tunnel::Teredo);
        }
    }

    fn vxlan(&mut self, payload: &'a [u8]) {
        let Some((header, frame)) = payload.split_at_checked(8) else { return };
        if header[0] & 0x08 == 0 || header[7] != 0 {
            return;
        }
        match be16(frame, 12) {
            Some(0x0800 | 0x86dd | 0x0806 | 0x8100 | 0x88a8 | 0x9100) => {
                self.carries(frame, Begin::Link(LinkType::Ethernet), Tunnel::Vxlan);
            }
            Some(_) => self.event(Event::VxlanUnknownPayload),
            None => {}
        }
    }

    fn geneve(&mut self, payload: &'a [u8]) {
        let Some(&[first, flags, a, b, _, _, _, reserved]) = payload.first_chunk::<8>() else { return };
        if first >> 6 != 0 || flags & 0x3f != 0 || reserved != 0 {
            return;
        }
        let length = usize::from(first & 0x3f) * 4;
        let Some((mut options, inner)) = payload[8..].split_at_checked(length) else { return };
        // The lengths of the options make that of all: else it is something else on that port.
        while let Some(entry) = options.first_chunk::<4>() {
            let Some(after) = options.get(4 + usize::from(entry[3] & 0x1f) * 4..) else { return };
            options = after;
        }
        match u16::from_be_bytes([a, b]) {
            0x6558 => self.carries(inner, Begin::Link(LinkType::Ethernet), Tunnel::Geneve),
            0x0800 => self.carries(inner, Begin::Ipv4, Tunnel::Geneve),
            0x86dd => self.carries(inner, Begin::Ipv6, Tunnel::Geneve),
            0x0806 => self.carries(inner, Begin::Ether(0x0806), Tunnel::Geneve),
            _ => self.event(Event::GeneveUnknownPayload),
        }
    }
}
