//! TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260) and ESP (RFC 4303).

use super::{Event, Pass, TcpFields, Transport, be16, be32};

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const SCTP_HEADER: usize = 12;
const ESP_HEADER: usize = 8;

impl<'a> Pass<'a, '_> {
    /// Notes ports that stand at the front of a header of at least four bytes.
    fn ports(&mut self, header: &[u8]) {
        self.packet.source_port = be16(header, 0).unwrap_or(0);
        self.packet.destination_port = be16(header, 2).unwrap_or(0);
    }

    /// Notes what makes a transport header useless.
    fn refuse(&mut self, event: Event) {
        self.event(event);
        self.packet.invalid = true;
    }

    pub(super) fn tcp(&mut self, bytes: &'a [u8]) {
        let Some(fixed) = bytes.first_chunk::<TCP_HEADER>() else { return self.refuse(Event::TcpTooSmall) };
        let length = usize::from(fixed[12] >> 4) * 4;
        if length > bytes.len() {
            return self.refuse(Event::TcpHeaderTooSmall);
        }
        if length < TCP_HEADER {
            return self.refuse(Event::TcpOptionsLength);
        }
        let (header, payload) = bytes.split_at(length);
        self.ports(header);
        self.packet.transport = Transport::Tcp(header);
        self.packet.payload = payload;
        if length > TCP_HEADER {
            self.tcp_options(&header[TCP_HEADER..]);
        }
    }

    fn tcp_options(&mut self, mut rest: &[u8]) {
        let whole = rest.len();
        while let [kind, after @ ..] = rest {
            match kind {
                0 => return,
                1 => {
                    rest = after;
                    continue;
                }
                _ => {}
            }
            // A last byte that is the kind of an option has no room for its length.
            let Some(&length) = after.first() else { return };
            let Some(option) = rest.get(..usize::from(length)).filter(|option| option.len() >= 2) else {
                return self.event(Event::TcpOptionLength);
            };
            let at = TCP_HEADER + whole - rest.len();
            self.tcp_option(option, u8::try_from(at).unwrap_or(u8::MAX));
            rest = &rest[option.len()..];
        }
    }

    /// Notes one option, which begins `at` bytes into the header.
    fn tcp_option(&mut self, option: &[u8], at: u8) {
        let TcpFields { mss, scale, sack_permitted, timestamp, sack, fast_open, signed } =
            &mut self.packet.tcp_fields;
        let right = match option[0] {
            2 => option.len() == 4,
            3 => option.len() == 3,
            4 => option.len() == 2,
            5 => (10..=34).contains(&option.len()) && (option.len() - 2).is_multiple_of(8),
            8 => option.len() == 10,
            // A signature by RFC 2385, one by RFC 5925.
            19 => option.len() == 18,
            29 => option.len() >= 4,
            // A request for a cookie, or a cookie of 4 to 16 bytes (RFC 7413 §4.1.1).
            34 => option.len() == 2 || (6..=18).contains(&option.len()) && option.len().is_multiple_of(2),
            // The same before it had a number of its own (RFC 6994), among other experiments.
            253 | 254 => matches!(option.len(), 4 | 12),
            _ => return,
        };
        if !right {
            return self.event(Event::TcpOptionLength);
        }
        let again = match option[0] {
            2 => mss.replace(be16(option, 2).unwrap_or(0)).is_some(),
            3 => scale.replace(option[2].min(14)).is_some(),
            4 => std::mem::replace(sack_permitted, true),
            5 => {
                let ranges = u8::try_from((option.len() - 2) / 8).unwrap_or(0);
                sack.replace((at + 2, ranges)).is_some()
            }
            19 | 29 => {
                *signed = true;
                false
            }
            253 | 254 if be16(option, 2) != Some(0xf989) => false,
            34 | 253 | 254 => std::mem::replace(fast_open, true),
            _ => std::mem::replace(timestamp, be32(option, 2).zip(be32(option, 6))).is_some(),
        };
        if again {
            self.event(Event::TcpOptionDuplicate);
        }
    }

    pub(super) fn udp(&mut self, bytes: &'a [u8]) {
        let Some(fixed) = bytes.first_chunk::<UDP_HEADER>() else {
            return self.refuse(Event::UdpLengthBelowHeader);
        };
        let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let Some(datagram) = bytes.get(..length) else { return self.refuse(Event::UdpTooSmall) };
        let Some((header, payload)) = datagram.split_at_checked(UDP_HEADER) else {
            return self.refuse(Event::UdpLengthInvalid);
        };
        self.ports(header);
        self.packet.transport = Transport::Udp(header);
        self.packet.payload = payload;
        self.udp_tunnels(payload);
    }

    pub(super) fn sctp(&mut self, bytes: &'a [u8]) {
        let Some((header, payload)) = bytes.split_at_checked(SCTP_HEADER) else {
            return self.refuse(Event::SctpTooSmall);
        };
        self.ports(header);
        self.packet.transport = Transport::Sctp(header);
        self.packet.payload = payload;
    }

    pub(super) fn esp(&mut self, bytes: &'a [u8]) {
        match bytes.get(ESP_HEADER..) {
            Some(payload) => self.packet.payload = payload,
            None => self.refuse(Event::EspTooSmall),
        }
    }
}
