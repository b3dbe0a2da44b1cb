//! Options of a TCP header (IANA "TCP Option Kind Numbers"), read and written.

use super::field::{be16, be32};
use super::tlv::{Step, Walk};

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption<'a> {
    /// End of list (0): what follows is padding.
    EndOfList,
    /// No operation (1).
    Nop,
    /// Maximum segment size in bytes (2, RFC 9293 §3.7.1).
    Mss(u16),
    /// Window scale as a shift (3, RFC 7323 §2); more than 14 counts as 14.
    WindowScale(u8),
    /// Selective acknowledgments permitted (4, RFC 2018 §2).
    SackPermitted,
    /// Selective acknowledgments (5, RFC 2018 §3).
    Sack(SackBlocks<'a>),
    /// Timestamps (8, RFC 7323 §3).
    Timestamps {
        /// Timestamp value.
        value: u32,
        /// Timestamp echo reply.
        echo: u32,
    },
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

/// The blocks of a SACK option, as it stands: pairs of sequence numbers, the second one past the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SackBlocks<'a> {
    bytes: &'a [u8],
}

impl<'a> SackBlocks<'a> {
    /// The blocks one by one.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.bytes.as_chunks::<8>().0.iter().map(|&[a, b, c, d, e, f, g, h]| {
            (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
        })
    }

    /// Number of blocks, 1..=4 in a header without other options.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bytes.len() / 8
    }
}

/// The options of a header one by one. It ends after [`TcpOption::EndOfList`] or a fatal
/// [`TcpOption::Malformed`].
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
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        Some(match self.walk.next()? {
            Step::End => TcpOption::EndOfList,
            Step::Nop => TcpOption::Nop,
            Step::Broken { kind, rest } => TcpOption::Malformed { kind, data: rest, fatal: true },
            Step::Option { kind, data } => {
                known(kind, data).unwrap_or(TcpOption::Malformed { kind, data, fatal: false })
            }
        })
    }
}

/// The option of `kind`, or `None` if its data have the wrong length for it.
fn known(kind: u8, data: &[u8]) -> Option<TcpOption<'_>> {
    match (kind, data.len()) {
        (2, 2) => be16(data, 0).map(TcpOption::Mss),
        (3, 1) => data.first().map(|shift| TcpOption::WindowScale(*shift)),
        (4, 0) => Some(TcpOption::SackPermitted),
        (5, len) if len > 0 && len.is_multiple_of(8) => Some(TcpOption::Sack(SackBlocks { bytes: data })),
        (8, 8) => Some(TcpOption::Timestamps { value: be32(data, 0)?, echo: be32(data, 4)? }),
        (2 | 3 | 4 | 5 | 8, _) => None,
        _ => Some(TcpOption::Other { kind, data }),
    }
}

/// Data of an option beyond this cannot be said in its length byte, nor fit into any header.
const MAX_DATA: usize = 253;

impl TcpOption<'_> {
    /// Bytes it takes in a header.
    #[must_use]
    pub fn written_len(&self) -> usize {
        match *self {
            TcpOption::EndOfList | TcpOption::Nop => 1,
            TcpOption::Mss(_) => 4,
            TcpOption::WindowScale(_) => 3,
            TcpOption::SackPermitted => 2,
            TcpOption::Sack(blocks) => 2 + blocks.bytes.len().min(MAX_DATA),
            TcpOption::Timestamps { .. } => 10,
            TcpOption::Malformed { data, fatal: true, .. } => data.len(),
            TcpOption::Other { data, .. } | TcpOption::Malformed { data, .. } => 2 + data.len().min(MAX_DATA),
        }
    }

    /// Writes it to the beginning of `room` and gives what is left of that;
    /// [`Malformed`](TcpOption::Malformed) is written as it stood. One that does not fit is left out.
    pub fn write<'b>(&self, room: &'b mut [u8]) -> &'b mut [u8] {
        let len = self.written_len();
        if room.len() < len {
            return room;
        }
        let (out, left) = room.split_at_mut(len);
        let mut option = |kind: u8, data: &[u8]| {
            out[0] = kind;
            out[1] = u8::try_from(len).unwrap_or(u8::MAX);
            out[2..].copy_from_slice(&data[..len - 2]);
        };
        match *self {
            TcpOption::EndOfList => out[0] = 0,
            TcpOption::Nop => out[0] = 1,
            TcpOption::Mss(mss) => option(2, &mss.to_be_bytes()),
            TcpOption::WindowScale(shift) => option(3, &[shift]),
            TcpOption::SackPermitted => option(4, &[]),
            TcpOption::Sack(blocks) => option(5, blocks.bytes),
            TcpOption::Timestamps { value, echo } => {
                let both = u64::from(value) << 32 | u64::from(echo);
                option(8, &both.to_be_bytes());
            }
            TcpOption::Malformed { data, fatal: true, .. } => out.copy_from_slice(data),
            TcpOption::Other { kind, data } | TcpOption::Malformed { kind, data, .. } => option(kind, data),
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_linux_syn() {
        let bytes = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        let all: Vec<_> = Options::new(&bytes).collect();
        let expected = [
            TcpOption::Mss(1460),
            TcpOption::SackPermitted,
            TcpOption::Timestamps { value: 1, echo: 0 },
            TcpOption::Nop,
            TcpOption::WindowScale(7),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn reads_sack_blocks() {
        let bytes = [5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 9];
        let Some(TcpOption::Sack(blocks)) = Options::new(&bytes).next() else { panic!("no sack") };
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [(1, 2), (5, 9)]);
        assert_eq!(blocks.count(), 2);
    }

    #[test]
    fn says_what_is_malformed_and_goes_on_where_it_can() {
        let all: Vec<_> = Options::new(&[2, 3, 5, 3, 3, 1, 8, 1, 7]).collect();
        let expected = [
            TcpOption::Malformed { kind: 2, data: &[5], fatal: false },
            TcpOption::WindowScale(1),
            TcpOption::Malformed { kind: 8, data: &[8, 1, 7], fatal: true },
        ];
        assert_eq!(all, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_end_and_are_written_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut again = [0u8; 40];
            let mut room = &mut again[..];
            for option in Options::new(&bytes) {
                room = option.write(room);
            }
            let len = 40 - room.len();
            prop_assert!(bytes.starts_with(&again[..len]));
        }
    }
}
