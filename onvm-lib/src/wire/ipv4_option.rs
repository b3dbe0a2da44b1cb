//! Options of an IPv4 header (RFC 791 §3.1; IANA "IP Option Numbers").

use std::net::Ipv4Addr;

use super::field::be16;
use super::tlv::{Step, Walk};

/// One option. Kinds are the whole first byte, copied flag and class included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Option<'a> {
    /// End of list (0): what follows is padding.
    EndOfList,
    /// No operation (1).
    Nop,
    /// Record route (7).
    RecordRoute(Route<'a>),
    /// Internet timestamp (68): pointer, overflow count and flags in one byte, then the records.
    Timestamp {
        /// Place of the next record, counted from the kind byte from 1.
        pointer: u8,
        /// Hosts that found no room, in the upper four bits; form of the records in the lower.
        overflow_flags: u8,
        /// The records.
        records: &'a [u8],
    },
    /// Loose source route (131).
    LooseSourceRoute(Route<'a>),
    /// Strict source route (137).
    StrictSourceRoute(Route<'a>),
    /// Router alert (148, RFC 2113).
    RouterAlert(u16),
    /// Stream identifier (136, obsolete).
    StreamId(u16),
    /// Any other kind with its data.
    Other {
        /// Kind byte.
        kind: u8,
        /// What follows the length byte.
        data: &'a [u8],
    },
    /// An option that breaks its format. If `fatal` the list cannot be followed beyond it.
    Malformed {
        /// Kind byte.
        kind: u8,
        /// Its data, or if fatal all that is left, kind byte included.
        data: &'a [u8],
        /// Whether the walk ends here.
        fatal: bool,
    },
}

/// The route of a source route or record route option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Place of the next address, counted from the kind byte from 1; 4 is the first.
    pub pointer: u8,
    bytes: &'a [u8],
}

impl<'a> Route<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let (&pointer, bytes) = data.split_first()?;
        (bytes.len().is_multiple_of(4)).then_some(Route { pointer, bytes })
    }

    /// All its addresses, those not yet filled in included.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + 'a {
        self.bytes.as_chunks::<4>().0.iter().map(|octets| Ipv4Addr::from(*octets))
    }
}

/// The options of a header one by one. It ends after [`Ipv4Option::EndOfList`] or a fatal
/// [`Ipv4Option::Malformed`].
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    walk: Walk<'a>,
}

impl<'a> Options<'a> {
    /// Walks over the bytes between header and payload.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Options { walk: Walk::new(bytes) }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Ipv4Option<'a>;

    fn next(&mut self) -> Option<Ipv4Option<'a>> {
        Some(match self.walk.next()? {
            Step::End => Ipv4Option::EndOfList,
            Step::Nop => Ipv4Option::Nop,
            Step::Broken { kind, rest } => Ipv4Option::Malformed { kind, data: rest, fatal: true },
            Step::Option { kind, data } => {
                let word = || be16(data, 0).filter(|_| data.len() == 2);
                let known = match kind {
                    7 => Route::read(data).map(Ipv4Option::RecordRoute),
                    131 => Route::read(data).map(Ipv4Option::LooseSourceRoute),
                    137 => Route::read(data).map(Ipv4Option::StrictSourceRoute),
                    136 => word().map(Ipv4Option::StreamId),
                    148 => word().map(Ipv4Option::RouterAlert),
                    68 => data.split_first_chunk::<2>().map(|(&[pointer, overflow_flags], records)| {
                        Ipv4Option::Timestamp { pointer, overflow_flags, records }
                    }),
                    _ => Some(Ipv4Option::Other { kind, data }),
                };
                known.unwrap_or(Ipv4Option::Malformed { kind, data, fatal: false })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_kind() {
        let bytes = [148, 4, 0, 0, 1, 131, 7, 4, 10, 0, 0, 1, 68, 8, 5, 0x10, 0, 0, 0, 7, 130, 3, 0xab, 0, 9];
        let all: Vec<_> = Options::new(&bytes).collect();
        assert_eq!(all[0], Ipv4Option::RouterAlert(0));
        assert_eq!(all[1], Ipv4Option::Nop);
        let Ipv4Option::LooseSourceRoute(route) = all[2] else { panic!("{:?}", all[2]) };
        assert_eq!(route.pointer, 4);
        assert_eq!(route.addresses().collect::<Vec<_>>(), [Ipv4Addr::new(10, 0, 0, 1)]);
        let records = &[0, 0, 0, 7][..];
        assert_eq!(all[3], Ipv4Option::Timestamp { pointer: 5, overflow_flags: 0x10, records });
        assert_eq!(all[4], Ipv4Option::Other { kind: 130, data: &[0xab] });
        assert_eq!(all[5..], [Ipv4Option::EndOfList]);
    }

    #[test]
    fn says_what_is_malformed() {
        let all: Vec<_> = Options::new(&[148, 3, 0, 7, 9, 1]).collect();
        assert_eq!(all[0], Ipv4Option::Malformed { kind: 148, data: &[0], fatal: false });
        assert_eq!(all[1], Ipv4Option::Malformed { kind: 7, data: &[7, 9, 1], fatal: true });
        assert_eq!(all.len(), 2);
    }
}
