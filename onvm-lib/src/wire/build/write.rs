//! Laying out a packet: from the outermost header inwards, lengths first, checksums last.

use super::{Extension, MAX_TAGS, Net, Packet, Transport};
use crate::wire::checksum::Pseudo;
use crate::wire::ethernet::{self, EtherType, Frame};
use crate::wire::field::{self, Field};
use crate::wire::tcp_option::TcpOption;
use crate::wire::{Error, Fragment, arp, icmp, icmpv6, ipv4, ipv6, ipv6_ext, tcp, udp, vlan};

/// That a length is a multiple of `unit` and at most `max`.
fn fitting(
    header: &'static str,
    field: &'static str,
    value: usize,
    (unit, max): (usize, usize),
    expected: &'static str,
) -> Result<(), Error> {
    if !value.is_multiple_of(unit) || value > max {
        return Err(Error::Field { header, field, value, expected });
    }
    Ok(())
}

/// A length that has to fit into 16 bits.
fn length(header: &'static str, value: usize) -> Result<u16, Error> {
    let error = Error::Field { header, field: "length", value, expected: "65535 at most" };
    u16::try_from(value).map_err(|_| error)
}

impl Packet<'_> {
    /// Bytes of the packet when it is written.
    ///
    /// # Errors
    /// [`Error::Field`] as for [`write_to`](Packet::write_to).
    pub fn written_len(&self) -> Result<usize, Error> {
        fitting("vlan tags", "number", self.tag_count, (1, MAX_TAGS), "4 at most")?;
        let link = self.link.map_or(0, |_| ethernet::HEADER_LEN + vlan::HEADER_LEN * self.tag_count);
        Ok(link + self.net_len()? + self.transport_len()? + self.payload.len())
    }

    /// Writes the packet to the beginning of `buffer` and returns its length. Bytes after it are left alone.
    ///
    /// # Errors
    /// [`Error::Truncated`] if `buffer` is too small; [`Error::Field`] if a part is too long or has a length
    /// that its header cannot say, a fragment offset is no multiple of 8, or there are too many VLAN tags.
    pub fn write_to(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        let len = self.written_len()?;
        field::need("buffer for the packet", buffer, len)?;
        let out = &mut buffer[..len];
        out.fill(0);
        let out = match self.link {
            Some(_) => self.write_link(out)?,
            None => out,
        };
        match self.net {
            Net::Raw(_) => out.copy_from_slice(self.payload),
            Net::Arp { operation, addresses } => {
                let mut packet = arp::Packet::new_checked(out)?;
                packet.set_operation(operation);
                packet.set_addresses(&addresses)?;
            }
            Net::V4 { .. } => self.write_v4(out)?,
            Net::V6 { .. } => self.write_v6(out)?,
        }
        Ok(len)
    }

    /// The packet in a new vector.
    ///
    /// # Errors
    /// [`Error::Field`] as for [`write_to`](Packet::write_to).
    pub fn to_vec(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.written_len()?];
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    fn net_len(&self) -> Result<usize, Error> {
        Ok(match self.net {
            Net::Raw(_) => 0,
            Net::Arp { .. } => arp::ETHERNET_IPV4_LEN,
            Net::V4 { options, .. } => {
                fitting("ipv4", "length of options", options.len(), (4, 40), "a multiple of 4 up to 40")?;
                ipv4::MIN_HEADER_LEN + options.len()
            }
            Net::V6 { extensions, .. } => {
                let fragment = self.fragment.map_or(0, |_| 8);
                let len: usize = extensions.iter().map(|extension| 2 + extension.data.len()).sum();
                ipv6::HEADER_LEN + len + fragment
            }
        })
    }

    fn has_transport(&self) -> bool {
        matches!(self.net, Net::V4 { .. } | Net::V6 { .. }) && self.fragment.is_none_or(|f| f.offset == 0)
    }

    fn transport_len(&self) -> Result<usize, Error> {
        if !self.has_transport() {
            return Ok(0);
        }
        Ok(match self.transport {
            Transport::Raw(_) => 0,
            Transport::Tcp { options, .. } => {
                let len: usize = options.iter().map(TcpOption::written_len).sum();
                fitting("tcp", "length of options", len, (1, 40), "40 at most")?;
                tcp::MIN_HEADER_LEN + len.next_multiple_of(4)
            }
            Transport::Udp { .. } => udp::HEADER_LEN,
            Transport::Icmp { .. } => icmp::HEADER_LEN,
        })
    }

    fn protocol_number(&self) -> u8 {
        match self.transport {
            Transport::Raw(protocol) => protocol,
            Transport::Tcp { .. } => tcp::PROTOCOL,
            Transport::Udp { .. } => udp::PROTOCOL,
            Transport::Icmp { .. } if self.is_v6() => icmpv6::PROTOCOL,
            Transport::Icmp { .. } => icmp::PROTOCOL,
        }
    }

    /// Writes the Ethernet header and the tags; gives what is left of the buffer.
    fn write_link<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], Error> {
        let (src, dst) = self.link.unwrap_or_default();
        let last = match self.net {
            Net::Raw(ethertype) => ethertype,
            Net::Arp { .. } => EtherType::ARP,
            Net::V4 { .. } => EtherType::IPV4,
            Net::V6 { .. } => EtherType::IPV6,
        };
        let tags = &self.tags[..self.tag_count];
        let types = tags.iter().map(|tag| tag.0).chain([last]);
        let (head, out) = out.split_at_mut(ethernet::HEADER_LEN + vlan::HEADER_LEN * tags.len());
        let mut frame = Frame::new_checked(&mut *head)?;
        frame.set_src(src);
        frame.set_dst(dst);
        for (n, ethertype) in types.enumerate() {
            ethertype.0.write(head, 12 + 4 * n);
        }
        for (n, tag) in tags.iter().enumerate() {
            tag.1.write(head, 14 + 4 * n);
        }
        Ok(out)
    }

    fn write_v4(&self, out: &mut [u8]) -> Result<(), Error> {
        let Net::V4 { src, dst, id, dont_fragment, options } = self.net else { return Ok(()) };
        let total = length("ipv4", out.len())?;
        out[0] = 0x45;
        let mut ip = ipv4::Packet::new_checked(&mut *out)?;
        ip.set_ihl(5 + u8::try_from(options.len() / 4).unwrap_or(0));
        ip.set_tos(self.tos);
        ip.set_total_len(total);
        ip.set_id(id);
        ip.set_dont_fragment(dont_fragment);
        if let Some(fragment) = self.fragment {
            let (id, units) = (fragment.id as usize, fragment_units(fragment)?);
            ip.set_id(length("ipv4 identification", id)?);
            ip.set_fragment_offset_units(units);
            ip.set_more_fragments(fragment.more);
        }
        ip.set_ttl(self.ttl);
        ip.set_protocol(self.protocol_number());
        ip.set_src(src);
        ip.set_dst(dst);
        ip.option_bytes_mut().copy_from_slice(options);
        ip.fill_checksum();
        let pseudo = ip.pseudo();
        self.write_transport(&mut out[ipv4::MIN_HEADER_LEN + options.len()..], &pseudo)
    }

    fn write_v6(&self, out: &mut [u8]) -> Result<(), Error> {
        let Net::V6 { src, dst, flow_label, extensions } = self.net else { return Ok(()) };
        let payload_len = length("ipv6 payload", out.len() - ipv6::HEADER_LEN)?;
        out[0] = 0x60;
        let mut ip = ipv6::Packet::new_checked(&mut *out)?;
        ip.set_traffic_class(u16::from(self.tos));
        ip.set_flow_label(flow_label);
        ip.set_payload_len(payload_len);
        ip.set_hop_limit(self.ttl);
        ip.set_src(src);
        ip.set_dst(dst);
        // The place that says what comes next moves along the chain.
        let (mut next_at, mut at) = (6, ipv6::HEADER_LEN);
        for extension in extensions {
            out[next_at] = extension.kind;
            (next_at, at) = (at, write_extension(out, at, extension)?);
        }
        if let Some(fragment) = self.fragment {
            out[next_at] = ipv6_ext::FRAGMENT;
            let word = fragment_units(fragment)? << 3 | u16::from(fragment.more);
            word.write(out, at + 2);
            fragment.id.write(out, at + 4);
            (next_at, at) = (at, at + 8);
        }
        out[next_at] = self.protocol_number();
        let pseudo = ipv6::Packet::new_checked(&*out)?.final_pseudo();
        self.write_transport(&mut out[at..], &pseudo)
    }

    fn write_transport(&self, out: &mut [u8], pseudo: &Pseudo) -> Result<(), Error> {
        let start = self.transport_len()?;
        out[start..].copy_from_slice(self.payload);
        if !self.has_transport() {
            return Ok(());
        }
        match self.transport {
            Transport::Raw(_) => {}
            Transport::Tcp { .. } => self.write_tcp(out, pseudo)?,
            Transport::Udp { ports, checksum } => {
                let len = length("udp", out.len())?;
                let mut udp = udp::Datagram::new_checked(out)?;
                udp.set_src_port(ports.0);
                udp.set_dst_port(ports.1);
                udp.set_len_field(len);
                if checksum {
                    udp.fill_checksum(pseudo);
                }
            }
            Transport::Icmp { kind, code, rest } if self.is_v6() => {
                let mut icmp = icmpv6::Message::new_checked(out)?;
                icmp.set_kind(kind);
                icmp.set_code(code);
                icmp.set_rest(rest);
                icmp.fill_checksum(pseudo);
            }
            Transport::Icmp { kind, code, rest } => {
                let mut icmp = icmp::Message::new_checked(out)?;
                icmp.set_kind(kind);
                icmp.set_code(code);
                icmp.set_rest(rest);
                icmp.fill_checksum();
            }
        }
        Ok(())
    }

    fn write_tcp(&self, out: &mut [u8], pseudo: &Pseudo) -> Result<(), Error> {
        let Transport::Tcp { ports, seq, ack, flags, window, urgent, options } = self.transport else {
            return Ok(());
        };
        let header_len = self.transport_len()?;
        out[12] = u8::try_from(header_len / 4).unwrap_or(5) << 4;
        let mut segment = tcp::Segment::new_checked(out)?;
        segment.set_src_port(ports.0);
        segment.set_dst_port(ports.1);
        segment.set_seq(seq);
        segment.set_ack(ack);
        segment.set_flags(flags);
        segment.set_window(window);
        segment.set_urgent(urgent);
        let mut room = segment.option_bytes_mut();
        for option in options {
            room = option.write(room);
        }
        segment.fill_checksum(pseudo);
        Ok(())
    }
}

/// A fragment's offset in units of 8 bytes.
fn fragment_units(fragment: Fragment) -> Result<u16, Error> {
    let offset = fragment.offset as usize;
    fitting("fragment", "offset", offset, (8, 0xfff8), "a multiple of 8 up to 65528")?;
    Ok(u16::try_from(offset / 8).unwrap_or(0))
}

/// Writes an extension header at `at`, but for its next-header byte; returns where the next one begins.
fn write_extension(out: &mut [u8], at: usize, extension: &Extension<'_>) -> Result<usize, Error> {
    let len = 2 + extension.data.len();
    let (unit, less) = if extension.kind == ipv6_ext::AUTHENTICATION { (4, 2) } else { (8, 1) };
    let expected = "a multiple of 8 (authentication header: 4) up to 2048 (1028)";
    fitting("ipv6 extension", "length", len, (unit, (255 + less) * unit), expected)?;
    let words = (len / unit).checked_sub(less).and_then(|words| u8::try_from(words).ok());
    let too_short = Error::Field { header: "ipv6 extension", field: "length", value: len, expected };
    out[at + 1] = words.ok_or(too_short)?;
    out[at + 2..at + len].copy_from_slice(extension.data);
    Ok(at + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::MacAddr;

    const MACS: (MacAddr, MacAddr) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));

    #[test]
    fn udp_to_the_byte() {
        let packet =
            Packet::ethernet(MACS.0, MACS.1).vlan(5).ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let frame = packet.udp(1, 2).payload(b"ab").to_vec().unwrap();
        let expected = [
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 5, 8, 0, // ethernet, vlan
            0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x66, 0xcd, 10, 0, 0, 1, 10, 0, 0, 2, // ipv4
            0, 1, 0, 2, 0, 10, 0x8a, 0x72, b'a', b'b', // udp
        ];
        assert_eq!(frame, expected);
        let mut buffer = [0xee; 60];
        assert_eq!(packet.udp(1, 2).payload(b"ab").write_to(&mut buffer), Ok(48));
        assert_eq!((&buffer[..48], buffer[48]), (&expected[..], 0xee));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let ip = Packet::raw().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let text = |packet: Packet<'_>| packet.to_vec().unwrap_err().to_string();
        let big = vec![0; 65_516];
        assert_eq!(text(ip.payload(&big)), "ipv4: length is 65536, expected 65535 at most");
        assert!(text(ip.ipv4_options(&[1, 1, 1])).starts_with("ipv4: length of options is 3"));
        assert!(text(ip.tcp(1, 2).tcp_options(&[TcpOption::SackPermitted; 21])).contains("options is 42"));
        assert!(text(ip.fragment(Fragment { id: 1, offset: 9, more: true })).contains("offset is 9"));
        assert!(text(ip.fragment(Fragment { id: 65_536, offset: 8, more: true })).contains("65536"));
        assert!(
            text(Packet::ethernet(MACS.0, MACS.1).vlan(1).vlan(2).vlan(3).vlan(4).vlan(5)).contains("is 5")
        );
        let bad = [Extension { kind: 60, data: &[0; 7] }];
        let v6 = Packet::raw().ipv6(1.into(), 2.into()).extensions(&bad);
        assert!(text(v6).starts_with("ipv6 extension: length is 9"));
        let short = ip.udp(1, 2).write_to(&mut [0; 27]).unwrap_err();
        assert_eq!(short.to_string(), "buffer for the packet needs 28 bytes, 27 are there");
    }
}
