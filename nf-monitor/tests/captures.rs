//! Captures of every kind are counted whole: packets, and the bytes that they had on the wire. Real ones are compared
//! with capinfos in `export.rs`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onvm_lib::capture::{Frame, LinkType, Writer};
use onvm_lib::wire::build::Packet;
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nf-monitor")).args(arguments).output().unwrap()
}

/// The whole report over a capture.
fn replay(input: &Path) -> Value {
    let done = run(&["--replay", input.to_str().unwrap(), "--json"]);
    assert!(done.status.success(), "{}: {}", input.display(), String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn capture(folder: &Path, link_type: LinkType, frames: &[Vec<u8>]) -> PathBuf {
    let path = folder.join("in.pcapng");
    let mut writer = Writer::create(&path).unwrap();
    let interface = writer.add_interface(link_type, "").unwrap();
    for data in frames {
        let original_len = u32::try_from(data.len()).unwrap();
        writer.write_frame(&Frame { timestamp_ns: 1, original_len, link_type, interface, data }).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn ip_packet() -> Vec<u8> {
    let packet = Packet::raw().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    packet.udp(5000, 53).payload(b"question").to_vec().unwrap()
}

#[test]
fn a_frame_longer_than_a_buffer_counts_with_its_whole_length() {
    let folder = tempfile::tempdir().unwrap();
    let mut long = [&[2; 12][..], &[8, 0], &ip_packet()].concat();
    long.resize(80_000, 0);
    let all = replay(&capture(folder.path(), LinkType::Ethernet, &[long.clone(), long]));
    let report = &all["report"];
    assert_eq!((&report["packets"], &report["bytes"]), (&2.into(), &160_000.into()));
    assert_eq!(report["protocols"]["transport"]["udp"]["bytes"], 160_000);
    assert_eq!((&all["packets"], &all["dropped"]), (&2.into(), &0.into()));
}

#[test]
fn packets_are_found_behind_every_link_header_that_is_known() {
    let folder = tempfile::tempdir().unwrap();
    for (link_type, header) in [
        (LinkType::Ppp, &[0xff, 3, 0, 0x21][..]),
        (LinkType::CiscoHdlc, &[0x0f, 0, 8, 0]),
        (LinkType::FrameRelay, &[0x18, 0x41, 3, 0xcc]),
        (LinkType::MultilinkFrameRelay, &[0xc0, 0, 0x18, 0x41, 3, 0xcc]),
        (LinkType::Null, &[2, 0, 0, 0]),
        (LinkType::RawIp, &[]),
    ] {
        let frame = [header, &ip_packet()].concat();
        let report =
            replay(&capture(folder.path(), link_type, std::slice::from_ref(&frame)))["report"].take();
        assert_eq!((&report["packets"], &report["bytes"]), (&1.into(), &frame.len().into()), "{link_type}");
        assert_eq!(report["top_flows"][0]["flow"], "10.0.0.1:5000 > 10.0.0.2:53 udp", "{link_type}");
    }
}

#[test]
fn frames_of_unknown_link_types_count_as_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let input = capture(folder.path(), LinkType::Other(189), &[vec![0x45; 64], vec![], vec![1; 5]]);
    let report = replay(&input)["report"].take();
    assert_eq!((&report["packets"], &report["bytes"]), (&3.into(), &69.into()));
    assert_eq!(report["protocols"]["network"]["other"]["packets"], 3);
    // What would be written are Ethernet frames, and these cannot become such.
    let written = folder.path().join("out.pcap");
    let done = run(&["--replay", input.to_str().unwrap(), "--write", written.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("189 (USB_LINUX)"), "{said}");
}

#[test]
fn two_outputs_never_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = capture(folder.path(), LinkType::RawIp, &[ip_packet()]);
    let flows = folder.path().join("flows");
    let (input, plain) = (input.to_str().unwrap(), flows.to_str().unwrap().to_owned());
    let dotted = format!("{}/./flows", folder.path().display());
    let linked = folder.path().join("link").display().to_string();
    let refused = |options: &[&str]| {
        let done = run(&[&["--replay", input], options].concat());
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(1) && said.contains("are the same file"), "{options:?}: {said}");
    };
    refused(&["--csv", &plain, "--json-lines", &dotted]);
    assert!(!flows.exists());
    std::fs::write(&flows, "kept").unwrap();
    std::os::unix::fs::symlink(&flows, &linked).unwrap();
    refused(&["--csv", &plain, "--json-lines", &linked]);
    refused(&["--csv", &linked, "--export", &format!("file:{plain}")]);
    assert_eq!(std::fs::read(&flows).unwrap(), b"kept");
    assert!(run(&["--replay", input, "--csv", "/dev/null", "--json-lines", "/dev/null"]).status.success());
}
