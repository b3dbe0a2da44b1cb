//! From frames to headers and payload, with an event for everything that is wrong in them.
//!
//! ```text
//! link: Ethernet, cooked, raw ─▶ VLAN, MPLS, PPPoE … ─▶ IPv4, IPv6 ─▶ TCP, UDP, ICMP, SCTP ─▶ payload
//!                                                          │   │ tunnels: GRE, IP in IP, Teredo, VXLAN, Geneve
//!                                                          │   └────▶ [`Inner`]: a packet of its own
//!                                                          └ fragment: put together by `defrag`
//! ```
//! [`decode`] reads one packet and borrows from its bytes; nothing is copied. A tunnel's inner packet is a packet of
//! its own for the rules, so it is returned as an [`Inner`] and decoded by a call of its own.
//!
//! `onvm_lib::wire` reads the same headers for routing and stops at what it cannot use. Rules ask what exactly is wrong
//! with a header (which option, which length, which extension), and in which order, so the pass here is its own;
//! checksums are `wire`'s.

mod event;
mod gre;
mod icmp;
mod ipv4;
mod ipv4_options;
mod ipv6;
mod link;
mod packet;
#[cfg(test)]
mod tests;
mod transport;
mod tunnel;

pub(crate) use event::events;
pub use event::{Event, Events};
pub use ipv4_options::{OptionKind, Options as Ipv4Options};
pub use packet::{Decoded, Fragment, IcmpFields, Net, TcpFields, Transport, Tunnel};

use onvm_lib::wire::LinkType;

/// With so many headers one inside the other, the last is not read any more (Suricata's `max-layers`).
pub const MAX_LAYERS: u8 = 16;

/// What a packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// A link-layer header.
    Link(LinkType),
    /// An IP header, of the version that its first half byte says.
    Ip,
    /// An IPv4 header.
    Ipv4,
    /// An IPv6 header.
    Ipv6,
    /// What this EtherType says.
    Ether(u16),
    /// A PPP header, as in GRE of version 1.
    Ppp,
}

/// A packet inside a packet.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// What they begin with.
    pub begin: Begin,
    /// What carries it.
    pub tunnel: Tunnel,
}

/// What is decoded, and how.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// UDP port of Teredo; none: it is not looked for.
    pub teredo_port: Option<u16>,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// UDP port of Geneve.
    pub geneve_port: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { teredo_port: Some(3544), vxlan_port: 4789, geneve_port: 6081 }
    }
}

/// Reads the headers of one packet. `layers` counts the headers around it.
pub fn decode<'a>(
    settings: &Settings,
    bytes: &'a [u8],
    begin: Begin,
    layers: u8,
) -> (Decoded<'a>, Option<Inner<'a>>) {
    let mut pass = Pass { settings, packet: Decoded::new(bytes, layers), inner: None };
    pass.begin(bytes, begin);
    (pass.packet, pass.inner)
}

/// The state of one reading: what is known of the packet so far.
pub(crate) struct Pass<'a, 's> {
    settings: &'s Settings,
    packet: Decoded<'a>,
    inner: Option<Inner<'a>>,
}

impl<'a> Pass<'a, '_> {
    fn event(&mut self, event: Event) {
        self.packet.events.set(event);
    }

    /// Counts a header; whether there may be one more.
    fn deeper(&mut self) -> bool {
        self.packet.layers += 1;
        if self.packet.layers >= MAX_LAYERS {
            self.event(Event::TooManyLayers);
            return false;
        }
        true
    }

    fn begin(&mut self, bytes: &'a [u8], begin: Begin) {
        match begin {
            Begin::Link(link) => self.link(bytes, link),
            Begin::Ip => self.raw_ip(bytes),
            Begin::Ipv4 => self.ipv4(bytes),
            Begin::Ipv6 => self.ipv6(bytes),
            Begin::Ether(kind) => self.ether_type(bytes, kind),
            Begin::Ppp => self.ppp(bytes),
        }
    }

    /// Notes a packet that is inside this one.
    fn carries(&mut self, bytes: &'a [u8], begin: Begin, tunnel: Tunnel) {
        self.inner = Some(Inner { bytes, begin, tunnel });
    }
}

/// The two bytes at `at`, big-endian.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let [a, b] = *bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes([a, b]))
}

/// The four bytes at `at`, big-endian.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}
