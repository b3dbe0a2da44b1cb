//! pcap on the way in: a file header of 24 bytes, then records of 16 bytes and the frame.
//!
//! ```text
//! header: magic 4 | major 2 | minor 2 | reserved 8 | snap length 4 | link type 4
//! record: seconds 4 | fraction 4 | captured length 4 | length on the wire 4 | bytes
//! ```
//! Source: `draft-ietf-opsawg-pcap`, sections 4 and 5. All fields are in the byte order of the magic.
//! The snap length is read by nobody: files exist whose frames are longer than it, and they are whole.

use super::reader::{ByteOrder, Record};
use super::source::Source;
use super::{Error, Format, MAX_CAPTURED};

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const MAGIC_MICRO: u32 = 0xa1b2_c3d4;
const MAGIC_NANO: u32 = 0xa1b2_3c4d;
/// The upper six bits of the link type field say how long the frame check sequence is.
const LINK_TYPE_MASK: u32 = 0x03ff_ffff;

#[derive(Clone, Copy, Debug)]
pub(super) struct Pcap {
    order: ByteOrder,
    /// Nanoseconds in one unit of the fraction: 1 or 1000.
    unit_ns: u64,
    /// Link type number of all frames.
    link: u32,
}

impl Pcap {
    /// Whether a file that starts with these four bytes is a pcap file.
    pub(super) fn recognises(magic: [u8; 4]) -> Option<(ByteOrder, Format)> {
        [ByteOrder::Little, ByteOrder::Big].into_iter().find_map(|order| match order.u32(magic) {
            MAGIC_MICRO => Some((order, Format::PcapMicro)),
            MAGIC_NANO => Some((order, Format::PcapNano)),
            _ => None,
        })
    }

    /// Reads the file header.
    pub(super) fn start(source: &mut Source, order: ByteOrder, format: Format) -> Result<Self, Error> {
        let got = source.need(FILE_HEADER)?;
        if got < FILE_HEADER {
            return Err(Error::CutHeader { file: source.name().to_owned(), wanted: FILE_HEADER, got });
        }
        let header = source.ahead();
        let (major, minor) = (order.u16_at(header, 4), order.u16_at(header, 6));
        let link = order.u32_at(header, 20) & LINK_TYPE_MASK;
        if major != 2 {
            return Err(Error::Version { file: source.name().to_owned(), offset: 4, major, minor });
        }
        source.step(FILE_HEADER);
        Ok(Self { order, unit_ns: if format == Format::PcapNano { 1 } else { 1000 }, link })
    }

    /// Reads the next record; `frame` is its number.
    #[inline]
    pub(super) fn next(&self, source: &mut Source, frame: u64) -> Result<Option<Record>, Error> {
        let got = source.need(RECORD_HEADER)?;
        if got < RECORD_HEADER {
            return if got == 0 { Ok(None) } else { Err(cut(source, frame, RECORD_HEADER, got)) };
        }
        let header = &source.ahead()[..RECORD_HEADER];
        let seconds = u64::from(self.order.u32_at(header, 0));
        let fraction = u64::from(self.order.u32_at(header, 4));
        let captured = self.order.u32_at(header, 8);
        let original_len = self.order.u32_at(header, 12);
        if captured > MAX_CAPTURED {
            return Err(oversized(source, frame, captured));
        }
        let length = captured as usize;
        let got = source.need(RECORD_HEADER + length)?;
        if got < RECORD_HEADER + length {
            return Err(cut(source, frame, RECORD_HEADER + length, got));
        }
        let start = source.step(RECORD_HEADER + length) + RECORD_HEADER;
        // Cannot overflow: both fields have 32 bits, so the sum is below 4.4e18 + 4.3e12.
        let timestamp_ns = seconds * 1_000_000_000 + fraction * self.unit_ns;
        Ok(Some(Record { timestamp_ns, original_len, link: self.link, interface: 0, start, length }))
    }
}

#[cold]
pub(super) fn cut(source: &Source, frame: u64, wanted: usize, got: usize) -> Error {
    Error::Cut {
        file: source.name().to_owned(),
        frame,
        offset: source.offset(),
        wanted: wanted as u64,
        got: got as u64,
    }
}

#[cold]
pub(super) fn oversized(source: &Source, frame: u64, captured: u32) -> Error {
    let offset = source.offset();
    Error::Oversized { file: source.name().to_owned(), frame, offset, captured, limit: MAX_CAPTURED }
}
