//! The fields that are compared, and this library's values for them in tshark's notation.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use onvm_lib::wire::ethernet::Frame;
use onvm_lib::wire::tcp_option::TcpOption;
use onvm_lib::wire::{
    EtherType, Headers, LinkType, MacAddr, Net, Problem, gre, ipv6_ext, ndp, sll, udp, vlan, vxlan,
};

/// tshark's names.
pub(crate) const FIELDS: &[&str] = &[
    "eth.dst",
    "eth.src",
    "eth.type",
    "vlan.id",
    "vlan.priority",
    "vlan.dei",
    "ieee8021ad.id",
    "arp.hw.type",
    "arp.proto.type",
    "arp.opcode",
    "arp.src.hw_mac",
    "arp.src.proto_ipv4",
    "arp.dst.hw_mac",
    "arp.dst.proto_ipv4",
    "ip.version",
    "ip.hdr_len",
    "ip.dsfield",
    "ip.len",
    "ip.id",
    "ip.flags.rb",
    "ip.flags.df",
    "ip.flags.mf",
    "ip.frag_offset",
    "ip.ttl",
    "ip.proto",
    "ip.checksum",
    "ip.src",
    "ip.dst",
    "ipv6.tclass",
    "ipv6.flow",
    "ipv6.plen",
    "ipv6.nxt",
    "ipv6.hlim",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.fraghdr.offset",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.ident",
    "ipv6.routing.type",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.hdr_len",
    "tcp.flags",
    "tcp.window_size_value",
    "tcp.checksum",
    "tcp.urgent_pointer",
    "tcp.len",
    "tcp.options.mss_val",
    "tcp.options.wscale.shift",
    "tcp.options.timestamp.tsval",
    "tcp.options.timestamp.tsecr",
    "tcp.options.sack_le",
    "tcp.options.sack_re",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "udp.checksum",
    "icmp.type",
    "icmp.code",
    "icmp.checksum",
    "icmp.ident",
    "icmp.seq",
    "icmp.mtu",
    "icmp.redir_gw",
    "icmpv6.type",
    "icmpv6.code",
    "icmpv6.checksum",
    "icmpv6.echo.identifier",
    "icmpv6.echo.sequence_number",
    "icmpv6.mtu",
    "icmpv6.nd.ns.target_address",
    "icmpv6.nd.na.target_address",
    "icmpv6.opt.linkaddr",
    "gre.flags.version",
    "gre.proto",
    "gre.key",
    "gre.sequence_number",
    "vxlan.vni",
];

/// Values by field, each in the order of the layers.
#[derive(Default)]
pub(crate) struct Values {
    by_field: HashMap<&'static str, Vec<String>>,
    /// Whether a header is there in part: tshark shows the fields that are, a view wants all of it. Or
    /// whether a tunnel carries less than the inner packet says, so that tshark's lengths are its own.
    pub(crate) partial: bool,
}

impl Values {
    /// The values of a field.
    pub(crate) fn get(&self, field: &str) -> &[String] {
        self.by_field.get(field).map_or(&[], Vec::as_slice)
    }

    fn put(&mut self, field: &'static str, value: impl ToString) {
        debug_assert!(FIELDS.contains(&field), "{field}");
        self.by_field.entry(field).or_default().push(value.to_string());
    }

    fn hex(&mut self, field: &'static str, value: u32, digits: usize) {
        self.put(field, format!("0x{value:0digits$x}"));
    }

    fn flag(&mut self, field: &'static str, value: bool) {
        self.put(field, u8::from(value));
    }
}

/// The fields of a frame and all that it carries.
pub(crate) fn of(link: LinkType, frame: &[u8], wire_len: usize) -> Values {
    let mut values = Values::default();
    let mut layer = Some(Headers::parse_as(link, frame));
    let mut quoted = false;
    while let Some(headers) = layer {
        let header_cut = [Problem::CutLink, Problem::CutNetwork, Problem::CutTransport];
        values.partial |= headers.problem().is_some_and(|problem| header_cut.contains(&problem));
        link_layer(&headers, frame, &mut values);
        ipv4(&headers, frame, wire_len, &mut values);
        ipv6(&headers, frame, &mut values);
        transport(&headers, frame, &mut values);
        // Of fragments, and of what an ICMP error quotes, tshark gives no length.
        let cut_inside = headers.is_cut() && headers.l2_offset() != 0;
        values.partial |= cut_inside;
        if headers.tcp(frame).is_some() && !headers.is_fragment() && !quoted && !cut_inside {
            values.put("tcp.len", declared_len(&headers, frame, wire_len));
        }
        icmp(&headers, frame, &mut values);
        tunnel(&headers, frame, &mut values);
        layer = headers.inner(frame);
        if layer.is_none() {
            layer = headers.original(frame);
            quoted |= layer.is_some();
        }
    }
    values
}

/// Length of the payload by the IP header, though bytes of it may be missing.
fn declared_len(headers: &Headers, frame: &[u8], wire_len: usize) -> usize {
    let l3 = headers.l3_offset().unwrap_or(0);
    let v4 = headers.ipv4(frame).map(|ip| usize::from(ip.total_len()));
    let v6 = headers.ipv6(frame).map(|ip| usize::from(ip.payload_len()));
    let len = v4.unwrap_or(0) + v6.filter(|len| *len != 0).map_or(0, |len| len + 40);
    let end = if len == 0 { wire_len } else { (l3 + len).min(wire_len) };
    let header = headers.tcp(frame).map_or(0, |tcp| tcp.header_len());
    end.saturating_sub(headers.l4_offset().unwrap_or(end) + header)
}

fn link_layer(headers: &Headers, frame: &[u8], values: &mut Values) {
    if let Some(ethernet) = headers.ethernet(frame) {
        values.put("eth.dst", ethernet.dst());
        values.put("eth.src", ethernet.src());
        // To tshark zero is a type, if an unknown one.
        if let Some(ethertype) =
            ethernet.ethertype().or((ethernet.type_or_len() == 0).then_some(EtherType(0)))
        {
            values.hex("eth.type", u32::from(ethertype.0), 4);
        }
    }
    tags(headers, frame, values);
    let Some(arp) = headers.arp(frame) else { return };
    values.put("arp.hw.type", arp.hardware_type());
    values.hex("arp.proto.type", u32::from(arp.protocol_type()), 4);
    values.put("arp.opcode", arp.operation());
    let mac = |bytes: Option<&[u8]>| bytes.and_then(|b| b.try_into().ok()).map(MacAddr);
    let ip = |bytes: Option<&[u8]>| bytes.and_then(|b| <[u8; 4]>::try_from(b).ok()).map(Ipv4Addr::from);
    if matches!(arp.hardware_type(), 1 | 6) {
        mac(arp.sender_hardware()).into_iter().for_each(|mac| values.put("arp.src.hw_mac", mac));
        mac(arp.target_hardware()).into_iter().for_each(|mac| values.put("arp.dst.hw_mac", mac));
    }
    if arp.protocol_type() == 0x0800 {
        ip(arp.sender_protocol()).into_iter().for_each(|ip| values.put("arp.src.proto_ipv4", ip));
        ip(arp.target_protocol()).into_iter().for_each(|ip| values.put("arp.dst.proto_ipv4", ip));
    }
}

/// VLAN tags, read with the view rather than from what [`Headers`] keeps of them.
fn tags(headers: &Headers, frame: &[u8], values: &mut Values) {
    let rest = frame.get(headers.l2_offset()..headers.end()).unwrap_or_default();
    let (mut next, len) = match headers.link() {
        LinkType::Ethernet => (Frame::new_checked(rest).ok().and_then(|f| f.ethertype()), 14),
        LinkType::LinuxSll => (sll::Cooked::new_checked(rest).ok().map(|c| EtherType(c.protocol())), 16),
        LinkType::LinuxSll2 => (sll::Cooked2::new_checked(rest).ok().map(|c| EtherType(c.protocol())), 20),
        _ => (None, 0),
    };
    let mut rest = rest.get(len..).unwrap_or_default();
    while let Some(tag) = next.filter(|t| t.is_vlan()).and_then(|_| vlan::Tag::new_checked(rest).ok()) {
        // tshark has fields of its own for service tags.
        if next == Some(EtherType::QINQ) {
            values.put("ieee8021ad.id", tag.id());
        } else {
            values.put("vlan.id", tag.id());
            values.put("vlan.priority", tag.priority());
            values.flag("vlan.dei", tag.drop_eligible());
        }
        next = tag.ethertype();
        rest = &rest[vlan::HEADER_LEN..];
    }
}

fn ipv4(headers: &Headers, frame: &[u8], wire_len: usize, values: &mut Values) {
    let Some(ip) = headers.ipv4(frame) else { return };
    values.put("ip.version", ip.version());
    values.put("ip.hdr_len", ip.header_len());
    values.hex("ip.dsfield", u32::from(ip.tos()), 2);
    // For 0, the sign of segmentation offload, tshark gives the length it goes by.
    let len =
        if ip.total_len() == 0 { wire_len - headers.l3_offset().unwrap_or(0) } else { ip.total_len().into() };
    values.put("ip.len", len);
    values.hex("ip.id", u32::from(ip.id()), 4);
    values.flag("ip.flags.rb", ip.reserved_flag());
    values.flag("ip.flags.df", ip.dont_fragment());
    values.flag("ip.flags.mf", ip.more_fragments());
    values.put("ip.frag_offset", ip.fragment_offset_units());
    values.put("ip.ttl", ip.ttl());
    values.put("ip.proto", ip.protocol());
    values.hex("ip.checksum", u32::from(ip.checksum()), 4);
    values.put("ip.src", ip.src());
    values.put("ip.dst", ip.dst());
}

fn ipv6(headers: &Headers, frame: &[u8], values: &mut Values) {
    let Some(ip) = headers.ipv6(frame) else { return };
    values.put("ip.version", ip.version());
    values.hex("ipv6.tclass", u32::from(ip.traffic_class()), 8);
    values.hex("ipv6.flow", ip.flow_label(), 6);
    values.put("ipv6.plen", ip.payload_len());
    values.put("ipv6.nxt", ip.next_header());
    values.put("ipv6.hlim", ip.hop_limit());
    values.put("ipv6.src", ip.src());
    values.put("ipv6.dst", ip.dst());
    for extension in ip.extensions() {
        if let Some(fragment) = extension.fragment() {
            values.put("ipv6.fraghdr.offset", fragment.offset / 8);
            values.flag("ipv6.fraghdr.more", fragment.more);
            values.hex("ipv6.fraghdr.ident", fragment.id, 8);
        }
        if extension.kind == ipv6_ext::ROUTING {
            values.put("ipv6.routing.type", extension.routing().map_or(0, |(kind, _)| kind));
        }
    }
}

fn transport(headers: &Headers, frame: &[u8], values: &mut Values) {
    if let Some((src, dst)) = headers.ports(frame) {
        match headers.protocol() {
            Some(6) => {
                values.put("tcp.srcport", src);
                values.put("tcp.dstport", dst);
            }
            Some(17 | 136) => {
                values.put("udp.srcport", src);
                values.put("udp.dstport", dst);
            }
            _ => {}
        }
    }
    // UDP-Lite has its coverage where UDP has its length. tshark gives both by the same names, but the length
    // it works out itself.
    let lite = headers.l4_offset().filter(|_| headers.protocol() == Some(136));
    let lite = lite.and_then(|at| udp::Datagram::new_checked(frame.get(at..headers.end())?).ok());
    if let Some(udp) = headers.udp(frame).or(lite) {
        if headers.protocol() == Some(17) {
            values.put("udp.length", udp.len_field());
        } else {
            values.partial = true;
        }
        values.hex("udp.checksum", u32::from(udp.checksum()), 4);
    }
    let Some(tcp) = headers.tcp(frame) else { return };
    values.put("tcp.seq_raw", tcp.seq());
    values.put("tcp.ack_raw", tcp.ack());
    values.put("tcp.hdr_len", tcp.header_len());
    values.hex("tcp.flags", u32::from(tcp.flags().0), 4);
    values.put("tcp.window_size_value", tcp.window());
    values.hex("tcp.checksum", u32::from(tcp.checksum()), 4);
    values.put("tcp.urgent_pointer", tcp.urgent());
    for option in tcp.options() {
        match option {
            TcpOption::Mss(mss) => values.put("tcp.options.mss_val", mss),
            TcpOption::WindowScale(shift) => values.put("tcp.options.wscale.shift", shift),
            TcpOption::Timestamps { value, echo } => {
                values.put("tcp.options.timestamp.tsval", value);
                values.put("tcp.options.timestamp.tsecr", echo);
            }
            TcpOption::Sack(blocks) => blocks.iter().for_each(|(left, right)| {
                values.put("tcp.options.sack_le", left);
                values.put("tcp.options.sack_re", right);
            }),
            _ => {}
        }
    }
}

fn icmp(headers: &Headers, frame: &[u8], values: &mut Values) {
    if let Some(icmp) = headers.icmp(frame).filter(|_| headers.net() == Net::Ipv4) {
        values.put("icmp.type", icmp.kind());
        values.put("icmp.code", icmp.code());
        values.hex("icmp.checksum", u32::from(icmp.checksum()), 4);
        if let Some((id, seq)) = icmp.echo() {
            values.put("icmp.ident", id);
            values.put("icmp.seq", seq);
        }
        if (icmp.kind(), icmp.code()) == (3, 4) {
            values.put("icmp.mtu", icmp.mtu());
        }
        if icmp.kind() == 5 {
            values.put("icmp.redir_gw", icmp.gateway());
        }
    }
    let Some(icmp) = headers.icmpv6(frame).filter(|_| headers.net() == Net::Ipv6) else { return };
    values.put("icmpv6.type", icmp.kind());
    values.put("icmpv6.code", icmp.code());
    values.hex("icmpv6.checksum", u32::from(icmp.checksum()), 4);
    if let Some((id, seq)) = icmp.echo() {
        values.hex("icmpv6.echo.identifier", u32::from(id), 4);
        values.put("icmpv6.echo.sequence_number", seq);
    }
    // The extended echo (RFC 8335 §2) has its identifier in the same place, but another sequence number.
    if matches!(icmp.kind(), 160 | 161) {
        values.hex("icmpv6.echo.identifier", u32::from(icmp.id()), 4);
    }
    if icmp.kind() == 2 {
        values.put("icmpv6.mtu", icmp.mtu());
    }
    match (icmp.kind(), ndp::target(&icmp)) {
        (135, Some(target)) => values.put("icmpv6.nd.ns.target_address", target),
        (136, Some(target)) => values.put("icmpv6.nd.na.target_address", target),
        _ => {}
    }
    for option in ndp::options(&icmp) {
        if let ndp::NdpOption::SourceLinkLayer(mac) | ndp::NdpOption::TargetLinkLayer(mac) = option {
            values.put("icmpv6.opt.linkaddr", mac);
        }
    }
}

fn tunnel(headers: &Headers, frame: &[u8], values: &mut Values) {
    if headers.is_later_fragment() {
        return;
    }
    if let (Some(gre::PROTOCOL), Some(at)) = (headers.protocol(), headers.l4_offset())
        && let Some(Ok(gre)) = frame.get(at..headers.end()).map(gre::Packet::new_checked)
    {
        values.put("gre.flags.version", gre.version());
        values.hex("gre.proto", u32::from(gre.protocol_type()), 4);
        if (gre.version(), EtherType(gre.protocol_type())) != (1, gre::PPP)
            && let Some(key) = gre.key()
        {
            values.hex("gre.key", key, 8);
        }
        if let Some(sequence) = gre.sequence() {
            values.put("gre.sequence_number", sequence);
        }
    }
    if let Some(datagram) = headers.udp(frame)
        && matches!(datagram.dst_port(), vxlan::PORT | vxlan::PORT_LINUX | vxlan::PORT_GPE)
        && headers.protocol() == Some(udp::PROTOCOL)
        && let Ok(packet) = vxlan::Packet::new_checked(headers.payload(frame))
    {
        values.put("vxlan.vni", packet.vni());
    }
}
