//! The writing side: pcap with micro- or nanoseconds, and pcapng.
//!
//! The layouts are drawn in `pcap` and `pcapng`; everything is written little-endian, which every reader
//! takes. A writer is used in this order: made, [`Writer::add_interface`] (at any time for pcapng, once for
//! pcap), frames, [`Writer::finish`]. A writer that is dropped without `finish` writes what it holds and
//! can only log an error.

use std::io::Write;
use std::path::Path;

use super::blocks::put_u32s;
use super::sink::Sink;
use super::{Error, Format, Frame, LinkType, MAX_CAPTURED, blocks};

const NS_PER_SECOND: u64 = 1_000_000_000;
/// What a message says was being written.
const HEADER: &str = "the file header";
const FRAME: &str = "frames";
const END: &str = "the last frames";

/// Writes a capture through a large buffer.
///
/// ```no_run
/// # fn main() -> Result<(), onvm_lib::capture::Error> {
/// use onvm_lib::capture::{Frame, LinkType, Writer};
///
/// let mut writer = Writer::create("out.pcapng")?;
/// let interface = writer.add_interface(LinkType::Ethernet, "port 0")?;
/// let data = &[0; 60];
/// let frame = Frame { timestamp_ns: 0, original_len: 60, link_type: LinkType::Ethernet, interface, data };
/// writer.write_frame(&frame)?;
/// writer.finish()
/// # }
/// ```
#[derive(Debug)]
pub struct Writer {
    sink: Sink,
    format: Format,
    /// Link types by interface.
    interfaces: Vec<LinkType>,
    frames: u64,
    finished: bool,
}

impl Writer {
    /// Makes or empties a file, or writes to standard output for `-`, in the format of [`Format::from_path`].
    ///
    /// # Errors
    /// When the file cannot be made, or standard output is a terminal.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let format = Format::from_path(path.as_ref());
        Self::create_as(path, format)
    }

    /// As [`Writer::create`], in this format whatever the name.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn create_as(path: impl AsRef<Path>, format: Format) -> Result<Self, Error> {
        Ok(Self::from_sink(Sink::create(path.as_ref())?, format))
    }

    /// Writes a capture to `output`, which messages will call `name`. The writer has a large buffer of its
    /// own; none is needed around `output`.
    #[must_use]
    pub fn new(output: impl Write + Send + 'static, name: &str, format: Format) -> Self {
        Self::from_sink(Sink::to_stream(Box::new(output), name), format)
    }

    const fn from_sink(sink: Sink, format: Format) -> Self {
        Self { sink, format, interfaces: Vec::new(), frames: 0, finished: false }
    }

    /// Adds an interface that frames can come from, and gives its number for [`Frame::interface`].
    ///
    /// A pcap file has one link type, no names, and no interfaces: the first call settles the link type,
    /// later calls with the same one give 0 again.
    ///
    /// # Errors
    /// [`Error::OneLinkType`] for a second link type in a pcap file; [`Error::CommentTooLong`] for a name
    /// beyond 65,535 bytes; and what a write can fail with.
    pub fn add_interface(&mut self, link_type: LinkType, name: &str) -> Result<u32, Error> {
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        match (self.format, self.interfaces.first()) {
            (Format::PcapNg, first) => {
                let is_first = first.is_none();
                self.check_text(name)?;
                let out = self.sink.record(HEADER)?;
                if is_first {
                    blocks::section(out);
                }
                blocks::interface(out, link_type, name);
            }
            (_, Some(&has)) if has == link_type => return Ok(0),
            (_, Some(&has)) => {
                let file = self.sink.name().to_owned();
                return Err(Error::OneLinkType { file, has, wanted: link_type });
            }
            (format, None) => pcap_header(self.sink.record(HEADER)?, format, link_type),
        }
        self.interfaces.push(link_type);
        Ok(number)
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// When its interface was not added or has another link type, when it is longer than
    /// [`MAX_CAPTURED`], when a pcap file cannot express its time, and when the output fails, possibly
    /// for frames before this one.
    #[inline]
    pub fn write_frame(&mut self, frame: &Frame<'_>) -> Result<(), Error> {
        let length = self.check(frame)?;
        match self.format {
            Format::PcapMicro => self.pcap_record(frame, length, 1000),
            Format::PcapNano => self.pcap_record(frame, length, 1),
            Format::PcapNg => self.pcapng_block(frame, ""),
        }
    }

    /// Writes a frame with a comment (`opt_comment`), which Wireshark shows above it.
    ///
    /// # Errors
    /// As [`Writer::write_frame`]; and [`Error::NoComments`] when the format is not pcapng,
    /// [`Error::CommentTooLong`] when it is beyond 65,535 bytes.
    pub fn write_commented(&mut self, frame: &Frame<'_>, comment: &str) -> Result<(), Error> {
        if self.format != Format::PcapNg {
            return Err(Error::NoComments { file: self.sink.name().to_owned() });
        }
        self.check(frame)?;
        self.check_text(comment)?;
        self.pcapng_block(frame, comment)
    }

    /// Writes out what has gathered in the buffer, for someone who reads along.
    ///
    /// # Errors
    /// When the output fails.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.sink.flush(FRAME)
    }

    /// Writes out the rest, and says whether all of it got there. Without a single interface the file is
    /// an empty capture of Ethernet.
    ///
    /// # Errors
    /// When the output fails, or has failed before.
    pub fn finish(mut self) -> Result<(), Error> {
        self.finished = true;
        if self.interfaces.is_empty() {
            self.add_interface(LinkType::Ethernet, "")?;
        }
        self.sink.flush(END)
    }

    /// Frames taken so far.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// The format being written.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// What messages call the output: the path as given, or `standard output`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.sink.name()
    }

    /// Whether the frame fits this file; gives its captured length.
    #[inline]
    fn check(&self, frame: &Frame<'_>) -> Result<u32, Error> {
        let length = match u32::try_from(frame.data.len()) {
            Ok(length) if length <= MAX_CAPTURED => length,
            _ => {
                let (file, length) = (self.sink.name().to_owned(), frame.data.len());
                return Err(Error::FrameTooLong { file, length, limit: MAX_CAPTURED });
            }
        };
        // pcap has one interface: the number that the frame came with means nothing there.
        let interface = if self.format == Format::PcapNg { frame.interface } else { 0 };
        match self.interfaces.get(interface as usize) {
            Some(&has) if has == frame.link_type => Ok(length),
            other => Err(self.stranger(interface, other.copied(), frame.link_type)),
        }
    }

    #[cold]
    fn stranger(&self, interface: u32, has: Option<LinkType>, wanted: LinkType) -> Error {
        let (file, interfaces) = (self.sink.name().to_owned(), self.interfaces.len());
        match has {
            Some(has) => Error::LinkTypeMismatch { file, interface, has, wanted },
            None => Error::NoInterface { file, interface, interfaces },
        }
    }

    fn check_text(&self, text: &str) -> Result<(), Error> {
        u16::try_from(text.len())
            .map(|_| ())
            .map_err(|_| Error::CommentTooLong { file: self.sink.name().to_owned(), length: text.len() })
    }

    #[inline]
    fn pcap_record(&mut self, frame: &Frame<'_>, length: u32, unit_ns: u64) -> Result<(), Error> {
        let Ok(seconds) = u32::try_from(frame.timestamp_ns / NS_PER_SECOND) else {
            let (file, timestamp_ns) = (self.sink.name().to_owned(), frame.timestamp_ns);
            return Err(Error::TimestampTooLate { file, timestamp_ns });
        };
        let fraction = (frame.timestamp_ns % NS_PER_SECOND / unit_ns) as u32;
        let out = self.sink.record(FRAME)?;
        let mut head = [0; 16];
        put_u32s(&mut head, [seconds, fraction, length, frame.original_len]);
        out.extend_from_slice(&head);
        out.extend_from_slice(frame.data);
        self.frames += 1;
        Ok(())
    }

    #[inline]
    fn pcapng_block(&mut self, frame: &Frame<'_>, comment: &str) -> Result<(), Error> {
        blocks::packet(self.sink.record(FRAME)?, frame, None, comment);
        self.frames += 1;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished
            && self.sink.is_dirty()
            && let Err(error) = self.sink.flush(END)
        {
            log::error!("{error}");
        }
    }
}

fn pcap_header(out: &mut Vec<u8>, format: Format, link_type: LinkType) {
    let magic: u32 = if format == Format::PcapMicro { 0xa1b2_c3d4 } else { 0xa1b2_3c4d };
    // Version 2.4 is two 16-bit numbers, here as one of 32 bits: the major one comes first in the file.
    let version = 4 << 16 | 2;
    let mut header = [0; 24];
    put_u32s(&mut header, [magic, version, 0, 0, MAX_CAPTURED, u32::from(link_type.number())]);
    out.extend_from_slice(&header);
}
