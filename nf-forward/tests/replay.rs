//! The program over captures: what comes out, what is reported, and which command lines are refused.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onvm_lib::capture::{Frame, LinkType, Reader, Writer};
use serde_json::Value;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const SECOND: u64 = 1_000_000_000;

/// An IPv4 packet without payload, from one station to another.
fn frame(dst: [u8; 6], src: [u8; 6], ttl: u8) -> Vec<u8> {
    let mut bytes = [&dst[..], &src, &[8, 0, 0x45]].concat();
    bytes.resize(60, 0);
    (bytes[17], bytes[22], bytes[23]) = (20, ttl, 17);
    let mut ip = onvm_lib::wire::ipv4::Packet::new_checked(&mut bytes[14..34]).unwrap();
    ip.fill_checksum();
    bytes
}

/// Writes frames a second apart, each on an interface of three.
fn capture(folder: &Path, frames: &[(u32, Vec<u8>)]) -> PathBuf {
    let path = folder.join("in.pcapng");
    let mut writer = Writer::create(&path).unwrap();
    for name in ["a", "b", "c"] {
        writer.add_interface(LinkType::Ethernet, name).unwrap();
    }
    for (second, (interface, data)) in (1_700_000_000u64..).zip(frames) {
        let original_len = u32::try_from(data.len()).unwrap();
        let (timestamp_ns, link_type) = (second * SECOND, LinkType::Ethernet);
        writer
            .write_frame(&Frame { timestamp_ns, original_len, link_type, interface: *interface, data })
            .unwrap();
    }
    writer.finish().unwrap();
    path
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nf-forward")).args(arguments).output().unwrap()
}

/// Runs over frames; what was written, and the report.
fn replay(frames: &[(u32, Vec<u8>)], options: &[&str]) -> (Vec<Vec<u8>>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let input = capture(folder.path(), frames);
    let output = folder.path().join("out.pcap");
    let mut arguments =
        vec!["--replay", input.to_str().unwrap(), "--write", output.to_str().unwrap(), "--json"];
    arguments.extend(options);
    let done = run(&arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut written = Vec::new();
    let mut reader = Reader::open(&output).unwrap();
    while let Some(frame) = reader.next_frame().unwrap() {
        written.push(frame.data.to_vec());
    }
    (written, serde_json::from_slice(&done.stdout).unwrap())
}

#[test]
fn plain_packets_come_out_as_they_went_in() {
    let frames: Vec<_> = (1..100).map(|ttl| (0, frame(A, B, ttl))).collect();
    for options in [&[][..], &["--port", "3"], &["-d", "7"]] {
        let (written, json) = replay(&frames, options);
        assert!(written.iter().eq(frames.iter().map(|f| &f.1)));
        assert_eq!(json["report"]["packets"], 99);
        assert_eq!(json["report"]["bytes"], 99 * 60);
    }
}

#[test]
fn rewrites_and_drops_what_expires() {
    let frames = [(0, frame(A, B, 64)), (0, frame(A, B, 1)), (0, vec![1; 10])];
    let (written, json) = replay(&frames, &["--mac-swap", "--decrement-ttl"]);
    assert_eq!(written, [frame(B, A, 63), vec![1; 10]]);
    let report = &json["report"];
    assert_eq!(
        (&report["rewritten"], &report["expired"], &report["too_short"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(json["drops"]["ttl-exceeded"], 1);
    let (written, _) =
        replay(&frames[..1], &["--set-dst-mac", "2:0:0:0:0:b", "--set-src-mac", "2:0:0:0:0:a"]);
    assert_eq!(written, [frame(B, A, 64)]);
}

#[test]
fn bridges_between_the_interfaces() {
    // Unknown: flooded as two; then both known; then to its own port; then aged away (20 s), flooded again.
    let mut frames = vec![(0, frame(B, A, 9)), (1, frame(A, B, 9)), (0, frame(B, A, 9)), (1, frame(B, A, 9))];
    frames.extend((0..25).map(|_| (2, frame([0xff; 6], [2, 0, 0, 0, 0, 0xc], 9))));
    frames.push((2, frame(A, [2, 0, 0, 0, 0, 0xc], 9)));
    let (written, json) = replay(&frames, &["--bridge", "--ports", "3", "--mac-age", "20"]);
    let bridge = &json["report"]["bridge"];
    for (name, n) in [("forwarded", 2), ("flooded", 27), ("same_port", 1), ("moved", 1), ("learned", 3)] {
        assert_eq!(bridge[name], n, "{name} in {bridge}");
    }
    assert_eq!(bridge["expired"], 2);
    assert_eq!(bridge["known"], 1);
    assert_eq!(bridge["ports"][0]["packets_out"], 1 + 26);
    assert_eq!(written.len(), 2 + 27 * 2);
    assert_eq!(json["drops"]["consumed"], 1);
}

#[test]
fn wrong_command_lines_are_refused_with_a_reason() {
    for (arguments, says) in [
        (&["-r", "1", "-d", "2", "--port", "3"][..], "cannot be used with"),
        (&["-r", "1", "--bridge", "--mac-swap"], "cannot be used with"),
        (&["-r", "1", "--bridge", "-d", "2"], "cannot be used with"),
        (&["-r", "1", "--mac-swap", "--set-dst-mac", "2:0:0:0:0:1"], "cannot be used with"),
        (&["-r", "1", "--ports", "3"], "--bridge"),
        (&["-r", "1", "--mac-age", "3"], "--bridge"),
        (&["-r", "1", "--bridge", "--ports", "1"], "1 is not in 2..=127"),
        (&["-r", "1", "--port", "127"], "127 is not in 0..=126"),
        (&["-r", "1", "--set-src-mac", "ff:ff:ff:ff:ff:ff"], "is the address of a group"),
        (&["-r", "1", "--set-dst-mac", "1:2:3"], "six hexadecimal bytes between colons"),
        (&["--mac-swap"], "--service-id"),
    ] {
        let done = run(arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn the_help_names_every_option_and_its_default() {
    let done = run(&["--help"]);
    let help = String::from_utf8(done.stdout).unwrap();
    // Lines are wrapped to the terminal's width.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in
        ["--mac-swap", "--decrement-ttl", "--bridge", "[default: 300]", "[default: 4096]", "[default: 2]"]
    {
        assert!(help.contains(text), "{text} is not in\n{help}");
    }
    assert_eq!(done.status.code(), Some(0));
}
