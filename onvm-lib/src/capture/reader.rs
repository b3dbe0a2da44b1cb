//! The reading side: tells the format, counts frames, and lends them out.

use std::io::Read;
use std::path::Path;

use super::pcap::Pcap;
use super::pcapng::PcapNg;
use super::source::Source;
use super::{Error, Format, Frame, LinkType};

/// The first bytes of things that are often taken for captures, and what to do about them.
const LOOKALIKES: [(&[u8], &str); 9] = [
    (&[0x1f, 0x8b], "gzip compressed: gunzip it first"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd compressed: unzstd it first"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz compressed: unxz it first"),
    (b"BZh", "bzip2 compressed: bunzip2 it first"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4 compressed: unlz4 it first"),
    (b"PK\x03\x04", "a zip archive: unzip it first"),
    (b"snoop\0\0\0", "a Solaris snoop capture: `editcap -F pcapng` converts it"),
    (&[0x34, 0xcd, 0xb2, 0xa1], "a pcap of a patched libpcap: `editcap -F pcapng` converts it"),
    (&[0xa1, 0xb2, 0xcd, 0x34], "a pcap of a patched libpcap: `editcap -F pcapng` converts it"),
];
const UNKNOWN: &str = "no capture; `editcap -F pcapng` converts many other formats";

/// How the numbers in a file, or in one section of it, are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    #[inline]
    pub(super) const fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    #[inline]
    pub(super) const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    /// The 16-bit number at `at`, which the caller has checked to lie within `bytes`.
    #[inline]
    pub(super) fn u16_at(self, bytes: &[u8], at: usize) -> u16 {
        self.u16([bytes[at], bytes[at + 1]])
    }

    /// The 32-bit number at `at`, which the caller has checked to lie within `bytes`.
    #[inline]
    pub(super) fn u32_at(self, bytes: &[u8], at: usize) -> u32 {
        self.u32([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }
}

/// A frame before its link type was looked at, by its place in the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) timestamp_ns: u64,
    pub(super) original_len: u32,
    /// Link type number as the file has it.
    pub(super) link: u32,
    pub(super) interface: u32,
    /// Where the captured bytes start in the source's buffer.
    pub(super) start: usize,
    pub(super) length: usize,
}

#[derive(Debug)]
enum Dialect {
    Pcap(Pcap),
    PcapNg(PcapNg),
    /// An error was reported: what follows it in the file is not to be trusted.
    Broken,
}

/// Reads a capture frame by frame, in the memory of one buffer.
///
/// ```no_run
/// # fn main() -> Result<(), onvm_lib::capture::Error> {
/// let mut reader = onvm_lib::capture::Reader::open("sample.pcap")?;
/// while let Some(frame) = reader.next_frame()? {
///     println!("{} ns: {} bytes", frame.timestamp_ns, frame.data.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reader {
    source: Source,
    dialect: Dialect,
    format: Format,
    frames: u64,
    /// The link type of the last frame, and the number it was made from: most captures have one only.
    last_link: (u32, Option<LinkType>),
    /// Frames of every link type are wanted.
    any_link: bool,
}

impl Reader {
    /// Opens a capture, or standard input for `-`, and reads its header.
    ///
    /// # Errors
    /// When it cannot be opened, is a directory or a terminal, is empty, is not a capture, or is cut
    /// within the header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_source(Source::open(path.as_ref())?)
    }

    /// Reads a capture from `stream`, which messages will call `name`. The reader has a large buffer of
    /// its own; none is needed around `stream`.
    ///
    /// # Errors
    /// As [`Reader::open`], from the header on.
    pub fn new(stream: impl Read + Send + 'static, name: &str) -> Result<Self, Error> {
        Self::from_source(Source::from_stream(Box::new(stream), name))
    }

    fn from_source(mut source: Source) -> Result<Self, Error> {
        let (dialect, format) = start(&mut source)?;
        Ok(Self { source, dialect, format, frames: 0, last_link: (u32::MAX, None), any_link: false })
    }

    /// Frames of every link type are wanted, for whoever only counts them: none is refused any more.
    pub const fn any_link_type(&mut self) {
        self.any_link = true;
        self.last_link = (u32::MAX, None);
    }

    fn link_type(&self, number: u32) -> Option<LinkType> {
        let known = LinkType::from_number(number);
        if self.any_link {
            return Some(known.unwrap_or_else(|| LinkType::Other(u16::try_from(number).unwrap_or(u16::MAX))));
        }
        known.filter(|link_type| link_type.is_carried())
    }

    /// The next frame, or `None` at the end of the capture.
    ///
    /// # Errors
    /// [`Error::Cut`] after the last whole frame of a file that ends too early, and other variants for
    /// other damage; after that there are no more frames, and asking again gives `None`. Only after
    /// [`Error::UnsupportedLinkType`] reading goes on, with the frame after the unsupported one.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Error> {
        let number = self.frames + 1;
        let record = match &mut self.dialect {
            Dialect::Pcap(pcap) => pcap.next(&mut self.source, number),
            Dialect::PcapNg(pcapng) => pcapng.next(&mut self.source, number),
            Dialect::Broken => Ok(None),
        };
        let record = match record {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.dialect = Dialect::Broken;
                return Err(error);
            }
        };
        self.frames = number;
        if record.link != self.last_link.0 {
            self.last_link = (record.link, self.link_type(record.link));
        }
        let Some(link_type) = self.last_link.1 else {
            return Err(self.unsupported(&record));
        };
        Ok(Some(Frame {
            timestamp_ns: record.timestamp_ns,
            original_len: record.original_len,
            link_type,
            interface: record.interface,
            data: self.source.taken(record.start, record.length),
        }))
    }

    /// Goes back to the first frame. A capture that fits into the buffer is not read again.
    ///
    /// # Errors
    /// [`Error::NotRewindable`] when the source is not a regular file.
    pub fn rewind(&mut self) -> Result<(), Error> {
        self.source.rewind()?;
        let (dialect, format) = start(&mut self.source)?;
        self.dialect = dialect;
        self.format = format;
        self.frames = 0;
        Ok(())
    }

    /// The format of the file, for a writer that is to keep it.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Frames read since the start or the last [`Reader::rewind`], unsupported ones included.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// What messages call the source: the path as given, or `standard input`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.source.name()
    }

    #[cold]
    fn unsupported(&self, record: &Record) -> Error {
        Error::UnsupportedLinkType {
            file: self.source.name().to_owned(),
            frame: self.frames,
            interface: record.interface,
            number: record.link,
            name: LinkType::name_of(record.link),
        }
    }
}

/// Tells the format by the first bytes and reads the file header.
fn start(source: &mut Source) -> Result<(Dialect, Format), Error> {
    let got = source.need(8)?;
    if got == 0 {
        return Err(Error::Empty { file: source.name().to_owned() });
    }
    let first = &source.ahead()[..got.min(8)];
    let Some(&magic) = first.first_chunk::<4>() else { return Err(not_a_capture(source.name(), first)) };
    if let Some((order, format)) = Pcap::recognises(magic) {
        return Ok((Dialect::Pcap(Pcap::start(source, order, format)?), format));
    }
    if PcapNg::recognises(magic) {
        return Ok((Dialect::PcapNg(PcapNg::start(source)?), Format::PcapNg));
    }
    Err(not_a_capture(source.name(), first))
}

fn not_a_capture(name: &str, first: &[u8]) -> Error {
    let known = LOOKALIKES.iter().find(|(magic, _)| first.starts_with(magic));
    let hint = known.map_or(UNKNOWN, |(_, hint)| hint);
    Error::NotACapture { file: name.to_owned(), first_bytes: first.to_vec(), hint }
}
