//! IPv6 extension headers (RFC 8200 §4), and the authentication header (RFC 4302) that IPv4 has too.
//!
//! The chain is followed by [`Extensions`] until a header that is not an extension, one that hides what
//! follows (ESP), or bytes that a later fragment begins in the middle of. It is bounded: a chain longer than
//! [`MAX_EXTENSIONS`] is no honest packet, and walking it would be the attacker's gain.

use std::net::Ipv6Addr;

use super::Fragment;
use super::field::{be16, be32};

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Encapsulating security payload (RFC 4303): what follows is encrypted.
pub const ESP: u8 = 50;
/// Authentication header (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// Nothing follows.
pub const NO_NEXT_HEADER: u8 = 59;
/// Destination options.
pub const DESTINATION: u8 = 60;
/// Shim6 (RFC 5533).
pub const SHIM6: u8 = 140;

/// Extension headers that are followed in one packet.
pub const MAX_EXTENSIONS: u8 = 16;

/// One extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// What it is: [`HOP_BY_HOP`], [`ROUTING`] and so on.
    pub kind: u8,
    /// Kind of the header after it.
    pub next: u8,
    /// The whole header, its next-header byte first.
    pub bytes: &'a [u8],
}

impl<'a> Extension<'a> {
    /// What a fragment header says.
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        if self.kind != FRAGMENT {
            return None;
        }
        let word = be16(self.bytes, 2)?;
        Some(Fragment { id: be32(self.bytes, 4)?, offset: u32::from(word & 0xfff8), more: word & 1 == 1 })
    }

    /// Type and segments left of a routing header.
    #[must_use]
    pub fn routing(&self) -> Option<(u8, u8)> {
        (self.kind == ROUTING).then(|| self.bytes.get(2).copied().zip(self.bytes.get(3).copied()))?
    }

    /// The last address of a routing header with segments left, of the types whose addresses are known: 0
    /// (deprecated) and 2 have it at their end, 4 (segment routing, RFC 8754 §2) at the front.
    #[must_use]
    pub fn final_destination(&self) -> Option<Ipv6Addr> {
        let address = match self.routing()? {
            (_, 0) => None,
            (0 | 2, _) if self.bytes.len() >= 24 => self.bytes.last_chunk::<16>(),
            (4, _) => self.bytes.get(8..)?.first_chunk::<16>(),
            _ => None,
        };
        address.map(|octets| Ipv6Addr::from(*octets))
    }

    /// Security parameters index and sequence number of an authentication header.
    #[must_use]
    pub fn authentication(&self) -> Option<(u32, u32)> {
        (self.kind == AUTHENTICATION).then(|| be32(self.bytes, 4).zip(be32(self.bytes, 8)))?
    }

    /// The options of a hop-by-hop or destination options header; none for others.
    pub fn options(&self) -> Options<'a> {
        let has = matches!(self.kind, HOP_BY_HOP | DESTINATION);
        Options { rest: if has { self.bytes.get(2..).unwrap_or(&[]) } else { &[] } }
    }
}

/// Why a chain of extension headers could not be followed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainProblem {
    /// The bytes end before the header does.
    Cut,
    /// There are more than [`MAX_EXTENSIONS`].
    TooLong,
}

/// The extension headers of a packet one by one. When it is exhausted, its methods say where it got to.
#[derive(Clone, Copy, Debug)]
pub struct Extensions<'a> {
    bytes: &'a [u8],
    at: usize,
    next: u8,
    seen: u8,
    fragment: Option<Fragment>,
    problem: Option<ChainProblem>,
}

/// Whether `kind` is a header that says what follows it. ESP does not; the mobility header (135, RFC 6275
/// §6.1.1) and the host identity protocol (139, RFC 7401 §5.1) have the field, but nothing may follow them
/// yet, and no host goes on after them.
#[must_use]
#[inline]
pub fn is_extension(kind: u8) -> bool {
    matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | SHIM6)
}

impl<'a> Extensions<'a> {
    /// Follows the chain through `bytes`, the payload of the IPv6 header, whose next header is `next`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8], next: u8) -> Self {
        Extensions { bytes, at: 0, next, seen: 0, fragment: None, problem: None }
    }

    /// Kind of the header that comes next: the upper-layer protocol once the iterator is exhausted.
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.next
    }

    /// Bytes walked so far: the upper-layer header begins there once the iterator is exhausted.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The fragment header that was passed, if there was one.
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// What stopped the walk before its end.
    #[must_use]
    pub fn problem(&self) -> Option<ChainProblem> {
        self.problem
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        // What follows the header of a later fragment is the middle of something.
        let middle = self.fragment.is_some_and(|f| f.offset != 0);
        if self.problem.is_some() || middle || !is_extension(self.next) {
            return None;
        }
        if self.seen == MAX_EXTENSIONS {
            self.problem = Some(ChainProblem::TooLong);
            return None;
        }
        let rest = &self.bytes[self.at..];
        let Some((next, bytes)) = one(self.next, rest) else {
            self.problem = Some(ChainProblem::Cut);
            return None;
        };
        let extension = Extension { kind: self.next, next, bytes };
        if let Some(fragment) = extension.fragment() {
            self.fragment = Some(fragment);
        }
        self.next = next;
        self.at += bytes.len();
        self.seen += 1;
        Some(extension)
    }
}

/// The extension header of `kind` at the beginning of `rest` and the kind of the one after it; `None` if it
/// is not all there.
#[inline]
pub(super) fn one(kind: u8, rest: &[u8]) -> Option<(u8, &[u8])> {
    let [next, len] = *rest.first_chunk::<2>()?;
    let len = match kind {
        FRAGMENT => 8,
        // In units of four bytes, less two (RFC 4302 §2.2).
        AUTHENTICATION => (usize::from(len) + 2) * 4,
        _ => (usize::from(len) + 1) * 8,
    };
    Some((next, rest.get(..len)?))
}

/// An option of a hop-by-hop or destination options header (RFC 8200 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Option<'a> {
    /// One byte of padding.
    Pad1,
    /// Padding of this many bytes, kind and length included.
    PadN(usize),
    /// Router alert (RFC 2711).
    RouterAlert(u16),
    /// Length of a jumbogram in bytes, the IPv6 header not counted (RFC 2675).
    Jumbo(u32),
    /// Any other kind with its data.
    Other {
        /// Kind byte; the upper two bits say what to do with an unknown one.
        kind: u8,
        /// What follows the length byte.
        data: &'a [u8],
    },
    /// A length beyond the header's end; all that is left.
    Malformed {
        /// Kind byte.
        kind: u8,
        /// The rest, kind byte included.
        rest: &'a [u8],
    },
}

/// The options one by one. It ends after an [`Ipv6Option::Malformed`].
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = Ipv6Option<'a>;

    fn next(&mut self) -> Option<Ipv6Option<'a>> {
        let (&kind, after) = self.rest.split_first()?;
        if kind == 0 {
            self.rest = after;
            return Some(Ipv6Option::Pad1);
        }
        let end = after.first().map_or(usize::MAX, |len| 2 + usize::from(*len));
        let Some(data) = self.rest.get(2..end) else {
            return Some(Ipv6Option::Malformed { kind, rest: std::mem::take(&mut self.rest) });
        };
        self.rest = &self.rest[end..];
        Some(match (kind, data.len()) {
            (1, len) => Ipv6Option::PadN(2 + len),
            (5, 2) => Ipv6Option::RouterAlert(u16::from_be_bytes([data[0], data[1]])),
            (0xc2, 4) => Ipv6Option::Jumbo(u32::from_be_bytes([data[0], data[1], data[2], data[3]])),
            _ => Ipv6Option::Other { kind, data },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_chain() {
        let mut bytes = vec![ROUTING, 0, 5, 2, 0, 0, 1, 0]; // hop-by-hop: router alert, padding
        bytes.extend([FRAGMENT, 0, 4, 1, 0, 0, 0, 0]);
        bytes.extend([AUTHENTICATION, 0, 0, 1, 0, 0, 0, 7]);
        bytes.extend([17, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3]);
        bytes.push(0xaa);
        let mut walk = Extensions::new(&bytes, HOP_BY_HOP);
        let first = walk.next().unwrap();
        let options: Vec<_> = first.options().collect();
        assert_eq!(options, [Ipv6Option::RouterAlert(0), Ipv6Option::PadN(2)]);
        assert_eq!(walk.next().unwrap().routing(), Some((4, 1)));
        assert_eq!(walk.next().unwrap().fragment(), Some(Fragment { id: 7, offset: 0, more: true }));
        assert_eq!(walk.next().unwrap().authentication(), Some((9, 3)));
        assert_eq!(walk.next(), None);
        assert_eq!((walk.next_header(), walk.offset(), walk.problem()), (17, 36, None));
    }

    #[test]
    fn stops_at_later_fragments_and_at_the_bound() {
        let bytes = [60, 0, 0, 8, 0, 0, 0, 1, 60, 0, 0, 0, 0, 0, 0, 0];
        let mut walk = Extensions::new(&bytes, FRAGMENT);
        assert_eq!(walk.by_ref().count(), 1);
        assert_eq!((walk.next_header(), walk.offset()), (60, 8));

        let bytes = [60, 0, 1, 4, 0, 0, 0, 0].repeat(17);
        let mut walk = Extensions::new(&bytes, DESTINATION);
        assert_eq!(walk.by_ref().count(), 16);
        assert_eq!(walk.problem(), Some(ChainProblem::TooLong));
    }

    #[test]
    fn says_what_is_cut() {
        for (kind, bytes) in [(0, &[6u8, 1, 0, 0, 0, 0, 0, 0][..]), (44, &[6; 7]), (51, &[6]), (60, &[])] {
            let mut walk = Extensions::new(bytes, kind);
            assert_eq!(walk.next(), None);
            assert_eq!(walk.problem(), Some(ChainProblem::Cut));
            assert_eq!(walk.next_header(), kind);
        }
        let extension = Extension { kind: DESTINATION, next: 6, bytes: &[6, 0, 0, 30, 5, 1, 1, 1] };
        let last = extension.options().last();
        assert_eq!(last, Some(Ipv6Option::Malformed { kind: 30, rest: &[30, 5, 1, 1, 1] }));
    }
}
