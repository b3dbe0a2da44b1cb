//! How long a frame takes to read and to write, beside the `pcap-file` crate (the version that the
//! workspace depends on) over the same bytes. `cargo bench -p onvm-lib --bench capture`
//!
//! Prints nanoseconds per frame, the best of several rounds over a file in the page cache, and the ratio
//! (above 1: ours is faster). Allocations and correctness are the tests' business.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use onvm_lib::capture::{Format, Frame, LinkType, Reader, Writer};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, TsResolution};

const ROUNDS: usize = 7;
/// Bytes of frames in a test file: far more than any cache, so that the copy out of the kernel counts.
const FILE_BYTES: usize = 64 << 20;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    println!("{:<28}{:>10}{:>12}{:>8}", "", "ns/frame", "pcap-file", "ratio");
    for length in [64, 256, 1514] {
        let frames = FILE_BYTES / length;
        let data: Vec<u8> = (0..=255).cycle().take(length).collect();
        for (format, name) in [(Format::PcapNano, "pcap"), (Format::PcapNg, "pcapng")] {
            let path = folder.path().join("bench");
            write_ours(Box::new(File::create(&path).expect("a test file")), format, &data, frames);
            let theirs: fn(&Path) -> usize =
                if format == Format::PcapNg { read_theirs_ng } else { read_theirs };
            row(
                &format!("read {name} {length} B"),
                frames,
                || assert_eq!(read_ours(&path), frames),
                || assert_eq!(theirs(&path), frames),
            );
            let theirs: fn(&[u8], usize) =
                if format == Format::PcapNg { write_theirs_ng } else { write_theirs };
            row(
                &format!("write {name} {length} B"),
                frames,
                || write_ours(Box::new(io::sink()), format, &data, frames),
                || theirs(&data, frames),
            );
        }
    }
}

/// Measures both by turns, so that a busy machine is busy for both.
fn row(what: &str, frames: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
    let (mut our_best, mut their_best) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        our_best = our_best.min(timed(&mut ours));
        their_best = their_best.min(timed(&mut theirs));
    }
    let per_frame = |took: Duration| took.as_secs_f64() * 1e9 / frames as f64;
    let (ours, theirs) = (per_frame(our_best), per_frame(their_best));
    println!("{what:<28}{ours:>10.1}{theirs:>12.1}{:>8.2}", theirs / ours);
}

fn timed(run: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn read_ours(path: &Path) -> usize {
    let mut reader = Reader::open(path).expect("a capture");
    let mut frames = 0;
    while let Some(frame) = reader.next_frame().expect("a frame") {
        black_box((frame.timestamp_ns, frame.data.first()));
        frames += 1;
    }
    frames
}

fn read_theirs(path: &Path) -> usize {
    let mut reader = PcapReader::new(File::open(path).expect("a capture")).expect("a header");
    let mut frames = 0;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a frame");
        black_box((packet.timestamp, packet.data.first()));
        frames += 1;
    }
    frames
}

fn read_theirs_ng(path: &Path) -> usize {
    let mut reader = PcapNgReader::new(File::open(path).expect("a capture")).expect("a header");
    let mut frames = 0;
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("a block") {
            black_box((packet.timestamp, packet.data.first()));
            frames += 1;
        }
    }
    frames
}

fn write_ours(output: Box<dyn Write + Send>, format: Format, data: &[u8], frames: usize) {
    let mut writer = Writer::new(output, "bench", format);
    let interface = writer.add_interface(LinkType::Ethernet, "").expect("an interface");
    let original_len = u32::try_from(data.len()).expect("a short frame");
    for number in 0..frames {
        let timestamp_ns = 1_700_000_000_000_000_000 + number as u64 * 1001;
        let link_type = LinkType::Ethernet;
        let frame = Frame { timestamp_ns, original_len, link_type, interface, data: black_box(data) };
        writer.write_frame(&frame).expect("room");
    }
    writer.finish().expect("room");
}

/// A buffer of the size of ours: the crate leaves buffering to its user.
fn buffered() -> io::BufWriter<Box<dyn Write>> {
    io::BufWriter::with_capacity(256 * 1024, Box::new(io::sink()))
}

fn write_theirs(data: &[u8], frames: usize) {
    let header = PcapHeader { ts_resolution: TsResolution::NanoSecond, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(buffered(), header).expect("a header");
    let original_len = u32::try_from(data.len()).expect("a short frame");
    for number in 0..frames {
        let at = Duration::from_nanos(1_700_000_000_000_000_000 + number as u64 * 1001);
        writer.write_packet(&PcapPacket::new(at, original_len, black_box(data))).expect("room");
    }
}

fn write_theirs_ng(data: &[u8], frames: usize) {
    let mut writer = PcapNgWriter::new(buffered()).expect("a header");
    let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options: vec![] };
    writer.write_block(&interface.into_block()).expect("room");
    let original_len = u32::try_from(data.len()).expect("a short frame");
    for number in 0..frames {
        let timestamp = Duration::from_nanos(1_700_000_000_000_000_000 + number as u64 * 1001);
        let data = black_box(data).into();
        let block = EnhancedPacketBlock { interface_id: 0, timestamp, original_len, data, options: vec![] };
        writer.write_block(&block.into_block()).expect("room");
    }
}
