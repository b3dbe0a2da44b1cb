//! tshark judges the reader and the writer: number of frames, lengths, times, interfaces, and a hash of the
//! bytes, over the project's own capture and, where they are at hand, captures made by others
//! (`ONVM_TEST_DATA`, else `../shared/data` from the workspace).
//!
//! Without tshark the tests say so and pass, unless `CI` is set.

mod capture_made;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use capture_made::{Kept, drain};
use onvm_lib::capture::{Error, Format, LinkType, Reader, Writer};

/// A frame as tshark tells it.
#[derive(Debug, PartialEq)]
struct Told {
    timestamp_ns: u64,
    original_len: u32,
    captured_len: usize,
    interface: u32,
    md5: String,
}

impl From<&Kept> for Told {
    fn from(frame: &Kept) -> Self {
        Self {
            timestamp_ns: frame.timestamp_ns,
            original_len: frame.original_len,
            captured_len: frame.data.len(),
            interface: frame.interface,
            md5: format!("{:x}", md5::compute(&frame.data)),
        }
    }
}

fn has_tshark() -> bool {
    let there = Command::new("tshark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if there.is_ok() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "tshark is missing: apt-get install tshark");
    eprintln!("SKIPPED: tshark is missing, captures are not judged (apt-get install tshark)");
    false
}

/// What tshark reads in a file, `None` when it cannot read the link type itself.
fn ask(path: &Path) -> Option<Vec<Told>> {
    let fields = ["time_epoch", "len", "cap_len", "interface_id", "md5_hash"];
    let output = Command::new("tshark")
        .args(["-n", "-o", "frame.generate_md5_hash:TRUE", "-T", "fields", "-r"])
        .arg(path)
        .args(fields.iter().flat_map(|field| ["-e".to_owned(), format!("frame.{field}")]))
        .output()
        .expect("tshark runs");
    if String::from_utf8_lossy(&output.stderr).contains("that TShark doesn't support") {
        return None;
    }
    let text = String::from_utf8(output.stdout).expect("numbers");
    Some(text.lines().map(told).collect())
}

fn told(line: &str) -> Told {
    let fields: Vec<&str> = line.split('\t').collect();
    let &[time, original, captured, interface, md5] = &fields[..] else { panic!("tshark says {line:?}") };
    let (seconds, fraction) = time.split_once('.').unwrap_or(("0", "0"));
    let number = |text: &str| if text.is_empty() { 0 } else { text.parse::<u64>().expect(line) };
    Told {
        timestamp_ns: number(seconds) * 1_000_000_000 + number(fraction),
        original_len: u32::try_from(number(original)).expect("a length"),
        captured_len: usize::try_from(number(captured)).expect("a length"),
        interface: u32::try_from(number(interface)).expect("an interface"),
        md5: if md5.is_empty() { format!("{:x}", md5::compute(b"")) } else { md5.to_owned() },
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn own_capture() -> PathBuf {
    workspace().join("tests/data/sample.pcap")
}

/// The folder of others' captures, if it is there.
fn foreign_folder() -> Option<PathBuf> {
    let data =
        env::var_os("ONVM_TEST_DATA").map_or_else(|| workspace().join("../shared/data"), PathBuf::from);
    let folder = data.join("pcaps");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no captures in {}; set ONVM_TEST_DATA to read them", folder.display());
    None
}

/// All captures below a folder, in order.
fn captures(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(captures(&path));
        } else if path.extension().is_some_and(|name| name != "csv") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Reads a capture and compares it with tshark; gives its frames, none when its link type is unsupported.
fn judge_reading(path: &Path) -> Vec<Kept> {
    let (frames, error) = drain(Reader::open(path).expect("a capture"));
    match error {
        Some(Error::UnsupportedLinkType { number, name, .. }) => {
            assert!(LinkType::from_number(number).is_none_or(|known| !known.is_carried()));
            assert_ne!(name, "unassigned", "{}: {number}", path.display());
            return Vec::new();
        }
        Some(error) => panic!("{error}"),
        None => {}
    }
    let told = ask(path).unwrap_or_else(|| panic!("{}: tshark cannot read it", path.display()));
    assert_eq!(frames.len(), told.len(), "{}", path.display());
    for (number, (ours, theirs)) in frames.iter().map(Told::from).zip(told).enumerate() {
        assert_eq!(ours, theirs, "{}: frame {}", path.display(), number + 1);
    }
    frames
}

#[test]
fn others_captures_read_as_tshark_reads_them_and_are_written_so_that_it_can() {
    if !has_tshark() {
        return;
    }
    let mut frames = judge_reading(&own_capture());
    let mut foreign = 0;
    let mut refused = 0;
    if let Some(folder) = foreign_folder() {
        for path in captures(&folder) {
            let read = judge_reading(&path);
            refused += usize::from(read.is_empty());
            foreign += 1;
            frames.extend(read);
        }
    }
    println!(
        "{foreign} captures by others, {refused} of them of unsupported link types; {} frames",
        frames.len()
    );
    judge_writing(frames);
}

/// Writes all frames, in each format and link type, and lets tshark read them.
fn judge_writing(frames: Vec<Kept>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut by_link = BTreeMap::<u16, Vec<Kept>>::new();
    for frame in frames {
        by_link.entry(frame.link_type.number()).or_default().push(frame);
    }
    let path = folder.path().join("all.pcapng");
    let mut all = Writer::create(&path).expect("a file");
    let mut expected = Vec::new();
    for frames in by_link.values_mut() {
        let interface = all.add_interface(frames[0].link_type, "some0").expect("room");
        for frame in &mut *frames {
            frame.interface = interface;
            all.write_commented(&frame.frame(), "a comment").expect("room");
            expected.push(Told::from(&*frame));
        }
    }
    all.finish().expect("room");
    assert!(ask(&path).expect("a known link type") == expected, "pcapng differs");

    for (format, unit) in [(Format::PcapMicro, 1000), (Format::PcapNano, 1)] {
        for frames in by_link.values() {
            let path = folder.path().join("some.pcap");
            let mut writer = Writer::create_as(&path, format).expect("a file");
            writer.add_interface(frames[0].link_type, "").expect("room");
            let mut expected = Vec::new();
            for frame in frames {
                match writer.write_frame(&frame.frame()) {
                    Ok(()) => {}
                    Err(Error::TimestampTooLate { .. }) => continue,
                    Err(error) => panic!("{error}"),
                }
                let timestamp_ns = frame.timestamp_ns - frame.timestamp_ns % unit;
                expected.push(Told { timestamp_ns, interface: 0, ..Told::from(frame) });
            }
            writer.finish().expect("room");
            assert!(ask(&path).expect("a known link type") == expected, "{format:?} differs");
        }
    }
}

#[test]
fn the_own_capture_has_what_it_should() {
    let (frames, error) = drain(Reader::open(own_capture()).expect("tests/data/sample.pcap"));
    assert!(error.is_none());
    assert!((1500..=4000).contains(&frames.len()), "{} frames", frames.len());
    assert!(frames.iter().any(|frame| frame.timestamp_ns % 1000 != 0), "recorded with nanoseconds");
    assert!(frames.iter().all(|frame| frame.data.len() <= 1518), "recorded without offloads");
    let has = |ethertype: [u8; 2]| frames.iter().any(|frame| frame.data[12..14] == ethertype);
    assert!([[8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]].into_iter().all(has));
}

/// Set for the child of the test below, which copies standard input to standard output.
const CHILD: &str = "ONVM_CAPTURE_COPY";

#[test]
fn standard_input_and_output_are_a_dash() {
    if env::var_os(CHILD).is_some() {
        return copy_dash();
    }
    let sample = fs::File::open(own_capture()).expect("tests/data/sample.pcap");
    let output = Command::new(env::current_exe().expect("a test runs"))
        .args(["--exact", "standard_input_and_output_are_a_dash", "--nocapture"])
        .env(CHILD, "1")
        .stdin(sample)
        .output()
        .expect("the test runs again");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The test harness prints before and after.
    let whole = fs::read(own_capture()).expect("tests/data/sample.pcap");
    let at = output.stdout.windows(4).position(|bytes| bytes == &whole[..4]).expect("a capture");
    assert!(output.stdout[at..].starts_with(&whole), "a nanosecond pcap is copied byte by byte");
}

fn copy_dash() {
    let mut reader = Reader::open("-").expect("a capture");
    let mut writer = Writer::create("-").expect("an output");
    assert!(matches!(reader.rewind(), Err(Error::NotRewindable { .. })));
    writer.add_interface(LinkType::Ethernet, "").expect("room");
    while let Some(frame) = reader.next_frame().expect("a frame") {
        writer.write_frame(&frame).expect("room");
    }
    writer.finish().expect("room");
}
