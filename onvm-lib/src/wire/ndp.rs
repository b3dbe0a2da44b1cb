//! Neighbor discovery messages in ICMPv6 (RFC 4861): targets and options.

use std::net::Ipv6Addr;

use super::ethernet::MacAddr;
use super::field::{Field, be32};
use super::icmpv6::{
    Message, NEIGHBOR_ADVERTISEMENT, NEIGHBOR_SOLICITATION, REDIRECT, ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
};

/// Flag of a neighbor advertisement: the sender is a router.
pub const ROUTER: u32 = 1 << 31;
/// Flag of a neighbor advertisement: it answers a solicitation.
pub const SOLICITED: u32 = 1 << 30;
/// Flag of a neighbor advertisement: it replaces a cached link-layer address.
pub const OVERRIDE: u32 = 1 << 29;

/// The address a neighbor solicitation, neighbor advertisement or redirect is about.
pub fn target<T: AsRef<[u8]>>(message: &Message<T>) -> Option<Ipv6Addr> {
    let kinds = [NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT, REDIRECT];
    (kinds.contains(&message.kind()) && message.as_bytes().len() >= 24)
        .then(|| Ipv6Addr::read(message.as_bytes(), 8))
}

/// Writes the target; false, and nothing done, for messages that have none.
pub fn set_target<T: AsRef<[u8]> + AsMut<[u8]>>(message: &mut Message<T>, address: Ipv6Addr) -> bool {
    let has = target(message).is_some();
    if has {
        address.write(message.payload_mut(), 0);
    }
    has
}

/// The options of a neighbor discovery message; none for others.
pub fn options<T: AsRef<[u8]>>(message: &Message<T>) -> Options<'_> {
    let start = match message.kind() {
        ROUTER_SOLICITATION => 8,
        ROUTER_ADVERTISEMENT => 16,
        NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT => 24,
        REDIRECT => 40,
        _ => usize::MAX,
    };
    Options { rest: message.as_bytes().get(start..).unwrap_or(&[]) }
}

/// One option (RFC 4861 §4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpOption<'a> {
    /// Link-layer address of the sender (1).
    SourceLinkLayer(MacAddr),
    /// Link-layer address of the target (2).
    TargetLinkLayer(MacAddr),
    /// A prefix of the link (3).
    Prefix {
        /// Bits that count, 0..=128.
        len: u8,
        /// The two flags "on link" (0x80) and "autonomous" (0x40), and those of later RFCs.
        flags: u8,
        /// Seconds it may be used; `u32::MAX` is for ever.
        valid: u32,
        /// Seconds addresses made from it are preferred; `u32::MAX` is for ever.
        preferred: u32,
        /// The prefix.
        prefix: Ipv6Addr,
    },
    /// Head of the packet that caused a redirect (4).
    RedirectedHeader(&'a [u8]),
    /// MTU of the link in bytes (5).
    Mtu(u32),
    /// Any other kind with what follows its length byte.
    Other {
        /// Kind byte.
        kind: u8,
        /// What follows the length byte.
        data: &'a [u8],
    },
    /// A length of 0 or beyond the end; all that is left.
    Malformed {
        /// Kind byte.
        kind: u8,
        /// The rest, kind byte included.
        rest: &'a [u8],
    },
}

/// The options one by one. It ends after an [`NdpOption::Malformed`].
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = NdpOption<'a>;

    fn next(&mut self) -> Option<NdpOption<'a>> {
        let &kind = self.rest.first()?;
        // In units of eight bytes.
        let len = self.rest.get(1).map_or(0, |units| usize::from(*units) * 8);
        let Some(data) = self.rest.get(2..len) else {
            return Some(NdpOption::Malformed { kind, rest: std::mem::take(&mut self.rest) });
        };
        self.rest = &self.rest[len..];
        let mac = || data.first_chunk::<6>().map(|bytes| MacAddr(*bytes));
        let known = match kind {
            1 => mac().map(NdpOption::SourceLinkLayer),
            2 => mac().map(NdpOption::TargetLinkLayer),
            3 if data.len() >= 30 => Some(NdpOption::Prefix {
                len: data[0],
                flags: data[1],
                valid: u32::read(data, 2),
                preferred: u32::read(data, 6),
                prefix: Ipv6Addr::read(data, 14),
            }),
            4 => data.get(6..).map(NdpOption::RedirectedHeader),
            5 => be32(data, 2).map(NdpOption::Mtu),
            _ => None,
        };
        Some(known.unwrap_or(NdpOption::Other { kind, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_solicitation() {
        let mut bytes = vec![135, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend([1, 1, 2, 0, 0, 0, 0, 9, 5, 1, 0, 0, 0, 0, 5, 0xdc, 14, 0]);
        let mut message = Message::new_checked(&mut bytes[..]).unwrap();
        assert_eq!(target(&message), Some(Ipv6Addr::LOCALHOST));
        let all: Vec<_> = options(&message).collect();
        assert_eq!(all[0], NdpOption::SourceLinkLayer(MacAddr([2, 0, 0, 0, 0, 9])));
        assert_eq!(all[1..], [NdpOption::Mtu(1500), NdpOption::Malformed { kind: 14, rest: &[14, 0] }]);
        assert!(set_target(&mut message, Ipv6Addr::UNSPECIFIED));
        assert_eq!(target(&message), Some(Ipv6Addr::UNSPECIFIED));
        message.set_kind(128);
        assert!(!set_target(&mut message, Ipv6Addr::LOCALHOST));
        assert_eq!((target(&message), options(&message).count()), (None, 0));
    }

    #[test]
    fn reads_a_prefix() {
        let mut bytes = vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([3, 4, 64, 0xc0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        let message = Message::new_checked(&bytes[..]).unwrap();
        let prefix = Ipv6Addr::LOCALHOST;
        let expected = NdpOption::Prefix { len: 64, flags: 0xc0, valid: 2, preferred: 1, prefix };
        assert_eq!(options(&message).collect::<Vec<_>>(), [expected]);
    }
}
