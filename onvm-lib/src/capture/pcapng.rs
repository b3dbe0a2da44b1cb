//! pcapng on the way in: a sequence of blocks, of which those with frames are lent out.
//!
//! ```text
//! block: type 4 | total length 4 | body | total length 4           (padded to a multiple of 4)
//! SHB 0a0d0d0a: byte-order magic 4 | major 2 | minor 2 | section length 8 | options
//! IDB 1:        link type 2 | reserved 2 | snap length 4 | options
//! PB  2:        interface 2 | drops 2 | time 8 | captured 4 | on the wire 4 | bytes | options
//! SPB 3:        on the wire 4 | bytes
//! EPB 6:        interface 4 | time 8 | captured 4 | on the wire 4 | bytes | options
//! ```
//! Source: `draft-ietf-opsawg-pcapng`, sections 3 and 4, appendix A for PB. A section header starts over:
//! byte order and interfaces of the section before it are gone. Blocks of all other types are stepped over
//! without being held, whatever their length.

use super::pcap::{cut, oversized};
use super::reader::{ByteOrder, Record};
use super::source::{CAPACITY, Source};
use super::{BlockFault, Error, MAX_CAPTURED};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Type and total length at the start of a block.
const HEAD: usize = 8;
/// Total length at the end.
const TAIL: usize = 4;
/// A block of a type that is looked into is held in one piece: a frame of full length leaves 256 KiB for
/// its options, where one comment has at most 64 KiB.
const MAX_BLOCK: u32 = 512 * 1024;
const _: () = assert!(MAX_BLOCK as usize <= CAPACITY && MAX_BLOCK > MAX_CAPTURED);
/// More than any machine has, and few enough that a hostile file cannot fill the memory with them.
const MAX_INTERFACES: usize = 65_536;

const OPTION_TSRESOL: u16 = 9;
const OPTION_TSOFFSET: u16 = 14;

/// How an interface counts time, made into what is quick to work out per frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A unit is this many nanoseconds.
    Nanoseconds(u64),
    /// This many units are a nanosecond.
    PerNanosecond(u64),
    /// Two to this power of units are a second.
    Binary(u8),
}

impl Unit {
    /// From the value of `if_tsresol`: a power of ten, or of two when the top bit is set.
    fn from_tsresol(value: u8) -> Self {
        let power = u32::from(value & 0x7f);
        match value {
            0..=9 => Self::Nanoseconds(10_u64.pow(9 - power)),
            // From 10^-29 on a unit is too small for 64 bits to make up a nanosecond.
            10..=0x7f => Self::PerNanosecond(10_u64.checked_pow(power - 9).unwrap_or(u64::MAX)),
            0x80.. => Self::Binary(value & 0x7f),
        }
    }

    #[inline]
    fn nanoseconds(self, count: u64) -> u64 {
        match self {
            Self::Nanoseconds(each) => count.saturating_mul(each),
            Self::PerNanosecond(units) => count / units,
            Self::Binary(power) => {
                let ns = (u128::from(count) * 1_000_000_000) >> power;
                u64::try_from(ns).unwrap_or(u64::MAX)
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u32,
    /// Zero stands for no limit.
    snap_length: u32,
    unit: Unit,
    /// What `if_tsoffset` adds, in nanoseconds.
    offset_ns: i64,
}

#[derive(Debug)]
pub(super) struct PcapNg {
    order: ByteOrder,
    interfaces: Vec<Interface>,
}

/// Where a packet block keeps what the three kinds of it have in common.
struct Packet {
    interface: u32,
    /// Offset within the block of the 64-bit time, `None` when it has none.
    time: Option<usize>,
    captured: u32,
    original_len: u32,
    /// Offset within the block of the captured bytes.
    data: usize,
}

impl PcapNg {
    pub(super) fn recognises(magic: [u8; 4]) -> bool {
        // The type of the section header reads the same in either byte order.
        u32::from_le_bytes(magic) == SECTION_HEADER
    }

    /// Reads the first section header.
    pub(super) fn start(source: &mut Source) -> Result<Self, Error> {
        let mut pcapng = Self { order: ByteOrder::Little, interfaces: Vec::new() };
        match pcapng.section(source, 1) {
            Err(Error::Cut { file, wanted, got, .. }) => {
                // Both fit: the bytes are in the buffer.
                let [wanted, got] = [wanted, got].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
                Err(Error::CutHeader { file, wanted, got })
            }
            Err(other) => Err(other),
            Ok(()) => Ok(pcapng),
        }
    }

    /// Reads up to the next block that holds a frame; `frame` is its number.
    #[inline]
    pub(super) fn next(&mut self, source: &mut Source, frame: u64) -> Result<Option<Record>, Error> {
        loop {
            let got = source.need(HEAD)?;
            if got < HEAD {
                return if got == 0 { Ok(None) } else { Err(cut(source, frame, HEAD, got)) };
            }
            match self.order.u32_at(&source.ahead()[..HEAD], 0) {
                ENHANCED_PACKET => return self.enhanced(source, frame).map(Some),
                PACKET => return self.obsolete(source, frame).map(Some),
                SIMPLE_PACKET => return self.simple(source, frame).map(Some),
                INTERFACE => self.interface(source, frame)?,
                SECTION_HEADER => self.section(source, frame)?,
                other => self.skip(source, frame, other)?,
            }
        }
    }

    /// Brings a whole block of type `block` into the buffer, checks its two lengths, and gives the length.
    #[inline]
    fn hold(&self, source: &mut Source, frame: u64, block: u32, least: u32) -> Result<usize, Error> {
        let length = self.order.u32_at(&source.ahead()[..HEAD], 4);
        if length < least || !length.is_multiple_of(4) {
            return Err(bad(source, frame, block, BlockFault::Length { length, least }));
        }
        if length > MAX_BLOCK {
            return Err(bad(source, frame, block, BlockFault::TooLong { length, limit: MAX_BLOCK }));
        }
        let whole = length as usize;
        let got = source.need(whole)?;
        if got < whole {
            return Err(cut(source, frame, whole, got));
        }
        let trailer = self.order.u32_at(&source.ahead()[..whole], whole - TAIL);
        if trailer != length {
            return Err(bad(source, frame, block, BlockFault::Trailer { length, trailer }));
        }
        Ok(whole)
    }

    #[inline]
    fn enhanced(&self, source: &mut Source, frame: u64) -> Result<Record, Error> {
        const DATA: usize = HEAD + 20;
        let whole = self.hold(source, frame, ENHANCED_PACKET, 32)?;
        let block = &source.ahead()[..whole];
        let packet = Packet {
            interface: self.order.u32_at(block, 8),
            time: Some(12),
            captured: self.order.u32_at(block, 20),
            original_len: self.order.u32_at(block, 24),
            data: DATA,
        };
        self.deliver(source, frame, ENHANCED_PACKET, whole, &packet)
    }

    fn obsolete(&self, source: &mut Source, frame: u64) -> Result<Record, Error> {
        let whole = self.hold(source, frame, PACKET, 32)?;
        let block = &source.ahead()[..whole];
        let packet = Packet {
            interface: u32::from(self.order.u16_at(block, 8)),
            time: Some(12),
            captured: self.order.u32_at(block, 20),
            original_len: self.order.u32_at(block, 24),
            data: HEAD + 20,
        };
        self.deliver(source, frame, PACKET, whole, &packet)
    }

    /// A simple block has neither interface nor captured length: it is of the first interface, and was
    /// cut by that interface's snap length or not at all.
    fn simple(&self, source: &mut Source, frame: u64) -> Result<Record, Error> {
        let whole = self.hold(source, frame, SIMPLE_PACKET, 16)?;
        let original_len = self.order.u32_at(&source.ahead()[..whole], 8);
        let captured = match self.interfaces.first() {
            Some(first) if first.snap_length > 0 => original_len.min(first.snap_length),
            _ => original_len,
        };
        let packet = Packet { interface: 0, time: None, captured, original_len, data: HEAD + 4 };
        self.deliver(source, frame, SIMPLE_PACKET, whole, &packet)
    }

    /// Checks what a packet block says and steps over the block.
    #[inline]
    fn deliver(
        &self,
        source: &mut Source,
        frame: u64,
        block: u32,
        whole: usize,
        packet: &Packet,
    ) -> Result<Record, Error> {
        let Packet { interface, captured, original_len, .. } = *packet;
        if captured > MAX_CAPTURED {
            return Err(oversized(source, frame, captured));
        }
        let length = captured as usize;
        let room = whole - packet.data - TAIL;
        if length > room {
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            return Err(bad(source, frame, block, BlockFault::Captured { captured, room }));
        }
        let Some(from) = self.interfaces.get(interface as usize) else {
            let interfaces = self.interfaces.len();
            return Err(bad(source, frame, block, BlockFault::Interface { interface, interfaces }));
        };
        let timestamp_ns = packet.time.map_or(0, |at| {
            let bytes = &source.ahead()[at..at + 8];
            let high = u64::from(self.order.u32_at(bytes, 0));
            let low = u64::from(self.order.u32_at(bytes, 4));
            from.unit.nanoseconds(high << 32 | low).saturating_add_signed(from.offset_ns)
        });
        let link = from.link;
        let start = source.step(whole) + packet.data;
        Ok(Record { timestamp_ns, original_len, link, interface, start, length })
    }

    /// Reads a section header, whose own byte order counts from its first field on.
    fn section(&mut self, source: &mut Source, frame: u64) -> Result<(), Error> {
        const LEAST: usize = 28;
        let got = source.need(LEAST)?;
        if got < LEAST {
            return Err(cut(source, frame, LEAST, got));
        }
        let magic = u32::from_be_bytes(*source.ahead()[HEAD..].first_chunk().unwrap_or(&[0; 4]));
        self.order = match magic {
            BYTE_ORDER_MAGIC => ByteOrder::Big,
            swapped if swapped.swap_bytes() == BYTE_ORDER_MAGIC => ByteOrder::Little,
            _ => return Err(bad(source, frame, SECTION_HEADER, BlockFault::ByteOrder { magic })),
        };
        let whole = self.hold(source, frame, SECTION_HEADER, 28)?;
        let header = &source.ahead()[..whole];
        let (major, minor) = (self.order.u16_at(header, 12), self.order.u16_at(header, 14));
        if major != 1 {
            let offset = source.offset() + 12;
            return Err(Error::Version { file: source.name().to_owned(), offset, major, minor });
        }
        self.interfaces.clear();
        source.step(whole);
        Ok(())
    }

    fn interface(&mut self, source: &mut Source, frame: u64) -> Result<(), Error> {
        if self.interfaces.len() == MAX_INTERFACES {
            let fault = BlockFault::TooManyInterfaces { limit: MAX_INTERFACES };
            return Err(bad(source, frame, INTERFACE, fault));
        }
        let whole = self.hold(source, frame, INTERFACE, 20)?;
        let block = &source.ahead()[..whole];
        let mut interface = Interface {
            link: u32::from(self.order.u16_at(block, 8)),
            snap_length: self.order.u32_at(block, 12),
            unit: Unit::from_tsresol(6),
            offset_ns: 0,
        };
        self.options(&block[16..whole - TAIL], &mut interface);
        self.interfaces.push(interface);
        source.step(whole);
        Ok(())
    }

    /// Takes what counts out of an interface's options. A list that breaks off ends there: the frames do
    /// not depend on it.
    fn options(&self, mut list: &[u8], interface: &mut Interface) {
        while let Some((head, rest)) = list.split_at_checked(4) {
            let (code, length) = (self.order.u16_at(head, 0), usize::from(self.order.u16_at(head, 2)));
            let Some(value) = rest.get(..length) else { return };
            match (code, value) {
                (0, _) => return,
                (OPTION_TSRESOL, &[resolution]) => interface.unit = Unit::from_tsresol(resolution),
                (OPTION_TSOFFSET, value) if length == 8 => {
                    let [a, b] = [self.order.u32_at(value, 0), self.order.u32_at(value, 4)].map(u64::from);
                    let seconds = match self.order {
                        ByteOrder::Little => b << 32 | a,
                        ByteOrder::Big => a << 32 | b,
                    };
                    interface.offset_ns = seconds.cast_signed().saturating_mul(1_000_000_000);
                }
                _ => {}
            }
            list = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    /// Steps over a block of another type, which may be larger than the buffer.
    fn skip(&self, source: &mut Source, frame: u64, block: u32) -> Result<(), Error> {
        const LEAST: u32 = 12;
        let length = self.order.u32_at(&source.ahead()[..HEAD], 4);
        if length < LEAST || !length.is_multiple_of(4) {
            return Err(bad(source, frame, block, BlockFault::Length { length, least: LEAST }));
        }
        let offset = source.offset();
        let skipped = source.skip(u64::from(length) - TAIL as u64)?;
        let tail = source.need(TAIL)?.min(TAIL);
        if tail < TAIL {
            let got = skipped + tail as u64;
            let file = source.name().to_owned();
            return Err(Error::Cut { file, frame, offset, wanted: u64::from(length), got });
        }
        let trailer = self.order.u32_at(&source.ahead()[..TAIL], 0);
        if trailer != length {
            return Err(bad(source, frame, block, BlockFault::Trailer { length, trailer }));
        }
        source.step(TAIL);
        Ok(())
    }
}

#[cold]
fn bad(source: &Source, frame: u64, block: u32, fault: BlockFault) -> Error {
    Error::BadBlock { file: source.name().to_owned(), frame, offset: source.offset(), block, fault }
}
