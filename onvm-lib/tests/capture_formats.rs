//! What the reader makes of the formats' rarer corners, byte by byte; and what the writer makes.

mod capture_made;

use std::io;
use std::sync::{Arc, Mutex};

use capture_made::{BIG, Kept, LITTLE, drain, pcap, pcap_record, pcapng};
use onvm_lib::capture::{Error, Format, Frame, LinkType, MAX_CAPTURED, Reader, Writer};
use proptest::prelude::*;

fn read(bytes: Vec<u8>) -> Vec<Kept> {
    let (frames, error) = drain(Reader::new(io::Cursor::new(bytes), "test").expect("a header"));
    assert!(error.is_none(), "{error:?}");
    frames
}

/// Keeps what is written where the test can see it.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while writing").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Memory {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no panic while writing").clone()
    }
}

#[test]
fn pcap_in_either_order_and_resolution() {
    for order in [LITTLE, BIG] {
        for (magic, unit) in [(0xa1b2_c3d4, 1000), (0xa1b2_3c4d, 1)] {
            // The link type with a frame check sequence length in its upper bits, as some taps write it.
            let mut file = pcap(order, magic, 0x1400_0001);
            file.extend(pcap_record(order, 1_700_000_000, 999_999, b"frame", 1500));
            file.extend(pcap_record(order, 0, 0, &[1; 200], 200)); // longer than the header's snap length
            let frames = read(file);
            assert_eq!(frames[0].timestamp_ns, 1_700_000_000_000_000_000 + 999_999 * unit);
            assert_eq!((frames[0].original_len, &frames[0].data[..]), (1500, &b"frame"[..]));
            assert_eq!(frames[0].link_type, LinkType::Ethernet);
            assert_eq!(frames[1].data.len(), 200);
        }
    }
}

/// Code and value of an option of an interface.
type InterfaceOption = (u16, Vec<u8>);

#[test]
fn pcapng_time_has_its_own_unit_and_zero_by_interface() {
    let second = 1_000_000_000_u64;
    let cases: [(&[InterfaceOption], u64, u64); 9] = [
        (&[], 5_000_001, 5 * second + 1000),
        (&[(9, vec![0])], 7, 7 * second),
        (&[(9, vec![9])], 12_345, 12_345),
        (&[(9, vec![12])], 12_345_999, 12_345),
        (&[(9, vec![0x80 | 10])], 1024 * 3 + 512, 3 * second + second / 2),
        (&[(9, vec![0x80 | 32])], (9 << 32) | (1 << 31), 9 * second + second / 2),
        (&[(9, vec![127])], u64::MAX, 1), // a quotient of nothing, held at what 64 bits can divide by
        (&[(9, vec![0])], u64::MAX, u64::MAX),
        (&[(2, b"eth0\0".to_vec()), (9, vec![3]), (0, vec![]), (9, vec![9])], 1, 1_000_000),
    ];
    for order in [LITTLE, BIG] {
        for (options, time, expected) in &cases {
            let mut made = pcapng(order);
            made.interface(1, 0, options).enhanced(0, *time, b"x", 1).obsolete(0, *time, b"y", 1);
            let frames = read(made.bytes);
            assert_eq!(frames[0].timestamp_ns, *expected, "{options:?} {time}");
            assert_eq!(frames[1].timestamp_ns, *expected, "{options:?} {time}");
        }
        for (offset, expected) in [(100_i64, 102 * second), (-1, second), (-3, 0), (i64::MAX, u64::MAX / 2)] {
            let bytes = if order == BIG { offset.to_be_bytes() } else { offset.to_le_bytes() };
            let mut made = pcapng(order);
            made.interface(1, 0, &[(14, bytes.to_vec())]).enhanced(0, 2_000_000, b"x", 1);
            let time = read(made.bytes)[0].timestamp_ns;
            if offset == i64::MAX { assert!(time >= expected) } else { assert_eq!(time, expected) }
        }
    }
}

#[test]
fn pcapng_of_several_interfaces_sections_and_strange_blocks() {
    let mut made = pcapng(LITTLE);
    made.interface(1, 3, &[]).block(0x0bad_b10c, &[9; 1_000_000]).interface(113, 0, &[(9, vec![9])]);
    made.simple(b"abc", 60).enhanced(1, 5, b"cooked", 6).obsolete(0, 1, b"old", 64);
    made.block(5, &[0; 12]).section(BIG).interface(101, 0, &[]).simple(b"E...", 4).enhanced(0, 2, b"", 0);
    let frames: Vec<_> = read(made.bytes)
        .into_iter()
        .map(|f| (f.timestamp_ns, f.original_len, f.link_type, f.interface, f.data))
        .collect();
    let expected = [
        (0, 60, LinkType::Ethernet, 0, b"abc".to_vec()),
        (5, 6, LinkType::LinuxSll, 1, b"cooked".to_vec()),
        (1000, 64, LinkType::Ethernet, 0, b"old".to_vec()),
        (0, 4, LinkType::RawIp, 0, b"E...".to_vec()),
        (2000, 0, LinkType::RawIp, 0, vec![]),
    ];
    assert_eq!(frames, expected);
}

#[test]
fn the_largest_frame_passes_and_one_byte_more_does_not() {
    let data = vec![5; MAX_CAPTURED as usize + 1];
    for format in [Format::PcapMicro, Format::PcapNano, Format::PcapNg] {
        let memory = Memory::default();
        let mut writer = Writer::new(memory.clone(), "test", format);
        let interface = writer.add_interface(LinkType::Ethernet, "").unwrap();
        let link_type = LinkType::Ethernet;
        let mut frame =
            Frame { timestamp_ns: 1000, original_len: 300_000, link_type, interface, data: &data };
        assert!(matches!(writer.write_frame(&frame), Err(Error::FrameTooLong { length: 262_145, .. })));
        frame.data = &data[1..];
        for _ in 0..3 {
            writer.write_frame(&frame).unwrap();
        }
        assert_eq!(writer.frames(), 3);
        writer.finish().unwrap();
        let frames = read(memory.bytes());
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2], Kept::from(&frame));
    }
}

#[test]
fn the_bytes_written_are_those_of_the_formats() {
    let memory = Memory::default();
    let mut writer = Writer::new(memory.clone(), "test", Format::PcapNano);
    writer.add_interface(LinkType::Ethernet, "ignored").unwrap();
    let (link_type, data) = (LinkType::Ethernet, &b"hello"[..]);
    let frame = Frame { timestamp_ns: 2_000_000_003, original_len: 64, link_type, interface: 9, data };
    writer.write_frame(&frame).unwrap();
    writer.finish().unwrap();
    let header = b"\x4d\x3c\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0";
    let record = b"\x02\0\0\0\x03\0\0\0\x05\0\0\0\x40\0\0\0hello";
    assert_eq!(memory.bytes(), [&header[..], record].concat());

    let memory = Memory::default();
    let mut writer = Writer::new(memory.clone(), "test", Format::PcapNg);
    writer.add_interface(LinkType::RawIp, "if").unwrap();
    writer.write_commented(&Frame { link_type: LinkType::RawIp, interface: 0, ..frame }, "why").unwrap();
    writer.finish().unwrap();
    let section = b"\x0a\x0d\x0d\x0a\x2c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
        \x04\0\x08\0onvm-lib\0\0\0\0\x2c\0\0\0";
    let interface = b"\x01\0\0\0\x28\0\0\0\x65\0\0\0\0\0\x04\0\x02\0\x02\0if\0\0\x09\0\x01\0\x09\0\0\0\
        \0\0\0\0\x28\0\0\0";
    let packet = b"\x06\0\0\0\x34\0\0\0\0\0\0\0\0\0\0\0\x03\x94\x35\x77\x05\0\0\0\x40\0\0\0hello\0\0\0\
        \x01\0\x03\0why\0\0\0\0\0\x34\0\0\0";
    assert_eq!(memory.bytes(), [&section[..], interface, packet].concat());
}

#[test]
fn what_a_format_cannot_hold_is_refused() {
    let memory = Memory::default();
    let mut writer = Writer::new(memory.clone(), "out.pcap", Format::PcapNano);
    let (link_type, data) = (LinkType::Ethernet, &[0; 60][..]);
    let frame = Frame { timestamp_ns: 0, original_len: 60, link_type, interface: 0, data };
    assert!(matches!(writer.write_frame(&frame), Err(Error::NoInterface { interfaces: 0, .. })));
    assert_eq!(writer.add_interface(LinkType::Ethernet, "a").unwrap(), 0);
    assert_eq!(writer.add_interface(LinkType::Ethernet, "b").unwrap(), 0);
    let error = writer.add_interface(LinkType::RawIp, "c").unwrap_err();
    assert!(error.to_string().contains("write .pcapng instead"), "{error}");
    assert!(matches!(writer.write_commented(&frame, "why"), Err(Error::NoComments { .. })));
    let raw = Frame { link_type: LinkType::RawIp, ..frame };
    assert!(matches!(writer.write_frame(&raw), Err(Error::LinkTypeMismatch { .. })));
    let late = Frame { timestamp_ns: (u64::from(u32::MAX) + 1) * 1_000_000_000, ..frame };
    assert!(matches!(writer.write_frame(&late), Err(Error::TimestampTooLate { .. })));
    writer.finish().unwrap();
    assert_eq!(read(memory.bytes()), [], "what was refused must leave no trace");

    let mut writer = Writer::new(Memory::default(), "out.pcapng", Format::PcapNg);
    writer.add_interface(LinkType::Ethernet, "").unwrap();
    assert!(matches!(
        writer.write_commented(&frame, &"x".repeat(65_536)),
        Err(Error::CommentTooLong { length: 65_536, .. })
    ));
    writer.write_commented(&frame, &"x".repeat(65_535)).unwrap();
}

#[test]
fn an_output_that_fails_is_reported_once_with_its_cause() {
    let (link_type, data) = (LinkType::Ethernet, &[0; 1000][..]);
    let frame = Frame { timestamp_ns: 0, original_len: 60, link_type, interface: 0, data };
    // A disk that is full, noticed at the end and on the way.
    let mut writer = Writer::create("/dev/full").unwrap();
    writer.add_interface(LinkType::Ethernet, "").unwrap();
    let error = writer.finish().unwrap_err();
    assert!(
        error.to_string().starts_with("/dev/full: writing the last frames failed after 0 bytes: No space")
    );
    let mut writer = Writer::create("/dev/full").unwrap();
    writer.add_interface(LinkType::Ethernet, "").unwrap();
    let error = (0..1000).find_map(|_| writer.write_frame(&frame).err()).expect("the buffer is smaller");
    assert!(matches!(&error, Error::Write { what: "frames", .. }), "{error}");
    assert!(!error.is_broken_pipe());
    assert!(matches!(writer.write_frame(&frame), Err(Error::WriterFailed { .. })));
    assert!(matches!(writer.finish(), Err(Error::WriterFailed { .. })));

    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    let writer = Writer::new(pipe, "pipe", Format::PcapNg);
    assert!(writer.finish().unwrap_err().is_broken_pipe());

    let folder = tempfile::tempdir().unwrap();
    let error = Writer::create(folder.path().join("no/such/folder.pcap")).unwrap_err();
    assert!(error.to_string().contains("folder.pcap: cannot write there: No such file"), "{error}");
}

#[test]
fn the_name_chooses_the_format_and_a_dropped_writer_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in
        [("a.pcapng", Format::PcapNg), ("a.PcapNG", Format::PcapNg), ("a.pcap", Format::PcapNano)]
    {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path).unwrap();
        let (link_type, data) = (LinkType::LinuxSll2, &b"x"[..]);
        let interface = writer.add_interface(link_type, "").unwrap();
        writer.write_frame(&Frame { timestamp_ns: 1, original_len: 1, link_type, interface, data }).unwrap();
        drop(writer);
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.format(), format);
        assert_eq!(drain(reader).0.len(), 1);
    }
}

fn frames() -> impl Strategy<Value = Vec<Kept>> {
    let one = (
        0..u64::from(u32::MAX) * 1_000_000_000,
        any::<u32>(),
        0..3_u32,
        prop::collection::vec(any::<u8>(), 0..200),
    );
    let kept = one.prop_map(|(timestamp_ns, original_len, interface, data)| {
        let link_type = [LinkType::Ethernet, LinkType::RawIpv6, LinkType::LinuxSll2][interface as usize];
        Kept { timestamp_ns, original_len, link_type, interface, data }
    });
    prop::collection::vec(kept, 0..40)
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(frames in frames(), comments in any::<bool>()) {
        let memory = Memory::default();
        let mut writer = Writer::new(memory.clone(), "test", Format::PcapNg);
        for link_type in [LinkType::Ethernet, LinkType::RawIpv6, LinkType::LinuxSll2] {
            writer.add_interface(link_type, "eth").unwrap();
        }
        for frame in &frames {
            if comments {
                writer.write_commented(&frame.frame(), &"c".repeat(frame.data.len())).unwrap();
            } else {
                writer.write_frame(&frame.frame()).unwrap();
            }
        }
        writer.finish().unwrap();
        prop_assert_eq!(read(memory.bytes()), frames);
    }

    #[test]
    fn what_is_written_as_pcap_is_read_again(frames in frames(), nano in any::<bool>()) {
        let (format, unit) = if nano { (Format::PcapNano, 1) } else { (Format::PcapMicro, 1000) };
        let memory = Memory::default();
        let mut writer = Writer::new(memory.clone(), "test", format);
        writer.add_interface(LinkType::RawIpv4, "").unwrap();
        let mut expected = frames;
        for frame in &mut expected {
            frame.link_type = LinkType::RawIpv4;
            writer.write_frame(&frame.frame()).unwrap();
            frame.interface = 0;
            frame.timestamp_ns -= frame.timestamp_ns % unit;
        }
        writer.finish().unwrap();
        prop_assert_eq!(read(memory.bytes()), expected);
    }
}
