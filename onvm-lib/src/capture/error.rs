//! What can be wrong with a capture file, each with the place and the way out.

use std::fmt;
use std::io;

use super::LinkType;

/// Why a capture could not be read or written. `file` is the path as the user gave it, or
/// `standard input` / `standard output`; `frame` counts from 1; `offset` is in bytes from the start.
#[derive(Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are explained once, above and in each variant")]
pub enum Error {
    /// The file could not be opened: missing, no permission, or the like.
    Open { file: String, source: io::Error },
    /// The path is a directory.
    Directory { file: String },
    /// Standard input or output is a terminal: nobody types a capture, nor reads one.
    Terminal { file: String },
    /// Reading failed after the file was opened.
    Read { file: String, offset: u64, source: io::Error },
    /// There is not one byte in it.
    Empty { file: String },
    /// The first bytes belong to no capture format. `hint` says what they look like.
    NotACapture { file: String, first_bytes: Vec<u8>, hint: &'static str },
    /// The file ends within its own header.
    CutHeader { file: String, wanted: usize, got: usize },
    /// The header names a version of the format that this reader does not know.
    Version { file: String, offset: u64, major: u16, minor: u16 },
    /// The file ends within a record that starts at `offset`: of its `wanted` bytes, `got` are there. All
    /// frames before `frame` were delivered.
    Cut { file: String, frame: u64, offset: u64, wanted: u64, got: u64 },
    /// A captured length that no capture program writes: the bytes at `offset` are not a record.
    Oversized { file: String, frame: u64, offset: u64, captured: u32, limit: u32 },
    /// A pcapng block contradicts itself.
    BadBlock { file: String, frame: u64, offset: u64, block: u32, fault: BlockFault },
    /// The frame comes from an interface whose link type is none that is carried
    /// ([`LinkType::is_carried`](super::LinkType::is_carried)). Reading can go on: the next call has the frame after it.
    UnsupportedLinkType { file: String, frame: u64, interface: u32, number: u32, name: String },
    /// The source cannot be read a second time.
    NotRewindable { file: String },
    /// The file to write to could not be made.
    Create { file: String, source: io::Error },
    /// Writing failed; `what` says what was being written, `written` how many bytes had gone out before.
    Write { file: String, what: &'static str, written: u64, source: io::Error },
    /// An earlier write failed and was reported; what follows would leave a hole in the file.
    WriterFailed { file: String },
    /// The frame is longer than a capture may hold.
    FrameTooLong { file: String, length: usize, limit: u32 },
    /// The timestamp is later than the format's 32 bits of seconds (7 February 2106).
    TimestampTooLate { file: String, timestamp_ns: u64 },
    /// A pcap file has no comments.
    NoComments { file: String },
    /// The comment is longer than the option's 16 bits of length.
    CommentTooLong { file: String, length: usize },
    /// A pcap file has one link type for all frames.
    OneLinkType { file: String, has: LinkType, wanted: LinkType },
    /// The frame names an interface that was not added to the writer.
    NoInterface { file: String, interface: u32, interfaces: usize },
    /// The frame's link type is not that of the interface it names.
    LinkTypeMismatch { file: String, interface: u32, has: LinkType, wanted: LinkType },
}

/// The contradiction in a pcapng block, for [`Error::BadBlock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant explains its fields; all in bytes unless it says otherwise")]
pub enum BlockFault {
    /// The total length is less than `least` or no multiple of 4.
    Length { length: u32, least: u32 },
    /// The total length is beyond what a block of this type may have.
    TooLong { length: u32, limit: u32 },
    /// The length at the end of the block is not the one at its start.
    Trailer { length: u32, trailer: u32 },
    /// A section header's byte-order magic is not `1a2b3c4d` either way round.
    ByteOrder { magic: u32 },
    /// The captured length does not fit into the block.
    Captured { captured: u32, room: u32 },
    /// The block names an interface that the section has not described.
    Interface { interface: u32, interfaces: usize },
    /// The section describes more interfaces than `limit`.
    TooManyInterfaces { limit: usize },
}

impl Error {
    /// Whether the file only ends too early, and every frame before the cut was delivered.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        matches!(self, Self::Cut { .. })
    }

    /// Whether the reader of our output went away (`| head`), which many programs take for a normal end.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. }
            | Self::Read { source, .. }
            | Self::Create { source, .. }
            | Self::Write { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { .. }
            | Self::Write { .. }
            | Self::WriterFailed { .. }
            | Self::FrameTooLong { .. }
            | Self::TimestampTooLate { .. }
            | Self::NoComments { .. }
            | Self::CommentTooLong { .. }
            | Self::OneLinkType { .. }
            | Self::NoInterface { .. }
            | Self::LinkTypeMismatch { .. } => self.write_side(f),
            Self::Version { .. }
            | Self::Cut { .. }
            | Self::Oversized { .. }
            | Self::BadBlock { .. }
            | Self::UnsupportedLinkType { .. } => self.content_side(f),
            _ => self.source_side(f),
        }
    }
}

impl Error {
    /// Messages about getting at the bytes.
    fn source_side(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { file, source } => write!(f, "{file}: cannot open: {source}"),
            Self::Directory { file } => write!(f, "{file}: is a directory; name a capture file in it"),
            Self::Terminal { file } => {
                write!(f, "{file}: is a terminal; pipe a capture through it or name a file")
            }
            Self::Read { file, offset, source } => {
                write!(f, "{file}: reading at byte {offset} failed: {source}")
            }
            Self::Empty { file } => {
                write!(f, "{file}: is empty; a capture has at least a header of 24 bytes")
            }
            Self::NotACapture { file, first_bytes, hint } => {
                write!(f, "{file}: neither pcap nor pcapng, starts with bytes")?;
                for byte in first_bytes {
                    write!(f, " {byte:02x}")?;
                }
                write!(f, ": {hint}")
            }
            Self::CutHeader { file, wanted, got } => {
                write!(f, "{file}: cut within the file header: {got} of {wanted} bytes are there")
            }
            Self::NotRewindable { file } => {
                write!(f, "{file}: cannot be read again from its start; looped replay needs a regular file")
            }
            // All others have their own room; a new variant without a message shows itself here.
            other => write!(f, "{other:?}"),
        }
    }

    /// Messages about what the bytes say.
    fn content_side(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { file, offset, major, minor } => write!(
                f,
                "{file}: byte {offset}: version {major}.{minor} is not known (pcap 2.x, pcapng 1.x); \
                 convert it with `editcap`"
            ),
            Self::Cut { file, frame, offset, wanted, got } => write!(
                f,
                "{file}: cut before the end of frame {frame}: the record at byte {offset} needs {wanted} bytes, \
                 the file has {got}; the {} frames before it are whole",
                frame - 1
            ),
            Self::Oversized { file, frame, offset, captured, limit } => write!(
                f,
                "{file}: frame {frame}, byte {offset}: captured length {captured} is out of range 0..={limit}; \
                 the file is damaged from here on, `editcap -r` can keep frames 1-{}",
                frame - 1
            ),
            Self::BadBlock { file, frame, offset, block, fault } => write!(
                f,
                "{file}: before or in frame {frame}, byte {offset}: pcapng block type {block:#x}: {fault}; \
                 the file is damaged from here on"
            ),
            Self::UnsupportedLinkType { file, frame, interface, number, name } => write!(
                f,
                "{file}: frame {frame}: interface {interface} has link type {number} ({name}); supported are \
                 Ethernet 1, raw IP 12, 101, 228, 229, Linux cooked 113, 276"
            ),
            other => other.source_side(f),
        }
    }

    /// Messages about writing.
    fn write_side(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { file, source } => write!(f, "{file}: cannot write there: {source}"),
            Self::Write { file, what, written, source } => {
                write!(f, "{file}: writing {what} failed after {written} bytes: {source}")
            }
            Self::WriterFailed { file } => {
                write!(f, "{file}: not written any further, an earlier write had failed")
            }
            Self::FrameTooLong { file, length, limit } => {
                write!(f, "{file}: frame of {length} bytes is longer than a capture's {limit}")
            }
            Self::TimestampTooLate { file, timestamp_ns } => write!(
                f,
                "{file}: timestamp {timestamp_ns} ns is beyond pcap's last second {}; write .pcapng instead",
                u32::MAX
            ),
            Self::NoComments { file } => {
                write!(f, "{file}: a pcap file holds no comments; write .pcapng instead")
            }
            Self::CommentTooLong { file, length } => {
                write!(f, "{file}: comment of {length} bytes is out of range 0..={}", u16::MAX)
            }
            Self::OneLinkType { file, has, wanted } => write!(
                f,
                "{file}: a pcap file has one link type, this one {has}, and {wanted} is to be added; \
                 write .pcapng instead"
            ),
            Self::NoInterface { file, interface, interfaces } => {
                write!(f, "{file}: frame of interface {interface}, but only {interfaces} were added")
            }
            Self::LinkTypeMismatch { file, interface, has, wanted } => {
                write!(f, "{file}: frame of link type {wanted} for interface {interface}, which has {has}")
            }
            other => other.source_side(f),
        }
    }
}

impl fmt::Display for BlockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { length, least } => {
                write!(f, "total length {length} is not a multiple of 4 from {least} upwards")
            }
            Self::TooLong { length, limit } => {
                write!(f, "total length {length} is out of range 0..={limit}")
            }
            Self::Trailer { length, trailer } => {
                write!(f, "total length is {length} at its start and {trailer} at its end")
            }
            Self::ByteOrder { magic } => {
                write!(f, "byte-order magic {magic:08x} is neither 1a2b3c4d nor 4d3c2b1a")
            }
            Self::Captured { captured, room } => {
                write!(f, "captured length {captured} is more than the {room} bytes of the block")
            }
            Self::Interface { interface, interfaces } => {
                write!(f, "interface {interface} of {interfaces} described so far")
            }
            Self::TooManyInterfaces { limit } => write!(f, "more than {limit} interfaces in one section"),
        }
    }
}
